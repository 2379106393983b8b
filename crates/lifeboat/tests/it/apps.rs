//! Apps of `lifeboat.yaml`: what goes into their snapshots, where those go, and
//! what is told of them.
#![expect(clippy::unwrap_used, reason = "these are the helpers of tests")]

use std::path::PathBuf;

use lifeboat_store::testing::can_run;
use serde_json::Value;

use crate::env::{Run, Said, TestEnv};

mod destinations;
mod left_out;
mod places;
mod sources;
mod status;
mod stops;

/// A working directory with a configuration.
pub(crate) struct Apps {
    pub(crate) env: TestEnv,
}

impl Apps {
    /// With this `lifeboat.yaml`, in which `DIR` is the working directory.
    pub(crate) fn new(yaml: &str) -> Self {
        let apps = Self { env: TestEnv::new() };
        apps.configure(yaml);
        apps
    }

    pub(crate) fn configure(&self, yaml: &str) {
        let dir = self.env.path("").display().to_string();
        self.env.write("lifeboat.yaml", yaml.replace("DIR", dir.trim_end_matches('/')));
        self.env.set_mode("lifeboat.yaml", 0o600);
    }

    pub(crate) fn run(&self, args: &str) -> Run {
        self.env.lifeboat(args.split_whitespace())
    }

    /// The summary of a run with `--json`, which ends with this code.
    pub(crate) fn summary(&self, args: &str, code: i32) -> Value {
        let said = self.run(&format!("{args} --json")).code(code);
        lines(&said, "summary").pop().unwrap_or_else(|| panic!("no summary in {}", said.stdout))
    }

    /// The line of `status --json`, which ends with this code.
    pub(crate) fn status(&self, args: &str, code: i32) -> Value {
        lines(&self.run(&format!("status {args} --json")).code(code), "status").pop().unwrap()
    }

    /// What `backup list --json` says of snapshots.
    pub(crate) fn listed(&self, args: &str) -> Vec<Value> {
        lines(&self.run(&format!("backup list {args} --json")).ok(), "snapshot")
    }

    /// The head of an archive.
    pub(crate) fn head(&self, archive: &str) -> Value {
        self.listed(archive).pop().unwrap()
    }

    /// The paths in an archive, as it lists them.
    pub(crate) fn paths(&self, archive: &str) -> Vec<String> {
        let said = self.run(&format!("backup list {archive} --json")).ok();
        lines(&said, "entry").iter().map(|entry| entry["path"].as_str().unwrap().to_owned()).collect()
    }

    /// The only archive in a directory, as a path from the working directory.
    pub(crate) fn only_archive(&self, dir: &str) -> String {
        let archives = self.archives(dir);
        assert_eq!(archives.len(), 1, "{archives:?}");
        format!("{dir}/{}", archives[0])
    }

    /// The names of archives in a directory.
    pub(crate) fn archives(&self, dir: &str) -> Vec<String> {
        let names = self.env.names(dir).into_iter();
        names.filter(|name| name.ends_with(".tar.zst") || name.ends_with(".tar.gz")).collect()
    }

    pub(crate) fn text(&self, path: impl AsRef<std::path::Path>) -> String {
        String::from_utf8(self.env.read(path)).unwrap()
    }

    pub(crate) fn remove(&self, path: &str) {
        let path = self.env.path(path);
        if path.is_dir() { std::fs::remove_dir_all(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
    }

    /// A database with a table `t` of these many rows.
    pub(crate) fn database(&self, path: &str, rows: u32) -> PathBuf {
        let path = self.env.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let sql = format!(
            "CREATE TABLE t(x); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) \
             INSERT INTO t SELECT i FROM n"
        );
        self.env.run("sqlite3", [path.to_str().unwrap(), &sql]).ok();
        path
    }

    pub(crate) fn sql(&self, path: &str, sql: &str) -> String {
        self.env.run("sqlite3", [self.env.path(path).to_str().unwrap(), sql]).ok().stdout.trim().to_owned()
    }
}

/// Those of the JSON lines that are of this type.
pub(crate) fn lines(said: &Said, message_type: &str) -> Vec<Value> {
    said.json_lines().into_iter().filter(|line| line["message_type"] == message_type).collect()
}

/// The string at `key` of each value.
pub(crate) fn texts(values: &[Value], key: &str) -> Vec<String> {
    values.iter().map(|value| value[key].as_str().unwrap_or_default().to_owned()).collect()
}

/// An app of files and a database, whose archives go to `backups`.
pub(crate) const SHOP: &str = "backup_dir: DIR/backups
apps:
  shop:
    sources:
      conf: { files: { root: DIR/shop/conf } }
      media: { files: { root: DIR/shop/media } }
      db: { sqlite: { path: DIR/shop/shop.db, busy_timeout: 200ms } }
";

pub(crate) fn shop() -> Apps {
    let apps = Apps::new(SHOP);
    apps.env.write("shop/conf/shop.yml", "port: 80\n");
    apps.env.write("shop/media/a.jpg", "picture");
    apps.database("shop/shop.db", 3);
    apps
}

fn can(test: &str) -> bool {
    can_run(test, &["sqlite3"])
}

/// Shows P2.
#[test]
fn all_sources_of_an_app_are_in_one_snapshot() {
    if !can("all_sources_of_an_app_are_in_one_snapshot") {
        return;
    }
    let apps = shop();
    let summary = apps.summary("backup shop", 0);
    assert_eq!((&summary["outcome"], &summary["app"]), (&"good".into(), &"shop".into()), "{summary}");
    assert_eq!(summary["databases"][0]["rows"], 3, "{summary}");
    let archive = apps.only_archive("backups");
    assert_eq!(
        apps.paths(&archive),
        ["files/conf", "files/conf/shop.yml", "files/media", "files/media/a.jpg", "sqlite/shop.db"]
            .map(|path| path.replace("sqlite/shop.db", "sqlite/db.db"))
    );
    let head = apps.head(&archive);
    let sources = head["sources"].as_array().unwrap();
    let mut names = texts(sources, "name");
    names.sort();
    assert_eq!(names, ["conf", "db", "media"]);
    let db = sources.iter().find(|source| source["name"] == "db").unwrap();
    assert_eq!((&db["kind"], &db["details"]["database"]["tables"]["t"]), (&"sqlite".into(), &3.into()), "{db}");
    assert!(db["point"].is_string(), "a database has its moment: {db}");
    apps.run(&format!("backup verify {archive}")).ok();
}

const TWO: &str = "backup_dir: DIR/backups
apps:
  web: { sources: { conf: { files: { root: DIR/web } } } }
  mail: { sources: { conf: { files: { root: DIR/mail } } } }
  old: { sources: { conf: { files: { root: DIR/old } } }, enabled: false }
";

fn two() -> Apps {
    let apps = Apps::new(TWO);
    for app in ["web", "mail", "old"] {
        apps.env.write(format!("{app}/file"), app);
    }
    apps
}

/// Shows P2.
#[test]
fn without_a_name_all_enabled_apps_are_backed_up_and_one_that_fails_stops_no_other() {
    let apps = two();
    let said = apps.run("backup --json").ok();
    assert_eq!(texts(&lines(&said, "summary"), "app"), ["mail", "web"]);
    // A disabled one is backed up when it is named.
    assert_eq!(apps.summary("backup old", 0)["app"], "old");

    let apps = two();
    apps.remove("mail");
    let said = apps.run("backup --json").code(18);
    assert_eq!(texts(&lines(&said, "summary"), "app"), ["web"]);
    assert!(said.stderr.contains("\"code\":18"), "{}", said.stderr);
    assert_eq!(apps.archives("backups").len(), 1);

    // Of several codes the worst is returned: 18 and not 15.
    apps.configure(
        "destinations: { gone: { url: DIR/web/file/none } }
apps:
  web: { sources: { conf: { files: { root: DIR/web } } }, destinations: [gone] }
  mail: { sources: { conf: { files: { root: DIR/mail } } } }
",
    );
    apps.run("backup web").code(15);
    apps.run("backup").code(18);
}

/// Shows P2.
#[test]
fn names_are_apps_and_everything_else_is_a_path() {
    let apps = two();
    // A name that leads nowhere is a mistake and no path.
    let said = apps.run("backup wbe").code(2).stderr;
    assert!(said.contains("there is no app wbe") && said.contains("did you mean web?"), "{said}");
    assert!(said.contains("the apps are: mail, old, web"), "{said}");
    // Of a name and a path that are called the same, the path is written with its directory.
    assert_eq!(apps.summary("backup ./web", 0)["archive"], apps.env.path("").join(dated("web")).display().to_string());
    assert!(!apps.env.path("backups").exists());
    // Both at once: an app, and the paths together; an app that is named twice is backed up once.
    apps.env.write("other/file", "x");
    let said = apps.run("backup web other web ./mail --json").ok();
    assert_eq!(texts(&lines(&said, "summary"), "app"), ["web", "other"]);
    let other = lines(&said, "summary")[1]["archive"].as_str().unwrap().to_owned();
    assert_eq!(apps.paths(&other), ["files/mail", "files/mail/file", "files/other", "files/other/file"]);
    // One archive cannot take several.
    apps.run("backup web other -o one.tar.zst").code(2);
    // What is for apps only is refused with a path.
    for option in ["--only conf", "--to local"] {
        assert!(apps.run(&format!("backup ./web {option}")).code(2).stderr.contains("are for apps"));
    }
}

/// `NAME-backup-DATE.tar.zst`, today.
pub(crate) fn dated(name: &str) -> String {
    let today = clock("now", "%Y-%m-%d");
    format!("{name}-backup-{today}.tar.zst")
}

/// A time, as the program `date` says it.
pub(crate) fn clock(when: &str, format: &str) -> String {
    TestEnv::new().run("date", ["-u", "-d", when, &format!("+{format}")]).ok().stdout.trim().to_owned()
}

/// Shows P2.
#[test]
fn a_part_is_told_apart_and_never_the_latest() {
    if !can("a_part_is_told_apart_and_never_the_latest") {
        return;
    }
    let apps = shop();
    let summary = apps.summary("backup shop --only conf --only media", 0);
    assert_eq!(summary["outcome"], "scope");
    let id = &summary["id"].as_str().unwrap()[..8];
    let archive = apps.only_archive("backups");
    assert!(apps.paths(&archive).iter().all(|path| !path.starts_with("sqlite")));
    assert!(apps.run("backup list").ok().stdout.contains("  scope "));
    let said = apps.run("restore latest --to new").code(2).stderr;
    assert!(said.contains("there is no good snapshot"), "{said}");
    let status = apps.status("", 1);
    assert_eq!(
        (&status["apps"][0]["last_good"], &status["apps"][0]["last"]["outcome"]),
        (&Value::Null, &"scope".into())
    );
    apps.run(&format!("restore {id} --to new")).ok();
    assert_eq!(apps.env.names("new/files"), ["conf", "media"]);

    // All of it by name is the whole.
    assert_eq!(apps.summary("backup shop --only conf --only media --only db", 0)["outcome"], "good");
    apps.configure(&(SHOP.to_owned() + "  other: { sources: { x: { files: { root: DIR/shop/conf } } } }\n"));
    assert_eq!(lines(&apps.run("backup --only conf --json").code(2), "summary").len(), 1, "other has no such source");
    let said = apps.run("backup shop --only cnof").code(2).stderr;
    assert!(said.contains("shop has no source of that name") && said.contains("conf, db, media"), "{said}");
}

/// Shows P2.
#[test]
fn a_bare_database_stands_beside_its_manifest_and_nothing_else_can_be_bare() {
    use std::os::unix::fs::PermissionsExt as _;
    if !can("a_bare_database_stands_beside_its_manifest_and_nothing_else_can_be_bare") {
        return;
    }
    let apps = shop();
    let summary = apps.summary("backup shop --only db --bare -o shop.db", 0);
    assert_eq!((&summary["outcome"], &summary["verified"]), (&"scope".into(), &true.into()), "{summary}");
    for name in ["shop.db", "shop.manifest.json"] {
        assert_eq!(apps.env.path(name).metadata().unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    assert_eq!(apps.sql("shop.db", "SELECT count(*) FROM t"), "3");
    let manifest: Value = serde_json::from_slice(&apps.env.read("shop.manifest.json")).unwrap();
    let file = &manifest["files"][0];
    assert_eq!((&manifest["format"], &file["path"]), (&"lifeboat/1".into(), &"sqlite/db.db".into()), "{manifest}");
    let sum = apps.env.run("sha256sum", ["shop.db"]).ok().stdout;
    assert!(sum.starts_with(file["sha256"].as_str().unwrap()));
    apps.run("backup verify shop.db").ok();
    apps.env.write("shop/shop.db", "garbage");
    apps.run("restore shop.db --force --allow-unauthenticated").ok();
    assert_eq!(apps.sql("shop/shop.db", "SELECT count(*) FROM t"), "3");

    // Nothing is overwritten: neither the database nor the manifest of another.
    apps.run("backup shop --only db --bare -o shop.db").code(1);
    let said = apps.run("backup shop --only db --bare -o shop.sqlite").code(1).stderr;
    assert!(said.contains("shop.manifest.json exists already") && !apps.env.path("shop.sqlite").exists(), "{said}");
    for wrong in ["--only conf --bare", "--only conf --only db --bare"] {
        let said = apps.run(&format!("backup shop {wrong} -o other.db")).code(2).stderr;
        assert!(said.contains("--bare writes one database") && !apps.env.path("other.db").exists(), "{said}");
    }
    apps.run("backup shop --bare").code(2);
}
