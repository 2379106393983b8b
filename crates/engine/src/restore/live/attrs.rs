//! The attributes of a directory that stays: read before a swap, set after it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};

use lifeboat_format::model::{FileTime, Xattrs};
use rustix::fs::{Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::{Errno, Result};
use serde::{Deserialize, Serialize};

use super::name::Name;
use super::tree;
use crate::source::attributes;

/// Owner, mode, time and extended attributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attrs {
    uid: u32,
    gid: u32,
    mode: u32,
    mtime: (i64, u32),
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    xattrs: Vec<(Name, Name)>,
}

impl Attrs {
    /// Those of an open directory.
    pub(super) fn read(dir: &OwnedFd) -> Result<Self> {
        Ok(Self::of(&rustix::fs::fstat(dir)?, &attributes::xattrs(dir.as_fd())?))
    }

    fn of(stat: &Stat, xattrs: &Xattrs) -> Self {
        let mtime = tree::mtime(stat);
        Self {
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: stat.st_mode & 0o7777,
            mtime: (mtime.seconds, mtime.nanos),
            xattrs: xattrs.iter().map(|(name, value)| (Name(name.to_vec()), Name(value.to_vec()))).collect(),
        }
    }

    /// The same with another time.
    pub(super) fn at(self, mtime: (i64, u32)) -> Self {
        Self { mtime, ..self }
    }

    /// Makes them those of an open directory.
    pub(super) fn set(&self, dir: &OwnedFd) -> Result<()> {
        let now = Self::read(dir)?;
        if (now.uid, now.gid) != (self.uid, self.gid) {
            rustix::fs::fchown(dir, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?;
        }
        let wanted: BTreeMap<&Name, &Name> = self.xattrs.iter().map(|(name, value)| (name, value)).collect();
        for (name, _) in now.xattrs.iter().filter(|(name, _)| !wanted.contains_key(name)) {
            match rustix::fs::fremovexattr(dir, name.0.as_slice()) {
                Ok(()) | Err(Errno::NODATA) => {}
                Err(error) => return Err(error),
            }
        }
        for (name, value) in self.xattrs.iter().filter(|pair| !now.xattrs.contains(pair)) {
            rustix::fs::fsetxattr(dir, name.0.as_slice(), &value.0, XattrFlags::empty())?;
        }
        // After owner and ACL, which change mode bits.
        rustix::fs::fchmod(dir, Mode::from_raw_mode(self.mode))?;
        set_mtime(dir, FileTime { seconds: self.mtime.0, nanos: self.mtime.1 })
    }
}

/// The attributes of the directory at `path`.
pub(super) fn attrs(tree: &tree::Tree, path: &[u8], shown: &std::path::Path) -> crate::Result<Attrs> {
    let read = || Attrs::read(&*tree.dir(path)?);
    read().map_err(|error| lifeboat_store::Error::io("look at", shown, error).into())
}

/// Sets when a directory was last changed.
pub(super) fn set_mtime(dir: &OwnedFd, mtime: FileTime) -> Result<()> {
    let keep = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let mtime = Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanos) };
    rustix::fs::futimens(dir, &Timestamps { last_access: keep, last_modification: mtime })
}
