//! Files that misbehave while they are captured: they shrink, grow, change,
//! fail half-way. Whatever they do, the archive is whole and says what it has.
#![expect(clippy::unwrap_used, reason = "these are the helpers of tests")]

mod streamed;

use std::collections::VecDeque;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use lifeboat_format::archive::verify::{no_probe, verify};
use lifeboat_format::archive::{Archive, Compression, UNIT_BYTES, pipeline};
use lifeboat_format::capture::{Content, Entries, Item, Opened, Settled};
use lifeboat_format::model::{Entry, EntryKind, FileTime, Xattrs};
use lifeboat_format::monitor::{Monitor, Problem, ProblemClass};
use lifeboat_format::path::EntryPath;
use lifeboat_format::record::Head;
use lifeboat_store::Cancel;
use lifeboat_store::testing::Random;

/// What happens when a file is opened and read once.
#[derive(Clone)]
struct Reading {
    size_at_opening: u64,
    content: Vec<u8>,
    fails_at: Option<usize>,
    settled: Settled,
}

impl Reading {
    fn of(content: Vec<u8>) -> Self {
        Self { size_at_opening: content.len() as u64, content, fails_at: None, settled: Settled::Same }
    }
}

struct Scripted {
    path: EntryPath,
    listed_size: u64,
    is_linked: bool,
    group: Option<&'static str>,
    /// What the first opening meets, the second, and so on; the last one stays.
    readings: Mutex<VecDeque<Reading>>,
}

struct Open(Reading, usize);

impl Read for Open {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.fails_at.is_some_and(|at| self.1 >= at) {
            return Err(io::Error::from_raw_os_error(5));
        }
        // In small steps, as a slow file would.
        let end = self.0.fails_at.unwrap_or(usize::MAX).min(self.0.content.len());
        let rest = &self.0.content[self.1..end];
        let len = rest.len().min(buffer.len()).min(100_000);
        buffer[..len].copy_from_slice(&rest[..len]);
        self.1 += len;
        Ok(len)
    }
}

impl Content for Open {
    fn settle(&mut self) -> Settled {
        self.0.settled
    }
}

fn entry(path: &EntryPath, size: u64) -> Entry {
    Entry {
        path: path.clone(),
        kind: EntryKind::File,
        size,
        mode: 0o644,
        uid: 0,
        gid: 0,
        user: Vec::new(),
        group: Vec::new(),
        mtime: FileTime { seconds: 1, nanos: 1 },
        target: Vec::new(),
        rdev: None,
        xattrs: Xattrs::default(),
        sparse: false,
    }
}

impl Item for Scripted {
    fn path(&self) -> &EntryPath {
        &self.path
    }

    fn size(&self) -> u64 {
        self.listed_size
    }

    fn is_file(&self) -> bool {
        true
    }

    fn is_linked(&self) -> bool {
        self.is_linked
    }

    fn group(&self) -> Option<&str> {
        self.group
    }

    fn open(&self) -> Result<Opened, Problem> {
        let mut readings = self.readings.lock().unwrap();
        let reading = if readings.len() > 1 { readings.pop_front().unwrap() } else { readings[0].clone() };
        let entry = entry(&self.path, reading.size_at_opening);
        Ok(Opened { entry, content: Some(Box::new(Open(reading, 0))) })
    }
}

#[derive(Default)]
struct Listed {
    items: VecDeque<Scripted>,
    lost: Vec<String>,
}

impl Entries for Listed {
    fn next(&mut self) -> Option<Box<dyn Item>> {
        self.items.pop_front().map(|item| Box::new(item) as Box<dyn Item>)
    }

    fn lost(&mut self, path: &EntryPath) {
        self.lost.push(path.to_string());
    }
}

/// Entries in stretches, each of which may only begin when nothing of those
/// before is open or listed any more.
struct Stretches {
    stretches: VecDeque<VecDeque<Scripted>>,
    /// Everything that is handed out has a clone of it.
    alive: Arc<()>,
    begun: usize,
}

struct Tracked(Scripted, Arc<()>);

struct TrackedContent(Box<dyn Content>, Arc<()>);

impl Entries for Stretches {
    fn next(&mut self) -> Option<Box<dyn Item>> {
        let item = self.stretches.front_mut()?.pop_front()?;
        Some(Box::new(Tracked(item, Arc::clone(&self.alive))))
    }

    fn go_on(&mut self) -> bool {
        assert_eq!(Arc::strong_count(&self.alive), 1, "all of the stretch was read");
        self.stretches.pop_front();
        self.begun += 1;
        !self.stretches.is_empty()
    }

    fn lost(&mut self, path: &EntryPath) {
        panic!("{path} is not lost");
    }
}

impl Item for Tracked {
    fn path(&self) -> &EntryPath {
        self.0.path()
    }

    fn size(&self) -> u64 {
        self.0.size()
    }

    fn is_file(&self) -> bool {
        true
    }

    fn is_linked(&self) -> bool {
        false
    }

    fn open(&self) -> Result<Opened, Problem> {
        let Opened { entry, content } = self.0.open()?;
        let content = content.map(|content| Box::new(TrackedContent(content, Arc::clone(&self.1))) as Box<dyn Content>);
        Ok(Opened { entry, content })
    }
}

impl Read for TrackedContent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        assert!(Arc::strong_count(&self.1) > 1);
        self.0.read(buffer)
    }
}

impl Content for TrackedContent {
    fn settle(&mut self) -> Settled {
        self.0.settle()
    }
}

#[derive(Default)]
struct Heard(Mutex<Vec<(ProblemClass, String)>>);

impl Monitor for Heard {
    fn problem(&self, problem: Problem) {
        self.0.lock().unwrap().push((problem.class, problem.object));
    }

    fn advanced(&self, _: u64, _: u64) {}
}

fn scripted(name: &str, readings: Vec<Reading>) -> Scripted {
    Scripted {
        path: EntryPath::new(format!("files/{name}")).unwrap(),
        listed_size: readings[0].size_at_opening,
        is_linked: false,
        group: None,
        readings: Mutex::new(readings.into()),
    }
}

struct Captured {
    problems: Vec<(ProblemClass, String)>,
    lost: Vec<String>,
    files: Vec<(String, Vec<u8>)>,
    bytes: Vec<u8>,
}

/// Captures `items`, verifies the archive, and reads back what is in it.
fn capture(items: Vec<Scripted>, compression: Compression, threads: usize) -> Captured {
    let dir = tempfile::tempdir().unwrap();
    let mut entries = Listed { items: items.into(), lost: Vec::new() };
    let heard = Heard::default();
    let options = pipeline::Options { compression, threads };
    let captured = pipeline::capture(dir.path(), options, &mut entries, &heard, &Cancel::new()).unwrap();
    let totals = captured.totals();
    let head: Head = serde_json::from_str(
        r#"{"format":"lifeboat/1","tool":{"name":"lifeboat","version":"0"},"app":"a","host":"h","id":"00",
        "created":"2026-02-24T03:00:00Z","window_ms":0,"outcome":"good","sources":[]}"#,
    )
    .unwrap();
    let path: PathBuf = captured.finish(dir.path(), &head).unwrap().publish(["a"], 0o600).unwrap();
    let archive = Archive::open(&path).unwrap();
    let findings = verify(&archive, 2, &Cancel::new(), &no_probe, &mut |_, _, _| {}).unwrap();
    assert!(findings.failed == 0 && findings.damage.is_none(), "{findings:?}");
    let files = archive
        .walk(2, &Cancel::new(), |walk| {
            let mut files = Vec::new();
            while let Some((entry, _)) = walk.next_entry()? {
                let mut content = Vec::new();
                while let Some(piece) = walk.content()? {
                    content.extend_from_slice(&piece);
                }
                files.push((entry.path.to_string(), content));
            }
            Ok(files)
        })
        .unwrap();
    let bytes: usize = files.iter().map(|(_, content)| content.len()).sum();
    assert_eq!((totals.entries, totals.files, totals.bytes), (files.len() as u64, files.len() as u64, bytes as u64));
    Captured { problems: heard.0.into_inner().unwrap(), lost: entries.lost, files, bytes: std::fs::read(path).unwrap() }
}

const BOTH: [Compression; 2] = [Compression::Zstd(1), Compression::Gzip(1)];

fn neighbours(name: &str, readings: Vec<Reading>) -> Vec<Scripted> {
    let other = |name: &str| scripted(name, vec![Reading::of(name.as_bytes().to_vec())]);
    vec![other("a"), scripted(name, readings), other("z")]
}

fn content(len: usize) -> Vec<u8> {
    let mut content = Random::new(3).bytes(len / 2);
    content.resize(len, b'x');
    content
}

/// Shows A5.
#[test]
fn a_large_file_that_ends_early_is_stored_with_what_was_read() {
    for compression in BOTH {
        for kept in [0, 1, UNIT_BYTES - 1, UNIT_BYTES, UNIT_BYTES + 1, 2 * UNIT_BYTES + 7] {
            let mut reading = Reading::of(content(2 * UNIT_BYTES + 99));
            reading.content.truncate(kept);
            let captured = capture(neighbours("large", vec![reading.clone()]), compression, 2);
            assert_eq!(captured.problems, [(ProblemClass::Changed, "files/large".to_owned())]);
            assert_eq!(captured.files[1], ("files/large".to_owned(), reading.content), "kept {kept}");
            assert_eq!(captured.files.len(), 3);
        }
    }
}

/// Shows A5.
#[test]
fn a_file_that_fails_half_way_is_taken_out_and_its_neighbours_stay() {
    for compression in BOTH {
        for (len, fails_at) in [(1000, 0), (1000, 500), (3 * UNIT_BYTES, 0), (3 * UNIT_BYTES, 2 * UNIT_BYTES + 5)] {
            let mut reading = Reading::of(content(len));
            reading.fails_at = Some(fails_at);
            let captured = capture(neighbours("bad", vec![reading]), compression, 2);
            assert_eq!(captured.problems, [(ProblemClass::Unreadable, "files/bad".to_owned())]);
            let names: Vec<&str> = captured.files.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["files/a", "files/z"]);
        }
    }
}

/// Shows A5.
#[test]
fn a_linked_file_that_fails_is_reported_lost_so_that_nothing_links_to_it() {
    for len in [1000, 2 * UNIT_BYTES] {
        let mut reading = Reading::of(content(len));
        reading.fails_at = Some(len / 2);
        let mut items = neighbours("bad", vec![reading]);
        items[1].is_linked = true;
        assert_eq!(capture(items, Compression::Zstd(1), 2).lost, ["files/bad"]);
    }
}

/// Shows A5.
#[test]
fn a_changed_file_is_read_once_more_and_reported_only_if_it_changes_again() {
    let changed = |content: &[u8]| Reading { settled: Settled::Changed, ..Reading::of(content.to_vec()) };
    let calm = Reading::of(b"second".to_vec());
    let captured = capture(neighbours("b", vec![changed(b"first"), calm]), Compression::Zstd(1), 2);
    assert!(captured.problems.is_empty());
    assert_eq!(captured.files[1].1, b"second");

    let captured = capture(neighbours("b", vec![changed(b"first"), changed(b"second one")]), Compression::Zstd(1), 2);
    assert_eq!(captured.problems, [(ProblemClass::Changed, "files/b".to_owned())]);
    assert_eq!(captured.files[1].1, b"second one");
}

/// Shows A5.
#[test]
fn a_log_that_only_grows_is_a_note_and_a_rewritten_file_is_not() {
    let grew = |content: &[u8]| Reading { settled: Settled::Grew, ..Reading::of(content.to_vec()) };
    let captured = capture(neighbours("b", vec![grew(b"one\n"), grew(b"one\ntwo\n")]), Compression::Zstd(1), 2);
    assert_eq!(captured.problems, [(ProblemClass::Grew, "files/b".to_owned())]);
    assert_eq!(captured.files[1].1, b"one\ntwo\n");

    let captured = capture(neighbours("b", vec![grew(b"one\n"), grew(b"ONE\ntwo\n")]), Compression::Zstd(1), 2);
    assert_eq!(captured.problems, [(ProblemClass::Changed, "files/b".to_owned())]);
}

/// Shows A5.
#[test]
fn a_file_that_grows_without_bound_between_listing_and_opening_is_left_out() {
    let mut item = scripted("b", vec![Reading::of(content(3 * UNIT_BYTES))]);
    item.listed_size = 10;
    let other = |name: &str| scripted(name, vec![Reading::of(name.as_bytes().to_vec())]);
    let captured = capture(vec![other("a"), item, other("c")], Compression::Zstd(1), 2);
    assert_eq!(captured.problems, [(ProblemClass::Unreadable, "files/b".to_owned())]);
    assert_eq!(captured.files.len(), 2);
}

/// Shows A2.
#[test]
fn the_archive_does_not_depend_on_the_number_of_workers() {
    let items = || {
        let mut random = Random::new(11);
        (0..300)
            .map(|number| {
                let len = if number % 60 == 7 { 5_000_000 } else { random.below(60_000) };
                let mut item = scripted(&format!("{number:04}"), vec![Reading::of(content(len))]);
                item.is_linked = number % 50 == 0;
                item
            })
            .collect()
    };
    for compression in BOTH {
        let one = capture(items(), compression, 1);
        for threads in [2, 3, 8] {
            assert!(
                capture(items(), compression, threads).bytes == one.bytes,
                "{compression:?} with {threads} threads"
            );
        }
    }
}

/// Shows P5.
#[test]
fn a_stretch_begins_when_everything_before_it_was_read_and_closed() {
    for threads in [1, 4] {
        let file = |name: String, len| scripted(&name, vec![Reading::of(content(len))]);
        let of = |stretch: u32| {
            // Small ones, one of several units, and one that does not fit into the unit at hand.
            let lens = [10, UNIT_BYTES - 9_000, 2 * UNIT_BYTES + 5, 20_000, 300];
            (0..10).map(|number| file(format!("{stretch}/{number:02}"), lens[number % 5])).collect()
        };
        let stretches = VecDeque::from([of(0), VecDeque::new(), of(1), of(2)]);
        let mut entries = Stretches { stretches, alive: Arc::default(), begun: 0 };
        let dir = tempfile::tempdir().unwrap();
        let options = pipeline::Options { compression: Compression::Zstd(1), threads };
        let captured = pipeline::capture(dir.path(), options, &mut entries, &Heard::default(), &Cancel::new()).unwrap();
        assert_eq!((captured.totals().files, entries.begun), (30, 4));
    }
}
