//! What is left out of every backup without being asked, and what merely looks
//! like it.

use super::{Apps, can, dated};
use crate::env::{Run, Said};

const ID: &str = "0123456789abcdef0123456789abcdef";
const YAML: &str = "backup_dir: DIR/root/top
destinations: { usb: { url: DIR/root/usb }, other: { url: DIR/root/var/other } }
apps:
  web:
    sources:
      root: { files: { root: DIR/root } }
      db: { sqlite: { path: DIR/root/var/app.db } }
    destinations: [usb]
    health: [{ http: 'http://127.0.0.1:1/', token_file: DIR/by-link/token }]
  mail:
    sources: { x: { files: { root: DIR/elsewhere } } }
    after_restore: [{ http: 'http://127.0.0.1:1/', token_file: DIR/root/mail.key }]
    backup_dir: DIR/root/mail-backups
";
/// What stays out, without the database that is a source of its own.
const SECRET: [&str; 11] = [
    "keys/token",
    "mail.key",
    "data/lock/state",
    "usb/whatever",
    "var/other/whatever",
    "top/whatever",
    "mail-backups/whatever",
    "var/x.db.bad-1771902000",
    "var/x.db.bad-1771902000-wal",
    "var/.lifeboat-0123456789abcdef0123456789abcdef/swap/old",
    ".conf.lifeboat-0123456789abcdef0123456789abcdef/lifeboat-stage",
];
/// What is the user's.
const TAKEN: [&str; 9] = [
    "var/x.bad-123",
    "var/x.db.bad-17719020001",
    "var/x.db.bad-1771902000.txt",
    ".lifeboat-notes",
    "var/.lifeboat-0123456789abcdef0123456789abcdef0/file",
    "a.tar.zst",
    "a.tar.zst.json",
    "F.json",
    "keys/token.pub",
];

fn apps() -> Apps {
    let apps = Apps::new(YAML);
    for path in SECRET {
        apps.env.write(format!("root/{path}"), "CANARY");
    }
    for path in TAKEN {
        apps.env.write(format!("root/{path}"), "the user's");
    }
    apps.env.write(format!("root/var/.lifeboat-{ID}/lifeboat-stage"), "CANARY");
    apps.env.write("root/var/app.db-journal.txt", "the user's");
    apps.database("root/var/app.db", 5);
    apps.env.write("elsewhere/x", "x");
    // A key by another name leads to the same file; a link in the root stays a link.
    apps.env.run("ln", ["-s", "root/keys", "by-link"]).ok();
    apps.env.write("outside", "CANARY");
    apps.env.run("ln", ["-s", "../outside", "root/link-to-outside"]).ok();
    apps.env.run("ln", ["-s", "keys/token", "root/link-to-token"]).ok();
    apps
}

/// Runs with the data directory inside the root.
fn inside(apps: &Apps, args: &str) -> Run {
    let data = apps.env.path("root/data");
    apps.env.command(args.split_whitespace()).env("LIFEBOAT_DATA_DIR", data).run()
}

fn withheld(said: &Said) -> u64 {
    said.json_lines().iter().find_map(|line| line["withheld"].as_u64()).unwrap()
}

/// Shows P8.
#[test]
fn nothing_that_is_left_out_is_in_the_archive_and_all_of_it_is_counted() {
    if !can("nothing_that_is_left_out_is_in_the_archive_and_all_of_it_is_counted") {
        return;
    }
    let apps = apps();
    let planned = withheld(&inside(&apps, "backup web --dry-run --json").ok());
    let said = inside(&apps, "backup web --json").ok();
    // Two keys, the data directory, two destinations, two backup directories, two files that a restore replaced, the
    // database; the stages count with the archives.
    assert_eq!((planned, withheld(&said)), (10, 10), "{}", said.stdout);
    let summary = said.json_lines().into_iter().find(|line| line["message_type"] == "summary").unwrap();
    assert_eq!(summary["own_archives"], 2, "{summary}");
    let archive = format!("root/usb/{}", dated("web"));
    apps.env.mkdir("out");
    apps.env.run("tar", ["--zstd", "-xf", &archive, "-C", "out"]).ok();
    let found = apps.env.run("grep", ["-r", "-l", "CANARY", "out/files"]).code(1).stdout;
    assert_eq!(found, "");
    let paths = apps.paths(&archive);
    for path in TAKEN.iter().chain(&["link-to-outside", "link-to-token", "var/app.db-journal.txt"]) {
        assert!(paths.contains(&format!("files/root/{path}")), "{path} is the user's: {paths:?}");
    }
    assert!(
        !paths.iter().any(|path| path.starts_with("files/root/var/app.db") && !path.ends_with(".txt")),
        "{paths:?}"
    );
    assert_eq!(apps.sql("out/sqlite/db.db", "SELECT count(*) FROM t"), "5");

    let said = inside(&apps, "backup web").ok().stdout;
    assert!(said.contains("left out without being asked: 10 entries"), "{said}");
    // Of what was never configured the same holds for the data directory.
    rustix::fs::rename(apps.env.path("lifeboat.yaml"), apps.env.path("off")).unwrap();
    inside(&apps, "backup root/data/lock root -o all.tar.zst").ok();
    assert!(!apps.paths("all.tar.zst").contains(&"files/root/data".to_owned()));
}

/// Shows P8, R3.
#[test]
fn a_full_restore_leaves_alone_what_was_left_out_with_and_without_configuration() {
    if !can("a_full_restore_leaves_alone_what_was_left_out_with_and_without_configuration") {
        return;
    }
    for is_configured in [true, false] {
        let apps = apps();
        // The data directory of the host that is restored lies elsewhere; this one is the old host's.
        inside(&apps, "backup web").ok();
        let archive = format!("root/usb/{}", dated("web"));
        if !is_configured {
            apps.remove("lifeboat.yaml");
        }
        apps.env.write("root/new", "goes");
        apps.env.write("root/a.tar.zst", "changed");
        apps.sql("root/var/app.db", "DELETE FROM t");
        // The check of the app cannot pass here.
        if is_configured {
            apps.configure(
                &YAML.replace("    health: [{ http: 'http://127.0.0.1:1/', token_file: DIR/by-link/token }]\n", ""),
            );
        }
        apps.run(&format!("restore {archive} --mode full --force --allow-unauthenticated")).ok();
        for path in SECRET {
            assert_eq!(apps.text(format!("root/{path}")), "CANARY", "{path}, configured: {is_configured}");
        }
        assert!(!apps.env.path("root/new").exists());
        assert_eq!(apps.text("root/a.tar.zst"), "the user's");
        assert_eq!(apps.sql("root/var/app.db", "SELECT count(*) FROM t"), "5");
        assert!(apps.env.path(&archive).exists());
    }
}

/// Shows P8, A1.
#[test]
fn archives_beside_what_is_backed_up_are_known_by_their_content() {
    if !can("archives_beside_what_is_backed_up_are_known_by_their_content") {
        return;
    }
    let apps = Apps::new(
        "apps: { web: { sources: { root: { files: { root: DIR/root } }, db: { sqlite: { path: DIR/app.db } } }, \
         backup_dir: DIR/root } }",
    );
    apps.env.write("root/a.tar.zst", "not ours");
    apps.env.write("root/web.json", "{}");
    apps.env.write("root/x.manifest.json", "{}");
    apps.database("app.db", 1);
    apps.run("backup web -o root").ok();
    apps.run("backup web --only db --bare -o root/bare.db").ok();
    // Named on the command line, it is only a place where ours may lie; configured, as a whole it would be none of it.
    let archive = apps.summary("backup ./root -o root/second.tar.zst", 0);
    assert_eq!(archive["own_archives"], 3, "the archive, the database and its manifest: {archive}");
    assert_eq!(
        apps.paths("root/second.tar.zst"),
        ["files/root", "files/root/a.tar.zst", "files/root/web.json", "files/root/x.manifest.json"]
    );
}
