//! Looking into an archive without restoring it: listing and verifying.

use std::path::{Path, PathBuf};
use std::time::Instant;

use lifeboat_format::archive::verify::Verdict;
use lifeboat_format::archive::{Archive, verify as format_verify};
use lifeboat_format::envelope::Envelope;
use lifeboat_format::model::EntryKind;
use lifeboat_format::path::EntryPath;
use lifeboat_format::record::{Head, Record};

use super::{bare, open};
use crate::config::{Config, DumpFormat};
use crate::keys::Keys;
use crate::pg::probe::{Probes, Readers};
use crate::report::{ListReport, SealCheck, VerifyReport, VerifyTold, Watch};
use crate::{Cancel, Error, ErrorKind, Result, workers};

/// What is said of an archive whose envelope alone does not show a change.
const NOT_AUTHENTICATED: &str = "not authenticated: there is no .hmac beside it";

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

/// The head of the archive at `path`.
pub(crate) fn head(path: &Path, keys: Keys<'_>) -> Result<Option<Head>> {
    open(path, keys).map(|archive| archive.head().cloned())
}

/// How the archive is encrypted, for people; `None` where it is not.
fn seal(archive: &Archive) -> Option<String> {
    let name = archive.envelope()?.name();
    let lack = if archive.is_authenticated() { String::new() } else { format!(", {NOT_AUTHENTICATED}") };
    Some(format!("{name}{lack}"))
}

/// How the archive at `path` is encrypted.
pub(crate) fn seal_at(path: &Path, keys: Keys<'_>) -> Result<Option<String>> {
    open(path, keys).map(|archive| seal(&archive))
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
    let mut report = ListReport {
        head: archive.head().cloned(),
        seal: seal(&archive),
        size_bytes: archive.size_bytes(),
        entries: 0,
        files: 0,
        bytes: 0,
    };
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

/// Opens the archive at `path`, and says of an encrypted one what of that went
/// well, up to its whole authentication. False where it is not as it was made.
fn unseal(path: &Path, keys: Keys<'_>, cancel: &Cancel, told: &mut dyn FnMut(SealCheck)) -> Result<(Archive, bool)> {
    let mut tell = |what, verdict: Verdict, note: Option<String>| told(SealCheck { what, verdict, note });
    let envelope = std::fs::File::open(path).and_then(|file| Envelope::of_file(&file)).ok().flatten();
    let name = envelope.map(|envelope| envelope.name().to_owned());
    let opened = open(path, keys);
    let Some(name) = name else { return opened.map(|archive| (archive, true)) };
    tell("envelope", Verdict::Pass, Some(name));
    let archive = match opened {
        Err(error) => {
            match error.kind() {
                ErrorKind::WrongKey => tell("password", Verdict::Fail(error.to_string()), None),
                // Whether the password is right may not be known then.
                ErrorKind::Corrupt => tell("authentication", Verdict::Fail(error.to_string()), None),
                _ => {}
            }
            return Err(error);
        }
        Ok(archive) => archive,
    };
    tell("password", Verdict::Pass, None);
    let lack = super::lacks_hmac(&archive);
    let is_ours = archive.head().is_some_and(|head| head.envelope.is_some());
    let verdict = match (archive.authenticate(cancel), &lack) {
        (Err(error), _) if error.kind() == lifeboat_format::ErrorKind::Corrupt => Verdict::Fail(error.to_string()),
        (Err(error), _) => return Err(error.into()),
        (Ok(()), Some(lack)) if is_ours => Verdict::Fail(lack.clone()),
        (Ok(()), _) => Verdict::Pass,
    };
    let is_sound = verdict == Verdict::Pass;
    let note = lack.filter(|_| is_sound).map(|_| NOT_AUTHENTICATED.to_owned());
    tell("authentication", verdict, note);
    Ok((archive, is_sound))
}

/// Reads all of the archive at `path`.
pub(crate) fn verify(
    path: &Path,
    keys: Keys<'_>,
    wanted_threads: Option<usize>,
    watch: Watch<'_>,
    told: &mut VerifyTold<'_>,
) -> Result<VerifyReport> {
    let began = Instant::now();
    let (archive, is_sound) = unseal(path, keys, watch.cancel, told.sealed)?;
    (told.opened)(archive.head());
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
            (told.each)(path, verdict);
        },
    );
    let findings = findings.map_err(|error| {
        let error = Error::from(error).about(path).state("nothing was written");
        if error.kind() == ErrorKind::Corrupt { error.next("use another copy of this backup") } else { error }
    })?;
    // A program that looked into a dump was stopped too, and is not to blame.
    watch.cancel.check()?;
    Ok(VerifyReport {
        is_good: findings.is_good() && is_sound,
        has_manifest: findings.has_manifest,
        files: findings.files,
        failed: findings.failed,
        bytes: findings.bytes,
        damage: findings.damage,
        notes: probes.notes(),
        elapsed: began.elapsed(),
    })
}
