//! AES-256-GCM in segments, each with a nonce of its own that counts and marks
//! the last one, after the construction STREAM (Hoang, Reyhanitabar, Rogaway,
//! Vizár 2015): no segment can be left out, moved or added unseen
//! (`doc/formats.md`, "aes-256-gcm").

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::key::{Key, Secret, derive, id};
use super::{At, Beside, Envelope, Facts, check_iterations, io_failed, read_up_to, wrong_or_damaged};
use crate::{Error, Result};

/// What a file begins with.
pub(super) const MAGIC: &[u8] = b"TOMOBAK1";
const SALT_AT: usize = 12;
const PREFIX_AT: usize = 28;
const PREFIX_BYTES: usize = 7;
const HEADER_BYTES: usize = 35;
const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
/// Plain text in a segment; only the last one has less.
const SEGMENT_BYTES: usize = 64 << 10;
const SEALED_BYTES: usize = SEGMENT_BYTES + TAG_BYTES;

type Header = [u8; HEADER_BYTES];

fn nonce(header: &Header, number: u32, is_last: bool) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..PREFIX_BYTES].copy_from_slice(&header[PREFIX_AT..]);
    nonce[PREFIX_BYTES..11].copy_from_slice(&number.to_be_bytes());
    nonce[11] = u8::from(is_last);
    Nonce::assume_unique_for_key(nonce)
}

/// The header is authenticated with the first segment.
fn associated(header: &Header, number: u32) -> Aad<&[u8]> {
    Aad::from(if number == 0 { header.as_slice() } else { &[] })
}

fn keys(secret: &Secret, header: &Header) -> Result<(LessSafeKey, String)> {
    let iterations = u32::from_be_bytes(header[MAGIC.len()..SALT_AT].try_into().expect("4 bytes"));
    let key = derive::<KEY_BYTES>(secret, &header[SALT_AT..PREFIX_AT], check_iterations(iterations)?)?;
    let key_id = id(&hmac::Key::new(hmac::HMAC_SHA256, key.as_slice()));
    let key = UnboundKey::new(&AES_256_GCM, key.as_slice()).expect("the key is 32 bytes");
    Ok((LessSafeKey::new(key), key_id))
}

/// Writes an encrypted file.
pub(super) struct Writer<W: Write> {
    out: W,
    key: LessSafeKey,
    header: Header,
    number: u32,
    segment: Vec<u8>,
    facts: Facts,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(secret: &Secret, iterations: u32, out: W) -> Result<Self> {
        let mut header = [0; HEADER_BYTES];
        getrandom::fill(&mut header[SALT_AT..]).expect("the system has random bytes");
        Self::with_header(secret, iterations, header, out)
    }

    fn with_header(secret: &Secret, iterations: u32, mut header: Header, mut out: W) -> Result<Self> {
        header[..MAGIC.len()].copy_from_slice(MAGIC);
        header[MAGIC.len()..SALT_AT].copy_from_slice(&iterations.to_be_bytes());
        let (key, key_id) = keys(secret, &header)?;
        out.write_all(&header).map_err(io_failed)?;
        let facts = Facts { envelope: Envelope::Gcm, iterations: Some(iterations), key_id: Some(key_id), hmac: None };
        Ok(Self { out, key, header, number: 0, segment: Vec::with_capacity(SEALED_BYTES), facts })
    }

    fn put(&mut self, is_last: bool) -> io::Result<()> {
        let nonce = nonce(&self.header, self.number, is_last);
        let sealed = self.key.seal_in_place_append_tag(nonce, associated(&self.header, self.number), &mut self.segment);
        sealed.expect("a segment is not too long");
        self.out.write_all(&self.segment)?;
        self.segment.clear();
        // 2 to the 32 segments are 256 TiB.
        self.number = self.number.checked_add(1).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<(W, Facts)> {
        self.put(true)?;
        Ok((self.out, self.facts))
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

/// The key of a file.
pub(super) struct Unlocked {
    key: std::sync::Arc<LessSafeKey>,
    header: Header,
}

impl std::fmt::Debug for Unlocked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unlocked")
    }
}

/// Derives the key of the file by `key`, and tries it.
pub(super) fn unlock(file: &std::sync::Arc<File>, key: &Key, beside: &Beside) -> Result<Unlocked> {
    let secret = key.password()?;
    let mut header = [0; HEADER_BYTES];
    if read_up_to(file, &mut header, 0).map_err(io_failed)? < HEADER_BYTES {
        return Err(Error::corrupt("the encrypted file is cut off"));
    }
    let (key, key_id) = keys(secret, &header)?;
    let unlocked = Unlocked { key: key.into(), header };
    let reader = || Reader::new(At { file: file.clone(), at: 0 }, &unlocked);
    let opens = |number: u32| match reader().and_then(|mut reader| reader.open(number)) {
        Ok(is_there) => Ok(is_there),
        Err(error) if error.raw_os_error().is_some() => Err(io_failed(error)),
        Err(_) => Ok(false),
    };
    // The second one, if there is one, does not depend on the header; so it tells a wrong password from damage.
    if opens(0)? {
        return Ok(unlocked);
    }
    let is_right = beside.key_id.as_ref() == Some(&key_id) || opens(1)?;
    Err(wrong_or_damaged(is_right, "its beginning is damaged"))
}

/// Reads the plain text, segment by segment.
pub(super) struct Reader {
    file: At,
    key: std::sync::Arc<LessSafeKey>,
    header: Header,
    /// The bytes after the header.
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
    pub(super) fn new(file: At, unlocked: &Unlocked) -> io::Result<Self> {
        let len = file.len()?.saturating_sub(HEADER_BYTES as u64);
        let (key, header) = (std::sync::Arc::clone(&unlocked.key), unlocked.header);
        Ok(Self { file, key, header, len, segment: Zeroizing::default(), number: None, at: 0 })
    }

    /// Decrypts the segment `number`; false when the file ends before it.
    fn open(&mut self, number: u32) -> io::Result<bool> {
        let from = u64::from(number) * SEALED_BYTES as u64;
        let left = self.len.saturating_sub(from);
        if left == 0 && number > 0 {
            return Ok(false);
        }
        let is_last = left <= SEALED_BYTES as u64;
        let len = usize::try_from(left).unwrap_or(SEALED_BYTES).min(SEALED_BYTES);
        // Only a file with nothing in it has a segment with nothing in it.
        if len < TAG_BYTES || (len == TAG_BYTES && number > 0) {
            return Err(damaged("it is cut off"));
        }
        self.number = None;
        self.segment.resize(SEALED_BYTES, 0);
        if read_up_to(&self.file.file, &mut self.segment[..len], HEADER_BYTES as u64 + from)? < len {
            return Err(damaged("it became shorter while it was read"));
        }
        self.segment.truncate(len);
        let nonce = nonce(&self.header, number, is_last);
        let opened = self.key.open_in_place(nonce, associated(&self.header, number), &mut self.segment);
        opened.map_err(|_| damaged(&format!("segment {number} is not what was written")))?;
        self.segment.truncate(len - TAG_BYTES);
        self.number = Some(number);
        Ok(true)
    }
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
        let to = match to {
            SeekFrom::Start(to) => Some(to),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(_) => None,
        };
        self.at = to.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
