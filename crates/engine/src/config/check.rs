//! The rules of `lifeboat.yaml` beyond its shape: which names, paths, commands
//! and times make sense, and what refers to what. No I/O: whether a root is
//! there is found when it is backed up.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ignore::gitignore::GitignoreBuilder;
use lifeboat_format::path::shown;
use serde_saphyr::{Location, Spanned};

use super::raw::{self, Wrong};
use super::{AppConfig, Destination, FilesSource, Keep, Source, duration};
use crate::health::{self, HealthCheck};
use crate::services::{Reload, Service, ServiceKind};

/// How long a command of a service may take.
const SERVICE_TIMEOUT: Duration = Duration::from_secs(90);
/// How long services may be frozen.
const FREEZE_MAX: Duration = Duration::from_secs(5 * 60);
const NAME_MAX_BYTES: usize = 64;
const NAME_EXPECTED: &str =
    "expected letters, digits, `-`, `_` and `.`, a letter or digit first, at most 64 bytes of them";

/// Names that an app cannot have: the command line would take them for a command.
const COMMANDS: &[&str] = &[
    "audit",
    "backup",
    "cat",
    "check",
    "completions",
    "config",
    "copy",
    "diff",
    "doctor",
    "drill",
    "dump",
    "export-query",
    "find",
    "forget",
    "help",
    "init",
    "key",
    "kit",
    "ls",
    "man",
    "mcp",
    "monitor",
    "presets",
    "prune",
    "recover",
    "repair",
    "restore",
    "runs",
    "schedule",
    "serve",
    "services",
    "snapshots",
    "stats",
    "status",
    "sync",
    "tag",
    "unlock",
];

/// What systemd calls its kinds of units, of those that can be stopped and started.
const UNIT_KINDS: &[&str] =
    &["service", "socket", "target", "timer", "path", "mount", "automount", "swap", "slice", "scope"];

type Checked<T> = Result<T, Wrong>;

/// The data folder and the apps.
pub(super) fn config(
    file: raw::File,
) -> Checked<(Option<PathBuf>, BTreeMap<String, AppConfig>, BTreeMap<String, Destination>)> {
    let data_dir = file.data_dir.map(absolute).transpose()?;
    if file.apps.value.0.is_empty() {
        return Err(Wrong::at(file.apps.referenced, "there is no app, expected at least one"));
    }
    let mut apps = BTreeMap::new();
    for (name, app) in file.apps.value.0 {
        let name = self::name(name)?;
        if COMMANDS.contains(&name.value.as_str()) {
            let what = format!(
                "an app cannot be called `{}`, that is a command of Lifeboat; expected another name",
                name.value
            );
            return Err(Wrong::at(name.referenced, what));
        }
        apps.insert(name.value.clone(), self::app(name.value, app)?);
    }
    Ok((data_dir, apps, BTreeMap::new()))
}

fn app(name: String, app: raw::App) -> Checked<AppConfig> {
    if app.sources.value.0.is_empty() {
        return Err(Wrong::at(app.sources.referenced, "there is no source, expected at least one"));
    }
    let mut sources = BTreeMap::new();
    for (name, source) in app.sources.value.0 {
        sources.insert(self::name(name)?.value, Source::Files(files(source.files)?));
    }
    let (services, reload) = self::services(app.services)?;
    let health = app.health.into_iter().map(self::health).collect::<Checked<_>>()?;
    let keep_replaced = match app.keep_replaced {
        Some(text) => text.value.parse().map_err(|error: crate::Error| Wrong::at(text.referenced, error.what()))?,
        None => Keep::default(),
    };
    Ok(AppConfig {
        name,
        sources,
        services,
        reload,
        freeze: Vec::new(),
        freeze_max: FREEZE_MAX,
        health,
        after_restore: Vec::new(),
        version: None,
        required: Vec::new(),
        parts: BTreeMap::new(),
        archive_name: None,
        compression: None,
        compression_level: None,
        backup_dir: None,
        exclude_tables: Vec::new(),
        destinations: Vec::new(),
        verify_on_create: true,
        keep_replaced,
    })
}

fn files(files: raw::Files) -> Checked<FilesSource> {
    let patterns = |patterns: Vec<Spanned<String>>| patterns.into_iter().map(pattern).collect::<Checked<Vec<_>>>();
    Ok(FilesSource {
        root: absolute(files.root)?,
        include: patterns(files.include)?,
        exclude: patterns(files.exclude)?,
        at: None,
        stop: Vec::new(),
    })
}

fn pattern(pattern: Spanned<String>) -> Checked<String> {
    let mut builder = GitignoreBuilder::new("");
    let added = builder.add_line(None, &pattern.value).map(|_| ()).and_then(|()| builder.build().map(|_| ()));
    match added {
        Ok(()) if !pattern.value.is_empty() => Ok(pattern.value),
        _ => {
            let what = format!("the pattern {} makes no sense, expected gitignore syntax", quoted(&pattern.value));
            Err(Wrong::at(pattern.referenced, what))
        }
    }
}

/// Those of `restore_stop`, in that order, and the reload.
fn services(services: raw::Services) -> Checked<(Vec<Service>, Option<Reload>)> {
    let timeout = period(services.timeout, SERVICE_TIMEOUT)?;
    let reload = services.reload.map(|reload| self::reload(reload, timeout)).transpose()?;
    let mut declared: Vec<Service> = Vec::new();
    for unit in services.units {
        let (place, unit) = (unit.referenced, self::unit(unit)?);
        declare(&mut declared, place, Service { name: unit.clone(), kind: ServiceKind::Unit { unit }, timeout })?;
    }
    for (name, commands) in services.commands.0 {
        let name = self::name(name)?;
        let kind = ServiceKind::Commands {
            stop: argv(commands.stop)?,
            start: argv(commands.start)?,
            status: commands.status.map(argv).transpose()?,
        };
        declare(&mut declared, name.referenced, Service { name: name.value, kind, timeout })?;
    }
    let Some(stopped) = services.restore_stop else { return Ok((declared, reload)) };
    Ok((chosen(&declared, stopped)?, reload))
}

fn declare(declared: &mut Vec<Service>, place: Location, service: Service) -> Checked<()> {
    if declared.iter().any(|other| other.name == service.name) {
        let what = format!("there are two services {}, expected one of each name", quoted(&service.name));
        return Err(Wrong::at(place, what));
    }
    declared.push(service);
    Ok(())
}

fn chosen(declared: &[Service], names: Vec<Spanned<String>>) -> Checked<Vec<Service>> {
    let mut seen = BTreeSet::new();
    let mut chosen = Vec::new();
    for name in names {
        let Some(service) = declared.iter().find(|service| service.name == name.value) else {
            let known: Vec<&str> = declared.iter().map(|service| service.name.as_str()).collect();
            return Err(Wrong::at(name.referenced, raw::unknown("service", &name.value, &known)));
        };
        if !seen.insert(&service.name) {
            let what = format!("{} stands twice, expected each service once", quoted(&name.value));
            return Err(Wrong::at(name.referenced, what));
        }
        chosen.push(service.clone());
    }
    Ok(chosen)
}

fn reload(reload: raw::Reload, timeout: Duration) -> Checked<Reload> {
    Ok(Reload { run: argv(reload.run)?, warn_only: reload.on_failure == raw::OnFailure::Warn, timeout })
}

fn health(check: Spanned<raw::Health>) -> Checked<HealthCheck> {
    let (place, check) = (check.referenced, check.value);
    let timeout = period(check.timeout, health::TIMEOUT)?;
    let every = period(check.every, health::EVERY)?;
    match (check.http, check.command, check.status) {
        (Some(url), None, status) => {
            Ok(HealthCheck::Http { url: self::url(url)?, status: self::status(status)?, timeout, every })
        }
        (None, Some(command), None) => Ok(HealthCheck::Command { command: argv(command)?, timeout, every }),
        (None, Some(_), Some(status)) => {
            Err(Wrong::at(status.referenced, "a command has no status: exit code 0 is expected of it"))
        }
        (Some(_), Some(_), _) => Err(Wrong::at(place, "a health check has two kinds, expected `http` or `command`")),
        (None, None, _) => Err(Wrong::at(place, "a health check has no kind, expected `http` or `command`")),
    }
}

fn url(url: Spanned<String>) -> Checked<String> {
    if !health::is_usable(&url.value) {
        let what = format!("`{}` is no URL to ask, {}", health::without_password(&url.value), health::URL_EXPECTED);
        return Err(Wrong::at(url.referenced, what));
    }
    Ok(url.value)
}

fn status(status: Option<Spanned<u16>>) -> Checked<u16> {
    match status {
        Some(status) if !(100..=599).contains(&status.value) => {
            let what = format!("{} is no HTTP status, expected 100 to 599", status.value);
            Err(Wrong::at(status.referenced, what))
        }
        status => Ok(status.map_or(health::STATUS, |status| status.value)),
    }
}

/// A time in which something must happen, so more than none.
fn period(text: Option<Spanned<String>>, default: Duration) -> Checked<Duration> {
    let Some(text) = text else { return Ok(default) };
    match duration::parse(&text.value) {
        Some(length) if !length.is_zero() => Ok(length),
        Some(_) => Err(Wrong::at(text.referenced, format!("{} is no time at all, expected more", quoted(&text.value)))),
        None => {
            let what = format!("{} is no time, {}", quoted(&text.value), duration::EXPECTED);
            Err(Wrong::at(text.referenced, what))
        }
    }
}

/// A program and its arguments. It does not start in the folder of the
/// configuration, so its path is absolute or it is found on PATH.
fn argv(argv: Spanned<Vec<String>>) -> Checked<Vec<String>> {
    let wrong = |what: String| Err(Wrong::at(argv.referenced, what));
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

fn absolute(path: Spanned<String>) -> Checked<PathBuf> {
    if !Path::new(&path.value).is_absolute() || path.value.contains('\0') {
        let what = format!("{} is no absolute path, expected one that begins with `/`", quoted(&path.value));
        return Err(Wrong::at(path.referenced, what));
    }
    Ok(path.value.into())
}

/// A name that can be a part of a path and is never taken for an option.
fn name(name: Spanned<String>) -> Checked<Spanned<String>> {
    let is_plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    let text = &name.value;
    if !text.starts_with(char::is_alphanumeric) || !text.chars().all(is_plain) || text.len() > NAME_MAX_BYTES {
        return Err(Wrong::at(name.referenced, format!("the name {} cannot be used, {NAME_EXPECTED}", quoted(text))));
    }
    Ok(name)
}

/// A unit by its full name: it is a part of a path, and an argument.
fn unit(unit: Spanned<String>) -> Checked<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let text = &unit.value;
    let has_kind = text.rsplit_once('.').is_some_and(|(name, kind)| !name.is_empty() && UNIT_KINDS.contains(&kind));
    if !has_kind || !text.chars().all(is_plain) || text.starts_with(['-', '.']) || text.len() > 255 {
        let what = format!("{} is no unit, expected its full name, such as web.service", quoted(text));
        return Err(Wrong::at(unit.referenced, what));
    }
    Ok(unit.value)
}

fn quoted(text: &str) -> String {
    format!("`{}`", shown(text.as_bytes()))
}
