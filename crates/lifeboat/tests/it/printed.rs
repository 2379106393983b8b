//! Sources that are what a command prints, and what takes that back.

use rustix::process::Signal;

use crate::env::TestEnv;

/// An environment with one app: a source `printed` with that command, and one of files.
fn configured(run: &str, restore: &str, more: &str) -> TestEnv {
    let env = TestEnv::new();
    env.write("conf/a", "old");
    configure(&env, run, restore, more);
    env
}

fn configure(env: &TestEnv, run: &str, restore: &str, more: &str) {
    let dir = env.path("");
    let dir = dir.to_str().expect("temporary names are UTF-8").trim_end_matches('/');
    let command =
        |script: &str| serde_json::to_string(&["sh", "-c", &script.replace("DIR", dir)]).expect("texts are JSON");
    let restore = if restore.is_empty() { String::new() } else { format!(", restore: {}", command(restore)) };
    env.write(
        "lifeboat.yaml",
        format!(
            "apps:\n  app:\n    backup_dir: .\n    name: a\n    sources:\n      \
             printed: {{ command: {{ run: {}{restore}{more} }} }}\n      conf: {{ files: {{ root: {dir}/conf }} }}\n",
            command(run)
        ),
    );
}

const RUN: &str = "seq 1 200000; printf 'a\\0b'";
const RESTORE: &str = "cat >DIR/back";

/// Shows D15.
#[test]
fn what_a_command_prints_is_given_back_to_its_restore_command() {
    let env = configured(RUN, RESTORE, "");
    let dry = env.lifeboat(["backup", "--dry-run"]).ok().stdout;
    assert!(dry.contains("printed: 1 file"), "{dry}");
    env.lifeboat(["backup"]).ok();
    let listed = env.lifeboat(["backup", "list", "a.tar.zst"]).ok().stdout;
    assert!(listed.contains("command/printed"), "{listed}");
    env.lifeboat(["restore", "a.tar.zst", "--to", "out"]).ok();
    let expected = env.run("sh", ["-c", RUN]).ok().bytes;
    assert!(env.read("out/command/printed") == expected);
    // Alone, and when somebody agreed.
    let said = env.lifeboat(["restore", "a.tar.zst", "--only", "printed"]).code(22).stderr;
    assert!(
        said.contains("with what was backed up; it cannot be undone") && said.contains("nothing was run"),
        "{said}"
    );
    let said = env.lifeboat(["restore", "a.tar.zst", "--only", "printed", "--dry-run"]).ok().stdout;
    assert!(said.contains("given to the command: sh -c cat >"), "{said}");
    assert!(!env.path("back").exists());
    let said = env.lifeboat(["restore", "a.tar.zst", "--only", "printed", "--force"]).ok().stdout;
    assert!(said.contains("Restored the source printed"), "{said}");
    assert!(env.read("back") == expected);
}

/// Shows D15.
#[test]
fn a_whole_restore_names_it_and_leaves_it_alone() {
    let env = configured(RUN, RESTORE, "");
    env.lifeboat(["backup"]).ok();
    env.write("conf/a", "new");
    let said = env.lifeboat(["restore", "a.tar.zst", "--force"]).ok().stdout;
    assert!(said.contains("not restored: printed (what a command does cannot be undone with the rest)"), "{said}");
    assert!(said.contains("--only printed\n"), "{said}");
    assert_eq!(env.read("conf/a"), b"old");
    assert!(!env.path("back").exists());
    let said = env.lifeboat(["restore", "a.tar.zst", "--only", "printed", "--only", "conf", "--force"]).code(2).stderr;
    assert!(said.contains("the source printed is not restored in place"), "{said}");
}

/// Shows D15 and D2.
#[test]
fn a_command_that_does_not_end_well_fails_its_source() {
    for (run, more, why) in [
        ("seq 1 100000; echo 'no more' >&2; exit 7", "", "exit code 7: no more"),
        ("seq 1 100000; kill -9 $$", "", "killed by signal 9"),
        ("echo a; sleep 60", ", timeout: 1s", "did not end within 1s"),
        ("exit 1", "", "exit code 1"),
    ] {
        let env = configured(run, RESTORE, more);
        let said = env.lifeboat(["backup"]).code(18);
        assert!(said.stderr.contains(why), "{run}: {}", said.stderr);
        let listed = env.lifeboat(["backup", "list", "a.tar.zst", "--json"]).ok().json_lines();
        let entries: Vec<&str> = listed.iter().filter_map(|line| line["path"].as_str()).collect();
        assert_eq!(entries, ["files/conf", "files/conf/a"], "{run}");
        let alone = env.lifeboat(["backup", "--only", "printed", "-o", "b.tar.zst"]).code(18).stderr;
        assert!(alone.contains(why) && !env.path("b.tar.zst").exists(), "{run}: {alone}");
        let said = env.lifeboat(["restore", "a.tar.zst", "--only", "printed", "--force"]).exit_code();
        assert_ne!(said, 0, "there is nothing to give back");
        assert!(!env.path("back").exists());
    }
}

/// Shows D15.
#[test]
fn a_restore_command_that_fails_is_told_with_its_words_and_damage_is_found_before_it_runs() {
    let env = configured(RUN, "head -c 10 >DIR/back; echo 'full' >&2; exit 5", "");
    env.lifeboat(["backup"]).ok();
    let restore = || env.lifeboat(["restore", "a.tar.zst", "--only", "printed", "--force"]);
    let said = restore().code(1).stderr;
    assert!(said.contains("exit code 5: full") && said.contains("what it did until then stays"), "{said}");
    configure(&env, RUN, "cat >DIR/back; sleep 60", ", timeout: 1s");
    let said = restore().code(1).stderr;
    assert!(said.contains("did not end within 1s"), "{said}");
    configure(&env, RUN, "", "");
    let said = restore().code(2).stderr;
    assert!(said.contains("has no command that takes back"), "{said}");
    configure(&env, RUN, "touch DIR/started; sleep 60", "");
    let running = env.command(["restore", "a.tar.zst", "--only", "printed", "--force"]).start();
    while !env.path("started").exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    running.signal(Signal::TERM);
    running.wait().code(143);
    configure(&env, RUN, "touch DIR/ran", "");
    let mut archive = env.read("a.tar.zst");
    let at = archive.len() * 3 / 4;
    archive[at] ^= 1;
    env.write("a.tar.zst", archive);
    let said = restore().code(13).stderr;
    assert!(said.contains("nothing was run"), "{said}");
    assert!(!env.path("ran").exists());
}

/// Shows D15.
#[test]
fn what_only_the_archive_says_runs_nothing_unless_it_is_trusted() {
    let env = configured("echo printed", RESTORE, "");
    env.lifeboat(["backup"]).ok();
    env.run("rm", ["lifeboat.yaml"]).ok();
    let said = env.lifeboat(["restore", "a.tar.zst", "--only", "printed", "--force"]).code(2).stderr;
    assert!(said.contains("no command is configured"), "{said}");
    env.lifeboat(["restore", "a.tar.zst", "--only", "printed", "--force", "--trust-config"]).code(22);
    assert!(!env.path("back").exists());
    let trust = ["--trust-config", "--allow-unauthenticated", "--force"];
    env.lifeboat(["restore", "a.tar.zst", "--only", "printed"].iter().chain(&trust)).ok();
    assert_eq!(env.read("back"), b"printed\n");
}
