//! `lifeboat restore` in place: the plan, the questions, the report, and what
//! is done with an earlier restore.

use std::path::Path;

use lifeboat_engine::app::{
    AppConfig, Consent, Decision, EntryKind, EntryPath, Found, Kept, LISTED_MAX, LivePlan, LiveReport, LiveRequest,
    Mode, NotRestored, PlanLine, Record, Recovered,
};
use lifeboat_engine::{Error, ErrorKind, Result};

use super::error::Message;
use super::plan_lines::{PlanLines, plan_entry, plan_line};
use super::{Surface, exit_code, render, status};

const UNTOUCHED: &str = "nothing was written, and nothing was stopped";

/// What was agreed to on the command line.
#[derive(Clone, Copy)]
pub(super) struct Agreed {
    pub(super) force: bool,
    pub(super) unauthenticated: bool,
    /// What the archive carries of its app's configuration may act.
    pub(super) config: bool,
}

/// Restores in place, or shows what that would do.
pub(super) fn run(mut request: LiveRequest, agreed: Agreed, dry_run: bool, surface: Surface<'_>) -> Result<u8> {
    request.trusted = trusted(&request.archive, agreed, dry_run, surface)?;
    if dry_run {
        surface.tell_waiting();
        return dry_run_of(&request, surface).map_err(|error| error.state("nothing was written: this was a dry run"));
    }
    let console = surface.console;
    let mut lines = PlanLines::default();
    let mut add = |line: PlanLine| {
        lines.add(&line);
        Ok(())
    };
    let prepared = surface.app.prepare_restore(request.clone(), surface.watch(), &mut add)?;
    console.restart_progress();
    recovered(&prepared.recovered, surface);
    let consent = agree(&prepared.plan, &lines, agreed, surface)?;
    let report = prepared.apply(consent, surface.watch())?;
    console.end_progress();
    if console.options.json {
        console.json("summary", &report);
    } else {
        render_report(&report, &request, surface)?;
    }
    Ok(incomplete(&report).map_or(exit_code::DONE, |message| console.message(&message)))
}

/// Whether an archive is used that may have been changed by somebody without its
/// key: a person is asked, where there is one.
pub(super) fn accepts_lack(archive: &Path, is_accepted: bool, dry_run: bool, surface: Surface<'_>) -> Result<bool> {
    if is_accepted || dry_run || !surface.console.can_ask() {
        return Ok(is_accepted);
    }
    let lack = surface.app.lacks_hmac(archive).map_err(|error| error.state(UNTOUCHED))?;
    let Some(lack) = lack else { return Ok(false) };
    surface.console.warning(lack);
    surface.console.ask("Every sum in it is checked. Do you trust it?", surface.cancel)
}

/// What the archive carries of its app's configuration, where it may be used:
/// nobody can tell whether the archive is genuine, so a person agrees to what
/// would act, at a terminal or with both flags.
pub(super) fn trusted(
    archive: &Path,
    agreed: Agreed,
    dry_run: bool,
    surface: Surface<'_>,
) -> Result<Option<AppConfig>> {
    let carried = surface.app.carried(archive).map_err(|error| error.state(UNTOUCHED))?;
    let Some(carried) = carried else { return Ok(None) };
    if carried.acts.is_empty() || (agreed.config && (agreed.unauthenticated || carried.is_genuine)) {
        return Ok(Some(carried.app));
    }
    // A dry run asks nobody, and only shows it: to look at services and the version would run programs.
    if dry_run {
        return Ok(None);
    }
    if agreed.config && !surface.console.can_ask() {
        return Err(Error::new(
            ErrorKind::ConfirmationNeeded,
            "--trust-config would let an archive act that is not authenticated",
        )
        .state(UNTOUCHED)
        .next("if you trust the archive, add --allow-unauthenticated; without --trust-config nothing of it acts"));
    }
    if !surface.console.can_ask() {
        return Ok(None);
    }
    surface.console.line("This host has no configuration of the app. The archive carries one, which would act:");
    carried.acts.iter().for_each(|line| surface.console.line(format_args!("  {line}")));
    if !carried.is_genuine {
        surface.console.line("Nobody can tell whether the archive is genuine.");
    }
    let agrees = surface.console.ask("Do you trust it to do that?", surface.cancel)?;
    Ok(agrees.then_some(carried.app))
}

/// Asks a person at a terminal, where something has to be asked.
fn agree(plan: &LivePlan, lines: &PlanLines, agreed: Agreed, surface: Surface<'_>) -> Result<Consent> {
    let mut consent = Consent { agreed: false, force: agreed.force, unauthenticated: agreed.unauthenticated };
    let questions = plan.questions();
    let asks_root = !plan.unauthenticated_roots().is_empty() && !consent.unauthenticated && !plan.is_nothing();
    let asks_script = plan.runs_foreign_sql() && !consent.unauthenticated;
    let asks = asks_root || asks_script || (!questions.is_empty() && !consent.force);
    if !asks || !surface.console.can_ask() {
        return Ok(consent);
    }
    lines.show(surface);
    render_plan(plan, surface);
    if asks_root {
        let roots = plan.unauthenticated_roots().join(", ");
        surface.console.line(format_args!(
            "Only the archive says that its content belongs to {roots}; nobody can tell whether the archive is genuine."
        ));
        consent.unauthenticated = surface.console.ask("Do you trust it?", surface.cancel)?;
        if !consent.unauthenticated {
            return Ok(consent);
        }
    }
    if asks_script {
        surface.console.line(format_args!(
            "SQL of the archive is run {}; nobody can tell whether the archive is genuine.",
            plan.scripts.join(", ")
        ));
        consent.unauthenticated = surface.console.ask("Do you trust it?", surface.cancel)?;
        if !consent.unauthenticated {
            return Ok(consent);
        }
    }
    if !questions.is_empty() && !consent.force {
        surface.console.line(format_args!("It would {}.", questions.join(", ")));
        consent.agreed = surface.console.ask("Go on?", surface.cancel)?;
    }
    Ok(consent)
}

fn dry_run_of(request: &LiveRequest, surface: Surface<'_>) -> Result<u8> {
    let console = surface.console;
    let mut lines = PlanLines::default();
    let mut all = Vec::new();
    let mut each = |line: PlanLine| {
        if console.options.json {
            plan_entry(line, surface);
            return Ok(());
        }
        if console.options.verbose {
            all.extend(plan_line(&line));
        }
        lines.add(&line);
        Ok(())
    };
    let plan = surface.app.plan_restore(request, surface.watch(), &mut each)?;
    console.end_progress();
    if console.options.json {
        console.json("plan", &plan);
    } else {
        let files = what(plan.counts.files, plan.databases.len());
        console.info(format_args!("Dry run: {files} would be restored from {}", render::path(&request.archive)));
        console.info("");
        if lines.is_long() && console.options.verbose {
            all.iter().for_each(|line| console.info(line));
        } else {
            lines.show(surface);
        }
        render_plan(&plan, surface);
        console.info("Nothing was written.");
    }
    plan.check().map(|()| exit_code::DONE)
}

fn render_plan(plan: &LivePlan, surface: Surface<'_>) {
    surface.console.info("");
    render_targets(plan, surface);
    render_effects(plan, surface);
}

/// What is restored where, and what is not.
fn render_targets(plan: &LivePlan, surface: Surface<'_>) {
    let console = surface.console;
    for root in &plan.roots {
        let from = if root.is_configured { "as configured" } else { "as the archive says" };
        let new = if root.exists { "" } else { ", which does not exist" };
        console.info(format_args!("source {} to {}{new} ({from})", root.source, root.root));
    }
    for database in &plan.databases {
        console.info(format_args!("database: {}", database.line()));
        let free = render::free_space(database.free_bytes);
        let needed = render::size(database.snapshot_bytes);
        console.info(format_args!("staged beside it: {needed}; free space there: {free}"));
    }
    plan.roles.iter().for_each(|role| console.info(format_args!("role {role}: created, without a password")));
    if let Some(version) = &plan.version {
        let known = |version: &Option<String>| version.clone().unwrap_or_else(|| "unknown".to_owned());
        let why = version.unknown.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        let (snapshot, here) = (known(&version.snapshot), known(&version.here));
        console.info(format_args!("version: {snapshot} in the snapshot, {here} here{why}"));
    }
    plan.lacks_hmac.iter().for_each(|lack| console.info(lack));
    let uses = match plan.is_trusted {
        true => "used, as it is trusted",
        false if plan.lacks_hmac.is_some() => "never used, as it is not authenticated",
        false if plan.is_genuine => "not used without --trust-config",
        false => "not used without --trust-config and --allow-unauthenticated",
    };
    plan.acts.iter().for_each(|line| console.info(format_args!("the archive says, {uses}: {line}")));
    not_restored(&plan.not_restored, surface);
    plan.lacks.iter().for_each(|line| console.info(format_args!("not in the snapshot: {line}")));
    if !plan.exports.is_empty() {
        console.info(format_args!("exports are not restored: {}", plan.exports.join(", ")));
    }
}

/// What changes, what it takes, and what follows.
fn render_effects(plan: &LivePlan, surface: Surface<'_>) {
    let console = surface.console;
    let counts = &plan.counts;
    let counted = [
        (counts.new, "new"),
        (counts.overwrite, "to overwrite"),
        (counts.same, "the same already"),
        (counts.delete, "to delete"),
        (counts.conflict, "that differ and stay"),
        (counts.left_out, "that the backup left out and that stay"),
        (counts.attributes, "directories with other attributes"),
    ];
    let counted: Vec<String> =
        counted.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    if !counted.is_empty() {
        console.info(format_args!("entries: {}", counted.join(", ")));
    }
    for space in &plan.space {
        let (bytes, free) = (render::size(space.needed_bytes), render::free_space(space.free_bytes));
        console.info(format_args!("staged in {}: {bytes}; free space there: {free}", space.path));
    }
    for service in &plan.services {
        let (now, is_stopped) = (status::found(service.found), service.found != Found::Stopped);
        let then = match (is_stopped, service.runs_then) {
            (true, _) => "stopped and started again",
            (false, true) => "started, since checks ask it",
            (false, false) => "stays so",
        };
        console.info(format_args!("service {} ({now}): {then}", service.name));
    }
    plan.reload.iter().for_each(|reload| console.info(format_args!("then reloaded: {reload}")));
    if plan.health_checks > 0 {
        console.info(format_args!("then {} must pass", render::count(plan.health_checks as u64, "health check")));
    }
    if plan.checks > 0 {
        console.info(format_args!("then {} of the data must pass", render::count(plan.checks as u64, "check")));
    }
    plan.users.iter().for_each(|user| console.info(format_args!("in use: {}", user.line())));
    plan.unseen.iter().for_each(|line| console.info(format_args!("not seen: {line}")));
    let in_databases = plan.databases.iter().filter_map(|database| database.live_bytes).sum::<u64>();
    let replaced = render::size(counts.replaced_bytes.saturating_add(in_databases));
    console.info(format_args!("what is replaced ({replaced}) is kept: {}", plan.keep_replaced));
}

/// How much is restored: files, databases of servers, or both.
fn what(files: u64, databases: usize) -> String {
    let databases = databases as u64;
    match (files, databases) {
        (files, 0) => render::count(files, "file"),
        (0, databases) => render::count(databases, "database"),
        (files, databases) => format!("{} and {}", render::count(files, "file"), render::count(databases, "database")),
    }
}

/// `Restored 8 files:` and their paths.
fn render_report(report: &LiveReport, request: &LiveRequest, surface: Surface<'_>) -> Result<()> {
    let console = surface.console;
    if report.is_nothing {
        let already =
            if report.mode == Mode::Merge { "nothing is missing" } else { "everything is as in the snapshot already" };
        console.info(format_args!("Nothing to restore: {already}."));
        conflicts(report, surface);
        not_restored(&report.not_restored, surface);
        return Ok(());
    }
    let files = what(report.counts.files, report.databases.len());
    let is_long = report.counts.files > LISTED_MAX as u64;
    if report.mode == Mode::Merge {
        let added = render::count(report.counts.new, "entry");
        console.info(format_args!("Added {added}; everything that existed stays."));
        conflicts(report, surface);
    } else if report.counts.files == 0 || console.options.quiet || (is_long && !console.options.verbose) {
        console.info(format_args!("Restored {files}."));
    } else {
        console.info(format_args!("Restored {files}:"));
        report.paths.iter().filter(|_| !is_long).for_each(|path| console.info(format_args!("  {path}")));
        if is_long {
            let each = &mut |path: &EntryPath, record: &Record| {
                if record.kind() == EntryKind::File {
                    console.info(format_args!("  {path}"));
                }
                Ok(())
            };
            let listed = surface.app.list(&request.archive, surface.cancel, each);
            listed.map_err(|error| error.state("everything was restored; only the list of it is cut short"))?;
        }
    }
    console.info("");
    render_end(report, request.only.is_empty(), surface);
    Ok(())
}

/// Sources that stay as they are, and what restores them.
fn not_restored(all: &[NotRestored], surface: Surface<'_>) {
    for apart in all {
        surface.console.info(format_args!("not restored: {} ({}); by hand:", apart.source, apart.why));
        apart.commands.iter().for_each(|command| surface.console.info(format_args!("  {command}")));
    }
}

/// What a merge left as it is although it differs.
fn conflicts(report: &LiveReport, surface: Surface<'_>) {
    let count = report.counts.conflict;
    if count > 0 {
        let named = report.conflicts.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        let more = if count > 3 { ", …" } else { "" };
        let differ =
            if count == 1 { "1 existing entry differs".to_owned() } else { format!("{count} existing entries differ") };
        surface.console.warning(format_args!("{differ} from the snapshot: {named}{more}"));
    }
}

fn render_end(report: &LiveReport, is_whole: bool, surface: Surface<'_>) {
    let console = surface.console;
    let (roots, size, elapsed) =
        (report.roots.join(", "), render::size(report.counts.bytes), render::duration(report.elapsed));
    console.info(match report.mode {
        _ if report.counts.entries == 0 && is_whole => format!("everything of the snapshot is in {roots} ({elapsed})"),
        _ if report.counts.entries == 0 => format!("what was asked for is in {roots} ({elapsed})"),
        _ if !is_whole => format!("what was asked for is in {roots} ({size} in {elapsed})"),
        Mode::Full => format!("{roots} is as in the snapshot ({size} in {elapsed})"),
        Mode::Overwrite => format!("everything of the snapshot is in {roots} ({size} in {elapsed}); other files stay"),
        Mode::Merge => format!("what was missing is in {roots} ({elapsed})"),
    });
    for database in &report.databases {
        console.info(format_args!("database: {database} is as in the snapshot"));
    }
    console.info("verified: every sum was compared before anything live was touched");
    not_restored(&report.not_restored, surface);
    render_services(report, surface);
    if report.appeared_count > 0 {
        console.warning(format_args!(
            "{} appeared after the plan was made and went too: {}",
            render::count(report.appeared_count, "entry"),
            report.appeared.iter().take(3).cloned().collect::<Vec<_>>().join(", ")
        ));
    }
    if let Some(problems) = render::problems(&report.problems) {
        console.info(format_args!("problems: {problems}"));
    }
    render_kept(report, surface);
}

fn render_services(report: &LiveReport, surface: Surface<'_>) {
    let console = surface.console;
    if !report.services.is_empty() {
        let pause = render::duration(report.pause);
        console.info(format_args!("services: {} stopped for {pause}", report.services.join(", ")));
    }
    if !report.started.is_empty() {
        console.info(format_args!(
            "services: {} had not run and {} started",
            report.started.join(", "),
            if report.started.len() == 1 { "was" } else { "were" }
        ));
    }
    if report.health_checks > 0 {
        console.info(format_args!("healthy: {} passed", render::count(report.health_checks as u64, "check")));
    }
    if report.checks > 0 {
        console.info(format_args!("data: {} passed", render::count(report.checks as u64, "check")));
    }
    if let Some(warning) = &report.reload_warning {
        console.warning(warning);
    }
}

fn render_kept(report: &LiveReport, surface: Surface<'_>) {
    let console = surface.console;
    match &report.kept {
        None => console.info("what was replaced is gone"),
        Some(kept) => {
            console.info(format_args!("replaced: {}", status::kept_line(kept)));
            for path in &kept.aside {
                console.info(format_args!("set aside, with its logs: {path}"));
            }
            for database in &kept.databases {
                console.info(format_args!("set aside: {database}"));
            }
            let id = &kept.id[..8.min(kept.id.len())];
            console.info(format_args!("Next: lifeboat restore --undo {id}   to put it back"));
            console.info(format_args!("      lifeboat restore --discard {id}   to free its space"));
        }
    }
}

fn incomplete(report: &LiveReport) -> Option<Message> {
    let code = exit_code::of_problems(&report.problems);
    if code == exit_code::DONE {
        return None;
    }
    let problems = render::problems(&report.problems).unwrap_or_default();
    Some(Message::incomplete(
        code,
        format!("the restore is done, but incomplete: {problems}"),
        "the content of every file is in place and complete".to_owned(),
        "see the warnings; run it again as root, or on a file system that keeps these attributes".to_owned(),
    ))
}

/// Says how what a crash had interrupted was ended.
pub(super) fn recovered(recovered: &[Recovered], surface: Surface<'_>) {
    for ended in recovered {
        let how = if ended.is_new { "is healthy and stands now" } else { "was rolled back: all is as before it" };
        let (id, roots) = (&ended.id[..8.min(ended.id.len())], ended.roots.join(", "));
        surface.console.line_or_json(
            "recovered",
            ended,
            format_args!("The interrupted restore {id} of {roots} {how}."),
        );
    }
}

/// `--resume`, `--rollback`, `--commit`.
pub(super) fn decide(decision: Decision, id: Option<&str>, surface: Surface<'_>) -> Result<u8> {
    let ended = surface.app.decide(decision, id, surface.watch())?;
    surface.console.end_progress();
    recovered(&[ended], surface);
    Ok(exit_code::DONE)
}

/// `--undo`.
pub(super) fn undo(id: Option<&str>, force: bool, surface: Surface<'_>) -> Result<u8> {
    let console = surface.console;
    let undo = surface.app.undo_restore(id, surface.watch())?;
    recovered(&undo.recovered, surface);
    let mut consent = Consent { agreed: false, force, unauthenticated: true };
    if !force && console.can_ask() {
        console.line(format_args!("It would put back {}", status::kept_line(&undo.kept)));
        if !undo.services.is_empty() {
            console.line(format_args!("and stop and start {}", undo.services.join(", ")));
        }
        consent.agreed = console.ask("Go on?", surface.cancel)?;
    }
    let report = undo.apply(consent, surface.watch())?;
    console.end_progress();
    if console.options.json {
        console.json("summary", &report);
        return Ok(exit_code::DONE);
    }
    console.info(format_args!("{} is as it was before that restore", report.roots.join(", ")));
    render_services(&report, surface);
    render_kept(&report, surface);
    Ok(exit_code::DONE)
}

/// `--keep`.
pub(super) fn keep(id: Option<&str>, surface: Surface<'_>) -> Result<u8> {
    let kept = surface.app.keep_replaced(id).map_err(untouched)?;
    told("kept", &kept, "Kept for ever", surface);
    Ok(exit_code::DONE)
}

/// `--discard`.
pub(super) fn discard(id: Option<&str>, surface: Surface<'_>) -> Result<u8> {
    let kept = surface.app.discard_replaced(id).map_err(untouched)?;
    told("discarded", &kept, "Removed", surface);
    Ok(exit_code::DONE)
}

fn untouched(error: Error) -> Error {
    error.state(UNTOUCHED)
}

fn told(message_type: &'static str, kept: &Kept, what: &str, surface: Surface<'_>) {
    let line = format!("{what}: {}", status::kept_line(kept));
    surface.console.line_or_json(message_type, kept, line);
}
