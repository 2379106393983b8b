//! Services that a source wants stopped while it is read, each for its own
//! source only.

use std::time::{Duration, Instant};

use lifeboat_store::testing::can_run;
use rustix::process::Signal;
use serde_json::Value;

use super::{Apps, can, texts};

/// `SERVICES` stands for services by name, whose commands write into `log`.
fn apps(sources: &str, services: &[&str], more: &str) -> Apps {
    let command = |name: &str, what: &str| format!("{what}: [sh, DIR/service, {name}, {what}]");
    let service =
        |name: &&str| format!("        {name}: {{ {}, {} }}\n", command(name, "stop"), command(name, "start"));
    let services: String = services.iter().map(service).collect();
    let apps = Apps::new(&format!(
        "backup_dir: DIR/backups
apps:
  app:
    services:
      commands:
{services}      restore_stop: []
{more}    sources:
{sources}"
    ));
    let dir = apps.env.path("");
    let dir = dir.to_str().unwrap();
    apps.env.write("service", format!("cd {dir}\nif test -e $1.$2; then . ./$1.$2; fi\necho $2 $1 >> log\n"));
    for source in ["a", "b", "c"] {
        apps.env.write(format!("{source}/file"), source);
    }
    apps
}

fn log(apps: &Apps) -> String {
    let log = std::fs::read_to_string(apps.env.path("log")).unwrap_or_default();
    std::fs::remove_file(apps.env.path("log")).unwrap_or(());
    log.trim_end().replace('\n', ", ")
}

fn pause_of(head: &Value, name: &str) -> u64 {
    let sources = head["sources"].as_array().unwrap();
    sources.iter().find(|source| source["name"] == name).unwrap()["pause_ms"].as_u64().unwrap()
}

/// Shows P5.
#[test]
fn a_service_stands_still_for_its_own_source_only_and_databases_come_first() {
    if !can("a_service_stands_still_for_its_own_source_only_and_databases_come_first") {
        return;
    }
    let sources = "      a: { files: { root: DIR/a, stop: [x] } }
      b: { files: { root: DIR/b, stop: [y] } }
      c: { files: { root: DIR/c } }
      db: { sqlite: { path: DIR/app.db } }
";
    let apps = apps(sources, &["x", "y"], "");
    apps.database("app.db", 3);
    // Several units of files in the first source: the second service is not stopped while they are read.
    for number in 0..40 {
        apps.env.write(format!("a/{number}"), vec![number; 300_000]);
    }
    apps.env.write("x.stop", "sqlite3 app.db 'DELETE FROM t'; sleep 0.3\n");
    let summary = apps.summary("backup app", 0);
    assert_eq!(log(&apps), "stop x, start x, stop y, start y");
    assert_eq!(summary["databases"][0]["rows"], 3, "the database was read before anything was stopped");
    assert_eq!(texts(summary["pauses"].as_array().unwrap(), "service"), ["x", "y"], "{summary}");
    let head = apps.head(&apps.only_archive("backups"));
    let [a, b, c, db] = ["a", "b", "c", "db"].map(|name| pause_of(&head, name));
    assert!(a >= 300 && b < a && c == 0 && db == 0, "{head}");
    assert_eq!(apps.paths(&apps.only_archive("backups")).len(), 41 + 1 + 2 + 2 + 1);
    assert_eq!(apps.env.names("backups").len(), 2);
}

/// Shows P5.
#[test]
fn two_sources_may_share_a_service_apart_and_at_one_place() {
    let apart = "      a: { files: { root: DIR/a, stop: [x, y] } }
      b: { files: { root: DIR/b, stop: [y] } }
      c: { files: { root: DIR/c } }
";
    let apps = apps(apart, &["x", "y"], "");
    let summary = apps.summary("backup app", 0);
    assert_eq!(log(&apps), "stop x, stop y, start y, start x, stop y, start y");
    assert_eq!(summary["outcome"], "good");

    // What is read in turns is held until the last of its own was read, and stopped once.
    let together = apart.replace(", stop", ", at: all, stop");
    let apps = self::apps(&together, &["x", "y"], "");
    apps.remove("b/file");
    apps.env.write("b/other", "b");
    apps.env.write("y.stop", "sleep 0.2\n");
    apps.run("backup app").ok();
    assert_eq!(log(&apps), "stop x, stop y, start x, start y");
    let head = apps.head(&apps.only_archive("backups"));
    let [a, b, c] = ["a", "b", "c"].map(|name| pause_of(&head, name));
    assert!(a >= 200 && b >= 200 && c == 0, "{head}");
}

/// Shows P2, P5.
#[test]
fn a_service_that_does_not_stop_fails_its_source_and_goes_on() {
    let sources = "      a: { files: { root: DIR/a, stop: [x, y] } }
      b: { files: { root: DIR/b, stop: [x] } }
      c: { files: { root: DIR/c } }
";
    let apps = apps(sources, &["x", "y"], "");
    apps.env.write("y.stop", "echo no way >&2; exit 1\n");
    let summary = apps.summary("backup app", 18);
    assert_eq!(summary["outcome"], "partial");
    let failed = summary["failed_sources"].as_array().unwrap();
    assert_eq!(texts(failed, "name"), ["a"]);
    let message = failed[0]["message"].as_str().unwrap();
    assert!(message.contains("service y did not stop") && message.contains("no way"), "{message}");
    let archive = apps.only_archive("backups");
    assert_eq!(apps.paths(&archive), ["files/b", "files/b/file", "files/c", "files/c/file"]);
    let log = log(&apps);
    assert!(log.starts_with("stop x, ") && log.ends_with("stop x, start x"), "{log}");
    assert_eq!(log.matches("stop x").count(), log.matches("start x").count(), "{log}");
    apps.run("verify").code(2);
    apps.run(&format!("backup verify {archive}")).ok();

    // Where it was the only one, there is no archive.
    let apps = self::apps("      a: { files: { root: DIR/a, stop: [x] } }\n", &["x"], "");
    apps.env.write("x.stop", "exit 1\n");
    let said = apps.run("backup app").code(18).stderr;
    assert!(said.contains("service x did not stop") && said.contains("no archive was made"), "{said}");
    assert_eq!(apps.env.names("backups"), Vec::<String>::new());
}

/// Shows P5.
#[test]
fn a_service_is_frozen_for_the_app_or_stopped_for_a_source_and_not_both() {
    let sources = "      a: { files: { root: DIR/a, stop: [x] } }\n      b: { files: { root: DIR/b } }\n";
    let apps = apps(sources, &["x", "y"], "      freeze: [x]\n");
    let said = apps.run("backup app").code(2).stderr;
    assert!(
        said.contains("`x` stands still for the whole app by `freeze`") && said.contains("lifeboat.yaml:"),
        "{said}"
    );

    // Different ones work together: what is frozen goes on when the last source was read.
    let apps = self::apps(sources, &["x", "y"], "      freeze: [y]\n");
    apps.env.write("y.stop", "sleep 0.3\n");
    apps.run("backup app").ok();
    let log = log(&apps);
    assert!(log.starts_with("stop y, stop x, start x") && log.ends_with("start y"), "{log}");
    let head = apps.head(&apps.only_archive("backups"));
    assert!(pause_of(&head, "a") >= 300 && pause_of(&head, "b") >= 300, "frozen for both: {head}");
}

/// Shows P5.
#[test]
fn while_a_service_stands_still_no_lock_is_waited_for_longer_than_a_second() {
    const TEST: &str = "while_a_service_stands_still_no_lock_is_waited_for_longer_than_a_second";
    if !can_run(TEST, &["python3"]) {
        return;
    }
    let apps = apps("      a: { files: { root: DIR/a, stop: [x] } }\n", &["x"], "");
    let holder = "import sqlite3, time\nc = sqlite3.connect('a/app.db', isolation_level=None)\n\
        c.execute('CREATE TABLE t(x)')\nc.execute('BEGIN EXCLUSIVE')\nopen('ready', 'w').close()\ntime.sleep(600)";
    let running = apps.env.program("python3", ["-c", holder]).start();
    while !apps.env.path("ready").exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let began = Instant::now();
    let said = apps.run("backup app").code(3).stderr;
    assert!(said.contains("is locked by python3"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    running.signal(Signal::KILL);
    running.wait().code(137);
}
