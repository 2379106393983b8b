//! One change to the live state: which two sides it has, how it is done and
//! undone. Do and undo first look which side is where, by inode, and act only
//! if needed: an exchange is its own inverse, and done twice it is undone.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use lifeboat_store as store;
use rustix::fs::{Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::attrs::Attrs;
use super::name::Name;
use super::terms::{Place, Terms, absolute};
use super::tree::{Tree, is_dir};
use crate::{Error, ErrorKind, Result, beneath};

/// The folder of a stage for what is exchanged: new before the swap, replaced after it.
pub(super) const SWAP: &str = "swap";
/// The folder of a stage for what is taken away.
pub(super) const REMOVED: &str = "removed";

/// Where something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Side {
    Live,
    Swap,
    Removed,
}

/// A path on one side of a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spot {
    pub(super) side: Side,
    pub(super) path: Name,
}

impl Spot {
    pub(super) fn new(side: Side, path: &[u8]) -> Self {
        Self { side, path: Name(path.to_vec()) }
    }
}

/// One change. Inodes are those on the file system of the place; the numbers
/// of devices change when a machine starts again, inodes do not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Step {
    /// What is staged and what is live change places.
    Exchange {
        place: usize,
        staged: Spot,
        live: Name,
        /// The inode that becomes live.
        new: u64,
        /// The inode that was live.
        old: u64,
    },
    /// Something moves to where nothing is.
    Move { place: usize, from: Spot, to: Spot, inode: u64 },
    /// A log that SQLite keeps beside a database goes before the database
    /// does; nothing may be there.
    Vacate {
        place: usize,
        live: Name,
        /// Where it goes.
        to: Spot,
        /// `None`: no log is there.
        inode: Option<u64>,
        /// The database, and the inode that becomes it: once it stands there, a log is its own.
        database: Name,
        new: u64,
    },
    /// After the database has changed: what its new state has written into a
    /// log goes before the old database comes back, and comes back with it.
    Clear {
        place: usize,
        live: Name,
        /// Logs that are no trouble: those of the state that comes back.
        known: Vec<u64>,
        database: Name,
    },
}

/// The attributes of a directory that stays and changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DirChange {
    pub(super) place: usize,
    pub(super) path: Name,
    pub(super) inode: u64,
    /// What it gets when all steps are done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) forward: Option<Attrs>,
    /// What it gets when all steps are undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) backward: Option<Attrs>,
}

/// What stands somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    Nothing,
    Inode(u64),
    /// Something of another file system.
    Other,
}

/// The open directories of all places.
pub(super) struct Sides {
    places: Vec<PlaceSides>,
}

struct PlaceSides {
    place: Place,
    device: u64,
    live: Tree,
    swap: Option<Tree>,
    removed: Option<Tree>,
}

impl Sides {
    /// Opens the places of `terms`. A stage may be gone; a base may not.
    pub(super) fn open(terms: &Terms) -> Result<Self> {
        let places = terms.places.iter().map(PlaceSides::open).collect::<Result<_>>()?;
        Ok(Self { places })
    }

    pub(super) fn live(&self, place: usize) -> &Tree {
        &self.places[place].live
    }

    pub(super) fn staged(&self, place: usize, side: Side) -> Option<&Tree> {
        self.places[place].tree(side)
    }

    /// Makes all that was done in every place durable.
    pub(super) fn sync(&self) -> Result<()> {
        for place in &self.places {
            let sync = || {
                rustix::fs::syncfs(place.live.top())?;
                // Some file systems that stopped after an error answer syncfs as if nothing were wrong.
                rustix::fs::fsync(place.live.top())
            };
            sync().map_err(|error| store::Error::io("sync", place.place.base.as_path(), error))?;
        }
        Ok(())
    }

    /// The path of `spot`, for messages and commands.
    pub(super) fn path(&self, place: usize, spot: &Spot) -> PathBuf {
        let place = &self.places[place].place;
        match spot.side {
            Side::Live => place.live(&spot.path.0),
            Side::Swap => absolute(&place.stage.as_path().join(SWAP), &spot.path.0),
            Side::Removed => absolute(&place.stage.as_path().join(REMOVED), &spot.path.0),
        }
    }
}

impl PlaceSides {
    fn open(place: &Place) -> Result<Self> {
        let base = place.base.as_path();
        let live = Tree::open(base)?;
        let stat = rustix::fs::fstat(live.top()).map_err(|error| store::Error::io("look at", base, error))?;
        if stat.st_ino != place.inode {
            return Err(Error::new(ErrorKind::Failed, format!("{} is not the directory it was", base.display()))
                .next("mount the file system that belongs there, then run `lifeboat recover`"));
        }
        let stage = place.stage.as_path();
        let open = |name: &str| {
            let fd = rustix::fs::open(
                stage.join(name),
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            );
            match fd {
                Ok(fd) => Ok(Some(Tree::of(fd))),
                Err(Errno::NOENT) => Ok(None),
                Err(error) => Err(store::Error::io("open", stage, error)),
            }
        };
        let (swap, removed) = (open(SWAP)?, open(REMOVED)?);
        Ok(Self { place: place.clone(), device: stat.st_dev, live, swap, removed })
    }

    fn tree(&self, side: Side) -> Option<&Tree> {
        match side {
            Side::Live => Some(&self.live),
            Side::Swap => self.swap.as_ref(),
            Side::Removed => self.removed.as_ref(),
        }
    }

    fn there(&self, side: Side, path: &[u8]) -> rustix::io::Result<There> {
        let Some(tree) = self.tree(side) else { return Ok(There::Nothing) };
        Ok(match tree.stat(path)? {
            None => There::Nothing,
            // On an overlay, what is no directory may have the number of the layer's device.
            Some(stat) if stat.st_dev == self.device || !self.place.moves_dirs && !is_dir(&stat) => {
                There::Inode(stat.st_ino)
            }
            Some(_) => There::Other,
        })
    }

    fn both<'p>(&self, a: &'p Spot, b: &'p Spot) -> rustix::io::Result<Ends<'p>> {
        let open = |spot: &'p Spot| self.tree(spot.side).ok_or(Errno::NOENT)?.parent(&spot.path.0);
        Ok((open(a)?, open(b)?))
    }

    fn exchange(&self, a: &Spot, b: &Spot) -> rustix::io::Result<()> {
        let ((from, name), (to, new_name)) = self.both(a, b)?;
        rustix::fs::renameat_with(&*from, name, &*to, new_name, RenameFlags::EXCHANGE)?;
        self.forget([a, b]);
        Ok(())
    }

    fn rename(&self, from: &Spot, to: &Spot) -> rustix::io::Result<()> {
        let ((dir, name), (to_dir, new_name)) = self.both(from, to)?;
        beneath::move_new(&dir, name, &to_dir, new_name)?;
        self.forget([from, to]);
        Ok(())
    }

    /// What was moved may have been a directory that is known by its path.
    fn forget(&self, moved: [&Spot; 2]) {
        for spot in moved {
            if let Some(tree) = self.tree(spot.side) {
                tree.forget(&spot.path.0);
            }
        }
    }
}

type End<'p> = (std::rc::Rc<OwnedFd>, &'p [u8]);
type Ends<'p> = (End<'p>, End<'p>);

impl Step {
    pub(super) fn place(&self) -> usize {
        match self {
            Self::Exchange { place, .. }
            | Self::Move { place, .. }
            | Self::Vacate { place, .. }
            | Self::Clear { place, .. } => *place,
        }
    }

    /// Does it, unless it is done.
    pub(super) fn apply(&self, sides: &Sides) -> Result<()> {
        let place = &sides.places[self.place()];
        match self {
            Self::Exchange { staged, live, new, old, .. } => {
                let live = Spot { side: Side::Live, path: live.clone() };
                let look = || Ok((place.there(live.side, &live.path.0)?, place.there(staged.side, &staged.path.0)?));
                match look().map_err(|error| self.failed(sides, "look at", error))? {
                    (There::Inode(is), _) if is == *new => Ok(()),
                    (There::Inode(is), There::Inode(other)) if is == *old && other == *new => {
                        place.exchange(staged, &live).map_err(|error| self.failed(sides, "replace", error))
                    }
                    _ => Err(self.unexpected(sides)),
                }
            }
            Self::Move { from, to, inode, .. } => {
                let look = || Ok((place.there(from.side, &from.path.0)?, place.there(to.side, &to.path.0)?));
                match look().map_err(|error| self.failed(sides, "look at", error))? {
                    (_, There::Inode(is)) if is == *inode => Ok(()),
                    (There::Inode(is), There::Nothing) if is == *inode => {
                        place.rename(from, to).map_err(|error| self.failed(sides, "move", error))
                    }
                    _ => Err(self.unexpected(sides)),
                }
            }
            Self::Vacate { .. } | Self::Clear { .. } => self.apply_to_log(sides),
        }
    }

    fn apply_to_log(&self, sides: &Sides) -> Result<()> {
        let place = &sides.places[self.place()];
        let failed = |error| self.failed(sides, "move", error);
        let live = self.object();
        match self {
            Self::Vacate { to, inode, database, new, .. } => {
                match place.there(Side::Live, &live.path.0).map_err(failed)? {
                    There::Nothing => Ok(()),
                    There::Inode(is) if Some(is) == *inode => place.rename(&live, to).map_err(failed),
                    _ if place.there(Side::Live, &database.0).map_err(failed)? == There::Inode(*new) => Ok(()),
                    _ => Err(self.unexpected(sides)),
                }
            }
            _ => match place.rename(&cleared(&live.path.0), &live) {
                Err(Errno::NOENT | Errno::EXIST) => Ok(()),
                done => done.map_err(failed),
            },
        }
    }

    /// Undoes it, unless it is not done. What stands in the way, because the
    /// new state has run, is kept in the stage.
    pub(super) fn undo(&self, sides: &Sides) -> Result<()> {
        let place = &sides.places[self.place()];
        let failed = |error| self.failed(sides, "put back", error);
        match self {
            Self::Exchange { staged, live, old, .. } => {
                let live = Spot { side: Side::Live, path: live.clone() };
                if place.there(Side::Live, &live.path.0).map_err(failed)? == There::Inode(*old) {
                    return Ok(());
                }
                self.bring_back(sides, staged, &live, *old)
            }
            Self::Move { from, to, inode, .. } => {
                let (at_from, at_to) = (
                    place.there(from.side, &from.path.0).map_err(failed)?,
                    place.there(to.side, &to.path.0).map_err(failed)?,
                );
                match (at_from, at_to) {
                    // Never done. What stands there now is not ours.
                    (There::Inode(is), _) if is == *inode => Ok(()),
                    (_, There::Inode(is)) if is == *inode => self.bring_back(sides, to, from, *inode),
                    // What was new is gone, or something else took its place: neither may stay live.
                    _ if to.side == Side::Live => self.clear_live(sides, from, to, at_to),
                    _ => Err(self.lost(sides, to, from)),
                }
            }
            Self::Vacate { live, to, inode: Some(inode), .. } => {
                let live = Spot { side: Side::Live, path: live.clone() };
                if place.there(Side::Live, &live.path.0).map_err(failed)? == There::Inode(*inode) {
                    return Ok(());
                }
                self.bring_back(sides, to, &live, *inode)
            }
            Self::Vacate { inode: None, .. } => Ok(()),
            Self::Clear { live, known, .. } => {
                let spot = Spot { side: Side::Live, path: live.clone() };
                match place.there(Side::Live, &live.0).map_err(failed)? {
                    There::Nothing => Ok(()),
                    There::Inode(is) if known.contains(&is) => Ok(()),
                    // By a name that tells what it was, so that it can be given back with its database.
                    _ => match place.rename(&spot, &cleared(&live.0)) {
                        Err(Errno::EXIST) => self.set_aside(sides, &spot),
                        done => done.map_err(failed),
                    },
                }
            }
        }
    }

    /// Moves the inode `inode` from `kept` to `home`, whatever stands there now.
    fn bring_back(&self, sides: &Sides, kept: &Spot, home: &Spot, inode: u64) -> Result<()> {
        let place = &sides.places[self.place()];
        let failed = |error| self.failed(sides, "put back", error);
        if place.there(kept.side, &kept.path.0).map_err(failed)? != There::Inode(inode) {
            return Err(self.lost(sides, kept, home));
        }
        match place.there(home.side, &home.path.0).map_err(failed)? {
            There::Nothing => place.rename(kept, home).map_err(failed),
            _ => match place.exchange(kept, home) {
                Err(Errno::INVAL | Errno::NOSYS) => {
                    self.set_aside(sides, home)?;
                    place.rename(kept, home).map_err(failed)
                }
                done => done.map_err(failed),
            },
        }
    }

    /// Takes away what stands live at `to`, where nothing was before.
    fn clear_live(&self, sides: &Sides, from: &Spot, to: &Spot, at_to: There) -> Result<()> {
        let place = &sides.places[self.place()];
        if to.side != Side::Live || at_to == There::Nothing {
            return Ok(());
        }
        match place.rename(to, from) {
            Err(Errno::EXIST | Errno::NOENT) => self.set_aside(sides, to),
            done => done.map_err(|error| self.failed(sides, "put back", error)),
        }
    }

    /// Moves something to a free name in the stage.
    fn set_aside(&self, sides: &Sides, spot: &Spot) -> Result<()> {
        let place = &sides.places[self.place()];
        let aside = Spot::new(Side::Removed, format!("aside-{}", store::durable::random_hex()).as_bytes());
        place.rename(spot, &aside).map_err(|error| self.failed(sides, "set aside", error))
    }

    fn object(&self) -> Spot {
        match self {
            Self::Exchange { live, .. } => Spot { side: Side::Live, path: live.clone() },
            Self::Move { from, to, .. } if to.side != Side::Live => from.clone(),
            Self::Move { to, .. } => to.clone(),
            Self::Vacate { live, .. } | Self::Clear { live, .. } => Spot { side: Side::Live, path: live.clone() },
        }
    }

    fn failed(&self, sides: &Sides, doing: &str, error: Errno) -> Error {
        let failed = Error::from(store::Error::io(doing, &sides.path(self.place(), &self.object()), error));
        match error {
            Errno::XDEV => failed.next("this file system cannot move it: restore it beside with --to DIR"),
            _ => failed,
        }
    }

    fn unexpected(&self, sides: &Sides) -> Error {
        let path = sides.path(self.place(), &self.object());
        Error::new(ErrorKind::Failed, format!("{} was changed by something else meanwhile", path.display()))
    }

    fn lost(&self, sides: &Sides, kept: &Spot, home: &Spot) -> Error {
        let (kept, home) = (sides.path(self.place(), kept), sides.path(self.place(), home));
        Error::new(
            ErrorKind::RollbackIncomplete,
            format!("what belongs to {} is not at {} any more", home.display(), kept.display()),
        )
    }
}

/// Where the log at `live` of a state that had run goes when the state before it comes back.
pub(super) fn cleared(live: &[u8]) -> Spot {
    let name = lifeboat_format::model::Sha256::of(live).to_string();
    Spot::new(Side::Removed, format!("log-{name}").as_bytes())
}

impl DirChange {
    /// Gives the directory the attributes it has when all steps are done, or undone.
    pub(super) fn settle(&self, sides: &Sides, is_forward: bool) -> Result<()> {
        let Some(attrs) = (if is_forward { &self.forward } else { &self.backward }) else { return Ok(()) };
        let place = &sides.places[self.place];
        let path = || place.place.live(&self.path.0);
        let dir = match beneath::open(place.live.top(), &self.path.0, OFlags::RDONLY | OFlags::DIRECTORY) {
            // Another one stands there, or none: nothing of this one can be settled.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            opened => opened.map_err(|error| store::Error::io("open", &path(), error))?,
        };
        let stat = rustix::fs::fstat(&dir).map_err(|error| store::Error::io("look at", &path(), error))?;
        if stat.st_ino != self.inode {
            return Ok(());
        }
        attrs.set(&dir).map_err(|error| store::Error::io("set the attributes of", &path(), error).into())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;
    use std::path::Path;

    use super::*;

    /// `app` live and its stage beside, with one file on each side that `names` name.
    struct Ground {
        dir: tempfile::TempDir,
        terms: Terms,
    }

    impl Ground {
        fn new(names: &[&str]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for folder in ["app", "stage/swap/app", "stage/removed/app"] {
                std::fs::create_dir_all(dir.path().join(folder)).unwrap();
            }
            for name in names {
                // What it holds says which it is.
                std::fs::hard_link(Self::file(dir.path(), name), dir.path().join(name)).unwrap();
            }
            let place = Place {
                base: Name::of(dir.path()),
                stage: Name::of(&dir.path().join("stage")),
                inode: dir.path().metadata().unwrap().ino(),
                mtime: (0, 0),
                moves_dirs: true,
            };
            Self { dir, terms: Terms { places: vec![place], ..Terms::default() } }
        }

        fn file(dir: &Path, name: &str) -> PathBuf {
            let path = dir.join(format!("made-{}", name.replace('/', "-")));
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.create(true).truncate(true).write(true).open(&path).unwrap();
            std::io::Write::write_all(&mut file, name.as_bytes()).unwrap();
            path
        }

        fn inode(&self, name: &str) -> u64 {
            self.dir.path().join(name).metadata().unwrap().ino()
        }

        /// What the file at each name was made as; empty where nothing is.
        fn stands(&self, names: &[&str]) -> Vec<String> {
            names.iter().map(|name| std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()).collect()
        }
    }

    const LIVE: &str = "app/a";
    const SWAP_A: &str = "stage/swap/app/a";
    const REMOVED_A: &str = "stage/removed/app/a";

    fn spot(side: Side) -> Spot {
        Spot::new(side, b"app/a")
    }

    /// Does it twice and undoes it twice: the second time changes nothing.
    fn there_and_back(ground: &Ground, step: &Step, names: [&str; 2], done: [&str; 2]) {
        let before = ground.stands(&names);
        for _ in 0..2 {
            step.apply(&Sides::open(&ground.terms).unwrap()).unwrap();
            assert_eq!(ground.stands(&names), done, "{step:?}");
        }
        for _ in 0..2 {
            step.undo(&Sides::open(&ground.terms).unwrap()).unwrap();
            assert_eq!(ground.stands(&names), before, "{step:?}");
        }
    }

    /// Shows R8.
    #[test]
    fn every_step_may_be_done_twice_and_undone_twice() {
        let ground = Ground::new(&[LIVE, SWAP_A]);
        let (new, old) = (ground.inode(SWAP_A), ground.inode(LIVE));
        let live = Name(b"app/a".to_vec());
        let step = Step::Exchange { place: 0, staged: spot(Side::Swap), live, new, old };
        there_and_back(&ground, &step, [LIVE, SWAP_A], [SWAP_A, LIVE]);

        let ground = Ground::new(&[SWAP_A]);
        let inode = ground.inode(SWAP_A);
        let step = Step::Move { place: 0, from: spot(Side::Swap), to: spot(Side::Live), inode };
        there_and_back(&ground, &step, [LIVE, SWAP_A], [SWAP_A, ""]);

        let ground = Ground::new(&[LIVE]);
        let inode = ground.inode(LIVE);
        let step = Step::Move { place: 0, from: spot(Side::Live), to: spot(Side::Removed), inode };
        there_and_back(&ground, &step, [LIVE, REMOVED_A], ["", LIVE]);
    }

    /// Shows R8.
    #[test]
    fn what_the_new_state_wrote_gives_way_to_the_old_one_and_is_kept() {
        let ground = Ground::new(&[LIVE, SWAP_A]);
        let (new, old) = (ground.inode(SWAP_A), ground.inode(LIVE));
        let live = Name(b"app/a".to_vec());
        let step = Step::Exchange { place: 0, staged: spot(Side::Swap), live, new, old };
        step.apply(&Sides::open(&ground.terms).unwrap()).unwrap();
        // The application replaced its file, as many do when they save.
        let path = ground.dir.path().join(LIVE);
        std::fs::remove_file(&path).unwrap();
        std::fs::hard_link(Ground::file(ground.dir.path(), "saved"), &path).unwrap();
        step.undo(&Sides::open(&ground.terms).unwrap()).unwrap();
        assert_eq!(ground.stands(&[LIVE, SWAP_A]), [LIVE, "saved"]);
    }

    /// Shows R8.
    #[test]
    fn a_step_whose_sides_are_somebody_elses_is_not_done_and_what_is_lost_is_said() {
        let ground = Ground::new(&[LIVE, SWAP_A]);
        let live = Name(b"app/a".to_vec());
        let step = Step::Exchange { place: 0, staged: spot(Side::Swap), live, new: 1, old: 2 };
        let sides = Sides::open(&ground.terms).unwrap();
        assert!(step.apply(&sides).is_err());
        assert_eq!(step.undo(&sides).unwrap_err().kind(), ErrorKind::RollbackIncomplete);
        assert_eq!(ground.stands(&[LIVE, SWAP_A]), [LIVE, SWAP_A]);
    }
}
