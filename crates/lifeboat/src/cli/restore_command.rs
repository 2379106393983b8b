//! `lifeboat restore --only SOURCE` of what a command printed: given back to the
//! command that takes it.

use lifeboat_engine::Result;
use lifeboat_engine::app::{CommandPlan, CommandRequest};

use super::restore_live::{self, Agreed};
use super::{Surface, exit_code, render};

/// Runs it, or shows what that would be.
pub(super) fn run(mut request: CommandRequest, agreed: Agreed, dry_run: bool, surface: Surface<'_>) -> Result<u8> {
    let console = surface.console;
    surface.tell_waiting();
    request.trusted = restore_live::trusted(&request.archive, agreed, dry_run, surface)?;
    let plan = surface.app.plan_command(&request)?;
    if dry_run {
        if console.options.json {
            console.json("plan", &plan);
        } else {
            console.info(format_args!("Dry run: the source {} would be restored by itself", plan.source));
            render_plan(&plan, surface);
            console.info("Nothing was run.");
        }
        return Ok(exit_code::DONE);
    }
    request.agreed = agreed.force;
    if !request.agreed && console.can_ask() {
        render_plan(&plan, surface);
        console.line(format_args!("It would {}.", plan.question()));
        request.agreed = console.ask("Go on?", surface.cancel)?;
    }
    let report = surface.app.restore_command(&request, surface.watch())?;
    console.end_progress();
    if console.options.json {
        console.json("summary", &report);
        return Ok(exit_code::DONE);
    }
    let (bytes, elapsed) = (render::size(report.bytes), render::duration(report.elapsed));
    console.info(format_args!("Restored the source {}: {} took {bytes} in {elapsed}", plan.source, plan.command));
    console.info("verified: every sum was compared before it was run");
    Ok(exit_code::DONE)
}

fn render_plan(plan: &CommandPlan, surface: Surface<'_>) {
    surface.console.info(format_args!("source {} of {}, backed up {}", plan.source, plan.app, plan.created));
    surface.console.info(format_args!("given to the command: {}", plan.command));
}
