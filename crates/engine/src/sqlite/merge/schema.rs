//! The tables of a database as far as a merge goes by them: columns, keys,
//! unique indexes, references.

use rusqlite::Connection;

use super::super::check::quoted;

/// The tables of one side.
pub(super) struct Schema {
    pub(super) tables: Vec<Table>,
    /// Virtual tables, and the statement that made each.
    pub(super) virtuals: Vec<(String, String)>,
    pub(super) has_sequences: bool,
}

/// A table that holds rows of the application's.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) columns: Vec<Column>,
    without_rowid: bool,
    is_strict: bool,
    /// What its unique indexes go by, each as it can be compared.
    unique: Vec<String>,
    /// The columns of the primary key with their collations; `None`: it has none.
    pub(super) key: Option<Key>,
    pub(super) references: Vec<Reference>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    kind: String,
    not_null: bool,
    /// Its place in the primary key; 0: none.
    in_key: i64,
    /// How it is hidden: 2 and 3 are generated ones, whose values SQLite makes.
    hidden: i64,
}

/// What a row is known by.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// The column that is the row's number.
    Rowid(String),
    Columns(Vec<(String, String)>),
}

/// A foreign key.
#[derive(Debug)]
pub(super) struct Reference {
    pub(super) parent: String,
    /// Each column, and the one of the parent that it refers to (`None`: the parent's primary key).
    pub(super) columns: Vec<(String, Option<String>)>,
}

impl Column {
    pub(super) fn is_generated(&self) -> bool {
        self.hidden != 0
    }
}

impl Schema {
    pub(super) fn read(connection: &Connection, schema: &str) -> rusqlite::Result<Self> {
        let list = "SELECT name, type, wr, strict FROM pragma_table_list WHERE schema = ?1 \
             AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name";
        let mut statement = connection.prepare(list)?;
        let rows = statement.query_map([schema], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, bool>(2)?, row.get::<_, bool>(3)?))
        })?;
        let (mut tables, mut virtuals) = (Vec::new(), Vec::new());
        for row in rows {
            let (name, kind, without_rowid, is_strict) = row?;
            match kind.as_str() {
                "table" => tables.push(Table::read(connection, schema, name, (without_rowid, is_strict))?),
                "virtual" => {
                    let find = format!("SELECT sql FROM {schema}.sqlite_schema WHERE type = 'table' AND name = ?1");
                    let sql = connection.query_row(&find, [&name], |row| row.get(0))?;
                    virtuals.push((name, sql));
                }
                _ => {}
            }
        }
        let find = format!("SELECT count(*) FROM {schema}.sqlite_schema WHERE name = 'sqlite_sequence'");
        let has_sequences = connection.query_row(&find, [], |row| row.get::<_, i64>(0))? > 0;
        Ok(Self { tables, virtuals, has_sequences })
    }

    /// The table called so, in whichever case.
    pub(super) fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name.eq_ignore_ascii_case(name))
    }
}

impl Table {
    fn read(connection: &Connection, schema: &str, name: String, flags: (bool, bool)) -> rusqlite::Result<Self> {
        let mut statement = connection
            .prepare("SELECT name, type, \"notnull\", pk, hidden FROM pragma_table_xinfo(?1, ?2) ORDER BY cid")?;
        let columns = statement.query_map([name.as_str(), schema], |row| {
            Ok(Column {
                name: row.get(0)?,
                kind: row.get::<_, Option<String>>(1)?.unwrap_or_default().to_ascii_uppercase(),
                not_null: row.get(2)?,
                in_key: row.get(3)?,
                hidden: row.get(4)?,
            })
        })?;
        let columns: Vec<Column> = columns.collect::<rusqlite::Result<_>>()?;
        let mut table = Self {
            references: references(connection, schema, &name)?,
            name,
            columns,
            without_rowid: flags.0,
            is_strict: flags.1,
            unique: Vec::new(),
            key: None,
        };
        table.read_unique(connection, schema)?;
        let mut in_key = table.columns.iter().filter(|column| column.in_key > 0);
        // A primary key without an index is another name of the row's number.
        if table.key.is_none()
            && let Some(column) = in_key.next()
        {
            table.key = Some(Key::Rowid(column.name.clone()));
        }
        Ok(table)
    }

    fn read_unique(&mut self, connection: &Connection, schema: &str) -> rusqlite::Result<()> {
        let mut list = connection
            .prepare("SELECT name, origin, partial FROM pragma_index_list(?1, ?2) WHERE \"unique\" ORDER BY name")?;
        let indexes = list.query_map([self.name.as_str(), schema], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, bool>(2)?))
        })?;
        for index in indexes {
            let (index, origin, is_partial) = index?;
            let mut info =
                connection.prepare("SELECT name, coll FROM pragma_index_xinfo(?1, ?2) WHERE \"key\" ORDER BY seqno")?;
            let columns = info.query_map([index.as_str(), schema], |row| {
                Ok((row.get::<_, Option<String>>(0)?, row.get::<_, Option<String>>(1)?.unwrap_or_default()))
            })?;
            let columns: Vec<(Option<String>, String)> = columns.collect::<rusqlite::Result<_>>()?;
            if origin == "pk" {
                let named = columns.iter().filter_map(|(name, collation)| Some((name.clone()?, collation.clone())));
                self.key = Some(Key::Columns(named.collect()));
            }
            let mut shown: Vec<String> = columns
                .iter()
                .map(|(name, collation)| {
                    let name = name.as_deref().unwrap_or("an expression").to_ascii_lowercase();
                    format!("{name} {}", collation.to_ascii_lowercase())
                })
                .collect();
            if is_partial || columns.iter().any(|(name, _)| name.is_none()) {
                let find = format!("SELECT sql FROM {schema}.sqlite_schema WHERE type = 'index' AND name = ?1");
                let sql: String = connection.query_row(&find, [&index], |row| row.get(0))?;
                shown.push(sql.split_whitespace().collect::<Vec<_>>().join(" ").to_ascii_lowercase());
            }
            self.unique.push(shown.join(", "));
        }
        self.unique.sort();
        Ok(())
    }

    /// What differs between this table and the `live` one, where that matters.
    pub(super) fn difference(&self, live: &Self) -> Option<String> {
        let ours = self.columns.iter().map(|column| column.name.as_str());
        let theirs = || live.columns.iter().map(|column| column.name.as_str());
        for (at, name) in ours.clone().enumerate() {
            match live.columns.get(at) {
                Some(column) if column.name.eq_ignore_ascii_case(name) => {}
                _ if theirs().any(|other| other.eq_ignore_ascii_case(name)) => {
                    return Some("its columns are in another order".to_owned());
                }
                _ => return Some(format!("it has no column {name}")),
            }
        }
        if let Some(column) = live.columns.get(self.columns.len()) {
            return Some(format!("it has a column {} more", column.name));
        }
        let differs = |(ours, theirs): &(&Column, &Column)| {
            (&ours.kind, ours.not_null, ours.in_key, ours.hidden)
                != (&theirs.kind, theirs.not_null, theirs.in_key, theirs.hidden)
        };
        if let Some((column, _)) = self.columns.iter().zip(&live.columns).find(differs) {
            return Some(format!("its column {} is of another kind", column.name));
        }
        if (self.without_rowid, self.is_strict) != (live.without_rowid, live.is_strict) {
            return Some("WITHOUT ROWID or STRICT".to_owned());
        }
        if self.unique != live.unique {
            return Some("what is unique in it".to_owned());
        }
        (self.compared_references() != live.compared_references()).then(|| "its foreign keys".to_owned())
    }

    fn compared_references(&self) -> Vec<String> {
        let shown = self.references.iter().map(|reference| {
            let columns = reference.columns.iter().map(|(from, to)| format!("{from}>{}", to.as_deref().unwrap_or("")));
            format!("{} {}", reference.parent, columns.collect::<Vec<_>>().join(",")).to_ascii_lowercase()
        });
        let mut shown: Vec<String> = shown.collect();
        shown.sort();
        shown
    }

    /// The columns whose values are stored.
    pub(super) fn stored(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| !column.is_generated())
    }

    /// The column called so, in whichever case.
    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name))
    }

    /// The column that is the row's number and the whole primary key.
    pub(super) fn number(&self) -> Option<&str> {
        match &self.key {
            Some(Key::Rowid(column)) => Some(column),
            _ => None,
        }
    }

    /// A name by which the row's number can be asked for, where it has one.
    pub(super) fn rowid(&self) -> Option<&str> {
        if self.without_rowid {
            return None;
        }
        let free = ["rowid", "_rowid_", "oid"].into_iter().find(|name| self.column(name).is_none());
        free.or(self.number())
    }

    /// The columns that a reference to this table leads to.
    pub(super) fn referred<'a>(&'a self, reference: &'a Reference) -> Option<Vec<(&'a str, &'a str)>> {
        let mut key: Vec<&Column> = self.columns.iter().filter(|column| column.in_key > 0).collect();
        key.sort_by_key(|column| column.in_key);
        let pairs = reference.columns.iter().enumerate().map(|(at, (from, to))| match to {
            Some(to) => Some((from.as_str(), self.column(to)?.name.as_str())),
            None => Some((from.as_str(), key.get(at)?.name.as_str())),
        });
        pairs.collect()
    }
}

fn references(connection: &Connection, schema: &str, table: &str) -> rusqlite::Result<Vec<Reference>> {
    let mut statement = connection
        .prepare("SELECT id, \"table\", \"from\", \"to\" FROM pragma_foreign_key_list(?1, ?2) ORDER BY id, seq")?;
    let rows = statement.query_map([table, schema], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?, row.get(3)?))
    })?;
    let mut found: Vec<(i64, Reference)> = Vec::new();
    for row in rows {
        let (id, parent, from, to) = row?;
        match found.last_mut() {
            Some((last, reference)) if *last == id => reference.columns.push((from, to)),
            _ => found.push((id, Reference { parent, columns: vec![(from, to)] })),
        }
    }
    Ok(found.into_iter().map(|(_, reference)| reference).collect())
}

/// A table of one side, as SQL names it.
pub(super) fn named(schema: &str, table: &str) -> String {
    format!("{schema}.{}", quoted(table))
}
