//! Bare databases: `x.db`, or what pg_dump wrote (`x.dump`, `x.sql`), with or
//! without the manifest that a backup writes beside it, opened as an archive of
//! that alone.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use jiff::Timestamp;
use lifeboat_format::archive::Archive;
use lifeboat_format::model::{Entry, EntryKind, FileTime, Outcome, Summer, Xattrs};
use lifeboat_format::path::EntryPath;
use lifeboat_format::record::{
    self, DatabaseAttributes, FORMAT, Head, Postgres, PostgresDatabase, Record, Tool, Totals,
};
use lifeboat_store as store;
use serde::Deserialize;

use crate::config::{AppConfig, Config, DumpFormat, Source};
use crate::destination::listing::{self, bare_manifest_of};
use crate::pg::dump::{self, Manner};
use crate::{Error, ErrorKind, Result, sqlite};

/// The most that the manifest of one file may hold.
const MANIFEST_MAX_BYTES: u64 = 16 << 20;
const NOTHING: &str = "nothing was written, and nothing was stopped";

/// What such a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Sqlite,
    /// A dump of a database of a PostgreSQL server.
    Dump(DumpFormat),
}

/// What the file at `path` is, by how it begins; SQL by its name, or because
/// something is beside it that says so. `None`: no database as it is.
pub(super) fn kind_of(path: &Path) -> Option<Kind> {
    let mut start = Vec::new();
    let file = File::open(path).ok().filter(|file| file.metadata().is_ok_and(|found| found.is_file()))?;
    file.take(16).read_to_end(&mut start).ok()?;
    let is_sql = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("sql"));
    if sqlite::begins_like_one(&start) {
        Some(Kind::Sqlite)
    } else if start.starts_with(dump::MAGIC) {
        Some(Kind::Dump(DumpFormat::Custom))
    } else if is_sql || is_bare_sql(path) {
        Some(Kind::Dump(DumpFormat::Plain))
    } else {
        None
    }
}

/// Whether its manifest says that it is SQL.
fn is_bare_sql(path: &Path) -> bool {
    // One that is damaged is told when it is opened.
    let Ok(Some((head, _))) = manifest(path) else { return false };
    let mut databases = head.sources.iter().flat_map(|source| &source.details.postgres).flat_map(|of| &of.databases);
    listing::is_bare(path) && databases.any(|database| database.format == DumpFormat::Plain.word())
}

/// Opens it, with its manifest where there is one.
pub(super) fn open(path: &Path, kind: Kind) -> Result<Archive> {
    let file = open_file(path)?;
    match manifest(path)? {
        Some((head, record)) => Ok(Archive::bare(file, path, Some(head), record)?),
        None => {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let entry = entry_of(&file, path, &entry_path(kind, &name, &name))?;
            Ok(Archive::bare(file, path, None, Record::new(&entry, None))?)
        }
    }
}

/// Opens it to be restored. Without a manifest, `wanted` (`SOURCE`,
/// `SOURCE/DATABASE`, `APP/SOURCE` or `APP/SOURCE/DATABASE`), or that there is
/// only one, says which database it is; it gets the attributes of the live one.
pub(super) fn open_for(path: &Path, kind: Kind, wanted: Option<&str>, config: Option<&Config>) -> Result<Archive> {
    let file = open_file(path)?;
    if let Some((head, record)) = manifest(path)? {
        return Ok(Archive::bare(file, path, Some(head), record)?);
    }
    let found = find(path, kind, wanted, config)?;
    let mut entry = entry_of(&file, path, &entry_path(kind, found.source, found.database))?;
    if let Place::File(live) = found.place {
        take_after(&mut entry, live);
    }
    let head = head_of(&found, kind, &entry);
    // Nothing says what it should be; what was read once must be what is written.
    let sum = sum(&file, path)?;
    Ok(Archive::bare(file, path, Some(head), Record::new(&entry, Some(sum)))?)
}

/// Where it stands in a snapshot.
fn entry_path(kind: Kind, source: &str, database: &str) -> String {
    match kind {
        Kind::Sqlite => record::Source::usual_place("sqlite", source),
        Kind::Dump(format) => {
            let manner = Manner { format, ..Manner::default() };
            format!("{}/{}", record::Source::usual_place("postgres", source), manner.entry_name(database))
        }
    }
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

/// A configured database.
struct Found<'a> {
    app: &'a AppConfig,
    source: &'a str,
    database: &'a str,
    place: Place<'a>,
}

#[derive(Clone, Copy)]
enum Place<'a> {
    File(&'a Path),
    Server,
}

impl Found<'_> {
    /// The names that it may be called by, the shortest that always means it first.
    fn names(&self) -> Vec<String> {
        let (app, source, database) = (&self.app.name, self.source, self.database);
        match self.place {
            Place::File(_) => vec![format!("{app}/{source}"), source.to_owned()],
            Place::Server => {
                let both = format!("{source}/{database}");
                vec![format!("{app}/{both}"), both, format!("{app}/{source}"), source.to_owned()]
            }
        }
    }
}

/// The databases of the kind that are configured.
fn configured<'a>(kind: Kind, config: Option<&'a Config>) -> Vec<Found<'a>> {
    let mut all = Vec::new();
    for app in config.into_iter().flat_map(|config| config.apps.values()) {
        for (source, of) in &app.sources {
            match (of, kind) {
                (Source::Sqlite(sqlite), Kind::Sqlite) => {
                    all.push(Found { app, source, database: source, place: Place::File(&sqlite.path) });
                }
                (Source::Postgres(postgres), Kind::Dump(_)) => {
                    let found = |database: &'a String| Found { app, source, database, place: Place::Server };
                    all.extend(postgres.databases.iter().map(found));
                }
                _ => {}
            }
        }
    }
    all
}

fn find<'a>(path: &Path, kind: Kind, wanted: Option<&str>, config: Option<&'a Config>) -> Result<Found<'a>> {
    let refuse = |what: String, next: String| {
        Err(Error::new(ErrorKind::Usage, format!("{}: {what}", path.display())).state(NOTHING).next(next))
    };
    let all = configured(kind, config);
    let names: Vec<String> = all.iter().filter_map(|found| found.names().into_iter().next()).collect();
    let is_wanted = |found: &Found<'_>| wanted.is_none_or(|wanted| found.names().iter().any(|name| name == wanted));
    let mut found: Vec<Found<'a>> = all.into_iter().filter(is_wanted).collect();
    match (found.len(), names.is_empty()) {
        (1, _) => Ok(found.remove(0)),
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

fn head_of(found: &Found<'_>, kind: Kind, entry: &Entry) -> Head {
    let created = Timestamp::new(entry.mtime.seconds, 0).unwrap_or_default();
    let mut source = record::Source {
        name: found.source.to_owned(),
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
    if let Place::File(live) = found.place {
        source.set_root(live.as_os_str().as_encoded_bytes());
    }
    if let Kind::Dump(format) = kind {
        source.kind = "postgres".to_owned();
        // What it is made with is not known: no owner means that of the live one, else whoever restores it.
        let attributes = DatabaseAttributes { connection_limit: -1, ..DatabaseAttributes::default() };
        let database = PostgresDatabase {
            name: found.database.to_owned(),
            path: entry_path(kind, found.source, found.database),
            format: format.word().to_owned(),
            attributes,
            size_bytes: entry.size,
            ..PostgresDatabase::default()
        };
        source.details.postgres = Some(Postgres { databases: vec![database], ..Postgres::default() });
    }
    Head {
        format: FORMAT.to_owned(),
        tool: Tool { name: "a database without a manifest".to_owned(), version: String::new() },
        app: found.app.name.clone(),
        app_version: None,
        host: String::new(),
        id: store::durable::random_hex(),
        created,
        window_ms: 0,
        outcome: Outcome::Scope,
        envelope: None,
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
