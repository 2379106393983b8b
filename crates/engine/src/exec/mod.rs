//! The one place where other programs are started: by their arguments and never
//! through a shell, without a terminal, for a limited time, and with only the
//! end of what they say kept.
//!
//! A program may leave a daemon behind that keeps its output open for as long
//! as it lives. So the output goes to a file in memory and not into a pipe,
//! and nothing here waits for the end of a pipe, unless what comes through it is
//! what is wanted ([`Stream`]).

mod attended;
mod companion;
mod piped;
mod running;
mod said;
mod secret;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lifeboat_format::path::shown;
use rustix::event::{PollFd, PollFlags};

use crate::{Cancel, Error, ErrorKind, Result};
use attended::Attended;
pub(crate) use companion::{Companion, Heard};
pub(crate) use piped::{Sink, Stream};
pub(crate) use secret::Secret;

/// How many lines of what it said stand in a message.
const LAST_LINES: usize = 3;
/// For a program that takes as long as it takes; a cancel ends it.
pub(crate) const NO_TIMEOUT: Duration = Duration::MAX;
/// How long a program has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// Variables of our environment that hold a password, or say where it is. No
/// program that we start needs them, and each could show or keep them.
const WITHHELD: [&str; 3] = ["LIFEBOAT_PASSWORD", "LIFEBOAT_PASSWORD_FILE", "LIFEBOAT_PASSWORD_COMMAND"];
/// More of them, as `lifeboat.yaml` names them.
static MORE_WITHHELD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// From here on no program that is started gets the variable `name` of our environment.
pub(crate) fn withhold(name: &str) {
    MORE_WITHHELD.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
}

/// Takes what is secret from the environment that `command` will have from us.
fn withhold_from(command: &mut Command) {
    let more = MORE_WITHHELD.lock().unwrap_or_else(PoisonError::into_inner);
    for name in WITHHELD.into_iter().chain(more.iter().map(String::as_str)) {
        command.env_remove(name);
    }
}

/// A program, its arguments, and how long it may take.
pub(crate) struct Tool<'a> {
    argv: &'a [String],
    env: &'a [(String, String)],
    unset: &'a [&'a str],
    secret: Option<&'a [u8]>,
    timeout: Duration,
    leaves_daemon: bool,
    grace: Duration,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    status: ExitStatus,
    /// The last lines of what it printed, with control characters escaped.
    said: String,
}

impl Ended {
    /// Its exit code; `None` when a signal ended it.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    pub(crate) fn is_success(&self) -> bool {
        self.status.success()
    }

    /// The last lines of what it printed, with control characters escaped.
    pub(crate) fn said(&self) -> &str {
        &self.said
    }

    /// `exit code 3: the last lines it said`.
    pub(crate) fn describe(&self) -> String {
        let how = match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("killed by signal {signal}"),
            (None, None) => "it ended".to_owned(),
        };
        let lines: Vec<&str> = self.said.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("; ");
        if last.is_empty() { how } else { format!("{how}: {last}") }
    }
}

impl<'a> Tool<'a> {
    /// `argv` is the program, found on PATH unless it is an absolute path, and its arguments.
    pub(crate) fn new(argv: &'a [String], timeout: Duration) -> Self {
        Self { argv, env: &[], unset: &[], secret: None, timeout, leaves_daemon: false, grace: GRACE }
    }

    /// For a program that starts a service. Its stdout is dropped and only
    /// stderr is kept: a daemon that it leaves behind has both for its
    /// lifetime, and what goes to a file without a name takes memory that
    /// nobody sees. Errors are worth that; a log on stdout is not.
    pub(crate) fn leaves_daemon(mut self) -> Self {
        self.leaves_daemon = true;
        self
    }

    /// How long it has between SIGTERM and SIGKILL, where that is not as usual.
    pub(crate) fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// The command as a person would write it, for messages.
    pub(crate) fn line(&self) -> String {
        command_line(self.argv)
    }

    /// Runs it to its end, whatever that is; a program that fails is not an
    /// error here. On timeout or cancel its process group is ended.
    pub(crate) fn run(&self, cancel: Option<&Cancel>) -> Result<Ended> {
        let stdout = self.leaves_daemon.then(Stdio::null);
        let mut attended = Attended::start(self, self.stdin()?, stdout, cancel)?;
        let ended = attended.wait()?;
        attended.forget();
        Ok(ended)
    }

    fn stdin(&self) -> Result<Stdio> {
        match self.secret {
            None => Ok(Stdio::null()),
            Some(text) => Secret::new(text).map(Secret::into_stdin).map_err(|error| self.failed(&error)),
        }
    }

    fn failed(&self, error: &io::Error) -> Error {
        Error::new(ErrorKind::Failed, format!("could not run {}: {}", self.line(), reason(error)))
    }
}

impl<'a> Tool<'a> {
    /// Adds to the environment that it has from us. Nothing secret: all that
    /// runs as our user may read it.
    pub(crate) fn env(mut self, env: &'a [(String, String)]) -> Self {
        self.env = env;
        self
    }

    /// Keeps these variables of our environment from it.
    pub(crate) fn without(mut self, names: &'a [&'a str]) -> Self {
        self.unset = names;
        self
    }

    /// Gives it `text` as its stdin, to be read or opened ([`Secret::AS_STDIN`]).
    /// Not for one whose input we write: see [`Secret::path`].
    pub(crate) fn secret(mut self, text: &'a [u8]) -> Self {
        self.secret = Some(text);
        self
    }

    /// Starts it to read what it prints. [`Tool::new`]'s timeout is for all of that.
    pub(crate) fn stream(&self, cancel: &Cancel) -> Result<Stream> {
        Stream::new(Attended::start(self, self.stdin()?, Some(Stdio::piped()), Some(cancel))?)
    }

    /// Starts it to write its input. [`Tool::new`]'s timeout is for all of that.
    pub(crate) fn sink(&self, cancel: &Cancel) -> Result<Sink> {
        Sink::new(Attended::start(self, Stdio::piped(), None, Some(cancel))?)
    }
}

/// A command as a person would write it, for messages.
pub(crate) fn command_line(argv: &[String]) -> String {
    let words: Vec<String> = argv.iter().map(|word| shown(word.as_bytes())).collect();
    words.join(" ")
}

/// What the system says, without the number that means nothing to most people.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Whether reading (`PollFlags::IN`) or writing (`OUT`) would not wait; asks for as long as `timeout`.
fn is_ready(pipe: &impl AsFd, events: PollFlags, timeout: Duration) -> bool {
    let timeout = rustix::event::Timespec::try_from(timeout).ok();
    let mut asked = [PollFd::new(pipe, events)];
    rustix::event::poll(&mut asked, timeout.as_ref()).is_ok_and(|ready| ready > 0)
}
