//! The manifest as JSON: its head, and one record for each entry
//! (`doc/formats.md`, "The manifest"). Readers accept unknown fields.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::model::{Entry, EntryKind, Outcome, Sha256};
use crate::path::EntryPath;
use crate::{Error, ErrorKind, Result};

mod mariadb;
mod postgres;

pub use mariadb::{Mariadb, MariadbDatabase};
pub use postgres::{DatabaseAttributes, Export, Grant, Postgres, PostgresDatabase, Role, Rows, Setting};

/// The format that this version writes. A reader refuses another major number.
pub const FORMAT: &str = "lifeboat/1";

/// Who, when and what made a snapshot; everything in the manifest but `files`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// [`FORMAT`].
    pub format: String,
    /// The program that wrote it.
    pub tool: Tool,
    /// The application.
    pub app: String,
    /// The application's own version, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_version: Option<String>,
    /// The host it was made on.
    pub host: String,
    /// 128 random bits in hex.
    pub id: String,
    /// When it was made, in UTC.
    pub created: jiff::Timestamp,
    /// Milliseconds from the first source's point in time to the last one's.
    pub window_ms: u64,
    /// How the backup ended.
    pub outcome: Outcome,
    /// The envelope that it was put into, if it was: one that does not
    /// authenticate by itself is expected to have its HMAC beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope: Option<String>,
    /// What was backed up.
    pub sources: Vec<Source>,
    /// How much is in it.
    #[serde(default)]
    pub totals: Totals,
    /// What is missing or doubtful: the first hundred problems, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// How many problems there were, by class.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub problem_counts: BTreeMap<String, u64>,
    /// What of the application's configuration a restore on another host
    /// needs; without secrets. The engine knows its shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<serde_json::Value>,
}

/// How much is in a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Entries of every kind.
    pub entries: u64,
    /// Regular files among them.
    pub files: u64,
    /// Bytes of their content.
    pub bytes: u64,
    /// Bytes of that in files with holes, which take less room when restored.
    #[serde(default)]
    pub sparse_bytes: u64,
}

/// A program and its version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// One source of a snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Its kind: `files`, `sqlite`, `postgres`, `mariadb`, `command` or `export`.
    pub kind: String,
    /// The entry path of its root, where that is not [`Source::usual_place`];
    /// empty: what is in the root stands at the top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Which names at `at` are this source's, where several share that place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// When its capture began.
    pub started: jiff::Timestamp,
    /// When its capture ended.
    pub finished: jiff::Timestamp,
    /// The moment whose state it holds; absent when it was read as it stood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<jiff::Timestamp>,
    /// How long the application was paused for it.
    #[serde(default)]
    pub pause_ms: u64,
    /// Where it stood, absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// The same in base64, where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_b64: Option<String>,
    /// What is particular to its kind.
    #[serde(default)]
    pub details: Details,
}

/// What is recorded of a source beyond what all kinds have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Details {
    /// The patterns of what was taken; none: everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// The patterns of what was left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Why it failed; then nothing of it is in the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Of a database: what is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<Database>,
    /// Of databases of a PostgreSQL server: what they are made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<Postgres>,
    /// Of databases of a MariaDB or MySQL server: what they are made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mariadb: Option<Mariadb>,
    /// Of an export: what was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<Export>,
}

/// What is recorded of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// The exact number of rows of each table, of those that could be counted.
    #[serde(default)]
    pub tables: BTreeMap<String, u64>,
    /// Tables whose rows were left out on purpose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded_tables: Vec<String>,
    /// Bytes of a page.
    #[serde(default)]
    pub page_size: u32,
    /// `wal` or `rollback`.
    #[serde(default)]
    pub journal_mode: String,
    /// What could not be checked, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unchecked: Vec<String>,
}

/// One entry as the manifest has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_b64: Option<String>,
    #[serde(rename = "type")]
    kind: EntryKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    mode: String,
    uid: u32,
    gid: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_b64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group_b64: Option<String>,
    mtime: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target_b64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rdev: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    xattrs: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    sparse: bool,
}

/// A byte string as JSON can hold it: the text, lossy, and the bytes in
/// base64 where the text is not the whole truth.
fn text(bytes: &[u8]) -> (String, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (String::from_utf8_lossy(bytes).into_owned(), Some(BASE64.encode(bytes))),
    }
}

/// As [`text`], for a field that is absent when empty.
fn text_if_any(bytes: &[u8]) -> (Option<String>, Option<String>) {
    if bytes.is_empty() {
        return (None, None);
    }
    let (text, base64) = text(bytes);
    (Some(text), base64)
}

/// The bytes that [`text`] made a field of.
fn bytes(text: &str, base64: Option<&str>) -> Result<Vec<u8>> {
    match base64 {
        None => Ok(text.as_bytes().to_vec()),
        Some(base64) => BASE64
            .decode(base64)
            .map_err(|_| Error::corrupt(format!("the manifest holds bad base64 beside \"{text}\""))),
    }
}

impl Source {
    /// Where the root of a source stands in a snapshot, unless `at` says otherwise.
    #[must_use]
    pub fn usual_place(kind: &str, name: &str) -> String {
        match kind {
            "sqlite" => format!("sqlite/{name}.db"),
            // The name has the folder in it.
            "export" => format!("{name}.csv"),
            "postgres" | "mariadb" | "command" => format!("{kind}/{name}"),
            _ => format!("files/{name}"),
        }
    }

    /// The entry path of its root; empty where what is in the root stands at the top.
    #[must_use]
    pub fn place(&self) -> String {
        self.at.clone().unwrap_or_else(|| Self::usual_place(&self.kind, &self.name))
    }

    /// Sets `root` from the bytes of a path.
    pub fn set_root(&mut self, root: &[u8]) {
        let (text, base64) = text(root);
        (self.root, self.root_b64) = (Some(text), base64);
    }

    /// The bytes of `root`.
    ///
    /// # Errors
    /// When its base64 is none.
    pub fn root_bytes(&self) -> Result<Option<Vec<u8>>> {
        self.root.as_ref().map(|root| bytes(root, self.root_b64.as_deref())).transpose()
    }
}

impl Head {
    /// Refuses a manifest that a newer major version wrote, or something else.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] with what to do.
    pub fn check_format(&self) -> Result<()> {
        let Some(version) = self.format.strip_prefix("lifeboat/") else {
            return Err(Error::new(ErrorKind::Unsupported, format!("the manifest's format is \"{}\"", self.format)));
        };
        // "1" and "1.2" are both major version 1.
        if version.split('.').next() == Some("1") {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("the manifest's format is lifeboat/{version}, and this version reads lifeboat/1; update Lifeboat"),
        ))
    }
}

impl Record {
    /// The record of `entry`, whose content has the sum `sha256`.
    #[must_use]
    pub fn new(entry: &Entry, sha256: Option<Sha256>) -> Self {
        let (path, path_b64) = text(entry.path.as_bytes());
        let (user, user_b64) = text_if_any(&entry.user);
        let (group, group_b64) = text_if_any(&entry.group);
        let (target, target_b64) = text_if_any(&entry.target);
        Self {
            path,
            path_b64,
            kind: entry.kind,
            size: (entry.kind == EntryKind::File).then_some(entry.size),
            sha256: sha256.map(|sum| sum.to_string()),
            mode: format!("{:04o}", entry.mode),
            uid: entry.uid,
            gid: entry.gid,
            user,
            user_b64,
            group,
            group_b64,
            mtime: entry.mtime.to_manifest(),
            target,
            target_b64,
            rdev: entry.rdev.map(|(major, minor)| format!("{major}:{minor}")),
            xattrs: entry.xattrs.sum().map(|sum| sum.to_string()),
            sparse: entry.sparse,
        }
    }

    /// Where the entry stands.
    ///
    /// # Errors
    /// When it is no acceptable path.
    pub fn path(&self) -> Result<EntryPath> {
        EntryPath::new(bytes(&self.path, self.path_b64.as_deref())?)
    }

    /// What the entry is.
    #[must_use]
    pub fn kind(&self) -> EntryKind {
        self.kind
    }

    /// Bytes of content.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size.unwrap_or(0)
    }

    /// The sum of the content; every file has one.
    #[must_use]
    pub fn sha256(&self) -> Option<Sha256> {
        self.sha256.as_deref().and_then(Sha256::from_hex)
    }

    /// Whether the file has holes.
    #[must_use]
    pub fn is_sparse(&self) -> bool {
        self.sparse
    }

    /// The first attribute in which `entry`, as read from the tar, differs.
    /// The sum of the content is compared by whoever reads it.
    #[must_use]
    pub fn difference(&self, entry: &Entry) -> Option<&'static str> {
        let read = Self::new(entry, None);
        let differs = [
            ("path", (&self.path, &self.path_b64) != (&read.path, &read.path_b64)),
            ("type", self.kind != read.kind),
            ("size", self.size != read.size),
            ("mode", self.mode != read.mode),
            ("owner", (self.uid, self.gid) != (read.uid, read.gid)),
            ("user name", (&self.user, &self.user_b64) != (&read.user, &read.user_b64)),
            ("group name", (&self.group, &self.group_b64) != (&read.group, &read.group_b64)),
            ("mtime", self.mtime != read.mtime),
            ("target", (&self.target, &self.target_b64) != (&read.target, &read.target_b64)),
            ("device number", self.rdev != read.rdev),
            ("extended attributes", self.xattrs != read.xattrs),
            ("sum", (self.kind == EntryKind::File) != self.sha256().is_some()),
        ];
        differs.into_iter().find_map(|(name, differs)| differs.then_some(name))
    }
}

/// For the bare form, whose file carries nothing of it.
impl Record {
    /// The entry that it is the record of, without extended attributes.
    ///
    /// # Errors
    /// When something in it makes no sense.
    pub fn entry(&self) -> Result<Entry> {
        let wrong = |what: &str| Error::corrupt(format!("the {what} of \"{}\" makes no sense", self.path));
        let name = |text: &Option<String>, base64: &Option<String>| match text {
            None => Ok(Vec::new()),
            Some(text) => bytes(text, base64.as_deref()),
        };
        Ok(Entry {
            path: self.path()?,
            kind: self.kind,
            size: self.size(),
            mode: u32::from_str_radix(&self.mode, 8)
                .ok()
                .filter(|mode| *mode < 0o10000)
                .ok_or_else(|| wrong("mode"))?,
            uid: self.uid,
            gid: self.gid,
            user: name(&self.user, &self.user_b64)?,
            group: name(&self.group, &self.group_b64)?,
            mtime: self.modified().ok_or_else(|| wrong("mtime"))?,
            target: self.target()?.unwrap_or_default(),
            rdev: None,
            xattrs: crate::model::Xattrs::default(),
            sparse: self.sparse,
        })
    }
}

/// For restores: what is on disk already.
impl Record {
    /// Whether `entry`, as read from a file system, has all that is recorded of
    /// this one but its content. Names of owners do not count: owners are
    /// restored by number.
    #[must_use]
    pub fn is_as_on_disk(&self, entry: &Entry) -> bool {
        let read = Self::new(entry, None);
        let is_link = self.kind == EntryKind::Symlink;
        (self.kind, self.size, self.uid, self.gid, &self.mtime) == (read.kind, read.size, read.uid, read.gid, &read.mtime)
            // The mode of a symlink means nothing, and cannot be set.
            && (is_link || self.mode == read.mode)
            && (&self.target, &self.target_b64) == (&read.target, &read.target_b64)
            && self.rdev == read.rdev
            && self.xattrs == read.xattrs
    }
}

/// For listings: owner, mode and so on as the manifest has them.
impl Record {
    /// Owner and group, by name where known.
    #[must_use]
    pub fn owner(&self) -> String {
        let by_name = |name: &Option<String>, number: u32| name.clone().unwrap_or_else(|| number.to_string());
        format!("{}/{}", by_name(&self.user, self.uid), by_name(&self.group, self.gid))
    }

    /// Permission bits in octal, four digits.
    #[must_use]
    pub fn mode(&self) -> &str {
        &self.mode
    }

    /// `<seconds>.<9 digits>` since 1970.
    #[must_use]
    pub fn mtime(&self) -> &str {
        &self.mtime
    }

    /// When the content last changed, where that can be read.
    #[must_use]
    pub fn modified(&self) -> Option<crate::model::FileTime> {
        let (seconds, nanos) = self.mtime.split_once('.')?;
        Some(crate::model::FileTime { seconds: seconds.parse().ok()?, nanos: nanos.parse().ok()? })
    }

    /// What a link says, as bytes.
    ///
    /// # Errors
    /// When its base64 is none.
    pub fn target(&self) -> Result<Option<Vec<u8>>> {
        self.target.as_ref().map(|target| bytes(target, self.target_b64.as_deref())).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FileTime, Xattrs};

    fn entry(path: &[u8]) -> Entry {
        Entry {
            path: EntryPath::new(path).unwrap(),
            kind: EntryKind::File,
            size: 3,
            mode: 0o4755,
            uid: 1,
            gid: 2,
            user: b"us\xff".to_vec(),
            group: Vec::new(),
            mtime: FileTime { seconds: -2, nanos: 5 },
            target: Vec::new(),
            rdev: None,
            xattrs: Xattrs::new(vec![(b"user.x".to_vec(), b"1".to_vec())]),
            sparse: true,
        }
    }

    #[test]
    fn a_record_survives_json_and_names_that_are_not_utf8() {
        let entry = entry(b"files/a\xff\n");
        let record = Record::new(&entry, Some(Sha256::of(b"abc")));
        let json = serde_json::to_string(&record).unwrap();
        let read: Record = serde_json::from_str(&json).unwrap();
        assert_eq!(read, record);
        assert_eq!(read.path().unwrap(), entry.path);
        assert_eq!(read.difference(&entry), None);
        assert!(json.contains("\"path_b64\":\"ZmlsZXMvYf8K\"") && json.contains("\"mode\":\"4755\""), "{json}");
    }

    #[test]
    fn every_attribute_that_differs_is_named() {
        let original = entry(b"files/a");
        let record = Record::new(&original, Some(Sha256::of(b"abc")));
        let change = |change: &dyn Fn(&mut Entry)| {
            let mut entry = original.clone();
            change(&mut entry);
            record.difference(&entry)
        };
        assert_eq!(change(&|entry| entry.size = 4), Some("size"));
        assert_eq!(change(&|entry| entry.mode = 0o755), Some("mode"));
        assert_eq!(change(&|entry| entry.gid = 9), Some("owner"));
        assert_eq!(change(&|entry| entry.user = b"x".to_vec()), Some("user name"));
        assert_eq!(change(&|entry| entry.group = b"x".to_vec()), Some("group name"));
        assert_eq!(change(&|entry| entry.mtime.nanos = 6), Some("mtime"));
        assert_eq!(change(&|entry| entry.target = b"x".to_vec()), Some("target"));
        assert_eq!(change(&|entry| entry.rdev = Some((1, 2))), Some("device number"));
        assert_eq!(change(&|entry| entry.xattrs = Xattrs::default()), Some("extended attributes"));
        assert_eq!(change(&|entry| entry.kind = EntryKind::Dir), Some("type"));
        assert_eq!(change(&|entry| entry.path = EntryPath::new("files/b").unwrap()), Some("path"));
    }

    #[test]
    fn what_is_on_disk_is_compared_by_all_but_names_of_owners() {
        let original = entry(b"files/a");
        let record = Record::new(&original, Some(Sha256::of(b"abc")));
        let change = |change: &dyn Fn(&mut Entry)| {
            let mut entry = original.clone();
            change(&mut entry);
            record.is_as_on_disk(&entry)
        };
        assert!(change(&|entry| (entry.user, entry.group) = (b"other".to_vec(), b"x".to_vec())));
        assert!(change(&|entry| entry.path = EntryPath::new("elsewhere").unwrap()));
        assert!(!change(&|entry| entry.mode = 0o600));
        assert!(!change(&|entry| entry.uid = 7));
        assert!(!change(&|entry| entry.size = 4));
        assert!(!change(&|entry| entry.mtime.nanos = 6));
        assert!(!change(&|entry| entry.xattrs = Xattrs::default()));
        assert!(!change(&|entry| entry.kind = EntryKind::Dir));
    }

    #[test]
    fn another_major_format_is_refused_and_a_minor_one_is_not() {
        let head = |format: &str| {
            let json = format!(
                r#"{{"format":"{format}","tool":{{"name":"t","version":"1"}},"app":"a","host":"h","id":"00","new":1,
                "created":"2026-02-24T03:00:00Z","window_ms":0,"outcome":"good","sources":[]}}"#
            );
            serde_json::from_str::<Head>(&json).unwrap().check_format().map_err(|error| error.kind())
        };
        assert_eq!(head("lifeboat/1"), Ok(()));
        assert_eq!(head("lifeboat/1.3"), Ok(()));
        for other in ["lifeboat/2", "lifeboat/10", "other/1", ""] {
            assert_eq!(head(other), Err(ErrorKind::Unsupported), "{other}");
        }
    }
}
