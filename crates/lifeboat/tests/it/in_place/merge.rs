//! Merging the rows of SQLite databases, and restoring single tables of them:
//! what the plan and the report say, what is live afterwards, what is refused,
//! and that it goes back like any other restore.

use std::path::Path;

use lifeboat_store::testing::{can_run, sweep_some};

use super::Live;
use super::databases::configure;
use crate::env::{Said, TestEnv};
use crate::faults::{calls, trace, traced};
use crate::fidelity::{Tree, assert_same, snapshot};

/// The database that is merged, and another one.
const DB: &str = "live/app/data/tomo.db";
const OTHER: &str = "live/app/data/other.db";

const SCHEMA: &str = "
CREATE TABLE groups(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE servers(id INTEGER PRIMARY KEY AUTOINCREMENT, host TEXT NOT NULL, port INT, password TEXT,
    grp INTEGER REFERENCES groups(id), UNIQUE (host, port));
CREATE TABLE apps(id INTEGER PRIMARY KEY, server_id INTEGER NOT NULL REFERENCES servers(id) ON DELETE CASCADE, name TEXT,
    label TEXT AS (name || '!') STORED);
CREATE TABLE settings(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE audit(at, what);
CREATE VIRTUAL TABLE app_words USING fts5(name, content='apps', content_rowid='id');
CREATE TRIGGER apps_ai AFTER INSERT ON apps BEGIN
    INSERT INTO app_words(rowid, name) VALUES (new.id, new.name);
    INSERT INTO audit VALUES (1, 'added ' || new.name);
END;";
const ROWS: &str = "
INSERT INTO groups VALUES (1, 'lab'), (2, 'shop');
INSERT INTO servers VALUES (1, 'alpha', 22, 'CANARY-1', 1), (2, 'beta', 22, 'CANARY-2', 1), (3, 'gamma', 22, 'CANARY-3', 2);
INSERT INTO apps(id, server_id, name) VALUES (1, 1, 'web'), (2, 2, 'mail'), (3, 3, 'wiki');
INSERT INTO settings VALUES ('theme', 'dark'), ('lang', 'en');";
/// What happened to it since: beta was edited, gamma is gone with what was on it, delta is new.
const SINCE: &str = "
PRAGMA foreign_keys=ON;
UPDATE servers SET password = 'CANARY-new' WHERE id = 2;
DELETE FROM servers WHERE id = 3;
INSERT INTO servers VALUES (4, 'delta', 22, 'CANARY-4', 1);
INSERT INTO apps(id, server_id, name) VALUES (4, 4, 'chat');
UPDATE settings SET value = 'light' WHERE key = 'theme';
DELETE FROM settings WHERE key = 'lang';";

fn sql(env: &TestEnv, path: &str, sql: &str) -> String {
    let path = env.path(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    env.run("sqlite3", ["-bail", path.to_str().unwrap(), sql]).ok().stdout.trim().replace('\n', " ")
}

/// An app of a file and the database, backed up, with what happened since; `more` stands below the source, and `app`
/// below the app.
fn tomo_with(more: &str, app: &str, since: &str) -> Live {
    let env = TestEnv::new();
    env.write("live/app/conf/app.conf", "port = 80\n");
    sql(&env, DB, &format!("{SCHEMA}{ROWS}"));
    env.set_mode(DB, 0o640);
    let files = format!("      conf: {{ files: {{ root: {} }} }}\n", env.path("live/app/conf").display());
    let db = format!("      db: {{ sqlite: {{ path: {}{more} }} }}\n", env.path(DB).display());
    configure(&env, &(files + &db), &[], app);
    env.lifeboat(["backup", "app", "-o", "app.tar.zst"]).ok();
    sql(&env, DB, since);
    Live { env }
}

fn tomo() -> Live {
    tomo_with("", "", SINCE)
}

fn servers(live: &Live) -> String {
    sql(&live.env, DB, "SELECT id, host, password FROM servers ORDER BY id")
}

const BEFORE: &str = "1|alpha|CANARY-1 2|beta|CANARY-new 4|delta|CANARY-4";
const MERGED: &str = "1|alpha|CANARY-1 2|beta|CANARY-new 3|gamma|CANARY-3 4|delta|CANARY-4";

/// Neither in what it said, nor anywhere else: contents of rows.
fn assert_tells_keys_only(said: &Said) {
    assert!(!said.stdout.contains("CANARY") && !said.stderr.contains("CANARY"), "{}{}", said.stdout, said.stderr);
}

fn table<'j>(merge: &'j serde_json::Value, name: &str) -> &'j serde_json::Value {
    merge["tables"].as_array().unwrap().iter().find(|table| table["table"] == name).unwrap()
}

fn counts(merge: &serde_json::Value, name: &str) -> [u64; 3] {
    ["added", "duplicates", "conflicts"].map(|count| table(merge, name)[count].as_u64().unwrap())
}

/// `restore` with these options is refused with this code and says this; nothing changes.
fn assert_refused(live: &Live, options: &[&str], code: i32, expected: &str) {
    let (before, journals) = (live.all(), live.journals());
    for options in [options.to_vec(), [options, &["--dry-run"]].concat()] {
        let said = live.restore(&options).code(code).stderr;
        assert!(said.contains(expected), "{options:?}: {said}");
        assert_same(&before, &live.all(), &format!("{options:?}"));
        assert_eq!(live.journals(), journals);
    }
}

fn can_play(test: &str) -> bool {
    can_run(test, &["sqlite3"])
}

/// Shows E9.
#[test]
fn a_merge_adds_the_rows_that_are_missing_and_tells_what_stays() {
    if !can_play("a_merge_adds_the_rows_that_are_missing_and_tells_what_stays") {
        return;
    }
    let live = tomo();
    let (before, bytes) = (live.all(), live.env.read(DB));
    let (temp, data) = (live.env.mkdir("temp"), snapshot(&live.env.data_dir()));
    let plan = ["restore", "app.tar.zst", "--only", "db", "--mode", "merge", "--dry-run"];
    let said = live.env.command(plan.iter().chain(&["--json"])).env("TMPDIR", &temp).run().ok();
    assert_tells_keys_only(&said);
    let merge = said.json_lines().into_iter().find(|line| line["message_type"] == "plan").unwrap()["merges"][0].clone();
    assert_eq!((counts(&merge, "servers"), counts(&merge, "apps")), ([1, 1, 1], [1, 2, 0]));
    assert_eq!((counts(&merge, "settings"), counts(&merge, "groups")), ([1, 0, 1], [0, 2, 0]));
    assert_eq!(table(&merge, "servers")["conflict_keys"][0], "id=2");
    assert_eq!((&merge["source"], &merge["rebuilt"][0]), (&"db".into(), &"app_words".into()));
    let said = live.env.command(plan).env("TMPDIR", &temp).run().ok().stdout;
    for line in ["  servers: 1 added, 1 there already, 1 conflict: id=2", "  app_words: its index is made anew"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert_same(&before, &live.all(), "a dry run writes nothing");
    assert_same(&data, &snapshot(&live.env.data_dir()), "not even below the data directory");
    assert_eq!(live.env.names("temp"), Vec::<String>::new());
    let said = live.env.lifeboat(["restore", "app.tar.zst", "--only", "db", "--mode", "merge"]).code(22).stderr;
    assert!(said.contains("it would add 3 rows in ") && said.contains("tomo.db"), "{said}");
    let schema = |live: &Live| sql(&live.env, DB, "SELECT * FROM sqlite_schema ORDER BY name");
    let schema_before = schema(&live);
    let said = live.restore(&["--mode", "merge"]).ok();
    assert_tells_keys_only(&said);
    assert!(said.stdout.contains("Added 3 rows; everything that existed stays."), "{}", said.stdout);
    assert!(said.stderr.contains("1 row of table servers in "), "{}", said.stderr);
    assert!(said.stderr.contains("stayed out, as they do not go with what is live: id=2"), "{}", said.stderr);
    assert_eq!(servers(&live), MERGED);
    assert_eq!(schema(&live), schema_before, "triggers and all, byte for byte");
    assert_eq!(sql(&live.env, DB, "SELECT id, server_id, label FROM apps"), "1|1|web! 2|2|mail! 3|3|wiki! 4|4|chat!");
    assert_eq!(sql(&live.env, DB, "SELECT * FROM settings"), "lang|en theme|light");
    let words = "INSERT INTO app_words(app_words) VALUES ('integrity-check'); SELECT rowid FROM app_words WHERE app_words MATCH 'wiki OR chat'";
    assert_eq!(sql(&live.env, DB, words), "3 4");
    // The trigger fired for what was written, not for what was merged.
    assert_eq!(sql(&live.env, DB, "SELECT what FROM audit"), "added web added mail added wiki added chat");
    assert_eq!(sql(&live.env, DB, "PRAGMA integrity_check; PRAGMA foreign_key_check"), "ok");
    assert_eq!(live.app()[&b"data/tomo.db"[..]].mode & 0o777, 0o640);
    let said = live.restore(&["--mode", "merge"]).ok();
    assert!(said.stdout.starts_with("Nothing to restore: nothing is missing."), "{}", said.stdout);
    assert!(said.stderr.contains("1 row of table servers"), "{}", said.stderr);
    live.env.lifeboat(["restore", "--undo", "--force"]).ok();
    assert_eq!(live.env.read(DB), bytes, "undone");
    assert_eq!(live.all()[&b"app/data/tomo.db"[..]], before[&b"app/data/tomo.db"[..]]);
    live.env.lifeboat(["restore", "--undo", "--force"]).ok();
    assert_eq!(servers(&live), MERGED);
}

/// Shows E9.
#[test]
fn a_part_of_the_app_brings_its_tables_and_what_they_refer_to() {
    if !can_play("a_part_of_the_app_brings_its_tables_and_what_they_refer_to") {
        return;
    }
    let parts = "    parts: { servers: { db: [server*, apps], conf: [app.conf] }, settings: { db: [settings] } }\n";
    let since = format!(
        "{SINCE} DELETE FROM servers WHERE id <> 1; DELETE FROM groups WHERE id = 2; INSERT INTO groups VALUES (9, 'new')"
    );
    let live = tomo_with("", parts, &since);
    std::fs::remove_file(live.path("app/conf/app.conf")).unwrap();
    let said = live.restore(&["--only", "servers", "--mode", "merge", "--json"]).ok();
    let summary = said.json_lines().into_iter().find(|line| line["message_type"] == "summary").unwrap();
    let merge = &summary["merges"][0];
    assert_eq!(table(merge, "groups")["pulled_in_by"], "servers");
    assert_eq!((counts(merge, "groups"), counts(merge, "servers")), ([1, 1, 0], [2, 1, 0]));
    assert!(!said.stdout.contains("\"settings\"") && live.path("app/conf/app.conf").exists());
    assert_eq!(sql(&live.env, DB, "SELECT * FROM groups"), "1|lab 2|shop 9|new");
    assert_eq!(sql(&live.env, DB, "SELECT * FROM settings"), "theme|light", "another part");
    let said = live.restore(&["--only", "settings"]).ok().stdout;
    assert!(said.contains("  settings: 1 row replaced, 2 added"), "{said}");
    assert_eq!(sql(&live.env, DB, "SELECT * FROM settings"), "lang|en theme|dark");
    assert_eq!(sql(&live.env, DB, "SELECT name FROM groups"), "lab new shop".replace("lab new shop", "lab shop new"));
    let said = live.env.lifeboat(["restore", "app.tar.zst", "--only", "setings"]).code(2).stderr;
    assert!(said.contains("did you mean settings?"), "{said}");
}

/// Shows E9.
#[test]
fn single_tables_are_restored_alone() {
    if !can_play("single_tables_are_restored_alone") {
        return;
    }
    let live = tomo();
    live.env.write("live/app/conf/app.conf", "port = 81\n");
    let said = live.env.lifeboat(["restore", "app.tar.zst", "--tables", "db.settings", "--dry-run"]).ok().stdout;
    assert!(said.contains("settings: 1 row replaced, 2 added"), "{said}");
    let said = live.env.lifeboat(["restore", "app.tar.zst", "--tables", "sett*"]).code(22).stderr;
    assert!(said.contains("it would replace 1 row of table settings by 2 in "), "{said}");
    live.restore(&["--tables", "main.SETT*"]).ok();
    assert_eq!(sql(&live.env, DB, "SELECT * FROM settings"), "lang|en theme|dark");
    assert_eq!((servers(&live), live.env.read("live/app/conf/app.conf")), (BEFORE.to_owned(), b"port = 81\n".to_vec()));
    live.restore(&["--tables", "settings", "--tables", "apps", "--mode", "merge"]).ok();
    assert_eq!(servers(&live), MERGED, "apps refer to them");
    let live = tomo();
    // apps of delta would refer to nothing.
    assert_refused(
        &live,
        &["--tables", "servers"],
        17,
        "table apps cannot be merged: 1 of its rows would refer to rows of servers",
    );
    live.restore(&["--tables", "servers", "--tables", "apps"]).ok();
    assert_eq!(servers(&live), "1|alpha|CANARY-1 2|beta|CANARY-2 3|gamma|CANARY-3");
    assert_eq!(sql(&live.env, DB, "PRAGMA integrity_check; PRAGMA foreign_key_check"), "ok");
    let words = "INSERT INTO app_words(app_words) VALUES ('integrity-check'); SELECT rowid FROM app_words WHERE app_words MATCH 'wiki OR chat'";
    assert_eq!(sql(&live.env, DB, words), "3");
}

/// Shows E9.
#[test]
fn a_natural_key_gives_ids_anew_where_two_hosts_had_given_the_same() {
    if !can_play("a_natural_key_gives_ids_anew_where_two_hosts_had_given_the_same") {
        return;
    }
    let since = "DELETE FROM apps; DELETE FROM servers; INSERT INTO servers VALUES (1, 'gamma', 22, 'CANARY-here', 1), (2, 'delta', 22, 'x', 1); \
         INSERT INTO apps(id, server_id, name) VALUES (1, 1, 'wiki'), (2, 2, 'chat')";
    let keys = ", merge_key: { servers: [host, port], apps: [server_id, name] }";
    let live = tomo_with(keys, "", since);
    let said = live.restore(&["--mode", "merge"]).ok();
    assert_tells_keys_only(&said);
    assert!(said.stdout.contains("  servers: 2 added, 1 conflict: host=gamma, port=22"), "{}", said.stdout);
    let query =
        "SELECT s.id, s.host, a.name FROM servers s LEFT JOIN apps a ON a.server_id = s.id ORDER BY s.id, a.name";
    assert_eq!(sql(&live.env, DB, query), "1|gamma|wiki 2|delta|chat 4|alpha|web 5|beta|mail");
    assert!(live.restore(&["--mode", "merge"]).ok().stdout.starts_with("Nothing to restore"));
    // A table that refers to it without saying so.
    let live = tomo_with(keys, "", "CREATE TABLE alerts(id INTEGER PRIMARY KEY, server_id INT)");
    assert_refused(
        &live,
        &["--mode", "merge"],
        17,
        "table servers cannot be merged: alerts.server_id looks like a reference to it that is not declared",
    );
    live.env.lifeboat(["config", "check"]).ok();
    let shown = live.env.lifeboat(["config", "show"]).ok().stdout;
    assert!(shown.contains("merge_key:") && shown.contains("- port"), "{shown}");
}

/// Shows E9.
#[test]
fn what_cannot_be_merged_rightly_is_refused_by_name_before_anything_is_written() {
    if !can_play("what_cannot_be_merged_rightly_is_refused_by_name_before_anything_is_written") {
        return;
    }
    let merge = ["--mode", "merge"];
    let live = tomo();
    assert_refused(&live, &["--tables", "setings"], 2, "did you mean settings?");
    assert_refused(&live, &["--tables", "conf.settings"], 2, "conf has no SQLite database");
    assert_refused(&live, &["--only", "conf", "--tables", "settings"], 2, "has no SQLite database");
    assert_refused(&live, &["--tables", "settings", "--mode", "full"], 2, "--mode full cannot restore single tables");
    for (since, expected) in [
        ("ALTER TABLE settings ADD COLUMN more", "table settings cannot be merged: the live one is another"),
        ("DROP TABLE audit", "table audit cannot be merged: the live database does not have it"),
        ("CREATE VIRTUAL TABLE notes USING fts5(text)", "table notes cannot be merged: it is a virtual table"),
        (
            "CREATE UNIQUE INDEX one ON audit(what)",
            "table audit cannot be merged: the live one is another than the snapshot's: what is unique",
        ),
    ] {
        let live = tomo_with("", "", since);
        assert_refused(&live, &merge, 17, expected);
        // Other tables can be.
        live.restore(&["--mode", "merge", "--tables", "groups"]).ok();
    }
    let live = tomo();
    live.env.write(DB, "garbage that is no database at all");
    assert_refused(&live, &merge, 1, "there is no sound live database to merge into");
    let said = live.restore(&merge).code(1).stderr;
    assert!(said.contains("--mode overwrite"), "{said}");
    let live = tomo_with("", "    exclude_tables: [settings]\n", SINCE);
    assert_refused(
        &live,
        &["--tables", "settings"],
        17,
        "table settings cannot be merged: the backup left out its rows",
    );
    live.restore(&merge).ok();
    assert_eq!(sql(&live.env, DB, "SELECT * FROM settings"), "theme|light");
}

/// Shows E9.
#[test]
fn a_database_that_others_lock_is_named_and_one_that_is_missing_comes_whole() {
    const TEST: &str = "a_database_that_others_lock_is_named_and_one_that_is_missing_comes_whole";
    if !can_run(TEST, &["sqlite3", "python3"]) {
        return;
    }
    let live = tomo();
    let hold = "import os, sqlite3, sys, time\nc = sqlite3.connect(sys.argv[1], isolation_level=None)\nc.execute('BEGIN EXCLUSIVE')\n\
         open('ready', 'w').close()\ntime.sleep(600)";
    let holder = live.env.program("python3", ["-c", hold, live.env.path(DB).to_str().unwrap()]).start();
    while !live.env.path("ready").exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let said = live.restore(&["--mode", "merge"]).code(22).stderr;
    assert!(said.contains("is locked by python3 (pid "), "{said}");
    holder.signal(rustix::process::Signal::KILL);
    holder.wait().code(137);
    std::fs::remove_file(live.env.path(DB)).unwrap();
    assert_refused(&live, &["--mode", "merge", "--tables", "settings"], 2, "there is no live database");
    live.restore(&["--mode", "merge"]).ok();
    assert_eq!(servers(&live), "1|alpha|CANARY-1 2|beta|CANARY-2 3|gamma|CANARY-3");
}

/// The same in WAL mode with rows that are in a log only, as a crash leaves it, beside a file and another database.
fn crashed(env: &TestEnv) -> String {
    const WRITE: &str = "import os, sqlite3, sys\nc = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
         c.execute('PRAGMA journal_mode=wal')\nc.execute('PRAGMA wal_autocheckpoint=0')\n\
         c.execute(\"INSERT INTO settings VALUES ('log', 'only')\")\nos._exit(0)";
    env.run("python3", ["-c", WRITE, env.path(DB).to_str().unwrap()]).ok();
    std::fs::remove_file(env.path("live/app/conf/app.conf")).unwrap();
    let path = |path: &str| env.path(path).display().to_string();
    env.write("running", "");
    let running = path("running");
    let app = format!(
        "    services:\n      commands:\n        web: {{ stop: [rm, -f, {running}], start: [touch, {running}], status: [test, -e, {running}] }}\n    \
         health: [{{ command: [test, -e, {running}], timeout: 5s, every: 100ms }}]\n"
    );
    let files = format!("      conf: {{ files: {{ root: {} }} }}\n", path("live/app/conf"));
    configure(env, &files, &[("db", DB)], &app);
    String::from_utf8(env.read("lifeboat.yaml")).unwrap()
}

/// Shows E9.
#[test]
fn a_merge_that_is_not_healthy_goes_back_wholly_with_the_log_of_the_database() {
    const TEST: &str = "a_merge_that_is_not_healthy_goes_back_wholly_with_the_log_of_the_database";
    if !can_run(TEST, &["sqlite3", "python3"]) {
        return;
    }
    let live = tomo();
    let text = crashed(&live.env);
    live.env.write("lifeboat.yaml", text.replace("command: [test, -e,", "command: [test, -d,").replace("5s", "200ms"));
    let before = live.all();
    assert!(before.keys().any(|path| path.ends_with(b"tomo.db-wal")));
    let said = live.restore(&["--mode", "merge"]).code(20).stderr;
    assert!(said.contains("everything is as it was before"), "{said}");
    assert_same(&before, &live.all(), "rolled back");
    live.env.write("lifeboat.yaml", text);
    live.restore(&["--mode", "merge"]).ok();
    assert_eq!(sql(&live.env, DB, "SELECT key FROM settings; PRAGMA journal_mode"), "lang log theme wal");
    assert!(live.path("app/conf/app.conf").exists());
}

/// What is live: wholly as before, or with all that was missing.
fn state(env: &TestEnv) -> (bool, bool) {
    let copy = env.path("look");
    std::fs::remove_dir_all(&copy).unwrap_or(());
    env.run("cp", ["-a", env.path("live/app/data").to_str().unwrap(), copy.to_str().unwrap()]).ok();
    let found = env
        .run(
            "sqlite3",
            [
                copy.join("tomo.db").to_str().unwrap(),
                "SELECT count(*) FROM servers; SELECT value FROM settings WHERE key = 'log'; PRAGMA integrity_check",
            ],
        )
        .ok()
        .stdout;
    let rows = found.replace('\n', " ");
    assert!(["3 only ok ", "4 only ok "].contains(&rows.as_str()), "{rows}");
    (rows.starts_with('4'), Path::new(&env.path("live/app/conf/app.conf")).exists())
}

/// Shows E9.
#[test]
fn a_merge_that_is_killed_at_any_moment_is_wholly_done_or_not_at_all() {
    const TEST: &str = "a_merge_that_is_killed_at_any_moment_is_wholly_done_or_not_at_all";
    if !can_run(TEST, &["sqlite3", "python3", "strace"]) {
        return;
    }
    let live = tomo();
    let env = &live.env;
    crashed(env);
    env.run("cp", ["-a", "live", "pristine"]).ok();
    let reset = || {
        for gone in [env.path("live"), env.data_dir()] {
            std::fs::remove_dir_all(gone).unwrap_or(());
        }
        env.run("cp", ["-a", "pristine", "live"]).ok();
        env.write("running", "");
    };
    reset();
    let before: Tree = live.all();
    let arguments = ["restore", "app.tar.zst", "--force", "--mode", "merge"];
    traced(env, &[], &arguments).ok();
    let counted = calls(&trace(env));
    let names =
        ["renameat2", "rename", "fsync", "syncfs", "unlink", "unlinkat", "pwrite64", "write", "mkdirat", "wait4"];
    let points: Vec<(&str, usize)> = names
        .iter()
        .flat_map(|name| (1..=counted.get(*name).copied().unwrap_or(0)).map(move |time| (*name, time)))
        .collect();
    // What a killed rehearsal leaves goes with this.
    let temp = format!("TMPDIR={}", env.mkdir("temp").display());
    let (mut old, mut new) = (0, 0);
    for number in sweep_some("merge of a database, killed", points.len(), 25) {
        let (name, time) = points[number];
        reset();
        let (traces, kills) = (format!("trace={name}"), format!("inject={name}:signal=KILL:when={time}"));
        traced(env, &["-E", &temp, "-e", &traces, "-e", &kills], &arguments).exit_code();
        let what = format!("killed at {name} {time}");
        env.lifeboat(["recover"]).ok();
        assert!(env.path("running").exists(), "{what}");
        match state(env) {
            (true, true) => new += 1,
            (false, false) => {
                old += 1;
                assert_same(&before, &live.all(), &what);
            }
            mixed => panic!("{what}: {mixed:?}"),
        }
        env.lifeboat(["restore", "--discard"]).exit_code();
        assert_eq!((live.stages(), live.journals()), (Vec::new(), Vec::new()), "{what}");
        let left = env.names("live/app/data");
        assert!(!left.iter().any(|name| name.contains("lifeboat")), "{what}: {left:?}");
    }
    assert!(old > 0, "{old} old, {new} new");
}

/// Shows E9.
#[test]
fn a_merge_that_was_interrupted_is_finished_by_what_is_live_then() {
    const TEST: &str = "a_merge_that_was_interrupted_is_finished_by_what_is_live_then";
    if !can_run(TEST, &["sqlite3", "python3", "strace"]) {
        return;
    }
    let live = tomo();
    crashed(&live.env);
    let arguments = ["restore", "app.tar.zst", "--force", "--mode", "merge"];
    // Killed at the first rename of the swap: the merged copy is staged.
    let options = ["-e", "trace=renameat2", "-e", "inject=renameat2:signal=KILL:when=1"];
    traced(&live.env, &options, &arguments).code(137);
    live.env.lifeboat(["restore", "--resume"]).ok();
    assert_eq!(state(&live.env), (true, true));
}

/// Shows E9.
#[test]
fn tables_of_one_of_several_databases_are_meant_by_its_name() {
    if !can_play("tables_of_one_of_several_databases_are_meant_by_its_name") {
        return;
    }
    let env = TestEnv::new();
    for path in [DB, OTHER] {
        sql(&env, path, "CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)");
    }
    sql(&env, OTHER, "CREATE TABLE more(a)");
    configure(&env, "", &[("db", DB), ("other", OTHER)], "");
    env.lifeboat(["backup", "app", "-o", "app.tar.zst"]).ok();
    let live = Live { env };
    let reset = || [DB, OTHER].map(|path| sql(&live.env, path, "DELETE FROM t"));
    let rows = || [DB, OTHER].map(|path| sql(&live.env, path, "SELECT count(*) FROM t"));
    for (options, expected) in [
        (&["--tables", "db.t"][..], ["1", "0"]),
        (&["--tables", "other.t"], ["0", "1"]),
        (&["--tables", "t"], ["1", "1"]),
        (&["--only", "other", "--tables", "t"], ["0", "1"]),
        (&["--only", "other", "--mode", "merge"], ["0", "1"]),
    ] {
        reset();
        live.restore(options).ok();
        assert_eq!(rows(), expected, "{options:?}");
    }
    assert_refused(&live, &["--tables", "db.more"], 2, "no table is called db.more");
}
