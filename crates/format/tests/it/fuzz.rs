//! The readers on a corpus of small inputs (`testdata/fuzz`), and on random
//! mutations of them: the functions that `scripts/fuzz` runs for hours.
#![expect(clippy::unwrap_used, reason = "these are the helpers of tests")]

use std::path::Path;
use std::time::{Duration, Instant};

use lifeboat_format::fuzzing::{self, LONG, PACKINGS, WITH_MANIFEST, WITH_RIGHT_SUMS, WITHOUT_KEY_ID};
use lifeboat_store::testing::{Random, sweep};

/// No input may take longer (A9).
const SLOWEST: Duration = Duration::from_secs(5);

const BLOCK: usize = 512;

struct Input {
    name: String,
    bytes: Vec<u8>,
}

/// The inputs of `target`, in the order of their names.
fn corpus(target: &str) -> Vec<Input> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/fuzz").join(target);
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut inputs: Vec<Input> = files
        .map(|path| Input {
            name: path.file_name().unwrap().to_str().unwrap().to_owned(),
            bytes: std::fs::read(path).unwrap(),
        })
        .collect();
    inputs.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(inputs.len() >= 20, "{target}: the corpus is there");
    inputs
}

/// Runs `function` on `input`; a failure says which input it was.
fn play(what: &str, function: fn(&[u8]) -> bool, input: &[u8]) -> bool {
    let begun = Instant::now();
    let result = std::panic::catch_unwind(|| function(input));
    let elapsed = begun.elapsed();
    assert!(elapsed < SLOWEST, "{what} took {elapsed:?}");
    result.unwrap_or_else(|_| panic!("{what} fails; what fails is said above"))
}

fn with_first_byte(first: u8, input: &[u8]) -> Vec<u8> {
    [&[first], &input[1..]].concat()
}

/// Shows A13.
#[test]
fn every_manifest_of_the_corpus_is_taken_for_what_it_is() {
    for Input { name, bytes } in corpus("manifest") {
        let is_sound = play(&name, fuzzing::manifest, &bytes);
        assert_eq!(is_sound, !name.starts_with("bad-") && !name.starts_with("foreign"), "{name}");
        for cut in [0, 1, 6, 63, 255] {
            assert_eq!(play(&name, fuzzing::manifest, &with_first_byte(cut, &bytes)), is_sound, "{name}, cut to {cut}");
        }
    }
}

/// Shows A13.
#[test]
fn every_archive_of_the_corpus_is_taken_for_what_it_is() {
    for Input { name, bytes } in corpus("archive") {
        let is_good = play(&name, fuzzing::archive, &bytes);
        assert!(is_good || !name.starts_with("ours-"), "{name} is good");
        assert!(!is_good || !name.starts_with("damaged-") && !name.starts_with("hostile-"), "{name} is not good");
        for mode in 0..2 * WITH_MANIFEST {
            play(&format!("{name}, packed by {mode}"), fuzzing::archive, &with_first_byte(mode, &bytes));
        }
    }
}

/// Shows A13.
#[test]
fn no_mutation_of_a_manifest_is_misread() {
    let corpus = corpus("manifest");
    let cases = sweep("mutations of manifests", 20_000, 200);
    let is_sound = |case: &usize| {
        let input = mutated(&corpus, &mut Random::new(*case as u64), change_json);
        play(&format!("mutation {case} of manifests"), fuzzing::manifest, &input)
    };
    let sound = cases.iter().filter(|case| is_sound(case)).count();
    assert!(sound > 0 && sound < cases.len() / 2, "most mutations do something, and some do no harm: {sound}");
}

/// Shows A13.
#[test]
fn no_mutation_of_an_archive_is_misread() {
    let corpus = corpus("archive");
    let cases = sweep("mutations of archives", 20_000, 200);
    let is_sound = |case: &usize| {
        let input = mutated(&corpus, &mut Random::new(*case as u64), change_tar);
        play(&format!("mutation {case} of archives"), fuzzing::archive, &input)
    };
    let sound = cases.iter().filter(|case| is_sound(case)).count();
    assert!(sound > 0 && sound < cases.len() / 2, "most mutations do something, and some do no harm: {sound}");
}

/// Shows E12.
#[test]
fn every_encrypted_file_of_the_corpus_is_taken_for_what_it_is() {
    for Input { name, bytes } in corpus("envelope") {
        let is_whole = play(&name, fuzzing::envelope, &bytes);
        assert_eq!(is_whole, name.starts_with("ours-") || name.starts_with("stock-"), "{name}");
        for mode in 0..2 * WITHOUT_KEY_ID {
            play(&format!("{name}, as {mode}"), fuzzing::envelope, &with_first_byte(mode, &bytes));
        }
    }
}

/// Shows E12.
#[test]
fn no_mutation_of_an_encrypted_file_is_misread() {
    let corpus = corpus("envelope");
    let cases = sweep("mutations of encrypted files", 10_000, 200);
    let is_whole = |case: &usize| {
        let input = mutated(&corpus, &mut Random::new(*case as u64), change_sealed);
        play(&format!("mutation {case} of encrypted files"), fuzzing::envelope, &input)
    };
    let whole = cases.iter().filter(|case| is_whole(case)).count();
    assert!(whole > 0 && whole < cases.len() / 2, "most mutations do something, and some do no harm: {whole}");
}

/// One input of `corpus`, changed a few times: by what knows the format, or by what does not.
fn mutated(corpus: &[Input], random: &mut Random, change_known: fn(&mut Vec<u8>, &mut Random)) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len())].bytes.clone();
    for _ in 0..=random.below(3) * random.below(2) {
        match random.below(3) {
            0 => change_known(&mut input, random),
            1 => change_bytes(&mut input, random),
            _ => move_pieces(&mut input, &corpus[random.below(corpus.len())].bytes, random),
        }
    }
    input
}

/// A place in `input` after its first byte; 1 where there is none.
fn place(input: &[u8], random: &mut Random) -> usize {
    1 + random.below(input.len().max(2) - 1)
}

fn change_bytes(input: &mut [u8], random: &mut Random) {
    const TELLING: &[u8] = b"\0\x01\x7f\x80\xff\n \"'+,-./079:=[\\]a{}";
    let at = if random.below(8) == 0 { 0 } else { place(input, random) };
    let telling = TELLING[random.below(TELLING.len())];
    if let Some(byte) = input.get_mut(at) {
        *byte = if random.below(2) == 0 { telling } else { *byte ^ 1 << random.below(8) };
    }
}

/// Cuts off, takes out, doubles, or puts in a piece of `other`.
fn move_pieces(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let from = place(input, random).min(input.len());
    let to = (from + 1 + random.below(64)).min(input.len());
    let piece = input[from..to].to_vec();
    match random.below(5) {
        0 => input.truncate(from),
        1 => drop(input.drain(from..to)),
        2 => drop(input.splice(from..from, piece)),
        3 => {
            input.truncate(from);
            input.extend_from_slice(&other[place(other, random).min(other.len())..]);
        }
        _ => {
            let start = place(other, random).min(other.len());
            let end = (start + 1 + random.below(600)).min(other.len());
            drop(input.splice(from..from, other[start..end].to_vec()));
        }
    }
}

fn change_json(input: &mut Vec<u8>, random: &mut Random) {
    /// Separated by spaces; a space itself stands for the empty one.
    const TOKENS: &str = r#"[ ] { } , : " \ \u0000 \ud800 null -1 1e400 18446744073709551616  / .. // "files":[ "files": "path":"a", "path_b64":"YQ==","#;
    let tokens: Vec<&str> = TOKENS.split(' ').map(|token| if token.is_empty() { " " } else { token }).collect();
    let token = tokens[random.below(tokens.len())].bytes();
    let at = place(input, random).min(input.len());
    drop(input.splice(at..at, token));
}

/// Changes how an encrypted file is made, or one of the changes that are made to it.
fn change_sealed(input: &mut Vec<u8>, random: &mut Random) {
    let mode = [0, LONG, WITHOUT_KEY_ID, LONG | WITHOUT_KEY_ID][random.below(4)];
    let envelope = input[0] % 4;
    input[0] = envelope | mode;
    if envelope > 0 && input.len() > 1 {
        input[1] = input[1] % 8 + 1;
        drop(input.splice(2..2, random.bytes(4)));
    }
}

/// Changes a tar as a whole: a field of a header, or blocks; its sums are made right again.
fn change_tar(input: &mut Vec<u8>, random: &mut Random) {
    // Name, mode, owner, size, time, type, link, magic, device, prefix.
    const FIELDS: &[(usize, usize)] =
        &[(0, 100), (100, 8), (108, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (329, 8), (345, 155)];
    const NUMBERS: [&[u8]; 5] = [b"\x80\0\0\0\x80\0\0\0\0\0\0\0", &[0xff; 12], b"00000001000\0", b"77777777777", b"-1"];
    const NAMES: [&[u8]; 8] = [b"a", b"a/", b"./a", b"../a", b"/a", b"a/b", b"b", b"manifest.json"];
    const TYPES: &[u8] = b"01234567xgLKSVDZ\0";
    let packing = u8::try_from(random.below(usize::from(PACKINGS))).unwrap();
    let with_manifest = if random.below(2) == 0 { WITH_MANIFEST } else { 0 };
    input[0] = packing | WITH_RIGHT_SUMS | with_manifest;
    let blocks = (input.len() - 1) / BLOCK;
    if blocks == 0 {
        return;
    }
    let at = 1 + BLOCK * random.below(blocks);
    let (start, len) = FIELDS[random.below(FIELDS.len())];
    let value = match len {
        1 => &TYPES[random.below(TYPES.len())..][..1],
        8 | 12 => NUMBERS[random.below(NUMBERS.len())],
        _ => NAMES[random.below(NAMES.len())],
    };
    match random.below(6) {
        0 => drop(input.drain(at..at + BLOCK)),
        1 => {
            let block = input[at..at + BLOCK].to_vec();
            let to = 1 + BLOCK * random.below(blocks);
            drop(input.splice(to..to, block));
        }
        2 => input[at + start..at + start + len].fill(0),
        _ => {
            let value = &value[..value.len().min(len)];
            input[at + start..at + start + value.len()].copy_from_slice(value);
        }
    }
}
