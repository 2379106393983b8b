//! A private folder of ours in a user's directory, for what must not be seen
//! before it is whole: the stage of a restore, the copy of a database. A kill
//! leaves it behind; backups know it by its name and its pointer
//! ([`crate::ours`]), and the next run that makes one there removes it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use lifeboat_store::{self as store, durable};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::ours::{STAGE_POINTER, STAGE_PREFIX, is_stage};
use crate::{Error, Result};

/// What the pointer says in the folder of a restore that has replaced nothing yet.
pub(crate) const STAGING: &[u8] = b"staging\n";
/// What it says where copies of databases are made.
pub(crate) const COPYING: &[u8] = b"copying\n";
/// The folder in the folder that the content goes to.
const NEW: &str = "new";

/// A folder that was made. Not removed when dropped: see [`remove`].
pub(crate) struct Scratch {
    /// The folder.
    pub(crate) path: PathBuf,
    /// The folder in it for the content; its mode is 0700, and it inherited no ACL.
    pub(crate) new: PathBuf,
    /// The file that says what it is; the lock on it says that it is in use.
    pub(crate) pointer: File,
}

fn io(doing: &str, path: &Path, error: impl Into<io::Error>) -> Error {
    Error::from(store::Error::io(doing, path, error))
}

impl Scratch {
    /// A new one in `dir`, whose pointer says `text`. Hold the lock of
    /// [`lock_dir`] meanwhile.
    pub(crate) fn create(dir: &Path, text: &[u8]) -> Result<Self> {
        let path = dir.join(format!("{STAGE_PREFIX}{}", durable::random_hex()));
        rustix::fs::mkdir(&path, Mode::RWXU).map_err(|error| io("create a folder in", dir, error))?;
        Self::set_up(path.clone(), text).inspect_err(|_| remove(&path))
    }

    fn set_up(path: PathBuf, text: &[u8]) -> Result<Self> {
        let failed = |error: Errno| io("write in", &path, error);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path.join(STAGE_POINTER), flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
        let mut pointer = File::from(fd);
        pointer.lock().map_err(|error| io("lock", &path, error))?;
        pointer.write_all(text).map_err(|error| io("write in", &path, error))?;
        let new = path.join(NEW);
        rustix::fs::mkdir(&new, Mode::RWXU).map_err(failed)?;
        // A default ACL of the directory would be inherited by everything in here.
        match rustix::fs::removexattr(&new, "system.posix_acl_default") {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(failed(error)),
        }
        Ok(Self { path, new, pointer })
    }
}

/// Held while a folder is made or abandoned ones are removed, so that nobody
/// takes one whose pointer is not locked yet for an abandoned one. Some network
/// file systems cannot lock a directory; then two runs that begin in the same
/// moment may collide.
pub(crate) fn lock_dir(dir: &Path) -> Result<File> {
    let lock = File::open(dir).map_err(|error| io("open", dir, error))?;
    lock.lock().unwrap_or(());
    Ok(lock)
}

/// The folders in `dir` that nobody uses, with what their pointers say.
pub(crate) fn abandoned(dir: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let handle = File::open(dir).map_err(|error| io("open", dir, error))?;
    let listing = std::fs::read_dir(dir).map_err(|error| io("list", dir, error))?;
    let stages = listing
        .filter_map(io::Result::ok)
        .filter(|entry| is_stage(handle.as_fd(), entry.file_name().as_encoded_bytes()));
    Ok(stages
        .filter_map(|entry| {
            let mut text = Vec::new();
            let mut pointer = File::open(entry.path().join(STAGE_POINTER)).ok()?;
            let is_free = pointer.try_lock().is_ok() && pointer.read_to_end(&mut text).is_ok();
            is_free.then(|| (entry.path(), text))
        })
        .collect())
}

/// Removes a folder with all in it. Nothing can be done about a failure: the
/// next run in the same directory removes what is left.
pub(crate) fn remove(path: &Path) {
    // The pointer goes last: what is left after a kill must still be known as ours.
    std::fs::remove_dir_all(path.join(NEW)).unwrap_or(());
    std::fs::remove_file(path.join(STAGE_POINTER)).unwrap_or(());
    std::fs::remove_dir(path).unwrap_or(());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_abandoned_when_nobody_holds_its_pointer() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Scratch::create(dir.path(), COPYING).unwrap();
        std::fs::create_dir(scratch.new.join("content")).unwrap();
        assert!(abandoned(dir.path()).unwrap().is_empty(), "it is in use");
        let path = scratch.path.clone();
        drop(scratch);
        assert_eq!(abandoned(dir.path()).unwrap(), [(path.clone(), COPYING.to_vec())]);
        remove(&path);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
