//! SQLite databases among what is swapped. A database and the logs that SQLite
//! keeps beside it are one thing: never does a database stand under its live
//! name beside another's log. So its logs go before it changes, and when the
//! old one comes back, the logs of the new one go first.

use std::collections::{HashMap, HashSet};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{OFlags, Stat};

use super::build::{At, Builder, aside};
use super::name::Name;
use super::step::{Side, Sides, Spot, Step, cleared};
use super::terms::{Mode, RootKind, Terms};
use super::tree::{Tree, is_dir, is_file, size};
use crate::sqlite::{LOGS, begins_like_one};
use crate::{Result, beneath};

/// The smallest page, of which a database is a whole number.
const PAGE_MIN_BYTES: u64 = 512;

/// The name of the log that ends with `end` of the database at `path`.
pub(super) fn log_of(path: &[u8], end: &str) -> Vec<u8> {
    [path, end.as_bytes()].concat()
}

/// The database that a log of this name would belong to.
pub(super) fn base_of_log(path: &[u8]) -> Option<&[u8]> {
    let base = LOGS.iter().find_map(|end| path.strip_suffix(end.as_bytes()))?;
    (!base.is_empty() && !base.ends_with(b"/")).then_some(base)
}

/// Whether a database can have this size.
pub(super) fn may_be_database(size: u64) -> bool {
    size > 0 && size.is_multiple_of(PAGE_MIN_BYTES)
}

/// Whether what is at `path` begins as a database does. Of most files, the size tells that they do not.
pub(super) fn is_database(tree: &Tree, path: &[u8], stat: &Stat) -> bool {
    if !is_file(stat) || !may_be_database(size(stat)) {
        return false;
    }
    let mut start = [0; 16];
    let opened = beneath::open(tree.top(), path, OFlags::RDONLY | OFlags::NONBLOCK);
    opened.is_ok_and(|fd| std::fs::File::from(fd).read_exact(&mut start).is_ok() && begins_like_one(&start))
}

/// Whether logs beside the database at `path` hold a part of its state.
pub(super) fn has_state_in_logs(tree: &Tree, path: &[u8], stat: &Stat) -> bool {
    let is_filled = |end: &str| tree.stat(&log_of(path, end)).is_ok_and(|stat| stat.is_some_and(|log| size(&log) > 0));
    // The third, `-shm`, holds nothing that is not in the others.
    LOGS.iter().filter(|end| **end != "-shm").any(|end| is_filled(end)) && is_database(tree, path, stat)
}

/// Patterns that stand for the database at `path` and all that belongs to it,
/// for a source of files whose root is `root`.
pub(super) fn patterns(root: &Path, path: &Path) -> Option<Vec<String>> {
    let inner = path.strip_prefix(root).ok().filter(|inner| !inner.as_os_str().is_empty())?;
    let inner = String::from_utf8_lossy(inner.as_os_str().as_bytes()).into_owned();
    let plain = crate::source::matcher::literal(&inner);
    Some([""].iter().chain(&LOGS).map(|end| format!("/{plain}{end}")).collect())
}

/// What a restore did with one database, to be turned around.
#[derive(Default)]
pub(super) struct Turned {
    /// The old databases, by place and path: what comes back.
    kept: HashMap<(usize, Name), u64>,
    /// Logs that were vacated in this list.
    vacated: HashMap<(usize, Name), u64>,
    /// The databases that go, by place and path, as far as they are there.
    gone: HashMap<(usize, Name), u64>,
}

impl Turned {
    pub(super) fn of(steps: &[Step], sides: &Sides) -> Self {
        let databases: HashSet<(usize, &Name)> = steps
            .iter()
            .filter_map(|step| match step {
                Step::Vacate { place, database, .. } => Some((*place, database)),
                _ => None,
            })
            .collect();
        let kept = steps.iter().filter_map(|step| match step {
            Step::Exchange { place, live, staged, .. } => Some((*place, live, staged)),
            Step::Move { place, from, to, .. } if from.side == Side::Live => Some((*place, &from.path, to)),
            _ => None,
        });
        let kept = kept.filter(|(place, live, _)| databases.contains(&(*place, *live)));
        // Its inode now: the state that is kept may have replaced it while it ran.
        let inode = |tree: &Tree, path: &[u8]| tree.stat(path).ok().flatten().map(|stat| stat.st_ino);
        let kept = kept.filter_map(|(place, live, kept)| {
            Some(((place, live.clone()), inode(sides.staged(place, kept.side)?, &kept.path.0)?))
        });
        let gone = databases
            .iter()
            .filter_map(|(place, live)| Some(((*place, (*live).clone()), inode(sides.live(*place), &live.0)?)));
        Self { kept: kept.collect(), vacated: HashMap::new(), gone: gone.collect() }
    }
}

impl Builder<'_> {
    /// Whether what is at `at` is a database, on the side that comes or on the one that goes.
    pub(super) fn concerns_database(&self, at: At<'_>, staged: &Stat, live: Option<&Stat>) -> Result<bool> {
        if !is_file(staged) {
            return Ok(false);
        }
        Ok(self.terms.roots[at.number].kind == RootKind::Sqlite
            || is_database(self.staged(at.place)?, at.path, staged)
            || live.is_some_and(|live| is_database(self.sides.live(at.place), at.path, live)))
    }

    /// The logs beside the database at `at` go, before `new` takes its place (0: nothing does). What the
    /// new state writes into the same goes before `old` comes back, by the steps that are returned.
    pub(super) fn vacate_logs(&mut self, at: At<'_>, new: u64, old: Option<u64>) -> Result<Vec<Step>> {
        let mut clears = Vec::new();
        for end in LOGS {
            let (path, inner) = (log_of(at.path, end), log_of(at.inner, end));
            let log = At { inner: &inner, path: &path, ..at };
            let (place, live, database) = (at.place, Name(path.clone()), Name(at.path.to_vec()));
            let to = Spot::new(Side::Removed, &path);
            let inode = match self.live_stat(log)? {
                None => None,
                // Whatever it is, it is no log.
                Some(stat) if is_dir(&stat) => continue,
                Some(stat) => {
                    self.note_replaced(log, &stat, false)?;
                    let stat = self.settled(log, stat)?;
                    self.make_home(place, &to)?;
                    Some(stat.st_ino)
                }
            };
            let step = Step::Vacate { place, live: live.clone(), to, inode, database: database.clone(), new };
            self.built.steps.push(step);
            self.vacated.insert((place, path.clone()));
            // A log that the snapshot holds as a file of its own moves in after its database, and out before it.
            if self.staged_stat(log)?.is_none() {
                clears.push(Step::Clear { place, live, known: inode.into_iter().collect(), database, old });
            }
        }
        Ok(clears)
    }

    /// Whether `at` is a log in the snapshot that must stay out: see [`is_foreign_log`].
    pub(super) fn is_foreign_log(&self, at: At<'_>) -> Result<bool> {
        let (Some(inner), Some(path)) = (base_of_log(at.inner), base_of_log(at.path)) else { return Ok(false) };
        let comes = self.terms.mode != Mode::Merge && self.staged_stat(At { inner, path, ..at })?.is_some();
        Ok(is_foreign_log(self.sides.live(at.place), at.path, comes))
    }

    /// Whether `at` is a live log of a database that the staged one replaces.
    pub(super) fn is_log_of_replaced(&self, at: At<'_>) -> Result<bool> {
        let (Some(inner), Some(path)) = (base_of_log(at.inner), base_of_log(at.path)) else { return Ok(false) };
        let base = At { inner, path, ..at };
        match self.staged_stat(base)? {
            Some(staged) => self.concerns_database(base, &staged, self.live_stat(base)?.as_ref()),
            None => Ok(false),
        }
    }

    /// A database that is carried over takes its logs along, those too that are there later.
    pub(super) fn carry_logs(&mut self, at: At<'_>) {
        for end in LOGS {
            let (place, live) = (at.place, log_of(at.path, end));
            self.vacated.insert((place, live.clone()));
            self.built.steps.push(Step::Follow { place, live: Name(live) });
        }
    }

    /// Turns [`Step::Clear`] around: the log of the state that goes gives way to that of the one that comes back.
    pub(super) fn vacate_again(&mut self, turned: &mut Turned, place: usize, live: &Name, of: &Name) -> Result<()> {
        let failed = |error| lifeboat_store::Error::io("look at", &self.terms.places[place].live(&live.0), error);
        let now = self.sides.live(place).stat(&live.0).map_err(failed)?.filter(|now| !is_dir(now));
        let to = self.free_home(place, &live.0)?;
        if let Some(now) = &now {
            let (number, inner) = self.source_of(place, &live.0);
            let at = At { number, inner: &inner, place, path: &live.0 };
            self.note_replaced(at, now, false)?;
            self.make_home(place, &to)?;
            turned.vacated.insert((place, live.clone()), now.st_ino);
        }
        let inode = now.map(|now| now.st_ino);
        let new = turned.kept.get(&(place, of.clone())).copied().unwrap_or(0);
        self.built.steps.push(Step::Vacate { place, live: live.clone(), to, inode, database: of.clone(), new });
        Ok(())
    }

    /// Where in the stage a log can be kept: another state's may be there.
    fn free_home(&self, place: usize, live: &[u8]) -> Result<Spot> {
        let homes = [Spot::new(Side::Removed, live), aside(&[live, &b"-undo"[..]].concat())];
        for home in &homes {
            if self.kept_stat(place, home)?.is_none() {
                return Ok(home.clone());
            }
        }
        let name = format!("log-{}", lifeboat_store::durable::random_hex());
        Ok(Spot::new(Side::Removed, name.as_bytes()))
    }

    /// What is kept at `kept`.
    pub(super) fn kept_stat(&self, place: usize, kept: &Spot) -> Result<Option<Stat>> {
        let failed = |error| lifeboat_store::Error::io("look at", &self.sides.path(place, kept), error);
        let tree = self.sides.staged(place, kept.side);
        Ok(tree.map(|tree| tree.stat(&kept.path.0)).transpose().map_err(failed)?.flatten())
    }

    /// Turns [`Step::Vacate`] around: the log comes back, after its database.
    pub(super) fn bring_log_back(
        &mut self,
        turned: &Turned,
        place: usize,
        (live, database): (&Name, &Name),
        kept: &Spot,
    ) -> Result<()> {
        // If the old state had come back once and had run, the log that it had then was cleared away.
        let mut there = None;
        for spot in [kept.clone(), cleared(&live.0)] {
            there = self.kept_stat(place, &spot)?.map(|stat| (spot, stat.st_ino));
            if there.is_some() {
                break;
            }
        }
        let inode = there.as_ref().map(|(_, inode)| *inode);
        if let Some((from, inode)) = there {
            let to = Spot::new(Side::Live, &live.0);
            self.built.steps.push(Step::Move { place, from, to, inode });
        }
        let gone = turned.vacated.get(&(place, live.clone())).copied();
        let known = inode.into_iter().chain(gone).collect();
        let old = turned.gone.get(&(place, database.clone())).copied();
        let (live, database) = (live.clone(), database.clone());
        self.built.steps.push(Step::Clear { place, live, known, database, old });
        Ok(())
    }
}

/// Whether what the snapshot has for `path` is a log that must stay out: beside
/// it a database is live that stays, because the snapshot's does not come.
pub(super) fn is_foreign_log(live: &Tree, path: &[u8], database_comes: bool) -> bool {
    let Some(base) = base_of_log(path).filter(|_| !database_comes) else { return false };
    live.stat(base).is_ok_and(|stat| stat.is_some_and(|stat| is_database(live, base, &stat)))
}

/// The path in its place of every database that is a source of its own.
pub(super) fn sources(terms: &Terms) -> impl Iterator<Item = (usize, Vec<u8>)> + '_ {
    let databases = terms.roots.iter().filter(|root| root.kind == RootKind::Sqlite);
    databases.filter_map(|root| root.place(b"", &terms.places))
}
