//! How the archive of a backup is encrypted, and opened again to be read back.

use std::path::Path;
use std::sync::Arc;

use lifeboat_format::archive::{Archive, Captured};
use lifeboat_format::envelope::{self, Beside, Facts, Key, Seal};
use lifeboat_format::monitor::Monitor as _;
use lifeboat_format::record::Head;
use lifeboat_store::durable::Unnamed;

use super::subject::Job;
use super::{Ground, NOTHING_WRITTEN, Run, WRITTEN};
use crate::destination::{self, listing};
use crate::keys::{self, Sealing, care};
use crate::pg::Tools;
use crate::report::BackupRequest;
use crate::tally::Tally;
use crate::{Cancel, Error, ErrorKind, Problem, ProblemClass, Result};

/// How `request` is encrypted; `made` is told of a key that was made for it.
pub(super) fn find(
    ground: &Ground<'_>,
    request: &BackupRequest,
    job: &Job<'_>,
    made: &dyn Fn(&Path),
) -> Result<Option<Seal>> {
    let made = |path: &Path| {
        care::note_made(ground.data_dir, path, ground.clock.timestamp());
        made(path);
    };
    look(ground, request, job, &made, false)
}

/// Whether [`find`] would find it. Asks nobody and makes no key.
pub(super) fn rehearse(ground: &Ground<'_>, request: &BackupRequest, job: &Job<'_>) -> Result<()> {
    look(ground, request, job, &|_| {}, true).map(drop)
}

fn look(
    ground: &Ground<'_>,
    request: &BackupRequest,
    job: &Job<'_>,
    made: &dyn Fn(&Path),
    is_rehearsal: bool,
) -> Result<Option<Seal>> {
    if request.bare && request.encryption.is_wanted(job.app) {
        return Err(Error::new(ErrorKind::Usage, "one database as it is (--bare) is not encrypted")
            .state(NOTHING_WRITTEN)
            .next("leave --bare out for an encrypted archive of it, or add --no-encrypt"));
    }
    let known = || {
        let config = ground.config?;
        let places = destination::places(config, Some(&job.app_name), &request.working_dir);
        let all = places.iter().filter_map(|(name, dir)| listing::list(dir, name.as_deref()).ok()).flatten();
        // One without a sidecar may be anybody's, so it may be this app's.
        let is_meant = |app: Option<&str>| app.is_none_or(|app| app == job.app_name);
        let mut encrypted = all.filter(|snapshot| snapshot.envelope.is_some() && is_meant(snapshot.app.as_deref()));
        encrypted.next().map(|snapshot| snapshot.path)
    };
    let sealing = Sealing { app: job.app, known: &known, made, is_rehearsal };
    ground.keys.seal(&request.encryption, sealing).map_err(|error| error.state(NOTHING_WRITTEN))
}

/// A key was made: without it nobody opens the archive.
pub(super) fn tell_made(path: &Path, tally: &Tally<'_>) {
    let message = "a new key; keep a copy of it away from this machine, or the backups cannot be opened without it";
    tally.problem(Problem::new(ProblemClass::KeyMade, path.as_os_str().as_encoded_bytes(), message));
}

/// That the key of the archive was never copied away, if it was not.
pub(super) fn unexported(run: &Run<'_>) -> Option<String> {
    care::unexported_by(run.ground.keys, run.seal.as_ref()?, run.job.app, run.ground.data_dir)
}

/// The encrypted archive, read back where that is wanted: as a restore would,
/// or before it is encrypted, where its key is not here.
pub(super) fn make(
    run: &Run<'_>,
    seal: &Seal,
    captured: Captured,
    head: &Head,
    tools: &[Tools],
) -> Result<(Unnamed, Facts)> {
    let dir = &run.target.dir;
    let failed = |error: lifeboat_format::Error| run.target.not_written(error.into());
    let keys = keys::keys_of(run.ground.keys, seal, run.job.app);
    if run.verifies() && keys.is_empty() {
        let plain = captured.finish(dir, head).map_err(failed)?;
        run.read_back(&run.open_plain(&plain)?, head, tools)?;
        return seal.seal(plain, dir, run.cancel).map_err(failed);
    }
    let (archive, facts) = captured.finish_sealed(dir, head, seal, run.cancel).map_err(failed)?;
    if run.verifies() {
        let opened = reopen(&archive, &facts, &keys, run.cancel).map_err(|error| run.unreadable(error))?;
        run.read_back(&opened, head, tools)?;
    }
    Ok((archive, facts))
}

/// The archive that was just encrypted, opened as a restore would.
fn reopen(archive: &Unnamed, facts: &Facts, keys: &[Key], cancel: &Cancel) -> lifeboat_format::Result<Archive> {
    let shown = Path::new(WRITTEN);
    let file = archive.file().try_clone().map_err(|error| lifeboat_store::Error::io("open", shown, error))?;
    let beside = Beside { hmac: facts.hmac.clone(), iterations: facts.iterations, key_id: facts.key_id.clone() };
    let sealed = envelope::open(Arc::new(file), shown, keys, &beside, cancel)?;
    Archive::sealed(Arc::new(sealed), shown)
}
