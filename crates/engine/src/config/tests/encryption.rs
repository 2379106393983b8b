//! The rules of `encryption`, and what a sound one comes to.

use lifeboat_format::envelope::Envelope;

use super::*;

const RECIPIENT: &str = "age1pv2m283ewuqvmv8grw7ps6q37tfdnae9elsf24exphgw4sdzccrq87j8nv";

fn with(encryption: &str) -> String {
    app(&format!("    backup_dir: /backups\n    encryption: {{ {encryption} }}\n"))
}

/// Shows E1, E3.
#[test]
fn a_mistake_in_how_archives_are_encrypted_is_an_error_with_its_place() {
    for (encryption, expected) in [
        ("envelope: gpg", "5:29: unknown envelope `gpg`, expected one of: age, openssl, aes-256-gcm"),
        ("envelope: opnssl", "5:29: unknown envelope `opnssl` (did you mean `openssl`?)"),
        ("envelope: openssl", "5:17: the key `key_file` is missing, expected it for the envelope `openssl`"),
        ("key_file: /k", "5:29: `key_file` belongs to the envelope `openssl`, not to `age`"),
        (
            "envelope: aes-256-gcm, key_file: /k",
            "5:52: `key_file` belongs to the envelope `openssl`, not to `aes-256-gcm`",
        ),
        (
            "envelope: openssl, key_file: /k, identity_file: /i",
            "5:67: `identity_file` belongs to the envelope `age`, not to `openssl`",
        ),
        (
            "envelope: openssl, key_file: /k, recipients: [x]",
            "5:65: `recipients` belongs to the envelope `age`, not to `openssl`",
        ),
        (
            "envelope: aes-256-gcm, recipients_file: /r",
            "5:59: `recipients_file` belongs to the envelope `age`, not to `aes-256-gcm`",
        ),
        (
            "envelope: openssl, key_file: /k, password_file: /p",
            "5:67: `openssl` takes no password, which could be found out, expected `key_file`",
        ),
        ("recipients_file: /r, password_env: P", "5:54: there are recipients too, expected either them or a password"),
        ("recipients: [age1x]", "5:32: `age1x` is no recipient of age, expected `age1…`"),
        ("password_file: /p, password_env: P", "5:52: the password is given twice, expected one of the ways to it"),
        ("password_file: p", "5:34: `p` is no absolute path"),
        ("password_command: []", "5:37: the command is empty"),
        ("password_command: [./tell]", "5:37: `./tell` is a relative path"),
        ("iterations: 200000", "5:31: `age` has none, expected them of `openssl` or `aes-256-gcm`"),
        ("envelope: aes-256-gcm, iterations: 99999", "5:54: 99999 is out of range, expected 100000 to 10000000"),
        ("envelope: aes-256-gcm, iterations: 10000001", "5:54: 10000001 is out of range"),
        (
            "identity_file: /backups/id",
            "5:34: `/backups/id` lies where the backups do (/backups), expected a place away",
        ),
        ("password_file: /backups/p", "5:34: `/backups/p` lies where the backups do (/backups)"),
        ("envelope: openssl, key_file: /backups/x/k", "5:48: `/backups/x/k` lies where the backups do (/backups)"),
        ("old_key_files: [/k, /backups/k]", "5:39: `/backups/k` lies where the backups do (/backups)"),
        ("password: hidden", "5:19: unknown key `password`"),
    ] {
        is_refused(&with(encryption), expected);
    }
    // What is a secret is not shown.
    let error = load(&with("recipients: [AGE-SECRET-KEY-1XYZ]")).map(drop).unwrap_err();
    assert!(error.what().contains(":5:32: this is an identity, which is secret; expected its recipient"), "{error}");
    assert!(!error.what().contains("1XYZ"), "{error}");
    // Nobody's destination is a place for a key, whether or not the app goes there.
    let other = "destinations: { cloud: { url: /cloud } }\n";
    is_refused(
        &format!("{other}{}", with("identity_file: /cloud/id")),
        "6:34: `/cloud/id` lies where the backups do (/cloud)",
    );
    is_refused(
        &format!("destinations: {{ d: {{ url: /x, encryption: requred }} }}\n{}", app("")),
        "1:43: unknown value `requred` (did you mean `required`?), expected one of: required",
    );
}

/// Shows E1, E3.
#[test]
fn a_sound_one_has_one_way_to_its_key() {
    let encryption = |text: &str| load(&with(text)).unwrap().apps["web"].encryption.clone().unwrap();
    let plain = encryption("");
    assert_eq!((plain.envelope, plain.is_enabled, &plain.password), (Envelope::Age, true, &None));
    assert!(!encryption("enabled: false").is_enabled);
    let openssl = encryption("envelope: openssl, key_file: /k, old_key_files: [/a, /b], iterations: 100000");
    assert_eq!((openssl.envelope, openssl.key_file.as_deref()), (Envelope::Openssl, Some(Path::new("/k"))));
    assert_eq!((openssl.iterations, openssl.old_key_files.len()), (Some(100_000), 2));
    let found = encryption(&format!("recipients: [{RECIPIENT}], recipients_file: /r, identity_file: /backupsx/i"));
    assert_eq!((found.recipients[0].to_string().as_str(), found.recipients_file.is_some()), (RECIPIENT, true));
    for (text, expected) in [
        ("password_file: /p", SecretFrom::File("/p".into())),
        ("password_command: [pass, show, web]", SecretFrom::Command(words("pass show web"))),
        ("password_env: P", SecretFrom::Env("P".to_owned())),
        ("envelope: aes-256-gcm, password_credential: web", SecretFrom::Credential("web".to_owned())),
    ] {
        assert_eq!(encryption(text).password, Some(expected), "{text}");
    }
    // All of it is left out of backups.
    let text = with("envelope: openssl, key_file: /k, old_key_files: [/a]");
    let config = load(&text).unwrap();
    for file in ["/k", "/a"] {
        assert!(config.secret_files().contains(&PathBuf::from(file)), "{file}");
    }
    let text = format!("destinations: {{ d: {{ url: /x, encryption: required }}, e: {{ url: /y }} }}\n{}", app(""));
    let config = load(&text).unwrap();
    assert!(config.destinations["d"].wants_encrypted && !config.destinations["e"].wants_encrypted);
}
