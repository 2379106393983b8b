//! Pausing services while a backup reads, and letting them go on: as soon as
//! every source has reached its point, and whatever becomes of the backup.
//!
//! What is paused stands in a `note`; a `guard` beside the backup runs the
//! commands and outlives it. What both could not do, because the machine was
//! restarted or somebody killed both, `recover` does in a later run.

pub mod guard;
mod note;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::duration;
use crate::exec::{Companion, Heard, reason};
use crate::services::{Found, How, Service};
use crate::{Cancel, Error, ErrorKind, Monitor, Problem, ProblemClass, Result, lock};
use guard::{Answer, Task, Thawed};
use note::{Failure, Held, Note};

/// How long anything waits for a lock while services stand still.
pub(crate) const PIN_WAIT: Duration = Duration::from_secs(1);
/// How long services run between two tries.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(5);
/// How often it is tried with paused services.
const TRIES: usize = 3;
/// How long the guard may take to begin.
const READY_WITHIN: Duration = Duration::from_secs(5);
/// What the guard may take longer than its commands, tries again included.
const SLACK: Duration = Duration::from_secs(10);
/// How often a command may run at most before the guard answers: a freeze, a
/// stop with its questions, four thaws.
const COMMANDS_MAX: u32 = 8;
/// The lock under which notes come and go.
const LOCK: &str = "freeze";

/// How the guard is started: this program, and the arguments that make it run
/// [`guard::run`] on its standard input and output.
#[derive(Clone, Debug)]
pub struct GuardProgram {
    /// The program, by an absolute path.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// A service that stood still, and how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// What people call it.
    pub service: String,
    /// How it was paused.
    pub how: How,
    /// From before its freeze began until its thaw had ended.
    #[serde(rename = "pause_ms", with = "duration::millis")]
    pub pause: Duration,
    /// Whether it went on before all was read, because the time was over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub thawed_early: bool,
}

/// What became of the pauses of a run: one for the whole run, which clones it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pauses(Arc<Mutex<Seen>>);

/// What a run's report says about its pauses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The pauses, in the order in which they ended.
    pub(crate) pauses: Vec<Pause>,
    /// What went wrong with them: all of it makes a run incomplete.
    pub(crate) problems: Vec<Problem>,
}

impl Pauses {
    /// What was seen since this was asked last.
    pub(crate) fn take(&self) -> Seen {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The longest pause so far.
    pub(crate) fn longest(&self) -> Duration {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.pauses.iter().map(|pause| pause.pause).max().unwrap_or_default()
    }

    /// Adds what was seen elsewhere.
    pub(crate) fn put(&self, more: Seen) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.pauses.extend(more.pauses);
        seen.problems.extend(more.problems);
    }

    /// Tells `monitor` what went wrong so far, once: also a run that fails must say it.
    pub(crate) fn tell(&self, monitor: &dyn Monitor) {
        let problems = std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).problems);
        problems.into_iter().for_each(|problem| monitor.problem(problem));
    }

    fn add(&self, thawed: &Thawed) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.pauses.extend_from_slice(&thawed.pauses);
        for pause in thawed.pauses.iter().filter(|pause| pause.thawed_early) {
            let message = format!("it went on after {}, before all was read", duration::shown(pause.pause));
            seen.problems.push(Problem::new(ProblemClass::Unfrozen, pause.service.as_bytes(), message));
        }
        for failure in &thawed.failures {
            let message = format!("{}; it may stand still: run `{}` now", failure.what, failure.by_hand);
            seen.problems.push(Problem::new(ProblemClass::StandsStill, failure.service.as_bytes(), message));
        }
    }

    fn add_unfrozen(&self, services: &[Service], why: &str) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let message = format!("read while it ran: {why}");
        let problem = |service: &Service| Problem::new(ProblemClass::Unfrozen, service.name.as_bytes(), &*message);
        seen.problems.extend(services.iter().map(problem));
    }
}

/// What a backup needs to pause services.
#[derive(Clone, Copy)]
pub(crate) struct Freezing<'a> {
    pub(crate) data_dir: &'a Path,
    pub(crate) guard: &'a GuardProgram,
    /// The id of the run.
    pub(crate) id: &'a str,
    /// How long services may stand still.
    pub(crate) max: Duration,
    /// How long they run between two tries: [`RETRY_AFTER`].
    pub(crate) retry_after: Duration,
    /// Where pauses are collected.
    pub(crate) pauses: &'a Pauses,
}

/// Services that are paused. Every source that has not reached its point holds
/// a clone of the `Arc`; when the last one goes, they go on.
#[derive(Debug)]
pub(crate) struct Frozen {
    /// `None` where nothing was to be paused, or no longer is.
    hold: Option<Hold>,
    pauses: Pauses,
}

#[derive(Debug)]
struct Hold {
    note: Note,
    guard: Companion,
    since: Instant,
    max: Duration,
}

impl Frozen {
    /// Whether no service stands still.
    pub(crate) fn is_empty(&self) -> bool {
        self.hold.is_none()
    }

    /// As dropping it, and says what went wrong. Empty where another clone
    /// still holds the services.
    ///
    /// # Errors
    /// When a service could not be made to go on, with the command that does it.
    pub(crate) fn release(self: Arc<Self>) -> Result<Vec<Pause>> {
        Arc::into_inner(self).map_or(Ok(Vec::new()), |mut frozen| frozen.thaw())
    }

    fn thaw(&mut self) -> Result<Vec<Pause>> {
        let Some(mut hold) = self.hold.take() else { return Ok(Vec::new()) };
        let thawed = hold.thaw();
        self.pauses.add(&thawed);
        match thawed.failures.as_slice() {
            [] => Ok(thawed.pauses),
            failures => Err(stands_still(failures, hold.note.path())),
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if self.thaw().is_err() {
            // It stands in the pauses of the run.
        }
    }
}

/// Services that stand still although nothing keeps them so.
fn stands_still(failures: &[Failure], note: &Path) -> Error {
    let what: Vec<&str> = failures.iter().map(|failure| failure.what.as_str()).collect();
    let names: Vec<&str> = failures.iter().map(|failure| failure.service.as_str()).collect();
    let by_hand: Vec<String> = failures.iter().map(|failure| format!("`{}`", failure.by_hand)).collect();
    Error::new(ErrorKind::Failed, what.join("; "))
        .state(format!("no data is lost, but {} may stand still", names.join(", ")))
        .next(format!(
            "run {} now, then `lifeboat recover`; if everything runs and it still fails, remove {}",
            by_hand.join(" and "),
            note.display()
        ))
}

impl Hold {
    fn patience(&self) -> Duration {
        let services = &self.note.header.services;
        services.iter().map(|held| held.service.timeout * COMMANDS_MAX + SLACK).sum()
    }

    fn ask(&mut self, what: &str, cancel: Option<&Cancel>) -> Option<Answer> {
        self.guard.say(what).ok()?;
        let patience = self.patience();
        self.hear(patience, cancel)
    }

    /// The guard's answer; `None` when it is gone or hangs. On cancel it is
    /// left alone, which makes it thaw, and its last answer is waited for.
    fn hear(&mut self, patience: Duration, cancel: Option<&Cancel>) -> Option<Answer> {
        match self.guard.hear(patience, cancel) {
            Heard::Line(line) => serde_json::from_str(&line).ok(),
            Heard::Cancelled => {
                self.guard.hang_up();
                self.hear(patience, None)
            }
            Heard::Ended | Heard::TooLate => None,
        }
    }

    fn thaw(&mut self) -> Thawed {
        match self.ask(guard::THAW, None) {
            Some(Answer::Thawed(thawed)) => thawed,
            _ => self.thaw_without_guard(),
        }
    }

    /// The guard is gone: what it noted is all that is known.
    fn thaw_without_guard(&mut self) -> Thawed {
        let since = self.since;
        let is_over = since.elapsed() >= self.max;
        // Unread, what is known from before counts.
        let is_known = self.note.look_again().is_ok();
        let was_running = is_known && self.note.is_thawed();
        let mut ended = Vec::new();
        let failures = self.note.thaw(&mut |at| ended.push(at));
        if failures.is_empty() {
            self.note.remove().unwrap_or(());
        }
        let all = 0..self.note.header.services.len();
        let pauses = all.filter(|at| was_running || ended.contains(at)).map(|at| {
            let held = &self.note.header.services[at];
            let thawed_early = was_running && is_over;
            Pause { service: held.service.name.clone(), how: held.how, pause: since.elapsed(), thawed_early }
        });
        Thawed { pauses: pauses.collect(), failures }
    }
}

/// Pauses those of `services` that run, in their order, as `how` says where
/// they can. All of them, or none.
///
/// # Errors
/// [`ErrorKind::Locked`] while another run pauses one of them; otherwise when
/// one cannot be paused. Those that were paused go on then.
pub(crate) fn freeze(services: &[Service], how: How, freezing: Freezing<'_>, cancel: &Cancel) -> Result<Arc<Frozen>> {
    let mut frozen = Frozen { hold: None, pauses: freezing.pauses.clone() };
    if services.is_empty() {
        return Ok(Arc::new(frozen));
    }
    let overlaps = |held: &Held| services.iter().any(|service| service.kind == held.service.kind);
    recover_where(freezing.data_dir, &|held| held.iter().any(overlaps))
        .map_err(|error| error.state("nothing was paused, and nothing was read"))?;
    let mut held = Vec::new();
    for service in services {
        let found = service.found(Some(cancel)).map_err(|error| refused(&error))?;
        if found != Found::Stopped {
            held.push(Held { service: service.clone(), found, how: service.pauses_by(how) });
        }
    }
    if held.is_empty() {
        return Ok(Arc::new(frozen));
    }
    let note = begin_note(held, freezing, &overlaps)?;
    let guard = match start_guard(&note, freezing, cancel) {
        Ok(guard) => guard,
        Err(error) => {
            note.remove()?;
            return Err(refused(&error));
        }
    };
    let mut hold = Hold { note, guard, since: Instant::now(), max: freezing.max };
    let (what, kind, thawed) = match hold.ask(guard::FREEZE, Some(cancel)) {
        Some(Answer::Frozen) => {
            frozen.hold = Some(hold);
            if let Err(error) = cancel.check() {
                frozen.thaw()?;
                return Err(error.into());
            }
            return Ok(Arc::new(frozen));
        }
        Some(Answer::NotFrozen { what, is_cancelled: true, thawed }) => (what, ErrorKind::Cancelled, thawed),
        Some(Answer::NotFrozen { what, thawed, .. }) => (what, ErrorKind::Failed, thawed),
        _ => {
            hold.guard.hang_up();
            // Its last command may go on without it, and must not take effect after the thaw.
            std::thread::sleep(guard::LAST_FREEZE);
            ("the guard that lets services go on has ended".to_owned(), ErrorKind::Failed, hold.thaw_without_guard())
        }
    };
    frozen.pauses.add(&thawed);
    if !thawed.failures.is_empty() {
        return Err(stands_still(&thawed.failures, hold.note.path()).after(&what));
    }
    Err(refused(&Error::new(kind, what)))
}

/// A freeze that was not to be: nothing stands still.
fn refused(error: &Error) -> Error {
    let kind = if error.kind() == ErrorKind::Cancelled { ErrorKind::Cancelled } else { ErrorKind::Failed };
    Error::new(kind, error.what())
        .state("every service that ran goes on, and nothing was read")
        .next("see that the command works by itself, or take the service out of `freeze` in lifeboat.yaml")
}

/// The note of what is about to be paused, unless another run pauses some of it.
fn begin_note(held: Vec<Held>, freezing: Freezing<'_>, overlaps: &dyn Fn(&Held) -> bool) -> Result<Note> {
    let _lock = lock::wait(freezing.data_dir, LOCK)?;
    for path in note::all(freezing.data_dir)? {
        let Some((header, _)) = note::peek(&path)? else { continue };
        if let Some(taken) = header.services.iter().find(|held| overlaps(held)) {
            let what = format!("another backup pauses {}", taken.service.name);
            return Err(Error::new(ErrorKind::Locked, what)
                .state("nothing was paused, and nothing was read")
                .next("wait until it has ended, then run the same command again"));
        }
    }
    Note::create(freezing.data_dir, freezing.id, held)
}

fn start_guard(note: &Note, freezing: Freezing<'_>, cancel: &Cancel) -> Result<Companion> {
    let failed = |why: &str| Error::new(ErrorKind::Failed, format!("the guard of paused services {why}"));
    let GuardProgram { program, arguments } = freezing.guard;
    let started = Companion::start(program, arguments);
    let mut guard = started.map_err(|error| failed(&format!("could not be started: {}", reason(&error))))?;
    let task = serde_json::to_string(&Task::new(note.path(), freezing.max));
    let task = task.map_err(|error| failed(&format!("could not be told: {error}")))?;
    guard.say(&task).map_err(|error| failed(&format!("did not listen: {}", reason(&error))))?;
    match guard.hear(READY_WITHIN, Some(cancel)) {
        Heard::Line(line) if matches!(serde_json::from_str(&line), Ok(Answer::Ready)) => Ok(guard),
        Heard::Line(line) => Err(failed(&format!("said what it should not: {line}"))),
        Heard::Ended => Err(failed("ended at once")),
        Heard::TooLate => Err(failed(&format!("was not ready within {}", duration::shown(READY_WITHIN)))),
        Heard::Cancelled => Err(Error::new(ErrorKind::Cancelled, "stopped on request")),
    }
}

/// What was read at one point.
pub(crate) struct Pinned<T> {
    /// What `pin` returned.
    pub(crate) value: T,
    /// Goes when every source has reached its point.
    pub(crate) frozen: Arc<Frozen>,
}

/// Pauses `services` and calls `pin` with how long it may wait for a lock,
/// which is short while they stand still. Where something is locked
/// ([`ErrorKind::Locked`], [`ErrorKind::InUse`]) they run for a while before
/// the next try, and after the last one it is read while they run, with the
/// patience `normal`, which is a problem in the [`Pauses`].
///
/// # Errors
/// As [`freeze`] and `pin`. The services go on.
pub(crate) fn with_frozen<T>(
    services: &[Service],
    how: How,
    freezing: Freezing<'_>,
    normal: Duration,
    cancel: &Cancel,
    mut pin: impl FnMut(Duration) -> Result<T>,
) -> Result<Pinned<T>> {
    let mut locked = None;
    for attempt in 0..TRIES {
        if attempt > 0 {
            wait(freezing.retry_after, cancel)?;
        }
        let frozen = freeze(services, how, freezing, cancel)?;
        let patience = if frozen.is_empty() { normal } else { PIN_WAIT };
        match pin(patience) {
            Ok(value) => return Ok(Pinned { value, frozen }),
            Err(error) if !frozen.is_empty() && is_lock(&error) => locked = Some(error),
            Err(error) => return Err(error),
        }
        if frozen.release().is_err() {
            // Told in the pauses. What may stand still already is not frozen once more.
            break;
        }
    }
    let why = locked.map(|error| error.to_string()).unwrap_or_default();
    let value = pin(normal)?;
    freezing.pauses.add_unfrozen(services, &why);
    let frozen = Arc::new(Frozen { hold: None, pauses: freezing.pauses.clone() });
    Ok(Pinned { value, frozen })
}

fn is_lock(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Locked | ErrorKind::InUse)
}

fn wait(time: Duration, cancel: &Cancel) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < time {
        cancel.check()?;
        std::thread::sleep(Duration::from_millis(20).min(time));
    }
    Ok(())
}

/// Services that a run pauses or has left paused.
#[derive(Clone, Debug, Serialize)]
pub struct LeftPaused {
    /// The run; empty where its note cannot be read.
    pub id: String,
    /// The services.
    pub services: Vec<String>,
    /// The commands that make them go on.
    pub by_hand: Vec<String>,
    /// Whether the run or its guard looks after them just now.
    pub is_running: bool,
    /// The note.
    pub note: String,
    /// Why the note cannot be read.
    pub damage: Option<String>,
}

fn left(path: &Path, header: &note::Header, is_running: bool) -> LeftPaused {
    LeftPaused {
        id: header.id.clone(),
        services: header.services.iter().map(|held| held.service.name.clone()).collect(),
        by_hand: header.services.iter().map(|held| held.service.thaw_line(held.how)).collect(),
        is_running,
        note: path.display().to_string(),
        damage: None,
    }
}

/// What is paused now, or was left so. Changes nothing.
pub(crate) fn waiting(data_dir: &Path) -> Result<Vec<LeftPaused>> {
    let mut waiting = Vec::new();
    for path in note::all(data_dir)? {
        match note::peek(&path) {
            Ok(Some((header, is_live))) => waiting.push(left(&path, &header, is_live)),
            Ok(None) => {}
            Err(error) => waiting.push(LeftPaused {
                id: String::new(),
                services: Vec::new(),
                by_hand: Vec::new(),
                is_running: false,
                note: path.display().to_string(),
                damage: Some(error.to_string()),
            }),
        }
    }
    Ok(waiting)
}

/// Lets go on what dead runs left paused. What a run or its guard looks after
/// is left to them.
///
/// # Errors
/// The first that could not be made to go on, after the others were tried; its
/// note stays.
pub(crate) fn recover(data_dir: &Path) -> Result<Vec<LeftPaused>> {
    recover_where(data_dir, &|_| true)
}

fn recover_where(data_dir: &Path, is_meant: &dyn Fn(&[Held]) -> bool) -> Result<Vec<LeftPaused>> {
    let (mut recovered, mut failed) = (Vec::new(), None);
    for path in note::all(data_dir)? {
        match recover_one(data_dir, &path, is_meant) {
            Ok(left) => recovered.extend(left),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(recovered), Err)
}

fn recover_one(data_dir: &Path, path: &Path, is_meant: &dyn Fn(&[Held]) -> bool) -> Result<Option<LeftPaused>> {
    // A note that has just been made is not held for a moment.
    let lock = lock::wait(data_dir, LOCK)?;
    let Some(mut note) = Note::claim(path)?.filter(|note| is_meant(&note.header.services)) else { return Ok(None) };
    drop(lock);
    let failures = note.thaw(&mut |_| ());
    if !failures.is_empty() {
        return Err(stands_still(&failures, path));
    }
    note.remove()?;
    Ok(Some(left(path, &note.header, false)))
}

#[cfg(test)]
mod tests;
