//! Unpacking an archive into stages, every sum compared on the way: the one
//! pass of a restore over its archive. Where an entry goes is said by a
//! [`Layout`].
//!
//! One thread follows the archive; small files go to workers in batches, so
//! that summing and writing keep all cores busy. Nothing is ever opened
//! through a symlink: every step down is by the handle of a directory.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use lifeboat_format::archive::{Archive, Walk};
use lifeboat_format::model::{Entry, EntryKind, Sha256, Summer};
use lifeboat_format::monitor::{Problem, ProblemClass};
use lifeboat_format::path::EntryPath;
use lifeboat_store as store;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::node::{self, Losses, NotSet};
use crate::report::{LISTED_MAX, Watch};
use crate::{Error, ErrorKind, Result, beneath, ours, workers};

/// How many small files are handed to a worker at once.
const BATCH_FILES: usize = 64;
/// Or how many bytes.
const BATCH_BYTES: usize = 1 << 20;
/// The longest name of one file on Linux.
const NAME_MAX_BYTES: usize = 255;
/// The longest that a symbolic link says.
const TARGET_MAX_BYTES: usize = 4095;

/// Says where entries are staged.
pub(super) trait Layout {
    /// The number of the folder and the path in it (empty: the folder itself);
    /// `None` for an entry that is not restored.
    fn spot(&self, path: &EntryPath) -> Option<(usize, Vec<u8>)>;
}

/// Everything at its own path in the one folder there is.
pub(super) struct AsArchived;

impl Layout for AsArchived {
    fn spot(&self, path: &EntryPath) -> Option<(usize, Vec<u8>)> {
        Some((0, path.as_bytes().to_vec()))
    }
}

/// What is asked of the pass over the archive.
pub(super) struct Fill<'a> {
    pub(super) folders: &'a [BorrowedFd<'a>],
    pub(super) layout: &'a dyn Layout,
    /// Whether device nodes are made.
    pub(super) devices: bool,
    pub(super) threads: Option<usize>,
}

/// A directory in a stage: its folder, its path there, and what it has to become.
pub(super) type Staged = (usize, Vec<u8>, Entry);

/// What the stages hold.
pub(super) struct Filled {
    pub(super) files: u64,
    pub(super) entries: u64,
    pub(super) bytes: u64,
    pub(super) paths: Vec<String>,
    /// Directories, in the order of the archive; their attributes are set last.
    pub(super) dirs: Vec<Staged>,
    /// Directories that entries stand in and that were not restored themselves: folder and path.
    pub(super) implied_dirs: Vec<(usize, Vec<u8>)>,
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

impl Fill<'_> {
    /// Unpacks `archive` and compares every sum.
    pub(super) fn run(&self, archive: &Archive, watch: Watch<'_>) -> Result<Filled> {
        let not_set = NotSet::default();
        let losses = Losses { monitor: watch.monitor, not_set: &not_set };
        if let Some(head) = archive.head() {
            watch.monitor.expected(head.totals.files, head.totals.bytes);
        }
        let threads = workers::count(self.threads);
        let pool = Pool::default();
        let (send, receive) = sync_channel(threads * 2);
        let receive = Mutex::new(receive);
        let filler = Filler {
            fill: self,
            watch,
            losses,
            pool: &pool,
            send,
            batch: Vec::new(),
            batch_bytes: 0,
            way: (0, Vec::new()),
            seen: Default::default(),
            count: Count::default(),
        };
        let result = thread::scope(|scope| {
            for number in 0..threads {
                match thread::Builder::new().spawn_scoped(scope, || work(&receive, &pool, watch, losses)) {
                    Err(error) if number == 0 => {
                        let error = store::Error::io("start a thread for", archive.path(), error);
                        return Err(Error::from(error));
                    }
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

#[derive(Default)]
struct Count {
    files: u64,
    entries: u64,
    bytes: u64,
    paths: Vec<String>,
    dirs: Vec<Staged>,
    implied_dirs: Vec<(usize, Vec<u8>)>,
}

/// A small file, whole, with the sum it must have.
struct Small {
    dir: Arc<OwnedFd>,
    name: Vec<u8>,
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
        // What two names mean that differ in case alone is up to the file system.
        Errno::EXIST => {
            Error::new(ErrorKind::Unsafe, format!("\"{}\" would take the place of another entry", entry.path))
        }
        Errno::NAMETOOLONG if entry.path.components().any(|name| name.len() > NAME_MAX_BYTES) => {
            let path: String = entry.path.to_string().chars().take(60).collect();
            Error::new(ErrorKind::Unsafe, format!("\"{path}…\" has a name that no file system takes"))
        }
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
    let Small { dir, name, entry, content, sum } = small;
    if sum.is_some_and(|sum| Sha256::of(content) != sum) {
        return Err(sum_differs(entry));
    }
    let write = || {
        let file = node::create_file(dir.as_fd(), name)?;
        node::write_at(file.as_fd(), content, 0, entry.sparse)?;
        node::finish(file.as_fd(), entry, losses)
    };
    write().map_err(|error| entry_failed(entry, error))?;
    watch.monitor.advanced(1, entry.size);
    Ok(())
}

/// The handles of the directories down to the one at hand, with their names.
type Way = Vec<(Vec<u8>, Arc<OwnedFd>)>;

/// Follows the archive and puts every entry where it belongs in a stage.
struct Filler<'a> {
    fill: &'a Fill<'a>,
    watch: Watch<'a>,
    losses: Losses<'a>,
    pool: &'a Pool,
    send: SyncSender<Vec<Small>>,
    batch: Vec<Small>,
    batch_bytes: usize,
    /// In which folder, and the way down in it.
    way: (usize, Way),
    /// Hashes of the paths so far, of a foreign tar only.
    seen: (RandomState, HashSet<u64>),
    count: Count,
}

/// What looks like a stage of ours would be removed, or be asked where a restore stands, by a later run.
fn refuse_stage(entry: &Entry) -> Result<()> {
    let names: Vec<&[u8]> = entry.path.components().collect();
    let is_pointer = |pair: &[&[u8]]| ours::stage_id(pair[0]).is_some() && pair[1] == ours::STAGE_POINTER.as_bytes();
    if names.windows(2).any(is_pointer) {
        let message = format!("\"{}\" is called like what Lifeboat itself leaves during a restore", entry.path);
        return Err(Error::new(ErrorKind::Unsafe, message));
    }
    Ok(())
}

/// Where an entry is made: the handle of its directory, and its name there.
struct Place {
    dir: Arc<OwnedFd>,
    name: Vec<u8>,
}

impl Filler<'_> {
    fn run(mut self, walk: &mut Walk<'_>) -> Result<Count> {
        while let Some((entry, record)) = walk.next_entry()? {
            self.watch.cancel.check()?;
            refuse_stage(&entry)?;
            if self.pool.failed.load(Ordering::Relaxed) {
                break;
            }
            let sum = record.as_ref().and_then(lifeboat_format::record::Record::sha256);
            let Some(spot) = self.fill.layout.spot(&entry.path) else {
                read_past(&entry, sum, walk)?;
                continue;
            };
            self.count.entries += 1;
            self.count.bytes = self.count.bytes.saturating_add(entry.size);
            if entry.kind == EntryKind::Dir {
                self.dir(entry, spot)?;
                continue;
            }
            let place = self.place(&entry, spot)?;
            if record.is_none() {
                self.make_way(&entry, &place)?;
            }
            match entry.kind {
                EntryKind::File => self.file(entry, place, sum, walk)?,
                EntryKind::Hardlink => self.hardlink(&entry, &place)?,
                _ => self.special(&entry, &place)?,
            }
        }
        self.send_batch();
        self.pool.drain()?;
        Ok(self.count)
    }

    /// In a foreign tar a later entry of the same name replaces an earlier one.
    fn make_way(&mut self, entry: &Entry, place: &Place) -> Result<()> {
        if self.seen.1.insert(self.seen.0.hash_one(&entry.path)) {
            return Ok(());
        }
        // The earlier one may still be on its way to a worker.
        self.send_batch();
        self.pool.drain()?;
        match rustix::fs::unlinkat(&place.dir, &place.name, rustix::fs::AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(entry_failed(entry, error)),
        }
    }

    /// Makes the directories that `entry` stands in, where they are missing.
    fn place(&mut self, entry: &Entry, (folder, path): (usize, Vec<u8>)) -> Result<Place> {
        let mut components: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let name = components.pop().unwrap_or_default().to_vec();
        Ok(Place { dir: self.descend(entry, folder, &components, components.len())?, name })
    }

    /// The handle of the directory that `components` lead to in `folder`; of
    /// those that are made, the first `implied` are noted.
    fn descend(&mut self, entry: &Entry, folder: usize, components: &[&[u8]], implied: usize) -> Result<Arc<OwnedFd>> {
        if self.way.0 != folder {
            self.way = (folder, Way::new());
        }
        let root = self.fill.folders[folder];
        let way = &mut self.way.1;
        let common = way.iter().zip(components).take_while(|((name, _), component)| name == *component).count();
        way.truncate(common);
        for (depth, component) in components.iter().enumerate().skip(common) {
            let dir = way.last().map_or(root, |(_, fd)| fd.as_fd());
            let (fd, was_made) =
                node::open_or_create_dir(dir, component).map_err(|error| entry_failed(entry, error))?;
            if was_made && depth < implied {
                self.count.implied_dirs.push((folder, components[..=depth].join(&b'/')));
            }
            way.push((component.to_vec(), Arc::new(fd)));
        }
        let root =
            || rustix::io::fcntl_dupfd_cloexec(root, 0).map(Arc::new).map_err(|error| entry_failed(entry, error));
        way.last().map_or_else(root, |(_, fd)| Ok(Arc::clone(fd)))
    }

    fn file(&mut self, entry: Entry, place: Place, sum: Option<Sha256>, walk: &mut Walk<'_>) -> Result<()> {
        self.count.files += 1;
        if self.count.paths.len() <= LISTED_MAX {
            self.count.paths.push(entry.path.to_string());
        }
        let content = if entry.size == 0 { Some(Bytes::new()) } else { walk.whole_content()? };
        let Some(content) = content else { return self.large_file(&entry, &place, sum, walk) };
        self.batch_bytes += content.len();
        let Place { dir, name } = place;
        self.batch.push(Small { dir, name, entry, content, sum });
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

    fn large_file(&self, entry: &Entry, place: &Place, sum: Option<Sha256>, walk: &mut Walk<'_>) -> Result<()> {
        let failed = |error| entry_failed(entry, error);
        let file = node::create_file(place.dir.as_fd(), &place.name).map_err(failed)?;
        let mut summer = Summer::new();
        let mut offset = 0;
        loop {
            // Of a foreign tar only, which has no sum.
            offset += walk.hole();
            let Some(piece) = walk.content()? else { break };
            self.watch.cancel.check()?;
            if sum.is_some() {
                summer.update(&piece);
            }
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

    fn dir(&mut self, entry: Entry, (folder, path): (usize, Vec<u8>)) -> Result<()> {
        let components: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
        self.descend(&entry, folder, &components, components.len().saturating_sub(1))?;
        self.count.dirs.push((folder, path, entry));
        Ok(())
    }

    fn hardlink(&mut self, entry: &Entry, to: &Place) -> Result<()> {
        // Its file may still be on its way to a worker.
        self.send_batch();
        self.pool.drain()?;
        let target = EntryPath::new(strip_dot(&entry.target))?;
        let spot = self.fill.layout.spot(&target);
        let link = || {
            let (folder, path) = spot.as_ref().ok_or(Errno::NOENT)?;
            let slash = path.iter().rposition(|byte| *byte == b'/');
            let (parent, name) = slash.map_or((&path[..0], &path[..]), |at| (&path[..at], &path[at + 1..]));
            let from = beneath::open(self.fill.folders[*folder], parent, OFlags::PATH)?;
            rustix::fs::linkat(&from, name, &to.dir, &to.name, rustix::fs::AtFlags::empty())
        };
        match link() {
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::PERM) => Err(Error::new(
                ErrorKind::Unsafe,
                format!("\"{}\" is a hard link to \"{target}\", which is no file before it in the archive", entry.path),
            )),
            Err(Errno::XDEV) => Err(Error::new(
                ErrorKind::Failed,
                format!("\"{}\" is another name of \"{target}\", which lies on another file system here", entry.path),
            )
            .next("restore it beside with --to DIR, and put it in place by hand")),
            linked => linked.map_err(|error| entry_failed(entry, error)),
        }
    }

    fn special(&self, entry: &Entry, place: &Place) -> Result<()> {
        let is_device = matches!(entry.kind, EntryKind::Char | EntryKind::Block);
        if is_device && !self.fill.devices {
            return Err(Error::new(ErrorKind::Unsafe, format!("the archive holds the device \"{}\"", entry.path))
                .next("if you trust where the archive comes from, add --devices"));
        }
        let target = &entry.target;
        let is_impossible = target.is_empty() || target.len() > TARGET_MAX_BYTES || target.contains(&0);
        if entry.kind == EntryKind::Symlink && is_impossible {
            let message = format!("\"{}\" is a symbolic link to what no link can say", entry.path);
            return Err(Error::new(ErrorKind::Unsafe, message));
        }
        match node::create_special(place.dir.as_fd(), &place.name, entry, self.losses) {
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

/// An entry that is not restored is verified all the same: a damaged archive
/// restores nothing.
fn read_past(entry: &Entry, sum: Option<Sha256>, walk: &mut Walk<'_>) -> Result<()> {
    let Some(sum) = sum.filter(|_| entry.kind == EntryKind::File) else { return Ok(()) };
    let mut summer = Summer::new();
    while let Some(piece) = walk.content()? {
        summer.update(&piece);
    }
    if summer.finish() == sum { Ok(()) } else { Err(sum_differs(entry)) }
}

/// Other tools write the target of a hard link as they write paths.
fn strip_dot(target: &[u8]) -> &[u8] {
    target.strip_prefix(b"./").unwrap_or(target)
}
