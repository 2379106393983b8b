//! Backups of the structure alone, and in a format that is asked for.

use serde_json::Value;

use super::cluster::{Cluster, ident};
use super::restore::TABLE;
use super::served::Served;

/// The manifest of an archive.
pub(crate) fn head(served: &Served<'_>, archive: &str) -> Value {
    served.env.lifeboat(["backup", "list", "--json", archive]).ok().json_lines().swap_remove(0)
}

/// An app with one database of `owner`, who is no superuser, and one with files.
pub(crate) fn shop<'c>(cluster: &'c Cluster, stem: &str) -> (Served<'c>, String) {
    let owner = cluster.role("structure owner", "LOGIN").name;
    let database = cluster.create_db(stem, &format!("OWNER {}", ident(&owner)));
    let served = Served::new(cluster, &[&database]);
    served.sql(&format!("SET ROLE {}; CREATE SCHEMA own; SET search_path = own; {TABLE}", ident(&owner)));
    served.env.write("conf/a", "a");
    served.configure(&format!("      conf: {{ files: {{ root: {} }} }}\n", served.env.path("conf").display()));
    (served, database)
}

/// Shows D1.
#[test]
fn the_structure_alone_is_a_snapshot_of_its_own_kind() {
    const TEST: &str = "the_structure_alone_is_a_snapshot_of_its_own_kind";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let (served, database) = shop(cluster, "structure");
    let env = &served.env;
    let said = env.lifeboat(["backup", "shop", "--schema-only", "--dry-run"]).ok().stdout;
    assert!(said.contains("structure alone") && !said.contains("conf"), "{said}");
    let said = env.lifeboat(["backup", "shop", "--schema-only", "-o", "shop.tar.zst"]).ok().stdout;
    assert!(
        said.contains(&format!("database db/{database}: ")) && said.contains("its structure alone, dumped"),
        "{said}"
    );
    let listed = env.lifeboat(["backup", "list", "--json", "shop.tar.zst"]).ok().json_lines();
    let names: Vec<&str> = listed.iter().filter_map(|line| line["path"].as_str()).collect();
    assert_eq!(names, ["postgres/db/globals.sql".to_owned(), format!("postgres/db/{database}.schema.sql")]);
    let head = head(&served, "shop.tar.zst");
    let recorded = &head["sources"][0]["details"]["postgres"];
    assert_eq!((&head["outcome"], &recorded["schema_only"]), (&Value::from("scope"), &Value::from(true)));
    assert_eq!(recorded["databases"][0]["format"], "plain");
    env.lifeboat(["backup", "verify", "shop.tar.zst"]).ok();
    let copy = format!("{database} copy");
    let said = served.restore(&["--to-database", &copy]).code(22).stderr;
    assert!(said.contains("--allow-unauthenticated"), "{said}");
    served.restore(&["--to-database", &copy, "--allow-unauthenticated"]).ok();
    assert_eq!(cluster.sql(&copy, "SELECT count(*) FROM own.goods"), "0");
    cluster.drop_db(&copy);
    // In place it would be a database without its rows.
    let said = served.force(&["--allow-unauthenticated"]).code(2).stderr;
    assert!(said.contains("alone, which would take its place") && said.contains("--to-database"), "{said}");
    assert_eq!(served.sql("SELECT count(*) FROM own.goods"), "20");
}

/// Shows D1.
#[test]
fn a_format_is_asked_for_by_the_run() {
    const TEST: &str = "a_format_is_asked_for_by_the_run";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let (served, database) = shop(cluster, "format");
    let env = &served.env;
    for (format, suffix) in [("plain", "sql"), ("custom", "dump")] {
        let archive = format!("{format}.tar.zst");
        env.lifeboat(["backup", "shop", "--format", format, "-o", &archive]).ok();
        let head = head(&served, &archive);
        assert_eq!(head["outcome"], "good");
        let recorded = head["sources"].as_array().unwrap().iter().find(|source| source["name"] == "db").unwrap();
        let recorded = &recorded["details"]["postgres"]["databases"][0];
        assert_eq!(recorded["format"], format);
        assert_eq!(recorded["path"], format!("postgres/db/{database}.{suffix}"));
        env.lifeboat(["backup", "verify", &archive]).ok();
    }
    for options in [
        &["--schema-only", "--format", "plain"][..],
        &["--format", "tar"],
        &["--only", "conf", "--schema-only"],
        &["--only", "conf", "--format", "plain"],
    ] {
        env.lifeboat([&["backup", "shop", "-o", "none.tar.zst"], options].concat()).code(2);
    }
    env.lifeboat(["backup", "conf", "--schema-only"]).code(2);
    assert!(!env.path("none.tar.zst").exists());
}

/// Shows E9.
#[test]
fn a_database_of_a_server_is_not_merged_and_no_single_table_of_it_restored() {
    const TEST: &str = "a_database_of_a_server_is_not_merged_and_no_single_table_of_it_restored";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let (served, _) = shop(cluster, "merge");
    served.env.lifeboat(["backup", "shop", "-o", "shop.tar.zst"]).ok();
    for (options, expected) in [
        (&["--mode", "merge"][..], "the source db: databases of a server cannot be merged"),
        (&["--only", "db", "--tables", "goods"], "--tables goods: db has no SQLite database"),
    ] {
        let said = served.force(options).code(2).stderr;
        assert!(said.contains(expected), "{said}");
    }
}
