//! The shape of `encryption`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::At;

/// How archives are encrypted.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Encryption {
    /// Whether a backup is encrypted where `--encrypt` and `--no-encrypt` do not
    /// say otherwise. By default true.
    pub(in crate::config) enabled: Option<bool>,
    /// The envelope: `age` (the default), `openssl`, or `aes-256-gcm`.
    pub(in crate::config) envelope: Option<At<String>>,
    /// `age`: whom archives are encrypted to, `age1…`. Who backs up cannot read
    /// them again.
    #[serde(default)]
    pub(in crate::config) recipients: Vec<At<String>>,
    /// `age`: a file of recipients, one a line; absolute.
    pub(in crate::config) recipients_file: Option<At<String>>,
    /// `age`: a file with the identities that open archives again; absolute.
    pub(in crate::config) identity_file: Option<At<String>>,
    /// `openssl`: a file whose one line is the key; absolute. It is made by the
    /// first encrypted backup.
    pub(in crate::config) key_file: Option<At<String>>,
    /// Files with keys, identities or passwords that were used before; absolute.
    #[serde(default)]
    pub(in crate::config) old_key_files: Vec<At<String>>,
    /// `age` and `aes-256-gcm`: a file whose first line is the password; absolute.
    pub(in crate::config) password_file: Option<At<String>>,
    /// A program, and its arguments, that prints the password.
    pub(in crate::config) password_command: Option<At<Vec<String>>>,
    /// A variable of the environment that holds the password.
    pub(in crate::config) password_env: Option<At<String>>,
    /// A credential of systemd that holds the password.
    pub(in crate::config) password_credential: Option<At<String>>,
    /// Iterations of PBKDF2, 100000 to 10000000. By default 100000 for the
    /// random key of `openssl`, 600000 for the password of `aes-256-gcm`.
    pub(in crate::config) iterations: Option<At<u32>>,
    /// Accepted; the key file is used in its place.
    #[serde(default)]
    pub(in crate::config) keychain: bool,
}
