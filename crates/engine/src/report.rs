//! What the engine is asked and what it answers: requests, plans and reports,
//! as values that every surface can show.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use lifeboat_format::archive::verify::Verdict;
use lifeboat_format::model::{EntryKind, Outcome};
use lifeboat_format::path::{EntryPath, shown};
use lifeboat_format::record::Head;
use serde::Serialize;

use crate::config::DumpFormat;
use crate::keys::SealRequest;
use crate::{Cancel, Monitor, Problem};

/// How many problems, failures or conflicts a report lists; more are only counted.
pub const LISTED_MAX: usize = 100;

/// What a run needs besides its request: who is told, and who may stop it.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Is told how far the run is and what went wrong.
    pub monitor: &'a dyn Monitor,
    /// Asks the run to stop.
    pub cancel: &'a Cancel,
}

/// How archives are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionKind {
    /// zstd, levels 1 to 19.
    Zstd,
    /// gzip, levels 1 to 9.
    Gzip,
}

/// Which files of a source are taken.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Patterns (gitignore syntax, relative to each root) of what is taken; none: everything.
    pub include: Vec<String>,
    /// Patterns of what is left out; wins over `include`.
    pub exclude: Vec<String>,
    /// Whether device nodes are taken.
    pub devices: bool,
    /// Whether directories on other file systems are left out.
    pub one_file_system: bool,
}

/// What is backed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Files and directories; relative ones start at the working directory.
    Paths(Vec<PathBuf>),
    /// The configured app of this name.
    App(String),
}

/// Back up an app, or paths, into one archive.
#[derive(Clone, Debug)]
pub struct BackupRequest {
    /// What.
    pub subject: Subject,
    /// Of an app: only these sources; none: all.
    pub only: Vec<String>,
    /// Of an app: only these destinations; none: those it names.
    pub to: Vec<String>,
    /// One database as it is, instead of an archive.
    pub bare: bool,
    /// Of an app: only the structure of databases of PostgreSQL servers, as SQL.
    pub schema_only: bool,
    /// How databases of PostgreSQL servers are dumped, where that is not as configured.
    pub format: Option<DumpFormat>,
    /// The archive to write; by default a dated name where the app's archives
    /// go, else in `working_dir`.
    pub output: Option<PathBuf>,
    /// By default what the suffix of `output` says, else what is configured, else zstd.
    pub compression: Option<CompressionKind>,
    /// By default what is configured, else 3 for zstd and 6 for gzip.
    pub level: Option<u8>,
    /// How it is encrypted, where that is not as configured.
    pub encryption: SealRequest,
    /// Which files are taken; of an app, in addition to what is configured.
    pub selection: Selection,
    /// Whether the archive is read back before the run is good; by default what
    /// is configured, else yes.
    pub verify_on_create: Option<bool>,
    /// How many workers; by default one for each core.
    pub threads: Option<usize>,
    /// Where relative paths start.
    pub working_dir: PathBuf,
}

/// A source that could not be backed up; nothing of it is in the archive.
#[derive(Clone, Debug, Serialize)]
pub struct FailedSource {
    /// Its name.
    pub name: String,
    /// Where it should be.
    pub root: String,
    /// Why it failed.
    pub message: String,
    /// What to do about it, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Problems of a run: the first ones, and counts of all by class.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Problems {
    /// The first [`LISTED_MAX`], in the order they happened.
    pub listed: Vec<Problem>,
    /// All of them, by [`crate::ProblemClass::word`].
    pub counts: BTreeMap<&'static str, u64>,
    /// Whether one of them makes the run incomplete (exit 3).
    pub is_incomplete: bool,
}

impl Problems {
    /// Adds one, and tells `monitor`.
    pub(crate) fn add(&mut self, problem: Problem, monitor: &dyn Monitor) {
        *self.counts.entry(problem.class.word()).or_default() += 1;
        self.is_incomplete |= !problem.class.is_note();
        if self.listed.len() < LISTED_MAX {
            self.listed.push(problem.clone());
        }
        monitor.problem(problem);
    }
}

/// What a backup did.
#[derive(Clone, Debug, Serialize)]
pub struct BackupReport {
    /// The archive.
    #[serde(serialize_with = "as_shown")]
    pub archive: PathBuf,
    /// How it is encrypted, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envelope: Option<&'static str>,
    /// The snapshot's id.
    pub id: String,
    /// The application.
    pub app: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The archive's size.
    pub size_bytes: u64,
    /// Regular files in it.
    pub files: u64,
    /// Entries of every kind in it.
    pub entries: u64,
    /// Bytes of content in it, before compression.
    pub bytes: u64,
    /// How many entries the exclude patterns left out.
    pub excluded: u64,
    /// Archives of ours in the output directory that were left out of their own source.
    pub own_archives: u64,
    /// What was left out without being asked: keys, Lifeboat's own data,
    /// destinations, what restores replaced, logs of databases.
    pub withheld: u64,
    /// Databases in it.
    pub databases: Vec<DatabaseReport>,
    /// Answers to queries in it.
    pub exports: Vec<ExportedReport>,
    /// Milliseconds from the first source's point to the last one's.
    pub window_ms: u64,
    /// Services that stood still, and how long.
    pub pauses: Vec<crate::freeze::Pause>,
    /// The destinations of the archive.
    pub shipped: Vec<Shipped>,
    /// Files that SQLite puts beside a database (`-wal`, `-shm`, `-journal`), left out as its copy holds their content.
    pub database_logs: u64,
    /// Sources that failed.
    pub failed_sources: Vec<FailedSource>,
    /// What went wrong on single entries.
    pub problems: Problems,
    /// That the key was never copied away from this machine, and what to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unexported_key: Option<String>,
    /// Whether the archive was read back and found whole.
    pub verified: bool,
    /// Restores that a crash had interrupted, and that were ended before.
    pub recovered: Vec<crate::restore::live::Recovered>,
    /// Services that an earlier backup had left paused, and that run again.
    pub thawed: Vec<crate::freeze::LeftPaused>,
    /// How long it took.
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    pub elapsed: Duration,
}

/// The answer to one query in a backup.
#[derive(Clone, Debug, Serialize)]
pub struct ExportedReport {
    /// Its name in `exports`.
    pub name: String,
    /// Rows, without the line of the columns' names.
    pub rows: u64,
    /// Bytes of CSV.
    pub size_bytes: u64,
}

/// One database of a backup.
#[derive(Clone, Debug, Serialize)]
pub struct DatabaseReport {
    /// Its source.
    pub source: String,
    /// Its name, where the source has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Bytes of the copy.
    pub size_bytes: u64,
    /// Whether it is its structure alone.
    #[serde(rename = "schema_only", skip_serializing_if = "std::ops::Not::not")]
    pub is_schema_only: bool,
    /// Tables in it whose rows were counted.
    pub tables: u64,
    /// Their rows.
    pub rows: u64,
    /// Whether some of them are the server's estimate.
    #[serde(rename = "estimated", skip_serializing_if = "std::ops::Not::not")]
    pub is_estimated: bool,
    /// Tables whose rows were left out.
    pub excluded_tables: Vec<String>,
}

/// What became of an archive at one destination.
#[derive(Clone, Debug, Serialize)]
pub struct Shipped {
    /// The destination.
    pub destination: String,
    /// Where the archive is.
    pub path: Option<String>,
    /// Why it is not there.
    pub error: Option<String>,
}

/// What a backup would do.
#[derive(Clone, Debug, Serialize)]
pub struct BackupPlan {
    /// Where the archive would go (another one of that name may get there first).
    #[serde(serialize_with = "as_shown")]
    pub archive: PathBuf,
    /// Per source: name, root, regular files and their bytes.
    pub sources: Vec<PlannedSource>,
    /// Sources that would fail.
    pub failed_sources: Vec<FailedSource>,
    /// How many entries the exclude patterns would leave out.
    pub excluded: u64,
    /// Archives of ours that would be left out.
    pub own_archives: u64,
    /// What else would be left out without being asked.
    pub withheld: u64,
    /// Services that would stand still meanwhile.
    pub freeze: Vec<String>,
    /// The app's destinations, and why one could not be written to.
    pub destinations: Vec<Shipped>,
    /// Files that SQLite puts beside a database, which would be left out.
    pub database_logs: u64,
    /// Free space where the archive would be written, if the file system counts it.
    pub free_bytes: Option<u64>,
    /// What would be noted (sockets, unreadable directories).
    pub problems: Problems,
}

/// One source of a [`BackupPlan`].
#[derive(Clone, Debug, Serialize)]
pub struct PlannedSource {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub root: String,
    /// Regular files in it.
    pub files: u64,
    /// Bytes of their content.
    pub bytes: u64,
    /// Of databases of a PostgreSQL server: what would be dumped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<PlannedServer>,
}

/// The databases of a [`PlannedSource`].
#[derive(Clone, Debug, Serialize)]
pub struct PlannedServer {
    /// The server's version, as it says it.
    pub version: String,
    /// The program that would run.
    pub pg_dump: String,
    /// Its major version.
    pub pg_dump_version: u32,
    /// `custom` or `plain`.
    pub format: &'static str,
    /// Whether only structures would be dumped.
    #[serde(rename = "schema_only")]
    pub is_schema_only: bool,
    /// The databases.
    pub databases: Vec<PlannedDump>,
}

/// One of them.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedDump {
    /// Its name.
    pub name: String,
    /// Bytes that it takes on the server's disk, if we may ask.
    pub size_bytes: Option<u64>,
    /// Tables whose rows would be left out.
    pub excluded_tables: Vec<String>,
}

/// What is in an archive, without its entries.
#[derive(Clone, Debug)]
pub struct ListReport {
    /// The manifest's head; `None` for a foreign tar.
    pub head: Option<Head>,
    /// How it is encrypted, if it is.
    pub seal: Option<String>,
    /// The archive's size.
    pub size_bytes: u64,
    /// Entries of every kind.
    pub entries: u64,
    /// Regular files.
    pub files: u64,
    /// Bytes of their content.
    pub bytes: u64,
}

/// One of the checks of an envelope, before the files are looked at.
#[derive(Clone, Debug)]
pub struct SealCheck {
    /// `envelope`, `password` or `authentication`.
    pub what: &'static str,
    /// Whether it went well.
    pub verdict: Verdict,
    /// What more is to be said.
    pub note: Option<String>,
}

/// Who is told while an archive is verified.
pub struct VerifyTold<'a> {
    /// Of each check of its envelope; of a plain one nothing.
    pub sealed: &'a mut dyn FnMut(SealCheck),
    /// Once, of its head.
    pub opened: &'a mut dyn FnMut(Option<&Head>),
    /// Of every file.
    pub each: &'a mut dyn FnMut(&EntryPath, &Verdict),
}

/// What verifying an archive found.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyReport {
    /// Whether all is as the manifest says.
    pub is_good: bool,
    /// Whether there is a manifest.
    pub has_manifest: bool,
    /// Files, and other entries that failed.
    pub files: u64,
    /// How many failed.
    pub failed: u64,
    /// Bytes of content that were read.
    pub bytes: u64,
    /// The first place where the archive itself is damaged.
    pub damage: Option<String>,
    /// That it is not authenticated, and dumps of databases that only their sums were compared of, and why.
    pub notes: Vec<String>,
    /// How long it took.
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    pub elapsed: Duration,
}

/// Restore an archive into a directory.
#[derive(Clone, Debug)]
pub struct RestoreRequest {
    /// The archive.
    pub archive: PathBuf,
    /// The directory; made if missing.
    pub to: PathBuf,
    /// Whether it may be restored though it may have been changed by somebody without its key.
    pub allow_unauthenticated: bool,
    /// Whether existing files there may be replaced.
    pub overwrite: bool,
    /// Whether device nodes are made.
    pub devices: bool,
    /// Whether an owner that cannot be set is a problem instead of a note.
    pub same_owner: bool,
    /// How many workers; by default one for each core.
    pub threads: Option<usize>,
}

/// What would become of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It does not exist yet.
    New,
    /// It would replace something.
    Overwrite,
    /// A directory that exists already, whose other content stays.
    Merge,
    /// It is as in the snapshot already.
    Same,
    /// It is live and not in the snapshot, and would be taken away.
    Delete,
    /// Something else is there, and stays.
    Conflict,
}

/// One line of a restore plan.
#[derive(Clone, Debug)]
pub struct PlanLine {
    /// What would become of it.
    pub action: Action,
    /// The entry.
    pub path: EntryPath,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes of content.
    pub size: u64,
}

/// A restore plan, without its lines.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RestorePlan {
    /// Regular files that would be restored.
    pub files: u64,
    /// Bytes of their content.
    pub bytes: u64,
    /// Entries of every kind.
    pub entries: u64,
    /// Entries that would replace something.
    pub overwrites: u64,
    /// The first [`LISTED_MAX`] of them, escaped.
    pub overwritten: Vec<String>,
    /// Free space at the target, if the file system counts it.
    pub free_bytes: Option<u64>,
}

/// What a restore did.
#[derive(Clone, Debug, Serialize)]
pub struct RestoreReport {
    /// Where it went.
    #[serde(serialize_with = "as_shown")]
    pub to: PathBuf,
    /// Regular files restored.
    pub files: u64,
    /// Entries of every kind.
    pub entries: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Paths of the files, escaped, where there are at most [`LISTED_MAX`].
    #[serde(skip)]
    pub paths: Vec<String>,
    /// Whether every sum was held against a manifest; not so for a foreign tar.
    pub verified: bool,
    /// What could not be restored of single entries.
    pub problems: Problems,
    /// How long it took.
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    pub elapsed: Duration,
}

/// JSON holds no bytes: what is not UTF-8 is escaped.
pub(crate) fn as_shown<S: serde::Serializer>(
    path: &std::path::Path,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&shown(path.as_os_str().as_encoded_bytes()))
}

pub(crate) fn as_seconds<S: serde::Serializer>(
    elapsed: &Duration,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    // Milliseconds are as exact as anybody reads them.
    serializer.serialize_f64((elapsed.as_secs_f64() * 1000.0).round() / 1000.0)
}
