//! The nouns of a snapshot: its id, its entries, its outcome.

use std::fmt;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use crate::path::EntryPath;

/// A SHA-256 sum.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256([u8; 32]);

impl Sha256 {
    /// The sum of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_digest(&digest::digest(&digest::SHA256, bytes))
    }

    fn from_digest(digest: &digest::Digest) -> Self {
        Self(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// The sum that 64 hex digits spell.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A SHA-256 sum in the making.
#[derive(Clone)]
pub struct Summer(digest::Context);

impl Summer {
    /// The sum of nothing yet.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a sum is begun on purpose")]
    pub fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The sum of all that was added.
    #[must_use]
    pub fn finish(self) -> Sha256 {
        Sha256::from_digest(&self.0.finish())
    }
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link; its target is data and is never followed.
    Symlink,
    /// Another name of a file that stands earlier in the snapshot.
    Hardlink,
    /// A named pipe.
    Fifo,
    /// A character device.
    Char,
    /// A block device.
    Block,
}

/// A moment as file systems keep it: whole seconds since 1970 (rounded down,
/// may be negative) and nanoseconds after them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileTime {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// Nanoseconds after them, below 1,000,000,000.
    pub nanos: u32,
}

impl FileTime {
    /// As the manifest writes it: `<seconds>.<9 digits>`.
    #[must_use]
    pub fn to_manifest(self) -> String {
        format!("{}.{:09}", self.seconds, self.nanos)
    }
}

/// The extended attributes of an entry, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Xattrs(Vec<(Vec<u8>, Vec<u8>)>);

impl Xattrs {
    /// These attributes, names and values; sorted here.
    #[must_use]
    pub fn new(mut pairs: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        pairs.sort();
        Self(pairs)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
    }

    /// The sum that stands for them in the manifest: over each name and value,
    /// each preceded by its length as a big-endian u32. `None` for no attributes.
    #[must_use]
    pub fn sum(&self) -> Option<Sha256> {
        if self.is_empty() {
            return None;
        }
        let mut summer = Summer::new();
        for part in self.0.iter().flat_map(|(name, value)| [name, value]) {
            let len = u32::try_from(part.len()).expect("the kernel limits attributes to 64 KiB");
            summer.update(&len.to_be_bytes());
            summer.update(part);
        }
        Some(summer.finish())
    }
}

/// One file, directory or link of a snapshot, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands in the snapshot.
    pub path: EntryPath,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes of content; 0 for all but files.
    pub size: u64,
    /// Permission bits with set-uid, set-gid and sticky, below 0o10000.
    pub mode: u32,
    /// Owner by number, which is what a restore uses.
    pub uid: u32,
    /// Group by number.
    pub gid: u32,
    /// Owner's name where the host knew one; empty otherwise.
    pub user: Vec<u8>,
    /// Group's name where the host knew one; empty otherwise.
    pub group: Vec<u8>,
    /// When the content last changed.
    pub mtime: FileTime,
    /// What a symlink says, or the entry path of a hard link's file; empty otherwise.
    pub target: Vec<u8>,
    /// Major and minor number of a device.
    pub rdev: Option<(u32, u32)>,
    /// Extended attributes, ACLs and capabilities among them.
    pub xattrs: Xattrs,
    /// Whether the file has holes, which a restore makes again.
    pub sparse: bool,
}

/// How a backup ended, as far as the snapshot shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Full scope, no source failed, no entry unreadable.
    Good,
    /// An entry was unreadable, or a source failed.
    Partial,
    /// Made of a part of the sources, because that was asked for.
    Scope,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_attributes_is_as_documented_and_does_not_depend_on_their_order() {
        let pair = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        let one = Xattrs::new(vec![pair("user.b", "2"), pair("user.a", "")]);
        let other = Xattrs::new(vec![pair("user.a", ""), pair("user.b", "2")]);
        let documented = Sha256::of(b"\0\0\0\x06user.a\0\0\0\0\0\0\0\x06user.b\0\0\0\x012");
        assert_eq!(one.sum(), Some(documented));
        assert_eq!(other.sum(), Some(documented));
        assert_eq!(Xattrs::default().sum(), None);
    }

    #[test]
    fn a_time_before_1970_is_written_rounded_down() {
        let time = FileTime { seconds: -2, nanos: 500_000_000 };
        assert_eq!(time.to_manifest(), "-2.500000000");
    }
}
