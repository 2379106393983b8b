//! Emptying tables of a copy, so that nothing of their rows is in its bytes. The
//! structure stays.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use lifeboat_store::Cancel;
use rusqlite::Connection;

use super::check::{self, quoted};
use super::{HEADER_BYTES, copy, open};
use crate::tables;

/// Where the header has the versions for writing and reading: 2 for WAL, 1 else.
const VERSIONS_AT: u64 = 18;

/// What was emptied.
#[derive(Default)]
pub(super) struct Emptied {
    /// Names of tables.
    pub(super) tables: Vec<String>,
    /// Patterns that matched nothing.
    pub(super) notes: Vec<String>,
}

/// Empties the tables of the database at `path`, our own, that match one of
/// `patterns`. A virtual table is made anew, which empties the tables that it
/// keeps its content in (those are never matched by themselves).
pub(super) fn empty_tables(path: &Path, patterns: &[String], cancel: &Cancel) -> rusqlite::Result<Emptied> {
    if patterns.is_empty() {
        return Ok(Emptied::default());
    }
    let versions = set_versions(path, [1, 1]).map_err(|_| rusqlite::Error::InvalidPath(path.to_owned()))?;
    let emptied = empty_in_place(path, patterns, cancel)?;
    let ended = set_versions(path, versions).and_then(|_| wipe_free_pages(path));
    ended.map_err(|_| rusqlite::Error::InvalidPath(path.to_owned()))?;
    Ok(emptied)
}

/// Fills the pages that nothing uses with zeros: the application's SQLite left in
/// them what was deleted or moved, also of rows that were there until now. See
/// sqlite.org/fileformat.html, 1.5: a list of trunk pages, each with the number of
/// the next one, how many pages it lists, and their numbers.
fn wipe_free_pages(path: &Path) -> std::io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let mut header = [0; HEADER_BYTES];
    if file.read_exact_at(&mut header, 0).is_err() {
        return Ok(());
    }
    let page_bytes = super::page_size(&header) as usize;
    let number = |bytes: &[u8], at: usize| bytes[at..].first_chunk().map_or(0, |number| u32::from_be_bytes(*number));
    let place = |page: u32| (u64::from(page) - 1) * page_bytes as u64;
    let pages = file.metadata()?.len() / page_bytes as u64;
    let (mut next, mut seen) = (number(&header, 32), 0);
    let (zeros, mut trunk) = (vec![0; page_bytes], vec![0; page_bytes]);
    // What is no list is damage, which the check finds.
    let is_page = |page: u32| (2..=pages).contains(&u64::from(page));
    while is_page(next) && seen < pages {
        seen += 1;
        file.read_exact_at(&mut trunk, place(next))?;
        let listed = (number(&trunk, 4) as usize).min(page_bytes / 4 - 2);
        let end = 8 + 4 * listed;
        for page in (8..end).step_by(4).map(|at| number(&trunk, at)).filter(|page| is_page(*page)) {
            file.write_all_at(&zeros, place(page))?;
        }
        file.write_all_at(&zeros[end..], place(next) + end as u64)?;
        next = number(&trunk, 0);
    }
    Ok(())
}

/// The versions in the header of the database at `path`, and 1 for an empty one.
pub(super) fn versions(path: &Path) -> std::io::Result<[u8; 2]> {
    let file = File::open(path)?;
    let mut versions = [1; 2];
    if file.metadata()?.len() >= HEADER_BYTES as u64 {
        file.read_exact_at(&mut versions, VERSIONS_AT)?;
    }
    Ok(versions)
}

/// Sets the versions in the header and returns what they were: in WAL mode
/// everything would be written twice, and once into another file.
pub(super) fn set_versions(path: &Path, versions: [u8; 2]) -> std::io::Result<[u8; 2]> {
    let file = File::options().read(true).write(true).open(path)?;
    let mut before = versions;
    if file.metadata()?.len() > 0 {
        file.read_exact_at(&mut before, VERSIONS_AT)?;
        file.write_all_at(&versions, VERSIONS_AT)?;
    }
    Ok(before)
}

fn empty_in_place(path: &Path, patterns: &[String], cancel: &Cancel) -> rusqlite::Result<Emptied> {
    let connection = copy::for_writing(path)?;
    open::acts_not(&connection)?;
    open::obey(&connection, cancel)?;
    connection.execute_batch("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA secure_delete=ON")?;
    let matches = |name: &String| patterns.iter().any(|pattern| tables::matches(pattern, name));
    let emptied_at_once = check::tables(&connection)?.into_iter().filter(matches);
    let made_anew = check::named(&connection, "virtual")?.into_iter().filter(matches);
    let mut emptied = Emptied::default();
    for table in emptied_at_once {
        connection.execute_batch(&format!("DELETE FROM {}", quoted(&table)))?;
        emptied.tables.push(table);
    }
    for table in made_anew {
        make_anew(&connection, &table)?;
        emptied.tables.push(table);
    }
    let is_idle = |pattern: &&String| !emptied.tables.iter().any(|name| tables::matches(pattern, name));
    emptied.notes = patterns
        .iter()
        .filter(is_idle)
        .map(|pattern| format!("exclude_tables: no table is called {pattern}"))
        .collect();
    emptied.tables.sort();
    connection.close().map_err(|(_, error)| error)?;
    Ok(emptied)
}

fn make_anew(connection: &Connection, table: &str) -> rusqlite::Result<()> {
    let find = "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    let made_by: String = connection.query_row(find, [table], |row| row.get(0))?;
    connection.execute_batch(&format!("DROP TABLE {}", quoted(table)))?;
    connection.execute_batch(&made_by)
}
