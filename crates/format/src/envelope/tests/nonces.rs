//! Nothing that must not repeat does; what is written is what it was ever written as.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};

use super::*;
use crate::envelope::stream::{Stream, nonce};
use crate::envelope::{fixed, stream};
use crate::model::Sha256;

const GCM_HELLO: &str =
    "544f4d4f42414b31000186a0070707070707070707070707070707070303030303030392a4865167d83f6f387bb60c5fe13dcc0b6bb2b249";
const GCM_ID: &str = "b5131df30d537f49";
const GCM_LONG: &str = "5f12d73cf96aced865c5a01f33ab741a62f4c4be640b20c77c3016abc401d769";
const OPENSSL_HELLO: &str = "53616c7465645f5f0303030303030303d557b69919745d2c1ad28baca01e303d";
const OPENSSL_HMAC: &str = "e0757b95aa0277100c5f887ad4a14e4e9617ecf5d6ff09c4a6d4a618ea68028d";
const OPENSSL_ID: &str = "9302ed7f09c0b376";
const AGE_HELLO: &str = "030303030303030303030303030303036b24a809a6cc4fdfbde4310258a6e738a53f6784b0";
const AGE_ID: &str = "e669ae85e3185682";

fn stream_of(prefix: u8) -> Stream {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[5; 32]).unwrap());
    Stream { key, prefix: [prefix; 7], head: Vec::new(), from: 0 }
}

/// Shows E5.
#[test]
fn no_nonce_comes_twice_in_a_million_segments() {
    let mut tags = HashSet::new();
    for prefix in [1, 2] {
        // An empty segment is a tag alone, which would come twice if its nonce did.
        let mut writer = stream::Writer::new(stream_of(prefix), Vec::new());
        (0..500_000).for_each(|_| writer.put(false).unwrap());
        let out = writer.finish().unwrap();
        let (each, rest) = out.as_chunks::<16>();
        assert!(rest.is_empty() && each.len() == 500_001);
        tags.extend(each.iter().copied());
    }
    assert_eq!(tags.len(), 1_000_002);
}

/// Shows E5.
#[test]
fn a_nonce_says_file_number_and_end() {
    assert_eq!(hex::encode(nonce([1, 2, 3, 4, 5, 6, 7], 0x0809_0a0b, false)), "0102030405060708090a0b00");
    assert_eq!(hex::encode(nonce([0; 7], u32::MAX, true)), "00000000000000ffffffff01");
    let mut writer = stream::Writer::new(stream_of(1), Vec::new());
    writer.start_at(u32::MAX);
    assert_eq!(writer.put(false).unwrap_err().kind(), io::ErrorKind::FileTooLarge, "the numbers end; none comes again");
    assert_eq!(writer.finish().unwrap_err().kind(), io::ErrorKind::FileTooLarge);
}

/// Shows E5.
#[test]
fn no_two_files_begin_alike() {
    let all = 10_000;
    let headers: Vec<_> = (0..all).map(|_| gcm::new_header(OPENSSL_ITERATIONS)).collect();
    assert_eq!(headers.iter().map(|header| &header[12..28]).collect::<HashSet<_>>().len(), all);
    assert_eq!(headers.iter().map(|header| &header[28..]).collect::<HashSet<_>>().len(), all);
    assert_eq!((0..all).map(|_| openssl::new_salt()).collect::<HashSet<_>>().len(), all);
    let recipients = [Identity::generate().recipient()];
    let begun = (0..1000).map(|_| age::to_recipients(&recipients, Vec::new()).unwrap().finish().unwrap());
    let heads: HashSet<Vec<u8>> = begun.collect();
    let nonces: HashSet<&[u8]> = heads.iter().map(|head| &head[head.len() - 32..][..16]).collect();
    let shares: HashSet<&[u8]> = heads.iter().map(|head| &head[22..][..53]).collect();
    assert_eq!((heads.len(), nonces.len(), shares.len()), (1000, 1000, 1000));
}

/// Shows E5. The other sides were made by Python's `cryptography`, by `openssl`, and
/// by the implementation of age in Go.
#[test]
fn what_is_written_never_changes() {
    let (gcm, beside) = fixed::sealed(Envelope::Gcm, 3, b"hello");
    assert_eq!(hex::encode(&gcm), GCM_HELLO);
    assert_eq!(beside.key_id.as_deref(), Some(GCM_ID));
    let long = fixed::sealed(Envelope::Gcm, 3, &tar_of(200_000)).0;
    assert_eq!(Sha256::of(&long).to_string(), GCM_LONG);
    let (enc, beside) = fixed::sealed(Envelope::Openssl, 3, b"hello");
    assert_eq!(hex::encode(&enc), OPENSSL_HELLO);
    assert_eq!(beside.hmac.as_deref(), Some(OPENSSL_HMAC));
    assert_eq!(beside.key_id.as_deref(), Some(OPENSSL_ID));
    let age = fixed::sealed(Envelope::Age, 3, b"hello").0;
    assert_eq!(hex::encode(&age[fixed::AGE_HEADER.len()..]), AGE_HELLO);
    let recipient: Recipient = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa".parse().unwrap();
    assert_eq!(recipient.id(), AGE_ID);
}

/// Shows E5.
#[test]
fn what_would_take_minutes_is_refused_at_once() {
    let begun = Instant::now();
    let secret = password("correct horse");
    let key = Key::Password(secret.clone());
    for iterations in [0, 1, 99_999, 10_000_001, u32::MAX] {
        let (mut bytes, _) = fixed::sealed(Envelope::Gcm, 1, b"hello");
        bytes[8..12].copy_from_slice(&iterations.to_be_bytes());
        refused(&bytes, &key, &Beside::default());
        let (bytes, beside) = fixed::sealed(Envelope::Openssl, 1, b"hello");
        refused(&bytes, &key, &Beside { iterations: Some(iterations), ..beside });
        let seals =
            [Seal::Gcm { password: secret.clone(), iterations }, Seal::Openssl { key: secret.clone(), iterations }];
        for seal in seals {
            assert_eq!(seal.begin(Vec::new()).err().unwrap().kind(), ErrorKind::Unsupported);
        }
    }
    for work_factor in [21, 22, 30, 63] {
        let stanza = "-> scrypt rF0/NwblUHHTpgQgRpe5CQ";
        let body = "gUjEymFKMVXQEKdMMHL24oYexjE3TIC0O0zGSqJ2aUY";
        let mac = "--- IOXQPiXOf0DrOEZQZRGkGbhI1dHg1L4QZBZQ8DZ1X7s";
        let head = format!("age-encryption.org/v1\n{stanza} {work_factor}\n{body}\n{mac}\n");
        refused(&[head.as_bytes(), &[0; 40]].concat(), &key, &Beside::default());
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
}

fn refused(bytes: &[u8], key: &Key, beside: &Beside) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let error = open_with(&file, key, beside).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}
