//! What goes wrong in a restore of databases: each has its error and its exit
//! code, all is as before, and nothing of ours goes on running on the server.

use std::time::{Duration, Instant};

use lifeboat_store::testing::{is_root, skip};
use rustix::process::{Pid, Signal, kill_process};

use super::cluster::{Cluster, ident, literal};
use super::edited::edit;
use super::fingerprint::{assert_same_database, fingerprint};
use super::restore::{CHANGE, TABLE};
use super::served::Served;

/// A database that was backed up and changed since.
fn changed<'c>(cluster: &'c Cluster, stem: &str, options: &str) -> Served<'c> {
    let name = cluster.create_db(stem, options);
    let served = Served::new(cluster, &[&name]);
    served.sql(TABLE);
    served.backup();
    served.sql(CHANGE);
    served
}

/// A restore with these options ends with `code` and `words`; all is as before.
fn fails(served: &Served<'_>, options: &[&str], code: i32, words: &[&str]) {
    let live = fingerprint(served.cluster, served.database());
    let said = served.force(options).code(code).stderr;
    words.iter().for_each(|word| assert!(said.contains(word), "{word} is not in:\n{said}"));
    served.assert_open("failed");
    assert_same_database(&live, &fingerprint(served.cluster, served.database()), words[0]);
    served.assert_nothing_left(words[0]);
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("a minute went by before {what}");
}

/// Shows D6.
#[test]
fn a_pool_that_reconnects_is_kept_out_and_let_in_again() {
    let Some(cluster) = Cluster::shared("a_pool_that_reconnects_is_kept_out_and_let_in_again") else { return };
    let name = cluster.create_db("pool", "");
    let served = Served::new(cluster, &[&name]);
    served.sql("CREATE TABLE visits (at timestamptz DEFAULT clock_timestamp())");
    served.backup();
    // Each worker writes, loses its session, and connects at once.
    let work = "while :; do psql -X -q -c 'INSERT INTO visits DEFAULT VALUES' -c 'SELECT pg_sleep(0.01)'; done";
    let workers: Vec<_> =
        (0..3).map(|_| served.env.program("sh", ["-c", work]).with_server(cluster, &name).start()).collect();
    let visits = |name: &str| cluster.sql(name, "SELECT count(*) FROM visits").parse::<u64>().unwrap();
    wait_until("the pool works", || visits(&name) > 20);
    served.force(&[]).ok();
    wait_until("the pool works again", || visits(&name) > 20);
    for worker in workers {
        worker.signal(Signal::KILL);
        worker.wait().code(137);
    }
    let [kept] = served.others().try_into().expect("one is kept");
    cluster.sql("postgres", &format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", ident(&kept)));
    let at = |name: &str, which: &str| {
        let sql = format!("SELECT extract(epoch FROM {which}(at)) FROM visits");
        cluster.sql(name, &sql).parse::<f64>().unwrap()
    };
    let pause = at(&name, "min") - at(&kept, "max");
    assert!(pause > 0.9, "nobody writes into either for a second: {pause}");
    served.env.lifeboat(["restore", "--discard"]).ok();
    served.assert_nothing_left("with a pool");
}

/// Shows D6.
#[test]
fn a_session_that_does_not_end_rolls_the_restore_back() {
    const TEST: &str = "a_session_that_does_not_end_rolls_the_restore_back";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    // A superuser comes after the plan, whom an ordinary role cannot send away.
    let role = cluster.role("stubborn", "LOGIN CREATEDB");
    let name = cluster.create_db("stubborn", &format!("OWNER {}", ident(&role.name)));
    let served = Served::by(cluster, &role, &[&name]);
    served.sql(&format!("SET ROLE {}; {TABLE}", ident(&role.name)));
    served.backup();
    served.sql(&format!("SET ROLE {}; {CHANGE}", ident(&role.name)));
    let comes = format!(
        "#!/bin/sh\nexport PGHOST='{}' PGPORT={} PGUSER=postgres\nsetsid psql -X -c 'SELECT pg_sleep(600)' -d '{name}' \
         >/dev/null 2>&1 </dev/null &\nuntil [ \"$(psql -XAtc \"SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%sleep(600)%' \
         AND datname = '{name}'\" -d postgres)\" = 1 ]; do sleep 0.05; done\nrm '{}'\n",
        cluster.socket_dir().display(),
        cluster.port(),
        served.env.path("running").display()
    );
    served.env.write("comes", comes);
    served.env.set_mode("comes", 0o755);
    let comes = served.env.path("comes");
    let running = served.env.write("running", "");
    served.configure(&format!(
        "    services: {{ commands: {{ it: {{ stop: [{}], start: [touch, {running}], status: [test, -e, {running}] }} }} }}\n",
        comes.display(),
        running = running.display()
    ));
    fails(&served, &[], 20, &["rolled back", "superuser"]);
    let ends =
        format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = {}", literal(&name));
    assert_eq!(cluster.sql("postgres", &ends), "1", "it was there all the time");
}

/// Shows D6.
#[test]
fn a_session_that_hangs_rolls_the_restore_back() {
    const TEST: &str = "a_session_that_hangs_rolls_the_restore_back";
    if !is_root() {
        return skip(TEST, "only root can stop a process of the server");
    }
    let Some(cluster) = Cluster::own(TEST, &[]) else { return };
    let served = changed(&cluster, "hangs", "");
    let session = cluster.psql(served.database(), "SELECT pg_sleep(600)", []).start();
    let find = format!("SELECT max(pid) FROM pg_stat_activity WHERE datname = {}", literal(served.database()));
    wait_until("it is there", || !cluster.sql("postgres", &find).is_empty());
    let pid = Pid::from_raw(cluster.sql("postgres", &find).parse().unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let running = served.start(&[]);
    // After its thirty seconds; until then the server itself cannot drop a database.
    std::thread::sleep(Duration::from_secs(36));
    kill_process(pid, Signal::CONT).unwrap();
    let said = running.wait().code(20).stderr;
    session.wait().code(2);
    assert!(
        said.contains("a session does not end") && said.contains(&format!("pid {}", pid.as_raw_nonzero())),
        "{said}"
    );
    served.assert_open("it did not end");
    assert_eq!(served.sql("SELECT count(*) FROM goods"), "15");
    served.assert_nothing_left("it did not end");
}

/// Shows D6.
#[test]
fn a_live_database_that_is_corrupt_is_healed() {
    let Some(cluster) = Cluster::own("a_live_database_that_is_corrupt_is_healed", &[]) else { return };
    let served = changed(&cluster, "corrupt", "");
    let backed_up = served.sql("SELECT count(*) FROM goods");
    assert_eq!(backed_up, "15");
    let dir = |name: &str| {
        let oid = cluster.sql("postgres", &format!("SELECT oid FROM pg_database WHERE datname = {}", literal(name)));
        cluster.data().join("base").join(oid)
    };
    cluster.sql("postgres", "CHECKPOINT");
    let live = dir(served.database());
    std::fs::remove_file(live.join("PG_VERSION")).unwrap();
    std::fs::File::options().write(true).open(live.join("1259")).unwrap().set_len(100).unwrap();
    cluster.psql(served.database(), "SELECT 1", []).run().code(2);
    served.restore(&["--dry-run"]).ok();
    served.force(&[]).ok();
    assert_eq!(served.sql("SELECT count(*) FROM goods"), "20");
    served.env.lifeboat(["restore", "--undo", "--force"]).ok();
    cluster.psql(served.database(), "SELECT 1", []).run().code(2);
    served.env.lifeboat(["restore", "--undo", "--force"]).ok();
    assert_eq!(served.sql("SELECT count(*) FROM goods"), "20");
    served.env.lifeboat(["restore", "--discard"]).ok();
    served.assert_nothing_left("healed");
    // All its files are gone.
    served.force(&["--keep-replaced", "0s"]).ok();
    std::fs::remove_dir_all(dir(served.database())).unwrap();
    cluster.psql(served.database(), "SELECT 1", []).run().code(2);
    served.force(&["--keep-replaced", "0s"]).ok();
    assert_eq!(served.sql("SELECT count(*) FROM goods"), "20");
    served.assert_nothing_left("healed again");
}

/// Shows D6.
#[test]
fn autovacuum_does_not_keep_an_ordinary_role_from_restoring() {
    const TEST: &str = "autovacuum_does_not_keep_an_ordinary_role_from_restoring";
    // It comes at once, and does not end by itself.
    let settings = ["autovacuum_naptime=1s", "autovacuum_vacuum_cost_delay=100ms", "autovacuum_vacuum_cost_limit=1"];
    let Some(cluster) = Cluster::own(TEST, &settings) else { return };
    let role = cluster.role("vacuumed", "LOGIN CREATEDB");
    let name = cluster.create_db("vacuumed", &format!("OWNER {}", ident(&role.name)));
    let served = Served::by(&cluster, &role, &[&name]);
    served.sql(&format!("SET ROLE {}; {TABLE}", ident(&role.name)));
    let backed_up = fingerprint(&cluster, &name);
    served.backup();
    served.sql(&format!(
        "SET ROLE {}; CREATE TABLE dirty AS SELECT g, repeat('x', 500) AS x FROM generate_series(1, 20000) g; \
         DELETE FROM dirty",
        ident(&role.name)
    ));
    let works = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND datname = {}",
        literal(&name)
    );
    let began = Instant::now();
    while cluster.sql("postgres", &works) == "0" {
        assert!(began.elapsed() < Duration::from_secs(60), "autovacuum never comes");
        std::thread::sleep(Duration::from_millis(50));
    }
    for options in [&["--keep-replaced", "0s"][..], &["--in-place", "--keep-replaced", "0s"]] {
        served.force(options).ok();
        assert_same_database(&backed_up, &fingerprint(&cluster, &name), &format!("{options:?}"));
        served.assert_nothing_left(&format!("{options:?}"));
    }
}

/// Shows D6.
#[test]
fn a_disk_that_is_or_becomes_full_ends_the_restore_and_nothing_is_left_on_it() {
    const TEST: &str = "a_disk_that_is_or_becomes_full_ends_the_restore_and_nothing_is_left_on_it";
    if !is_root() {
        return skip(TEST, "only root can mount file systems");
    }
    let Some(cluster) = Cluster::own(TEST, &[]) else { return };
    let small = cluster.path("small");
    let _mount = cluster.mount("small", &["-t", "tmpfs", "-o", "size=40m,mode=755", "tmpfs"]);
    let tablespace = cluster.tablespace("small/space");
    let served = changed(&cluster, "full", &format!("TABLESPACE {}", ident(&tablespace)));
    served.sql(
        "CREATE TABLE large AS SELECT g, (SELECT string_agg(md5(g::text || i), '') FROM generate_series(1, 60) i) \
         FROM generate_series(1, 9000) g",
    );
    served.backup();
    let used = || rustix::fs::statvfs(&small).map(|it| it.f_blocks - it.f_bfree).unwrap();
    cluster.sql("postgres", "CHECKPOINT");
    let before = used();
    let said = served.force(&[]).code(14).stderr;
    assert!(said.contains("not enough space for a second") && said.contains("--in-place"), "{said}");
    served.assert_nothing_left("it would not fit");
    served.keep_archive();
    edit(&served.env, "own.tar.zst", "shop.tar.zst", |it| it.database(0)["size_bytes"] = 1.into());
    fails(&served, &[], 14, &["could not be restored", "disk space"]);
    cluster.sql("postgres", "CHECKPOINT");
    assert!(used() <= before + 64, "{} blocks were used, and are {}", before, used());
}

/// Shows D6, D11.
#[test]
fn a_dump_that_cannot_be_restored_leaves_nothing() {
    let Some(cluster) = Cluster::shared("a_dump_that_cannot_be_restored_leaves_nothing") else { return };
    let served = changed(cluster, "unrestorable", "");
    let (role, quoted) = {
        let role = cluster.role("soon gone", "LOGIN").name;
        (role.clone(), ident(&role))
    };
    served.sql(&format!("GRANT SELECT ON goods TO {quoted}"));
    served.backup();
    served.sql(&format!("DROP OWNED BY {quoted}; DROP ROLE {quoted}"));
    served.keep_archive();
    let edited = |change: &dyn Fn(&mut super::edited::Edited)| edit(&served.env, "own.tar.zst", "shop.tar.zst", change);
    edited(&|it| it.database(0)["tables"]["public.goods"]["rows"] = 16.into());
    fails(&served, &[], 19, &["public.goods has 15 rows, expected 16"]);
    edited(&|it| it.postgres()["roles"] = serde_json::json!([]));
    fails(&served, &[], 1, &["could not be restored", &role, "does not exist"]);
    edited(&|it| {
        let half = it.dump(0).len() / 2;
        it.dump(0).truncate(half);
    });
    fails(&served, &[], 13, &["could not be restored"]);
    edited(&|it| *it.dump(0) = b"no dump".to_vec());
    fails(&served, &[], 13, &["could not be restored"]);
}

/// Shows D6.
#[test]
fn a_health_check_that_fails_puts_the_databases_back() {
    let Some(cluster) = Cluster::shared("a_health_check_that_fails_puts_the_databases_back") else { return };
    let served = changed(cluster, "sick", "");
    served.configure("    health: [{ command: [test, -e, well], timeout: 300ms, every: 50ms }]\n");
    fails(&served, &[], 20, &["rolled back", "test -e well"]);
    let why = "    after_restore: [{ command: ['false'] }]\n";
    served.configure(why);
    fails(&served, &[], 20, &["rolled back", "false"]);
}

/// Shows D6.
#[test]
fn a_restore_that_is_stopped_leaves_nothing_running_on_the_server() {
    let Some(cluster) = Cluster::shared("a_restore_that_is_stopped_leaves_nothing_running_on_the_server") else {
        return;
    };
    let name = cluster.create_db("slow", "");
    let served = Served::new(cluster, &[&name]);
    // Quick where it is live, and slow in a database that has no settings yet.
    let quoted = ident(&name);
    served.sql(&format!("ALTER DATABASE {quoted} SET app.nap = '0'"));
    served.sql(&format!(
        "{TABLE} CREATE FUNCTION public.slow(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$BEGIN \
         PERFORM pg_catalog.pg_sleep(coalesce(current_setting('app.nap', true), '30')::float); RETURN $1; END$$; \
         CREATE INDEX ON goods (slow(id))"
    ));
    served.backup();
    served.sql(CHANGE);
    let live = fingerprint(cluster, &name);
    for signal in [Signal::TERM, Signal::INT, Signal::KILL] {
        let running = served.start(&[]);
        let sleeping = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname LIKE {}",
            literal(&format!("{}\\_\\_lb\\_%", name.replace('_', "\\_")))
        );
        wait_until("pg_restore makes the index", || cluster.sql("postgres", &sleeping) != "0");
        running.signal(signal);
        let code = 128 + signal.as_raw();
        let said = running.wait().code(code).stderr;
        if signal == Signal::KILL {
            assert_eq!(served.others().len(), 1, "it was killed");
            served.env.lifeboat(["recover"]).ok();
        } else {
            assert!(said.contains("everything is as it was before"), "{said}");
        }
        served.assert_open("stopped");
        served.assert_nothing_left("stopped");
        assert_same_database(&live, &fingerprint(cluster, &name), "stopped");
    }
}

/// Shows D6, R8.
#[test]
fn a_server_that_is_gone_in_the_middle_of_the_swap_is_recovered_when_it_is_back() {
    const TEST: &str = "a_server_that_is_gone_in_the_middle_of_the_swap_is_recovered_when_it_is_back";
    let Some(cluster) = Cluster::own(TEST, &[]) else { return };
    for signal in ["QUIT", "KILL", "INT"] {
        let served = changed(&cluster, "gone", "");
        let live = fingerprint(&cluster, served.database());
        // It takes its time to start, and there is nothing left to check.
        let (starts, goes) = (served.env.path("starts"), served.env.path("goes"));
        let running = served.env.write("running", "");
        served.configure(&format!(
            "    services: {{ commands: {{ it: {{ stop: [rm, -f, {running}], status: [test, -e, {running}], \
             start: [sh, -c, \"touch {running} {}; until [ -e {} ]; do sleep 0.02; done\"] }} }} }}\n    \
             health: [{{ command: ['false'], timeout: 100ms, every: 50ms }}]\n",
            starts.display(),
            goes.display(),
            running = running.display()
        ));
        let running = served.start(&[]);
        wait_until("the swap is done", || starts.exists());
        cluster.stop(signal);
        served.env.write("goes", "");
        let said = running.wait().code(21).stderr;
        assert!(said.contains("both copies are kept") && said.contains("lifeboat restore --rollback"), "{said}");
        let said = served.env.lifeboat(["recover"]).code(21).stderr;
        assert!(said.contains("could not connect"), "{said}");
        cluster.start();
        // The socket is where it was, and its name has the port in it.
        served.env.lifeboat(["recover"]).ok();
        served.assert_open("recovered");
        assert_same_database(&live, &fingerprint(&cluster, served.database()), "recovered");
        served.assert_nothing_left("recovered");
    }
}
