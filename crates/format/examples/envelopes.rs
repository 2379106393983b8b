//! How fast the envelopes are, alone: `cargo run --release --example envelopes [DIR] [MB]`.
//! DIR is best on tmpfs. Prints MB/s of sealing, opening and reading, the best of three.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "this is a measurement for people")]

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use lifeboat_format::envelope::{self, Beside, Identity, Key, OPENSSL_ITERATIONS, Seal, Secret};
use lifeboat_store::Cancel;
use lifeboat_store::durable::Unnamed;

const STEP_BYTES: usize = 1 << 20;

fn plain(dir: &Path, megabytes: u64) -> Unnamed {
    let mut file = Unnamed::create(dir).unwrap();
    let mut step = vec![0; STEP_BYTES];
    getrandom::fill(&mut step).unwrap();
    step[..4].copy_from_slice(&[0x28, 0xb5, 0x2f, 0xfd]);
    while file.len() < megabytes * 1_000_000 {
        file.append(&step).unwrap();
    }
    file
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().unwrap_or_else(|| ".".to_owned());
    let dir = Path::new(&dir);
    let megabytes = arguments.next().map_or(500, |text| text.parse().unwrap());
    let only = arguments.next();
    let identity = Identity::generate();
    let secret = Secret::new(b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_vec());
    let password = Key::Password(secret.clone());
    let seals = [
        ("age", Seal::Age(vec![identity.recipient()]), Key::Identities(vec![identity])),
        ("openssl", Seal::Openssl { key: secret.clone(), iterations: OPENSSL_ITERATIONS }, password.clone()),
        ("aes-256-gcm", Seal::Gcm { password: secret, iterations: OPENSSL_ITERATIONS }, password),
    ];
    println!("| envelope | seal MB/s | open s | read MB/s |\n| --- | ---: | ---: | ---: |");
    for (name, seal, key) in seals {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let mut best = [0.0_f64, f64::MAX, 0.0];
        for _ in 0..3 {
            let plain = plain(dir, megabytes);
            let size = plain.len() as f64 / 1e6;
            let begun = Instant::now();
            let (sealed, facts) = seal.seal(plain, dir, &Cancel::new()).unwrap();
            best[0] = best[0].max(size / begun.elapsed().as_secs_f64());
            let beside = Beside { hmac: facts.hmac, iterations: facts.iterations, key_id: facts.key_id };
            let begun = Instant::now();
            let file = Arc::new(sealed.file().try_clone().unwrap());
            let sealed = envelope::open(file, Path::new("it"), std::slice::from_ref(&key), &beside, &Cancel::new());
            let sealed = Arc::new(sealed.unwrap());
            best[1] = best[1].min(begun.elapsed().as_secs_f64());
            let begun = Instant::now();
            let (mut reader, mut step) = (sealed.reader().unwrap(), vec![0; STEP_BYTES]);
            while reader.read(&mut step).unwrap() > 0 {}
            best[2] = best[2].max(size / begun.elapsed().as_secs_f64());
        }
        println!("| {name} | {:.0} | {:.2} | {:.0} |", best[0], best[1], best[2]);
    }
}
