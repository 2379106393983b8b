//! What a restore replaced: kept, listed, put back, removed. And what waits
//! after a crash: who only says so, who ends it, and how.

use std::time::Duration;

use lifeboat_store::testing::can_run;
use serde_json::Value;

use super::services::Served;
use super::{Live, application, change};
use crate::env::TestEnv;
use crate::faults::{calls, trace};
use crate::fidelity::{Node, Tree, assert_same, snapshot};

/// What `status --json` says.
fn status(env: &TestEnv, code: i32) -> Value {
    env.lifeboat(["status", "--json"]).code(code).json_lines().pop().unwrap()
}

/// The ids of what is kept, oldest first.
fn kept(env: &TestEnv) -> Vec<String> {
    let status = status(env, 0);
    status["kept"].as_array().unwrap().iter().map(|kept| kept["id"].as_str().unwrap().to_owned()).collect()
}

fn changed() -> Live {
    let live = Live::new(application);
    change(&live.env);
    live
}

/// Writes `lifeboat.yaml` with `more` below the app.
fn configure(live: &Live, more: &str) {
    let root = live.path("app");
    let text = format!("apps:\n  app:\n    sources: {{ app: {{ files: {{ root: {} }} }} }}\n{more}", root.display());
    live.env.write("lifeboat.yaml", text);
    live.env.set_mode("lifeboat.yaml", 0o600);
}

/// Journals with their content.
fn journals(live: &Live) -> Tree {
    snapshot(&live.env.data_dir().join("journal"))
}

/// Shows R10.
#[test]
fn what_was_replaced_is_kept_and_listed() {
    let live = changed();
    assert_eq!(live.env.lifeboat(["status"]).ok().stdout, "Nothing waits, and nothing is kept.\n");
    let said = live.restore(&[]).ok().stdout;
    let ids = kept(&live.env);
    assert_eq!(ids.len(), 1);
    let id = &ids[0];
    assert!(said.contains(&format!("lifeboat restore --undo {}", &id[..8])), "{said}");
    let status = status(&live.env, 0);
    assert_eq!(status["waiting"], serde_json::json!([]));
    let kept = &status["kept"][0];
    assert_eq!((&kept["app"], &kept["is_new_state"]), (&Value::from("app"), &Value::from(false)));
    assert_eq!(kept["roots"], serde_json::json!([live.path("app")]));
    // conf/app.conf, the directory `empty` with all in it, and the file `link`.
    assert_eq!(kept["bytes"], 26, "{kept}");
    let time = |key: &str| kept[key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!(time("until").duration_since(time("since")).as_hours(), 7 * 24);
    let folder = live.path(&live.stages()[0]);
    assert_eq!(kept["folders"], serde_json::json!([folder]));
    let text = live.env.lifeboat(["status"]).ok().stdout;
    let (roots, folder) = (live.path("app"), folder.display());
    assert!(
        text.starts_with("replaced: ") && text.contains(&format!("of {} (26 B), kept until ", roots.display())),
        "{text}"
    );
    assert!(text.contains(&format!(", restore {}\n  in {folder}\n", &id[..8])), "{text}");
}

/// Shows R10.
#[test]
fn how_long_it_is_kept_can_be_said() {
    let live = changed();
    let said = live.restore(&["--keep-replaced", "0s"]).ok().stdout;
    assert!(said.contains("what was replaced is gone"), "{said}");
    assert!(live.stages().is_empty() && live.journals().is_empty());
    live.env.write("live/app/conf/app.conf", "port = 82\n");
    configure(&live, "    keep_replaced: forever\n");
    live.restore(&[]).ok();
    assert_eq!(status(&live.env, 0)["kept"][0]["until"], Value::Null);
    assert!(live.env.lifeboat(["status"]).ok().stdout.contains("kept for ever"));
    live.discard();
    live.env.write("live/app/conf/app.conf", "port = 83\n");
    live.restore(&["--keep-replaced", "12h"]).ok();
    assert_ne!(status(&live.env, 0)["kept"][0]["until"], Value::Null);
    live.env.lifeboat(["restore", "--keep"]).ok();
    assert_eq!(status(&live.env, 0)["kept"][0]["until"], Value::Null);
}

/// Shows R10.
#[test]
fn one_of_several_is_named_by_the_beginning_of_its_id() {
    let live = changed();
    for number in 0..3 {
        live.env.write("live/app/conf/app.conf", format!("number {number}\n"));
        live.restore(&[]).ok();
    }
    let ids = kept(&live.env);
    assert_eq!(ids.len(), 3);
    let before = live.all();
    for decision in ["--undo", "--keep", "--discard"] {
        let said = live.env.lifeboat(["restore", decision]).code(2).stderr;
        assert!(ids.iter().all(|id| said.contains(&id[..8])), "{decision}: {said}");
        let said = live.env.lifeboat(["restore", decision, "nosuch"]).code(2).stderr;
        assert!(said.contains("no restore nosuch"), "{decision}: {said}");
    }
    assert_same(&before, &live.all(), "nobody was meant");
    live.env.lifeboat(["restore", "--keep", &ids[0][..6]]).ok();
    let untils: Vec<bool> =
        status(&live.env, 0)["kept"].as_array().unwrap().iter().map(|k| k["until"].is_null()).collect();
    assert_eq!(untils, [true, false, false]);
    live.env.lifeboat(["restore", "--discard", &ids[1][..6]]).ok();
    assert_eq!(kept(&live.env), [ids[0].clone(), ids[2].clone()]);
    live.env.lifeboat(["restore", "--undo", &ids[2][..6], "--force"]).ok();
    assert_eq!(live.env.read("live/app/conf/app.conf"), b"number 2\n");
}

/// Shows R10.
#[test]
fn undo_puts_it_back_and_can_itself_be_undone() {
    for mode in ["overwrite", "full"] {
        let live = Live::with_options(&["--exclude", "*.log"], |env| {
            application(env);
            env.write("live/app/data/deep/kept.log", "left out");
        });
        change(&live.env);
        live.env.write("live/app/data/deep/other.log", "left out too");
        let (old, entries) = (live.app(), live.all().len());
        live.restore(&["--mode", mode]).ok();
        let new = live.app();
        assert!(new != old && new.contains_key(&b"data/deep/other.log"[..]), "{mode}");
        let said = live.env.lifeboat(["restore", "--undo"]).code(22).stderr;
        assert!(said.contains("it would put back") && live.app() == new, "{said}");
        live.env.lifeboat(["restore", "--undo", "--force"]).ok();
        live.assert_app(&old, &format!("{mode}, undone"));
        assert_eq!(kept(&live.env).len(), 1, "{mode}");
        live.env.lifeboat(["restore", "--undo", "--force"]).ok();
        live.assert_app(&new, &format!("{mode}, undone twice"));
        live.env.lifeboat(["restore", "--undo", "--force"]).ok();
        live.assert_app(&old, &format!("{mode}, undone three times"));
        live.discard();
        assert_eq!(live.all().len(), entries, "{mode}");
    }
}

/// What an application does to what was restored.
fn go_on(env: &TestEnv) {
    env.write("live/app/conf/app.conf.new", "port = 99\n");
    env.run("mv", ["live/app/conf/app.conf.new", "live/app/conf/app.conf"]).ok();
    std::fs::remove_file(env.path("live/app/data/deep/er/two")).unwrap();
    std::fs::remove_file(env.path("live/app/link")).unwrap();
    env.write("live/app/spool/job", "to do");
    env.write("live/app/data/deep/er/four", "new");
}

fn change_again(env: &TestEnv) {
    for path in ["live/app/conf/app.conf", "live/app/conf/users", "live/app/data/deep/er/two"] {
        env.write(path, "changed again");
    }
}

/// Shows R10.
#[test]
fn undo_works_also_after_the_application_has_gone_on() {
    for mode in ["overwrite", "full"] {
        let live = changed();
        let old = live.app();
        live.restore(&["--mode", mode]).ok();
        go_on(&live.env);
        let gone_on = live.app();
        live.env.lifeboat(["restore", "--undo", "--force"]).ok();
        let now = live.app();
        for (path, node) in &old {
            let name = String::from_utf8_lossy(path);
            let got = now.get(path).unwrap_or_else(|| panic!("{mode}: {name} is missing"));
            // A directory keeps what was added to it, and so its time.
            let is_same =
                (node.kind, node.mode, &node.content, &node.target) == (got.kind, got.mode, &got.content, &got.target);
            assert!(is_same && (node.kind == "dir" || node.mtime == got.mtime), "{mode}: {name} is {got:?}");
        }
        live.env.lifeboat(["restore", "--undo", "--force"]).ok();
        live.assert_app(&gone_on, &format!("{mode}, undone twice"));
    }
}

/// Shows R10, R7.
#[test]
fn an_undo_whose_health_check_fails_is_rolled_back_and_what_is_kept_stays_kept() {
    let served = Served::new("", "    health: [ { command: [test, -e, DIR/healthy], timeout: 2s, every: 50ms } ]\n");
    let live = &served.live;
    live.env.write("healthy", "");
    served.restore().ok();
    let (ids, before, journals_before) = (kept(&live.env), live.app(), live.journals());
    std::fs::remove_file(live.env.path("healthy")).unwrap();
    let said = live.env.lifeboat(["restore", "--undo", "--force"]).code(20).stderr;
    assert!(said.contains("health check test -e "), "{said}");
    live.assert_app(&before, "the undo was rolled back");
    assert_eq!((kept(&live.env), live.journals()), (ids, journals_before));
    live.env.write("healthy", "");
    live.env.lifeboat(["restore", "--undo", "--force"]).ok();
    assert_same_app(&served, "undone");
}

/// The application in a tree of all that is in `live`.
fn app_in(all: &Tree) -> Tree {
    let strip = |path: &[u8]| path.strip_prefix(b"app/").unwrap_or_default().to_vec();
    let below = |(path, node): (&Vec<u8>, &Node)| {
        let node = Node { first_name: strip(&node.first_name), ..node.clone() };
        (path == b"app" || path.starts_with(b"app/")).then(|| (strip(path), node))
    };
    all.iter().filter_map(below).collect()
}

/// The application is as before the restore.
fn assert_same_app(served: &Served, what: &str) {
    served.live.assert_app(&app_in(&served.before), what);
}

/// Shows R9, R10.
#[test]
fn an_undo_that_is_killed_is_rolled_back_and_what_is_kept_stays_kept() {
    if !can_run("an_undo_that_is_killed_is_rolled_back_and_what_is_kept_stays_kept", &["strace"]) {
        return;
    }
    for mode in ["overwrite", "full"] {
        let live = changed();
        let old = live.app();
        live.restore(&["--mode", mode]).ok();
        let (ids, before) = (kept(&live.env), live.app());
        let undo = |inject: &[&str]| {
            let strace = ["-f", "-o", "trace", "-e", "trace=renameat2"];
            let undo = [env!("CARGO_BIN_EXE_lifeboat"), "restore", "--undo", "--force"];
            live.env.run("strace", strace.iter().chain(inject).chain(&undo))
        };
        let mut time = 1;
        // Once for each rename, until none is left.
        while undo(&["-e", &format!("inject=renameat2:signal=KILL:when={time}")]).exit_code() == 137 {
            status(&live.env, 1);
            live.env.lifeboat(["recover"]).ok();
            live.assert_app(&before, &format!("{mode}: killed at rename {time}"));
            assert_eq!(kept(&live.env), ids, "{mode}: killed at rename {time}");
            time += 1;
        }
        assert!(time > 2, "{mode}: {time}");
        live.assert_app(&old, mode);
    }
}

/// Shows R10.
#[test]
fn what_is_due_is_removed_by_the_next_run_of_that_app_and_by_nothing_else() {
    let served = Served::new("", "    health: [ { command: [test, -e, DIR/healthy], timeout: 2s, every: 50ms } ]\n");
    let live = &served.live;
    live.env.write("other/file", "of another app");
    for run in ["backup", "restore"] {
        live.env.write("healthy", "");
        live.env.write("live/app/conf/app.conf", format!("before {run}\n"));
        live.env.lifeboat(["restore", "app.tar.zst", "--force", "--keep-replaced", "1s"]).ok();
        std::thread::sleep(Duration::from_millis(1100));
        let before = live.all();
        for args in [
            &["status"][..],
            &["restore", "app.tar.zst", "--dry-run"],
            &["backup", "live/app", "--dry-run"],
            &["backup", "other", "-o", "other.tar.zst"],
            &["backup", "list", "app.tar.zst"],
            &["recover"],
        ] {
            live.env.lifeboat(args).ok();
            assert_eq!(kept(&live.env).len(), 1, "{args:?}");
        }
        let now = |archive: &str| match run {
            "backup" => live.env.lifeboat(["backup", "live/app", "-o", archive]).ok(),
            _ => served.restore().ok(),
        };
        // As long as the new state does not do well, the old one may be needed.
        std::fs::remove_file(live.env.path("healthy")).unwrap();
        now("one.tar.zst");
        assert_eq!(kept(&live.env).len(), 1, "{run}, not healthy");
        assert_same(&before, &live.all(), run);
        live.env.write("healthy", "");
        now("two.tar.zst");
        assert_eq!(kept(&live.env), Vec::<String>::new(), "{run}");
        assert!(live.stages().is_empty(), "{run}");
        std::fs::remove_file(live.env.path("other.tar.zst")).unwrap();
    }
}

/// A restore that was killed in the middle of its swap.
fn interrupted() -> (Live, Tree) {
    let live = changed();
    let before = live.all();
    live.traced(&["-e", "trace=renameat2", "-e", "inject=renameat2:signal=KILL:when=5"], &[]).code(137);
    assert!(live.app() != app_in(&before), "something was swapped");
    (live, before)
}

/// Shows R9.
#[test]
fn after_a_crash_those_who_only_look_say_so_and_change_nothing() {
    if !can_run("after_a_crash_those_who_only_look_say_so_and_change_nothing", &["strace"]) {
        return;
    }
    let (live, _) = interrupted();
    let waiting = status(&live.env, 1)["waiting"][0].clone();
    assert_eq!((&waiting["phase"], &waiting["is_running"]), (&Value::from("swapping"), &Value::from(false)));
    let line = format!("an interrupted restore waits: {} of ", &waiting["id"].as_str().unwrap()[..8]);
    let said = live.env.lifeboat(["status"]).code(1).stdout;
    assert!(said.starts_with(&line) && said.contains("Next: lifeboat recover\n"), "{said}");
    let (before, journals_before) = (live.all(), journals(&live));
    for args in [
        &["backup", "list", "app.tar.zst"][..],
        &["backup", "verify", "app.tar.zst"],
        &["restore", "app.tar.zst", "--to", "elsewhere", "--dry-run"],
        &["backup", "live/app", "--dry-run"],
        // A plan made of what is half swapped would mislead.
        &["restore", "app.tar.zst", "--dry-run"],
    ] {
        let code = if args == ["restore", "app.tar.zst", "--dry-run"] { 11 } else { 0 };
        let said = live.env.lifeboat(args).code(code).stderr;
        assert!(said.contains(&line), "{args:?}: {said}");
        assert_same(&before, &live.all(), &args.join(" "));
        assert_same(&journals_before, &journals(&live), &args.join(" "));
    }
}

/// Shows R9.
#[test]
fn after_a_crash_the_next_run_rolls_back_first_and_says_so() {
    if !can_run("after_a_crash_the_next_run_rolls_back_first_and_says_so", &["strace"]) {
        return;
    }
    for args in [
        &["recover"][..],
        &["backup", "live/app", "-o", "now.tar.zst"],
        // Not agreed to: it only rolls back.
        &["restore", "app.tar.zst", "--allow-unauthenticated"],
    ] {
        let (live, before) = interrupted();
        let code = if args[0] == "restore" { 22 } else { 0 };
        let said = live.env.lifeboat(args).code(code).stdout;
        assert!(said.contains(" was rolled back: all is as before it."), "{args:?}: {said}");
        assert_same(&before, &live.all(), &args.join(" "));
        assert!(live.journals().is_empty());
        if args[0] == "backup" {
            live.env.lifeboat(["restore", "now.tar.zst", "--to", "out"]).ok();
            assert_eq!(live.env.read("out/files/app/conf/app.conf"), b"port = 81\n");
        }
        let said = live.env.lifeboat(["recover"]).ok().stdout;
        assert!(said.starts_with("Nothing waits"), "{said}");
    }
}

/// A restore that was killed when its new state had started: by its own
/// health check, which goes by the file `healthy` from then on.
fn killed_when_started() -> Served {
    killed_when_started_in("overwrite")
}

fn killed_when_started_in(mode: &str) -> Served {
    let check = "if test -e DIR/killed; then test -e DIR/healthy; else touch DIR/killed; kill -9 $PPID; fi";
    let health = format!("    health: [ {{ command: [sh, -c, \"{check}\"], timeout: 2s, every: 50ms }} ]\n");
    let mut served = Served::new("", &health);
    // Left out of the backup: it stays in every mode.
    served.live.env.run("mkfifo", ["live/app/data/pipe"]).ok();
    served.before = served.live.all();
    served.live.env.lifeboat(["restore", "app.tar.zst", "--force", "--mode", mode]).code(137);
    assert_eq!(status(&served.live.env, 1)["waiting"][0]["phase"], "started");
    // What the new state writes.
    served.live.env.write("live/app/data/deep/er/two", "alice and bob\n");
    served
}

/// Shows R9.
#[test]
fn a_new_state_that_has_run_and_is_healthy_stands() {
    for decision in ["recover", "--resume", "--commit"] {
        let served = killed_when_started();
        let live = &served.live;
        let new = live.app();
        if decision != "--commit" {
            live.env.write("healthy", "");
        }
        let said = match decision {
            "recover" => live.env.lifeboat(["recover"]).ok(),
            _ => live.env.lifeboat(["restore", decision, &served.id()[..7]]).ok(),
        };
        assert!(said.stdout.contains("stands now"), "{decision}: {}", said.stdout);
        live.assert_app(&new, decision);
        let kept = status(&live.env, 0)["kept"].clone();
        assert_eq!((kept.as_array().unwrap().len(), &kept[0]["is_new_state"]), (1, &Value::from(false)), "{decision}");
        live.env.write("healthy", "");
        live.env.lifeboat(["restore", "--undo", "--force"]).ok();
        assert_eq!(live.env.read("live/app/conf/app.conf"), b"port = 81\n", "{decision}");
    }
}

/// Shows R9.
#[test]
fn a_new_state_that_has_run_and_is_not_healthy_is_left_to_a_person() {
    let served = killed_when_started();
    let live = &served.live;
    let (id, new) = (served.id(), live.app());
    for args in [
        &["recover"][..],
        &["backup", "live/app", "-o", "now.tar.zst"],
        &["restore", "--resume"],
        &["restore", "app.tar.zst", "--force"],
    ] {
        let said = live.env.lifeboat(args).code(21).stderr;
        for expected in [
            &format!("lifeboat restore --commit {id}"),
            &format!("lifeboat restore --rollback {id}"),
            "may hold new data",
        ] {
            assert!(said.contains(expected), "{args:?}: {expected}: {said}");
        }
        live.assert_app(&new, &args.join(" "));
        assert_eq!(served.id(), id);
    }
    assert!(!live.env.path("now.tar.zst").exists());
    live.env.lifeboat(["restore", "--rollback", &id]).ok();
    assert_same_app(&served, "rolled back");
    let said = live.env.lifeboat(["status"]).ok().stdout;
    assert!(said.contains("\ntaken back: "), "{said}");
    assert_eq!(status(&live.env, 0)["kept"][0]["is_new_state"], true);
    // What the new state had written is still there.
    let stage = live.stages().pop().unwrap();
    let found = live.env.run("grep", ["-rl", "alice and bob", &format!("live/{stage}")]).ok().stdout;
    assert!(!found.is_empty());
}

/// Shows R9.
#[test]
fn a_rollback_that_a_person_asked_for_is_finished_after_a_crash_and_keeps_the_new_state() {
    if !can_run("a_rollback_that_a_person_asked_for_is_finished_after_a_crash_and_keeps_the_new_state", &["strace"]) {
        return;
    }
    let rollback = |served: &Served, inject: &str| {
        let strace = ["-f", "-o", "trace", "-e", "trace=renameat2", "-e", inject];
        let lifeboat = [env!("CARGO_BIN_EXE_lifeboat"), "restore", "--rollback"];
        served.live.env.run("strace", strace.iter().chain(&lifeboat))
    };
    let served = killed_when_started();
    rollback(&served, "trace=renameat2").ok();
    let all = calls(&trace(&served.live.env))["renameat2"];
    assert!(all > 2, "{all}");
    for time in [1, all / 2, all] {
        let served = killed_when_started();
        rollback(&served, &format!("inject=renameat2:signal=KILL:when={time}")).code(137);
        // Whatever is live now would pass.
        served.live.env.write("healthy", "");
        served.live.env.lifeboat(["recover"]).ok();
        assert_same_app(&served, &format!("killed at rename {time} of {all}"));
        assert_eq!(status(&served.live.env, 0)["kept"][0]["is_new_state"], true, "{time} of {all}");
    }
}

/// Shows R9, R10.
#[test]
fn a_new_state_that_was_taken_back_can_be_put_back_by_undo() {
    for mode in ["overwrite", "full", "merge"] {
        let served = killed_when_started_in(mode);
        let live = &served.live;
        let new = live.app();
        live.env.lifeboat(["restore", "--rollback"]).ok();
        assert_same_app(&served, &format!("{mode}, taken back"));
        live.env.write("healthy", "");
        live.env.lifeboat(["restore", "--undo", "--force"]).ok();
        let now = live.app();
        for (path, node) in &new {
            // A merge leaves directories the time at which something was added.
            let is_same =
                now.get(path) == Some(node) || (mode == "merge" && node.kind == "dir" && now.contains_key(path));
            assert!(is_same, "{mode}, undone: {} is {:?}", String::from_utf8_lossy(path), now.get(path));
        }
        assert_eq!(now.len(), new.len(), "{mode}, undone");
        live.env.lifeboat(["restore", "--undo", "--force"]).ok();
        assert_same_app(&served, &format!("{mode}, undone twice"));
    }
}

/// Shows R9.
#[test]
fn an_undo_rolls_back_first_what_a_crash_interrupted_and_says_so() {
    if !can_run("an_undo_rolls_back_first_what_a_crash_interrupted_and_says_so", &["strace"]) {
        return;
    }
    let live = changed();
    let old = live.app();
    live.restore(&[]).ok();
    change_again(&live.env);
    live.traced(&["-e", "trace=renameat2", "-e", "inject=renameat2:signal=KILL:when=3"], &[]).code(137);
    status(&live.env, 1);
    let said = live.env.lifeboat(["restore", "--undo", "--force"]).ok().stdout;
    assert!(said.contains(" was rolled back: all is as before it."), "{said}");
    assert_eq!(live.env.read("live/app/conf/app.conf"), b"port = 81\n");
    assert_eq!(live.app().len(), old.len());
}

/// Shows R9.
#[test]
fn an_interrupted_restore_can_be_finished_forwards() {
    if !can_run("an_interrupted_restore_can_be_finished_forwards", &["strace"]) {
        return;
    }
    let served = Served::new("", "");
    let live = &served.live;
    for decision in ["--resume", "--rollback", "--commit"] {
        let said = live.env.lifeboat(["restore", decision]).code(2).stderr;
        assert!(said.contains("no restore is waiting"), "{decision}: {said}");
    }
    // The first service that is stopped kills it; later, a rename does.
    for phase in ["staged", "swapping"] {
        if phase == "staged" {
            let kill = live.env.read("service");
            live.env.write("service", [b"test \"$3\" != stop || kill -9 $PPID\n", &kill[..]].concat());
            served.restore().code(137);
            live.env.write("service", kill);
        } else {
            live.traced(&["-e", "trace=renameat2", "-e", "inject=renameat2:signal=KILL:when=5"], &[]).code(137);
        }
        let waiting = status(&live.env, 1)["waiting"][0].clone();
        assert_eq!(waiting["phase"], phase);
        let said = live.env.lifeboat(["restore", "--commit"]).code(2).stderr;
        assert!(said.contains("--resume") && said.contains("--rollback"), "{said}");
        live.env.lifeboat(["restore", "--resume", &waiting["id"].as_str().unwrap()[..8]]).ok();
        assert_eq!(live.env.read("live/app/conf/app.conf"), b"port = 80\n", "{phase}");
        assert!(live.path("app/data/deep/er/two").exists() && live.path("app/spool").is_dir(), "{phase}");
        live.env.lifeboat(["restore", "--undo", "--force"]).ok();
        assert_same_app(&served, phase);
        live.env.lifeboat(["restore", "--discard"]).ok();
        assert!(live.stages().is_empty() && live.journals().is_empty(), "{phase}");
    }
}
