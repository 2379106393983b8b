//! One database as it is: `x.db`, which every SQLite opens, with
//! `x.manifest.json` beside it.

use std::io::Read as _;
use std::path::Path;

use lifeboat_format::capture::Item as _;
use lifeboat_format::model::{Entry, Sha256, Summer, Xattrs};
use lifeboat_format::record::{Head, Record, Totals};
use lifeboat_store::durable::Unnamed;

use super::gather::CopiedDatabase;
use super::{Gathered, Made, NOTHING_WRITTEN, Run, bad_archive, head};
use crate::destination::listing::bare_manifest_of;
use crate::source::copied::Copy;
use crate::source::files::LeftOut;
use crate::{Error, ErrorKind, Result};

/// Nobody but its owner reads it: the live database may be closed to others.
pub(super) const MODE: u32 = 0o600;

/// Writes the one database that was gathered, then its manifest.
pub(super) fn write(run: &Run<'_>, gathered: Gathered) -> Result<Made> {
    let Gathered { roots, databases, dumps, printed, .. } = gathered;
    let Ok([database]) = <[CopiedDatabase; 1]>::try_from(databases).map_err(|_| ()) else { return Err(not_one()) };
    if !roots.is_empty() || !dumps.is_empty() || !printed.is_empty() {
        return Err(not_one());
    }
    let mut source = database.describe(run.started);
    source.pause_ms = u64::try_from(run.pauses.longest().as_millis()).unwrap_or(u64::MAX);
    source.finished = run.ground.clock.timestamp();
    let databases = vec![database.report()];
    let item = database.into_item();
    run.target.create_dir()?;
    let (file, sum) = copy(run, &item)?;
    let verified = run.verifies();
    if verified && sum_of(run, &file)? != sum {
        return Err(bad_archive("its content differs"));
    }
    // A file by itself cannot carry these; a restore leaves those of the live one alone.
    let entry = &Entry { xattrs: Xattrs::default(), ..item.entry().clone() };
    let record = Record::new(entry, Some(sum));
    let totals = Totals { entries: 1, files: 1, bytes: entry.size, sparse_bytes: 0 };
    let finished = source.finished;
    let head = head::of(run, vec![source], totals, finished);
    let size_bytes = file.len();
    let path = file.publish(run.target.names(), MODE).map_err(|error| run.target.not_published(error))?;
    write_manifest(&path, &manifest_text(&head, &record))?;
    let (left_out, failed, pauses) = (LeftOut::default(), Vec::new(), run.pauses.take().pauses);
    Ok(Made { path, head, size_bytes, verified, left_out, failed, databases, pauses })
}

/// The database in a file that has no name yet, and its sum.
fn copy(run: &Run<'_>, item: &Copy) -> Result<(Unnamed, Sha256)> {
    let not_written = |error: lifeboat_store::Error| run.target.not_written(error.into());
    let mut file = Unnamed::create(&run.target.dir).map_err(not_written)?;
    let opened = item.open().map_err(|problem| Error::new(ErrorKind::SourceFailed, problem.message))?;
    let mut content = opened.content.expect("a database has content");
    let (mut summer, mut buffer) = (Summer::new(), vec![0; 1 << 20]);
    loop {
        run.cancel.check().map_err(|error| run.target.not_written(error.into()))?;
        let read = content.read(&mut buffer).map_err(|error| Error::new(ErrorKind::Failed, error.to_string()))?;
        if read == 0 {
            return Ok((file, summer.finish()));
        }
        summer.update(&buffer[..read]);
        file.append(&buffer[..read]).map_err(not_written)?;
    }
}

fn sum_of(run: &Run<'_>, file: &Unnamed) -> Result<Sha256> {
    use std::os::unix::fs::FileExt as _;
    let (mut summer, mut at, mut buffer) = (Summer::new(), 0, vec![0; 1 << 20]);
    loop {
        run.cancel.check().map_err(|error| run.target.not_written(error.into()))?;
        let read = file.file().read_at(&mut buffer, at);
        match read.map_err(|error| Error::new(ErrorKind::Failed, error.to_string()).state(NOTHING_WRITTEN))? {
            0 => return Ok(summer.finish()),
            read => {
                summer.update(&buffer[..read]);
                at += read as u64;
            }
        }
    }
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

fn not_one() -> Error {
    Error::new(ErrorKind::Usage, "--bare writes one database as it is, and this would be something else")
        .state(NOTHING_WRITTEN)
        .next("name one sqlite source with --only SOURCE")
}

/// The same as the manifest of an archive, with its one file.
fn manifest_text(head: &Head, record: &Record) -> Vec<u8> {
    let mut json = serde_json::to_value(head).expect("a head has nothing that JSON lacks");
    json["files"] = serde_json::json!([record]);
    let mut text = serde_json::to_vec(&json).expect("a record has nothing that JSON lacks");
    text.push(b'\n');
    text
}
