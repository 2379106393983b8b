//! What a restore would do, as a value: made from the archive's list and from
//! what stands at the target. No I/O here; `survey` looks.

use lifeboat_format::model::EntryKind;
use lifeboat_format::path::EntryPath;

use crate::report::{Action, LISTED_MAX, PlanLine, RestorePlan, RestoreRequest};
use crate::size::size;
use crate::{Error, ErrorKind, Result};

/// What stands at the place of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Present {
    Nothing,
    Dir,
    Other,
}

/// What the file system of the target has room for, where it counts that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) bytes: Option<u64>,
    pub(super) inodes: Option<u64>,
}

/// What becomes of an entry of `kind` where `present` stands.
fn action(kind: EntryKind, present: Present) -> Action {
    match (kind, present) {
        (_, Present::Nothing) => Action::New,
        (EntryKind::Dir, Present::Dir) => Action::Merge,
        _ => Action::Overwrite,
    }
}

impl RestorePlan {
    /// Adds an entry of `size` bytes, at whose place `present` stands.
    pub(super) fn add(&mut self, path: &EntryPath, kind: EntryKind, size: u64, present: Present) -> PlanLine {
        let line = PlanLine { action: action(kind, present), path: path.clone(), kind, size };
        self.entries += 1;
        self.files += u64::from(kind == EntryKind::File);
        // Sizes that an archive claims may add up to anything.
        self.bytes = self.bytes.saturating_add(size);
        if line.action == Action::Overwrite {
            self.overwrites += 1;
            if self.overwritten.len() < LISTED_MAX {
                self.overwritten.push(path.to_string());
            }
        }
        line
    }

    /// Refuses a plan that needs more than there is room for; `sparse_bytes`
    /// of its bytes may take none. `dir` names the target.
    pub(super) fn check_room(&self, room: Room, sparse_bytes: u64, dir: &str) -> Result<()> {
        let needed = self.bytes.saturating_sub(sparse_bytes);
        let too_little = |what: String| {
            Err(Error::new(ErrorKind::NoSpace, format!("not enough space in {dir}: {what}"))
                .state("nothing was written")
                .next("make room there, or restore elsewhere"))
        };
        if let Some(free) = room.bytes.filter(|free| needed > *free) {
            return too_little(format!("need {}, have {}", size(needed), size(free)));
        }
        match room.inodes {
            Some(free) if self.entries > free => too_little(format!("need {} inodes, have {free}", self.entries)),
            _ => Ok(()),
        }
    }
}

/// Refuses a plan that would replace what nobody agreed to.
pub(super) fn check(plan: &RestorePlan, request: &RestoreRequest) -> Result<()> {
    if plan.overwrites == 0 || request.overwrite {
        return Ok(());
    }
    let mut named: Vec<&str> = plan.overwritten.iter().take(3).map(String::as_str).collect();
    if plan.overwrites > 3 {
        named.push("…");
    }
    let (count, to) = (plan.overwrites, request.to.display());
    let entries = if count == 1 { "1 entry exists".to_owned() } else { format!("{count} entries exist") };
    Err(Error::new(ErrorKind::ConfirmationNeeded, format!("{entries} already in {to}: {}", named.join(", ")))
        .state("nothing was written")
        .next("restore to an empty directory, or add --overwrite to replace what exists"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_directory_on_a_directory_is_merged() {
        use EntryKind::{Dir, File, Symlink};
        for (kind, present, expected) in [
            (File, Present::Nothing, Action::New),
            (Dir, Present::Nothing, Action::New),
            (Dir, Present::Dir, Action::Merge),
            (Dir, Present::Other, Action::Overwrite),
            (File, Present::Dir, Action::Overwrite),
            (File, Present::Other, Action::Overwrite),
            (Symlink, Present::Other, Action::Overwrite),
        ] {
            assert_eq!(action(kind, present), expected, "{kind:?} on {present:?}");
        }
    }

    #[test]
    fn room_is_compared_only_where_it_is_known_and_holes_need_none() {
        let plan = RestorePlan { entries: 3, bytes: 100, ..RestorePlan::default() };
        let fits = |bytes, inodes, sparse| plan.check_room(Room { bytes, inodes }, sparse, "x").is_ok();
        assert!(fits(Some(100), Some(3), 0) && fits(None, None, 0) && fits(Some(10), None, 90));
        assert!(!fits(Some(99), None, 0) && !fits(None, Some(2), 0) && !fits(Some(9), None, 90));
    }
}
