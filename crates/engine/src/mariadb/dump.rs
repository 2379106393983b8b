//! Dumping a database as SQL: all of it in one transaction, by the server's own
//! program.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use jiff::Timestamp;

use super::client::Database;
use super::rows::Counting;
pub(crate) use super::rows::Rows;
use super::{Client, ENVIRONMENT};
use crate::exec::{NO_TIMEOUT, Secret, Stream, Tool};
use crate::{Cancel, Error, ErrorKind, Result};

/// What a dump ends with.
pub(crate) const LAST_LINE: &str = "-- Dump completed";
/// One transaction, row by row; everything that belongs to a database; and the same bytes for the
/// same content, in characters that hold all others.
const ARGUMENTS: [&str; 8] = [
    "--single-transaction",
    "--quick",
    "--hex-blob",
    "--default-character-set=utf8mb4",
    "--max-allowed-packet=1G",
    "--skip-dump-date",
    "--no-tablespaces",
    "--triggers",
];
/// What programs of MySQL do of themselves and other servers do not take.
const WITHOUT: [(&str, &str); 2] =
    [("set-gtid-purged", "--set-gtid-purged=OFF"), ("column-statistics", "--column-statistics=0")];

/// The moment at which a dump began; known once it has.
#[derive(Clone, Default)]
pub(crate) struct Began(Arc<Mutex<Option<Timestamp>>>);

impl Began {
    /// The moment.
    pub(crate) fn at(&self) -> Option<Timestamp> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A database that can be dumped.
#[derive(Clone)]
pub(crate) struct Dump {
    client: Client,
    name: String,
    /// What is known of it.
    pub(crate) database: Database,
    /// Tables whose rows are left out.
    pub(crate) excluded: Vec<String>,
    pub(crate) began: Began,
    /// Known when it was read to its end.
    pub(crate) rows: Rows,
    /// What time it was at a moment.
    clock: (Timestamp, Instant),
}

impl Dump {
    /// Looks at the database `name`. The rows of tables that a pattern `is_excluded` means are left out.
    ///
    /// # Errors
    /// When it is not there, or not all of it may be seen.
    pub(crate) fn prepare(
        client: &Client,
        name: &str,
        is_excluded: impl Fn(&str) -> bool,
        now: Timestamp,
        cancel: &Cancel,
    ) -> Result<Self> {
        let database = client.database(name, cancel)?.ok_or_else(|| {
            let (server, name) = (client.route.name(), super::ident(name));
            let what = format!("{server}: there is no database {name} that {} may see", client.route.user());
            Error::new(ErrorKind::Failed, what)
        })?;
        client.check_rights(name, cancel)?;
        let excluded = database.tables.iter().map(|table| table.name.clone()).filter(|table| is_excluded(table));
        Ok(Self {
            client: client.clone(),
            name: name.to_owned(),
            excluded: excluded.collect(),
            database,
            began: Began::default(),
            rows: Rows::default(),
            clock: (now, Instant::now()),
        })
    }

    /// Begins it. Its end comes only when the program ended well.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub(crate) fn start(&self, cancel: &Cancel) -> Result<Box<dyn Read + Send>> {
        let knows = |option: &str| self.client.tools.knows(option);
        let mut arguments = vec!["--routines".to_owned(), "--events".to_owned()];
        if self.database.tables.iter().any(|table| table.is_versioned) && knows("dump-history") {
            arguments.push("--dump-history".to_owned());
        }
        let skips_rows = knows("ignore-table-data");
        let option = if skips_rows { "ignore-table-data" } else { "ignore-table" };
        arguments.extend(self.excluded.iter().map(|table| format!("--{option}={}.{table}", self.name)));
        let (since, at) = self.clock;
        *self.began.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(since + at.elapsed());
        let main = Counting::new(self.stream(&arguments, &[], cancel)?, self.rows.clone());
        if skips_rows || self.excluded.is_empty() {
            return Ok(Box::new(main));
        }
        // Before the views that may name them.
        let structure = self.stream(&["--no-data".to_owned()], &self.excluded, cancel)?;
        Ok(Box::new(structure.chain(main)))
    }

    fn stream(&self, arguments: &[String], tables: &[String], cancel: &Cancel) -> Result<Stream> {
        let tools = &self.client.tools;
        let mut argv = tools.dumper(&[&format!("--defaults-file={}", Secret::AS_STDIN)]);
        argv.extend(ARGUMENTS.map(str::to_owned));
        let without = WITHOUT.iter().filter(|(option, _)| tools.knows(option));
        argv.extend(without.map(|(_, argument)| (*argument).to_owned()));
        argv.extend_from_slice(arguments);
        argv.extend(["--".to_owned(), self.name.clone()]);
        argv.extend_from_slice(tables);
        let secret = self.client.route.option_file();
        Tool::new(&argv, NO_TIMEOUT).without(&ENVIRONMENT).secret(&secret).stream(cancel)
    }
}
