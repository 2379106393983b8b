//! The databases that a query in `lifeboat.yaml` may name, and how they are asked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{AppConfig, Server, Source};
use crate::pg::{self, Session};
use crate::{Cancel, Result, sqlite};

/// A database that a query is put to. Stands in a journal too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Queried {
    /// The file of a SQLite database.
    Sqlite(PathBuf),
    /// A database of a PostgreSQL server.
    Postgres {
        /// The server.
        server: Server,
        /// Its name there.
        name: String,
    },
}

/// Those of `sources` by what names them: a source with one database,
/// `SOURCE/DATABASE`, or a `DATABASE` of a server whose name nothing else has.
pub(crate) fn databases(sources: &BTreeMap<String, Source>) -> BTreeMap<String, Queried> {
    let (mut all, mut by_name): (BTreeMap<String, Queried>, BTreeMap<String, Vec<Queried>>) = Default::default();
    for (source, of) in sources {
        match of {
            // MariaDB is dumped, and not asked.
            Source::Files(_) | Source::Mariadb(_) | Source::Command(_) => {}
            Source::Sqlite(sqlite) => {
                all.insert(source.clone(), Queried::Sqlite(sqlite.path.clone()));
            }
            Source::Postgres(postgres) => {
                for name in &postgres.databases {
                    let database = Queried::Postgres { server: postgres.server.clone(), name: name.clone() };
                    if postgres.databases.len() == 1 {
                        all.insert(source.clone(), database.clone());
                    }
                    all.insert(format!("{source}/{name}"), database.clone());
                    by_name.entry(name.clone()).or_default().push(database);
                }
            }
        }
    }
    for (name, mut of_name) in by_name {
        if of_name.len() == 1 && !sources.contains_key(&name) {
            all.entry(name).or_insert(of_name.remove(0));
        }
    }
    all
}

impl AppConfig {
    /// As [`databases`].
    pub(crate) fn databases(&self) -> BTreeMap<String, Queried> {
        databases(&self.sources)
    }
}

impl Queried {
    /// The first value that `query` finds; `None` for no row or NULL. It changes
    /// nothing, and takes no longer than `timeout` (a SQLite database: waits no
    /// longer for a lock).
    ///
    /// # Errors
    /// When the database is not reached, or the query fails; or on cancel.
    pub(crate) fn value(&self, query: &str, timeout: Duration, cancel: &Cancel) -> Result<Option<String>> {
        match self {
            Self::Sqlite(path) => sqlite::query_value(path, query, timeout, cancel),
            Self::Postgres { server, name } => {
                let mut session = Session::open(&server.route()?, name, pg::pin::APPLICATION)?;
                let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX).max(1);
                // Whoever wrote it knows the tables as the application does.
                let begin =
                    format!("RESET search_path; RESET row_security; SET statement_timeout = {millis}; BEGIN READ ONLY");
                session.run(&begin, cancel)?;
                let value = session.value(query, cancel);
                value.map_err(|error| error.next(format!("correct the query in the configuration: {query}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DumpFormat, PostgresSource, SqliteSource};

    /// Shows D1.
    #[test]
    fn a_database_has_the_names_that_mean_it_alone() {
        let postgres = |host: &str, names: &[&str]| {
            let keywords = BTreeMap::from([("host".to_owned(), host.to_owned())]);
            Source::Postgres(PostgresSource {
                server: Server { keywords, ..Server::default() },
                databases: names.iter().map(|name| (*name).to_owned()).collect(),
                format: DumpFormat::Custom,
                has_globals: true,
                lock_timeout: Duration::ZERO,
            })
        };
        let sqlite = Source::Sqlite(SqliteSource {
            path: "/x.db".into(),
            busy_timeout: Duration::ZERO,
            merge_key: BTreeMap::new(),
        });
        let sources = BTreeMap::from([
            ("one".to_owned(), postgres("a", &["app"])),
            ("two".to_owned(), postgres("b", &["app", "more", "lite"])),
            ("lite".to_owned(), sqlite),
        ]);
        let found = databases(&sources);
        let of = |name: &str| match &found[name] {
            Queried::Sqlite(path) => path.display().to_string(),
            Queried::Postgres { server, name } => format!("{}:{name}", server.keywords["host"]),
        };
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["lite", "more", "one", "one/app", "two/app", "two/lite", "two/more"]);
        let meant = names.iter().map(|name| of(name)).collect::<Vec<_>>();
        assert_eq!(meant, ["/x.db", "b:more", "a:app", "a:app", "b:app", "b:lite", "b:more"]);
    }
}
