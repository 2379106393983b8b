//! One entry of an archive, unpacked and compared, for what takes it as a file.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use lifeboat_format::archive::Archive;
use lifeboat_format::path::EntryPath;
use rustix::fs::{Mode, OFlags};

use super::fill::{Fill, Layout};
use crate::report::Watch;
use crate::scratch::{self, Scratch};
use crate::{Error, ErrorKind, Result};

/// The name of the entry in the scratch folder.
const NAME: &str = "entry";

/// Only one entry, to where it is needed.
struct One<'a>(&'a [u8]);

impl Layout for One<'_> {
    fn spot(&self, path: &EntryPath) -> Option<(usize, Vec<u8>)> {
        (path.as_bytes() == self.0).then(|| (0, NAME.as_bytes().to_vec()))
    }
}

/// Calls `use_it` with the entry `path` of `archive`, when all of the archive was
/// compared; the file is gone afterwards.
///
/// # Errors
/// When the archive is not whole or has no such file; and what `use_it` says.
pub(super) fn with_entry<T>(
    archive: &Archive,
    path: &str,
    data_dir: &Path,
    threads: Option<usize>,
    watch: Watch<'_>,
    use_it: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    crate::lock::make_private_dir(data_dir)?;
    let scratch = {
        let _lock = scratch::lock_dir(data_dir)?;
        for (path, text) in scratch::abandoned(data_dir)? {
            if text == scratch::COPYING {
                scratch::remove(&path);
            }
        }
        Scratch::create(data_dir, scratch::COPYING)?
    };
    let done = unpack(archive, path, &scratch.new, threads, watch).and_then(|entry| use_it(&entry));
    scratch::remove(&scratch.path);
    done
}

/// Unpacks the entry `path` of `archive` into the private folder `dir`, and compares all of the archive.
pub(super) fn unpack(
    archive: &Archive,
    path: &str,
    dir: &Path,
    threads: Option<usize>,
    watch: Watch<'_>,
) -> Result<PathBuf> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder =
        rustix::fs::open(dir, flags, Mode::empty()).map_err(|error| lifeboat_store::Error::io("open", dir, error))?;
    let fill = Fill { folders: &[folder.as_fd()], layout: &One(path.as_bytes()), devices: false, threads };
    fill.run(archive, watch)?;
    let entry = dir.join(NAME);
    if entry.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Ok(entry);
    }
    let path = lifeboat_format::path::shown(path.as_bytes());
    Err(Error::new(ErrorKind::Corrupt, format!("{path} is no file in the archive")))
}

/// Opens such a file.
pub(super) fn open(path: &Path) -> Result<File> {
    Ok(File::open(path).map_err(|error| lifeboat_store::Error::io("read", path, error))?)
}
