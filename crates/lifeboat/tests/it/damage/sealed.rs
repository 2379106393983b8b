//! The hostile archives inside each envelope, made with the right key: what an
//! archive asks for is no better because it is encrypted.

use std::path::Path;

use lifeboat_format::envelope::{Envelope, Identity, Seal, Secret};
use lifeboat_store::testing::sweep_some;

use super::{assert_untouched, hostile, world};
use crate::env::TestEnv;
use crate::fidelity::snapshot;

/// How many of them are played in each envelope where not all are.
const SOME: usize = 60;
const PASSWORD: &str = "correct horse";

/// Plays them as they were sealed by `seal`; `key` is the option that opens them.
fn play(seal: &Seal, key: &[&str], env: &TestEnv) {
    let before = snapshot(&env.path("world"));
    let all = hostile::all(&env.path("world/escaped").display().to_string());
    let name = format!("hostile archives in {}", seal.envelope().name());
    let mut wrong = Vec::new();
    for number in sweep_some(&name, all.len(), SOME) {
        let (what, bytes, codes) = &all[number];
        let mut writer = seal.begin(Vec::new()).expect("the secret is fit");
        std::io::Write::write_all(&mut writer, bytes).expect("memory takes it");
        let (sealed, facts) = writer.finish().expect("memory takes it");
        env.write("evil", sealed);
        if let Some(hmac) = facts.hmac {
            env.write("evil.hmac", hmac);
        }
        for command in [&["restore", "evil", "--to", "world/to"][..], &["backup", "verify", "evil"]] {
            let run = env.lifeboat(command.iter().chain(key));
            let code = run.exit_code();
            let said = run.code(code).stderr;
            let is_right = if command[0] == "restore" { codes.contains(&code) } else { code <= 1 };
            if !is_right || said.contains("panicked") {
                wrong.push(format!("{what}: {command:?} ended with {code}, not {codes:?}: {said}"));
            }
            assert_untouched(&before, env, what);
        }
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

fn secret() -> Secret {
    Secret::new(PASSWORD.as_bytes().to_vec())
}

fn with_secret() -> TestEnv {
    let env = world();
    env.write("secret", PASSWORD);
    env.set_mode("secret", 0o600);
    env
}

/// Shows E11.
#[test]
fn a_hostile_archive_is_refused_inside_age() {
    let (env, identity) = (with_secret(), Identity::generate());
    env.write("identity", identity.line().expose());
    env.set_mode("identity", 0o600);
    let seal = Seal::Age(vec![identity.recipient()]);
    assert_eq!(seal.envelope(), Envelope::Age);
    play(&seal, &["--identity-file", "identity"], &env);
}

/// Shows E11.
#[test]
fn a_hostile_archive_is_refused_inside_openssl() {
    let env = with_secret();
    play(&Seal::Openssl { key: secret(), iterations: 100_000 }, &["--key-file", "secret"], &env);
    assert!(Path::new(&env.path("evil.hmac")).exists());
}

/// Shows E11.
#[test]
fn a_hostile_archive_is_refused_inside_aes_256_gcm() {
    let env = with_secret();
    play(&Seal::Gcm { password: secret(), iterations: 100_000 }, &["--password-file", "secret"], &env);
}
