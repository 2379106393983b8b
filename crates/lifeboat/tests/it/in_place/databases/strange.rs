//! What is live need not be what was backed up: garbage, nothing, something
//! else, logs of nobody, and what was left out.

use lifeboat_store::testing::can_run;

use super::{AMONG_FILES, SOURCE, application, configure, files, rows, write};
use crate::env::TestEnv;
use crate::fidelity::assert_same;
use crate::in_place::Live;

/// Shows P4.
#[test]
fn garbage_nothing_or_a_directory_in_the_place_of_a_database_gives_way() {
    if !can_run("garbage_nothing_or_a_directory_in_the_place_of_a_database_gives_way", &["python3", "strace"]) {
        return;
    }
    type Spoil = fn(&Live, &str);
    let spoils: [(&str, Spoil); 4] = [
        ("garbage", |live, path| drop(live.env.write(path, vec![7; 4096]))),
        ("empty", |live, path| drop(live.env.write(path, ""))),
        ("nothing", |live, path| std::fs::remove_file(live.env.path(path)).unwrap()),
        ("a directory", |live, path| {
            std::fs::remove_file(live.env.path(path)).unwrap();
            live.env.write(format!("{path}/in/it"), "x");
        }),
    ];
    for (what, spoil) in spoils {
        for mode in ["overwrite", "full"] {
            let what = format!("{what}, {mode}");
            let live = application("wal");
            for path in [SOURCE, AMONG_FILES] {
                spoil(&live, path);
            }
            live.env.run("touch", ["-d", "2022-02-03 04:05:06.7", "live/app/data", "live/app"]).ok();
            let before = live.app();
            live.assert_rolls_back(mode, 2);
            let said = live.restore(&["--mode", mode]).ok();
            assert!(!said.stdout.contains("appeared") && !said.stderr.contains("appeared"), "{what}: {}", said.stderr);
            live.assert_restored(&what);
            live.lifeboat(&["restore", "--undo", "--force"]).ok();
            assert_same(&before, &super::without_kept(live.app()), &what);
            live.discard();
            assert_same(&before, &live.app(), &format!("{what}: discarded"));
        }
    }
}

/// Shows P4.
#[test]
fn logs_share_the_fate_of_their_database_whatever_patterns_say() {
    if !can_run("logs_share_the_fate_of_their_database_whatever_patterns_say", &["python3", "strace"]) {
        return;
    }
    // Left out now: the logs of databases that come, and a database with its logs.
    let env = TestEnv::new();
    env.write("live/app/conf/app.conf", "port = 80\n");
    for path in ["live/app/data/a.db", "live/app/data/left.db", "live/app/b.db"] {
        write(&env, path_in(&env, path), "wal", 10, false);
    }
    configure(&env, &files(&env, ", exclude: [left.db]"), &[], "");
    env.lifeboat(["backup", "app", "-o", "app.tar.zst"]).ok();
    for path in ["live/app/data/a.db", "live/app/data/left.db", "live/app/b.db", "live/app/data/since.db"] {
        write(&env, path, "wal", 20, true);
    }
    configure(&env, &files(&env, ", exclude: [left.db, \"*-wal\", b.db]"), &[], "");
    let live = Live { env };
    let before = live.app();
    live.assert_rolls_back("full", 1);
    live.restore(&["--mode", "full"]).ok();
    let names = |dir: &str| live.env.names(dir);
    assert_eq!(names("live/app"), ["b.db", "conf", "data"]);
    assert_eq!(names("live/app/data"), ["a.db", "left.db", "left.db-shm", "left.db-wal"]);
    let count = |path: &str| rows(&live.env, path);
    assert_eq!([count("live/app/b.db"), count("live/app/data/a.db"), count("live/app/data/left.db")], [10, 10, 30]);
    live.lifeboat(&["restore", "--undo", "--force"]).ok();
    live.discard();
    assert_same(&before, &live.app(), "undone");
}

fn path_in<'p>(env: &TestEnv, path: &'p str) -> &'p str {
    env.mkdir(std::path::Path::new(path).parent().unwrap());
    path
}

/// What was left out belongs to the old state and to the new one: what the new one did with it stays.
///
/// Shows P4, R3, R8.
#[test]
fn what_is_carried_over_stays_what_it_has_become() {
    const TEST: &str = "what_is_carried_over_stays_what_it_has_become";
    if !can_run(TEST, &["python3", "strace"]) {
        return;
    }
    let make = || {
        let env = TestEnv::new();
        env.write("live/app/data/file", "old");
        configure(&env, &files(&env, ", exclude: [\"*.log\", left.db]"), &[], "");
        env.lifeboat(["backup", "app", "-o", "app.tar.zst"]).ok();
        env.write("live/app/data/file", "changed");
        env.write("live/app/data/gone.log", "left out");
        env.write("live/app/data/saved.log", "left out");
        write(&env, "live/app/data/left.db", "wal", 10, false);
        let start = env.write(
            "start",
            format!(
                "#!/bin/sh\ncd {}\n[ -e once ] && exit 0\ntouch once\nrm live/app/data/gone.log\n\
                 echo new > live/app/data/new && mv live/app/data/new live/app/data/saved.log\n\
                 python3 -c \"$(cat {})\" live/app/data/left.db wal 5 log\n",
                env.path("").display(),
                env.write("write.py", super::WRITE).display()
            ),
        );
        env.set_mode("start", 0o755);
        let more = format!(
            "    services:\n      commands:\n        web: {{ stop: [\"true\"], start: [{}] }}\n    health: \
             [{{ command: [test, -e, {}], timeout: 2s, every: 100ms }}]\n",
            start.display(),
            env.path("healthy").display()
        );
        configure(&env, &files(&env, ", exclude: [\"*.log\", left.db]"), &[], &more);
        Live { env }
    };
    let live = make();
    live.restore(&["--mode", "full"]).code(20);
    assert_eq!(live.env.read("live/app/data/file"), b"changed");
    assert_eq!(live.env.names("live/app/data"), ["file", "left.db", "left.db-shm", "left.db-wal", "saved.log"]);
    assert_eq!(live.env.read("live/app/data/saved.log"), b"new\n");
    assert_eq!(rows(&live.env, "live/app/data/left.db"), 15);
    // Interrupted when all has its place, it is finished, and what is carried over is carried over once.
    let live = make();
    live.env.write("once", "");
    live.env.write("healthy", "");
    let kill = ["-e", "trace=syncfs", "-e", "inject=syncfs:signal=KILL:when=2"];
    live.traced(&kill, &["--mode", "full"]).code(137);
    live.lifeboat(&["restore", "--resume"]).ok();
    assert_eq!(live.env.names("live/app/data"), ["file", "gone.log", "left.db", "saved.log"]);
    assert_eq!(live.env.read("live/app/data/file"), b"old");
}

/// Shows P4.
#[test]
fn a_log_that_the_snapshot_holds_as_a_file_stands_beside_no_other_database() {
    const TEST: &str = "a_log_that_the_snapshot_holds_as_a_file_stands_beside_no_other_database";
    if !can_run(TEST, &["python3", "strace"]) {
        return;
    }
    // What is no database when it is backed up is a file, and so is what would be its log.
    let env = TestEnv::new();
    env.write("live/app/one.db", vec![7; 4096]);
    env.write("live/app/one.db-wal", "one");
    env.write("live/app/two.db-wal", "two");
    env.write("live/app/file", "");
    configure(&env, &files(&env, ""), &[], "");
    env.lifeboat(["backup", "app", "-o", "app.tar.zst"]).ok();
    let live = Live { env };
    let backed_up = live.app();
    let change = || {
        for path in ["live/app/one.db", "live/app/two.db"] {
            for end in ["", "-wal", "-shm"] {
                std::fs::remove_file(live.env.path(format!("{path}{end}"))).unwrap_or(());
            }
            write(&live.env, path, "wal", 10, true);
        }
    };
    change();
    let before = live.app();
    live.assert_rolls_back("overwrite", 1);
    live.restore(&[]).ok();
    assert_eq!(live.env.read("live/app/one.db-wal"), b"one");
    assert!(!live.env.path("live/app/one.db-shm").exists());
    assert_eq!(rows(&live.env, "live/app/two.db"), 10, "it stays, with its own log");
    live.lifeboat(&["restore", "--undo", "--force"]).ok();
    live.discard();
    assert_same(&before, &live.app(), "undone");
    live.restore(&["--mode", "merge"]).ok();
    assert_same(&before, &live.app(), "merged");
    live.assert_rolls_back("full", 1);
    live.restore(&["--mode", "full"]).ok();
    live.lifeboat(&["restore", "--undo", "--force"]).ok();
    live.discard();
    assert_same(&before, &live.app(), "undone");
    for name in ["two.db", "two.db-shm"] {
        std::fs::remove_file(live.path("app").join(name)).unwrap();
    }
    live.restore(&["--mode", "full"]).ok();
    assert_eq!(live.app().keys().collect::<Vec<_>>(), backed_up.keys().collect::<Vec<_>>());
    assert_eq!(live.env.read("live/app/two.db-wal"), b"two");
}

/// Shows P4, R6.
#[test]
fn who_uses_only_a_log_is_named_and_nothing_is_touched() {
    if !can_run("who_uses_only_a_log_is_named_and_nothing_is_touched", &["python3"]) {
        return;
    }
    for (path, end) in [(SOURCE, "-wal"), (SOURCE, "-shm"), (AMONG_FILES, "-wal")] {
        for is_gone in [false, true] {
            let live = application("wal");
            if is_gone {
                std::fs::remove_file(live.env.path(path)).unwrap();
            }
            let program = "import sys, time\nf = open(sys.argv[1], 'r+b')\nopen('ready', 'w')\ntime.sleep(600)";
            let holder = live.env.program("python3", ["-c", program, &format!("{path}{end}")]).start();
            for _ in 0..1000 {
                if live.env.path("ready").exists() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            let before = live.all();
            let said = live.restore(&[]).code(22).stderr;
            assert!(said.contains("python3") && said.contains(&format!("{path}{end}")), "{said}");
            assert_same(&before, &live.all(), "nothing was touched");
            holder.signal(rustix::process::Signal::KILL);
            holder.wait().code(137);
        }
    }
}
