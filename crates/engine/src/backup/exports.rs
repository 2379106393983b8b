//! The answers to an app's queries, as entries: each is a source of its own and
//! asked of the same state of its database as the dump is of.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use lifeboat_format::path::EntryPath;
use lifeboat_format::record;

use super::gather::{self, Dumped, Failures};
use super::servers::{self, Begun};
use super::subject::Job;
use crate::config::{Export, PostgresSource};
use crate::pg::export::{Answer, Of};
use crate::report::ExportedReport;
use crate::source::streamed::{Seen, Streamed};
use crate::{Cancel, Error, ErrorKind, Result};

/// The word for the kind in a manifest.
pub(super) const KIND: &str = "export";
/// Of what the names of such sources begin.
const PREFIX: &str = "exports/";
/// How long a lock is waited for. Who is about to change a table waits for our
/// locks, and the query for him: that never ends by itself.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// A query that was asked, and whose answer is still to be read.
pub(super) struct Exporting {
    pub(super) dumped: Dumped,
    /// How many rows came so far.
    rows: Arc<AtomicU64>,
}

/// Whether a source of that name is an export.
pub(super) fn is_export(source: &str) -> bool {
    source.starts_with(PREFIX)
}

/// The export that a source of that name is, and its server.
fn find<'a>(job: &'a Job<'_>, source: &str) -> Option<(&'a Export, &'a PostgresSource)> {
    let export = job.exports.iter().find(|(name, _)| source.strip_prefix(PREFIX) == Some(name)).map(|(_, of)| of)?;
    let server = job.servers.iter().find(|(name, _)| *name == export.source);
    Some((export, &server?.1))
}

/// Where a source is, for messages, and what to do where it has failed.
pub(super) fn root_and_next(job: &Job<'_>, source: &str) -> Option<(String, String)> {
    let root = find(job, source)?.1.server.name();
    let name = source.strip_prefix(PREFIX)?;
    Some((root, format!("ask it by itself: lifeboat export-query {} {name}", job.app_name)))
}

/// Asks every query of `job`, of the states that the dumps which were `begun` are of.
pub(super) fn begin(
    job: &Job<'_>,
    begun: &[Begun],
    patience: Option<Duration>,
    (seen, started): (&Seen, Timestamp),
    cancel: &Cancel,
    failures: &mut Failures,
) -> Result<Vec<Exporting>> {
    let mut all = Vec::new();
    for (name, _) in &job.exports {
        let source = format!("{PREFIX}{name}");
        let Some((export, server)) = find(job, &source) else { continue };
        let dump = begun.iter().find(|begun| begun.dumped.description.name == export.source);
        let asked = match dump {
            Some(dump) => ask(job, (name, &source, export, server), dump, patience, (seen, started), cancel),
            None => {
                let what = format!("the source {} failed, of whose state it would be", export.source);
                Err(Error::new(ErrorKind::Failed, what))
            }
        };
        all.extend(failures.keep(&source, Path::new(&server.server.name()), asked)?);
    }
    Ok(all)
}

fn ask(
    job: &Job<'_>,
    (name, source, export, server): (&str, &str, &Export, &PostgresSource),
    dump: &Begun,
    patience: Option<Duration>,
    (seen, started): (&Seen, Timestamp),
    cancel: &Cancel,
) -> Result<Exporting> {
    let secret = job.app.map(|app| app.secret_columns.as_slice()).unwrap_or_default();
    let lock_timeout = patience.unwrap_or(server.lock_timeout).min(LOCK_WAIT);
    let of = Of { snapshot: dump.counting.snapshot(&export.database), lock_timeout };
    let answer = Answer::ask(&server.server.route()?, (name, export), secret, of, cancel)?;
    let rows = answer.rows();
    let place = EntryPath::new(record::Source::usual_place(KIND, source))?;
    let mut description = gather::describe(source, KIND, None, started);
    description.point = dump.dumped.description.point;
    description.details.export =
        Some(record::Export { source: export.source.clone(), database: export.database.clone(), rows: 0 });
    let point = description.point.unwrap_or(started);
    let items = vec![Streamed::new(place.clone(), source, point, servers::once(Box::new(answer)), seen)];
    Ok(Exporting { dumped: Dumped { description, place, items }, rows })
}

impl Exporting {
    /// What is captured, and what counts its rows meanwhile.
    pub(super) fn parted(self) -> (Dumped, (String, Arc<AtomicU64>)) {
        let name = self.dumped.description.name.clone();
        (self.dumped, (name, self.rows))
    }
}

/// Puts how many `rows` there were into the records of `sources`.
pub(super) fn fill(sources: &mut [record::Source], rows: &[(String, Arc<AtomicU64>)]) {
    for source in sources {
        let counted = rows.iter().find(|(name, _)| *name == source.name);
        if let (Some(export), Some((_, rows))) = (&mut source.details.export, counted) {
            export.rows = rows.load(Ordering::Relaxed);
        }
    }
}

/// What is told of the exports among `sources`.
pub(super) fn reports(sources: &[record::Source], seen: &Seen) -> Vec<ExportedReport> {
    let report = |source: &record::Source| {
        let export = source.details.export.as_ref()?;
        let path = EntryPath::new(source.place().as_bytes()).ok();
        Some(ExportedReport {
            name: source.name.strip_prefix(PREFIX).unwrap_or(&source.name).to_owned(),
            rows: export.rows,
            size_bytes: path.and_then(|path| seen.bytes(&path)).unwrap_or(0),
        })
    };
    sources.iter().filter_map(report).collect()
}
