//! Which encrypted backups of an app which of its keys opens.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use jiff::Timestamp;
use lifeboat_format::envelope::{self, Beside, Envelope, Key};
use serde::Serialize;

use super::{Held, Keeper, elsewhere, name};
use crate::Result;
use crate::config::AppConfig;
use crate::destination::listing::Snapshot;
use crate::destination::sidecar::Sidecar;
use crate::destination::{self, listing};

/// What a header of age says where the file is encrypted with a passphrase.
const PASSPHRASE: &[u8] = b"\n-> scrypt ";
/// How much of a file is read for that.
const HEAD_BYTES: usize = 64;

/// What the keys of an app open, in numbers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SnapshotKeys {
    /// How many of its backups are encrypted.
    pub encrypted: u64,
    /// Of these, with a password.
    pub with_password: u64,
    /// To a recipient whose identity is not on this host.
    pub elsewhere: u64,
    /// Of which nobody can tell.
    pub unknown: u64,
    /// Those that no key here opens.
    pub unopened: Vec<Unopened>,
}

/// A backup that no key here opens.
#[derive(Clone, Debug, Serialize)]
pub struct Unopened {
    /// Its id, where that is known.
    pub id: Option<String>,
    /// When it was made.
    pub created: Timestamp,
    /// Its file.
    pub path: String,
}

/// An encrypted backup.
pub(super) struct Encrypted {
    snapshot: Snapshot,
    pub(super) envelope: Envelope,
    file: Arc<File>,
    sidecar: Option<Sidecar>,
}

impl Encrypted {
    /// Whether `key` opens it; `None` where that cannot be told without reading it whole.
    pub(super) fn fits(&self, key: &Key, iterations: Option<u32>) -> Option<bool> {
        let is_of_key = matches!((self.envelope, key), (Envelope::Age, Key::Identities(_)))
            || matches!((self.envelope, key), (Envelope::Openssl, Key::Password(_)));
        if !is_of_key {
            return Some(false);
        }
        let beside = Beside {
            hmac: None,
            iterations: self.sidecar.as_ref().and_then(|sidecar| sidecar.iterations).or(iterations),
            key_id: self.sidecar.as_ref().and_then(|sidecar| sidecar.key_id.clone()),
        };
        envelope::fits(&self.file, key, &beside).ok().flatten()
    }

    pub(super) fn is_with_password(&self) -> bool {
        let is_passphrase = || {
            let mut head = [0; HEAD_BYTES];
            let read = self.file.read_at(&mut head, 0).unwrap_or(0);
            head[..read].windows(PASSPHRASE.len()).any(|part| part == PASSPHRASE)
        };
        match self.envelope {
            Envelope::Gcm => true,
            Envelope::Openssl => false,
            Envelope::Age => is_passphrase(),
        }
    }

    fn key_id(&self) -> Option<&str> {
        self.sidecar.as_ref()?.key_id.as_deref()
    }

    fn unopened(&self) -> Unopened {
        let Snapshot { id, created, path, .. } = &self.snapshot;
        Unopened { id: id.clone(), created: *created, path: name(path) }
    }
}

impl Keeper<'_> {
    /// The encrypted backups of `app`, each once, the newest first. What tells nobody whose it is may be of `app`.
    pub(super) fn encrypted(&self, app: &AppConfig) -> Vec<Encrypted> {
        let places = self.keys.config.map(|config| destination::places(config, Some(&app.name), self.working_dir));
        let places = places.unwrap_or_default();
        let listed = places.iter().filter_map(|(name, dir)| listing::list(dir, name.as_deref()).ok()).flatten();
        let mut all: Vec<Snapshot> =
            listed.filter(|found| found.app.as_ref().is_none_or(|name| *name == app.name)).collect();
        all.sort_by_key(|found| std::cmp::Reverse(found.created));
        let mut seen = std::collections::BTreeSet::new();
        let is_new = |found: &Snapshot| found.id.as_ref().is_none_or(|id| seen.insert(id.clone()));
        all.retain(is_new);
        let open = |snapshot: Snapshot| {
            let envelope = Envelope::named(snapshot.envelope.as_deref()?)?;
            let file = Arc::new(File::open(&snapshot.path).ok()?);
            let sidecar = Sidecar::read(&snapshot.path);
            Some(Encrypted { snapshot, envelope, file, sidecar })
        };
        all.into_iter().filter_map(open).collect()
    }

    /// How many backups of `app` each key of `held` opens, and what becomes of the others.
    pub(super) fn snapshots(&self, app: &AppConfig, held: &[Held]) -> Result<(Vec<u64>, SnapshotKeys)> {
        let iterations = app.encryption.as_ref().and_then(|found| found.iterations);
        let elsewhere: Vec<String> = elsewhere(app, held)
            .iter()
            .filter_map(|text| text.parse::<envelope::Recipient>().ok())
            .map(|recipient| recipient.id())
            .collect();
        let mut opens = vec![0; held.len()];
        let mut all = SnapshotKeys::default();
        for found in self.encrypted(app) {
            self.cancel.check()?;
            all.encrypted += 1;
            if found.is_with_password() {
                all.with_password += 1;
                continue;
            }
            let mut told = Some(false);
            for (held, opens) in held.iter().zip(&mut opens) {
                match held.key().map_or(Some(false), |key| found.fits(key, iterations)) {
                    Some(true) => {
                        *opens += 1;
                        told = Some(true);
                    }
                    None if told != Some(true) => told = None,
                    _ => {}
                }
            }
            match told {
                Some(true) => {}
                Some(false) if found.key_id().is_some_and(|id| elsewhere.iter().any(|known| known == id)) => {
                    all.elsewhere += 1;
                }
                Some(false) => all.unopened.push(found.unopened()),
                None => all.unknown += 1,
            }
        }
        Ok((opens, all))
    }
}
