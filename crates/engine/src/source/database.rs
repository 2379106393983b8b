//! A SQLite database that a walk finds among files: captured at its own path as
//! the state at one moment, from the file itself while that is pinned, or from a
//! copy. What SQLite puts beside it is left out: its content is in that state.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lifeboat_format::capture::{Content, Opened, Settled};
use lifeboat_format::model::{Entry, EntryKind};
use lifeboat_format::monitor::{Monitor, Problem, ProblemClass};
use lifeboat_format::path::EntryPath;
use lifeboat_store::Cancel;
use rustix::fs::{Mode, OFlags, Stat};

use super::attributes;
use crate::sqlite::{self, Guarded, HEADER_BYTES, NotPinned, Pinned, Reason};

/// How long a locked one is tried again.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// The same while services stand still.
const BUSY_TIMEOUT_HELD: Duration = Duration::from_secs(1);
/// The smallest page, of which every database is a multiple.
const PAGE_BYTES_MIN: u64 = 512;

/// What the items of a walk share to capture databases.
pub(super) struct Databases {
    /// Where copies are made.
    scratch: PathBuf,
    cancel: Cancel,
    /// Told by the walk, as items know no monitor.
    notes: Mutex<Vec<Problem>>,
}

/// What a file is by its header.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    NoDatabase,
    /// It says that it is a database, and SQLite would not believe it.
    Broken,
    Database,
}

/// What `file` of this size is. Guard it, unless it is no database.
pub(super) fn look(file: &File, size: u64) -> Look {
    if !can_be_one(size) {
        return Look::NoDatabase;
    }
    let mut header = [0; HEADER_BYTES];
    if file.read_exact_at(&mut header, 0).is_err() || !sqlite::begins_like_one(&header) {
        return Look::NoDatabase;
    }
    if sqlite::has_sound_header(&header) { Look::Database } else { Look::Broken }
}

/// Whether a file of this size can be a database that holds something.
pub(super) fn can_be_one(size: u64) -> bool {
    size >= PAGE_BYTES_MIN && size.is_multiple_of(PAGE_BYTES_MIN)
}

/// The name of the database whose log `name` would be.
pub(super) fn database_of(name: &[u8]) -> Option<&[u8]> {
    sqlite::LOGS.iter().find_map(|log| name.strip_suffix(log.as_bytes())).filter(|name| !name.is_empty())
}

/// Whether the file `name` in `dir` is a database.
pub(super) fn is_one(dir: BorrowedFd<'_>, name: &[u8]) -> bool {
    // A pipe must not make us wait.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::openat(dir, name, flags, Mode::empty()).map(File::from) else { return false };
    let Ok(stat) = rustix::fs::fstat(&file) else { return false };
    let file = Guarded::new(file, attributes::identity(&stat));
    attributes::kind(&stat) == Some(EntryKind::File) && look(&file, attributes::size(&stat)) == Look::Database
}

/// A database that was opened, or what it is instead.
pub(super) enum Taken {
    Database(Opened),
    /// It is to be read as any file.
    Plain(Guarded),
}

impl Databases {
    pub(super) fn new(scratch: &Path, cancel: &Cancel) -> Self {
        Self { scratch: scratch.to_owned(), cancel: cancel.clone(), notes: Mutex::default() }
    }

    /// Adds a note about a database that is in the snapshot all the same.
    pub(super) fn note(&self, path: &EntryPath, message: String) {
        let note = Problem::new(ProblemClass::LiveDatabase, path.as_bytes(), message);
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }

    /// Tells `monitor` what was noted since.
    pub(super) fn tell(&self, monitor: &dyn Monitor) {
        let notes = std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner));
        notes.into_iter().for_each(|note| monitor.problem(note));
    }

    /// Opens the database that `file` is and `path` leads to; `stat` is of
    /// `file`, and `entry` makes an entry of a later one. `is_held` says that
    /// services stand still meanwhile.
    pub(super) fn open(
        &self,
        file: Guarded,
        path: &Path,
        stat: &Stat,
        is_held: bool,
        entry: &dyn Fn(&Stat) -> Entry,
    ) -> Result<Taken, String> {
        let timeout = if is_held { BUSY_TIMEOUT_HELD } else { BUSY_TIMEOUT };
        let pinned = match Pinned::pin(path, timeout, &self.cancel) {
            Ok(pinned) => pinned,
            Err(NotPinned { reason: Reason::Other | Reason::Locked, error }) => return Err(error.to_string()),
            Err(NotPinned { error, .. }) => {
                let entry = entry(stat);
                self.note(&entry.path, format!("{error}; it was copied as a file and may be inconsistent"));
                return Ok(Taken::Plain(file));
            }
        };
        if pinned.identity() != attributes::identity(stat) {
            return Err("it was replaced while it was opened".to_owned());
        }
        let now = rustix::fs::fstat(&*file).map_err(|error| format!("it could not be read: {error}"))?;
        let mut entry = entry(&now);
        if stat.st_nlink > 1 && pinned.is_wal() {
            // Its log has the name by which it was opened, and only who opens it by that finds it.
            let message = "it is a SQLite database with several names; if it is in use by another, what is still in the log \
                           of that is missing";
            self.note(&entry.path, message.to_owned());
        }
        if pinned.is_the_file() {
            let content = Box::new(OwnBytes { file, _pinned: pinned });
            return Ok(Taken::Database(Opened { entry, content: Some(content) }));
        }
        drop(file);
        let copied = pinned.copy_as_it_is(&self.scratch, &[], &self.cancel, &|_| {});
        let (copied, findings) = copied.map_err(|error| error.to_string())?;
        if let Some(first) = findings.first() {
            self.note(&entry.path, format!("it is a damaged SQLite database, and was copied as it is: {first}"));
        }
        entry.size = copied.size;
        Ok(Taken::Database(Opened { entry, content: Some(Box::new(Copy(copied.file))) }))
    }
}

/// The file itself, which nobody writes while it is pinned.
struct OwnBytes {
    // Dropped first, and then closed with the pin.
    file: Guarded,
    _pinned: Pinned,
}

impl Read for OwnBytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.file).read(buffer)
    }
}

impl Content for OwnBytes {
    fn settle(&mut self) -> Settled {
        Settled::Same
    }
}

/// A copy that nobody else has.
struct Copy(File);

impl Read for Copy {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Content for Copy {
    fn settle(&mut self) -> Settled {
        Settled::Same
    }
}
