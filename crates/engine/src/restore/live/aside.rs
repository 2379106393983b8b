//! What a restore replaced of a database gets a name beside it when the
//! restore stands: `x.db.bad-<epoch>`, with its logs by the names by which
//! SQLite finds them. The stage holds it until then, and again for an undo.
//! Whether it is in the one place or the other, the inode says.

use rustix::fs::Stat;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::attrs::set_mtime;
use super::build::make_dirs;
use super::database::{base_of_log, log_of, sources};
use super::journal::{Journal, Phase, Story};
use super::name::{Name, join, split};
use super::step::{Side, Sides, Spot, Step};
use super::tree::{is_file, mtime};
use crate::sqlite::LOGS;
use crate::{Error, ErrorKind, Result, beneath, ours};

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

impl Aside {
    pub(super) fn is_log(&self) -> bool {
        base_of_log(&self.name.0).is_some()
    }
}

/// What the steps of a restore that stands have replaced of databases, with
/// the names it is given.
fn find(story: &Story, sides: &Sides, epoch: i64) -> Vec<Aside> {
    let mut found = Vec::new();
    for (place, database) in sources(&story.header.terms) {
        let (dir, name) = split(&database);
        // A name that is taken belongs to another restore; a log there would be taken for one of this database.
        let is_free = |epoch: &i64| {
            let path = join(dir, &ours::replaced_name(name, *epoch));
            let mut ends = [""].into_iter().chain(LOGS);
            ends.all(|end| sides.live(place).stat(&log_of(&path, end)).is_ok_and(|stat| stat.is_none()))
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

/// Whether all that an undo needs is where it was put; a person may have moved it.
pub(super) fn check(story: &Story) -> Result<()> {
    let sides = Sides::open(&story.header.terms)?;
    for aside in story.aside.iter().filter(|aside| !aside.is_log()) {
        let kept = sides.staged(aside.place, aside.kept.side).map(|tree| tree.stat(&aside.kept.path.0));
        let named = sides.live(aside.place).stat(&aside.name.0);
        let is_it = |stat: Option<Stat>| stat.is_some_and(|stat| stat.st_ino == aside.inode);
        if !is_it(named.unwrap_or(None)) && !is_it(kept.and_then(std::result::Result::ok).flatten()) {
            let path = story.header.terms.places[aside.place].live(&aside.name.0);
            return Err(Error::new(ErrorKind::Usage, format!("{} is not what was set aside there", path.display()))
                .state("nothing was changed")
                .next("move the database that was replaced back to that name, with its logs; or remove what is kept by `lifeboat restore --discard`"));
        }
    }
    Ok(())
}

/// Brings what has a name beside the database back into the stage, to be put
/// back from there. Whoever has opened it since may have left it with other logs.
pub(super) fn take_back(journal: &mut Journal) -> Result<()> {
    let sides = Sides::open(&journal.story.header.terms)?;
    move_back(journal, &sides)
}

fn move_back(journal: &mut Journal, sides: &Sides) -> Result<()> {
    let logs = find_logs(&journal.story, sides)?;
    if !logs.is_empty() {
        let mut aside = journal.story.aside.clone();
        aside.retain(|known| logs.iter().all(|log| log.name != known.name));
        aside.extend(logs);
        journal.set_aside(aside)?;
    }
    let story = &journal.story;
    for aside in &story.aside {
        let failed = |error| {
            lifeboat_store::Error::io("move", &story.header.terms.places[aside.place].live(&aside.name.0), error)
        };
        match move_it(sides, aside, false) {
            // It stands in the stage already, or nowhere.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(failed(error).into()),
        }
    }
    Ok(())
}

/// Logs beside databases that were set aside that are not those which were set aside with them.
fn find_logs(story: &Story, sides: &Sides) -> Result<Vec<Aside>> {
    let mut found = Vec::new();
    for step in &story.steps {
        let Step::Vacate { place, live, to, database, .. } = step else { continue };
        let end = &live.0[database.0.len()..];
        for base in story.aside.iter().filter(|aside| aside.place == *place && !aside.is_log()) {
            let (name, dir) = (Name([&base.name.0, end].concat()), split(&database.0).0);
            let is_of = split(&base.name.0).0 == dir && is_named_after(&base.name.0, &database.0);
            let failed =
                |error| lifeboat_store::Error::io("look at", &story.header.terms.places[*place].live(&name.0), error);
            let tree = sides.live(*place);
            let is_there = tree.stat(&base.name.0).map_err(failed)?.is_some_and(|stat| stat.st_ino == base.inode);
            let is_of = is_of && is_there;
            let Some(stat) = tree.stat(&name.0).map_err(failed)?.filter(|stat| is_of && is_file(stat)) else {
                continue;
            };
            if story.aside.iter().any(|known| known.name == name && known.inode == stat.st_ino) {
                continue;
            }
            let staged = sides.staged(*place, to.side);
            staged.map_or(Ok(()), |tree| make_dirs(tree, split(&to.path.0).0)).map_err(failed)?;
            found.push(Aside { place: *place, kept: to.clone(), name, inode: stat.st_ino });
        }
    }
    Ok(found)
}

/// Whether `name` is one that was given to the database at `database`.
fn is_named_after(name: &[u8], database: &[u8]) -> bool {
    name.strip_prefix(database).is_some_and(|rest| rest.starts_with(ours::REPLACED))
}

/// Removes what has a name beside the database: it goes into the stage, which
/// is removed with all in it. What a person has moved is theirs.
pub(super) fn put_away(journal: &mut Journal) -> Result<()> {
    let terms = &journal.story.header.terms;
    let is_gone = |aside: &Aside| !terms.places[aside.place].base.as_path().is_dir();
    if journal.story.aside.is_empty() || journal.story.aside.iter().any(is_gone) {
        return Ok(());
    }
    // Another restore may have put another directory in the place of one, with all that was set aside in it.
    let sides = Sides::open_as_they_are(terms)?;
    move_back(journal, &sides)
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
