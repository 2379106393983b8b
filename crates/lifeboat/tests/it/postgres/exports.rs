//! Answers to queries as CSV: the same bytes as psql's, also in a snapshot, and
//! nothing of what is secret.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use super::cluster::{Cluster, versions};
use crate::env::{Said, TestEnv};

/// An app `shop` with one database and what follows `sources` in its configuration.
fn app(cluster: &Cluster, database: &str, user: &str, more: &str) -> TestEnv {
    let env = TestEnv::new();
    configure(&env, cluster, database, user, more);
    env
}

fn configure(env: &TestEnv, cluster: &Cluster, database: &str, user: &str, more: &str) {
    let url = cluster.socket_url(user, database);
    let text = format!("apps:\n  shop:\n    sources: {{ db: {{ postgres: {{ url: \"{url}\" }} }} }}\n{more}");
    env.write("lifeboat.yaml", text);
    env.set_mode("lifeboat.yaml", 0o600);
}

fn exports(queries: &[(&str, &str)], secret: &str) -> String {
    let lines = queries.iter().map(|(name, query)| {
        let query = serde_json::to_string(query).expect("text is JSON");
        format!("      {name}: {{ db: db, query: {query} }}\n")
    });
    format!("    exports:\n{}    secret_columns: [{secret}]\n", lines.collect::<String>())
}

/// What psql itself writes.
fn by_psql(cluster: &Cluster, database: &str, query: &str) -> Vec<u8> {
    cluster.client("psql", database, ["-X", "-q", "--csv", "-c", query]).run().ok().bytes
}

const HARD: &str = r#"
    CREATE TYPE mood AS ENUM ('sad', 'so, so');
    CREATE TYPE pair AS (a int, b text);
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE TABLE hard (
        id int PRIMARY KEY, b boolean, i2 smallint, i8 bigint, n numeric, f4 real, f8 double precision, m money,
        t text, v varchar(20), c char(10), "char" "char", name name, bytes bytea, bits bit varying,
        d date, tm time, tz timetz, ts timestamp, tsz timestamptz, iv interval, u uuid, j json, jb jsonb, x xml,
        a int[], at text[], ip inet, mac macaddr, p point, poly polygon, r int4range, mr int4multirange, tsv tsvector,
        e mood, co pair, po positive, oid oid, "Größe, ""x""" text, "\." text, " " text);
    INSERT INTO hard (id) VALUES (1);
    INSERT INTO hard VALUES (2, true, -1, 9223372036854775807, 1.10, 1.1, 0.1, 12.5,
        'plain', 'with, comma', 'pad', 'x', 'nom', '\x00ff22', B'101',
        '2024-02-29', '12:34:56.789', '12:00+02', 'infinity', '2024-02-29 12:00:00.5+00', '1 year -2 days 03:04:05',
        '00000000-0000-0000-0000-000000000001', E'{"a": "b,\\n",\n "c": null}', '{"b": 1, "a": [1, "\""]}', '<a b="c"/>',
        '{1,NULL,3}', E'{"a,b","c\\"d",NULL,""}', '10.0.0.1/8', '08:00:2b:01:02:03', '(1,2)', '((0,0),(1,1))',
        '[1,5)', '{[1,2),[5,7)}', 'a fat cat', 'so, so', ROW(1, 'x, "y"'), 5, 4294967295, 'ü', '\.', ' ');
    INSERT INTO hard (id, b, n, f4, f8, t, v, c, " ", "\.") VALUES
        (3, false, 'NaN', 'Infinity', '-Infinity', '', ' lead and trail ', '', '""', '\N'),
        (4, NULL, 1e30, 1e-10, 1e300, E'line\nline', E'\r', E'\t', '"', '\.'),
        (5, NULL, 0, 0, -0.0, E'a\r\nb', ',', '  ', '''', '\. '),
        (6, NULL, NULL, NULL, NULL, 'ünï €😀 ' || U&'\FFFE\FDD0\0301', '\', E'\\n', 'a"b', '\\.');
    INSERT INTO hard (id, t) SELECT n, repeat('x', n % 200) FROM generate_series(7, 6000) n;
    ALTER DATABASE DATABASE_NAME SET datestyle = 'German';
    ALTER DATABASE DATABASE_NAME SET bytea_output = 'escape';
    ALTER DATABASE DATABASE_NAME SET search_path = inner_one, public;
    CREATE SCHEMA inner_one;
    CREATE TABLE inner_one.found (x) AS VALUES ('by the search path');
"#;

const QUERIES: [&str; 10] = [
    "SELECT * FROM hard ORDER BY id",
    "SELECT id AS a, id AS a, t AS \"a\", t AS \"\\.\", 1 AS \"two\nlines\", 2 FROM hard WHERE id < 7 ORDER BY id",
    "SELECT t FROM hard WHERE false",
    "SELECT FROM hard",
    "SELECT",
    "VALUES (true, NULL::text, ''), (false, ' ', 'x')",
    "WITH w AS (SELECT id FROM hard ORDER BY id LIMIT 100) SELECT count(*), max(id), NULL AS n FROM w;",
    "TABLE found -- a comment at its end",
    "SELECT repeat(chr(64 + n), n * 100000) FROM generate_series(1, 20) n",
    "SELECT n FROM generate_series(1, 100) n /* as many as are asked for at once */;",
];

/// Shows D10.
#[test]
fn an_export_has_the_bytes_that_psql_writes() {
    if Cluster::shared("an_export_has_the_bytes_that_psql_writes").is_none() {
        return;
    }
    for version in versions() {
        let cluster = Cluster::shared_of(version);
        let database = cluster.create_db("hard", "");
        cluster.sql(&database, &HARD.replace("DATABASE_NAME", &super::ident(&database)));
        let names: Vec<String> = (0..QUERIES.len()).map(|number| format!("q{number}")).collect();
        let queries: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(QUERIES).collect();
        let env = app(cluster, &database, "postgres", &exports(&queries, "hard.v"));
        // The secret column is in the first query only.
        env.lifeboat(["export-query", "q0"]).code(1);
        configure(&env, cluster, &database, "postgres", &exports(&queries, ""));
        for (name, query) in &queries {
            let expected = by_psql(cluster, &database, query);
            let said = env.lifeboat(["export-query", name]).ok();
            assert!(
                said.bytes == expected,
                "{query}: {} instead of {}",
                said.stdout,
                String::from_utf8_lossy(&expected)
            );
        }
        // In a snapshot it is the same.
        env.lifeboat(["backup", "shop", "-o", "shop.tar"]).ok();
        env.lifeboat(["restore", "shop.tar", "--to", "back"]).ok();
        for (name, query) in &queries {
            assert!(env.read(format!("back/exports/{name}.csv")) == by_psql(cluster, &database, query), "{query}");
        }
        cluster.drop_db(&database);
    }
}

const SECRETS: &str = "
    CREATE TABLE connectors (id int, name text, config jsonb, enclave_id int);
    INSERT INTO connectors VALUES (1, 'ldap', '{\"bind\": \"CANARY\"}', 7);
    CREATE TABLE \"Parts\" (id int, \"Key\" text) PARTITION BY RANGE (id);
    CREATE TABLE part_1 PARTITION OF \"Parts\" FOR VALUES FROM (0) TO (10);
    INSERT INTO \"Parts\" VALUES (1, 'CANARY');
    CREATE TABLE parent (id int, token text);
    CREATE TABLE child (more text) INHERITS (parent);
    INSERT INTO child VALUES (1, 'CANARY', 'm');
    CREATE VIEW shown AS SELECT id, name, config AS harmless FROM connectors;
    CREATE VIEW shown_again AS SELECT id, harmless::text || '' AS x FROM shown;
    CREATE SCHEMA other;
    CREATE TABLE other.connectors (id int, config text);
    CREATE FUNCTION of_sql(connectors) RETURNS text LANGUAGE sql STABLE AS 'SELECT $1.config::text';
    ANALYZE;";

/// What tells what is in `connectors.config`, a `Key` of `Parts` or a `token` of `parent`.
const REFUSED: [&str; 34] = [
    "SELECT config FROM connectors",
    "SELECT id, config AS name FROM connectors",
    "SELECT * FROM connectors",
    "TABLE connectors",
    "SELECT config::text AS x FROM connectors",
    "SELECT config->>'bind' FROM connectors",
    "SELECT c FROM connectors c",
    "SELECT row_to_json(c)->>'config' FROM connectors c",
    "SELECT to_jsonb(c) - 'id' FROM connectors c",
    "SELECT string_agg(config::text, '') FROM connectors",
    "SELECT (SELECT config FROM connectors LIMIT 1)::text",
    "SELECT x FROM (SELECT config::text AS x FROM connectors OFFSET 0) q",
    "WITH w AS MATERIALIZED (SELECT config AS x FROM connectors) SELECT x::text FROM w",
    "SELECT '{}'::jsonb UNION ALL SELECT config FROM connectors",
    "SELECT 'x' UNION SELECT name FROM connectors UNION ALL SELECT config::text FROM connectors ORDER BY 1",
    "SELECT config FROM connectors EXCEPT SELECT '{}'",
    "SELECT a.id, b.config::text || a.name FROM connectors a JOIN connectors b USING (id)",
    "SELECT max(config::text) OVER (ORDER BY id) FROM connectors",
    "SELECT j.value FROM connectors, jsonb_each(config) j",
    "SELECT v.x FROM connectors c, LATERAL (VALUES (c.config), (c.config)) v(x)",
    "SELECT v.x FROM connectors c, LATERAL (SELECT c.config::text OFFSET 0) v(x)",
    "SELECT x FROM connectors c, XMLTABLE('/a' PASSING xmlelement(name a, c.config::text) COLUMNS x text PATH '.')",
    "SELECT jsonb_each_text(config) FROM connectors",
    "WITH RECURSIVE r(x, n) AS (SELECT config::text, 1 FROM connectors UNION ALL SELECT x, n + 1 FROM r WHERE n < 2)
        SELECT x FROM r",
    "SELECT harmless FROM shown",
    "SELECT x FROM shown_again",
    "SELECT of_sql(c) FROM connectors c",
    "SELECT config FROM other.connectors",
    "SELECT \"Key\" FROM \"Parts\"",
    "SELECT lower(\"Key\") FROM \"Parts\"",
    "SELECT \"Key\" AS id FROM part_1",
    "SELECT token FROM child",
    "SELECT token || more FROM child",
    "SELECT upper(token) FROM parent",
];

/// What does not.
const ALLOWED: [&str; 10] = [
    "SELECT id, name, enclave_id FROM connectors ORDER BY id",
    "SELECT count(*) FROM connectors",
    "SELECT a.id, b.name FROM connectors a JOIN connectors b USING (id) ORDER BY 2",
    "SELECT id FROM connectors WHERE config IS NOT NULL",
    "SELECT id, name FROM shown",
    "SELECT 'config' AS config, id AS \"Key\" FROM \"Parts\"",
    "SELECT enclave_id, count(*) FROM connectors GROUP BY 1 HAVING count(*) > 0 ORDER BY 1",
    "SELECT id FROM connectors UNION ALL SELECT id FROM other.connectors",
    "SELECT id FROM part_1",
    "SELECT more FROM child",
];

/// Shows D10.
#[test]
fn what_comes_from_a_secret_column_is_refused_whatever_it_is_called() {
    let Some(cluster) = Cluster::shared("what_comes_from_a_secret_column_is_refused_whatever_it_is_called") else {
        return;
    };
    let database = cluster.create_db("secrets", "");
    cluster.sql(&database, SECRETS);
    let names: Vec<String> = (0..REFUSED.len() + ALLOWED.len()).map(|number| format!("q{number}")).collect();
    let queries: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(REFUSED.into_iter().chain(ALLOWED)).collect();
    let secret = r#""connectors.config", "public.\"Parts\".\"Key\"", parent.token"#;
    let env = app(cluster, &database, "postgres", &exports(&queries, secret));
    for (name, query) in &queries[..REFUSED.len()] {
        let said = env.lifeboat(["export-query", name]).code(1);
        let expected = format!("error[E100]: the query {name} is refused: ");
        assert!(
            said.stderr.starts_with(&expected) && said.stderr.contains("secret_columns"),
            "{query}: {}",
            said.stderr
        );
        assert!(!said.stdout.contains("CANARY") && said.stdout.is_empty(), "{query}");
    }
    for (name, query) in &queries[REFUSED.len()..] {
        let said = env.lifeboat(["export-query", name]).ok();
        assert_eq!(said.bytes, by_psql(cluster, &database, query), "{query}");
    }
    let said = env.lifeboat(["export-query", "q1"]).code(1);
    let expected = "the query q1 is refused: its column name is connectors.config, which is among `secret_columns`";
    assert!(said.stderr.contains(expected), "{}", said.stderr);
    cluster.drop_db(&database);
}

/// Shows D10.
#[test]
fn a_query_that_makes_no_sense_or_would_write_is_named_and_changes_nothing() {
    let Some(cluster) = Cluster::shared("a_query_that_makes_no_sense_or_would_write_is_named_and_changes_nothing")
    else {
        return;
    };
    let database = cluster.create_db("queries", "");
    cluster.sql(&database, "CREATE TABLE t (x) AS VALUES (1); CREATE SEQUENCE s");
    let wrong = [
        ("SELECT y FROM t", "column \\\"y\\\" does not exist"),
        ("SELECT 1; SELECT 2", "cannot insert multiple commands"),
        ("SELECT 1; DROP TABLE t", "cannot insert multiple commands"),
        ("DELETE FROM t RETURNING x", ""),
        ("WITH d AS (DELETE FROM t RETURNING x) SELECT x FROM d", ""),
        ("SELECT nextval('s')", "read-only transaction"),
        ("SELECT $1::int", "it has parameters"),
        ("DROP TABLE t", ""),
        ("COMMIT", ""),
        ("-- nothing", ""),
        ("SELECT x FROM t FOR UPDATE", "read-only transaction"),
        ("SELECT 1/(x - 1) FROM t", "division by zero"),
    ];
    let names: Vec<String> = (0..wrong.len()).map(|number| format!("q{number}")).collect();
    let queries: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(wrong.map(|(query, _)| query)).collect();
    let env = app(cluster, &database, "postgres", &exports(&queries, ""));
    for ((name, query), (_, why)) in queries.iter().zip(wrong) {
        let said = env.lifeboat(["export-query", name, "--output", "out.csv"]).code(1);
        assert!(
            said.stderr.contains(&why.replace("\\\"", "\"")) && said.stderr.contains("do this: "),
            "{query}: {}",
            said.stderr
        );
        assert!(!env.path("out.csv").exists(), "{query}");
    }
    assert_eq!(cluster.sql(&database, "SELECT x, (SELECT is_called FROM s) FROM t"), "1|f");
    for (secret, why) in [("t.y", "there is no column t.y in "), ("u.x", "u.x"), ("other.t.x", "other.t.x")] {
        configure(&env, cluster, &database, "postgres", &exports(&[("q", "SELECT 1")], secret));
        let said = env.lifeboat(["export-query", "q"]).code(2);
        assert!(said.stderr.contains(why) && said.stderr.contains("secret_columns"), "{}", said.stderr);
    }
    cluster.drop_db(&database);
}

fn summary(said: &Said) -> Value {
    said.json_lines().pop().expect("a line")
}

/// Shows D10.
#[test]
fn a_file_is_written_whole_for_its_owner_and_over_another_one_only_by_force() {
    let Some(cluster) = Cluster::shared("a_file_is_written_whole_for_its_owner_and_over_another_one_only_by_force")
    else {
        return;
    };
    let database = cluster.create_db("files", "");
    cluster.sql(&database, "CREATE TABLE t (x) AS SELECT generate_series(1, 3)");
    let queries =
        [("one", "SELECT x FROM t ORDER BY x"), ("broken", "SELECT 1/(2500 - n) FROM generate_series(1, 5000) n")];
    let env = app(cluster, &database, "postgres", &exports(&queries, ""));
    let said = env.lifeboat(["export-query", "one", "-o", "one.csv"]).ok();
    assert_eq!(said.normal_stdout(), "Exported 3 rows to one.csv (<size>)\n");
    assert_eq!(env.read("one.csv"), b"x\n1\n2\n3\n");
    let mode = env.path("one.csv").metadata().expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    cluster.sql(&database, "DELETE FROM t WHERE x > 1");
    let said = env.lifeboat(["export-query", "shop", "one", "-o", "one.csv"]).code(22);
    assert!(said.stderr.contains("one.csv exists already") && said.stderr.contains("--force"), "{}", said.stderr);
    assert_eq!(env.read("one.csv"), b"x\n1\n2\n3\n");
    let json = summary(&env.lifeboat(["export-query", "shop", "one", "-o", "one.csv", "--force", "--json"]).ok());
    assert_eq!(
        (&json["message_type"], &json["rows"], &json["path"]),
        (&"summary".into(), &1.into(), &"one.csv".into())
    );
    assert_eq!(json["database"], format!("db/{database}"));
    assert_eq!(env.read("one.csv"), b"x\n1\n");
    // What breaks in the middle leaves what was there.
    let said = env.lifeboat(["export-query", "broken", "-o", "one.csv", "--force"]).code(1);
    assert!(said.stderr.contains("division by zero") && said.stderr.contains("nothing was written"), "{}", said.stderr);
    assert_eq!((env.read("one.csv"), env.names(".").len()), (b"x\n1\n".to_vec(), 2));
    env.lifeboat(["export-query", "one", "--json"]).code(2);
    env.lifeboat(["export-query", "one", "--force"]).code(2);
    let said = env.lifeboat(["export-query", "on"]).code(2);
    assert!(said.stderr.contains("did you mean one?"), "{}", said.stderr);
    let said = env.lifeboat(["export-query", "shap", "one"]).code(2);
    assert!(said.stderr.contains("did you mean shop?"), "{}", said.stderr);
    let script = "{ \"$0\" export-query broken; echo \"code $?\" >&2; } | head -n 1";
    let head = env.run("sh", ["-c", script, env!("CARGO_BIN_EXE_lifeboat")]);
    assert_eq!(head.ok().stdout, "?column?\n");
    cluster.drop_db(&database);
}

/// Shows D10.
#[test]
fn an_export_that_fails_is_named_and_the_dump_is_in_the_snapshot() {
    let Some(cluster) = Cluster::shared("an_export_that_fails_is_named_and_the_dump_is_in_the_snapshot") else {
        return;
    };
    let database = cluster.create_db("fails", "");
    cluster.sql(&database, "CREATE TABLE t (x) AS SELECT generate_series(1, 3)");
    let queries = [
        ("good", "SELECT x FROM t ORDER BY x"),
        ("late", "SELECT repeat('x', 1000), 1/(4000 - n) FROM generate_series(1, 5000) n"),
        ("wrong", "SELECT y FROM t"),
    ];
    let env = app(cluster, &database, "postgres", &exports(&queries, ""));
    let said = env.lifeboat(["backup", "shop", "-o", "shop.tar"]).code(18);
    assert!(said.stdout.contains("\nexport good: 8 B, 3 rows\n"), "{}", said.stdout);
    assert!(said.stderr.contains("the query wrong could not be asked: "), "{}", said.stderr);
    assert!(said.stderr.contains("exports/late.csv could not be made: "), "{}", said.stderr);
    assert!(said.stderr.contains("lifeboat export-query shop late"), "{}", said.stderr);
    let lines = env.lifeboat(["backup", "list", "--json", "shop.tar"]).ok().json_lines();
    let sources = lines[0]["sources"].as_array().expect("there are some");
    let failed: Vec<(&str, &str, bool)> = sources
        .iter()
        .map(|source| {
            let text = |key: &str| source[key].as_str().expect("text");
            (text("name"), text("kind"), !source["details"]["failed"].is_null())
        })
        .collect();
    assert_eq!(
        failed,
        [
            ("db", "postgres", false),
            ("exports/good", "export", false),
            ("exports/wrong", "export", true),
            ("exports/late", "export", true)
        ]
    );
    assert_eq!(sources[1]["details"]["export"], serde_json::json!({ "source": "db", "database": database, "rows": 3 }));
    let paths: Vec<&str> = lines.iter().filter_map(|line| line["path"].as_str()).collect();
    assert_eq!(paths[0], "exports/good.csv");
    assert!(paths.len() == 3 && paths.iter().all(|path| !path.contains("late")), "{paths:?}");
    let listed = env.lifeboat(["backup", "list", "shop.tar"]).ok().stdout;
    assert!(listed.contains(&format!("Source: exports/good from db/{database}\n  export: 3 rows\n")), "{listed}");
    env.lifeboat(["backup", "verify", "shop.tar"]).ok();
    // A part of the app is without them.
    env.write("conf/x", "x");
    let url = cluster.socket_url("postgres", &database);
    let text = format!(
        "apps:\n  shop:\n    sources:\n      db: {{ postgres: {{ url: \"{url}\" }} }}\n      conf: {{ files: {{ root: {} }} }}\n{}",
        env.path("conf").display(),
        exports(&queries, "")
    );
    env.write("lifeboat.yaml", text);
    let said = env.lifeboat(["backup", "shop", "--only", "db", "-o", "part.tar"]).ok();
    assert!(!said.stdout.contains("export "), "{}", said.stdout);
    cluster.drop_db(&database);
}

/// Shows D10.
#[test]
fn exports_are_of_the_state_of_the_dump_and_are_not_restored_in_place() {
    let Some(cluster) = Cluster::shared("exports_are_of_the_state_of_the_dump_and_are_not_restored_in_place") else {
        return;
    };
    let bank = super::bank::open_bank(cluster, "exported bank", "");
    let query = "SELECT tid, bid, aid, delta, mtime FROM pgbench_history ORDER BY tid, bid, aid, delta, mtime";
    let env = app(cluster, &bank, "postgres", &exports(&[("history", query)], ""));
    let writer = super::bank::transfer(cluster, &bank);
    for round in 0..3 {
        let archive = format!("bank{round}.tar");
        env.lifeboat(["backup", "shop", "-o", &archive]).ok();
        env.run("tar", ["-xf", &archive]).ok();
        let copy = cluster.create_db("copy", "TEMPLATE template0");
        let dump = env.path(format!("postgres/db/{bank}.dump"));
        let dump = dump.to_str().expect("temporary names are UTF-8");
        cluster.client("pg_restore", &copy, ["--exit-on-error", "-d", &copy, dump]).run().ok();
        assert!(env.read("exports/history.csv") == by_psql(cluster, &copy, query), "round {round}");
        cluster.drop_db(&copy);
    }
    super::bank::stop(writer);
    let said = env.lifeboat(["restore", "bank2.tar", "--dry-run"]).ok();
    assert!(said.stdout.contains("\nexports are not restored: exports/history.csv\n"), "{}", said.stdout);
    let said = env.lifeboat(["restore", "bank2.tar", "--only", "exports/history", "--dry-run"]).code(2);
    assert!(said.stderr.contains("its sources are: db"), "{}", said.stderr);
    cluster.drop_db(&bank);
}

/// Shows D10.
#[test]
fn an_export_that_waits_ends_by_a_signal_and_its_session_with_it() {
    let Some(cluster) = Cluster::shared("an_export_that_waits_ends_by_a_signal_and_its_session_with_it") else {
        return;
    };
    let database = cluster.create_db("waits", "");
    let query = "SELECT n, pg_sleep(CASE WHEN n > 150 THEN 600 ELSE 0 END) FROM generate_series(1, 200) n";
    let env = app(cluster, &database, "postgres", &exports(&[("slow", query)], ""));
    let running = env.command(["export-query", "slow", "-o", "slow.csv"]).start();
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    for _ in 0..600 {
        if cluster.sql(&database, sleeps) == "1" {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    running.signal(rustix::process::Signal::TERM);
    let said = running.wait().code(143);
    assert!(said.stderr.contains("stopped by SIGTERM"), "{}", said.stderr);
    assert!(!env.path("slow.csv").exists());
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    for _ in 0..600 {
        if cluster.sql(&database, others) == "0" {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(cluster.sql(&database, others), "0");
    cluster.drop_db(&database);
}
