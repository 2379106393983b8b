//! Databases that somebody writes to without a pause, and what must hold in
//! every copy of them.

use std::time::Duration;

use rustix::process::Signal;

use super::cluster::{Cluster, literal};
use crate::env::Running;

/// A transfer changes a teller, a branch and an account by the same amount and
/// notes it, in one transaction: pgbench's TPC-B.
pub(crate) fn open_bank(cluster: &Cluster, stem: &str, options: &str) -> String {
    let database = cluster.create_db(stem, options);
    cluster.client("pgbench", &database, ["-i", "-q", "-I", "dtGvpf", "-s", "2"]).run().ok();
    database
}

/// Makes transfers until it is told to stop.
pub(crate) fn transfer(cluster: &Cluster, database: &str) -> Running {
    let writer = cluster.client("pgbench", database, ["-n", "-c", "4", "-j", "1", "-T", "3600", "-b", "tpcb-like"]);
    let writer = writer.start();
    wait_until("the first transfer is made", || transfers(cluster, database) > 0);
    writer
}

/// Stops what transfers, which must have run until now.
pub(crate) fn stop(transfers: Running) {
    transfers.signal(Signal::KILL);
    transfers.wait().code(137);
}

/// How many transfers a copy holds.
pub(crate) fn transfers(cluster: &Cluster, database: &str) -> u64 {
    cluster.sql(database, "SELECT count(*) FROM pgbench_history").parse().expect("a number")
}

/// The copy is the state between two transfers: no amount is counted on one side alone.
pub(crate) fn assert_balanced(cluster: &Cluster, database: &str, what: &str) {
    let sums = "
        SELECT (SELECT coalesce(sum(abalance), 0) FROM pgbench_accounts),
               (SELECT coalesce(sum(tbalance), 0) FROM pgbench_tellers),
               (SELECT coalesce(sum(bbalance), 0) FROM pgbench_branches),
               (SELECT coalesce(sum(delta), 0) FROM pgbench_history)";
    let told = cluster.sql(database, sums);
    let sums: Vec<&str> = told.split('|').collect();
    assert!(sums.iter().all(|sum| *sum == sums[0]), "{what}: accounts, tellers, branches, history: {sums:?}");
}

/// No heap and no index of the database is damaged. Leaves an extension in it.
pub(crate) fn assert_sound(cluster: &Cluster, database: &str) {
    let args = ["--install-missing", "--heapallindexed", "--parent-check"];
    cluster.client("pg_amcheck", database, args).run().ok();
}

/// Two databases into which the same number is written, first into one and then
/// into the other, in a transaction each.
pub(crate) struct Pair {
    pub(crate) first: String,
    pub(crate) second: String,
    /// Where the writer works.
    from: String,
}

impl Pair {
    pub(crate) fn new(cluster: &Cluster) -> Self {
        let [first, second, from] = ["first", "second", "writes pairs"].map(|stem| cluster.create_db(stem, ""));
        for database in [&first, &second] {
            cluster.sql(
                database,
                "CREATE TABLE numbers (n bigint PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp())",
            );
        }
        cluster.sql(&from, "CREATE EXTENSION dblink");
        Self { first, second, from }
    }

    /// Writes numbers until it is told to stop.
    pub(crate) fn write(&self, cluster: &Cluster) -> Running {
        let connect = |name: &str, database: &str| {
            let database = database.replace('\\', "\\\\").replace('\'', "\\'");
            let (dir, port) = (cluster.socket_dir(), cluster.port());
            let server = format!("host={} port={port} user=postgres dbname='{database}'", dir.display());
            format!("SELECT dblink_connect('{name}', {});\n", literal(&server))
        };
        let script = connect("first", &self.first)
            + &connect("second", &self.second)
            + "DO $$
               DECLARE
                 n bigint := 0;
               BEGIN
                 LOOP
                   n := n + 1;
                   PERFORM dblink_exec('first', format('INSERT INTO numbers VALUES (%s)', n));
                   PERFORM dblink_exec('second', format('INSERT INTO numbers VALUES (%s)', n));
                 END LOOP;
               END $$;";
        let writer = cluster.psql(&self.from, &script, []).start();
        wait_until("the first pair is written", || cluster.sql(&self.second, "SELECT count(*) FROM numbers") != "0");
        writer
    }

    /// Stops what writes, which must have run until now.
    pub(crate) fn stop(&self, cluster: &Cluster, writer: Running) {
        // Its session does not notice that it is gone while it has nothing to say.
        let from = literal(&self.from);
        let stop = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {from}");
        cluster.sql("postgres", &stop);
        let said = writer.wait().code(2).stderr;
        assert!(said.contains("terminating connection due to administrator command"), "{said}");
    }

    /// Copies of both, made while numbers were written, are of one moment: no further apart than
    /// `tolerance`. (It may be that one more number is in the first than in the second.)
    pub(crate) fn assert_one_moment(cluster: &Cluster, copies: [&str; 2], tolerance: Duration, what: &str) {
        let [(first, first_at), (second, second_at)] = copies.map(|copy| {
            let holes = cluster.sql(copy, "SELECT count(*) <> max(n) OR min(n) <> 1 FROM numbers");
            assert_eq!(holes, "f", "{what}: numbers are missing in {copy}");
            let last = cluster
                .sql(copy, "SELECT n, round(extract(epoch FROM at) * 1000) FROM numbers ORDER BY n DESC LIMIT 1");
            let (n, at) = last.split_once('|').expect("two columns");
            (n.parse::<i64>().expect("a number"), at.parse::<i64>().expect("milliseconds"))
        });
        let apart = Duration::from_millis(first_at.abs_diff(second_at));
        assert!(apart <= tolerance, "{what}: {first} and {second}, which were written {apart:?} apart");
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("a minute went by before {what}");
}

/// A copy of a database by the stock tools, under the name that is given back.
pub(crate) fn stock_copy(cluster: &Cluster, database: &str) -> String {
    let copy = cluster.create_db("copy", "TEMPLATE template0");
    let dump = cluster.path(&format!("{copy}.dump"));
    let dump = dump.to_str().expect("temporary names are UTF-8");
    cluster.client("pg_dump", database, ["-Fc", "-f", dump]).run().ok();
    cluster.client("pg_restore", &copy, ["--exit-on-error", "-d", &copy, dump]).run().ok();
    std::fs::remove_file(dump).expect("it was just written");
    copy
}
