//! Collects the problems of a run while it passes them on.

use std::sync::Mutex;

use lifeboat_format::monitor::{Monitor, Problem, ProblemClass};

use crate::report::{LISTED_MAX, Problems};

/// A monitor that remembers what went wrong.
pub(crate) struct Tally<'a> {
    inner: &'a dyn Monitor,
    /// And whether something is lost.
    seen: Mutex<(Problems, bool)>,
}

impl<'a> Tally<'a> {
    pub(crate) fn new(inner: &'a dyn Monitor) -> Self {
        Self { inner, seen: Mutex::default() }
    }

    /// Whether an entry could not be read at all, or is missing that has to be there.
    pub(crate) fn has_losses(&self) -> bool {
        self.seen.lock().expect("nothing panics while counting").1
    }

    /// What was seen so far.
    pub(crate) fn problems(&self) -> Problems {
        self.seen.lock().expect("nothing panics while counting").0.clone()
    }
}

impl Monitor for Tally<'_> {
    fn problem(&self, problem: Problem) {
        let mut seen = self.seen.lock().expect("nothing panics while counting");
        let (problems, has_losses) = &mut *seen;
        *problems.counts.entry(problem.class.word()).or_default() += 1;
        problems.is_incomplete |= !problem.class.is_note();
        *has_losses |= matches!(problem.class, ProblemClass::Unreadable | ProblemClass::Missing);
        if problems.listed.len() < LISTED_MAX {
            problems.listed.push(problem.clone());
        }
        drop(seen);
        self.inner.problem(problem);
    }

    fn advanced(&self, entries: u64, bytes: u64) {
        self.inner.advanced(entries, bytes);
    }

    fn wants_total(&self) -> bool {
        self.inner.wants_total()
    }

    fn expected(&self, entries: u64, bytes: u64) {
        self.inner.expected(entries, bytes);
    }
}
