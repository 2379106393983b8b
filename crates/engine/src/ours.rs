//! What Lifeboat leaves in users' folders while it works, by name: later runs
//! must know it from what is the user's.

use std::os::fd::BorrowedFd;

use rustix::fs::OFlags;

use crate::beneath;

/// How the name of a stage begins; 32 hex digits follow.
pub(crate) const STAGE_PREFIX: &str = ".lifeboat-";
/// The file in a stage that says what it is, locked while a run uses it.
pub(crate) const STAGE_POINTER: &str = "lifeboat-stage";

/// Whether `name` in the directory `dir` is a stage of ours: by its name, and by the pointer in it.
pub(crate) fn is_stage(dir: BorrowedFd<'_>, name: &[u8]) -> bool {
    let hex = name.strip_prefix(STAGE_PREFIX.as_bytes());
    let pointer = [name, b"/", STAGE_POINTER.as_bytes()].concat();
    hex.is_some_and(|hex| hex.len() == 32 && hex.iter().all(u8::is_ascii_hexdigit))
        && beneath::open(dir, &pointer, OFlags::PATH).is_ok()
}
