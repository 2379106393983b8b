//! The bytes of an archive, whether they lie there plain or in an envelope:
//! read from any place, by several at once.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use lifeboat_store::{self as store, Cancel};

use crate::envelope::{Plaintext, Sealed, place};
use crate::{Error, Result};

/// What an archive is read from.
#[derive(Clone, Debug)]
pub enum Contents {
    /// A file as it is.
    Plain(Arc<File>),
    /// A file in an envelope.
    Sealed(Arc<Sealed>),
}

impl Contents {
    /// A reader, at the beginning.
    pub(super) fn reader(&self) -> Result<Cursor> {
        let from = match self {
            Self::Plain(file) => From::Plain(Arc::clone(file)),
            Self::Sealed(sealed) => {
                let plain = sealed.reader().map_err(|error| match error.raw_os_error() {
                    Some(_) => store::Error::io("read", Path::new("the encrypted file"), error).into(),
                    None => Error::corrupt(error.to_string()),
                })?;
                From::Sealed(plain)
            }
        };
        Ok(Cursor { from, at: 0 })
    }

    /// Makes sure of what nobody asked for, up to the end: it is a part of what was encrypted.
    pub(super) fn finish(&self, cancel: &Cancel) -> Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Sealed(sealed) => sealed.read_rest(cancel),
        }
    }
}

/// A reader with a place of its own.
pub(super) struct Cursor {
    from: From,
    pub(super) at: u64,
}

enum From {
    Plain(Arc<File>),
    Sealed(Box<dyn Plaintext>),
}

impl Cursor {
    /// The file, where it lies there plain.
    pub(super) fn plain(&self) -> Option<&File> {
        match &self.from {
            From::Plain(file) => Some(file),
            From::Sealed(_) => None,
        }
    }
}

impl Read for Cursor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.from {
            From::Plain(file) => file.read_at(buffer, self.at)?,
            From::Sealed(plain) => plain.read(buffer)?,
        };
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = place(to, self.at)?;
        if let From::Sealed(plain) = &mut self.from {
            plain.seek(SeekFrom::Start(to))?;
        }
        self.at = to;
        Ok(to)
    }
}
