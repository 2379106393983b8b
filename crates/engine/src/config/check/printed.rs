//! The rules of sources that are what a program prints.

use std::time::Duration;

use serde_saphyr::Location;

use super::Checked;
use super::values::{absolute, argv, period, quoted};
use crate::config::raw::{self, At, Wrong};
use crate::config::{CommandSource, MariadbServer, MariadbSource};
use crate::mariadb;

/// How long a program may print, or take what it is given.
const TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// The longest name of a database, in letters.
const DATABASE_NAME_MAX: usize = 64;
/// Databases that are the server's own views of itself.
const OF_THE_SERVER: [&str; 3] = ["information_schema", "performance_schema", "sys"];

pub(super) fn mariadb(place: Location, mariadb: raw::Mariadb) -> Checked<MariadbSource> {
    let url = mariadb.url.map(|url| mariadb::parse_url(&url.value).map_err(|what| Wrong::at(url.place, what)));
    let (options, named) = url.transpose()?.unwrap_or_default();
    let mut databases: Vec<String> = Vec::new();
    for name in mariadb.databases {
        let at = name.place;
        let name = database(name)?;
        if databases.contains(&name) {
            return Err(Wrong::at(at, format!("{} stands twice, expected each database once", quoted(&name))));
        }
        databases.push(name);
    }
    if databases.is_empty() {
        let none = || Wrong::at(place, "it names no database, expected `databases: [...]`, or one in `url`");
        databases.push(database(At { value: named.ok_or_else(none)?, place })?);
    }
    let server = MariadbServer {
        options,
        password_file: mariadb.password_file.map(absolute).transpose()?,
        bin_dir: mariadb.bin_dir.map(absolute).transpose()?,
    };
    Ok(MariadbSource { server, databases })
}

pub(super) fn command(command: raw::Command) -> Checked<CommandSource> {
    Ok(CommandSource {
        run: argv(command.run)?,
        restore: command.restore.map(argv).transpose()?,
        timeout: period(command.timeout, TIMEOUT)?,
    })
}

fn database(name: At<String>) -> Checked<String> {
    let text = &name.value;
    if text.is_empty() || text.chars().count() > DATABASE_NAME_MAX || text.chars().any(char::is_control) {
        let what = format!("{} is no name of a database, expected 1 to 64 letters", quoted(text));
        return Err(Wrong::at(name.place, what));
    }
    if OF_THE_SERVER.iter().any(|own| own.eq_ignore_ascii_case(text)) {
        return Err(Wrong::at(name.place, "the server makes this one by itself, expected one with data"));
    }
    Ok(name.value)
}
