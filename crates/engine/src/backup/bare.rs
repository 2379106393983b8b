//! One database as it is: `x.db`, which every SQLite opens, with
//! `x.manifest.json` beside it.

use std::io::Read as _;
use std::time::Instant;

use lifeboat_format::capture::Item as _;
use lifeboat_format::model::{Entry, Outcome, Summer, Xattrs};
use lifeboat_format::record::{Record, Totals};
use lifeboat_store::durable::Unnamed;

use super::gather::CopiedDatabase;
use super::subject::Job;
use super::target::Target;
use super::{Gathered, Ground, Made, NOTHING_WRITTEN};
use crate::destination::listing::bare_manifest_of;
use crate::report::BackupReport;
use crate::source::files::LeftOut;
use crate::tally::Tally;
use crate::{Error, ErrorKind, Result};

/// Writes the one database that was gathered, then its manifest.
pub(super) fn write(
    ground: &Ground<'_>,
    job: &Job<'_>,
    target: &Target,
    gathered: Gathered,
    tally: &Tally<'_>,
    began: Instant,
) -> Result<BackupReport> {
    let Gathered { roots, databases, mut sources, .. } = gathered;
    let Ok([database]) = <[CopiedDatabase; 1]>::try_from(databases).map_err(|_| ()) else { return Err(not_one()) };
    if !roots.is_empty() {
        return Err(not_one());
    }
    let started = sources[0].started;
    sources[0].finished = ground.clock.timestamp();
    let reports = vec![database.report()];
    let item = database.into_item();
    target.create_dir()?;
    let not_written = |error: lifeboat_store::Error| target.not_written(error.into());
    let mut file = Unnamed::create(&target.dir).map_err(not_written)?;
    let mut summer = Summer::new();
    let opened = item.open().map_err(|problem| Error::new(ErrorKind::SourceFailed, problem.message))?;
    let mut content = opened.content.expect("a database has content");
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = content.read(&mut buffer).map_err(|error| Error::new(ErrorKind::Failed, error.to_string()))?;
        if read == 0 {
            break;
        }
        summer.update(&buffer[..read]);
        file.append(&buffer[..read]).map_err(not_written)?;
    }
    // A file by itself cannot carry these; a restore leaves those of the live one alone.
    let entry = &Entry { xattrs: Xattrs::default(), ..item.entry().clone() };
    let record = Record::new(entry, Some(summer.finish()));
    let totals = Totals { entries: 1, files: 1, bytes: entry.size, sparse_bytes: 0 };
    let finished = sources[0].finished;
    let outcome = if job.is_scope { Outcome::Scope } else { Outcome::Good };
    let head = super::head_of(job, outcome, sources, totals, tally, (started, finished));
    let size_bytes = file.len();
    let path = file.publish(target.names(), 0o600).map_err(|error| target.not_published(error))?;
    let manifest = bare_manifest_of(&path);
    let text = manifest_text(&head, &record);
    let write = || -> Result<()> {
        let mut file = Unnamed::create(&target.dir)?;
        file.append(&text)?;
        file.publish([manifest.file_name().unwrap_or_default()], 0o600)?;
        Ok(())
    };
    write().map_err(|error| {
        error.state(format!("{} is whole and can be restored without its manifest", path.display()))
    })?;
    let made = Made {
        path,
        head,
        size_bytes,
        verified: true,
        left_out: LeftOut::default(),
        failed: Vec::new(),
        databases: reports,
        pauses: Vec::new(),
    };
    let mut report = made.report(tally);
    report.elapsed = began.elapsed();
    Ok(report)
}

fn not_one() -> Error {
    Error::new(ErrorKind::Usage, "--bare writes one database as it is, and this would be something else")
        .state(NOTHING_WRITTEN)
        .next("name one sqlite source with --only SOURCE")
}

/// The same as the manifest of an archive, with its one file.
fn manifest_text(head: &lifeboat_format::record::Head, record: &Record) -> Vec<u8> {
    let mut json = serde_json::to_value(head).expect("a head has nothing that JSON lacks");
    json["files"] = serde_json::json!([record]);
    let mut text = serde_json::to_vec(&json).expect("a record has nothing that JSON lacks");
    text.push(b'\n');
    text
}
