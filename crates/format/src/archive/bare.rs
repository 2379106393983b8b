//! One file as it is, with its manifest beside it, read as if it were an
//! archive of that alone (`doc/formats.md`, "The bare form").

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bytes::Bytes;
use lifeboat_store::{self as store, Cancel};

use super::UNIT_BYTES;
use super::tar::Body;
use crate::model::Entry;
use crate::path::EntryPath;
use crate::record::Record;
use crate::{Error, Result};

/// The one entry, its content, and its record.
pub(super) struct Bare<'a> {
    file: &'a File,
    path: &'a Path,
    cancel: &'a Cancel,
    len: u64,
    entry: Option<Entry>,
    at: u64,
}

impl<'a> Bare<'a> {
    pub(super) fn new(file: &'a File, path: &'a Path, len: u64, record: &Record, cancel: &'a Cancel) -> Result<Self> {
        let mut entry = record.entry()?;
        // What is there counts; that the record says otherwise is found by who compares.
        entry.size = len;
        // Nothing is read before the entry was asked for.
        Ok(Self { file, path, cancel, len, entry: Some(entry), at: len })
    }
}

impl Body for Bare<'_> {
    fn next(&mut self) -> Result<Option<Entry>> {
        let entry = self.entry.take();
        if entry.is_some() {
            self.at = 0;
        }
        Ok(entry)
    }

    fn content(&mut self) -> Result<Option<Bytes>> {
        self.cancel.check()?;
        let wanted = usize::try_from(self.len - self.at).unwrap_or(UNIT_BYTES).min(UNIT_BYTES);
        if wanted == 0 {
            return Ok(None);
        }
        let mut piece = vec![0; wanted];
        let read = self.file.read_exact_at(&mut piece, self.at);
        read.map_err(|error| Error::from(store::Error::io("read", self.path, error)))?;
        self.at += wanted as u64;
        Ok(Some(piece.into()))
    }

    fn whole_content(&mut self) -> Result<Option<Bytes>> {
        if self.len <= UNIT_BYTES as u64 { self.content() } else { Ok(None) }
    }

    fn find_next_entry(&mut self) -> bool {
        false
    }
}

/// What a manifest beside a bare file lists: that file alone.
pub(super) fn listed(record: &Record) -> Result<(EntryPath, Record)> {
    Ok((record.path()?, record.clone()))
}
