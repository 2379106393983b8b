//! Sources that are what a program prints, as they are written down again.

use serde::{Deserialize, Serialize};

use super::{Reader, duration, text};
use crate::config::{CommandSource, MariadbSource};
use crate::exec::command_line;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WrittenMariadb {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// Never read back: what an archive names is not sent anywhere.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    password_file: Option<String>,
    databases: Vec<String>,
    /// As for the password: programs are run from there.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    bin_dir: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WrittenCommand {
    run: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    restore: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
}

impl WrittenMariadb {
    pub(super) fn of(mariadb: &MariadbSource, reader: Reader) -> Self {
        let is_owner = reader == Reader::Owner;
        Self {
            url: Some(mariadb.server.url(is_owner)),
            password_file: mariadb.server.password_file.as_deref().filter(|_| is_owner).map(text),
            databases: mariadb.databases.clone(),
            bin_dir: mariadb.server.bin_dir.as_deref().filter(|_| is_owner).map(text),
        }
    }
}

impl WrittenCommand {
    pub(super) fn of(command: &CommandSource) -> Self {
        Self {
            run: command.run.clone(),
            restore: command.restore.clone(),
            timeout: Some(duration::shown(command.timeout)),
        }
    }

    /// What it would run when the source `name` is restored.
    pub(super) fn acts(&self, name: &str) -> Option<String> {
        let restore = self.restore.as_ref()?;
        Some(format!("source {name}, when it is restored by itself: runs {}", command_line(restore)))
    }
}
