//! From what is staged and what is live to the list of steps: walked once,
//! when the services have stopped, just before the swap.

use std::collections::HashSet;
use std::path::PathBuf;

use lifeboat_store as store;
use rustix::fs::Stat;

use super::attrs::{Attrs, attrs};
use super::database::{has_state_in_logs, is_database};
use super::ground::Ground;
use super::journal::Replaced;
use super::left_out::{Fate, Judge};
use super::name::{Name, below, join, split};
use super::plan::Known;
use super::step::{DirChange, Side, Sides, Spot, Step};
use super::survey::stamp;
use super::terms::{Mode, RootKind, Rules, Terms};
use super::tree::{Tree, is_dir, size};
use crate::report::LISTED_MAX;
use crate::restore::node;
use crate::{Error, ErrorKind, Result};

/// What the swap will do.
#[derive(Debug, Default)]
pub(super) struct Built {
    pub(super) steps: Vec<Step>,
    pub(super) dirs: Vec<DirChange>,
    pub(super) replaced: Replaced,
    /// What is replaced though it was not there when the plan was made: the first of it, and how much.
    pub(super) appeared: (Vec<String>, u64),
}

/// Makes the list.
pub(super) struct Builder<'a> {
    pub(super) terms: &'a Terms,
    pub(super) rules: &'a Rules,
    pub(super) ground: &'a mut Ground,
    pub(super) sides: &'a Sides,
    /// What the plan saw; `None` when a restore is finished after a crash.
    pub(super) known: Option<&'a Known>,
    /// Whether what appeared since may be overwritten.
    pub(super) force: bool,
    /// Whether things can change places, for each place.
    pub(super) exchanges: &'a [bool],
    pub(super) built: Built,
    /// Logs of databases that steps of their own move away.
    pub(super) vacated: HashSet<(usize, Vec<u8>)>,
    /// Directories that are staged and come where nothing is, by place and path.
    pub(super) placed: Vec<(usize, Vec<u8>)>,
}

/// A place and a path in it, with where that is in its source.
#[derive(Clone, Copy)]
pub(super) struct At<'p> {
    pub(super) number: usize,
    pub(super) inner: &'p [u8],
    pub(super) place: usize,
    pub(super) path: &'p [u8],
}

impl Builder<'_> {
    /// Goes through all sources.
    pub(super) fn build(mut self) -> Result<Built> {
        // Directories come with the files in them, and databases after that into these.
        let is_of = |kind| (0..self.terms.roots.len()).filter(move |number| self.terms.roots[*number].kind == kind);
        let numbers: Vec<usize> = is_of(RootKind::Files).chain(is_of(RootKind::Sqlite)).collect();
        for number in numbers {
            let root = &self.terms.roots[number];
            if let Some((place, path)) = root.outer.and_then(|_| root.place(b"", &self.terms.places)) {
                self.root(At { number, inner: b"", place, path: &path })?;
            }
            for (border, place) in &root.borders {
                self.merge(At { number, inner: &border.0, place: *place, path: b"" })?;
            }
        }
        Ok(self.built)
    }

    fn failed(&self, at: At<'_>) -> impl Fn(rustix::io::Errno) -> Error + use<> {
        let live: PathBuf = self.terms.places[at.place].live(at.path);
        move |error| store::Error::io("look at", &live, error).into()
    }

    pub(super) fn staged(&self, place: usize) -> Result<&Tree> {
        self.sides.staged(place, Side::Swap).ok_or_else(|| Error::new(ErrorKind::Failed, "the stage is gone"))
    }

    pub(super) fn staged_stat(&self, at: At<'_>) -> Result<Option<Stat>> {
        self.staged(at.place)?.stat(at.path).map_err(self.failed(at))
    }

    pub(super) fn live_stat(&self, at: At<'_>) -> Result<Option<Stat>> {
        self.sides.live(at.place).stat(at.path).map_err(self.failed(at))
    }

    /// The root of a source; the directories above it may be missing too.
    fn root(&mut self, at: At<'_>) -> Result<()> {
        let ends = at.path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        let ends: Vec<usize> = ends.chain([at.path.len()]).collect();
        let mut came = None;
        for end in ends {
            let above = At { path: &at.path[..end], ..at };
            if self.live_stat(above)?.is_some() {
                continue;
            }
            let Some(brought) = self.comes(above)? else {
                self.place(above)?;
                // What moves into a directory that comes with another source changes its time.
                return came.map_or(Ok(()), |came| self.keep_staged(came));
            };
            came = Some(brought);
        }
        if came.is_none() { self.entry(at).map(drop) } else { Ok(()) }
    }

    /// Where something that is missing is staged, if it comes with a directory that another source brings.
    fn comes(&self, at: At<'_>) -> Result<Option<(usize, Vec<u8>)>> {
        let live = Name::of(&self.terms.places[at.place].live(at.path));
        for (place, path) in &self.placed {
            let Some(rest) = below(&live.0, &Name::of(&self.terms.places[*place].live(path)).0) else { continue };
            let staged = join(path, rest);
            if self.staged_stat(At { place: *place, path: &staged, ..at })?.is_some() {
                return Ok(Some((*place, staged)));
            }
        }
        Ok(None)
    }

    /// The staged directory at `path` of `place` stays as it is staged, though something moves into it.
    fn keep_staged(&mut self, (place, path): (usize, Vec<u8>)) -> Result<()> {
        let at = At { number: 0, inner: b"", place, path: &path };
        let inode = self.staged_stat(at)?.map_or(0, |stat| stat.st_ino);
        let forward = Some(self.staged_attrs(at)?);
        self.built.dirs.push(DirChange { place, path: Name(path), inode, forward, backward: None });
        Ok(())
    }

    /// One staged thing. True when its name in its directory now leads to something else.
    fn entry(&mut self, at: At<'_>) -> Result<bool> {
        let Some(staged) = self.staged_stat(at)? else { return Ok(false) };
        if self.is_foreign_log(at)? {
            return Ok(false);
        }
        let live = self.live_stat(at)?.filter(|_| !self.vacated.contains(&(at.place, at.path.to_vec())));
        let Some(live) = live else {
            self.place(at)?;
            return Ok(true);
        };
        if is_dir(&staged) && is_dir(&live) {
            if self.terms.roots[at.number].is_border(at.inner) {
                return Ok(false);
            }
            if self.ground.is_one(self.terms, self.rules, at.number, at.inner) {
                self.swap_dir(at, &staged, &live)?;
                return Ok(true);
            }
            self.merge(at)?;
            return Ok(false);
        }
        let is_same = self.known.is_some_and(|known| known.is_same_still(at.place, at.path, stamp(&live)))
            && !has_state_in_logs(self.sides.live(at.place), at.path, &live);
        let stays = self.terms.mode == Mode::Merge && self.terms.roots[at.number].rows.is_none();
        if is_same || stays {
            return Ok(false);
        }
        self.note_replaced(at, &live, true)?;
        let live = self.settled(at, live)?;
        let clears = if self.concerns_database(at, &staged, Some(&live))? {
            self.vacate_logs(at, staged.st_ino, Some(live.st_ino))?
        } else {
            Vec::new()
        };
        self.replace(at, &staged, &live);
        self.built.steps.extend(clears);
        Ok(true)
    }

    /// Something live goes: who uses it, and how much it is.
    pub(super) fn note_replaced(&mut self, at: At<'_>, live: &Stat, must_be_known: bool) -> Result<()> {
        let path = self.terms.places[at.place].live(at.path);
        self.note(at, live);
        self.ground.note_mounts(&path);
        if must_be_known && !self.force && self.known.is_some_and(|known| !known.knows(at.place, at.path)) {
            return Err(Error::new(
                ErrorKind::ConfirmationNeeded,
                format!("{} was not there when the plan was made, and would be overwritten", path.display()),
            ));
        }
        if is_dir(live) {
            let mut below = Vec::new();
            let tree = self.sides.live(at.place);
            let walked = tree.walk(at.path, &mut |path, stat| below.push((path.to_vec(), *stat)));
            walked.map_err(self.failed(at))?;
            for (path, stat) in below {
                let inner = join(at.inner, &path[at.path.len() + 1..]);
                self.note(At { inner: &inner, path: &path, ..at }, &stat);
            }
        }
        Ok(())
    }

    fn note(&mut self, at: At<'_>, live: &Stat) {
        let path = self.terms.places[at.place].live(at.path);
        self.built.replaced.entries += 1;
        self.built.replaced.bytes += size(live);
        self.ground.note(&path, live);
        if self.known.is_some_and(|known| !known.knows(at.place, at.path)) {
            let (list, count) = &mut self.built.appeared;
            *count += 1;
            if list.len() < LISTED_MAX {
                list.push(lifeboat_format::path::shown(path.as_os_str().as_encoded_bytes()));
            }
        }
    }

    /// Nothing is there: what is staged moves in.
    fn place(&mut self, at: At<'_>) -> Result<()> {
        let Some(staged) = self.staged_stat(at)? else { return Ok(()) };
        let is_database = self.concerns_database(at, &staged, None)?;
        let clears = if is_database { self.vacate_logs(at, staged.st_ino, None)? } else { Vec::new() };
        self.built.steps.push(Step::Move {
            place: at.place,
            from: Spot::new(Side::Swap, at.path),
            to: Spot::new(Side::Live, at.path),
            inode: staged.st_ino,
        });
        if is_dir(&staged) {
            self.placed.push((at.place, at.path.to_vec()));
        }
        self.built.steps.extend(clears);
        Ok(())
    }

    /// `live` as it will be when it is moved: an overlay copies a file to its
    /// upper layer first, and where it has other names in the lower one it
    /// becomes another inode.
    pub(super) fn settled(&self, at: At<'_>, live: Stat) -> Result<Stat> {
        if self.terms.places[at.place].moves_dirs || is_dir(&live) {
            return Ok(live);
        }
        self.sides.live(at.place).touch(at.path, &live).map_err(self.failed(at))?;
        Ok(self.live_stat(at)?.unwrap_or(live))
    }

    fn replace(&mut self, at: At<'_>, staged: &Stat, live: &Stat) {
        let (place, path) = (at.place, at.path);
        if self.exchanges[place] {
            let staged_spot = Spot::new(Side::Swap, path);
            let live_name = Name(path.to_vec());
            let (new, old) = (staged.st_ino, live.st_ino);
            return self.built.steps.push(Step::Exchange { place, staged: staged_spot, live: live_name, new, old });
        }
        let spot = |side| Spot::new(side, path);
        self.built.steps.push(Step::Move { place, from: spot(Side::Live), to: aside(path), inode: live.st_ino });
        self.built.steps.push(Step::Move { place, from: spot(Side::Swap), to: spot(Side::Live), inode: staged.st_ino });
    }

    /// A directory that stays: what is in it is gone through one by one.
    fn merge(&mut self, at: At<'_>) -> Result<()> {
        let staged_names = self.staged(at.place)?.list(at.path).map_err(self.failed(at))?;
        let mut changes = false;
        for name in &staged_names {
            let (inner, path) = (join(at.inner, name), join(at.path, name));
            changes |= self.entry(At { inner: &inner, path: &path, ..at })?;
        }
        if self.terms.mode == Mode::Full {
            for name in self.sides.live(at.place).list(at.path).map_err(self.failed(at))? {
                if staged_names.binary_search(&name).is_err() {
                    let (inner, path) = (join(at.inner, &name), join(at.path, &name));
                    changes |= self.delete(At { inner: &inner, path: &path, ..at })?;
                }
            }
        }
        let now = self.live_attrs(at)?;
        let is_base = self.base_time(at).is_some();
        let wanted = if self.terms.mode != Mode::Merge && self.rules.selects(at.number, at.inner, true) {
            Some(self.staged_attrs(at)?)
        } else {
            None
        };
        if changes || is_base || wanted.as_ref().is_some_and(|wanted| *wanted != now) {
            let wanted = wanted.or_else(|| (!changes).then(|| now.clone()));
            self.change_dir(at, wanted, Some(now))?;
        }
        Ok(())
    }

    fn live_attrs(&self, at: At<'_>) -> Result<Attrs> {
        let now = attrs(self.sides.live(at.place), at.path, &self.terms.places[at.place].live(at.path))?;
        // Where a stage stands in it, that changed its time.
        Ok(match self.base_time(at) {
            Some(time) => now.at(time),
            None => now,
        })
    }

    /// When the directory was last changed before a stage was made in it, if one was.
    fn base_time(&self, at: At<'_>) -> Option<(i64, u32)> {
        let live = self.terms.places[at.place].live(at.path);
        let place = self.terms.places.iter().find(|place| place.base.as_path() == live);
        place.map(|place| place.mtime)
    }

    fn staged_attrs(&self, at: At<'_>) -> Result<Attrs> {
        attrs(self.staged(at.place)?, at.path, &self.terms.places[at.place].live(at.path))
    }

    fn change_dir(&mut self, at: At<'_>, forward: Option<Attrs>, backward: Option<Attrs>) -> Result<()> {
        let Some(live) = self.live_stat(at)? else { return Ok(()) };
        let path = Name(at.path.to_vec());
        self.built.dirs.push(DirChange { place: at.place, path, inode: live.st_ino, forward, backward });
        Ok(())
    }

    fn judge(&self, at: At<'_>, live: &Stat) -> Result<Fate> {
        let judge = Judge { terms: self.terms, rules: self.rules, ground: self.ground };
        judge.fate(at.number, at.inner, (self.sides.live(at.place), at.path), live, &mut |_, _, _| {})
    }

    /// Something live that the snapshot does not hold. True when it goes.
    fn delete(&mut self, at: At<'_>) -> Result<bool> {
        let Some(live) = self.live_stat(at)? else { return Ok(false) };
        let is_vacated = self.vacated.contains(&(at.place, at.path.to_vec()));
        if self.terms.roots[at.number].is_border(at.inner) || is_vacated {
            return Ok(false);
        }
        match self.judge(at, &live)? {
            Fate::Stays | Fate::NotAsked => Ok(false),
            Fate::Goes => {
                self.note_replaced(at, &live, false)?;
                let live = self.settled(at, live)?;
                // What is taken away keeps its path in the stage.
                let to = Spot::new(Side::Removed, at.path);
                self.make_home(at.place, &to)?;
                let from = Spot::new(Side::Live, at.path);
                // The new state may make another database of this name, with logs that must not stay.
                let is_database = is_database(self.sides.live(at.place), at.path, &live);
                let clears = if is_database { self.vacate_logs(at, 0, Some(live.st_ino))? } else { Vec::new() };
                self.built.steps.push(Step::Move { place: at.place, from, to, inode: live.st_ino });
                self.built.steps.extend(clears);
                Ok(true)
            }
            Fate::Mixed => {
                let mut changes = false;
                for name in self.sides.live(at.place).list(at.path).map_err(self.failed(at))? {
                    let (inner, path) = (join(at.inner, &name), join(at.path, &name));
                    changes |= self.delete(At { inner: &inner, path: &path, ..at })?;
                }
                if changes {
                    let now = self.live_attrs(at)?;
                    self.change_dir(at, None, Some(now))?;
                }
                Ok(false)
            }
        }
    }

    /// Makes the directories in the stage that something moves to.
    pub(super) fn make_home(&self, place: usize, spot: &Spot) -> Result<()> {
        let tree = self.sides.staged(place, spot.side);
        let tree = tree.ok_or_else(|| Error::new(ErrorKind::Failed, "the stage is gone"))?;
        let failed = |error| Error::from(store::Error::io("create", &self.sides.path(place, spot), error));
        make_dirs(tree, split(&spot.path.0).0).map_err(failed)
    }

    /// A whole directory changes places; what the backup left out goes over first.
    pub(super) fn swap_dir(&mut self, at: At<'_>, staged: &Stat, live: &Stat) -> Result<()> {
        self.ground.note_mounts(&self.terms.roots[at.number].live(at.inner));
        self.note(at, live);
        self.carry(at)?;
        self.replace(at, staged, live);
        Ok(())
    }

    /// Carries over what stays of the live directory, which the staged one replaces.
    fn carry(&mut self, at: At<'_>) -> Result<()> {
        // Read first: making a directory for what is carried over changes them.
        let staged_attrs = self.staged_attrs(at)?;
        let mut carries = false;
        for name in self.sides.live(at.place).list(at.path).map_err(self.failed(at))? {
            let (inner, path) = (join(at.inner, &name), join(at.path, &name));
            let below = At { inner: &inner, path: &path, ..at };
            let Some(live) = self.live_stat(below)? else { continue };
            match self.staged_stat(below)? {
                Some(staged) if is_dir(&staged) && is_dir(&live) => {
                    self.note(below, &live);
                    self.carry(below)?;
                }
                Some(_) => {
                    if is_dir(&live) && self.judge(below, &live)? != Fate::Goes {
                        return Err(self.holds_left_out(below));
                    }
                    self.note_replaced(below, &live, false)?;
                }
                None => carries |= self.carry_or_drop(below, &live)?,
            }
        }
        if carries {
            let now = self.live_attrs(at)?;
            self.change_dir(at, None, Some(now))?;
            let inode = self.staged_stat(at)?.map_or(0, |stat| stat.st_ino);
            let path = Name(at.path.to_vec());
            self.built.dirs.push(DirChange {
                place: at.place,
                path,
                inode,
                forward: Some(staged_attrs),
                backward: None,
            });
        }
        Ok(())
    }

    fn holds_left_out(&self, at: At<'_>) -> Error {
        let path = self.terms.roots[at.number].live(at.inner);
        let what = format!("{} would be replaced, and holds what the backup left out", path.display());
        Error::new(ErrorKind::ConfirmationNeeded, what)
    }

    /// True when something is carried over.
    fn carry_or_drop(&mut self, at: At<'_>, live: &Stat) -> Result<bool> {
        if self.vacated.contains(&(at.place, at.path.to_vec())) {
            return Ok(true);
        }
        let fate = if self.is_log_of_replaced(at)? { Fate::Goes } else { self.judge(at, live)? };
        match fate {
            Fate::Goes => {
                self.note_replaced(at, live, false)?;
                Ok(false)
            }
            Fate::Stays | Fate::NotAsked => {
                self.built.steps.push(Step::Move {
                    place: at.place,
                    from: Spot::new(Side::Live, at.path),
                    to: Spot::new(Side::Swap, at.path),
                    inode: live.st_ino,
                });
                if is_database(self.sides.live(at.place), at.path, live) {
                    self.carry_logs(at);
                }
                Ok(true)
            }
            // The directory stays for what is in it: the staged side gets one like it.
            Fate::Mixed => {
                let now = self.live_attrs(at)?;
                let make = || {
                    let staged = self.sides.staged(at.place, Side::Swap).ok_or(rustix::io::Errno::NOENT)?;
                    make_dirs(staged, at.path)?;
                    now.set(&*staged.dir(at.path)?)
                };
                make().map_err(self.failed(at))?;
                self.carry(at)?;
                Ok(true)
            }
        }
    }
}

/// Where something is set aside that gives way on a file system without exchanges.
pub(super) fn aside(path: &[u8]) -> Spot {
    // Flat, so that no directory has to be made for it.
    let name = lifeboat_format::model::Sha256::of(path).to_string();
    Spot::new(Side::Removed, format!("was-{name}").as_bytes())
}

pub(super) fn make_dirs(tree: &Tree, path: &[u8]) -> rustix::io::Result<()> {
    if path.is_empty() {
        return Ok(());
    }
    let (above, name) = split(path);
    make_dirs(tree, above)?;
    let dir = tree.dir(above)?;
    node::open_or_create_dir(std::os::fd::AsFd::as_fd(&*dir), name).map(|_| ())
}
