//! Content whose size shows only at its end, and groups that stand or fall together.

use std::process::Command;

use lifeboat_format::archive::verify::{ContentProbe, Verdict, verify};
use lifeboat_format::archive::{Archive, Compression, UNIT_BYTES};
use lifeboat_format::capture::SIZE_UNKNOWN;
use lifeboat_format::monitor::ProblemClass;
use lifeboat_format::path::EntryPath;
use lifeboat_store::Cancel;
use lifeboat_store::testing::can_run;

use super::{BOTH, Captured, Reading, Scripted, capture, content, scripted};

const SIZES: [usize; 9] =
    [0, 1, 511, 512, UNIT_BYTES - 1, UNIT_BYTES, UNIT_BYTES + 1, 2 * UNIT_BYTES, 2 * UNIT_BYTES + 7];

/// A dump of which nobody knows the size, and which fails where that is said.
fn dump(name: &str, len: usize, fails_at: Option<usize>) -> Scripted {
    scripted(name, vec![Reading { size_at_opening: SIZE_UNKNOWN, fails_at, ..Reading::of(content(len)) }])
}

fn of_group(group: &'static str, item: Scripted) -> Scripted {
    Scripted { group: Some(group), ..item }
}

fn small(name: &str) -> Scripted {
    scripted(name, vec![Reading::of(name.as_bytes().to_vec())])
}

fn names(captured: &Captured) -> Vec<&str> {
    captured.files.iter().map(|(name, _)| name.strip_prefix("files/").unwrap()).collect()
}

/// One dump of each size, small files between some of them, and some of them hard next to each other.
fn all_sizes() -> Vec<Scripted> {
    let mut items = vec![small("00")];
    for (number, size) in SIZES.into_iter().enumerate() {
        items.push(dump(&format!("{:02}", 10 * number + 10), size, None));
        if number % 3 == 2 {
            items.push(small(&format!("{:02}", 10 * number + 11)));
        }
    }
    items
}

#[test]
fn content_of_unknown_size_is_stored_with_the_size_it_turned_out_to_have() {
    for compression in BOTH {
        let one = capture(all_sizes(), compression, 1);
        assert!(one.problems.is_empty(), "{:?}", one.problems);
        let dumps: Vec<&Vec<u8>> =
            one.files.iter().filter(|(name, _)| name.ends_with('0')).skip(1).map(|(_, content)| content).collect();
        assert_eq!(dumps.len(), SIZES.len());
        for (dump, size) in dumps.into_iter().zip(SIZES) {
            assert!(*dump == content(size), "{size} bytes");
        }
        for threads in [2, 5] {
            assert!(
                capture(all_sizes(), compression, threads).bytes == one.bytes,
                "{compression:?}, {threads} threads"
            );
        }
    }
}

/// Reads every file with a stock tool and prints its size, sum and name.
const BY_TARFILE: &str = r#"
import hashlib, sys, tarfile
for member in tarfile.open(sys.argv[1]):
    content = tarfile.open(sys.argv[1]).extractfile(member).read()
    assert len(content) == member.size
    print(member.name, len(content), hashlib.sha256(content).hexdigest())
"#;

/// Shows A8.
#[test]
#[expect(clippy::disallowed_methods, reason = "asks stock tools, in a test")]
fn stock_tools_read_content_of_unknown_size() {
    if !can_run("stock_tools_read_content_of_unknown_size", &["tar", "python3", "busybox", "sha256sum"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let captured = capture(all_sizes(), Compression::Gzip(1), 2);
    let archive = dir.path().join("a.tar.gz");
    std::fs::File::create_new(&archive)
        .and_then(|mut file| std::io::Write::write_all(&mut file, &captured.bytes))
        .unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(dir.path()).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{program}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let by_python = run("python3", &["-c", BY_TARFILE, "a.tar.gz"]);
    for (tool, options) in [("tar", "-xzf"), ("busybox", "-xzf")] {
        let to = dir.path().join(tool);
        std::fs::create_dir(&to).unwrap();
        let applet: &[&str] = if tool == "busybox" { &["tar"] } else { &[] };
        run(tool, &[applet, &[options, "a.tar.gz", "-C", tool]].concat());
        for (name, content) in &captured.files {
            assert!(std::fs::read(to.join(name)).unwrap() == *content, "{tool}: {name}");
        }
        let sums = run("sh", &["-c", &format!("cd {tool} && sha256sum files/*")]);
        for line in sums.lines() {
            let (sum, name) = line.split_once("  ").unwrap();
            let size = std::fs::metadata(to.join(name)).unwrap().len();
            assert!(by_python.contains(&format!("{name} {size} {sum}\n")), "{name}");
        }
    }
}

/// Shows D2.
#[test]
fn a_dump_that_fails_anywhere_is_taken_out_and_its_neighbours_stay() {
    for compression in BOTH {
        for len in [1000, UNIT_BYTES, 2 * UNIT_BYTES + 7] {
            for fails_at in [0, 1, len / 2, len - 1, len] {
                let items = vec![small("a"), dump("b", len, Some(fails_at)), small("c"), dump("d", 9, None)];
                let captured = capture(items, compression, 2);
                assert_eq!(captured.problems, [(ProblemClass::Unreadable, "files/b".to_owned())]);
                assert_eq!(names(&captured), ["a", "c", "d"], "{len} bytes, fails at {fails_at}");
            }
        }
    }
}

/// Shows D2.
#[test]
fn of_a_group_of_which_one_fails_nothing_stays_and_all_else_does() {
    for compression in BOTH {
        for (bad, fails_at) in
            [(0, 0), (0, 2 * UNIT_BYTES), (1, 0), (1, 5), (2, 0), (2, UNIT_BYTES), (2, 2 * UNIT_BYTES)]
        {
            let group = |prefix: &str, group: &'static str, bad: Option<usize>| {
                let dump = |number: usize| {
                    let fails_at = (Some(number) == bad).then_some(fails_at);
                    of_group(group, dump(&format!("{prefix}{number}"), 2 * UNIT_BYTES, fails_at))
                };
                (0..3).map(dump).collect::<Vec<_>>()
            };
            let mut items = vec![small("a"), dump("b", 5, None)];
            items.extend(group("c", "one", None));
            items.extend(group("d", "two", Some(bad)));
            items.extend(group("e", "three", None));
            items.push(small("f"));
            let captured = capture(items, compression, 3);
            assert!(captured.problems.is_empty(), "{:?}", captured.problems);
            assert_eq!(names(&captured), ["a", "b", "c0", "c1", "c2", "e0", "e1", "e2", "f"], "{bad} at {fails_at}");
        }
    }
}

/// Shows D2.
#[test]
fn small_and_known_files_of_a_group_go_with_it() {
    let items = || vec![small("a"), of_group("g", small("b")), of_group("g", dump("c", 7, Some(3))), small("d")];
    let captured = capture(items(), Compression::Zstd(1), 2);
    assert_eq!(names(&captured), ["a", "d"]);
    assert!(captured.problems.is_empty(), "{:?}", captured.problems);
    let mut good = items();
    good[2] = of_group("g", dump("c", 7, None));
    assert_eq!(names(&capture(good, Compression::Zstd(1), 2)), ["a", "b", "c", "d"]);
}

/// More records than are compressed at once: they are taken back as well.
///
/// Shows D2.
#[test]
fn a_group_of_very_many_files_is_taken_out_too() {
    let long = "x".repeat(200);
    let name = |number: usize| format!("b/{}/{number:05}", [long.as_str(); 15].join("/"));
    for bad in [None, Some(1600)] {
        let mut items = vec![small("a")];
        items.extend((0..1600).map(|number| of_group("g", dump(&name(number), 3, None))));
        items.push(of_group("g", dump("c", 3, bad.map(|_| 0))));
        items.push(small("d"));
        let captured = capture(items, Compression::Zstd(1), 2);
        assert_eq!(captured.files.len(), if bad.is_some() { 2 } else { 1603 });
    }
}

/// Passes what holds no `!`, and complains of an end that is not a full stop.
struct Manners {
    last: Option<u8>,
}

impl ContentProbe for Manners {
    fn write(&mut self, piece: &[u8]) -> Result<(), String> {
        self.last = piece.last().copied().or(self.last);
        if piece.contains(&b'!') { Err("it shouts".to_owned()) } else { Ok(()) }
    }

    fn finish(self: Box<Self>) -> Result<(), String> {
        if self.last == Some(b'.') { Ok(()) } else { Err("it does not end".to_owned()) }
    }
}

#[test]
fn a_probe_looks_into_the_files_it_chose_and_fails_them() {
    let long = [vec![b'x'; 2 * UNIT_BYTES], b".".to_vec()].concat();
    let texts = [("a", b"fine.".to_vec()), ("b", b"no end".to_vec()), ("c", b"oh!.".to_vec()), ("d", long)];
    let mut items: Vec<Scripted> =
        texts.into_iter().map(|(name, text)| scripted(name, vec![Reading::of(text)])).collect();
    items.push(scripted("e", vec![Reading::of(b"not asked!".to_vec())]));
    let captured = capture(items, Compression::Zstd(1), 2);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tar.zst");
    let verdicts = |bytes: &[u8]| {
        std::fs::remove_file(&path).unwrap_or(());
        std::fs::File::create_new(&path).and_then(|mut file| std::io::Write::write_all(&mut file, bytes)).unwrap();
        let archive = Archive::open(&path).unwrap();
        let probes = |path: &EntryPath| {
            let is_asked = !path.to_string().ends_with('e');
            is_asked.then(|| Box::new(Manners { last: None }) as Box<dyn ContentProbe>)
        };
        let mut failed = Vec::new();
        let mut each = |path: &EntryPath, verdict: &Verdict, _| {
            if let Verdict::Fail(why) = verdict {
                failed.push(format!("{path}: {why}"));
            }
        };
        verify(&archive, 2, &Cancel::new(), &probes, &mut each).unwrap();
        failed
    };
    assert_eq!(verdicts(&captured.bytes), ["files/b: it does not end", "files/c: it shouts"]);
}
