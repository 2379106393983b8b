//! From the bytes of an archive to units of tar, in order, decompressed ahead
//! on several threads. zstd frames that say how large they are (ours do) are
//! decompressed side by side; anything else is one stream.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use bytes::Bytes;
use lifeboat_store::{self as store, Cancel};
use zstd::zstd_safe::{self, DCtx};

use super::contents::{Contents, Cursor};
use super::unit::Unit;
use super::{BLOCK, header};
use crate::{Error, ErrorKind, Result};

/// The largest frame that is decompressed in one piece.
const FRAME_MAX_BYTES: usize = 16 << 20;
/// What a stream is handed on in.
const STREAM_STEP_BYTES: usize = 1 << 20;
/// How much is read at once while looking for frames. Little: what is larger, as
/// most blocks are, is read past this buffer to where it belongs.
const HEADERS_BYTES: usize = 16 << 10;
/// The largest window of a stream: 2 to this power, as `zstd` without `--long`.
const WINDOW_LOG_MAX: u32 = 27;

/// How the bytes are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Zstd,
    Gzip,
    Plain,
}

impl Packing {
    /// Tells it from the first bytes; at least 512 where the file has them.
    pub(super) fn detect(head: &[u8]) -> Option<Self> {
        match head {
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            _ if head.get(..BLOCK).is_some_and(header::begins_an_entry) => Some(Self::Plain),
            _ => None,
        }
    }
}

type Buffered = BufReader<Cursor>;

fn damaged(at: u64, what: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("the archive is damaged at byte {at}: {what}"))
}

/// An error while reading: the system's own, or damage that a decoder found.
fn read_error(at: u64, error: &io::Error) -> Error {
    if error.raw_os_error().is_some() {
        let message = format!("the archive could not be read at byte {at}: {error}");
        return Error::new(ErrorKind::Store(store::error::kind_of(error)), message);
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::corrupt("the archive is cut off"),
        _ => damaged(at, error),
    }
}

/// Runs `consume` on the units of `contents`, with `threads` decompressing ahead.
pub(super) fn with_units<T>(
    contents: &Contents,
    packing: Packing,
    threads: usize,
    cancel: &Cancel,
    consume: impl FnOnce(&mut Units<'_>) -> Result<T>,
) -> Result<T> {
    let reader = BufReader::with_capacity(HEADERS_BYTES, contents.reader()?);
    let scanner =
        Mutex::new(Scanner { reader, packing, next_seq: 0, is_over: false, starts: None, spares: Arc::default() });
    let slots = Slots { state: Mutex::default(), moved_on: Condvar::new(), ahead_max: threads as u64 + 2 };
    let threads = if packing == Packing::Zstd { threads.max(1) } else { 1 };
    thread::scope(|scope| {
        for number in 0..threads {
            let work = || {
                let _close = CloseOnPanic(&slots);
                decode(&scanner, &slots, cancel);
            };
            match thread::Builder::new().spawn_scoped(scope, work) {
                Err(error) if number == 0 => {
                    return Err(store::Error::io("start a thread for", Path::new("reading"), error).into());
                }
                // Fewer do as well.
                Err(_) => break,
                Ok(_) => {}
            }
        }
        // Also when `consume` panics: threads that wait for it must end.
        let _close = CloseOnDrop(&slots);
        consume(&mut Units { slots: &slots, next: 0 })
    })
}

/// The units in order.
pub(super) struct Units<'a> {
    slots: &'a Slots,
    next: u64,
}

impl Units<'_> {
    /// The next one; `None` at the end. After an error there may be more.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>> {
        let unit = self.slots.take(self.next)?;
        self.next += 1;
        unit.transpose()
    }
}

struct Slots {
    state: Mutex<SlotState>,
    moved_on: Condvar,
    ahead_max: u64,
}

#[derive(Default)]
struct SlotState {
    ready: BTreeMap<u64, Result<Bytes>>,
    taken: u64,
    end: Option<u64>,
    closed: bool,
}

struct CloseOnDrop<'a>(&'a Slots);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.0.moved_on.notify_all();
    }
}

struct CloseOnPanic<'a>(&'a Slots);

impl Drop for CloseOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            drop(CloseOnDrop(self.0));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a panic of a decoder closes the slots")
}

impl Slots {
    /// False when nobody wants it any more.
    fn put(&self, seq: u64, unit: Result<Bytes>) -> bool {
        let mut state = lock(&self.state);
        while !state.closed && seq > state.taken + self.ahead_max {
            state = self.moved_on.wait(state).expect("a panic of a decoder closes the slots");
        }
        state.ready.insert(seq, unit);
        self.moved_on.notify_all();
        !state.closed
    }

    fn end_at(&self, seq: u64) {
        lock(&self.state).end = Some(seq);
        self.moved_on.notify_all();
    }

    fn take(&self, seq: u64) -> Result<Option<Result<Bytes>>> {
        let mut state = lock(&self.state);
        loop {
            if let Some(unit) = state.ready.remove(&seq) {
                state.taken = seq + 1;
                self.moved_on.notify_all();
                return Ok(Some(unit));
            }
            if state.end.is_some_and(|end| seq >= end) {
                return Ok(None);
            }
            if state.closed {
                return Err(Error::corrupt("a decoder failed"));
            }
            state = self.moved_on.wait(state).expect("a panic of a decoder closes the slots");
        }
    }
}

fn decode(scanner: &Mutex<Scanner>, slots: &Slots, cancel: &Cancel) {
    let mut context = DCtx::try_create();
    let spares = Arc::clone(&lock(scanner).spares);
    loop {
        let mut scanner = lock(scanner);
        if let Err(error) = cancel.check() {
            scanner.is_over = true;
            let seq = scanner.number();
            slots.put(seq, Err(error.into()));
            return;
        }
        let found = if scanner.is_over { Ok(Found::End) } else { scanner.next() };
        let go_on = match found {
            Ok(Found::End) => {
                scanner.is_over = true;
                return slots.end_at(scanner.next_seq);
            }
            Ok(Found::Frame { at, frame, raw_len }) => {
                let seq = scanner.number();
                drop(scanner);
                slots.put(seq, decompress(context.as_mut(), &spares, at, frame, raw_len))
            }
            Ok(Found::Stream) => scanner.stream(slots, cancel),
            Err(error) => {
                scanner.is_over = !scanner.find_next_frame();
                let seq = scanner.number();
                slots.put(seq, Err(error))
            }
        };
        if !go_on {
            return;
        }
    }
}

/// Buffers that were used and can be used again.
#[derive(Default)]
struct Spares {
    frames: Mutex<Vec<Unit>>,
    raws: Mutex<Vec<Vec<u8>>>,
}

/// A decompressed unit, whose buffer is used again when nobody reads it any more.
struct Raw {
    bytes: Vec<u8>,
    spares: Arc<Spares>,
}

impl AsRef<[u8]> for Raw {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.spares.raws.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }
}

fn decompress(
    context: Option<&mut DCtx<'_>>,
    spares: &Arc<Spares>,
    at: u64,
    frame: Unit,
    raw_len: usize,
) -> Result<Bytes> {
    let context = context.ok_or_else(no_memory)?;
    let mut raw = Raw { bytes: lock(&spares.raws).pop().unwrap_or_default(), spares: Arc::clone(spares) };
    raw.bytes.clear();
    raw.bytes.reserve(raw_len);
    context.decompress(&mut raw.bytes, frame.filled()).map_err(|code| damaged(at, zstd_safe::get_error_name(code)))?;
    lock(&spares.frames).push(frame);
    if raw.bytes.len() == raw_len {
        Ok(Bytes::from_owner(raw))
    } else {
        Err(damaged(at, "a frame is not as long as it says"))
    }
}

fn no_memory() -> Error {
    Error::new(ErrorKind::Store(store::ErrorKind::Io), "there is no memory for a decompressor")
}

enum Found {
    /// A whole frame that says how much is in it.
    Frame {
        at: u64,
        frame: Unit,
        raw_len: usize,
    },
    /// What can only be read as a stream; the reader stands at its start.
    Stream,
    End,
}

/// Finds frames in the compressed bytes. Trusts no table, so that it also
/// reads what other tools wrote.
struct Scanner {
    reader: Buffered,
    packing: Packing,
    next_seq: u64,
    is_over: bool,
    /// Where frames start by the table at the end, once damage made it worth reading.
    starts: Option<Vec<u64>>,
    spares: Arc<Spares>,
}

impl Scanner {
    fn number(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq - 1
    }

    fn position(&self) -> u64 {
        self.reader.get_ref().at - self.reader.buffer().len() as u64
    }

    fn next(&mut self) -> Result<Found> {
        let at = self.position();
        let read_error = |error: io::Error| read_error(at, &error);
        if self.packing != Packing::Zstd {
            return Ok(if at == 0 { Found::Stream } else { Found::End });
        }
        loop {
            let at = self.position();
            let mut magic = Vec::new();
            self.reader.by_ref().take(4).read_to_end(&mut magic).map_err(read_error)?;
            match magic.as_slice() {
                [] => return Ok(Found::End),
                [0x28, 0xb5, 0x2f, 0xfd] => return self.frame(at),
                [0x50..=0x5f, 0x2a, 0x4d, 0x18] => self.skip().map_err(read_error)?,
                [_, _, _, _] => return Err(damaged(at, "no zstd frame begins here")),
                _ => return Err(Error::corrupt("the archive is cut off")),
            }
        }
    }

    /// Passes a skippable frame, whose magic was read (RFC 8878, 3.1.2).
    fn skip(&mut self) -> io::Result<()> {
        let mut len = [0; 4];
        self.reader.read_exact(&mut len)?;
        let len = u64::from(u32::from_le_bytes(len));
        let passed = io::copy(&mut self.reader.by_ref().take(len), &mut io::sink())?;
        if passed == len { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Reads the frame at `at`, whose magic was read (RFC 8878, 3.1.1).
    fn frame(&mut self, at: u64) -> Result<Found> {
        let mut frame = lock(&self.spares.frames).pop().unwrap_or_else(Unit::new);
        frame.clear();
        frame.push(&[0x28, 0xb5, 0x2f, 0xfd]);
        let take = |reader: &mut Buffered, frame: &mut Unit, count: usize| match frame.read_from(reader, count) {
            Ok(read) if read == count => Ok(()),
            Ok(_) => Err(Error::corrupt("the archive is cut off")),
            Err(error) => Err(read_error(at, &error)),
        };
        take(&mut self.reader, &mut frame, 1)?;
        let descriptor = frame.filled()[4];
        let is_single = descriptor & 0x20 != 0;
        let dictionary_len = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let size_len = [usize::from(is_single), 2, 4, 8][usize::from(descriptor >> 6)];
        take(&mut self.reader, &mut frame, usize::from(!is_single) + dictionary_len + size_len)?;
        let size_field = &frame.filled()[frame.len() - size_len..];
        let Some(raw_len) = content_size(size_field).filter(|len| *len <= FRAME_MAX_BYTES) else {
            self.reader.seek(SeekFrom::Start(at)).map_err(|error| read_error(at, &error))?;
            return Ok(Found::Stream);
        };
        loop {
            take(&mut self.reader, &mut frame, 3)?;
            let header = &frame.filled()[frame.len() - 3..];
            let header = u32::from_le_bytes([header[0], header[1], header[2], 0]);
            let len = usize::try_from(header >> 3).expect("21 bits");
            // A block of one repeated byte holds just that.
            take(&mut self.reader, &mut frame, if header >> 1 & 3 == 1 { 1 } else { len })?;
            if frame.len() > raw_len + (1 << 20) {
                return Err(damaged(at, "a frame is longer than its content"));
            }
            if header & 1 == 1 {
                break;
            }
        }
        let has_sum = descriptor & 4 != 0;
        take(&mut self.reader, &mut frame, if has_sum { 4 } else { 0 })?;
        Ok(Found::Frame { at, frame, raw_len })
    }

    /// Hands on a stream from here; false when nobody wants it any more.
    fn stream(&mut self, slots: &Slots, cancel: &Cancel) -> bool {
        let reader = self.reader.by_ref();
        let (go_on, is_over) = match self.packing {
            Packing::Plain => hand_on(reader, &mut self.next_seq, slots, cancel),
            Packing::Gzip => {
                hand_on(&mut flate2::bufread::MultiGzDecoder::new(reader), &mut self.next_seq, slots, cancel)
            }
            Packing::Zstd => match DCtx::try_create() {
                Some(mut context) => {
                    let mut decoder = zstd::Decoder::with_context(reader, &mut context).single_frame();
                    // The limit is zstd's own default; setting it cannot fail.
                    decoder.window_log_max(WINDOW_LOG_MAX).unwrap_or(());
                    hand_on(&mut decoder, &mut self.next_seq, slots, cancel)
                }
                None => {
                    self.next_seq += 1;
                    (slots.put(self.next_seq - 1, Err(no_memory())), true)
                }
            },
        };
        self.is_over = is_over || self.packing != Packing::Zstd;
        go_on
    }

    /// After damage: moves to the next place that the table at the end names
    /// (see [`super::codec::seek_table`]). False where there is none.
    fn find_next_frame(&mut self) -> bool {
        let here = self.position();
        let cursor = self.reader.get_ref();
        let starts = self.starts.get_or_insert_with(|| frame_starts(cursor).unwrap_or_default());
        // The starts ascend.
        let next = starts.partition_point(|at| *at < here);
        starts.get(next).is_some_and(|at| self.reader.seek(SeekFrom::Start(*at)).is_ok())
    }
}

/// The content size that a frame header's last bytes spell; `None`: unknown.
fn content_size(field: &[u8]) -> Option<usize> {
    let size = match *field {
        [size] => u64::from(size),
        [a, b] => u64::from(u16::from_le_bytes([a, b])) + 256,
        [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
        [_, _, _, _, _, _, _, _] => u64::from_le_bytes(field.try_into().ok()?),
        _ => return None,
    };
    usize::try_from(size).ok()
}

/// Reads `from` to its end, a step at a time. Returns whether anybody still
/// wants more, and whether nothing can follow.
fn hand_on(from: &mut impl Read, next_seq: &mut u64, slots: &Slots, cancel: &Cancel) -> (bool, bool) {
    loop {
        let mut step = Vec::new();
        let read = cancel.check().map_err(Error::from).and_then(|()| {
            let room = STREAM_STEP_BYTES as u64;
            from.by_ref().take(room).read_to_end(&mut step).map_err(|error| read_error(0, &error))
        });
        let (unit, is_over) = match read {
            Ok(0) => return (true, false),
            Ok(_) => (Ok(step.into()), false),
            Err(error) => (Err(error), true),
        };
        *next_seq += 1;
        let go_on = slots.put(*next_seq - 1, unit);
        if is_over || !go_on {
            return (go_on, is_over);
        }
    }
}

/// Where frames start, by the seekable table that ends the file; `None` where there is no sound one.
fn frame_starts(cursor: &Cursor) -> Option<Vec<u64>> {
    let file = cursor.plain()?;
    let len = file.metadata().ok()?.len();
    let mut footer = [0; 9];
    file.read_exact_at(&mut footer, len.checked_sub(9)?).ok()?;
    if footer[4..] != [0, 0xb1, 0xea, 0x92, 0x8f] {
        return None;
    }
    let count = u64::from(u32::from_le_bytes(footer[..4].try_into().ok()?));
    let table_at = len.checked_sub(9 + count * 8)?;
    let mut table = vec![0; usize::try_from(count * 8).ok()?];
    file.read_exact_at(&mut table, table_at).ok()?;
    let mut at = 0;
    Some(
        table
            .chunks_exact(8)
            .map(|row| {
                let start = at;
                at += u64::from(u32::from_le_bytes([row[0], row[1], row[2], row[3]])).max(1);
                start
            })
            .collect(),
    )
}
