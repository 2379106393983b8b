//! The entries that a walk hands out: known whole from their listing, or files
//! that are opened when it is their turn.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use lifeboat_format::capture::{Content, Item, Opened, Settled};
use lifeboat_format::model::{Entry, EntryKind, Xattrs};
use lifeboat_format::monitor::{Problem, ProblemClass};
use lifeboat_format::path::EntryPath;
use rustix::fs::{OFlags, Stat};
use rustix::io::Errno;

use super::attributes;
use super::database::{self, Databases, Look, Taken};
use super::roots::Dir;
use crate::beneath;
use crate::sqlite::Guarded;

/// An entry that is known whole from its listing: all but files.
pub(super) struct Known(pub(super) Entry);

impl Item for Known {
    fn path(&self) -> &EntryPath {
        &self.0.path
    }

    fn size(&self) -> u64 {
        0
    }

    fn is_file(&self) -> bool {
        false
    }

    fn is_dir(&self) -> bool {
        self.0.kind == EntryKind::Dir
    }

    fn is_linked(&self) -> bool {
        false
    }

    fn open(&self) -> std::result::Result<Opened, Problem> {
        Ok(Opened { entry: self.0.clone(), content: None })
    }
}

/// A file that was listed.
pub(super) struct Listed {
    pub(super) dir: Arc<Dir>,
    pub(super) relative: Vec<u8>,
    pub(super) path: EntryPath,
    /// Device and inode at listing.
    pub(super) listed: (u64, u64),
    pub(super) size: u64,
    pub(super) is_linked: bool,
    /// How a database is captured; without it, as a file.
    pub(super) databases: Option<Arc<Databases>>,
}

impl Listed {
    fn open_file(&self) -> rustix::io::Result<OwnedFd> {
        // A pipe that took the file's place must not make us wait.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        match beneath::open(self.dir.fd.as_fd(), &self.relative, flags | OFlags::NOATIME) {
            // Only its owner may read a file without leaving a trace in its atime.
            Err(Errno::PERM) => beneath::open(self.dir.fd.as_fd(), &self.relative, flags),
            opened => opened,
        }
    }

    /// Opens `file` as a database where it is one; an error says why it cannot be read.
    fn open_database(&self, file: File, stat: &Stat, xattrs: &Xattrs) -> Result<Taken, String> {
        let Some(databases) = &self.databases else { return Ok(Taken::Plain(Guarded::no_database(file))) };
        let look = database::look(&file, attributes::size(stat));
        if look == Look::NoDatabase {
            return Ok(Taken::Plain(Guarded::no_database(file)));
        }
        let file = Guarded::new(file, attributes::identity(stat));
        if look == Look::Broken {
            let why = "it begins like a SQLite database and is none: its header is damaged";
            databases.note(&self.path, format!("{why}; it was copied as a file"));
            return Ok(Taken::Plain(file));
        }
        let entry =
            |stat: &Stat| attributes::entry(self.path.clone(), EntryKind::File, stat, xattrs.clone(), &self.dir.names);
        let path = self.dir.real.join(OsStr::from_bytes(&self.relative));
        databases.open(file, &path, stat, self.dir.is_held(), &entry)
    }
}

impl Item for Listed {
    fn path(&self) -> &EntryPath {
        &self.path
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn is_file(&self) -> bool {
        true
    }

    fn is_linked(&self) -> bool {
        self.is_linked
    }

    fn open(&self) -> std::result::Result<Opened, Problem> {
        let problem = |class, message: String| Problem::new(class, self.path.as_bytes(), message);
        let fd = self.open_file().map_err(|error| match error {
            Errno::NOENT | Errno::NOTDIR => {
                problem(ProblemClass::Vanished, "it was gone when it was to be opened".to_owned())
            }
            Errno::LOOP => problem(ProblemClass::Vanished, "it was replaced by a symlink".to_owned()),
            error => problem(ProblemClass::Unreadable, format!("it could not be opened: {error}")),
        })?;
        let unreadable = |error: Errno| problem(ProblemClass::Unreadable, format!("it could not be read: {error}"));
        let stat = rustix::fs::fstat(&fd).map_err(unreadable)?;
        if attributes::kind(&stat) != Some(EntryKind::File) {
            return Err(problem(ProblemClass::Vanished, "it was replaced by something that is no file".to_owned()));
        }
        if self.is_linked && attributes::identity(&stat) != self.listed {
            // Its other names lead to the file that was here, not to this one.
            return Err(problem(ProblemClass::Unreadable, "it was replaced while its directory was read".to_owned()));
        }
        let xattrs = attributes::xattrs(fd.as_fd()).map_err(unreadable)?;
        let file = match self.open_database(fd.into(), &stat, &xattrs) {
            Ok(Taken::Database(opened)) => return Ok(opened),
            Ok(Taken::Plain(file)) => file,
            Err(message) => return Err(problem(ProblemClass::Unreadable, message)),
        };
        let entry = attributes::entry(self.path.clone(), EntryKind::File, &stat, xattrs, &self.dir.names);
        Ok(Opened { entry, content: Some(Box::new(OpenFile { file, at_opening: stat, _dir: Arc::clone(&self.dir) })) })
    }
}

struct OpenFile {
    file: Guarded,
    at_opening: Stat,
    /// What lasts until the last file of the source was read.
    _dir: Arc<Dir>,
}

impl Read for OpenFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.file).read(buffer)
    }
}

impl Content for OpenFile {
    fn settle(&mut self) -> Settled {
        let Ok(now) = rustix::fs::fstat(&*self.file) else { return Settled::Changed };
        if now.st_size > self.at_opening.st_size {
            Settled::Grew
        } else if now.st_size == self.at_opening.st_size
            && attributes::mtime(&now) == attributes::mtime(&self.at_opening)
        {
            Settled::Same
        } else {
            Settled::Changed
        }
    }
}
