//! Who uses what would be swapped: named in the plan, asked about or refused.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use lifeboat_store::testing::{can_run, is_root};

use super::{Live, application, can_mount, change};
use crate::env::TestEnv;
use crate::fidelity::{NOBODY, assert_same};

/// A process that runs until this goes.
struct Holder(Child);

impl Holder {
    /// Runs `command` until it says that it is ready.
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }

    /// A Python program, in this directory.
    fn python(env: &TestEnv, dir: &str, program: &str) -> Self {
        let program = format!("import mmap, time\n{program}\nprint('ready', flush=True)\ntime.sleep(600)");
        let mut command = env.program("python3", ["-c", &program]).into_command();
        command.current_dir(env.path(dir));
        Self::start(command)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// How a plan names it.
    fn line(&self, how: &str, path: &Path) -> String {
        format!("(pid {}) {how} {}", self.pid(), path.display())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Runs `restore --dry-run` in `mode` and returns what it prints.
fn plan(live: &Live, mode: &str) -> String {
    live.env.lifeboat(["restore", "app.tar.zst", "--mode", mode, "--dry-run"]).ok().stdout
}

/// The same where the restore is going to be refused: the plan is shown all the same.
fn refused_plan(live: &Live, mode: &str) -> String {
    live.env.lifeboat(["restore", "app.tar.zst", "--mode", mode, "--dry-run"]).code(22).stdout
}

/// Restores in `mode` without `--force`.
fn unforced(live: &Live, mode: &str) -> crate::env::Run {
    live.env.lifeboat(["restore", "app.tar.zst", "--mode", mode, "--allow-unauthenticated"])
}

/// A reader is asked about, and `--force` goes on.
fn assert_asked_about(live: &Live, mode: &str, line: &str) {
    let before = live.all();
    let shown = plan(live, mode);
    assert!(shown.contains(line) && shown.contains("python"), "no {line} in {shown}");
    let said = unforced(live, mode).code(22);
    assert!(said.stderr.contains("go on although") && said.stderr.contains(line), "{}", said.stderr);
    assert_same(&before, &live.all(), "refused");
    live.restore(&["--mode", mode]).ok();
}

/// Somebody who writes or maps is refused, whoever agrees; gone, he is not.
fn assert_refused(live: &Live, mode: &str, holder: Holder, line: &str) {
    let before = live.all();
    let shown = refused_plan(live, mode);
    assert!(shown.contains(line), "no {line} in {shown}");
    for said in [unforced(live, mode).code(22), live.restore(&["--mode", mode]).code(22)] {
        assert!(said.stderr.contains("in use: ") && said.stderr.contains(line), "{}", said.stderr);
    }
    assert_same(&before, &live.all(), "refused");
    assert!(live.journals().is_empty());
    drop(holder);
    let shown = plan(live, mode);
    assert!(!shown.contains("(pid "), "{shown}");
    live.restore(&["--mode", mode]).ok();
}

/// Shows R6.
#[test]
fn who_reads_what_is_replaced_is_named_and_asked_about() {
    if !can_run("who_reads_what_is_replaced_is_named_and_asked_about", &["python3"]) {
        return;
    }
    let live = Live::new(application);
    let backed_up = live.env.read("live/app/conf/app.conf");
    let file = live.path("app/conf/app.conf");
    for mode in ["overwrite", "full"] {
        change(&live.env);
        let holder = Holder::python(&live.env, "", "held = open('live/app/conf/app.conf')");
        assert_asked_about(&live, mode, &holder.line("has open for reading", &file));
        assert_eq!(live.env.read("live/app/conf/app.conf"), backed_up);
        live.discard();
    }
}

/// Shows R6.
#[test]
fn what_is_deleted_is_looked_at_too() {
    if !can_run("what_is_deleted_is_looked_at_too", &["python3"]) {
        return;
    }
    let live = Live::new(application);
    live.env.write("live/app/new/deep/log", "new since");
    let holder = Holder::python(&live.env, "", "held = open('live/app/new/deep/log', 'a')");
    let line = holder.line("has open for writing", &live.path("app/new/deep/log"));
    // It stays in this mode.
    live.env.write("live/app/data/one", "changed");
    live.restore(&[]).ok();
    live.discard();
    assert!(live.path("app/new/deep/log").exists());
    assert_refused(&live, "full", holder, &line);
    assert!(!live.path("app/new").exists());
}

/// Shows R6.
#[test]
fn who_writes_or_maps_what_is_replaced_is_refused_even_if_forced() {
    if !can_run("who_writes_or_maps_what_is_replaced_is_refused_even_if_forced", &["python3"]) {
        return;
    }
    let live = Live::new(application);
    let mapped =
        "f = open('live/app/conf/app.conf')\nheld = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)\nf.close()";
    for (program, how) in
        [("held = open('live/app/conf/app.conf', 'a')", "has open for writing"), (mapped, "runs or maps")]
    {
        for mode in ["overwrite", "full"] {
            change(&live.env);
            let holder = Holder::python(&live.env, "", program);
            let line = holder.line(how, &live.path("app/conf/app.conf"));
            assert_refused(&live, mode, holder, &line);
            live.discard();
        }
    }
}

/// Shows R6.
#[test]
fn a_program_that_runs_is_not_replaced() {
    let live = Live::new(|env| {
        application(env);
        env.mkdir("live/app/bin");
        env.run("cp", ["/bin/sh", "live/app/bin/tool"]).ok();
    });
    live.env.run("touch", ["-d", "2001-01-01", "live/app/bin/tool"]).ok();
    let tool = live.path("app/bin/tool");
    // A builtin reads from a pipe that nobody writes to, so that no other program is started.
    let mut command = live.env.program(tool.to_str().unwrap(), ["-c", "echo ready; read held"]).into_command();
    command.stdin(Stdio::piped());
    let holder = Holder::start(command);
    let line = holder.line("runs or maps", &tool);
    assert_refused(&live, "overwrite", holder, &line);
}

/// Shows R6.
#[test]
fn who_stands_in_a_directory_that_is_swapped_whole_is_asked_about() {
    if !can_run("who_stands_in_a_directory_that_is_swapped_whole_is_asked_about", &["python3"]) {
        return;
    }
    let live = Live::new(application);
    live.env.write("live/app/data/deep/er/two", "changed");
    let holder = Holder::python(&live.env, "live/app/data/deep", "");
    let line = holder.line("has open for reading", &live.path("app/data/deep"));
    let shown = plan(&live, "overwrite");
    assert!(!shown.contains("(pid "), "the directory stays where it is: {shown}");
    assert_asked_about(&live, "full", &line);
}

/// Shows R6.
#[test]
fn what_stays_as_it_is_may_be_in_use() {
    if !can_run("what_stays_as_it_is_may_be_in_use", &["python3"]) {
        return;
    }
    let live = Live::new(application);
    let backed_up = live.app();
    live.env.write("live/app/conf/app.conf", "port = 85\n");
    let holder = Holder::python(&live.env, "", "held = open('live/app/conf/users', 'r+')");
    let shown = plan(&live, "overwrite");
    assert!(!shown.contains("(pid "), "{shown}");
    live.restore(&[]).ok();
    live.discard();
    live.assert_app(&backed_up, "restored beside it");
    // Where the whole directory would go, it matters.
    live.env.write("live/app/conf/app.conf", "port = 86\n");
    let line = holder.line("has open for writing", &live.path("app/conf/users"));
    assert_refused(&live, "full", holder, &line);
}

/// Shows R6.
#[test]
fn a_mount_that_only_others_see_keeps_its_directory() {
    const TEST: &str = "a_mount_that_only_others_see_keeps_its_directory";
    if !can_mount(TEST, &["mount", "unshare"]) {
        return;
    }
    let live = Live::new(application);
    let backed_up = live.app();
    change(&live.env);
    live.env.mkdir("elsewhere");
    let script = "mount --bind live/app/data elsewhere && echo ready && exec sleep 600";
    let holder = Holder::start(live.env.program("unshare", ["-m", "sh", "-c", script]).into_command());
    assert!(live.env.names("elsewhere").is_empty(), "only the other namespace sees it");
    let before = live.all();
    let named = format!("(pid {}) has mounted ", holder.pid());
    let shown = refused_plan(&live, "full");
    assert!(shown.contains(&named) && shown.contains(live.env.path("elsewhere").to_str().unwrap()), "{shown}");
    for said in [unforced(&live, "full").code(22), live.restore(&["--mode", "full"]).code(22)] {
        assert!(said.stderr.contains("in use: ") && said.stderr.contains(&named), "{}", said.stderr);
    }
    assert_same(&before, &live.all(), "refused");
    drop(holder);
    live.restore(&["--mode", "full"]).ok();
    live.assert_app(&backed_up, "when it has ended");
}

/// Whether a process of another user than `user` runs.
fn others_run(user: u32) -> bool {
    std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).any(|entry| {
        let is_process = entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        let is_program = || std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| !line.is_empty());
        is_process && entry.metadata().is_ok_and(|metadata| metadata.uid() != user) && is_program()
    })
}

/// Shows R6.
#[test]
fn what_an_ordinary_user_cannot_see_is_said() {
    let live = Live::new(|env| {
        env.write("live/app/file", "x");
    });
    live.env.write("live/app/file", "changed");
    let said = live.env.command_as_nobody(["restore", "app.tar.zst", "--dry-run"]).run().ok().stdout;
    let user = if is_root() { NOBODY } else { live.path("app").metadata().unwrap().uid() };
    if others_run(user) {
        assert!(said.contains("not seen: the open files of "), "{said}");
        assert!(said.contains("which only root may look at"), "{said}");
    }
}
