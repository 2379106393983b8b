//! Who keeps tables from being read.

use std::time::Duration;

use super::facts::shown;
use super::session::{Session, quoted};
use crate::config::duration;
use crate::{Cancel, Error, ErrorKind, Result};

/// How many are named.
const NAMED_MAX: usize = 3;
/// How many characters of a query.
const QUERY_MAX: usize = 80;

/// A session that has a lock against which a table cannot be read, or waits for one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Locker {
    /// `schema.table`.
    table: String,
    has_it: bool,
    /// `None`: a prepared transaction.
    pid: Option<i32>,
    application: String,
    user: String,
    state: String,
    query: String,
}

impl Locker {
    fn describe(&self) -> String {
        let Some(pid) = self.pid else {
            return format!(
                "the table {} is locked by a prepared transaction (pg_prepared_xacts)",
                quoted(&self.table)
            );
        };
        let has = if self.has_it { "is locked" } else { "is about to be locked" };
        let user = if self.user.is_empty() { String::new() } else { format!("user {}", self.user) };
        let who: Vec<&str> = [&self.application, &user, &self.state].into_iter().map(String::as_str).collect();
        let who: Vec<&str> = who.into_iter().filter(|word| !word.is_empty()).collect();
        let who = quoted(&who.join(", "));
        let line = self.query.split_whitespace().collect::<Vec<_>>().join(" ");
        let cut: String = line.chars().take(QUERY_MAX).collect();
        let dots = if cut.len() < line.len() { "…" } else { "" };
        let query = if cut.is_empty() { String::new() } else { format!(": {}{dots}", quoted(&cut)) };
        format!("the table {} {has} by process {pid} ({who}){query}", quoted(&self.table))
    }
}

/// Who holds or awaits the only lock that keeps tables of the database of
/// `session` from being read; those who hold one first.
///
/// # Errors
/// The server's.
pub(crate) fn lockers(session: &mut Session, cancel: &Cancel) -> Result<Vec<Locker>> {
    let sql = "SELECT n.nspname || '.' || c.relname, l.granted, l.pid, coalesce(a.application_name, ''), \
               coalesce(a.usename::text, ''), coalesce(a.state, ''), coalesce(left(a.query, 400), '') \
               FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace \
               LEFT JOIN pg_stat_activity a ON a.pid = l.pid \
               WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.pid IS DISTINCT FROM pg_backend_pid() \
               AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
               AND c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
               ORDER BY l.granted DESC, a.xact_start, 1 LIMIT 20";
    let rows = session.rows(sql, &[], cancel)?;
    Ok(rows
        .iter()
        .map(|row| Locker {
            table: row.get(0),
            has_it: row.get(1),
            pid: row.get(2),
            application: row.get(3),
            user: row.get(4),
            state: row.get(5),
            query: row.get(6),
        })
        .collect())
}

/// Tables of `database` could not be locked within `waited`, because of `who`.
pub(crate) fn locked(database: &str, who: &[Locker], waited: Duration) -> Error {
    let mut named: Vec<&Locker> = Vec::new();
    for locker in who {
        if named.iter().all(|known| known.pid != locker.pid) && named.len() < NAMED_MAX {
            named.push(locker);
        }
    }
    let named: Vec<String> = named.into_iter().map(Locker::describe).collect();
    let named = if named.is_empty() { "a table was locked, and no longer is".to_owned() } else { named.join("; ") };
    let waited = duration::shown(waited);
    Error::new(ErrorKind::Locked, format!("{}: {named}; waited for {waited}", shown(database)))
        .next("let that session end, or run the backup at another time; `lock_timeout` says how long is waited")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows D2.
    #[test]
    fn who_has_a_lock_is_named_once_and_cut_short() {
        let query = format!("ALTER TABLE t\n  ADD {}", "x".repeat(200));
        let one = Locker {
            table: "public.t".to_owned(),
            has_it: true,
            pid: Some(7),
            application: "psql\u{1b}".to_owned(),
            user: "bob".to_owned(),
            state: "idle in transaction".to_owned(),
            query,
        };
        let other = Locker { table: "public.u".to_owned(), ..one.clone() };
        let prepared = Locker { pid: None, ..one.clone() };
        let error = locked("a\"b", &[one, other, prepared], Duration::from_secs(1));
        assert_eq!(error.kind(), ErrorKind::Locked);
        let what = error.what();
        assert!(what.starts_with("the database a\"b: the table public.t is locked by process 7 (psql\\x1b, user bob, idle in transaction): ALTER TABLE t ADD xxx"), "{what}");
        assert!(
            what.ends_with(
                "x…; the table public.t is locked by a prepared transaction (pg_prepared_xacts); waited for 1s"
            ),
            "{what}"
        );
        assert!(!what.contains("public.u") && what.len() < 400, "{what}");
    }
}
