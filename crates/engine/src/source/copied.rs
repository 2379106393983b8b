//! A database that was copied: one entry, with the attributes of the live file.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use lifeboat_format::capture::{Content, Item, Opened, Settled};
use lifeboat_format::model::{Entry, EntryKind};
use lifeboat_format::monitor::Problem;
use lifeboat_format::path::EntryPath;
use rustix::fs::{AtFlags, Mode, OFlags};

use super::attributes::{self, Names};

/// A copy of a database.
pub(crate) struct Copy {
    entry: Entry,
    file: Arc<File>,
}

impl Copy {
    /// The copy in `file` of the database at `live`, without symlinks, as the entry `path`.
    ///
    /// # Errors
    /// When the attributes of the live file cannot be read.
    pub(crate) fn new(path: EntryPath, live: &Path, file: File, size: u64) -> rustix::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(live.parent().unwrap_or(live), flags, Mode::empty())?;
        let name = live.file_name().unwrap_or_default();
        let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        // By its name: to open and close the file itself would drop the locks that SQLite holds on it.
        let xattrs = attributes::xattrs_of_link(dir.as_fd(), name.as_encoded_bytes())?;
        let mut entry = attributes::entry(path, EntryKind::File, &stat, xattrs, &Names::default());
        (entry.size, entry.sparse) = (size, false);
        Ok(Self { entry, file: Arc::new(file) })
    }
}

impl Item for Copy {
    fn path(&self) -> &EntryPath {
        &self.entry.path
    }

    fn size(&self) -> u64 {
        self.entry.size
    }

    fn is_file(&self) -> bool {
        true
    }

    fn is_linked(&self) -> bool {
        false
    }

    fn open(&self) -> Result<Opened, Problem> {
        let content = Reading { file: Arc::clone(&self.file), at: 0 };
        Ok(Opened { entry: self.entry.clone(), content: Some(Box::new(content)) })
    }
}

struct Reading {
    file: Arc<File>,
    at: u64,
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Content for Reading {
    fn settle(&mut self) -> Settled {
        Settled::Same
    }
}
