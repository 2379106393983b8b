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

/// The encrypted file at `path`, opened, and the file itself.
pub(super) fn sealed(keys: Keys<'_>, path: &Path) -> Result<(Arc<Sealed>, File)> {
    let file = File::open(path).map_err(|error| store::Error::io("open", path, error))?;
    let Some(envelope) = sealed_as(&file, path)? else {
        return Err(Error::new(ErrorKind::Usage, format!("{} is not encrypted", path.display())));
    };
    let again = file.try_clone().map_err(|error| store::Error::io("open", path, error))?;
    Ok((unlock(keys, again, envelope, path, true)?, file))
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
    let mut search = Search { attempt: &attempt, opened: None, mistakes: Vec::new() };
    try_all(keys, envelope, app, &mut search);
    let Search { opened, mistakes, .. } = search;
    let was_tried = opened.is_some();
    let mut opened = opened.unwrap_or_else(|| Err(none(envelope, path)));
    let mut failed = 0;
    while may_ask && failed < ATTEMPTS && is_wrong_key(&opened) {
        let Some(answer) = keys.ring.ask(Question::Of { file: path, failed })? else { break };
        opened = attempt(&[Key::Password(answer)], None);
        failed += 1;
    }
    let mistake = mistakes.into_iter().next().filter(|_| !was_tried && failed == 0);
    let sealed = opened.map_err(|error| explain(error, envelope, path, mistake))?;
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

fn is_wrong_key(opened: &Result<Sealed>) -> bool {
    matches!(opened, Err(error) if error.kind() == ErrorKind::WrongKey)
}

/// What kept a key from being tried says more than that there is none.
fn explain(error: Error, envelope: Envelope, path: &Path, mistake: Option<Error>) -> Error {
    let error = error.about(path);
    if error.kind() != ErrorKind::WrongKey {
        return error;
    }
    if let Some(mistake) = mistake {
        return mistake;
    }
    error.next(match envelope {
        Envelope::Age => "give its passphrase with --password-file FILE, or the identity with --identity-file FILE",
        Envelope::Openssl => "give its key with --key-file FILE",
        Envelope::Gcm => "give its password with --password-file FILE",
    })
}

/// Tries keys, with the iterations that go with them.
type Attempt<'a> = dyn Fn(&[Key], Option<u32>) -> Result<Sealed> + 'a;

/// What was tried so far.
struct Search<'a> {
    attempt: &'a Attempt<'a>,
    opened: Option<Result<Sealed>>,
    /// Why keys could not be had. One of them must not hide that another opens it.
    mistakes: Vec<Error>,
}

impl Search<'_> {
    /// Tries a key, with the iterations that go with it. Once one was right, no
    /// other is even read: that may ask a person, or run a program.
    fn with(&mut self, key: impl FnOnce() -> Result<Option<Key>>, iterations: Option<u32>) {
        if self.opened.as_ref().is_some_and(|opened| !is_wrong_key(opened)) {
            return;
        }
        match key() {
            Ok(Some(key)) => self.opened = Some((self.attempt)(&[key], iterations)),
            Ok(None) => {}
            Err(error) => self.mistakes.push(error),
        }
    }

    fn with_identities(&mut self, file: &Path) {
        self.with(|| secret::of_identity_file(file).map(|all| Some(Key::Identities(all))), None);
    }

    fn with_key_file(&mut self, file: &Path, iterations: Option<u32>) {
        self.with(|| secret::of_key_file(file).map(|line| Some(Key::Password(line))), iterations);
    }
}

/// Tries what may open an archive of `app` in `envelope`, best first.
fn try_all(keys: Keys<'_>, envelope: Envelope, app: Option<&str>, search: &mut Search<'_>) {
    let (ring, config) = (keys.ring, keys.config);
    match envelope {
        Envelope::Age => ring.identity_files.iter().for_each(|file| search.with_identities(file)),
        Envelope::Openssl | Envelope::Gcm => ring.key_files.iter().for_each(|file| search.with_key_file(file, None)),
    }
    search.with(|| ring.given().map(|given| given.map(Key::Password)), None);
    let asked = ring.state().asked.clone();
    asked.into_iter().for_each(|answer| search.with(|| Ok(Some(Key::Password(answer))), None));
    let apps = config.into_iter().flat_map(|config| config.apps.values());
    let is_meant = |name: &str| app.is_none_or(|app| app == name);
    for encryption in apps.filter(|app| is_meant(&app.name)).filter_map(|app| app.encryption.as_ref()) {
        try_configured(keys, encryption, envelope, search);
    }
}

fn try_configured(keys: Keys<'_>, encryption: &Encryption, envelope: Envelope, search: &mut Search<'_>) {
    let iterations = encryption.iterations.filter(|_| encryption.envelope == envelope);
    // A recipient's host has no identity, and need not.
    let is_there = |file: &&std::path::PathBuf| file.exists();
    match envelope {
        Envelope::Age => encryption.identity_file.iter().filter(is_there).for_each(|file| search.with_identities(file)),
        Envelope::Openssl | Envelope::Gcm => {
            encryption.key_file.iter().filter(is_there).for_each(|file| search.with_key_file(file, iterations));
        }
    }
    if let Some(from) = &encryption.password {
        search.with(|| keys.ring.read(from).map(|secret| Some(Key::Password(secret))), iterations);
    }
    // Also those whose place the present one took.
    let present = encryption.identity_file.iter().chain(&encryption.key_file);
    let older: Vec<_> =
        encryption.old_key_files.iter().cloned().chain(present.flat_map(|file| care::older(file))).collect();
    for file in older.iter().filter(is_there) {
        // Of `age`, either may have been used before.
        if envelope == Envelope::Age && secret::holds_identities(file) {
            search.with_identities(file);
        } else {
            search.with_key_file(file, iterations);
        }
    }
}
