//! Whether a database is whole, and how many rows its tables hold. Works on one
//! that nobody changes: our copy, or one at rest.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use lifeboat_store::Cancel;
use rusqlite::{Connection, ErrorCode};

use super::{Pinned, has_content, open};
use crate::{Error, ErrorKind, Result};

/// How many findings SQLite looks for, and how many of them are kept.
const FINDINGS_MAX: u32 = 100_000;
const KEPT_MAX: usize = 10;
/// How long a database that should be at rest may be locked.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// What the manifest says of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Rows of each table, counted; those of excluded tables are not among them.
    pub(crate) tables: BTreeMap<String, u64>,
    /// The tables whose rows were left out.
    pub(crate) excluded_tables: Vec<String>,
    /// Bytes of a page.
    pub(crate) page_size: u32,
    /// "wal" or "rollback".
    pub(crate) journal_mode: &'static str,
    /// What could not be checked, and why: mostly what only the application knows.
    pub(crate) unchecked: Vec<String>,
    /// What is odd and no damage: rows that break a constraint, patterns that match no table.
    pub(crate) notes: Vec<String>,
}

/// Facts, and what is damaged: the first findings.
pub(super) struct Checked {
    pub(super) facts: Facts,
    pub(super) findings: Vec<String>,
}

/// Checks the database at `path`, which nobody uses: its integrity, and its rows
/// against those that were `expected`.
///
/// Of kind [`ErrorKind::Corrupt`] where it is damaged or rows are missing.
pub(crate) fn check_at_rest(path: &Path, expected: Option<&BTreeMap<String, u64>>, cancel: &Cancel) -> Result<Facts> {
    let checked = if has_content(path) {
        // What is in its logs counts too.
        let pinned = Pinned::new(path, BUSY_TIMEOUT, cancel)?;
        check(pinned.connection(), cancel)
    } else {
        open::at_rest(path).and_then(|connection| check(&connection, cancel))
    };
    let corrupt = |what: String| Error::new(ErrorKind::Corrupt, format!("database {} {what}", path.display()));
    let Checked { facts, findings } = checked.map_err(|error| match (cancel.check(), error.sqlite_error_code()) {
        (Err(cancelled), _) => cancelled.into(),
        (Ok(()), Some(ErrorCode::NotADatabase)) => corrupt("is no SQLite database, or it is encrypted".to_owned()),
        (Ok(()), Some(ErrorCode::DatabaseCorrupt)) => corrupt(format!("is damaged: {error}")),
        (Ok(()), _) => Error::new(ErrorKind::Failed, format!("database {} cannot be read: {error}", path.display())),
    })?;
    if !findings.is_empty() {
        return Err(corrupt(format!("is damaged: {}", findings.join("; "))));
    }
    match expected.and_then(|expected| difference(expected, &facts)) {
        Some(difference) => Err(corrupt(format!("does not hold what was backed up: {difference}"))),
        None => Ok(facts),
    }
}

/// The first table whose rows are not those that were `expected`.
fn difference(expected: &BTreeMap<String, u64>, facts: &Facts) -> Option<String> {
    expected.iter().find_map(|(table, rows)| match facts.tables.get(table) {
        Some(found) if found == rows => None,
        Some(found) => Some(format!("table {table} has {found} rows instead of {rows}")),
        None if facts.unchecked.iter().any(|line| line.starts_with(&counting(table))) => None,
        None => Some(format!("table {table} is missing")),
    })
}

/// How a line of `unchecked` about the rows of `table` begins.
fn counting(table: &str) -> String {
    format!("rows of table {table}: ")
}

/// Checks what `connection` leads to. An error is damage only where it says so.
pub(super) fn check(connection: &Connection, cancel: &Cancel) -> rusqlite::Result<Checked> {
    open::obey(connection, cancel)?;
    let mut checked = Checked { facts: Facts::default(), findings: Vec::new() };
    checked.facts.page_size = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    let tables = match tables(connection) {
        Ok(tables) => tables,
        Err(error) => return checked.failed(error).map(|()| checked),
    };
    checked.integrity(connection, &tables)?;
    for table in &tables {
        match rows(connection, table) {
            Ok(rows) => drop(checked.facts.tables.insert(table.clone(), rows)),
            Err(error) => checked.unless_damage(error, &counting(table))?,
        }
    }
    Ok(checked)
}

impl Checked {
    /// An error that is damage becomes a finding; others are handed on.
    fn failed(&mut self, error: rusqlite::Error) -> rusqlite::Result<()> {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                self.found(error.to_string());
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// The same; but that something of the application's is not known here is no
    /// failure: `what` is unchecked then.
    fn unless_damage(&mut self, error: rusqlite::Error, what: &str) -> rusqlite::Result<()> {
        match not_known(&error) {
            Some(said) => self.facts.unchecked.push(format!("{what}{said}")),
            None => self.failed(error)?,
        }
        Ok(())
    }

    fn found(&mut self, finding: String) {
        if self.findings.len() < KEPT_MAX {
            self.findings.push(finding);
        }
    }

    fn integrity(&mut self, connection: &Connection, tables: &[String]) -> rusqlite::Result<()> {
        let whole = format!("PRAGMA integrity_check({FINDINGS_MAX})");
        let Err(error) = self.collect(connection, &whole) else { return Ok(()) };
        self.unless_damage(error, "integrity as a whole: ")?;
        if !self.findings.is_empty() {
            return Ok(());
        }
        for table in tables {
            let one = format!("PRAGMA integrity_check({})", quoted(table));
            if let Err(error) = self.collect(connection, &one) {
                self.unless_damage(error, &format!("integrity of table {table}: "))?;
            }
        }
        Ok(())
    }

    fn collect(&mut self, connection: &Connection, pragma: &str) -> rusqlite::Result<()> {
        let mut statement = connection.prepare(pragma)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let text = String::from_utf8_lossy(row.get_ref(0)?.as_bytes()?).into_owned();
            if text == "ok" {
                continue;
            }
            if !is_of_data(&text) {
                self.found(text.replace('\n', " "));
                if self.findings.len() == KEPT_MAX {
                    break;
                }
            } else if self.facts.notes.len() < KEPT_MAX && !self.facts.notes.contains(&text) {
                self.facts.notes.push(text);
            }
        }
        Ok(())
    }
}

/// What the compiler of SQL says does not exist: a collation, function, module, tokenizer.
fn not_known(error: &rusqlite::Error) -> Option<String> {
    match error {
        rusqlite::Error::SqliteFailure(failure, said) if failure.code == ErrorCode::Unknown => {
            Some(said.clone().unwrap_or_else(|| error.to_string()))
        }
        rusqlite::Error::SqlInputError { error, msg, .. } if error.code == ErrorCode::Unknown => Some(msg.clone()),
        _ => None,
    }
}

/// Whether a line of `integrity_check` speaks of values that the application let
/// in, while the structure is sound.
fn is_of_data(line: &str) -> bool {
    const OF_DATA: [&str; 4] = ["NULL value in ", "CHECK constraint failed in ", "TEXT value in ", "NUMERIC value in "];
    OF_DATA.iter().any(|start| line.starts_with(start)) || line.starts_with("non-") && line.contains(" value in ")
}

/// The names of all tables that hold rows of the application's.
pub(super) fn tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    named(connection, "table")
}

/// The names of all tables of a type, as `PRAGMA table_list` has them.
pub(super) fn named(connection: &Connection, kind: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = ?1 \
         AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name",
    )?;
    let names = statement.query_map([kind], |row| row.get(0))?;
    names.collect()
}

/// A name as SQL spells it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn rows(connection: &Connection, table: &str) -> rusqlite::Result<u64> {
    let count = |rest: &str| {
        let query = format!("SELECT count(*) FROM {}{rest}", quoted(table));
        connection.query_row(&query, [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)
    };
    // An index may need a collation that only the application knows.
    count("").or_else(|_| count(" NOT INDEXED"))
}
