//! A text for one child that nobody else sees: neither an argument nor a part of
//! the environment, and never on a disk.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::process::Stdio;

use rustix::fs::{MemfdFlags, Mode};

/// A file in memory that only our own user may open, as programs want it of a
/// file of passwords.
pub(crate) struct Secret(File);

impl Secret {
    pub(crate) fn new(text: &[u8]) -> io::Result<Self> {
        let mut file: File = rustix::fs::memfd_create("secret", MemfdFlags::CLOEXEC)?.into();
        rustix::fs::fchmod(&file, Mode::RUSR | Mode::WUSR)?;
        file.write_all(text)?;
        file.rewind()?;
        Ok(Self(file))
    }

    pub(super) fn into_stdin(self) -> Stdio {
        self.0.into()
    }
}

impl Secret {
    /// Where a child opens what is its stdin ([`super::Tool::secret`]).
    pub(crate) const AS_STDIN: &str = "/dev/stdin";

    /// Where a child whose stdin is taken opens it, while this lives.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}
