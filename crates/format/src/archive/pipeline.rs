//! Writing an archive on all cores, with the source read once.
//!
//! Each worker takes the next piece of work under one lock ([`Feed`]), packs
//! it into a unit of tar, compresses that and hands it to the [`Sink`], which
//! writes units in their order. No queues between stages: a unit stays in one
//! core's cache. What goes into which unit depends on listed sizes alone, so
//! the archive does not depend on the number of workers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread;

use lifeboat_store::Cancel;

use super::codec::{self, Compression, Encoder};
use super::pack::{self, Packed};
use super::spool::{Begins, Captured, Change, LargeEnd, Out, Spool};
use super::unit::Unit;
use super::{UNIT_BYTES, header, padding};
use crate::capture::{Content, Entries, Item, SIZE_UNKNOWN, Settled};
use crate::model::{Entry, Summer};
use crate::monitor::{Monitor, Problem, ProblemClass};
use crate::{Error, Result};

/// How an archive is written.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How units are compressed.
    pub compression: Compression,
    /// How many workers there are, at least 1.
    pub threads: usize,
}

/// Reads all of `entries` into a spool in `spool_dir`, an unnamed file that
/// vanishes unless [`Captured::finish`] makes an archive of it. Trouble with a
/// single entry goes to `monitor`, and the capture goes on.
///
/// # Errors
/// When the spool cannot be written, or `cancel` was set.
pub fn capture(
    spool_dir: &Path,
    options: Options,
    entries: &mut dyn Entries,
    monitor: &dyn Monitor,
    cancel: &Cancel,
) -> Result<Captured> {
    let sink = Sink::new(spool_dir, options)?;
    let feed = Mutex::new(Feed { entries, monitor, cancel, held: None, large: None, group: None, next_seq: 0 });
    loop {
        run_workers(options, &feed, &sink, monitor);
        if !sink.is_sound() || !lock(&feed).entries.go_on() {
            break;
        }
    }
    drop(feed);
    sink.finish()
}

/// Reads one stretch of entries to its end.
fn run_workers(options: Options, feed: &Mutex<Feed<'_>>, sink: &Sink, monitor: &dyn Monitor) {
    thread::scope(|scope| {
        let work = || {
            let _stop = StopOnPanic(sink);
            if let Err(error) = Worker::new(options.compression).and_then(|mut worker| worker.run(feed, sink, monitor))
            {
                sink.fail(error);
            }
        };
        // Where no thread can be started, this one does it all.
        for _ in 1..options.threads {
            if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
}

/// What one worker does next.
enum Task {
    /// Pack these parts into the unit, then compress it.
    Pack(Vec<Part>),
    /// The header of a large file, to be patched later.
    LargeHeader(Vec<u8>, Begins),
    /// A piece of a large file is in the unit; with it, the file may have ended.
    Piece(Option<LargeEnd>),
    /// The large file failed half-way: cut back to before its header, or its group's.
    TakeOut,
}

enum Part {
    Listed(Box<dyn Item>),
    /// Packed under the lock already, because later entries may refer to it.
    Ready(Vec<u8>, Packed),
}

struct Large {
    entry: Entry,
    is_linked: bool,
    is_in_group: bool,
    first_size: u64,
    content: Box<dyn Content>,
    summer: Summer,
    read: u64,
}

/// A group of which an item was opened.
struct Group {
    name: String,
    has_failed: bool,
}

/// Hands out work in order. Behind a lock; reading a large file happens under
/// it too, because its sum needs its bytes in order.
struct Feed<'a> {
    entries: &'a mut dyn Entries,
    monitor: &'a dyn Monitor,
    cancel: &'a Cancel,
    held: Option<Box<dyn Item>>,
    large: Option<Large>,
    /// The one of the last item that was handed out.
    group: Option<Group>,
    next_seq: u64,
}

/// The room an entry takes in a unit, as far as its listing tells: its header
/// blocks with a PAX header, and its content. What may be taken out later has
/// frames of its own: it fits into no unit.
fn room(item: &dyn Item) -> usize {
    if item.group().is_some() {
        return usize::MAX;
    }
    let content = item.size().saturating_add(padding(item.size()) as u64);
    usize::try_from(content.saturating_add(3 * 512)).unwrap_or(usize::MAX)
}

impl Feed<'_> {
    /// The next piece of work with its place in the order. A piece of a large
    /// file is read into `unit` here.
    fn next(&mut self, unit: &mut Unit) -> Result<Option<(u64, Task)>> {
        self.cancel.check()?;
        unit.clear();
        let task = loop {
            if let Some(large) = self.large.take() {
                break self.read_piece(large, unit);
            }
            let Some(item) = self.held.take().or_else(|| self.entries.next()) else { return Ok(None) };
            let group = self.group.take().filter(|group| item.group() == Some(&group.name));
            if room(&*item) <= UNIT_BYTES {
                break Task::Pack(self.gather(item));
            }
            if let Some(task) = self.begin_large(&*item, group) {
                break task;
            }
        };
        self.next_seq += 1;
        Ok(Some((self.next_seq - 1, task)))
    }

    /// `first` and as many of the items after it as fill a unit.
    fn gather(&mut self, first: Box<dyn Item>) -> Vec<Part> {
        let mut left = UNIT_BYTES;
        let mut parts = Vec::new();
        let mut next = Some(first);
        while let Some(item) = next {
            let room = room(&*item);
            if room > left {
                self.held = Some(item);
                break;
            }
            left -= room;
            if item.is_linked() {
                parts.extend(self.pack_linked(&*item));
            } else {
                parts.push(Part::Listed(item));
            }
            next = self.entries.next();
        }
        parts
    }

    fn pack_linked(&mut self, item: &dyn Item) -> Option<Part> {
        let mut unit = Unit::new();
        let packed = pack::entry(item, &mut unit, self.monitor);
        if packed.is_none() {
            self.entries.lost(item.path());
        }
        packed.map(|packed| Part::Ready(unit.filled().to_vec(), packed))
    }

    /// `group` is the item's, where others of it were opened before.
    fn begin_large(&mut self, item: &dyn Item, group: Option<Group>) -> Option<Task> {
        let begins = match (item.group(), &group) {
            (None, _) => Begins::File,
            (Some(_), None) => Begins::Group,
            (Some(_), Some(_)) => Begins::InGroup,
        };
        self.group = group.or_else(|| item.group().map(|name| Group { name: name.to_owned(), has_failed: false }));
        if self.group.as_ref().is_some_and(|group| group.has_failed) {
            return None;
        }
        let opened = match item.open() {
            Ok(opened) => opened,
            Err(problem) => {
                self.monitor.problem(problem);
                self.entries.lost(item.path());
                self.fail_group();
                return matches!(begins, Begins::InGroup).then_some(Task::TakeOut);
            }
        };
        let header = header::encode(&opened.entry);
        self.large = Some(Large {
            is_linked: item.is_linked(),
            is_in_group: self.group.is_some(),
            first_size: opened.entry.size,
            entry: opened.entry,
            content: opened.content.expect("only a file is listed with a size, and open() refuses anything else"),
            summer: Summer::new(),
            read: 0,
        });
        Some(Task::LargeHeader(header, begins))
    }

    /// Nothing more of the group at hand is opened.
    fn fail_group(&mut self) {
        if let Some(group) = &mut self.group {
            group.has_failed = true;
        }
    }

    fn read_piece(&mut self, mut large: Large, unit: &mut Unit) -> Task {
        let left = large.entry.size - large.read;
        let wanted = usize::try_from(left).unwrap_or(UNIT_BYTES).min(UNIT_BYTES);
        let read = match unit.read_from(&mut *large.content, wanted) {
            Ok(read) => read,
            Err(error) => {
                if !large.is_in_group {
                    let message = format!("it could not be read to its end: {error}");
                    self.monitor.problem(Problem::new(ProblemClass::Unreadable, large.entry.path.as_bytes(), message));
                }
                self.fail_group();
                if large.is_linked {
                    self.entries.lost(&large.entry.path);
                }
                return Task::TakeOut;
            }
        };
        large.summer.update(unit.filled());
        large.read += read as u64;
        if read == wanted && large.read < large.entry.size {
            self.large = Some(large);
            return Task::Piece(None);
        }
        unit.pad(large.read);
        Task::Piece(Some(self.end_large(large)))
    }

    fn end_large(&mut self, mut large: Large) -> LargeEnd {
        let is_unknown = large.first_size == SIZE_UNKNOWN;
        let is_short = large.read < large.first_size;
        let settled = if is_short && !is_unknown { Settled::Changed } else { large.content.settle() };
        pack::report_settled(settled, &large.entry.path, self.monitor);
        large.entry.size = large.read;
        let patch = is_short.then(|| header::encode_as_long_as(&large.entry, large.first_size));
        LargeEnd { patch, packed: Packed::new(&large.entry, Some(large.summer.finish())) }
    }
}

/// One thread of the capture, with its buffers.
struct Worker {
    encoder: Encoder,
    compression: Compression,
    unit: Unit,
    frame: Vec<u8>,
}

impl Worker {
    fn new(compression: Compression) -> Result<Self> {
        Ok(Self { encoder: Encoder::new(compression)?, compression, unit: Unit::new(), frame: Vec::new() })
    }

    fn run(&mut self, feed: &Mutex<Feed<'_>>, sink: &Sink, monitor: &dyn Monitor) -> Result<()> {
        loop {
            let next = lock(feed).next(&mut self.unit)?;
            let Some((seq, task)) = next else { return Ok(()) };
            let change = self.perform(task, monitor)?;
            let frame = std::mem::take(&mut self.frame);
            match sink.put(seq, Out { change, raw_len: self.unit.filled().len(), frame }) {
                Some(spare) => self.frame = spare,
                None => return Ok(()),
            }
        }
    }

    /// Leaves the frame to write in `self.frame`.
    fn perform(&mut self, task: Task, monitor: &dyn Monitor) -> Result<Change> {
        let change = match task {
            Task::Pack(parts) => Change::Entries(self.pack(parts, monitor)),
            Task::Piece(end) => {
                monitor.advanced(u64::from(end.is_some()), self.unit.filled().len() as u64);
                Change::Piece(end)
            }
            Task::LargeHeader(header, begins) => {
                self.unit.push(&header);
                self.frame = codec::stored(self.compression, &header);
                return Ok(Change::LargeHeader(begins));
            }
            Task::TakeOut => {
                self.frame.clear();
                return Ok(Change::TakeOut);
            }
        };
        self.encoder.encode(self.unit.filled(), &mut self.frame)?;
        Ok(change)
    }

    fn pack(&mut self, parts: Vec<Part>, monitor: &dyn Monitor) -> Vec<Packed> {
        let mut all = Vec::with_capacity(parts.len());
        for part in parts {
            let packed = match part {
                Part::Listed(item) => pack::entry(&*item, &mut self.unit, monitor),
                Part::Ready(bytes, packed) => {
                    self.unit.push(&bytes);
                    Some(packed)
                }
            };
            if let Some(packed) = packed {
                monitor.advanced(1, packed.bytes);
                all.push(packed);
            }
        }
        all
    }
}

/// Writes frames in their order, whoever brings them.
struct Sink {
    state: Mutex<State>,
    moved_on: Condvar,
    /// How far ahead of the frame that is due a frame may be handed in: what bounds memory.
    ahead_max: u64,
}

struct State {
    due: u64,
    early: BTreeMap<u64, Out>,
    spool: Spool,
    failed: Option<Error>,
    stopped: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a panic of a worker ends the capture before this")
}

/// A worker that panics must not leave the others waiting for its frame.
struct StopOnPanic<'a>(&'a Sink);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).stopped = true;
            self.0.moved_on.notify_all();
        }
    }
}

impl Sink {
    fn new(dir: &Path, options: Options) -> Result<Self> {
        let spool = Spool::new(dir, options.compression)?;
        let state = State { due: 0, early: BTreeMap::new(), spool, failed: None, stopped: false };
        Ok(Self { state: Mutex::new(state), moved_on: Condvar::new(), ahead_max: options.threads as u64 + 1 })
    }

    /// Whether nothing has failed so far.
    fn is_sound(&self) -> bool {
        !lock(&self.state).stopped
    }

    fn fail(&self, error: Error) {
        let mut state = lock(&self.state);
        state.stopped = true;
        state.failed.get_or_insert(error);
        self.moved_on.notify_all();
    }

    /// Takes the frame with number `seq` and gives back a buffer to use again;
    /// `None` when the capture has failed.
    fn put(&self, seq: u64, out: Out) -> Option<Vec<u8>> {
        let mut state = lock(&self.state);
        while !state.stopped && seq > state.due + self.ahead_max {
            state = self.moved_on.wait(state).expect("a panic of a worker ends the capture before this");
        }
        if state.stopped {
            return None;
        }
        state.early.insert(seq, out);
        let mut spare = Vec::new();
        loop {
            let due = state.due;
            let Some(out) = state.early.remove(&due) else { break };
            match state.spool.write(out) {
                Ok(frame) => spare = frame,
                Err(error) => {
                    drop(state);
                    self.fail(error);
                    return None;
                }
            }
            state.due += 1;
        }
        self.moved_on.notify_all();
        Some(spare)
    }

    fn finish(self) -> Result<Captured> {
        let state = self.state.into_inner().expect("a panic of a worker was raised again by the scope");
        match state.failed {
            Some(error) => Err(error),
            None => state.spool.finish(),
        }
    }
}
