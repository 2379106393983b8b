//! Sources that a restore in place leaves as they are, because what it does to
//! them could not be taken back with the rest: they are named, with what does it.

use std::path::Path;

use lifeboat_format::path::shown;
use lifeboat_format::record::Source;
use serde::Serialize;

use crate::config::{self, AppConfig, MariadbServer};
use crate::reach::shell;
use crate::{Error, ErrorKind};

/// A source that is not restored.
#[derive(Clone, Debug, Serialize)]
pub struct NotRestored {
    /// Its name.
    pub source: String,
    /// Why.
    pub why: String,
    /// The commands that do it, in that order.
    pub commands: Vec<String>,
}

impl NotRestored {
    /// `source`, if it is of such a kind.
    pub(super) fn of(source: &Source, app: Option<&AppConfig>, archive: &Path) -> Option<Self> {
        let archive = shell(&archive.to_string_lossy());
        let configured = app.and_then(|app| app.sources.get(&source.name));
        let (why, commands) = match source.kind.as_str() {
            "mariadb" => {
                let server = match configured {
                    Some(config::Source::Mariadb(mariadb)) => mariadb.server.clone(),
                    _ => MariadbServer::default(),
                };
                let databases = source.details.mariadb.iter().flat_map(|mariadb| &mariadb.databases);
                let each =
                    databases.map(|database| server.shell_command(&database.name, &format!("DIR/{}", database.path)));
                let why = "databases of MariaDB cannot be exchanged with the rest in one step, and back";
                (why, std::iter::once(format!("lifeboat restore {archive} --to DIR")).chain(each).collect())
            }
            "command" => {
                let why = "what a command does cannot be undone with the rest";
                (why, vec![format!("lifeboat restore {archive} --only {}", source.name)])
            }
            _ => return None,
        };
        Some(Self { source: source.name.clone(), why: why.to_owned(), commands })
    }

    /// The refusal of a restore that asks for this.
    pub(super) fn refusal(&self) -> Error {
        let what = format!("the source {} is not restored in place: {}", shown(self.source.as_bytes()), self.why);
        Error::new(ErrorKind::Usage, what)
            .state("nothing was written, and nothing was stopped")
            .next(format!("by hand: {}", self.commands.join("; then ")))
    }
}
