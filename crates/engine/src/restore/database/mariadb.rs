//! One database of MariaDB under a name that nothing live has: made, and filled
//! by its dump. A server of that kind cannot rename a database, so that what is
//! replaced is gone before the dump is run.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::Path;

use lifeboat_format::path::shown;
use lifeboat_format::record::MariadbDatabase;

use super::{DatabaseRequest, Maker, UNTOUCHED, single};
use crate::config::{self, Config, MariadbServer};
use crate::mariadb::client::Database;
use crate::mariadb::script::{self, Changed};
use crate::mariadb::{Client, Tools, ident};
use crate::pg::quoted;
use crate::report::Watch;
use crate::{Cancel, Error, ErrorKind, Result};

/// Databases that are the server's own.
const OF_THE_SERVER: [&str; 4] = ["information_schema", "mysql", "performance_schema", "sys"];
/// The longest name of a database, in letters.
const NAME_MAX: usize = 64;

pub(super) struct Mariadb<'a> {
    request: &'a DatabaseRequest,
    recorded: &'a MariadbDatabase,
    server: MariadbServer,
    client: Client,
    /// Whether an app uses a database of that name.
    is_live: bool,
    /// What is there under the name that the database gets.
    there: Option<Database>,
    /// Whether anything was done on the server.
    has_begun: bool,
    changed: Changed,
}

impl<'a> Mariadb<'a> {
    pub(super) fn reach(
        request: &'a DatabaseRequest,
        recorded: &'a MariadbDatabase,
        server: &MariadbServer,
        config: Option<&Config>,
        cancel: &Cancel,
    ) -> Result<Self> {
        let tools = Tools::find(server.bin_dir.as_deref(), cancel).map_err(|error| error.state(UNTOUCHED))?;
        let client = Client { tools, route: server.route()? };
        let there = client.database(&request.name, cancel).map_err(|error| error.state(UNTOUCHED))?;
        let sources = config.into_iter().flat_map(|config| config.apps.values()).flat_map(|app| app.sources.values());
        // Whichever server it is on: one may be known by several names.
        let mut live = sources.filter_map(|source| match source {
            config::Source::Mariadb(mariadb) => Some(&mariadb.databases),
            _ => None,
        });
        let is_it = |name: &String| name.eq_ignore_ascii_case(&request.name);
        let is_live = is_it(&recorded.name) || live.any(|databases| databases.iter().any(is_it));
        let server = server.clone();
        let changed = Changed::default();
        Ok(Self { request, recorded, server, client, is_live, there, has_begun: false, changed })
    }

    /// It is the database itself that is made again, and not a copy beside it.
    fn is_itself(&self) -> bool {
        self.request.name == self.recorded.name
    }

    fn create(&self, charset: &str, collation: &str, cancel: &Cancel) -> Result<()> {
        let is_word = |text: &&str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if let Some(odd) = [charset, collation].iter().find(|text| !is_word(text)) {
            let what = format!("{} is no character set or collation", quoted(odd));
            return Err(
                Error::new(ErrorKind::Unsafe, what).next("do not trust this archive; find out where it comes from")
            );
        }
        let name = ident(&self.request.name);
        self.client.run(&format!("CREATE DATABASE {name} CHARACTER SET {charset} COLLATE {collation}"), cancel)
    }

    /// No row is missing that the dump held. (A table that only names others has theirs.)
    fn compare(&self, tables: &BTreeMap<String, u64>) -> Result<()> {
        let none = self.recorded.excluded_tables.iter().map(|table| (table, 0));
        let recorded = self.recorded.tables.iter().map(|(table, rows)| (table, rows.rows));
        for (table, rows) in recorded.chain(none) {
            let found = tables.get(table);
            if found.is_none_or(|found| *found < rows) {
                let table = shown(table.as_bytes());
                let what = match found {
                    None => format!("the table {table} was not made"),
                    Some(found) => format!("{table} has {found} rows, and {rows} were backed up"),
                };
                return Err(Error::new(ErrorKind::VerificationFailed, what));
            }
        }
        Ok(())
    }

    fn drop(&self, cancel: &Cancel) -> Result<()> {
        self.client.run(&format!("DROP DATABASE IF EXISTS {}", ident(&self.request.name)), cancel)
    }
}

impl Maker for Mariadb<'_> {
    fn server(&self) -> String {
        self.client.route.name()
    }

    fn is_there_empty(&mut self, _: &Cancel) -> Result<Option<bool>> {
        let Some(there) = &self.there else { return Ok(None) };
        let is_empty = there.tables.is_empty() && there.others == 0;
        if !is_empty && self.is_live {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("--to-database {}: that is a live one", quoted(&self.request.name)),
            )
            .state(UNTOUCHED)
            .next("choose another name; this one is taken only where there is no database of it, or an empty one"));
        }
        Ok(Some(is_empty))
    }

    fn make(&mut self, dump: &Path, watch: Watch<'_>) -> Result<BTreeMap<String, u64>> {
        let name = &self.request.name;
        watch.cancel.check()?;
        self.has_begun = true;
        if self.there.is_some() {
            self.drop(watch.cancel)?;
        }
        self.create(&self.recorded.charset, &self.recorded.collation, watch.cancel)?;
        let mut dump = BufReader::with_capacity(1 << 18, single::open(dump)?);
        let is_itself = self.is_itself();
        let mut changed = Changed::default();
        self.client.script(name, watch.cancel, |input| {
            if is_itself {
                return std::io::copy(&mut dump, input).map(|_| ());
            }
            changed = script::copy(&mut dump, &self.recorded.name, name, input)?;
            Ok(())
        })?;
        self.changed = changed;
        let made = self.client.database(name, watch.cancel)?.unwrap_or_default();
        let tables = self.client.count(name, &made.tables, watch.cancel)?;
        self.compare(&tables)?;
        Ok(tables)
    }

    fn undo(&mut self) -> String {
        if !self.has_begun {
            return UNTOUCHED.to_owned();
        }
        let name = shown(self.request.name.as_bytes());
        // Also where the restore was cancelled.
        let cancel = Cancel::new();
        let was_empty = self.there.as_ref().filter(|there| there.tables.is_empty() && there.others == 0);
        let undone = self.drop(&cancel).and_then(|()| match was_empty {
            Some(there) => self.create(&there.charset, &there.collation, &cancel),
            None => Ok(()),
        });
        match (undone, &self.there) {
            (Err(error), _) => {
                format!("nothing live was touched; what was made of {name} could not be dropped ({error})")
            }
            (Ok(()), Some(_)) if was_empty.is_none() => {
                format!("nothing live was touched; {name}, which was to be replaced, is gone")
            }
            (Ok(()), _) => UNTOUCHED.to_owned(),
        }
    }

    fn notes(&self) -> Vec<String> {
        match self.changed.events {
            0 => Vec::new(),
            1 => vec!["1 event is disabled, so that nothing begins to run in a copy".to_owned()],
            more => vec![format!("{more} events are disabled, so that nothing begins to run in a copy")],
        }
    }

    fn drop_command(&self) -> String {
        self.server.shell_statement(&format!("DROP DATABASE {}", ident(&self.request.name)))
    }
}

/// A name that a database can have, and that is not the server's.
pub(super) fn refuse_name(name: &str) -> Result<()> {
    let is_of_server = OF_THE_SERVER.iter().any(|own| own.eq_ignore_ascii_case(name));
    let is_name = !name.is_empty()
        && name.chars().count() <= NAME_MAX
        && !name.ends_with(' ')
        && !name.chars().any(char::is_control);
    if is_name && !is_of_server {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Usage, format!("--to-database {}: that is no name that a copy can have", quoted(name)))
        .state(UNTOUCHED)
        .next("choose another name"))
}
