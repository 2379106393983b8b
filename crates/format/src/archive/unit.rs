//! The buffers of the archive: filled a piece at a time, and used again.

use std::io::{self, Read};

use super::{UNIT_BYTES, padding};

/// Bytes that are compressed, or decompressed, together. The room is kept when
/// the bytes go, so that memory is taken and set to zero only once.
pub(super) struct Unit {
    room: Vec<u8>,
    len: usize,
}

impl Unit {
    pub(super) fn new() -> Self {
        Self { room: Vec::new(), len: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Forgets what lies after the first `len` bytes.
    pub(super) fn cut_back(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Replaces what was pushed at `at`.
    pub(super) fn patch(&mut self, at: usize, bytes: &[u8]) {
        self.room[..self.len][at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn filled(&self) -> &[u8] {
        &self.room[..self.len]
    }

    fn make_room(&mut self, more: usize) -> &mut [u8] {
        let end = self.len + more;
        if self.room.len() < end {
            // In steps, and at once to the usual size: growing copies.
            let grown = if end > 1 << 16 { end.max(UNIT_BYTES + (64 << 10)) } else { end.next_power_of_two() };
            self.room.resize(grown, 0);
        }
        &mut self.room[self.len..end]
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len()).copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Zeros up to a whole block after `content_len` bytes of content.
    pub(super) fn pad(&mut self, content_len: u64) {
        let zeros = padding(content_len);
        self.make_room(zeros).fill(0);
        self.len += zeros;
    }

    /// Reads `wanted` bytes, or fewer where the content ends early.
    pub(super) fn read_from(&mut self, content: &mut (impl Read + ?Sized), wanted: usize) -> io::Result<usize> {
        let room = self.make_room(wanted);
        let mut read = 0;
        while read < wanted {
            match content.read(&mut room[read..]) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.len += read;
        Ok(read)
    }
}
