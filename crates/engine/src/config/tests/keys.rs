//! What an app is made of beside its files and services.

use super::*;
use crate::report::CompressionKind;

const WHOLE: &str = r#"
backup_dir: /var/backups
destinations:
  local: { url: /srv/backups }
  usb: { url: "file:///mnt/my%20disk", form: archive, require_mount: true }
  old: { url: /srv/old, enabled: false }
apps:
  shop:
    sources:
      conf: { files: { root: /srv/shop/conf, exclude: ["*.tmp"], at: ".", stop: [mailer] } }
      media: { files: { root: /srv/shop/media/, at: state/media/ } }
      db: { sqlite: { path: /srv/shop/media/shop.db, busy_timeout: 5s, merge_key: { servers: [host, port] } } }
    services:
      units: [web.service]
      commands:
        worker: { stop: [w, stop], start: [w, start], freeze: [w, hold], thaw: [w, go] }
        mailer: { stop: [m, stop], start: [m, start] }
      restore_stop: [web.service]
      freeze: [worker, web.service]
      freeze_max: 30s
    health:
      - { http: "http://h/", token_file: /etc/lifeboat/health }
    after_restore:
      - { http: "http://h/api", method: POST, status: 201, token_file: /etc/lifeboat/api, expect: contains ok }
      - { command: [/bin/check], timeout: 5s }
      - { sql: { db: db, query: select count(*) from users }, expect: "> 0" }
    version: { sql: { db: db, query: select version from meta } }
    required: [db, "conf/*.yml"]
    parts: { servers: { db: [servers, "server_*"], conf: ["keys/**"] } }
    name: "{app}_{yyyymmdd}"
    compression: gzip
    compression_level: 9
    backup_dir: .
    exclude_tables: [metrics_*]
    exclude_patterns: ["*.log", "*.tmp"]
    destinations: [usb, old, local]
    verification: { on_create: false }
    keep_replaced: forever
  plain:
    enabled: false
    sources: { db: { sqlite: { path: /srv/plain.db } } }
"#;

fn files(source: &Source) -> &FilesSource {
    match source {
        Source::Files(files) => files,
        _ => panic!("no files"),
    }
}

fn service_names(services: &[Service]) -> Vec<&str> {
    services.iter().map(|service| service.name.as_str()).collect()
}

/// Shows P1.
#[test]
fn every_key_of_an_app_is_read() {
    let config = load(WHOLE).unwrap();
    let shop = &config.apps["shop"];
    let conf = files(&shop.sources["conf"]);
    assert_eq!((conf.at.as_deref(), &conf.exclude[..]), (Some(""), &words("*.tmp *.log")[..]));
    assert_eq!(service_names(&conf.stop), ["mailer"]);
    let media = files(&shop.sources["media"]);
    assert_eq!((media.at.as_deref(), &media.exclude[..]), (Some("state/media"), &words("*.log *.tmp")[..]));
    assert_eq!(media.root.as_os_str(), "/srv/shop/media");
    let db = |path: &str, secs, keys: &[&str]| {
        let merge_key = keys.iter().map(|table| ((*table).to_owned(), words("host port"))).collect();
        Source::Sqlite(SqliteSource { path: path.into(), busy_timeout: Duration::from_secs(secs), merge_key })
    };
    assert_eq!(shop.sources["db"], db("/srv/shop/media/shop.db", 5, &["servers"]));
    assert_eq!(service_names(&shop.services), ["web.service"]);
    assert_eq!(service_names(&shop.freeze), ["worker", "web.service"]);
    let ServiceKind::Commands { freeze, thaw, .. } = &shop.freeze[0].kind else { panic!("a unit") };
    assert_eq!((freeze, thaw), (&Some(words("w hold")), &Some(words("w go"))));
    assert_eq!(shop.freeze_max, Duration::from_secs(30));
    assert_eq!(shop.required, ["db", "conf/*.yml"]);
    assert_eq!(shop.parts["servers"]["db"], ["servers", "server_*"]);
    assert_eq!(shop.parts["servers"]["conf"], ["keys/**"]);
    assert_eq!(shop.archive_name.as_deref(), Some("{app}_{yyyymmdd}"));
    assert_eq!((shop.compression, shop.compression_level), (Some(CompressionKind::Gzip), Some(9)));
    assert_eq!(shop.backup_dir.as_deref(), Some(Path::new(".")));
    assert_eq!(shop.exclude_tables, ["metrics_*"]);
    assert_eq!(shop.destinations, ["usb", "local"], "in their order, without the one that is not enabled");
    assert!(shop.is_enabled && !shop.verify_on_create && shop.keep_replaced == Keep::Forever);

    let plain = &config.apps["plain"];
    assert!(!plain.is_enabled && plain.verify_on_create && plain.freeze.is_empty());
    assert_eq!(plain.sources["db"], db("/srv/plain.db", 60, &[]));
    assert_eq!(plain.backup_dir.as_deref(), Some(Path::new("/var/backups")), "as the file says for all");
    assert_eq!((&plain.archive_name, plain.compression, &plain.version), (&None, None, &None));
    assert_eq!(plain.freeze_max, Duration::from_secs(300));

    let usb = &config.destinations["usb"];
    assert_eq!((usb.dir.as_path(), usb.require_mount, usb.is_enabled), (Path::new("/mnt/my disk"), true, true));
    assert!(!config.destinations["local"].require_mount && !config.destinations["old"].is_enabled);
}

/// Shows P1.
#[test]
fn every_kind_of_check_and_version_is_read() {
    let config = load(WHOLE).unwrap();
    let shop = &config.apps["shop"];
    let secs = Duration::from_secs;
    let query = |query: &str| ("db".to_owned(), query.to_owned());
    let http = Ask::Http {
        url: "http://h/api".to_owned(),
        method: "POST".to_owned(),
        status: 201,
        token_file: Some("/etc/lifeboat/api".into()),
    };
    let (db, count) = query("select count(*) from users");
    let expected = [
        Check { ask: http, expect: Some(Expect("contains ok".to_owned())), timeout: secs(60) },
        Check { ask: Ask::Command(words("/bin/check")), expect: None, timeout: secs(5) },
        Check { ask: Ask::Sql { db, query: count }, expect: Some(Expect("> 0".to_owned())), timeout: secs(60) },
    ];
    assert_eq!(shop.after_restore, expected);
    // What is expected may also stand in the query.
    let (beside, inside) = ("from users }, expect: \"> 0\" }", "from users, expect: \"> 0\" } }");
    let inside = load(&WHOLE.replace(beside, inside)).unwrap();
    assert!(WHOLE.contains(beside) && inside.apps["shop"].after_restore == expected);
    let (db, version) = query("select version from meta");
    assert_eq!(shop.version, Some(VersionFrom::Sql { db, query: version }));
    let version = |text: &str| load(&app(&format!("    version: {text}\n"))).unwrap().apps["web"].version.clone();
    assert_eq!(version("{ command: [a, -v] }"), Some(VersionFrom::Command(words("a -v"))));
    assert_eq!(version("{ file: /srv/VERSION }"), Some(VersionFrom::File("/srv/VERSION".into())));
    let files = ["/etc/lifeboat/api", "/etc/lifeboat/health"].map(PathBuf::from);
    assert_eq!(config.secret_files(), files);
    assert!(load(FULL).unwrap().secret_files().is_empty());
}

/// Shows P1.
#[test]
fn a_mistake_in_a_new_key_is_an_error_with_its_place() {
    for (more, expected) in [
        ("services: { units: [a.service], freeze: [a] }", "4:46: unknown service `a` (did you mean `a.service`?)"),
        ("services: { freeze_max: 0s }", "4:29: `0s` is no time at all"),
        (
            "services: { commands: { a: { stop: [a], start: [a], freeze: [a] } } }",
            "4:29: the key `thaw` is missing, expected both `freeze` and `thaw`",
        ),
        ("services: { commands: { a: { stop: [a], start: [a], thaw: [a] } } }", "4:29: the key `freeze` is missing"),
        ("health: [ { command: [a], token_file: /t } ]", "4:43: `token_file` belongs to `http`"),
        ("health: [ { http: \"http://h\", token_file: t } ]", "4:47: `t` is no absolute path"),
        (
            "health: [ { http: \"http://me:secret@h\", token_file: /t } ]",
            "4:57: the URL holds a password already, expected that or a `token_file`",
        ),
        ("after_restore: [ {} ]", "4:22: a check has no kind, expected `http`, `command` or `sql`"),
        ("after_restore: [ { http: \"http://h\", command: [a] } ]", "4:22: a check has two kinds"),
        ("after_restore: [ { http: h } ]", "4:30: `h` is no URL to ask"),
        (
            "after_restore: [ { http: \"http://h\", method: PUT } ]",
            "4:50: unknown value `PUT`, expected one of: GET, POST",
        ),
        ("after_restore: [ { command: [a], method: GET } ]", "4:46: `method` belongs to `http`"),
        ("after_restore: [ { command: [a], status: 200 } ]", "4:46: `status` belongs to `http`"),
        ("after_restore: [ { command: [a], expect: \"> x\" } ]", "4:46: `x` is no number, expected one after `>`"),
        ("after_restore: [ { command: [a], expect: \">= \" } ]", "4:46: `` is no number, expected one after `>=`"),
        ("after_restore: [ { command: [a], expect: \"= nan\" } ]", "4:46: `nan` is no number"),
        ("after_restore: [ { command: [a], expect: \"contains \" } ]", "4:46: there is no text"),
        ("after_restore: [ { command: [a], expect: \" \" } ]", "4:46: nothing is expected of the answer"),
        ("after_restore: [ { sql: { db: a, query: x } } ]", "4:35: unknown database `a`, expected one of: none"),
        ("after_restore: [ { sql: { db: d, query: x, expect: \"> x\" } } ]", "4:56: `x` is no number"),
        (
            "after_restore: [ { sql: { db: d, query: x, expect: \"1\" }, expect: \"1\" } ]",
            "4:56: `expect` stands twice, expected it in `sql` or beside it",
        ),
        (
            "version: { sql: { db: d, query: x, expect: \"1\" } }",
            "4:40: unknown key `expect`, expected one of: db, query",
        ),
        ("version: {}", "4:14: a version has no kind, expected `command`, `sql` or `file`"),
        ("version: { command: [a], file: /v, sql: { db: a, query: q } }", "4:14: a version has several kinds"),
        ("version: { file: v }", "4:22: `v` is no absolute path"),
        ("required: [b]", "4:16: unknown source `b`, expected one of: a"),
        ("required: [b/x]", "4:16: unknown source `b`"),
        ("required: [\"a/[z-a]\"]", "4:16: the pattern `[z-a]` makes no sense"),
        ("parts: { a: { a: [x] } }", "4:14: a source is called `a` already, expected another name"),
        ("parts: { p: { b: [x] } }", "4:19: unknown source `b`, expected one of: a"),
        ("parts: { p: { a: [] } }", "4:22: nothing stands here, expected at least one table or pattern"),
        ("parts: { p: {} }", "4:14: the part `p` is empty"),
        ("parts: { a/b: { a: [x] } }", "4:14: the name `a/b` cannot be used"),
        ("name: \"{app}-{day}\"", "4:11: unknown placeholder `{day}`, expected one of: {app}, {date}"),
        ("name: a/b", "4:11: the name holds `/`"),
        ("compression: zip", "4:18: unknown value `zip` (did you mean `gzip`?), expected one of: zstd, gzip"),
        ("compression_level: 20", "4:24: 20 is no level of zstd, expected 1 to 19"),
        ("compression_level: 0", "4:24: 0 is no level of zstd"),
        ("compression_level: x", "4:24: wrong type, expected a whole number"),
        ("backup_dir: here", "4:17: `here` is no such directory, expected an absolute path, or `.`"),
        ("exclude_tables: [\"\"]", "4:22: `` is no table"),
        ("exclude_patterns: [\"[z-a]\"]", "4:24: the pattern `[z-a]` makes no sense"),
        ("destinations: [local]", "4:20: unknown destination `local`, expected one of: none"),
        ("enabled: 7", "4:14: wrong type, expected true or false"),
        ("verification: { on_creat: true }", "4:21: unknown key `on_creat` (did you mean `on_create`?)"),
    ] {
        is_refused(&app(&format!("    {more}\n")), expected);
    }
    let gzip = app("    compression: gzip\n    compression_level: 10\n");
    is_refused(&gzip, "5:24: 10 is no level of gzip, expected 1 to 9");
    is_refused(&format!("backup_dir: here\n{}", app("")), "1:13: `here` is no such directory");
}

/// Shows D15.
#[test]
fn a_mistake_in_a_source_that_a_program_prints_is_an_error_with_its_place() {
    for (sources, expected) in [
        ("a: { mariadb: {} }", "4:10: it names no database, expected `databases: [...]`, or one in `url`"),
        (
            "a: { mariadb: { url: \"postgres:///x\" } }",
            "4:28: expected a URL such as mariadb://user@host:3306/database",
        ),
        ("a: { mariadb: { url: \"mariadb://u:secret@h/x\" } }", "4:28: a password stands in it"),
        ("a: { mariadb: { databases: [x, x] } }", "4:38: `x` stands twice"),
        ("a: { mariadb: { databases: [SYS] } }", "4:35: the server makes this one by itself"),
        ("a: { mariadb: { databases: [\"\"] } }", "4:35: `` is no name of a database"),
        ("a: { mariadb: { databases: [x], password_file: y } }", "4:54: `y` is no absolute path"),
        (
            "{ a: { mariadb: { databases: [x] } }, b: { mariadb: { databases: [y, x] } } }",
            "4:48: the source `a` has the database `x` too",
        ),
        ("a: { command: {} }", "4:21: the key `run` is missing"),
        ("a: { command: { run: [] } }", "4:28: the command is empty"),
        ("a: { command: { run: [./x] } }", "4:28: `./x` is a relative path"),
        ("a: { command: { run: [x], restore: [] } }", "4:42: the command is empty"),
        ("a: { command: { run: [x], timeout: 0s } }", "4:42: `0s` is no time at all"),
        (
            "{ a: { files: { root: /x, at: command/b } }, b: { command: { run: [x] } } }",
            "4:37: `command/b` is where the source `b` stands",
        ),
    ] {
        is_refused(&format!("apps:\n  web:\n    sources:\n      {sources}\n"), expected);
    }
    for sources in [
        "{ a: { mariadb: { url: \"mysql://h/x\" } }, b: { mariadb: { url: \"mariadb:///x\" } } }\n    required: [a/x]",
        "{ a: { command: { run: [x] } }, b: { command: { run: [x], restore: [y, z], timeout: 5m } } }",
    ] {
        load(&format!("apps:\n  web:\n    sources:\n      {sources}\n")).unwrap();
    }
    let part = "apps:\n  web:\n    sources: { a: { command: { run: [x] } } }\n    parts: { p: { a: [x] } }\n";
    is_refused(part, "4:19: `a` has no parts");
}

/// Shows P1.
#[test]
fn a_mistake_in_a_source_is_an_error_with_its_place() {
    for (sources, expected) in [
        ("a: {}", "4:10: a source has no kind, expected `files`, `sqlite`, `postgres`, `mariadb` or `command`"),
        ("a: { files: { root: / }, sqlite: { path: /x } }", "4:10: a source has two kinds"),
        (
            "a: { mongodb: {} }",
            "4:12: unknown key `mongodb`, expected one of: files, sqlite, postgres, mariadb, command",
        ),
        ("a: { sqlite: { path: x } }", "4:28: `x` is no absolute path"),
        ("a: { sqlite: { path: / } }", "4:28: `/` is no database"),
        ("a: { sqlite: { path: /x, busy_timeout: 1 } }", "4:46: `1` is no time"),
        ("a: { files: { root: /x/../y } }", "4:27: `/x/../y` holds `..`, expected the path itself"),
        ("a: { files: { root: /x, at: ../y } }", "4:35: `../y` is no place in a snapshot"),
        ("a: { files: { root: /x, at: /y } }", "4:35: `/y` is no place in a snapshot"),
        ("a: { files: { root: /x, at: \"\" } }", "4:35: `` is no place in a snapshot"),
        ("a: { files: { root: /x, at: manifest.json } }", "4:35: the manifest stands at `manifest.json`"),
        ("a: { files: { root: /x/manifest.json, at: . } }", "4:49: the manifest stands at `manifest.json`"),
        ("a: { files: { root: /x, stop: [b.service] } }", "4:38: unknown service `b.service`"),
        (
            "{ a: { files: { root: /x, stop: [c.service] } } }\n    services: { units: [c.service], freeze: [c.service] }",
            "4:40: `c.service` stands still for the whole app by `freeze`, expected it in one of the two",
        ),
        (
            "{ a: { files: { root: /x, at: files/b } }, b: { files: { root: /y } } }",
            "4:37: `files/b` is where the source `b` stands, expected another place",
        ),
        (
            "{ a: { files: { root: /x, at: sqlite/b.db/c } }, b: { sqlite: { path: /y } } }",
            "4:37: `sqlite/b.db` is where the source `b` stands",
        ),
        (
            "{ a: { files: { root: /x } }, b: { files: { root: /x/y } } }",
            "4:57: `/x/y` and `/x` of the source `a` overlap, expected sources apart from each other",
        ),
        ("{ a: { files: { root: /x/y } }, b: { files: { root: /x/ } } }", "4:59: `/x` and `/x/y` of the source `a`"),
        ("{ a: { sqlite: { path: /x } }, b: { sqlite: { path: /x } } }", "4:59: `/x` and `/x` of the source `a`"),
        ("{ a: { files: { root: /x } }, b: { sqlite: { path: /x } } }", "4:58: `/x` and `/x` of the source `a`"),
        ("{ a: { sqlite: { path: /x } }, b: { files: { root: /x/y } } }", "4:58: `/x/y` and `/x` of the source"),
    ] {
        is_refused(&format!("apps:\n  web:\n    sources:\n      {sources}\n"), expected);
    }
    for sources in [
        "{ a: { files: { root: /x } }, b: { sqlite: { path: /x/y.db } } }",
        "{ b: { sqlite: { path: /x/y.db } }, c: { files: { root: /x } } }",
        "{ a: { files: { root: /x } }, b: { files: { root: /xy } } }",
        "{ a: { files: { root: /x, at: files/a } }, b: { files: { root: /y, at: files/a } } }",
        "{ a: { files: { root: /x, at: . } }, b: { files: { root: /y, at: ./ } } }",
        "{ a: { postgres: { url: \"postgres:///x\" } }, b: { postgres: { url: \"postgres://h/x\" } } }",
        "{ a: { postgres: { service: s, databases: [x, y] } } }\n    required: [a/y]\n    after_restore: [ { sql: { db: y, query: q } }, { sql: { db: a/x, query: q } } ]",
    ] {
        load(&format!("apps:\n  web:\n    sources:\n      {sources}\n")).unwrap();
    }
    let two_apps =
        "apps:\n  a: { sources: { s: { files: { root: /x } } } }\n  b: { sources: { s: { files: { root: /x } } } }";
    load(two_apps).unwrap();
}

/// Shows D1, D15.
#[test]
fn a_mistake_in_a_source_of_dumps_is_an_error_with_its_place() {
    for (sources, expected) in [
        ("a: { postgres: {} }", "4:10: it names no database, expected `databases: [...]`, or one in `url`"),
        ("a: { postgres: { url: x } }", "4:29: expected a URL such as postgres://user@host:5432/database"),
        ("a: { postgres: { url: \"postgres://u:secret@h/x\" } }", "4:29: a password stands in it"),
        ("a: { postgres: { service: s, url: \"postgres:///x\" } }", "4:33: there is a `url` too"),
        ("a: { postgres: { databases: [x, x] } }", "4:39: `x` stands twice"),
        ("a: { postgres: { databases: [template0] } }", "4:36: new databases are made from this one"),
        ("a: { postgres: { databases: [x], globals: all } }", "4:49: passwords of roles are backed up into encrypted"),
        ("a: { postgres: { databases: [x], globals: some } }", "4:49: unknown value `some` (did you mean `none`?)"),
        ("a: { postgres: { databases: [x], password_file: y } }", "4:55: `y` is no absolute path"),
        ("a: { postgres: { databases: [x], format: tar } }", "4:48: unknown value `tar`"),
        (
            "{ a: { postgres: { databases: [x] } }, b: { postgres: { databases: [y, x] } } }",
            "4:49: the source `a` has the database `x` too",
        ),
        (
            "{ a: { files: { root: /x, at: postgres/b/y } }, b: { postgres: { databases: [y] } } }",
            "4:37: `postgres/b` is where the source `b` stands",
        ),
        ("a: { mariadb: {} }", "4:10: it names no database, expected `databases: [...]`, or one in `url`"),
        (
            "a: { mariadb: { url: \"postgres:///x\" } }",
            "4:28: expected a URL such as mariadb://user@host:3306/database",
        ),
        ("a: { mariadb: { url: \"mariadb://u:secret@h/x\" } }", "4:28: a password stands in it"),
        ("a: { mariadb: { databases: [x, x] } }", "4:38: `x` stands twice"),
        ("a: { mariadb: { databases: [SYS] } }", "4:35: the server makes this one by itself"),
        ("a: { mariadb: { databases: [\"\"] } }", "4:35: `` is no name of a database"),
        ("a: { mariadb: { databases: [x], password_file: y } }", "4:54: `y` is no absolute path"),
        (
            "{ a: { mariadb: { databases: [x] } }, b: { mariadb: { databases: [y, x] } } }",
            "4:48: the source `a` has the database `x` too",
        ),
        ("a: { command: {} }", "4:21: the key `run` is missing"),
        ("a: { command: { run: [] } }", "4:28: the command is empty"),
        ("a: { command: { run: [./x] } }", "4:28: `./x` is a relative path"),
        ("a: { command: { run: [x], restore: [] } }", "4:42: the command is empty"),
        ("a: { command: { run: [x], timeout: 0s } }", "4:42: `0s` is no time at all"),
        (
            "{ a: { files: { root: /x, at: command/b } }, b: { command: { run: [x] } } }",
            "4:37: `command/b` is where the source `b` stands",
        ),
    ] {
        is_refused(&format!("apps:\n  web:\n    sources:\n      {sources}\n"), expected);
    }
}

/// Shows P1.
#[test]
fn a_mistake_in_a_destination_is_an_error_with_its_place() {
    for (destination, expected) in [
        ("{}", "1:20: the key `url` is missing"),
        ("{ url: here }", "1:27: this is no directory, expected an absolute path"),
        ("{ url: \"file://host/x\" }", "1:27: this is no directory"),
        ("{ url: \"s3://key:secret@host/x\" }", "1:27: a destination by `s3` is not there yet, expected an absolute"),
        ("{ url: /x, form: repository }", "1:37: the form `repository` is not there yet, expected `archive`"),
        ("{ url: /x, form: archiv }", "1:37: unknown form `archiv` (did you mean `archive`?)"),
        ("{ url: /x, require_mount: maybe }", "1:46: wrong type, expected true or false"),
        ("{ url: /x, retention: {} }", "1:31: unknown key `retention`"),
    ] {
        is_refused(&format!("destinations: {{ d: {destination} }}\n{}", app("")), expected);
    }
    let named = |names: &str| format!("destinations: {{ local: {{ url: /x }} }}\n{}", app(names));
    let unknown = "5:20: unknown destination `locl` (did you mean `local`?), expected one of: local";
    is_refused(&named("    destinations: [locl]\n"), unknown);
    is_refused(&named("    destinations: [local, local]\n"), "5:27: `local` stands twice");
}
