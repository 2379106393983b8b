//! Opening and moving below a directory handle and never through a symbolic link, so
//! that nobody who changes the tree meanwhile can lead us elsewhere.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::{Errno, Result};

/// What one system call takes, less its final NUL.
const PATH_MAX_BYTES: usize = 4095;

/// Opens `path` (components joined by `/`; empty: `root` itself) below `root`.
pub(crate) fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let (mut at, mut rest): (Option<OwnedFd>, &[u8]) = (None, path);
    while rest.len() > PATH_MAX_BYTES {
        let cut = rest[..PATH_MAX_BYTES].iter().rposition(|byte| *byte == b'/').ok_or(Errno::NAMETOOLONG)?;
        let dir = at.as_ref().map_or(root, AsFd::as_fd);
        at = Some(resolve(dir, &rest[..cut], OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC)?);
        rest = &rest[cut + 1..];
    }
    let dir = at.as_ref().map_or(root, AsFd::as_fd);
    resolve(dir, if rest.is_empty() { b"." } else { rest }, flags)
}

fn resolve(dir: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(dir, path, flags, Mode::empty(), how) {
        // Before Linux 5.6, or behind a filter that does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => component_wise(dir, path, flags),
        // The kernel could not rule out a race and asks to try again.
        Err(Errno::AGAIN) => component_wise(dir, path, flags),
        result => result,
    }
}

/// The same by one call for each component.
fn component_wise(dir: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    let (parents, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&path[..0], path),
    };
    let mut at: Option<OwnedFd> = None;
    for component in parents.split(|byte| *byte == b'/').filter(|component| !component.is_empty()) {
        let from = at.as_ref().map_or(dir, AsFd::as_fd);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        at = Some(rustix::fs::openat(from, component, flags, Mode::empty())?);
    }
    rustix::fs::openat(at.as_ref().map_or(dir, AsFd::as_fd), name, flags | OFlags::NOFOLLOW, Mode::empty())
}

/// Moves `name` in one open directory to `new_name` in another, where nothing has that name.
pub(crate) fn move_new(from: &OwnedFd, name: &[u8], to: &OwnedFd, new_name: &[u8]) -> Result<()> {
    match rustix::fs::renameat_with(from, name, to, new_name, RenameFlags::NOREPLACE) {
        // A file system without exclusive renames.
        Err(Errno::INVAL | Errno::NOSYS) => match rustix::fs::statat(to, new_name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => rustix::fs::renameat(from, name, to, new_name),
            Ok(_) => Err(Errno::EXIST),
            Err(error) => Err(error),
        },
        moved => moved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_symlink_on_the_way_is_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        symlink("a", dir.path().join("link")).unwrap();
        symlink("/", dir.path().join("a/root")).unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        for by in [resolve, component_wise] {
            let open = |path: &[u8]| by(root.as_fd(), path, OFlags::RDONLY | OFlags::NOFOLLOW);
            assert!(open(b"a/b").is_ok());
            for path in [&b"link/b"[..], b"link", b"a/root", b"a/root/etc"] {
                assert!(open(path).is_err(), "{path:?}");
            }
        }
    }

    #[test]
    fn a_path_longer_than_a_system_call_takes_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let name = "d".repeat(200);
        let mut at: OwnedFd = std::fs::File::open(dir.path()).unwrap().into();
        let mut path = Vec::new();
        for depth in 0..50 {
            rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, &name, OFlags::DIRECTORY, Mode::empty()).unwrap();
            path.extend_from_slice(if depth > 0 { b"/" } else { b"" });
            path.extend_from_slice(name.as_bytes());
        }
        let root = std::fs::File::open(dir.path()).unwrap();
        assert!(path.len() > 10_000);
        assert!(open(root.as_fd(), &path, OFlags::RDONLY).is_ok());
        assert!(open(root.as_fd(), b"", OFlags::RDONLY).is_ok());
    }
}
