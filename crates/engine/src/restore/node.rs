//! Making one entry by the handle of its directory, and setting what it is:
//! content, owner, attributes, mode, times, in the order that keeps each.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use lifeboat_format::model::{Entry, EntryKind};
use lifeboat_format::monitor::{Monitor, Problem, ProblemClass};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::{Errno, Result};

/// Files are written in blocks of this size, so that a hole can take the place of zeros.
const HOLE_BYTES: usize = 4096;

/// What could not be set for lack of privilege, counted.
#[derive(Debug, Default)]
pub(super) struct NotSet {
    pub(super) owners: AtomicU64,
    pub(super) attributes: AtomicU64,
}

/// Who is told of attributes that are lost.
#[derive(Clone, Copy)]
pub(super) struct Losses<'a> {
    pub(super) monitor: &'a dyn Monitor,
    pub(super) not_set: &'a NotSet,
}

/// A new file, open for writing, which nobody else may read yet.
pub(super) fn create_file(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)
}

/// Writes all of `bytes` at `offset`; with `sparse`, blocks of zeros are left out.
pub(super) fn write_at(file: BorrowedFd<'_>, bytes: &[u8], offset: u64, sparse: bool) -> Result<()> {
    if !sparse {
        return write_all_at(file, bytes, offset);
    }
    let mut at = 0;
    while at < bytes.len() {
        // Blocks of the file, not of this piece.
        let into_block = usize::try_from((offset + at as u64) % HOLE_BYTES as u64).expect("below a block");
        let end = bytes.len().min(at + HOLE_BYTES - into_block);
        if bytes[at..end].iter().any(|byte| *byte != 0) {
            write_all_at(file, &bytes[at..end], offset + at as u64)?;
        }
        at = end;
    }
    Ok(())
}

fn write_all_at(file: BorrowedFd<'_>, mut bytes: &[u8], mut offset: u64) -> Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Gives a written file or a directory everything but its content.
pub(super) fn finish(file: BorrowedFd<'_>, entry: &Entry, losses: Losses<'_>) -> Result<()> {
    if entry.sparse {
        rustix::fs::ftruncate(file, entry.size)?;
    }
    let mut mode = entry.mode;
    let owner = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
    match rustix::fs::fchown(file, owner.0, owner.1) {
        Ok(()) => {}
        Err(Errno::PERM | Errno::INVAL | Errno::OPNOTSUPP) => {
            losses.not_set.owners.fetch_add(1, Ordering::Relaxed);
            // Its program must not run as somebody that nobody meant.
            mode &= !0o6000;
        }
        Err(error) => return Err(error),
    }
    set_xattrs(entry, losses, |name, value| rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()));
    // After the owner, because a change of owner takes set-uid away.
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
    rustix::fs::futimens(file, &times(entry))
}

fn times(entry: &Entry) -> Timestamps {
    let mtime = Timespec { tv_sec: entry.mtime.seconds, tv_nsec: i64::from(entry.mtime.nanos) };
    Timestamps { last_access: mtime, last_modification: mtime }
}

/// Makes a symlink, pipe or device with everything it is.
pub(super) fn create_special(dir: BorrowedFd<'_>, name: &[u8], entry: &Entry, losses: Losses<'_>) -> Result<()> {
    let mode = Mode::from_raw_mode(entry.mode & 0o777);
    let device = entry.rdev.map_or(0, |(major, minor)| rustix::fs::makedev(major, minor));
    let node = |file_type| rustix::fs::mknodat(dir, name, file_type, mode, device);
    match entry.kind {
        EntryKind::Symlink => rustix::fs::symlinkat(entry.target.as_slice(), dir, name)?,
        EntryKind::Fifo => node(rustix::fs::FileType::Fifo)?,
        EntryKind::Char => node(rustix::fs::FileType::CharacterDevice)?,
        EntryKind::Block => node(rustix::fs::FileType::BlockDevice)?,
        EntryKind::File | EntryKind::Dir | EntryKind::Hardlink => return Err(Errno::INVAL),
    }
    let owner = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
    match rustix::fs::chownat(dir, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(()) => {}
        Err(Errno::PERM | Errno::INVAL | Errno::OPNOTSUPP) => {
            losses.not_set.owners.fetch_add(1, Ordering::Relaxed);
        }
        Err(error) => return Err(error),
    }
    let path = [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name].concat();
    set_xattrs(entry, losses, |name, value| rustix::fs::lsetxattr(path.as_slice(), name, value, XattrFlags::empty()));
    if entry.kind != EntryKind::Symlink {
        // Whatever the umask took away; the stage is ours alone, so nothing can have taken the name's place.
        rustix::fs::chmodat(dir, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
    }
    rustix::fs::utimensat(dir, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)
}

/// Sets every attribute that can be set; the others are counted or told.
fn set_xattrs(entry: &Entry, losses: Losses<'_>, set: impl Fn(&[u8], &[u8]) -> Result<()>) {
    let mut lacks_privilege = false;
    for (name, value) in entry.xattrs.iter() {
        match set(name, value) {
            Ok(()) => {}
            Err(Errno::PERM | Errno::ACCESS) => lacks_privilege = true,
            // An ordinary user cannot even see these names.
            Err(Errno::OPNOTSUPP) if name.starts_with(b"trusted.") && !rustix::process::geteuid().is_root() => {
                lacks_privilege = true;
            }
            Err(error) => {
                let name = lifeboat_format::path::shown(name);
                let message = format!("its extended attribute {name} could not be set: {error}");
                losses.monitor.problem(Problem::new(ProblemClass::MetadataLost, entry.path.as_bytes(), message));
            }
        }
    }
    losses.not_set.attributes.fetch_add(u64::from(lacks_privilege), Ordering::Relaxed);
}

/// Opens the directory `name` in `dir`, making it where it is missing. True when it was made.
pub(super) fn open_or_create_dir(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(OwnedFd, bool)> {
    let made = match rustix::fs::mkdirat(dir, name, Mode::RWXU) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(error),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok((rustix::fs::openat(dir.as_fd(), name, flags, Mode::empty())?, made))
}
