//! The vectors that implementations of age share (`testdata/age`), each read or
//! refused as it says.
#![expect(clippy::unwrap_used, reason = "these are the helpers of tests")]

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use lifeboat_format::envelope::{self, Beside, Identity, Key, Secret};
use lifeboat_format::model::Sha256;
use lifeboat_format::{Error, ErrorKind};
use lifeboat_store::Cancel;

/// An old version of the library that reads headers wrote them so, and it still reads them.
const READ_ALL_THE_SAME: [&str; 2] = ["stanza_missing_body", "stanza_missing_final_line"];

struct Vector {
    name: String,
    expect: String,
    payload: Option<String>,
    keys: Vec<Key>,
    is_armored: bool,
    file: Vec<u8>,
}

fn vector(path: &Path) -> Vector {
    let bytes = std::fs::read(path).unwrap();
    let end = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap();
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let mut file = bytes[end + 2..].to_vec();
    let all = |wanted: &str| {
        let named = head.lines().filter_map(|line| line.split_once(": "));
        named.filter(|(name, _)| *name == wanted).map(|(_, value)| value.to_owned()).collect::<Vec<_>>()
    };
    if all("compressed") == ["zlib"] {
        let mut plain = Vec::new();
        flate2::read::ZlibDecoder::new(file.as_slice()).read_to_end(&mut plain).unwrap();
        file = plain;
    }
    let identities = all("identity").iter().flat_map(|line| Identity::parse_all(line).unwrap()).collect::<Vec<_>>();
    let mut keys: Vec<Key> =
        all("passphrase").into_iter().map(|text| Key::Password(Secret::new(text.into_bytes()))).collect();
    if !identities.is_empty() || keys.is_empty() {
        keys.push(Key::Identities(identities));
    }
    Vector {
        name: path.file_name().unwrap().to_str().unwrap().to_owned(),
        expect: all("expect").remove(0),
        payload: all("payload").pop(),
        keys,
        is_armored: all("armored") == ["yes"],
        file,
    }
}

/// What was handed out, and how it ended.
fn read(vector: &Vector) -> (Vec<u8>, Result<(), Error>) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&vector.file).unwrap();
    let name = Path::new(&vector.name);
    let opened = envelope::open(Arc::new(file), name, &vector.keys, &Beside::default(), &Cancel::new());
    let mut plain = Vec::new();
    let read = opened.and_then(|sealed| {
        let sealed = Arc::new(sealed);
        let read = sealed.reader().unwrap().read_to_end(&mut plain);
        let rest = sealed.read_rest(&Cancel::new());
        assert_eq!(read.is_ok(), rest.is_ok(), "{}", vector.name);
        rest
    });
    (plain, read)
}

/// Shows E5.
#[test]
fn each_vector_of_age_is_read_or_refused_as_it_says() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/age");
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let vectors: Vec<Vector> = paths.filter(|path| path.extension().is_none()).map(|path| vector(&path)).collect();
    assert!(vectors.len() >= 100, "the vectors are there");
    for vector in vectors {
        let (plain, result) = read(&vector);
        let (name, expect) = (&vector.name, vector.expect.as_str());
        let kind = result.as_ref().err().map(Error::kind);
        match expect {
            _ if vector.is_armored => {
                assert!(matches!(kind, Some(ErrorKind::Unsupported | ErrorKind::Invalid)), "{name}: {result:?}");
            }
            "success" => {
                assert!(result.is_ok(), "{name}: {result:?}");
                assert_eq!(Some(Sha256::of(&plain).to_string()), vector.payload, "{name}");
            }
            "no match" => assert_eq!(kind, Some(ErrorKind::WrongKey), "{name}: {result:?}"),
            "HMAC failure" | "payload failure" => assert_eq!(kind, Some(ErrorKind::Corrupt), "{name}: {result:?}"),
            "header failure" if READ_ALL_THE_SAME.contains(&name.as_str()) => {}
            // What does not even begin as one is no encrypted file.
            "header failure" => {
                let is_one = vector.file.starts_with(b"age-encryption.org/");
                assert!(kind.is_some_and(|kind| (kind == ErrorKind::Invalid) != is_one), "{name}: {result:?}");
            }
            other => panic!("{name} expects {other}"),
        }
        // Where it fails later, we may hand out a segment less than others: which is the last, its length tells.
        let is_what_others_say = Some(Sha256::of(&plain).to_string()) == vector.payload;
        assert!(result.is_ok() || is_what_others_say || plain.len() % (64 << 10) == 0, "{name}: {}", plain.len());
    }
}
