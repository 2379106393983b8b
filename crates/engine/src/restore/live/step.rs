//! One change to the live state: which two sides it has, how it is done and
//! undone. Do and undo first look which side is where, by inode, and act only
//! if needed: an exchange is its own inverse, and done twice it is undone.

mod logs;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use lifeboat_store as store;
use rustix::fs::{Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub(super) use logs::cleared;

use super::attrs::Attrs;
use super::name::{Name, below};
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
        /// The database of the state that comes back: once it stands there, a log is its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        old: Option<u64>,
    },
    /// A log of a database that is carried over with its directory goes with
    /// it, whichever it is by then: also one that the new state has made.
    Follow { place: usize, live: Name },
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
        let places = terms.places.iter().map(|place| PlaceSides::open(place, true)).collect::<Result<_>>()?;
        Ok(Self { places })
    }

    /// Opens what stands at the places of `terms` by now.
    pub(super) fn open_as_they_are(terms: &Terms) -> Result<Self> {
        let places = terms.places.iter().map(|place| PlaceSides::open(place, false)).collect::<Result<_>>()?;
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
    fn open(place: &Place, must_be_same: bool) -> Result<Self> {
        let base = place.base.as_path();
        let live = Tree::open(base)?;
        let stat = rustix::fs::fstat(live.top()).map_err(|error| store::Error::io("look at", base, error))?;
        if must_be_same && stat.st_ino != place.inode {
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
            | Self::Clear { place, .. }
            | Self::Follow { place, .. } => *place,
        }
    }

    /// Whether it carries something over into a staged directory that changes places later in the list.
    pub(super) fn is_carry(&self) -> bool {
        match self {
            Self::Move { from, to, .. } => (from.side, to.side) == (Side::Live, Side::Swap),
            Self::Follow { .. } => true,
            Self::Exchange { .. } | Self::Vacate { .. } | Self::Clear { .. } => false,
        }
    }

    /// Whether something staged becomes live by it.
    pub(super) fn brings(&self) -> bool {
        match self {
            Self::Exchange { .. } => true,
            Self::Move { to, .. } => to.side == Side::Live,
            Self::Vacate { .. } | Self::Clear { .. } | Self::Follow { .. } => false,
        }
    }

    /// Whether this step has brought the directory that `carry` goes with to its
    /// live place: what is carried over is there by the same path then, and must stay.
    pub(super) fn has_carried(&self, carry: &Self, sides: &Sides) -> Result<bool> {
        let (live, new) = match self {
            Self::Exchange { live, new, .. } => (live, new),
            Self::Move { to, inode, .. } if to.side == Side::Live => (&to.path, inode),
            _ => return Ok(false),
        };
        if self.place() != carry.place() || below(&carry.object().path.0, &live.0).is_none_or(<[u8]>::is_empty) {
            return Ok(false);
        }
        let there = sides.places[self.place()].there(Side::Live, &live.0);
        Ok(there.map_err(|error| self.failed(sides, "look at", error))? == There::Inode(*new))
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
            Self::Vacate { .. } | Self::Clear { .. } | Self::Follow { .. } => self.apply_to_log(sides),
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
                    // What was carried over is the application's, which has replaced or removed it since.
                    (There::Nothing, There::Nothing) if self.is_carry() => Ok(()),
                    (There::Nothing, _) if self.is_carry() => place.rename(to, from).map_err(failed),
                    // What was new is gone, or something else took its place: neither may stay live.
                    _ if to.side == Side::Live => self.clear_live(sides, from, to, at_to),
                    _ => Err(self.lost(sides, to, from)),
                }
            }
            Self::Vacate { .. } | Self::Clear { .. } | Self::Follow { .. } => self.undo_of_log(sides),
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
            Self::Vacate { live, .. } | Self::Clear { live, .. } | Self::Follow { live, .. } => {
                Spot { side: Side::Live, path: live.clone() }
            }
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
mod tests;
