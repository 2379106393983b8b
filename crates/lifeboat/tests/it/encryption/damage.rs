//! A wrong key, a damaged archive, and one that asks for too much are told
//! apart, and nothing of any of them reaches what is live.

use lifeboat_store::testing::Random;

use super::{GCM, KINDS, Kind, OPENSSL, PASSPHRASE, RECIPIENTS, env, lifeboat, remove, web};
use crate::env::TestEnv;
use crate::fidelity::{assert_same, snapshot};

/// An archive `x` of `live/data`, which has changed since.
fn archive(kind: &Kind) -> TestEnv {
    let env = env();
    env.write("live/data/file", Random::new(7).bytes(300_000));
    env.write("live/data/small", "small");
    // As few iterations as may be: it is opened often.
    let encryption =
        if kind.envelope == "aes-256-gcm" { "encryption: { envelope: aes-256-gcm, iterations: 100000 }," } else { "" };
    let root = env.path("live/data");
    let sources = format!("sources: {{ data: {{ files: {{ root: {} }} }} }}", root.display());
    env.write("lifeboat.yaml", format!("apps: {{ data: {{ {encryption} {sources} }} }}"));
    env.set_mode("lifeboat.yaml", 0o600);
    lifeboat(&env, "backup data -o x --no-verify-on-create", &kind.seal).ok();
    env.write("live/data/small", "changed");
    env
}

/// What it is in these bytes is refused with `code` by everything that would use it.
fn assert_refused(env: &TestEnv, bytes: &[u8], open: &[&str], code: i32, what: &str) {
    env.write("x", bytes);
    let before = snapshot(&env.path("live"));
    let said = lifeboat(env, "restore x --to out", open).code(code).stderr;
    assert!(!env.path("out").exists(), "{what}: {said}");
    lifeboat(env, "restore x --force --allow-unauthenticated", open).code(code);
    assert_same(&before, &snapshot(&env.path("live")), what);
    lifeboat(env, "backup verify x", open).code(1);
    // What waits is what was interrupted: nothing.
    assert!(!env.data_dir().join("journal").exists() || env.names(env.data_dir().join("journal")).is_empty(), "{what}");
}

/// Shows E4.
#[test]
fn a_wrong_password_key_or_identity_is_told_from_damage() {
    for kind in KINDS {
        let env = archive(&kind);
        let bytes = env.read("x");
        assert_refused(&env, &bytes, &kind.wrong, 12, kind.envelope);
        // So is one without anything that says which key it wants.
        remove(&env, "x.json");
        assert_refused(&env, &bytes, &[], 12, kind.envelope);
        let said = lifeboat(&env, "backup list x", &kind.wrong).code(12).stderr;
        assert!(said.starts_with("error[E1200]: ") && said.contains("do this: give "), "{said}");
        lifeboat(&env, "restore x --to out", &kind.open).ok();
    }
}

/// A copy with one bit of the byte at `at` changed.
fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 0x20;
    bytes
}

fn find(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).position(|part| part == what).unwrap()
}

/// Shows E4.
#[test]
fn a_damaged_archive_is_found_before_anything_of_it_is_used() {
    // The passphrase differs from recipients only in what the header holds.
    for kind in [RECIPIENTS, OPENSSL, GCM] {
        let env = archive(&kind);
        let bytes = env.read("x");
        // What begins the content, and where the header alone is authenticated, that.
        let head = match kind.envelope {
            "age" => find(&bytes, b"\n--- ") + 8,
            "openssl" => 16,
            _ => 8 + 4 + 16 + 7,
        };
        for (at, what) in [(head, "head"), (head + 70, "begin"), (bytes.len() / 2, "middle"), (bytes.len() - 1, "end")]
        {
            assert_refused(&env, &flipped(&bytes, at), &kind.open, 13, &format!("{}, flipped: {what}", kind.envelope));
        }
        if kind.envelope == "age" {
            // No version of age has such a header: it is damaged, and not of another one.
            let nonsense = [&bytes[..head], b"!", &bytes[head + 1..]].concat();
            assert_refused(&env, &nonsense, &kind.open, 13, "age, nonsense in the header");
        }
        for len in [bytes.len() - 1, bytes.len() - 16, bytes.len() / 2 / 16 * 16, head + 65_552, head + 3] {
            assert_refused(&env, &bytes[..len], &kind.open, 13, &format!("{}, cut at {len}", kind.envelope));
        }
        assert_refused(&env, &[&bytes[..], &[0; 16]].concat(), &kind.open, 13, &format!("{}, longer", kind.envelope));
        env.write("x", &bytes);
        lifeboat(&env, "restore x --to out", &kind.open).ok();
    }
    // The file beside it counts as a part of it.
    let env = archive(&OPENSSL);
    let (bytes, hmac) = (env.read("x"), env.read("x.hmac"));
    let other = if hmac[0] == b'0' { b'1' } else { b'0' };
    for changed in [[&[other], &hmac[1..]].concat(), hmac[..40].to_vec(), Vec::new()] {
        env.write("x.hmac", changed);
        assert_refused(&env, &bytes, &OPENSSL.open, 13, "its HMAC");
    }
}

/// Shows E4.
#[test]
fn what_asks_for_more_than_is_done_is_not_supported() {
    let replaced = |bytes: &[u8], from: &[u8], to: &[u8]| {
        let at = find(bytes, from);
        [&bytes[..at], to, &bytes[at + from.len()..]].concat()
    };
    // A passphrase that would take hours, and an age of the future.
    let env = archive(&PASSPHRASE);
    let bytes = env.read("x");
    assert_refused(&env, &replaced(&bytes, b" 17\n", b" 25\n"), &PASSPHRASE.open, 17, "work factor");
    let said = lifeboat(&env, "backup list x", &PASSPHRASE.open).code(17).stderr;
    assert!(said.contains("a work factor of 25; up to 20 is done"), "{said}");
    assert_refused(&env, &replaced(&bytes, b".org/v1\n", b".org/v2\n"), &PASSPHRASE.open, 17, "version");
    // Iterations, of which few protect nothing and many keep the machine busy.
    let env = archive(&GCM);
    let bytes = env.read("x");
    for count in [0_u32, 99_999, 10_000_001, u32::MAX] {
        let asks = [&bytes[..8], &count.to_be_bytes(), &bytes[12..]].concat();
        assert_refused(&env, &asks, &GCM.open, 17, "iterations");
    }
    let env = archive(&OPENSSL);
    let sidecar = String::from_utf8(env.read("x.json")).unwrap();
    for count in ["1000", "4000000000"] {
        let count = format!("\"iterations\":{count}");
        env.write("x.json", sidecar.replace("\"iterations\":100000", &count));
        assert_refused(&env, &env.read("x"), &OPENSSL.open, 17, &count);
    }
}

/// Shows E4, E1.
#[test]
fn without_its_hmac_it_is_used_only_by_who_says_so() {
    let env = archive(&OPENSSL);
    remove(&env, "x.hmac");
    let before = snapshot(&env.path("live"));
    for line in ["restore x --to out", "restore x --force", "restore x --force --trust-config"] {
        let said = lifeboat(&env, line, &OPENSSL.open).code(22).stderr;
        assert!(said.contains("--allow-unauthenticated"), "{line}: {said}");
        assert!(!env.path("out").exists());
        assert_same(&before, &snapshot(&env.path("live")), line);
    }
    let said = lifeboat(&env, "restore x --to out", &OPENSSL.open).code(22).stderr;
    assert!(said.contains("x is not authenticated: it had its HMAC in x.hmac beside it"), "{said}");
    // It can be looked into, and is said to be what it is.
    let said = lifeboat(&env, "backup list x", &OPENSSL.open).ok().stderr;
    assert!(said.contains("warning: x is not authenticated"), "{said}");
    let said = lifeboat(&env, "backup verify x", &OPENSSL.open).code(1).stdout;
    assert!(
        said.contains("FAIL authentication (x is not authenticated") && said.contains("PASS files/data/small"),
        "{said}"
    );
    lifeboat(&env, "restore x --to out --dry-run", &OPENSSL.open).ok();
    lifeboat(&env, "restore x --to out --allow-unauthenticated", &OPENSSL.open).ok();
    assert_eq!(env.read("out/files/data/small"), b"small");
    lifeboat(&env, "restore x --force --allow-unauthenticated", &OPENSSL.open).ok();
    assert_eq!(env.read("live/data/small"), b"small");
    // Every sum is compared all the same.
    let bytes = env.read("x");
    env.write("x", flipped(&bytes, bytes.len() / 2));
    lifeboat(&env, "restore x --to more --allow-unauthenticated", &OPENSSL.open).code(13);
    assert!(!env.path("more").exists());
}

/// Shows E4, P9.
#[test]
fn of_what_stock_openssl_encrypted_the_configuration_is_never_used() {
    let apps = web("envelope: openssl, key_file: DIR/key");
    let yaml = apps.text("lifeboat.yaml");
    let health = format!("    health: [{{ command: [touch, {}] }}]\n", apps.env.path("acted").display());
    apps.env.write("lifeboat.yaml", yaml + &health);
    apps.run("backup web --no-encrypt -o plain.tar.zst").ok();
    apps.run("backup web -o ours.tar.zst.enc").ok();
    let encrypt = "openssl enc -aes-256-cbc -pbkdf2 -iter 100000 -salt -pass file:key -in plain.tar.zst -out stock.enc";
    apps.env.run("sh", ["-c", encrypt]).ok();
    remove(&apps.env, "lifeboat.yaml");
    remove(&apps.env, "web");
    let restore = |archive: &str, more: &str| apps.run(&format!("restore {archive} --key-file key --force {more}"));
    let said = restore("stock.enc", "").code(22).stderr;
    assert!(said.contains("--allow-unauthenticated") && !apps.env.path("web").exists(), "{said}");
    let plan = restore("stock.enc", "--dry-run --trust-config --allow-unauthenticated").ok().stdout;
    assert!(plan.contains("the archive says, never used, as it is not authenticated: health: runs touch"), "{plan}");
    let said = restore("stock.enc", "--trust-config --allow-unauthenticated").ok().stdout;
    assert!(!said.contains("healthy") && !apps.env.path("acted").exists(), "{said}");
    assert_eq!(apps.text("web/file"), "content");
    // Ours says who made it.
    remove(&apps.env, "web");
    let said = restore("ours.tar.zst.enc", "--trust-config").ok().stdout;
    assert!(said.contains("healthy: 1 check passed") && apps.env.path("acted").exists(), "{said}");
    // And without its HMAC no more.
    remove(&apps.env, "acted");
    remove(&apps.env, "web");
    remove(&apps.env, "ours.tar.zst.enc.hmac");
    restore("ours.tar.zst.enc", "--trust-config --allow-unauthenticated").ok();
    assert!(!apps.env.path("acted").exists() && apps.env.path("web/file").exists());
}
