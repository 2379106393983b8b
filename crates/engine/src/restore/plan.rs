//! What a restore would do, as a value: made from the archive's listing and
//! the target's, without changing anything.

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use lifeboat_format::archive::Archive;
use lifeboat_format::model::EntryKind;
use lifeboat_format::path::EntryPath;
use lifeboat_store::durable;
use rustix::fs::OFlags;

use crate::app::{Action, LISTED_MAX, PlanLine, RestorePlan, RestoreRequest};
use crate::{Cancel, Error, ErrorKind, Result, beneath};

/// What stands at the place of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Present {
    Nothing,
    Dir,
    Other,
}

/// What becomes of an entry of `kind` where `present` stands.
pub(super) fn action(kind: EntryKind, present: Present) -> Action {
    match (kind, present) {
        (_, Present::Nothing) => Action::New,
        (EntryKind::Dir, Present::Dir) => Action::Merge,
        _ => Action::Overwrite,
    }
}

impl RestorePlan {
    fn add(&mut self, line: &PlanLine) {
        self.entries += 1;
        self.files += u64::from(line.kind == EntryKind::File);
        self.bytes += line.size;
        if line.action == Action::Overwrite {
            self.overwrites += 1;
            if self.overwritten.len() < LISTED_MAX {
                self.overwritten.push(line.path.to_string());
            }
        }
    }
}

/// The plan for `archive`; tells `each` of every entry. Where nobody wants to
/// be told and nothing can be in the way, the manifest's totals are enough.
pub(super) fn make_for(
    archive: &Archive,
    request: &RestoreRequest,
    cancel: &Cancel,
    mut each: Option<EachLine<'_>>,
) -> Result<RestorePlan> {
    let target = File::open(&request.to).ok().filter(|file| file.metadata().is_ok_and(|data| data.is_dir()));
    if target.is_none() && request.to.symlink_metadata().is_ok() {
        return Err(Error::new(
            ErrorKind::Failed,
            format!("{} is no directory that can be read", request.to.display()),
        )
        .state("nothing was written")
        .next("choose another directory with --to"));
    }
    let totals = archive.head().map(|head| head.totals);
    let mut plan = RestorePlan::default();
    match totals {
        Some(totals) if each.is_none() && is_empty(&request.to) => {
            plan.files = totals.files;
            plan.bytes = totals.bytes;
            plan.entries = totals.entries;
        }
        _ => super::inspect::entries(archive, cancel, &mut |path, kind, size| {
            let present = target.as_ref().map_or(Present::Nothing, |target| present(target.as_fd(), path));
            let line = PlanLine { action: action(kind, present), path: path.clone(), kind, size };
            plan.add(&line);
            each.as_mut().map_or(Ok(()), |each| each(line))
        })?,
    }
    let existing = request.to.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("."));
    let (free_bytes, free_inodes) = durable::free_space(existing)?;
    plan.free_bytes = free_bytes;
    check_space(&plan, totals.map_or(0, |totals| totals.sparse_bytes), free_inodes, existing)?;
    Ok(plan)
}

/// Who is told of the lines of a plan.
pub(super) type EachLine<'a> = &'a mut dyn FnMut(PlanLine) -> Result<()>;

/// Whether nothing is at `dir` that an entry could meet.
fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).map_or(true, |mut listing| listing.next().is_none())
}

fn present(target: BorrowedFd<'_>, path: &EntryPath) -> Present {
    match beneath::open(target, path.as_bytes(), OFlags::PATH) {
        Ok(fd) => match rustix::fs::fstat(&fd).map(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode)) {
            Ok(rustix::fs::FileType::Directory) => Present::Dir,
            _ => Present::Other,
        },
        Err(rustix::io::Errno::NOENT) => Present::Nothing,
        // A symlink or a file stands there, or somewhere on the way.
        Err(_) => Present::Other,
    }
}

fn check_space(plan: &RestorePlan, sparse_bytes: u64, free_inodes: Option<u64>, dir: &Path) -> Result<()> {
    let needed = plan.bytes.saturating_sub(sparse_bytes);
    let too_little = |what: String| {
        Err(Error::new(ErrorKind::NoSpace, format!("not enough space in {}: {what}", dir.display()))
            .state("nothing was written")
            .next("make room there, or restore elsewhere"))
    };
    if let Some(free) = plan.free_bytes.filter(|free| needed > *free) {
        return too_little(format!("need {needed} bytes, have {free}"));
    }
    match free_inodes {
        Some(free) if plan.entries > free => too_little(format!("need {} inodes, have {free}", plan.entries)),
        _ => Ok(()),
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
    let what = format!("{} entries exist already in {}: {}", plan.overwrites, request.to.display(), named.join(", "));
    Err(Error::new(ErrorKind::ConfirmationNeeded, what)
        .state("nothing was written")
        .next("restore to an empty directory, or add --overwrite to replace them"))
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
}
