//! A query of the configuration, asked now: its answer as CSV in a file or in
//! the hands of the caller.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lifeboat_format::path::shown;
use lifeboat_store as store;
use lifeboat_store::durable::Unnamed;
use serde::Serialize;

use crate::config::{AppConfig, Config, Export, PostgresSource, Source, nearest};
use crate::pg::export::{Answer, Of};
use crate::report::as_seconds;
use crate::{Cancel, Error, ErrorKind, Result};

/// Nobody but its owner reads it: the database may be closed to others.
const MODE: u32 = 0o600;
const STATE: &str = "nothing was written";

/// Which query is asked, and where its answer goes.
#[derive(Clone, Debug)]
pub struct ExportRequest {
    /// The app; by default the only one.
    pub app: Option<String>,
    /// The query, by its name in `exports`.
    pub name: String,
    /// The file; by default the answer is handed to the caller.
    pub output: Option<PathBuf>,
    /// Whether a file of that name is replaced.
    pub replaces: bool,
}

/// What was exported.
#[derive(Clone, Debug, Serialize)]
pub struct ExportReport {
    /// The app.
    pub app: String,
    /// The query.
    pub name: String,
    /// `SOURCE/DATABASE` that was asked.
    pub database: String,
    /// The file, escaped.
    pub path: Option<String>,
    /// Rows, without the line of the column's names.
    pub rows: u64,
    /// Bytes of CSV.
    pub size_bytes: u64,
    /// How long it took.
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    pub elapsed: Duration,
}

/// Takes bytes of the answer.
pub type Take<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

/// Asks the query; without a file, `take` is given the answer piece by piece.
pub(crate) fn export(
    request: &ExportRequest,
    config: Option<&Config>,
    take: Take<'_>,
    cancel: &Cancel,
) -> Result<ExportReport> {
    let began = Instant::now();
    let app = find_app(request.app.as_deref(), config)?;
    let (export, source) = find_export(app, &request.name)?;
    let file = request.output.as_deref().map(|path| Target::find(path, request.replaces)).transpose()?;
    let ask = || {
        let of = Of { snapshot: None, lock_timeout: source.lock_timeout };
        Answer::ask(&source.server.route()?, (&request.name, export), &app.secret_columns, of, cancel)
    };
    let mut answer = ask().map_err(|error| error.state(STATE))?;
    let rows = answer.rows();
    let size_bytes = match &file {
        None => copy(&mut answer, take).map_err(|error| error.state("what was written so far is not all of it"))?,
        Some(target) => target.write(&mut answer)?,
    };
    Ok(ExportReport {
        app: app.name.clone(),
        name: request.name.clone(),
        database: export.db(),
        path: request.output.as_ref().map(|path| shown(path.as_os_str().as_encoded_bytes())),
        rows: rows.load(Ordering::Relaxed),
        size_bytes,
        elapsed: began.elapsed(),
    })
}

fn find_app<'a>(name: Option<&str>, config: Option<&'a Config>) -> Result<&'a AppConfig> {
    let apps = || config.into_iter().flat_map(|config| config.apps.values());
    if let Some(name) = name {
        return apps().find(|app| app.name == name).ok_or_else(|| crate::backup::no_such_app(name, config));
    }
    let all: Vec<&AppConfig> = apps().collect();
    let names = || all.iter().map(|app| app.name.as_str()).collect::<Vec<_>>().join(", ");
    match all[..] {
        [app] => Ok(app),
        [] => Err(Error::new(ErrorKind::Usage, "there is no lifeboat.yaml, in which `exports` would be")
            .next("name it with --config FILE, or write one: `lifeboat init` helps")),
        _ => Err(Error::new(ErrorKind::Usage, "there are several apps, and none was named")
            .next(format!("name one of them before the query: {}", names()))),
    }
    .map_err(|error: Error| error.state(STATE))
}

fn find_export<'a>(app: &'a AppConfig, name: &str) -> Result<(&'a Export, &'a PostgresSource)> {
    let export = app.exports.get(name).ok_or_else(|| {
        let known: Vec<&str> = app.exports.keys().map(String::as_str).collect();
        let next = match (nearest(name, &known), known.is_empty()) {
            (_, true) => "write it into `exports` in lifeboat.yaml".to_owned(),
            (Some(meant), _) => format!("did you mean {meant}? there are: {}", known.join(", ")),
            (None, _) => format!("there are: {}", known.join(", ")),
        };
        let what = format!("{} has no query {} in `exports`", app.name, shown(name.as_bytes()));
        Error::new(ErrorKind::Usage, what).state(STATE).next(next)
    })?;
    match app.sources.get(&export.source) {
        Some(Source::Postgres(source)) => Ok((export, source)),
        _ => Err(Error::new(ErrorKind::Usage, format!("{} is no source of the kind postgres", export.source))),
    }
}

/// Where the answer goes.
struct Target<'a> {
    path: &'a Path,
    dir: &'a Path,
    name: &'a Path,
    replaces: bool,
}

impl<'a> Target<'a> {
    fn find(path: &'a Path, replaces: bool) -> Result<Self> {
        let wrong = |what: &str, next: &str| {
            let what = format!("{} {what}", shown(path.as_os_str().as_encoded_bytes()));
            Err(Error::new(ErrorKind::ConfirmationNeeded, what).state(STATE).next(next))
        };
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            return wrong("is no name for a file", "name a file with --output");
        };
        match path.symlink_metadata() {
            Ok(found) if !found.is_file() => wrong("is there and is no file", "name another one with --output"),
            Ok(_) if !replaces => wrong("exists already", "name another one with --output, or replace it with --force"),
            _ => {
                let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
                Ok(Self { path, dir, name: Path::new(name), replaces })
            }
        }
    }

    /// Writes all of it, then gives it its name.
    fn write(&self, answer: &mut Answer) -> Result<u64> {
        let mut file = Unnamed::create(self.dir).map_err(|error| Error::from(error).state(STATE))?;
        let size = copy(answer, &mut |bytes| Ok(file.append(bytes)?)).map_err(|error| error.state(STATE))?;
        let named = if self.replaces { file.publish_over(self.name, MODE) } else { file.publish([self.name], MODE) };
        named
            .map_err(|error| match error.kind() {
                store::ErrorKind::Exists => Error::new(ErrorKind::ConfirmationNeeded, error.to_string()),
                _ => Error::from(error),
            })
            .map_err(|error| error.about(self.path).state(STATE))?;
        Ok(size)
    }
}

fn copy(answer: &mut Answer, take: Take<'_>) -> Result<u64> {
    let mut size = 0;
    loop {
        let piece = answer.piece()?;
        if piece.is_empty() {
            return Ok(size);
        }
        take(piece)?;
        size += piece.len() as u64;
    }
}
