//! Entries of several sources in one order: whichever comes first by path is
//! handed out first. Two sources that hold the same path end it.

use std::cmp::Ordering;
use std::collections::{BTreeSet, VecDeque};

use lifeboat_format::archive::MANIFEST_NAME;
use lifeboat_format::capture::{Entries, Item};
use lifeboat_format::monitor::{Monitor, Problem, ProblemClass};
use lifeboat_format::path::{EntryPath, shown};

use super::files::{LeftOut, Tree};
use super::matcher::Matcher;

/// How many names one source may have at a place that it shares.
const NAMES_MAX: usize = 10_000;

/// What entries come from.
pub(crate) enum Part<'a> {
    /// Files of one or several sources, whose places do not overlap.
    Tree(Box<Tree<'a>>),
    /// What is listed already: copies of databases, and dumps.
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
    /// Where it stands in the snapshot; empty: the top. Several, where the part is of several sources.
    places: Vec<Vec<u8>>,
    next: Option<Box<dyn Item>>,
    /// The names that are its own, where others stand at the same place.
    shared: Option<BTreeSet<String>>,
}

impl Source<'_> {
    /// What comes no later than anything of this source: the path of its next
    /// entry, or the place where it waits to be begun. `None`: it is over.
    fn bound(&self) -> Option<Option<&EntryPath>> {
        match (&self.next, &self.part) {
            (Some(item), _) => Some(Some(item.path())),
            (None, Part::Tree(tree)) => tree.waits_at(),
            (None, Part::Ready(_)) => None,
        }
    }

    fn waits(&self) -> bool {
        self.next.is_none() && self.bound().is_some()
    }
}

/// The entries of all parts.
#[derive(Default)]
pub(crate) struct Merged<'a> {
    sources: Vec<Source<'a>>,
    /// Why it ended early.
    pub(crate) collision: Option<String>,
    /// What was not handed out yet of what is needed.
    pub(crate) needed: Vec<Needed>,
}

impl<'a> Merged<'a> {
    /// Adds a part that stands at `places`, with others where it `is_shared`.
    pub(crate) fn add(&mut self, name: &str, part: Part<'a>, places: Vec<Vec<u8>>, is_shared: bool) {
        let shared = is_shared.then(BTreeSet::new);
        self.sources.push(Source { name: name.to_owned(), part, places, next: None, shared });
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

    /// The names of the source `name` at the place that it shares; none where it shares none.
    pub(crate) fn names(&self, name: &str) -> Vec<String> {
        let source = self.sources.iter().find(|source| source.name == name);
        let shared = source.and_then(|source| source.shared.as_ref());
        shared.map(|names| names.iter().cloned().collect()).unwrap_or_default()
    }

    /// The number of the source that comes first. Two with the same path collide.
    fn first(&mut self) -> Option<usize> {
        for source in self.sources.iter_mut().filter(|source| source.next.is_none()) {
            source.next = source.part.next();
        }
        let mut first: Option<usize> = None;
        for number in 0..self.sources.len() {
            let Some(bound) = self.sources[number].bound() else { continue };
            let order = first.map(|first| bound.cmp(&self.sources[first].bound().flatten()));
            match (order, first) {
                (Some(Ordering::Equal), Some(other)) if self.sources[other].waits() => {}
                (Some(Ordering::Equal), Some(other)) if !self.sources[number].waits() => {
                    self.collision = Some(self.both_hold(other, number, bound.map_or(b"", EntryPath::as_bytes)));
                }
                (Some(Ordering::Greater), _) => {}
                _ => first = Some(number),
            }
        }
        first
    }

    fn both_hold(&self, a: usize, b: usize, path: &[u8]) -> String {
        let (a, b) = (&self.sources[a].name, &self.sources[b].name);
        format!("the sources {a} and {b} both hold {}", shown(path))
    }

    /// The source beside `number` whose place `item` takes, or makes impossible.
    fn in_the_way(&self, number: usize, item: &dyn Item) -> Option<usize> {
        let path = item.path().as_bytes();
        let takes = |place: &[u8]| match place.strip_prefix(path) {
            Some([]) => true,
            Some([b'/', ..]) => !item.is_dir(),
            _ => false,
        };
        // The entries of a dumped source follow each other: nothing else lies between them.
        let lies_in = |place: &[u8]| path.strip_prefix(place).is_some_and(|rest| rest.starts_with(b"/"));
        let collides = |other: &Source<'_>| {
            let is_ready = matches!(other.part, Part::Ready(_));
            other.places.iter().any(|place| takes(place) || (is_ready && lies_in(place)))
        };
        (0..self.sources.len()).find(|other| *other != number && collides(&self.sources[*other]))
    }

    /// What must not stand in a snapshot, and the names at a place that sources share.
    fn look_at(&mut self, number: usize, item: &dyn Item) -> Result<(), String> {
        let path = item.path().as_bytes();
        let first = |path: &[u8]| path.split(|byte| *byte == b'/').next().unwrap_or_default().to_vec();
        let name = &self.sources[number].name;
        if first(path) == MANIFEST_NAME.as_bytes() {
            return Err(format!("the source {name} holds {MANIFEST_NAME}, where the manifest of the snapshot stands"));
        }
        if let Some(other) = self.in_the_way(number, item) {
            return Err(self.both_hold(number, other, path));
        }
        let Source { name, shared: Some(names), places, .. } = &mut self.sources[number] else { return Ok(()) };
        let at = places.first().map_or(0, Vec::len);
        let start = if at == 0 { 0 } else { at + 1 };
        let own = String::from_utf8(first(path.get(start..).unwrap_or_default())).map_err(|own| {
            let own = shown(own.as_bytes());
            format!("the source {name} has the name {own}, which is no text, at a place that it shares")
        })?;
        if !names.contains(&own) {
            names.insert(own);
        }
        if names.len() > NAMES_MAX {
            return Err(format!("the source {name} has more than {NAMES_MAX} names at a place that it shares"));
        }
        Ok(())
    }
}

impl Entries for Merged<'_> {
    fn next(&mut self) -> Option<Box<dyn Item>> {
        let number = self.first().filter(|number| self.collision.is_none() && !self.sources[*number].waits())?;
        let item = self.sources[number].next.take()?;
        self.collision = self.look_at(number, &*item).err();
        self.see(number, &*item);
        self.collision.is_none().then_some(item)
    }

    fn go_on(&mut self) -> bool {
        let Some(number) = self.first().filter(|_| self.collision.is_none()) else { return false };
        match &mut self.sources[number].part {
            Part::Tree(tree) => tree.go_on(),
            Part::Ready(_) => false,
        }
    }

    fn lost(&mut self, path: &EntryPath) {
        for source in &mut self.sources {
            if let Part::Tree(tree) = &mut source.part {
                tree.lost(path);
            }
        }
    }
}
