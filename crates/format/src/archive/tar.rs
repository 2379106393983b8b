//! From units to the entries of a tar stream. Stricter than most readers:
//! what two readers could understand differently is refused.

use bytes::Bytes;
use tar::{EntryType, Header};

use super::decode::Units;
use super::header::{self, Defaults, Extensions, checked, number_of};
use super::sparse::{self, Blocks, Map, Step};
use super::{BLOCK, padding};
use crate::model::{Entry, EntryKind};
use crate::path::{EntryPath, shown};
use crate::{Error, ErrorKind, Result};

/// The most that an extension header may hold: attributes of one entry, and two long names.
const EXTENSION_MAX_BYTES: u64 = 4 << 20;

/// The entries of a tar stream, whatever it comes from.
pub(super) trait Body {
    fn next(&mut self) -> Result<Option<Entry>>;
    fn content(&mut self) -> Result<Option<Bytes>>;
    fn whole_content(&mut self) -> Result<Option<Bytes>>;
    fn find_next_entry(&mut self) -> bool;

    /// Passes the hole that comes next in the content of the entry at hand, if
    /// one does, and says how long it is. Where nobody asks, it is zeros.
    fn hole(&mut self) -> u64 {
        0
    }

    /// Whether the entry at hand is stored without its holes, as Lifeboat never does.
    fn leaves_out_holes(&self) -> bool {
        false
    }
}

/// Reads entries in order; the content of one is read, or passed, before the next.
pub(super) struct Tar<'a, 'u> {
    units: &'a mut Units<'u>,
    unit: Bytes,
    content_left: u64,
    padding_left: usize,
    /// Of a file that is stored without its holes: where its content belongs.
    map: Option<Map>,
    /// What global headers said.
    defaults: Defaults,
}

/// The blocks that follow a header.
impl Blocks for Tar<'_, '_> {
    fn block(&mut self) -> Result<Bytes> {
        self.exactly(BLOCK)
    }
}

fn cut_off() -> Error {
    Error::corrupt("the archive is cut off")
}

impl<'a, 'u> Tar<'a, 'u> {
    pub(super) fn new(units: &'a mut Units<'u>) -> Self {
        Self { units, unit: Bytes::new(), content_left: 0, padding_left: 0, map: None, defaults: Defaults::default() }
    }

    /// Some bytes, at most `max`; `None` at the end of the stream.
    fn some(&mut self, max: u64) -> Result<Option<Bytes>> {
        while self.unit.is_empty() {
            let Some(unit) = self.units.next()? else { return Ok(None) };
            self.unit = unit;
        }
        let len = usize::try_from(max).unwrap_or(usize::MAX).min(self.unit.len());
        Ok(Some(self.unit.split_to(len)))
    }

    fn exactly(&mut self, len: usize) -> Result<Bytes> {
        let first = self.some(len as u64)?.ok_or_else(cut_off)?;
        if first.len() == len {
            return Ok(first);
        }
        let mut all = first.to_vec();
        while all.len() < len {
            all.extend_from_slice(&self.some((len - all.len()) as u64)?.ok_or_else(cut_off)?);
        }
        Ok(all.into())
    }

    /// The second block of zeros, and nothing but zeros after it.
    fn end(&mut self) -> Result<()> {
        let mut is_first = true;
        while let Some(rest) = self.some(u64::MAX)? {
            if rest.iter().any(|byte| *byte != 0) {
                return Err(Error::new(ErrorKind::Unsafe, "data follows the end of the archive"));
            }
            is_first = false;
        }
        if is_first { Err(cut_off()) } else { Ok(()) }
    }

    /// `len` bytes of a file with a map were handed on.
    fn pass(&mut self, len: usize) {
        if let Some(map) = &mut self.map {
            map.pass(len as u64);
        }
    }

    fn extension(&mut self, header: &Header) -> Result<Bytes> {
        let size = plain_size(header)?;
        if size > EXTENSION_MAX_BYTES {
            return Err(Error::new(ErrorKind::Unsafe, format!("an extension header says it holds {size} bytes")));
        }
        let len = usize::try_from(size).expect("a few MiB");
        let data = self.exactly(len)?;
        self.exactly(padding(size))?;
        Ok(data)
    }

    /// `None` for the entry `./`, which says nothing.
    fn entry(&mut self, header: &Header, entry_type: EntryType, mut extensions: Extensions) -> Result<Option<Entry>> {
        let real_name = extensions.sparse.name.take();
        let name = match real_name.or_else(|| extensions.path.clone()) {
            Some(name) => name,
            None => header::name(header),
        };
        let kind = kind(entry_type, &name)?;
        let stored = size(header, &extensions, kind)?;
        let sparse = std::mem::take(&mut extensions.sparse);
        let (map, map_len) = self.map(header, entry_type, sparse, stored)?;
        let size = map.as_ref().map_or(stored, |map| map.size);
        let name = plain_name(&name);
        if name.is_empty() && kind == EntryKind::Dir {
            return Ok(None);
        }
        let path = EntryPath::new(name)?;
        extensions.add_defaults(&self.defaults);
        let mut entry = extensions.entry(header, path, kind, size)?;
        entry.sparse = map.is_some();
        self.content_left = stored - map_len;
        self.padding_left = padding(stored);
        self.map = map;
        Ok(Some(entry))
    }

    /// Where the content of a file belongs that is stored without its holes; and how much of it the map itself is.
    fn map(
        &mut self,
        header: &Header,
        entry_type: EntryType,
        records: sparse::Records,
        stored: u64,
    ) -> Result<(Option<Map>, u64)> {
        match (entry_type, records.is_any()) {
            (EntryType::Regular, true) => {
                let (map, read) = records.map(stored, self)?;
                Ok((Some(map), read))
            }
            (EntryType::GNUSparse, false) => Ok((Some(sparse::of_header(header, stored, self)?), 0)),
            (_, false) => Ok((None, 0)),
            (_, true) => Err(Error::new(ErrorKind::Unsafe, "an entry that is no file has the map of a sparse file")),
        }
    }
}

impl Body for Tar<'_, '_> {
    /// The next piece of the content of the entry at hand; `None` at its end.
    fn content(&mut self) -> Result<Option<Bytes>> {
        let max = match self.map.as_ref().map(Map::step) {
            None => self.content_left,
            Some(Step::Stored(len)) => len.min(self.content_left),
            Some(Step::Hole(len)) => {
                let zeros = sparse::zeros(len);
                self.pass(zeros.len());
                return Ok(Some(zeros));
            }
            Some(Step::End) => 0,
        };
        if max == 0 {
            return Ok(None);
        }
        let piece = self.some(max)?.ok_or_else(cut_off)?;
        self.content_left -= piece.len() as u64;
        self.pass(piece.len());
        Ok(Some(piece))
    }

    fn hole(&mut self) -> u64 {
        match (self.map.as_ref().map(Map::step), &mut self.map) {
            (Some(Step::Hole(len)), Some(map)) => {
                map.pass(len);
                len
            }
            _ => 0,
        }
    }

    fn leaves_out_holes(&self) -> bool {
        self.map.is_some()
    }

    /// All of the content, where it lies in one unit; `None` otherwise.
    fn whole_content(&mut self) -> Result<Option<Bytes>> {
        match usize::try_from(self.content_left) {
            Ok(len) if len > 0 && len <= self.unit.len() && self.map.is_none() => self.content(),
            _ => Ok(None),
        }
    }

    /// The next entry; `None` after the last.
    fn next(&mut self) -> Result<Option<Entry>> {
        while self.hole() > 0 || self.content()?.is_some() {}
        self.map = None;
        if self.padding_left > 0 {
            let padding = std::mem::take(&mut self.padding_left);
            self.exactly(padding)?;
        }
        let mut extensions = Extensions::default();
        let mut has_pax = false;
        loop {
            let block = self.exactly(BLOCK)?;
            if block.iter().all(|byte| *byte == 0) {
                if has_pax || extensions.path.is_some() || extensions.linkpath.is_some() {
                    return Err(Error::new(ErrorKind::Unsafe, "an extension header is of no entry"));
                }
                self.end()?;
                return Ok(None);
            }
            let header = checked(&block)?;
            match header.entry_type() {
                EntryType::XHeader if has_pax => {
                    return Err(Error::new(ErrorKind::Unsafe, "an entry has two PAX headers"));
                }
                EntryType::XHeader => {
                    let (path, linkpath) = (extensions.path.take(), extensions.linkpath.take());
                    extensions.add_pax(&self.extension(header)?)?;
                    extensions.path = one_name(path, extensions.path.take())?;
                    extensions.linkpath = one_name(linkpath, extensions.linkpath.take())?;
                    has_pax = true;
                }
                EntryType::XGlobalHeader => {
                    let data = self.extension(header)?;
                    self.defaults.add_pax(&data)?;
                }
                EntryType::GNULongName => {
                    let name = until_nul(&self.extension(header)?);
                    extensions.path = one_name(extensions.path.take(), Some(name))?;
                }
                EntryType::GNULongLink => {
                    let name = until_nul(&self.extension(header)?);
                    extensions.linkpath = one_name(extensions.linkpath.take(), Some(name))?;
                }
                // A volume's label.
                label if label.as_byte() == b'V' => drop(self.extension(header)?),
                other => {
                    let found = self.entry(header, other, std::mem::take(&mut extensions))?;
                    has_pax = false;
                    if found.is_some() {
                        return Ok(found);
                    }
                }
            }
        }
    }

    /// After damage: goes on at the next unit that begins with a header, as
    /// ours do unless they continue a large file. False when there is none.
    fn find_next_entry(&mut self) -> bool {
        (self.content_left, self.padding_left) = (0, 0);
        self.map = None;
        loop {
            match self.units.next() {
                Ok(Some(unit)) if unit.get(..BLOCK).is_some_and(|block| checked(block).is_ok()) => {
                    self.unit = unit;
                    return true;
                }
                Ok(Some(_)) | Err(_) => {}
                Ok(None) => return false,
            }
        }
    }
}

/// Of two extension headers that name the same thing, readers take different ones.
fn one_name(first: Option<Vec<u8>>, second: Option<Vec<u8>>) -> Result<Option<Vec<u8>>> {
    if first.is_some() && second.is_some() {
        return Err(Error::new(ErrorKind::Unsafe, "two extension headers of one entry name the same thing"));
    }
    Ok(first.or(second))
}

fn until_nul(bytes: &[u8]) -> Vec<u8> {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

fn kind(entry_type: EntryType, name: &[u8]) -> Result<EntryKind> {
    match entry_type {
        // Before POSIX, a directory was a file whose name ends with a slash.
        EntryType::Regular if name.ends_with(b"/") => Ok(EntryKind::Dir),
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Ok(EntryKind::File),
        EntryType::Directory => Ok(EntryKind::Dir),
        EntryType::Symlink => Ok(EntryKind::Symlink),
        EntryType::Link => Ok(EntryKind::Hardlink),
        EntryType::Fifo => Ok(EntryKind::Fifo),
        EntryType::Char => Ok(EntryKind::Char),
        EntryType::Block => Ok(EntryKind::Block),
        other => {
            let letter = shown(&[other.as_byte()]);
            let message = format!("the archive has the entry \"{}\" of the unknown type {letter}", shown(name));
            Err(Error::new(ErrorKind::Unsupported, message))
        }
    }
}

fn plain_size(header: &Header) -> Result<u64> {
    let size = number_of(&header.as_old().size).and_then(|size| u64::try_from(size).ok());
    size.ok_or_else(|| Error::new(ErrorKind::Unsafe, "a header has a size that is none"))
}

fn size(header: &Header, extensions: &Extensions, kind: EntryKind) -> Result<u64> {
    const USTAR_SIZE_MAX: u64 = 0o777_7777_7777;
    let plain = plain_size(header)?;
    // Where a size does not fit, some write 0 into the header, others the most that fits.
    let is_too_large = |size: u64| size > USTAR_SIZE_MAX && plain == USTAR_SIZE_MAX;
    let size = match extensions.size {
        Some(size) if plain != 0 && plain != size && !is_too_large(size) => {
            let message = format!("an entry says it holds {plain} bytes, and {size} bytes");
            return Err(Error::new(ErrorKind::Unsafe, message));
        }
        Some(size) => size,
        None => plain,
    };
    if kind != EntryKind::File && size != 0 {
        return Err(Error::new(ErrorKind::Unsafe, format!("an entry that is no file says it holds {size} bytes")));
    }
    Ok(size)
}

/// Without the `./` before and the `/` after it that other tools write.
fn plain_name(name: &[u8]) -> &[u8] {
    let mut name = name;
    while let Some(rest) = name.strip_prefix(b"./") {
        name = rest;
    }
    while let [rest @ .., b'/'] = name {
        // "/" alone stays, to be refused as absolute.
        if rest.is_empty() {
            return name;
        }
        name = rest;
    }
    if name == b"." { b"" } else { name }
}

/// Where a hard link of a tar leads, which other tools write with `./` too.
pub(super) fn link_target(target: &[u8]) -> Result<EntryPath> {
    EntryPath::new(plain_name(target))
}
