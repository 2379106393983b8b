//! An app whose databases are on a server: backed up, changed, restored.

use super::cluster::{Cluster, Role, ident, literal};
use crate::env::{Cmd, Run, Running, TestEnv};

/// Such an app, `shop`, with one source `db`, and its archive `shop.tar.zst`.
pub(crate) struct Served<'c> {
    pub(crate) cluster: &'c Cluster,
    pub(crate) env: TestEnv,
    /// Who backs up and restores.
    pub(crate) user: String,
    password: Option<String>,
    pub(crate) databases: Vec<String>,
}

impl<'c> Served<'c> {
    /// One that is backed up and restored by a superuser of its own.
    pub(crate) fn new(cluster: &'c Cluster, databases: &[&str]) -> Self {
        let user = cluster.role("operator", "LOGIN SUPERUSER").name;
        Self::make(cluster, databases, user, None)
    }

    /// The same by an ordinary role, which has to give its password.
    pub(crate) fn by(cluster: &'c Cluster, role: &Role, databases: &[&str]) -> Self {
        Self::make(cluster, databases, role.name.clone(), Some(role.password.clone()))
    }

    fn make(cluster: &'c Cluster, databases: &[&str], user: String, password: Option<String>) -> Self {
        let databases = databases.iter().map(|&name| name.to_owned()).collect();
        let served = Self { cluster, env: TestEnv::new(), user, password, databases };
        if let Some(password) = &served.password {
            served.env.write("password", format!("{password}\n"));
            served.env.set_mode("password", 0o600);
        }
        served.configure("");
        served
    }

    /// Writes `lifeboat.yaml`, with `more` below the app.
    pub(crate) fn configure(&self, more: &str) {
        self.configure_source("", more);
    }

    /// The same, with `source` below the source too.
    pub(crate) fn configure_source(&self, source: &str, more: &str) {
        let text = format!("apps:\n  shop:\n    sources:\n      db:\n{}{more}", self.source(source));
        self.env.write("lifeboat.yaml", text);
        self.env.set_mode("lifeboat.yaml", 0o600);
    }

    /// The source as `lifeboat.yaml` has it, below its name.
    pub(crate) fn source(&self, more: &str) -> String {
        let json = |text: &str| serde_json::to_string(text).unwrap();
        let databases: Vec<String> = self.databases.iter().map(|name| json(name)).collect();
        let (url, password) = match &self.password {
            Some(_) => {
                let file = json(self.env.path("password").to_str().unwrap());
                (self.cluster.url(&self.user, "postgres"), format!("          password_file: {file}\n"))
            }
            None => (self.cluster.socket_url(&self.user, "postgres"), String::new()),
        };
        let (url, databases) = (json(&url), databases.join(", "));
        format!("        postgres:\n          url: {url}\n{password}          databases: [{databases}]\n{more}")
    }

    /// Makes `shop.tar.zst` anew.
    pub(crate) fn backup(&self) {
        std::fs::remove_file(self.env.path("shop.tar.zst")).unwrap_or(());
        self.env.lifeboat(["backup", "shop", "-o", "shop.tar.zst"]).ok();
    }

    /// Keeps the archive as `own.tar.zst`, from which others are made.
    pub(crate) fn keep_archive(&self) {
        self.env.run("cp", ["shop.tar.zst", "own.tar.zst"]).ok();
    }

    /// `restore shop.tar.zst` with further options.
    pub(crate) fn restore(&self, options: &[&str]) -> Run {
        self.command(options).run()
    }

    /// The same, agreeing to what it would ask.
    pub(crate) fn force(&self, options: &[&str]) -> Run {
        self.command(&[&["--force"], options].concat()).run()
    }

    /// The same, started.
    pub(crate) fn start(&self, options: &[&str]) -> Running {
        self.command(&[&["--force"], options].concat()).start()
    }

    fn command(&self, options: &[&str]) -> Cmd {
        self.env.command(["restore", "shop.tar.zst"].iter().chain(options))
    }

    /// The only database.
    pub(crate) fn database(&self) -> &str {
        &self.databases[0]
    }

    pub(crate) fn sql(&self, sql: &str) -> String {
        self.cluster.sql(self.database(), sql)
    }

    /// Whatever is called like a database of the app and is not one: staged, or replaced.
    pub(crate) fn others(&self) -> Vec<String> {
        let all = self.cluster.databases().into_iter();
        let is_other = |name: &String| {
            let made_from = name.split_once("__lb_").or_else(|| name.split_once("__was_")).map(|(own, _)| own);
            made_from.is_some_and(|own| self.databases.iter().any(|database| database.starts_with(own)))
        };
        all.filter(is_other).collect()
    }

    /// Nothing of a restore is left: no database, no role, no journal, no stage, no session after five seconds.
    pub(crate) fn assert_nothing_left(&self, what: &str) {
        assert_eq!(self.others(), Vec::<String>::new(), "{what}");
        self.assert_nobody_left(what);
        let names = self.all_names();
        let is_left = |name: &&String| name.contains("journal/") || name.contains(".lifeboat-");
        assert_eq!(names.iter().find(is_left), None, "{what}");
    }

    /// No session and no role of ours is on the server after five seconds.
    pub(crate) fn assert_nobody_left(&self, what: &str) {
        let sessions = format!(
            "SELECT string_agg(concat_ws(' ', application_name, datname, state, query), '; ') FROM pg_stat_activity \
             WHERE application_name LIKE 'lifeboat-%' AND usename = {}",
            literal(&self.user)
        );
        let mut found = String::new();
        for _ in 0..50 {
            found = self.cluster.sql("postgres", &sessions);
            if found.is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        assert_eq!(found, "", "{what}");
        let of_databases = "SELECT string_agg(rolname, ', ') FROM pg_roles r WHERE rolname LIKE 'lifeboat\\_\\_lb\\_%' \
             AND EXISTS (SELECT FROM pg_auth_members m JOIN pg_database d ON d.datdba = m.roleid WHERE m.member = r.oid \
             AND d.datname = ANY(ARRAY[NAMES]::text[]))";
        let names: Vec<String> = self.databases.iter().map(|name| literal(name)).collect();
        assert_eq!(self.cluster.sql("postgres", &of_databases.replace("NAMES", &names.join(", "))), "", "{what}");
    }

    /// The names of everything in the working directory and the data directory.
    pub(crate) fn all_names(&self) -> Vec<String> {
        let root = self.env.data_dir();
        let root = root.parent().unwrap().to_str().unwrap();
        let found = self.env.run("find", [root, "-mindepth", "1", "-not", "-path", "*/home*"]).ok().stdout;
        found.lines().map(str::to_owned).collect()
    }

    /// Who may connect to the databases of the app: whether all allow it.
    pub(crate) fn assert_open(&self, what: &str) {
        for name in &self.databases {
            let sql = format!("SELECT datallowconn FROM pg_database WHERE datname = {}", literal(name));
            assert_eq!(self.cluster.sql("postgres", &sql), "t", "{what}: {name}");
        }
    }

    /// Drops the only database.
    pub(crate) fn drop_it(&self) {
        self.cluster.drop_db(self.database());
    }

    /// Makes the only database anew, as `CREATE DATABASE … options` does.
    pub(crate) fn make_it(&self, options: &str) {
        self.drop_it();
        self.cluster.sql("postgres", &format!("CREATE DATABASE {} {options}", ident(self.database())));
    }
}
