//! What a backup would do: everything is listed, and nothing read or written.

use std::path::Path;

use lifeboat_format::path::shown;

use super::gather::{self, Failures};
use super::subject::Job;
use super::target::Target;
use super::{Ground, all_failed, count, head, host, options, outputs, preview, printed, sealing, ship, subject};
use crate::Result;
use crate::report::{BackupPlan, BackupRequest, PlannedSource, Watch};
use crate::source::files::{LeftOut, Tree};
use crate::tally::Tally;

/// What would be copied of SQLite databases.
fn sqlite(job: &Job<'_>, failures: &mut Failures) -> Vec<PlannedSource> {
    let mut sources = Vec::new();
    for (name, source) in &job.databases {
        let root = shown(source.path.as_os_str().as_encoded_bytes());
        match source.path.metadata() {
            Ok(metadata) if metadata.is_file() => {
                sources.push(PlannedSource { name: name.clone(), root, files: 1, bytes: metadata.len(), server: None });
            }
            Ok(_) => failures.add(name, &source.path, "it is no file"),
            Err(error) => failures.add(name, &source.path, format!("it cannot be read: {error}")),
        }
    }
    sources
}

/// What [`super::backup`] would do.
pub(crate) fn plan(ground: &Ground<'_>, request: &BackupRequest, watch: Watch<'_>) -> Result<BackupPlan> {
    let host = host();
    let mut job = subject::find(request, ground, &host)?;
    let destinations = ship::check(&job, request, ground.data_dir);
    let is_usable =
        |name: &String| destinations.iter().any(|found| found.destination == *name && found.error.is_none());
    job.destinations.retain(|destination| is_usable(&destination.name));
    let target = Target::find(request, &job, &host, &ground.clock.now())?;
    sealing::rehearse(ground, request, &job)?;
    let tally = Tally::new(watch.monitor);
    let mut failures = Failures::default();
    let freeze = job.app.map(|app| app.freeze.iter().map(|service| service.name.clone()).collect());
    let roots = gather::open_roots(&job, None, |_| false, &mut failures)?;
    let outputs = outputs(&job, &target);
    let mut sources = Vec::new();
    let mut left_out = LeftOut::default();
    for root in roots {
        let (name, path) = (root.name.clone(), root.path.clone());
        let mut tree = Tree::new(vec![root], options(request), &outputs, &tally)?;
        let (files, bytes) = count(&mut tree, watch.cancel)?;
        left_out += tree.left_out;
        sources.push(PlannedSource {
            name,
            root: shown(path.as_os_str().as_encoded_bytes()),
            files,
            bytes,
            server: None,
        });
    }
    sources.extend(sqlite(&job, &mut failures));
    let mut excluded_tables = Vec::new();
    for (name, source) in &job.servers {
        let patterns = job.app.map(|app| app.exclude_tables.as_slice()).unwrap_or_default();
        let found = preview::of(source, request.schema_only, patterns, watch.cancel);
        let root = source.server.name();
        let Some(server) = failures.keep(name, Path::new(&root), found)? else { continue };
        excluded_tables.extend(server.databases.iter().flat_map(|database| database.excluded_tables.clone()));
        sources.push(PlannedSource {
            name: name.clone(),
            root,
            files: server.databases.len() as u64 + u64::from(source.has_globals),
            bytes: server.databases.iter().filter_map(|database| database.size_bytes).sum(),
            server: Some(server),
        });
    }
    sources.extend(printed::plan(&job, &mut excluded_tables, watch, &mut failures)?);
    if failures.0.is_empty() && job.databases.is_empty() {
        head::tell_unmatched(&job, request, excluded_tables.iter(), &tally);
    }
    if sources.is_empty() {
        return Err(all_failed(&failures.0));
    }
    Ok(BackupPlan {
        archive: target.dir.join(target.names().find(|name| !target.dir.join(name).exists()).unwrap_or_default()),
        sources,
        failed_sources: failures.0,
        excluded: left_out.excluded,
        own_archives: left_out.own_archives,
        withheld: left_out.withheld,
        database_logs: left_out.database_logs,
        freeze: freeze.unwrap_or_default(),
        destinations,
        free_bytes: crate::destination::free_space(&target.dir),
        problems: tally.problems(),
    })
}
