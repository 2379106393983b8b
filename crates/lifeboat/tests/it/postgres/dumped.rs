//! Databases backed up: of one moment, in the formats there are, counted, and
//! without a password in sight.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::bank::Pair;
use super::cluster::{Cluster, ident, versions};
use super::edited::edit;
use super::fingerprint::{assert_same_database, fingerprint};
use super::odd::Odd;
use super::programs::{bin_dir, install, pg_dump};
use super::restore::{CHANGE, TABLE};
use super::scopes::head;
use super::served::Served;
use crate::env::TestEnv;

/// Shows D1.
#[test]
fn several_databases_are_backed_up_as_of_one_moment() {
    const TEST: &str = "several_databases_are_backed_up_as_of_one_moment";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let pair = Pair::new(cluster);
    let served = Served::new(cluster, &[&pair.first, &pair.second]);
    for format in ["custom", "plain"] {
        let writer = pair.write(cluster);
        served.env.lifeboat(["backup", "shop", "--format", format, "-o", "shop.tar.zst"]).ok();
        pair.stop(cluster, writer);
        let window = head(&served, "shop.tar.zst")["window_ms"].as_u64().unwrap();
        assert!(window < 2000, "{format}: {window} ms");
        let copies = [&pair.first, &pair.second].map(|name| {
            let copy = format!("{name} copy");
            // Plain SQL is not run by a superuser, and these are one's: the stock tools run it.
            let options = ["restore", "shop.tar.zst", "--to", "out", "--overwrite"];
            served.env.lifeboat(options).ok();
            cluster.sql("postgres", &format!("CREATE DATABASE {} TEMPLATE template0", ident(&copy)));
            let entry = |end: &str| served.env.path(format!("out/postgres/db/{name}.{end}")).display().to_string();
            if format == "plain" {
                cluster.client("psql", &copy, ["-q", "-v", "ON_ERROR_STOP=1", "-f", &entry("sql")]).run().ok();
            } else {
                cluster.client("pg_restore", &copy, ["--exit-on-error", "-d", &copy, &entry("dump")]).run().ok();
            }
            copy
        });
        let tolerance = Duration::from_millis(window + 250);
        Pair::assert_one_moment(cluster, [&copies[0], &copies[1]], tolerance, format);
        copies.iter().for_each(|copy| cluster.drop_db(copy));
        for name in [&pair.first, &pair.second] {
            cluster.sql(name, "TRUNCATE numbers");
        }
        std::fs::remove_file(served.env.path("shop.tar.zst")).unwrap();
    }
}

/// The names of the programs that ran with the environment of `env` while `run` did. None of them
/// showed `secret` to who may look.
fn watched(env: &TestEnv, secret: &str, run: impl FnOnce()) -> BTreeSet<String> {
    let (mark, is_over) = (env.data_dir().display().to_string(), AtomicBool::new(false));
    let holds = |text: &[u8], what: &str| text.windows(what.len()).any(|part| part == what.as_bytes());
    let look = || {
        let mut seen = BTreeSet::new();
        while !is_over.load(Ordering::Relaxed) {
            let processes = std::fs::read_dir("/proc").unwrap().flatten();
            for process in processes.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok()) {
                let read = |name: &str| std::fs::read(process.path().join(name)).unwrap_or_default();
                let environ = read("environ");
                if !holds(&environ, &mark) {
                    continue;
                }
                let (cmdline, name) = (read("cmdline"), String::from_utf8_lossy(&read("comm")).trim().to_owned());
                for shown in [&environ, &cmdline] {
                    assert!(!holds(shown, secret), "{name} shows it: {}", String::from_utf8_lossy(shown));
                }
                seen.insert(name);
            }
        }
        seen
    };
    std::thread::scope(|scope| {
        let looking = scope.spawn(look);
        run();
        is_over.store(true, Ordering::Relaxed);
        looking.join().unwrap()
    })
}

/// Shows D1.
#[test]
fn a_password_is_in_no_argument_in_no_environment_and_on_no_disk() {
    const TEST: &str = "a_password_is_in_no_argument_in_no_environment_and_on_no_disk";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let owner = cluster.role("canary", "LOGIN CREATEDB");
    let name = cluster.create_db("secret", &format!("OWNER {}", ident(&owner.name)));
    cluster.sql(
        &name,
        &format!(
            "SET ROLE {}; CREATE SCHEMA own; CREATE TABLE own.rows AS SELECT g, repeat(md5(g::text), 20) FROM generate_series(1, 20000) g",
            ident(&owner.name)
        ),
    );
    let served = Served::by(cluster, &owner, &[&name]);
    let secret = "p4ss";
    assert!(owner.password.starts_with(secret));
    let env = &served.env;
    let ran = watched(env, secret, || {
        env.lifeboat(["backup", "shop", "-o", "shop.tar.zst"]).ok();
        env.lifeboat(["restore", "shop.tar.zst", "--force"]).ok();
        env.lifeboat(["restore", "shop.tar.zst", "--to-database", &format!("{name} copy")]).ok();
        env.lifeboat(["restore", "--undo", "--force"]).ok();
    });
    for program in ["lifeboat", "pg_dump", "pg_restore"] {
        assert!(ran.contains(program), "{program} was not seen: {ran:?}");
    }
    let found = env.run("grep", ["-rl", secret, env.data_dir().parent().unwrap().to_str().unwrap()]).ok().stdout;
    assert_eq!(found.trim(), env.path("password").display().to_string());
    let archive = env.run("zstd", ["-dc", "shop.tar.zst"]).ok().bytes;
    assert!(!archive.windows(secret.len()).any(|part| part == secret.as_bytes()));
}

/// Shows D1.
#[test]
fn a_service_file_and_the_password_file_of_libpq_are_looked_at() {
    const TEST: &str = "a_service_file_and_the_password_file_of_libpq_are_looked_at";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let owner = cluster.role("by service", "LOGIN");
    let name = cluster.create_db("of a service", &format!("OWNER {}", ident(&owner.name)));
    let (env, port) = (TestEnv::new(), cluster.port());
    let yaml = format!(
        "apps: {{ shop: {{ sources: {{ db: {{ postgres: {{ service: shop, databases: ['{name}'] }} }} }} }} }}\n"
    );
    env.write("lifeboat.yaml", yaml);
    env.set_mode("lifeboat.yaml", 0o600);
    let service = format!("[other]\nhost=nowhere\n[shop]\nhost=127.0.0.1\nport={port}\nuser={}\n", owner.name);
    let backup = |number: u32| env.lifeboat(["backup", "shop", "-o", &format!("{number}.tar.zst")]);
    let said = backup(1).code(18).stderr;
    assert!(said.contains("the service shop"), "{said}");
    env.write("../home/.pg_service.conf", &service);
    backup(2).code(18);
    let line = format!("127.0.0.1:{port}:*:{}:{}\n", owner.name, owner.password);
    env.write("../home/.pgpass", &line);
    env.set_mode("../home/.pgpass", 0o644);
    // As libpq: one that others can read is not looked at.
    backup(3).code(18);
    env.set_mode("../home/.pgpass", 0o600);
    backup(4).ok();
    std::fs::remove_file(env.path("../home/.pgpass")).unwrap();
    env.write("../home/.pg_service.conf", format!("{service}password={}\n", owner.password));
    backup(5).ok();
}

/// Shows D1.
#[test]
fn the_pg_dump_of_the_version_of_the_server_runs_and_an_older_one_is_refused() {
    const TEST: &str = "the_pg_dump_of_the_version_of_the_server_runs_and_an_older_one_is_refused";
    if Cluster::shared(TEST).is_none() {
        return;
    }
    for version in versions() {
        let cluster = Cluster::shared_of(version.clone());
        let served = Served::new(cluster, &[&cluster.create_db("versions", "")]);
        let plan = |source: &str| {
            served.configure_source(source, "");
            served.env.lifeboat(["backup", "shop", "--dry-run", "--json"]).ok().json_lines().swap_remove(0)
        };
        let server = plan("")["sources"][0]["server"].clone();
        assert_eq!(server["pg_dump_version"], version.major, "{server}");
        assert_eq!(server["pg_dump"], version.bin.join("pg_dump").display().to_string());
        assert!(server["version"].as_str().unwrap().starts_with(&format!("{}.", version.major)), "{server}");
        assert_eq!(server["databases"][0]["name"], served.database());
        assert!(server["databases"][0]["size_bytes"].as_u64().unwrap() > 1 << 20, "{server}");

        let fake = |major: u32| {
            let said = format!("#!/bin/sh\necho 'pg_dump (PostgreSQL) {major}.1'\n");
            bin_dir(&install(&served, "pg_dump", &said))
        };
        assert_eq!(plan(&fake(version.major + 1))["sources"][0]["server"]["pg_dump_version"], version.major + 1);
        served.configure_source(&fake(version.major - 1), "");
        for dry in [&["--dry-run"][..], &["-o", "none.tar.zst"]] {
            let said = served.env.lifeboat([&["backup", "shop"], dry].concat()).code(18).stderr;
            let what =
                format!("pg_dump is of version {}, and the server of version {}", version.major - 1, version.major);
            assert!(said.contains(&what) && said.contains("postgresql-client-"), "{said}");
        }
        assert!(!served.env.path("none.tar.zst").exists());
        // What ran is the one of `bin_dir`.
        let dir = pg_dump(&served, "echo \"$@\" > \"$(dirname \"$0\")/ran\"; exec $REAL \"$@\"");
        served.configure_source(&bin_dir(&dir), "");
        served.backup();
        let ran = String::from_utf8(served.env.read("bin/ran")).unwrap();
        assert!(ran.contains("--format=custom --snapshot=") && ran.contains("--no-password"), "{ran}");
    }
}

/// Shows D11.
#[test]
fn rows_are_counted_at_the_moment_of_the_dump_and_compared_after_a_restore() {
    const TEST: &str = "rows_are_counted_at_the_moment_of_the_dump_and_compared_after_a_restore";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let served = Served::new(cluster, &[&cluster.create_db("counted", "")]);
    let parts = "CREATE TABLE parts (id int) PARTITION BY RANGE (id); \
        CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (100); \
        CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (100) TO (200); \
        INSERT INTO parts SELECT generate_series(90, 119); CREATE TABLE nothing (x int);";
    served.sql(&format!("{TABLE} {parts}"));
    // What is written after the moment is neither dumped nor counted.
    let later = format!(
        "{}; exec $REAL \"$@\"",
        format_args!(
            "{} -h {} -p {} -U postgres -qc \"INSERT INTO goods VALUES (99, 'later')\" '{}' >&2",
            cluster.program("psql"),
            cluster.socket_dir().display(),
            cluster.port(),
            served.database()
        )
    );
    served.configure_source(&bin_dir(&pg_dump(&served, &later)), "");
    served.backup();
    assert_eq!(served.sql("SELECT count(*) FROM goods"), "21");
    let recorded = head(&served, "shop.tar.zst")["sources"][0]["details"]["postgres"]["databases"][0]["tables"].clone();
    let expected = serde_json::json!({
        "public.goods": { "rows": 20 }, "public.nothing": { "rows": 0 },
        "public.parts_low": { "rows": 10 }, "public.parts_high": { "rows": 20 },
    });
    assert_eq!(recorded, expected);
    served.configure("");
    for (rows, code) in
        [(serde_json::json!({ "rows": 21 }), 19), (serde_json::json!({ "rows": 9, "estimated": true }), 0)]
    {
        edit(&served.env, "shop.tar.zst", "edited.tar.zst", |edited| {
            edited.database(0)["tables"]["public.goods"] = rows.clone();
        });
        let name = format!("{} copy", served.database());
        let run = served.env.lifeboat(["restore", "edited.tar.zst", "--to-database", &name]).code(code);
        if code != 0 {
            assert!(run.stderr.contains("public.goods has 20 rows, expected 21"), "{}", run.stderr);
            assert!(!cluster.databases().contains(&name));
        }
    }
    cluster.drop_db(&format!("{} copy", served.database()));
}

/// Shows D11.
#[test]
fn rows_of_excluded_tables_are_left_out_and_the_tables_kept() {
    const TEST: &str = "rows_of_excluded_tables_are_left_out_and_the_tables_kept";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let served = Served::new(cluster, &[&cluster.create_db("without", "")]);
    served.sql(&format!(
        "{TABLE} CREATE TABLE \"Metrics one\" AS SELECT 1 x; CREATE SCHEMA log; CREATE TABLE log.goods AS SELECT 1 x; \
         CREATE TABLE m (id int) PARTITION BY LIST (id); CREATE TABLE m1 PARTITION OF m FOR VALUES IN (1); INSERT INTO m VALUES (1);"
    ));
    let excluded = |patterns: &str| served.configure(&format!("    exclude_tables: [{patterns}]\n"));
    excluded("'metrics*', log.*, m, 'gone_*'");
    let planned = served.env.lifeboat(["backup", "shop", "--dry-run"]).ok();
    let without = "without the rows of log.goods, public.Metrics one, public.m, public.m1";
    assert!(planned.stdout.contains(without), "{}", planned.stdout);
    assert!(planned.stderr.contains("gone_*"), "{}", planned.stderr);
    assert!(!served.env.path("shop.tar.zst").exists());
    let said = served.env.lifeboat(["backup", "shop", "-o", "shop.tar.zst"]).ok();
    assert!(said.stdout.contains(without), "{}", said.stdout);
    let note = "gone_*: `exclude_tables` names it, and it is no table of any database";
    assert!(said.stderr.contains(note) && !said.stderr.contains("metrics*"), "{}", said.stderr);
    let listed = served.env.lifeboat(["backup", "list", "shop.tar.zst"]).ok().stdout;
    let name = served.database();
    assert!(listed.contains("Source: db with 1 database of PostgreSQL "), "{listed}");
    assert!(listed.contains(&format!("  database {name}: 4 tables, 20 rows\n")), "{listed}");
    assert!(listed.contains("  without the rows of public.m1\n"), "{listed}");
    let copy = format!("{name} copy");
    served.restore(&["--to-database", &copy]).ok();
    let rows = "SELECT (SELECT count(*) FROM goods), (SELECT count(*) FROM log.goods), (SELECT count(*) FROM m), \
        (SELECT count(*) FROM \"Metrics one\")";
    assert_eq!(cluster.sql(&copy, rows), "20|0|0|0");
    cluster.drop_db(&copy);
}

/// Shows D1, D4.
#[test]
fn the_roles_in_an_archive_are_made_by_stock_psql_elsewhere() {
    const TEST: &str = "the_roles_in_an_archive_are_made_by_stock_psql_elsewhere";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let Some(other) = Cluster::own(TEST, &[]) else { return };
    let odd = Odd::of_owner(cluster);
    let group = cluster.role("group", "NOLOGIN").name;
    cluster.sql("postgres", &format!("GRANT {} TO {}", ident(&group), ident(&odd.owner.name)));
    let served = Served::new(cluster, &[&odd.name]);
    served.backup();
    served.env.lifeboat(["restore", "shop.tar.zst", "--to", "out"]).ok();
    let globals = String::from_utf8(served.env.read("out/postgres/db/globals.sql")).unwrap();
    assert!(!globals.contains("p4ss") && !globals.to_lowercase().contains("password '"), "{globals}");
    other.psql("postgres", &globals, ["-v", "ON_ERROR_STOP=0"]).run().ok();
    let dump = served.env.path(format!("out/postgres/db/{}.dump", odd.name.replace('/', "%2F")));
    other
        .client("pg_restore", "postgres", ["--create", "--exit-on-error", "-d", "postgres", dump.to_str().unwrap()])
        .run()
        .ok();
    assert_same_database(&fingerprint(cluster, &odd.name), &fingerprint(&other, &odd.name), "on another server");
    let members = format!(
        "SELECT pg_has_role({}, {}, 'MEMBER')",
        super::cluster::literal(&odd.owner.name),
        super::cluster::literal(&group)
    );
    assert_eq!(other.sql("postgres", &members), "t");
}

/// Shows D13.
#[test]
fn every_version_is_backed_up_and_restored_by_a_role_that_is_no_superuser() {
    const TEST: &str = "every_version_is_backed_up_and_restored_by_a_role_that_is_no_superuser";
    if Cluster::shared(TEST).is_none() {
        return;
    }
    for version in versions() {
        let cluster = Cluster::shared_of(version);
        let owner = cluster.role("ordinary", "LOGIN CREATEDB");
        let name = cluster.create_db("ordinary", &format!("OWNER {}", ident(&owner.name)));
        cluster
            .sql(&name, &format!("SET ROLE {}; CREATE SCHEMA own; SET search_path = own; {TABLE}", ident(&owner.name)));
        let served = Served::by(cluster, &owner, &[&name]);
        let before = fingerprint(cluster, &name);
        served.backup();
        served.sql(&format!("SET search_path = own; SET ROLE {}; {CHANGE}", ident(&owner.name)));
        served.force(&[]).ok();
        assert_same_database(&before, &fingerprint(cluster, &name), "by its owner");
        let recorded: Value = head(&served, "shop.tar.zst");
        assert_eq!(recorded["outcome"], "good");
    }
}
