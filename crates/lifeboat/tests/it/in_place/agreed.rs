//! What was agreed: where things go, by the configuration or the archive; that
//! the plan still holds; and that nothing unverified becomes live.

use std::path::Path;

use lifeboat_store::testing::{Random, can_run, is_root, skip};
use rexpect::session::spawn_command;

use super::{Live, application, can_mount, change};
use crate::env::TestEnv;
use crate::fidelity::{Mount, assert_same, snapshot};

/// `lifeboat.yaml` for the application at `root`, with further keys of its source.
fn configure(env: &TestEnv, root: &Path, more: &str) {
    let root = root.display();
    env.write(
        "lifeboat.yaml",
        format!("apps:\n  app:\n    sources:\n      app: {{ files: {{ root: {root}{more} }} }}\n"),
    );
    env.set_mode("lifeboat.yaml", 0o600);
}

/// Shows R1, R2.
#[test]
fn what_is_configured_says_where_it_goes_and_needs_no_trust_in_the_archive() {
    let live = Live::new(application);
    let backed_up = live.app();
    let before = live.all();
    configure(&live.env, &live.env.path("elsewhere/app"), "");
    live.env.mkdir("elsewhere");
    let plan = live.env.lifeboat(["restore", "app.tar.zst", "--dry-run"]).ok().stdout;
    assert!(plan.contains("elsewhere/app, which does not exist (as configured)"), "{plan}");
    live.env.lifeboat(["restore", "app.tar.zst"]).ok();
    assert_same(&backed_up, &snapshot(&live.env.path("elsewhere/app")), "where the configuration says");
    assert_same(&before, &live.all(), "where the archive says");
}

/// Shows R3.
#[test]
fn full_leaves_alone_what_is_configured_to_be_left_out_by_now() {
    let live = Live::new(application);
    change(&live.env);
    live.env.write("live/app/models/big", "left out by now");
    configure(&live.env, &live.path("app"), ", exclude: [models]");
    live.env.lifeboat(["restore", "app.tar.zst", "--mode", "full", "--force"]).ok();
    assert!(live.path("app/models/big").exists() && !live.path("app/data/deep/three").exists());
}

/// Shows R3.
#[test]
fn full_never_deletes_what_the_backup_could_not_read() {
    if !is_root() {
        return skip("full_never_deletes_what_the_backup_could_not_read", "root reads everything back");
    }
    let env = TestEnv::new();
    application(&env);
    for secret in ["live/app/secret/key", "live/app/secret/deep/er", "live/app/conf/hidden"] {
        env.write(secret, "nobody may read this");
        env.set_mode(secret, 0o600);
    }
    for open in ["live/app/conf", "live/app/conf/users"] {
        env.set_mode(open, 0o755);
    }
    env.set_mode("live/app/secret", 0o700);
    env.run("chmod", ["777", "."]).ok();
    env.command_as_nobody(["backup", "live/app", "-o", "app.tar.zst"]).run().code(3);
    env.write("live/app/goes", "since the backup");
    let live = Live { env };
    let plan = live.env.lifeboat(["restore", "app.tar.zst", "--mode", "full", "--dry-run"]).ok().stdout;
    assert!(plan.contains("not in the snapshot: unreadable: files/app/secret"), "{plan}");
    live.restore(&["--mode", "full"]).ok();
    for there in ["app/secret/key", "app/secret/deep/er", "app/conf/hidden"] {
        assert!(live.path(there).exists(), "{there}");
    }
    assert!(!live.path("app/goes").exists());
}

/// Shows R3, R5.
#[test]
fn full_never_empties_a_file_system_that_the_backup_was_told_to_leave_out() {
    if !can_mount("full_never_empties_a_file_system_that_the_backup_was_told_to_leave_out", &["mount"]) {
        return;
    }
    let env = TestEnv::new();
    application(&env);
    let mount = Mount::new(&env, "live/app/media", &["-t", "tmpfs", "tmpfs"]);
    env.write("live/app/media/film", "not in the backup");
    env.lifeboat(["backup", "live/app", "--one-file-system", "-o", "app.tar.zst"]).ok();
    env.write("live/app/goes", "since the backup");
    let live = Live { env };
    live.restore(&["--mode", "full"]).ok();
    assert_eq!(live.env.read("live/app/media/film"), b"not in the backup");
    assert!(!live.path("app/goes").exists());
    live.discard();
    // Nor what stands there once it is mounted no longer.
    drop(mount);
    live.env.write("live/app/media/film", "moved here");
    live.env.write("live/app/goes", "since the backup");
    live.restore(&["--mode", "full"]).ok();
    assert_eq!(live.env.read("live/app/media/film"), b"moved here");
    assert!(!live.path("app/goes").exists());
}

/// Shows R3.
#[test]
fn of_several_sources_only_those_are_restored_that_are_asked_for() {
    let env = TestEnv::new();
    env.write("one/a", "1");
    env.write("two/b", "2");
    env.lifeboat(["backup", "one", "two", "-o", "both.tar.zst"]).ok();
    let restore = |only: &[&str]| {
        env.write("one/a", "changed");
        env.write("two/b", "changed");
        let agreed = ["restore", "both.tar.zst", "--force", "--allow-unauthenticated"];
        env.lifeboat(agreed.iter().chain(only)).ok();
        [env.read("one/a"), env.read("two/b")].map(|content| String::from_utf8(content).unwrap())
    };
    assert_eq!(restore(&["--only", "two"]), ["changed", "2"]);
    assert_eq!(restore(&["--only", "one/a"]), ["1", "changed"]);
    assert_eq!(restore(&["--only", "one", "--only", "two/b"]), ["1", "2"]);
    assert_eq!(restore(&[]), ["1", "2"]);
}

/// Shows R1.
#[test]
fn a_plan_shows_what_room_it_needs_and_there_is() {
    let live = Live::new(application);
    let plan = live.env.lifeboat(["restore", "app.tar.zst", "--dry-run", "--json"]).ok().json_lines().pop().unwrap();
    let space = &plan["space"][0];
    assert_eq!(space["needed_bytes"], plan["bytes"]);
    assert_eq!(space["needed_inodes"], plan["entries"]);
    assert!(space["free_bytes"].as_u64().is_some_and(|free| free > 0), "{space}");
    assert_eq!(space["path"], live.path("").to_str().unwrap().trim_end_matches('/'));
}

/// Shows R1.
#[test]
fn a_plan_that_holds_no_longer_is_not_carried_out() {
    let live = Live::new(application);
    change(&live.env);
    let moved = |what: &str, change: &dyn Fn()| {
        let command = live.env.command(["restore", "app.tar.zst", "--allow-unauthenticated"]).reads_terminal();
        let mut terminal = spawn_command(command.into_command(), Some(20_000)).unwrap();
        terminal.exp_string("Go on?").unwrap();
        change();
        let before = live.all();
        terminal.send_line("y").unwrap();
        let said = terminal.exp_eof().unwrap();
        assert!(said.contains("since the plan was made") && said.contains("nothing was written"), "{what}: {said}");
        assert_same(&before, &live.all(), what);
        assert!(live.journals().is_empty(), "{what}");
    };
    moved("another archive", &|| {
        live.env.run("cp", ["app.tar.zst", "other.tar.zst"]).ok();
        live.env.run("mv", ["other.tar.zst", "app.tar.zst"]).ok();
    });
    moved("another directory above it", &|| {
        live.env.run("mv", ["live", "old"]).ok();
        live.env.run("cp", ["-a", "old", "live"]).ok();
    });
    moved("no root any more", &|| {
        live.env.run("rm", ["-r", "live/app"]).ok();
    });
}

/// The last file differs from its sum, when all others are staged already.
///
/// Shows R4.
#[test]
fn a_mismatch_in_the_last_file_ends_it_before_anything_live_is_touched() {
    if !can_run("a_mismatch_in_the_last_file_ends_it_before_anything_live_is_touched", &["zstd"]) {
        return;
    }
    let live = Live::new(|env| {
        env.write("live/app/first", Random::new(3).bytes(9 << 20));
        env.write("live/app/last", "as it was backed up");
    });
    live.env.write("live/app/last", "changed since");
    let mut tar = live.env.run("zstd", ["-dc", "app.tar.zst"]).ok().bytes;
    let content = b"as it was backed up";
    let at = tar.windows(content.len()).rposition(|part| part == content).unwrap();
    tar[at] ^= 1;
    live.env.write("changed.tar", tar);
    live.env.run("zstd", ["-qf", "changed.tar", "-o", "app.tar.zst"]).ok();
    let before = live.all();
    let said = live.restore(&[]).code(13);
    assert!(
        said.stderr.contains("files/app/last") && said.stderr.contains("everything is as it was before"),
        "{}",
        said.stderr
    );
    assert_same(&before, &live.all(), "a mismatch");
    assert!(live.journals().is_empty());
}

/// Shows R9.
#[test]
fn a_backup_of_other_paths_and_a_restore_beside_say_that_one_waits() {
    if !can_run("a_backup_of_other_paths_and_a_restore_beside_say_that_one_waits", &["strace"]) {
        return;
    }
    let live = Live::new(application);
    change(&live.env);
    live.traced(&["-e", "trace=renameat2", "-e", "inject=renameat2:signal=KILL:when=3"], &[]).code(137);
    let before = live.all();
    live.env.write("other/x", "x");
    for arguments in [&["backup", "other", "-o", "o.tar.zst"][..], &["restore", "app.tar.zst", "--to", "beside"]] {
        let said = live.env.lifeboat(arguments).ok();
        assert!(said.stderr.contains("an interrupted restore waits"), "{arguments:?}: {}", said.stderr);
        assert_same(&before, &live.all(), "only said");
    }
    live.env.lifeboat(["recover"]).ok();
}
