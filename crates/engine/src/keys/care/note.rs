//! What is remembered of keys, in `data_dir/keys/`: when one was made, copied
//! away or brought here. A key is known again by its recipient's id, or by a
//! hash under a salt of this host; never does a secret stand there.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use lifeboat_format::envelope::{Key, key::fingerprint};
use lifeboat_store::durable::{self, Unnamed};
use serde::{Deserialize, Serialize};

use super::Material;
use crate::{Result, lock};

const MODE: u32 = 0o600;

/// What is remembered of one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) made: Option<Timestamp>,
    pub(super) exported: Option<Timestamp>,
    pub(super) imported: Option<Timestamp>,
}

impl Note {
    /// Whether there is, or was, a copy somewhere else.
    pub(super) fn is_safe(&self) -> bool {
        self.exported.is_some() || self.imported.is_some()
    }
}

/// All that is remembered.
pub(super) struct Notes(PathBuf);

impl Notes {
    pub(super) fn of(data_dir: &Path) -> Self {
        Self(data_dir.join("keys"))
    }

    /// What is remembered of `key`; of several identities, what holds for all of them.
    pub(super) fn read(&self, key: &Key) -> Note {
        let notes: Vec<Note> = self.names(key, self.salt()).iter().map(|name| self.parse(name)).collect();
        let all = |of: fn(&Note) -> Option<Timestamp>| notes.iter().map(of).min().flatten();
        Note { made: all(|note| note.made), exported: all(|note| note.exported), imported: all(|note| note.imported) }
    }

    /// Changes what is remembered of `key`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn change(&self, key: &Key, change: impl Fn(&mut Note)) -> Result<()> {
        lock::make_private_dir(&self.0)?;
        if self.salt().is_none() {
            let mut salt = Unnamed::create(&self.0)?;
            salt.append(durable::random_hex().as_bytes())?;
            match salt.publish(["salt"], MODE) {
                Err(error) if error.kind() != lifeboat_store::ErrorKind::Exists => return Err(error.into()),
                // Another run was faster.
                _ => {}
            }
        }
        for name in self.names(key, self.salt()) {
            let mut note = self.parse(&name);
            change(&mut note);
            let mut file = Unnamed::create(&self.0)?;
            file.append(&serde_json::to_vec(&note).expect("a note has nothing that JSON lacks"))?;
            file.publish_over(Path::new(&name), MODE)?;
        }
        Ok(())
    }

    fn salt(&self) -> Option<Vec<u8>> {
        std::fs::read(self.0.join("salt")).ok().filter(|salt| !salt.is_empty())
    }

    /// The files of `key`; none of a secret without a salt, when nothing was ever remembered.
    fn names(&self, key: &Key, salt: Option<Vec<u8>>) -> Vec<String> {
        match key {
            Key::Identities(all) => all.iter().map(|one| format!("age-{}.json", one.recipient().id())).collect(),
            Key::Password(secret) => {
                let id = salt.and_then(|salt| fingerprint(secret, &salt).ok());
                id.map(|id| format!("openssl-{id}.json")).into_iter().collect()
            }
        }
    }

    fn parse(&self, name: &str) -> Note {
        let text = std::fs::read(self.0.join(name)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }
}

/// Remembers that the key at `path` was made. That it cannot be noted ends nothing.
pub(crate) fn note_made(data_dir: &Path, path: &Path, now: Timestamp) {
    if let Ok(material) = Material::read(path) {
        Notes::of(data_dir).change(&material.key, |note| note.made = Some(now)).unwrap_or(());
    }
}

#[cfg(test)]
mod tests {
    use lifeboat_format::envelope::{Envelope, Secret};

    use super::*;

    /// Shows E7.
    #[test]
    fn a_key_is_known_again_and_its_secret_is_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let (notes, now) = (Notes::of(dir.path()), Timestamp::UNIX_EPOCH);
        let line = Key::Password(Secret::new(b"a line of a key".to_vec()));
        let identity = Material::generate(Envelope::Age, now).unwrap().key;
        for key in [&line, &identity] {
            assert_eq!(notes.read(key), Note::default());
            notes.change(key, |note| note.exported = Some(now)).unwrap();
            notes.change(key, |note| note.made = Some(now)).unwrap();
            assert!(notes.read(key).is_safe() && notes.read(key).made == Some(now));
        }
        let other = Key::Password(Secret::new(b"another".to_vec()));
        assert_eq!(notes.read(&other), Note::default());
        for entry in std::fs::read_dir(dir.path().join("keys")).unwrap() {
            let text = std::fs::read(entry.unwrap().path()).unwrap();
            assert!(!text.windows(6).any(|part| part == b"a line"));
        }
    }
}
