//! Which single values make sense: names, paths, patterns, commands, times.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ignore::gitignore::GitignoreBuilder;
use lifeboat_format::path::shown;
use serde_saphyr::Location;

use super::Checked;
use crate::config::duration;
use crate::config::raw::{At, Wrong};
use crate::health;

const NAME_MAX_BYTES: usize = 64;
const NAME_EXPECTED: &str =
    "expected letters, digits, `-`, `_` and `.`, a letter or digit first, at most 64 bytes of them";

/// What systemd calls its kinds of units, of those that can be stopped and started.
const UNIT_KINDS: &[&str] =
    &["service", "socket", "target", "timer", "path", "mount", "automount", "swap", "slice", "scope"];

pub(super) fn quoted(text: &str) -> String {
    format!("`{}`", shown(text.as_bytes()))
}

/// Which one of the kinds is there, by its number; none or several is a mistake.
pub(super) fn kind(place: Location, thing: &str, kinds: &[(&str, bool)]) -> Checked<usize> {
    let present: Vec<usize> = (0..kinds.len()).filter(|kind| kinds[*kind].1).collect();
    if let [kind] = present[..] {
        return Ok(kind);
    }
    let names: Vec<String> = kinds.iter().map(|(name, _)| format!("`{name}`")).collect();
    let expected = match &names[..] {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        names => names.join(", "),
    };
    let count = match present.len() {
        0 => "no kind",
        2 => "two kinds",
        _ => "several kinds",
    };
    Err(Wrong::at(place, format!("{thing} has {count}, expected {expected}")))
}

/// A name that can be a part of a path and is never taken for an option.
pub(super) fn name(name: At<String>) -> Checked<At<String>> {
    if is_name(&name.value) {
        return Ok(name);
    }
    Err(Wrong::at(name.place, format!("the name {} cannot be used, {NAME_EXPECTED}", quoted(&name.value))))
}

/// Whether `text` can be the name of an app, a source, a destination or a service.
pub(in crate::config) fn is_name(text: &str) -> bool {
    let is_plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    text.starts_with(char::is_alphanumeric) && text.chars().all(is_plain) && text.len() <= NAME_MAX_BYTES
}

pub(super) fn absolute(path: At<String>) -> Checked<PathBuf> {
    if !Path::new(&path.value).is_absolute() || path.value.contains('\0') {
        let what = format!("{} is no absolute path, expected one that begins with `/`", quoted(&path.value));
        return Err(Wrong::at(path.place, what));
    }
    Ok(path.value.into())
}

/// An absolute path that two readers cannot understand differently.
pub(super) fn exact(path: At<String>) -> Checked<PathBuf> {
    let place = path.place;
    let path = absolute(path)?;
    if path.components().any(|component| component == std::path::Component::ParentDir) {
        let what = format!("{} holds `..`, expected the path itself", quoted(&path.to_string_lossy()));
        return Err(Wrong::at(place, what));
    }
    Ok(path.components().collect())
}

/// An absolute path, or `.`.
pub(super) fn directory(path: At<String>) -> Checked<PathBuf> {
    if path.value == "." {
        return Ok(path.value.into());
    }
    if !Path::new(&path.value).is_absolute() || path.value.contains('\0') {
        let what = format!(
            "{} is no such directory, expected an absolute path, or `.` for the current one",
            quoted(&path.value)
        );
        return Err(Wrong::at(path.place, what));
    }
    Ok(path.value.into())
}

pub(super) fn pattern(pattern: At<String>) -> Checked<String> {
    if is_pattern(&pattern.value) {
        return Ok(pattern.value);
    }
    let what = format!("the pattern {} makes no sense, expected gitignore syntax", quoted(&pattern.value));
    Err(Wrong::at(pattern.place, what))
}

pub(super) fn is_pattern(text: &str) -> bool {
    let mut builder = GitignoreBuilder::new("");
    let added = builder.add_line(None, text).map(|_| ()).and_then(|()| builder.build().map(|_| ()));
    added.is_ok() && !text.is_empty()
}

/// The name of a table, perhaps with `*`.
pub(super) fn table(table: At<String>) -> Checked<String> {
    if table.value.is_empty() || table.value.chars().any(char::is_control) {
        let what = format!("{} is no table, expected a name, which may hold `*`", quoted(&table.value));
        return Err(Wrong::at(table.place, what));
    }
    Ok(table.value)
}

/// A time in which something must happen, so more than none.
pub(super) fn period(text: Option<At<String>>, default: Duration) -> Checked<Duration> {
    let Some(text) = text else { return Ok(default) };
    match duration::parse(&text.value) {
        Some(length) if !length.is_zero() => Ok(length),
        Some(_) => Err(Wrong::at(text.place, format!("{} is no time at all, expected more", quoted(&text.value)))),
        None => {
            let what = format!("{} is no time, {}", quoted(&text.value), duration::EXPECTED);
            Err(Wrong::at(text.place, what))
        }
    }
}

/// A program and its arguments. It does not start in the folder of the
/// configuration, so its path is absolute or it is found on PATH.
pub(super) fn argv(argv: At<Vec<String>>) -> Checked<Vec<String>> {
    let wrong = |what: String| Err(Wrong::at(argv.place, what));
    let program = argv.value.first().map_or("", String::as_str);
    if program.is_empty() {
        return wrong("the command is empty, expected a program and its arguments".to_owned());
    }
    if program.contains('/') && !program.starts_with('/') {
        return wrong(format!("{} is a relative path, expected a full path or a name alone", quoted(program)));
    }
    if argv.value.iter().any(|word| word.contains('\0')) {
        return wrong("the command holds a NUL, expected text".to_owned());
    }
    Ok(argv.value)
}

/// A unit by its full name: it is a part of a path, and an argument.
pub(super) fn unit(unit: At<String>) -> Checked<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let text = &unit.value;
    let has_kind = text.rsplit_once('.').is_some_and(|(name, kind)| !name.is_empty() && UNIT_KINDS.contains(&kind));
    if !has_kind || !text.chars().all(is_plain) || text.starts_with(['-', '.']) || text.len() > 255 {
        let what = format!("{} is no unit, expected its full name, such as web.service", quoted(text));
        return Err(Wrong::at(unit.place, what));
    }
    Ok(unit.value)
}

pub(super) fn url(url: At<String>) -> Checked<String> {
    if !health::is_usable(&url.value) {
        let what = format!("`{}` is no URL to ask, {}", health::without_password(&url.value), health::URL_EXPECTED);
        return Err(Wrong::at(url.place, what));
    }
    Ok(url.value)
}

pub(super) fn status(status: Option<At<u16>>) -> Checked<u16> {
    match status {
        Some(status) if !(100..=599).contains(&status.value) => {
            let what = format!("{} is no HTTP status, expected 100 to 599", status.value);
            Err(Wrong::at(status.place, what))
        }
        status => Ok(status.map_or(health::STATUS, |status| status.value)),
    }
}
