//! Killed at any moment, no space, no inodes, I/O errors, no power: what a
//! run that could not end well leaves behind, and what it says.
#![expect(clippy::unwrap_used, reason = "these are the helpers of tests")]

use std::collections::BTreeMap;

use lifeboat_store::testing::{Random, can_run, is_root, skip, sweep};

use crate::env::{Run, TestEnv};
use crate::fidelity::{Mount, assert_same, snapshot};

mod lacking;

pub(crate) const LIFEBOAT: &str = env!("CARGO_BIN_EXE_lifeboat");

/// Runs `lifeboat` under strace with these options; its log is `trace`.
pub(crate) fn traced(env: &TestEnv, options: &[&str], args: &[&str]) -> Run {
    env.run("strace", ["-f", "-o", "trace"].iter().chain(options).chain(&[LIFEBOAT]).chain(args))
}

pub(crate) fn trace(env: &TestEnv) -> String {
    String::from_utf8_lossy(&env.read("trace")).into_owned()
}

/// How often the thread that called each system call most did so.
pub(crate) fn calls(trace: &str) -> BTreeMap<String, usize> {
    let mut by_thread: BTreeMap<(String, String), usize> = BTreeMap::new();
    for line in trace.lines() {
        let mut words = line.splitn(2, ' ');
        let (thread, rest) = (words.next().unwrap(), words.next().unwrap_or("").trim_start());
        if let Some((name, _)) = rest.split_once('(').filter(|(name, _)| !name.contains(' ')) {
            *by_thread.entry((name.to_owned(), thread.to_owned())).or_default() += 1;
        }
    }
    let mut most = BTreeMap::new();
    for ((name, _), count) in by_thread {
        let known = most.entry(name).or_default();
        *known = count.max(*known);
    }
    most
}

/// A source that takes several units, with a file that has some of its own.
fn source(env: &TestEnv) -> Random {
    let mut random = Random::new(11);
    env.write("source/a", "first");
    env.write("source/large", random.bytes((5 << 20) + 77));
    env.write("source/small", random.bytes(70_000));
    for number in 0..20 {
        env.write(format!("source/many/{number}"), random.bytes(100));
    }
    random
}

/// A source whose archive is about `len` bytes long.
fn source_of(env: &TestEnv, len: usize) {
    env.write("source/a", Random::new(12).bytes(len / 2));
    env.write("source/b", Random::new(13).bytes(len - len / 2));
}

/// Each case of `calls` that is one of `names`: which call, and which time.
fn moments(calls: &BTreeMap<String, usize>, names: &[&str]) -> Vec<(String, usize)> {
    let named = calls.iter().filter(|(name, _)| names.contains(&name.as_str()));
    named.flat_map(|(name, count)| (1..=*count).map(move |time| (name.clone(), time))).collect()
}

/// What stands in the output directory: nothing, or an archive that is whole.
fn nothing_or_whole(env: &TestEnv, what: &str) -> bool {
    let names = env.names("out");
    if names.is_empty() {
        return false;
    }
    assert_eq!(names, ["a.tar.zst"], "{what}");
    env.lifeboat(["backup", "verify", "out/a.tar.zst"]).ok();
    std::fs::remove_file(env.path("out/a.tar.zst")).unwrap();
    true
}

const BACKUP: [&str; 4] = ["backup", "source", "--output", "out/a.tar.zst"];

/// Shows A3.
#[test]
fn a_backup_killed_at_any_moment_leaves_nothing_or_a_whole_archive() {
    const TEST: &str = "a_backup_killed_at_any_moment_leaves_nothing_or_a_whole_archive";
    if !can_run(TEST, &["strace"]) {
        return;
    }
    let env = TestEnv::new();
    source(&env);
    env.mkdir("out");
    traced(&env, &[], &BACKUP).ok();
    assert!(nothing_or_whole(&env, "undisturbed"));
    let calls = calls(&trace(&env));
    let mut cases = moments(&calls, &["fchmod", "fsync", "linkat", "copy_file_range"]);
    assert!(cases.len() >= 5, "{cases:?}");
    let names =
        ["pwrite64", "write", "open", "openat", "openat2", "read", "fallocate", "close", "munmap", "exit_group"];
    let more = moments(&calls, &names);
    let drawn = sweep("a backup killed at a system call", more.len(), 25);
    cases.extend(drawn.into_iter().map(|number| more[number].clone()));
    let mut left = 0;
    for (name, time) in &cases {
        let inject = format!("inject={name}:signal=KILL:when={time}");
        let code = traced(&env, &["-e", &format!("trace={name}"), "-e", &inject], &BACKUP).exit_code();
        // Work is shared among threads: one may not come to its call number `time` in every run.
        assert!(code == 137 || code == 0, "{name} {time}: {code}");
        let is_left = nothing_or_whole(&env, &format!("killed at {name} {time}"));
        assert!(is_left || code == 137, "{name} {time}: success without an archive");
        left += usize::from(is_left && code == 137);
    }
    assert!(left > 0, "some were killed after the archive had its name");
    env.lifeboat(BACKUP).ok();
}

/// Shows A3.
#[test]
fn the_archive_and_its_directory_are_synced_before_success_is_printed() {
    const TEST: &str = "the_archive_and_its_directory_are_synced_before_success_is_printed";
    if !can_run(TEST, &["strace"]) {
        return;
    }
    let env = TestEnv::new();
    source(&env);
    env.mkdir("out");
    // A file for each thread: what matters is all done by the one that gives the archive its name.
    traced(&env, &["-ff", "-y"], &BACKUP).ok();
    let names = env.names("").into_iter().filter(|name| name.starts_with("trace."));
    let mut traces = names.map(|name| String::from_utf8_lossy(&env.read(name)).into_owned());
    let trace = traces.find(|trace| trace.contains("linkat(")).expect("the archive gets a name");
    let out = format!("<{}>", env.path("out").display());
    let at = |what: &str, found: &dyn Fn(&str) -> bool| {
        trace.lines().position(found).unwrap_or_else(|| panic!("{what} is not in the trace"))
    };
    let is_of = |line: &str, call: &str| line.starts_with(call);
    let writes =
        trace.lines().enumerate().filter(|(_, line)| is_of(line, "pwrite64(") || is_of(line, "copy_file_range("));
    let last_write = writes.last().unwrap().0;
    let file =
        at("fsync of the file", &|line| is_of(line, "fsync(") && line.contains("/out/") && line.ends_with("= 0"));
    let named = at("linkat", &|line| is_of(line, "linkat(") && line.contains("a.tar.zst"));
    let dir =
        at("fsync of the directory", &|line| is_of(line, "fsync(") && line.contains(&out) && line.ends_with("= 0"));
    let said = at("the report", &|line| is_of(line, "write(1<") && line.contains("Backup written"));
    let order = [last_write, file, named, dir, said];
    assert!(order.is_sorted() && file < named, "{order:?}");
}

/// Shows A3.
#[test]
fn an_existing_output_is_an_error_and_is_not_touched() {
    let env = TestEnv::new();
    env.write("source/a", "x");
    env.write("mine.tar.zst", "precious");
    env.run("ln", ["-s", "nowhere", "link.tar.zst"]).ok();
    env.mkdir("dir.tar.zst/inside");
    for name in ["mine.tar.zst", "link.tar.zst"] {
        let before = snapshot(&env.path(""));
        let said = env.lifeboat(["backup", "source", "--output", name]).code(1);
        assert!(said.stderr.contains(name), "{}", said.stderr);
        assert_same(&before, &snapshot(&env.path("")), name);
    }
    // A directory takes a dated name instead.
    env.lifeboat(["backup", "source", "--output", "dir.tar.zst"]).ok();
    assert_eq!(env.names("dir.tar.zst").len(), 2);
}

/// Somebody else takes the name while the archive is written.
///
/// Shows A3.
#[test]
fn a_name_taken_meanwhile_is_not_overwritten() {
    const TEST: &str = "a_name_taken_meanwhile_is_not_overwritten";
    if !can_run(TEST, &["strace"]) {
        return;
    }
    let env = TestEnv::new();
    env.write("source/a", "x");
    let inject = ["-e", "trace=linkat", "-e", "inject=linkat:delay_enter=700000"];
    let command = ["-f", "-o", "trace"].iter().chain(&inject).chain(&[LIFEBOAT, "backup", "source"]);
    let running = env.program("strace", command.clone().chain(&["--output", "taken.tar.zst"])).start();
    std::thread::sleep(std::time::Duration::from_millis(450));
    env.write("taken.tar.zst", "somebody else's");
    running.wait().code(1);
    assert_eq!(env.read("taken.tar.zst"), b"somebody else's");
    assert_eq!(env.names(""), ["source", "taken.tar.zst", "trace"]);
}

/// Shows A2.
#[test]
fn every_file_is_opened_once_and_read_once() {
    if !can_run("every_file_is_opened_once_and_read_once", &["strace"]) {
        return;
    }
    let env = TestEnv::new();
    source(&env);
    env.mkdir("out");
    let calls = "trace=open,openat,openat2,read,pread64,readv,preadv,preadv2,mmap,copy_file_range,sendfile,splice";
    // A file for each thread, so that no call is cut in two by another's line.
    traced(&env, &["-ff", "-y", "-e", calls], &BACKUP).ok();
    let names = env.names("").into_iter().filter(|name| name.starts_with("trace."));
    let trace: String = names.map(|name| String::from_utf8_lossy(&env.read(name)).into_owned()).collect();
    let root = format!("{}/", env.path("source").display());
    let mut opened: BTreeMap<&str, usize> = BTreeMap::new();
    let mut read: BTreeMap<&str, u64> = BTreeMap::new();
    for line in trace.lines() {
        assert!(!line.contains("mmap(") || !line.contains(&root), "a file that shrinks would kill us: {line}");
        let Some((call, result)) = line.rsplit_once(" = ") else { continue };
        if let Some((_, path)) = result.split_once(&format!("<{root}")) {
            *opened.entry(path.trim_end_matches('>')).or_default() += 1;
        } else if let Some((_, rest)) = call.split_once(&format!("<{root}")) {
            *read.entry(rest.split_once('>').unwrap().0).or_default() += result.parse::<u64>().unwrap_or(0);
        }
    }
    let tree = snapshot(&env.path("source"));
    let files: Vec<_> = tree.iter().filter(|(_, node)| node.kind == "file").collect();
    assert_eq!(files.len(), 23);
    for (path, node) in files {
        let path = std::str::from_utf8(path).unwrap();
        assert_eq!(opened.get(path), Some(&1), "how often {path} was opened");
        assert_eq!(read.get(path).copied().unwrap_or(0), node.size, "bytes of {path} that were read");
    }
}

/// Shows A2.
#[test]
fn the_archive_does_not_depend_on_the_number_of_workers() {
    const TEST: &str = "the_archive_does_not_depend_on_the_number_of_workers";
    if !can_run(TEST, &["tar", "zstd", "gzip"]) {
        return;
    }
    let env = TestEnv::new();
    let mut random = source(&env);
    for number in 0..60 {
        env.write(format!("source/d{}/{number}", number % 7), random.bytes(20_000 + number * 5000));
    }
    for (suffix, decompress) in [("tar.zst", "zstd -dc"), ("tar.gz", "gzip -dc")] {
        let [one, four] = [1, 4].map(|threads| {
            let name = format!("{threads}.{suffix}");
            let threads = format!("--threads={threads}");
            env.lifeboat(["backup", "source", "--output", &name, &threads]).ok();
            let manifest = env.run("tar", ["-xOf", &name, "manifest.json"]).ok().bytes;
            let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
            let body =
                env.run("sh", ["-c", &format!("{decompress} {name} | tail -c +{}", after_manifest(&env, &name))]);
            (manifest, body.ok().bytes, env.read(&name))
        });
        assert_eq!(one.0["files"], four.0["files"]);
        assert!(one.1 == four.1 && one.1.len() > 9 << 20, "the tar after the manifest is the same, byte for byte");
        // So is what it is packed in: all but the manifest at its start and, of zstd, the table at its end.
        let tail = 10_000;
        let ends = [&one.2, &four.2].map(|bytes| {
            let table = if suffix == "tar.zst" { table_len(bytes) } else { 0 };
            &bytes[..bytes.len() - table]
        });
        let shared = ends[0].len().min(ends[1].len()) - tail;
        assert!(ends[0][ends[0].len() - shared..] == ends[1][ends[1].len() - shared..], "{suffix}");
    }
}

/// The byte, counted from 1, at which the tar goes on after the manifest.
fn after_manifest(env: &TestEnv, name: &str) -> usize {
    let len = env.run("tar", ["-xOf", name, "manifest.json"]).ok().bytes.len();
    512 + len.div_ceil(512) * 512 + 1
}

/// The table of frames at the end of a zstd archive, with its own frame's header.
fn table_len(archive: &[u8]) -> usize {
    let footer: [u8; 4] = archive[archive.len() - 9..][..4].try_into().unwrap();
    usize::try_from(u32::from_le_bytes(footer)).unwrap() * 8 + 9 + 8
}

fn needs_root(test: &str) -> bool {
    if !is_root() {
        skip(test, "needs root, to mount");
    }
    is_root()
}

/// Every size of a small file system around what is needed, for the archive.
///
/// Shows A10.
#[test]
fn no_space_for_the_archive_is_said_and_leaves_nothing() {
    if !needs_root("no_space_for_the_archive_is_said_and_leaves_nothing") {
        return;
    }
    let env = TestEnv::new();
    source_of(&env, 500_000);
    let (mut enough, mut too_little) = (0, 0);
    let sizes = 2 * 500 / 4;
    let mut drawn = sweep("sizes of a file system for an archive", sizes, 30);
    drawn.extend([0, sizes + 40]);
    for step in drawn {
        let size = format!("size={}k", 64 + step * 4);
        let mount = Mount::new(&env, "out", &["-t", "tmpfs", "-o", &size, "tmpfs"]);
        let run = env.lifeboat(BACKUP);
        match run.exit_code() {
            0 => enough += 1,
            _ => {
                let said = run.code(14);
                assert!(said.stderr.contains("out") && said.stderr.contains("space"), "{}", said.stderr);
                too_little += 1;
            }
        }
        let is_there = nothing_or_whole(&env, &size);
        assert!(is_there || step < sizes, "twice the archive is enough");
        drop(mount);
    }
    assert!(enough > 0 && too_little > 0, "{enough} were enough, {too_little} were not");
}

/// Shows A10.
#[test]
fn no_space_or_inodes_for_a_restore_is_said_and_leaves_nothing() {
    if !needs_root("no_space_or_inodes_for_a_restore_is_said_and_leaves_nothing") {
        return;
    }
    let env = TestEnv::new();
    // Small files: they take more room than their sizes say, so that space ends in the middle.
    let mut random = Random::new(3);
    (0..150).for_each(|number| drop(env.write(format!("source/{number}"), random.bytes(300))));
    env.write("source/larger", random.bytes(200_000));
    env.lifeboat(["backup", "source", "--output", "a.tar.zst"]).ok();
    let expected = snapshot(&env.path("source"));
    let mut counts = [0, 0];
    let mut try_with = |limit: &str| {
        let mount = Mount::new(&env, "to", &["-t", "tmpfs", "-o", limit, "tmpfs"]);
        let run = env.lifeboat(["restore", "a.tar.zst", "--to", "to/deep/new"]);
        if run.exit_code() == 0 {
            assert_same(&expected, &snapshot(&env.path("to/deep/new/files/source")), limit);
            std::fs::remove_dir_all(env.path("to/deep")).unwrap();
            counts[0] += 1;
        } else {
            let said = run.code(14);
            assert!(said.stderr.contains("space"), "{limit}: {}", said.stderr);
            counts[1] += 1;
        }
        assert!(env.names("to").is_empty(), "{limit}: {:?}", env.names("to"));
        drop(mount);
    };
    for step in sweep("sizes of a file system for a restore", 300, 25).into_iter().chain([300]) {
        try_with(&format!("size={}k,nr_inodes=1000", 32 + step * 4));
    }
    for inodes in sweep("numbers of inodes for a restore", 170, 20).into_iter().chain([170]) {
        try_with(&format!("size=4m,nr_inodes={}", 2 + inodes));
    }
    assert!(counts.iter().all(|count| *count > 1), "{counts:?}");
}

/// Shows A10.
#[test]
fn no_inodes_and_a_read_only_file_system_for_the_archive_are_told_apart() {
    if !needs_root("no_inodes_and_a_read_only_file_system_for_the_archive_are_told_apart") {
        return;
    }
    let env = TestEnv::new();
    source_of(&env, 50_000);
    let mut failed = 0;
    for inodes in 1..8 {
        let mount = Mount::new(&env, "out", &["-t", "tmpfs", "-o", &format!("nr_inodes={inodes}"), "tmpfs"]);
        let run = env.lifeboat(BACKUP);
        if run.exit_code() != 0 {
            assert!(run.code(14).stderr.contains("space"));
            failed += 1;
        }
        nothing_or_whole(&env, &format!("{inodes} inodes"));
        drop(mount);
    }
    assert!((1..7).contains(&failed), "{failed} failed");
    let mount = Mount::new(&env, "out", &["-t", "tmpfs", "-o", "ro", "tmpfs"]);
    let said = env.lifeboat(BACKUP).code(16);
    assert!(said.stderr.contains("out"), "{}", said.stderr);
    drop(mount);
}

/// Each call that changes something fails once, each time it comes.
///
/// Shows A3 and A10.
#[test]
fn any_call_that_fails_ends_a_backup_with_its_code_and_leaves_nothing() {
    const TEST: &str = "any_call_that_fails_ends_a_backup_with_its_code_and_leaves_nothing";
    if !can_run(TEST, &["strace"]) {
        return;
    }
    let env = TestEnv::new();
    source(&env);
    env.mkdir("out");
    traced(&env, &[], &BACKUP).ok();
    assert!(nothing_or_whole(&env, "undisturbed"));
    let names = ["pwrite64", "copy_file_range", "fsync", "linkat", "fchmod", "ftruncate"];
    let mut cases = Vec::new();
    for (name, time) in moments(&calls(&trace(&env)), &names) {
        cases.extend([("EIO", 1), ("ENOSPC", 14), ("EACCES", 16)].map(|error| (name.clone(), time, error)));
    }
    for number in sweep("a backup in which a system call fails", cases.len(), 20) {
        let (name, time, (error, code)) = &cases[number];
        let inject = format!("inject={name}:error={error}:when={time}");
        let run = traced(&env, &["-e", &format!("trace={name}"), "-e", &inject], &BACKUP);
        let what = format!("{name} {time} {error}");
        // Work is shared among threads: one may not come to its call number `time` in every run.
        if trace(&env).contains("(INJECTED)") {
            let said = run.code(*code);
            assert!(said.stderr.contains("out") && said.stdout.is_empty(), "{what}: {}", said.stderr);
            assert!(env.names("out").is_empty(), "{what}: {:?}", env.names("out"));
        } else {
            run.ok();
            assert!(nothing_or_whole(&env, &what));
        }
    }
}

/// Shows A5 and A10.
#[test]
fn a_file_that_gives_an_error_when_it_is_read_is_named_and_the_rest_is_kept() {
    const TEST: &str = "a_file_that_gives_an_error_when_it_is_read_is_named_and_the_rest_is_kept";
    if !can_run(TEST, &["strace"]) {
        return;
    }
    let env = TestEnv::new();
    source(&env);
    // In several places of a unit, and half-way through a file of several units.
    for (name, call, time, error) in [
        ("a", "read", 1, "EIO"),
        ("small", "read", 1, "EIO"),
        ("large", "read", 1, "EIO"),
        ("large", "read", 2, "EIO"),
        ("many/7", "openat2", 1, "EACCES"),
        ("large", "openat2", 1, "EACCES"),
        ("small", "openat2", 1, "EIO"),
    ] {
        let path = env.path("source").join(name);
        let inject = format!("inject={call}:error={error}:when={time}");
        let options = ["-P", path.to_str().unwrap(), "-P", name, "-e", &format!("trace={call}"), "-e", &inject];
        let archive = format!("{}-{call}-{time}.tar.zst", name.replace('/', "-"));
        let said = traced(&env, &options, &["backup", "source", "--output", &archive, "--threads=1"]).code(3);
        let told = said.stdout + &said.stderr;
        assert!(told.contains(&format!("files/source/{name}")), "{archive}: {told}");
        env.lifeboat(["backup", "verify", &archive]).ok();
        env.lifeboat(["restore", &archive, "--to", "new", "--overwrite"]).ok();
        let mut expected = snapshot(&env.path("source"));
        expected.remove(name.as_bytes());
        assert_same(&expected, &snapshot(&env.path("new/files/source")), &archive);
        std::fs::remove_dir_all(env.path("new")).unwrap();
    }
    // One that is all there is: its source failed.
    let path = env.path("source/a");
    let options = ["-P", path.to_str().unwrap(), "-e", "trace=read", "-e", "inject=read:error=EIO"];
    traced(&env, &options, &["backup", "source/a", "--output", "alone.tar.zst"]).code(18);
    assert!(!env.path("alone.tar.zst").exists());
}

/// Shows A7 and A10.
#[test]
fn an_archive_that_gives_an_error_when_it_is_read_is_not_called_damaged() {
    const TEST: &str = "an_archive_that_gives_an_error_when_it_is_read_is_not_called_damaged";
    if !can_run(TEST, &["strace"]) {
        return;
    }
    let env = TestEnv::new();
    source(&env);
    env.lifeboat(["backup", "source", "--output", "a.tar.zst"]).ok();
    let path = env.path("a.tar.zst");
    for time in [2, 5, 12] {
        let inject = format!("inject=pread64:error=EIO:when={time}+");
        let options = ["-P", path.to_str().unwrap(), "-e", "trace=pread64", "-e", &inject];
        for args in [&["backup", "verify", "a.tar.zst"][..], &["restore", "a.tar.zst", "--to", "new"]] {
            let said = traced(&env, &options, args).code(1);
            assert!(trace(&env).contains("(INJECTED)"), "the archive is read by pread64");
            assert!(said.stderr.contains("Input/output error"), "{}", said.stderr);
            assert!(!env.path("new").exists(), "nothing is left");
        }
    }
}

/// Shows A7.
#[test]
fn a_restore_killed_at_any_moment_is_whole_or_absent_and_the_next_one_works() {
    const TEST: &str = "a_restore_killed_at_any_moment_is_whole_or_absent_and_the_next_one_works";
    if !can_run(TEST, &["strace"]) {
        return;
    }
    let env = TestEnv::new();
    source(&env);
    env.lifeboat(["backup", "source", "--output", "a.tar.zst"]).ok();
    let expected = snapshot(&env.path("source"));
    let restore = ["restore", "a.tar.zst", "--to", "to"];
    env.write("to/mine", "not of the archive");
    traced(&env, &[], &restore).ok();
    let calls = calls(&trace(&env));
    let mut cases = moments(&calls, &["renameat2", "syncfs", "unlinkat"]);
    let more = moments(&calls, &["pwrite64", "mkdirat", "mkdir", "fchown", "fchmod", "openat", "utimensat", "close"]);
    let drawn = sweep("a restore killed at a system call", more.len(), 25);
    cases.extend(drawn.into_iter().map(|number| more[number].clone()));
    for (name, time) in &cases {
        std::fs::remove_dir_all(env.path("to")).unwrap();
        env.write("to/mine", "not of the archive");
        let inject = format!("inject={name}:signal=KILL:when={time}");
        let code = traced(&env, &["-e", &format!("trace={name}"), "-e", &inject], &restore).exit_code();
        assert!(code == 137 || code == 0, "{name} {time}: {code}");
        let what = format!("killed at {name} {time}");
        let visible: Vec<_> = env.names("to").into_iter().filter(|name| !name.starts_with(".lifeboat-")).collect();
        let is_whole = visible == ["files", "mine"];
        assert!(is_whole || visible == ["mine"], "{what}: {visible:?}");
        if is_whole {
            assert_same(&expected, &snapshot(&env.path("to/files/source")), &what);
        }
        env.lifeboat(restore.iter().chain(&["--overwrite"])).ok();
        assert_same(&expected, &snapshot(&env.path("to/files/source")), &format!("after it was {what}"));
        assert_eq!(env.names("to"), ["files", "mine"], "{what}: the next one cleans up");
    }
}

/// The power goes as soon as success is printed; what was not synced is lost.
///
/// Shows A3.
#[test]
fn what_was_reported_survives_a_power_cut() {
    const TEST: &str = "what_was_reported_survives_a_power_cut";
    if !needs_root(TEST) || !can_run(TEST, &["mkfs.ext4", "losetup", "python3"]) {
        return;
    }
    let env = TestEnv::new();
    source(&env);
    let expected = snapshot(&env.path("source"));
    env.run("truncate", ["-s", "64M", "disk"]).ok();
    env.run("mkfs.ext4", ["-q", "disk"]).ok();
    let disk = env.path("disk").display().to_string();
    let mut mount = Mount::new(&env, "mnt", &["-o", "loop", &disk]);
    for round in ["backup", "restore"] {
        env.write("mnt/unsynced", "lost");
        if round == "backup" {
            env.lifeboat(["backup", "source", "--output", "mnt/new/a.tar.zst"]).ok();
        } else {
            env.lifeboat(["restore", "mnt/new/a.tar.zst", "--to", "mnt/deep/er"]).ok();
        }
        env.write("mnt/unsynced", "lost as well");
        let cut = "import fcntl,os,struct; fcntl.ioctl(os.open('mnt',os.O_RDONLY),0x8004587D,struct.pack('I',2))";
        env.run("python3", ["-c", cut]).ok();
        drop(mount);
        mount = Mount::new(&env, "mnt", &["-o", "loop", &disk]);
        let unsynced = std::fs::read(env.path("mnt/unsynced")).unwrap_or_default();
        assert_ne!(unsynced, b"lost as well", "the power was cut");
        env.lifeboat(["backup", "verify", "mnt/new/a.tar.zst"]).ok();
    }
    assert_same(&expected, &snapshot(&env.path("mnt/deep/er/files/source")), "after the power cut");
    drop(mount);
}

/// Shows A10.
#[test]
fn too_few_handles_or_threads_or_too_little_memory_never_ends_in_a_panic() {
    const TEST: &str = "too_few_handles_or_threads_or_too_little_memory_never_ends_in_a_panic";
    if !can_run(TEST, &["prlimit"]) {
        return;
    }
    let env = TestEnv::new();
    source(&env);
    env.lifeboat(["backup", "source", "--output", "whole.tar.zst"]).ok();
    env.mkdir("out");
    let mut limits: Vec<String> = (3..24).map(|handles| format!("--nofile={handles}")).collect();
    limits.extend((16..120).step_by(8).map(|mib| format!("--as={}", mib << 20)));
    for number in sweep("limits of a process", limits.len(), 12) {
        for args in [&BACKUP[..], &["restore", "whole.tar.zst", "--to", "new"]] {
            let run = env.run("prlimit", [limits[number].as_str(), LIFEBOAT].iter().chain(args));
            let code = run.exit_code();
            let said = run.code(code);
            let what = format!("{} {args:?}: {code} {}", limits[number], said.stderr);
            // Out of memory, an allocation may abort the program; nothing is left even then.
            let is_aborted = code == 134 && limits[number].starts_with("--as");
            assert!(!said.stderr.contains("panicked") && code != 101, "{what}");
            assert!(is_aborted || [0, 1, 3, 13, 14, 18, 127].contains(&code), "{what}");
            let is_there = nothing_or_whole(&env, &what);
            assert!(args[0] != "backup" || is_there == (code == 0 || code == 3), "{what}");
            let new = env.path("new/files/source");
            assert_eq!(args[0] == "restore" && code == 0, new.exists(), "{what}");
            if env.path("new").exists() {
                std::fs::remove_dir_all(env.path("new")).unwrap();
            }
        }
    }
    if is_root() {
        env.run("chmod", ["777", "out"]).ok();
        let copy = env.path("lifeboat-for-nobody");
        std::fs::copy(LIFEBOAT, &copy).unwrap();
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "prlimit", "--nproc=1"];
        let run = env.run("setpriv", nobody.iter().chain(&[copy.to_str().unwrap()]).chain(&BACKUP));
        let code = run.exit_code();
        let said = run.code(code);
        assert!(code == 1 && !said.stderr.contains("panicked"), "one thread only: {code} {}", said.stderr);
        assert!(env.names("out").is_empty());
    }
}
