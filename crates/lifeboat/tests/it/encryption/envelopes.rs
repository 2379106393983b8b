//! The envelopes, from the backup to the restore, by their names and content,
//! and with the programs that they are named after.

use lifeboat_store::testing::{Random, can_run};

use super::{
    GCM, IDENTITY, KEY, KINDS, OPENSSL, PASSPHRASE, RECIPIENT, RECIPIENTS, ending, env, lifeboat, on_terminal, remove,
    rename, stem, web,
};
use crate::apps::texts;
use crate::env::TestEnv;

fn data(env: &TestEnv) -> Vec<u8> {
    let content = Random::new(3).bytes(100_000);
    env.write("live/data/file", &content);
    env.write("live/data/sub/small", "small");
    content
}

/// Shows E1.
#[test]
fn each_envelope_is_made_listed_verified_and_restored_and_known_by_its_content() {
    for kind in KINDS {
        let env = env();
        let content = data(&env);
        let said = lifeboat(&env, "backup live/data", &kind.seal).ok().stdout;
        let name = format!("{}{}", stem("data"), kind.suffix);
        assert!(said.starts_with(&format!("Backup written to {name} (")), "{said}");
        assert!(said.contains(&format!("encrypted: {}\n", kind.envelope)) && said.contains("verified: every file"));
        let mut names = ending(&env, "", "");
        names.retain(|found| found.starts_with("data-"));
        let hmac = (kind.envelope == "openssl").then(|| format!("{name}.hmac"));
        let expected: Vec<_> = [name.clone()].into_iter().chain(hmac).chain([format!("{name}.json")]).collect();
        assert_eq!(names, expected);

        // Renamed, and without a sidecar, it is opened by what it begins with.
        let beside: &[&str] = if kind.envelope == "openssl" { &[".hmac"] } else { &[] };
        rename(&env, &name, "renamed.bin", beside);
        let said = lifeboat(&env, "backup list renamed.bin", &kind.open).ok().stdout;
        assert!(said.contains("files/data/sub/small"), "{said}");
        let said = lifeboat(&env, "backup verify renamed.bin", &kind.open).ok();
        assert!(
            said.stdout.contains("All 2 files verified") && !said.stdout.contains("authenticated"),
            "{}",
            said.stdout
        );

        // Restored beside what is live, and in its place.
        lifeboat(&env, "restore renamed.bin --to out", &kind.open).ok();
        assert!(env.read("out/files/data/file") == content, "{}", kind.envelope);
        env.write("live/data/file", "changed");
        let restore = "restore renamed.bin --force";
        // To a recipient anybody can encrypt: such an archive does not say by itself where its content goes.
        let anybody = kind.seal[0] == "--recipient";
        if anybody {
            let said = lifeboat(&env, restore, &kind.open).code(22).stderr;
            assert!(said.contains("--allow-unauthenticated"), "{said}");
            assert_eq!(env.read("live/data/file"), b"changed");
        }
        let more = if anybody { " --allow-unauthenticated" } else { "" };
        lifeboat(&env, &format!("{restore}{more}"), &kind.open).ok();
        assert!(env.read("live/data/file") == content, "{}", kind.envelope);
    }
}

/// Shows E1.
#[test]
fn names_say_the_compression_and_the_envelope_and_a_second_one_gets_the_time() {
    let env = env();
    env.write("data/file", "x");
    let stem = stem("data");
    for (kind, compression, suffix) in
        [(OPENSSL, "gzip", ".tar.gz.enc"), (RECIPIENTS, "zstd", ".tar.zst.age"), (GCM, "gzip", ".tomo-backup")]
    {
        let line = format!("backup data --no-verify-on-create --compression {compression}");
        lifeboat(&env, &line, &kind.seal).ok();
        lifeboat(&env, &line, &kind.seal).ok();
        let names = ending(&env, "", suffix);
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(names.contains(&format!("{stem}{suffix}")), "{names:?}");
        let other = names.iter().find(|name| **name != format!("{stem}{suffix}")).unwrap();
        let time = other.strip_prefix(&format!("{stem}-")).unwrap().strip_suffix(suffix).unwrap();
        assert!(time.len() == 6 && time.bytes().all(|byte| byte.is_ascii_digit()), "{other}");
    }
    // Archives of ours are left out of a backup of where they lie, with what stands beside them.
    let said = lifeboat(&env, "backup . -o all.tar.zst --json", &[]).ok().json_lines().pop().unwrap();
    assert_eq!(said["own_archives"], 6 + 6 + 2, "archives, sidecars and HMACs: {said}");
    // A file that is merely called so, or that is only encrypted, is the user's.
    remove(&env, &format!("{stem}.tomo-backup.json"));
    env.write("mine.tar.zst.enc", "x");
    let said = lifeboat(&env, "backup . -o more.tar.zst --json", &[]).ok().json_lines().pop().unwrap();
    assert_eq!(said["own_archives"], 14 - 2 + 1, "one is not known any more, and all.tar.zst is: {said}");
}

/// Shows E1.
#[test]
fn a_name_that_says_encrypted_is_refused_for_what_is_not() {
    let env = env();
    env.write("data/file", "x");
    for name in ["x.age", "x.tar.zst.age", "x.tar.gz.enc", "x.tomo-backup"] {
        for more in [&[][..], &["--no-encrypt"], &["--dry-run"]] {
            let said = lifeboat(&env, "backup data --output", &[&[name][..], more].concat()).code(2).stderr;
            assert!(said.contains("is that of an encrypted archive") && said.contains("add --encrypt"), "{said}");
            assert!(!env.path(name).exists());
        }
    }
    // The suffix chooses the compression through that of the envelope.
    lifeboat(&env, "backup data -o x.tar.gz.enc", &OPENSSL.seal).ok();
    lifeboat(&env, "backup data -o y.tar.gz.enc --compression zstd", &OPENSSL.seal).code(2);
    env.run("sh", ["-c", &format!("{} | gzip -t", decrypt("x.tar.gz.enc"))]).ok();
    // One database as it is has no envelope.
    let apps = web("envelope: openssl, key_file: DIR/key, enabled: false");
    let yaml = apps.text("lifeboat.yaml");
    apps.configure(&yaml.replace("sources: {", "sources: { db: { sqlite: { path: DIR/x.db } },"));
    let said = apps.run("backup web --only db --bare --encrypt").code(2).stderr;
    assert!(said.contains("(--bare) is not encrypted") && said.contains("--no-encrypt"), "{said}");
    let said = apps.run("backup web --recipient age1nonsense").code(2).stderr;
    assert!(said.contains("--recipient age1nonsense: it is no recipient of age"), "{said}");
    let said = apps.env.lifeboat(["backup", "web", "--recipient", IDENTITY]).code(2).stderr;
    assert!(said.contains("make a new one") && !said.contains(IDENTITY), "{said}");
}

fn decrypt(archive: &str) -> String {
    format!("openssl enc -d -aes-256-cbc -pbkdf2 -iter 100000 -pass file:key -in {archive}")
}

/// Shows E1.
#[test]
fn what_is_configured_says_whether_and_flags_say_otherwise() {
    let apps = web("envelope: openssl, key_file: DIR/key, iterations: 200000");
    let envelope = |line: &str| apps.summary(line, 0)["envelope"].clone();
    assert_eq!(envelope("backup web"), "openssl");
    assert_eq!(envelope("backup web --no-encrypt"), serde_json::Value::Null);
    assert_eq!(apps.archives("backups"), [format!("{}.tar.zst", stem("web"))]);
    let said = apps.run("backup web --no-encrypt --encrypt").code(2).stderr;
    assert!(said.contains("cannot be used with"), "{said}");
    // What is configured for one envelope is not used for another.
    assert_eq!(envelope(&format!("backup web --recipient {RECIPIENT}")), "age");
    apps.configure(&super::with_encryption("envelope: openssl, key_file: DIR/key, enabled: false"));
    assert_eq!(envelope("backup web"), serde_json::Value::Null);
    assert_eq!(envelope("backup web --encrypt"), "openssl");
    let shown = apps.run("config show").ok().stdout;
    assert!(shown.contains("iterations: 100000") && !shown.contains(KEY), "{shown}");
}

const TWO: &str = "destinations:
  usb: { url: DIR/usb }
  cloud: { url: DIR/cloud, encryption: required }
apps:
  web:
    sources: { conf: { files: { root: DIR/web } } }
    encryption: { envelope: openssl, key_file: DIR/key }
    destinations: [usb, cloud]
";

/// Shows E1, E6.
#[test]
fn every_copy_has_its_hmac_and_sidecar_and_a_destination_may_refuse_what_is_plain() {
    let apps = web("envelope: age");
    apps.configure(TWO);
    let summary = apps.summary("backup web", 0);
    assert_eq!(texts(summary["shipped"].as_array().unwrap(), "destination"), ["usb", "cloud"]);
    let name = format!("{}.tar.zst.enc", stem("web"));
    for end in ["", ".hmac", ".json"] {
        let file = format!("{name}{end}");
        assert_eq!(apps.env.read(format!("usb/{file}")), apps.env.read(format!("cloud/{file}")), "{file}");
    }
    apps.run(&format!("backup verify cloud/{name}")).ok();
    apps.env.write("web/file", "changed");
    apps.run("restore latest --force").ok();
    assert_eq!(apps.text("web/file"), "content");

    // Plain, the one gets it and the other does not.
    let summary = apps.summary("backup web --no-encrypt", 15);
    let refused = summary["shipped"][0]["error"].as_str().unwrap();
    assert!(refused.contains("destination cloud: it takes only encrypted archives"), "{summary}");
    assert_eq!((apps.archives("usb").len(), apps.archives("cloud").len()), (1, 0));
    assert_eq!(apps.run("backup web --no-encrypt --dry-run").exit_code(), 15);
    let said = apps.run("backup web --no-encrypt --to cloud").code(15).stderr;
    assert!(said.contains("add --encrypt, or leave that destination out with --to"), "{said}");
    assert_eq!(apps.archives("cloud").len(), 0);
}

/// Shows E1, E3.
#[test]
fn a_dry_run_asks_nobody_and_makes_no_key() {
    let apps = web("envelope: openssl, key_file: DIR/secret/new");
    apps.run("backup web --dry-run").ok();
    assert!(!apps.env.path("secret").exists() && !apps.env.path("backups").exists());
    apps.configure(&super::with_encryption("envelope: age"));
    let terminal = on_terminal(apps.env.command(["backup", "web", "--dry-run"]));
    let said = super::ended(terminal, 0);
    assert!(!said.to_lowercase().contains("password"), "{said}");
    // Nobody is there: no archive without its password.
    let said = apps.run("backup web").code(12).stderr;
    assert!(said.contains("there is no password to encrypt with") && said.contains("--password-file FILE"), "{said}");
    assert!(!apps.env.path("backups").exists());
}

/// Shows E1.
#[test]
fn encrypted_to_recipients_it_is_read_back_before_it_is_sealed() {
    let env = env();
    env.write("data/file", "x");
    // Nothing here opens it again, and it was compared all the same.
    let summary = lifeboat(&env, "backup data -o x.age --json", &RECIPIENTS.seal).ok().json_lines().pop().unwrap();
    assert_eq!(summary["verified"], true, "{summary}");
    let said = lifeboat(&env, "backup list x.age", &[]).code(12).stderr;
    assert!(said.contains("is encrypted (age), and there is no key for it") && said.contains("--identity-file FILE"));
    let said = lifeboat(&env, "backup list x.age", &PASSPHRASE.open).code(12).stderr;
    assert!(said.contains("it is encrypted to recipients"), "{said}");
    lifeboat(&env, "backup list x.age", &RECIPIENTS.open).ok();
}

/// Shows E1.
#[test]
fn the_programs_of_that_name_open_it_and_what_they_made_is_opened() {
    if !can_run("the_programs_of_that_name_open_it_and_what_they_made_is_opened", &["age", "openssl", "xxd"]) {
        return;
    }
    let env = env();
    env.write("data/file", "content");
    let lists = |command: &str| {
        let said = env.run("sh", ["-c", &format!("{command} | tar --zstd -xOf - files/data/file")]).ok();
        assert_eq!(said.stdout, "content", "{command}");
    };
    lifeboat(&env, "backup data -o x.tar.zst.age", &RECIPIENTS.seal).ok();
    lists("age -d -i identity x.tar.zst.age");
    lifeboat(&env, "backup data -o x.tar.zst.enc", &OPENSSL.seal).ok();
    lists(&decrypt("x.tar.zst.enc"));
    // The key of the HMAC follows on what openssl derives for itself.
    let hmac = "salt=$(xxd -s 8 -l 8 -p x.tar.zst.enc)
        key=$(openssl kdf -keylen 96 -kdfopt digest:SHA256 -kdfopt pass:\"$(cat key)\" -kdfopt hexsalt:$salt \
            -kdfopt iter:100000 PBKDF2 | tr -d ':\\n' | cut -c129-192)
        openssl dgst -sha256 -mac HMAC -macopt hexkey:$key x.tar.zst.enc | sed 's/.*= //' | cmp - x.tar.zst.enc.hmac";
    env.run("sh", ["-c", hmac]).ok();
    // A passphrase is typed into age.
    lifeboat(&env, "backup data -o y.age --no-verify-on-create", &PASSPHRASE.seal).ok();
    let mut terminal = on_terminal(env.program("age", ["-d", "-o", "y.tar.zst", "y.age"]));
    terminal.exp_string("passphrase").unwrap();
    terminal.send_line(super::PASSWORD).unwrap();
    super::ended(terminal, 0);
    lists("cat y.tar.zst");

    // What age made of a plain archive, by a header of its own.
    env.run("age", ["-r", RECIPIENT, "-o", "z.age", "y.tar.zst"]).ok();
    let said = lifeboat(&env, "backup verify z.age", &RECIPIENTS.open).ok().stdout;
    assert!(said.contains("1 file verified"), "{said}");
}
