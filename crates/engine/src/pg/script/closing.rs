//! Whether a plain dump was written to its end.

/// What pg_dump writes last, and pg_dumpall.
const CLOSING: [&[u8]; 2] = [b"-- PostgreSQL database dump complete", b"-- PostgreSQL database cluster dump complete"];
/// As much as may come after that comment and still be part of a dump, in bytes.
const TAIL_BYTES: usize = 512;

/// Whether this comment, with its dashes, closes a dump.
pub(super) fn is_closing(comment: &[u8]) -> bool {
    CLOSING.contains(&comment.trim_ascii_end())
}

/// Watches a dump go by, and knows at its end whether it is complete.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    tail: Vec<u8>,
}

impl Closing {
    /// The next bytes of the dump.
    pub(crate) fn see(&mut self, bytes: &[u8]) {
        let kept = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        let surplus = (self.tail.len() + kept.len()).saturating_sub(TAIL_BYTES);
        self.tail.drain(..surplus.min(self.tail.len()));
        self.tail.extend_from_slice(kept);
    }

    /// Whether what was seen ends as pg_dump and pg_dumpall end a script: the closing
    /// comment, and after it nothing but comments and `\unrestrict`.
    pub(crate) fn is_seen(&self) -> bool {
        let mut lines = self.tail.split(|byte| *byte == b'\n').rev().map(<[u8]>::trim_ascii_end);
        let is_after = |line: &&[u8]| !line.is_empty() && *line != b"--" && !line.starts_with(b"\\unrestrict ");
        lines.find(is_after).is_some_and(is_closing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_seen(pieces: &[&[u8]]) -> bool {
        let mut closing = Closing::default();
        pieces.iter().for_each(|piece| closing.see(piece));
        closing.is_seen()
    }

    #[test]
    fn a_dump_is_complete_with_its_closing_comment() {
        let dump = b"SELECT 1;\n\n--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict abc\n\n";
        assert!(is_seen(&[dump]));
        assert!(is_seen(&[&[b'x'; 9000], b"\n", dump]));
        assert!(is_seen(&dump.chunks(1).collect::<Vec<_>>()));
        assert!(is_seen(&[b"--\r\n-- PostgreSQL database cluster dump complete\r\n--\r\n"]));
        let comment = b"SELECT 1;\n\n--\n-- PostgreSQL database dump complete";
        for cut in 0..comment.len() {
            assert!(!is_seen(&[&dump[..cut]]), "{cut}");
        }
        assert!(is_seen(&[comment]));
    }

    #[test]
    fn anything_after_the_closing_comment_makes_it_incomplete() {
        assert!(!is_seen(&[]));
        assert!(!is_seen(&[b"-- PostgreSQL database dump complete\nSELECT 1;\n"]));
        assert!(!is_seen(&[b"-- PostgreSQL database dump complete, or not\n"]));
        assert!(!is_seen(&[b"1\tx-- PostgreSQL database dump complete\n"]));
    }
}
