//! Dumps of a shell, captured beside a file as a backup does it.

use std::collections::VecDeque;
use std::time::Duration;

use lifeboat_format::archive::{Compression, pipeline};
use lifeboat_format::model::Entry;
use lifeboat_format::monitor::{Monitor, Problem};

use super::*;
use crate::Cancel;
use crate::exec::Tool;
use crate::source::merged::{Merged, Part};

const DONE: &str = "-- Dump completed";

struct NoProblem;

impl Monitor for NoProblem {
    fn problem(&self, problem: Problem) {
        panic!("it is not told here: {problem:?}");
    }

    fn advanced(&self, _: u64, _: u64) {}
}

/// A file of another source.
struct Small(Entry);

impl Item for Small {
    fn path(&self) -> &EntryPath {
        &self.0.path
    }

    fn size(&self) -> u64 {
        self.0.size
    }

    fn is_file(&self) -> bool {
        true
    }

    fn is_linked(&self) -> bool {
        false
    }

    fn open(&self) -> std::result::Result<Opened, Problem> {
        Ok(Opened { entry: self.0.clone(), content: Some(Box::new(Empty)) })
    }
}

struct Empty;

impl Read for Empty {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }
}

impl Content for Empty {
    fn settle(&mut self) -> Settled {
        Settled::Same
    }
}

fn small(path: &str, like: &Streamed) -> Box<dyn Item> {
    Box::new(Small(Entry { path: EntryPath::new(path).unwrap(), size: 0, ..like.entry() }))
}

fn dump(path: &str, source: &str, script: &str, seen: &Seen) -> Streamed {
    let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
    let start = move || {
        let stream = Tool::new(&argv, Duration::from_secs(60)).stream(&Cancel::new())?;
        Ok(Box::new(stream) as Box<dyn Read + Send>)
    };
    Streamed::new(EntryPath::new(path).unwrap(), source, Timestamp::UNIX_EPOCH, Arc::new(start), seen)
}

fn part(items: Vec<Streamed>) -> Part<'static> {
    Part::Ready(items.into_iter().map(|item| Box::new(item) as Box<dyn Item>).collect())
}

fn place(path: &str) -> Vec<Vec<u8>> {
    vec![path.as_bytes().to_vec()]
}

/// How many entries and bytes `merged` gives, all of it captured.
fn captured(mut merged: Merged<'_>) -> (u64, u64) {
    let dir = tempfile::tempdir().unwrap();
    let options = pipeline::Options { compression: Compression::Zstd(1), threads: 2 };
    let captured = pipeline::capture(dir.path(), options, &mut merged, &NoProblem, &Cancel::new()).unwrap();
    assert_eq!(merged.collision, None);
    (captured.totals().entries, captured.totals().bytes)
}

/// Shows D2.
#[test]
fn a_dump_that_fails_fails_its_source_and_no_other() {
    let seen = Seen::default();
    let good = |path: &str| dump(path, "good", "printf 12345", &seen);
    let bad = |path: &str, script: &str| dump(path, "bad", script, &seen);
    let mut merged = Merged::default();
    let like = good("x");
    merged.add("files", Part::Ready(VecDeque::from([small("files/a", &like)])), place("files"), false);
    merged.add("good", part(vec![good("pg/good/a"), good("pg/good/b")]), place("pg/good"), false);
    let fails = ["printf 1", "printf 12; echo first >&2; exit 9", "exit 8"];
    let fails = fails.iter().zip(["a", "b", "c"]).map(|(script, name)| bad(&format!("pg/bad/{name}"), script));
    merged.add("bad", part(fails.collect()), place("pg/bad"), false);
    assert_eq!(captured(merged), (3, 10));
    let failed: Vec<_> = seen.failed().into_iter().collect();
    assert_eq!(failed, [("bad".to_owned(), "pg/bad/b could not be made: exit code 9: first".to_owned())]);
    let bytes = |path: &str| seen.bytes(&EntryPath::new(path).unwrap());
    assert_eq!((bytes("pg/good/b"), bytes("pg/bad/b"), bytes("pg/bad/c")), (Some(5), None, None));
}

/// Shows D2.
#[test]
fn a_program_that_is_not_there_fails_the_source() {
    let seen = Seen::default();
    let start = || {
        let argv = ["/nonexistent/dump".to_owned()];
        Ok(Box::new(Tool::new(&argv, Duration::MAX).stream(&Cancel::new())?) as Box<dyn Read + Send>)
    };
    let path = EntryPath::new("command/x").unwrap();
    let item = Streamed::new(path, "x", Timestamp::UNIX_EPOCH, Arc::new(start), &seen);
    let mut merged = Merged::default();
    merged.add("x", part(vec![item]), place("command/x"), false);
    assert_eq!(captured(merged), (0, 0));
    let message = &seen.failed()["x"];
    assert!(message.starts_with("command/x could not be made: could not run /nonexistent/dump: "), "{message}");
}

/// Shows D2.
#[test]
fn a_dump_without_its_closing_line_is_not_whole() {
    let long = "head -c 5000000 /dev/zero; ";
    let ends = [
        ("printf '%s\\n' '-- Dump completed on 2026-02-24'", true),
        ("printf '%s' '-- Dump completed'", true),
        ("printf '%s\\n\\n%s\\n' '-- Dump completed' 'a last line of a newer version'", true),
        ("printf '%s\\n' 'a row that says -- Dump completed'", false),
        ("printf '%s\\n' '-- Dump completed'; head -c 600 /dev/zero", false),
        ("printf '%s\\n' '-- Dump comp'", false),
        ("true", false),
    ];
    for (end, is_whole) in ends {
        for before in ["", "echo; ", &format!("{long}echo; ")] {
            let seen = Seen::default();
            let item = dump("a.sql", "a", &format!("{before}{end}"), &seen).ends_with(DONE);
            let mut content = item.open().unwrap().content.unwrap();
            let read = io::copy(&mut content, &mut io::sink());
            assert_eq!(read.is_ok(), is_whole, "{before}{end}");
            assert_eq!(seen.failed().is_empty(), is_whole);
        }
    }
}

#[test]
fn a_dump_is_closed_to_others_and_bears_the_time_of_its_point() {
    let point = Timestamp::new(-2, -500_000_000).unwrap();
    let seen = Seen::default();
    let item = Streamed { mtime: FileTime { seconds: 0, nanos: 0 }, ..dump("a", "a", "true", &seen) };
    assert_eq!(item.entry().mode, 0o600);
    let start = Arc::clone(&item.start);
    let item = Streamed::new(item.path.clone(), "a", point, start, &seen);
    assert_eq!(item.open().unwrap().entry.mtime, FileTime { seconds: -3, nanos: 500_000_000 });
}

#[test]
fn nothing_of_another_source_stands_between_dumps() {
    let seen = Seen::default();
    let one = |path: &str| dump(path, "pg", "true", &seen);
    for other in ["pg/main", "pg/main/a/b", "pg/main/aa"] {
        let mut merged = Merged::default();
        let other = small(other, &one("x"));
        merged.add("files", Part::Ready(VecDeque::from([other])), Vec::new(), false);
        merged.add("pg", part(vec![one("pg/main/a"), one("pg/main/b")]), place("pg/main"), false);
        while lifeboat_format::capture::Entries::next(&mut merged).is_some() {}
        let collision = merged.collision.unwrap_or_default();
        assert!(collision.starts_with("the sources files and pg both hold pg/main"), "{collision}");
    }
}
