//! How many rows tables have, at the moment whose snapshot a session holds.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lifeboat_format::record::Rows;
use postgres::error::SqlState;

use super::facts::{self, Table};
use super::session::Session;
use crate::{Cancel, ErrorKind, Result};

/// For how long it is counted.
pub(crate) const BUDGET: Duration = Duration::from_secs(60);
/// From this size on, a table is not read through just to count it.
const BYTES_MAX: u64 = 1 << 30;

/// The rows of `tables` by [`Table::full_name`], the smallest counted first, and
/// within `budget`; of what is large, or not counted by then, the server's
/// estimate. Those that a dump leaves out (`is_left_out`) have none in it. Tables
/// of partitions are not there: their partitions are. Ends early when `is_over`.
///
/// # Errors
/// Only on cancel.
pub(crate) fn count(
    session: &mut Session,
    tables: &[Table],
    is_left_out: impl Fn(&Table) -> bool,
    budget: Duration,
    is_over: &AtomicBool,
    cancel: &Cancel,
) -> Result<BTreeMap<String, Rows>> {
    let began = Instant::now();
    let sizes = match facts::sizes(session, cancel) {
        Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
        sizes => sizes.unwrap_or_default(),
    };
    let bytes = |table: &Table| sizes.get(&table.full_name()).copied().unwrap_or(u64::MAX);
    let mut by_size: Vec<&Table> = tables.iter().filter(|table| !table.is_partitioned).collect();
    by_size.sort_by_cached_key(|table| bytes(table));
    let mut rows = BTreeMap::new();
    let mut goes_on = true;
    for table in by_size {
        let left = budget.saturating_sub(began.elapsed());
        goes_on &= !is_over.load(Ordering::Relaxed) && !left.is_zero();
        let counted = if is_left_out(table) {
            Some(0)
        } else if goes_on && bytes(table) < BYTES_MAX {
            let counted = exact(session, table, left, cancel)?;
            // After an error the transaction is over.
            goes_on = counted.is_some();
            counted
        } else {
            None
        };
        let found = match counted {
            Some(rows) => Rows { rows, estimated: false },
            None => Rows { rows: table.estimate, estimated: true },
        };
        rows.insert(table.full_name(), found);
    }
    Ok(rows)
}

/// The number of rows; `None` where it cannot be counted within `left`.
fn exact(session: &mut Session, table: &Table, left: Duration, cancel: &Cancel) -> Result<Option<u64>> {
    let millis = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).max(1);
    let limit = format!("SET LOCAL statement_timeout = {millis}");
    let count = format!("SELECT count(*) FROM ONLY {}", table.sql());
    let asked = session.attempt(&limit, &[SqlState::QUERY_CANCELED], cancel);
    match asked.and_then(|_| session.value(&count, cancel)) {
        Ok(rows) => Ok(rows.and_then(|rows| rows.parse().ok())),
        Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
        // What is really wrong with a table, the dump finds too.
        Err(_) => Ok(None),
    }
}
