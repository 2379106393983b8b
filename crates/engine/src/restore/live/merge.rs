//! Databases that are not replaced as a whole: the staged one of the snapshot is
//! set apart, and when the services have stopped, a copy of the live one takes in
//! its rows and is staged instead. From there on it is swapped, kept and put back
//! like any other.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use lifeboat_format::model::FileTime;
use lifeboat_store as store;
use rustix::fs::Stat;
use serde::Serialize;

use super::step::{SWAP, Sides};
use super::terms::{Root, Terms, absolute};
use super::tree::{is_file, mtime};
use crate::restore::node::{self, Losses, NotSet};
use crate::sqlite::{self, LOGS, Merged, MergedTable};
use crate::{Cancel, Error, ErrorKind, Result};

/// The folders in a stage in which this works; no live path begins so.
const FOLDER: &str = ".lifeboat-rows-";

/// What became, or would become, of the rows of a database.
#[derive(Clone, Debug, Serialize)]
pub struct MergedDatabase {
    /// Its source.
    pub source: String,
    /// Where it is live.
    pub path: String,
    /// Its tables.
    pub tables: Vec<MergedTable>,
    /// Virtual tables whose index is made anew.
    pub rebuilt: Vec<String>,
    /// Virtual tables that stay as they are.
    pub left_alone: Vec<String>,
}

impl MergedDatabase {
    pub(super) fn of(root: &Root, merged: Merged) -> Self {
        let Merged { tables, rebuilt, left_alone, .. } = merged;
        Self { source: root.source.to_string(), path: root.path.to_string(), tables, rebuilt, left_alone }
    }

    /// Whether it differs afterwards.
    #[must_use]
    pub fn changes(&self) -> bool {
        self.tables.iter().any(|table| table.added > 0 || table.replaced.is_some())
    }

    /// One line, for a question.
    #[must_use]
    pub fn line(&self) -> String {
        let rows = |count: u64| if count == 1 { "1 row".to_owned() } else { format!("{count} rows") };
        let added = self.tables.iter().filter(|table| table.replaced.is_none()).map(|table| table.added).sum::<u64>();
        let replaced = self.tables.iter().filter_map(|table| {
            let was = table.replaced?;
            Some(format!("replace {} of table {} by {}", rows(was), table.table, table.added))
        });
        let added = (added > 0).then(|| format!("add {}", rows(added)));
        let all: Vec<String> = replaced.chain(added).collect();
        format!("{} in {}", all.join(", "), self.path)
    }
}

/// A database that is merged, in the stage.
struct Staged<'a> {
    root: &'a Root,
    place: usize,
    path: Vec<u8>,
    /// Where it is swapped from.
    file: PathBuf,
    folder: PathBuf,
}

impl Staged<'_> {
    fn snapshot(&self) -> PathBuf {
        self.folder.join("snapshot.db")
    }

    fn copy(&self) -> PathBuf {
        self.folder.join("live.db")
    }

    /// What is live in its place.
    fn live(&self, sides: &Sides) -> Result<Option<Stat>> {
        let look = |error| failed("look at", self.root.path.as_path(), error);
        sides.live(self.place).stat(&self.path).map_err(look)
    }

    fn set_apart(&self) -> Result<()> {
        match std::fs::DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(failed("create", &self.folder, error));
            }
            _ => {}
        }
        rename(&self.file, &self.snapshot())
    }
}

fn all(terms: &Terms) -> impl Iterator<Item = Staged<'_>> {
    let roots = terms.roots.iter().enumerate().filter(|(_, root)| root.rows.is_some());
    roots.filter_map(|(number, root)| {
        let (place, path) = root.place(b"", &terms.places)?;
        let swap = terms.places[place].stage.as_path().join(SWAP);
        let file = absolute(&swap, &path);
        Some(Staged { root, place, path, file, folder: swap.join(format!("{FOLDER}{number}")) })
    })
}

fn failed(doing: &str, path: &Path, error: impl Into<std::io::Error>) -> Error {
    store::Error::io(doing, path, error).into()
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    rustix::fs::rename(from, to).map_err(|error| failed("move", from, error))
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed("remove", path, error)),
        _ => Ok(()),
    }
}

/// Puts what is staged of such databases aside, so that it can be merged as often as it takes.
pub(super) fn set_apart(terms: &Terms) -> Result<()> {
    let sides = Sides::open(terms)?;
    for staged in all(terms) {
        // Where nothing is live, the snapshot's becomes it, and is staged where it is swapped from.
        if staged.file.exists() && staged.live(&sides)?.is_some() {
            staged.set_apart()?;
        }
    }
    Ok(())
}

/// Merges all of them into copies of what is live now, which nobody uses any more.
pub(super) fn merge(terms: &Terms, cancel: &Cancel) -> Result<Vec<MergedDatabase>> {
    let mut all_merged = Vec::new();
    let sides = Sides::open(terms)?;
    let mut has_staged = false;
    for staged in all(terms) {
        let live = staged.live(&sides)?;
        // A database may have appeared since, or a power cut may have undone the move.
        if !staged.snapshot().exists() && staged.file.exists() && live.is_some() {
            staged.set_apart()?;
        }
        if !staged.snapshot().exists() {
            continue;
        }
        // An earlier attempt may have come this far.
        for path in LOGS.iter().map(|end| with_end(&staged.copy(), end)).chain([staged.copy(), staged.file.clone()]) {
            remove(&path)?;
        }
        match live {
            None => rename(&staged.snapshot(), &staged.file)?,
            Some(stat) if is_file(&stat) => all_merged.extend(one(&staged, &sides, cancel)?),
            // Whatever it is, it stays.
            Some(_) => {}
        }
        has_staged |= staged.file.exists();
    }
    if has_staged {
        sides.sync()?;
    }
    Ok(all_merged)
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn one(staged: &Staged<'_>, sides: &Sides, cancel: &Cancel) -> Result<Option<MergedDatabase>> {
    let Some(wanted) = &staged.root.rows else { return Ok(None) };
    let (live, copy) = (staged.root.path.as_path(), staged.copy());
    sqlite::copy_live(live, &copy, false, cancel)?;
    let merged = sqlite::merge(&copy, &staged.snapshot(), wanted, cancel)?;
    if merged.changes() {
        take_attributes(staged, sides, &copy)?;
        rename(&copy, &staged.file)?;
    } else {
        remove(&copy)?;
    }
    Ok(Some(MergedDatabase::of(staged.root, merged)))
}

/// The copy is what the live database is: whose, and who may do what with it.
fn take_attributes(staged: &Staged<'_>, sides: &Sides, copy: &Path) -> Result<()> {
    let io = |error| failed("set the attributes of", copy, error);
    let tree = sides.live(staged.place);
    let entry = || {
        let Some(stat) = tree.stat(&staged.path)? else { return Ok(None) };
        tree.entry(&staged.path, &stat)
    };
    let Some(mut entry) = entry().map_err(io)? else { return Ok(()) };
    let file = File::open(copy).map_err(|error| failed("open", copy, error))?;
    let written: FileTime = mtime(&rustix::fs::fstat(&file).map_err(io)?);
    (entry.mtime, entry.sparse) = (written, false);
    let not_set = NotSet::default();
    let losses = Losses { monitor: &lifeboat_format::monitor::Silent, not_set: &not_set };
    node::finish(file.as_fd(), &entry, losses).map_err(io)?;
    if not_set.owners.load(std::sync::atomic::Ordering::Relaxed) > 0 {
        let what = format!("the merged database cannot be given the owner of {}", staged.root.path);
        return Err(Error::new(ErrorKind::Denied, what).next("run it as root, or as the owner of the database"));
    }
    Ok(())
}
