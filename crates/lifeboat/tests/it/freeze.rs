//! Services that a backup paused, as the program itself lets them go on: its
//! guard, `recover` and `status`. The note is written by hand (`doc/formats.md`).

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getsid, kill_process};

use crate::env::TestEnv;

/// A note of one service that is frozen while the file `frozen` exists.
fn note(env: &TestEnv, is_begun: bool) -> String {
    let frozen = env.path("frozen").display().to_string();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("Linux tells it");
    let commands = format!(
        r#"{{"commands":{{"stop":["false"],"start":["false"],"status":null,"freeze":["touch","{frozen}"],"thaw":["rm","{frozen}"]}}}}"#
    );
    let service = format!(r#"{{"name":"web","kind":{commands},"timeout_ms":20000}}"#);
    let held = format!(r#"{{"service":{service},"found":"running","how":"frozen"}}"#);
    let (boot, begun) = (boot.trim(), if is_begun { "{\"pausing\":0}\n" } else { "" });
    let first = format!(
        r#"{{"note":"lifeboat-frozen/1","id":"0123456789abcdef","pid":1,"started":0,"boot":"{boot}","services":[{held}]}}"#
    );
    let path = env.data_dir().join("journal/0123456789abcdef.frozen");
    env.write(&path, format!("{first}\n{begun}"));
    path.display().to_string()
}

struct Guard {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Guard {
    fn start(env: &TestEnv, note: &str) -> Self {
        let mut command = env.command(["__guard"]).into_command();
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the guard starts");
        let said = BufReader::new(child.stdout.take().expect("it is a pipe"));
        let mut guard = Self { child, said };
        guard.say(&format!("{{\"note\":{:?},\"max_ms\":60000}}", note.as_bytes()));
        assert_eq!(guard.answer(), "\"ready\"\n");
        guard
    }

    fn say(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("it is open");
        writeln!(input, "{line}").expect("the guard reads");
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("the guard answers in text");
        line
    }
}

/// Shows P5.
#[test]
fn the_guard_outlives_signals_and_thaws_when_its_backup_is_gone() {
    let env = TestEnv::new();
    let note = note(&env, false);
    let mut guard = Guard::start(&env, &note);
    let pid = Pid::from_child(&guard.child);
    assert_eq!(getsid(Some(pid)).unwrap(), pid, "a session of its own");
    guard.say("freeze");
    assert_eq!(guard.answer(), "\"frozen\"\n");
    assert!(env.path("frozen").exists());
    for signal in [Signal::INT, Signal::TERM, Signal::TERM, Signal::HUP] {
        kill_process(pid, signal).unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    assert!(env.path("frozen").exists());
    let said = env.lifeboat(["status"]).ok().stdout;
    assert_eq!(said, "a backup pauses web just now\n");
    env.lifeboat(["recover"]).ok();
    assert!(env.path("frozen").exists(), "it is looked after");
    let gone = Instant::now();
    drop(guard.child.stdin.take());
    assert!(guard.child.wait().unwrap().success());
    assert!(gone.elapsed() < Duration::from_secs(2));
    assert!(!env.path("frozen").exists() && !std::fs::exists(note).unwrap());
}

/// Shows P5.
#[test]
fn what_a_dead_backup_left_paused_is_told_by_status_and_thawed_by_recover() {
    let env = TestEnv::new();
    let note = note(&env, true);
    env.write("frozen", "");
    let said = env.lifeboat(["status"]).code(1).stdout;
    assert!(said.starts_with("an interrupted backup left web paused; run `lifeboat recover`\n"), "{said}");
    let said = env.lifeboat(["recover"]).ok().stdout;
    assert_eq!(said, "Running again: web, which an interrupted backup had paused.\n");
    assert!(!env.path("frozen").exists() && !std::fs::exists(note).unwrap());
    env.lifeboat(["status"]).ok();
}

/// Shows P5.
#[test]
fn a_backup_thaws_what_an_earlier_one_left_paused_and_tells_where_it_cannot() {
    let env = TestEnv::new();
    env.write("data/a", "a");
    note(&env, true);
    env.write("frozen", "");
    let said = env.lifeboat(["backup", "data", "-o", "a.tar.zst"]).ok().stdout;
    assert!(said.starts_with("Running again: web, which an interrupted backup had paused.\n"), "{said}");
    assert!(!env.path("frozen").exists());

    let note = note(&env, true);
    // There is nothing to remove: the thaw fails.
    let said = env.lifeboat(["backup", "data", "-o", "b.tar.zst"]).code(3);
    let by_hand = format!("rm {}", env.path("frozen").display());
    assert!(
        said.stderr.contains("service web could not be thawed") && said.stderr.contains(&by_hand),
        "{}",
        said.stderr
    );
    assert!(env.path("b.tar.zst").exists() && std::fs::exists(&note).unwrap());
    let said = env.lifeboat(["recover"]).code(1).stderr;
    assert!(said.contains(&by_hand) && said.contains(&note), "{said}");
}
