//! A script as pieces for the server: statements, and the data of COPY.

use std::io::Read;

use lifeboat_store::Cancel;

use super::input::Input;
use super::rules::{self, Verdict};
use super::statement::{Dialect, Statement, is_space};
use super::{closing, command};
use crate::{Error, ErrorKind, Result};

/// The longest statement that the server takes, in bytes.
const STATEMENT_BYTES_MAX: usize = (1 << 30) - 1;
/// How much of a comment, or of a line for psql, is looked at, in bytes.
const LINE_BYTES_MAX: usize = 4 << 10;

/// What comes next in a script.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    /// To be sent as it is.
    Statement(&'a Statement),
    /// `COPY ... FROM stdin`: [`Piece::Data`] follows, as often as there is some, then [`Piece::End`].
    Copy(&'a Statement),
    /// Data of the COPY before; a line may come in several pieces.
    Data(&'a [u8]),
    /// The data of the COPY before is complete.
    End,
}

/// What a script was seen to be, as far as it has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outline {
    /// Statements to be sent, COPY included.
    pub(crate) statements: u64,
    /// Those of them that bring data.
    pub(crate) copies: u64,
    /// Statements that are left out: those that make or describe the database itself.
    pub(crate) skipped: u64,
    /// Whether the closing comment of pg_dump was seen, and nothing to be done after it.
    pub(crate) is_complete: bool,
}

#[derive(Clone, Copy)]
enum Place {
    Between,
    /// In data, whose COPY stands in this line.
    Data {
        line: u64,
        begins_line: bool,
    },
}

/// Splits a script.
pub(super) struct Splitter<'a> {
    input: Input<'a>,
    database: &'a str,
    dialect: Dialect,
    statement: Statement,
    place: Place,
    outline: Outline,
}

impl<'a> Splitter<'a> {
    /// `database` is what the script calls the database that it was made from.
    pub(super) fn new(script: &'a mut dyn Read, database: &'a str, cancel: &'a Cancel) -> Self {
        Self {
            input: Input::new(script, cancel),
            database,
            dialect: Dialect { plain_strings: true, statement_bytes_max: STATEMENT_BYTES_MAX },
            statement: Statement::default(),
            place: Place::Between,
            outline: Outline::default(),
        }
    }

    /// Sets how a string without a prefix is read; `SET` in the script changes it.
    pub(super) fn set_plain_strings(&mut self, plain_strings: bool) {
        self.dialect.plain_strings = plain_strings;
    }

    #[cfg(test)]
    pub(super) fn limit_statements(&mut self, bytes: usize) {
        self.dialect.statement_bytes_max = bytes;
    }

    pub(super) fn outline(&self) -> Outline {
        self.outline
    }

    /// How many bytes of the script are dealt with.
    pub(super) fn taken(&self) -> u64 {
        self.input.taken()
    }

    /// The next piece; `None` at the end of the script.
    ///
    /// # Errors
    /// [`ErrorKind::Unsafe`] for what must not be sent, [`ErrorKind::Corrupt`] where the
    /// script ends too early, [`ErrorKind::Cancelled`], and what reading it fails with.
    pub(super) fn next(&mut self) -> Result<Option<Piece<'_>>> {
        if let Place::Data { line, begins_line } = self.place {
            return self.data(line, begins_line).map(Some);
        }
        while self.skip_to_statement()? {
            self.statement.read(&mut self.input, self.dialect)?;
            self.outline.is_complete = false;
            let line = self.statement.line();
            match rules::judge(&self.statement, self.database) {
                Verdict::Refuse(what) => return Err(refused(line, &what)),
                Verdict::Skip => self.outline.skipped += 1,
                Verdict::Send => {
                    if let Some(plain_strings) = rules::sets_plain_strings(&self.statement) {
                        self.dialect.plain_strings = plain_strings;
                    }
                    self.outline.statements += 1;
                    return Ok(Some(Piece::Statement(&self.statement)));
                }
                Verdict::SendWithData => {
                    self.end_line(line)?;
                    self.place = Place::Data { line, begins_line: true };
                    self.outline.statements += 1;
                    self.outline.copies += 1;
                    return Ok(Some(Piece::Copy(&self.statement)));
                }
            }
        }
        Ok(None)
    }

    /// Skips to the next statement, and says whether there is one.
    fn skip_to_statement(&mut self) -> Result<bool> {
        loop {
            let Some(byte) = self.input.peek(0)? else { return Ok(false) };
            match (byte, self.input.peek(1)?) {
                (b'-', Some(b'-')) => {
                    let (_, comment) = self.line()?;
                    self.outline.is_complete |= closing::is_closing(&comment);
                }
                (b'/', Some(b'*')) => self.block_comment()?,
                (b'\\', _) => {
                    let (line, command) = self.line()?;
                    if let Some(what) = command::refused(&command, self.database) {
                        return Err(refused(line, &what));
                    }
                }
                (0xef, Some(0xbb)) if self.input.taken() == 0 && self.input.peek(2)? == Some(0xbf) => {
                    self.input.take(3);
                }
                (byte, _) if is_space(byte) || byte == b';' => {
                    self.input.take(1);
                }
                _ => return Ok(true),
            }
        }
    }

    /// Takes the rest of the line, without its end, and returns its number and its beginning.
    fn line(&mut self) -> Result<(u64, Vec<u8>)> {
        let (number, mut line) = (self.input.line(), Vec::new());
        loop {
            let rest = self.input.rest()?;
            let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let (count, all) = (end.unwrap_or(rest.len()), rest.len());
            let taken = self.input.take(count);
            let room = LINE_BYTES_MAX - line.len();
            line.extend_from_slice(&taken[..count.min(room)]);
            if end.is_some() || all == 0 {
                return Ok((number, line));
            }
        }
    }

    /// Takes a comment, and those in it.
    fn block_comment(&mut self) -> Result<()> {
        let (line, mut depth) = (self.input.line(), 0_u64);
        while let Some(byte) = self.input.peek(0)? {
            match (byte, self.input.peek(1)?) {
                (b'/', Some(b'*')) => {
                    depth += 1;
                    self.input.take(2);
                }
                (b'*', Some(b'/')) => {
                    depth -= 1;
                    self.input.take(2);
                    if depth == 0 {
                        return Ok(());
                    }
                }
                _ => {
                    self.input.take(1);
                }
            }
        }
        Err(corrupt(format!("the SQL script ends in the comment that begins in line {line}")))
    }

    /// Takes the end of the line that a COPY stands in: its data begins in the next one.
    fn end_line(&mut self, line: u64) -> Result<()> {
        loop {
            match (self.input.peek(0)?, self.input.peek(1)?) {
                (Some(b'\n'), _) => {
                    self.input.take(1);
                    return Ok(());
                }
                (Some(b'-'), Some(b'-')) => drop(self.line()?),
                (Some(byte), _) if is_space(byte) => {
                    self.input.take(1);
                }
                (Some(_), _) => {
                    let what = format!("line {line}: something follows COPY ... FROM stdin in its line");
                    return Err(Error::new(ErrorKind::Unsupported, what));
                }
                (None, _) => return Err(no_data(line)),
            }
        }
    }

    /// The next data of the COPY in `line`, or its end.
    fn data(&mut self, line: u64, begins_line: bool) -> Result<Piece<'_>> {
        if begins_line && let Some(length) = self.terminator()? {
            self.input.take(length);
            self.place = Place::Between;
            return Ok(Piece::End);
        }
        let rest = self.input.rest()?;
        let count = before_terminator(rest);
        if count == 0 {
            return Err(no_data(line));
        }
        self.place = Place::Data { line, begins_line: rest[count - 1] == b'\n' };
        Ok(Piece::Data(self.input.take(count)))
    }

    /// The length of the line that ends data, if the next line is one.
    fn terminator(&mut self) -> Result<Option<usize>> {
        if self.input.peek(0)? != Some(b'\\') || self.input.peek(1)? != Some(b'.') {
            return Ok(None);
        }
        Ok(match (self.input.peek(2)?, self.input.peek(3)?) {
            (None, _) => Some(2),
            (Some(b'\n'), _) | (Some(b'\r'), None) => Some(3),
            (Some(b'\r'), Some(b'\n')) => Some(4),
            _ => None,
        })
    }
}

/// How many of these bytes, the first of which are data, come before a line that may end the data.
fn before_terminator(bytes: &[u8]) -> usize {
    let mut from = 0;
    while let Some(end) = bytes[from..].iter().position(|byte| *byte == b'\n') {
        from += end + 1;
        let may_end = match &bytes[from..] {
            [b'\\', b'.', end, ..] => matches!(end, b'\n' | b'\r'),
            [b'\\', b'.'] | [b'\\'] => true,
            _ => false,
        };
        if may_end {
            return from;
        }
    }
    bytes.len()
}

fn refused(line: u64, what: &str) -> Error {
    let next = "Please look at the script: pg_dump writes nothing of that kind into a dump of one database";
    Error::new(ErrorKind::Unsafe, format!("line {line}: {what} is not allowed in an SQL script")).next(next)
}

fn corrupt(what: String) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}

fn no_data(line: u64) -> Error {
    corrupt(format!("the SQL script ends in the data of the COPY in line {line}"))
}
