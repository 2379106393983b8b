//! The key in a file: what it is, what it opens, and its bytes.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use lifeboat_format::envelope::{Envelope, Identity, Key, Secret};
use zeroize::Zeroizing;

use super::super::{seal, secret};
use crate::{Error, ErrorKind, Result};

/// How the line of an identity begins.
pub(super) const IDENTITY: &str = "AGE-SECRET-KEY-1";
/// What stands before the date in a file of `age-keygen`.
const CREATED: &str = "# created:";
/// What stands between the name of a key and the date on which another took its place.
const OLD: &[u8] = b".old-";

/// A key, as a file holds it.
pub(super) struct Material {
    /// `age` or `openssl`.
    pub(super) envelope: Envelope,
    pub(super) key: Key,
    /// The bytes of the file.
    pub(super) raw: Zeroizing<Vec<u8>>,
}

impl Material {
    /// A new one.
    pub(super) fn generate(envelope: Envelope, now: Timestamp) -> Result<Self> {
        if envelope != Envelope::Age {
            return Ok(Self::of_line(seal::new_line()?));
        }
        secret::protect();
        let identity = Identity::generate();
        let mut raw = Zeroizing::new(format!("{CREATED} {now:.0}\n").into_bytes());
        raw.extend_from_slice(&identity_text(&identity));
        Ok(Self { envelope, key: Key::Identities(vec![identity]), raw })
    }

    pub(super) fn of_line(line: Secret) -> Self {
        let raw = Zeroizing::new([line.expose(), b"\n"].concat());
        Self { envelope: Envelope::Openssl, key: Key::Password(line), raw }
    }

    pub(super) fn of_identities(identities: Vec<Identity>) -> Self {
        let mut raw = Zeroizing::new(Vec::new());
        identities.iter().for_each(|identity| raw.extend_from_slice(&identity_text(identity)));
        Self { envelope: Envelope::Age, key: Key::Identities(identities), raw }
    }

    /// The key in the file at `path`, which only its owner may read.
    ///
    /// # Errors
    /// When it cannot be read, is open to others, or holds no key.
    pub(super) fn read(path: &Path) -> Result<Self> {
        secret::check_is_private(path)?;
        let raw = secret::read(path)?;
        let is_identities =
            raw.split(|byte| *byte == b'\n').any(|line| line.trim_ascii().starts_with(IDENTITY.as_bytes()));
        if is_identities {
            let key = Key::Identities(secret::of_identity_file(path)?);
            return Ok(Self { envelope: Envelope::Age, key, raw });
        }
        Ok(Self { envelope: Envelope::Openssl, key: Key::Password(secret::of_key_file(path)?), raw })
    }

    /// The secret lines.
    pub(super) fn lines(&self) -> Vec<Secret> {
        match &self.key {
            Key::Password(line) => vec![line.clone()],
            Key::Identities(identities) => identities.iter().map(Identity::line).collect(),
        }
    }

    /// The recipients of its identities.
    pub(super) fn recipients(&self) -> Vec<String> {
        match &self.key {
            Key::Password(_) => Vec::new(),
            Key::Identities(identities) => identities.iter().map(|one| one.recipient().to_string()).collect(),
        }
    }

    /// When it was made, where its file says so.
    pub(super) fn made(&self) -> Option<Timestamp> {
        let text = std::str::from_utf8(&self.raw).ok()?;
        text.lines().find_map(|line| line.strip_prefix(CREATED))?.trim().parse().ok()
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.envelope == other.envelope && self.lines() == other.lines()
    }
}

fn identity_text(identity: &Identity) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(format!("# public key: {}\n", identity.recipient()).into_bytes());
    text.extend_from_slice(identity.line().expose());
    text.push(b'\n');
    text
}

/// What the key at `path` is called on `date` (`20260224`) when another takes its place: the first that is free.
pub(super) fn old_names(path: &Path, date: &str) -> impl Iterator<Item = PathBuf> + use<> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(std::str::from_utf8(OLD).unwrap_or_default());
    name.push(date);
    (1..1000).map(move |number| {
        let mut name = name.clone();
        if number > 1 {
            name.push(format!("-{number}"));
        }
        PathBuf::from(name)
    })
}

/// The keys whose place the one at `path` took, the newest first.
pub(crate) fn older(path: &Path) -> Vec<PathBuf> {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut found = Vec::new();
    for path in [path, &real] {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { continue };
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let listing = std::fs::read_dir(dir).into_iter().flatten().filter_map(std::io::Result::ok);
        let is_old = |found: &[u8]| found.strip_prefix(name.as_encoded_bytes()).is_some_and(is_old_end);
        let mut here: Vec<_> = listing
            .filter(|entry| is_old(entry.file_name().as_encoded_bytes()))
            .map(|entry| dir.join(entry.file_name()))
            .collect();
        here.sort_by_key(|path| std::cmp::Reverse(rank(path)));
        here.retain(|path| !found.contains(path));
        found.extend(here);
    }
    found
}

/// Whether a name that goes on so is that of an older key.
fn is_old_end(end: &[u8]) -> bool {
    let is_number = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let Some((date, number)) = end.strip_prefix(OLD).and_then(|end| end.split_at_checked(8)) else { return false };
    is_number(date) && (number.is_empty() || number.strip_prefix(b"-").is_some_and(is_number))
}

/// The name of the key whose older one `name` is, by that name.
pub(crate) fn key_of_older(name: &[u8]) -> Option<&[u8]> {
    let at = name.windows(OLD.len()).rposition(|part| part == OLD)?;
    is_old_end(&name[at..]).then_some(&name[..at])
}

/// The date and the number in the name of an older key.
fn rank(path: &Path) -> (String, u32) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let end = name.rsplit(".old-").next().unwrap_or_default();
    let (date, number) = end.split_once('-').unwrap_or((end, "1"));
    (date.to_owned(), number.parse().unwrap_or_default())
}

/// That there is no place for a key.
pub(super) fn usage(what: impl Into<String>, next: impl Into<String>) -> Error {
    Error::new(ErrorKind::Usage, what).state(super::NOTHING).next(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows E7.
    #[test]
    fn only_what_rotate_keeps_is_taken_for_an_older_key_and_the_newest_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        for name in ["k", "k.old-20260101", "k.old-20260101-2", "k.old-20260101-10", "k.old-20260224", "k.old-2026"] {
            seal::write(&dir.path().join(name), b"x").unwrap();
        }
        for name in ["k.old-20260101-", "k.old-20260101-x", "k.old", "kk.old-20260101", "k.old-20260101.bak"] {
            seal::write(&dir.path().join(name), b"x").unwrap();
        }
        let names: Vec<_> = older(&path).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["k.old-20260224", "k.old-20260101-10", "k.old-20260101-2", "k.old-20260101"]);
        assert_eq!(key_of_older(b"d/k.old-20260101-2"), Some(&b"d/k"[..]));
        assert_eq!((key_of_older(b"k.old-2026010"), key_of_older(b"k")), (None, None));
        let next: Vec<_> = old_names(&path, "20260101").take(2).collect();
        assert_eq!(next, [Path::new("k.old-20260101"), Path::new("k.old-20260101-2")]);
    }
}
