//! Every bit of a small archive flipped, and the archive cut off at every
//! length: whatever a reader then takes for whole must be what was written.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "these are the helpers of tests")]

use std::collections::VecDeque;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lifeboat_format::archive::verify::{Verdict, no_probe, verify};
use lifeboat_format::archive::{Archive, Compression, pipeline};
use lifeboat_format::capture::{Content, Entries, Item, Opened, Settled};
use lifeboat_format::model::{Entry, EntryKind, FileTime, Sha256, Summer, Xattrs};
use lifeboat_format::monitor::{Problem, Silent};
use lifeboat_format::path::EntryPath;
use lifeboat_format::record::Head;
use lifeboat_store::Cancel;
use lifeboat_store::testing::{Random, sweep};

/// No case may take longer (A9).
const SLOWEST: Duration = Duration::from_secs(5);

/// Entries that exist in memory only.
struct InMemory(VecDeque<Box<dyn Item>>);

struct Made {
    entry: Entry,
    content: Vec<u8>,
}

struct Reading(Cursor<Vec<u8>>);

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Content for Reading {
    fn settle(&mut self) -> Settled {
        Settled::Same
    }
}

impl Item for Made {
    fn path(&self) -> &EntryPath {
        &self.entry.path
    }

    fn size(&self) -> u64 {
        self.entry.size
    }

    fn is_file(&self) -> bool {
        self.entry.kind == EntryKind::File
    }

    fn is_linked(&self) -> bool {
        false
    }

    fn open(&self) -> Result<Opened, Problem> {
        let is_file = self.entry.kind == EntryKind::File;
        let content = is_file.then(|| Box::new(Reading(Cursor::new(self.content.clone()))) as Box<dyn Content>);
        Ok(Opened { entry: self.entry.clone(), content })
    }
}

impl Entries for InMemory {
    fn next(&mut self) -> Option<Box<dyn Item>> {
        self.0.pop_front()
    }

    fn lost(&mut self, path: &EntryPath) {
        panic!("{path} is in memory and cannot be lost");
    }
}

fn made(path: &[u8], kind: EntryKind, content: &[u8], change: impl FnOnce(&mut Entry)) -> Box<dyn Item> {
    let mut entry = Entry {
        path: EntryPath::new(path).unwrap(),
        kind,
        size: content.len() as u64,
        mode: 0o640,
        uid: 1000,
        gid: 100,
        user: b"ann".to_vec(),
        group: b"users".to_vec(),
        mtime: FileTime { seconds: 1_700_000_000, nanos: 123_456_789 },
        target: Vec::new(),
        rdev: None,
        xattrs: Xattrs::default(),
        sparse: false,
    };
    change(&mut entry);
    Box::new(Made { entry, content: content.to_vec() })
}

/// One of everything that an archive can hold, in order.
fn few_entries() -> Vec<Box<dyn Item>> {
    let xattrs = vec![(b"user.note".to_vec(), b"kept\0\n=".to_vec()), (b"user.empty".to_vec(), Vec::new())];
    let long = [b"files/app/".as_slice(), &[b'n'; 240]].concat();
    vec![
        made(b"files/app", EntryKind::Dir, b"", |dir| dir.mode = 0o2755),
        made(b"files/app/a.txt", EntryKind::File, b"the first file\n", |_| {}),
        made(b"files/app/attributes", EntryKind::File, b"x", |file| file.xattrs = Xattrs::new(xattrs)),
        made(b"files/app/before-1970", EntryKind::File, b"old", |file| {
            file.mtime = FileTime { seconds: -2, nanos: 5 };
        }),
        made(b"files/app/empty", EntryKind::File, b"", |file| file.mode = 0o4755),
        made(b"files/app/link", EntryKind::Symlink, b"", |link| link.target = b"/etc/nowhere".to_vec()),
        made(&long, EntryKind::File, &[b'n'; 700], |_| {}),
        made(b"files/app/not-\xff-utf8\n", EntryKind::File, b"\0\x01\xfe", |file| file.uid = 4_000_000_000),
        made(b"files/app/random", EntryKind::File, &Random::new(7).bytes(600), |_| {}),
        made(b"files/app/second-name", EntryKind::Hardlink, b"", |link| link.target = b"files/app/a.txt".to_vec()),
        made(b"files/app/sparse", EntryKind::File, &[0; 3000], |file| file.sparse = true),
        made(b"files/app/tty", EntryKind::Char, b"", |device| device.rdev = Some((5, 3))),
    ]
}

/// A file that takes more than one unit: its header is stored uncompressed.
fn large_entries() -> Vec<Box<dyn Item>> {
    let content = vec![0; (4 << 20) + 5000];
    vec![
        made(b"files/a", EntryKind::File, b"before", |_| {}),
        made(b"files/large", EntryKind::File, &content, |_| {}),
        made(b"files/z", EntryKind::File, b"after", |_| {}),
    ]
}

fn head() -> Head {
    let json = r#"{"format":"lifeboat/1","tool":{"name":"lifeboat","version":"0.1.0"},"app":"app","host":"host",
        "id":"0123456789abcdef0123456789abcdef","created":"2026-02-24T03:00:00Z","window_ms":0,"outcome":"good","sources":[]}"#;
    serde_json::from_str(json).unwrap()
}

/// The bytes of an archive with `entries`.
fn archive_of(entries: Vec<Box<dyn Item>>, compression: Compression, dir: &Path) -> Vec<u8> {
    let mut entries = InMemory(entries.into());
    let options = pipeline::Options { compression, threads: 2 };
    let captured = pipeline::capture(dir, options, &mut entries, &Silent, &Cancel::new()).unwrap();
    let path = captured.finish(dir, &head()).unwrap().publish(["original".to_owned()], 0o600).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    bytes
}

/// All that is in an archive: its head, and each entry with the sum of its content.
#[derive(Debug, PartialEq)]
struct Everything {
    head: Option<Head>,
    entries: Vec<(Entry, Option<Sha256>)>,
}

/// Reads everything as a restore does; `None` where it would stop.
fn everything(archive: &Archive, threads: usize) -> Option<Everything> {
    let entries = archive.walk(threads, &Cancel::new(), |walk| {
        let mut entries = Vec::new();
        while let Some((entry, record)) = walk.next_entry()? {
            let mut summer = Summer::new();
            while let Some(piece) = walk.content()? {
                summer.update(&piece);
            }
            let sum = (entry.kind == EntryKind::File).then(|| summer.finish());
            entries.push((entry, sum, record));
        }
        Ok(entries)
    });
    let entries = entries.ok()?;
    let as_recorded =
        entries.iter().all(|(_, sum, record)| record.as_ref().is_none_or(|record| record.sha256() == *sum));
    let entries = entries.into_iter().map(|(entry, sum, _)| (entry, sum)).collect();
    as_recorded.then(|| Everything { head: archive.head().cloned(), entries })
}

/// How one damaged archive was taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    Found,
    WithoutEffect,
}

struct Case<'a> {
    path: PathBuf,
    original: &'a Everything,
    counts: [usize; 2],
}

impl Case<'_> {
    /// Fails the test when the damaged `bytes` are taken for something that they are not.
    fn play(&mut self, bytes: &[u8], threads: usize, what: &str) {
        std::fs::write(&self.path, bytes).unwrap();
        let begun = Instant::now();
        let taken = self.take(threads, what);
        self.counts[usize::from(taken == Taken::WithoutEffect)] += 1;
        let elapsed = begun.elapsed();
        assert!(elapsed < SLOWEST, "{what} took {elapsed:?}");
    }

    fn take(&self, threads: usize, what: &str) -> Taken {
        let Ok(archive) = Archive::open(&self.path) else { return Taken::Found };
        let mut failed = 0;
        let mut each = |_: &EntryPath, verdict: &Verdict, _: u64| failed += u64::from(*verdict != Verdict::Pass);
        let verified = verify(&archive, threads, &Cancel::new(), &no_probe, &mut each);
        let is_good = verified.as_ref().is_ok_and(lifeboat_format::archive::verify::Findings::is_good);
        if let Ok(findings) = &verified {
            assert_eq!(findings.failed, failed, "{what}: the count of failures is that of the verdicts");
        }
        let read = everything(&archive, threads);
        // What a restore would take for whole, also where verify would warn of it.
        if let Some(read) = &read
            && archive.head().is_some()
        {
            assert_eq!(read, self.original, "{what}: a restore would not notice");
        }
        if is_good {
            assert!(read.is_some(), "{what}: verify says it is good, and a restore would stop");
            assert!(read.as_ref() == Some(self.original), "{what}: verify says it is good, and it differs");
            return Taken::WithoutEffect;
        }
        Taken::Found
    }
}

fn original(bytes: &[u8], dir: &Path) -> Everything {
    let path = dir.join("whole");
    std::fs::write(&path, bytes).unwrap();
    let archive = Archive::open(&path).unwrap();
    let findings = verify(&archive, 2, &Cancel::new(), &no_probe, &mut |_, _, _| {}).unwrap();
    assert!(findings.is_good(), "{findings:?}");
    everything(&archive, 2).unwrap()
}

/// Plays the flip of each bit (or of one bit of each byte, where `bits` is 1) and each truncation
/// of the archive that `entries` make, or those that this run draws.
fn damage_everywhere(name: &str, entries: fn() -> Vec<Box<dyn Item>>, compression: Compression, bits: usize) {
    let dir = tempfile::tempdir().unwrap();
    let bytes = archive_of(entries(), compression, dir.path());
    let original = original(&bytes, dir.path());
    assert_eq!(original.entries.len(), entries().len());
    for (expected, (read, _)) in entries().iter().zip(&original.entries) {
        assert_eq!(expected.open().map_err(|problem| problem.message).unwrap().entry, *read);
    }
    let mut case = Case { path: dir.path().join("damaged"), original: &original, counts: [0; 2] };
    case.play(&bytes, 2, "undamaged");
    assert_eq!(case.counts, [0, 1], "the harness sees that nothing is wrong");

    for flip in sweep(&format!("{name} archive: bits flipped"), bytes.len() * bits, 200) {
        let (byte, bit) = (flip / bits, flip % 8);
        let mut damaged = bytes.clone();
        damaged[byte] ^= 1 << bit;
        case.play(&damaged, 1 + flip % 3, &format!("bit {bit} of byte {byte}"));
    }
    for len in sweep(&format!("{name} archive: cut off"), bytes.len(), 200) {
        case.play(&bytes[..len], 1 + len % 3, &format!("cut to {len} bytes"));
    }
    let [found, without_effect] = case.counts;
    assert!(found > without_effect, "most damage has an effect");
}

/// Shows A9.
#[test]
fn every_flip_and_every_cut_of_a_zstd_archive_is_found_or_has_no_effect() {
    damage_everywhere("zstd", few_entries, Compression::Zstd(3), 8);
}

/// Shows A9.
#[test]
fn every_flip_and_every_cut_of_a_gzip_archive_is_found_or_has_no_effect() {
    damage_everywhere("gzip", few_entries, Compression::Gzip(6), 8);
}

/// Shows A9.
#[test]
fn every_flip_and_every_cut_around_a_large_file_is_found_or_has_no_effect() {
    damage_everywhere("zstd, large", large_entries, Compression::Zstd(3), 1);
    damage_everywhere("gzip, large", large_entries, Compression::Gzip(6), 1);
}

/// Two bytes at once, and pieces swapped, removed and doubled: more than bit
/// rot, still never a panic and never taken for whole.
///
/// Shows A9.
#[test]
fn pieces_that_are_moved_removed_or_doubled_are_found_or_have_no_effect() {
    for compression in [Compression::Zstd(3), Compression::Gzip(6)] {
        let dir = tempfile::tempdir().unwrap();
        let bytes = archive_of(few_entries(), compression, dir.path());
        let original = original(&bytes, dir.path());
        let path = dir.path().join("damaged");
        let mut case = Case { path, original: &original, counts: [0; 2] };
        for number in sweep(&format!("{compression:?}: pieces moved"), 3000, 300) {
            let mut random = Random::new(number as u64);
            let mut damaged = bytes.clone();
            let (from, to) = (random.below(bytes.len()), random.below(bytes.len()));
            let len = 1 + random.below(bytes.len() - from.max(to)).min(random.below(64));
            match number % 4 {
                0 => damaged.copy_within(from..from + len, to),
                1 => drop(damaged.drain(from..from + len)),
                2 => drop(damaged.splice(to..to, bytes[from..from + len].to_vec())),
                _ => damaged[from..from + len].fill(0xff),
            }
            case.play(&damaged, 1 + number % 3, &format!("{compression:?}, piece {number}: {from} {to} {len}"));
        }
    }
}
