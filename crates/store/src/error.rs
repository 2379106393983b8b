//! The one error shape of storage. The kind decides what a caller may do and,
//! at the surface, the exit code; the text says what failed on which object.

use std::fmt;
use std::io;
use std::path::Path;

/// What kind of failure it is. Closed and small on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The object is not there.
    NotFound,
    /// The object is there already and must not be overwritten.
    Exists,
    /// The right to do it is missing, or the file system is read-only.
    Denied,
    /// No space, no inodes or no quota left.
    NoSpace,
    /// The operation was asked to stop.
    Cancelled,
    /// Any other failure of the system: an I/O error, too many open files.
    Io,
}

/// A failure of storage.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    context: String,
    source: Option<io::Error>,
}

/// What storage returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error without a cause of the system below it.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// The error of a system call: `doing` completes "could not … PATH".
    pub fn io(doing: &str, path: &Path, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        Self { kind: kind_of(&source), context: format!("could not {doing} {}", path.display()), source: Some(source) }
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// The kind that an error of the system has.
#[must_use]
pub fn kind_of(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::AlreadyExists => ErrorKind::Exists,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => ErrorKind::NoSpace,
        _ => ErrorKind::Io,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(f, "{}: {source}", self.context),
            None => f.write_str(&self.context),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}
