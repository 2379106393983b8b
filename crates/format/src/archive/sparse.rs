//! Where the content of a file with holes lies, in the four ways in which GNU
//! tar stores that ("Sparse Formats" in its manual): the old one (type `S`),
//! and 0.0, 0.1 and 1.0 in PAX records. Only other people's archives have
//! them. A map is believed when it ascends, stays within the file, and is of
//! just the bytes that are stored.

use std::collections::VecDeque;

use bytes::Bytes;
use tar::Header;

use super::BLOCK;
use super::header::number_of;
use crate::{Error, ErrorKind, Result};

/// More pieces than any honest file has in the room that they are given.
const SEGMENTS_MAX: usize = 1 << 20;
/// The longest that a file can be.
const SIZE_MAX: u64 = i64::MAX as u64;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

fn refuse(why: &str) -> Error {
    Error::new(ErrorKind::Unsafe, format!("the map of a sparse file is wrong: {why}"))
}

/// A piece of the file that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    at: u64,
    len: u64,
}

/// The pieces of a file, in order; what lies between them is holes.
#[derive(Debug, Default)]
pub(super) struct Map {
    segments: VecDeque<Segment>,
    /// How long the file is.
    pub(super) size: u64,
    /// How far it was handed on.
    at: u64,
}

/// What comes next of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Hole(u64),
    Stored(u64),
    End,
}

impl Map {
    /// Adds a piece.
    fn push(&mut self, at: u64, len: u64) -> Result<()> {
        if self.segments.len() >= SEGMENTS_MAX {
            return Err(refuse("it has too many pieces"));
        }
        let begins = self.segments.back().map_or(0, |last| last.at + last.len);
        if at < begins {
            return Err(refuse("a piece begins before the one before it ends"));
        }
        if at.checked_add(len).is_none_or(|end| end > SIZE_MAX) {
            return Err(refuse("a piece lies beyond every file"));
        }
        self.segments.push_back(Segment { at, len });
        Ok(())
    }

    /// The whole map of a file of `size` bytes, `stored` of which are there.
    fn checked(mut self, size: u64, stored: u64) -> Result<Self> {
        let end = self.segments.back().map_or(0, |last| last.at + last.len);
        if size > SIZE_MAX {
            return Err(refuse("it is of a file that is longer than files can be"));
        }
        if end > size {
            return Err(refuse("a piece lies beyond the end of the file"));
        }
        // No overflow: they lie apart, within `size`.
        let sum: u64 = self.segments.iter().map(|segment| segment.len).sum();
        if sum != stored {
            return Err(refuse(&format!("it is of {sum} bytes, and {stored} are stored")));
        }
        self.segments.retain(|segment| segment.len > 0);
        self.size = size;
        Ok(self)
    }

    /// What comes next, at most that long.
    pub(super) fn step(&self) -> Step {
        match self.segments.front() {
            Some(segment) if segment.at > self.at => Step::Hole(segment.at - self.at),
            Some(segment) => Step::Stored(segment.at + segment.len - self.at),
            None if self.at < self.size => Step::Hole(self.size - self.at),
            None => Step::End,
        }
    }

    /// `len` bytes of the step were handed on.
    pub(super) fn pass(&mut self, len: u64) {
        self.at += len;
        while self.segments.front().is_some_and(|segment| segment.at + segment.len <= self.at) {
            self.segments.pop_front();
        }
    }
}

/// Some zeros, at most `len`.
pub(super) fn zeros(len: u64) -> Bytes {
    let len = usize::try_from(len).unwrap_or(ZEROS.len()).min(ZEROS.len());
    Bytes::from_static(&ZEROS[..len])
}

/// Where the bytes of a map that stands before the content come from.
pub(super) trait Blocks {
    fn block(&mut self) -> Result<Bytes>;
}

fn field(bytes: &[u8]) -> Result<u64> {
    number_of(bytes).and_then(|number| u64::try_from(number).ok()).ok_or_else(|| refuse("a number of it is none"))
}

/// Adds the pieces of `table`; false when it ended with an empty row.
fn add_rows(map: &mut Map, table: &[u8]) -> Result<bool> {
    for row in table.chunks_exact(24) {
        // Rows of zero bytes follow the last.
        if row.iter().all(|byte| *byte == 0) {
            return Ok(false);
        }
        map.push(field(&row[..12])?, field(&row[12..])?)?;
    }
    Ok(true)
}

/// The map of the old format: four rows in the header, 21 in each block that follows while the one before says so.
pub(super) fn of_header(header: &Header, stored: u64, blocks: &mut dyn Blocks) -> Result<Map> {
    let bytes = header.as_bytes();
    // Where other headers have a longer prefix there is no map.
    if &bytes[257..265] != b"ustar  \0" {
        return Err(refuse("its header is not GNU tar's"));
    }
    let mut map = Map::default();
    let mut is_open = add_rows(&mut map, &bytes[386..482])?;
    let mut goes_on = bytes[482] != 0;
    while goes_on {
        let block = blocks.block()?;
        if !is_open {
            return Err(refuse("it goes on after its end"));
        }
        is_open = add_rows(&mut map, &block[..504])?;
        goes_on = block[504] != 0;
    }
    map.checked(field(&bytes[483..495])?, stored)
}

/// What PAX records say of a sparse file.
#[derive(Debug, Default)]
pub(super) struct Records {
    version: (Option<u64>, Option<u64>),
    pub(super) name: Option<Vec<u8>>,
    size: Option<u64>,
    count: Option<u64>,
    /// Offsets and lengths in turn.
    numbers: Vec<u64>,
    is_any: bool,
}

fn decimal(text: &[u8]) -> Result<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(text).ok().filter(|_| is_number).and_then(|text| text.parse().ok());
    number.ok_or_else(|| refuse("a number of it is none"))
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<()> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(refuse("it says the same thing twice")),
    }
}

impl Records {
    pub(super) fn is_any(&self) -> bool {
        self.is_any
    }

    /// Adds the record `GNU.sparse.<key>`.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.is_any = true;
        match key {
            b"major" => once(&mut self.version.0, decimal(value)?),
            b"minor" => once(&mut self.version.1, decimal(value)?),
            b"name" => once(&mut self.name, value.to_vec()),
            b"size" | b"realsize" => once(&mut self.size, decimal(value)?),
            b"numblocks" => once(&mut self.count, decimal(value)?),
            b"offset" | b"numbytes" => {
                let is_offset = self.numbers.len().is_multiple_of(2);
                if is_offset != (key == b"offset") {
                    return Err(refuse("a piece has no beginning or no length"));
                }
                self.numbers.push(decimal(value)?);
                Ok(())
            }
            b"map" if self.numbers.is_empty() => {
                let texts = value.split(|byte| *byte == b',').filter(|_| !value.is_empty());
                self.numbers = texts.map(decimal).collect::<Result<_>>()?;
                Ok(())
            }
            b"map" => Err(refuse("it says the same thing twice")),
            _ => Err(refuse("it has a part that nobody knows")),
        }
    }

    /// The map that these records, and for 1.0 the first blocks of the content,
    /// say; and how many bytes of the content those blocks are.
    pub(super) fn map(self, stored: u64, blocks: &mut dyn Blocks) -> Result<(Map, u64)> {
        let size = self.size.ok_or_else(|| refuse("it does not say how long the file is"))?;
        match self.version {
            (None | Some(0), _) => Ok((self.of_numbers(size, stored)?, 0)),
            (Some(1), Some(0)) if self.numbers.is_empty() => {
                let (map, read) = before_content(stored, blocks)?;
                Ok((map.checked(size, stored - read)?, read))
            }
            (Some(1), Some(0)) => Err(refuse("it says the same thing twice")),
            (major, minor) => {
                let (major, minor) = (major.unwrap_or(0), minor.unwrap_or(0));
                let message = format!("the archive holds sparse files of GNU tar's format {major}.{minor}");
                Err(Error::new(ErrorKind::Unsupported, format!("{message}; extract it with GNU tar")))
            }
        }
    }

    fn of_numbers(self, size: u64, stored: u64) -> Result<Map> {
        let mut map = Map::default();
        let pairs = self.numbers.chunks_exact(2);
        if !pairs.remainder().is_empty() || self.count.is_some_and(|count| count != pairs.len() as u64) {
            return Err(refuse("it has not as many pieces as it says"));
        }
        pairs.into_iter().try_for_each(|pair| map.push(pair[0], pair[1]))?;
        map.checked(size, stored)
    }
}

/// The map of 1.0: decimal numbers, a line each, how many pieces there are and
/// then their offsets and lengths, filled up to a block.
fn before_content(stored: u64, blocks: &mut dyn Blocks) -> Result<(Map, u64)> {
    let mut lines = Lines { blocks, stored, read: 0, block: Bytes::new() };
    let mut map = Map::default();
    let count = lines.number()?;
    for _ in 0..count {
        let at = lines.number()?;
        map.push(at, lines.number()?)?;
    }
    Ok((map, lines.read))
}

struct Lines<'a> {
    blocks: &'a mut dyn Blocks,
    stored: u64,
    read: u64,
    block: Bytes,
}

impl Lines<'_> {
    fn number(&mut self) -> Result<u64> {
        let mut text = Vec::new();
        loop {
            if self.block.is_empty() {
                self.read += BLOCK as u64;
                if self.read > self.stored {
                    return Err(refuse("it is longer than the file's content"));
                }
                self.block = self.blocks.block()?;
            }
            match self.block.split_to(1)[0] {
                b'\n' => return decimal(&text),
                digit if text.len() < 20 => text.push(digit),
                _ => return Err(refuse("a number of it is none")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct NoBlocks;

    impl Blocks for NoBlocks {
        fn block(&mut self) -> Result<Bytes> {
            Err(refuse("no blocks"))
        }
    }

    fn of_map(text: &str, size: u64, stored: u64) -> Result<Map> {
        let mut records = Records::default();
        records.add(b"map", text.as_bytes())?;
        records.add(b"size", size.to_string().as_bytes())?;
        records.map(stored, &mut NoBlocks).map(|(map, _)| map)
    }

    #[test]
    fn holes_lie_before_between_and_after_the_pieces() {
        let mut map = of_map("10,5,20,1,30,0", 40, 6).unwrap();
        let mut steps = Vec::new();
        loop {
            let step = map.step();
            let (Step::Hole(len) | Step::Stored(len)) = step else { break };
            // In two pieces, where that is possible.
            map.pass(len / 2);
            map.pass(len - len / 2);
            steps.push(step);
        }
        assert_eq!(steps, [Step::Hole(10), Step::Stored(5), Step::Hole(5), Step::Stored(1), Step::Hole(19)]);
    }

    #[test]
    fn a_map_that_lies_is_refused() {
        for (text, size, stored) in [
            ("0,5,4,5", 100, 10),
            ("10,5,0,5", 100, 10),
            ("0,5", 4, 5),
            ("0,5", 10, 6),
            ("0,5", 10, 4),
            ("18446744073709551615,1", u64::MAX, 1),
            ("0,18446744073709551615", u64::MAX, u64::MAX),
            ("0", 10, 0),
            ("0,", 10, 0),
            ("-1,5", 10, 5),
            ("0,5", u64::MAX, 5),
        ] {
            assert_eq!(of_map(text, size, stored).unwrap_err().kind(), ErrorKind::Unsafe, "{text}");
        }
        assert!(of_map("", 10, 0).is_ok() && of_map("0,5", i64::MAX.unsigned_abs(), 5).is_ok());
    }
}
