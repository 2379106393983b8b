//! Databases restored in place: what they are made with, whose they are, and
//! which roles that takes.

use serde_json::Value;

use super::cluster::{Cluster, ident, literal, versions};
use super::edited::edit;
use super::fingerprint::{assert_same_database, fingerprint};
use super::odd::Odd;
use super::served::Served;

/// A small table with rows.
pub(crate) const TABLE: &str = "CREATE TABLE goods (id int PRIMARY KEY, name text); \
     INSERT INTO goods SELECT g, 'goods ' || g FROM generate_series(1, 20) g;";
/// What becomes of it after the backup.
pub(crate) const CHANGE: &str = "UPDATE goods SET name = upper(name); DELETE FROM goods WHERE id > 15; \
     CREATE TABLE later (x int); INSERT INTO later VALUES (1);";

/// Shows D4, D12, D13.
#[test]
fn a_database_is_restored_as_it_was_at_the_backup() {
    if Cluster::shared("a_database_is_restored_as_it_was_at_the_backup").is_none() {
        return;
    }
    for version in versions() {
        let cluster = Cluster::shared_of(version);
        for odd in [Odd::of_owner(cluster), Odd::of_superuser(cluster)] {
            let served = Served::new(cluster, &[&odd.name]);
            let before = fingerprint(cluster, &odd.name);
            served.backup();
            served.sql("DROP TABLE public.toasted; UPDATE public.all_values SET t = 'x'; CREATE SCHEMA since");
            served.force(&[]).ok();
            assert_same_database(&before, &fingerprint(cluster, &odd.name), "restored over a changed one");
            served.force(&["--keep-replaced", "0s"]).ok();
            served.env.lifeboat(["restore", "--discard"]).ok();
            served.drop_it();
            served.restore(&[]).ok();
            assert_same_database(&before, &fingerprint(cluster, &odd.name), "restored where it was gone");
            served.env.lifeboat(["restore", "--discard"]).ok();
            served.assert_nothing_left("restored twice");
        }
    }
}

/// Shows D4.
#[test]
fn what_the_live_database_is_made_with_wins_over_the_snapshot() {
    let Some(cluster) = Cluster::shared("what_the_live_database_is_made_with_wins_over_the_snapshot") else { return };
    let [first, second] = ["first owner", "second owner"].map(|stem| cluster.role(stem, "LOGIN").name);
    let owned = format!("OWNER {} TEMPLATE template0 ENCODING LATIN1 LOCALE 'C' CONNECTION LIMIT 11", ident(&first));
    let name = cluster.create_db("made with", &owned);
    let served = Served::new(cluster, &[&name]);
    let quoted = ident(&name);
    served.sql(&format!("SET ROLE {}; {TABLE} INSERT INTO goods VALUES (0, 'größe')", ident(&first)));
    let dress = |setting: &str, comment: &str, to: &str| {
        format!(
            "ALTER DATABASE {quoted} SET work_mem = '{setting}'; ALTER DATABASE {quoted} SET search_path = '$user', public; \
             ALTER ROLE {to} IN DATABASE {quoted} SET statement_timeout = '{setting}'; COMMENT ON DATABASE {quoted} IS '{comment}'; \
             REVOKE CONNECT ON DATABASE {quoted} FROM PUBLIC; GRANT CONNECT, CREATE ON DATABASE {quoted} TO {to} WITH GRANT OPTION;",
            to = ident(to)
        )
        .replace("statement_timeout = '5MB'", "statement_timeout = '5s'")
        .replace("statement_timeout = '6MB'", "statement_timeout = '6s'")
    };
    served.sql(&dress("5MB", "the first", &first));
    let original = fingerprint(cluster, &name);
    served.backup();

    let tablespace = cluster.tablespace("wide place");
    served.make_it(&format!(
        "OWNER {} TEMPLATE template0 ENCODING UTF8 LOCALE_PROVIDER icu ICU_LOCALE 'de-DE' LOCALE 'C' TABLESPACE {}",
        ident(&second),
        ident(&tablespace)
    ));
    served.sql(&dress("6MB", "the second", &second));
    let attributes = |text: &str| text.split("\n======\n").next().unwrap().to_owned();
    let live = attributes(&fingerprint(cluster, &name));
    served.force(&[]).ok();
    let restored = fingerprint(cluster, &name);
    assert_same_database(&live, &attributes(&restored), "what it is made with");
    assert!(restored.contains("größe") && restored.contains("icu") && restored.contains(&tablespace), "{restored}");

    served.drop_it();
    served.restore(&[]).ok();
    assert_same_database(&original, &fingerprint(cluster, &name), "where there is no live one");
    for _ in 0..2 {
        let kept = served.env.lifeboat(["status", "--json"]).ok().json_lines();
        let Some(id) = kept.iter().find_map(|line| line["kept"][0]["id"].as_str()) else { break };
        served.env.lifeboat(["restore", "--discard", id]).ok();
    }
    served.assert_nothing_left("restored twice");
}

/// Shows D4.
#[test]
fn roles_that_are_missing_are_listed_and_made_when_that_is_agreed() {
    let Some(cluster) = Cluster::shared("roles_that_are_missing_are_listed_and_made_when_that_is_agreed") else {
        return;
    };
    let [owner, reader, group, there] =
        ["role owner", "role reader", "role group", "role there"].map(|stem| cluster.role(stem, "LOGIN").name);
    let [q_owner, q_reader, q_group, q_there] = [&owner, &reader, &group, &there].map(|name| ident(name));
    let name = cluster.create_db("of several", &format!("OWNER {q_owner}"));
    let served = Served::new(cluster, &[&name]);
    served.sql(&format!(
        "GRANT {q_group} TO {q_reader}; COMMENT ON ROLE {q_reader} IS 'reads'; ALTER ROLE {q_reader} SET work_mem = '7MB'; \
         ALTER ROLE {q_owner} CREATEDB CONNECTION LIMIT 9; SET ROLE {q_owner}; {TABLE} \
         GRANT SELECT ON goods TO {q_reader}; GRANT SELECT (id) ON goods TO {q_there}"
    ));
    let before = fingerprint(cluster, &name);
    served.backup();
    let gone = || {
        served.drop_it();
        let roles = [&q_owner, &q_reader, &q_group].map(String::as_str).join(", ");
        cluster.sql("postgres", &format!("DROP ROLE IF EXISTS {roles}"));
    };
    gone();
    cluster.sql("postgres", &format!("ALTER ROLE {q_there} CREATEDB CONNECTION LIMIT 3"));
    let facts = |name: &str| {
        let of = "SELECT rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolconnlimit, rolpassword IS NULL, \
                  shobj_description(oid, 'pg_authid'), (SELECT string_agg(g.rolname, ',') FROM pg_auth_members m JOIN pg_roles g \
                  ON g.oid = roleid WHERE member = a.oid), (SELECT setconfig FROM pg_db_role_setting WHERE setrole = a.oid) \
                  FROM pg_authid a WHERE rolname = ";
        cluster.sql("postgres", &format!("{of}{}", literal(name)))
    };
    let there_before = facts(&there);

    let said = served.restore(&["--dry-run"]).ok().stdout;
    for missing in [&owner, &reader, &group] {
        assert!(said.contains(&format!("role {missing}: created, without a password")), "{said}");
    }
    assert!(!said.contains(&format!("role {there}:")), "{said}");
    let refused = served.restore(&[]).code(22).stderr;
    assert!(refused.contains(&owner) && refused.contains("without passwords"), "{refused}");
    assert_eq!((facts(&owner), served.others()), (String::new(), Vec::new()));

    served.force(&[]).ok();
    assert_same_database(&before, &fingerprint(cluster, &name), "with roles that were made");
    assert_eq!(facts(&owner), "f|t|f|t|t|9|t|||");
    assert_eq!(facts(&reader), format!("f|t|f|f|t|-1|t|reads|{group}|{{work_mem=7MB}}"));
    assert_eq!(facts(&group), "f|t|f|f|t|-1|t|||");
    assert_eq!(facts(&there), there_before, "it was there, and is as it was");

    gone();
    let said = served.restore(&["--no-owner", "--no-privileges"]).ok().stdout;
    assert!(!said.contains("role"), "{said}");
    assert_eq!([&owner, &reader, &group].map(|name| facts(name)), [""; 3], "no role was made");
    let whose = "SELECT tableowner, (SELECT relacl FROM pg_class WHERE relname = 'goods'), (SELECT count(*) FROM goods) \
                 FROM pg_tables WHERE tablename = 'goods'";
    assert_eq!(served.sql(whose), format!("{}||20", served.user));
    served.assert_open("restored without owners");
}

/// Shows D4.
#[test]
fn no_role_is_made_that_can_run_programs_on_the_server() {
    let Some(cluster) = Cluster::shared("no_role_is_made_that_can_run_programs_on_the_server") else { return };
    let owner = cluster.role("climber", "LOGIN").name;
    let [plain, mighty, of_mighty] = [("plain group", "NOLOGIN"), ("mighty", "SUPERUSER"), ("of mighty", "NOLOGIN")]
        .map(|(stem, options)| cluster.role(stem, options).name);
    cluster.sql("postgres", &format!("GRANT {} TO {}", ident(&mighty), ident(&of_mighty)));
    let name = cluster.create_db("climbing", &format!("OWNER {}", ident(&owner)));
    let served = Served::new(cluster, &[&name]);
    served.backup();
    served.keep_archive();
    served.drop_it();
    cluster.sql("postgres", &format!("DROP ROLE {}", ident(&owner)));
    let is_there = || cluster.sql("postgres", &format!("SELECT 1 FROM pg_roles WHERE rolname = {}", literal(&owner)));
    let member_of = |groups: &[&str]| {
        edit(&served.env, "own.tar.zst", "shop.tar.zst", |edited| {
            let roles = edited.postgres()["roles"].as_array_mut().unwrap();
            roles.iter_mut().find(|role| role["name"] == owner).unwrap()["member_of"] = groups.into();
        });
    };
    for group in [&mighty, &of_mighty, "pg_execute_server_program", "pg_write_server_files"] {
        member_of(&[&plain, group]);
        let said = served.force(&[]).code(23).stderr;
        assert!(said.contains(&format!("a member of {group},")) && said.contains(&owner), "{said}");
        assert_eq!((is_there().as_str(), served.others()), ("", Vec::new()), "{group}");
    }
    member_of(&[&plain, "pg_monitor"]);
    served.force(&[]).ok();
    let groups = format!(
        "SELECT string_agg(roleid::regrole::text, ',' ORDER BY roleid) FROM pg_auth_members WHERE member = {}::regrole",
        literal(&ident(&owner))
    );
    assert_eq!(served.sql(&groups), format!("pg_monitor,{}", ident(&plain)));
}

/// Shows D4, D13.
#[test]
fn an_ordinary_role_restores_its_own_database() {
    let Some(cluster) = Cluster::shared("an_ordinary_role_restores_its_own_database") else { return };
    for version in versions() {
        let cluster = if version == versions().pop().unwrap() { cluster } else { Cluster::shared_of(version) };
        let odd = Odd::of_owner(cluster);
        cluster.sql("postgres", &format!("ALTER ROLE {} CREATEDB", ident(&odd.owner.name)));
        let served = Served::by(cluster, &odd.owner, &[&odd.name]);
        // That one even its owner may not read, who could give himself the right.
        served.sql(&format!("GRANT SELECT ON SEQUENCE public.never_used TO {}", ident(&odd.owner.name)));
        served.sql("ALTER TABLE public.secured NO FORCE ROW LEVEL SECURITY");
        let before = fingerprint(cluster, &odd.name);
        served.backup();
        served.sql("DROP TABLE public.toasted");
        served.force(&[]).ok();
        assert_same_database(&before, &fingerprint(cluster, &odd.name), "by an ordinary role");
        served.env.lifeboat(["restore", "--discard"]).ok();
        served.assert_nothing_left("by an ordinary role");
    }
}

/// Shows D4, D5.
#[test]
fn several_databases_are_restored_together_or_one_of_them_alone() {
    let Some(cluster) = Cluster::shared("several_databases_are_restored_together_or_one_of_them_alone") else { return };
    let [orders, invoices] = ["orders", "invoices"].map(|stem| cluster.create_db(stem, ""));
    let served = Served::new(cluster, &[&orders, &invoices]);
    let both = |sql: &str| [&orders, &invoices].map(|name| cluster.sql(name, sql));
    let changed = || both("SELECT to_regclass('later') IS NOT NULL").map(|is| is == "t");
    both(TABLE);
    served.backup();
    both(CHANGE);
    let said = served.force(&["--only", &format!("db/{invoices}"), "--keep-replaced", "0s"]).ok().stdout;
    assert_eq!(changed(), [true, false], "{said}");
    assert!(said.contains(&invoices) && !said.contains(&orders), "{said}");
    let near = format!("db/{}", orders.replace("orders", "order"));
    let said = served.force(&["--only", &near]).code(2).stderr;
    assert!(said.contains(&format!("did you mean {orders}?")) && said.contains(&invoices), "{said}");
    served.force(&["--only", "database"]).code(2);
    assert_eq!(changed(), [true, false]);
    served.force(&["--only", "db", "--keep-replaced", "0s"]).ok();
    assert_eq!(changed(), [false, false]);
    assert_eq!(both("SELECT count(*) FROM goods WHERE name LIKE 'goods %'"), ["20", "20"]);
    served.assert_nothing_left("one and then both");
}

/// Shows D4, D5, R1.
#[test]
fn a_dry_run_says_what_would_become_of_databases_and_writes_nothing() {
    const TEST: &str = "a_dry_run_says_what_would_become_of_databases_and_writes_nothing";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let [there, gone] = ["there", "gone"].map(|stem| cluster.create_db(stem, ""));
    let served = Served::new(cluster, &[&there, &gone]);
    for name in [&there, &gone] {
        cluster.sql(name, TABLE);
    }
    served.backup();
    served.sql(CHANGE);
    cluster.drop_db(&gone);
    let waiting = cluster.psql(&there, "SELECT pg_sleep(600)", []).start();
    let session = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = {}", literal(&there));
    while cluster.sql("postgres", &session) != "1" {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let state = || (served.all_names(), fingerprint(cluster, &there), cluster.databases().contains(&gone));
    let (files, before, is_there) = state();
    let said = served.restore(&["--dry-run"]).ok().stdout;
    let place = format!("on {}@", served.user);
    for line in [
        format!("database: replace the database {there} ("),
        format!("database: create the database {gone} {place}"),
        "and end 1 session in it".to_owned(),
        "Dry run: 2 databases would be restored".to_owned(),
        "Nothing was written.".to_owned(),
    ] {
        assert!(said.contains(&line), "{line} is not in:\n{said}");
    }
    let lines = served.restore(&["--dry-run", "--json"]).ok().json_lines();
    let plan = lines.iter().find(|line| line["message_type"] == "plan").unwrap();
    let database = |number: usize| -> &Value { &plan["databases"][number] };
    assert_eq!(
        (&database(0)["name"], &database(0)["exists"], &database(0)["sessions"]),
        (&there.as_str().into(), &true.into(), &1.into())
    );
    assert_eq!((&database(1)["name"], &database(1)["exists"]), (&gone.as_str().into(), &false.into()));
    assert!(
        database(0)["live_bytes"].as_u64().unwrap() > 0 && database(0)["free_bytes"].as_u64().unwrap() > 0,
        "{plan}"
    );
    assert_eq!(state(), (files, before, is_there), "nothing was written");
    waiting.signal(rustix::process::Signal::KILL);
    waiting.wait().code(137);
}
