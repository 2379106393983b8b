//! Plays the hostile and the odd archives: plain here, and inside an envelope
//! where a test passes what wraps them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use lifeboat_store::testing::{is_root, skip};

use super::{assert_untouched, honest, hostile, odd, tar, world};
use crate::env::TestEnv;
use crate::fidelity::{Mount, Tree, assert_same, snapshot};

/// What each hostile archive is answered with: `what: exit code, message`. Made anew by the test
/// that compares it.
const SAID: &str = include_str!("hostile.txt");

/// How an archive is put into an envelope; [`plain`] for none. A test of an
/// envelope passes its writer here and lets everything else be as it is.
pub(super) type Wrap<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;

fn plain(archive: &[u8]) -> Vec<u8> {
    archive.to_vec()
}

/// Restores, verifies and lists every hostile archive: each is refused, names
/// what is wrong, and changes nothing. Returns what was said, a line each.
pub(super) fn play_hostile(wrap: Wrap<'_>) -> String {
    let env = world();
    let absolute = env.path("world/escaped").display().to_string();
    let before = snapshot(&env.path("world"));
    let (mut said, mut wrong) = (String::new(), Vec::new());
    for (number, (what, bytes, codes)) in hostile::all(&absolute).into_iter().enumerate() {
        env.write("evil.tar", wrap(&bytes));
        let mut first = None;
        let other: &[&str] =
            if number % 2 == 0 { &["--to", "world/to", "--overwrite"] } else { &["--to", "world/new/er"] };
        for way in [&["--to", "world/to"], other] {
            let run = env.lifeboat(["restore", "evil.tar"].iter().chain(way));
            let code = run.exit_code();
            let run = run.code(code);
            if !codes.contains(&code) || run.stderr.contains("panicked") || has_escape(&run.stdout, &run.stderr) {
                wrong.push(format!("{what}, {way:?}: {code}, not {codes:?}: {}", run.stderr));
            }
            assert_untouched(&before, &env, &what);
            first.get_or_insert_with(|| (code, run.normal_stderr()));
        }
        let (code, message) = first.expect("it was restored");
        let message = message.lines().next().unwrap_or_default().split_once(": ").unwrap_or_default().1.to_owned();
        // The archive and the place are the same in all.
        let message = message.trim_start_matches("evil.tar: ").replace("$DIR/", "");
        writeln!(said, "{what}: {code}, {message}").expect("a String takes everything");
        let in_place: &[&str] = if number % 7 == 0 { &["restore"] } else { &[] };
        for command in
            [&["backup", "verify"][..], &["backup", "list"], in_place].into_iter().filter(|all| !all.is_empty())
        {
            let more: &[&str] = if command == ["restore"] { &["--dry-run"] } else { &[] };
            let run = env.lifeboat(command.iter().chain(&["evil.tar"]).chain(more));
            let code = run.exit_code();
            let run = run.code(code);
            let expected: &[i32] = match command {
                ["backup", "verify"]
                    if what == "listed: a device" || what.contains("stage") && what.starts_with("listed") =>
                {
                    &[0]
                }
                ["backup", "verify"] => &[1],
                ["restore"] => &[0, 1, 2, 13, 17, 22, 23],
                _ => &[0, 1, 13, 17, 23],
            };
            if !expected.contains(&code) || run.stderr.contains("panicked") || has_escape(&run.stdout, &run.stderr) {
                wrong.push(format!("{what}: {command:?} ended with {code}: {}", run.stderr));
            }
            assert_untouched(&before, &env, &what);
        }
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
    said
}

/// Whether something in it would move a cursor, or turn the text around.
fn has_escape(stdout: &str, stderr: &str) -> bool {
    let moves = |c: char| c.is_control() && c != '\n' || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    stdout.contains(moves) || stderr.contains(moves)
}

/// Shows A7, A9 and E11.
#[test]
fn a_hostile_archive_is_refused_and_changes_nothing() {
    let said = play_hostile(&plain);
    let refused = said.lines().filter(|line| line.contains(": 23, ")).count();
    let names: BTreeSet<&str> = said.lines().filter_map(|line| line.split_once(": ")).map(|(what, _)| what).collect();
    println!("{} hostile archives, {refused} refused as unsafe", said.lines().count());
    assert!(refused >= 150, "{refused} were refused as unsafe");
    assert!(names.len() > 1, "each has a name");
    if said != SAID {
        let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile.txt");
        crate::env::write_file(&path, &said);
        let known: BTreeSet<&str> = SAID.lines().collect();
        let new: Vec<&str> = said.lines().filter(|line| !known.contains(line)).collect();
        panic!("damage/hostile.txt does not say that:\n{}\nIf that is right, take {}", new.join("\n"), path.display());
    }
}

/// A file system that holds little more than the largest of them declares: an
/// archive that made more of itself would end with another code.
///
/// Shows E11.
#[test]
fn a_hostile_archive_takes_no_more_room_than_it_declares() {
    const TEST: &str = "a_hostile_archive_takes_no_more_room_than_it_declares";
    if !is_root() {
        return skip(TEST, "needs root, to mount a small file system");
    }
    let env = TestEnv::new();
    let _mount = Mount::new(&env, "small", &["-t", "tmpfs", "-o", "size=128k", "tmpfs"]);
    let mut wrong = Vec::new();
    for (what, bytes, codes) in hostile::all("/nowhere/at/all") {
        env.write("evil.tar", &bytes);
        let run = env.lifeboat(["restore", "evil.tar", "--to", "small/to"]);
        let code = run.exit_code();
        // Where it declares more than there is room for, that is said before anything is written.
        let is_declared = code == 14 && run.code(code).stderr.contains("need ");
        if !codes.contains(&code) && !is_declared {
            wrong.push(format!("{what}: {code}, not {codes:?}"));
        }
        if !env.names("small").is_empty() {
            wrong.push(format!("{what}: something was left"));
        }
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

/// Restores every odd archive, and compares what came back.
pub(super) fn play_odd(wrap: Wrap<'_>) -> usize {
    let env = world();
    let before = snapshot(&env.path("world"));
    let mut wrong = Vec::new();
    let cases = odd::all();
    for (what, bytes, path) in &cases {
        env.write("odd.tar", wrap(bytes));
        let run = env.lifeboat(["restore", "odd.tar", "--to", "world/new"]);
        let code = run.exit_code();
        let said = run.code(code);
        if code != 0
            || env.path("world/new").join(path).symlink_metadata().is_err()
            || has_escape(&said.stdout, &said.stderr)
        {
            wrong.push(format!("{what}: {code} {}", said.stderr));
        }
        if env.path("world/new").exists() {
            env.run("rm", ["-rf", "world/new"]).ok();
        }
        let run = env.lifeboat(["backup", "list", "odd.tar"]);
        let code = run.exit_code();
        let listed = run.code(code);
        if code != 0 || has_escape(&listed.stdout, &listed.stderr) {
            wrong.push(format!("{what}: its list has an escape"));
        }
        assert_untouched(&before, &env, what);
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
    cases.len()
}

/// What is odd but does no harm is not refused.
///
/// Shows A8, E11.
#[test]
fn an_odd_archive_is_restored() {
    let count = play_odd(&plain);
    println!("{count} odd archives");
    assert!(count >= 100, "{count} odd archives");
}

/// Restores what other programs made, and compares it with what they made it of.
pub(super) fn play_honest(test: &str, wrap: Wrap<'_>) -> usize {
    let env = TestEnv::new();
    let mut wrong = Vec::new();
    let mut count = 0;
    honest::each(&env, test, &mut |what: &str, bytes: &[u8], expected: &Tree| {
        count += 1;
        env.write("honest.tar", wrap(bytes));
        let run = env.lifeboat(["restore", "honest.tar", "--to", "new"]);
        let code = run.exit_code();
        let said = run.code(code);
        if code != 0 || said.stderr.contains("warning") {
            let made = if bytes.len() < 512 { String::from_utf8_lossy(bytes) } else { "".into() };
            wrong.push(format!("{what}: {code} {} {made}", said.stderr));
        } else {
            let same = || assert_same(expected, &snapshot(&env.path("new/source")), what);
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(same)).is_err() {
                wrong.push(format!("{what} comes back changed; how, is said above"));
            }
        }
        env.run("rm", ["-rf", "new"]).ok();
    });
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    count
}

/// Shows A8, E11.
#[test]
fn what_stock_tools_made_comes_back_as_it_was() {
    const TEST: &str = "what_stock_tools_made_comes_back_as_it_was";
    let count = play_honest(TEST, &plain);
    println!("{count} honest archives of stock tools");
    assert!(count == 0 || count >= 100, "{count} honest archives");
}

/// On a terminal nothing that stands in an archive moves the cursor or turns the text around: colours are forced, or
/// they, and all that looks like them, would be taken out on the way.
///
/// Shows E11.
#[test]
fn names_of_an_archive_write_nothing_of_their_own_on_a_terminal() {
    const EVIL: &str = "\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}31m\u{202e}\r\u{8}\u{85}\u{2066}x";
    let env = TestEnv::new();
    let name = format!("files/{EVIL}");
    let json = serde_json::to_string(EVIL).expect("text");
    let inner = json.trim_matches('"');
    let evil_head = |text: String| {
        let said = ["\"app\":\"a", "\"host\":\"h", "\"name\":\"t", "\"version\":\"1"];
        said.iter().fold(text, |text, key| text.replace(key, &format!("{key}{inner}")))
    };
    let source = format!(
        r#""sources":[{{"name":"{inner}","kind":"{inner}","started":"2026-02-24T03:00:00Z","finished":"2026-02-24T03:00:00Z","root":"/{inner}","details":{{"failed":"{inner}"}}}}],"problems":["{inner}"],"app_version":"{inner}""#
    );
    let listed = |record: String| {
        let text = evil_head(tar::manifest("lifeboat/1", &[record])).replace(r#""sources":[]"#, &source);
        tar::with_manifest(&text, tar::Tar::default().pax("path", &name).file("x"))
    };
    let right = tar::listed("file", &format!("files/{inner}"), b"evil", "");
    let archives = [
        ("foreign", tar::Tar::default().pax("path", &name).file("x").pax("linkpath", EVIL).symlink("s", "x").end()),
        ("refused", tar::Tar::default().pax("path", format!("{EVIL}/../x")).file("x").end()),
        ("twice", tar::Tar::default().pax("path", EVIL).file("x").pax("path", EVIL).dir("x").end()),
        ("ours", listed(right.clone())),
        ("changed", listed(right.replace("0644", "0600"))),
        ("unknown", listed(right.replace(r#""type":"file""#, &format!(r#""type":"{inner}""#)))),
        ("newer", tar::with_manifest(&tar::manifest(&format!("lifeboat/2{inner}"), &[]), tar::Tar::default())),
        (
            "attribute",
            tar::Tar::default().pax(&format!("SCHILY.xattr.user.{EVIL}"), "1").sized(b'6', "p", "", 0, b"").end(),
        ),
    ];
    for (what, bytes) in archives {
        env.write("evil.tar", bytes);
        for args in [
            &["backup", "list", "evil.tar"][..],
            &["backup", "verify", "evil.tar"],
            &["restore", "evil.tar", "--to", "new", "--dry-run"],
            &["restore", "evil.tar", "--to", "new"],
            &["restore", "evil.tar", "--dry-run"],
        ] {
            let run = env.command(args).env("CLICOLOR_FORCE", "1").run();
            let code = run.exit_code();
            let said = run.code(code);
            let without_colours = |text: &str| {
                let mut parts = text.split("\u{1b}[");
                let first = parts.next().unwrap_or_default().to_owned();
                parts.fold(first, |all, part| match part.split_once('m') {
                    Some((colour, rest)) if colour.bytes().all(|byte| byte.is_ascii_digit() || byte == b';') => {
                        all + rest
                    }
                    _ => all + "\u{1b}[" + part,
                })
            };
            let (stdout, stderr) = (without_colours(&said.stdout), without_colours(&said.stderr));
            assert!(!has_escape(&stdout, &stderr), "{what}, {args:?}: {stdout:?} {stderr:?}");
        }
        env.run("rm", ["-rf", "new"]).ok();
    }
}

/// What acts by itself comes back only to whom it belongs: as an ordinary user, no
/// program is left that runs as somebody else or may more than others.
///
/// Shows E11.
#[test]
fn attributes_that_act_are_not_given_to_an_ordinary_user() {
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let attributes = [
        tar::record("SCHILY.xattr.security.capability", capability),
        tar::record("SCHILY.xattr.trusted.evil", b"1"),
        tar::record("SCHILY.xattr.security.evil", b"1"),
        tar::record("SCHILY.xattr.user.fine", b"1"),
    ];
    let set_uid = |block: &mut [u8; 512]| block[100..107].copy_from_slice(b"0006755");
    let bytes = tar::Tar::default().raw_pax(attributes.concat()).file("cap").changed(b'0', "su", b"#!", set_uid).end();
    let env = TestEnv::new();
    env.write("acts.tar", bytes);
    env.mkdir("theirs");
    env.set_mode("theirs", 0o777);
    let said = env.command_as_nobody(["restore", "acts.tar", "--to", "theirs/new"]).run().ok();
    assert!(said.stderr.contains("only root may do that"), "{}", said.stderr);
    let got = snapshot(&env.path("theirs/new"));
    let file = |name: &[u8]| got.get(name).expect("it was restored");
    assert_eq!(file(b"su").mode & 0o6000, 0, "it runs as nobody else");
    let names: Vec<&str> = file(b"cap").xattrs.keys().map(String::as_str).collect();
    assert!(names.iter().all(|name| *name == "user.fine"), "{names:?}");
}
