//! Which sources a restore in place brings back, and where each one stands: as
//! the configuration says, else as the archive does.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use lifeboat_format::archive::Archive;
use lifeboat_format::record::{Head, Source};

use super::apart::NotRestored;
use super::database::{log_of, patterns};
use super::name::{Name, below};
use super::plan::PlannedRoot;
use super::servers;
use super::terms::{Mode, Root, RootKind, Terms, parse_only};
use super::{Host, LiveRequest};
use crate::config::{self, AppConfig, Carried};
use crate::sqlite::LOGS;
use crate::{Error, ErrorKind, Result};
use tables::{Part, Tables};

mod tables;

const NOTHING: &str = "nothing was written, and nothing was stopped";
/// The kind of what was asked of a database, and stands nowhere.
const EXPORT: &str = "export";

/// The sources of a restore, before anything live was looked at.
pub(super) struct Targets<'a> {
    pub(super) head: &'a Head,
    /// The app as it is configured here, else as an archive that is trusted says.
    pub(super) app: Option<&'a AppConfig>,
    pub(super) is_configured: bool,
    pub(super) roots: Vec<Root>,
    pub(super) planned: Vec<PlannedRoot>,
    /// What the snapshot lacks.
    pub(super) lacks: Vec<String>,
    /// What in it is never restored in place: answers to queries.
    pub(super) exports: Vec<String>,
    /// What is left as it is.
    pub(super) apart: Vec<NotRestored>,
}

/// Finds them.
pub(super) fn find<'a>(archive: &'a Archive, request: &'a LiveRequest, host: &Host<'a>) -> Result<Targets<'a>> {
    let head = archive.head().ok_or_else(|| {
        Error::new(
            ErrorKind::Usage,
            format!("{} was not written by Lifeboat, and does not say where it belongs", archive.path().display()),
        )
        .state(NOTHING)
        .next("restore it into a directory with --to DIR")
    })?;
    let configured = host.config.and_then(|config| config.apps.get(&head.app));
    let app = configured.or(request.trusted.as_ref());
    let only = parse_all(&request.only, head, app)?;
    let tables = Tables::of(request, head, &only)?;
    // What rows are known by acts on nothing: it counts though the rest of what the archive says is not trusted.
    let carried = if app.is_none() && request.mode == Mode::Merge { carried(head)? } else { None };
    let unused = carried.map(|carried| carried.into_app(&head.app)).transpose()?;
    let mut targets = Targets {
        head,
        app,
        is_configured: configured.is_some(),
        roots: Vec::new(),
        planned: Vec::new(),
        lacks: lacks(head),
        exports: Vec::new(),
        apart: Vec::new(),
    };
    for source in &head.sources {
        let parts: Vec<&Part> = only.iter().filter(|(name, _)| *name == source.name).map(|(_, part)| part).collect();
        let is_chosen = if only.is_empty() { tables.choose(source) } else { !parts.is_empty() };
        if source.details.failed.is_some() || !is_chosen {
            continue;
        }
        if request.mode == Mode::Merge && source.kind == "mariadb" {
            let what = format!("the source {}: {}", source.name, servers::NOT_MERGED.0);
            return Err(Error::new(ErrorKind::Usage, what).state(NOTHING).next(servers::NOT_MERGED.1));
        }
        if let Some(apart) = NotRestored::of(source, app, archive.path()) {
            // Who asks for it by name is not given anything else instead.
            if !only.is_empty() || !request.tables.is_empty() {
                return Err(apart.refusal());
            }
            targets.apart.push(apart);
            continue;
        }
        let globs = if parts.contains(&&Part::All) { &[][..] } else { &parts[..] };
        let globs: Vec<String> = globs.iter().filter_map(|part| part.glob()).collect();
        if source.kind == EXPORT {
            targets.exports.push(lifeboat_format::path::shown(source.place().as_bytes()));
        } else if source.kind == "postgres" {
            targets.add_databases(source, globs, host.data_dir)?;
        } else {
            targets.add(source, globs)?;
            if let Some(root) = targets.roots.last_mut() {
                root.rows = tables.rows(source, &parts, app.or(unused.as_ref()));
            }
        }
    }
    if let (Some(apart), true) = (targets.apart.first(), targets.roots.is_empty()) {
        return Err(apart.refusal());
    }
    targets.part_databases();
    refuse_overlap(&targets.roots)?;
    refuse_data_dir(&targets.roots, host.data_dir)?;
    Ok(targets)
}

/// The configuration that a snapshot carries.
///
/// # Errors
/// When it is none.
pub(crate) fn carried(head: &Head) -> Result<Option<Carried>> {
    let parse = |value: &serde_json::Value| {
        serde_json::from_value(value.clone()).map_err(|error| {
            let what = format!("the configuration that the snapshot carries cannot be read: {error}");
            Error::new(ErrorKind::Corrupt, what).state(NOTHING).next("write a lifeboat.yaml for the app")
        })
    };
    head.config.as_ref().map(parse).transpose()
}

/// `--only`, each a source of the snapshot with what is wanted of it; the name
/// of a part of the app stands for what the part holds.
fn parse_all(only: &[String], head: &Head, app: Option<&AppConfig>) -> Result<Vec<(String, Part)>> {
    let restored = head.sources.iter().filter(|source| source.kind != EXPORT);
    let names: Vec<&str> = restored.map(|source| source.name.as_str()).collect();
    let mut all = Vec::new();
    for text in only {
        let (name, glob) = parse_only(text)?;
        if names.contains(&name) {
            all.push((name.to_owned(), glob.map_or(Part::All, Part::Glob)));
            continue;
        }
        let part = app.and_then(|app| Some((app, app.parts.get(name)?)));
        let Some((app, part)) = part.filter(|_| glob.is_none()) else {
            let parts = app.into_iter().flat_map(|app| app.parts.keys().map(String::as_str));
            let known: Vec<&str> = names.iter().copied().chain(parts).collect();
            let meant =
                config::nearest(name, &known).map(|meant| format!("did you mean {meant}? ")).unwrap_or_default();
            return Err(Error::new(
                ErrorKind::Usage,
                format!("--only {name}: the snapshot has no source of that name"),
            )
            .state(NOTHING)
            .next(format!("{meant}its sources are: {}", names.join(", "))));
        };
        for (source, patterns) in part {
            let of = match app.sources.get(source) {
                Some(config::Source::Files(_)) | None => Part::Glob,
                Some(config::Source::Sqlite(_)) => Part::Table,
                Some(_) => return Err(tables::refused(&format!("--only {name}"), source)),
            };
            all.extend(patterns.iter().map(|pattern| (source.clone(), of(pattern.clone()))));
        }
    }
    Ok(all)
}

/// What the snapshot is known to lack, one line each.
fn lacks(head: &Head) -> Vec<String> {
    let failed = head.sources.iter().filter_map(|source| {
        source.details.failed.as_ref().map(|why| format!("source {}: it failed: {why}", source.name))
    });
    let lost = |problem: &&String| problem.starts_with(UNREADABLE) || problem.starts_with(MISSING);
    failed.chain(head.problems.iter().filter(lost).cloned()).collect()
}

const UNREADABLE: &str = "unreadable: ";
const MISSING: &str = "missing: ";

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
        let kind = match source.kind.as_str() {
            "files" => RootKind::Files,
            "sqlite" => RootKind::Sqlite,
            other => {
                let what =
                    format!("the source {} is of the kind {other}, which this version cannot restore", source.name);
                return Err(Error::new(ErrorKind::Unsupported, what).state(NOTHING).next("update Lifeboat"));
            }
        };
        let recorded = source.root_bytes()?.map(|root| PathBuf::from(OsStr::from_bytes(&root)));
        let configured =
            self.app.filter(|_| self.is_configured).and_then(|app| find_configured(app, source, recorded.as_deref()));
        let root = configured
            .and_then(config::Source::root)
            .map(Path::to_owned)
            .or(recorded)
            .filter(|root| root.is_absolute());
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
        if let Some(config::Source::Files(files)) = configured {
            exclude.push(files.exclude.clone());
        }
        let name = |text: &String| Name(text.as_bytes().to_vec());
        let place = source.place();
        let is_other = |other: &&Source| {
            other.name != source.name
                && below(other.place().as_bytes(), place.as_bytes()).is_some_and(|rest| !rest.is_empty())
        };
        self.roots.push(Root {
            source: name(&source.name),
            kind,
            others: self.head.sources.iter().filter(is_other).map(|other| name(&other.place())).collect(),
            at: Some(name(&place)),
            names: source.names.iter().map(name).collect(),
            path: Name::of(&path),
            server: None,
            only,
            rows: None,
            include: source.details.include.clone(),
            exclude,
            lost: lost(self.head),
            outer: None,
            borders: Vec::new(),
        });
        Ok(())
    }

    /// Databases of a server: what is unpacked is their dumps, below our own data.
    fn add_databases(&mut self, source: &Source, only: Vec<String>, data_dir: &Path) -> Result<()> {
        // `--only` has the name of a database where it has a pattern of files elsewhere.
        let only = only.iter().map(|name| servers::pattern_of(source, name.trim_start_matches('/')));
        let configured = self.app.and_then(|app| app.sources.get(&source.name));
        let server = match configured {
            Some(config::Source::Postgres(postgres)) => postgres.server.name(),
            _ => String::new(),
        };
        self.planned.push(PlannedRoot {
            source: source.name.clone(),
            root: server.clone(),
            is_configured: self.is_configured,
            exists: true,
        });
        // A name of our own, whatever the archive calls the source, and another one for each app.
        let folder = format!("{}.{}.dumps", lock_key(self), self.roots.len());
        self.roots.push(Root {
            source: Name(source.name.as_bytes().to_vec()),
            kind: RootKind::Postgres,
            at: Some(Name(source.place().into_bytes())),
            path: Name::of(&resolve(data_dir)?.join(folder)),
            server: Some(server),
            only: only.collect::<Result<_>>()?,
            ..Root::default()
        });
        Ok(())
    }

    /// A database that lies in a root of files is no part of it, whether it is restored or not.
    fn part_databases(&mut self) {
        let is_database = |root: &&Root| root.kind == RootKind::Sqlite;
        let restored: Vec<PathBuf> =
            self.roots.iter().filter(is_database).map(|root| root.path.as_path().to_owned()).collect();
        let configured = self.app.into_iter().flat_map(|app| app.sources.values()).filter_map(|source| match source {
            config::Source::Sqlite(source) => Some(resolve(&source.path).unwrap_or_else(|_| source.path.clone())),
            _ => None,
        });
        let all: Vec<PathBuf> = restored.iter().cloned().chain(configured).collect();
        for root in self.roots.iter_mut().filter(|root| root.kind == RootKind::Files) {
            let patterns = all.iter().filter_map(|path| patterns(root.path.as_path(), path));
            root.exclude.extend(patterns.collect::<Vec<_>>());
            // A snapshot may hold in its files what stood where the database goes now.
            for path in restored.iter().filter_map(|path| below(path.as_os_str().as_bytes(), &root.path.0)) {
                let entry = root.entry_path(path);
                root.others.extend([""].into_iter().chain(LOGS).map(|end| Name(log_of(&entry, end))));
            }
        }
    }
}

/// The configured source of the same name and kind, else the one at the same root.
fn find_configured<'a>(app: &'a AppConfig, source: &Source, root: Option<&Path>) -> Option<&'a config::Source> {
    let is_kind = |configured: &&config::Source| configured.kind() == source.kind;
    let by_root = || app.sources.values().filter(is_kind).find(|configured| configured.root() == root);
    app.sources.get(&source.name).filter(is_kind).or_else(by_root)
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
    let roots: Vec<&Root> = roots.iter().filter(|root| root.kind != RootKind::Postgres).collect();
    for (number, root) in roots.iter().enumerate() {
        // A database in a root of files was left out there.
        let is_parted = |other: &Root| other.kind != root.kind && other.path != root.path;
        let overlaps = |other: &&&Root| overlap(&root.path.0, &other.path.0) && !is_parted(other);
        if let Some(other) = roots[..number].iter().find(overlaps) {
            return Err(Error::new(ErrorKind::Usage, format!("{} and {} overlap", other.path, root.path))
                .state(NOTHING)
                .next("restore one of them at a time, with --only SOURCE"));
        }
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
    crate::lock::key(&targets.head.app, if targets.is_configured { &[] } else { &roots })
}

/// Whether a root of `terms` lies at, above or below `path`.
pub(super) fn touches(terms: &Terms, path: &Path) -> bool {
    let mut in_files = terms.roots.iter().filter(|root| root.kind != RootKind::Postgres);
    in_files.any(|root| overlap(&root.path.0, path.as_os_str().as_bytes()))
}
