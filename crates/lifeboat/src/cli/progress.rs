//! How far a run is, on standard error and only on a terminal: entries, bytes,
//! rate, and the time that is left where the total is known.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{FormattedDuration, ProgressBar, ProgressState, ProgressStyle};

use super::render;

const WITHOUT_TOTAL: &str = "{entries}  {done}  {rate}  {elapsed_precise}";
const WITH_TOTAL: &str = "{percent:>3}% {wide_bar} {entries}  {done} of {total}  {rate}  {left}";

pub(super) struct Progress {
    bar: ProgressBar,
    entries: Arc<AtomicU64>,
}

/// What stands in the place of a key of the templates.
type Shown = fn(&ProgressState) -> String;

const KEYS: [(&str, Shown); 4] = [
    ("done", |state| render::size(state.pos())),
    ("total", |state| render::size(state.len().unwrap_or(0))),
    ("rate", |state| render::rate_of(state.per_sec())),
    ("left", |state| {
        // All content is in, and is now read back, synced, given its name.
        let is_done = state.len().is_some_and(|total| state.pos() >= total && total > 0);
        if is_done { "finishing".to_owned() } else { format!("ETA {}", FormattedDuration(state.eta())) }
    }),
];

impl Progress {
    pub(super) fn hidden() -> Self {
        Self { bar: ProgressBar::hidden(), entries: Arc::default() }
    }

    /// Shown only when standard error is a terminal.
    pub(super) fn on_terminal() -> Self {
        let progress = Self { bar: ProgressBar::no_length(), entries: Arc::default() };
        progress.bar.set_style(progress.style(WITHOUT_TOTAL));
        progress
    }

    fn style(&self, template: &str) -> ProgressStyle {
        let style = ProgressStyle::with_template(template).expect("the templates are constant and right");
        let entries = Arc::clone(&self.entries);
        let style = style.progress_chars("=> ").with_key("entries", move |_: &ProgressState, to: &mut dyn Write| {
            put(to, &render::count(entries.load(Ordering::Relaxed), "entry"));
        });
        KEYS.into_iter().fold(style, |style, (key, shown)| {
            style.with_key(key, move |state: &ProgressState, to: &mut dyn Write| put(to, &shown(state)))
        })
    }

    /// Counts from nothing again.
    pub(super) fn restart(&self) {
        self.entries.store(0, Ordering::Relaxed);
        if !self.bar.is_hidden() {
            self.bar.reset();
            self.bar.unset_length();
            self.bar.set_style(self.style(WITHOUT_TOTAL));
        }
    }

    pub(super) fn is_shown(&self) -> bool {
        !self.bar.is_hidden()
    }

    pub(super) fn expect(&self, _entries: u64, bytes: u64) {
        self.bar.set_length(bytes);
        self.bar.set_style(self.style(WITH_TOTAL));
    }

    pub(super) fn advance(&self, entries: u64, bytes: u64) {
        self.entries.fetch_add(entries, Ordering::Relaxed);
        let before = self.bar.position();
        self.bar.inc(bytes);
        let crosses = |total: u64| (before..before.saturating_add(bytes)).contains(&total.saturating_sub(1));
        if self.is_shown() && self.bar.length().is_some_and(crosses) {
            // Nothing may advance for a while now, and the bar draws only some of the steps.
            self.bar.force_draw();
        }
    }

    /// Does `work`, which prints, while the bar is out of the way.
    pub(super) fn beside(&self, work: impl FnOnce()) {
        self.bar.suspend(work);
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn put(to: &mut dyn Write, text: &str) {
    if to.write_str(text).is_err() {
        // Text in memory always takes more; the trait cannot know.
    }
}
