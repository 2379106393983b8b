//! The bytes of a script as they come, with a few of those that follow, the
//! number of the line and the place.

use std::io::{ErrorKind as Io, Read};

use lifeboat_store::Cancel;

use crate::{Error, ErrorKind, Result};

/// How much is read at once, in bytes.
const BUFFER_BYTES: usize = 64 << 10;

/// A script that is being read.
pub(super) struct Input<'a> {
    reader: &'a mut dyn Read,
    cancel: &'a Cancel,
    buffer: Box<[u8]>,
    /// What of the buffer is read, and not taken yet.
    at: usize,
    end: usize,
    is_over: bool,
    /// The number of the line that the next byte is in; the first is 1.
    line: u64,
    /// How many bytes were taken.
    taken: u64,
}

impl<'a> Input<'a> {
    pub(super) fn new(reader: &'a mut dyn Read, cancel: &'a Cancel) -> Self {
        let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        Self { reader, cancel, buffer, at: 0, end: 0, is_over: false, line: 1, taken: 0 }
    }

    pub(super) fn line(&self) -> u64 {
        self.line
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// The byte that comes after `ahead` others, if the script is so long; `ahead` is small.
    pub(super) fn peek(&mut self, ahead: usize) -> Result<Option<u8>> {
        while self.end - self.at <= ahead && !self.is_over {
            self.fill()?;
        }
        Ok(self.buffer[self.at..self.end].get(ahead).copied())
    }

    /// Bytes that come next: at least one, unless the script is over.
    pub(super) fn rest(&mut self) -> Result<&[u8]> {
        self.peek(0)?;
        Ok(&self.buffer[self.at..self.end])
    }

    /// Takes the next `count` bytes, all of which were seen by [`Self::peek`] or [`Self::rest`].
    pub(super) fn take(&mut self, count: usize) -> &[u8] {
        let taken = &self.buffer[self.at..self.at + count];
        self.line += taken.iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
        self.at += count;
        self.taken += count as u64;
        taken
    }

    fn fill(&mut self) -> Result<()> {
        self.cancel.check()?;
        if self.at > 0 {
            self.buffer.copy_within(self.at..self.end, 0);
            self.end -= self.at;
            self.at = 0;
        }
        match self.reader.read(&mut self.buffer[self.end..]) {
            Ok(0) => self.is_over = true,
            Ok(count) => self.end += count,
            Err(error) if error.kind() == Io::Interrupted => {}
            Err(error) => return Err(Error::new(ErrorKind::Failed, format!("cannot read the SQL script: {error}"))),
        }
        Ok(())
    }
}
