//! A restore on a host that has nothing but the archive: what the archive
//! carries of its app's configuration, what is shown of it, who has to agree
//! before it acts, and what is refused (`doc/decisions/0010`).
#![expect(clippy::unwrap_used, reason = "these are the helpers of tests")]

use std::path::PathBuf;

use lifeboat_store::testing::can_run;
use rexpect::session::{PtySession, spawn_command};
use serde_json::{Value, json};

use crate::env::{Cmd, Run, TestEnv};

/// What each command of the app does: it says so in `acts`.
const TOOL: &str = r#"
cd "$1"
echo "$2" >> acts
case $2 in
version) echo "shop 1.2.0" ;;
status) test -e runs ;;
start) touch runs ;;
stop) rm -f runs ;;
check) cat live/shop/conf ;;
esac
"#;

/// An app whose host is gone but for `shop.tar.gz`: its state, its
/// configuration and what Lifeboat noted are removed.
struct Lost {
    env: TestEnv,
}

impl Lost {
    fn new() -> Self {
        let env = TestEnv::new();
        env.write("tool", TOOL);
        env.write("live/shop/conf", "all is well\n");
        env.write("live/shop/.keys/token", "CANARY-token\n");
        env.write("there/lifeboat.yaml", Self::configuration(&env));
        let first = ["--config", "there/lifeboat.yaml", "--data-dir", "there/data"];
        env.lifeboat(first.iter().chain(&["backup", "--output", "shop.tar.gz"])).ok();
        std::fs::remove_dir_all(env.path("live")).unwrap();
        std::fs::remove_dir_all(env.path("there")).unwrap();
        std::fs::remove_file(env.path("acts")).unwrap();
        env.mkdir("live");
        Self { env }
    }

    fn configuration(env: &TestEnv) -> String {
        let dir = env.path("");
        let dir = dir.to_str().unwrap().trim_end_matches('/');
        let tool = |what: &str| format!("[sh, {dir}/tool, {dir}, {what}]");
        format!(
            r#"data_dir: {dir}/there/CANARY-data
destinations: {{ CANARY-destination: {{ url: {dir}/there/CANARY-place, enabled: false }} }}
apps:
  shop:
    sources: {{ all: {{ files: {{ root: {dir}/live/shop }} }} }}
    services:
      commands:
        web: {{ stop: {}, start: {}, status: {} }}
      reload: {{ run: {} }}
    health:
      - {{ command: {} }}
      - {{ http: "http://me:CANARY-password@127.0.0.1:1/up?key=CANARY-query" }}
    after_restore:
      - {{ command: {}, expect: all is well }}
      - {{ http: "http://127.0.0.1:1/v1", token_file: {dir}/live/shop/.keys/token }}
    version: {{ command: {} }}
    backup_dir: {dir}/there/CANARY-backups
"#,
            tool("stop"),
            tool("start"),
            tool("status"),
            tool("reload"),
            tool("health"),
            tool("check"),
            tool("version"),
        )
    }

    fn command(&self, options: &[&str]) -> Cmd {
        self.env.command(["restore", "shop.tar.gz"].iter().chain(options))
    }

    fn restore(&self, options: &[&str]) -> Run {
        self.command(options).run()
    }

    fn on_terminal(&self, options: &[&str]) -> PtySession {
        spawn_command(self.command(options).reads_terminal().into_command(), Some(20_000)).unwrap()
    }

    /// What was run of what the archive carries.
    fn acts(&self) -> String {
        std::fs::read_to_string(self.env.path("acts")).unwrap_or_default().replace('\n', " ")
    }

    fn is_restored(&self) -> bool {
        self.env.path("live/shop/conf").exists()
    }

    fn assert_untouched(&self, what: &str) {
        assert_eq!((self.acts().as_str(), self.env.names("live")), ("", Vec::new()), "{what}");
    }

    /// The manifest of the archive.
    fn manifest(&self) -> Value {
        let text = self.env.run("tar", ["-xzOf", "shop.tar.gz", "manifest.json"]).ok().stdout;
        serde_json::from_str(&text).unwrap()
    }
}

/// Shows P9, P8.
#[test]
fn an_archive_holds_no_secret_of_its_configuration() {
    let lost = Lost::new();
    let bytes = lost.env.run("tar", ["-xzOf", "shop.tar.gz"]).ok().bytes;
    let text = String::from_utf8_lossy(&bytes);
    assert!(!text.contains("CANARY"), "{text}");
    let config = &lost.manifest()["config"];
    assert_eq!(config["health"][1]["http"], "http://127.0.0.1:1/up");
    assert_eq!(config["after_restore"][1]["http"], "http://127.0.0.1:1/v1");
    assert!(!config.to_string().contains("token"), "{config}");
}

/// Shows P9.
#[test]
fn the_plan_shows_what_would_act_and_a_dry_run_runs_none_of_it() {
    let lost = Lost::new();
    let dir = lost.env.path("");
    let run = format!("runs sh {}/tool {}", dir.to_str().unwrap().trim_end_matches('/'), dir.display());
    let run = run.trim_end_matches('/');
    for options in [&["--dry-run"][..], &["--dry-run", "--trust-config"]] {
        let said = lost.restore(options).ok().stdout;
        let unused = "the archive says, not used without --trust-config and --allow-unauthenticated: ";
        for act in [
            "service web, stop: RUN stop",
            "service web, start: RUN start",
            "service web, status: RUN status",
            "reload: RUN reload",
            "health: RUN health",
            "after the restore: RUN check",
            "version: RUN version",
        ] {
            assert!(said.contains(&format!("{unused}{}\n", act.replace("RUN", run))), "{act}: {said}");
        }
        let lacks =
            "not in the snapshot: what the check of http://127.0.0.1:1/up sends is a secret: it would not be asked";
        assert!(said.contains(lacks), "{said}");
        lost.assert_untouched("a dry run");
    }
    let said = lost.restore(&["--dry-run", "--json"]).ok();
    let plan = said.json_lines().pop().unwrap();
    assert_eq!((&plan["is_trusted"], plan["acts"].as_array().map(Vec::len)), (&json!(false), Some(7)));
    // With both flags the plan is the one that would be carried out.
    let said = lost.restore(&["--dry-run", "--trust-config", "--allow-unauthenticated"]).ok().stdout;
    assert!(said.contains("the archive says, used, as it is trusted: ") && said.contains("1.2.0 here"), "{said}");
    assert!(said.contains("service web (not running): started, since checks ask it"), "{said}");
    assert_eq!((lost.acts().as_str(), lost.is_restored()), ("status version ", false));
}

/// Shows P9, R2.
#[test]
fn without_a_terminal_it_takes_both_flags_and_one_alone_lets_nothing_act() {
    let lost = Lost::new();
    for options in [&[][..], &["--force"], &["--trust-config"], &["--trust-config", "--force"]] {
        let said = lost.restore(options).code(22).stderr;
        assert!(said.contains("--allow-unauthenticated"), "{options:?}: {said}");
        lost.assert_untouched("nobody agreed");
    }
    let said = lost.restore(&["--allow-unauthenticated"]).ok().stdout;
    assert!(said.starts_with("Restored 1 file:\n") && !said.contains("healthy"), "{said}");
    assert_eq!((lost.acts().as_str(), lost.is_restored()), ("", true));
}

/// Nothing else of the other host counts: not its data directory, its places
/// of backups, its token.
///
/// Shows P9.
#[test]
fn with_both_flags_services_start_and_checks_run() {
    let lost = Lost::new();
    let both = ["--allow-unauthenticated", "--trust-config"];
    let said = lost.restore(&both).ok().stdout;
    assert!(said.contains("services: web had not run and was started\n"), "{said}");
    assert!(said.contains("healthy: 1 check passed\n") && said.contains("data: 1 check passed\n"), "{said}");
    assert!(lost.is_restored() && lost.env.path("runs").exists());
    assert!(lost.acts().ends_with("start reload health check "), "{}", lost.acts());
    assert!(!lost.env.path("there").exists() && lost.env.data_dir().join("journal").exists());
    // It runs now: stopped and started. Trust does not answer the other questions.
    lost.env.write("live/shop/conf", "changed since");
    let said = lost.restore(&both).code(22).stderr;
    assert!(said.contains("it would overwrite 1 existing entry, stop and start the service web"), "{said}");
    std::fs::remove_file(lost.env.path("acts")).unwrap();
    lost.restore(&[&both[..], &["--force"]].concat()).ok();
    let acts: Vec<String> = lost.acts().split(' ').filter(|act| *act != "status").map(str::to_owned).collect();
    assert_eq!(acts.join(" "), "version stop start reload health check ");
    // A check that does not hold rolls back, as if it were configured.
    lost.env.write("live/shop/conf", "changed since");
    let tool = TOOL.replace("check) cat", "check) false; cat /dev/null;");
    lost.env.write("tool", tool);
    lost.restore(&[&both[..], &["--force"]].concat()).code(20);
    assert_eq!(lost.env.read("live/shop/conf"), b"changed since");
}

/// Shows P9, P7.
#[test]
fn a_carried_version_keeps_a_newer_snapshot_from_an_older_app() {
    let lost = Lost::new();
    lost.env.write("tool", TOOL.replace("1.2.0", "1.1.9"));
    let said = lost.restore(&["--allow-unauthenticated", "--trust-config"]).code(17).stderr;
    assert!(said.contains("the snapshot was made by shop 1.2.0, and shop 1.1.9 is installed here"), "{said}");
    assert!(!lost.is_restored());
}

/// Shows P9, R2.
#[test]
fn at_a_terminal_a_person_sees_every_line_and_is_asked_apart_from_the_place() {
    let lost = Lost::new();
    let mut terminal = lost.on_terminal(&["--trust-config", "--force"]);
    let said = terminal.exp_string("Do you trust it to do that? [y/N]").unwrap();
    assert!(said.contains("This host has no configuration of the app. The archive carries one, which would act:"));
    for act in ["stop", "start", "status", "reload", "health", "check", "version"] {
        assert!(said.lines().any(|line| line.trim_end().ends_with(&format!(" {act}"))), "{act}: {said}");
    }
    assert!(said.contains("Nobody can tell whether the archive is genuine."), "{said}");
    lost.assert_untouched("not agreed yet");
    // No to what acts is no answer to where it goes; no to that ends it.
    terminal.send_line("n").unwrap();
    let said = terminal.exp_string("Do you trust it? [y/N]").unwrap();
    assert!(said.contains("Only the archive says that its content belongs to"), "{said}");
    terminal.send_line("n").unwrap();
    terminal.exp_eof().unwrap();
    lost.assert_untouched("a person said no");

    let mut terminal = lost.on_terminal(&[]);
    terminal.exp_string("Do you trust it to do that? [y/N]").unwrap();
    terminal.send_line("n").unwrap();
    terminal.exp_string("Do you trust it? [y/N]").unwrap();
    terminal.send_line("y").unwrap();
    terminal.exp_eof().unwrap();
    assert_eq!((lost.acts().as_str(), lost.is_restored()), ("", true));

    std::fs::remove_dir_all(lost.env.path("live/shop")).unwrap();
    let mut terminal = lost.on_terminal(&[]);
    for question in ["Do you trust it to do that? [y/N]", "Do you trust it? [y/N]"] {
        terminal.exp_string(question).unwrap();
        terminal.send_line("yes").unwrap();
    }
    terminal.exp_eof().unwrap();
    assert!(lost.is_restored() && lost.acts().ends_with("start reload health check "), "{}", lost.acts());
}

/// The archive again, with another configuration in its manifest.
const FORGE: &str = r#"
import io, json, sys, tarfile
old, new = tarfile.open("shop.tar.gz"), tarfile.open("forged.tar.gz", "w:gz", format=tarfile.PAX_FORMAT)
for member in old:
    content = old.extractfile(member).read() if member.isfile() else b""
    if member.name == "manifest.json":
        manifest = json.loads(content)
        files = manifest.pop("files")
        manifest["config"] = json.loads(sys.argv[1])
        manifest["app"] = sys.argv[2]
        manifest["files"] = files
        content = json.dumps(manifest).encode()
        member.size = len(content)
    new.addfile(member, io.BytesIO(content))
new.close()
"#;

/// Shows P9.
#[test]
fn a_hostile_configuration_is_refused_and_nothing_of_it_is_done() {
    if !can_run("a_hostile_configuration_is_refused_and_nothing_of_it_is_done", &["python3"]) {
        return;
    }
    let lost = Lost::new();
    let carried = lost.manifest()["config"].clone();
    let outside: PathBuf = lost.env.path("acts");
    let with = |pointer: &str, value: Value| {
        let mut config = carried.clone();
        let (above, key) = pointer.rsplit_once('/').unwrap();
        match config.pointer_mut(above).unwrap() {
            Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
            within => within[key] = value,
        }
        config
    };
    let touch = json!(["touch", outside]);
    let services = |commands: Value| with("/services", json!({ "commands": commands, "restore_stop": ["web"] }));
    let cases = [
        (with("/services/commands/web/stop", json!(["./evil"])), 13, "`./evil` is a relative path"),
        (with("/services/commands/web/stop", json!([])), 13, "the command is empty"),
        (with("/services/commands/web/stop", json!("rm -rf /")), 13, "cannot be"),
        (services(json!({ "web": { "stop": touch } })), 13, "cannot be"),
        (with("/services/restore_stop", json!(["other"])), 13, "unknown service `other`"),
        (with("/health/1/http", json!("gopher://127.0.0.1/x")), 13, "is no URL to ask"),
        (with("/health/1/http", json!("file:///etc/passwd")), 13, "is no URL to ask"),
        (with("/health/0", json!({ "command": touch, "timeout": "99999999999999999999d" })), 13, "is no time"),
        (with("/health/0", json!({ "command": touch, "timeout": "0s" })), 13, "is no time at all"),
        (with("/health/1/status", json!(7)), 13, "7 is no HTTP status"),
        (with("/health/1/status", json!(-1)), 13, "cannot be"),
        (with("/sources", json!({ "all": { "mongodb": {} } })), 17, "is of a kind that this version does not know"),
        (with("/sources", json!([])), 13, "cannot be"),
        (with("/version", json!({ "file": "VERSION" })), 13, "`VERSION` is no absolute path"),
        (with("/keep_replaced", json!("never")), 13, "`never` is no such time"),
        (with("/required", json!(["../x"])), 13, "unknown source"),
        (json!("nonsense"), 13, "cannot be read"),
    ];
    for (config, code, expected) in cases {
        let text = config.to_string();
        lost.env.run("python3", ["-c", FORGE, &text, "shop"]).ok();
        for options in [&["--allow-unauthenticated", "--trust-config", "--force"][..], &["--dry-run"]] {
            let said = lost.env.lifeboat(["restore", "forged.tar.gz"].iter().chain(options)).code(code).stderr;
            assert!(said.contains("the configuration that the snapshot carries cannot be"), "{text}: {said}");
            assert!(said.contains(expected), "{text}: {expected}: {said}");
            assert!(said.contains("nothing was"), "{said}");
            lost.assert_untouched(&text);
        }
    }
    lost.env.run("python3", ["-c", FORGE, &carried.to_string(), "../../evil"]).ok();
    lost.env.lifeboat(["restore", "forged.tar.gz", "--allow-unauthenticated", "--trust-config"]).code(13);
    lost.assert_untouched("a name that is a path");
    // What is in it is not lost for that.
    lost.env.lifeboat(["restore", "forged.tar.gz", "--to", "look"]).ok();
    assert_eq!(lost.env.read("look/files/all/conf"), b"all is well\n");
}

/// A file that an archive names as a token is not read, and not sent.
///
/// Shows P9.
#[test]
fn an_archive_cannot_have_a_file_of_the_host_sent_anywhere() {
    if !can_run("an_archive_cannot_have_a_file_of_the_host_sent_anywhere", &["python3"]) {
        return;
    }
    let lost = Lost::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/up", port.local_addr().unwrap());
    lost.env.write("secret", "CANARY-of-this-host\n");
    let mut config = lost.manifest()["config"].clone();
    let secret = lost.env.path("secret");
    config["health"] = json!([{ "http": url, "token_file": secret, "timeout": "500ms" }]);
    lost.env.run("python3", ["-c", FORGE, &config.to_string(), "shop"]).ok();
    let both = ["--allow-unauthenticated", "--trust-config"];
    let running = lost.env.command(["restore", "forged.tar.gz"].iter().chain(&both)).start();
    let (mut stream, _) = port.accept().unwrap();
    let mut asked = [0; 1000];
    let length = std::io::Read::read(&mut stream, &mut asked).unwrap();
    let asked = String::from_utf8_lossy(&asked[..length]).into_owned();
    running.wait().code(20);
    assert!(asked.starts_with("GET /up ") && !asked.contains("uthorization"), "{asked}");
    assert!(!lost.is_restored());
}

/// Shows P9.
#[test]
fn what_is_configured_here_counts_and_not_what_an_archive_carries() {
    let lost = Lost::new();
    let root = lost.env.path("live/shop");
    let here = format!("apps:\n  shop:\n    sources: {{ all: {{ files: {{ root: {} }} }} }}\n", root.display());
    lost.env.write("lifeboat.yaml", here);
    let said = lost.restore(&["--dry-run"]).ok().stdout;
    assert!(!said.contains("the archive says") && said.contains("(as configured)"), "{said}");
    lost.assert_untouched("a dry run");
    lost.restore(&["--trust-config"]).ok();
    assert_eq!((lost.acts().as_str(), lost.is_restored()), ("", true));
}
