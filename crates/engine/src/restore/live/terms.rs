//! What was agreed for a restore in place: which roots, from where to where,
//! in which mode. It stands in the journal, so that a restore can be finished
//! after a crash by what was agreed and not by what is configured then.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use lifeboat_format::model::FileTime;
use lifeboat_format::path::{EntryPath, shown};
use serde::{Deserialize, Serialize};

use super::name::{Name, below, join};
use crate::pg::inplace::InPlace;
use crate::pg::swap::Swap;
use crate::report::Selection;
use crate::restore::fill::Layout;
use crate::source::matcher::Matcher;
use crate::sqlite::Wanted;
use crate::{Error, ErrorKind, Result};

/// What a restore in place does with what exists already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Entries of the snapshot win; everything else stays.
    #[default]
    Overwrite,
    /// The roots become exactly the snapshot; what the backup left out stays.
    Full,
    /// Only what is missing is added.
    Merge,
}

/// A part of one file system: where live things stand in it, and the folder
/// beside them for staged and replaced ones.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Place {
    /// The directory that all live paths are relative to.
    pub(super) base: Name,
    /// The folder for what is staged and what is replaced.
    pub(super) stage: Name,
    /// The inode of `base`, to know it again.
    pub(super) inode: u64,
    /// When `base` was last changed before the restore.
    pub(super) mtime: (i64, u32),
    /// Whether whole directories can be moved here.
    pub(super) moves_dirs: bool,
}

impl Place {
    pub(super) fn time(&self) -> FileTime {
        FileTime { seconds: self.mtime.0, nanos: self.mtime.1 }
    }

    /// The path of `live`, relative to `base`, for messages and commands.
    pub(super) fn live(&self, live: &[u8]) -> PathBuf {
        absolute(self.base.as_path(), live)
    }
}

pub(super) fn absolute(dir: &Path, inner: &[u8]) -> PathBuf {
    if inner.is_empty() { dir.to_owned() } else { dir.join(std::ffi::OsStr::from_bytes(inner)) }
}

/// What kind of source a root is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RootKind {
    #[default]
    Files,
    Sqlite,
    /// Dumps of databases of a server, which are unpacked and stand nowhere.
    Postgres,
}

/// One source: where it stands, and what of it is restored.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Root {
    /// Its name in the snapshot.
    pub(super) source: Name,
    #[serde(default)]
    pub(super) kind: RootKind,
    /// The entry path of the root; empty: what is in it stands at the top.
    /// `None`: `files/<source>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) at: Option<Name>,
    /// The names at `at` that are this source's, where others share that place; none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) names: Vec<Name>,
    /// The entry paths of other sources that lie below `at`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) others: Vec<Name>,
    /// Where it stands, without symlinks.
    pub(super) path: Name,
    /// The server whose databases it is, for people; its dumps are unpacked at `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) server: Option<String>,
    /// Patterns of what is restored, relative to the root; none: all of it.
    pub(super) only: Vec<String>,
    /// What is wanted of the rows of a database that is not replaced as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rows: Option<Wanted>,
    /// What the backup took and left out, by its own patterns and by those configured now.
    pub(super) include: Vec<String>,
    pub(super) exclude: Vec<Vec<String>>,
    /// What the backup could not read or skipped, as it is shown.
    pub(super) lost: Vec<String>,
    /// The place of the root itself; `None` where the root is the border of one.
    pub(super) outer: Option<usize>,
    /// Directories where another file system begins (empty: the root), and their places.
    pub(super) borders: Vec<(Name, usize)>,
}

/// A database that is restored over itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Over {
    pub(super) database: InPlace,
    /// The dump that it becomes.
    pub(super) dump: Name,
    /// The dump of what it was, once that is made.
    pub(super) kept: Name,
}

/// All of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Terms {
    pub(super) mode: Mode,
    pub(super) places: Vec<Place>,
    pub(super) roots: Vec<Root>,
    /// Entries that are staged though they are not restored themselves:
    /// directories above what is, and files that it is another name of.
    pub(super) needed: HashSet<Name>,
    /// The databases that are exchanged on servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) servers: Vec<Swap>,
    /// The databases that are restored over themselves, with where their dumps are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) in_place: Vec<Over>,
    /// The archive's device and inode: it may lie in a root, and stays.
    pub(super) archive: (u64, u64),
}

impl Root {
    /// The place of the entry at `inner`, relative to the root, and its path there.
    pub(super) fn place(&self, inner: &[u8], places: &[Place]) -> Option<(usize, Vec<u8>)> {
        let borders = self.borders.iter().filter_map(|(border, place)| Some((below(inner, &border.0)?, *place)));
        if let Some((rest, place)) = borders.min_by_key(|(rest, _)| rest.len()) {
            return Some((place, rest.to_vec()));
        }
        let place = self.outer?;
        let base = &places[place].base.0;
        let root = if base == b"/" { self.path.0.strip_prefix(b"/") } else { below(&self.path.0, base) };
        Some((place, join(root?, inner)))
    }

    /// Where it is, for people.
    pub(super) fn shown(&self) -> String {
        self.server.clone().unwrap_or_else(|| self.path.to_string())
    }

    /// Where the entry at `inner` stands.
    pub(super) fn live(&self, inner: &[u8]) -> PathBuf {
        absolute(self.path.as_path(), inner)
    }

    /// The entry path of the root itself.
    fn at(&self) -> Vec<u8> {
        self.at.as_ref().map_or_else(|| join(b"files", &self.source.0), |at| at.0.clone())
    }

    /// The entry path of `inner`.
    pub(super) fn entry_path(&self, inner: &[u8]) -> Vec<u8> {
        join(&self.at(), inner)
    }

    /// Whether the snapshot has an entry for the root itself.
    pub(super) fn has_own_entry(&self) -> bool {
        self.names.is_empty() && self.at.as_ref().is_none_or(|at| !at.0.is_empty())
    }

    /// The path of an entry relative to the root, if it is one of this source.
    fn inner_of<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        let inner = below(path, &self.at())?;
        let first = inner.split(|byte| *byte == b'/').next().unwrap_or_default();
        let is_meant = self.names.is_empty() || self.names.iter().any(|name| name.0 == first);
        let is_others = self.others.iter().any(|other| below(path, &other.0).is_some());
        (is_meant && !is_others).then_some(inner)
    }

    /// Whether another file system begins at `inner`.
    pub(super) fn is_border(&self, inner: &[u8]) -> bool {
        self.borders.iter().any(|(border, _)| border.0 == inner)
    }
}

impl Terms {
    /// The root that the entry at `path` belongs to: its number, and the path in it.
    pub(super) fn root_of<'t, 'p>(&'t self, path: &'p EntryPath) -> Option<(usize, &'t Root, &'p [u8])> {
        let numbered = self.roots.iter().enumerate();
        let mut of = numbered.filter_map(|(number, root)| Some((number, root, root.inner_of(path.as_bytes())?)));
        of.next()
    }

    /// Where each SQLite database is live that is restored.
    pub(super) fn databases(&self) -> impl Iterator<Item = (String, PathBuf)> + '_ {
        let databases = self.roots.iter().filter(|root| root.kind == RootKind::Sqlite);
        databases.map(|root| (root.source.to_string(), root.path.as_path().to_owned()))
    }
}

/// The patterns of all roots, ready for use.
pub(super) struct Rules {
    roots: Vec<RootRules>,
}

struct RootRules {
    only: Option<Matcher>,
    include: Matcher,
    takes_all: bool,
    exclude: Vec<Matcher>,
    lost: Vec<String>,
    has_own_entry: bool,
}

impl Rules {
    pub(super) fn of(terms: &Terms) -> Result<Self> {
        let include =
            |patterns: &[String]| Matcher::new(&Selection { include: patterns.to_vec(), ..Selection::default() });
        let exclude =
            |patterns: &Vec<String>| Matcher::new(&Selection { exclude: patterns.clone(), ..Selection::default() });
        let roots = terms.roots.iter().map(|root| {
            Ok(RootRules {
                only: if root.only.is_empty() { None } else { Some(include(&root.only)?) },
                include: include(&root.include)?,
                takes_all: root.include.is_empty(),
                exclude: root.exclude.iter().map(exclude).collect::<Result<_>>()?,
                lost: root.lost.clone(),
                has_own_entry: root.has_own_entry(),
            })
        });
        Ok(Self { roots: roots.collect::<Result<_>>()? })
    }

    /// Whether the entry at `inner` of root number `root` is restored.
    pub(super) fn selects(&self, root: usize, inner: &[u8], is_dir: bool) -> bool {
        (!inner.is_empty() || self.roots[root].has_own_entry) && self.selects_below(root, inner, is_dir)
    }

    fn selects_below(&self, root: usize, inner: &[u8], is_dir: bool) -> bool {
        self.roots[root].only.as_ref().is_none_or(|only| only.includes_or_a_parent(inner, is_dir))
    }

    /// Whether all of root number `root` is restored.
    pub(super) fn selects_all(&self, root: usize) -> bool {
        self.roots[root].only.is_none()
    }

    /// Whether the backup left out the entry at `inner` by a pattern.
    pub(super) fn is_excluded(&self, root: usize, inner: &[u8], is_dir: bool) -> bool {
        let rules = &self.roots[root];
        rules.exclude.iter().any(|matcher| matcher.excludes(inner, is_dir))
    }

    /// Whether the backup took the entry at `inner`, as far as patterns say.
    pub(super) fn is_included(&self, root: usize, inner: &[u8], is_dir: bool) -> bool {
        let rules = &self.roots[root];
        rules.takes_all || rules.include.includes_or_a_parent(inner, is_dir)
    }

    /// Whether the backup could not read the entry at `path` (its whole path in
    /// the snapshot), or a directory that it stands in.
    pub(super) fn is_lost(&self, root: usize, path: &[u8]) -> bool {
        let lost = &self.roots[root].lost;
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        !lost.is_empty() && ends.chain([path.len()]).any(|end| lost.contains(&shown(&path[..end])))
    }
}

/// Where the entries of a snapshot are staged.
pub(super) struct Routes<'a> {
    pub(super) terms: &'a Terms,
    pub(super) rules: &'a Rules,
}

impl Layout for Routes<'_> {
    fn spot(&self, path: &EntryPath) -> Option<(usize, Vec<u8>)> {
        let (number, root, inner) = self.terms.root_of(path)?;
        // Whether it is a directory matters to patterns that end with a slash only, and those select what is below.
        let is_wanted =
            self.rules.selects(number, inner, true) || self.terms.needed.contains(&Name(path.as_bytes().to_vec()));
        if is_wanted { root.place(inner, &self.terms.places) } else { None }
    }
}

/// `--only SOURCE[/GLOB]`, parted.
pub(super) fn parse_only(only: &str) -> Result<(&str, Option<String>)> {
    match only.split_once('/') {
        None if only.is_empty() => Err(wrong_only(only)),
        None => Ok((only, None)),
        Some((source, glob)) if !source.is_empty() && !glob.is_empty() => Ok((source, Some(format!("/{glob}")))),
        Some((source, "")) if !source.is_empty() => Ok((source, None)),
        Some(_) => Err(wrong_only(only)),
    }
}

fn wrong_only(only: &str) -> Error {
    Error::new(ErrorKind::Usage, format!("--only \"{only}\" names no source"))
        .state("nothing was begun")
        .next("give the name of a source, or SOURCE/GLOB for a part of it; `lifeboat backup list` shows the sources")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(base: &str) -> Place {
        Place { base: Name(base.into()), stage: Name::default(), inode: 1, mtime: (0, 0), moves_dirs: true }
    }

    #[test]
    fn an_entry_is_staged_on_the_file_system_where_it_will_stand() {
        let places = [place("/srv"), place("/srv/app/data"), place("/srv/app/data/deep")];
        let borders = vec![(Name(b"data".to_vec()), 1), (Name(b"data/deep".to_vec()), 2)];
        let root = Root { path: Name(b"/srv/app".to_vec()), outer: Some(0), borders, ..Root::default() };
        let at = |inner: &str| {
            let (place, path) = root.place(inner.as_bytes(), &places).unwrap();
            (place, String::from_utf8(path).unwrap())
        };
        assert_eq!(at(""), (0, "app".to_owned()));
        assert_eq!(at("conf/x"), (0, "app/conf/x".to_owned()));
        assert_eq!(at("data2"), (0, "app/data2".to_owned()));
        assert_eq!(at("data"), (1, String::new()));
        assert_eq!(at("data/a/b"), (1, "a/b".to_owned()));
        assert_eq!(at("data/deep"), (2, String::new()));
        assert_eq!(at("data/deep/x"), (2, "x".to_owned()));
        let top = Root { path: Name(b"/app".to_vec()), outer: Some(0), ..Root::default() };
        assert_eq!(top.place(b"x", &[place("/")]), Some((0, b"app/x".to_vec())));
    }

    #[test]
    fn only_names_a_source_and_perhaps_a_part_of_it() {
        assert_eq!(parse_only("conf").unwrap(), ("conf", None));
        assert_eq!(parse_only("conf/").unwrap(), ("conf", None));
        assert_eq!(parse_only("conf/a/*.txt").unwrap(), ("conf", Some("/a/*.txt".to_owned())));
        for wrong in ["", "/", "/a"] {
            assert_eq!(parse_only(wrong).unwrap_err().kind(), ErrorKind::Usage, "{wrong:?}");
        }
    }
}
