use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lifeboat_store::Cancel;
use lifeboat_store::testing::{can_run, is_root};
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;

mod shapes;

const SOON: Duration = Duration::from_secs(10);

/// A directory for a database, and one for copies.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("live")).unwrap();
        std::fs::create_dir(dir.path().join("scratch")).unwrap();
        Self { dir }
    }

    fn db(&self) -> PathBuf {
        self.dir.path().join("live/app.db")
    }

    fn scratch(&self) -> PathBuf {
        self.dir.path().join("scratch")
    }

    /// A database made by `sql`.
    fn with(sql: &str) -> Self {
        let place = Self::new();
        Connection::open(place.db()).unwrap().execute_batch(sql).unwrap();
        place
    }

    fn names(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.dir.path().join("live")).unwrap();
        let mut names: Vec<String> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn pin(&self) -> Pinned {
        Pinned::new(&self.db(), SOON, &Cancel::new()).unwrap()
    }

    fn copy(&self, exclude: &[&str]) -> Result<Copied> {
        let exclude: Vec<String> = exclude.iter().map(|pattern| (*pattern).to_owned()).collect();
        let copied = self.pin().copy(&self.scratch(), &exclude, &Cancel::new(), &|_| {});
        assert_eq!(std::fs::read_dir(self.scratch()).unwrap().count(), 0, "nothing is left where it was made");
        copied
    }

    /// What came out, as a file of its own.
    fn kept(&self, copied: Copied) -> PathBuf {
        let path = self.dir.path().join("copy.db");
        let mut bytes = Vec::new();
        let Copied { mut file, size, .. } = copied;
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, size);
        File::create_new(&path).unwrap().write_all(&bytes).unwrap();
        path
    }
}

/// A Python program that runs until this goes.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Running {
    /// Starts it with the database in `argv[1]`, and waits until it says "ready".
    #[expect(clippy::disallowed_methods, reason = "a test needs another process")]
    fn python(db: &Path, program: &str) -> Self {
        let program = format!("import sqlite3, sys, os, time\npath = sys.argv[1]\n{program}");
        let mut command = Command::new("python3");
        command.args(["-c", &program]).arg(db).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }
}

#[expect(clippy::disallowed_methods, reason = "a test needs another process")]
fn python(db: &Path, program: &str) -> String {
    let program = format!("import sqlite3, sys, os, time\npath = sys.argv[1]\n{program}");
    let output = Command::new("python3").args(["-c", &program]).arg(db).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Moves amounts between two tables as fast as it can; their sum stays.
const WRITER: &str = "
c = sqlite3.connect(path, timeout=60, isolation_level=None)
c.execute('PRAGMA synchronous=OFF')
print('ready', flush=True)
n = 0
while True:
    n += 1
    c.execute('BEGIN IMMEDIATE')
    c.execute('UPDATE a SET v = v - ? WHERE id = ?', (n % 7, n % 500))
    c.execute('UPDATE b SET v = v + ? WHERE id = ?', (n % 7, n % 500))
    c.execute('INSERT INTO log VALUES (?, randomblob(200))', (n,))
    c.execute('COMMIT')
";

const ACCOUNTS: &str =
    "CREATE TABLE a(id INTEGER PRIMARY KEY, v INT, pad); CREATE TABLE b(id INTEGER PRIMARY KEY, v INT, pad);
    CREATE TABLE log(n INTEGER PRIMARY KEY, noise);
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 499)
    INSERT INTO a SELECT i, 1000, zeroblob(4000) FROM n; INSERT INTO b SELECT id, v, pad FROM a;";

/// Shows P3.
#[test]
fn every_copy_under_a_writer_that_never_stops_is_the_state_at_one_moment() {
    if !can_run("every_copy_under_a_writer_that_never_stops_is_the_state_at_one_moment", &["python3"]) {
        return;
    }
    for mode in ["wal", "delete", "truncate", "persist"] {
        let began = Instant::now();
        let place = Place::with(&format!("PRAGMA journal_mode={mode}; {ACCOUNTS}"));
        let writer =
            WRITER.replace("print('ready'", &format!("c.execute('PRAGMA journal_mode={mode}')\nprint('ready'"));
        let writer = Running::python(&place.db(), &writer);
        let mut last = 0;
        for round in 0..20 {
            let pinned = place.pin();
            assert!(mode == "wal" || pinned.is_the_file(), "{mode}");
            let told = std::cell::Cell::new(0);
            // It ends with an error if the copying ever began again.
            let copied =
                pinned.copy(&place.scratch(), &[], &Cancel::new(), &|bytes| told.set(told.get() + bytes)).unwrap();
            assert_eq!(told.get(), copied.size, "{mode}: each page once");
            assert_eq!(copied.facts.journal_mode, if mode == "wal" { "wal" } else { "rollback" });
            assert_eq!((copied.facts.tables["a"], copied.facts.tables["b"]), (500, 500));
            let (rows, kept) = (copied.facts.tables["log"], place.kept(copied));
            let connection = Connection::open(&kept).unwrap();
            let sums = "SELECT (SELECT sum(v) FROM a) + (SELECT sum(v) FROM b)";
            assert_eq!(
                connection.query_row(sums, [], |row| row.get::<_, i64>(0)).unwrap(),
                1_000_000,
                "{mode} {round}"
            );
            let log: (u64, u64) = connection
                .query_row("SELECT count(*), ifnull(max(n), 0) FROM log", [], |row| {
                    Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()))
                })
                .unwrap();
            assert_eq!(log, (rows, rows), "{mode}: no transaction is missing in between");
            drop(connection);
            assert!(rows >= last, "{mode}: time goes on");
            last = rows;
            std::fs::remove_file(kept).unwrap();
        }
        println!("{mode}: 20 copies beside a writer took {:?}", began.elapsed());
        drop(writer);
        assert!(last > 20, "{mode}: the writer was at work");
    }
}

#[test]
fn while_it_is_pinned_the_file_is_the_state_or_says_that_it_is_not() {
    if !can_run("while_it_is_pinned_the_file_is_the_state_or_says_that_it_is_not", &["python3"]) {
        return;
    }
    let place = Place::with("PRAGMA journal_mode=wal; CREATE TABLE t(x); INSERT INTO t VALUES (1)");
    let before = std::fs::read(place.db()).unwrap();
    let pinned = place.pin();
    assert!(pinned.is_the_file(), "its log is empty");
    // Writers go on, but cannot move what they wrote into the file.
    let done = "c = sqlite3.connect(path, timeout=0)\nc.execute('INSERT INTO t VALUES (2)')\nc.commit()\n\
        print(c.execute('PRAGMA wal_checkpoint(PASSIVE)').fetchone())";
    let said = python(&place.db(), done);
    assert!(said.starts_with("(0, 1, 0)") || said.starts_with("(0, 2, 0)") || said.starts_with("(1,"), "{said}");
    let also = Guarded::new(File::open(place.db()).unwrap(), pinned.identity());
    drop(also);
    python(&place.db(), "c = sqlite3.connect(path, timeout=0)\nc.execute('PRAGMA wal_checkpoint(TRUNCATE)')");
    assert!(std::fs::read(place.db()).unwrap() == before, "the file was written");
    drop(pinned);
    let holder = Running::python(
        &place.db(),
        "c = sqlite3.connect(path)\nc.execute('INSERT INTO t VALUES (3)')\nc.commit()\nprint('ready', flush=True)\ntime.sleep(600)",
    );
    assert!(!place.pin().is_the_file(), "something is in its log");
    drop(holder);
}

#[test]
fn a_handle_closed_by_hand_does_not_lose_the_locks_of_a_pin() {
    if !can_run("a_handle_closed_by_hand_does_not_lose_the_locks_of_a_pin", &["python3"]) {
        return;
    }
    let place = Place::with("CREATE TABLE t(x)");
    let write = "c = sqlite3.connect(path, timeout=0)\ntry:\n  c.execute('INSERT INTO t VALUES (1)')\n  c.commit()\n  print('written')\n\
        except sqlite3.OperationalError as e: print(e)";
    let pinned = place.pin();
    drop(Guarded::new(File::open(place.db()).unwrap(), pinned.identity()));
    assert_eq!(python(&place.db(), write), "database is locked\n");
    // What would happen otherwise: this is what the guard is for.
    drop(File::open(place.db()).unwrap());
    assert_eq!(python(&place.db(), write), "written\n");
    drop(pinned);
}

/// Shows P3.
#[test]
fn a_locked_database_is_a_failed_source_that_names_who_holds_it() {
    if !can_run("a_locked_database_is_a_failed_source_that_names_who_holds_it", &["python3"]) {
        return;
    }
    let place = Place::with("CREATE TABLE t(x)");
    let hold = "c = sqlite3.connect(path, isolation_level=None)\nc.execute('BEGIN EXCLUSIVE')\nprint('ready', flush=True)\ntime.sleep(600)";
    let holder = Running::python(&place.db(), hold);
    let other = Running::python(&place.db(), "f = open(path)\nprint('ready', flush=True)\ntime.sleep(600)");
    let error = Pinned::new(&place.db(), Duration::from_millis(100), &Cancel::new()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::SourceFailed);
    let expected = format!("(pid {}); try again", holder.0.id());
    assert!(error.what().ends_with(&expected) && error.what().contains("is locked by python3"), "{error}");
    drop(other);
    let cancel = Cancel::new();
    cancel.set();
    let error = Pinned::new(&place.db(), Duration::from_secs(600), &cancel).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    drop(holder);
    place.pin();
}

#[test]
fn nothing_is_left_beside_a_database_and_nothing_is_written_into_it() {
    if !can_run("nothing_is_left_beside_a_database_and_nothing_is_written_into_it", &["python3"]) {
        return;
    }
    let place = Place::with("PRAGMA journal_mode=wal; CREATE TABLE t(x); INSERT INTO t VALUES (1)");
    if is_root() {
        std::os::unix::fs::chown(place.db(), Some(65534), Some(65534)).unwrap();
    }
    let pinned = place.pin();
    for log in ["-wal", "-shm"] {
        // The application must be able to use them, should it start now.
        assert_eq!(beside(&place.db(), log).metadata().unwrap().uid(), place.db().metadata().unwrap().uid(), "{log}");
    }
    drop(pinned);
    assert_eq!(place.names(), ["app.db"]);

    // What a crash leaves: a log with content, and no index of it.
    python(&place.db(), "c = sqlite3.connect(path)\nc.execute('INSERT INTO t VALUES (2)')\nc.commit()\nos.remove(path + '-shm')\nos.kill(os.getpid(), 9)"
        .replace("os.kill(os.getpid(), 9)", "sys.stdout.flush()\nos._exit(0)").as_str());
    assert_eq!(place.names(), ["app.db", "app.db-wal"]);
    let read = || (std::fs::read(place.db()).unwrap(), std::fs::read(beside(&place.db(), "-wal")).unwrap());
    let before = read();
    let copied = place.copy(&[]).unwrap();
    assert_eq!(copied.facts.tables["t"], 2, "the log counts");
    assert_eq!(place.names(), ["app.db", "app.db-wal"]);
    assert!(read() == before, "neither was changed");
}

#[test]
fn what_a_killed_writer_left_in_a_journal_is_taken_back() {
    if !can_run("what_a_killed_writer_left_in_a_journal_is_taken_back", &["python3"]) {
        return;
    }
    let place = Place::with(ACCOUNTS);
    let killed = "c = sqlite3.connect(path, isolation_level=None)\nc.execute('PRAGMA cache_size=10')\nc.execute('BEGIN')\n\
        c.execute('UPDATE a SET v = 0, pad = zeroblob(3999)')\nos._exit(0)";
    python(&place.db(), killed);
    assert_eq!(place.names(), ["app.db", "app.db-journal"], "the journal is hot");
    let copied = place.copy(&[]).unwrap();
    let kept = Connection::open(place.kept(copied)).unwrap();
    assert_eq!(kept.query_row("SELECT sum(v) FROM a", [], |row| row.get::<_, i64>(0)).unwrap(), 500_000);
    assert_eq!(place.names(), ["app.db"]);
}
