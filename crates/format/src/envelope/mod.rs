//! The envelopes that archives are encrypted in: they stream, are known by
//! their content, and open without Lifeboat (`doc/formats.md`, "Envelopes").
//!
//! Writing: [`Seal`] says how; [`Seal::begin`] is a writer around a writer.
//! Reading: [`open`] tries keys on a file and gives a [`Sealed`], which is read
//! from any place by [`Sealed::reader`], as often as one likes, without
//! deriving the key again.

mod age;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod fixed;
mod gcm;
pub mod key;
mod openssl;
mod stream;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lifeboat_store as store;
use lifeboat_store::Cancel;
use lifeboat_store::durable::Unnamed;

pub use self::age::{Identity, Recipient};
pub use self::key::{Key, Secret};
use crate::archive::is_archive;
use crate::{Error, ErrorKind, Result};

/// Iterations of PBKDF2 that are written for a password.
pub const PASSWORD_ITERATIONS: u32 = 600_000;
/// And for the random key of `openssl`.
pub const OPENSSL_ITERATIONS: u32 = 100_000;
/// What is taken when reading: fewer protect nothing, more would keep the machine busy for minutes.
pub const ITERATIONS: std::ops::RangeInclusive<u32> = 100_000..=10_000_000;
/// How much of a file tells its envelope.
const HEAD_BYTES: usize = 64;
/// How much is sealed in one step.
const STEP_BYTES: usize = 1 << 20;

/// The kinds of envelopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Envelope {
    /// `age` version 1 (age-encryption.org/v1).
    Age,
    /// As `openssl enc -aes-256-cbc -pbkdf2 -salt` writes it, with an HMAC beside it.
    Openssl,
    /// AES-256-GCM in segments, as Tomo names its backups.
    Gcm,
}

impl Envelope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Age, Self::Openssl, Self::Gcm];

    /// Tells it from the first bytes of a file.
    #[must_use]
    pub fn detect(head: &[u8]) -> Option<Self> {
        let begins = |magic: &[u8]| head.starts_with(magic);
        if begins(age::MAGIC) || begins(age::ARMOR) {
            Some(Self::Age)
        } else if begins(openssl::MAGIC) {
            Some(Self::Openssl)
        } else if begins(gcm::MAGIC) {
            Some(Self::Gcm)
        } else {
            None
        }
    }

    /// The one that `file` is in; `None` for a plain one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of_file(file: &File) -> io::Result<Option<Self>> {
        let mut head = [0; HEAD_BYTES];
        let read = read_up_to(file, &mut head, 0)?;
        Ok(Self::detect(&head[..read]))
    }

    /// What `lifeboat.yaml` and sidecars call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Openssl => "openssl",
            Self::Gcm => "aes-256-gcm",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|envelope| envelope.name() == name)
    }

    /// How names of files in it end.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Age => ".age",
            Self::Openssl => ".enc",
            Self::Gcm => ".tomo-backup",
        }
    }
}

/// How archives are encrypted.
#[derive(Clone, Debug)]
pub enum Seal {
    /// To these recipients: who writes cannot read it again.
    Age(Vec<Recipient>),
    /// With a passphrase, by `age`.
    AgePassphrase(Secret),
    /// With the line of a key file, as `openssl enc -pass file:` reads it.
    Openssl {
        /// The line.
        key: Secret,
        /// Iterations of PBKDF2.
        iterations: u32,
    },
    /// With a password, by AES-256-GCM.
    Gcm {
        /// The password.
        password: Secret,
        /// Iterations of PBKDF2.
        iterations: u32,
    },
}

/// What is known of a sealed file besides its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its envelope.
    pub envelope: Envelope,
    /// Iterations of PBKDF2, where a key is derived by that.
    pub iterations: Option<u32>,
    /// What tells whether a key is the right one, without telling the key; in hex.
    pub key_id: Option<String>,
    /// What stands in the file beside it that ends with `.hmac`; in hex.
    pub hmac: Option<String>,
}

impl Seal {
    /// The envelope that it makes.
    #[must_use]
    pub fn envelope(&self) -> Envelope {
        match self {
            Self::Age(_) | Self::AgePassphrase(_) => Envelope::Age,
            Self::Openssl { .. } => Envelope::Openssl,
            Self::Gcm { .. } => Envelope::Gcm,
        }
    }

    /// The key that opens it again; `None` where the writer does not have it.
    #[must_use]
    pub fn key(&self) -> Option<Key> {
        match self {
            Self::Age(_) => None,
            Self::AgePassphrase(secret) | Self::Openssl { key: secret, .. } | Self::Gcm { password: secret, .. } => {
                Some(Key::Password(secret.clone()))
            }
        }
    }

    /// A writer that encrypts what it is given and writes it to `out`. What was
    /// written is of no use before [`Writer::finish`].
    ///
    /// # Errors
    /// When `out` cannot be written, or the secret is not fit.
    pub fn begin<W: Write>(&self, out: W) -> Result<Writer<W>> {
        Ok(Writer(match self {
            Self::Age(recipients) => Sealing::Age(Box::new(age::to_recipients(recipients, out)?)),
            Self::AgePassphrase(secret) => Sealing::Age(Box::new(age::to_passphrase(secret, out)?)),
            Self::Openssl { key, iterations } => {
                Sealing::Openssl(Box::new(openssl::Writer::new(key, *iterations, out)?))
            }
            Self::Gcm { password, iterations } => Sealing::Gcm(Box::new(gcm::Writer::new(password, *iterations, out)?)),
        }))
    }

    /// The whole of `plain` in its envelope, in a file without a name in `dir`.
    /// `plain` gives up its space as it goes.
    ///
    /// # Errors
    /// When it cannot be written, or on cancel.
    pub fn seal(&self, plain: Unnamed, dir: &Path, cancel: &Cancel) -> Result<(Unnamed, Facts)> {
        let mut writer = self.begin(Unnamed::create(dir)?)?;
        writer.take_all_of(plain, dir, cancel)?;
        self.end(writer, dir)
    }

    /// Ends what [`Seal::begin`] began in a file in `dir`.
    pub(crate) fn end(&self, writer: Writer<Unnamed>, dir: &Path) -> Result<(Unnamed, Facts)> {
        let failed = |error: io::Error| Error::from(store::Error::io("write in", dir, error));
        let (file, facts) = writer.finish().map_err(failed)?;
        Ok((file, Facts { key_id: facts.key_id.or_else(|| self.recipient_id()), ..facts }))
    }

    fn recipient_id(&self) -> Option<String> {
        match self {
            Self::Age(recipients) => recipients.first().map(Recipient::id),
            _ => None,
        }
    }
}

/// A writer that encrypts.
pub struct Writer<W: Write>(Sealing<W>);

enum Sealing<W: Write> {
    Age(Box<stream::Writer<W>>),
    Openssl(Box<openssl::Writer<W>>),
    Gcm(Box<gcm::Writer<W>>),
}

impl<W: Write> Writer<W> {
    /// Writes what is left, and what proves that this was all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self) -> io::Result<(W, Facts)> {
        match self.0 {
            Sealing::Age(writer) => {
                let facts = Facts { envelope: Envelope::Age, iterations: None, key_id: None, hmac: None };
                Ok((writer.finish()?, facts))
            }
            Sealing::Openssl(writer) => writer.finish(),
            Sealing::Gcm(writer) => writer.finish(),
        }
    }
}

impl Writer<Unnamed> {
    /// Writes the whole of `plain`, which gives up its space as it goes, to a file in `dir`.
    pub(crate) fn take_all_of(&mut self, plain: Unnamed, dir: &Path, cancel: &Cancel) -> Result<()> {
        let failed = |error: io::Error| Error::from(store::Error::io("write in", dir, error));
        let mut step = vec![0; STEP_BYTES];
        let mut at = 0;
        while at < plain.len() {
            cancel.check()?;
            let read = read_up_to(plain.file(), &mut step, at).map_err(failed)?;
            if read == 0 {
                return Err(failed(io::ErrorKind::UnexpectedEof.into()));
            }
            self.write_all(&step[..read]).map_err(failed)?;
            plain.give_up(at, read as u64);
            at += read as u64;
        }
        Ok(())
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Sealing::Age(writer) => writer.write(bytes),
            Sealing::Openssl(writer) => writer.write(bytes),
            Sealing::Gcm(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is known of a file before it is opened, from what stands beside it.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// The line of the file that ends with `.hmac`.
    pub hmac: Option<String>,
    /// What the sidecar says.
    pub iterations: Option<u32>,
    /// What the sidecar says.
    pub key_id: Option<String>,
}

/// A plain text that is read from any place.
pub trait Plaintext: Read + Seek + Send {}

impl<T: Read + Seek + Send> Plaintext for T {}

/// A file in its envelope, with the key that opens it.
#[derive(Debug)]
pub struct Sealed {
    file: Arc<File>,
    unlocked: Unlocked,
    /// How far it was read, from its beginning on.
    read: AtomicU64,
}

/// Whether only who has the key can make such a file; to a recipient anybody can encrypt.
type IsSecret = bool;

#[derive(Debug)]
enum Unlocked {
    Age(Arc<stream::Stream>, IsSecret),
    Openssl(openssl::Unlocked),
    Gcm(Arc<stream::Stream>),
}

/// Opens `file`, which `path` names in messages, with the first of `keys` that fits.
///
/// # Errors
/// [`ErrorKind::WrongKey`] where none does; [`ErrorKind::Corrupt`] where the
/// right one is among them and the file is damaged, as far as that can be told
/// before it is read; [`ErrorKind::Unsupported`] where it asks for more than is done.
pub fn open(file: Arc<File>, path: &Path, keys: &[Key], beside: &Beside, cancel: &Cancel) -> Result<Sealed> {
    let io_error = |error: io::Error| Error::from(store::Error::io("read", path, error));
    let Some(envelope) = Envelope::of_file(&file).map_err(io_error)? else {
        return Err(Error::new(ErrorKind::Invalid, format!("{} is not encrypted", path.display())));
    };
    let mut worst = None;
    for key in keys {
        let unlocked = match envelope {
            Envelope::Age => {
                let is_secret = matches!(key, Key::Password(_));
                age::unlock(&file, key).map(|key| Unlocked::Age(key, is_secret))
            }
            Envelope::Openssl => openssl::unlock(&file, key, beside, cancel).map(Unlocked::Openssl),
            Envelope::Gcm => gcm::unlock(&file, key, beside).map(Unlocked::Gcm),
        };
        match unlocked {
            Ok(unlocked) => return Ok(Sealed { file, unlocked, read: AtomicU64::new(0) }),
            Err(error) if error.kind() == ErrorKind::WrongKey => worst = worst.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    Err(worst.unwrap_or_else(|| Error::new(ErrorKind::WrongKey, "it is encrypted, and there is no key for it")))
}

/// Whether `key` is that of `file`, told by what the file begins with and by
/// what stands beside it; `None` where these do not tell.
///
/// # Errors
/// When the file cannot be read or is damaged.
pub fn fits(file: &Arc<File>, key: &Key, beside: &Beside) -> Result<Option<bool>> {
    let found = match Envelope::of_file(file).map_err(io_failed)? {
        Some(Envelope::Age) => age::unlock(file, key).map(|_| Some(true)),
        Some(Envelope::Openssl) => openssl::fits(file, key, beside),
        Some(Envelope::Gcm) | None => Ok(None),
    };
    match found {
        Err(error) if error.kind() == ErrorKind::WrongKey => Ok(Some(false)),
        found => found,
    }
}

impl Sealed {
    /// Its envelope.
    #[must_use]
    pub fn envelope(&self) -> Envelope {
        match self.unlocked {
            Unlocked::Age(..) => Envelope::Age,
            Unlocked::Openssl(_) => Envelope::Openssl,
            Unlocked::Gcm(_) => Envelope::Gcm,
        }
    }

    /// Whether it shows when somebody without the key changed it. A file of
    /// stock `openssl` does not.
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        match &self.unlocked {
            Unlocked::Age(..) | Unlocked::Gcm(_) => true,
            Unlocked::Openssl(unlocked) => unlocked.is_authenticated,
        }
    }

    /// Whether it is certain that somebody with the key made it.
    #[must_use]
    pub fn is_genuine(&self) -> bool {
        match &self.unlocked {
            Unlocked::Age(_, is_secret) => *is_secret,
            Unlocked::Openssl(unlocked) => unlocked.is_authenticated,
            Unlocked::Gcm(_) => true,
        }
    }

    /// The bytes of the file.
    pub(crate) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Its plain text, from the beginning.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn reader(self: &Arc<Self>) -> io::Result<Box<dyn Plaintext>> {
        let file = At { file: Arc::clone(&self.file), at: 0 };
        let reader: Box<dyn Plaintext> = match &self.unlocked {
            Unlocked::Openssl(unlocked) => Box::new(openssl::Reader::new(file, unlocked)?),
            Unlocked::Age(stream, _) | Unlocked::Gcm(stream) => {
                Box::new(stream::Reader::new(file, Arc::clone(stream))?)
            }
        };
        Ok(Box::new(Followed { sealed: Arc::clone(self), reader, at: 0 }))
    }

    /// Reads on from where readers came to, to the end: what follows may have
    /// been cut off or changed although nobody asked for it.
    ///
    /// # Errors
    /// When it was, or the file cannot be read; on cancel.
    pub fn read_rest(self: &Arc<Self>, cancel: &Cancel) -> Result<()> {
        let damaged = |error: io::Error| match error.raw_os_error() {
            Some(_) => io_failed(error),
            None => Error::corrupt(format!("the encrypted file is damaged or cut off: {error}")),
        };
        let mut reader = self.reader().map_err(damaged)?;
        reader.seek(io::SeekFrom::Start(self.read.load(Ordering::Relaxed))).map_err(damaged)?;
        let mut step = vec![0; STEP_BYTES];
        loop {
            cancel.check()?;
            if reader.read(&mut step).map_err(damaged)? == 0 {
                return Ok(());
            }
        }
    }
}

/// A reader that notes how far the plain text was read without a gap.
struct Followed {
    sealed: Arc<Sealed>,
    reader: Box<dyn Plaintext>,
    at: u64,
}

impl Read for Followed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        let end = self.at + read as u64;
        // Only what follows on from what was read before counts.
        if self.sealed.read.load(Ordering::Relaxed) >= self.at {
            self.sealed.read.fetch_max(end, Ordering::Relaxed);
        }
        self.at = end;
        Ok(read)
    }
}

impl Seek for Followed {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.at = self.reader.seek(to)?;
        Ok(self.at)
    }
}

/// A file that several read, each at a place of his own.
#[derive(Debug)]
struct At {
    file: Arc<File>,
    at: u64,
}

impl At {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for At {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.at = match to {
            io::SeekFrom::End(by) => self.len()?.checked_add_signed(by).ok_or(io::ErrorKind::InvalidInput)?,
            to => place(to, self.at)?,
        };
        Ok(self.at)
    }
}

/// Where `to` is for who stands at `at` in a plain text. Nobody asks from its
/// end, which not every envelope tells before it is read.
pub(crate) fn place(to: io::SeekFrom, at: u64) -> io::Result<u64> {
    let to = match to {
        io::SeekFrom::Start(to) => Some(to),
        io::SeekFrom::Current(by) => at.checked_add_signed(by),
        io::SeekFrom::End(_) => None,
    };
    to.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn io_failed(error: io::Error) -> Error {
    Error::new(ErrorKind::Store(store::error::kind_of(&error)), error.to_string())
}

/// Fills `buffer` from `at` on, less only at the end of the file.
fn read_up_to(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// That no key fits, or that the right one is there and the file is damaged: what
/// the plain text begins with, or the id of the key, tells.
fn wrong_or_damaged(is_right_key: bool, what: &str) -> Error {
    if is_right_key {
        Error::corrupt(format!("{what}: the key is right, the file was damaged or changed"))
    } else {
        Error::new(ErrorKind::WrongKey, "the password or key is wrong")
    }
}

/// Whether a plain text that begins so can be one of ours.
fn is_plausible(head: &[u8]) -> bool {
    is_archive(head)
}

/// What cannot be asked of a machine while reading.
fn check_iterations(iterations: u32) -> Result<u32> {
    if ITERATIONS.contains(&iterations) {
        return Ok(iterations);
    }
    let (least, most) = (ITERATIONS.start(), ITERATIONS.end());
    let what = format!("it asks for {iterations} iterations of PBKDF2; {least} to {most} are done");
    Err(Error::new(ErrorKind::Unsupported, what))
}
