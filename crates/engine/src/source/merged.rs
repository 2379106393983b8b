//! Entries of several sources in one order: whichever comes first by path is
//! handed out first. Two sources that hold the same path end it.

use std::collections::{BTreeSet, VecDeque};

use lifeboat_format::capture::{Entries, Item};
use lifeboat_format::monitor::{Monitor, Problem, ProblemClass};
use lifeboat_format::path::EntryPath;

use super::files::{LeftOut, Tree};
use super::matcher::Matcher;

/// How many names one source may have at a place that it shares.
const NAMES_MAX: usize = 10_000;

/// What entries come from.
pub(crate) enum Part<'a> {
    /// Files of one or several sources, whose places do not overlap.
    Tree(Box<Tree<'a>>),
    /// Databases, which are copied already.
    Ready(VecDeque<Box<dyn Item>>),
}

impl Part<'_> {
    fn next(&mut self) -> Option<Box<dyn Item>> {
        match self {
            Self::Tree(tree) => tree.next(),
            Self::Ready(ready) => ready.pop_front(),
        }
    }
}

/// A place that several sources share, and the names there of one of them.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The place; empty: the top.
    pub(crate) at: Vec<u8>,
    /// The names, as they were handed out.
    pub(crate) names: BTreeSet<Vec<u8>>,
}

/// Files of which at least one has to be in the snapshot.
pub(crate) struct Needed {
    /// As it is configured: `SOURCE/PATTERN`.
    pub(crate) text: String,
    pub(crate) source: String,
    /// The place of that source; empty: the top.
    pub(crate) place: Vec<u8>,
    /// Of paths below that place.
    pub(crate) matcher: Matcher,
}

struct Source<'a> {
    name: String,
    part: Part<'a>,
    next: Option<Box<dyn Item>>,
    shared: Option<Shared>,
}

/// The entries of all parts.
#[derive(Default)]
pub(crate) struct Merged<'a> {
    sources: Vec<Source<'a>>,
    is_begun: bool,
    /// Why it ended early.
    pub(crate) collision: Option<String>,
    /// What was not handed out yet of what is needed.
    pub(crate) needed: Vec<Needed>,
}

impl<'a> Merged<'a> {
    /// Adds a part. `shared` is the place of its source, where others have the same.
    pub(crate) fn add(&mut self, name: &str, part: Part<'a>, shared: Option<Vec<u8>>) {
        let shared = shared.map(|at| Shared { at, names: BTreeSet::new() });
        self.sources.push(Source { name: name.to_owned(), part, next: None, shared });
    }

    /// What was left out of all trees.
    pub(crate) fn left_out(&self) -> LeftOut {
        let mut left_out = LeftOut::default();
        for source in &self.sources {
            if let Part::Tree(tree) = &source.part {
                left_out += tree.left_out;
            }
        }
        left_out
    }

    /// Tells what the items that were opened noted.
    pub(crate) fn tell_notes(&self) {
        for source in &self.sources {
            if let Part::Tree(tree) = &source.part {
                tree.tell_notes();
            }
        }
    }

    /// Tells what is needed and was never handed out.
    pub(crate) fn tell_missing(&self, monitor: &dyn Monitor) {
        for needed in &self.needed {
            let message = "there is no such file, and `required` in lifeboat.yaml names it";
            monitor.problem(Problem::new(ProblemClass::Missing, needed.text.as_bytes(), message));
        }
    }

    /// `item`, of the source with this number, is in the snapshot.
    fn see(&mut self, number: usize, item: &dyn Item) {
        if self.needed.is_empty() || !item.is_file() {
            return;
        }
        let (path, source) = (item.path().as_bytes(), &self.sources[number]);
        self.needed.retain(|needed| {
            let is_other = source.shared.is_some() && source.name != needed.source;
            let inner = if needed.place.is_empty() {
                Some(path)
            } else {
                path.strip_prefix(needed.place.as_slice()).and_then(|rest| rest.strip_prefix(b"/"))
            };
            is_other || !inner.is_some_and(|inner| needed.matcher.includes_or_a_parent(inner, false))
        });
    }

    /// The names of the source `name` at the place that it shares.
    pub(crate) fn names(&self, name: &str) -> Option<&BTreeSet<Vec<u8>>> {
        let source = self.sources.iter().find(|source| source.name == name)?;
        source.shared.as_ref().map(|shared| &shared.names)
    }

    fn collide(&mut self, a: usize, b: usize, path: &EntryPath) {
        let (a, b) = (&self.sources[a].name, &self.sources[b].name);
        self.collision = Some(format!("the sources {a} and {b} both hold {path}"));
    }

    /// The number of the source whose entry is next.
    fn first(&mut self) -> Option<usize> {
        let mut first: Option<usize> = None;
        for number in 0..self.sources.len() {
            let Some(item) = &self.sources[number].next else { continue };
            let path = item.path().clone();
            let Some(best) = first else {
                first = Some(number);
                continue;
            };
            let best_path = self.sources[best].next.as_ref().map(|item| item.path().clone());
            match best_path.map(|best| path.cmp(&best)) {
                Some(std::cmp::Ordering::Less) => first = Some(number),
                Some(std::cmp::Ordering::Equal) => {
                    self.collide(best, number, &path);
                    return None;
                }
                _ => {}
            }
        }
        first
    }

    fn note_name(&mut self, number: usize, path: &EntryPath) {
        let source = &mut self.sources[number];
        let Some(shared) = &mut source.shared else { return };
        let inner = if shared.at.is_empty() {
            path.as_bytes()
        } else {
            path.as_bytes().get(shared.at.len() + 1..).unwrap_or_default()
        };
        let first = inner.split(|byte| *byte == b'/').next().unwrap_or_default();
        if !shared.names.contains(first) {
            shared.names.insert(first.to_vec());
        }
        if shared.names.len() > NAMES_MAX {
            let name = &source.name;
            self.collision =
                Some(format!("the source {name} has more than {NAMES_MAX} names at a place that it shares"));
        }
    }
}

impl Entries for Merged<'_> {
    fn next(&mut self) -> Option<Box<dyn Item>> {
        if let ([only], true) = (self.sources.as_mut_slice(), !self.is_begun)
            && only.shared.is_none()
        {
            let item = only.part.next()?;
            self.see(0, &*item);
            return Some(item);
        }
        if !self.is_begun {
            self.is_begun = true;
            self.sources.iter_mut().for_each(|source| source.next = source.part.next());
        }
        if self.collision.is_some() {
            return None;
        }
        let number = self.first()?;
        let item = self.sources[number].next.take()?;
        self.sources[number].next = self.sources[number].part.next();
        self.note_name(number, item.path());
        self.see(number, &*item);
        Some(item)
    }

    fn lost(&mut self, path: &EntryPath) {
        for source in &mut self.sources {
            if let Part::Tree(tree) = &mut source.part {
                tree.lost(path);
            }
        }
    }
}
