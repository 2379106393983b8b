//! How a server is reached: by options of the client programs, from a URL; and
//! its password, from the file that is named. Option files (`my.cnf`) and the
//! environment are not looked at: what is backed up, and how, is what
//! `lifeboat.yaml` says.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use lifeboat_format::path::shown;

use crate::Result;
use crate::reach::{self, HOLDS_PASSWORD, Password, Url, shell};

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
/// The options that say where a server is, the most telling first.
const HOSTS: [&str; 2] = ["socket", "host"];
/// Options and what they are called in a command that people type.
const FLAGS: [(&str, &str); 4] = [("host", "-h"), ("port", "-P"), ("socket", "-S"), ("user", "-u")];
/// The programs read options from lines.
const FORBIDDEN: [char; 3] = ['\0', '\n', '\r'];

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
#[derive(Clone, Debug)]
pub(crate) struct Route {
    options: BTreeMap<String, String>,
    password: Option<Password>,
}

/// The options in a URL (`mariadb://user@host:port/database?socket=/path`),
/// and the database that it names.
///
/// # Errors
/// What is wrong with it, without what may be a secret.
pub(crate) fn parse_url(url: &str) -> std::result::Result<(BTreeMap<String, String>, Option<String>), String> {
    let example = "mariadb://user@host:3306/database";
    let Url { place, database, pairs } = Url::parse(url, &["mariadb", "mysql"], example, &FORBIDDEN)?;
    let mut options = place;
    for (key, value) in pairs {
        let key = key.replace('_', "-");
        if key == "password" {
            return Err(HOLDS_PASSWORD.to_owned());
        }
        if !OPTIONS.contains(&key.as_str()) {
            return Err(reach::unknown(&key, &OPTIONS));
        }
        options.insert(key, value);
    }
    if let Some(port) = options.get("port").filter(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
        return Err(format!("`{}` is no port", shown(port.as_bytes())));
    }
    Ok((options, database))
}

impl Server {
    /// Where it is, as people know it.
    #[must_use]
    pub fn name(&self) -> String {
        reach::place(&self.options, HOSTS)
    }

    /// As a URL: with only the user and the place, or with all options.
    pub(crate) fn url(&self, is_whole: bool) -> String {
        let is_told = |key: &str, _: &str| OPTIONS.contains(&key) && (is_whole || TOLD.contains(&key));
        reach::url("mariadb", &self.options, is_told)
    }

    /// Looks up what reaching it takes.
    ///
    /// # Errors
    /// When the file of the password cannot be read.
    pub(crate) fn route(&self) -> Result<Route> {
        let mut options = self.options.clone();
        if !options.contains_key("user") {
            options.insert("user".to_owned(), reach::own_name().unwrap_or_else(|| "root".to_owned()));
        }
        // Without it, the programs would take the socket for every `localhost`, also where a port is named.
        let protocol = match (options.contains_key("socket"), options.contains_key("port")) {
            (true, _) => Some("socket"),
            (false, true) => Some("tcp"),
            (false, false) => None,
        };
        options.extend(protocol.map(|protocol| ("protocol".to_owned(), protocol.to_owned())));
        options.entry("host".to_owned()).or_insert_with(|| "localhost".to_owned());
        let password = self.password_file.as_deref().map(reach::password).transpose()?;
        Ok(Route { options, password })
    }

    /// A command for a shell that gives `script` to `database`; it asks for a password where one is configured.
    pub(crate) fn shell_command(&self, database: &str, script: &str) -> String {
        format!("mariadb --binary-mode {} {} < {}", self.flags(), shell(database), shell(script))
    }

    /// A command for a shell that runs one statement.
    pub(crate) fn shell_statement(&self, statement: &str) -> String {
        format!("mariadb {} -e {}", self.flags(), shell(statement))
    }

    fn flags(&self) -> String {
        let asks = self.password_file.as_ref().map(|_| "-p".to_owned());
        let words: Vec<String> = reach::shell_flags(&self.options, &FLAGS).into_iter().chain(asks).collect();
        words.join(" ")
    }
}

impl Route {
    /// Where it leads, as people know it.
    pub(crate) fn name(&self) -> String {
        let is_implied = |key: &str, value: &str| key == "host" && value == "localhost";
        let known = self.options.iter().filter(|(key, value)| !is_implied(key, value));
        reach::place(&known.map(|(key, value)| (key.clone(), value.clone())).collect(), HOSTS)
    }

    /// Whose session it becomes.
    pub(crate) fn user(&self) -> &str {
        self.options.get("user").map_or("", String::as_str)
    }

    /// The option file that the programs read, with the password. For no other eyes.
    pub(crate) fn option_file(&self) -> Vec<u8> {
        let mut text = "[client]\n".to_owned();
        let password = self.password.as_ref().map(|password| ("password", password.0.as_str()));
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
        let route = Route { password: Some(Password("p\"w\\ #;".to_owned())), ..server.route().unwrap() };
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
