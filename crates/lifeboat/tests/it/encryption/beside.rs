//! What stands beside an encrypted archive: enough to list it, age it and find
//! it without any key; written last, and never over another's.

use lifeboat_store::testing::can_run;
use serde_json::Value;

use super::{KINDS, RECIPIENT, ending, env, lifeboat, remove, rename, stem, web};
use crate::apps::{lines, texts};
use crate::faults::{calls, trace, traced};

fn sidecar(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// Shows E6.
#[test]
fn a_sidecar_says_the_envelope_its_iterations_and_which_key() {
    let mut ids = Vec::new();
    for kind in KINDS {
        let env = env();
        env.write("data/file", "x");
        lifeboat(&env, "backup data -o x --no-verify-on-create", &kind.seal).ok();
        let sidecar = sidecar(&env.read("x.json"));
        assert_eq!((&sidecar["envelope"], &sidecar["form"]), (&kind.envelope.into(), &"archive".into()), "{sidecar}");
        let iterations = match kind.envelope {
            "openssl" => 100_000.into(),
            "aes-256-gcm" => 600_000.into(),
            _ => Value::Null,
        };
        assert_eq!(sidecar["iterations"], iterations, "{sidecar}");
        let sum = env.run("sha256sum", ["x"]).ok().stdout;
        assert_eq!((&sidecar["size"], &sidecar["sha256"]), (&env.read("x").len().into(), &sum[..64].into()));
        assert!(!sidecar.to_string().contains("data/file") && env.read("x.json").len() <= 4096);
        ids.push(sidecar["key_id"].clone());
    }
    // Of a recipient, its sum; of a passphrase of age, nothing.
    let env = env();
    env.write("recipient", RECIPIENT);
    let sum = env.run("sha256sum", ["recipient"]).ok().stdout;
    assert_eq!((&ids[0], &ids[1]), (&sum[..16].into(), &Value::Null));
    for id in &ids[2..] {
        assert!(
            id.as_str().is_some_and(|id| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit())),
            "{id}"
        );
    }
}

/// Shows E6.
#[test]
fn archives_are_listed_counted_and_found_without_any_key() {
    for (encryption, suffix) in [
        ("envelope: openssl, key_file: DIR/key", ".tar.zst.enc"),
        ("recipients: [RECIPIENT]", ".tar.zst.age"),
        ("envelope: aes-256-gcm, iterations: 100000, password_file: DIR/password", ".tomo-backup"),
    ] {
        // Also where they lie in the current directory, which is no destination.
        for place in ["backups", ""] {
            let apps = web(&encryption.replace("RECIPIENT", RECIPIENT));
            if place.is_empty() {
                apps.env.write("lifeboat.yaml", apps.text("lifeboat.yaml").split_once('\n').unwrap().1);
            }
            let summary = apps.summary("backup web", 0);
            let id = summary["id"].as_str().unwrap()[..8].to_owned();
            for secret in ["key", "password", "identity"] {
                rename(&apps.env, secret, &format!("{secret}-away"), &[]);
            }
            let listed = apps.listed("");
            assert_eq!(texts(&listed, "app"), ["web"], "{listed:?}");
            assert_eq!((&listed[0]["outcome"], &listed[0]["envelope"]), (&"good".into(), &summary["envelope"]));
            let status = apps.status("", 0);
            assert_eq!(status["apps"][0]["last_good"]["id"], summary["id"], "{status}");
            // It is found by its id and as the latest; only to look into it takes a key.
            for name in [&id, "latest"] {
                let said = apps.run(&format!("backup list {name}")).code(12).stderr;
                // What keeps the key from being read is said, where something does.
                let is_named = said.contains(&format!("{}{suffix}", stem("web")));
                assert!(is_named || said.contains("could not read"), "{said}");
            }
            for secret in ["key", "password", "identity"] {
                rename(&apps.env, &format!("{secret}-away"), secret, &[]);
            }
            apps.run(&format!("backup list {id} --identity-file identity")).ok();
            // Without its sidecar, it is not known to be anybody's.
            let dir = if place.is_empty() { String::new() } else { format!("{place}/") };
            remove(&apps.env, &format!("{dir}{}{suffix}.json", stem("web")));
            assert_eq!(apps.listed("")[0]["outcome"], Value::Null);
        }
    }
}

const TWO: &str = "destinations: { usb: { url: DIR/usb }, disk: { url: DIR/disk } }
apps:
  web:
    sources: { conf: { files: { root: DIR/web } } }
    encryption: { envelope: openssl, key_file: DIR/key }
    destinations: [usb, disk]
";

/// Shows E6.
#[test]
fn what_authenticates_an_archive_that_is_gone_is_not_written_over() {
    let apps = web("envelope: age");
    apps.configure(TWO);
    let name = format!("{}.tar.zst.enc", stem("web"));
    apps.env.write(format!("disk/{name}.hmac"), "of another");
    apps.run("backup web").ok();
    assert!(apps.env.path(format!("usb/{name}.hmac")).exists());
    assert_eq!(apps.text(format!("disk/{name}.hmac")), "of another");
    assert!(!apps.env.path(format!("disk/{name}")).exists(), "it took another name there");
    let names = ending(&apps.env, "disk", ".enc");
    assert_eq!(ending(&apps.env, "disk", ".enc.hmac").len(), 2, "{names:?}");
    apps.run(&format!("backup verify disk/{}", names[0])).ok();
    // What is asked for by name is refused.
    apps.env.write("mine.enc.hmac", "of another");
    let said = apps.run("backup web -o mine.enc").code(1).stderr;
    assert!(said.contains("mine.enc.hmac exists already") && said.contains("no archive was made"), "{said}");
    assert!(!apps.env.path("mine.enc").exists() && apps.text("mine.enc.hmac") == "of another");
}

/// Shows E6, A3.
#[test]
fn killed_at_any_name_it_leaves_no_archive_that_counts_without_what_stands_beside_it() {
    const TEST: &str = "killed_at_any_name_it_leaves_no_archive_that_counts_without_what_stands_beside_it";
    if !can_run(TEST, &["strace"]) {
        return;
    }
    let apps = web("envelope: age");
    apps.configure(TWO);
    let backup = ["backup", "web", "--no-verify-on-create"];
    let reset = || {
        for dir in ["usb", "disk"] {
            std::fs::remove_dir_all(apps.env.path(dir)).unwrap_or(());
        }
        std::fs::remove_dir_all(apps.env.data_dir()).unwrap_or(());
    };
    traced(&apps.env, &["-e", "trace=linkat"], &backup).ok();
    let trace = trace(&apps.env);
    // In each place the archive first, and its sidecar last.
    let ends: Vec<&str> = trace
        .lines()
        .filter_map(|line| [".enc.hmac\"", ".enc.json\"", ".enc\""].into_iter().find(|end| line.contains(end)))
        .collect();
    let one = [".enc\"", ".enc.hmac\"", ".enc.json\""];
    assert_eq!(ends, [one, one].concat(), "{trace}");

    let (mut whole, mut half) = (0, 0);
    for time in 1..=calls(&trace)["linkat"] {
        reset();
        let inject = format!("inject=linkat:signal=KILL:when={time}");
        traced(&apps.env, &["-e", "trace=linkat", "-e", &inject], &backup).exit_code();
        let listed = lines(&apps.run("backup list --json").ok(), "snapshot");
        for snapshot in &listed {
            let path = snapshot["path"].as_str().unwrap();
            if snapshot["outcome"] == "good" {
                apps.run(&format!("restore {path} --to out-{time}-{whole}")).ok();
                whole += 1;
            } else {
                half += 1;
            }
        }
        apps.run("backup web").ok();
        apps.run("restore latest --force").ok();
        // That its key was never exported is all that is wrong.
        let said = apps.run("status").code(1).stdout;
        assert_eq!(said.matches("wrong:").count(), 1, "{said}");
    }
    assert!(whole > 0 && half > 0, "{whole} {half}");
}
