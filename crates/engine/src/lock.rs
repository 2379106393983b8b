//! One run at a time for each app: a restore keeps out every other run of its
//! app, backups only restores, by a lock on a file, which the system releases whatever
//! becomes of the run.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use lifeboat_format::model::Sha256;
use lifeboat_store as store;

use crate::{Error, ErrorKind, Result};

/// The lock of one app, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// What the lock of `app` is called. Without configuration the same name may
/// stand for different things, so its `roots` belong to it.
pub(crate) fn key(app: &str, roots: &[PathBuf]) -> String {
    let mut whole = app.as_bytes().to_vec();
    let mut roots: Vec<&PathBuf> = roots.iter().collect();
    roots.sort();
    for root in roots {
        whole.push(0);
        whole.extend_from_slice(root.as_os_str().as_encoded_bytes());
    }
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name: String = app.chars().take(64).map(plain).collect();
    format!("{name}-{}", &Sha256::of(&whole).to_string()[..8])
}

/// Takes the lock `key` below `data_dir`, for a run that nothing else may run beside.
///
/// # Errors
/// [`ErrorKind::Locked`] while another run has it.
pub(crate) fn take(data_dir: &Path, key: &str) -> Result<Lock> {
    lock(data_dir, key, File::try_lock)
}

/// As [`take`], for a run that others of its kind may run beside: a backup.
///
/// # Errors
/// As [`take`].
pub(crate) fn share(data_dir: &Path, key: &str) -> Result<Lock> {
    lock(data_dir, key, File::try_lock_shared)
}

/// As [`take`], but waits until it is free: for what is held for a moment only.
///
/// # Errors
/// What the system says.
pub(crate) fn wait(data_dir: &Path, key: &str) -> Result<Lock> {
    lock(data_dir, key, |file| file.lock().map_err(std::fs::TryLockError::Error))
}

fn lock(
    data_dir: &Path,
    key: &str,
    lock: impl Fn(&File) -> std::result::Result<(), std::fs::TryLockError>,
) -> Result<Lock> {
    let dir = data_dir.join("lock");
    make_private_dir(&dir)?;
    let path = dir.join(key);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&path).map_err(|error| Error::from(store::Error::io("open", &path, error)))?;
    match lock(&file) {
        Ok(()) => Ok(Lock { _file: file }),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::new(
            ErrorKind::Locked,
            format!("another run works on the same files ({} is locked)", path.display()),
        )
        .state("nothing was begun")
        .next("wait until it has ended, then run the same command again")),
        Err(std::fs::TryLockError::Error(error)) => Err(store::Error::io("lock", &path, error).into()),
    }
}

/// Whether a run has the lock `key` now. Makes nothing.
pub(crate) fn is_taken(data_dir: &Path, key: &str) -> bool {
    let file = File::open(data_dir.join("lock").join(key));
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock)))
}

/// Makes a directory of ours, and those above it, which nobody else may look into.
pub(crate) fn make_private_dir(dir: &Path) -> Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| {
        Error::from(store::Error::io("create", dir, error))
            .state("nothing was begun")
            .next("give yourself the right to write there, or choose another place with --data-dir")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_is_kept_out_until_the_first_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let key = key("web", &[]);
        let first = take(dir.path(), &key).unwrap();
        assert_eq!(take(dir.path(), &key).unwrap_err().kind(), ErrorKind::Locked);
        assert_eq!(share(dir.path(), &key).unwrap_err().kind(), ErrorKind::Locked);
        drop(first);
        let backups = [share(dir.path(), &key).unwrap(), share(dir.path(), &key).unwrap()];
        assert_eq!(take(dir.path(), &key).unwrap_err().kind(), ErrorKind::Locked);
        drop(backups);
        take(dir.path(), &key).unwrap();
    }

    #[test]
    fn a_key_is_a_file_name_and_differs_where_app_or_roots_do() {
        let roots = [PathBuf::from("/srv/web")];
        let keys = [key("web", &[]), key("web", &roots), key("a/../b", &[]), key("a/.._b", &[])];
        assert!(keys.iter().all(|key| !key.contains('/')), "{keys:?}");
        assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
    }
}
