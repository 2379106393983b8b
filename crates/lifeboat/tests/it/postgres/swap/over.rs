//! `--in-place`: a database restored over itself, in one transaction.

use lifeboat_store::testing::{can_run, sweep};

use crate::env::TestEnv;
use crate::faults::{LIFEBOAT, calls, trace};
use crate::postgres::cluster::{Cluster, Role, ident};
use crate::postgres::fingerprint::{assert_same_database, fingerprint};
use crate::postgres::odd::Odd;
use crate::postgres::restore::{CHANGE, TABLE};
use crate::postgres::served::Served;

const IN_PLACE: [&str; 1] = ["--in-place"];

/// What is in a database, without what it is made with.
fn content(cluster: &Cluster, name: &str) -> String {
    fingerprint(cluster, name)
}

/// Shows D5, D12.
#[test]
fn a_database_restored_over_itself_is_exactly_what_it_was() {
    let Some(cluster) = Cluster::shared("a_database_restored_over_itself_is_exactly_what_it_was") else { return };
    let odd = Odd::of_owner(cluster);
    let served = Served::by(cluster, &odd.owner, &[&odd.name]);
    served.sql(&format!("GRANT SELECT ON SEQUENCE public.never_used TO {}", ident(&odd.owner.name)));
    served.sql("ALTER TABLE public.secured NO FORCE ROW LEVEL SECURITY");
    let backed_up = content(cluster, &odd.name);
    served.backup();
    let more = "
        DROP TABLE public.toasted; UPDATE public.all_values SET t = 'x';
        CREATE SCHEMA since; CREATE TABLE since.then (x int PRIMARY KEY); CREATE TABLE public.since_more (x serial);
        CREATE VIEW public.of_since_more AS SELECT * FROM public.since_more; CREATE TYPE public.since_mood AS ENUM ('well');
        CREATE DOMAIN public.since_small AS int CHECK (VALUE < 9); CREATE FUNCTION public.since_plus(int) RETURNS int LANGUAGE sql AS 'SELECT $1 + 1';
        CREATE AGGREGATE public.since_total(int) (SFUNC = int4pl, STYPE = int); CREATE PUBLICATION since FOR TABLE public.since_more;
        SELECT lo_from_bytea(990001, 'later'); COMMENT ON SCHEMA public IS 'another comment';
        GRANT CREATE ON SCHEMA public TO PUBLIC;";
    served.sql(&format!("SET ROLE {}; {more}", ident(&odd.owner.name)));
    let live = content(cluster, &odd.name);
    served.force(&IN_PLACE).ok();
    assert_same_database(&backed_up, &content(cluster, &odd.name), "restored over itself");
    served.env.lifeboat(["restore", "--undo", "--force"]).ok();
    assert_same_database(&live, &content(cluster, &odd.name), "undone");
    served.env.lifeboat(["restore", "--undo", "--force"]).ok();
    assert_same_database(&backed_up, &content(cluster, &odd.name), "the undo undone");
    served.env.lifeboat(["restore", "--discard"]).ok();
    served.assert_nothing_left("restored over itself");
}

/// An ordinary owner of a small database that is backed up and changed since.
fn small<'c>(cluster: &'c Cluster) -> (Served<'c>, Role) {
    let role = cluster.role("over", "LOGIN");
    let name = cluster.create_db("over itself", &format!("OWNER {}", ident(&role.name)));
    let served = Served::by(cluster, &role, &[&name]);
    served.sql(&format!("SET ROLE {}; {TABLE}", ident(&role.name)));
    served.backup();
    served.sql(&format!("SET ROLE {}; {CHANGE}", ident(&role.name)));
    (served, role)
}

/// Shows D5.
#[test]
fn a_superuser_restores_over_too_and_what_is_not_healthy_is_rolled_back() {
    const TEST: &str = "a_superuser_restores_over_too_and_what_is_not_healthy_is_rolled_back";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let (served, role) = small(cluster);
    let live = content(cluster, served.database());
    served.configure("    health: [{ command: [test, -e, well], timeout: 200ms, every: 50ms }]\n");
    let said = served.force(&IN_PLACE).code(20).stderr;
    assert!(said.contains("rolled back"), "{said}");
    assert_same_database(&live, &content(cluster, served.database()), "rolled back");
    served.assert_nothing_left("rolled back");

    let by_super = Served::new(cluster, &[served.database()]);
    by_super.backup();
    let backed_up = content(cluster, served.database());
    by_super.sql("DROP TABLE goods; SELECT lo_from_bytea(990002, 'x')");
    by_super.force(&["--in-place", "--keep-replaced", "0s"]).ok();
    assert_same_database(&backed_up, &content(cluster, served.database()), "by a superuser");
    by_super.assert_nothing_left("by a superuser");
    by_super.force(&["--in-place", "--keep-replaced", "0s", "--no-owner", "--no-privileges"]).ok();
    let whose = "SELECT tableowner FROM pg_tables WHERE tablename = 'goods'";
    assert_eq!(by_super.sql(whose), role.name);

    by_super.drop_it();
    let said = by_super.force(&IN_PLACE).code(1).stderr;
    assert!(said.contains("there is no the database") || said.contains("to restore over"), "{said}");
}

/// Whatever moment it is killed at, the database is what it was or what was backed up.
///
/// Shows D5.
#[test]
fn a_restore_over_a_database_that_is_killed_is_done_or_was_never_begun() {
    const TEST: &str = "a_restore_over_a_database_that_is_killed_is_done_or_was_never_begun";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    if !can_run(TEST, &["strace"]) {
        return;
    }
    let (served, role) = small(cluster);
    let name = served.database();
    let live = content(cluster, name);
    let pristine = cluster.create_db("pristine", &format!("OWNER {} TEMPLATE {}", ident(&role.name), ident(name)));
    let reset = || {
        served.make_it(&format!("OWNER {} TEMPLATE {}", ident(&role.name), ident(&pristine)));
        std::fs::remove_dir_all(served.env.data_dir()).unwrap();
    };
    let traced = |options: &[&str]| {
        let env: &TestEnv = &served.env;
        let lifeboat = [LIFEBOAT, "restore", "shop.tar.zst", "--force", "--in-place"];
        env.run("strace", ["-f", "-o", "trace"].iter().chain(options).chain(&lifeboat))
    };
    reset();
    traced(&[]).ok();
    let backed_up = content(cluster, name);
    let mut points = calls(&trace(&served.env));
    points.retain(|name, _| ["sendto", "fsync", "write", "wait4", "unlinkat"].contains(&name.as_str()));
    let points: Vec<(String, usize)> =
        points.iter().flat_map(|(name, count)| (1..=*count).map(move |time| (name.clone(), time))).collect();
    let (mut olds, mut news) = (0, 0);
    for number in sweep("restore over a database, killed", points.len(), 12) {
        let (call, time) = &points[number];
        reset();
        let code = traced(&["-e", &format!("trace={call}"), "-e", &format!("inject={call}:signal=KILL:when={time}")])
            .exit_code();
        let what = format!("killed at {call} {time} ({code})");
        served.env.lifeboat(["recover"]).ok();
        let now = content(cluster, name);
        if now == backed_up {
            news += 1;
        } else {
            assert_same_database(&live, &now, &what);
            assert_ne!(code, 0, "{what}");
            olds += 1;
        }
        served.env.lifeboat(["restore", "--discard"]).exit_code();
        served.assert_nothing_left(&what);
    }
    assert!(olds > 0 && news > 0, "{olds} old, {news} new");
}
