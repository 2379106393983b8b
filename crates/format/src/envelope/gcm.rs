//! AES-256-GCM in segments, behind a header that says how the key is derived
//! from the password (`doc/formats.md`, "aes-256-gcm").

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use aws_lc_rs::hmac;

use super::key::{Key, Secret, derive, id};
use super::stream::{self, PREFIX_BYTES, Reader, SEALED_BYTES, Stream, TAG_BYTES};
use super::{At, Beside, Envelope, Facts, check_iterations, io_failed, read_up_to, wrong_or_damaged};
use crate::{Error, Result};

/// What a file begins with.
pub(super) const MAGIC: &[u8] = b"TOMOBAK1";
const SALT_AT: usize = 12;
const PREFIX_AT: usize = 28;
pub(super) const HEADER_BYTES: usize = PREFIX_AT + PREFIX_BYTES;
const KEY_BYTES: usize = 32;

pub(super) type Header = [u8; HEADER_BYTES];

/// A header with a salt and a prefix that no other file has.
pub(super) fn new_header(iterations: u32) -> Header {
    let mut header = [0; HEADER_BYTES];
    header[..MAGIC.len()].copy_from_slice(MAGIC);
    header[MAGIC.len()..SALT_AT].copy_from_slice(&iterations.to_be_bytes());
    getrandom::fill(&mut header[SALT_AT..]).expect("the system has random bytes");
    header
}

/// The stream behind `header`, and the id of the key.
fn stream(secret: &Secret, header: &Header) -> Result<(Stream, String)> {
    let iterations = u32::from_be_bytes(header[MAGIC.len()..SALT_AT].try_into().expect("4 bytes"));
    let key = derive::<KEY_BYTES>(secret, &header[SALT_AT..PREFIX_AT], check_iterations(iterations)?)?;
    let key_id = id(&hmac::Key::new(hmac::HMAC_SHA256, key.as_slice()));
    let key = UnboundKey::new(&AES_256_GCM, key.as_slice()).expect("the key is 32 bytes");
    let prefix = header[PREFIX_AT..].try_into().expect("7 bytes");
    let stream = Stream { key: LessSafeKey::new(key), prefix, head: header.to_vec(), from: HEADER_BYTES as u64 };
    Ok((stream, key_id))
}

/// Writes an encrypted file.
pub(super) struct Writer<W: Write> {
    segments: stream::Writer<W>,
    facts: Facts,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(secret: &Secret, iterations: u32, out: W) -> Result<Self> {
        Self::with_header(secret, iterations, &new_header(iterations), out)
    }

    pub(super) fn with_header(secret: &Secret, iterations: u32, header: &Header, mut out: W) -> Result<Self> {
        let (stream, key_id) = stream(secret, header)?;
        out.write_all(header).map_err(io_failed)?;
        let facts = Facts { envelope: Envelope::Gcm, iterations: Some(iterations), key_id: Some(key_id), hmac: None };
        Ok(Self { segments: stream::Writer::new(stream, out), facts })
    }

    pub(super) fn finish(self) -> io::Result<(W, Facts)> {
        Ok((self.segments.finish()?, self.facts))
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.segments.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.segments.flush()
    }
}

/// Derives the key of the file by `key`, and tries it.
pub(super) fn unlock(file: &Arc<File>, key: &Key, beside: &Beside) -> Result<Arc<Stream>> {
    let secret = key.password()?;
    let mut header = [0; HEADER_BYTES];
    let len = file.metadata().map_err(io_failed)?.len();
    let is_whole = read_up_to(file, &mut header, 0).map_err(io_failed)? == HEADER_BYTES;
    if !is_whole || len < (HEADER_BYTES + TAG_BYTES) as u64 {
        return Err(Error::corrupt("the encrypted file is cut off"));
    }
    let (stream, key_id) = stream(secret, &header)?;
    let stream = Arc::new(stream);
    let mut reader = Reader::new(At { file: file.clone(), at: 0 }, stream.clone()).map_err(io_failed)?;
    let opened = |opened: io::Result<bool>| match opened {
        Ok(is_there) => Ok(is_there),
        Err(error) if error.raw_os_error().is_some() => Err(io_failed(error)),
        Err(_) => Ok(false),
    };
    if opened(reader.open(0))? {
        return Ok(stream);
    }
    // What tells a wrong password from damage: the first segment, if what followed it is gone; the second one,
    // which does not depend on the first and the header.
    let is_cut = len == (HEADER_BYTES + SEALED_BYTES) as u64 && opened(reader.open_as(0, false))?;
    let is_right = is_cut || beside.key_id.as_ref() == Some(&key_id) || opened(reader.open(1))?;
    Err(wrong_or_damaged(is_right, if is_cut { "it is cut off" } else { "its beginning is damaged" }))
}
