//! Whether an app is up: a URL that answers, a command that succeeds. Asked
//! before a restore ends, and again when one that was interrupted is taken up.
//! What follows from the answer is the caller's business.
//!
//! The checks are plain values that go into a journal.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lifeboat_format::path::shown;
use percent_encoding::percent_decode_str;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::config::duration;
use crate::exec::{Tool, command_line, reason};
use crate::{Cancel, Error, ErrorKind, Result};

/// The answer that means healthy, unless another is asked for.
pub(crate) const STATUS: u16 = 200;
/// How long a check is tried, unless another time is asked for.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);
/// The pause between two attempts, unless another is asked for.
pub(crate) const EVERY: Duration = Duration::from_secs(1);
/// What is expected where a URL stands.
pub(crate) const URL_EXPECTED: &str = "expected http:// or https:// and a host";

/// How long one request may take.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// No attempt has less time: a timeout of nothing would mean none.
const ATTEMPT_MIN: Duration = Duration::from_millis(1);
/// How much of a token file is read.
const TOKEN_MAX_BYTES: u64 = 16 << 10;
/// How much of an answer is read.
const BODY_MAX_BYTES: u64 = 1 << 20;
/// How long a cancel may go unseen in a pause.
const NAP: Duration = Duration::from_millis(50);

/// One way to see that an app is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthCheck {
    /// A GET is answered as expected. Redirects are not followed.
    Http {
        /// Where to ask, by `http` or `https`.
        url: String,
        /// The status that means healthy.
        #[serde(default = "status")]
        status: u16,
        /// The file whose first line is sent as a bearer token, read whenever it is asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token_file: Option<PathBuf>,
        /// How long it is tried.
        #[serde(default = "timeout", rename = "timeout_ms", with = "duration::millis")]
        timeout: Duration,
        /// The pause between two attempts.
        #[serde(default = "every", rename = "every_ms", with = "duration::millis")]
        every: Duration,
    },
    /// A command ends with exit code 0.
    Command {
        /// The program and its arguments, no shell.
        command: Vec<String>,
        /// How long it is tried.
        #[serde(default = "timeout", rename = "timeout_ms", with = "duration::millis")]
        timeout: Duration,
        /// The pause between two attempts.
        #[serde(default = "every", rename = "every_ms", with = "duration::millis")]
        every: Duration,
    },
}

fn status() -> u16 {
    STATUS
}

fn timeout() -> Duration {
    TIMEOUT
}

fn every() -> Duration {
    EVERY
}

/// What one attempt found.
enum Attempt {
    Healthy,
    /// And why.
    Unhealthy(String),
    /// No answer in the time there was.
    TooSlow(String),
}

impl HealthCheck {
    /// The check as people know it, without a password.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Http { url, .. } => without_password(url),
            Self::Command { command, .. } => command_line(command),
        }
    }

    fn timeout(&self) -> Duration {
        match self {
            Self::Http { timeout, .. } | Self::Command { timeout, .. } => *timeout,
        }
    }

    fn every(&self) -> Duration {
        match self {
            Self::Http { every, .. } | Self::Command { every, .. } => *every,
        }
    }

    /// Asks once, for at most `left`. Only a cancel is an error.
    fn attempt(&self, left: Duration, cancel: &Cancel) -> Result<Attempt> {
        cancel.check()?;
        let left = left.max(ATTEMPT_MIN);
        match self {
            Self::Http { url, status, token_file, .. } => {
                Ok(request(url, *status, token_file.as_deref(), left.min(REQUEST_MAX)))
            }
            Self::Command { command, .. } => {
                let started = Instant::now();
                match Tool::new(command, left).run(Some(cancel)) {
                    Ok(ended) if ended.is_success() => Ok(Attempt::Healthy),
                    Ok(ended) => Ok(Attempt::Unhealthy(ended.describe())),
                    Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
                    Err(_) if started.elapsed() >= left => Ok(Attempt::TooSlow(no_end_within(left))),
                    Err(error) => Ok(Attempt::Unhealthy(error.to_string())),
                }
            }
        }
    }

    fn wait(&self, cancel: &Cancel) -> Result<()> {
        let started = Instant::now();
        let mut last = None;
        loop {
            let left = self.timeout().saturating_sub(started.elapsed());
            match self.attempt(left, cancel)? {
                Attempt::Healthy => return Ok(()),
                Attempt::Unhealthy(why) => last = Some(why),
                // The last attempt has hardly any time; what was said before tells more.
                Attempt::TooSlow(why) => last = last.or(Some(why)),
            }
            let left = self.timeout().saturating_sub(started.elapsed());
            pause(self.every().min(left), cancel)?;
            if started.elapsed() >= self.timeout() {
                return Err(self.did_not_come_up(&last.unwrap_or_default()));
            }
        }
    }

    fn did_not_come_up(&self, why: &str) -> Error {
        let timeout = duration::shown(self.timeout());
        let what = format!("health check {} did not come up within {timeout}: {why}", self.name());
        Error::new(ErrorKind::Failed, what).next("see the log of the app; if it only needs longer, raise `timeout`")
    }
}

/// Tries each check until it passes; each has its own time, from its turn on.
///
/// # Errors
/// When one has not passed in its time, with what it said last; or on cancel.
pub fn wait_until_healthy(checks: &[HealthCheck], cancel: &Cancel) -> Result<()> {
    checks.iter().try_for_each(|check| check.wait(cancel))
}

/// Whether all checks pass, each tried once. A cancelled one did not.
#[must_use]
pub fn is_healthy_now(checks: &[HealthCheck], cancel: &Cancel) -> bool {
    checks.iter().all(|check| matches!(check.attempt(check.timeout(), cancel), Ok(Attempt::Healthy)))
}

/// Whether a check can ask there.
pub(crate) fn is_usable(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
}

fn request(url: &str, wanted: u16, token_file: Option<&Path>, limit: Duration) -> Attempt {
    match send(url, "GET", token_file, limit) {
        Ok(answer) if answer.status().as_u16() == wanted => Attempt::Healthy,
        Ok(answer) => Attempt::Unhealthy(format!("answered {}", answer.status().as_u16())),
        Err(NoAnswer::TooSlow(why)) => Attempt::TooSlow(why),
        Err(NoAnswer::Other(why)) => Attempt::Unhealthy(why),
    }
}

/// Sends one request, `GET` or `POST` without a body, and reads the answer:
/// its status, and as much of its body as a check needs.
pub(crate) fn answer(
    url: &str,
    method: &str,
    token_file: Option<&Path>,
    limit: Duration,
) -> std::result::Result<(u16, String), String> {
    let mut answer = send(url, method, token_file, limit).map_err(|no| match no {
        NoAnswer::TooSlow(why) | NoAnswer::Other(why) => why,
    })?;
    let body = answer.body_mut().with_config().limit(BODY_MAX_BYTES).lossy_utf8(true).read_to_string();
    Ok((answer.status().as_u16(), body.map_err(|error| why(&error))?))
}

/// Why there is no answer.
enum NoAnswer {
    TooSlow(String),
    Other(String),
}

fn send(
    url: &str,
    method: &str,
    token_file: Option<&Path>,
    limit: Duration,
) -> std::result::Result<ureq::http::Response<ureq::Body>, NoAnswer> {
    if !is_usable(url) {
        return Err(NoAnswer::Other(URL_EXPECTED.to_owned()));
    }
    let token = token_file.map(token).transpose().map_err(NoAnswer::Other)?;
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        // What is asked is this very address, not what a proxy says about it.
        .proxy(None)
        .timeout_global(Some(limit))
        .user_agent(concat!("lifeboat/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls(url))
        .build();
    let agent = config.new_agent();
    let authorization = match (token, credentials(url)) {
        (Some(token), _) => Some(format!("Bearer {token}")),
        (None, Some(credentials)) => Some(format!("Basic {credentials}")),
        (None, None) => None,
    };
    let sent = if method == "POST" {
        let mut request = agent.post(url);
        if let Some(authorization) = authorization {
            request = request.header("Authorization", authorization);
        }
        request.send_empty()
    } else {
        let mut request = agent.get(url);
        if let Some(authorization) = authorization {
            request = request.header("Authorization", authorization);
        }
        request.call()
    };
    sent.map_err(|error| match error {
        ureq::Error::Timeout(_) => {
            NoAnswer::TooSlow(format!("no answer within {}", duration::shown(limit.max(ATTEMPT_MIN))))
        }
        error => NoAnswer::Other(why(&error)),
    })
}

/// The bearer token in a file: its first line. What is wrong is said without it.
pub(crate) fn token(file: &Path) -> std::result::Result<String, String> {
    let wrong = |what: &str| format!("the token file {} {what}", shown(file.as_os_str().as_encoded_bytes()));
    let mut bytes = Vec::new();
    // Never waits for the other end of a pipe.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened = rustix::fs::open(file, flags, Mode::empty()).map_err(io::Error::from);
    let read = opened.and_then(|fd| File::from(fd).take(TOKEN_MAX_BYTES).read_to_end(&mut bytes));
    read.map_err(|error| wrong(&format!("cannot be read: {}", reason(&error))))?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
    // RFC 6750, section 2.1: other bytes could end the header.
    let is_plain = |byte: &u8| byte.is_ascii_graphic();
    match std::str::from_utf8(line) {
        Ok("") => Err(wrong("is empty")),
        Ok(text) if line.iter().all(is_plain) => Ok(text.to_owned()),
        _ => Err(wrong("holds no token in its first line")),
    }
}

/// Trusts what the system trusts. The certificates are read for https only.
fn tls(url: &str) -> TlsConfig {
    let is_https = url.parse::<Uri>().is_ok_and(|uri| uri.scheme_str() == Some("https"));
    let trusted = if is_https { rustls_native_certs::load_native_certs().certs } else { Vec::new() };
    let trusted = trusted.iter().map(|cert| Certificate::from_der(cert.as_ref()).to_owned()).collect();
    TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(trusted)))
        // Without this, ureq panics unless someone has set a default for the whole process.
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .build()
}

fn why(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ureq::Error::Io(error) => reason(error),
        ureq::Error::HostNotFound => "host not found".to_owned(),
        // It holds the whole URL.
        ureq::Error::BadUri(_) => URL_EXPECTED.to_owned(),
        error => error.to_string(),
    }
}

fn no_end_within(limit: Duration) -> String {
    format!("did not end within {}", duration::shown(limit))
}

/// Whether the URL says who asks.
pub(crate) fn has_password(url: &str) -> bool {
    parts(url).1.is_some()
}

/// The URL without `user:password@`, and that. A password may hold an `@`, the
/// host may not: the last one parts them.
fn parts(url: &str) -> (String, Option<&str>) {
    let from = url.find("://").map_or(0, |at| at + 3);
    let end = url[from..].find(['/', '?', '#']).map_or(url.len(), |len| from + len);
    match url[from..end].rfind('@') {
        Some(len) => (format!("{}{}", &url[..from], &url[from + len + 1..]), Some(&url[from..from + len])),
        None => (url.to_owned(), None),
    }
}

/// The URL for people, without a password.
pub(crate) fn without_password(url: &str) -> String {
    shown(parts(url).0.as_bytes())
}

/// What `Authorization: Basic` says (RFC 7617) for the password in the URL.
fn credentials(url: &str) -> Option<String> {
    let (_, found) = parts(url);
    let plain: Vec<u8> = percent_decode_str(found?).collect();
    Some(BASE64_STANDARD.encode(plain))
}

fn pause(length: Duration, cancel: &Cancel) -> Result<()> {
    let started = Instant::now();
    loop {
        cancel.check()?;
        let left = length.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(NAP));
    }
}

#[cfg(test)]
mod tests {
    // The app is a listener here that gives one answer after the other.

    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
    const MOVED: &str = "HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n";
    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(300);
    const SOON: Duration = Duration::from_millis(20);

    fn http(url: &str, timeout: Duration) -> HealthCheck {
        HealthCheck::Http { url: url.to_owned(), status: 200, token_file: None, timeout, every: SOON }
    }

    fn command(script: &str, timeout: Duration) -> HealthCheck {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        HealthCheck::Command { command, timeout, every: SOON }
    }

    fn wait(check: &HealthCheck) -> Result<()> {
        wait_until_healthy(std::slice::from_ref(check), &Cancel::new())
    }

    /// Runs `work` while each of `answers` is given once, and gives the requests.
    /// What is not asked for is fetched here, so that the listener ends.
    fn serving(answers: &[&str], work: impl FnOnce(&str)) -> Vec<String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::scope(|scope| {
            let app = scope.spawn(|| {
                answers.iter().map(|answer| answer_one(&listener, answer)).filter(|asked| !asked.is_empty()).collect()
            });
            work(&format!("http://{address}/health"));
            while !app.is_finished() {
                drop(std::net::TcpStream::connect(address));
                std::thread::sleep(SOON);
            }
            app.join().unwrap()
        })
    }

    fn answer_one(listener: &TcpListener, answer: &str) -> String {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = Vec::new();
        let mut bytes = [0; 1024];
        while !asked.ends_with(b"\r\n\r\n") {
            match stream.read(&mut bytes) {
                Ok(read) if read > 0 => asked.extend_from_slice(&bytes[..read]),
                _ => break,
            }
        }
        stream.write_all(answer.as_bytes()).unwrap_or(());
        String::from_utf8_lossy(&asked).into_owned()
    }

    #[test]
    fn one_that_is_busy_at_first_is_waited_for() {
        let asked = serving(&[BUSY, BUSY, OK], |url| wait(&http(url, LONG)).unwrap());
        assert_eq!(asked.len(), 3);
        assert!(asked[0].starts_with("GET /health HTTP/1.1\r\n"), "{}", asked[0]);
    }

    #[test]
    fn another_status_can_be_the_healthy_one() {
        serving(&[OK, BUSY], |url| {
            let url = url.to_owned();
            wait(&HealthCheck::Http { url, status: 503, token_file: None, timeout: LONG, every: SOON }).unwrap();
        });
    }

    #[test]
    fn one_that_stays_busy_is_an_error_with_its_answer_and_without_the_password() {
        serving(&[BUSY; 200], |url| {
            let error = wait(&http(&url.replace("//", "//me:pass@word@"), SHORT)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Failed);
            assert_eq!(error.what(), format!("health check {url} did not come up within 300ms: answered 503"));
        });
    }

    #[test]
    fn a_password_in_the_url_is_sent_as_such() {
        let asked = serving(&[OK], |url| wait(&http(&url.replace("//", "//me:a%40b@"), LONG)).unwrap());
        assert!(asked[0].to_lowercase().contains("\r\nauthorization: basic bwu6yubi\r\n"), "{}", asked[0]);
        let asked = serving(&[OK], |url| wait(&http(url, LONG)).unwrap());
        assert!(!asked[0].to_lowercase().contains("authorization"), "{}", asked[0]);
    }

    #[test]
    fn the_first_line_of_a_token_file_is_sent_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let with_token = |url: &str| HealthCheck::Http {
            url: url.to_owned(),
            status: 200,
            token_file: Some(path.clone()),
            timeout: SHORT,
            every: SOON,
        };
        let error = wait(&with_token("http://127.0.0.1:1/")).unwrap_err();
        assert!(error.what().ends_with("/token cannot be read: No such file or directory"), "{error}");
        for (content, expected) in
            [("\nsecret", "/token is empty"), ("sec ret\n", "/token holds no token in its first line")]
        {
            write(&path, content);
            let error = wait(&with_token("http://127.0.0.1:1/")).unwrap_err();
            assert!(error.what().ends_with(expected) && !error.what().contains("ret"), "{error}");
        }
        write(&path, "  s3cr.et=\r\nmore\n");
        let asked = serving(&[OK], |url| wait(&with_token(url)).unwrap());
        assert!(asked[0].to_lowercase().contains("\r\nauthorization: bearer s3cr.et=\r\n"), "{}", asked[0]);
        assert!(!format!("{:?}", with_token("http://h/")).contains("s3cr"));
    }

    #[expect(clippy::disallowed_methods, reason = "test data need not survive a crash")]
    fn write(path: &Path, content: &str) {
        std::fs::write(path, content).unwrap();
    }

    #[test]
    fn a_redirect_is_an_answer_and_is_not_followed() {
        let asked = serving(&[MOVED], |url| {
            let Ok(Attempt::Unhealthy(why)) = http(url, LONG).attempt(LONG, &Cancel::new()) else { panic!("healthy") };
            assert_eq!(why, "answered 302");
        });
        assert_eq!(asked.len(), 1);
        let asked = serving(&[MOVED], |url| {
            let url = url.to_owned();
            let check = HealthCheck::Http { url, status: 302, token_file: None, timeout: LONG, every: SOON };
            assert!(is_healthy_now(&[check], &Cancel::new()));
        });
        assert_eq!(asked.len(), 1);
    }

    #[test]
    fn a_port_where_nobody_listens_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let error = wait(&http(&url, SHORT)).unwrap_err();
        assert!(error.what().ends_with("within 300ms: connection refused"), "{error}");
        // TLS is set up before anything is asked.
        let error = wait(&http(&url.replace("http", "https"), SHORT)).unwrap_err();
        assert!(error.what().ends_with("connection refused"), "{error}");
    }

    #[test]
    fn one_that_accepts_and_says_nothing_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = wait(&http(&format!("http://{}/", listener.local_addr().unwrap()), SHORT)).unwrap_err();
        assert!(error.what().contains("did not come up within 300ms: no answer within "), "{error}");
    }

    #[test]
    fn one_that_speaks_no_tls_is_an_error_and_no_panic() {
        serving(&["plain text"; 200], |url| {
            let error = wait(&http(&url.replace("http", "https"), SHORT)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Failed);
        });
    }

    #[test]
    fn a_command_is_tried_until_it_succeeds() {
        let dir = tempfile::tempdir().unwrap();
        let script = format!("echo x >> {0}/log; test $(wc -l < {0}/log) -ge 3", dir.path().display());
        wait(&command(&script, LONG)).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("log")).unwrap().lines().count(), 3);
        let error = wait(&command("echo not yet; exit 1", SHORT)).unwrap_err();
        assert!(error.what().starts_with("health check sh -c "), "{error}");
        assert!(error.what().ends_with("did not come up within 300ms: exit code 1: not yet"), "{error}");
        let error = wait(&command("sleep 60", SHORT)).unwrap_err();
        assert!(error.what().contains("within 300ms: did not end within "), "{error}");
    }

    #[test]
    fn the_first_check_that_fails_is_named_and_each_has_its_own_time() {
        let checks = [command("true", LONG), command("exit 2", SHORT), command("exit 3", SHORT)];
        let error = wait_until_healthy(&checks, &Cancel::new()).unwrap_err();
        assert!(error.what().ends_with("exit code 2"), "{error}");
        let checks = [command("sleep 0.3", Duration::from_secs(10)), command("true", SHORT)];
        wait_until_healthy(&checks, &Cancel::new()).unwrap();
        wait_until_healthy(&[], &Cancel::new()).unwrap();
    }

    #[test]
    fn one_attempt_is_enough_to_know_how_it_is_now() {
        assert!(is_healthy_now(&[], &Cancel::new()));
        assert!(is_healthy_now(&[command("true", LONG)], &Cancel::new()));
        let started = Instant::now();
        assert!(!is_healthy_now(&[command("true", LONG), command("false", LONG)], &Cancel::new()));
        assert!(started.elapsed() < LONG);
    }

    #[test]
    fn cancel_ends_the_wait() {
        let cancel = Cancel::new();
        cancel.set();
        let started = Instant::now();
        for check in [http("http://127.0.0.1:1/", LONG), command("sleep 60", LONG)] {
            let error = wait_until_healthy(std::slice::from_ref(&check), &cancel).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Cancelled);
            assert!(!is_healthy_now(&[check], &cancel));
        }
        assert_eq!(pause(LONG, &cancel).unwrap_err().kind(), ErrorKind::Cancelled);
        assert!(started.elapsed() < LONG);
    }

    #[test]
    fn a_url_is_shown_without_its_password() {
        for (url, shown) in [
            ("http://me:secret@host:80/a@b", "http://host:80/a@b"),
            ("http://me:se@cret@host", "http://host"),
            ("me:secret@host/x", "host/x"),
            ("https://host/?q=a@b", "https://host/?q=a@b"),
            ("http://host/\u{1b}", "http://host/\\x1b"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }

    #[test]
    fn only_http_with_a_host_can_be_asked() {
        for good in ["http://localhost:5050/health", "https://[::1]/", "http://me:secret@host"] {
            assert!(is_usable(good), "{good}");
        }
        for bad in ["", "localhost:5050", "/health", "ftp://host/", "http://", "http:///x", "http://a b/", "file:///x"]
        {
            assert!(!is_usable(bad), "{bad}");
        }
    }

    #[test]
    fn a_check_comes_back_from_a_journal_as_it_was() {
        for check in [http("http://host/", LONG), command("true", SHORT)] {
            let json = serde_json::to_string(&check).unwrap();
            assert_eq!(serde_json::from_str::<HealthCheck>(&json).unwrap(), check, "{json}");
        }
        let check: HealthCheck = serde_json::from_str(r#"{"http":{"url":"http://host/"}}"#).unwrap();
        let url = "http://host/".to_owned();
        assert_eq!(check, HealthCheck::Http { url, status: 200, token_file: None, timeout: TIMEOUT, every: EVERY });
    }
}
