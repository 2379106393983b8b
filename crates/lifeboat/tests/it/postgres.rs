//! PostgreSQL: servers to test with, databases to try, and that these tests
//! would notice.
#![expect(clippy::unwrap_used, reason = "these are the helpers of tests")]

mod asked;
mod bank;
mod bare;
mod busy;
mod cluster;
mod dumped;
mod edited;
mod everything;
mod exports;
mod failing;
mod fingerprint;
mod odd;
mod plain;
mod programs;
mod restore;
mod scopes;
mod served;
mod swap;
mod to_database;
mod trouble;
mod whole;

use std::time::Duration;

use bank::Pair;
use cluster::{Cluster, ident, versions};
use fingerprint::{assert_same_database, fingerprint};
use odd::Odd;

#[test]
fn a_server_ends_with_what_started_it_and_comes_back_when_it_was_stopped() {
    let Some(cluster) = Cluster::own("a_server_ends_with_what_started_it_and_comes_back_when_it_was_stopped", &[])
    else {
        return;
    };
    let owner = cluster.role("owner", "LOGIN");
    let database = cluster.create_db("app", &format!("OWNER {}", ident(&owner.name)));
    for signal in ["INT", "QUIT", "KILL"] {
        cluster.sql(&database, "CREATE TABLE IF NOT EXISTS t (x text); INSERT INTO t VALUES ('a|b')");
        let (pid, port) = (cluster.pid(), cluster.port());
        cluster.stop(signal);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "{signal}");
        cluster.start();
        assert_ne!((cluster.pid(), 0), (pid, port), "{signal}");
    }
    assert_eq!(cluster.sql(&database, "SELECT * FROM t"), "a|b\na|b\na|b");
    assert_eq!(cluster.databases(), [database.as_str()]);
    let ask = |url: &str, password: &str| {
        let ask = cluster.psql("postgres", "SELECT current_database(), current_user", ["-d", url]);
        ask.env("PGPASSWORD", password).run()
    };
    let expected = format!("{database}|{}\n", owner.name);
    assert_eq!(ask(&cluster.url(&owner.name, &database), &owner.password).ok().stdout, expected);
    assert_eq!(ask(&cluster.socket_url(&owner.name, &database), "").ok().stdout, expected);
    let refused = ask(&cluster.url(&owner.name, &database), "wrong").code(2).stderr;
    assert!(refused.contains("password authentication failed"), "{refused}");
    assert!(cluster.log().contains("password authentication failed"), "{}", cluster.log());
    let (pid, dir) = (cluster.pid(), cluster.data());
    drop(cluster);
    assert!(!dir.exists() && !std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn the_stock_tools_keep_all_that_is_odd_and_a_fingerprint_sees_each_change() {
    const TEST: &str = "the_stock_tools_keep_all_that_is_odd_and_a_fingerprint_sees_each_change";
    if Cluster::shared(TEST).is_none() {
        return;
    }
    for version in versions() {
        let cluster = Cluster::shared_of(version);
        for odd in [Odd::of_owner(cluster), Odd::of_superuser(cluster)] {
            let before = fingerprint(cluster, &odd.name);
            assert_same_database(&before, &fingerprint(cluster, &odd.name), "looked at twice");
            let dump = cluster.path("odd.dump");
            let dump = dump.to_str().unwrap();
            cluster.client("pg_dump", &odd.name, ["-Fc", "-f", dump]).run().ok();
            cluster.drop_db(&odd.name);
            cluster
                .client("pg_restore", "postgres", ["--create", "--exit-on-error", "-d", "postgres", dump])
                .run()
                .ok();
            assert_same_database(&before, &fingerprint(cluster, &odd.name), "restored");
        }
        sees_each_change(cluster, &Odd::of_owner(cluster));
    }
}

/// Changes of every kind, each of which makes a fingerprint another one.
fn sees_each_change(cluster: &Cluster, odd: &Odd) {
    let [name, reader, writer] = [&odd.name, &odd.reader.name, &odd.writer.name].map(|name| ident(name));
    let changes = [
        format!("ALTER DATABASE {name} OWNER TO {reader}"),
        format!("ALTER DATABASE {name} CONNECTION LIMIT 77"),
        format!("ALTER DATABASE {name} SET work_mem = '5MB'"),
        format!("ALTER ROLE {reader} IN DATABASE {name} SET work_mem = '6MB'"),
        format!("GRANT TEMPORARY ON DATABASE {name} TO {writer}"),
        format!("COMMENT ON DATABASE {name} IS 'another'"),
        format!("ALTER TABLE public.made OWNER TO {reader}"),
        format!("GRANT SELECT (price) ON public.made TO {writer}"),
        "ALTER TABLE public.made ENABLE TRIGGER disabled".to_owned(),
        "UPDATE public.all_values SET t = t || ' ' WHERE id = 2".to_owned(),
        "UPDATE public.all_values SET f8 = f8 * 2 WHERE id = 3".to_owned(),
        "DELETE FROM public.no_columns WHERE ctid = '(0,1)'".to_owned(),
        "SELECT nextval('public.countdown')".to_owned(),
        "SELECT lo_put(770003, 50000, 'x')".to_owned(),
        "SELECT lo_unlink(770002)".to_owned(),
        "REFRESH MATERIALIZED VIEW public.mat1 WITH NO DATA".to_owned(),
        "DROP INDEX public.by_id".to_owned(),
        "UPDATE public.toasted SET extended = reverse(extended) WHERE id = 2".to_owned(),
    ];
    let mut seen = vec![fingerprint(cluster, &odd.name)];
    for change in changes {
        cluster.sql(&odd.name, &change);
        let now = fingerprint(cluster, &odd.name);
        assert!(!seen.contains(&now), "not seen: {change}");
        seen.push(now);
    }
}

#[test]
fn a_bank_is_balanced_in_each_copy_and_a_change_outside_a_transfer_is_seen() {
    const TEST: &str = "a_bank_is_balanced_in_each_copy_and_a_change_outside_a_transfer_is_seen";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let bank = bank::open_bank(cluster, "bank", "");
    let writer = bank::transfer(cluster, &bank);
    let mut before = 0;
    for round in 0..3 {
        let copy = bank::stock_copy(cluster, &bank);
        bank::assert_balanced(cluster, &copy, &format!("copy {round}"));
        bank::assert_sound(cluster, &copy);
        let transfers = bank::transfers(cluster, &copy);
        assert!(transfers > before, "copy {round}: {transfers} transfers, {before} before");
        before = transfers;
        cluster.drop_db(&copy);
    }
    bank::stop(writer);
    cluster.sql(&bank, "UPDATE pgbench_tellers SET tbalance = tbalance + 1 WHERE tid = 1");
    std::panic::catch_unwind(|| bank::assert_balanced(cluster, &bank, "changed")).unwrap_err();
}

#[test]
fn pairs_of_numbers_tell_copies_of_one_moment_from_others() {
    let Some(cluster) = Cluster::shared("pairs_of_numbers_tell_copies_of_one_moment_from_others") else { return };
    let pair = Pair::new(cluster);
    let writer = pair.write(cluster);
    let first = bank::stock_copy(cluster, &pair.first);
    std::thread::sleep(Duration::from_millis(1500));
    let second = bank::stock_copy(cluster, &pair.second);
    pair.stop(cluster, writer);
    let is_one = |copies: [&str; 2], tolerance| {
        std::panic::catch_unwind(|| Pair::assert_one_moment(cluster, copies, tolerance, "copies")).is_ok()
    };
    let tolerance = Duration::from_secs(1);
    assert!(is_one([&pair.first, &pair.second], tolerance), "they have ended together");
    assert!(!is_one([&first, &second], tolerance) && is_one([&first, &second], Duration::from_secs(60)));
    cluster.sql(&second, "DELETE FROM numbers WHERE n = 2");
    assert!(!is_one([&first, &second], Duration::from_secs(60)), "a number is missing");
}
