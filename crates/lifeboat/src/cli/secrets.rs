//! How passwords and keys come in: by options that name where they are, by the
//! environment, or by a person at a terminal. Never as an argument.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_engine::app::{Given, Keyring, Question, Secret, SecretFrom, shown};
use lifeboat_engine::{Cancel, Error, ErrorKind, Result};

use super::Console;

const STATE: &str = "nothing was begun";
const WAYS: &str = "give it with --password-file FILE, --password-fd N, --password-command COMMAND, in the environment \
                    (LIFEBOAT_PASSWORD_FILE, LIFEBOAT_PASSWORD_COMMAND, LIFEBOAT_PASSWORD), or type it when asked";

/// What every command takes that may open or make an encrypted archive.
#[derive(clap::Args, Clone)]
pub(crate) struct SecretOptions {
    /// The first line of FILE is the password
    #[arg(long, global = true, value_name = "FILE", help_heading = "Passwords and keys", group = "way")]
    password_file: Option<PathBuf>,
    /// The first line that comes from the file descriptor N is the password
    #[arg(long, global = true, value_name = "N", help_heading = "Passwords and keys", group = "way")]
    password_fd: Option<u32>,
    /// The first line that COMMAND prints is the password; it is split into words, and no shell runs it
    #[arg(long, global = true, value_name = "COMMAND", help_heading = "Passwords and keys", group = "way")]
    password_command: Option<String>,
    /// The identities of age in FILE open archives; may be repeated
    #[arg(long, global = true, value_name = "FILE", help_heading = "Passwords and keys")]
    identity_file: Vec<PathBuf>,
    /// The first line of FILE is the key of openssl archives; may be repeated
    #[arg(long, global = true, value_name = "FILE", help_heading = "Passwords and keys")]
    key_file: Vec<PathBuf>,
    /// Refused: everybody on this machine can see it
    #[arg(long, global = true, value_name = "VALUE", hide = true, num_args = 0..=1)]
    password: Option<Option<String>>,
}

impl SecretOptions {
    /// The keyring of this process.
    ///
    /// # Errors
    /// When a password stands on the command line, or a command makes no sense.
    pub(crate) fn keyring(
        &self,
        console: &Arc<Console>,
        cancel: &Cancel,
        variable: fn(&str) -> Option<OsString>,
    ) -> Result<Keyring> {
        if self.password.is_some() {
            let what = "--password is not taken: everybody on this machine can see what stands on a command line";
            return Err(Error::new(ErrorKind::Usage, what).state(STATE).next(WAYS));
        }
        let password = self.given()?.map_or_else(|| of_environment(variable), |given| Ok(Some(given)))?;
        if let Some(Given::From(SecretFrom::File(path))) = &password {
            warn_if_open(path, console);
        }
        let (asks, stop) = (Arc::clone(console), cancel.clone());
        let mut keyring = Keyring::default();
        keyring.password = password;
        keyring.identity_files = self.identity_file.iter().map(|path| absolute(path)).collect();
        keyring.key_files = self.key_file.iter().map(|path| absolute(path)).collect();
        keyring.ask = Some(Box::new(move |question| ask(question, &asks, &stop)));
        keyring.variable = Some(variable);
        keyring.cancel = cancel.clone();
        Ok(keyring)
    }

    fn given(&self) -> Result<Option<Given>> {
        Ok(match (&self.password_file, self.password_fd, &self.password_command) {
            (Some(path), _, _) => Some(Given::From(SecretFrom::File(absolute(path)))),
            (_, Some(number), _) => Some(Given::Fd(number)),
            (_, _, Some(line)) => Some(Given::From(SecretFrom::Command(words(line)?))),
            _ => None,
        })
    }
}

fn of_environment(variable: fn(&str) -> Option<OsString>) -> Result<Option<Given>> {
    const NAME: &str = "LIFEBOAT_PASSWORD";
    if let Some(path) = variable("LIFEBOAT_PASSWORD_FILE") {
        return Ok(Some(Given::From(SecretFrom::File(absolute(Path::new(&path))))));
    }
    if let Some(line) = variable("LIFEBOAT_PASSWORD_COMMAND") {
        let line = line.into_string().map_err(|_| bad_command("it is not UTF-8"))?;
        return Ok(Some(Given::From(SecretFrom::Command(words(&line)?))));
    }
    Ok(variable(NAME).map(|_| Given::From(SecretFrom::Env(NAME.to_owned()))))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn bad_command(why: &str) -> Error {
    Error::new(ErrorKind::Usage, format!("the password command cannot be used: {why}")).state(STATE)
}

fn words(line: &str) -> Result<Vec<String>> {
    match shlex::split(line) {
        Some(words) if !words.is_empty() => Ok(words),
        Some(_) => Err(bad_command("it is empty")),
        None => Err(bad_command("a quote in it has no end")),
    }
}

/// A password that others read is one that others know.
fn warn_if_open(path: &Path, console: &Console) {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(found) = path.metadata() else { return };
    if found.is_file() && found.mode() & 0o044 != 0 {
        let (mode, path) = (found.mode() & 0o7777, shown(path.as_os_str().as_encoded_bytes()));
        console.warning(format_args!("others can read the password file {path} (mode {mode:o}): chmod 600 {path}"));
    }
}

fn ask(question: Question<'_>, console: &Console, cancel: &Cancel) -> Result<Option<Secret>> {
    if !console.can_ask() {
        return Ok(None);
    }
    let text = match question {
        Question::New => return new_password(console, cancel).map(Some),
        Question::Of { file, failed: 0 } => {
            format!("Password of {}", shown(file.as_os_str().as_encoded_bytes()))
        }
        Question::Of { .. } => "That is not its password. Password".to_owned(),
    };
    console.ask_secret(&text, cancel).map(Some)
}

/// Typed twice: nobody sees what is typed, and a slip would lock everybody out.
fn new_password(console: &Console, cancel: &Cancel) -> Result<Secret> {
    let first = console.ask_secret("New password", cancel)?;
    let second = console.ask_secret("New password, once more", cancel)?;
    let refused = |what: &str| Error::new(ErrorKind::Usage, what).state(STATE).next("run the same command again");
    if first != second {
        return Err(refused("the two passwords differ"));
    }
    if first.expose().is_empty() {
        return Err(refused("the password is empty"));
    }
    Ok(first)
}
