//! Brings the sources of a backup to their points: roots are opened, databases
//! pinned and copied. What fails is named, and the others go on.

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use lifeboat_format::capture::Item;
use lifeboat_format::path::{EntryPath, shown};
use lifeboat_format::record::{self, Details};

use super::subject::Job;
use crate::config::SqliteSource;
use crate::report::{DatabaseReport, FailedSource, Selection, Watch};
use crate::source::copied::Copy;
use crate::source::files::{Options, OutputDir, Tree};
use crate::source::matcher::{Matcher, literal};
use crate::source::merged::{Merged, Needed, Part};
use crate::source::roots::{EMPTY, Held, Holder, Root};
use crate::source::streamed::Streamed;
use crate::sqlite::{Copied, Facts, NotPinned, Pinned, Reason};
use crate::{Cancel, Error, ErrorKind, Result};

/// A database whose state is pinned.
pub(super) struct PinnedDatabase {
    pub(super) name: String,
    source: SqliteSource,
    pinned: Pinned,
    /// When it was.
    point: Timestamp,
}

/// A database that was copied.
pub(super) struct CopiedDatabase {
    name: String,
    source: SqliteSource,
    point: Timestamp,
    item: Copy,
    facts: Facts,
}

/// A source that is dumped while it is captured.
pub(super) struct Dumped {
    /// What is recorded of it.
    pub(super) description: record::Source,
    /// At or below which all of its entries stand, and nothing else.
    pub(super) place: EntryPath,
    pub(super) items: Vec<Streamed>,
}

/// Sources that failed so far.
#[derive(Default)]
pub(super) struct Failures(pub(super) Vec<FailedSource>);

impl Failures {
    pub(super) fn add(&mut self, name: &str, root: &Path, message: impl Into<String>) {
        let (name, root) = (name.to_owned(), shown(root.as_os_str().as_bytes()));
        self.0.push(FailedSource { name, root, message: message.into(), next: None });
    }

    /// Keeps an error as that of a source, unless it ends the run.
    pub(super) fn keep<T>(&mut self, name: &str, root: &Path, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::NoSpace) => Err(error),
            Err(error) => {
                self.add(name, root, error.to_string());
                self.0.last_mut().expect("it was added").next = error.next_step().map(str::to_owned);
                Ok(None)
            }
        }
    }
}

/// Opens the roots of all sources of files. An empty one fails if it
/// `was_filled`. While something of them is still to be read, `held` lives.
pub(super) fn open_roots(
    job: &Job<'_>,
    held: Option<&Held>,
    was_filled: impl Fn(&str) -> bool,
    failures: &mut Failures,
) -> Result<Vec<Root>> {
    let mut roots = Vec::new();
    for wanted in &job.files {
        match Root::open(wanted.clone(), held.cloned())? {
            Ok(root) if root.is_empty && was_filled(&wanted.name) => {
                let message = format!("{EMPTY} the last good snapshot has files of it");
                failures.add(&wanted.name, &wanted.path, message);
            }
            Ok(mut root) => {
                job.withheld.iter().for_each(|path| root.withhold(path));
                roots.push(root);
            }
            Err(message) => failures.add(&wanted.name, &wanted.path, message),
        }
    }
    roots.sort_by(|a, b| a.place.cmp(&b.place));
    Ok(roots)
}

/// Pins every database of `job`. With `patience` nothing waits longer for locks
/// than that, all databases together; else for each as long as it is configured.
///
/// # Errors
/// [`ErrorKind::Locked`] where one stays locked for `patience`; or on cancel.
pub(super) fn pin(
    job: &Job<'_>,
    patience: Option<Duration>,
    now: &dyn Fn() -> Timestamp,
    cancel: &Cancel,
    failures: &mut Failures,
) -> Result<Vec<PinnedDatabase>> {
    let began = Instant::now();
    let mut all = Vec::new();
    for (name, source) in &job.databases {
        let timeout = patience.map_or(source.busy_timeout, |patience| patience.saturating_sub(began.elapsed()));
        let pinned = match Pinned::pin(&source.path, timeout, cancel) {
            Err(NotPinned { reason: Reason::Locked, error }) if patience.is_some() => {
                return Err(Error::new(ErrorKind::Locked, error.what()));
            }
            pinned => failures.keep(name, &source.path, pinned.map_err(|not| not.error))?,
        };
        let (name, source) = (name.clone(), source.clone());
        all.extend(pinned.map(|pinned| PinnedDatabase { name, source, pinned, point: now() }));
    }
    Ok(all)
}

/// Copies every database that is pinned into `dir`, and checks the copy.
pub(super) fn copy(
    all: Vec<PinnedDatabase>,
    dir: &Path,
    exclude_tables: &[String],
    watch: Watch<'_>,
    failures: &mut Failures,
) -> Result<Vec<CopiedDatabase>> {
    let mut copies = Vec::new();
    for database in all {
        let PinnedDatabase { name, source, pinned, point } = database;
        let copied = pinned.copy(dir, exclude_tables, watch.cancel, &|_| {});
        let Some(copied) = failures.keep(&name, &source.path, copied)? else { continue };
        let Copied { file, size, facts, .. } = copied;
        let place = EntryPath::new(record::Source::usual_place("sqlite", &name))?;
        let live = source.path.canonicalize().unwrap_or_else(|_| source.path.clone());
        let item = Copy::new(place, &live, file, size)
            .map_err(|error| Error::from(lifeboat_store::Error::io("look at", &source.path, error)));
        let Some(item) = failures.keep(&name, &source.path, item)? else { continue };
        copies.push(CopiedDatabase { name, source, point, item, facts });
    }
    Ok(copies)
}

impl CopiedDatabase {
    pub(super) fn report(&self) -> DatabaseReport {
        DatabaseReport {
            source: self.name.clone(),
            size_bytes: self.item.size(),
            tables: self.facts.tables.len() as u64,
            rows: self.facts.tables.values().sum(),
            excluded_tables: self.facts.excluded_tables.clone(),
            database: None,
            is_schema_only: false,
            is_estimated: false,
        }
    }

    pub(super) fn describe(&self, started: Timestamp) -> record::Source {
        let facts = &self.facts;
        let database = record::Database {
            tables: facts.tables.clone(),
            excluded_tables: facts.excluded_tables.clone(),
            page_size: facts.page_size,
            journal_mode: facts.journal_mode.to_owned(),
            unchecked: facts.unchecked.iter().chain(&facts.notes).cloned().collect(),
        };
        let mut source = describe(&self.name, "sqlite", Some(&self.source.path), started);
        source.point = Some(self.point);
        source.details.database = Some(database);
        source
    }

    pub(super) fn into_item(self) -> Copy {
        self.item
    }
}

/// What is recorded of any source; `root` is where it stands in a file system.
pub(super) fn describe(name: &str, kind: &str, root: Option<&Path>, started: Timestamp) -> record::Source {
    let mut source = record::Source {
        name: name.to_owned(),
        kind: kind.to_owned(),
        at: None,
        names: Vec::new(),
        started,
        finished: started,
        point: None,
        pause_ms: 0,
        root: None,
        root_b64: None,
        details: Details::default(),
    };
    if let Some(root) = root {
        source.set_root(root.as_os_str().as_bytes());
    }
    source
}

/// What is recorded of a source of files.
pub(super) fn describe_root(root: &Root, started: Timestamp) -> record::Source {
    let mut source = describe(&root.name, "files", Some(&root.path), started);
    if !root.is_usual {
        let place = root.place.as_ref().map(EntryPath::to_string);
        source.at = Some(place.unwrap_or_default());
    }
    source.details.include.clone_from(&root.include);
    source.details.exclude.clone_from(&root.exclude);
    // A full restore leaves these alone as well.
    let mut withheld: Vec<String> =
        root.withheld.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
    withheld.sort();
    source.details.exclude.extend(withheld.iter().map(|path| format!("/{}", literal(path))));
    source
}

/// The parts of sources of files that the app requires. A source that is
/// required as a whole is there, or has failed by itself.
pub(super) fn needed(job: &Job<'_>, roots: &[Root]) -> Result<Vec<Needed>> {
    let mut needed = Vec::new();
    for text in job.app.iter().flat_map(|app| &app.required) {
        let Some((source, glob)) = text.split_once('/').filter(|(_, glob)| !glob.is_empty()) else { continue };
        let Some(root) = roots.iter().find(|root| root.name == source && !root.is_file()) else { continue };
        let selection = Selection { include: vec![format!("/{glob}")], ..Selection::default() };
        needed.push(Needed {
            text: text.clone(),
            source: source.to_owned(),
            place: root.place.as_ref().map_or_else(Vec::new, |place| place.as_bytes().to_vec()),
            matcher: Matcher::new(&selection)?,
        });
    }
    Ok(needed)
}

/// Everything in one order. Where the places of sources overlap, each is walked
/// by itself; otherwise together, so that hard links between them stay.
pub(super) fn merge<'a>(
    mut roots: Vec<Root>,
    (databases, dumps): (Vec<CopiedDatabase>, Vec<Dumped>),
    options: Options,
    outputs: &'a [OutputDir],
    (scratch, holder, watch): (&Path, &'a dyn Holder, Watch<'a>),
) -> Result<Merged<'a>> {
    let tree = |roots| {
        let tree = Tree::new(roots, options, outputs, watch.monitor)?.held_by(holder);
        Ok::<_, Error>(Part::Tree(Box::new(tree.with_databases(scratch, watch.cancel))))
    };
    let mut merged = Merged::default();
    let place = |root: &Root| root.place.as_ref().map_or_else(Vec::new, |place| place.as_bytes().to_vec());
    let places: Vec<Vec<u8>> = roots.iter().map(place).collect();
    let is_below = |path: &[u8], dir: &[u8]| {
        dir.is_empty() || path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    };
    let mut pairs = (0..places.len()).flat_map(|a| (0..places.len()).map(move |b| (a, b)));
    let overlap = pairs.any(|(a, b)| a != b && is_below(&places[a], &places[b]));
    if overlap {
        let mut counts: BTreeMap<&[u8], usize> = BTreeMap::new();
        places.iter().for_each(|place| *counts.entry(place).or_default() += 1);
        for (mut root, place) in roots.into_iter().zip(&places) {
            let is_shared = counts[place.as_slice()] > 1 && !root.is_file();
            root.has_own_entry &= !is_shared;
            let name = root.name.clone();
            merged.add(&name, tree(vec![root])?, vec![place.clone()], is_shared);
        }
    } else if !roots.is_empty() {
        let name = if roots.len() == 1 { roots[0].name.clone() } else { "files".to_owned() };
        roots.sort_by(|a, b| a.place.cmp(&b.place));
        merged.add(&name, tree(roots)?, places, false);
    }
    let mut items: Vec<Box<dyn Item>> = Vec::new();
    for database in databases {
        items.push(Box::new(database.into_item()));
    }
    items.sort_by(|a, b| a.path().cmp(b.path()));
    if !items.is_empty() {
        let places = items.iter().map(|item| item.path().as_bytes().to_vec()).collect();
        merged.add("sqlite", Part::Ready(VecDeque::from(items)), places, false);
    }
    for mut dumped in dumps {
        dumped.items.sort_by(|a, b| a.path().cmp(b.path()));
        let items = dumped.items.into_iter().map(|item| Box::new(item) as Box<dyn Item>).collect();
        merged.add(&dumped.description.name, Part::Ready(items), vec![dumped.place.as_bytes().to_vec()], false);
    }
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    /// Shows P5.
    #[test]
    fn all_databases_together_are_waited_for_no_longer_than_one() {
        let dir = tempfile::tempdir().unwrap();
        let source = |name: &str| {
            let path = dir.path().join(name);
            Connection::open(&path).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
            (
                name.to_owned(),
                SqliteSource { path, busy_timeout: Duration::from_secs(60), merge_key: Default::default() },
            )
        };
        let databases: Vec<_> = ["a", "b", "c", "d"].into_iter().map(source).collect();
        let locks: Vec<Connection> =
            databases.iter().map(|(_, source)| Connection::open(&source.path).unwrap()).collect();
        locks.iter().for_each(|lock| lock.execute_batch("BEGIN EXCLUSIVE").unwrap());
        let job = Job {
            app_name: "app".to_owned(),
            app: None,
            files: Vec::new(),
            stops: BTreeMap::new(),
            databases,
            servers: Vec::new(),
            exports: Vec::new(),
            printed: Vec::new(),
            is_scope: false,
            destinations: Vec::new(),
            withheld: Vec::new(),
        };
        let patience = Duration::from_millis(400);
        let began = Instant::now();
        let pinned = std::thread::scope(|scope| {
            scope.spawn(|| {
                // Each is free after another half of the time, so that none takes all of it.
                for lock in locks {
                    std::thread::sleep(patience / 2);
                    drop(lock);
                }
            });
            let pinned = pin(&job, Some(patience), &|| Timestamp::UNIX_EPOCH, &Cancel::new(), &mut Failures::default());
            (pinned.map(|all| all.len()).map_err(|error| error.kind()), began.elapsed())
        });
        assert_eq!(pinned.0, Err(ErrorKind::Locked));
        assert!(pinned.1 < patience * 3 / 2, "{:?}", pinned.1);
    }
}
