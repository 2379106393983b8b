//! Looking at a tree by the handle of its top, never through a symlink. The
//! directory that was looked at last stays open: neighbours come one after
//! the other.

use std::cell::RefCell;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use lifeboat_format::model::{Entry, FileTime};
use lifeboat_store as store;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::{Errno, Result};

use super::name::{below, join, split};
use crate::beneath;
use crate::source::attributes::{self, Names};

/// A tree below an open directory.
pub(super) struct Tree {
    top: OwnedFd,
    names: Names,
    last: RefCell<Option<(Vec<u8>, Rc<OwnedFd>)>>,
}

impl Tree {
    /// The tree at `path`, which is followed to its end.
    pub(super) fn open(path: &Path) -> crate::Result<Self> {
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        Ok(Self::of(fd.map_err(|error| store::Error::io("open", path, error))?))
    }

    pub(super) fn of(top: OwnedFd) -> Self {
        Self { top, names: Names::default(), last: RefCell::new(None) }
    }

    pub(super) fn top(&self) -> BorrowedFd<'_> {
        self.top.as_fd()
    }

    /// The open directory at `path`.
    pub(super) fn dir(&self, path: &[u8]) -> Result<Rc<OwnedFd>> {
        if let Some((last, fd)) = &*self.last.borrow()
            && last == path
        {
            return Ok(Rc::clone(fd));
        }
        let fd = Rc::new(beneath::open(self.top.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY)?);
        *self.last.borrow_mut() = Some((path.to_vec(), Rc::clone(&fd)));
        Ok(fd)
    }

    /// The open directory that `path` stands in, and its name there.
    pub(super) fn parent<'p>(&self, path: &'p [u8]) -> Result<(Rc<OwnedFd>, &'p [u8])> {
        let (dir, name) = split(path);
        Ok((self.dir(dir)?, if name.is_empty() { b"." } else { name }))
    }

    /// What was at `path` moved, and was perhaps the directory that is kept open.
    pub(super) fn forget(&self, path: &[u8]) {
        self.last.borrow_mut().take_if(|(last, _)| below(last, path).is_some());
    }

    /// What is at `path`; `None` where nothing is, or something on the way is no directory.
    pub(super) fn stat(&self, path: &[u8]) -> Result<Option<Stat>> {
        let found =
            self.parent(path).and_then(|(dir, name)| rustix::fs::statat(&*dir, name, AtFlags::SYMLINK_NOFOLLOW));
        match found {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has an overlay file system copy what is at `path`, and is no directory,
    /// to its upper layer. Changes nothing of it.
    pub(super) fn touch(&self, path: &[u8], stat: &Stat) -> Result<()> {
        let touched = if is_file(stat) {
            beneath::open(self.top.as_fd(), path, OFlags::WRONLY | OFlags::NONBLOCK).map(drop)
        } else {
            let (dir, name) = self.parent(path)?;
            rustix::fs::chownat(&*dir, name, None, None, AtFlags::SYMLINK_NOFOLLOW)
        };
        match touched {
            // Who may move it need not be allowed to write to it.
            Err(Errno::ACCESS | Errno::PERM | Errno::TXTBSY) => Ok(()),
            touched => touched,
        }
    }

    /// The names in the directory at `path`, sorted.
    pub(super) fn list(&self, path: &[u8]) -> Result<Vec<Vec<u8>>> {
        // A handle of its own: the position in a listing belongs to the handle.
        let dir = beneath::open(self.top.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names: Vec<Vec<u8>> = rustix::fs::Dir::new(dir)?
            .map(|entry| entry.map(|entry| entry.file_name().to_bytes().to_vec()))
            .collect::<Result<_>>()?;
        names.retain(|name| name != b"." && name != b"..");
        names.sort_unstable();
        Ok(names)
    }

    /// The names of stages in the directory at `path`. One that cannot be
    /// listed is told of by whoever needs what is in it.
    pub(super) fn stages(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let mut names = self.list(path).unwrap_or_default();
        names.retain(|name| crate::ours::stage_id(name).is_some());
        names
    }

    /// All that can be said of what is at `path` without reading content.
    pub(super) fn entry(&self, path: &[u8], stat: &Stat) -> Result<Option<Entry>> {
        let Some(kind) = attributes::kind(stat) else { return Ok(None) };
        let (dir, name) = self.parent(path)?;
        let xattrs = attributes::xattrs_of_link(dir.as_fd(), name)?;
        // The path means nothing here, and must only be acceptable.
        let place = lifeboat_format::path::EntryPath::new("x").map_err(|_| Errno::INVAL)?;
        let mut entry = attributes::entry(place, kind, stat, xattrs, &self.names);
        if kind == lifeboat_format::model::EntryKind::Symlink {
            entry.target = rustix::fs::readlinkat(&*dir, name, Vec::new())?.into_bytes();
        }
        Ok(Some(entry))
    }

    /// Calls `each` for everything below the directory at `path`, parents first.
    pub(super) fn walk(&self, path: &[u8], each: &mut dyn FnMut(&[u8], &Stat)) -> Result<()> {
        for name in self.list(path)? {
            let inner = join(path, &name);
            let Some(stat) = self.stat(&inner)? else { continue };
            each(&inner, &stat);
            if is_dir(&stat) {
                self.walk(&inner, each)?;
            }
        }
        Ok(())
    }
}

pub(super) fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

pub(super) fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

pub(super) fn mtime(stat: &Stat) -> FileTime {
    attributes::mtime(stat)
}

/// Bytes that are freed with it, as far as its size says.
pub(super) fn size(stat: &Stat) -> u64 {
    if is_file(stat) { attributes::size(stat) } else { 0 }
}
