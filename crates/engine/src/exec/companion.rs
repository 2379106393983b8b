//! A program that runs beside us and is spoken to in lines.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::{GRACE, PAUSE_MAX, PAUSE_MIN, is_ready, withhold_from};
use crate::Cancel;

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
    /// Starts `program`, with our environment but for what is secret in it.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that starts programs")]
    pub(crate) fn start(program: &Path, arguments: &[String]) -> io::Result<Self> {
        let mut command = Command::new(program);
        withhold_from(&mut command);
        let mut child = command
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
            if !is_ready(&self.output, PollFlags::IN, left.min(PAUSE_MAX)) {
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
