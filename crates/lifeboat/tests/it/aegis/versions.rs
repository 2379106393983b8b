//! Snapshots of older and newer gateways.

use super::{Gateway, can_run_gateway};

/// Step 4: "if the backup predates a migration that has since landed, the
/// migration runs against the restored file".
///
/// Shows P11.
#[test]
fn migrations_run_on_an_older_snapshot_before_the_gateway_is_ready() {
    if !can_run_gateway("migrations_run_on_an_older_snapshot_before_the_gateway_is_ready") {
        return;
    }
    let gateway = Gateway::by_commands();
    gateway.lifeboat(&["backup"]).ok();
    gateway.deploy("0.3.0");
    gateway.service("stop").ok();
    gateway.service("start").ok();
    gateway.wait_until_ready();
    gateway.sql("db/aegisagent.db", "INSERT INTO policies VALUES ('bad')");
    let plan = gateway.lifeboat(&["restore", "latest", "--dry-run"]).ok().stdout;
    assert!(plan.contains("version: 0.1.0 in the snapshot, 0.3.0 here\n"), "{plan}");
    gateway.lifeboat(&["restore", "latest", "--force"]).ok();
    gateway.assert_well(&["first"], "migrated");
    let found =
        "SELECT (SELECT max(version) FROM _migrations), (SELECT note FROM agents), (SELECT count(*) FROM policies)";
    assert_eq!(gateway.sql("db/aegisagent.db", found), "3|migrated|0");
}

/// Step 4: "If the backup is newer … do not start an older binary version against it".
///
/// Shows P7, P11.
#[test]
fn a_snapshot_of_a_newer_gateway_is_refused_before_anything_is_written() {
    if !can_run_gateway("a_snapshot_of_a_newer_gateway_is_refused_before_anything_is_written") {
        return;
    }
    let gateway = Gateway::new();
    gateway.work(false);
    gateway.service("stop").ok();
    gateway.env.run("cp", ["-r", "aegis/db", "older"]).ok();
    gateway.deploy("0.2.0");
    gateway.service("start").ok();
    gateway.wait_until_ready();
    gateway.lifeboat(&["backup"]).ok();
    gateway.service("stop").ok();
    gateway.deploy("0.1.0");
    gateway.env.run("sh", ["-c", "rm -r aegis/db && mv older aegis/db"]).ok();
    gateway.service("start").ok();
    gateway.wait_until_ready();

    let calls = gateway.calls();
    let names = gateway.env.names("aegis/db");
    let said = gateway.lifeboat(&["restore", "latest", "--force"]).code(17).stderr;
    assert!(said.contains("the snapshot was made by aegis 0.2.0, and aegis 0.1.0 is installed here"), "{said}");
    assert!(said.contains("nothing was written, and nothing was stopped"), "{said}");
    assert!(said.contains("update aegis first"), "{said}");
    assert_eq!((gateway.calls(), gateway.env.names("aegis/db")), (calls.clone(), names));
    assert!(gateway.runs() && !gateway.env.data_dir().join("journal").exists());

    // The gateway itself refuses it too, and then all is as before.
    let dump = gateway.sql("db/aegisagent.db", ".dump");
    gateway.configure("timeout: 10s", "timeout: 3s");
    gateway.lifeboat(&["restore", "latest", "--force", "--ignore-version"]).code(20);
    gateway.configure("timeout: 3s", "timeout: 10s");
    assert_eq!(gateway.calls(), format!("{calls}stop start stop start "));
    gateway.wait_until_ready();
    assert_eq!(gateway.sql("db/aegisagent.db", ".dump"), dump);

    // A program that says nothing about itself is told in the plan, and keeps nobody from a restore.
    gateway.env.write("aegis/bin.sh", "#!/bin/sh\necho nonsense\n");
    gateway.env.run("install", ["-m", "755", "aegis/bin.sh", "aegis/bin/aegisagent"]).ok();
    let plan = gateway.lifeboat(&["restore", "latest", "--dry-run"]).ok().stdout;
    assert!(plan.contains("version: 0.2.0 in the snapshot, unknown here (`nonsense` holds no version)\n"), "{plan}");
    gateway.deploy("0.2.0");
    gateway.lifeboat(&["restore", "latest", "--force"]).ok();
    gateway.assert_well(&["first"], "a version that is not known");
}
