//! The shape of every failure: what failed, whether data is safe, what to do.
//! What the engine did not say is filled in here, by kind, and says no more
//! than is certain.

use lifeboat_engine::app::is_invisible;
use lifeboat_engine::{Error, ErrorKind};

use super::exit_code;
use crate::signals::Signal;

/// How serious it is.
#[derive(Clone, Copy)]
pub(super) enum Label {
    /// What was asked for was not done.
    Error,
    /// It was done, but not all of it.
    Warning,
}

/// A failure, ready to be shown.
pub(super) struct Message {
    pub(super) label: Label,
    pub(super) exit_code: u8,
    /// The number after `E`: 100 times the exit code that this kind of failure has.
    pub(super) number: u32,
    /// A word for the kind.
    pub(super) kind: &'static str,
    pub(super) what: String,
    pub(super) state: String,
    pub(super) next: String,
}

impl Message {
    /// The message of an error; `signal` is the one that came, if any.
    pub(super) fn of(error: &Error, signal: Option<Signal>) -> Self {
        let kind = error.kind();
        let exit_code = exit_code::of_kind(kind, signal);
        let what = match (kind, signal) {
            (ErrorKind::Cancelled, Some(Signal::Interrupt)) => "stopped by Ctrl-C (SIGINT)",
            (ErrorKind::Cancelled, Some(Signal::Terminate)) => "stopped by SIGTERM",
            _ => error.what(),
        };
        Self {
            label: Label::Error,
            exit_code,
            number: 100 * u32::from(exit_code),
            kind: word(kind),
            what: one_line(what),
            state: one_line(error.data_state().unwrap_or("it is not known how far it got")),
            next: one_line(error.next_step().unwrap_or(usual_next_step(kind))),
        }
    }

    /// A warning of what was done but not wholly, with exit code `exit_code`.
    pub(super) fn incomplete(exit_code: u8, what: String, state: String, next: String) -> Self {
        let number = 100 * u32::from(exit_code);
        Self { label: Label::Warning, exit_code, number, kind: "incomplete", what, state, next }
    }
}

/// The word for a kind in `--json`.
fn word(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Failed => "failed",
        ErrorKind::Usage => "usage",
        ErrorKind::WrongKey => "wrong-key",
        ErrorKind::Corrupt => "corrupt",
        ErrorKind::NoSpace => "no-space",
        ErrorKind::Denied => "denied",
        ErrorKind::Unsupported => "unsupported",
        ErrorKind::SourceFailed => "source-failed",
        ErrorKind::VerificationFailed => "verification-failed",
        ErrorKind::ConfirmationNeeded => "confirmation-needed",
        ErrorKind::Unsafe => "unsafe",
        ErrorKind::InUse => "in-use",
        ErrorKind::Unreachable => "unreachable",
        ErrorKind::Locked => "locked",
        ErrorKind::RolledBack => "rolled-back",
        ErrorKind::RollbackIncomplete => "rollback-incomplete",
        ErrorKind::Cancelled => "cancelled",
    }
}

fn usual_next_step(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Failed => "remove the cause named above, then run the same command again",
        ErrorKind::Usage => "see what it takes with --help",
        ErrorKind::WrongKey => "give the right password or key: --password-file, --identity-file or --key-file",
        ErrorKind::Corrupt => {
            "use another copy of the archive; `lifeboat backup verify` names the files that are damaged"
        }
        ErrorKind::NoSpace => "make room there, or choose another place, then run the same command again",
        ErrorKind::Denied => "run it as a user who may do this, or choose another place",
        ErrorKind::Unsupported => "use a version of Lifeboat that reads this",
        ErrorKind::SourceFailed => {
            "check that the path is right, readable and mounted, then run the same command again"
        }
        ErrorKind::VerificationFailed => {
            "do not rely on this archive; make another, and test this machine's disk and memory"
        }
        ErrorKind::ConfirmationNeeded => {
            "look at what it would replace with --dry-run; if that is right, add --overwrite"
        }
        ErrorKind::Unsafe => {
            "do not restore it unless you know who made it; `lifeboat backup list` shows what is in it"
        }
        ErrorKind::Unreachable => "mount or connect the destination, then run the same command again",
        ErrorKind::InUse => "stop what uses it, then run the same command again",
        ErrorKind::Locked => "wait until the other run has ended, then run the same command again",
        ErrorKind::RolledBack => "remove the cause named above, then run the same command again",
        ErrorKind::RollbackIncomplete => "remove the cause named above, then run `lifeboat recover`",
        ErrorKind::Cancelled => "run the same command again",
    }
}

/// A message is one line, whatever a name in it holds.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_invisible(c) { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_whatever_a_name_in_it_holds() {
        let error = Error::new(ErrorKind::NoSpace, "could not write a\n\u{1b}[2Jb").next("go on");
        let message = Message::of(&error, None);
        assert_eq!(message.what, "could not write a\\n\\u{1b}[2Jb");
        assert_eq!((message.exit_code, message.number, message.next.as_str()), (14, 1400, "go on"));
    }
}
