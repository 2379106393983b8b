//! Where sources stand in a snapshot (`at`), and that each finds its way back.

use super::Apps;
use crate::fidelity::snapshot;

const YAML: &str = "apps:
  web:
    sources:
      conf: { files: { root: DIR/live/conf, at: '.' } }
      unit: { files: { root: DIR/live/web.service, at: '.' } }
      state: { files: { root: DIR/live/state, at: state } }
      more: { files: { root: DIR/live/more, at: state/ } }
      logs: { files: { root: DIR/live/logs, at: state/logs } }
      usual: { files: { root: DIR/live/usual } }
    backup_dir: DIR/backups
";

/// Places at the top, shared, and inside each other; one file, links between sources.
fn apps() -> Apps {
    let apps = Apps::new(YAML);
    for (path, content) in [
        ("conf/web.yml", "port: 80"),
        ("conf/extra/deep.yml", "deep"),
        ("web.service", "[Unit]"),
        ("state/one", "1"),
        ("state/jobs/two", "2"),
        ("more/three", "3"),
        ("more/tasks/four", "4"),
        ("logs/app.log", "log"),
        ("usual/file", "usual"),
    ] {
        apps.env.write(format!("live/{path}"), content);
    }
    apps.env.set_mode("live/logs", 0o750);
    apps
}

fn restore(apps: &Apps, args: &str) {
    apps.run(&format!("restore latest --force --allow-unauthenticated {args}")).ok();
}

/// Shows P1.
#[test]
fn each_source_stands_at_its_place() {
    let apps = apps();
    apps.run("backup web").ok();
    let archive = apps.only_archive("backups");
    assert_eq!(
        apps.paths(&archive),
        [
            "extra",
            "extra/deep.yml",
            "files/usual",
            "files/usual/file",
            "state/jobs",
            "state/jobs/two",
            "state/logs",
            "state/logs/app.log",
            "state/one",
            "state/tasks",
            "state/tasks/four",
            "state/three",
            "web.service",
            "web.yml",
        ]
    );
    let head = apps.head(&archive);
    let source = |name: &str| head["sources"].as_array().unwrap().iter().find(|source| source["name"] == name).unwrap();
    for (name, at, names) in [
        ("conf", "", serde_json::Value::Null),
        ("unit", "web.service", serde_json::Value::Null),
        ("state", "state", serde_json::json!(["jobs", "one"])),
        ("more", "state", serde_json::json!(["tasks", "three"])),
        ("logs", "state/logs", serde_json::Value::Null),
    ] {
        assert_eq!((&source(name)["at"], &source(name)["names"]), (&at.into(), &names), "{name}");
    }
    assert!(source("usual")["at"].is_null());
    // Stock tools read it, and the sums agree.
    apps.run(&format!("backup verify {archive}")).ok();
    apps.env.mkdir("out");
    apps.env.run("tar", ["--zstd", "-xf", &archive, "-C", "out"]).ok();
    assert_eq!(apps.text("out/state/logs/app.log"), "log");
}

/// Shows P1, R1.
#[test]
fn each_source_goes_back_where_it_stood() {
    let apps = apps();
    apps.run("backup web").ok();
    let before = snapshot(&apps.env.path("live"));
    let change = || {
        for path in ["conf/web.yml", "state/one", "more/three", "logs/app.log", "web.service", "usual/file"] {
            apps.env.write(format!("live/{path}"), "changed");
        }
        for gone in ["conf/extra", "state/jobs", "more/tasks"] {
            apps.remove(&format!("live/{gone}"));
        }
    };
    change();
    restore(&apps, "");
    for (path, node) in &before {
        if node.kind == "file" {
            let path = String::from_utf8(path.clone()).unwrap();
            let content = snapshot(&apps.env.path("live"))[path.as_bytes()].content.clone();
            assert_eq!(content, node.content, "{path}");
        }
    }

    // One of those that share a place, and nothing of the other.
    change();
    restore(&apps, "--only state");
    assert_eq!((apps.text("live/state/one"), apps.text("live/more/three")), ("1".to_owned(), "changed".to_owned()));
    assert_eq!(apps.text("live/state/jobs/two"), "2");
    assert!(!apps.env.path("live/state/logs").exists() && !apps.env.path("live/state/three").exists());
    restore(&apps, "--only conf/extra/*.yml --only unit");
    assert_eq!(
        (apps.text("live/conf/extra/deep.yml"), apps.text("live/web.service")),
        ("deep".into(), "[Unit]".into())
    );
    assert_eq!(apps.text("live/conf/web.yml"), "changed");

    // Mode full: each root becomes its part of the snapshot, and keeps nothing else.
    for new in ["conf/new", "state/new", "state/jobs/new", "more/new", "logs/new", "usual/new"] {
        apps.env.write(format!("live/{new}"), "new");
    }
    restore(&apps, "--mode full");
    let names = |path: &str| -> Vec<String> {
        apps.env.names(path).into_iter().filter(|name| !name.contains(".lifeboat-")).collect()
    };
    assert_eq!(names("live/conf"), ["extra", "web.yml"]);
    assert_eq!(
        (names("live/state"), names("live/state/jobs")),
        (vec!["jobs".into(), "one".into()], vec!["two".into()])
    );
    assert_eq!(
        (names("live/more"), names("live/logs")),
        (vec!["tasks".into(), "three".into()], vec!["app.log".into()])
    );
    assert_eq!(names("live/usual"), ["file"]);

    // And on a host where nothing of it is left.
    apps.remove("live");
    apps.env.mkdir("live");
    restore(&apps, "");
    let same = |tree: crate::fidelity::Tree| {
        let own = tree.into_iter().filter(|(path, _)| !path.windows(10).any(|part| part == b".lifeboat-"));
        own.map(|(path, node)| (String::from_utf8(path).unwrap(), node.content)).collect::<Vec<_>>()
    };
    assert_eq!(same(snapshot(&apps.env.path("live"))), same(before));
}

/// Shows P1.
#[test]
fn sources_that_hold_the_same_path_are_refused_and_so_is_a_second_manifest() {
    for (path, expected) in [
        ("state/three", "the sources more and state both hold state/three"),
        ("state/logs/x", "both hold state/logs"),
        ("conf/state", "both hold state"),
        ("conf/state/below", "both hold state"),
        ("conf/files", "both hold files"),
        ("conf/web.service", "both hold web.service"),
        ("conf/manifest.json", "the source conf holds manifest.json"),
        ("conf/manifest.json/x", "the source conf holds manifest.json"),
    ] {
        let apps = apps();
        apps.env.write(format!("live/{path}"), "too much");
        let said = apps.run("backup web").code(2).stderr;
        assert!(said.contains(expected) && said.contains("no archive was made"), "{path}: {said}");
        assert!(said.contains("another `at`"), "{said}");
        let backups = std::fs::read_dir(apps.env.path("backups")).into_iter().flatten();
        assert_eq!(backups.count(), 0, "{path}");
    }
}

/// Shows P1, A4.
#[test]
fn hard_links_between_sources_stay_where_their_places_are_apart() {
    let apps = Apps::new(
        "apps: { web: { sources: { a: { files: { root: DIR/live/a } }, b: { files: { root: DIR/live/b, at: b } } } } }",
    );
    apps.env.write("live/a/file", "one");
    apps.env.mkdir("live/b");
    std::fs::hard_link(apps.env.path("live/a/file"), apps.env.path("live/b/same")).unwrap();
    let before = snapshot(&apps.env.path("live"));
    let archive = apps.summary("backup web", 0)["archive"].as_str().unwrap().to_owned();
    apps.remove("live/a");
    apps.remove("live/b");
    apps.run(&format!("restore {archive} --to new")).ok();
    let tree = snapshot(&apps.env.path("new"));
    assert_eq!(tree[&b"files/a/file"[..]].first_name, tree[&b"b/same"[..]].first_name);
    // Two places on the host: what was one file there is the same content in both.
    restore(&apps, "--app web");
    let after = snapshot(&apps.env.path("live"));
    assert_eq!(after[&b"b/same"[..]].content, before[&b"b/same"[..]].content);
}

/// Shows P2.
#[test]
fn a_source_that_became_empty_at_a_shared_place_fails() {
    let apps = apps();
    apps.run("backup web").ok();
    for gone in ["live/more/three", "live/more/tasks", "live/logs/app.log"] {
        apps.remove(gone);
    }
    let summary = apps.summary("backup web", 18);
    let mut failed = super::texts(summary["failed_sources"].as_array().unwrap(), "name");
    failed.sort();
    assert_eq!(failed, ["logs", "more"], "{summary}");
    // One beside files of others that never had any is fine.
    let apps = Apps::new(YAML);
    for path in ["conf/a", "web.service", "state/one", "logs/a", "usual/a"] {
        apps.env.write(format!("live/{path}"), "x");
    }
    apps.env.mkdir("live/more");
    apps.run("backup web").ok();
    apps.run("backup web").ok();
}
