//! The rules of what is asked: health, checks after a restore, versions.

use std::path::PathBuf;

use serde_saphyr::Location;

use super::Checked;
use super::values::{absolute, argv, kind, period, quoted, status, url};
use crate::config::raw::{self, At, Wrong};
use crate::config::{Ask, Check, Expect, VersionFrom};
use crate::health::{self, HealthCheck};

/// What an answer is compared by; the longer ones first.
const COMPARISONS: &[&str] = &[">=", "<=", "!=", ">", "<", "="];

pub(super) fn health(check: At<raw::Health>) -> Checked<HealthCheck> {
    let (place, check) = (check.place, check.value);
    let kinds = [("http", check.http.is_some()), ("command", check.command.is_some())];
    kind(place, "a health check", &kinds)?;
    let timeout = period(check.timeout, health::TIMEOUT)?;
    let every = period(check.every, health::EVERY)?;
    if let Some(http) = check.http {
        let (url, token_file) = asked(http, check.token_file)?;
        return Ok(HealthCheck::Http { url, status: self::status(check.status)?, token_file, timeout, every });
    }
    if let Some(status) = check.status {
        return Err(Wrong::at(status.place, "a command has no status: exit code 0 is expected of it"));
    }
    refuse_without_http("token_file", check.token_file.map(|file| file.place))?;
    let command = check.command.ok_or_else(|| Wrong::at(place, "a health check has no kind"))?;
    Ok(HealthCheck::Command { command: argv(command)?, timeout, every })
}

/// `databases` are the names that `db` may be.
pub(super) fn after_restore(check: At<raw::AfterRestore>, databases: &[&str]) -> Checked<Check> {
    let (place, check) = (check.place, check.value);
    let kinds = [("http", check.http.is_some()), ("command", check.command.is_some()), ("sql", check.sql.is_some())];
    kind(place, "a check", &kinds)?;
    let timeout = period(check.timeout, health::TIMEOUT)?;
    let (sql, inner) = check.sql.map(|sql| parted(sql.value)).unzip();
    if let (Some(Some(inner)), Some(_)) = (&inner, &check.expect) {
        return Err(Wrong::at(inner.place, "`expect` stands twice, expected it in `sql` or beside it"));
    }
    let expect = check.expect.or(inner.flatten()).map(expected).transpose()?;
    if let Some(http) = check.http {
        let (url, token_file) = asked(http, check.token_file)?;
        let method = if check.method.is_some_and(|method| method.value == raw::Method::Post) { "POST" } else { "GET" };
        let ask = Ask::Http { url, method: method.to_owned(), status: self::status(check.status)?, token_file };
        return Ok(Check { ask, expect, timeout });
    }
    refuse_without_http("method", check.method.map(|method| method.place))?;
    refuse_without_http("status", check.status.map(|status| status.place))?;
    refuse_without_http("token_file", check.token_file.map(|file| file.place))?;
    let ask = match (check.command, sql) {
        (Some(command), _) => Ask::Command(argv(command)?),
        (None, Some(sql)) => {
            let (db, query) = self::sql(sql, databases)?;
            Ask::Sql { db, query }
        }
        (None, None) => return Err(Wrong::at(place, "a check has no kind")),
    };
    Ok(Check { ask, expect, timeout })
}

pub(super) fn version(version: At<raw::Version>, databases: &[&str]) -> Checked<VersionFrom> {
    let (place, version) = (version.place, version.value);
    let kinds =
        [("command", version.command.is_some()), ("sql", version.sql.is_some()), ("file", version.file.is_some())];
    kind(place, "a version", &kinds)?;
    match (version.command, version.sql, version.file) {
        (Some(command), _, _) => Ok(VersionFrom::Command(argv(command)?)),
        (_, Some(sql), _) => self::sql(sql.value, databases).map(|(db, query)| VersionFrom::Sql { db, query }),
        (_, _, Some(file)) => absolute(file).map(VersionFrom::File),
        _ => Err(Wrong::at(place, "a version has no kind")),
    }
}

/// A URL, and what is sent as a token. It cannot also be sent a password.
fn asked(http: At<String>, token_file: Option<At<String>>) -> Checked<(String, Option<PathBuf>)> {
    let url = url(http)?;
    let Some(file) = token_file else { return Ok((url, None)) };
    if health::has_password(&url) {
        return Err(Wrong::at(file.place, "the URL holds a password already, expected that or a `token_file`"));
    }
    Ok((url, Some(absolute(file)?)))
}

fn refuse_without_http(key: &str, place: Option<Location>) -> Checked<()> {
    match place {
        Some(place) => Err(Wrong::at(place, format!("`{key}` belongs to `http`, expected a check of that kind"))),
        None => Ok(()),
    }
}

/// The query, and what stands in it of its answer.
fn parted(asked: raw::Asked) -> (raw::Sql, Option<At<String>>) {
    (raw::Sql { db: asked.db, query: asked.query }, asked.expect)
}

fn sql(sql: raw::Sql, databases: &[&str]) -> Checked<(String, String)> {
    if !databases.contains(&sql.db.value.as_str()) {
        return Err(Wrong::at(sql.db.place, raw::unknown("database", &sql.db.value, databases)));
    }
    if sql.query.value.trim().is_empty() || sql.query.value.contains('\0') {
        return Err(Wrong::at(sql.query.place, "there is no query, expected one line of SQL"));
    }
    Ok((sql.db.value, sql.query.value))
}

fn expected(expect: At<String>) -> Checked<Expect> {
    let text = expect.value.trim();
    if text.is_empty() {
        return Err(Wrong::at(expect.place, "nothing is expected of the answer, expected a text such as `> 0`"));
    }
    if let Some(comparison) = COMPARISONS.iter().find(|comparison| text.starts_with(**comparison)) {
        let number = text[comparison.len()..].trim();
        if !number.parse::<f64>().is_ok_and(f64::is_finite) {
            let what = format!("{} is no number, expected one after `{comparison}`, as in `> 0`", quoted(number));
            return Err(Wrong::at(expect.place, what));
        }
    }
    if text == "contains" {
        return Err(Wrong::at(expect.place, "there is no text, expected one after `contains`"));
    }
    Ok(Expect(text.to_owned()))
}
