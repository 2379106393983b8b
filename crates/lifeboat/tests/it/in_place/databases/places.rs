//! Where databases stand: together, nowhere yet, on other file systems, on
//! such that cannot exchange, and in directories of others.

use std::path::Path;

use lifeboat_store::testing::can_run;

use super::{AMONG_FILES, SOURCE, application, configure, files, rows, without_kept, write};
use crate::env::TestEnv;
use crate::fidelity::{Mount, Tree, assert_same, snapshot};
use crate::in_place::{Live, can_mount};

const TMPFS: &[&str] = &["-t", "tmpfs", "tmpfs"];

/// Two databases in one directory below the root of the files, and one elsewhere.
fn several() -> Live {
    let env = TestEnv::new();
    env.write("live/app/conf/app.conf", "port = 80\n");
    let databases =
        [("one", "live/app/data/deep/one.db"), ("two", "live/app/data/deep/two.db"), ("three", "live/other/three.db")];
    for (_, path) in databases {
        env.mkdir(Path::new(path).parent().unwrap());
        write(&env, path, "wal", 10, false);
    }
    env.set_mode("live/app/data", 0o750);
    env.run("touch", ["-d", "2021-02-03", "live/app/data/deep", "live/app/data", "live/app"]).ok();
    configure(&env, &files(&env, ""), &databases, "");
    env.lifeboat(["backup", "app", "-o", "app.tar.zst"]).ok();
    for (_, path) in databases {
        write(&env, path, "wal", 20, true);
    }
    env.write("live/app/conf/app.conf", "port = 81\n");
    Live { env }
}

/// The directories that roots stand in are no part of what is restored.
fn as_far_as_restored(mut now: Tree, before: &Tree) -> Tree {
    for name in [&b""[..], b"other"] {
        if let (Some(now), Some(before)) = (now.get_mut(name), before.get(name)) {
            now.mtime = before.mtime;
        }
    }
    now
}

/// Shows P4, P6.
#[test]
fn databases_come_back_into_directories_that_are_missing() {
    if !can_run("databases_come_back_into_directories_that_are_missing", &["python3", "strace"]) {
        return;
    }
    for (gone, places) in [
        ("live/none", 4),
        ("live/app/data/deep", 3),
        ("live/app/data", 3),
        ("live/app", 2),
        ("live/other", 4),
        ("live", 2),
    ] {
        for mode in ["overwrite", "full", "merge"] {
            let what = format!("{gone}, {mode}");
            if (gone, mode) == ("live/none", "merge") {
                continue;
            }
            let live = several();
            live.env.mkdir("live/none");
            std::fs::remove_dir_all(live.env.path(gone)).unwrap();
            if gone != "live" {
                let before = live.all();
                let fail = format!("inject=syncfs:error=EIO:when={}", places + 1);
                live.traced(&["-e", "trace=syncfs", "-e", &fail], &["--mode", mode]).code(20);
                assert_same(&before, &live.all(), &format!("{what}: rolled back"));
                live.restore(&["--mode", mode]).ok();
                live.lifeboat(&["restore", "--undo", "--force"]).ok();
                live.lifeboat(&["restore", "--discard"]).ok();
                assert_same(&before, &as_far_as_restored(live.all(), &before), &format!("{what}: undone"));
            }
            live.restore(&["--mode", mode]).ok();
            let app = live.env.read("live/app/conf/app.conf");
            let is_there = mode == "merge" && !["live", "live/app"].contains(&gone);
            assert_eq!(app, if is_there { b"port = 81\n" } else { b"port = 80\n" }, "{what}");
            for path in ["live/app/data/deep/one.db", "live/app/data/deep/two.db", "live/other/three.db"] {
                let stays = mode == "merge" && !Path::new(path).starts_with(gone);
                assert_eq!(rows(&live.env, path), if stays { 30 } else { 10 }, "{what}: {path}");
            }
            if gone.starts_with("live/app/data") || gone == "live/app" || gone == "live" {
                let app = without_kept(live.app());
                live.lifeboat(&["restore", "app.tar.zst", "--to", "beside"]).ok();
                let beside = snapshot(&live.env.path("beside/files/files"));
                assert_eq!(app[&b"data/deep"[..]].mtime, beside[&b"data/deep"[..]].mtime, "{what}");
                assert!(mode == "merge" || app[&b"data"[..]].mode == 0o750, "{what}");
            }
        }
    }
}

/// Shows P4.
#[test]
fn two_databases_in_one_directory_and_one_elsewhere_are_one_transaction() {
    if !can_run("two_databases_in_one_directory_and_one_elsewhere_are_one_transaction", &["python3", "strace"]) {
        return;
    }
    let live = several();
    let before = live.all();
    for mode in ["overwrite", "full"] {
        live.assert_rolls_back(mode, 4);
        live.restore(&["--mode", mode]).ok();
        for path in ["live/app/data/deep/one.db", "live/app/data/deep/two.db", "live/other/three.db"] {
            assert_eq!(rows(&live.env, path), 10, "{mode}: {path}");
        }
        live.lifeboat(&["restore", "--undo", "--force"]).ok();
        live.lifeboat(&["restore", "--discard"]).ok();
        assert_same(&before, &as_far_as_restored(live.all(), &before), &format!("{mode}: undone"));
    }
}

/// Shows P4, R5.
#[test]
fn databases_are_restored_where_nothing_can_be_exchanged() {
    if !can_run("databases_are_restored_where_nothing_can_be_exchanged", &["python3", "strace"]) {
        return;
    }
    let refused = ["-e", "trace=rename,renameat,renameat2,syncfs", "-e", "inject=renameat2:error=EINVAL"];
    for mode in ["overwrite", "full"] {
        let live = application("wal");
        let (before, app) = (live.all(), live.app());
        let fail = ["-e", "inject=syncfs:error=EIO:when=3"];
        live.traced(&[&refused[..], &fail].concat(), &["--mode", mode]).code(20);
        assert_same(&before, &live.all(), "rolled back");
        live.traced(&refused, &["--mode", mode]).ok();
        live.assert_restored(mode);
        assert!(!live.bad("live/app/data").is_empty());
        let restored = live.app();
        for expected in [&app, &restored, &app] {
            let undo = [env!("CARGO_BIN_EXE_lifeboat"), "restore", "--undo", "--force"];
            live.env.run("strace", ["-f", "-o", "trace"].iter().chain(&refused).chain(&undo)).ok();
            assert_same(&without_kept(expected.clone()), &without_kept(live.app()), &format!("{mode}: undone"));
        }
        live.discard();
        assert_same(&app, &live.app(), mode);
    }
}

/// Shows P4, R5.
#[test]
fn databases_on_other_file_systems_and_on_an_overlay_are_restored() {
    if !can_mount("databases_on_other_file_systems_and_on_an_overlay_are_restored", &["mount", "strace", "python3"]) {
        return;
    }
    let live = application("wal");
    live.env.run("mv", ["live/app/data", "aside"]).ok();
    let other = Mount::new(&live.env, "live/app/data", TMPFS);
    live.env.run("cp", ["-a", "aside/.", "live/app/data"]).ok();
    let before = live.app();
    for mode in ["overwrite", "full"] {
        live.assert_rolls_back(mode, 3);
        live.restore(&["--mode", mode]).ok();
        live.assert_restored(mode);
        live.lifeboat(&["restore", "--undo", "--force"]).ok();
        live.discard();
        assert_same(&before, &live.app(), mode);
    }
    drop(other);
    let live = application("wal");
    let before = live.app();
    let _layers = [Mount::new(&live.env, "layers", TMPFS)];
    live.env.run("cp", ["-a", "live", "layers/lower"]).ok();
    let layers = ["lower", "upper", "work"].map(|name| live.env.mkdir(format!("layers/{name}")).display().to_string());
    let options = format!("lowerdir={},upperdir={},workdir={}", layers[0], layers[1], layers[2]);
    let _overlay = Mount::new(&live.env, "live", &["-t", "overlay", "-o", &options, "overlay"]);
    for mode in ["overwrite", "full"] {
        live.assert_rolls_back(mode, 2);
        live.restore(&["--mode", mode]).ok();
        live.assert_restored(mode);
        live.lifeboat(&["restore", "--undo", "--force"]).ok();
        live.discard();
        assert_same(&before, &live.app(), &format!("overlay, {mode}"));
    }
}

/// Shows P4.
#[test]
fn an_ordinary_user_restores_a_database() {
    if !can_run("an_ordinary_user_restores_a_database", &["python3"]) {
        return;
    }
    let live = application("wal");
    if lifeboat_store::testing::is_root() {
        live.env.run("chown", ["-R", "65534:65534", "live", "lifeboat.yaml", "app.tar.zst"]).ok();
    }
    live.env.mkdir("data-of-nobody");
    live.env.set_mode("data-of-nobody", 0o777);
    let before = live.app();
    let run = |args: &[&str]| {
        let data_dir = live.env.path("data-of-nobody/data");
        live.env.command_as_nobody(args).env("LIFEBOAT_DATA_DIR", data_dir).run()
    };
    run(&["restore", "app.tar.zst", "--force"]).ok();
    live.assert_restored("as an ordinary user");
    run(&["restore", "--undo", "--force"]).ok();
    assert_same(&before, &without_kept(live.app()), "undone");
    run(&["restore", "--discard"]).ok();
    assert_same(&before, &live.app(), "discarded");
}

/// A database that is a source by now, where the snapshot has a file of its own.
///
/// Shows P4.
#[test]
fn a_database_wins_over_what_the_files_hold_in_its_place() {
    if !can_run("a_database_wins_over_what_the_files_hold_in_its_place", &["python3"]) {
        return;
    }
    let env = TestEnv::new();
    env.mkdir("live/app");
    env.mkdir("elsewhere");
    write(&env, "elsewhere/main.db", "wal", 10, false);
    write(&env, AMONG_FILES, "wal", 5, false);
    configure(&env, &files(&env, ""), &[("main", "elsewhere/main.db")], "");
    env.lifeboat(["backup", "app", "-o", "app.tar.zst"]).ok();
    configure(&env, &files(&env, ""), &[("main", AMONG_FILES)], "");
    let live = Live { env };
    live.restore(&["--mode", "full"]).ok();
    assert_eq!(rows(&live.env, AMONG_FILES), 10);
    assert_ne!(SOURCE, AMONG_FILES);
}
