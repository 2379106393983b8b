//! How the archives of an app are encrypted, as `lifeboat.yaml` says it. Only
//! where the secrets are stands here, never a secret.

use std::path::PathBuf;

use lifeboat_format::envelope::{Envelope, Recipient};

/// How the archives of an app are encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encryption {
    /// Whether a backup is encrypted where nothing else is said.
    pub is_enabled: bool,
    /// The envelope.
    pub envelope: Envelope,
    /// `age`: whom archives are encrypted to.
    pub recipients: Vec<Recipient>,
    /// `age`: a file with more of them.
    pub recipients_file: Option<PathBuf>,
    /// `age`: the identities that open archives again.
    pub identity_file: Option<PathBuf>,
    /// `openssl`: the file with the key.
    pub key_file: Option<PathBuf>,
    /// Files with keys that were used before.
    pub old_key_files: Vec<PathBuf>,
    /// `age` and `aes-256-gcm`: where the password comes from.
    pub password: Option<SecretFrom>,
    /// Iterations of PBKDF2, where they are not as usual.
    pub iterations: Option<u32>,
    /// Whether the user asked for the kernel's key ring, in place of which the file is used.
    pub wants_keychain: bool,
}

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretFrom {
    /// The first line of a file.
    File(PathBuf),
    /// The first line that a program prints.
    Command(Vec<String>),
    /// A variable of the environment.
    Env(String),
    /// A credential of systemd, by its name.
    Credential(String),
}

impl Encryption {
    /// The variable of the environment that holds the password.
    pub(super) fn variable(&self) -> Option<&str> {
        match &self.password {
            Some(SecretFrom::Env(name)) => Some(name),
            _ => None,
        }
    }

    /// The files that hold secrets.
    pub(super) fn secret_files(&self) -> impl Iterator<Item = &PathBuf> {
        let password = match &self.password {
            Some(SecretFrom::File(path)) => Some(path),
            _ => None,
        };
        self.identity_file.iter().chain(&self.key_file).chain(&self.old_key_files).chain(password)
    }
}
