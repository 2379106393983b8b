//! Small files in each envelope, changed in every way: nothing that was changed
//! is ever taken for whole, and what was wrong is told as far as it can be.

use super::*;
use crate::envelope::fixed;
use crate::envelope::stream::{SEALED_BYTES, SEGMENT_BYTES, TAG_BYTES};

const MASKS: [u8; 3] = [0x01, 0x10, 0xff];

fn in_memory(bytes: &[u8]) -> File {
    let fd = rustix::fs::memfd_create("sealed", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let file = File::from(fd);
    file.write_all_at(bytes, 0).unwrap();
    file
}

/// What was handed out, and how it ended.
fn read(envelope: Envelope, bytes: &[u8], beside: &Beside) -> (Vec<u8>, Result<()>) {
    let mut plain = Vec::new();
    let sealed = match open_with(&in_memory(bytes), &fixed::key(envelope), beside) {
        Ok(sealed) => sealed,
        Err(error) => return (plain, Err(error)),
    };
    assert!(sealed.is_authenticated());
    let rest = sealed.read_rest(&Cancel::new());
    let read = sealed.reader().and_then(|mut reader| reader.read_to_end(&mut plain));
    assert_eq!(rest.is_ok(), read.is_ok(), "whoever reads it: {rest:?}, {read:?}");
    (plain, rest)
}

/// One file, and what it becomes.
struct Case {
    envelope: Envelope,
    plain: Vec<u8>,
    bytes: Vec<u8>,
    beside: Beside,
}

impl Case {
    fn new(envelope: Envelope, len: usize, is_key_known: bool) -> Self {
        let plain = tar_of(len);
        let (bytes, mut beside) = fixed::sealed(envelope, 1, &plain);
        beside.key_id = beside.key_id.filter(|_| is_key_known);
        assert!(read(envelope, &bytes, &beside).1.is_ok());
        Self { envelope, plain, bytes, beside }
    }

    /// With and without what the sidecar says of the key.
    fn both(envelope: Envelope, len: usize) -> [Self; 2] {
        [Self::new(envelope, len, false), Self::new(envelope, len, true)]
    }

    /// Where the segments begin, or the blocks.
    fn from(&self) -> usize {
        match self.envelope {
            Envelope::Age => fixed::AGE_HEADER.len() + 16,
            Envelope::Openssl => 16,
            Envelope::Gcm => gcm::HEADER_BYTES,
        }
    }

    /// The segments.
    fn segments(&self) -> Vec<&[u8]> {
        self.bytes[self.from()..].chunks(SEALED_BYTES).collect()
    }

    fn with(&self, segments: &[&[u8]]) -> Vec<u8> {
        [&self.bytes[..self.from()], &segments.concat()].concat()
    }

    /// Reads `changed`, and says which kind of error was found.
    fn found(&self, what: &str, changed: &[u8]) -> ErrorKind {
        let what = format!("{:?}, {what}", self.envelope);
        assert!(changed != self.bytes, "{what} changes it");
        let (plain, result) = read(self.envelope, changed, &self.beside);
        assert!(self.plain.starts_with(&plain), "{what}: something was handed out that was never written");
        let error = result.expect_err(&what);
        assert!(!error.to_string().is_empty());
        error.kind()
    }

    /// What may be said of a byte that was changed at `at`.
    fn expected(&self, at: usize) -> &'static [ErrorKind] {
        use ErrorKind::{Corrupt, Invalid, Unsupported, WrongKey};
        let (is_key_known, has_more) = (self.beside.key_id.is_some(), self.bytes.len() > 2 * SEALED_BYTES);
        match (self.envelope, at) {
            (Envelope::Age, 0..19) | (Envelope::Openssl | Envelope::Gcm, 0..8) => &[Invalid],
            (Envelope::Age, 19..22) => &[Unsupported, Corrupt],
            // The stanza of a recipient says nothing to others; the line at the end makes sure of it.
            (Envelope::Age, _) if at < fixed::AGE_HEADER.len() - 48 => &[WrongKey, Corrupt],
            (Envelope::Gcm, 8..12) => &[WrongKey, Unsupported],
            (Envelope::Gcm, 12..28) | (Envelope::Openssl, 8..16) => &[WrongKey],
            (Envelope::Gcm, 28..35) if !is_key_known => &[WrongKey],
            (Envelope::Gcm, _) if !is_key_known && !has_more => &[WrongKey],
            (Envelope::Openssl, 16..32) if !is_key_known => &[WrongKey],
            _ => &[Corrupt],
        }
    }

    fn flip(&self, at: usize, mask: u8) {
        let mut changed = self.bytes.clone();
        changed[at] ^= mask;
        let what = format!("byte {at} changed by {mask:#x}");
        let kind = self.found(&what, &changed);
        assert!(self.expected(at).contains(&kind), "{:?}, {what}: {kind:?}", self.envelope);
    }

    fn flip_all(&self) {
        for at in 0..self.bytes.len() {
            // What a key is derived from costs a derivation each time.
            let masks = if at < self.from() && self.envelope != Envelope::Age { &MASKS[at % 2..][..1] } else { &MASKS };
            masks.iter().for_each(|mask| self.flip(at, *mask));
        }
    }

    fn cut(&self, len: usize) {
        let kind = self.found(&format!("cut to {len}"), &self.bytes[..len]);
        let magic_len = if self.envelope == Envelope::Age { 19 } else { 8 };
        let is_sure = self.beside.key_id.is_some() || self.envelope == Envelope::Age || len < self.from() + TAG_BYTES;
        match kind {
            ErrorKind::Invalid => assert!(len < magic_len, "{len}"),
            ErrorKind::Unsupported => assert!((19..22).contains(&len), "{len}"),
            ErrorKind::WrongKey => assert!(!is_sure, "{:?} {len}", self.envelope),
            kind => assert_eq!(kind, ErrorKind::Corrupt),
        }
    }

    fn append(&self) {
        for more in [1, 2, 15, 16, 17, 32, 33, SEGMENT_BYTES, SEALED_BYTES, 3 * SEALED_BYTES + 1] {
            for byte in [0, 0x10, 0xff] {
                let kind = self.found(&format!("{more} more"), &[self.bytes.as_slice(), &vec![byte; more]].concat());
                let is_sure = self.beside.key_id.is_some() || self.envelope != Envelope::Gcm;
                assert!(kind == ErrorKind::Corrupt || !is_sure && kind == ErrorKind::WrongKey, "{more}: {kind:?}");
            }
        }
        let kind = self.found("twice", &self.bytes.repeat(2));
        assert!(matches!(kind, ErrorKind::Corrupt | ErrorKind::WrongKey));
    }
}

/// Shows E4.
#[test]
fn every_byte_of_a_small_file_counts() {
    for envelope in Envelope::ALL {
        Case::both(envelope, 300).iter().for_each(Case::flip_all);
    }
}

/// Shows E4.
#[test]
fn a_file_that_was_cut_off_anywhere_or_added_to_is_found() {
    for envelope in Envelope::ALL {
        for case in Case::both(envelope, 300) {
            (0..case.bytes.len()).for_each(|len| case.cut(len));
            case.append();
        }
    }
}

/// Shows E4.
#[test]
fn long_files_are_no_weaker() {
    for envelope in Envelope::ALL {
        for case in Case::both(envelope, 2 * SEGMENT_BYTES + 1000) {
            let places = (0..=2).flat_map(|segment| {
                let edge = case.from() + segment * SEALED_BYTES;
                [edge.saturating_sub(TAG_BYTES), edge - 1, edge, edge + 1, edge + 500]
            });
            for at in places {
                case.flip(at, 0x01);
                case.cut(at);
            }
            case.append();
        }
    }
}

/// Shows E4.
#[test]
fn segments_stay_where_they_were_and_in_their_file() {
    for envelope in [Envelope::Age, Envelope::Gcm] {
        for len in [2 * SEGMENT_BYTES + 1000, 3 * SEGMENT_BYTES] {
            for case in Case::both(envelope, len) {
                move_segments(&case);
            }
        }
    }
}

fn move_segments(case: &Case) {
    let (other, _) = fixed::sealed(case.envelope, 2, &tar_of(case.plain.len()));
    let theirs: Vec<&[u8]> = other[case.from()..].chunks(SEALED_BYTES).collect();
    let ours = case.segments();
    for one in 0..ours.len() {
        let mut changed = vec![("dropped", ours.clone()), ("doubled", ours.clone()), ("of another file", ours.clone())];
        changed[0].1.remove(one);
        changed[1].1.insert(one, ours[one]);
        changed[2].1[one] = theirs[one];
        for two in 0..one {
            let mut swapped = ours.clone();
            swapped.swap(one, two);
            changed.push(("swapped", swapped));
        }
        changed.push(("the last one", ours[..one].to_vec()));
        for (what, segments) in changed {
            let kind = case.found(&format!("segment {one} {what}"), &case.with(&segments));
            let is_sure = case.beside.key_id.is_some() || case.envelope == Envelope::Age;
            assert!(kind == ErrorKind::Corrupt || !is_sure && kind == ErrorKind::WrongKey, "{one} {what}: {kind:?}");
        }
    }
    let kind = case.found("all of another file", &case.with(&theirs));
    assert!(matches!(kind, ErrorKind::Corrupt | ErrorKind::WrongKey));
}

/// Shows E4.
#[test]
fn a_file_beside_it_that_was_changed_is_found() {
    let case = Case::new(Envelope::Openssl, 300, false);
    let hmac = case.beside.hmac.clone().unwrap();
    let mut changed: Vec<String> = (0..hmac.len()).map(|len| hmac[..len].to_owned()).collect();
    for at in 0..hmac.len() {
        for mask in [0x01, 0x10, 0x20] {
            let mut bytes = hmac.clone().into_bytes();
            bytes[at] ^= mask;
            changed.push(String::from_utf8(bytes).unwrap());
        }
    }
    for line in changed {
        let beside = Beside { hmac: Some(line.clone()), ..case.beside.clone() };
        let error = read(Envelope::Openssl, &case.bytes, &beside).1.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{line}: {error}");
    }
}

/// Shows E4.
#[test]
fn a_file_with_a_passphrase_of_age_is_no_weaker() {
    let plain = tar_of(200);
    let mut writer = Seal::AgePassphrase(password("correct horse")).begin(Vec::new()).unwrap();
    writer.write_all(&plain).unwrap();
    let bytes = writer.finish().unwrap().0;
    let key = Key::Password(password("correct horse"));
    // In the salt, the key, the line that makes sure of them, the nonce, the content; each costs a second.
    for at in [35, 90, 130, bytes.len() - 217, bytes.len() - 100] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let opened = open_with(&in_memory(&changed), &key, &Beside::default());
        let error = opened.and_then(|sealed| sealed.read_rest(&Cancel::new())).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WrongKey | ErrorKind::Corrupt), "{at}: {error}");
    }
}

#[test]
fn a_place_behind_the_end_is_the_end() {
    for envelope in Envelope::ALL {
        for len in [300, SEGMENT_BYTES, 2 * SEGMENT_BYTES + 1000] {
            let case = Case::new(envelope, len, true);
            let sealed = open_with(&in_memory(&case.bytes), &fixed::key(envelope), &case.beside).unwrap();
            let mut reader = sealed.reader().unwrap();
            for behind in [1, 16, 1000, SEGMENT_BYTES, usize::MAX / 2] {
                let mut rest = Vec::new();
                let to = SeekFrom::Start((len + behind) as u64);
                let read = reader.seek(to).and_then(|_| reader.read_to_end(&mut rest));
                assert!(rest.is_empty(), "{envelope:?} {len} {behind}: {read:?}");
            }
            let mut all = Vec::new();
            reader.seek(SeekFrom::Start(0)).unwrap();
            reader.read_to_end(&mut all).unwrap();
            assert!(all == case.plain);
        }
    }
}

#[test]
fn what_follows_damage_is_read_all_the_same() {
    for envelope in [Envelope::Age, Envelope::Gcm] {
        let case = Case::new(envelope, 3 * SEGMENT_BYTES, true);
        let mut changed = case.bytes.clone();
        changed[case.from() + SEALED_BYTES] ^= 1;
        let sealed = open_with(&in_memory(&changed), &fixed::key(envelope), &case.beside).unwrap();
        let (mut reader, mut all) = (sealed.reader().unwrap(), Vec::new());
        reader.read_to_end(&mut all).unwrap_err();
        assert!(all == case.plain[..SEGMENT_BYTES]);
        reader.seek(SeekFrom::Start(2 * SEGMENT_BYTES as u64)).unwrap();
        all.clear();
        reader.read_to_end(&mut all).unwrap();
        assert!(all == case.plain[2 * SEGMENT_BYTES..], "{envelope:?}");
        assert_eq!(sealed.read_rest(&Cancel::new()).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
