//! SQLite databases that are restored in place: one thing with the logs beside
//! them, whatever is live and whatever goes wrong.

use std::path::Path;

use lifeboat_store::testing::can_run;

use super::Live;
use crate::env::{Run, TestEnv};
use crate::fidelity::{Tree, assert_same};

mod bare;
mod kept;
mod places;
mod strange;

/// The database that is a source of its own, and one that is found among the files.
pub(crate) const SOURCE: &str = "live/app/data/main.db";
pub(crate) const AMONG_FILES: &str = "live/app/notes.db";

/// Writes `rows` rows more; where `keeps_log`, goes as one does that is killed:
/// the log, with what is not in the database yet, stays beside it.
const WRITE: &str = "
import os, sqlite3, sys
path, mode, rows, keeps_log = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == 'log'
c = sqlite3.connect(path, isolation_level=None)
c.execute('PRAGMA journal_mode=' + mode)
c.execute('PRAGMA wal_autocheckpoint=0')
c.execute('CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v)')
c.execute('PRAGMA cache_size=1')
c.execute('BEGIN')
c.executemany('INSERT INTO t(v) VALUES (?)', [('x' * 300,) for _ in range(rows)])
if mode == 'wal': c.execute('COMMIT')
if keeps_log: os._exit(0)
if mode != 'wal': c.execute('COMMIT')
c.close()
";

/// How many rows SQLite finds, with all its logs beside it, looking at a copy.
const COUNT: &str = "
import os, shutil, sqlite3, sys, tempfile
with tempfile.TemporaryDirectory() as dir:
    for end in ('', '-wal', '-journal'):
        if os.path.exists(sys.argv[1] + end): shutil.copy(sys.argv[1] + end, dir + '/db' + end)
    c = sqlite3.connect(dir + '/db')
    assert c.execute('PRAGMA integrity_check').fetchall() == [('ok',)]
    print(c.execute('SELECT count(*) FROM t').fetchone()[0])
";

pub(crate) fn write(env: &TestEnv, path: &str, mode: &str, rows: usize, keeps_log: bool) {
    let log = if keeps_log { "log" } else { "closed" };
    env.run("python3", ["-c", WRITE, path, mode, &rows.to_string(), log]).ok();
}

pub(crate) fn rows(env: &TestEnv, path: impl AsRef<Path>) -> usize {
    let path = env.path(path);
    env.run("python3", ["-c", COUNT, path.to_str().unwrap()]).ok().stdout.trim().parse().unwrap()
}

/// `lifeboat.yaml` for `live/app` and the databases that are sources of their own, with `more` below the app.
pub(crate) fn configure(env: &TestEnv, files: &str, databases: &[(&str, &str)], more: &str) {
    let mut text = "apps:\n  app:\n    sources:\n".to_owned();
    text.push_str(files);
    for (name, path) in databases {
        text.push_str(&format!("      {name}: {{ sqlite: {{ path: {} }} }}\n", env.path(path).display()));
    }
    text.push_str(more);
    env.write("lifeboat.yaml", text);
    env.set_mode("lifeboat.yaml", 0o600);
}

pub(crate) fn files(env: &TestEnv, more: &str) -> String {
    format!("      files: {{ files: {{ root: {}{more} }} }}\n", env.path("live/app").display())
}

/// An application of files and two databases, each with 10 rows in the archive and 30 by now, 20 of these in a log.
pub(crate) fn application(mode: &str) -> Live {
    application_with(mode, "", &|| {})
}

/// The same with further `sources`, and what happens to them after the backup.
pub(crate) fn application_with(mode: &str, sources: &str, change: &dyn Fn()) -> Live {
    let env = TestEnv::new();
    env.write("live/app/conf/app.conf", "port = 80\n");
    env.mkdir("live/app/data");
    for path in [SOURCE, AMONG_FILES] {
        write(&env, path, mode, 10, false);
    }
    configure(&env, &(files(&env, "") + sources), &[("main", SOURCE)], "");
    env.run("touch", ["-d", "2021-02-03", "live/app/data", "live/app", "live/app/conf"]).ok();
    env.lifeboat(["backup", "app", "-o", "app.tar.zst"]).ok();
    change();
    for path in [SOURCE, AMONG_FILES] {
        write(&env, path, mode, 20, true);
    }
    env.write("live/app/conf/app.conf", "port = 81\n");
    env.run("touch", ["-d", "2022-02-03 04:05:06.7", "live/app/data", "live/app", "live/app/conf"]).ok();
    Live { env }
}

impl Live {
    /// The names that replaced databases got in `dir`.
    pub(crate) fn bad(&self, dir: &str) -> Vec<String> {
        self.env.names(dir).into_iter().filter(|name| name.contains(".bad-")).collect()
    }

    pub(crate) fn lifeboat(&self, args: &[&str]) -> Run {
        self.env.lifeboat(args)
    }

    /// Both databases hold what was backed up, with no log beside them.
    pub(crate) fn assert_restored(&self, what: &str) {
        for path in [SOURCE, AMONG_FILES] {
            for end in ["-wal", "-shm", "-journal"] {
                assert!(!self.env.path(format!("{path}{end}")).exists(), "{what}: {path}{end}");
            }
            assert_eq!(rows(&self.env, path), 10, "{what}: {path}");
        }
    }
}

/// Without what restores leave beside databases.
pub(crate) fn without_kept(mut tree: Tree) -> Tree {
    tree.retain(|path, _| {
        !path.windows(5).any(|part| part == b".bad-") && !path.windows(10).any(|part| part == b".lifeboat-")
    });
    tree
}

/// Shows P4.
#[test]
fn a_database_is_restored_with_its_logs_and_comes_back_with_them() {
    if !can_run("a_database_is_restored_with_its_logs_and_comes_back_with_them", &["python3", "strace"]) {
        return;
    }
    for mode in ["wal", "delete"] {
        for restore in ["overwrite", "full"] {
            let what = format!("{mode}, {restore}");
            let live = application(mode);
            let (before, app) = (live.all(), live.app());
            assert!(before.keys().any(|path| path.ends_with(b"-wal") || path.ends_with(b"-journal")), "{what}");
            live.assert_rolls_back(restore, 2);
            let said = live.restore(&["--mode", restore]).ok().stdout;
            live.assert_restored(&what);
            let bad = live.bad("live/app/data");
            let log = if mode == "wal" { "-wal" } else { "-journal" };
            assert!(bad.iter().any(|name| name.ends_with(log)), "{what}: {bad:?}");
            assert!(said.contains(&bad[0]), "{what}: {said}");
            // A transaction that was not committed is rolled back by its journal.
            let old = if mode == "wal" { 30 } else { 10 };
            assert_eq!(rows(&live.env, format!("live/app/data/{}", bad[0])), old, "{what}");
            assert_eq!(live.bad("live/app"), Vec::<String>::new(), "{what}");
            let restored = live.app();
            live.lifeboat(&["restore", "--undo", "--force"]).ok();
            assert_same(&app, &without_kept(live.app()), &format!("{what}: undone"));
            live.lifeboat(&["restore", "--undo", "--force"]).ok();
            assert_same(&without_kept(restored.clone()), &without_kept(live.app()), &format!("{what}: undone twice"));
            live.lifeboat(&["restore", "--undo", "--force"]).ok();
            assert_same(&app, &without_kept(live.app()), &format!("{what}: undone three times"));
            live.discard();
            assert_same(&app, &live.app(), &format!("{what}: discarded"));
        }
    }
}

/// Shows P4.
#[test]
fn a_database_whose_log_holds_more_is_not_the_same_as_in_the_snapshot() {
    if !can_run("a_database_whose_log_holds_more_is_not_the_same_as_in_the_snapshot", &["python3"]) {
        return;
    }
    let live = application("wal");
    live.restore(&["--mode", "full", "--keep-replaced", "0s"]).ok();
    let said = live.restore(&["--mode", "full"]).ok().stdout;
    assert!(said.starts_with("Nothing to restore"), "{said}");
    for path in [SOURCE, AMONG_FILES] {
        let before = live.env.read(path);
        write(&live.env, path, "wal", 5, true);
        assert_eq!(live.env.read(path), before, "the database itself did not change");
        assert_eq!(rows(&live.env, path), 15);
    }
    live.restore(&["--keep-replaced", "0s"]).ok();
    live.assert_restored("overwritten");
}

/// Shows P4.
#[test]
fn a_merge_adds_a_database_that_is_missing_and_touches_none_that_is_there() {
    if !can_run("a_merge_adds_a_database_that_is_missing_and_touches_none_that_is_there", &["python3"]) {
        return;
    }
    let live = application("wal");
    for gone in ["live/app/conf/app.conf", SOURCE] {
        std::fs::remove_file(live.env.path(gone)).unwrap();
    }
    let said = live.restore(&["--mode", "merge"]).ok().stderr;
    assert!(said.contains("1 existing entry differs") && said.contains("notes.db"), "{said}");
    assert_eq!(rows(&live.env, AMONG_FILES), 30, "it stays, with its log");
    assert_eq!(rows(&live.env, SOURCE), 10);
    assert!(!live.env.path(format!("{SOURCE}-wal")).exists(), "the log of another database is gone from beside it");
    assert!(live.bad("live/app/data").iter().any(|name| name.ends_with("-wal")));
}

/// Shows P4.
#[test]
fn one_database_is_restored_alone_and_the_files_alone() {
    if !can_run("one_database_is_restored_alone_and_the_files_alone", &["python3"]) {
        return;
    }
    let live = application("wal");
    live.restore(&["--only", "main", "--keep-replaced", "0s"]).ok();
    assert_eq!((rows(&live.env, SOURCE), rows(&live.env, AMONG_FILES)), (10, 30));
    let live = application("wal");
    let data = |live: &Live| live.app().into_iter().filter(|(path, _)| path.starts_with(b"data/")).collect::<Tree>();
    let before = data(&live);
    live.restore(&["--only", "files", "--mode", "full", "--keep-replaced", "0s"]).ok();
    assert_eq!((rows(&live.env, SOURCE), rows(&live.env, AMONG_FILES)), (30, 10));
    assert_same(&before, &data(&live), "the database of its own and its log stay");
    let live = application("wal");
    live.restore(&["--only", "main", "--only", "files/conf/*", "--mode", "full", "--keep-replaced", "0s"]).ok();
    assert_eq!((rows(&live.env, SOURCE), rows(&live.env, AMONG_FILES)), (10, 30));
}

/// A service that begins to write as soon as it is started, at the first start or at each, and that is healthy
/// when there is a file `healthy`. It was started once when there is a file `once`, and kills the restore when there is
/// a file `kill`.
fn service(live: &Live, writes_once: bool) {
    let env = &live.env;
    let running = env.path("running").display().to_string();
    let once =
        if writes_once { format!("[ -e once ] && touch {running} && exit 0\ntouch once\n") } else { String::new() };
    let start = env.write(
        "start",
        format!(
            "#!/bin/sh\ncd {}\n{once}for db in {} {}; do python3 -c \"$(cat {})\" $db wal 3 log; done\ntouch {}\n\
             if [ -e kill ]; then rm kill; kill -9 $PPID; fi\n",
            env.path("").display(),
            env.path(SOURCE).display(),
            env.path(AMONG_FILES).display(),
            env.write("write.py", WRITE).display(),
            running,
        ),
    );
    env.set_mode("start", 0o755);
    let start = start.display();
    let more = format!(
        "    services:\n      commands:\n        web: {{ stop: [rm, -f, {running}], start: [{start}], status: [test, -e, {running}] }}\n    \
         health: [{{ command: [test, -e, {}], timeout: 2s, every: 100ms }}]\n",
        env.path("healthy").display()
    );
    configure(env, &files(env, ""), &[("main", SOURCE)], &more);
    env.write("running", "");
}

/// Shows P4, P6.
#[test]
fn what_the_new_state_wrote_into_a_log_never_stays_beside_the_old_database() {
    const TEST: &str = "what_the_new_state_wrote_into_a_log_never_stays_beside_the_old_database";
    if !can_run(TEST, &["python3"]) {
        return;
    }
    for mode in ["overwrite", "full"] {
        for has_logs in [true, false] {
            let live = application("wal");
            service(&live, false);
            if !has_logs {
                for path in [SOURCE, AMONG_FILES] {
                    write(&live.env, path, "wal", 1, false);
                }
            }
            let before = live.app();
            assert_eq!(before.keys().any(|path| path.ends_with(b"-wal")), has_logs);
            // The old state is started too, and writes too: that it does on top of what was there.
            let old = if has_logs { 30 } else { 31 };
            live.restore(&["--mode", mode]).code(20);
            for path in [SOURCE, AMONG_FILES] {
                assert_eq!(rows(&live.env, path), old + 3, "{mode}, {has_logs}: {path}");
            }
            assert_eq!((live.stages(), live.bad("live/app/data")), (Vec::new(), Vec::new()));
            // With a start that does nothing the second time, nothing differs at all.
            let live = application("wal");
            service(&live, true);
            let before = live.all();
            live.restore(&["--mode", mode]).code(20);
            assert_same(&before, &live.all(), &format!("{mode}: as before"));
        }
    }
}
