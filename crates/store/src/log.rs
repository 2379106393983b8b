//! An append-only file of lines that survives: a journal. A line that was
//! synced stays; one that a crash cut short is not there when it is opened again.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use crate::durable::{Unnamed, sync_dir};
use crate::{Error, ErrorKind, Result};

/// An open log.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: PathBuf,
}

impl Log {
    /// A new log of mode 0600 with these first lines, and its name durable.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] when there is such a file; else what the system says.
    pub fn create(path: &Path, lines: &str) -> Result<Self> {
        let name = path.file_name().unwrap_or_default();
        let mut first = Unnamed::create(dir_of(path))?;
        first.append(lines.as_bytes())?;
        first.publish([name], 0o600)?;
        Self::open(path).map(|(log, _)| log)
    }

    /// Opens the log at `path` and reads its whole lines. What a crash left of
    /// a last one is cut off by the next [`Log::append`], not before.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path) -> Result<(Self, String)> {
        let file = OpenOptions::new().read(true).append(true).open(path);
        let file = file.map_err(|error| Error::io("open", path, error))?;
        let mut log = Self { file, path: path.to_owned() };
        let text = log.read()?;
        Ok((log, text))
    }

    /// The whole lines of the log at `path`, without touching it.
    ///
    /// # Errors
    /// What the system says.
    pub fn peek(path: &Path) -> Result<String> {
        let file = File::open(path).map_err(|error| Error::io("open", path, error))?;
        Self { file, path: path.to_owned() }.read()
    }

    fn read(&mut self) -> Result<String> {
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes).map_err(|error| Error::io("read", &self.path, error))?;
        bytes.truncate(whole_lines(&bytes));
        String::from_utf8(bytes)
            .map_err(|_| Error::new(ErrorKind::Io, format!("{} is damaged: it is no text", self.path.display())))
    }

    /// Appends `lines`, each with its line break, and syncs them: all of them, or
    /// none. What could not be synced is cut off again, so that nobody reads it
    /// as if it had been said.
    ///
    /// # Errors
    /// What the system says.
    pub fn append(&mut self, lines: &str) -> Result<()> {
        debug_assert!(lines.ends_with('\n'), "a line without its end would not be read");
        let path = self.path.clone();
        let failed = |error| Error::io("write to", &path, error);
        self.cut_partial_line().map_err(failed)?;
        let len = self.file.metadata().map_err(failed)?.len();
        // A failed sync is final: the kernel may have dropped the pages, so it is never tried again.
        let written = self.file.write_all(lines.as_bytes()).and_then(|()| self.file.sync_all());
        written.map_err(|error| {
            self.file.set_len(len).unwrap_or(());
            failed(error)
        })
    }

    fn cut_partial_line(&mut self) -> std::io::Result<()> {
        let len = self.file.metadata()?.len();
        let mut last = [b'\n'];
        if len > 0 {
            self.file.seek(SeekFrom::Start(len - 1))?;
            self.file.read_exact(&mut last)?;
        }
        if last == [b'\n'] {
            return Ok(());
        }
        let mut bytes = Vec::new();
        self.file.rewind()?;
        self.file.read_to_end(&mut bytes)?;
        self.file.set_len(whole_lines(&bytes) as u64)
    }

    /// Removes the log, durably.
    ///
    /// # Errors
    /// What the system says; a log that is gone already is none.
    pub fn remove(&self) -> Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &self.path, error)),
            _ => sync_dir(dir_of(&self.path)),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn dir_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn whole_lines(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cut_short_by_a_crash_is_not_there_and_does_not_spoil_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.jsonl");
        let mut log = Log::create(&path, "one\n").unwrap();
        log.append("two\nthree\n").unwrap();
        let whole = std::fs::read(&path).unwrap();
        drop(log);
        for cut in 0..=whole.len() {
            OpenOptions::new().write(true).truncate(true).open(&path).unwrap().write_all(&whole[..cut]).unwrap();
            let (mut log, text) = Log::open(&path).unwrap();
            let expected = &whole[..whole_lines(&whole[..cut])];
            assert_eq!(text.as_bytes(), expected, "cut at {cut}");
            log.append("four\n").unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), [expected, b"four\n"].concat(), "cut at {cut}");
        }
        assert_eq!(Log::create(&path, "x\n").unwrap_err().kind(), ErrorKind::Exists);
        Log::open(&path).unwrap().0.remove().unwrap();
        assert!(!path.exists());
    }
}
