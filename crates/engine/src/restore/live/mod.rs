//! Restoring in place: a transaction. It ends with the new state running and
//! healthy, or with the old state exactly as it was (`doc/decisions/`).
//!
//! `target` says where each source goes, `survey` looks at what is live and
//! makes the `plan`. What was agreed to (`terms`) stands in the `journal`.
//! `stages` are filled and verified beside the live state; `run` stops the
//! services, has `build` list the steps, does each `step`, starts the services
//! and commits, or rolls back. `recover` does so after a crash; `kept` looks
//! after what was replaced.

mod apart;
mod aside;
mod attrs;
mod build;
mod database;
mod fitness;
mod ground;
mod journal;
mod kept;
mod left_out;
mod merge;
mod name;
mod plan;
mod recover;
mod reverse;
mod run;
mod servers;
mod stages;
mod step;
mod survey;
mod target;
mod terms;
mod tree;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lifeboat_format::archive::Archive;
use serde::Serialize;

pub use apart::NotRestored;
pub use kept::{Kept, Undo};
pub(crate) use kept::{all as kept, discard, keep, undo};
pub use merge::MergedDatabase;
pub use plan::{Consent, Counts, LivePlan, PlannedRoot, PlannedService, PlannedSpace, PlannedVersion, User};
pub use recover::{Decision, Recovered, Waiting};
pub(crate) use recover::{before_a_run, decide, recover, waiting};
pub use servers::PlannedDatabase;
pub(crate) use target::carried;
pub use terms::Mode;

use crate::clock::Clock;
use crate::config::{AppConfig, Config, Keep};
use crate::keys::Keys;
use crate::lock::{self, Lock};
use crate::report::{PlanLine, Problems, Watch, as_seconds, as_shown};
use crate::tally::Tally;
use crate::{Error, ErrorKind, Result};
use run::Run;

/// Where a restore runs: its data, its configuration, its clock.
pub(crate) struct Host<'a> {
    pub(crate) clock: &'a dyn Clock,
    pub(crate) data_dir: &'a Path,
    pub(crate) config: Option<&'a Config>,
    /// What opens archives.
    pub(crate) keys: Keys<'a>,
    /// Where drop-ins for units of systemd go.
    pub(crate) systemd_dir: &'a Path,
    /// Where a plan may try something out.
    pub(crate) temp_dir: &'a Path,
    /// The id of this run.
    pub(crate) id: String,
}

/// Restore an archive where its content stood.
#[derive(Clone, Debug, Default)]
pub struct LiveRequest {
    /// The archive.
    pub archive: PathBuf,
    /// What is done with what exists.
    pub mode: Mode,
    /// `SOURCE` or `SOURCE/GLOB`; none: everything.
    pub only: Vec<String>,
    /// `[DATABASE.]TABLE` with `*`, of SQLite databases; none: everything.
    pub tables: Vec<String>,
    /// Whether device nodes are made.
    pub devices: bool,
    /// Whether an owner that cannot be set is a problem instead of a note.
    pub same_owner: bool,
    /// How many workers; by default one for each core.
    pub threads: Option<usize>,
    /// How long what is replaced is kept; by default what is configured, else 7 days.
    pub keep_replaced: Option<Keep>,
    /// Which source a bare database without a manifest is: `SOURCE` or `APP/SOURCE`.
    pub as_source: Option<String>,
    /// Whether a snapshot that lacks what it must hold is restored all the
    /// same, because it was named by its id.
    pub accepts_partial: bool,
    /// Whether what is in databases gets the database's owner instead of its own.
    pub no_owner: bool,
    /// Whether nobody gets the rights in databases that were backed up.
    pub no_privileges: bool,
    /// Whether databases are restored over the live ones, in one transaction each.
    pub in_place: bool,
    /// Whether an application that is older than the snapshot is no reason to refuse.
    pub ignore_version: bool,
    /// The app as the archive carries it, where this host has no configuration
    /// of it and somebody agreed to use what it says.
    pub trusted: Option<AppConfig>,
}

/// What a restore in place did.
#[derive(Debug, Default, Serialize)]
pub struct LiveReport {
    /// The restore's id, for `--undo`, `--keep` and `--discard`.
    pub id: String,
    /// Whether everything was as in the snapshot already, and nothing was done.
    pub is_nothing: bool,
    /// The application.
    pub app: String,
    /// The roots that were restored.
    pub roots: Vec<String>,
    /// What was done with what exists.
    pub mode: Mode,
    /// How much of what, as the plan says.
    #[serde(flatten)]
    pub counts: Counts,
    /// The first [`crate::report::LISTED_MAX`] entries that differ and stay (`merge`).
    pub conflicts: Vec<String>,
    /// What became of the rows of databases that were not replaced as a whole.
    pub merges: Vec<MergedDatabase>,
    /// Renames that were done; each is all or nothing by itself.
    pub steps: usize,
    /// What was replaced or deleted though it was not there when the plan was made.
    pub appeared: Vec<String>,
    /// How many of those there are.
    pub appeared_count: u64,
    /// Databases of servers that were made or replaced, and where.
    pub databases: Vec<String>,
    /// Sources that were left as they are.
    pub not_restored: Vec<NotRestored>,
    /// Services that were stopped and started again.
    pub services: Vec<String>,
    /// Services that were started although they had not run, since checks ask the app.
    pub started: Vec<String>,
    /// How many health checks passed.
    pub health_checks: usize,
    /// How many checks of the data passed after them.
    pub checks: usize,
    /// From the first stop to the last start.
    #[serde(rename = "pause_seconds", serialize_with = "as_seconds")]
    pub pause: Duration,
    /// A reload that failed and is only a warning.
    pub reload_warning: Option<String>,
    /// What was replaced, and is kept.
    pub kept: Option<Kept>,
    /// Paths of the files, escaped, where there are at most [`crate::report::LISTED_MAX`].
    #[serde(skip)]
    pub paths: Vec<String>,
    /// What could not be restored of single entries.
    pub problems: Problems,
    /// How long it took.
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    pub elapsed: Duration,
    /// The archive.
    #[serde(serialize_with = "as_shown")]
    pub archive: PathBuf,
}

/// A plan, ready to be carried out: the app is locked from here on.
pub struct Prepared<'a> {
    /// What it would do.
    pub plan: LivePlan,
    /// What a crash had interrupted, and how that was ended before.
    pub recovered: Vec<Recovered>,
    host: Host<'a>,
    archive: Archive,
    request: LiveRequest,
    lock: Lock,
    lock_key: String,
}

fn open(request: &LiveRequest, host: &Host<'_>) -> Result<Archive> {
    let opened = super::open_for(&request.archive, request.as_source.as_deref(), host.keys);
    opened.map_err(|error| error.state("nothing was written, and nothing was stopped"))
}

/// What a restore would do. Writes nothing at all.
pub(crate) fn plan_only(
    request: &LiveRequest,
    host: &Host<'_>,
    watch: Watch<'_>,
    each: &mut dyn FnMut(PlanLine) -> Result<()>,
) -> Result<LivePlan> {
    let archive = open(request, host)?;
    let plan = survey::plan(&archive, request, host, watch, each)?;
    refuse_others(&plan, host)?;
    Ok(plan)
}

fn refuse_others(plan: &LivePlan, host: &Host<'_>) -> Result<()> {
    let ours = journal::dir(host.data_dir);
    stages::refuse_others(&plan.terms, &plan.stages, &host.id, &|journal| journal.parent() == Some(ours.as_path()))
}

/// Locks the app, ends what a crash interrupted, removes what is kept no
/// longer, and makes the plan.
pub(crate) fn prepare<'a>(
    request: LiveRequest,
    host: Host<'a>,
    watch: Watch<'_>,
    each: &mut dyn FnMut(PlanLine) -> Result<()>,
) -> Result<Prepared<'a>> {
    let archive = open(&request, &host)?;
    let targets = target::find(&archive, &request, &host)?;
    let lock_key = target::lock_key(&targets);
    let lock = lock::take(host.data_dir, &lock_key)?;
    let roots: Vec<PathBuf> = targets.roots.iter().map(|root| root.path.as_path().to_owned()).collect();
    let recovered = before_a_run(&host, &roots, Some(&lock_key), watch)?;
    let plan = survey::plan(&archive, &request, &host, watch, each)?;
    refuse_others(&plan, &host)?;
    plan.check()?;
    Ok(Prepared { plan, recovered, host, archive, request, lock, lock_key })
}

impl Prepared<'_> {
    /// Carries the plan out: all of it, or nothing.
    ///
    /// # Errors
    /// [`ErrorKind::RolledBack`] when the live state was touched and is as it
    /// was before; [`ErrorKind::RollbackIncomplete`] when that failed; any
    /// other kind when it was not touched.
    pub fn apply(self, consent: Consent, watch: Watch<'_>) -> Result<LiveReport> {
        let began = Instant::now();
        let tally = Tally::new(watch.monitor);
        self.plan.check_consent(consent)?;
        if self.plan.is_nothing() {
            return Ok(self.report(&tally, began));
        }
        survey::still_holds(&self.plan)?;
        refuse_others(&self.plan, &self.host)?;
        let mut run = Run::begin(&self.host, self.header()?, Some(&self.plan.known), consent.force)?;
        let watch = Watch { monitor: &tally, ..watch };
        // Two restores of overlapping roots that began together see each other by their stages.
        let made = run.make_stages().and_then(|()| refuse_others(&self.plan, &self.host));
        let filled = match made.and_then(|()| run.fill(&self.archive, &self.request, watch)) {
            Ok(filled) => filled,
            Err(error) => return Err(run.abandon(error, &self.archive)),
        };
        let done = run.forward(watch.cancel);
        run.end(done)?;
        super::report_unprivileged(&filled, self.request.same_owner, &self.request.archive, &tally);
        let mut report = self.report(&tally, began);
        report.is_nothing = false;
        report.paths = filled.paths;
        run.add_to(&mut report);
        drop(self.lock);
        Ok(report)
    }

    fn header(&self) -> Result<journal::Header> {
        let mut terms = self.plan.terms.clone();
        // Somebody may have changed something there since the plan was made.
        terms.places.iter_mut().for_each(stages::look_at_time);
        let configured = self.host.config.and_then(|config| config.apps.get(&self.plan.app));
        let app = configured.or(self.request.trusted.as_ref());
        Ok(journal::Header {
            journal: journal::Header::format(),
            id: self.host.id.clone(),
            app: self.plan.app.clone(),
            lock: self.lock_key.clone(),
            snapshot: self.plan.snapshot.clone(),
            archive: name::Name::of(&self.plan.archive),
            began: self.host.clock.timestamp(),
            terms,
            services: app.map(|app| app.services.clone()).unwrap_or_default(),
            reload: app.and_then(|app| app.reload.clone()),
            health: app.map(|app| app.health.clone()).unwrap_or_default(),
            after_restore: app.map(|app| app.after_restore.clone()).unwrap_or_default(),
            databases: app.map(AppConfig::databases).unwrap_or_default(),
            keep: self.plan.keep_replaced,
            undo_of: None,
        })
    }

    fn report(&self, tally: &Tally<'_>, began: Instant) -> LiveReport {
        LiveReport {
            id: self.host.id.clone(),
            is_nothing: true,
            app: self.plan.app.clone(),
            roots: self.plan.roots.iter().map(|root| root.root.clone()).collect(),
            mode: self.plan.mode,
            counts: self.plan.counts,
            conflicts: self.plan.conflicts.clone(),
            merges: self.plan.merges.clone(),
            databases: self.plan.databases.iter().map(PlannedDatabase::place).collect(),
            not_restored: self.plan.not_restored.clone(),
            problems: tally.problems(),
            elapsed: began.elapsed(),
            archive: self.plan.archive.clone(),
            ..LiveReport::default()
        }
    }
}

/// A restore that is not known, or not the only one it could be.
fn no_such(id: Option<&str>, what: &str, known: &[&str]) -> Error {
    let what = match id {
        Some(id) => format!("no restore {id} {what}"),
        None if known.is_empty() => format!("no restore {what}"),
        None => format!("several restores: {}", known.join(", ")),
    };
    Error::new(ErrorKind::Usage, what).state("nothing was changed").next("`lifeboat status` lists them with their ids")
}
