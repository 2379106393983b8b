//! The rules of `sources`: where they stand, on the host and in a snapshot.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use lifeboat_format::path::EntryPath;
use serde_saphyr::Location;

use super::services::{Services, chosen};
use super::values::{absolute, exact, kind, name, pattern, period, quoted};
use super::{Checked, printed};
use crate::config::raw::{self, At, Wrong};
use crate::config::{DumpFormat, FilesSource, PostgresSource, Server, Source, SqliteSource};
use crate::pg;

/// How long a lock on a database is waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest name of a database, in bytes (PostgreSQL's NAMEDATALEN).
const DATABASE_NAME_MAX: usize = 63;
/// The database that every server has.
const MAINTENANCE_DB: &str = "postgres";
/// The entry that belongs to Lifeboat.
const MANIFEST: &str = "manifest.json";

/// A source that was read, and where its place on the host and its `at` were written.
struct Placed {
    name: String,
    source: Source,
    root: Location,
    at: Option<Location>,
}

/// `exclude` is added to what each `files` source leaves out.
pub(super) fn sources(
    found: At<raw::Named<At<raw::Source>>>,
    services: &Services,
    exclude: &[String],
) -> Checked<BTreeMap<String, Source>> {
    if found.value.0.is_empty() {
        return Err(Wrong::at(found.place, "there is no source, expected at least one"));
    }
    let mut placed: Vec<Placed> = Vec::new();
    for (name, source) in found.value.0 {
        let name = self::name(name)?.value;
        let source = self::source(name, source, services, exclude)?;
        placed.iter().try_for_each(|earlier| refuse_overlap(earlier, &source))?;
        placed.push(source);
    }
    placed.iter().try_for_each(|source| refuse_taken_place(source, &placed))?;
    Ok(placed.into_iter().map(|placed| (placed.name, placed.source)).collect())
}

fn merge_keys(found: raw::Named<At<Vec<At<String>>>>) -> Checked<BTreeMap<String, Vec<String>>> {
    let mut keys = BTreeMap::new();
    for (table, columns) in found.0 {
        let wrong = |place, what: &str| Err(Wrong::at(place, what));
        if table.value.is_empty() {
            return wrong(table.place, "nothing stands here, expected the name of a table");
        }
        if columns.value.is_empty() || columns.value.iter().any(|column| column.value.is_empty()) {
            return wrong(columns.place, "nothing stands here, expected at least one column");
        }
        keys.insert(table.value, columns.value.into_iter().map(|column| column.value).collect());
    }
    Ok(keys)
}

fn source(name: String, source: At<raw::Source>, services: &Services, exclude: &[String]) -> Checked<Placed> {
    let (place, source) = (source.place, source.value);
    let kinds = [
        ("files", source.files.is_some()),
        ("sqlite", source.sqlite.is_some()),
        ("postgres", source.postgres.is_some()),
        ("mariadb", source.mariadb.is_some()),
        ("command", source.command.is_some()),
    ];
    kind(place, "a source", &kinds)?;
    if let Some(mariadb) = source.mariadb {
        return Ok(Placed { name, source: Source::Mariadb(printed::mariadb(place, mariadb)?), root: place, at: None });
    }
    if let Some(command) = source.command {
        return Ok(Placed { name, source: Source::Command(printed::command(command)?), root: place, at: None });
    }
    if let Some(postgres) = source.postgres {
        return Ok(Placed { name, source: Source::Postgres(self::postgres(place, postgres)?), root: place, at: None });
    }
    if let Some(sqlite) = source.sqlite {
        let root = sqlite.path.place;
        let (path, busy_timeout) = (exact(sqlite.path)?, period(sqlite.busy_timeout, BUSY_TIMEOUT)?);
        if path.file_name().is_none() {
            return Err(Wrong::at(root, "`/` is no database, expected the path of a file"));
        }
        let merge_key = merge_keys(sqlite.merge_key)?;
        let source = Source::Sqlite(SqliteSource { path, busy_timeout, merge_key });
        return Ok(Placed { name, source, root, at: None });
    }
    let files = source.files.ok_or_else(|| Wrong::at(place, "a source has no kind"))?;
    let (root, at) = (files.root.place, files.at.as_ref().map(|at| at.place));
    let files = self::files(files, services, exclude)?;
    Ok(Placed { name, source: Source::Files(files), root, at })
}

fn files(files: raw::Files, services: &Services, more: &[String]) -> Checked<FilesSource> {
    let patterns = |patterns: Vec<At<String>>| patterns.into_iter().map(pattern).collect::<Checked<Vec<_>>>();
    let root = exact(files.root)?;
    let include = patterns(files.include)?;
    let mut exclude = patterns(files.exclude)?;
    let more = more.iter().filter(|pattern| !exclude.contains(pattern)).cloned();
    exclude.extend(more.collect::<Vec<_>>());
    let at = files.at.map(|at| self::at(at, &root)).transpose()?;
    // Two commands would pause it, and the first to end would let it go on.
    let is_frozen = |name: &&At<String>| services.frozen.iter().any(|service| service.name == name.value);
    if let Some(name) = files.stop.iter().find(is_frozen) {
        let what = format!(
            "{} stands still for the whole app by `freeze`, expected it in one of the two",
            quoted(&name.value)
        );
        return Err(Wrong::at(name.place, what));
    }
    Ok(FilesSource { root, include, exclude, at, stop: chosen(&services.declared, files.stop)? })
}

fn postgres(place: Location, postgres: raw::Postgres) -> Checked<PostgresSource> {
    let (mut keywords, mut named) = (BTreeMap::new(), None);
    match (postgres.url, postgres.service) {
        (Some(_), Some(service)) => {
            return Err(Wrong::at(service.place, "there is a `url` too, expected one of both"));
        }
        (Some(url), None) => {
            (keywords, named) = pg::parse_url(&url.value).map_err(|what| Wrong::at(url.place, what))?;
        }
        (None, Some(service)) if service.value.trim().is_empty() => {
            return Err(Wrong::at(service.place, "nothing stands here, expected the name of a service"));
        }
        (None, Some(service)) => {
            keywords.insert("service".to_owned(), service.value);
        }
        (None, None) => {}
    }
    let mut databases: Vec<String> = Vec::new();
    for database in postgres.databases {
        let at = database.place;
        let database = self::database(database)?;
        if databases.contains(&database) {
            return Err(Wrong::at(at, format!("{} stands twice, expected each database once", quoted(&database))));
        }
        databases.push(database);
    }
    if databases.is_empty() {
        let none = || Wrong::at(place, "it names no database, expected `databases: [...]`, or one in `url`");
        databases.push(named.take().ok_or_else(none)?);
    }
    let maintenance_db = postgres.maintenance_db.map(self::database).transpose()?;
    let others = named.filter(|named| !databases.contains(named));
    let has_globals = match postgres.globals.as_ref().map(|globals| globals.value.as_str()) {
        None | Some("named") => true,
        Some("none") => false,
        Some("all") => {
            let place = postgres.globals.map_or(place, |globals| globals.place);
            let what = "passwords of roles are backed up into encrypted archives only, which are not there yet; expected `named` or `none`";
            return Err(Wrong::at(place, what));
        }
        Some(other) => {
            let what = raw::unknown("value", other, &["named", "none"]);
            return Err(Wrong::at(postgres.globals.map_or(place, |globals| globals.place), what));
        }
    };
    Ok(PostgresSource {
        server: Server {
            keywords,
            password_file: postgres.password_file.map(absolute).transpose()?,
            maintenance_db: maintenance_db.or(others).unwrap_or_else(|| MAINTENANCE_DB.to_owned()),
            bin_dir: postgres.bin_dir.map(absolute).transpose()?,
            home: None,
        },
        databases,
        format: match postgres.format {
            Some(raw::DumpFormat::Plain) => DumpFormat::Plain,
            Some(raw::DumpFormat::Custom) | None => DumpFormat::Custom,
        },
        has_globals,
        lock_timeout: period(postgres.lock_timeout, BUSY_TIMEOUT)?,
    })
}

fn database(name: At<String>) -> Checked<String> {
    if name.value.is_empty() || name.value.len() > DATABASE_NAME_MAX || name.value.contains('\0') {
        let what = format!("{} is no name of a database, expected 1 to 63 bytes", quoted(&name.value));
        return Err(Wrong::at(name.place, what));
    }
    if ["template0", "template1"].contains(&name.value.as_str()) {
        return Err(Wrong::at(name.place, "new databases are made from this one, expected one with data"));
    }
    Ok(name.value)
}

/// A directory of the snapshot; empty for the top.
fn at(at: At<String>, root: &Path) -> Checked<String> {
    let text = at.value.strip_prefix("./").unwrap_or(&at.value);
    let text = text.strip_suffix('/').unwrap_or(text);
    let is_manifest = |name: &str| name == MANIFEST;
    let taken = || Wrong::at(at.place, format!("the manifest stands at `{MANIFEST}`, expected another place"));
    if text == "." || (text.is_empty() && at.value == "./") {
        let would_be = root.file_name().and_then(|name| name.to_str());
        return if would_be.is_some_and(is_manifest) { Err(taken()) } else { Ok(String::new()) };
    }
    if EntryPath::new(text).is_err() || text.chars().any(char::is_control) {
        let what =
            format!("{} is no place in a snapshot, expected a path such as `state/logs`, or `.`", quoted(&at.value));
        return Err(Wrong::at(at.place, what));
    }
    if text.split('/').next().is_some_and(is_manifest) {
        return Err(taken());
    }
    Ok(text.to_owned())
}

/// Nothing is backed up, and put back, twice. Only a database may lie in a
/// directory of files, which then leaves it out.
fn refuse_overlap(earlier: &Placed, later: &Placed) -> Checked<()> {
    if let (Source::Postgres(a), Source::Postgres(b)) = (&earlier.source, &later.source)
        && a.server.keywords == b.server.keywords
        && let Some(both) = b.databases.iter().find(|database| a.databases.contains(database))
    {
        let what = format!("the source {} has the database {} too", quoted(&earlier.name), quoted(both));
        return Err(Wrong::at(later.root, format!("{what}, expected it in one of them")));
    }
    if let (Source::Mariadb(a), Source::Mariadb(b)) = (&earlier.source, &later.source)
        && a.server.options == b.server.options
        && let Some(both) = b.databases.iter().find(|database| a.databases.contains(database))
    {
        let what = format!("the source {} has the database {} too", quoted(&earlier.name), quoted(both));
        return Err(Wrong::at(later.root, format!("{what}, expected it in one of them")));
    }
    let (Some(a), Some(b)) = (earlier.source.root(), later.source.root()) else { return Ok(()) };
    let is_fine = match (&earlier.source, &later.source) {
        _ if !a.starts_with(b) && !b.starts_with(a) => true,
        (Source::Files(_), Source::Sqlite(_)) => b.starts_with(a) && a != b,
        (Source::Sqlite(_), Source::Files(_)) => a.starts_with(b) && a != b,
        _ => false,
    };
    if is_fine {
        return Ok(());
    }
    let what = format!(
        "{} and {} of the source {} overlap, expected sources apart from each other",
        quoted(&b.to_string_lossy()),
        quoted(&a.to_string_lossy()),
        quoted(&earlier.name)
    );
    Err(Wrong::at(later.root, what))
}

/// No source is put where another one is by default.
fn refuse_taken_place(source: &Placed, all: &[Placed]) -> Checked<()> {
    let (Source::Files(FilesSource { at: Some(at), .. }), Some(place)) = (&source.source, source.at) else {
        return Ok(());
    };
    for other in all.iter().filter(|other| other.name != source.name) {
        let taken = match &other.source {
            Source::Files(FilesSource { at: Some(_), .. }) => continue,
            Source::Files(_) => format!("files/{}", other.name),
            Source::Sqlite(_) => format!("sqlite/{}.db", other.name),
            Source::Postgres(_) => format!("postgres/{}", other.name),
            Source::Mariadb(_) => format!("mariadb/{}", other.name),
            Source::Command(_) => format!("command/{}", other.name),
        };
        if Path::new(at).starts_with(&taken) {
            let what = format!("`{taken}` is where the source {} stands, expected another place", quoted(&other.name));
            return Err(Wrong::at(place, what));
        }
    }
    Ok(())
}
