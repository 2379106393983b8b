//! SQLite databases: how the state of one at one moment is pinned ([`Pinned`]),
//! copied (`copy`), and checked (`check`). Knows no sources and no archives.
//!
//! A live database is never changed by us, except that a journal or a log that
//! a crash left is recovered, as any reader would. SQLite's locks are lost when
//! this process closes a handle of the same file: see `pins`. So nothing here
//! opens the database, its `-wal` or its `-shm` by hand while it is pinned,
//! but through [`Guarded`].

mod check;
mod copy;
mod exclude;
mod merge;
mod open;
mod pins;
mod who;

use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lifeboat_store::Cancel;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rustix::fs::{CWD, FlockOperation, StatVfsMountFlags};

use crate::processes::{self, Identity};
use crate::{Error, ErrorKind, Result};
pub(crate) use check::{Facts, check_at_rest};
pub(crate) use copy::Copied;
pub use merge::MergedTable;
pub(crate) use merge::{Merged, Wanted, copy_live, merge, no_such_table};
pub(crate) use open::query_value;
pub(crate) use pins::Guarded;

/// What a database begins with (sqlite.org/fileformat.html, 1.2).
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// How long the header of a database is, in bytes.
pub(crate) const HEADER_BYTES: usize = 100;
/// What SQLite adds to a database's name for the files that it puts beside it.
pub(crate) const LOGS: [&str; 3] = ["-wal", "-shm", "-journal"];
/// How long to wait before a locked database is tried again: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// Whether a file that begins with `start` (16 bytes or more) says that it is a
/// database. An encrypted one does not.
pub(crate) fn begins_like_one(start: &[u8]) -> bool {
    start.starts_with(MAGIC)
}

/// Whether SQLite would take a file that begins with the 100 bytes `header` for
/// a database at all, which says nothing of the rest.
pub(crate) fn has_sound_header(header: &[u8; HEADER_BYTES]) -> bool {
    let page_size = page_size(header);
    // The same as lockBtree() in SQLite's btree.c: read version, payload fractions, page size, reserved bytes.
    begins_like_one(header)
        && header[19] <= 2
        && header[21..24] == [64, 32, 32]
        && (512..=65536).contains(&page_size)
        && page_size.is_power_of_two()
        && page_size - u32::from(header[20]) >= 480
}

/// Bytes of a page; 1 stands for 65536.
fn page_size(header: &[u8; HEADER_BYTES]) -> u32 {
    match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65536,
        size => u32::from(size),
    }
}

/// The path of the file that SQLite puts beside the database at `path`.
fn beside(path: &Path, log: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(log);
    name.into()
}

/// How many bytes are in the log beside `path`; 0 where it is missing.
fn log_bytes(path: &Path, log: &str) -> u64 {
    beside(path, log).symlink_metadata().map_or(0, |metadata| metadata.len())
}

fn identity_of(path: &Path) -> Option<Identity> {
    processes::identity(CWD, path.as_os_str().as_bytes()).ok().map(|(identity, _)| identity)
}

/// A database whose state at one moment is pinned by an open read transaction.
///
/// In WAL mode writers go on meanwhile. In the rollback modes they wait, or
/// give up after their own time, so it should not live longer than needed.
pub(crate) struct Pinned {
    /// There until dropped.
    connection: Option<Connection>,
    /// Without symlinks.
    path: PathBuf,
    identity: Identity,
    header: Option<[u8; HEADER_BYTES]>,
    is_the_file: bool,
    had_shm: bool,
    registered: pins::Registered,
}

/// Why a database could not be pinned.
pub(crate) enum Reason {
    /// SQLite says that it is no database, or too damaged to be opened.
    NoDatabase,
    /// We may not write what reading it takes, and nothing is in its logs.
    NotPermitted,
    /// Others lock it.
    Locked,
    /// Everything else: it is missing, cannot be read.
    Other,
}

/// A database that could not be pinned.
pub(crate) struct NotPinned {
    pub(crate) reason: Reason,
    pub(crate) error: Error,
}

impl Pinned {
    /// Pins the database at `path` as it is now. One that others lock is tried
    /// again for `busy_timeout`; then the error names them. All errors but a
    /// cancelled one are of the kind [`ErrorKind::SourceFailed`].
    pub(crate) fn new(path: &Path, busy_timeout: Duration, cancel: &Cancel) -> Result<Self> {
        Self::pin(path, busy_timeout, cancel).map_err(|not| not.error)
    }

    /// The same, with the reason in a form that can be acted on.
    pub(crate) fn pin(path: &Path, busy_timeout: Duration, cancel: &Cancel) -> std::result::Result<Self, NotPinned> {
        let other = |error| NotPinned { reason: Reason::Other, error };
        let real = path.canonicalize().map_err(|error| other(failed(path, format!("cannot be opened: {error}"))))?;
        refuse_strange_files(&real).map_err(other)?;
        let began = Instant::now();
        let mut pause = PAUSES.0;
        loop {
            cancel.check().map_err(|error| other(error.into()))?;
            match Self::attempt(&real) {
                Ok(Some(pinned)) => return Ok(pinned),
                // It was replaced in this moment.
                Ok(None) if began.elapsed() < busy_timeout => {}
                Ok(None) => return Err(other(failed(path, "is replaced again and again"))),
                Err(error) if !is_busy(&error) => return Err(not_opened(&real, &error)),
                Err(_) if began.elapsed() < busy_timeout => {}
                Err(_) => return Err(NotPinned { reason: Reason::Locked, error: locked(&real) }),
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// `None` when the file at `path` was replaced meanwhile.
    fn attempt(path: &Path) -> rusqlite::Result<Option<Self>> {
        match Self::attempt_as(path, open::live) {
            // Nobody can write it, so nothing has to be locked; and nothing can be, as there is no file to do it in.
            Err(error) if is_not_permitted(&error) && !has_content(path) && is_on_read_only(path) => {
                Self::attempt_as(path, open::at_rest)
            }
            attempted => attempted,
        }
    }

    fn attempt_as(path: &Path, open: fn(&Path) -> rusqlite::Result<Connection>) -> rusqlite::Result<Option<Self>> {
        let Some(identity) = identity_of(path) else { return Ok(None) };
        let registered = pins::Registered::new(identity);
        let had_shm = beside(path, "-shm").exists();
        let mut pinned = Self {
            connection: Some(open(path)?),
            path: path.to_owned(),
            identity,
            header: None,
            is_the_file: false,
            had_shm,
            registered,
        };
        pinned.begin()?;
        if identity_of(path) != Some(identity) {
            return Ok(None);
        }
        let is_wal = pinned.read_header()?;
        // In the rollback modes nobody writes into the file while our lock on it lives. In WAL mode we read either up
        // to a mark in the log, which then can be neither emptied nor overwritten, or, where all of the log is in the
        // file, from the file alone by mark 0; then no checkpoint can write into it. So a log that is empty now was
        // empty then: we hold mark 0, and the file is the state, whatever is added to the log.
        pinned.is_the_file = !is_wal || log_bytes(path, "-wal") == 0;
        Ok(Some(pinned))
    }

    fn begin(&self) -> rusqlite::Result<()> {
        let connection = self.connection();
        // The cookie is on the first page: to read it pins the state without reading the schema, which may be damaged.
        connection.execute_batch("BEGIN")?;
        connection.query_row("PRAGMA schema_version", [], |row| row.get::<_, i64>(0))?;
        Ok(())
    }

    /// Whether it is in WAL mode, by the header of the file, which nobody can
    /// change while the pin lives.
    fn read_header(&mut self) -> rusqlite::Result<bool> {
        let cannot = |_| rusqlite::Error::InvalidPath(self.path.clone());
        let file = File::open(&self.path).map_err(cannot)?;
        let file = Guarded::new(file, (self.identity.dev, self.identity.ino));
        let mut header = [0; HEADER_BYTES];
        // An empty file is an empty database.
        self.header = file.read_exact_at(&mut header, 0).ok().map(|()| header);
        Ok(self.is_wal())
    }

    fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("taken by drop only")
    }

    /// Whether it is in WAL mode.
    pub(crate) fn is_wal(&self) -> bool {
        self.header.is_some_and(|header| header[19] == 2)
    }

    /// Device and inode of the database.
    pub(crate) fn identity(&self) -> (u64, u64) {
        (self.identity.dev, self.identity.ino)
    }

    /// Whether the file's own bytes are that state as long as this lives.
    pub(crate) fn is_the_file(&self) -> bool {
        self.is_the_file
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let has_log = log_bytes(&self.path, "-wal") > 0;
        if has_log {
            // Otherwise the last one who closes it writes the log into the database; that is for the application to do.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap_or(false);
        }
        drop(connection);
        if has_log && !self.had_shm {
            self.registered.if_alone(|| remove_shm(&self.path));
        }
    }
}

/// Removes the `-shm` that we made beside a log which an application left when
/// it crashed. Only while nobody can have the database open: each connection
/// holds a lock on it, and we hold all of it, as SQLite itself does for this.
fn remove_shm(path: &Path) {
    let shm = beside(path, "-shm");
    if !shm.exists() {
        return;
    }
    let Ok(database) = File::options().read(true).write(true).open(path) else { return };
    if rustix::fs::fcntl_lock(&database, FlockOperation::NonBlockingLockExclusive).is_ok() {
        std::fs::remove_file(shm).unwrap_or(());
    }
}

/// A failure of the source at `path`.
fn failed(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::SourceFailed, format!("database {} {what}", path.display()))
        .state("the database itself was not changed")
}

fn locked(path: &Path) -> Error {
    failed(path, format!("is locked by {}; try again", who::locks(path)))
        .next("wait until it is free, or raise busy_timeout, and run the backup again")
}

/// A file in the place of the database or of a log that SQLite would follow or
/// wait for, to who knows where.
fn refuse_strange_files(path: &Path) -> Result<()> {
    let is_strange = |path: &PathBuf| path.symlink_metadata().is_ok_and(|metadata| !metadata.is_file());
    let all = std::iter::once(path.to_owned()).chain(LOGS.iter().map(|log| beside(path, log)));
    match all.into_iter().find(is_strange) {
        Some(strange) => Err(failed(path, format!("cannot be read: {} is no regular file", strange.display()))),
        None => Ok(()),
    }
}

/// Whether something that is not in the database itself yet is in its logs.
fn has_content(path: &Path) -> bool {
    log_bytes(path, "-wal") > 0 || log_bytes(path, "-journal") > 0
}

fn is_on_read_only(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
}

fn is_busy(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, FileLockingProtocolFailed};
    matches!(error.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked | FileLockingProtocolFailed))
}

fn is_not_permitted(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, PermissionDenied, ReadOnly};
    matches!(error.sqlite_error_code(), Some(CannotOpen | PermissionDenied | ReadOnly))
}

fn not_opened(path: &Path, error: &rusqlite::Error) -> NotPinned {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error.sqlite_error_code() {
        Some(NotADatabase) => NotPinned {
            reason: Reason::NoDatabase,
            error: failed(path, "is no SQLite database, or it is encrypted")
                .next("name the right file; back up an encrypted one as files, with its application stopped"),
        },
        Some(DatabaseCorrupt) => NotPinned {
            reason: Reason::NoDatabase,
            error: failed(path, format!("is damaged: {error}")).next("restore it from an older snapshot"),
        },
        _ => {
            let is_plain = is_not_permitted(error) && !has_content(path) && File::open(path).is_ok();
            NotPinned {
                reason: if is_plain { Reason::NotPermitted } else { Reason::Other },
                error: failed(path, format!("cannot be read: {error}"))
                    .next("see that Lifeboat may read it and write in its directory, as SQLite needs to"),
            }
        }
    }
}

#[cfg(test)]
mod tests;
