//! Which sources a restore in place brings back, and where each one stands: as
//! the configuration says, else as the archive does.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use lifeboat_format::archive::Archive;
use lifeboat_format::record::{Head, Source};

use super::name::{Name, below};
use super::plan::PlannedRoot;
use super::terms::{Root, Terms, parse_only};
use super::{Host, LiveRequest};
use crate::config::{self, AppConfig, FilesSource};
use crate::{Error, ErrorKind, Result};

const NOTHING: &str = "nothing was written, and nothing was stopped";

/// The sources of a restore, before anything live was looked at.
pub(super) struct Targets<'a> {
    pub(super) head: &'a Head,
    pub(super) app: Option<&'a AppConfig>,
    pub(super) roots: Vec<Root>,
    pub(super) planned: Vec<PlannedRoot>,
    /// What the snapshot lacks.
    pub(super) lacks: Vec<String>,
}

/// Finds them.
pub(super) fn find<'a>(archive: &'a Archive, request: &LiveRequest, host: &Host<'a>) -> Result<Targets<'a>> {
    let head = archive.head().ok_or_else(|| {
        Error::new(
            ErrorKind::Usage,
            format!("{} was not written by Lifeboat, and does not say where it belongs", archive.path().display()),
        )
        .state(NOTHING)
        .next("restore it into a directory with --to DIR")
    })?;
    let app = host.config.and_then(|config| config.apps.get(&head.app));
    let only = parse_all(&request.only, head)?;
    let mut targets = Targets { head, app, roots: Vec::new(), planned: Vec::new(), lacks: lacks(head) };
    for source in &head.sources {
        let globs = only.iter().filter(|(name, _)| *name == source.name);
        let globs: Vec<&Option<String>> = globs.map(|(_, glob)| glob).collect();
        if source.details.failed.is_some() || (!only.is_empty() && globs.is_empty()) {
            continue;
        }
        let globs = if globs.iter().any(|glob| glob.is_none()) { Vec::new() } else { globs };
        targets.add(source, globs.into_iter().flatten().cloned().collect())?;
    }
    refuse_overlap(&targets.roots)?;
    refuse_data_dir(&targets.roots, host.data_dir)?;
    Ok(targets)
}

fn parse_all<'r>(only: &'r [String], head: &Head) -> Result<Vec<(&'r str, Option<String>)>> {
    let only: Vec<_> = only.iter().map(|only| parse_only(only)).collect::<Result<_>>()?;
    let names: Vec<&str> = head.sources.iter().map(|source| source.name.as_str()).collect();
    for (name, _) in &only {
        if !names.contains(name) {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("--only {name}: the snapshot has no source of that name"),
            )
            .state(NOTHING)
            .next(format!("its sources are: {}", names.join(", "))));
        }
    }
    Ok(only)
}

/// What the snapshot is known to lack, one line each.
fn lacks(head: &Head) -> Vec<String> {
    let failed = head.sources.iter().filter_map(|source| {
        source.details.failed.as_ref().map(|why| format!("source {}: it failed: {why}", source.name))
    });
    let unreadable = head.problems.iter().filter(|problem| problem.starts_with(UNREADABLE)).cloned();
    failed.chain(unreadable).collect()
}

const UNREADABLE: &str = "unreadable: ";

/// The entries that the backup could not read or skipped, as their paths are shown.
fn lost(head: &Head) -> Vec<String> {
    let lines = head
        .problems
        .iter()
        .filter_map(|problem| problem.strip_prefix(UNREADABLE).or_else(|| problem.strip_prefix("skipped: ")));
    // A path may hold what parts it from the message, so that every way to part them counts.
    lines.flat_map(|line| line.match_indices(": ").map(|(at, _)| line[..at].to_owned())).collect()
}

impl Targets<'_> {
    fn add(&mut self, source: &Source, only: Vec<String>) -> Result<()> {
        let recorded = source.root_bytes()?.map(|root| PathBuf::from(OsStr::from_bytes(&root)));
        let configured = self.app.and_then(|app| configured(app, source, recorded.as_deref()));
        let root = configured.map(|source| source.root.clone()).or(recorded).filter(|root| root.is_absolute());
        let root = root.ok_or_else(|| {
            Error::new(ErrorKind::Usage, format!("the archive does not say where the source {} stood", source.name))
                .state(NOTHING)
                .next("restore it into a directory with --to DIR")
        })?;
        let path = resolve(&root)?;
        self.planned.push(PlannedRoot {
            source: source.name.clone(),
            root: lifeboat_format::path::shown(path.as_os_str().as_bytes()),
            is_configured: configured.is_some(),
            exists: path.symlink_metadata().is_ok(),
        });
        let mut exclude = vec![source.details.exclude.clone()];
        exclude.extend(configured.map(|source| source.exclude.clone()));
        self.roots.push(Root {
            source: Name(source.name.as_bytes().to_vec()),
            path: Name::of(&path),
            only,
            include: source.details.include.clone(),
            exclude,
            lost: lost(self.head),
            outer: None,
            borders: Vec::new(),
        });
        Ok(())
    }
}

/// The configured source of the same name, else the one at the same root.
fn configured<'a>(app: &'a AppConfig, source: &Source, root: Option<&Path>) -> Option<&'a FilesSource> {
    let files = |source| match source {
        &config::Source::Files(ref files) => Some(files),
        config::Source::Sqlite(_) => None,
    };
    let by_root = || app.sources.values().filter_map(files).find(|configured| Some(configured.root.as_path()) == root);
    app.sources.get(&source.name).and_then(files).or_else(by_root)
}

/// `path` without symlinks, as far as it exists.
fn resolve(path: &Path) -> Result<PathBuf> {
    let failed = |error: std::io::Error| {
        Error::from(lifeboat_store::Error::io("find", path, error)).state(NOTHING).next("check the path of the root")
    };
    if path.components().any(|component| component == std::path::Component::ParentDir) {
        return Err(failed(std::io::ErrorKind::InvalidInput.into()));
    }
    let mut missing = Vec::new();
    let mut at = path;
    loop {
        match at.canonicalize() {
            Ok(real) => return Ok(missing.iter().rev().fold(real, |dir, name| dir.join(name))),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            Err(error) => {
                // A symlink to nowhere: where it should lead is not ours to decide.
                if at.symlink_metadata().is_ok() {
                    return Err(failed(error));
                }
                missing.push(at.file_name().unwrap_or_default());
                at = at.parent().ok_or_else(|| failed(error))?;
            }
        }
    }
}

fn refuse_overlap(roots: &[Root]) -> Result<()> {
    let mut seen: BTreeSet<&Name> = BTreeSet::new();
    for root in roots {
        if let Some(other) = seen.iter().find(|other| overlap(&root.path.0, &other.0)) {
            return Err(Error::new(ErrorKind::Usage, format!("{other} and {} overlap", root.path))
                .state(NOTHING)
                .next("restore one of them at a time, with --only SOURCE"));
        }
        seen.insert(&root.path);
    }
    Ok(())
}

/// Whether one path is the other or lies below it.
pub(super) fn overlap(a: &[u8], b: &[u8]) -> bool {
    let below = |path: &[u8], dir: &[u8]| dir == b"/" || below(path, dir).is_some();
    below(a, b) || below(b, a)
}

/// The journal must not be swapped along with what it is about.
fn refuse_data_dir(roots: &[Root], data_dir: &Path) -> Result<()> {
    let real = resolve(data_dir)?;
    match roots.iter().find(|root| root.path.0 == b"/" || below(real.as_os_str().as_bytes(), &root.path.0).is_some()) {
        None => Ok(()),
        Some(root) => Err(Error::new(
            ErrorKind::Usage,
            format!("Lifeboat's data directory {} lies in {}, which would be restored", real.display(), root.path),
        )
        .state(NOTHING)
        .next("choose another place for it with --data-dir, LIFEBOAT_DATA_DIR or data_dir in lifeboat.yaml")),
    }
}

/// The lock that a restore of these targets takes.
pub(super) fn lock_key(targets: &Targets<'_>) -> String {
    let roots: Vec<PathBuf> = targets
        .head
        .sources
        .iter()
        .filter_map(|source| {
            let root = source.root_bytes().ok().flatten()?;
            Some(PathBuf::from(OsStr::from_bytes(&root)))
        })
        .collect();
    crate::lock::key(&targets.head.app, if targets.app.is_some() { &[] } else { &roots })
}

/// Whether a root of `terms` lies at, above or below `path`.
pub(super) fn touches(terms: &Terms, path: &Path) -> bool {
    terms.roots.iter().any(|root| overlap(&root.path.0, path.as_os_str().as_bytes()))
}
