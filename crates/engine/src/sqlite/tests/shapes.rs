//! Databases of every shape: what is copied, counted, left out and found damaged.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt as _, symlink};
use std::time::Instant;

use super::*;

fn rows(facts: &Facts) -> Vec<(&str, u64)> {
    facts.tables.iter().map(|(name, rows)| (name.as_str(), *rows)).collect()
}

/// Everything that `sql` asks of the database at `path`, as text.
fn ask(path: &Path, sql: &str) -> String {
    let connection = Connection::open(path).unwrap();
    connection
        .query_row(sql, [], |row| row.get::<_, rusqlite::types::Value>(0))
        .map(|value| format!("{value:?}"))
        .unwrap()
}

/// Shows P3.
#[test]
fn every_page_size_and_way_to_vacuum_is_copied() {
    for bits in 9..=16 {
        for (vacuum, mode) in [("none", "wal"), ("full", "delete"), ("incremental", "wal")] {
            let size = 1_u32 << bits;
            let place = Place::with(&format!(
                "PRAGMA page_size={size}; PRAGMA auto_vacuum={vacuum}; PRAGMA journal_mode={mode}; CREATE TABLE t(x, y);
                 CREATE INDEX i ON t(y);
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
                 INSERT INTO t SELECT i, randomblob(i * 7) FROM n; DELETE FROM t WHERE x % 3 = 0"
            ));
            let sum = ask(&place.db(), "SELECT hex(group_concat(y, '')) FROM (SELECT y FROM t ORDER BY x)");
            let copied = place.copy(&[]).unwrap();
            assert_eq!((copied.facts.page_size, rows(&copied.facts)), (size, vec![("t", 200)]), "{vacuum}");
            let is_wal = mode == "wal";
            assert_eq!(copied.facts.journal_mode, if is_wal { "wal" } else { "rollback" });
            let kept = place.kept(copied);
            assert_eq!(std::fs::read(&kept).unwrap()[18..20], if is_wal { [2, 2] } else { [1, 1] });
            assert_eq!(ask(&kept, "SELECT hex(group_concat(y, '')) FROM (SELECT y FROM t ORDER BY x)"), sum, "{size}");
            check_at_rest(&kept, Some(&BTreeMap::from([("t".to_owned(), 200)])), &Cancel::new()).unwrap();
        }
    }
}

/// Shows P3.
#[test]
fn every_kind_of_table_is_copied_and_counted() {
    let place = Place::with(
        "CREATE TABLE plain(x); INSERT INTO plain VALUES (1), (2);
         CREATE TABLE keyed(k TEXT PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO keyed VALUES ('a', 1), ('b', 2), ('c', 3);
         CREATE TABLE made(x INT, y INT AS (x * 2) STORED, z INT AS (x + 1) VIRTUAL); INSERT INTO made(x) VALUES (5);
         CREATE TABLE \"strict \"\"one\"\"\"(n INTEGER) STRICT; INSERT INTO \"strict \"\"one\"\"\" VALUES (7);
         CREATE TABLE [empty];x](a); CREATE VIEW seen AS SELECT * FROM plain;
         CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO counted DEFAULT VALUES;
         CREATE TRIGGER t AFTER DELETE ON plain BEGIN INSERT INTO plain VALUES (9); END;
         CREATE VIRTUAL TABLE found USING fts5(body); INSERT INTO found VALUES ('a lifeboat'), ('a raft');
         CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1); INSERT INTO boxes VALUES (1, 0, 1)"
            .replace("[empty];x]", "\"empty];x\"")
            .as_str(),
    );
    let copied = place.copy(&[]).unwrap();
    let expected = [("counted", 1), ("empty];x", 0), ("keyed", 3), ("made", 1), ("plain", 2), ("strict \"one\"", 1)];
    assert_eq!(rows(&copied.facts), expected);
    assert!(copied.facts.unchecked.is_empty() && copied.facts.notes.is_empty(), "{:?}", copied.facts);
    let kept = place.kept(copied);
    assert_eq!(ask(&kept, "SELECT body FROM found('lifeboat')"), "Text(\"a lifeboat\")");
    assert_eq!(ask(&kept, "SELECT y + z FROM made"), "Integer(16)");
}

#[test]
fn a_database_without_content_is_one() {
    let place = Place::new();
    File::create_new(place.db()).unwrap();
    let copied = place.copy(&[]).unwrap();
    assert_eq!((copied.size, rows(&copied.facts)), (4096, vec![]), "SQLite gives it its first page");
}

/// Shows P3.
#[test]
fn a_database_over_one_gib_is_copied() {
    let place = Place::with(
        "PRAGMA page_size=65536; PRAGMA synchronous=OFF; PRAGMA journal_mode=OFF; CREATE TABLE t(id INTEGER PRIMARY KEY, x);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 105)
         INSERT INTO t SELECT i, zeroblob(10 << 20) FROM n; UPDATE t SET x = 'last' WHERE id = 105",
    );
    let began = Instant::now();
    let copied = place.copy(&[]).unwrap();
    assert!(copied.size > 1 << 30, "{}", copied.size);
    assert_eq!(rows(&copied.facts), [("t", 105)]);
    println!("a database of {} bytes was copied and checked in {:?}", copied.size, began.elapsed());
}

/// What stands in no copy from which it was left out.
const CANARY: &str = "canary-5f1e";

/// Shows P3.
#[test]
fn rows_of_excluded_tables_are_nowhere_in_the_copy() {
    for mode in ["wal", "delete"] {
        let place = Place::with(
            &"PRAGMA journal_mode=MODE; PRAGMA foreign_keys=ON;
             CREATE TABLE keep(id INTEGER PRIMARY KEY, x); INSERT INTO keep VALUES (1, 'kept'), (7, 'kept too');
             CREATE TABLE Metrics_cpu(id INTEGER PRIMARY KEY, x, keep REFERENCES keep(id)); CREATE INDEX mx ON Metrics_cpu(x);
             CREATE TABLE metrics_disk(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
             CREATE TABLE child(m REFERENCES Metrics_cpu(id) ON DELETE CASCADE); CREATE TABLE audit(what);
             CREATE TRIGGER gone AFTER DELETE ON Metrics_cpu BEGIN INSERT INTO audit VALUES (old.x); END;
             CREATE VIRTUAL TABLE metrics_text USING fts5(body, tokenize = porter);
             CREATE VIRTUAL TABLE words USING fts5(body);
             INSERT INTO words VALUES ('kept words');
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
             INSERT INTO Metrics_cpu SELECT i, 'CANARY' || i || hex(zeroblob(i * 10)), 7 FROM n;
             INSERT INTO metrics_disk SELECT x, x FROM Metrics_cpu; INSERT INTO metrics_text SELECT 'CANARY ' || id FROM Metrics_cpu;
             INSERT INTO child VALUES (3);
             CREATE TABLE gone(x); INSERT INTO gone SELECT x FROM Metrics_cpu; DROP TABLE gone"
                .replace("MODE", mode)
                .replace("CANARY", CANARY),
        );
        let holds = |path: &Path| {
            let bytes = std::fs::read(path).unwrap();
            // The tokenizer divides the word.
            ["canary", "5f1e"].iter().any(|part| bytes.windows(part.len()).any(|window| window == part.as_bytes()))
        };
        let whole = place.kept(place.copy(&["nothing_*"]).unwrap());
        assert!(holds(&whole), "it can be found");
        std::fs::remove_file(whole).unwrap();

        let copied = place.copy(&["metrics_*", "no such"]).unwrap();
        let facts = copied.facts.clone();
        assert_eq!(facts.excluded_tables, ["Metrics_cpu", "metrics_disk", "metrics_text"]);
        assert_eq!(rows(&facts), [("audit", 0), ("child", 1), ("keep", 2)]);
        assert_eq!(facts.notes, ["exclude_tables: no table is called no such"]);
        assert_eq!(facts.journal_mode, if mode == "wal" { "wal" } else { "rollback" });
        let kept = place.kept(copied);
        assert!(!holds(&kept), "{mode}");
        assert_eq!(std::fs::read(&kept).unwrap()[18], if mode == "wal" { 2 } else { 1 });
        check_at_rest(&kept, Some(&facts.tables), &Cancel::new()).unwrap();
        for table in ["Metrics_cpu", "metrics_disk", "metrics_text"] {
            assert_eq!(ask(&kept, &format!("SELECT count(*) FROM {table}")), "Integer(0)");
        }
        let connection = Connection::open(&kept).unwrap();
        let still = "INSERT INTO metrics_text VALUES ('running'); INSERT INTO Metrics_cpu VALUES (1, 'y', 7);
            INSERT INTO metrics_text(metrics_text) VALUES ('integrity-check')";
        connection.execute_batch(still).unwrap();
        assert_eq!(
            ask(&kept, "SELECT body FROM metrics_text('run')"),
            "Text(\"running\")",
            "its tokenizer is the same"
        );
        assert_eq!(ask(&kept, "SELECT body FROM words('kept')"), "Text(\"kept words\")");
        assert_eq!(ask(&kept, "SELECT max(id) FROM keep"), "Integer(7)", "rows have their numbers");
    }
}

#[test]
fn what_only_the_application_knows_leaves_a_database_whole() {
    if !can_run("what_only_the_application_knows_leaves_a_database_whole", &["python3"]) {
        return;
    }
    let place = Place::new();
    let made = r#"
c = sqlite3.connect(path)
c.create_collation('app_order', lambda a, b: (a > b) - (a < b))
c.create_function('app_form', 1, lambda x: x, deterministic=True)
c.executescript("""CREATE TABLE known(x); INSERT INTO known VALUES (1), (2);
    CREATE TABLE own(x TEXT COLLATE app_order); CREATE INDEX ox ON own(x); INSERT INTO own VALUES ('a'), ('b');
    CREATE TABLE keyed(k TEXT COLLATE app_order PRIMARY KEY) WITHOUT ROWID; INSERT INTO keyed VALUES ('a');
    CREATE TABLE formed(x); CREATE INDEX fx ON formed(app_form(x)); INSERT INTO formed VALUES (1), (2), (3)""")"#;
    python(&place.db(), made);
    let copied = place.copy(&[]).unwrap();
    let counted = ["known", "own", "formed"].map(|table| copied.facts.tables.get(table).copied());
    assert_eq!(counted, [Some(2), Some(2), Some(3)], "{:?}", copied.facts);
    let unchecked = copied.facts.unchecked.join("\n");
    assert!(unchecked.contains("integrity as a whole: ") && unchecked.contains("app_order"), "{unchecked}");
    assert!(unchecked.contains("integrity of table own: "), "{unchecked}");
    assert!(!unchecked.contains("table known"), "what can be checked is: {unchecked}");
    let kept = place.kept(copied);
    let expected = BTreeMap::from([("known".to_owned(), 2), ("own".to_owned(), 2)]);
    check_at_rest(&kept, Some(&expected), &Cancel::new()).unwrap();
    // Damage of a table that is known is still found.
    let root = ask(&kept, "SELECT rootpage FROM sqlite_schema WHERE name = 'known'");
    let root: u64 = root.trim_start_matches("Integer(").trim_end_matches(')').parse().unwrap();
    File::options().write(true).open(&kept).unwrap().write_all_at(&[0xff; 20], (root - 1) * 4096).unwrap();
    assert_eq!(check_at_rest(&kept, None, &Cancel::new()).unwrap_err().kind(), ErrorKind::Corrupt);
    let excluded = place.copy(&["own", "keyed", "formed"]).unwrap();
    assert_eq!(excluded.facts.excluded_tables, ["formed", "keyed", "own"]);
}

#[test]
fn rows_that_break_a_constraint_are_a_note_and_no_damage() {
    let place = Place::with(
        "CREATE TABLE t(x INT CHECK (x > 0), y); PRAGMA ignore_check_constraints=ON; INSERT INTO t VALUES (-1, 5), (2, NULL);
         PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql = replace(sql, ', y)', ', y NOT NULL)')",
    );
    let copied = place.copy(&[]).unwrap();
    assert_eq!(copied.facts.notes, ["NULL value in t.y"]);
    assert_eq!(rows(&copied.facts), [("t", 2)]);
    // SQLite looks at CHECK only where it could write.
    let checked = check::check(&Connection::open(place.db()).unwrap(), &Cancel::new()).unwrap();
    assert_eq!(checked.facts.notes, ["CHECK constraint failed in t", "NULL value in t.y"]);
    assert!(checked.findings.is_empty());
}

/// Shows P3.
#[test]
fn a_damaged_database_is_a_failed_source_and_missing_rows_are_found() {
    let place = Place::with(
        "CREATE TABLE t(x); CREATE INDEX i ON t(x);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO t SELECT i * 1000003 FROM n",
    );
    let facts = check_at_rest(&place.db(), None, &Cancel::new()).unwrap();
    assert_eq!(rows(&facts), [("t", 3000)]);
    for (table, expected) in [("t", "table t has 3000 rows instead of 3001"), ("u", "table u is missing")] {
        let wanted = BTreeMap::from([(table.to_owned(), 3001)]);
        let error = check_at_rest(&place.db(), Some(&wanted), &Cancel::new()).unwrap_err();
        assert!(error.kind() == ErrorKind::Corrupt && error.what().ends_with(expected), "{error}");
    }
    let pages = place.db().metadata().unwrap().len() / 4096;
    let file = File::options().write(true).open(place.db()).unwrap();
    for page in [1, pages / 2, pages - 1] {
        let mut before = vec![0; 4096];
        File::open(place.db()).unwrap().read_exact_at(&mut before, page * 4096).unwrap();
        file.write_all_at(&[0x5a; 300], page * 4096).unwrap();
        let error = place.copy(&[]).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::SourceFailed);
        assert!(error.what().contains("app.db is damaged: "), "{error}");
        assert_eq!(check_at_rest(&place.db(), None, &Cancel::new()).unwrap_err().kind(), ErrorKind::Corrupt);
        file.write_all_at(&before, page * 4096).unwrap();
    }
    place.copy(&[]).unwrap();
    assert_eq!(place.names(), ["app.db"]);
}

#[test]
fn what_is_no_database_says_so() {
    let place = Place::new();
    let pin = || Pinned::new(&place.db(), SOON, &Cancel::new()).err().unwrap();
    let error = pin();
    assert!(error.kind() == ErrorKind::SourceFailed && error.what().contains("cannot be opened"), "{error}");
    for content in [vec![0x17; 8192], [MAGIC.as_slice(), &[0; 8176]].concat()] {
        std::fs::remove_file(place.db()).unwrap_or(());
        File::create_new(place.db()).unwrap().write_all(&content).unwrap();
        let error = pin();
        assert!(error.kind() == ErrorKind::SourceFailed && error.what().contains("is no SQLite database"), "{error}");
        assert_eq!(check_at_rest(&place.db(), None, &Cancel::new()).unwrap_err().kind(), ErrorKind::Corrupt);
    }
    std::fs::remove_file(place.db()).unwrap();
    std::fs::create_dir(place.db()).unwrap();
    assert!(pin().what().contains("no regular file"));
}

#[test]
fn a_log_that_is_a_symlink_is_not_followed() {
    let place = Place::with("PRAGMA journal_mode=wal; CREATE TABLE t(x)");
    let elsewhere = place.dir.path().join("elsewhere");
    symlink(&elsewhere, beside(&place.db(), "-wal")).unwrap();
    let error = Pinned::new(&place.db(), SOON, &Cancel::new()).err().unwrap();
    assert!(error.what().contains("app.db-wal is no regular file"), "{error}");
    assert!(!elsewhere.exists());
}

#[test]
fn a_query_answers_with_its_first_value_and_cannot_write() {
    let place =
        Place::with("PRAGMA journal_mode=wal; CREATE TABLE t(x); INSERT INTO t VALUES (1), (NULL), (2.5), ('word')");
    let ask = |query: &str| query_value(&place.db(), query, SOON, &Cancel::new());
    for (query, value) in [
        ("SELECT x, 7 FROM t", Some("1")),
        ("SELECT x FROM t WHERE rowid = 2", None),
        ("SELECT x FROM t WHERE rowid = 3", Some("2.5")),
        ("SELECT x FROM t WHERE rowid = 4", Some("word")),
        ("SELECT x FROM t WHERE 0", None),
    ] {
        assert_eq!(ask(query).unwrap().as_deref(), value, "{query}");
    }
    for query in ["SELECT y FROM t", "DELETE FROM t", "INSERT INTO t VALUES (5) RETURNING x"] {
        let error = ask(query).unwrap_err();
        assert!(error.kind() == ErrorKind::Failed && error.next_step().is_some(), "{query}");
    }
    assert_eq!(rows(&place.copy(&[]).unwrap().facts), [("t", 4)]);
    assert_eq!(place.names(), ["app.db"]);
}

#[test]
fn a_copy_that_is_stopped_or_has_no_room_leaves_nothing() {
    let place = Place::with("CREATE TABLE t(x); INSERT INTO t VALUES (zeroblob(20000000))");
    let cancel = Cancel::new();
    let error = place.pin().copy(&place.scratch(), &[], &cancel, &|_| cancel.set()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(std::fs::read_dir(place.scratch()).unwrap().count(), 0);
    let error = place.pin().copy(&place.dir.path().join("missing"), &[], &Cancel::new(), &|_| {}).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Failed);
    // What a kill left is removed by the next; what belongs to a restore is not.
    for (id, text) in [("0", "copying\n"), ("1", "staging\n")] {
        let left = place.scratch().join(format!(".lifeboat-{}", id.repeat(32)));
        std::fs::create_dir_all(left.join("new")).unwrap();
        File::create_new(left.join("lifeboat-stage")).unwrap().write_all(text.as_bytes()).unwrap();
    }
    drop(place.pin().copy(&place.scratch(), &[], &Cancel::new(), &|_| {}).unwrap());
    let left: Vec<_> = std::fs::read_dir(place.scratch()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [format!(".lifeboat-{}", "1".repeat(32)).as_str()]);
}
