//! pg_dump of databases whose state is pinned: started for all of them at once,
//! and read when it is their turn.
//!
//! pg_dump locks the tables once more, in its own session. Normally that waits
//! for nobody, because we have the same locks. But where somebody is about to
//! change a table (ALTER TABLE waits for our lock to go), pg_dump stands behind
//! him in the queue: he waits for us, pg_dump for him, and we for pg_dump. The
//! server does not see that as a deadlock, because nothing in it says that we
//! wait for pg_dump. So pg_dump waits for a short time only, and where that was
//! not enough, everything is let go, which lets him go on, and pinned again.

use std::fmt::Write as _;
use std::io::{self, Cursor, Read};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::facts::{Table, shown};
use super::pin::{APPLICATION, Member, Point, Reached};
use super::{Access, blame};
use crate::config::DumpFormat;
use crate::{Cancel, Error, ErrorKind, Result};

/// How long pg_dump waits for a lock at first, and twice that the next time.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// How often all is pinned and begun anew.
const TRIES: u32 = 3;
/// How a dump in the custom format begins.
pub(crate) const MAGIC: &[u8] = b"PGDMP";
/// How many bytes are taken from a dump to see that it has begun.
const HEAD_BYTES: usize = 64 << 10;
/// The entry that holds the roles.
pub(crate) const GLOBALS: &str = "globals.sql";
/// The beginning of the last line of a dump in SQL.
pub(crate) const PLAIN_END: &str = "-- PostgreSQL database dump complete";

/// How databases are dumped.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manner {
    pub(crate) format: DumpFormat,
    pub(crate) is_schema_only: bool,
    /// Whether pg_dump compresses, as it does by itself.
    pub(crate) is_compressed: bool,
}

/// A dump under way, whose locks are its own by now.
pub(crate) struct Dump {
    /// What it prints, from its beginning. The end comes when pg_dump has ended well.
    pub(crate) content: Box<dyn Read + Send>,
}

/// The dumps of all databases of a source.
pub(crate) struct Begun {
    /// One for each, in their order.
    pub(crate) dumps: Vec<Dump>,
    /// The moment whose state they hold.
    pub(crate) point: Point,
    /// Whether that is another one than was pinned at first.
    pub(crate) is_another: bool,
}

/// What became of starting them.
enum Started {
    All(Vec<Dump>),
    /// A lock was not to be had, for this reason.
    Blocked(Error),
}

impl Manner {
    /// How the entry of the database `name` is called.
    pub(crate) fn entry_name(self, name: &str) -> String {
        let suffix = match (self.format, self.is_schema_only) {
            (DumpFormat::Custom, false) => "dump",
            (DumpFormat::Plain, false) => "sql",
            // Of a structure alone, people want to read it.
            (_, true) => "schema.sql",
        };
        let name = format!("{}.{suffix}", file_name(name));
        // That is where the roles stand.
        if name == GLOBALS { name.replacen('g', "%67", 1) } else { name }
    }

    /// The format that is written.
    pub(crate) fn written(self) -> DumpFormat {
        if self.is_schema_only { DumpFormat::Plain } else { self.format }
    }
}

/// `name` as the name of a file: what would be a path, hidden or unreadable is percent-encoded.
pub(crate) fn file_name(name: &str) -> String {
    let mut encoded = String::new();
    for (at, letter) in name.char_indices() {
        if matches!(letter, '%' | '/') || letter.is_control() || (letter == '.' && at == 0) {
            let bytes = &name.as_bytes()[at..at + letter.len_utf8()];
            bytes.iter().for_each(|byte| write!(encoded, "%{byte:02X}").expect("a String takes all"));
        } else {
            encoded.push(letter);
        }
    }
    encoded
}

/// Those of `tables` whose rows are left out by `patterns` of names, or of
/// `SCHEMA.NAME`; with a table, its partitions.
pub(crate) fn left_out<'t>(tables: &'t [Table], patterns: &[String]) -> Vec<&'t Table> {
    let is_named = |table: &Table| {
        patterns.iter().any(|pattern| {
            let name = if pattern.contains('.') { table.full_name() } else { table.name.clone() };
            crate::tables::matches(pattern, &name)
        })
    };
    let mut named: Vec<bool> = tables.iter().map(is_named).collect();
    // Partitions may have partitions of their own.
    loop {
        let of_named = |table: &Table| {
            let parent = table.partition_of.as_ref();
            parent
                .is_some_and(|parent| tables.iter().zip(&named).any(|(table, is)| *is && table.full_name() == *parent))
        };
        let wider: Vec<bool> = tables.iter().zip(&named).map(|(table, is)| *is || of_named(table)).collect();
        if wider == named {
            break;
        }
        named = wider;
    }
    tables.iter().zip(named).filter_map(|(table, is)| is.then_some(table)).collect()
}

/// Dumps every database of `reached`, which is pinned at `point`, without the
/// rows of tables that match `patterns`. Returns when all have their locks, which
/// are waited for no longer than `patience`, if that is given.
///
/// # Errors
/// When one of them cannot be dumped, with what pg_dump said. Nothing runs then.
pub(crate) fn begin(
    reached: &mut Reached,
    point: Point,
    (manner, patterns, patience): (Manner, &[String], Option<Duration>),
    now: &dyn Fn() -> Timestamp,
    cancel: &Cancel,
) -> Result<Begun> {
    let (mut point, mut attempt) = (point, 0);
    loop {
        let lock_wait = (LOCK_WAIT * (1 << attempt)).min(patience.unwrap_or(reached.lock_timeout));
        match start(reached, manner, patterns, lock_wait, cancel)? {
            Started::All(dumps) => return Ok(Begun { dumps, point, is_another: attempt > 0 }),
            Started::Blocked(error) if attempt + 1 == TRIES => return Err(error),
            Started::Blocked(_) => {}
        }
        attempt += 1;
        point = reached.pin(patience, now, cancel)?;
    }
}

fn start(
    reached: &mut Reached,
    manner: Manner,
    patterns: &[String],
    lock_wait: Duration,
    cancel: &Cancel,
) -> Result<Started> {
    let access = Access::by(&reached.route);
    let began = Instant::now();
    let mut streams = Vec::new();
    for member in &reached.members {
        let arguments = arguments(reached, member, manner, patterns, lock_wait);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let argv = reached.tools.command("pg_dump", &arguments);
        streams.push(access.tool(&argv).stream(cancel)?);
    }
    let mut dumps = Vec::new();
    for (member, mut stream) in reached.members.iter_mut().zip(streams) {
        let name = &member.database.name;
        match head(&mut stream, manner.written()) {
            Ok(head) => dumps.push(Dump { content: Box::new(Cursor::new(head).chain(stream)) }),
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            // The reason may be another one, which is met again. What pg_dump says of a lock is in
            // the server's language.
            Err(error) if began.elapsed() >= lock_wait => {
                let who = blame::lockers(&mut member.session, cancel)?;
                let error = if who.is_empty() { failed(name, &error) } else { blame::locked(name, &who, lock_wait) };
                return Ok(Started::Blocked(error));
            }
            Err(error) => return Err(failed(name, &error)),
        }
    }
    Ok(Started::All(dumps))
}

/// The first bytes of a dump.
fn head(stream: &mut (dyn Read + Send), format: DumpFormat) -> Result<Vec<u8>> {
    let mut head = vec![0; HEAD_BYTES];
    let mut filled = 0;
    while filled < MAGIC.len() {
        match stream.read(&mut head[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ours(error)),
        }
    }
    head.truncate(filled);
    if format == DumpFormat::Custom && !head.starts_with(MAGIC) {
        return Err(Error::new(ErrorKind::Failed, "what it printed is no dump"));
    }
    Ok(head)
}

/// The error of ours that a stream has made one of I/O.
fn ours(error: io::Error) -> Error {
    let kind = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).map(Error::kind);
    Error::new(kind.unwrap_or(ErrorKind::Failed), error.to_string())
}

fn failed(database: &str, error: &Error) -> Error {
    Error::new(ErrorKind::Failed, format!("{} could not be dumped: pg_dump: {error}", shown(database)))
}

fn arguments(
    reached: &Reached,
    member: &Member,
    manner: Manner,
    patterns: &[String],
    lock_wait: Duration,
) -> Vec<String> {
    let mut arguments = vec![
        format!("--format={}", manner.written().word()),
        format!("--snapshot={}", member.snapshot),
        "--no-password".to_owned(),
        // Else in the one that sessions of the database begin with, which may not know every letter.
        format!("--encoding={}", member.database.attributes.encoding),
        format!("--lock-wait-timeout={}", lock_wait.as_millis()),
    ];
    if !manner.is_compressed {
        arguments.push("--compress=0".to_owned());
    }
    if manner.is_schema_only {
        arguments.push("--schema-only".to_owned());
    }
    // Quoted, a name is no pattern.
    let left_out = left_out(&member.tables, patterns);
    arguments.extend(left_out.into_iter().map(|table| format!("--exclude-table-data={}", table.sql())));
    arguments.push(format!("--dbname={}", reached.route.conninfo(&member.database.name, APPLICATION)));
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows D1.
    #[test]
    fn every_name_of_a_database_is_one_of_an_entry() {
        let plain = Manner { format: DumpFormat::Plain, ..Manner::default() };
        for (name, manner, entry) in [
            ("app", Manner::default(), "app.dump"),
            ("app", plain, "app.sql"),
            ("app", Manner { is_schema_only: true, ..Manner::default() }, "app.schema.sql"),
            ("a/b", Manner::default(), "a%2Fb.dump"),
            ("..", Manner::default(), "%2E..dump"),
            ("100%\n", Manner::default(), "100%25%0A.dump"),
            ("Größe \u{85}", Manner::default(), "Größe %C2%85.dump"),
            ("globals", Manner::default(), "globals.dump"),
            ("globals", plain, "%67lobals.sql"),
        ] {
            assert_eq!(manner.entry_name(name), entry);
        }
        assert!(Manner::default().entry_name(&"/".repeat(63)).len() < 255);
    }

    /// Shows D2.
    #[test]
    fn rows_are_left_out_by_name_schema_and_partition() {
        let table = |schema: &str, name: &str, of: Option<&str>| Table {
            schema: schema.to_owned(),
            name: name.to_owned(),
            estimate: 0,
            is_partitioned: false,
            partition_of: of.map(str::to_owned),
        };
        let tables = [
            table("public", "metrics_a", None),
            table("public", "m", None),
            table("public", "p1", Some("public.m")),
            table("public", "p1a", Some("public.p1")),
            table("metrics", "x", None),
        ];
        let names = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
            left_out(&tables, &patterns).into_iter().map(Table::full_name).collect::<Vec<_>>()
        };
        assert_eq!(names(&["metrics*"]), ["public.metrics_a"]);
        assert_eq!(names(&["metrics.*", "nothing"]), ["metrics.x"]);
        assert_eq!(names(&["M"]), ["public.m", "public.p1", "public.p1a"]);
        assert!(names(&[]).is_empty());
    }
}
