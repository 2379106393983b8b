//! Plain SQL: who runs it, and what it cannot do.

use super::cluster::{Cluster, ident, literal};
use super::edited::edit;
use super::fingerprint::{assert_same_database, fingerprint};
use super::restore::{CHANGE, TABLE};
use super::served::Served;

/// Agreeing to run what no one authenticated.
const AGREED: [&str; 3] = ["--allow-unauthenticated", "--keep-replaced", "0s"];

/// A database of an ordinary owner that is dumped as SQL, with `shop.tar.zst` and `own.tar.zst`.
fn plain<'c>(cluster: &'c Cluster, stem: &str) -> (Served<'c>, String) {
    let owner = cluster.role(stem, "LOGIN").name;
    let name = cluster.create_db(stem, &format!("OWNER {}", ident(&owner)));
    let served = Served::new(cluster, &[&name]);
    served.configure_source("          format: plain\n", "");
    served.sql(&format!("SET ROLE {}; {TABLE} CREATE VIEW of_goods AS SELECT * FROM goods", ident(&owner)));
    served.backup();
    served.keep_archive();
    (served, owner)
}

impl Served<'_> {
    /// The archive, with `sql` in front of the last comment of its dump.
    fn with(&self, sql: &str) {
        edit(&self.env, "own.tar.zst", "shop.tar.zst", |it| {
            let text = String::from_utf8(it.dump(0).clone()).unwrap();
            let (before, after) = text.rsplit_once("--\n-- PostgreSQL database dump complete").unwrap();
            *it.dump(0) = format!("{before}{sql}\n\n--\n-- PostgreSQL database dump complete{after}").into_bytes();
        });
    }
}

/// Shows D9.
#[test]
fn plain_sql_is_run_by_a_role_that_is_no_superuser_when_that_was_agreed() {
    let Some(cluster) = Cluster::shared("plain_sql_is_run_by_a_role_that_is_no_superuser_when_that_was_agreed") else {
        return;
    };
    let (served, owner) = plain(cluster, "sql");
    let backed_up = fingerprint(cluster, served.database());
    served.sql(CHANGE);
    let live = fingerprint(cluster, served.database());
    let said = served.force(&[]).code(22).stderr;
    assert!(said.contains("SQL would be run") && said.contains("--allow-unauthenticated"), "{said}");
    assert_same_database(&live, &fingerprint(cluster, served.database()), "nobody agreed");
    served.assert_nothing_left("nobody agreed");
    served.force(&AGREED).ok();
    assert_same_database(&backed_up, &fingerprint(cluster, served.database()), "agreed");
    served.assert_nothing_left("agreed");

    served.with(
        "CREATE TABLE public.who AS SELECT current_user::text AS now, session_user::text AS who, \
         (SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls FROM pg_roles \
          WHERE rolname = session_user) AS may;",
    );
    served.force(&AGREED).ok();
    let who = served.sql("SELECT now, left(who, 13), may FROM who");
    assert_eq!(who, format!("{owner}|lifeboat__lb_|f"));
    served.assert_nothing_left("who it was");

    let copy = format!("{} copy", served.database());
    served.restore(&["--to-database", &copy]).code(22);
    served.restore(&["--to-database", &copy, "--allow-unauthenticated"]).ok();
    assert_eq!(cluster.sql(&copy, "SELECT count(*) FROM goods"), "20");
    cluster.drop_db(&copy);

    cluster.sql("postgres", &format!("ALTER DATABASE {} OWNER TO postgres", ident(served.database())));
    let said = served.force(&AGREED).code(16).stderr;
    assert!(said.contains("plain SQL is not run by a superuser"), "{said}");
    served.assert_nothing_left("of a superuser");
}

/// Shows D9.
#[test]
fn plain_sql_that_wants_more_than_a_dump_does_is_stopped_and_nothing_is_left() {
    let Some(cluster) = Cluster::shared("plain_sql_that_wants_more_than_a_dump_does_is_stopped_and_nothing_is_left")
    else {
        return;
    };
    let (served, owner) = plain(cluster, "evil");
    served.sql(CHANGE);
    let live = fingerprint(cluster, served.database());
    let (evil, pwned) = (format!("evil of {}", served.database()), cluster.path("pwned"));
    let file = literal(pwned.to_str().unwrap());
    for (sql, code) in [
        (format!("\\! touch {}", pwned.display()), 23),
        (format!("\\o {}", pwned.display()), 23),
        (format!("COPY public.goods TO PROGRAM 'touch {}';", pwned.display()), 23),
        (format!("COPY public.goods FROM PROGRAM 'touch {}';", pwned.display()), 23),
        (format!("COPY public.goods TO {file};"), 23),
        (format!("\\connect {}", ident("postgres")), 23),
        (format!("RESET ROLE; CREATE ROLE {} SUPERUSER;", ident(&evil)), 1),
        (format!("RESET SESSION AUTHORIZATION; CREATE ROLE {};", ident(&evil)), 1),
        ("SET SESSION AUTHORIZATION postgres;".to_owned(), 1),
        ("SET ROLE postgres;".to_owned(), 1),
        (format!("DO $$BEGIN EXECUTE 'COPY public.goods TO PROGRAM ''touch {}'''; END$$;", pwned.display()), 1),
        (format!("SELECT lo_export(lo_from_bytea(0, 'x'), {file});"), 1),
        ("ALTER SYSTEM SET work_mem = '5MB';".to_owned(), 1),
        ("SELECT no_such_function();".to_owned(), 1),
    ] {
        served.with(&sql);
        let said = served.force(&AGREED).code(code).stderr;
        assert!(said.contains("everything is as it was before"), "{sql}: {said}");
        assert!(!pwned.exists(), "{sql}");
        assert_eq!(
            cluster.sql("postgres", &format!("SELECT 1 FROM pg_roles WHERE rolname = {}", literal(&evil))),
            "",
            "{sql}"
        );
        served.assert_nothing_left(&sql);
    }
    assert_same_database(&live, &fingerprint(cluster, served.database()), "nothing was changed");

    // What it makes as the role that it is run by goes to the owner, and never to us.
    served.with("RESET ROLE; CREATE SCHEMA mine; CREATE FUNCTION mine.f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';");
    cluster.sql("postgres", &format!("GRANT CREATE ON DATABASE {} TO PUBLIC", ident(served.database())));
    let ended = served.force(&AGREED).exit_code();
    if ended == 0 {
        let whose = "SELECT DISTINCT proowner::regrole::text FROM pg_proc WHERE proname = 'f' AND pronamespace = 'mine'::regnamespace";
        assert_eq!(served.sql(whose), ident(&owner));
    }
    served.assert_nothing_left("what it made itself");
}
