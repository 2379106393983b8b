//! A hermetic place for tests to run `lifeboat` and other programs in: its own
//! home and working directory, a clean environment, English, UTC.
//!
//! ```ignore
//! let env = TestEnv::new();
//! env.write("data/a.txt", "hello");
//! let said = env.lifeboat(["backup", "data", "-o", "a.tar.zst"]).ok();
//! assert!(said.stdout.starts_with("Backup written to a.tar.zst"));
//! env.run("tar", ["--zstd", "-tf", "a.tar.zst"]).ok();
//! env.lifeboat(["restore", "a.tar.zst"]).code(2);
//! ```

use std::ffi::OsStr;
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The user `nobody` on Linux.
const NOBODY: u32 = 65534;

/// A temporary directory with a home, a working directory and nothing else.
pub(crate) struct TestEnv {
    root: TempDir,
}

impl TestEnv {
    pub(crate) fn new() -> Self {
        let root = tempfile::Builder::new().prefix("lifeboat-test-").tempdir().expect("a temporary directory");
        // Open to all, so that a test can run something as another user.
        set_mode(root.path(), 0o755);
        for name in ["home", "work"] {
            std::fs::create_dir(root.path().join(name)).expect("the directory is new");
        }
        Self { root }
    }

    /// `path` below the working directory, which is where every program starts.
    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.path().join("work").join(path)
    }

    /// Writes a file, and the directories above it.
    #[expect(clippy::disallowed_methods, reason = "test data need not survive a crash")]
    pub(crate) fn write(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(path);
        self.mkdir(path.parent().expect("below the working directory"));
        std::fs::write(&path, content).expect("test data can be written");
        path
    }

    /// Makes a directory, and those above it.
    pub(crate) fn mkdir(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = self.path(path);
        std::fs::create_dir_all(&path).expect("directories can be made");
        path
    }

    /// Sets the permission bits of a file or directory.
    pub(crate) fn set_mode(&self, path: impl AsRef<Path>, mode: u32) {
        set_mode(&self.path(path), mode);
    }

    /// What a file holds.
    pub(crate) fn read(&self, path: impl AsRef<Path>) -> Vec<u8> {
        let path = self.path(path);
        std::fs::read(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
    }

    /// The names in a directory, sorted.
    pub(crate) fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(path)).expect("the directory can be listed");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Where Lifeboat keeps its journals and locks.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// Runs `lifeboat`.
    pub(crate) fn lifeboat<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Run {
        self.command(args).run()
    }

    /// Runs another program.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = A>) -> Run {
        self.program(program, args).run()
    }

    /// `lifeboat` with these arguments, still to be run.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Cmd {
        self.program(env!("CARGO_BIN_EXE_lifeboat"), args)
    }

    /// `lifeboat` with these arguments as an ordinary user: nobody, where the tests run as root.
    pub(crate) fn command_as_nobody<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Cmd {
        if !lifeboat_store::testing::is_root() {
            return self.command(args);
        }
        // The build directory may be closed to other users.
        let copy = self.root.path().join("lifeboat");
        let copy = copy.to_str().expect("temporary names are UTF-8");
        // By another process: what is open for writing here, a child of another test may inherit,
        // and as long as it does, the program is "busy".
        self.run("install", ["-m", "755", env!("CARGO_BIN_EXE_lifeboat"), copy]).ok();
        let mut cmd = self.program(copy, args);
        cmd.command.uid(NOBODY).gid(NOBODY);
        cmd
    }

    /// A program with these arguments, still to be run.
    #[expect(clippy::disallowed_methods, reason = "the one place where tests start programs")]
    pub(crate) fn program<A: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = A>) -> Cmd {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.path("")).env_clear().stdin(Stdio::null());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command.env("HOME", self.root.path().join("home")).env("TZ", "UTC").env("LC_ALL", "C");
        command.env("LIFEBOAT_DATA_DIR", self.root.path().join("data"));
        Cmd { command, dir: self.path("") }
    }
}

/// Writes a file anywhere.
#[expect(clippy::disallowed_methods, reason = "test data need not survive a crash")]
pub(crate) fn write_file(path: &Path, content: &str) {
    std::fs::write(path, content).expect("test data can be written");
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("our own file");
}

/// A program with its arguments, before it runs.
#[must_use]
pub(crate) struct Cmd {
    command: Command,
    dir: PathBuf,
}

impl Cmd {
    /// Sets a variable of the environment.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Finds programs in `dir` first.
    pub(crate) fn with_programs(self, dir: &Path) -> Self {
        let usual = self.command.get_envs().find_map(|(name, path)| path.filter(|_| name == "PATH"));
        let usual = usual.map(OsStr::to_owned).unwrap_or_default();
        let all = std::iter::once(dir.to_owned()).chain(std::env::split_paths(&usual));
        let path = std::env::join_paths(all).expect("no colon in a temporary name");
        self.env("PATH", path)
    }

    /// What it reads from its standard input; otherwise that is empty.
    pub(crate) fn input(mut self, bytes: impl AsRef<[u8]>) -> Self {
        // A file and not a pipe: neither side ever waits for the other.
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(bytes.as_ref()).and_then(|()| file.rewind()).expect("a temporary file takes it");
        self.command.stdin(file);
        self
    }

    /// Runs it to its end.
    pub(crate) fn run(mut self) -> Run {
        let output = self.command.output().unwrap_or_else(|error| panic!("cannot run {:?}: {error}", self.command));
        Run { output, dir: self.dir, command: format!("{:?}", self.command) }
    }

    /// Starts it; what it says is collected.
    pub(crate) fn start(mut self) -> Running {
        let child = self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot run {:?}: {error}", self.command));
        Running { child, dir: self.dir, command: format!("{:?}", self.command) }
    }

    /// It reads from the terminal that it will be started on.
    pub(crate) fn reads_terminal(mut self) -> Self {
        self.command.stdin(Stdio::inherit());
        self
    }

    /// The command itself, for those who start it another way.
    pub(crate) fn into_command(self) -> Command {
        self.command
    }
}

/// A program that runs.
#[must_use]
pub(crate) struct Running {
    child: Child,
    dir: PathBuf,
    command: String,
}

impl Running {
    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("our own child, not yet waited for");
    }

    /// Waits until it catches both signals that stop a run.
    pub(crate) fn wait_until_it_catches_signals(&self) {
        let stoppers = 1 << (Signal::INT.as_raw() - 1) | 1 << (Signal::TERM.as_raw() - 1);
        self.wait_for_status("it catches signals", |field| {
            u64::from_str_radix(&field("SigCgt:"), 16).is_ok_and(|caught| caught & stoppers == stoppers)
        });
    }

    /// Waits until all but its main thread have ended, and that one waits for something.
    pub(crate) fn wait_until_its_main_thread_waits_alone(&self) {
        self.wait_for_status("it waits", |field| field("Threads:") == "1" && field("State:").starts_with('S'));
    }

    /// Waits until it has ended; what it said is still to be read.
    pub(crate) fn wait_until_it_is_gone(&self) {
        self.wait_for_status("it is gone", |field| field("State:").starts_with('Z'));
    }

    /// Whether it has ended; what it said is still to be read.
    pub(crate) fn is_gone(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        status.expect("our own child, not yet waited for").rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the fields of `/proc/PID/status` are right.
    fn wait_for_status(&self, what: &str, is_right: impl Fn(&dyn Fn(&str) -> String) -> bool) {
        let path = format!("/proc/{}/status", self.child.id());
        for _ in 0..6000 {
            let status = std::fs::read_to_string(&path).expect("our own child, not yet waited for");
            let field = |name: &str| {
                let value = status.lines().find_map(|line| line.strip_prefix(name));
                value.unwrap_or_default().trim().to_owned()
            };
            if is_right(&field) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{}: a minute went by before {what}", self.command);
    }

    /// Waits for its end.
    pub(crate) fn wait(self) -> Run {
        let output = self.child.wait_with_output().expect("our own child");
        Run { output, dir: self.dir, command: self.command }
    }
}

/// How a program ended. Say which end is right: [`Run::ok`] or [`Run::code`].
#[must_use]
pub(crate) struct Run {
    output: std::process::Output,
    dir: PathBuf,
    command: String,
}

impl Run {
    /// It must have succeeded.
    pub(crate) fn ok(self) -> Said {
        self.code(0)
    }

    /// It must have ended with this exit code; 128 and more for a signal.
    pub(crate) fn code(self, expected: i32) -> Said {
        let code = self.exit_code();
        let said = Said {
            stdout: String::from_utf8_lossy(&self.output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&self.output.stderr).into_owned(),
            bytes: self.output.stdout,
            dir: self.dir,
        };
        assert_eq!(
            code, expected,
            "{} ended with {code}, not {expected}\n--- stdout\n{}--- stderr\n{}---",
            self.command, said.stdout, said.stderr
        );
        said
    }

    /// Whether a core dump of it was written.
    pub(crate) fn has_dumped_core(&self) -> bool {
        self.output.status.core_dumped()
    }

    /// Its exit code; 128 and the signal's number where one ended it.
    pub(crate) fn exit_code(&self) -> i32 {
        let status = self.output.status;
        status.code().or_else(|| status.signal().map(|signal| 128 + signal)).expect("it has ended")
    }
}

/// What a program said.
pub(crate) struct Said {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Its standard output as it was, where that is not text.
    pub(crate) bytes: Vec<u8>,
    dir: PathBuf,
}

impl Said {
    /// Standard output, with [`normal`]'s placeholders.
    pub(crate) fn normal_stdout(&self) -> String {
        normal(&self.stdout, &self.dir)
    }

    /// Standard error, with [`normal`]'s placeholders.
    pub(crate) fn normal_stderr(&self) -> String {
        normal(&self.stderr, &self.dir)
    }

    /// Standard output as JSON Lines.
    pub(crate) fn json_lines(&self) -> Vec<serde_json::Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
        self.stdout.lines().map(parse).collect()
    }
}

/// `text` with what differs from run to run replaced: `$DIR` (the working
/// directory), `<date>`, `<time>`, `<id>` (8 hex digits), `<size>`, `<duration>`.
fn normal(text: &str, dir: &Path) -> String {
    let dir = dir.to_str().expect("temporary names are UTF-8").trim_end_matches('/');
    let text = text.replace(&format!("{dir}/"), "$DIR/").replace(dir, "$DIR");
    text.split('\n').map(normal_line).collect::<Vec<_>>().join("\n")
}

fn normal_line(line: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in line.split(' ') {
        let start = word.find(|c: char| c.is_ascii_alphanumeric()).unwrap_or(0);
        let (before, word) = word.split_at(start);
        let end = word.rfind(|c: char| c.is_ascii_alphanumeric()).map_or(0, |at| at + 1);
        let (word, after) = word.split_at(end);
        // A unit turns the number before it into a size or a duration.
        let unit = match word {
            "B" | "KiB" | "MiB" | "GiB" | "KiB/s" | "MiB/s" | "GiB/s" | "B/s" => Some("<size>"),
            "ms" | "s" | "min" | "h" => Some("<duration>"),
            _ => None,
        };
        if let (Some(unit), Some(number)) = (unit, words.last_mut()) {
            let digits = number.find(|c: char| c.is_ascii_digit());
            if let Some(at) = digits.filter(|at| number[*at..].parse::<f64>().is_ok()) {
                number.truncate(at);
                number.push_str(unit);
                number.push_str(after);
                continue;
            }
        }
        words.push(format!("{before}{}{after}", normal_word(word)));
    }
    words.join(" ")
}

fn normal_word(word: &str) -> String {
    let is_shaped = |text: &str, shape: &str| {
        text.len() == shape.len()
            && text.chars().zip(shape.chars()).all(|(c, s)| if s == '0' { c.is_ascii_digit() } else { c == s })
    };
    if word.len() == 8 && word.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c)) {
        return "<id>".to_owned();
    }
    let Some(at) = (0..word.len()).find(|at| word.get(*at..at + 10).is_some_and(|part| is_shaped(part, "0000-00-00")))
    else {
        return word.to_owned();
    };
    let (before, rest) = (&word[..at], &word[at + 10..]);
    if rest.get(..9).is_some_and(|time| is_shaped(time, "T00:00:00")) {
        let rest = rest[9..].trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        return format!("{before}<time>{}", rest.trim_start_matches('Z'));
    }
    // A second archive of one day also has the time of day.
    let rest = if rest.get(..7).is_some_and(|time| is_shaped(time, "-000000")) { &rest[7..] } else { rest };
    format!("{before}<date>{rest}")
}
