//! Services that a backup paused, as the program itself lets them go on: its
//! guard, `recover` and `status`. The note is written by hand (`doc/formats.md`).

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use lifeboat_store::testing::{can_run, sweep};
use rustix::process::{Pid, Signal, getsid, kill_process};

use crate::env::TestEnv;
use crate::faults::LIFEBOAT;

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

/// An app with a service that is frozen while the file `frozen` exists; what is
/// done to it stands in `log`.
struct Scene {
    env: TestEnv,
}

impl Scene {
    fn new(freeze: &str) -> Self {
        let env = TestEnv::new();
        env.write("source/a", "a");
        env.write("source/b", "b");
        let (dir, source) = (env.path("").display().to_string(), env.path("source").display().to_string());
        let at = |script: &str| format!("[sh, -c, \"cd {dir} && echo {script}\"]");
        let (freezes, thaws) = (at("freeze >> log; touch frozen"), at("thaw >> log; rm -f frozen"));
        let configuration = format!(
            "apps:
  app:
    sources: {{ conf: {{ files: {{ root: {source} }} }} }}
    services:
      commands:
        web: {{ stop: ['false'], start: ['false'], status: ['true'], freeze: {freezes}, thaw: {thaws} }}
      {freeze}
"
        );
        env.write("lifeboat.yaml", configuration);
        env.set_mode("lifeboat.yaml", 0o600);
        Self { env }
    }

    /// Back to the state before any backup.
    fn reset(&self) {
        for gone in [self.env.path("log"), self.env.path("frozen"), self.env.path("app.tar.zst")] {
            std::fs::remove_file(gone).unwrap_or(());
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.env.path("log")).unwrap_or_default().replace('\n', " ")
    }

    /// Whether there is a good backup or not, no service is told to stand still.
    fn assert_nothing_waits(&self) {
        let run = self.env.lifeboat(["status"]);
        let code = run.exit_code();
        let said = run.code(code).stdout;
        assert!(said.ends_with("Nothing waits, and nothing is kept.\n"), "{said}");
    }

    fn is_frozen(&self) -> bool {
        self.env.path("frozen").exists()
    }

    fn eventually(&self, within: Duration, what: &str, is_so: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            assert!(began.elapsed() < within, "not within {within:?}: {what}; {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

const BACKUP: [&str; 4] = ["backup", "app", "-o", "app.tar.zst"];
/// What is promised after a kill.
const SOON: Duration = Duration::from_secs(2);

/// Shows P5.
#[test]
fn a_backup_freezes_what_is_named_and_nothing_else_and_reports_the_pause() {
    let scene = Scene::new("restore_stop: [web]");
    scene.env.lifeboat(BACKUP).ok();
    assert_eq!(scene.log(), "");

    let scene = Scene::new("freeze: [web]");
    let said = scene.env.lifeboat(BACKUP.iter().chain(&["--json"])).ok();
    assert_eq!(scene.log(), "freeze thaw ");
    let summary = said.json_lines().into_iter().find(|line| line["message_type"] == "summary").expect("a summary");
    let pause = &summary["pauses"][0];
    assert_eq!((&pause["service"], &pause["how"]), (&"web".into(), &"frozen".into()), "{summary}");
    assert!(pause["pause_ms"].as_u64().is_some_and(|millis| millis < 20_000), "{summary}");
    scene.reset();
    let said = scene.env.lifeboat(BACKUP).ok().stdout;
    assert!(said.contains("\npaused: web for "), "{said}");
}

/// Shows P5.
#[test]
fn a_service_frozen_for_too_long_goes_on_and_the_backup_is_incomplete() {
    if !can_run("a_service_frozen_for_too_long_goes_on_and_the_backup_is_incomplete", &["strace"]) {
        return;
    }
    let scene = Scene::new("freeze: [web]\n      freeze_max: 300ms");
    // The folder of the source is listed while the service is frozen, and slowly.
    let slow = ["-f", "-b", "execve", "-o", "trace", "-e", "inject=getdents64:delay_enter=300000", LIFEBOAT];
    let said = scene.env.run("strace", slow.iter().chain(&BACKUP)).code(3);
    assert!(said.stderr.contains("before all was read"), "{}", said.stderr);
    assert_eq!(scene.log(), "freeze thaw ");
    assert!(scene.env.path("app.tar.zst").exists());
}

/// Shows P5.
#[test]
fn ctrl_c_while_a_service_is_frozen_thaws_it() {
    let scene = Scene::new("freeze: [web]");
    for signal in [Signal::INT, Signal::TERM] {
        scene.reset();
        // Large enough that it is still read when the signal comes.
        scene.env.write("source/large", vec![7; 200 << 20]);
        let running = scene.env.command(BACKUP).start();
        scene.eventually(Duration::from_secs(20), "frozen", Scene::is_frozen);
        running.signal(signal);
        let said = running.wait().code(128 + signal.as_raw());
        assert!(!said.stderr.is_empty());
        assert_eq!((scene.log().as_str(), scene.is_frozen()), ("freeze thaw ", false));
        scene.assert_nothing_waits();
    }
}

/// The calls of a backup from the name of its note on, by name and number.
fn points(trace: &str) -> Vec<(String, usize)> {
    let calls = trace.lines().filter_map(|line| {
        let (thread, call) = line.split_once(' ')?;
        call.trim_start().split_once('(').filter(|(name, _)| !name.contains(' ')).map(|(name, _)| (thread, name))
    });
    let calls: Vec<(&str, &str)> = calls.collect();
    let first = calls.iter().position(|(_, name)| *name == "linkat").expect("the note gets its name");
    let thread = calls[first].0;
    let own = calls.iter().enumerate().skip(first).filter(|(_, call)| call.0 == thread);
    own.map(|(at, call)| (call.1.to_owned(), calls[..=at].iter().filter(|other| *other == call).count())).collect()
}

/// Only the backup is killed, not what it starts: that is let go when it
/// becomes another program.
///
/// Shows P5.
#[test]
fn a_backup_killed_at_any_moment_leaves_nothing_frozen() {
    if !can_run("a_backup_killed_at_any_moment_leaves_nothing_frozen", &["strace"]) {
        return;
    }
    let scene = Scene::new("freeze: [web]");
    let run = |options: &[&str]| {
        scene.reset();
        let strace = ["-f", "-b", "execve", "-o", "trace"];
        scene.env.run("strace", strace.iter().chain(options).chain(&[LIFEBOAT]).chain(&BACKUP)).exit_code()
    };
    assert_eq!(run(&[]), 0);
    let points = points(&String::from_utf8_lossy(&scene.env.read("trace")));
    let mut thawed = 0;
    for number in sweep("a backup that freezes, killed", points.len(), 40) {
        let (name, count) = &points[number];
        let what = format!("killed at {name} {count}");
        run(&["-e", &format!("trace={name}"), "-e", &format!("inject={name}:signal=KILL:when={count}")]);
        scene.eventually(SOON, &what, |scene| !scene.is_frozen());
        std::thread::sleep(Duration::from_millis(50));
        assert!(!scene.is_frozen(), "{what}: {}", scene.log());
        // A kill between the note and the guard leaves the note, and nothing frozen.
        scene.env.lifeboat(["recover"]).ok();
        scene.assert_nothing_waits();
        thawed += usize::from(scene.log() == "freeze thaw ");
    }
    assert!(thawed > 0);
}

/// Shows P5.
#[test]
fn a_thaw_that_fails_is_never_passed_over() {
    let scene = Scene::new("freeze: [web]");
    let configuration = String::from_utf8(scene.env.read("lifeboat.yaml")).unwrap();
    scene.env.write("lifeboat.yaml", configuration.replace("rm -f frozen", "echo no such luck >&2; exit 5"));
    let said = scene.env.lifeboat(BACKUP).code(3);
    assert!(said.stderr.contains("service web could not be thawed") && said.stderr.contains("no such luck"));
    assert!(scene.is_frozen() && scene.env.path("app.tar.zst").exists());
    let said = scene.env.lifeboat(["status"]).code(1).stdout;
    assert!(said.contains("left web paused; run `lifeboat recover`"), "{said}");

    // A backup that fails says it too, besides its own reason.
    let failing = scene.env.path("source");
    scene.reset();
    std::fs::remove_dir_all(scene.env.data_dir()).unwrap();
    std::fs::remove_dir_all(failing).unwrap();
    let said = scene.env.lifeboat(BACKUP).code(18);
    assert!(said.stderr.contains("service web could not be thawed"), "{}", said.stderr);
}
