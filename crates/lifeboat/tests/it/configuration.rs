//! `lifeboat config`, `presets` and `init`: what a person reads, and what a
//! program does.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use serde_json::Value;

use crate::env::TestEnv;

/// A configuration whose roots, programs and destination are there.
fn with_config() -> TestEnv {
    let env = TestEnv::new();
    env.write("shop/conf/shop.yml", "port: 80\n");
    env.write("shop/shop.db", "");
    env.write("token", "secret\n");
    env.set_mode("token", 0o600);
    env.mkdir("backups");
    let dir = env.path("");
    let dir = dir.to_str().expect("temporary names are UTF-8").trim_end_matches('/');
    env.write(
        "lifeboat.yaml",
        format!(
            r#"destinations:
  local: {{ url: {dir}/backups }}
apps:
  shop:
    sources:
      conf: {{ files: {{ root: {dir}/shop/conf }} }}
      db: {{ sqlite: {{ path: {dir}/shop/shop.db }} }}
    services: {{ commands: {{ web: {{ stop: ["true"], start: ["true"] }} }} }}
    health:
      - {{ http: "http://me:CANARY@127.0.0.1:1/up?key=CANARY" }}
      - {{ http: "http://127.0.0.1:1/ready", token_file: {dir}/token }}
    destinations: [local]
  other:
    enabled: false
    sources: {{ all: {{ files: {{ root: {dir}/shop }} }} }}
"#
        ),
    );
    env.set_mode("lifeboat.yaml", 0o600);
    env
}

/// Shows P1.
#[test]
fn a_sound_configuration_is_said_to_be_so_on_one_line_and_one_for_each_app() {
    let env = with_config();
    let said = env.lifeboat(["config", "check"]).ok();
    assert_eq!(
        said.normal_stdout(),
        "\
lifeboat.yaml: OK: 2 apps, 3 sources, 1 destination
  other: all; not enabled
  shop: conf, db; a restore stops web; 2 checks; to local
"
    );
    assert_eq!(said.stderr, "");
    let json = env.lifeboat(["config", "check", "--json"]).ok().json_lines();
    assert_eq!((&json[0]["message_type"], &json[0]["path"]), (&"config".into(), &"lifeboat.yaml".into()));
    assert_eq!(json[0]["apps"][1]["sources"], serde_json::json!(["conf", "db"]));
    assert_eq!((json.len(), json[0]["warnings"].as_array().map(Vec::len)), (1, Some(0)));
    assert!(!env.data_dir().exists(), "nothing is written");
}

/// Shows P1.
#[test]
fn what_would_fail_on_this_host_is_warned_of() {
    let env = with_config();
    let text = String::from_utf8(env.read("lifeboat.yaml")).expect("it is text");
    std::fs::remove_file(env.path("shop/shop.db")).expect("it is there");
    std::fs::remove_dir(env.path("backups")).expect("it is empty");
    env.set_mode("token", 0o644);
    let changed = text
        .replace("stop: [\"true\"]", "stop: [no-such-program-here]")
        .replace("start: [\"true\"]", "start: [/no/such/program]")
        .replace("/backups }", "/backups, require_mount: false }")
        .replace("    destinations: [local]", "    version: { file: /no/such/file }\n    destinations: [local]");
    env.write("lifeboat.yaml", changed);
    let said = env.lifeboat(["config", "check"]).ok();
    assert!(said.stdout.starts_with("lifeboat.yaml: OK: 2 apps, 3 sources, 1 destination, 6 warnings\n"));
    assert_eq!(
        said.normal_stderr(),
        "\
warning: shop: source db: $DIR/shop/shop.db: No such file or directory
warning: shop: service web: the program no-such-program-here is not found on PATH
warning: shop: service web: there is no program /no/such/program
warning: shop: token_file: others can read $DIR/token (mode 644): chmod 600 $DIR/token
warning: shop: version: /no/such/file: No such file or directory
warning: shop: destination local: $DIR/backups is not there; the first backup makes it
"
    );
    env.write("lifeboat.yaml", text.replace("/backups }", "/backups, enabled: false }"));
    let said = env.lifeboat(["config", "check"]).ok();
    let expected =
        "warning: shop: no destination that is enabled is named, so that archives go to the current directory";
    assert!(said.stderr.contains(expected), "{}", said.stderr);
    // Nothing is mounted in the temporary directory; above it, perhaps.
    env.write("lifeboat.yaml", text.replace("/backups }", "/backups, require_mount: true }"));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("Linux");
    let points: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    let dir = env.path("").canonicalize().expect("it is there");
    let is_mounted = dir.ancestors().any(|at| at.parent().is_some() && points.contains(&at.to_str().unwrap_or("")));
    let said = env.lifeboat(["config", "check"]).ok();
    assert_eq!(said.stderr.contains("no file system is mounted at"), !is_mounted, "{}", said.stderr);
}

/// Shows P1.
#[test]
fn a_mistake_is_exit_code_2_with_its_line_and_column() {
    let env = TestEnv::new();
    env.write("lifeboat.yaml", "apps:\n  web:\n    sources: { a: { files: { root: /srv } } }\n    helth: []\n");
    env.set_mode("lifeboat.yaml", 0o600);
    for command in [["config", "check"], ["config", "show"]] {
        let said = env.lifeboat(command).code(2);
        assert!(
            said.stderr.starts_with("error[E200]: lifeboat.yaml:4:5: unknown key `helth` (did you mean `health`?), "),
            "{}",
            said.stderr
        );
    }
    let said = TestEnv::new().lifeboat(["config", "check"]).code(2);
    assert!(said.stderr.contains("there is no configuration") && said.stderr.contains("lifeboat init"));
}

/// Shows P1.
#[test]
fn what_takes_effect_is_shown_with_defaults_and_without_secrets() {
    let env = with_config();
    let said = env.lifeboat(["config", "show"]).ok();
    assert!(!said.stdout.contains("CANARY") && !said.stdout.contains("secret"), "{}", said.stdout);
    for line in ["name: \"{app}-backup-{date}\"", "keep_replaced: 7d", "compression: zstd", "token_file: $DIR/token"] {
        assert!(
            said.normal_stdout().contains(line) || said.normal_stdout().contains(&line.replace('"', "'")),
            "{line}"
        );
    }
    // It is a configuration itself.
    env.write("shown.yaml", &said.stdout);
    env.set_mode("shown.yaml", 0o600);
    let again = env.lifeboat(["--config", "shown.yaml", "config", "check"]).ok();
    assert!(again.stdout.starts_with("shown.yaml: OK: 2 apps, 3 sources, 1 destination\n"), "{}", again.stdout);
    let json = env.lifeboat(["config", "show", "--json"]).ok().json_lines();
    assert_eq!(json[0]["apps"]["shop"]["health"][0]["http"], "http://127.0.0.1:1/up?...");
}

/// Shows P1.
#[test]
fn the_schema_is_printed_without_a_configuration() {
    let env = TestEnv::new();
    env.write("lifeboat.yaml", "nonsense");
    let schema: Value = serde_json::from_str(&env.lifeboat(["config", "schema"]).ok().stdout).expect("it is JSON");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert!(schema["properties"]["apps"]["description"].is_string());
    let json = env.lifeboat(["config", "schema", "--json"]).ok().json_lines();
    assert_eq!((&json[0]["message_type"], &json[0]["properties"]), (&"schema".into(), &schema["properties"]));
}

/// Shows P1.
#[test]
fn presets_are_listed_and_printed() {
    let env = TestEnv::new();
    let said = env.lifeboat(["presets"]).ok();
    assert!(said.stdout.starts_with("aegis    AegisAgent: ") && said.stdout.contains("\nnefia    Nefia: "));
    let said = env.lifeboat(["presets", "aegis"]).ok();
    assert!(said.stdout.contains("path: \"/opt/aegisagent/db/aegisagent.db\""), "{}", said.stdout);
    let said = env.lifeboat(["presets", "aegis", "--root", "/srv/aegis"]).ok();
    assert!(said.stdout.contains("path: \"/srv/aegis/db/aegisagent.db\""), "{}", said.stdout);
    let said = env.lifeboat(["presets", "nefa"]).code(2);
    assert!(said.stderr.contains("there is no preset nefa (did you mean nefia?)"), "{}", said.stderr);
}

/// Shows P1, P10.
#[test]
fn init_writes_a_preset_for_its_owner_alone_and_never_overwrites() {
    let env = TestEnv::new();
    let dry = env.lifeboat(["init", "--preset", "nefia", "--dry-run"]).ok();
    assert!(env.names("").is_empty(), "a dry run writes nothing");
    let said = env.lifeboat(["init", "--preset", "nefia"]).ok();
    assert_eq!(
        said.stdout,
        "\
Configuration of nefia written to lifeboat.yaml
  keys are left out: they are not in the layout of Nefia's archives, so keep a copy of them elsewhere
  see that the command of services.reload is the one of your version of Nefia
Next: lifeboat config check
"
    );
    let metadata = std::fs::metadata(env.path("lifeboat.yaml")).expect("it was written");
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let text = env.read("lifeboat.yaml");
    assert_eq!(String::from_utf8_lossy(&text), dry.stdout);
    let home = env.path("../home").canonicalize().expect("it is there");
    assert!(dry.stdout.contains(&format!("/{}/.nefia\"", home.file_name().expect("a name").to_string_lossy())));
    env.lifeboat(["config", "check"]).ok();

    let said = env.lifeboat(["init", "--preset", "aegis"]).code(1);
    assert!(said.stderr.contains("lifeboat.yaml exists already"), "{}", said.stderr);
    assert!(said.stderr.contains("it was not touched") && said.stderr.contains("--output"), "{}", said.stderr);
    assert_eq!((env.read("lifeboat.yaml"), env.names("").len()), (text, 1));
    let again = std::fs::metadata(env.path("lifeboat.yaml")).expect("it is there");
    assert_eq!((again.ino(), again.mtime_nsec()), (metadata.ino(), metadata.mtime_nsec()));
}

/// Shows P1, P11.
#[test]
fn init_takes_the_place_of_the_app_and_of_the_file() {
    let env = TestEnv::new();
    let root = env.mkdir("my \"app\"");
    let root = root.to_str().expect("it is text");
    env.mkdir("etc");
    let said = env.lifeboat(["init", "--preset", "aegis", "--root", root, "--output", "etc/my.yaml"]).ok();
    assert!(said.stdout.ends_with("Next: lifeboat --config etc/my.yaml config check\n"), "{}", said.stdout);
    let json = env.lifeboat(["--config", "etc/my.yaml", "config", "show", "--json"]).ok().json_lines();
    let aegis = &json[0]["apps"]["aegis"];
    assert_eq!(aegis["sources"]["db"]["sqlite"]["path"], format!("{root}/db/aegisagent.db"));
    assert_eq!(aegis["backup_dir"], format!("{root}/backups"));

    for (args, expected) in [
        (&["init"][..], "no preset was named"),
        (&["init", "--preset", "nefa"], "there is no preset nefa (did you mean nefia?)"),
        (&["init", "--preset", "nefia", "--root", "here"], "here is no absolute path of plain text"),
    ] {
        let said = env.lifeboat(args).code(2);
        assert!(said.stderr.contains(expected), "{}", said.stderr);
    }
    let said = env.lifeboat(["init", "--preset", "aegis", "--output", "none/my.yaml"]).code(1);
    assert!(said.stderr.contains("none"), "{}", said.stderr);
    assert_eq!(env.names(""), ["etc", "my \"app\""]);
}
