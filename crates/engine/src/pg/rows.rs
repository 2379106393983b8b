//! How many rows of each table a dump in the custom format holds, counted while
//! it passes: COPY writes one line for a row, whatever is in it. The server has
//! nothing to do with it, and nothing is read twice.
//!
//! The layout is that of pg_dump's source (pg_backup_archiver.c, WriteHead and
//! WriteToc; pg_backup_custom.c for the data). It is not promised to stay: of a
//! version that is not known here nothing is counted.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

/// The versions of the layout that are known, as its header has them.
const KNOWN: std::ops::RangeInclusive<(u8, u8)> = (1, 12)..=(1, 16);
/// The layout of one file.
const CUSTOM: u64 = 1;
/// The longest part of the list of contents that is waited for, in bytes.
const PART_MAX: usize = 64 << 20;
/// What ends the data of a table.
const END: [u8; 5] = *b"\\.\n\n\n";
/// How many of the lines are that.
const END_LINES: u64 = 3;

/// The rows of each table, by `schema.table`; `None` as long as the dump has
/// not ended, or where it was not understood.
pub(crate) type Found = Arc<Mutex<Option<BTreeMap<String, u64>>>>;

/// A dump that passes, and is counted.
pub(crate) struct Counted<R> {
    dump: R,
    counter: Counter,
    found: Found,
}

impl<R: Read> Counted<R> {
    /// What is read of `dump` is counted, and at its end known in `found`.
    pub(crate) fn new(dump: R, found: &Found) -> Self {
        Self { dump, counter: Counter::default(), found: Arc::clone(found) }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.dump.read(buffer)?;
        self.counter.see(&buffer[..read]);
        if read == 0 && !buffer.is_empty() {
            *self.found.lock().unwrap_or_else(PoisonError::into_inner) = self.counter.rows();
        }
        Ok(read)
    }
}

/// Where in the dump it is.
#[derive(Debug, Default, PartialEq)]
enum At {
    #[default]
    Head,
    /// So many items of the list of contents are to come.
    Contents(u64),
    /// Data of the next item, or the end.
    Between,
    /// The length of the next piece of data.
    Length,
    /// Within a piece; so many bytes of it are to come.
    Piece(u64),
    /// The next large object, or their end.
    Object,
    /// Not understood: nothing is counted any more.
    Lost,
}

/// The table whose data passes.
#[derive(Debug, Default)]
struct Table {
    /// `None`: it is something else than a table.
    name: Option<String>,
    lines: u64,
    /// The last bytes.
    tail: [u8; END.len()],
    /// Whether what passes are large objects, of which there are several.
    is_objects: bool,
}

#[derive(Debug, Default)]
struct Counter {
    at: At,
    /// What has come of a part that is not whole yet.
    held: Vec<u8>,
    version: (u8, u8),
    int_bytes: usize,
    offset_bytes: usize,
    /// Tables by the numbers of their data.
    tables: BTreeMap<u64, String>,
    table: Table,
    rows: BTreeMap<String, u64>,
}

/// Parts of the dump as they come; `None` where more bytes are needed.
struct Parts<'b> {
    bytes: &'b [u8],
    int_bytes: usize,
}

impl<'b> Parts<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|taken| taken[0])
    }

    /// A number, by its sign and its bytes from the least on.
    fn int(&mut self) -> Option<i64> {
        let is_negative = self.byte()? != 0;
        let bytes = self.take(self.int_bytes)?;
        let value = bytes.iter().rev().fold(0_i64, |value, byte| value.wrapping_shl(8) | i64::from(*byte));
        Some(if is_negative { -value } else { value })
    }

    /// A text; inside, `None` for NULL.
    fn text(&mut self) -> Option<Option<&'b [u8]>> {
        match usize::try_from(self.int()?) {
            Ok(length) => self.take(length).map(Some),
            Err(_) => Some(None),
        }
    }

    fn skip_texts(&mut self, count: usize) -> Option<()> {
        (0..count).try_for_each(|_| self.text().map(drop))
    }
}

/// A part was read, or what was read makes no sense.
type Part<T> = Option<Result<T, ()>>;

impl Counter {
    /// The next bytes.
    fn see(&mut self, bytes: &[u8]) {
        if self.at == At::Lost {
            return;
        }
        if let (At::Piece(_), true) = (&self.at, self.held.is_empty()) {
            return self.go_through(bytes);
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(bytes);
        self.go_through(&held);
    }

    fn go_through(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() && self.at != At::Lost {
            if self.at == At::Length {
                rest = self.whole_pieces(rest);
            }
            if let At::Piece(left) = self.at {
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                self.table.see(&rest[..count]);
                rest = &rest[count..];
                let left = left - count as u64;
                self.at = if left == 0 { At::Length } else { At::Piece(left) };
                continue;
            }
            let mut parts = Parts { bytes: rest, int_bytes: self.int_bytes };
            match self.part(&mut parts) {
                Some(Ok(at)) => (self.at, rest) = (at, parts.bytes),
                Some(Err(())) => self.at = At::Lost,
                None if rest.len() > PART_MAX => self.at = At::Lost,
                None => {
                    self.held = rest.to_vec();
                    return;
                }
            }
        }
    }

    /// Goes through the pieces that `bytes` begins with, as far as they are whole,
    /// and gives back what follows. There is a piece for every row, so that most of
    /// a dump passes here; whatever else it is than that, is left to the others.
    fn whole_pieces<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let mut rest = bytes;
        while let ([0, a, b, c, d, after @ ..], 4) = (rest, self.int_bytes) {
            let length = usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
            if length == 0 || length > after.len() {
                break;
            }
            let piece;
            (piece, rest) = after.split_at(length);
            self.table.see(piece);
        }
        rest
    }

    /// Reads the next part that is no data, and says what comes then.
    fn part(&mut self, parts: &mut Parts<'_>) -> Part<At> {
        match self.at {
            At::Head => self.head(parts),
            At::Contents(left) => self.item(parts, left),
            At::Between => {
                let kind = parts.byte()?;
                let number = parts.int()?;
                let name = u64::try_from(number).ok().and_then(|number| self.tables.get(&number).cloned());
                self.table = Table { name, is_objects: kind == 3, ..Table::default() };
                Some(match kind {
                    1 => Ok(At::Length),
                    3 => Ok(At::Object),
                    _ => Err(()),
                })
            }
            At::Object => {
                let is_over = parts.int()? == 0;
                Some(Ok(if is_over { At::Between } else { At::Length }))
            }
            At::Length => match u64::try_from(parts.int()?) {
                Ok(0) if self.table.is_objects => Some(Ok(At::Object)),
                Ok(0) => Some(self.end_table().map(|()| At::Between)),
                Ok(length) => Some(Ok(At::Piece(length))),
                Err(_) => Some(Err(())),
            },
            At::Piece(_) | At::Lost => Some(Err(())),
        }
    }

    fn head(&mut self, parts: &mut Parts<'_>) -> Part<At> {
        let magic = parts.take(5)?;
        let [major, minor, _revision, int_bytes, offset_bytes, format] = *parts.take(6)? else { return Some(Err(())) };
        let is_known = magic == b"PGDMP" && KNOWN.contains(&(major, minor)) && u64::from(format) == CUSTOM;
        if !is_known || !matches!(int_bytes, 1..=8) || !matches!(offset_bytes, 1..=8) {
            return Some(Err(()));
        }
        (self.version, self.int_bytes, self.offset_bytes) = ((major, minor), int_bytes.into(), offset_bytes.into());
        parts.int_bytes = self.int_bytes;
        let compression = if self.version >= (1, 15) { i64::from(parts.byte()?) } else { parts.int()? };
        // When it was made, in seven numbers; the database; the versions of the server and of pg_dump.
        for _ in 0..7 {
            parts.int()?;
        }
        parts.skip_texts(3)?;
        let count = u64::try_from(parts.int()?);
        Some(match count {
            Ok(0) if compression == 0 => Ok(At::Between),
            Ok(count) if compression == 0 => Ok(At::Contents(count)),
            _ => Err(()),
        })
    }

    /// One item of the list of contents.
    fn item(&mut self, parts: &mut Parts<'_>, left: u64) -> Part<At> {
        let number = u64::try_from(parts.int()?);
        parts.int()?;
        parts.skip_texts(2)?;
        let (tag, kind) = (parts.text()?, parts.text()?);
        parts.int()?;
        parts.skip_texts(3)?;
        let schema = parts.text()?;
        // The tablespace, and since version 12 how a table is stored.
        parts.skip_texts(if self.version >= (1, 14) { 2 } else { 1 })?;
        if self.version >= (1, 16) {
            parts.int()?;
        }
        // The owner, and what is left of row OIDs.
        parts.skip_texts(2)?;
        while parts.text()?.is_some() {}
        parts.take(1 + self.offset_bytes)?;
        if let (Ok(number), Some(b"TABLE DATA"), Some(schema), Some(tag)) = (number, kind, schema, tag) {
            let name = format!("{}.{}", String::from_utf8_lossy(schema), String::from_utf8_lossy(tag));
            self.rows.insert(name.clone(), 0);
            self.tables.insert(number, name);
        }
        Some(Ok(if left > 1 { At::Contents(left - 1) } else { At::Between }))
    }

    fn end_table(&mut self) -> Result<(), ()> {
        let Some(name) = self.table.name.take() else { return Ok(()) };
        if self.table.tail != END {
            return Err(());
        }
        self.rows.insert(name, self.table.lines - END_LINES);
        Ok(())
    }

    /// The rows; `None` where the dump has not ended, or was not understood.
    fn rows(&self) -> Option<BTreeMap<String, u64>> {
        (self.at == At::Between && self.held.is_empty()).then(|| self.rows.clone())
    }
}

impl Table {
    fn see(&mut self, bytes: &[u8]) {
        if self.name.is_none() {
            return;
        }
        self.lines += lines(bytes);
        if let Some(last) = bytes.last_chunk() {
            self.tail = *last;
        } else {
            self.tail.rotate_left(bytes.len());
            self.tail[END.len() - bytes.len()..].copy_from_slice(bytes);
        }
    }
}

/// How many lines end in `bytes`. Summed up in bytes, which the compiler makes
/// instructions of that look at many of them at once.
fn lines(bytes: &[u8]) -> u64 {
    let ends = |part: &[u8]| part.iter().fold(0_u8, |sum, byte| sum.wrapping_add(u8::from(*byte == b'\n')));
    bytes.chunks(usize::from(u8::MAX)).map(|part| u64::from(ends(part))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int(value: i64) -> Vec<u8> {
        let bytes = u32::try_from(value.unsigned_abs()).unwrap().to_le_bytes();
        [&[u8::from(value < 0)][..], &bytes].concat()
    }

    fn text(text: &str) -> Vec<u8> {
        [int(i64::try_from(text.len()).unwrap()), text.as_bytes().to_vec()].concat()
    }

    fn item(minor: u8, number: i64, kind: &str, tag: &str) -> Vec<u8> {
        let mut item = [int(number), int(1), text("0"), text("0"), text(tag), text(kind), int(3)].concat();
        item.extend([text("defn\n"), text(""), text("COPY"), text("s"), text("")].concat());
        if minor >= 14 {
            item.extend(text("heap"));
        }
        if minor >= 16 {
            item.extend(int(114));
        }
        item.extend([text("owner"), text("false"), text("7"), int(-1)].concat());
        item.extend([0; 9]);
        item
    }

    /// A dump with the tables `a` (two rows) and `b` (none), and two large objects.
    fn dump(minor: u8) -> Vec<u8> {
        let mut dump = [&b"PGDMP"[..], &[1, minor, 0, 4, 8, 1]].concat();
        dump.extend(if minor >= 15 { vec![0] } else { int(0) });
        (0..7).for_each(|number| dump.extend(int(number)));
        dump.extend([text("db"), text("15.1"), text("15.1"), int(4)].concat());
        for (number, kind, tag) in
            [(5, "TABLE", "a"), (6, "TABLE DATA", "a"), (7, "TABLE DATA", "b"), (8, "BLOBS", "BLOBS")]
        {
            dump.extend(item(minor, number, kind, tag));
        }
        let data = |number| [&[1][..], &int(number)].concat();
        dump.extend([data(6), text("1\tx\\n\n2\ty"), text("\n\\."), text("\n\n\n"), int(0)].concat());
        dump.extend([data(7), text("\\.\n\n\n"), int(0)].concat());
        dump.extend([&[3][..], &int(8), &int(770), &text("\n\n"), &int(0), &int(771), &int(0), &int(0)].concat());
        dump
    }

    /// Shows D11.
    #[test]
    fn rows_are_counted_however_the_dump_comes() {
        let expected = BTreeMap::from([("s.a".to_owned(), 2), ("s.b".to_owned(), 0)]);
        for minor in 12..=16 {
            let dump = dump(minor);
            for piece in [1, 2, 3, 7, dump.len()] {
                let mut counter = Counter::default();
                dump.chunks(piece).for_each(|piece| counter.see(piece));
                assert_eq!(counter.rows(), Some(expected.clone()), "version 1.{minor}, {piece} bytes at once");
            }
        }
    }

    /// Shows D11.
    #[test]
    fn what_is_cut_short_or_not_understood_has_no_rows() {
        let whole = dump(14);
        let of = |bytes: &[u8]| {
            let mut counter = Counter::default();
            counter.see(bytes);
            counter.rows()
        };
        let data = whole.windows(5).position(|part| part == [1, 0, 6, 0, 0]).unwrap();
        // Between two tables a dump that is cut short looks whole; the exit status tells that.
        let ends = (0..whole.len()).filter(|end| of(&whole[..*end]).is_some()).collect::<Vec<_>>();
        assert!(ends.len() <= 3 && ends.iter().all(|end| *end >= data), "{ends:?}");
        for (at, value) in [(0, b'X'), (6, 11), (6, 17), (10, 2), (8, 0), (12, 1), (data, 9)] {
            let mut broken = whole.clone();
            broken[at] = value;
            assert_eq!(of(&broken), None, "{value} at {at}");
        }
        let mut seen = Vec::new();
        let found = Found::default();
        Counted::new(&whole[..], &found).read_to_end(&mut seen).unwrap();
        assert!(seen == whole && found.lock().unwrap().is_some());
    }
}
