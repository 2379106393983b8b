//! Bare databases: `x.db`, with or without the manifest that a backup writes
//! beside it, opened as an archive of that alone.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use jiff::Timestamp;
use lifeboat_format::archive::Archive;
use lifeboat_format::model::{Entry, EntryKind, FileTime, Outcome, Summer, Xattrs};
use lifeboat_format::path::EntryPath;
use lifeboat_format::record::{self, FORMAT, Head, Record, Tool, Totals};
use lifeboat_store as store;
use serde::Deserialize;

use crate::config::{AppConfig, Config, Source};
use crate::destination::listing::bare_manifest_of;
use crate::{Error, ErrorKind, Result, sqlite};

/// The most that the manifest of one file may hold.
const MANIFEST_MAX_BYTES: u64 = 16 << 20;
const NOTHING: &str = "nothing was written, and nothing was stopped";

/// Whether the file at `path` begins as a database does.
pub(super) fn is_one(path: &Path) -> bool {
    let mut start = [0; 16];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut start, 0));
    read.is_ok() && sqlite::begins_like_one(&start)
}

/// Opens it, with its manifest where there is one.
pub(super) fn open(path: &Path) -> Result<Archive> {
    let file = open_file(path)?;
    match manifest(path)? {
        Some((head, record)) => Ok(Archive::bare(file, path, Some(head), record)?),
        None => {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let entry = entry_of(&file, path, &record::Source::usual_place("sqlite", &name))?;
            Ok(Archive::bare(file, path, None, Record::new(&entry, None))?)
        }
    }
}

/// Opens it to be restored in place. Without a manifest, `wanted` (`SOURCE` or
/// `APP/SOURCE`), or that there is only one, says which source it is; it gets
/// the attributes of the live database.
pub(super) fn open_for(path: &Path, wanted: Option<&str>, config: Option<&Config>) -> Result<Archive> {
    let file = open_file(path)?;
    if let Some((head, record)) = manifest(path)? {
        return Ok(Archive::bare(file, path, Some(head), record)?);
    }
    let (app, name, live) = find_source(path, wanted, config)?;
    let mut entry = entry_of(&file, path, &record::Source::usual_place("sqlite", name))?;
    take_after(&mut entry, live);
    let head = head_of(app, name, live, &entry);
    // Nothing says what it should be; what was read once must be what is written.
    let sum = sum(&file, path)?;
    Ok(Archive::bare(file, path, Some(head), Record::new(&entry, Some(sum)))?)
}

fn open_file(path: &Path) -> Result<File> {
    Ok(File::open(path).map_err(|error| store::Error::io("open", path, error))?)
}

/// What `x.manifest.json` says, if it is there.
fn manifest(path: &Path) -> Result<Option<(Head, Record)>> {
    #[derive(Deserialize)]
    struct Manifest {
        #[serde(flatten)]
        head: Head,
        files: Vec<Record>,
    }
    let manifest = bare_manifest_of(path);
    let file = match File::open(&manifest) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|error| store::Error::io("open", &manifest, error))?,
    };
    let mut text = Vec::new();
    file.take(MANIFEST_MAX_BYTES).read_to_end(&mut text).map_err(|error| store::Error::io("read", &manifest, error))?;
    let damaged = |why: &dyn std::fmt::Display| {
        Error::new(ErrorKind::Corrupt, format!("the manifest {} is damaged: {why}", manifest.display()))
            .state(NOTHING)
            .next("move it away to restore the database without it: then nothing says what it should hold")
    };
    let mut parsed: Manifest = serde_json::from_slice(&text).map_err(|error| damaged(&error))?;
    parsed.head.check_format()?;
    match parsed.files.len() {
        1 => Ok(Some((parsed.head, parsed.files.remove(0)))),
        count => Err(damaged(&format!("it lists {count} files, expected one"))),
    }
}

fn entry_of(file: &File, path: &Path, place: &str) -> Result<Entry> {
    let metadata = file.metadata().map_err(|error| store::Error::io("look at", path, error))?;
    Ok(Entry {
        path: EntryPath::new(place)?,
        kind: EntryKind::File,
        size: metadata.len(),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        user: Vec::new(),
        group: Vec::new(),
        mtime: FileTime { seconds: metadata.mtime(), nanos: u32::try_from(metadata.mtime_nsec()).unwrap_or(0) },
        target: Vec::new(),
        rdev: None,
        xattrs: Xattrs::default(),
        sparse: false,
    })
}

/// The database becomes what the live one is to its application; where there
/// is none, it belongs to whom its directory belongs to.
fn take_after(entry: &mut Entry, live: &Path) {
    let of_live = live.metadata();
    let above = live.ancestors().skip(1).find_map(|dir| dir.metadata().ok());
    if let Ok(live) = &of_live {
        entry.mode = live.mode() & 0o7777;
    }
    if let Some(like) = of_live.ok().or(above) {
        (entry.uid, entry.gid) = (like.uid(), like.gid());
    }
}

fn find_source<'a>(
    path: &Path,
    wanted: Option<&str>,
    config: Option<&'a Config>,
) -> Result<(&'a AppConfig, &'a str, &'a Path)> {
    let refuse = |what: String, next: String| {
        Err(Error::new(ErrorKind::Usage, format!("{}: {what}", path.display())).state(NOTHING).next(next))
    };
    let databases = config.into_iter().flat_map(|config| config.apps.values()).flat_map(|app| {
        app.sources.iter().filter_map(move |(name, source)| match source {
            Source::Sqlite(source) => Some((app, name.as_str(), source.path.as_path())),
            _ => None,
        })
    });
    let all: Vec<_> = databases.collect();
    let is_wanted = |(app, name, _): &&(&AppConfig, &str, &Path)| {
        wanted.is_none_or(|wanted| wanted == *name || wanted == format!("{}/{name}", app.name))
    };
    let found: Vec<_> = all.iter().filter(is_wanted).collect();
    let names: Vec<String> = all.iter().map(|(app, name, _)| format!("{}/{name}", app.name)).collect();
    match (found.as_slice(), names.is_empty()) {
        ([one], _) => Ok(**one),
        (_, true) => refuse(
            "it has no manifest, and no lifeboat.yaml says which database it is".to_owned(),
            "restore it into a directory with --to DIR, or write lifeboat.yaml".to_owned(),
        ),
        _ => refuse(
            "it has no manifest, and may be one of several databases".to_owned(),
            format!("say which: --as {}", names.join(" or --as ")),
        ),
    }
}

fn head_of(app: &AppConfig, name: &str, live: &Path, entry: &Entry) -> Head {
    let created = Timestamp::new(entry.mtime.seconds, 0).unwrap_or_default();
    let mut source = record::Source {
        name: name.to_owned(),
        kind: "sqlite".to_owned(),
        at: None,
        names: Vec::new(),
        started: created,
        finished: created,
        point: None,
        pause_ms: 0,
        root: None,
        root_b64: None,
        details: record::Details::default(),
    };
    source.set_root(live.as_os_str().as_encoded_bytes());
    Head {
        format: FORMAT.to_owned(),
        tool: Tool { name: "a database without a manifest".to_owned(), version: String::new() },
        app: app.name.clone(),
        app_version: None,
        host: String::new(),
        id: store::durable::random_hex(),
        created,
        window_ms: 0,
        outcome: Outcome::Scope,
        sources: vec![source],
        totals: Totals { entries: 1, files: 1, bytes: entry.size, sparse_bytes: 0 },
        problems: Vec::new(),
        problem_counts: std::collections::BTreeMap::new(),
        config: None,
    }
}

fn sum(file: &File, path: &Path) -> Result<lifeboat_format::model::Sha256> {
    let (mut summer, mut buffer, mut at) = (Summer::new(), vec![0; 1 << 20], 0);
    loop {
        match file.read_at(&mut buffer, at).map_err(|error| store::Error::io("read", path, error))? {
            0 => return Ok(summer.finish()),
            read => {
                summer.update(&buffer[..read]);
                at += read as u64;
            }
        }
    }
}
