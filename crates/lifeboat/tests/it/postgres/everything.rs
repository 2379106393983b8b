//! An app of files, SQLite databases and two databases of a server, which all
//! change in one restore: whatever call fails and whenever it is killed, they are
//! wholly old or wholly new.

use lifeboat_store::testing::can_run;

use super::cluster::{Cluster, ident, literal};
use crate::in_place::databases::application_with;
use crate::in_place::sweep::databases::set_up_with;
use crate::in_place::sweep::{Beside, Scene, kill_the_recovery, kill_the_rollback, play_in};

const OF: &str = " with databases of a server";

/// How many cases each enumeration plays under `./check`: a case takes many seconds.
const PLAYED: usize = 4;

/// Two databases that are live, and what they are made anew from.
struct Databases {
    cluster: &'static Cluster,
    operator: String,
    live: [String; 2],
    pristine: [String; 2],
    old: String,
    new: String,
}

impl Databases {
    fn new(cluster: &'static Cluster) -> Self {
        let operator = cluster.role("operator", "LOGIN SUPERUSER").name;
        let live = ["all first", "all second"].map(|stem| cluster.create_db(stem, ""));
        for name in &live {
            let sql = "CREATE TABLE state (what text, g int); INSERT INTO state SELECT 'backed up', g FROM generate_series(1, 50) g";
            cluster.sql(name, sql);
        }
        let databases =
            Self { cluster, operator, pristine: live.clone(), live, old: String::new(), new: String::new() };
        databases.dress();
        databases
    }

    /// The source as `lifeboat.yaml` has it.
    fn source(&self) -> String {
        let json = |text: &str| serde_json::to_string(text).unwrap();
        let [first, second] = self.live.each_ref().map(|name| json(name));
        let url = json(&self.cluster.socket_url(&self.operator, "postgres"));
        format!("      db: {{ postgres: {{ url: {url}, databases: [{first}, {second}] }} }}\n")
    }

    fn dress(&self) {
        for name in self.live.each_ref().map(|name| ident(name)) {
            let sql = format!(
                "ALTER DATABASE {name} CONNECTION LIMIT 5; COMMENT ON DATABASE {name} IS 'ours'; \
                 ALTER DATABASE {name} SET work_mem = '5MB'; REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC"
            );
            self.cluster.sql("postgres", &sql);
        }
    }

    /// They are used after the backup; what they are then is what a restore begins with.
    fn change(&self) {
        for (number, name) in self.live.iter().enumerate() {
            let sql = format!("UPDATE state SET what = 'live'; CREATE TABLE since_{number} (x int)");
            self.cluster.sql(name, &sql);
        }
    }

    fn keep_pristine(&mut self) {
        for (live, pristine) in self.live.iter().zip(&mut self.pristine) {
            *pristine = self.cluster.create_db("pristine", &format!("TEMPLATE {}", ident(live)));
        }
        self.old = self.state();
    }

    /// What they are and hold.
    fn state(&self) -> String {
        let list = self.live.each_ref().map(|name| literal(name)).join(", ");
        let attributes = format!(
            "SELECT d.datname, datallowconn, datconnlimit, datacl, shobj_description(d.oid, 'pg_database'), \
             (SELECT setconfig FROM pg_db_role_setting WHERE setdatabase = d.oid) \
             FROM pg_database d WHERE datname IN ({list}) ORDER BY 1"
        );
        let mut state = self.cluster.sql("postgres", &attributes);
        for name in &self.live {
            let content = "SELECT what, count(*), sum(g) FROM state GROUP BY 1; \
                           SELECT string_agg(relname, ',' ORDER BY relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
            state += &format!("\n{}", self.cluster.sql(name, content));
        }
        state
    }

    /// Databases of restores beside them.
    fn others(&self) -> Vec<String> {
        let is_other = |name: &String| {
            let of = |live: &String| name.starts_with(&format!("{live}__"));
            self.live.iter().any(of)
        };
        self.cluster.databases().into_iter().filter(is_other).collect()
    }
}

impl Beside for Databases {
    fn reset(&self) {
        let gone = self.others().into_iter().chain(self.live.iter().cloned());
        let mut script: String =
            gone.map(|name| format!("DROP DATABASE IF EXISTS {} WITH (FORCE);\n", ident(&name))).collect();
        for (live, pristine) in self.live.iter().zip(&self.pristine) {
            script += &format!("CREATE DATABASE {} TEMPLATE {};\n", ident(live), ident(pristine));
        }
        self.cluster.sql("postgres", &script);
        self.dress();
    }

    fn share(&self) -> Option<usize> {
        Some(PLAYED)
    }

    fn note_new(&mut self) {
        self.new = self.state();
        assert_ne!(self.old, self.new);
    }

    fn assert_is(&self, is_new: bool, what: &str) {
        assert_eq!(self.state(), *if is_new { &self.new } else { &self.old }, "{what}");
    }

    fn assert_nothing_left(&self, what: &str) {
        assert_eq!(self.others(), Vec::<String>::new(), "{what}");
        let sessions = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'lifeboat-%' AND usename = {}",
            literal(&self.operator)
        );
        let is_gone = || self.cluster.sql("postgres", &sessions) == "0";
        assert!(
            (0..50).any(|_| is_gone() || {
                std::thread::sleep(std::time::Duration::from_millis(100));
                false
            }),
            "{what}"
        );
    }
}

/// The scene, and the sources of its configuration that are on a server.
fn scene(test: &str, mode: &'static str) -> Option<(Scene, String)> {
    let cluster = Cluster::shared(test).filter(|_| can_run(test, &["strace", "python3"]))?;
    let mut databases = Databases::new(cluster);
    let source = databases.source();
    let live = application_with("wal", &source, &|| databases.change());
    databases.keep_pristine();
    set_up_with(&live.env, &source, "-e", "20s");
    live.env.write("running", "");
    Some((Scene::with(live, mode, Box::new(databases)), source))
}

/// Shows D7.
#[test]
fn an_app_of_everything_is_wholly_old_or_wholly_new_when_the_restore_is_killed() {
    const TEST: &str = "an_app_of_everything_is_wholly_old_or_wholly_new_when_the_restore_is_killed";
    if let Some((scene, _)) = scene(TEST, "overwrite") {
        play_in(&scene, OF, "signal=KILL", false);
    }
}

/// Shows D7.
#[test]
fn an_app_of_everything_is_wholly_old_or_wholly_new_when_any_call_fails() {
    const TEST: &str = "an_app_of_everything_is_wholly_old_or_wholly_new_when_any_call_fails";
    if let Some((scene, _)) = scene(TEST, "full") {
        play_in(&scene, OF, "error=EIO", false);
        play_in(&scene, OF, "error=EIO", true);
    }
}

/// Shows D7.
#[test]
fn an_app_of_everything_is_wholly_old_or_wholly_new_when_the_restore_is_stopped() {
    const TEST: &str = "an_app_of_everything_is_wholly_old_or_wholly_new_when_the_restore_is_stopped";
    if let Some((scene, _)) = scene(TEST, "overwrite") {
        play_in(&scene, OF, "signal=TERM", false);
    }
}

/// Shows D7.
#[test]
fn an_app_of_everything_is_recovered_though_the_recovery_is_killed() {
    const TEST: &str = "an_app_of_everything_is_recovered_though_the_recovery_is_killed";
    if let Some((scene, _)) = scene(TEST, "overwrite") {
        scene.reset();
        let renames = scene.count(&scene.arguments())["renameat2"];
        // Of all renames, the last give names to what was replaced: a SQLite database with two logs.
        kill_the_recovery(&scene, OF, renames - 3);
    }
}

/// Shows D7.
#[test]
fn a_new_state_of_everything_that_had_started_is_never_left_half_taken_back() {
    const TEST: &str = "a_new_state_of_everything_that_had_started_is_never_left_half_taken_back";
    if let Some((scene, source)) = scene(TEST, "overwrite") {
        let sick = set_up_with(&scene.live.env, &source, "-d", "200ms");
        kill_the_rollback(&scene, OF, &sick);
    }
}
