//! Taking a backup, restoring it, and being sure of it.

use super::{Gateway, can_run_gateway};

/// "Taking a backup": against a live database, no downtime.
///
/// Shows P11, P3.
#[test]
fn a_backup_under_load_stops_nothing_and_holds_a_whole_chain() {
    if !can_run_gateway("a_backup_under_load_stops_nothing_and_holds_a_whole_chain") {
        return;
    }
    let gateway = Gateway::new();
    let calls = gateway.calls();
    let before = gateway.chain("aegis/db/aegisagent.db");
    let said = gateway.lifeboat(&["backup"]).ok();
    assert!(said.normal_stdout().contains("aegis/backups/aegis-backup-<date>.tar.gz (<size>, 1 file)\n"));
    let archive = &gateway.archives()[0];
    gateway.lifeboat(&["backup", "verify", archive]).ok();
    gateway.lifeboat(&["restore", archive, "--to", "look"]).ok();
    let held = gateway.chain("look/sqlite/db.db");
    let after = gateway.chain("aegis/db/aegisagent.db");
    assert!(before < held && held < after, "{before} {held} {after}: it worked all the time");
    assert_eq!(gateway.calls(), calls);
    // Neither the token nor its file's name is in the archive.
    let bytes = gateway.env.run("tar", ["-xzOf", archive]).ok().bytes;
    for secret in ["CANARY-token", "lifeboat.token"] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret}");
    }
}

/// How a database is lost.
const LOSSES: [(&str, &str); 4] = [
    ("cut short", "truncate -s 5000 db/aegisagent.db"),
    ("garbage", "head -c 300000 /dev/urandom > db/aegisagent.db"),
    ("a table dropped", "sqlite3 -cmd '.timeout 10000' db/aegisagent.db 'DROP TABLE agents'"),
    ("deleted", "rm db/aegisagent.db"),
];

/// "Restoring from a backup", steps 1 to 5 by one command, and "Verification".
///
/// Shows P11, P4.
#[test]
fn whatever_became_of_the_database_one_command_brings_it_back() {
    if !can_run_gateway("whatever_became_of_the_database_one_command_brings_it_back") {
        return;
    }
    let gateway = Gateway::new();
    gateway.lifeboat(&["backup"]).ok();
    let root = gateway.root();
    for (what, command) in LOSSES {
        let change = "INSERT INTO agents VALUES ('after the backup'); PRAGMA wal_checkpoint(PASSIVE)";
        gateway.sql("db/aegisagent.db", change);
        gateway.env.run("sh", ["-c", &format!("cd {} && {command}", root.display())]).ok();
        let calls = gateway.calls();
        let said = gateway.lifeboat(&["restore", "latest", "--force"]).ok().stdout;
        assert!(said.contains("healthy: 2 checks passed\n") && said.contains("data: 2 checks passed\n"), "{said}");
        assert_eq!(gateway.calls(), format!("{calls}stop start "), "{what}");
        gateway.assert_well(&["first"], what);
        let aside = gateway.set_aside();
        // One that was deleted left its log, which belongs to no other database.
        let expected = if what == "deleted" { "aegisagent.db.bad--wal" } else { "aegisagent.db.bad-" };
        assert!(aside.iter().any(|name| name == expected), "{what}: {aside:?}");
        if what == "a table dropped" {
            let names = gateway.env.names("aegis/db");
            let bad = names.iter().find(|name| name.contains(".bad-") && !name.ends_with("-wal")).unwrap();
            assert!(names.contains(&format!("{bad}-wal")), "{names:?}");
            let query = "PRAGMA integrity_check; SELECT count(*) > 0 FROM receipts";
            assert_eq!(gateway.sql(&format!("db/{bad}"), query), "ok\n1", "it opens with its log");
        }
        gateway.lifeboat(&["restore", "--discard"]).ok();
        assert_eq!(gateway.set_aside(), Vec::<String>::new(), "{what}");
    }
}

/// Step 2: it is kept until somebody is sure; `--undo` puts it back.
///
/// Shows P11, R10.
#[test]
fn what_was_set_aside_stays_until_it_is_discarded_and_comes_back_by_undo() {
    if !can_run_gateway("what_was_set_aside_stays_until_it_is_discarded_and_comes_back_by_undo") {
        return;
    }
    let gateway = Gateway::new();
    gateway.lifeboat(&["backup"]).ok();
    gateway.sql("db/aegisagent.db", "INSERT INTO agents VALUES ('second')");
    let length = gateway.chain("aegis/db/aegisagent.db");
    gateway.lifeboat(&["restore", "latest", "--force"]).ok();
    gateway.assert_well(&["first"], "restored");
    let said = gateway.lifeboat(&["status"]).ok().stdout;
    assert!(said.contains("kept for ever"), "{said}");
    gateway.lifeboat(&["restore", "--undo", "--force"]).ok();
    gateway.assert_well(&["first", "second"], "undone");
    assert!(gateway.chain("aegis/db/aegisagent.db") >= length);
}

/// A crashed gateway is not running, and there is nothing left to read.
///
/// Shows P11, R7.
#[test]
fn a_gateway_that_is_down_is_up_after_the_restore() {
    if !can_run_gateway("a_gateway_that_is_down_is_up_after_the_restore") {
        return;
    }
    let gateway = Gateway::by_commands();
    gateway.lifeboat(&["backup"]).ok();
    gateway.service("stop").ok();
    gateway.env.run("sh", ["-c", "rm -r aegis/db"]).ok();
    let said = gateway.lifeboat(&["restore", "latest"]).ok().stdout;
    assert!(said.contains("services: aegisagent.service had not run and was started\n"), "{said}");
    gateway.assert_well(&["first"], "after a crash");
}

/// "A restore from a clean backup should never break chain continuity".
///
/// Shows P11, P6.
#[test]
fn a_snapshot_whose_chain_is_broken_is_not_let_stand() {
    if !can_run_gateway("a_snapshot_whose_chain_is_broken_is_not_let_stand") {
        return;
    }
    let gateway = Gateway::by_commands();
    gateway.work(false);
    gateway.lifeboat(&["backup"]).ok();
    gateway.sql("db/aegisagent.db", "UPDATE receipts SET body = 'forged' WHERE seq = 3");
    gateway.lifeboat(&["backup", "--output", "forged.tar.gz"]).ok();
    let good = gateway.archives().remove(0);
    gateway.lifeboat(&["restore", &good, "--force"]).ok();
    gateway.lifeboat(&["restore", "--discard"]).ok();
    let dump = gateway.sql("db/aegisagent.db", ".dump");
    let said = gateway.lifeboat(&["restore", "forged.tar.gz", "--force"]).code(20).stderr;
    assert!(said.contains("/v1/receipts/verify-chain failed: it answered 409, expected 200"), "{said}");
    assert!(said.contains("everything is as it was before, services included") && !said.contains("CANARY"), "{said}");
    assert_eq!(gateway.sql("db/aegisagent.db", ".dump"), dump);
    assert_eq!(gateway.set_aside(), Vec::<String>::new());
    gateway.wait_until_ready();
    gateway.assert_well(&["first"], "rolled back");
}

/// The gateway's own backups: `cp backups/pre-migration-2026-06-17.db db/aegisagent.db`.
///
/// Shows P11, P2.
#[test]
fn a_bare_database_restores_with_and_without_its_manifest() {
    if !can_run_gateway("a_bare_database_restores_with_and_without_its_manifest") {
        return;
    }
    let gateway = Gateway::new();
    gateway.env.mkdir("aegis/backups");
    let runbook = "aegis/backups/pre-migration-2026-06-17.db";
    let into = format!("VACUUM INTO '{}'", gateway.env.path(runbook).display());
    gateway.sql("db/aegisagent.db", &into);
    let ours = "pre-migration.db";
    let said = gateway.lifeboat(&["backup", "aegis", "--only", "db", "--bare", "--output", ours]).ok().stdout;
    assert!(said.starts_with("Backup written to pre-migration.db ("), "{said}");
    assert!(gateway.env.path("pre-migration.manifest.json").exists());
    for (bare, verified) in [(runbook, 1), (ours, 0)] {
        let length = gateway.chain(bare);
        let said = gateway.lifeboat(&["backup", "verify", bare]).code(verified).stdout;
        let expected = if verified == 0 { "1 file verified successfully." } else { "no manifest" };
        assert!(said.contains(expected), "{said}");
        let said = gateway.lifeboat(&["backup", "list", bare]).ok().stdout;
        assert!(said.contains(" sqlite/") && said.contains("1 entry, 1 file"), "{said}");
        gateway.sql("db/aegisagent.db", "INSERT OR IGNORE INTO agents VALUES ('after the backup')");
        // Only a part of an app is asked about, even where nothing is overwritten.
        let said = gateway.lifeboat(&["restore", bare]).code(22).stderr;
        assert!(said.contains("stop and start the service aegisagent.service"), "{said}");
        gateway.lifeboat(&["restore", bare, "--force"]).ok();
        gateway.assert_well(&["first"], bare);
        assert!(gateway.chain("aegis/db/aegisagent.db") >= length, "{bare}");
        gateway.lifeboat(&["restore", "--discard"]).ok();
    }
    // A byte that is not as it was, and what is no whole database.
    let mut bytes = gateway.env.read(ours);
    bytes[9000] ^= 1;
    gateway.env.write(ours, &bytes);
    gateway.lifeboat(&["backup", "verify", ours]).code(1);
    gateway.lifeboat(&["restore", ours, "--force"]).code(13);
    let bytes = gateway.env.read(runbook);
    gateway.env.write("short.db", &bytes[..bytes.len() - 4096]);
    gateway.lifeboat(&["restore", "short.db", "--force"]).code(13);
    gateway.assert_well(&["first"], "nothing of it came in");
}
