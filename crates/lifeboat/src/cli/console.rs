//! What a person or a program sees of a run: results on standard output;
//! problems, progress and errors on standard error.

use std::fmt::Display;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};

use anstyle::{AnsiColor, Style};
use lifeboat_engine::app::{LISTED_MAX, Secret};
use lifeboat_engine::{Cancel, Error, ErrorKind, Monitor, Problem, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::termios::{LocalModes, OptionalActions, Termios};
use serde::Serialize;
use zeroize::Zeroizing;

use super::error::{Label, Message};
use super::out::Out;
use super::progress::Progress;
use super::{Options, json};
use crate::signals::Signal;

pub(super) const GOOD: Style = AnsiColor::Green.on_default();
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
const DOUBTFUL: Style = AnsiColor::Yellow.on_default().bold();

pub(crate) struct Console {
    pub(super) options: Options,
    out: Out,
    progress: Progress,
    /// Problems that were shown so far.
    shown: AtomicUsize,
}

impl Console {
    pub(crate) fn new(options: Options) -> Self {
        let out = if options.json { Out::raw() } else { Out::styled() };
        let progress = if options.json || options.quiet { Progress::hidden() } else { Progress::on_terminal() };
        Self { options, out, progress, shown: AtomicUsize::new(0) }
    }

    /// A line of the result.
    pub(super) fn line(&self, line: impl Display) {
        self.progress.beside(|| self.out.line(&line.to_string()));
    }

    /// A line of the result that `-q` leaves out.
    pub(super) fn info(&self, line: impl Display) {
        if !self.options.quiet {
            self.line(line);
        }
    }

    /// A result in bytes.
    pub(super) fn bytes(&self, bytes: &[u8]) {
        self.out.bytes(bytes);
    }

    /// A line of JSON.
    pub(super) fn json(&self, message_type: &'static str, body: &impl Serialize) {
        self.out.line(&json::line(message_type, body));
    }

    /// Shows what was written so far.
    pub(super) fn flush(&self) {
        self.out.flush();
    }

    /// Whether nobody reads the result any more.
    pub(super) fn is_closed(&self) -> bool {
        self.out.is_closed()
    }

    /// A result that is a line for people and an object for programs.
    pub(super) fn line_or_json(&self, message_type: &'static str, body: &impl Serialize, line: impl Display) {
        if self.options.json { self.json(message_type, body) } else { self.info(line) }
    }

    /// Whether a person is there to be asked.
    pub(super) fn can_ask(&self) -> bool {
        !self.options.json && std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    /// Asks a person; anything but yes is no.
    pub(super) fn ask(&self, question: &str, cancel: &Cancel) -> Result<bool> {
        let answer = self.ask_text(&format!("{question} [y/N]"), cancel)?;
        Ok(matches!(answer.to_lowercase().as_str(), "y" | "yes"))
    }

    /// Asks a person for a word.
    pub(super) fn ask_text(&self, question: &str, cancel: &Cancel) -> Result<String> {
        self.out.flush();
        self.progress.beside(|| {
            if write!(anstream::stderr().lock(), "{question} ").is_err() {
                // Standard error is closed: then nobody can answer either.
            }
        });
        Ok(String::from_utf8_lossy(&read_line(cancel)?).trim().to_owned())
    }

    /// Asks a person for what nobody is to see; what is typed is not shown.
    pub(super) fn ask_secret(&self, what: &str, cancel: &Cancel) -> Result<Secret> {
        self.out.flush();
        let hidden = Hidden::begin();
        self.progress.beside(|| {
            if write!(anstream::stderr().lock(), "{what}: ").is_err() {
                // Standard error is closed: then nobody can answer either.
            }
        });
        let answer = read_line(cancel);
        drop(hidden);
        self.progress.beside(|| {
            if writeln!(anstream::stderr().lock()).is_err() {
                // As above.
            }
        });
        let answer = answer?;
        Ok(Secret::first_line(&answer).unwrap_or_else(|| Secret::new(Vec::new())))
    }

    /// The first part is done; what follows is counted anew.
    pub(super) fn restart_progress(&self) {
        self.progress.restart();
    }

    /// No progress from here on: the work is done.
    pub(super) fn end_progress(&self) {
        self.progress.end();
    }

    /// Something that is wrong but ends nothing.
    pub(crate) fn warning(&self, text: impl Display) {
        if !self.options.json {
            self.to_stderr(DOUBTFUL, "warning", &format!(": {text}"));
        }
    }

    /// Tells why a command failed or did not do all; returns the exit code.
    pub(super) fn message(&self, message: &Message) -> u8 {
        self.end_progress();
        if self.options.json {
            json::exit_error(message);
            return message.exit_code;
        }
        let (style, label) = match message.label {
            Label::Error => (BAD, format!("error[E{}]", message.number)),
            Label::Warning => (DOUBTFUL, format!("warning[E{}]", message.number)),
        };
        let text = format!(": {}\n  what happened: {}\n  do this: {}", message.what, message.state, message.next);
        self.to_stderr(style, &label, &text);
        message.exit_code
    }

    /// Tells why a command failed; returns the exit code.
    pub(crate) fn failed(&self, error: &Error, signal: Option<Signal>) -> u8 {
        self.message(&Message::of(error, signal))
    }

    /// Ends the output. The exit code is `code`, unless the result could not be written.
    pub(crate) fn finish(&self, code: u8) -> u8 {
        self.end_progress();
        match self.out.finish() {
            None => code,
            Some(failure) => {
                let error = Error::new(ErrorKind::Failed, format!("could not write to standard output: {failure}"))
                    .state("the command itself came to its end; only what it had to say is lost")
                    .next("send the output elsewhere, and look at the result before you run it again");
                let failed = self.failed(&error, None);
                if code == 0 { failed } else { code }
            }
        }
    }

    fn to_stderr(&self, style: Style, label: &str, text: &str) {
        self.progress.beside(|| {
            if writeln!(anstream::stderr().lock(), "{style}{label}{style:#}{text}").is_err() {
                // Standard error is closed: nobody is left to tell.
            }
        });
    }
}

/// A line that a person types. Reading by itself would not be interrupted by Ctrl-C.
fn read_line(cancel: &Cancel) -> Result<Zeroizing<Vec<u8>>> {
    let stdin = std::io::stdin();
    loop {
        let mut waits = [PollFd::new(&stdin, PollFlags::IN)];
        let timeout = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let is_ready = rustix::event::poll(&mut waits, Some(&timeout)).is_ok_and(|ready| ready > 0);
        if cancel.is_set() {
            return Err(Error::new(ErrorKind::Cancelled, "stopped on request").state("nothing was begun"));
        }
        if is_ready {
            break;
        }
    }
    let mut answer = Zeroizing::new(Vec::new());
    stdin.lock().read_until(b'\n', &mut answer).map_err(|error| {
        Error::new(ErrorKind::Failed, format!("could not read the answer: {error}")).state("nothing was begun")
    })?;
    Ok(answer)
}

/// While it lives, the terminal does not show what is typed.
struct Hidden(Option<Termios>);

impl Hidden {
    fn begin() -> Self {
        let stdin = std::io::stdin();
        let Ok(before) = rustix::termios::tcgetattr(&stdin) else { return Self(None) };
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        let changed = rustix::termios::tcsetattr(&stdin, OptionalActions::Flush, &quiet);
        Self(changed.is_ok().then_some(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // Nothing can be done about a terminal that is gone.
            rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Now, before).unwrap_or(());
        }
    }
}

impl Monitor for Console {
    fn problem(&self, problem: Problem) {
        if self.options.json {
            return self.json("problem", &problem);
        }
        let is_note = problem.class.is_note();
        if (is_note && self.options.quiet) || self.shown.fetch_add(1, Ordering::Relaxed) >= LISTED_MAX {
            return;
        }
        let (style, label) = if is_note { (Style::new(), "note") } else { (DOUBTFUL, "warning") };
        let text = format!(": {}: {}: {}", problem.class.word(), problem.object, problem.message);
        self.to_stderr(style, label, &text);
    }

    fn advanced(&self, entries: u64, bytes: u64) {
        self.progress.advance(entries, bytes);
    }

    fn wants_total(&self) -> bool {
        self.progress.is_shown()
    }

    fn expected(&self, entries: u64, bytes: u64) {
        self.progress.expect(entries, bytes);
    }
}
