//! The rules of `lifeboat.yaml` beyond its shape: which names, paths, commands
//! and times make sense, and what refers to what. No I/O: whether a root is
//! there is found when it is backed up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;

use super::databases::databases;
use super::raw::{self, At, Named, Wrong};
use super::{AppConfig, Destination, Keep, MariadbSource, PostgresSource, Source};
use crate::naming;
use crate::report::CompressionKind;

mod asks;
mod encryption;
mod exports;
mod printed;
mod services;
mod sources;
pub(super) mod values;

pub(super) use services::FREEZE_MAX;
use values::{absolute, directory, is_pattern, name, pattern, quoted, table};

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

type Checked<T> = Result<T, Wrong>;

/// What the file says.
pub(super) struct Found {
    pub(super) data_dir: Option<PathBuf>,
    pub(super) apps: BTreeMap<String, AppConfig>,
    pub(super) destinations: BTreeMap<String, Destination>,
}

/// What an app has from the rest of the file.
#[derive(Default)]
pub(super) struct Around {
    pub(super) backup_dir: Option<PathBuf>,
    pub(super) destinations: BTreeMap<String, Destination>,
}

/// The rules of the whole file.
pub(super) fn config(file: raw::File) -> Checked<Found> {
    let data_dir = file.data_dir.map(absolute).transpose()?;
    let backup_dir = file.backup_dir.map(directory).transpose()?;
    let mut around = Around { backup_dir, destinations: BTreeMap::new() };
    for (name, destination) in file.destinations.0 {
        let name = self::name(name)?.value;
        around.destinations.insert(name.clone(), self::destination(name, destination)?);
    }
    if file.apps.value.0.is_empty() {
        return Err(Wrong::at(file.apps.place, "there is no app, expected at least one"));
    }
    let mut apps = BTreeMap::new();
    for (name, app) in file.apps.value.0 {
        let name = self::name(name)?;
        if COMMANDS.contains(&name.value.as_str()) {
            let what = format!(
                "an app cannot be called `{}`, that is a command of Lifeboat; expected another name",
                name.value
            );
            return Err(Wrong::at(name.place, what));
        }
        apps.insert(name.value.clone(), self::app(name.value, app, &around)?);
    }
    Ok(Found { data_dir, apps, destinations: around.destinations })
}

/// The rules of one app.
pub(super) fn app(name: String, app: raw::App, around: &Around) -> Checked<AppConfig> {
    let services = services::services(app.services)?;
    let exclude = app.exclude_patterns.into_iter().map(pattern).collect::<Checked<Vec<_>>>()?;
    let sources = sources::sources(app.sources, &services, &exclude)?;
    let databases = databases(&sources);
    let databases: Vec<&str> = databases.keys().map(String::as_str).collect();
    let health = app.health.into_iter().map(asks::health).collect::<Checked<_>>()?;
    let after_restore =
        app.after_restore.into_iter().map(|check| asks::after_restore(check, &databases)).collect::<Checked<_>>()?;
    let version = app.version.map(|version| asks::version(version, &databases)).transpose()?;
    let keep_replaced = match app.keep_replaced {
        Some(text) => text.value.parse().map_err(|error: crate::Error| Wrong::at(text.place, error.what()))?,
        None => Keep::default(),
    };
    let compression = app.compression.map(|kind| match kind {
        raw::Compression::Zstd => CompressionKind::Zstd,
        raw::Compression::Gzip => CompressionKind::Gzip,
    });
    let backup_dir = app.backup_dir.map(directory).transpose()?.or_else(|| around.backup_dir.clone());
    // Also those that the app does not name: somebody else's backups are no place for its key.
    let places = around.destinations.values().map(|destination| destination.dir.as_path());
    let places: Vec<&Path> = places.chain(backup_dir.as_deref()).collect();
    let encryption =
        app.encryption.map(|found| encryption::encryption(found.place, found.value, &places)).transpose()?;
    Ok(AppConfig {
        name,
        is_enabled: app.enabled.unwrap_or(true),
        services: services.stopped,
        reload: services.reload,
        freeze: services.frozen,
        freeze_max: services.freeze_max,
        health,
        after_restore,
        version,
        required: app.required.into_iter().map(|name| required(name, &sources)).collect::<Checked<_>>()?,
        parts: parts(app.parts, &sources)?,
        archive_name: app.name.map(template).transpose()?,
        compression,
        compression_level: app.compression_level.map(|level| self::level(level, compression)).transpose()?,
        encryption,
        backup_dir,
        exclude_tables: app.exclude_tables.into_iter().map(table).collect::<Checked<_>>()?,
        exports: exports::exports(app.exports, &sources)?,
        secret_columns: exports::secret_columns(app.secret_columns, &sources)?,
        destinations: chosen(app.destinations, &around.destinations)?,
        verify_on_create: app.verification.enabled.unwrap_or(true) && app.verification.on_create.unwrap_or(true),
        keep_replaced,
        sources,
    })
}

fn destination(name: String, destination: raw::Destination) -> Checked<Destination> {
    if let Some(form) = destination.form
        && form.value != "archive"
    {
        let what = match form.value.as_str() {
            "repository" | "bare" => format!("the form `{}` is not there yet, expected `archive`", form.value),
            other => raw::unknown("form", other, &["archive"]),
        };
        return Err(Wrong::at(form.place, what));
    }
    let wants_encrypted = match destination.encryption {
        None => false,
        Some(word) if word.value == "required" => true,
        Some(word) => return Err(Wrong::at(word.place, raw::unknown("value", &word.value, &["required"]))),
    };
    let dir = local(destination.url)?;
    let is_enabled = destination.enabled.unwrap_or(true);
    Ok(Destination { name, dir, require_mount: destination.require_mount, wants_encrypted, is_enabled })
}

/// The directory that a URL names. It may hold a password, so that it is not shown.
fn local(url: At<String>) -> Checked<PathBuf> {
    let text = &url.value;
    let path = match text.split_once("://") {
        Some((scheme, path)) if scheme.eq_ignore_ascii_case("file") => {
            percent_decode_str(path).decode_utf8_lossy().into_owned()
        }
        Some((scheme, _)) if scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) => {
            let what = format!("a destination by `{scheme}` is not there yet, expected an absolute path");
            return Err(Wrong::at(url.place, what));
        }
        _ => text.clone(),
    };
    if !path.starts_with('/') || path.contains('\0') {
        return Err(Wrong::at(url.place, "this is no directory, expected an absolute path, or file:// and one"));
    }
    Ok(path.into())
}

/// Those that are enabled, in the order in which they are named.
fn chosen(names: Vec<At<String>>, known: &BTreeMap<String, Destination>) -> Checked<Vec<String>> {
    let mut seen: Vec<String> = Vec::new();
    for name in names {
        if !known.contains_key(&name.value) {
            let known: Vec<&str> = known.keys().map(String::as_str).collect();
            return Err(Wrong::at(name.place, raw::unknown("destination", &name.value, &known)));
        }
        if seen.contains(&name.value) {
            let what = format!("{} stands twice, expected each destination once", quoted(&name.value));
            return Err(Wrong::at(name.place, what));
        }
        seen.push(name.value);
    }
    seen.retain(|name| known[name].is_enabled);
    Ok(seen)
}

fn source_of<'a>(name: &At<String>, part: &str, sources: &'a BTreeMap<String, Source>) -> Checked<&'a Source> {
    sources.get(part).ok_or_else(|| {
        let known: Vec<&str> = sources.keys().map(String::as_str).collect();
        Wrong::at(name.place, raw::unknown("source", part, &known))
    })
}

/// A source, or a pattern of files in one.
fn required(name: At<String>, sources: &BTreeMap<String, Source>) -> Checked<String> {
    let (source, glob) = match name.value.split_once('/') {
        Some((source, glob)) => (source, Some(glob)),
        None => (name.value.as_str(), None),
    };
    match (source_of(&name, source, sources)?, glob) {
        (
            Source::Postgres(PostgresSource { databases, .. }) | Source::Mariadb(MariadbSource { databases, .. }),
            Some(database),
        ) => {
            let is_known = databases.iter().any(|known| known == database);
            let known: Vec<&str> = databases.iter().map(String::as_str).collect();
            if is_known {
                Ok(name.value)
            } else {
                Err(Wrong::at(name.place, raw::unknown("database", database, &known)))
            }
        }
        (Source::Sqlite(_), Some(_)) => {
            Err(Wrong::at(name.place, format!("{} is a database, expected its name alone", quoted(source))))
        }
        (Source::Command(_), Some(_)) => {
            Err(Wrong::at(name.place, format!("{} is one thing, expected its name alone", quoted(source))))
        }
        (_, Some(glob)) if !is_pattern(glob) => {
            let what = format!("the pattern {} makes no sense, expected gitignore syntax", quoted(glob));
            Err(Wrong::at(name.place, what))
        }
        _ => Ok(name.value),
    }
}

type Parts = BTreeMap<String, BTreeMap<String, Vec<String>>>;

fn parts(found: Named<Named<At<Vec<At<String>>>>>, sources: &BTreeMap<String, Source>) -> Checked<Parts> {
    let mut parts = BTreeMap::new();
    for (part, of_sources) in found.0 {
        let part = name(part)?;
        if sources.contains_key(&part.value) {
            let what = format!("a source is called {} already, expected another name", quoted(&part.value));
            return Err(Wrong::at(part.place, what));
        }
        let mut of_part = BTreeMap::new();
        for (source, patterns) in of_sources.0 {
            let kind = source_of(&source, &source.value, sources)?;
            let checked: Vec<String> = match kind {
                Source::Files(_) => patterns.value.into_iter().map(pattern).collect::<Checked<_>>()?,
                Source::Command(_) => {
                    let what = format!("{} has no parts, expected a source of another kind", quoted(&source.value));
                    return Err(Wrong::at(source.place, what));
                }
                Source::Sqlite(_) | Source::Postgres(_) | Source::Mariadb(_) => {
                    patterns.value.into_iter().map(table).collect::<Checked<_>>()?
                }
            };
            if checked.is_empty() {
                return Err(Wrong::at(patterns.place, "nothing stands here, expected at least one table or pattern"));
            }
            of_part.insert(source.value, checked);
        }
        if of_part.is_empty() {
            let what = format!("the part {} is empty, expected at least one source", quoted(&part.value));
            return Err(Wrong::at(part.place, what));
        }
        parts.insert(part.value, of_part);
    }
    Ok(parts)
}

fn template(name: At<String>) -> Checked<String> {
    naming::check(&name.value).map_err(|what| Wrong::at(name.place, what))?;
    Ok(name.value)
}

fn level(level: At<u16>, compression: Option<CompressionKind>) -> Checked<u8> {
    let (kind, max) = match compression {
        Some(CompressionKind::Gzip) => ("gzip", 9),
        Some(CompressionKind::Zstd) | None => ("zstd", 19),
    };
    match u8::try_from(level.value) {
        Ok(level) if (1..=max).contains(&level) => Ok(level),
        _ => Err(Wrong::at(level.place, format!("{} is no level of {kind}, expected 1 to {max}", level.value))),
    }
}
