//! What the command line promises beside its texts: progress, JSON Lines,
//! quiet and verbose runs, colours, help, completions, the manual page.

use std::collections::BTreeSet;
use std::path::Path;

use rexpect::session::spawn_command;
use serde_json::Value;

use crate::env::{Cmd, TestEnv};

/// A directory `app` with `files` files, and its archive `app.tar.zst`.
fn with_archive(files: usize) -> TestEnv {
    let env = TestEnv::new();
    for number in 0..files {
        env.write(format!("app/{number:03}"), format!("{number}\n"));
    }
    env.lifeboat(["backup", "app", "-o", "app.tar.zst"]).ok();
    env
}

/// All that `cmd` writes to a terminal.
fn on_terminal(cmd: Cmd) -> String {
    let mut session = spawn_command(cmd.env("TERM", "xterm").into_command(), Some(60_000)).expect("a terminal");
    session.exp_eof().expect("it comes to its end")
}

/// Shows A11.
#[test]
fn progress_with_rate_and_time_left_is_shown_on_a_terminal_and_not_when_piped() {
    let env = with_archive(8);
    let runs: [&[&str]; 3] = [
        &["backup", "app", "-o", "b.tar.zst"],
        &["backup", "verify", "app.tar.zst"],
        &["restore", "app.tar.zst", "--to", "back"],
    ];
    for args in runs {
        let shown = on_terminal(env.command(args));
        assert!(shown.contains("ETA ") && shown.contains("B/s") && shown.contains(" entries"), "{args:?}: {shown:?}");
    }
    std::fs::remove_file(env.path("b.tar.zst")).expect("it was just made");
    std::fs::remove_dir_all(env.path("back")).expect("it was just made");
    for args in runs {
        assert_eq!(env.lifeboat(args).ok().stderr, "", "{args:?}");
    }
}

/// Shows A11.
#[test]
fn quiet_and_json_runs_show_no_progress_on_a_terminal_either() {
    let env = with_archive(8);
    assert_eq!(on_terminal(env.command(["backup", "app", "-q", "-o", "b.tar.zst"])), "");
    let shown = on_terminal(env.command(["backup", "app", "--json", "-o", "c.tar.zst"]));
    assert!(shown.starts_with("{\"message_type\":\"summary\"") && shown.lines().count() == 1, "{shown:?}");
}

fn message_types(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["message_type"].as_str().expect("every line has one")).collect()
}

/// Shows A6, A11.
#[test]
fn json_is_one_object_a_line_each_with_its_message_type() {
    let env = with_archive(2);
    env.run("mkfifo", ["app/fifo"]).ok();

    let lines = env.lifeboat(["backup", "app", "--json", "-o", "b.tar.zst"]).ok().json_lines();
    assert_eq!(message_types(&lines), ["problem", "summary"]);
    assert_eq!((&lines[0]["class"], &lines[0]["object"]), (&"skipped".into(), &"files/app/fifo".into()));
    assert_eq!((&lines[1]["files"], &lines[1]["outcome"]), (&2.into(), &"good".into()));
    assert_eq!(lines[1]["archive"], env.path("b.tar.zst").to_str().expect("UTF-8"));

    let lines = env.lifeboat(["backup", "app", "--json", "--dry-run"]).ok().json_lines();
    assert_eq!(message_types(&lines), ["problem", "plan"]);
    assert_eq!((&lines[1]["sources"][0]["files"], &lines[1]["sources"][0]["bytes"]), (&2.into(), &4.into()));

    let lines = env.lifeboat(["backup", "list", "--json", "app.tar.zst"]).ok().json_lines();
    assert_eq!(message_types(&lines), ["snapshot", "entry", "entry", "entry", "summary"]);
    assert_eq!((&lines[0]["app"], &lines[0]["format"]), (&"app".into(), &"lifeboat/1".into()));
    assert_eq!((&lines[1]["type"], &lines[2]["path"]), (&"dir".into(), &"files/app/000".into()));
    assert_eq!((&lines[4]["files"], &lines[4]["entries"]), (&2.into(), &3.into()));

    let lines = env.lifeboat(["backup", "verify", "--json", "app.tar.zst"]).ok().json_lines();
    assert_eq!(message_types(&lines), ["file", "file", "summary"]);
    assert_eq!((&lines[0]["result"], &lines[2]["is_good"]), (&"pass".into(), &true.into()));

    let lines = env.lifeboat(["restore", "--json", "app.tar.zst", "--to", "back", "--dry-run"]).ok().json_lines();
    assert_eq!(message_types(&lines), ["plan_entry", "plan_entry", "plan_entry", "plan"]);
    assert_eq!((&lines[2]["action"], &lines[3]["files"]), (&"new".into(), &2.into()));

    let lines = env.lifeboat(["restore", "--json", "app.tar.zst", "--to", "back"]).ok().json_lines();
    assert_eq!(message_types(&lines), ["summary"]);
    assert_eq!((&lines[0]["files"], &lines[0]["verified"]), (&2.into(), &true.into()));
}

/// Shows A11.
#[test]
fn json_ends_a_failure_with_its_code_on_standard_error() {
    let env = with_archive(2);
    env.write("damaged.tar.zst", "not an archive");
    let archive = env.read("app.tar.zst");
    env.write("cut.tar.zst", &archive[..archive.len() - 300]);
    let runs: [(&[&str], i32, &str); 6] = [
        (&["backup", "missing", "--json"], 18, "source-failed"),
        (&["backup", "app", "missing", "--json", "-o", "b.tar.zst"], 18, "incomplete"),
        (&["restore", "app.tar.zst", "--only", "db", "--json"], 2, "usage"),
        (&["backup", "list", "missing", "--json"], 2, "usage"),
        (&["backup", "verify", "damaged.tar.zst", "--json"], 1, ""),
        (&["backup", "verify", "cut.tar.zst", "--json"], 1, "verification-failed"),
    ];
    for (args, code, kind) in runs {
        let said = env.lifeboat(args).code(code);
        let last = said.stderr.lines().last().unwrap_or_default();
        let last: Value = serde_json::from_str(last).unwrap_or_else(|error| panic!("{args:?}: {error} in {last}"));
        assert_eq!((&last["message_type"], &last["code"]), (&"exit_error".into(), &code.into()), "{args:?}");
        for field in ["kind", "message", "state", "next"] {
            assert!(last[field].as_str().is_some_and(|text| !text.is_empty()), "{args:?}: {field}");
        }
        assert!(kind.is_empty() || last["kind"] == kind, "{args:?}: {last}");
        message_types(&said.json_lines());
    }
}

/// Shows A11.
#[test]
fn a_quiet_run_says_nothing_unless_something_is_wrong() {
    let env = with_archive(2);
    env.run("mkfifo", ["app/fifo"]).ok();
    let runs: [&[&str]; 5] = [
        &["backup", "app", "-q", "-o", "b.tar.zst"],
        &["-q", "backup", "app", "--dry-run"],
        &["backup", "-q", "verify", "app.tar.zst"],
        &["restore", "--quiet", "app.tar.zst", "--to", "back"],
        &["restore", "-q", "app.tar.zst", "--to", "back", "--dry-run"],
    ];
    for args in runs {
        let said = env.lifeboat(args).ok();
        assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("", ""), "{args:?}");
    }
    let said = env.lifeboat(["backup", "list", "-q", "app.tar.zst"]).ok();
    assert_eq!(said.stdout.lines().count(), 3, "only the entries:\n{}", said.stdout);
    let said = env.lifeboat(["backup", "-q", "app", "missing", "-o", "c.tar.zst"]).code(18);
    assert_eq!(said.stdout, "");
    assert!(said.stderr.starts_with("warning: source failed: "), "{}", said.stderr);
    env.lifeboat(["-q", "-v", "backup", "app"]).code(2);
}

/// Shows A11.
#[test]
fn colours_are_shown_on_a_terminal_unless_no_color_forbids_it() {
    let env = with_archive(2);
    let verify = || env.command(["backup", "verify", "app.tar.zst"]);
    let fail = || env.command(["backup", "missing"]);
    let green = "\u{1b}[32mPASS\u{1b}[0m files/app/000";
    assert!(on_terminal(verify()).contains(green));
    assert!(on_terminal(fail()).contains("\u{1b}[31merror[E1800]\u{1b}[0m: "), "{:?}", on_terminal(fail()));
    assert!(on_terminal(verify().env("NO_COLOR", "1")).contains("  PASS files/app/000"));
    assert!(on_terminal(fail().env("NO_COLOR", "1")).starts_with("error[E1800]: "));
    assert!(env.lifeboat(["backup", "verify", "app.tar.zst"]).ok().stdout.contains("  PASS files/app/000"));
}

/// Shows A6, A11.
#[test]
fn more_than_100_files_are_listed_only_by_v() {
    let env = with_archive(101);
    let lines = |args: &[&str]| env.lifeboat(args).ok().stdout.lines().map(str::to_owned).collect::<Vec<_>>();
    let verify = lines(&["backup", "verify", "app.tar.zst"]);
    assert_eq!(verify.len(), 4, "{verify:?}");
    assert_eq!(verify[3], "All 101 files verified successfully.");
    assert_eq!(lines(&["backup", "verify", "-v", "app.tar.zst"]).len(), 3 + 101 + 2);

    let plan = lines(&["restore", "app.tar.zst", "--to", "back", "--dry-run"]);
    assert_eq!(plan[2], "  and 101 new; -v lists them");
    let plan = lines(&["restore", "app.tar.zst", "--to", "back", "--dry-run", "-v"]);
    assert_eq!(
        (plan[0].as_str(), plan[102].as_str()),
        ("Dry run: 101 files would be restored from app.tar.zst", "  new        4 B  files/app/100",)
    );

    assert_eq!(lines(&["restore", "app.tar.zst", "--to", "back"])[0], "Restored 101 files.");
    let again = lines(&["restore", "app.tar.zst", "--to", "again", "-v"]);
    assert_eq!((again[0].as_str(), again[101].as_str()), ("Restored 101 files:", "  files/app/100"));

    let plan = lines(&["restore", "app.tar.zst", "--to", "back", "--dry-run"]);
    assert_eq!(plan.iter().filter(|line| line.starts_with("  overwrite  ")).count(), 100, "{plan:?}");
    assert_eq!(plan[102], "  and 1 more to overwrite");
    assert_eq!(lines(&["backup", "verify", "app.tar.zst"]).len(), 4);
}

/// Shows A6, A11.
#[test]
fn exactly_100_files_are_listed() {
    let env = with_archive(100);
    let said = env.lifeboat(["backup", "verify", "app.tar.zst"]).ok();
    assert_eq!(said.stdout.lines().filter(|line| line.starts_with("  PASS files/app/")).count(), 100);
    let said = env.lifeboat(["restore", "app.tar.zst", "--to", "back"]).ok();
    assert_eq!(said.stdout.lines().filter(|line| line.starts_with("  files/app/")).count(), 100);
}

/// Shows A11.
#[test]
fn a_reader_that_has_seen_enough_ends_the_output_quietly() {
    // More than a pipe holds.
    let env = with_archive(2000);
    for command in ["backup list app.tar.zst", "backup verify -v app.tar.zst", "backup list --json app.tar.zst"] {
        let script = format!("{{ \"$0\" {command}; echo \"code $?\" >&2; }} | head -n 1");
        let said = env.run("sh", ["-c", &script, env!("CARGO_BIN_EXE_lifeboat")]).ok();
        assert_eq!((said.stdout.lines().count(), said.stderr.as_str()), (1, "code 0\n"), "{command}");
    }
}

/// Shows A11.
#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    let env = with_archive(2);
    let script = "\"$0\" backup list app.tar.zst >/dev/full";
    let said = env.run("sh", ["-c", script, env!("CARGO_BIN_EXE_lifeboat")]).code(1);
    assert!(said.stderr.starts_with("error[E100]: could not write to standard output: "), "{}", said.stderr);
}

/// Shows A4, A11.
#[test]
fn a_name_with_control_characters_is_one_harmless_line() {
    let env = TestEnv::new();
    env.write("app/a\n\u{1b}[2J", "x");
    env.lifeboat(["backup", "app", "-o", "app.tar.zst"]).ok();
    for args in [["backup", "list"], ["backup", "verify"]] {
        let said = env.lifeboat([args[0], args[1], "app.tar.zst"]).ok();
        assert!(said.stdout.contains(" files/app/a\\n\\x1b[2J\n"), "{}", said.stdout);
    }
    let said = env.lifeboat(["restore", "app.tar.zst", "--to", "back"]).ok();
    assert!(said.stdout.contains("\n  files/app/a\\n\\x1b[2J\n"), "{}", said.stdout);
}

/// Shows A1.
#[test]
fn patterns_of_a_file_leave_out_what_they_match_and_are_recorded() {
    let env = TestEnv::new();
    for name in ["keep", "a.log", "# no comment", "cache/x", "b.tmp"] {
        env.write(Path::new("app").join(name), "x");
    }
    env.write("patterns", "# logs\n*.log\n\n   \n\\# no comment\ncache/\n");
    let args = ["backup", "app", "--exclude-file", "patterns", "--exclude", "*.tmp", "-o", "app.tar.zst"];
    let said = env.lifeboat(args).ok();
    assert!(said.stdout.contains("\nexcluded: 4 entries by patterns\n"), "{}", said.stdout);
    let lines = env.lifeboat(["backup", "list", "--json", "app.tar.zst"]).ok().json_lines();
    let paths: BTreeSet<&str> = lines.iter().filter_map(|line| line["path"].as_str()).collect();
    assert_eq!(paths, BTreeSet::from(["files/app", "files/app/keep"]));
    let recorded = &lines[0]["sources"][0]["details"]["exclude"];
    assert_eq!(recorded, &serde_json::json!(["*.tmp", "*.log", "\\# no comment", "cache/"]));

    let said = env.lifeboat(["backup", "app", "--exclude-file", "missing"]).code(2);
    assert!(said.stderr.starts_with("error[E200]: could not read the patterns in missing: "), "{}", said.stderr);
}

/// Shows A1.
#[test]
fn options_of_a_backup_before_a_subcommand_are_refused_and_those_of_all_commands_are_not() {
    let env = with_archive(1);
    env.lifeboat(["backup", "--json", "list", "app.tar.zst"]).ok();
    env.lifeboat(["--json", "backup", "list", "app.tar.zst"]).ok();
    let said = env.lifeboat(["backup", "--devices", "list", "app.tar.zst"]).code(2);
    assert!(said.stderr.contains("given as ./list"), "{}", said.stderr);
    env.write("list/x", "x");
    env.lifeboat(["backup", "./list", "-o", "b.tar.zst"]).ok();
    env.lifeboat(["backup"]).code(2);
}

/// Shows A11.
#[test]
fn help_of_each_command_has_examples() {
    let env = TestEnv::new();
    let commands: [&[&str]; 8] = [
        &[],
        &["backup"],
        &["backup", "list"],
        &["backup", "verify"],
        &["restore"],
        &["export-query"],
        &["completions"],
        &["man"],
    ];
    for command in commands {
        for help in ["-h", "--help"] {
            let said = env.lifeboat(command.iter().chain([&help])).ok();
            let examples = said.stdout.split_once("\nExamples:\n").unwrap_or_else(|| panic!("{command:?} has none")).1;
            assert!(examples.starts_with("  lifeboat "), "{command:?}");
            assert!(said.stdout.lines().all(|line| line.chars().count() <= 100), "{command:?} is too wide");
        }
    }
    assert!(env.lifeboat(["--version"]).ok().stdout.starts_with("lifeboat "));
}

/// Shows A11.
#[test]
fn completions_are_scripts_that_their_shells_accept() {
    let env = TestEnv::new();
    for shell in ["bash", "zsh", "fish"] {
        let said = env.lifeboat(["completions", shell]).ok();
        for word in ["exclude-file", "verify", "overwrite"] {
            assert!(said.stdout.contains(word), "{shell} does not know {word}");
        }
        // The other two are seldom installed, and not worth a failure.
        let is_there = env.run("sh", ["-c", &format!("command -v {shell}")]).exit_code() == 0;
        if is_there {
            env.program(shell, ["-n"]).input(&said.bytes).run().ok();
        }
    }
    env.lifeboat(["completions", "tcsh"]).code(2);
}

/// Shows A11.
#[test]
fn the_manual_page_is_one() {
    let env = TestEnv::new();
    let said = env.lifeboat(["man"]).ok();
    assert!(said.stdout.starts_with(".ie ") || said.stdout.starts_with(".TH "), "{}", said.stdout);
    assert!(said.stdout.contains("Exit codes:"));
    env.lifeboat(["man", "--output", "man1"]).ok();
    for page in ["lifeboat.1", "lifeboat-backup.1", "lifeboat-backup-verify.1", "lifeboat-restore.1"] {
        assert!(env.names("man1").contains(&page.to_owned()), "{page} is missing");
    }
}
