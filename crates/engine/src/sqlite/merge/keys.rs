//! Natural keys: rows of a table whose ids mean nothing get the id of the live
//! row with the same natural key, or a fresh one, and what refers to them
//! follows. Only where every reference is a declared foreign key; otherwise the
//! table is refused by its name.

use rusqlite::OptionalExtension as _;

use super::schema::{Table, named};
use super::{Both, MergedTable, SNAPSHOT, quoted, refused};
use crate::{Cancel, Result};

/// The column of a source that says that an id has no counterpart.
pub(super) const LOST: &str = "~lost";

/// The ids of one table: `old`, in the snapshot, and `new`, in the live database.
pub(super) struct Mapped {
    table: String,
    number: String,
    /// The natural key.
    pub(super) key: Vec<String>,
    /// The temporary table that holds them.
    ids: String,
}

/// Where the rows of the snapshot are read from.
pub(super) struct Source {
    /// What follows `FROM`.
    pub(super) from: String,
    /// Whether it has the column [`LOST`].
    pub(super) is_mapped: bool,
    /// The columns that a row is known by to people.
    pub(super) shown: Vec<String>,
}

impl Source {
    pub(super) fn of(table: &Table, mapped: &[Mapped], done: &MergedTable) -> Self {
        let mapped = if done.replaced.is_some() { &[][..] } else { mapped };
        let own = mapped.iter().find(|mapped| mapped.table == table.name);
        let shown = own.map(|own| own.key.clone()).unwrap_or_else(|| table.key_columns());
        let (from, is_mapped) = from(table, mapped, &|_| true);
        Self { from, is_mapped, shown }
    }
}

/// The ids that the column `name` of `table` holds, of whichever tables.
fn ids_of<'m>(table: &Table, name: &str, mapped: &'m [Mapped]) -> Vec<&'m Mapped> {
    let is_own = |mapped: &&Mapped| mapped.table == table.name && mapped.number.eq_ignore_ascii_case(name);
    let is_referred = |mapped: &&Mapped| {
        table.references.iter().any(|reference| {
            reference.parent.eq_ignore_ascii_case(&mapped.table)
                && matches!(reference.columns.as_slice(), [(from, to)] if from.eq_ignore_ascii_case(name)
                    && to.as_ref().is_none_or(|to| to.eq_ignore_ascii_case(&mapped.number)))
        })
    };
    mapped.iter().filter(|mapped| is_own(mapped) || is_referred(mapped)).collect()
}

/// The snapshot's rows of `table` with the ids that they get; those columns that `maps` says.
fn from(table: &Table, mapped: &[Mapped], maps: &dyn Fn(&str) -> bool) -> (String, bool) {
    let (mut columns, mut lost) = (Vec::new(), Vec::new());
    for column in table.stored() {
        let name = quoted(&column.name);
        match ids_of(table, &column.name, mapped).first().filter(|_| maps(&column.name)) {
            Some(of) => {
                let new = format!("(SELECT new FROM temp.{} WHERE old = s.{name})", quoted(&of.ids));
                lost.push(format!("(s.{name} IS NOT NULL AND {new} IS NULL)"));
                columns.push(format!("{new} AS {name}"));
            }
            None => columns.push(format!("s.{name} AS {name}")),
        }
    }
    let of = named(SNAPSHOT, &table.name);
    if lost.is_empty() {
        return (of, false);
    }
    (format!("(SELECT {}, {} AS \"{LOST}\" FROM {of} s)", columns.join(", "), lost.join(" OR ")), true)
}

/// Finds the ids of all tables in `chosen` that have a natural key.
pub(super) fn map(both: &Both<'_>, chosen: &[MergedTable], cancel: &Cancel) -> Result<Vec<Mapped>> {
    let mut waiting = Vec::new();
    if !both.wanted.replaces {
        for (name, key) in &both.wanted.keys {
            let Some(table) = both.live.table(name) else {
                return Err(refused(name, "merge_key names it, and there is no such table", CORRECT));
            };
            if chosen.iter().any(|chosen| chosen.table == table.name) {
                waiting.push((table, check(both, table, key)?));
            }
        }
    }
    let mut done: Vec<Mapped> = Vec::new();
    while !waiting.is_empty() {
        // A natural key may hold the id of a row with one of its own; that must be known first.
        let is_open = |table: &Table, mapped: &Mapped| {
            let waits_for = waiting.iter().any(|(_, other): &(&Table, Mapped)| {
                mapped.key.iter().any(|column| !ids_of(table, column, std::slice::from_ref(other)).is_empty())
            });
            !waits_for
        };
        let Some(at) = waiting.iter().position(|(table, mapped)| is_open(table, mapped)) else {
            return Err(refused(&waiting[0].0.name, "its merge_key refers to the table itself", CORRECT));
        };
        let (table, mapped) = waiting.remove(at);
        cancel.check()?;
        let sql = |error| super::failed(&table.name, &error, cancel);
        refuse_ambiguous(both, table, &mapped, &done, cancel)?;
        find_ids(both, table, &mapped, &done).map_err(sql)?;
        done.push(mapped);
    }
    for chosen in chosen {
        let table = both.live.table(&chosen.table);
        let twice = table.into_iter().flat_map(|table| {
            table.stored().filter(|column| ids_of(table, &column.name, &done).len() > 1).map(|column| &column.name)
        });
        if let Some(column) = twice.into_iter().next() {
            let what = format!("its column {column} refers to two tables whose ids change");
            return Err(refused(&chosen.table, &what, "leave one of them out of merge_key"));
        }
    }
    Ok(done)
}

const CORRECT: &str = "correct merge_key in lifeboat.yaml";

/// Whether ids of `table` may change at all.
fn check(both: &Both<'_>, table: &Table, key: &[String]) -> Result<Mapped> {
    let refuse = |what: &str, next: &str| Err(refused(&table.name, what, next));
    let Some(number) = table.number() else {
        return refuse("a merge_key needs ids to give, a primary key of one INTEGER column", CORRECT);
    };
    let mut columns = Vec::new();
    for name in key {
        match table.column(name).filter(|column| !column.is_generated() && column.name != number) {
            Some(column) => columns.push(column.name.clone()),
            None => return refuse(&format!("{name} cannot be in its merge_key"), CORRECT),
        }
    }
    for other in &both.live.tables {
        for reference in &other.references {
            let leads_here = reference.parent.eq_ignore_ascii_case(&table.name);
            let names_number = table.referred(reference).is_none_or(|pairs| pairs.iter().any(|(_, to)| *to == number));
            if leads_here && names_number && reference.columns.len() > 1 {
                let what = format!("{} refers to its ids by several columns at once", other.name);
                return refuse(&what, "leave the table out of merge_key");
            }
        }
        let undeclared = other.columns.iter().find(|column| {
            let is_its_key = other.name == table.name && column.name == number;
            !is_its_key && looks_like_reference(&column.name, &table.name) && !is_declared(other, &column.name, table)
        });
        if let Some(column) = undeclared {
            let what = format!("{}.{} looks like a reference to it that is not declared", other.name, column.name);
            return refuse(&what, "declare it as a foreign key, or leave the table out of merge_key");
        }
    }
    let ids = format!("ids of {}", table.name);
    Ok(Mapped { table: table.name.clone(), number: number.to_owned(), key: columns, ids })
}

fn is_declared(of: &Table, column: &str, to: &Table) -> bool {
    of.references.iter().any(|reference| {
        reference.parent.eq_ignore_ascii_case(&to.name)
            && reference.columns.iter().any(|(from, _)| from.eq_ignore_ascii_case(column))
    })
}

/// `servers_id`, `server_id`, `serverid` and `id_server` are what people call a reference to `servers`.
pub(super) fn looks_like_reference(column: &str, table: &str) -> bool {
    let (column, table) = (column.to_ascii_lowercase(), table.to_ascii_lowercase());
    let singular = ["ies", "es", "s"].into_iter().filter_map(|end| {
        let stem = table.strip_suffix(end)?;
        Some(if end == "ies" { format!("{stem}y") } else { stem.to_owned() })
    });
    let mut names = singular.chain([table.clone()]).filter(|name| !name.is_empty());
    names.any(|name| {
        [format!("{name}_id"), format!("{name}id"), format!("id_{name}")].contains(&column)
            || column.ends_with(&format!("_{name}_id"))
    })
}

/// A natural key that two rows have in common says of neither which one it is.
fn refuse_ambiguous(both: &Both<'_>, table: &Table, own: &Mapped, done: &[Mapped], cancel: &Cancel) -> Result<()> {
    let columns: Vec<String> = own.key.iter().map(|name| quoted(name)).collect();
    let columns = columns.join(", ");
    let (from, is_mapped) = from(table, done, &|name| own.key.iter().any(|key| key == name));
    let rest = if is_mapped { format!(" WHERE NOT \"{LOST}\"") } else { String::new() };
    for (of, side) in [(named("main", &table.name), "live rows"), (format!("{from}{rest}"), "rows of the snapshot")] {
        let query = format!("SELECT {columns} FROM {of} GROUP BY {columns} HAVING count(*) > 1 LIMIT 1");
        let twice = both.connection.query_row(&query, [], |row| super::rows::shown_key(row, &own.key, 0)).optional();
        if let Some(key) = twice.map_err(|error| super::failed(&table.name, &error, cancel))? {
            return Err(refused(&table.name, &format!("several {side} have the merge_key {key}"), CORRECT));
        }
    }
    Ok(())
}

fn find_ids(both: &Both<'_>, table: &Table, own: &Mapped, done: &[Mapped]) -> rusqlite::Result<()> {
    let (number, live) = (quoted(&own.number), named("main", &table.name));
    let ids = format!("temp.{}", quoted(&own.ids));
    let (from, is_mapped) = from(table, done, &|name| own.key.iter().any(|key| key == name));
    let rest = if is_mapped { format!(" WHERE NOT s.\"{LOST}\"") } else { String::new() };
    let sequence = if both.live.has_sequences {
        "coalesce((SELECT max(seq) FROM main.sqlite_sequence WHERE name = ?1), 0)"
    } else {
        "0"
    };
    let base =
        format!("SELECT max(coalesce((SELECT max({number}) FROM {live}), 0), {sequence}, 0) WHERE ?1 IS NOT NULL");
    let base: i64 = both.connection.query_row(&base, [&table.name], |row| row.get(0))?;
    let same: Vec<String> = own.key.iter().map(|name| format!("l.{0} IS s.{0}", quoted(name))).collect();
    both.connection.execute_batch(&format!("CREATE TABLE {ids}(old INTEGER PRIMARY KEY, new INTEGER NOT NULL)"))?;
    // A number beyond what SQLite can count becomes no integer, which the table does not take.
    let fill = format!(
        "INSERT INTO {ids} SELECT s.{number}, \
         coalesce(l.{number}, ?1 + row_number() OVER (PARTITION BY l.{number} IS NULL ORDER BY s.{number})) \
         FROM {from} s LEFT JOIN {live} l ON {}{rest}",
        same.join(" AND ")
    );
    both.connection.execute(&fill, [base]).map(drop)
}
