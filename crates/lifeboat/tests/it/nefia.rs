//! The document of Nefia, played with the preset `nefia`: each of its commands
//! with the program's name replaced does what the document says, in its words.
//!
//! Other than the document: entries stand in the order of their paths, so that
//! `state/sessions.json` comes last; a file that is as in the archive already
//! is `same`, beside `new` and `overwrite`.
//!
//! Its steps that are not there yet: `schedule create` with a playbook
//! ("Automate Backups with Scheduled Execution"), the MCP tools
//! (`nefia.backup.list`, `create`, `verify`, `restore`), and retention (daily
//! 7, weekly 4, monthly 12).
#![expect(clippy::unwrap_used, reason = "these are the helpers of tests")]

use std::collections::BTreeMap;

use lifeboat_store::testing::can_run;
use rexpect::session::{PtySession, spawn_command};
use serde_json::Value;

use crate::env::{Cmd, Run, TestEnv};
use crate::fidelity::{Tree, assert_same, snapshot};

/// The files of the document with the sizes of its dry run, in the order of their paths.
const FILES: [(&str, usize, &str); 8] = [
    ("nefia.yaml", 1229, "1.2 KiB"),
    ("state/audit/2026-02-22.jsonl", 12_698, "12.4 KiB"),
    ("state/audit/2026-02-23.jsonl", 15_462, "15.1 KiB"),
    ("state/audit/2026-02-24.jsonl", 8909, "8.7 KiB"),
    ("state/recordings/rec-2026-02-24.json", 1126, "1.1 KiB"),
    ("state/schedules/daily-sync.json", 456, "456 B"),
    ("state/schedules/weekly-report.yaml", 312, "312 B"),
    ("state/sessions.json", 2355, "2.3 KiB"),
];

/// What an operator's folder also holds, and no archive of the document does.
const OTHERS: [&str; 9] = [
    "keys/operator.key",
    "nefia.yaml.tmp",
    "state/audit/2026-02-24.jsonl.tmp",
    "state/audit/old/2025-12-31.jsonl",
    "state/cache/sessions.json",
    "state/keys/ca.pem",
    "state/nefia.yaml",
    "state/recordings/rec-2026-02-24.cast",
    "state/schedules/notes.txt",
];

const ARCHIVE: &str = "nefia.tar.gz";

/// An operator's host: the state in `op`, the program in `bin`, the preset as
/// `lifeboat.yaml`, and what is about the test beside.
struct Host {
    env: TestEnv,
}

impl Host {
    fn new() -> Self {
        let host = Self::without_state();
        for (name, size, _) in FILES {
            host.env.write(format!("op/{name}"), vec![name.as_bytes()[name.len() - 6]; size]);
        }
        for name in OTHERS {
            host.env.write(format!("op/{name}"), "not in a backup");
        }
        host
    }

    fn without_state() -> Self {
        let env = TestEnv::new();
        env.write("bin/nefia.sh", include_str!("nefia/nefia.sh"));
        env.write("bin/version", "0.1.16\n");
        // By another process: a child of another test may hold open what is written here.
        env.run("install", ["-m", "755", "bin/nefia.sh", "bin/nefia"]).ok();
        let root = env.path("op");
        env.lifeboat(["init", "--preset", "nefia", "--root", root.to_str().unwrap()]).ok();
        Self { env }
    }

    /// Also with `nefia.tar.gz`.
    fn backed_up() -> Self {
        let host = Self::new();
        host.lifeboat(&["backup", "--output", ARCHIVE]).ok();
        host
    }

    /// With the program on PATH.
    fn command(&self, args: &[&str]) -> Cmd {
        self.env.command(args).with_programs(&self.env.path("bin"))
    }

    fn lifeboat(&self, args: &[&str]) -> Run {
        self.command(args).run()
    }

    fn on_terminal(&self, args: &[&str]) -> PtySession {
        spawn_command(self.command(args).reads_terminal().into_command(), Some(20_000)).unwrap()
    }

    fn state(&self) -> Tree {
        snapshot(&self.env.path("op"))
    }

    fn reloads(&self) -> usize {
        std::fs::read_to_string(self.env.path("bin/reloads")).unwrap_or_default().lines().count()
    }

    /// The state becomes what the document's dry run finds.
    fn change_as_in_the_document(&self) {
        for name in ["nefia.yaml", "state/audit/2026-02-24.jsonl"] {
            std::fs::remove_file(self.env.path("op").join(name)).unwrap();
        }
        for (name, ..) in &FILES[4..7] {
            std::fs::remove_file(self.env.path("op").join(name)).unwrap();
        }
        for (name, ..) in [FILES[1], FILES[2], FILES[7]] {
            self.env.write(format!("op/{name}"), "grown since");
        }
    }
}

fn lines(prefix: &str) -> String {
    FILES.iter().map(|(name, ..)| format!("{prefix}{name}\n")).collect()
}

/// "Creating a Backup", "Custom Output Path", "What Gets Backed Up".
///
/// Shows P10.
#[test]
fn a_backup_has_the_name_the_text_and_exactly_the_layout_of_the_document() {
    let host = Host::new();
    let said = host.lifeboat(&["backup"]).ok();
    let first = said.normal_stdout().lines().next().unwrap().to_owned();
    assert_eq!(first, "Backup written to nefia-backup-<date>.tar.gz (<size>, 8 files)");
    let name = said.stdout.split(' ').nth(3).unwrap().to_owned();
    let size = host.env.path(&name).metadata().unwrap().len();
    assert!(said.stdout.contains(&format!(".tar.gz ({:.1} KiB, 8 files)", size as f64 / 1024.0)), "{}", said.stdout);
    let listed = host.env.run("tar", ["-tzf", &name]).ok().stdout;
    let expected = "\
manifest.json
nefia.yaml
state/
state/audit/
state/audit/2026-02-22.jsonl
state/audit/2026-02-23.jsonl
state/audit/2026-02-24.jsonl
state/recordings/
state/recordings/rec-2026-02-24.json
state/schedules/
state/schedules/daily-sync.json
state/schedules/weekly-report.yaml
state/sessions.json
";
    assert_eq!(listed, expected);

    let manifest: Value =
        serde_json::from_str(&host.env.run("tar", ["-xzOf", &name, "manifest.json"]).ok().stdout).unwrap();
    assert_eq!(manifest["app_version"], "0.1.16");
    assert!(manifest["created"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{manifest}");
    let files = manifest["files"].as_array().unwrap().iter().filter(|file| file["type"] == "file");
    let sums: BTreeMap<&str, &str> =
        files.map(|file| (file["path"].as_str().unwrap(), file["sha256"].as_str().unwrap())).collect();
    assert_eq!(sums.keys().copied().collect::<Vec<_>>(), FILES.map(|(name, ..)| name));
    let list: String = sums.iter().map(|(path, sum)| format!("{sum}  {path}\n")).collect();
    host.env.write("op/SUMS", list);
    host.env.run("sh", ["-c", "cd op && sha256sum --strict -c SUMS"]).ok();

    // A second one of the day does not replace it, and the state of Nefia is not touched by any.
    let before = host.state();
    host.env.mkdir("mnt/backups");
    let said = host.lifeboat(&["backup", "--output", "mnt/backups/nefia-20260224.tar.gz"]).ok();
    assert!(said.stdout.starts_with("Backup written to mnt/backups/nefia-20260224.tar.gz ("), "{}", said.stdout);
    host.lifeboat(&["backup"]).ok();
    let archives = host.env.names("").into_iter().filter(|name| name.starts_with("nefia-backup-"));
    assert_eq!(archives.count(), 2);
    assert_same(&before, &host.state(), "what was backed up");
    assert_eq!(host.reloads(), 0);
}

/// Shows P10.
#[test]
fn what_a_new_installation_lacks_is_no_failure_but_its_configuration_is_needed() {
    let host = Host::without_state();
    host.env.write("op/nefia.yaml", "server: x\n");
    let said = host.lifeboat(&["backup", "--output", ARCHIVE]).ok().stdout;
    assert!(said.starts_with("Backup written to nefia.tar.gz (") && said.contains(", 1 file)\n"), "{said}");
    host.env.run("mv", ["op/nefia.yaml", "op/state.yaml"]).ok();
    host.env.write("op/state/sessions.json", "{}");
    let said = host.lifeboat(&["backup", "--output", "lacks.tar.gz"]).code(3).stderr;
    assert!(said.contains("warning: missing: operator/nefia.yaml: there is no such file, and `required`"), "{said}");
    let said = host.lifeboat(&["restore", "lacks.tar.gz", "--dry-run"]).code(13);
    assert!(said.stdout.contains("not in the snapshot: missing: operator/nefia.yaml: "), "{}", said.stdout);
    assert!(said.stderr.contains("the snapshot lacks operator/nefia.yaml, which `required`"), "{}", said.stderr);
    // Without the program its version is not known; that keeps nobody from a backup.
    host.env.run("mv", ["op/state.yaml", "op/nefia.yaml"]).ok();
    let said = host.env.lifeboat(["backup", "--output", "unknown.tar.gz"]).ok();
    assert!(said.stderr.contains("nefia: its version is not known: "), "{}", said.stderr);
    let said = host.env.lifeboat(["backup", "verify", "unknown.tar.gz"]).ok().normal_stdout();
    assert!(said.contains(concat!("(lifeboat v", env!("CARGO_PKG_VERSION"), ")\n")), "{said}");
}

/// "Verifying Backup Integrity", "Verify After Transfer": on a host that has
/// nothing but the archive.
///
/// Shows P10, A6.
#[test]
fn verify_says_what_the_document_says_on_any_host() {
    let host = Host::backed_up();
    let said = host.lifeboat(&["backup", "verify", ARCHIVE]).ok();
    let expected = format!(
        "Archive: nefia.tar.gz\nCreated: <time> (lifeboat v{}; nefia v0.1.16)\n\n{}\nAll 8 files verified successfully.\n",
        env!("CARGO_PKG_VERSION"),
        lines("  PASS ")
    );
    let created = said.stdout.lines().nth(1).unwrap().split(' ').nth(1).unwrap();
    assert_eq!(said.stdout.replace(created, "<time>"), expected);
    assert!(created.len() == "2026-02-24T03:00:00Z".len() && created.ends_with('Z'), "{created}");
    let remote = TestEnv::new();
    let archive = remote.mkdir("backups").join("nefia-backup-2026-02-24.tar.gz");
    host.env.run("cp", [ARCHIVE, archive.to_str().unwrap()]).ok();
    let said = remote.lifeboat(["backup", "verify", archive.to_str().unwrap()]).ok();
    let expected = expected.replace(ARCHIVE, archive.to_str().unwrap());
    assert_eq!(said.stdout.replace(created, "<time>"), expected);
}

/// An archive with one file changed, one missing and one that nobody listed.
const TAMPER: &str = r#"
import io, sys, tarfile
old, new = tarfile.open("nefia.tar.gz"), tarfile.open("bad.tar.gz", "w:gz", format=tarfile.PAX_FORMAT)
for member in old:
    content = old.extractfile(member).read() if member.isfile() else b""
    if member.name == "state/schedules/daily-sync.json": continue
    if member.name == "state/sessions.json": content = b"X" + content[1:]
    new.addfile(member, io.BytesIO(content))
    if member.name == "state/schedules" and "more" in sys.argv:
        more = tarfile.TarInfo("state/schedules/added.json")
        new.addfile(more, io.BytesIO(b""))
new.close()
"#;

/// Shows P10, A6.
#[test]
fn a_file_that_fails_or_is_missing_is_named_and_the_exit_code_is_1() {
    if !can_run("a_file_that_fails_or_is_missing_is_named_and_the_exit_code_is_1", &["python3"]) {
        return;
    }
    let host = Host::backed_up();
    host.env.run("python3", ["-c", TAMPER]).ok();
    let said = host.lifeboat(&["backup", "verify", "bad.tar.gz"]).code(1).stdout;
    assert!(said.contains("  FAIL state/schedules/daily-sync.json (missing)\n"), "{said}");
    assert!(said.contains("  FAIL state/sessions.json (sha256 differs)\n"), "{said}");
    assert!(said.contains("  PASS nefia.yaml\n") && said.ends_with("\n2 of 8 files failed.\n"), "{said}");
    host.env.write("op/nefia.yaml", "changed");
    let before = host.state();
    host.lifeboat(&["restore", "bad.tar.gz", "--force"]).code(13);
    assert_same(&before, &host.state(), "a bad archive");
    host.env.run("python3", ["-c", TAMPER, "more"]).ok();
    let said = host.lifeboat(&["backup", "verify", "bad.tar.gz"]).code(1).stdout;
    assert!(said.contains("  FAIL state/schedules/added.json (not listed)\n"), "{said}");
    host.lifeboat(&["backup", "verify", "no-such.tar.gz"]).code(1);
    assert_eq!(host.reloads(), 0);
}

/// "Dry Run", with its very sizes.
///
/// Shows P10, R1.
#[test]
fn a_dry_run_marks_each_file_with_its_size_and_writes_nothing() {
    let host = Host::backed_up();
    host.change_as_in_the_document();
    let overwritten = [FILES[1].0, FILES[2].0, FILES[7].0];
    let (before, files) = (host.state(), host.env.names(""));
    let said = host.lifeboat(&["restore", "--dry-run", ARCHIVE]).ok();
    let line = |(name, _, size): &(&str, usize, &str)| {
        let word = if overwritten.contains(name) { "overwrite" } else { "new      " };
        format!("  {word}  {size}  {name}\n")
    };
    let expected: String = FILES.iter().map(line).collect();
    let expected = format!("Dry run: 8 files would be restored from nefia.tar.gz\n\n{expected}\n");
    assert!(said.stdout.starts_with(&expected), "{}", said.stdout);
    assert!(said.stdout.contains("\nthen reloaded: nefia reload\n"), "{}", said.stdout);
    assert!(said.stdout.ends_with("\nNothing was written.\n"), "{}", said.stdout);
    assert_same(&before, &host.state(), "a dry run");
    assert_eq!((host.env.names(""), host.reloads(), host.env.data_dir().join("journal").exists()), (files, 0, false));
    // What is as it was needs no change, and is said to be.
    let fresh = Host::backed_up();
    let said = fresh.lifeboat(&["restore", "--dry-run", ARCHIVE]).ok().stdout;
    assert_eq!(said.matches("  same       ").count(), 8, "{said}");
}

/// "Restoring from a Backup", "Conflict handling".
///
/// Shows P10, R2.
#[test]
fn a_restore_asks_before_it_overwrites_and_says_what_it_restored() {
    let host = Host::backed_up();
    let wanted = host.state();
    host.change_as_in_the_document();
    let changed = host.state();
    let refused = host.lifeboat(&["restore", ARCHIVE]).code(22);
    assert!(refused.stderr.contains("it would overwrite 3 existing entries"), "{}", refused.stderr);
    let mut terminal = host.on_terminal(&["restore", ARCHIVE]);
    let said = terminal.exp_string("Go on? [y/N]").unwrap();
    assert!(said.contains("It would overwrite 3 existing entries."), "{said}");
    assert!(said.contains("overwrite  2.3 KiB  state/sessions.json"), "{said}");
    terminal.send_line("n").unwrap();
    let said = terminal.exp_eof().unwrap();
    assert!(said.contains("nothing was written"), "{said}");
    assert_same(&changed, &host.state(), "nobody agreed");
    assert_eq!(host.reloads(), 0);

    let mut terminal = host.on_terminal(&["restore", ARCHIVE]);
    terminal.exp_string("Go on? [y/N]").unwrap();
    terminal.send_line("y").unwrap();
    let said = terminal.exp_eof().unwrap().replace("\r\n", "\n");
    assert!(said.contains(&format!("Restored 8 files:\n{}", lines("  "))), "{said}");
    assert_state(&wanted, &host, "restored");
    assert_eq!(host.reloads(), 1);
}

/// The files of the document are as expected, and nothing else was touched.
fn assert_state(expected: &Tree, host: &Host, what: &str) {
    let files = |tree: &Tree| -> Tree {
        let is_file = |path: &[u8]| FILES.iter().any(|(name, ..)| name.as_bytes() == path);
        let is_other = |path: &[u8]| OTHERS.iter().any(|name| name.as_bytes() == path);
        tree.iter().filter(|(path, _)| is_file(path) || is_other(path)).map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    assert_same(&files(expected), &files(&host.state()), what);
}

/// "Force Overwrite", "Post-restore".
///
/// Shows P10, R7.
#[test]
fn force_does_not_ask_and_a_reload_that_fails_is_a_warning() {
    let host = Host::backed_up();
    let wanted = host.state();
    host.env.write("op/nefia.yaml", "broken");
    let said = host.lifeboat(&["restore", "--force", ARCHIVE]).ok();
    assert!(said.stdout.starts_with(&format!("Restored 8 files:\n{}", lines("  "))), "{}", said.stdout);
    assert_eq!((said.stderr.as_str(), host.reloads()), ("", 1));
    assert_state(&wanted, &host, "by force");
    host.env.write("bin/reload.fails", "");
    host.env.write("op/nefia.yaml", "broken again");
    let said = host.lifeboat(&["restore", "--force", ARCHIVE]).ok();
    assert_eq!(said.stderr, "warning: reload failed: nefia reload: exit code 1: no daemon answers\n");
    assert!(said.stdout.starts_with("Restored 8 files:\n"), "{}", said.stdout);
    assert_eq!(host.reloads(), 2);
    assert_state(&wanted, &host, "without a reload");
}

/// "Test Restores Periodically": on another machine, which has no state, and
/// perhaps not even the program; and into a directory.
///
/// Shows P10.
#[test]
fn a_machine_without_state_gets_it_without_a_question() {
    let host = Host::backed_up();
    let other = Host::without_state();
    let archive = host.env.path(ARCHIVE);
    let archive = archive.to_str().unwrap();
    let plan = other.lifeboat(&["restore", "--dry-run", archive]).ok().stdout;
    assert_eq!(plan.matches("\n  new        ").count(), 8, "{plan}");
    assert!(!other.env.path("op").exists());
    let said = other.lifeboat(&["restore", archive]).ok().stdout;
    assert!(said.starts_with("Restored 8 files:\n"), "{said}");
    assert_eq!(other.reloads(), 1);
    for (name, size, _) in FILES {
        assert_eq!(other.env.read(format!("op/{name}")), host.env.read(format!("op/{name}")), "{name}: {size}");
    }
    assert!(OTHERS.iter().all(|name| !other.env.path("op").join(name).exists()));
    other.lifeboat(&["restore", archive, "--to", "look"]).ok();
    assert_eq!(other.env.read("look/state/sessions.json"), host.env.read("op/state/sessions.json"));

    std::fs::remove_dir_all(other.env.path("op")).unwrap();
    let said = other.env.lifeboat(["restore", archive]).ok();
    assert!(said.stderr.starts_with("warning: reload failed: "), "{}", said.stderr);
    let said = other.env.lifeboat(["restore", archive, "--dry-run"]).ok().stdout;
    assert!(said.contains("version: 0.1.16 in the snapshot, unknown here ("), "{said}");
}

/// Shows P7, P10.
#[test]
fn the_state_of_a_newer_nefia_is_not_given_to_an_older_one() {
    let host = Host::backed_up();
    host.env.write("op/nefia.yaml", "changed");
    let before = host.state();
    host.env.write("bin/version", "0.1.9\n");
    for options in [&["--force"][..], &["--dry-run"]] {
        let said = host.lifeboat(&[&["restore", ARCHIVE], options].concat()).code(17);
        assert!(said.stderr.contains("the snapshot was made by nefia 0.1.16, and nefia 0.1.9 is installed here"));
        assert!(said.stderr.contains("update nefia first; --ignore-version "), "{}", said.stderr);
    }
    assert_same(&before, &host.state(), "an older one");
    assert_eq!((host.reloads(), host.env.data_dir().join("journal").exists()), (0, false));
    host.lifeboat(&["restore", ARCHIVE, "--force", "--ignore-version"]).ok();
    assert_eq!(host.reloads(), 1);
}

/// Shows P10, R3.
#[test]
fn a_full_restore_leaves_alone_what_is_not_in_the_layout() {
    let host = Host::backed_up();
    let wanted = host.state();
    host.env.write("op/state/audit/2026-02-25.jsonl", "since the backup");
    host.env.write("op/state/sessions.json", "changed");
    host.lifeboat(&["restore", ARCHIVE, "--mode", "full", "--force"]).ok();
    assert_state(&wanted, &host, "full");
    assert!(!host.env.path("op/state/audit/2026-02-25.jsonl").exists());
}
