//! What a statement is, as far as it is not simply sent to the server.

use super::statement::{Kind, Statement};

/// What is done with a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Send,
    /// It is sent, and lines of data follow in the script.
    SendWithData,
    /// It makes, drops or describes the database itself, which is there already.
    Skip,
    /// Why it must not be sent.
    Refuse(String),
}

/// Judges a statement of a script that was made from `database`.
pub(super) fn judge(statement: &Statement, database: &str) -> Verdict {
    if statement.is_word(0, "copy") {
        return copies(statement);
    }
    let names = databases(statement);
    if names.is_empty() {
        return Verdict::Send;
    }
    match names.iter().find(|name| name.as_slice() != database.as_bytes()) {
        None => Verdict::Skip,
        Some(other) => Verdict::Refuse(format!("a statement about the database {}", super::shown(other))),
    }
}

fn copies(statement: &Statement) -> Verdict {
    let Some(from) = (2..statement.tokens()).find(|index| statement.is_word(*index, "from")) else {
        return Verdict::Refuse("COPY that reads out of the database".to_owned());
    };
    // The server takes STDOUT for the same.
    if statement.is_word(from + 1, "stdin") || statement.is_word(from + 1, "stdout") {
        Verdict::SendWithData
    } else if statement.is_word(from + 1, "program") {
        Verdict::Refuse("COPY from a program on the server".to_owned())
    } else {
        Verdict::Refuse("COPY from a file of the server".to_owned())
    }
}

/// The databases that the statement is about.
fn databases(statement: &Statement) -> Vec<Vec<u8>> {
    let first = |words: &[&str]| words.iter().any(|word| statement.is_word(0, word));
    let is_after = |index: usize, words: &[&str]| words.iter().any(|word| statement.is_word(index, word));
    let found = if first(&["create", "drop", "alter"]) && statement.is_word(1, "database") {
        Some(1)
    } else if first(&["comment", "grant", "revoke", "security", "alter"]) {
        let place = |index: &usize| statement.is_word(*index, "database") && is_after(index - 1, &["on", "in"]);
        (2..statement.tokens()).find(place)
    } else {
        None
    };
    let Some(found) = found else { return Vec::new() };
    let mut next = found + 1;
    if statement.is_word(0, "drop") && statement.is_word(next, "if") {
        next += 2;
    }
    let mut names = Vec::new();
    // A table may be called `database`: then no name follows.
    while let Some(name) = name(statement, next).filter(|_| !is_after(next, &["to", "from", "is"])) {
        names.push(name);
        match statement.token(next + 1) {
            Some((Kind::Other, b",")) => next += 2,
            _ => break,
        }
    }
    names
}

/// The name that a token stands for.
fn name(statement: &Statement, index: usize) -> Option<Vec<u8>> {
    match statement.token(index)? {
        (Kind::Word, text) => Some(text.to_ascii_lowercase()),
        (Kind::Name, text) => Some(unquoted(text)),
        _ => None,
    }
}

/// What is in quotes, which are doubled inside.
fn unquoted(text: &[u8]) -> Vec<u8> {
    let Some((quote, rest)) = text.split_first() else { return Vec::new() };
    let inner = rest.strip_suffix(&[*quote]).unwrap_or(rest);
    let mut bytes = Vec::with_capacity(inner.len());
    let mut is_second = false;
    for byte in inner {
        is_second = byte == quote && !is_second;
        if !is_second {
            bytes.push(*byte);
        }
    }
    bytes
}

/// The setting that a statement `SET` sets, and to what, in small letters.
pub(super) fn setting(statement: &Statement) -> Option<(String, String)> {
    if !statement.is_word(0, "set") {
        return None;
    }
    let skipped = usize::from(statement.is_word(1, "session") || statement.is_word(1, "local"));
    let (at, names_encoding) = (1 + skipped, statement.is_word(1 + skipped, "names"));
    let setting = if names_encoding { b"client_encoding".to_vec() } else { name(statement, at)? };
    let is_equal = statement.is_word(at + 1, "to") || matches!(statement.token(at + 1), Some((Kind::Other, b"=")));
    let value = match statement.token(if names_encoding { at + 1 } else { at + 2 })? {
        (Kind::Text, text) if text.starts_with(b"'") => unquoted(text),
        (Kind::Name, text) => unquoted(text),
        (_, text) => text.to_vec(),
    };
    let small = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_ascii_lowercase();
    (names_encoding || is_equal).then(|| (small(&setting), small(&value)))
}

/// What `standard_conforming_strings` is after the statement, if it sets that.
pub(super) fn sets_plain_strings(statement: &Statement) -> Option<bool> {
    let (name, value) = setting(statement)?;
    // The server takes every beginning of these words that means one thing.
    let is_off = value == "0" || value.starts_with(['f', 'n']) || value.starts_with("of");
    (name == "standard_conforming_strings").then_some(!is_off)
}
