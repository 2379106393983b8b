//! The one error shape of the engine: what failed, whether data is safe, and
//! what to do next. The kind decides the exit code, in one table at the surface.

use std::fmt;

use lifeboat_format as format;
use lifeboat_store as store;

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// None of the others.
    Failed,
    /// The request makes no sense.
    Usage,
    /// Bytes are not what was written.
    Corrupt,
    /// No password or key, or not the right one.
    WrongKey,
    /// No space, inodes or quota left.
    NoSpace,
    /// The right to do it is missing.
    Denied,
    /// Written in a way that this version cannot read.
    Unsupported,
    /// A source could not be backed up.
    SourceFailed,
    /// What was written does not read back.
    VerificationFailed,
    /// It would overwrite or delete something, and nobody agreed to that.
    ConfirmationNeeded,
    /// The archive asks for something dangerous.
    Unsafe,
    /// Something that would be replaced is in use.
    InUse,
    /// A destination is not there, or is not what it was.
    Unreachable,
    /// Another run has the lock.
    Locked,
    /// A restore failed and was rolled back: all is as before.
    RolledBack,
    /// A restore failed and could not be rolled back wholly: both copies are kept.
    RollbackIncomplete,
    /// A signal asked the run to stop.
    Cancelled,
}

/// A failure of an operation.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    what: String,
    state: Option<String>,
    next: Option<String>,
}

/// What the engine returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `kind`; `what` says what failed on which object.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), state: None, next: None }
    }

    /// Says first which object it is about, unless that is said already.
    #[must_use]
    pub(crate) fn about(mut self, path: &std::path::Path) -> Self {
        let name = path.display().to_string();
        if !self.what.contains(&name) {
            self.what = format!("{name}: {}", self.what);
        }
        self
    }

    /// Says first what had gone wrong before.
    #[must_use]
    pub(crate) fn after(mut self, what: &str) -> Self {
        self.what = format!("{what}; then {}", self.what);
        self
    }

    /// Adds whether data is safe. What was said deeper down stays.
    #[must_use]
    pub fn state(mut self, state: impl Into<String>) -> Self {
        self.state.get_or_insert_with(|| state.into());
        self
    }

    /// Adds what to do next. What was said deeper down stays.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next.get_or_insert_with(|| next.into());
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What failed, on which object.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Whether data is safe, where the place that failed knew.
    #[must_use]
    pub fn data_state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// What to do next, where the place that failed knew.
    #[must_use]
    pub fn next_step(&self) -> Option<&str> {
        self.next.as_deref()
    }
}

fn kind_of(kind: store::ErrorKind) -> ErrorKind {
    match kind {
        store::ErrorKind::Denied => ErrorKind::Denied,
        store::ErrorKind::NoSpace => ErrorKind::NoSpace,
        store::ErrorKind::Cancelled => ErrorKind::Cancelled,
        store::ErrorKind::NotFound | store::ErrorKind::Exists | store::ErrorKind::Io => ErrorKind::Failed,
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::new(kind_of(error.kind()), error.to_string())
    }
}

impl From<format::Error> for Error {
    fn from(error: format::Error) -> Self {
        let kind = match error.kind() {
            format::ErrorKind::Corrupt => ErrorKind::Corrupt,
            format::ErrorKind::Unsupported => ErrorKind::Unsupported,
            format::ErrorKind::Unsafe => ErrorKind::Unsafe,
            format::ErrorKind::WrongKey => ErrorKind::WrongKey,
            format::ErrorKind::Invalid => ErrorKind::Usage,
            format::ErrorKind::Store(kind) => kind_of(kind),
        };
        Self::new(kind, error.to_string())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Error {}
