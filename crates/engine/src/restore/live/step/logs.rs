//! What is done with the logs that SQLite keeps beside a database, before and
//! after the database itself changes.

use rustix::io::Errno;

use super::{Side, Sides, Spot, Step, There};
use crate::Result;

impl Step {
    pub(super) fn apply_to_log(&self, sides: &Sides) -> Result<()> {
        let place = &sides.places[self.place()];
        let failed = |error| self.failed(sides, "move", error);
        let live = self.object();
        match self {
            Self::Vacate { to, inode, database, new, .. } => {
                let is_taken = |inode| Ok(place.there(to.side, &to.path.0)? == There::Inode(inode));
                match (place.there(Side::Live, &live.path.0).map_err(failed)?, *inode) {
                    (There::Nothing, None) => Ok(()),
                    (There::Nothing, Some(inode)) if is_taken(inode).map_err(failed)? => Ok(()),
                    (There::Inode(is), Some(inode)) if is == inode => place.rename(&live, to).map_err(failed),
                    _ if place.there(Side::Live, &database.0).map_err(failed)? == There::Inode(*new) => Ok(()),
                    _ => Err(self.unexpected(sides)),
                }
            }
            Self::Follow { .. } => self.go_along(sides, &live, &Spot { side: Side::Swap, path: live.path.clone() }),
            _ => match place.rename(&cleared(&live.path.0), &live) {
                Err(Errno::NOENT | Errno::EXIST) => Ok(()),
                done => done.map_err(failed),
            },
        }
    }

    pub(super) fn undo_of_log(&self, sides: &Sides) -> Result<()> {
        let place = &sides.places[self.place()];
        let failed = |error| self.failed(sides, "put back", error);
        let spot = self.object();
        match self {
            Self::Vacate { to, inode: Some(inode), .. } => {
                // Where it is in neither place, it was never moved: the old state ran on, and has merged it since.
                let is_kept = place.there(to.side, &to.path.0).map_err(failed)? == There::Inode(*inode);
                if is_kept { self.bring_back(sides, to, &spot, *inode) } else { Ok(()) }
            }
            Self::Clear { known, database, old, .. } => {
                let stands = place.there(Side::Live, &database.0).map_err(failed)?;
                match place.there(Side::Live, &spot.path.0).map_err(failed)? {
                    There::Nothing => Ok(()),
                    There::Inode(is) if known.contains(&is) => Ok(()),
                    _ if old.is_some_and(|old| stands == There::Inode(old)) => Ok(()),
                    // By a name that tells what it was, so that it can be given back with its database.
                    _ => match place.rename(&spot, &cleared(&spot.path.0)) {
                        Err(Errno::EXIST) => self.set_aside(sides, &spot),
                        done => done.map_err(failed),
                    },
                }
            }
            Self::Follow { .. } => self.go_along(sides, &Spot { side: Side::Swap, path: spot.path.clone() }, &spot),
            _ => Ok(()),
        }
    }

    /// Moves whatever log is at `from` to where none is.
    fn go_along(&self, sides: &Sides, from: &Spot, to: &Spot) -> Result<()> {
        match sides.places[self.place()].rename(from, to) {
            Err(Errno::NOENT | Errno::EXIST) => Ok(()),
            done => done.map_err(|error| self.failed(sides, "move", error)),
        }
    }
}

/// Where the log at `live` of a state that had run goes when the state before it comes back.
pub(in super::super) fn cleared(live: &[u8]) -> Spot {
    let name = lifeboat_format::model::Sha256::of(live).to_string();
    Spot::new(Side::Removed, format!("log-{name}").as_bytes())
}
