//! The destinations of an app: made ready before a backup, and given the
//! archive after it. One that cannot be reached leaves the others.

use std::path::{Path, PathBuf};

use lifeboat_format::archive::Archive;
use lifeboat_format::path::shown;
use lifeboat_format::record::Source;

use super::subject::Job;
use super::{ARCHIVE_MODE, Made, Run, bare};
use crate::config::Destination;
use crate::destination;
use crate::destination::listing::{self, bare_manifest_of};
use crate::destination::sidecar::{self, Sidecar};
use crate::report::{BackupRequest, Shipped};
use crate::{Cancel, Error, ErrorKind, Result};

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
pub(super) fn prepare<'a>(job: &Job<'a>, request: &BackupRequest, data_dir: &Path) -> Result<Reachable<'a>> {
    let mut reachable = Reachable { usable: Vec::new(), lost: Vec::new() };
    let mut first_error: Option<Error> = None;
    for destination in &job.destinations {
        match takes(destination, job, request).and_then(|()| destination::prepare(destination, data_dir)) {
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
pub(super) fn check(job: &Job<'_>, request: &BackupRequest, data_dir: &Path) -> Vec<Shipped> {
    let check = |destination: &Destination| {
        takes(destination, job, request).and_then(|()| destination::check(destination, data_dir))
    };
    let look = |destination: &&Destination| match check(destination) {
        Ok(()) => arrived(destination, &destination.dir),
        Err(error) => lost(destination, &error),
    };
    job.destinations.iter().map(look).collect()
}

/// Refuses what `destination` does not take.
fn takes(destination: &Destination, job: &Job<'_>, request: &BackupRequest) -> Result<()> {
    if !destination.wants_encrypted || request.encryption.is_wanted(job.app) {
        return Ok(());
    }
    let what = format!("destination {}: it takes only encrypted archives, and this one is not", destination.name);
    Err(Error::new(ErrorKind::Unreachable, what).next("add --encrypt, or leave that destination out with --to"))
}

fn lost(destination: &Destination, error: &Error) -> Shipped {
    Shipped { destination: destination.name.clone(), path: None, error: Some(error.to_string()) }
}

fn arrived(destination: &Destination, path: &Path) -> Shipped {
    let path = Some(shown(path.as_os_str().as_encoded_bytes()));
    Shipped { destination: destination.name.clone(), path, error: None }
}

/// Whether the sum of the snapshot is asked for: by its sidecar, or to compare copies with it.
pub(super) fn needs_sum(run: &Run<'_>) -> bool {
    !run.job.destinations.is_empty() || (run.target.has_sidecar && !run.request.bare)
}

/// Writes what stands beside the snapshot, and copies both to the other destinations.
///
/// # Errors
/// On cancel, or when the sidecar of the first cannot be written: the snapshot is there then.
pub(super) fn ship(run: &Run<'_>, made: &Made, reachable: &Reachable<'_>) -> Result<Vec<Shipped>> {
    let (path, is_bare) = (&made.path, run.request.bare);
    if !needs_sum(run) {
        return Ok(Vec::new());
    }
    let is_kept = |error: Error| error.state(format!("{} is whole, and stays", path.display()));
    let (size, sum) = match made.sum {
        Some(sum) => (made.size_bytes, sum.to_string()),
        None => sidecar::sum(path, run.cancel).map_err(is_kept)?,
    };
    let form = if is_bare { "bare" } else { "archive" };
    let sidecar = Sidecar::new(&made.head, form, made.facts.as_ref(), size, sum);
    if !is_bare {
        sidecar.write(path).map_err(is_kept)?;
    }
    let mut shipped = reachable.lost.clone();
    let mut usable = reachable.usable.iter();
    shipped.extend(usable.next().map(|first| arrived(first, path)));
    for destination in usable {
        run.cancel.check().map_err(|error| is_kept(error.into()))?;
        let copied = copy(run, made, &sidecar, destination);
        shipped.push(copied.map_or_else(|error| lost(destination, &error), |path| arrived(destination, &path)));
    }
    Ok(shipped)
}

/// A copy counts when it reads back with the sum of the original; only then it
/// gets what stands beside it.
fn copy(run: &Run<'_>, made: &Made, sidecar: &Sidecar, destination: &Destination) -> Result<PathBuf> {
    let from = made.path.as_path();
    let names = run.target.names_after(from, &destination.dir);
    let is_bare = run.request.bare;
    let mode = if is_bare { bare::MODE } else { ARCHIVE_MODE };
    let path = destination::copy(from, destination, &names, mode, run.cancel)?;
    let (size, sum) = sidecar::sum(&path, run.cancel)?;
    if (size, &sum) != (sidecar.size, &sidecar.sha256) {
        std::fs::remove_file(&path).unwrap_or(());
        let what = format!("destination {}: the copy did not read back as it was written", destination.name);
        return Err(Error::new(ErrorKind::Corrupt, what));
    }
    if is_bare {
        let manifest = bare_manifest_of(from);
        let text = std::fs::read(&manifest).map_err(|error| lifeboat_store::Error::io("read", &manifest, error))?;
        bare::write_manifest(&path, &text)?;
    } else {
        if let Some(hmac) = made.facts.as_ref().and_then(|facts| facts.hmac.as_ref()) {
            sidecar::write_hmac(&path, hmac)?;
        }
        sidecar.write(&path)?;
    }
    Ok(path)
}

/// Whether the last good snapshot of the app holds files of `source`.
pub(super) fn was_filled(run: &Run<'_>, source: &str) -> bool {
    let Some(config) = run.ground.config else { return false };
    let app = run.job.app_name.as_str();
    let places = destination::places(config, Some(app), &run.request.working_dir);
    let all = places.iter().filter_map(|(name, dir)| listing::list(dir, name.as_deref()).ok()).flatten();
    let good = all.filter(|snapshot| snapshot.app.as_deref() == Some(app) && snapshot.is_good());
    let Some(last) = good.max_by_key(|snapshot| snapshot.created) else { return false };
    let Some(archive) = run.ground.keys.open_quietly(&last.path) else { return false };
    archive.head().is_some_and(|head| {
        let recorded = head.sources.iter().find(|known| known.name == source);
        recorded.is_some_and(|recorded| holds_files(&archive, recorded, &head.sources))
    })
}

fn holds_files(archive: &Archive, source: &Source, all: &[Source]) -> bool {
    let place = source.place();
    let others = || all.iter().filter(|other| other.name != source.name).map(Source::place);
    if others().any(|other| other == place) {
        // Only who has names at a place that it shares has files there.
        return !source.names.is_empty();
    }
    let is_below = |path: &[u8], dir: &str| {
        dir.is_empty() || path.strip_prefix(dir.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'/'))
    };
    // What lies below it and belongs to another source.
    let nested: Vec<String> = others().filter(|other| is_below(other.as_bytes(), &place)).collect();
    let is_own = |path: &[u8]| {
        let is_others = |other: &String| path == other.as_bytes() || is_below(path, other);
        is_below(path, &place) && !nested.iter().any(is_others)
    };
    let found = archive.records(&Cancel::new(), |records| {
        while let Some((path, _)) = records.next_record()? {
            if is_own(path.as_bytes()) {
                return Ok(true);
            }
        }
        Ok(false)
    });
    found.unwrap_or(false)
}
