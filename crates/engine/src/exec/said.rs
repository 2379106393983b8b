//! What a program says: a file in memory of which the end is kept.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::process::Stdio;

use lifeboat_format::path::shown;
use rustix::fs::{FallocateFlags, MemfdFlags, OFlags};

/// How much of the output is kept: the end of it.
pub(super) const SAID_MAX_BYTES: usize = 4 << 10;
/// How much memory the output may take before its beginning is dropped.
const OUTPUT_MAX_BYTES: u64 = 1 << 20;
/// The unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;

/// A file in memory that is written at its end, wherever that is: a daemon
/// goes on writing after it was emptied.
pub(super) struct Said(File);

impl Said {
    pub(super) fn new() -> io::Result<Self> {
        let fd: OwnedFd = rustix::fs::memfd_create("output", MemfdFlags::CLOEXEC)?;
        rustix::fs::fcntl_setfl(fd.as_fd(), OFlags::APPEND)?;
        Ok(Self(fd.into()))
    }

    /// What a child writes to.
    pub(super) fn stdio(&self) -> io::Result<Stdio> {
        Ok(self.0.try_clone()?.into())
    }

    /// A daemon may keep the file: it should not keep what was read already.
    pub(super) fn forget(&self) {
        self.0.set_len(0).unwrap_or(());
    }

    /// Keeps a program that prints without end from filling the memory: all but
    /// the end of its output gives up its space. The file is never made shorter
    /// here, or what the program says at that very moment would be lost.
    pub(super) fn cut(&self) {
        let Ok(metadata) = self.0.metadata() else { return };
        let unwanted = metadata.len().saturating_sub(SAID_MAX_BYTES as u64);
        if metadata.blocks() * BLOCK_BYTES > OUTPUT_MAX_BYTES && unwanted > 0 {
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&self.0, punch, 0, unwanted).unwrap_or(());
        }
    }

    /// The last lines of the output, at most [`SAID_MAX_BYTES`] of them.
    pub(super) fn tail(&self) -> String {
        let len = self.0.metadata().map_or(0, |metadata| metadata.len());
        let from = len.saturating_sub(SAID_MAX_BYTES as u64);
        let mut bytes = vec![0; SAID_MAX_BYTES];
        let read = self.0.read_at(&mut bytes, from).unwrap_or(0);
        let lines: Vec<String> = bytes[..read]
            .split(|byte| *byte == b'\n')
            .map(|line| shown(line.trim_ascii_end()))
            .filter(|line| !line.is_empty())
            .collect();
        let text = lines.join("\n");
        // Escaped, it may be longer than it was.
        let start = text.ceil_char_boundary(text.len().saturating_sub(SAID_MAX_BYTES));
        text[start..].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn of_much_only_the_end_takes_memory() {
        let mut said = Said::new().unwrap();
        said.0.write_all(&vec![b'x'; 3 << 20]).unwrap();
        said.0.write_all(b"\nthe end").unwrap();
        said.cut();
        assert!(said.0.metadata().unwrap().blocks() * BLOCK_BYTES < 64 << 10);
        assert!(said.tail().ends_with("x\nthe end"));
    }
}
