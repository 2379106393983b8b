//! The shape of sources that are what a program prints.

use schemars::JsonSchema;
use serde::Deserialize;

use super::At;

/// Databases of a MariaDB or MySQL server.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Mariadb {
    /// The server, such as `mariadb://user@host:3306/database`; without a host
    /// the one on this machine, by its socket. Holds no password.
    pub(in crate::config) url: Option<At<String>>,
    /// A file whose first line is the password; absolute.
    pub(in crate::config) password_file: Option<At<String>>,
    /// The databases. By default the one that `url` names.
    pub(in crate::config) databases: Vec<At<String>>,
    /// The directory of mariadb-dump and mariadb, or mysqldump and mysql;
    /// absolute. By default the installed ones.
    pub(in crate::config) bin_dir: Option<At<String>>,
}

/// What a program prints.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Command {
    /// The program and its arguments, no shell; what it prints is backed up if
    /// it ends with exit code 0.
    pub(in crate::config) run: At<Vec<String>>,
    /// What is given that again, as its input, by `restore --only SOURCE`.
    pub(in crate::config) restore: Option<At<Vec<String>>>,
    /// How long each of both may take. By default `1h`.
    pub(in crate::config) timeout: Option<At<String>>,
}
