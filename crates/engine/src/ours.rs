//! What Lifeboat leaves in users' folders while it works, by name: later runs
//! must know it from what is the user's.

use std::os::fd::BorrowedFd;

use rustix::fs::OFlags;

use crate::beneath;

/// How the name of a stage begins; 32 hex digits follow.
pub(crate) const STAGE_PREFIX: &str = ".lifeboat-";
/// The file in a stage that says what it is, locked while a run uses it.
pub(crate) const STAGE_POINTER: &str = "lifeboat-stage";

/// Whether `name` in the directory `dir` is a stage of ours: by its name, and
/// by the pointer in it, or because it is an empty folder, as a kill leaves it
/// before the pointer is made and after it is removed.
pub(crate) fn is_stage(dir: BorrowedFd<'_>, name: &[u8]) -> bool {
    let hex = name.strip_prefix(STAGE_PREFIX.as_bytes());
    if !hex.is_some_and(|hex| hex.len() == 32 && hex.iter().all(u8::is_ascii_hexdigit)) {
        return false;
    }
    let pointer = [name, b"/", STAGE_POINTER.as_bytes()].concat();
    beneath::open(dir, &pointer, OFlags::PATH).is_ok() || is_empty_dir(dir, name)
}

fn is_empty_dir(dir: BorrowedFd<'_>, name: &[u8]) -> bool {
    let opened = beneath::open(dir, name, OFlags::RDONLY | OFlags::DIRECTORY);
    let names = opened.and_then(|fd| rustix::fs::Dir::read_from(&fd));
    // "." and ".." are all that is in it.
    names.is_ok_and(|names| names.count() == 2)
}
