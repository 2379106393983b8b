//! One statement: its text, and what its tokens outside parentheses are.

use std::ops::Range;

use super::input::Input;
use crate::{Error, ErrorKind, Result};

/// What decides how a script is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialect {
    /// `standard_conforming_strings`: a backslash in `'...'` is one.
    pub(super) plain_strings: bool,
    /// The longest statement, in bytes.
    pub(super) statement_bytes_max: usize,
}

/// How many tokens are kept: what a statement is stands at its beginning.
const TOKENS_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A key word, or a name without quotes.
    Word,
    /// A name in double quotes.
    Name,
    /// A string of any form.
    Text,
    /// Anything else, one byte of it.
    Other,
}

#[derive(Debug)]
struct Token {
    kind: Kind,
    place: Range<usize>,
}

/// A statement with its `;`.
#[derive(Debug, Default)]
pub(super) struct Statement {
    text: Vec<u8>,
    tokens: Vec<Token>,
    line: u64,
    /// Parentheses that are open.
    depth: usize,
    /// `BEGIN ATOMIC` and `CASE` that are open, in the body of a routine.
    blocks: usize,
    is_routine: bool,
    before: Before,
    continues: Option<Continues>,
}

/// The token before, as far as it says what the next one is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Before {
    #[default]
    Other,
    /// After it every word is a name.
    Named,
    Begin,
}

/// A string has ended, and one that begins on another line is the rest of it.
#[derive(Clone, Copy, Debug)]
struct Continues {
    escapes: bool,
    is_other_line: bool,
}

impl Statement {
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// The number of the line that it begins in.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// The kind of a token outside parentheses, and its text.
    pub(super) fn token(&self, index: usize) -> Option<(Kind, &[u8])> {
        self.tokens.get(index).map(|token| (token.kind, &self.text[token.place.clone()]))
    }

    /// How many tokens it has outside parentheses, as far as they are kept.
    pub(super) fn tokens(&self) -> usize {
        self.tokens.len()
    }

    /// Whether that token is `word`, in small letters, without quotes.
    pub(super) fn is_word(&self, index: usize, word: &str) -> bool {
        self.token(index).is_some_and(|(kind, text)| kind == Kind::Word && text.eq_ignore_ascii_case(word.as_bytes()))
    }

    /// Reads the statement that `input` stands at.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] where the script ends before it does, [`ErrorKind::Unsafe`]
    /// for a backslash outside quotes and comments.
    pub(super) fn read(&mut self, input: &mut Input<'_>, dialect: Dialect) -> Result<()> {
        *self = Self { text: std::mem::take(&mut self.text), line: input.line(), ..Self::default() };
        self.text.clear();
        let mut reading = Reading { statement: self, input, dialect };
        while !reading.token()? {}
        Ok(())
    }
}

/// A statement that is being read.
struct Reading<'a, 'b> {
    statement: &'a mut Statement,
    input: &'a mut Input<'b>,
    dialect: Dialect,
}

impl Reading<'_, '_> {
    /// Reads one token, or what is between two, and says whether it ended the statement.
    fn token(&mut self) -> Result<bool> {
        let Some(byte) = self.input.peek(0)? else { return Err(self.cut()) };
        let next = self.input.peek(1)?;
        let start = self.statement.text.len();
        match (byte, next) {
            (b'\'', _) => {
                let escapes = match self.statement.continues {
                    Some(Continues { escapes, is_other_line: true }) => escapes,
                    _ => !self.dialect.plain_strings,
                };
                self.string(start, escapes)?;
            }
            (b'e' | b'E', Some(b'\'')) => self.prefixed(start, 1, true)?,
            (b'b' | b'B' | b'x' | b'X', Some(b'\'')) => self.prefixed(start, 1, false)?,
            (b'u' | b'U', Some(b'&')) if self.input.peek(2)? == Some(b'\'') => self.prefixed(start, 2, false)?,
            (b'"', _) => {
                self.quoted(b'"', false)?;
                self.ended(Kind::Name, start);
            }
            (b'$', _) => self.dollar(start)?,
            (b'-', Some(b'-')) => self.copy_until(|byte| byte == b'\n' || byte == b'\r')?,
            (b'/', Some(b'*')) => {
                self.statement.continues = None;
                self.block_comment()?;
            }
            (b'\\', _) => return Err(self.command()),
            (byte, _) if is_space(byte) => {
                self.take(1)?;
                let is_line = matches!(byte, b'\n' | b'\r');
                if let Some(continues) = &mut self.statement.continues {
                    continues.is_other_line |= is_line;
                }
            }
            (byte, _) if begins_word(byte) => self.word(start)?,
            (b'0'..=b'9', _) => {
                self.copy_until(|byte| !byte.is_ascii_digit())?;
                // A letter right after it is part of it, and never a prefix of a string.
                if self.input.peek(0)?.is_some_and(begins_word) {
                    self.take(1)?;
                }
                self.ended(Kind::Other, start);
            }
            (byte, _) => return self.symbol(start, byte),
        }
        Ok(false)
    }

    fn symbol(&mut self, start: usize, byte: u8) -> Result<bool> {
        self.take(1)?;
        let statement = &mut *self.statement;
        match byte {
            b'(' => statement.depth += 1,
            b')' => statement.depth = statement.depth.saturating_sub(1),
            b';' if statement.depth == 0 && statement.blocks == 0 => return Ok(true),
            _ => {}
        }
        self.ended(Kind::Other, start);
        if byte == b'.' {
            self.statement.before = Before::Named;
        }
        Ok(false)
    }

    /// Notes a token that has been read.
    fn ended(&mut self, kind: Kind, start: usize) {
        let statement = &mut *self.statement;
        statement.before = Before::Other;
        statement.continues = None;
        if statement.depth == 0 && statement.tokens.len() < TOKENS_MAX {
            statement.tokens.push(Token { kind, place: start..statement.text.len() });
        }
    }

    fn word(&mut self, start: usize) -> Result<()> {
        self.copy_until(|byte| !continues_word(byte))?;
        let before = self.statement.before;
        self.ended(Kind::Word, start);
        let statement = &mut *self.statement;
        let word = statement.text[start..].to_ascii_lowercase();
        if matches!(word.as_slice(), b"function" | b"procedure") {
            statement.is_routine |= statement.makes_routine();
        }
        // In parentheses each CASE has its END.
        if !statement.is_routine || statement.depth > 0 || before == Before::Named {
            return Ok(());
        }
        match word.as_slice() {
            b"as" => statement.before = Before::Named,
            b"begin" => statement.before = Before::Begin,
            b"atomic" if before == Before::Begin => statement.blocks += 1,
            b"case" if statement.blocks > 0 => statement.blocks += 1,
            b"end" => statement.blocks = statement.blocks.saturating_sub(1),
            _ => {}
        }
        Ok(())
    }

    fn prefixed(&mut self, start: usize, prefix: usize, escapes: bool) -> Result<()> {
        self.take(prefix)?;
        self.string(start, escapes)
    }

    fn string(&mut self, start: usize, escapes: bool) -> Result<()> {
        self.quoted(b'\'', escapes)?;
        self.ended(Kind::Text, start);
        self.statement.continues = Some(Continues { escapes, is_other_line: false });
        Ok(())
    }

    /// Reads up to the quote that ends it; a doubled one is part of it, and so is
    /// one after a backslash, where `escapes`.
    fn quoted(&mut self, quote: u8, escapes: bool) -> Result<()> {
        self.take(1)?;
        loop {
            self.copy_until(|byte| byte == quote || escapes && byte == b'\\')?;
            match (self.input.peek(0)?, self.input.peek(1)?) {
                (Some(b'\\'), Some(_)) if escapes => self.take(2)?,
                (Some(byte), Some(next)) if byte == quote && next == quote => self.take(2)?,
                (Some(byte), _) if byte == quote => return self.take(1),
                _ => return Err(self.cut()),
            }
        }
    }

    /// Reads `$tag$ ... $tag$`, or a `$` that begins no such string.
    fn dollar(&mut self, start: usize) -> Result<()> {
        self.take(1)?;
        if self.input.peek(0)?.is_some_and(begins_word) {
            self.copy_until(|byte| byte == b'$' || !continues_word(byte))?;
        }
        if self.input.peek(0)? != Some(b'$') {
            self.ended(Kind::Other, start);
            return Ok(());
        }
        self.take(1)?;
        let body = self.statement.text.len();
        let tag = start..body;
        loop {
            self.copy_until(|byte| byte == b'$')?;
            if self.input.peek(0)?.is_none() {
                return Err(self.cut());
            }
            self.take(1)?;
            let text = &self.statement.text;
            if text[body..].ends_with(&text[tag.clone()]) {
                self.ended(Kind::Text, start);
                return Ok(());
            }
        }
    }

    fn block_comment(&mut self) -> Result<()> {
        let mut depth = 0_usize;
        loop {
            self.copy_until(|byte| byte == b'/' || byte == b'*')?;
            match (self.input.peek(0)?, self.input.peek(1)?) {
                (Some(b'/'), Some(b'*')) => {
                    depth += 1;
                    self.take(2)?;
                }
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    self.take(2)?;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                (Some(_), _) => self.take(1)?,
                (None, _) => return Err(self.cut()),
            }
        }
    }

    fn take(&mut self, count: usize) -> Result<()> {
        if self.statement.text.len() + count > self.dialect.statement_bytes_max {
            return Err(self.too_long());
        }
        self.statement.text.extend_from_slice(self.input.take(count));
        Ok(())
    }

    /// Takes what comes before the first byte that is an `end`, or before the end of the script.
    fn copy_until(&mut self, end: impl Fn(u8) -> bool) -> Result<()> {
        loop {
            let rest = self.input.rest()?;
            let (count, all) = (rest.iter().position(|byte| end(*byte)), rest.len());
            self.take(count.unwrap_or(all))?;
            if count.is_some() || all == 0 {
                return Ok(());
            }
        }
    }

    fn cut(&self) -> Error {
        let line = self.statement.line;
        let what = format!("the SQL script ends in the middle of the statement that begins in line {line}");
        Error::new(ErrorKind::Corrupt, what)
    }

    fn too_long(&self) -> Error {
        let (line, max) = (self.statement.line, self.dialect.statement_bytes_max);
        let what = format!("line {line}: the statement that begins here is longer than {max} bytes");
        Error::new(ErrorKind::Unsupported, what)
    }

    fn command(&self) -> Error {
        let (line, begun) = (self.input.line(), self.statement.line);
        let what = format!(
            "line {line}: a backslash, which begins a command for psql, in the statement that begins in line {begun}"
        );
        Error::new(ErrorKind::Unsafe, what)
    }
}

impl Statement {
    /// Whether the words up to here are `CREATE [OR REPLACE]` and one that makes a routine.
    fn makes_routine(&self) -> bool {
        match self.tokens.len() {
            2 => self.is_word(0, "create"),
            4 => self.is_word(0, "create") && self.is_word(1, "or") && self.is_word(2, "replace"),
            _ => false,
        }
    }
}

/// White space as the server has it.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn begins_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn continues_word(byte: u8) -> bool {
    begins_word(byte) || byte.is_ascii_digit() || byte == b'$'
}
