//! Databases that were backed up as they are, and what is found out about one
//! before anything live is touched.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use lifeboat_store::testing::{can_run, is_root};

use super::{SOURCE, application, configure, files, rows, write};
use crate::env::TestEnv;
use crate::fidelity::assert_same;
use crate::in_place::Live;

fn restore(live: &Live, archive: &str, more: &[&str]) -> crate::env::Run {
    live.env.lifeboat(["restore", archive, "--force", "--allow-unauthenticated"].iter().chain(more))
}

/// Shows P2, P4.
#[test]
fn a_bare_database_is_restored_with_and_without_its_manifest() {
    if !can_run("a_bare_database_is_restored_with_and_without_its_manifest", &["python3"]) {
        return;
    }
    let live = application("wal");
    let env = &live.env;
    env.lifeboat(["backup", "app", "--only", "main", "--bare", "--output", "main.db"]).ok();
    assert_eq!(rows(env, "main.db"), 30);
    write(env, SOURCE, "wal", 5, true);
    restore(&live, "main.db", &[]).ok();
    assert_eq!((rows(env, SOURCE), live.bad("live/app/data").len()), (30, 3));
    live.discard();
    // Without a manifest it becomes what the live one is to its application.
    std::fs::remove_file(env.path("main.manifest.json")).unwrap();
    write(env, SOURCE, "wal", 5, true);
    env.set_mode(SOURCE, 0o640);
    env.set_mode("main.db", 0o604);
    if is_root() {
        std::os::unix::fs::chown(env.path(SOURCE), Some(1234), Some(2345)).unwrap();
    }
    let of = |path: &str| {
        let metadata = env.path(path).metadata().unwrap();
        (metadata.permissions().mode() & 0o7777, metadata.uid(), metadata.gid())
    };
    let before = of(SOURCE);
    restore(&live, "main.db", &[]).ok();
    assert_eq!((of(SOURCE), rows(env, SOURCE)), (before, 30));
    live.discard();
    // Where there are two, it has to be said which.
    env.mkdir("live/other");
    write(env, "live/other/second.db", "wal", 7, true);
    configure(env, &files(env, ""), &[("main", SOURCE), ("second", "live/other/second.db")], "");
    let all = live.all();
    let said = restore(&live, "main.db", &[]).code(2).stderr;
    assert!(said.contains("--as app/main or --as app/second"), "{said}");
    restore(&live, "main.db", &["--as", "nosuch"]).code(2);
    assert_same(&all, &live.all(), "nothing was touched");
    for name in ["second", "app/second"] {
        write(env, "live/other/second.db", "wal", 1, true);
        restore(&live, "main.db", &["--as", name]).ok();
        assert_eq!((rows(env, "live/other/second.db"), rows(env, SOURCE)), (30, 30));
        live.lifeboat(&["restore", "--discard"]).ok();
    }
}

/// Changes what `edit` says in the manifest `main.manifest.json`, and gives it the sum that `main.db` has.
fn edit_manifest(env: &TestEnv, edit: &str) {
    let program = format!(
        "import hashlib, json\nm = json.load(open('main.manifest.json'))\n\
         rows = [s for s in m['sources'] if s['name'] == 'main'][0]['details']['database']['tables']\n{edit}\n\
         m['files'][0]['sha256'] = hashlib.sha256(open('main.db', 'rb').read()).hexdigest()\n\
         json.dump(m, open('main.manifest.json', 'w'))"
    );
    env.run("python3", ["-c", &program]).ok();
}

/// Shows P4.
#[test]
fn a_database_without_its_rows_or_damaged_inside_is_refused_before_anything_is_touched() {
    const TEST: &str = "a_database_without_its_rows_or_damaged_inside_is_refused_before_anything_is_touched";
    if !can_run(TEST, &["python3"]) {
        return;
    }
    let live = application("wal");
    let env = &live.env;
    env.lifeboat(["backup", "app", "--only", "main", "--bare", "--output", "main.db"]).ok();
    write(env, SOURCE, "wal", 5, true);
    let all = live.all();
    let refused = |what: &str| {
        let said = restore(&live, "main.db", &[]).code(13).stderr;
        assert!(said.contains(what) && said.contains("main.db"), "{what}: {said}");
        assert_same(&all, &live.all(), what);
        assert_eq!(live.journals(), Vec::<String>::new(), "{what}");
    };
    edit_manifest(env, "rows['t'] = 31");
    refused("table t has 30 rows instead of 31");
    edit_manifest(env, "rows['t'] = 30; rows['gone'] = 1");
    refused("table gone is missing");
    // A page of the table is not what it was, and the sum is right.
    let spoil =
        "d = bytearray(open('main.db', 'rb').read()); d[4096:8192] = bytes(4096); open('main.db', 'wb').write(d)";
    edit_manifest(env, &format!("del rows['gone']\n{spoil}"));
    refused("is damaged");
    edit_manifest(env, "d = open('main.db', 'rb').read(); open('main.db', 'wb').write(d[:16] + b'x' * (len(d) - 16))");
    refused("is damaged: file is not a database");
}
