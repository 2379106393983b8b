//! Virtual tables. An index of words over another table is made anew by its own
//! command; one that keeps its content itself cannot be merged, and is refused
//! where it would be wrong afterwards.

use super::{Both, Merged, MergedTable, named_main, quoted, refused};
use crate::{Cancel, Result, tables};

/// What a virtual table shows.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// The words of another table or view.
    Of(String),
    /// What it keeps itself.
    Own,
    /// What another index holds; there is nothing to do.
    Derived,
}

/// Notes what is to be made anew and what stays, or refuses.
pub(super) fn look(both: &Both<'_>, chosen: &[MergedTable], merged: &mut Merged) -> Result<()> {
    let patterns = &both.wanted.tables;
    for (name, sql) in &both.live.virtuals {
        match kind(sql) {
            Kind::Derived => {}
            Kind::Of(content) => {
                let is_merged = chosen.iter().any(|table| table.table.eq_ignore_ascii_case(&content));
                if is_merged || both.live.table(&content).is_none() {
                    merged.rebuilt.push(name.clone());
                }
            }
            Kind::Own if patterns.is_empty() || patterns.iter().any(|pattern| tables::matches(pattern, name)) => {
                let what = "it is a virtual table that keeps its content itself";
                return Err(refused(name, what, "name the tables that are to be merged with --tables, without it"));
            }
            Kind::Own => merged.left_alone.push(name.clone()),
        }
    }
    Ok(())
}

/// Makes the indexes anew that [`look`] has noted.
pub(super) fn rebuild(both: &Both<'_>, merged: &mut Merged, cancel: &Cancel) -> Result<()> {
    for name in &merged.rebuilt {
        cancel.check()?;
        let rebuild = format!("INSERT INTO {}({}) VALUES ('rebuild')", named_main(name), quoted(name));
        both.connection.execute_batch(&rebuild).map_err(|error| {
            let what = format!("its index cannot be made anew: {error}");
            refused(name, &what, "restore the whole database with --mode overwrite")
        })?;
    }
    Ok(())
}

/// What the table is that `sql` makes: `CREATE VIRTUAL TABLE name USING module(argument, …)`.
fn kind(sql: &str) -> Kind {
    let words = words(sql);
    let Some(using) = words.iter().position(|word| word.eq_ignore_ascii_case("using")) else { return Kind::Own };
    let module = words.get(using + 1).map(|module| module.to_ascii_lowercase()).unwrap_or_default();
    match module.as_str() {
        "fts5vocab" | "fts4aux" | "dbstat" => return Kind::Derived,
        "fts5" | "fts4" => {}
        _ => return Kind::Own,
    }
    let mut content = words[using..].windows(4).filter(|window| {
        matches!(window[0].as_str(), "(" | ",") && window[1].eq_ignore_ascii_case("content") && window[2] == "="
    });
    match content.next().map(|window| unquoted(&window[3])) {
        Some(content) if !content.is_empty() => Kind::Of(content),
        _ => Kind::Own,
    }
}

/// The words and signs of a statement; what is quoted is one.
fn words(sql: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut letters = sql.chars().peekable();
    let mut is_open = false;
    while let Some(letter) = letters.next() {
        let end = match letter {
            '"' | '\'' | '`' => Some(letter),
            '[' => Some(']'),
            _ => None,
        };
        if let Some(end) = end {
            let mut word = String::from(letter);
            while let Some(next) = letters.next() {
                word.push(next);
                if next == end && letters.peek() == Some(&end) && end != ']' {
                    word.extend(letters.next());
                } else if next == end {
                    break;
                }
            }
            words.push(word);
            is_open = false;
        } else if letter.is_alphanumeric() || letter == '_' || !letter.is_ascii() {
            match words.last_mut().filter(|_| is_open) {
                Some(word) => word.push(letter),
                None => words.push(letter.to_string()),
            }
            is_open = true;
        } else {
            is_open = false;
            if !letter.is_whitespace() {
                words.push(letter.to_string());
            }
        }
    }
    words
}

fn unquoted(word: &str) -> String {
    let quote = word.chars().next().filter(|quote| "\"'`[".contains(*quote));
    let Some(quote) = quote else { return word.to_owned() };
    let inner = word[1..].strip_suffix(if quote == '[' { ']' } else { quote }).unwrap_or(&word[1..]);
    inner.replace(&format!("{quote}{quote}"), &quote.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_index_of_words_is_over_is_read_from_the_statement_that_made_it() {
        for (sql, expected) in [
            ("CREATE VIRTUAL TABLE a USING fts5(x, content='docs', content_rowid='id')", Kind::Of("docs".into())),
            (
                "CREATE VIRTUAL TABLE \"a using\" USING FTS4(x, content=\"my \"\"docs\", tokenize=porter)",
                Kind::Of("my \"docs".into()),
            ),
            ("CREATE VIRTUAL TABLE a USING fts5(content, content=[docs])", Kind::Of("docs".into())),
            ("CREATE VIRTUAL TABLE a USING fts5(content, body)", Kind::Own),
            ("CREATE VIRTUAL TABLE a USING fts5(x, content='')", Kind::Own),
            ("CREATE VIRTUAL TABLE a USING rtree(id, x0, x1)", Kind::Own),
            ("CREATE VIRTUAL TABLE a USING fts5vocab(b, row)", Kind::Derived),
        ] {
            assert_eq!(kind(sql), expected, "{sql}");
        }
    }
}
