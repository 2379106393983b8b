//! How databases change places: all at once, kept and put back, refused where
//! something would be lost; or one over itself.

use super::cluster::{Cluster, ident, literal};
use super::edited::edit;
use super::fingerprint::{assert_same_database, fingerprint};
use super::restore::{CHANGE, TABLE};
use super::served::Served;

mod over;

/// Shows D5.
#[test]
fn all_databases_of_a_server_change_in_one_moment() {
    let Some(cluster) = Cluster::shared("all_databases_of_a_server_change_in_one_moment") else { return };
    let names = ["moment a", "moment b", "moment c"].map(|stem| cluster.create_db(stem, ""));
    let served = Served::new(cluster, &names.each_ref().map(String::as_str));
    for name in &names {
        cluster.sql(name, "CREATE TABLE marker AS SELECT 'backed up' AS state");
    }
    served.backup();
    for name in &names {
        cluster.sql(name, "UPDATE marker SET state = 'live'");
    }
    let list = names.each_ref().map(|name| literal(name)).join(", ");
    let who = format!(
        "SELECT string_agg(datname || '=' || oid, ',' ORDER BY datname) FROM pg_database WHERE datname IN ({list})"
    );
    let old = cluster.sql("postgres", &who);
    let watcher = cluster.psql("postgres", &format!("{who} \\watch 0.005\n"), []).start();
    served.force(&[]).ok();
    let new = cluster.sql("postgres", &who);
    watcher.signal(rustix::process::Signal::TERM);
    let seen = watcher.wait().code(143).stdout;
    let mut seen: Vec<&str> = seen.lines().filter(|line| line.contains('=')).collect();
    seen.dedup();
    assert_eq!(seen, [old.as_str(), new.as_str()], "first all old ones, then all new ones");
    assert!(old.split(',').zip(new.split(',')).all(|(old, new)| old != new), "{old} {new}");
    for name in &names {
        assert_eq!(cluster.sql(name, "SELECT state FROM marker"), "backed up");
    }
    served.env.lifeboat(["restore", "--discard"]).ok();
    served.assert_nothing_left("restored and discarded");
}

/// Shows D5, R10.
#[test]
fn what_was_replaced_is_kept_and_listed_and_can_be_put_back() {
    let Some(cluster) = Cluster::shared("what_was_replaced_is_kept_and_listed_and_can_be_put_back") else { return };
    // Only the beginning of a long name stands in the names that are made from it.
    let name = cluster.create_db(&format!("kept {}", "ä".repeat(25)), "CONNECTION LIMIT 7");
    let served = Served::new(cluster, &[&name]);
    served.sql(TABLE);
    let backed_up = fingerprint(cluster, &name);
    served.backup();
    served.sql(CHANGE);
    let live = fingerprint(cluster, &name);
    let is = |expected: &str, what: &str| assert_same_database(expected, &fingerprint(cluster, &name), what);

    let said = served.force(&[]).ok().stdout;
    is(&backed_up, "restored");
    let [kept] = served.others().try_into().expect("one is kept");
    assert!(kept.len() <= 63 && kept.contains("__was_"), "{kept}");
    let status = served.env.lifeboat(["status"]).ok().stdout;
    assert!(status.contains(&format!("as the database {kept} on")), "{status}");
    assert!(said.contains(&kept) && said.contains("1 database of"), "{said}");
    let refused = cluster.psql(&kept, "SELECT 1", []).run().code(2).stderr;
    assert!(refused.contains("not currently accepting connections"), "{refused}");

    served.env.lifeboat(["restore", "--undo"]).code(22);
    is(&backed_up, "nobody agreed");
    served.env.lifeboat(["restore", "--undo", "--force"]).ok();
    is(&live, "undone");
    served.env.lifeboat(["restore", "--undo", "--force"]).ok();
    is(&backed_up, "the undo undone");
    assert_eq!(served.others().len(), 1);
    served.env.lifeboat(["restore", "--discard"]).ok();
    is(&backed_up, "discarded");
    served.assert_nothing_left("discarded");

    served.sql(CHANGE);
    let said = served.force(&["--keep-replaced", "0s"]).ok().stdout;
    assert!(said.contains("what was replaced is gone"), "{said}");
    is(&backed_up, "nothing kept");
    served.assert_nothing_left("nothing kept");

    served.drop_it();
    served.restore(&[]).ok();
    is(&backed_up, "where there was none");
    served.env.lifeboat(["restore", "--undo", "--force"]).ok();
    assert!(!cluster.databases().contains(&name), "there was none before");
    served.env.lifeboat(["restore", "--undo", "--force"]).ok();
    is(&backed_up, "the undo undone");
    served.env.lifeboat(["restore", "--discard"]).ok();
    served.assert_nothing_left("made, undone, made again");
}

/// Refused before anything was done, with this code and these words; also by a dry run.
fn refused(served: &Served<'_>, options: &[&str], code: i32, words: &[&str]) {
    for more in [&["--force"][..], &["--dry-run"]] {
        let said = served.restore(&[more, options].concat()).code(code).stderr;
        for word in words {
            assert!(said.contains(word), "{word} is not in:\n{said}");
        }
    }
    served.assert_open("refused");
    served.assert_nothing_left("refused");
}

/// Shows D5.
#[test]
fn what_would_be_lost_with_the_live_database_is_refused_by_name() {
    let Some(cluster) = Cluster::shared("what_would_be_lost_with_the_live_database_is_refused_by_name") else { return };
    let name = cluster.create_db("tied", "");
    let served = Served::new(cluster, &[&name]);
    served.sql(TABLE);
    served.backup();

    let own = |what: &str| format!("{what}_{}", name.replace(' ', "_"));
    let (prepared, slot, subscription) = (own("prepared"), own("slot"), own("subscription"));
    served.sql(&format!("BEGIN; CREATE TABLE in_doubt (x int); PREPARE TRANSACTION '{prepared}'"));
    refused(&served, &[], 22, &["a prepared transaction", &prepared, "ROLLBACK PREPARED"]);
    served.sql(&format!("ROLLBACK PREPARED '{prepared}'"));

    served.sql(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    refused(&served, &[], 22, &["a logical replication slot", &slot, "pg_drop_replication_slot"]);
    served.sql(&format!("SELECT pg_drop_replication_slot('{slot}')"));

    served
        .sql(&format!("CREATE SUBSCRIPTION {subscription} CONNECTION 'dbname=x' PUBLICATION p WITH (connect = false)"));
    refused(&served, &[], 22, &["a subscription", &subscription, "DROP SUBSCRIPTION"]);
    served.sql(&format!("ALTER SUBSCRIPTION {subscription} SET (slot_name = NONE); DROP SUBSCRIPTION {subscription}"));

    served.keep_archive();
    edit(&served.env, "own.tar.zst", "shop.tar.zst", |it| it.postgres()["server_version"] = 990_000.into());
    refused(&served, &[], 17, &["PostgreSQL 99", "which is older"]);
    edit(&served.env, "own.tar.zst", "shop.tar.zst", |it| {
        it.database(0)["extensions"] = serde_json::json!(["plpgsql_of_elsewhere"]);
    });
    refused(&served, &[], 1, &["lacks the extension plpgsql_of_elsewhere"]);
    refused(&served, &["--mode", "merge"], 2, &["cannot be merged"]);
}

/// Shows D5.
#[test]
fn a_role_that_may_not_exchange_databases_is_told_what_it_lacks() {
    let Some(cluster) = Cluster::shared("a_role_that_may_not_exchange_databases_is_told_what_it_lacks") else { return };
    let role = cluster.role("may little", "LOGIN");
    let name = cluster.create_db("of little", &format!("OWNER {}", ident(&role.name)));
    let served = Served::by(cluster, &role, &[&name]);
    let own = |sql: &str| served.sql(&format!("SET ROLE {}; {sql}", ident(&role.name)));
    own(TABLE);
    served.backup();
    refused(&served, &[], 16, &[&role.name, "may not create databases", "--in-place", "CREATEDB"]);
    cluster.sql("postgres", &format!("ALTER ROLE {} CREATEDB", ident(&role.name)));

    let session = cluster.psql(&name, "SELECT pg_sleep(600)", []).start();
    let found = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = {}", literal(&name));
    while cluster.sql("postgres", &found) != "1" {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    refused(&served, &[], 16, &["may not end the sessions of postgres", &name, "superuser"]);
    cluster.sql(
        "postgres",
        &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}", literal(&name)),
    );
    session.wait().code(2);

    cluster.sql("postgres", &format!("ALTER DATABASE {} OWNER TO postgres", ident(&name)));
    refused(&served, &[], 16, &["belongs to postgres", &role.name, "may not rename it"]);
    cluster.sql("postgres", &format!("ALTER DATABASE {} OWNER TO {}", ident(&name), ident(&role.name)));
    own(CHANGE);
    served.force(&["--keep-replaced", "0s"]).ok();
    assert_eq!(served.sql("SELECT count(*) FROM goods"), "20");
    served.assert_nothing_left("with all rights");
}

/// Shows D5.
#[test]
fn a_standby_is_refused() {
    let Some(cluster) = Cluster::own("a_standby_is_refused", &[]) else { return };
    let name = cluster.create_db("copied", "");
    let served = Served::new(&cluster, &[&name]);
    served.sql(TABLE);
    served.backup();
    cluster.stop("INT");
    cluster.become_standby();
    cluster.start();
    served.configure("");
    refused(&served, &[], 1, &["is a standby", "primary server"]);
}
