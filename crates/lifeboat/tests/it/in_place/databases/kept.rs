//! What becomes of a database that was replaced: kept by a name of its own,
//! put back, taken back, removed; whatever a person does with it meanwhile.

use lifeboat_store::testing::can_run;

use super::{AMONG_FILES, SOURCE, application, rows, service, without_kept, write};
use crate::fidelity::{Tree, assert_same};

/// Shows P4.
#[test]
fn a_replaced_database_that_was_opened_since_comes_back_as_it_is_by_now() {
    if !can_run("a_replaced_database_that_was_opened_since_comes_back_as_it_is_by_now", &["python3"]) {
        return;
    }
    for keeps_log in [true, false] {
        let live = application("wal");
        live.restore(&[]).ok();
        let bad = format!("live/app/data/{}", live.bad("live/app/data")[0]);
        // Whoever closes it removes its log, and whoever is killed leaves another.
        write(&live.env, &bad, "wal", 1, false);
        assert_eq!(live.bad("live/app/data").len(), 1);
        write(&live.env, &bad, "wal", 1, keeps_log);
        live.lifeboat(&["restore", "--undo", "--force"]).ok();
        assert_eq!((rows(&live.env, SOURCE), rows(&live.env, AMONG_FILES)), (32, 30));
        live.discard();
        assert_eq!(live.bad("live/app/data"), Vec::<String>::new());
        // And removed with what it has by then.
        live.restore(&[]).ok();
        let bad = format!("live/app/data/{}", live.bad("live/app/data")[0]);
        write(&live.env, &bad, "wal", 1, keeps_log);
        live.discard();
        assert_eq!(live.bad("live/app/data"), Vec::<String>::new());
        live.assert_restored("discarded");
    }
}

/// Shows P4.
#[test]
fn a_replaced_database_that_a_person_moved_is_theirs() {
    if !can_run("a_replaced_database_that_a_person_moved_is_theirs", &["python3"]) {
        return;
    }
    let live = application("wal");
    live.restore(&[]).ok();
    let bad = live.bad("live/app/data");
    let (named, moved) = (live.path("app/data").join(&bad[0]), live.path("app/data/mine.db"));
    rustix::fs::rename(&named, &moved).unwrap();
    let said = live.lifeboat(&["restore", "--undo", "--force"]).code(2).stderr;
    assert!(said.contains(&bad[0]), "{said}");
    rustix::fs::rename(&moved, &named).unwrap();
    live.assert_restored("nothing was changed");
    live.lifeboat(&["restore", "--undo", "--force"]).ok();
    assert_eq!(rows(&live.env, SOURCE), 30);
    live.discard();
    // Moved, it is not removed.
    live.restore(&[]).ok();
    let bad = live.bad("live/app/data");
    rustix::fs::rename(live.path("app/data").join(&bad[0]), &moved).unwrap();
    live.discard();
    assert!(moved.exists());
    live.assert_restored("discarded");
    // Another file by that name is not either.
    write(&live.env, SOURCE, "wal", 1, true);
    live.restore(&[]).ok();
    let named = live.path("app/data").join(&live.bad("live/app/data")[0]);
    let note = live.env.write("live/app/data/note", "a note");
    rustix::fs::rename(note, &named).unwrap();
    live.discard();
    assert!(named.exists());
}

/// Shows P4.
#[test]
fn replaced_databases_of_several_restores_have_names_of_their_own() {
    if !can_run("replaced_databases_of_several_restores_have_names_of_their_own", &["python3"]) {
        return;
    }
    let live = application("wal");
    for count in 1..=3 {
        live.restore(&["--mode", "full"]).ok();
        let databases =
            live.bad("live/app/data").into_iter().filter(|name| !name.ends_with("-wal") && !name.ends_with("-shm"));
        assert_eq!(databases.count(), count);
        write(&live.env, SOURCE, "wal", 1, true);
    }
    live.restore(&["--keep-replaced", "0s"]).ok();
    live.assert_restored("the last");
    assert_eq!(live.journals().len(), 3);
    // What is due goes by itself; what is kept for ever does not.
    let ids: Vec<String> = live.journals().iter().map(|name| name.trim_end_matches(".jsonl").to_owned()).collect();
    live.lifeboat(&["restore", "--keep", &ids[0]]).ok();
    for id in &ids[1..] {
        live.lifeboat(&["restore", "--discard", id]).ok();
    }
    write(&live.env, SOURCE, "wal", 1, true);
    live.restore(&["--keep-replaced", "1s"]).ok();
    std::thread::sleep(std::time::Duration::from_secs(2));
    live.lifeboat(&["backup", "app", "-o", "later.tar.zst"]).ok();
    assert_eq!(live.journals(), [format!("{}.jsonl", ids[0])]);
    live.discard();
    assert_eq!(live.bad("live/app/data"), Vec::<String>::new());
}

/// Shows P4, P6.
#[test]
fn a_new_state_that_is_taken_back_keeps_its_log_and_both_may_come_back() {
    if !can_run("a_new_state_that_is_taken_back_keeps_its_log_and_both_may_come_back", &["python3"]) {
        return;
    }
    for mode in ["overwrite", "full"] {
        let live = application("wal");
        service(&live, true);
        let before = live.app();
        // Killed when the service has been started: the new state has started and has written.
        live.env.write("kill", "");
        live.restore(&["--mode", mode]).code(137);
        let new = live.app();
        assert_eq!((rows(&live.env, SOURCE), rows(&live.env, AMONG_FILES)), (13, 13), "{mode}");
        live.lifeboat(&["restore", "--rollback"]).ok();
        assert_same(&before, &without_kept(live.app()), &format!("{mode}: taken back"));
        live.env.write("healthy", "");
        live.lifeboat(&["restore", "--undo", "--force"]).ok();
        let timeless = |mut tree: Tree| {
            // When the new state last changed its directories was not noted.
            tree.values_mut().filter(|node| node.kind == "dir").for_each(|dir| dir.mtime = (0, 0));
            without_kept(tree)
        };
        assert_same(&timeless(new), &timeless(live.app()), &format!("{mode}: the new one again"));
        live.lifeboat(&["restore", "--undo", "--force"]).ok();
        assert_same(&before, &without_kept(live.app()), &format!("{mode}: the old one again"));
        live.discard();
        assert_same(&before, &live.app(), &format!("{mode}: discarded"));
    }
}

/// Shows P4, P6.
#[test]
fn an_undo_that_fails_after_it_had_started_changes_nothing() {
    if !can_run("an_undo_that_fails_after_it_had_started_changes_nothing", &["python3"]) {
        return;
    }
    for mode in ["overwrite", "full"] {
        let live = application("wal");
        service(&live, true);
        let files = ["healthy", "once"].map(|name| live.env.write(name, ""));
        live.restore(&["--mode", mode]).ok();
        // The restored state has run, and has a log by now.
        for path in [SOURCE, AMONG_FILES] {
            write(&live.env, path, "wal", 2, true);
        }
        files.iter().for_each(|file| std::fs::remove_file(file).unwrap());
        let before = live.app();
        live.lifeboat(&["restore", "--undo", "--force"]).code(20);
        assert_same(&without_kept(before.clone()), &without_kept(live.app()), &format!("{mode}: rolled back"));
        // What the old state wrote while it stood is its own.
        live.env.write("healthy", "");
        live.lifeboat(&["restore", "--undo", "--force"]).ok();
        assert_eq!((rows(&live.env, SOURCE), rows(&live.env, AMONG_FILES)), (33, 33), "{mode}");
        live.lifeboat(&["restore", "--undo", "--force"]).ok();
        assert_same(&without_kept(before), &without_kept(live.app()), mode);
    }
}
