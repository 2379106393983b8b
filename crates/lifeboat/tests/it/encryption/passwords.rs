//! The ways of a password into Lifeboat, which of them wins, and what a person
//! is asked.

use std::time::{Duration, Instant};

use super::{GCM, PASSWORD, ended, ending, env, lifeboat, on_terminal, only, remove, web, with_encryption};
use crate::apps::Apps;
use crate::env::{Run, TestEnv};

const LIFEBOAT: &str = env!("CARGO_BIN_EXE_lifeboat");

/// An archive `x` that `PASSWORD` opens.
fn archive() -> TestEnv {
    let env = env();
    env.write("data/file", "x");
    lifeboat(&env, "backup data -o x --no-verify-on-create", &GCM.seal).ok();
    env
}

/// Runs a line of a shell in which `LIFEBOAT` is the program.
fn shell(env: &TestEnv, line: &str) -> Run {
    env.run("bash", ["-c", &line.replace("LIFEBOAT", LIFEBOAT)])
}

/// Shows E3.
#[test]
fn a_password_comes_by_a_file_a_descriptor_a_command_or_the_environment() {
    let env = archive();
    // Its first line, however that ends; what follows does not count.
    env.write("dos", format!("{PASSWORD}\r\nsecond line\r\n"));
    env.write("bare", PASSWORD);
    env.write("empty", "\n");
    for name in ["dos", "bare", "empty"] {
        env.set_mode(name, 0o600);
    }
    for file in ["password", "dos", "bare"] {
        lifeboat(&env, "backup list x --password-file", &[file]).ok();
    }
    let list = |line: &str| shell(&env, line);
    list("LIFEBOAT backup list x --password-fd 3 3<password").ok();
    list("LIFEBOAT backup list x --password-fd 0 <dos").ok();
    // Whoever writes it may keep the pipe open.
    let began = Instant::now();
    list("LIFEBOAT backup list x --password-fd 3 3< <(cat password; exec sleep 20 2>/dev/null)").ok();
    assert!(began.elapsed() < Duration::from_secs(15), "the end of a pipe was waited for");
    lifeboat(&env, "backup list x --password-command", &["cat bare"]).code(12);
    let command = format!("cat '{}'", env.path("bare").display());
    lifeboat(&env, "backup list x --password-command", &[command.as_str()]).ok();
    let with = |name: &str, value: &str| env.command(["backup", "list", "x"]).env(name, value).run();
    with("LIFEBOAT_PASSWORD", PASSWORD).ok();
    with("LIFEBOAT_PASSWORD_FILE", "dos").ok();
    with("LIFEBOAT_PASSWORD_COMMAND", &command).ok();

    for (line, expected) in [
        ("--password-file empty", "which should be the password, is empty"),
        ("--password-file missing", "missing"),
        ("--password-fd 99", "/dev/fd/99"),
        ("--password-command false", "the password could not be had"),
        ("--password-command true", "true printed no password"),
    ] {
        let said = lifeboat(&env, &format!("backup list x {line}"), &[]).code(12).stderr;
        assert!(said.contains(expected), "{line}: {said}");
    }
    for (line, expected) in [
        (["--password-command", "'x"], "a quote in it has no end"),
        (["--password-command", " "], "it is empty"),
        (["--password-fd", "x"], "invalid value"),
    ] {
        let said = lifeboat(&env, "backup list x", &line).code(2).stderr;
        assert!(said.contains(expected), "{line:?}: {said}");
    }
    // Two ways at once are a mistake.
    lifeboat(&env, "backup list x --password-file password --password-fd 3", &[]).code(2);
}

/// Shows E3.
#[test]
fn a_password_as_an_argument_is_refused_with_the_ways_that_are_safe() {
    let env = archive();
    for line in [
        "backup list x --password hidden-value",
        "--password=hidden-value backup data",
        "restore x --to out --password hidden-value",
        "backup data --encrypt --password",
    ] {
        let said = lifeboat(&env, line, &[]).code(2);
        assert!(said.stderr.contains("everybody on this machine can see"), "{}", said.stderr);
        for way in ["--password-file", "--password-fd", "--password-command", "LIFEBOAT_PASSWORD_FILE", "when asked"] {
            assert!(said.stderr.contains(way), "{way}: {}", said.stderr);
        }
        assert!(!said.stderr.contains("hidden-value") && said.stdout.is_empty(), "{}", said.stderr);
    }
    assert!(ending(&env, "", ".age").is_empty() && !env.path("out").exists());
    let help = env.lifeboat(["backup", "--help"]).ok().stdout;
    assert!(!help.contains("--password <") && !help.contains("--password ["), "{help}");
}

/// Shows E3.
#[test]
fn flags_win_over_the_environment_and_that_over_the_configuration() {
    let apps = web("envelope: aes-256-gcm, iterations: 100000, password_file: DIR/other-password");
    let run = |line: &str| apps.env.command(line.split(' ')).env("LIFEBOAT_PASSWORD", "of the environment").run();
    // What is new is encrypted with the first of them.
    let made = |line: &str, run: &dyn Fn(&str) -> Run| {
        run(line).ok();
        let archive = only(&apps.env, "backups", ".tomo-backup");
        rustix::fs::rename(apps.env.path(&archive), apps.env.path("x")).unwrap();
        remove(&apps.env, "backups");
    };
    let opens = |password: &str| {
        apps.env.write("try", password);
        apps.env.set_mode("try", 0o600);
        // Without the configuration, so that nothing else may open it.
        apps.env.write("none.yaml", "apps: { none: { sources: { x: { files: { root: /none } } } } }");
        apps.env.set_mode("none.yaml", 0o600);
        apps.run("--config none.yaml backup list x --password-file try").ok();
    };
    made("backup web --password-file password", &run);
    opens(PASSWORD);
    made("backup web", &run);
    opens("of the environment");
    // To open one, what is configured is tried too, after the others.
    made("backup web", &|line| apps.run(line));
    opens("wrong horse");
    run("backup list x --password-file password").ok();

    // Once one is right, no further one is even read.
    let apps = web("envelope: aes-256-gcm, iterations: 100000, password_command: [sh, DIR/tells]");
    apps.env.write("tells", format!("touch {}; echo told", apps.env.path("was-run").display()));
    apps.run("backup web --password-file password").ok();
    apps.run("backup verify web --password-file password").ok();
    assert!(!apps.env.path("was-run").exists());
    apps.run("backup verify web").code(1);
    assert!(apps.env.path("was-run").exists());
}

/// Shows E3.
#[test]
fn the_configuration_names_a_file_a_command_a_variable_or_a_credential() {
    let backed_up = |apps: &Apps, name: &str, value: &str| {
        let run = |line: &str| apps.env.command(line.split(' ')).env(name, value).run();
        run("backup web").ok();
        run("backup verify latest").ok();
        run("restore latest --to out").ok();
        assert_eq!(apps.text("out/files/conf/file"), "content");
    };
    for way in ["password_file: DIR/password", "password_command: [cat, DIR/password]", "password_env: OF_WEB"] {
        let apps = web(&format!("envelope: aes-256-gcm, iterations: 100000, {way}"));
        backed_up(&apps, "OF_WEB", PASSWORD);
    }
    let apps = web("envelope: aes-256-gcm, iterations: 100000, password_credential: password");
    backed_up(&apps, "CREDENTIALS_DIRECTORY", apps.env.path("").to_str().unwrap());
    let said = apps.run("backup list latest").code(12).stderr;
    assert!(said.contains("there is no credential password: systemd gives them"), "{said}");
    apps.configure(&with_encryption("envelope: aes-256-gcm, password_env: OF_WEB"));
    let said = apps.run("backup web").code(12).stderr;
    assert!(said.contains("the variable OF_WEB of the environment"), "{said}");
    assert_eq!(ending(&apps.env, "backups", ".tomo-backup").len(), 1);
}

/// Shows E3.
#[test]
fn a_file_that_others_can_read_is_a_warning_for_a_password_and_refused_for_a_key() {
    let env = archive();
    env.set_mode("password", 0o644);
    let said = lifeboat(&env, "backup list x", &GCM.open).ok().stderr;
    assert!(said.contains("others can read the password file") && said.contains("(mode 644): chmod 600"), "{said}");
    env.set_mode("password", 0o600);
    assert_eq!(lifeboat(&env, "backup list x", &GCM.open).ok().stderr, "");
    for (file, option) in [("key", "--key-file"), ("identity", "--identity-file")] {
        let archive = if file == "key" { "x" } else { "y" };
        if file == "identity" {
            lifeboat(&env, "backup data -o y", &super::RECIPIENTS.seal).ok();
        }
        for mode in [0o640, 0o604, 0o644] {
            env.set_mode(file, mode);
            let said = lifeboat(&env, &format!("backup list {archive}"), &[option, file]).code(16).stderr;
            assert!(said.contains(&format!("(mode {mode:o})")) && said.contains("chmod 600"), "{said}");
        }
    }
    let said = lifeboat(&env, "backup data --envelope openssl --key-file key", &[]).code(16).stderr;
    assert!(said.contains("others can read the key"), "{said}");
    assert!(ending(&env, "", ".enc").is_empty());
}

/// Shows E3.
#[test]
fn a_person_types_a_new_password_twice_and_has_three_attempts_at_an_old_one() {
    let env = env();
    env.write("data/file", "x");
    let new = |second: &str, code: i32| {
        let line = ["backup", "data", "-o", "x", "--encrypt", "--envelope", "aes-256-gcm", "--no-verify-on-create"];
        let mut terminal = on_terminal(env.command(line));
        terminal.exp_string("New password: ").unwrap();
        terminal.send_line("typed by hand").unwrap();
        let before = terminal.exp_string("New password, once more: ").unwrap();
        terminal.send_line(second).unwrap();
        let said = before + &ended(terminal, code);
        assert!(!said.contains("typed"), "what is typed is not shown: {said}");
        said
    };
    assert!(new("typed otherwise", 2).contains("the two passwords differ"));
    assert!(!env.path("x").exists());
    new("typed by hand", 0);

    let mut terminal = on_terminal(env.command(["restore", "x", "--to", "out"]));
    terminal.exp_string("Password of x: ").unwrap();
    terminal.send_line("wrong").unwrap();
    terminal.exp_string("That is not its password. Password: ").unwrap();
    terminal.send_line("typed by hand").unwrap();
    let said = ended(terminal, 0);
    assert!(env.path("out/files/data/file").exists() && !said.contains("typed by hand"), "{said}");

    let mut terminal = on_terminal(env.command(["restore", "x", "--to", "never"]));
    for _ in 0..3 {
        terminal.exp_string("Password").unwrap();
        terminal.send_line("wrong").unwrap();
    }
    assert!(ended(terminal, 12).contains("the password or key is wrong"));
    assert!(!env.path("never").exists());
    // A program is not asked.
    let terminal = on_terminal(env.command(["backup", "list", "x", "--json"]));
    assert!(!ended(terminal, 12).contains("Password of"));
}
