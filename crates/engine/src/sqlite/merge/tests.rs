use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;

/// Two databases of one schema: a copy of the live one, and the snapshot's.
struct Pair {
    dir: TempDir,
}

impl Pair {
    fn new(schema: &str, live: &str, snapshot: &str) -> Self {
        let pair = Self { dir: tempfile::tempdir().unwrap() };
        for (name, rows) in [("live.db", live), ("snapshot.db", snapshot)] {
            let connection = Connection::open(pair.path(name)).unwrap();
            connection.execute_batch("PRAGMA foreign_keys=OFF").unwrap();
            connection.execute_batch(schema).unwrap();
            connection.execute_batch(rows).unwrap();
        }
        pair
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn merge(&self, wanted: &Wanted) -> Result<Merged> {
        merge(&self.path("live.db"), &self.path("snapshot.db"), wanted, &Cancel::new())
    }

    /// What the query finds, `|` between columns and a blank between rows.
    fn ask(&self, query: &str) -> String {
        let connection = Connection::open(self.path("live.db")).unwrap();
        let mut statement = connection.prepare(query).unwrap();
        let count = statement.column_count();
        let rows = statement.query_map([], |row| {
            let cells = (0..count).map(|at| match row.get_ref(at).unwrap() {
                rusqlite::types::ValueRef::Null => "NULL".to_owned(),
                rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                rusqlite::types::ValueRef::Real(number) => number.to_string(),
                other => String::from_utf8_lossy(other.as_bytes().unwrap()).into_owned(),
            });
            Ok(cells.collect::<Vec<_>>().join("|"))
        });
        rows.unwrap().map(|row| row.unwrap()).collect::<Vec<_>>().join(" ")
    }
}

fn all() -> Wanted {
    Wanted::default()
}

fn only(tables: &[&str]) -> Wanted {
    Wanted { tables: tables.iter().map(|&name| name.to_owned()).collect(), ..Wanted::default() }
}

fn by_key(keys: &[(&str, &[&str])]) -> Wanted {
    let keys = keys.iter().map(|(table, key)| ((*table).to_owned(), key.iter().map(|&name| name.to_owned()).collect()));
    Wanted { keys: keys.collect(), ..Wanted::default() }
}

/// Added, duplicates and conflicts of a table.
fn counts(merged: &Merged, table: &str) -> (u64, u64, u64) {
    let table = merged.tables.iter().find(|found| found.table == table).unwrap();
    (table.added, table.duplicates, table.conflicts)
}

fn refusal(pair: &Pair, wanted: &Wanted) -> String {
    let before = std::fs::read(pair.path("live.db")).unwrap();
    let error = pair.merge(wanted).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert_eq!(std::fs::read(pair.path("live.db")).unwrap(), before, "nothing was written: {error}");
    error.to_string()
}

#[test]
fn the_primary_key_decides_what_is_new_what_is_there_and_what_is_in_conflict() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE c(a TEXT COLLATE NOCASE, b, v, PRIMARY KEY (a, b)); \
         CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID; CREATE TABLE \"odd \"\"name\"(\"a b\" PRIMARY KEY, \"select\");";
    let live = "INSERT INTO t VALUES (1, 'a'), (2, 'live'); INSERT INTO c VALUES ('X', 1, 'a'); INSERT INTO w VALUES ('k', 1); \
         INSERT INTO \"odd \"\"name\" VALUES (1, 2)";
    let snapshot = "INSERT INTO t VALUES (1, 'a'), (2, 'other'), (3, 'c'); INSERT INTO c VALUES ('x', 1, 'a'), ('x', 2, 'b'); \
         INSERT INTO w VALUES ('k', 1.5), ('l', 2); INSERT INTO \"odd \"\"name\" VALUES (1, 2), (3, 4)";
    let pair = Pair::new(schema, live, snapshot);
    let merged = pair.merge(&all()).unwrap();
    assert_eq!(counts(&merged, "t"), (1, 1, 1));
    assert_eq!(counts(&merged, "c"), (1, 0, 1), "X and x are one key, and not the same");
    assert_eq!(counts(&merged, "w"), (1, 0, 1));
    assert_eq!(counts(&merged, "odd \"name"), (1, 1, 0));
    let keys: Vec<&String> = merged.tables.iter().flat_map(|table| &table.conflict_keys).collect();
    assert_eq!(keys, ["a=x, b=1", "id=2", "k=k"]);
    assert_eq!(pair.ask("SELECT * FROM t"), "1|a 2|live 3|c");
    assert_eq!(pair.ask("SELECT * FROM w"), "k|1 l|2");
    let again = pair.merge(&all()).unwrap();
    assert!(!again.changes());
    assert_eq!(counts(&again, "t"), (0, 2, 1));
}

#[test]
fn rows_without_a_key_are_there_as_often_as_the_side_has_them_that_has_more() {
    let schema = "CREATE TABLE t(a, b)";
    let live = "INSERT INTO t VALUES (1, 'x'), (1, 'x'), (NULL, NULL), (2, 'y')";
    let snapshot =
        "INSERT INTO t VALUES (1, 'x'), (1, 'x'), (1, 'x'), (NULL, NULL), ('1', 'x'), (1.0, 'x'), (1, x'78')";
    let pair = Pair::new(schema, live, snapshot);
    let merged = pair.merge(&all()).unwrap();
    assert_eq!(counts(&merged, "t"), (4, 3, 0));
    assert_eq!(pair.ask("SELECT count(*) FROM t WHERE typeof(a) = 'integer' AND typeof(b) = 'text' AND a = 1"), "3");
    assert!(!pair.merge(&all()).unwrap().changes());
}

#[test]
fn what_another_unique_index_or_a_check_does_not_take_is_a_conflict_and_so_is_what_refers_to_it() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT UNIQUE ON CONFLICT REPLACE, n CHECK (n > 0)); \
         CREATE UNIQUE INDEX i ON t(abs(n)) WHERE n < 100; \
         CREATE TABLE child(id INTEGER PRIMARY KEY, t_id REFERENCES t); \
         CREATE TABLE grandchild(a, child REFERENCES child(id), PRIMARY KEY (a, child)) WITHOUT ROWID";
    let live = "INSERT INTO t VALUES (1, 'live', 1)";
    let snapshot = "INSERT INTO t VALUES (2, 'live', 2), (3, 'same', 1), (4, NULL, 500), (5, NULL, 500); \
         PRAGMA ignore_check_constraints=ON; INSERT INTO t VALUES (6, 'six', -9); \
         INSERT INTO child VALUES (1, 2), (2, 4), (3, NULL), (4, 6); INSERT INTO grandchild VALUES ('x', 1), ('y', 2)";
    let pair = Pair::new(schema, live, snapshot);
    let merged = pair.merge(&all()).unwrap();
    assert_eq!(pair.ask("SELECT id, name FROM t ORDER BY id"), "1|live 4|NULL 5|NULL");
    assert_eq!(counts(&merged, "t"), (2, 0, 3));
    assert_eq!(pair.ask("SELECT * FROM child"), "2|4 3|NULL");
    assert_eq!(counts(&merged, "child"), (2, 0, 2));
    assert_eq!(pair.ask("SELECT * FROM grandchild"), "y|2");
    let keys = &merged.tables.iter().find(|table| table.table == "grandchild").unwrap().conflict_keys;
    assert_eq!(keys, &["a=x, child=1"]);
}

#[test]
fn what_referred_to_nothing_before_is_no_reason_to_refuse_and_not_added_to() {
    let schema = "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(id INTEGER PRIMARY KEY, p TEXT REFERENCES p); \
         CREATE TABLE tree(id INTEGER PRIMARY KEY, up REFERENCES tree(id))";
    let live = "INSERT INTO c VALUES (1, 77)";
    let snapshot = "INSERT INTO p VALUES (5); INSERT INTO c VALUES (2, '5'), (3, 88); \
         INSERT INTO tree VALUES (1, 2), (2, 1), (3, 9), (4, 3)";
    let pair = Pair::new(schema, live, snapshot);
    let merged = pair.merge(&all()).unwrap();
    assert_eq!(pair.ask("SELECT * FROM c"), "1|77 2|5");
    assert_eq!(pair.ask("SELECT * FROM tree"), "1|2 2|1");
    assert_eq!((counts(&merged, "c"), counts(&merged, "tree")), ((1, 0, 1), (2, 0, 2)));
}

#[test]
fn triggers_do_not_fire_and_stay_generated_columns_are_made_and_sequences_raised() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, v, twice AS (v * 2), stored AS (v * 3) STORED); \
         CREATE TABLE log(what); \
         CREATE TRIGGER  tr  AFTER INSERT ON t BEGIN INSERT INTO log VALUES ('fired');  END; \
         CREATE TRIGGER no BEFORE INSERT ON t WHEN new.v = 3 BEGIN SELECT raise(ABORT, 'no'); END;";
    let live = "INSERT INTO t(id, v) VALUES (1, 1); DELETE FROM log";
    let snapshot = "DROP TRIGGER no; INSERT INTO t(id, v) VALUES (2, 2), (3, 3), (90, 4); DELETE FROM t WHERE id = 90; DELETE FROM log; \
         CREATE TRIGGER no BEFORE INSERT ON t WHEN new.v = 3 BEGIN SELECT raise(ABORT, 'no'); END;";
    let pair = Pair::new(schema, live, snapshot);
    let of_schema = || pair.ask("SELECT type, name, rootpage, sql FROM sqlite_schema");
    let before = of_schema();
    pair.merge(&all()).unwrap();
    assert_eq!(of_schema(), before, "byte for byte");
    assert_eq!(pair.ask("SELECT id, twice, stored FROM t"), "1|2|3 2|4|6 3|6|9");
    assert_eq!(pair.ask("SELECT count(*) FROM log"), "0");
    assert_eq!(pair.ask("SELECT seq FROM sqlite_sequence"), "90");
}

#[test]
fn a_natural_key_gives_fresh_ids_and_references_follow() {
    let schema = "CREATE TABLE servers(id INTEGER PRIMARY KEY AUTOINCREMENT, host TEXT, port, note, up REFERENCES servers(id)); \
         CREATE TABLE apps(id INTEGER PRIMARY KEY, server_id INTEGER NOT NULL REFERENCES servers, name); \
         CREATE TABLE tags(server_id REFERENCES servers(id), tag, PRIMARY KEY (server_id, tag)) WITHOUT ROWID; \
         CREATE TABLE seen(server_id REFERENCES servers(id))";
    let live = "INSERT INTO servers VALUES (1, 'a', 22, '', NULL), (7, 'b', 22, 'live', 1); INSERT INTO apps VALUES (1, 7, 'web'); \
         INSERT INTO tags VALUES (7, 'x'); INSERT INTO seen VALUES (7); DELETE FROM sqlite_sequence; INSERT INTO sqlite_sequence VALUES ('servers', 20)";
    let snapshot = "INSERT INTO servers VALUES (1, 'b', 22, 'was', 2), (2, 'c', 22, '', 1), (3, 'a', 22, '', NULL), (4, NULL, 1, '', 2); \
         INSERT INTO apps VALUES (1, 1, 'web'), (2, 2, 'web'), (3, 4, 'web'); INSERT INTO tags VALUES (1, 'x'), (1, 'y'), (2, 'x'); \
         INSERT INTO seen VALUES (1), (2), (99)";
    let wanted = by_key(&[("servers", &["host", "port"]), ("apps", &["server_id", "name"])]);
    let pair = Pair::new(schema, live, snapshot);
    let merged = pair.merge(&wanted).unwrap();
    // b was changed, and stays; its children are those of the live b.
    assert_eq!(counts(&merged, "servers"), (2, 1, 1));
    assert_eq!(pair.ask("SELECT id, host, up FROM servers"), "1|a|NULL 7|b|1 21|c|7 22|NULL|21");
    assert_eq!(pair.ask("SELECT * FROM apps"), "1|7|web 2|21|web 3|22|web");
    assert_eq!(pair.ask("SELECT * FROM tags"), "7|x 7|y 21|x");
    assert_eq!(pair.ask("SELECT * FROM seen"), "7 21");
    assert_eq!((counts(&merged, "seen"), counts(&merged, "tags")), ((1, 1, 1), (2, 1, 0)));
    let keys = &merged.tables.iter().find(|table| table.table == "servers").unwrap().conflict_keys;
    assert_eq!(keys, &["host=b, port=22"]);
    let again = pair.merge(&wanted).unwrap();
    assert!(!again.changes(), "{again:?}");
}

#[test]
fn a_natural_key_is_refused_where_it_could_be_wrong() {
    let servers = "CREATE TABLE servers(id INTEGER PRIMARY KEY, host, up REFERENCES servers(id)); ";
    let keys: &[(&str, &[&str])] = &[("servers", &["host"])];
    for (more, rows, keys, expected) in [
        ("CREATE TABLE alerts(id INTEGER PRIMARY KEY, server_id)", "", keys, "alerts.server_id looks like a reference"),
        ("CREATE TABLE alerts(source_server_id)", "", keys, "alerts.source_server_id looks like a reference"),
        (
            "CREATE UNIQUE INDEX u ON servers(id, host); CREATE TABLE x(a, b, FOREIGN KEY (a, b) REFERENCES servers(id, host))",
            "",
            keys,
            "by several columns",
        ),
        ("", "INSERT INTO servers(host) VALUES ('a'), ('a')", keys, "have the merge_key host=a"),
        ("", "", &[("servers", &["up"])], "refers to the table itself"),
        ("", "", &[("servers", &["nosuch"])], "nosuch cannot be in its merge_key"),
        ("", "", &[("servers", &["id"])], "id cannot be in its merge_key"),
        ("", "", &[("nosuch", &["id"])], "table nosuch cannot be merged"),
        ("CREATE TABLE names(name PRIMARY KEY, v)", "", &[("names", &["v"])], "a primary key of one INTEGER column"),
        (
            "CREATE TABLE both(id INTEGER PRIMARY KEY REFERENCES servers, v)",
            "",
            &[("servers", &["host"]), ("both", &["v"])],
            "refers to two tables",
        ),
    ] {
        let pair = Pair::new(&format!("{servers}{more}"), rows, rows);
        let said = refusal(&pair, &by_key(keys));
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn what_is_another_table_is_refused_by_its_name() {
    for (live, snapshot, expected) in [
        ("", "CREATE TABLE t(a)", "table t cannot be merged: the live database does not have it"),
        ("CREATE TABLE t(a, b)", "CREATE TABLE t(a)", "column b more"),
        ("CREATE TABLE t(a)", "CREATE TABLE t(a, b)", "no column b"),
        ("CREATE TABLE t(b, a)", "CREATE TABLE t(a, b)", "another order"),
        ("CREATE TABLE t(a TEXT)", "CREATE TABLE t(a INTEGER)", "column a is of another kind"),
        ("CREATE TABLE t(a NOT NULL)", "CREATE TABLE t(a)", "column a is of another kind"),
        ("CREATE TABLE t(a INTEGER PRIMARY KEY)", "CREATE TABLE t(a INTEGER)", "column a is of another kind"),
        ("CREATE TABLE t(a, b AS (a))", "CREATE TABLE t(a, b)", "column b is of another kind"),
        ("CREATE TABLE t(a UNIQUE)", "CREATE TABLE t(a)", "what is unique"),
        (
            "CREATE TABLE t(a); CREATE UNIQUE INDEX i ON t(a) WHERE a > 1",
            "CREATE TABLE t(a); CREATE UNIQUE INDEX i ON t(a) WHERE a > 2",
            "what is unique",
        ),
        ("CREATE TABLE t(a TEXT UNIQUE COLLATE NOCASE)", "CREATE TABLE t(a TEXT UNIQUE)", "what is unique"),
        ("CREATE TABLE t(a REFERENCES t)", "CREATE TABLE t(a)", "its foreign keys"),
        ("CREATE TABLE t(a INT) STRICT", "CREATE TABLE t(a INT)", "STRICT"),
        (
            "CREATE TABLE t(a INT NOT NULL PRIMARY KEY) WITHOUT ROWID",
            "CREATE TABLE t(a INT NOT NULL PRIMARY KEY)",
            "WITHOUT ROWID",
        ),
        (
            "CREATE TABLE t(a); CREATE VIRTUAL TABLE f USING fts5(x)",
            "CREATE TABLE t(a)",
            "table f cannot be merged: it is a virtual table",
        ),
        ("CREATE TABLE t(a); CREATE VIRTUAL TABLE f USING fts5(x, content='')", "CREATE TABLE t(a)", "table f"),
        ("CREATE TABLE t(a); CREATE VIRTUAL TABLE f USING rtree(id, a, b)", "CREATE TABLE t(a)", "table f"),
        ("PRAGMA encoding='UTF-16'; CREATE TABLE t(a)", "CREATE TABLE t(a)", "same text encoding"),
    ] {
        let pair = Pair::new("", live, snapshot);
        let said = refusal(&pair, &all());
        assert!(said.contains(expected), "{live} | {snapshot}: {said}");
    }
    // Written otherwise, and the same; and what only the live one has is no trouble.
    let pair = Pair::new(
        "",
        "CREATE TABLE t (\"a\"  text, b); CREATE TABLE more(x)",
        "CREATE TABLE t(a TEXT); ALTER TABLE t ADD COLUMN b",
    );
    pair.merge(&all()).unwrap();
}

#[test]
fn a_table_with_what_only_the_application_knows_is_refused_by_its_name() {
    let pair = Pair { dir: tempfile::tempdir().unwrap() };
    for name in ["live.db", "snapshot.db"] {
        let connection = Connection::open(pair.path(name)).unwrap();
        connection
            .execute_batch(
                "CREATE TABLE t(a TEXT PRIMARY KEY COLLATE nocase); CREATE TABLE u(a); INSERT INTO t VALUES (1); \
                 PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql = replace(sql, 'nocase', 'mine')",
            )
            .unwrap();
    }
    let error = pair.merge(&all()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("table t cannot be merged: no such collation sequence"), "{error}");
}

#[test]
fn an_index_of_words_over_a_table_is_made_anew_and_one_of_its_own_stays_where_it_is_not_asked_for() {
    let schema = "CREATE TABLE docs(id INTEGER PRIMARY KEY, x TEXT); CREATE TABLE other(a); \
         CREATE VIRTUAL TABLE words USING fts5(x, content='docs', content_rowid='id'); \
         CREATE VIRTUAL TABLE words4 USING fts4(x, content=\"docs\"); CREATE VIRTUAL TABLE voc USING fts5vocab(words, row)";
    let pair = Pair::new(schema, "INSERT INTO docs VALUES (1, 'one')", "INSERT INTO docs VALUES (2, 'two')");
    let merged = pair.merge(&all()).unwrap();
    assert_eq!(merged.rebuilt, ["words", "words4"]);
    assert_eq!(pair.ask("SELECT rowid FROM words WHERE words MATCH 'two OR one'"), "1 2");
    let schema = format!("{schema}; CREATE VIRTUAL TABLE own USING fts5(x)");
    let pair = Pair::new(&schema, "INSERT INTO own VALUES ('kept')", "INSERT INTO docs VALUES (2, 'two')");
    assert!(refusal(&pair, &all()).contains("table own"));
    assert!(refusal(&pair, &only(&["o*"])).contains("table own"));
    let merged = pair.merge(&only(&["docs"])).unwrap();
    assert_eq!((merged.left_alone.as_slice(), counts(&merged, "docs")), (&["own".to_owned()][..], (1, 0, 0)));
    assert_eq!(pair.ask("SELECT * FROM own"), "kept");
}

#[test]
fn tables_that_are_chosen_bring_those_that_they_refer_to() {
    let schema = "CREATE TABLE zone(id INTEGER PRIMARY KEY); CREATE TABLE groups(id INTEGER PRIMARY KEY, zone REFERENCES zone); \
         CREATE TABLE servers(id INTEGER PRIMARY KEY, g REFERENCES Groups); CREATE TABLE other(id INTEGER PRIMARY KEY)";
    let snapshot = "INSERT INTO zone VALUES (1); INSERT INTO groups VALUES (1, 1); INSERT INTO servers VALUES (1, 1); INSERT INTO other VALUES (1)";
    let pair = Pair::new(schema, "", snapshot);
    let merged = pair.merge(&only(&["SERV*"])).unwrap();
    let tables: Vec<(&str, Option<&str>)> =
        merged.tables.iter().map(|table| (table.table.as_str(), table.pulled_in_by.as_deref())).collect();
    assert_eq!(tables, [("servers", None), ("groups", Some("servers")), ("zone", Some("groups"))]);
    assert_eq!(pair.ask("SELECT (SELECT count(*) FROM zone), (SELECT count(*) FROM other)"), "1|0");
    let merged = pair.merge(&only(&["nosuch"])).unwrap();
    assert_eq!((merged.unmatched.as_slice(), merged.changes()), (&["nosuch".to_owned()][..], false));
}

#[test]
fn chosen_tables_are_replaced_and_what_they_refer_to_is_only_added_to() {
    let schema = "CREATE TABLE groups(id INTEGER PRIMARY KEY, v); CREATE TABLE servers(id INTEGER PRIMARY KEY, g REFERENCES groups, v); \
         CREATE TABLE rights(g REFERENCES groups); CREATE TABLE jobs(s REFERENCES servers)";
    let live = "INSERT INTO groups VALUES (1, 'live'), (9, 'new'); INSERT INTO servers VALUES (1, 1, 'live'), (5, 9, 'new'); INSERT INTO rights VALUES (9)";
    let snapshot =
        "INSERT INTO groups VALUES (1, 'was'), (2, 'gone'); INSERT INTO servers VALUES (1, 1, 'was'), (2, 2, 'gone')";
    let wanted = Wanted { replaces: true, ..only(&["servers"]) };
    let pair = Pair::new(schema, live, snapshot);
    let merged = pair.merge(&wanted).unwrap();
    assert_eq!(pair.ask("SELECT * FROM servers"), "1|1|was 2|2|gone");
    assert_eq!(pair.ask("SELECT * FROM groups"), "1|live 2|gone 9|new");
    assert_eq!((merged.tables[0].replaced, merged.tables[0].added, counts(&merged, "groups")), (Some(2), 2, (1, 0, 1)));
    let pair = Pair::new(schema, &format!("{live}; INSERT INTO jobs VALUES (5)"), snapshot);
    assert!(
        refusal(&pair, &wanted).contains("table jobs cannot be merged: 1 of its rows would refer to rows of servers")
    );
    let wanted = Wanted { left_out: vec!["servers".to_owned()], ..wanted };
    assert!(refusal(&pair, &wanted).contains("the backup left out its rows"));
}

#[test]
fn what_is_no_sound_database_is_not_merged_into() {
    for content in [&b"garbage, and more of it"[..], &[b'x'; 4096]] {
        let pair = Pair::new("CREATE TABLE t(a)", "", "");
        std::fs::OpenOptions::new().write(true).truncate(true).open(pair.path("live.db")).unwrap();
        std::io::Write::write_all(
            &mut std::fs::OpenOptions::new().write(true).open(pair.path("live.db")).unwrap(),
            content,
        )
        .unwrap();
        let error = pair.merge(&all()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Failed);
        assert!(error.next_step().unwrap().contains("--mode overwrite"), "{error}");
    }
}

#[test]
fn values_that_are_no_text_come_over_byte_for_byte() {
    let pair = Pair::new(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v)",
        "",
        "INSERT INTO t VALUES (1, CAST(x'ff00fe' AS TEXT)), (2, x''), (3, -0.5)",
    );
    pair.merge(&all()).unwrap();
    assert_eq!(pair.ask("SELECT hex(v), typeof(v) FROM t"), "FF00FE|text |blob 2D302E35|real");
    assert_eq!(counts(&pair.merge(&all()).unwrap(), "t"), (0, 3, 0));
}

#[test]
fn a_copy_in_wal_mode_takes_in_its_log_and_stays_in_that_mode() {
    let pair =
        Pair::new("CREATE TABLE t(id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)");
    let app = Connection::open(pair.path("live.db")).unwrap();
    app.query_row("PRAGMA journal_mode=WAL", [], |row| row.get::<_, String>(0)).unwrap();
    app.execute_batch("PRAGMA wal_autocheckpoint=0; INSERT INTO t VALUES (3)").unwrap();
    for (is_used, name) in [(true, "pinned.db"), (false, "files.db")] {
        copy_live(&pair.path("live.db"), &pair.path(name), is_used, &Cancel::new()).unwrap();
        let merged = merge(&pair.path(name), &pair.path("snapshot.db"), &all(), &Cancel::new()).unwrap();
        assert_eq!(counts(&merged, "t"), (1, 0, 0), "{name}");
        let mut names: Vec<String> = std::fs::read_dir(pair.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.retain(|found| found.starts_with(name));
        assert_eq!(names, [name], "no log is beside it");
        assert_eq!(std::fs::read(pair.path(name)).unwrap()[18..20], [2, 2]);
        let copy = Connection::open(pair.path(name)).unwrap();
        assert_eq!(
            copy.query_row("SELECT group_concat(id) FROM t", [], |row| row.get::<_, String>(0)).unwrap(),
            "1,2,3"
        );
    }
}

/// A row of the model: its natural key, what is in it, the keys of its parents.
type Model = BTreeMap<(u8, u8), (u8, Option<u8>)>;

fn sql(of: &Model, ids: &BTreeMap<u8, i64>) -> String {
    let parents = ids.iter().map(|(host, id)| format!("INSERT INTO servers(id, host) VALUES ({id}, {host});"));
    let rows = of.iter().enumerate().map(|(at, ((host, name), (value, peer)))| {
        let peer = peer.and_then(|peer| ids.get(&peer)).map_or("NULL".to_owned(), i64::to_string);
        format!("INSERT INTO apps VALUES ({at}, {}, {name}, {value}, {peer});", ids[host])
    });
    parents.chain(rows).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Ids differ on both sides, and what comes out is what a map of natural keys says.
    #[test]
    fn a_merge_by_natural_keys_does_what_a_map_does(
        live in prop::collection::btree_map((0..6u8, 0..3u8), (0..3u8, prop::option::of(0..6u8)), 0..12),
        snapshot in prop::collection::btree_map((0..6u8, 0..3u8), (0..3u8, prop::option::of(0..6u8)), 0..12),
        seeds in (0..50i64, 0..50i64),
    ) {
        let schema = "CREATE TABLE servers(id INTEGER PRIMARY KEY, host UNIQUE); \
             CREATE TABLE apps(id INTEGER PRIMARY KEY, server_id REFERENCES servers, name, v, peer REFERENCES servers, UNIQUE (server_id, name))";
        let ids = |of: &Model, seed: i64| -> BTreeMap<u8, i64> {
            let hosts: std::collections::BTreeSet<u8> = of.keys().map(|key| key.0).collect();
            hosts.into_iter().map(|host| (host, (i64::from(host) * 7 + seed) % 53 + 1)).collect()
        };
        let with_known = |of: &Model, ids: &BTreeMap<u8, i64>| -> Model {
            of.iter().map(|(key, (v, peer))| (*key, (*v, peer.filter(|peer| ids.contains_key(peer))))).collect()
        };
        let (live_ids, snapshot_ids) = (ids(&live, seeds.0), ids(&snapshot, seeds.1));
        let (live, snapshot) = (with_known(&live, &live_ids), with_known(&snapshot, &snapshot_ids));
        let pair = Pair::new(schema, &sql(&live, &live_ids), &sql(&snapshot, &snapshot_ids));
        let merged = pair.merge(&by_key(&[("servers", &["host"]), ("apps", &["server_id", "name"])])).unwrap();
        let mut expected = live.clone();
        for (key, row) in &snapshot {
            expected.entry(*key).or_insert(*row);
        }
        let shown: Vec<String> = expected.iter().map(|((host, name), (v, peer))| {
            format!("{host}|{name}|{v}|{}", peer.map_or("NULL".to_owned(), |peer| peer.to_string()))
        }).collect();
        let query = "SELECT s.host, a.name, a.v, p.host FROM apps a JOIN servers s ON s.id = a.server_id \
             LEFT JOIN servers p ON p.id = a.peer ORDER BY 1, 2";
        prop_assert_eq!(pair.ask(query), shown.join(" "));
        let same = snapshot.iter().filter(|(key, row)| live.get(key) == Some(row)).count() as u64;
        let differing = snapshot.iter().filter(|(key, row)| live.get(key).is_some_and(|live| live != *row)).count() as u64;
        prop_assert_eq!(counts(&merged, "apps"), (snapshot.len() as u64 - same - differing, same, differing));
        prop_assert_eq!(pair.ask("PRAGMA foreign_key_check"), "");
    }

    /// Rows by a primary key, and rows without one, against maps.
    #[test]
    fn a_merge_by_primary_keys_does_what_a_map_does(
        live in prop::collection::btree_map(0..20u8, 0..3u8, 0..15),
        snapshot in prop::collection::btree_map(0..20u8, 0..3u8, 0..15),
        loose in (prop::collection::vec(0..4u8, 0..8), prop::collection::vec(0..4u8, 0..8)),
    ) {
        let rows = |of: &BTreeMap<u8, u8>, loose: &[u8]| -> String {
            let keyed = of.iter().map(|(key, value)| format!("INSERT INTO t VALUES ('k{key}', {value});"));
            keyed.chain(loose.iter().map(|value| format!("INSERT INTO l VALUES ({value});"))).collect()
        };
        let pair = Pair::new("CREATE TABLE t(k TEXT PRIMARY KEY, v); CREATE TABLE l(v)", &rows(&live, &loose.0), &rows(&snapshot, &loose.1));
        pair.merge(&all()).unwrap();
        let mut expected = snapshot.clone();
        expected.extend(live);
        let shown: Vec<String> = expected.iter().map(|(key, value)| format!("{key}|{value}")).collect();
        prop_assert_eq!(pair.ask("SELECT substr(k, 2), v FROM t ORDER BY substr(k, 2) + 0"), shown.join(" "));
        let count = |of: &[u8], value: u8| of.iter().filter(|found| **found == value).count();
        let shown: Vec<String> = (0..4u8).flat_map(|value| {
            let count = count(&loose.0, value).max(count(&loose.1, value));
            std::iter::repeat_n(value.to_string(), count)
        }).collect();
        prop_assert_eq!(pair.ask("SELECT v FROM l ORDER BY v"), shown.join(" "));
    }
}
