//! One database as it is: `x.db`, which every SQLite opens, or what pg_dump
//! wrote, `x.dump` or `x.sql`; with `x.manifest.json` beside it.

use std::io::Read as _;
use std::path::Path;

use lifeboat_format::archive::verify::ContentProbe;
use lifeboat_format::capture::Item;
use lifeboat_format::model::{Entry, Sha256, Summer, Xattrs};
use lifeboat_format::record::{self, Head, Record, Totals};
use lifeboat_store::durable::Unnamed;

use super::gather::CopiedDatabase;
use super::servers::{self, Begun};
use super::subject::Job;
use super::{CHECK_DUMP, Gathered, Made, NOTHING_WRITTEN, Run, bad_archive, bad_dump, head};
use crate::config::DumpFormat;
use crate::destination::listing::bare_manifest_of;
use crate::pg::Tools;
use crate::pg::probe::{Probes, Readers};
use crate::report::DatabaseReport;
use crate::source::files::LeftOut;
use crate::source::streamed::Seen;
use crate::{Error, ErrorKind, Result};

/// Nobody but its owner reads it: the live database may be closed to others.
pub(super) const MODE: u32 = 0o600;

/// Whether `job` is one database.
pub(super) fn is_one(job: &Job<'_>) -> bool {
    let on_servers: usize = job.servers.iter().map(|(_, source)| source.databases.len()).sum();
    job.files.is_empty() && job.printed.is_empty() && job.databases.len() + on_servers == 1
}

/// What the file is called by its kind.
pub(super) fn suffix(job: &Job<'_>, is_schema_only: bool) -> &'static str {
    match job.servers.first().map(|(_, source)| source.format) {
        None => ".db",
        Some(_) if is_schema_only => ".schema.sql",
        Some(DumpFormat::Plain) => ".sql",
        Some(DumpFormat::Custom) => ".dump",
    }
}

/// Writes the one database that was gathered, then its manifest.
pub(super) fn write(run: &Run<'_>, gathered: Gathered) -> Result<Made> {
    let Gathered { mut databases, mut dumps, seen, .. } = gathered;
    match (databases.pop(), dumps.pop()) {
        (Some(database), None) => write_copy(run, database),
        (None, Some(begun)) => write_dump(run, begun, &seen),
        _ => Err(not_one()),
    }
}

fn write_copy(run: &Run<'_>, database: CopiedDatabase) -> Result<Made> {
    let source = database.describe(run.started);
    let reports = vec![database.report()];
    let item = database.into_item();
    run.target.create_dir()?;
    let written = copy(run, &item)?;
    finish(run, source, reports, written, &[])
}

/// A dump, compressed as pg_dump does by itself: nothing else does it here.
fn write_dump(run: &Run<'_>, begun: Begun, seen: &Seen) -> Result<Made> {
    let Begun { dumped, tools, counting } = begun;
    let mut sources = vec![dumped.description];
    let postgres = sources[0].details.postgres.as_ref();
    let path = postgres.and_then(|postgres| Some(postgres.databases.first()?.path.clone()));
    let item = dumped
        .items
        .into_iter()
        .find(|item| path.as_ref().is_some_and(|path| item.path().as_bytes() == path.as_bytes()))
        .ok_or_else(not_one)?;
    run.target.create_dir()?;
    let (written, counted) = servers::counting(vec![counting], run.cancel, || copy(run, &item));
    let written = written?;
    servers::fill(&mut sources, counted?);
    let reports = servers::reports(&sources, seen);
    finish(run, sources.remove(0), reports, written, &[tools])
}

/// What was written, which has no name yet.
struct Written {
    file: Unnamed,
    entry: Entry,
    sum: Sha256,
}

/// Reads it back, and gives it its name and its manifest.
fn finish(
    run: &Run<'_>,
    mut source: record::Source,
    databases: Vec<DatabaseReport>,
    Written { file, entry, sum }: Written,
    tools: &[Tools],
) -> Result<Made> {
    source.pause_ms = u64::try_from(run.pauses.longest().as_millis()).unwrap_or(u64::MAX);
    source.finished = run.ground.clock.timestamp();
    // A file by itself cannot carry these; a restore leaves those of the live one alone.
    let entry = Entry { xattrs: Xattrs::default(), size: file.len(), ..entry };
    let record = Record::new(&entry, Some(sum));
    let totals = Totals { entries: 1, files: 1, bytes: entry.size, sparse_bytes: 0 };
    let finished = source.finished;
    let head = head::of(run, vec![source], totals, finished);
    let verified = run.verifies();
    if verified {
        let probes = Probes::of(Some(&head), &Readers::Beside(tools), run.cancel)?;
        read_back(run, &file, &sum, probes.probe(&entry.path))?;
    }
    let size_bytes = file.len();
    let path = file.publish(run.target.names(), MODE).map_err(|error| run.target.not_published(error))?;
    write_manifest(&path, &manifest_text(&head, &record))?;
    let (left_out, failed, pauses) = (LeftOut::default(), Vec::new(), run.pauses.take().pauses);
    let exports = Vec::new();
    Ok(Made { path, head, facts: None, size_bytes, sum: None, verified, left_out, failed, databases, exports, pauses })
}

/// The content of `item` in a file that has no name yet, and its sum.
fn copy(run: &Run<'_>, item: &dyn Item) -> Result<Written> {
    let not_written = |error: lifeboat_store::Error| run.target.not_written(error.into());
    let mut file = Unnamed::create(&run.target.dir).map_err(not_written)?;
    let failed = |why: &dyn std::fmt::Display| {
        Error::new(ErrorKind::SourceFailed, why.to_string()).state(NOTHING_WRITTEN).next(CHECK_DUMP)
    };
    let opened = item.open().map_err(|problem| failed(&problem.message))?;
    let (entry, mut content) = (opened.entry, opened.content.expect("a database has content"));
    let (mut summer, mut buffer) = (Summer::new(), vec![0; 1 << 20]);
    loop {
        run.cancel.check().map_err(|error| run.target.not_written(error.into()))?;
        let read = match content.read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            // A program that was stopped is not to blame.
            read => read.map_err(|error| match run.cancel.check() {
                Ok(()) => failed(&format!("{}: {error}", item.path())),
                Err(cancelled) => run.target.not_written(cancelled.into()),
            })?,
        };
        if read == 0 {
            return Ok(Written { file, entry, sum: summer.finish() });
        }
        summer.update(&buffer[..read]);
        file.append(&buffer[..read]).map_err(not_written)?;
    }
}

/// Compares what is in the file with what was written, and looks into it.
fn read_back(run: &Run<'_>, file: &Unnamed, sum: &Sha256, mut probe: Option<Box<dyn ContentProbe>>) -> Result<()> {
    use std::os::unix::fs::FileExt as _;
    let (mut summer, mut at, mut buffer) = (Summer::new(), 0, vec![0; 1 << 20]);
    let mut looked = Ok(());
    loop {
        run.cancel.check().map_err(|error| run.target.not_written(error.into()))?;
        let read = file.file().read_at(&mut buffer, at);
        match read.map_err(|error| Error::new(ErrorKind::Failed, error.to_string()).state(NOTHING_WRITTEN))? {
            0 => break,
            read => {
                summer.update(&buffer[..read]);
                at += read as u64;
                if let (Ok(()), Some(probe)) = (&looked, &mut probe) {
                    looked = probe.write(&buffer[..read]);
                }
            }
        }
    }
    if summer.finish() != *sum {
        return Err(bad_archive("its content differs"));
    }
    let looked = looked.and_then(|()| probe.map_or(Ok(()), ContentProbe::finish));
    run.cancel.check().map_err(|error| run.target.not_written(error.into()))?;
    looked.map_err(|why| bad_dump(&why))
}

/// Writes the manifest of the bare database at `path`, which then has both.
pub(super) fn write_manifest(path: &Path, text: &[u8]) -> Result<()> {
    let manifest = bare_manifest_of(path);
    let write = || -> Result<()> {
        let mut file = Unnamed::create(manifest.parent().unwrap_or(Path::new(".")))?;
        file.append(text)?;
        file.publish([manifest.file_name().unwrap_or_default()], MODE)?;
        Ok(())
    };
    write().map_err(|error| error.state(format!("{} is whole and can be restored without it", path.display())))
}

pub(super) fn not_one() -> Error {
    Error::new(ErrorKind::Usage, "--bare writes one database as it is, and this would be something else")
        .state(NOTHING_WRITTEN)
        .next("name one source that is one database with --only SOURCE: of the kind sqlite, or postgres")
}

/// The same as the manifest of an archive, with its one file.
fn manifest_text(head: &Head, record: &Record) -> Vec<u8> {
    let mut json = serde_json::to_value(head).expect("a head has nothing that JSON lacks");
    json["files"] = serde_json::json!([record]);
    let mut text = serde_json::to_vec(&json).expect("a record has nothing that JSON lacks");
    text.push(b'\n');
    text
}
