//! What a server says of itself, its databases and its roles.

use std::collections::BTreeMap;

use lifeboat_format::record::{DatabaseAttributes, Grant, Role, Setting};
use serde::Deserialize;

use super::session::{Session, quoted};
use crate::{Cancel, Error, ErrorKind, Result};

/// The oldest version that is worked with: older ones have no JSON.
pub(crate) const OLDEST: u32 = 9_05_00;
/// OIDs below belong to the server itself.
const FIRST_OWN_OID: u32 = 16384;
/// What a session of a role may do, as `pg_roles` calls it and as SQL does.
const OPTIONS: [(&str, &str); 7] = [
    ("rolsuper", "SUPERUSER"),
    ("rolinherit", "INHERIT"),
    ("rolcreaterole", "CREATEROLE"),
    ("rolcreatedb", "CREATEDB"),
    ("rolcanlogin", "LOGIN"),
    ("rolreplication", "REPLICATION"),
    ("rolbypassrls", "BYPASSRLS"),
];
/// Whether the role `p` of a query can run programs on the server's host.
/// Before version 16, who may create roles may join the role that runs programs.
pub(crate) const RUNS_PROGRAMS: &str = "(p.rolsuper \
     OR p.rolcreaterole AND pg_catalog.current_setting('server_version_num')::int < 160000 \
     OR p.rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files'))";
/// Settings that are lists of names, each quoted by itself (GUC_LIST_QUOTE in PostgreSQL's guc_tables).
const LISTS: [&str; 7] = [
    "local_preload_libraries",
    "oauth_validator_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// A database as it stands on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Database {
    pub(crate) oid: u32,
    pub(crate) name: String,
    pub(crate) attributes: DatabaseAttributes,
    pub(crate) allows_connections: bool,
    pub(crate) is_template: bool,
    /// Bytes on disk; `None` where we may not ask.
    pub(crate) size_bytes: Option<u64>,
}

/// A row of `pg_database`: its columns differ from version to version.
#[derive(Deserialize)]
struct DatabaseRow {
    oid: String,
    datname: String,
    encoding: i32,
    datcollate: String,
    datctype: String,
    #[serde(default)]
    datlocprovider: Option<String>,
    /// Version 15 and 16.
    #[serde(default)]
    daticulocale: Option<String>,
    /// Since version 17.
    #[serde(default)]
    datlocale: Option<String>,
    #[serde(default)]
    daticurules: Option<String>,
    datconnlimit: i64,
    datallowconn: bool,
    datistemplate: bool,
}

/// The version of the server, as `server_version_num`.
pub(crate) fn version(session: &mut Session, cancel: &Cancel) -> Result<u32> {
    let text = session.value("SHOW server_version_num", cancel)?.unwrap_or_default();
    let version =
        text.parse().map_err(|_| Error::new(ErrorKind::Failed, format!("`{text}` is no version of a server")))?;
    if version < OLDEST {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("the server has the version {version}, which is too old"),
        ));
    }
    Ok(version)
}

/// The major version of a `server_version_num`: 15 of 150018, 9 of 90600.
pub(crate) fn major(version: u32) -> u32 {
    version / 10000
}

/// The database called `name`; `None` where there is none.
pub(crate) fn database(session: &mut Session, name: &str, cancel: &Cancel) -> Result<Option<Database>> {
    find(session, "d.datname = $1", &[&name], cancel)
}

/// The database with an OID.
pub(crate) fn database_by_oid(session: &mut Session, oid: u32, cancel: &Cancel) -> Result<Option<Database>> {
    find(session, "d.oid = $1", &[&oid], cancel)
}

fn find(
    session: &mut Session,
    which: &str,
    param: &[&(dyn postgres::types::ToSql + Sync)],
    cancel: &Cancel,
) -> Result<Option<Database>> {
    let sql = format!(
        "SELECT (to_jsonb(d) || jsonb_build_object('oid', d.oid::text))::text, r.rolname::text, t.spcname::text, \
         pg_encoding_to_char(d.encoding)::text, shobj_description(d.oid, 'pg_database'), d.datacl IS NOT NULL, \
         CASE WHEN has_database_privilege(d.oid, 'CONNECT') THEN pg_database_size(d.oid) END \
         FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba JOIN pg_tablespace t ON t.oid = d.dattablespace WHERE {which}"
    );
    let rows = session.rows(&sql, param, cancel)?;
    let Some(row) = rows.first() else { return Ok(None) };
    let text: String = row.get(0);
    let found: DatabaseRow = serde_json::from_str(&text).map_err(|error| {
        Error::new(ErrorKind::Failed, format!("what the server says of a database is not understood: {error}"))
    })?;
    let oid: u32 = found.oid.parse().unwrap_or_default();
    let has_grants: bool = row.get(5);
    let grants = if has_grants { Some(grants(session, oid, cancel)?) } else { None };
    let provider = match found.datlocprovider.as_deref() {
        Some("i") => "icu",
        Some("b") => "builtin",
        _ => "libc",
    };
    let attributes = DatabaseAttributes {
        owner: row.get(1),
        encoding: row.get(3),
        locale_provider: provider.to_owned(),
        collate: found.datcollate,
        ctype: found.datctype,
        locale: found.datlocale.or(found.daticulocale),
        icu_rules: found.daticurules,
        tablespace: row.get(2),
        connection_limit: found.datconnlimit,
        grants,
        settings: settings(session, "s.setdatabase = $1", oid, cancel)?,
        comment: row.get(4),
    };
    debug_assert!(found.encoding >= 0, "only old servers have databases without an encoding");
    let size: Option<i64> = row.get(6);
    Ok(Some(Database {
        oid,
        name: found.datname,
        attributes,
        allows_connections: found.datallowconn,
        is_template: found.datistemplate,
        size_bytes: size.and_then(|size| u64::try_from(size).ok()),
    }))
}

fn grants(session: &mut Session, oid: u32, cancel: &Cancel) -> Result<Vec<Grant>> {
    let sql = "SELECT r.rolname::text, a.privilege_type, a.is_grantable, a.grantee = 0 \
               FROM pg_database d, aclexplode(d.datacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee \
               WHERE d.oid = $1 ORDER BY 1 NULLS FIRST, 2";
    let rows = session.rows(sql, &[&oid], cancel)?;
    // A role that is gone has no name.
    let named = rows.iter().filter(|row| row.get::<_, bool>(3) || row.get::<_, Option<String>>(0).is_some());
    Ok(named.map(|row| Grant { role: row.get(0), privilege: row.get(1), grantable: row.get(2) }).collect())
}

/// Settings that belong to what `which` says of `pg_db_role_setting`.
fn settings(session: &mut Session, which: &str, oid: u32, cancel: &Cancel) -> Result<Vec<Setting>> {
    let sql = format!(
        "SELECT r.rolname::text, c FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole, \
         unnest(s.setconfig) c WHERE {which} ORDER BY 1 NULLS FIRST, 2"
    );
    let rows = session.rows(&sql, &[&oid], cancel)?;
    Ok(rows
        .iter()
        .filter_map(|row| {
            let (role, setting): (Option<String>, String) = (row.get(0), row.get(1));
            let (name, value) = setting.split_once('=')?;
            Some(Setting { role, name: name.to_owned(), value: value.to_owned() })
        })
        .collect())
}

/// The names of the roles that what is in the database of `session` names: owners, grantees, subjects of policies.
pub(crate) fn named_roles(session: &mut Session, cancel: &Cancel) -> Result<Vec<String>> {
    // The first superuser is in no list of dependencies.
    let first_owns =
        ["pg_class WHERE relowner", "pg_namespace WHERE nspowner", "pg_proc WHERE proowner", "pg_type WHERE typowner"];
    let first_owns: Vec<String> =
        first_owns.iter().map(|table| format!("SELECT 1 FROM {table} = 10 AND oid >= {FIRST_OWN_OID}")).collect();
    let sql = format!(
        "SELECT DISTINCT r.rolname::text FROM pg_roles r WHERE r.oid IN ( \
           SELECT s.refobjid FROM pg_shdepend s, pg_database d WHERE d.datname = current_database() \
             AND s.refclassid = 'pg_authid'::regclass \
             AND (s.dbid = d.oid OR (s.classid = 'pg_database'::regclass AND s.objid = d.oid)) \
           UNION SELECT datdba FROM pg_database WHERE datname = current_database()) \
         OR (r.oid = 10 AND EXISTS ({})) ORDER BY 1",
        first_owns.join(" UNION ALL ")
    );
    let rows = session.rows(&sql, &[], cancel)?;
    // Those of the server itself are everywhere.
    Ok(rows.iter().map(|row| row.get(0)).filter(|name: &String| !name.starts_with("pg_")).collect())
}

/// What the roles with these `names` are, and the roles that they are members of.
pub(crate) fn roles(session: &mut Session, names: &[String], cancel: &Cancel) -> Result<Vec<Role>> {
    let sql = "WITH RECURSIVE wanted(oid) AS (SELECT oid FROM pg_roles WHERE rolname = ANY($1) \
               UNION SELECT m.roleid FROM pg_auth_members m JOIN wanted w ON m.member = w.oid) \
               SELECT (to_jsonb(r) - 'rolpassword' - 'rolconfig')::text, r.oid, shobj_description(r.oid, 'pg_authid'), r.rolvaliduntil::text, \
               ARRAY(SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid \
                     WHERE m.member = r.oid ORDER BY 1) \
               FROM pg_roles r WHERE r.oid IN (SELECT oid FROM wanted) AND r.rolname !~ '^pg_' ORDER BY r.rolname";
    let rows = session.rows(sql, &[&names], cancel)?;
    let mut roles = Vec::new();
    for row in rows {
        let text: String = row.get(0);
        let facts: BTreeMap<String, serde_json::Value> = serde_json::from_str(&text).map_err(|error| {
            Error::new(ErrorKind::Failed, format!("what the server says of a role is not understood: {error}"))
        })?;
        let is = |key: &str| facts.get(key).and_then(serde_json::Value::as_bool).unwrap_or(false);
        let options = OPTIONS.iter().filter(|(key, _)| is(key)).map(|(_, option)| (*option).to_owned());
        roles.push(Role {
            name: facts.get("rolname").and_then(|name| name.as_str()).unwrap_or_default().to_owned(),
            options: options.collect(),
            connection_limit: facts.get("rolconnlimit").and_then(serde_json::Value::as_i64).unwrap_or(-1),
            valid_until: row.get(3),
            member_of: row.get(4),
            settings: settings(session, "s.setrole = $1 AND s.setdatabase = 0", row.get(1), cancel)?,
            comment: row.get(2),
        });
    }
    Ok(roles)
}

/// Those of `names` that the server has not.
pub(crate) fn missing_roles(session: &mut Session, names: &[String], cancel: &Cancel) -> Result<Vec<String>> {
    let rows = session.rows("SELECT rolname::text FROM pg_roles WHERE rolname = ANY($1)", &[&names], cancel)?;
    let there: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    Ok(names.iter().filter(|name| !there.contains(name)).cloned().collect())
}

/// Those of the roles `names` whose members can run programs on the server's host.
pub(crate) fn running_programs(session: &mut Session, names: &[String], cancel: &Cancel) -> Result<Vec<String>> {
    let sql = format!(
        "SELECT r.rolname::text FROM pg_roles r WHERE r.rolname = ANY($1) AND EXISTS \
         (SELECT 1 FROM pg_roles p WHERE {RUNS_PROGRAMS} AND pg_has_role(r.oid, p.oid, 'MEMBER')) ORDER BY 1"
    );
    Ok(session.rows(&sql, &[&names], cancel)?.iter().map(|row| row.get(0)).collect())
}

/// Whether the server has a tablespace of that name.
pub(crate) fn has_tablespace(session: &mut Session, name: &str, cancel: &Cancel) -> Result<bool> {
    Ok(!session.rows("SELECT 1 FROM pg_tablespace WHERE spcname = $1", &[&name], cancel)?.is_empty())
}

/// The extensions of the database of `session`, without the one that every database has.
pub(crate) fn extensions(session: &mut Session, cancel: &Cancel) -> Result<Vec<String>> {
    let sql = "SELECT extname::text FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY 1";
    Ok(session.rows(sql, &[], cancel)?.iter().map(|row| row.get(0)).collect())
}

/// Whether the database of `session` has nothing of its own.
pub(crate) fn is_empty(session: &mut Session, cancel: &Cancel) -> Result<bool> {
    let own = ["pg_class", "pg_proc", "pg_type", "pg_namespace", "pg_extension"];
    let own: Vec<String> =
        own.iter().map(|table| format!("EXISTS (SELECT FROM {table} WHERE oid >= {FIRST_OWN_OID})")).collect();
    Ok(session.value(&format!("SELECT NOT ({})", own.join(" OR ")), cancel)?.as_deref() == Some("t"))
}

/// A table that may hold rows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Table {
    pub(crate) schema: String,
    pub(crate) name: String,
    /// The server's estimate of its rows.
    pub(crate) estimate: u64,
    /// Whether it only holds partitions.
    pub(crate) is_partitioned: bool,
    /// What it is a partition of, as [`Table::full_name`].
    pub(crate) partition_of: Option<String>,
}

impl Table {
    /// `schema.table`, for people and manifests.
    pub(crate) fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// As SQL has it.
    pub(crate) fn sql(&self) -> String {
        format!("{}.{}", super::ident(&self.schema), super::ident(&self.name))
    }
}

/// The tables of the database of `session` that a dump holds, those of extensions
/// left out. Waits for no lock.
pub(crate) fn tables(session: &mut Session, cancel: &Cancel) -> Result<Vec<Table>> {
    let sql = "SELECT n.nspname::text, c.relname::text, greatest(c.reltuples, 0)::float8, c.relkind = 'p', \
               (SELECT pn.nspname || '.' || p.relname FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent \
                JOIN pg_namespace pn ON pn.oid = p.relnamespace WHERE i.inhrelid = c.oid AND p.relkind = 'p' LIMIT 1) \
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
               AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') \
               ORDER BY 1, 2";
    let rows = session.rows(sql, &[], cancel)?;
    let whole = |number: f64| format!("{number:.0}").parse().unwrap_or(0);
    Ok(rows
        .iter()
        .map(|row| Table {
            schema: row.get(0),
            name: row.get(1),
            estimate: whole(row.get(2)),
            is_partitioned: row.get(3),
            partition_of: row.get(4),
        })
        .collect())
}

/// The first of the tables of [`tables`] that the user of `session` may not read.
pub(crate) fn unreadable(session: &mut Session, cancel: &Cancel) -> Result<Vec<String>> {
    let sql = "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
               AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') \
               AND NOT has_table_privilege(c.oid, 'SELECT') ORDER BY 1 LIMIT 3";
    Ok(session.rows(sql, &[], cancel)?.iter().map(|row| quoted(row.get(0))).collect())
}

/// The size in bytes of each table that `session` has locked, by
/// [`Table::full_name`]: that of another could not be asked without waiting.
pub(crate) fn sizes(session: &mut Session, cancel: &Cancel) -> Result<BTreeMap<String, u64>> {
    let sql = "SELECT n.nspname || '.' || c.relname, pg_relation_size(c.oid) \
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE c.oid IN (SELECT relation FROM pg_locks WHERE pid = pg_backend_pid() AND granted) AND c.relkind = 'r'";
    let rows = session.rows(sql, &[], cancel)?;
    let sizes = rows.iter().map(|row| (row.get(0), row.get::<_, Option<i64>>(1)));
    Ok(sizes.map(|(name, bytes)| (name, bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0))).collect())
}

/// The statement that gives a setting to a database, or to a role (in one, or everywhere).
pub(crate) fn set(database: Option<&str>, setting: &Setting) -> String {
    use super::{ident, literal};
    let whose = match (&setting.role, database) {
        (Some(role), Some(database)) => format!("ROLE {} IN DATABASE {}", ident(role), ident(database)),
        (Some(role), None) => format!("ROLE {}", ident(role)),
        (None, database) => format!("DATABASE {}", ident(database.unwrap_or_default())),
    };
    let value = if LISTS.contains(&setting.name.to_lowercase().as_str()) {
        let items: Vec<String> = list_items(&setting.value).iter().map(|item| literal(item)).collect();
        if items.is_empty() { "''".to_owned() } else { items.join(", ") }
    } else {
        literal(&setting.value)
    };
    // A setting of an extension has a name of two parts.
    let name: Vec<String> = setting.name.split('.').map(ident).collect();
    format!("ALTER {whose} SET {} TO {value}", name.join("."))
}

/// The items of a list of names, each quoted where it has to be.
fn list_items(text: &str) -> Vec<String> {
    let (mut items, mut item, mut is_quoted, mut has_begun) = (Vec::new(), String::new(), false, false);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if is_quoted && letters.peek() == Some(&'"') => item.extend(letters.next()),
            '"' => (is_quoted, has_begun) = (!is_quoted, true),
            ',' if !is_quoted => {
                items.push(std::mem::take(&mut item));
                has_begun = false;
            }
            letter if letter.is_whitespace() && !is_quoted => {}
            letter => {
                item.push(letter);
                has_begun = true;
            }
        }
    }
    if has_begun {
        items.push(item);
    }
    items
}

/// How people call a database of a server in messages.
pub(crate) fn shown(name: &str) -> String {
    format!("the database {}", quoted(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows D4.
    #[test]
    fn settings_are_given_as_they_were() {
        let set = |name: &str, value: &str, role: Option<&str>| {
            let setting = Setting { role: role.map(str::to_owned), name: name.to_owned(), value: value.to_owned() };
            super::set(Some("d\"b"), &setting)
        };
        assert_eq!(set("work_mem", "64MB", None), "ALTER DATABASE \"d\"\"b\" SET \"work_mem\" TO '64MB'");
        assert_eq!(
            set("search_path", "\"$user\", public, \"a, \"\"b\"", None),
            "ALTER DATABASE \"d\"\"b\" SET \"search_path\" TO '$user', 'public', 'a, \"b'"
        );
        assert_eq!(set("search_path", "\"\"", None), "ALTER DATABASE \"d\"\"b\" SET \"search_path\" TO ''");
        assert_eq!(
            set("app.x", "it's", Some("r")),
            "ALTER ROLE \"r\" IN DATABASE \"d\"\"b\" SET \"app\".\"x\" TO 'it''s'"
        );
    }
}
