//! Backing up: find the sources, bring them to their points, capture them into
//! a spool, put the manifest before it, read the result back, and only then
//! give it its name.

mod bare;
mod gather;
mod ship;
mod subject;
mod target;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use lifeboat_format::archive::{Archive, Captured, pipeline, verify};
use lifeboat_format::capture::Entries as _;
use lifeboat_format::model::Outcome;
use lifeboat_format::monitor::Silent;
use lifeboat_format::path::shown;
use lifeboat_format::record::{self, FORMAT, Head, Tool, Totals};
use lifeboat_store::durable::{self, Unnamed};

use crate::clock::Clock;
use crate::config::Config;
use crate::freeze::{self, Freezing, GuardProgram, Pause, Pauses};
use crate::report::{BackupPlan, BackupReport, BackupRequest, DatabaseReport, FailedSource, PlannedSource, Watch};
use crate::services::{How, Service};
use crate::source::files::{LeftOut, Options, OutputDir, Tree};
use crate::source::roots::{Held, Root};
use crate::tally::Tally;
use crate::{Error, ErrorKind, Result, version, workers};
use gather::Failures;
use subject::Job;
pub(crate) use subject::{app_and_roots, no_such_app, subjects};
use target::Target;

/// So patient is who waits for a database while nothing stands still: as long as that is configured.
const PATIENT: Duration = Duration::MAX;
const NOTHING_WRITTEN: &str = "no archive was made, and nothing else was changed";

/// Where a backup runs: its clock, its configuration, its data.
pub(crate) struct Ground<'a> {
    pub(crate) clock: &'a dyn Clock,
    pub(crate) config: Option<&'a Config>,
    pub(crate) data_dir: &'a std::path::Path,
    /// How the guard of paused services is started.
    pub(crate) guard: &'a GuardProgram,
}

/// What came of one source after the other.
struct Gathered {
    roots: Vec<Root>,
    databases: Vec<gather::CopiedDatabase>,
    sources: Vec<record::Source>,
    failures: Failures,
}

/// Backs up what `request` asks for into one archive.
pub(crate) fn backup(ground: &Ground<'_>, request: &BackupRequest, watch: Watch<'_>) -> Result<BackupReport> {
    let began = Instant::now();
    let host = host();
    let mut job = subject::find(request, ground.config, ground.data_dir, &host)?;
    let reachable = ship::prepare(&job, ground.data_dir)?;
    job.destinations = reachable.usable.clone();
    let target = Target::find(request, &job, &host, &ground.clock.now())?;
    let tally = Tally::new(watch.monitor);
    let watch = Watch { monitor: &tally, ..watch };
    let started = ground.clock.timestamp();
    let pauses = Pauses::default();
    let gathered = gather_all(ground, request, &mut job, &target, &pauses, watch);
    // Also where it failed: a service that stands still is never passed over.
    pauses.tell(watch.monitor);
    let gathered = gathered?;
    if request.bare {
        let mut report = bare::write(ground, &job, &target, gathered, &tally, began)?;
        report.pauses = pauses.take().pauses;
        return Ok(report);
    }
    let snapshot = capture(ground, request, &job, &target, gathered, (started, &pauses), &tally, watch)
        .inspect_err(|_| pauses.tell(watch.monitor))?;
    let mut report = snapshot.report(&tally);
    report.shipped = ship::ship(&report, &snapshot.head, &target, &reachable, watch.cancel)?;
    report.elapsed = began.elapsed();
    Ok(report)
}

/// An archive with its name, and what is known of it.
struct Made {
    path: PathBuf,
    head: Head,
    size_bytes: u64,
    verified: bool,
    left_out: LeftOut,
    failed: Vec<FailedSource>,
    databases: Vec<DatabaseReport>,
    pauses: Vec<Pause>,
}

impl Made {
    fn report(&self, tally: &Tally<'_>) -> BackupReport {
        let head = &self.head;
        BackupReport {
            archive: self.path.clone(),
            id: head.id.clone(),
            app: head.app.clone(),
            outcome: head.outcome,
            size_bytes: self.size_bytes,
            files: head.totals.files,
            entries: head.totals.entries,
            bytes: head.totals.bytes,
            excluded: self.left_out.excluded,
            own_archives: self.left_out.own_archives,
            withheld: self.left_out.withheld,
            database_logs: self.left_out.database_logs,
            databases: self.databases.clone(),
            window_ms: head.window_ms,
            pauses: self.pauses.clone(),
            shipped: Vec::new(),
            failed_sources: self.failed.clone(),
            problems: tally.problems(),
            verified: self.verified,
            recovered: Vec::new(),
            thawed: Vec::new(),
            elapsed: Duration::ZERO,
        }
    }
}

/// Pauses what is to be paused, brings every source to its point, and copies
/// the databases. Services go on when the last source has been read.
fn gather_all(
    ground: &Ground<'_>,
    request: &BackupRequest,
    job: &mut Job<'_>,
    target: &Target,
    pauses: &Pauses,
    watch: Watch<'_>,
) -> Result<Gathered> {
    let now = || ground.clock.timestamp();
    let started = now();
    let id = durable::random_hex();
    let max = job.app.map_or(crate::config::FREEZE_MAX, |app| app.freeze_max);
    let (data_dir, guard, retry_after) = (ground.data_dir, ground.guard, freeze::RETRY_AFTER);
    let freezing = Freezing { data_dir, guard, id: &id, max, retry_after, pauses };
    let services: &[Service] = job.app.map(|app| app.freeze.as_slice()).unwrap_or_default();
    let pin = |patience: Duration| {
        let mut failures = Failures::default();
        let patience = (patience < PATIENT).then_some(patience);
        gather::pin(job, patience, &now, watch.cancel, &mut failures).map(|pinned| (pinned, failures))
    };
    let point = freeze::with_frozen(services, How::Frozen, freezing, PATIENT, watch.cancel, pin)?;
    let (pinned, mut failures) = point.value;
    // Databases have reached their points; files do so when they have been read.
    let frozen = Some(point.frozen).filter(|frozen| !job.files.is_empty() && !frozen.is_empty());
    let exclude_tables = job.app.map(|app| app.exclude_tables.clone()).unwrap_or_default();
    if !pinned.is_empty() {
        target.create_dir()?;
    }
    let databases = gather::copy(pinned, &target.dir, &exclude_tables, watch, &mut failures)
        .map_err(|error| target.not_written(error))?;
    let was_filled = |name: &str| ship::was_filled(places(ground, request, &job.app_name), &job.app_name, name);
    let filled: Vec<String> =
        job.files.iter().map(|(wanted, _)| wanted.name.clone()).filter(|name| was_filled(name)).collect();
    let mut hold = |stop: &[Service]| -> Result<Option<Held>> {
        let stopped = freeze::freeze(stop, How::Stopped, freezing, watch.cancel)?;
        Ok(Some(Arc::new((frozen.clone(), stopped))))
    };
    let roots = gather::open_roots(job, &mut hold, |name| filled.iter().any(|filled| filled == name), &mut failures)?;
    if roots.is_empty() && databases.is_empty() {
        return Err(all_failed(&failures.0));
    }
    let mut sources: Vec<record::Source> = roots.iter().map(|root| gather::describe_root(root, started)).collect();
    sources.extend(databases.iter().map(|database| database.describe(started)));
    Ok(Gathered { roots, databases, sources, failures })
}

fn all_failed(failed: &[FailedSource]) -> Error {
    let reasons: Vec<String> = failed
        .iter()
        .map(|source| {
            let names_root = source.message.contains(&source.root);
            if names_root { source.message.clone() } else { format!("{}: {}", source.root, source.message) }
        })
        .collect();
    Error::new(ErrorKind::SourceFailed, format!("could not back up {}", reasons.join("; ")))
        .state(NOTHING_WRITTEN)
        .next("check the path, its permissions, and that its file system is mounted")
}

/// Where snapshots of `app` may lie.
fn places(ground: &Ground<'_>, request: &BackupRequest, app: &str) -> Vec<(Option<String>, PathBuf)> {
    let of = |config| crate::destination::places(config, Some(app), &request.working_dir);
    ground.config.map(of).unwrap_or_default()
}

#[expect(clippy::too_many_arguments, reason = "the recipe hands on what it has gathered")]
fn capture(
    ground: &Ground<'_>,
    request: &BackupRequest,
    job: &Job<'_>,
    target: &Target,
    gathered: Gathered,
    (started, pauses): (Timestamp, &Pauses),
    tally: &Tally<'_>,
    watch: Watch<'_>,
) -> Result<Made> {
    let Gathered { roots, databases, mut sources, failures } = gathered;
    let reports = databases.iter().map(gather::CopiedDatabase::report).collect();
    let outputs = outputs(job, target);
    let pipeline_options =
        pipeline::Options { compression: target.compression, threads: workers::count(request.threads) };
    expect(request, &outputs, &roots, watch)?;
    let options = options(request);
    let needed = gather::needed(job, &roots)?;
    let mut entries = gather::merge(roots, databases, options, &outputs, (&target.dir, watch))?;
    entries.needed = needed;
    target.create_dir()?;
    let captured = pipeline::capture(&target.dir, pipeline_options, &mut entries, watch.monitor, watch.cancel)
        .map_err(|error| target.not_written(error.into()))?;
    if let Some(collision) = entries.collision.take() {
        return Err(Error::new(ErrorKind::Usage, collision)
            .state(NOTHING_WRITTEN)
            .next("give one of them another `at` in lifeboat.yaml"));
    }
    refuse_nothing(&captured, job, tally)?;
    let finished = ground.clock.timestamp();
    for source in &mut sources {
        source.finished = finished;
        let names = entries.names(&source.name).into_iter().flatten();
        source.names = names.map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    }
    entries.tell_notes();
    entries.tell_missing(watch.monitor);
    let left_out = entries.left_out();
    // Whatever stood still goes on here, at the latest.
    drop(entries);
    let seen = pauses.take();
    seen.problems.into_iter().for_each(|problem| watch.monitor.problem(problem));
    let longest = seen.pauses.iter().map(|pause| pause.pause).max().unwrap_or_default();
    sources.iter_mut().for_each(|source| source.pause_ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX));
    sources.extend(failures.0.iter().map(|source| describe_failed(source, job, started, finished)));
    let is_whole = failures.0.is_empty() && !tally.has_losses();
    let outcome = match (is_whole, job.is_scope) {
        (false, _) => Outcome::Partial,
        (true, true) => Outcome::Scope,
        (true, false) => Outcome::Good,
    };
    let mut head = head_of(job, outcome, sources, captured.totals(), tally, (started, finished));
    head.app_version = app_version(job, watch);
    let (archive, verified) = make_archive(captured, &head, request, job, target, watch)?;
    let size_bytes = archive.len();
    let path = archive.publish(target.names(), 0o666).map_err(|error| target.not_published(error))?;
    let (failed, databases, pauses) = (failures.0, reports, seen.pauses);
    Ok(Made { path, head, size_bytes, verified, left_out, failed, databases, pauses })
}

fn options(request: &BackupRequest) -> Options {
    Options { devices: request.selection.devices, one_file_system: request.selection.one_file_system }
}

/// The directories that archives of this job go to.
fn outputs(job: &Job<'_>, target: &Target) -> Vec<OutputDir> {
    let dirs = job.destinations.iter().map(|destination| destination.dir.as_path());
    let configured = job.app.and_then(|app| app.backup_dir.as_deref());
    std::iter::once(target.dir.as_path()).chain(dirs).chain(configured).filter_map(OutputDir::new).collect()
}

/// Finds out how much there is to do, where somebody is shown how far it is.
fn expect(request: &BackupRequest, outputs: &[OutputDir], roots: &[Root], watch: Watch<'_>) -> Result<()> {
    if !watch.monitor.wants_total() {
        return Ok(());
    }
    let again = roots.iter().map(Root::reopen).collect::<std::result::Result<Vec<_>, _>>();
    let Ok(again) = again else { return Ok(()) };
    let mut tree = Tree::new(again, options(request), outputs, &Silent)?;
    let (files, bytes) = count(&mut tree, watch)?;
    watch.monitor.expected(files, bytes);
    Ok(())
}

/// What [`backup`] would do.
pub(crate) fn plan(ground: &Ground<'_>, request: &BackupRequest, watch: Watch<'_>) -> Result<BackupPlan> {
    let host = host();
    let mut job = subject::find(request, ground.config, ground.data_dir, &host)?;
    let destinations = ship::check(&job, ground.data_dir);
    let target = Target::find(request, &job, &host, &ground.clock.now())?;
    let tally = Tally::new(watch.monitor);
    let mut failures = Failures::default();
    let freeze = job.app.map(|app| app.freeze.iter().map(|service| service.name.clone()).collect());
    let roots = gather::open_roots(&mut job, &mut |_| Ok(None), |_| false, &mut failures)?;
    let outputs = outputs(&job, &target);
    let mut sources = Vec::new();
    let mut left_out = LeftOut::default();
    for root in roots {
        let (name, path) = (root.name.clone(), root.path.clone());
        let mut tree = Tree::new(vec![root], options(request), &outputs, &tally)?;
        let (files, bytes) = count(&mut tree, watch)?;
        left_out += tree.left_out;
        sources.push(PlannedSource { name, root: shown(path.as_os_str().as_encoded_bytes()), files, bytes });
    }
    for (name, source) in &job.databases {
        let root = shown(source.path.as_os_str().as_encoded_bytes());
        match source.path.metadata() {
            Ok(metadata) if metadata.is_file() => {
                sources.push(PlannedSource { name: name.clone(), root, files: 1, bytes: metadata.len() });
            }
            Ok(_) => failures.0.push(FailedSource { name: name.clone(), root, message: "it is no file".to_owned() }),
            Err(error) => {
                let message = format!("it cannot be read: {error}");
                failures.0.push(FailedSource { name: name.clone(), root, message });
            }
        }
    }
    if sources.is_empty() {
        return Err(all_failed(&failures.0));
    }
    Ok(BackupPlan {
        archive: target.dir.join(target.names().find(|name| !target.dir.join(name).exists()).unwrap_or_default()),
        sources,
        failed_sources: failures.0,
        excluded: left_out.excluded,
        own_archives: left_out.own_archives,
        withheld: left_out.withheld,
        database_logs: left_out.database_logs,
        freeze: freeze.unwrap_or_default(),
        destinations,
        free_bytes: crate::destination::free_space(&target.dir),
        problems: tally.problems(),
    })
}

pub(crate) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A single file that was lost while it was read leaves nothing to make an archive of.
fn refuse_nothing(captured: &Captured, job: &Job<'_>, tally: &Tally<'_>) -> Result<()> {
    // An app may have sources in which nothing is.
    if captured.totals().entries > 0 || (job.app.is_some() && !tally.has_losses()) {
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

fn describe_failed(source: &FailedSource, job: &Job<'_>, started: Timestamp, finished: Timestamp) -> record::Source {
    let kind = job.app.and_then(|app| app.sources.get(&source.name)).map_or("files", |source| source.kind());
    let mut failed = gather::describe(&source.name, kind, std::path::Path::new(&source.root), started);
    failed.finished = finished;
    failed.details.failed = Some(source.message.clone());
    failed
}

/// The application's version; that it does not tell is a note.
fn app_version(job: &Job<'_>, watch: Watch<'_>) -> Option<String> {
    match version::of(job.app?, watch.cancel) {
        Ok(version) => version,
        Err(error) => {
            let message = format!("its version is not known: {error}");
            let class = crate::ProblemClass::Skipped;
            watch.monitor.problem(crate::Problem::new(class, job.app_name.as_bytes(), message));
            None
        }
    }
}

fn head_of(
    job: &Job<'_>,
    outcome: Outcome,
    sources: Vec<record::Source>,
    totals: Totals,
    tally: &Tally<'_>,
    (started, finished): (Timestamp, Timestamp),
) -> Head {
    let problems = tally.problems();
    Head {
        format: FORMAT.to_owned(),
        tool: Tool { name: "lifeboat".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
        app: job.app_name.clone(),
        app_version: None,
        host: host(),
        id: durable::random_hex(),
        created: started,
        window_ms: window_ms(&sources, (started, finished)),
        outcome,
        sources,
        totals,
        problems: problems
            .listed
            .iter()
            .map(|problem| format!("{}: {}: {}", problem.class.word(), problem.object, problem.message))
            .collect(),
        problem_counts: problems.counts.iter().map(|(class, count)| ((*class).to_owned(), *count)).collect(),
        config: job.app.and_then(|app| serde_json::to_value(app.carried()).ok()),
    }
}

/// From the first source's point to the last one's. What has no point was read from beginning to end.
fn window_ms(sources: &[record::Source], (started, finished): (Timestamp, Timestamp)) -> u64 {
    let whole = sources.iter().filter(|source| source.details.failed.is_none());
    let first = whole.clone().map(|source| source.point.unwrap_or(started)).min().unwrap_or(started);
    let last = whole.map(|source| source.point.unwrap_or(finished)).max().unwrap_or(finished);
    let window = Duration::try_from(last.duration_since(first)).unwrap_or_default();
    u64::try_from(window.as_millis()).unwrap_or(u64::MAX)
}

/// The archive without a name yet, and whether it was read back.
fn make_archive(
    captured: Captured,
    head: &Head,
    request: &BackupRequest,
    job: &Job<'_>,
    target: &Target,
    watch: Watch<'_>,
) -> Result<(Unnamed, bool)> {
    let archive = captured.finish(&target.dir, head).map_err(|error| target.not_written(error.into()))?;
    let configured = job.app.is_none_or(|app| app.verify_on_create);
    let is_verified = request.verify_on_create.unwrap_or(configured);
    if is_verified {
        read_back(&archive, head, request, target, watch)?;
    }
    watch.cancel.check().map_err(|error| target.not_written(error.into()))?;
    Ok((archive, is_verified))
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
