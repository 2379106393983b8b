//! Runs and guards that are killed, at every moment: whatever is left, the
//! services go on.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::{GuardProgram, LONG, PART, SOON, Scene, eventually, spawn};
use crate::freeze::{recover, waiting};

/// Shows P5.
#[test]
fn a_run_killed_while_services_stand_still_has_them_thawed_within_two_seconds() {
    let scene = Scene::new();
    let _web = scene.start_web();
    let mut run = scene.run_in_another_process(LONG);
    eventually(LONG, "frozen", || scene.log() == "freeze stop ");
    run.kill().unwrap();
    run.wait().unwrap();
    eventually(SOON, "thawed", || scene.is_all_running());
    eventually(SOON, "the note gone", || scene.notes() == 0);
    assert_eq!(scene.log(), "freeze stop start thaw ");
}

/// The freeze command goes on for a while after the kill: it must not take
/// effect after the thaw.
///
/// Shows P5.
#[test]
fn a_run_killed_in_the_middle_of_a_freeze_command_has_the_service_thawed() {
    for seconds in ["0.3", "60"] {
        let scene = Scene::new();
        let _web = scene.start_web();
        scene.write(
            "freeze",
            &format!("echo freeze >> log; sleep {seconds}; kill -STOP $(cat pid); echo frozen >> log"),
        );
        let mut run = scene.run_in_another_process(LONG);
        eventually(LONG, "freezing", || scene.log() == "freeze ");
        run.kill().unwrap();
        run.wait().unwrap();
        eventually(SOON, "the note gone", || scene.notes() == 0);
        std::thread::sleep(Duration::from_millis(400));
        assert!(scene.is_all_running(), "{seconds}: {}", scene.log());
        assert!(!scene.log().contains("stop"), "the next one is not begun: {}", scene.log());
    }
}

/// Shows P5.
#[test]
fn a_run_killed_at_any_moment_leaves_nothing_still() {
    let cases = lifeboat_store::testing::sweep("a freezing run, killed", 120, 12);
    for case in cases {
        let scene = Scene::new();
        let _web = scene.start_web();
        let mut run = scene.run_in_another_process(Duration::from_millis(20));
        std::thread::sleep(Duration::from_millis(case as u64));
        run.kill().unwrap();
        run.wait().unwrap();
        // Killed between its note and its guard, it has paused nothing.
        let is_done =
            || scene.is_all_running() && waiting(&scene.data_dir()).unwrap().iter().all(|left| !left.is_running);
        eventually(SOON, &format!("all running, killed after {case} ms"), is_done);
        std::thread::sleep(Duration::from_millis(100));
        assert!(scene.is_all_running(), "killed after {case} ms: {}", scene.log());
        recover(&scene.data_dir()).unwrap();
        assert!(scene.is_all_running() && scene.notes() == 0);
    }
}

/// What a run calls from the name of its note on, by name and number; `trace`
/// tells of every thread of it.
fn points(trace: &str) -> Vec<(String, usize)> {
    let calls = trace.lines().filter_map(|line| {
        let (thread, call) = line.split_once(' ')?;
        call.trim_start().split_once('(').filter(|(name, _)| !name.contains(' ')).map(|(name, _)| (thread, name))
    });
    let calls: Vec<(&str, &str)> = calls.collect();
    let first = calls.iter().position(|(_, name)| *name == "linkat").expect("the note gets its name");
    let mut points = Vec::new();
    for (at, (thread, name)) in
        calls.iter().enumerate().skip(first).filter(|(_, (thread, _))| *thread == calls[first].0)
    {
        let count = |of: &str| calls[..=at].iter().filter(|call| **call == (of, *name)).count();
        // Where another thread has made as many, the kill would come before anything is paused.
        let is_first = calls[..first].iter().all(|(other, _)| other == thread || count(other) < count(thread));
        points.extend(is_first.then(|| ((*name).to_owned(), count(thread))));
    }
    points
}

/// Only the run is killed, not what it has started: a kill is meant for it.
///
/// Shows P5.
#[test]
fn a_run_killed_at_any_of_its_calls_leaves_nothing_still() {
    const TEST: &str = "a_run_killed_at_any_of_its_calls_leaves_nothing_still";
    if !lifeboat_store::testing::can_run(TEST, &["strace"]) {
        return;
    }
    let run = |scene: &Scene, options: &[&str]| {
        let own = std::env::current_exe().unwrap().display().to_string();
        let (part, trace) = (format!("{PART}=run {} 5", scene.dir.display()), scene.dir.join("trace"));
        // What it starts is let go when it becomes another program.
        let strace = ["-f", "-b", "execve", "-E", &part, "-o", trace.to_str().unwrap()];
        let test = [&own, "--exact", "freeze::tests::in_another_process"];
        let arguments = strace.iter().chain(options).chain(&test).map(|word| (*word).to_owned()).collect();
        spawn(&GuardProgram { program: "strace".into(), arguments }).wait().unwrap()
    };
    let scene = Scene::new();
    let _web = scene.start_web();
    assert!(run(&scene, &[]).success());
    let points = points(&std::fs::read_to_string(scene.dir.join("trace")).unwrap());
    let mut thawed = 0;
    for number in lifeboat_store::testing::sweep("a freezing run, killed at each call", points.len(), 20) {
        let (name, count) = &points[number];
        let what = format!("killed at {name} {count}");
        let inject = [format!("trace={name}"), format!("inject={name}:signal=KILL:when={count}")];
        std::fs::remove_file(scene.dir.join("log")).unwrap_or(());
        run(&scene, &["-e", &inject[0], "-e", &inject[1]]);
        let is_done =
            || scene.is_all_running() && waiting(&scene.data_dir()).unwrap().iter().all(|left| !left.is_running);
        eventually(SOON, &what, is_done);
        recover(&scene.data_dir()).unwrap();
        assert!(scene.is_all_running() && scene.notes() == 0, "{what}");
        thawed += usize::from(scene.log().contains("thaw"));
    }
    assert!(thawed > 0);
}

/// Ctrl-C goes to the whole group of the terminal.
///
/// Shows P5.
#[test]
fn signals_to_the_group_of_the_run_do_not_reach_the_guard() {
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let scene = Scene::new();
        let _web = scene.start_web();
        let mut run = scene.run_in_another_process(LONG);
        eventually(LONG, "frozen", || scene.log() == "freeze stop ");
        kill_process_group(Pid::from_child(&run), signal).unwrap();
        run.wait().unwrap();
        eventually(SOON, "thawed", || scene.is_all_running() && scene.notes() == 0);
    }
}

/// A guard that is killed is noticed at the thaw, which the run does itself.
#[test]
fn a_run_whose_guard_is_killed_thaws_by_itself() {
    let scene = Scene::new();
    let _web = scene.start_web();
    let mut run = scene.run_in_another_process(Duration::from_secs(1));
    eventually(LONG, "held", || scene.dir.join("held").exists());
    kill_process(scene.guard(run.id()).unwrap(), Signal::KILL).unwrap();
    assert!(run.wait().unwrap().success());
    assert!(scene.is_all_running());
    assert_eq!((scene.log().as_str(), scene.notes()), ("freeze stop start thaw ", 0));
}

/// Shows P5.
#[test]
fn after_a_restart_of_the_machine_recover_thaws_what_was_left() {
    let scene = Scene::new();
    let _web = scene.start_web();
    let mut run = scene.run_in_another_process(LONG);
    eventually(LONG, "frozen", || scene.log() == "freeze stop ");
    // As a restart does: the guard first, so that it cannot do its work.
    kill_process(scene.guard(run.id()).unwrap(), Signal::KILL).unwrap();
    run.kill().unwrap();
    run.wait().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(scene.is_web_stopped());
    let left = waiting(&scene.data_dir()).unwrap();
    assert!(left.len() == 1 && !left[0].is_running && left[0].id == "0123456789abcdef", "{left:?}");
    assert_eq!(recover(&scene.data_dir()).unwrap().len(), 1);
    assert!(scene.is_all_running());
    assert!(recover(&scene.data_dir()).unwrap().is_empty());
    assert_eq!(scene.log(), "freeze stop start thaw ");
}
