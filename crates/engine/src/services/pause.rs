//! Keeping a service still while a backup reads, and letting it go on. Where it
//! cannot be frozen it is stopped and started instead.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Found, SYSTEMCTL, Service, ServiceKind, argv, succeeded};
use crate::exec::{Tool, command_line};
use crate::{Cancel, Result};

/// How long a freeze that is cut short has between SIGTERM and SIGKILL: the thaw waits for it.
const FREEZE_GRACE: Duration = Duration::from_millis(500);

/// How a service is kept still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// It stays in memory and does nothing.
    Frozen,
    /// It is stopped, and started again.
    Stopped,
}

impl Service {
    /// How it is paused where `wanted` is asked for: one that has no commands
    /// to freeze it is stopped.
    pub(crate) fn pauses_by(&self, wanted: How) -> How {
        match (&self.kind, wanted) {
            (ServiceKind::Unit { .. } | ServiceKind::Commands { freeze: Some(_), thaw: Some(_), .. }, How::Frozen) => {
                How::Frozen
            }
            _ => How::Stopped,
        }
    }

    /// Keeps it still. Only a freeze is cut short on cancel, not a stop.
    ///
    /// # Errors
    /// When the command fails or takes too long. It may be paused all the same.
    pub(crate) fn freeze(&self, how: How, cancel: Option<&Cancel>) -> Result<()> {
        self.freeze_by(SYSTEMCTL, how, cancel)
    }

    /// Lets it go on. One that goes on already is no error where that can be known.
    ///
    /// # Errors
    /// When the command fails or takes too long.
    pub(crate) fn thaw(&self, how: How) -> Result<()> {
        self.thaw_by(SYSTEMCTL, how)
    }

    /// The command by which a person lets it go on.
    pub(crate) fn thaw_line(&self, how: How) -> String {
        command_line(&self.thaw_argv(SYSTEMCTL, how))
    }

    fn thaw_argv(&self, systemctl: &str, how: How) -> Vec<String> {
        match (&self.kind, how) {
            (ServiceKind::Unit { unit }, How::Frozen) => argv(&[systemctl, "thaw", unit]),
            (ServiceKind::Unit { unit }, How::Stopped) => argv(&[systemctl, "start", unit]),
            (ServiceKind::Commands { thaw: Some(thaw), .. }, How::Frozen) => thaw.clone(),
            (ServiceKind::Commands { start, .. }, _) => start.clone(),
        }
    }

    pub(super) fn freeze_by(&self, systemctl: &str, how: How, cancel: Option<&Cancel>) -> Result<()> {
        let argv = match (&self.kind, how) {
            (ServiceKind::Unit { unit }, How::Frozen) => argv(&[systemctl, "freeze", unit]),
            (ServiceKind::Commands { freeze: Some(freeze), .. }, How::Frozen) => freeze.clone(),
            // Never cut short: what is half stopped would be stopped after it was started again.
            _ => return self.stop_by(systemctl, None).map_err(|error| self.failed("did not stop", &error)),
        };
        let tool = Tool::new(&argv, self.timeout).grace(FREEZE_GRACE);
        let frozen = tool.run(cancel).and_then(|ended| succeeded(&tool, &ended));
        frozen.map_err(|error| self.failed("could not be frozen", &error))
    }

    pub(super) fn thaw_by(&self, systemctl: &str, how: How) -> Result<()> {
        if how == How::Stopped {
            return self.start_by(systemctl, None).map_err(|error| self.failed("did not start", &error));
        }
        let argv = self.thaw_argv(systemctl, how);
        let tool = Tool::new(&argv, self.timeout);
        let thawed = tool.run(None).and_then(|ended| succeeded(&tool, &ended));
        thawed.or_else(|error| {
            // Nothing of a unit that does not run is frozen. What commands of a user say of a
            // frozen service, nobody knows: their failure stays one.
            let is_unit = matches!(self.kind, ServiceKind::Unit { .. });
            if is_unit && self.found_by(systemctl, None).is_ok_and(|found| found == Found::Stopped) {
                return Ok(());
            }
            Err(self.failed("could not be thawed", &error))
        })
    }
}
