//! Sources of the kind `postgres`: reached before anything stands still, pinned
//! while it does, dumped from then on, and their rows counted beside that.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Builder, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use lifeboat_format::path::EntryPath;
use lifeboat_format::record::{self, Postgres, PostgresDatabase, Role, Rows};

use super::gather::{self, Dumped, Failures};
use super::subject::Job;
use crate::config::{DumpFormat, PostgresSource};
use crate::pg::dump::{self, Dump, GLOBALS, Manner, PLAIN_END};
use crate::pg::pin::{Member, Point, Reached};
use crate::pg::rows::{Counted as CountedDump, Found};
use crate::pg::{Tools, count, facts, globals};
use crate::report::{DatabaseReport, Watch};
use crate::source::streamed::{Seen, Start, Streamed};
use crate::{Cancel, Error, ErrorKind, Problem, ProblemClass, Result};

/// A source whose server was reached.
pub(super) struct Server {
    name: String,
    source: PostgresSource,
    reached: Reached,
    /// The moment that it is pinned at.
    point: Option<Point>,
}

/// Dumps that are under way, and what is still to be found out beside them.
pub(super) struct Begun {
    pub(super) dumped: Dumped,
    /// What made them.
    pub(super) tools: Tools,
    pub(super) counting: Counting,
}

/// How the rows of a source come to be known.
pub(super) struct Counting {
    source: String,
    /// None where nothing is counted.
    members: Vec<CountOf>,
}

/// How the rows of one database come to be known.
enum CountOf {
    /// Its dump says so, when it has passed.
    Dump(Box<Member>, Found),
    /// They are counted in the session that holds the snapshot, which ends when
    /// that is done.
    Session(Box<Member>, BTreeSet<String>),
}

impl Counting {
    /// The snapshot of `database`, as long as nothing counts yet.
    pub(super) fn snapshot(&self, database: &str) -> Option<&str> {
        let mut members = self.members.iter().map(|of| match of {
            CountOf::Dump(member, _) | CountOf::Session(member, _) => member,
        });
        members.find(|member| member.database.name == database).map(|member| member.snapshot.as_str())
    }
}

/// The rows of each database of a source.
pub(super) type Counted = BTreeMap<String, Vec<BTreeMap<String, Rows>>>;

/// How every source of `job` is dumped.
#[derive(Clone, Copy)]
pub(super) struct How<'a> {
    pub(super) is_schema_only: bool,
    /// Whether pg_dump compresses, because nothing else will.
    pub(super) is_compressed: bool,
    pub(super) exclude_tables: &'a [String],
    /// How long a lock may be waited for, where that is less than configured.
    pub(super) patience: Option<Duration>,
    /// Whether what was pinned is what must be dumped, because services stood still.
    pub(super) was_frozen: bool,
}

/// Where a source is, for messages.
fn root(source: &PostgresSource) -> String {
    source.server.name()
}

/// Opens sessions with all databases of all sources.
pub(super) fn reach(job: &Job<'_>, cancel: &Cancel, failures: &mut Failures) -> Result<Vec<Server>> {
    let mut servers = Vec::new();
    for (name, source) in &job.servers {
        let reached = failures.keep(name, Path::new(&root(source)), Reached::reach(source, cancel))?;
        let (name, source) = (name.clone(), source.clone());
        servers.extend(reached.map(|reached| Server { name, source, reached, point: None }));
    }
    Ok(servers)
}

/// Pins all databases of `servers`. With `patience` no lock is waited for longer
/// than that, all together.
///
/// # Errors
/// [`ErrorKind::Locked`] where one stays locked for `patience`, then none is pinned; or on cancel.
pub(super) fn pin(
    servers: &mut [Server],
    patience: Option<Duration>,
    now: &dyn Fn() -> Timestamp,
    cancel: &Cancel,
    failures: &mut Failures,
) -> Result<()> {
    let began = Instant::now();
    for at in 0..servers.len() {
        let server = &mut servers[at];
        let left = patience.map(|patience| patience.saturating_sub(began.elapsed()));
        match server.reached.pin(left, now, cancel) {
            Err(error) if error.kind() == ErrorKind::Locked && patience.is_some() => {
                servers.iter_mut().for_each(|server| server.reached.let_go());
                return Err(error);
            }
            pinned => server.point = failures.keep(&server.name, Path::new(&root(&server.source)), pinned)?,
        }
    }
    Ok(())
}

/// Begins the dumps of all databases that are pinned, those of one source after
/// those of another.
pub(super) fn begin(
    servers: Vec<Server>,
    how: How<'_>,
    now: &dyn Fn() -> Timestamp,
    (seen, started): (&Seen, Timestamp),
    watch: Watch<'_>,
    failures: &mut Failures,
) -> Result<Vec<Begun>> {
    let mut all = Vec::new();
    for server in servers {
        let (name, at) = (server.name.clone(), root(&server.source));
        if let Some(point) = server.point {
            let begun = server.begin(point, how, now, (seen, started), watch);
            all.extend(failures.keep(&name, Path::new(&at), begun)?);
        }
    }
    Ok(all)
}

impl Server {
    fn begin(
        mut self,
        point: Point,
        how: How<'_>,
        now: &dyn Fn() -> Timestamp,
        (seen, started): (&Seen, Timestamp),
        watch: Watch<'_>,
    ) -> Result<Begun> {
        let manner =
            Manner { format: self.source.format, is_schema_only: how.is_schema_only, is_compressed: how.is_compressed };
        let begun =
            dump::begin(&mut self.reached, point, (manner, how.exclude_tables, how.patience), now, watch.cancel)?;
        if begun.is_another && how.was_frozen {
            let message = "read while everything ran: a table was about to be changed, so that it had to be begun anew";
            watch.monitor.problem(Problem::new(ProblemClass::Unfrozen, self.name.as_bytes(), message));
        }
        let place = EntryPath::new(record::Source::usual_place("postgres", &self.name))?;
        let (mut facts, left_out) = self.look(&place, manner, how, watch.cancel)?;
        let at = begun.point;
        facts.last_point = Some(at.last);
        let (mut items, mut members) = (Vec::new(), Vec::new());
        let reached = self.reached.members.into_iter().zip(left_out);
        for ((database, Dump { content }), (member, left_out)) in facts.databases.iter().zip(begun.dumps).zip(reached) {
            let path = EntryPath::new(database.path.as_bytes())?;
            let streamed = |content| Streamed::new(path, &self.name, at.first, once(content), seen);
            if manner.written() == DumpFormat::Plain {
                items.push(streamed(content).ends_with(PLAIN_END));
                members.push(CountOf::Session(Box::new(member), left_out));
            } else if manner.is_compressed {
                // What passes says nothing then.
                items.push(streamed(content));
                members.push(CountOf::Session(Box::new(member), left_out));
            } else {
                let found = Found::default();
                items.push(streamed(Box::new(CountedDump::new(content, &found))));
                members.push(CountOf::Dump(Box::new(member), found));
            }
        }
        if self.source.has_globals {
            let script = globals::script(&self.name, &facts.roles).into_bytes();
            let path = place.join(GLOBALS.as_bytes())?;
            items.push(Streamed::new(path, &self.name, at.first, once(Box::new(Cursor::new(script))), seen));
        }
        let mut description = gather::describe(&self.name, "postgres", None, started);
        description.point = Some(at.first);
        description.details.postgres = Some(facts);
        // Of a structure alone there is nothing to count.
        if how.is_schema_only {
            members.clear();
        }
        let counting = Counting { source: self.name, members };
        Ok(Begun { dumped: Dumped { description, place, items }, tools: self.reached.tools, counting })
    }

    /// What is recorded of the databases but their rows, and the tables that are left out of each.
    fn look(
        &mut self,
        place: &EntryPath,
        manner: Manner,
        how: How<'_>,
        cancel: &Cancel,
    ) -> Result<(Postgres, Vec<BTreeSet<String>>)> {
        let (mut databases, mut left_out, mut names) = (Vec::new(), Vec::new(), BTreeSet::new());
        for member in &mut self.reached.members {
            let without = dump::left_out(&member.tables, how.exclude_tables);
            let without: BTreeSet<String> = without.into_iter().map(facts::Table::full_name).collect();
            let database = &member.database;
            databases.push(PostgresDatabase {
                name: database.name.clone(),
                path: format!("{place}/{}", manner.entry_name(&database.name)),
                format: manner.written().word().to_owned(),
                attributes: database.attributes.clone(),
                size_bytes: database.size_bytes.unwrap_or(0),
                tables: BTreeMap::new(),
                excluded_tables: if how.is_schema_only { Vec::new() } else { without.iter().cloned().collect() },
                extensions: facts::extensions(&mut member.session, cancel)?,
            });
            left_out.push(without);
            if self.source.has_globals {
                names.extend(facts::named_roles(&mut member.session, cancel)?);
            }
        }
        let names: Vec<String> = names.into_iter().collect();
        let roles: Vec<Role> = match self.reached.members.first_mut() {
            Some(member) if !names.is_empty() => facts::roles(&mut member.session, &names, cancel)?,
            _ => Vec::new(),
        };
        let (server_version, schema_only) = (self.reached.version, how.is_schema_only);
        Ok((Postgres { server_version, last_point: None, schema_only, databases, roles }, left_out))
    }
}

/// A stream that was begun already: it can be had once.
pub(super) fn once(content: Box<dyn Read + Send>) -> Start {
    let content = Mutex::new(Some(content));
    Arc::new(move || {
        let taken = content.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.ok_or_else(|| Error::new(ErrorKind::Failed, "it was read already"))
    })
}

/// The rows of the tables of a database, as they will be known.
enum CountingOne<'scope> {
    Dump { found: Found, tables: Vec<facts::Table> },
    Session(ScopedJoinHandle<'scope, Result<BTreeMap<String, Rows>>>),
}

/// Counts that are under way, of each source.
struct Running<'scope>(Vec<(String, Vec<CountingOne<'scope>>)>);

/// Does `work`, and meanwhile counts the rows of all databases whose dumps do not
/// tell. Counting goes on until all are counted or the time for it is over, but
/// no longer than until `work` has failed.
pub(super) fn counting<T>(
    all: Vec<Counting>,
    cancel: &Cancel,
    work: impl FnOnce() -> Result<T>,
) -> (Result<T>, Result<Counted>) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let counting = count(all, scope, &is_over, cancel);
        let done = work();
        is_over.store(done.is_err(), Ordering::Relaxed);
        (done, counting.join())
    })
}

/// Begins to count, each database in a thread of `scope`.
fn count<'scope, 'env>(
    all: Vec<Counting>,
    scope: &'scope Scope<'scope, 'env>,
    is_over: &'scope AtomicBool,
    cancel: &'scope Cancel,
) -> Running<'scope> {
    let mut running = Vec::new();
    for Counting { source, members } in all {
        let mut threads = Vec::new();
        for member in members {
            let (member, left_out) = match member {
                CountOf::Session(member, left_out) => (member, left_out),
                // The session ends here: the dump has locks of its own.
                CountOf::Dump(member, found) => {
                    threads.push(CountingOne::Dump { found, tables: member.tables });
                    continue;
                }
            };
            let count = move || {
                let Member { mut session, tables, .. } = *member;
                let is_left_out = |table: &facts::Table| left_out.contains(&table.full_name());
                count::count(&mut session, &tables, is_left_out, count::BUDGET, is_over, cancel)
            };
            // Without a thread, nothing is known of its rows.
            threads.extend(Builder::new().spawn_scoped(scope, count).map(CountingOne::Session));
        }
        running.push((source, threads));
    }
    Running(running)
}

impl Running<'_> {
    /// Waits for all of them.
    ///
    /// # Errors
    /// On cancel.
    fn join(self) -> Result<Counted> {
        let mut counted = BTreeMap::new();
        for (source, threads) in self.0 {
            let rows = threads.into_iter().map(|one| match one {
                CountingOne::Session(thread) => thread.join().unwrap_or_else(|_| Ok(BTreeMap::new())),
                CountingOne::Dump { found, tables } => Ok(rows_of(&found, &tables)),
            });
            counted.insert(source, rows.collect::<Result<Vec<_>>>()?);
        }
        Ok(counted)
    }
}

/// The rows of `tables` that a dump told; where it did not, the server's estimates.
fn rows_of(found: &Found, tables: &[facts::Table]) -> BTreeMap<String, Rows> {
    let found = found.lock().unwrap_or_else(PoisonError::into_inner).take();
    let own = tables.iter().filter(|table| !table.is_partitioned);
    let rows = own.map(|table| {
        let name = table.full_name();
        // What is left out has no rows in it.
        let told = found.as_ref().map(|found| found.get(&name).copied().unwrap_or(0));
        (name, Rows { rows: told.unwrap_or(table.estimate), estimated: told.is_none() })
    });
    rows.collect()
}

/// Puts the rows that were `counted` into the records of `sources`.
pub(super) fn fill(sources: &mut [record::Source], mut counted: Counted) {
    for source in sources {
        let Some(postgres) = &mut source.details.postgres else { continue };
        let rows = counted.remove(&source.name).unwrap_or_default();
        for (database, rows) in postgres.databases.iter_mut().zip(rows) {
            database.tables = rows;
        }
    }
}

/// What is told of the databases of `sources`; their sizes are those of the dumps that were `seen`.
pub(super) fn reports(sources: &[record::Source], seen: &Seen) -> Vec<DatabaseReport> {
    let mut reports = Vec::new();
    for source in sources {
        for database in source.details.postgres.iter().flat_map(|postgres| &postgres.databases) {
            let path = EntryPath::new(database.path.as_bytes()).ok();
            reports.push(DatabaseReport {
                source: source.name.clone(),
                database: Some(database.name.clone()),
                is_schema_only: source.details.postgres.as_ref().is_some_and(|postgres| postgres.schema_only),
                size_bytes: path.and_then(|path| seen.bytes(&path)).unwrap_or(0),
                tables: database.tables.len() as u64,
                rows: database.tables.values().map(|rows| rows.rows).sum(),
                is_estimated: database.tables.values().any(|rows| rows.estimated),
                excluded_tables: database.excluded_tables.clone(),
            });
        }
    }
    reports
}
