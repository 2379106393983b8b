//! The same for an app of files, a database that is a source of its own, and
//! one among the files, which all change in one transaction. Its service
//! begins to write a log as soon as the new state is started.

use lifeboat_store::testing::{can_run, sweep};

use super::{CALLS, Scene, each, inject, kill_the_recovery, kill_the_rollback, play_in, without_kept};
use crate::env::TestEnv;
use crate::faults::{calls, trace, traced};
use crate::fidelity::assert_same;
use crate::in_place::databases::{AMONG_FILES, SOURCE, application, configure, files};

const OF: &str = " with databases";

fn can_play(test: &str) -> bool {
    can_run(test, &["strace", "python3"])
}

/// `lifeboat.yaml`: healthy when `test OPTION running` succeeds within `timeout`, which has to be long where it
/// should succeed: a traced check on a busy machine takes its time.
fn set_up(env: &TestEnv, option: &str, timeout: &str) -> String {
    set_up_with(env, "", option, timeout)
}

/// The same with further `sources`.
pub(crate) fn set_up_with(env: &TestEnv, sources: &str, option: &str, timeout: &str) -> String {
    let path = |path: &str| env.path(path).display().to_string();
    // The old state is left as it is, so that it can be compared.
    let start = format!(
        "#!/bin/sh\nset -e\ncd {}\nif grep -q 80 live/app/conf/app.conf; then\n  for db in {SOURCE} {AMONG_FILES}; do\n    \
         printf log > $db-wal\n    touch -d 2023-03-03 $db-wal\n  done\n  \
         touch -d 2023-03-03 live/app live/app/data\nfi\ntouch running\n",
        path("")
    );
    env.write("start", start);
    env.set_mode("start", 0o755);
    let (start, running) = (path("start"), path("running"));
    let more = format!(
        "    services:\n      commands:\n        web: {{ stop: [rm, -f, {running}], start: [{start}], status: [test, -e, {running}] }}\n    \
         health: [{{ command: [test, {option}, {running}], timeout: {timeout}, every: 100ms }}]\n"
    );
    configure(env, &(files(env, "") + sources), &[("main", SOURCE)], &more);
    String::from_utf8(env.read("lifeboat.yaml")).unwrap()
}

fn scene(mode: &'static str) -> Scene {
    let live = application("wal");
    set_up(&live.env, "-e", "5s");
    live.env.write("running", "");
    Scene::of(live, mode)
}

/// Shows P4, P6.
#[test]
fn an_app_with_databases_is_wholly_old_or_wholly_new_when_the_restore_is_killed() {
    if can_play("an_app_with_databases_is_wholly_old_or_wholly_new_when_the_restore_is_killed") {
        ["overwrite", "full"].into_iter().for_each(|mode| play_in(&scene(mode), OF, "signal=KILL", false));
    }
}

/// Shows P4, P6.
#[test]
fn an_app_with_databases_is_wholly_old_or_wholly_new_when_any_call_fails_or_the_restore_is_stopped() {
    const TEST: &str =
        "an_app_with_databases_is_wholly_old_or_wholly_new_when_any_call_fails_or_the_restore_is_stopped";
    if can_play(TEST) {
        play_in(&scene("overwrite"), OF, "error=EIO", false);
        play_in(&scene("full"), OF, "error=EIO", true);
        play_in(&scene("overwrite"), OF, "signal=TERM", false);
    }
}

/// Shows P4, P6.
#[test]
fn an_app_with_databases_is_recovered_though_the_recovery_is_killed() {
    const TEST: &str = "an_app_with_databases_is_recovered_though_the_recovery_is_killed";
    if !can_play(TEST) {
        return;
    }
    for mode in ["overwrite", "full"] {
        let scene = scene(mode);
        scene.reset();
        let renames = scene.count(&scene.arguments())["renameat2"];
        // Of all renames, the last give names to what was replaced: a database with two logs.
        kill_the_recovery(&scene, OF, renames - 3);
    }
}

/// Shows P4, P6.
#[test]
fn a_new_state_with_databases_that_had_started_is_never_left_half_taken_back() {
    if !can_play("a_new_state_with_databases_that_had_started_is_never_left_half_taken_back") {
        return;
    }
    for mode in ["overwrite", "full"] {
        let scene = scene(mode);
        let sick = set_up(&scene.live.env, "-d", "200ms");
        kill_the_rollback(&scene, OF, &sick);
    }
}

/// Shows P4, P6, R10.
#[test]
fn an_undo_or_a_discard_that_is_killed_is_finished_or_never_begun() {
    const TEST: &str = "an_undo_or_a_discard_that_is_killed_is_finished_or_never_begun";
    if !can_play(TEST) {
        return;
    }
    let scene = scene("overwrite");
    let env = &scene.live.env;
    scene.reset();
    let old = scene.live.app();
    for arguments in [&["restore", "--undo", "--force"][..], &["restore", "--discard"]] {
        let restored = || {
            scene.reset();
            scene.command(&[]).ok();
        };
        restored();
        traced(env, &[], arguments).ok();
        let mut calls = calls(&trace(env));
        calls.retain(|name, _| CALLS.contains(&name.as_str()));
        let points = each(&calls);
        let (mut olds, mut news) = (0, 0);
        for number in sweep(&format!("{} of a restore{OF}, killed", arguments[1]), points.len(), 15) {
            let (name, time) = &points[number];
            restored();
            let options = inject(name, &format!("signal=KILL:when={time}"));
            traced(env, &options.each_ref().map(String::as_str), arguments).exit_code();
            let what = format!("{arguments:?} killed at {name} {time}");
            if scene.is_waiting() {
                env.lifeboat(["recover"]).ok();
            }
            assert!(!scene.is_waiting() && env.path("running").exists(), "{what}");
            let (app, mut new) = (without_kept(scene.live.app()), scene.new.clone());
            Scene::forget_lost_times(&mut new, &app, &what);
            let is_new = app == new;
            if is_new {
                news += 1;
            } else {
                olds += 1;
            }
            env.lifeboat(["restore", "--discard"]).exit_code();
            scene.assert_nothing_left(&what);
            let (app, mut expected) = (scene.live.app(), if is_new { new } else { old.clone() });
            Scene::forget_lost_times(&mut expected, &app, &what);
            assert_same(&expected, &app, &what);
        }
        let is_undo = arguments[1] == "--undo";
        assert!(news > 0 && (olds > 0) == is_undo, "{arguments:?}: {olds} old, {news} new");
    }
}
