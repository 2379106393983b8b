//! Private PostgreSQL servers for tests: one for each version and test process,
//! which all tests share, and others for tests that stop or break theirs.
//!
//! ```ignore
//! let Some(cluster) = Cluster::shared("the_name_of_the_test") else { return };
//! let owner = cluster.role("owner", "LOGIN");
//! let database = cluster.create_db("app", &format!("OWNER {}", ident(&owner.name)));
//! cluster.sql(&database, "CREATE TABLE t(x int)");
//! ```
//!
//! Who comes through the socket is trusted; by TCP passwords are asked for.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use lifeboat_store::testing::{can_run, is_root, skip};

use crate::env::{Cmd, TestEnv};
use crate::fidelity::Mount;

/// Where Debian keeps PostgreSQL's programs, one folder a version.
const INSTALLED: &str = "/usr/lib/postgresql";

/// Starts a server, tells its pid, and ends it by the signal that a line names. When its input
/// ends, which is when the test process does, the server goes and `$1` with it.
const GUARD: &str = r#"
root=$1 log=$2
shift 2
"$@" </dev/null >"$log" 2>&1 &
server=$!
echo $server
exec >/dev/null 2>&1
read -r signal
kill -"${signal:-QUIT}" $server
wait $server
[ -n "$signal" ] || rm -rf "$root"
"#;

const SETTINGS: &[&str] = &[
    "listen_addresses=127.0.0.1",
    "fsync=off",
    "full_page_writes=off",
    "max_connections=200",
    "max_locks_per_transaction=128",
    "max_prepared_transactions=20",
    "wal_level=logical",
    "shared_buffers=64MB",
    "timezone=UTC",
    "log_line_prefix=%m [%p] %u@%d ",
];

/// A version of PostgreSQL that is installed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: u32,
    /// Where its programs are.
    pub(crate) bin: PathBuf,
}

/// The versions whose server is installed, oldest first.
pub(crate) fn versions() -> Vec<Version> {
    let folders = std::fs::read_dir(INSTALLED).into_iter().flatten().flatten();
    let version = |entry: std::fs::DirEntry| {
        let (major, bin) = (entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"));
        bin.join("initdb").is_file().then_some(Version { major, bin })
    };
    let mut found: Vec<Version> = folders.filter_map(version).collect();
    found.sort();
    found
}

/// The version that `test` runs with unless it wants another.
fn newest(test: &str) -> Option<Version> {
    let found = versions().pop();
    if found.is_none() {
        skip(test, &format!("needs a PostgreSQL server below {INSTALLED}"));
    }
    found.filter(|_| !is_root() || can_run(test, &["setpriv"]))
}

/// `name` as an identifier in SQL.
pub(crate) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` as a string in SQL.
pub(crate) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// `text` as a part of a URL.
fn in_url(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// A name that begins with `stem` and that no other test of this process has.
fn unique(stem: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(1);
    format!("{stem} {}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A role with its password.
pub(crate) struct Role {
    pub(crate) name: String,
    pub(crate) password: String,
}

/// A server of its own, with all that belongs to it in a temporary directory.
pub(crate) struct Cluster {
    version: Version,
    env: TestEnv,
    settings: Vec<String>,
    running: Mutex<Option<Server>>,
    /// Where it listened last, and listens again where that is free.
    last_port: Mutex<Option<u16>>,
}

/// The server while it runs.
struct Server {
    guard: Child,
    pid: u32,
    port: u16,
}

impl Cluster {
    /// The server of the newest version, which other tests use too: its databases and roles are
    /// to have names of their own. `None` where there is none, and `test` is skipped.
    pub(crate) fn shared(test: &str) -> Option<&'static Self> {
        newest(test).map(Self::shared_of)
    }

    /// The same of a version out of [`versions`].
    pub(crate) fn shared_of(version: Version) -> &'static Self {
        static SHARED: OnceLock<Mutex<BTreeMap<u32, &'static Cluster>>> = OnceLock::new();
        let shared = SHARED.get_or_init(Mutex::default);
        // A server that did not start is tried again by the next test.
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.entry(version.major).or_insert_with(|| Box::leak(Box::new(Self::make(version, &[]))))
    }

    /// A server that `test` alone uses, with further settings (`NAME=VALUE`).
    pub(crate) fn own(test: &str, settings: &[&str]) -> Option<Self> {
        newest(test).map(|version| Self::make(version, settings))
    }

    /// A new server, started.
    fn make(version: Version, settings: &[&str]) -> Self {
        let settings = SETTINGS.iter().chain(settings).map(|&setting| setting.to_owned()).collect();
        let cluster =
            Self { version, env: TestEnv::new(), settings, running: Mutex::default(), last_port: Mutex::default() };
        cluster.server_dir("server");
        let data = cluster.data();
        let how = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "-D", path(&data)];
        let initdb = cluster.program("initdb");
        cluster.as_server_user(&initdb, &how).run().ok();
        let rules = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        cluster.env.write("server/data/pg_hba.conf", rules);
        cluster.start();
        cluster
    }

    /// Makes a directory that the server may write in.
    fn server_dir(&self, name: &str) -> PathBuf {
        let dir = self.env.mkdir(name);
        if is_root() {
            self.env.run("chown", ["postgres:postgres", path(&dir)]).ok();
        }
        dir
    }

    /// A program, run as who may run servers; root may not.
    fn as_server_user(&self, program: &str, args: &[&str]) -> Cmd {
        if !is_root() {
            return self.env.program(program, args);
        }
        let user = ["--reuid=postgres", "--regid=postgres", "--clear-groups", "--", program];
        self.env.program("setpriv", user.iter().chain(args))
    }

    /// Starts the server after [`Cluster::stop`].
    pub(crate) fn start(&self) {
        let mut running = self.running.lock().expect("no test panicked here");
        assert!(running.is_none(), "it runs already");
        for _ in 0..5 {
            *running = self.try_start();
            if running.is_some() {
                return;
            }
        }
        panic!("PostgreSQL does not start: {}", self.log());
    }

    fn try_start(&self) -> Option<Server> {
        // Somebody else may take the port before the server does: then another is tried.
        let free = || std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
        let port = self.last_port.lock().expect("no test panicked here").take().unwrap_or_else(free);
        let dir = self.socket_dir();
        let root = self.env.data_dir().parent().expect("it is below the root").to_owned();
        let postgres = self.program("postgres");
        let (port_text, data) = (port.to_string(), dir.join("data"));
        let mut args = vec!["-p", &port_text, "-D", path(&data), "-k", path(&dir)];
        args.extend(self.settings.iter().flat_map(|setting| ["-c", setting]));
        let server = self.as_server_user(&postgres, &args).into_command();
        let mut guard = self.env.program("sh", ["-c", GUARD, "guard", path(&root), path(&dir.join("log"))]);
        guard = guard.env("LC_ALL", "C.UTF-8");
        let mut guard = guard.into_command();
        // In a group of its own, so that a Ctrl-C at the test's terminal does not end the guard.
        guard.arg(server.get_program()).args(server.get_args()).process_group(0);
        guard.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut guard = guard.spawn().expect("a shell can be started");
        let mut pid = String::new();
        BufReader::new(guard.stdout.as_mut().expect("piped")).read_line(&mut pid).expect("the guard tells it");
        let pid = pid.trim().parse().expect("the guard tells a pid");
        let server = Server { guard, pid, port };
        if self.gets_ready(pid) {
            *self.last_port.lock().expect("no test panicked here") = Some(port);
            return Some(server);
        }
        server.end(Some("QUIT"));
        None
    }

    /// Waits until the server with that pid takes connections; false where it ends before.
    fn gets_ready(&self, pid: u32) -> bool {
        for _ in 0..6000 {
            let told = std::fs::read_to_string(self.socket_dir().join("data/postmaster.pid")).unwrap_or_default();
            let mut lines = told.lines();
            if lines.next() == Some(&pid.to_string())
                && lines.nth(6).is_some_and(|state| ["ready", "standby"].contains(&state.trim()))
            {
                return true;
            }
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            if status.contains("State:\tZ") || status.is_empty() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("a minute went by before PostgreSQL was ready: {}", self.log());
    }

    /// Stops the server by a signal: `INT` ends all sessions and is clean, `QUIT` and `KILL` are a crash.
    pub(crate) fn stop(&self, signal: &str) {
        let server = self.running.lock().expect("no test panicked here").take();
        server.expect("it runs").end(Some(signal));
    }

    /// Has the server, which is stopped, wait for another's changes as soon as it starts.
    pub(crate) fn become_standby(&self) {
        self.env.write("server/data/standby.signal", "");
    }

    /// The pid of the server.
    pub(crate) fn pid(&self) -> u32 {
        self.running.lock().expect("no test panicked here").as_ref().expect("it runs").pid
    }

    pub(crate) fn port(&self) -> u16 {
        self.running.lock().expect("no test panicked here").as_ref().expect("it runs").port
    }

    /// What the server wrote into its log since it started.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.socket_dir().join("log")).unwrap_or_default()
    }

    /// A place for a test's files, gone when the server is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.env.path(name)
    }

    /// The directory that the server's socket is in.
    pub(crate) fn socket_dir(&self) -> PathBuf {
        self.env.path("server")
    }

    /// The directory of the server's data.
    pub(crate) fn data(&self) -> PathBuf {
        self.socket_dir().join("data")
    }

    /// The path of one of PostgreSQL's programs, of the server's version.
    pub(crate) fn program(&self, name: &str) -> String {
        path(&self.version.bin.join(name)).to_owned()
    }

    /// One of PostgreSQL's client programs, as superuser in that database.
    pub(crate) fn client<'a>(&self, name: &str, database: &str, args: impl IntoIterator<Item = &'a str>) -> Cmd {
        self.env.program(&self.program(name), args).with_server(self, database)
    }

    /// psql as superuser in that database, which is to run `sql`.
    pub(crate) fn psql<'a>(&self, database: &str, sql: &str, more: impl IntoIterator<Item = &'a str>) -> Cmd {
        let usual = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"];
        self.client("psql", database, usual.into_iter().chain(more)).input(sql)
    }

    /// What `sql` gives in that database: a line a row, `|` between columns.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> String {
        self.psql(database, sql, []).run().ok().stdout.trim_end().to_owned()
    }

    /// Makes a database, whose name begins with `stem`, by `CREATE DATABASE … options`.
    pub(crate) fn create_db(&self, stem: &str, options: &str) -> String {
        let name = unique(stem);
        self.sql("postgres", &format!("CREATE DATABASE {} {options}", ident(&name)));
        name
    }

    /// Makes a tablespace, whose name begins with `stem`.
    pub(crate) fn tablespace(&self, stem: &str) -> String {
        let name = unique(stem);
        let dir = self.server_dir(&name);
        self.sql("postgres", &format!("CREATE TABLESPACE {} LOCATION {}", ident(&name), literal(path(&dir))));
        name
    }

    /// Mounts what `args` say at `name`, below which tablespaces can be.
    pub(crate) fn mount(&self, name: &str, args: &[&str]) -> Mount {
        Mount::new(&self.env, name, args)
    }

    /// Removes a database, whoever is connected.
    pub(crate) fn drop_db(&self, name: &str) {
        self.sql("postgres", &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", ident(name)));
    }

    /// The databases of the server, without its own, sorted.
    pub(crate) fn databases(&self) -> Vec<String> {
        let query = "SELECT datname FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1')
            ORDER BY datname COLLATE \"C\"";
        self.sql("postgres", query).lines().map(str::to_owned).collect()
    }

    /// Makes a role, whose name begins with `stem`, with a password and `options` (`LOGIN CREATEDB`).
    pub(crate) fn role(&self, stem: &str, options: &str) -> Role {
        let name = unique(stem);
        let password = format!("p4ss'word of {name}");
        let sql = format!("CREATE ROLE {} {options} PASSWORD {}", ident(&name), literal(&password));
        self.sql("postgres", &sql);
        Role { name, password }
    }

    /// The URL of a database by TCP, where a password is asked for.
    pub(crate) fn url(&self, role: &str, database: &str) -> String {
        format!("postgres://{}@127.0.0.1:{}/{}", in_url(role), self.port(), in_url(database))
    }

    /// The URL of a database by the socket, where none is.
    pub(crate) fn socket_url(&self, role: &str, database: &str) -> String {
        let (role, dir, port) = (in_url(role), in_url(path(&self.socket_dir())), self.port());
        format!("postgres://{role}@/{}?host={dir}&port={port}", in_url(database))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(server) = self.running.lock().unwrap_or_else(PoisonError::into_inner).take() {
            server.end(None);
        }
    }
}

impl Server {
    /// Ends it by a signal; without one, for ever.
    fn end(mut self, signal: Option<&str>) {
        let mut input = self.guard.stdin.take().expect("piped");
        if let Some(signal) = signal {
            writeln!(input, "{signal}").expect("the guard listens");
        }
        drop(input);
        self.guard.wait().expect("our own child");
    }
}

impl Cmd {
    /// Tells a client program which server and database it is for, and that the superuser asks.
    pub(crate) fn with_server(self, cluster: &Cluster, database: &str) -> Self {
        let port = cluster.port().to_string();
        let names = self.env("PGHOST", cluster.socket_dir()).env("PGPORT", port).env("PGUSER", "postgres");
        names.env("PGDATABASE", database).env("PGCLIENTENCODING", "UTF8")
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary names are UTF-8")
}
