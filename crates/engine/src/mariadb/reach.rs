//! How a server is reached: by options of the client programs, from a URL; and
//! its password, from the file that is named. Option files (`my.cnf`) and the
//! environment are not looked at: what is backed up, and how, is what
//! `lifeboat.yaml` says.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use lifeboat_format::path::shown;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::Result;

/// The options that may stand behind the `?` of a URL, besides the password,
/// which may not (MariaDB's manual, "mariadb Command-Line Client").
const OPTIONS: [&str; 9] = [
    "connect-timeout",
    "socket",
    "ssl",
    "ssl-ca",
    "ssl-capath",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-verify-server-cert",
];
/// Those that hold no path of the host and are not the server's own affair.
const TOLD: [&str; 1] = ["socket"];
/// What is written otherwise in a URL.
const NOT_PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_').remove(b'/');
const PASSWORD: &str = "a password stands in it, expected it in the file that `password_file` names";

/// A server and how it is reached. Holds no password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// Options of the client programs and their values: `user`, `host`, `port` and what the URL adds.
    pub options: BTreeMap<String, String>,
    /// The file whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// Where the client programs are; by default they are looked for.
    pub bin_dir: Option<PathBuf>,
}

/// The way to a server, with everything looked up that it takes.
#[derive(Clone)]
pub(crate) struct Route {
    options: BTreeMap<String, String>,
    password: Option<String>,
}

/// The options in a URL (`mariadb://user@host:port/database?socket=/path`),
/// and the database that it names.
///
/// # Errors
/// What is wrong with it, without what may be a secret.
pub(crate) fn parse_url(url: &str) -> std::result::Result<(BTreeMap<String, String>, Option<String>), String> {
    let rest = url.strip_prefix("mariadb://").or_else(|| url.strip_prefix("mysql://"));
    let rest = rest.ok_or("expected a URL such as mariadb://user@host:3306/database")?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if user.contains(':') {
        return Err(PASSWORD.to_owned());
    }
    let (host, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or("the address has no `]`")?;
            (host, rest.strip_prefix(':').unwrap_or(""))
        }
        None => host.rsplit_once(':').unwrap_or((host, "")),
    };
    let mut options = BTreeMap::new();
    for (key, value) in [("user", user), ("host", host), ("port", port)] {
        if !value.is_empty() {
            options.insert(key.to_owned(), decode(value)?);
        }
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| format!("`{}` has no `=`", shown(pair.as_bytes())))?;
        let key = key.replace('_', "-");
        if key == "password" {
            return Err(PASSWORD.to_owned());
        }
        if !OPTIONS.contains(&key.as_str()) {
            let meant = crate::config::nearest(&key, &OPTIONS);
            let meant = meant.map(|meant| format!(" (did you mean `{meant}`?)")).unwrap_or_default();
            return Err(format!("unknown parameter `{}`{meant}", shown(key.as_bytes())));
        }
        options.insert(key, decode(value)?);
    }
    if let Some(port) = options.get("port").filter(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
        return Err(format!("`{}` is no port", shown(port.as_bytes())));
    }
    let database = if database.is_empty() { None } else { Some(decode(database)?) };
    Ok((options, database))
}

fn decode(text: &str) -> std::result::Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| "it is not UTF-8 when decoded")?;
    // The programs read them from lines.
    if decoded.contains(['\0', '\n', '\r']) {
        return Err("a control character stands in it".to_owned());
    }
    Ok(decoded.into_owned())
}

impl Server {
    /// Where it is, as people know it.
    #[must_use]
    pub fn name(&self) -> String {
        place(&self.options)
    }

    /// As a URL: with only the user and the place, or with all options.
    pub(crate) fn url(&self, is_whole: bool) -> String {
        let encode = |text: &str| utf8_percent_encode(text, NOT_PLAIN).to_string();
        let of = |key: &str| self.options.get(key);
        let user = of("user").map(|user| format!("{}@", encode(user))).unwrap_or_default();
        let host = of("host").map(|host| if host.contains(':') { format!("[{host}]") } else { encode(host) });
        let port = of("port").map(|port| format!(":{port}")).unwrap_or_default();
        let is_told = |key: &str| OPTIONS.contains(&key) && (is_whole || TOLD.contains(&key));
        let more = self.options.iter().filter(|(key, _)| is_told(key));
        let more: Vec<String> = more.map(|(key, value)| format!("{key}={}", encode(value))).collect();
        let query = if more.is_empty() { String::new() } else { format!("?{}", more.join("&")) };
        format!("mariadb://{user}{}{port}/{query}", host.unwrap_or_default())
    }

    /// Looks up what reaching it takes.
    ///
    /// # Errors
    /// When the file of the password cannot be read.
    pub(crate) fn route(&self) -> Result<Route> {
        let mut options = self.options.clone();
        if !options.contains_key("user") {
            let own = uzers::get_user_by_uid(rustix::process::geteuid().as_raw());
            let own = own.map(|user| user.name().to_string_lossy().into_owned());
            options.insert("user".to_owned(), own.unwrap_or_else(|| "root".to_owned()));
        }
        // Without it, the programs would take the socket for every `localhost`, also where a port is named.
        let protocol = match (options.contains_key("socket"), options.contains_key("port")) {
            (true, _) => Some("socket"),
            (false, true) => Some("tcp"),
            (false, false) => None,
        };
        options.extend(protocol.map(|protocol| ("protocol".to_owned(), protocol.to_owned())));
        options.entry("host".to_owned()).or_insert_with(|| "localhost".to_owned());
        let password = self.password_file.as_deref().map(crate::pg::first_line).transpose()?;
        Ok(Route { options, password })
    }

    /// A command for a shell that gives `script` to `database`; it asks for a password where one is configured.
    pub(crate) fn shell_command(&self, database: &str, script: &str) -> String {
        let options = [("host", "-h"), ("port", "-P"), ("socket", "-S"), ("user", "-u")];
        let given = options.iter().filter_map(|(key, flag)| Some(format!("{flag} {}", shell(self.options.get(*key)?))));
        let asks = self.password_file.as_ref().map(|_| "-p".to_owned());
        let words: Vec<String> = given.chain(asks).collect();
        format!("mariadb --binary-mode {} {} < {}", words.join(" "), shell(database), shell(script))
    }

    /// A command for a shell that runs one statement.
    pub(crate) fn shell_statement(&self, statement: &str) -> String {
        let options = [("host", "-h"), ("port", "-P"), ("socket", "-S"), ("user", "-u")];
        let given = options.iter().filter_map(|(key, flag)| Some(format!("{flag} {}", shell(self.options.get(*key)?))));
        let asks = self.password_file.as_ref().map(|_| "-p".to_owned());
        let words: Vec<String> = given.chain(asks).collect();
        format!("mariadb {} -e {}", words.join(" "), shell(statement))
    }
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

/// `user@host:port`, or the socket.
fn place(options: &BTreeMap<String, String>) -> String {
    let user = options.get("user").map(|user| format!("{user}@")).unwrap_or_default();
    let host = options.get("socket").or_else(|| options.get("host")).map_or("the local server", String::as_str);
    let port = options.get("port").map(|port| format!(":{port}")).unwrap_or_default();
    shown(format!("{user}{host}{port}").as_bytes())
}

impl Route {
    /// Where it leads, as people know it.
    pub(crate) fn name(&self) -> String {
        let is_implied = |key: &str, value: &str| key == "host" && value == "localhost";
        let known = self.options.iter().filter(|(key, value)| !is_implied(key, value));
        place(&known.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    /// Whose session it becomes.
    pub(crate) fn user(&self) -> &str {
        self.options.get("user").map_or("", String::as_str)
    }

    /// The option file that the programs read, with the password. For no other eyes.
    pub(crate) fn option_file(&self) -> Vec<u8> {
        let mut text = "[client]\n".to_owned();
        let password = self.password.as_ref().map(|password| ("password", password.as_str()));
        for (key, value) in self.options.iter().map(|(key, value)| (key.as_str(), value.as_str())).chain(password) {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"");
            writeln!(text, "{key}=\"{value}\"").expect("a String takes all");
        }
        text.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    /// Shows D15.
    #[test]
    fn a_url_says_where_a_server_is_and_holds_no_password() {
        for (url, expected, database) in [
            ("mariadb://", &[][..], None),
            ("mysql:///app", &[], Some("app")),
            ("mariadb://b%40b@[::1]:3307/a%20b", &[("host", "::1"), ("port", "3307"), ("user", "b@b")], Some("a b")),
            (
                "mariadb://bob@/app?socket=/run/my%20sql.sock&ssl_ca=/etc/ca.pem",
                &[("socket", "/run/my sql.sock"), ("ssl-ca", "/etc/ca.pem"), ("user", "bob")],
                Some("app"),
            ),
        ] {
            assert_eq!(parse_url(url), Ok((options(expected), database.map(str::to_owned))), "{url}");
        }
        for (url, why) in [
            ("postgres://h/app", "expected a URL"),
            ("mariadb://bob:secret@h/app", "`password_file`"),
            ("mariadb://h/app?password=secret", "`password_file`"),
            ("mariadb://h/app?sock=/x", "did you mean `socket`?"),
            ("mariadb://h:0/app", "`0` is no port"),
            ("mariadb://h/a%0ab", "control character"),
        ] {
            let error = parse_url(url).unwrap_err();
            assert!(error.contains(why) && !error.contains("secret"), "{url}: {error}");
        }
    }

    /// Shows D15.
    #[test]
    fn what_the_programs_read_keeps_odd_values_and_what_people_read_has_no_password() {
        let given = options(&[("user", "o'b\"\\"), ("port", "3307"), ("ssl-ca", "/etc/ca.pem")]);
        let server = Server { options: given, ..Server::default() };
        let route = Route { password: Some("p\"w\\ #;".to_owned()), ..server.route().unwrap() };
        let file = String::from_utf8(route.option_file()).unwrap();
        assert!(file.starts_with("[client]\nhost=\"localhost\"\n") && file.contains("protocol=\"tcp\"\n"), "{file}");
        assert!(file.contains("user=\"o'b\\\"\\\\\"\n") && file.ends_with("password=\"p\\\"w\\\\ #;\"\n"), "{file}");
        assert_eq!(server.url(false), "mariadb://o%27b%22%5C@:3307/");
        assert_eq!(server.url(true), "mariadb://o%27b%22%5C@:3307/?ssl-ca=/etc/ca.pem");
        assert_eq!(parse_url(&server.url(true)).unwrap().0, server.options);
        let command = server.shell_command("a b", "dumps/x.sql");
        assert_eq!(command, "mariadb --binary-mode -P 3307 -u 'o'\\''b\"\\' 'a b' < dumps/x.sql");
    }
}
