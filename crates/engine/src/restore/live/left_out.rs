//! What of the live state a full restore leaves alone although the snapshot
//! does not hold it: what the backup left out or could not read, what archives
//! cannot hold, other file systems, and what is Lifeboat's own.

use std::os::fd::AsFd as _;

use rustix::fs::{FileType, Stat};

use super::database::{base_of_log, is_database};
use super::ground::Ground;
use super::name::{join, split};
use super::terms::{Root, Rules, Terms};
use super::tree::{Tree, is_dir, is_file};
use crate::keys::care::key_of_older;
use crate::{Result, destination, ours};

/// What becomes of something live that the snapshot does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes, with all below it.
    Goes,
    /// It stays: the backup left it out.
    Stays,
    /// It stays: it is not among what is restored.
    NotAsked,
    /// A directory that stays because of something in it.
    Mixed,
}

/// Decides it.
pub(super) struct Judge<'a> {
    pub(super) terms: &'a Terms,
    pub(super) rules: &'a Rules,
    pub(super) ground: &'a Ground,
}

/// Who is told the path, relative to the root, of each thing and its fate.
pub(super) type Each<'e> = &'e mut dyn FnMut(&[u8], &Stat, Fate);

impl Judge<'_> {
    /// The fate of the live thing at `inner` of root `number`, which stands at
    /// `path` in `tree`. Tells `each` of it and of what is below, children first.
    pub(super) fn fate(
        &self,
        number: usize,
        inner: &[u8],
        (tree, path): (&Tree, &[u8]),
        stat: &Stat,
        each: Each<'_>,
    ) -> Result<Fate> {
        let fate = self.own_fate(number, inner, (tree, path), stat);
        if fate == Fate::Stays || !is_dir(stat) {
            each(inner, stat, fate);
            return Ok(fate);
        }
        let failed = |error| {
            let root: &Root = &self.terms.roots[number];
            crate::Error::from(lifeboat_store::Error::io("look at", &root.live(inner), error))
        };
        let mut goes = fate == Fate::Goes;
        for name in tree.list(path).map_err(failed)? {
            let (inner, path) = (join(inner, &name), join(path, &name));
            let Some(stat) = tree.stat(&path).map_err(failed)? else { continue };
            goes &= self.fate(number, &inner, (tree, &path), &stat, each)? == Fate::Goes;
        }
        if goes {
            each(inner, stat, Fate::Goes);
        }
        Ok(if goes { Fate::Goes } else { Fate::Mixed })
    }

    fn own_fate(&self, number: usize, inner: &[u8], (tree, path): (&Tree, &[u8]), stat: &Stat) -> Fate {
        // A log shares the fate of its database, whatever patterns say of its name.
        if let (Some(base), Some(base_path), true) = (base_of_log(inner), base_of_log(path), is_file(stat))
            && let Ok(Some(base_stat)) = tree.stat(base_path)
            && is_database(tree, base_path, &base_stat)
        {
            return self.own_fate(number, base, (tree, base_path), &base_stat);
        }
        let root = &self.terms.roots[number];
        let is_dir = is_dir(stat);
        let kind = FileType::from_raw_mode(stat.st_mode);
        let is_kept = self.rules.is_excluded(number, inner, is_dir)
            || self.rules.is_lost(number, &root.entry_path(inner))
            || !matches!(kind, FileType::RegularFile | FileType::Directory | FileType::Symlink)
            || self.is_elsewhere(root, inner, tree, stat)
            || (is_file(stat) && self.is_archive(root, inner, stat))
            || (is_dir && is_ours(tree, path))
            || ours::is_replaced(split(inner).1)
            // Whose place another took since the backup: backups need it as they need the key that was left out.
            || (is_file(stat) && key_of_older(inner).is_some_and(|key| self.rules.is_excluded(number, key, false)));
        if is_kept {
            return Fate::Stays;
        }
        if !self.rules.is_included(number, inner, is_dir) {
            return if is_dir { Fate::NotAsked } else { Fate::Stays };
        }
        if self.rules.selects(number, inner, is_dir) { Fate::Goes } else { Fate::NotAsked }
    }

    /// Another file system, mounted here or shown from here elsewhere.
    fn is_elsewhere(&self, root: &Root, inner: &[u8], tree: &Tree, stat: &Stat) -> bool {
        let path = root.live(inner);
        // A file is on another one only if it is a mount point, or its overlay has several layers.
        let differs = is_dir(stat) && rustix::fs::fstat(tree.top()).is_ok_and(|top| top.st_dev != stat.st_dev);
        differs
            || self.ground.mounts.is_mount_point(&path)
            || is_dir(stat) && !self.ground.mounts.sources_in(&path).is_empty()
    }

    /// The archive that is restored, every other of ours, and what stands beside them: they were no part of the
    /// backup.
    fn is_archive(&self, root: &Root, inner: &[u8], stat: &Stat) -> bool {
        if (stat.st_dev, stat.st_ino) == self.terms.archive {
            return true;
        }
        destination::is_archive(&root.live(inner))
    }
}

fn is_ours(tree: &Tree, path: &[u8]) -> bool {
    tree.parent(path).is_ok_and(|(dir, name)| ours::is_stage(dir.as_fd(), name))
}
