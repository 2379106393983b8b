//! Services are real processes here, stopped and continued by signals, and
//! scripts that note what is done to them. The guard is this test program once
//! more, and so is a run that is killed: [`in_another_process`].

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use rustix::process::Pid;

use super::*;
use crate::services::ServiceKind;

mod kills;

/// Says which part a process plays that this program has started.
const PART: &str = "LIFEBOAT_TEST_PART";
const LONG: Duration = Duration::from_secs(20);
/// What is promised after a kill.
const SOON: Duration = Duration::from_secs(2);

/// This program, running [`in_another_process`] only, as `part`. What it
/// answers goes to the file 3: the first two lines of its output are the
/// harness's own.
fn program(part: &str, words: &str) -> GuardProgram {
    let own = std::env::current_exe().unwrap().display().to_string();
    let test = "freeze::tests::in_another_process";
    let script = format!("{PART}='{part} {words}' exec \"$0\" --exact {test} --nocapture 3>&1 >&2");
    GuardProgram { program: "/bin/sh".into(), arguments: ["-c", &script, &own].map(str::to_owned).to_vec() }
}

/// Plays the part that the process was started for: in a run of all tests, none.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test program is told by the environment which part it plays")]
fn in_another_process() {
    let Ok(part) = std::env::var(PART) else {
        assert!(program("guard", "").arguments[1].contains("in_another_process"));
        return;
    };
    let words: Vec<&str> = part.split(' ').collect();
    match words.as_slice() {
        ["guard", ..] => {
            let output = std::fs::OpenOptions::new().write(true).open("/proc/self/fd/3").unwrap();
            guard::run(std::io::stdin(), output, &Cancel::new()).unwrap();
        }
        ["run", dir, hold_ms] => {
            let scene = Scene { dir: (*dir).into(), _temp: None };
            let frozen = scene.freeze(LONG).unwrap();
            scene.write("held", "");
            std::thread::sleep(Duration::from_millis(hold_ms.parse().unwrap()));
            frozen.release().unwrap();
        }
        other => panic!("{other:?}"),
    }
}

/// A folder with services in it: `web` is a process that is stopped and
/// continued by signals, `app` is stopped and started.
struct Scene {
    dir: PathBuf,
    _temp: Option<tempfile::TempDir>,
}

fn sh(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).to_vec()
}

impl Scene {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let scene = Self { dir: temp.path().to_owned(), _temp: Some(temp) };
        scene.write("freeze", "echo freeze >> log; kill -STOP $(cat pid)");
        scene.write("thaw", "echo thaw >> log; kill -CONT $(cat pid)");
        scene.write("stop", "echo stop >> log; rm up");
        scene.write("start", "echo start >> log; touch up");
        scene.write("up", "");
        scene
    }

    #[expect(clippy::disallowed_methods, reason = "test data need not survive a crash")]
    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.join(name), text).unwrap();
    }

    /// Starts the process that `web` is.
    fn start_web(&self) -> Web {
        let child = spawn(&GuardProgram { program: "/bin/sleep".into(), arguments: vec!["1000".to_owned()] });
        self.write("pid", &child.id().to_string());
        Web(child)
    }

    fn at(&self, script: &str) -> Vec<String> {
        sh(&format!("cd {} && . ./{script}", self.dir.display()))
    }

    fn service(&self, name: &str) -> Service {
        let can_freeze = name == "web";
        let kind = ServiceKind::Commands {
            stop: self.at("stop"),
            start: self.at("start"),
            status: Some(sh(&format!("test -e {}/{}", self.dir.display(), if can_freeze { "pid" } else { "up" }))),
            freeze: can_freeze.then(|| self.at("freeze")),
            thaw: can_freeze.then(|| self.at("thaw")),
        };
        Service { name: name.to_owned(), kind, timeout: LONG }
    }

    fn services(&self) -> [Service; 2] {
        ["web", "app"].map(|name| self.service(name))
    }

    fn freezing<R>(&self, max: Duration, run: impl FnOnce(Freezing<'_>) -> R) -> (R, Seen) {
        let (pauses, guard) = (Pauses::default(), program("guard", ""));
        let data_dir = self.data_dir();
        let freezing = Freezing {
            data_dir: &data_dir,
            guard: &guard,
            id: "0123456789abcdef",
            max,
            retry_after: Duration::from_millis(50),
            pauses: &pauses,
        };
        let result = run(freezing);
        (result, pauses.take())
    }

    fn freeze(&self, max: Duration) -> Result<Arc<Frozen>> {
        self.freezing(max, |freezing| freeze(&self.services(), How::Frozen, freezing, &Cancel::new())).0
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default().replace('\n', " ")
    }

    /// Whether the process of `web` is stopped.
    fn is_web_stopped(&self) -> bool {
        let pid = std::fs::read_to_string(self.dir.join("pid")).unwrap();
        std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T ")
    }

    fn is_all_running(&self) -> bool {
        !self.is_web_stopped() && self.dir.join("up").exists()
    }

    fn notes(&self) -> usize {
        note::all(&self.data_dir()).unwrap().len()
    }

    fn run_in_another_process(&self, hold: Duration) -> Child {
        spawn(&program("run", &format!("{} {}", self.dir.display(), hold.as_millis())))
    }

    /// The process of the guard that looks after the note here, if there is one.
    fn guard(&self, run: u32) -> Option<Pid> {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let is_it = |pid: &i32| {
            let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            let environment = String::from_utf8_lossy(&read("environ")).into_owned();
            let stat = String::from_utf8_lossy(&read("stat")).into_owned();
            let parent = stat.rsplit(')').next().and_then(|rest| rest.split(' ').nth(2)?.parse().ok());
            environment.contains(&format!("{PART}=guard")) && parent == Some(run)
        };
        all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(is_it).and_then(Pid::from_raw)
    }
}

struct Web(Child);

impl Drop for Web {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[expect(clippy::disallowed_methods, reason = "a process that the test kills")]
fn spawn(program: &GuardProgram) -> Child {
    let mut command = Command::new(&program.program);
    command.args(&program.arguments).process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

fn eventually(within: Duration, what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < within, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    began.elapsed()
}

/// Shows P5.
#[test]
fn services_stand_still_until_the_last_source_has_reached_its_point_and_the_pause_is_measured() {
    let scene = Scene::new();
    let _web = scene.start_web();
    let (pauses, seen) = scene.freezing(LONG, |freezing| {
        let first = freeze(&scene.services(), How::Frozen, freezing, &Cancel::new()).unwrap();
        let second = Arc::clone(&first);
        assert!(scene.is_web_stopped() && !scene.dir.join("up").exists());
        assert!(waiting(&scene.data_dir()).unwrap()[0].is_running);
        assert_eq!(first.release().unwrap(), []);
        std::thread::sleep(Duration::from_millis(700));
        assert!(scene.is_web_stopped());
        second.release().unwrap()
    });
    assert!(scene.is_all_running());
    assert_eq!(scene.log(), "freeze stop start thaw ");
    assert_eq!(seen.pauses, pauses);
    let told: Vec<(&str, How, bool)> =
        pauses.iter().map(|pause| (pause.service.as_str(), pause.how, pause.thawed_early)).collect();
    assert_eq!(told, [("app", How::Stopped, false), ("web", How::Frozen, false)]);
    for pause in &pauses {
        let millis = pause.pause.as_millis();
        assert!((700..2500).contains(&millis), "{pause:?}");
    }
    assert_eq!((scene.notes(), seen.problems.len()), (0, 0));
    let json = serde_json::to_string(&pauses[1]).unwrap();
    assert!(json.starts_with(r#"{"service":"web","how":"frozen","pause_ms":"#), "{json}");
}

/// Shows P5.
#[test]
fn nothing_is_paused_or_started_that_did_not_run_or_was_not_named() {
    let scene = Scene::new();
    std::fs::remove_file(scene.dir.join("up")).unwrap();
    let (frozen, seen) = scene.freezing(LONG, |freezing| {
        let none = freeze(&[], How::Frozen, freezing, &Cancel::new()).unwrap();
        // `web` has never been started either: it has no process.
        let stopped = freeze(&scene.services(), How::Frozen, freezing, &Cancel::new()).unwrap();
        [none, stopped]
    });
    for frozen in frozen {
        assert!(frozen.is_empty());
        assert_eq!(frozen.release().unwrap(), []);
    }
    assert_eq!((scene.log(), seen.pauses), (String::new(), Vec::new()));
    assert!(!scene.data_dir().exists(), "not even a note");
}

#[test]
fn where_one_cannot_be_frozen_those_before_go_on_and_the_error_says_what_to_do() {
    let scene = Scene::new();
    let _web = scene.start_web();
    scene.write("stop", "echo busy >&2; exit 7");
    let (result, seen) =
        scene.freezing(LONG, |freezing| freeze(&scene.services(), How::Frozen, freezing, &Cancel::new()));
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(error.what().starts_with("service app did not stop: ") && error.what().ends_with("busy"), "{error}");
    assert!(error.data_state().unwrap().starts_with("every service that ran goes on"));
    assert!(error.next_step().is_some());
    assert!(scene.is_all_running());
    assert_eq!((scene.notes(), seen.problems.len()), (0, 0));
    // The one whose stop failed may have stopped all the same; `start` asks first.
    assert_eq!(scene.log(), "freeze thaw ");
}

/// Shows P5.
#[test]
fn a_thaw_that_fails_names_the_command_and_is_tried_again_by_recover() {
    let scene = Scene::new();
    let _web = scene.start_web();
    let (result, seen) = scene.freezing(LONG, |freezing| {
        let frozen = freeze(&scene.services(), How::Frozen, freezing, &Cancel::new()).unwrap();
        scene.write("thaw", "echo no such luck >&2; exit 5");
        frozen.release()
    });
    let error = result.unwrap_err();
    let by_hand = scene.service("web").thaw_line(How::Frozen);
    assert!(error.what().contains("service web could not be thawed"), "{error}");
    assert!(error.next_step().unwrap().contains(&format!("run `{by_hand}` now")), "{:?}", error.next_step());
    assert_eq!(seen.pauses.len(), 1, "app went on");
    assert_eq!(seen.problems[0].class, ProblemClass::StandsStill);
    assert!(seen.problems[0].message.contains(&by_hand) && !ProblemClass::StandsStill.is_note());
    assert!(scene.is_web_stopped());
    let left = waiting(&scene.data_dir()).unwrap();
    assert_eq!((left[0].is_running, &left[0].services), (false, &vec!["web".to_owned(), "app".to_owned()]));
    assert!(recover(&scene.data_dir()).is_err());
    // Nothing of it is frozen anew before it goes on.
    assert!(scene.freeze(LONG).unwrap_err().what().contains("could not be thawed"));
    scene.write("thaw", "kill -CONT $(cat pid)");
    assert_eq!(recover(&scene.data_dir()).unwrap().len(), 1);
    assert!(scene.is_all_running());
    assert!(recover(&scene.data_dir()).unwrap().is_empty() && waiting(&scene.data_dir()).unwrap().is_empty());
}

/// A thaw that is dropped, as by a failing source, is told as well.
#[test]
fn a_thaw_that_fails_while_nobody_asks_stands_in_the_pauses() {
    let scene = Scene::new();
    let _web = scene.start_web();
    let ((), seen) = scene.freezing(LONG, |freezing| {
        let frozen = freeze(&scene.services(), How::Frozen, freezing, &Cancel::new()).unwrap();
        scene.write("thaw", "exit 5");
        drop(frozen);
    });
    assert_eq!(seen.problems.len(), 1);
    assert_eq!(seen.problems[0].object, "web");
}

/// Shows P5.
#[test]
fn services_that_stand_still_for_too_long_go_on_and_the_run_notices() {
    let scene = Scene::new();
    let _web = scene.start_web();
    let (pauses, seen) = scene.freezing(Duration::from_millis(500), |freezing| {
        let frozen = freeze(&scene.services(), How::Frozen, freezing, &Cancel::new()).unwrap();
        eventually(SOON, "thawed by the guard", || scene.is_all_running() && scene.notes() == 0);
        std::thread::sleep(Duration::from_secs(1));
        frozen.release().unwrap()
    });
    assert_eq!(pauses.len(), 2);
    for pause in &pauses {
        assert!(pause.thawed_early && (490..1500).contains(&pause.pause.as_millis()), "{pause:?}");
    }
    assert!(seen.problems.iter().all(|problem| problem.class == ProblemClass::Unfrozen && !problem.class.is_note()));
    assert_eq!((seen.problems.len(), scene.log().as_str()), (2, "freeze stop start thaw "));
}

/// Shows P5.
#[test]
fn what_is_locked_while_frozen_is_waited_for_one_second_and_at_last_read_unfrozen() {
    let scene = Scene::new();
    let _web = scene.start_web();
    let mut asked = Vec::new();
    let (pinned, seen) = scene.freezing(LONG, |freezing| {
        let normal = Duration::from_secs(60);
        with_frozen(&scene.services(), How::Frozen, freezing, normal, &Cancel::new(), |patience| {
            asked.push((patience, scene.is_web_stopped()));
            if asked.len() < 4 { Err(Error::new(ErrorKind::Locked, "app.db is locked")) } else { Ok(7) }
        })
        .unwrap()
    });
    let second = (Duration::from_secs(1), true);
    assert_eq!(asked, [second, second, second, (Duration::from_secs(60), false)]);
    assert!(pinned.value == 7 && pinned.frozen.is_empty());
    assert_eq!(seen.pauses.len(), 6);
    assert_eq!(seen.problems.len(), 2);
    assert!(seen.problems[0].message.contains("app.db is locked"), "{:?}", seen.problems);
    assert!(scene.is_all_running());

    // A try that works is the last one, and stays frozen.
    let mut tries = 0;
    let (pinned, seen) = scene.freezing(LONG, |freezing| {
        with_frozen(&scene.services(), How::Frozen, freezing, LONG, &Cancel::new(), |_| {
            tries += 1;
            if tries < 2 { Err(Error::new(ErrorKind::InUse, "locked")) } else { Ok(()) }
        })
        .unwrap()
    });
    assert!(scene.is_web_stopped() && seen.problems.is_empty());
    pinned.frozen.release().unwrap();

    // Anything else is an error at once, and nothing stands still after it.
    let (result, _) = scene.freezing(LONG, |freezing| {
        let pin = |_| Err::<(), _>(Error::new(ErrorKind::Corrupt, "damaged"));
        with_frozen(&scene.services(), How::Frozen, freezing, LONG, &Cancel::new(), pin)
    });
    assert_eq!(result.err().unwrap().kind(), ErrorKind::Corrupt);
    assert!(scene.is_all_running());
}

#[test]
fn two_runs_never_pause_the_same_service() {
    let scene = Scene::new();
    let _web = scene.start_web();
    let frozen = scene.freeze(LONG).unwrap();
    let error = scene.freeze(LONG).unwrap_err();
    assert_eq!((error.kind(), error.what()), (ErrorKind::Locked, "another backup pauses web"));
    assert!(recover(&scene.data_dir()).unwrap().is_empty() && scene.is_web_stopped(), "it is looked after");
    frozen.release().unwrap();
    scene.freeze(LONG).unwrap().release().unwrap();
}

#[test]
fn without_a_guard_nothing_is_frozen() {
    let scene = Scene::new();
    let _web = scene.start_web();
    for (program, said) in [("/nonexistent", "could not be started"), ("/bin/true", ""), ("/bin/cat", "not: ")] {
        let ((), _) = scene.freezing(LONG, |freezing| {
            let guard = GuardProgram { program: program.into(), arguments: Vec::new() };
            let freezing = Freezing { guard: &guard, ..freezing };
            let error = freeze(&scene.services(), How::Frozen, freezing, &Cancel::new()).unwrap_err();
            assert!(error.what().starts_with("the guard of paused services "), "{error}");
            assert!(error.what().contains(said), "{error}");
        });
    }
    assert_eq!((scene.log(), scene.notes()), (String::new(), 0));
}

#[test]
fn a_cancelled_freeze_leaves_nothing_still() {
    let scene = Scene::new();
    let _web = scene.start_web();
    scene.write("freeze", "echo freeze >> log; sleep 60");
    let cancel = Cancel::new();
    let (result, seen) = std::thread::scope(|scope| {
        scope.spawn(|| {
            eventually(LONG, "the slow freeze", || scene.log() == "freeze ");
            cancel.set();
        });
        scene.freezing(LONG, |freezing| freeze(&scene.services(), How::Frozen, freezing, &cancel))
    });
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(scene.is_all_running());
    assert_eq!((scene.notes(), seen.problems.len()), (0, 0));
}

/// What was begun is noted without a sync, which a power cut may lose.
#[test]
fn a_note_of_an_earlier_start_of_the_machine_has_everything_in_it_thawed() {
    let scene = Scene::new();
    let _web = scene.start_web();
    std::fs::remove_file(scene.dir.join("up")).unwrap();
    let held =
        scene.services().map(|service| Held { how: service.pauses_by(How::Frozen), found: Found::Running, service });
    let note = Note::create(&scene.data_dir(), "1", held.to_vec()).unwrap();
    let path = note.path().to_owned();
    drop(note);
    let text = std::fs::read_to_string(&path).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    scene.write("data/journal/1.frozen", &text.replace(boot.trim(), "another"));
    recover(&scene.data_dir()).unwrap();
    assert_eq!(scene.log(), "start thaw ");
}

#[test]
fn a_note_that_cannot_be_read_is_told_and_kept() {
    let scene = Scene::new();
    lock::make_private_dir(&scene.data_dir().join("journal")).unwrap();
    scene.write("data/journal/1.frozen", "{}\n");
    let error = recover(&scene.data_dir()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(waiting(&scene.data_dir()).unwrap()[0].damage.is_some());
    assert_eq!(scene.notes(), 1);
}
