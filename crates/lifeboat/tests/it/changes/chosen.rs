//! What goes into an archive, what it is called, and how it is compressed.

use lifeboat_store::testing::{is_root, skip};

use crate::env::TestEnv;
use crate::fidelity::Mount;

/// The paths in an archive below `files/source/`.
fn listed(env: &TestEnv, archive: &str) -> Vec<String> {
    let said = env.lifeboat(["backup", "list", archive, "--json"]).ok();
    let entries = said.json_lines().into_iter().filter(|line| line["message_type"] == "entry");
    let paths = entries.filter_map(|line| Some(line["path"].as_str()?.strip_prefix("files/source/")?.to_owned()));
    paths.collect()
}

/// Shows A1.
#[test]
fn patterns_choose_as_gitignore_says_and_stand_in_the_manifest() {
    let env = TestEnv::new();
    for name in
        ["a.log", "keep.log", "b.txt", "cache/x", "sub/a.log", "sub/keep.log", "sub/cache/y", "sub/b.txt", "top"]
    {
        env.write(format!("source/{name}"), name);
    }
    env.write("source/sub/top", "");
    env.write("source/ space", "");
    env.write("patterns", "# a comment\n*.log\n\n!keep.log\n/top\n");
    let all = [
        " space",
        "a.log",
        "b.txt",
        "cache",
        "cache/x",
        "keep.log",
        "sub",
        "sub/a.log",
        "sub/b.txt",
        "sub/cache",
        "sub/cache/y",
        "sub/keep.log",
        "sub/top",
        "top",
    ];
    let without = |names: &[&str]| -> Vec<String> {
        all.iter().filter(|name| !names.contains(name)).map(|name| (*name).to_owned()).collect()
    };
    let only = |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    let caches = ["cache", "cache/x", "sub/cache", "sub/cache/y"];
    let cases: [(&[&str], Vec<String>); 13] = [
        (&[], without(&[])),
        (&["--exclude", "*.log"], without(&["a.log", "keep.log", "sub/a.log", "sub/keep.log"])),
        (&["--exclude", "*.log", "--exclude", "!keep.log"], without(&["a.log", "sub/a.log"])),
        (&["--exclude-file", "patterns"], without(&["a.log", "sub/a.log", "top"])),
        (&["--exclude", "/top"], without(&["top"])),
        (&["--exclude", "top"], without(&["top", "sub/top"])),
        (&["--exclude", "cache"], without(&caches)),
        (&["--exclude", "cache/"], without(&caches)),
        (&["--exclude", "sub/cache"], without(&["sub/cache", "sub/cache/y"])),
        (&["--exclude", "**/cache/y"], without(&["sub/cache/y"])),
        (&["--include", "*.txt"], only(&["b.txt", "sub", "sub/b.txt"])),
        (&["--include", "cache/"], only(&["cache", "cache/x", "sub", "sub/cache", "sub/cache/y"])),
        (
            &["--include", "sub", "--exclude", "*.log"],
            only(&["sub", "sub/b.txt", "sub/cache", "sub/cache/y", "sub/top"]),
        ),
    ];
    for (number, (options, expected)) in cases.into_iter().enumerate() {
        let archive = format!("{number}.tar.zst");
        env.lifeboat(["backup", "source", "--output", &archive].iter().chain(options)).ok();
        assert_eq!(listed(&env, &archive), expected, "{options:?}");
    }
    let said = env.lifeboat(["backup", "list", "3.tar.zst", "--json"]).ok();
    assert_eq!(
        said.json_lines()[0]["sources"][0]["details"]["exclude"],
        serde_json::json!(["*.log", "!keep.log", "/top"])
    );
    let said = env.lifeboat(["backup", "list", "12.tar.zst", "--json"]).ok();
    assert_eq!(said.json_lines()[0]["sources"][0]["details"]["include"], serde_json::json!(["sub"]));
}

/// Shows A1 and A3.
#[test]
fn a_name_is_dated_and_a_second_one_of_the_day_does_not_replace_the_first() {
    let env = TestEnv::new();
    env.write("source/a", "x");
    let shape = |name: &str| name.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect::<String>();
    env.lifeboat(["backup", "source"]).ok();
    assert_eq!(
        env.names("").iter().map(|name| shape(name)).collect::<Vec<_>>(),
        ["source", "source-backup-0000-00-00.tar.zst"]
    );
    env.lifeboat(["backup", "source"]).ok();
    let names = env.names("");
    assert!(names.iter().any(|name| shape(name) == "source-backup-0000-00-00-000000.tar.zst"), "{names:?}");
    // All that the next quarter of an hour can bring is taken, by files of the user's.
    let now = jiff::Timestamp::try_from(std::time::SystemTime::now()).unwrap().to_zoned(jiff::tz::TimeZone::UTC);
    for moment in now.series(jiff::Span::new().seconds(1)).take(900) {
        for date in [moment.strftime("%F").to_string(), moment.strftime("%F-%H%M%S").to_string()] {
            let name = format!("source-backup-{date}.tar.zst");
            if !env.path(&name).exists() {
                env.write(&name, "mine\n");
            }
        }
    }
    let before = env.names("");
    for number in [2, 3] {
        let said = env.lifeboat(["backup", "source"]).ok();
        let names = env.names("");
        let new: Vec<_> = names.iter().filter(|name| !before.contains(name)).collect();
        let last = new.iter().find(|name| shape(name).ends_with("-000000-0.tar.zst")).unwrap();
        assert!(number == 3 || (last.ends_with("-2.tar.zst") && said.stdout.contains(last.as_str())), "{new:?}");
        assert_eq!(new.len(), number - 1);
    }
    let mine = before.iter().filter(|name| name.len() > 38).filter(|name| env.read(name) == b"mine\n");
    assert!(mine.count() > 890, "what was there is as it was");
    env.lifeboat(["backup", "source", "--compression", "gzip"]).ok();
    assert!(env.names("").iter().any(|name| shape(name) == "source-backup-0000-00-00.tar.gz"));
    // Two of the same base name.
    env.write("other/source/b", "y");
    env.lifeboat(["backup", "source", "other/source", "--output", "two.tar.gz"]).ok();
    let said = env.lifeboat(["backup", "list", "two.tar.gz"]).ok().stdout;
    assert!(said.contains("files/source/a") && said.contains("files/source-2/b"), "{said}");
}

/// Shows A1.
#[test]
fn the_suffix_or_the_option_chooses_the_compression() {
    let env = TestEnv::new();
    env.write("source/a", "x".repeat(100_000));
    let (zstd, gzip): (&[u8], &[u8]) = (b"\x28\xb5\x2f\xfd", b"\x1f\x8b");
    for (name, option, magic) in [
        ("a.tar.zst", None, zstd),
        ("a.tar.gz", None, gzip),
        ("a.tgz", None, gzip),
        ("a.bin", None, zstd),
        ("b.bin", Some("gzip"), gzip),
        ("b.tar.gz", Some("gzip"), gzip),
    ] {
        let option = option.map(|option| format!("--compression={option}"));
        env.lifeboat(["backup", "source", "--output", name].into_iter().chain(option.as_deref())).ok();
        assert!(env.read(name).starts_with(magic), "{name}");
        env.lifeboat(["backup", "verify", name]).ok();
    }
    for (name, option) in [
        ("c.tar.gz", "--compression=zstd"),
        ("c.tar.zst", "--compression=gzip"),
        ("c.tar.gz", "--compression-level=10"),
        ("c.tar.gz", "--compression-level=0"),
        ("c.tar.zst", "--compression-level=20"),
    ] {
        env.lifeboat(["backup", "source", "--output", name, option]).code(2);
        assert!(!env.path(name).exists());
    }
    let noise: String = (0..20_000).map(|number| format!("{} ", number * number % 7919)).collect();
    env.write("source/text", noise);
    let len = |level: &str, name: &str| {
        env.lifeboat(["backup", "source", "--compression-level", level, "--output", name]).ok();
        env.read(name).len()
    };
    assert!(len("19", "19.tar.zst") < len("1", "1.tar.zst") && len("9", "9.tar.gz") < len("1", "1.tar.gz"));
}

/// Shows A1.
#[test]
fn our_archives_beside_the_new_one_are_left_out_and_what_only_looks_like_one_is_not() {
    let env = TestEnv::new();
    env.write("source/a", "x");
    env.write("source/below/b", "y");
    let here = |args: &[&str]| {
        let args = args.iter().map(|arg| format!("'{arg}'")).collect::<Vec<_>>().join(" ");
        env.run("sh", ["-c", &format!("cd source && {} backup . {args}", env!("CARGO_BIN_EXE_lifeboat"))]).ok()
    };
    here(&[]);
    here(&["--output", "renamed.tar.gz"]);
    let ours: Vec<_> = env.names("source").into_iter().filter(|name| name.contains(".tar.")).collect();
    assert_eq!(ours.len(), 2, "{ours:?}");
    env.write("source/source-backup-2026-02-03.tar.zst", "a user's file");
    std::fs::copy(env.path("source").join(&ours[0]), env.path("source/below/copy.tar.zst")).unwrap();
    let said = here(&["--output", "new.tar.zst"]);
    assert!(said.stdout.contains("2 archives of ours"), "{}", said.stdout);
    // In another directory a copy of one is a file like any other.
    let expected = ["a", "below", "below/b", "below/copy.tar.zst", "source-backup-2026-02-03.tar.zst"];
    assert_eq!(listed(&env, "source/new.tar.zst"), expected);
    // Written somewhere else, all of them are.
    env.lifeboat(["backup", "source", "--output", "elsewhere.tar.zst"]).ok();
    assert_eq!(listed(&env, "elsewhere.tar.zst").len(), 8);
}

/// Shows A1 and A3.
#[test]
fn backups_at_the_same_moment_get_names_of_their_own() {
    let env = TestEnv::new();
    env.write("source/a", "x".repeat(100_000));
    let running: Vec<_> = (0..8).map(|_| env.command(["backup", "source"]).start()).collect();
    let said: Vec<_> = running.into_iter().map(|running| running.wait().ok().stdout).collect();
    let mut names = env.names("");
    names.retain(|name| name != "source");
    assert_eq!(names.len(), 8, "{names:?}");
    for name in &names {
        assert!(said.iter().any(|said| said.contains(&format!("Backup written to {name} "))), "{name}: {said:?}");
        env.lifeboat(["backup", "verify", name]).ok();
    }
}

/// Shows A1 and A5.
#[test]
fn other_file_systems_are_taken_unless_told_otherwise_and_a_loop_of_mounts_ends() {
    const TEST: &str = "other_file_systems_are_taken_unless_told_otherwise_and_a_loop_of_mounts_ends";
    if !is_root() {
        return skip(TEST, "needs root, to mount");
    }
    let env = TestEnv::new();
    env.write("source/a", "x");
    let source = env.path("source").display().to_string();
    let inner = Mount::new(&env, "source/mnt", &["-t", "tmpfs", "tmpfs"]);
    env.write("source/mnt/inner", "y");
    env.lifeboat(["backup", "source", "--output", "all.tar.zst"]).ok();
    assert_eq!(listed(&env, "all.tar.zst"), ["a", "mnt", "mnt/inner"]);
    let said = env.lifeboat(["backup", "source", "--output", "one.tar.zst", "--one-file-system", "-v"]).ok();
    assert_eq!(listed(&env, "one.tar.zst"), ["a", "mnt"]);
    assert!((said.stdout + &said.stderr).contains("files/source/mnt"));
    let around = Mount::new(&env, "source/loop", &["--rbind", &source]);
    let said = env.lifeboat(["backup", "source", "--output", "loop.tar.zst", "-v"]).ok();
    assert!((said.stdout + &said.stderr).contains("files/source/loop"));
    assert!(listed(&env, "loop.tar.zst").contains(&"mnt/inner".to_owned()));
    drop(around);
    drop(inner);
}
