//! Where archives go: local directories, each known again by a marker, so that
//! a file system that is not mounted is never taken for an empty destination.

pub(crate) mod listing;
pub(crate) mod sidecar;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use lifeboat_format::archive::Archive;
use lifeboat_format::model::Sha256;
use lifeboat_store as store;
use lifeboat_store::durable::{self, Unnamed};

use crate::config::{Config, Destination};
use crate::mounts::Mounts;
use crate::{Cancel, Error, ErrorKind, Result, lock, ours};
use sidecar::Sidecar;

/// The file in a destination that says what the directory is.
pub(crate) const MARKER: &str = ".lifeboat-destination";
const MARKER_TEXT: &str = "Lifeboat keeps backups in this directory. Without this file it takes the directory for one \
whose file system is not mounted.\n";
const MARKER_MODE: u32 = 0o644;

/// Makes sure that archives may be written to `destination`: at the first
/// backup it is created and marked, later it must be marked.
///
/// # Errors
/// [`ErrorKind::Unreachable`] when it is not what it was, or its file system is not mounted.
pub(crate) fn prepare(destination: &Destination, data_dir: &Path) -> Result<()> {
    check(destination, data_dir)?;
    let dir = &destination.dir;
    std::fs::create_dir_all(dir)
        .map_err(|error| unusable(destination, store::Error::io("create", dir, error).into()))?;
    if !is_marked(dir) {
        let mut marker = Unnamed::create(dir).map_err(|error| unusable(destination, error.into()))?;
        marker.append(MARKER_TEXT.as_bytes()).map_err(|error| unusable(destination, error.into()))?;
        match marker.publish([MARKER], MARKER_MODE) {
            Err(error) if error.kind() != store::ErrorKind::Exists => return Err(unusable(destination, error.into())),
            // Another run was faster.
            _ => {}
        }
    }
    remember(data_dir, dir);
    Ok(())
}

/// As [`prepare`], and changes nothing.
///
/// # Errors
/// As [`prepare`].
pub(crate) fn check(destination: &Destination, data_dir: &Path) -> Result<()> {
    let dir = &destination.dir;
    let refused = |what: String, next: &str| {
        Err(Error::new(ErrorKind::Unreachable, format!("destination {}: {what}", destination.name))
            .state("nothing was written there")
            .next(next))
    };
    if destination.require_mount && !is_mounted(dir)? {
        return refused(format!("no file system is mounted at or above {}", dir.display()), "mount it, then try again");
    }
    if memory(data_dir, dir).exists() && !is_marked(dir) {
        let what = format!("{} was a destination, and its marker {MARKER} is not there now", dir.display());
        return refused(what, "mount its file system; if it is to start anew, make an empty file of that name in it");
    }
    Ok(())
}

fn unusable(destination: &Destination, error: Error) -> Error {
    // No space and no permission have answers of their own.
    let kind = if error.kind() == ErrorKind::Failed { ErrorKind::Unreachable } else { error.kind() };
    Error::new(kind, format!("destination {}: {}", destination.name, error.what())).state("nothing was written there")
}

/// Whether `dir` says that it is a destination.
pub(crate) fn is_marked(dir: &Path) -> bool {
    dir.join(MARKER).symlink_metadata().is_ok()
}

fn is_mounted(dir: &Path) -> Result<bool> {
    let mounts = Mounts::own()?;
    let existing = dir.ancestors().find_map(|dir| dir.canonicalize().ok()).unwrap_or_else(|| dir.to_owned());
    Ok(existing.ancestors().any(|dir| dir != Path::new("/") && mounts.is_mount_point(dir)))
}

/// What remembers that `dir` was marked.
fn memory(data_dir: &Path, dir: &Path) -> PathBuf {
    let name = Sha256::of(dir.as_os_str().as_encoded_bytes()).to_string();
    data_dir.join("destinations").join(&name[..16])
}

fn remember(data_dir: &Path, dir: &Path) {
    let path = memory(data_dir, dir);
    let folder = path.parent().unwrap_or(data_dir);
    let write = || -> Result<()> {
        lock::make_private_dir(folder)?;
        let mut file = Unnamed::create(folder)?;
        file.append(dir.as_os_str().as_encoded_bytes())?;
        file.publish([path.file_name().unwrap_or_default()], 0o600)?;
        Ok(())
    };
    if !path.exists() {
        // Who cannot write there backs up all the same; the next run remembers.
        write().unwrap_or(());
    }
}

/// Copies the snapshot at `path` into the directory of `destination`, under the first of
/// `names` that is free there; `mode` is less the umask.
///
/// # Errors
/// On cancel, or when it cannot be written; then nothing of it is there.
pub(crate) fn copy(
    path: &Path,
    destination: &Destination,
    names: &[OsString],
    mode: u32,
    cancel: &Cancel,
) -> Result<PathBuf> {
    use std::io::Read as _;
    let failed = |error| unusable(destination, error);
    let mut from = std::fs::File::open(path).map_err(|error| store::Error::io("open", path, error))?;
    let mut to = Unnamed::create(&destination.dir).map_err(|error| failed(error.into()))?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        cancel.check()?;
        match from.read(&mut buffer).map_err(|error| store::Error::io("read", path, error))? {
            0 => break,
            read => to.append(&buffer[..read]).map_err(|error| failed(error.into()))?,
        }
    }
    to.publish(names, mode).map_err(|error| failed(error.into()))
}

/// The directories in which snapshots lie, with the names of those that are
/// destinations: of `app`, or of all apps. An app that has no place of its own
/// keeps them in `working_dir`.
pub(crate) fn places(config: &Config, app: Option<&str>, working_dir: &Path) -> Vec<(Option<String>, PathBuf)> {
    let apps = config.apps.values().filter(|known| app.is_none_or(|app| known.name == app));
    let mut places: Vec<(Option<String>, PathBuf)> = Vec::new();
    for app in apps {
        let of_app = app.destinations.iter().filter_map(|name| config.destinations.get(name));
        let mut of_app: Vec<_> =
            of_app.map(|destination| (Some(destination.name.clone()), destination.dir.clone())).collect();
        match &app.backup_dir {
            Some(dir) if dir.is_absolute() => of_app.push((None, dir.clone())),
            _ if of_app.is_empty() => of_app.push((None, working_dir.to_owned())),
            _ => {}
        }
        for place in of_app {
            if !places.iter().any(|(_, dir)| *dir == place.1) {
                places.push(place);
            }
        }
    }
    places
}

/// Whether the file at `path`, in a directory that archives go to, is an
/// archive or a bare database of ours, or stands beside one. Its content decides.
pub(crate) fn is_ours(path: &Path) -> bool {
    is_archive(path)
        || path.file_name().is_some_and(|name| name == MARKER)
        || listing::is_bare(path)
        || listing::is_bare_manifest(path)
}

/// Whether the file at `path` is an archive of ours, or stands beside one. Its
/// content decides; of an encrypted one, which tells nothing, its sidecar.
pub(crate) fn is_archive(path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    let Some(metadata) = path.symlink_metadata().ok().filter(std::fs::Metadata::is_file) else { return false };
    if !ours::has_archive_name(path.file_name().unwrap_or_default().as_bytes()) {
        return sidecar::is_one(path) || sidecar::is_hmac(path);
    }
    Archive::open(path).is_ok_and(|archive| archive.head().is_some())
        || Sidecar::read(path).is_some_and(|sidecar| sidecar.is_encrypted() && sidecar.size == metadata.len())
}

/// Free bytes where `dir` is, or will be.
pub(crate) fn free_space(dir: &Path) -> Option<u64> {
    let existing = dir.ancestors().find(|dir| dir.is_dir())?;
    durable::free_space(existing).ok()?.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(dir: &Path) -> Destination {
        Destination {
            name: "local".to_owned(),
            dir: dir.to_owned(),
            require_mount: false,
            wants_encrypted: false,
            is_enabled: true,
        }
    }

    /// Shows P1.
    #[test]
    fn a_destination_that_lost_its_marker_is_refused_until_it_is_back() {
        let dir = tempfile::tempdir().unwrap();
        let (data, place) = (dir.path().join("data"), dir.path().join("mnt/backups"));
        let destination = destination(&place);
        check(&destination, &data).unwrap();
        assert!(!place.exists());
        prepare(&destination, &data).unwrap();
        prepare(&destination, &data).unwrap();
        let elsewhere = dir.path().join("elsewhere");
        rustix::fs::rename(&place, &elsewhere).unwrap();
        let error = prepare(&destination, &data).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
        assert!(!place.exists(), "nothing is made where a file system should be mounted");
        std::fs::create_dir(&place).unwrap();
        assert!(prepare(&destination, &data).is_err());
        rustix::fs::rename(elsewhere.join(MARKER), place.join(MARKER)).unwrap();
        prepare(&destination, &data).unwrap();
    }
}
