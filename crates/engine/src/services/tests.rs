//! Services are real scripts here; systemd is a stand-in that notes its arguments.

use super::*;

const LONG: Duration = Duration::from_secs(20);

fn sh(script: &str) -> Vec<String> {
    argv(&["sh", "-c", script])
}

/// A service that runs while the file `up` exists, and notes what is done to it.
struct Fake {
    dir: tempfile::TempDir,
    service: Service,
}

impl Fake {
    fn new(start: &str, stop: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |script: &str| sh(&format!("cd {} && {script}", dir.path().display()));
        let kind = ServiceKind::Commands {
            start: at(&format!("echo start >> log && {start}")),
            stop: at(&format!("echo stop >> log && {stop}")),
            status: Some(at("test -e up")),
            freeze: None,
            thaw: None,
        };
        Self { service: Service { name: "app".to_owned(), kind, timeout: LONG }, dir }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default().replace('\n', " ")
    }

    fn without_status(mut self) -> Self {
        if let ServiceKind::Commands { status, .. } = &mut self.service.kind {
            *status = None;
        }
        self
    }
}

#[test]
fn a_service_is_stopped_and_started_and_each_only_where_it_is_needed() {
    let fake = Fake::new("touch up", "rm up");
    assert_eq!(fake.service.found(None).unwrap(), Found::Stopped);
    fake.service.stop(None).unwrap();
    assert_eq!(fake.log(), "");
    fake.service.start(None).unwrap();
    fake.service.start(None).unwrap();
    assert_eq!(fake.service.found(None).unwrap(), Found::Running);
    fake.service.stop(None).unwrap();
    fake.service.stop(None).unwrap();
    assert_eq!(fake.log(), "start stop ");
}

#[test]
fn without_a_status_command_every_command_is_run() {
    let fake = Fake::new("true", "true").without_status();
    assert_eq!(fake.service.found(None).unwrap(), Found::Unknown);
    for _ in 0..2 {
        fake.service.start(None).unwrap();
        fake.service.stop(None).unwrap();
    }
    assert_eq!(fake.log(), "start stop start stop ");
}

#[test]
fn one_that_takes_its_time_to_stop_is_waited_for() {
    let fake = Fake::new("touch up", "{ sleep 0.5; rm up; } >/dev/null 2>&1 &");
    fake.service.start(None).unwrap();
    fake.service.stop(None).unwrap();
    assert_eq!(fake.service.found(None).unwrap(), Found::Stopped);
}

#[test]
fn one_that_ignores_its_stop_is_an_error() {
    let mut fake = Fake::new("touch up", "true");
    fake.service.start(None).unwrap();
    fake.service.timeout = Duration::from_secs(1);
    let error = fake.service.stop(None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert_eq!(error.what(), "service app did not stop: it still runs after 1s");
}

#[test]
fn a_command_that_fails_is_an_error_with_what_it_said() {
    let fake = Fake::new("echo no such port >&2; exit 7", "echo busy; exit 1");
    let error = fake.service.start(None).unwrap_err();
    assert!(error.what().starts_with("service app did not start: sh -c "), "{error}");
    assert!(error.what().ends_with(": exit code 7: no such port"), "{error}");
    assert!(Tool::new(&sh(&format!("touch {}/up", fake.dir.path().display())), LONG).run(None).unwrap().is_success());
    let error = fake.service.stop(None).unwrap_err();
    assert!(error.what().ends_with(": exit code 1: busy"), "{error}");
}

#[test]
fn a_command_that_takes_too_long_is_an_error() {
    let mut fake = Fake::new("sleep 60", "true");
    fake.service.timeout = Duration::from_millis(300);
    let error = fake.service.start(None).unwrap_err();
    assert!(error.what().ends_with("did not end within 300ms"), "{error}");
}

#[test]
fn a_daemon_that_keeps_the_output_of_its_start_command_is_not_waited_for() {
    let fake = Fake::new("touch up; sleep 30 & echo $! > pid", "kill $(cat pid) && rm up");
    let started = Instant::now();
    fake.service.start(None).unwrap();
    assert!(started.elapsed() < Duration::from_secs(10));
    fake.service.stop(None).unwrap();
}

#[test]
fn a_cancelled_stop_says_so() {
    let fake = Fake::new("true", "sleep 60").without_status();
    let cancel = Cancel::new();
    cancel.set();
    assert_eq!(fake.service.stop(Some(&cancel)).unwrap_err().kind(), ErrorKind::Cancelled);
}

#[test]
fn a_status_command_that_cannot_run_is_no_answer() {
    let status = Some(argv(&["/nonexistent"]));
    let kind = ServiceKind::Commands { stop: sh("true"), start: sh("true"), status, freeze: None, thaw: None };
    let service = Service { name: "app".to_owned(), kind, timeout: LONG };
    let error = service.found(None).unwrap_err();
    assert!(error.what().starts_with("service app could not be asked whether it runs: could not run /"), "{error}");
    assert!(service.stop(None).is_err());
}

#[test]
fn a_reload_that_fails_says_why() {
    let reload = |script| Reload { run: sh(script), warn_only: false, timeout: LONG }.apply(None);
    reload("true").unwrap();
    let error = reload("echo bad configuration >&2; exit 2").unwrap_err();
    assert!(error.what().starts_with("reload failed: sh -c "), "{error}");
    assert!(error.what().ends_with("exit code 2: bad configuration"), "{error}");
}

/// A stand-in for systemctl, in a folder that also has the `systemd_dir`.
struct Systemd {
    dir: tempfile::TempDir,
    systemctl: String,
    units: PathBuf,
    service: Service,
}

impl Systemd {
    /// `script` sees the verb as `$1`; its exit code is that of systemctl.
    fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("systemctl");
        let text = format!("#!/bin/sh\necho \"$@\" >> {}/log\n{script}\n", dir.path().display());
        // Written by a child: a file that another thread's child still has open for writing cannot be run.
        let write =
            argv(&["sh", "-c", "printf %s \"$1\" > \"$2\" && chmod 700 \"$2\"", "sh", &text, path.to_str().unwrap()]);
        assert!(Tool::new(&write, LONG).run(None).unwrap().is_success());
        let units = dir.path().join("system");
        std::fs::create_dir(&units).unwrap();
        let kind = ServiceKind::Unit { unit: "web.service".to_owned() };
        let service = Service { name: "web.service".to_owned(), kind, timeout: LONG };
        Self { systemctl: path.to_str().unwrap().to_owned(), units, service, dir }
    }

    fn log(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}

#[test]
fn units_are_asked_stopped_and_started_by_systemctl() {
    let systemd = Systemd::new("test $1 != is-active || exit 3");
    let (service, systemctl) = (&systemd.service, &systemd.systemctl);
    assert_eq!(service.found_by(systemctl, None).unwrap(), Found::Stopped);
    service.stop_by(systemctl, None).unwrap();
    service.start_by(systemctl, None).unwrap();
    let asked = "is-active --quiet web.service";
    assert_eq!(systemd.log(), [asked, "stop web.service", asked, "start web.service"]);
    let running = Systemd::new("exit 0");
    assert_eq!(running.service.found_by(&running.systemctl, None).unwrap(), Found::Running);
}

#[test]
fn a_unit_that_is_not_there_is_stopped_and_a_mute_systemd_is_an_error() {
    let missing = Systemd::new("test $1 = stop && exit 5; exit 4");
    assert_eq!(missing.service.found_by(&missing.systemctl, None).unwrap(), Found::Stopped);
    missing.service.stop_by(&missing.systemctl, None).unwrap();
    let mute = Systemd::new("echo 'no bus' >&2; exit 1");
    assert!(mute.service.found_by(&mute.systemctl, None).unwrap_err().what().ends_with("exit code 1: no bus"));
    assert!(mute.service.stop_by(&mute.systemctl, None).is_err());
}

/// Shows P5.
#[test]
fn units_are_frozen_and_thawed_by_systemctl_and_one_that_does_not_run_needs_no_thaw() {
    let systemd = Systemd::new("exit 0");
    let (service, systemctl) = (&systemd.service, &systemd.systemctl);
    assert_eq!(service.pauses_by(How::Frozen), How::Frozen);
    service.freeze_by(systemctl, How::Frozen, None).unwrap();
    service.thaw_by(systemctl, How::Frozen).unwrap();
    assert_eq!(systemd.log(), ["freeze web.service", "thaw web.service"]);
    assert_eq!(service.thaw_line(How::Frozen), "systemctl thaw web.service");
    let systemd = Systemd::new("test $1 != is-active || exit 3");
    systemd.service.freeze_by(&systemd.systemctl, How::Stopped, None).unwrap();
    systemd.service.thaw_by(&systemd.systemctl, How::Stopped).unwrap();
    let asked = "is-active --quiet web.service";
    assert_eq!(systemd.log(), ["stop web.service", asked, "start web.service"]);

    let stopped = Systemd::new("test $1 = thaw && { echo not active >&2; exit 1; }; test $1 != is-active || exit 3");
    stopped.service.thaw_by(&stopped.systemctl, How::Frozen).unwrap();
    let stuck = Systemd::new("test $1 = thaw && { echo 'no such luck' >&2; exit 1; }; exit 0");
    let error = stuck.service.thaw_by(&stuck.systemctl, How::Frozen).unwrap_err();
    assert!(error.what().starts_with("service web.service could not be thawed: "), "{error}");
    assert!(error.what().ends_with("exit code 1: no such luck"), "{error}");
}

#[test]
fn commands_without_a_freeze_are_stopped_instead() {
    let fake = Fake::new("touch up", "rm up");
    fake.service.start(None).unwrap();
    assert_eq!(fake.service.pauses_by(How::Frozen), How::Stopped);
    fake.service.freeze(How::Frozen, None).unwrap();
    assert_eq!(fake.service.found(None).unwrap(), Found::Stopped);
    fake.service.thaw(How::Stopped).unwrap();
    fake.service.thaw(How::Stopped).unwrap();
    assert_eq!(fake.log(), "start stop start ");
}

#[test]
fn a_held_unit_has_a_drop_in_until_it_is_released() {
    let systemd = Systemd::new("exit 0");
    let (service, systemctl, units) = (&systemd.service, &systemd.systemctl, &systemd.units);
    let pending = Path::new("/var/lib/lifeboat/100%/x.pending");
    for _ in 0..2 {
        service.hold_by(systemctl, units, "7", pending).unwrap();
    }
    let folder = units.join("web.service.d");
    let drop_in = folder.join("lifeboat-7.conf");
    let text = std::fs::read_to_string(&drop_in).unwrap();
    assert_eq!(text, "[Unit]\nConditionPathExists=!/var/lib/lifeboat/100%%/x.pending\n");
    let other = service.hold_by(systemctl, units, "7", Path::new("/other")).unwrap_err();
    assert!(other.what().ends_with("lifeboat-7.conf exists already"), "{other}");
    service.hold_by(systemctl, units, "8", pending).unwrap();
    for _ in 0..2 {
        service.release_by(systemctl, units, "7").unwrap();
    }
    assert!(!drop_in.exists() && folder.join("lifeboat-8.conf").exists());
    service.release_by(systemctl, units, "8").unwrap();
    assert!(!folder.exists());
    assert_eq!(systemd.log(), vec!["daemon-reload"; 6]);
}

#[test]
fn nothing_is_held_without_systemd_or_of_commands() {
    let systemd = Systemd::new("exit 0");
    let nowhere = systemd.dir.path().join("nowhere");
    systemd.service.hold_by(&systemd.systemctl, &nowhere, "7", Path::new("/p")).unwrap();
    systemd.service.release_by(&systemd.systemctl, &nowhere, "7").unwrap();
    let fake = Fake::new("true", "true");
    fake.service.hold(&systemd.units, "7", Path::new("/p")).unwrap();
    fake.service.release(&systemd.units, "7").unwrap();
    assert!(systemd.log().is_empty() && !nowhere.exists());
    assert_eq!(std::fs::read_dir(&systemd.units).unwrap().count(), 0);
}

#[test]
fn a_path_that_systemd_would_read_differently_is_refused() {
    for bad in ["relative", "/a\nb", "/a\\", "/a ", "/a\tb"] {
        assert_eq!(condition(Path::new(bad)).unwrap_err().kind(), ErrorKind::Usage, "{bad:?}");
    }
    assert!(condition(Path::new("/a b/c")).is_ok());
}

#[test]
fn a_service_comes_back_from_a_journal_as_it_was() {
    for service in [Fake::new("a", "b").service, Fake::new("a", "b").without_status().service, Systemd::new("").service]
    {
        let json = serde_json::to_string(&service).unwrap();
        assert_eq!(serde_json::from_str::<Service>(&json).unwrap(), service, "{json}");
    }
    let unit = serde_json::to_string(&Systemd::new("").service).unwrap();
    assert_eq!(unit, r#"{"name":"web.service","kind":{"unit":{"unit":"web.service"}},"timeout_ms":20000}"#);
    let reload = Reload { run: sh("x"), warn_only: true, timeout: LONG };
    let json = serde_json::to_string(&reload).unwrap();
    assert_eq!(serde_json::from_str::<Reload>(&json).unwrap(), reload);
    assert_eq!(serde_json::to_string(&Found::Unknown).unwrap(), "\"unknown\"");
}
