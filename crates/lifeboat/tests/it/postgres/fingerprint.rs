//! All that a database is, as a text: two databases whose texts are equal differ
//! in nothing that a user could see.

use std::collections::BTreeMap;

use super::cluster::{Cluster, literal};

/// What `pg_database` says, without what differs for every database.
const ATTRIBUTES: &str = "
SELECT key, value FROM pg_database d, jsonb_each_text(to_jsonb(d)) WHERE datname = NAME AND key NOT IN
  ('oid', 'datname', 'datdba', 'dattablespace', 'datacl', 'datfrozenxid', 'datminmxid', 'datlastsysoid');
SELECT 'owner', pg_get_userbyid(datdba) FROM pg_database WHERE datname = NAME;
SELECT 'tablespace', spcname FROM pg_database d JOIN pg_tablespace t ON t.oid = dattablespace WHERE datname = NAME;
SELECT 'comment', quote_nullable(shobj_description(oid, 'pg_database')) FROM pg_database WHERE datname = NAME;
SELECT 'grant', grantor::regrole, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
  privilege_type, is_grantable
  FROM pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba))) WHERE datname = NAME;
SELECT 'setting', CASE setrole WHEN 0 THEN 'all' ELSE setrole::regrole::text END, unnest(setconfig)
  FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase WHERE datname = NAME;
SELECT 'tablespace of', c.oid::regclass, spcname FROM pg_class c JOIN pg_tablespace t ON t.oid = reltablespace
  WHERE NOT relisshared AND relnamespace <> 'pg_toast'::regnamespace;
SELECT 'extension', extname, extversion, extnamespace::regnamespace FROM pg_extension;
SELECT 'large object', m.oid, md5(lo_get(m.oid)), pg_get_userbyid(lomowner), lomacl,
  quote_nullable(obj_description(m.oid, 'pg_largeobject')) FROM pg_largeobject_metadata m;
";

/// What holds rows, as `kind`, `schema`, `name`.
const RELATIONS: &str = "
SELECT relkind, quote_ident(nspname), quote_ident(relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind IN ('r', 'm', 'S') AND nspname NOT IN ('pg_catalog', 'information_schema') AND relpersistence <> 't'
  AND relispopulated
ORDER BY 2, 3;
";

/// Values are shown the same way whatever the database sets.
const SESSION: &str = "
SET client_encoding = 'UTF8'; SET search_path = ''; SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET timezone = 'UTC';
SET extra_float_digits = 1; SET bytea_output = 'hex'; SET row_security = off; SET statement_timeout = 0;
";

/// How long the text of one table's rows may get before only its sum is shown.
const SHOWN_BYTES_MAX: usize = 1 << 16;

/// All that the database is; nobody writes to it meanwhile.
pub(crate) fn fingerprint(cluster: &Cluster, database: &str) -> String {
    let attributes = cluster.sql(database, &format!("{SESSION}{}", ATTRIBUTES.replace("NAME", &literal(database))));
    let schema = cluster.client("pg_dump", database, ["--schema-only"]).run().ok().stdout;
    let parts = [sorted(attributes.lines()), entries(&schema).join("\n"), rows(cluster, database)];
    parts.join("\n======\n")
}

/// Two databases are the same in everything but their names.
pub(crate) fn assert_same_database(expected: &str, found: &str, what: &str) {
    if expected == found {
        return;
    }
    let count = |text: &str| {
        let mut lines = BTreeMap::new();
        text.lines().for_each(|line| *lines.entry(line.to_owned()).or_insert(0) += 1);
        lines
    };
    let (old, new) = (count(expected), count(found));
    let only = |these: &BTreeMap<String, i32>, those: &BTreeMap<String, i32>, mark: &str| {
        let lines = these.iter().filter(|(line, count)| those.get(*line) != Some(count));
        lines.map(|(line, _)| format!("{mark} {}\n", line.chars().take(300).collect::<String>())).collect::<String>()
    };
    panic!("{what}: the databases differ\n{}{}", only(&old, &new, "-"), only(&new, &old, "+"));
}

fn sorted<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let mut lines: Vec<&str> = lines.collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// The entries of a plain dump, sorted: pg_dump puts those of one kind and name in the order of their numbers.
fn entries(dump: &str) -> Vec<String> {
    let says_something = |line: &&str| {
        let is_session = line.starts_with("SET default_t") || line.starts_with('\\');
        let is_remark = *line == "--" || line.starts_with("-- Dumped ") || line.starts_with("-- PostgreSQL database");
        !is_session && !is_remark && !line.is_empty()
    };
    let entry = |entry: &str| entry.lines().filter(says_something).collect::<Vec<_>>().join("\n");
    let mut entries: Vec<String> = dump.split("\n--\n-- Name: ").map(entry).collect();
    entries.sort_unstable();
    entries
}

/// The rows of every table and materialized view, and where sequences stand.
fn rows(cluster: &Cluster, database: &str) -> String {
    let relations = cluster.sql(database, RELATIONS);
    let mut script = SESSION.to_owned();
    for relation in relations.lines() {
        let (kind, name) = relation.split_once('|').expect("three columns");
        let name = name.replacen('|', ".", 1);
        let columns = if kind == "S" { "last_value, is_called" } else { "*" };
        // COPY, because a table may have no columns, and values may hold line breaks.
        let quoted = literal(&name);
        script.push_str(&format!(
            "SELECT E'\\n=== ' || {quoted};\nCOPY (SELECT {columns} FROM ONLY {name}) TO STDOUT;\n"
        ));
    }
    let told = cluster.psql(database, &script, []).run().ok().stdout;
    told.split("\n=== ").map(table).collect::<Vec<_>>().join("\n")
}

/// One table's rows in an order that says nothing.
fn table(told: &str) -> String {
    let (name, rows) = told.split_once('\n').unwrap_or((told, ""));
    let text = sorted(rows.lines());
    let text = if text.len() > SHOWN_BYTES_MAX {
        format!("{} bytes, {}", text.len(), hex::encode(sum(text.as_bytes())))
    } else {
        text
    };
    format!("=== {name}, {} rows\n{text}", rows.lines().count())
}

fn sum(bytes: &[u8]) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref().to_vec()
}
