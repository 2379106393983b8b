//! How many rows a dump holds of each table, counted while it passes by: no
//! other session could see the state that the dump's transaction sees.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

/// Longer beginnings of statements name no table.
const BEGIN_MAX_BYTES: usize = 1024;
const CREATE: &[u8] = b"CREATE TABLE ";
const INSERT: &[u8] = b"INSERT INTO ";
const DELIMITER: &[u8] = b"DELIMITER ";

/// The rows of each table of a dump that was read to its end.
#[derive(Clone, Default)]
pub(crate) struct Rows(Arc<Mutex<Option<BTreeMap<String, u64>>>>);

impl Rows {
    /// They, if they are known.
    pub(crate) fn take(&self) -> Option<BTreeMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A dump that is read.
pub(super) struct Counting<R> {
    dump: R,
    counter: Counter,
    rows: Rows,
}

impl<R: Read> Counting<R> {
    pub(super) fn new(dump: R, rows: Rows) -> Self {
        Self { dump, counter: Counter::default(), rows }
    }
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.dump.read(buffer)?;
        if read > 0 {
            self.counter.see(&buffer[..read]);
        } else if !buffer.is_empty() {
            let tables = std::mem::take(&mut self.counter.tables);
            *self.rows.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(tables);
        }
        Ok(read)
    }
}

/// What the next byte is a part of.
enum At {
    /// The beginning of a line, so far.
    Begin(Vec<u8>),
    /// The rest of a line that does not matter.
    Rest,
    /// `INSERT INTO`, its table and its columns; whether it is a name in backquotes.
    Columns(bool),
    /// The rows of an `INSERT`: whether it is a string, a letter that a backslash
    /// stands before, and how many parentheses are open.
    Rows { is_string: bool, is_escaped: bool, depth: u32 },
}

struct Counter {
    tables: BTreeMap<String, u64>,
    /// The table whose rows come.
    table: String,
    at: At,
    /// Whether it is a routine, whose lines may look like any others.
    is_routine: bool,
}

impl Default for Counter {
    fn default() -> Self {
        Self { tables: BTreeMap::new(), table: String::new(), at: At::Begin(Vec::new()), is_routine: false }
    }
}

impl Counter {
    fn see(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let seen = match &mut self.at {
                At::Begin(_) => self.begin(bytes),
                At::Rest => {
                    let end = bytes.iter().position(|byte| *byte == b'\n');
                    if end.is_some() {
                        self.at = At::Begin(Vec::new());
                    }
                    end.map_or(bytes.len(), |end| end + 1)
                }
                At::Columns(_) => self.columns(bytes),
                At::Rows { .. } => self.rows(bytes),
            };
            bytes = &bytes[seen..];
        }
    }

    /// A statement that matters begins a line, and says which table it is about at once.
    fn begin(&mut self, bytes: &[u8]) -> usize {
        let At::Begin(line) = &mut self.at else { return 0 };
        for (at, byte) in bytes.iter().enumerate() {
            line.push(*byte);
            let is_one = |word: &[u8]| word.starts_with(line) || line.starts_with(word);
            let may_matter = is_one(DELIMITER) || (!self.is_routine && (is_one(CREATE) || is_one(INSERT)));
            if *byte == b'\n' {
                if let Some(delimiter) = line.strip_prefix(DELIMITER) {
                    self.is_routine = delimiter.trim_ascii_end() != b";";
                }
                line.clear();
            } else if !may_matter || line.len() > BEGIN_MAX_BYTES {
                self.at = At::Rest;
                return at + 1;
            } else if let Some(table) = table_of(line) {
                let is_insert = line.starts_with(INSERT);
                self.tables.entry(table.clone()).or_default();
                self.table = table;
                self.at = if is_insert { At::Columns(false) } else { At::Rest };
                return at + 1;
            }
        }
        bytes.len()
    }

    fn columns(&mut self, bytes: &[u8]) -> usize {
        let At::Columns(is_name) = &mut self.at else { return 0 };
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'`' => *is_name = !*is_name,
                // That of VALUES.
                b'V' if !*is_name => {
                    self.at = At::Rows { is_string: false, is_escaped: false, depth: 0 };
                    return at + 1;
                }
                _ => {}
            }
        }
        bytes.len()
    }

    fn rows(&mut self, bytes: &[u8]) -> usize {
        let At::Rows { is_string, is_escaped, depth } = &mut self.at else { return 0 };
        let mut rows = 0;
        let mut end = None;
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                _ if *is_escaped => *is_escaped = false,
                b'\\' if *is_string => *is_escaped = true,
                b'\'' => *is_string = !*is_string,
                _ if *is_string => {}
                b'(' => {
                    rows += u64::from(*depth == 0);
                    *depth += 1;
                }
                b')' => *depth = depth.saturating_sub(1),
                b';' if *depth == 0 => {
                    end = Some(at + 1);
                    break;
                }
                _ => {}
            }
        }
        if end.is_some() {
            self.at = At::Rest;
        }
        if let Some(known) = self.tables.get_mut(&self.table) {
            *known += rows;
        }
        end.unwrap_or(bytes.len())
    }
}

/// The table of ``CREATE TABLE `name` `` or ``INSERT INTO `name` ``, once all of the name is there.
fn table_of(line: &[u8]) -> Option<String> {
    let name = line.strip_prefix(CREATE).or_else(|| line.strip_prefix(INSERT))?;
    // What follows says whether a backquote ended it.
    let name = name.strip_prefix(b"`")?.strip_suffix(b"` ")?;
    let is_whole = name.split(|byte| *byte == b'`').count() % 2 == 1;
    is_whole.then(|| String::from_utf8_lossy(name).replace("``", "`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(dump: &str, chunk: usize) -> BTreeMap<String, u64> {
        let mut counter = Counter::default();
        dump.as_bytes().chunks(chunk).for_each(|bytes| counter.see(bytes));
        counter.tables
    }

    /// Shows D15.
    #[test]
    fn rows_are_counted_however_they_are_written_and_cut() {
        let dump = "-- INSERT INTO `no` VALUES (1);\n\
            CREATE TABLE `a ``(b` (\n  `x` int COMMENT 'INSERT INTO `no` VALUES (1);',\n);\n\
            INSERT INTO `a ``(b` VALUES\n(1,'x\\'),('),(2,'it''s;'),\n(3,'\\\\'),(0x28,NULL);\n\
            INSERT INTO `a ``(b` VALUES (5,_binary '(),;\\n');\n\
            CREATE TABLE `empty` (\n  `x` int\n);\n\
            INSERT INTO `cols` (`x VALUES (`, row_start) VALUES (1,2),(-3.5e10,4);\n\
            /*!50001 CREATE VIEW `v` AS SELECT\n NULL AS `id` */;\n\
            DELIMITER ;;\nCREATE PROCEDURE p() begin\nINSERT INTO `no` VALUES (1);\nend ;;\nDELIMITER ;\n\
            INSERT INTO `cols` VALUES (9);\n";
        let expected: BTreeMap<String, u64> =
            [("a `(b", 5), ("cols", 3), ("empty", 0)].into_iter().map(|(name, rows)| (name.to_owned(), rows)).collect();
        for chunk in [1, 2, 3, 7, 64, dump.len()] {
            assert_eq!(counted(dump, chunk), expected, "in pieces of {chunk} bytes");
        }
    }
}
