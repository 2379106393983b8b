//! `lifeboat recover`: ends what a crash interrupted.

use lifeboat_engine::Result;
use lifeboat_engine::app::LeftPaused;
use serde::Serialize;

use super::{Surface, exit_code, restore_live};

/// Finish or roll back what a crash interrupted
///
/// A restore that was interrupted before its new state had started is rolled back. One whose new
/// state had started is not: its health is checked again, and if it is not healthy, you decide with
/// `lifeboat restore --commit` or `--rollback`. Services that an interrupted backup left paused run
/// again.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args, surface: Surface<'_>) -> Result<u8> {
    // What could not be thawed does not keep a restore from being ended.
    let thawed = surface.app.thaw_left();
    let ended = surface.app.recover(surface.watch());
    surface.console.end_progress();
    self::thawed(thawed.as_deref().unwrap_or_default(), surface);
    restore_live::recovered(ended.as_deref().unwrap_or_default(), surface);
    let (ended, thawed) = match (ended, thawed) {
        (Ok(ended), Ok(thawed)) => (ended.len(), thawed.len()),
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    if surface.console.options.json {
        surface.console.json("summary", &Summary { recovered: ended, thawed });
    } else if ended + thawed == 0 {
        surface.console.info("Nothing waits: no restore was interrupted, and no service is left paused.");
    }
    Ok(exit_code::DONE)
}

/// How much was ended.
#[derive(Serialize)]
struct Summary {
    /// Restores.
    recovered: usize,
    /// Backups that had left services paused.
    thawed: usize,
}

/// Says which services run again.
pub(super) fn thawed(thawed: &[LeftPaused], surface: Surface<'_>) {
    for left in thawed {
        let services = left.services.join(", ");
        let line = format_args!("Running again: {services}, which an interrupted backup had paused.");
        surface.console.line_or_json("thawed", left, line);
    }
}
