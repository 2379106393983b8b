//! `lifeboat restore --to`: an archive into a directory of its own.

use lifeboat_engine::Result;
use lifeboat_engine::app::{
    EntryKind, EntryPath, LISTED_MAX, PlanLine, Record, RestorePlan, RestoreReport, RestoreRequest,
};

use super::error::Message;
use super::plan_lines::{PlanLines, plan_entry, plan_line};
use super::{Surface, exit_code, render};

const STATE: &str = "nothing was restored; the target is as it was";

/// Restores beside what is live, or shows what that would do.
pub(super) fn run(request: &RestoreRequest, dry_run: bool, surface: Surface<'_>) -> Result<u8> {
    surface.tell_waiting();
    if dry_run { plan(request, surface) } else { restore(request, surface) }
}

fn restore(request: &RestoreRequest, surface: Surface<'_>) -> Result<u8> {
    let console = surface.console;
    let report = surface.app.restore_to(request, surface.watch()).map_err(|error| error.state(STATE))?;
    console.end_progress();
    if console.options.json {
        console.json("summary", &report);
    } else {
        render_paths(&report, request, surface)?;
        render_report(&report, surface);
    }
    let code = exit_code::of_restore(&report);
    if code == exit_code::DONE {
        return Ok(code);
    }
    let problems = render::problems(&report.problems).unwrap_or_default();
    Ok(console.message(&Message::incomplete(
        code,
        format!("the restore is done, but incomplete: {problems}"),
        format!("the content of every file is in {} and complete", render::path(&request.to)),
        "see the warnings; run it again as root, or on a file system that keeps these attributes".to_owned(),
    )))
}

/// `Restored 8 files:` and their paths.
fn render_paths(report: &RestoreReport, request: &RestoreRequest, surface: Surface<'_>) -> Result<()> {
    let console = surface.console;
    let files = render::count(report.files, "file");
    let is_long = report.files > LISTED_MAX as u64;
    if report.files == 0 || console.options.quiet || (is_long && !console.options.verbose) {
        console.info(format_args!("Restored {files}."));
        return Ok(());
    }
    console.info(format_args!("Restored {files}:"));
    if !is_long {
        report.paths.iter().for_each(|path| console.info(format_args!("  {path}")));
        return Ok(());
    }
    // The report holds no long lists; the archive does.
    let each = &mut |path: &EntryPath, record: &Record| {
        if record.kind() == EntryKind::File {
            console.info(format_args!("  {path}"));
        }
        Ok(())
    };
    let listed = surface.app.list(&request.archive, surface.cancel, each);
    listed.map(|_| ()).map_err(|error| error.state("everything was restored; only the list of it is cut short"))
}

fn render_report(report: &RestoreReport, surface: Surface<'_>) {
    let console = surface.console;
    console.info("");
    console.info(format_args!(
        "Everything is in {} ({} in {}, {})",
        render::path(&report.to),
        render::size(report.bytes),
        render::duration(report.elapsed),
        render::rate(report.bytes, report.elapsed)
    ));
    console.info(if report.verified {
        "verified: every sum was compared while writing"
    } else {
        "not verified: Lifeboat did not write this tar, and no sums exist"
    });
    if let Some(problems) = render::problems(&report.problems) {
        console.info(format_args!("problems: {problems}"));
    }
    console.info(format_args!("Next: look at {}, and put in place what you need", render::path(&report.to)));
}

fn plan(request: &RestoreRequest, surface: Surface<'_>) -> Result<u8> {
    let state = "nothing was written: this was a dry run";
    let plan =
        if surface.console.options.json { plan_as_json(request, surface) } else { plan_as_text(request, surface) };
    plan.map(|()| exit_code::DONE).map_err(|error| error.state(state))
}

fn plan_as_json(request: &RestoreRequest, surface: Surface<'_>) -> Result<()> {
    let mut each = |line: PlanLine| {
        plan_entry(line, surface);
        Ok(())
    };
    let plan = surface.app.plan_restore_to(request, surface.cancel, &mut each)?;
    surface.console.json("plan", &plan);
    Ok(())
}

/// The first line says how many files there are, which is known last: so the
/// few lines that are shown wait, and the many of `-v` are asked for again.
fn plan_as_text(request: &RestoreRequest, surface: Surface<'_>) -> Result<()> {
    let console = surface.console;
    let mut lines = PlanLines::default();
    let mut each = |line: PlanLine| {
        lines.add(&line);
        Ok(())
    };
    let plan = surface.app.plan_restore_to(request, surface.cancel, &mut each)?;
    let files = render::count(plan.files, "file");
    console.info(format_args!("Dry run: {files} would be restored from {}", render::path(&request.archive)));
    console.info("");
    if lines.is_long() && console.options.verbose {
        let mut each = |line: PlanLine| {
            if let Some(text) = plan_line(&line) {
                console.info(text);
            }
            Ok(())
        };
        surface.app.plan_restore_to(request, surface.cancel, &mut each)?;
    } else {
        lines.show(surface);
    }
    render_plan(&plan, request, surface);
    Ok(())
}

fn render_plan(plan: &RestorePlan, request: &RestoreRequest, surface: Surface<'_>) {
    let console = surface.console;
    let (bytes, free) = (render::size(plan.bytes), render::free_space(plan.free_bytes));
    console.info("");
    console.info(format_args!("to {}: {bytes}; free space there: {free}", render::path(&request.to)));
    if plan.overwrites > 0 {
        let replaced = render::count(plan.overwrites, "existing entry");
        let needs = if request.overwrite { "" } else { "; the restore itself needs --overwrite for that" };
        console.info(format_args!("{replaced} would be replaced{needs}"));
    }
    console.info("Nothing was written.");
}
