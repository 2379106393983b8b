//! What a manifest says of a snapshot before its entries.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use lifeboat_format::model::Outcome;
use lifeboat_format::record::{self, FORMAT, Head, Tool, Totals};

use super::subject::Job;
use super::{Run, exports, gather};
use crate::report::{BackupRequest, FailedSource};
use crate::{Monitor, Problem, ProblemClass, tables, version};

/// The head of the snapshot that `run` makes of `sources`, those that failed included.
pub(super) fn of(run: &Run<'_>, sources: Vec<record::Source>, totals: Totals, finished: Timestamp) -> Head {
    // It may add a note.
    let app_version = app_version(run);
    let problems = run.tally.problems();
    let has_failed = sources.iter().any(|source| source.details.failed.is_some());
    let outcome = match (has_failed || run.tally.has_losses(), run.job.is_scope) {
        (true, _) => Outcome::Partial,
        (false, true) => Outcome::Scope,
        (false, false) => Outcome::Good,
    };
    Head {
        format: FORMAT.to_owned(),
        tool: Tool { name: "lifeboat".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
        app: run.job.app_name.clone(),
        app_version,
        host: run.host.clone(),
        id: run.id.clone(),
        created: run.started,
        window_ms: window_ms(&sources, (run.started, finished)),
        outcome,
        envelope: run.seal.as_ref().map(|seal| seal.envelope().name().to_owned()),
        sources,
        totals,
        problems: problems
            .listed
            .iter()
            .map(|problem| format!("{}: {}: {}", problem.class.word(), problem.object, problem.message))
            .collect(),
        problem_counts: problems.counts.iter().map(|(class, count)| ((*class).to_owned(), *count)).collect(),
        config: run.job.app.and_then(|app| serde_json::to_value(app.carried()).ok()),
    }
}

/// What is recorded of a source that failed.
pub(super) fn describe_failed(run: &Run<'_>, source: &FailedSource, finished: Timestamp) -> record::Source {
    let kind = run.job.app.and_then(|app| app.sources.get(&source.name)).map_or("files", |source| source.kind());
    let kind = if exports::is_export(&source.name) { exports::KIND } else { kind };
    // The name of a server and a command are no places in a file system.
    let root = matches!(kind, "files" | "sqlite").then_some(Path::new(&source.root));
    let mut failed = gather::describe(&source.name, kind, root, run.started);
    failed.finished = finished;
    failed.details.failed = Some(source.message.clone());
    failed
}

/// The tables of a source whose rows were left out.
pub(super) fn excluded_tables(source: &record::Source) -> impl Iterator<Item = &String> + Clone {
    let of_file = source.details.database.iter().flat_map(|database| &database.excluded_tables);
    let servers = source.details.postgres.iter().flat_map(|postgres| &postgres.databases);
    let of_mariadb = source.details.mariadb.iter().flat_map(|mariadb| &mariadb.databases);
    of_file
        .chain(servers.flat_map(|database| &database.excluded_tables))
        .chain(of_mariadb.flat_map(|database| &database.excluded_tables))
}

/// Patterns of `exclude_tables` that matched none of the tables whose rows were
/// left out (`excluded`) are a note: a table may have got another name.
pub(super) fn tell_unmatched<'t>(
    job: &Job<'_>,
    request: &BackupRequest,
    excluded: impl Iterator<Item = &'t String> + Clone,
    monitor: &dyn Monitor,
) {
    // Of a part it is not known what the others have.
    if job.is_scope || request.schema_only || !job.has_tables() {
        return;
    }
    for pattern in job.app.iter().flat_map(|app| &app.exclude_tables) {
        if !excluded.clone().any(|name| tables::means(pattern, name)) {
            let message = "`exclude_tables` names it, and it is no table of any database";
            monitor.problem(Problem::new(ProblemClass::Skipped, pattern.as_bytes(), message));
        }
    }
}

/// The application's version; that it does not tell is a note.
fn app_version(run: &Run<'_>) -> Option<String> {
    match version::of(run.job.app?, run.cancel) {
        Ok(version) => version,
        Err(error) => {
            let message = format!("its version is not known: {error}");
            let class = ProblemClass::Skipped;
            run.tally.problem(Problem::new(class, run.job.app_name.as_bytes(), message));
            None
        }
    }
}

/// From the first source's point to the last one's. What has no point was read from beginning to end.
fn window_ms(sources: &[record::Source], (started, finished): (Timestamp, Timestamp)) -> u64 {
    let whole = sources.iter().filter(|source| source.details.failed.is_none());
    let first = whole.clone().map(|source| source.point.unwrap_or(started)).min().unwrap_or(started);
    let last_point = |source: &record::Source| {
        let of_databases = source.details.postgres.as_ref().and_then(|postgres| postgres.last_point);
        of_databases.or(source.point).unwrap_or(finished)
    };
    let last = whole.map(last_point).max().unwrap_or(finished);
    let window = Duration::try_from(last.duration_since(first)).unwrap_or_default();
    u64::try_from(window.as_millis()).unwrap_or(u64::MAX)
}
