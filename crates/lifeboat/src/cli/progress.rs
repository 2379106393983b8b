//! How far a run is, on standard error and only on a terminal: entries, bytes,
//! rate, and the time that is left where the total is known.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

const WITHOUT_TOTAL: &str = "{entries} entries  {binary_bytes}  {binary_bytes_per_sec}  {elapsed_precise}";
const WITH_TOTAL: &str = "{percent:>3}% {wide_bar} {entries} entries  \
    {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  ETA {eta_precise}";

pub(super) struct Progress {
    bar: ProgressBar,
    entries: Arc<AtomicU64>,
}

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
        let entries = Arc::clone(&self.entries);
        ProgressStyle::with_template(template)
            .expect("the templates are constant and right")
            .progress_chars("=> ")
            .with_key("entries", move |_: &ProgressState, to: &mut dyn std::fmt::Write| {
                if write!(to, "{}", entries.load(Ordering::Relaxed)).is_err() {
                    // Text in memory always takes it; the trait cannot know.
                }
            })
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
        self.bar.inc(bytes);
    }

    /// Does `work`, which prints, while the bar is out of the way.
    pub(super) fn beside(&self, work: impl FnOnce()) {
        self.bar.suspend(work);
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
