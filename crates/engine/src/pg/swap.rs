//! Exchanging databases: the staged ones take the names of the live ones in
//! one transaction of renames. Each is known by its OID, whatever its name is,
//! so that doing and undoing may be repeated.

use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::facts::{self, shown};
use super::{Server, Session, ident, quoted};
use crate::{Cancel, Error, ErrorKind, Result};

/// The longest name of a database, in bytes (NAMEDATALEN).
pub(crate) const NAME_MAX: usize = 63;
/// How much of the database's own name stands in names that are made from it.
const OWN_NAME_MAX: usize = 40;
/// How long sessions are ended until no new one comes.
const END_MAX: Duration = Duration::from_secs(30);
/// How long one is waited for that we may not end.
const DENIED_MAX: Duration = Duration::from_secs(3);
/// How long none must be there.
const QUIET: Duration = Duration::from_secs(1);
const NAP: Duration = Duration::from_millis(100);
/// How long dropping a database may take.
const DROP_MAX_SECONDS: u32 = 120;

/// One database of a restore, with both its sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exchange {
    /// Its source in the snapshot.
    pub(crate) source: String,
    /// The name under which it is used.
    pub(crate) live: String,
    /// The name of the one that comes, as long as it is not live.
    pub(crate) staged: String,
    /// The name of the one that goes, once it is not live any more.
    pub(crate) was: String,
    /// The OID of the one that comes; `None`: none does.
    pub(crate) new: Option<u32>,
    /// The OID of the one that goes; `None`: there was none.
    pub(crate) old: Option<u32>,
}

/// The databases of one server that are exchanged together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Swap {
    pub(crate) server: Server,
    pub(crate) databases: Vec<Exchange>,
}

/// The name of the staged database of a restore.
pub(crate) fn staged_name(database: &str, id: &str) -> String {
    named(database, "lb", id)
}

/// The name of what the restore replaced.
pub(crate) fn replaced_name(database: &str, id: &str) -> String {
    named(database, "was", id)
}

fn named(database: &str, what: &str, id: &str) -> String {
    let own = &database[..database.floor_char_boundary(OWN_NAME_MAX)];
    let name = format!("{own}__{what}_{}", &id[..id.len().min(8)]);
    debug_assert!(name.len() <= NAME_MAX, "the parts are that short");
    name
}

/// The role that SQL of a restore is run by.
pub(super) fn temporary_role(id: &str) -> String {
    staged_name("lifeboat", id)
}

/// What our sessions of a restore are called.
pub(crate) fn application(id: &str) -> String {
    format!("lifeboat-{}", &id[..id.len().min(8)])
}

/// The roles that a restore made on a server, by their OIDs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MadeRoles {
    pub(crate) server: Server,
    /// The database from which they were made.
    pub(crate) database: String,
    pub(crate) oids: Vec<u32>,
}

impl MadeRoles {
    /// Drops those that own nothing and have no rights; somebody may use the others by now.
    ///
    /// # Errors
    /// When the server is not reached.
    pub(crate) fn drop(&self, id: &str) -> Result<()> {
        let mut session = Session::open(&self.server.route()?, &self.database, &application(id))?;
        for oid in &self.oids {
            drop_role(&mut session, "oid = $1", oid).unwrap_or(());
        }
        Ok(())
    }
}

impl Swap {
    fn session(&self, id: &str) -> Result<Session> {
        Session::open(&self.server.route()?, &self.server.maintenance_db, &application(id))
    }

    /// The sides that have an OID.
    fn oids(&self) -> Vec<u32> {
        self.databases.iter().flat_map(|exchange| [exchange.old, exchange.new]).flatten().collect()
    }

    /// Lets nobody into any of them, and ends the sessions that are there,
    /// until none has come for a second.
    ///
    /// # Errors
    /// When one of them does not end, with who it is; or on cancel.
    pub(crate) fn keep_out(&self, id: &str, cancel: &Cancel) -> Result<()> {
        let mut session = self.session(id)?;
        let oids = self.oids();
        for oid in &oids {
            allow(&mut session, *oid, false, cancel)?;
        }
        end_sessions(&mut session, &oids, QUIET, cancel)
    }

    /// Lets everyone into the live ones, and nobody into the others.
    ///
    /// # Errors
    /// The server's.
    pub(crate) fn let_in(&self, id: &str, cancel: &Cancel) -> Result<()> {
        let mut session = self.session(id)?;
        for exchange in &self.databases {
            for oid in [exchange.old, exchange.new].into_iter().flatten() {
                let Some(database) = facts::database_by_oid(&mut session, oid, cancel)? else { continue };
                allow(&mut session, oid, database.name == exchange.live, cancel)?;
            }
        }
        Ok(())
    }

    /// Gives all of them their new names, or (`is_forward` false) their old
    /// ones, in one transaction. What has its name already is left alone.
    ///
    /// # Errors
    /// When one is neither here nor there, or the server refuses.
    pub(crate) fn rename(&self, is_forward: bool, id: &str, cancel: &Cancel) -> Result<()> {
        let mut session = self.session(id)?;
        let mut statements = Vec::new();
        for exchange in &self.databases {
            let (goes, away, comes, home) = if is_forward {
                (exchange.old, &exchange.was, exchange.new, &exchange.staged)
            } else {
                (exchange.new, &exchange.staged, exchange.old, &exchange.was)
            };
            let goes = goes.map(|oid| name_of(&mut session, oid, &exchange.live, is_forward, cancel)).transpose()?;
            let comes = comes.map(|oid| name_of(&mut session, oid, &exchange.live, true, cancel)).transpose()?;
            if goes.flatten().is_some_and(|name| name == exchange.live) {
                statements.push(rename(&exchange.live, away));
            }
            match comes.flatten() {
                Some(name) if name == *home => statements.push(rename(home, &exchange.live)),
                Some(name) if name != exchange.live => {
                    let what = format!("{} was renamed to {} by something else", shown(home), quoted(&name));
                    return Err(Error::new(ErrorKind::Failed, what));
                }
                _ => {}
            }
        }
        if statements.is_empty() {
            return Ok(());
        }
        session.run(&format!("BEGIN; {}; COMMIT", statements.join("; ")), cancel)
    }

    /// Drops those that come, where they are not live: they were not needed after all.
    ///
    /// # Errors
    /// The server's.
    pub(crate) fn drop_staged(&self, id: &str) -> Result<()> {
        let mut session = self.session(id)?;
        end_ours(&mut session, id)?;
        let role = temporary_role(id);
        let named = self.databases.iter().map(|exchange| (&exchange.staged, exchange.new));
        drop_all(&mut session, named)?;
        // A kill may have left the role that ran a script; all that it could own went with the database.
        drop_role(&mut session, "rolname = $1", &role)
    }

    /// Ends what a run of the restore that is gone left at work, so that nothing changes any more.
    ///
    /// # Errors
    /// The server's, or when it does not end.
    pub(crate) fn end_ours(&self, id: &str) -> Result<()> {
        end_ours(&mut self.session(id)?, id)
    }

    /// Drops those that went.
    ///
    /// # Errors
    /// The server's.
    pub(crate) fn drop_replaced(&self, id: &str) -> Result<()> {
        let replaced = self.databases.iter().filter(|exchange| exchange.old.is_some());
        drop_all(&mut self.session(id)?, replaced.map(|exchange| (&exchange.was, exchange.old)))
    }

    /// The exchange that puts back what this one replaced (`is_returned`: what
    /// its rollback took back), made for what is live by now.
    ///
    /// # Errors
    /// When what was kept is not there any more.
    pub(crate) fn reversed(&self, is_returned: bool, id: &str, cancel: &Cancel) -> Result<Self> {
        let mut session = self.session(id)?;
        let mut databases = Vec::new();
        for exchange in &self.databases {
            let (kept, name) =
                if is_returned { (exchange.new, &exchange.staged) } else { (exchange.old, &exchange.was) };
            if let Some(oid) = kept {
                let there = facts::database_by_oid(&mut session, oid, cancel)?;
                if there.is_none_or(|there| there.name != *name) {
                    let what = format!("{} of {} is not what was kept there", shown(name), self.server.name());
                    return Err(Error::new(ErrorKind::Usage, what).state("nothing was changed"));
                }
            }
            let live = facts::database(&mut session, &exchange.live, cancel)?;
            databases.push(Exchange {
                source: exchange.source.clone(),
                live: exchange.live.clone(),
                staged: name.clone(),
                was: replaced_name(&exchange.live, id),
                new: kept,
                old: live.map(|live| live.oid),
            });
        }
        Ok(Self { server: self.server.clone(), databases })
    }
}

fn rename(from: &str, to: &str) -> String {
    format!("ALTER DATABASE {} RENAME TO {}", ident(from), ident(to))
}

/// What the database with this OID is called. `None` where it is gone, unless it `must_be` there.
fn name_of(session: &mut Session, oid: u32, live: &str, must_be: bool, cancel: &Cancel) -> Result<Option<String>> {
    match facts::database_by_oid(session, oid, cancel)? {
        Some(database) => Ok(Some(database.name)),
        None if must_be => Err(Error::new(
            ErrorKind::RollbackIncomplete,
            format!("a side of {} was dropped by something else", shown(live)),
        )),
        None => Ok(None),
    }
}

fn allow(session: &mut Session, oid: u32, is_allowed: bool, cancel: &Cancel) -> Result<()> {
    let Some(database) = facts::database_by_oid(session, oid, cancel)? else { return Ok(()) };
    if database.allows_connections == is_allowed {
        return Ok(());
    }
    session.run(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS {is_allowed}", ident(&database.name)), cancel)
}

/// Who else has a session: pid, user, application, state. Not autovacuum, which has no user (what kind it is
/// an ordinary role is not told): only superusers may end it, and the server does so by itself when a
/// database is renamed or dropped, or somebody waits for its lock.
fn sessions(session: &mut Session, oids: &[u32], cancel: &Cancel) -> Result<Vec<(i32, String)>> {
    let sql = "SELECT a.pid, concat_ws(', ', 'pid ' || a.pid, 'user ' || a.usename, nullif(a.application_name, ''), a.state, \
               a.backend_type) FROM pg_stat_activity a WHERE a.datid = ANY($1) AND a.pid <> pg_backend_pid() \
               AND a.usesysid IS NOT NULL ORDER BY 1";
    Ok(session.rows(sql, &[&oids], cancel)?.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Ends all sessions in these databases, until none has been there for as long as `quiet`.
fn end_sessions(session: &mut Session, oids: &[u32], quiet: Duration, cancel: &Cancel) -> Result<()> {
    let began = Instant::now();
    let mut quiet_since: Option<Instant> = None;
    loop {
        cancel.check()?;
        let there = sessions(session, oids, cancel)?;
        if there.is_empty() {
            if quiet_since.get_or_insert_with(Instant::now).elapsed() >= quiet {
                return Ok(());
            }
        } else {
            quiet_since = None;
            if began.elapsed() > END_MAX {
                let who: Vec<&str> = there.iter().map(|(_, who)| who.as_str()).collect();
                return Err(Error::new(
                    ErrorKind::InUse,
                    format!("a session does not end: {}", quoted(&who.join("; "))),
                )
                .next("stop what uses the database, or name what stops it under `services` in lifeboat.yaml"));
            }
            for (pid, _) in &there {
                match session.rows("SELECT pg_terminate_backend($1)", &[pid], cancel) {
                    // One that we may not end, such as a monitor's, may be about to end by itself.
                    Err(error) if error.kind() == ErrorKind::Denied && began.elapsed() < DENIED_MAX => {}
                    ended => drop(ended?),
                }
            }
        }
        thread::sleep(NAP);
    }
}

/// Drops a role that owns nothing, if it is there.
fn drop_role(session: &mut Session, which: &str, value: &(dyn postgres::types::ToSql + Sync)) -> Result<()> {
    let cancel = Cancel::new();
    let found = session.rows(&format!("SELECT rolname::text FROM pg_roles WHERE {which}"), &[value], &cancel)?;
    let mut names = found.iter().map(|row| row.get::<_, String>(0));
    names.try_for_each(|name| session.run(&format!("DROP ROLE {}", ident(&name)), &cancel))
}

/// Ends the other sessions of the restore `id`. A statement that was sent goes on although nobody waits for
/// its answer, and what it does would come after we have looked.
pub(super) fn end_ours(session: &mut Session, id: &str) -> Result<()> {
    let cancel = Cancel::new();
    let (application, role) = (application(id), temporary_role(id));
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE application_name = $1 AND usename IN (current_user, $2) AND pid <> pg_backend_pid()";
    let began = Instant::now();
    while !session.rows(sql, &[&application, &role], &cancel)?.is_empty() {
        if began.elapsed() > END_MAX {
            let what = format!("a session of an earlier run of this restore does not end on {}", session.name());
            return Err(Error::new(ErrorKind::InUse, what));
        }
        thread::sleep(NAP);
    }
    Ok(())
}

/// Ends the sessions of others in one database.
///
/// # Errors
/// When one does not end.
pub(super) fn end_sessions_in(session: &mut Session, oid: u32, cancel: &Cancel) -> Result<()> {
    end_sessions(session, &[oid], Duration::ZERO, cancel)
}

/// Drops the databases with these names, each only if it has the OID that is
/// known of it. Not to be stopped: what is half cleared away helps nobody.
fn drop_all<'a>(session: &mut Session, named: impl Iterator<Item = (&'a String, Option<u32>)>) -> Result<()> {
    let cancel = Cancel::new();
    for (name, oid) in named {
        let there = facts::database(session, name, &cancel)?;
        if let Some(there) = there.filter(|there| oid.is_none_or(|oid| oid == there.oid)) {
            drop_database(session, name, there.oid, &cancel)?;
        }
    }
    Ok(())
}

/// Drops a database, with all sessions in it.
///
/// # Errors
/// The server's, or when a session does not end.
pub(crate) fn drop_database(session: &mut Session, name: &str, oid: u32, cancel: &Cancel) -> Result<()> {
    allow(session, oid, false, cancel)?;
    end_sessions(session, &[oid], Duration::ZERO, cancel)?;
    // It waits for every process of the server, also for one that hangs.
    session.run(&format!("SET statement_timeout = '{DROP_MAX_SECONDS}s'"), cancel)?;
    let dropped = session.run(&format!("DROP DATABASE {}", ident(name)), cancel);
    let reset = session.run("SET statement_timeout = 0", cancel);
    dropped.and(reset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_keep_their_letters_whole() {
        assert_eq!(staged_name("shop", "0123456789abcdef"), "shop__lb_01234567");
        let long = "ä".repeat(31);
        let name = replaced_name(&long, "0123456789abcdef");
        assert_eq!(name, format!("{}__was_01234567", "ä".repeat(20)));
        assert!(name.len() <= NAME_MAX);
    }
}
