//! The stages of a restore in place: one private folder on each file system
//! that it writes to. Each holds a pointer to the journal, so that a Lifeboat
//! with another data directory knows what it is.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use lifeboat_format::model::FileTime;
use lifeboat_store as store;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::attrs::set_mtime;
use super::journal::Story;
use super::name::Name;
use super::step::{REMOVED, SWAP};
use super::terms::{Place, Terms};
use super::tree::mtime;
use crate::ours::{STAGE_POINTER, STAGE_PREFIX, stage_id, stage_name};
use crate::{Error, ErrorKind, Result};

/// What the pointer in a stage says.
#[derive(Serialize, Deserialize)]
struct Pointer {
    restore: String,
    journal: Name,
    /// Whether the restore is over, and only what it replaced is in here.
    kept: bool,
}

/// The pointers, open and locked while a run uses the stages.
pub(super) struct Stages {
    pointers: Vec<File>,
}

fn failed(doing: &str, path: &Path, error: impl Into<std::io::Error>) -> Error {
    store::Error::io(doing, path, error).into()
}

impl Stages {
    /// Makes them all.
    pub(super) fn create(terms: &Terms, id: &str, journal: &Path) -> Result<Self> {
        let mut stages = Self { pointers: Vec::new() };
        for place in &terms.places {
            stages.pointers.push(create(place, id, journal)?);
        }
        Ok(stages)
    }

    /// Opens those that are there, to go on with them.
    pub(super) fn open(terms: &Terms) -> Result<Self> {
        let mut stages = Self { pointers: Vec::new() };
        for place in &terms.places {
            let path = place.stage.as_path().join(STAGE_POINTER);
            match File::options().read(true).write(true).open(&path) {
                Ok(file) => {
                    file.try_lock().map_err(|_| locked(place.stage.as_path(), None))?;
                    stages.pointers.push(file);
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("open", &path, error)),
            }
        }
        Ok(stages)
    }

    /// Says in every stage which restore it belongs to, and whether that is over.
    pub(super) fn point(&mut self, id: &str, journal: &Path, kept: bool) -> Result<()> {
        for pointer in &mut self.pointers {
            write(pointer, id, journal, kept).map_err(|error| failed("write in the stage of", journal, error))?;
        }
        Ok(())
    }

    /// Removes the stages with all in them, and leaves no trace of them.
    pub(super) fn remove(terms: &Terms) -> Result<()> {
        for place in &terms.places {
            let stage = place.stage.as_path();
            // On a file system that is read-only, removing what is not there fails too.
            if stage.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
                continue;
            }
            let time = base_time(place);
            // The pointer goes last: what is left after a kill must still be known as a stage.
            for name in [SWAP, REMOVED] {
                gone(std::fs::remove_dir_all(stage.join(name))).map_err(|error| failed("remove", stage, error))?;
            }
            gone(std::fs::remove_file(stage.join(STAGE_POINTER))).map_err(|error| failed("remove", stage, error))?;
            gone(std::fs::remove_dir(stage)).map_err(|error| failed("remove", stage, error))?;
            time.into_iter().for_each(|time| set_base_time(place, time));
        }
        Ok(())
    }

    /// The directories that the stages stood in show no trace of them.
    pub(super) fn restore_times(terms: &Terms) {
        terms.places.iter().for_each(|place| set_base_time(place, place.time()));
    }
}

/// Notes when the base of a place was last changed, to know it when the stages are gone.
pub(super) fn look_at_time(place: &mut Place) {
    if let Some(time) = base_time(place) {
        place.mtime = (time.seconds, time.nanos);
    }
}

/// When the base of a place was last changed, now.
fn base_time(place: &Place) -> Option<FileTime> {
    rustix::fs::stat(place.base.as_path()).ok().map(|stat| mtime(&stat))
}

fn set_base_time(place: &Place, time: FileTime) {
    let set = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let base = rustix::fs::open(place.base.as_path(), flags, Mode::empty())?;
        if rustix::fs::fstat(&base)?.st_ino == place.inode { set_mtime(&base, time) } else { Ok(()) }
    };
    // An ordinary user may not set the times of another's directory.
    set().unwrap_or(());
}

fn gone(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn locked(stage: &Path, journal: Option<&Path>) -> Error {
    let journal = journal.map(|journal| format!("; its journal is {}", journal.display())).unwrap_or_default();
    Error::new(ErrorKind::Locked, format!("another run uses {}{journal}", stage.display()))
        .state("nothing was begun")
        .next("wait until it has ended, then run the same command again")
}

fn create(place: &Place, id: &str, journal: &Path) -> Result<File> {
    let stage = place.stage.as_path();
    rustix::fs::mkdir(stage, Mode::RWXU).map_err(|error| failed("create a stage at", stage, error))?;
    let fd = rustix::fs::open(
        stage.join(STAGE_POINTER),
        OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC,
        Mode::RUSR | Mode::WUSR,
    );
    let mut pointer = File::from(fd.map_err(|error| failed("write in", stage, error))?);
    pointer.lock().map_err(|error| failed("lock", stage, error))?;
    write(&mut pointer, id, journal, false).map_err(|error| failed("write in", stage, error))?;
    for name in [SWAP, REMOVED] {
        let folder = stage.join(name);
        rustix::fs::mkdir(&folder, Mode::RWXU).map_err(|error| failed("write in", stage, error))?;
        // A default ACL of the directory would be inherited by everything in here.
        match rustix::fs::removexattr(&folder, "system.posix_acl_default") {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(failed("write in", stage, error)),
        }
    }
    store::durable::sync_dir(stage)?;
    Ok(pointer)
}

fn write(pointer: &mut File, id: &str, journal: &Path, kept: bool) -> std::io::Result<()> {
    let pointing = Pointer { restore: id.to_owned(), journal: Name::of(journal), kept };
    let text = serde_json::to_string(&pointing)?;
    pointer.set_len(0)?;
    pointer.rewind()?;
    pointer.write_all(text.as_bytes())?;
    pointer.sync_all()
}

/// Whether things can change places on the file system of `stage`, tried out in it.
pub(super) fn can_exchange(stage: &Path) -> Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // Where it is removed with the rest, should a kill leave something of it.
    let removed = stage.join(REMOVED);
    let dir = rustix::fs::open(&removed, flags, Mode::empty()).map_err(|error| failed("open", stage, error))?;
    let tried = exchange(&dir);
    for name in TRIED {
        rustix::fs::unlinkat(&dir, name, AtFlags::REMOVEDIR).unwrap_or(());
    }
    match tried {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::NOSYS | Errno::XDEV | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(failed("try out", stage, error)),
    }
}

/// What changes places to try it out.
const TRIED: [&str; 2] = [".lifeboat-try-a", ".lifeboat-try-b"];

fn exchange(dir: &OwnedFd) -> rustix::io::Result<()> {
    for name in TRIED {
        match rustix::fs::mkdirat(dir, name, Mode::RWXU) {
            // Left by a kill.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
    rustix::fs::renameat_with(dir, TRIED[0], dir, TRIED[1], RenameFlags::EXCHANGE)
}

/// Refuses to touch the roots of `terms` while another restore, known to
/// another data directory or under way, has a stage at or above one of them.
/// `below` are the stages that were found in them; those of the restore `own` do not count.
pub(super) fn refuse_others(terms: &Terms, below: &[PathBuf], own: &str, ours: &dyn Fn(&Path) -> bool) -> Result<()> {
    for root in &terms.roots {
        let root = root.path.as_path();
        for dir in root.ancestors().skip(1) {
            let on_the_way = root.strip_prefix(dir).ok().and_then(|rest| rest.components().next());
            let beside = stage_name(on_the_way.map_or(&b""[..], |name| name.as_os_str().as_encoded_bytes()), "");
            let Ok(listing) = std::fs::read_dir(dir) else { continue };
            for entry in listing.filter_map(std::io::Result::ok) {
                let name = entry.file_name();
                let name = name.as_encoded_bytes();
                // One in the directory itself is of a root, or another file system, that the directory is.
                let is_meant = name.starts_with(&beside) || name.starts_with(STAGE_PREFIX.as_bytes());
                if is_meant && stage_id(name).is_some_and(|id| id != own) {
                    refuse_other(&entry.path(), ours)?;
                }
            }
        }
    }
    below.iter().try_for_each(|stage| refuse_other(stage, ours))
}

fn refuse_other(stage: &Path, ours: &dyn Fn(&Path) -> bool) -> Result<()> {
    let Ok(mut file) = File::open(stage.join(STAGE_POINTER)) else { return Ok(()) };
    let mut text = String::new();
    let pointer = file.read_to_string(&mut text).ok().and_then(|_| serde_json::from_str::<Pointer>(&text).ok());
    // A restore that was killed when it stood already did not come to say so in its stage.
    let is_over = |pointer: &Pointer| Story::read(pointer.journal.as_path()).is_ok_and(|story| !story.is_waiting());
    let is_kept = pointer.as_ref().is_some_and(|pointer| pointer.kept || is_over(pointer));
    if !is_kept && file.try_lock().is_err() {
        return Err(locked(stage, pointer.as_ref().map(|pointer| pointer.journal.as_path())));
    }
    let Some(pointer) = pointer.filter(|_| !is_kept) else { return Ok(()) };
    let journal = pointer.journal.as_path();
    let next = if ours(journal) {
        "run `lifeboat recover` first"
    } else if journal.exists() {
        "run `lifeboat recover` with the --data-dir that this journal lies in"
    } else {
        "its journal is gone: look into the stage, put back by hand what you need, and remove it"
    };
    Err(Error::new(
        ErrorKind::Locked,
        format!("an interrupted restore waits in {}; its journal is {}", stage.display(), journal.display()),
    )
    .state("nothing was written, and nothing was stopped")
    .next(next))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::restore::live::terms::Root;

    fn terms(dir: &Path) -> Terms {
        let stage = dir.join(".app.lifeboat-0123456789abcdef0123456789abcdef");
        let place = Place { base: Name::of(dir), stage: Name::of(&stage), inode: 0, mtime: (0, 0), moves_dirs: true };
        let root = Root { path: Name::of(&dir.join("app")), ..Root::default() };
        Terms { places: vec![place], roots: vec![root], ..Terms::default() }
    }

    /// Shows R4, R12.
    #[test]
    fn a_stage_is_private_and_refuses_another_restore_until_only_kept_things_are_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let terms = terms(dir.path());
        let journal = dir.path().join("elsewhere/journal/x.jsonl");
        let mut stages = Stages::create(&terms, "x", &journal).unwrap();
        let stage = terms.places[0].stage.as_path();
        assert_eq!(stage.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
        assert!(can_exchange(stage).unwrap());
        assert_eq!(std::fs::read_dir(stage).unwrap().count(), 3, "nothing is left of the try");
        let refused =
            || refuse_others(&terms, &[], "another", &|_| false).map_err(|error| (error.kind(), error.to_string()));
        assert_eq!(refused().unwrap_err().0, ErrorKind::Locked);
        stages.point("x", &journal, true).unwrap();
        refused().unwrap();
        stages.point("x", &journal, false).unwrap();
        drop(stages);
        assert!(refused().unwrap_err().1.contains("elsewhere/journal/x.jsonl"));
        Stages::remove(&terms).unwrap();
        refused().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
