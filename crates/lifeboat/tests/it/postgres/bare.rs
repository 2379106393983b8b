//! One database as pg_dump writes it, with and without the manifest beside it.

use serde_json::Value;

use super::cluster::{Cluster, Role, ident};
use super::programs::{bin_dir, pg_dump};
use super::restore::TABLE;
use super::scopes::{head, shop};
use super::served::Served;

const COUNT: &str = "SELECT count(*) FROM own.goods";

/// It is in place again after a change, and beside what is live.
fn assert_restores(served: &Served<'_>, file: &str, more: &[&str], what: &str) {
    let restore = |options: &[&str]| served.env.lifeboat([&["restore", file], options, more].concat());
    served.sql("DELETE FROM own.goods WHERE id > 4");
    restore(&[]).code(22);
    restore(&["--force"]).ok();
    assert_eq!(served.sql(COUNT), "20", "{what}");
    let copy = format!("{} copy", served.database());
    restore(&["--to-database", &copy]).ok();
    assert_eq!(served.cluster.sql(&copy, COUNT), "20", "{what}");
    let owner = |name: &str| {
        let sql = format!("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = '{name}'");
        served.cluster.sql("postgres", &sql)
    };
    assert_eq!(owner(&copy), owner(served.database()), "{what}");
    served.cluster.drop_db(&copy);
    served.env.lifeboat(["restore", "--discard"]).ok();
}

/// Shows D1, D2.
#[test]
fn a_bare_dump_restores_with_and_without_its_manifest() {
    const TEST: &str = "a_bare_dump_restores_with_and_without_its_manifest";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let (served, database) = shop(cluster, "bare");
    let env = &served.env;
    for (format, file) in [("custom", "x.dump"), ("plain", "x.sql")] {
        env.lifeboat(["backup", "shop", "--only", "db", "--bare", "--format", format, "-o", file]).ok();
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&env.path(file).metadata().unwrap()) & 0o777, 0o600);
        let manifest: Value = serde_json::from_slice(&env.read("x.manifest.json")).unwrap();
        let recorded = &manifest["sources"][0]["details"]["postgres"]["databases"][0];
        assert_eq!((&recorded["tables"]["own.goods"]["rows"], &recorded["format"]), (&20.into(), &format.into()));
        assert_eq!(manifest["outcome"], "scope");
        assert_eq!(manifest["files"].as_array().unwrap().len(), 1);
        env.lifeboat(["backup", "verify", file]).ok();
        assert_eq!(head(&served, file)["id"], manifest["id"]);
        let agreed: &[&str] = if format == "plain" { &["--allow-unauthenticated"] } else { &[] };
        assert_restores(&served, file, agreed, &format!("{format} with its manifest"));

        std::fs::remove_file(env.path("x.manifest.json")).unwrap();
        let said = env.lifeboat(["backup", "verify", file]).code(1).stdout;
        assert!(said.contains("no manifest") && !said.contains("FAIL"), "{said}");
        let listed = env.lifeboat(["backup", "list", file]).ok().stdout;
        assert!(listed.contains(&format!("postgres/x/{file}")), "{listed}");
        assert_restores(&served, file, agreed, &format!("{format} without its manifest"));
        for name in ["db".to_owned(), "shop/db".to_owned(), format!("db/{database}"), format!("shop/db/{database}")] {
            served.sql("DELETE FROM own.goods WHERE id > 4");
            env.lifeboat([&["restore", file, "--as", &name, "--force"], agreed].concat()).ok();
            assert_eq!(served.sql(COUNT), "20", "{name}");
            env.lifeboat(["restore", "--discard"]).ok();
        }
        env.lifeboat(["restore", file, "--as", "conf", "--force"]).code(2);
        // Cut short, and nothing says how long it was.
        let whole = env.read(file);
        env.write(file, &whole[..whole.len() - whole.len() / 10]);
        let said = env.lifeboat(["backup", "verify", file]).code(1).stdout;
        assert!(said.contains(&format!("FAIL postgres/x/{file}")), "{said}");
        let before = served.sql("SELECT oid FROM pg_database WHERE datname = current_database()");
        let failed = env.lifeboat([&["restore", file, "--force"], agreed].concat()).exit_code();
        assert_ne!(failed, 0);
        assert_eq!(served.sql("SELECT oid FROM pg_database WHERE datname = current_database()"), before);
        std::fs::remove_file(env.path(file)).unwrap();
    }
    served.assert_nobody_left("all was restored");
}

/// Shows D1, D9.
#[test]
fn what_stock_pg_dump_wrote_restores() {
    const TEST: &str = "what_stock_pg_dump_wrote_restores";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let (served, database) = shop(cluster, "stock");
    for (flag, file) in [("-Fc", "stock.backup"), ("-Fp", "stock.SQL")] {
        let to = served.env.path(file).display().to_string();
        cluster.client("pg_dump", &database, [flag, "-f", &to]).run().ok();
        if flag == "-Fp" {
            let refused = served.env.lifeboat(["restore", file, "--force"]).code(22).stderr;
            assert!(refused.contains("--allow-unauthenticated"), "{refused}");
        }
        let agreed: &[&str] = if flag == "-Fp" { &["--allow-unauthenticated"] } else { &[] };
        assert_restores(&served, file, agreed, file);
    }
    // Where the live one is gone too, it is made as the server makes one, for who restores.
    served.drop_it();
    served.env.lifeboat(["restore", "stock.backup", "--force"]).ok();
    assert_eq!(served.sql(COUNT), "20");
    let owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()";
    assert_eq!(served.sql(owner), served.user);
}

/// Shows D1.
#[test]
fn only_one_database_can_be_bare() {
    const TEST: &str = "only_one_database_can_be_bare";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let names = ["one", "two"].map(|stem| cluster.create_db(stem, ""));
    let served = Served::new(cluster, &[&names[0], &names[1]]);
    let said = served.env.lifeboat(["backup", "shop", "--only", "db", "--bare"]).code(2).stderr;
    assert!(said.contains("--bare writes one database"), "{said}");
    cluster.client("pg_dump", &names[0], ["-Fc", "-f", served.env.path("x.dump").to_str().unwrap()]).run().ok();
    let said = served.env.lifeboat(["restore", "x.dump", "--force"]).code(2).stderr;
    assert!(said.contains("may be one of several") && said.contains(&format!("--as shop/db/{}", names[0])), "{said}");
    served.env.lifeboat(["restore", "x.dump", "--force", "--as", &format!("db/{}", names[1])]).ok();
}

/// Shows D2.
#[test]
fn a_bare_dump_that_was_cut_short_gets_no_name() {
    const TEST: &str = "a_bare_dump_that_was_cut_short_gets_no_name";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let served = Served::new(cluster, &[&cluster.create_db("bare and cut", "")]);
    served.sql(TABLE);
    let bare = ["backup", "shop", "--only", "db", "--bare", "-o", "x.dump"];
    for (script, code, why) in [
        ("\"$REAL\" \"$@\" | head -c 900; exit 0", 13, "a dump is not whole"),
        ("\"$REAL\" \"$@\" | head -c 900; echo gone >&2; exit 3", 18, "exit code 3: gone"),
    ] {
        served.configure_source(&bin_dir(&pg_dump(&served, script)), "");
        let said = served.env.lifeboat(bare).code(code).stderr;
        assert!(said.contains(why), "{said}");
        assert!(!served.env.path("x.dump").exists() && !served.env.path("x.manifest.json").exists());
    }
}

/// Shows D4.
#[test]
fn an_ordinary_owner_restores_a_stock_dump() {
    const TEST: &str = "an_ordinary_owner_restores_a_stock_dump";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let owner: Role = cluster.role("plain owner", "LOGIN CREATEDB");
    let database = cluster.create_db("of an owner", &format!("OWNER {}", ident(&owner.name)));
    cluster
        .sql(&database, &format!("SET ROLE {}; CREATE SCHEMA own; SET search_path = own; {TABLE}", ident(&owner.name)));
    let served = Served::by(cluster, &owner, &[&database]);
    for (flag, file) in [("-Fc", "stock.dump"), ("-Fp", "stock.sql")] {
        let to = served.env.path(file).display().to_string();
        cluster.client("pg_dump", &database, [flag, "-f", &to]).run().ok();
        assert_restores(&served, file, &["--allow-unauthenticated"], file);
    }
}
