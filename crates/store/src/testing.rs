//! What the tests of every crate share: looking for the programs a test
//! needs, and sampling long enumerations. Compiled with the feature `testing`.
//!
//! Both tell `./check` what happened by a line in a file below
//! `$LIFEBOAT_CHECK_DIR`, because a passing test's output is not shown.

use std::io::Write as _;
use std::path::PathBuf;

#[expect(clippy::disallowed_methods, reason = "tests are told by ./check through the environment")]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn tell_check(file: &str, line: &str) {
    let Some(dir) = setting("LIFEBOAT_CHECK_DIR") else { return };
    let opened = std::fs::OpenOptions::new().create(true).append(true).open(PathBuf::from(dir).join(file));
    if let Ok(mut file) = opened {
        // One write a line: lines of tests that run side by side do not mix.
        file.write_all(format!("{line}\n").as_bytes()).expect("the check directory is writable");
    }
}

/// Whether `program` is on the PATH.
fn installed(program: &str) -> bool {
    setting("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Whether the test `test` can run: every one of `programs` is installed.
///
/// A test that gets `false` returns at once; `./check` prints it as skipped,
/// and with `--no-skip` this panics instead.
///
/// # Panics
/// When a program is missing and skipping was forbidden.
#[must_use]
pub fn can_run(test: &str, programs: &[&str]) -> bool {
    let missing: Vec<&str> = programs.iter().copied().filter(|program| !installed(program)).collect();
    if missing.is_empty() {
        return true;
    }
    skip(test, &format!("needs {}", missing.join(", ")));
    false
}

/// Says that `test` is skipped because of `reason`.
///
/// # Panics
/// When skipping was forbidden (`./check --no-skip`).
pub fn skip(test: &str, reason: &str) {
    assert!(setting("LIFEBOAT_NO_SKIP").is_none(), "{test} may not be skipped here, but {reason}; run ./check --setup");
    tell_check("skipped", &format!("{test}: {reason}"));
}

/// Whether the tests run as root, as some faults need (mounts, owners, devices).
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The cases of a long enumeration that this run plays: all of `0..all` under
/// `scripts/sweep`, otherwise a tenth (at least `at_least`), drawn by
/// `$LIFEBOAT_SEED` (default 1). `./check` prints both counts.
#[must_use]
pub fn sweep(name: &str, all: usize, at_least: usize) -> Vec<usize> {
    sweep_some(name, all, (all / 10).max(at_least))
}

/// As [`sweep`], but `count` cases without `scripts/sweep`: where each takes seconds.
#[must_use]
pub fn sweep_some(name: &str, all: usize, count: usize) -> Vec<usize> {
    let cases = if setting("LIFEBOAT_SWEEP").is_some() {
        (0..all).collect()
    } else {
        let seed = setting("LIFEBOAT_SEED").and_then(|seed| seed.parse().ok()).unwrap_or(1);
        sample(all, count.min(all), seed)
    };
    tell_check("sweeps", &format!("{name}: {} of {all}", cases.len()));
    cases
}

/// `count` different numbers below `all`, in ascending order.
fn sample(all: usize, count: usize, seed: u64) -> Vec<usize> {
    let mut random = Random::new(seed);
    let mut left = count;
    (0..all)
        .filter(|case| {
            // Knuth, The Art of Computer Programming 2, 3.4.2, algorithm S.
            let take = random.below(all - case) < left;
            left -= usize::from(take);
            take
        })
        .collect()
}

/// A small reproducible random generator for test data (SplitMix64: Steele,
/// Lea and Flood, 2014). Not for secrets.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// A generator that yields the same numbers for the same `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`.
    ///
    /// # Panics
    /// When `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0, "no number is below zero");
        let bound = u64::try_from(bound).expect("usize fits u64");
        usize::try_from(self.next_u64() % bound).expect("below a usize")
    }

    /// `len` incompressible bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next_u64().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}
