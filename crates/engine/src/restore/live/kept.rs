//! What a restore replaced: kept for a while, kept for ever, discarded, or put
//! back. Its journal stays as long as it does, and says where everything is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::journal::{self, Header, Journal, Phase, Story};
use super::name::join;
use super::run::Run;
use super::servers;
use super::stages::{Stages, look_at_time};
use super::step::{Side, Sides, Step};
use super::target::touches;
use super::terms::Root;
use super::tree::{Tree, is_dir};
use super::{Consent, Host, LiveReport, Recovered, aside, no_such};
use crate::config::Keep;
use crate::health::is_healthy_now;
use crate::lock::{self, Lock};
use crate::report::Watch;
use crate::{Error, ErrorKind, Result};

/// What was replaced by one restore.
#[derive(Clone, Debug, Serialize)]
pub struct Kept {
    /// The restore's id.
    pub id: String,
    /// The application.
    pub app: String,
    /// Its roots.
    pub roots: Vec<String>,
    /// When it was replaced.
    pub since: Timestamp,
    /// Until when it is kept; `None`: for ever.
    pub until: Option<Timestamp>,
    /// How many entries were replaced.
    pub entries: u64,
    /// Bytes of their content.
    pub bytes: u64,
    /// Where it is.
    pub folders: Vec<String>,
    /// Databases among it that are files, by their names beside the live ones.
    pub aside: Vec<String>,
    /// Databases of servers among it, by the names that they have there.
    pub databases: Vec<String>,
    /// Whether it is the new state, which was there until a rollback, and not the old one.
    pub is_new_state: bool,
}

impl Kept {
    pub(super) fn of(story: &Story) -> Self {
        let header = &story.header;
        let places = &header.terms.places;
        Self {
            id: header.id.clone(),
            app: header.app.clone(),
            roots: header.terms.roots.iter().map(Root::shown).collect(),
            since: story.since,
            until: story.kept_until,
            entries: story.replaced.entries,
            bytes: story.replaced.bytes,
            folders: places.iter().map(|place| place.stage.to_string()).collect(),
            aside: story
                .aside
                .iter()
                .filter(|aside| !aside.is_log())
                .map(|aside| places[aside.place].live(&aside.name.0).display().to_string())
                .collect(),
            databases: servers::kept_names(story).collect(),
            is_new_state: story.phase == Phase::Returned,
        }
    }
}

/// Everything that is kept, oldest first.
pub(crate) fn all(data_dir: &Path) -> Result<Vec<Kept>> {
    Ok(stories(data_dir)?.iter().map(|(_, story)| Kept::of(story)).collect())
}

fn stories(data_dir: &Path) -> Result<Vec<(PathBuf, Story)>> {
    let stories = journal::all(data_dir)?.into_iter().filter_map(|(path, story)| Some((path, story.ok()?)));
    let mut stories: Vec<(PathBuf, Story)> = stories.filter(|(_, story)| !story.is_waiting()).collect();
    // A kill may leave the journal of a restore that was undone; what it kept is live again.
    let undone = stories.iter().filter(|(_, story)| story.phase == Phase::Committed);
    let undone: Vec<String> = undone.filter_map(|(_, story)| story.header.undo_of.clone()).collect();
    stories.retain(|(_, story)| !undone.contains(&story.header.id));
    Ok(stories)
}

/// Decides what becomes of what was replaced, once the restore stands.
pub(super) fn after_commit(
    journal: &mut Journal,
    host: &Host<'_>,
    now: Timestamp,
    stages: Option<&mut Stages>,
) -> Result<()> {
    if let Some(older) = journal.story.header.undo_of.clone() {
        // What it kept is live again; its stage is this one's.
        let path = journal::dir(host.data_dir).join(format!("{older}.jsonl"));
        if let Ok(older) = Journal::open(&path) {
            older.remove()?;
        }
    }
    let keep = journal.story.header.keep;
    if keep == Keep::For(Duration::ZERO) {
        servers::unmark(&journal.story)?;
        servers::drop_kept(&journal.story)?;
        Stages::remove(&journal.story.header.terms)?;
        return journal.remove();
    }
    point(journal, stages, true)?;
    clear(&journal.story)?;
    aside::give_names(journal)?;
    servers::unmark(&journal.story)?;
    // The last line: without it, a crash came before the end of this.
    journal.keep_until(until(keep, now))
}

/// Does what a crash left to do of a restore that was over. The caller has its lock.
pub(super) fn settle(host: &Host<'_>, path: &Path) -> Result<()> {
    // Another run may have done so meanwhile.
    if !path.exists() {
        return Ok(());
    }
    let mut journal = Journal::open(path)?;
    if !journal.story.is_unsettled() {
        return Ok(());
    }
    let mut stages = Stages::open(&journal.story.header.terms)?;
    let since = journal.story.since;
    if journal.story.phase == Phase::Committed {
        return after_commit(&mut journal, host, since, Some(&mut stages));
    }
    point(&journal, Some(&mut stages), true)?;
    journal.keep_until(until(journal.story.header.keep, since))
}

/// Until when something is kept that is replaced at `now`.
fn until(keep: Keep, now: Timestamp) -> Option<Timestamp> {
    match keep {
        Keep::Forever => None,
        Keep::For(duration) => {
            let duration = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
            Some(now.saturating_add(duration).unwrap_or(Timestamp::MAX))
        }
    }
}

/// The old state stands again. Only what `--rollback` takes back after it had
/// run is kept.
pub(super) fn after_rollback(
    journal: &mut Journal,
    host: &Host<'_>,
    keep_new: bool,
    stages: Option<&mut Stages>,
) -> Result<()> {
    let header = &journal.story.header;
    if let Some(older) = header.undo_of.clone() {
        // Its stage is that of the older restore, which keeps it.
        let path = journal::dir(host.data_dir).join(format!("{older}.jsonl"));
        if let Some(stages) = stages {
            stages.point(&older, &path, true)?;
        }
        Stages::restore_times(&header.terms);
        aside::give_names(&mut Journal::open(&path)?)?;
        return journal.remove();
    }
    if keep_new {
        let now = host.clock.timestamp();
        let kept = until(header.keep, now);
        journal.enter(Phase::Returned, now)?;
        point(journal, stages, true)?;
        return journal.keep_until(kept);
    }
    servers::drop_staged(&journal.story)?;
    servers::drop_roles(&journal.story)?;
    Stages::remove(&header.terms)?;
    Stages::restore_times(&header.terms);
    journal.remove()
}

fn point(journal: &Journal, stages: Option<&mut Stages>, kept: bool) -> Result<()> {
    match stages {
        Some(stages) => stages.point(&journal.story.header.id, journal.path(), kept),
        None => Ok(()),
    }
}

/// Removes what was staged and not needed, so that only what was replaced is left.
fn clear(story: &Story) -> Result<()> {
    let sides = Sides::open(&story.header.terms)?;
    let kept: std::collections::HashSet<(usize, u64)> = story
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Exchange { place, old, .. } => Some((*place, *old)),
            Step::Move { place, from, to, inode } if from.side == Side::Live && to.side != Side::Live => {
                Some((*place, *inode))
            }
            Step::Move { .. } | Step::Vacate { .. } | Step::Clear { .. } | Step::Follow { .. } => None,
        })
        .collect();
    for place in 0..story.header.terms.places.len() {
        let Some(tree) = sides.staged(place, Side::Swap) else { continue };
        let cleared = clear_dir(tree, b"", &|inode| kept.contains(&(place, inode)));
        cleared.map_err(|error| {
            let stage = story.header.terms.places[place].stage.as_path();
            lifeboat_store::Error::io("clear", stage, error)
        })?;
    }
    Ok(())
}

/// True when nothing is left in the directory.
fn clear_dir(tree: &Tree, path: &[u8], is_kept: &dyn Fn(u64) -> bool) -> rustix::io::Result<bool> {
    let mut is_empty = true;
    for name in tree.list(path)? {
        let inner = join(path, &name);
        let Some(stat) = tree.stat(&inner)? else { continue };
        if is_kept(stat.st_ino) || (is_dir(&stat) && !clear_dir(tree, &inner, is_kept)?) {
            is_empty = false;
            continue;
        }
        let (dir, name) = tree.parent(&inner)?;
        let flags = if is_dir(&stat) { rustix::fs::AtFlags::REMOVEDIR } else { rustix::fs::AtFlags::empty() };
        tree.forget(&inner);
        rustix::fs::unlinkat(&*dir, name, flags)?;
    }
    Ok(is_empty)
}

/// Removes what is kept no longer of restores that touch `roots`; the lock
/// `held` is held already. What another run works on is left to the next time.
pub(super) fn remove_due(host: &Host<'_>, roots: &[PathBuf], held: Option<&str>, watch: Watch<'_>) -> Result<()> {
    let now = host.clock.timestamp();
    for (path, story) in stories(host.data_dir)? {
        let is_due = story.kept_until.is_some_and(|until| until <= now);
        let is_own = held == Some(story.header.lock.as_str());
        let is_meant = is_own || roots.iter().any(|root| touches(&story.header.terms, root));
        // As long as the new state does not do well, the old one may be needed.
        if !is_due || !is_meant || !is_healthy_now(&story.header.health, watch.cancel) {
            continue;
        }
        let is_held = held == Some(story.header.lock.as_str());
        let lock = if is_held { None } else { lock::take(host.data_dir, &story.header.lock).ok() };
        if is_held || lock.is_some() {
            match remove(&path, &story) {
                // A server that is not reached now is asked the next time; what this run is for does not need it.
                Err(_) if story.is_of_servers() => {}
                removed => removed?,
            }
        }
    }
    Ok(())
}

/// The one that `id` is the beginning of, else the only one.
fn find(host: &Host<'_>, id: Option<&str>) -> Result<(PathBuf, Story)> {
    for (path, story) in stories(host.data_dir)?.into_iter().filter(|(_, story)| story.is_unsettled()) {
        // Who has the lock does it.
        if let Ok(_lock) = lock::take(host.data_dir, &story.header.lock) {
            settle(host, &path)?;
        }
    }
    let mut found = stories(host.data_dir)?;
    found.retain(|(_, story)| id.is_none_or(|id| story.header.id.starts_with(id)));
    match found.len() {
        1 => Ok(found.remove(0)),
        _ => {
            let known: Vec<&str> = found.iter().map(|(_, story)| &story.header.id[..8]).collect();
            Err(no_such(id, "that keeps what it replaced", &known))
        }
    }
}

/// Removes what the restore `id` replaced.
pub(crate) fn discard(host: &Host<'_>, id: Option<&str>) -> Result<Kept> {
    let (path, story) = find(host, id)?;
    let _lock = lock::take(host.data_dir, &story.header.lock)?;
    remove(&path, &story)?;
    Ok(Kept::of(&story))
}

/// Removes what a restore replaced, and its journal after it.
fn remove(path: &Path, story: &Story) -> Result<()> {
    let mut journal = Journal::open(path)?;
    aside::put_away(&mut journal)?;
    servers::drop_kept(&journal.story)?;
    Stages::remove(&story.header.terms)?;
    if let Some(older) = &story.header.undo_of {
        let undone = path.with_file_name(format!("{older}.jsonl"));
        if let Ok(undone) = Journal::open(&undone) {
            undone.remove()?;
        }
    }
    journal.remove()
}

/// Keeps what the restore `id` replaced for ever.
pub(crate) fn keep(host: &Host<'_>, id: Option<&str>) -> Result<Kept> {
    let (path, story) = find(host, id)?;
    let _lock = lock::take(host.data_dir, &story.header.lock)?;
    let mut journal = Journal::open(&path)?;
    journal.keep_until(None)?;
    Ok(Kept::of(&journal.story))
}

/// Putting back what a restore replaced, ready to be carried out.
pub struct Undo<'a> {
    /// What would come back.
    pub kept: Kept,
    /// Services that would be stopped and started.
    pub services: Vec<String>,
    /// What a crash had interrupted, and how that was ended before.
    pub recovered: Vec<Recovered>,
    host: Host<'a>,
    story: Story,
    lock: Lock,
}

/// Prepares to put back what the restore `id` replaced.
pub(crate) fn undo<'a>(host: Host<'a>, id: Option<&str>, watch: Watch<'_>) -> Result<Undo<'a>> {
    let (_, story) = find(&host, id)?;
    let lock = lock::take(host.data_dir, &story.header.lock)?;
    let roots: Vec<PathBuf> = story.header.terms.roots.iter().map(|root| root.path.as_path().to_owned()).collect();
    let recovered = super::recover::end_waiting(&host, &roots, Some(&story.header.lock), watch)?;
    aside::check(&story)?;
    let services = story.header.services.iter().map(|service| service.name.clone()).collect();
    Ok(Undo { kept: Kept::of(&story), services, recovered, host, story, lock })
}

impl Undo<'_> {
    /// Puts it back: a restore of its own, which can be undone in turn.
    ///
    /// # Errors
    /// As of a restore.
    pub fn apply(self, consent: Consent, watch: Watch<'_>) -> Result<LiveReport> {
        let began = std::time::Instant::now();
        if !consent.agreed && !consent.force {
            let what = format!("it would put back {} entries and stop what it has to", self.kept.entries);
            return Err(Error::new(ErrorKind::ConfirmationNeeded, what)
                .state("nothing was changed")
                .next("agree at a terminal, or add --force"));
        }
        let old = &self.story.header;
        let mut terms = old.terms.clone();
        terms.places.iter_mut().for_each(look_at_time);
        terms.in_place = servers::over_reversed(&self.story, &self.host.id);
        terms.servers = servers::reversed(&self.story, &self.host.id, watch.cancel)?;
        let header = Header {
            terms,
            id: self.host.id.clone(),
            began: self.host.clock.timestamp(),
            undo_of: Some(old.id.clone()),
            ..old.clone()
        };
        let archive = old.archive.as_path().to_owned();
        let mut run = Run::begin(&self.host, header, None, true)?;
        let older = journal::dir(self.host.data_dir).join(format!("{}.jsonl", old.id));
        let taken = Journal::open(&older).and_then(|mut older| aside::take_back(&mut older));
        let done = taken.and_then(|()| run.take_over(watch.cancel));
        let done = done.and_then(|()| run.forward(watch.cancel));
        run.end(done)?;
        let mut report = LiveReport {
            id: self.host.id.clone(),
            app: old.app.clone(),
            roots: self.kept.roots.clone(),
            elapsed: began.elapsed(),
            archive,
            ..LiveReport::default()
        };
        run.add_to(&mut report);
        drop(self.lock);
        Ok(report)
    }
}
