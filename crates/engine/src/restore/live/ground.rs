//! What is known of the host before something is swapped: who has which file
//! open, and what is mounted where. Looked at for the plan, and once more when
//! the services have stopped.

use std::collections::BTreeMap;
use std::path::Path;

use lifeboat_format::path::shown;
use rustix::fs::Stat;

use super::name::below;
use super::plan::User;
use super::terms::{Mode, Root, Rules, Terms};
use crate::Result;
use crate::holders::{Held, Holders};
use crate::mounts::{Mounts, OtherMounts};
use crate::services::{Service, ServiceKind};

/// A moment's look at the host.
pub(super) struct Ground {
    pub(super) mounts: Mounts,
    others: OtherMounts,
    holders: Holders,
    /// Units that the restore stops.
    units: Vec<String>,
    users: BTreeMap<(u32, &'static str), User>,
}

impl Ground {
    pub(super) fn look(services: &[Service]) -> Result<Self> {
        let units = services.iter().filter_map(|service| match &service.kind {
            ServiceKind::Unit { unit } => Some(unit.clone()),
            ServiceKind::Commands { .. } => None,
        });
        Ok(Self {
            mounts: Mounts::own()?,
            others: OtherMounts::look()?,
            holders: Holders::look()?,
            units: units.collect(),
            users: BTreeMap::new(),
        })
    }

    /// Notes who uses the live entry at `path`, which is going to be swapped.
    pub(super) fn note(&mut self, path: &Path, stat: &Stat) {
        for holder in self.holders.of(stat.st_dev, stat.st_ino) {
            let how = match holder.how {
                Held::Reading => "reading",
                Held::Writing => "writing",
                Held::Mapped => "mapped",
            };
            let user = User {
                pid: holder.pid,
                command: holder.command.clone(),
                unit: holder.unit.clone(),
                how,
                path: shown(path.as_os_str().as_encoded_bytes()),
                count: 1,
                is_stopped: holder.unit.as_ref().is_some_and(|unit| self.units.contains(unit)),
            };
            self.users.entry((user.pid, how)).and_modify(|known| known.count += 1).or_insert(user);
        }
    }

    /// Whether anybody is seen to have the file open.
    pub(super) fn is_open(&self, stat: &Stat) -> bool {
        !self.holders.of(stat.st_dev, stat.st_ino).is_empty()
    }

    /// Notes who has something at or below `path` mounted elsewhere.
    pub(super) fn note_mounts(&mut self, path: &Path) {
        for mount in self.others.users_of(&self.mounts, path) {
            let user = User {
                pid: mount.pid,
                command: mount.command.clone(),
                unit: None,
                how: "mounted",
                path: format!(
                    "{} at its {}",
                    shown(path.as_os_str().as_encoded_bytes()),
                    shown(mount.mount_point.as_os_str().as_encoded_bytes())
                ),
                count: 1,
                is_stopped: false,
            };
            self.users.entry((user.pid, "mounted")).or_insert(user);
        }
    }

    /// Those that were noted.
    pub(super) fn users(&self) -> Vec<User> {
        self.users.values().cloned().collect()
    }

    /// What could not be looked at.
    pub(super) fn unseen(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let (files, mounts) = (self.holders.unseen(), self.others.unseen());
        let processes = |count| if count == 1 { "1 process".to_owned() } else { format!("{count} processes") };
        let is_root = rustix::process::geteuid().is_root();
        let why = if is_root { "even root may not look at" } else { "only root may look at" };
        if files > 0 {
            lines.push(format!("the open files of {}, which {why}", processes(files)));
        }
        if mounts > 0 {
            lines.push(format!("the mounts of {}, which {why}", processes(mounts)));
        }
        lines
    }

    /// Whether the live directory at `inner` of a root can be swapped as one:
    /// only when it becomes exactly the snapshot, and nothing is mounted on it,
    /// below it, or from it to elsewhere.
    pub(super) fn is_one(&self, terms: &Terms, rules: &Rules, number: usize, inner: &[u8]) -> bool {
        let root: &Root = &terms.roots[number];
        let path = root.live(inner);
        let has_border = root.borders.iter().any(|(border, _)| below(&border.0, inner).is_some());
        let moves = root.place(inner, &terms.places).is_some_and(|(place, _)| terms.places[place].moves_dirs);
        // A database of another source in it has steps of its own, by its present path.
        let holds_another =
            terms.roots.iter().enumerate().any(|(other, root)| {
                other != number && below(&root.path.0, path.as_os_str().as_encoded_bytes()).is_some()
            });
        terms.mode == Mode::Full
            && rules.selects_all(number)
            && (!inner.is_empty() || root.has_own_entry())
            && !holds_another
            && moves
            && !has_border
            && self.mounts.at_or_below(&path).is_empty()
            && self.mounts.sources_in(&path).is_empty()
    }

    /// Whether something is mounted at or below `path`, or from there to elsewhere on this host.
    pub(super) fn is_mounted(&self, path: &Path) -> bool {
        !self.mounts.at_or_below(path).is_empty() || !self.mounts.sources_in(path).is_empty()
    }
}
