//! `lifeboat backup verify`: reads all of an archive and answers 0 or 1.

use std::path::{Path, PathBuf};

use lifeboat_engine::app::{EntryPath, Head, LISTED_MAX, SealCheck, Verdict, VerifyReport, VerifyTold, shown};
use lifeboat_engine::{Error, ErrorKind, Result};
use serde::Serialize;

use super::console::{BAD, Console, GOOD};
use super::error::Message;
use super::{Surface, exit_code, json, list, render};

const EXAMPLES: &str = "\
Examples:
  lifeboat backup verify
      All backups in the places that lifeboat.yaml names
  lifeboat backup verify app-backup-2026-02-24.tar.zst
  lifeboat backup verify -q app-backup-2026-02-24.tar.zst || echo 'the backup is damaged'
  ssh backup-server lifeboat backup verify /backups/app-backup-2026-02-24.tar.zst

Exit codes: 0 all is as recorded, 1 it is not or cannot be read, 2 wrong usage.";

/// Read all of an archive, and compare every file with its recorded SHA-256
///
/// Goes on after a failure. Names of files that pass are listed where there are at most 100, and
/// with -v always.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// An archive, the id of a backup, or an app: all of its backups. None: all backups
    #[arg(value_name = "ARCHIVE|ID|APP")]
    archive: Option<PathBuf>,
    /// How many workers; by default one for each core
    #[arg(long, value_name = "N", value_parser = super::threads())]
    threads: Option<usize>,
}

pub(super) fn run(args: &Args, surface: Surface<'_>) -> Result<u8> {
    let working_dir = super::working_dir()?;
    let app = match &args.archive {
        None => None,
        Some(name) => match list::app_named(name, surface) {
            Some(app) => Some(app),
            None => {
                let named = surface.app.find_archive(name, None, &working_dir);
                return verify(&named.map_err(|error| error.state(list::STATE))?.path, args.threads, surface);
            }
        },
    };
    verify_all(app.as_deref(), args.threads, surface, &working_dir)
}

/// Verifies every backup of `app`, or of all apps, and goes on after one that fails.
fn verify_all(app: Option<&str>, threads: Option<usize>, surface: Surface<'_>, working_dir: &Path) -> Result<u8> {
    let console = surface.console;
    let (all, errors) = surface.app.snapshots(app, working_dir);
    errors.iter().for_each(|error| console.warning(error));
    if all.is_empty() {
        return Err(Error::new(ErrorKind::Usage, "there is no backup to verify")
            .state(list::STATE)
            .next("give the path of an archive"));
    }
    let mut failed = 0;
    for snapshot in &all {
        failed += u64::from(verify(&snapshot.path, threads, surface)? != exit_code::DONE);
        if !console.options.json {
            console.info("");
        }
    }
    if !console.options.json {
        let backups = render::count(all.len() as u64, "backup");
        let verified = if failed == 0 {
            format!("{backups} verified successfully.")
        } else {
            format!("{failed} of {backups} failed.")
        };
        console.info(verified);
    }
    Ok(if failed == 0 && errors.is_empty() { exit_code::DONE } else { exit_code::FAILED })
}

/// Verifies one archive.
fn verify(archive: &Path, threads: Option<usize>, surface: Surface<'_>) -> Result<u8> {
    let console = surface.console;
    // The engine tells of the head and then of the files, through two closures.
    let lines = std::cell::RefCell::new(Lines::new(console));
    let checks = std::cell::RefCell::new(Vec::new());
    let mut opened = |head: Option<&Head>| {
        lines.borrow_mut().has_manifest = head.is_some();
        if !console.options.json {
            render_head(archive, head, console);
        }
        show_checks(&mut checks.borrow_mut(), console);
    };
    let mut each = |path: &EntryPath, verdict: &Verdict| lines.borrow_mut().add(path, verdict);
    let mut sealed = |check: SealCheck| checks.borrow_mut().push(check);
    let mut told = VerifyTold { sealed: &mut sealed, opened: &mut opened, each: &mut each };
    let result = surface.app.verify(archive, threads, surface.watch(), &mut told);
    console.end_progress();
    let mut checks = checks.into_inner();
    if !checks.is_empty() {
        // It did not open.
        if !console.options.json {
            console.info(format_args!("Archive: {}\n", render::path(archive)));
        }
        show_checks(&mut checks, console);
    }
    let are_shown = lines.into_inner().finish();
    let report = match result {
        Ok(report) => report,
        Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error.state(list::STATE)),
        // Whatever it is, the archive cannot be relied on: scripts get the same 1.
        Err(error) => {
            let message = Message { exit_code: exit_code::FAILED, ..Message::of(&error.state(list::STATE), None) };
            return Ok(console.message(&message));
        }
    };
    if console.options.json {
        console.json("summary", &report);
    } else {
        if are_shown {
            console.info("");
        }
        render_totals(&report, console);
    }
    if report.is_good {
        return Ok(exit_code::DONE);
    }
    if console.options.json {
        let error = Error::new(ErrorKind::VerificationFailed, total(&report)).state(list::STATE);
        json::exit_error(&Message { exit_code: exit_code::FAILED, ..Message::of(&error, None) });
    }
    Ok(exit_code::FAILED)
}

/// Shows what was found of the envelope, once.
fn show_checks(checks: &mut Vec<SealCheck>, console: &Console) {
    for SealCheck { what, verdict, note } in checks.drain(..) {
        let reason = match &verdict {
            Verdict::Pass => note,
            Verdict::Fail(reason) => Some(reason.clone()),
        };
        let passes = verdict == Verdict::Pass;
        if console.options.json {
            let result = if passes { "pass" } else { "fail" };
            console.json("envelope", &CheckResult { check: what, result, reason });
            continue;
        }
        let reason = reason.map(|reason| format!(" ({})", shown(reason.as_bytes()))).unwrap_or_default();
        if passes {
            console.info(format_args!("  {GOOD}PASS{GOOD:#} {what}{reason}"));
        } else {
            console.line(format_args!("  {BAD}FAIL{BAD:#} {what}{reason}"));
        }
    }
}

#[derive(Serialize)]
struct CheckResult {
    check: &'static str,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

fn render_head(archive: &Path, head: Option<&Head>, console: &Console) {
    console.info(format_args!("Archive: {}", render::path(archive)));
    match head {
        Some(head) => console.info(list::created(head)),
        None => console.line(list::NO_MANIFEST),
    }
    console.info("");
}

fn render_totals(report: &VerifyReport, console: &Console) {
    if let Some(damage) = &report.damage {
        console.line(format_args!("Damage: {}", shown(damage.as_bytes())));
    }
    report.notes.iter().for_each(|note| console.info(format_args!("Note: {}", shown(note.as_bytes()))));
    if report.is_good { console.info(total(report)) } else { console.line(total(report)) }
}

/// What was found, in one sentence.
fn total(report: &VerifyReport) -> String {
    let files = render::count(report.files, "file");
    match (report.is_good, report.files) {
        _ if !report.has_manifest => format!("{files} read; nothing says what they should be: no manifest."),
        _ if report.failed > 0 => format!("{} of {files} failed.", report.failed),
        (true, 0) => "It holds no files; all that is in it was verified successfully.".to_owned(),
        (true, 1) => "1 file verified successfully.".to_owned(),
        (true, _) => format!("All {files} verified successfully."),
        (false, _) => format!("{files} could be verified; the archive as a whole is not good."),
    }
}

#[derive(Serialize)]
struct FileResult<'a> {
    path: String,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// The PASS and FAIL lines. Those of the first files wait until it is known
/// whether there are so many that PASS is not shown.
struct Lines<'a> {
    console: &'a Console,
    has_manifest: bool,
    waiting: Option<Vec<(bool, String)>>,
    are_shown: bool,
}

impl<'a> Lines<'a> {
    fn new(console: &'a Console) -> Self {
        let waits = !console.options.verbose && !console.options.quiet;
        Self { console, has_manifest: true, waiting: waits.then(Vec::new), are_shown: false }
    }

    fn add(&mut self, path: &EntryPath, verdict: &Verdict) {
        let failure = match verdict {
            Verdict::Pass => None,
            Verdict::Fail(reason) => Some(reason.as_str()),
        };
        // Without a manifest nothing was compared, so nothing passed.
        if failure.is_none() && !self.has_manifest {
            return;
        }
        if self.console.options.json {
            let result = if failure.is_some() { "fail" } else { "pass" };
            return self.console.json("file", &FileResult { path: path.to_string(), result, reason: failure });
        }
        let passes = failure.is_none();
        let line = match failure {
            None => format!("  {GOOD}PASS{GOOD:#} {path}"),
            Some(reason) => format!("  {BAD}FAIL{BAD:#} {path} ({})", shown(reason.as_bytes())),
        };
        match &mut self.waiting {
            Some(waiting) => {
                waiting.push((passes, line));
                if waiting.len() > LISTED_MAX {
                    self.show_waiting(false);
                }
            }
            None => self.show(passes, &line, self.console.options.verbose),
        }
    }

    fn show(&mut self, passes: bool, line: &str, with_passes: bool) {
        if !passes || with_passes {
            self.console.line(line);
            self.are_shown = true;
        }
    }

    fn show_waiting(&mut self, with_passes: bool) {
        for (passes, line) in self.waiting.take().unwrap_or_default() {
            self.show(passes, &line, with_passes);
        }
    }

    /// Shows what still waits; whether there was any line at all.
    fn finish(mut self) -> bool {
        self.show_waiting(true);
        self.are_shown
    }
}
