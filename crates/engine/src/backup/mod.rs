//! Backing up: find the sources, capture them into a spool, put the manifest
//! before it, read the result back, and only then give it its name.

mod target;

use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use lifeboat_format::archive::{Archive, Captured, pipeline, verify};
use lifeboat_format::capture::Entries as _;
use lifeboat_format::model::Outcome;
use lifeboat_format::monitor::Silent;
use lifeboat_format::path::shown;
use lifeboat_format::record::{self, Details, FORMAT, Head, Tool};
use lifeboat_store::durable::{self, Unnamed};

use crate::clock::Clock;
use crate::report::{BackupPlan, BackupReport, BackupRequest, FailedSource, PlannedSource, Watch};
use crate::source::files::{LeftOut, OutputDir, Tree};
use crate::source::roots::{self, Root};
use crate::tally::Tally;
use crate::{Error, ErrorKind, Result, workers};
use target::Target;

const NOTHING_WRITTEN: &str = "no archive was made, and nothing else was changed";

/// Backs up the paths of `request` into one archive.
pub(crate) fn backup(clock: &dyn Clock, request: &BackupRequest, watch: Watch<'_>) -> Result<BackupReport> {
    let began = Instant::now();
    let started = clock.timestamp();
    let host = host();
    let target = Target::find(request, &host, &clock.now())?;
    let tally = Tally::new(watch.monitor);
    let (roots, failed) = find_sources(request, &host)?;
    let mut sources: Vec<record::Source> = roots.iter().map(|root| describe(root, started, request)).collect();

    let (captured, left_out) = capture(request, &target, roots, Watch { monitor: &tally, ..watch })?;
    refuse_nothing(&captured, &tally)?;
    let finished = clock.timestamp();
    sources.iter_mut().for_each(|source| source.finished = finished);
    sources.extend(failed.iter().map(|source| describe_failed(source, started, finished)));
    let outcome = if failed.is_empty() && !tally.has_unreadable() { Outcome::Good } else { Outcome::Partial };
    let head = head(target.app.clone(), host, outcome, sources, &captured, &tally, (started, finished));
    let (archive, verified) = make_archive(captured, &head, request, &target, watch)?;
    let size_bytes = archive.len();
    let path = archive.publish(target.names(), 0o666).map_err(|error| target.not_published(error))?;

    Ok(BackupReport {
        archive: path,
        id: head.id,
        app: head.app,
        outcome,
        size_bytes,
        files: head.totals.files,
        entries: head.totals.entries,
        bytes: head.totals.bytes,
        excluded: left_out.excluded,
        own_archives: left_out.own_archives,
        failed_sources: failed,
        problems: tally.problems(),
        verified,
        recovered: Vec::new(),
        elapsed: began.elapsed(),
    })
}

/// What [`backup`] would do.
pub(crate) fn plan(clock: &dyn Clock, request: &BackupRequest, watch: Watch<'_>) -> Result<BackupPlan> {
    let host = host();
    let target = Target::find(request, &host, &clock.now())?;
    let tally = Tally::new(watch.monitor);
    let (roots, failed_sources) = find_sources(request, &host)?;
    let mut sources = Vec::new();
    let mut left_out = LeftOut::default();
    for root in roots {
        let (name, path) = (root.name.clone(), root.path.clone());
        let mut tree = Tree::new(vec![root], &request.selection, OutputDir::new(&target.dir), &tally)?;
        let (files, bytes) = count(&mut tree, watch)?;
        left_out.excluded += tree.left_out.excluded;
        left_out.own_archives += tree.left_out.own_archives;
        sources.push(PlannedSource { name, root: shown(path.as_os_str().as_bytes()), files, bytes });
    }
    let existing = target.dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(&target.dir);
    Ok(BackupPlan {
        archive: target.dir.join(target.names().find(|name| !target.dir.join(name).exists()).unwrap_or_default()),
        sources,
        failed_sources,
        excluded: left_out.excluded,
        own_archives: left_out.own_archives,
        free_bytes: durable::free_space(existing)?.0,
        problems: tally.problems(),
    })
}

/// The application that `request` backs up, and the roots of its sources.
pub(crate) fn subject(request: &BackupRequest) -> (String, Vec<PathBuf>) {
    let roots: Vec<PathBuf> =
        request.paths.iter().map(|path| roots::absolute(&request.working_dir.join(path))).collect();
    (roots.first().map_or_else(String::new, |first| roots::base_name(first, &host())), roots)
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The roots of all sources. Fails when none is left.
fn find_sources(request: &BackupRequest, host: &str) -> Result<(Vec<Root>, Vec<FailedSource>)> {
    let (roots, failed) = roots::open_all(&request.paths, &request.working_dir, host)?;
    if roots.is_empty() {
        let reasons: Vec<String> = failed.iter().map(|source| format!("{}: {}", source.root, source.message)).collect();
        return Err(Error::new(ErrorKind::SourceFailed, format!("could not back up {}", reasons.join("; ")))
            .state(NOTHING_WRITTEN)
            .next("check the path, its permissions, and that its file system is mounted"));
    }
    Ok((roots, failed))
}

/// A single file that was lost while it was read leaves nothing to make an archive of.
fn refuse_nothing(captured: &Captured, tally: &Tally<'_>) -> Result<()> {
    if captured.totals().entries > 0 {
        return Ok(());
    }
    let problems = tally.problems();
    let reasons: Vec<String> =
        problems.listed.iter().map(|problem| format!("{}: {}", problem.object, problem.message)).collect();
    Err(Error::new(ErrorKind::SourceFailed, format!("nothing could be backed up: {}", reasons.join("; ")))
        .state(NOTHING_WRITTEN)
        .next("check that it exists and can be read"))
}

/// Files and bytes that `tree` lists.
fn count(tree: &mut Tree<'_>, watch: Watch<'_>) -> Result<(u64, u64)> {
    let (mut files, mut bytes) = (0, 0);
    while let Some(item) = tree.next() {
        watch.cancel.check()?;
        files += u64::from(item.is_file());
        bytes += item.size();
    }
    Ok((files, bytes))
}

fn capture(
    request: &BackupRequest,
    target: &Target,
    roots: Vec<Root>,
    watch: Watch<'_>,
) -> Result<(Captured, LeftOut)> {
    let options = pipeline::Options { compression: target.compression, threads: workers::count(request.threads) };
    let mut tree = Tree::new(roots, &request.selection, OutputDir::new(&target.dir), watch.monitor)?;
    target.create_dir()?;
    if watch.monitor.wants_total() {
        let (roots, _) = find_sources(request, &host())?;
        let mut tree = Tree::new(roots, &request.selection, OutputDir::new(&target.dir), &Silent)?;
        let (files, bytes) = count(&mut tree, watch)?;
        watch.monitor.expected(files, bytes);
    }
    let captured = pipeline::capture(&target.dir, options, &mut tree, watch.monitor, watch.cancel)
        .map_err(|error| target.not_written(error.into()))?;
    Ok((captured, tree.left_out))
}

fn describe(root: &Root, started: Timestamp, request: &BackupRequest) -> record::Source {
    let mut source = record::Source {
        name: root.name.clone(),
        kind: "files".to_owned(),
        at: None,
        names: Vec::new(),
        started,
        finished: started,
        point: None,
        pause_ms: 0,
        root: None,
        root_b64: None,
        details: Details {
            include: request.selection.include.clone(),
            exclude: request.selection.exclude.clone(),
            failed: None,
            database: None,
        },
    };
    source.set_root(root.path.as_os_str().as_bytes());
    source
}

fn describe_failed(source: &FailedSource, started: Timestamp, finished: Timestamp) -> record::Source {
    record::Source {
        name: source.name.clone(),
        kind: "files".to_owned(),
        at: None,
        names: Vec::new(),
        started,
        finished,
        point: None,
        pause_ms: 0,
        root: Some(source.root.clone()),
        root_b64: None,
        details: Details { failed: Some(source.message.clone()), ..Details::default() },
    }
}

fn head(
    app: String,
    host: String,
    outcome: Outcome,
    sources: Vec<record::Source>,
    captured: &Captured,
    tally: &Tally<'_>,
    (started, finished): (Timestamp, Timestamp),
) -> Head {
    let problems = tally.problems();
    let window = Duration::try_from(finished.duration_since(started)).unwrap_or_default();
    Head {
        format: FORMAT.to_owned(),
        tool: Tool { name: "lifeboat".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
        app,
        app_version: None,
        host,
        id: durable::random_hex(),
        created: started,
        window_ms: u64::try_from(window.as_millis()).unwrap_or(u64::MAX),
        outcome,
        sources,
        totals: captured.totals(),
        problems: problems
            .listed
            .iter()
            .map(|problem| format!("{}: {}: {}", problem.class.word(), problem.object, problem.message))
            .collect(),
        problem_counts: problems.counts.iter().map(|(class, count)| ((*class).to_owned(), *count)).collect(),
        config: None,
    }
}

/// The archive without a name yet, and whether it was read back.
fn make_archive(
    captured: Captured,
    head: &Head,
    request: &BackupRequest,
    target: &Target,
    watch: Watch<'_>,
) -> Result<(Unnamed, bool)> {
    let archive = captured.finish(&target.dir, head).map_err(|error| target.not_written(error.into()))?;
    if request.verify_on_create {
        read_back(&archive, head, request, target, watch)?;
    }
    watch.cancel.check().map_err(|error| target.not_written(error.into()))?;
    Ok((archive, request.verify_on_create))
}

fn read_back(archive: &Unnamed, head: &Head, request: &BackupRequest, target: &Target, watch: Watch<'_>) -> Result<()> {
    let file = archive.file().try_clone().map_err(|error| Error::new(ErrorKind::Failed, error.to_string()))?;
    let shown = PathBuf::from("the archive that was just written");
    let findings = Archive::of_file(file, &shown)
        .and_then(|archive| verify::verify(&archive, workers::count(request.threads), watch.cancel, &mut |_, _, _| {}));
    let findings = match findings {
        Ok(findings) => findings,
        Err(error) if error.kind() == lifeboat_format::ErrorKind::Corrupt => {
            return Err(bad_archive(&error.to_string()));
        }
        Err(error) => return Err(target.not_written(error.into())),
    };
    if findings.is_good() && findings.entries == head.totals.entries {
        return Ok(());
    }
    let damage = findings.damage.unwrap_or_else(|| format!("{} of {} files differ", findings.failed, findings.files));
    Err(bad_archive(&damage))
}

fn bad_archive(damage: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the archive did not read back as it was written: {damage}"))
        .state("the archive was thrown away; what was backed up is untouched")
        .next("run the backup again; if it fails again, test this machine's memory and disk")
}
