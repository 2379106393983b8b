//! The one place where other programs are started: by their arguments and never
//! through a shell, without a terminal, for a limited time, and with only the
//! end of what they say kept.
//!
//! A program may leave a daemon behind that keeps its output open for as long
//! as it lives. So the output goes to a file in memory and not into a pipe:
//! nothing here waits for the end of a pipe.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use lifeboat_format::path::shown;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{FallocateFlags, MemfdFlags, OFlags};
use rustix::process::{Pid, Signal};

use crate::{Cancel, Error, ErrorKind, Result};

/// How much of the output is kept: the end of it.
const SAID_MAX_BYTES: usize = 4 << 10;
/// How many lines of it stand in a message.
const LAST_LINES: usize = 3;
/// How much memory the output may take before its beginning is dropped.
const OUTPUT_MAX_BYTES: u64 = 1 << 20;
/// The unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;
/// How long a program has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// A program, its arguments, and how long it may take.
pub(crate) struct Tool<'a> {
    argv: &'a [String],
    timeout: Duration,
    leaves_daemon: bool,
    grace: Duration,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    status: ExitStatus,
    /// The last lines of what it printed, with control characters escaped.
    said: String,
}

impl Ended {
    /// Its exit code; `None` when a signal ended it.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    pub(crate) fn is_success(&self) -> bool {
        self.status.success()
    }

    /// The last lines of what it printed, with control characters escaped.
    pub(crate) fn said(&self) -> &str {
        &self.said
    }

    /// `exit code 3: the last lines it said`.
    pub(crate) fn describe(&self) -> String {
        let how = match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("killed by signal {signal}"),
            (None, None) => "it ended".to_owned(),
        };
        let lines: Vec<&str> = self.said.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("; ");
        if last.is_empty() { how } else { format!("{how}: {last}") }
    }
}

impl<'a> Tool<'a> {
    /// `argv` is the program, found on PATH unless it is an absolute path, and its arguments.
    pub(crate) fn new(argv: &'a [String], timeout: Duration) -> Self {
        Self { argv, timeout, leaves_daemon: false, grace: GRACE }
    }

    /// For a program that starts a service. Its stdout is dropped and only
    /// stderr is kept: a daemon that it leaves behind has both for its
    /// lifetime, and what goes to a file without a name takes memory that
    /// nobody sees. Errors are worth that; a log on stdout is not.
    pub(crate) fn leaves_daemon(mut self) -> Self {
        self.leaves_daemon = true;
        self
    }

    /// How long it has between SIGTERM and SIGKILL, where that is not as usual.
    pub(crate) fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// The command as a person would write it, for messages.
    pub(crate) fn line(&self) -> String {
        command_line(self.argv)
    }

    /// Runs it to its end, whatever that is; a program that fails is not an
    /// error here. On timeout or cancel its process group is ended.
    pub(crate) fn run(&self, cancel: Option<&Cancel>) -> Result<Ended> {
        let started = Instant::now();
        let output = self.output().map_err(|error| self.failed(&error))?;
        let mut running = Running::start(self, &output).map_err(|error| self.failed(&error))?;
        let mut pause = PAUSE_MIN;
        let status = loop {
            if let Some(status) = running.look().map_err(|error| self.failed(&error))? {
                break status;
            }
            if cancel.is_some_and(Cancel::is_set) {
                running.end_group();
                return Err(Error::new(ErrorKind::Cancelled, format!("{} was stopped on request", self.line())));
            }
            let left = self.timeout.saturating_sub(started.elapsed());
            if left.is_zero() {
                running.end_group();
                return Err(self.too_slow(&output));
            }
            cut(&output);
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(PAUSE_MAX);
        };
        let said = tail(&output);
        // A daemon may keep the file: it should not keep what was read already.
        output.set_len(0).unwrap_or(());
        Ok(Ended { status, said })
    }

    /// A file in memory that is written at its end, wherever that is: a daemon
    /// goes on writing after it was emptied.
    fn output(&self) -> io::Result<File> {
        let fd: OwnedFd = rustix::fs::memfd_create("output", MemfdFlags::CLOEXEC)?;
        rustix::fs::fcntl_setfl(fd.as_fd(), OFlags::APPEND)?;
        Ok(fd.into())
    }

    fn failed(&self, error: &io::Error) -> Error {
        Error::new(ErrorKind::Failed, format!("could not run {}: {}", self.line(), reason(error)))
    }

    fn too_slow(&self, output: &File) -> Error {
        let timeout = crate::config::duration::shown(self.timeout);
        let said = tail(output);
        let last = said.lines().last().map(|line| format!(": {line}")).unwrap_or_default();
        Error::new(ErrorKind::Failed, format!("{} did not end within {timeout}{last}", self.line()))
    }
}

/// A command as a person would write it, for messages.
pub(crate) fn command_line(argv: &[String]) -> String {
    let words: Vec<String> = argv.iter().map(|word| shown(word.as_bytes())).collect();
    words.join(" ")
}

/// What the system says, without the number that means nothing to most people.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// A child in a process group of its own. Dropping it ends the group, unless
/// the child was seen to end by itself.
struct Running {
    child: Child,
    group: Pid,
    grace: Duration,
    has_ended: bool,
}

impl Running {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that starts programs")]
    fn start(tool: &Tool<'_>, output: &File) -> io::Result<Self> {
        let (program, arguments) = tool.argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let stdout = if tool.leaves_daemon { Stdio::null() } else { output.try_clone()?.into() };
        let child = Command::new(program)
            .args(arguments)
            // A folder that is never restored, so that the child keeps none busy.
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(output.try_clone()?)
            .process_group(0)
            .spawn()?;
        let group = Pid::from_child(&child);
        Ok(Self { child, group, grace: tool.grace, has_ended: false })
    }

    fn look(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        self.has_ended |= status.is_some();
        Ok(status)
    }

    /// SIGTERM to all of the group, and SIGKILL to what is left after a while.
    fn end_group(&mut self) {
        let asked = Instant::now();
        rustix::process::kill_process_group(self.group, Signal::TERM).unwrap_or(());
        while asked.elapsed() < self.grace {
            // Its own child is waited for first: until then it counts as part of the group.
            let child_has_ended = self.look().is_ok_and(|status| status.is_some());
            if child_has_ended && rustix::process::test_kill_process_group(self.group).is_err() {
                return;
            }
            std::thread::sleep(PAUSE_MAX);
        }
        rustix::process::kill_process_group(self.group, Signal::KILL).unwrap_or(());
        // Nothing outlives SIGKILL for long, but what hangs in the kernel; that is not waited for.
        let killed = Instant::now();
        while killed.elapsed() < GRACE && !self.look().is_ok_and(|status| status.is_some()) {
            std::thread::sleep(PAUSE_MIN);
        }
        self.has_ended = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended {
            self.end_group();
        }
    }
}

/// A program that runs beside us and is spoken to in lines. It is in our
/// process group until it leaves it, and dropping this never ends it by force:
/// it sees the end of its input, and what it then does is its own business.
#[derive(Debug)]
pub(crate) struct Companion {
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
    /// What was read and is no whole line yet.
    read: Vec<u8>,
}

/// What came from a [`Companion`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A line, without its end.
    Line(String),
    /// It says no more.
    Ended,
    /// It said nothing in time.
    TooLate,
    /// The run is to stop.
    Cancelled,
}

impl Companion {
    /// Starts `program`, with our environment.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that starts programs")]
    pub(crate) fn start(program: &Path, arguments: &[String]) -> io::Result<Self> {
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let output = output.ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self { child, input, output, read: Vec::new() })
    }

    /// Tells it a line.
    pub(crate) fn say(&mut self, line: &str) -> io::Result<()> {
        let input = self.input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        input.write_all(format!("{line}\n").as_bytes())
    }

    /// Ends its input.
    pub(crate) fn hang_up(&mut self) {
        self.input = None;
    }

    /// The next line that it says within `timeout`.
    pub(crate) fn hear(&mut self, timeout: Duration, cancel: Option<&Cancel>) -> Heard {
        let asked = Instant::now();
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Heard::Line(String::from_utf8_lossy(line.trim_ascii_end()).into_owned());
            }
            let left = timeout.saturating_sub(asked.elapsed());
            if cancel.is_some_and(Cancel::is_set) {
                return Heard::Cancelled;
            } else if left.is_zero() {
                return Heard::TooLate;
            }
            if !is_readable(&self.output, left.min(PAUSE_MAX)) {
                continue;
            }
            let mut bytes = [0; 4096];
            match self.output.read(&mut bytes) {
                Ok(0) => return Heard::Ended,
                Ok(count) => self.read.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Heard::Ended,
            }
        }
    }
}

/// Whether a read would not wait; asks for as long as `timeout`.
fn is_readable(output: &ChildStdout, timeout: Duration) -> bool {
    let timeout = rustix::event::Timespec::try_from(timeout).ok();
    let mut asked = [PollFd::new(output, PollFlags::IN)];
    rustix::event::poll(&mut asked, timeout.as_ref()).is_ok_and(|ready| ready > 0)
}

impl Drop for Companion {
    fn drop(&mut self) {
        self.hang_up();
        // Waited for, so that it does not stay a zombie; one that has more to do lives on.
        let asked = Instant::now();
        while asked.elapsed() < GRACE && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(PAUSE_MIN);
        }
    }
}

/// Keeps a program that prints without end from filling the memory: all but
/// the end of its output gives up its space. The file is never made shorter
/// here, or what the program says at that very moment would be lost.
fn cut(output: &File) {
    let Ok(metadata) = output.metadata() else { return };
    let unwanted = metadata.len().saturating_sub(SAID_MAX_BYTES as u64);
    if metadata.blocks() * BLOCK_BYTES > OUTPUT_MAX_BYTES && unwanted > 0 {
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(output, punch, 0, unwanted).unwrap_or(());
    }
}

/// The last lines of the output, at most [`SAID_MAX_BYTES`] of them.
fn tail(output: &File) -> String {
    let len = output.metadata().map_or(0, |metadata| metadata.len());
    let from = len.saturating_sub(SAID_MAX_BYTES as u64);
    let mut bytes = vec![0; SAID_MAX_BYTES];
    let read = output.read_at(&mut bytes, from).unwrap_or(0);
    let lines: Vec<String> = bytes[..read]
        .split(|byte| *byte == b'\n')
        .map(|line| shown(line.trim_ascii_end()))
        .filter(|line| !line.is_empty())
        .collect();
    let text = lines.join("\n");
    // Escaped, it may be longer than it was.
    let start = text.ceil_char_boundary(text.len().saturating_sub(SAID_MAX_BYTES));
    text[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut output = tool.output().unwrap();
        output.write_all(&vec![b'x'; 3 << 20]).unwrap();
        output.write_all(b"\nthe end").unwrap();
        cut(&output);
        assert!(output.metadata().unwrap().blocks() * BLOCK_BYTES < 64 << 10);
        assert!(tail(&output).ends_with("x\nthe end"));
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
}
