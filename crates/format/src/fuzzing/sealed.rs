//! Encrypted files, as they stand or made and then changed.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use lifeboat_store::Cancel;

use super::in_memory;
use crate::Result;
use crate::envelope::{self, Beside, Envelope, Sealed, fixed};

/// The longest input that is looked at.
pub const SEALED_MAX_BYTES: usize = 64 << 10;
/// A bit of the first byte: what is encrypted is made three segments long.
pub const LONG: u8 = 4;
/// A bit of the first byte: nothing is known of the key.
pub const WITHOUT_KEY_ID: u8 = 8;
/// How long that is.
const LONG_BYTES: usize = 150_000;
/// What a segment is long, or part of it in `openssl`.
const SEGMENT_BYTES: usize = (64 << 10) + 16;
/// More iterations than that only take time.
const ITERATIONS_MAX: u32 = 200_000;

/// Reads `data`, but for its first byte, as an encrypted file. That byte says
/// in its lowest two bits whether it is one as it stands, or what an envelope
/// ([`Envelope::ALL`], from 1 on) is to hold: then the second byte is a number of
/// changes, which follow and are made ([`LONG`], [`WITHOUT_KEY_ID`]). Returns
/// whether it was read to its end.
///
/// # Panics
/// When something does not hold that must.
#[must_use]
pub fn envelope(data: &[u8]) -> bool {
    let Some((mode, rest)) = data.split_first() else { return false };
    if rest.len() > SEALED_MAX_BYTES {
        return false;
    }
    match usize::from(mode % 4).checked_sub(1) {
        None => as_it_stands(rest),
        Some(envelope) => changed(Envelope::ALL[envelope], *mode, rest),
    }
}

fn open(bytes: &[u8], beside: &Beside) -> Result<Arc<Sealed>> {
    let keys = [fixed::key(Envelope::Gcm), fixed::key(Envelope::Age)];
    envelope::open(in_memory(bytes).into(), Path::new("fuzzed"), &keys, beside, &Cancel::new()).map(Arc::new)
}

fn as_it_stands(bytes: &[u8]) -> bool {
    let iterations = bytes.get(8..12).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
    if Envelope::detect(bytes) == Some(Envelope::Gcm) && (ITERATIONS_MAX..=10_000_000).contains(&iterations) {
        return false;
    }
    let Ok(sealed) = open(bytes, &Beside::default()) else { return false };
    assert_eq!(sealed.is_authenticated(), sealed.envelope() != Envelope::Openssl);
    let (plain, is_whole) = read(&sealed);
    check_places(&sealed, &plain, is_whole);
    is_whole
}

/// What is handed out, and whether that is all.
fn read(sealed: &Arc<Sealed>) -> (Vec<u8>, bool) {
    let rest = sealed.read_rest(&Cancel::new());
    let mut plain = Vec::new();
    let read = sealed.reader().and_then(|mut reader| reader.read_to_end(&mut plain));
    assert_eq!(rest.is_ok(), read.is_ok(), "whoever reads it to the end");
    (plain, read.is_ok())
}

/// Read from any place, it is the same.
fn check_places(sealed: &Arc<Sealed>, plain: &[u8], is_whole: bool) {
    let Ok(mut reader) = sealed.reader() else { return };
    let len = plain.len();
    for at in [len / 2, 0, len, len.saturating_sub(1), len + 1, 1 << 16, usize::MAX / 4, 17] {
        let mut rest = Vec::new();
        let read = reader.seek(SeekFrom::Start(at as u64)).and_then(|_| reader.read_to_end(&mut rest));
        let expected = plain.get(at..).unwrap_or_default();
        if is_whole {
            assert!(rest == expected, "from {at} of {len}");
            assert!(read.is_ok() || at > len, "from {at} of {len}");
        }
    }
}

/// Encrypts what follows the changes in `rest`, and makes them.
fn changed(envelope: Envelope, mode: u8, rest: &[u8]) -> bool {
    let Some((count, rest)) = rest.split_first() else { return false };
    let Some((changes, plain)) = rest.split_at_checked(usize::from(count % 8) * 4) else { return false };
    let mut plain = plain.to_vec();
    if mode & LONG != 0 {
        plain.push(0);
        plain = plain.iter().copied().cycle().take(LONG_BYTES).collect();
    }
    let (sealed, mut beside) = fixed::sealed(envelope, 1, &plain);
    beside.key_id = beside.key_id.filter(|_| mode & WITHOUT_KEY_ID == 0);
    let (other, _) = fixed::sealed(envelope, 2, &plain);
    let mut bytes = sealed.clone();
    changes.as_chunks::<4>().0.iter().for_each(|change| make(*change, &mut bytes, &other));
    let (read, is_whole) = match open(&bytes, &beside) {
        Ok(opened) => read(&opened),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            (Vec::new(), false)
        }
    };
    assert!(plain.starts_with(&read), "nothing is handed out that was not written");
    assert_eq!(is_whole, bytes == sealed, "it is whole when nothing was changed");
    assert!(!is_whole || read == plain);
    is_whole
}

/// Makes one change: where, what, and by which value.
fn make([high, low, what, value]: [u8; 4], bytes: &mut Vec<u8>, other: &[u8]) {
    let at = bytes.len() * usize::from(u16::from_be_bytes([high, low])) / (1 << 16);
    let segment = |len: usize| at.min(len)..(at + SEGMENT_BYTES).min(len);
    match what % 6 {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= value;
            }
        }
        1 => bytes.truncate(at),
        2 => bytes.insert(at, value),
        3 => drop(bytes.drain(segment(bytes.len()))),
        4 => {
            let piece = bytes[segment(bytes.len())].to_vec();
            drop(bytes.splice(at..at, piece));
        }
        _ => {
            let both = segment(bytes.len().min(other.len()));
            bytes[both.clone()].copy_from_slice(&other[both]);
        }
    }
}
