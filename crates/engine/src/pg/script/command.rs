//! Lines that speak to psql. Three of them are in honest dumps and change nothing
//! here; none is ever done.

/// Why a script with the command `line`, which begins with its backslash, must not
/// be restored; `None` if it may be skipped.
pub(super) fn refused(line: &[u8], database: &str) -> Option<String> {
    let rest = line.get(1..).unwrap_or_default();
    let end = rest.iter().position(|byte| byte.is_ascii_whitespace() || *byte == b'\\').unwrap_or(rest.len());
    let (name, arguments) = rest.split_at(end);
    let called = format!("\\{}", super::shown(name));
    match name {
        b"restrict" | b"unrestrict" if is_token(arguments.trim_ascii()) => None,
        b"restrict" | b"unrestrict" => Some(format!("{called} with something other than a token")),
        b"c" | b"connect" => match connects_to(arguments.trim_ascii()) {
            Some(to) if to == database.as_bytes() => None,
            Some(to) => Some(format!("{called} to the database {}", super::shown(&to))),
            None => Some(format!("{called} to something other than a database of the same server")),
        },
        _ => Some(called),
    }
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_alphanumeric)
}

/// The database that `\connect` means; `None` where it means anything else too, such
/// as another user or host. pg_dump writes a plain name, or
/// `-reuse-previous=on "dbname='...'"`.
fn connects_to(arguments: &[u8]) -> Option<Vec<u8>> {
    match arguments.strip_prefix(b"-reuse-previous=on") {
        None => argument(arguments),
        Some(rest) => {
            let connection = argument(rest.trim_ascii_start())?;
            value(connection.strip_prefix(b"dbname=")?)
        }
    }
}

/// The only argument, without its quotes.
fn argument(text: &[u8]) -> Option<Vec<u8>> {
    let quote = *text.first()?;
    if quote != b'"' && quote != b'\'' {
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte) || *byte >= 0x80;
        return (quote != b'-' && text.iter().all(is_plain)).then(|| text.to_vec());
    }
    // In single quotes, psql knows escapes as in C.
    if quote == b'\'' && text.contains(&b'\\') {
        return None;
    }
    let (mut name, mut bytes) = (Vec::new(), text[1..].iter().peekable());
    loop {
        let byte = *bytes.next()?;
        if byte == quote && bytes.next_if(|next| **next == quote).is_none() {
            return bytes.next().is_none().then_some(name);
        }
        name.push(byte);
    }
}

/// A value of a connection string that is its last: plain, or in single quotes with backslashes.
fn value(text: &[u8]) -> Option<Vec<u8>> {
    let Some(quoted) = text.strip_prefix(b"'") else {
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.".contains(byte);
        return (!text.is_empty() && text.iter().all(is_plain)).then(|| text.to_vec());
    };
    let (mut value, mut bytes) = (Vec::new(), quoted.iter());
    loop {
        match bytes.next()? {
            b'\'' => return bytes.next().is_none().then_some(value),
            b'\\' => value.push(*bytes.next()?),
            byte => value.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::refused;

    #[test]
    fn honest_commands_are_skipped() {
        for line in [
            r"\restrict aB3",
            r"\unrestrict aB3 ",
            r#"\connect "o'x""#,
            r#"\c "o'x""#,
            r#"\connect -reuse-previous=on "dbname='o\'x'""#,
        ] {
            assert_eq!(refused(line.as_bytes(), "o'x"), None, "{line}");
        }
        for line in [r"\connect nmia", r"\c nmia", r"\c 'nmia'", r#"\connect -reuse-previous=on "dbname=nmia""#] {
            assert_eq!(refused(line.as_bytes(), "nmia"), None, "{line}");
        }
        assert_eq!(refused(br#"\connect -reuse-previous=on "dbname='a ""b'""#, r#"a "b"#), None);
        assert_eq!(refused(br#"\connect -reuse-previous=on "dbname='a\\b'""#, r"a\b"), None);
    }

    #[test]
    fn others_are_named() {
        for (line, what) in [
            (r"\! id", r"\!"),
            (r"\!id", r"\!id"),
            (r"\copy t from 'x'", r"\copy"),
            (r"\o|sh", r"\o|sh"),
            (r"\", r"\"),
            (r"\restrict", r"\restrict with something other than a token"),
            (r"\restrict x\! id", r"\restrict with something other than a token"),
            (r"\unrestrict x \! id", r"\unrestrict with something other than a token"),
            (r"\connect", r"\connect to something other than a database of the same server"),
            (r"\connect nmia root", r"\connect to something other than a database of the same server"),
            (r"\connect -", r"\connect to something other than a database of the same server"),
            (r"\connect other", r"\connect to the database other"),
            (r"\connect `id`", r"\connect to something other than a database of the same server"),
            (r"\connect :x", r"\connect to something other than a database of the same server"),
            (r"\connect nmia\! id", r"\connect to something other than a database of the same server"),
            (r"\connect nmia;", r"\connect to something other than a database of the same server"),
            (r#"\connect "nmia" "root""#, r"\connect to something other than a database of the same server"),
            (r#"\connect "nmia"#, r"\connect to something other than a database of the same server"),
            (r"\connect 'n\155ia'", r"\connect to something other than a database of the same server"),
            (
                r#"\connect -reuse-previous=on "dbname='nmia' host='h'""#,
                r"\connect to something other than a database of the same server",
            ),
            (r"\connect -reuse-previous=off nmia", r"\connect to something other than a database of the same server"),
            (r"\connect postgres://h/nmia", r"\connect to something other than a database of the same server"),
            (r"\connect host=h", r"\connect to something other than a database of the same server"),
            (r#"\connect "dbname=nmia host=h""#, r"\connect to the database dbname=nmia host=h"),
        ] {
            assert_eq!(refused(line.as_bytes(), "nmia").as_deref(), Some(what), "{line}");
        }
    }
}
