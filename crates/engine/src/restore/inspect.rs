//! Looking into an archive without restoring it: listing and verifying.

use std::path::{Path, PathBuf};
use std::time::Instant;

use lifeboat_format::archive::verify::Verdict;
use lifeboat_format::archive::{Archive, verify as format_verify};
use lifeboat_format::model::EntryKind;
use lifeboat_format::path::EntryPath;
use lifeboat_format::record::{Head, Record};

use super::{bare, open};
use crate::config::{Config, DumpFormat};
use crate::keys::Keys;
use crate::pg::probe::{Probes, Readers};
use crate::report::{ListReport, VerifyReport, Watch};
use crate::{Cancel, Error, ErrorKind, Result, workers};

/// Keeps the error of a callback while the format's own result passes it.
fn carry<T>(
    run: impl FnOnce(&mut dyn FnMut(Result<()>) -> lifeboat_format::Result<()>) -> lifeboat_format::Result<T>,
) -> Result<T> {
    let mut carried = None;
    let result = run(&mut |result| {
        result.map_err(|error| {
            carried = Some(error);
            lifeboat_format::Error::new(lifeboat_format::ErrorKind::Invalid, "the caller stopped")
        })
    });
    match carried {
        Some(error) => Err(error),
        None => result.map_err(Error::from),
    }
}

/// Tells `each` of every entry: from the manifest, or by reading all of a foreign tar.
pub(super) fn records(
    archive: &Archive,
    cancel: &Cancel,
    each: &mut dyn FnMut(&EntryPath, &Record) -> Result<()>,
) -> Result<()> {
    carry(|carry| {
        if archive.head().is_some() {
            return archive.records(cancel, |records| {
                while let Some((path, record)) = records.next_record()? {
                    carry(each(&path, &record))?;
                }
                Ok(())
            });
        }
        archive.walk(1, cancel, |walk| {
            while let Some((entry, _)) = walk.next_entry()? {
                carry(each(&entry.path, &Record::new(&entry, None)))?;
            }
            Ok(())
        })
    })
    .map_err(|error| {
        let error = error.about(archive.path()).state("nothing was written");
        if error.kind() == ErrorKind::Unsafe { error.next(super::DO_NOT_TRUST) } else { error }
    })
}

/// Path, kind and size of every entry.
pub(super) fn entries(
    archive: &Archive,
    cancel: &Cancel,
    each: &mut dyn FnMut(&EntryPath, EntryKind, u64) -> Result<()>,
) -> Result<()> {
    records(archive, cancel, &mut |path, record| each(path, record.kind(), record.size()))
}

/// The head of the archive at `path`.
pub(crate) fn head(path: &Path, keys: Keys<'_>) -> Result<Option<Head>> {
    open(path, keys).map(|archive| archive.head().cloned())
}

/// What can be said of where an archive comes from.
pub(crate) enum Origin {
    /// Nothing: it is not encrypted, or anybody can encrypt so.
    Unknown,
    /// Somebody with its key made it.
    Genuine,
    /// It may have been changed by somebody without its key.
    Doubtful,
}

/// The same with where it comes from.
pub(crate) fn head_and_origin(path: &Path, keys: Keys<'_>) -> Result<Option<(Head, Origin)>> {
    let archive = open(path, keys)?;
    let origin = match super::lacks_hmac(&archive) {
        Some(_) => Origin::Doubtful,
        None if archive.is_genuine() => Origin::Genuine,
        None => Origin::Unknown,
    };
    Ok(archive.head().cloned().map(|head| (head, origin)))
}

/// Tells `each` of every entry of the archive at `path`.
pub(crate) fn list(
    path: &Path,
    keys: Keys<'_>,
    cancel: &Cancel,
    each: &mut dyn FnMut(&EntryPath, &Record) -> Result<()>,
) -> Result<ListReport> {
    let archive = open(path, keys)?;
    let mut report =
        ListReport { head: archive.head().cloned(), size_bytes: archive.size_bytes(), entries: 0, files: 0, bytes: 0 };
    records(&archive, cancel, &mut |path, record| {
        report.entries += 1;
        report.files += u64::from(record.kind() == EntryKind::File);
        report.bytes = report.bytes.saturating_add(record.size());
        each(path, record)
    })?;
    Ok(report)
}

/// A dump that comes without a manifest: its entry.
fn bare_dump(archive: &Archive) -> Option<(EntryPath, DumpFormat)> {
    let Some(bare::Kind::Dump(format)) = bare::kind_of(archive.path()).filter(|_| archive.head().is_none()) else {
        return None;
    };
    let mut found = None;
    let mut see = |path: &EntryPath, _: &Record| {
        found = Some(path.clone());
        Ok(())
    };
    records(archive, &Cancel::new(), &mut see).ok()?;
    Some((found?, format))
}

/// Reads all of the archive at `path`.
pub(crate) fn verify(
    path: &Path,
    keys: Keys<'_>,
    wanted_threads: Option<usize>,
    watch: Watch<'_>,
    opened: &mut dyn FnMut(Option<&Head>),
    each: &mut dyn FnMut(&EntryPath, &Verdict),
) -> Result<VerifyReport> {
    let began = Instant::now();
    let archive = open(path, keys)?;
    opened(archive.head());
    if let Some(head) = archive.head() {
        watch.monitor.expected(head.totals.files, head.totals.bytes);
    }
    let dirs: Vec<PathBuf> = keys.config.into_iter().flat_map(Config::program_dirs).cloned().collect();
    let readers = Readers::In(&dirs);
    let probes = match bare_dump(&archive) {
        Some((path, format)) => Probes::of_bare(&path, format, &readers, watch.cancel)?,
        None => Probes::of(archive.head(), &readers, watch.cancel)?,
    };
    let findings = format_verify::verify(
        &archive,
        workers::count(wanted_threads),
        watch.cancel,
        &|path| probes.probe(path),
        &mut |path, verdict, bytes| {
            watch.monitor.advanced(1, bytes);
            each(path, verdict);
        },
    );
    let findings = findings.map_err(|error| {
        let error = Error::from(error).about(path).state("nothing was written");
        if error.kind() == ErrorKind::Corrupt { error.next("use another copy of this backup") } else { error }
    })?;
    // A program that looked into a dump was stopped too, and is not to blame.
    watch.cancel.check()?;
    Ok(VerifyReport {
        is_good: findings.is_good(),
        has_manifest: findings.has_manifest,
        files: findings.files,
        failed: findings.failed,
        bytes: findings.bytes,
        damage: findings.damage,
        notes: super::lacks_hmac(&archive).into_iter().chain(probes.notes()).collect(),
        elapsed: began.elapsed(),
    })
}
