//! What must hold of an application's data once it runs again: an answer over
//! HTTP, what a program says, what a query finds. Asked once each, after the
//! health checks have passed. What follows from the answer is the caller's
//! business.

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_format::path::shown;

use crate::config::{Ask, Check, Expect, Queried};
use crate::exec::{Tool, command_line};
use crate::health::HealthCheck;
use crate::{Cancel, Error, ErrorKind, Result, health};

/// How much of an answer stands in a message.
const SHOWN_MAX: usize = 120;

/// Asks every check; `databases` are those that one may name.
///
/// # Errors
/// The first that does not hold, with what was answered; or on cancel.
pub(crate) fn all_hold(checks: &[Check], databases: &BTreeMap<String, Queried>, cancel: &Cancel) -> Result<()> {
    for check in checks {
        cancel.check()?;
        let failed = |why: String| {
            Error::new(ErrorKind::Failed, format!("the check {} failed: {why}", name(&check.ask))).next(
                "see what the data should be, and the log of the app; `after_restore` in lifeboat.yaml has the check",
            )
        };
        let answer = ask(&check.ask, check.timeout, databases, cancel).map_err(|error| match error.kind() {
            ErrorKind::Cancelled => error,
            _ => failed(error.to_string()),
        })?;
        if let Some(expect) = &check.expect {
            holds(expect, answer.trim()).map_err(failed)?;
        }
    }
    Ok(())
}

/// Whether these can hold only while the app runs.
pub(crate) fn ask_the_app(health: &[HealthCheck], checks: &[Check]) -> bool {
    !health.is_empty() || checks.iter().any(|check| matches!(check.ask, Ask::Http { .. }))
}

/// The check as people know it, without a password.
fn name(ask: &Ask) -> String {
    match ask {
        Ask::Http { url, method, .. } => format!("{method} {}", health::without_password(url)),
        Ask::Command(argv) => command_line(argv),
        Ask::Sql { db, query } => format!("of {db}: {}", shown(query.as_bytes())),
    }
}

fn ask(ask: &Ask, timeout: Duration, databases: &BTreeMap<String, Queried>, cancel: &Cancel) -> Result<String> {
    match ask {
        Ask::Http { url, method, status, token_file } => {
            let answer = health::answer(url, method, token_file.as_deref(), timeout);
            let (found, body) = answer.map_err(|why| Error::new(ErrorKind::Failed, why))?;
            if found != *status {
                return Err(Error::new(ErrorKind::Failed, format!("it answered {found}, expected {status}")));
            }
            Ok(body)
        }
        Ask::Command(argv) => {
            let ended = Tool::new(argv, timeout).run(Some(cancel))?;
            if ended.is_success() {
                Ok(ended.said().to_owned())
            } else {
                Err(Error::new(ErrorKind::Failed, ended.describe()))
            }
        }
        Ask::Sql { db, query } => {
            let database = databases.get(db).ok_or_else(|| {
                Error::new(ErrorKind::Failed, format!("the database {db} is not among what was restored"))
            })?;
            let value = database.value(query, timeout, cancel)?;
            value.ok_or_else(|| Error::new(ErrorKind::Failed, "the query found nothing"))
        }
    }
}

/// Whether `answer` is what is expected; otherwise why not.
fn holds(expect: &Expect, answer: &str) -> std::result::Result<(), String> {
    let text = expect.0.trim();
    let short: String = answer.chars().take(SHOWN_MAX).collect();
    let wrong = || Err(format!("it answered `{}`, expected {text}", shown(short.as_bytes())));
    if let Some(part) = text.strip_prefix("contains ") {
        return if answer.contains(part.trim()) { Ok(()) } else { wrong() };
    }
    // The longer ones first: `>=` begins with `>`.
    for operator in [">=", "<=", "!=", ">", "<", "="] {
        let Some(number) = text.strip_prefix(operator).and_then(|rest| rest.trim().parse::<f64>().ok()) else {
            continue;
        };
        let Ok(found) = answer.parse::<f64>() else { return wrong() };
        let does_hold = match operator {
            ">=" => found >= number,
            "<=" => found <= number,
            ">" => found > number,
            "<" => found < number,
            // Counts, not measurements: what is written is what is meant.
            "!=" => (found - number).abs() > f64::EPSILON,
            _ => (found - number).abs() <= f64::EPSILON,
        };
        return if does_hold { Ok(()) } else { wrong() };
    }
    if answer == text { Ok(()) } else { wrong() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows P1.
    #[test]
    fn answers_are_held_against_numbers_and_texts() {
        for (expect, answer, does_hold) in [
            ("> 0", "1", true),
            ("> 0", "0", false),
            (">= 2", "2", true),
            ("<= 2", "3", false),
            ("= 5", "5.0", true),
            ("!= 5", "5", false),
            ("< 9", "many", false),
            ("contains ok", "{\"status\":\"ok\"}", true),
            ("contains ok", "bad", false),
            ("valid", "valid", true),
            ("valid", "invalid", false),
        ] {
            assert_eq!(holds(&Expect(expect.to_owned()), answer).is_ok(), does_hold, "{expect} of {answer}");
        }
        let why = holds(&Expect("> 0".to_owned()), "\u{1b}[2J").unwrap_err();
        assert_eq!(why, "it answered `\\x1b[2J`, expected > 0");
    }

    /// Shows P1.
    #[test]
    fn a_check_that_does_not_hold_is_named_with_its_answer() {
        let command = |script: &str, expect: Option<&str>| Check {
            ask: Ask::Command(["sh", "-c", script].map(str::to_owned).to_vec()),
            expect: expect.map(|text| Expect(text.to_owned())),
            timeout: Duration::from_secs(20),
        };
        let hold = |check: Check| all_hold(&[check], &BTreeMap::new(), &Cancel::new());
        hold(command("echo 7", Some("> 6"))).unwrap();
        hold(command("true", None)).unwrap();
        let error = hold(command("echo 7", Some("> 7"))).unwrap_err();
        assert_eq!(error.what(), "the check sh -c echo 7 failed: it answered `7`, expected > 7");
        assert!(hold(command("echo why; exit 3", None)).unwrap_err().what().ends_with("exit code 3: why"));
        let sql = Ask::Sql { db: "db".to_owned(), query: "select 1".to_owned() };
        let missing = Check { ask: sql, expect: None, timeout: Duration::from_secs(1) };
        assert!(hold(missing).unwrap_err().what().contains("db is not among"));
    }
}
