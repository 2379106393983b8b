//! One session of a server: statements that a cancel ends, and errors in the
//! words of everyone else here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lifeboat_format::path::shown;
use postgres::error::SqlState;
use postgres::types::ToSql;
use postgres::{Client, Row, SimpleQueryMessage};

use super::reach::Route;
use super::tls;
use crate::{Cancel, Error, ErrorKind, Result};

/// How long a cancel may go unseen while a statement runs.
const NAP: Duration = Duration::from_millis(50);

/// A session. It ends when this is dropped.
pub(crate) struct Session {
    client: Client,
    route: Route,
    database: String,
}

impl Session {
    /// Opens one with `database`; `application` is what the server calls it.
    ///
    /// # Errors
    /// When the server is not reached or refuses it.
    pub(crate) fn open(route: &Route, database: &str, application: &str) -> Result<Self> {
        let connected = route.config(database, application).connect(tls::connector(route)?);
        let client = connected.map_err(|error| {
            let said =
                of(&error, &format!("could not connect to the database {} of {}", quoted(database), route.name()));
            match error.code() {
                Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => {
                    said.next("check `user` and `password_file`, and what pg_hba.conf allows")
                }
                Some(&SqlState::INVALID_CATALOG_NAME) => {
                    said.next("create it, or correct `databases` in lifeboat.yaml")
                }
                None => said.next("check that the server runs, and `url` in lifeboat.yaml"),
                Some(_) => said,
            }
        })?;
        let mut session = Self { client, route: route.clone(), database: database.to_owned() };
        // What a role or a database has as its own would change what is read, or end the session.
        session.run(
            "SET search_path = pg_catalog; SET statement_timeout = 0; SET lock_timeout = 0; \
             SET idle_in_transaction_session_timeout = 0; SET client_min_messages = warning; SET row_security = off; \
             SET standard_conforming_strings = on; SET default_transaction_read_only = off; \
             SET datestyle = ISO; SET intervalstyle = postgres; SET extra_float_digits = 3; \
             SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'transaction_timeout'",
            &Cancel::new(),
        )?;
        Ok(session)
    }

    /// The database that it is in.
    pub(crate) fn database(&self) -> &str {
        &self.database
    }

    /// Where the server is, as people know it.
    pub(crate) fn name(&self) -> String {
        self.route.name()
    }

    /// Whose session it is.
    pub(crate) fn user(&self) -> &str {
        self.route.user()
    }

    /// Whether the server runs on this host, as far as the way to it tells.
    pub(crate) fn is_local(&self) -> bool {
        self.route.is_local()
    }

    /// The connection itself, for what speaks the protocol.
    pub(crate) fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Runs statements that answer nothing.
    ///
    /// # Errors
    /// The server's, or on cancel.
    pub(crate) fn run(&mut self, sql: &str, cancel: &Cancel) -> Result<()> {
        self.cancellable(cancel, |client| client.batch_execute(sql))
    }

    /// As [`Session::run`]; to fail with one of the codes that are `expected` is
    /// an answer.
    ///
    /// # Errors
    /// As of [`Session::run`], for all others.
    pub(crate) fn attempt(&mut self, sql: &str, expected: &[SqlState], cancel: &Cancel) -> Result<Option<SqlState>> {
        self.cancellable(cancel, |client| match client.batch_execute(sql) {
            Err(error) if !cancel.is_set() && error.code().is_some_and(|code| expected.contains(code)) => {
                Ok(error.code().cloned())
            }
            done => done.map(|()| None),
        })
    }

    /// The rows that a statement with `params` answers.
    ///
    /// # Errors
    /// As of [`Session::run`].
    pub(crate) fn rows(&mut self, sql: &str, params: &[&(dyn ToSql + Sync)], cancel: &Cancel) -> Result<Vec<Row>> {
        self.cancellable(cancel, |client| client.query(sql, params))
    }

    /// The first value that `sql` answers, as the server writes it; `None` for
    /// no row or NULL.
    ///
    /// # Errors
    /// As of [`Session::run`].
    pub(crate) fn value(&mut self, sql: &str, cancel: &Cancel) -> Result<Option<String>> {
        let messages = self.cancellable(cancel, |client| client.simple_query(sql))?;
        Ok(messages
            .iter()
            .find_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_owned)),
                _ => None,
            })
            .flatten())
    }

    /// Runs `work`; when a cancel comes meanwhile, the server is told to stop.
    pub(crate) fn cancellable<T>(
        &mut self,
        cancel: &Cancel,
        work: impl FnOnce(&mut Client) -> std::result::Result<T, postgres::Error>,
    ) -> Result<T> {
        cancel.check()?;
        let (token, is_done) = (self.client.cancel_token(), AtomicBool::new(false));
        let (route, client) = (&self.route, &mut self.client);
        let done = std::thread::scope(|scope| {
            let watcher = std::thread::Builder::new().spawn_scoped(scope, || {
                while !is_done.load(Ordering::Acquire) {
                    if cancel.is_set() {
                        // Where even that fails, the statement goes on to its end.
                        tls::connector(route).ok().and_then(|tls| token.cancel_query(tls).ok()).unwrap_or(());
                    }
                    std::thread::park_timeout(NAP);
                }
            });
            let done = work(client);
            is_done.store(true, Ordering::Release);
            watcher.iter().for_each(|watcher| watcher.thread().unpark());
            done
        });
        match done {
            Err(error) if cancel.is_set() && error.code() == Some(&SqlState::QUERY_CANCELED) => {
                Err(Error::new(ErrorKind::Cancelled, "a statement was stopped on request"))
            }
            done => done.map_err(|error| of(&error, &format!("the database {}", quoted(&self.database)))),
        }
    }
}

/// What went wrong, in the server's words.
pub(crate) fn of(error: &postgres::Error, doing: &str) -> Error {
    use std::error::Error as _;
    let Some(said) = error.as_db_error() else {
        let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        let why = why.split(" (os error").next().unwrap_or_default();
        return Error::new(ErrorKind::Failed, format!("{doing}: {}", shown(why.as_bytes())));
    };
    let kind = match *said.code() {
        SqlState::INSUFFICIENT_PRIVILEGE => ErrorKind::Denied,
        SqlState::DISK_FULL => ErrorKind::NoSpace,
        SqlState::LOCK_NOT_AVAILABLE => ErrorKind::Locked,
        _ => ErrorKind::Failed,
    };
    let more = [said.detail(), said.hint()].into_iter().flatten().map(|more| format!(" ({more})"));
    let text: String = [said.message().to_owned()].into_iter().chain(more).collect();
    Error::new(kind, format!("{doing}: {}", shown(text.replace('\n', "; ").as_bytes())))
}

/// A name as SQL has it.
pub(crate) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL has it, with `standard_conforming_strings` on or off.
pub(crate) fn literal(text: &str) -> String {
    let escaped = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", escaped.replace('\\', "\\\\")) } else { format!("'{escaped}'") }
}

/// A name for people.
pub(crate) fn quoted(name: &str) -> String {
    shown(name.as_bytes())
}
