//! Kernels and file systems that lack something, and calls that are
//! interrupted: there and back works all the same.

use lifeboat_store::testing::{Random, can_run, sweep};

use super::{BACKUP, calls, moments, nothing_or_whole, source, trace, traced};
use crate::env::TestEnv;
use crate::fidelity::{Maker, archived, assert_same, snapshot};

/// Shows A3, A4 and A7.
#[test]
fn what_a_kernel_or_file_system_lacks_is_done_another_way() {
    const TEST: &str = "what_a_kernel_or_file_system_lacks_is_done_another_way";
    if !can_run(TEST, &["strace"]) {
        return;
    }
    let env = TestEnv::new();
    let mut random = Random::new(2);
    let maker = Maker::new(&env.path("source"));
    maker.file("a", "new");
    maker.file("large", random.bytes(5 << 20));
    maker.dir("d/empty");
    maker.file("d/b", random.bytes(5000));
    env.run("ln", ["source/a", "source/linked"]).ok();
    env.run("ln", ["-s", "a", "source/symlink"]).ok();
    let expected = archived(snapshot(&env.path("source")), false);
    for inject in [
        "openat2:error=ENOSYS",
        "openat2:error=EPERM",
        "openat2:error=EAGAIN:when=1+2",
        "copy_file_range:error=ENOSYS",
        "copy_file_range:error=EXDEV",
        "copy_file_range:error=EINTR:when=1+2",
        "fallocate:error=EOPNOTSUPP",
        "renameat2:error=EINVAL",
        "renameat2:error=ENOSYS",
        "read:error=EINTR:when=12+5",
        "pread64:error=EINTR:when=12+3",
        "pwrite64:error=EINTR:when=1+2",
        "flistxattr,llistxattr:error=EOPNOTSUPP",
        "statx:error=ENOSYS",
        "getrandom:error=EINTR:when=1",
        "sched_getaffinity:error=ENOSYS",
        "madvise:error=EINVAL",
    ] {
        let options =
            ["-e", &format!("trace={}", inject.split(':').next().unwrap()), "-e", &format!("inject={inject}")];
        let run = traced(&env, &options, &["backup", "source", "--output", "a.tar.zst"]);
        assert_eq!(run.exit_code(), 0, "{inject}: {}", trace(&env));
        env.lifeboat(["backup", "verify", "a.tar.zst"]).ok();
        env.write("to/files/source/a", "old");
        env.write("to/files/source/d/mine", "mine");
        env.run("ln", ["-s", "nowhere", "to/files/source/symlink"]).ok();
        let run = traced(&env, &options, &["restore", "a.tar.zst", "--to", "to", "--overwrite"]);
        run.ok();
        std::fs::remove_file(env.path("to/files/source/d/mine")).unwrap();
        let mut got = snapshot(&env.path("to/files/source"));
        got.get_mut(b"d".as_slice()).unwrap().mtime = expected[b"d".as_slice()].mtime;
        assert_same(&expected, &got, inject);
        assert_eq!(env.names("to"), ["files"], "{inject}");
        std::fs::remove_dir_all(env.path("to")).unwrap();
        std::fs::remove_file(env.path("a.tar.zst")).unwrap();
    }
}

/// What makes strace answer as a file system without unnamed files does (NFS, FUSE).
fn no_unnamed_files(env: &TestEnv) -> String {
    traced(env, &[], &BACKUP).ok();
    assert!(nothing_or_whole(env, "undisturbed"));
    let trace = trace(env);
    let opened: Vec<&str> = trace.lines().filter(|line| line.contains(" open(\"")).collect();
    let first = opened.iter().position(|line| line.contains("O_TMPFILE")).expect("it asks for an unnamed file");
    assert!(opened[first..].iter().all(|line| line.contains("O_TMPFILE")), "{opened:#?}");
    // Each one that is refused is followed by that of the file that stands in for it.
    format!("inject=open:error=EOPNOTSUPP:when={}+2", first + 1)
}

/// Where files cannot be without a name, a hidden name stands in for it.
///
/// Shows A3.
#[test]
fn a_file_system_without_unnamed_files_keeps_the_promises_too() {
    const TEST: &str = "a_file_system_without_unnamed_files_keeps_the_promises_too";
    if !can_run(TEST, &["strace"]) {
        return;
    }
    let env = TestEnv::new();
    source(&env);
    env.mkdir("out");
    let refuse = no_unnamed_files(&env);
    traced(&env, &["-e", &refuse], &BACKUP).ok();
    let undisturbed = trace(&env);
    assert!(undisturbed.contains("/out/.lifeboat-"), "there is a stand-in");
    assert!(nothing_or_whole(&env, "with a stand-in"));
    // An exclusive rename may be missing too: then it is a hard link.
    traced(&env, &["-e", &refuse, "-e", "inject=renameat2:error=EINVAL"], &BACKUP).ok();
    assert!(nothing_or_whole(&env, "without exclusive renames"));
    env.write("out/a.tar.zst", "mine");
    traced(&env, &["-e", &refuse], &BACKUP).code(1);
    assert_eq!(env.read("out/a.tar.zst"), b"mine");
    std::fs::remove_file(env.path("out/a.tar.zst")).unwrap();

    // Killed, it leaves hidden files; the next run that needs such files removes them.
    let names = ["pwrite64", "copy_file_range", "fsync", "fchmod", "flock", "unlink", "renameat2", "close"];
    let cases = moments(&calls(&undisturbed), &names);
    let mut left = 0;
    for number in sweep("a backup with stand-ins killed at a system call", cases.len(), 15) {
        let (name, time) = &cases[number];
        let what = format!("killed at {name} {time}");
        let kill = format!("inject={name}:signal=KILL:when={time}");
        let code = traced(&env, &["-e", &refuse, "-e", &kill], &BACKUP).exit_code();
        assert!([0, 137].contains(&code), "{what}: {code}");
        let names = env.names("out");
        assert!(names.iter().all(|name| name == "a.tar.zst" || name.starts_with(".lifeboat-")), "{what}: {names:?}");
        left += names.iter().filter(|name| name.starts_with('.')).count();
        if names.contains(&"a.tar.zst".to_owned()) {
            env.lifeboat(["backup", "verify", "out/a.tar.zst"]).ok();
            std::fs::remove_file(env.path("out/a.tar.zst")).unwrap();
        }
    }
    assert!(left > 0, "some were killed while there were stand-ins");
    traced(&env, &["-e", &refuse, "-e", "inject=copy_file_range:signal=KILL:when=1"], &BACKUP).code(137);
    assert_eq!(env.names("out").len(), 3, "body, manifest, and the archive itself");
    // They are no part of a backup of the directory that they are in.
    env.lifeboat(["backup", "out", "--output", "out/b.tar.zst"]).ok();
    let listed = env.lifeboat(["backup", "list", "out/b.tar.zst"]).ok().stdout;
    assert!(!listed.contains(".lifeboat-"), "{listed}");
    std::fs::remove_file(env.path("out/b.tar.zst")).unwrap();
    traced(&env, &["-e", &refuse], &BACKUP).ok();
    assert!(nothing_or_whole(&env, "the next run removes what the killed ones left"));
}
