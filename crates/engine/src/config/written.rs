//! The configuration as it is written down again, in the words of
//! `lifeboat.yaml`: what a snapshot carries of its app, and what `config show`
//! shows. Only what is named here gets out, so that a new setting does not
//! leak by itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{AppConfig, Ask, Check, Export, PostgresSource, Source, VersionFrom, duration};
use crate::exec::command_line;
use crate::health::{self, HealthCheck};
use crate::report::CompressionKind;
use crate::services::{Reload, Service, ServiceKind};
use crate::{Error, ErrorKind, Result};
use lifeboat_format::path::shown;

mod printed;

use printed::{WrittenCommand, WrittenMariadb};

/// What a snapshot carries of its app's configuration, without what says where
/// secrets are or where backups go. Unknown fields are accepted and dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    pub(super) sources: BTreeMap<String, WrittenSource>,
    #[serde(default)]
    pub(super) services: WrittenServices,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) health: Vec<WrittenHealth>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) after_restore: Vec<WrittenCheck>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<WrittenVersion>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) required: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) parts: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) compression: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) compression_level: Option<u8>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) exclude_tables: Vec<String>,
    /// Never read back, and not for a snapshot: a restore has no use for queries.
    #[serde(skip_deserializing, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) exports: BTreeMap<String, WrittenSql>,
    #[serde(skip_deserializing, skip_serializing_if = "Vec::is_empty")]
    pub(super) secret_columns: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) keep_replaced: Option<String>,
}

/// One source; none of them is a kind that this version does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WrittenSource {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    files: Option<WrittenFiles>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sqlite: Option<WrittenSqlite>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    postgres: Option<WrittenPostgres>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mariadb: Option<WrittenMariadb>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command: Option<WrittenCommand>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct WrittenFiles {
    root: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    include: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    exclude: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    stop: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct WrittenPostgres {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    /// Never read back: what an archive names is not sent anywhere.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    password_file: Option<String>,
    databases: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    format: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    globals: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    maintenance_db: Option<String>,
    /// As for the password: programs are run from there.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    bin_dir: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lock_timeout: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct WrittenSqlite {
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    busy_timeout: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    merge_key: BTreeMap<String, Vec<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WrittenServices {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    units: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    commands: BTreeMap<String, WrittenCommands>,
    #[serde(default)]
    restore_stop: Vec<String>,
    #[serde(default)]
    freeze: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    freeze_max: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reload: Option<WrittenReload>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct WrittenCommands {
    stop: Vec<String>,
    start: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    freeze: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    thaw: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WrittenReload {
    run: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on_failure: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WrittenHealth {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    http: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// Never read back: what an archive names is not sent anywhere.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    token_file: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    every: Option<String>,
    /// What it sends is a secret, and was left out.
    #[serde(default, skip_serializing_if = "is_false")]
    needs_secret: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WrittenCheck {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    http: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sql: Option<WrittenSql>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// As for health.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    token_file: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expect: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
    /// As for health.
    #[serde(default, skip_serializing_if = "is_false")]
    needs_secret: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WrittenSql {
    db: String,
    query: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WrittenVersion {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sql: Option<WrittenSql>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

/// For whom it is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// Whoever gets hold of a snapshot.
    Anyone,
    /// Whoever may read the configuration.
    Owner,
}

impl AppConfig {
    /// What a snapshot carries of it.
    #[must_use]
    pub fn carried(&self) -> Carried {
        self.written(Reader::Anyone)
    }

    pub(super) fn written(&self, reader: Reader) -> Carried {
        Carried {
            sources: self.sources.iter().map(|(name, source)| (name.clone(), self::source(source, reader))).collect(),
            services: services(self),
            health: self.health.iter().map(|check| self::health(check, reader)).collect(),
            after_restore: self.after_restore.iter().map(|check| self::check(check, reader)).collect(),
            version: self.version.as_ref().map(version),
            required: self.required.clone(),
            parts: self.parts.clone(),
            name: self.archive_name.clone(),
            compression: self.compression.map(compression),
            compression_level: self.compression_level,
            exclude_tables: self.exclude_tables.clone(),
            exports: if reader == Reader::Owner { exports(self) } else { BTreeMap::new() },
            secret_columns: if reader == Reader::Owner { secret_columns(self) } else { Vec::new() },
            keep_replaced: Some(self.keep_replaced.to_string()),
        }
    }
}

fn exports(app: &AppConfig) -> BTreeMap<String, WrittenSql> {
    let written = |export: &Export| WrittenSql { db: export.db(), query: export.query.clone() };
    app.exports.iter().map(|(name, export)| (name.clone(), written(export))).collect()
}

fn secret_columns(app: &AppConfig) -> Vec<String> {
    app.secret_columns.iter().map(|column| column.text.clone()).collect()
}

fn text(path: &Path) -> String {
    // It was read from a YAML text, so that nothing is lost.
    path.to_string_lossy().into_owned()
}

pub(super) fn compression(kind: CompressionKind) -> String {
    match kind {
        CompressionKind::Zstd => "zstd".to_owned(),
        CompressionKind::Gzip => "gzip".to_owned(),
    }
}

fn source(source: &Source, reader: Reader) -> WrittenSource {
    match source {
        Source::Files(files) => WrittenSource {
            files: Some(WrittenFiles {
                root: text(&files.root),
                include: files.include.clone(),
                exclude: files.exclude.clone(),
                at: files.at.as_ref().map(|at| if at.is_empty() { ".".to_owned() } else { at.clone() }),
                stop: names(&files.stop),
            }),
            ..WrittenSource::default()
        },
        Source::Sqlite(sqlite) => WrittenSource {
            sqlite: Some(WrittenSqlite {
                path: text(&sqlite.path),
                busy_timeout: Some(duration::shown(sqlite.busy_timeout)),
                merge_key: sqlite.merge_key.clone(),
            }),
            ..WrittenSource::default()
        },
        Source::Postgres(postgres) => {
            WrittenSource { postgres: Some(self::postgres(postgres, reader)), ..WrittenSource::default() }
        }
        Source::Mariadb(mariadb) => {
            WrittenSource { mariadb: Some(WrittenMariadb::of(mariadb, reader)), ..WrittenSource::default() }
        }
        Source::Command(command) => {
            WrittenSource { command: Some(WrittenCommand::of(command)), ..WrittenSource::default() }
        }
    }
}

fn postgres(postgres: &PostgresSource, reader: Reader) -> WrittenPostgres {
    let server = &postgres.server;
    let for_owner = |path: &Option<PathBuf>| path.as_deref().map(text).filter(|_| reader == Reader::Owner);
    WrittenPostgres {
        // The parameters of a connection name files of this host, or hold what its owner put there.
        url: (!server.keywords.contains_key("service")).then(|| server.url(reader == Reader::Owner)),
        service: server.keywords.get("service").cloned(),
        password_file: for_owner(&server.password_file),
        databases: postgres.databases.clone(),
        format: Some(postgres.format.word().to_owned()),
        globals: Some(if postgres.has_globals { "named" } else { "none" }.to_owned()),
        maintenance_db: Some(server.maintenance_db.clone()),
        bin_dir: for_owner(&server.bin_dir),
        lock_timeout: Some(duration::shown(postgres.lock_timeout)),
    }
}

fn names(services: &[Service]) -> Vec<String> {
    services.iter().map(|service| service.name.clone()).collect()
}

/// Every service that something names, declared once.
fn services(app: &AppConfig) -> WrittenServices {
    let mut written = WrittenServices {
        restore_stop: names(&app.services),
        freeze: names(&app.freeze),
        freeze_max: Some(duration::shown(app.freeze_max)),
        reload: app.reload.as_ref().map(reload),
        timeout: app.reload.as_ref().map(|reload| duration::shown(reload.timeout)),
        ..WrittenServices::default()
    };
    let stopped = app.sources.values().flat_map(Source::stop);
    for service in app.services.iter().chain(&app.freeze).chain(stopped) {
        // All have the same.
        written.timeout = Some(duration::shown(service.timeout));
        match &service.kind {
            ServiceKind::Unit { unit } if !written.units.contains(unit) => written.units.push(unit.clone()),
            ServiceKind::Unit { .. } => {}
            ServiceKind::Commands { stop, start, status, freeze, thaw } => {
                let commands = WrittenCommands {
                    stop: stop.clone(),
                    start: start.clone(),
                    status: status.clone(),
                    freeze: freeze.clone(),
                    thaw: thaw.clone(),
                };
                written.commands.insert(service.name.clone(), commands);
            }
        }
    }
    written
}

fn reload(reload: &Reload) -> WrittenReload {
    WrittenReload { run: reload.run.clone(), on_failure: reload.warn_only.then(|| "warn".to_owned()) }
}

/// A URL without what may be secret in it.
fn url(url: &str, reader: Reader) -> String {
    let plain = health::without_password(url);
    match (plain.find(['?', '#']), reader) {
        (None, _) => plain,
        (Some(at), Reader::Anyone) => plain[..at].to_owned(),
        (Some(at), Reader::Owner) => format!("{}?...", &plain[..at]),
    }
}

/// Whether `reader` does not see what a check sends.
fn lacks_secret(written: Option<&String>, url: &str, token_file: Option<&PathBuf>, reader: Reader) -> bool {
    reader == Reader::Anyone && (token_file.is_some() || written.is_none_or(|written| written != url))
}

fn token(file: Option<&PathBuf>, reader: Reader) -> Option<String> {
    if reader == Reader::Anyone { None } else { file.map(|file| text(file)) }
}

fn health(check: &HealthCheck, reader: Reader) -> WrittenHealth {
    match check {
        HealthCheck::Http { url, status, token_file, timeout, every } => {
            let http = Some(self::url(url, reader));
            WrittenHealth {
                needs_secret: lacks_secret(http.as_ref(), url, token_file.as_ref(), reader),
                http,
                status: Some(*status),
                token_file: token(token_file.as_ref(), reader),
                timeout: Some(duration::shown(*timeout)),
                every: Some(duration::shown(*every)),
                ..WrittenHealth::default()
            }
        }
        HealthCheck::Command { command, timeout, every } => WrittenHealth {
            command: Some(command.clone()),
            timeout: Some(duration::shown(*timeout)),
            every: Some(duration::shown(*every)),
            ..WrittenHealth::default()
        },
    }
}

fn check(check: &Check, reader: Reader) -> WrittenCheck {
    let mut written = WrittenCheck {
        expect: check.expect.as_ref().map(|expect| expect.0.clone()),
        timeout: Some(duration::shown(check.timeout)),
        ..WrittenCheck::default()
    };
    match &check.ask {
        Ask::Http { url, method, status, token_file } => {
            written.http = Some(self::url(url, reader));
            written.method = Some(method.clone());
            written.status = Some(*status);
            written.token_file = token(token_file.as_ref(), reader);
            written.needs_secret = lacks_secret(written.http.as_ref(), url, token_file.as_ref(), reader);
        }
        Ask::Command(command) => written.command = Some(command.clone()),
        Ask::Sql { db, query } => written.sql = Some(WrittenSql { db: db.clone(), query: query.clone() }),
    }
    written
}

fn version(version: &VersionFrom) -> WrittenVersion {
    let mut written = WrittenVersion::default();
    match version {
        VersionFrom::Command(command) => written.command = Some(command.clone()),
        VersionFrom::Sql { db, query } => written.sql = Some(WrittenSql { db: db.clone(), query: query.clone() }),
        VersionFrom::File(file) => written.file = Some(text(file)),
    }
    written
}

impl Carried {
    /// The app that it describes, by the same rules as `lifeboat.yaml`. It
    /// comes from an archive: nothing in it is trusted to make sense.
    ///
    /// # Errors
    /// `Unsupported` when a source is of a kind that this version does not
    /// know, `Corrupt` when a rule is broken.
    pub fn into_app(mut self, name: &str) -> Result<AppConfig> {
        let refuse = |kind, what: String| {
            Error::new(kind, format!("the configuration that the snapshot carries cannot be used: {what}"))
                .state("nothing was changed")
                .next("write a lifeboat.yaml for the app, or restore into a directory with --to DIR")
        };
        if !super::check::values::is_name(name) {
            let name = shown(name.as_bytes());
            return Err(refuse(ErrorKind::Corrupt, format!("the name `{name}` is none of an app")));
        }
        let is_unknown = |source: &WrittenSource| *source == WrittenSource::default();
        if let Some((source, _)) = self.sources.iter().find(|(_, source)| is_unknown(source)) {
            let source = shown(source.as_bytes());
            let what = format!("the source `{source}` is of a kind that this version does not know");
            return Err(refuse(ErrorKind::Unsupported, what));
        }
        // Those too are held against the rules, and then left out.
        let take = std::mem::take;
        let health: Vec<bool> = self.health.iter_mut().map(|check| take(&mut check.needs_secret)).collect();
        let checks: Vec<bool> = self.after_restore.iter_mut().map(|check| take(&mut check.needs_secret)).collect();
        // Through the text, so that every rule of the file holds here too.
        let text = serde_json::to_string(&self).map_err(|error| refuse(ErrorKind::Corrupt, error.to_string()))?;
        let app = super::raw::parse(&as_yaml(&text))
            .and_then(|app| super::check::app(name.to_owned(), app, &super::check::Around::default()));
        let mut app = app.map_err(|wrong| refuse(ErrorKind::Corrupt, wrong.what))?;
        // Without its secret the answer would be no, and the restore would be rolled back for that.
        let (mut health, mut checks) = (health.into_iter(), checks.into_iter());
        app.health.retain(|_| health.next() != Some(true));
        app.after_restore.retain(|_| checks.next() != Some(true));
        Ok(app)
    }

    /// One line for each thing in it that would act on this host: programs
    /// with their arguments, units, URLs, SQL. For whoever has to agree.
    #[must_use]
    pub fn acts(&self) -> Vec<String> {
        let mut acts: Vec<String> =
            self.services.units.iter().map(|unit| format!("stops and starts the unit {}", plain(unit))).collect();
        for (name, commands) in &self.services.commands {
            let all = [
                ("stop", Some(&commands.stop)),
                ("start", Some(&commands.start)),
                ("status", commands.status.as_ref()),
                ("freeze", commands.freeze.as_ref()),
                ("thaw", commands.thaw.as_ref()),
            ];
            let runs = all.into_iter().filter_map(|(verb, argv)| Some((verb, argv?)));
            acts.extend(
                runs.map(|(verb, argv)| format!("service {}, {verb}: runs {}", plain(name), command_line(argv))),
            );
        }
        for (name, source) in &self.sources {
            acts.extend(source.command.iter().flat_map(|command| command.acts(&plain(name))));
            let Some(postgres) = &source.postgres else { continue };
            let server = postgres.service.as_ref().map(|service| format!("the service {service}"));
            let server = server.or_else(|| postgres.url.clone()).unwrap_or_else(|| "the local server".to_owned());
            let databases = postgres.databases.join(", ");
            acts.push(format!("source {}: replaces {} on {}", plain(name), plain(&databases), plain(&server)));
        }
        acts.extend(self.services.reload.iter().map(|reload| format!("reload: runs {}", command_line(&reload.run))));
        for check in self.health.iter().filter(|check| !check.needs_secret) {
            acts.extend(check.http.iter().map(|url| format!("health: GET {}", plain(url))));
            acts.extend(check.command.iter().map(|argv| format!("health: runs {}", command_line(argv))));
        }
        for check in self.after_restore.iter().filter(|check| !check.needs_secret) {
            let method = check.method.as_deref().unwrap_or("GET");
            acts.extend(check.http.iter().map(|url| format!("after the restore: {} {}", plain(method), plain(url))));
            acts.extend(check.command.iter().map(|argv| format!("after the restore: runs {}", command_line(argv))));
            acts.extend(check.sql.iter().map(|sql| format!("after the restore: {}", asks(sql))));
        }
        if let Some(version) = &self.version {
            acts.extend(version.command.iter().map(|argv| format!("version: runs {}", command_line(argv))));
            acts.extend(version.sql.iter().map(|sql| format!("version: {}", asks(sql))));
            acts.extend(version.file.iter().map(|file| format!("version: reads {}", plain(file))));
        }
        acts
    }
}

impl Carried {
    /// The checks that cannot be asked elsewhere, because a secret belongs to them; one line each.
    #[must_use]
    pub fn lacks(&self) -> Vec<String> {
        let health = self.health.iter().filter(|check| check.needs_secret).map(|check| &check.http);
        let checks = self.after_restore.iter().filter(|check| check.needs_secret).map(|check| &check.http);
        let urls = health.chain(checks).flatten();
        urls.map(|url| format!("what the check of {} sends is a secret: it would not be asked", plain(url))).collect()
    }
}

fn plain(text: &str) -> String {
    shown(text.as_bytes())
}

fn asks(sql: &WrittenSql) -> String {
    format!("asks {} by SQL: {}", plain(&sql.db), plain(&sql.query))
}

/// JSON as YAML: the same, but for characters that YAML does not take as they are.
fn as_yaml(json: &str) -> String {
    let mut yaml = String::with_capacity(json.len());
    for c in json.chars() {
        // Outside of strings, JSON is ASCII.
        if c.is_ascii() && c != '\x7f' { yaml.push(c) } else { yaml.push_str(&format!("\\U{:08x}", u32::from(c))) }
    }
    yaml
}
