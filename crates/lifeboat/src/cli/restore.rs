//! `lifeboat restore`: an archive back into a directory.

use std::path::PathBuf;

use lifeboat_engine::app::{
    Action, EntryKind, EntryPath, LISTED_MAX, PlanLine, Record, RestorePlan, RestoreReport, RestoreRequest,
};
use lifeboat_engine::{Error, ErrorKind, Result};
use serde::Serialize;

use super::error::Message;
use super::{Surface, exit_code, render};

const STATE: &str = "nothing was restored; the target is as it was";

const EXAMPLES: &str = "\
Examples:
  lifeboat restore app-backup-2026-02-24.tar.zst --to /tmp/look
      Get everything back below /tmp/look
  lifeboat restore app-backup-2026-02-24.tar.zst --to /srv --dry-run
      Show what would be new and what would be overwritten, and write nothing
  lifeboat restore app-backup-2026-02-24.tar.zst --to /srv --overwrite
      Replace what exists; other files there stay as they are";

/// Restore an archive into a directory: all of it, or nothing
///
/// Every sum is compared while the files are written beside their place; only when all are right do
/// they get their names. Nothing outside DIR is written, and nothing that exists is replaced unless
/// --overwrite says so. Works as an ordinary user; owners that cannot be set are then noted.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The archive
    archive: PathBuf,
    /// Restore below DIR, which is made if it does not exist; needed in this version
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Replace files that exist
    #[arg(long)]
    overwrite: bool,
    /// Make device nodes too
    #[arg(long)]
    devices: bool,
    /// Treat an owner that cannot be set as a problem (exit code 3), not as a note
    #[arg(long)]
    same_owner: bool,
    /// How many workers; by default one for each core
    #[arg(long, value_name = "N", value_parser = super::threads())]
    threads: Option<usize>,
    /// Show what would be done, and write nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(args: &Args, surface: Surface<'_>) -> Result<u8> {
    let Some(to) = args.to.clone() else {
        let archive = render::shell_path(&args.archive);
        return Err(Error::new(ErrorKind::Usage, "this version restores beside the live state and needs --to DIR")
            .state(STATE)
            .next(format!("lifeboat restore {archive} --to DIR")));
    };
    let request = RestoreRequest {
        archive: args.archive.clone(),
        to,
        overwrite: args.overwrite,
        devices: args.devices,
        same_owner: args.same_owner,
        threads: args.threads,
    };
    if args.dry_run { plan(&request, surface) } else { restore(&request, surface) }
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

#[derive(Serialize)]
struct PlannedEntry {
    action: Action,
    path: String,
    r#type: EntryKind,
    size: u64,
}

fn plan_as_json(request: &RestoreRequest, surface: Surface<'_>) -> Result<()> {
    let mut each = |line: PlanLine| {
        let PlanLine { action, path, kind, size } = line;
        surface.console.json("plan_entry", &PlannedEntry { action, path: path.to_string(), r#type: kind, size });
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

/// `  new        1.2 KiB  path`, for what holds data; directories go without saying.
fn plan_line(line: &PlanLine) -> Option<String> {
    let action = match line.action {
        Action::New => "new",
        Action::Overwrite => "overwrite",
        Action::Merge => return None,
    };
    let is_shown = matches!(line.kind, EntryKind::File | EntryKind::Symlink | EntryKind::Hardlink);
    is_shown.then(|| format!("  {action:<9}  {}  {}", render::size(line.size), line.path))
}

/// The lines of a plan that are shown without `-v`: all, where there are few;
/// else the first ones of what would be overwritten.
#[derive(Default)]
struct PlanLines {
    lines: Vec<(Action, String)>,
    seen: usize,
    overwrites: usize,
}

impl PlanLines {
    fn is_long(&self) -> bool {
        self.seen > LISTED_MAX
    }

    fn add(&mut self, line: &PlanLine) {
        let Some(text) = plan_line(line) else { return };
        let was_long = self.is_long();
        self.seen += 1;
        let overwrites = line.action == Action::Overwrite;
        self.overwrites += usize::from(overwrites);
        if self.is_long() && !was_long {
            self.lines.retain(|(action, _)| *action == Action::Overwrite);
        }
        let is_listed = if overwrites { self.overwrites <= LISTED_MAX } else { !self.is_long() };
        if is_listed {
            self.lines.push((line.action, text));
        }
    }

    fn show(&self, surface: Surface<'_>) {
        self.lines.iter().for_each(|(_, line)| surface.console.info(line));
        if self.overwrites > LISTED_MAX {
            surface.console.info(format_args!("  and {} more to overwrite", self.overwrites - LISTED_MAX));
        }
        if self.is_long() {
            let new = self.seen - self.overwrites;
            surface.console.info(format_args!("  and {new} new; -v lists them"));
        }
    }
}
