//! The copy of a pinned database: by SQLite's backup API into a private file,
//! emptied of what was excluded, and checked. No file has its name any more when
//! it is handed out.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use lifeboat_store::{self as store, Cancel};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::check::{self, Checked, Facts};
use super::{Pinned, exclude, failed, open};
use crate::scratch::{self, COPYING, Scratch};
use crate::{Error, ErrorKind, Result};

/// How many pages are copied before somebody is told and may stop it.
const STEP_PAGES: i32 = 1000;

/// A copy that stands alone: no file beside it belongs to it.
pub(crate) struct Copied {
    /// Open for reading, at its start, and without a name.
    pub(crate) file: File,
    /// Its length in bytes.
    pub(crate) size: u64,
    /// What was found in it.
    pub(crate) facts: Facts,
}

impl Pinned {
    /// Copies it into a private file in `dir`, leaves out the rows of
    /// `exclude_tables` (patterns with `*`), checks it and counts its rows.
    /// `advanced` is told the bytes of each step.
    ///
    /// Of kind [`ErrorKind::SourceFailed`] where the database is damaged,
    /// [`ErrorKind::NoSpace`] where `dir` has no room for the copy.
    pub(crate) fn copy(
        self,
        dir: &Path,
        exclude_tables: &[String],
        cancel: &Cancel,
        advanced: &dyn Fn(u64),
    ) -> Result<Copied> {
        let path = self.path.clone();
        let (copied, findings) = self.copy_as_it_is(dir, exclude_tables, cancel, advanced)?;
        if findings.is_empty() {
            return Ok(copied);
        }
        Err(failed(&path, format!("is damaged: {}", findings.join("; ")))
            .next("restore it from an older snapshot, or repair it with `sqlite3 FILE .recover`"))
    }

    /// The same for one that may be damaged; what was found comes with the copy.
    pub(crate) fn copy_as_it_is(
        self,
        dir: &Path,
        exclude_tables: &[String],
        cancel: &Cancel,
        advanced: &dyn Fn(u64),
    ) -> Result<(Copied, Vec<String>)> {
        let path = self.path.clone();
        let is_wal = self.is_wal();
        let place = Place::create(dir)?;
        let copy = place.file();
        let wrong = |error: rusqlite::Error| explain(&path, dir, &error, cancel);
        self.copy_pages(&copy, cancel, advanced).map_err(wrong)??;
        // Writers need not wait for the rest.
        drop(self);
        let excluded = exclude::empty_tables(&copy, exclude_tables, cancel).map_err(wrong)?;
        let connection = open::at_rest(&copy).map_err(wrong)?;
        let Checked { mut facts, findings } = check::check(&connection, cancel).map_err(wrong)?;
        drop(connection);
        facts.tables.retain(|name, _| !excluded.tables.contains(name));
        facts.excluded_tables = excluded.tables;
        facts.notes.extend(excluded.notes);
        facts.journal_mode = if is_wal { "wal" } else { "rollback" };
        let read = File::open(&copy).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (size, file) = read.map_err(|error| Error::from(store::Error::io("open", &copy, error)))?;
        Ok((Copied { file, size, facts }, findings))
    }

    /// Copies it into the file `to`, which is ours, empty and private.
    pub(crate) fn copy_to(self, to: &Path, cancel: &Cancel) -> Result<()> {
        let dir = to.parent().unwrap_or(to);
        self.copy_pages(to, cancel, &|_| {}).map_err(|error| explain(&self.path, dir, &error, cancel))?
    }

    fn copy_pages(&self, to: &Path, cancel: &Cancel, advanced: &dyn Fn(u64)) -> rusqlite::Result<Result<()>> {
        let mut to = for_writing(to)?;
        // It is read by us at once and thrown away with us; nothing has to survive.
        to.execute_batch("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF")?;
        let backup = Backup::new(self.connection(), &mut to)?;
        let page_bytes = self.header.map_or(0, |header| u64::from(super::page_size(&header)));
        let mut done = 0;
        loop {
            if let Err(cancelled) = cancel.check() {
                return Ok(Err(cancelled.into()));
            }
            let result = backup.step(STEP_PAGES)?;
            let progress = backup.progress();
            let now = u64::try_from(progress.pagecount - progress.remaining).unwrap_or(0);
            // It begins again only when another state is to be copied, and a pin does not let go of its own.
            let Some(pages) = now.checked_sub(done) else {
                return Ok(Err(failed(&self.path, "changed although it was pinned")));
            };
            advanced(pages * page_bytes);
            done = now;
            match result {
                StepResult::Done => return Ok(Ok(())),
                StepResult::More => {}
                _ => return Ok(Err(failed(&self.path, "could not be copied: it is locked although it was pinned"))),
            }
        }
    }
}

/// A connection that writes into a copy of ours.
pub(super) fn for_writing(copy: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // Its directory may be given as a relative one; SQLite takes what begins with "file:" for something else.
    let copy = std::path::absolute(copy).map_err(|_| rusqlite::Error::InvalidPath(copy.to_owned()))?;
    Connection::open_with_flags(copy, flags)
}

/// The private folder that a copy is made in. Removed when dropped; what was
/// opened of it lives on.
struct Place(Scratch);

impl Place {
    fn create(dir: &Path) -> Result<Self> {
        let _lock = scratch::lock_dir(dir)?;
        for (path, text) in scratch::abandoned(dir)? {
            if text == COPYING {
                scratch::remove(&path);
            }
        }
        let place = Self(Scratch::create(dir, COPYING)?);
        let file = place.file();
        let made = File::options().write(true).create_new(true).mode(0o600).open(&file);
        made.map_err(|error| Error::from(store::Error::io("create", &file, error)))?;
        Ok(place)
    }

    fn file(&self) -> PathBuf {
        self.0.new.join("copy.db")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        scratch::remove(&self.0.path);
    }
}

/// What an error of SQLite means while the database at `path` is copied into `dir`.
fn explain(path: &Path, dir: &Path, error: &rusqlite::Error, cancel: &Cancel) -> Error {
    if let Err(cancelled) = cancel.check() {
        return cancelled.into();
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Error::new(
            ErrorKind::NoSpace,
            format!("no space left in {} for the copy of database {}", dir.display(), path.display()),
        )
        .next("make room there: the copy is as large as the database, and goes when the backup ends"),
        _ => failed(path, format!("could not be copied: {error}")),
    }
}
