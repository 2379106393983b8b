//! Where archives of apps go: destinations with their markers and sidecars,
//! backup directories, names, and what a kill leaves there.

use std::os::unix::fs::PermissionsExt as _;

use lifeboat_store::testing::{can_run, sweep};
use serde_json::Value;

use super::{Apps, clock, dated, lines, shop, texts};
use crate::faults::{calls, trace, traced};
use crate::fidelity::Mount;
use crate::in_place::can_mount;

/// Named in another order than the alphabet's: the archive is written to the first.
const TWO: &str = "destinations:
  usb: { url: DIR/usb }
  disk: { url: 'file://DIR/disk' }
apps:
  web: { sources: { conf: { files: { root: DIR/web } } }, destinations: [usb, disk] }
";

fn two() -> Apps {
    let apps = Apps::new(TWO);
    apps.env.write("web/secret-name", "content");
    apps
}

/// Shows P1, P2.
#[test]
fn an_archive_is_written_once_and_copied_with_a_sidecar_to_every_destination() {
    let apps = two();
    let summary = apps.summary("backup web", 0);
    assert_eq!(texts(summary["shipped"].as_array().unwrap(), "destination"), ["usb", "disk"]);
    let name = dated("web");
    assert_eq!(summary["archive"], apps.env.path("usb").join(&name).display().to_string());
    let archive = apps.env.read(format!("usb/{name}"));
    assert_eq!(archive, apps.env.read(format!("disk/{name}")));
    let sidecars = ["usb", "disk"].map(|dir| apps.text(format!("{dir}/{name}.json")));
    assert_eq!(sidecars[0], sidecars[1]);
    assert!(sidecars[0].len() <= 4096 && !sidecars[0].contains("secret-name") && !sidecars[0].contains("conf"));
    let sidecar: Value = serde_json::from_str(&sidecars[0]).unwrap();
    let head = apps.head(&format!("usb/{name}"));
    for key in ["id", "app", "host", "created", "outcome"] {
        assert_eq!(sidecar[key], head[key], "{key}");
    }
    let sum = apps.env.run("sha256sum", [format!("disk/{name}")]).ok().stdout;
    assert_eq!((&sidecar["size"], &sidecar["sha256"]), (&archive.len().into(), &sum[..64].into()), "{sidecar}");
    assert_eq!((&sidecar["form"], &sidecar["envelope"]), (&"archive".into(), &"none".into()));
    assert_eq!(sidecar.as_object().unwrap().len(), 10, "no key is told that this test does not know: {sidecar}");

    // The same snapshot in two places is one.
    assert_eq!(texts(&apps.listed(""), "destination"), ["disk", "usb"]);
    assert_eq!(apps.status("", 0)["apps"][0]["snapshots"], 1);
    apps.run("restore latest --to new").ok();
    assert_eq!(apps.text("new/files/conf/secret-name"), "content");
}

/// Shows P1, P2.
#[test]
fn a_destination_that_is_not_there_leaves_the_other_and_none_is_no_backup() {
    let apps = two();
    apps.env.write("file", "");
    apps.configure(&TWO.replace("DIR/usb", "DIR/file/usb"));
    let summary = apps.summary("backup web", 15);
    assert!(summary["shipped"][0]["error"].as_str().unwrap().contains("destination usb"), "{summary}");
    assert_eq!(summary["outcome"], "good");
    assert!(apps.env.path("disk").join(dated("web")).exists());
    let said = apps.run("backup web").code(15).stderr;
    assert!(said.contains("1 destination did not get it") && said.contains("is whole in "), "{said}");
    let status = apps.status("", 1);
    assert!(status["apps"][0]["places"][0]["error"].is_null() || status["apps"][0]["wrong"][0].is_string(), "{status}");

    apps.configure(&TWO.replace("DIR/usb", "DIR/file/usb").replace("DIR/disk", "DIR/file/disk"));
    let before = apps.env.names("");
    let said = apps.run("backup web").code(15).stderr;
    assert!(said.contains("nothing was written there"), "{said}");
    assert_eq!(apps.env.names(""), before);
}

/// Shows P1.
#[test]
fn a_destination_without_its_marker_is_never_taken_for_an_empty_one() {
    let apps = two();
    apps.run("backup web").ok();
    assert!(apps.env.path("usb/.lifeboat-destination").exists());
    // As if its file system were not mounted any more.
    rustix::fs::rename(apps.env.path("usb"), apps.env.path("elsewhere")).unwrap();
    apps.env.mkdir("usb");
    let summary = apps.summary("backup web", 15);
    assert!(summary["shipped"][0]["error"].as_str().unwrap().contains("its marker"), "{summary}");
    assert_eq!(apps.env.names("usb"), Vec::<String>::new());
    let said = apps.run("backup list").code(15).stderr;
    assert!(said.contains("destination usb") && said.contains("its marker .lifeboat-destination"), "{said}");
    let status = apps.status("web", 1);
    let wrong: Vec<&str> = status["apps"][0]["wrong"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(wrong.iter().filter(|line| line.starts_with("destination usb")).count(), 1, "told once: {wrong:?}");
    assert_eq!(apps.run("backup web --dry-run").exit_code(), 15);
    // It is back.
    std::fs::remove_dir(apps.env.path("usb")).unwrap();
    rustix::fs::rename(apps.env.path("elsewhere"), apps.env.path("usb")).unwrap();
    apps.run("backup web").ok();
    apps.run("status").ok();
}

/// Shows P1.
#[test]
fn a_destination_that_has_to_be_mounted_is_refused_while_it_is_not() {
    if !can_mount("a_destination_that_has_to_be_mounted_is_refused_while_it_is_not", &["mount", "umount"]) {
        return;
    }
    let apps = two();
    apps.configure(&TWO.replace("{ url: DIR/usb }", "{ url: DIR/usb/backups, require_mount: true }"));
    apps.env.mkdir("usb");
    let said = apps.run("backup web --to usb").code(15).stderr;
    assert!(said.contains("no file system is mounted at or above"), "{said}");
    assert_eq!(apps.env.names("usb"), Vec::<String>::new());
    let mount = Mount::new(&apps.env, "usb", &["-t", "tmpfs", "-o", "size=8m", "tmpfs"]);
    apps.run("backup web").ok();
    assert_eq!(apps.archives("usb/backups").len(), 1);
    drop(mount);
    assert_eq!(apps.summary("backup web", 15)["shipped"].as_array().unwrap().len(), 2);
    assert_eq!(apps.env.names("usb"), Vec::<String>::new());
}

/// Shows P1, P2.
#[test]
fn the_configuration_names_archives_and_says_how_they_are_compressed() {
    let apps = Apps::new(
        "apps:
  web:
    sources: { conf: { files: { root: DIR/web } } }
    name: 'web_{yyyymmdd}'
    compression: gzip
    compression_level: 9
    backup_dir: DIR/backups
",
    );
    let text: String = (0..20_000).map(|number| format!("{number} ")).collect();
    apps.env.write("web/text", &text);
    let size = |args: &str| apps.summary(args, 0)["size_bytes"].as_u64().unwrap();
    let best = size("backup web");
    assert_eq!(
        apps.env.names("backups"),
        [dated("web").replace("-backup-", "_").replace(".tar.zst", "").replacen('-', "", 2) + ".tar.gz"]
            .into_iter()
            .flat_map(|name| [name.clone(), name + ".json"])
            .collect::<Vec<_>>()
    );
    assert!(best < size("backup web --compression-level 1 -o fast.tar.gz"), "level 9 is taken from the configuration");
    // A suffix wins, and then the level of the other kind does not count.
    apps.run("backup web -o other.tar.zst").ok();
    apps.env.run("zstd", ["-tq", "other.tar.zst"]).ok();
}

/// Shows P2.
#[test]
fn a_name_that_is_taken_gets_the_time_and_then_a_number() {
    let apps = Apps::new("apps: { web: { sources: { conf: { files: { root: DIR/web } } }, name: web } }");
    apps.env.write("web/file", "x");
    apps.run("backup web").ok();
    assert!(apps.summary("backup web", 0)["archive"].as_str().unwrap().len() > "web.tar.zst".len());
    for seconds in 0..60 {
        let time = clock(&format!("+{seconds} seconds"), "%H%M%S");
        apps.env.write(format!("web-{time}.tar.zst"), "taken");
    }
    let archive = apps.summary("backup web", 0)["archive"].as_str().unwrap().to_owned();
    assert!(archive.ends_with("-2.tar.zst"), "{archive}");
}

/// Shows P1, P2.
#[test]
fn archives_go_where_the_command_line_else_the_app_else_the_top_says() {
    let apps = two();
    apps.summary("backup web --to disk", 0);
    assert!(!apps.env.path("usb").exists() && apps.archives("disk").len() == 1);
    let said = apps.run("backup web --to dsik").code(2).stderr;
    assert!(said.contains("there is no such destination") && said.contains("did you mean disk?"), "{said}");
    // --output wins over all, and what it names is no destination: no sidecar, no copy.
    let summary = apps.summary("backup web -o mine.tar.zst", 0);
    assert_eq!(summary["shipped"], serde_json::json!([]));
    assert!(!apps.env.path("usb").exists() && !apps.env.path("mine.tar.zst.json").exists());
    apps.env.mkdir("out");
    apps.run("backup web -o out").ok();
    assert_eq!(apps.env.names("out"), [dated("web")]);
    // A destination stays one, however it is named: there only a sidecar makes an archive known.
    apps.run("backup web -o disk/by-hand.tar.zst").ok();
    assert!(apps.env.path("disk/by-hand.tar.zst.json").exists());
    // What has the name of a sidecar and is none is not replaced.
    apps.env.write("disk/second.tar.zst.json", "mine");
    let said = apps.run("backup web -o disk/second.tar.zst").code(1).stderr;
    assert!(said.contains("is whole, and stays"), "{said}");
    assert_eq!(apps.text("disk/second.tar.zst.json"), "mine");
    // Moved here by hand, it is listed and never taken for good.
    std::fs::copy(apps.env.path("mine.tar.zst"), apps.env.path("disk/moved.tar.zst")).unwrap();
    let listed = apps.listed("");
    let outcome = |name: &str| {
        let found = listed.iter().find(|snapshot| snapshot["path"].as_str().unwrap().ends_with(name)).unwrap();
        found["outcome"].clone()
    };
    assert_eq!((outcome("moved.tar.zst"), outcome("by-hand.tar.zst")), (Value::Null, "good".into()));

    let apps = Apps::new(
        "backup_dir: DIR/top
apps:
  a: { sources: { conf: { files: { root: DIR/web } } } }
  b: { sources: { conf: { files: { root: DIR/web } } }, backup_dir: DIR/own }
  c: { sources: { conf: { files: { root: DIR/web } } }, backup_dir: . }
",
    );
    apps.env.write("web/file", "x");
    apps.run("backup").ok();
    let both = |app: &str| vec![dated(app), dated(app) + ".json"];
    assert_eq!((apps.env.names("top"), apps.env.names("own")), (both("a"), both("b")));
    assert!(apps.env.path(dated("c")).exists() && !apps.env.path(dated("c") + ".json").exists());
    // `.` is where somebody is.
    assert_eq!(texts(&apps.listed("c"), "app"), ["c"]);
}

/// Shows P2.
#[test]
fn a_bare_database_goes_to_every_destination_with_its_manifest() {
    if !can_run("a_bare_database_goes_to_every_destination_with_its_manifest", &["sqlite3"]) {
        return;
    }
    let apps = shop();
    apps.configure(
        "destinations: { a: { url: DIR/a }, b: { url: DIR/b }, c: { url: DIR/shop/shop.db/c } }
apps:
  shop:
    sources: { conf: { files: { root: DIR/shop/conf } }, db: { sqlite: { path: DIR/shop/shop.db } } }
    destinations: [a, b, c]
",
    );
    let summary = apps.summary("backup shop --only db --bare", 15);
    assert_eq!(texts(summary["shipped"].as_array().unwrap(), "destination"), ["c", "a", "b"], "{summary}");
    let name = dated("shop").replace(".tar.zst", "");
    for dir in ["a", "b"] {
        let names = [".lifeboat-destination".to_owned(), format!("{name}.db"), format!("{name}.manifest.json")];
        assert_eq!(apps.env.names(dir), names);
        let mode = apps.env.path(format!("{dir}/{name}.db")).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert_eq!(apps.env.read(format!("a/{name}.manifest.json")), apps.env.read(format!("b/{name}.manifest.json")));
    apps.run(&format!("backup verify b/{name}.db")).ok();
    // One that is left of a database that is gone does not become the manifest of another.
    apps.remove(&format!("a/{name}.db"));
    apps.run("backup shop --only db --bare --to a").ok();
    assert_eq!(apps.env.names("a").len(), 4);
}

/// Shows P2, A3.
#[test]
fn a_backup_to_two_destinations_killed_at_any_moment_leaves_no_half_archive() {
    const TEST: &str = "a_backup_to_two_destinations_killed_at_any_moment_leaves_no_half_archive";
    if !can_run(TEST, &["strace"]) {
        return;
    }
    let apps = two();
    apps.env.write("web/large", lifeboat_store::testing::Random::new(5).bytes(300_000));
    let reset = || {
        for dir in ["usb", "disk"] {
            std::fs::remove_dir_all(apps.env.path(dir)).unwrap_or(());
        }
        std::fs::remove_dir_all(apps.env.data_dir()).unwrap_or(());
    };
    let backup = ["backup", "web"];
    traced(&apps.env, &[], &backup).ok();
    let names = ["pwrite64", "write", "openat", "read", "fsync", "linkat", "fchmod", "unlink", "close", "mkdir"];
    let counts = calls(&trace(&apps.env));
    let of = |name: &&str| counts.get(*name).map(|count| (1..=*count).map(|time| ((*name).to_owned(), time)).collect());
    let cases: Vec<(String, usize)> = names.iter().filter_map(of).flat_map(|cases: Vec<_>| cases).collect();
    let (mut whole, mut without) = (0, 0);
    for number in sweep("a backup to two destinations, killed", cases.len(), 40) {
        let (name, time) = &cases[number];
        let what = format!("killed at {name} {time}");
        reset();
        let inject = format!("inject={name}:signal=KILL:when={time}");
        let code = traced(&apps.env, &["-e", &format!("trace={name}"), "-e", &inject], &backup).exit_code();
        assert!(code == 137 || code == 0, "{what}: {code}");
        for dir in ["usb", "disk"].into_iter().filter(|dir| apps.env.path(dir).exists()) {
            for archive in apps.archives(dir) {
                // What has a name is whole, and listed as good only with its sidecar.
                apps.run(&format!("backup verify {dir}/{archive}")).ok();
                let has_sidecar = apps.env.path(format!("{dir}/{archive}.json")).exists();
                let listed = lines(&apps.run("backup list --json").ok(), "snapshot");
                let this = listed.iter().find(|snapshot| snapshot["destination"] == dir).unwrap();
                assert_eq!(this["outcome"] == "good", has_sidecar, "{what}: {this}");
                (whole, without) = (whole + 1, without + usize::from(!has_sidecar));
            }
        }
        apps.run("backup web").ok();
        let later = ["usb", "disk"].map(|dir| (apps.env.names(dir), apps.archives(dir)));
        for (names, archives) in later {
            let known = |name: &String| {
                name == ".lifeboat-destination" || archives.iter().any(|archive| name.starts_with(archive.as_str()))
            };
            assert!(names.iter().all(known) && !archives.is_empty(), "{what}: {names:?}");
        }
        apps.run("status").ok();
    }
    assert!(whole > without, "some were killed after the first archive had its name");
}
