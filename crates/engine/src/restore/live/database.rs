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
use super::step::{Side, Spot, Step, cleared};
use super::terms::{RootKind, Terms};
use super::tree::{Tree, is_file, size};
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

/// Whether what is at `path` begins as a database does. Of most files, the size tells that they do not.
pub(super) fn is_database(tree: &Tree, path: &[u8], stat: &Stat) -> bool {
    if !is_file(stat) || size(stat) == 0 || !size(stat).is_multiple_of(PAGE_MIN_BYTES) {
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
}

impl Turned {
    pub(super) fn of(steps: &[Step]) -> Self {
        let databases: HashSet<(usize, &Name)> = steps
            .iter()
            .filter_map(|step| match step {
                Step::Vacate { place, database, .. } => Some((*place, database)),
                _ => None,
            })
            .collect();
        let kept = steps.iter().filter_map(|step| match step {
            Step::Exchange { place, live, old, .. } => Some((*place, live, *old)),
            Step::Move { place, from, inode, .. } if from.side == Side::Live => Some((*place, &from.path, *inode)),
            _ => None,
        });
        let kept = kept.filter(|(place, live, _)| databases.contains(&(*place, *live)));
        let kept = kept.map(|(place, live, old)| ((place, live.clone()), old)).collect();
        Self { kept, vacated: HashMap::new() }
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

    /// The logs beside `at` go, before the database `new` takes its place.
    pub(super) fn vacate_logs(&mut self, at: At<'_>, new: u64) -> Result<Vec<(Name, Vec<u64>)>> {
        let mut logs = Vec::new();
        for end in LOGS {
            let (path, inner) = (log_of(at.path, end), log_of(at.inner, end));
            let log = At { inner: &inner, path: &path, ..at };
            // A snapshot that holds the log as a file of its own brings both.
            if self.staged_stat(log)?.is_some() {
                continue;
            }
            let to = Spot::new(Side::Removed, &path);
            let inode = match self.live_stat(log)? {
                None => None,
                Some(live) => {
                    self.note_replaced(log, &live, false)?;
                    let live = self.settled(log, live)?;
                    self.make_home(at.place, &to)?;
                    Some(live.st_ino)
                }
            };
            let (place, database) = (at.place, Name(at.path.to_vec()));
            self.built.steps.push(Step::Vacate { place, live: Name(path.clone()), to, inode, database, new });
            self.vacated.insert((place, path.clone()));
            logs.push((Name(path), inode.into_iter().collect()));
        }
        Ok(logs)
    }

    /// What the new state writes into these logs goes, before the old database comes back.
    pub(super) fn clear_logs(&mut self, at: At<'_>, logs: Vec<(Name, Vec<u64>)>) {
        let (place, database) = (at.place, Name(at.path.to_vec()));
        let clear = |(live, known)| Step::Clear { place, live, known, database: database.clone() };
        self.built.steps.extend(logs.into_iter().map(clear));
    }

    /// Turns [`Step::Clear`] around: the log of the state that goes gives way to that of the one that comes back.
    pub(super) fn vacate_again(
        &mut self,
        turned: &mut Turned,
        place: usize,
        live: &Name,
        database: &Name,
    ) -> Result<()> {
        let failed = |error| lifeboat_store::Error::io("look at", &self.terms.places[place].live(&live.0), error);
        let now = self.sides.live(place).stat(&live.0).map_err(failed)?;
        let to = aside(&[&live.0, &b"-undo"[..]].concat());
        if let Some(now) = &now {
            let (number, inner) = self.source_of(place, &live.0);
            self.note_replaced(At { number, inner: &inner, place, path: &live.0 }, now, false)?;
            turned.vacated.insert((place, live.clone()), now.st_ino);
        }
        let inode = now.map(|now| now.st_ino);
        let new = turned.kept.get(&(place, database.clone())).copied().unwrap_or(0);
        let (live, database) = (live.clone(), database.clone());
        self.built.steps.push(Step::Vacate { place, live, to, inode, database, new });
        Ok(())
    }

    /// Turns [`Step::Vacate`] around: the log comes back, after its database.
    pub(super) fn bring_log_back(
        &mut self,
        turned: &Turned,
        place: usize,
        (live, database): (&Name, &Name),
        (kept, inode): (&Spot, Option<u64>),
    ) -> Result<()> {
        let failed = |error| lifeboat_store::Error::io("look at", &self.sides.path(place, kept), error);
        let tree = self.sides.staged(place, kept.side);
        let there = tree.map(|tree| tree.stat(&kept.path.0)).transpose().map_err(failed)?.flatten();
        // What a rollback cleared has a place of its own; nobody noted which inode it was.
        let is_meant = |there: &Stat| inode == Some(there.st_ino) || *kept == cleared(&live.0);
        let there = there.filter(is_meant).map(|there| there.st_ino);
        if let Some(inode) = there {
            let to = Spot::new(Side::Live, &live.0);
            self.built.steps.push(Step::Move { place, from: kept.clone(), to, inode });
        }
        let gone = turned.vacated.get(&(place, live.clone())).copied();
        let known = there.into_iter().chain(gone).collect();
        self.built.steps.push(Step::Clear { place, live: live.clone(), known, database: database.clone() });
        Ok(())
    }
}

/// The path in its place of every database that is a source of its own.
pub(super) fn sources(terms: &Terms) -> impl Iterator<Item = (usize, Vec<u8>)> + '_ {
    let databases = terms.roots.iter().filter(|root| root.kind == RootKind::Sqlite);
    databases.filter_map(|root| root.place(b"", &terms.places))
}
