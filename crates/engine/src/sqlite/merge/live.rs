//! A copy of a live database that a restore may change. While its application
//! runs, it is pinned and copied; when nobody uses it, it is copied as files with
//! its logs, and is not opened at all: a rollback gives back the same bytes.

use std::fs::File;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use lifeboat_store::{self as store, Cancel};

use super::super::{Guarded, Pinned, Reason, beside};
use super::unsound;
use crate::{Error, ErrorKind, Result};

/// How long a database that others lock is waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// What of a database has state in it; `-shm` is made from these.
const PARTS: [&str; 3] = ["", "-wal", "-journal"];

/// Copies the database at `path` to `to`, which does not exist.
pub(crate) fn copy_live(path: &Path, to: &Path, is_used: bool, cancel: &Cancel) -> Result<()> {
    if is_used { copy_pinned(path, to, cancel) } else { copy_files(path, to, cancel) }
}

fn copy_pinned(path: &Path, to: &Path, cancel: &Cancel) -> Result<()> {
    let pinned = Pinned::pin(path, BUSY_TIMEOUT, cancel).map_err(|not| match not.reason {
        Reason::NoDatabase => unsound(not.error.what()),
        Reason::Locked => Error::new(ErrorKind::InUse, not.error.what())
            .next("wait until it is free; --mode overwrite puts the snapshot's in its place"),
        _ => not.error,
    })?;
    create(to)?;
    pinned.copy_to(to, cancel)
}

fn copy_files(path: &Path, to: &Path, cancel: &Cancel) -> Result<()> {
    let stamps = || PARTS.map(|end| stamp(&beside(path, end)));
    let before = stamps();
    for end in PARTS {
        cancel.check()?;
        let (from, to) = (beside(path, end), beside(to, end));
        let flags = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
        let opened = match File::options().read(true).custom_flags(flags).open(&from) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !end.is_empty() => continue,
            opened => opened.map_err(|error| store::Error::io("open", &from, error))?,
        };
        let metadata = opened.metadata().map_err(|error| store::Error::io("look at", &from, error))?;
        let source = Guarded::new(opened, (metadata.dev(), metadata.ino()));
        let mut copy = create(&to)?;
        std::io::copy(&mut &*source, &mut copy).map_err(|error| store::Error::io("copy", &from, error))?;
    }
    if stamps() == before {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InUse, format!("{} changed while it was read", path.display()))
        .next("stop what uses it, or name what stops it under `services` in lifeboat.yaml"))
}

fn create(path: &Path) -> Result<File> {
    let made = File::options().write(true).create_new(true).mode(0o600).open(path);
    Ok(made.map_err(|error| store::Error::io("create", path, error))?)
}

fn stamp(path: &Path) -> Option<(u64, u64, i64, i64, i64, i64)> {
    let found = path.symlink_metadata().ok()?;
    Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()))
}
