//! A dump counts when it is whole, whatever the program that made it says.

use lifeboat_store::testing::sweep;

use super::cluster::Cluster;
use super::edited::edit;
use super::programs::{bin_dir, pg_dump};
use super::restore::TABLE;
use super::served::Served;

/// Lengths of a dump that was cut short, those next to its ends always among them.
fn lengths(test: &str, all: usize) -> Vec<usize> {
    const CASES: usize = 100;
    let drawn = sweep(test, CASES, 12).into_iter().map(|case| 5 + (all - 5) * case / CASES);
    let mut lengths: Vec<usize> =
        drawn.chain([5, 6, 11, all / 2, all - 6, all - 5, all - 4, all - 2, all - 1]).collect();
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}

/// Shows D2.
#[test]
fn a_dump_cut_short_by_a_program_that_claims_success_makes_no_archive() {
    const TEST: &str = "a_dump_cut_short_by_a_program_that_claims_success_makes_no_archive";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let served = Served::new(cluster, &[&cluster.create_db("cut short", "")]);
    served.sql(&format!("{TABLE} SELECT lo_from_bytea(0, 'large')"));
    served.backup();
    let listed = served.env.lifeboat(["backup", "list", "--json", "shop.tar.zst"]).ok().json_lines();
    let is_dump = |entry: &&serde_json::Value| entry["path"].as_str().is_some_and(|path| path.ends_with(".dump"));
    let dump = listed.iter().find(is_dump).unwrap();
    let (name, size) = (dump["path"].as_str().unwrap(), usize::try_from(dump["size"].as_u64().unwrap()).unwrap());
    served.env.lifeboat(["backup", "verify", "shop.tar.zst"]).ok();
    std::fs::remove_file(served.env.path("shop.tar.zst")).unwrap();

    for length in lengths(TEST, size) {
        let dir = pg_dump(&served, &format!("\"$REAL\" \"$@\" | head -c {length}; exit 0"));
        served.configure_source(&bin_dir(&dir), "");
        let said = served.env.lifeboat(["backup", "shop", "-o", "shop.tar.zst"]).code(13).stderr;
        assert!(said.contains("a dump is not whole") && said.contains(name), "{length}: {said}");
        assert!(
            said.contains("pg_restore does not read all of it: exit code 1: pg_restore: error:"),
            "{length}: {said}"
        );
        assert!(!served.env.path("shop.tar.zst").exists(), "{length}");

        let unread = ["backup", "shop", "-o", "shop.tar.zst", "--no-verify-on-create"];
        served.env.lifeboat(unread).ok();
        let said = served.env.lifeboat(["backup", "verify", "shop.tar.zst"]).code(1).stdout;
        assert!(said.contains(&format!("FAIL {name} (pg_restore does not read all of it")), "{length}: {said}");
        assert!(said.contains("1 of "), "{length}: {said}");
        std::fs::remove_file(served.env.path("shop.tar.zst")).unwrap();
    }
    // Less than its first word is no dump at all.
    let dir = pg_dump(&served, "\"$REAL\" \"$@\" | head -c 4; exit 0");
    served.configure_source(&bin_dir(&dir), "");
    let said = served.env.lifeboat(["backup", "shop", "-o", "shop.tar.zst"]).code(18).stderr;
    assert!(said.contains("what it printed is no dump"), "{said}");
    assert!(!served.env.path("shop.tar.zst").exists());
}

/// Shows D2.
#[test]
fn a_plain_dump_without_its_end_is_found_however_it_lost_it() {
    const TEST: &str = "a_plain_dump_without_its_end_is_found_however_it_lost_it";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let served = Served::new(cluster, &[&cluster.create_db("plain", "")]);
    served.sql(TABLE);
    let plain = "          format: plain\n";
    served.configure_source(plain, "");
    served.backup();
    served.env.lifeboat(["backup", "verify", "shop.tar.zst"]).ok();
    let mut end = 0;
    edit(&served.env, "shop.tar.zst", "same.tar.zst", |edited| {
        let text = String::from_utf8(edited.dump(0).clone()).unwrap();
        end = text.rfind("\n-- PostgreSQL database dump complete").unwrap() + 20;
    });
    served.env.lifeboat(["backup", "verify", "same.tar.zst"]).ok();
    for length in lengths(TEST, end) {
        edit(&served.env, "shop.tar.zst", "cut.tar.zst", |edited| {
            // Empty lines instead of an end: a tar says how long it is.
            edited.dump(0)[length..].fill(b'\n');
        });
        let said = served.env.lifeboat(["backup", "verify", "cut.tar.zst"]).code(1).stdout;
        assert!(said.contains(".sql (it does not end as a dump does: it was cut short)"), "{length}: {said}");
    }
    let dir = pg_dump(&served, &format!("\"$REAL\" \"$@\" | head -c {end}; exit 0"));
    served.configure_source(&format!("{plain}{}", bin_dir(&dir)), "");
    let said = served.env.lifeboat(["backup", "shop", "-o", "none.tar.zst"]).code(18).stderr;
    assert!(said.contains("it does not end with \"-- PostgreSQL database dump complete\""), "{said}");
    assert!(!served.env.path("none.tar.zst").exists());
}

/// Shows D2.
#[test]
fn a_dump_that_no_program_here_reads_is_verified_by_its_sum_and_that_is_said() {
    const TEST: &str = "a_dump_that_no_program_here_reads_is_verified_by_its_sum_and_that_is_said";
    let Some(cluster) = Cluster::shared(TEST) else { return };
    let served = Served::new(cluster, &[&cluster.create_db("of the future", "")]);
    served.sql(TABLE);
    served.backup();
    edit(&served.env, "shop.tar.zst", "newer.tar.zst", |edited| {
        edited.postgres()["server_version"] = 990_001.into();
    });
    let said = served.env.lifeboat(["backup", "verify", "newer.tar.zst"]).ok().stdout;
    let note = ".dump: only its sum was compared: no pg_restore of version 99 or newer is installed here";
    assert!(said.contains("Note: postgres/db/") && said.contains(note), "{said}");
    let told = served.env.lifeboat(["backup", "verify", "--json", "newer.tar.zst"]).ok().json_lines();
    assert!(told.last().unwrap()["notes"][0].as_str().unwrap().contains(note), "{told:?}");
    // A format that only a newer program knows: the byte after the magic and the major version.
    edit(&served.env, "shop.tar.zst", "format.tar.zst", |edited| edited.dump(0)[6] = 99);
    let said = served.env.lifeboat(["backup", "verify", "format.tar.zst"]).ok().stdout;
    assert!(said.contains(".dump: only its sum was compared"), "{said}");
}
