//! How a secret is read: the first line of a file, of an open file, of what a
//! program prints, or of a variable. Never an argument, and never shown.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_format::envelope::{Identity, Secret};
use lifeboat_format::path::shown;
use lifeboat_store as store;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use zeroize::Zeroizing;

use crate::exec::Tool;
use crate::{Cancel, Error, ErrorKind, Result};

/// How much of a file is read for a secret.
const MAX_BYTES: u64 = 64 << 10;
/// How long a program may take that prints one; a person may have to touch a token.
const TIMEOUT: Duration = Duration::from_secs(120);
/// The bits of a mode that let others read.
const OTHERS_READ: u32 = 0o044;

/// From here on there is a secret in memory: it is not to be written into a core dump.
pub(super) fn protect() {
    let limit = getrlimit(Resource::Core);
    // One byte is less than any dump has; and unlike 0, it also keeps the kernel from handing one to a program.
    let current = Some(limit.maximum.unwrap_or(1).min(1));
    // Where the system refuses, nothing is worse than before.
    setrlimit(Resource::Core, Rlimit { current, ..limit }).unwrap_or(());
}

fn wrong(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::WrongKey, what)
}

pub(super) fn read(from: &Path) -> Result<Zeroizing<Vec<u8>>> {
    protect();
    let mut bytes = Zeroizing::new(Vec::new());
    let read = File::open(from).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
    read.map_err(|error| unreadable(from, error))?;
    Ok(bytes)
}

fn unreadable(from: &Path, error: std::io::Error) -> Error {
    let kind =
        if error.kind() == std::io::ErrorKind::PermissionDenied { ErrorKind::Denied } else { ErrorKind::WrongKey };
    Error::new(kind, store::Error::io("read", from, error).to_string())
}

/// The first line that comes. What comes after it is not waited for: whoever
/// writes it may keep the pipe open.
#[expect(clippy::unbuffered_bytes, reason = "what follows the line is somebody else's")]
fn first_line(from: impl std::io::Read) -> std::io::Result<Option<Secret>> {
    let mut line = Zeroizing::new(Vec::with_capacity(1 << 10));
    for byte in from.take(MAX_BYTES).bytes() {
        match byte? {
            b'\n' => break,
            byte => line.push(byte),
        }
    }
    Ok(Secret::first_line(&line))
}

pub(super) fn of_password_file(path: &Path) -> Result<Secret> {
    let empty = || wrong(format!("the first line of {}, which should be the password, is empty", path.display()));
    Secret::first_line(&read(path)?).ok_or_else(empty)
}

pub(super) fn of_fd(number: u32) -> Result<Secret> {
    // Opened anew, not taken over: whoever gave it may use it for more.
    let path = PathBuf::from(format!("/dev/fd/{number}"));
    protect();
    let line = File::open(&path).and_then(first_line).map_err(|error| unreadable(&path, error))?;
    line.ok_or_else(|| wrong(format!("nothing came from the file descriptor {number}")))
}

pub(super) fn of_command(argv: &[String], cancel: &Cancel) -> Result<Secret> {
    protect();
    let tool = Tool::new(argv, TIMEOUT);
    let mut said = Zeroizing::new(Vec::new());
    let read = tool.stream(cancel)?.take(MAX_BYTES).read_to_end(&mut said);
    read.map_err(|error| wrong(format!("the password could not be had: {error}")))?;
    Secret::first_line(&said).ok_or_else(|| wrong(format!("{} printed no password", tool.line())))
}

pub(super) fn of_variable(name: &str, value: Option<OsString>) -> Result<Secret> {
    protect();
    let value = value.map(|value| Zeroizing::new(value.into_vec()));
    let missing = || {
        wrong(format!(
            "the variable {} of the environment, which should be the password, is empty",
            shown(name.as_bytes())
        ))
    };
    value.and_then(|value| Secret::first_line(&value)).ok_or_else(missing)
}

pub(super) fn of_credential(name: &str, dir: Option<OsString>) -> Result<Secret> {
    let dir = dir.ok_or_else(|| {
        wrong(format!(
            "there is no credential {}: systemd gives them only to a unit of its own",
            shown(name.as_bytes())
        ))
    })?;
    of_password_file(&Path::new(&dir).join(name))
}

/// A key file is for us alone, as the private keys of ssh are.
pub(super) fn check_is_private(path: &Path) -> Result<()> {
    let Ok(metadata) = path.metadata() else { return Ok(()) };
    if metadata.mode() & OTHERS_READ == 0 || !metadata.is_file() {
        return Ok(());
    }
    let what = format!("others can read the key {} (mode {:o})", path.display(), metadata.mode() & 0o7777);
    Err(Error::new(ErrorKind::Denied, what).next(format!("chmod 600 {}", path.display())))
}

/// The line of a key file, as `openssl enc -pass file:` takes it: all up to the end of the line.
pub(super) fn of_key_file(path: &Path) -> Result<Secret> {
    check_is_private(path)?;
    let bytes = read(path)?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if line.is_empty() {
        return Err(wrong(format!("the first line of {}, which should be the key, is empty", path.display())));
    }
    Ok(Secret::new(line.to_vec()))
}

/// Whether a file is one of identities of `age`, and not of a password.
pub(super) fn holds_identities(path: &Path) -> bool {
    read(path).is_ok_and(|bytes| bytes.split(|byte| *byte == b'\n').any(|line| line.starts_with(b"AGE-SECRET-KEY-")))
}

/// The identities of `age` in a file.
pub(super) fn of_identity_file(path: &Path) -> Result<Vec<Identity>> {
    check_is_private(path)?;
    let bytes = read(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong(format!("{} is no text", path.display())))?;
    Identity::parse_all(text).map_err(|error| wrong(format!("{}: {error}", path.display())))
}
