//! How a server is reached: by the keywords of libpq, from a URL or a service
//! file; and its password, from the file that is named, the service file or
//! `~/.pgpass`. The environment (`PGHOST` and its like) is not looked at: what
//! is backed up is what `lifeboat.yaml` says.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_format::path::shown;
use postgres::config::{ChannelBinding, SslMode};
use serde::{Deserialize, Serialize};

use super::tls::Trust;
use crate::reach::{self, HOLDS_PASSWORD, Password, Url, read_text};
use crate::{Error, ErrorKind, Result};

/// The keywords that may be given (PostgreSQL's manual, "Parameter Key Words").
/// Those of passwords have settings of their own; the rest does not matter here.
const KEYWORDS: [&str; 17] = [
    "channel_binding",
    "connect_timeout",
    "gssencmode",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_idle",
    "krbsrvname",
    "options",
    "port",
    "service",
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "user",
];
/// Where libpq of Debian and that of PostgreSQL itself look for the socket.
const SOCKET_DIRS: [&str; 2] = ["/var/run/postgresql", "/tmp"];
/// The service file of the whole system, on Debian.
const SYSTEM_SERVICES: &str = "/etc/postgresql-common/pg_service.conf";
/// The keywords that say where a server is, the one that people know first.
const HOSTS: [&str; 2] = ["host", "hostaddr"];
const PORT: u16 = 5432;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// A server and how it is reached. Holds no password, so that it may stand in a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Keywords of libpq and their values, such as `host` or `service`.
    pub keywords: BTreeMap<String, String>,
    /// The file whose first line is the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// The database from which others are created, renamed and dropped.
    pub maintenance_db: String,
    /// Where the server's programs are; by default they are looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bin_dir: Option<PathBuf>,
    /// Whose `.pgpass` and `.pg_service.conf` are looked at; by default the user's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<PathBuf>,
}

/// The way to a server, with everything looked up that it takes.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    keywords: BTreeMap<String, String>,
    password: Option<Password>,
}

/// The keywords in a URL (`postgres://user@host:port/dbname?key=value`), and
/// the database that it names.
///
/// # Errors
/// What is wrong with it, without what may be a secret.
pub(crate) fn parse_url(url: &str) -> std::result::Result<(BTreeMap<String, String>, Option<String>), String> {
    let example = "postgres://user@host:5432/database";
    let Url { place, mut database, pairs } = Url::parse(url, &["postgres", "postgresql"], example, &['\0'])?;
    if place.iter().any(|(key, value)| key != "user" && value.contains(',')) {
        return Err("several hosts stand in it, expected the one that is backed up".to_owned());
    }
    let mut keywords = place;
    for (key, value) in pairs {
        match key.as_str() {
            "dbname" => database = Some(value),
            "password" | "passfile" | "sslpassword" => return Err(HOLDS_PASSWORD.to_owned()),
            // Ours says whose session it is.
            "application_name" => {}
            _ if value.is_empty() => {}
            _ => drop(keywords.insert(key, value)),
        }
    }
    check_keywords(&keywords)?;
    Ok((keywords, database))
}

/// Refuses what libpq would not take, or would take for something else.
fn check_keywords(keywords: &BTreeMap<String, String>) -> std::result::Result<(), String> {
    for (key, value) in keywords {
        if !KEYWORDS.contains(&key.as_str()) {
            return Err(reach::unknown(key, &KEYWORDS));
        }
        let is_sound = match key.as_str() {
            "port" => value.parse::<u16>().is_ok_and(|port| port > 0),
            "sslmode" => Trust::of(value).is_some(),
            "connect_timeout" => value.parse::<u32>().is_ok(),
            "hostaddr" => value.parse::<std::net::IpAddr>().is_ok(),
            _ => true,
        };
        if !is_sound {
            return Err(format!("`{}` is no {key}", shown(value.as_bytes())));
        }
    }
    Ok(())
}

impl Server {
    /// Where it is, as people know it.
    #[must_use]
    pub fn name(&self) -> String {
        match self.keywords.get("service") {
            Some(service) => format!("service {service}"),
            None => reach::place(&self.keywords, HOSTS),
        }
    }

    /// As a URL: with only the user and the place, or with all keywords.
    pub(crate) fn url(&self, is_whole: bool) -> String {
        let is_told = |key: &str, value: &str| match key {
            "user" | "port" => false,
            "host" => value.starts_with('/'),
            "hostaddr" => true,
            _ => is_whole,
        };
        reach::url("postgres", &self.keywords, is_told)
    }

    /// Looks up what reaching it takes.
    ///
    /// # Errors
    /// When a file that is named cannot be read, or knows no such service.
    pub(crate) fn route(&self) -> Result<Route> {
        let home = self.home.clone().or_else(home_of_user);
        let mut keywords = self.keywords.clone();
        let mut password = self.password_file.as_deref().map(reach::password).transpose()?;
        if let Some(service) = keywords.remove("service") {
            for (key, value) in service_of(&service, home.as_deref())? {
                if key == "password" {
                    password.get_or_insert(Password(value));
                } else if key != "dbname" && key != "application_name" {
                    keywords.entry(key).or_insert(value);
                }
            }
            check_keywords(&keywords).map_err(|why| unusable(&format!("the service {service}"), &why))?;
        }
        let port = keywords.get("port").and_then(|port| port.parse().ok()).unwrap_or(PORT);
        keywords.entry("port".to_owned()).or_insert_with(|| port.to_string());
        if !keywords.contains_key("host") && !keywords.contains_key("hostaddr") {
            keywords.insert("host".to_owned(), local_host(port));
        }
        if !keywords.contains_key("user") {
            keywords.insert("user".to_owned(), reach::own_name().unwrap_or_else(|| "postgres".to_owned()));
        }
        let from_passfile = || home.as_deref().and_then(|home| passfile(&home.join(".pgpass"), &keywords));
        let password = password.or_else(|| from_passfile().map(Password));
        Ok(Route { keywords, password })
    }
}

fn unusable(what: &str, why: &str) -> Error {
    Error::new(ErrorKind::Failed, format!("{what} cannot be used: {why}"))
}

/// What the list of users says.
fn home_of_user() -> Option<PathBuf> {
    use uzers::os::unix::UserExt as _;
    Some(uzers::get_user_by_uid(rustix::process::geteuid().as_raw())?.home_dir().to_owned())
}

/// As libpq: the directory of the socket, where there is one.
fn local_host(port: u16) -> String {
    let has_socket = |dir: &&&str| Path::new(dir).join(format!(".s.PGSQL.{port}")).exists();
    SOCKET_DIRS.iter().find(has_socket).map_or_else(|| "localhost".to_owned(), |dir| (*dir).to_owned())
}

/// What a service file says of `service`: the user's own file first.
fn service_of(service: &str, home: Option<&Path>) -> Result<BTreeMap<String, String>> {
    let files = home.map(|home| home.join(".pg_service.conf")).into_iter().chain([PathBuf::from(SYSTEM_SERVICES)]);
    let mut looked_at = Vec::new();
    for file in files {
        if !file.exists() {
            continue;
        }
        if let Some(found) = find_service(&read_text(&file)?, service) {
            return Ok(found);
        }
        looked_at.push(file.display().to_string());
    }
    let looked_at = if looked_at.is_empty() {
        "there is no pg_service.conf".to_owned()
    } else {
        format!("not in {}", looked_at.join(", "))
    };
    Err(unusable(&format!("the service {}", shown(service.as_bytes())), &looked_at)
        .next("write it into ~/.pg_service.conf, or give a `url` instead"))
}

fn find_service(text: &str, service: &str) -> Option<BTreeMap<String, String>> {
    let mut found: Option<BTreeMap<String, String>> = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            if found.is_some() {
                break;
            }
            found = (name == service).then(BTreeMap::new);
        } else if let (Some(found), Some((key, value))) = (&mut found, line.split_once('=')) {
            found.insert(key.trim().to_owned(), value.trim().to_owned());
        }
    }
    found
}

/// The password that a file in the format of `~/.pgpass` has for a server
/// (PostgreSQL's manual, "The Password File"). As libpq, it does not look into
/// a file that others may read.
fn passfile(path: &Path, keywords: &BTreeMap<String, String>) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    if path.metadata().ok()?.mode() & 0o077 != 0 {
        return None;
    }
    let text = read_text(path).ok()?;
    let of = |key: &str| keywords.get(key).map_or("", String::as_str);
    // A socket in its usual place is `localhost` there.
    let host = if SOCKET_DIRS.contains(&of("host")) { "localhost" } else { of("host") };
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = pgpass_fields(line);
        let [of_host, of_port, _, of_user, password] = fields.as_slice() else { return None };
        let is_for = |pattern: &str, value: &str| pattern == "*" || pattern == value;
        let is_it = (is_for(of_host, host) || is_for(of_host, of("host")) || is_for(of_host, of("hostaddr")))
            && is_for(of_port, of("port"))
            && is_for(of_user, of("user"));
        is_it.then(|| password.clone())
    })
}

fn pgpass_fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        let last = fields.len() - 1;
        match letter {
            '\\' => fields[last].extend(letters.next()),
            ':' if fields.len() < 5 => fields.push(String::new()),
            _ => fields[last].push(letter),
        }
    }
    fields
}

impl Route {
    /// Where it leads, as people know it.
    pub(crate) fn name(&self) -> String {
        reach::place(&self.keywords, HOSTS)
    }

    /// The user whose session it becomes.
    pub(crate) fn user(&self) -> &str {
        self.keywords.get("user").map_or("", String::as_str)
    }

    /// What names `database` to a program of PostgreSQL: keywords and values,
    /// without a password.
    pub(crate) fn conninfo(&self, database: &str, application: &str) -> String {
        let mut text = String::new();
        let more = [("dbname", database), ("application_name", application)];
        let own = self.keywords.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        for (key, value) in own.chain(more) {
            let value = value.replace('\\', "\\\\").replace('\'', "\\'");
            write!(text, "{}{key}='{value}'", if text.is_empty() { "" } else { " " }).expect("a String takes all");
        }
        text
    }

    /// Whether it leads to this host.
    pub(crate) fn is_local(&self) -> bool {
        let is_local = |host: &str| host.starts_with('/') || ["localhost", "127.0.0.1", "::1"].contains(&host);
        self.keyword("hostaddr").or(self.keyword("host")).is_some_and(is_local)
    }

    /// The same way as somebody else, who has a password.
    pub(crate) fn with_login(&self, user: &str, password: &str) -> Self {
        let mut keywords = self.keywords.clone();
        keywords.insert("user".to_owned(), user.to_owned());
        Self { keywords, password: Some(Password(password.to_owned())) }
    }

    /// A command for a shell: a program of PostgreSQL with `argument`.
    pub(crate) fn shell_command(&self, program: &str, argument: &str) -> String {
        let given = reach::shell_flags(&self.keywords, &[("host", "-h"), ("port", "-p"), ("user", "-U")]);
        format!("{program} {} {}", given.join(" "), reach::shell(argument))
    }

    /// What a program finds in its password file.
    pub(super) fn passfile(&self) -> Option<String> {
        let password = &self.password.as_ref()?.0;
        Some(format!("*:*:*:*:{}\n", password.replace('\\', "\\\\").replace(':', "\\:")))
    }

    pub(super) fn trust(&self) -> Trust {
        let mode = self.keywords.get("sslmode").and_then(|mode| Trust::of(mode)).unwrap_or(Trust::Anyone);
        // As libpq: who names an authority wants it to be the one.
        let has_roots = self.keywords.contains_key("sslrootcert");
        if mode == Trust::Anyone && has_roots && self.keywords.get("sslmode").is_some_and(|mode| mode == "require") {
            return Trust::Authority;
        }
        mode
    }

    pub(super) fn keyword(&self, key: &str) -> Option<&str> {
        self.keywords.get(key).map(String::as_str)
    }

    /// For our own session.
    pub(super) fn config(&self, database: &str, application: &str) -> postgres::Config {
        let mut config = postgres::Config::new();
        config.dbname(database).application_name(application).user(self.user()).keepalives(true);
        let seconds = self.keyword("connect_timeout").and_then(|text| text.parse().ok()).filter(|seconds| *seconds > 0);
        config.connect_timeout(seconds.map_or(CONNECT_TIMEOUT, Duration::from_secs));
        if let Some(host) = self.keyword("host") {
            config.host(host);
        }
        if let Some(address) = self.keyword("hostaddr").and_then(|text| text.parse().ok()) {
            config.hostaddr(address);
            if self.keyword("host").is_none() {
                config.host(self.keyword("hostaddr").unwrap_or_default());
            }
        }
        config.port(self.keyword("port").and_then(|port| port.parse().ok()).unwrap_or(PORT));
        if let Some(Password(password)) = &self.password {
            config.password(password);
        }
        if let Some(options) = self.keyword("options") {
            config.options(options);
        }
        config.ssl_mode(match self.keyword("sslmode") {
            Some("disable" | "allow") => SslMode::Disable,
            Some("require" | "verify-ca" | "verify-full") => SslMode::Require,
            _ => SslMode::Prefer,
        });
        match self.keyword("channel_binding") {
            Some("disable") => config.channel_binding(ChannelBinding::Disable),
            Some("require") => config.channel_binding(ChannelBinding::Require),
            _ => config.channel_binding(ChannelBinding::Prefer),
        };
        config
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "what tests write need not be durable")]
mod tests {
    use super::*;

    fn keywords(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    /// Shows D1.
    #[test]
    fn a_url_is_read_as_libpq_does() {
        for (url, expected, database) in [
            ("postgres://", &[][..], None),
            ("postgresql:///app", &[], Some("app")),
            (
                "postgres://bob@db.example:5433/app",
                &[("host", "db.example"), ("port", "5433"), ("user", "bob")],
                Some("app"),
            ),
            ("postgres://b%40b@[::1]:5433/a%20b", &[("host", "::1"), ("port", "5433"), ("user", "b@b")], Some("a b")),
            (
                "postgres:///app?host=/run/pg&sslmode=verify-full",
                &[("host", "/run/pg"), ("sslmode", "verify-full")],
                Some("app"),
            ),
            ("postgres://h?dbname=x&service=s&application_name=me", &[("host", "h"), ("service", "s")], Some("x")),
        ] {
            let expected = (keywords(expected), database.map(str::to_owned));
            assert_eq!(parse_url(url), Ok(expected), "{url}");
        }
        for (url, why) in [
            ("http://x", "expected a URL"),
            ("postgres://bob:secret@h/app", "`password_file`"),
            ("postgres://h/app?password=secret", "`password_file`"),
            ("postgres://h/app?sslmod=disable", "did you mean `sslmode`?"),
            ("postgres://h/app?sslmode=always", "`always` is no sslmode"),
            ("postgres://h:0/app", "`0` is no port"),
            ("postgres://a,b/app", "several hosts"),
            ("postgres://h/%ff", "UTF-8"),
        ] {
            let error = parse_url(url).unwrap_err();
            assert!(error.contains(why) && !error.contains("secret"), "{url}: {error}");
        }
    }

    /// Shows D1.
    #[test]
    fn a_service_is_found_by_its_section() {
        let text = "# ours\n[other]\nhost=o\n\n[app]\n host = db \nport=5433\npassword=p=w\n[app2]\nhost=x\n";
        let expected = keywords(&[("host", "db"), ("password", "p=w"), ("port", "5433")]);
        assert_eq!(find_service(text, "app"), Some(expected));
        assert_eq!(find_service(text, "ap"), None);
    }

    /// Shows D1.
    #[test]
    fn passwords_are_found_and_given_on_as_files_of_libpq_have_them() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pgpass");
        std::fs::write(&file, "#x:*:*:*:no\nother:*:*:*:no\ndb:5433:*:bob:a\\:b\\\\c\n*:*:*:*:last\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let of = |user| passfile(&file, &keywords(&[("host", "db"), ("port", "5433"), ("user", user)]));
        assert_eq!(of("bob"), None, "others may read it");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!((of("bob").as_deref(), of("eve").as_deref()), (Some("a:b\\c"), Some("last")));
        let route = Route { keywords: keywords(&[("host", "d'b")]), password: Some(Password("a:b\\c".to_owned())) };
        assert_eq!(route.passfile().as_deref(), Some("*:*:*:*:a\\:b\\\\c\n"));
        assert_eq!(route.conninfo("a\\b", "us"), "host='d\\'b' dbname='a\\\\b' application_name='us'");
        assert!(!format!("{route:?}").contains("a:b"));
    }
}
