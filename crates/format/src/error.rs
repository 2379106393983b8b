//! The one error shape of the formats.

use std::fmt;

use lifeboat_store as store;

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The bytes are not what was written: damaged, cut off or changed.
    Corrupt,
    /// Nothing is wrong with the bytes, but this version cannot read them.
    Unsupported,
    /// It is encrypted, and no key that was given opens it.
    WrongKey,
    /// What the archive asks for would be dangerous to do.
    Unsafe,
    /// What the caller asks for makes no sense.
    Invalid,
    /// Storage failed, in this way.
    Store(store::ErrorKind),
}

/// A failure of reading or writing a format.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<store::Error>,
}

/// What the formats return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `kind`; `message` says what failed on which object.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Bytes that are not what was written.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl From<store::Error> for Error {
    fn from(source: store::Error) -> Self {
        Self { kind: ErrorKind::Store(source.kind()), message: source.to_string(), source: Some(source) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}
