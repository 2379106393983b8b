//! What is known of an app at a glance: its snapshots, its last run, the places
//! where its archives go. For `status` and `backup list`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::{AppConfig, Config};
use crate::destination::listing::Snapshot;
use crate::destination::{self, listing};
use crate::runs::{self, LastRun};
use crate::{Error, ErrorKind, Result, keys};

/// One app.
#[derive(Clone, Debug, Serialize)]
pub struct AppStatus {
    /// Its name.
    pub name: String,
    /// The newest snapshot that is good.
    pub last_good: Option<Snapshot>,
    /// The newest of all.
    pub last: Option<Snapshot>,
    /// How the last backup ended, if it ran here.
    pub last_run: Option<LastRun>,
    /// How many snapshots there are, each counted once.
    pub snapshots: u64,
    /// Bytes of all of them, copies included.
    pub bytes: u64,
    /// Where its archives go.
    pub places: Vec<PlaceStatus>,
    /// What is wrong, one line each; none: all is well.
    pub wrong: Vec<String>,
}

/// One place of an app's archives.
#[derive(Clone, Debug, Serialize)]
pub struct PlaceStatus {
    /// The destination; `None` for a backup directory.
    pub destination: Option<String>,
    /// The directory.
    #[serde(serialize_with = "crate::report::as_shown")]
    pub path: PathBuf,
    /// How many snapshots of the app are there.
    pub snapshots: u64,
    /// The newest good one there.
    pub last_good: Option<jiff::Timestamp>,
    /// Free bytes, if the file system counts them.
    pub free_bytes: Option<u64>,
    /// Why it cannot be used now.
    pub error: Option<String>,
}

/// All snapshots in the places of `app`, or of all apps, oldest first; and
/// what could not be listed, or is not what it was, one line each.
pub(crate) fn snapshots(
    config: Option<&Config>,
    app: Option<&str>,
    working_dir: &Path,
    data_dir: &Path,
) -> (Vec<Snapshot>, Vec<String>) {
    let places = match config {
        Some(config) => destination::places(config, app, working_dir),
        None => vec![(None, working_dir.to_owned())],
    };
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for (name, dir) in places {
        let destination = name.as_ref().and_then(|name| config?.destinations.get(name));
        if let Some(Err(error)) = destination.map(|destination| destination::check(destination, data_dir)) {
            // What is not mounted is never taken for empty. What can be seen there all the same is shown.
            errors.push(error.to_string());
        }
        match listing::list(&dir, name.as_deref()) {
            Ok(listed) => found.extend(listed),
            Err(error) => errors.push(error.to_string()),
        }
    }
    if app.is_some() {
        found.retain(|snapshot| snapshot.app.as_deref() == app);
    }
    found.sort_by(|a, b| (a.created, &a.path).cmp(&(b.created, &b.path)));
    (found, errors)
}

/// How the apps do: all that are enabled, or `app`.
///
/// # Errors
/// When there is no such app.
pub(crate) fn status(
    config: Option<&Config>,
    app: Option<&str>,
    working_dir: &Path,
    data_dir: &Path,
) -> Result<Vec<AppStatus>> {
    let known = config.into_iter().flat_map(|config| config.apps.values());
    // A disabled one is nobody's trouble, unless it is asked for.
    let is_asked = |known: &&AppConfig| app.map_or(known.is_enabled, |app| app == known.name);
    let asked: Vec<_> = known.filter(is_asked).collect();
    if let (Some(app), true) = (app, asked.is_empty()) {
        return Err(crate::backup::no_such_app(app, config));
    }
    let config = config.as_ref();
    Ok(asked.iter().filter_map(|app| Some(of_app(config?, &app.name, working_dir, data_dir))).collect())
}

fn of_app(config: &Config, app: &str, working_dir: &Path, data_dir: &Path) -> AppStatus {
    let (all, mut wrong) = snapshots(Some(config), Some(app), working_dir, data_dir);
    let newest_good =
        |all: &mut dyn Iterator<Item = &Snapshot>| all.filter(|snapshot| snapshot.is_good()).last().cloned();
    let last_good = newest_good(&mut all.iter());
    let last_run = runs::last(data_dir, app);
    let mut ids: Vec<_> = all.iter().filter_map(|snapshot| snapshot.id.as_deref()).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut places = Vec::new();
    for (destination, path) in destination::places(config, Some(app), working_dir) {
        let here = || all.iter().filter(|snapshot| snapshot.path.parent() == Some(path.as_path()));
        let configured = destination.as_ref().and_then(|name| config.destinations.get(name));
        let error = configured.and_then(|configured| destination::check(configured, data_dir).err());
        let error = error.map(|error| error.to_string());
        let last_good = newest_good(&mut here()).map(|snapshot| snapshot.created);
        let free_bytes = destination::free_space(&path);
        places.push(PlaceStatus { destination, snapshots: here().count() as u64, last_good, free_bytes, error, path });
    }
    if last_good.is_none() {
        wrong.push("there is no good backup".to_owned());
    }
    match &last_run {
        Some(run) if run.outcome.is_none() => {
            wrong.push(format!("the last backup failed: {}", run.error.as_deref().unwrap_or("nobody knows why")));
        }
        Some(run) if !run.is_complete => {
            let why = run.error.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
            wrong.push(format!("the last backup was incomplete{why}"));
        }
        _ => {}
    }
    wrong.extend(config.apps.get(app).map(|app| keys::care::unexported(app, data_dir)).unwrap_or_default());
    AppStatus {
        name: app.to_owned(),
        last: all.last().cloned(),
        snapshots: ids.len() as u64,
        bytes: all.iter().map(|snapshot| snapshot.size_bytes).sum(),
        last_good,
        last_run,
        places,
        wrong,
    }
}

/// An archive that somebody named.
#[derive(Clone, Debug)]
pub struct Named {
    /// The file.
    pub path: PathBuf,
    /// Whether it was named by its id, and not as a file or `latest`.
    pub by_id: bool,
}

/// The archive that `wanted` names: a file that exists wins, else the id of a
/// snapshot, or `latest`.
///
/// # Errors
/// When there is none, or several could be meant.
pub(crate) fn find(
    wanted: &Path,
    app: Option<&str>,
    config: Option<&Config>,
    (working_dir, data_dir): (&Path, &Path),
) -> Result<Named> {
    let text = wanted.to_str().filter(|text| !text.contains('/'));
    if wanted.metadata().is_ok_and(|metadata| !metadata.is_dir()) || text.is_none() {
        return Ok(Named { path: wanted.to_owned(), by_id: false });
    }
    let text = text.unwrap_or_default();
    let looks_like_file = text.contains('.');
    let (all, errors) = snapshots(config, app, working_dir, data_dir);
    match listing::resolve(&all, text, app) {
        Ok(snapshot) => Ok(Named { path: snapshot.path.clone(), by_id: text != "latest" }),
        // What was meant as a file is said to be missing as one.
        Err(_) if looks_like_file => Ok(Named { path: wanted.to_owned(), by_id: false }),
        Err(error) if errors.is_empty() => Err(error),
        Err(error) => {
            let what = format!("{}; not all places could be listed: {}", error.what(), errors.join("; "));
            Err(Error::new(ErrorKind::Unreachable, what)
                .state("nothing was begun")
                .next("mount what is missing, then try again"))
        }
    }
}
