//! Which databases this process has pinned, by device and inode.
//!
//! SQLite locks with `fcntl`, and such locks belong to the process: when it
//! closes any handle of a file, the kernel drops all its locks on that file,
//! also those of another thread's connection. So whoever opens by hand what may
//! be a database wraps the handle in [`Guarded`], which is closed only when
//! nobody has that file pinned. This is the one state of the whole process in
//! this crate, because what it guards is.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::processes::Identity;

type Key = (u64, u64);

static PINS: Mutex<BTreeMap<Key, Pins>> = Mutex::new(BTreeMap::new());

/// The pins of one file, and the handles that wait for the last one to go.
struct Pins {
    count: usize,
    parked: Vec<File>,
}

fn pins() -> MutexGuard<'static, BTreeMap<Key, Pins>> {
    // What is in it is right after each single change.
    PINS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says that a file is pinned as long as this lives. Made before SQLite opens
/// the file, dropped after SQLite has closed it.
pub(super) struct Registered(Key);

impl Registered {
    pub(super) fn new(identity: Identity) -> Self {
        let key = (identity.dev, identity.ino);
        pins().entry(key).or_insert(Pins { count: 0, parked: Vec::new() }).count += 1;
        Self(key)
    }

    /// Does `act` if this is the only pin of the file; none can come meanwhile.
    pub(super) fn if_alone(&self, act: impl FnOnce()) {
        let pins = pins();
        if pins.get(&self.0).is_some_and(|pins| pins.count == 1) {
            act();
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut pins = pins();
        if let Some(of_file) = pins.get_mut(&self.0) {
            of_file.count -= 1;
            if of_file.count == 0 {
                // This closes what was parked, still under the lock.
                pins.remove(&self.0);
            }
        }
    }
}

/// A handle of what may be a database, opened by hand.
pub(crate) struct Guarded {
    file: Option<File>,
    /// Of what may be a database.
    key: Option<Key>,
}

impl Guarded {
    /// Guards `file`, which has this device and inode.
    pub(crate) fn new(file: File, (dev, ino): (u64, u64)) -> Self {
        Self { file: Some(file), key: Some((dev, ino)) }
    }

    /// A handle of what is no database, to be treated as one that may be.
    pub(crate) fn no_database(file: File) -> Self {
        Self { file: Some(file), key: None }
    }
}

impl Deref for Guarded {
    type Target = File;

    fn deref(&self) -> &File {
        self.file.as_ref().expect("taken by drop only")
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let file = self.file.take();
        let Some(key) = self.key else { return };
        let mut pins = pins();
        match pins.get_mut(&key) {
            Some(of_file) => of_file.parked.extend(file),
            // Under the lock, so that no pin is made between the look and the closing.
            None => drop(file),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processes::identity;
    use rustix::fs::CWD;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::ffi::OsStrExt as _;

    #[test]
    fn a_handle_is_closed_when_the_last_pin_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let is_open = |fd| std::path::Path::new(&format!("/proc/self/fd/{fd}")).read_link().is_ok_and(|to| to == path);
        let open = || File::options().create(true).truncate(false).write(true).open(&path).unwrap();
        let fd = open();
        let (known, _) = identity(CWD, path.as_os_str().as_bytes()).unwrap();
        let guard = |file| Guarded::new(file, (known.dev, known.ino));
        let (first, second) = (Registered::new(known), Registered::new(known));
        let number = fd.as_raw_fd();
        drop(guard(fd));
        assert!(is_open(number));
        first.if_alone(|| panic!("there are two"));
        drop(first);
        assert!(is_open(number));
        let mut is_alone = false;
        second.if_alone(|| is_alone = true);
        drop(second);
        assert!(is_alone && !is_open(number));
        let fd = open();
        let number = fd.as_raw_fd();
        drop(guard(fd));
        assert!(!is_open(number));
    }
}
