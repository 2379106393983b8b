//! The services of an app: how to ask whether one runs, stop it, start it, and
//! keep it from starting at a boot in the middle of a restore. Which of them,
//! in which order, and what happens when one fails is the caller's business.
//!
//! All of it is plain values that go into a journal: after a crash they must be
//! there without the configuration.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lifeboat_store as store;
use lifeboat_store::durable::{Unnamed, sync_dir};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::config::duration;
use crate::exec::{Ended, Tool};
use crate::{Cancel, Error, ErrorKind, Result};

/// How systemd is spoken to.
const SYSTEMCTL: &str = "systemctl";
/// `is-active`: the unit does not run, or there is no such unit.
const IS_INACTIVE: [i32; 2] = [3, 4];
/// `stop`: there is no such unit.
const NOT_LOADED: i32 = 5;
/// The mode of a drop-in, less the umask.
const DROP_IN_MODE: u32 = 0o644;
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Something that runs and uses what is restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// What people call it.
    pub name: String,
    /// How it is stopped and started.
    pub kind: ServiceKind,
    /// How long each of its commands may take.
    #[serde(rename = "timeout_ms", with = "duration::millis")]
    pub timeout: Duration,
}

/// How a service is stopped and started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceKind {
    /// By systemd.
    Unit {
        /// Its full name, such as `web.service`.
        unit: String,
    },
    /// By commands: programs and their arguments, no shell.
    Commands {
        /// Stops it.
        stop: Vec<String>,
        /// Starts it.
        start: Vec<String>,
        /// Ends with exit code 0 where it runs.
        status: Option<Vec<String>>,
        /// Keeps it still while a backup reads; there is `thaw` too, or neither.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        freeze: Option<Vec<String>>,
        /// Lets it go on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thaw: Option<Vec<String>>,
    },
}

/// The state in which a service was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// It runs.
    Running,
    /// It does not run.
    Stopped,
    /// Nobody can tell: it has no `status` command.
    Unknown,
}

/// What is run once the services run again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// The program and its arguments.
    pub run: Vec<String>,
    /// Whether a failure is only a warning.
    pub warn_only: bool,
    /// How long it may take.
    #[serde(rename = "timeout_ms", with = "duration::millis")]
    pub timeout: Duration,
}

impl Reload {
    /// Runs it. Whether a failure is only a warning is left to the caller.
    ///
    /// # Errors
    /// When it fails or takes too long, with what it said.
    pub fn apply(&self, cancel: Option<&Cancel>) -> Result<()> {
        let tool = Tool::new(&self.run, self.timeout).leaves_daemon();
        let done = tool.run(cancel).and_then(|ended| succeeded(&tool, &ended));
        done.map_err(|error| match error.kind() {
            ErrorKind::Cancelled => error,
            _ => Error::new(ErrorKind::Failed, format!("reload failed: {error}")),
        })
    }
}

impl Service {
    /// Whether it runs.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn found(&self, cancel: Option<&Cancel>) -> Result<Found> {
        self.found_by(SYSTEMCTL, cancel)
    }

    /// Stops it, and where its state can be asked, waits until it has stopped.
    /// One that does not run stays as it is.
    ///
    /// # Errors
    /// When the command fails, or it still runs when its time is over.
    pub fn stop(&self, cancel: Option<&Cancel>) -> Result<()> {
        self.stop_by(SYSTEMCTL, cancel).map_err(|error| self.failed("did not stop", &error))
    }

    /// Starts it. One that is known to run stays as it is.
    ///
    /// # Errors
    /// When the command fails, with what it said.
    pub fn start(&self, cancel: Option<&Cancel>) -> Result<()> {
        self.start_by(SYSTEMCTL, cancel).map_err(|error| self.failed("did not start", &error))
    }

    /// Keeps a unit from starting while the file `pending` exists, across
    /// reboots, by a drop-in of its own that bears `id`. Does nothing for
    /// commands, or where there is no `systemd_dir` (`/etc/systemd/system`).
    ///
    /// # Errors
    /// When the drop-in cannot be written or systemd does not read it.
    pub fn hold(&self, systemd_dir: &Path, id: &str, pending: &Path) -> Result<()> {
        self.hold_by(SYSTEMCTL, systemd_dir, id, pending).map_err(|error| self.failed("could not be held", &error))
    }

    /// Takes back what [`Service::hold`] did; nothing there is fine.
    ///
    /// # Errors
    /// When the drop-in cannot be removed or systemd does not notice.
    pub fn release(&self, systemd_dir: &Path, id: &str) -> Result<()> {
        self.release_by(SYSTEMCTL, systemd_dir, id).map_err(|error| self.failed("could not be released", &error))
    }

    fn failed(&self, how: &str, error: &Error) -> Error {
        let kind = if error.kind() == ErrorKind::Cancelled { ErrorKind::Cancelled } else { ErrorKind::Failed };
        Error::new(kind, format!("service {} {how}: {error}", self.name))
    }

    fn found_by(&self, systemctl: &str, cancel: Option<&Cancel>) -> Result<Found> {
        let argv = match &self.kind {
            ServiceKind::Unit { unit } => argv(&[systemctl, "is-active", "--quiet", unit]),
            ServiceKind::Commands { status: Some(status), .. } => status.clone(),
            ServiceKind::Commands { status: None, .. } => return Ok(Found::Unknown),
        };
        let unanswered = |error: &Error| self.failed("could not be asked whether it runs", error);
        let tool = Tool::new(&argv, self.timeout);
        let ended = tool.run(cancel).map_err(|error| unanswered(&error))?;
        let is_unit = matches!(self.kind, ServiceKind::Unit { .. });
        match ended.code() {
            Some(0) => Ok(Found::Running),
            // Any other code of systemctl says that it could not find out.
            Some(code) if !is_unit || IS_INACTIVE.contains(&code) => Ok(Found::Stopped),
            _ => Err(unanswered(&failure(&tool, &ended))),
        }
    }

    fn stop_by(&self, systemctl: &str, cancel: Option<&Cancel>) -> Result<()> {
        let deadline = Instant::now() + self.timeout;
        let (argv, missing_is_fine) = match &self.kind {
            // Not asked first: a unit that is about to be restarted does not run, but would.
            ServiceKind::Unit { unit } => (argv(&[systemctl, "stop", unit]), true),
            ServiceKind::Commands { .. } if self.found_by(systemctl, cancel)? == Found::Stopped => return Ok(()),
            ServiceKind::Commands { stop, .. } => (stop.clone(), false),
        };
        let tool = Tool::new(&argv, self.timeout);
        let ended = tool.run(cancel)?;
        if missing_is_fine && ended.code() == Some(NOT_LOADED) {
            return Ok(());
        }
        succeeded(&tool, &ended)?;
        let mut pause = PAUSE_MIN;
        while self.found_by(systemctl, cancel)? == Found::Running {
            if Instant::now() >= deadline {
                let timeout = duration::shown(self.timeout);
                return Err(Error::new(ErrorKind::Failed, format!("it still runs after {timeout}")));
            }
            cancel.map_or(Ok(()), Cancel::check)?;
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
        Ok(())
    }

    fn start_by(&self, systemctl: &str, cancel: Option<&Cancel>) -> Result<()> {
        let argv = match &self.kind {
            ServiceKind::Unit { unit } => argv(&[systemctl, "start", unit]),
            ServiceKind::Commands { .. } if self.found_by(systemctl, cancel)? == Found::Running => return Ok(()),
            ServiceKind::Commands { start, .. } => start.clone(),
        };
        let tool = Tool::new(&argv, self.timeout).leaves_daemon();
        let ended = tool.run(cancel)?;
        succeeded(&tool, &ended)
    }

    /// The folder and the name of the drop-in; `None` where there is none.
    fn drop_in(&self, systemd_dir: &Path, id: &str) -> Option<(PathBuf, String)> {
        match &self.kind {
            ServiceKind::Unit { unit } if systemd_dir.is_dir() => {
                Some((systemd_dir.join(format!("{unit}.d")), format!("lifeboat-{id}.conf")))
            }
            _ => None,
        }
    }

    fn hold_by(&self, systemctl: &str, systemd_dir: &Path, id: &str, pending: &Path) -> Result<()> {
        let Some((dir, name)) = self.drop_in(systemd_dir, id) else { return Ok(()) };
        let text = condition(pending)?;
        match std::fs::create_dir(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(store::Error::io("create", &dir, error).into());
            }
            _ => sync_dir(systemd_dir)?,
        }
        let mut file = Unnamed::create(&dir)?;
        file.append(text.as_bytes())?;
        if let Err(error) = file.publish([&name], DROP_IN_MODE) {
            // From a run that was interrupted right here.
            let is_ours = std::fs::read_to_string(dir.join(&name)).is_ok_and(|found| found == text);
            if error.kind() != store::ErrorKind::Exists || !is_ours {
                return Err(error.into());
            }
        }
        self.read_units_again(systemctl)
    }

    fn release_by(&self, systemctl: &str, systemd_dir: &Path, id: &str) -> Result<()> {
        let Some((dir, name)) = self.drop_in(systemd_dir, id) else { return Ok(()) };
        let path = dir.join(name);
        match rustix::fs::unlink(&path) {
            Ok(()) => sync_dir(&dir)?,
            Err(Errno::NOENT) => {}
            Err(error) => return Err(store::Error::io("remove", &path, error).into()),
        }
        match rustix::fs::rmdir(&dir) {
            Ok(()) => sync_dir(systemd_dir)?,
            // The user has drop-ins there too, or it is gone already.
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => {}
            Err(error) => return Err(store::Error::io("remove", &dir, error).into()),
        }
        // Also when nothing was removed: a run may have been interrupted right before this.
        self.read_units_again(systemctl)
    }

    fn read_units_again(&self, systemctl: &str) -> Result<()> {
        let argv = argv(&[systemctl, "daemon-reload"]);
        let tool = Tool::new(&argv, self.timeout);
        let ended = tool.run(None)?;
        succeeded(&tool, &ended)
    }
}

fn argv(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn succeeded(tool: &Tool<'_>, ended: &Ended) -> Result<()> {
    if ended.is_success() { Ok(()) } else { Err(failure(tool, ended)) }
}

fn failure(tool: &Tool<'_>, ended: &Ended) -> Error {
    Error::new(ErrorKind::Failed, format!("{}: {}", tool.line(), ended.describe()))
}

/// The drop-in that keeps a unit from starting while `pending` exists.
///
/// Reads as systemd.syntax(7) says: `%` begins a specifier, a backslash at the
/// end of a line continues it, white space around a value is dropped.
fn condition(pending: &Path) -> Result<String> {
    let text = pending.to_str().filter(|text| {
        let is_plain = !text.chars().any(char::is_control) && !text.contains('\\');
        pending.is_absolute() && is_plain && text.trim() == *text
    });
    let text = text.ok_or_else(|| {
        let what = format!("systemd cannot watch the path {}", pending.display());
        Error::new(ErrorKind::Usage, what).next("choose a data_dir with a plain name")
    })?;
    Ok(format!("[Unit]\nConditionPathExists=!{}\n", text.replace('%', "%%")))
}

mod pause;
#[cfg(test)]
mod tests;

pub use pause::How;
