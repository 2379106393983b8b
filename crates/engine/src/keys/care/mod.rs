//! What a person does with the keys of apps: makes them, looks at them, and lets
//! another take the place of one (`carry.rs`: copies them away and brings them
//! back; `opens.rs`: what they open). Where backups are is no place for one
//! (`place.rs`), and one that was never copied away is warned of (`warn.rs`).

mod carry;
mod material;
mod note;
mod opens;
mod paper;
mod place;
mod warn;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use jiff::{Timestamp, Zoned};
use lifeboat_format::envelope::{Envelope, Key};
use lifeboat_format::path::shown;
use lifeboat_store::durable::Unnamed;
use serde::Serialize;

use super::{Keys, seal};
use crate::config::{AppConfig, Config, SecretFrom};
use crate::{Cancel, Error, ErrorKind, Result, lock};
pub use carry::{KeyExport, KeyExported, KeyImport, KeyImported};
use material::{Material, usage};
pub(crate) use material::{key_of_older, older};
use note::Notes;
pub(crate) use note::note_made;
pub use opens::{SnapshotKeys, Unopened};
pub(crate) use place::{real, refuse_configured};
use warn::unexported_of;
pub(crate) use warn::{misplaced, unexported, unexported_by};

/// What is said where nothing was done.
const NOTHING: &str = "no key was written or changed";
/// The mode of a key.
const MODE: u32 = 0o600;

/// Looks after keys.
pub(crate) struct Keeper<'a> {
    pub(crate) keys: Keys<'a>,
    pub(crate) data_dir: &'a Path,
    pub(crate) working_dir: &'a Path,
    pub(crate) now: Zoned,
    pub(crate) cancel: &'a Cancel,
}

/// What key is to be made.
#[derive(Clone, Debug)]
pub enum KeyGenerate {
    /// The one that an app's configuration names; of the only app that is encrypted, where none is named.
    Of(Option<String>),
    /// One that belongs to no app yet.
    At(PathBuf, Envelope),
}

/// A key that was made.
#[derive(Clone, Debug, Serialize)]
pub struct KeyMade {
    /// The app.
    pub app: Option<String>,
    /// `age` or `openssl`.
    pub envelope: &'static str,
    /// Its file.
    pub path: String,
    /// `age`: the recipients to encrypt to.
    pub recipients: Vec<String>,
    /// Whether they have to be written into `lifeboat.yaml` before a backup is encrypted to them.
    pub must_be_configured: bool,
    /// Backups of the app that no key here opens, and so not the new one.
    pub unopened: Vec<Unopened>,
    /// What is worth a warning.
    pub warnings: Vec<String>,
}

/// A key whose place another took.
#[derive(Clone, Debug, Serialize)]
pub struct KeyRotated {
    /// The app.
    pub app: String,
    /// `age` or `openssl`.
    pub envelope: &'static str,
    /// The file of the new key.
    pub path: String,
    /// The file of the old one.
    pub old: String,
    /// `age`: the recipients of the new one.
    pub recipients: Vec<String>,
    /// `age`: the recipients of the old one that `lifeboat.yaml` still names.
    pub replaces: Vec<String>,
    /// What is worth a warning.
    pub warnings: Vec<String>,
}

/// What a key is to its app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyRole {
    /// New backups are encrypted with it.
    Current,
    /// Another took its place; it opens older backups.
    Old,
}

/// A key, without its secret.
#[derive(Clone, Debug, Serialize)]
pub struct KeyInfo {
    /// What it is to its app.
    pub role: KeyRole,
    /// `age` or `openssl`.
    pub envelope: &'static str,
    /// Its file.
    pub path: String,
    /// The mode of the file, in octal.
    pub mode: Option<String>,
    /// Why it cannot be read.
    pub problem: Option<String>,
    /// `age`: the recipients.
    pub recipients: Vec<String>,
    /// When it was made, where that is known.
    pub made: Option<Timestamp>,
    /// When it was copied away first.
    pub exported: Option<Timestamp>,
    /// When it was brought here.
    pub imported: Option<Timestamp>,
    /// How many backups of the app it opens, where that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opens: Option<u64>,
}

/// The keys of an app.
#[derive(Clone, Debug, Serialize)]
pub struct AppKeys {
    /// The app.
    pub app: String,
    /// How it is encrypted, if it may be.
    pub envelope: Option<&'static str>,
    /// Where its password comes from, if it has one.
    pub password: Option<String>,
    /// Its keys.
    pub keys: Vec<KeyInfo>,
    /// Recipients whose identity is not on this host.
    pub elsewhere: Vec<String>,
    /// What the keys open, where that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<SnapshotKeys>,
    /// What is wrong, one line each.
    pub wrong: Vec<String>,
}

/// A key's file, and the key where it can be read.
struct Held {
    role: KeyRole,
    path: PathBuf,
    material: Result<Material>,
}

impl Held {
    fn at(role: KeyRole, path: PathBuf) -> Self {
        let material = Material::read(&path);
        Self { role, path, material }
    }

    fn key(&self) -> Option<&Key> {
        self.material.as_ref().ok().map(|material| &material.key)
    }
}

fn name(path: &Path) -> String {
    shown(path.as_os_str().as_encoded_bytes())
}

/// The file of the key that new backups of `app` are encrypted with.
fn current(app: &AppConfig) -> Option<&PathBuf> {
    let encryption = app.encryption.as_ref()?;
    encryption.key_file.as_ref().or(encryption.identity_file.as_ref())
}

/// The keys of `app`: the current one, even where it is missing, then older ones.
fn held(app: &AppConfig) -> Vec<Held> {
    let Some(encryption) = &app.encryption else { return Vec::new() };
    let mut all: Vec<Held> = current(app).into_iter().map(|path| Held::at(KeyRole::Current, path.clone())).collect();
    let before = current(app).map(|path| older(path)).unwrap_or_default();
    for path in before.into_iter().chain(encryption.old_key_files.iter().cloned()) {
        if !all.iter().any(|held| held.path == path) {
            all.push(Held::at(KeyRole::Old, path));
        }
    }
    all
}

/// The recipients of `app` whose identity is not among `held`, as far as they can be read.
fn elsewhere(app: &AppConfig, held: &[Held]) -> Vec<String> {
    let recipients = app.encryption.as_ref().and_then(|found| seal::configured_recipients(found).ok());
    let here: Vec<String> =
        held.iter().filter_map(|held| held.material.as_ref().ok()).flat_map(Material::recipients).collect();
    let all = recipients.unwrap_or_default().into_iter().map(|recipient| recipient.to_string());
    all.filter(|recipient| !here.contains(recipient)).collect()
}

impl Keeper<'_> {
    fn timestamp(&self) -> Timestamp {
        self.now.timestamp()
    }

    fn notes(&self) -> Notes {
        Notes::of(self.data_dir)
    }

    /// Changes what is remembered of a key; that it cannot be is a warning.
    fn note(&self, material: &Material, warnings: &mut Vec<String>, change: impl Fn(&mut note::Note)) {
        if let Err(error) = self.notes().change(&material.key, change) {
            warnings.push(format!("it could not be noted: {error}"));
        }
    }

    /// The app called `wanted`; else the only one that is encrypted.
    fn app(&self, wanted: Option<&str>) -> Result<&AppConfig> {
        let apps = || self.keys.config.into_iter().flat_map(|config| config.apps.values());
        if let Some(wanted) = wanted {
            let found = apps().find(|app| app.name == wanted);
            return found.ok_or_else(|| crate::backup::no_such_app(wanted, self.keys.config));
        }
        let encrypted: Vec<&AppConfig> = apps().filter(|app| app.encryption.is_some()).collect();
        let names = || encrypted.iter().map(|app| app.name.as_str()).collect::<Vec<_>>().join(", ");
        match encrypted[..] {
            [app] => Ok(app),
            [] => Err(usage(
                "no app is encrypted: nothing says which key is meant",
                "write `encryption:` into lifeboat.yaml; a key of its own is made by `lifeboat key generate --output FILE`",
            )),
            _ => Err(usage("several apps are encrypted, and none was named", format!("name one: {}", names()))),
        }
    }

    /// The file in which the configuration of `app` wants its key.
    fn place_of<'a>(&self, app: &'a AppConfig) -> Result<(&'a Path, Envelope)> {
        let app_name = &app.name;
        let Some(encryption) = &app.encryption else {
            return Err(usage(
                format!("{app_name} is not encrypted: nothing names a key"),
                "write `encryption:` with `identity_file` or `key_file` into lifeboat.yaml",
            ));
        };
        if let Some(path) = current(app) {
            return Ok((path, encryption.envelope));
        }
        Err(match (&encryption.password, encryption.envelope) {
            (None, Envelope::Age) if !elsewhere(app, &[]).is_empty() => usage(
                format!("the identity of {app_name} is not kept on this host: only recipients are configured"),
                "make one on another machine: lifeboat key generate --output FILE; its recipient goes under `recipients`",
            ),
            _ => usage(
                format!("{app_name} is encrypted with a password, and has no key"),
                "change the password where it comes from; for a key, name `identity_file` or `key_file`",
            ),
        })
    }

    /// Makes a key.
    ///
    /// # Errors
    /// When there is one already, or the place is none for a key.
    pub(crate) fn generate(&self, request: &KeyGenerate) -> Result<KeyMade> {
        let (app, path, envelope) = match request {
            KeyGenerate::Of(wanted) => {
                let app = self.app(wanted.as_deref())?;
                let (path, envelope) = self.place_of(app)?;
                (Some(app), path, envelope)
            }
            KeyGenerate::At(path, envelope) => (None, path.as_path(), *envelope),
        };
        refuse_existing(path, app)?;
        match app {
            Some(_) => place::refuse_configured(self.keys.config, path)?,
            None => place::refuse(self.keys.config, path)?,
        }
        let unopened = app.map(|app| self.snapshots(app, &held(app))).transpose()?;
        let material = Material::generate(envelope, self.timestamp())?;
        seal::write(path, &material.raw).map_err(|error| error.state(NOTHING))?;
        let mut warnings = if app.is_none() { place::picked_up(self.keys.config, path) } else { Vec::new() };
        self.note(&material, &mut warnings, |note| note.made = Some(self.timestamp()));
        let recipients = material.recipients();
        let is_configured = app.is_some_and(|app| elsewhere(app, &[]).iter().any(|known| recipients.contains(known)));
        Ok(KeyMade {
            app: app.map(|app| app.name.clone()),
            envelope: envelope.name(),
            path: name(path),
            must_be_configured: !recipients.is_empty() && !is_configured,
            recipients,
            unopened: unopened.map(|found| found.1.unopened).unwrap_or_default(),
            warnings,
        })
    }

    /// Lets a new key take the place of an app's key, which is kept beside it.
    ///
    /// # Errors
    /// When there is none, or it cannot be written; the old one is in its place then.
    pub(crate) fn rotate(&self, wanted: Option<&str>) -> Result<KeyRotated> {
        let app = self.app(wanted)?;
        let (path, envelope) = self.place_of(app)?;
        // No backup may be encrypted with a key that a second rotation loses.
        let _lock = lock::take(self.data_dir, &lock::key(&app.name, &[]))?;
        let next = format!("lifeboat key generate {}", app.name);
        let missing =
            |error| Error::new(ErrorKind::WrongKey, format!("there is no key at {}: {error}", path.display()));
        let real = path.canonicalize().map_err(|error| missing(error).state(NOTHING).next(next))?;
        place::refuse_configured(self.keys.config, path)?;
        let old = Material::read(&real).map_err(|error| error.state(NOTHING))?;
        let new = Material::generate(envelope, self.timestamp())?;
        let kept = exchange(&real, &old, &new, &self.now.strftime("%Y%m%d").to_string())
            .map_err(|error| error.state("the old key is in its place, and nothing else was changed"))?;
        let mut warnings = Vec::new();
        self.note(&new, &mut warnings, |note| note.made = Some(self.timestamp()));
        let configured = app.encryption.as_ref().and_then(|found| seal::configured_recipients(found).ok());
        let configured: Vec<String> = configured.unwrap_or_default().iter().map(ToString::to_string).collect();
        Ok(KeyRotated {
            app: app.name.clone(),
            envelope: envelope.name(),
            path: name(path),
            old: name(&kept),
            recipients: new.recipients(),
            replaces: old.recipients().into_iter().filter(|recipient| configured.contains(recipient)).collect(),
            warnings,
        })
    }

    /// The keys of an app, or of all that are encrypted; also what they open, where `counts`.
    ///
    /// # Errors
    /// When there is no such app, or on cancel.
    pub(crate) fn show(&self, wanted: Option<&str>, counts: bool) -> Result<Vec<AppKeys>> {
        let apps: Vec<&AppConfig> = match wanted {
            Some(wanted) => vec![self.app(Some(wanted))?],
            None => {
                let all = self.keys.config.into_iter().flat_map(|config| config.apps.values());
                all.filter(|app| app.encryption.is_some()).collect()
            }
        };
        apps.into_iter().map(|app| self.look(app, counts)).collect()
    }

    fn look(&self, app: &AppConfig, counts: bool) -> Result<AppKeys> {
        let (held, notes) = (held(app), self.notes());
        let mut wrong = unexported_of(app, &held, &notes);
        let mut keys: Vec<KeyInfo> = held.iter().map(|held| info(held, app, &notes)).collect();
        let mut snapshots = None;
        if counts {
            let (opens, found) = self.snapshots(app, &held)?;
            keys.iter_mut().zip(opens).for_each(|(key, opens)| key.opens = Some(opens));
            if !found.unopened.is_empty() {
                let count = found.unopened.len();
                let (are, them) = if count == 1 { ("backup is", "it") } else { ("backups are", "them") };
                wrong.push(format!("{count} {are} encrypted, and no key here opens {them}"));
            }
            snapshots = Some(found);
        }
        // One that is missing is wrong where something needs it; else the first backup makes it.
        let is_needed = snapshots.as_ref().is_some_and(|found| !found.unopened.is_empty());
        wrong.extend(keys.iter().filter(|key| key.mode.is_some() || is_needed).filter_map(|key| key.problem.clone()));
        let encryption = app.encryption.as_ref();
        Ok(AppKeys {
            app: app.name.clone(),
            envelope: encryption.map(|found| found.envelope.name()),
            password: encryption.and_then(|found| found.password.as_ref()).map(password),
            keys,
            elsewhere: elsewhere(app, &held),
            snapshots,
            wrong,
        })
    }
}

fn info(held: &Held, app: &AppConfig, notes: &Notes) -> KeyInfo {
    let metadata = held.path.metadata().ok();
    let material = held.material.as_ref().ok();
    let note = material.map(|material| notes.read(&material.key)).unwrap_or_default();
    let configured = app.encryption.as_ref().map_or(Envelope::Age, |found| found.envelope);
    KeyInfo {
        role: held.role,
        envelope: material.map_or(configured, |material| material.envelope).name(),
        path: name(&held.path),
        mode: metadata.map(|metadata| format!("{:o}", metadata.mode() & 0o7777)),
        problem: held.material.as_ref().err().map(|error| error.what().to_owned()),
        recipients: material.map(Material::recipients).unwrap_or_default(),
        made: note.made.or_else(|| material?.made()),
        exported: note.exported,
        imported: note.imported,
        opens: None,
    }
}

fn password(from: &SecretFrom) -> String {
    match from {
        SecretFrom::File(path) => format!("the file {}", name(path)),
        SecretFrom::Command(argv) => {
            format!("the command {}", shown(argv.first().map_or("", String::as_str).as_bytes()))
        }
        SecretFrom::Env(name) => format!("the variable {name} of the environment"),
        SecretFrom::Credential(name) => format!("the credential {name} of systemd"),
    }
}

/// A key is never written over something.
fn refuse_existing(path: &Path, app: Option<&AppConfig>) -> Result<()> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    let next = app.map_or_else(
        || "choose another name".to_owned(),
        |app| format!("to let a new key take its place: lifeboat key rotate {}", app.name),
    );
    Err(Error::new(ErrorKind::Failed, format!("{} exists already", path.display())).state(NOTHING).next(next))
}

/// Keeps `old`, the key in the file `path`, beside it, and lets `new` take its place in one step.
fn exchange(path: &Path, old: &Material, new: &Material, date: &str) -> Result<PathBuf> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let owner = path.metadata().map_err(|error| lifeboat_store::Error::io("look at", path, error))?;
    let write = |raw: &[u8]| -> Result<Unnamed> {
        let mut file = Unnamed::create(dir)?;
        file.append(raw)?;
        // The service that uses it may be another user's; who may not give files away keeps it.
        std::os::unix::fs::fchown(file.file(), Some(owner.uid()), Some(owner.gid())).unwrap_or(());
        Ok(file)
    };
    let new = write(&new.raw)?;
    let kept = write(&old.raw)?.publish(material::old_names(path, date), MODE)?;
    // One rename: at every moment there is a whole key of this name.
    if let Err(error) = new.publish_over(Path::new(path.file_name().unwrap_or_default()), MODE) {
        std::fs::remove_file(&kept).unwrap_or(());
        return Err(error.into());
    }
    Ok(kept)
}

/// The name of `app` in the configuration, for those who only look.
fn app_named<'a>(config: Option<&'a Config>, app: Option<&str>) -> Option<&'a AppConfig> {
    config?.apps.get(app?)
}
