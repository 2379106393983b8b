//! Every step of a restore fails in turn, is killed in turn, and so is every
//! step of its rollback: afterwards everything is wholly old or wholly new.

use std::collections::BTreeMap;
use std::path::Path;

use lifeboat_store::testing::{can_run, sweep, sweep_some};

use super::databases::without_kept;
use super::{Live, application, change};
use crate::env::Run;
use crate::faults::{calls, trace, traced};
use crate::fidelity::{Tree, assert_same};

pub(crate) mod databases;

/// What changes something, and what is called in between. Between two of these
/// nothing changes, so that every state is one before a call of this list.
const CALLS: [&str; 22] = [
    "renameat2",
    "renameat",
    "mkdir",
    "mkdirat",
    "unlink",
    "unlinkat",
    "rmdir",
    "linkat",
    "symlinkat",
    "fsync",
    "syncfs",
    "write",
    "pwrite64",
    "ftruncate",
    "utimensat",
    "fchmod",
    "fchown",
    "fchownat",
    "fsetxattr",
    "openat2",
    "wait4",
    // A message to a server, so that a process dies before each statement.
    "sendto",
];

/// What a scene has besides files, which is restored with them.
pub(crate) trait Beside {
    /// Back to the state before any restore.
    fn reset(&self);
    /// How many cases of an enumeration are played without `scripts/sweep`; `None`: as usual.
    fn share(&self) -> Option<usize> {
        None
    }
    /// Remembers the present state as the one after a restore.
    fn note_new(&mut self);
    /// It is in the state before, or after a restore, whatever is kept.
    fn assert_is(&self, is_new: bool, what: &str);
    /// Nothing of a restore is left.
    fn assert_nothing_left(&self, what: &str);
}

/// Nothing is beside.
impl Beside for () {
    fn reset(&self) {}
    fn note_new(&mut self) {}
    fn assert_is(&self, _: bool, _: &str) {}
    fn assert_nothing_left(&self, _: &str) {}
}

/// An application with a service and a health check, restored again and again
/// from the same state.
pub(crate) struct Scene {
    pub(crate) live: Live,
    pub(crate) mode: &'static str,
    /// `live` before a restore, and the application after it.
    old: Tree,
    new: Tree,
    beside: Box<dyn Beside>,
}

impl Scene {
    fn new(mode: &'static str) -> Self {
        let live = Live::with_options(&["--exclude", "*.log"], application);
        let env = &live.env;
        change(env);
        env.write("live/app/data/deep/kept.log", "left out");
        env.write("running", "");
        let running = env.path("running");
        env.write("lifeboat.yaml", configuration(&live.path("app"), &running));
        env.set_mode("lifeboat.yaml", 0o600);
        Self::of(live, mode)
    }

    /// The scene whose state before any restore is the present one.
    fn of(live: Live, mode: &'static str) -> Self {
        Self::with(live, mode, Box::new(()))
    }

    /// The same with what is beside.
    pub(crate) fn with(live: Live, mode: &'static str, beside: Box<dyn Beside>) -> Self {
        live.env.run("cp", ["-a", "live", "pristine"]).ok();
        let mut scene = Self { live, mode, old: Tree::new(), new: Tree::new(), beside };
        scene.reset();
        scene.old = scene.live.all();
        scene.command(&[]).ok();
        scene.new = without_kept(scene.live.app());
        scene.beside.note_new();
        scene
    }

    /// Back to the state before any restore.
    pub(crate) fn reset(&self) {
        self.beside.reset();
        let env = &self.live.env;
        for gone in [env.path("live"), env.data_dir()] {
            std::fs::remove_dir_all(gone).unwrap_or(());
        }
        env.run("cp", ["-a", "pristine", "live"]).ok();
        env.write("running", "");
    }

    pub(crate) fn arguments(&self) -> [&'static str; 5] {
        ["restore", "app.tar.zst", "--force", "--mode", self.mode]
    }

    /// The restore, with something put before it.
    fn command(&self, inject: &[&str]) -> Run {
        let env = &self.live.env;
        if inject.is_empty() { env.lifeboat(self.arguments()) } else { traced(env, inject, &self.arguments()) }
    }

    /// How often each call is made in an undisturbed run of `arguments`.
    pub(crate) fn count(&self, arguments: &[&str]) -> BTreeMap<String, usize> {
        traced(&self.live.env, &[], arguments).ok();
        let mut calls = calls(&trace(&self.live.env));
        calls.retain(|name, _| CALLS.contains(&name.as_str()));
        calls
    }

    /// As [`sweep`]; where a restore takes long, a hundredth.
    fn sweep(&self, name: &str, all: usize, at_least: usize) -> Vec<usize> {
        match self.beside.share() {
            None => sweep(name, all, at_least),
            Some(count) => sweep_some(name, all, count),
        }
    }

    fn is_waiting(&self) -> bool {
        self.live.env.lifeboat(["status"]).exit_code() == 1
    }

    /// After a restore that ended with `code`: wholly old or wholly new, at the
    /// latest when a crash was recovered from; and the service runs.
    fn assert_whole(&self, code: i32, what: &str) -> bool {
        let env = &self.live.env;
        let waits = self.is_waiting();
        assert!(!waits || code != 0 && code != 20, "{what}: ended with {code}, and something waits");
        if waits {
            env.lifeboat(["recover"]).ok();
            assert!(!self.is_waiting(), "{what}: recovered, and something waits");
        }
        assert!(env.path("running").exists(), "{what}: the service runs");
        let mut new = self.new.clone();
        let app = without_kept(self.live.app());
        Self::forget_lost_times(&mut new, &app, what);
        let is_new = app == new;
        assert!(!is_new || code != 20, "{what}: rolled back, and new");
        if is_new {
            // Nothing that is over stands in the way of another.
            env.lifeboat(["restore", "app.tar.zst", "--dry-run"]).ok();
            env.lifeboat(["restore", "--discard"]).exit_code();
            self.assert_nothing_left(what);
            let app = self.live.app();
            Self::forget_lost_times(&mut new, &app, what);
            assert_same(&new, &app, what);
            self.beside.assert_is(true, what);
            return true;
        }
        assert!(code != 0, "{what}: success, and not new");
        let mut now = self.live.all();
        if what.contains("utimensat") {
            // The time of the directory above could not be set, and it is no part of what is restored.
            for above in [&b""[..], b"app/data"] {
                now.get_mut(above).expect("the directory itself").mtime = self.old[above].mtime;
            }
        }
        assert_same(&self.old, &now, &format!("{what} (ended with {code})"));
        self.beside.assert_is(false, what);
        self.assert_nothing_left(what);
        false
    }

    /// Where no time could be set, the directories in which replaced databases
    /// were given names show that they were.
    fn forget_lost_times(expected: &mut Tree, app: &Tree, what: &str) {
        for dir in [&b""[..], b"data"].into_iter().filter(|_| what.contains("utimensat")) {
            if let (Some(expected), Some(app)) = (expected.get_mut(dir), app.get(dir)) {
                expected.mtime = app.mtime;
            }
        }
    }

    fn assert_nothing_left(&self, what: &str) {
        assert_eq!(self.live.journals(), Vec::<String>::new(), "{what}");
        assert_eq!(self.live.stages(), Vec::<String>::new(), "{what}");
        self.beside.assert_nothing_left(what);
    }
}

fn configuration(root: &Path, running: &Path) -> String {
    let (root, running) = (root.display(), running.display());
    format!(
        "apps:
  app:
    sources:
      app: {{ files: {{ root: {root} }} }}
    services:
      commands:
        web: {{ stop: [rm, -f, {running}], start: [touch, {running}], status: [test, -e, {running}] }}
    health: [{{ command: [test, -e, {running}], timeout: 2s, every: 100ms }}]
"
    )
}

/// Each call of `calls`, by name and number.
fn each(calls: &BTreeMap<String, usize>) -> Vec<(String, usize)> {
    calls.iter().flat_map(|(name, count)| (1..=*count).map(move |time| (name.clone(), time))).collect()
}

fn inject(name: &str, what: &str) -> [String; 4] {
    ["-e".to_owned(), format!("trace={name}"), "-e".to_owned(), format!("inject={name}:{what}")]
}

/// Plays a tenth of all points: `fault` at each call of the restore.
fn play(test: &str, mode: &'static str, fault: &str, from_then_on: bool) {
    if can_run(test, &["strace"]) {
        play_in(&Scene::new(mode), "", fault, from_then_on);
    }
}

pub(crate) fn play_in(scene: &Scene, of: &str, fault: &str, from_then_on: bool) {
    let mode = scene.mode;
    scene.reset();
    let points = each(&scene.count(&scene.arguments()));
    let (mut old, mut new) = (0, 0);
    let since = if from_then_on { " from then on" } else { "" };
    let name = format!("restore in place{of}, {mode}, {fault}{since}");
    for number in scene.sweep(&name, points.len(), if of.is_empty() { 25 } else { 15 }) {
        let (name, time) = &points[number];
        let when = if from_then_on { format!("{fault}:when={time}+") } else { format!("{fault}:when={time}") };
        scene.reset();
        let options = inject(name, &when);
        let code = scene.command(&options.each_ref().map(String::as_str)).exit_code();
        let is_new = scene.assert_whole(code, &format!("{mode}: {name} {when}"));
        if is_new { new += 1 } else { old += 1 }
    }
    assert!(old > 0, "{old} old, {new} new");
}

/// Shows R8.
#[test]
fn a_restore_killed_at_any_moment_is_wholly_old_or_wholly_new() {
    const TEST: &str = "a_restore_killed_at_any_moment_is_wholly_old_or_wholly_new";
    for mode in ["overwrite", "full"] {
        play(TEST, mode, "signal=KILL", false);
    }
}

/// Shows R8.
#[test]
fn a_restore_whose_every_call_fails_in_turn_is_wholly_old_or_wholly_new() {
    const TEST: &str = "a_restore_whose_every_call_fails_in_turn_is_wholly_old_or_wholly_new";
    for mode in ["overwrite", "full"] {
        play(TEST, mode, "error=EIO", false);
    }
}

/// What fails once fails from then on, so that the rollback fails too.
///
/// Shows R8.
#[test]
fn a_rollback_that_fails_too_keeps_both_copies_until_it_can_be_finished() {
    const TEST: &str = "a_rollback_that_fails_too_keeps_both_copies_until_it_can_be_finished";
    play(TEST, "overwrite", "error=EIO", true);
    if !can_run(TEST, &["strace"]) {
        return;
    }
    let scene = Scene::new("overwrite");
    scene.reset();
    let options = inject("renameat2", "error=EIO:when=4+");
    let said = scene.command(&options.each_ref().map(String::as_str)).code(21);
    assert!(said.stderr.contains("both copies are kept"), "{}", said.stderr);
    let journals = scene.live.journals();
    let id = journals.iter().find_map(|name| name.strip_suffix(".jsonl")).expect("its journal");
    assert!(said.stderr.contains(&format!("lifeboat restore --rollback {id}")), "{}", said.stderr);
    scene.live.env.lifeboat(["restore", "--rollback", id]).ok();
    assert_same(&scene.old, &scene.live.all(), "rolled back by hand");
    scene.assert_nothing_left("rolled back by hand");
}

/// Every undo runs twice: the recovery is killed at each of its calls in turn,
/// and the next one finishes it.
///
/// Shows R8, R9.
#[test]
fn a_recovery_killed_at_any_moment_is_finished_by_the_next() {
    const TEST: &str = "a_recovery_killed_at_any_moment_is_finished_by_the_next";
    if !can_run(TEST, &["strace"]) {
        return;
    }
    for (mode, swaps) in [("overwrite", 6), ("full", 3)] {
        kill_the_recovery(&Scene::new(mode), "", swaps);
    }
}

/// `swaps`: how many renames the restore makes until the last of the swap; all others are done.
pub(crate) fn kill_the_recovery(scene: &Scene, of: &str, swaps: usize) {
    let mode = scene.mode;
    let interrupt = || {
        scene.reset();
        let options = inject("renameat2", &format!("signal=KILL:when={swaps}"));
        assert_eq!(scene.command(&options.each_ref().map(String::as_str)).exit_code(), 137);
        assert!(scene.is_waiting());
    };
    interrupt();
    let points = each(&scene.count(&["recover"]));
    for number in scene.sweep(&format!("recovery of a restore in place{of}, {mode}, killed"), points.len(), 15) {
        let (name, time) = &points[number];
        interrupt();
        let options = inject(name, &format!("signal=KILL:when={time}"));
        traced(&scene.live.env, &options.each_ref().map(String::as_str), &["recover"]).exit_code();
        let is_new = scene.assert_whole(137, &format!("{mode}: recovery killed at {name} {time}"));
        assert!(!is_new, "{name} {time}");
    }
}

/// Shows R8.
#[test]
fn a_restore_stopped_by_a_signal_at_any_moment_is_wholly_old_or_wholly_new() {
    const TEST: &str = "a_restore_stopped_by_a_signal_at_any_moment_is_wholly_old_or_wholly_new";
    play(TEST, "overwrite", "signal=TERM", false);
}

/// The new state had started and was not healthy; its rollback is killed.
///
/// Shows R8, R9.
#[test]
fn a_rollback_of_a_state_that_had_started_is_never_left_half_done() {
    const TEST: &str = "a_rollback_of_a_state_that_had_started_is_never_left_half_done";
    if !can_run(TEST, &["strace"]) {
        return;
    }
    for mode in ["overwrite", "full"] {
        let scene = Scene::new(mode);
        let env = &scene.live.env;
        let sick = configuration(&scene.live.path("app"), &env.path("running"));
        let sick = sick.replace("command: [test, -e,", "command: [test, -d,").replace("timeout: 2s", "timeout: 200ms");
        kill_the_rollback(&scene, "", &sick);
    }
}

/// `sick`: the configuration with which the new state is not healthy.
pub(crate) fn kill_the_rollback(scene: &Scene, of: &str, sick: &str) {
    let (env, mode) = (&scene.live.env, scene.mode);
    env.write("lifeboat.yaml", sick);
    scene.reset();
    let old = scene.live.app();
    traced(env, &[], &scene.arguments()).code(20);
    let mut calls = calls(&trace(env));
    calls.retain(|name, _| CALLS.contains(&name.as_str()));
    let points = each(&calls);
    for number in scene.sweep(&format!("rollback of a started restore{of}, {mode}, killed"), points.len(), 20) {
        let (name, time) = &points[number];
        scene.reset();
        let options = inject(name, &format!("signal=KILL:when={time}"));
        scene.command(&options.each_ref().map(String::as_str)).exit_code();
        let what = format!("{mode}: killed at {name} {time}");
        if scene.is_waiting() && env.lifeboat(["recover"]).exit_code() == 21 {
            // It had started, and nobody had begun to take it back: that is for a person to say.
            assert_same(&scene.new, &without_kept(scene.live.app()), &what);
            scene.beside.assert_is(true, &what);
            env.lifeboat(["restore", "--rollback"]).ok();
        }
        assert!(!scene.is_waiting() && env.path("running").exists(), "{what}");
        assert_same(&old, &without_kept(scene.live.app()), &what);
        scene.beside.assert_is(false, &what);
    }
}
