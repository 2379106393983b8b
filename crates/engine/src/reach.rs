//! What the ways to servers of databases have in common: the URL that names
//! one, its password, and how it is shown to people and written for a shell.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use lifeboat_format::path::shown;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::{Error, ErrorKind, Result};

/// Why a URL with a password is refused.
pub(crate) const HOLDS_PASSWORD: &str = "a password stands in it, expected it in the file that `password_file` names";
/// What is written otherwise in a URL.
const NOT_PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_').remove(b'/');
/// How much of a file with passwords is read.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// A password. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(pub(crate) String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// What a URL says: `SCHEME://user@host:port/database?key=value&…`.
pub(crate) struct Url {
    /// `user`, `host` and `port`, as far as they are given.
    pub(crate) place: BTreeMap<String, String>,
    pub(crate) database: Option<String>,
    /// What stands behind the `?`, in its order.
    pub(crate) pairs: Vec<(String, String)>,
}

impl Url {
    /// Reads a URL of one of `schemes`, such as `example`. None of the `forbidden` characters may stand in it.
    ///
    /// # Errors
    /// What is wrong with it, without what may be a secret.
    pub(crate) fn parse(
        url: &str,
        schemes: &[&str],
        example: &str,
        forbidden: &[char],
    ) -> std::result::Result<Self, String> {
        let rest = schemes.iter().find_map(|scheme| url.strip_prefix(scheme)?.strip_prefix("://"));
        let rest = rest.ok_or_else(|| format!("expected a URL such as {example}"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        if user.contains(':') {
            return Err(HOLDS_PASSWORD.to_owned());
        }
        let (host, port) = match host.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or("the address has no `]`")?;
                (host, rest.strip_prefix(':').unwrap_or(""))
            }
            None => host.rsplit_once(':').unwrap_or((host, "")),
        };
        let mut place = BTreeMap::new();
        for (key, value) in [("user", user), ("host", host), ("port", port)] {
            if !value.is_empty() {
                place.insert(key.to_owned(), decode(value, forbidden)?);
            }
        }
        let database = if database.is_empty() { None } else { Some(decode(database, forbidden)?) };
        let mut pairs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| format!("`{}` has no `=`", shown(pair.as_bytes())))?;
            pairs.push((key.to_owned(), decode(value, forbidden)?));
        }
        Ok(Self { place, database, pairs })
    }
}

fn decode(text: &str, forbidden: &[char]) -> std::result::Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| "it is not UTF-8 when decoded")?;
    if decoded.contains(forbidden) {
        return Err("a control character stands in it".to_owned());
    }
    Ok(decoded.into_owned())
}

/// A URL of `scheme` with the place that `options` name and those of them that `is_told`.
pub(crate) fn url(scheme: &str, options: &BTreeMap<String, String>, is_told: impl Fn(&str, &str) -> bool) -> String {
    let encode = |text: &str| utf8_percent_encode(text, NOT_PLAIN).to_string();
    let of = |key: &str| options.get(key);
    let user = of("user").map(|user| format!("{}@", encode(user))).unwrap_or_default();
    // The directory of a socket is no host of a URL.
    let host = of("host").filter(|host| !host.starts_with('/'));
    let host = host.map(|host| if host.contains(':') { format!("[{host}]") } else { encode(host) });
    let port = of("port").map(|port| format!(":{port}")).unwrap_or_default();
    let more = options.iter().filter(|(key, value)| is_told(key, value));
    let more: Vec<String> = more.map(|(key, value)| format!("{key}={}", encode(value))).collect();
    let query = if more.is_empty() { String::new() } else { format!("?{}", more.join("&")) };
    format!("{scheme}://{user}{}{port}/{query}", host.unwrap_or_default())
}

/// That `key` is none of `known`, and which one may be meant.
pub(crate) fn unknown(key: &str, known: &[&str]) -> String {
    let meant = crate::config::nearest(key, known);
    let meant = meant.map(|meant| format!(" (did you mean `{meant}`?)")).unwrap_or_default();
    format!("unknown parameter `{}`{meant}", shown(key.as_bytes()))
}

/// `user@host:port`, where the host is the first of `hosts` that `options` have.
pub(crate) fn place(options: &BTreeMap<String, String>, hosts: [&str; 2]) -> String {
    let user = options.get("user").map(|user| format!("{user}@")).unwrap_or_default();
    let host = hosts.iter().find_map(|key| options.get(*key)).map_or("the local server", String::as_str);
    let port = options.get("port").map(|port| format!(":{port}")).unwrap_or_default();
    shown(format!("{user}{host}{port}").as_bytes())
}

/// The name of the user whose process this is.
pub(crate) fn own_name() -> Option<String> {
    let own = uzers::get_user_by_uid(rustix::process::geteuid().as_raw())?;
    Some(own.name().to_string_lossy().into_owned())
}

/// A file of a few lines, as text.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_MAX_BYTES).read_to_string(&mut text));
    read.map_err(|error| lifeboat_store::Error::io("read", path, error))?;
    Ok(text)
}

/// A password as a file holds it: the first line, without its end.
pub(crate) fn password(path: &Path) -> Result<Password> {
    let text = read_text(path)?;
    let line = text.split('\n').next().unwrap_or_default();
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        let what = format!("{} cannot be used: its first line, which should be the password, is empty", path.display());
        return Err(Error::new(ErrorKind::Failed, what));
    }
    Ok(Password(line.to_owned()))
}

/// `text` as one word of a shell.
pub(crate) fn shell(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
    if text.chars().all(is_plain) && !text.is_empty() {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// Words for a shell: the flag of each of `flags` that `options` have, and its value.
pub(crate) fn shell_flags(options: &BTreeMap<String, String>, flags: &[(&str, &str)]) -> Vec<String> {
    let given = flags.iter().filter_map(|(key, flag)| Some(format!("{flag} {}", shell(options.get(*key)?))));
    given.collect()
}
