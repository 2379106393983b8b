//! Finding the key that opens an archive: what was given to this process, what
//! the configuration names for its app, what a person types.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use lifeboat_format::archive::Archive;
use lifeboat_format::envelope::{self, Beside, Envelope, Key, Sealed};
use lifeboat_store as store;

use super::{Keys, Question, care, secret};
use crate::config::Encryption;
use crate::destination::sidecar::{self, Sidecar};
use crate::{Error, ErrorKind, Result};

/// How often a person may try.
const ATTEMPTS: usize = 3;

/// What tells that a file is the one that was opened before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    file: (u64, u64),
    len: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &File) -> std::io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            file: (metadata.dev(), metadata.ino()),
            len: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

pub(super) fn open(keys: Keys<'_>, path: &Path) -> Result<Archive> {
    let failed = |error: std::io::Error| Error::from(store::Error::io("open", path, error));
    let file = File::open(path).map_err(failed)?;
    match sealed_as(&file, path)? {
        None => Ok(Archive::of_file(file, path)?),
        Some(envelope) => Ok(Archive::sealed(unlock(keys, file, envelope, path, true)?, path)?),
    }
}

pub(super) fn quietly(keys: Keys<'_>, path: &Path) -> Option<Archive> {
    let file = File::open(path).ok()?;
    match sealed_as(&file, path).ok()? {
        None => Archive::of_file(file, path).ok(),
        Some(envelope) => Archive::sealed(unlock(keys, file, envelope, path, false).ok()?, path).ok(),
    }
}

/// The envelope of a file; what is no file is for who reads archives to refuse.
fn sealed_as(file: &File, path: &Path) -> Result<Option<Envelope>> {
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Ok(None);
    }
    Envelope::of_file(file).map_err(|error| store::Error::io("read", path, error).into())
}

fn unlock(keys: Keys<'_>, file: File, envelope: Envelope, path: &Path, may_ask: bool) -> Result<Arc<Sealed>> {
    let stamp = Stamp::of(&file).map_err(|error| store::Error::io("look at", path, error))?;
    if let Some((_, sealed)) = keys.ring.state().opened.iter().find(|(known, _)| *known == stamp) {
        return Ok(Arc::clone(sealed));
    }
    let sidecar = Sidecar::read(path);
    let beside = Beside {
        hmac: sidecar::hmac_of(path),
        iterations: sidecar.as_ref().and_then(|sidecar| sidecar.iterations),
        key_id: sidecar.as_ref().and_then(|sidecar| sidecar.key_id.clone()),
    };
    let file = Arc::new(file);
    let attempt = |tried: &[Key], iterations: Option<u32>| {
        let beside = Beside { iterations: beside.iterations.or(iterations), ..beside.clone() };
        envelope::open(Arc::clone(&file), path, tried, &beside, &keys.ring.cancel).map_err(Error::from)
    };
    let app = sidecar.as_ref().map(|sidecar| sidecar.app.as_str());
    let mut opened = Err(none(envelope, path));
    // A mistake in one of the ways to a key must not hide that another opens it.
    let mut mistakes = Vec::new();
    for (candidates, iterations) in candidates(keys, envelope, app, &mut mistakes) {
        opened = attempt(&candidates, iterations);
        if !matches!(&opened, Err(error) if error.kind() == ErrorKind::WrongKey) {
            break;
        }
    }
    let mut failed = 0;
    while may_ask && failed < ATTEMPTS && matches!(&opened, Err(error) if error.kind() == ErrorKind::WrongKey) {
        let Some(answer) = keys.ring.ask(Question::Of { file: path, failed })? else { break };
        opened = attempt(&[Key::Password(answer)], None);
        failed += 1;
    }
    let sealed = opened.map_err(|error| explain(error, envelope, path, mistakes))?;
    let sealed = Arc::new(sealed);
    keys.ring.state().opened.push((stamp, Arc::clone(&sealed)));
    Ok(sealed)
}

fn none(envelope: Envelope, path: &Path) -> Error {
    Error::new(
        ErrorKind::WrongKey,
        format!("{} is encrypted ({}), and there is no key for it", path.display(), envelope.name()),
    )
}

fn explain(error: Error, envelope: Envelope, path: &Path, mistakes: Vec<Error>) -> Error {
    let error = error.about(path);
    if error.kind() != ErrorKind::WrongKey {
        return error;
    }
    // What kept a key from being tried says more than that there is none.
    if let Some(mistake) = mistakes.into_iter().next() {
        return mistake;
    }
    error.next(match envelope {
        Envelope::Age => "give its passphrase with --password-file FILE, or the identity with --identity-file FILE",
        Envelope::Openssl => "give its key with --key-file FILE",
        Envelope::Gcm => "give its password with --password-file FILE",
    })
}

/// What may open an archive of `app` in `envelope`, best first, each with the iterations that go with it.
fn candidates(
    keys: Keys<'_>,
    envelope: Envelope,
    app: Option<&str>,
    mistakes: &mut Vec<Error>,
) -> Vec<(Vec<Key>, Option<u32>)> {
    let mut found = Vec::new();
    let mut add = |key: Result<Option<Key>>, iterations: Option<u32>| match key {
        Ok(Some(key)) => found.push((vec![key], iterations)),
        Ok(None) => {}
        Err(error) => mistakes.push(error),
    };
    let (ring, config) = (keys.ring, keys.config);
    for file in &ring.identity_files {
        if envelope == Envelope::Age {
            add(secret::of_identity_file(file).map(|all| Some(Key::Identities(all))), None);
        }
    }
    for file in &ring.key_files {
        if envelope != Envelope::Age {
            add(secret::of_key_file(file).map(|line| Some(Key::Password(line))), None);
        }
    }
    add(ring.given().map(|given| given.map(Key::Password)), None);
    for answer in &ring.state().asked {
        add(Ok(Some(Key::Password(answer.clone()))), None);
    }
    let apps = config.into_iter().flat_map(|config| config.apps.values());
    let is_meant = |name: &str| app.is_none_or(|app| app == name);
    for encryption in apps.filter(|app| is_meant(&app.name)).filter_map(|app| app.encryption.as_ref()) {
        configured(keys, encryption, envelope, &mut add);
    }
    found
}

fn configured(
    keys: Keys<'_>,
    encryption: &Encryption,
    envelope: Envelope,
    add: &mut impl FnMut(Result<Option<Key>>, Option<u32>),
) {
    let iterations = encryption.iterations;
    // Also those whose place the present one took.
    let older = encryption.identity_file.iter().chain(&encryption.key_file).flat_map(|file| care::older(file));
    let older: Vec<_> = older.chain(encryption.old_key_files.iter().cloned()).collect();
    match envelope {
        Envelope::Age => {
            for file in encryption.identity_file.iter().chain(&older) {
                // A recipient's host has no identity, and need not.
                if file.exists() {
                    add(secret::of_identity_file(file).map(|all| Some(Key::Identities(all))), None);
                }
            }
        }
        Envelope::Openssl | Envelope::Gcm => {
            for file in encryption.key_file.iter().chain(&older) {
                if file.exists() {
                    add(secret::of_key_file(file).map(|line| Some(Key::Password(line))), iterations);
                }
            }
        }
    }
    if let Some(from) = &encryption.password {
        add(keys.ring.read(from).map(|secret| Some(Key::Password(secret))), iterations);
    }
}
