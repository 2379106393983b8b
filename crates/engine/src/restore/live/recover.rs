//! What a crash interrupted: told, and ended. Which phases are rolled back by
//! themselves and which are not stands in DESIGN: a new state that has run may
//! hold new data, and is never taken back unasked.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use super::journal::{self, Journal, Phase, Story};
use super::run::Run;
use super::target::touches;
use super::terms::Root;
use super::{Host, kept, no_such};
use crate::lock;
use crate::report::Watch;
use crate::{Error, ErrorKind, Result};

/// An interrupted restore that waits.
#[derive(Clone, Debug, Serialize)]
pub struct Waiting {
    /// Its id; empty where its journal cannot be read.
    pub id: String,
    /// The application.
    pub app: String,
    /// Its roots.
    pub roots: Vec<String>,
    /// When it began.
    pub began: Option<Timestamp>,
    /// How far it was: `filling`, `staged`, `swapping`, `returning` or `started`.
    pub phase: &'static str,
    /// Whether a run goes on with it just now.
    pub is_running: bool,
    /// Its journal.
    pub journal: String,
    /// Why the journal cannot be read.
    pub damage: Option<String>,
}

/// How an interrupted restore was ended.
#[derive(Clone, Debug, Serialize)]
pub struct Recovered {
    /// Its id.
    pub id: String,
    /// The application.
    pub app: String,
    /// Its roots.
    pub roots: Vec<String>,
    /// Whether the new state stands; else the old one does.
    pub is_new: bool,
}

/// What a person decides about an interrupted restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Finish it forwards.
    Resume,
    /// Put everything back.
    Rollback,
    /// Let the new state stand, healthy or not.
    Commit,
}

/// All interrupted restores below `data_dir`.
pub(crate) fn waiting(data_dir: &Path) -> Result<Vec<Waiting>> {
    let waiting = journal::all(data_dir)?.into_iter().filter_map(|(path, story)| {
        let journal = path.display().to_string();
        match story {
            Ok(story) if story.is_waiting() => Some(Waiting {
                id: story.header.id.clone(),
                app: story.header.app.clone(),
                roots: roots(&story),
                began: Some(story.header.began),
                phase: word(story.phase),
                is_running: lock::is_taken(data_dir, &story.header.lock),
                journal,
                damage: None,
            }),
            Ok(_) => None,
            Err(error) => Some(Waiting {
                id: String::new(),
                app: String::new(),
                roots: Vec::new(),
                began: None,
                phase: "unknown",
                is_running: false,
                journal,
                damage: Some(error.to_string()),
            }),
        }
    });
    Ok(waiting.collect())
}

fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Filling => "filling",
        Phase::Staged => "staged",
        Phase::Swapping => "swapping",
        Phase::Returning => "returning",
        Phase::Started => "started",
        Phase::Committed => "committed",
        Phase::Returned => "returned",
    }
}

fn roots(story: &Story) -> Vec<String> {
    story.header.terms.roots.iter().map(Root::shown).collect()
}

fn told(story: &Story, is_new: bool) -> Recovered {
    Recovered { id: story.header.id.clone(), app: story.header.app.clone(), roots: roots(story), is_new }
}

/// Before a run touches `roots`: ends what was interrupted there, and removes
/// what is kept no longer.
pub(crate) fn before_a_run(
    host: &Host<'_>,
    roots: &[PathBuf],
    held: Option<&str>,
    watch: Watch<'_>,
) -> Result<Vec<Recovered>> {
    let recovered = end_waiting(host, roots, held, watch)?;
    kept::remove_due(host, roots, held, watch)?;
    Ok(recovered)
}

/// Ends what was interrupted at `roots`; the lock `held` is held already.
pub(super) fn end_waiting(
    host: &Host<'_>,
    roots: &[PathBuf],
    held: Option<&str>,
    watch: Watch<'_>,
) -> Result<Vec<Recovered>> {
    let mut recovered = Vec::new();
    for (path, story) in journal::all(host.data_dir)? {
        // One that cannot be read is refused by its stage, if it is in the way.
        let Ok(story) = story else { continue };
        let is_meant =
            held == Some(story.header.lock.as_str()) || roots.iter().any(|root| touches(&story.header.terms, root));
        if (story.is_waiting() || story.is_unsettled()) && is_meant {
            let _lock = match held {
                Some(key) if key == story.header.lock => None,
                _ => Some(lock::take(host.data_dir, &story.header.lock)?),
            };
            if !story.is_unsettled() {
                recovered.push(end_one(host, &path, watch)?);
                continue;
            }
            match kept::settle(host, &path) {
                // A server that is not reached now is asked the next time; what this run is for may not need it.
                Err(_) if story.is_of_servers() => {}
                settled => settled?,
            }
        }
    }
    Ok(recovered)
}

/// Ends everything that was interrupted. The first that cannot be ended is the
/// error, after the others were.
pub(crate) fn recover(host: &Host<'_>, watch: Watch<'_>) -> Result<Vec<Recovered>> {
    let (mut recovered, mut failed) = (Vec::new(), None);
    for (path, story) in journal::all(host.data_dir)? {
        let ended = match story {
            Ok(story) if story.is_unsettled() => {
                let settled = lock::take(host.data_dir, &story.header.lock).and_then(|_lock| kept::settle(host, &path));
                failed = failed.or(settled.err());
                continue;
            }
            Ok(story) if !story.is_waiting() => continue,
            Ok(story) => lock::take(host.data_dir, &story.header.lock).and_then(|_lock| end_one(host, &path, watch)),
            Err(error) => Err(error),
        };
        match ended {
            Ok(ended) => recovered.push(ended),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(recovered), Err)
}

/// Ends one by the phase it is in; the caller has its lock.
fn end_one(host: &Host<'_>, path: &Path, watch: Watch<'_>) -> Result<Recovered> {
    let mut run = Run::of(host, Journal::open(path)?, None, true);
    let story = run.journal.story.clone();
    run.take_stages()?;
    if story.phase < Phase::Started {
        let error = run.roll_back(None, story.phase == Phase::Returning);
        return if error.kind() == ErrorKind::RolledBack { Ok(told(&story, false)) } else { Err(error) };
    }
    finish(&mut run, &story, host, watch)
}

/// Lets a new state that has run stand, if it is healthy. It is not put back unasked.
fn finish(run: &mut Run<'_>, story: &Story, host: &Host<'_>, watch: Watch<'_>) -> Result<Recovered> {
    match run.resume(watch.cancel) {
        Ok(()) => run.commit().map(|()| told(story, true)),
        Err(error) => Err(not_healthy(&error, story, host)),
    }
}

/// The new state has run: what becomes of it is for a person to say.
fn not_healthy(error: &Error, story: &Story, host: &Host<'_>) -> Error {
    let id = &story.header.id;
    let age = host.clock.timestamp().duration_since(story.since);
    let minutes = age.as_mins();
    let age = if minutes < 120 { format!("{minutes} min") } else { format!("{} h", minutes / 60) };
    Error::new(
        ErrorKind::RollbackIncomplete,
        format!("the restore {} of {} was interrupted after its new state had started: {error}", &id[..8], story.header.app),
    )
    .state(format!("the new state has been live for {age} and may hold new data; both copies are kept"))
    .next(format!(
        "run `lifeboat restore --commit {id}` to let the new state stand, or `lifeboat restore --rollback {id}` to put the old one back"
    ))
}

/// Does what a person decided about the interrupted restore `id`.
pub(crate) fn decide(host: &Host<'_>, decision: Decision, id: Option<&str>, watch: Watch<'_>) -> Result<Recovered> {
    let mut found: Vec<(PathBuf, Story)> =
        journal::all(host.data_dir)?.into_iter().filter_map(|(path, story)| Some((path, story.ok()?))).collect();
    found.retain(|(_, story)| story.is_waiting() && id.is_none_or(|id| story.header.id.starts_with(id)));
    let [(path, story)] = found.as_slice() else {
        let known: Vec<&str> = found.iter().map(|(_, story)| &story.header.id[..8]).collect();
        return Err(no_such(id, "is waiting", &known));
    };
    let _lock = lock::take(host.data_dir, &story.header.lock)?;
    let mut run = Run::of(host, Journal::open(path)?, None, true);
    run.take_stages()?;
    match decision {
        Decision::Commit => run.commit().map(|()| told(story, true)),
        Decision::Rollback => {
            // The new state may hold data by now: it is kept as what was replaced is.
            let error = run.roll_back(None, story.phase >= Phase::Returning);
            if error.kind() == ErrorKind::RolledBack { Ok(told(story, false)) } else { Err(error) }
        }
        Decision::Resume if story.phase == Phase::Filling => {
            Err(Error::new(ErrorKind::Usage, "its stage was not whole when it was interrupted")
                .state("nothing live was touched")
                .next("run `lifeboat recover`, then restore again"))
        }
        Decision::Resume if story.phase >= Phase::Returning => finish(&mut run, story, host, watch),
        Decision::Resume => {
            let done = run.resume(watch.cancel);
            run.end(done).map(|()| told(story, true))
        }
    }
}
