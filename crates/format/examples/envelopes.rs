//! How fast the envelopes are, alone: `cargo run --release --example envelopes [DIR] [MB]`.
//! DIR is best on tmpfs. Prints MB/s of sealing and reading, and how long it takes to open, the best of three; then
//! the same by the time that this process had a core, which says more on a machine with other work to do.
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

/// Seconds since the beginning, and seconds on a core.
#[derive(Clone, Copy)]
struct Now(Instant, f64);

impl Now {
    fn new() -> Self {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        let nanos: u64 = text.split(' ').next().unwrap().parse().unwrap();
        Self(Instant::now(), nanos as f64 / 1e9)
    }

    fn passed(self) -> [f64; 2] {
        let now = Self::new();
        [(now.0 - self.0).as_secs_f64(), now.1 - self.1]
    }
}

fn least(all: &mut [f64; 2], new: [f64; 2]) {
    all.iter_mut().zip(new).for_each(|(all, new)| *all = all.min(new));
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
    println!("| envelope | seal MB/s | open s | read MB/s | seal MB/s of CPU | open s of CPU | read MB/s of CPU |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (name, seal, key) in seals {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let [mut sealing, mut opening, mut reading] = [[f64::MAX; 2]; 3];
        for _ in 0..3 {
            let plain = plain(dir, megabytes);
            let begun = Now::new();
            let (sealed, facts) = seal.seal(plain, dir, &Cancel::new()).unwrap();
            least(&mut sealing, begun.passed());
            let beside = Beside { hmac: facts.hmac, iterations: facts.iterations, key_id: facts.key_id };
            let begun = Now::new();
            let file = Arc::new(sealed.file().try_clone().unwrap());
            let sealed = envelope::open(file, Path::new("it"), std::slice::from_ref(&key), &beside, &Cancel::new());
            let sealed = Arc::new(sealed.unwrap());
            least(&mut opening, begun.passed());
            let begun = Now::new();
            let (mut reader, mut step) = (sealed.reader().unwrap(), vec![0; STEP_BYTES]);
            while reader.read(&mut step).unwrap() > 0 {}
            least(&mut reading, begun.passed());
        }
        let rate = |seconds: f64| megabytes as f64 / seconds;
        print!("| {name}");
        for at in [0, 1] {
            print!(" | {:.0} | {:.2} | {:.0}", rate(sealing[at]), opening[at], rate(reading[at]));
        }
        println!(" |");
    }
}
