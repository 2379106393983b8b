//! The stage: a private folder inside the target, on its file system, where
//! the archive is unpacked (`fill`) before anything moves in.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use lifeboat_store as store;
use rustix::fs::{Mode, OFlags, Timespec, Timestamps};

use crate::scratch::{self, COPYING, STAGING, Scratch};
use crate::{Error, ErrorKind, Result};

/// What it says when replaced files may be in it.
const REPLACING: &[u8] = b"replacing\n";

/// A stage in a target directory. Removed when dropped, with all in it.
pub(super) struct Stage {
    pub(super) target: File,
    pub(super) target_path: PathBuf,
    pub(super) path: PathBuf,
    pub(super) new: OwnedFd,
    pointer: File,
    /// The outermost directory that was made for the target.
    made: Option<PathBuf>,
    /// The target's times before anything was done in it.
    times: Timestamps,
    is_done: bool,
    /// Whether it holds the only copy of something.
    is_kept: bool,
}

fn io(doing: &str, path: &Path, error: impl Into<std::io::Error>) -> Error {
    Error::from(store::Error::io(doing, path, error))
}

impl Stage {
    /// A new stage in `target`, which is made where it is missing. What a
    /// killed restore left there is removed, unless it holds replaced files.
    pub(super) fn create(target_path: &Path) -> Result<Self> {
        let made = first_missing(target_path);
        std::fs::create_dir_all(target_path).map_err(|error| io("create", target_path, error))?;
        let result = Self::create_in(target_path, made.clone());
        if result.is_err() {
            remove_made(made.as_deref(), target_path);
        }
        result
    }

    fn create_in(target_path: &Path, made: Option<PathBuf>) -> Result<Self> {
        let target = File::open(target_path).map_err(|error| io("open", target_path, error))?;
        let _lock = scratch::lock_dir(target_path)?;
        let times = times_of(&target).map_err(|error| io("look at", target_path, error))?;
        remove_abandoned(target_path)?;
        let Scratch { path, new, pointer } = Scratch::create(target_path, STAGING)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let new = rustix::fs::open(&new, flags, Mode::empty()).map_err(|error| {
            scratch::remove(&path);
            io("write in", &path, error)
        })?;
        Ok(Self {
            target,
            target_path: target_path.to_owned(),
            path,
            new,
            pointer,
            made,
            times,
            is_done: false,
            is_kept: false,
        })
    }

    /// From here on the stage may hold what it replaced, and is never removed unseen.
    pub(super) fn begin_replacing(&mut self) -> Result<()> {
        let path = self.path.clone();
        let failed = |error: std::io::Error| io("write in", &path, error);
        self.pointer.set_len(0).map_err(failed)?;
        self.pointer.rewind().map_err(failed)?;
        self.pointer.write_all(REPLACING).map_err(failed)?;
        self.pointer.sync_all().map_err(failed)
    }

    /// It holds the only copy of something, and stays.
    pub(super) fn keep(&mut self) {
        self.is_kept = true;
    }

    /// Makes everything below the target durable.
    pub(super) fn sync(&self) -> Result<()> {
        rustix::fs::syncfs(&self.target).map_err(|error| io("sync", &self.target_path, error))
    }

    /// The restore stands; only what is left of the stage goes.
    pub(super) fn finish(mut self) -> Result<()> {
        self.is_done = true;
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        scratch::remove(&self.path);
        if !self.is_done {
            // The stage came and went; nothing else should show.
            rustix::fs::futimens(&self.target, &self.times).unwrap_or(());
            remove_made(self.made.as_deref(), &self.target_path);
        }
    }
}

fn times_of(dir: &File) -> rustix::io::Result<Timestamps> {
    let stat = rustix::fs::fstat(dir)?;
    let time = |seconds, nanos| Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanos).unwrap_or(0) };
    Ok(Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    })
}

/// The outermost ancestor of `path` that is missing, or `path` itself.
fn first_missing(path: &Path) -> Option<PathBuf> {
    let missing = path.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists());
    missing.last().map(Path::to_owned)
}

/// Removes the directories that were made for a target, if they are empty still.
fn remove_made(made: Option<&Path>, target: &Path) {
    let Some(made) = made else { return };
    for dir in target.ancestors().take_while(|dir| dir.starts_with(made)) {
        std::fs::remove_dir(dir).unwrap_or(());
    }
}

fn remove_abandoned(target_path: &Path) -> Result<()> {
    for (path, text) in scratch::abandoned(target_path)? {
        if text == REPLACING {
            return Err(Error::new(
                ErrorKind::Failed,
                format!("an interrupted restore left {}, with files that it was replacing", path.display()),
            )
            .state("nothing was written; the replaced files are in its folder \"new\"")
            .next("move what you need out of it, remove it, and restore again"));
        }
        // Others say where the journal of a restore in place is; they are no business of ours.
        if text.is_empty() || text == STAGING || text == COPYING {
            scratch::remove(&path);
        }
    }
    Ok(())
}
