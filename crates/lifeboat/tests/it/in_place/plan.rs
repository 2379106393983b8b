//! The plan, the questions, the modes, and what is restored.

use std::os::unix::fs::MetadataExt as _;

use lifeboat_store::testing::can_run;
use rexpect::session::spawn_command;

use super::{Live, application, change};
use crate::env::TestEnv;
use crate::faults::trace;
use crate::fidelity::{assert_same, snapshot};

/// Shows R1.
#[test]
fn everything_comes_back_where_it_stood() {
    let live = Live::new(application);
    let (backed_up, whole) = (live.app(), live.all());
    std::fs::remove_dir_all(live.path("app")).unwrap();
    live.restore(&[]).ok();
    live.assert_app(&backed_up, "after a loss of everything");
    live.discard();
    change(&live.env);
    live.restore(&["--mode", "full"]).ok();
    live.assert_app(&backed_up, "after changes");
    live.discard();
    assert_eq!(live.all().len(), whole.len());
}

/// Shows R1.
#[test]
fn a_dry_run_shows_the_plan_and_writes_nothing_at_all() {
    let live = Live::new(application);
    change(&live.env);
    std::fs::remove_dir_all(live.env.data_dir()).unwrap();
    let before = snapshot(&live.env.path(""));
    let said = live.env.lifeboat(["restore", "app.tar.zst", "--mode", "full", "--dry-run"]).ok();
    let (lines, rest) = said.stdout.split_once("\nsource app").unwrap();
    assert_eq!(
        lines,
        "Dry run: 5 files would be restored from app.tar.zst

  overwrite  10 B  files/app/conf/app.conf
  same       6 B  files/app/conf/users
  new        4.9 KiB  files/app/data/deep/er/two
  same       1 B  files/app/data/one
  same       0 B  files/app/data/same
  overwrite  0 B  files/app/empty
  overwrite  0 B  files/app/link
  delete     9 B  files/app/data/deep/three
  delete     10 B  files/app/conf/extra.conf
"
    );
    assert!(rest.contains("entries: 2 new, 3 to overwrite, 3 the same already, 5 to delete"), "{rest}");
    assert!(rest.contains("Nothing was written."), "{rest}");
    assert_same(&before, &snapshot(&live.env.path("")), "a dry run");
    assert!(!live.env.data_dir().exists());
    let said = live.env.lifeboat(["restore", "app.tar.zst", "--dry-run", "--json"]).ok();
    let plan = said.json_lines().pop().unwrap();
    assert_eq!(plan["message_type"], "plan");
    for (key, value) in [("new", 2), ("overwrite", 3), ("same", 3), ("delete", 3), ("files", 5)] {
        assert_eq!(plan[key], value, "{key} in {plan}");
    }
    assert!(!live.env.data_dir().exists());
}

/// Shows R1.
#[test]
fn what_is_as_in_the_snapshot_is_not_touched() {
    let live = Live::new(application);
    let inode = |name: &str| live.path(name).symlink_metadata().unwrap().ino();
    let (conf, users) = (inode("app/conf/app.conf"), inode("app/conf/users"));
    live.env.write("live/app/conf/app.conf", "port = 82\n");
    live.restore(&[]).ok();
    assert_ne!(inode("app/conf/app.conf"), conf);
    assert_eq!(inode("app/conf/users"), users);
    live.discard();
    let before = live.all();
    let said = live.restore(&[]).ok();
    assert!(said.stdout.starts_with("Nothing to restore"), "{}", said.stdout);
    assert_same(&before, &live.all(), "nothing to restore");
}

/// Shows R2.
#[test]
fn without_a_terminal_it_refuses_what_somebody_has_to_agree_to() {
    let live = Live::new(application);
    change(&live.env);
    let before = live.all();
    let run = |options: &[&str]| live.env.lifeboat(["restore", "app.tar.zst"].iter().chain(options));
    let said = run(&["--allow-unauthenticated"]).code(22);
    assert!(said.stderr.contains("it would overwrite 3 existing entries"), "{}", said.stderr);
    // --force does not stand for trust in the archive.
    let said = run(&["--force"]).code(22);
    assert!(said.stderr.contains("--allow-unauthenticated"), "{}", said.stderr);
    assert_same(&before, &live.all(), "refused");
    assert!(live.journals().is_empty());
    // Where nothing exists, there is nothing to ask but whether the archive is trusted.
    std::fs::remove_dir_all(live.path("app")).unwrap();
    run(&[]).code(22);
    assert!(!live.path("app").exists());
    run(&["--allow-unauthenticated"]).ok();
}

/// Shows R2.
#[test]
fn a_person_at_a_terminal_is_asked_and_may_say_no() {
    let live = Live::new(application);
    change(&live.env);
    let before = live.all();
    for (answers, code) in [(&["n"][..], 22), (&["y", "n"], 22), (&["y", "yes"], 0)] {
        let command = live.env.command(["restore", "app.tar.zst"]).reads_terminal().into_command();
        let mut terminal = spawn_command(command, Some(20_000)).unwrap();
        for (question, answer) in ["Do you trust it?", "Go on?"].iter().zip(answers) {
            terminal.exp_string(question).unwrap();
            terminal.send_line(answer).unwrap();
        }
        terminal.exp_eof().unwrap();
        let status = terminal.process_mut().wait().unwrap();
        assert!(format!("{status:?}").contains(&format!(", {code})")), "{answers:?}: {status:?}");
        if code != 0 {
            assert_same(&before, &live.all(), "refused");
        }
    }
    assert!(live.path("app/data/deep/er/two").exists());
}

/// Shows R1.
#[test]
fn what_appears_after_the_plan_was_shown_is_not_overwritten() {
    let live = Live::new(application);
    change(&live.env);
    let command =
        live.env.command(["restore", "app.tar.zst", "--allow-unauthenticated"]).reads_terminal().into_command();
    let mut terminal = spawn_command(command, Some(20_000)).unwrap();
    terminal.exp_string("Go on?").unwrap();
    live.env.write("live/app/data/deep/er/two", "somebody else's");
    let before = live.all();
    terminal.send_line("y").unwrap();
    let said = terminal.exp_eof().unwrap();
    assert!(said.contains("E2000") && said.contains("was not there when the plan was made"), "{said}");
    assert_same(&before, &live.all(), "rolled back");
    assert!(live.journals().is_empty());
}

/// Shows R3.
#[test]
fn overwrite_leaves_other_files_alone_and_merge_leaves_existing_ones() {
    let live = Live::new(application);
    let backed_up = live.app();
    change(&live.env);
    let changed = live.app();
    let at = |path: &str| path.as_bytes().to_vec();
    let said = live.restore(&["--mode", "merge"]).ok();
    assert!(said.stdout.starts_with("Added 2 entries; everything that existed stays."), "{}", said.stdout);
    assert!(
        said.stderr.contains("3 existing entries differ from the snapshot: files/app/conf/app.conf"),
        "{}",
        said.stderr
    );
    let merged = live.app();
    for (path, node) in &changed {
        let now = merged.get(path).unwrap_or_else(|| panic!("{} is gone", String::from_utf8_lossy(path)));
        assert!(now == node || node.kind == "dir", "{} changed", String::from_utf8_lossy(path));
    }
    for added in ["data/deep/er/two", "spool"] {
        assert_eq!(merged.get(&at(added)), backed_up.get(&at(added)), "{added}");
    }
    assert_eq!(merged.len(), changed.len() + 2);
    live.discard();
    live.restore(&[]).ok();
    let mut expected = backed_up.clone();
    for kept in ["conf/extra.conf", "data/deep/three"] {
        expected.insert(at(kept), changed[&at(kept)].clone());
    }
    live.assert_app(&expected, "overwrite");
}

/// Shows R3.
#[test]
fn full_never_deletes_what_the_backup_left_out() {
    let make = |env: &TestEnv| {
        application(env);
        env.write("live/app/models/big", "left out");
        env.write("live/app/data/deep/x.log", "left out");
        env.write("live/app/gone/only/y.log", "left out");
    };
    let live = Live::with_options(&["--exclude", "models", "--exclude", "*.log"], make);
    let backed_up = live.app();
    change(&live.env);
    live.env.write("live/app/models/bigger", "left out too");
    live.env.write("live/app/new/dir/z.log", "left out");
    live.env.write("live/app/new/dir/goes", "not left out");
    // An archive of ours is never part of a backup, nor of what a restore takes away.
    live.env.run("cp", ["app.tar.zst", "live/app/older.tar.zst"]).ok();
    live.env.run("mkfifo", ["live/app/pipe"]).ok();
    let plan = live.env.lifeboat(["restore", "app.tar.zst", "--mode", "full", "--dry-run"]).ok().stdout;
    assert!(plan.contains("that the backup left out and that stay") && !plan.contains("older.tar.zst"), "{plan}");
    live.restore(&["--mode", "full"]).ok();
    let mut now = live.app();
    for added in ["models/bigger", "new", "new/dir", "new/dir/z.log", "older.tar.zst", "pipe"] {
        assert!(now.remove(added.as_bytes()).is_some(), "{added} stays");
    }
    now.get_mut(&b"models"[..]).unwrap().mtime = backed_up[&b"models"[..]].mtime;
    assert_same(&backed_up, &now, "full");
    // And back again, with all that was left out.
    live.env.lifeboat(["restore", "--undo", "--force"]).ok();
    for there in ["models/big", "models/bigger", "data/deep/x.log", "new/dir/z.log", "new/dir/goes", "conf/extra.conf"]
    {
        assert!(live.path("app").join(there).exists(), "{there}");
    }
}

/// Shows R3.
#[test]
fn only_a_part_is_restored_where_only_that_is_asked_for() {
    let live = Live::new(application);
    let backed_up = live.app();
    change(&live.env);
    let changed = live.app();
    live.restore(&["--only", "app/data/**", "--mode", "full"]).ok();
    let now = live.app();
    for (path, node) in &now {
        let name = String::from_utf8_lossy(path).into_owned();
        let expected = if name.starts_with("data/") { backed_up.get(path) } else { changed.get(path) };
        // Directories on the way keep what they are, but for the time that a change in them leaves.
        assert!(expected == Some(node) || name == "data", "{name}: {expected:?}");
    }
    assert!(!live.path("app/data/deep/three").exists() && live.path("app/conf/extra.conf").exists());
    // Another name of a file whose first name is not asked for.
    std::fs::remove_file(live.path("app/data/same")).unwrap();
    std::fs::remove_file(live.path("app/data/one")).unwrap();
    live.restore(&["--only", "app/data/same"]).ok();
    assert!(live.path("app/data/same").exists() && !live.path("app/data/one").exists());
    for (only, near) in [("nothing", "its sources are: app"), ("app/no/such", "backup list")] {
        let said = live.restore(&["--only", only]).code(2);
        assert!(said.stderr.contains(near), "{}", said.stderr);
    }
}

/// Shows R4.
#[test]
fn a_damaged_archive_ends_it_before_anything_live_is_touched() {
    let live = Live::new(application);
    change(&live.env);
    let before = live.all();
    let mut archive = live.env.read("app.tar.zst");
    let middle = archive.len() * 2 / 3;
    archive[middle] ^= 0x10;
    live.env.write("app.tar.zst", archive);
    let said = live.restore(&[]).code(13);
    assert!(
        said.stderr.contains("everything is as it was before") || said.stderr.contains("nothing was"),
        "{}",
        said.stderr
    );
    assert_same(&before, &live.all(), "a damaged archive");
    assert!(live.journals().is_empty());
}

/// Shows R10.
#[test]
fn the_number_of_syncs_does_not_depend_on_the_number_of_entries() {
    const TEST: &str = "the_number_of_syncs_does_not_depend_on_the_number_of_entries";
    if !can_run(TEST, &["strace"]) {
        return;
    }
    let syncs = |files: usize| {
        let write = |env: &TestEnv, text: &str| {
            for number in 0..files {
                env.write(format!("live/app/{}/{number}", number % 7), text);
            }
        };
        let live = Live::new(|env| write(env, "backed up"));
        write(&live.env, "changed");
        live.traced(&["-e", "trace=fsync,fdatasync,syncfs,sync,sync_file_range"], &[]).ok();
        let trace = trace(&live.env);
        trace.lines().filter(|line| line.contains("sync") && line.contains("= 0")).count()
    };
    let few = syncs(20);
    assert!(few >= 5, "{few}");
    assert_eq!(syncs(1000), few);
}
