//! Where an entry stands inside a snapshot: relative, without tricks, and in
//! one total order that both writer and reader rely on.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;

use crate::{Error, ErrorKind, Result};

/// The longest path accepted, in bytes: 16 times what a system call takes.
const LEN_MAX: usize = 64 << 10;

/// The path of an entry: components of any bytes but `/` and NUL, joined by
/// `/`; never empty, absolute or with a component `.`, `..` or "".
///
/// Ordered component by component, as bytes: a directory, then all that is in
/// it, then what follows. A snapshot lists its entries in this order.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EntryPath(Box<[u8]>);

impl EntryPath {
    /// The path that `bytes` spell.
    ///
    /// # Errors
    /// [`ErrorKind::Unsafe`] when they are no such path; the message says why.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self> {
        let bytes = bytes.into();
        let refuse = |why: &str| {
            let shown = shown(&bytes[..bytes.len().min(200)]);
            Err(Error::new(ErrorKind::Unsafe, format!("the entry path \"{shown}\" {why}")))
        };
        if bytes.is_empty() {
            return refuse("is empty");
        }
        if bytes.len() > LEN_MAX {
            return refuse("is too long");
        }
        if bytes.contains(&0) {
            return refuse("holds a NUL byte");
        }
        for component in bytes.split(|byte| *byte == b'/') {
            match component {
                b"" => return refuse("is absolute, or has an empty component"),
                b"." | b".." => return refuse("has a component that means another directory"),
                _ => {}
            }
        }
        Ok(Self(bytes.into_boxed_slice()))
    }

    /// The path of `name` in the directory at `self`.
    ///
    /// # Errors
    /// As [`EntryPath::new`].
    pub fn join(&self, name: &[u8]) -> Result<Self> {
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        bytes.push(b'/');
        bytes.extend_from_slice(name);
        Self::new(bytes)
    }

    /// The bytes of the path.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as the system takes it.
    #[must_use]
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }

    /// The components, outermost first.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/')
    }

    /// The last component.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.components().next_back().unwrap_or_default()
    }

    /// The directory it stands in; `None` at the top.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let end = self.0.iter().rposition(|byte| *byte == b'/')?;
        Some(Self(self.0[..end].into()))
    }

    /// Whether it lies somewhere below `dir`.
    #[must_use]
    pub fn is_below(&self, dir: &EntryPath) -> bool {
        self.0.strip_prefix(&*dir.0).is_some_and(|rest| rest.first() == Some(&b'/'))
    }
}

/// `/` sorts before every other byte, so that what is in a directory follows it at once.
fn rank(byte: u8) -> u8 {
    if byte == b'/' { 0 } else { byte }
}

impl Ord for EntryPath {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.iter().map(|byte| rank(*byte)).cmp(other.0.iter().map(|byte| rank(*byte)))
    }
}

impl PartialOrd for EntryPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Bytes of a name for a person: what is not printable UTF-8 is escaped as
/// `\n`, `\t`, `\\` or `\xNN`, so that one name is one line, no name moves the
/// cursor, and no two names look the same.
#[must_use]
pub fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                '\\' => text.push_str("\\\\"),
                c if c.is_control() || is_invisible(c) => {
                    let mut utf8 = [0; 4];
                    c.encode_utf8(&mut utf8).bytes().for_each(|byte| push_hex(&mut text, byte));
                }
                c => text.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| push_hex(&mut text, *byte));
    }
    text
}

/// Characters that change the direction of text or are not seen.
#[must_use]
pub fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn push_hex(text: &mut String, byte: u8) {
    use fmt::Write as _;
    write!(text, "\\x{byte:02x}").expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for bad in ["", "/a", "a/", "a//b", ".", "..", "a/../b", "../a", "a/.", "a\0b"] {
            assert_eq!(EntryPath::new(bad).unwrap_err().kind(), ErrorKind::Unsafe, "{bad:?}");
        }
        for good in ["a", "a/b", "...", "a/..b", ".a", "-rf", "$(id)", "a b\n"] {
            assert!(EntryPath::new(good).is_ok(), "{good:?}");
        }
        assert!(EntryPath::new(vec![b'a'; LEN_MAX + 1]).is_err());
    }

    #[test]
    fn what_is_in_a_directory_follows_it_at_once() {
        let mut paths: Vec<EntryPath> = ["a.b", "a", "a/x", "a-b", "a/x/y", "b", "a/x-"]
            .iter()
            .map(|path| EntryPath::new(*path).unwrap())
            .collect();
        paths.sort();
        let shown: Vec<String> = paths.iter().map(EntryPath::to_string).collect();
        assert_eq!(shown, ["a", "a/x", "a/x/y", "a/x-", "a-b", "a.b", "b"]);
        assert!(paths[2].is_below(&paths[0]) && !paths[4].is_below(&paths[0]));
    }

    #[test]
    fn a_hostile_name_is_one_harmless_line() {
        let name = b"a\n\x1b[2J\xff\\ \xe2\x80\xae \xc3\xbc";
        assert_eq!(shown(name), "a\\n\\x1b[2J\\xff\\\\ \\xe2\\x80\\xae \u{fc}");
    }
}
