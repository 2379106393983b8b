//! Moving what was staged into the target: by exclusive renames, and by
//! exchanges where replacing was asked for. A failure half-way is undone.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use lifeboat_format::model::Entry;
use lifeboat_format::monitor::{Monitor as _, Problem, ProblemClass};
use lifeboat_store as store;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::fill::Filled;
use super::node;
use super::stage::Stage;
use crate::report::RestoreRequest;
use crate::tally::Tally;
use crate::{Error, ErrorKind, Result, beneath};

/// One rename that was done, by the path that both sides have.
enum Step {
    Moved(Vec<u8>),
    Exchanged(Vec<u8>),
}

/// Moves everything in `stage` to its place and gives directories their attributes.
pub(super) fn move_in(stage: &mut Stage, filled: &Filled, request: &RestoreRequest, tally: &Tally<'_>) -> Result<()> {
    // Directories that move as a part of a larger one are finished before, so that it appears as a whole. Those
    // that move by themselves are finished after: without write permission they could not be moved.
    let (outer, inner): (Vec<&Entry>, Vec<&Entry>) =
        filled.dirs.iter().map(|(_, _, dir)| dir).partition(|dir| stands_in_target(stage, dir));
    implied_dirs(stage, filled);
    inner.iter().rev().for_each(|dir| finish_dir(stage.new.as_fd(), dir, filled, tally));
    // What moves in must survive a power cut that follows at once.
    stage.sync()?;
    if request.overwrite {
        stage.begin_replacing()?;
    }
    let mut mover = Mover { stage, overwrite: request.overwrite, steps: Vec::new(), merged: Vec::new() };
    if let Err(error) = mover.merge(&[]) {
        return match mover.undo() {
            Ok(()) => {
                Err(error.state(format!("nothing was restored, and {} is as it was before", request.to.display())))
            }
            Err(undo) => {
                let path = stage.path.display().to_string();
                stage.keep();
                Err(Error::new(ErrorKind::Failed, format!("{error}; then {undo}"))
                    .state(format!(
                        "{} holds a part of what was restored; the rest, and what was replaced, is in {path}",
                        request.to.display()
                    ))
                    .next(format!("put back by hand what you need from {path}/new")))
            }
        };
    }
    let merged = mover.merged;
    for dir in outer.iter().rev() {
        let existed = merged.iter().any(|path| path == dir.path.as_bytes());
        if !existed || request.overwrite {
            finish_dir(stage.target.as_fd(), dir, filled, tally);
        }
    }
    stage.sync()
}

/// Whether the directory that `dir` stands in exists in the target already.
fn stands_in_target(stage: &Stage, dir: &Entry) -> bool {
    dir.path.parent().is_none_or(|parent| open_dir(stage.target.as_fd(), parent.as_bytes()).is_ok())
}

/// Directories that the archive does not hold get the mode that `mkdir` gives.
fn implied_dirs(stage: &Stage, filled: &Filled) {
    let mode = Mode::from_raw_mode(0o777) & !store::durable::current_umask();
    for (_, path) in &filled.implied_dirs {
        let set = || rustix::fs::fchmod(open_dir(stage.new.as_fd(), path)?, mode);
        // Nothing is lost when it stays private.
        set().unwrap_or(());
    }
}

/// A directory whose attributes cannot be set is there all the same.
fn finish_dir(root: BorrowedFd<'_>, dir: &Entry, filled: &Filled, tally: &Tally<'_>) {
    let set = || {
        let fd = open_dir(root, dir.path.as_bytes())?;
        node::finish(fd.as_fd(), dir, filled.losses(tally))
    };
    if let Err(error) = set() {
        let message = format!("its attributes could not be set: {error}");
        tally.problem(Problem::new(ProblemClass::MetadataLost, dir.path.as_bytes(), message));
    }
}

struct Mover<'a> {
    stage: &'a Stage,
    overwrite: bool,
    steps: Vec<Step>,
    /// Directories that existed before.
    merged: Vec<Vec<u8>>,
}

fn open_dir(root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    beneath::open(root, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

fn names(dir: &OwnedFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names: Vec<Vec<u8>> = rustix::fs::Dir::read_from(dir)?
        .map(|entry| entry.map(|entry| entry.file_name().to_bytes().to_vec()))
        .collect::<rustix::io::Result<_>>()?;
    names.retain(|name| name != b"." && name != b"..");
    names.sort();
    Ok(names)
}

fn is_dir(dir: &OwnedFd, name: &[u8]) -> bool {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

impl Mover<'_> {
    fn failed(&self, doing: &str, path: &[u8], error: Errno) -> Error {
        let shown = self.stage.target_path.join(lifeboat_format::path::shown(path));
        Error::from(store::Error::io(doing, &shown, error))
    }

    /// Moves all that the staged directory `path` holds into the target's.
    fn merge(&mut self, path: &[u8]) -> Result<()> {
        let staged = open_dir(self.stage.new.as_fd(), path).map_err(|error| self.failed("open", path, error))?;
        let target = open_dir(self.stage.target.as_fd(), path).map_err(|error| self.failed("open", path, error))?;
        for name in names(&staged).map_err(|error| self.failed("list", path, error))? {
            let inner = if path.is_empty() { name.clone() } else { [path, b"/", &name].concat() };
            match beneath::move_new(&staged, &name, &target, &name) {
                Ok(()) => self.steps.push(Step::Moved(inner)),
                Err(Errno::EXIST) if is_dir(&staged, &name) && is_dir(&target, &name) => {
                    self.merge(&inner)?;
                    self.merged.push(inner);
                }
                Err(Errno::EXIST) => self.replace(&staged, &target, &name, inner)?,
                Err(error) => return Err(self.failed("move a restored entry to", &inner, error)),
            }
        }
        Ok(())
    }

    fn replace(&mut self, staged: &OwnedFd, target: &OwnedFd, name: &[u8], path: Vec<u8>) -> Result<()> {
        let shown = || self.stage.target_path.join(lifeboat_format::path::shown(&path));
        if !self.overwrite {
            return Err(Error::new(ErrorKind::ConfirmationNeeded, format!("{} exists already", shown().display()))
                .next("restore to an empty directory, or add --overwrite to replace it"));
        }
        if is_dir(target, name) {
            return Err(Error::new(
                ErrorKind::ConfirmationNeeded,
                format!("{} is a directory, and something else would replace it", shown().display()),
            )
            .next("move the directory away, and restore again"));
        }
        exchange(staged, target, name).map_err(|error| self.failed("replace", &path, error))?;
        self.steps.push(Step::Exchanged(path));
        Ok(())
    }

    /// Puts everything back, the last step first.
    fn undo(&mut self) -> Result<()> {
        for step in std::mem::take(&mut self.steps).into_iter().rev() {
            let (Step::Moved(path) | Step::Exchanged(path)) = &step;
            let slash = path.iter().rposition(|byte| *byte == b'/');
            let (parent, name) = slash.map_or((&path[..0], &path[..]), |at| (&path[..at], &path[at + 1..]));
            let back = || {
                let staged = open_dir(self.stage.new.as_fd(), parent)?;
                let target = open_dir(self.stage.target.as_fd(), parent)?;
                match step {
                    Step::Moved(_) => rustix::fs::renameat(&target, name, &staged, name),
                    Step::Exchanged(_) => exchange(&staged, &target, name),
                }
            };
            back().map_err(|error| self.failed("put back", path, error))?;
        }
        Ok(())
    }
}

/// Exchanges what has `name` on both sides. Undone by doing it once more.
fn exchange(staged: &OwnedFd, target: &OwnedFd, name: &[u8]) -> rustix::io::Result<()> {
    match rustix::fs::renameat_with(staged, name, target, name, RenameFlags::EXCHANGE) {
        // A file system without exchanges: three renames by way of a free name in the stage.
        Err(Errno::INVAL | Errno::NOSYS) => {
            let aside = format!("aside-{}", store::durable::random_hex());
            rustix::fs::mkdirat(staged, &aside, Mode::RWXU)?;
            let dir = open_dir(staged.as_fd(), aside.as_bytes())?;
            rustix::fs::renameat(target, name, &dir, name)?;
            rustix::fs::renameat(staged, name, target, name)?;
            rustix::fs::renameat(&dir, name, staged, name)?;
            rustix::fs::unlinkat(staged, &aside, AtFlags::REMOVEDIR)
        }
        exchanged => exchanged,
    }
}
