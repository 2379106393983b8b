//! Making a database from a dump, beside the live ones.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use lifeboat_format::record::{DatabaseAttributes, PostgresDatabase, Role, Rows};

use super::facts::{self, Database, shown};
use super::{Access, Route, Session, Tools, ident, literal, quoted, script, swap};
use crate::report::Watch;
use crate::{Cancel, Error, ErrorKind, Result};

/// Where databases are for which no other place was named.
const USUAL_TABLESPACE: &str = "pg_default";

/// How a dump becomes a database.
pub(crate) struct Staging<'a> {
    pub(crate) route: &'a Route,
    pub(crate) maintenance_db: &'a str,
    pub(crate) tools: &'a Tools,
    /// The id of the restore.
    pub(crate) id: &'a str,
    /// The owners of what is in it are not restored: all belongs to the database's owner.
    pub(crate) no_owner: bool,
    /// Nor who may do what with it.
    pub(crate) no_privileges: bool,
    /// How many things are restored at once.
    pub(crate) jobs: usize,
}

/// A database that was made from a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Staged {
    pub(crate) oid: u32,
    /// Rows of each table, counted.
    pub(crate) tables: BTreeMap<String, u64>,
}

impl Staging<'_> {
    /// Makes the database `name` of the dump `recorded` in `file`. It gets what
    /// `live` has, the database that it replaces; else what was recorded.
    ///
    /// # Errors
    /// The server's, or those of pg_restore; what was made is not removed.
    pub(crate) fn make(
        &self,
        name: &str,
        recorded: &PostgresDatabase,
        file: &Path,
        live: Option<&Database>,
        watch: Watch<'_>,
    ) -> Result<Staged> {
        let cancel = watch.cancel;
        let mut session = self.session(self.maintenance_db)?;
        let mut attributes = match live {
            Some(live) => live.attributes.clone(),
            None => self.fitting(&recorded.attributes, &mut session, cancel)?,
        };
        // Of a dump that came without a manifest nothing is known.
        if attributes.owner.is_empty() {
            session.user().clone_into(&mut attributes.owner);
        }
        session.run(&create(name, &attributes), cancel)?;
        let made = facts::database(&mut session, name, cancel)?;
        let oid = made.map(|made| made.oid).ok_or_else(|| Error::new(ErrorKind::Failed, "the new database is gone"))?;
        self.fill(name, recorded, file, &attributes.owner, watch)?;
        for statement in dress(name, &attributes) {
            session.run(&statement, cancel)?;
        }
        let mut own = self.session(name)?;
        analyze(&mut own, cancel)?;
        let tables = count(&mut own, |table| recorded.tables.contains_key(table), cancel)?;
        Ok(Staged { oid, tables })
    }

    /// What was recorded, as far as it is asked for and the server has the roles.
    fn fitting(
        &self,
        recorded: &DatabaseAttributes,
        session: &mut Session,
        cancel: &Cancel,
    ) -> Result<DatabaseAttributes> {
        let mut attributes = recorded.clone();
        if !facts::has_tablespace(session, &recorded.tablespace, cancel)? {
            USUAL_TABLESPACE.clone_into(&mut attributes.tablespace);
        }
        if self.no_privileges {
            attributes.grants = None;
        }
        if self.no_owner {
            let of_settings = recorded.settings.iter().filter_map(|setting| setting.role.clone());
            let named: Vec<String> = of_settings.chain([recorded.owner.clone()]).collect();
            let missing = facts::missing_roles(session, &named, cancel)?;
            if missing.contains(&recorded.owner) {
                session.user().clone_into(&mut attributes.owner);
            }
            attributes.settings.retain(|setting| setting.role.as_ref().is_none_or(|role| !missing.contains(role)));
        }
        Ok(attributes)
    }

    fn session(&self, database: &str) -> Result<Session> {
        Session::open(self.route, database, &swap::application(self.id))
    }

    fn fill(&self, name: &str, recorded: &PostgresDatabase, file: &Path, owner: &str, watch: Watch<'_>) -> Result<()> {
        if recorded.format == "plain" {
            return self.run_script(name, recorded, file, owner, watch);
        }
        let conninfo = self.route.conninfo(name, &swap::application(self.id));
        let (dbname, jobs, role) =
            (format!("--dbname={conninfo}"), format!("--jobs={}", self.jobs), format!("--role={owner}"));
        let file = file.to_string_lossy();
        let mut arguments = vec!["--exit-on-error", "--no-password", &dbname, &jobs];
        if self.no_owner {
            arguments.extend(["--no-owner", &role]);
        }
        arguments.extend(self.no_privileges.then_some("--no-privileges"));
        arguments.extend(["--", &file]);
        let argv = self.tools.command("pg_restore", &arguments);
        let ended = Access::by(self.route).tool(&argv).run(Some(watch.cancel))?;
        if ended.is_success() {
            return Ok(());
        }
        let what = format!("the dump of {} could not be restored: {}", shown(&recorded.name), ended.describe());
        let error = Error::new(kind_of(ended.said()), what);
        Err(match kind_of(ended.said()) {
            ErrorKind::Denied => error.next("restore as a superuser, or with --no-owner --no-privileges"),
            _ => error,
        })
    }

    /// SQL never runs as a superuser: it could do anything on the host.
    fn run_script(
        &self,
        name: &str,
        recorded: &PostgresDatabase,
        file: &Path,
        owner: &str,
        watch: Watch<'_>,
    ) -> Result<()> {
        let failed = |error| Error::from(lifeboat_store::Error::io("read", file, error));
        let mut text = File::open(file).map_err(failed)?;
        let mut session = self.session(name)?;
        let is_super = session.value("SELECT rolsuper FROM pg_roles WHERE rolname = current_user", watch.cancel)?;
        let progress = &mut |_| {};
        if is_super.as_deref() != Some("t") {
            return script::run(session.client(), &mut text, &recorded.name, watch.cancel, progress).map(drop);
        }
        let role = TemporaryRole::make(&mut session, owner, self.id, watch.cancel)?;
        let done = self.as_role(&role, (name, &recorded.name), owner, &mut text, watch);
        let dropped = role.remove(owner, &mut session);
        done.and(dropped)
    }

    /// Runs the SQL in the database `name`, which was called `was` where it was backed up.
    fn as_role(
        &self,
        role: &TemporaryRole,
        (name, was): (&str, &str),
        owner: &str,
        text: &mut File,
        watch: Watch<'_>,
    ) -> Result<()> {
        let route = self.route.with_login(&role.name, &role.password);
        let mut session = Session::open(&route, name, &swap::application(self.id)).map_err(|error| {
            error.next("plain SQL is not run by a superuser: connect as the database's owner, or let pg_hba.conf allow passwords")
        })?;
        session.run(&format!("SET ROLE {}", ident(owner)), watch.cancel)?;
        script::run(session.client(), text, was, watch.cancel, &mut |_| {}).map(drop)
    }
}

/// A login that may do what a role may and is no superuser. Setting the role
/// alone would be none: the script could set it back.
struct TemporaryRole {
    name: String,
    password: String,
}

impl TemporaryRole {
    fn make(session: &mut Session, owner: &str, id: &str, cancel: &Cancel) -> Result<Self> {
        let sql = format!("SELECT rolsuper FROM pg_roles WHERE rolname = {}", literal(owner));
        if session.value(&sql, cancel)?.as_deref() == Some("t") {
            let what = format!(
                "plain SQL is not run by a superuser, and {} belongs to {}, who is one",
                shown(session.database()),
                quoted(owner)
            );
            return Err(Error::new(ErrorKind::Denied, what)
                .next("give the live database to a role that is no superuser, or back it up in the custom format"));
        }
        let role = Self { name: swap::temporary_role(id), password: lifeboat_store::durable::random_hex() };
        session.run(
            &format!(
                "CREATE ROLE {0} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD {1}; GRANT {2} TO {0}",
                ident(&role.name),
                literal(&role.password),
                ident(owner)
            ),
            cancel,
        )?;
        Ok(role)
    }

    fn remove(self, owner: &str, session: &mut Session) -> Result<()> {
        let (name, owner) = (ident(&self.name), ident(owner));
        // What it came to own although the script should have made all as the owner goes to that one: never to
        // us, or a function of a script would run with our rights.
        session.run(
            &format!("REASSIGN OWNED BY {name} TO {owner}; DROP OWNED BY {name}; DROP ROLE {name}"),
            &Cancel::new(),
        )
    }
}

/// What a program's last words mean.
fn kind_of(said: &str) -> ErrorKind {
    let says = |text: &str| said.contains(text);
    if says("No space left on device") || says("could not extend file") {
        ErrorKind::NoSpace
    } else if says("permission denied")
        || says("must be owner")
        || says("must be superuser")
        || says("must be member")
        || says("must be able to SET ROLE")
    {
        ErrorKind::Denied
    } else if says("unsupported version") {
        ErrorKind::Unsupported
    } else if says("did not find magic string")
        || says("unexpected end of file")
        || says("could not read from input file")
        || says("input file is too short")
        || says("does not appear to be a valid archive")
    {
        ErrorKind::Corrupt
    } else {
        ErrorKind::Failed
    }
}

/// The statement that makes an empty database: as the server does by itself, where
/// the encoding is not known.
fn create(name: &str, attributes: &DatabaseAttributes) -> String {
    let DatabaseAttributes { owner, encoding, collate, ctype, tablespace, .. } = attributes;
    if encoding.is_empty() {
        return format!("CREATE DATABASE {} TEMPLATE template0 OWNER {}", ident(name), ident(owner));
    }
    let mut sql = format!(
        "CREATE DATABASE {} TEMPLATE template0 OWNER {} ENCODING {} LC_COLLATE {} LC_CTYPE {}",
        ident(name),
        ident(owner),
        literal(encoding),
        literal(collate),
        literal(ctype)
    );
    let mut add = |text: String| sql.push_str(&text);
    // To name the usual one takes a right that it does not take to get it.
    if tablespace != USUAL_TABLESPACE {
        add(format!(" TABLESPACE {}", ident(tablespace)));
    }
    match (attributes.locale_provider.as_str(), &attributes.locale) {
        ("icu", Some(locale)) => add(format!(" LOCALE_PROVIDER icu ICU_LOCALE {}", literal(locale))),
        ("builtin", Some(locale)) => add(format!(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {}", literal(locale))),
        _ => {}
    }
    if let Some(rules) = &attributes.icu_rules {
        add(format!(" ICU_RULES {}", literal(rules)));
    }
    sql
}

/// What makes a database the one it was, once it is filled.
fn dress(name: &str, attributes: &DatabaseAttributes) -> Vec<String> {
    let database = ident(name);
    let mut statements = Vec::new();
    if attributes.connection_limit != -1 {
        statements.push(format!("ALTER DATABASE {database} CONNECTION LIMIT {}", attributes.connection_limit));
    }
    if let Some(comment) = &attributes.comment {
        statements.push(format!("COMMENT ON DATABASE {database} IS {}", literal(comment)));
    }
    if let Some(grants) = &attributes.grants {
        statements.push(format!("REVOKE ALL ON DATABASE {database} FROM PUBLIC, {}", ident(&attributes.owner)));
        for grant in grants {
            // What a privilege is called is a word and no name: anything else is not taken for one.
            if !grant.privilege.chars().all(|c| c.is_ascii_uppercase()) {
                continue;
            }
            let role = grant.role.as_deref().map_or_else(|| "PUBLIC".to_owned(), ident);
            let option = if grant.grantable { " WITH GRANT OPTION" } else { "" };
            statements.push(format!("GRANT {} ON DATABASE {database} TO {role}{option}", grant.privilege));
        }
    }
    statements.extend(attributes.settings.iter().map(|setting| facts::set(Some(name), setting)));
    statements
}

/// Gathers what makes queries quick. Where that fails, they are slow, and nothing else.
///
/// # Errors
/// On cancel only.
pub(super) fn analyze(session: &mut Session, cancel: &Cancel) -> Result<()> {
    if session.run("ANALYZE", cancel).is_ok() {
        return Ok(());
    }
    // A table of another server that is not reached ends it for all.
    for table in facts::tables(session, cancel)? {
        session.run(&format!("ANALYZE {}", table.sql()), cancel).unwrap_or(());
        cancel.check()?;
    }
    Ok(cancel.check()?)
}

/// Counts the rows of the tables that are wanted.
pub(super) fn count(
    session: &mut Session,
    is_wanted: impl Fn(&str) -> bool,
    cancel: &Cancel,
) -> Result<BTreeMap<String, u64>> {
    let mut counted = BTreeMap::new();
    for table in facts::tables(session, cancel)? {
        let name = table.full_name();
        if is_wanted(&name) {
            let rows = session.value(&format!("SELECT count(*) FROM ONLY {}", table.sql()), cancel)?;
            counted.insert(name, rows.and_then(|rows| rows.parse().ok()).unwrap_or(0));
        }
    }
    Ok(counted)
}

/// Compares the rows of a restored database with those recorded; exact with exact only.
///
/// # Errors
/// [`ErrorKind::VerificationFailed`] with the first tables that differ.
pub(crate) fn compare_rows(name: &str, recorded: &BTreeMap<String, Rows>, found: &BTreeMap<String, u64>) -> Result<()> {
    let exact = recorded.iter().filter(|(_, rows)| !rows.estimated);
    let wrong = exact.filter_map(|(table, rows)| match found.get(table) {
        Some(there) if *there == rows.rows => None,
        Some(there) => Some(format!("{} has {there} rows, expected {}", quoted(table), rows.rows)),
        None => Some(format!("{} is missing", quoted(table))),
    });
    let wrong: Vec<String> = wrong.take(5).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let what = format!("{} is not what was backed up: {}", shown(name), wrong.join("; "));
    Err(Error::new(ErrorKind::VerificationFailed, what))
}

/// The statements that make a role. It gets no password, and is never a superuser.
pub(crate) fn create_role(role: &Role) -> Vec<String> {
    let name = ident(&role.name);
    let is_known = |option: &&String| ["INHERIT", "CREATEDB", "LOGIN"].contains(&option.as_str());
    let options: Vec<&str> = role.options.iter().filter(is_known).map(String::as_str).collect();
    let inherit = if options.contains(&"INHERIT") { "" } else { "NOINHERIT " };
    let mut statements =
        vec![format!("CREATE ROLE {name} {inherit}{} CONNECTION LIMIT {}", options.join(" "), role.connection_limit)];
    if let Some(until) = &role.valid_until {
        statements.push(format!("ALTER ROLE {name} VALID UNTIL {}", literal(until)));
    }
    if let Some(comment) = &role.comment {
        statements.push(format!("COMMENT ON ROLE {name} IS {}", literal(comment)));
    }
    let own = |setting: &&lifeboat_format::record::Setting| setting.role.as_ref() == Some(&role.name);
    statements.extend(role.settings.iter().filter(own).map(|setting| facts::set(None, setting)));
    statements
}

/// The memberships of new roles, once all are there.
pub(crate) fn grant_memberships(role: &Role) -> impl Iterator<Item = String> + '_ {
    role.member_of.iter().map(|of| format!("GRANT {} TO {}", ident(of), ident(&role.name)))
}

#[cfg(test)]
mod tests {
    use lifeboat_format::record::{Grant, Setting};

    use super::*;

    fn attributes() -> DatabaseAttributes {
        DatabaseAttributes {
            owner: "o\"w".to_owned(),
            encoding: "UTF8".to_owned(),
            locale_provider: "icu".to_owned(),
            collate: "C".to_owned(),
            ctype: "C".to_owned(),
            locale: Some("de-DE".to_owned()),
            tablespace: "wide".to_owned(),
            connection_limit: 7,
            grants: Some(vec![
                Grant { role: None, privilege: "CONNECT".to_owned(), grantable: false },
                Grant { role: Some("r".to_owned()), privilege: "CREATE".to_owned(), grantable: true },
                Grant { role: Some("r".to_owned()), privilege: "ALL ON x; DROP".to_owned(), grantable: true },
            ]),
            settings: vec![Setting { role: None, name: "work_mem".to_owned(), value: "1MB".to_owned() }],
            comment: Some("it's".to_owned()),
            ..DatabaseAttributes::default()
        }
    }

    /// Shows D4.
    #[test]
    fn a_database_is_made_as_it_was() {
        assert_eq!(
            create("d", &attributes()),
            "CREATE DATABASE \"d\" TEMPLATE template0 OWNER \"o\"\"w\" ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' \
             TABLESPACE \"wide\" LOCALE_PROVIDER icu ICU_LOCALE 'de-DE'"
        );
        assert_eq!(
            dress("d", &attributes()),
            [
                "ALTER DATABASE \"d\" CONNECTION LIMIT 7",
                "COMMENT ON DATABASE \"d\" IS 'it''s'",
                "REVOKE ALL ON DATABASE \"d\" FROM PUBLIC, \"o\"\"w\"",
                "GRANT CONNECT ON DATABASE \"d\" TO PUBLIC",
                "GRANT CREATE ON DATABASE \"d\" TO \"r\" WITH GRANT OPTION",
                "ALTER DATABASE \"d\" SET \"work_mem\" TO '1MB'",
            ]
        );
    }

    /// Shows D4.
    #[test]
    fn roles_are_made_without_what_could_harm() {
        let options = ["SUPERUSER", "LOGIN", "CREATEDB", "REPLICATION"].map(str::to_owned).to_vec();
        let role = Role {
            name: "r".to_owned(),
            options,
            connection_limit: -1,
            member_of: vec!["g".to_owned()],
            ..Role::default()
        };
        assert_eq!(create_role(&role), ["CREATE ROLE \"r\" NOINHERIT LOGIN CREATEDB CONNECTION LIMIT -1"]);
        assert_eq!(grant_memberships(&role).collect::<Vec<_>>(), ["GRANT \"g\" TO \"r\""]);
    }

    /// Shows D11.
    #[test]
    fn rows_are_compared_where_both_were_counted() {
        let rows = |rows, estimated| Rows { rows, estimated };
        let recorded = BTreeMap::from([("s.a".to_owned(), rows(3, false)), ("s.b".to_owned(), rows(100, true))]);
        let found = |a| BTreeMap::from([("s.a".to_owned(), a), ("s.b".to_owned(), 90)]);
        compare_rows("d", &recorded, &found(3)).unwrap();
        let error = compare_rows("d", &recorded, &found(2)).unwrap_err();
        assert_eq!(error.what(), "the database d is not what was backed up: s.a has 2 rows, expected 3");
        assert!(compare_rows("d", &recorded, &BTreeMap::new()).unwrap_err().what().contains("s.a is missing"));
    }
}
