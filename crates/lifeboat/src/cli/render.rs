//! Text for a person: sizes, durations, counts, paths.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

pub(super) use lifeboat_engine::app::size;
use lifeboat_engine::app::{LISTED_MAX, Outcome, Problems, shown, size_of};

/// Some file systems do not say how much room they have.
pub(super) fn free_space(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "unknown".to_owned(), size)
}

/// `33.3 MiB/s`.
pub(super) fn rate(bytes: u64, elapsed: Duration) -> String {
    // Below a millisecond the clock says nothing about the rate.
    rate_of(bytes as f64 / elapsed.as_secs_f64().max(0.001))
}

pub(super) fn rate_of(bytes_per_second: f64) -> String {
    size_of(bytes_per_second) + "/s"
}

/// `40 ms`, `1.2 s`, `3 min 12 s`, `2 h 5 min`.
pub(super) fn duration(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    match seconds {
        0 => format!("{} ms", elapsed.as_millis()),
        1..60 => format!("{:.1} s", elapsed.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// `2026-02-24 03:00`, in the host's time zone.
pub(super) fn moment(moment: jiff::Timestamp) -> String {
    moment.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string()
}

/// How long ago that was: `40 s`, `3 h`, `12 d`.
pub(super) fn age(moment: jiff::Timestamp) -> String {
    let elapsed = std::time::SystemTime::from(moment).elapsed().unwrap_or_default().as_secs();
    match elapsed {
        0..120 => format!("{elapsed} s"),
        120..7200 => format!("{} min", elapsed / 60),
        7200..172_800 => format!("{} h", elapsed / 3600),
        _ => format!("{} d", elapsed / 86_400),
    }
}

/// The first 8 digits of an id.
pub(super) fn short_id(id: Option<&str>) -> &str {
    id.map_or("-", |id| id.get(..8).unwrap_or(id))
}

/// How a backup ended, in a word.
pub(super) fn outcome(outcome: Option<Outcome>) -> &'static str {
    match outcome {
        Some(Outcome::Good) => "good",
        Some(Outcome::Partial) => "partial",
        Some(Outcome::Scope) => "scope",
        None => "unknown",
    }
}

/// `1 file`, `8 files`.
pub(super) fn count(number: u64, noun: &str) -> String {
    match (number, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        _ => format!("{number} {noun}s"),
    }
}

/// A path on one line.
pub(super) fn path(path: &Path) -> String {
    shown(path.as_os_str().as_bytes())
}

/// `path` as seen from `dir`, where it lies below that.
pub(super) fn path_from<'a>(path: &'a Path, dir: &Path) -> &'a Path {
    path.strip_prefix(dir).unwrap_or(path)
}

/// A path as a shell takes it, on one line.
pub(super) fn shell_path(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    let shown = shown(bytes);
    if shown.as_bytes() != bytes {
        // What is escaped is escaped as in bash's $'...'.
        return format!("$'{}'", shown.replace('\'', "\\'"));
    }
    if !shown.is_empty() && shown.chars().all(|c| c.is_alphanumeric() || "/._-+=:@%,".contains(c)) {
        return shown;
    }
    format!("'{}'", shown.replace('\'', "'\\''"))
}

/// `1 unreadable, 2 vanished`; of which notes are only told apart by their word.
pub(super) fn problems(problems: &Problems) -> Option<String> {
    if problems.counts.is_empty() {
        return None;
    }
    let total: u64 = problems.counts.values().sum();
    let more = if total > LISTED_MAX as u64 { format!(" (the first {LISTED_MAX} are listed)") } else { String::new() };
    Some(by_class(&problems.counts) + &more)
}

fn by_class(counts: &BTreeMap<&'static str, u64>) -> String {
    let parts: Vec<String> = counts.iter().map(|(class, count)| format!("{count} {class}")).collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units_at_most() {
        let shown = [0.04, 1.25, 59.9, 60.0, 192.0, 7500.0].map(|seconds| duration(Duration::from_secs_f64(seconds)));
        assert_eq!(shown, ["40 ms", "1.2 s", "59.9 s", "1 min 0 s", "3 min 12 s", "2 h 5 min"]);
    }

    #[test]
    fn one_thing_is_not_several() {
        assert_eq!([count(0, "file"), count(1, "file"), count(8, "file")], ["0 files", "1 file", "8 files"]);
        assert_eq!([count(1, "entry"), count(2, "entry")], ["1 entry", "2 entries"]);
    }

    #[test]
    fn a_path_can_be_pasted_into_a_shell() {
        let shown = ["a/b-1.tar.zst", "a b", "it's", "a\nb'c", ""].map(|path| shell_path(Path::new(path)));
        assert_eq!(shown, ["a/b-1.tar.zst", "'a b'", "'it'\\''s'", "$'a\\nb\\'c'", "''"]);
    }
}
