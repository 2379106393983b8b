//! What a backup of databases of a server would be, without one: every database
//! is reached and looked at, and nothing is locked.

use crate::config::PostgresSource;
use crate::pg::dump::{self, Manner};
use crate::pg::pin::APPLICATION;
use crate::pg::{Route, Session, Tools, facts};
use crate::report::{PlannedDump, PlannedServer};
use crate::{Cancel, Error, ErrorKind, Result};

/// What would be dumped of `source`.
///
/// # Errors
/// When a database is not reached, with all that are not; when there is no
/// pg_dump for the server; or on cancel.
pub(super) fn of(
    source: &PostgresSource,
    is_schema_only: bool,
    exclude_tables: &[String],
    cancel: &Cancel,
) -> Result<PlannedServer> {
    let route = source.server.route()?;
    let (mut databases, mut wrong, mut server) = (Vec::new(), Vec::new(), None);
    for name in &source.databases {
        match look(&route, name, exclude_tables, cancel) {
            Ok((found, version)) => {
                databases.push(found);
                server = Some(version);
            }
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Err(error) => wrong.push(error),
        }
    }
    if let Some(first) = wrong.first() {
        let reasons: Vec<&str> = wrong.iter().map(Error::what).collect();
        let error = Error::new(first.kind(), reasons.join("; "));
        return Err(match first.next_step() {
            Some(next) => error.next(next),
            None => error,
        });
    }
    let (number, version) = server.ok_or_else(|| Error::new(ErrorKind::Usage, "no database is named"))?;
    let tools = Tools::find(facts::major(number), source.server.bin_dir.as_deref(), cancel)?;
    let manner = Manner { format: source.format, is_schema_only, is_compressed: false };
    if is_schema_only {
        databases.iter_mut().for_each(|database| database.excluded_tables.clear());
    }
    Ok(PlannedServer {
        version,
        pg_dump: tools.command("pg_dump", &[]).remove(0),
        pg_dump_version: tools.major,
        format: manner.written().word(),
        is_schema_only,
        databases,
    })
}

/// One database, and the server's version as a number and as it says it.
fn look(route: &Route, name: &str, exclude_tables: &[String], cancel: &Cancel) -> Result<(PlannedDump, (u32, String))> {
    let mut session = Session::open(route, name, APPLICATION)?;
    let number = facts::version(&mut session, cancel)?;
    let said = session.value("SHOW server_version", cancel)?.unwrap_or_default();
    let version = said.split_whitespace().next().unwrap_or_default().to_owned();
    let size_bytes = facts::database(&mut session, name, cancel)?.and_then(|database| database.size_bytes);
    let tables = facts::tables(&mut session, cancel)?;
    let excluded = dump::left_out(&tables, exclude_tables);
    let excluded_tables = excluded.into_iter().map(facts::Table::full_name).collect();
    let unreadable = facts::unreadable(&mut session, cancel)?;
    if !unreadable.is_empty() {
        let what = format!("{}: {} may not read {}", facts::shown(name), route.user(), unreadable.join(", "));
        return Err(crate::pg::pin::may_not_read(Error::new(ErrorKind::Denied, what)));
    }
    Ok((PlannedDump { name: name.to_owned(), size_bytes, excluded_tables }, (number, version)))
}
