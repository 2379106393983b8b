//! The version of an application: found by what the configuration names, and
//! compared, so that a newer snapshot never goes under an older application.

use std::cmp::Ordering;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use lifeboat_format::path::shown;

use crate::config::{AppConfig, VersionFrom};
use crate::exec::Tool;
use crate::{Cancel, Error, ErrorKind, Result};

/// How long the program may take that is asked.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long the database may take that is asked.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of a file is looked at.
const FILE_MAX_BYTES: u64 = 4 << 10;

/// The version of `app` as it is now; `None` where nothing is said about it.
///
/// # Errors
/// When what is named does not answer; the message says why.
pub(crate) fn of(app: &AppConfig, cancel: &Cancel) -> Result<Option<String>> {
    let text = match &app.version {
        None => return Ok(None),
        Some(VersionFrom::Command(argv)) => {
            let tool = Tool::new(argv, TIMEOUT);
            let ended = tool.run(Some(cancel))?;
            if !ended.is_success() {
                return Err(Error::new(ErrorKind::Failed, format!("{}: {}", tool.line(), ended.describe())));
            }
            ended.said().to_owned()
        }
        Some(VersionFrom::File(path)) => first_line(path)?,
        Some(VersionFrom::Sql { db, query }) => {
            let databases = app.databases();
            let Some(database) = databases.get(db) else { return Ok(None) };
            database.value(query, QUERY_TIMEOUT, cancel)?.unwrap_or_default()
        }
    };
    find(&text).map(Some).ok_or_else(|| {
        let said: String = text.chars().take(80).collect();
        Error::new(ErrorKind::Failed, format!("`{}` holds no version", shown(said.as_bytes())))
    })
}

fn first_line(path: &Path) -> Result<String> {
    let mut text = String::new();
    let opened = std::fs::File::open(path).and_then(|file| file.take(FILE_MAX_BYTES).read_to_string(&mut text));
    opened.map_err(|error| lifeboat_store::Error::io("read", path, error))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// The first thing in `text` that looks like a version: it begins with a
/// digit, and is a word of its own or follows a `v`.
fn find(text: &str) -> Option<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || ".-+_".contains(c);
    let words = text.split(|c| !is_part(c)).map(|word| word.trim_matches(|c| ".-+_".contains(c)));
    let mut versions = words.map(|word| word.strip_prefix(['v', 'V']).unwrap_or(word));
    versions.find(|word| word.starts_with(|c: char| c.is_ascii_digit())).map(str::to_owned)
}

/// Which of two versions is the older. By numbers first; what follows a `-`
/// comes before the release, and a `+` means nothing (semver.org, 11).
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let parts = |version: &str| {
        let version = version.split('+').next().unwrap_or_default().to_owned();
        let (release, pre) = version
            .split_once('-')
            .map_or((version.clone(), None), |(release, pre)| (release.to_owned(), Some(pre.to_owned())));
        (release, pre)
    };
    let ((a, a_pre), (b, b_pre)) = (parts(a), parts(b));
    compare_dotted(&a, &b, true).then_with(|| match (a_pre, b_pre) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => compare_dotted(&a, &b, false),
    })
}

/// Part by part; in a release, a part that is missing is a zero.
fn compare_dotted(a: &str, b: &str, is_release: bool) -> Ordering {
    let split = |text: &str| text.split(['.', '_']).map(str::to_owned).collect::<Vec<_>>();
    let (mut a, mut b) = (split(a), split(b));
    if is_release {
        let longest = a.len().max(b.len());
        a.resize(longest, "0".to_owned());
        b.resize(longest, "0".to_owned());
    }
    let each = a.iter().zip(&b).map(|(a, b)| compare_part(a, b));
    each.fold(Ordering::Equal, Ordering::then).then(a.len().cmp(&b.len()))
}

fn compare_part(a: &str, b: &str) -> Ordering {
    let number = |text: &str| text.parse::<u64>().ok();
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => compare_letters_and_digits(a, b),
    }
}

/// `rc9` before `rc10`.
fn compare_letters_and_digits(a: &str, b: &str) -> Ordering {
    let parted = |text: &str| {
        let end = text.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        (text[..end].to_owned(), text[end..].parse::<u64>().ok())
    };
    parted(a).cmp(&parted(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows P7.
    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (text, version) in [
            ("nefia version v0.1.16 (linux/amd64)", "0.1.16"),
            ("nefia v0.1.16", "0.1.16"),
            ("aegisagent 2.0.0-rc.1+build.7\n", "2.0.0-rc.1+build.7"),
            ("20240617", "20240617"),
            ("Version: 3.", "3"),
        ] {
            assert_eq!(find(text).as_deref(), Some(version), "{text}");
        }
        assert_eq!(find("no version here"), None);
    }

    /// Shows P7.
    #[test]
    fn versions_are_compared_by_their_numbers() {
        let rising = [
            "0.1.9",
            "0.1.16",
            "0.2",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-beta",
            "1.0.0-rc9",
            "1.0.0-rc10",
            "1.0.0",
            "1.0.1",
            "1.10",
            "2",
            "20240617",
        ];
        for (at, a) in rising.iter().enumerate() {
            for (other, b) in rising.iter().enumerate() {
                assert_eq!(compare(a, b), at.cmp(&other), "{a} {b}");
            }
        }
        assert_eq!(compare("1.0", "1.0.0"), Ordering::Equal);
        assert_eq!(compare("1.0+a", "1.0+b"), Ordering::Equal);
    }
}
