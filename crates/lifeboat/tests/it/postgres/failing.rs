//! Sources of databases that fail: nothing of them is in the snapshot, and it is
//! never taken for a good one.

use lifeboat_store::testing::sweep;

use super::cluster::{Cluster, ident};
use super::programs::{bin_dir, pg_dump};
use super::restore::TABLE;
use super::scopes::head;
use super::served::Served;
use crate::env::Running;

/// About a megabyte that does not compress, in a table of its own.
const LARGE: &str =
    "CREATE TABLE large AS SELECT g, md5(g::text) || md5((g * 7)::text) AS x FROM generate_series(1, 15000) g;";

/// An app with a database, and with files that can always be backed up.
fn shop<'c>(cluster: &'c Cluster, stem: &str) -> Served<'c> {
    let served = Served::new(cluster, &[&cluster.create_db(stem, "")]);
    served.sql(&format!("{TABLE} {LARGE}"));
    served.env.write("conf/a", "a");
    served.env.mkdir("backups");
    served
}

/// The same source, besides files or alone, and archives in a directory of their own.
fn configure(served: &Served<'_>, source: &str, with_files: bool) {
    let conf = format!("      conf: {{ files: {{ root: {} }} }}\n", served.env.path("conf").display());
    let dir = format!("    backup_dir: {}\n", served.env.path("backups").display());
    served.configure_source(source, &format!("{}{dir}", if with_files { &conf } else { "" }));
}

/// A backup fails because of `why`: with files they are kept, without there is no archive.
fn assert_fails(served: &Served<'_>, source: &str, why: &str, what: &str) {
    let env = &served.env;
    configure(served, source, true);
    let said = env.lifeboat(["backup", "shop"]).code(18).stderr;
    assert!(said.contains(why), "{what}: {said}");
    let names: Vec<String> = env.names("backups").into_iter().filter(|name| name.ends_with(".tar.zst")).collect();
    assert_eq!(names.len(), 1, "{what}: {names:?}");
    let archive = format!("backups/{}", names[0]);
    let manifest = head(served, &archive);
    assert_eq!(manifest["outcome"], "partial", "{what}");
    let listed = env.lifeboat(["backup", "list", "--json", &archive]).ok().json_lines();
    let entries: Vec<&str> = listed.iter().filter_map(|line| line["path"].as_str()).collect();
    assert_eq!(entries, ["files/conf", "files/conf/a"], "{what}");
    env.lifeboat(["backup", "verify", &archive]).ok();
    assert_ne!(
        env.lifeboat(["restore", "latest", "--app", "shop", "--dry-run"]).exit_code(),
        0,
        "{what}: never latest"
    );
    env.run("sh", ["-c", "rm -rf backups/*"]).ok();

    configure(served, source, false);
    let said = env.lifeboat(["backup", "shop"]).code(18).stderr;
    assert!(said.contains(why) && said.contains("no archive was made"), "{what}: {said}");
    assert_eq!(env.names("backups"), Vec::<String>::new(), "{what}");
    served.assert_nobody_left(what);
}

/// Shows D2.
#[test]
fn a_pg_dump_that_is_killed_after_any_byte_is_a_failed_source() {
    const TEST: &str = "a_pg_dump_that_is_killed_after_any_byte_is_a_failed_source";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let served = shop(cluster, "killed");
    served.backup();
    let listed = served.env.lifeboat(["backup", "list", "--json", "shop.tar.zst"]).ok().json_lines();
    let is_dump = |entry: &&serde_json::Value| entry["path"].as_str().is_some_and(|path| path.ends_with(".dump"));
    let size = listed.iter().find(is_dump).unwrap()["size"].as_u64().unwrap();
    assert!(size > 1 << 20, "{size}");
    let mut points: Vec<u64> = (1..=size >> 16).map(|unit| unit << 16).collect();
    points.extend([0, 1, 4, 5, 4096, (1 << 16) - 1, (1 << 16) + 1, size - 1, size]);
    for case in sweep(TEST, points.len(), 8) {
        let point = points[case];
        let dir = pg_dump(&served, &format!("\"$REAL\" \"$@\" | head -c {point}; kill -9 $$"));
        assert_fails(&served, &bin_dir(&dir), "killed by signal 9", &format!("killed after {point} bytes"));
    }
    let plain = "          format: plain\n";
    for point in [0, 5, 70000] {
        let dir = pg_dump(&served, &format!("\"$REAL\" \"$@\" | head -c {point}; echo 'no more' >&2; exit 1"));
        let source = format!("{plain}{}", bin_dir(&dir));
        assert_fails(&served, &source, "exit code 1: no more", &format!("plain, {point} bytes"));
    }
}

/// Shows D2.
#[test]
fn a_server_that_stops_in_the_middle_is_a_failed_source() {
    const TEST: &str = "a_server_that_stops_in_the_middle_is_a_failed_source";
    let Some(cluster) = Cluster::own(TEST, &[]) else { return };
    let served = shop(&cluster, "stopped");
    served.sql("INSERT INTO large SELECT g, repeat(md5(g::text), 40) FROM generate_series(1, 20000) g");
    let script = "cd \"$(dirname \"$0\")\"; rm -f pipe; mkfifo pipe; \"$REAL\" \"$@\" > pipe & pid=$!
        { head -c 5000000; touch halfway; while [ ! -e stopped ]; do sleep 0.05; done; cat; } < pipe
        wait $pid";
    for signal in ["QUIT", "INT", "KILL"] {
        let source = bin_dir(&pg_dump(&served, script));
        for with_files in [true, false] {
            served.env.run("sh", ["-c", "rm -rf backups/* bin/halfway bin/stopped"]).ok();
            configure(&served, &source, with_files);
            let backup = served.env.command(["backup", "shop"]).start();
            wait_for(&served, "bin/halfway");
            cluster.stop(signal);
            served.env.write("bin/stopped", "");
            let said = backup.wait().code(18).stderr;
            assert!(
                said.contains("could not be made: exit code 1: ") && said.contains("COPY public.large"),
                "{signal}: {said}"
            );
            let archives = served.env.names("backups").iter().filter(|name| name.ends_with(".tar.zst")).count();
            assert_eq!(archives, usize::from(with_files), "{signal}");
            cluster.start();
        }
    }
    // One that is not there at all.
    served.env.run("sh", ["-c", "rm -rf backups/*"]).ok();
    configure(&served, "", true);
    cluster.stop("INT");
    let said = served.env.lifeboat(["backup", "shop"]).code(18).stderr;
    assert!(said.contains("could not connect") && said.contains("check that the server runs"), "{said}");
}

fn wait_for(served: &Served<'_>, name: &str) {
    for _ in 0..6000 {
        if served.env.path(name).exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("a minute went by before {name} was there");
}

/// Shows D2.
#[test]
fn what_is_missing_or_refused_is_a_failed_source_with_its_reason() {
    const TEST: &str = "what_is_missing_or_refused_is_a_failed_source_with_its_reason";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let served = shop(cluster, "refused");
    let mut missing = shop(cluster, "missing");
    missing.databases.push("there is none".to_owned());
    assert_fails(&missing, "", "database \"there is none\" does not exist", "a missing database");
    let said = missing.env.lifeboat(["backup", "shop", "--dry-run"]).code(18).stderr;
    assert!(said.contains("there is none"), "{said}");

    let reader = cluster.role("reader", "LOGIN");
    let mut by_reader = Served::by(cluster, &reader, &[served.database()]);
    by_reader.env.write("conf/a", "a");
    by_reader.env.mkdir("backups");
    served.sql(&format!("GRANT SELECT ON goods TO {}", ident(&reader.name)));
    assert_fails(&by_reader, "", "permission denied for table large", "a missing right");
    assert_fails(&by_reader, "", "GRANT pg_read_all_data", "a missing right, and what to do");
    configure(&by_reader, "", true);
    let said = by_reader.env.lifeboat(["backup", "shop", "--dry-run"]).code(18).stderr;
    assert!(said.contains("may not read public.large"), "{said}");
    served.sql(&format!("GRANT SELECT ON large TO {}", ident(&reader.name)));
    by_reader.backup();
    by_reader.env.write("password", "wrong\n");
    assert_fails(&by_reader, "", "password authentication failed", "a wrong password");
    by_reader.databases = vec![served.database().to_owned()];
    std::fs::remove_file(by_reader.env.path("password")).unwrap();
    assert_fails(&by_reader, "", "password", "no password file");
}

/// Holds a lock on `goods` until it is told to stop.
fn lock(served: &Served<'_>) -> Running {
    let sql = "BEGIN; LOCK TABLE goods IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(600)";
    let locker = served.cluster.psql(served.database(), sql, []).env("PGAPPNAME", "the migration").start();
    for _ in 0..600 {
        if served.sql("SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 'goods'::regclass AND granted") == "1" {
            return locker;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("nobody locked it");
}

/// Shows D2.
#[test]
fn a_table_that_stays_locked_is_a_failed_source_that_says_who_has_it() {
    const TEST: &str = "a_table_that_stays_locked_is_a_failed_source_that_says_who_has_it";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let served = shop(cluster, "locked");
    let locker = lock(&served);
    let timeout = "          lock_timeout: 1s\n";
    let who = "the table public.goods is locked by process ";
    assert_fails(&served, timeout, who, "locked");
    assert_fails(&served, timeout, "(the migration, user postgres, active)", "locked, and who it is");
    assert_fails(&served, timeout, "waited for 1s", "locked, and for how long");
    locker.signal(rustix::process::Signal::KILL);
    locker.wait().code(137);
    served.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'the migration'");
    // One that ends in time is waited for.
    let sql = "BEGIN; LOCK TABLE goods IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(2); COMMIT";
    let locker = cluster.psql(served.database(), sql, []).start();
    std::thread::sleep(std::time::Duration::from_millis(500));
    configure(&served, "          lock_timeout: 60s\n", true);
    served.env.lifeboat(["backup", "shop"]).ok();
    locker.wait().ok();
}
