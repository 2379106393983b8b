//! Restoring into a directory: plan, stage and verify in one pass beside the
//! target, then move in. All of it comes to stand there, or nothing.

mod bare;
pub(crate) mod command;
pub(crate) mod database;
mod fill;
pub(crate) mod inspect;
pub(crate) mod live;
mod node;
mod place;
mod plan;
mod single;
mod stage;
mod survey;

use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Instant;

use lifeboat_format::archive::Archive;
use lifeboat_format::monitor::{Monitor as _, Problem, ProblemClass};

use crate::keys::Keys;
use crate::report::{PlanLine, RestorePlan, RestoreReport, RestoreRequest, Watch};
use crate::tally::Tally;
use crate::{Cancel, Error, ErrorKind, Result};
use fill::{AsArchived, Fill, Filled};
use stage::Stage;

const DO_NOT_TRUST: &str = "do not trust this archive; find out where it comes from";

/// Restores the archive of `request` below its directory.
pub(crate) fn restore_to(request: &RestoreRequest, keys: Keys<'_>, watch: Watch<'_>) -> Result<RestoreReport> {
    let began = Instant::now();
    let archive = open(&request.archive, keys)?;
    check_authentic(&archive, request.allow_unauthenticated)?;
    let tally = Tally::new(watch.monitor);
    plan::check(&survey::plan(&archive, request, watch.cancel, None)?, request)?;
    let mut stage = Stage::create(&request.to)?;
    let folder = [stage.new.as_fd()];
    let fill = Fill { folders: &folder, layout: &AsArchived, devices: request.devices, threads: request.threads };
    let filled = fill.run(&archive, Watch { monitor: &tally, ..watch });
    let filled = filled.map_err(|error| add_state(error, request))?;
    place::move_in(&mut stage, &filled, request, &tally)?;
    report_unprivileged(&filled, request.same_owner, &request.to, &tally);
    stage.finish()?;
    Ok(RestoreReport {
        to: request.to.clone(),
        files: filled.files,
        entries: filled.entries,
        bytes: filled.bytes,
        paths: filled.paths,
        verified: archive.head().is_some(),
        problems: tally.problems(),
        elapsed: began.elapsed(),
    })
}

/// What [`restore_to`] would do.
pub(crate) fn plan_to(
    request: &RestoreRequest,
    keys: Keys<'_>,
    cancel: &Cancel,
    each: &mut dyn FnMut(PlanLine) -> Result<()>,
) -> Result<RestorePlan> {
    survey::plan(&open(&request.archive, keys)?, request, cancel, Some(each))
}

/// Opens an archive, with what to do when that fails.
fn open(path: &Path, keys: Keys<'_>) -> Result<Archive> {
    let archive = match bare::kind_of(path) {
        Some(kind) => bare::open(path, kind),
        None => keys.open(path),
    };
    opened(path, archive)
}

/// Opens an archive whose sources are to be restored; of a bare database,
/// `wanted` may say which it is.
fn open_for(path: &Path, wanted: Option<&str>, keys: Keys<'_>) -> Result<Archive> {
    match bare::kind_of(path) {
        Some(kind) => opened(path, bare::open_for(path, kind, wanted, keys.config)),
        None => open(path, keys),
    }
}

/// What an encrypted archive lacks that does not show when somebody changed it; `None` for any other.
pub(crate) fn lacks_hmac(archive: &Archive) -> Option<String> {
    let envelope = archive.envelope().filter(|_| !archive.is_authenticated())?;
    let is_ours = archive.head().is_some_and(|head| head.envelope.is_some());
    let name = archive.path().display();
    Some(if is_ours {
        format!(
            "{name} is not authenticated: it had its HMAC in {name}.hmac beside it, and has it no more, so that it may \
             have been changed"
        )
    } else {
        format!("{name} is not authenticated: {} alone does not show when it was changed", envelope.name())
    })
}

/// The same of the archive at `path`.
pub(crate) fn lacks_hmac_at(path: &Path, keys: Keys<'_>) -> Result<Option<String>> {
    open(path, keys).map(|archive| lacks_hmac(&archive))
}

/// Refuses what may have been changed by somebody without the key, unless that is accepted.
fn check_authentic(archive: &Archive, is_accepted: bool) -> Result<()> {
    match lacks_hmac(archive) {
        Some(lack) if !is_accepted => Err(Error::new(ErrorKind::ConfirmationNeeded, lack)
            .state("nothing was written")
            .next("if you trust it, agree at a terminal or add --allow-unauthenticated")),
        _ => Ok(()),
    }
}

fn opened(path: &Path, opened: Result<Archive>) -> Result<Archive> {
    opened.map_err(|error| {
        let error = error.about(path).state("nothing was written");
        match error.kind() {
            ErrorKind::Corrupt => error.next("use another copy of this backup"),
            ErrorKind::Unsafe => error.next(DO_NOT_TRUST),
            ErrorKind::Failed => error.next("check the archive's path"),
            _ => error,
        }
    })
}

fn add_state(error: Error, request: &RestoreRequest) -> Error {
    let to = request.to.display();
    let is_of_the_archive = matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsafe | ErrorKind::Unsupported);
    let error = if is_of_the_archive { error.about(&request.archive) } else { error };
    let error = error.state(format!("nothing was restored, and {to} is as it was before"));
    match error.kind() {
        ErrorKind::Corrupt => error.next(format!(
            "use another copy of this backup; \"lifeboat backup verify {}\" says which files are whole",
            request.archive.display()
        )),
        ErrorKind::NoSpace => error.next(format!("make room on the file system of {to}, or restore elsewhere")),
        ErrorKind::Denied => error.next(format!("restore to a directory that you may write in, not {to}")),
        ErrorKind::Cancelled => error.next("run the same command again"),
        ErrorKind::Unsafe => error.next(DO_NOT_TRUST),
        _ => error,
    }
}

/// One line for all that an ordinary user may not set.
fn report_unprivileged(filled: &Filled, same_owner: bool, object: &Path, tally: &Tally<'_>) {
    let (owners, attributes) = filled.not_set();
    let class = if same_owner { ProblemClass::MetadataLost } else { ProblemClass::Unprivileged };
    if owners > 0 {
        let message = format!("the owners of {owners} entries could not be set; only root may do that");
        tally.problem(Problem::new(class, object.as_os_str().as_encoded_bytes(), message));
    }
    if attributes > 0 {
        let message = format!("privileged attributes of {attributes} entries could not be set; only root may do that");
        tally.problem(Problem::new(class, object.as_os_str().as_encoded_bytes(), message));
    }
}
