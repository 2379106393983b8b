//! Restoring over a live database in one transaction: for a role that may not
//! create databases, or a disk without room for a second one. The server makes
//! it all or nothing. A schema of ours, made in the same transaction, says
//! afterwards whether it was done.

use std::collections::BTreeMap;
use std::path::Path;

use lifeboat_format::record::Rows;
use serde::{Deserialize, Serialize};

use super::facts::{self, shown};
use super::{Access, Route, Server, Session, Tools, ident, script, swap};
use crate::{Cancel, Error, ErrorKind, Result};

/// How long a lock is waited for that a session of others has.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '30s'";

/// One database that is restored over itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InPlace {
    pub(crate) server: Server,
    /// Its source in the snapshot.
    pub(crate) source: String,
    pub(crate) name: String,
    pub(crate) oid: u32,
    /// Rows that must be there, by table.
    pub(crate) rows: BTreeMap<String, u64>,
    /// Who owns what is in it, where the owners of the dump are not restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) only_owner: Option<String>,
    /// Whether nobody gets the rights in it that were backed up.
    #[serde(default)]
    pub(crate) no_privileges: bool,
}

/// What was counted exactly.
pub(crate) fn exact(tables: &BTreeMap<String, Rows>) -> BTreeMap<String, u64> {
    tables.iter().filter(|(_, rows)| !rows.estimated).map(|(table, rows)| (table.clone(), rows.rows)).collect()
}

impl InPlace {
    fn marker(id: &str) -> String {
        ident(&swap::application(id))
    }

    fn session(&self, id: &str) -> Result<(Route, Session)> {
        let route = self.server.route()?;
        let session = Session::open(&route, &self.name, &swap::application(id))?;
        Ok((route, session))
    }

    fn tools(&self, session: &mut Session, cancel: &Cancel) -> Result<Tools> {
        let version = facts::major(facts::version(session, cancel)?);
        // Ours may have been made by a newer pg_dump than the server's.
        Tools::newest_from(version, self.server.bin_dir.as_deref(), cancel)
    }

    /// Keeps the live state as a dump in `file`.
    ///
    /// # Errors
    /// Those of pg_dump.
    pub(crate) fn keep(&self, file: &Path, id: &str, cancel: &Cancel) -> Result<()> {
        let (route, mut session) = self.session(id)?;
        let tools = self.tools(&mut session, cancel)?;
        let dbname = format!("--dbname={}", route.conninfo(&self.name, &swap::application(id)));
        let to = format!("--file={}", file.display());
        // A database may have another encoding set for its sessions.
        let encoding = format!("--encoding={}", session.value("SHOW server_encoding", cancel)?.unwrap_or_default());
        let argv = tools.command("pg_dump", &["--format=custom", "--no-password", &encoding, &dbname, &to]);
        let ended = Access::by(&route).tool(&argv).run(Some(cancel))?;
        if !ended.is_success() {
            let what = format!("{} could not be kept: {}", shown(&self.name), ended.describe());
            return Err(Error::new(ErrorKind::Failed, what));
        }
        let synced = std::fs::File::open(file).and_then(|file| file.sync_all());
        synced.map_err(|error| lifeboat_store::Error::io("sync", file, error).into())
    }

    /// Whether [`InPlace::apply`] was done and not taken back.
    ///
    /// # Errors
    /// When the server is not reached.
    pub(crate) fn is_applied(&self, id: &str) -> Result<bool> {
        let (_, mut session) = self.session(id)?;
        let sql = "SELECT 1 FROM pg_namespace WHERE nspname = $1";
        Ok(!session.rows(sql, &[&swap::application(id)], &Cancel::new())?.is_empty())
    }

    /// Makes the database what the dump in `file` holds, in one transaction;
    /// with the mark that it was done, or without any.
    ///
    /// # Errors
    /// The server's; then nothing has changed.
    pub(crate) fn apply(&self, file: &Path, is_forward: bool, id: &str, cancel: &Cancel) -> Result<()> {
        let (_, mut session) = self.session(id)?;
        swap::end_sessions_in(&mut session, self.oid, cancel)?;
        let tools = self.tools(&mut session, cancel)?;
        let from = file.to_string_lossy();
        let mut arguments = vec!["--exit-on-error".to_owned(), "--file=-".to_owned()];
        // What is put back is put back as it was.
        if let Some(owner) = self.only_owner.as_ref().filter(|_| is_forward) {
            arguments.extend(["--no-owner".to_owned(), format!("--role={owner}")]);
        }
        arguments.extend((self.no_privileges && is_forward).then(|| "--no-privileges".to_owned()));
        arguments.extend(["--".to_owned(), from.into_owned()]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let argv = tools.command("pg_restore", &arguments);
        let access = Access::none();
        let mut text = access.tool(&argv).stream(cancel)?;
        session.run(&format!("BEGIN; {LOCK_TIMEOUT}"), cancel)?;
        for statement in clear(&mut session, cancel)? {
            session.run(&statement, cancel)?;
        }
        script::run_inside(session.client(), &mut text, &self.name, cancel)?;
        session.run("RESET ROLE; SET search_path = pg_catalog; SET row_security = off", cancel)?;
        if is_forward {
            self.compare(&mut session, cancel)?;
            session.run(&format!("CREATE SCHEMA {}", Self::marker(id)), cancel)?;
        }
        session.run("COMMIT", cancel)?;
        super::stage::analyze(&mut session, cancel)
    }

    fn compare(&self, session: &mut Session, cancel: &Cancel) -> Result<()> {
        let found = super::stage::count(session, |table| self.rows.contains_key(table), cancel)?;
        let expected = self.rows.iter().map(|(table, rows)| (table.clone(), Rows { rows: *rows, estimated: false }));
        super::stage::compare_rows(&self.name, &expected.collect(), &found)
    }

    /// Ends what a run of the restore that is gone left at work.
    ///
    /// # Errors
    /// The server's, or when it does not end.
    pub(crate) fn end_ours(&self, id: &str) -> Result<()> {
        let (_, mut session) = self.session(id)?;
        swap::end_ours(&mut session, id)
    }

    /// Takes the mark away.
    ///
    /// # Errors
    /// The server's.
    pub(crate) fn unmark(&self, id: &str) -> Result<()> {
        let (_, mut session) = self.session(id)?;
        session.run(&format!("DROP SCHEMA IF EXISTS {}", Self::marker(id)), &Cancel::new())
    }
}

/// The statements that empty a database, as far as it is its owner's: what is
/// restored is exactly the dump, and not mixed with what was there.
fn clear(session: &mut Session, cancel: &Cancel) -> Result<Vec<String>> {
    let own = "oid >= 16384";
    let of = |session: &mut Session, sql: String| -> Result<Vec<String>> {
        Ok(session.rows(&sql, &[], cancel)?.iter().map(|row| row.get(0)).collect())
    };
    let mut all =
        of(session, format!("SELECT format('DROP PUBLICATION %I', pubname) FROM pg_publication WHERE {own}"))?;
    all.extend(of(
        session,
        format!("SELECT format('DROP EVENT TRIGGER %I', evtname) FROM pg_event_trigger WHERE {own}"),
    )?);
    // Extensions take their own with them, before their schemas go.
    all.extend(of(
        session,
        format!("SELECT format('DROP EXTENSION IF EXISTS %I CASCADE', extname) FROM pg_extension WHERE {own}"),
    )?);
    all.extend(of(
        session,
        format!("SELECT format('DROP SERVER IF EXISTS %I CASCADE', srvname) FROM pg_foreign_server WHERE {own}"),
    )?);
    all.extend(of(session, format!("SELECT format('DROP SCHEMA IF EXISTS %I CASCADE', nspname) FROM pg_namespace WHERE {own} AND nspname !~ '^pg_' AND nspname <> 'public'"))?);
    all.extend(of(session, "SELECT format('SELECT lo_unlink(%s)', oid) FROM pg_largeobject_metadata".to_owned())?);
    all.extend(reset_public(session, cancel)?);
    // `public` itself stays: a dump does not make it anew.
    let public = "(SELECT oid FROM pg_namespace WHERE nspname = 'public')";
    all.extend(of(session, format!(
        "SELECT format('DROP %s IF EXISTS %s CASCADE', CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' \
         WHEN 'S' THEN 'SEQUENCE' WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END, oid::regclass) \
         FROM pg_class WHERE relnamespace = {public} AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') AND {own} \
         AND NOT relispartition AND NOT (relkind = 'S' AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass \
         AND d.objid = pg_class.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i'))) \
         ORDER BY relkind = 'c', oid DESC"
    ))?);
    all.extend(of(session, format!(
        "SELECT format('DROP ROUTINE IF EXISTS %s CASCADE', oid::regprocedure) FROM pg_proc WHERE pronamespace = {public} AND {own} AND prokind <> 'a'"
    ))?);
    all.extend(of(session, format!(
        "SELECT format('DROP AGGREGATE IF EXISTS %s CASCADE', oid::regprocedure) FROM pg_proc WHERE pronamespace = {public} AND {own} AND prokind = 'a'"
    ))?);
    all.extend(of(session, format!(
        "SELECT format('DROP %s IF EXISTS %s CASCADE', CASE typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, oid::regtype) \
         FROM pg_type WHERE typnamespace = {public} AND {own} AND typtype IN ('d', 'e', 'r') ORDER BY oid DESC"
    ))?);
    for (kind, table, name) in [
        ("COLLATION", "pg_collation", "coll"),
        ("CONVERSION", "pg_conversion", "con"),
        ("TEXT SEARCH CONFIGURATION", "pg_ts_config", "cfg"),
        ("TEXT SEARCH DICTIONARY", "pg_ts_dict", "dict"),
        ("STATISTICS", "pg_statistic_ext", "stx"),
    ] {
        let sql = format!(
            "SELECT format('DROP {kind} IF EXISTS public.%I CASCADE', {name}name) FROM {table} WHERE {name}namespace = {public} AND {own}"
        );
        all.extend(of(session, sql)?);
    }
    all.extend(of(session, format!("SELECT format('DROP OPERATOR IF EXISTS %s CASCADE', oid::regoperator) FROM pg_operator WHERE oprnamespace = {public} AND {own}"))?);
    Ok(all)
}

/// The statements that make the schema `public` what it is in a new database:
/// a dump says only how it differs from that.
fn reset_public(session: &mut Session, cancel: &Cancel) -> Result<Vec<String>> {
    const USUAL_COMMENT: &str = "standard public schema";
    let of = "FROM pg_namespace n LEFT JOIN pg_init_privs i ON i.objoid = n.oid AND i.classoid = 'pg_namespace'::regclass \
              WHERE nspname = 'public'";
    let columns = "obj_description(n.oid, 'pg_namespace'), n.nspacl::text IS DISTINCT FROM i.initprivs::text, \
                   n.nspowner::regrole::text, current_setting('server_version_num')::int >= 150000";
    let rows = session.rows(&format!("SELECT {columns} {of}"), &[], cancel)?;
    let Some(row) = rows.first() else { return Ok(vec!["CREATE SCHEMA public".to_owned()]) };
    let (comment, differs, owner): (Option<String>, bool, String) = (row.get(0), row.get(1), row.get(2));
    let mut all = Vec::new();
    if row.get(3) && owner != "pg_database_owner" {
        all.push("ALTER SCHEMA public OWNER TO pg_database_owner".to_owned());
    }
    if comment.as_deref() != Some(USUAL_COMMENT) {
        all.push(format!("COMMENT ON SCHEMA public IS '{USUAL_COMMENT}'"));
    }
    if differs {
        let grants = |form: &str, acl: &str| {
            format!(
                "SELECT format('{form}', a.privilege_type, CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END) \
                 FROM (SELECT n.nspacl, n.nspowner, i.initprivs {of}) s, \
                 aclexplode(coalesce({acl}, acldefault('n', s.nspowner))) a"
            )
        };
        for sql in [
            grants("REVOKE %s ON SCHEMA public FROM %s CASCADE", "s.nspacl"),
            grants("GRANT %s ON SCHEMA public TO %s", "s.initprivs"),
        ] {
            all.extend(session.rows(&sql, &[], cancel)?.iter().map(|row| row.get::<_, String>(0)));
        }
    }
    Ok(all)
}
