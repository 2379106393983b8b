//! One golden text for each exit code that can occur: what a person reads.
//! Times, sizes, ids and the working directory are placeholders.

use std::io::Write as _;

use lifeboat_store::testing::{can_run, is_root, skip};
use rustix::process::Signal;

use crate::env::{Running, TestEnv};

/// A directory `app` with two files, and its archive `app.tar.zst`.
fn with_archive() -> TestEnv {
    let env = TestEnv::new();
    env.write("app/app.conf", "port = 80\n");
    env.write("app/state/data.json", "{}\n");
    env.lifeboat(["backup", "app", "-o", "app.tar.zst"]).ok();
    env
}

/// Writes `name`: the archive with `from` replaced by `to`, which is as long.
fn change_archive(env: &TestEnv, name: &str, from: &str, to: &str) {
    assert_eq!(from.len(), to.len(), "a tar is made of lengths");
    let mut tar = env.run("zstd", ["-dc", "app.tar.zst"]).ok().bytes;
    let at = tar.windows(from.len()).position(|part| part == from.as_bytes()).expect("it is in the archive");
    (&mut tar[at..]).write_all(to.as_bytes()).expect("memory takes it");
    env.write("changed.tar", tar);
    env.run("zstd", ["-q", "changed.tar", "-o", name]).ok();
}

/// Shows A1, A11.
#[test]
fn code_0_of_a_backup_says_what_was_done_and_what_to_do_next() {
    let env = TestEnv::new();
    env.write("app/app.conf", "port = 80\n");
    env.write("app/state/data.json", "{}\n");
    env.write("app/cache/x", "x");
    let said = env.lifeboat(["backup", "app", "--exclude", "cache/"]).ok();
    assert_eq!(
        said.normal_stdout(),
        "\
Backup written to app-backup-<date>.tar.zst (<size>, 2 files)
content: <size> in <duration> (<size>)
verified: every file read back and its sum compared
excluded: 1 entry by patterns
snapshot: <id>
Next: lifeboat restore app-backup-<date>.tar.zst --to DIR   to get it back elsewhere
"
    );
    assert_eq!(said.stderr, "");
}

/// Shows A11.
#[test]
fn code_0_of_a_backups_dry_run_says_what_would_be_done() {
    let env = TestEnv::new();
    env.write("app/app.conf", "port = 80\n");
    env.write("app/cache/x", "x");
    env.lifeboat(["backup", "app"]).ok();
    let said = env.lifeboat(["backup", ".", "--exclude", "cache/", "--dry-run"]).ok();
    assert_eq!(
        said.normal_stdout(),
        "\
Dry run: 1 file (<size>) would be backed up to work-backup-<date>.tar.zst
  work: 1 file, <size>, from $DIR
excluded: 1 entry by patterns
1 archive of ours in the output directory would be left out
free space there: <size>
Nothing was written.
"
    );
    assert_eq!(env.names(".").len(), 2, "the directory and the first archive");
}

/// Shows A6, A11.
#[test]
fn code_0_of_list_shows_what_is_inside() {
    let env = TestEnv::new();
    env.write("app/app.conf", "port = 80\n");
    env.write("app/state/data.json", "{}\n");
    env.run("ln", ["-s", "../app.conf", "app/state/link"]).ok();
    env.run("ln", ["app/app.conf", "app/same"]).ok();
    env.set_mode("app", 0o755);
    env.set_mode("app/state", 0o1750);
    env.set_mode("app/app.conf", 0o644);
    env.set_mode("app/state/data.json", 0o4600);
    env.lifeboat(["backup", "app", "-o", "app.tar.zst"]).ok();
    let said = env.lifeboat(["backup", "list", "app.tar.zst"]).ok();
    let ask = |program: &str, option: &str| env.run(program, [option]).ok().stdout.trim().to_owned();
    let (host, owner) = (ask("uname", "-n"), format!("{}/{}", ask("id", "-un"), ask("id", "-gn")));
    // A line holds the second at which its file was written.
    let shown: Vec<String> = said.normal_stdout().lines().map(without_time_of_day).collect();
    let expected = format!(
        "\
Archive: app.tar.zst
Created: <time> (lifeboat v0.1.0)
App: app on {host}, snapshot <id>
Outcome: good
Source: app from $DIR/app

drwxr-xr-x {owner:<15}          - <date> files/app
-rw-r--r-- {owner:<15}       <size> <date> files/app/app.conf
hrw-r--r-- {owner:<15}          - <date> files/app/same link to files/app/app.conf
drwxr-x--T {owner:<15}          - <date> files/app/state
-rwS------ {owner:<15}        <size> <date> files/app/state/data.json
lrwxrwxrwx {owner:<15}          - <date> files/app/state/link -> ../app.conf

6 entries, 2 files, <size> of content; the archive has <size>"
    );
    assert_eq!(shown.join("\n"), expected);
}

/// `line` without the word after `<date>`.
fn without_time_of_day(line: &str) -> String {
    match line.split_once("<date> ") {
        None => line.to_owned(),
        Some((before, after)) => format!("{before}<date> {}", after.split_once(' ').expect("a path follows").1),
    }
}

/// Shows A6, A11.
#[test]
fn code_0_of_verify_says_pass_for_each_file() {
    let said = with_archive().lifeboat(["backup", "verify", "app.tar.zst"]).ok();
    assert_eq!(
        said.normal_stdout(),
        "\
Archive: app.tar.zst
Created: <time> (lifeboat v0.1.0)

  PASS files/app/app.conf
  PASS files/app/state/data.json

All 2 files verified successfully.
"
    );
    assert_eq!(said.stderr, "");
}

/// Shows A7, A11.
#[test]
fn code_0_of_a_restore_says_what_came_back_and_where() {
    let env = with_archive();
    let said = env.lifeboat(["restore", "app.tar.zst", "--to", "back"]).ok();
    assert_eq!(
        said.normal_stdout(),
        "\
Restored 2 files:
  files/app/app.conf
  files/app/state/data.json

Everything is in back (<size> in <duration>, <size>)
verified: every sum was compared while writing
Next: look at back, and put in place what you need
"
    );
    assert_eq!(said.stderr, "");
    assert_eq!(env.read("back/files/app/app.conf"), b"port = 80\n");
}

/// Shows A11.
#[test]
fn code_0_of_a_restores_dry_run_says_what_would_be_new_and_what_overwritten() {
    let env = with_archive();
    env.write("back/files/app/app.conf", "port = 81\n");
    let said = env.lifeboat(["restore", "app.tar.zst", "--to", "back", "--dry-run"]).ok();
    let (head, free) = said.stdout.split_once("free space").expect("it says what room there is");
    assert_eq!(
        head,
        "\
Dry run: 2 files would be restored from app.tar.zst

  overwrite  10 B  files/app/app.conf
  new        3 B  files/app/state/data.json

to back: 13 B; "
    );
    let (_, end) = free.split_once('\n').expect("more lines follow");
    assert_eq!(
        end,
        "1 existing entry would be replaced; the restore itself needs --overwrite for that\nNothing was written.\n"
    );
    assert_eq!(env.read("back/files/app/app.conf"), b"port = 81\n");
}

/// Shows A3, A11.
#[test]
fn code_1_is_any_other_failure() {
    let env = with_archive();
    let said = env.lifeboat(["backup", "app", "-o", "app.tar.zst"]).code(1);
    assert_eq!(said.stdout, "");
    assert_eq!(
        said.normal_stderr(),
        "\
error[E100]: $DIR/app.tar.zst exists already
  what happened: it was not touched, and no archive was made
  do this: choose another name with --output, or leave --output out for a dated one
"
    );
}

/// Shows A6, A11.
#[test]
fn code_1_of_verify_names_each_file_that_failed() {
    if !can_run("code_1_of_verify_names_each_file_that_failed", &["zstd"]) {
        return;
    }
    let env = with_archive();
    change_archive(&env, "bad.tar.zst", "port = 80", "port = 90");
    let said = env.lifeboat(["backup", "verify", "bad.tar.zst"]).code(1);
    assert_eq!(
        said.normal_stdout(),
        "\
Archive: bad.tar.zst
Created: <time> (lifeboat v0.1.0)

  FAIL files/app/app.conf (sha256 differs)
  PASS files/app/state/data.json

1 of 2 files failed.
"
    );
}

/// Shows A6, A11.
#[test]
fn code_1_of_verify_says_when_the_archive_does_not_open() {
    let env = with_archive();
    env.write("cut.tar.zst", &env.read("app.tar.zst")[..100]);
    let said = env.lifeboat(["backup", "verify", "cut.tar.zst"]).code(1);
    assert_eq!(said.stdout, "");
    assert_eq!(
        said.normal_stderr(),
        "\
error[E1300]: cut.tar.zst: the archive is cut off
  what happened: nothing was written
  do this: use another copy of this backup
"
    );
}

/// Shows A8, A11.
#[test]
fn code_1_of_verify_says_when_there_is_no_manifest() {
    if !can_run("code_1_of_verify_says_when_there_is_no_manifest", &["tar"]) {
        return;
    }
    let env = with_archive();
    env.run("tar", ["-cf", "foreign.tar", "app"]).ok();
    let said = env.lifeboat(["backup", "verify", "foreign.tar"]).code(1);
    assert_eq!(
        said.normal_stdout(),
        "\
Archive: foreign.tar
no manifest: a tar that Lifeboat did not write; it has no sums

2 files read; nothing says what they should be: no manifest.
"
    );
}

/// Shows A11.
#[test]
fn code_2_is_wrong_usage() {
    let env = with_archive();
    let said = env.lifeboat(["restore", "app.tar.zst", "--only", "db"]).code(2);
    assert_eq!(
        said.normal_stderr(),
        "\
error[E200]: --only db: the snapshot has no source of that name
  what happened: nothing was written, and nothing was stopped
  do this: its sources are: app
"
    );
    let said = env.lifeboat(["backup", "app", "--compression", "rar"]).code(2);
    assert_eq!(
        said.normal_stderr(),
        "\
error: invalid value 'rar' for '--compression <KIND>'
  [possible values: zstd, gzip]

For more information, try '--help'.
"
    );
}

/// Shows A5, A11.
#[test]
fn code_3_is_done_but_incomplete() {
    let env = TestEnv::new();
    env.write("app/app.conf", "port = 80\n");
    env.write("app/secret", "x");
    env.set_mode("app/secret", 0);
    env.set_mode("", 0o777);
    let said = env.command_as_nobody(["backup", "app", "-o", "app.tar.zst"]).run().code(3);
    assert_eq!(
        said.normal_stdout(),
        "\
Backup written to app.tar.zst (<size>, 1 file)
content: <size> in <duration> (<size>)
verified: every file read back and its sum compared
problems: 1 unreadable
snapshot: <id>
Next: lifeboat restore app.tar.zst --to DIR   to get it back elsewhere
"
    );
    assert_eq!(
        said.normal_stderr(),
        "\
warning: unreadable: files/app/secret: it could not be opened: Permission denied (os error 13)
warning[E300]: the backup is done, but incomplete: 1 unreadable
  what happened: everything else is in app.tar.zst
  do this: run it as a user who may read everything, or leave out with --exclude what is not needed
"
    );
}

/// Shows A7, A11.
#[test]
fn code_13_is_damage() {
    let env = with_archive();
    let archive = env.read("app.tar.zst");
    env.write("cut.tar.zst", &archive[..archive.len() - 300]);
    let said = env.lifeboat(["restore", "cut.tar.zst", "--to", "back"]).code(13);
    assert_eq!(said.stdout, "");
    assert_eq!(
        said.normal_stderr(),
        "\
error[E1300]: cut.tar.zst: the archive is cut off
  what happened: nothing was restored, and back is as it was before
  do this: use another copy of this backup; \"lifeboat backup verify cut.tar.zst\" says which files are whole
"
    );
    assert!(!env.path("back").exists(), "nothing is left behind");
}

/// Shows A10, A11.
#[test]
fn code_14_is_no_space() {
    let test = "code_14_is_no_space";
    if !can_run(test, &["mount", "umount"]) {
        return;
    }
    if !is_root() {
        return skip(test, "needs root to mount a small file system");
    }
    let env = TestEnv::new();
    let data = lifeboat_store::testing::Random::new(1).bytes(3 << 20);
    env.write("app/data", data);
    env.mkdir("small");
    env.run("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", "small"]).ok();
    let run = env.lifeboat(["backup", "app", "-o", "small/app.tar.zst"]);
    let left = env.names("small");
    env.run("umount", ["small"]).ok();
    let said = run.code(14);
    assert_eq!(said.stdout, "");
    assert_eq!(
        said.normal_stderr(),
        "\
error[E1400]: could not write to $DIR/small: No space left on device (os error 28)
  what happened: no archive was made, and nothing else was changed
  do this: make room in $DIR/small (<size> free; a backup may need twice the archive's size), or choose another place with --output
"
    );
    assert!(left.is_empty(), "{left:?}");
}

/// Shows A10, A11.
#[test]
fn code_16_is_a_missing_permission() {
    let env = TestEnv::new();
    env.write("app/app.conf", "port = 80\n");
    env.mkdir("closed");
    env.set_mode("closed", 0o555);
    let said = env.command_as_nobody(["backup", "app", "-o", "closed/app.tar.zst"]).run().code(16);
    assert_eq!(said.stdout, "");
    assert_eq!(
        said.normal_stderr(),
        "\
error[E1600]: could not write in $DIR/closed: Permission denied (os error 13)
  what happened: no archive was made, and nothing else was changed
  do this: write to another place with --output, or give yourself the right to write in $DIR/closed
"
    );
}

/// Shows A11.
#[test]
fn code_17_is_a_format_of_the_future() {
    if !can_run("code_17_is_a_format_of_the_future", &["zstd"]) {
        return;
    }
    let env = with_archive();
    change_archive(&env, "new.tar.zst", "lifeboat/1", "lifeboat/2");
    let said = env.lifeboat(["restore", "new.tar.zst", "--to", "back"]).code(17);
    assert_eq!(said.stdout, "");
    assert_eq!(
        said.normal_stderr(),
        "\
error[E1700]: new.tar.zst: the manifest's format is lifeboat/2, and this version reads lifeboat/1; update Lifeboat
  what happened: nothing was written
  do this: use a version of Lifeboat that reads this
"
    );
    assert!(!env.path("back").exists(), "nothing was written");
}

/// Shows A5, A11.
#[test]
fn code_18_is_a_failed_source() {
    let env = TestEnv::new();
    let said = env.lifeboat(["backup", "missing"]).code(18);
    assert_eq!(said.stdout, "");
    assert_eq!(
        said.normal_stderr(),
        "\
error[E1800]: could not back up $DIR/missing: it does not exist
  what happened: no archive was made, and nothing else was changed
  do this: check the path, its permissions, and that its file system is mounted
"
    );
    assert!(env.names("").is_empty(), "no archive was made");
}

/// Shows A5, A11.
#[test]
fn code_18_keeps_the_sources_that_did_not_fail() {
    let env = TestEnv::new();
    env.write("app/app.conf", "port = 80\n");
    let said = env.lifeboat(["backup", "app", "missing", "-o", "app.tar.zst"]).code(18);
    assert_eq!(
        said.normal_stdout(),
        "\
Backup written to app.tar.zst (<size>, 1 file)
content: <size> in <duration> (<size>)
verified: every file read back and its sum compared
snapshot: <id>
Next: lifeboat restore app.tar.zst --to DIR   to get it back elsewhere
"
    );
    assert_eq!(
        said.normal_stderr(),
        "\
warning: source failed: $DIR/missing: it does not exist
warning[E1800]: the backup is done, but 1 source failed
  what happened: nothing of what failed is in app.tar.zst, which is marked partial; the rest is in it
  do this: put right what the warnings name, then run the same command again
"
    );
}

/// Shows A7, A11.
#[test]
fn code_22_is_a_missing_agreement() {
    let env = with_archive();
    env.write("back/files/app/app.conf", "port = 81\n");
    let said = env.lifeboat(["restore", "app.tar.zst", "--to", "back"]).code(22);
    assert_eq!(said.stdout, "");
    assert_eq!(
        said.normal_stderr(),
        "\
error[E2200]: 1 entry exists already in back: files/app/app.conf
  what happened: nothing was written
  do this: restore to an empty directory, or add --overwrite to replace what exists
"
    );
    assert_eq!(env.read("back/files/app/app.conf"), b"port = 81\n");
}

/// Shows A7, A11.
#[test]
fn code_23_is_an_unsafe_archive() {
    if !can_run("code_23_is_an_unsafe_archive", &["tar"]) {
        return;
    }
    let env = TestEnv::new();
    env.write("x", "x");
    env.mkdir("sub");
    env.run("tar", ["-C", "sub", "-P", "-cf", "evil.tar", "../x"]).ok();
    let said = env.lifeboat(["restore", "evil.tar", "--to", "back/sub"]).code(23);
    assert_eq!(said.stdout, "");
    assert_eq!(
        said.normal_stderr(),
        "\
error[E2300]: evil.tar: the entry path \"../x\" has a component that means another directory
  what happened: nothing was written
  do this: do not trust this archive; find out where it comes from
"
    );
    assert!(!env.path("back").exists(), "nothing was written");
}

/// Shows A11.
#[test]
fn code_130_is_ctrl_c() {
    let env = TestEnv::new();
    let running = long_backup(&env);
    running.signal(Signal::INT);
    let said = running.wait().code(130);
    assert_eq!(said.stdout, "");
    assert_eq!(
        said.normal_stderr(),
        "\
error[E13000]: stopped by Ctrl-C (SIGINT)
  what happened: no archive was made, and nothing else was changed
  do this: run the same command again
"
    );
    assert_eq!(env.names(""), ["app"]);
}

/// Shows A11.
#[test]
fn code_143_is_sigterm() {
    let env = TestEnv::new();
    let running = long_backup(&env);
    running.signal(Signal::TERM);
    let said = running.wait().code(143);
    assert_eq!(said.stdout, "");
    assert_eq!(
        said.normal_stderr(),
        "\
error[E14300]: stopped by SIGTERM
  what happened: no archive was made, and nothing else was changed
  do this: run the same command again
"
    );
    assert_eq!(env.names(""), ["app"]);
}

/// Shows A3, A11.
#[test]
fn a_second_signal_ends_the_run_at_once() {
    let env = TestEnv::new();
    let huge = huge_source(&env);
    // Standard error is full, so the first signal's clean end waits at its message.
    let script = r#"head -c 65536 /dev/zero >&2; exec "$0" backup "$1" -o app.tar.zst"#;
    let running = env.program("sh", ["-c", script, env!("CARGO_BIN_EXE_lifeboat"), huge]).start();
    running.wait_until_it_catches_signals();
    running.signal(Signal::INT);
    running.wait_until_its_main_thread_waits_alone();
    running.signal(Signal::TERM);
    running.wait_until_it_is_gone();
    let said = running.wait().code(143);
    assert!(said.stdout.is_empty() && said.stderr.bytes().all(|byte| byte == 0), "there was no time to say anything");
    assert_eq!(env.names(""), ["app"], "and yet nothing half-written is left");
}

/// Something that takes minutes to back up, and no room.
fn huge_source(env: &TestEnv) -> &'static str {
    env.mkdir("app");
    let huge = std::fs::File::options().write(true).create_new(true).open(env.path("app/huge")).expect("it is new");
    huge.set_len(256 << 30).expect("holes take no room");
    "app"
}

/// A backup that goes on until it is stopped.
fn long_backup(env: &TestEnv) -> Running {
    let running = env.command(["backup", huge_source(env), "-o", "app.tar.zst"]).start();
    running.wait_until_it_catches_signals();
    running
}
