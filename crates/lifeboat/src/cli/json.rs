//! `--json`: JSON Lines, each with a `message_type`; results on standard
//! output, the reason of a failure as the last line of standard error.

use std::io::Write as _;

use serde::Serialize;

use super::error::Message;

#[derive(Serialize)]
struct Line<'a, T: Serialize> {
    message_type: &'static str,
    #[serde(flatten)]
    body: &'a T,
}

/// `body` as one line.
pub(super) fn line(message_type: &'static str, body: &impl Serialize) -> String {
    let line = serde_json::to_string(&Line { message_type, body });
    line.unwrap_or_else(|error| {
        // A path that is not UTF-8 has no place in JSON; the line still says what it is.
        serde_json::json!({ "message_type": message_type, "not_shown": error.to_string() }).to_string()
    })
}

#[derive(Serialize)]
struct ExitError<'a> {
    code: u8,
    kind: &'static str,
    message: &'a str,
    state: &'a str,
    next: &'a str,
}

/// Tells a program why a command failed.
pub(super) fn exit_error(message: &Message) {
    let body = ExitError {
        code: message.exit_code,
        kind: message.kind,
        message: &message.what,
        state: &message.state,
        next: &message.next,
    };
    if writeln!(std::io::stderr().lock(), "{}", line("exit_error", &body)).is_err() {
        // Standard error is closed: nobody is left to tell.
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn a_path_that_json_cannot_hold_still_gives_a_line() {
        #[derive(Serialize)]
        struct Body {
            path: std::path::PathBuf,
        }
        let path = std::path::PathBuf::from(std::ffi::OsStr::from_bytes(b"\xff"));
        assert!(line("summary", &Body { path }).starts_with("{\"message_type\":\"summary\",\"not_shown\":"));
        assert_eq!(line("summary", &Body { path: "a".into() }), "{\"message_type\":\"summary\",\"path\":\"a\"}");
    }
}
