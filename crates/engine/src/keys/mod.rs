//! Passwords and keys: which ones there are, which of them opens an archive
//! (`open.rs`), and which a new one is encrypted with (`seal.rs`). Secrets are
//! read when they are needed, once (`secret.rs`), and stay in this process.
//! What a person does with keys is in `care/`.

pub(crate) mod care;
mod open;
mod reseal;
mod seal;
mod secret;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lifeboat_format::archive::Archive;
pub use lifeboat_format::envelope::{Envelope, Secret};
use lifeboat_format::envelope::{Key, Seal, Sealed};

use crate::config::{AppConfig, Config, SecretFrom};
use crate::{Cancel, Result};
pub(crate) use reseal::change as change_password;
pub use seal::SealRequest;
pub(crate) use seal::Sealing;

/// What a person is asked.
#[derive(Clone, Copy, Debug)]
pub enum Question<'a> {
    /// A password for what is about to be encrypted: to be typed twice.
    New,
    /// The password of this file; it is not the first attempt after `failed` ones.
    Of {
        /// The file.
        file: &'a Path,
        /// How many passwords were wrong.
        failed: usize,
    },
}

/// Asks a person for a password; `None` where nobody is there.
pub type Ask = Box<dyn Fn(Question<'_>) -> Result<Option<Secret>> + Send + Sync>;

/// How the password was given to this process.
#[derive(Clone, Debug)]
pub enum Given {
    /// In one of the ways of `lifeboat.yaml`.
    From(SecretFrom),
    /// By an open file.
    Fd(u32),
}

/// Everything that this process may open or make encrypted archives with.
#[derive(Default)]
pub struct Keyring {
    /// The password.
    pub password: Option<Given>,
    /// Files of identities of `age`.
    pub identity_files: Vec<PathBuf>,
    /// Files with keys of `openssl`.
    pub key_files: Vec<PathBuf>,
    /// How a person is asked.
    pub ask: Option<Ask>,
    /// A variable of the environment.
    pub variable: Option<fn(&str) -> Option<OsString>>,
    /// Where long work looks whether it should stop.
    pub cancel: Cancel,
    state: Mutex<State>,
}

/// What was found out so far.
#[derive(Default)]
struct State {
    /// The password that was given, once it was read: a pipe is read only once.
    password: Option<Secret>,
    /// What was read as `lifeboat.yaml` says: a program may ask a person.
    read: Vec<(SecretFrom, Secret)>,
    /// What a person answered.
    asked: Vec<Secret>,
    /// Archives that were opened, so that no key is derived twice.
    opened: Vec<(open::Stamp, Arc<Sealed>)>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keyring")
    }
}

impl Keyring {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The files that were given to this process: they hold secrets.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let password = match &self.password {
            Some(Given::From(SecretFrom::File(path))) => Some(path),
            _ => None,
        };
        self.identity_files.iter().chain(&self.key_files).chain(password).cloned().collect()
    }

    /// The password that was given to this process, if one was.
    fn given(&self) -> Result<Option<Secret>> {
        let Some(given) = &self.password else { return Ok(None) };
        if let Some(known) = &self.state().password {
            return Ok(Some(known.clone()));
        }
        let secret = match given {
            Given::From(from) => self.read(from)?,
            Given::Fd(number) => secret::of_fd(*number)?,
        };
        self.state().password = Some(secret.clone());
        Ok(Some(secret))
    }

    fn read(&self, from: &SecretFrom) -> Result<Secret> {
        if let Some((_, known)) = self.state().read.iter().find(|(known, _)| known == from) {
            return Ok(known.clone());
        }
        let secret = self.read_now(from)?;
        self.state().read.push((from.clone(), secret.clone()));
        Ok(secret)
    }

    fn read_now(&self, from: &SecretFrom) -> Result<Secret> {
        match from {
            SecretFrom::File(path) => secret::of_password_file(path),
            SecretFrom::Command(argv) => secret::of_command(argv, &self.cancel),
            SecretFrom::Env(name) => secret::of_variable(name, self.variable.and_then(|variable| variable(name))),
            SecretFrom::Credential(name) => {
                secret::of_credential(name, self.variable.and_then(|variable| variable("CREDENTIALS_DIRECTORY")))
            }
        }
    }

    fn ask(&self, question: Question<'_>) -> Result<Option<Secret>> {
        let Some(ask) = &self.ask else { return Ok(None) };
        secret::protect();
        let answer = ask(question)?;
        if let Some(answer) = &answer {
            self.state().asked.push(answer.clone());
        }
        Ok(answer)
    }
}

/// The keyring, with what the configuration adds to it.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a> {
    pub(crate) ring: &'a Keyring,
    pub(crate) config: Option<&'a Config>,
}

impl Keys<'_> {
    /// Opens the archive at `path`, encrypted or not.
    ///
    /// # Errors
    /// As [`Archive::open`]; [`crate::ErrorKind::WrongKey`] where it is
    /// encrypted and nothing that is known opens it.
    pub(crate) fn open(self, path: &Path) -> Result<Archive> {
        open::open(self, path)
    }

    /// As [`Keys::open`], where nobody is to be asked and nothing is worth an error.
    pub(crate) fn open_quietly(self, path: &Path) -> Option<Archive> {
        open::quietly(self, path)
    }

    /// How what `request` asks for is encrypted.
    ///
    /// # Errors
    /// When it cannot be: a password or key is missing, or makes no sense.
    pub(crate) fn seal(self, request: &SealRequest, job: Sealing<'_>) -> Result<Option<Seal>> {
        seal::seal(self, request, job)
    }
}

/// What opens the archive of `app` that `seal` makes; nothing where it is
/// encrypted to recipients whose identity is not here.
pub(crate) fn keys_of(keys: Keys<'_>, seal: &Seal, app: Option<&AppConfig>) -> Vec<Key> {
    match seal {
        Seal::Age(recipients) => seal::identities(keys, recipients, app).into_iter().collect(),
        _ => seal.key().into_iter().collect(),
    }
}
