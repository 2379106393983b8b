//! SQLite databases among files: captured as the state at one moment, while
//! Python's sqlite3 writes into them.
#![expect(clippy::unwrap_used, reason = "these are the helpers of tests")]

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::Duration;

use lifeboat_store::testing::{can_run, is_root};
use rustix::process::Signal;

use crate::env::{Running, Said, TestEnv};

/// Starts a Python program in `source`, and waits until it has made the file `ready`.
fn python(env: &TestEnv, program: &str) -> Running {
    let program = format!("import sqlite3, os, sys, time\nos.chdir('source')\n{program}");
    let running = env.program("python3", ["-c", &program]).start();
    for _ in 0..3000 {
        if env.path("ready").exists() {
            std::fs::remove_file(env.path("ready")).unwrap();
            return running;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    running.signal(Signal::KILL);
    panic!("the program never got ready: {}", running.wait().code(137).stderr);
}

fn run_python(env: &TestEnv, program: &str) -> String {
    let program = format!("import sqlite3, os, sys\nos.chdir('source')\n{program}");
    env.run("python3", ["-c", &program]).ok().stdout
}

fn kill(running: Running) {
    running.signal(Signal::KILL);
    running.wait().code(137);
}

/// Backs up `source` into `a.tar.zst`, which must verify, and restores it below `new`.
fn round_trip(env: &TestEnv) -> Said {
    for old in ["a.tar.zst", "new"] {
        let old = env.path(old);
        if old.exists() {
            if old.is_dir() { std::fs::remove_dir_all(old).unwrap() } else { std::fs::remove_file(old).unwrap() }
        }
    }
    let said = env.lifeboat(["backup", "source", "--output", "a.tar.zst", "--json"]).ok();
    env.lifeboat(["restore", "a.tar.zst", "--to", "new"]).ok();
    said
}

fn summary(said: &Said) -> serde_json::Value {
    said.json_lines().into_iter().find(|line| line["message_type"] == "summary").unwrap()
}

/// What a query of a restored database finds, asked by another SQLite than ours.
fn ask(env: &TestEnv, name: &str, query: &str) -> String {
    let program = "import sqlite3, sys\n\
        rows = sqlite3.connect('file:' + sys.argv[1] + '?immutable=1', uri=True).execute(sys.argv[2])\n\
        print(';'.join('|'.join(str(value) for value in row) for row in rows))";
    let path = env.path("new/files/source").join(name);
    env.run("python3", ["-c", program, path.to_str().unwrap(), query]).ok().stdout.trim().to_owned()
}

const WRITER: &str = "
c = sqlite3.connect('app.db', timeout=60, isolation_level=None)
c.execute('PRAGMA journal_mode=MODE')
c.execute('PRAGMA synchronous=OFF')
c.execute('CREATE TABLE IF NOT EXISTS a(id INTEGER PRIMARY KEY, v INT, pad)')
c.execute('CREATE TABLE IF NOT EXISTS b(id INTEGER PRIMARY KEY, v INT, pad)')
c.execute('BEGIN')
for i in range(300):
    for t in 'ab': c.execute('INSERT OR IGNORE INTO %s VALUES (?, 1000, zeroblob(3000))' % t, (i,))
c.execute('COMMIT')
open('../ready', 'w').close()
n = 0
while True:
    n += 1
    c.execute('BEGIN IMMEDIATE')
    c.execute('UPDATE a SET v = v - ? WHERE id = ?', (n % 7, n % 300))
    c.execute('UPDATE b SET v = v + ? WHERE id = ?', (n % 7, n % 300))
    c.execute('COMMIT')
";

/// Shows P3, A5.
#[test]
fn a_database_among_files_is_whole_while_a_writer_never_stops() {
    if !can_run("a_database_among_files_is_whole_while_a_writer_never_stops", &["python3", "sqlite3"]) {
        return;
    }
    for mode in ["wal", "delete", "truncate", "persist"] {
        let env = TestEnv::new();
        env.write("source/app.txt", "beside it");
        let writer = python(&env, &WRITER.replace("MODE", mode));
        for _ in 0..5 {
            let said = summary(&round_trip(&env));
            assert_eq!(said["problems"]["counts"].as_object().map_or(0, serde_json::Map::len), 0, "{said}");
            assert_eq!(env.names("new/files/source"), ["app.db", "app.txt"], "no log is in it");
            if mode == "wal" {
                assert_eq!(said["database_logs"], 2);
            }
            let restored = env.path("new/files/source/app.db");
            assert_eq!(
                ask(&env, "app.db", "SELECT (SELECT sum(v) FROM a) + (SELECT sum(v) FROM b)"),
                "600000",
                "{mode}"
            );
            let checked =
                env.run("sqlite3", [restored.to_str().unwrap(), "PRAGMA integrity_check; PRAGMA journal_mode"]);
            let expected = if mode == "wal" { "ok\nwal\n" } else { "ok\ndelete\n" };
            assert_eq!(checked.ok().stdout, expected);
        }
        let beside = env.names(".");
        assert_eq!(beside, ["a.tar.zst", "new", "source"], "nothing is left where the copies were made");
        kill(writer);
    }
}

/// Shows P3.
#[test]
fn a_database_keeps_its_owner_mode_times_and_what_is_in_its_log() {
    if !can_run("a_database_keeps_its_owner_mode_times_and_what_is_in_its_log", &["python3"]) {
        return;
    }
    let env = TestEnv::new();
    env.mkdir("source");
    run_python(
        &env,
        "c = sqlite3.connect('idle.db')\nc.execute('CREATE TABLE t(x)')\nc.execute('INSERT INTO t VALUES (1)')\nc.commit()",
    );
    let holder = python(
        &env,
        "c = sqlite3.connect('live.db')\nc.execute('PRAGMA journal_mode=wal')\nc.execute('CREATE TABLE t(x)')\n\
         c.executemany('INSERT INTO t VALUES (?)', [(i,) for i in range(1000)])\nc.commit()\n\
         os.chmod('live.db', 0o640)\nopen('../ready', 'w').close()\ntime.sleep(600)",
    );
    let live = env.path("source/live.db");
    if is_root() {
        std::os::unix::fs::chown(&live, Some(1234), Some(2345)).unwrap();
    }
    let idle = env.read("source/idle.db");
    let before = live.metadata().unwrap();
    round_trip(&env);
    let after = env.path("new/files/source/live.db").metadata().unwrap();
    let of =
        |meta: &std::fs::Metadata| (meta.permissions().mode(), meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec());
    assert_eq!(of(&after), of(&before));
    assert!(after.len() > before.len(), "what was in the log is in the database");
    assert_eq!(ask(&env, "live.db", "SELECT count(*), sum(x) FROM t"), "1000|499500");
    assert_eq!(env.read("new/files/source/idle.db"), idle, "one that nobody uses is taken byte by byte");
    assert_eq!(
        env.names("source"),
        ["idle.db", "live.db", "live.db-shm", "live.db-wal"],
        "and nothing is left beside it"
    );
    let planned = env.lifeboat(["backup", "source", "--dry-run", "--json"]).ok();
    assert!(planned.json_lines().iter().any(|line| line["database_logs"] == 2), "{}", planned.stdout);

    // Named one by one, as a shell does for `live.db*`.
    let all = ["live.db", "live.db-shm", "live.db-wal"].map(|name| format!("source/{name}"));
    let args = ["backup", "--output", "b.tar.zst"].into_iter().map(str::to_owned).chain(all);
    env.lifeboat(args).ok();
    env.lifeboat(["restore", "b.tar.zst", "--to", "named"]).ok();
    assert_eq!(env.names("named/files"), ["live.db"]);
    kill(holder);
}

/// Shows P3.
#[test]
fn a_locked_database_among_files_is_unreadable_and_names_who_holds_it() {
    if !can_run("a_locked_database_among_files_is_unreadable_and_names_who_holds_it", &["python3"]) {
        return;
    }
    let env = TestEnv::new();
    env.write("source/file", "what else there is");
    let holder = python(
        &env,
        "c = sqlite3.connect('app.db', isolation_level=None)\nc.execute('CREATE TABLE t(x)')\nc.execute('BEGIN EXCLUSIVE')\n\
         open('../ready', 'w').close()\ntime.sleep(600)",
    );
    let said = env.lifeboat(["backup", "source", "--output", "a.tar.zst", "--json"]).code(3);
    let listed = &summary(&said)["problems"]["listed"][0];
    assert_eq!((&listed["class"], &listed["object"]), (&"unreadable".into(), &"files/source/app.db".into()));
    let message = listed["message"].as_str().unwrap();
    assert!(message.contains("is locked by python3 (pid "), "{message}");
    env.lifeboat(["restore", "a.tar.zst", "--to", "new"]).ok();
    assert_eq!(env.names("new/files/source"), ["file"]);
    kill(holder);
}

/// Shows P3.
#[test]
fn what_a_kill_leaves_of_a_copy_is_no_part_of_a_backup_and_goes_with_the_next() {
    if !can_run("what_a_kill_leaves_of_a_copy_is_no_part_of_a_backup_and_goes_with_the_next", &["python3", "strace"]) {
        return;
    }
    let env = TestEnv::new();
    env.mkdir("source");
    let holder = python(
        &env,
        "c = sqlite3.connect('app.db')\nc.execute('PRAGMA journal_mode=wal')\nc.execute('CREATE TABLE t(x)')\n\
         c.execute('INSERT INTO t VALUES (zeroblob(3000000))')\nc.commit()\nopen('../ready', 'w').close()\ntime.sleep(600)",
    );
    // The archive goes into the source itself, so that what is left stands in the way of the next.
    let killed = ["--inject=pwrite64:signal=KILL:when=200", "-f", "-o", "trace", env!("CARGO_BIN_EXE_lifeboat")];
    env.run("strace", killed.into_iter().chain(["backup", "source", "--output", "source/a.tar.zst"])).code(137);
    let left: Vec<String> = env.names("source").into_iter().filter(|name| name.starts_with(".lifeboat-")).collect();
    assert_eq!(left.len(), 1, "the kill left a copy behind: {left:?}");
    env.lifeboat(["backup", "source", "--output", "source/a.tar.zst"]).ok();
    let listed = env.lifeboat(["backup", "list", "source/a.tar.zst"]).ok().stdout;
    assert!(listed.contains("app.db") && !listed.contains(".lifeboat-") && !listed.contains("copy.db"), "{listed}");
    assert_eq!(env.names("source"), ["a.tar.zst", "app.db", "app.db-shm", "app.db-wal"]);
    kill(holder);
}

#[test]
fn a_database_that_is_damaged_is_copied_as_it_is_and_named() {
    if !can_run("a_database_that_is_damaged_is_copied_as_it_is_and_named", &["python3"]) {
        return;
    }
    let env = TestEnv::new();
    env.mkdir("source");
    let holder = python(
        &env,
        "c = sqlite3.connect('app.db')\nc.execute('CREATE TABLE t(x)')\nc.execute('INSERT INTO t VALUES (zeroblob(100000))')\n\
         c.execute('CREATE TABLE u(x)')\nc.commit()\nc.close()\nf = open('app.db', 'r+b')\nf.seek(4096)\nf.write(b'garbage' * 100)\n\
         f.close()\nc = sqlite3.connect('app.db')\nc.execute('PRAGMA journal_mode=wal')\nc.execute('INSERT INTO u VALUES (1)')\n\
         c.commit()\nopen('../ready', 'w').close()\ntime.sleep(600)",
    );
    let said = summary(&round_trip(&env));
    let listed = &said["problems"]["listed"][0];
    assert_eq!(listed["class"], "live-database", "{said}");
    assert!(listed["message"].as_str().unwrap().contains("damaged"), "{said}");
    assert_eq!(ask(&env, "app.db", "SELECT x FROM u"), "1", "what is sound in it is there");
    kill(holder);
}

/// Shows P3.
#[test]
fn a_database_that_is_listed_twice_keeps_its_locks_while_it_is_read() {
    if !can_run("a_database_that_is_listed_twice_keeps_its_locks_while_it_is_read", &["python3", "sqlite3"]) {
        return;
    }
    // Two workers read the same file: what one closes must not cost the other its locks.
    let env = TestEnv::new();
    env.mkdir("source");
    let writer = python(&env, &WRITER.replace("MODE", "delete"));
    std::fs::hard_link(env.path("source/app.db"), env.path("source/other.db")).unwrap();
    for round in 0..5 {
        let archive = format!("{round}.tar.zst");
        let args = ["backup", "source", "source/app.db", "source/app.db", "--output", &archive, "--threads", "4"];
        env.lifeboat(args).ok();
        let to = format!("new-{round}");
        env.lifeboat(["restore", &archive, "--to", &to]).ok();
        for name in ["source/app.db", "source/other.db", "app.db", "app.db-2"] {
            let path = env.path(&to).join("files").join(name);
            let query = "SELECT (SELECT sum(v) FROM a) + (SELECT sum(v) FROM b); PRAGMA integrity_check";
            assert_eq!(env.run("sqlite3", [path.to_str().unwrap(), query]).ok().stdout, "600000\nok\n", "{name}");
        }
    }
    kill(writer);
}

/// Shows P3, A7.
#[test]
fn an_ordinary_user_backs_up_databases_that_only_others_may_write() {
    if !can_run("an_ordinary_user_backs_up_databases_that_only_others_may_write", &["python3"]) || !is_root() {
        return;
    }
    let env = TestEnv::new();
    env.mkdir("source");
    env.mkdir("out");
    env.set_mode("out", 0o777);
    for (name, mode) in [("idle-wal.db", "wal"), ("idle.db", "delete")] {
        run_python(
            &env,
            &format!(
                "c = sqlite3.connect('{name}')\nc.execute('PRAGMA journal_mode={mode}')\nc.execute('CREATE TABLE t(x)')\n\
                 c.execute('INSERT INTO t VALUES (1)')\nc.commit()\nc.close()"
            ),
        );
    }
    let holder = python(
        &env,
        "c = sqlite3.connect('live.db')\nc.execute('PRAGMA journal_mode=wal')\nc.execute('CREATE TABLE t(x)')\n\
         c.execute('INSERT INTO t VALUES (1)')\nc.commit()\nopen('../ready', 'w').close()\ntime.sleep(600)",
    );
    let said = env.command_as_nobody(["backup", "source", "--output", "out/a.tar.zst", "--json"]).run().ok();
    let listed = summary(&said)["problems"]["listed"].clone();
    let told: Vec<&str> =
        listed.as_array().unwrap().iter().map(|problem| problem["object"].as_str().unwrap()).collect();
    // To pin it takes files beside it, which nobody may not make.
    assert_eq!(told, ["files/source/idle-wal.db"], "{listed}");
    assert_eq!(listed[0]["class"], "live-database");
    env.lifeboat(["restore", "out/a.tar.zst", "--to", "new"]).ok();
    for name in ["idle-wal.db", "idle.db", "live.db"] {
        assert_eq!(ask(&env, name, "SELECT x FROM t"), "1", "{name}");
    }
    kill(holder);
}
