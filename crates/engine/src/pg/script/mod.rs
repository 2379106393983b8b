//! Restoring a plain SQL dump over the connection, never through psql: a script
//! that psql reads can start programs on this host.
//!
//! The script is split into statements and the data of COPY, as psql would split
//! it, and each is sent by itself. What speaks to psql is skipped where an honest
//! dump has it, and refused otherwise. Splitting is no wall: whoever wrote the
//! script may fool it. The wall is that the server does what it says with the
//! rights of a role that is no superuser, see [`run`].

use std::borrow::Cow;
use std::io::{Read, Write as _};

use lifeboat_format::path::shown;
use lifeboat_store::Cancel;
use postgres::Client;
use postgres::error::SqlState;
use postgres::types::ToSql;

use super::facts::RUNS_PROGRAMS;
use crate::{Error, ErrorKind, Result};

mod closing;
mod command;
mod input;
mod rules;
mod splitter;
mod statement;
#[cfg(test)]
mod tests;

pub(crate) use closing::Closing;
use splitter::{Piece, Splitter};
use statement::Statement;

pub(crate) use splitter::Outline;

/// How much of a statement stands in an error, in characters.
const EXCERPT_CHARACTERS: usize = 200;

/// Encodings in which a byte of ASCII may be part of another character.
const NOT_ASCII_SAFE: [&str; 7] = ["BIG5", "GB18030", "GBK", "JOHAB", "SHIFT_JIS_2004", "SJIS", "UHC"];

/// Reads a whole script without sending any of it.
#[cfg(test)]
fn inspect(script: &mut dyn Read, database: &str, cancel: &Cancel) -> Result<Outline> {
    let mut splitter = Splitter::new(script, database, cancel);
    while splitter.next()?.is_some() {}
    Ok(splitter.outline())
}

/// Runs a script. `database` is the name that the database had where the script was
/// made; what makes, drops or describes a database of that name is skipped, as the
/// one that `client` is connected to is another, which is there already. `progress`
/// is told how many bytes of the script are done.
///
/// There is no transaction but that of the caller; a script with large objects has
/// COMMIT in it.
///
/// # Errors
/// [`ErrorKind::Unsafe`] for a command for psql, a COPY from a file or a program, a
/// statement about another database, and where `client` has, or can take back,
/// the rights of a superuser; [`ErrorKind::Corrupt`] where the script ends too early;
/// [`ErrorKind::Cancelled`]; [`ErrorKind::Failed`] with what the server says.
pub(crate) fn run(
    client: &mut Client,
    script: &mut dyn Read,
    database: &str,
    cancel: &Cancel,
    progress: &mut dyn FnMut(u64),
) -> Result<Outline> {
    refuse_superuser(client)?;
    send(client, script, database, false, cancel, progress)
}

/// Runs what pg_restore made of a dump, inside the transaction of the caller: what
/// begins and ends transactions in it is skipped. It may be run with any rights, as
/// pg_restore itself would do it.
///
/// # Errors
/// As [`run`]; then the transaction of the caller is to be taken back.
pub(crate) fn run_inside(client: &mut Client, script: &mut dyn Read, database: &str, cancel: &Cancel) -> Result<()> {
    let number = "SELECT pg_catalog.txid_current()";
    let transaction = |client: &mut Client| -> Result<i64> {
        client.query_one(number, &[]).and_then(|row| row.try_get(0)).map_err(|error| asked(&error))
    };
    let before = transaction(client)?;
    send(client, script, database, true, cancel, &mut |_| {})?;
    if transaction(client)? == before {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unsafe, "the dump ended the transaction that it was restored in"))
}

fn send(
    client: &mut Client,
    script: &mut dyn Read,
    database: &str,
    is_inside: bool,
    cancel: &Cancel,
    progress: &mut dyn FnMut(u64),
) -> Result<Outline> {
    let mut splitter = Splitter::new(script, database, cancel);
    splitter.set_plain_strings(show(client, "standard_conforming_strings")? == "on");
    let mut session = Session { client, cancel, encoding: "UTF8".to_owned() };
    loop {
        cancel.check()?;
        match splitter.next()? {
            Some(Piece::Statement(statement)) if is_inside && is_of_transaction(statement) => {}
            Some(Piece::Statement(statement)) => session.execute(statement)?,
            Some(Piece::Copy(statement)) => {
                let copy = Sent { line: statement.line(), text: Cow::Owned(statement.text().to_vec()) };
                session.copy(&copy, &mut splitter, progress)?;
            }
            Some(Piece::Data(_) | Piece::End) | None => break,
        }
        progress(splitter.taken());
    }
    Ok(splitter.outline())
}

/// Whether it is `BEGIN` or `COMMIT`, which pg_restore writes around large objects.
fn is_of_transaction(statement: &Statement) -> bool {
    statement.tokens() == 1 && (statement.is_word(0, "begin") || statement.is_word(0, "commit"))
}

/// `SET ROLE` and `SET SESSION AUTHORIZATION` can be undone by the script, so that who
/// logged in counts as well. `pg_stat_activity` has that.
fn refuse_superuser(client: &mut Client) -> Result<()> {
    let query = format!(
        "SELECT r.rolname FROM pg_catalog.pg_roles r
        WHERE (r.oid = (SELECT a.usesysid FROM pg_catalog.pg_stat_activity a WHERE a.pid = pg_catalog.pg_backend_pid())
            OR r.rolname IN (session_user, current_user))
          AND EXISTS (SELECT 1 FROM pg_catalog.pg_roles p
            WHERE {RUNS_PROGRAMS} AND pg_catalog.pg_has_role(r.oid, p.oid, 'MEMBER'))"
    );
    let found = client.query(&query, &[]).map_err(|error| asked(&error))?;
    let Some(row) = found.first() else { return Ok(()) };
    let role: String = row.try_get(0).map_err(|error| asked(&error))?;
    let role = shown(role.as_bytes());
    let what = format!("an SQL script would run with the rights of {role}, who can run programs on the server");
    Err(Error::new(ErrorKind::Unsafe, what)
        .next("Please restore it as a role that is no superuser, such as the owner of the database"))
}

fn show(client: &mut Client, setting: &str) -> Result<String> {
    let row = client.query_one("SELECT pg_catalog.current_setting($1)", &[&setting]).map_err(|error| asked(&error))?;
    row.try_get(0).map_err(|error| asked(&error))
}

fn asked(error: &postgres::Error) -> Error {
    Error::new(ErrorKind::Failed, format!("cannot ask the server: {}", said(error)))
}

/// A statement, and where it stands.
struct Sent<'a> {
    line: u64,
    text: Cow<'a, [u8]>,
}

/// The connection, as the script has set it.
struct Session<'a> {
    client: &'a mut Client,
    cancel: &'a Cancel,
    /// What the script is written in. The connection itself stays at UTF-8, in which
    /// alone the server's messages are understood; only data is sent as it is.
    encoding: String,
}

impl Session<'_> {
    fn execute(&mut self, statement: &Statement) -> Result<()> {
        let sent = Sent { line: statement.line(), text: Cow::Borrowed(statement.text()) };
        let setting = rules::setting(statement).map(|(name, _)| name).unwrap_or_default();
        if setting == "transaction_timeout" && self.lacks(&setting)? {
            // pg_dump 17 writes it for every server; it is about the session only.
            return Ok(());
        }
        self.send(&sent.text).map_err(|error| failed(&sent, &error, self.cancel))?;
        if setting == "client_encoding" {
            self.encoding = show(self.client, &setting)?;
            if NOT_ASCII_SAFE.contains(&self.encoding.as_str()) {
                let what = format!("line {}: a script in {} cannot be read safely", sent.line, self.encoding);
                return Err(Error::new(ErrorKind::Unsupported, what)
                    .next("Please make the dump with --encoding=UTF8, or in the custom format"));
            }
            self.speak("UTF8")?;
        }
        Ok(())
    }

    /// Whether the server has no such setting.
    fn lacks(&mut self, setting: &str) -> Result<bool> {
        let query = "SELECT pg_catalog.current_setting($1, true) IS NULL";
        let row = self.client.query_one(query, &[&setting]).map_err(|error| asked(&error))?;
        row.try_get(0).map_err(|error| asked(&error))
    }

    fn speak(&mut self, encoding: &str) -> Result<()> {
        let set = format!("SET client_encoding = '{encoding}'");
        self.client.batch_execute(&set).map_err(|error| asked(&error))
    }

    /// Sends a statement. What is not UTF-8 goes as its bytes, for the server to read
    /// in the encoding of the script.
    fn send(&mut self, text: &[u8]) -> std::result::Result<(), postgres::Error> {
        match std::str::from_utf8(text) {
            Ok(plain) if self.encoding == "UTF8" || text.is_ascii() => self.client.batch_execute(plain),
            _ => {
                let (hex, encoding) = (hex::encode(text), &self.encoding);
                let decoded = format!("pg_catalog.convert_from(pg_catalog.decode('{hex}', 'hex'), '{encoding}')");
                self.client.batch_execute(&format!("DO $lifeboat$BEGIN EXECUTE {decoded}; END$lifeboat$"))
            }
        }
    }

    /// Sends a COPY and the data that follows it.
    fn copy(&mut self, copy: &Sent<'_>, splitter: &mut Splitter<'_>, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let text = self.readable(copy)?;
        let prepared = self.client.prepare(&text).map_err(|error| failed(copy, &error, self.cancel))?;
        if self.encoding == "UTF8" {
            return self.copy_data(&prepared, copy, splitter, progress);
        }
        self.speak(&self.encoding.clone())?;
        let copied = self.copy_data(&prepared, copy, splitter, progress);
        let set_back = self.speak("UTF8");
        copied.and(set_back)
    }

    /// The text of a COPY, which the server reads in the encoding of the script where that is another.
    fn readable(&mut self, copy: &Sent<'_>) -> Result<String> {
        match String::from_utf8(copy.text.to_vec()) {
            Ok(text) if self.encoding == "UTF8" || text.is_ascii() => Ok(text),
            _ => {
                let convert = "SELECT pg_catalog.convert_from($1, $2)";
                let parameters: [&(dyn ToSql + Sync); 2] = [&copy.text.as_ref(), &self.encoding];
                let row = self.client.query_one(convert, &parameters);
                row.and_then(|row| row.try_get(0)).map_err(|error| failed(copy, &error, self.cancel))
            }
        }
    }

    fn copy_data(
        &mut self,
        prepared: &postgres::Statement,
        copy: &Sent<'_>,
        splitter: &mut Splitter<'_>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut writer = self.client.copy_in(prepared).map_err(|error| failed(copy, &error, self.cancel))?;
        // A writer that is dropped before it is finished aborts the COPY.
        while let Some(Piece::Data(data)) = splitter.next()? {
            writer.write_all(data).map_err(|error| match error.get_ref().and_then(|inner| inner.downcast_ref()) {
                Some(error) => failed(copy, error, self.cancel),
                None => Error::new(ErrorKind::Failed, format!("line {}: {error}", copy.line)),
            })?;
            self.cancel.check()?;
            progress(splitter.taken());
        }
        writer.finish().map_err(|error| failed(copy, &error, self.cancel))?;
        Ok(())
    }
}

/// The error for what was sent, and failed.
fn failed(sent: &Sent<'_>, error: &postgres::Error, cancel: &Cancel) -> Error {
    if cancel.is_set() && error.code() == Some(&SqlState::QUERY_CANCELED) {
        return Error::new(ErrorKind::Cancelled, "stopped on request");
    }
    let statement = excerpt(&sent.text, EXCERPT_CHARACTERS);
    Error::new(ErrorKind::Failed, format!("line {}: {}; the statement: {statement}", sent.line, said(error)))
}

/// What the server says, or what came between.
fn said(error: &postgres::Error) -> String {
    let Some(told) = error.as_db_error() else {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
        return error.to_string() + &cause.unwrap_or_default();
    };
    let mut said = shown(told.message().as_bytes());
    for (label, more) in [("", told.detail()), ("at: ", told.where_())] {
        if let Some(more) = more {
            said.push_str(&format!(" ({label}{})", excerpt(more.as_bytes(), EXCERPT_CHARACTERS)));
        }
    }
    said
}

/// The beginning of a text, in one line.
fn excerpt(text: &[u8], characters: usize) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(4 * characters)]);
    let beginning: String = text.chars().take(characters).collect();
    shown(beginning.as_bytes())
}
