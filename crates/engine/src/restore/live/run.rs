//! A restore in place under way: fills the stages, then goes from phase to
//! phase, forwards or back. Goes on from any phase of its journal, so that it
//! can be finished or rolled back after a crash by the same code.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use lifeboat_format::archive::Archive;
use lifeboat_store::Cancel;
use rustix::fs::{Mode, OFlags};

use super::build::{Builder, Built};
use super::ground::Ground;
use super::journal::{FoundService, Header, Journal, Phase, Story, pending};
use super::plan::Known;
use super::servers;
use super::stages::{Stages, can_exchange};
use super::step::{SWAP, Sides, Step};
use super::terms::{RootKind, Routes, Rules, absolute};
use super::{Host, LiveReport, LiveRequest, MergedDatabase, kept, merge};
use crate::checks::all_hold;
use crate::config::Keep;
use crate::health::wait_until_healthy;
use crate::report::Watch;
use crate::restore::fill::{Fill, Filled};
use crate::restore::node;
use crate::services::Found;
use crate::{Error, ErrorKind, Result, beneath, sqlite};

/// A restore with its journal.
pub(super) struct Run<'a> {
    pub(super) journal: Journal,
    host: &'a Host<'a>,
    known: Option<&'a Known>,
    /// Whether also what appeared since the plan may be overwritten.
    force: bool,
    /// Locked as long as the run goes on.
    stages: Option<Stages>,
    appeared: (Vec<String>, u64),
    stopped: Option<Instant>,
    merges: Vec<MergedDatabase>,
    pause: Duration,
    reload_warning: Option<String>,
}

impl<'a> Run<'a> {
    /// Begins: the journal is there before anything else is.
    pub(super) fn begin(host: &'a Host<'a>, header: Header, known: Option<&'a Known>, force: bool) -> Result<Self> {
        Ok(Self::of(host, Journal::create(host.data_dir, header)?, known, force))
    }

    /// Goes on with what a journal tells.
    pub(super) fn of(host: &'a Host<'a>, journal: Journal, known: Option<&'a Known>, force: bool) -> Self {
        Self {
            journal,
            host,
            known,
            force,
            stages: None,
            appeared: Default::default(),
            stopped: None,
            merges: Vec::new(),
            pause: Duration::ZERO,
            reload_warning: None,
        }
    }

    /// Takes over the stages that are there, so that no other run does.
    pub(super) fn take_stages(&mut self) -> Result<()> {
        self.stages = Some(Stages::open(&self.journal.story.header.terms)?);
        Ok(())
    }

    /// Begins to undo an older restore: its stages are this one's from here on.
    pub(super) fn take_over(&mut self, cancel: &Cancel) -> Result<()> {
        self.take_stages()?;
        let (id, path) = (self.id(), self.journal.path().to_owned());
        if let Some(stages) = &mut self.stages {
            stages.point(&id, &path, false)?;
        }
        self.note_services(cancel)
    }

    pub(super) fn id(&self) -> String {
        self.journal.story.header.id.clone()
    }

    /// Makes the stages, empty.
    pub(super) fn make_stages(&mut self) -> Result<()> {
        let header = &self.journal.story.header;
        self.stages = Some(Stages::create(&header.terms, &header.id, self.journal.path())?);
        Ok(())
    }

    /// Stages and verifies everything in one pass.
    pub(super) fn fill(&mut self, archive: &Archive, request: &LiveRequest, watch: Watch<'_>) -> Result<Filled> {
        let terms = &self.journal.story.header.terms;
        let open = |place: &super::terms::Place| {
            let path = place.stage.as_path().join(SWAP);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(&path, flags, Mode::empty())
                .map_err(|error| Error::from(lifeboat_store::Error::io("open", &path, error)))
        };
        let folders = terms.places.iter().map(open).collect::<Result<Vec<_>>>()?;
        let folders: Vec<BorrowedFd<'_>> = folders.iter().map(|fd| fd.as_fd()).collect();
        let rules = Rules::of(terms)?;
        let layout = Routes { terms, rules: &rules };
        let fill = Fill { folders: &folders, layout: &layout, devices: request.devices, threads: request.threads };
        let filled = fill.run(archive, watch)?;
        finish_dirs(&filled, &folders, watch)?;
        let sides = Sides::open(terms)?;
        if !request.only.is_empty() {
            prune(&sides, terms, &rules)?;
        }
        sides.sync()?;
        watch.cancel.check()?;
        self.check_databases(archive, watch.cancel)?;
        merge::set_apart(&self.journal.story.header.terms)?;
        self.stage_servers(archive, request, watch)?;
        self.note_services(watch.cancel)?;
        Ok(filled)
    }

    /// Databases of servers are made beside the live ones.
    fn stage_servers(&mut self, archive: &Archive, request: &LiveRequest, watch: Watch<'_>) -> Result<()> {
        let terms = &self.journal.story.header.terms;
        if terms.servers.is_empty() && terms.in_place.is_empty() {
            return Ok(());
        }
        let id = self.id();
        if !(request.no_owner && request.no_privileges) {
            let roles = servers::make_roles(terms, archive, &id, watch.cancel)?;
            if !roles.is_empty() {
                self.journal.roles(roles)?;
            }
        }
        let staged = servers::stage(&self.journal.story.header.terms, archive, request, &id, watch)?;
        self.journal.servers(staged)
    }

    /// How the services are is noted before the first is stopped.
    fn note_services(&mut self, cancel: &Cancel) -> Result<()> {
        let mut found = Vec::new();
        for service in &self.journal.story.header.services {
            found.push(FoundService { service: service.clone(), found: service.found(Some(cancel))? });
        }
        self.journal.staged(found, self.host.clock.timestamp())
    }

    /// Nothing live was touched: only what was staged goes.
    pub(super) fn abandon(self, error: Error, archive: &Archive) -> Error {
        let terms = self.journal.story.header.terms.clone();
        let is_of_the_archive = matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsafe | ErrorKind::Unsupported);
        let error = if is_of_the_archive { error.about(archive.path()) } else { error };
        let dropped = servers::drop_staged(&self.journal.story);
        let dropped = dropped.and_then(|()| servers::drop_roles(&self.journal.story));
        let cleared = dropped.and_then(|()| Stages::remove(&terms)).and_then(|()| self.journal.remove());
        Stages::restore_times(&terms);
        let state = match cleared {
            Ok(()) => "nothing was restored, and everything is as it was before".to_owned(),
            Err(other) => format!("nothing live was touched; what was staged could not be removed ({other})"),
        };
        let error = error.state(state);
        match error.kind() {
            ErrorKind::Corrupt => error.next(format!(
                "use another copy of this backup; \"lifeboat backup verify {}\" says which files are whole",
                archive.path().display()
            )),
            ErrorKind::NoSpace => error.next("make room there, or restore elsewhere with --to DIR"),
            ErrorKind::Denied => error.next("run it as a user who may write there, or restore elsewhere with --to DIR"),
            ErrorKind::Cancelled => error.next("run the same command again"),
            _ => error,
        }
    }

    /// From the present phase to the new state running and healthy.
    pub(super) fn forward(&mut self, cancel: &Cancel) -> Result<()> {
        if self.journal.story.phase == Phase::Staged {
            self.stop(cancel)?;
            servers::keep_out(&self.journal.story, cancel)?;
            servers::keep_over(&self.journal.story, cancel)?;
            // What an undo brings back is whole, and stands where a merge would stage its own.
            if self.journal.story.header.undo_of.is_none() {
                self.merges = merge::merge(&self.journal.story.header.terms, cancel)?;
            }
            let built = self.build()?;
            cancel.check()?;
            let at = self.host.clock.timestamp();
            self.journal.swapping(built.steps, built.dirs, built.replaced, at)?;
            self.appeared = built.appeared;
        }
        if matches!(self.journal.story.phase, Phase::Swapping | Phase::Returning) {
            self.swap(cancel)?;
            self.journal.enter(Phase::Started, self.host.clock.timestamp())?;
        }
        self.start(cancel)?;
        self.reload(cancel)?;
        let header = &self.journal.story.header;
        wait_until_healthy(&header.health, cancel)?;
        all_hold(&header.after_restore, &header.databases(), cancel)
    }

    /// Every database that was staged is whole, and has the rows that were counted when it was backed up.
    fn check_databases(&self, archive: &Archive, cancel: &Cancel) -> Result<()> {
        let terms = &self.journal.story.header.terms;
        for root in terms.roots.iter().filter(|root| root.kind == RootKind::Sqlite) {
            let Some((place, path)) = root.place(b"", &terms.places) else { continue };
            let staged = absolute(&terms.places[place].stage.as_path().join(SWAP), &path);
            let sources = archive.head().into_iter().flat_map(|head| &head.sources);
            let source = sources.into_iter().find(|source| source.name.as_bytes() == root.source.0);
            let recorded = source.and_then(|source| source.details.database.as_ref());
            let checked = sqlite::check_at_rest(&staged, recorded.map(|database| &database.tables), cancel);
            checked.map_err(|error| error.about(archive.path()))?;
        }
        Ok(())
    }

    /// Goes forward from where a crash or a failed rollback left it.
    pub(super) fn resume(&mut self, cancel: &Cancel) -> Result<()> {
        servers::end_ours(&self.journal.story)?;
        if self.journal.story.has_swapped() && self.journal.story.phase < Phase::Started {
            self.stop_again(cancel).map_err(|failures| Error::new(ErrorKind::Failed, failures.join("; ")))?;
        }
        self.forward(cancel)
    }

    /// Commits what is done, or rolls it back.
    pub(super) fn end(&mut self, done: Result<()>) -> Result<()> {
        match done.and_then(|()| self.commit()) {
            Ok(()) => Ok(()),
            Err(error) if self.journal.story.phase >= Phase::Committed => Err(error.state("the restore stands")),
            Err(error) => Err(self.roll_back(Some(error), false)),
        }
    }

    /// Stops the services that run; across a restart of the machine too.
    fn stop(&mut self, cancel: &Cancel) -> Result<()> {
        self.stopped = Some(Instant::now());
        let id = self.id();
        let pending = pending(self.host.data_dir, &id);
        let services = self.journal.story.services.clone();
        if !services.is_empty() {
            make_file(&pending)?;
        }
        for FoundService { service, found } in &services {
            service.hold(self.host.systemd_dir, &id, &pending)?;
            if *found != Found::Stopped {
                service.stop(Some(cancel))?;
            }
        }
        Ok(())
    }

    /// Stops what may have been started since the steps began.
    fn stop_again(&self, cancel: &Cancel) -> std::result::Result<(), Vec<String>> {
        let story = &self.journal.story;
        let mut failures = Vec::new();
        for FoundService { service, found } in &story.services {
            match found {
                // It cannot be asked. Before the start it is stopped, and to stop it twice may fail; after it,
                // nobody knows whether it came to be started, so that a failure says nothing.
                Found::Unknown if story.phase == Phase::Started => service.stop(Some(cancel)).unwrap_or(()),
                Found::Unknown => {}
                Found::Running | Found::Stopped => {
                    failures.extend(service.stop(Some(cancel)).err().map(|error| error.to_string()));
                }
            }
        }
        if failures.is_empty() && !story.services.is_empty() {
            failures.extend(make_file(&pending(self.host.data_dir, &self.id())).err().map(|error| error.to_string()));
        }
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }

    /// The list of steps, when nobody uses any more what they replace.
    fn build(&self) -> Result<Built> {
        let header = &self.journal.story.header;
        let (terms, sides) = (&header.terms, Sides::open(&header.terms)?);
        let rules = Rules::of(terms)?;
        let mut ground = Ground::look(&header.services)?;
        let exchanges = terms.places.iter().map(|place| can_exchange(place.stage.as_path()));
        let exchanges = exchanges.collect::<Result<Vec<_>>>()?;
        let builder = Builder {
            terms,
            rules: &rules,
            ground: &mut ground,
            sides: &sides,
            known: self.known,
            force: self.force,
            exchanges: &exchanges,
            built: Built::default(),
            vacated: Default::default(),
            placed: Vec::new(),
        };
        let built = match &header.undo_of {
            None => builder.build()?,
            Some(older) => builder.build_reverse(&Story::of(self.host.data_dir, older)?)?,
        };
        match ground.users().iter().find(|user| !user.only_reads()) {
            Some(user) => Err(Error::new(ErrorKind::InUse, format!("still in use: {}", user.line()))
                .next("stop it, or name what stops it under `services` in lifeboat.yaml")),
            None => Ok(built),
        }
    }

    fn swap(&self, cancel: &Cancel) -> Result<()> {
        let story = &self.journal.story;
        let sides = Sides::open(&story.header.terms)?;
        // After an interruption, what was carried over may be in its place already.
        let mut carriers = vec![None; story.steps.len()];
        let mut carrier = None;
        for (step, of) in story.steps.iter().zip(&mut carriers).rev() {
            *of = carrier.filter(|_| step.is_carry());
            carrier = if step.brings() { Some(step) } else { carrier };
        }
        servers::rename(story, true, cancel)?;
        servers::write_over(story, true, cancel)?;
        for (step, carrier) in story.steps.iter().zip(carriers) {
            cancel.check()?;
            if !carrier.map_or(Ok(false), |carrier: &Step| carrier.has_carried(step, &sides))? {
                step.apply(&sides)?;
            }
        }
        for dir in story.dirs.iter().rev() {
            dir.settle(&sides, true)?;
        }
        sides.sync()
    }

    fn start(&mut self, cancel: &Cancel) -> Result<()> {
        servers::let_in(&self.journal.story, cancel)?;
        remove_file(&pending(self.host.data_dir, &self.id()));
        let starts_all = self.journal.story.starts_all();
        for FoundService { service, found } in self.journal.story.services.iter().rev() {
            if *found != Found::Stopped || starts_all {
                service.start(Some(cancel))?;
            }
        }
        self.pause = self.stopped.map_or(Duration::ZERO, |stopped| stopped.elapsed());
        Ok(())
    }

    fn reload(&mut self, cancel: &Cancel) -> Result<()> {
        let Some(reload) = &self.journal.story.header.reload else { return Ok(()) };
        match reload.apply(Some(cancel)) {
            Err(error) if reload.warn_only && error.kind() != ErrorKind::Cancelled => {
                self.reload_warning = Some(error.to_string());
                Ok(())
            }
            done => done,
        }
    }

    /// The restore stands. What it replaced is kept, or goes.
    pub(super) fn commit(&mut self) -> Result<()> {
        let now = self.host.clock.timestamp();
        if self.journal.story.phase < Phase::Started {
            return Err(Error::new(ErrorKind::Usage, "it has not come so far that it could be committed")
                .state("nothing was changed")
                .next("use --resume to finish it, or --rollback"));
        }
        self.journal.enter(Phase::Committed, now)?;
        self.release();
        kept::after_commit(&mut self.journal, self.host, now, self.stages.as_mut())
    }

    /// Units may be started at boot again.
    fn release(&self) {
        let id = self.id();
        remove_file(&pending(self.host.data_dir, &id));
        for FoundService { service, .. } in &self.journal.story.services {
            // A drop-in that stays behind names a file that does not exist, and keeps nothing from starting.
            service.release(self.host.systemd_dir, &id).unwrap_or(());
        }
    }

    /// Puts everything back as it was. What the new state wrote is kept only if asked.
    pub(super) fn roll_back(&mut self, cause: Option<Error>, keep_new: bool) -> Error {
        match self.try_roll_back(keep_new) {
            Ok(()) => rolled_back(cause.as_ref()),
            Err(failures) => self.incomplete(cause.as_ref(), &failures),
        }
    }

    fn try_roll_back(&mut self, keep_new: bool) -> std::result::Result<(), Vec<String>> {
        // A signal that came asks to stop the restore, not to leave it half undone.
        let cancel = Cancel::new();
        let mut failures = Vec::new();
        if self.journal.story.has_swapped() {
            self.stop_again(&cancel)?;
        }
        if self.journal.story.phase == Phase::Started {
            // Half undone it must never be taken for the new state: a crash from here on is rolled back.
            let phase = if keep_new { Phase::Returning } else { Phase::Swapping };
            self.journal.enter(phase, self.host.clock.timestamp()).map_err(|error| vec![error.to_string()])?;
        }
        servers::end_ours(&self.journal.story).map_err(|error| vec![error.to_string()])?;
        if self.journal.story.has_swapped() {
            servers::keep_out(&self.journal.story, &cancel).map_err(|error| vec![error.to_string()])?;
        }
        self.undo(&mut failures);
        if !failures.is_empty() {
            return Err(failures);
        }
        if self.journal.story.phase >= Phase::Staged {
            servers::let_in(&self.journal.story, &cancel).map_err(|error| vec![error.to_string()])?;
        }
        remove_file(&pending(self.host.data_dir, &self.id()));
        for FoundService { service, found } in self.journal.story.services.iter().rev() {
            if *found != Found::Stopped {
                failures.extend(service.start(Some(&cancel)).err().map(|error| error.to_string()));
            }
        }
        if !failures.is_empty() {
            return Err(failures);
        }
        self.release();
        let ended = kept::after_rollback(&mut self.journal, self.host, keep_new, self.stages.as_mut());
        ended.map_err(|error| vec![error.to_string()])
    }

    fn undo(&self, failures: &mut Vec<String>) {
        let story = &self.journal.story;
        if !story.has_swapped() {
            return;
        }
        let sides = match Sides::open(&story.header.terms) {
            Ok(sides) => sides,
            Err(error) => return failures.push(error.to_string()),
        };
        let undone = story.steps.iter().rev().map(|step| step.undo(&sides));
        failures.extend(undone.filter_map(Result::err).map(|error| error.to_string()));
        let cancel = Cancel::new();
        let databases = [servers::rename(story, false, &cancel), servers::write_over(story, false, &cancel)];
        failures.extend(databases.into_iter().filter_map(Result::err).map(|error| error.to_string()));
        if failures.is_empty() {
            let settled = story.dirs.iter().map(|dir| dir.settle(&sides, false));
            failures.extend(settled.filter_map(Result::err).map(|error| error.to_string()));
        }
        failures.extend(sides.sync().err().map(|error| error.to_string()));
    }

    /// What is left to do by hand, with the exact commands.
    fn incomplete(&self, cause: Option<&Error>, failures: &[String]) -> Error {
        let header = &self.journal.story.header;
        let shown: Vec<&str> = failures.iter().take(3).map(String::as_str).collect();
        let more = if failures.len() > 3 { format!(" and {} more", failures.len() - 3) } else { String::new() };
        let stages: Vec<String> =
            header.terms.places.iter().map(|place| place.stage.as_path().display().to_string()).collect();
        let what = match cause {
            Some(cause) => format!("the restore failed ({cause}), and so did its rollback"),
            None => "the restore could not be rolled back".to_owned(),
        };
        Error::new(ErrorKind::RollbackIncomplete, format!("{what}: {}{more}", shown.join("; ")))
        .state(format!("both copies are kept; what is not live is in {}", stages.join(", ")))
        .next(format!(
            "remove the cause, then run `lifeboat restore --rollback {0}`; or finish it with `lifeboat restore --resume {0}`",
            header.id
        ))
    }

    /// What the report says of the run.
    pub(super) fn add_to(&self, report: &mut LiveReport) {
        let story = &self.journal.story;
        report.steps = story.steps.len();
        (report.appeared, report.appeared_count) = self.appeared.clone();
        report.merges.clone_from(&self.merges);
        let stopped = story.services.iter().filter(|found| found.found != Found::Stopped);
        report.services = stopped.map(|found| found.service.name.clone()).collect();
        let was_down = story.starts_all();
        report.started = story.services.iter().filter(|_| was_down).map(|found| found.service.name.clone()).collect();
        report.health_checks = story.header.health.len();
        report.checks = story.header.after_restore.len();
        report.pause = if report.services.is_empty() { Duration::ZERO } else { self.pause };
        report.reload_warning.clone_from(&self.reload_warning);
        let keeps = story.header.keep != Keep::For(Duration::ZERO);
        report.kept = keeps.then(|| kept::Kept::of(story));
    }
}

/// Everything is as it was; `cause` is why, unless that was asked for.
fn rolled_back(cause: Option<&Error>) -> Error {
    let what = match cause {
        Some(cause) => format!("the restore failed and was rolled back: {cause}"),
        None => "the restore was rolled back".to_owned(),
    };
    let next = cause.and_then(Error::next_step);
    Error::new(ErrorKind::RolledBack, what)
        .state("everything is as it was before, services included")
        .next(next.unwrap_or("remove the cause named above, then run the same command again"))
}

/// Staged directories get what they are, the innermost first.
fn finish_dirs(filled: &Filled, folders: &[BorrowedFd<'_>], watch: Watch<'_>) -> Result<()> {
    let implied = rustix::fs::Mode::from_raw_mode(0o777) & !lifeboat_store::durable::current_umask();
    let open = |folder: usize, path: &[u8]| beneath::open(folders[folder], path, OFlags::RDONLY | OFlags::DIRECTORY);
    let failed = |path: &[u8], error| {
        let shown = lifeboat_format::path::shown(path);
        Error::from(lifeboat_store::Error::io("set the attributes of", shown.as_ref(), error))
    };
    for (folder, path) in filled.implied_dirs.iter().rev() {
        let set = || rustix::fs::fchmod(open(*folder, path)?, implied);
        set().map_err(|error| failed(path, error))?;
    }
    for (folder, path, entry) in filled.dirs.iter().rev() {
        let set = || node::finish(open(*folder, path)?.as_fd(), entry, filled.losses(watch.monitor));
        set().map_err(|error| failed(path, error))?;
    }
    Ok(())
}

/// Removes what was staged only because something else is another name of it.
fn prune(sides: &Sides, terms: &super::terms::Terms, rules: &Rules) -> Result<()> {
    let databases: Vec<(usize, Vec<u8>)> = super::database::sources(terms).collect();
    for (number, root) in terms.roots.iter().enumerate() {
        let whole = root.outer.map(|_| (b"".to_vec(), root.place(b"", &terms.places)));
        let borders = root.borders.iter().map(|(border, place)| (border.0.clone(), Some((*place, Vec::new()))));
        for (inner, place) in whole.into_iter().chain(borders) {
            let Some((place, path)) = place else { continue };
            let Some(tree) = sides.staged(place, super::step::Side::Swap) else { continue };
            let failed = |error| Error::from(lifeboat_store::Error::io("look at", root.path.as_path(), error));
            let mut unwanted = Vec::new();
            if !tree.stat(&path).map_err(failed)?.is_some_and(|stat| super::tree::is_dir(&stat)) {
                continue;
            }
            tree.walk(&path, &mut |at, stat| {
                let below = super::name::below(at, &path).unwrap_or_default();
                let is_dir = super::tree::is_dir(stat);
                let is_others = databases.iter().any(|(of, path)| *of == place && path == at);
                if !is_dir && !is_others && !rules.selects(number, &super::name::join(&inner, below), is_dir) {
                    unwanted.push(at.to_vec());
                }
            })
            .map_err(failed)?;
            for path in unwanted {
                let remove = || {
                    let (dir, name) = tree.parent(&path)?;
                    let attrs = super::attrs::Attrs::read(&dir)?;
                    rustix::fs::unlinkat(&*dir, name, rustix::fs::AtFlags::empty())?;
                    attrs.set(&dir)
                };
                remove().map_err(failed)?;
            }
        }
    }
    Ok(())
}

fn make_file(path: &std::path::Path) -> Result<()> {
    let options = std::fs::OpenOptions::new().create(true).truncate(true).write(true).open(path);
    let file = options.map_err(|error| Error::from(lifeboat_store::Error::io("create", path, error)))?;
    file.sync_all().map_err(|error| Error::from(lifeboat_store::Error::io("sync", path, error)))?;
    Ok(lifeboat_store::durable::sync_dir(path.parent().unwrap_or(path))?)
}

fn remove_file(path: &std::path::Path) {
    // Where it cannot be removed, the drop-ins that name it go too.
    std::fs::remove_file(path).unwrap_or(());
}
