//! One database of PostgreSQL under another name: staged beside, and renamed when it is whole.

use std::collections::BTreeMap;
use std::path::Path;

use lifeboat_format::record::{self, PostgresDatabase};
use lifeboat_store::durable;

use super::{DatabaseRequest, Maker, UNTOUCHED};
use crate::config::{self, Config};
use crate::pg::facts::{self, Database, shown};
use crate::pg::stage::{self, Staging};
use crate::pg::swap::{self, Exchange, Swap};
use crate::pg::{Route, Server, Session, Tools, ident, quoted};
use crate::report::Watch;
use crate::{Cancel, Error, ErrorKind, Result, workers};

/// Databases that are nobody's.
const OF_THE_SERVER: [&str; 3] = ["postgres", "template0", "template1"];

pub(super) struct Postgres<'a> {
    request: &'a DatabaseRequest,
    source: &'a str,
    recorded: &'a record::Postgres,
    database: &'a PostgresDatabase,
    server: Server,
    route: Route,
    session: Session,
    /// Of this restore.
    id: String,
    /// What is there under the name that the database gets.
    there: Option<Database>,
}

impl<'a> Postgres<'a> {
    pub(super) fn reach(
        request: &'a DatabaseRequest,
        source: &'a str,
        (recorded, database): (&'a record::Postgres, &'a PostgresDatabase),
        server: &Server,
        cancel: &Cancel,
    ) -> Result<Self> {
        let mut server = server.clone();
        if server.maintenance_db == request.name {
            server.maintenance_db = OF_THE_SERVER[0].to_owned();
        }
        let id = durable::random_hex();
        let route = server.route()?;
        let mut session = Session::open(&route, &server.maintenance_db, &swap::application(&id))?;
        let there = facts::database(&mut session, &request.name, cancel)?;
        Ok(Self { request, source, recorded, database, server, route, session, id, there })
    }

    fn staged_name(&self) -> String {
        swap::staged_name(&self.request.name, &self.id)
    }
}

impl Maker for Postgres<'_> {
    fn server(&self) -> String {
        self.server.name()
    }

    fn is_there_empty(&mut self, cancel: &Cancel) -> Result<Option<bool>> {
        if self.there.is_none() {
            return Ok(None);
        }
        let mut session = Session::open(&self.route, &self.request.name, &swap::application(&self.id))?;
        facts::is_empty(&mut session, cancel).map(Some)
    }

    fn make(&mut self, dump: &Path, watch: Watch<'_>) -> Result<BTreeMap<String, u64>> {
        let (request, staged_name) = (self.request, self.staged_name());
        let here = facts::major(facts::version(&mut self.session, watch.cancel)?);
        let needed = here.max(facts::major(self.recorded.server_version));
        let tools = Tools::find(needed, self.server.bin_dir.as_deref(), watch.cancel)?;
        let staging = Staging {
            route: &self.route,
            maintenance_db: &self.server.maintenance_db,
            tools: &tools,
            id: &self.id,
            no_owner: request.no_owner,
            no_privileges: request.no_privileges,
            jobs: workers::count(request.threads),
        };
        // Of a dump that came without a manifest, the live one says what it is made with.
        let like = match self.database.attributes.owner.as_str() {
            "" => facts::database(&mut self.session, &self.database.name, watch.cancel)?,
            _ => None,
        };
        let staged = staging.make(&staged_name, self.database, dump, like.as_ref(), watch)?;
        stage::compare_rows(&request.name, &self.database.tables, &staged.tables)?;
        watch.cancel.check()?;
        if let Some(there) = &self.there {
            swap::drop_database(&mut self.session, &there.name, there.oid, watch.cancel)?;
        }
        let rename = format!("ALTER DATABASE {} RENAME TO {}", ident(&staged_name), ident(&request.name));
        self.session.run(&rename, watch.cancel)?;
        Ok(staged.tables)
    }

    fn undo(&mut self) -> String {
        let swap = Swap {
            server: self.server.clone(),
            databases: vec![Exchange {
                source: self.source.to_owned(),
                live: self.request.name.clone(),
                staged: self.staged_name(),
                was: swap::replaced_name(&self.request.name, &self.id),
                new: None,
                old: None,
            }],
        };
        match swap.drop_staged(&self.id) {
            Ok(()) => UNTOUCHED.to_owned(),
            Err(other) => {
                format!("nothing live was touched; {} could not be dropped ({other})", shown(&self.staged_name()))
            }
        }
    }

    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    fn drop_command(&self) -> String {
        self.route.shell_command("dropdb", &self.request.name)
    }
}

/// Never over a database that an app uses.
pub(super) fn refuse_live(name: &str, server: &Server, copied: &str, config: Option<&Config>) -> Result<()> {
    let sources = config.into_iter().flat_map(|config| config.apps.values()).flat_map(|app| app.sources.values());
    let mut on_it = sources.filter_map(|source| match source {
        config::Source::Postgres(postgres) if postgres.server.keywords == server.keywords => Some(&postgres.databases),
        _ => None,
    });
    let is_live = copied == name || on_it.any(|databases| databases.iter().any(|database| database == name));
    if !is_live && !OF_THE_SERVER.contains(&name) && !name.is_empty() && name.len() <= swap::NAME_MAX {
        return Ok(());
    }
    let what = if is_live { "is a live one" } else { "is no name that a copy can have" };
    Err(Error::new(ErrorKind::Usage, format!("--to-database {}: that {what}", quoted(name)))
        .state(UNTOUCHED)
        .next("choose another name; without --to-database the restore replaces the live one"))
}
