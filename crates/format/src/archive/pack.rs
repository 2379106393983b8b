//! Packing one entry that fits into a unit: header, content, padding, and the
//! one retry of a file that changes while it is read.

use super::unit::Unit;
use super::{UNIT_BYTES, header};
use crate::capture::{Item, Settled};
use crate::model::{Entry, EntryKind, Sha256};
use crate::monitor::{Monitor, Problem, ProblemClass};
use crate::path::EntryPath;
use crate::record::Record;

/// An entry that is in a unit, with what the manifest says of it.
pub(super) struct Packed {
    pub(super) record: Vec<u8>,
    pub(super) is_file: bool,
    pub(super) is_sparse: bool,
    pub(super) bytes: u64,
}

impl Packed {
    pub(super) fn new(entry: &Entry, sha256: Option<Sha256>) -> Self {
        let record = serde_json::to_vec(&Record::new(entry, sha256)).expect("a record has nothing that JSON lacks");
        Self { record, is_file: entry.kind == EntryKind::File, is_sparse: entry.sparse, bytes: entry.size }
    }
}

/// One reading of a file.
struct Reading {
    entry: Entry,
    content_start: usize,
    sum: Sha256,
    settled: Settled,
}

/// Packs `item` into `unit`; `None` when it is left out, and `monitor` knows why.
pub(super) fn entry(item: &dyn Item, unit: &mut Unit, monitor: &dyn Monitor) -> Option<Packed> {
    let start = unit.len();
    match read_settled(item, unit, monitor) {
        Ok(packed) => Some(packed),
        Err(problem) => {
            unit.cut_back(start);
            monitor.problem(problem);
            None
        }
    }
}

fn read_settled(item: &dyn Item, unit: &mut Unit, monitor: &dyn Monitor) -> Result<Packed, Problem> {
    let start = unit.len();
    let first = match read(item, unit)? {
        Ok(reading) => reading,
        Err(no_file) => return Ok(Packed::new(&no_file, None)),
    };
    if first.settled == Settled::Same {
        return Ok(Packed::new(&first.entry, Some(first.sum)));
    }
    unit.cut_back(start);
    let second = match read(item, unit)? {
        Ok(reading) => reading,
        Err(no_file) => return Ok(Packed::new(&no_file, None)),
    };
    report_settled(settled_twice(&first, &second, unit), &second.entry.path, monitor);
    Ok(Packed::new(&second.entry, Some(second.sum)))
}

/// What two readings say together: a file only grew when it did so both times
/// and begins with what it was.
fn settled_twice(first: &Reading, second: &Reading, unit: &Unit) -> Settled {
    if second.settled != Settled::Grew {
        return second.settled;
    }
    let content = &unit.filled()[second.content_start..];
    let begins_as_before = usize::try_from(first.entry.size)
        .ok()
        .and_then(|len| content.get(..len))
        .is_some_and(|before| Sha256::of(before) == first.sum);
    if first.settled == Settled::Grew && begins_as_before { Settled::Grew } else { Settled::Changed }
}

/// Reads `item` once; the inner `Err` is an entry without content.
fn read(item: &dyn Item, unit: &mut Unit) -> Result<Result<Reading, Entry>, Problem> {
    let opened = item.open()?;
    let mut entry = opened.entry;
    let header_start = unit.len();
    unit.push(&header::encode(&entry));
    let Some(mut content) = opened.content else { return Ok(Err(entry)) };
    let unreadable = |message: String| Problem::new(ProblemClass::Unreadable, item.path().as_bytes(), message);
    // More than its listing said, by more than a unit's worth in all: it would break the bound on memory.
    let wanted = usize::try_from(entry.size).ok().filter(|size| unit.len() + size <= 2 * UNIT_BYTES);
    let wanted = wanted.ok_or_else(|| unreadable("it grew too fast while its directory was read".to_owned()))?;
    let content_start = unit.len();
    let read =
        unit.read_from(&mut *content, wanted).map_err(|error| unreadable(format!("it could not be read: {error}")))?;
    let sum = Sha256::of(&unit.filled()[content_start..]);
    let mut settled = content.settle();
    if read < wanted {
        settled = Settled::Changed;
        entry.size = read as u64;
        let header = header::encode(&entry);
        unit.patch(header_start, &header);
    }
    unit.pad(entry.size);
    Ok(Ok(Reading { entry, content_start, sum, settled }))
}

/// Tells `monitor` how a file stood after it was read for the last time.
pub(super) fn report_settled(settled: Settled, path: &EntryPath, monitor: &dyn Monitor) {
    let (class, message) = match settled {
        Settled::Same => return,
        Settled::Grew => (ProblemClass::Grew, "it was appended to while it was read; stored up to its size at opening"),
        Settled::Changed => (ProblemClass::Changed, "it changed while it was read"),
    };
    monitor.problem(Problem::new(class, path.as_bytes(), message));
}
