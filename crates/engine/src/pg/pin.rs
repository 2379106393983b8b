//! The state of the databases of one server at one moment: a snapshot of each,
//! exported for pg_dump, and a lock on every table, so that nothing that is no
//! part of a snapshot (TRUNCATE, DROP, most of ALTER TABLE) comes between.
//!
//! The locks come first. LOCK TABLE takes no snapshot, so all of them are held
//! when the snapshots are taken, which then are a few statements in a row. The
//! other way round, a table that is truncated after the snapshot and before the
//! lock would be dumped as empty, although it was not at that moment.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use postgres::error::SqlState;

use super::facts::{self, Database, Table, shown};
use super::{Route, Session, Tools, blame};
use crate::config::PostgresSource;
use crate::{Cancel, Error, ErrorKind, Result};

/// What a server calls our sessions, and those of its programs.
pub(crate) const APPLICATION: &str = "lifeboat";
/// How many tables one statement locks.
const BATCH: usize = 200;
/// How often it is begun anew where tables come and go meanwhile.
const TRIES: usize = 3;

/// The databases of a source, each with a session of its own.
pub(crate) struct Reached {
    pub(crate) route: Route,
    pub(crate) tools: Tools,
    /// The server's `server_version_num`.
    pub(crate) version: u32,
    pub(crate) members: Vec<Member>,
    /// How long a lock is waited for.
    pub(super) lock_timeout: Duration,
}

/// One database of a [`Reached`] source.
pub(crate) struct Member {
    pub(crate) session: Session,
    pub(crate) database: Database,
    /// The tables at the point, all of them locked.
    pub(crate) tables: Vec<Table>,
    /// The snapshot, as pg_dump takes it.
    pub(crate) snapshot: String,
}

/// The moment of a source: when the snapshot of its first database was taken, and of its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
}

/// Whether tables came or went while they were locked.
enum Settled {
    Yes,
    No,
}

impl Reached {
    /// Opens a session with each database, and finds the programs that fit the server.
    ///
    /// # Errors
    /// When one cannot be reached, or there are no such programs.
    pub(crate) fn reach(source: &PostgresSource, cancel: &Cancel) -> Result<Self> {
        let route = source.server.route()?;
        let mut found: Option<(u32, Tools)> = None;
        let mut members = Vec::new();
        for name in &source.databases {
            cancel.check()?;
            let mut session = Session::open(&route, name, APPLICATION)?;
            if found.is_none() {
                let version = facts::version(&mut session, cancel)?;
                let dir = source.server.bin_dir.as_deref();
                found = Some((version, Tools::find(facts::major(version), dir, cancel)?));
            }
            let database = facts::database(&mut session, name, cancel)?;
            let gone = || Error::new(ErrorKind::Failed, format!("{} is gone", shown(name)));
            let database = database.ok_or_else(gone)?;
            members.push(Member { session, database, tables: Vec::new(), snapshot: String::new() });
        }
        let (version, tools) = found.ok_or_else(|| Error::new(ErrorKind::Usage, "no database is named"))?;
        Ok(Self { route, tools, version, members, lock_timeout: source.lock_timeout })
    }

    /// Locks every table and takes a snapshot of every database. Waits no longer than `patience` for all locks
    /// together, by default as long as it is configured. What was pinned before
    /// is let go.
    ///
    /// # Errors
    /// [`ErrorKind::Locked`] with who has a lock; then nothing is held.
    pub(crate) fn pin(
        &mut self,
        patience: Option<Duration>,
        now: &dyn Fn() -> Timestamp,
        cancel: &Cancel,
    ) -> Result<Point> {
        let patience = patience.unwrap_or(self.lock_timeout);
        let pinned = self.try_pin((Instant::now() + patience, patience), now, cancel);
        if pinned.is_err() {
            self.let_go();
        }
        pinned
    }

    fn try_pin(
        &mut self,
        patience: (Instant, Duration),
        now: &dyn Fn() -> Timestamp,
        cancel: &Cancel,
    ) -> Result<Point> {
        let mut tries = 0;
        loop {
            tries += 1;
            self.let_go();
            let mut settled = Settled::Yes;
            for member in &mut self.members {
                if let Settled::No = member.lock(patience, cancel)? {
                    settled = Settled::No;
                    break;
                }
            }
            if let (Settled::No, true) = (&settled, tries < TRIES) {
                continue;
            } else if let Settled::No = settled {
                let what = "tables are dropped or renamed faster than they can be locked";
                return Err(Error::new(ErrorKind::Failed, what).next("run the backup at a quieter time"));
            }
            let first = now();
            for member in &mut self.members {
                member.export()?;
            }
            let point = Point { first, last: now() };
            let new: Vec<bool> = self.members.iter_mut().map(|member| member.has_new(cancel)).collect::<Result<_>>()?;
            if !new.contains(&true) {
                return Ok(point);
            }
            if tries >= TRIES {
                // A little later than the snapshot, which is better than never.
                for member in &mut self.members {
                    let names: Vec<String> = member.tables.iter().map(Table::sql).collect();
                    member.lock_all(&names, patience, cancel)?;
                }
                return Ok(point);
            }
        }
    }

    /// Ends what is held.
    pub(crate) fn let_go(&mut self) {
        for member in &mut self.members {
            // A session that is broken holds nothing.
            member.session.client().batch_execute("ROLLBACK").unwrap_or(());
            member.snapshot.clear();
        }
    }
}

/// Adds to an error that a right is missing which one it is.
pub(crate) fn may_not_read(error: Error) -> Error {
    if error.kind() != ErrorKind::Denied {
        return error;
    }
    error.next(
        "grant the user of `url` the right to read all tables (GRANT pg_read_all_data), or let another one back up",
    )
}

impl Member {
    /// Locks the tables that there are, in a transaction that has no snapshot yet.
    fn lock(&mut self, patience: (Instant, Duration), cancel: &Cancel) -> Result<Settled> {
        self.tables = facts::tables(&mut self.session, cancel)?;
        self.session.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", cancel)?;
        let names: Vec<String> = self.tables.iter().map(Table::sql).collect();
        self.lock_all(&names, patience, cancel)
    }

    fn lock_all(&mut self, names: &[String], (until, all): (Instant, Duration), cancel: &Cancel) -> Result<Settled> {
        for names in names.chunks(BATCH) {
            // Of the statement and not of each lock: all of them together are waited for no longer.
            let left = i32::try_from(until.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(i32::MAX);
            self.session.run(&format!("SET LOCAL statement_timeout = {}", left.max(1)), cancel)?;
            let only: Vec<String> = names.iter().map(|name| format!("ONLY {name}")).collect();
            let sql = format!("LOCK TABLE {} IN ACCESS SHARE MODE", only.join(", "));
            let expected = [SqlState::QUERY_CANCELED, SqlState::LOCK_NOT_AVAILABLE, SqlState::UNDEFINED_TABLE];
            match self.session.attempt(&sql, &expected, cancel).map_err(may_not_read)? {
                None => {}
                Some(SqlState::UNDEFINED_TABLE) => return Ok(Settled::No),
                Some(_) => {
                    self.session.run("ROLLBACK", cancel)?;
                    let who = blame::lockers(&mut self.session, cancel)?;
                    return Err(blame::locked(&self.database.name, &who, all));
                }
            }
        }
        self.session.run("SET LOCAL statement_timeout = 0", cancel)?;
        Ok(Settled::Yes)
    }

    /// Takes the snapshot.
    fn export(&mut self) -> Result<()> {
        // Without a thread that watches for a cancel: this takes no time, and is the window.
        let exported = self.session.client().query_one("SELECT pg_export_snapshot()", &[]);
        let row = exported.map_err(|error| super::session::of(&error, &shown(&self.database.name)))?;
        self.snapshot = row.get(0);
        Ok(())
    }

    /// Whether there is a table in the snapshot that is not locked. The list of tables becomes the snapshot's.
    fn has_new(&mut self, cancel: &Cancel) -> Result<bool> {
        let tables = facts::tables(&mut self.session, cancel)?;
        let locked: BTreeSet<String> = self.tables.iter().map(Table::sql).collect();
        let has_new = tables.iter().any(|table| !locked.contains(&table.sql()));
        self.tables = tables;
        Ok(has_new)
    }
}
