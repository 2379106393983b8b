//! Backups while an application writes, and while its services stand still.

use std::time::{Duration, Instant};

use lifeboat_store::testing::sweep;

use super::bank;
use super::cluster::Cluster;
use super::programs::{bin_dir, pg_dump};
use super::restore::TABLE;
use super::served::Served;

/// Shows D3.
#[test]
fn backups_while_pgbench_runs_restore_to_balanced_and_sound_databases() {
    const TEST: &str = "backups_while_pgbench_runs_restore_to_balanced_and_sound_databases";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let bank = bank::open_bank(cluster, "busy bank", "");
    let served = Served::new(cluster, &[&bank]);
    let writer = bank::transfer(cluster, &bank);
    let (copy, mut before) = (format!("{bank} copy"), 0);
    for round in sweep(TEST, 50, 3) {
        served.backup();
        served.restore(&["--to-database", &copy]).ok();
        bank::assert_balanced(cluster, &copy, &format!("round {round}"));
        bank::assert_sound(cluster, &copy);
        let transfers = bank::transfers(cluster, &copy);
        assert!(transfers > before, "round {round}: {transfers} transfers, {before} before");
        before = transfers;
        cluster.drop_db(&copy);
    }
    bank::stop(writer);
}

/// An app whose service is frozen: while it is, nothing is written; what its freeze and its thaw do stands in
/// the table `told` and in the file `log`.
struct Frozen<'c> {
    served: Served<'c>,
}

impl<'c> Frozen<'c> {
    fn new(cluster: &'c Cluster, stem: &str, source: &str) -> Self {
        let served = Served::new(cluster, &[&cluster.create_db(stem, "")]);
        served.sql(&format!("{TABLE} CREATE TABLE told (at timestamptz DEFAULT clock_timestamp(), what text)"));
        let frozen = Self { served };
        frozen.configure(source);
        frozen
    }

    fn configure(&self, source: &str) {
        let (served, cluster) = (&self.served, self.served.cluster);
        let tell = |what: &str| {
            let (psql, dir, port) = (cluster.program("psql"), cluster.socket_dir(), cluster.port());
            let text = format!(
                "#!/bin/sh\necho {what} >> {}\nexec {psql} -h {} -p {port} -U postgres -qXc \"INSERT INTO told (what) VALUES ('{what}')\" '{}'\n",
                served.env.path("log").display(),
                dir.display(),
                served.database()
            );
            let dir = super::programs::install(served, what, &text);
            format!("[{dir}/{what}]")
        };
        let services = format!(
            "    services:\n      commands:\n        web: {{ stop: ['false'], start: ['false'], status: ['true'], freeze: {}, thaw: {} }}\n      freeze: [web]\n",
            tell("freeze"),
            tell("thaw")
        );
        served.configure_source(source, &services);
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.served.env.path("log")).unwrap_or_default().replace('\n', " ")
    }

    /// What had happened by the moment that the archive holds.
    fn told(&self) -> String {
        let copy = format!("{} copy", self.served.database());
        self.served.restore(&["--to-database", &copy]).ok();
        let told = self.served.cluster.sql(&copy, "SELECT string_agg(what, ' ' ORDER BY at) FROM told");
        self.served.cluster.drop_db(&copy);
        told
    }
}

/// Shows D1, P5.
#[test]
fn a_service_runs_again_when_its_databases_are_pinned_and_before_they_are_dumped() {
    const TEST: &str = "a_service_runs_again_when_its_databases_are_pinned_and_before_they_are_dumped";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let frozen = Frozen::new(cluster, "frozen", "");
    let served = &frozen.served;
    let slow = pg_dump(served, "sleep 4; exec $REAL \"$@\"");
    frozen.configure(&bin_dir(&slow));
    let began = Instant::now();
    let said = served.env.lifeboat(["backup", "shop", "-o", "shop.tar.zst", "--json"]).ok();
    assert!(began.elapsed() > Duration::from_secs(4));
    let summary = said.json_lines().into_iter().find(|line| line["message_type"] == "summary").unwrap();
    let pause = summary["pauses"][0]["pause_ms"].as_u64().unwrap();
    assert!(pause < 3000, "{summary}");
    assert_eq!(frozen.log(), "freeze thaw ");
    assert_eq!(frozen.told(), "freeze", "the state while it stood still");
}

/// Shows P5.
#[test]
fn a_lock_is_not_waited_for_while_a_service_stands_still() {
    const TEST: &str = "a_lock_is_not_waited_for_while_a_service_stands_still";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let frozen = Frozen::new(cluster, "frozen and locked", "          lock_timeout: 60s\n");
    let served = &frozen.served;
    let sql = "BEGIN; LOCK TABLE goods IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(600)";
    let locker = cluster.psql(served.database(), sql, []).env("PGAPPNAME", "holds it").start();
    std::thread::sleep(Duration::from_millis(500));
    let backup = served.env.command(["backup", "shop", "-o", "shop.tar.zst"]).start();
    // Three times, and then without.
    let began = Instant::now();
    while frozen.log() != "freeze thaw freeze thaw freeze thaw " {
        assert!(began.elapsed() < Duration::from_secs(120), "{}", frozen.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_secs(1));
    cluster
        .sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'holds it'");
    locker.wait().code(2);
    let said = backup.wait().code(3).stderr;
    assert!(said.contains("while everything ran") || said.contains("unfrozen"), "{said}");
    assert_eq!(frozen.log(), "freeze thaw freeze thaw freeze thaw ");
    let listed = served.env.lifeboat(["backup", "list", "--json", "shop.tar.zst"]).ok().json_lines();
    assert_eq!(listed[0]["outcome"], "partial");
}
