//! A program that was started, and is looked after until it ends.

use std::io;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::running::Running;
use super::said::Said;
use super::{Ended, GRACE, PAUSE_MAX, PAUSE_MIN, Tool, reason};
use crate::{Cancel, Error, ErrorKind, Result};

/// Dropping it ends the program's group, unless the program was seen to end by itself.
pub(super) struct Attended {
    pub(super) running: Running,
    said: Said,
    /// The command, for messages.
    line: String,
    started: Instant,
    /// When [`Attended::check_now_and_then`] looked last.
    looked: Instant,
    timeout: Duration,
    cancel: Option<Cancel>,
    /// Since when it is known that it has ended well while its pipe is still open.
    leaves_open_since: Option<Instant>,
}

impl Attended {
    /// Starts `tool`. Its stdout is kept beside stderr where it is not `stdout`.
    pub(super) fn start(tool: &Tool<'_>, stdin: Stdio, stdout: Option<Stdio>, cancel: Option<&Cancel>) -> Result<Self> {
        let start = || {
            let said = Said::new()?;
            let stdout = stdout.map_or_else(|| said.stdio(), Ok)?;
            Ok((Running::start(tool, stdin, stdout, &said)?, said))
        };
        let started = Instant::now();
        let (running, said) = start().map_err(|error: io::Error| tool.failed(&error))?;
        let (line, timeout, cancel) = (tool.line(), tool.timeout, cancel.cloned());
        Ok(Self { running, said, line, started, looked: started, timeout, cancel, leaves_open_since: None })
    }

    /// Ends the program's group when the run is to stop, or its time is over.
    pub(super) fn check(&mut self) -> Result<()> {
        if self.cancel.as_ref().is_some_and(Cancel::is_set) {
            self.running.end_group();
            return Err(Error::new(ErrorKind::Cancelled, format!("{} was stopped on request", self.line)));
        }
        if self.left().is_zero() {
            self.running.end_group();
            return Err(self.too_slow());
        }
        self.said.cut();
        Ok(())
    }

    /// The same where something comes all the time: looking costs more than reading.
    pub(super) fn check_now_and_then(&mut self) -> Result<()> {
        if self.looked.elapsed() < PAUSE_MAX {
            return Ok(());
        }
        self.looked = Instant::now();
        self.check()
    }

    fn left(&self) -> Duration {
        self.timeout.saturating_sub(self.started.elapsed())
    }

    /// How it ended; `None` while it runs.
    fn look(&mut self) -> Result<Option<Ended>> {
        let status = self.running.look().map_err(|error| self.failed(&error))?;
        Ok(status.map(|status| Ended { status, said: self.said.tail() }))
    }

    /// Waits until it ends.
    pub(super) fn wait(&mut self) -> Result<Ended> {
        let mut pause = PAUSE_MIN;
        loop {
            if let Some(ended) = self.look()? {
                return Ok(ended);
            }
            self.check()?;
            std::thread::sleep(pause.min(self.left()));
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// What it said was told.
    pub(super) fn forget(&self) {
        self.said.forget();
    }

    pub(super) fn failed(&self, error: &io::Error) -> Error {
        Error::new(ErrorKind::Failed, format!("{} cannot be spoken to: {}", self.line, reason(error)))
    }

    fn too_slow(&self) -> Error {
        let timeout = crate::config::duration::shown(self.timeout);
        let said = self.said.tail();
        let last = said.lines().last().map(|line| format!(": {line}")).unwrap_or_default();
        Error::new(ErrorKind::Failed, format!("{} did not end within {timeout}{last}", self.line))
    }

    /// Waits until it ends, and takes nothing but success for an answer.
    pub(super) fn succeed(&mut self) -> Result<()> {
        let ended = self.wait()?;
        if ended.is_success() { Ok(()) } else { Err(Error::new(ErrorKind::Failed, ended.describe())) }
    }

    /// To be called while nothing comes through its pipe: it may have failed,
    /// or have left something behind that keeps the pipe open.
    pub(super) fn look_while_silent(&mut self) -> Result<()> {
        match self.look()? {
            None => Ok(()),
            Some(ended) if !ended.is_success() => Err(Error::new(ErrorKind::Failed, ended.describe())),
            Some(_) if self.leaves_open_since.get_or_insert_with(Instant::now).elapsed() < GRACE => Ok(()),
            Some(_) => {
                self.running.end_group();
                let message = "it ended, and something that it left behind kept its pipe open";
                Err(Error::new(ErrorKind::Failed, message))
            }
        }
    }
}
