//! Rows of a database in a snapshot go into a copy of the live one: what is
//! missing is added, or whole tables are replaced. Who calls it has made the
//! copy, and swaps it; nothing here touches what is live.
//!
//! All of it is one transaction, without triggers and with foreign keys off;
//! what they ask for is looked at before its end (`references`). `schema` reads
//! both sides and says whether they fit, `keys` finds fresh ids, `rows` does the
//! work, `virtuals` makes indexes of words anew.

mod keys;
mod live;
mod references;
mod rows;
mod schema;
mod virtuals;

use std::collections::BTreeMap;
use std::path::Path;

use lifeboat_store::Cancel;
use rusqlite::{Connection, ErrorCode};
use serde::{Deserialize, Serialize};

use super::check::quoted;
use super::{check, exclude, open};
use crate::{Error, ErrorKind, Result, config, tables};
pub(crate) use live::copy_live;
use schema::{Schema, Table};

/// The schema that the snapshot's database is attached as.
const SNAPSHOT: &str = "snapshot";
/// How many keys of conflicts are listed of each table.
pub(crate) const KEYS_MAX: usize = 5;
/// The letters of a key that are shown.
const KEY_LETTERS_MAX: usize = 60;

/// What is wanted of a database's rows. Stands in a journal too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wanted {
    /// Patterns of tables; none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tables: Vec<String>,
    /// Whether the tables that the patterns mean are replaced, and only what these refer to is merged.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) replaces: bool,
    /// The natural keys of tables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) keys: BTreeMap<String, Vec<String>>,
    /// The tables whose rows the backup left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) left_out: Vec<String>,
}

/// What became, or would become, of the rows of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MergedTable {
    /// Its name.
    pub table: String,
    /// The table that refers to it and was asked for, where it was not asked for itself.
    pub pulled_in_by: Option<String>,
    /// Rows that are added.
    pub added: u64,
    /// Rows of the snapshot that are live already.
    pub duplicates: u64,
    /// Rows of the snapshot that stay out: what is live differs, or what they refer to is not there.
    pub conflicts: u64,
    /// The keys of the first of these.
    pub conflict_keys: Vec<String>,
    /// Rows that were live and go; `None`: the table is merged.
    pub replaced: Option<u64>,
}

/// What became of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Merged {
    pub(crate) tables: Vec<MergedTable>,
    /// Virtual tables whose index was made anew.
    pub(crate) rebuilt: Vec<String>,
    /// Virtual tables that stay as they are.
    pub(crate) left_alone: Vec<String>,
    /// Patterns that mean no table, and the tables there are.
    pub(crate) unmatched: Vec<String>,
    /// How many patterns there were.
    pub(crate) asked: usize,
    pub(crate) known: Vec<String>,
}

impl Merged {
    /// Whether the database differs afterwards.
    pub(crate) fn changes(&self) -> bool {
        self.tables.iter().any(|table| table.added > 0 || table.replaced.is_some())
    }
}

impl MergedTable {
    /// A row of the snapshot stays out.
    fn conflict(&mut self, key: String) {
        self.conflicts += 1;
        if self.conflict_keys.len() < KEYS_MAX {
            self.conflict_keys.push(key);
        }
    }
}

/// Two databases on one connection: `main` is the copy of the live one.
struct Both<'a> {
    connection: &'a Connection,
    live: Schema,
    snapshot: Schema,
    wanted: &'a Wanted,
}

/// A table that is merged, as it is on both sides.
struct Job<'a> {
    table: &'a Table,
    done: MergedTable,
    /// The columns of the snapshot's rows, with ids that are mapped.
    source: keys::Source,
}

/// Brings what is wanted of the database at `snapshot`, which nobody changes,
/// into the one at `copy`, which is ours alone.
///
/// Of kind [`ErrorKind::Unsupported`] where a table cannot be merged rightly,
/// [`ErrorKind::Failed`] where `copy` is no sound database.
pub(crate) fn merge(copy: &Path, snapshot: &Path, wanted: &Wanted, cancel: &Cancel) -> Result<Merged> {
    let versions = at_rest(copy, cancel)?;
    let merged = {
        let connection = open::both(copy, snapshot, SNAPSHOT).map_err(|error| not_attached(&error))?;
        let found = open::obey(&connection, cancel).map_err(|error| failed("", &error, cancel));
        let merged = found.and_then(|()| in_transaction(&connection, wanted, cancel))?;
        connection.close().map_err(|(_, error)| failed("", &error, cancel))?;
        merged
    };
    let io = |error| Error::from(lifeboat_store::Error::io("write", copy, error));
    exclude::set_versions(copy, versions).map_err(io)?;
    check::check_at_rest(copy, None, cancel).map_err(|error| match error.kind() {
        ErrorKind::Corrupt => unsound(&error.to_string()),
        _ => error,
    })?;
    Ok(merged)
}

/// Takes what is in the logs beside the copy into it, and has it write none.
/// Returns what its header says of that.
fn at_rest(copy: &Path, cancel: &Cancel) -> Result<[u8; 2]> {
    let io = |error| Error::from(lifeboat_store::Error::io("read", copy, error));
    let versions = exclude::versions(copy).map_err(io)?;
    let settle = || {
        let connection = super::copy::for_writing(copy)?;
        open::acts_not(&connection)?;
        open::obey(&connection, cancel)?;
        connection.execute_batch("PRAGMA synchronous=OFF; PRAGMA journal_mode=DELETE")?;
        // Reads the schema, which finds what is no database.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))?;
        connection.close().map_err(|(_, error)| error)
    };
    settle().map_err(|error| failed("", &error, cancel))?;
    Ok(versions)
}

fn in_transaction(connection: &Connection, wanted: &Wanted, cancel: &Cancel) -> Result<Merged> {
    let sql = |error: rusqlite::Error| failed("", &error, cancel);
    connection.execute_batch("BEGIN IMMEDIATE").map_err(sql)?;
    let both = Both {
        connection,
        live: Schema::read(connection, "main").map_err(sql)?,
        snapshot: Schema::read(connection, SNAPSHOT).map_err(sql)?,
        wanted,
    };
    let mut merged = Merged::default();
    let chosen = both.choose(&mut merged);
    both.refuse_different(&chosen)?;
    virtuals::look(&both, &chosen, &mut merged)?;
    let before = references::violations(connection).map_err(sql)?;
    let mut jobs = both.jobs(chosen, cancel)?;
    for job in &mut jobs {
        cancel.check()?;
        rows::merge(&both, job).map_err(|error| failed(&job.table.name, &error, cancel))?;
    }
    references::take_out(&both, &mut jobs).map_err(sql)?;
    references::compare(connection, &before).map_err(|found| match found {
        references::Found::Sql(error) => sql(error),
        references::Found::Dangling(error) => error,
    })?;
    raise_sequences(&both, &jobs).map_err(sql)?;
    merged.tables = jobs.into_iter().map(|job| job.done).collect();
    if merged.changes() {
        virtuals::rebuild(&both, &mut merged, cancel)?;
    }
    connection.execute_batch("COMMIT").map_err(sql)?;
    Ok(merged)
}

impl Both<'_> {
    /// The tables that are wanted, and those that these refer to.
    fn choose(&self, merged: &mut Merged) -> Vec<MergedTable> {
        let patterns = &self.wanted.tables;
        let is_meant =
            |name: &str| patterns.is_empty() || patterns.iter().any(|pattern| tables::matches(pattern, name));
        let names = || self.snapshot.tables.iter().map(|table| &table.name);
        let is_idle = |pattern: &&String| {
            let all = names().chain(self.live.virtuals.iter().map(|(name, _)| name));
            !all.into_iter().any(|name| tables::matches(pattern, name))
        };
        merged.unmatched = patterns.iter().filter(is_idle).cloned().collect();
        merged.asked = patterns.len();
        merged.known = names().cloned().collect();
        let of = |name: &String| MergedTable { table: name.clone(), ..MergedTable::default() };
        let mut chosen: Vec<MergedTable> = names().filter(|name| is_meant(name)).map(of).collect();
        for table in &mut chosen {
            table.replaced = self.wanted.replaces.then_some(0);
        }
        let mut at = 0;
        while at < chosen.len() {
            let by = chosen[at].table.clone();
            for reference in self.snapshot.table(&by).into_iter().flat_map(|table| &table.references) {
                let Some(parent) = self.snapshot.table(&reference.parent) else { continue };
                if chosen.iter().all(|table| table.table != parent.name) {
                    let pulled_in_by = Some(by.clone());
                    chosen.push(MergedTable { table: parent.name.clone(), pulled_in_by, ..MergedTable::default() });
                }
            }
            at += 1;
        }
        chosen
    }

    /// Refuses, by name, a table that is not the same on both sides, or that the snapshot does not have the rows of.
    fn refuse_different(&self, chosen: &[MergedTable]) -> Result<()> {
        let next = "restore the whole database with --mode overwrite, or leave the table out by --tables";
        for MergedTable { table, replaced, .. } in chosen {
            if replaced.is_some() && self.wanted.left_out.contains(table) {
                return Err(refused(table, "the backup left out its rows", "leave the table out by --tables"));
            }
            let (Some(snapshot), Some(live)) = (self.snapshot.table(table), self.live.table(table)) else {
                return Err(refused(table, "the live database does not have it", next));
            };
            if let Some(difference) = snapshot.difference(live) {
                let what = format!("the live one is another than the snapshot's: {difference}");
                return Err(refused(table, &what, next));
            }
        }
        Ok(())
    }

    /// What is to be done, with fresh ids for the tables that have a natural key.
    fn jobs(&self, chosen: Vec<MergedTable>, cancel: &Cancel) -> Result<Vec<Job<'_>>> {
        let mapped = keys::map(self, &chosen, cancel)?;
        let jobs = chosen.into_iter().filter_map(|done| {
            let table = self.live.table(&done.table)?;
            let source = keys::Source::of(table, &mapped, &done);
            Some(Job { table, done, source })
        });
        Ok(jobs.collect())
    }
}

/// Numbers that either side has given once are not given again.
fn raise_sequences(both: &Both<'_>, jobs: &[Job<'_>]) -> rusqlite::Result<()> {
    if !(both.live.has_sequences && both.snapshot.has_sequences) {
        return Ok(());
    }
    let raise = "UPDATE main.sqlite_sequence SET seq = max(seq, \
         coalesce((SELECT max(seq) FROM snapshot.sqlite_sequence WHERE name = ?1), 0)) WHERE name = ?1";
    let begin = "INSERT INTO main.sqlite_sequence(name, seq) SELECT name, max(seq) FROM snapshot.sqlite_sequence \
         WHERE name = ?1 AND NOT EXISTS (SELECT 1 FROM main.sqlite_sequence WHERE name = ?1) GROUP BY name";
    for job in jobs {
        both.connection.execute(raise, [&job.table.name])?;
        both.connection.execute(begin, [&job.table.name])?;
    }
    Ok(())
}

fn named_main(table: &str) -> String {
    schema::named("main", table)
}

/// A table that cannot be merged as it should be.
fn refused(table: &str, what: &str, next: &str) -> Error {
    let table = lifeboat_format::path::shown(table.as_bytes());
    Error::new(ErrorKind::Unsupported, format!("table {table} cannot be merged: {what}")).next(next)
}

/// The live database is nothing that rows can go into.
fn unsound(what: &str) -> Error {
    Error::new(ErrorKind::Failed, format!("there is no sound live database to merge into: {what}"))
        .next("--mode overwrite puts the snapshot's in its place, and keeps the live one beside")
}

fn not_attached(error: &rusqlite::Error) -> Error {
    let what = format!("the snapshot's database does not go with the live one: {error}");
    Error::new(ErrorKind::Unsupported, what).next("restore the whole database with --mode overwrite")
}

/// What an error of SQLite means while `table` is merged (empty: none in particular).
fn failed(table: &str, error: &rusqlite::Error, cancel: &Cancel) -> Error {
    if let Err(cancelled) = cancel.check() {
        return cancelled.into();
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => unsound(&error.to_string()),
        Some(ErrorCode::DiskFull) => Error::new(ErrorKind::NoSpace, format!("no space left to merge: {error}")),
        // What only the application knows: a collation, a function, a tokenizer.
        _ if !table.is_empty() => refused(table, &error.to_string(), "leave the table out by --tables"),
        _ => Error::new(ErrorKind::Failed, format!("the databases cannot be merged: {error}")),
    }
}

/// For a pattern that means no table of any database.
pub(crate) fn no_such_table(pattern: &str, known: &[String]) -> Error {
    let names: Vec<&str> = known.iter().map(String::as_str).collect();
    let meant = config::nearest(pattern, &names).map(|meant| format!("did you mean {meant}? ")).unwrap_or_default();
    Error::new(ErrorKind::Usage, format!("no table is called {pattern}"))
        .next(format!("{meant}the snapshot's tables are: {}", names.join(", ")))
}

#[cfg(test)]
mod tests;
