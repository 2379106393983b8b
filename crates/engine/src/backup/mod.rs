//! Backing up: find the sources, bring them to their points, capture them into
//! a spool, put the manifest before it, read the result back, and only then
//! give it its name.

mod bare;
mod exports;
mod gather;
mod head;
mod plan;
mod preview;
mod printed;
mod sealing;
mod servers;
mod ship;
mod stops;
mod subject;
mod target;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use lifeboat_format::archive::verify::Verdict;
use lifeboat_format::archive::{Archive, Captured, pipeline, verify};
use lifeboat_format::capture::Entries as _;
use lifeboat_format::envelope::{Facts, Seal};
use lifeboat_format::model::Sha256;
use lifeboat_format::monitor::{Monitor as _, Silent};
use lifeboat_format::path::EntryPath;
use lifeboat_format::record::{self, Head};
use lifeboat_store::durable::{self, Unnamed};

use crate::clock::Clock;
use crate::config::{self, Config};
use crate::destination::sidecar;
use crate::freeze::{self, Freezing, GuardProgram, Pause, Pauses};
use crate::keys::Keys;
use crate::pg::Tools;
use crate::pg::probe::{Probes, Readers};
use crate::report::{BackupReport, BackupRequest, DatabaseReport, ExportedReport, FailedSource, Shipped, Watch};
use crate::services::{How, Service};
use crate::source::files::{LeftOut, Options, OutputDir, Tree};
use crate::source::roots::{Held, Root};
use crate::source::streamed::Seen;
use crate::tally::Tally;
use crate::{Cancel, Error, ErrorKind, Result, workers};
use exports::Exporting;
use gather::{CopiedDatabase, Dumped, Failures};
pub(crate) use plan::plan;
use printed::Printed;
use servers::Begun;
use stops::Stops;
use subject::Job;
pub(crate) use subject::{app_and_roots, no_such_app, subjects};
use target::Target;

/// So patient is who waits for a database while nothing stands still: as long as that is configured.
const PATIENT: Duration = Duration::MAX;
/// What messages call an archive that has no name yet.
const WRITTEN: &str = "the archive that was just written";
/// The mode of an archive, less the umask.
const ARCHIVE_MODE: u32 = 0o666;
const CHECK_PATH: &str = "check the path, its permissions, and that its file system is mounted";
const CHECK_DUMP: &str = "see what the program said; it can be run by hand, as the same user";
const NOTHING_WRITTEN: &str = "no archive was made, and nothing else was changed";

/// Where a backup runs: its clock, its configuration, its data.
pub(crate) struct Ground<'a> {
    pub(crate) clock: &'a dyn Clock,
    pub(crate) config: Option<&'a Config>,
    pub(crate) data_dir: &'a Path,
    /// What archives are encrypted with.
    pub(crate) keys: Keys<'a>,
    /// How the guard of paused services is started.
    pub(crate) guard: &'a GuardProgram,
}

/// A backup under way: what is asked for, where it goes, and who is told.
struct Run<'a> {
    ground: &'a Ground<'a>,
    request: &'a BackupRequest,
    job: Job<'a>,
    target: Target,
    /// How the archive is encrypted.
    seal: Option<Seal>,
    host: String,
    /// The id of the snapshot.
    id: String,
    began: Instant,
    started: Timestamp,
    pauses: Pauses,
    tally: &'a Tally<'a>,
    cancel: &'a Cancel,
}

/// What has reached its point, or is about to be read.
struct Gathered {
    roots: Vec<Root>,
    databases: Vec<CopiedDatabase>,
    dumps: Vec<Begun>,
    exports: Vec<Exporting>,
    printed: Vec<Printed>,
    /// What becomes of the dumps and exports.
    seen: Seen,
    failures: Failures,
}

/// What was read.
struct ReadAll {
    captured: Captured,
    left_out: LeftOut,
    /// For each source the names at a place that it shares with others.
    names: BTreeMap<String, Vec<String>>,
}

/// A snapshot with its name, and what is known of it.
struct Made {
    path: PathBuf,
    head: Head,
    /// What is known of its envelope.
    facts: Option<Facts>,
    size_bytes: u64,
    /// The sum of the file, where it was taken already.
    sum: Option<Sha256>,
    verified: bool,
    left_out: LeftOut,
    failed: Vec<FailedSource>,
    databases: Vec<DatabaseReport>,
    exports: Vec<ExportedReport>,
    pauses: Vec<Pause>,
}

/// An archive that has no name yet.
struct Unpublished {
    archive: Unnamed,
    /// What is known of its envelope.
    facts: Option<Facts>,
    /// Its sum, where that was taken already.
    sum: Option<Sha256>,
    verified: bool,
}

/// Backs up what `request` asks for into one archive.
pub(crate) fn backup(ground: &Ground<'_>, request: &BackupRequest, watch: Watch<'_>) -> Result<BackupReport> {
    let (began, host) = (Instant::now(), host());
    let mut job = subject::find(request, ground, &host)?;
    let reachable = ship::prepare(&job, request, ground.data_dir)?;
    job.destinations.clone_from(&reachable.usable);
    let target = Target::find(request, &job, &host, &ground.clock.now())?;
    let tally = Tally::new(watch.monitor);
    let seal = sealing::find(ground, request, &job, &|path| sealing::tell_made(path, &tally))?;
    let run = Run {
        ground,
        request,
        job,
        target,
        seal,
        host,
        id: durable::random_hex(),
        began,
        started: ground.clock.timestamp(),
        pauses: Pauses::default(),
        tally: &tally,
        cancel: watch.cancel,
    };
    let made = run.make();
    // Also where it failed: a service that stands still is never passed over.
    run.pauses.tell(&tally);
    let made = made?;
    let shipped = ship::ship(&run, &made, &reachable)?;
    Ok(run.report(made, shipped))
}

impl Run<'_> {
    fn watch(&self) -> Watch<'_> {
        Watch { monitor: self.tally, cancel: self.cancel }
    }

    fn make(&self) -> Result<Made> {
        let gathered = self.gather()?;
        if self.request.bare { bare::write(self, gathered) } else { self.capture(gathered) }
    }

    fn freezing(&self) -> Freezing<'_> {
        Freezing {
            data_dir: self.ground.data_dir,
            guard: self.ground.guard,
            id: &self.id,
            max: self.job.app.map_or(config::FREEZE_MAX, |app| app.freeze_max),
            retry_after: freeze::RETRY_AFTER,
            pauses: &self.pauses,
        }
    }

    /// Pauses what is to be paused, brings the databases to their points and
    /// copies them, and opens the roots of files. What is paused for all of the
    /// app goes on when the last file was read.
    fn gather(&self) -> Result<Gathered> {
        let job = &self.job;
        // Nothing that is written meanwhile is in a structure alone.
        let app = job.app.filter(|_| !self.request.schema_only);
        let services: &[Service] = app.map(|app| app.freeze.as_slice()).unwrap_or_default();
        let now = || self.ground.clock.timestamp();
        // A server that does not answer is not to be waited for while anything stands still.
        let mut not_reached = Failures::default();
        let mut servers = servers::reach(job, self.cancel, &mut not_reached)?;
        let seen = Seen::default();
        let printed = printed::prepare(job, (&seen, self.started), self.watch(), &mut not_reached)?;
        let pin = |patience: Duration| {
            let (began, mut failures) = (Instant::now(), Failures::default());
            let patience = (patience < PATIENT).then_some(patience);
            let pinned = gather::pin(job, patience, &now, self.cancel, &mut failures)?;
            let left = patience.map(|patience| patience.saturating_sub(began.elapsed()));
            servers::pin(&mut servers, left, &now, self.cancel, &mut failures)?;
            Ok((pinned, failures))
        };
        let point = freeze::with_frozen(services, How::Frozen, self.freezing(), PATIENT, self.cancel, pin)?;
        let (pinned, mut failures) = point.value;
        failures.0.splice(..0, not_reached.0);
        let was_frozen = !point.frozen.is_empty();
        // Databases have reached their points; files do so when they have been read.
        let frozen: Option<Held> = if job.files.is_empty() || point.frozen.is_empty() {
            drop(point.frozen);
            None
        } else {
            Some(point.frozen)
        };
        let exclude_tables = job.app.map(|app| app.exclude_tables.as_slice()).unwrap_or_default();
        let how = servers::How {
            is_schema_only: self.request.schema_only,
            is_compressed: self.request.bare,
            exclude_tables,
            patience: frozen.is_some().then_some(freeze::PIN_WAIT),
            was_frozen: was_frozen && frozen.is_none(),
        };
        let dumps = servers::begin(servers, how, &now, (&seen, self.started), self.watch(), &mut failures)?;
        let of_run = (&seen, self.started);
        let exports = exports::begin(job, &dumps, how.patience, of_run, self.cancel, &mut failures)?;
        if !pinned.is_empty() {
            self.target.create_dir()?;
        }
        let databases = gather::copy(pinned, &self.target.dir, exclude_tables, self.watch(), &mut failures)
            .map_err(|error| self.target.not_written(error))?;
        let was_filled = |source: &str| ship::was_filled(self, source);
        let roots = gather::open_roots(job, frozen.as_ref(), was_filled, &mut failures)?;
        if roots.is_empty() && databases.is_empty() && dumps.is_empty() && printed.is_empty() {
            return Err(all_failed(&failures.0));
        }
        Ok(Gathered { roots, databases, dumps, exports, printed, seen, failures })
    }

    /// Reads what was gathered into an archive, and gives that its name.
    fn capture(&self, gathered: Gathered) -> Result<Made> {
        let Gathered { roots, databases, dumps, exports, printed, seen, mut failures } = gathered;
        let outputs = outputs(&self.job, &self.target);
        self.expect(&outputs, &roots)?;
        let tools: Vec<Tools> = dumps.iter().map(|begun| begun.tools.clone()).collect();
        let (mut dumps, counting): (Vec<_>, Vec<_>) =
            dumps.into_iter().map(|begun| (begun.dumped, begun.counting)).unzip();
        let (asked, rows): (Vec<_>, Vec<_>) = exports.into_iter().map(Exporting::parted).unzip();
        dumps.extend(asked);
        let (of_programs, found): (Vec<_>, Vec<_>) =
            printed.into_iter().map(|printed| (printed.dumped, printed.found)).unzip();
        dumps.extend(of_programs);
        let mut reports: Vec<DatabaseReport> = databases.iter().map(CopiedDatabase::report).collect();
        let mut sources: Vec<record::Source> =
            roots.iter().map(|root| gather::describe_root(root, self.started)).collect();
        sources.extend(databases.iter().map(|database| database.describe(self.started)));
        sources.extend(dumps.iter().map(|dumped| dumped.description.clone()));
        let stops = Stops::new(self.job.stops.clone(), self.freezing(), self.cancel);
        let read = || self.read(roots, (databases, dumps), &outputs, &stops);
        let (read, counted) = servers::counting(counting, self.cancel, read);
        // Whatever stood still goes on by now; also where reading failed, it is told.
        let frozen = self.pauses.longest();
        let stopped = stops.end();
        self.pauses.tell(self.tally);
        let mut read = read?;
        servers::fill(&mut sources, counted?);
        exports::fill(&mut sources, &rows);
        printed::fill(&mut sources, &found);
        self.drop_failed(&stops, &seen, &mut sources, &mut failures)?;
        reports.extend(servers::reports(&sources, &seen));
        reports.extend(printed::reports(&sources, &seen));
        let exports = exports::reports(&sources, &seen);
        self.refuse_nothing(&read.captured)?;
        let finished = self.ground.clock.timestamp();
        for source in &mut sources {
            source.finished = finished;
            source.names = read.names.remove(&source.name).unwrap_or_default();
            let pause = stopped.get(&source.name).copied().unwrap_or_default().max(frozen);
            source.pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        }
        sources.extend(failures.0.iter().map(|failed| head::describe_failed(self, failed, finished)));
        if failures.0.is_empty() {
            let excluded = sources.iter().flat_map(head::excluded_tables);
            head::tell_unmatched(&self.job, self.request, excluded, self.tally);
        }
        let head = head::of(self, sources, read.captured.totals(), finished);
        let Unpublished { archive, facts, sum, verified } = self.make_archive(read.captured, &head, &tools)?;
        let size_bytes = archive.len();
        let path =
            archive.publish(self.target.names(), ARCHIVE_MODE).map_err(|error| self.target.not_published(error))?;
        if let Some(hmac) = facts.as_ref().and_then(|facts| facts.hmac.as_ref()) {
            let is_kept =
                |error: Error| error.state(format!("{} is whole, and stays, without its HMAC", path.display()));
            sidecar::write_hmac(&path, hmac).map_err(is_kept)?;
        }
        let (left_out, failed, databases) = (read.left_out, failures.0, reports);
        let pauses = self.pauses.take().pauses;
        Ok(Made { path, head, facts, size_bytes, sum, verified, left_out, failed, databases, exports, pauses })
    }

    /// Reads everything into a spool. When it returns, nothing of the sources is held any more.
    fn read(
        &self,
        roots: Vec<Root>,
        databases: (Vec<CopiedDatabase>, Vec<Dumped>),
        outputs: &[OutputDir],
        stops: &Stops<'_>,
    ) -> Result<ReadAll> {
        let names: Vec<String> = roots.iter().map(|root| root.name.clone()).collect();
        let (target, dir) = (&self.target, &self.target.dir);
        let needed = gather::needed(&self.job, &roots)?;
        let mut entries = gather::merge(roots, databases, options(self.request), outputs, (dir, stops, self.watch()))?;
        entries.needed = needed;
        target.create_dir()?;
        let options =
            pipeline::Options { compression: target.compression, threads: workers::count(self.request.threads) };
        let captured = pipeline::capture(dir, options, &mut entries, self.tally, self.cancel)
            .map_err(|error| target.not_written(error.into()));
        entries.tell_notes();
        let captured = captured?;
        if let Some(collision) = entries.collision.take() {
            return Err(Error::new(ErrorKind::Usage, collision)
                .state(NOTHING_WRITTEN)
                .next("give one of them another `at` in lifeboat.yaml, or leave that out with `exclude`"));
        }
        entries.tell_missing(self.tally);
        let left_out = entries.left_out();
        let names = names.into_iter().map(|name| (name.clone(), entries.names(&name))).collect();
        Ok(ReadAll { captured, left_out, names })
    }

    /// Sources whose services did not stop failed, and nothing of them was read;
    /// and those of which a dump failed, of which nothing stayed.
    fn drop_failed(
        &self,
        stops: &Stops<'_>,
        seen: &Seen,
        sources: &mut Vec<record::Source>,
        failures: &mut Failures,
    ) -> Result<()> {
        for (name, error) in stops.failed() {
            let root = self.job.files.iter().find(|wanted| wanted.name == name).map(|wanted| wanted.path.clone());
            failures.keep(&name, &root.unwrap_or_default(), Err::<(), _>(error))?;
            sources.retain(|source| source.name != name);
        }
        for (name, message) in seen.failed() {
            let server = self.job.servers.iter().find(|(server, _)| *server == name);
            let root = server.map(|(_, source)| source.server.name());
            let root = root.or_else(|| printed::root(&self.job, &name)).unwrap_or_default();
            let (root, next) =
                exports::root_and_next(&self.job, &name).unwrap_or_else(|| (root, CHECK_DUMP.to_owned()));
            let broken = Error::new(ErrorKind::Failed, message).next(next);
            failures.keep(&name, Path::new(&root), Err::<(), _>(broken))?;
            sources.retain(|source| source.name != name);
        }
        // An export without what it is from is no backup.
        let is_nothing = sources.iter().all(|source| source.kind == exports::KIND);
        if is_nothing { Err(all_failed(&failures.0)) } else { Ok(()) }
    }

    /// A single file that was lost while it was read leaves nothing to make an archive of.
    fn refuse_nothing(&self, captured: &Captured) -> Result<()> {
        // An app may have sources in which nothing is.
        if captured.totals().entries > 0 || (self.job.app.is_some() && !self.tally.has_losses()) {
            return Ok(());
        }
        let problems = self.tally.problems();
        let reasons: Vec<String> =
            problems.listed.iter().map(|problem| format!("{}: {}", problem.object, problem.message)).collect();
        Err(Error::new(ErrorKind::SourceFailed, format!("nothing could be backed up: {}", reasons.join("; ")))
            .state(NOTHING_WRITTEN)
            .next("check that it exists and can be read"))
    }

    /// Finds out how much there is to do, where somebody is shown how far it is.
    fn expect(&self, outputs: &[OutputDir], roots: &[Root]) -> Result<()> {
        if !self.tally.wants_total() {
            return Ok(());
        }
        let again = roots.iter().map(Root::reopen).collect::<std::result::Result<Vec<_>, _>>();
        let Ok(again) = again else { return Ok(()) };
        let mut tree = Tree::new(again, options(self.request), outputs, &Silent)?;
        let (files, bytes) = count(&mut tree, self.cancel)?;
        self.tally.expected(files, bytes);
        Ok(())
    }

    /// Whether a new snapshot is read back before it gets its name.
    fn verifies(&self) -> bool {
        self.request.verify_on_create.unwrap_or(self.job.app.is_none_or(|app| app.verify_on_create))
    }

    /// The archive without a name yet, and whether it was read back.
    fn make_archive(&self, captured: Captured, head: &Head, tools: &[Tools]) -> Result<Unpublished> {
        let target = &self.target;
        let failed = |error: lifeboat_format::Error| target.not_written(error.into());
        let (archive, facts, sum) = match &self.seal {
            Some(seal) => {
                let (archive, facts) = sealing::make(self, seal, captured, head, tools)?;
                (archive, Some(facts), None)
            }
            None if ship::needs_sum(self) => {
                let summed = captured.finish_summed(&target.dir, head, self.cancel);
                let (archive, sum) = summed.map_err(failed)?;
                (archive, None, Some(sum))
            }
            None => (captured.finish(&target.dir, head).map_err(failed)?, None, None),
        };
        if self.seal.is_none() && self.verifies() {
            self.read_back(&self.open_plain(&archive)?, head, tools)?;
        }
        self.cancel.check().map_err(|error| target.not_written(error.into()))?;
        Ok(Unpublished { archive, facts, sum, verified: self.verifies() })
    }

    fn open_plain(&self, archive: &Unnamed) -> Result<Archive> {
        let file = archive.file().try_clone().map_err(|error| Error::new(ErrorKind::Failed, error.to_string()))?;
        Archive::of_file(file, Path::new(WRITTEN)).map_err(|error| self.unreadable(error))
    }

    /// What was just written does not open.
    fn unreadable(&self, error: lifeboat_format::Error) -> Error {
        match error.kind() {
            lifeboat_format::ErrorKind::Corrupt | lifeboat_format::ErrorKind::WrongKey => {
                bad_archive(&error.to_string())
            }
            _ => self.target.not_written(error.into()),
        }
    }

    fn read_back(&self, archive: &Archive, head: &Head, tools: &[Tools]) -> Result<()> {
        let threads = workers::count(self.request.threads);
        let mut first = None;
        let mut each = |path: &EntryPath, verdict: &Verdict, _| {
            if let Verdict::Fail(why) = verdict {
                first.get_or_insert_with(|| format!("{path}: {why}"));
            }
        };
        let probes = Probes::of(Some(head), &Readers::Beside(tools), self.cancel)
            .map_err(|error| self.target.not_written(error))?;
        let findings = verify::verify(archive, threads, self.cancel, &|path| probes.probe(path), &mut each)
            .map_err(|error| self.unreadable(error))?;
        if findings.is_good() && findings.entries == head.totals.entries {
            return Ok(());
        }
        // A program that looked into a dump was stopped too, and is not to blame.
        self.cancel.check().map_err(|error| self.target.not_written(error.into()))?;
        if probes.have_failed() && findings.damage.is_none() {
            return Err(bad_dump(&first.unwrap_or_default()));
        }
        let damage = findings.damage.or(first).unwrap_or_else(|| "it holds another number of entries".to_owned());
        Err(bad_archive(&damage))
    }

    fn report(&self, made: Made, shipped: Vec<Shipped>) -> BackupReport {
        let Made { path, head, facts, size_bytes, sum: _, verified, left_out, failed, databases, exports, pauses } =
            made;
        BackupReport {
            archive: path,
            envelope: facts.as_ref().map(|facts| facts.envelope.name()),
            id: head.id,
            app: head.app,
            outcome: head.outcome,
            size_bytes,
            files: head.totals.files,
            entries: head.totals.entries,
            bytes: head.totals.bytes,
            excluded: left_out.excluded,
            own_archives: left_out.own_archives,
            withheld: left_out.withheld,
            database_logs: left_out.database_logs,
            databases,
            exports,
            window_ms: head.window_ms,
            pauses,
            shipped,
            failed_sources: failed,
            problems: self.tally.problems(),
            unexported_key: sealing::unexported(self),
            verified,
            recovered: Vec::new(),
            thawed: Vec::new(),
            elapsed: self.began.elapsed(),
        }
    }
}

fn all_failed(failed: &[FailedSource]) -> Error {
    let next = failed.iter().find_map(|source| source.next.as_deref()).unwrap_or(CHECK_PATH);
    let reasons: Vec<String> = failed
        .iter()
        .map(|source| {
            let names_root = source.message.starts_with(&source.root);
            if names_root { source.message.clone() } else { format!("{}: {}", source.root, source.message) }
        })
        .collect();
    Error::new(ErrorKind::SourceFailed, format!("could not back up {}", reasons.join("; ")))
        .state(NOTHING_WRITTEN)
        .next(next)
}

fn bad_archive(damage: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the archive did not read back as it was written: {damage}"))
        .state("the archive was thrown away; what was backed up is untouched")
        .next("run the backup again; if it fails again, test this machine's memory and disk")
}

fn bad_dump(damage: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("a dump is not whole: {damage}"))
        .state("the archive was thrown away; what was backed up is untouched")
        .next("run the backup again; if it fails again, run pg_dump and pg_restore by hand, as the same user")
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

/// Files and bytes that `tree` lists.
fn count(tree: &mut Tree<'_>, cancel: &Cancel) -> Result<(u64, u64)> {
    let (mut files, mut bytes) = (0, 0);
    while let Some(item) = tree.next() {
        cancel.check()?;
        files += u64::from(item.is_file());
        bytes += item.size();
    }
    Ok((files, bytes))
}

pub(crate) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
