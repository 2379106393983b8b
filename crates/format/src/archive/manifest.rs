//! Reading the manifest as a stream: its head, then one record at a time, so
//! that a million entries need no more memory than one.

use bytes::Bytes;

use super::tar::{Body as _, Tar};
use crate::record::{Head, Record};
use crate::{Error, Result};

/// The most that the head may hold.
const HEAD_MAX_BYTES: usize = 16 << 20;
/// The most that one record may hold: two names of 64 KiB, each with its base64.
const RECORD_MAX_BYTES: usize = 1 << 20;

/// Where the text of a manifest comes from.
pub(super) trait Text {
    /// The next piece; `None` at the end.
    fn piece(&mut self) -> Result<Option<Bytes>>;
}

impl Text for Tar<'_, '_> {
    fn piece(&mut self) -> Result<Option<Bytes>> {
        self.content()
    }
}

/// A manifest being read.
pub(super) struct Reader<T> {
    text: T,
    buffer: Vec<u8>,
    at: usize,
    is_first: bool,
}

/// More than any manifest of ours holds, so that this one is after memory.
fn too_long(what: &str) -> Error {
    Error::new(crate::ErrorKind::Unsafe, format!("the manifest holds {what} that is much too long"))
}

fn bad(what: &str) -> Error {
    Error::corrupt(format!("the manifest is damaged: {what}"))
}

/// Follows JSON far enough to know how deep it is.
#[derive(Default)]
struct Nesting {
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl Nesting {
    fn step(&mut self, byte: u8) {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}

/// Whether a manifest of ours begins with `text`.
pub(super) fn begins_ours(text: &[u8]) -> bool {
    let start = &text[..text.len().min(256)];
    let compact: Vec<u8> = start.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    compact.starts_with(br#"{"format":"lifeboat/"#)
}

impl<T: Text> Reader<T> {
    pub(super) fn new(text: T) -> Self {
        Self { text, buffer: Vec::new(), at: 0, is_first: true }
    }

    /// The byte `ahead` of here; `None` at the end.
    fn byte(&mut self, ahead: usize) -> Result<Option<u8>> {
        while self.at + ahead >= self.buffer.len() {
            let Some(piece) = self.text.piece()? else { return Ok(None) };
            self.buffer.drain(..self.at);
            self.at = 0;
            self.buffer.extend_from_slice(&piece);
        }
        Ok(Some(self.buffer[self.at + ahead]))
    }

    fn skip_space(&mut self) -> Result<Option<u8>> {
        loop {
            match self.byte(0)? {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                other => return Ok(other),
            }
        }
    }

    /// The text of the JSON object that begins here, which is passed.
    fn object(&mut self, max: usize) -> Result<&[u8]> {
        let mut nesting = Nesting::default();
        let mut len = 0;
        loop {
            let byte = self.byte(len)?.ok_or_else(|| bad("it is cut off"))?;
            nesting.step(byte);
            len += 1;
            if nesting.depth == 0 && !nesting.in_string {
                break;
            }
            if len > max {
                return Err(too_long("a record"));
            }
        }
        self.at += len;
        Ok(&self.buffer[self.at - len..self.at])
    }

    /// Whether this is a manifest of ours: it begins with our format.
    pub(super) fn is_ours(&mut self) -> Result<bool> {
        self.byte(256)?;
        Ok(begins_ours(&self.buffer))
    }

    /// The head, and the reader of the records after it.
    pub(super) fn head(&mut self) -> Result<Head> {
        let mut nesting = Nesting::default();
        let mut len = 0;
        let (mut string_start, mut last_string) = (0, 0..0);
        loop {
            let byte = self.byte(len)?.ok_or_else(|| bad("it lists no files"))?;
            let was_in_string = nesting.in_string;
            nesting.step(byte);
            len += 1;
            if nesting.in_string && !was_in_string {
                string_start = len - 1;
            } else if was_in_string && !nesting.in_string {
                last_string = string_start..len;
            }
            if byte == b'[' && !nesting.in_string && nesting.depth == 2 {
                let since_key = &self.buffer[self.at + last_string.start..self.at + len];
                if is_files_key(since_key) {
                    break;
                }
            }
            if len > HEAD_MAX_BYTES {
                return Err(too_long("a head"));
            }
            if len > 1 && nesting.depth == 0 {
                return Err(bad("it lists no files"));
            }
        }
        // A key of an object further down is followed by a list at a greater depth, so this one is ours.
        let before_files = self.buffer[self.at..self.at + last_string.start].trim_ascii_end();
        let before_files = before_files.strip_suffix(b",").ok_or_else(|| bad("a comma is missing"))?;
        let json = [before_files, b"}"].concat();
        self.at += len;
        let head: Head = parse_head(&json)?;
        head.check_format()?;
        Ok(head)
    }

    /// The next record; `None` after the last.
    pub(super) fn record(&mut self) -> Result<Option<Record>> {
        let mut next = self.skip_space()?;
        if next == Some(b']') {
            self.at += 1;
            return self.end().map(|()| None);
        }
        if !self.is_first {
            if next != Some(b',') {
                return Err(bad("a comma is missing"));
            }
            self.at += 1;
            next = self.skip_space()?;
        }
        self.is_first = false;
        if next != Some(b'{') {
            return Err(bad("an entry is no object"));
        }
        let record = self.object(RECORD_MAX_BYTES)?;
        serde_json::from_slice(record).map(Some).map_err(|error| bad(&error.to_string()))
    }

    /// Nothing may follow the list.
    fn end(&mut self) -> Result<()> {
        if self.skip_space()? != Some(b'}') {
            return Err(bad("its list of files is not its last part"));
        }
        self.at += 1;
        if self.skip_space()?.is_some() {
            return Err(bad("something follows it"));
        }
        // The next call finds the same end.
        self.at -= 1;
        self.buffer.truncate(self.at);
        self.buffer.extend_from_slice(b"]}");
        Ok(())
    }
}

/// Whether `text` is `"files": [`, with any white space.
fn is_files_key(text: &[u8]) -> bool {
    let after_key = text.strip_prefix(b"\"files\"").map(<[u8]>::trim_ascii_start);
    after_key.and_then(|rest| rest.strip_prefix(b":")).is_some_and(|rest| rest.trim_ascii() == b"[")
}

/// The format is looked at first: a newer one may have other fields.
fn parse_head(json: &[u8]) -> Result<Head> {
    #[derive(serde::Deserialize)]
    struct Version {
        format: String,
        /// The real one stands after what is parsed here.
        #[serde(default)]
        files: Option<serde::de::IgnoredAny>,
    }
    let damaged = |error: serde_json::Error| bad(&error.to_string());
    let version: Version = serde_json::from_slice(json).map_err(damaged)?;
    if version.files.is_some() {
        return Err(bad("it lists files twice"));
    }
    match serde_json::from_slice::<Head>(json) {
        Ok(head) => Ok(head),
        Err(error) if version.format == crate::record::FORMAT => Err(damaged(error)),
        Err(_) => {
            let message =
                format!("the manifest's format is {}, which this version cannot read; update Lifeboat", version.format);
            Err(Error::new(crate::ErrorKind::Unsupported, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pieces(Vec<Bytes>);

    impl Text for Pieces {
        fn piece(&mut self) -> Result<Option<Bytes>> {
            Ok(if self.0.is_empty() { None } else { Some(self.0.remove(0)) })
        }
    }

    fn reader(text: &str, piece_len: usize) -> Reader<Pieces> {
        let pieces = text.as_bytes().chunks(piece_len).map(Bytes::copy_from_slice).collect();
        Reader::new(Pieces(pieces))
    }

    const HEAD: &str = r#"{"format":"lifeboat/1","tool":{"name":"t","version":"1"},"app":"[\"files\":[","host":"h","id":"0",
        "created":"2026-02-24T03:00:00Z","window_ms":0,"outcome":"good","sources":[],"files":"#;

    fn record(path: &str) -> String {
        format!(
            r#"{{"path":"{path}","type":"dir","mode":"0755","uid":0,"gid":0,"mtime":"0.000000000","new":{{"a":[1]}}}}"#
        )
    }

    #[test]
    fn records_come_out_whole_however_the_text_is_cut() {
        let text = format!("{HEAD} [\n{},\n {}\n] }}\n", record("a}\\\"]"), record("b"));
        for piece_len in [1, 2, 3, 7, 100, 10_000] {
            let mut reader = reader(&text, piece_len);
            assert!(reader.is_ours().unwrap());
            assert_eq!(reader.head().unwrap().app, "[\"files\":[");
            assert_eq!(reader.record().unwrap().unwrap().path().unwrap().to_string(), "a}\"]");
            assert_eq!(reader.record().unwrap().unwrap().path().unwrap().to_string(), "b");
            assert!(reader.record().unwrap().is_none());
            assert!(reader.record().unwrap().is_none());
        }
    }

    #[test]
    fn a_manifest_cut_off_or_continued_anywhere_is_refused() {
        let text = format!("{HEAD}[{},{}]}}", record("a"), record("b"));
        let read_all = |text: &str| -> Result<usize> {
            let mut reader = reader(text, 50);
            reader.head()?;
            let mut count = 0;
            while reader.record()?.is_some() {
                count += 1;
            }
            Ok(count)
        };
        assert_eq!(read_all(&text).unwrap(), 2);
        for len in 0..text.len() {
            assert!(read_all(&text[..len]).is_err(), "cut to {len}");
        }
        for more in ["x", "{}", ",\"files\":[]"] {
            assert!(read_all(&format!("{text}{more}")).is_err());
        }
        assert!(read_all(&text.replace("},{", "}{")).is_err());
        for files in ["\"files\" nonsense [", "\"files\":1,\"files\":[", "\"files\":[],\"files\":["] {
            assert!(read_all(&text.replace("\"files\":[{", &format!("{files}{{"))).is_err(), "{files}");
        }
        assert!(read_all(&text.replace(",\"files\":", " \"files\":")).is_err());
    }
}
