//! Encrypted files and the programs that others open them with, both ways. What
//! `doc/formats.md` says to type is taken from there.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "these are the helpers of tests")]

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use lifeboat_format::envelope::{self, Beside, Facts, Identity, Key, OPENSSL_ITERATIONS, Seal, Secret};
use lifeboat_format::{Error, ErrorKind, Result};
use lifeboat_store::Cancel;
use lifeboat_store::testing::{Random, can_run, skip};
use rexpect::session::{PtySession, spawn_command};

const KEY_LINE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// One segment, three, and two that are full.
const LENS: [usize; 3] = [300, 150_000, 131_072];

/// What begins as an archive does.
fn plain(len: usize) -> Vec<u8> {
    let mut bytes = Random::new(1).bytes(len);
    bytes[..4].copy_from_slice(&[0x28, 0xb5, 0x2f, 0xfd]);
    bytes
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

fn sealed(seal: &Seal, plain: &[u8]) -> (Vec<u8>, Facts) {
    let mut writer = seal.begin(Vec::new()).unwrap();
    writer.write_all(plain).unwrap();
    writer.finish().unwrap()
}

/// The plain text of the file, and whether it was authenticated.
fn opened(path: &Path, key: Key, beside: &Beside) -> Result<(Vec<u8>, bool)> {
    let file = Arc::new(std::fs::File::open(path).unwrap());
    let sealed = Arc::new(envelope::open(file, path, &[key], beside, &Cancel::new())?);
    let mut all = Vec::new();
    sealed.reader().unwrap().read_to_end(&mut all).map_err(|error| Error::corrupt(error.to_string()))?;
    sealed.read_rest(&Cancel::new())?;
    Ok((all, sealed.is_authenticated()))
}

/// Runs `program` in `dir` with `input`; whether it ended well, and what it said.
fn run(dir: &Path, program: &str, arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn succeeds(dir: &Path, program: &str, arguments: &[&str]) -> String {
    let (is_good, said) = run(dir, program, arguments, "");
    assert!(is_good, "{program} {arguments:?}: {said}");
    said
}

/// The block of code in `language` that follows `heading` in `doc/formats.md`.
fn from_the_document(heading: &str, language: &str) -> String {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../doc/formats.md")).unwrap();
    let section = text.split_once(&format!("\n### {heading}\n")).unwrap().1;
    let block = section.split_once(&format!("\n```{language}\n")).unwrap().1;
    block.split_once("\n```").unwrap().0.to_owned()
}

/// Shows E2.
#[test]
fn age_opens_ours_and_we_open_what_it_wrote() {
    if !can_run("age_opens_ours_and_we_open_what_it_wrote", &["age", "age-keygen"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    succeeds(dir, "age-keygen", &["-o", "identity"]);
    let identity = Identity::parse_all(&std::fs::read_to_string(dir.join("identity")).unwrap()).unwrap().remove(0);
    let recipient = identity.recipient().to_string();
    let other = Identity::generate().recipient();
    for len in LENS {
        let plain = plain(len);
        let ours = sealed(&Seal::Age(vec![other.clone(), identity.recipient()]), &plain).0;
        std::fs::write(dir.join("ours.age"), ours).unwrap();
        succeeds(dir, "age", &["-d", "-i", "identity", "-o", "plain", "ours.age"]);
        assert!(std::fs::read(dir.join("plain")).unwrap() == plain, "{len}");
        succeeds(dir, "age", &["-r", &recipient, "-o", "theirs.age", "plain"]);
        let key = || Key::Identities(vec![Identity::generate(), identity.clone()]);
        let (read, is_authenticated) = opened(&dir.join("theirs.age"), key(), &Beside::default()).unwrap();
        assert!(read == plain && is_authenticated, "{len}");
        succeeds(dir, "age", &["-a", "-r", &recipient, "-o", "text.age", "plain"]);
        let error = opened(&dir.join("text.age"), key(), &Beside::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("age -d"), "{error}");
    }
}

/// Starts `age`, which asks a terminal for its passphrase.
fn age_at_a_terminal(dir: &Path, arguments: &[&str]) -> PtySession {
    let mut command = Command::new("age");
    command.args(arguments).current_dir(dir);
    let mut session = spawn_command(command, Some(60_000)).unwrap();
    session.exp_string("Enter passphrase").unwrap();
    session.send_line("correct horse").unwrap();
    session
}

/// Shows E2.
#[test]
fn so_it_does_with_a_passphrase() {
    if !can_run("so_it_does_with_a_passphrase", &["age"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let plain = plain(70_000);
    std::fs::write(dir.join("ours.age"), sealed(&Seal::AgePassphrase(secret("correct horse")), &plain).0).unwrap();
    let mut session = age_at_a_terminal(dir, &["-d", "-o", "plain", "ours.age"]);
    session.exp_eof().unwrap();
    assert!(std::fs::read(dir.join("plain")).unwrap() == plain);
    let mut session = age_at_a_terminal(dir, &["-p", "-o", "theirs.age", "plain"]);
    session.exp_string("Confirm passphrase").unwrap();
    session.send_line("correct horse").unwrap();
    session.exp_eof().unwrap();
    let key = Key::Password(secret("correct horse"));
    let (read, is_authenticated) = opened(&dir.join("theirs.age"), key, &Beside::default()).unwrap();
    assert!(read == plain && is_authenticated);
}

/// Shows E2.
#[test]
fn openssl_opens_ours_and_we_open_what_it_wrote() {
    if !can_run("openssl_opens_ours_and_we_open_what_it_wrote", &["openssl", "sh", "od"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("KEY"), format!("{KEY_LINE}\n")).unwrap();
    let check = from_the_document("`openssl`", "sh");
    let enc = |more: &[&str]| {
        let same = ["enc", "-aes-256-cbc", "-pbkdf2", "-iter", "100000", "-salt", "-pass", "file:KEY"];
        succeeds(dir, "openssl", &[&same[..], more].concat());
    };
    for len in LENS {
        let plain = plain(len);
        let seal = Seal::Openssl { key: secret(KEY_LINE), iterations: OPENSSL_ITERATIONS };
        let (ours, facts) = sealed(&seal, &plain);
        std::fs::write(dir.join("F.enc"), &ours).unwrap();
        std::fs::write(dir.join("F.enc.hmac"), format!("{}\n", facts.hmac.unwrap())).unwrap();
        enc(&["-d", "-in", "F.enc", "-out", "plain"]);
        assert!(std::fs::read(dir.join("plain")).unwrap() == plain, "{len}");
        assert_eq!(succeeds(dir, "sh", &["-euc", &check]), "F.enc is whole\n");
        std::fs::write(dir.join("F.enc"), [&ours[..100], b"\0", &ours[101..]].concat()).unwrap();
        assert!(!run(dir, "sh", &["-euc", &check], "").0);

        enc(&["-in", "plain", "-out", "theirs.enc"]);
        let key = || Key::Password(secret(KEY_LINE));
        let (read, is_authenticated) = opened(&dir.join("theirs.enc"), key(), &Beside::default()).unwrap();
        assert!(read == plain && !is_authenticated, "{len}");
        let wrong = opened(&dir.join("theirs.enc"), Key::Password(secret("wrong")), &Beside::default());
        assert_eq!(wrong.unwrap_err().kind(), ErrorKind::WrongKey);
    }
}

/// The Pythons that there are, each with its package `cryptography` or without, by what is said first to it.
fn pythons(dir: &Path) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let hidden = dir.join("hidden");
    std::fs::create_dir_all(hidden.join("cryptography")).unwrap();
    std::fs::write(hidden.join("cryptography/__init__.py"), "raise ImportError('hidden')").unwrap();
    found.push(("python3", format!("import sys; sys.path.insert(0, {hidden:?})\n")));
    let has_package = |python: &&str| {
        Path::new(python).exists() && run(dir, python, &["-c", "import cryptography"], "").0
            || *python == "python3" && run(dir, python, &["-c", "import cryptography"], "").0
    };
    match ["python3", "/usr/bin/python3"].into_iter().find(has_package) {
        Some(python) => found.push((python, String::new())),
        None => skip("the_program_in_the_document_opens_ours", "needs Python's package cryptography"),
    }
    found
}

/// Shows E2.
#[test]
fn the_program_in_the_document_opens_ours() {
    if !can_run("the_program_in_the_document_opens_ours", &["python3", "openssl"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let program = from_the_document("`aes-256-gcm`", "python");
    for (python, first) in pythons(dir) {
        std::fs::write(dir.join("open.py"), first + &program).unwrap();
        let open = |password: &str| run(dir, python, &["open.py", "F.tomo-backup", "plain"], &format!("{password}\n"));
        for len in LENS.into_iter().chain([0]) {
            let plain = if len == 0 { Vec::new() } else { plain(len) };
            let seal = Seal::Gcm { password: secret("correct hörse"), iterations: OPENSSL_ITERATIONS };
            let ours = sealed(&seal, &plain).0;
            std::fs::write(dir.join("F.tomo-backup"), &ours).unwrap();
            let (is_good, said) = open("correct hörse");
            assert!(is_good, "{python} {len}: {said}");
            assert!(std::fs::read(dir.join("plain")).unwrap() == plain, "{python} {len}");
            std::fs::remove_file(dir.join("plain")).unwrap();
            if len != 150_000 {
                continue;
            }
            assert!(!open("wrong").0);
            let mut changed = vec![[ours.as_slice(), b"x"].concat(), ours[..35 + 65_552].to_vec()];
            changed.push([&ours[..ours.len() - 1], &[ours[ours.len() - 1] ^ 1]].concat());
            for changed in changed {
                std::fs::write(dir.join("F.tomo-backup"), &changed).unwrap();
                let (is_good, said) = open("correct hörse");
                assert!(!is_good && said.contains("damaged"), "{python} {len}: {said}");
            }
            assert!(!dir.join("plain").exists() && !dir.join("plain.part").exists());
        }
    }
}
