//! The client programs of MariaDB or MySQL, and what those that are installed can do.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::exec::Tool;
use crate::{Cancel, Error, ErrorKind, Result};

/// Where packages put them.
const DIRS: [&str; 6] = [
    "/usr/bin",
    "/usr/local/bin",
    "/usr/local/mariadb/bin",
    "/usr/local/mysql/bin",
    "/opt/mariadb/bin",
    "/opt/bitnami/mariadb/bin",
];
/// What dumps a database, and what runs SQL, under their newer and their older names.
const DUMPERS: [&str; 2] = ["mariadb-dump", "mysqldump"];
const CLIENTS: [&str; 2] = ["mariadb", "mysql"];
const TIMEOUT: Duration = Duration::from_secs(20);
const HELP_MAX_BYTES: u64 = 1 << 20;

/// The programs of one installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tools {
    dumper: PathBuf,
    client: PathBuf,
    /// What the dumper says of its options.
    help: String,
}

impl Tools {
    /// The first that are installed. `dir` is the only place where they may be, if given.
    ///
    /// # Errors
    /// When there are none, or they do not run.
    pub(crate) fn find(dir: Option<&Path>, cancel: &Cancel) -> Result<Self> {
        let dirs = dir.map_or_else(|| DIRS.iter().map(PathBuf::from).collect(), |dir| vec![dir.to_owned()]);
        let one_of =
            |dir: &Path, names: [&str; 2]| names.iter().map(|name| dir.join(name)).find(|program| program.is_file());
        let found = dirs.iter().find_map(|dir| Some((one_of(dir, DUMPERS)?, one_of(dir, CLIENTS)?)));
        let (dumper, client) = found.ok_or_else(|| {
            let place = dir.map_or("on this host".to_owned(), |dir| format!("in {}", dir.display()));
            Error::new(ErrorKind::Failed, format!("there is no mariadb-dump with its mariadb {place}"))
                .next("install the client programs (Debian: mariadb-client), or name their directory as `bin_dir`")
        })?;
        let mut help = String::new();
        let argv = command(&dumper, &["--no-defaults", "--help"]);
        let read = Tool::new(&argv, TIMEOUT).stream(cancel)?.take(HELP_MAX_BYTES).read_to_string(&mut help);
        read.map_err(|error| Error::new(ErrorKind::Failed, format!("{} does not run: {error}", dumper.display())))?;
        Ok(Self { dumper, client, help })
    }

    /// Whether the dumper has the option `--name`.
    pub(crate) fn knows(&self, name: &str) -> bool {
        let option = format!("--{name}");
        let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
        self.help.match_indices(&option).any(|(at, _)| ends(&self.help[at + option.len()..]))
    }

    pub(crate) fn dumper(&self, arguments: &[&str]) -> Vec<String> {
        command(&self.dumper, arguments)
    }

    pub(crate) fn client(&self, arguments: &[&str]) -> Vec<String> {
        command(&self.client, arguments)
    }
}

fn command(program: &Path, arguments: &[&str]) -> Vec<String> {
    let program = program.to_string_lossy().into_owned();
    std::iter::once(program).chain(arguments.iter().map(|argument| (*argument).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_known_by_its_whole_name() {
        let help = "  --ignore-table-data=name \n  -y, --no-tablespaces \n --set-gtid-purged[=name]".to_owned();
        let tools = Tools { dumper: PathBuf::new(), client: PathBuf::new(), help };
        for (name, is_known) in [
            ("ignore-table-data", true),
            ("ignore-table", false),
            ("no-tablespaces", true),
            ("set-gtid-purged", true),
            ("dump-history", false),
        ] {
            assert_eq!(tools.knows(name), is_known, "{name}");
        }
    }
}
