//! Sources that fail: the others are in the snapshot, which is told apart.

use serde_json::Value;

use super::{Apps, can, lines, shop, texts};
use lifeboat_store::testing::can_run;
use rustix::process::Signal;

/// A backup of which the source `name` fails, the others being inside.
fn fails(apps: &Apps, name: &str, why: &str) -> Value {
    let last = apps.listed("shop").len();
    let summary = apps.summary("backup shop", 18);
    assert_eq!(summary["outcome"], "partial", "{summary}");
    let failed = summary["failed_sources"].as_array().unwrap();
    assert_eq!(texts(failed, "name"), [name], "{summary}");
    assert!(failed[0]["message"].as_str().unwrap().contains(why), "{summary}");
    let archive = summary["archive"].as_str().unwrap();
    let paths = apps.paths(archive);
    assert!(paths.iter().all(|path| !path.contains(name)), "{paths:?}");
    for (other, path) in [("conf", "files/conf/shop.yml"), ("media", "files/media/a.jpg"), ("db", "sqlite/db.db")] {
        assert_eq!(other != name, paths.iter().any(|found| found == path), "{other} in {paths:?}");
    }
    let head = apps.head(archive);
    let sources = head["sources"].as_array().unwrap();
    let recorded = sources.iter().find(|source| source["name"] == name).unwrap();
    assert!(recorded["details"]["failed"].as_str().unwrap().contains(why), "{recorded}");
    let sidecar: Value = serde_json::from_str(&apps.text(format!("{archive}.json"))).unwrap();
    assert_eq!((&sidecar["outcome"], &sidecar["failed_sources"]), (&"partial".into(), &serde_json::json!([name])));
    let listed = apps.listed("shop");
    assert_eq!((listed.len(), &listed[last]["outcome"]), (last + 1, &"partial".into()));
    summary
}

/// Shows P2.
#[test]
fn a_root_that_is_missing_or_became_empty_fails_and_the_others_go_on() {
    if !can("a_root_that_is_missing_or_became_empty_fails_and_the_others_go_on") {
        return;
    }
    let apps = shop();
    let good = apps.summary("backup shop", 0);
    apps.remove("shop/media/a.jpg");
    let summary = fails(&apps, "media", "the last good snapshot has files of it");
    let said = apps.run("status").code(1).stdout;
    assert!(said.contains("the last backup was incomplete: source media") && said.contains("is partial"), "{said}");
    apps.remove("shop/media");
    fails(&apps, "media", "it does not exist");

    // Never the latest; by its id it is restored, and says what it lacks.
    apps.run("restore latest --app shop --to new").ok();
    assert!(apps.env.path("new/files/media/a.jpg").exists());
    let plan = apps.run("restore latest --app shop --dry-run --json").ok();
    assert_eq!(lines(&plan, "plan")[0]["snapshot"], good["id"], "{}", plan.stdout);
    let id = &summary["id"].as_str().unwrap()[..8];
    apps.env.write("shop/conf/shop.yml", "changed");
    apps.run(&format!("restore {id} --force --allow-unauthenticated")).ok();
    assert_eq!(apps.text("shop/conf/shop.yml"), "port: 80\n");
    assert!(!apps.env.path("shop/media").exists());

    // One that never had files may be empty.
    let apps = shop();
    apps.remove("shop/media/a.jpg");
    assert_eq!(apps.summary("backup shop", 0)["outcome"], "good");
    assert_eq!(apps.summary("backup shop", 0)["outcome"], "good");
}

/// Shows P2, P3.
#[test]
fn a_database_that_is_locked_damaged_or_none_fails_and_the_others_go_on() {
    const TEST: &str = "a_database_that_is_locked_damaged_or_none_fails_and_the_others_go_on";
    if !can(TEST) || !can_run(TEST, &["python3"]) {
        return;
    }
    let apps = shop();
    let holder = "import sqlite3, time\nc = sqlite3.connect('shop/shop.db', isolation_level=None)\n\
        c.execute('BEGIN EXCLUSIVE')\nopen('ready', 'w').close()\ntime.sleep(600)";
    let running = apps.env.program("python3", ["-c", holder]).start();
    while !apps.env.path("ready").exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    fails(&apps, "db", "is locked by python3 (pid ");
    running.signal(Signal::KILL);
    running.wait().code(137);

    apps.sql("shop/shop.db", "CREATE TABLE u(y); INSERT INTO u SELECT zeroblob(3000) FROM t");
    let mut bytes = apps.env.read("shop/shop.db");
    let page = bytes.len() - 4096;
    bytes[page..].fill(0x5a);
    apps.env.write("shop/shop.db", bytes);
    fails(&apps, "db", "damaged");
    apps.env.write("shop/shop.db", "no database at all, but long enough to be looked at");
    fails(&apps, "db", "is no SQLite database");
    apps.remove("shop/shop.db");
    fails(&apps, "db", "cannot be opened");
}

/// Shows P2.
#[test]
fn where_every_source_fails_no_archive_is_made() {
    let apps = Apps::new(super::SHOP);
    apps.env.mkdir("shop");
    let said = apps.run("backup shop").code(18).stderr;
    for part in ["shop/conf", "shop/media", "shop.db", "no archive was made"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(!apps.env.path("backups").exists());
    assert!(apps.run("status").code(1).stdout.contains("the last backup failed: could not back up"));
}

/// Shows P2.
#[test]
fn a_snapshot_that_lacks_what_is_required_is_restored_by_its_id_only() {
    if !can("a_snapshot_that_lacks_what_is_required_is_restored_by_its_id_only") {
        return;
    }
    let apps = shop();
    apps.configure(&super::SHOP.replace("    sources:", "    required: [db, 'media/*.jpg']\n    sources:"));
    apps.remove("shop/media/a.jpg");
    let summary = apps.summary("backup shop --only conf --only media", 3);
    let archive = summary["archive"].as_str().unwrap().to_owned();
    apps.env.write("shop/conf/shop.yml", "changed");
    let said = apps.run(&format!("restore {archive} --force --allow-unauthenticated")).code(13).stderr;
    assert!(said.contains("the snapshot lacks") && said.contains("`required`"), "{said}");
    assert_eq!(apps.text("shop/conf/shop.yml"), "changed");
    let id = &summary["id"].as_str().unwrap()[..8];
    apps.run(&format!("restore {id} --force --allow-unauthenticated")).ok();
    assert_eq!(apps.text("shop/conf/shop.yml"), "port: 80\n");

    // A whole one is not good either without it.
    let said = apps.run("backup shop").code(3).stderr;
    assert!(said.contains("media/*.jpg: there is no such file, and `required` in lifeboat.yaml names it"), "{said}");
    assert_eq!(apps.status("", 1)["apps"][0]["last"]["outcome"], "partial");
    apps.env.write("shop/media/b.jpg", "picture");
    apps.run("backup shop").ok();
}
