//! `lifeboat status`: how the apps do, what waits, and what is kept. Changes nothing.

use lifeboat_engine::Result;
use lifeboat_engine::app::{AppStatus, Found, Kept, LeftPaused, PlaceStatus, Waiting};

use super::{Surface, exit_code, render};

const EXAMPLES: &str = "\
Examples:
  lifeboat status
  lifeboat status web --json | jq '.apps[0].last_good.created'

Exit codes: 0 nothing needs you, 1 something does: an interrupted restore, a service left paused, no good
backup, a last backup that failed or was incomplete, a destination that is not there.";

/// Show how the apps do, what was interrupted, and what restores replaced and keep
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The app; none: all
    app: Option<String>,
}

pub(crate) fn run(args: &Args, surface: Surface<'_>) -> Result<u8> {
    let console = surface.console;
    let status = surface.app.status(args.app.as_deref(), &super::working_dir()?)?;
    let is_left = status.waiting.iter().any(|waiting| !waiting.is_running)
        || status.paused.iter().any(|paused| !paused.is_running);
    let needs_you = is_left || status.apps.iter().any(|app| !app.wrong.is_empty());
    let code = if needs_you { exit_code::FAILED } else { exit_code::DONE };
    if console.options.json {
        console.json("status", &status);
        return Ok(code);
    }
    status.apps.iter().for_each(|app| render_app(app, surface));
    status.waiting.iter().for_each(|waiting| console.line(waiting_line(waiting)));
    status.paused.iter().for_each(|paused| console.line(paused_line(paused)));
    if is_left {
        console.line("Next: lifeboat recover");
    }
    for kept in &status.kept {
        let state = if kept.is_new_state { "taken back" } else { "replaced" };
        console.line(format_args!("{state}: {}", kept_line(kept)));
        kept.aside.iter().chain(&kept.folders).for_each(|path| console.info(format_args!("  in {path}")));
        kept.databases.iter().for_each(|database| console.info(format_args!("  as {database}")));
    }
    if status.waiting.is_empty() && status.paused.is_empty() && status.kept.is_empty() {
        console.info("Nothing waits, and nothing is kept.");
    }
    Ok(code)
}

fn render_app(app: &AppStatus, surface: Surface<'_>) {
    let console = surface.console;
    console.info(format_args!("{}:", app.name));
    match &app.last_good {
        Some(last) => console.info(format_args!(
            "  last good backup: {} ({}, {}), {} ago",
            render::moment(last.created),
            render::size(last.size_bytes),
            render::short_id(last.id.as_deref()),
            render::age(last.created)
        )),
        None => console.info("  last good backup: none"),
    }
    let newer = app.last.as_ref().filter(|last| !last.is_good());
    if let Some(last) = newer {
        let outcome = render::outcome(last.outcome);
        console.info(format_args!("  the newest backup is {outcome}: {}", render::moment(last.created)));
    }
    if let Some(run) = &app.last_run {
        let how = match (run.outcome, run.is_complete) {
            (None, _) => "failed",
            (Some(_), true) => "complete",
            (Some(_), false) => "incomplete",
        };
        console.info(format_args!("  last run: {how}, {} ago", render::age(run.ended)));
    }
    let backups = render::count(app.snapshots, "backup");
    console.info(format_args!("  {backups}, {}", render::size(app.bytes)));
    app.places.iter().for_each(|place| render_place(place, surface));
    app.wrong.iter().for_each(|wrong| console.line(format_args!("  wrong: {wrong}")));
}

fn render_place(place: &PlaceStatus, surface: Surface<'_>) {
    let name = place.destination.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
    let (path, free) = (render::path(&place.path), render::free_space(place.free_bytes));
    let good = match place.last_good {
        Some(created) => format!("the last good one {} ago", render::age(created)),
        None => "no good one".to_owned(),
    };
    let here = render::count(place.snapshots, "backup");
    surface.console.info(format_args!("  in {name}{path}: {here}, {good}; free space: {free}"));
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
    let (roots, size) = (kept.roots.join(", "), render::size(kept.bytes));
    let until = kept.until.map_or_else(|| "for ever".to_owned(), |until| format!("until {}", render::moment(until)));
    let databases = kept.databases.len() as u64;
    let what = match (kept.entries, databases) {
        (entries, 0) => format!("{} of {roots} ({size})", render::count(entries, "entry")),
        (0, databases) => format!("{} of {roots}", render::count(databases, "database")),
        (entries, databases) => {
            let (entries, databases) = (render::count(entries, "entry"), render::count(databases, "database"));
            format!("{entries} ({size}) and {databases} of {roots}")
        }
    };
    format!("{what}, kept {until}, restore {id}")
}

/// How a service is, in words.
pub(super) fn found(found: Found) -> &'static str {
    match found {
        Found::Running => "running",
        Found::Stopped => "not running",
        Found::Unknown => "nobody knows whether it runs",
    }
}
