use std::io::SeekFrom;

use super::*;

mod damage;
mod nonces;

fn password(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

/// One of each kind, and the key that opens it.
pub(super) fn seals() -> Vec<(Seal, Key)> {
    let identity = Identity::generate();
    let secret = password("correct horse");
    let key = Key::Password(secret.clone());
    vec![
        (Seal::Age(vec![identity.recipient()]), Key::Identities(vec![identity])),
        (Seal::AgePassphrase(secret.clone()), key.clone()),
        (Seal::Openssl { key: secret.clone(), iterations: OPENSSL_ITERATIONS }, key.clone()),
        (Seal::Gcm { password: secret, iterations: OPENSSL_ITERATIONS }, key),
    ]
}

fn tar_of(len: usize) -> Vec<u8> {
    let mut bytes = vec![0x1f, 0x8b];
    bytes.extend((2..len).map(|at| u8::try_from(at * 7 % 251).unwrap()));
    bytes.truncate(len.max(2));
    bytes
}

fn sealed(seal: &Seal, plain: &[u8]) -> (File, Beside) {
    let dir = tempfile::tempdir().unwrap();
    let mut file = Unnamed::create(dir.path()).unwrap();
    file.append(plain).unwrap();
    let (file, facts) = seal.seal(file, dir.path(), &Cancel::new()).unwrap();
    let beside = Beside { hmac: facts.hmac, iterations: facts.iterations, key_id: facts.key_id };
    (file.file().try_clone().unwrap(), beside)
}

fn open_with(file: &File, key: &Key, beside: &Beside) -> Result<Arc<Sealed>> {
    let file = Arc::new(file.try_clone().unwrap());
    open(file, Path::new("it"), std::slice::from_ref(key), beside, &Cancel::new()).map(Arc::new)
}

#[test]
fn what_was_sealed_reads_back_from_any_place() {
    for (seal, key) in seals() {
        // A passphrase of age takes a second, each time.
        let is_slow = matches!(seal, Seal::AgePassphrase(_));
        for len in
            [2, 15, 16, 17, 65_535, 65_536, 65_537, 131_072, 300_000].into_iter().skip(if is_slow { 8 } else { 0 })
        {
            let plain = tar_of(len);
            let (file, beside) = sealed(&seal, &plain);
            let sealed = open_with(&file, &key, &beside).unwrap();
            assert!(sealed.is_authenticated());
            let mut all = Vec::new();
            let mut reader = sealed.reader().unwrap();
            reader.read_to_end(&mut all).unwrap();
            assert!(all == plain, "{seal:?} {len}");
            for at in [0, 1, len / 2, 65_536.min(len), len - 1, len] {
                let mut rest = Vec::new();
                reader.seek(SeekFrom::Start(at as u64)).unwrap();
                reader.read_to_end(&mut rest).unwrap();
                assert!(rest == plain[at..], "{seal:?} {len} from {at}");
            }
        }
    }
}

#[test]
fn a_wrong_key_is_told_from_damage() {
    for (seal, key) in seals() {
        let (file, beside) = sealed(&seal, &tar_of(200_000));
        let wrong = match key {
            Key::Password(_) => Key::Password(password("another")),
            Key::Identities(_) => Key::Identities(vec![Identity::generate()]),
        };
        let error = open_with(&file, &wrong, &beside).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongKey, "{seal:?}: {error}");
        file.write_all_at(&[0xaa; 3], 1500).unwrap();
        let opened = open_with(&file, &key, &beside).and_then(|sealed| sealed.read_rest(&Cancel::new()));
        let error = opened.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{seal:?}: {error}");
    }
}
