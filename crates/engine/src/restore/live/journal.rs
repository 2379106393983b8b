//! The journal of a restore in place (`doc/formats.md`, "The journal"): what
//! was agreed, every step with both its sides, and how far it is. A phase is
//! written and synced before its first act; steps are not noted one by one,
//! because their inodes say which are done.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use lifeboat_store::log::Log;
use serde::{Deserialize, Serialize};

use super::aside::Aside;
use super::name::Name;
use super::step::{DirChange, Step};
use super::terms::Terms;
use crate::config::{Check, Keep, Queried};
use crate::health::HealthCheck;
use crate::pg::swap::{MadeRoles, Swap};
use crate::services::{Found, Reload, Service};
use crate::{Error, ErrorKind, Result, checks, lock};

/// The format that this version writes.
const FORMAT: &str = "lifeboat-journal/1";

/// Who, what and by which rules.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) journal: String,
    pub(super) id: String,
    pub(super) app: String,
    /// The name of the lock under which it may be touched.
    pub(super) lock: String,
    pub(super) snapshot: String,
    pub(super) archive: Name,
    pub(super) began: Timestamp,
    pub(super) terms: Terms,
    pub(super) services: Vec<Service>,
    pub(super) reload: Option<Reload>,
    pub(super) health: Vec<HealthCheck>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) after_restore: Vec<Check>,
    /// The databases that they may ask, also those that are not restored.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) databases: BTreeMap<String, Queried>,
    pub(super) keep: Keep,
    /// The restore that this one undoes; its kept state is what comes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) undo_of: Option<String>,
}

/// How far a restore is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Phase {
    /// The stage is filled; nothing live was touched.
    #[default]
    Filling,
    /// The stage is filled and verified; services are stopped.
    Staged,
    /// The steps are done.
    Swapping,
    /// The new state had run and is being put aside, to be kept: the steps are undone.
    Returning,
    /// All steps are done; services start.
    Started,
    /// The new state stands.
    Committed,
    /// The old state stands again after the new one had run; that one is kept.
    Returned,
}

/// A service, and how it was found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct FoundService {
    pub(super) service: Service,
    pub(super) found: Found,
}

/// What was replaced and is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Replaced {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Services(Vec<FoundService>),
    /// The list of steps begins; one that a crash cut short does not count.
    Steps(usize),
    Step(Step),
    Dir(DirChange),
    Replaced(Replaced),
    Phase {
        phase: Phase,
        at: Timestamp,
    },
    /// Until when what was replaced is kept; `None`: for ever.
    Kept {
        until: Option<Timestamp>,
    },
    /// What of databases has a name beside them.
    Aside(Vec<Aside>),
    /// The databases of servers, when they were staged.
    Servers(Vec<Swap>),
    /// The roles that were made on servers.
    Roles(Vec<MadeRoles>),
}

/// A journal as it was read.
#[derive(Clone, Debug)]
pub(super) struct Story {
    pub(super) header: Header,
    pub(super) phase: Phase,
    /// When that phase began.
    pub(super) since: Timestamp,
    pub(super) services: Vec<FoundService>,
    pub(super) steps: Vec<Step>,
    pub(super) dirs: Vec<DirChange>,
    pub(super) replaced: Replaced,
    pub(super) kept_until: Option<Timestamp>,
    /// Whether nothing is left to do after it was over.
    is_settled: bool,
    pub(super) aside: Vec<Aside>,
    /// The databases of servers, with those that are staged once they are.
    pub(super) servers: Vec<Swap>,
    /// The roles that were made for them.
    pub(super) roles: Vec<MadeRoles>,
}

/// An open journal, and what it says so far.
#[derive(Debug)]
pub(super) struct Journal {
    log: Log,
    pub(super) story: Story,
}

/// The directory of all journals.
pub(super) fn dir(data_dir: &Path) -> PathBuf {
    data_dir.join("journal")
}

fn path(data_dir: &Path, id: &str) -> PathBuf {
    dir(data_dir).join(format!("{id}.jsonl"))
}

/// The file whose existence keeps a stopped unit from being started at boot.
pub(super) fn pending(data_dir: &Path, id: &str) -> PathBuf {
    dir(data_dir).join(format!("{id}.pending"))
}

impl Header {
    pub(super) fn format() -> String {
        FORMAT.to_owned()
    }

    /// The databases that a check may ask, each where it is live.
    pub(super) fn databases(&self) -> BTreeMap<String, Queried> {
        let restored = self.terms.databases().map(|(name, path)| (name, Queried::Sqlite(path)));
        self.databases.clone().into_iter().chain(restored).collect()
    }
}

fn line(line: &impl Serialize) -> Result<String> {
    let mut text = serde_json::to_string(line)
        .map_err(|error| Error::new(ErrorKind::Failed, format!("a line of the journal could not be made: {error}")))?;
    text.push('\n');
    Ok(text)
}

impl Journal {
    /// A new journal; durable when this returns.
    pub(super) fn create(data_dir: &Path, header: Header) -> Result<Self> {
        lock::make_private_dir(&dir(data_dir))?;
        let log = Log::create(&path(data_dir, &header.id), &line(&header)?)?;
        let since = header.began;
        Ok(Self { log, story: Story::new(header, since) })
    }

    /// Opens a journal to go on with it.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let (log, text) = Log::open(path)?;
        Ok(Self { log, story: Story::parse(&text, path)? })
    }

    pub(super) fn path(&self) -> &Path {
        self.log.path()
    }

    fn append(&mut self, lines: &[Line]) -> Result<()> {
        let mut text = String::new();
        for each in lines {
            text.push_str(&line(each)?);
        }
        self.log.append(&text)?;
        Ok(())
    }

    /// Notes the next phase, synced; it begins when this has returned.
    pub(super) fn enter(&mut self, phase: Phase, at: Timestamp) -> Result<()> {
        self.append(&[Line::Phase { phase, at }])?;
        (self.story.phase, self.story.since) = (phase, at);
        Ok(())
    }

    /// Notes how services were found, and that the stage is whole.
    pub(super) fn staged(&mut self, services: Vec<FoundService>, at: Timestamp) -> Result<()> {
        self.append(&[Line::Services(services.clone()), Line::Phase { phase: Phase::Staged, at }])?;
        (self.story.phase, self.story.since, self.story.services) = (Phase::Staged, at, services);
        Ok(())
    }

    /// Notes the databases that were staged.
    pub(super) fn servers(&mut self, servers: Vec<Swap>) -> Result<()> {
        self.append(&[Line::Servers(servers.clone())])?;
        self.story.servers = servers;
        Ok(())
    }

    /// Notes the roles that were made.
    pub(super) fn roles(&mut self, roles: Vec<MadeRoles>) -> Result<()> {
        self.append(&[Line::Roles(roles.clone())])?;
        self.story.roles = roles;
        Ok(())
    }

    /// Notes all steps, and that they begin.
    pub(super) fn swapping(
        &mut self,
        steps: Vec<Step>,
        dirs: Vec<DirChange>,
        replaced: Replaced,
        at: Timestamp,
    ) -> Result<()> {
        let mut text = line(&Line::Steps(steps.len()))?;
        for step in &steps {
            // By reference: there may be many.
            let step = serde_json::to_string(step).map_err(|error| Error::new(ErrorKind::Failed, error.to_string()))?;
            writeln!(text, "{{\"step\":{step}}}").expect("a String takes everything");
        }
        for dir in &dirs {
            text.push_str(&line(&Line::Dir(dir.clone()))?);
        }
        text.push_str(&line(&Line::Replaced(replaced))?);
        text.push_str(&line(&Line::Phase { phase: Phase::Swapping, at })?);
        self.log.append(&text)?;
        self.story.phase = Phase::Swapping;
        self.story.since = at;
        (self.story.steps, self.story.dirs, self.story.replaced) = (steps, dirs, replaced);
        Ok(())
    }

    /// Notes until when what was replaced is kept.
    pub(super) fn keep_until(&mut self, until: Option<Timestamp>) -> Result<()> {
        self.append(&[Line::Kept { until }])?;
        (self.story.kept_until, self.story.is_settled) = (until, true);
        Ok(())
    }

    /// Notes what is given names beside databases, before it is.
    pub(super) fn set_aside(&mut self, aside: Vec<Aside>) -> Result<()> {
        self.append(&[Line::Aside(aside.clone())])?;
        self.story.aside = aside;
        Ok(())
    }

    /// The restore is over and nothing of it is left.
    pub(super) fn remove(&self) -> Result<()> {
        // Gone already, unless it could not be removed when the services were started.
        std::fs::remove_file(self.path().with_extension("pending")).unwrap_or(());
        Ok(self.log.remove()?)
    }
}

impl Story {
    /// Whether also what did not run is started: the app was down as a whole,
    /// and the checks that have to pass ask it.
    pub(super) fn starts_all(&self) -> bool {
        let is_down = self.services.iter().all(|service| service.found == Found::Stopped);
        is_down && checks::ask_the_app(&self.header.health, &self.header.after_restore)
    }

    fn new(header: Header, since: Timestamp) -> Self {
        Self {
            servers: header.terms.servers.clone(),
            header,
            phase: Phase::default(),
            since,
            services: Vec::new(),
            steps: Vec::new(),
            dirs: Vec::new(),
            replaced: Replaced::default(),
            kept_until: None,
            is_settled: false,
            aside: Vec::new(),
            roles: Vec::new(),
        }
    }

    /// Reads the journal of the restore `id`.
    pub(super) fn of(data_dir: &Path, id: &str) -> Result<Self> {
        Self::read(&path(data_dir, id))
    }

    /// Reads a journal without touching it.
    pub(super) fn read(path: &Path) -> Result<Self> {
        Self::parse(&Log::peek(path)?, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self> {
        let damaged = |number: usize, why: &dyn std::fmt::Display| {
            Error::new(ErrorKind::Corrupt, format!("line {number} of the journal {} is damaged: {why}", path.display()))
                .state("both copies of what it restores are kept")
                .next("look at it by hand; it says where everything is")
        };
        let mut lines = text.lines();
        let first = lines.next().ok_or_else(|| damaged(1, &"it is empty"))?;
        let header: Header = serde_json::from_str(first).map_err(|error| damaged(1, &error))?;
        if header.journal != FORMAT {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("the journal {} has the format {}", path.display(), header.journal),
            )
            .state("nothing was touched")
            .next("use the version of Lifeboat that wrote it, or a newer one"));
        }
        let since = header.began;
        let mut story = Self::new(header, since);
        for (number, text) in lines.enumerate() {
            let line = serde_json::from_str(text).map_err(|error| damaged(number + 2, &error))?;
            story.add(line);
        }
        Ok(story)
    }

    fn add(&mut self, line: Line) {
        match line {
            Line::Services(services) => self.services = services,
            Line::Steps(count) => {
                self.steps = Vec::with_capacity(count);
                self.dirs.clear();
            }
            Line::Step(step) => self.steps.push(step),
            Line::Dir(dir) => self.dirs.push(dir),
            Line::Replaced(replaced) => self.replaced = replaced,
            Line::Phase { phase, at } => {
                (self.phase, self.since) = (phase, at);
            }
            Line::Kept { until } => (self.kept_until, self.is_settled) = (until, true),
            Line::Aside(aside) => self.aside = aside,
            Line::Servers(servers) => self.servers = servers,
            Line::Roles(roles) => self.roles = roles,
        }
    }

    /// Whether steps may have been done.
    pub(super) fn has_swapped(&self) -> bool {
        self.phase >= Phase::Swapping
    }

    /// Whether it is over, and a crash kept it from leaving everything as it is to be kept.
    pub(super) fn is_unsettled(&self) -> bool {
        !self.is_waiting() && !self.is_settled
    }

    /// Whether servers have to be reached for it.
    pub(super) fn is_of_servers(&self) -> bool {
        !self.servers.is_empty() || !self.header.terms.in_place.is_empty()
    }

    /// Whether it waits to be finished or rolled back.
    pub(super) fn is_waiting(&self) -> bool {
        self.phase < Phase::Committed
    }
}

/// The journals below `data_dir`, oldest first, and those that cannot be read.
pub(super) fn all(data_dir: &Path) -> Result<Vec<(PathBuf, Result<Story>)>> {
    let listing = match std::fs::read_dir(dir(data_dir)) {
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied) => {
            return Ok(Vec::new());
        }
        listing => listing.map_err(|error| lifeboat_store::Error::io("list", &dir(data_dir), error))?,
    };
    let paths = listing.filter_map(std::io::Result::ok).map(|entry| entry.path());
    let mut found: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .map(|path| {
            let story = Story::read(&path);
            (path, story)
        })
        .collect();
    found.sort_by_key(|(path, story)| (story.as_ref().map(|story| story.header.began).ok(), path.clone()));
    Ok(found)
}
