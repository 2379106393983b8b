//! Services and health checks around a restore: the order, and what happens
//! when one of them does not do what it should.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lifeboat_store::testing::can_run;
use rustix::process::Signal;

use super::{Live, application, change};
use crate::env::{Cmd, Run, Said};
use crate::faults::{calls, trace};
use crate::fidelity::{Tree, assert_same};

/// One service, in the working directory: `NAME.runs` says that it runs, `log`
/// what it was told and what the application held then, and other files that it
/// does not do as it is told.
const SERVICE: &str = r#"
cd "$1"
name=$2
case $3 in
status) test -e "$name.runs"; exit ;;
esac
echo "$3 $name, $(cat live/app/conf/app.conf)" >> log
if test -e "$name.$3.fails"; then echo "no way" >&2; exit 1; fi
if test -e "$name.$3.fails.once"; then rm "$name.$3.fails.once"; echo "no way" >&2; exit 1; fi
if test -e "$name.$3.ignored"; then exit 0; fi
case $3 in
start) touch "$name.runs" ;;
stop) rm -f "$name.runs" ;;
esac
"#;

/// What stands in for systemd: as it does, it starts no unit whose condition is not met.
const SYSTEMCTL: &str = r#"#!/bin/sh
cd "$(dirname "$0")/.."
case $1 in
is-active) test -e "$3.runs" || exit 3 ;;
stop) cat systemd/"$2".d/*.conf > held; rm -f "$2.runs"; echo "stop $2" >> log ;;
start)
    for conf in systemd/"$2".d/*.conf; do
        path=$(sed -n 's/^ConditionPathExists=!//p' "$conf")
        if test -n "$path" && test -e "$path"; then echo "held $2" >> log; exit 0; fi
    done
    touch "$2.runs"; echo "start $2" >> log ;;
esac
"#;

/// An application that two services use, changed since its backup.
pub(super) struct Served {
    pub(super) live: Live,
    pub(super) before: Tree,
}

impl Served {
    /// With this below `services:` and this below the app; `DIR` is the working directory.
    pub(super) fn new(more_services: &str, more: &str) -> Self {
        let live = Live::new(application);
        change(&live.env);
        live.env.write("service", SERVICE);
        for name in ["web.runs", "db.runs"] {
            live.env.write(name, "");
        }
        let served = Self { before: live.all(), live };
        served.configure(more_services, more);
        served
    }

    pub(super) fn configure(&self, more_services: &str, more: &str) {
        let env = &self.live.env;
        let (root, dir) = (self.live.path("app"), env.path(""));
        let command = |name: &str, what: &str| {
            format!("{what}: [sh, {dir}service, {dir}, {name}, {what}]", dir = dir.to_str().unwrap())
        };
        let service = |name: &str| {
            let commands = ["stop", "start", "status"].map(|what| command(name, what));
            format!("        {name}: {{ {} }}\n", commands.join(", "))
        };
        let text = format!(
            "apps:
  app:
    sources: {{ app: {{ files: {{ root: {} }} }} }}
    services:
      commands:
{}{}      restore_stop: [web, db]
      timeout: 1s
{more_services}{more}",
            root.display(),
            service("db"),
            service("web"),
        );
        env.write("lifeboat.yaml", text.replace("DIR/", dir.to_str().unwrap()));
        env.set_mode("lifeboat.yaml", 0o600);
    }

    pub(super) fn restore(&self) -> Run {
        self.live.env.lifeboat(["restore", "app.tar.zst", "--force"])
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.live.env.path("log")).unwrap_or_default()
    }

    fn remove(&self, path: &str) {
        std::fs::remove_file(self.live.env.path(path)).unwrap();
    }

    fn runs(&self, name: &str) -> bool {
        self.live.env.path(format!("{name}.runs")).exists()
    }

    /// Everything is as before the restore, services included.
    pub(super) fn assert_as_before(&self, what: &str) {
        assert_same(&self.before, &self.live.all(), what);
        assert_eq!(self.live.journals(), Vec::<String>::new(), "{what}");
        assert!(self.runs("web") && self.runs("db"), "{what}: both run");
    }

    /// The restore is rolled back, and says why.
    fn assert_rolls_back(&self, why: &str) -> Said {
        let said = self.restore().code(20);
        assert!(said.stderr.contains(why), "{why}: {}", said.stderr);
        self.assert_as_before(why);
        said
    }

    /// The id of the only journal.
    pub(super) fn id(&self) -> String {
        let journals = self.live.journals();
        journals.iter().find_map(|name| name.strip_suffix(".jsonl")).expect("a journal").to_owned()
    }
}

/// Shows R7.
#[test]
fn services_stop_before_the_first_swap_and_start_after_the_last_in_reverse_order() {
    let served = Served::new("", "    health: [ { command: [\"true\"] }, { command: [\"true\"] } ]\n");
    let said = served.live.env.lifeboat(["restore", "app.tar.zst", "--force", "--json"]).ok();
    let expected = "stop web, port = 81\nstop db, port = 81\nstart db, port = 80\nstart web, port = 80\n";
    assert_eq!(served.log(), expected);
    let summary = said.json_lines().pop().unwrap();
    assert_eq!(summary["services"], serde_json::json!(["web", "db"]));
    assert_eq!(summary["health_checks"], 2);
    let pause = summary["pause_seconds"].as_f64().unwrap();
    assert!(pause > 0.0 && pause <= summary["seconds"].as_f64().unwrap(), "{summary}");
    served.live.env.write("live/app/conf/app.conf", "port = 82\n");
    let said = served.restore().ok().stdout;
    assert!(said.contains("services: web, db stopped for ") && said.contains("healthy: 2 checks passed"), "{said}");
}

/// Shows R7.
#[test]
fn a_service_that_did_not_run_is_neither_stopped_nor_started() {
    let served = Served::new("", "");
    served.remove("db.runs");
    served.restore().ok();
    assert_eq!(served.log(), "stop web, port = 81\nstart web, port = 80\n");
    assert!(served.runs("web") && !served.runs("db"));
    // Nor by a rollback.
    served.live.env.write("live/app/conf/app.conf", "port = 82\n");
    served.configure("", "    health: [ { command: [\"false\"], timeout: 200ms } ]\n");
    served.restore().code(20);
    assert!(served.runs("web") && !served.runs("db"));
    assert!(!served.log().contains("db"), "{}", served.log());
}

/// An application that crashed is the usual reason for a restore.
///
/// Shows R7.
#[test]
fn an_app_that_is_down_as_a_whole_is_started_where_checks_ask_it_and_a_rollback_stops_it_again() {
    let checked = |command: &str| format!("    health: [ {{ command: {command}, timeout: 200ms }} ]\n");
    let served = Served::new("", &checked("[sh, -c, \"cd DIR/ && test -e web.runs\"]"));
    served.remove("web.runs");
    served.remove("db.runs");
    let plan = served.live.env.lifeboat(["restore", "app.tar.zst", "--dry-run"]).ok().stdout;
    assert!(plan.contains("service web (not running): started, since checks ask it\n"), "{plan}");
    let said = served.restore().ok().stdout;
    assert_eq!(served.log(), "start db, port = 80\nstart web, port = 80\n");
    assert!(said.contains("services: web, db had not run and were started\n"), "{said}");
    for name in ["web.runs", "db.runs"] {
        served.remove(name);
    }
    served.live.discard();
    served.live.env.write("live/app/conf/app.conf", "port = 82\n");
    let before = served.live.all();
    served.configure("", &checked("[\"false\"]"));
    served.restore().code(20);
    assert_same(&before, &served.live.all(), "rolled back");
    assert!(!served.runs("web") && !served.runs("db"), "as they were found");
    // Nobody asks it: it stays as it is.
    served.configure("", "");
    served.restore().ok();
    assert!(!served.runs("web") && !served.runs("db"));
}

/// Shows R7.
#[test]
fn a_service_that_does_not_stop_or_start_is_named_and_all_is_as_before() {
    for (file, why) in [
        ("db.stop.fails", "service db did not stop: "),
        ("web.stop.fails", "service web did not stop: "),
        ("db.stop.ignored", "service db did not stop: it still runs after 1s"),
        ("db.start.fails.once", "service db did not start: "),
        ("web.start.fails.once", "service web did not start: "),
    ] {
        let served = Served::new("", "");
        served.live.env.write(file, "");
        let said = served.assert_rolls_back(why);
        assert!(said.stderr.contains("no way") || file.contains("ignored"), "{}", said.stderr);
        assert_eq!(served.log().contains("port = 80"), file.contains("start"), "{file}: {}", served.log());
    }
}

/// Shows R7.
#[test]
fn a_health_command_that_never_succeeds_rolls_back_within_its_time() {
    let served = Served::new("", "    health: [ { command: [\"false\"], timeout: 500ms, every: 50ms } ]\n");
    let began = Instant::now();
    served.assert_rolls_back("health check false did not come up within 500ms");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let (forth, back) = ("start db, port = 80\nstart web, port = 80\n", "start db, port = 81\nstart web, port = 81\n");
    let expected =
        format!("stop web, port = 81\nstop db, port = 81\n{forth}stop web, port = 80\nstop db, port = 80\n{back}");
    assert_eq!(served.log(), expected);
}

/// Runs `work` with a URL where every request is answered with this status.
fn answering(status: &str, work: impl FnOnce(&str)) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                let (mut stream, _) = listener.accept().unwrap();
                let read = stream.read(&mut [0; 1024]).unwrap_or(0);
                if read > 0 {
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                    stream.write_all(answer.as_bytes()).unwrap_or(());
                }
            }
        });
        let worked = catch_unwind(AssertUnwindSafe(|| work(&format!("http://{address}/up"))));
        // Also when the test fails, or it would wait for ever.
        is_over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(address));
        worked.unwrap_or_else(|panic| resume_unwind(panic));
    });
}

/// Shows R7.
#[test]
fn a_url_has_to_answer_as_expected() {
    let served = Served::new("", "");
    let configure = |url: &str, timeout: &str| {
        served.configure("", &format!("    health: [ {{ http: \"{url}\", timeout: {timeout}, every: 50ms }} ]\n"));
    };
    answering("503 Service Unavailable", |url| {
        configure(url, "400ms");
        served.assert_rolls_back(&format!("health check {url} did not come up within 400ms: answered 503"));
    });
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", nobody.local_addr().unwrap());
    drop(nobody);
    configure(&url, "400ms");
    served.assert_rolls_back(&format!("health check {url} did not come up within 400ms: connection refused"));
    answering("200 OK", |url| {
        configure(url, "20s");
        served.restore().ok();
    });
    assert_eq!(served.live.env.read("live/app/conf/app.conf"), b"port = 80\n");
}

/// Shows R7, R8.
#[test]
fn a_rollback_whose_start_fails_too_keeps_both_copies_until_it_is_finished() {
    for finish in ["--rollback", "recover", "--resume"] {
        let served = Served::new("", "");
        served.live.env.write("web.start.fails", "");
        let said = served.restore().code(21);
        let id = served.id();
        for expected in ["both copies are kept", &format!("restore --rollback {id}"), &format!("restore --resume {id}")]
        {
            assert!(said.stderr.contains(expected), "{finish}: {expected}: {}", said.stderr);
        }
        assert_eq!(served.live.stages().len(), 1, "{finish}");
        served.live.env.lifeboat(["status"]).code(1);
        served.remove("web.start.fails");
        let log = served.log().len();
        match finish {
            "recover" => drop(served.live.env.lifeboat(["recover"]).ok()),
            _ => drop(served.live.env.lifeboat(["restore", finish, &id]).ok()),
        }
        if finish != "--resume" {
            served.assert_as_before(finish);
            continue;
        }
        // Nothing is swapped under a service that runs.
        let since = &served.log()[log..];
        assert!(since.starts_with("stop db, port = 81\n"), "{since}");
        assert_eq!(served.live.env.read("live/app/conf/app.conf"), b"port = 80\n");
        assert!(served.runs("web") && served.runs("db"));
        served.live.env.lifeboat(["status"]).ok();
        served.live.env.lifeboat(["restore", "--undo", "--force"]).ok();
        assert_eq!(served.live.env.read("live/app/conf/app.conf"), b"port = 81\n");
    }
}

/// A crash in a rollback is no reason to take what is half undone for the new state.
///
/// Shows R7, R9.
#[test]
fn a_rollback_that_is_killed_is_finished_by_recover() {
    if !can_run("a_rollback_that_is_killed_is_finished_by_recover", &["strace"]) {
        return;
    }
    let health = "    health: [ { command: [test, -e, DIR/healthy], timeout: 500ms, every: 50ms } ]\n";
    let served = Served::new("", health);
    served.live.traced(&["-e", "trace=renameat2"], &[]).code(20);
    let all = calls(&trace(&served.live.env))["renameat2"];
    let mut in_rollback = 0;
    for time in 1..=all {
        let kill = format!("inject=renameat2:signal=KILL:when={time}");
        served.live.traced(&["-e", "trace=renameat2", "-e", &kill], &[]).code(137);
        in_rollback += usize::from(served.log().ends_with("stop db, port = 80\n"));
        // Whatever is live now would pass.
        served.live.env.write("healthy", "");
        served.live.env.lifeboat(["recover"]).ok();
        served.remove("healthy");
        served.assert_as_before(&format!("killed at rename {time} of {all}"));
        served.remove("log");
    }
    assert!(in_rollback > 3, "{in_rollback} of {all}");
}

/// Shows R7.
#[test]
fn a_reload_that_fails_is_a_failure_unless_it_shall_only_warn() {
    let reload = |on_failure: &str| format!("      reload: {{ run: [\"false\"]{on_failure} }}\n");
    let served = Served::new(&reload(""), "");
    served.assert_rolls_back("reload failed");
    served.configure(&reload(", on_failure: fail"), "");
    served.assert_rolls_back("reload failed");
    served.configure(&reload(", on_failure: warn"), "");
    let said = served.restore().ok();
    assert!(said.stderr.contains("warning") && said.stderr.contains("reload failed"), "{}", said.stderr);
    assert_eq!(served.live.env.read("live/app/conf/app.conf"), b"port = 80\n");
}

/// Shows R7.
#[test]
fn ctrl_c_while_a_health_check_is_awaited_rolls_back() {
    let served = Served::new("", "    health: [ { command: [\"false\"], timeout: 600s, every: 50ms } ]\n");
    let running = served.live.env.command(["restore", "app.tar.zst", "--force"]).start();
    let began = Instant::now();
    while !served.log().contains("start web") {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", served.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    running.signal(Signal::INT);
    running.wait().code(20);
    served.assert_as_before("interrupted");
}

/// Shows R7, R2.
#[test]
fn the_dry_run_names_services_and_stops_nothing_and_a_stop_has_to_be_agreed_to() {
    let served = Served::new("", "    health: [ { command: [\"true\"] } ]\n");
    served.remove("db.runs");
    let said = served.live.env.lifeboat(["restore", "app.tar.zst", "--dry-run"]).ok().stdout;
    for line in [
        "service web (running): stopped and started again\n",
        "service db (not running): stays so\n",
        "then 1 health check must pass\n",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let said = served.live.env.lifeboat(["restore", "app.tar.zst", "--dry-run", "--json"]).ok();
    let plan = said.json_lines().pop().unwrap();
    assert_eq!(plan["services"][0]["name"], "web", "{plan}");
    assert_eq!(plan["health_checks"], 1, "{plan}");
    // Only new things: the service is the only reason to ask.
    std::fs::remove_dir_all(served.live.path("app")).unwrap();
    let said = served.live.env.lifeboat(["restore", "app.tar.zst"]).code(22).stderr;
    assert!(said.contains("it would stop and start the service web"), "{said}");
    assert!(!said.contains("service db") && !said.contains("overwrite"), "{said}");
    assert!(!served.live.path("app").exists() && served.runs("web"));
    assert_eq!(served.log(), "");
}

/// The same with a unit, and what stands in for systemd.
struct Unit(Served);

impl Unit {
    fn new() -> Self {
        let served = Served::new("", "");
        let env = &served.live.env;
        env.write("systemctl.sh", SYSTEMCTL);
        env.mkdir("bin");
        env.mkdir("systemd");
        // By another process: a child of another test may hold open what is written here.
        env.run("install", ["-m", "755", "systemctl.sh", "bin/systemctl"]).ok();
        env.write("web.service.runs", "");
        let root = served.live.path("app");
        let text = format!(
            "apps:
  app:
    sources: {{ app: {{ files: {{ root: {} }} }} }}
    services: {{ units: [web.service], timeout: 5s }}
",
            root.display()
        );
        env.write("lifeboat.yaml", text);
        Self(served)
    }

    #[expect(clippy::disallowed_methods, reason = "the stand-in comes before all that is there")]
    fn with_systemd(&self, command: Cmd) -> Run {
        let dir = self.0.live.env.path("");
        let path = format!("{}:{}", dir.join("bin").display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("LIFEBOAT_SYSTEMD_DIR", dir.join("systemd")).run()
    }

    fn lifeboat(&self, args: &[&str]) -> Run {
        self.with_systemd(self.0.live.env.command(args))
    }
}

/// Shows R7.
#[test]
fn a_unit_is_held_while_it_is_stopped_and_released_afterwards() {
    let unit = Unit::new();
    let env = &unit.0.live.env;
    unit.lifeboat(&["restore", "app.tar.zst", "--force"]).ok();
    assert_eq!(unit.0.log(), "stop web.service\nstart web.service\n");
    let held = String::from_utf8(env.read("held")).unwrap();
    let journals = env.data_dir().join("journal");
    assert!(held.starts_with(&format!("[Unit]\nConditionPathExists=!{}/", journals.display())), "{held}");
    assert_eq!(env.names("systemd"), Vec::<String>::new());
    assert!(unit.0.runs("web.service"));
    assert!(unit.0.live.journals().iter().all(|name| name.ends_with(".jsonl")));
}

/// Shows R7, R9.
#[test]
fn a_unit_stays_stopped_across_a_reboot_in_the_middle_of_a_restore() {
    if !can_run("a_unit_stays_stopped_across_a_reboot_in_the_middle_of_a_restore", &["strace"]) {
        return;
    }
    let unit = Unit::new();
    let env = &unit.0.live.env;
    let kill = "inject=renameat2:signal=KILL:when=4";
    let lifeboat = env!("CARGO_BIN_EXE_lifeboat");
    let args =
        ["-f", "-o", "trace", "-e", "trace=renameat2", "-e", kill, lifeboat, "restore", "app.tar.zst", "--force"];
    unit.with_systemd(env.program("strace", args)).code(137);
    assert!(!unit.0.runs("web.service"));
    assert_eq!(env.names("systemd/web.service.d").len(), 1);
    // What a boot does.
    unit.with_systemd(env.program("systemctl", ["start", "web.service"])).ok();
    assert!(unit.0.log().ends_with("held web.service\n") && !unit.0.runs("web.service"), "{}", unit.0.log());
    unit.lifeboat(&["recover"]).ok();
    unit.0.assert_as_before("recovered");
    assert!(unit.0.runs("web.service") && unit.0.log().ends_with("start web.service\n"), "{}", unit.0.log());
    assert_eq!(env.names("systemd"), Vec::<String>::new());
}
