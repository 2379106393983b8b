//! What is promised of programs, shown with a shell.

mod piped;

use std::path::Path;
use std::time::{Duration, Instant};

use super::said::SAID_MAX_BYTES;
use super::{Companion, Ended, GRACE, Heard, Tool};
use crate::{Cancel, ErrorKind};

fn sh(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).to_vec()
}

fn run(script: &str) -> Ended {
    Tool::new(&sh(script), Duration::from_secs(20)).run(None).unwrap()
}

#[test]
fn the_exit_code_and_what_was_said_come_back() {
    let ended = run("echo out; echo err >&2; exit 3");
    assert_eq!((ended.code(), ended.said.as_str()), (Some(3), "out\nerr"));
    assert_eq!(ended.describe(), "exit code 3: out; err");
    assert!(run("exit 0").is_success());
    let killed = run("kill -9 $$");
    assert_eq!((killed.code(), killed.describe().as_str()), (None, "killed by signal 9"));
}

#[test]
fn arguments_are_never_seen_by_a_shell() {
    let argv = ["printf", "%s", "$(id) * ; `id`"].map(str::to_owned);
    let ended = Tool::new(&argv, Duration::from_secs(20)).run(None).unwrap();
    assert_eq!(ended.said, "$(id) * ; `id`");
}

#[test]
fn of_much_output_only_the_end_is_kept_and_control_characters_are_escaped() {
    let ended = run("head -c 5000000 /dev/zero | tr '\\0' '\\033'; echo; printf 'the end\\033[2J\\n'");
    assert!(ended.said.len() <= SAID_MAX_BYTES, "{}", ended.said.len());
    assert!(ended.said.ends_with("\nthe end\\x1b[2J"), "{}", ended.said);
}

#[test]
fn a_program_that_prints_without_end_takes_no_memory_without_end() {
    let tool = sh("exec yes");
    let tool = Tool::new(&tool, Duration::from_millis(300));
    assert!(tool.run(None).is_err());
}

#[test]
fn a_daemon_that_keeps_the_output_open_is_not_waited_for() {
    let started = Instant::now();
    let argv = sh("sleep 30 & echo $!; echo started >&2");
    let ended = Tool::new(&argv, Duration::from_secs(20)).run(None).unwrap();
    assert!(started.elapsed() < Duration::from_secs(10));
    let pid = ended.said.lines().next().unwrap();
    // It still runs: only a program that is too slow has its group ended.
    assert!(run(&format!("kill {pid}")).is_success());
}

#[test]
fn of_a_program_that_starts_a_service_only_stderr_is_kept() {
    let argv = sh("to=$(readlink /proc/$$/fd/1); echo $to >&2; echo out");
    let ended = Tool::new(&argv, Duration::from_secs(20)).leaves_daemon().run(None).unwrap();
    assert_eq!(ended.said, "/dev/null");
}

#[test]
fn it_has_no_input_and_starts_in_no_folder_that_is_restored() {
    assert_eq!(run("cat; pwd").said, "/");
}

#[test]
fn one_that_is_too_slow_is_ended_with_its_whole_group() {
    let dir = tempfile::tempdir().unwrap();
    let pid_file = dir.path().join("pid");
    let argv = sh(&format!("sleep 60 & echo $! > {}; echo waiting; wait", pid_file.display()));
    let error = Tool::new(&argv, Duration::from_secs(1)).run(None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(error.what().ends_with("did not end within 1s: waiting"), "{error}");
    let pid = std::fs::read_to_string(pid_file).unwrap();
    // A zombie that nobody has waited for yet is as good as gone.
    let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
}

#[test]
fn one_that_ignores_sigterm_is_killed() {
    let started = Instant::now();
    let argv = sh("trap '' TERM; while true; do sleep 1; done");
    let error = Tool::new(&argv, Duration::from_millis(300)).run(None).unwrap_err();
    assert!(error.what().ends_with("did not end within 300ms"), "{error}");
    assert!(started.elapsed() > GRACE && started.elapsed() < Duration::from_secs(15));
}

#[test]
fn cancel_ends_it() {
    let cancel = Cancel::new();
    cancel.set();
    let started = Instant::now();
    let error = Tool::new(&sh("sleep 60"), Duration::from_secs(60)).run(Some(&cancel)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(started.elapsed() < Duration::from_secs(15));
}

#[test]
fn a_companion_is_spoken_to_in_lines_and_outlives_a_silence() {
    let argv = ["-c", "while read line; do printf 'a '; sleep 0.1; echo \"$line\"; done; echo over"];
    let mut companion = Companion::start(Path::new("/bin/sh"), &argv.map(str::to_owned)).unwrap();
    assert_eq!(companion.hear(Duration::from_millis(50), None), Heard::TooLate);
    companion.say("one\ntwo").unwrap();
    let long = Duration::from_secs(20);
    for expected in ["a one", "a two"] {
        assert_eq!(companion.hear(long, None), Heard::Line(expected.to_owned()));
    }
    let cancel = Cancel::new();
    cancel.set();
    assert_eq!(companion.hear(long, Some(&cancel)), Heard::Cancelled);
    companion.hang_up();
    assert_eq!(companion.hear(long, None), Heard::Line("over".to_owned()));
    assert_eq!(companion.hear(long, None), Heard::Ended);
    assert!(companion.say("anybody there?").is_err());
}

#[test]
fn a_program_that_is_not_there_is_named() {
    for argv in [&["/nonexistent/tool".to_owned(), "a\nb".to_owned()][..], &[]] {
        let error = Tool::new(argv, Duration::from_secs(1)).run(None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Failed);
        assert!(error.what().starts_with("could not run "), "{error}");
        assert!(argv.is_empty() || error.what().ends_with("tool a\\nb: No such file or directory"), "{error}");
    }
}

/// Shows E3.
#[test]
#[expect(clippy::disallowed_methods, reason = "looks at a command and does not start it")]
fn what_is_secret_in_our_environment_is_taken_from_it() {
    super::withhold("PASSWORD_OF_A_TEST");
    let mut command = std::process::Command::new("none");
    command.env("KEPT", "x");
    super::withhold_from(&mut command);
    let removed: Vec<_> = command.get_envs().filter(|(_, value)| value.is_none()).map(|(name, _)| name).collect();
    for name in ["LIFEBOAT_PASSWORD", "LIFEBOAT_PASSWORD_FILE", "LIFEBOAT_PASSWORD_COMMAND", "PASSWORD_OF_A_TEST"] {
        assert!(removed.contains(&std::ffi::OsStr::new(name)), "{name}");
    }
    assert!(!removed.contains(&std::ffi::OsStr::new("KEPT")));
}
