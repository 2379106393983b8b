//! What Lifeboat leaves in users' folders while it works, by name: later runs
//! must know it from what is the user's.

use std::os::fd::BorrowedFd;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::beneath;

/// How the name of a stage begins; 32 hex digits follow.
pub(crate) const STAGE_PREFIX: &str = ".lifeboat-";
/// What stands between the name of a replaced database and the time.
pub(crate) const REPLACED: &[u8] = b".bad-";
/// The file in a stage that says what it is, locked while a run uses it.
pub(crate) const STAGE_POINTER: &str = "lifeboat-stage";

/// Whether a file of this name may be an archive of ours; its content decides.
pub(crate) fn has_archive_name(name: &[u8]) -> bool {
    let suffixes: [&[u8]; 7] = [b".zst", b".gz", b".tgz", b".tzst", b".age", b".enc", b".tomo-backup"];
    suffixes.iter().any(|suffix| name.ends_with(suffix))
}

/// How what a restore replaced of a database is called: `<name>.bad-<10 digits>`,
/// with its logs. No other name is taken for one.
pub(crate) fn is_replaced(name: &[u8]) -> bool {
    let base = crate::sqlite::LOGS.iter().find_map(|end| name.strip_suffix(end.as_bytes())).unwrap_or(name);
    let Some((start, digits)) = base.len().checked_sub(10).map(|at| base.split_at(at)) else { return false };
    digits.iter().all(u8::is_ascii_digit) && start.strip_suffix(REPLACED).is_some_and(|name| !name.is_empty())
}

/// The name of what a restore replaced of the database `name`, at `epoch` seconds since 1970.
pub(crate) fn replaced_name(name: &[u8], epoch: i64) -> Vec<u8> {
    [name, REPLACED, format!("{epoch:010}").as_bytes()].concat()
}

/// The stage of the restore `id` beside what is called `name`; inside a
/// directory that is restored, where `name` is empty.
pub(crate) fn stage_name(name: &[u8], id: &str) -> Vec<u8> {
    let beside = if name.is_empty() { Vec::new() } else { [b".", name].concat() };
    [&beside, STAGE_PREFIX.as_bytes(), id.as_bytes()].concat()
}

/// The id in the name of a stage.
pub(crate) fn stage_id(name: &[u8]) -> Option<&str> {
    let prefix = STAGE_PREFIX.as_bytes();
    let at = name.windows(prefix.len()).rposition(|part| part == prefix)?;
    let is_beside = at == 0 || name.starts_with(b".") && at > 1;
    let id = &name[at + prefix.len()..];
    let is_id = id.len() == 32 && id.iter().all(u8::is_ascii_hexdigit);
    if is_beside && is_id { std::str::from_utf8(id).ok() } else { None }
}

/// Whether `name` in the directory `dir` is a stage of ours: by its name, and
/// by the pointer in it, or because it is an empty folder, as a kill leaves it
/// before the pointer is made and after it is removed.
pub(crate) fn is_stage(dir: BorrowedFd<'_>, name: &[u8]) -> bool {
    if stage_id(name).is_none() {
        return false;
    }
    let pointer = [name, b"/", STAGE_POINTER.as_bytes()].concat();
    beneath::open(dir, &pointer, OFlags::PATH).is_ok() || is_empty_dir(dir, name) || is_gone(dir, name)
}

/// They come and go while a directory is read.
fn is_gone(dir: BorrowedFd<'_>, name: &[u8]) -> bool {
    matches!(beneath::open(dir, name, OFlags::PATH), Err(Errno::NOENT))
}

fn is_empty_dir(dir: BorrowedFd<'_>, name: &[u8]) -> bool {
    let opened = beneath::open(dir, name, OFlags::RDONLY | OFlags::DIRECTORY);
    let names = opened.and_then(|fd| rustix::fs::Dir::read_from(&fd));
    // "." and ".." are all that is in it.
    names.is_ok_and(|names| names.count() == 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_known_by_its_whole_name() {
        let id = "0123456789abcdef0123456789abcdef";
        assert_eq!(stage_id(&stage_name(b"", id)), Some(id));
        assert_eq!(stage_id(&stage_name(b"app", id)), Some(id));
        assert_eq!(stage_id(&stage_name(b".app.lifeboat-x", id)), Some(id));
        for other in ["app.lifeboat-0123456789abcdef0123456789abcdef", ".lifeboat-0123", ".app.lifeboat-", "x"] {
            assert_eq!(stage_id(other.as_bytes()), None, "{other}");
        }
        let epoch = replaced_name(b"x.db", 1_771_902_000);
        assert!(is_replaced(&epoch) && is_replaced(b"x.db.bad-1771902000-wal"));
        for other in ["x.db.bad-177190200", "x.db.bad-17719020000", ".bad-1771902000", "x.db.bad-1771902000-old"] {
            assert!(!is_replaced(other.as_bytes()), "{other}");
        }
        assert!(has_archive_name(b"a.tar.zst") && !has_archive_name(b"a.tar"));
    }
}
