//! The stage: a private folder inside the target, on its file system, where
//! the archive is unpacked and every sum compared before anything moves in.
//!
//! One thread follows the archive; small files go to workers in batches, so
//! that summing and writing keep all cores busy. Nothing is ever opened
//! through a symlink: every step down is by the handle of a directory.

use std::collections::HashSet;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use lifeboat_format::archive::{Archive, Walk};
use lifeboat_format::model::{Entry, EntryKind, Sha256, Summer};
use lifeboat_format::monitor::{Problem, ProblemClass};
use lifeboat_format::path::EntryPath;
use lifeboat_store::{self as store, durable};
use rustix::fs::{Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::node::{self, Losses, NotSet};
use crate::ours::{STAGE_POINTER, STAGE_PREFIX, is_stage};
use crate::report::{LISTED_MAX, RestoreRequest, Watch};
use crate::{Error, ErrorKind, Result, beneath, workers};

/// What the pointer says while nothing of the user's is in the stage.
const STAGING: &[u8] = b"staging\n";
/// What it says when replaced files may be in it.
const REPLACING: &[u8] = b"replacing\n";
/// The folder in the stage that the entries go to.
const NEW: &str = "new";
/// How many small files are handed to a worker at once.
const BATCH_FILES: usize = 64;
/// Or how many bytes.
const BATCH_BYTES: usize = 1 << 20;

/// A stage in a target directory. Removed when dropped, with all in it.
pub(super) struct Stage {
    pub(super) target: File,
    pub(super) target_path: PathBuf,
    pub(super) path: PathBuf,
    pub(super) new: OwnedFd,
    pointer: File,
    /// The outermost directory that was made for the target.
    made: Option<PathBuf>,
    /// The target's times before anything was done in it.
    times: Timestamps,
    is_done: bool,
    /// Whether it holds the only copy of something.
    is_kept: bool,
}

/// What the stage holds.
pub(super) struct Filled {
    pub(super) files: u64,
    pub(super) entries: u64,
    pub(super) bytes: u64,
    pub(super) paths: Vec<String>,
    /// Directories, in the order of the archive; their attributes are set last.
    pub(super) dirs: Vec<Entry>,
    /// Directories that entries stand in and that the archive itself does not hold.
    pub(super) implied_dirs: Vec<Vec<u8>>,
    not_set: NotSet,
}

impl Filled {
    /// Owners and privileged attributes that could not be set.
    pub(super) fn not_set(&self) -> (u64, u64) {
        (self.not_set.owners.load(Ordering::Relaxed), self.not_set.attributes.load(Ordering::Relaxed))
    }

    pub(super) fn losses<'a>(&'a self, monitor: &'a dyn crate::Monitor) -> Losses<'a> {
        Losses { monitor, not_set: &self.not_set }
    }
}

fn io(doing: &str, path: &Path, error: impl Into<std::io::Error>) -> Error {
    Error::from(store::Error::io(doing, path, error))
}

impl Stage {
    /// A new stage in `target`, which is made where it is missing. What a
    /// killed restore left there is removed, unless it holds replaced files.
    pub(super) fn create(target_path: &Path) -> Result<Self> {
        let made = first_missing(target_path);
        std::fs::create_dir_all(target_path).map_err(|error| io("create", target_path, error))?;
        let result = Self::create_in(target_path, made.clone());
        if result.is_err() {
            remove_made(made.as_deref(), target_path);
        }
        result
    }

    fn create_in(target_path: &Path, made: Option<PathBuf>) -> Result<Self> {
        let target = File::open(target_path).map_err(|error| io("open", target_path, error))?;
        // Held while a stage is made, so that no other restore takes one without a pointer for an abandoned one. Some
        // network file systems cannot lock a directory; then two restores that begin in the same moment may collide.
        let lock = File::open(target_path).map_err(|error| io("open", target_path, error))?;
        lock.lock().unwrap_or(());
        let times = times_of(&target).map_err(|error| io("look at", target_path, error))?;
        remove_abandoned(&target, target_path)?;
        let path = target_path.join(format!("{STAGE_PREFIX}{}", durable::random_hex()));
        rustix::fs::mkdir(&path, Mode::RWXU).map_err(|error| io("create a stage in", target_path, error))?;
        let result = Self::set_up(&path);
        match result {
            Ok((pointer, new)) => Ok(Self {
                target,
                target_path: target_path.to_owned(),
                path,
                new,
                pointer,
                made,
                times,
                is_done: false,
                is_kept: false,
            }),
            Err(error) => {
                remove_stage(&path);
                Err(error)
            }
        }
    }

    fn set_up(path: &Path) -> Result<(File, OwnedFd)> {
        let failed = |error: Errno| io("write in", path, error);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path.join(STAGE_POINTER), flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
        let mut pointer = File::from(fd);
        pointer.lock().map_err(|error| io("lock", path, error))?;
        pointer.write_all(STAGING).map_err(|error| io("write in", path, error))?;
        let new = path.join(NEW);
        rustix::fs::mkdir(&new, Mode::RWXU).map_err(failed)?;
        // A default ACL of the target would be inherited by everything in here.
        match rustix::fs::removexattr(&new, "system.posix_acl_default") {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(failed(error)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok((pointer, rustix::fs::open(&new, flags, Mode::empty()).map_err(failed)?))
    }

    /// From here on the stage may hold what it replaced, and is never removed unseen.
    pub(super) fn begin_replacing(&mut self) -> Result<()> {
        let path = self.path.clone();
        let failed = |error: std::io::Error| io("write in", &path, error);
        self.pointer.set_len(0).map_err(failed)?;
        self.pointer.rewind().map_err(failed)?;
        self.pointer.write_all(REPLACING).map_err(failed)?;
        self.pointer.sync_all().map_err(failed)
    }

    /// It holds the only copy of something, and stays.
    pub(super) fn keep(&mut self) {
        self.is_kept = true;
    }

    /// Makes everything below the target durable.
    pub(super) fn sync(&self) -> Result<()> {
        rustix::fs::syncfs(&self.target).map_err(|error| io("sync", &self.target_path, error))
    }

    /// The restore stands; only what is left of the stage goes.
    pub(super) fn finish(mut self) -> Result<()> {
        self.is_done = true;
        Ok(())
    }

    /// Unpacks `archive` and compares every sum.
    pub(super) fn fill(&self, archive: &Archive, request: &RestoreRequest, watch: Watch<'_>) -> Result<Filled> {
        let not_set = NotSet::default();
        let losses = Losses { monitor: watch.monitor, not_set: &not_set };
        if let Some(head) = archive.head() {
            watch.monitor.expected(head.totals.files, head.totals.bytes);
        }
        let threads = workers::count(request.threads);
        let pool = Pool::default();
        let (send, receive) = sync_channel(threads * 2);
        let receive = Mutex::new(receive);
        let filler = Filler {
            root: self.new.as_fd(),
            request,
            watch,
            losses,
            pool: &pool,
            send,
            batch: Vec::new(),
            batch_bytes: 0,
            way: Vec::new(),
            seen: Default::default(),
            count: Count::default(),
        };
        let result = thread::scope(|scope| {
            for number in 0..threads {
                match thread::Builder::new().spawn_scoped(scope, || work(&receive, &pool, watch, losses)) {
                    Err(error) if number == 0 => return Err(io("start a thread for", &self.target_path, error)),
                    // Fewer do as well.
                    Err(_) => break,
                    Ok(_) => {}
                }
            }
            let mut error = None;
            let filled = archive.walk(threads, watch.cancel, |walk| {
                filler.run(walk).map_err(|failed| {
                    // Carried past the format's own error type.
                    error = Some(failed);
                    lifeboat_format::Error::new(lifeboat_format::ErrorKind::Invalid, "")
                })
            });
            filled.map_err(|outer| error.unwrap_or_else(|| Error::from(outer)))
        });
        let count = result?;
        Ok(Filled {
            files: count.files,
            entries: count.entries,
            bytes: count.bytes,
            paths: count.paths,
            dirs: count.dirs,
            implied_dirs: count.implied_dirs,
            not_set,
        })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        remove_stage(&self.path);
        if !self.is_done {
            // The stage came and went; nothing else should show.
            rustix::fs::futimens(&self.target, &self.times).unwrap_or(());
            remove_made(self.made.as_deref(), &self.target_path);
        }
    }
}

/// Nothing can be done about a failure: the error that led here is told, and
/// the next restore to the same place removes what is left.
fn remove_stage(path: &Path) {
    // The pointer goes last: what is left after a kill must still be known as a stage.
    std::fs::remove_dir_all(path.join(NEW)).unwrap_or(());
    std::fs::remove_file(path.join(STAGE_POINTER)).unwrap_or(());
    std::fs::remove_dir(path).unwrap_or(());
}

fn times_of(dir: &File) -> rustix::io::Result<Timestamps> {
    let stat = rustix::fs::fstat(dir)?;
    let time = |seconds, nanos| Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanos).unwrap_or(0) };
    Ok(Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    })
}

/// The outermost ancestor of `path` that is missing, or `path` itself.
fn first_missing(path: &Path) -> Option<PathBuf> {
    let missing = path.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists());
    missing.last().map(Path::to_owned)
}

/// Removes the directories that were made for a target, if they are empty still.
fn remove_made(made: Option<&Path>, target: &Path) {
    let Some(made) = made else { return };
    for dir in target.ancestors().take_while(|dir| dir.starts_with(made)) {
        std::fs::remove_dir(dir).unwrap_or(());
    }
}

fn remove_abandoned(target: &File, target_path: &Path) -> Result<()> {
    let listing = std::fs::read_dir(target_path).map_err(|error| io("list", target_path, error))?;
    for entry in listing.filter_map(std::io::Result::ok) {
        if !is_stage(target.as_fd(), entry.file_name().as_encoded_bytes()) {
            continue;
        }
        let pointer = entry.path().join(STAGE_POINTER);
        let mut text = Vec::new();
        let is_free =
            File::open(&pointer).is_ok_and(|mut file| file.try_lock().is_ok() && file.read_to_end(&mut text).is_ok());
        if is_free && text == REPLACING {
            return Err(Error::new(
                ErrorKind::Failed,
                format!("an interrupted restore left {}, with files that it was replacing", entry.path().display()),
            )
            .state("nothing was written; the replaced files are in its folder \"new\"")
            .next("move what you need out of it, remove it, and restore again"));
        }
        if is_free {
            remove_stage(&entry.path());
        }
    }
    Ok(())
}

#[derive(Default)]
struct Count {
    files: u64,
    entries: u64,
    bytes: u64,
    paths: Vec<String>,
    dirs: Vec<Entry>,
    implied_dirs: Vec<Vec<u8>>,
}

/// A small file, whole, with the sum it must have.
struct Small {
    dir: Arc<OwnedFd>,
    entry: Entry,
    content: Bytes,
    sum: Option<Sha256>,
}

/// How many batches are on their way, and what went wrong in one.
#[derive(Default)]
struct Pool {
    state: Mutex<(usize, Option<Error>)>,
    done: Condvar,
    failed: AtomicBool,
}

impl Pool {
    fn lock(&self) -> std::sync::MutexGuard<'_, (usize, Option<Error>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish_one(&self, result: Result<()>) {
        let mut state = self.lock();
        state.0 -= 1;
        if let Err(error) = result {
            self.failed.store(true, Ordering::Relaxed);
            state.1.get_or_insert(error);
        }
        self.done.notify_all();
    }

    /// Waits until nothing is on its way.
    fn drain(&self) -> Result<()> {
        let mut state = self.lock();
        while state.0 > 0 {
            state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match state.1.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// A worker: writes batches until there are no more.
fn work(receive: &Mutex<Receiver<Vec<Small>>>, pool: &Pool, watch: Watch<'_>, losses: Losses<'_>) {
    loop {
        let batch = receive.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(batch) = batch else { return };
        // Counted down also when a worker panics: nobody may wait for it for ever.
        let mut ticket = Ticket { pool, result: Err(Error::new(ErrorKind::Failed, "a worker failed")) };
        ticket.result = if pool.failed.load(Ordering::Relaxed) {
            Ok(())
        } else {
            batch.into_iter().try_for_each(|small| write_small(&small, watch, losses))
        };
    }
}

struct Ticket<'a> {
    pool: &'a Pool,
    result: Result<()>,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let result = std::mem::replace(&mut self.result, Ok(()));
        self.pool.finish_one(result);
    }
}

fn entry_failed(entry: &Entry, error: Errno) -> Error {
    match error {
        Errno::EXIST => Error::new(ErrorKind::Corrupt, format!("\"{}\" is in the archive twice", entry.path)),
        Errno::LOOP | Errno::NOTDIR => {
            Error::new(ErrorKind::Unsafe, format!("\"{}\" lies below something that is no directory", entry.path))
        }
        error => Error::from(store::Error::io("write", Path::new(&entry.path.to_string()), error)),
    }
}

fn sum_differs(entry: &Entry) -> Error {
    Error::new(ErrorKind::Corrupt, format!("\"{}\" does not have the SHA-256 sum of the manifest", entry.path))
}

fn write_small(small: &Small, watch: Watch<'_>, losses: Losses<'_>) -> Result<()> {
    let Small { dir, entry, content, sum } = small;
    if sum.is_some_and(|sum| Sha256::of(content) != sum) {
        return Err(sum_differs(entry));
    }
    let write = || {
        let file = node::create_file(dir.as_fd(), entry.path.name())?;
        node::write_at(file.as_fd(), content, 0, entry.sparse)?;
        node::finish(file.as_fd(), entry, losses)
    };
    write().map_err(|error| entry_failed(entry, error))?;
    watch.monitor.advanced(1, entry.size);
    Ok(())
}

/// Follows the archive and puts every entry where it belongs in the stage.
struct Filler<'a> {
    root: BorrowedFd<'a>,
    request: &'a RestoreRequest,
    watch: Watch<'a>,
    losses: Losses<'a>,
    pool: &'a Pool,
    send: SyncSender<Vec<Small>>,
    batch: Vec<Small>,
    batch_bytes: usize,
    /// The handles of the directories down to the one at hand.
    way: Vec<(Vec<u8>, Arc<OwnedFd>)>,
    /// Hashes of the paths so far, of a foreign tar only.
    seen: (RandomState, HashSet<u64>),
    count: Count,
}

impl Filler<'_> {
    fn run(mut self, walk: &mut Walk<'_>) -> Result<Count> {
        while let Some((entry, record)) = walk.next_entry()? {
            self.watch.cancel.check()?;
            if self.pool.failed.load(Ordering::Relaxed) {
                break;
            }
            let is_foreign = record.is_none();
            let sum = record.and_then(|record| record.sha256());
            self.count.entries += 1;
            self.count.bytes = self.count.bytes.saturating_add(entry.size);
            if is_foreign && entry.kind != EntryKind::Dir {
                self.make_way(&entry)?;
            }
            match entry.kind {
                EntryKind::File => self.file(entry, sum, walk)?,
                EntryKind::Dir => self.dir(entry)?,
                EntryKind::Hardlink => self.hardlink(&entry)?,
                _ => self.special(&entry)?,
            }
        }
        self.send_batch();
        self.pool.drain()?;
        Ok(self.count)
    }

    /// In a foreign tar a later entry of the same name replaces an earlier one.
    fn make_way(&mut self, entry: &Entry) -> Result<()> {
        if self.seen.1.insert(self.seen.0.hash_one(&entry.path)) {
            return Ok(());
        }
        // The earlier one may still be on its way to a worker.
        self.send_batch();
        self.pool.drain()?;
        let dir = self.parent(entry)?;
        match rustix::fs::unlinkat(&dir, entry.path.name(), rustix::fs::AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(entry_failed(entry, error)),
        }
    }

    /// The handle of the directory that `entry` stands in.
    fn parent(&mut self, entry: &Entry) -> Result<Arc<OwnedFd>> {
        let components: Vec<&[u8]> = entry.path.components().collect();
        self.descend(entry, &components[..components.len() - 1])
    }

    /// The handle of the directory that `components` lead to.
    fn descend(&mut self, entry: &Entry, components: &[&[u8]]) -> Result<Arc<OwnedFd>> {
        let common = self.way.iter().zip(components).take_while(|((name, _), component)| name == *component).count();
        self.way.truncate(common);
        for (depth, component) in components.iter().enumerate().skip(common) {
            let dir = self.way.last().map_or(self.root, |(_, fd)| fd.as_fd());
            let (fd, was_made) =
                node::open_or_create_dir(dir, component).map_err(|error| entry_failed(entry, error))?;
            if was_made && depth + 1 < entry.path.components().count() {
                self.count.implied_dirs.push(components[..=depth].join(&b'/'));
            }
            self.way.push((component.to_vec(), Arc::new(fd)));
        }
        let root =
            || rustix::io::fcntl_dupfd_cloexec(self.root, 0).map(Arc::new).map_err(|error| entry_failed(entry, error));
        self.way.last().map_or_else(root, |(_, fd)| Ok(Arc::clone(fd)))
    }

    fn file(&mut self, entry: Entry, sum: Option<Sha256>, walk: &mut Walk<'_>) -> Result<()> {
        self.count.files += 1;
        if self.count.paths.len() <= LISTED_MAX {
            self.count.paths.push(entry.path.to_string());
        }
        let dir = self.parent(&entry)?;
        let content = if entry.size == 0 { Some(Bytes::new()) } else { walk.whole_content()? };
        let Some(content) = content else { return self.large_file(&entry, &dir, sum, walk) };
        self.batch_bytes += content.len();
        self.batch.push(Small { dir, entry, content, sum });
        if self.batch.len() >= BATCH_FILES || self.batch_bytes >= BATCH_BYTES {
            self.send_batch();
        }
        Ok(())
    }

    fn send_batch(&mut self) {
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if !batch.is_empty() {
            self.pool.lock().0 += 1;
            if self.send.send(batch).is_err() {
                self.pool.finish_one(Err(Error::new(ErrorKind::Failed, "all workers failed")));
            }
        }
    }

    fn large_file(&mut self, entry: &Entry, dir: &OwnedFd, sum: Option<Sha256>, walk: &mut Walk<'_>) -> Result<()> {
        let failed = |error| entry_failed(entry, error);
        let file = node::create_file(dir.as_fd(), entry.path.name()).map_err(failed)?;
        let mut summer = Summer::new();
        let mut offset = 0;
        while let Some(piece) = walk.content()? {
            self.watch.cancel.check()?;
            summer.update(&piece);
            node::write_at(file.as_fd(), &piece, offset, entry.sparse).map_err(failed)?;
            offset += piece.len() as u64;
            self.watch.monitor.advanced(0, piece.len() as u64);
        }
        if sum.is_some_and(|sum| summer.finish() != sum) {
            return Err(sum_differs(entry));
        }
        node::finish(file.as_fd(), entry, self.losses).map_err(failed)?;
        self.watch.monitor.advanced(1, 0);
        Ok(())
    }

    fn dir(&mut self, entry: Entry) -> Result<()> {
        let components: Vec<&[u8]> = entry.path.components().collect();
        self.descend(&entry, &components)?;
        self.count.dirs.push(entry);
        Ok(())
    }

    fn hardlink(&mut self, entry: &Entry) -> Result<()> {
        // Its file may still be on its way to a worker.
        self.send_batch();
        self.pool.drain()?;
        let target = EntryPath::new(strip_dot(&entry.target))?;
        let to = self.parent(entry)?;
        let link = || {
            let from =
                beneath::open(self.root, target.parent().as_ref().map_or(b"", EntryPath::as_bytes), OFlags::PATH)?;
            rustix::fs::linkat(&from, target.name(), &to, entry.path.name(), rustix::fs::AtFlags::empty())
        };
        match link() {
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::PERM) => Err(Error::new(
                ErrorKind::Unsafe,
                format!("\"{}\" is a hard link to \"{target}\", which is no file before it in the archive", entry.path),
            )),
            linked => linked.map_err(|error| entry_failed(entry, error)),
        }
    }

    fn special(&mut self, entry: &Entry) -> Result<()> {
        let is_device = matches!(entry.kind, EntryKind::Char | EntryKind::Block);
        if is_device && !self.request.devices {
            return Err(Error::new(ErrorKind::Unsafe, format!("the archive holds the device \"{}\"", entry.path))
                .next("if you trust where the archive comes from, add --devices"));
        }
        let dir = self.parent(entry)?;
        match node::create_special(dir.as_fd(), entry.path.name(), entry, self.losses) {
            Err(Errno::PERM) if is_device => {
                let message = "it is a device, which only root can make; it was left out";
                let problem = Problem::new(ProblemClass::MetadataLost, entry.path.as_bytes(), message);
                self.watch.monitor.problem(problem);
            }
            made => made.map_err(|error| entry_failed(entry, error))?,
        }
        self.watch.monitor.advanced(1, 0);
        Ok(())
    }
}

/// Other tools write the target of a hard link as they write paths.
fn strip_dot(target: &[u8]) -> &[u8] {
    target.strip_prefix(b"./").unwrap_or(target)
}
