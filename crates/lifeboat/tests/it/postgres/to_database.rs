//! `--to-database`: one database under another name, beside what is live.

use super::cluster::Cluster;
use super::edited::edit;
use super::fingerprint::{assert_same_database, fingerprint};
use super::odd::Odd;
use super::restore::{CHANGE, TABLE};
use super::served::Served;

/// Shows D8.
#[test]
fn a_database_is_restored_under_another_name_and_says_how_to_drop_it() {
    let Some(cluster) = Cluster::shared("a_database_is_restored_under_another_name_and_says_how_to_drop_it") else {
        return;
    };
    let odd = Odd::of_superuser(cluster);
    let served = Served::new(cluster, &[&odd.name]);
    let backed_up = fingerprint(cluster, &odd.name);
    served.backup();
    served.sql("DROP TABLE public.toasted");
    let live = fingerprint(cluster, &odd.name);
    let copy = format!("{} it's a copy", odd.name.chars().take(20).collect::<String>());
    let said = served.restore(&["--to-database", &copy]).ok().stdout;
    assert_same_database(&backed_up, &fingerprint(cluster, &copy), "under another name");
    assert_same_database(&live, &fingerprint(cluster, &odd.name), "the live one");
    let rows = cluster.sql(&copy, "SELECT count(*) FROM public.all_values");
    assert!(said.lines().any(|line| line.trim() == format!("{rows}  public.all_values")), "{said}");
    let drop = said.lines().find_map(|line| line.strip_prefix("Next: ")).unwrap().replace("   to drop it", "");
    served.env.run("sh", ["-c", &drop]).ok();
    assert!(!cluster.databases().contains(&copy), "{drop}");
    served.assert_nothing_left("dropped by the command that was named");

    let lines = served.restore(&["--to-database", &copy, "--json"]).ok().json_lines();
    let summary = lines.iter().find(|line| line["message_type"] == "summary").unwrap();
    assert_eq!((&summary["name"], &summary["of"]), (&copy.as_str().into(), &odd.name.as_str().into()));
    assert_eq!(summary["tables"]["public.all_values"].to_string(), rows);
    cluster.drop_db(&copy);
}

/// Shows D8.
#[test]
fn what_is_there_is_replaced_only_when_it_is_empty_or_that_is_forced_and_a_live_one_never() {
    const TEST: &str = "what_is_there_is_replaced_only_when_it_is_empty_or_that_is_forced_and_a_live_one_never";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let [first, second, there] = ["to first", "to second", "to there"].map(|stem| cluster.create_db(stem, ""));
    let served = Served::new(cluster, &[&first, &second]);
    for name in [&first, &second] {
        cluster.sql(name, TABLE);
    }
    served.backup();
    served.sql(CHANGE);
    let to = |name: &str, more: &[&str], code: i32, words: &[&str]| {
        let said = served.restore(&[&["--to-database", name], more].concat()).code(code);
        let said = said.stdout + &said.stderr;
        words.iter().for_each(|word| assert!(said.contains(word), "{word} is not in:\n{said}"));
    };
    let first_only = ["--only", &format!("db/{first}")];
    let (long, other) = ("x".repeat(64), format!("{there} other"));
    to(&other, &[], 2, &["takes one database", "--only SOURCE/DATABASE", &first, &second]);
    to(&other, &["--only", "db"], 2, &["takes one database"]);
    to(&other, &["--only", "db/none"], 2, &["takes one database"]);
    for name in ["postgres", "template0", "template1", "", &long] {
        to(name, &first_only, 2, &["no name that a copy can have"]);
    }
    for name in [&first, &second] {
        to(name, &[&first_only[..], &["--force"]].concat(), 2, &["is a live one"]);
    }
    assert_eq!(cluster.sql(&first, "SELECT count(*) FROM goods"), "15", "the live one is as it was");

    to(&there, &first_only, 0, &["Restored", "20  public.goods", "which replaced another one"]);
    cluster.sql(&there, "DELETE FROM goods");
    to(&there, &first_only, 22, &["exists and is not empty", "--force"]);
    assert_eq!(cluster.sql(&there, "SELECT count(*) FROM goods"), "0");
    to(&there, &[&first_only[..], &["--force"]].concat(), 0, &["Restored"]);
    assert_eq!(cluster.sql(&there, "SELECT count(*) FROM goods"), "20");
    for (options, word) in
        [(&["--to", "x"][..], "--to"), (&["--dry-run"], "--dry-run"), (&["--in-place"], "--in-place")]
    {
        to(&other, &[&first_only[..], options].concat(), 2, &[word]);
    }
    served.env.write("lifeboat.yaml", "apps: { other: { sources: { x: { files: { root: /srv/x } } } } }\n");
    to(&other, &first_only, 2, &["no server is configured for the source db"]);
    assert!(!cluster.databases().contains(&other));
    served.configure("");
    served.assert_nothing_left("refused or done");
}

/// Shows D8, D11.
#[test]
fn a_restore_under_another_name_that_fails_leaves_nothing() {
    let Some(cluster) = Cluster::shared("a_restore_under_another_name_that_fails_leaves_nothing") else { return };
    let [name, there] = ["fails", "is there"].map(|stem| cluster.create_db(stem, ""));
    let served = Served::new(cluster, &[&name]);
    served.sql(TABLE);
    cluster.sql(&there, "CREATE TABLE precious AS SELECT 1 AS x");
    served.backup();
    served.keep_archive();
    let copy = format!("{name} copy");
    // Other tests use this server too.
    let all = || -> Vec<String> {
        let own = |found: &String| [&name, &there].iter().any(|own| found.starts_with(own.as_str()));
        cluster.databases().into_iter().filter(own).collect()
    };
    let before = all();
    let fails = |code: i32, word: &str| {
        for to in [&there, &copy] {
            let said = served.restore(&["--to-database", to, "--force"]).code(code).stderr;
            assert!(said.contains(word) && said.contains("nothing was changed"), "{said}");
            assert_eq!(all(), before, "{word}");
        }
        assert_eq!(cluster.sql(&there, "SELECT * FROM precious"), "1");
        served.assert_nothing_left(word);
    };
    edit(&served.env, "own.tar.zst", "shop.tar.zst", |it| it.database(0)["tables"]["public.goods"]["rows"] = 21.into());
    fails(19, "public.goods has 20 rows, expected 21");
    edit(&served.env, "own.tar.zst", "shop.tar.zst", |it| {
        let whole = it.dump(0).len();
        it.dump(0).truncate(whole - 40);
    });
    fails(13, "could not be restored");
    edit(&served.env, "own.tar.zst", "shop.tar.zst", |it| {
        it.files.values_mut().for_each(|content| content.clear());
    });
    fails(13, "could not be restored");
    let damaged = served.env.read("own.tar.zst");
    served.env.write("shop.tar.zst", &damaged[..damaged.len() - damaged.len() / 4]);
    served.restore(&["--to-database", &copy]).code(13);
    assert_eq!(all(), before);
}
