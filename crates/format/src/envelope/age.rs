//! `age` version 1: the header by its implementation in Rust, what follows by
//! [`super::stream`] (`doc/formats.md`, "age").

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Write};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use age::secrecy::{ExposeSecret as _, SecretString};
use age::{DecryptError, Decryptor, EncryptError, Encryptor, scrypt, x25519};
use age_core::format::{FILE_KEY_BYTES, FileKey, Stanza};
use aws_lc_rs::aead::{CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use aws_lc_rs::hkdf;
use zeroize::Zeroizing;

use super::key::{Key, Secret};
use super::stream::{PREFIX_BYTES, Stream, Writer};
use super::{At, HEAD_BYTES, io_failed, read_up_to};
use crate::model::Summer;
use crate::{Error, ErrorKind, Result};

/// What a file begins with; the version follows.
pub(super) const MAGIC: &[u8] = b"age-encryption.org/";
/// And the only version that there is.
const VERSION_1: &[u8] = b"age-encryption.org/v1\n";
/// What one begins with whose bytes are written as letters; that is not read.
pub(super) const ARMOR: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";
/// The exponent of scrypt's cost that is written: 128 MiB, about half a second.
const WORK_FACTOR: u8 = 17;
/// And the highest that is done when reading: 1 GiB.
const WORK_FACTOR_MAX: u8 = 20;
/// How long a header may be: hundreds of recipients.
const HEADER_MAX_BYTES: usize = 256 << 10;
/// What stands between the header and the first segment.
const NONCE_BYTES: usize = 16;

/// Whom an archive is encrypted to: `age1…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient(x25519::Recipient);

impl Recipient {
    /// What tells it from others: the first 8 bytes of its SHA-256, in hex.
    #[must_use]
    pub fn id(&self) -> String {
        let mut summer = Summer::new();
        summer.update(self.to_string().as_bytes());
        summer.finish().to_string()[..16].to_owned()
    }
}

impl std::fmt::Display for Recipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Recipient {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |why: &str| Error::new(ErrorKind::Invalid, format!("it is no recipient of age (age1…): {why}"));
        text.parse().map(Self).map_err(invalid)
    }
}

/// What opens an archive that is encrypted to its recipient: `AGE-SECRET-KEY-1…`.
#[derive(Clone)]
pub struct Identity(x25519::Identity);

impl Identity {
    /// A new one.
    #[must_use]
    pub fn generate() -> Self {
        Self(x25519::Identity::generate())
    }

    /// Its recipient.
    #[must_use]
    pub fn recipient(&self) -> Recipient {
        Recipient(self.0.to_public())
    }

    /// The line that it is in a file.
    #[must_use]
    pub fn line(&self) -> Secret {
        Secret::new(self.0.to_string().expose_secret().as_bytes().to_vec())
    }

    /// Those in the text of a file as `age-keygen` writes it: one a line, `#` begins a comment.
    ///
    /// # Errors
    /// When a line is none, or there is none at all.
    pub fn parse_all(text: &str) -> Result<Vec<Self>> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let parse = |line: &str| {
            let invalid = "it holds a line that is no identity of age (AGE-SECRET-KEY-1…)";
            line.parse().map(Self).map_err(|_| Error::new(ErrorKind::Invalid, invalid))
        };
        let all = lines.map(parse).collect::<Result<Vec<_>>>()?;
        if all.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "it holds no identity of age (AGE-SECRET-KEY-1…)"));
        }
        Ok(all)
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the identity of {}", self.recipient())
    }
}

fn passphrase(secret: &Secret) -> Result<SecretString> {
    let text = std::str::from_utf8(secret.expose())
        .map_err(|_| Error::new(ErrorKind::Invalid, "a passphrase of age is UTF-8, and this one is not"))?;
    Ok(SecretString::from(text.to_owned()))
}

/// The key that the header holds for who may open it.
type Kept = Mutex<Option<Zeroizing<[u8; FILE_KEY_BYTES]>>>;

fn keep(kept: &Kept, key: &FileKey) {
    *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(Zeroizing::new(*key.expose_secret()));
}

fn taken(kept: Kept) -> Option<Zeroizing<[u8; FILE_KEY_BYTES]>> {
    kept.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// A recipient or an identity that keeps the key it passes on.
struct Keeping<'a, T: ?Sized> {
    inner: &'a T,
    kept: &'a Kept,
}

impl age::Recipient for Keeping<'_, dyn age::Recipient + '_> {
    fn wrap_file_key(&self, key: &FileKey) -> std::result::Result<(Vec<Stanza>, HashSet<String>), EncryptError> {
        keep(self.kept, key);
        self.inner.wrap_file_key(key)
    }
}

type Unwrapped = Option<std::result::Result<FileKey, DecryptError>>;

impl Keeping<'_, dyn age::Identity + '_> {
    fn kept(&self, unwrapped: Unwrapped) -> Unwrapped {
        if let Some(Ok(key)) = &unwrapped {
            keep(self.kept, key);
        }
        unwrapped
    }
}

impl age::Identity for Keeping<'_, dyn age::Identity + '_> {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Unwrapped {
        self.kept(self.inner.unwrap_stanza(stanza))
    }

    fn unwrap_stanzas(&self, stanzas: &[Stanza]) -> Unwrapped {
        self.kept(self.inner.unwrap_stanzas(stanzas))
    }
}

/// How many bytes a key for the cipher has, as HKDF asks for it.
struct KeyLen;

impl hkdf::KeyType for KeyLen {
    fn len(&self) -> usize {
        CHACHA20_POLY1305.key_len()
    }
}

/// What follows a header and its nonce, which end at `from`.
fn stream(file_key: &[u8; FILE_KEY_BYTES], nonce: &[u8], from: u64) -> Stream {
    let mut key = Zeroizing::new([0; 32]);
    let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, nonce).extract(file_key);
    let filled = derived.expand(&[b"payload"], KeyLen).and_then(|okm| okm.fill(key.as_mut()));
    filled.expect("the key is short");
    let key = UnboundKey::new(&CHACHA20_POLY1305, key.as_slice()).expect("the key is 32 bytes");
    // age counts in 11 bytes: the same nonces, with a prefix of zeros, up to 256 TiB.
    Stream { key: LessSafeKey::new(key), prefix: [0; PREFIX_BYTES], head: Vec::new(), from }
}

fn begin<W: Write>(recipients: &[&dyn age::Recipient], out: W) -> Result<Writer<W>> {
    let kept = Kept::default();
    let keeping: Vec<_> = recipients.iter().map(|inner| Keeping { inner: *inner, kept: &kept }).collect();
    let all = keeping.iter().map(|one| one as &dyn age::Recipient);
    let failed = |error: EncryptError| Error::new(ErrorKind::Invalid, error.to_string());
    let mut head = Vec::new();
    Encryptor::with_recipients(all).map_err(failed)?.wrap_output(&mut head).map_err(io_failed)?;
    drop(keeping);
    let file_key = taken(kept).expect("each recipient gets the key");
    with_head(&file_key, &head, out)
}

/// Writes `head`, a header that holds `file_key`, with the nonce behind it, and goes on from there.
pub(super) fn with_head<W: Write>(file_key: &[u8; FILE_KEY_BYTES], head: &[u8], mut out: W) -> Result<Writer<W>> {
    out.write_all(head).map_err(io_failed)?;
    let nonce = &head[head.len() - NONCE_BYTES..];
    Ok(Writer::new(stream(file_key, nonce, head.len() as u64), out))
}

pub(super) fn to_recipients<W: Write>(recipients: &[Recipient], out: W) -> Result<Writer<W>> {
    if recipients.is_empty() {
        return Err(Error::new(ErrorKind::Invalid, "there is no recipient to encrypt to"));
    }
    let all: Vec<_> = recipients.iter().map(|recipient| &recipient.0 as &dyn age::Recipient).collect();
    begin(&all, out)
}

pub(super) fn to_passphrase<W: Write>(secret: &Secret, out: W) -> Result<Writer<W>> {
    let mut recipient = scrypt::Recipient::new(passphrase(secret)?);
    recipient.set_work_factor(WORK_FACTOR);
    begin(&[&recipient], out)
}

/// Where the header of `file` ends, and the nonce behind it. A header is read
/// before anything in it was authenticated: one without end is refused.
fn end_of_header(file: &File) -> Result<(u64, [u8; NONCE_BYTES])> {
    let mut head = vec![0; HEADER_MAX_BYTES];
    let read = read_up_to(file, &mut head, 0).map_err(io_failed)?;
    let no_end = || Error::corrupt("its header, which says how it is encrypted, has no end");
    let mut at = 0;
    // Nothing else in a header begins so; what follows it is not looked at.
    while !head[at..read].starts_with(b"---") {
        at += 1 + head[at..read].iter().position(|byte| *byte == b'\n').ok_or_else(no_end)?;
    }
    at += 1 + head[at..read].iter().position(|byte| *byte == b'\n').ok_or_else(no_end)?;
    let nonce = head[..read].get(at..at + NONCE_BYTES).and_then(|nonce| nonce.try_into().ok());
    Ok((at as u64, nonce.ok_or_else(no_end)?))
}

/// Finds the key of the file by `key`.
pub(super) fn unlock(file: &Arc<File>, key: &Key) -> Result<Arc<Stream>> {
    let mut start = [0; ARMOR.len()];
    let read = read_up_to(file, &mut start, 0).map_err(io_failed)?;
    if start[..read] == *ARMOR {
        let what = "it is age's form for text (ASCII armor), which is not read; decrypt it with `age -d` first";
        return Err(Error::new(ErrorKind::Unsupported, what));
    }
    let (end, nonce) = end_of_header(file)?;
    let input = BufReader::new(At { file: file.clone(), at: 0 });
    // The library calls a header that it cannot read one of a newer version, whatever the first line says.
    let damaged = |error| match error {
        DecryptError::UnknownFormat if start.starts_with(VERSION_1) => explain(DecryptError::InvalidHeader),
        error => explain(error),
    };
    let decryptor = Decryptor::new_buffered(input).map_err(damaged)?;
    let kept = Kept::default();
    match key {
        Key::Password(_) if !decryptor.is_scrypt() => {
            return Err(wrong("it is encrypted to recipients; a password does not open it, an identity file does"));
        }
        Key::Identities(_) if decryptor.is_scrypt() => {
            return Err(wrong("it is encrypted with a passphrase; an identity does not open it"));
        }
        Key::Password(secret) => {
            let mut identity = scrypt::Identity::new(passphrase(secret)?);
            identity.set_max_work_factor(WORK_FACTOR_MAX);
            decrypt(decryptor, &[&identity], &kept)?;
        }
        Key::Identities(identities) => {
            let all: Vec<_> = identities.iter().map(|identity| &identity.0 as &dyn age::Identity).collect();
            decrypt(decryptor, &all, &kept)?;
        }
    }
    let file_key = taken(kept).expect("it was decrypted with the key that was found");
    Ok(Arc::new(stream(&file_key, &nonce, end + NONCE_BYTES as u64)))
}

/// Has the header unlocked and authenticated; the key ends in `kept`.
fn decrypt(decryptor: Decryptor<BufReader<At>>, identities: &[&dyn age::Identity], kept: &Kept) -> Result<()> {
    let keeping: Vec<_> = identities.iter().map(|inner| Keeping { inner: *inner, kept }).collect();
    let all = keeping.iter().map(|one| one as &dyn age::Identity);
    decryptor.decrypt(all).map(drop).map_err(explain)
}

fn wrong(what: &str) -> Error {
    Error::new(ErrorKind::WrongKey, what)
}

fn explain(error: DecryptError) -> Error {
    match error {
        DecryptError::NoMatchingKeys => wrong("it is encrypted to other recipients: no identity fits"),
        DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed => wrong("the passphrase is wrong"),
        DecryptError::ExcessiveWork { required, .. } => Error::new(
            ErrorKind::Unsupported,
            format!("its passphrase asks for a work factor of {required}; up to {WORK_FACTOR_MAX} is done"),
        ),
        DecryptError::UnknownFormat => Error::new(ErrorKind::Unsupported, "its version of age is not known"),
        DecryptError::InvalidHeader | DecryptError::InvalidMac => {
            Error::corrupt("its header, which says how it is encrypted, is damaged or was changed")
        }
        DecryptError::Io(error) if error.raw_os_error().is_some() => io_failed(error),
        DecryptError::Io(error) => Error::corrupt(format!("its header is damaged or cut off: {error}")),
        other => Error::corrupt(other.to_string()),
    }
}

const _: () = assert!(MAGIC.len() < HEAD_BYTES && ARMOR.len() < HEAD_BYTES);
