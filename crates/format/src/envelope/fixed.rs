//! Files in envelopes that are the same every time: what is else drawn by
//! chance is given. For tests and fuzzers; they encrypt nothing that matters.

use std::io::Write as _;

use super::{Beside, Envelope, Key, OPENSSL_ITERATIONS, Secret, age, gcm, openssl};
use crate::envelope::Identity;

/// The password, and the line of the key file.
pub(crate) const PASSWORD: &[u8] = b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// The identity, the header, and the key in it come from the vectors that implementations of age share
/// (C2SP/CCTV, `x25519`).
const IDENTITY: &str = "AGE-SECRET-KEY-1EGTZVFFV20835NWYV6270LXYVK2VKNX2MMDKWYKLMGR48UAWX40Q2P2LM0";
pub(super) const AGE_HEADER: &[u8] = b"age-encryption.org/v1\n\
-> X25519 TEiF0ypqr+bpvcqXNyCVJpL7OuwPdVwPL7KQEbFDOCc\n\
hjabGXwSLQ9c3S6Lw2i+S2Tu2fiwQHHslbBN6B41FLE\n\
--- WyJp9F/9FOZh7gJdheq2WIJcwHgYc8NIVh3ddwhrcNg\n";
pub(super) const AGE_FILE_KEY: &[u8; 16] = b"YELLOW SUBMARINE";

/// What opens those of `envelope`.
pub(crate) fn key(envelope: Envelope) -> Key {
    match envelope {
        Envelope::Age => Key::Identities(Identity::parse_all(IDENTITY).expect("it is one")),
        Envelope::Openssl | Envelope::Gcm => Key::Password(Secret::new(PASSWORD.to_vec())),
    }
}

/// `plain` in `envelope`, and what stands beside it. Files of different `number`
/// have keys of their own, or else nonces.
pub(crate) fn sealed(envelope: Envelope, number: u8, plain: &[u8]) -> (Vec<u8>, Beside) {
    let secret = Secret::new(PASSWORD.to_vec());
    let written = "memory can be written";
    match envelope {
        Envelope::Age => {
            let head = [AGE_HEADER, &[number; 16]].concat();
            let mut writer = age::with_head(AGE_FILE_KEY, &head, Vec::new()).expect(written);
            writer.write_all(plain).expect(written);
            (writer.finish().expect(written), Beside::default())
        }
        Envelope::Openssl => {
            let begun = openssl::Writer::with_salt(&secret, OPENSSL_ITERATIONS, [number; 8], Vec::new());
            let mut writer = begun.expect(written);
            writer.write_all(plain).expect(written);
            let (bytes, facts) = writer.finish().expect(written);
            (bytes, Beside { hmac: facts.hmac, iterations: facts.iterations, key_id: facts.key_id })
        }
        Envelope::Gcm => {
            let mut header = gcm::new_header(OPENSSL_ITERATIONS);
            header[12..28].fill(7);
            header[28..].fill(number);
            let begun = gcm::Writer::with_header(&secret, OPENSSL_ITERATIONS, &header, Vec::new());
            let mut writer = begun.expect(written);
            writer.write_all(plain).expect(written);
            let (bytes, facts) = writer.finish().expect(written);
            (bytes, Beside { hmac: None, iterations: facts.iterations, key_id: facts.key_id })
        }
    }
}
