//! Sources that do not hold still, cannot be read, or are not there.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "these are the helpers of tests")]

use std::fs::File;
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::time::Duration;

use lifeboat_store::testing::{Random, can_run, is_root, skip};
use rustix::fs::inotify;

use crate::env::{Cmd, Run, Said, TestEnv};
use crate::fidelity::{Maker, NOBODY, Node, snapshot};

mod chosen;

/// Backs up `source` to `a.tar.zst` while `act` is called shortly after each time
/// that `victim` is opened; `when` its reads are held up meanwhile (as `strace` counts).
fn backup_while(env: &TestEnv, victim: &Path, when: &str, mut act: impl FnMut(usize)) -> Run {
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&watch, victim, inotify::WatchFlags::OPEN).unwrap();
    let hold = format!("inject=read,pread64,readv,preadv,copy_file_range:delay_enter=800000:when={when}");
    let strace = [
        "-f",
        "-o",
        "trace",
        "-P",
        victim.to_str().unwrap(),
        "-e",
        "trace=read,pread64,readv,preadv,copy_file_range",
        "-e",
        &hold,
    ];
    let command =
        [env!("CARGO_BIN_EXE_lifeboat"), "backup", "source", "--output", "a.tar.zst", "--threads=1", "--json"];
    let mut opened = 0;
    let run = during(env.program("strace", strace.iter().chain(&command)), || {
        if is_opened(&watch) {
            opened += 1;
            // Until its size was looked at; the reads are held up for longer.
            std::thread::sleep(Duration::from_millis(250));
            act(opened);
            // What `act` opened itself.
            is_opened(&watch);
        }
        std::thread::sleep(Duration::from_millis(5));
    });
    assert!(opened > 0, "{} was never opened", victim.display());
    run
}

/// Calls `step` again and again while `command` runs.
fn during(command: Cmd, mut step: impl FnMut()) -> Run {
    std::thread::scope(|scope| {
        let run = scope.spawn(|| command.run());
        while !run.is_finished() {
            step();
        }
        run.join().unwrap()
    })
}

fn is_opened(watch: &impl std::os::fd::AsFd) -> bool {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(watch, &mut buffer);
    let mut opened = false;
    while reader.next().is_ok() {
        opened = true;
    }
    opened
}

/// The problems that a run told, each as `class object`.
fn problems(said: &Said) -> Vec<String> {
    let lines = said.json_lines();
    let summary = lines.iter().find(|line| line["message_type"] == "summary").expect("a summary");
    let listed = summary["problems"]["listed"].as_array().unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    listed.iter().map(|problem| format!("{} {}", text(&problem["class"]), text(&problem["object"]))).collect()
}

/// What became of the file `name` in the archive: its content there, or `None`.
fn archived(env: &TestEnv, name: &str) -> Option<Vec<u8>> {
    env.lifeboat(["backup", "verify", "a.tar.zst"]).ok();
    env.lifeboat(["restore", "a.tar.zst", "--to", "new", "--overwrite"]).ok();
    let path = env.path("new/files/source").join(name);
    path.symlink_metadata().is_ok().then(|| std::fs::read(path).unwrap())
}

fn outcome(said: &Said) -> String {
    said.json_lines().iter().find_map(|line| line["outcome"].as_str().map(str::to_owned)).expect("an outcome")
}

fn can_watch(test: &str) -> bool {
    can_run(test, &["strace"])
}

/// A source with a small and a large victim between two files that hold still.
fn source(env: &TestEnv) -> Random {
    let mut random = Random::new(5);
    env.write("source/a", "before");
    env.write("source/small", random.bytes(100_000));
    env.write("source/large", random.bytes(9 << 20));
    env.write("source/z", "after");
    random
}

fn rewrite(path: &Path, with: &[u8]) {
    File::options().write(true).open(path).unwrap().write_all_at(with, 0).unwrap();
}

/// Shows A5.
#[test]
fn a_small_file_that_changes_each_time_it_is_read_is_a_problem() {
    if !can_watch("a_small_file_that_changes_each_time_it_is_read_is_a_problem") {
        return;
    }
    let env = TestEnv::new();
    let mut random = source(&env);
    let victim = env.path("source/small");
    let mut last = Vec::new();
    let run = backup_while(&env, &victim, "1+", |_| {
        last = random.bytes(100_000);
        rewrite(&victim, &last);
    });
    let said = run.code(3);
    assert_eq!(problems(&said), ["changed files/source/small"]);
    assert_eq!(outcome(&said), "good", "a file that only changed leaves the snapshot good");
    assert_eq!(archived(&env, "small"), Some(last));
    assert_eq!(archived(&env, "z"), Some(b"after".to_vec()));
}

/// Shows A5.
#[test]
fn a_small_file_that_changes_once_is_read_again_and_no_problem() {
    if !can_watch("a_small_file_that_changes_once_is_read_again_and_no_problem") {
        return;
    }
    let env = TestEnv::new();
    let mut random = source(&env);
    let victim = env.path("source/small");
    let after = random.bytes(70_000);
    let said = backup_while(&env, &victim, "1+", |opened| {
        if opened == 1 {
            std::fs::write(&victim, &after).unwrap();
        }
    })
    .ok();
    assert!(problems(&said).is_empty(), "{:?}", problems(&said));
    assert_eq!(archived(&env, "small"), Some(after));
}

/// Shows A5.
#[test]
fn a_file_that_shrinks_while_it_is_read_is_stored_as_long_as_it_was_and_a_problem() {
    if !can_watch("a_file_that_shrinks_while_it_is_read_is_stored_as_long_as_it_was_and_a_problem") {
        return;
    }
    for (name, when, lens) in [("small", "1+", [60_000, 30_000]), ("large", "2+", [(5 << 20) + 1, 0])] {
        let env = TestEnv::new();
        source(&env);
        let victim = env.path(format!("source/{name}"));
        let content = std::fs::read(&victim).unwrap();
        let run = backup_while(&env, &victim, when, |opened| {
            File::options().write(true).open(&victim).unwrap().set_len(lens[opened - 1]).unwrap();
        });
        assert_eq!(problems(&run.code(3)), [format!("changed files/source/{name}")]);
        let stored = archived(&env, name).unwrap();
        let left = std::fs::read(&victim).unwrap().len();
        assert!(stored.len() == left && stored == content[..left], "{name}: {} of {left} bytes", stored.len());
        assert_eq!(archived(&env, "z"), Some(b"after".to_vec()), "what follows it is whole");
    }
}

/// Shows A5.
#[test]
fn a_log_that_only_grows_is_stored_up_to_its_size_at_opening_and_a_note() {
    if !can_watch("a_log_that_only_grows_is_stored_up_to_its_size_at_opening_and_a_note") {
        return;
    }
    for (name, when) in [("small", "1+"), ("large", "2+")] {
        let env = TestEnv::new();
        source(&env);
        let victim = env.path(format!("source/{name}"));
        let content = std::fs::read(&victim).unwrap();
        let said = backup_while(&env, &victim, when, |_| {
            File::options().append(true).open(&victim).unwrap().write_all(b"one more line\n").unwrap();
        })
        .ok();
        assert_eq!(problems(&said), [format!("grew files/source/{name}")]);
        let stored = archived(&env, name).unwrap();
        assert!(stored.starts_with(&content) && stored.len() <= content.len() + 14, "{name}: {}", stored.len());
    }
}

/// Shows A5.
#[test]
fn a_large_file_that_changes_while_it_is_read_is_a_problem() {
    if !can_watch("a_large_file_that_changes_while_it_is_read_is_a_problem") {
        return;
    }
    let env = TestEnv::new();
    source(&env);
    let victim = env.path("source/large");
    let run = backup_while(&env, &victim, "2+", |_| rewrite(&victim, b"another beginning"));
    assert_eq!(problems(&run.code(3)), ["changed files/source/large"]);
    assert_eq!(archived(&env, "large").unwrap().len(), 9 << 20);
}

/// What takes the place of files that were listed and are opened only later.
fn replace(env: &TestEnv, victims: &[&str], with: impl Fn(&Path)) -> Said {
    env.write("outside/secret", "must not be followed");
    let first = env.write("source/a", "opened first");
    victims.iter().for_each(|victim| drop(env.write(format!("source/{victim}"), format!("the old {victim}"))));
    env.write("source/z", "after");
    let paths: Vec<_> = victims.iter().map(|victim| env.path(format!("source/{victim}"))).collect();
    backup_while(env, &first, "1+", |_| paths.iter().for_each(|path| with(path))).ok()
}

/// Shows A5.
#[test]
fn a_file_that_vanishes_before_it_is_opened_is_a_note() {
    if !can_watch("a_file_that_vanishes_before_it_is_opened_is_a_note") {
        return;
    }
    let env = TestEnv::new();
    let said = replace(&env, &["m", "n/o"], |path| std::fs::remove_file(path).unwrap());
    assert_eq!(problems(&said), ["vanished files/source/m", "vanished files/source/n/o"]);
    assert_eq!(outcome(&said), "good");
    assert_eq!(archived(&env, "m"), None);
    assert_eq!(archived(&env, "z"), Some(b"after".to_vec()));
}

/// Shows A5.
#[test]
fn what_takes_the_place_of_a_listed_file_is_never_followed_and_never_waited_for() {
    const TEST: &str = "what_takes_the_place_of_a_listed_file_is_never_followed_and_never_waited_for";
    if !can_run(TEST, &["strace", "mkfifo"]) {
        return;
    }
    let env = TestEnv::new();
    let said = replace(&env, &["link", "pipe", "dir"], |path| {
        std::fs::remove_file(path).unwrap();
        match path.file_name().unwrap().to_str().unwrap() {
            "link" => symlink(env.path("outside/secret"), path).unwrap(),
            "pipe" => drop(env.run("mkfifo", [path]).ok()),
            _ => std::fs::create_dir(path).unwrap(),
        }
    });
    let mut told = problems(&said);
    told.sort();
    assert_eq!(told, ["vanished files/source/dir", "vanished files/source/link", "vanished files/source/pipe"]);
    for name in ["link", "pipe", "dir"] {
        assert_eq!(archived(&env, name), None);
    }

    // The same with a directory above it.
    let env = TestEnv::new();
    let said = replace(&env, &["d/secret"], |path| {
        std::fs::rename(path.parent().unwrap(), env.path("aside")).unwrap();
        symlink(env.path("outside"), path.parent().unwrap()).unwrap();
    });
    assert_eq!(problems(&said), ["vanished files/source/d/secret"]);
    assert_eq!(archived(&env, "d/secret"), None);
}

/// Shows A5.
#[test]
fn what_cannot_be_read_is_named_and_the_rest_is_backed_up() {
    const TEST: &str = "what_cannot_be_read_is_named_and_the_rest_is_backed_up";
    if !is_root() {
        return skip(TEST, "needs root, to act as another user");
    }
    let env = TestEnv::new();
    env.write("source/closed-dir/inside", "x");
    env.write("source/closed-file", "x");
    env.write("source/list-only/inside", "x");
    env.write("source/open", "x");
    for (name, mode) in [("closed-dir", 0o700), ("closed-file", 0o600), ("list-only", 0o744)] {
        set_mode(&env.path("source").join(name), mode);
    }
    set_mode(&env.path(""), 0o777);
    let backup = ["backup", "source", "--output", "a.tar.zst", "--json"];
    let said = env.command_as_nobody(backup).run().code(3);
    let mut told = problems(&said);
    told.sort();
    let expected =
        ["closed-dir", "closed-file", "list-only/inside"].map(|name| format!("unreadable files/source/{name}"));
    assert_eq!(told, expected);
    assert_eq!(outcome(&said), "partial");
    let said = env.lifeboat(["backup", "list", "a.tar.zst"]).ok();
    assert!(said.stdout.contains("files/source/open") && !said.stdout.contains("inside"), "{}", said.stdout);
    assert!(said.stdout.contains("partial"), "the outcome is shown: {}", said.stdout);
    let manifest = env.lifeboat(["backup", "list", "a.tar.zst", "--json"]).ok().stdout;
    assert!(manifest.contains("closed-file"), "the snapshot itself says what it lacks");
    // As a person reads it.
    let backup = ["backup", "source", "--output", "b.tar.zst"];
    let said = env.command_as_nobody(backup).run().code(3);
    let told = said.stdout + &said.stderr;
    assert!(told.contains("files/source/closed-file") && told.contains("files/source/closed-dir"), "{told}");
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Shows A5.
#[test]
fn a_source_that_is_missing_unreadable_or_empty_fails_and_leaves_no_archive() {
    let env = TestEnv::new();
    env.mkdir("empty");
    env.run("ln", ["-s", "nowhere", "dangling"]).ok();
    env.mkdir("out");
    for name in ["missing", "empty", "dangling", "missing/below"] {
        let said = env.lifeboat(["backup", name, "--output", "out/a.tar.zst"]).code(18);
        assert!(said.stderr.contains(name), "{}", said.stderr);
        assert!(env.names("out").is_empty(), "{name}: {:?}", env.names("out"));
        env.lifeboat(["backup", name, "--output", "out/a.tar.zst", "--dry-run"]).code(18);
    }
    if is_root() {
        env.write("closed/file", "x");
        set_mode(&env.path("closed"), 0o700);
        set_mode(&env.path("out"), 0o777);
        for name in ["closed", "closed/file"] {
            env.command_as_nobody(["backup", name, "--output", "out/a.tar.zst"]).run().code(18);
            assert!(env.names("out").is_empty(), "{name}: {:?}", env.names("out"));
        }
    }
}

/// Shows A5.
#[test]
fn of_several_sources_those_that_are_there_are_kept_and_the_snapshot_is_partial() {
    let env = TestEnv::new();
    env.write("here/file", "x");
    env.mkdir("empty");
    for missing in ["gone", "empty"] {
        let archive = format!("{missing}.tar.zst");
        let said = env.lifeboat(["backup", missing, "here", "--output", &archive, "--json"]).code(18);
        assert_eq!(outcome(&said), "partial");
        let lines = said.json_lines();
        let summary = lines.iter().find(|line| line["message_type"] == "summary").unwrap();
        assert_eq!(summary["failed_sources"][0]["name"], missing);
        env.lifeboat(["backup", "verify", &archive]).ok();
        let listed = env.lifeboat(["backup", "list", &archive, "--json"]).ok();
        let entries: Vec<_> =
            listed.json_lines().into_iter().filter_map(|line| line["path"].as_str().map(str::to_owned)).collect();
        assert_eq!(entries, ["files/here", "files/here/file"]);
        let sources = &listed.json_lines()[0]["sources"];
        let failed = sources.as_array().unwrap().iter().find(|source| source["name"] == missing).unwrap();
        assert!(failed["details"]["failed"].is_string(), "the manifest says why: {failed}");
    }
}

/// Shows A5.
#[test]
fn what_only_begins_like_a_sqlite_database_is_copied_as_a_file_and_named() {
    let env = TestEnv::new();
    let no_database = [b"SQLite format 3\0".as_slice(), &[0; 4080]].concat();
    for name in ["broken.db", "below/broken.db"] {
        env.write(format!("source/{name}"), &no_database);
    }
    env.write("source/no-database", "something else, longer than a header");
    env.write("source/short", "SQLite format 3\0");
    for log in ["broken.db-wal", "broken.db-journal", "no-database-wal", "short-wal", "alone-wal"] {
        env.write(format!("source/{log}"), "log");
    }
    let said = env.lifeboat(["backup", "source", "--output", "a.tar.zst", "--json"]).ok();
    let mut told = problems(&said);
    told.sort();
    assert_eq!(told, ["below/broken.db", "broken.db"].map(|name| format!("live-database files/source/{name}")));
    let said = env.lifeboat(["backup", "source", "--output", "b.tar.zst"]).ok();
    let told = said.stdout + &said.stderr;
    assert!(told.contains("files/source/broken.db") && told.contains("copied as a file"), "{told}");
    assert_eq!(archived(&env, "broken.db"), Some(no_database.clone()));
    for log in ["broken.db-wal", "broken.db-journal", "no-database-wal", "short-wal", "alone-wal"] {
        assert_eq!(archived(&env, log), Some(b"log".to_vec()), "{log} is no log of a database");
    }

    // One that is a source by itself.
    let said = env.lifeboat(["backup", "source/broken.db", "--output", "c.tar.zst", "--json"]).ok();
    assert_eq!(problems(&said), ["live-database files/broken.db"]);
}

/// A writer at full speed, nothing held up: whatever comes out is whole.
///
/// Shows A5.
#[test]
fn whatever_a_writer_does_meanwhile_the_archive_verifies() {
    let env = TestEnv::new();
    let paths: Vec<_> = (0..20).map(|n| env.write(format!("source/{n:02}"), vec![b'x'; 10_000 + n * 40_000])).collect();
    let large = env.write("source/large", vec![b'y'; 12 << 20]);
    for round in 0..6 {
        let archive = format!("{round}.tar.zst");
        let mut random = Random::new(round);
        let run = during(env.command(["backup", "source", "--output", &archive]), || {
            let path = if random.below(4) == 0 { &large } else { &paths[random.below(paths.len())] };
            let file = File::options().write(true).open(path).unwrap();
            let len = file.metadata().unwrap().len();
            match random.below(4) {
                0 => file.set_len(len * 9 / 10).unwrap(),
                1 => file.write_all_at(&random.bytes(5000), len).unwrap(),
                2 => file.write_all_at(&random.bytes(5000), len / 2).unwrap(),
                _ => file.set_len(len.min(20 << 20) + 100_000).unwrap(),
            }
        });
        assert!([0, 3].contains(&run.exit_code()), "ended with {}", run.exit_code());
        env.lifeboat(["backup", "verify", &archive]).ok();
        if can_run("whatever_a_writer_does_meanwhile_the_archive_verifies", &["tar", "zstd"]) {
            env.run("tar", ["-tf", &archive]).ok();
        }
    }
}

/// Somebody else's files in a directory of one's own.
///
/// Shows A7.
#[test]
fn an_unreadable_archive_is_a_matter_of_permission() {
    const TEST: &str = "an_unreadable_archive_is_a_matter_of_permission";
    if !is_root() {
        return skip(TEST, "needs root, to act as another user");
    }
    let env = TestEnv::new();
    env.write("source/a", "x");
    env.lifeboat(["backup", "source", "--output", "a.tar.zst"]).ok();
    set_mode(&env.path("a.tar.zst"), 0o600);
    set_mode(&env.path(""), 0o777);
    env.command_as_nobody(["restore", "a.tar.zst", "--to", "new"]).run().code(16);
    chown(env.path("a.tar.zst"), Some(NOBODY), None).unwrap();
    env.command_as_nobody(["restore", "a.tar.zst", "--to", "new"]).run().ok();
    set_mode(&env.path(""), 0o755);
    env.command_as_nobody(["restore", "a.tar.zst", "--to", "other"]).run().code(16);
    env.command_as_nobody(["backup", "source", "--output", "b.tar.zst"]).run().code(16);
    assert_eq!(env.names(""), ["a.tar.zst", "new", "source"]);
}

/// Capabilities, ACLs, owners and `trusted.*` in one archive, for one who may set none of them.
///
/// Shows A7.
#[test]
fn an_ordinary_user_restores_what_root_backed_up_with_a_note() {
    const TEST: &str = "an_ordinary_user_restores_what_root_backed_up_with_a_note";
    if !can_run(TEST, &["setcap", "setfacl"]) {
        return;
    }
    if !is_root() {
        return skip(TEST, "needs root, to act as another user");
    }
    let env = TestEnv::new();
    let maker = Maker::new(&env.path("source"));
    if !maker.usual() {
        return skip(TEST, "the temporary directory's file system has no extended attributes");
    }
    maker.privileged(&env);
    set_mode(&env.path("source/root/closed"), 0o755);
    env.lifeboat(["backup", "source", "--output", "a.tar.zst"]).ok();
    set_mode(&env.path("a.tar.zst"), 0o644);
    set_mode(&env.path(""), 0o777);
    let said = env.command_as_nobody(["restore", "a.tar.zst", "--to", "new", "--json"]).run().ok();
    assert!(problems(&said).iter().all(|problem| problem.starts_with("unprivileged ")), "{:?}", problems(&said));
    assert!(!problems(&said).is_empty());
    let (before, after) = (snapshot(&env.path("source")), snapshot(&env.path("new/files/source")));
    for (path, node) in before.iter().filter(|(_, node)| ["file", "symlink", "dir"].contains(&node.kind)) {
        let got = after.get(path).unwrap_or_else(|| panic!("{} is missing", String::from_utf8_lossy(path)));
        assert_eq!((&node.content, &node.target, node.mtime), (&got.content, &got.target, got.mtime));
        assert_eq!(got.owner, (NOBODY, NOBODY));
        assert_eq!(got.mode & 0o6000, 0, "{}", String::from_utf8_lossy(path));
        let user = |node: &Node| node.xattrs.keys().filter(|name| name.starts_with("user.")).count();
        assert_eq!(user(node), user(got));
    }
    let said = env.command_as_nobody(["restore", "a.tar.zst", "--to", "same", "--same-owner", "--json"]).run().code(3);
    assert!(problems(&said).iter().all(|problem| problem.starts_with("metadata-lost ")), "{:?}", problems(&said));
}
