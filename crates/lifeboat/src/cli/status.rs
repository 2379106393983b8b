//! `lifeboat status`: what waits, and what is kept. Changes nothing.

use lifeboat_engine::Result;
use lifeboat_engine::app::{Found, Kept, LeftPaused, Waiting};

use super::{Surface, exit_code, render};

/// Show interrupted restores, paused services, and what restores replaced and keep
///
/// Exit code 0 when nothing needs you, 1 when an interrupted restore or a service left paused waits.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args, surface: Surface<'_>) -> Result<u8> {
    let console = surface.console;
    let status = surface.app.status()?;
    let needs_you = status.waiting.iter().any(|waiting| !waiting.is_running)
        || status.paused.iter().any(|paused| !paused.is_running);
    let code = if needs_you { exit_code::FAILED } else { exit_code::DONE };
    if console.options.json {
        console.json("status", &status);
        return Ok(code);
    }
    status.waiting.iter().for_each(|waiting| console.line(waiting_line(waiting)));
    status.paused.iter().for_each(|paused| console.line(paused_line(paused)));
    if needs_you {
        console.line("Next: lifeboat recover");
    }
    for kept in &status.kept {
        let state = if kept.is_new_state { "taken back" } else { "replaced" };
        console.line(format_args!("{state}: {}", kept_line(kept)));
        kept.folders.iter().for_each(|folder| console.info(format_args!("  in {folder}")));
    }
    if status.waiting.is_empty() && status.paused.is_empty() && status.kept.is_empty() {
        console.info("Nothing waits, and nothing is kept.");
    }
    Ok(code)
}

/// What waits, on one line.
pub(super) fn waiting_line(waiting: &Waiting) -> String {
    if let Some(damage) = &waiting.damage {
        return format!("a journal cannot be read: {damage}");
    }
    let (id, roots) = (&waiting.id[..8.min(waiting.id.len())], waiting.roots.join(", "));
    if waiting.is_running {
        return format!("the restore {id} of {roots} is going on");
    }
    format!("an interrupted restore waits: {id} of {roots} ({}); run `lifeboat recover`", waiting.phase)
}

/// What is paused, on one line.
pub(super) fn paused_line(paused: &LeftPaused) -> String {
    if let Some(damage) = &paused.damage {
        return format!("a note of paused services cannot be read: {damage}");
    }
    let services = paused.services.join(", ");
    if paused.is_running {
        return format!("a backup pauses {services} just now");
    }
    format!("an interrupted backup left {services} paused; run `lifeboat recover`")
}

/// What is kept, on one line.
pub(super) fn kept_line(kept: &Kept) -> String {
    let id = &kept.id[..8.min(kept.id.len())];
    let (roots, entries, size) =
        (kept.roots.join(", "), render::count(kept.entries, "entry"), render::size(kept.bytes));
    let until = kept.until.map_or_else(|| "for ever".to_owned(), |until| format!("until {}", render::moment(until)));
    format!("{entries} of {roots} ({size}), kept {until}, restore {id}")
}

/// How a service is, in words.
pub(super) fn found(found: Found) -> &'static str {
    match found {
        Found::Running => "running",
        Found::Stopped => "not running",
        Found::Unknown => "nobody knows whether it runs",
    }
}
