//! What is asked of a server, by its own client program: a question is an
//! argument, a script is its input, and how the server is reached stands in
//! neither of both.

use std::collections::BTreeMap;
use std::io::{Read, Write as _};
use std::time::Duration;

use super::{ENVIRONMENT, Route, Tools, ident, literal};
use crate::exec::{NO_TIMEOUT, Secret, Sink, Tool};
use crate::{Cancel, Error, ErrorKind, Result};

/// How long an answer may take. To count the rows of a large table takes long.
const TIMEOUT: Duration = Duration::from_secs(60 * 60);
const ANSWER_MAX_BYTES: u64 = 1 << 28;
/// As a script: no command of the client itself is run (`\!`, `source`, `tee`), no file of ours is
/// sent, and a lost connection ends it, whose settings a new one would not have.
const ARGUMENTS: [&str; 7] = [
    "--batch",
    "--skip-column-names",
    "--binary-mode",
    "--local-infile=0",
    "--skip-reconnect",
    "--default-character-set=utf8mb4",
    "--max-allowed-packet=1G",
];

/// A client of one server.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) tools: Tools,
    pub(crate) route: Route,
}

/// A database as it stands on a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Database {
    pub(crate) charset: String,
    pub(crate) collation: String,
    pub(crate) tables: Vec<Table>,
    /// Views, sequences, routines and events.
    pub(crate) others: u64,
}

/// A table that holds rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: String,
    /// Bytes on the server's disk, by its estimate.
    pub(crate) bytes: u64,
    /// Whether it takes part in transactions, so that a dump sees it as of one moment.
    pub(crate) is_transactional: bool,
    pub(crate) is_versioned: bool,
}

impl Client {
    /// The rows that the server answers. SQL's NULL is the text `NULL`.
    pub(crate) fn rows(&self, sql: &str, cancel: &Cancel) -> Result<Vec<Vec<String>>> {
        let argv = self.tools.client(&[]);
        let options = format!("--defaults-file={}", Secret::AS_STDIN);
        let own = std::iter::once(options).chain(ARGUMENTS.map(str::to_owned));
        let argv: Vec<String> = argv.into_iter().chain(own).chain([format!("--execute={sql}")]).collect();
        let secret = self.route.option_file();
        let mut answer = Vec::new();
        let stream = Tool::new(&argv, TIMEOUT).without(&ENVIRONMENT).secret(&secret).stream(cancel)?;
        let read = stream.take(ANSWER_MAX_BYTES).read_to_end(&mut answer);
        read.map_err(|error| self.failed(&error, cancel))?;
        let answer = String::from_utf8_lossy(&answer);
        Ok(answer.lines().map(|line| line.split('\t').map(plain).collect()).collect())
    }

    /// Runs one statement that answers nothing.
    pub(crate) fn run(&self, sql: &str, cancel: &Cancel) -> Result<()> {
        self.rows(sql, cancel).map(|_| ())
    }

    /// Runs the script that `feed` writes, in `database`. The first error ends it.
    pub(crate) fn script(
        &self,
        database: &str,
        cancel: &Cancel,
        feed: impl FnOnce(&mut Sink) -> std::io::Result<()>,
    ) -> Result<()> {
        let failed = |error: std::io::Error| self.failed(&error, cancel);
        let secret = Secret::new(&self.route.option_file()).map_err(failed)?;
        let options = format!("--defaults-file={}", secret.path());
        let database = format!("--database={database}");
        let mut argv = self.tools.client(&[&options]);
        argv.extend(ARGUMENTS.map(str::to_owned));
        argv.push(database);
        let mut sink = Tool::new(&argv, NO_TIMEOUT).without(&ENVIRONMENT).sink(cancel)?;
        feed(&mut sink).and_then(|()| sink.flush()).map_err(|error| self.failed(&error, cancel))?;
        sink.finish().map_err(|error| self.failed(&std::io::Error::other(error), cancel))
    }

    fn failed(&self, error: &std::io::Error, cancel: &Cancel) -> Error {
        if let Err(cancelled) = cancel.check() {
            return cancelled.into();
        }
        Error::new(ErrorKind::Failed, format!("{}: {error}", self.route.name()))
    }

    /// The version of the server, as it writes it.
    pub(crate) fn version(&self, cancel: &Cancel) -> Result<String> {
        let rows = self.rows("SELECT VERSION()", cancel)?;
        Ok(rows.into_iter().flatten().next().unwrap_or_default())
    }

    /// The database called `name`; `None` where there is none, or where nothing of it may be seen.
    pub(crate) fn database(&self, name: &str, cancel: &Cancel) -> Result<Option<Database>> {
        let sql = format!(
            "SELECT SCHEMA_NAME, DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME \
             FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {}",
            literal(name)
        );
        // The server compares without regard to case.
        let is_it = |row: &Vec<String>| row.first().is_some_and(|found| found == name);
        let found = self.rows(&sql, cancel)?.into_iter().find(is_it);
        let Some([_, charset, collation]) = found.and_then(|row| <[String; 3]>::try_from(row).ok()) else {
            return Ok(None);
        };
        let sql = format!(
            "SELECT t.TABLE_SCHEMA, t.TABLE_NAME, IFNULL(t.DATA_LENGTH, 0) + IFNULL(t.INDEX_LENGTH, 0), IFNULL(e.TRANSACTIONS, ''), t.TABLE_TYPE \
             FROM information_schema.TABLES t LEFT JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE \
             WHERE t.TABLE_SCHEMA = {} AND t.TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') ORDER BY t.TABLE_NAME",
            literal(name)
        );
        let tables = self.rows(&sql, cancel)?.into_iter().filter(is_it).filter_map(|row| {
            let [_, name, bytes, transactions, kind] = <[String; 5]>::try_from(row).ok()?;
            let bytes = bytes.parse().unwrap_or(0);
            let (is_transactional, is_versioned) = (transactions == "YES", kind == "SYSTEM VERSIONED");
            Some(Table { name, bytes, is_transactional, is_versioned })
        });
        let tables = tables.collect();
        let of = literal(name);
        let sql = format!(
            "SELECT (SELECT COUNT(*) FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = {of}) + \
             (SELECT COUNT(*) FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {of}) + \
             (SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = {of} \
              AND TABLE_TYPE NOT IN ('BASE TABLE', 'SYSTEM VERSIONED'))"
        );
        let others = self.rows(&sql, cancel)?.into_iter().flatten().next();
        let others = others.and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok(Some(Database { charset, collation, tables, others }))
    }

    /// How many rows each of `tables` has, counted.
    pub(crate) fn count(&self, database: &str, tables: &[Table], cancel: &Cancel) -> Result<BTreeMap<String, u64>> {
        let mut counted = BTreeMap::new();
        for table in tables {
            // As a dump has them, with those that are over.
            let all = if table.is_versioned { " FOR SYSTEM_TIME ALL" } else { "" };
            let sql = format!("SELECT COUNT(*) FROM {}.{}{all}", ident(database), ident(&table.name));
            let rows = self.rows(&sql, cancel)?.into_iter().flatten().next();
            counted.insert(table.name.clone(), rows.and_then(|text| text.parse().ok()).unwrap_or(0));
        }
        Ok(counted)
    }
}

/// A value as `--batch` prints it.
fn plain(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => text.extend(letters.next().map(|next| match next {
                'n' => '\n',
                't' => '\t',
                '0' => '\0',
                other => other,
            })),
            letter => text.push(letter),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_were() {
        assert_eq!(plain("a\\tb\\\\n\\nc"), "a\tb\\n\nc");
        assert_eq!(literal("a'\\"), "CONVERT(X'61275c' USING utf8mb4)");
    }
}
