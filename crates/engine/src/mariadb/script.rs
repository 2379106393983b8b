//! A dump on its way into a database of another name. Two things in it would act
//! beyond that: it says the name of its own database where it changes the
//! database's character set for a routine that was made under another one, and
//! its events would begin to run. Everything else passes as it is.

use std::io::{self, BufRead, Read as _, Write};

use super::ident;

/// Longer lines hold rows.
const LINE_MAX_BYTES: u64 = 1 << 16;
/// How mariadb-dump and mysqldump begin the definition of an event.
const EVENT: &str = "/*!50106 CREATE*/ ";
/// What stands before whether it runs.
const STATES: [&str; 2] = [" ON COMPLETION NOT PRESERVE ENABLE ", " ON COMPLETION PRESERVE ENABLE "];

/// What was changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    /// Events that would have run.
    pub(crate) events: u64,
}

/// Copies the dump of the database `from` to `to`, as one of the database `name`.
pub(crate) fn copy(dump: &mut impl BufRead, from: &str, name: &str, to: &mut impl Write) -> io::Result<Changed> {
    let mut changed = Changed::default();
    let (old, new) = (altered(from), altered(name));
    let (mut piece, mut begins) = (Vec::new(), true);
    loop {
        piece.clear();
        dump.by_ref().take(LINE_MAX_BYTES).read_until(b'\n', &mut piece)?;
        if piece.is_empty() {
            return Ok(changed);
        }
        if begins && is_altering(&piece, &old) {
            piece.splice(..old.len(), new.bytes());
        } else if begins && piece.starts_with(EVENT.as_bytes()) {
            changed.events += u64::from(disable(&mut piece));
        }
        begins = piece.ends_with(b"\n");
        to.write_all(&piece)?;
    }
}

fn altered(name: &str) -> String {
    format!("ALTER DATABASE {} CHARACTER SET ", ident(name))
}

/// ``ALTER DATABASE `name` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ;`` as a whole line, with whatever delimiter.
fn is_altering(line: &[u8], begin: &str) -> bool {
    let rest = line.strip_prefix(begin.as_bytes()).and_then(|rest| std::str::from_utf8(rest).ok());
    let words: Option<Vec<&str>> = rest.map(|rest| rest.split_whitespace().collect());
    matches!(words.as_deref(), Some([_, "COLLATE", _, ";" | ";;"]))
}

fn disable(line: &mut Vec<u8>) -> bool {
    let at = |state: &str| line.windows(state.len()).position(|window| window == state.as_bytes());
    let found = STATES.iter().filter_map(|state| Some((at(state)?, state.len()))).min();
    let Some((at, length)) = found else { return false };
    let enable = at + length - "ENABLE ".len();
    line.splice(enable..enable + "ENABLE".len(), *b"DISABLE");
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(dump: &str) -> (String, u64) {
        let mut to = Vec::new();
        let changed = copy(&mut dump.as_bytes(), "a`b", "c", &mut to).unwrap();
        (String::from_utf8(to).unwrap(), changed.events)
    }

    /// Shows D15.
    #[test]
    fn only_what_acts_beyond_the_copy_is_changed() {
        let long = "x".repeat(200_000);
        let same = format!(
            "INSERT INTO `t` VALUES\n('ALTER DATABASE `a``b` CHARACTER SET x COLLATE y ;'),('{long}\
             ALTER DATABASE `a``b` CHARACTER SET x COLLATE y ;\n"
        );
        let (text, events) = copied(&format!(
            "ALTER DATABASE `a``b` CHARACTER SET latin1 COLLATE latin1_bin ;\n\
             ALTER DATABASE `a``b` CHARACTER SET latin1 COLLATE latin1_bin ;;\n\
             ALTER DATABASE `other` CHARACTER SET latin1 COLLATE latin1_bin ;\n{same}\
             /*!50106 CREATE*/ /*!50117 DEFINER=`u`@`h`*/ /*!50106 EVENT `e` ON SCHEDULE EVERY 1 DAY \
             ON COMPLETION NOT PRESERVE ENABLE COMMENT ' ON COMPLETION PRESERVE ENABLE ' DO select 1\n\
             /*!50106 CREATE*/ /*!50106 EVENT `f` ON SCHEDULE EVERY 1 DAY ON COMPLETION PRESERVE DISABLE DO select 1"
        ));
        assert_eq!(events, 1);
        let expected = format!(
            "ALTER DATABASE `c` CHARACTER SET latin1 COLLATE latin1_bin ;\n\
             ALTER DATABASE `c` CHARACTER SET latin1 COLLATE latin1_bin ;;\n\
             ALTER DATABASE `other` CHARACTER SET latin1 COLLATE latin1_bin ;\n{same}\
             /*!50106 CREATE*/ /*!50117 DEFINER=`u`@`h`*/ /*!50106 EVENT `e` ON SCHEDULE EVERY 1 DAY \
             ON COMPLETION NOT PRESERVE DISABLE COMMENT ' ON COMPLETION PRESERVE ENABLE ' DO select 1\n\
             /*!50106 CREATE*/ /*!50106 EVENT `f` ON SCHEDULE EVERY 1 DAY ON COMPLETION PRESERVE DISABLE DO select 1"
        );
        assert!(text == expected, "{}", text.replace(&long, "<long>"));
    }
}
