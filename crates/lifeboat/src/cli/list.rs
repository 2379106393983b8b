//! `lifeboat backup list`: what is in an archive, as `tar -tv` shows it.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use lifeboat_engine::app::{EntryKind, EntryPath, Head, ListReport, Outcome, Postgres, Record, shown};
use lifeboat_engine::{Error, ErrorKind, Result};
use serde::Serialize;

use super::console::Console;
use super::{Surface, exit_code, render};

pub(super) const NO_MANIFEST: &str = "no manifest: a tar that Lifeboat did not write; it has no sums";
pub(super) const STATE: &str = "nothing was changed: this command only reads";

const EXAMPLES: &str = "\
Examples:
  lifeboat backup list
      The backups in the places that lifeboat.yaml names; without one, those in the current directory
  lifeboat backup list app-backup-2026-02-24.tar.zst
  lifeboat backup list --json app-backup-2026-02-24.tar.zst | jq -c 'select(.type == \"file\")'
  lifeboat backup list backup-made-by-tar.tar.gz
      A tar that Lifeboat did not write is listed too";

/// Show the backups there are, or what is in one of them
///
/// Reads manifests only, and checks no content; that is what `verify` does.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// An archive, or the id of a backup: what is in it. An app: its backups. None: all backups
    #[arg(value_name = "ARCHIVE|ID|APP")]
    archive: Option<PathBuf>,
}

pub(super) fn run(args: &Args, surface: Surface<'_>) -> Result<u8> {
    let working_dir = super::working_dir()?;
    match &args.archive {
        None => Ok(list_all(None, surface, &working_dir)),
        Some(name) => match app_named(name, surface) {
            Some(app) => Ok(list_all(Some(&app), surface, &working_dir)),
            None => {
                let named = surface.app.find_archive(name, None, &working_dir)?;
                contents(&Listed { archive: named.path }, surface)
            }
        },
    }
}

/// The configured app that is meant; `./name` is the file.
pub(super) fn app_named(name: &Path, surface: Surface<'_>) -> Option<String> {
    let text = name.to_str()?;
    let config = surface.app.config.as_ref()?;
    config.apps.contains_key(text).then(|| text.to_owned())
}

/// One line for each backup, the oldest first.
fn list_all(app: Option<&str>, surface: Surface<'_>, working_dir: &Path) -> u8 {
    let console = surface.console;
    let (all, errors) = surface.app.snapshots(app, working_dir);
    for snapshot in &all {
        if console.options.json {
            console.json("snapshot", snapshot);
            continue;
        }
        let app = snapshot.app.as_deref().map_or_else(|| "-".to_owned(), |app| shown(app.as_bytes()));
        console.line(format_args!(
            "{:<8}  {}  {:<7}  {:>10}  {app:<12}  {:<8}  {}{}",
            render::short_id(snapshot.id.as_deref()),
            render::moment(snapshot.created),
            render::outcome(snapshot.outcome),
            render::size(snapshot.size_bytes),
            snapshot.destination.as_deref().unwrap_or("-"),
            render::path(render::path_from(&snapshot.path, working_dir)),
            snapshot.envelope.as_ref().map(|envelope| format!("  ({envelope})")).unwrap_or_default()
        ));
    }
    errors.iter().for_each(|error| console.warning(error));
    if !console.options.json {
        let good = all.iter().filter(|snapshot| snapshot.is_good()).count() as u64;
        let bytes = all.iter().map(|snapshot| snapshot.size_bytes).sum();
        console.info(format_args!(
            "{}, {good} good, {}",
            render::count(all.len() as u64, "backup"),
            render::size(bytes)
        ));
    }
    if errors.is_empty() { exit_code::DONE } else { exit_code::UNREACHABLE }
}

/// The archive whose content is shown.
struct Listed {
    archive: PathBuf,
}

fn contents(args: &Listed, surface: Surface<'_>) -> Result<u8> {
    let console = surface.console;
    let head = surface.app.head(&args.archive).map_err(|error| error.state(STATE))?;
    if let Some(lack) = surface.app.lacks_hmac(&args.archive).map_err(|error| error.state(STATE))? {
        console.warning(lack);
    }
    if console.options.json {
        let archive = render::path(&args.archive);
        console.json("snapshot", &Snapshot { archive, has_manifest: head.is_some(), head: head.as_ref() });
    } else {
        render_head(args, head.as_ref(), surface);
        let seal = surface.app.seal_of(&args.archive).map_err(|error| error.state(STATE))?;
        seal.iter().for_each(|seal| console.info(format_args!("Encryption: {seal}")));
        console.info("");
    }
    let zone = TimeZone::system();
    let mut each = |path: &EntryPath, record: &Record| {
        if console.options.json {
            console.json("entry", record);
        } else {
            console.line(entry_line(path, record, &zone)?);
        }
        // Whoever reads this has seen enough: the rest need not be read.
        if console.is_closed() { Err(Error::new(ErrorKind::Failed, "nobody reads the list any more")) } else { Ok(()) }
    };
    match surface.app.list(&args.archive, surface.cancel, &mut each) {
        Ok(report) => render_totals(&report, surface),
        Err(_) if console.is_closed() => {}
        Err(error) => return Err(error.state(STATE)),
    }
    Ok(exit_code::DONE)
}

#[derive(Serialize)]
struct Snapshot<'a> {
    archive: String,
    has_manifest: bool,
    #[serde(flatten)]
    head: Option<&'a Head>,
}

#[derive(Serialize)]
struct Totals {
    size_bytes: u64,
    entries: u64,
    files: u64,
    bytes: u64,
}

/// `Created: 2026-02-24T03:00:00Z (lifeboat v1.0.0; nefia v0.1.16)`
pub(super) fn created(head: &Head) -> String {
    let created = head.created.strftime("%Y-%m-%dT%H:%M:%SZ");
    let (tool, version) = (shown(head.tool.name.as_bytes()), shown(head.tool.version.as_bytes()));
    let app = head.app_version.as_ref().map(|version| {
        let (app, version) = (shown(head.app.as_bytes()), shown(version.as_bytes()));
        format!("; {app} v{version}")
    });
    format!("Created: {created} ({tool} v{version}{})", app.unwrap_or_default())
}

fn render_head(args: &Listed, head: Option<&Head>, surface: Surface<'_>) {
    let console = surface.console;
    console.info(format_args!("Archive: {}", render::path(&args.archive)));
    let Some(head) = head else {
        console.info(NO_MANIFEST);
        return;
    };
    console.info(created(head));
    let app = shown(head.app.as_bytes());
    let id = shown(head.id.get(..8).unwrap_or(&head.id).as_bytes());
    console.info(format_args!("App: {app} on {}, snapshot {id}", shown(head.host.as_bytes())));
    console.info(match head.outcome {
        Outcome::Good => "Outcome: good",
        Outcome::Partial => "Outcome: partial: something is missing",
        Outcome::Scope => "Outcome: scope: a part of the sources, as was asked for",
    });
    for source in &head.sources {
        let name = shown(source.name.as_bytes());
        let root = source.root_bytes().ok().flatten().unwrap_or_default();
        let failed = source.details.failed.as_ref();
        let failed = failed.map(|why| format!(" (failed: {})", shown(why.as_bytes()))).unwrap_or_default();
        let asked = source.details.export.as_ref().map(|export| format!("{}/{}", export.source, export.database));
        let root = asked.map_or(root, String::into_bytes);
        let from = match &source.details.postgres {
            Some(postgres) => databases_of(postgres),
            None if root.is_empty() => String::new(),
            None => format!(" from {}", shown(&root)),
        };
        console.info(format_args!("Source: {name}{from}{failed}"));
        source.details.postgres.iter().for_each(|postgres| render_databases(postgres, console));
        if let Some(export) = &source.details.export {
            console.info(format_args!("  export: {}", render::count(export.rows, "row")));
        }
        let rows = source.details.database.as_ref().map(|database| {
            let tables = render::count(database.tables.len() as u64, "table");
            format!("{tables}, {}", render::count(database.tables.values().sum(), "row"))
        });
        rows.iter().for_each(|rows| console.info(format_args!("  database: {rows}")));
        for table in source.details.database.iter().flat_map(|database| &database.excluded_tables) {
            console.info(format_args!("  without the rows of {}", shown(table.as_bytes())));
        }
    }
}

/// ` with 2 databases of PostgreSQL 15.18`
fn databases_of(postgres: &Postgres) -> String {
    let (version, count) = (postgres.server_version, render::count(postgres.databases.len() as u64, "database"));
    // Before version 10, two numbers named what one does since.
    let (major, minor) = (version / 10000, version % 10000);
    let version =
        if major < 10 { format!("{major}.{}.{}", minor / 100, minor % 100) } else { format!("{major}.{minor}") };
    let structure = if postgres.schema_only { ", their structure alone" } else { "" };
    format!(" with {count} of PostgreSQL {version}{structure}")
}

fn render_databases(postgres: &Postgres, console: &Console) {
    for database in &postgres.databases {
        let name = shown(database.name.as_bytes());
        if postgres.schema_only {
            console.info(format_args!("  database {name}"));
            continue;
        }
        let tables = render::count(database.tables.len() as u64, "table");
        let is_estimated = database.tables.values().any(|rows| rows.estimated);
        let about = if is_estimated { "about " } else { "" };
        let rows = render::count(database.tables.values().map(|rows| rows.rows).sum(), "row");
        console.info(format_args!("  database {name}: {tables}, {about}{rows}"));
        for table in &database.excluded_tables {
            console.info(format_args!("  without the rows of {}", shown(table.as_bytes())));
        }
    }
}

fn render_totals(report: &ListReport, surface: Surface<'_>) {
    let &ListReport { size_bytes, entries, files, bytes, .. } = report;
    if surface.console.options.json {
        return surface.console.json("summary", &Totals { size_bytes, entries, files, bytes });
    }
    let (size, content) = (render::size(size_bytes), render::size(bytes));
    let (entries, files) = (render::count(entries, "entry"), render::count(files, "file"));
    surface.console.info("");
    surface.console.info(format_args!("{entries}, {files}, {content} of content; the archive has {size}"));
}

/// `drwxr-xr-x root/root 1.2 KiB 2026-02-24 03:00:00 files/app`
fn entry_line(path: &EntryPath, record: &Record, zone: &TimeZone) -> Result<String> {
    let target = shown(&record.target()?.unwrap_or_default());
    let link = match record.kind() {
        EntryKind::Symlink => format!(" -> {target}"),
        EntryKind::Hardlink => format!(" link to {target}"),
        _ => String::new(),
    };
    let size = if record.kind() == EntryKind::File { render::size(record.size()) } else { "-".to_owned() };
    let owner = shown(record.owner().as_bytes());
    let (mode, time) = (mode(record.kind(), record.mode()), time(record.mtime(), zone));
    Ok(format!("{mode} {owner:<15} {size:>10} {time} {path}{link}"))
}

/// As `ls` and `tar` show it: `-rwsr-x--T`.
fn mode(kind: EntryKind, octal: &str) -> String {
    let bits = u32::from_str_radix(octal, 8).unwrap_or(0);
    let kind = match kind {
        EntryKind::File => '-',
        EntryKind::Dir => 'd',
        EntryKind::Symlink => 'l',
        EntryKind::Hardlink => 'h',
        EntryKind::Fifo => 'p',
        EntryKind::Char => 'c',
        EntryKind::Block => 'b',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let has = |bit: u32| (bits >> shift) & bit != 0;
        text.push(if has(4) { 'r' } else { '-' });
        text.push(if has(2) { 'w' } else { '-' });
        text.push(match (bits & special != 0, has(1)) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// `<seconds>.<9 digits>` since 1970 as a local time; as it is where no calendar reaches.
fn time(text: &str, zone: &TimeZone) -> String {
    let seconds = text.split('.').next().and_then(|seconds| seconds.parse().ok());
    match seconds.map(Timestamp::from_second) {
        Some(Ok(time)) => time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        _ => format!("@{}", shown(text.as_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_as_in_ls() {
        let modes = ["0755", "4750", "6644", "1777", "1776"].map(|octal| mode(EntryKind::File, octal));
        assert_eq!(modes, ["-rwxr-xr-x", "-rwsr-x---", "-rwSr-Sr--", "-rwxrwxrwt", "-rwxrwxrwT"]);
        assert_eq!(mode(EntryKind::Dir, "0700"), "drwx------");
    }

    #[test]
    fn times_are_local_and_those_beyond_every_calendar_are_shown_as_they_are() {
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        assert_eq!(time("1771902000.123456789", &zone), "2026-02-24 04:00:00");
        assert_eq!(time("-2.500000000", &zone), "1970-01-01 00:59:58");
        assert_eq!(time("9223372036854775807.000000000", &zone), "@9223372036854775807.000000000");
    }
}
