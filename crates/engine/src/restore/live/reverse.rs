//! The list of steps that puts back what a restore replaced: its own steps in
//! reverse, made for what is live by now.

use std::collections::HashSet;

use super::attrs::attrs;
use super::build::{At, Builder, Built};
use super::database::Turned;
use super::journal::{Phase, Story};
use super::name::{Name, below};
use super::step::{DirChange, Side, Spot, Step, cleared};
use super::tree::is_dir;
use crate::{Error, ErrorKind, Result};

impl Builder<'_> {
    /// Makes the list from the journal of the restore.
    pub(super) fn build_reverse(mut self, old: &Story) -> Result<Built> {
        let taken_back = (old.phase == Phase::Returned).then(|| of_rollback(old));
        let (steps, dirs) = taken_back.as_ref().map_or((&old.steps, &old.dirs), |(steps, dirs)| (steps, dirs));
        // First in the list, these are settled last: what they had before counts, not what carrying left of it.
        for dir in dirs {
            self.change_back(dir)?;
        }
        let mut turned = Turned::of(steps, self.sides);
        // Paths that an earlier step of this list makes free.
        let mut freed: HashSet<(usize, Name)> = HashSet::new();
        for step in steps.iter().rev() {
            match step {
                Step::Exchange { place, staged, live, old, .. } => {
                    match self.kept_inode(*place, staged, *old, taken_back.is_some())? {
                        Some(inode) => self.give_back(*place, staged, live, inode, false)?,
                        None => self.take_away(*place, live, staged)?,
                    }
                }
                Step::Move { place, from, to, inode } => match (from.side, to.side) {
                    // A log may have gone before its database.
                    (_, Side::Live) if freed.insert((*place, to.path.clone())) => {
                        self.take_away(*place, &to.path, from)?;
                    }
                    (_, Side::Live) => {}
                    (Side::Live, side) if side == Side::Removed || taken_back.is_some() => {
                        let is_free = freed.contains(&(*place, from.path.clone()));
                        if let Some(inode) = self.kept_inode(*place, to, *inode, taken_back.is_some())? {
                            self.give_back(*place, to, &from.path, inode, is_free)?;
                        }
                    }
                    // What was carried over is carried back with its directory.
                    _ => {}
                },
                Step::Clear { place, live, database, .. } => {
                    self.vacate_again(&mut turned, *place, live, database)?;
                    freed.insert((*place, live.clone()));
                }
                Step::Vacate { place, live, to, database, .. } => {
                    self.bring_log_back(&turned, *place, (live, database), to)?;
                }
                Step::Follow { .. } => {}
            }
        }
        Ok(self.built)
    }

    /// The inode of what comes back from `kept`. A new state that ran until it was taken back may have replaced
    /// its files; `None` where it removed this one.
    fn kept_inode(&self, place: usize, kept: &Spot, inode: u64, has_run: bool) -> Result<Option<u64>> {
        if !has_run {
            return Ok(Some(inode));
        }
        Ok(self.kept_stat(place, kept)?.map(|stat| stat.st_ino))
    }

    /// What is kept at `kept` becomes live again at `live`.
    fn give_back(&mut self, place: usize, kept: &Spot, live: &Name, inode: u64, is_free: bool) -> Result<()> {
        let failed = |error| Error::from(lifeboat_store::Error::io("look at", &self.sides.path(place, kept), error));
        let there = self.kept_stat(place, kept)?;
        let Some(there) = there.filter(|stat| stat.st_ino == inode) else {
            let path = self.sides.path(place, kept);
            return Err(Error::new(ErrorKind::Failed, format!("{} is not what was kept there", path.display())));
        };
        let now = if is_free { None } else { self.sides.live(place).stat(&live.0).map_err(failed)? };
        let Some(now) = now else {
            let to = Spot::new(Side::Live, &live.0);
            self.built.steps.push(Step::Move { place, from: kept.clone(), to, inode });
            return Ok(());
        };
        let (number, inner) = self.source_of(place, &live.0);
        let at = At { number, inner: &inner, place, path: &live.0 };
        if kept.side == Side::Swap && is_dir(&there) && is_dir(&now) {
            return self.swap_dir(at, &there, &now);
        }
        self.note_replaced(at, &now, false)?;
        if self.exchanges[place] {
            let step = Step::Exchange { place, staged: kept.clone(), live: live.clone(), new: inode, old: now.st_ino };
            self.built.steps.push(step);
            return Ok(());
        }
        let aside = super::build::aside(&[&live.0, &b"-undo"[..]].concat());
        let from = Spot::new(Side::Live, &live.0);
        self.built.steps.push(Step::Move { place, from: from.clone(), to: aside, inode: now.st_ino });
        self.built.steps.push(Step::Move { place, from: kept.clone(), to: from, inode });
        Ok(())
    }

    /// What the restore had added goes, to where it can be given back from.
    fn take_away(&mut self, place: usize, live: &Name, home: &Spot) -> Result<()> {
        let failed = |error| Error::from(lifeboat_store::Error::io("look at", &self.sides.path(place, home), error));
        let Some(now) = self.sides.live(place).stat(&live.0).map_err(failed)? else { return Ok(()) };
        let (number, inner) = self.source_of(place, &live.0);
        self.note_replaced(At { number, inner: &inner, place, path: &live.0 }, &now, false)?;
        let taken = self.sides.staged(place, home.side).map(|tree| tree.stat(&home.path.0));
        let is_taken = taken.transpose().map_err(failed)?.flatten().is_some();
        // In the place where it was staged it could not be told from what is carried over with its directory.
        let to = if is_taken || home.side == Side::Swap {
            super::build::aside(&[&live.0, &b"-undo"[..]].concat())
        } else {
            home.clone()
        };
        self.make_home(place, &to)?;
        let from = Spot::new(Side::Live, &live.0);
        self.built.steps.push(Step::Move { place, from, to, inode: now.st_ino });
        Ok(())
    }

    /// A directory that stayed gets back the attributes that it had.
    fn change_back(&mut self, dir: &DirChange) -> Result<()> {
        let shown = self.terms.places[dir.place].live(&dir.path.0);
        let tree = self.sides.live(dir.place);
        let stat = tree.stat(&dir.path.0).map_err(|error| lifeboat_store::Error::io("look at", &shown, error))?;
        // One that comes back by this undo has its attributes still, but for the time of what is carried.
        let now = match stat.filter(|stat| stat.st_ino == dir.inode) {
            Some(_) => Some(attrs(tree, &dir.path.0, &shown)?),
            None => None,
        };
        let (place, path, inode) = (dir.place, dir.path.clone(), dir.inode);
        self.built.dirs.push(DirChange { place, path, inode, forward: dir.backward.clone(), backward: now });
        Ok(())
    }

    /// The source that a live path of a place belongs to, and the path in it.
    pub(super) fn source_of(&self, place: usize, path: &[u8]) -> (usize, Vec<u8>) {
        let live = self.terms.places[place].live(path);
        let live = live.as_os_str().as_encoded_bytes();
        let of = |(number, root): (usize, &super::terms::Root)| Some((number, below(live, &root.path.0)?.to_vec()));
        self.terms.roots.iter().enumerate().find_map(of).unwrap_or_default()
    }
}

/// What the rollback of a restore did, as if it were a restore itself. Without
/// what was carried over: that goes with its directory again.
fn of_rollback(old: &Story) -> (Vec<Step>, Vec<DirChange>) {
    let turned = |step: Step| match step {
        Step::Exchange { place, staged, live, new, old } => Step::Exchange { place, staged, live, new: old, old: new },
        Step::Move { place, from, to, inode } => Step::Move { place, from: to, to: from, inode },
        Step::Vacate { place, live, inode, database, .. } => {
            Step::Clear { place, live, known: inode.into_iter().collect(), database, old: None }
        }
        Step::Clear { place, live, database, .. } => {
            let to = cleared(&live.0);
            Step::Vacate { place, live, to, inode: None, database, new: 0 }
        }
        Step::Follow { .. } => step,
    };
    let steps = old.steps.iter().rev().filter(|step| !step.is_carry()).cloned().map(turned).collect();
    let dirs = old.dirs.iter().cloned().map(|dir| DirChange { forward: dir.backward, backward: dir.forward, ..dir });
    (steps, dirs.collect())
}
