//! The document of Tomo, played with the preset `tomo`: each of its commands
//! with the program's name replaced, on a small installation.
//!
//! Other than the document: the iterations of PBKDF2 are 600,000, `--password`
//! is refused, and a restore replaces data only after it was verified.
//!
//! Its steps that are not there yet: the web page, scheduled backups with
//! retention, remote destinations.
#![expect(clippy::unwrap_used, reason = "these are the helpers of tests")]

use lifeboat_store::testing::can_run;
use rexpect::session::{PtySession, spawn_command};

use crate::env::{Cmd, Run, TestEnv};

const TABLES: &str = "
CREATE TABLE servers(id INTEGER PRIMARY KEY, host TEXT NOT NULL, port INTEGER NOT NULL, name TEXT);
CREATE TABLE applications(id INTEGER PRIMARY KEY, server_id INTEGER NOT NULL REFERENCES servers(id), name TEXT);
CREATE TABLE settings(key TEXT PRIMARY KEY, value TEXT);
";
const ROWS: &str = "
INSERT INTO servers VALUES (1, 'alpha.example', 22, 'alpha'), (2, 'beta.example', 2222, 'beta');
INSERT INTO applications VALUES (1, 1, 'blog'), (2, 2, 'shop');
INSERT INTO settings VALUES ('theme', 'dark'), ('language', 'en');
";
const DUMP: &str = "SELECT * FROM servers; SELECT * FROM applications; SELECT * FROM settings;";

/// A host with Tomo on it.
struct Host {
    env: TestEnv,
}

impl Host {
    fn new() -> Self {
        let env = TestEnv::new();
        env.mkdir("tomo");
        env.run("sqlite3", ["tomo/tomo.db", &format!("{TABLES}{ROWS}")]).ok();
        env.write("tomo/credentials/alpha.key", "an encrypted key");
        env.write("tomo/config/tomo.toml", "port = 8080\n");
        env.write("tomo/audit/2024-01-15.log", "login\n");
        env.write("secret.txt", "correct horse\n");
        env.set_mode("secret.txt", 0o600);
        let root = env.path("tomo");
        env.lifeboat(["init", "--preset", "tomo", "--root", root.to_str().unwrap()]).ok();
        // A program in place of the unit; it notes what it was told.
        let text = std::fs::read_to_string(env.path("lifeboat.yaml")).unwrap();
        let log = env.path("service.log").display().to_string();
        let runs = env.write("running", "").display().to_string();
        let script = format!(
            "echo \"$1\" >> {log}\ncase $1 in stop) rm -f {runs};; start) touch {runs};; status) test -e {runs};; esac\n"
        );
        let script = env.write("service.sh", script);
        let command = |what: &str| format!("{what}: [sh, {}, {what}]", script.display());
        let commands = ["stop", "start", "status"].map(command).join(", ");
        let commands = format!("commands: {{ tomo.service: {{ {commands} }} }}");
        env.write("lifeboat.yaml", text.replace("units: [tomo.service]", &commands));
        env.set_mode("lifeboat.yaml", 0o600);
        Self { env }
    }

    /// A command line of the document.
    fn tomo(&self, line: &str) -> Cmd {
        self.env.command(line.split(' '))
    }

    fn run(&self, line: &str) -> Run {
        self.tomo(line).run()
    }

    fn rows(&self) -> String {
        self.env.run("sqlite3", ["tomo/tomo.db", DUMP]).ok().stdout
    }

    fn text(&self, path: &str) -> String {
        String::from_utf8(self.env.read(path)).unwrap()
    }

    /// The state, in which everything was changed.
    fn spoil(&self) {
        self.env.run("sqlite3", ["tomo/tomo.db", "DELETE FROM applications; UPDATE servers SET name = 'x'"]).ok();
        self.env.write("tomo/credentials/alpha.key", "spoiled");
        self.env.write("tomo/audit/later.log", "later\n");
        std::fs::remove_file(self.env.path("tomo/config/tomo.toml")).unwrap();
    }

    fn assert_restored(&self, rows: &str) {
        assert_eq!(self.rows(), rows);
        assert_eq!(self.text("tomo/credentials/alpha.key"), "an encrypted key");
        assert_eq!(self.text("tomo/config/tomo.toml"), "port = 8080\n");
        assert!(!self.env.path("tomo/audit/later.log").exists(), "a full restore leaves only what was backed up");
    }

    fn on_terminal(&self, line: &str) -> PtySession {
        let command = self.tomo(line).reads_terminal().into_command();
        spawn_command(command, Some(60_000)).unwrap()
    }
}

fn host(test: &str) -> Option<Host> {
    can_run(test, &["sqlite3"]).then(Host::new)
}

/// Shows E8, E10.
#[test]
fn the_commands_of_the_document_with_options() {
    let Some(host) = host("the_commands_of_the_document_with_options") else { return };
    let rows = host.rows();
    host.run("backup export --output ./backup.enc --password-file ./secret.txt").ok();
    let head = &std::fs::read(host.env.path("backup.enc")).unwrap()[..8];
    assert_eq!(head, b"TOMOBAK1", "whatever the suffix says");
    let verified = host.run("backup verify ./backup.enc --password-file ./secret.txt").ok().stdout;
    for line in ["PASS envelope (aes-256-gcm)", "PASS password", "PASS authentication", "PASS sqlite/db.db"] {
        assert!(verified.contains(line), "{line} is not in\n{verified}");
    }
    let listed = host.run("backup list ./backup.enc --password-file ./secret.txt").ok().stdout;
    assert!(listed.contains("files/credentials/alpha.key") && listed.contains("Encryption: aes-256-gcm"), "{listed}");
    host.spoil();
    host.run("backup import --file ./backup.enc --password-file ./secret.txt --force").ok();
    host.assert_restored(&rows);
    assert_eq!(host.text("service.log").matches("stop").count(), 1);
    host.spoil();
    host.run("backup import ./backup.enc --password-file ./secret.txt --mode full --force").ok();
    host.assert_restored(&rows);
    // What the document has and Lifeboat does not, on purpose.
    let said = host.run("backup export --password correct").code(2).stderr;
    assert!(said.contains("--password-file"), "{said}");
}

/// Shows E8, E10.
#[test]
fn the_place_of_backups_is_the_preset_s_or_backup_path() {
    let Some(host) = host("the_place_of_backups_is_the_preset_s_or_backup_path") else { return };
    host.run("backup export --password-file ./secret.txt").ok();
    let names = |dir: &str| -> Vec<String> {
        let all = std::fs::read_dir(host.env.path(dir)).unwrap();
        all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let is_backup = |name: &String| name.starts_with("tomo-backup-2") && name.ends_with(".tomo-backup");
    assert!(names("tomo/backups").iter().any(is_backup), "{:?}", names("tomo/backups"));
    let elsewhere = host.env.path("mnt/backups");
    host.tomo("backup export --password-file ./secret.txt").env("BACKUP_PATH", &elsewhere).run().ok();
    assert!(names("mnt/backups").iter().any(is_backup), "{:?}", names("mnt/backups"));
}

/// Shows E8, E10.
#[test]
fn without_options_it_asks() {
    let Some(host) = host("without_options_it_asks") else { return };
    let rows = host.rows();
    let mut export = host.on_terminal("backup export");
    for question in ["New password: ", "once more: "] {
        export.exp_string(question).unwrap();
        export.send_line("correct horse").unwrap();
    }
    export.exp_string("Backup written to").unwrap();
    export.exp_eof().unwrap();
    host.spoil();
    let mut import = host.on_terminal("backup import");
    import.exp_string("Which one?").unwrap();
    import.send_line("").unwrap();
    import.exp_string("Password of").unwrap();
    import.send_line("wrong").unwrap();
    import.exp_string("not its password").unwrap();
    import.send_line("correct horse").unwrap();
    import.exp_string("Full or merge?").unwrap();
    import.send_line("f").unwrap();
    import.exp_string("only servers or settings?").unwrap();
    import.send_line("").unwrap();
    import.exp_string("Go on? [y/N]").unwrap();
    import.send_line("y").unwrap();
    import.exp_eof().unwrap();
    host.assert_restored(&rows);
}

/// Shows E9, E10.
#[test]
fn a_merge_adds_what_is_missing_and_a_part_leaves_the_rest() {
    let Some(host) = host("a_merge_adds_what_is_missing_and_a_part_leaves_the_rest") else { return };
    host.run("backup export --output b.enc --password-file ./secret.txt").ok();
    // Beta is gone, its number is another's, and a setting and a file were changed.
    let changed = "DELETE FROM applications WHERE id = 2; DELETE FROM servers WHERE id = 2; \
                   INSERT INTO servers VALUES (2, 'gamma.example', 22, 'gamma'); \
                   UPDATE settings SET value = 'light' WHERE key = 'theme'; DELETE FROM settings WHERE key = 'language'";
    host.env.run("sqlite3", ["tomo/tomo.db", changed]).ok();
    host.env.write("tomo/config/tomo.toml", "port = 9090\n");
    std::fs::remove_file(host.env.path("tomo/credentials/alpha.key")).unwrap();
    host.run("backup import b.enc --password-file ./secret.txt --mode merge --only servers --force").ok();
    let servers = "SELECT host FROM servers ORDER BY host";
    let found = host.env.run("sqlite3", ["tomo/tomo.db", servers]).ok().stdout;
    assert_eq!(found, "alpha.example\nbeta.example\ngamma.example\n");
    assert_eq!(host.text("tomo/credentials/alpha.key"), "an encrypted key");
    assert_eq!(host.text("tomo/config/tomo.toml"), "port = 9090\n", "that belongs to the settings");
    let settings = "SELECT key, value FROM settings ORDER BY key";
    assert_eq!(host.env.run("sqlite3", ["tomo/tomo.db", settings]).ok().stdout, "theme|light\n");
    host.run("backup import b.enc --password-file ./secret.txt --mode merge --force").ok();
    assert_eq!(host.env.run("sqlite3", ["tomo/tomo.db", settings]).ok().stdout, "language|en\ntheme|light\n");
    let of_beta =
        "SELECT a.name FROM applications a JOIN servers s ON s.id = a.server_id WHERE s.host = 'beta.example'";
    assert_eq!(host.env.run("sqlite3", ["tomo/tomo.db", of_beta]).ok().stdout, "shop\n");
    host.run("backup import b.enc --password-file ./secret.txt --mode full --only settings --force").ok();
    assert_eq!(host.text("tomo/config/tomo.toml"), "port = 8080\n");
}

/// "Database Recovery" of the document, with what a restore adds: the service
/// stands still meanwhile, and the damaged database is kept.
///
/// Shows E10.
#[test]
fn a_database_that_alone_is_damaged_is_recovered_alone() {
    let Some(host) = host("a_database_that_alone_is_damaged_is_recovered_alone") else { return };
    let rows = host.rows();
    host.run("backup export --output b.enc --password-file ./secret.txt").ok();
    host.env.write("tomo/tomo.db", "no database any more");
    host.env.write("tomo/config/tomo.toml", "port = 9090\n");
    host.run("restore b.enc --password-file ./secret.txt --only db --force").ok();
    assert_eq!(host.rows(), rows);
    assert_eq!(host.text("tomo/config/tomo.toml"), "port = 9090\n", "nothing else was touched");
    assert_eq!(host.text("service.log").matches("stop").count(), 1);
}

/// Shows E8.
#[test]
fn an_import_that_nobody_can_be_asked_about_says_what_is_missing() {
    let Some(host) = host("an_import_that_nobody_can_be_asked_about_says_what_is_missing") else { return };
    host.run("backup export --output b.enc --password-file ./secret.txt").ok();
    let said = host.run("backup import b.enc --password-file ./secret.txt").code(22).stderr;
    assert!(said.contains("--mode full") && said.contains("--mode merge"), "{said}");
    let said = host.run("backup import b.enc --password-file ./secret.txt --mode full").code(22).stderr;
    assert!(said.contains("--force"), "{said}");
    let said = host.run("backup import").code(2).stderr;
    assert!(said.contains("backup import FILE"), "{said}");
    let said = host.run("backup import b.enc --mode full --force").code(12).stderr;
    assert!(said.contains("--password-file"), "{said}");
    let said = host.run("backup export --output c.enc").code(12).stderr;
    assert!(said.contains("--password-file"), "{said}");
    assert!(!host.env.path("c.enc").exists());
}

/// Shows E8.
#[test]
fn the_password_of_a_backup_is_changed_when_it_was_imported() {
    let Some(host) = host("the_password_of_a_backup_is_changed_when_it_was_imported") else { return };
    let rows = host.rows();
    host.run("backup export --password-file ./secret.txt").ok();
    let name = std::fs::read_dir(host.env.path("tomo/backups")).unwrap();
    let mut names = name.map(|entry| entry.unwrap().path()).filter(|path| path.extension().unwrap() == "tomo-backup");
    let file = names.next().unwrap().display().to_string();
    host.env.write("new.txt", "battery staple\n");
    host.env.set_mode("new.txt", 0o600);
    host.spoil();
    let said = host
        .run(&format!("backup import --file {file} --password-file ./secret.txt --force --new-password-file new.txt"))
        .ok();
    assert!(said.stdout.contains("has the new password"), "{}", said.stdout);
    host.assert_restored(&rows);
    host.run(&format!("backup list {file} --password-file ./secret.txt")).code(12);
    host.run(&format!("backup verify {file} --password-file new.txt")).ok();
    // The sidecar describes the new file: it is known without a key.
    let listed = host.run("backup list").ok().stdout;
    assert!(listed.contains("good") && listed.contains("(aes-256-gcm)"), "{listed}");
    let mut changed = host.on_terminal(&format!("backup import {file} --password-file new.txt --force --new-password"));
    for question in ["New password: ", "once more: "] {
        changed.exp_string(question).unwrap();
        changed.send_line("third").unwrap();
    }
    changed.exp_eof().unwrap();
    host.env.write("third.txt", "third\n");
    host.env.set_mode("third.txt", 0o600);
    host.run(&format!("backup verify {file} --password-file third.txt")).ok();
    // A restore that does not happen changes no password.
    host.spoil();
    host.run(&format!("backup import {file} --password-file third.txt --mode full --new-password-file new.txt"))
        .code(22);
    host.run(&format!("backup verify {file} --password-file third.txt")).ok();
}
