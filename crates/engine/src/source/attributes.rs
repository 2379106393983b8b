//! Reading what a file is: its kind, owner, times and extended attributes.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Mutex;

use lifeboat_format::model::{Entry, EntryKind, FileTime, Xattrs};
use lifeboat_format::path::EntryPath;
use rustix::fs::{FileType, Stat};
use rustix::io::{Errno, Result};

/// The names of users and groups, looked up once each.
#[derive(Default)]
pub(crate) struct Names {
    users: Mutex<HashMap<u32, Vec<u8>>>,
    groups: Mutex<HashMap<u32, Vec<u8>>>,
}

fn look_up(known: &Mutex<HashMap<u32, Vec<u8>>>, id: u32, ask: impl FnOnce() -> Option<Vec<u8>>) -> Vec<u8> {
    let mut known = known.lock().expect("a look-up does not panic");
    known.entry(id).or_insert_with(|| ask().unwrap_or_default()).clone()
}

impl Names {
    fn user(&self, uid: u32) -> Vec<u8> {
        look_up(&self.users, uid, || Some(uzers::get_user_by_uid(uid)?.name().as_bytes().to_vec()))
    }

    fn group(&self, gid: u32) -> Vec<u8> {
        look_up(&self.groups, gid, || Some(uzers::get_group_by_gid(gid)?.name().as_bytes().to_vec()))
    }
}

/// What a file is, whatever its names are: device and inode.
pub(crate) fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// What kind of entry a file of this type is; `None` for a socket.
pub(crate) fn kind(stat: &Stat) -> Option<EntryKind> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Some(EntryKind::File),
        FileType::Directory => Some(EntryKind::Dir),
        FileType::Symlink => Some(EntryKind::Symlink),
        FileType::Fifo => Some(EntryKind::Fifo),
        FileType::CharacterDevice => Some(EntryKind::Char),
        FileType::BlockDevice => Some(EntryKind::Block),
        FileType::Socket | FileType::Unknown => None,
    }
}

/// Bytes of content of a file of this size field.
pub(crate) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

pub(crate) fn mtime(stat: &Stat) -> FileTime {
    FileTime { seconds: stat.st_mtime, nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) }
}

/// The entry of a file that `stat` describes.
pub(crate) fn entry(path: EntryPath, kind: EntryKind, stat: &Stat, xattrs: Xattrs, names: &Names) -> Entry {
    let is_device = matches!(kind, EntryKind::Char | EntryKind::Block);
    let is_file = kind == EntryKind::File;
    Entry {
        kind,
        size: if is_file { size(stat) } else { 0 },
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        user: names.user(stat.st_uid),
        group: names.group(stat.st_gid),
        mtime: mtime(stat),
        target: Vec::new(),
        rdev: is_device.then(|| (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))),
        xattrs,
        // 512 bytes are what st_blocks counts in, whatever the file system's blocks are.
        sparse: is_file && u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) < size(stat),
        path,
    }
}

/// The extended attributes of an open file; none where the file system has none.
pub(crate) fn xattrs(fd: BorrowedFd<'_>) -> Result<Xattrs> {
    read_xattrs(|buffer| rustix::fs::flistxattr(fd, buffer), |name, buffer| rustix::fs::fgetxattr(fd, name, buffer))
}

/// Those of what `name` in the open directory `dir` is itself, a symlink for example.
pub(crate) fn xattrs_of_link(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Xattrs> {
    use std::os::fd::AsRawFd as _;
    let path = [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name].concat();
    read_xattrs(
        |buffer| rustix::fs::llistxattr(path.as_slice(), buffer),
        |name, buffer| rustix::fs::lgetxattr(path.as_slice(), name, buffer),
    )
}

fn read_xattrs(
    list: impl Fn(&mut [u8]) -> Result<usize>,
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize>,
) -> Result<Xattrs> {
    let names = match whole(list) {
        Err(Errno::OPNOTSUPP) => return Ok(Xattrs::default()),
        names => names?,
    };
    let mut pairs = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match whole(|buffer| get(name, buffer)) {
            Ok(value) => pairs.push((name.to_vec(), value)),
            // Removed meanwhile, or one that only a privileged user may read.
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Xattrs::new(pairs))
}

/// All that `get` has to say. Most files have nothing, which costs one call and no memory.
fn whole(get: impl Fn(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    let mut small = [0; 256];
    let mut len = match get(&mut small) {
        Ok(len) => return Ok(small[..len].to_vec()),
        Err(Errno::RANGE) => 4 << 10,
        Err(error) => return Err(error),
    };
    loop {
        let mut large = vec![0; len];
        match get(&mut large) {
            Ok(len) => {
                large.truncate(len);
                return Ok(large);
            }
            // The kernel allows 64 KiB for a value and for a list; file systems of other kernels may allow more.
            Err(Errno::RANGE) if len < 1 << 20 => len *= 2,
            Err(error) => return Err(error),
        }
    }
}
