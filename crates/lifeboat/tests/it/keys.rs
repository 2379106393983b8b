//! `lifeboat key`, as a user would use it; stock `openssl` and `age` open what
//! an exported key is for.

use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

use crate::env::{Said, TestEnv};

/// An app `web` of one folder, whose backups go to `backups`; `encryption` is what is said of that.
fn app(encryption: &str) -> TestEnv {
    let env = TestEnv::new();
    env.write("app/app.conf", "port = 80\n");
    configure(&env, encryption);
    env
}

fn configure(env: &TestEnv, encryption: &str) {
    let dir = env.path("");
    let dir = dir.to_str().expect("temporary names are UTF-8").trim_end_matches('/');
    let encryption = encryption.replace("$DIR", dir);
    env.write(
        "lifeboat.yaml",
        format!(
            "apps:\n  web:\n    sources: {{ app: {{ files: {{ root: {dir}/app }} }} }}\n    backup_dir: {dir}/backups\n    \
             encryption: {encryption}\n"
        ),
    );
    env.set_mode("lifeboat.yaml", 0o644);
}

const OPENSSL: &str = "{ envelope: openssl, key_file: $DIR/secrets/web.key }";
const AGE: &str = "{ envelope: age, identity_file: $DIR/secrets/web.txt }";

fn mode(env: &TestEnv, path: &str) -> u32 {
    env.path(path).metadata().expect("it is there").mode() & 0o7777
}

/// The newest archive.
fn archive(env: &TestEnv) -> String {
    let names = env.names("backups");
    let mut all: Vec<_> = names.iter().filter(|name| name.ends_with(".age") || name.ends_with(".enc")).collect();
    all.sort_by_key(|name| {
        env.path("backups").join(name).metadata().and_then(|found| found.modified()).expect("it is there")
    });
    format!("backups/{}", all.last().expect("there is an archive"))
}

/// The lines that a person types of a page.
fn typed(page: &str) -> String {
    let (start, end) = (page.find("Key:").expect("a key"), page.find("(Spaces").expect("what follows the key"));
    page[start..end].replace("    ", " \t")
}

fn open_with_stock(env: &TestEnv, key: &str, archive: &str) {
    let args = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    if archive.ends_with(".age") {
        env.run("age", args(&format!("-d -i {key} -o opened.tar.zst {archive}"))).ok();
    } else {
        let line =
            format!("enc -d -aes-256-cbc -pbkdf2 -iter 100000 -pass file:{key} -in {archive} -out opened.tar.zst");
        env.run("openssl", args(&line)).ok();
    }
    let listed = env.run("tar", ["-tf", "opened.tar.zst"]).ok();
    assert!(listed.stdout.contains("app.conf"), "{}", listed.stdout);
    env.run("rm", ["opened.tar.zst"]).ok();
}

fn never_exported(said: &Said) -> bool {
    said.stderr.trim_end().lines().last().is_some_and(|line| line.contains("was never exported"))
}

/// Shows E7.
#[test]
fn a_key_goes_from_its_making_over_paper_to_a_new_machine() {
    for (encryption, path) in [(OPENSSL, "secrets/web.key"), (AGE, "secrets/web.txt")] {
        let env = app(encryption);
        let made = env.lifeboat(["key", "generate", "web"]).ok();
        assert_eq!(mode(&env, path), 0o600);
        assert_eq!(made.stdout.contains("recipient: age1"), path.ends_with("txt"), "{}", made.stdout);
        let again = env.lifeboat(["key", "generate"]).code(1);
        assert!(again.stderr.contains("key rotate web"), "{}", again.stderr);

        // Until it was exported, every backup and `status` say so.
        for _ in 0..2 {
            assert!(never_exported(&env.lifeboat(["backup", "web"]).ok()));
        }
        let status = env.lifeboat(["status"]).code(1);
        assert!(
            status.stdout.contains(
                "wrong: the key $DIR/secrets"
                    .replace("$DIR", env.path("").to_str().unwrap().trim_end_matches('/'))
                    .as_str()
            )
        );
        assert_eq!(
            env.lifeboat(["status", "--json"]).code(1).json_lines()[0]["apps"][0]["wrong"].as_array().unwrap().len(),
            1
        );
        env.lifeboat(["key", "status"]).code(1);

        env.lifeboat(["key", "export", "--output", "copy.key"]).ok();
        assert_eq!((mode(&env, "copy.key"), env.read("copy.key")), (0o600, env.read(path)));
        assert_eq!(env.lifeboat(["backup", "web"]).ok().stderr, "");
        env.lifeboat(["status"]).ok();
        let status = env.lifeboat(["key", "status", "--json"]).ok().json_lines();
        assert_eq!((&status[0]["keys"][0]["opens"], &status[0]["snapshots"]["encrypted"]), (&3.into(), &3.into()));
        open_with_stock(&env, "copy.key", &archive(&env));

        // A page, typed on another machine, of which nothing is left but the backups.
        let page = env.lifeboat(["key", "export", "web", "--paper"]).ok().stdout;
        assert!(page.contains(if path.ends_with("txt") { "age -d -i" } else { "openssl enc -d" }), "{page}");
        env.write("typed.txt", typed(&page));
        let secret = env.read(path);
        std::fs::remove_file(env.path(path)).unwrap();
        std::fs::remove_dir_all(env.data_dir()).unwrap();
        let imported = env.lifeboat(["key", "import", "typed.txt", "web"]).ok();
        assert!(imported.stdout.contains("it opens 3 of the 3 newest encrypted backups"), "{}", imported.stdout);
        assert_eq!(mode(&env, path), 0o600);
        assert!(secret.ends_with(env.read(path).as_slice()), "the line, and what stands above it of age");
        assert_eq!(env.lifeboat(["backup", "web"]).ok().stderr, "", "an imported key is somewhere else too");
        env.lifeboat(["restore", "latest", "--to", "back"]).ok();
        let again = env.lifeboat(["key", "import", "copy.key"]).ok();
        assert!(again.stdout.starts_with("It was there already"), "{}", again.stdout);
    }
}

/// Shows E7.
#[test]
fn no_key_is_put_where_the_backups_are_or_over_another_file() {
    let env = app(OPENSSL);
    env.lifeboat(["key", "generate", "web"]).ok();
    env.lifeboat(["backup", "web"]).ok();
    symlink(env.path("backups"), env.path("elsewhere")).unwrap();
    env.mkdir("backups/deeper");
    for output in ["backups/key", "elsewhere/key", "backups/deeper/key", "app/../backups/key"] {
        for command in [["key", "export", "web"].as_slice(), &["key", "generate"], &["key", "export", "--paper"]] {
            let said = env.lifeboat(command.iter().chain(&["--output", output])).code(2);
            assert!(said.stderr.contains("where the backups are"), "{}", said.stderr);
        }
    }
    assert!(!env.names("backups").iter().any(|name| name.contains("key")));
    // Nor where a destination was, or backups are seen, without a configuration.
    env.write("stick/.lifeboat-destination", "");
    env.write("loose/x-backup-2026-02-24.tar.zst.enc", "Salted__12345678");
    for output in ["stick/deeper/key", "loose/key"] {
        env.lifeboat(["key", "generate", "--output", output]).code(2);
    }
    // Over nothing.
    env.write("there", "mine");
    env.lifeboat(["key", "export", "web", "--output", "there"]).code(1);
    env.lifeboat(["key", "generate", "--output", "there"]).code(1);
    assert_eq!(env.read("there"), b"mine");
    // Not said where to.
    let said = env.lifeboat(["key", "export", "web"]).code(2);
    assert!(said.stderr.contains("--output") && said.stderr.contains("--paper"), "{}", said.stderr);
    env.lifeboat(["key", "export", "web", "--paper", "--json"]).code(2);
    // A source would pick it up.
    let said = env.lifeboat(["key", "export", "web", "-o", "app/copy"]).ok();
    assert!(said.stderr.contains("lies in the source app of web"), "{}", said.stderr);
    // The configuration leads there by a symlink: made it is not, used with a warning.
    configure(&env, "{ envelope: openssl, key_file: $DIR/elsewhere/web.key }");
    env.lifeboat(["key", "generate", "web"]).code(2);
    std::fs::remove_dir_all(env.path("backups")).unwrap();
    env.mkdir("backups");
    env.lifeboat(["backup", "web"]).code(2);
    env.lifeboat(["backup", "web", "--key-file", "backups/new.key"]).code(2);
    assert!(env.names("backups").is_empty());
    env.run("install", ["-m", "600", "secrets/web.key", "backups/web.key"]).ok();
    let said = env.lifeboat(["backup", "web"]).ok();
    assert!(said.stderr.contains("lies where the backups are"), "{}", said.stderr);
}

/// Shows E7.
#[test]
fn a_key_that_opens_nothing_is_not_imported_unasked_and_another_one_never_replaced() {
    for (encryption, path, kind) in [(OPENSSL, "secrets/web.key", "openssl"), (AGE, "secrets/web.txt", "age")] {
        let env = app(encryption);
        env.lifeboat(["key", "generate", "web"]).ok();
        env.lifeboat(["backup", "web"]).ok();
        env.lifeboat(["key", "generate", "-o", "other", "--envelope", kind]).ok();
        let said = env.lifeboat(["key", "import", "other", "web"]).code(1);
        assert!(said.stderr.contains("is not replaced"), "{}", said.stderr);
        let page = env.lifeboat(["key", "export", "web", "--paper"]).ok().stdout;
        env.run("mv", [path, "away"]).ok();
        let said = env.lifeboat(["key", "import", "other", "web"]).code(12);
        assert!(said.stderr.contains("opens none of the 1 newest"), "{}", said.stderr);
        // A slip of whoever typed the page.
        let page = typed(&page);
        let at = page.trim_end().rfind('\n').unwrap() - 8;
        let mut slipped = page.clone();
        slipped.replace_range(at..=at, if &page[at..=at] == "Q" { "R" } else { "Q" });
        env.write("slipped", slipped);
        env.lifeboat(["key", "import", "slipped", "web"]).code(12);
        assert!(!env.path(path).exists());
        env.lifeboat(["key", "import", "other", "web", "--force"]).ok();
        assert_eq!(mode(&env, path), 0o600);
        let said = env.lifeboat(["backup", "verify", &archive(&env)]).code(1);
        assert!(said.stderr.contains("key is wrong") || said.stderr.contains("no identity fits"), "{}", said.stderr);
        env.lifeboat(["key", "generate", "-o", "third", "--envelope", if kind == "age" { "openssl" } else { "age" }])
            .ok();
        env.lifeboat(["key", "import", "third", "web"]).code(2);
    }
}

/// Shows E7.
#[test]
fn a_rotated_key_still_opens_older_backups_and_is_itself_never_backed_up() {
    for (encryption, path) in [
        ("{ envelope: openssl, key_file: $DIR/app/web.key }", "app/web.key"),
        ("{ envelope: age, identity_file: $DIR/app/web.key }", "app/web.key"),
    ] {
        let env = app(encryption);
        let missing = env.lifeboat(["key", "rotate", "web"]).code(12);
        assert!(missing.stderr.contains("key generate web"), "{}", missing.stderr);
        env.lifeboat(["key", "generate", "web"]).ok();
        let mut archives = Vec::new();
        for rotation in 1..=3 {
            env.lifeboat(["backup", "web"]).ok();
            archives.push(archive(&env));
            let before = env.read(path);
            let said = env.lifeboat(["key", "rotate", "web"]).ok();
            assert!(said.stdout.contains("still need it"), "{}", said.stdout);
            assert_ne!(env.read(path), before);
            let old = env.names("app").into_iter().find(|name| env.read(Path::new("app").join(name)) == before);
            let old = format!("app/{}", old.expect("the old key is kept"));
            assert_eq!((mode(&env, path), mode(&env, &old)), (0o600, 0o600));
            assert_eq!(env.names("app").len(), 2 + rotation);
        }
        for archive in &archives {
            env.lifeboat(["backup", "verify", archive]).ok();
        }
        let listed = env.lifeboat(["backup", "list", &archives[2]]).ok().stdout;
        assert!(listed.contains("app.conf") && !listed.contains("web.key"), "{listed}");
        // A full restore of a backup that knew none of them leaves them where they are.
        let all = env.names("app");
        env.lifeboat(["restore", &archives[0], "--mode", "full", "--force", "--allow-unauthenticated"]).ok();
        assert_eq!(env.names("app"), all);
        let keys = env.lifeboat(["key", "status", "--json"]).code(1).json_lines();
        let opens: Vec<_> =
            keys[0]["keys"].as_array().unwrap().iter().map(|key| key["opens"].as_u64().unwrap()).collect();
        assert_eq!(opens, [0, 1, 1, 1]);
        assert_eq!(keys[0]["wrong"].as_array().unwrap().len(), 4, "none was exported");
        // The old ones are exported one by one.
        let option = if path.ends_with("key") && encryption.contains("age") { "--identity-file" } else { "--key-file" };
        for (number, key) in keys[0]["keys"].as_array().unwrap().iter().enumerate() {
            let output = format!("copy-{number}");
            env.lifeboat(["key", "export", "web", option, key["path"].as_str().unwrap(), "-o", &output]).ok();
        }
        env.lifeboat(["key", "status"]).ok();
        open_with_stock(&env, "copy-3", &archives[0]);
    }
}

/// Shows E7.
#[test]
fn a_rotated_identity_says_which_recipient_to_replace() {
    let env = app(AGE);
    let recipient =
        |said: &Said| said.stdout.split_whitespace().find(|word| word.starts_with("age1")).unwrap().to_owned();
    let first = recipient(&env.lifeboat(["key", "generate", "web"]).ok());
    let encryption = |recipient: &str| format!("{{ recipients: [{recipient}], identity_file: $DIR/secrets/web.txt }}");
    configure(&env, &encryption(&first));
    env.lifeboat(["key", "export", "-o", "first"]).ok();
    let said = env.lifeboat(["key", "rotate", "web"]).ok();
    let second = recipient(&said);
    assert!(said.stderr.contains(&format!("in the place of {first}")), "{}", said.stderr);
    // Until then the old identity reads new archives back.
    let said = env.lifeboat(["backup", "web"]).ok();
    assert!(said.stdout.contains("verified: every file"), "{}", said.stdout);
    assert_eq!(said.stderr, "", "that key was exported");
    configure(&env, &encryption(&second));
    assert!(never_exported(&env.lifeboat(["backup", "web"]).ok()));
    // With a second recipient whose identity is elsewhere, nothing hangs on this host.
    env.run("age-keygen", ["-o", "offline"]).ok();
    let offline = env.run("age-keygen", ["-y", "offline"]).ok().stdout;
    configure(&env, &encryption(&format!("{second}, {}", offline.trim())));
    assert_eq!(env.lifeboat(["backup", "web"]).ok().stderr, "");
    env.lifeboat(["status"]).ok();
    let shown = env.lifeboat(["key", "show"]).ok().stdout;
    assert!(shown.contains(&format!("encrypted to {}, whose identity is not on this host", offline.trim())), "{shown}");
    // To recipients alone: this host has no key, and needs none.
    configure(&env, &format!("{{ recipients: [{}] }}", offline.trim()));
    assert_eq!(env.lifeboat(["backup", "web"]).ok().stderr, "");
    env.lifeboat(["key", "generate", "web"]).code(2);
    let status = env.lifeboat(["key", "status", "--json"]).code(1).json_lines();
    assert_eq!(status[0]["snapshots"]["elsewhere"], 1, "{}", status[0]);
    assert_eq!(status[0]["snapshots"]["unopened"].as_array().unwrap().len(), 3);
}

/// Shows E7.
#[test]
fn a_new_key_on_purpose_says_what_it_does_not_open() {
    let env = app(OPENSSL);
    env.lifeboat(["backup", "web"]).ok();
    let archive = archive(&env);
    env.run("mv", ["secrets/web.key", "lost"]).ok();
    let said = env.lifeboat(["backup", "web"]).code(12);
    assert!(said.stderr.contains("lifeboat key generate web"), "{}", said.stderr);
    let said = env.lifeboat(["key", "generate", "web"]).ok();
    assert!(said.stderr.contains("does not open 1 backup") && said.stdout.contains(&archive), "{}", said.stdout);
    let said = env.lifeboat(["key", "status", "web"]).code(1);
    assert!(said.stdout.contains("1 backup is encrypted, and no key here opens it"), "{}", said.stdout);
    env.lifeboat(["key", "export", "web", "--key-file", "lost", "-o", "found"]).ok();
    env.lifeboat(["backup", "verify", &archive, "--key-file", "found"]).ok();
}

/// Shows E7.
#[test]
fn a_key_is_made_without_a_configuration_and_never_shown() {
    let env = TestEnv::new();
    env.write("app/app.conf", "port = 80\n");
    env.lifeboat(["key", "generate"]).code(2);
    let made = env.lifeboat(["key", "generate", "-o", "id.txt"]).ok();
    let recipient = env.run("age-keygen", ["-y", "id.txt"]).ok().stdout;
    assert!(made.stdout.contains(recipient.trim()), "{}", made.stdout);
    let text = String::from_utf8(env.read("id.txt")).unwrap();
    assert!(text.starts_with("# created: 2") && text.contains("# public key: age1"), "{text}");
    env.lifeboat(["backup", "app", "--recipient", recipient.trim(), "-o", "a.tar.zst.age"]).ok();
    env.run("age", ["-d", "-i", "id.txt", "-o", "a.tar.zst", "a.tar.zst.age"]).ok();

    let env = app(AGE);
    let mut said = vec![env.lifeboat(["key", "generate", "web"]).ok()];
    env.lifeboat(["key", "export", "-o", "copy"]).ok();
    said.push(env.lifeboat(["backup", "web"]).ok());
    for command in ["show", "status", "rotate"] {
        said.push(env.lifeboat(["key", command, "web"]).ok());
    }
    said.push(env.lifeboat(["key", "show", "--json"]).ok());
    let all: String = said.iter().map(|said| said.stdout.clone() + &said.stderr).collect();
    assert!(!all.contains("AGE-SECRET-KEY"), "{all}");
    let notes = env.data_dir().join("keys");
    for entry in std::fs::read_dir(notes).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600, "{}", path.display());
        assert!(!String::from_utf8_lossy(&std::fs::read(path).unwrap()).contains("AGE-SECRET-KEY"));
    }
    let shown = env.lifeboat(["key", "show", "--json"]).ok().json_lines();
    let (new, old) = (&shown[0]["keys"][0], &shown[0]["keys"][1]);
    assert_eq!(
        (&new["mode"], &new["role"], &new["exported"]),
        (&"600".into(), &"current".into(), &serde_json::Value::Null)
    );
    assert!(old["exported"].is_string() && old["role"] == "old" && new["made"].is_string(), "{}", shown[0]);
}
