//! Databases of PostgreSQL servers in a restore in place: what the plan says
//! of them (`look`), how they are staged beside the live ones, exchanged, and
//! put back. Their dumps are unpacked and compared as any entries are, into a
//! folder of the data directory.

use lifeboat_format::archive::Archive;
use lifeboat_format::record::{Postgres, PostgresDatabase, Role};

use super::LiveRequest;
use super::journal::{Phase, Story};
use super::name::Name;
use super::step::SWAP;
use super::terms::{Over, Terms, absolute};
use crate::pg::facts;
use crate::pg::inplace::InPlace;
use crate::pg::stage::{self, Staging};
use crate::pg::swap::{self, MadeRoles, Swap};
use crate::pg::{Session, Tools};
use crate::report::Watch;
use crate::{Cancel, Error, ErrorKind, Result, workers};

mod look;

pub use look::PlannedDatabase;
pub(super) use look::{pattern_of, survey};

/// Why rows of such databases are not merged, and what to do instead.
pub(super) const NOT_MERGED: (&str, &str) =
    ("databases of a server cannot be merged", "restore it as a whole, or leave it out with --only");

/// Makes all databases of `terms` beside the live ones, from dumps that were unpacked.
pub(super) fn stage(
    terms: &Terms,
    archive: &Archive,
    request: &LiveRequest,
    id: &str,
    watch: Watch<'_>,
) -> Result<Vec<Swap>> {
    let mut swaps = terms.servers.clone();
    for swap in &mut swaps {
        let route = swap.server.route()?;
        let mut session = Session::open(&route, &swap.server.maintenance_db, &swap::application(id))?;
        let here = facts::major(facts::version(&mut session, watch.cancel)?);
        for exchange in &mut swap.databases {
            let Some(of) = recorded(archive, &exchange.source) else { continue };
            let Some(database) = of.databases.iter().find(|database| database.name == exchange.live) else { continue };
            let tools =
                Tools::find(here.max(facts::major(of.server_version)), swap.server.bin_dir.as_deref(), watch.cancel)?;
            let staging = Staging {
                route: &route,
                maintenance_db: &swap.server.maintenance_db,
                tools: &tools,
                id,
                no_owner: request.no_owner,
                no_privileges: request.no_privileges,
                jobs: workers::count(request.threads),
            };
            let live = facts::database(&mut session, &exchange.live, watch.cancel)?;
            if live.as_ref().map(|live| live.oid) != exchange.old {
                let what = format!(
                    "{} was made or dropped by something else since the plan was made",
                    facts::shown(&exchange.live)
                );
                return Err(
                    Error::new(ErrorKind::Failed, what).next("run the same command again, and look at the new plan")
                );
            }
            let file = dump(terms, &exchange.source, database)?;
            let staged = staging.make(&exchange.staged, database, &file, live.as_ref(), watch)?;
            exchange.new = Some(staged.oid);
            stage::compare_rows(&database.name, &database.tables, &staged.tables)?;
            // A dump may be large, and is not needed any more.
            std::fs::remove_file(&file).map_err(|error| lifeboat_store::Error::io("remove", &file, error))?;
        }
    }
    Ok(swaps)
}

/// What an archive says of a source of databases.
fn recorded<'a>(archive: &'a Archive, source: &str) -> Option<&'a Postgres> {
    let mut sources = archive.head()?.sources.iter();
    sources.find(|other| other.name == source)?.details.postgres.as_ref()
}

/// Makes the roles that a server lacks and what is restored names.
pub(super) fn make_roles(terms: &Terms, archive: &Archive, id: &str, cancel: &Cancel) -> Result<Vec<MadeRoles>> {
    let exchanged = terms.servers.iter().flat_map(|swap| {
        swap.databases.iter().map(move |exchange| (&swap.server, &swap.server.maintenance_db, &exchange.source))
    });
    // Who may not create databases may not be let into another one than the one to restore.
    let over = terms.in_place.iter().map(|over| (&over.database.server, &over.database.name, &over.database.source));
    let mut all = Vec::new();
    for (server, database, source) in exchanged.chain(over) {
        let roles = recorded(archive, source).map(|recorded| recorded.roles.as_slice()).unwrap_or_default();
        if !roles.is_empty() {
            let mut session = Session::open(&server.route()?, database, &swap::application(id))?;
            let oids = create_roles(&mut session, roles, cancel)?;
            all.push(MadeRoles { server: server.clone(), database: database.clone(), oids });
        }
    }
    all.retain(|made| !made.oids.is_empty());
    Ok(all)
}

/// The roles that were made are not needed.
pub(super) fn drop_roles(story: &Story) -> Result<()> {
    story.roles.iter().try_for_each(|made| made.drop(&story.header.id))
}

/// Nobody gets into the databases any more.
pub(super) fn keep_out(story: &Story, cancel: &Cancel) -> Result<()> {
    story.servers.iter().try_for_each(|swap| swap.keep_out(&story.header.id, cancel))
}

/// Everyone gets into those that are live.
pub(super) fn let_in(story: &Story, cancel: &Cancel) -> Result<()> {
    story.servers.iter().try_for_each(|swap| swap.let_in(&story.header.id, cancel))
}

/// Ends what a run that is gone left at work on the servers.
pub(super) fn end_ours(story: &Story) -> Result<()> {
    let id = &story.header.id;
    story.servers.iter().try_for_each(|swap| swap.end_ours(id))?;
    story.header.terms.in_place.iter().try_for_each(|over| over.database.end_ours(id))
}

/// Exchanges them, or takes that back.
pub(super) fn rename(story: &Story, is_forward: bool, cancel: &Cancel) -> Result<()> {
    story.servers.iter().try_for_each(|swap| swap.rename(is_forward, &story.header.id, cancel))
}

/// Those that were staged are not needed.
pub(super) fn drop_staged(story: &Story) -> Result<()> {
    story.servers.iter().try_for_each(|swap| swap.drop_staged(&story.header.id))
}

/// What is kept goes.
pub(super) fn drop_kept(story: &Story) -> Result<()> {
    let id = &story.header.id;
    let drop = |swap: &Swap| match story.phase {
        Phase::Returned => swap.drop_staged(id),
        _ => swap.drop_replaced(id),
    };
    story.servers.iter().try_for_each(drop)
}

/// The exchanges that put back what is kept.
pub(super) fn reversed(story: &Story, id: &str, cancel: &Cancel) -> Result<Vec<Swap>> {
    let is_returned = story.phase == Phase::Returned;
    story.servers.iter().map(|swap| swap.reversed(is_returned, id, cancel)).collect()
}

/// What is kept on servers, for people.
pub(super) fn kept_names(story: &Story) -> impl Iterator<Item = String> + '_ {
    story.servers.iter().flat_map(move |swap| {
        let kept = swap.databases.iter().filter_map(move |exchange| match story.phase {
            Phase::Returned => exchange.new.map(|_| &exchange.staged),
            _ => exchange.old.map(|_| &exchange.was),
        });
        kept.map(|name| format!("{} on {}", facts::shown(name), swap.server.name()))
    })
}

/// Keeps what is restored over, when nobody changes it any more.
pub(super) fn keep_over(story: &Story, cancel: &Cancel) -> Result<()> {
    let keep = |over: &Over| over.database.keep(over.kept.as_path(), &story.header.id, cancel);
    story.header.terms.in_place.iter().try_for_each(keep)
}

/// Restores over the live databases what is not yet, or takes that back.
pub(super) fn write_over(story: &Story, is_forward: bool, cancel: &Cancel) -> Result<()> {
    let id = &story.header.id;
    for over in &story.header.terms.in_place {
        if over.database.is_applied(id)? != is_forward {
            let file = if is_forward { &over.dump } else { &over.kept };
            over.database.apply(file.as_path(), is_forward, id, cancel)?;
        }
    }
    Ok(())
}

/// The restore stands.
pub(super) fn unmark(story: &Story) -> Result<()> {
    story.header.terms.in_place.iter().try_for_each(|over| over.database.unmark(&story.header.id))
}

/// What puts back what is kept of databases that were restored over.
pub(super) fn over_reversed(story: &Story, id: &str) -> Vec<Over> {
    let turned = |over: &Over| {
        let kept = [&over.kept.0, &b"-undo-"[..], &id.as_bytes()[..8]].concat();
        // How many rows there were is not known; what is in the dump is what there was.
        let how = InPlace { rows: Default::default(), only_owner: None, no_privileges: false, ..over.database.clone() };
        Over { database: how, dump: over.kept.clone(), kept: Name(kept) }
    };
    story.header.terms.in_place.iter().map(turned).collect()
}

/// The stage where the dump of a database is unpacked, and its path there.
fn place_of(terms: &Terms, source: &str, database: &PostgresDatabase) -> Option<(std::path::PathBuf, Vec<u8>)> {
    let root = terms.roots.iter().find(|root| root.source.0 == source.as_bytes())?;
    let inner = super::name::below(database.path.as_bytes(), &root.entry_path(b""))?;
    let (place, path) = root.place(inner, &terms.places)?;
    Some((terms.places[place].stage.as_path().to_owned(), path))
}

/// Where the dump of a database was unpacked.
fn dump(terms: &Terms, source: &str, database: &PostgresDatabase) -> Result<std::path::PathBuf> {
    let (stage, path) = place_of(terms, source, database).ok_or_else(|| {
        Error::new(ErrorKind::Failed, format!("the dump of {} is not in the stage", facts::shown(&database.name)))
    })?;
    Ok(absolute(&stage.join(SWAP), &path))
}

/// Makes those of `roles` that the server lacks; none that it has is changed.
fn create_roles(session: &mut Session, roles: &[Role], cancel: &Cancel) -> Result<Vec<u32>> {
    let names: Vec<String> = roles.iter().map(|role| role.name.clone()).collect();
    let missing = facts::missing_roles(session, &names, cancel)?;
    let made: Vec<&Role> = roles.iter().filter(|role| missing.contains(&role.name)).collect();
    let mut statements: Vec<String> = made.iter().flat_map(|role| stage::create_role(role)).collect();
    statements.extend(made.iter().flat_map(|role| stage::grant_memberships(role)));
    if statements.is_empty() {
        return Ok(Vec::new());
    }
    // All or none of them: an error leaves the server as it was.
    session.run(&format!("BEGIN; {}; COMMIT", statements.join("; ")), cancel).map_err(|error| {
        error.next("create the roles that are missing by hand, or restore with --no-owner --no-privileges")
    })?;
    let rows = session.rows("SELECT oid FROM pg_roles WHERE rolname = ANY($1)", &[&missing], cancel)?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
