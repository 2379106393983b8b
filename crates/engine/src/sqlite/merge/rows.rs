//! The rows of one table: each that the snapshot has is looked for by its key,
//! and is a duplicate, a conflict, or added.

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{ErrorCode, Row, Statement, params_from_iter};

use super::keys::LOST;
use super::schema::{Key, Table, named};
use super::{Both, Job, KEY_LETTERS_MAX, quoted};

/// A value, byte for byte: a text need not be UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cell {
    Null,
    Integer(i64),
    /// Its bits, so that it is compared with itself as equal.
    Real(u64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

impl Cell {
    fn of(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(number) => Self::Integer(number),
            ValueRef::Real(number) => Self::Real(number.to_bits()),
            ValueRef::Text(bytes) => Self::Text(bytes.to_vec()),
            ValueRef::Blob(bytes) => Self::Blob(bytes.to_vec()),
        }
    }

    fn shown(&self) -> String {
        let cut = |text: String| {
            let short: String = text.chars().take(KEY_LETTERS_MAX).collect();
            if short.len() < text.len() { format!("{short}…") } else { short }
        };
        match self {
            Self::Null => "NULL".to_owned(),
            Self::Integer(number) => number.to_string(),
            Self::Real(bits) => f64::from_bits(*bits).to_string(),
            Self::Text(bytes) => cut(lifeboat_format::path::shown(bytes)),
            Self::Blob(bytes) => cut(format!("x'{}'", hex::encode(&bytes[..bytes.len().min(KEY_LETTERS_MAX)]))),
        }
    }
}

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Real(bits) => ValueRef::Real(f64::from_bits(*bits)),
            Self::Text(bytes) => ValueRef::Text(bytes),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// `host=web, port=22`: the values of `columns`, which stand from `first` on in `row`.
pub(super) fn shown_key(row: &Row<'_>, columns: &[String], first: usize) -> rusqlite::Result<String> {
    let mut shown = Vec::with_capacity(columns.len());
    for (at, name) in columns.iter().enumerate() {
        shown.push(format!("{name}={}", Cell::of(row.get_ref(first + at)?).shown()));
    }
    Ok(join_key(&shown))
}

fn join_key(shown: &[String]) -> String {
    if shown.is_empty() { "a row without a primary key".to_owned() } else { shown.join(", ") }
}

impl Table {
    /// The columns of the primary key.
    pub(super) fn key_columns(&self) -> Vec<String> {
        match &self.key {
            None => Vec::new(),
            Some(Key::Rowid(column)) => vec![column.clone()],
            Some(Key::Columns(columns)) => columns.iter().map(|(name, _)| name.clone()).collect(),
        }
    }

    /// The columns by which a row that was added is found again.
    pub(super) fn handle(&self) -> Vec<String> {
        self.rowid().map_or_else(|| self.key_columns(), |rowid| vec![rowid.to_owned()])
    }

    /// The temporary table of the rows that were added.
    pub(super) fn added(&self) -> String {
        format!("temp.{}", quoted(&format!("added to {}", self.name)))
    }

    fn stored_names(&self) -> Vec<String> {
        self.stored().map(|column| column.name.clone()).collect()
    }
}

fn listed(names: &[String]) -> String {
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
}

/// `?1, ?2, …`
fn marks(count: usize) -> String {
    (1..=count).map(|at| format!("?{at}")).collect::<Vec<_>>().join(", ")
}

/// Adds the rows of the snapshot that are missing.
pub(super) fn merge(both: &Both<'_>, job: &mut Job<'_>) -> rusqlite::Result<()> {
    let live = named("main", &job.table.name);
    if job.done.replaced.is_some() {
        let count = format!("SELECT count(*) FROM {live}");
        job.done.replaced = Some(both.connection.query_row(&count, [], |row| row.get::<_, i64>(0))?.cast_unsigned());
        both.connection.execute_batch(&format!("DELETE FROM {live}"))?;
    }
    let mut adder = Adder::new(both, job)?;
    match &job.table.key {
        None => without_key(both, job, &mut adder),
        Some(key) => with_key(both, job, key, &mut adder),
    }
}

/// Inserts rows, and notes which.
struct Adder<'c> {
    insert: Statement<'c>,
    note: Option<Statement<'c>>,
    /// Where the columns that are noted stand among those that are stored; none: the row's number is noted.
    noted: Vec<usize>,
}

impl<'c> Adder<'c> {
    fn new(both: &Both<'c>, job: &Job<'_>) -> rusqlite::Result<Self> {
        let table = job.table;
        let names = table.stored_names();
        // What a table says of its conflicts itself does not count: nothing live is replaced or left out silently.
        let insert = format!(
            "INSERT OR ABORT INTO {} ({}) VALUES ({})",
            named("main", &table.name),
            listed(&names),
            marks(names.len())
        );
        let insert = both.connection.prepare(&insert)?;
        let handle = table.handle();
        let noted = if table.rowid().is_some() {
            Vec::new()
        } else {
            handle.iter().filter_map(|column| names.iter().position(|name| name == column)).collect()
        };
        let note = if table.references.is_empty() || handle.is_empty() {
            None
        } else {
            let columns: Vec<String> = (0..handle.len()).map(|at| format!("n{at}")).collect();
            both.connection.execute_batch(&format!("CREATE TABLE {} ({})", table.added(), columns.join(", ")))?;
            let note = format!("INSERT INTO {} VALUES ({})", table.added(), marks(handle.len()));
            Some(both.connection.prepare(&note)?)
        };
        Ok(Self { insert, note, noted })
    }

    /// False when something that is live does not go with the row.
    fn add(&mut self, both: &Both<'_>, row: &[Cell]) -> rusqlite::Result<bool> {
        match self.insert.execute(params_from_iter(row)) {
            Ok(_) => {}
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => return Ok(false),
            Err(error) => return Err(error),
        }
        if let Some(note) = &mut self.note {
            if self.noted.is_empty() {
                note.execute([both.connection.last_insert_rowid()])?;
            } else {
                note.execute(params_from_iter(self.noted.iter().map(|at| &row[*at])))?;
            }
        }
        Ok(true)
    }
}

fn cells(row: &Row<'_>, count: usize) -> rusqlite::Result<Vec<Cell>> {
    (0..count).map(|at| Ok(Cell::of(row.get_ref(at)?))).collect()
}

fn with_key(both: &Both<'_>, job: &mut Job<'_>, key: &Key, adder: &mut Adder<'_>) -> rusqlite::Result<()> {
    let names = job.table.stored_names();
    let place = |column: &String| names.iter().position(|name| name == column).unwrap_or_default();
    let keys: Vec<(usize, String)> = match key {
        Key::Rowid(column) => vec![(place(column), format!("{} = ?1", quoted(column)))],
        Key::Columns(columns) => {
            let term = |(at, (name, collation)): (usize, &(String, String))| {
                (place(name), format!("{} = ?{} COLLATE {}", quoted(name), at + 1, quoted(collation)))
            };
            columns.iter().enumerate().map(term).collect()
        }
    };
    let terms: Vec<&str> = keys.iter().map(|(_, term)| term.as_str()).collect();
    let (all, live) = (listed(&names), named("main", &job.table.name));
    let mut find = both.connection.prepare(&format!("SELECT {all} FROM {live} WHERE {}", terms.join(" AND ")))?;
    let whole: Vec<String> =
        names.iter().enumerate().map(|(at, name)| format!("{} IS ?{} COLLATE BINARY", quoted(name), at + 1)).collect();
    let whole = format!("SELECT {all} FROM {live} WHERE {}", whole.join(" AND "));
    let shown: Vec<usize> = job.source.shown.iter().map(place).collect();
    let lost = if job.source.is_mapped { format!(", \"{LOST}\"") } else { String::new() };
    let mut read = both.connection.prepare(&format!("SELECT {all}{lost} FROM {}", job.source.from))?;
    let mut rows = read.query([])?;
    while let Some(row) = rows.next()? {
        let cells = self::cells(row, names.len())?;
        let is_lost = job.source.is_mapped && row.get::<_, bool>(names.len())?;
        let key: Vec<&Cell> = keys.iter().map(|(at, _)| &cells[*at]).collect();
        // A key of which a part is NULL names no row; such a one is known by all that it is.
        let there = if is_lost {
            None
        } else if key.iter().any(|cell| **cell == Cell::Null) {
            first(&mut both.connection.prepare(&whole)?, &mut cells.iter(), names.len())?
        } else {
            first(&mut find, &mut key.into_iter(), names.len())?
        };
        match there {
            Some(there) if there == cells => job.done.duplicates += 1,
            None if !is_lost && adder.add(both, &cells)? => job.done.added += 1,
            _ => {
                let shown =
                    job.source.shown.iter().zip(&shown).map(|(name, at)| format!("{name}={}", cells[*at].shown()));
                job.done.conflict(join_key(&shown.collect::<Vec<_>>()));
            }
        }
    }
    Ok(())
}

fn first(
    find: &mut Statement<'_>,
    key: &mut dyn Iterator<Item = &Cell>,
    count: usize,
) -> rusqlite::Result<Option<Vec<Cell>>> {
    let mut rows = find.query(params_from_iter(key))?;
    rows.next()?.map(|row| cells(row, count)).transpose()
}

/// Rows that nothing names: there are as many of each afterwards as the side has that has more of it.
fn without_key(both: &Both<'_>, job: &mut Job<'_>, adder: &mut Adder<'_>) -> rusqlite::Result<()> {
    let names = job.table.stored_names();
    let columns: Vec<String> = (0..names.len()).map(|at| format!("c{at}")).collect();
    let columns = columns.join(", ");
    let as_columns: Vec<String> =
        names.iter().enumerate().map(|(at, name)| format!("{} AS c{at}", quoted(name))).collect();
    let as_columns = as_columns.join(", ");
    let groups: Vec<String> = (0..names.len()).map(|at| format!("typeof(c{at}), c{at} COLLATE BINARY")).collect();
    let live = named("main", &job.table.name);
    let (lost, live_lost) = if job.source.is_mapped { (format!("\"{LOST}\""), "0") } else { ("0".to_owned(), "0") };
    let counted = quoted(&format!("rows of {}", job.table.name));
    // No types, so that every value stays what it is.
    both.connection.execute_batch(&format!(
        "CREATE TABLE temp.{counted}({columns}, lost, theirs, ours); \
         INSERT INTO temp.{counted} SELECT {columns}, max(lost), sum(theirs), sum(ours) FROM \
         (SELECT {as_columns}, {lost} AS lost, 1 AS theirs, 0 AS ours FROM {} \
         UNION ALL SELECT {as_columns}, {live_lost}, 0, 1 FROM {live}) \
         GROUP BY {}, lost HAVING sum(theirs) > 0",
        job.source.from,
        groups.join(", ")
    ))?;
    let mut read = both.connection.prepare(&format!("SELECT {columns}, lost, theirs, ours FROM temp.{counted}"))?;
    let mut rows = read.query([])?;
    while let Some(row) = rows.next()? {
        let cells = self::cells(row, names.len())?;
        let number = |at: usize| row.get::<_, i64>(names.len() + at).map(i64::cast_unsigned);
        let (is_lost, theirs, ours) = (number(0)? > 0, number(1)?, number(2)?);
        let there = if is_lost { 0 } else { theirs.min(ours) };
        job.done.duplicates += there;
        for _ in there..theirs {
            if !is_lost && adder.add(both, &cells)? {
                job.done.added += 1;
            } else {
                job.done.conflict(join_key(&[]));
            }
        }
    }
    Ok(())
}
