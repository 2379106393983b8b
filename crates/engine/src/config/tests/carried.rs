//! What a snapshot carries of its app, and what comes back of it.

use super::*;

const SECRETIVE: &str = r#"
destinations: { CANARY-destination: { url: /CANARY/destination } }
apps:
  shop:
    sources:
      conf: { files: { root: "/srv/ü\u2028x", at: ".", exclude: ["*.tmp"], stop: [db.service] } }
      db: { sqlite: { path: /srv/shop.db } }
      pg:
        postgres:
          url: "postgres://me@pg.example:5433/?sslmode=verify-ca&sslrootcert=/etc/CANARY-ca&options=-cCANARY"
          password_file: /etc/CANARY-pg
          databases: [orders, "a b"]
          bin_dir: /opt/CANARY-bin
          format: plain
          globals: none
      my:
        mariadb:
          url: "mariadb://me@my.example:3307/?ssl-ca=/etc/CANARY-ca"
          password_file: /etc/CANARY-my
          databases: [app]
          bin_dir: /opt/CANARY-bin
      printed: { command: { run: [shop, export], restore: [shop, "im port"], timeout: 5m } }
    services:
      units: [web.service, db.service]
      commands:
        worker: { stop: [w, stop], start: [w, "a \"b\"\n\u007f"], status: [w], freeze: [w, hold], thaw: [w, go] }
      restore_stop: [worker, web.service]
      freeze: [worker]
      timeout: 7s
      reload: { run: [nginx, -s, reload], on_failure: warn }
    health:
      - { http: "http://me:CANARY-password@h:80/up?key=CANARY-query#CANARY-part" }
      - { http: "http://h/ready", token_file: /etc/CANARY-health }
      - { command: [pg_isready] }
    after_restore:
      - { http: "https://h/api?key=CANARY-query", method: POST, token_file: /etc/CANARY-api, expect: contains ok }
      - { sql: { db: db, query: "select 1" }, expect: "= 1" }
      - { command: [check] }
    version: { command: [shop, --version] }
    required: [db]
    parts: { servers: { db: [servers] } }
    name: "{app}"
    compression: gzip
    compression_level: 9
    backup_dir: /CANARY/backups
    exclude_tables: [metrics_*]
    destinations: [CANARY-destination]
    keep_replaced: forever
"#;

fn shop() -> AppConfig {
    load(SECRETIVE).unwrap().apps["shop"].clone()
}

fn carried() -> serde_json::Value {
    serde_json::to_value(shop().carried()).unwrap()
}

fn back(json: serde_json::Value) -> Result<AppConfig> {
    serde_json::from_value::<Carried>(json).unwrap().into_app("shop")
}

/// Shows P9.
#[test]
fn nothing_secret_and_no_place_of_backups_is_carried() {
    let text = carried().to_string();
    assert!(!text.contains("CANARY"), "{text}");
    for kept in [
        "postgres://me@pg.example:5433/",
        "mariadb://me@my.example:3307/",
        "orders",
        "http://h:80/up",
        "http://h/ready",
        "https://h/api",
        "select 1",
        "metrics_*",
        "forever",
        "contains ok",
    ] {
        assert!(text.contains(kept), "{kept}: {text}");
    }
}

/// Only what is on the list: a new setting has to be added here, knowingly.
///
/// Shows P9.
#[test]
fn what_is_carried_is_on_a_list() {
    let json = carried();
    let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = [
        "sources",
        "services",
        "health",
        "after_restore",
        "version",
        "required",
        "parts",
        "name",
        "compression",
        "compression_level",
        "exclude_tables",
        "keep_replaced",
    ];
    expected.sort_unstable();
    let mut keys = keys;
    keys.sort_unstable();
    assert_eq!(keys, expected);
}

/// Shows P9.
#[test]
fn an_app_comes_back_as_it_was_without_what_was_left_out() {
    let mut expected = shop();
    expected.backup_dir = None;
    expected.destinations.clear();
    // Without what they send, these would never pass.
    expected.health.remove(0);
    expected.health.remove(0);
    expected.after_restore.remove(0);
    if let Some(Source::Postgres(postgres)) = expected.sources.get_mut("pg") {
        let kept = ["host", "port", "user"];
        postgres.server.keywords.retain(|key, _| kept.contains(&key.as_str()));
        (postgres.server.password_file, postgres.server.bin_dir) = (None, None);
    }
    if let Some(Source::Mariadb(mariadb)) = expected.sources.get_mut("my") {
        mariadb.server.options.remove("ssl-ca");
        (mariadb.server.password_file, mariadb.server.bin_dir) = (None, None);
    }
    assert_eq!(back(carried()).unwrap(), expected);
    let whole = load(FULL).unwrap();
    for app in whole.apps.values() {
        let app = AppConfig { services: app.services.clone(), ..app.clone() };
        assert_eq!(app.carried().into_app(&app.name).unwrap().carried(), app.carried());
    }
}

/// Shows P9.
#[test]
fn what_an_archive_says_is_held_against_the_rules() {
    for (pointer, value, expected) in [
        ("/services/commands/worker/stop", serde_json::json!([]), "the command is empty"),
        ("/services/commands/worker/stop", serde_json::json!(["./x"]), "`./x` is a relative path"),
        ("/services/units/0", serde_json::json!("--now.service"), "`--now.service` is no unit"),
        ("/sources/db/sqlite/path", serde_json::json!("shop.db"), "`shop.db` is no absolute path"),
        ("/sources/conf/files/root", serde_json::json!("/srv/../etc"), "`/srv/../etc` holds `..`"),
        ("/sources/conf/files/at", serde_json::json!("../x"), "`../x` is no place in a snapshot"),
        (
            "/sources/pg/postgres/url",
            serde_json::json!("postgres://h/?passfile=/etc/shadow"),
            "a password stands in it",
        ),
        ("/sources/pg/postgres/databases", serde_json::json!(["template1"]), "new databases are made from this one"),
        ("/health/0/http", serde_json::json!("file:///etc/passwd"), "`file:///etc/passwd` is no URL"),
        ("/after_restore/0/method", serde_json::json!("PUT"), "unknown value `PUT`"),
        ("/after_restore/1/sql/db", serde_json::json!("x"), "unknown database `x`"),
        ("/name", serde_json::json!("../x"), "the name holds `/`"),
        ("/compression_level", serde_json::json!(200), "200 is no level of gzip"),
        ("/keep_replaced", serde_json::json!("never"), "`never` is no such time"),
        ("/required/0", serde_json::json!("none"), "unknown source `none`"),
        ("/sources", serde_json::json!({}), "there is no source"),
    ] {
        let mut json = carried();
        *json.pointer_mut(pointer).unwrap() = value;
        let error = back(json).unwrap_err();
        let what = format!("the configuration that the snapshot carries cannot be used: {expected}");
        assert!(error.kind() == ErrorKind::Corrupt && error.what().starts_with(&what), "{pointer}: {error}");
        assert!(error.next_step().is_some() && error.data_state().is_some());
    }
    for name in ["", "../x", "-a", "a b"] {
        assert_eq!(shop().carried().into_app(name).unwrap_err().kind(), ErrorKind::Corrupt, "{name}");
    }
}

/// Shows P9.
#[test]
fn what_a_newer_version_carries_is_accepted_where_it_can_be() {
    let mut json = carried();
    json["schedules"] = serde_json::json!([{ "cron": "0 3 * * *" }]);
    json["sources"]["db"]["sqlite"]["more"] = serde_json::json!(1);
    assert_eq!(back(json).unwrap(), back(carried()).unwrap());
    let mut json = carried();
    json["sources"]["new"] = serde_json::json!({ "mongodb": { "url": "mongodb://h/" } });
    let error = back(json).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.what().ends_with("the source `new` is of a kind that this version does not know"), "{error}");
    // A file that an archive names is never read and sent somewhere.
    let mut json = carried();
    json["health"][0]["token_file"] = serde_json::json!("/etc/shadow");
    json["after_restore"][0]["token_file"] = serde_json::json!("/etc/shadow");
    json["backup_dir"] = serde_json::json!("/etc");
    json["sources"]["pg"]["postgres"]["password_file"] = serde_json::json!("/etc/shadow");
    json["sources"]["pg"]["postgres"]["bin_dir"] = serde_json::json!("/tmp");
    json["sources"]["my"]["mariadb"]["password_file"] = serde_json::json!("/etc/shadow");
    json["sources"]["my"]["mariadb"]["bin_dir"] = serde_json::json!("/tmp");
    let app = back(json).unwrap();
    assert_eq!((app.secret_files().count(), app.backup_dir), (0, None));
}

/// Shows P9.
#[test]
fn each_thing_that_would_act_is_named() {
    let acts = shop().carried().acts();
    let expected = [
        "stops and starts the unit web.service",
        "stops and starts the unit db.service",
        "service worker, stop: runs w stop",
        "service worker, start: runs w a \"b\"\\n\\x7f",
        "service worker, status: runs w",
        "service worker, freeze: runs w hold",
        "service worker, thaw: runs w go",
        "source pg: replaces orders, a b on postgres://me@pg.example:5433/",
        "source printed, when it is restored by itself: runs shop im port",
        "reload: runs nginx -s reload",
        "health: runs pg_isready",
        "after the restore: asks db by SQL: select 1",
        "after the restore: runs check",
        "version: runs shop --version",
    ];
    assert_eq!(acts, expected);
    let lacks = ["http://h:80/up", "http://h/ready", "https://h/api"]
        .map(|url| format!("what the check of {url} sends is a secret: it would not be asked"));
    assert_eq!(shop().carried().lacks(), lacks);
    let open = load(&app(
        "    health: [ { http: \"http://h/up\" } ]\n    after_restore: [ { http: \"http://h/a\", method: POST } ]\n",
    ));
    let open = open.unwrap().apps["web"].carried();
    assert_eq!(open.acts(), ["health: GET http://h/up", "after the restore: POST http://h/a"]);
    assert_eq!(open.lacks(), Vec::<String>::new());
    assert_eq!(open.into_app("web").unwrap().health.len(), 1);
    assert!(load(&app("")).unwrap().apps["web"].carried().acts().is_empty());
    let version = |text: &str| load(&app(&format!("    version: {text}\n"))).unwrap().apps["web"].carried().acts();
    assert_eq!(version("{ file: /srv/VERSION }"), ["version: reads /srv/VERSION"]);
}
