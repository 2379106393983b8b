//! What a backup is of: paths as they were named, or an app as it is
//! configured, with where its archives go and what is left out of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{Ground, bare};
use crate::config::{AppConfig, Config, Destination, Export, PostgresSource, Source, SqliteSource};
use crate::keys::Keys;
use crate::keys::care::{older, real};
use crate::report::{BackupRequest, Selection, Subject};
use crate::services::Service;
use crate::source::roots::{self, Wanted};
use crate::{Error, ErrorKind, Result};

/// A backup before anything was looked at.
pub(super) struct Job<'a> {
    pub(super) app_name: String,
    /// The app, where it is configured.
    pub(super) app: Option<&'a AppConfig>,
    pub(super) files: Vec<Wanted>,
    /// The services that are stopped while a source of files is read, by its name.
    pub(super) stops: BTreeMap<String, Vec<Service>>,
    pub(super) databases: Vec<(String, SqliteSource)>,
    pub(super) servers: Vec<(String, PostgresSource)>,
    /// The queries whose answers are part of the snapshot, by name.
    pub(super) exports: Vec<(String, Export)>,
    /// What programs print: sources of the kinds `mariadb` and `command`.
    pub(super) printed: Vec<(String, Source)>,
    /// Whether it is only a part of the app.
    pub(super) is_scope: bool,
    /// Where the archive goes; none: to one directory that is no destination.
    pub(super) destinations: Vec<&'a Destination>,
    /// What is left out without being asked, wherever it lies.
    pub(super) withheld: Vec<PathBuf>,
}

impl Job<'_> {
    /// Whether there is any database in it.
    pub(super) fn has_tables(&self) -> bool {
        let mut printed = self.printed.iter();
        !self.databases.is_empty()
            || !self.servers.is_empty()
            || printed.any(|(_, source)| matches!(source, Source::Mariadb(_)))
    }
}

/// What `request` asks for.
pub(super) fn find<'a>(request: &BackupRequest, ground: &Ground<'a>, host: &str) -> Result<Job<'a>> {
    let (config, data_dir) = (ground.config, ground.data_dir);
    let withheld = withheld(ground.keys, data_dir);
    match &request.subject {
        Subject::Paths(paths) => of_paths(request, paths, host, withheld),
        Subject::App(name) => {
            let app = config.and_then(|config| config.apps.get(name)).ok_or_else(|| no_such_app(name, config))?;
            let config = config.expect("it has the app");
            of_app(request, app, config, withheld)
        }
    }
}

/// The application that `request` is about, and the roots of its sources.
pub(crate) fn app_and_roots(request: &BackupRequest, config: Option<&Config>, host: &str) -> (String, Vec<PathBuf>) {
    match &request.subject {
        Subject::App(name) => {
            let app = config.and_then(|config| config.apps.get(name));
            let roots = app.map(|app| app.sources.values().filter_map(Source::root).map(Path::to_owned).collect());
            (name.clone(), roots.unwrap_or_default())
        }
        Subject::Paths(paths) => {
            let roots: Vec<PathBuf> =
                paths.iter().map(|path| roots::absolute(&request.working_dir.join(path))).collect();
            (roots.first().map_or_else(String::new, |first| roots::base_name(first, host)), roots)
        }
    }
}

/// What `words` mean: apps by their names, everything else paths.
///
/// # Errors
/// When a word is neither an app nor something that exists, or no word was
/// given and there is no app.
pub(crate) fn subjects(words: &[PathBuf], config: Option<&Config>) -> Result<Vec<Subject>> {
    let apps = || config.into_iter().flat_map(|config| config.apps.values());
    if words.is_empty() {
        let all: Vec<Subject> = apps().filter(|app| app.is_enabled).map(|app| Subject::App(app.name.clone())).collect();
        if all.is_empty() {
            return Err(Error::new(ErrorKind::Usage, "no path was given, and there is no lifeboat.yaml")
                .state("nothing was begun")
                .next(
                    "say what to back up: lifeboat backup DIR; or write lifeboat.yaml: lifeboat init --preset NAME",
                ));
        }
        return Ok(all);
    }
    let is_app = |word: &&PathBuf| word.to_str().is_some_and(|word| apps().any(|app| app.name == word));
    let (named, paths): (Vec<&PathBuf>, Vec<&PathBuf>) = words.iter().partition(is_app);
    // A word that could be an app's name and leads nowhere is more likely a mistyped app than a path.
    for path in &paths {
        let is_word = path.components().count() == 1 && apps().next().is_some();
        if is_word && path.symlink_metadata().is_err() {
            return Err(no_such_app(&path.to_string_lossy(), config));
        }
    }
    let mut subjects: Vec<Subject> = Vec::new();
    for name in named {
        let subject = Subject::App(name.to_string_lossy().into_owned());
        if !subjects.contains(&subject) {
            subjects.push(subject);
        }
    }
    if !paths.is_empty() {
        subjects.push(Subject::Paths(paths.into_iter().cloned().collect()));
    }
    Ok(subjects)
}

pub(crate) fn no_such_app(name: &str, config: Option<&Config>) -> Error {
    let known: Vec<&str> = config.iter().flat_map(|config| config.apps.keys().map(String::as_str)).collect();
    let next = match (crate::config::nearest(name, &known), known.is_empty()) {
        (_, true) => "write lifeboat.yaml (`lifeboat init` helps), or give the path of a directory".to_owned(),
        (Some(meant), _) => format!("did you mean {meant}? the apps are: {}", known.join(", ")),
        (None, _) => format!("the apps are: {}", known.join(", ")),
    };
    Error::new(ErrorKind::Usage, format!("there is no app {name}")).state("nothing was begun").next(next)
}

fn of_paths<'a>(request: &BackupRequest, paths: &[PathBuf], host: &str, withheld: Vec<PathBuf>) -> Result<Job<'a>> {
    let is_of_an_app = request.bare || request.schema_only || request.format.is_some();
    if !request.only.is_empty() || is_of_an_app || !request.to.is_empty() {
        let what = "--only, --bare, --schema-only, --format and --to are for apps of lifeboat.yaml";
        return Err(Error::new(ErrorKind::Usage, what)
            .state("nothing was begun")
            .next("name the app instead of a path"));
    }
    let first = paths.first().ok_or_else(|| {
        Error::new(ErrorKind::Usage, "no path was given").next("say what to back up: lifeboat backup DIR")
    })?;
    let app_name = roots::base_name(&roots::absolute(&request.working_dir.join(first)), host);
    let wanted = roots::of_paths(paths, &request.working_dir, host, &request.selection);
    Ok(Job {
        app_name,
        app: None,
        files: wanted,
        stops: BTreeMap::new(),
        databases: Vec::new(),
        servers: Vec::new(),
        exports: Vec::new(),
        printed: Vec::new(),
        is_scope: false,
        destinations: Vec::new(),
        withheld,
    })
}

fn of_app<'a>(
    request: &BackupRequest,
    app: &'a AppConfig,
    config: &'a Config,
    withheld: Vec<PathBuf>,
) -> Result<Job<'a>> {
    check_only(request, app)?;
    check_dumps(request, app)?;
    let is_asked = |name: &&String| {
        let has_structure = matches!(app.sources[*name], Source::Postgres(_));
        (request.only.is_empty() || request.only.contains(name)) && (has_structure || !request.schema_only)
    };
    let mut job = Job {
        app_name: app.name.clone(),
        app: Some(app),
        files: Vec::new(),
        stops: BTreeMap::new(),
        databases: Vec::new(),
        servers: Vec::new(),
        exports: Vec::new(),
        printed: Vec::new(),
        is_scope: request.schema_only || app.sources.keys().any(|name| !is_asked(&name)),
        destinations: destinations(request, app, config)?,
        withheld,
    };
    for (name, source) in app.sources.iter().filter(|(name, _)| is_asked(name)) {
        match source {
            Source::Sqlite(source) => job.databases.push((name.clone(), source.clone())),
            Source::Postgres(source) => {
                let format = request.format.unwrap_or(source.format);
                job.servers.push((name.clone(), PostgresSource { format, ..source.clone() }));
            }
            Source::Mariadb(_) | Source::Command(_) => job.printed.push((name.clone(), source.clone())),
            Source::Files(source) => {
                let more = |patterns: &[String], of: &[String]| [of, patterns].concat();
                let Selection { include, exclude, .. } = &request.selection;
                let wanted = Wanted {
                    name: name.clone(),
                    path: source.root.clone(),
                    at: source.at.clone(),
                    include: more(include, &source.include),
                    exclude: more(exclude, &source.exclude),
                    may_be_empty: true,
                    is_held: !source.stop.is_empty(),
                };
                job.files.push(wanted);
                job.stops.insert(name.clone(), source.stop.clone());
            }
        }
    }
    if request.only.is_empty() && !request.schema_only {
        job.exports = app.exports.iter().map(|(name, export)| (name.clone(), export.clone())).collect();
    }
    if request.bare && !bare::is_one(&job) {
        return Err(bare::not_one());
    }
    // A database of its own is no part of a source of files, whether it is backed up in this run or not.
    for source in app.sources.values() {
        if let Source::Sqlite(source) = source {
            let real = source.path.canonicalize().unwrap_or_else(|_| source.path.clone());
            let log = |end: &str| {
                let mut name = real.clone().into_os_string();
                name.push(end);
                PathBuf::from(name)
            };
            job.withheld.extend([""].iter().chain(&crate::sqlite::LOGS).map(|end| log(end)));
        }
    }
    Ok(job)
}

/// Refuses names that no source has.
fn check_only(request: &BackupRequest, app: &AppConfig) -> Result<()> {
    let names: Vec<&str> = app.sources.keys().map(String::as_str).collect();
    match request.only.iter().find(|name| !names.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => {
            let what = format!("--only {name}: {} has no source of that name", app.name);
            Err(Error::new(ErrorKind::Usage, what)
                .state("nothing was begun")
                .next(format!("its sources are: {}", names.join(", "))))
        }
    }
}

/// Refuses options for dumps where there is nothing to dump.
fn check_dumps(request: &BackupRequest, app: &AppConfig) -> Result<()> {
    let option = match (request.schema_only, request.format) {
        (true, _) => "--schema-only",
        (false, Some(_)) => "--format",
        (false, None) => return Ok(()),
    };
    let is_asked = |name: &String| request.only.is_empty() || request.only.contains(name);
    let mut dumped = app.sources.iter().filter(|(_, source)| matches!(source, Source::Postgres(_)));
    if dumped.any(|(name, _)| is_asked(name)) {
        return Ok(());
    }
    let whose = if request.only.is_empty() { app.name.clone() } else { format!("--only {}", request.only.join(", ")) };
    Err(Error::new(ErrorKind::Usage, format!("{option} is for sources of the kind postgres, and {whose} has none"))
        .state("nothing was begun")
        .next(format!("leave {option} out")))
}

fn destinations<'a>(request: &BackupRequest, app: &AppConfig, config: &'a Config) -> Result<Vec<&'a Destination>> {
    let mut names: Vec<&String> = app.destinations.iter().collect();
    if !request.to.is_empty() {
        for name in &request.to {
            if !config.destinations.contains_key(name) {
                let known: Vec<&str> = config.destinations.keys().map(String::as_str).collect();
                let meant = crate::config::nearest(name, &known).map(|meant| format!("did you mean {meant}? "));
                return Err(Error::new(ErrorKind::Usage, format!("--to {name}: there is no such destination"))
                    .state("nothing was begun")
                    .next(format!("{}the destinations are: {}", meant.unwrap_or_default(), known.join(", "))));
            }
        }
        names = request.to.iter().collect();
    }
    if request.output.is_some() {
        return Ok(Vec::new());
    }
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(*name));
    Ok(names.into_iter().filter_map(|name| config.destinations.get(name)).collect())
}

/// Everything that is left out of every source of files without being asked:
/// keys and password files, our own data, directories of archives.
fn withheld(keys: Keys<'_>, data_dir: &Path) -> Vec<PathBuf> {
    let mut paths = vec![data_dir.to_owned()];
    paths.extend(keys.ring.files());
    if let Some(config) = keys.config {
        let secrets = config.secret_files();
        // Also the keys whose place others took.
        paths.extend(secrets.iter().flat_map(|file| older(file)));
        paths.extend(secrets);
        paths.extend(config.destinations.values().map(|destination| destination.dir.clone()));
        paths.extend(config.apps.values().filter_map(|app| app.backup_dir.clone()).filter(|dir| dir.is_absolute()));
    }
    let mut real: Vec<PathBuf> = paths.iter().filter_map(|path| real(path)).collect();
    real.sort();
    real.dedup();
    real
}
