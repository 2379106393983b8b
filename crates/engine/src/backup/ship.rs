//! The destinations of an app: made ready before a backup, and given the
//! archive after it. One that cannot be reached leaves the others.

use std::path::{Path, PathBuf};

use lifeboat_format::archive::Archive;
use lifeboat_format::model::Outcome;
use lifeboat_format::path::shown;
use lifeboat_format::record::{Head, Source};

use super::subject::Job;
use super::target::Target;
use crate::config::Destination;
use crate::destination::sidecar::{self, Sidecar};
use crate::destination::{self, listing};
use crate::report::{BackupReport, Shipped};
use crate::{Cancel, Error, Result};

/// The destinations of a job, looked at.
pub(super) struct Reachable<'a> {
    /// Those that can be written to, in their order.
    pub(super) usable: Vec<&'a Destination>,
    /// The others.
    lost: Vec<Shipped>,
}

/// Makes the destinations of `job` ready.
///
/// # Errors
/// When none of them can be used.
pub(super) fn prepare<'a>(job: &Job<'a>, data_dir: &Path) -> Result<Reachable<'a>> {
    let mut reachable = Reachable { usable: Vec::new(), lost: Vec::new() };
    let mut first_error: Option<Error> = None;
    for destination in &job.destinations {
        match destination::prepare(destination, data_dir) {
            Ok(()) => reachable.usable.push(destination),
            Err(error) => {
                reachable.lost.push(lost(destination, &error));
                first_error = first_error.or(Some(error));
            }
        }
    }
    match first_error {
        Some(error) if reachable.usable.is_empty() => Err(error.state(super::NOTHING_WRITTEN)),
        _ => Ok(reachable),
    }
}

/// How the destinations of `job` would do. Changes nothing.
pub(super) fn check(job: &Job<'_>, data_dir: &Path) -> Vec<Shipped> {
    let look = |destination: &&Destination| match destination::check(destination, data_dir) {
        Ok(()) => arrived(destination, &destination.dir),
        Err(error) => lost(destination, &error),
    };
    job.destinations.iter().map(look).collect()
}

fn lost(destination: &Destination, error: &Error) -> Shipped {
    Shipped { destination: destination.name.clone(), path: None, error: Some(error.to_string()) }
}

fn arrived(destination: &Destination, path: &Path) -> Shipped {
    let path = Some(shown(path.as_os_str().as_encoded_bytes()));
    Shipped { destination: destination.name.clone(), path, error: None }
}

/// Writes the sidecar of the archive, and copies both to the other destinations.
///
/// # Errors
/// On cancel, or when the sidecar of the first cannot be written: the archive is there then.
pub(super) fn ship(
    report: &BackupReport,
    head: &Head,
    target: &Target,
    reachable: &Reachable<'_>,
    cancel: &Cancel,
) -> Result<Vec<Shipped>> {
    if !target.has_sidecar {
        return Ok(Vec::new());
    }
    let archive = &report.archive;
    let is_kept = |error: Error| error.state(format!("the archive {} is whole, and stays", archive.display()));
    let (size, sum) = sidecar::sum(archive, cancel).map_err(is_kept)?;
    let sidecar = Sidecar::new(head, "archive", size, sum);
    sidecar.write(archive).map_err(is_kept)?;
    let mut shipped = reachable.lost.clone();
    let mut usable = reachable.usable.iter();
    shipped.extend(usable.next().map(|first| arrived(first, archive)));
    for destination in usable {
        cancel.check().map_err(|error| is_kept(error.into()))?;
        let copied = copy(archive, &sidecar, target, destination, cancel);
        shipped.push(copied.map_or_else(|error| lost(destination, &error), |path| arrived(destination, &path)));
    }
    Ok(shipped)
}

/// A copy counts when it reads back with the sum of the original.
fn copy(
    archive: &Path,
    sidecar: &Sidecar,
    target: &Target,
    destination: &Destination,
    cancel: &Cancel,
) -> Result<PathBuf> {
    let path = destination::copy(archive, destination, &target.names_after(archive))?;
    let (size, sum) = sidecar::sum(&path, cancel)?;
    if (size, &sum) != (sidecar.size, &sidecar.sha256) {
        std::fs::remove_file(&path).unwrap_or(());
        let what = format!("destination {}: the copy did not read back as it was written", destination.name);
        return Err(Error::new(crate::ErrorKind::Corrupt, what));
    }
    sidecar.write(&path)?;
    Ok(path)
}

/// Whether the last good snapshot of `app` holds files of `source`.
pub(super) fn was_filled(places: Vec<(Option<String>, PathBuf)>, app: &str, source: &str) -> bool {
    let all = places.iter().filter_map(|(name, dir)| listing::list(dir, name.as_deref()).ok()).flatten();
    let good = all.filter(|snapshot| snapshot.app.as_deref() == Some(app) && snapshot.outcome == Some(Outcome::Good));
    let Some(last) = good.max_by_key(|snapshot| snapshot.created) else { return false };
    let Ok(archive) = Archive::open(&last.path) else { return false };
    let Some(recorded) = archive.head().and_then(|head| head.sources.iter().find(|known| known.name == source)) else {
        return false;
    };
    holds_files(&archive, recorded)
}

fn holds_files(archive: &Archive, source: &Source) -> bool {
    let place = source.place();
    let is_below = |path: &[u8]| {
        place.is_empty() || path.strip_prefix(place.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'/'))
    };
    let found = archive.records(&Cancel::new(), |records| {
        while let Some((path, _)) = records.next_record()? {
            if is_below(path.as_bytes()) {
                return Ok(true);
            }
        }
        Ok(false)
    });
    found.unwrap_or(false)
}
