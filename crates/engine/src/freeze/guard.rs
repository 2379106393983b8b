//! The guard: a process beside a backup that pauses services for it, and lets
//! them go on whatever becomes of the backup. It runs in a session of its own,
//! so that what ends the backup does not end it, and it alone runs the
//! commands: a freeze that is under way when the backup dies is known here.
//!
//! It is told what to do in lines, and answers in lines of JSON. The end of its
//! input means that the backup is gone.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Pause;
use super::note::{Failure, Note};
use crate::config::duration;
use crate::{Cancel, Error, ErrorKind, Result};

/// What the guard is told to pause all services.
pub(super) const FREEZE: &str = "freeze";
/// What the guard is told to let them go on.
pub(super) const THAW: &str = "thaw";
/// How long a freeze that is under way may take once the backup is gone. A
/// command that is cut short may take effect after the thaw.
pub(super) const LAST_FREEZE: Duration = Duration::from_secs(1);
/// How long services may still stand still once the guard is asked to end.
const LAST_PAUSE: Duration = Duration::from_secs(20);
/// After what time a thaw that failed is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How often it looks whether it is asked to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The first line that it is told.
#[derive(Serialize, Deserialize)]
pub(super) struct Task {
    /// Bytes: a path need not be text.
    note: Vec<u8>,
    /// How long services may stand still.
    #[serde(rename = "max_ms", with = "duration::millis")]
    max: Duration,
}

impl Task {
    pub(super) fn new(note: &Path, max: Duration) -> Self {
        Self { note: note.as_os_str().as_bytes().to_vec(), max }
    }
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// It has left our session and holds the note.
    Ready,
    /// All services are paused.
    Frozen,
    /// They are not, and those that were go on.
    NotFrozen { what: String, is_cancelled: bool, thawed: Thawed },
    /// They go on.
    Thawed(Thawed),
}

/// How a thaw went.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Thawed {
    pub(super) pauses: Vec<Pause>,
    pub(super) failures: Vec<Failure>,
}

/// What the backup does.
enum Said {
    Line(String),
    Gone,
}

/// Runs the guard until the services go on and the backup has said its last.
/// `terminate` says that somebody asks it to end; it does so once the services
/// go on.
///
/// # Errors
/// When it cannot begin, and when a service could not be made to go on; the
/// note then stays, for `recover`.
pub fn run(input: impl Read + Send, mut output: impl Write, terminate: &Cancel) -> Result<()> {
    let failed = |error| Error::new(ErrorKind::Failed, format!("the guard is not understood: {error}"));
    let mut input = BufReader::new(input);
    let mut first = String::new();
    input.read_line(&mut first).map_err(|error| failed(error.to_string()))?;
    let task: Task = serde_json::from_str(&first).map_err(|error| failed(error.to_string()))?;
    if rustix::process::setsid().is_err() {
        // Refused to the leader of a process group, which has left ours already.
    }
    let note = Note::share(Path::new(std::ffi::OsStr::from_bytes(&task.note)))?;
    answer(&mut output, &Answer::Ready);
    let (said, hears) = channel();
    let (alive, ended) = channel();
    let cancel = Cancel::new();
    std::thread::scope(|scope| {
        let cancel = &cancel;
        scope.spawn(move || listen(input, &said, &ended, cancel));
        let mut guard = Guard { note, max: task.max, began: Vec::new(), deadline: None, early: Vec::new() };
        let result = guard.serve(&hears, &mut output, terminate, cancel);
        drop(alive);
        result
    })
}

/// Passes on what the backup says. Once it is gone, a freeze that is under way
/// has a moment to end by itself.
fn listen(input: impl BufRead, said: &Sender<Said>, ended: &Receiver<()>, cancel: &Cancel) {
    for line in input.lines() {
        let Ok(line) = line else { break };
        if said.send(Said::Line(line)).is_err() {
            return;
        }
    }
    if said.send(Said::Gone).is_ok() && ended.recv_timeout(LAST_FREEZE) == Err(RecvTimeoutError::Timeout) {
        cancel.set();
    }
}

/// Nobody may be left to hear it.
fn answer(output: &mut impl Write, answer: &Answer) {
    let line = serde_json::to_string(answer).unwrap_or_default();
    writeln!(output, "{line}").and_then(|()| output.flush()).unwrap_or(());
}

struct Guard {
    note: Note,
    max: Duration,
    /// When the pause of each service began, in the order of the note; fewer if one failed.
    began: Vec<Instant>,
    /// When the services go on, whatever the backup says; while they stand still.
    deadline: Option<Instant>,
    /// What was thawed because the deadline was over.
    early: Vec<Pause>,
}

impl Guard {
    fn serve(
        &mut self,
        hears: &Receiver<Said>,
        output: &mut impl Write,
        terminate: &Cancel,
        cancel: &Cancel,
    ) -> Result<()> {
        loop {
            match hears.recv_timeout(LOOK_EVERY) {
                Ok(Said::Line(line)) if line == FREEZE => {
                    let frozen = self.freeze(hears, cancel);
                    answer(output, &frozen);
                }
                Ok(Said::Line(line)) if line == THAW => {
                    let mut thawed = self.thaw(false);
                    thawed.pauses.append(&mut self.early);
                    answer(output, &Answer::Thawed(thawed));
                }
                Ok(Said::Line(_)) => {}
                Ok(Said::Gone) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => self.look(terminate),
            }
        }
        let failures = self.thaw(false).failures;
        failures.first().map_or(Ok(()), |failure| Err(Error::new(ErrorKind::Failed, failure.what.clone())))
    }

    /// Thaws when the time is over.
    fn look(&mut self, terminate: &Cancel) {
        let Some(deadline) = self.deadline else { return };
        let now = Instant::now();
        if now >= deadline {
            let thawed = self.thaw(true);
            self.early.extend(thawed.pauses);
        } else if terminate.is_set() {
            self.deadline = Some(deadline.min(now + LAST_PAUSE));
        }
    }

    fn freeze(&mut self, hears: &Receiver<Said>, cancel: &Cancel) -> Answer {
        self.began.clear();
        self.deadline = Some(Instant::now() + self.max);
        for service in 0..self.note.header.services.len() {
            self.began.push(Instant::now());
            let paused = self.note.pause(service, Some(cancel));
            // Nothing is said while a freeze is waited for, so anything means that the backup is gone.
            let paused = paused.and_then(|()| match hears.try_recv() {
                Ok(_) => Err(Error::new(ErrorKind::Cancelled, "stopped on request")),
                Err(_) => Ok(()),
            });
            if let Err(error) = paused {
                let is_cancelled = error.kind() == ErrorKind::Cancelled;
                return Answer::NotFrozen { what: error.to_string(), is_cancelled, thawed: self.thaw(false) };
            }
        }
        Answer::Frozen
    }

    /// Lets everything go on; removes the note when everything does.
    fn thaw(&mut self, is_early: bool) -> Thawed {
        let (began, services) = (&self.began, self.note.header.services.clone());
        let mut pauses = Vec::new();
        let failures = self.note.thaw(&mut |at| {
            let held = &services[at];
            pauses.push(Pause {
                service: held.service.name.clone(),
                how: held.how,
                pause: began.get(at).map_or(Duration::ZERO, Instant::elapsed),
                thawed_early: is_early,
            });
        });
        self.deadline = if failures.is_empty() { None } else { Some(Instant::now() + AGAIN_AFTER) };
        if failures.is_empty() {
            // A note that stays is thawed once more by the next run, which does no harm.
            self.note.remove().unwrap_or(());
        }
        Thawed { pauses, failures }
    }
}
