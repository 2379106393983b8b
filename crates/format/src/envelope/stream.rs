//! Segments of 64 KiB, each encrypted by itself with a nonce that counts and
//! marks the last one, after the construction STREAM (Hoang, Reyhanitabar,
//! Rogaway, Vizár 2015): no segment can be left out, moved or added unseen.
//! `age` and `aes-256-gcm` differ in the cipher and in what stands before.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use zeroize::Zeroizing;

use super::{At, place, read_up_to};

pub(super) const PREFIX_BYTES: usize = 7;
pub(super) const TAG_BYTES: usize = 16;
/// Plain text in a segment; only the last one has less.
pub(super) const SEGMENT_BYTES: usize = 64 << 10;
pub(super) const SEALED_BYTES: usize = SEGMENT_BYTES + TAG_BYTES;

/// What the segments of one file have in common.
pub(super) struct Stream {
    pub(super) key: LessSafeKey,
    /// What every nonce begins with. No two files of one key may have the same.
    pub(super) prefix: [u8; PREFIX_BYTES],
    /// What is authenticated with the first segment; it stands in the file.
    pub(super) head: Vec<u8>,
    /// Where the first segment begins in the file.
    pub(super) from: u64,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stream")
    }
}

/// The nonce of a segment: 7 bytes of the file, its number, and whether it is the last.
pub(super) fn nonce(prefix: [u8; PREFIX_BYTES], number: u32, is_last: bool) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..PREFIX_BYTES].copy_from_slice(&prefix);
    nonce[PREFIX_BYTES..11].copy_from_slice(&number.to_be_bytes());
    nonce[11] = u8::from(is_last);
    nonce
}

impl Stream {
    fn nonce(&self, number: u32, is_last: bool) -> Nonce {
        Nonce::assume_unique_for_key(nonce(self.prefix, number, is_last))
    }

    fn associated(&self, number: u32) -> Aad<&[u8]> {
        Aad::from(if number == 0 { self.head.as_slice() } else { &[] })
    }
}

/// Writes segments.
pub(super) struct Writer<W: Write> {
    out: W,
    stream: Stream,
    number: u32,
    segment: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Goes on behind what was written to `out`, to where the first segment is to stand.
    pub(super) fn new(stream: Stream, out: W) -> Self {
        Self { out, stream, number: 0, segment: Vec::with_capacity(SEALED_BYTES) }
    }

    pub(super) fn put(&mut self, is_last: bool) -> io::Result<()> {
        // 2 to the 32 segments are 256 TiB. No number may come twice, so the next one is looked at first.
        let next = self.number.checked_add(1).ok_or(io::ErrorKind::FileTooLarge)?;
        let (nonce, associated) = (self.stream.nonce(self.number, is_last), self.stream.associated(self.number));
        let sealed = self.stream.key.seal_in_place_append_tag(nonce, associated, &mut self.segment);
        sealed.expect("a segment is not too long");
        self.number = next;
        let written = self.out.write_all(&self.segment);
        self.segment.clear();
        written
    }

    /// Goes on as if as many segments had been written before.
    #[cfg(test)]
    pub(super) fn start_at(&mut self, number: u32) {
        self.number = number;
    }

    /// Writes what is left as the last segment.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.put(true)?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full segment waits until it is known not to be the last.
        if self.segment.len() == SEGMENT_BYTES && !bytes.is_empty() {
            self.put(false)?;
        }
        let taken = bytes.len().min(SEGMENT_BYTES - self.segment.len());
        self.segment.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Reads the plain text, segment by segment.
pub(super) struct Reader {
    file: At,
    stream: Arc<Stream>,
    /// The bytes of all segments.
    len: u64,
    segment: Zeroizing<Vec<u8>>,
    /// The number of the segment at hand, if there is one.
    number: Option<u32>,
    at: u64,
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Reader {
    pub(super) fn new(file: At, stream: Arc<Stream>) -> io::Result<Self> {
        let len = file.len()?.saturating_sub(stream.from);
        Ok(Self { file, stream, len, segment: Zeroizing::default(), number: None, at: 0 })
    }

    /// Decrypts the segment `number`; false when the file ends before it.
    pub(super) fn open(&mut self, number: u32) -> io::Result<bool> {
        let is_last = self.len.saturating_sub(segment_place(number)) <= SEALED_BYTES as u64;
        self.open_as(number, is_last)
    }

    /// The same, by a nonce that says whether it is the last one.
    pub(super) fn open_as(&mut self, number: u32, is_last: bool) -> io::Result<bool> {
        let from = segment_place(number);
        let left = self.len.saturating_sub(from);
        if left == 0 && number > 0 {
            return Ok(false);
        }
        let len = usize::try_from(left).unwrap_or(SEALED_BYTES).min(SEALED_BYTES);
        // Only a file with nothing in it has a segment with nothing in it.
        if len < TAG_BYTES || (len == TAG_BYTES && number > 0) {
            return Err(damaged("it is cut off"));
        }
        self.number = None;
        self.segment.resize(SEALED_BYTES, 0);
        if read_up_to(&self.file.file, &mut self.segment[..len], self.stream.from + from)? < len {
            return Err(damaged("it became shorter while it was read"));
        }
        self.segment.truncate(len);
        let (nonce, associated) = (self.stream.nonce(number, is_last), self.stream.associated(number));
        let opened = self.stream.key.open_in_place(nonce, associated, &mut self.segment);
        opened.map_err(|_| damaged(&format!("segment {number} is not what was written")))?;
        self.segment.truncate(len - TAG_BYTES);
        self.number = Some(number);
        Ok(true)
    }
}

/// Where a segment begins, behind the beginning of the first.
fn segment_place(number: u32) -> u64 {
    u64::from(number) * SEALED_BYTES as u64
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let number = u32::try_from(self.at / SEGMENT_BYTES as u64).map_err(|_| damaged("it is too long"))?;
        if self.number != Some(number) && !self.open(number)? {
            return Ok(0);
        }
        let from = usize::try_from(self.at % SEGMENT_BYTES as u64).expect("below the length of a segment");
        let waiting = self.segment.get(from..).unwrap_or_default();
        let len = waiting.len().min(buffer.len());
        buffer[..len].copy_from_slice(&waiting[..len]);
        self.at += len as u64;
        Ok(len)
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = place(to, self.at)?;
        Ok(self.at)
    }
}
