//! Restoring one database under another name: beside what is live, and never
//! over it. It gets that name when it is whole.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lifeboat_format::archive::Archive;
use lifeboat_format::path::EntryPath;
use lifeboat_format::record::{Postgres, PostgresDatabase, Source};
use lifeboat_store::durable;
use rustix::fs::{Mode, OFlags};
use serde::Serialize;

use super::fill::{Fill, Layout};
use crate::config::{self, Config};
use crate::pg::facts::{self, shown};
use crate::pg::stage::{self, Staging};
use crate::pg::swap::{self, Exchange, Swap};
use crate::pg::{Server, Session, Tools, ident, quoted};
use crate::report::{Watch, as_seconds};
use crate::scratch::{self, Scratch};
use crate::{Error, ErrorKind, Result, workers};

const UNTOUCHED: &str = "nothing was changed";
/// Databases that are nobody's.
const OF_THE_SERVER: [&str; 3] = ["postgres", "template0", "template1"];
/// The name of the dump in the scratch folder.
const DUMP: &[u8] = b"dump";

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
    /// The command that drops it.
    pub drop: String,
    /// How long it took.
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    pub elapsed: Duration,
}

/// The database of an archive that is asked for.
struct Chosen<'a> {
    source: &'a Source,
    recorded: &'a Postgres,
    database: &'a PostgresDatabase,
}

/// Whether its dump is SQL, which is run.
pub(crate) fn is_script(request: &DatabaseRequest, config: Option<&Config>) -> Result<bool> {
    let archive = super::open_for(&request.archive, request.as_source.as_deref(), config)?;
    Ok(choose(&archive, &request.only)?.database.format == "plain")
}

/// Restores it.
pub(crate) fn restore(
    request: &DatabaseRequest,
    config: Option<&Config>,
    data_dir: &Path,
    watch: Watch<'_>,
) -> Result<DatabaseRestored> {
    let began = Instant::now();
    let archive = super::open_for(&request.archive, request.as_source.as_deref(), config)?;
    let chosen = choose(&archive, &request.only)?;
    let app = archive.head().and_then(|head| config?.apps.get(&head.app));
    let configured = app.and_then(|app| match app.sources.get(&chosen.source.name) {
        Some(config::Source::Postgres(postgres)) => Some(&postgres.server),
        _ => None,
    });
    let mut server = configured.cloned().ok_or_else(|| {
        Error::new(ErrorKind::Usage, format!("no server is configured for the source {}", chosen.source.name))
            .state(UNTOUCHED)
            .next("write the source into lifeboat.yaml")
    })?;
    refuse_live(&request.name, &server, &chosen, config)?;
    if chosen.database.format == "plain" && !request.allow_unauthenticated {
        return Err(Error::new(ErrorKind::ConfirmationNeeded, "the dump is SQL, and the archive is not authenticated")
            .state(UNTOUCHED)
            .next("if you trust the archive, agree at a terminal or add --allow-unauthenticated"));
    }
    if server.maintenance_db == request.name {
        server.maintenance_db = OF_THE_SERVER[0].to_owned();
    }
    let id = durable::random_hex();
    let route = server.route()?;
    let mut session = Session::open(&route, &server.maintenance_db, &swap::application(&id))?;
    let there = facts::database(&mut session, &request.name, watch.cancel)?;
    if there.is_some() && !request.force && !is_empty(&route, &request.name, &id, watch)? {
        return Err(Error::new(
            ErrorKind::ConfirmationNeeded,
            format!("{} exists and is not empty", shown(&request.name)),
        )
        .state(UNTOUCHED)
        .next("choose another name, or add --force to replace it"));
    }
    let here = facts::major(facts::version(&mut session, watch.cancel)?);
    let needed = here.max(facts::major(chosen.recorded.server_version));
    let tools = Tools::find(needed, server.bin_dir.as_deref(), watch.cancel)?;
    let staging = Staging {
        route: &route,
        maintenance_db: &server.maintenance_db,
        tools: &tools,
        id: &id,
        no_owner: request.no_owner,
        no_privileges: request.no_privileges,
        jobs: workers::count(request.threads),
    };
    let staged_name = swap::staged_name(&request.name, &id);
    let swap = Swap {
        server: server.clone(),
        databases: vec![Exchange {
            source: chosen.source.name.clone(),
            live: request.name.clone(),
            staged: staged_name.clone(),
            was: swap::replaced_name(&request.name, &id),
            new: None,
            old: None,
        }],
    };
    // Of a dump that came without a manifest, the live one says what it is made with.
    let like = match chosen.database.attributes.owner.as_str() {
        "" => facts::database(&mut session, &chosen.database.name, watch.cancel)?,
        _ => None,
    };
    let made = with_dump(&archive, chosen.database, data_dir, request.threads, watch, |dump| {
        let staged = staging.make(&staged_name, chosen.database, dump, like.as_ref(), watch)?;
        stage::compare_rows(&request.name, &chosen.database.tables, &staged.tables)?;
        watch.cancel.check()?;
        Ok(staged)
    });
    let done = made.and_then(|staged| {
        if let Some(there) = &there {
            swap::drop_database(&mut session, &there.name, there.oid, watch.cancel)?;
        }
        let rename = format!("ALTER DATABASE {} RENAME TO {}", ident(&staged_name), ident(&request.name));
        session.run(&rename, watch.cancel).map(|()| staged)
    });
    let staged = done.map_err(|error| {
        let state = match swap.drop_staged(&id) {
            Ok(()) => UNTOUCHED.to_owned(),
            Err(other) => format!("nothing live was touched; {} could not be dropped ({other})", shown(&staged_name)),
        };
        error.state(state)
    })?;
    Ok(DatabaseRestored {
        name: request.name.clone(),
        of: chosen.database.name.clone(),
        server: server.name(),
        tables: staged.tables,
        replaced: there.is_some(),
        drop: route.shell_command("dropdb", &request.name),
        elapsed: began.elapsed(),
    })
}

/// The database that `only` names, or the only one that there is.
fn choose<'a>(archive: &'a Archive, only: &[String]) -> Result<Chosen<'a>> {
    let sources = archive.head().map(|head| head.sources.as_slice()).unwrap_or_default();
    let all = sources.iter().filter(|source| source.details.failed.is_none()).flat_map(|source| {
        let of_source = source.details.postgres.iter();
        of_source.flat_map(move |recorded| {
            recorded.databases.iter().map(move |database| Chosen { source, recorded, database })
        })
    });
    let name = |chosen: &Chosen<'_>| format!("{}/{}", chosen.source.name, chosen.database.name);
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

/// Never over a database that an app uses.
fn refuse_live(name: &str, server: &Server, chosen: &Chosen<'_>, config: Option<&Config>) -> Result<()> {
    let sources = config.into_iter().flat_map(|config| config.apps.values()).flat_map(|app| app.sources.values());
    let mut on_it = sources.filter_map(|source| match source {
        config::Source::Postgres(postgres) if postgres.server.keywords == server.keywords => Some(&postgres.databases),
        _ => None,
    });
    let is_live =
        chosen.database.name == name || on_it.any(|databases| databases.iter().any(|database| database == name));
    if !is_live && !OF_THE_SERVER.contains(&name) && !name.is_empty() && name.len() <= swap::NAME_MAX {
        return Ok(());
    }
    let what = if is_live { "is a live one" } else { "is no name that a copy can have" };
    Err(Error::new(ErrorKind::Usage, format!("--to-database {}: that {what}", quoted(name)))
        .state(UNTOUCHED)
        .next("choose another name; without --to-database the restore replaces the live one"))
}

/// Whether a database has nothing of its own in it.
fn is_empty(route: &crate::pg::Route, name: &str, id: &str, watch: Watch<'_>) -> Result<bool> {
    let mut session = Session::open(route, name, &swap::application(id))?;
    facts::is_empty(&mut session, watch.cancel)
}

/// Only one entry, to where it is needed.
struct One<'a>(&'a [u8]);

impl Layout for One<'_> {
    fn spot(&self, path: &EntryPath) -> Option<(usize, Vec<u8>)> {
        (path.as_bytes() == self.0).then(|| (0, DUMP.to_vec()))
    }
}

/// Calls `use_it` with the dump of a database, unpacked and compared; it is gone afterwards.
fn with_dump<T>(
    archive: &Archive,
    database: &PostgresDatabase,
    data_dir: &Path,
    threads: Option<usize>,
    watch: Watch<'_>,
    use_it: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    crate::lock::make_private_dir(data_dir)?;
    let scratch = {
        let _lock = scratch::lock_dir(data_dir)?;
        for (path, text) in scratch::abandoned(data_dir)? {
            if text == scratch::COPYING {
                scratch::remove(&path);
            }
        }
        Scratch::create(data_dir, scratch::COPYING)?
    };
    let unpack = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(&scratch.new, flags, Mode::empty())
            .map_err(|error| lifeboat_store::Error::io("open", &scratch.new, error))?;
        let fill = Fill { folders: &[folder.as_fd()], layout: &One(database.path.as_bytes()), devices: false, threads };
        fill.run(archive, watch)?;
        let dump = scratch.new.join("dump");
        if dump.is_file() {
            return use_it(&dump);
        }
        Err(Error::new(ErrorKind::Corrupt, format!("the dump of {} is not in the archive", shown(&database.name))))
    };
    let done = unpack();
    scratch::remove(&scratch.path);
    done
}
