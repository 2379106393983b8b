//! Whether a user sees all of a database. What it may not see, the server does
//! not list, and a dump without it ends as well as any.

use super::Client;
use crate::{Cancel, Error, ErrorKind, Result};

/// Each of these shows routines; that they can be read as well, the dump finds out by itself.
const SHOW_ROUTINES: [&str; 4] = ["EXECUTE", "ALTER ROUTINE", "CREATE ROUTINE", "SHOW CREATE ROUTINE"];

/// One line of `SHOW GRANTS`.
struct Granted<'a> {
    privileges: Vec<&'a str>,
    /// Such as `*.*` or `` `app`.* ``.
    on: &'a str,
}

impl Client {
    /// Refuses a user that does not see all tables, triggers, events and routines of `database`.
    ///
    /// # Errors
    /// When something of it would be left out in silence, with what to grant.
    pub(super) fn check_rights(&self, database: &str, cancel: &Cancel) -> Result<()> {
        let lines: Vec<String> = self.rows("SHOW GRANTS", cancel)?.into_iter().flatten().collect();
        let missing = missing(&lines, database);
        if missing.is_empty() {
            return Ok(());
        }
        let (user, on) = (self.route.user(), super::ident(database));
        let what = format!("{user} may not see all of {on}: the right to {} is missing", missing.join(", "));
        Err(Error::new(ErrorKind::Denied, what).next(format!(
            "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, EXECUTE ON {on}.* to that user, and SELECT ON mysql.proc if there are routines"
        )))
    }
}

/// The rights that these lines do not give on `database`.
fn missing(lines: &[String], database: &str) -> Vec<&'static str> {
    let all: Vec<Granted<'_>> = lines.iter().filter_map(|line| parse(line)).collect();
    let has = |right: &str, database: &str| {
        let gives =
            |granted: &&Granted<'_>| granted.privileges.iter().any(|one| [right, "ALL PRIVILEGES"].contains(one));
        all.iter().filter(gives).any(|granted| covers(granted.on, database))
    };
    let is_of_proc = |granted: &Granted<'_>| granted.on == "`mysql`.`proc`" && granted.privileges.contains(&"SELECT");
    let sees_routines = has("SELECT", "mysql")
        || has("SHOW_ROUTINE", "mysql")
        || all.iter().any(is_of_proc)
        || SHOW_ROUTINES.iter().any(|right| has(right, database));
    let needed = ["SELECT", "TRIGGER", "EVENT"].into_iter().filter(|right| !has(right, database));
    needed.chain((!sees_routines).then_some("EXECUTE")).collect()
}

fn parse(line: &str) -> Option<Granted<'_>> {
    let (privileges, rest) = line.strip_prefix("GRANT ")?.split_once(" ON ")?;
    let (on, _) = rest.rsplit_once(" TO ")?;
    Some(Granted { privileges: privileges.split(", ").collect(), on })
}

/// Whether a grant on `on` is one on all of `database`.
fn covers(on: &str, database: &str) -> bool {
    let Some(pattern) = on.strip_suffix(".*") else { return false };
    if pattern == "*" {
        return true;
    }
    let pattern = pattern.strip_prefix('`').and_then(|pattern| pattern.strip_suffix('`')).unwrap_or(pattern);
    is_like(pattern.replace("``", "`").as_bytes(), database.as_bytes())
}

/// SQL's LIKE.
fn is_like(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'%', rest @ ..], _) => (0..=text.len()).any(|skipped| is_like(rest, &text[skipped..])),
        ([b'_', rest @ ..], [_, others @ ..]) => is_like(rest, others),
        ([b'\\', one, rest @ ..] | [one, rest @ ..], [letter, others @ ..]) => one == letter && is_like(rest, others),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows D15.
    #[test]
    fn a_right_counts_where_it_is_given_on_all_of_a_database() {
        let of = |lines: &[&str], database: &str| {
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            missing(&lines, database)
        };
        let usage = "GRANT USAGE ON *.* TO `u`@`%`";
        assert_eq!(of(&["GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION"], "a b"), [""; 0]);
        assert_eq!(of(&[usage, "GRANT ALL PRIVILEGES ON `a\\_b`.* TO `u`@`%`"], "a_b"), [""; 0]);
        assert_eq!(of(&["GRANT ALL PRIVILEGES ON `a\\_b`.* TO `u`@`%`"], "axb").len(), 4);
        assert_eq!(of(&["GRANT SELECT, SHOW VIEW, TRIGGER ON `a%`.* TO `u`@`%`"], "a_b"), ["EVENT", "EXECUTE"]);
        let rights = ["GRANT SELECT, SHOW VIEW ON *.* TO `u`@`%`", "GRANT TRIGGER, EVENT ON `a``b`.* TO `r`"];
        assert_eq!(of(&rights, "a`b"), [""; 0]);
        let rights = ["GRANT SELECT, TRIGGER, EVENT ON `a`.* TO `u`@`%`", "GRANT SELECT ON `mysql`.`proc` TO `u`@`%`"];
        assert_eq!(of(&rights, "a"), [""; 0]);
        assert_eq!(of(&["GRANT SELECT, TRIGGER, EVENT ON `a`.`t` TO `u`@`%`"], "a").len(), 4);
    }
}
