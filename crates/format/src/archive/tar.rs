//! From units to the entries of a tar stream. Stricter than most readers:
//! what two readers could understand differently is refused.

use bytes::Bytes;
use tar::{EntryType, Header};

use super::decode::Units;
use super::header::{Extensions, checked, or_blank};
use super::{BLOCK, padding};
use crate::model::{Entry, EntryKind};
use crate::path::EntryPath;
use crate::{Error, ErrorKind, Result};

/// The most that an extension header may hold: attributes of one entry, and two long names.
const EXTENSION_MAX_BYTES: u64 = 4 << 20;

/// The entries of a tar stream, whatever it comes from.
pub(super) trait Body {
    fn next(&mut self) -> Result<Option<Entry>>;
    fn content(&mut self) -> Result<Option<Bytes>>;
    fn whole_content(&mut self) -> Result<Option<Bytes>>;
    fn find_next_entry(&mut self) -> bool;
}

/// Reads entries in order; the content of one is read, or passed, before the next.
pub(super) struct Tar<'a, 'u> {
    units: &'a mut Units<'u>,
    unit: Bytes,
    content_left: u64,
    padding_left: usize,
}

fn cut_off() -> Error {
    Error::corrupt("the archive is cut off")
}

impl<'a, 'u> Tar<'a, 'u> {
    pub(super) fn new(units: &'a mut Units<'u>) -> Self {
        Self { units, unit: Bytes::new(), content_left: 0, padding_left: 0 }
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
    fn entry(&mut self, header: &Header, entry_type: EntryType, extensions: Extensions) -> Result<Option<Entry>> {
        let name = match &extensions.path {
            Some(path) => path.clone(),
            None => header.path_bytes().into_owned(),
        };
        let kind = kind(entry_type, &name)?;
        let size = size(header, &extensions, kind)?;
        let name = plain_name(&name);
        if name.is_empty() && kind == EntryKind::Dir {
            return Ok(None);
        }
        let path = EntryPath::new(name)?;
        let entry = extensions.entry(header, path, kind, size)?;
        self.content_left = size;
        self.padding_left = padding(size);
        Ok(Some(entry))
    }
}

impl Body for Tar<'_, '_> {
    /// The next piece of the content of the entry at hand; `None` at its end.
    fn content(&mut self) -> Result<Option<Bytes>> {
        if self.content_left == 0 {
            return Ok(None);
        }
        let piece = self.some(self.content_left)?.ok_or_else(cut_off)?;
        self.content_left -= piece.len() as u64;
        Ok(Some(piece))
    }

    /// All of the content, where it lies in one unit; `None` otherwise.
    fn whole_content(&mut self) -> Result<Option<Bytes>> {
        match usize::try_from(self.content_left) {
            Ok(len) if len > 0 && len <= self.unit.len() => self.content(),
            _ => Ok(None),
        }
    }

    /// The next entry; `None` after the last.
    fn next(&mut self) -> Result<Option<Entry>> {
        while self.content()?.is_some() {}
        if self.padding_left > 0 {
            let padding = std::mem::take(&mut self.padding_left);
            self.exactly(padding)?;
        }
        let mut extensions = Extensions::default();
        let mut has_pax = false;
        loop {
            let block = self.exactly(BLOCK)?;
            if block.iter().all(|byte| *byte == 0) {
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
                EntryType::XGlobalHeader => refuse_global_names(&self.extension(header)?)?,
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
        EntryType::Regular | EntryType::Continuous => Ok(EntryKind::File),
        EntryType::Directory => Ok(EntryKind::Dir),
        EntryType::Symlink => Ok(EntryKind::Symlink),
        EntryType::Link => Ok(EntryKind::Hardlink),
        EntryType::Fifo => Ok(EntryKind::Fifo),
        EntryType::Char => Ok(EntryKind::Char),
        EntryType::Block => Ok(EntryKind::Block),
        EntryType::GNUSparse => {
            Err(Error::new(ErrorKind::Unsupported, "the archive holds GNU sparse files; extract it with GNU tar"))
        }
        other => {
            Err(Error::new(ErrorKind::Unsupported, format!("the archive has an entry of the unknown type {other:?}")))
        }
    }
}

fn plain_size(header: &Header) -> Result<u64> {
    or_blank(&header.as_old().size, header.entry_size()).map_err(|_| Error::corrupt("a header has a bad size"))
}

fn size(header: &Header, extensions: &Extensions, kind: EntryKind) -> Result<u64> {
    const USTAR_SIZE_MAX: u64 = 0o777_7777_7777;
    let plain = plain_size(header)?;
    let size = match extensions.size {
        Some(size) if plain != 0 && plain != size && size <= USTAR_SIZE_MAX => {
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

/// A global header could rename every entry after it.
fn refuse_global_names(data: &[u8]) -> Result<()> {
    let mut extensions = Extensions::default();
    extensions.add_pax(data)?;
    if extensions.path.is_some() || extensions.linkpath.is_some() || extensions.size.is_some() {
        return Err(Error::new(ErrorKind::Unsafe, "a global PAX header names a path or a size"));
    }
    Ok(())
}
