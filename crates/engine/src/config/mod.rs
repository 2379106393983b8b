//! What the user wrote in `lifeboat.yaml`: read, checked, and turned into what
//! the rest of the engine works with. A mistake is an error with its line and
//! column. Where the file lies is the surface's business.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use lifeboat_format::path::shown;
use lifeboat_store as store;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::health::HealthCheck;
pub use crate::mariadb::Server as MariadbServer;
pub use crate::pg::Server;
use crate::report::CompressionKind;
use crate::services::{Reload, Service};
use crate::{Error, ErrorKind, Result, exec};

mod check;
mod databases;
pub(crate) mod duration;
mod encryption;
mod export;
mod look;
mod raw;
mod show;
mod written;

pub(crate) use databases::Queried;
pub use encryption::{Encryption, SecretFrom};
pub use export::{Export, SecretColumn};
pub(crate) use look::look;
pub use look::{CheckedApp, ConfigReport};
pub use show::{EffectiveConfig, schema};
pub use written::Carried;

/// How large the file may be.
const SIZE_MAX_BYTES: u64 = 1 << 20;
/// The bits that let others write.
const OTHERS_WRITE: u32 = 0o022;
/// How long services may stand still, unless another time is configured.
pub(crate) const FREEZE_MAX: Duration = check::FREEZE_MAX;
const KEEP_EXPECTED: &str = "expected a time such as 7d, 12h or 0s, or `forever`";

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// Where state is kept, if the user chose a place.
    pub data_dir: Option<PathBuf>,
    /// The apps, by name.
    pub apps: BTreeMap<String, AppConfig>,
    /// The destinations, by name.
    pub destinations: BTreeMap<String, Destination>,
}

/// What belongs to one app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppConfig {
    /// Its name.
    pub name: String,
    /// Whether it is backed up when no app is named.
    pub is_enabled: bool,
    /// What is backed up, by name; never empty.
    pub sources: BTreeMap<String, Source>,
    /// The services that a restore stops, in the order in which it does.
    pub services: Vec<Service>,
    /// What is run once they run again.
    pub reload: Option<Reload>,
    /// The services that a backup freezes, in the order in which it does.
    pub freeze: Vec<Service>,
    /// How long they may be frozen at most.
    pub freeze_max: Duration,
    /// How to see that the app is up.
    pub health: Vec<HealthCheck>,
    /// What must hold after a restore, besides health.
    pub after_restore: Vec<Check>,
    /// How to find out the app's version.
    pub version: Option<VersionFrom>,
    /// What a snapshot must hold: names of sources, or `SOURCE/GLOB`; none: every source.
    pub required: Vec<String>,
    /// Named parts of the app: for each source, tables or patterns of files.
    pub parts: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    /// What archives are called, without suffix; see [`crate::naming`].
    pub archive_name: Option<String>,
    /// How archives are compressed.
    pub compression: Option<CompressionKind>,
    /// How hard.
    pub compression_level: Option<u8>,
    /// How archives are encrypted, if they may be.
    pub encryption: Option<Encryption>,
    /// Where archives go when there is no destination; `.` is the current directory.
    pub backup_dir: Option<PathBuf>,
    /// Tables of databases whose rows are left out; `*` stands for any letters.
    pub exclude_tables: Vec<String>,
    /// Queries whose answers stand in a snapshot, by name.
    pub exports: BTreeMap<String, Export>,
    /// Columns that must not get into them.
    pub secret_columns: Vec<SecretColumn>,
    /// Where archives go: names of [`Config::destinations`] that are enabled.
    pub destinations: Vec<String>,
    /// Whether a new archive is read back before the run is good.
    pub verify_on_create: bool,
    /// How long what a restore replaced is kept.
    pub keep_replaced: Keep,
}

/// One thing with state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A directory tree, or a single file.
    Files(FilesSource),
    /// A SQLite database.
    Sqlite(SqliteSource),
    /// Databases of a PostgreSQL server.
    Postgres(PostgresSource),
    /// Databases of a MariaDB or MySQL server.
    Mariadb(MariadbSource),
    /// What a program prints.
    Command(CommandSource),
}

impl Source {
    /// The word for its kind, as in the manifest.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Files(_) => "files",
            Self::Sqlite(_) => "sqlite",
            Self::Postgres(_) => "postgres",
            Self::Mariadb(_) => "mariadb",
            Self::Command(_) => "command",
        }
    }

    /// Where it stands, if it stands in a file system.
    #[must_use]
    pub fn root(&self) -> Option<&Path> {
        match self {
            Self::Files(files) => Some(&files.root),
            Self::Sqlite(sqlite) => Some(&sqlite.path),
            Self::Postgres(_) | Self::Mariadb(_) | Self::Command(_) => None,
        }
    }

    /// The services that are stopped while it is read, in that order.
    #[must_use]
    pub fn stop(&self) -> &[Service] {
        match self {
            Self::Files(files) => &files.stop,
            Self::Sqlite(_) | Self::Postgres(_) | Self::Mariadb(_) | Self::Command(_) => &[],
        }
    }
}

/// A source of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesSource {
    /// The directory or file; absolute.
    pub root: PathBuf,
    /// Patterns (gitignore syntax, relative to the root) of what is taken; none: everything.
    pub include: Vec<String>,
    /// Patterns of what is left out; wins over `include`.
    pub exclude: Vec<String>,
    /// The directory of the snapshot that holds what is in the root directory,
    /// or the root file by its own name; empty: the top. `None`: `files/<source>`
    /// is the root itself.
    pub at: Option<String>,
    /// Services that are stopped while this source is read, in that order.
    pub stop: Vec<Service>,
}

/// A SQLite database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteSource {
    /// The database file; absolute.
    pub path: PathBuf,
    /// How long a lock is waited for.
    pub busy_timeout: Duration,
    /// The natural keys of tables, by which their rows are merged.
    pub merge_key: BTreeMap<String, Vec<String>>,
}

/// Databases of a PostgreSQL server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresSource {
    /// How it is reached.
    pub server: Server,
    /// The databases; never empty.
    pub databases: Vec<String>,
    /// How they are dumped.
    pub format: DumpFormat,
    /// Whether the roles are backed up that the databases name.
    pub has_globals: bool,
    /// How long a lock on a table is waited for.
    pub lock_timeout: Duration,
}

/// Databases of a MariaDB or MySQL server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MariadbSource {
    /// How it is reached.
    pub server: MariadbServer,
    /// The databases; never empty.
    pub databases: Vec<String>,
}

/// What a program prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandSource {
    /// The program and its arguments.
    pub run: Vec<String>,
    /// What is given that again, as its input.
    pub restore: Option<Vec<String>>,
    /// How long each of both may take.
    pub timeout: Duration,
}

/// How a database is dumped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DumpFormat {
    /// pg_dump's custom format.
    #[default]
    Custom,
    /// SQL.
    Plain,
}

impl DumpFormat {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Custom => "custom",
            Self::Plain => "plain",
        }
    }
}

/// A place for archives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Its name.
    pub name: String,
    /// The local directory.
    pub dir: PathBuf,
    /// Whether a file system must be mounted there, or above it, other than `/`.
    pub require_mount: bool,
    /// Whether only encrypted archives are taken.
    pub wants_encrypted: bool,
    /// Whether it is used; no app names one that is not.
    pub is_enabled: bool,
}

/// How to find out an app's version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionFrom {
    /// What a program prints: the first thing in it that looks like a version.
    Command(Vec<String>),
    /// What a query of a database returns first.
    Sql {
        /// A `sqlite` source, or `DATABASE` or `SOURCE/DATABASE` of a `postgres` one.
        db: String,
        /// The query.
        query: String,
    },
    /// The first line of a file.
    File(PathBuf),
}

/// What must hold after a restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What is asked.
    pub ask: Ask,
    /// What the answer must be: see [`Expect`]. `None`: that there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Expect>,
    /// How long it may take.
    #[serde(rename = "timeout_ms", with = "duration::millis")]
    pub timeout: Duration,
}

/// What a [`Check`] asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// A request; its answer's body is held against `expect`.
    Http {
        /// Where to.
        url: String,
        /// `GET` or `POST`.
        method: String,
        /// The status that the answer must have.
        status: u16,
        /// The file whose first line is sent as a bearer token.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token_file: Option<PathBuf>,
    },
    /// A program, which must end with exit code 0; what it prints is held against `expect`.
    Command(Vec<String>),
    /// A query of a database; its first value is held against `expect`.
    Sql {
        /// A `sqlite` source, or `DATABASE` or `SOURCE/DATABASE` of a `postgres` one.
        db: String,
        /// The query.
        query: String,
    },
}

/// What an answer must be. As text: `> 0`, `>= 1`, `= 5`, `!= 0`, `< 9`, `<= 9`
/// (numbers), or `contains TEXT`; anything else is the whole answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expect(pub String);

/// How long something is kept. As text: `7d`, `0s`, `forever`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Keep {
    /// For this long.
    For(Duration),
    /// Until someone removes it.
    Forever,
}

impl Default for Keep {
    fn default() -> Self {
        Self::For(Duration::from_secs(7 * 24 * 60 * 60))
    }
}

impl FromStr for Keep {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "forever" {
            return Ok(Self::Forever);
        }
        let wrong =
            || Error::new(ErrorKind::Usage, format!("`{}` is no such time, {KEEP_EXPECTED}", shown(text.as_bytes())));
        duration::parse(text).map(Self::For).ok_or_else(wrong)
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::For(length) => f.write_str(&duration::shown(*length)),
            Self::Forever => f.write_str("forever"),
        }
    }
}

impl TryFrom<String> for Keep {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Keep> for String {
    fn from(keep: Keep) -> Self {
        keep.to_string()
    }
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, others may write to it, or there is a mistake in
    /// it: that one is `FILE:LINE:COLUMN: what is wrong, what was expected`.
    pub fn load(path: &Path) -> Result<Self> {
        let text = read(path)?;
        let checked = raw::parse(&text).and_then(check::config);
        let found = checked.map_err(|wrong| {
            let what = format!("{}:{}:{}: {}", name(path), wrong.line, wrong.column, wrong.what);
            Error::new(ErrorKind::Usage, what).state("nothing was changed").next("correct that line and try again")
        })?;
        let check::Found { data_dir, apps, destinations } = found;
        let encryptions = apps.values().filter_map(|app| app.encryption.as_ref());
        encryptions.filter_map(Encryption::variable).for_each(exec::withhold);
        Ok(Self { path: path.to_owned(), data_dir, apps, destinations })
    }

    /// The home of whoever calls, in which `.pgpass` and `.pg_service.conf` are
    /// looked for, as other programs of PostgreSQL do.
    pub fn set_home(&mut self, home: Option<&Path>) {
        for source in self.apps.values_mut().flat_map(|app| app.sources.values_mut()) {
            if let Source::Postgres(postgres) = source {
                postgres.server.home = home.map(Path::to_owned);
            }
        }
    }

    /// Where programs of PostgreSQL are, besides the usual places.
    pub(crate) fn program_dirs(&self) -> impl Iterator<Item = &PathBuf> {
        let sources = self.apps.values().flat_map(|app| app.sources.values());
        sources.filter_map(|source| match source {
            Source::Postgres(postgres) => postgres.server.bin_dir.as_ref(),
            Source::Files(_) | Source::Sqlite(_) | Source::Mariadb(_) | Source::Command(_) => None,
        })
    }

    /// Archives of apps without destinations go to `dir`, wherever they were to go.
    pub fn set_backup_dir(&mut self, dir: &Path) {
        self.apps.values_mut().for_each(|app| app.backup_dir = Some(dir.to_owned()));
    }

    /// Every file that a `*_file` setting names, each once: they hold secrets,
    /// and are left out of backups.
    #[must_use]
    pub fn secret_files(&self) -> Vec<PathBuf> {
        let files: BTreeSet<&PathBuf> = self.apps.values().flat_map(AppConfig::secret_files).collect();
        files.into_iter().cloned().collect()
    }
}

impl AppConfig {
    fn secret_files(&self) -> impl Iterator<Item = &PathBuf> {
        let of_health = self.health.iter().filter_map(|check| match check {
            HealthCheck::Http { token_file, .. } => token_file.as_ref(),
            HealthCheck::Command { .. } => None,
        });
        let of_checks = self.after_restore.iter().filter_map(|check| match &check.ask {
            Ask::Http { token_file, .. } => token_file.as_ref(),
            Ask::Command(_) | Ask::Sql { .. } => None,
        });
        let of_sources = self.sources.values().filter_map(|source| match source {
            Source::Postgres(postgres) => postgres.server.password_file.as_ref(),
            Source::Mariadb(mariadb) => mariadb.server.password_file.as_ref(),
            Source::Files(_) | Source::Sqlite(_) | Source::Command(_) => None,
        });
        let of_encryption = self.encryption.iter().flat_map(Encryption::secret_files);
        of_health.chain(of_checks).chain(of_sources).chain(of_encryption)
    }
}

fn name(path: &Path) -> String {
    shown(path.as_os_str().as_bytes())
}

fn refused(path: &Path, what: &str) -> Error {
    Error::new(ErrorKind::Usage, format!("{}: {what}", name(path))).state("nothing was changed")
}

fn read(path: &Path) -> Result<String> {
    let failed = |error| Error::from(store::Error::io("read", path, error)).state("nothing was changed");
    // Never waits for the other end of a pipe.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| match error {
        Errno::NOENT => refused(path, "there is no such file").next("write it, or name another one"),
        error => failed(error.into()),
    });
    let mut file = File::from(opened?);
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(refused(path, "this is no file").next("name the file itself, such as lifeboat.yaml"));
    }
    // Asked of the open file: what is checked is what is read.
    check_owner(path, metadata.uid(), metadata.mode(), rustix::process::geteuid().as_raw())?;
    let mut bytes = Vec::new();
    file.by_ref().take(SIZE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > SIZE_MAX_BYTES {
        return Err(refused(path, "the file is larger than 1 MiB").next("name the configuration of Lifeboat"));
    }
    String::from_utf8(bytes).map_err(|_| refused(path, "the file is not UTF-8 text").next("save it as UTF-8"))
}

/// The file names commands, which run with the rights of who calls.
fn check_owner(path: &Path, owner: u32, mode: u32, caller: u32) -> Result<()> {
    if owner != 0 && owner != caller {
        let what = format!("the file belongs to user {owner}, and it can name commands to run");
        let next = format!("if you trust what it says: chown {caller} {}", name(path));
        return Err(refused(path, &what).next(next));
    }
    if mode & OTHERS_WRITE != 0 {
        let what = format!("others can write to the file (mode {:o}), and it can name commands to run", mode & 0o7777);
        let next = format!("if you trust what it says: chmod go-w {}", name(path));
        return Err(refused(path, &what).next(next));
    }
    Ok(())
}

/// The one of `known` that someone who wrote `word` meant, if that is likely.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let extended = |known: &&&str| !word.is_empty() && (known.starts_with(word) || word.starts_with(**known));
    let by_letters = known.iter().min_by_key(|known| strsim::osa_distance(word, known));
    let letters = word.chars().count();
    let is_near = |known: &&&str| strsim::osa_distance(word, known) < (2 + letters / 4).min(letters);
    by_letters.filter(is_near).or_else(|| known.iter().find(extended)).copied()
}

#[cfg(test)]
mod tests;
