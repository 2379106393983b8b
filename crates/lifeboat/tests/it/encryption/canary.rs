//! A secret that would be noticed anywhere: not in arguments, environments,
//! output, logs, files or core dumps.

use std::path::{Path, PathBuf};

use lifeboat_store::testing::{can_run, skip};
use rustix::process::{Resource, Signal, getrlimit};

use super::{IDENTITY, KEY, RECIPIENT, ending};
use crate::apps::Apps;
use crate::env::{Cmd, Said, TestEnv};

const LIFEBOAT: &str = env!("CARGO_BIN_EXE_lifeboat");
const PASSWORD: &str = "CANARY-4qZ8-password-77";
/// Of another test, which runs at the same time and looks at the same processes.
const PASSPHRASE: &str = "CANARY-9kX2-passphrase-31";

/// A secret, as whoever looks for it may find it.
struct Canary(Vec<Vec<u8>>);

impl Canary {
    fn new(secret: &str) -> Self {
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        let mut forms = vec![secret.as_bytes().to_vec(), hex.clone().into_bytes(), hex.to_uppercase().into_bytes()];
        // Wherever it stands in what is encoded: all but the digits that its neighbours share.
        for before in 0..3 {
            let text = base64(&[&b"..."[..before], secret.as_bytes()].concat());
            let whole = (before + secret.len()) / 3 * 4;
            forms.push(text.as_bytes()[before.div_ceil(3) * 4..whole].to_vec());
        }
        forms.push(secret.bytes().flat_map(|byte| [byte, 0]).collect());
        Self(forms)
    }

    fn is_in(&self, text: &[u8]) -> bool {
        self.0.iter().any(|form| text.windows(form.len()).any(|part| part == form))
    }

    fn assert_not_in(&self, text: &[u8], what: &str) {
        assert!(!self.is_in(text), "{what} tells a secret: {}", String::from_utf8_lossy(text));
    }

    /// In no file below `dir` but those that are there to hold it.
    fn assert_not_below(&self, dir: &Path, but: &[PathBuf]) -> usize {
        let mut searched = 0;
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            if metadata.is_dir() {
                searched += self.assert_not_below(&path, but);
            } else if metadata.is_file() && !but.contains(&path) {
                assert!(!self.is_in(&std::fs::read(&path).unwrap()), "{} tells a secret", path.display());
                searched += 1;
            }
            self.assert_not_in(path.as_os_str().as_encoded_bytes(), "a name");
        }
        searched
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = bytes.chunks(3).flat_map(|chunk| {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let word = at(0) << 16 | at(1) << 8 | at(2);
        [18, 12, 6, 0].map(|shift| char::from(DIGITS[(word >> shift & 63) as usize]))
    });
    groups.collect()
}

/// Runs it, and looks at the arguments and environments of all processes as long as it does.
fn watched(cmd: Cmd, canary: &Canary, is_in_our_environment: bool) -> (i32, Said) {
    let running = cmd.start();
    let cmdline = |pid: &str| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let id = running.id().to_string();
    loop {
        let is_over = running.is_gone();
        // Each time anew: while a program is being started, it has none.
        let ours = cmdline(&id);
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().filter(|name| name.parse::<u32>().is_ok()).map(str::to_owned)
            else {
                continue;
            };
            // Whoever has our arguments is us, or a child that is not yet the program which it is to be.
            let theirs = cmdline(&pid);
            let is_us = pid == id || theirs.is_empty() || theirs == ours;
            for what in ["cmdline", "environ"] {
                if what == "environ" && is_in_our_environment && is_us {
                    continue;
                }
                let text = std::fs::read(entry.path().join(what)).unwrap_or_default();
                canary.assert_not_in(&text, what);
            }
        }
        if is_over {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let run = running.wait();
    let code = run.exit_code();
    (code, run.code(code))
}

/// An app whose commands leave behind what they were given: arguments and environment.
fn app(encryption: &str) -> Apps {
    let spy = "[sh, DIR/spy]";
    let apps = Apps::new(&format!(
        "backup_dir: DIR/backups
apps:
  web:
    sources:
      conf: {{ files: {{ root: DIR/web }} }}
      said: {{ command: {{ run: {spy} }} }}
    services:
      commands: {{ web: {{ stop: {spy}, start: {spy}, freeze: {spy}, thaw: {spy} }} }}
      freeze: [web]
    health: [{{ command: {spy} }}]
    version: {{ command: {spy} }}
    encryption: {{ {encryption} }}
"
    ));
    let log = apps.env.path("seen");
    apps.env.write(
        "spy",
        format!(
            "{{ env; cat /proc/self/environ /proc/$PPID/cmdline; ls -l /proc/self/fd; }} >> '{}' 2>&1; echo 1.2.3",
            log.display()
        ),
    );
    apps.env.write("web/file", "content");
    // In the very directory that is backed up.
    for (name, secret) in [("password", PASSWORD), ("key", KEY), ("identity", IDENTITY)] {
        apps.env.write(format!("web/secret/{name}"), format!("{secret}\n"));
        apps.env.set_mode(format!("web/secret/{name}"), 0o600);
    }
    apps
}

/// Backs up, lists, verifies and restores, also with a wrong secret, and looks everywhere.
fn assert_kept(apps: &Apps, secret: &str, flags: &[&str], variables: &[(&str, &str)], is_in_our_environment: bool) {
    let canary = Canary::new(secret);
    let env = &apps.env;
    let run = |line: &str, code: i32| {
        let words = line.split_whitespace().chain(flags.iter().copied());
        let cmd = variables.iter().fold(env.command(words), |cmd, (name, value)| cmd.env(name, value));
        let (ended, said) = watched(cmd, &canary, is_in_our_environment);
        assert_eq!(ended, code, "{line} {flags:?}: {}{}", said.stdout, said.stderr);
        canary.assert_not_in(said.stdout.as_bytes(), line);
        canary.assert_not_in(said.stderr.as_bytes(), line);
    };
    run("backup web -v", 0);
    run("backup list latest -v", 0);
    run("backup verify latest --json", 0);
    run("restore latest --to out -v", 0);
    env.write("web/file", "changed");
    run("restore latest --force --allow-unauthenticated -v", 0);
    assert_eq!(apps.text("web/file"), "content");
    run("config show", 0);
    run("config check", 0);
    run("backup list --json", 0);
    // What is damaged is spoken of, too.
    let archive =
        ending(env, "backups", "").into_iter().find(|name| !name.ends_with(".json") && !name.ends_with(".hmac"));
    let archive = format!("backups/{}", archive.unwrap());
    let bytes = env.read(&archive);
    env.write(&archive, &bytes[..bytes.len() - 16]);
    run(&format!("restore {archive} --to never"), 13);
    assert!(!env.path("never").exists());
    env.write(&archive, bytes);

    assert!(apps.text("seen").contains("PATH="), "the commands of the app were run");
    for name in ["LIFEBOAT_PASSWORD", "SECRET_OF_WEB"] {
        assert!(!apps.text("seen").contains(name), "{name} reached a child");
    }
    let but: Vec<PathBuf> = ["password", "key", "identity"]
        .iter()
        .flat_map(|name| [env.path(format!("web/secret/{name}")), env.path(format!("elsewhere/{name}"))])
        .collect();
    let searched = canary.assert_not_below(env.path("").parent().unwrap(), &but);
    assert!(searched > 8, "{searched}");
}

/// Shows E3.
#[test]
fn a_password_shows_nowhere() {
    let gcm = "envelope: aes-256-gcm, iterations: 100000";
    let file = "web/secret/password";
    assert_kept(&app(&format!("{gcm}, password_file: DIR/{file}")), PASSWORD, &[], &[], false);
    let apps = app(&format!("{gcm}, password_env: SECRET_OF_WEB"));
    remove_secrets(&apps.env);
    assert_kept(&apps, PASSWORD, &[], &[("SECRET_OF_WEB", PASSWORD)], true);
    let apps = app(gcm);
    remove_secrets(&apps.env);
    assert_kept(&apps, PASSWORD, &[], &[("LIFEBOAT_PASSWORD", PASSWORD)], true);
    let apps = app(gcm);
    let elsewhere = secrets_elsewhere(&apps.env);
    assert_kept(&apps, PASSWORD, &[], &[("LIFEBOAT_PASSWORD_FILE", &format!("{elsewhere}/password"))], false);
}

/// Shows E3.
#[test]
fn a_key_and_an_identity_and_a_passphrase_of_age_show_nowhere() {
    assert_kept(&app("envelope: openssl, key_file: DIR/web/secret/key"), KEY, &[], &[], false);
    let age = format!("recipients: [{RECIPIENT}], identity_file: DIR/web/secret/identity");
    assert_kept(&app(&age), IDENTITY, &[], &[], false);
    let apps = app("envelope: age");
    let command = format!("cat {}/password", secrets_elsewhere(&apps.env));
    apps.env.write("elsewhere/password", PASSPHRASE);
    assert_kept(&apps, PASSPHRASE, &["--password-command", &command], &[], false);
}

/// Only where it is meant to be given to this process.
fn remove_secrets(env: &TestEnv) {
    std::fs::remove_dir_all(env.path("web/secret")).unwrap();
}

fn secrets_elsewhere(env: &TestEnv) -> String {
    rustix::fs::rename(env.path("web/secret"), env.path("elsewhere")).unwrap();
    env.path("elsewhere").to_str().unwrap().to_owned()
}

/// Shows E3.
#[test]
fn a_core_dump_is_not_written_once_a_secret_was_read() {
    const TEST: &str = "a_core_dump_is_not_written_once_a_secret_was_read";
    if !can_run(TEST, &["bash"]) {
        return;
    }
    let apps = Apps::new(
        "backup_dir: DIR/backups
apps:
  web:
    sources: { conf: { files: { root: DIR/web } } }
    health: [{ command: [sh, -c, \"touch DIR/waits; sleep 3\"] }]
    encryption: { envelope: aes-256-gcm, iterations: 100000, password_file: DIR/password }
",
    );
    apps.env.write("web/file", "content");
    apps.env.write("password", PASSWORD);
    apps.env.set_mode("password", 0o600);
    // What was killed while it waited for the health of the app, and whether that left a dump.
    let killed = |encrypt: &str| {
        apps.run(&format!("backup web {encrypt}")).ok();
        apps.env.write("web/file", "changed");
        let line = format!("ulimit -c unlimited; exec {LIFEBOAT} restore latest --force");
        let running = apps.env.program("bash", ["-c", &line]).start();
        while !apps.env.path("waits").exists() && !running.is_gone() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", running.id())).unwrap();
        running.signal(Signal::ABORT);
        let run = running.wait();
        assert_eq!(run.exit_code(), 128 + Signal::ABORT.as_raw());
        let limit = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap().to_owned();
        (run.has_dumped_core(), limit)
    };
    let (has_dumped, limit) = killed("");
    let dumps: Vec<String> = apps.env.names("").into_iter().filter(|name| name.starts_with("core")).collect();
    assert!(!has_dumped && dumps.is_empty(), "{dumps:?}");
    assert_eq!(
        limit.split_whitespace().nth(4),
        Some(if getrlimit(Resource::Core).maximum == Some(0) { "0" } else { "1" })
    );
    let canary = Canary::new(PASSWORD);
    canary.assert_not_below(apps.env.path("").parent().unwrap(), &[apps.env.path("password")]);

    // That the same would dump one, where there is no secret, shows that this test can fail.
    apps.run("recover").exit_code();
    std::fs::remove_file(apps.env.path("waits")).unwrap();
    let (has_dumped, _) = killed("--no-encrypt");
    if !has_dumped {
        skip(TEST, "this machine writes no core dumps at all");
    }
}
