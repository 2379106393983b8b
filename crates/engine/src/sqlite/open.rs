//! Connections: to a live database, to one at rest, to our own copy.

use std::path::Path;
use std::time::Duration;

use lifeboat_store::Cancel;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use super::Pinned;
use crate::{Error, ErrorKind, Result};

/// What stands for itself in the path of a URI.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');
/// After how many steps of its machine SQLite asks whether to go on.
const STEPS: i32 = 10_000;

/// To a database that others use: for reading, but able to recover what a crash
/// left, where that is permitted; otherwise SQLite opens it for reading only.
pub(super) fn live(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    harmless(Connection::open_with_flags(path, flags)?)
}

/// To a database that nobody changes: without locks, without files beside it.
pub(super) fn at_rest(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    harmless(Connection::open_with_flags(uri(path, "?immutable=1")?, flags)?)
}

/// To a copy of ours for writing, with `other`, which nobody changes, attached as `schema`.
pub(super) fn both(copy: &Path, other: &Path, schema: &str) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(uri(copy, "")?, flags)?;
    acts_not(&connection)?;
    // A kill costs the copy only.
    connection.execute_batch("PRAGMA synchronous=OFF")?;
    connection.execute(&format!("ATTACH ?1 AS {schema}"), [uri(other, "?immutable=1")?])?;
    Ok(connection)
}

fn uri(path: &Path, query: &str) -> rusqlite::Result<String> {
    use std::os::unix::ffi::OsStrExt as _;
    let absolute = std::path::absolute(path).map_err(|_| rusqlite::Error::InvalidPath(path.to_owned()))?;
    Ok(format!("file://{}{query}", percent_encode(absolute.as_os_str().as_bytes(), PLAIN)))
}

/// Nothing in the database acts: no triggers, no keys, no functions with effects.
fn harmless(connection: Connection) -> rusqlite::Result<Connection> {
    connection.busy_timeout(Duration::ZERO)?;
    acts_not(&connection)?;
    connection.execute_batch("PRAGMA query_only=ON")?;
    Ok(connection)
}

pub(super) fn acts_not(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("PRAGMA foreign_keys=OFF; PRAGMA trusted_schema=OFF")?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    Ok(())
}

/// Lets `cancel` end what runs on `connection`.
pub(super) fn obey(connection: &Connection, cancel: &Cancel) -> rusqlite::Result<()> {
    let cancel = cancel.clone();
    connection.progress_handler(STEPS, Some(move || cancel.is_set()))
}

/// The first value that `query` finds in the database at `path`, as text; none
/// for no row or a NULL. The query cannot write.
pub(crate) fn query_value(path: &Path, query: &str, busy_timeout: Duration, cancel: &Cancel) -> Result<Option<String>> {
    let pinned = Pinned::new(path, busy_timeout, cancel)?;
    let connection = pinned.connection();
    let found = obey(connection, cancel).and_then(|()| first_value(connection, query));
    found.map_err(|error| match cancel.check() {
        Err(cancelled) => cancelled.into(),
        Ok(()) => Error::new(ErrorKind::Failed, format!("the query of {} failed: {error}", path.display()))
            .next(format!("correct the query in the configuration: {query}")),
    })
}

fn first_value(connection: &Connection, query: &str) -> rusqlite::Result<Option<String>> {
    let mut statement = connection.prepare(query)?;
    let mut rows = statement.query([])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(match row.get_ref(0)? {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
    })
}
