//! Queries of databases of a server: for the application's version, and for what
//! must hold after a restore.

use super::cluster::Cluster;
use super::restore::{CHANGE, TABLE};
use super::served::Served;

const VERSION: &str = "    version: { sql: { db: db, query: 'SELECT version FROM about' } }\n";

/// A check after a restore of the database `db`, with what is expected.
fn check(query: &str, expect: &str) -> String {
    format!("    after_restore: [{{ sql: {{ db: db, query: \"{query}\", expect: '{expect}' }}, timeout: 2s }}]\n")
}

/// Shows D1, P7.
#[test]
fn a_database_of_a_server_tells_the_version_of_its_application() {
    const TEST: &str = "a_database_of_a_server_tells_the_version_of_its_application";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let names = ["told", "other"].map(|stem| cluster.create_db(stem, ""));
    let served = Served::new(cluster, &[&names[0]]);
    served.sql("CREATE TABLE about (version text); INSERT INTO about VALUES ('shop v2.10.1')");
    let version = |archive: &str| {
        let told = served.env.lifeboat(["backup", "list", "--json", archive]).ok().json_lines();
        told[0]["app_version"].clone()
    };
    served.configure(VERSION);
    served.backup();
    assert_eq!(version("shop.tar.zst"), "2.10.1");
    served.sql("UPDATE about SET version = '2.9.0'");
    let refused = served.force(&[]).code(17).stderr;
    assert!(refused.contains("made by shop 2.10.1, and shop 2.9.0 is installed here"), "{refused}");
    served.force(&["--ignore-version"]).ok();
    assert_eq!(served.sql("SELECT version FROM about"), "shop v2.10.1");

    let both = Served::new(cluster, &[&names[0], &names[1]]);
    for db in [format!("db/{}", names[0]), names[0].clone()] {
        both.configure(&VERSION.replace("db: db,", &format!("db: '{db}',")));
        both.backup();
        let told = both.env.lifeboat(["backup", "list", "--json", "shop.tar.zst"]).ok().json_lines();
        assert_eq!(told[0]["app_version"], "2.10.1", "{db}");
    }
    both.configure(VERSION);
    let said = both.env.lifeboat(["backup", "shop"]).code(2).stderr;
    assert!(said.contains("unknown database `db`"), "{said}");
    // What does not answer is a note, and no reason to have no backup.
    served.configure(&VERSION.replace("about", "no_such_table"));
    std::fs::remove_file(served.env.path("shop.tar.zst")).unwrap();
    let said = served.env.lifeboat(["backup", "shop", "-o", "shop.tar.zst"]).ok();
    assert!(
        said.stderr.contains("its version is not known") && said.stderr.contains("no_such_table"),
        "{}",
        said.stderr
    );
}

/// Shows D6.
#[test]
fn what_must_hold_after_a_restore_is_asked_of_the_restored_database() {
    const TEST: &str = "what_must_hold_after_a_restore_is_asked_of_the_restored_database";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let served = Served::new(cluster, &[&cluster.create_db("checked", "")]);
    served.sql(TABLE);
    served.backup();
    for (query, expect, why) in [
        ("SELECT count(*) FROM goods", "= 20", ""),
        ("SELECT count(*) FROM goods", "> 20", "it answered `20`, expected > 20"),
        ("SELECT 1 WHERE false", "= 1", "the query found nothing"),
        ("DELETE FROM goods RETURNING 1", "= 1", "read-only transaction"),
        ("SELECT pg_sleep(60)", "= 1", "statement timeout"),
        ("SELECT gods FROM goods", "= 1", "does not exist"),
    ] {
        served.sql("DROP TABLE goods");
        served.sql(&format!("DROP TABLE IF EXISTS later; {TABLE} {CHANGE}"));
        served.configure(&check(query, expect));
        if why.is_empty() {
            let said = served.force(&[]).ok().stdout;
            assert!(said.contains("1 check"), "{said}");
            assert_eq!(served.sql("SELECT count(*) FROM goods"), "20");
        } else {
            let said = served.force(&[]).code(20).stderr;
            assert!(said.contains(why), "{query}: {said}");
            assert_eq!(served.sql("SELECT count(*) FROM later"), "1", "{query}");
        }
        if why.is_empty() {
            served.env.lifeboat(["restore", "--discard"]).ok();
        }
    }
    served.assert_nothing_left("all was rolled back or discarded");
}

/// Shows D6, D7.
#[test]
fn a_restore_that_a_crash_interrupted_asks_by_its_journal_alone() {
    const TEST: &str = "a_restore_that_a_crash_interrupted_asks_by_its_journal_alone";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    for in_place in [false, true] {
        let served = Served::new(cluster, &[&cluster.create_db("interrupted", "")]);
        served.sql(TABLE);
        served.backup();
        served.sql(CHANGE);
        let dir = served.env.path("").display().to_string();
        let kill = format!("cd {dir}; test -e killed || {{ touch killed; kill -9 $PPID; }}");
        let health = format!("    health: [ {{ command: [sh, -c, '{kill}'], timeout: 5s, every: 50ms }} ]\n");
        let held = "SELECT count(*) FROM goods WHERE name = 'goods 7'";
        served.configure(&format!("{health}{}", check(held, "= 1")));
        let options: &[&str] = if in_place { &["--in-place"] } else { &[] };
        served.force(options).code(137);
        std::fs::remove_file(served.env.path("lifeboat.yaml")).unwrap();
        // Now it does not hold, which shows that it is asked.
        served.sql("UPDATE goods SET name = 'other' WHERE id = 7");
        let said = served.env.lifeboat(["recover"]).exit_code();
        assert_ne!(said, 0, "in place: {in_place}");
        served.sql("UPDATE goods SET name = 'goods 7' WHERE id = 7");
        let said = served.env.lifeboat(["recover"]).ok().stdout;
        assert!(said.contains("stands now"), "in place: {in_place}: {said}");
        assert_eq!(served.sql("SELECT count(*) FROM goods"), "20");
    }
}

/// Shows R9.
#[test]
fn a_database_that_is_not_restored_is_asked_too() {
    const TEST: &str = "a_database_that_is_not_restored_is_asked_too";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let served = Served::new(cluster, &[&cluster.create_db("asked", "")]);
    served.sql(TABLE);
    served.env.write("conf/a", "old");
    let conf = format!("      conf: {{ files: {{ root: {} }} }}\n", served.env.path("conf").display());
    served.configure(&format!("{conf}{}", check("SELECT count(*) FROM goods", "= 20")));
    served.backup();
    served.env.write("conf/a", "new");
    served.force(&["--only", "conf"]).ok();
    assert_eq!(served.env.read("conf/a"), b"old");
    served.sql("DELETE FROM goods WHERE id = 1");
    served.env.write("conf/a", "new");
    let said = served.force(&["--only", "conf"]).code(20).stderr;
    assert!(said.contains("it answered `19`, expected = 20"), "{said}");
    assert_eq!(served.env.read("conf/a"), b"new");
}
