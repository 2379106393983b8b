//! The only place that makes files which must survive: an unnamed file is
//! written, synced, linked under its name, and the directory synced.
//!
//! Where the file system has no unnamed files (`O_TMPFILE`: NFS, FUSE, vfat) a
//! hidden name stands in for it; then a kill leaves that hidden file behind,
//! locked by nobody, and the next run in the directory removes it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::{Error, ErrorKind, Result};

/// How a stand-in for an unnamed file begins; the rest is a random number.
const STAND_IN_PREFIX: &str = ".lifeboat-";
/// And how it ends.
const STAND_IN_SUFFIX: &str = ".tmp";
/// How much is copied between files in one step.
const COPY_STEP_BYTES: u64 = 4 << 20;

/// A file without a final name: gone when it is dropped, unless published.
#[derive(Debug)]
pub struct Unnamed {
    file: File,
    dir: PathBuf,
    stand_in: Option<PathBuf>,
    len: u64,
}

impl Unnamed {
    /// A new, empty file of mode 0600 in `dir`.
    ///
    /// # Errors
    /// When the directory is missing, read-only or full.
    pub fn create(dir: &Path) -> Result<Self> {
        let mode = Mode::RUSR | Mode::WUSR;
        let open = rustix::fs::open(dir, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode);
        match open {
            Ok(fd) => Ok(Self { file: fd.into(), dir: dir.to_owned(), stand_in: None, len: 0 }),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => Self::create_stand_in(dir),
            Err(error) => Err(Error::io("write in", dir, error)),
        }
    }

    fn create_stand_in(dir: &Path) -> Result<Self> {
        remove_abandoned(dir)?;
        let path = dir.join(stand_in_name());
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| Error::io("create a file in", dir, error))?;
        let file = File::from(fd);
        // Held until the file is closed: says to other runs that it is in use.
        file.lock().map_err(|error| Error::io("lock", &path, error))?;
        Ok(Self { file, dir: dir.to_owned(), stand_in: Some(path), len: 0 })
    }

    /// How long the file is, in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The file itself, for reading back.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::io("write to", &self.dir, error)
    }

    /// Writes `bytes` at the end.
    ///
    /// # Errors
    /// When the system refuses, most often for lack of space.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, self.len).map_err(|error| self.failed(error))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Replaces what was written at `offset`; the length stays.
    ///
    /// # Errors
    /// When the system refuses.
    ///
    /// # Panics
    /// When the range was not written before.
    pub fn patch(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        assert!(offset + bytes.len() as u64 <= self.len, "a patch lies inside what was written");
        self.file.write_all_at(bytes, offset).map_err(|error| self.failed(error))
    }

    /// Cuts the file back to `len` bytes.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn cut_back(&mut self, len: u64) -> Result<()> {
        self.file.set_len(len).map_err(|error| self.failed(error))?;
        self.len = len;
        Ok(())
    }

    /// Appends the whole of `other`, which gives up its space as it goes, so
    /// that the two together need little more than the larger one. `grown` is
    /// told how long this file is, step by step.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn append_all_of(&mut self, other: Unnamed, grown: &dyn Fn(u64)) -> Result<()> {
        let mut from = 0;
        while from < other.len {
            let step = (other.len - from).min(COPY_STEP_BYTES);
            self.append_range(&other, from, step)?;
            other.give_up(from, step);
            from += step;
            grown(self.len);
        }
        Ok(())
    }

    /// Gives up the space of what was written at `from`, where it is not read again.
    /// Only a saving: a file system that cannot do it keeps the space until the end.
    pub fn give_up(&self, from: u64, len: u64) {
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(self.file.as_fd(), punch, from, len).unwrap_or(());
    }

    fn append_range(&mut self, other: &Unnamed, mut from: u64, step: u64) -> Result<()> {
        let end = from + step;
        while from < end {
            let wanted = usize::try_from(end - from).expect("a copy step fits usize");
            let mut to = self.len;
            match rustix::fs::copy_file_range(&other.file, Some(&mut from), &self.file, Some(&mut to), wanted) {
                Ok(0) => return Err(self.failed(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => self.len = to,
                Err(Errno::INTR) => {}
                Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => {
                    let mut buffer = vec![0; wanted.min(1 << 20)];
                    other.file.read_exact_at(&mut buffer, from).map_err(|error| self.failed(error))?;
                    self.append(&buffer)?;
                    from += buffer.len() as u64;
                }
                Err(error) => return Err(self.failed(error.into())),
            }
        }
        Ok(())
    }

    /// Makes the content durable and gives it the first of `names` that is
    /// free, with `mode` less the umask. Nothing is ever overwritten. When
    /// this returns, the file and its name survive a power cut.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] when none of the names is free; else what the system says.
    pub fn publish(mut self, names: impl IntoIterator<Item = impl AsRef<Path>>, mode: u32) -> Result<PathBuf> {
        let mode = Mode::from_raw_mode(mode) & !current_umask();
        rustix::fs::fchmod(&self.file, mode).map_err(|error| self.failed(error.into()))?;
        // A failed sync is final: the kernel may have dropped the pages, so it is never tried again.
        self.file.sync_all().map_err(|error| Error::io("sync a file in", &self.dir, error))?;
        let mut last = None;
        for name in names {
            let path = self.dir.join(name);
            match self.link(&path) {
                Ok(()) => {
                    self.stand_in = None;
                    return self.keep_name(path);
                }
                Err(Errno::EXIST) => last = Some(path),
                Err(error) => return Err(Error::io("give a file its name", &path, error)),
            }
        }
        let taken = last.as_deref().unwrap_or(&self.dir).display().to_string();
        Err(Error::new(ErrorKind::Exists, format!("{taken} exists already")))
    }

    /// As [`Unnamed::publish`], in the place of a file that has the name already.
    ///
    /// # Errors
    /// When the system refuses; what was there is there still.
    pub fn publish_over(mut self, name: &Path, mode: u32) -> Result<PathBuf> {
        // Held until the file is closed: says to other runs that it is in use.
        self.file.lock().map_err(|error| self.failed(error))?;
        let mode = Mode::from_raw_mode(mode) & !current_umask();
        rustix::fs::fchmod(&self.file, mode).map_err(|error| self.failed(error.into()))?;
        self.file.sync_all().map_err(|error| Error::io("sync a file in", &self.dir, error))?;
        let (path, stand_in) = (self.dir.join(name), self.dir.join(stand_in_name()));
        if self.stand_in.is_none() {
            self.link(&stand_in).map_err(|error| Error::io("give a file its name", &stand_in, error))?;
            self.stand_in = Some(stand_in);
        }
        let stand_in = self.stand_in.clone().expect("it was just set");
        rustix::fs::rename(&stand_in, &path).map_err(|error| Error::io("replace", &path, error))?;
        self.stand_in = None;
        sync_dir(&self.dir)?;
        Ok(path)
    }

    /// A name that would not survive a power cut is taken away again.
    fn keep_name(&self, path: PathBuf) -> Result<PathBuf> {
        match sync_dir(&self.dir) {
            Ok(()) => Ok(path),
            Err(error) => {
                rustix::fs::unlink(&path).unwrap_or(());
                Err(error)
            }
        }
    }

    fn link(&self, path: &Path) -> rustix::io::Result<()> {
        let cwd = rustix::fs::CWD;
        let Some(stand_in) = &self.stand_in else {
            use std::os::fd::AsRawFd as _;
            let unnamed = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            return rustix::fs::linkat(cwd, unnamed, cwd, path, AtFlags::SYMLINK_FOLLOW);
        };
        match rustix::fs::renameat_with(cwd, stand_in, cwd, path, RenameFlags::NOREPLACE) {
            // No exclusive rename (NFS, FUSE): a hard link is exclusive as well.
            Err(Errno::INVAL | Errno::NOSYS) => {
                rustix::fs::link(stand_in, path)?;
                rustix::fs::unlink(stand_in)
            }
            done => done,
        }
    }
}

impl io::Write for Unnamed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write_at(bytes, self.len)?;
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        if let Some(stand_in) = &self.stand_in {
            // Nothing can be reported here, and the next run removes it.
            rustix::fs::unlink(stand_in).unwrap_or(());
        }
    }
}

fn stand_in_name() -> String {
    format!("{STAND_IN_PREFIX}{}{STAND_IN_SUFFIX}", random_hex())
}

/// Whether `name` is that of a stand-in for an unnamed file.
#[must_use]
pub fn is_stand_in(name: &[u8]) -> bool {
    let middle =
        name.strip_prefix(STAND_IN_PREFIX.as_bytes()).and_then(|rest| rest.strip_suffix(STAND_IN_SUFFIX.as_bytes()));
    middle.is_some_and(|hex| hex.len() == 32 && hex.iter().all(u8::is_ascii_hexdigit))
}

/// Removes the stand-ins that a killed run left in `dir`: those nobody holds a lock on.
fn remove_abandoned(dir: &Path) -> Result<()> {
    let listing = std::fs::read_dir(dir).map_err(|error| Error::io("list", dir, error))?;
    for entry in listing.filter_map(io::Result::ok) {
        if !is_stand_in(std::os::unix::ffi::OsStrExt::as_bytes(entry.file_name().as_os_str())) {
            continue;
        }
        let Ok(file) = File::open(entry.path()) else { continue };
        if file.try_lock().is_ok() {
            std::fs::remove_file(entry.path()).map_err(|error| Error::io("remove", &entry.path(), error))?;
        }
    }
    Ok(())
}

/// Makes the names in `dir` durable.
///
/// # Errors
/// When the directory cannot be opened or synced.
pub fn sync_dir(dir: &Path) -> Result<()> {
    let opened = File::open(dir).map_err(|error| Error::io("open", dir, error))?;
    match rustix::fs::fsync(&opened) {
        // Some network file systems cannot sync a directory, and need not.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(error) => Err(Error::io("sync", dir, error)),
    }
}

/// 128 random bits in hex.
///
/// # Panics
/// When the system has no random bytes, without which nothing here is safe.
#[must_use]
pub fn random_hex() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has random bytes");
    hex::encode(bytes)
}

/// The umask, read without changing it: asking for it by `umask(2)` would
/// open a moment in which other threads create files for everyone.
#[must_use]
pub fn current_umask() -> Mode {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let bits = line.and_then(|bits| u32::from_str_radix(bits.trim(), 8).ok());
    Mode::from_raw_mode(bits.unwrap_or(0o077))
}

/// Free bytes and free inodes on the file system of `dir`, for an ordinary
/// user; `None` for what the file system does not count.
///
/// # Errors
/// When the system cannot tell.
pub fn free_space(dir: &Path) -> Result<(Option<u64>, Option<u64>)> {
    let stat = rustix::fs::statvfs(dir).map_err(|error| Error::io("ask for the free space of", dir, error))?;
    let bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
    Ok(((stat.f_blocks > 0).then_some(bytes), (stat.f_files > 0).then_some(stat.f_favail)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_content_is_whole_and_an_existing_name_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        for (content, expected) in [("one", "a"), ("two", "a-2")] {
            let mut file = Unnamed::create(dir.path()).unwrap();
            file.append(content.as_bytes()).unwrap();
            let path = file.publish(["a".to_owned(), "a-2".to_owned()], 0o666).unwrap();
            assert_eq!(path, dir.path().join(expected));
            assert_eq!(std::fs::read_to_string(path).unwrap(), content);
        }
        let third = Unnamed::create(dir.path()).unwrap();
        let error = third.publish(["a".to_owned(), "a-2".to_owned()], 0o666).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exists);
        assert_eq!(std::fs::read_to_string(dir.path().join("a")).unwrap(), "one");
    }

    #[test]
    fn a_file_takes_the_place_of_another_one_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        for (content, make) in [
            ("one", Unnamed::create as fn(&Path) -> Result<Unnamed>),
            ("two", Unnamed::create_stand_in),
            ("three", Unnamed::create),
        ] {
            let mut file = make(dir.path()).unwrap();
            file.append(content.as_bytes()).unwrap();
            let path = file.publish_over(Path::new("a"), 0o600).unwrap();
            assert_eq!(std::fs::read_to_string(path).unwrap(), content);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        }
        std::fs::create_dir(dir.path().join("b")).unwrap();
        Unnamed::create(dir.path()).unwrap().publish_over(Path::new("b"), 0o600).unwrap_err();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_file_that_was_not_published_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        for make in [Unnamed::create, Unnamed::create_stand_in] {
            let mut file = make(dir.path()).unwrap();
            file.append(b"half").unwrap();
            drop(file);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_stand_in_is_published_without_overwriting_and_an_abandoned_one_removed() {
        let dir = tempfile::tempdir().unwrap();
        let abandoned = dir.path().join(format!("{STAND_IN_PREFIX}{}{STAND_IN_SUFFIX}", random_hex()));
        drop(std::os::unix::net::UnixListener::bind(dir.path().join("other")).unwrap());
        rustix::fs::open(&abandoned, OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        let mut file = Unnamed::create_stand_in(dir.path()).unwrap();
        assert!(!abandoned.exists());
        let second = Unnamed::create_stand_in(dir.path()).unwrap();
        file.append(b"x").unwrap();
        let path = file.publish(["a".to_owned()], 0o600).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"x");
        assert_eq!(second.publish(["a".to_owned()], 0o600).unwrap_err().kind(), ErrorKind::Exists);
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }

    #[test]
    fn copying_takes_everything_over_and_cutting_back_shortens() {
        let dir = tempfile::tempdir().unwrap();
        let mut from = Unnamed::create(dir.path()).unwrap();
        let content: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        from.append(&content).unwrap();
        from.append(b"tail").unwrap();
        from.cut_back(content.len() as u64).unwrap();
        from.patch(0, b"head").unwrap();
        let mut to = Unnamed::create(dir.path()).unwrap();
        to.append(b"first").unwrap();
        to.append_all_of(from, &|_| {}).unwrap();
        let path = to.publish(["out".to_owned()], 0o600).unwrap();
        let written = std::fs::read(path).unwrap();
        assert_eq!(&written[..9], b"firsthead");
        assert_eq!(&written[9..], &content[4..]);
    }
}
