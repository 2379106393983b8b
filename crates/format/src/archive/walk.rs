//! An archive opened for reading, and the walk through its entries with each
//! one held against the manifest's record of it.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use lifeboat_store::{self as store, Cancel};

use super::MANIFEST_NAME;
use super::bare::{self, Bare};
use super::contents::Contents;
use super::decode::{Packing, with_units};
use super::manifest::{self, Reader};
use super::tar::{self, Body, Tar};
use crate::envelope::{Envelope, Sealed};
use crate::model::{Entry, EntryKind};
use crate::path::EntryPath;
use crate::record::{Head, Record, Totals};
use crate::{Error, ErrorKind, Result};

/// How much of a file tells how it is packed.
const START_BYTES: u64 = 512;

/// An archive whose head was read: ours with its manifest, or a foreign tar.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    len: u64,
    form: Form,
    head: Option<Head>,
}

/// What the bytes are.
#[derive(Debug)]
enum Form {
    Tar(Packing, Contents),
    /// One file as it is, which this record describes.
    Bare(Box<Record>, File),
}

impl Archive {
    /// Opens the file at `path` and reads its head.
    ///
    /// # Errors
    /// When it cannot be read, is no archive, is damaged at its head, or was
    /// written in a format of a newer major version.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::from(store::Error::io("open", path, error)))?;
        Self::of_file(file, path)
    }

    /// Takes an open file, which `path` names in messages, and reads its head.
    ///
    /// # Errors
    /// As [`Archive::open`]; [`ErrorKind::WrongKey`] where it is encrypted.
    pub fn of_file(file: File, path: &Path) -> Result<Self> {
        let metadata = file.metadata().map_err(|error| Error::from(store::Error::io("look at", path, error)))?;
        if !metadata.is_file() {
            return Err(Error::new(ErrorKind::Invalid, format!("{} is no file", path.display())));
        }
        if let Ok(Some(envelope)) = Envelope::of_file(&file) {
            let what = format!("{} is encrypted ({})", path.display(), envelope.name());
            return Err(Error::new(ErrorKind::WrongKey, what));
        }
        Self::of_tar(Contents::Plain(Arc::new(file)), metadata.len(), path)
    }

    /// Takes a file that was opened with its key, which `path` names in messages, and reads its head.
    ///
    /// # Errors
    /// As [`Archive::open`].
    pub fn sealed(sealed: Arc<Sealed>, path: &Path) -> Result<Self> {
        let len = sealed.len().map_err(|error| Error::from(store::Error::io("look at", path, error)))?;
        Self::of_tar(Contents::Sealed(sealed), len, path)
    }

    fn of_tar(contents: Contents, len: u64, path: &Path) -> Result<Self> {
        let mut start = Vec::new();
        contents.reader()?.take(START_BYTES).read_to_end(&mut start).map_err(|error| match error.raw_os_error() {
            Some(_) => Error::from(store::Error::io("read", path, error)),
            None => Error::corrupt(format!("{} is damaged: {error}", path.display())),
        })?;
        let Some(packing) = Packing::detect(&start) else {
            let what = if start.is_empty() { "is empty" } else { "is neither tar, tar.zst nor tar.gz" };
            return Err(Error::corrupt(format!("{} {what}", path.display())));
        };
        let mut archive = Self { path: path.to_owned(), len, form: Form::Tar(packing, contents), head: None };
        archive.head = archive.read_head()?;
        Ok(archive)
    }

    /// Takes the open file at `path` as it is for an archive of that alone:
    /// `record` is its entry, `head` that of the manifest beside it, if there is one.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn bare(file: File, path: &Path, head: Option<Head>, record: Record) -> Result<Self> {
        let metadata = file.metadata().map_err(|error| Error::from(store::Error::io("look at", path, error)))?;
        let (path, len) = (path.to_owned(), metadata.len());
        Ok(Self { path, len, form: Form::Bare(Box::new(record), file), head })
    }

    /// The envelope that it is in, if it is in one.
    #[must_use]
    pub fn envelope(&self) -> Option<Envelope> {
        match &self.form {
            Form::Tar(_, Contents::Sealed(sealed)) => Some(sealed.envelope()),
            Form::Tar(_, Contents::Plain(_)) | Form::Bare(..) => None,
        }
    }

    /// Whether it is encrypted, and shows when somebody without the key changed it.
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        match &self.form {
            Form::Tar(_, Contents::Sealed(sealed)) => sealed.is_authenticated(),
            Form::Tar(_, Contents::Plain(_)) | Form::Bare(..) => false,
        }
    }

    /// Whether it is certain that somebody with the key made it.
    #[must_use]
    pub fn is_genuine(&self) -> bool {
        match &self.form {
            Form::Tar(_, Contents::Sealed(sealed)) => sealed.is_genuine(),
            Form::Tar(_, Contents::Plain(_)) | Form::Bare(..) => false,
        }
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.len
    }

    /// The manifest's head; `None` for a foreign tar.
    #[must_use]
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    fn read_head(&self) -> Result<Option<Head>> {
        let Form::Tar(packing, contents) = &self.form else { return Ok(None) };
        with_units(contents, *packing, 1, &Cancel::new(), |units| {
            let mut tar = Tar::new(units);
            let first = tar.next()?;
            if !first.is_some_and(|entry| is_manifest(&entry)) {
                return Ok(None);
            }
            let mut manifest = Reader::new(tar);
            if manifest.is_ours()? { manifest.head().map(Some) } else { Ok(None) }
        })
    }

    /// Runs `read` on the manifest's records, without reading what follows them.
    ///
    /// # Errors
    /// What `read` returns.
    ///
    /// # Panics
    /// For a foreign tar, which has none.
    pub fn records<T>(&self, cancel: &Cancel, read: impl FnOnce(&mut Records<'_, '_>) -> Result<T>) -> Result<T> {
        assert!(self.head.is_some(), "only an archive of ours has records");
        let (packing, contents) = match &self.form {
            Form::Bare(record, _) => {
                let one = Some(bare::listed(record)?);
                return read(&mut Records { from: Origin::One(Box::new(one)), last: None });
            }
            Form::Tar(packing, contents) => (*packing, contents),
        };
        with_units(contents, packing, 1, cancel, |units| {
            let mut tar = Tar::new(units);
            tar.next()?;
            let mut manifest = Reader::new(tar);
            manifest.head()?;
            read(&mut Records { from: Origin::Manifest(Box::new(manifest)), last: None })
        })
    }

    /// Runs `read` on all entries, with `threads` decompressing ahead. When it
    /// returns, an encrypted archive was authenticated to its end.
    ///
    /// # Errors
    /// What `read` returns.
    pub fn walk<T>(&self, threads: usize, cancel: &Cancel, read: impl FnOnce(&mut Walk<'_>) -> Result<T>) -> Result<T> {
        let read = self.side_by_side(threads, cancel, |body, records| {
            let records = records.map(|records| records as &mut dyn Listing);
            read(&mut Walk { body, records, guard: Guard::default(), may_be_manifest: false, left: Left::of(self) })
        })?;
        self.authenticate(cancel)?;
        Ok(read)
    }

    /// Makes sure of all that an encrypted archive holds and that was not read yet.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] where it is not what was encrypted; when it cannot be read, or on cancel.
    pub fn authenticate(&self, cancel: &Cancel) -> Result<()> {
        match &self.form {
            Form::Tar(_, contents) => contents.finish(cancel),
            Form::Bare(..) => Ok(()),
        }
    }

    /// Runs `read` on the entries after the manifest and, beside them, on its records.
    pub(super) fn side_by_side<T>(
        &self,
        threads: usize,
        cancel: &Cancel,
        read: impl FnOnce(&mut dyn Body, Option<&mut dyn Listing>) -> Result<T>,
    ) -> Result<T> {
        let (packing, contents) = match &self.form {
            Form::Bare(record, file) => {
                let mut body = Bare::new(file, &self.path, self.len, record, cancel)?;
                if self.head.is_none() {
                    return read(&mut body, None);
                }
                return self.records(cancel, |records| read(&mut body, Some(records)));
            }
            Form::Tar(packing, contents) => (*packing, contents),
        };
        with_units(contents, packing, threads, cancel, |units| {
            let mut tar = Tar::new(units);
            if self.head.is_none() {
                return read(&mut tar, None);
            }
            tar.next()?;
            self.records(cancel, |records| read(&mut tar, Some(records)))
        })
    }
}

fn is_manifest(entry: &Entry) -> bool {
    entry.kind == EntryKind::File && entry.path.as_bytes() == MANIFEST_NAME.as_bytes()
}

/// The records of a manifest, in the order of their paths.
pub struct Records<'a, 'u> {
    from: Origin<'a, 'u>,
    last: Option<EntryPath>,
}

/// What they are read from.
enum Origin<'a, 'u> {
    Manifest(Box<Reader<Tar<'a, 'u>>>),
    /// The one that there is.
    One(Box<Option<(EntryPath, Record)>>),
}

impl Records<'_, '_> {
    /// The next record with its path; `None` after the last.
    ///
    /// # Errors
    /// When the manifest is damaged, or lists an entry twice or out of order.
    pub fn next_record(&mut self) -> Result<Option<(EntryPath, Record)>> {
        let manifest = match &mut self.from {
            Origin::One(one) => return Ok(one.take()),
            Origin::Manifest(manifest) => manifest,
        };
        let Some(record) = manifest.record()? else { return Ok(None) };
        let path = record.path()?;
        if self.last.as_ref().is_some_and(|last| *last >= path) {
            return Err(Error::corrupt(format!("the manifest lists \"{path}\" twice, or out of order")));
        }
        self.last = Some(path.clone());
        Ok(Some((path, record)))
    }
}

/// What can be said of an entry from those before it.
#[derive(Default)]
pub(super) struct Guard {
    /// The last entry that is no directory: nothing may lie below it.
    last_leaf: Option<EntryPath>,
}

impl Guard {
    /// Refuses an entry that would be written through another one.
    pub(super) fn check_place(&mut self, entry: &Entry) -> Result<()> {
        if self.last_leaf.as_ref().is_some_and(|leaf| entry.path.is_below(leaf)) {
            return refuse(entry, "lies below one that is no directory");
        }
        if entry.kind != EntryKind::Dir {
            self.last_leaf = Some(entry.path.clone());
        }
        Ok(())
    }

    /// Refuses a hard link that, in the order of an archive of ours, cannot
    /// lead to a file before it.
    pub(super) fn check_link(&self, entry: &Entry) -> Result<()> {
        if entry.kind == EntryKind::Hardlink && tar::link_target(&entry.target)? >= entry.path {
            return refuse(entry, "is a hard link to one that is not before it");
        }
        Ok(())
    }
}

/// What the manifest says that there is in all, less what came so far: by that,
/// room is looked for before anything is written.
pub(super) struct Left(Option<Totals>);

impl Left {
    /// Where a manifest has no totals, every record was looked at.
    pub(super) fn of(archive: &Archive) -> Self {
        Self(archive.head.as_ref().map(|head| head.totals).filter(|totals| *totals != Totals::default()))
    }

    pub(super) fn take(&mut self, entry: &Entry) -> Result<()> {
        let Some(left) = &mut self.0 else { return Ok(()) };
        match (left.entries.checked_sub(1), left.bytes.checked_sub(entry.size)) {
            (Some(entries), Some(bytes)) => {
                (left.entries, left.bytes) = (entries, bytes);
                Ok(())
            }
            _ => Err(Error::new(ErrorKind::Unsafe, "the archive holds more than its manifest says in its totals")),
        }
    }
}

fn refuse(entry: &Entry, why: &str) -> Result<()> {
    Err(Error::new(ErrorKind::Unsafe, format!("the entry \"{}\" {why}", entry.path)))
}

/// The way through an archive: entry by entry, the content of each before the
/// next. The first thing that does not agree with the manifest ends it.
pub struct Walk<'w> {
    body: &'w mut (dyn Body + 'w),
    records: Option<&'w mut (dyn Listing + 'w)>,
    guard: Guard,
    /// Whether the entry at hand is called like a manifest, where there should be none.
    may_be_manifest: bool,
    left: Left,
}

/// The records of a manifest, whatever they come from.
pub(super) trait Listing {
    fn next(&mut self) -> Result<Option<(EntryPath, Record)>>;
}

impl Listing for Records<'_, '_> {
    fn next(&mut self) -> Result<Option<(EntryPath, Record)>> {
        self.next_record()
    }
}

impl Walk<'_> {
    /// The next entry, with its record where there is a manifest; `None` after
    /// the last. The caller compares the sum of the content with the record's.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] where the archive is damaged or does not agree
    /// with its manifest, [`ErrorKind::Unsafe`] where it would be dangerous.
    pub fn next_entry(&mut self) -> Result<Option<(Entry, Option<Record>)>> {
        let entry = self.body.next()?;
        let Some(records) = &mut self.records else {
            let Some(entry) = entry else { return Ok(None) };
            self.guard.check_place(&entry)?;
            self.may_be_manifest = is_manifest(&entry);
            return Ok(Some((entry, None)));
        };
        refuse_holes(self.body)?;
        entry.iter().try_for_each(|entry| self.left.take(entry))?;
        let (mut entry, (path, record)) = match (entry, records.next()?) {
            (None, None) => return Ok(None),
            (Some(entry), None) => return Err(not_listed(&entry.path)),
            (None, Some((path, _))) => return Err(missing(&path)),
            (Some(entry), Some(listed)) => (entry, listed),
        };
        match entry.path.cmp(&path) {
            std::cmp::Ordering::Less => return Err(not_listed(&entry.path)),
            std::cmp::Ordering::Greater => return Err(missing(&path)),
            std::cmp::Ordering::Equal => {}
        }
        if let Some(attribute) = record.difference(&entry) {
            return Err(Error::corrupt(format!("\"{path}\" differs from the manifest in its {attribute}")));
        }
        self.guard.check_place(&entry)?;
        self.guard.check_link(&entry)?;
        entry.sparse = record.is_sparse();
        Ok(Some((entry, Some(record))))
    }

    /// The next piece of the content of the entry at hand; `None` at its end.
    ///
    /// # Errors
    /// When the archive is damaged or cannot be read.
    pub fn content(&mut self) -> Result<Option<Bytes>> {
        let piece = self.body.content()?;
        self.refuse_manifest(piece.as_ref())?;
        Ok(piece)
    }

    /// Passes the hole that comes next in the content of the entry at hand, and
    /// says how long it is: 0 where none does. Where nobody asks, it is zeros.
    #[must_use]
    pub fn hole(&mut self) -> u64 {
        self.body.hole()
    }

    /// The whole content, where it comes in one piece without copying; `None`
    /// where [`Walk::content`] must put it together.
    ///
    /// # Errors
    /// As [`Walk::content`].
    pub fn whole_content(&mut self) -> Result<Option<Bytes>> {
        let whole = self.body.whole_content()?;
        self.refuse_manifest(whole.as_ref())?;
        Ok(whole)
    }

    /// Refuses a manifest of ours that stands among the entries of what was taken for a foreign tar: the sums in it
    /// would be passed over.
    fn refuse_manifest(&mut self, piece: Option<&Bytes>) -> Result<()> {
        if std::mem::take(&mut self.may_be_manifest) && piece.is_some_and(|piece| manifest::begins_ours(piece)) {
            let message = "the manifest is not the first entry of the archive, so nothing could be compared with it";
            return Err(Error::new(ErrorKind::Unsafe, message));
        }
        Ok(())
    }
}

/// Lifeboat stores holes as zeros, and what its manifest lists is summed: a file of any length could be made of nothing.
pub(super) fn refuse_holes(body: &dyn Body) -> Result<()> {
    if body.leaves_out_holes() {
        let message = "the archive has a manifest, and sparse files of GNU tar, which Lifeboat does not write";
        return Err(Error::new(ErrorKind::Unsafe, message));
    }
    Ok(())
}

fn not_listed(path: &EntryPath) -> Error {
    Error::corrupt(format!("\"{path}\" is in the archive and not in its manifest"))
}

fn missing(path: &EntryPath) -> Error {
    Error::corrupt(format!("\"{path}\" is in the manifest and not in the archive"))
}
