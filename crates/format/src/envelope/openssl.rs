//! What `openssl enc -aes-256-cbc -pbkdf2 -salt` writes: the word `Salted__`, a
//! salt, and CBC. That alone does not show a change, so that an HMAC of the
//! whole stands beside it; its key follows on the key and the first vector in
//! what PBKDF2 derives (`doc/formats.md`, "openssl").

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use aws_lc_rs::cipher::{
    AES_256, DecryptionContext, EncryptionContext, StreamingDecryptingKey, StreamingEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use lifeboat_store::Cancel;
use zeroize::Zeroizing;

use super::key::{Key, Secret, derive, id};
use super::{
    At, Beside, Envelope, Facts, OPENSSL_ITERATIONS, STEP_BYTES, check_iterations, io_failed, is_plausible, place,
    read_up_to, wrong_or_damaged,
};
use crate::{Error, Result};

/// What a file begins with; the salt follows.
pub(super) const MAGIC: &[u8] = b"Salted__";
const SALT_BYTES: usize = 8;
const HEAD_BYTES: usize = 16;
const BLOCK: usize = 16;
/// Key and first vector, as openssl derives them, a gap, and the key of the HMAC.
const DERIVED_BYTES: usize = 96;
const VECTOR_AT: usize = 32;
const MAC_KEY_AT: usize = 64;
/// How much of the plain text shows whether the key is right.
const PLAUSIBLE_BYTES: usize = 1 << 10;

type Derived = Zeroizing<[u8; DERIVED_BYTES]>;

fn mac_key(derived: &Derived) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &derived[MAC_KEY_AT..])
}

fn cipher_key(derived: &Derived) -> UnboundCipherKey {
    UnboundCipherKey::new(&AES_256, &derived[..VECTOR_AT]).expect("the key is 32 bytes")
}

fn first_vector(derived: &Derived) -> [u8; BLOCK] {
    derived[VECTOR_AT..VECTOR_AT + BLOCK].try_into().expect("16 bytes")
}

/// A salt that no other file has.
pub(super) fn new_salt() -> [u8; SALT_BYTES] {
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt).expect("the system has random bytes");
    salt
}

/// Writes an encrypted file.
pub(super) struct Writer<W: Write> {
    out: W,
    cipher: StreamingEncryptingKey,
    mac: hmac::Context,
    facts: Facts,
    buffer: Vec<u8>,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(secret: &Secret, iterations: u32, out: W) -> Result<Self> {
        Self::with_salt(secret, iterations, new_salt(), out)
    }

    pub(super) fn with_salt(secret: &Secret, iterations: u32, salt: [u8; SALT_BYTES], out: W) -> Result<Self> {
        let derived: Derived = derive(secret, &salt, check_iterations(iterations)?)?;
        let context = EncryptionContext::Iv128(FixedLength::from(first_vector(&derived)));
        let cipher =
            StreamingEncryptingKey::less_safe_cbc_pkcs7(cipher_key(&derived), context).expect("AES has this mode");
        let key = mac_key(&derived);
        let facts =
            Facts { envelope: Envelope::Openssl, iterations: Some(iterations), key_id: Some(id(&key)), hmac: None };
        let mut writer = Self { out, cipher, mac: hmac::Context::with_key(&key), facts, buffer: Vec::new() };
        writer.put(&[MAGIC, &salt].concat()).map_err(io_failed)?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.mac.update(bytes);
        self.out.write_all(bytes)
    }

    pub(super) fn finish(self) -> io::Result<(W, Facts)> {
        let Self { mut out, cipher, mut mac, mut facts, .. } = self;
        let mut last = [0; BLOCK];
        let (_, rest) = cipher.finish(&mut last).expect("there is room for a block");
        mac.update(rest.written());
        out.write_all(rest.written())?;
        facts.hmac = Some(hex::encode(mac.sign()));
        Ok((out, facts))
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(STEP_BYTES)];
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(bytes.len() + BLOCK, 0);
        let sealed = self.cipher.update(bytes, &mut buffer).expect("there is room for a block more");
        let written = self.put(sealed.written());
        self.buffer = buffer;
        written.map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The key of a file, and whether its HMAC was right.
pub(super) struct Unlocked {
    derived: Derived,
    pub(super) is_authenticated: bool,
}

impl std::fmt::Debug for Unlocked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Unlocked(authenticated: {})", self.is_authenticated)
    }
}

/// Derives the key of the file by `key`; also whether its id is the one beside the file.
fn derive_for(file: &std::sync::Arc<File>, key: &Key, beside: &Beside) -> Result<(Unlocked, Option<bool>)> {
    let secret = key.password()?;
    let mut head = [0; HEAD_BYTES];
    let len = file.metadata().map_err(io_failed)?.len();
    let is_whole = read_up_to(file, &mut head, 0).map_err(io_failed)? == head.len();
    if !is_whole || len <= HEAD_BYTES as u64 || !len.is_multiple_of(BLOCK as u64) {
        return Err(Error::corrupt("the encrypted file is cut off"));
    }
    let iterations = check_iterations(beside.iterations.unwrap_or(OPENSSL_ITERATIONS))?;
    let derived: Derived = derive(secret, &head[MAGIC.len()..], iterations)?;
    let known = beside.key_id.as_ref().map(|known| *known == id(&mac_key(&derived)));
    Ok((Unlocked { derived, is_authenticated: false }, known))
}

/// Whether `key` is that of the file; `None` where nothing beside it tells and its beginning makes no sense.
pub(super) fn fits(file: &std::sync::Arc<File>, key: &Key, beside: &Beside) -> Result<Option<bool>> {
    let (unlocked, known) = derive_for(file, key, beside)?;
    if known == Some(true) || unlocked.is_plausible(file)? {
        return Ok(Some(true));
    }
    Ok(known)
}

/// Derives the key of the file by `key`, and holds the file against the HMAC beside it.
pub(super) fn unlock(file: &std::sync::Arc<File>, key: &Key, beside: &Beside, cancel: &Cancel) -> Result<Unlocked> {
    let (mut unlocked, known) = derive_for(file, key, beside)?;
    let mac_key = mac_key(&unlocked.derived);
    if known == Some(false) && !unlocked.is_plausible(file)? {
        return Err(wrong_or_damaged(false, ""));
    }
    match &beside.hmac {
        Some(expected) => {
            let sum = sum(file, &mac_key, cancel)?;
            if !constant_time_eq(hex::encode(sum).as_bytes(), expected.trim_ascii().as_bytes()) {
                let is_right = known == Some(true) || unlocked.is_plausible(file)?;
                return Err(wrong_or_damaged(is_right, "its HMAC, which stands in the file beside it, differs"));
            }
            unlocked.is_authenticated = true;
        }
        None if unlocked.is_plausible(file)? => {}
        None => return Err(wrong_or_damaged(known == Some(true), "its beginning makes no sense")),
    }
    Ok(unlocked)
}

fn constant_time_eq(one: &[u8], other: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(one, other).is_ok()
}

/// The HMAC of the whole file.
fn sum(file: &std::sync::Arc<File>, key: &hmac::Key, cancel: &Cancel) -> Result<hmac::Tag> {
    let mut mac = hmac::Context::with_key(key);
    let (mut at, mut step) = (0, vec![0; STEP_BYTES]);
    loop {
        cancel.check()?;
        let read = read_up_to(file, &mut step, at).map_err(io_failed)?;
        if read == 0 {
            return Ok(mac.sign());
        }
        mac.update(&step[..read]);
        at += read as u64;
    }
}

impl Unlocked {
    /// Whether what the file begins with is an archive under this key.
    fn is_plausible(&self, file: &std::sync::Arc<File>) -> Result<bool> {
        let mut head = Vec::new();
        let at = At { file: file.clone(), at: 0 };
        let read = Reader::new(at, self).and_then(|reader| reader.take(PLAUSIBLE_BYTES as u64).read_to_end(&mut head));
        match read {
            Err(error) if error.raw_os_error().is_some() => Err(io_failed(error)),
            // At the end of a short file the padding may be damaged; what was read before it counts.
            Ok(_) | Err(_) => Ok(is_plausible(&head)),
        }
    }
}

/// Reads the plain text from any place: a block needs only the one before it.
pub(super) struct Reader {
    file: At,
    derived: Derived,
    /// `None` at the end.
    cipher: Option<StreamingDecryptingKey>,
    sealed: Vec<u8>,
    plain: Zeroizing<Vec<u8>>,
    /// What of `plain` waits.
    waiting: std::ops::Range<usize>,
    /// Where the next byte is in the plain text.
    at: u64,
}

impl Reader {
    pub(super) fn new(file: At, unlocked: &Unlocked) -> io::Result<Self> {
        let mut reader = Self {
            file,
            derived: unlocked.derived.clone(),
            cipher: None,
            sealed: vec![0; STEP_BYTES / 4],
            plain: Zeroizing::new(vec![0; STEP_BYTES / 4 + BLOCK]),
            waiting: 0..0,
            at: 0,
        };
        reader.begin(0)?;
        Ok(reader)
    }

    /// Goes on from the block that holds `at`.
    fn begin(&mut self, at: u64) -> io::Result<()> {
        let block_at = at - at % BLOCK as u64;
        let mut vector = first_vector(&self.derived);
        self.file.at = HEAD_BYTES as u64 + block_at;
        if block_at > 0 {
            self.file.at -= BLOCK as u64;
            self.file.read_exact(&mut vector)?;
        }
        let context = DecryptionContext::Iv128(FixedLength::from(vector));
        let cipher = StreamingDecryptingKey::cbc_pkcs7(cipher_key(&self.derived), context);
        self.cipher = Some(cipher.expect("AES has this mode"));
        self.waiting = 0..0;
        self.at = block_at;
        while self.at < at && self.fill()? {
            let passed = (at - self.at).min(self.waiting.len() as u64);
            self.waiting.start += usize::try_from(passed).expect("less than a step");
            self.at += passed;
        }
        Ok(())
    }

    /// Has something to hand out, unless it is at the end.
    fn fill(&mut self) -> io::Result<bool> {
        while self.waiting.is_empty() {
            let Some(cipher) = &mut self.cipher else { return Ok(false) };
            let read = read_up_to(&self.file.file, &mut self.sealed, self.file.at)?;
            self.file.at += read as u64;
            let failed = |_| io::Error::new(io::ErrorKind::InvalidData, "its end is damaged or cut off");
            let len = if read == 0 {
                let cipher = self.cipher.take().expect("it is there");
                cipher.finish(&mut self.plain).map_err(failed)?.written().len()
            } else {
                cipher.update(&self.sealed[..read], &mut self.plain).map_err(failed)?.written().len()
            };
            self.waiting = 0..len;
        }
        Ok(true)
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.fill()? {
            return Ok(0);
        }
        let len = self.waiting.len().min(buffer.len());
        buffer[..len].copy_from_slice(&self.plain[self.waiting.start..self.waiting.start + len]);
        self.waiting.start += len;
        self.at += len as u64;
        Ok(len)
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = place(to, self.at)?;
        if to != self.at {
            self.begin(to)?;
        }
        Ok(self.at)
    }
}
