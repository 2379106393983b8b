//! The key file of `openssl`, and identities: when one is made, and what opens
//! what was encrypted with an earlier one.

use std::os::unix::fs::PermissionsExt as _;

use super::{KEY, OTHER_IDENTITY, ending, only, remove, rename, web, with_encryption};
use crate::apps::Apps;

const NEW: &str = "envelope: openssl, key_file: DIR/secret/key";

fn assert_nothing_made(apps: &Apps, line: &str) {
    let before = ending(&apps.env, "backups", "");
    let said = apps.run(line).code(12).stderr;
    assert!(said.contains("is missing, and ") && said.contains("put the key back"), "{said}");
    assert!(!apps.env.path("secret/key").exists(), "no key was made");
    assert_eq!(ending(&apps.env, "backups", ""), before);
}

/// Shows E3.
#[test]
fn a_missing_key_is_made_by_the_first_encrypted_backup_and_never_again() {
    let apps = web(NEW);
    let said = apps.run("backup web").ok().stderr;
    assert!(said.contains("secret/key: a new key; keep a copy of it away from this machine"), "{said}");
    let key = apps.text("secret/key");
    let decoded = apps.env.run("base64", ["-d", "secret/key"]).ok().bytes;
    assert_eq!((key.len(), key.lines().count(), decoded.len()), (45, 1, 32));
    let mode = |path: &str| apps.env.path(path).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("secret/key"), 0o600);
    // The next one takes it, and says nothing of it.
    assert!(!apps.run("backup web").ok().stderr.contains("a new key"));
    assert_eq!(apps.text("secret/key"), key);
    apps.run("backup verify web").ok();

    // Another would not open what there is.
    rename(&apps.env, "secret/key", "away", &[]);
    assert_nothing_made(&apps, "backup web");
    assert_nothing_made(&apps, "backup web --dry-run");
    // Also where the sidecar, which says whose it is, was lost.
    for sidecar in ending(&apps.env, "backups", ".json") {
        remove(&apps.env, &format!("backups/{sidecar}"));
    }
    assert_nothing_made(&apps, "backup web");
    rename(&apps.env, "away", "secret/key", &[]);
    apps.run("backup web").ok();

    // What is not encrypted keeps nobody from it.
    let apps = web(NEW);
    apps.run("backup web --no-encrypt").ok();
    assert!(!apps.env.path("secret").exists());
    apps.run("backup web").ok();
    assert!(apps.env.path("secret/key").exists());
    // A link that leads nowhere is no missing key, and an empty one no key.
    let apps = web("envelope: openssl, key_file: DIR/link");
    apps.env.run("ln", ["-s", "nowhere", "link"]).ok();
    apps.run("backup web").code(12);
    apps.env.write("nowhere", "\n");
    apps.env.set_mode("nowhere", 0o600);
    let said = apps.run("backup web").code(12).stderr;
    assert!(said.contains("which should be the key, is empty"), "{said}");
    assert!(ending(&apps.env, "backups", "").is_empty());
}

/// Shows E3.
#[test]
fn the_key_that_flags_name_wins_and_is_made_like_the_configured_one() {
    let apps = web("envelope: openssl, key_file: DIR/key");
    apps.run("backup web --key-file given").ok();
    assert_eq!(apps.text("given").len(), 45);
    let archive = only(&apps.env, "backups", ".tar.zst.enc");
    apps.run(&format!("backup list {archive}")).code(12);
    apps.run(&format!("backup list {archive} --key-file given")).ok();
    // A key file with an end of line of another system is what openssl takes it for.
    apps.env.write("dos", format!("{KEY}\r\n"));
    apps.env.set_mode("dos", 0o600);
    apps.run("backup web --key-file dos -o dos.tar.zst.enc").ok();
    let decrypt = "openssl enc -d -aes-256-cbc -pbkdf2 -iter 100000 -pass file:dos -in dos.tar.zst.enc | zstd -tq";
    apps.env.run("sh", ["-c", decrypt]).ok();
    // A key file without a key file: openssl needs one.
    let said = apps.env.lifeboat(["backup", "./web", "--envelope", "openssl"]).code(2).stderr;
    assert!(said.contains("needs a key file") && said.contains("openssl rand -base64 32"), "{said}");
}

/// Shows E3.
#[test]
fn old_keys_open_what_was_encrypted_with_them() {
    let old = |apps: &Apps, suffix: &str| {
        apps.run("backup web").ok();
        let archive = only(&apps.env, "backups", suffix);
        apps.run(&format!("backup verify {archive}")).ok();
        archive
    };
    // The key.
    let apps = web("envelope: openssl, key_file: DIR/key");
    let archive = old(&apps, ".enc");
    apps.configure(&with_encryption("envelope: openssl, key_file: DIR/other-key"));
    let said = apps.run(&format!("backup list {archive}")).code(12).stderr;
    assert!(said.contains("the password or key is wrong") && said.contains("--key-file FILE"), "{said}");
    apps.configure(&with_encryption("envelope: openssl, key_file: DIR/other-key, old_key_files: [DIR/none, DIR/key]"));
    apps.run(&format!("backup list {archive}")).ok();
    apps.run("backup web").ok();
    apps.run("backup verify web").ok();

    // The password, of both envelopes that have one; there, the envelope may have changed too.
    for (envelope, suffix) in [("aes-256-gcm, iterations: 100000", ".tomo-backup"), ("age", ".age")] {
        let apps = web(&format!("envelope: {envelope}, password_file: DIR/password"));
        let archive = old(&apps, suffix);
        let new = format!("envelope: {envelope}, password_file: DIR/other-password");
        apps.configure(&with_encryption(&new));
        apps.run(&format!("backup list {archive}")).code(12);
        apps.configure(&with_encryption(&format!("{new}, old_key_files: [DIR/password]")));
        apps.run(&format!("backup list {archive}")).ok();
    }

    // The identity: without recipients, it is encrypted to its own.
    let apps = web("envelope: age, identity_file: DIR/identity");
    let archive = old(&apps, ".age");
    apps.configure(&with_encryption("envelope: age, identity_file: DIR/other-identity, old_key_files: [DIR/identity]"));
    apps.run(&format!("backup list {archive}")).ok();
    // A file of recipients is another's business: it holds no secret.
    apps.env.write("identity", "# gone\n");
    let said = apps.run(&format!("backup list {archive}")).code(12).stderr;
    assert!(!said.contains(OTHER_IDENTITY), "{said}");
}
