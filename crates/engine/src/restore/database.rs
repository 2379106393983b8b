//! Restoring one database under another name: beside what is live, and never
//! over it. It gets that name when it is whole.

mod mariadb;
mod postgres;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lifeboat_format::archive::Archive;
use lifeboat_format::record::{MariadbDatabase, Postgres, PostgresDatabase, Source};
use serde::Serialize;

use super::single;
use crate::config::{self, Config};
use crate::keys::Keys;
use crate::pg::facts::shown;
use crate::pg::quoted;
use crate::report::{Watch, as_seconds};
use crate::{Cancel, Error, ErrorKind, Result};

const UNTOUCHED: &str = "nothing was changed";

/// Restore one database under another name.
#[derive(Clone, Debug, Default)]
pub struct DatabaseRequest {
    /// The archive.
    pub archive: PathBuf,
    /// The name that the database gets.
    pub name: String,
    /// `SOURCE` or `SOURCE/DATABASE`; not needed where there is one.
    pub only: Vec<String>,
    /// Which source a bare dump without a manifest is.
    pub as_source: Option<String>,
    /// Whether a database of that name with something in it is replaced.
    pub force: bool,
    /// What is in it gets the database's owner instead of its own.
    pub no_owner: bool,
    /// Whether SQL from an archive that is not authenticated is run.
    pub allow_unauthenticated: bool,
    /// Nobody gets the rights in it that were backed up.
    pub no_privileges: bool,
    /// How many things are restored at once; by default one for each core.
    pub threads: Option<usize>,
}

/// A database that was restored under another name.
#[derive(Clone, Debug, Serialize)]
pub struct DatabaseRestored {
    /// Its name.
    pub name: String,
    /// What it is a copy of.
    pub of: String,
    /// Its server.
    pub server: String,
    /// Rows of each table.
    pub tables: BTreeMap<String, u64>,
    /// Whether another one of that name was replaced.
    pub replaced: bool,
    /// What in it is otherwise than it was backed up, one line each.
    pub notes: Vec<String>,
    /// The command that drops it.
    pub drop: String,
    /// How long it took.
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    pub elapsed: Duration,
}

/// The database of an archive that is asked for.
struct Chosen<'a> {
    source: &'a Source,
    kind: Kind<'a>,
    /// Whether it is certain that somebody with the archive's key made it.
    is_genuine: bool,
}

#[derive(Clone, Copy)]
enum Kind<'a> {
    Postgres(&'a Postgres, &'a PostgresDatabase),
    Mariadb(&'a MariadbDatabase),
}

/// A server on which a copy of one database is made.
trait Maker {
    /// Where it is, as people know it.
    fn server(&self) -> String;

    /// Whether the database that is to be made is there, and if so, whether it is empty.
    fn is_there_empty(&mut self, cancel: &Cancel) -> Result<Option<bool>>;

    /// Makes it from `dump`, in place of the one that is there, and counts the rows of its tables.
    fn make(&mut self, dump: &Path, watch: Watch<'_>) -> Result<BTreeMap<String, u64>>;

    /// Removes what a [`Maker::make`] that failed has left, and says what is as before.
    fn undo(&mut self) -> String;

    /// What in it is otherwise than it was backed up, one line each.
    fn notes(&self) -> Vec<String>;

    /// The command of a shell that drops it.
    fn drop_command(&self) -> String;
}

impl Chosen<'_> {
    fn database(&self) -> &str {
        match self.kind {
            Kind::Postgres(_, database) => &database.name,
            Kind::Mariadb(database) => &database.name,
        }
    }

    /// The entry that is its dump.
    fn path(&self) -> &str {
        match self.kind {
            Kind::Postgres(_, database) => &database.path,
            Kind::Mariadb(database) => &database.path,
        }
    }

    fn is_script(&self) -> bool {
        match self.kind {
            Kind::Postgres(_, database) => database.format == "plain",
            Kind::Mariadb(_) => true,
        }
    }
}

/// Whether its dump is SQL, which is run.
pub(crate) fn is_script(request: &DatabaseRequest, keys: Keys<'_>) -> Result<bool> {
    let archive = super::open_for(&request.archive, request.as_source.as_deref(), keys)?;
    Ok(!archive.is_genuine() && choose(&archive, &request.only)?.is_script())
}

/// Restores it.
pub(crate) fn restore(
    request: &DatabaseRequest,
    keys: Keys<'_>,
    data_dir: &Path,
    watch: Watch<'_>,
) -> Result<DatabaseRestored> {
    let (began, config) = (Instant::now(), keys.config);
    let archive = super::open_for(&request.archive, request.as_source.as_deref(), keys)?;
    super::check_authentic(&archive, request.allow_unauthenticated)?;
    let chosen = choose(&archive, &request.only)?;
    let app = archive.head().and_then(|head| config?.apps.get(&head.app));
    let configured = app.and_then(|app| app.sources.get(&chosen.source.name));
    let mut maker = maker(request, &chosen, configured, config, watch.cancel)?;
    let there = maker.is_there_empty(watch.cancel)?;
    if there == Some(false) && !request.force {
        return Err(Error::new(
            ErrorKind::ConfirmationNeeded,
            format!("{} exists and is not empty", shown(&request.name)),
        )
        .state(UNTOUCHED)
        .next("choose another name, or add --force to replace it"));
    }
    let make = |dump: &Path| maker.make(dump, watch);
    let made = single::with_entry(&archive, chosen.path(), data_dir, request.threads, watch, make);
    let tables = made.map_err(|error| error.state(maker.undo()))?;
    Ok(DatabaseRestored {
        name: request.name.clone(),
        of: chosen.database().to_owned(),
        server: maker.server(),
        tables,
        replaced: there.is_some(),
        notes: maker.notes(),
        drop: maker.drop_command(),
        elapsed: began.elapsed(),
    })
}

/// The server that is configured for the source, when nothing speaks against
/// making a database of that name there.
fn maker<'a>(
    request: &'a DatabaseRequest,
    chosen: &'a Chosen<'a>,
    configured: Option<&config::Source>,
    config: Option<&Config>,
    cancel: &Cancel,
) -> Result<Box<dyn Maker + 'a>> {
    match (chosen.kind, configured) {
        (Kind::Postgres(recorded, database), Some(config::Source::Postgres(source))) => {
            postgres::refuse_live(&request.name, &source.server, &database.name, config)?;
            refuse_script(request, chosen)?;
            let source_name = &chosen.source.name;
            Ok(Box::new(postgres::Postgres::reach(request, source_name, (recorded, database), &source.server, cancel)?))
        }
        (Kind::Mariadb(database), Some(config::Source::Mariadb(source))) => {
            mariadb::refuse_name(&request.name)?;
            refuse_script(request, chosen)?;
            Ok(Box::new(mariadb::Mariadb::reach(request, database, &source.server, config, cancel)?))
        }
        _ => {
            Err(Error::new(ErrorKind::Usage, format!("no server is configured for the source {}", chosen.source.name))
                .state(UNTOUCHED)
                .next("write the source into lifeboat.yaml"))
        }
    }
}

/// SQL of an archive that is not authenticated is run for who agreed to that.
fn refuse_script(request: &DatabaseRequest, chosen: &Chosen<'_>) -> Result<()> {
    if !chosen.is_script() || chosen.is_genuine || request.allow_unauthenticated {
        return Ok(());
    }
    Err(Error::new(ErrorKind::ConfirmationNeeded, "the dump is SQL, and the archive is not authenticated")
        .state(UNTOUCHED)
        .next("if you trust the archive, agree at a terminal or add --allow-unauthenticated"))
}

/// The database that `only` names, or the only one that there is.
fn choose<'a>(archive: &'a Archive, only: &[String]) -> Result<Chosen<'a>> {
    let sources = archive.head().map(|head| head.sources.as_slice()).unwrap_or_default();
    let all = sources.iter().filter(|source| source.details.failed.is_none()).flat_map(|source| {
        let of_postgres = source
            .details
            .postgres
            .iter()
            .flat_map(|recorded| recorded.databases.iter().map(move |database| Kind::Postgres(recorded, database)));
        let of_mariadb =
            source.details.mariadb.iter().flat_map(|recorded| recorded.databases.iter().map(Kind::Mariadb));
        of_postgres.chain(of_mariadb).map(move |kind| Chosen { source, kind, is_genuine: archive.is_genuine() })
    });
    let name = |chosen: &Chosen<'_>| format!("{}/{}", chosen.source.name, chosen.database());
    let is_asked = |chosen: &Chosen<'_>| {
        only.is_empty() || only.iter().any(|only| *only == chosen.source.name || *only == name(chosen))
    };
    let known: Vec<Chosen<'a>> = all.collect();
    let names: Vec<String> = known.iter().map(name).collect();
    let mut asked: Vec<Chosen<'a>> = known.into_iter().filter(is_asked).collect();
    match (asked.len(), names.is_empty()) {
        (1, _) => Ok(asked.remove(0)),
        (_, true) => Err(Error::new(ErrorKind::Usage, "the snapshot holds no database of a server").state(UNTOUCHED)),
        _ => Err(Error::new(ErrorKind::Usage, "--to-database takes one database")
            .state(UNTOUCHED)
            .next(format!("say which with --only SOURCE/DATABASE; the snapshot has {}", quoted(&names.join(", "))))),
    }
}
