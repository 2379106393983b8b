//! Queries whose answers are exported, and columns that must not get into one.

use std::collections::BTreeMap;

use super::Source;

/// A query whose answer is exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The `postgres` source whose server is asked.
    pub source: String,
    /// The database.
    pub database: String,
    /// The query: one statement that only reads.
    pub query: String,
}

impl Export {
    /// `SOURCE/DATABASE`.
    #[must_use]
    pub fn db(&self) -> String {
        format!("{}/{}", self.source, self.database)
    }
}

/// A column that must not get into an export, as the server calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretColumn {
    /// As it is written in the configuration.
    pub text: String,
    /// The source and the database that it is in; by default all that are asked.
    pub database: Option<(String, String)>,
    /// The schema of the table; by default all.
    pub schema: Option<String>,
    /// The table.
    pub table: String,
    /// The column.
    pub column: String,
}

impl SecretColumn {
    /// Whether it is to be in the database that `export` asks.
    pub(crate) fn is_of(&self, export: &Export) -> bool {
        let is_it = |(source, database): &(String, String)| *source == export.source && *database == export.database;
        self.database.as_ref().is_none_or(is_it)
    }
}

/// The source and the database of a server that `name` means: a source with one
/// database, `DATABASE`, or `SOURCE/DATABASE`.
pub(super) fn database_of(name: &str, sources: &BTreeMap<String, Source>) -> Option<(String, String)> {
    let servers = sources.iter().filter_map(|(name, source)| match source {
        Source::Postgres(postgres) => Some((name, &postgres.databases)),
        _ => None,
    });
    let all: Vec<(&String, &String)> =
        servers.flat_map(|(source, databases)| databases.iter().map(move |database| (source, database))).collect();
    let is_meant = |source: &str, database: &str| match name.strip_prefix(source) {
        Some("") => true,
        Some(rest) => rest.strip_prefix('/') == Some(database),
        None => false,
    };
    let mut meant: Vec<_> = all.iter().filter(|(source, database)| is_meant(source, database)).collect();
    if meant.is_empty() && !sources.contains_key(name) {
        meant = all.iter().filter(|(_, database)| *database == name).collect();
    }
    match meant[..] {
        [(source, database)] => Some(((*source).clone(), (*database).clone())),
        _ => None,
    }
}
