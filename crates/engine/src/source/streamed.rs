//! A dump: what a program prints is the content of an entry, and is read while
//! it is captured. All entries of a source stand or fall together, and where
//! one falls, the source has failed.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use lifeboat_format::capture::{Content, Item, Opened, SIZE_UNKNOWN, Settled};
use lifeboat_format::model::{Entry, EntryKind, FileTime, Xattrs};
use lifeboat_format::monitor::Problem;
use lifeboat_format::path::EntryPath;

use crate::Result;

/// Nobody but its owner reads it: the database may be closed to others.
const MODE: u32 = 0o600;
/// Within how many bytes of its end the last line of a dump has to begin. What
/// follows it is a few short lines.
const ENDING_MAX_BYTES: usize = 512;

/// Begins a stream. Its end must come only when all that belongs to it came.
pub(crate) type Start = Arc<dyn Fn() -> Result<Box<dyn Read + Send>> + Send + Sync>;

/// What became of the streams of a run. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Both>>);

#[derive(Default)]
struct Both {
    failed: BTreeMap<String, String>,
    bytes: BTreeMap<EntryPath, u64>,
}

impl Seen {
    /// Why sources failed, by their names: the first failure of each.
    pub(crate) fn failed(&self) -> BTreeMap<String, String> {
        self.both(|both| both.failed.clone())
    }

    /// How long the entry at `path` is, if it was read to its end.
    pub(crate) fn bytes(&self, path: &EntryPath) -> Option<u64> {
        self.both(|both| both.bytes.get(path).copied())
    }

    fn both<T>(&self, see: impl FnOnce(&mut Both) -> T) -> T {
        see(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// An entry that streams, once it is read.
pub(crate) struct Streamed {
    path: EntryPath,
    /// Its source.
    source: String,
    mtime: FileTime,
    start: Start,
    last_line: Option<&'static str>,
    seen: Seen,
}

impl Streamed {
    /// The entry `path` of `source`, as the source was at `point`.
    pub(crate) fn new(path: EntryPath, source: &str, point: Timestamp, start: Start, seen: &Seen) -> Self {
        let nanos = point.as_nanosecond();
        let mtime = FileTime {
            seconds: i64::try_from(nanos.div_euclid(1_000_000_000)).expect("a timestamp in seconds fits"),
            nanos: u32::try_from(nanos.rem_euclid(1_000_000_000)).expect("less than a second"),
        };
        Self { path, source: source.to_owned(), mtime, start, last_line: None, seen: seen.clone() }
    }

    /// It is whole only with a line that begins so near its end.
    pub(crate) fn ends_with(mut self, last_line: &'static str) -> Self {
        self.last_line = Some(last_line);
        self
    }

    fn entry(&self) -> Entry {
        Entry {
            path: self.path.clone(),
            kind: EntryKind::File,
            size: SIZE_UNKNOWN,
            mode: MODE,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            user: Vec::new(),
            group: Vec::new(),
            mtime: self.mtime,
            target: Vec::new(),
            rdev: None,
            xattrs: Xattrs::default(),
            sparse: false,
        }
    }
}

impl Item for Streamed {
    fn path(&self) -> &EntryPath {
        &self.path
    }

    fn size(&self) -> u64 {
        SIZE_UNKNOWN
    }

    fn is_file(&self) -> bool {
        true
    }

    fn is_linked(&self) -> bool {
        false
    }

    fn group(&self) -> Option<&str> {
        Some(&self.source)
    }

    fn open(&self) -> std::result::Result<Opened, Problem> {
        let content = Reading {
            path: self.path.clone(),
            source: self.source.clone(),
            from: From::NotYet(Arc::clone(&self.start)),
            last_line: self.last_line,
            end: Vec::new(),
            bytes: 0,
            seen: self.seen.clone(),
        };
        Ok(Opened { entry: self.entry(), content: Some(Box::new(content)) })
    }
}

/// The stream of an entry, which begins with the first read, so that there is
/// one place where it can fail.
struct Reading {
    path: EntryPath,
    source: String,
    from: From,
    last_line: Option<&'static str>,
    /// The last bytes so far, where they matter.
    end: Vec<u8>,
    bytes: u64,
    seen: Seen,
}

enum From {
    NotYet(Start),
    Stream(Box<dyn Read + Send>),
    Over,
}

impl Reading {
    fn pull(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let From::NotYet(start) = &self.from {
            self.from = From::Stream(start().map_err(io::Error::other)?);
        }
        let From::Stream(stream) = &mut self.from else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let read = stream.read(buffer)?;
        if read == 0 && !buffer.is_empty() {
            self.check_end()?;
            self.seen.both(|both| both.bytes.insert(self.path.clone(), self.bytes));
        }
        self.bytes += read as u64;
        if self.last_line.is_some() {
            let last = &buffer[read.saturating_sub(ENDING_MAX_BYTES)..read];
            self.end.drain(..(self.end.len() + last.len()).saturating_sub(ENDING_MAX_BYTES));
            self.end.extend_from_slice(last);
        }
        Ok(read)
    }

    fn check_end(&self) -> io::Result<()> {
        let Some(last_line) = self.last_line else { return Ok(()) };
        if self.end.split(|byte| *byte == b'\n').any(|line| line.starts_with(last_line.as_bytes())) {
            return Ok(());
        }
        Err(io::Error::other(format!("it does not end with \"{last_line}\"")))
    }
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.pull(buffer);
        if let Err(error) = &read
            && error.kind() != io::ErrorKind::Interrupted
        {
            // What runs is ended now, not when all else was read.
            self.from = From::Over;
            let message = format!("{} could not be made: {error}", self.path);
            self.seen.both(|both| {
                both.failed.entry(self.source.clone()).or_insert(message);
            });
        }
        read
    }
}

impl Content for Reading {
    fn settle(&mut self) -> Settled {
        Settled::Same
    }
}

#[cfg(test)]
mod tests;
