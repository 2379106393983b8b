//! Sources that are what a program prints while it is read: databases of MariaDB
//! and commands. Looked at before anything stands still, and begun one after the
//! other when the capture comes to them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use lifeboat_format::path::{EntryPath, shown};
use lifeboat_format::record::{self, Mariadb, MariadbDatabase, Rows};

use super::gather::{self, Dumped, Failures};
use super::subject::Job;
use crate::config::{CommandSource, MariadbSource, Source};
use crate::exec::{Tool, command_line};
use crate::mariadb::dump::{self, Began, Dump, LAST_LINE};
use crate::mariadb::{Client, Tools};
use crate::pg::dump::file_name;
use crate::report::{DatabaseReport, PlannedSource, Watch};
use crate::source::streamed::{Seen, Start, Streamed};
use crate::{Cancel, Problem, ProblemClass, Result, tables};

/// How many names stand in a message.
const NAMED_MAX: usize = 3;

/// A source, and what is known of it when it was read.
pub(super) struct Printed {
    pub(super) dumped: Dumped,
    pub(super) found: Found,
}

/// When the dumps of a source began and how many rows they hold, in the order of its databases.
pub(super) struct Found {
    source: String,
    dumps: Vec<(Began, dump::Rows)>,
}

/// Where the source `name` is, for messages.
pub(super) fn root(job: &Job<'_>, name: &str) -> Option<String> {
    job.printed.iter().find(|(printed, _)| printed == name).map(|(_, source)| root_of(source))
}

fn root_of(source: &Source) -> String {
    match source {
        Source::Mariadb(mariadb) => mariadb.server.name(),
        Source::Command(command) => command_line(&command.run),
        _ => String::new(),
    }
}

/// Looks at what there is to dump, and lists it.
pub(super) fn prepare(
    job: &Job<'_>,
    (seen, started): (&Seen, Timestamp),
    watch: Watch<'_>,
    failures: &mut Failures,
) -> Result<Vec<Printed>> {
    let mut all = Vec::new();
    for (name, source) in &job.printed {
        let prepared = match source {
            Source::Mariadb(mariadb) => of_server(job, name, mariadb, (seen, started), watch),
            Source::Command(command) => of_command(name, command, (seen, started), watch.cancel),
            _ => continue,
        };
        all.extend(failures.keep(name, Path::new(&root_of(source)), prepared)?);
    }
    Ok(all)
}

fn of_command(
    name: &str,
    command: &CommandSource,
    (seen, started): (&Seen, Timestamp),
    cancel: &Cancel,
) -> Result<Printed> {
    let place = EntryPath::new(record::Source::usual_place("command", name))?;
    let (cancel, of_item) = (cancel.clone(), command.clone());
    let start: Start = Arc::new(move || {
        let stream = Tool::new(&of_item.run, of_item.timeout).stream(&cancel)?;
        Ok(Box::new(stream))
    });
    let items = vec![Streamed::new(place.clone(), name, started, start, seen)];
    let description = gather::describe(name, "command", None, started);
    let found = Found { source: name.to_owned(), dumps: Vec::new() };
    Ok(Printed { dumped: Dumped { description, place, items }, found })
}

/// The dumps of all databases of a source, before any has begun.
fn dumps(job: &Job<'_>, source: &MariadbSource, now: Timestamp, cancel: &Cancel) -> Result<(Client, Vec<Dump>)> {
    let tools = Tools::find(source.server.bin_dir.as_deref(), cancel)?;
    let client = Client { tools, route: source.server.route()? };
    let patterns = job.app.map(|app| app.exclude_tables.as_slice()).unwrap_or_default();
    let is_excluded = |table: &str| patterns.iter().any(|pattern| tables::matches(pattern, table));
    let dumps = source.databases.iter().map(|name| Dump::prepare(&client, name, is_excluded, now, cancel));
    let dumps = dumps.collect::<Result<Vec<_>>>()?;
    Ok((client, dumps))
}

fn of_server(
    job: &Job<'_>,
    name: &str,
    source: &MariadbSource,
    (seen, started): (&Seen, Timestamp),
    watch: Watch<'_>,
) -> Result<Printed> {
    let place = EntryPath::new(record::Source::usual_place("mariadb", name))?;
    let (client, dumps) = dumps(job, source, started, watch.cancel)?;
    let (mut databases, mut items, mut begun) = (Vec::new(), Vec::new(), Vec::new());
    for (database, dump) in source.databases.iter().zip(dumps) {
        let path = place.join(format!("{}.sql", file_name(database)).as_bytes())?;
        let recorded = record(database, &path, &dump);
        tell_loose(name, &recorded, watch);
        databases.push(recorded);
        begun.push((dump.began.clone(), dump.rows.clone()));
        let cancel = watch.cancel.clone();
        let start: Start = Arc::new(move || dump.start(&cancel));
        items.push(Streamed::new(path, name, started, start, seen).ends_with(LAST_LINE));
    }
    let mut description = gather::describe(name, "mariadb", None, started);
    let server_version = client.version(watch.cancel)?;
    description.details.mariadb = Some(Mariadb { server_version, databases });
    let found = Found { source: name.to_owned(), dumps: begun };
    Ok(Printed { dumped: Dumped { description, place, items }, found })
}

fn record(name: &str, path: &EntryPath, dump: &Dump) -> MariadbDatabase {
    let database = &dump.database;
    let held = database.tables.iter().filter(|table| !dump.excluded.contains(&table.name));
    let loose = held.clone().filter(|table| !table.is_transactional);
    MariadbDatabase {
        name: name.to_owned(),
        path: String::from_utf8_lossy(path.as_bytes()).into_owned(),
        point: None,
        charset: database.charset.clone(),
        collation: database.collation.clone(),
        size_bytes: database.tables.iter().map(|table| table.bytes).sum(),
        tables: BTreeMap::new(),
        excluded_tables: dump.excluded.clone(),
        loose_tables: loose.map(|table| table.name.clone()).collect(),
    }
}

/// What takes no part in transactions is not of the moment that the rest is of.
fn tell_loose(source: &str, database: &MariadbDatabase, watch: Watch<'_>) {
    let loose = &database.loose_tables;
    if loose.is_empty() {
        return;
    }
    let named = loose.iter().take(NAMED_MAX).map(|name| shown(name.as_bytes())).collect::<Vec<_>>().join(", ");
    let more = if loose.len() > NAMED_MAX { ", …" } else { "" };
    let message = format!(
        "tables of {} take no part in transactions, and are as they stood when they were read: {named}{more}",
        shown(database.name.as_bytes())
    );
    watch.monitor.problem(Problem::new(ProblemClass::LiveDatabase, source.as_bytes(), message));
}

/// Puts what is known only when all was read into the records of `sources`.
pub(super) fn fill(sources: &mut [record::Source], all: &[Found]) {
    for found in all {
        let Some(source) = sources.iter_mut().find(|source| source.name == found.source) else { continue };
        let Some(mariadb) = &mut source.details.mariadb else { continue };
        for (database, (began, rows)) in mariadb.databases.iter_mut().zip(&found.dumps) {
            database.point = began.at();
            let excluded = &database.excluded_tables;
            let held = rows.take().unwrap_or_default().into_iter().filter(|(table, _)| !excluded.contains(table));
            database.tables = held.map(|(table, rows)| (table, Rows { rows, estimated: false })).collect();
        }
        // Several are of several moments, so that the source is of none.
        if let [database] = mariadb.databases.as_slice() {
            source.point = database.point;
        }
    }
}

/// What is told of the databases of `sources`; their sizes are those of the dumps that were `seen`.
pub(super) fn reports(sources: &[record::Source], seen: &Seen) -> Vec<DatabaseReport> {
    let mut reports = Vec::new();
    for source in sources {
        for database in source.details.mariadb.iter().flat_map(|mariadb| &mariadb.databases) {
            let path = EntryPath::new(database.path.as_bytes()).ok();
            reports.push(DatabaseReport {
                source: source.name.clone(),
                database: Some(database.name.clone()),
                size_bytes: path.and_then(|path| seen.bytes(&path)).unwrap_or(0),
                tables: database.tables.len() as u64,
                rows: database.tables.values().map(|rows| rows.rows).sum(),
                is_schema_only: false,
                is_estimated: false,
                excluded_tables: database.excluded_tables.clone(),
            });
        }
    }
    reports
}

/// What would be dumped. Servers are asked; commands are not run.
/// Adds to `excluded` the tables whose rows would be left out.
pub(super) fn plan(
    job: &Job<'_>,
    excluded: &mut Vec<String>,
    watch: Watch<'_>,
    failures: &mut Failures,
) -> Result<Vec<PlannedSource>> {
    let mut planned = Vec::new();
    for (name, source) in &job.printed {
        let root = root_of(source);
        let (files, bytes) = match source {
            Source::Mariadb(mariadb) => {
                let found = dumps(job, mariadb, Timestamp::UNIX_EPOCH, watch.cancel);
                let Some((_, dumps)) = failures.keep(name, Path::new(&root), found)? else { continue };
                excluded.extend(dumps.iter().flat_map(|dump| dump.excluded.clone()));
                let tables = dumps.iter().flat_map(|dump| &dump.database.tables);
                (dumps.len() as u64, tables.map(|table| table.bytes).sum())
            }
            _ => (1, 0),
        };
        planned.push(PlannedSource { name: name.clone(), root, files, bytes, server: None });
    }
    Ok(planned)
}
