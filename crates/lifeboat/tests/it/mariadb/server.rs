//! A private MariaDB server for tests: one for each test process, which all
//! tests share, by a socket in a temporary directory.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use lifeboat_store::testing::{can_run, is_root};

use crate::env::{Cmd, TestEnv};

/// Starts a server, and tells that it has. When its input ends, which is when the test process
/// does, the server goes and `$1` with it.
const GUARD: &str = r#"
root=$1 log=$2
shift 2
"$@" </dev/null >"$log" 2>&1 &
server=$!
echo $server
exec >/dev/null 2>&1
read -r _
kill -KILL $server
wait $server
rm -rf "$root"
"#;

/// A password that is odd in every notation it passes through.
pub(crate) const PASSWORD: &str = "p4ss'w\"ord\\ #;=canary";

/// The server, with all that belongs to it in a temporary directory.
pub(crate) struct Server {
    env: TestEnv,
    socket: PathBuf,
    /// It lives as long as its input is open.
    _guard: Child,
}

/// `name` as an identifier in SQL.
pub(crate) fn ident(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// `text` as a part of a URL.
fn in_url(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

impl Server {
    /// The server, which other tests use too: databases and users are to have names of their own.
    /// `None` where there is none, and `test` is skipped.
    pub(crate) fn shared(test: &str) -> Option<&'static Self> {
        static SHARED: OnceLock<Mutex<Option<&'static Server>>> = OnceLock::new();
        if !can_run(test, &["mariadbd", "mariadb-install-db", "mariadb", "mariadb-dump"]) {
            return None;
        }
        let mut shared = SHARED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        Some(shared.get_or_insert_with(|| Box::leak(Box::new(Self::start()))))
    }

    fn start() -> Self {
        let env = TestEnv::new();
        let dir = env.mkdir("server");
        let user = if is_root() { vec!["--user=mysql"] } else { Vec::new() };
        if is_root() {
            env.run("chown", ["mysql", text(&dir)]).ok();
        }
        let data = format!("--datadir={}", text(&dir.join("data")));
        let usual = ["--no-defaults", &data, "--auth-root-authentication-method=normal", "--skip-test-db"];
        env.run("mariadb-install-db", usual.iter().chain(&user)).ok();
        let (socket, root) = (dir.join("s"), env.data_dir());
        let at = format!("--socket={}", text(&socket));
        let pid = format!("--pid-file={}", text(&dir.join("pid")));
        let args = ["--no-defaults", &data, &at, &pid, "--skip-networking", "--innodb-flush-log-at-trx-commit=0"];
        let more = ["--innodb-buffer-pool-size=32M", "--event-scheduler=ON", "--sql-mode="];
        let root = root.parent().expect("it is below the root");
        let mut guard = env.program("sh", ["-c", GUARD, "guard", text(root), text(&dir.join("log"))]).into_command();
        // In a group of its own, so that a Ctrl-C at the test's terminal does not end the guard.
        guard.arg("mariadbd").args(args).args(more).args(user).process_group(0);
        let mut guard = guard.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a shell can be started");
        let mut told = String::new();
        BufReader::new(guard.stdout.as_mut().expect("piped")).read_line(&mut told).expect("the guard tells it");
        let server = Self { env, socket, _guard: guard };
        for _ in 0..1200 {
            if server.client("", "SELECT 1").run().exit_code() == 0 {
                return server;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("MariaDB does not start: {}", String::from_utf8_lossy(&server.env.read("server/log")));
    }

    /// The client, with a script as its input, in a database.
    pub(crate) fn client(&self, database: &str, script: &str) -> Cmd {
        let at = format!("--socket={}", text(&self.socket));
        let args = ["--no-defaults", &at, "-uroot", "-N", "-B", "--default-character-set=utf8mb4", database];
        self.env.program("mariadb", args.iter().filter(|arg| !arg.is_empty())).input(script)
    }

    /// Runs a script in a database, and gives back what it answers.
    pub(crate) fn sql(&self, database: &str, script: &str) -> String {
        self.client(database, script).run().ok().stdout.trim_end().to_owned()
    }

    /// A new database with a name that no other test has.
    pub(crate) fn create_db(&self, stem: &str) -> String {
        let name = self.unique(stem);
        self.sql("", &format!("CREATE DATABASE {}", ident(&name)));
        name
    }

    /// A name that no other test has.
    pub(crate) fn unique(&self, stem: &str) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(1);
        format!("{stem} {}", COUNT.fetch_add(1, Ordering::Relaxed))
    }

    /// A new user with [`PASSWORD`] and `rights`, such as `ALL ON *.*`.
    pub(crate) fn user(&self, stem: &str, rights: &str) -> String {
        let name = self.unique(stem);
        let password = PASSWORD.replace('\\', "\\\\").replace('\'', "\\'");
        self.sql(
            "",
            &format!("CREATE USER '{name}'@localhost IDENTIFIED BY '{password}'; GRANT {rights} TO '{name}'@localhost"),
        );
        name
    }

    /// The URL of the server.
    pub(crate) fn url(&self, user: &str) -> String {
        format!("mariadb://{}@/?socket={}", in_url(user), in_url(text(&self.socket)))
    }

    /// All of a database as SQL, without what says its name or the time.
    pub(crate) fn fingerprint(&self, database: &str) -> String {
        let at = format!("--socket={}", text(&self.socket));
        let how = ["--no-defaults", &at, "-uroot", "--skip-comments", "--routines", "--triggers", "--events"];
        let what = ["--hex-blob", "--order-by-primary", "--default-character-set=utf8mb4", "--dump-history"];
        let dump = self.env.run("mariadb-dump", how.iter().chain(&what).copied().chain(["--", database])).ok().stdout;
        let of = self.sql("", &format!(
            "SELECT DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = '{}'",
            database.replace('\'', "''")
        ));
        assert!(!of.is_empty(), "there is no {database}");
        format!("{of}\n{}", dump.replace(&ident(database), "`the database`"))
    }

    /// The databases, without the server's own.
    pub(crate) fn has(&self, database: &str) -> bool {
        self.sql("", "SHOW DATABASES").lines().any(|name| name == database)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary names are UTF-8")
}
