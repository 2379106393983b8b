//! What rows refer to: one that was added and refers to a row that is not there
//! is taken out again, and afterwards no reference may dangle that did not before.

use std::collections::BTreeMap;

use rusqlite::Connection;

use super::schema::{Reference, Table, named};
use super::{Both, Job, quoted, refused, rows};
use crate::Error;

/// Rows that refer to nothing, by table and parent; `None` where SQLite cannot say.
type Violations = Option<BTreeMap<(String, String), u64>>;

/// What [`compare`] found.
pub(super) enum Found {
    Sql(rusqlite::Error),
    Dangling(Error),
}

pub(super) fn violations(connection: &Connection) -> rusqlite::Result<Violations> {
    let mut found = BTreeMap::new();
    let mut look = || -> rusqlite::Result<()> {
        let mut statement = connection.prepare("PRAGMA main.foreign_key_check")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            *found.entry((row.get(0)?, row.get(2)?)).or_default() += 1;
        }
        Ok(())
    };
    match look() {
        Ok(()) => Ok(Some(found)),
        // A reference to what nothing is unique by: the application does not have them checked either.
        Err(error) if error.to_string().contains("foreign key mismatch") => Ok(None),
        Err(error) => Err(error),
    }
}

/// Refuses what dangles now and did not `before`.
pub(super) fn compare(connection: &Connection, before: &Violations) -> Result<(), Found> {
    let (Some(before), Some(after)) = (before, violations(connection).map_err(Found::Sql)?) else { return Ok(()) };
    for ((table, parent), count) in after {
        let was = before.get(&(table.clone(), parent.clone())).copied().unwrap_or(0);
        if count > was {
            let what = format!("{} of its rows would refer to rows of {parent} that are not there", count - was);
            return Err(Found::Dangling(refused(&table, &what, "restore the tables that belong together")));
        }
    }
    Ok(())
}

/// Takes rows out that were added and refer to nothing, until there are none:
/// what refers to one of them goes with it.
pub(super) fn take_out(both: &Both<'_>, jobs: &mut [Job<'_>]) -> rusqlite::Result<()> {
    loop {
        let mut taken = 0;
        for job in jobs.iter_mut().filter(|job| job.done.added > 0) {
            for reference in &job.table.references {
                let Some(parent) = both.live.table(&reference.parent) else { continue };
                let Some(dangles) = dangles(reference, parent) else { continue };
                taken += take_out_of(both, job, &dangles)?;
            }
        }
        if taken == 0 {
            return Ok(());
        }
    }
}

/// What holds of a row `t` that refers to nothing by `reference`.
fn dangles(reference: &Reference, parent: &Table) -> Option<String> {
    let pairs = parent.referred(reference)?;
    let filled: Vec<String> = pairs.iter().map(|(from, _)| format!("t.{} IS NOT NULL", quoted(from))).collect();
    // The plus takes the column's own type away, so that the parent's counts, as it does for SQLite.
    let same: Vec<String> = pairs.iter().map(|(from, to)| format!("p.{} = +t.{}", quoted(to), quoted(from))).collect();
    Some(format!(
        "{} AND NOT EXISTS (SELECT 1 FROM {} p WHERE {})",
        filled.join(" AND "),
        named("main", &parent.name),
        same.join(" AND ")
    ))
}

fn take_out_of(both: &Both<'_>, job: &mut Job<'_>, dangles: &str) -> rusqlite::Result<u64> {
    let (table, added) = (job.table, job.table.added());
    let handle = table.handle();
    if handle.is_empty() {
        return Ok(0);
    }
    let live = named("main", &table.name);
    let columns = |of: &str| handle.iter().map(|name| format!("{of}{}", quoted(name))).collect::<Vec<_>>().join(", ");
    let numbered: Vec<String> = (0..handle.len()).map(|at| format!("n{at}")).collect();
    let numbered = numbered.join(", ");
    let same: Vec<String> =
        handle.iter().enumerate().map(|(at, name)| format!("t.{} = a.n{at}", quoted(name))).collect();
    let gone = "temp.\"lifeboat gone\"";
    both.connection.execute_batch(&format!("CREATE TABLE {gone} ({numbered})"))?;
    let find = format!(
        "INSERT INTO {gone} SELECT {} FROM {added} a JOIN {live} t ON {} WHERE {dangles}",
        columns("t."),
        same.join(" AND ")
    );
    let count = both.connection.execute(&find, [])? as u64;
    if count > 0 {
        let shown = &job.source.shown;
        let listed: Vec<String> = shown.iter().map(|name| format!("t.{}", quoted(name))).collect();
        let listed = if listed.is_empty() { "NULL".to_owned() } else { listed.join(", ") };
        let list = format!("SELECT {listed} FROM {gone} a JOIN {live} t ON {}", same.join(" AND "));
        let mut statement = both.connection.prepare(&list)?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            job.done.conflict(rows::shown_key(row, shown, 0)?);
            job.done.added -= 1;
        }
        drop(found);
        drop(statement);
        let delete = |of: &str, columns: &str| {
            both.connection
                .execute_batch(&format!("DELETE FROM {of} WHERE ({columns}) IN (SELECT {numbered} FROM {gone})"))
        };
        delete(&live, &columns(""))?;
        delete(&added, &numbered)?;
    }
    both.connection.execute_batch(&format!("DROP TABLE {gone}"))?;
    Ok(count)
}
