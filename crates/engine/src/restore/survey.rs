//! Looking at the target for a plan. Changes nothing.

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use lifeboat_format::archive::Archive;
use lifeboat_format::path::EntryPath;
use lifeboat_format::record::Totals;
use lifeboat_store::durable;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::inspect;
use super::plan::{Present, Room};
use crate::report::{PlanLine, RestorePlan, RestoreRequest};
use crate::{Cancel, Error, ErrorKind, Result, beneath};

/// Who is told of the lines of a plan.
pub(super) type EachLine<'a> = &'a mut dyn FnMut(PlanLine) -> Result<()>;

/// The plan for `archive`; tells `each` of every entry. Where nobody wants to
/// be told and nothing can be in the way, the manifest's totals are enough.
pub(super) fn plan(
    archive: &Archive,
    request: &RestoreRequest,
    cancel: &Cancel,
    mut each: Option<EachLine<'_>>,
) -> Result<RestorePlan> {
    let target = open_target(&request.to)?;
    // Without totals every entry counts.
    let totals = archive.head().map(|head| head.totals).filter(|totals| *totals != Totals::default());
    let mut sparse_bytes = totals.map_or(0, |totals| totals.sparse_bytes);
    let mut plan = RestorePlan::default();
    match totals {
        Some(totals) if each.is_none() && is_empty(&request.to) => {
            (plan.entries, plan.files, plan.bytes) = (totals.entries, totals.files, totals.bytes);
        }
        _ => inspect::records(archive, cancel, &mut |path, record| {
            let present = target.as_ref().map_or(Present::Nothing, |target| present(target.as_fd(), path));
            if totals.is_none() && record.is_sparse() {
                sparse_bytes = sparse_bytes.saturating_add(record.size());
            }
            let line = plan.add(path, record.kind(), record.size(), present);
            each.as_mut().map_or(Ok(()), |each| each(line))
        })?,
    }
    let existing = request.to.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("."));
    let (bytes, inodes) = durable::free_space(existing)?;
    plan.free_bytes = bytes;
    plan.check_room(Room { bytes, inodes }, sparse_bytes, &existing.display().to_string())?;
    Ok(plan)
}

/// The directory at `to`; `None` where nothing is there.
fn open_target(to: &Path) -> Result<Option<File>> {
    let target = File::open(to).ok().filter(|file| file.metadata().is_ok_and(|data| data.is_dir()));
    if target.is_none() && to.symlink_metadata().is_ok() {
        return Err(Error::new(ErrorKind::Failed, format!("{} is no directory that can be read", to.display()))
            .state("nothing was written")
            .next("choose another directory with --to"));
    }
    Ok(target)
}

/// Whether nothing is at `dir` that an entry could meet.
fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).map_or(true, |mut listing| listing.next().is_none())
}

fn present(target: BorrowedFd<'_>, path: &EntryPath) -> Present {
    match beneath::open(target, path.as_bytes(), OFlags::PATH) {
        Ok(fd) => match rustix::fs::fstat(&fd).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::Directory) => Present::Dir,
            _ => Present::Other,
        },
        // Nothing has a name that nothing can have; that it cannot be written is found when it is.
        Err(Errno::NOENT | Errno::NAMETOOLONG) => Present::Nothing,
        // A symlink or a file stands there, or somewhere on the way.
        Err(_) => Present::Other,
    }
}
