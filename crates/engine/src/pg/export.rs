//! The answer to a query as CSV: asked in a transaction that only reads, by a
//! cursor, a few rows at a time, so that no more of it is in memory.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lifeboat_format::path::shown;
use postgres::{SimpleQueryMessage, Statement};

use super::pin::APPLICATION;
use super::{Route, Session, csv, literal, quoted, secrets};
use crate::config::{Export, SecretColumn};
use crate::{Cancel, Error, ErrorKind, Result};

/// How many rows are asked for at once: at first, and at most.
const ROWS: (u64, u64) = (100, 1000);
/// How much text is wanted at once. Rows that are much longer than those before may make more of it.
const WANTED_BYTES: u64 = 1 << 20;
/// The cursor.
const CURSOR: &str = "lifeboat_export";

/// The state that is asked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Of<'a> {
    /// A snapshot that another session has exported and still holds; by default the state now.
    pub(crate) snapshot: Option<&'a str>,
    /// How long a lock is waited for.
    pub(crate) lock_timeout: Duration,
}

/// An answer as CSV, read from its beginning. Ends only when all of it came.
pub(crate) struct Answer {
    session: Session,
    cancel: Cancel,
    /// What was written and not yet read: from `at`.
    text: Vec<u8>,
    at: usize,
    /// How many rows are asked for next.
    wanted: u64,
    is_over: bool,
    rows: Arc<AtomicU64>,
}

impl Answer {
    /// Asks the query of `export`, called `name`, on the server at `route`.
    ///
    /// # Errors
    /// When the server is not reached; when the query is not one that only
    /// reads; when it would tell what is in one of the columns `secret`, or one
    /// of those is not known.
    pub(crate) fn ask(
        route: &Route,
        (name, export): (&str, &Export),
        secret: &[SecretColumn],
        of: Of<'_>,
        cancel: &Cancel,
    ) -> Result<Self> {
        let mut session = Session::open(route, &export.database, APPLICATION)?;
        session.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", cancel)?;
        if let Some(snapshot) = of.snapshot {
            session.run(&format!("SET TRANSACTION SNAPSHOT {}", literal(snapshot)), cancel)?;
        }
        let secret: Vec<&SecretColumn> = secret.iter().filter(|column| column.is_of(export)).collect();
        let secret = secrets::find(&mut session, &secret, cancel)?;
        as_usual(&mut session, of.lock_timeout, cancel)?;
        let statement = prepare(&mut session, (name, export), cancel)?;
        secret.refuse(&mut session, &statement, (name, export), cancel)?;
        let declare = format!("DECLARE {CURSOR} NO SCROLL CURSOR FOR {}", export.query);
        session.run(&declare, cancel).map_err(|error| about(error, (name, export)))?;
        let mut text = Vec::new();
        csv::add_line(statement.columns().iter().map(|column| Some(column.name())), &mut text);
        let (cancel, rows) = (cancel.clone(), Arc::default());
        Ok(Self { session, cancel, text, at: 0, wanted: ROWS.0, is_over: false, rows })
    }

    /// How many rows came so far; goes on counting while it is read.
    pub(crate) fn rows(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.rows)
    }

    /// What comes next; nothing at the end.
    pub(crate) fn piece(&mut self) -> Result<&[u8]> {
        while self.at == self.text.len() && !self.is_over {
            self.fetch()?;
        }
        let at = std::mem::replace(&mut self.at, self.text.len());
        Ok(&self.text[at..])
    }

    /// Fetches the next rows.
    fn fetch(&mut self) -> Result<()> {
        let fetch = format!("FETCH {} FROM {CURSOR}", self.wanted);
        let messages = self.session.cancellable(&self.cancel, |client| client.simple_query(&fetch))?;
        self.text.clear();
        self.at = 0;
        let mut rows = 0;
        for message in &messages {
            let SimpleQueryMessage::Row(row) = message else { continue };
            rows += 1;
            // psql has no line for a row without columns.
            if row.is_empty() {
                continue;
            }
            let fields = (0..row.len()).map(|column| row.try_get(column)).collect::<std::result::Result<Vec<_>, _>>();
            let fields = fields.map_err(|_| {
                let database = quoted(self.session.database());
                Error::new(ErrorKind::Failed, format!("the database {database} holds bytes that are no UTF-8"))
                    .next("convert them in the query, such as by encode(…, 'escape')")
            })?;
            csv::add_line(fields.into_iter(), &mut self.text);
        }
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.is_over = rows < self.wanted;
        let fit = rows * WANTED_BYTES / (self.text.len() as u64).max(1);
        self.wanted = fit.clamp(1, ROWS.1.min(self.wanted * 2));
        Ok(())
    }
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.piece().map_err(io::Error::other)?;
        let (read, all) = (buffer.len().min(piece.len()), piece.len());
        buffer[..read].copy_from_slice(&piece[..read]);
        self.at -= all - read;
        Ok(read)
    }
}

/// A session begins with settings that suit us. A query is to be understood, and
/// its answer written, as in any other session of the same user.
fn as_usual(session: &mut Session, lock_timeout: Duration, cancel: &Cancel) -> Result<()> {
    let millis = i32::try_from(lock_timeout.as_millis()).unwrap_or(i32::MAX).max(1);
    // Of a cursor the server expects that only its beginning is read.
    let sql = format!(
        "RESET ALL; SET client_min_messages = warning; SET statement_timeout = 0; SET lock_timeout = {millis}; \
         SET idle_in_transaction_session_timeout = 0; SET cursor_tuple_fraction = 1; \
         SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name = 'transaction_timeout'"
    );
    session.run(&sql, cancel)
}

/// One statement without parameters; the server refuses several.
fn prepare(session: &mut Session, of: (&str, &Export), cancel: &Cancel) -> Result<Statement> {
    let prepared = session.cancellable(cancel, |client| client.prepare(&of.1.query));
    let statement = prepared.map_err(|error| about(error, of))?;
    if statement.params().is_empty() {
        return Ok(statement);
    }
    Err(about(Error::new(ErrorKind::Failed, "it has parameters, and nobody gives them values"), of))
}

/// Says which query it was.
fn about(error: Error, (name, export): (&str, &Export)) -> Error {
    if error.kind() == ErrorKind::Cancelled {
        return error;
    }
    let what = format!("the query {name} could not be asked: {}", error.what());
    let next = format!("correct it in lifeboat.yaml; it is one SELECT: {}", shown(export.query.trim().as_bytes()));
    match error.kind() {
        ErrorKind::Locked => Error::new(ErrorKind::Locked, what).next("run it again when nobody changes these tables"),
        ErrorKind::Denied => {
            Error::new(ErrorKind::Denied, what).next("grant SELECT on what it reads to the user of the source")
        }
        kind => Error::new(kind, what).next(next),
    }
}
