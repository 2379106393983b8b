//! The lines of a restore plan, as a person sees them.

use std::collections::BTreeMap;

use lifeboat_engine::app::{Action, EntryKind, LISTED_MAX, PlanLine};
use serde::Serialize;

use super::{Surface, render};

#[derive(Serialize)]
struct PlannedEntry {
    action: Action,
    path: String,
    r#type: EntryKind,
    size: u64,
}

/// A line of a plan for programs.
pub(super) fn plan_entry(line: PlanLine, surface: Surface<'_>) {
    let PlanLine { action, path, kind, size } = line;
    surface.console.json("plan_entry", &PlannedEntry { action, path: path.to_string(), r#type: kind, size });
}

/// `  new        1.2 KiB  path`, for what holds data; directories go without saying.
pub(super) fn plan_line(line: &PlanLine) -> Option<String> {
    let is_shown = matches!(line.kind, EntryKind::File | EntryKind::Symlink | EntryKind::Hardlink);
    let word = word(line.action);
    (is_shown && line.action != Action::Merge)
        .then(|| format!("  {word:<9}  {}  {}", render::size(line.size), line.path))
}

/// The lines of a plan that are shown without `-v`: all, where there are few;
/// else the first ones of what would be overwritten or deleted.
#[derive(Default)]
pub(super) struct PlanLines {
    lines: Vec<(Action, String)>,
    seen: usize,
    /// By what they do: those that always count, and the others.
    counts: BTreeMap<&'static str, usize>,
}

/// Whether a person has to see it, however much there is.
fn matters(action: Action) -> bool {
    matches!(action, Action::Overwrite | Action::Delete | Action::Conflict)
}

fn word(action: Action) -> &'static str {
    match action {
        Action::New => "new",
        Action::Overwrite => "overwrite",
        Action::Same => "same",
        Action::Delete => "delete",
        Action::Conflict => "conflict",
        Action::Merge => "merge",
    }
}

impl PlanLines {
    pub(super) fn is_long(&self) -> bool {
        self.seen > LISTED_MAX
    }

    pub(super) fn add(&mut self, line: &PlanLine) {
        let Some(text) = plan_line(line) else { return };
        let was_long = self.is_long();
        self.seen += 1;
        let count = self.counts.entry(word(line.action)).or_default();
        *count += 1;
        let is_early = *count <= LISTED_MAX;
        if self.is_long() && !was_long {
            self.lines.retain(|(action, _)| matters(*action));
        }
        if if matters(line.action) { is_early } else { !self.is_long() } {
            self.lines.push((line.action, text));
        }
    }

    pub(super) fn show(&self, surface: Surface<'_>) {
        self.lines.iter().for_each(|(_, line)| surface.console.info(line));
        for (word, action) in
            [("overwrite", Action::Overwrite), ("delete", Action::Delete), ("conflict", Action::Conflict)]
        {
            let count = self.counts.get(word).copied().unwrap_or(0);
            if matters(action) && count > LISTED_MAX {
                surface.console.info(format_args!("  and {} more to {word}", count - LISTED_MAX));
            }
        }
        if self.is_long() {
            let others = ["new", "same"].into_iter().filter_map(|word| Some((word, self.counts.get(word)?)));
            let others: Vec<String> = others.map(|(word, count)| format!("{count} {word}")).collect();
            if !others.is_empty() {
                surface.console.info(format_args!("  and {}; -v lists them", others.join(", ")));
            }
        }
    }
}
