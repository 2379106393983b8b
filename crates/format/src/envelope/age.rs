//! `age` version 1, by its reference implementation in Rust.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::str::FromStr;
use std::sync::Mutex;

use age::secrecy::{ExposeSecret as _, SecretString};
use age::{DecryptError, Decryptor, Encryptor, scrypt, x25519};
use age_core::format::{FILE_KEY_BYTES, FileKey as AgeFileKey, Stanza};
use zeroize::Zeroizing;

use super::key::{Key, Secret};
use super::{At, HEAD_BYTES, io_failed, read_up_to};
use crate::model::Summer;
use crate::{Error, ErrorKind, Result};

pub(super) use age::stream::StreamWriter;

/// What a file begins with; the version follows.
pub(super) const MAGIC: &[u8] = b"age-encryption.org/";
/// The first line of the version that is known.
const VERSION: &[u8] = b"age-encryption.org/v1\n";
/// The exponent of scrypt's cost that is written: 128 MiB, about half a second.
const WORK_FACTOR: u8 = 17;
/// And the highest that is done when reading: 1 GiB.
const WORK_FACTOR_MAX: u8 = 20;
/// How long a header may be: hundreds of recipients.
const HEADER_MAX_BYTES: usize = 256 << 10;

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

fn begin<W: Write>(encryptor: Encryptor, out: W) -> Result<StreamWriter<W>> {
    encryptor.wrap_output(out).map_err(io_failed)
}

pub(super) fn to_recipients<W: Write>(recipients: &[Recipient], out: W) -> Result<StreamWriter<W>> {
    let all = recipients.iter().map(|recipient| &recipient.0 as &dyn age::Recipient);
    let none = |_| Error::new(ErrorKind::Invalid, "there is no recipient to encrypt to");
    begin(Encryptor::with_recipients(all).map_err(none)?, out)
}

pub(super) fn to_passphrase<W: Write>(secret: &Secret, out: W) -> Result<StreamWriter<W>> {
    let mut recipient = scrypt::Recipient::new(passphrase(secret)?);
    recipient.set_work_factor(WORK_FACTOR);
    let one = std::iter::once(&recipient as &dyn age::Recipient);
    let failed = |error: age::EncryptError| Error::new(ErrorKind::Invalid, error.to_string());
    begin(Encryptor::with_recipients(one).map_err(failed)?, out)
}

/// What a header holds for who has the key.
#[derive(Clone)]
pub(super) struct FileKey(Zeroizing<[u8; FILE_KEY_BYTES]>);

impl std::fmt::Debug for FileKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl age::Identity for FileKey {
    fn unwrap_stanza(&self, _: &Stanza) -> Option<std::result::Result<AgeFileKey, DecryptError>> {
        Some(Ok(AgeFileKey::new(Box::new(*self.0))))
    }
}

/// An identity that keeps what it found.
struct Keeping<'a> {
    identity: &'a dyn age::Identity,
    found: Mutex<Option<FileKey>>,
}

impl age::Identity for Keeping<'_> {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<std::result::Result<AgeFileKey, DecryptError>> {
        let unwrapped = self.identity.unwrap_stanza(stanza);
        self.keep(unwrapped)
    }

    fn unwrap_stanzas(&self, stanzas: &[Stanza]) -> Option<std::result::Result<AgeFileKey, DecryptError>> {
        let unwrapped = self.identity.unwrap_stanzas(stanzas);
        self.keep(unwrapped)
    }
}

type Unwrapped = Option<std::result::Result<AgeFileKey, DecryptError>>;

impl Keeping<'_> {
    fn keep(&self, unwrapped: Unwrapped) -> Unwrapped {
        if let Some(Ok(key)) = &unwrapped {
            let key = FileKey(Zeroizing::new(*key.expose_secret()));
            *self.found.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(key);
        }
        unwrapped
    }
}

type Input = BufReader<At>;

fn decryptor(file: At) -> std::result::Result<Decryptor<Input>, DecryptError> {
    Decryptor::new_buffered(BufReader::with_capacity(1 << 20, file))
}

/// A header is read before anything in it was authenticated: one without end is
/// refused. Whether it says that it is of the version that is known.
fn check_header_ends(file: &File) -> Result<bool> {
    let mut head = vec![0; HEADER_MAX_BYTES];
    let read = read_up_to(file, &mut head, 0).map_err(io_failed)?;
    let mut lines = head[..read].split(|byte| *byte == b'\n');
    if lines.any(|line| line.starts_with(b"---")) {
        Ok(head.starts_with(VERSION))
    } else {
        Err(Error::corrupt("its header, which says how it is encrypted, has no end"))
    }
}

/// Finds the key of the file by `key`.
pub(super) fn unlock(file: &std::sync::Arc<File>, key: &Key) -> Result<FileKey> {
    let is_known_version = check_header_ends(file)?;
    let decryptor = decryptor(At { file: file.clone(), at: 0 }).map_err(|error| match error {
        // What cannot be read as this version is taken for another, whatever it says itself.
        DecryptError::UnknownFormat if is_known_version => explain(DecryptError::InvalidHeader),
        error => explain(error),
    })?;
    let found = match key {
        Key::Password(_) if !decryptor.is_scrypt() => {
            return Err(wrong("it is encrypted to recipients; a password does not open it, an identity file does"));
        }
        Key::Identities(_) if decryptor.is_scrypt() => {
            return Err(wrong("it is encrypted with a passphrase; an identity does not open it"));
        }
        Key::Password(secret) => {
            let mut identity = scrypt::Identity::new(passphrase(secret)?);
            identity.set_max_work_factor(WORK_FACTOR_MAX);
            let keeping = Keeping { identity: &identity, found: Mutex::default() };
            decryptor.decrypt(std::iter::once(&keeping as &dyn age::Identity)).map_err(explain)?;
            keeping.found
        }
        Key::Identities(identities) => {
            let keeping: Vec<_> =
                identities.iter().map(|one| Keeping { identity: &one.0, found: Mutex::default() }).collect();
            let all = keeping.iter().map(|one| one as &dyn age::Identity);
            decryptor.decrypt(all).map_err(explain)?;
            let found = keeping.into_iter().map(|one| one.found.into_inner().ok().flatten());
            Mutex::new(found.flatten().next())
        }
    };
    let found = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(found.expect("it was decrypted with the key that was found"))
}

/// The plain text.
pub(super) fn reader(file: At, key: &FileKey) -> io::Result<impl io::Read + io::Seek + Send + use<>> {
    let failed = |error: DecryptError| match error {
        DecryptError::Io(error) => error,
        error => io::Error::new(io::ErrorKind::InvalidData, explain(error).to_string()),
    };
    decryptor(file).map_err(failed)?.decrypt(std::iter::once(key as &dyn age::Identity)).map_err(failed)
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

const _: () = assert!(MAGIC.len() < HEAD_BYTES);
