//! No room, no right, no lock, or no place for the journal: refused or rolled
//! back, each with its own message.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_store::testing::can_run;
use rexpect::session::{PtySession, spawn_command};

use super::{Live, application, can_mount, change};
use crate::env::{Cmd, TestEnv};
use crate::fidelity::{Mount, Tree, assert_same};

/// Mounts a small tmpfs.
fn tmpfs(env: &TestEnv, name: &str, options: &str) -> Mount {
    Mount::new(env, name, &["-t", "tmpfs", "-o", options, "tmpfs"])
}

/// Nothing was changed, and no stage or journal is left.
fn assert_untouched(live: &Live, before: &Tree) {
    assert_same(before, &live.all(), "everything is as it was before");
    assert_eq!((live.journals(), live.stages()), (Vec::new(), Vec::new()));
}

/// A restore that waits for an answer.
fn asks(live: &Live) -> PtySession {
    let command = live.env.command(["restore", "app.tar.zst", "--allow-unauthenticated"]).reads_terminal();
    let mut terminal = spawn_command(command.into_command(), Some(30_000)).unwrap();
    terminal.exp_string("Go on?").unwrap();
    terminal
}

/// Says yes, and returns what it said and how it ended.
fn goes_on(mut terminal: PtySession) -> (String, String) {
    terminal.send_line("y").unwrap();
    let said = terminal.exp_eof().unwrap();
    (said, format!("{:?}", terminal.process_mut().wait().unwrap()))
}

/// A restore with another data directory, agreeing to everything.
fn elsewhere(live: &Live, data_dir: impl AsRef<Path>, archive: &str) -> Cmd {
    let args = ["restore", archive, "--force", "--allow-unauthenticated"];
    live.env.command(args).env("LIFEBOAT_DATA_DIR", data_dir.as_ref())
}

/// An application of 3 MB in one file, changed since the backup.
fn large() -> Live {
    let live = Live::new(|env| {
        env.write("live/app/large", vec![7; 3 << 20]);
    });
    std::fs::remove_file(live.path("app/large")).unwrap();
    live
}

/// Shows R12.
#[test]
fn no_space_for_the_stage_is_refused_with_numbers() {
    if !can_mount("no_space_for_the_stage_is_refused_with_numbers", &["mount"]) {
        return;
    }
    let live = large();
    let _mount = tmpfs(&live.env, "live/app", "size=1m");
    live.env.write("live/app/large", "small");
    let before = live.all();
    let said = live.restore(&[]).code(14);
    let app = live.path("app");
    assert!(said.stderr.contains(&format!("not enough space in {}: need 3", app.display())), "{}", said.stderr);
    assert!(said.stderr.contains("have 1"), "{}", said.stderr);
    assert_untouched(&live, &before);
    let shown = live.env.lifeboat(["restore", "app.tar.zst", "--dry-run"]).code(14);
    assert!(shown.stdout.contains("overwrite"), "the plan is shown all the same: {}", shown.stdout);
}

/// Shows R12.
#[test]
fn a_file_system_that_fills_up_meanwhile_ends_it_before_anything_is_touched() {
    if !can_mount("a_file_system_that_fills_up_meanwhile_ends_it_before_anything_is_touched", &["mount"]) {
        return;
    }
    let live = large();
    let _mount = tmpfs(&live.env, "live/app", "size=5m");
    live.env.write("live/app/large", "small");
    let terminal = asks(&live);
    live.env.write("live/app/filler", vec![1; 3 << 20]);
    let before = live.all();
    let (said, status) = goes_on(terminal);
    assert!(status.contains(", 14)"), "{status}: {said}");
    assert!(said.contains("everything is as it was before"), "{said}");
    assert_untouched(&live, &before);
    std::fs::remove_file(live.path("app/filler")).unwrap();
    wait_for_room(&live, 4 << 20);
    live.restore(&[]).ok();
}

/// Space comes free when nobody holds a removed file any more: for a moment, a
/// child that another test starts may.
fn wait_for_room(live: &Live, bytes: u64) {
    for _ in 0..1000 {
        if lifeboat_store::durable::free_space(&live.path("app")).unwrap().0.is_some_and(|free| free >= bytes) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("ten seconds went by, and {bytes} bytes did not come free");
}

/// Shows R12.
#[test]
fn no_inodes_for_the_stage_are_refused_with_numbers() {
    if !can_mount("no_inodes_for_the_stage_are_refused_with_numbers", &["mount"]) {
        return;
    }
    let live = Live::new(|env| (0..60).for_each(|number| drop(env.write(format!("live/app/{number}"), "x"))));
    std::fs::remove_dir_all(live.path("app")).unwrap();
    let mount = tmpfs(&live.env, "live/app", "nr_inodes=50");
    live.env.write("live/app/1", "changed");
    let before = live.all();
    let said = live.restore(&[]).code(14);
    assert!(said.stderr.contains("not enough space in ") && said.stderr.contains(" inodes, have 4"), "{}", said.stderr);
    assert_untouched(&live, &before);
    drop(mount);
    // Enough for the plan, and then somebody else takes them.
    let _mount = tmpfs(&live.env, "live/app", "nr_inodes=80");
    live.env.write("live/app/1", "changed");
    let terminal = asks(&live);
    (0..40).for_each(|number| drop(live.env.write(format!("live/app/filler/{number}"), "")));
    let before = live.all();
    let (said, status) = goes_on(terminal);
    assert!(status.contains(", 14)"), "{status}: {said}");
    assert_untouched(&live, &before);
}

/// Shows R12.
#[test]
fn a_file_system_that_is_read_only_is_refused() {
    if !can_mount("a_file_system_that_is_read_only_is_refused", &["mount"]) {
        return;
    }
    let live = Live::new(application);
    let _mount = tmpfs(&live.env, "live", "size=5m");
    application(&live.env);
    change(&live.env);
    let before = live.all();
    let terminal = asks(&live);
    live.env.run("mount", ["-o", "remount,ro", "live"]).ok();
    let (said, status) = goes_on(terminal);
    assert!(status.contains(", 16)") && said.contains("Read-only") && said.contains("--to DIR"), "{status}: {said}");
    assert_untouched(&live, &before);
    for mode in ["overwrite", "full"] {
        let said = live.restore(&["--mode", mode]).code(16);
        assert!(said.stderr.contains("Read-only") && said.stderr.contains("--to DIR"), "{}", said.stderr);
        assert_untouched(&live, &before);
    }
    live.env.run("mount", ["-o", "remount,rw", "live"]).ok();
    live.restore(&[]).ok();
}

/// Shows R12.
#[test]
fn one_that_becomes_read_only_before_the_swap_is_rolled_back() {
    if !can_run("one_that_becomes_read_only_before_the_swap_is_rolled_back", &["strace"]) {
        return;
    }
    let live = Live::new(application);
    change(&live.env);
    let before = live.all();
    for time in 1..=4 {
        let fail = format!("inject=renameat2:error=EROFS:when={time}");
        let said = live.traced(&["-e", "trace=renameat2", "-e", &fail], &[]).code(20);
        assert!(said.stderr.contains("rolled back") && said.stderr.contains("ead-only"), "{}", said.stderr);
        assert_untouched(&live, &before);
    }
}

/// Shows R12.
#[test]
fn a_second_restore_at_the_same_time_is_kept_out() {
    let live = Live::new(application);
    let backed_up = live.app();
    live.env.write("live/app/conf/app.conf", "port = 87\n");
    let terminal = asks(&live);
    let before = live.all();
    let said = live.restore(&[]).code(11);
    assert!(
        said.stderr.contains("another run works on the same files") && said.stderr.contains("nothing was begun"),
        "{}",
        said.stderr
    );
    assert_same(&before, &live.all(), "kept out");
    let (said, status) = goes_on(terminal);
    assert!(status.contains(", 0)"), "{status}: {said}");
    live.assert_app(&backed_up, "the first went on");
    live.restore(&[]).ok();
}

/// An application, with archives of the directory above it and of one below it.
fn overlapping() -> Live {
    let live = Live::new(application);
    live.env.lifeboat(["backup", "live/app/data", "-o", "below.tar.zst"]).ok();
    live.env.lifeboat(["backup", "live", "-o", "above.tar.zst"]).ok();
    change(&live.env);
    live.env.write("live/app/data/one", "changed");
    live
}

const ARCHIVES: [&str; 3] = ["app.tar.zst", "below.tar.zst", "above.tar.zst"];

/// The only journal.
fn journal(live: &Live) -> PathBuf {
    let journals = live.journals();
    let name = journals.iter().find(|name| name.ends_with(".jsonl")).unwrap_or_else(|| panic!("{journals:?}"));
    live.env.data_dir().join("journal").join(name)
}

/// Nothing can be restored at, above or below the root, from wherever; the journal is named.
fn assert_kept_out(live: &Live, data_dirs: &[PathBuf], archives: &[&str]) {
    let (before, journal) = (live.all(), journal(live));
    let is_ours = |dir: &PathBuf| *dir == live.env.data_dir();
    for (data_dir, archive) in data_dirs.iter().flat_map(|dir| archives.iter().map(move |archive| (dir, archive))) {
        let said = elsewhere(live, data_dir, archive).run().code(11);
        // With the same data directory it is known by its lock.
        let named = said.stderr.contains(journal.to_str().unwrap()) || is_ours(data_dir);
        assert!(named, "{archive} with {}: {}", data_dir.display(), said.stderr);
        assert_same(&before, &live.all(), "kept out");
    }
}

/// Shows R12.
#[test]
fn a_restore_with_another_data_directory_sees_one_that_is_under_way() {
    if !can_run("a_restore_with_another_data_directory_sees_one_that_is_under_way", &["strace"]) {
        return;
    }
    let live = overlapping();
    let lifeboat = env!("CARGO_BIN_EXE_lifeboat");
    let strace = ["-f", "-o", "trace", "-e", "trace=renameat2", "-e", "inject=renameat2:delay_enter=6000000:when=1"];
    let restore = [lifeboat, "restore", "app.tar.zst", "--force", "--allow-unauthenticated"];
    let first = live.env.program("strace", strace.iter().chain(&restore)).start();
    let is_waiting = || std::fs::read_to_string(live.env.path("trace")).is_ok_and(|trace| trace.contains("renameat2"));
    for _ in 0..500 {
        if is_waiting() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_kept_out(&live, &[live.env.path("other")], &ARCHIVES);
    // The same data directory, but another app.
    assert_kept_out(&live, &[live.env.data_dir()], &ARCHIVES[1..]);
    first.wait().ok();
    assert_eq!(live.env.read("live/app/data/one"), b"1");
}

/// Shows R12.
#[test]
fn a_restore_with_another_data_directory_sees_one_that_was_interrupted() {
    if !can_run("a_restore_with_another_data_directory_sees_one_that_was_interrupted", &["strace"]) {
        return;
    }
    let live = overlapping();
    let before = live.all();
    for time in [1, 3] {
        let kill = format!("inject=renameat2:signal=KILL:when={time}");
        live.traced(&["-e", "trace=renameat2", "-e", &kill], &[]).code(137);
        assert_kept_out(&live, &[live.env.path("other")], &ARCHIVES);
        // Nor does a recovery with that data directory touch it.
        let waiting = live.all();
        live.env.command(["recover"]).env("LIFEBOAT_DATA_DIR", live.env.path("other")).run().ok();
        assert_same(&waiting, &live.all(), "not its own");
        live.env.lifeboat(["recover"]).ok();
        assert_untouched(&live, &before);
    }
    elsewhere(&live, live.env.path("other"), "below.tar.zst").run().ok();
    elsewhere(&live, live.env.path("other"), "app.tar.zst").run().ok();
}

/// Shows R12.
#[test]
fn one_that_was_interrupted_while_somebody_was_asked_is_seen_too() {
    if !can_run("one_that_was_interrupted_while_somebody_was_asked_is_seen_too", &["strace"]) {
        return;
    }
    let live = overlapping();
    let command = live.env.command(["restore", "below.tar.zst", "--allow-unauthenticated"]).reads_terminal();
    let mut terminal = spawn_command(command.into_command(), Some(30_000)).unwrap();
    terminal.exp_string("Go on?").unwrap();
    live.traced(&["-e", "trace=renameat2", "-e", "inject=renameat2:signal=KILL:when=2"], &[]).code(137);
    let before = live.all();
    let (said, status) = goes_on(terminal);
    assert!(status.contains(", 11)") && said.contains(journal(&live).to_str().unwrap()), "{status}: {said}");
    assert_same(&before, &live.all(), "kept out");
}

/// Shows R12.
#[test]
fn a_data_directory_inside_the_root_is_refused() {
    let live = Live::new(application);
    change(&live.env);
    let inside = live.path("app/data/state");
    for there in [false, true] {
        if there {
            live.env.mkdir("live/app/data/state");
        }
        let before = live.all();
        let said = elsewhere(&live, &inside, "app.tar.zst").run().code(2);
        let expected = format!("Lifeboat's data directory {} lies in {}", inside.display(), live.path("app").display());
        assert!(said.stderr.contains(&expected) && said.stderr.contains("--data-dir"), "{}", said.stderr);
        assert_untouched(&live, &before);
    }
    // Through a symlink too.
    std::os::unix::fs::symlink(&inside, live.env.path("link")).unwrap();
    elsewhere(&live, live.env.path("link"), "app.tar.zst").run().code(2);
}

/// Shows R12.
#[test]
fn a_data_directory_without_space_for_the_journal_ends_it() {
    if !can_mount("a_data_directory_without_space_for_the_journal_ends_it", &["mount"]) {
        return;
    }
    let live = Live::new(application);
    change(&live.env);
    let before = live.all();
    for (name, options) in [("no-space", "size=64k"), ("no-inodes", "nr_inodes=3")] {
        let _mount = tmpfs(&live.env, name, options);
        live.env.write(format!("{name}/filler"), vec![1; 60_000]);
        if name == "no-space" {
            live.env.run("sh", ["-c", "head -c 100000 /dev/zero >no-space/filler2"]).code(1);
        }
        let said = elsewhere(&live, live.env.path(name), "app.tar.zst").run().code(14);
        assert!(said.stderr.contains(name), "{}", said.stderr);
        assert_untouched(&live, &before);
        let left = live.env.run("find", [name, "-type", "f", "-name", "*.jsonl"]).ok().stdout;
        assert_eq!(left, "", "no journal is left");
    }
    live.restore(&[]).ok();
}

/// Shows R12.
#[test]
fn a_journal_that_cannot_grow_rolls_it_back() {
    if !can_mount("a_journal_that_cannot_grow_rolls_it_back", &["mount"]) {
        return;
    }
    let make = |env: &TestEnv| (0..2000).for_each(|number| drop(env.write(format!("live/app/{number}"), "x")));
    let live = Live::new(make);
    (0..2000).for_each(|number| drop(live.env.write(format!("live/app/{number}"), "changed")));
    let before = live.all();
    // Room for what was agreed to, and none for the list of steps.
    let _mount = tmpfs(&live.env, "small", "size=32k");
    let said = elsewhere(&live, live.env.path("small"), "app.tar.zst").run().code(20);
    assert!(said.stderr.contains("o space left"), "{}", said.stderr);
    assert_untouched(&live, &before);
    let left = live.env.run("find", ["small", "-name", "*.jsonl"]).ok().stdout;
    assert_eq!(left, "", "no journal is left");
}
