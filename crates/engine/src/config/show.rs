//! The configuration as it takes effect: every default filled in, nothing
//! secret in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lifeboat_format::envelope::{Envelope, OPENSSL_ITERATIONS, PASSWORD_ITERATIONS};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde::Serialize;

use super::raw;
use super::written::{Carried, Reader, compression};
use super::{AppConfig, Config, Encryption, SecretFrom};
use crate::report::CompressionKind;
use crate::{Error, ErrorKind, Result, naming};

/// The configuration as it takes effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EffectiveConfig {
    data_dir: String,
    apps: BTreeMap<String, EffectiveApp>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    destinations: BTreeMap<String, EffectiveDestination>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct EffectiveApp {
    enabled: bool,
    #[serde(flatten)]
    app: Carried,
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption: Option<EffectiveEncryption>,
    backup_dir: String,
    destinations: Vec<String>,
    verification: EffectiveVerification,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct EffectiveEncryption {
    enabled: bool,
    envelope: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    recipients: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipients_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_file: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    old_key_files: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password_command: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password_env: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password_credential: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iterations: Option<u32>,
}

impl EffectiveEncryption {
    fn of(encryption: &Encryption) -> Self {
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        let default = match encryption.envelope {
            Envelope::Age => None,
            Envelope::Openssl => Some(OPENSSL_ITERATIONS),
            Envelope::Gcm => Some(PASSWORD_ITERATIONS),
        };
        let mut effective = Self {
            enabled: encryption.is_enabled,
            envelope: encryption.envelope.name(),
            recipients: encryption.recipients.iter().map(ToString::to_string).collect(),
            recipients_file: encryption.recipients_file.as_ref().map(text),
            identity_file: encryption.identity_file.as_ref().map(text),
            key_file: encryption.key_file.as_ref().map(text),
            old_key_files: encryption.old_key_files.iter().map(text).collect(),
            password_file: None,
            password_command: None,
            password_env: None,
            password_credential: None,
            iterations: encryption.iterations.or(default),
        };
        match &encryption.password {
            None => {}
            Some(SecretFrom::File(path)) => effective.password_file = Some(text(path)),
            Some(SecretFrom::Command(argv)) => effective.password_command = Some(argv.clone()),
            Some(SecretFrom::Env(name)) => effective.password_env = Some(name.clone()),
            Some(SecretFrom::Credential(name)) => effective.password_credential = Some(name.clone()),
        }
        effective
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct EffectiveVerification {
    on_create: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct EffectiveDestination {
    url: String,
    form: &'static str,
    require_mount: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption: Option<&'static str>,
    enabled: bool,
}

impl EffectiveConfig {
    pub(crate) fn of(config: &Config, data_dir: &Path) -> Self {
        let destination = |name: &String| {
            let found = &config.destinations[name];
            let effective = EffectiveDestination {
                url: found.dir.to_string_lossy().into_owned(),
                form: "archive",
                require_mount: found.require_mount,
                encryption: found.wants_encrypted.then_some("required"),
                enabled: found.is_enabled,
            };
            (name.clone(), effective)
        };
        Self {
            data_dir: data_dir.to_string_lossy().into_owned(),
            apps: config.apps.iter().map(|(name, app)| (name.clone(), EffectiveApp::of(app))).collect(),
            destinations: config.destinations.keys().map(destination).collect(),
        }
    }

    /// As `lifeboat.yaml` would say it.
    ///
    /// # Errors
    /// When something in it cannot be written as YAML.
    pub fn to_yaml(&self) -> Result<String> {
        serde_saphyr::to_string(self)
            .map_err(|error| Error::new(ErrorKind::Failed, format!("could not write YAML: {error}")))
    }
}

impl EffectiveApp {
    fn of(app: &AppConfig) -> Self {
        let mut written = app.written(Reader::Owner);
        let kind = app.compression.unwrap_or(CompressionKind::Zstd);
        written.name.get_or_insert_with(|| naming::DEFAULT.to_owned());
        written.compression.get_or_insert_with(|| compression(kind));
        written.compression_level.get_or_insert(match kind {
            CompressionKind::Zstd => 3,
            CompressionKind::Gzip => 6,
        });
        if written.required.is_empty() {
            written.required = app.sources.keys().cloned().collect();
        }
        Self {
            enabled: app.is_enabled,
            app: written,
            backup_dir: app.backup_dir.as_deref().unwrap_or(Path::new(".")).to_string_lossy().into_owned(),
            encryption: app.encryption.as_ref().map(EffectiveEncryption::of),
            destinations: app.destinations.clone(),
            verification: EffectiveVerification { on_create: app.verify_on_create },
        }
    }
}

/// The JSON Schema (draft 2020-12) of `lifeboat.yaml`.
#[must_use]
pub fn schema() -> serde_json::Value {
    SchemaGenerator::new(SchemaSettings::draft2020_12()).into_root_schema_for::<raw::File>().to_value()
}
