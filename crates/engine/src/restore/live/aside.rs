//! What a restore replaced of a database gets a name beside it when the
//! restore stands: `x.db.bad-<epoch>`, with its logs by the names by which
//! SQLite finds them. The stage holds it until then, and again for an undo.
//! Whether it is in the one place or the other, the inode says.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::attrs::set_mtime;
use super::database::sources;
use super::journal::{Journal, Phase, Story};
use super::name::{Name, join, split};
use super::step::{Side, Sides, Spot, Step};
use super::tree::mtime;
use crate::{Result, beneath, ours};

/// One file that was set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Aside {
    pub(super) place: usize,
    /// Where it is in the stage.
    kept: Spot,
    /// Where it is beside the database, relative to the base of the place.
    pub(super) name: Name,
    inode: u64,
}

/// What the steps of a restore that stands have replaced of databases, with
/// the names it is given.
fn find(story: &Story, sides: &Sides, epoch: i64) -> Vec<Aside> {
    let mut found = Vec::new();
    for (place, database) in sources(&story.header.terms) {
        let (dir, name) = split(&database);
        // A name that is taken belongs to another restore.
        let is_free = |epoch: &i64| {
            let path = join(dir, &ours::replaced_name(name, *epoch));
            sides.live(place).stat(&path).is_ok_and(|stat| stat.is_none())
        };
        let Some(epoch) = (epoch..epoch + 1000).find(is_free) else { continue };
        let named = |end: &[u8]| Name(join(dir, &[&ours::replaced_name(name, epoch), end].concat()));
        for step in story.steps.iter().filter(|step| step.place() == place) {
            let of = |kept: &Spot, name, inode| Aside { place, kept: kept.clone(), name, inode };
            match step {
                Step::Exchange { staged, live, old, .. } if live.0 == database => {
                    found.push(of(staged, named(b""), *old));
                }
                Step::Move { from, to, inode, .. } if from.side == Side::Live && from.path.0 == database => {
                    found.push(of(to, named(b""), *inode));
                }
                Step::Vacate { live, to, inode: Some(inode), database: base, .. } if base.0 == database => {
                    found.push(of(to, named(&live.0[database.len()..]), *inode));
                }
                _ => {}
            }
        }
    }
    found
}

/// Gives names to what was replaced, and notes them first. What cannot be
/// named stays in the stage, where it is kept as well.
pub(super) fn give_names(journal: &mut Journal) -> Result<()> {
    let sides = Sides::open(&journal.story.header.terms)?;
    if journal.story.phase == Phase::Committed && journal.story.aside.is_empty() {
        let aside = find(&journal.story, &sides, journal.story.since.as_second());
        if aside.is_empty() {
            return Ok(());
        }
        journal.set_aside(aside)?;
    }
    for aside in &journal.story.aside {
        move_it(&sides, aside, true).unwrap_or(());
    }
    sides.sync()
}

/// Brings what has a name beside the database back into the stage, to be put back from there.
pub(super) fn take_back(story: &Story) -> Result<()> {
    let sides = Sides::open(&story.header.terms)?;
    for aside in &story.aside {
        let failed = |error| {
            lifeboat_store::Error::io("move", &story.header.terms.places[aside.place].live(&aside.name.0), error)
        };
        match move_it(&sides, aside, false) {
            // It stands in the stage already; if it is nowhere, the list of steps finds that out.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(failed(error).into()),
        }
    }
    Ok(())
}

/// Removes what has a name beside the database.
pub(super) fn remove(story: &Story) -> Result<()> {
    if story.aside.is_empty() {
        return Ok(());
    }
    let sides = Sides::open(&story.header.terms)?;
    for aside in &story.aside {
        let tree = sides.live(aside.place);
        let remove = || {
            if tree.stat(&aside.name.0)?.is_none_or(|stat| stat.st_ino != aside.inode) {
                return Ok(());
            }
            keep_time(&sides, aside, || {
                let (dir, name) = tree.parent(&aside.name.0)?;
                rustix::fs::unlinkat(&*dir, name, rustix::fs::AtFlags::empty())
            })
        };
        let failed = |error| {
            lifeboat_store::Error::io("remove", &story.header.terms.places[aside.place].live(&aside.name.0), error)
        };
        remove().map_err(failed)?;
    }
    Ok(())
}

fn move_it(sides: &Sides, aside: &Aside, to_name: bool) -> rustix::io::Result<()> {
    let (live, kept) = (sides.live(aside.place), sides.staged(aside.place, aside.kept.side).ok_or(Errno::NOENT)?);
    let (from, from_path, to, to_path) = if to_name {
        (kept, &aside.kept.path.0, live, &aside.name.0)
    } else {
        (live, &aside.name.0, kept, &aside.kept.path.0)
    };
    if from.stat(from_path)?.is_none_or(|stat| stat.st_ino != aside.inode) {
        return Err(Errno::NOENT);
    }
    keep_time(sides, aside, || {
        let ((dir, name), (to_dir, to_name)) = (from.parent(from_path)?, to.parent(to_path)?);
        beneath::move_new(&dir, name, &to_dir, to_name)
    })
}

/// The directory of the database shows no trace of what is named in it.
fn keep_time(sides: &Sides, aside: &Aside, act: impl FnOnce() -> rustix::io::Result<()>) -> rustix::io::Result<()> {
    let dir = sides.live(aside.place).dir(split(&aside.name.0).0)?;
    let time = mtime(&rustix::fs::fstat(&*dir)?);
    act()?;
    // An ordinary user may not set the times of another's directory.
    set_mtime(&dir, time).unwrap_or(());
    Ok(())
}
