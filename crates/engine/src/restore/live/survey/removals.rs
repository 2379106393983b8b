//! What a plan takes away: who uses it, and what of it stays.

use lifeboat_format::model::EntryKind;
use lifeboat_format::path::EntryPath;
use lifeboat_format::record::Record;
use lifeboat_store as store;
use rustix::fs::Stat;

use super::{Spot, Survey, stamp};
use crate::report::{Action, PlanLine};
use crate::restore::live::database::{is_database, log_of, may_be_database};
use crate::restore::live::left_out::{Fate, Judge};
use crate::restore::live::name::{join, split};
use crate::restore::live::terms::RootKind;
use crate::restore::live::tree::{is_dir, size};
use crate::sqlite::LOGS;
use crate::{ErrorKind, Result, ours};

impl Survey<'_> {
    /// Something live is going to be replaced: who uses it, and what goes with it.
    pub(super) fn replace(&mut self, spot: &Spot<'_>, stat: &Stat, is_dir_now: bool) -> Result<()> {
        let live = self.plan.terms.roots[spot.number].live(spot.inner);
        self.plan.counts.replaced_bytes = self.plan.counts.replaced_bytes.saturating_add(size(stat));
        self.ground.note(&live, stat);
        self.ground.note_mounts(&live);
        if self.ground.is_mounted(&live) {
            self.refuse_mounted(&live);
        }
        if is_dir_now && !self.delete(spot, stat, Some(spot.inner))? {
            self.plan.refuse(
                ErrorKind::ConfirmationNeeded,
                format!("{} would be replaced, and holds what the backup left out", live.display()),
                "move it away first, or restore beside with --to DIR",
            );
        }
        Ok(())
    }

    /// The logs beside a database that is going to be replaced go with it. Whether the snapshot holds one,
    /// where nothing or something else is live, only its size tells here.
    pub(super) fn replace_logs(&mut self, record: &Record, spot: &Spot<'_>, live: Option<&Stat>) -> Result<()> {
        let is_source = self.plan.terms.roots[spot.number].kind == RootKind::Sqlite;
        let tree = &self.trees[spot.place];
        let comes = record.kind() == EntryKind::File && may_be_database(record.size());
        if !is_source && !comes && !live.is_some_and(|stat| is_database(tree, &spot.path, stat)) {
            return Ok(());
        }
        for end in LOGS {
            let path = log_of(&spot.path, end);
            let Some(stat) = self.stat(spot.place, &path)?.filter(|stat| !is_dir(stat)) else { continue };
            let live = self.plan.terms.places[spot.place].live(&path);
            self.plan.counts.replaced_bytes = self.plan.counts.replaced_bytes.saturating_add(size(&stat));
            self.plan.known.add(spot.place, &path, stamp(&stat), false);
            self.ground.note(&live, &stat);
        }
        Ok(())
    }

    /// Everything of the live thing at `inner` that goes: counted, listed, and
    /// looked at for who uses it. True when all of it goes.
    fn delete(&mut self, spot: &Spot<'_>, stat: &Stat, overwritten: Option<&[u8]>) -> Result<bool> {
        let Spot { number, inner, place, path } = spot;
        let (number, place, path) = (*number, *place, path.as_slice());
        let mut told = Vec::new();
        let judge = Judge { terms: &self.plan.terms, rules: &self.rules, ground: &self.ground };
        let fate = judge.fate(number, inner, (&self.trees[place], path), stat, &mut |inner, stat, fate| {
            told.push((inner.to_vec(), *stat, fate));
        })?;
        for (inner, stat, fate) in told {
            let root = &self.plan.terms.roots[number];
            let live = root.live(&inner);
            let entry = EntryPath::new(root.entry_path(&inner));
            match fate {
                Fate::Stays => {
                    self.plan.counts.left_out += 1;
                    self.plan.stages.extend(Some(live).filter(|_| ours::stage_id(split(&inner).1).is_some()));
                }
                Fate::NotAsked | Fate::Mixed => {}
                Fate::Goes => {
                    self.ground.note(&live, &stat);
                    if let Some((place, path)) = root.place(&inner, &self.plan.terms.places) {
                        self.plan.known.add(place, &path, stamp(&stat), false);
                    }
                    // What gives way to something else counts as overwritten already.
                    let is_overwritten = overwritten == Some(inner.as_slice());
                    let kind = crate::source::attributes::kind(&stat).filter(|_| !is_overwritten);
                    if let (Ok(entry), Some(kind)) = (entry, kind) {
                        self.plan.count(Action::Delete, &entry, size(&stat));
                        (self.each)(PlanLine { action: Action::Delete, path: entry, kind, size: size(&stat) })?;
                    }
                }
            }
        }
        if fate == Fate::Goes {
            self.ground.note_mounts(&self.plan.terms.roots[number].live(inner));
        }
        Ok(fate == Fate::Goes)
    }

    /// What is live and not in the snapshot.
    pub(super) fn find_deletes(&mut self) -> Result<()> {
        for number in 0..self.plan.terms.roots.len() {
            let mut dirs = vec![Vec::new()];
            while let Some(inner) = dirs.pop() {
                self.watch.cancel.check()?;
                self.find_deletes_in(number, &inner, &mut dirs)?;
            }
        }
        Ok(())
    }

    fn find_deletes_in(&mut self, number: usize, inner: &[u8], dirs: &mut Vec<Vec<u8>>) -> Result<()> {
        let root = &self.plan.terms.roots[number];
        let Some((place, path)) = root.place(inner, &self.plan.terms.places) else { return Ok(()) };
        if !self.stat(place, &path)?.is_some_and(|stat| is_dir(&stat)) {
            return Ok(());
        }
        let live = root.live(inner);
        let names = self.trees[place].list(&path).map_err(|error| store::Error::io("list", &live, error))?;
        for name in names {
            let inner = join(inner, &name);
            let root = &self.plan.terms.roots[number];
            let Some((place, path)) = root.place(&inner, &self.plan.terms.places) else { continue };
            let Some(stat) = self.stat(place, &path)? else { continue };
            let is_known = self.plan.known.knows(place, &path) || root.is_border(&inner);
            match (is_known, is_dir(&stat)) {
                (true, true) => dirs.push(inner),
                (true, false) => {}
                (false, _) => {
                    let spot = Spot { number, inner: &inner, place, path };
                    self.delete(&spot, &stat, None)?;
                }
            }
        }
        Ok(())
    }
}
