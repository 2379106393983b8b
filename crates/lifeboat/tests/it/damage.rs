//! Archives that are damaged or lie: what a restore of them changes (nothing),
//! what verify says of them, and what a restore does to what is there already.
#![expect(clippy::unwrap_used, reason = "these are the helpers of tests")]

use std::os::unix::fs::symlink;

use lifeboat_store::testing::{Random, can_run, sweep};

use crate::env::TestEnv;
use crate::fidelity::{Maker, Tree, archived, assert_same, snapshot};

mod corpus;
mod honest;
mod hostile;
mod odd;
mod sealed;
mod tar;

/// A directory to restore to, with things in it and beside it that must stay.
fn world() -> TestEnv {
    let env = TestEnv::new();
    env.write("world/outside/secret", "secret");
    env.write("world/to/mine", "mine");
    env.write("world/to/dir/below", "mine too");
    symlink("../outside", env.path("world/to/link")).unwrap();
    env
}

/// The world is as it was, but for the times of directories in which a stage came and went.
fn assert_untouched(before: &Tree, env: &TestEnv, what: &str) {
    let mut after = snapshot(&env.path("world"));
    for name in [&b""[..], b"to"] {
        after.get_mut(name).unwrap().mtime = before[name].mtime;
    }
    assert_same(before, &after, what);
}

/// Shows A7 and A9.
#[test]
fn a_damaged_archive_leaves_nothing_behind() {
    let env = world();
    Maker::new(&env.path("source")).usual();
    std::fs::remove_dir_all(env.path("source/content")).unwrap();
    std::fs::remove_file(env.path("source/links/large")).unwrap();
    std::fs::remove_file(env.path("source/links/below/large")).unwrap();
    let expected = archived(snapshot(&env.path("source")), false);
    for suffix in ["tar.zst", "tar.gz"] {
        let name = format!("a.{suffix}");
        env.lifeboat(["backup", "source", "--output", &name]).ok();
        let bytes = env.read(&name);
        let before = snapshot(&env.path("world"));
        let refuse = |bytes: &[u8], what: String| {
            env.write("damaged", bytes);
            let run = env.lifeboat(["restore", "damaged", "--to", "world/to/new"]);
            let code = run.exit_code();
            if code == 0 {
                // Without effect, as in the table at the end of a zstd archive.
                assert_same(&expected, &snapshot(&env.path("world/to/new/files/source")), &what);
                std::fs::remove_dir_all(env.path("world/to/new")).unwrap();
                return 0;
            }
            let said = run.code(code);
            assert!([13, 23].contains(&code), "{what}: {code} {}", said.stderr);
            assert_untouched(&before, &env, &what);
            1
        };
        let mut found = 0;
        for len in sweep(&format!("{suffix} archive cut off, restored"), bytes.len() / 50, 15) {
            found += refuse(&bytes[..len * 50], format!("{suffix} cut to {}", len * 50));
        }
        for at in sweep(&format!("{suffix} archive with a flipped bit, restored"), bytes.len() / 50, 15) {
            let mut damaged = bytes.clone();
            damaged[at * 50] ^= 1 << (at % 8);
            found += refuse(&damaged, format!("{suffix} with byte {} flipped", at * 50));
        }
        assert!(found >= 25, "{found} were found");
    }
}

/// Shows A9.
#[test]
fn no_damage_takes_long_or_much_memory() {
    if !can_run("no_damage_takes_long_or_much_memory", &["python3"]) {
        return;
    }
    let env = world();
    let mut random = Random::new(1);
    for number in 0..5 {
        env.write(format!("source/{number}"), random.bytes(number * 300));
    }
    env.lifeboat(["backup", "source", "--output", "a.tar.zst"]).ok();
    env.lifeboat(["backup", "source", "--output", "a.tar.gz"]).ok();
    let mut count = 0;
    for name in ["a.tar.zst", "a.tar.gz"] {
        let bytes = env.read(name);
        for flip in sweep(&format!("{name} with a flipped bit, measured"), bytes.len() * 8 / 40, 30) {
            let mut damaged = bytes.clone();
            damaged[flip * 5] ^= 1 << (flip % 8);
            env.write(format!("damaged/{count}"), damaged);
            count += 1;
        }
    }
    for (_, bytes, _) in hostile::all("/nowhere/at/all") {
        env.write(format!("damaged/{count}"), bytes);
        count += 1;
    }
    let said = env.run("python3", ["-c", MEASURE, env!("CARGO_BIN_EXE_lifeboat")]).ok().stdout;
    let (slowest, peak) = said.trim().split_once(' ').unwrap();
    let (slowest, peak): (f64, u64) = (slowest.parse().unwrap(), peak.parse().unwrap());
    println!("{count} archives: the slowest took {slowest:.2} s, the largest {} MB", peak / 1000);
    assert!(slowest < 5.0, "the slowest took {slowest} s");
    assert!(peak < 256_000, "{peak} KB were needed");
}

/// Verifies and restores each archive; prints the longest time and the largest memory.
const MEASURE: &str = r#"
import os, resource, subprocess, sys, time
slowest = 0
for name in os.listdir("damaged"):
    for args in (["backup", "verify"], ["restore", "--to", "new"]):
        begun = time.monotonic()
        run = subprocess.run([sys.argv[1], *args, "damaged/" + name], capture_output=True, timeout=60)
        slowest = max(slowest, time.monotonic() - begun)
        assert run.returncode in (0, 1, 13, 14, 17, 23), (name, args, run)
        assert b"panicked" not in run.stderr, (name, args, run)
        if run.returncode == 0 and args[0] == "restore":
            subprocess.run(["rm", "-rf", "new"], check=True)
print(slowest, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"#;

/// Shows A6 and A7.
#[test]
fn verify_goes_on_after_the_first_failure_and_names_each() {
    let env = TestEnv::new();
    let list = |path: &str, content: &[u8]| tar::listed("file", path, content, "");
    let records = [
        list("files/a", b"evil"),
        list("files/b", b"good"),
        list("files/c", b"evil"),
        list("files/e", b"evil"),
        list("files/f", b"evil"),
    ];
    let body = tar::Tar::default().file("files/a").file("files/b").file("files/c").file("files/d").file("files/f");
    env.write("a.tar", tar::ours(&records, body));
    let said = env.lifeboat(["backup", "verify", "a.tar"]).code(1);
    let lines: Vec<&str> = said.stdout.lines().filter(|line| line.contains("PASS") || line.contains("FAIL")).collect();
    assert_eq!(
        lines,
        [
            "  PASS files/a",
            "  FAIL files/b (sha256 differs)",
            "  PASS files/c",
            "  FAIL files/d (not listed)",
            "  FAIL files/e (missing)",
            "  PASS files/f",
        ]
    );
    assert!(said.stdout.contains("3 of 6 files failed."), "{}", said.stdout);
    env.lifeboat(["restore", "a.tar", "--to", "new"]).code(13);
    assert!(!env.path("new").exists());
}

/// An archive of `source`, and a directory `to` in which some of it stands already.
fn half_there() -> TestEnv {
    let env = TestEnv::new();
    env.write("source/a", "new a");
    env.write("source/d/b", "new b");
    env.write("source/d/deep/c", "new c");
    env.write("source/x/y", "a directory now");
    symlink("elsewhere", env.path("source/s")).unwrap();
    env.lifeboat(["backup", "source", "--output", "a.tar.zst"]).ok();
    env.write("outside/secret", "secret");
    env.write("to/files/source/a", "old a");
    env.write("to/files/source/d/b", "old b");
    env.write("to/files/source/d/mine", "not of the archive");
    env.write("to/files/source/x", "a file before");
    symlink("../../../outside", env.path("to/files/source/s")).unwrap();
    env.write("to/other", "not of the archive");
    env
}

/// Shows A7.
#[test]
fn what_exists_is_not_replaced_unasked() {
    let env = half_there();
    let before = snapshot(&env.path(""));
    let said = env.lifeboat(["restore", "a.tar.zst", "--to", "to"]).code(22);
    assert!(said.stderr.contains("files/source/a") && said.stderr.contains("--overwrite"), "{}", said.stderr);
    assert_same(&before, &snapshot(&env.path("")), "refused");
    // Nor does a dry run change anything, whatever it is asked for.
    let said = env.lifeboat(["restore", "a.tar.zst", "--to", "to", "--overwrite", "--dry-run"]).ok();
    assert!(said.stdout.contains("overwrite") && said.stdout.contains("files/source/d/b"), "{}", said.stdout);
    env.lifeboat(["restore", "a.tar.zst", "--to", "new", "--dry-run"]).ok();
    assert_same(&before, &snapshot(&env.path("")), "dry run");
    // One entry that is in the way is enough, however deep.
    std::fs::remove_dir_all(env.path("to/files/source")).unwrap();
    env.write("to/files/source/d/deep/c", "mine");
    let before = snapshot(&env.path(""));
    env.lifeboat(["restore", "a.tar.zst", "--to", "to"]).code(22);
    assert_same(&before, &snapshot(&env.path("")), "refused");
}

/// Shows A7.
#[test]
fn what_exists_is_replaced_when_asked_and_the_rest_stays() {
    let env = half_there();
    env.lifeboat(["restore", "a.tar.zst", "--to", "to", "--overwrite"]).ok();
    let mut got = snapshot(&env.path("to/files/source"));
    let mine = got.remove(b"d/mine".as_slice()).expect("what is not of the archive stays");
    assert_eq!(mine.size, 18);
    assert_same(&snapshot(&env.path("source")), &got, "replaced");
    assert_eq!(env.read("outside/secret"), b"secret");
    assert_eq!(env.read("to/other"), b"not of the archive");
    assert_eq!(env.names("to"), ["files", "other"]);
    // Again, onto itself.
    env.lifeboat(["restore", "a.tar.zst", "--to", "to", "--overwrite"]).ok();
    assert_eq!(env.names("to/files/source/d"), ["b", "deep", "mine"]);
}

/// All that a directory holds is more than anybody agreed to.
///
/// Shows A7.
#[test]
fn a_directory_with_something_in_it_is_not_replaced_by_a_file() {
    let env = half_there();
    std::fs::remove_dir_all(env.path("to/files/source/d")).unwrap();
    std::fs::remove_file(env.path("to/files/source/a")).unwrap();
    env.write("to/files/source/a/inside", "precious");
    let before = snapshot(&env.path("to"));
    let said = env.lifeboat(["restore", "a.tar.zst", "--to", "to", "--overwrite"]).code(22);
    assert!(said.stderr.contains("files/source/a"), "{}", said.stderr);
    let mut after = snapshot(&env.path("to"));
    // A name came and went.
    after.get_mut(b"".as_slice()).unwrap().mtime = before[b"".as_slice()].mtime;
    assert_same(&before, &after, "refused");
}

/// Directories that are symlinks in the target lead nowhere.
///
/// Shows A7.
#[test]
fn a_symlink_in_the_target_is_never_followed() {
    let env = half_there();
    for place in ["to/files", "to/files/source", "to/files/source/d"] {
        std::fs::remove_dir_all(env.path("to")).unwrap();
        env.mkdir(std::path::Path::new(place).parent().unwrap());
        symlink(env.path("outside"), env.path(place)).unwrap();
        let before = snapshot(&env.path(""));
        env.lifeboat(["restore", "a.tar.zst", "--to", "to"]).code(22);
        assert_same(&before, &snapshot(&env.path("")), place);
        env.lifeboat(["restore", "a.tar.zst", "--to", "to", "--overwrite"]).ok();
        assert_eq!(env.names("outside"), ["secret"], "{place}");
        assert_same(&snapshot(&env.path("source")), &snapshot(&env.path("to/files/source")), place);
    }
    // The directory that was named may be one: whoever named it meant where it leads.
    std::fs::remove_dir_all(env.path("to")).unwrap();
    symlink("outside", env.path("to")).unwrap();
    env.lifeboat(["restore", "a.tar.zst", "--to", "to"]).ok();
    assert_eq!(env.names("outside"), ["files", "secret"]);
}

/// Shows A7 and A10.
#[test]
fn a_restore_that_fails_while_it_moves_in_is_undone() {
    if !can_run("a_restore_that_fails_while_it_moves_in_is_undone", &["strace"]) {
        return;
    }
    let env = half_there();
    let restore = ["restore", "a.tar.zst", "--to", "to", "--overwrite"];
    let before = snapshot(&env.path("to"));
    let mut failed = 0;
    for time in 1..20 {
        let inject = format!("inject=renameat2:error=EIO:when={time}");
        let strace = ["-f", "-o", "trace", "-e", "trace=renameat2", "-e", &inject, env!("CARGO_BIN_EXE_lifeboat")];
        let run = env.run("strace", strace.iter().chain(&restore));
        if !String::from_utf8_lossy(&env.read("trace")).contains("(INJECTED)") {
            run.ok();
            break;
        }
        let said = run.code(1);
        assert!(said.stderr.contains("as it was before"), "{}", said.stderr);
        let mut after = snapshot(&env.path("to"));
        // Renaming there and back leaves the times of directories.
        for (path, node) in &mut after {
            node.mtime = before.get(path).map_or((0, 0), |node| node.mtime);
        }
        assert_same(&before, &after, &format!("rename {time} failed"));
        failed += 1;
    }
    assert!(failed >= 4, "{failed} renames failed");
}
