//! `lifeboat recover`: ends what a crash interrupted.

use lifeboat_engine::Result;

use super::{Surface, exit_code, restore_live};

/// Finish or roll back what a crash interrupted
///
/// A restore that was interrupted before its new state had started is rolled back. One whose new
/// state had started is not: its health is checked again, and if it is not healthy, you decide with
/// `lifeboat restore --commit` or `--rollback`.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args, surface: Surface<'_>) -> Result<u8> {
    let ended = surface.app.recover(surface.watch())?;
    surface.console.end_progress();
    if ended.is_empty() {
        surface.console.info("Nothing waits: no restore was interrupted.");
    }
    restore_live::recovered(&ended, surface);
    Ok(exit_code::DONE)
}
