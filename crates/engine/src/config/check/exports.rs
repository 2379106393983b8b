//! The rules of `exports` and `secret_columns`.

use std::collections::BTreeMap;

use super::Checked;
use super::values::{name, quoted};
use crate::config::export::database_of;
use crate::config::raw::{self, At, Named, Wrong};
use crate::config::{Export, SecretColumn, Source};

const COLUMN_EXPECTED: &str =
    "expected TABLE.COLUMN or SCHEMA.TABLE.COLUMN, names with capital letters in double quotes";

pub(super) fn exports(
    found: Named<raw::Export>,
    sources: &BTreeMap<String, Source>,
) -> Checked<BTreeMap<String, Export>> {
    let mut exports = BTreeMap::new();
    for (name, export) in found.0 {
        let name = self::name(name)?.value;
        let raw::Export { db, query } = export;
        let (source, database) = self::database(&db, &db.value, sources)?;
        if query.value.trim().is_empty() || query.value.contains('\0') {
            return Err(Wrong::at(query.place, "there is no query, expected one SELECT"));
        }
        exports.insert(name, Export { source, database, query: query.value });
    }
    Ok(exports)
}

fn database(at: &At<String>, name: &str, sources: &BTreeMap<String, Source>) -> Checked<(String, String)> {
    if matches!(sources.get(name), Some(Source::Sqlite(_))) {
        let what = format!("{} is a SQLite database, expected one of a `postgres` source", quoted(name));
        return Err(Wrong::at(at.place, what));
    }
    database_of(name, sources).ok_or_else(|| {
        let known = super::databases(sources);
        let known = known.keys().map(String::as_str);
        let known: Vec<&str> = known.filter(|known| database_of(known, sources).is_some()).collect();
        Wrong::at(at.place, raw::unknown("database", name, &known))
    })
}

pub(super) fn secret_columns(found: Vec<At<String>>, sources: &BTreeMap<String, Source>) -> Checked<Vec<SecretColumn>> {
    let mut columns: Vec<SecretColumn> = Vec::new();
    for text in found {
        let column = self::secret_column(&text, sources)?;
        if columns.contains(&column) {
            return Err(Wrong::at(text.place, format!("{} stands twice, expected it once", quoted(&text.value))));
        }
        columns.push(column);
    }
    Ok(columns)
}

fn secret_column(text: &At<String>, sources: &BTreeMap<String, Source>) -> Checked<SecretColumn> {
    let (db, column) = match outside_quotes(&text.value, '/').last() {
        Some(at) => (Some(&text.value[..*at]), &text.value[at + 1..]),
        None => (None, text.value.as_str()),
    };
    let database = db.map(|db| self::database(text, db, sources)).transpose()?;
    let wrong = || Wrong::at(text.place, format!("{} is no column, {COLUMN_EXPECTED}", quoted(&text.value)));
    let mut names = identifiers(column).ok_or_else(wrong)?;
    let schema = if names.len() == 3 { Some(names.remove(0)) } else { None };
    let [table, column] = <[String; 2]>::try_from(names).map_err(|_| wrong())?;
    Ok(SecretColumn { text: text.value.clone(), database, schema, table, column })
}

/// Where `wanted` stands in `text` outside of double quotes.
fn outside_quotes(text: &str, wanted: char) -> Vec<usize> {
    let mut is_quoted = false;
    let places = text.char_indices().filter(|(_, letter)| {
        is_quoted ^= *letter == '"';
        *letter == wanted && !is_quoted
    });
    places.map(|(at, _)| at).collect()
}

/// Names with dots between them, as SQL reads them: without quotes, capital
/// letters are small ones.
fn identifiers(text: &str) -> Option<Vec<String>> {
    let ends = outside_quotes(text, '.').into_iter().chain([text.len()]);
    let mut begin = 0;
    let parts = ends.map(|end| {
        let part = &text[begin..end];
        begin = end + 1;
        identifier(part)
    });
    parts.collect()
}

fn identifier(text: &str) -> Option<String> {
    let name = match text.strip_prefix('"') {
        Some(rest) => {
            let inner = rest.strip_suffix('"')?;
            // Each quote within is written twice.
            let plain = inner.replace("\"\"", "");
            if plain.contains('"') { None } else { Some(inner.replace("\"\"", "\"")) }
        }
        None if text.contains(|c: char| c.is_whitespace() || c == '"') => None,
        None => Some(text.to_ascii_lowercase()),
    };
    name.filter(|name| !name.is_empty() && !name.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows D10.
    #[test]
    fn names_are_read_as_sql_reads_them() {
        let names = |text: &str| identifiers(text).unwrap_or_default();
        assert_eq!(names("Connectors.Config"), ["connectors", "config"]);
        assert_eq!(names("public.\"My.Table\".\"a \"\"b\"\"\""), ["public", "My.Table", "a \"b\""]);
        for wrong in ["", "a.", ".a", "a b.c", "\"a.b", "a\".b", "\"\".a", "a\"b\".c", "\"a\"b\".c"] {
            assert_eq!(identifiers(wrong), None, "{wrong}");
        }
    }
}
