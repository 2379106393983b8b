//! Encrypted archives: how each is made and opened, where its secret comes from
//! and stays, what a wrong key and damage do, and what is known without any key.
#![expect(clippy::unwrap_used, reason = "these are the helpers of tests")]

use std::path::PathBuf;

use rexpect::session::{PtySession, spawn_command};

use crate::apps::{Apps, clock};
use crate::env::{Cmd, Run, TestEnv};

mod beside;
mod canary;
mod damage;
mod envelopes;
mod keys;
mod passwords;

/// An identity of age, and its recipient.
const IDENTITY: &str = "AGE-SECRET-KEY-1QF2PWMR4LYRCV8NV5EZJT2Y8AJ5Z79Q4EHD6XE6XJU729FSX5UPS2UJ9JC";
const RECIPIENT: &str = "age1pv2m283ewuqvmv8grw7ps6q37tfdnae9elsf24exphgw4sdzccrq87j8nv";
/// Another.
const OTHER_IDENTITY: &str = "AGE-SECRET-KEY-107W0XQM08PU62MQEJJUSXKSEG43DYC26M608A3F34K8RC8THE57QT6AM35";
/// 32 random bytes, as `openssl rand -base64 32` prints them.
const KEY: &str = "Gvkhn2Ju4TlQ/dkBmtv1IkzDbe7CxvzU+wNT/KyhbVo=";
const OTHER_KEY: &str = "PWFxOn3xQCjUlACDZ+xJ99Hsz5zPlDDwQS9p65SOmrA=";
const PASSWORD: &str = "correct horse battery";

/// A way to encrypt, and what opens it again.
struct Kind {
    /// As sidecars call it.
    envelope: &'static str,
    /// What `backup` is given.
    seal: [&'static str; 4],
    /// What opens it.
    open: [&'static str; 2],
    /// What does not.
    wrong: [&'static str; 2],
    /// How the name of an archive ends.
    suffix: &'static str,
}

const RECIPIENTS: Kind = Kind {
    envelope: "age",
    seal: ["--recipient", RECIPIENT, "--envelope", "age"],
    open: ["--identity-file", "identity"],
    wrong: ["--identity-file", "other-identity"],
    suffix: ".tar.zst.age",
};
const PASSPHRASE: Kind = Kind {
    envelope: "age",
    seal: ["--password-file", "password", "--envelope", "age"],
    open: ["--password-file", "password"],
    wrong: ["--password-file", "other-password"],
    suffix: ".tar.zst.age",
};
const OPENSSL: Kind = Kind {
    envelope: "openssl",
    seal: ["--key-file", "key", "--envelope", "openssl"],
    open: ["--key-file", "key"],
    wrong: ["--key-file", "other-key"],
    suffix: ".tar.zst.enc",
};
const GCM: Kind = Kind {
    envelope: "aes-256-gcm",
    seal: ["--password-file", "password", "--envelope", "aes-256-gcm"],
    open: ["--password-file", "password"],
    wrong: ["--password-file", "other-password"],
    suffix: ".tomo-backup",
};
const KINDS: [Kind; 4] = [RECIPIENTS, PASSPHRASE, OPENSSL, GCM];

/// An environment with a secret of each kind, and one that is not the right one.
fn env() -> TestEnv {
    let env = TestEnv::new();
    write_secrets(&env);
    env
}

fn write_secrets(env: &TestEnv) {
    for (name, text) in [
        ("identity", IDENTITY),
        ("other-identity", OTHER_IDENTITY),
        ("key", KEY),
        ("other-key", OTHER_KEY),
        ("password", PASSWORD),
        ("other-password", "wrong horse"),
    ] {
        env.write(name, format!("{text}\n"));
        env.set_mode(name, 0o600);
    }
}

/// The words of a command line, and then more of them.
fn lifeboat(env: &TestEnv, line: &str, more: &[&str]) -> Run {
    env.lifeboat(line.split_whitespace().chain(more.iter().copied()))
}

/// `what` on a terminal.
fn on_terminal(what: Cmd) -> PtySession {
    spawn_command(what.reads_terminal().into_command(), Some(30_000)).unwrap()
}

/// All that is still said on it, and the exit code.
fn ended(mut terminal: PtySession, code: i32) -> String {
    let said = terminal.exp_eof().unwrap();
    let status = format!("{:?}", terminal.process_mut().wait().unwrap());
    assert!(status.contains(&format!(", {code})")), "{status}: {said}");
    said
}

/// An app `web`, with the block `encryption`, whose archives go to `backups`.
fn web(encryption: &str) -> Apps {
    let apps = Apps::new(&with_encryption(encryption));
    apps.env.write("web/file", "content");
    write_secrets(&apps.env);
    apps
}

fn with_encryption(encryption: &str) -> String {
    format!(
        "backup_dir: DIR/backups
apps:
  web:
    sources: {{ conf: {{ files: {{ root: DIR/web }} }} }}
    encryption: {{ {encryption} }}
"
    )
}

/// The names in `dir` that end so.
fn ending(env: &TestEnv, dir: &str, suffix: &str) -> Vec<String> {
    if !env.path(dir).exists() {
        return Vec::new();
    }
    env.names(dir).into_iter().filter(|name| name.ends_with(suffix)).collect()
}

/// The only file in `dir` whose name ends so, as a path from the working directory.
fn only(env: &TestEnv, dir: &str, suffix: &str) -> String {
    let names = ending(env, dir, suffix);
    assert_eq!(names.len(), 1, "{names:?}");
    if dir.is_empty() { names[0].clone() } else { format!("{dir}/{}", names[0]) }
}

/// `web-backup-2026-02-24` of today.
fn stem(app: &str) -> String {
    format!("{app}-backup-{}", clock("now", "%Y-%m-%d"))
}

/// Moves a file, and what stands beside it.
fn rename(env: &TestEnv, from: &str, to: &str, beside: &[&str]) {
    for end in [""].iter().chain(beside) {
        rustix::fs::rename(env.path(format!("{from}{end}")), env.path(format!("{to}{end}"))).unwrap();
    }
}

fn remove(env: &TestEnv, path: &str) {
    let path: PathBuf = env.path(path);
    if path.is_dir() { std::fs::remove_dir_all(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
}
