//! Each rule of the file has a row in a table here.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::services::ServiceKind;

const FULL: &str = r#"
data_dir: /var/lib/lifeboat
apps:
  web:
    sources:
      conf: { files: { root: /srv/web, exclude: ["*.tmp"], include: ["/etc/"] } }
      more: { files: { root: /srv/more } }
    services:
      units: [web.service, "worker@1.service"]
      commands:
        zebra: { stop: [z, stop], start: [z, start] }
        app: { stop: [/bin/a, stop], start: [/bin/a, start], status: [/bin/a, status] }
      restore_stop: [app, web.service]
      timeout: 30s
      reload: { run: [nginx, -s, reload], on_failure: warn }
    health:
      - { http: "http://localhost:5050/health", status: 204, timeout: 10s, every: 500ms }
      - { http: "https://localhost/" }
      - { command: [pg_isready], timeout: 10s }
    keep_replaced: forever
  other:
    sources: { all: { files: { root: / } } }
"#;

/// The shortest app, with `more` below it.
fn app(more: &str) -> String {
    format!("apps:\n  web:\n    sources: {{ a: {{ files: {{ root: /srv }} }} }}\n{more}")
}

fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let mut file = store::durable::Unnamed::create(dir.path()).unwrap();
    file.append(text.as_bytes()).unwrap();
    file.publish(["lifeboat.yaml"], 0o600).unwrap();
    let path = dir.path().join("lifeboat.yaml");
    (dir, path)
}

fn load(text: &str) -> Result<Config> {
    let (_dir, path) = written(text);
    Config::load(&path)
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

#[test]
fn all_that_can_be_said_is_read() {
    let config = load(FULL).unwrap();
    assert!(config.path.ends_with("lifeboat.yaml"));
    assert_eq!(config.data_dir.as_deref(), Some(Path::new("/var/lib/lifeboat")));
    assert_eq!(config.apps.keys().collect::<Vec<_>>(), ["other", "web"]);
    let web = &config.apps["web"];
    assert_eq!(web.name, "web");
    let source = |root: &str, include, exclude| {
        Source::Files(FilesSource { root: root.into(), include, exclude, at: None, stop: Vec::new() })
    };
    assert_eq!(web.sources["conf"], source("/srv/web", words("/etc/"), words("*.tmp")));
    assert!(matches!(&web.sources["more"], Source::Files(more) if more.include.is_empty() && more.exclude.is_empty()));
    let timeout = Duration::from_secs(30);
    let kind = ServiceKind::Commands {
        stop: words("/bin/a stop"),
        start: words("/bin/a start"),
        status: Some(words("/bin/a status")),
        freeze: None,
        thaw: None,
    };
    let unit = ServiceKind::Unit { unit: "web.service".to_owned() };
    let app = Service { name: "app".to_owned(), kind, timeout };
    assert_eq!(web.services, [app, Service { name: "web.service".to_owned(), kind: unit, timeout }]);
    assert_eq!(web.reload, Some(Reload { run: words("nginx -s reload"), warn_only: true, timeout }));
    let http = |url: &str, status, timeout, every| HealthCheck::Http {
        url: url.to_owned(),
        status,
        token_file: None,
        timeout: Duration::from_secs(timeout),
        every: Duration::from_millis(every),
    };
    let command = HealthCheck::Command {
        command: words("pg_isready"),
        timeout: Duration::from_secs(10),
        every: Duration::from_secs(1),
    };
    let first = http("http://localhost:5050/health", 204, 10, 500);
    assert_eq!(web.health, [first, http("https://localhost/", 200, 60, 1000), command]);
    assert_eq!(web.keep_replaced, Keep::Forever);
    let other = &config.apps["other"];
    assert!(other.services.is_empty() && other.health.is_empty() && other.reload.is_none());
    assert_eq!(other.keep_replaced, Keep::default());
}

#[test]
fn without_restore_stop_every_unit_and_then_every_command_is_stopped_in_the_order_of_the_file() {
    let text = FULL.replace("      restore_stop: [app, web.service]\n", "").replace("      timeout: 30s\n", "");
    let web = load(&text).unwrap().apps["web"].clone();
    let names: Vec<&str> = web.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["web.service", "worker@1.service", "zebra", "app"]);
    assert!(web.services.iter().all(|service| service.timeout == Duration::from_secs(90)));
    assert!(load(&FULL.replace("[app, web.service]", "[]")).unwrap().apps["web"].services.is_empty());
    assert!(!load(&FULL.replace(", on_failure: warn", "")).unwrap().apps["web"].reload.as_ref().unwrap().warn_only);
}

#[test]
fn a_mistake_in_the_shape_is_an_error_with_its_place() {
    for (text, expected) in [
        ("", "1:1: the file ends too early, expected `apps:`"),
        ("apps:\n", "1:5: wrong type, expected a mapping"),
        ("apps: {}\n", "1:7: there is no app, expected at least one"),
        ("app: {}\n", "1:1: unknown key `app` (did you mean `apps`?), expected one of: data_dir, apps"),
        ("data_dir: /x\n", "1:1: the key `apps` is missing"),
        ("apps: {}\napps: {}\n", "2:1: the key `apps` stands twice"),
        ("apps: {}\n---\napps: {}\n", "3:1: a second document begins, expected only one"),
        ("apps:\n\tweb: x\n", "2:2: tabs"),
        ("apps: {}\n\"\\e[2J\": 1\n", "2:1: unknown key `\\x1b[2J`, expected"),
        ("apps:\n  web: 7\n", "2:8: wrong type, expected a mapping"),
        ("apps:\n  web: {}\n", "2:8: the key `sources` is missing"),
        ("apps:\n  web: { sources: {} }\n", "2:19: there is no source, expected at least one"),
        ("apps:\n  web:\n    sources: [a]\n", "3:14: wrong type, expected a mapping"),
        ("apps:\n  web:\n    sources: { a: files }\n", "3:19: wrong type, expected a mapping"),
        ("apps:\n  web:\n    sources: { a: { fils: {} } }\n", "3:21: unknown key `fils` (did you mean `files`?)"),
        (
            "apps:\n  web:\n    sources: { a: { files: { rot: / } } }\n",
            "3:30: unknown key `rot` (did you mean `root`?)",
        ),
        ("apps:\n  web:\n    sources: { a: { files: { root: [] } } }\n", "3:36: wrong type, expected a text"),
        (&app("    helth: []\n"), "4:5: unknown key `helth` (did you mean `health`?)"),
        (&app("    services: { unit: [] }\n"), "4:17: unknown key `unit` (did you mean `units`?)"),
        (&app("    services: { units: web }\n"), "4:24: wrong type, expected a list"),
        (&app("    services: { units: [~] }\n"), "4:25: nothing stands here, expected a text"),
        (&app("    services: { reload: { run: nginx } }\n"), "4:32: wrong type, expected a list"),
        (
            &app("    services: { reload: { run: [a], on_failure: wran } }\n"),
            "4:49: unknown value `wran` (did you mean `warn`?)",
        ),
        (&app("    services: { commands: { a: { stop: [a] } } }\n"), "4:34: the key `start` is missing"),
        (&app("    health: [ { http: \"http://h\", status: x } ]\n"), "4:43: wrong type, expected a whole number"),
    ] {
        is_refused(text, expected);
    }
}

#[test]
fn a_mistake_in_a_value_is_an_error_with_its_place() {
    for (more, expected) in [
        ("services: { units: [web] }", "4:25: `web` is no unit, expected its full name, such as web.service"),
        ("services: { units: [--now.service] }", "4:25: `--now.service` is no unit"),
        ("services: { units: [../a.service] }", "4:25: `../a.service` is no unit"),
        ("services: { units: [.service] }", "4:25: `.service` is no unit"),
        ("services: { units: [a.service, a.service] }", "4:36: there are two services `a.service`"),
        (
            "services: { units: [a.b.service], restore_stop: [a.b] }",
            "4:54: unknown service `a.b` (did you mean `a.b.service`?)",
        ),
        ("services: { restore_stop: [x] }", "4:32: unknown service `x`, expected one of: none"),
        ("services: { units: [a.service], restore_stop: [a.service, a.service] }", "4:63: `a.service` stands twice"),
        ("services: { timeout: 90 }", "4:26: `90` is no time, expected a number with a unit"),
        ("services: { timeout: 0s }", "4:26: `0s` is no time at all"),
        ("services: { reload: { run: [] } }", "4:32: the command is empty, expected a program"),
        ("services: { reload: { run: [\"\"] } }", "4:32: the command is empty"),
        ("services: { reload: { run: [./a] } }", "4:32: `./a` is a relative path"),
        ("services: { reload: { run: [a, \"\\0\"] } }", "4:32: the command holds a NUL"),
        ("services: { commands: { a: { stop: [], start: [a] } } }", "4:40: the command is empty"),
        ("services: { commands: { a: { stop: [a], start: [] } } }", "4:52: the command is empty"),
        ("services: { commands: { a: { stop: [a], start: [a], status: [] } } }", "4:65: the command is empty"),
        ("services: { commands: { a/b: { stop: [a], start: [a] } } }", "4:29: the name `a/b` cannot be used"),
        ("services: { units: [a.service], commands: { a.service: { stop: [a], start: [a] } } }", "4:49: there are two"),
        ("health: [ {} ]", "4:15: a health check has no kind, expected `http` or `command`"),
        ("health: [ { http: \"http://h\", command: [a] } ]", "4:15: a health check has two kinds"),
        ("health: [ { command: [a], status: 200 } ]", "4:39: a command has no status"),
        ("health: [ { command: [] } ]", "4:26: the command is empty"),
        (
            "health: [ { http: \"ftp://me:secret@h/\" } ]",
            "4:23: `ftp://h/` is no URL to ask, expected http:// or https://",
        ),
        ("health: [ { http: \"http://h\", status: 600 } ]", "4:43: 600 is no HTTP status, expected 100 to 599"),
        ("health: [ { http: \"http://h\", timeout: 1w } ]", "4:44: `1w` is no time, expected a number with a unit"),
        ("health: [ { http: \"http://h\", every: 0s } ]", "4:42: `0s` is no time at all"),
        ("keep_replaced: never", "4:20: `never` is no such time, expected a time such as 7d, 12h or 0s, or `forever`"),
    ] {
        is_refused(&app(&format!("    {more}\n")), expected);
    }
    let source = |files: &str| format!("apps:\n  web:\n    sources: {{ a: {{ files: {{ {files} }} }} }}\n");
    for (files, expected) in [
        ("root: srv", "3:36: `srv` is no absolute path, expected one that begins with `/`"),
        ("root: /, exclude: [\"[z-a]\"]", "3:49: the pattern `[z-a]` makes no sense, expected gitignore syntax"),
        ("root: /, include: [\"\"]", "3:49: the pattern `` makes no sense"),
    ] {
        is_refused(&source(files), expected);
    }
    is_refused(&format!("data_dir: here\n{}", app("")), "1:11: `here` is no absolute path");
    is_refused(&app("").replace(" a: ", " .a: "), "3:16: the name `.a` cannot be used, expected letters");
}

fn is_refused(text: &str, expected: &str) {
    let (_dir, path) = written(text);
    let error = Config::load(&path).expect_err(text);
    assert_eq!(error.kind(), ErrorKind::Usage, "{text}");
    let expected = format!("{}:{expected}", path.display());
    assert!(error.what().starts_with(&expected), "{text}\n  {error}\n  {expected}");
    // That is a key, and may be proposed.
    let what = error.what().replace("secret_columns", "");
    assert!(!what.contains("secret") && error.next_step().is_some());
}

#[test]
fn an_app_is_not_called_like_a_command() {
    for name in ["backup", "export-query", "ls", "man", "help"] {
        is_refused(&app("").replace("web", name), &format!("2:3: an app cannot be called `{name}`"));
    }
    for name in ["-a", "a b", "a/b", ".", "", &"a".repeat(65)] {
        let text = app("").replace("web", &format!("\"{name}\""));
        is_refused(&text, &format!("2:3: the name `{name}` cannot be used"));
    }
    for name in ["backups", "nextcloud-2", "büro", "7"] {
        assert!(load(&app("").replace("web", name)).unwrap().apps.contains_key(name));
    }
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    let (_dir, path) = written(FULL);
    for (mode, is_fine) in [(0o600, true), (0o644, true), (0o620, false), (0o602, false), (0o666, false)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        match Config::load(&path) {
            Ok(_) => assert!(is_fine, "{mode:o}"),
            Err(error) => {
                assert!(!is_fine && error.what().contains(&format!("(mode {mode:o})")), "{error}");
                let next = format!("if you trust what it says: chmod go-w {}", path.display());
                assert_eq!((error.kind(), error.next_step()), (ErrorKind::Usage, Some(next.as_str())));
            }
        }
    }
}

#[test]
fn a_file_of_someone_else_is_refused() {
    let path = Path::new("/etc/lifeboat.yaml");
    for (owner, caller, is_fine) in [(0, 0, true), (0, 1000, true), (1000, 1000, true), (1000, 0, false), (7, 8, false)]
    {
        let checked = check_owner(path, owner, 0o600, caller);
        assert_eq!(checked.is_ok(), is_fine, "{owner} {caller}");
        if let Err(error) = checked {
            assert!(error.what().contains(&format!("belongs to user {owner}")), "{error}");
            let next = format!("if you trust what it says: chown {caller} /etc/lifeboat.yaml");
            assert_eq!(error.next_step(), Some(next.as_str()));
        }
    }
}

#[test]
fn what_cannot_be_read_is_an_error_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let missing = Config::load(&dir.path().join("none.yaml")).unwrap_err();
    assert!(missing.kind() == ErrorKind::Usage && missing.what().contains("none.yaml"), "{missing}");
    let folder = Config::load(dir.path()).unwrap_err();
    assert!(folder.what().ends_with("this is no file"), "{folder}");
    let (_dir, path) = written(&" ".repeat(2 << 20));
    assert!(Config::load(&path).unwrap_err().what().ends_with("larger than 1 MiB"));
}

#[test]
fn how_long_something_is_kept_is_read_and_shown_alike() {
    for text in ["7d", "0s", "forever", "12h"] {
        let keep: Keep = text.parse().unwrap();
        assert_eq!(keep.to_string(), text);
        let json = serde_json::to_string(&keep).unwrap();
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<Keep>(&json).unwrap(), keep);
    }
    assert_eq!(Keep::default().to_string(), "7d");
    assert!("ever".parse::<Keep>().is_err() && serde_json::from_str::<Keep>("\"7\"").is_err());
}

#[test]
fn the_nearest_word_is_found_only_where_it_is_near() {
    let known = ["root", "include", "exclude"];
    for (word, meant) in
        [("rot", Some("root")), ("exlude", Some("exclude")), ("zzz", None), ("", None), ("inc", Some("include"))]
    {
        assert_eq!(nearest(word, &known), meant, "{word}");
    }
}

mod carried;
mod encryption;
mod exports;
mod keys;
mod looked;
mod written;
