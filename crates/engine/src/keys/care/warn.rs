//! What is warned of: keys that were never copied away, and keys that lie
//! where the backups do.

use std::path::{Path, PathBuf};

use lifeboat_format::envelope::{Envelope, Key, Recipient, Seal};

use super::note::Notes;
use super::{Held, KeyRole, current, elsewhere, held, name, place};
use crate::config::AppConfig;
use crate::keys::Keys;

/// That the key at `path` was never copied away, and what to do about it.
fn never_exported(app: Option<&str>, role: KeyRole, path: &Path, envelope: Envelope) -> String {
    let option = if envelope == Envelope::Age { "--identity-file" } else { "--key-file" };
    let file = crate::reach::shell(&name(path));
    let command = match (app, role) {
        (Some(app), KeyRole::Current) => format!("lifeboat key export {app} --paper"),
        (Some(app), KeyRole::Old) => format!("lifeboat key export {app} {option} {file} --paper"),
        (None, _) => format!("lifeboat key export {option} {file} --paper"),
    };
    let path = name(path);
    format!("the key {path} was never exported: when this machine is lost, so are its backups; run `{command}`")
}

/// A line for each key of `app` that was never copied away.
pub(super) fn unexported_of(app: &AppConfig, held: &[Held], notes: &Notes) -> Vec<String> {
    // Somebody else opens the backups too.
    if !elsewhere(app, held).is_empty() {
        return Vec::new();
    }
    let unsafe_ones = held.iter().filter(|held| held.key().is_some_and(|key| !notes.read(key).is_safe()));
    unsafe_ones
        .filter_map(|held| {
            let envelope = held.material.as_ref().ok()?.envelope;
            Some(never_exported(Some(&app.name), held.role, &held.path, envelope))
        })
        .collect()
}

/// As [`unexported_of`], for `status`.
pub(crate) fn unexported(app: &AppConfig, data_dir: &Path) -> Vec<String> {
    unexported_of(app, &held(app), &Notes::of(data_dir))
}

/// A line for the key of a backup that `seal` encrypts, if it was never copied away.
pub(crate) fn unexported_by(keys: Keys<'_>, seal: &Seal, app: Option<&AppConfig>, data_dir: &Path) -> Option<String> {
    let notes = Notes::of(data_dir);
    let configured = app.and_then(current).filter(|path| path.exists());
    let envelope = seal.envelope();
    let given = if envelope == Envelope::Age { &keys.ring.identity_files } else { &keys.ring.key_files };
    let path = given.first().or(configured)?;
    // A key that was given is not that of the app, unless it is the same file.
    let named = app.filter(|_| Some(path) == configured).map(|app| app.name.as_str());
    let (role, line) = (KeyRole::Current, || never_exported(named, KeyRole::Current, path, envelope));
    match seal {
        Seal::Openssl { key, .. } => (!notes.read(&Key::Password(key.clone())).is_safe()).then(line),
        Seal::Age(recipients) => {
            let mut all: Vec<Held> = given.iter().map(|path| Held::at(role, path.clone())).collect();
            all.extend(app.map(held).unwrap_or_default());
            let key_of = |recipient: &String| {
                all.iter().find(|held| held.material.as_ref().is_ok_and(|found| found.recipients().contains(recipient)))
            };
            // One that is elsewhere, or was copied there, opens all of it.
            let is_only_here = |recipient: &Recipient| {
                let key = key_of(&recipient.to_string()).and_then(Held::key);
                key.is_some_and(|key| !notes.read(key).is_safe())
            };
            recipients.iter().all(is_only_here).then(line)
        }
        Seal::AgePassphrase(_) | Seal::Gcm { .. } => None,
    }
}

/// Files with keys that are used from where the backups are, one line each.
pub(crate) fn misplaced(keys: Keys<'_>) -> Vec<String> {
    let configured = keys.config.into_iter().flat_map(|config| config.apps.values()).filter_map(current);
    let mut files: Vec<&PathBuf> =
        keys.ring.identity_files.iter().chain(&keys.ring.key_files).chain(configured).collect();
    files.sort();
    files.dedup();
    let line = |path: &PathBuf| {
        let dir = place::configured(keys.config, path).filter(|_| path.exists())?;
        let (path, dir) = (name(path), name(&dir));
        Some(format!(
            "the key {path} lies where the backups are ({dir}): who finds a backup finds its key, and both are lost together"
        ))
    };
    files.into_iter().filter_map(line).collect()
}
