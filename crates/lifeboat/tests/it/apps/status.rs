//! `lifeboat status`, `backup list` and `backup verify` of apps, and which
//! archive a word means.

use serde_json::Value;

use super::{Apps, dated, lines, texts};
use crate::env::{Said, TestEnv};

const YAML: &str = "destinations: { usb: { url: DIR/usb } }
apps:
  web: { sources: { conf: { files: { root: DIR/web } }, media: { files: { root: DIR/media } } }, destinations: [usb] }
";

fn apps() -> Apps {
    let apps = Apps::new(YAML);
    apps.env.write("web/file", "one");
    apps.env.write("media/file", "two");
    apps
}

/// Standard output with placeholders, also for the time of day.
fn normal(said: &Said) -> String {
    let text = said.normal_stdout();
    let is_time = |word: &str| word.len() == 5 && word.chars().enumerate().all(|(at, c)| (at == 2) == (c == ':'));
    let word = |word: &str| {
        let bare = word.trim_end_matches([',', '\n']);
        if is_time(bare) { word.replace(bare, "<clock>") } else { word.to_owned() }
    };
    text.split('\n').map(|line| line.split(' ').map(word).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join("\n")
}

fn wrong(status: &Value) -> Vec<String> {
    let wrong = status["apps"][0]["wrong"].as_array().unwrap();
    wrong.iter().map(|line| line.as_str().unwrap().to_owned()).collect()
}

/// Shows P12.
#[test]
fn an_app_that_is_well_is_exit_code_0_and_told_in_few_lines() {
    let apps = apps();
    apps.run("backup web").ok();
    let said = apps.run("status").ok();
    assert_eq!(
        normal(&said),
        "\
web:
  last good backup: <date> <clock> (<size>, <id>), <duration> ago
  last run: complete, <duration> ago
  1 backup, <size>
  in usb: $DIR/usb: 1 backup, the last good one <duration> ago; free space: <size>
Nothing waits, and nothing is kept.
"
    );
    let status = apps.status("web", 0);
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(keys(&status), "apps kept message_type paused waiting");
    let app = &status["apps"][0];
    assert_eq!(keys(app), "bytes last last_good last_run name places snapshots wrong");
    assert_eq!(keys(&app["places"][0]), "destination error free_bytes last_good path snapshots");
    assert_eq!(keys(&app["last_run"]), "began ended is_complete outcome");
    assert_eq!(app["last_good"], app["last"]);
    assert_eq!((&app["last_good"]["outcome"], &app["last_run"]["is_complete"]), (&"good".into(), &true.into()));
}

/// Shows P12.
#[test]
fn what_is_wrong_is_one_line_each_and_exit_code_1() {
    let apps = apps();
    assert_eq!(wrong(&apps.status("", 1)), ["there is no good backup"]);
    let said = apps.run("status").code(1);
    assert_eq!(
        normal(&said),
        "\
web:
  last good backup: none
  0 backups, <size>
  in usb: $DIR/usb: 0 backups, no good one; free space: <size>
  wrong: there is no good backup
Nothing waits, and nothing is kept.
"
    );
    // Only a part.
    apps.run("backup web --only conf").ok();
    assert_eq!(wrong(&apps.status("", 1)), ["there is no good backup"]);
    assert!(normal(&apps.run("status").code(1)).contains("the newest backup is scope: <date> <clock>"));
    // A source is missing; then all.
    apps.run("backup web").ok();
    apps.run("status").ok();
    apps.remove("media");
    apps.run("backup web").code(18);
    let said = normal(&apps.run("status").code(1));
    assert!(said.contains("  the newest backup is partial: <date> <clock>\n"), "{said}");
    assert!(said.contains("  last run: incomplete, <duration> ago\n"), "{said}");
    assert!(said.contains("  wrong: the last backup was incomplete: source media: it does not exist\n"), "{said}");
    apps.remove("web");
    apps.run("backup web").code(18);
    let said = normal(&apps.run("status").code(1));
    assert!(said.contains("  last run: failed, <duration> ago\n"), "{said}");
    assert!(wrong(&apps.status("", 1))[0].starts_with("the last backup failed: could not back up"));
    // That a part went well does not hide it; that all of it did, does.
    apps.env.write("web/file", "one");
    apps.run("backup web --only conf").ok();
    apps.run("status").code(1);
    apps.env.write("media/file", "two");
    apps.run("backup web").ok();
    apps.run("status").ok();
    // Not read.
    apps.env.write("web/locked", "x");
    if !lifeboat_store::testing::is_root() {
        apps.env.set_mode("web/locked", 0);
        apps.run("backup web").code(3);
        apps.run("status").code(1);
    }
}

/// Shows P12.
#[test]
fn one_app_is_asked_by_its_name_and_an_unknown_one_is_named_with_the_nearest() {
    let apps = Apps::new(super::TWO);
    for app in ["web", "mail"] {
        apps.env.write(format!("{app}/file"), app);
    }
    apps.run("backup web").ok();
    assert_eq!(texts(apps.status("", 1)["apps"].as_array().unwrap(), "name"), ["mail", "web"]);
    assert_eq!(texts(apps.status("web", 0)["apps"].as_array().unwrap(), "name"), ["web"]);
    apps.status("mail", 1);
    let said = apps.run("status wbe").code(2).stderr;
    assert!(said.contains("there is no app wbe") && said.contains("did you mean web?"), "{said}");
    // A disabled one is no trouble, unless it is asked for.
    apps.run("backup mail").ok();
    apps.status("", 0);
    assert_eq!(wrong(&apps.status("old", 1)), ["there is no good backup"]);
    let env = TestEnv::new();
    assert!(env.lifeboat(["status", "web"]).code(2).stderr.contains("there is no app web"));
    assert_eq!(env.lifeboat(["status"]).ok().stdout, "Nothing waits, and nothing is kept.\n");
}

/// Shows P12.
#[test]
fn what_a_restore_replaced_and_one_that_was_interrupted_are_told() {
    let apps = apps();
    apps.run("backup web").ok();
    apps.env.write("web/file", "changed");
    apps.run("restore latest --force --allow-unauthenticated").ok();
    let said = normal(&apps.run("status").ok());
    assert!(
        said.contains(
            "\nreplaced: 1 entry of $DIR/web, $DIR/media (<size>), kept until <date> <clock>, restore <id>\n"
        ),
        "{said}"
    );
    assert_eq!(apps.status("", 0)["kept"].as_array().unwrap().len(), 1);

    if lifeboat_store::testing::can_run("what_a_restore_replaced_and_one_that_was_interrupted_are_told", &["strace"]) {
        apps.env.write("web/file", "changed");
        let args = ["restore", "latest", "--force", "--allow-unauthenticated"];
        let kill = ["-e", "trace=renameat2", "-e", "inject=renameat2:signal=KILL:when=1"];
        crate::faults::traced(&apps.env, &kill, &args).code(137);
        let said = normal(&apps.run("status").code(1));
        assert!(said.contains("an interrupted restore waits: <id> of $DIR/web, $DIR/media"), "{said}");
        assert!(said.contains("\nNext: lifeboat recover\n"), "{said}");
        assert_eq!(apps.status("", 1)["waiting"].as_array().unwrap().len(), 1);
        let said = apps.run("recover --json").ok();
        assert_eq!(lines(&said, "recovered").len(), 1);
        assert_eq!(lines(&said, "summary")[0]["recovered"], 1, "{}", said.stdout);
    }
    let said = apps.run("recover --json").ok();
    assert_eq!(lines(&said, "summary")[0]["recovered"], 0, "every line is JSON: {}", said.stdout);
    apps.run("status").ok();
}

/// Shows P2.
#[test]
fn backups_are_listed_and_verified_by_app_by_id_and_all() {
    let apps = Apps::new(&super::TWO.replace("enabled: false", "enabled: true"));
    for app in ["web", "mail", "old"] {
        apps.env.write(format!("{app}/file"), app);
    }
    apps.run("backup").ok();
    let summary = apps.summary("backup web --only conf", 0);
    let said = normal(&apps.run("backup list web").ok());
    let file = |name: &str| dated(name).replace(&dated("")[8..18], "<date>");
    let line =
        format!("<id>  <date> <clock>  good          <size>  web           -         $DIR/backups/{}", file("web"));
    let shown = said.lines().next().unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(shown, line.replace("$DIR/", "").split_whitespace().collect::<Vec<_>>());
    assert!(said.ends_with("\n2 backups, 2 good, <size>\n"), "{said}");
    assert_eq!(texts(&apps.listed(""), "app"), ["mail", "old", "web", "web"]);
    let id = summary["id"].as_str().unwrap()[..8].to_owned();
    assert_eq!(apps.paths(&id), ["files/conf", "files/conf/file"]);
    assert_eq!(apps.head(&id)["id"], summary["id"]);

    let said = apps.run("backup verify").ok().stdout;
    assert!(said.ends_with("4 backups verified successfully.\n"), "{said}");
    apps.run(&format!("backup verify {id}")).ok();
    let broken = apps.listed("mail")[0]["path"].as_str().unwrap().to_owned();
    let mut bytes = apps.env.read(&broken);
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    apps.env.write(&broken, bytes);
    let said = apps.run("backup verify").code(1).stdout;
    assert!(said.ends_with("1 of 4 backups failed.\n"), "{said}");
    apps.run("backup verify mail").code(1);
    apps.run("backup verify web").ok();
    // What is gone is no failure of verify, but a mistake.
    apps.remove("backups");
    apps.run("backup verify").code(2);
    assert!(apps.run("backup list").ok().stdout.contains("0 backups"));
}

/// Shows P2.
#[test]
fn a_word_is_a_file_else_the_beginning_of_an_id_or_the_latest() {
    let apps = Apps::new(super::TWO);
    for app in ["web", "mail"] {
        apps.env.write(format!("{app}/file"), format!("{app} 1"));
    }
    apps.run("backup").ok();
    apps.env.write("web/file", "web 2");
    let second = apps.summary("backup web", 0)["id"].as_str().unwrap().to_owned();
    let said = apps.run("restore latest --to new").code(2).stderr;
    assert!(said.contains("several apps: mail, web") && said.contains("--app APP"), "{said}");
    apps.run("restore latest --app web --to new").ok();
    assert_eq!(apps.text("new/files/conf/file"), "web 2");
    let first = apps.listed("web")[0]["id"].as_str().unwrap().to_owned();
    apps.run(&format!("restore {} --to first", &first[..8])).ok();
    assert_eq!(apps.text("first/files/conf/file"), "web 1");
    // The id of another app is none of this one.
    let said = apps.run(&format!("restore {} --app mail --to no", &first[..8])).code(2).stderr;
    assert!(said.contains("is neither a file nor the id of a snapshot"), "{said}");
    // A file that exists wins over an id, a directory too.
    let path = apps.listed("web")[0]["path"].as_str().unwrap().to_owned();
    std::fs::copy(&path, apps.env.path(&second[..8])).unwrap();
    apps.run(&format!("restore {} --to wins", &second[..8])).ok();
    assert_eq!(apps.text("wins/files/conf/file"), "web 1");
    // Two ids with the same beginning: by sidecars that say so.
    for (number, snapshot) in apps.listed("web").iter().enumerate() {
        let sidecar = format!("{}.json", snapshot["path"].as_str().unwrap());
        let id = snapshot["id"].as_str().unwrap();
        let text = apps.text(&sidecar).replace(id, &format!("abcdef0{number}{}", &id[8..]));
        apps.env.write(&sidecar, text);
    }
    let said = apps.run("restore abcdef --to no").code(2).stderr;
    assert!(said.contains("abcdef is the beginning of several ids: abcdef00") && said.contains("abcdef01"), "{said}");
    apps.run("restore abcdef01 --to clash").ok();
    assert_eq!(apps.text("clash/files/conf/file"), "web 2");
}
