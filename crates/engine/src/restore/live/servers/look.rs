//! What a plan says of databases of servers, and what stands in their way.

use lifeboat_format::record::{Head, Postgres, PostgresDatabase, Source};
use serde::Serialize;

use super::super::LiveRequest;
use super::super::name::Name;
use super::super::plan::LivePlan;
use super::super::step::{REMOVED, SWAP};
use super::super::target::Targets;
use super::super::terms::{Mode, Over, Root, RootKind, Terms, absolute};
use super::{NOT_MERGED, place_of};
use crate::pg::facts::{self, Database};
use crate::pg::inplace::{self, InPlace};
use crate::pg::swap::{self, Exchange, Swap};
use crate::pg::{Server, Session, Tools, literal, quoted};
use crate::size::size;
use crate::{Cancel, Error, ErrorKind, Result, config};

/// Databases that every server has, to work from.
const MAINTENANCE_DBS: [&str; 2] = ["postgres", "template1"];

/// A database of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedDatabase {
    /// Its source.
    pub source: String,
    /// Its server.
    pub server: String,
    /// Its name.
    pub name: String,
    /// Whether there is one, which would be replaced.
    pub exists: bool,
    /// Bytes on the server's disk of the one that is there.
    pub live_bytes: Option<u64>,
    /// Bytes that the backed up one took there.
    pub snapshot_bytes: u64,
    /// Sessions in it, which would be ended.
    pub sessions: u64,
    /// Bytes that are free where the server keeps it; `None` where that is not known.
    pub free_bytes: Option<u64>,
    /// The tablespace where it was, which the server lacks: it is made in the usual one.
    pub missing_tablespace: Option<String>,
}

impl PlannedDatabase {
    /// Which it is, for people.
    pub(in super::super) fn place(&self) -> String {
        format!("{} on {}", quoted(&self.name), self.server)
    }

    /// What becomes of it, for people.
    #[must_use]
    pub fn line(&self) -> String {
        let (name, server) = (quoted(&self.name), &self.server);
        if !self.exists {
            let lacks = self
                .missing_tablespace
                .as_ref()
                .map(|name| format!(" (in the usual tablespace: there is no {})", quoted(name)));
            return format!("create the database {name} on {server}{}", lacks.unwrap_or_default());
        }
        let bytes = self.live_bytes.map(|bytes| format!(" ({})", size(bytes))).unwrap_or_default();
        let sessions = match self.sessions {
            0 => String::new(),
            1 => ", and end 1 session in it".to_owned(),
            more => format!(", and end {more} sessions in it"),
        };
        format!("replace the database {name}{bytes} on {server}{sessions}")
    }
}

/// What is known of databases of one source.
struct Wanted<'a> {
    source: &'a Source,
    recorded: &'a Postgres,
    server: Server,
    databases: Vec<&'a PostgresDatabase>,
}

/// The recorded databases of a source that a root restores.
fn chosen<'a>(root: &Root, source: &Source, recorded: &'a Postgres) -> Vec<&'a PostgresDatabase> {
    let is_chosen =
        |database: &&PostgresDatabase| root.only.is_empty() || root.only.contains(&pattern(source, database));
    recorded.databases.iter().filter(is_chosen).collect()
}

/// The pattern that selects just the dump of a database.
fn pattern(source: &Source, database: &PostgresDatabase) -> String {
    let inner = database.path.strip_prefix(&source.place()).unwrap_or(&database.path);
    format!("/{}", crate::source::matcher::literal(inner.trim_start_matches('/')))
}

/// `--only SOURCE/DATABASE` as a pattern of the entry that is its dump.
pub(in super::super) fn pattern_of(source: &Source, database: &str) -> Result<String> {
    let recorded = source.details.postgres.iter().flat_map(|postgres| &postgres.databases);
    let names: Vec<&str> = recorded.clone().map(|database| database.name.as_str()).collect();
    let found = recorded.into_iter().find(|recorded| recorded.name == database).ok_or_else(|| {
        let meant =
            config::nearest(database, &names).map(|meant| format!("did you mean {meant}? ")).unwrap_or_default();
        Error::new(
            ErrorKind::Usage,
            format!("--only {}/{}: the snapshot has no such database", source.name, quoted(database)),
        )
        .state("nothing was written, and nothing was stopped")
        .next(format!("{meant}its databases are: {}", names.join(", ")))
    })?;
    Ok(pattern(source, found))
}

/// The sources of databases that are restored.
fn wanted<'a>(targets: &Targets<'a>, terms: &Terms) -> Result<Vec<Wanted<'a>>> {
    let mut all = Vec::new();
    for root in terms.roots.iter().filter(|root| root.kind == RootKind::Postgres) {
        let head: &'a Head = targets.head;
        let source = head.sources.iter().find(|source| source.name.as_bytes() == root.source.0);
        let Some((source, recorded)) = source.and_then(|source| Some((source, source.details.postgres.as_ref()?)))
        else {
            continue;
        };
        let configured = targets.app.and_then(|app| match app.sources.get(&source.name) {
            Some(config::Source::Postgres(postgres)) => Some(&postgres.server),
            _ => None,
        });
        let server = configured.ok_or_else(|| {
            Error::new(ErrorKind::Usage, format!("no server is configured for the source {}", source.name))
                .state("nothing was written, and nothing was stopped")
                .next("write the source into lifeboat.yaml, or restore one database with --only SOURCE/DATABASE --to-database NAME")
        })?;
        all.push(Wanted { source, recorded, server: server.clone(), databases: chosen(root, source, recorded) });
    }
    Ok(all)
}

/// Adds what would become of databases to a plan.
pub(in super::super) fn survey(
    targets: &Targets<'_>,
    request: &LiveRequest,
    id: &str,
    plan: &mut LivePlan,
    cancel: &Cancel,
) -> Result<()> {
    for wanted in wanted(targets, &plan.terms)? {
        let mut look = Look { request, id, plan, cancel };
        look.source(&wanted)?;
    }
    Ok(())
}

struct Look<'a> {
    request: &'a LiveRequest,
    id: &'a str,
    plan: &'a mut LivePlan,
    cancel: &'a Cancel,
}

impl Look<'_> {
    fn source(&mut self, wanted: &Wanted<'_>) -> Result<()> {
        if self.request.mode == Mode::Merge {
            let what = format!("the source {}: {}", wanted.source.name, NOT_MERGED.0);
            self.plan.refuse(ErrorKind::Usage, what, NOT_MERGED.1);
            return Ok(());
        }
        let mut server = wanted.server.clone();
        let is_restored = |name: &str| wanted.databases.iter().any(|database| database.name == name);
        // What is renamed cannot be worked from.
        if is_restored(&server.maintenance_db) {
            let other = MAINTENANCE_DBS.iter().find(|name| !is_restored(name));
            server.maintenance_db = other.copied().unwrap_or_default().to_owned();
        }
        let opened =
            server.route().and_then(|route| Session::open(&route, &server.maintenance_db, &swap::application(self.id)));
        let mut session = match opened {
            Ok(session) => session,
            Err(error) => {
                let next = error.next_step().unwrap_or("start the server").to_owned();
                self.plan.refuse(ErrorKind::Failed, error.what(), next);
                return Ok(());
            }
        };
        self.server(wanted, &mut session)?;
        let mut exchanges = Vec::new();
        for recorded in &wanted.databases {
            let live = facts::database(&mut session, &recorded.name, self.cancel)?;
            if let Some(live) = &live {
                self.rights(live, &mut session)?;
                if !self.request.in_place {
                    self.ties(live, &mut session)?;
                }
            }
            if live.is_none() {
                self.owner(wanted, recorded, &mut session)?;
            }
            self.line(wanted, recorded, live.as_ref(), &mut session)?;
            if self.request.in_place {
                self.over(wanted, recorded, live, &server);
                continue;
            }
            exchanges.push(Exchange {
                source: wanted.source.name.clone(),
                live: recorded.name.clone(),
                staged: swap::staged_name(&recorded.name, self.id),
                was: swap::replaced_name(&recorded.name, self.id),
                new: None,
                old: live.map(|live| live.oid),
            });
        }
        if exchanges.is_empty() {
            return Ok(());
        }
        // All databases of a server change in one transaction, whichever source they belong to.
        match self.plan.terms.servers.iter_mut().find(|swap| swap.server == server) {
            Some(swap) => swap.databases.extend(exchanges),
            None => self.plan.terms.servers.push(Swap { server, databases: exchanges }),
        }
        Ok(())
    }

    /// A database that is restored over itself.
    fn over(&mut self, wanted: &Wanted<'_>, recorded: &PostgresDatabase, live: Option<Database>, server: &Server) {
        let Some(live) = live else {
            let what = format!("there is no {} to restore over", facts::shown(&recorded.name));
            return self.plan.refuse(ErrorKind::Failed, what, "restore without --in-place, or create it empty first");
        };
        if recorded.format == "plain" {
            let what =
                format!("the dump of {} is SQL, which --in-place does not restore", facts::shown(&recorded.name));
            return self.plan.refuse(ErrorKind::Usage, what, "restore without --in-place");
        }
        let terms = &self.plan.terms;
        let Some((stage, path)) = place_of(terms, &wanted.source.name, recorded) else { return };
        let database = InPlace {
            server: server.clone(),
            source: wanted.source.name.clone(),
            name: recorded.name.clone(),
            oid: live.oid,
            rows: inplace::exact(&recorded.tables),
            only_owner: self.request.no_owner.then(|| live.attributes.owner.clone()),
            no_privileges: self.request.no_privileges,
        };
        let flat: Vec<u8> = path.iter().map(|byte| if *byte == b'/' { b'.' } else { *byte }).collect();
        let dump = Name::of(&absolute(&stage.join(SWAP), &path));
        let kept = Name::of(&absolute(&stage.join(REMOVED), &flat));
        self.plan.terms.in_place.push(Over { database, dump, kept });
    }

    /// What stands in the way, whichever database it is.
    fn server(&mut self, wanted: &Wanted<'_>, session: &mut Session) -> Result<()> {
        let version = facts::version(session, self.cancel)?;
        let (here, there) = (facts::major(version), facts::major(wanted.recorded.server_version));
        if here < there {
            let what = format!(
                "the snapshot is of PostgreSQL {there}, and {} is PostgreSQL {here}, which is older",
                session.name()
            );
            self.plan.refuse(ErrorKind::Unsupported, what, "restore into a server of that version or a newer one");
        }
        if let Err(error) = Tools::find(here.max(there), wanted.server.bin_dir.as_deref(), self.cancel) {
            let next = error.next_step().unwrap_or_default().to_owned();
            self.plan.refuse(error.kind(), error.what(), next);
        }
        if session.value("SELECT pg_is_in_recovery()", self.cancel)?.as_deref() == Some("t") {
            let what = format!("{} is a standby, which cannot be written to", session.name());
            self.plan.refuse(ErrorKind::Failed, what, "restore into the primary server");
        }
        let creates = "SELECT rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = current_user";
        if !self.request.in_place && session.value(creates, self.cancel)?.as_deref() != Some("t") {
            let what = format!("{} may not create databases on {}", quoted(session.user()), session.name());
            self.plan.refuse(ErrorKind::Denied, what, "let it by `ALTER ROLE … CREATEDB`, or restore with --in-place");
        }
        let mut extensions: Vec<String> =
            wanted.databases.iter().flat_map(|database| database.extensions.clone()).collect();
        extensions.sort();
        extensions.dedup();
        let rows = session.rows("SELECT name::text FROM pg_available_extensions", &[], self.cancel)?;
        let there: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let missing: Vec<String> = extensions.into_iter().filter(|name| !there.contains(name)).collect();
        if !missing.is_empty() {
            let what = format!("{} lacks the extension {}", session.name(), quoted(&missing.join(", ")));
            self.plan.refuse(
                ErrorKind::Failed,
                what,
                "install its package on the server, then run the same command again",
            );
        }
        if !(self.request.no_owner && self.request.no_privileges) {
            let names: Vec<String> = wanted.recorded.roles.iter().map(|role| role.name.clone()).collect();
            let missing = facts::missing_roles(session, &names, self.cancel)?;
            self.groups(wanted, &missing, session)?;
            let known = &mut self.plan.roles;
            known.extend(missing.into_iter().filter(|name| !known.contains(name)).collect::<Vec<_>>());
        }
        Ok(())
    }

    /// Whether the roles that are made stay what a database's roles are: a manifest may say anything.
    fn groups(&mut self, wanted: &Wanted<'_>, missing: &[String], session: &mut Session) -> Result<()> {
        for role in wanted.recorded.roles.iter().filter(|role| missing.contains(&role.name)) {
            let mighty = facts::running_programs(session, &role.member_of, self.cancel)?;
            if !mighty.is_empty() {
                let what = format!(
                    "the role {} would be made a member of {}, which can run programs on the host of {}",
                    quoted(&role.name),
                    quoted(&mighty.join(", ")),
                    session.name()
                );
                let next = "create that role by hand, or restore with --no-owner --no-privileges";
                self.plan.refuse(ErrorKind::Unsafe, what, next);
            }
        }
        Ok(())
    }

    /// Whether we may exchange a database and end the sessions in it.
    fn rights(&mut self, live: &Database, session: &mut Session) -> Result<()> {
        let owner = literal(&live.attributes.owner);
        let owns =
            format!("SELECT rolsuper OR pg_has_role({owner}, 'MEMBER') FROM pg_roles WHERE rolname = current_user");
        if session.value(&owns, self.cancel)?.as_deref() != Some("t") {
            let what = format!(
                "{} belongs to {}, and {} may not rename it",
                facts::shown(&live.name),
                quoted(&live.attributes.owner),
                quoted(session.user())
            );
            self.plan.refuse(ErrorKind::Denied, what, "connect as its owner or as a superuser");
        }
        let strangers = format!(
            "SELECT string_agg(DISTINCT a.usename::text, ', ') FROM pg_stat_activity a, pg_roles me, pg_roles r \
             WHERE a.datid = {} AND me.rolname = current_user AND r.oid = a.usesysid AND NOT me.rolsuper \
             AND (r.rolsuper OR NOT (pg_has_role(a.usesysid, 'MEMBER') OR pg_has_role('pg_signal_backend', 'MEMBER')))",
            live.oid
        );
        if let Some(users) = session.value(&strangers, self.cancel)? {
            let what = format!(
                "{} may not end the sessions of {} in {}",
                quoted(session.user()),
                quoted(&users),
                facts::shown(&live.name)
            );
            self.plan.refuse(ErrorKind::Denied, what, "grant it pg_signal_backend, or connect as a superuser");
        }
        Ok(())
    }

    /// Whether the owner of a database that is made is there, or will be.
    fn owner(&mut self, wanted: &Wanted<'_>, recorded: &PostgresDatabase, session: &mut Session) -> Result<()> {
        let owner = &recorded.attributes.owner;
        let is_made = wanted.recorded.roles.iter().any(|role| role.name == *owner);
        let is_told = is_made && !(self.request.no_owner && self.request.no_privileges);
        let name = std::slice::from_ref(owner);
        // Where nothing is known of it, it becomes whoever restores it.
        if owner.is_empty()
            || self.request.no_owner
            || is_told
            || facts::missing_roles(session, name, self.cancel)?.is_empty()
        {
            return Ok(());
        }
        let what = format!(
            "{} belonged to {}, whom {} does not know",
            facts::shown(&recorded.name),
            quoted(owner),
            session.name()
        );
        self.plan.refuse(ErrorKind::Failed, what, "create that role, or restore with --no-owner --no-privileges");
        Ok(())
    }

    /// What is tied to a database and would not go with its name.
    fn ties(&mut self, live: &Database, session: &mut Session) -> Result<()> {
        let (oid, name) = (live.oid, literal(&live.name));
        for (what, sql, next) in [
            (
                "a prepared transaction",
                format!("SELECT string_agg(gid, ', ') FROM pg_prepared_xacts WHERE database = {name}"),
                "end it by COMMIT PREPARED or ROLLBACK PREPARED",
            ),
            (
                "a logical replication slot",
                format!("SELECT string_agg(slot_name::text, ', ') FROM pg_replication_slots WHERE database = {name}"),
                "drop it by pg_drop_replication_slot, and make it again after the restore",
            ),
            (
                "a subscription",
                format!("SELECT string_agg(subname::text, ', ') FROM pg_subscription WHERE subdbid = {oid}"),
                "drop it by DROP SUBSCRIPTION, and make it again after the restore",
            ),
        ] {
            if let Some(found) = session.value(&sql, self.cancel)? {
                self.plan.refuse(
                    ErrorKind::InUse,
                    format!("{} has {what}: {}", facts::shown(&live.name), quoted(&found)),
                    next,
                );
            }
        }
        Ok(())
    }

    fn line(
        &mut self,
        wanted: &Wanted<'_>,
        recorded: &PostgresDatabase,
        live: Option<&Database>,
        session: &mut Session,
    ) -> Result<()> {
        let sessions = live.map(|live| {
            format!(
                "SELECT count(*) FROM pg_stat_activity WHERE datid = {} AND backend_type = 'client backend'",
                live.oid
            )
        });
        let sessions = sessions.map(|sql| session.value(&sql, self.cancel)).transpose()?.flatten();
        let tablespace = &recorded.attributes.tablespace;
        let missing_tablespace = live.is_none() && !facts::has_tablespace(session, tablespace, self.cancel)?;
        let line = PlannedDatabase {
            source: wanted.source.name.clone(),
            server: session.name(),
            name: recorded.name.clone(),
            exists: live.is_some(),
            live_bytes: live.and_then(|live| live.size_bytes),
            snapshot_bytes: recorded.size_bytes,
            sessions: sessions.and_then(|count| count.parse().ok()).unwrap_or(0),
            missing_tablespace: missing_tablespace.then(|| recorded.attributes.tablespace.clone()),
            free_bytes: free_bytes(
                session,
                live.map_or(&recorded.attributes.tablespace, |live| &live.attributes.tablespace),
                self.cancel,
            )?,
        };
        if !self.request.in_place && line.free_bytes.is_some_and(|free| free < recorded.size_bytes) {
            let free = size(line.free_bytes.unwrap_or_default());
            let what = format!(
                "not enough space for a second {}: need {}, have {free}",
                facts::shown(&recorded.name),
                size(recorded.size_bytes)
            );
            self.plan.refuse(ErrorKind::NoSpace, what, "make room on the server, or restore with --in-place");
        }
        let name = facts::shown(&recorded.name);
        if wanted.recorded.schema_only {
            self.plan.lacks.push(format!("the rows of {name}, whose structure alone was backed up"));
            if live.is_some() {
                let what = format!("the snapshot holds the structure of {name} alone, which would take its place");
                self.plan.refuse(ErrorKind::Usage, what, "restore it beside the live one with --to-database NAME");
            }
        }
        let empty = recorded.excluded_tables.iter().map(|table| quoted(table)).collect::<Vec<_>>().join(", ");
        if !empty.is_empty() {
            self.plan.lacks.push(format!("rows of tables of {name}, left out on purpose: {empty}"));
        }
        if recorded.format == "plain" {
            self.plan.scripts.push(format!("on {}, for {}", line.server, facts::shown(&recorded.name)));
        }
        self.plan.databases.push(line);
        Ok(())
    }
}

/// Room in a tablespace of a server on this host; `None` where we cannot see that.
fn free_bytes(session: &mut Session, tablespace: &str, cancel: &Cancel) -> Result<Option<u64>> {
    if !session.is_local() {
        return Ok(None);
    }
    let sql = format!("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = {}", literal(tablespace));
    // The usual one has no place of its own.
    let location = session.value(&sql, cancel)?.filter(|location| !location.is_empty());
    let sql = "SELECT setting FROM pg_settings WHERE name = 'data_directory'";
    let dir = session.value(sql, cancel)?.map(std::path::PathBuf::from);
    // A directory of the same name here may be another's, if the server runs in a container.
    let dir = dir.filter(|dir| dir.join("postmaster.pid").exists());
    let dir = dir.map(|dir| location.map_or(dir, std::path::PathBuf::from));
    Ok(dir.and_then(|dir| rustix::fs::statvfs(&dir).ok()).map(|found| found.f_bavail.saturating_mul(found.f_frsize)))
}
