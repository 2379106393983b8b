//! What the fuzzers run, and the tests beside them: any bytes go into the
//! readers, and all that the readers then say must hold together. Goes through
//! the public interface only. Compiled with the feature `testing`.

mod sealed;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;

use lifeboat_store::Cancel;
use rustix::fs::MemfdFlags;
use serde::Deserialize;

pub use self::sealed::{LONG, SEALED_MAX_BYTES, WITHOUT_KEY_ID, envelope};
use crate::archive::verify::{Findings, Verdict, no_probe, verify};
use crate::archive::{Archive, Compression, MANIFEST_NAME, codec};
use crate::model::{Entry, EntryKind, Sha256, Summer};
use crate::path::EntryPath;
use crate::record::{Head, Record};
use crate::{Error, ErrorKind, Result};

/// The longest manifest that is looked at.
pub const MANIFEST_MAX_BYTES: usize = 64 << 10;
/// The longest archive that is looked at.
pub const ARCHIVE_MAX_BYTES: usize = 64 << 10;
/// The longest one in zstd, which makes at most 32,768 bytes of one: never more than 256 MiB come out.
pub const ZSTD_MAX_BYTES: usize = 8 << 10;
/// The most content that is read.
const CONTENT_MAX_BYTES: u64 = 256 << 20;

/// [`archive`]: how the rest of the input is packed, in the lowest two bits of its first byte.
pub const PACKINGS: u8 = 4;
/// [`archive`], a bit of the first byte: the tar's checksums are made right first.
pub const WITH_RIGHT_SUMS: u8 = 4;
/// [`archive`], a bit of the first byte: a tar without a manifest gets the one that it should have.
pub const WITH_MANIFEST: u8 = 8;

const BLOCK: usize = 512;

fn in_memory(bytes: &[u8]) -> File {
    let fd = rustix::fs::memfd_create("fuzzed", MemfdFlags::CLOEXEC).expect("files in memory can be made");
    let mut file = File::from(fd);
    file.write_all(bytes).expect("memory can be written");
    file
}

fn open(bytes: &[u8]) -> Result<Archive> {
    Archive::of_file(in_memory(bytes), Path::new("fuzzed"))
}

fn filled_up(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// The blocks of a `manifest.json` that says `text`.
fn manifest_blocks(text: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_path(MANIFEST_NAME).expect("the name is short");
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(text.len() as u64);
    header.set_cksum();
    filled_up([header.as_bytes().as_slice(), text].concat())
}

/// What a manifest says: nothing where it is not ours; else its head and, if
/// all of them can be read, its records.
type Said = std::result::Result<Option<(Head, Vec<(EntryPath, Record)>)>, String>;

fn said(packed: &[u8]) -> Said {
    let archive = open(packed).map_err(|error| error.to_string())?;
    let Some(head) = archive.head() else { return Ok(None) };
    let records = archive.records(&Cancel::new(), |records| {
        let mut all = Vec::new();
        while let Some(record) = records.next_record()? {
            all.push(record);
        }
        assert!(records.next_record()?.is_none(), "the end stays the end");
        Ok(all)
    });
    records.map(|records| Some((head.clone(), records))).map_err(|error| error.to_string())
}

/// Reads `data`, but for its first byte, as the text of a manifest. That byte
/// is the length of the pieces that the text comes in, the second time.
/// Returns whether it is a manifest of ours, and sound.
///
/// # Panics
/// When something does not hold that must.
pub fn manifest(data: &[u8]) -> bool {
    let Some((cut, text)) = data.split_first() else { return false };
    if text.len() > MANIFEST_MAX_BYTES {
        return false;
    }
    let blocks = manifest_blocks(text);
    let end = [0; 2 * BLOCK];
    let said_whole = said(&[blocks.as_slice(), &end].concat());
    let frame = |raw: &[u8]| codec::stored(Compression::Zstd(1), raw);
    let (header, rest) = blocks.split_at(BLOCK);
    // Each piece costs a frame: in a long text they are not that short.
    let piece_len = (usize::from(*cut) + 1).max(text.len() / 128);
    let pieces: Vec<u8> = rest.chunks(piece_len).flat_map(frame).collect();
    let said_in_pieces = said(&[frame(header), pieces, frame(&end)].concat());
    assert_eq!(said_whole, said_in_pieces, "it does not matter how the text is cut");
    let Ok(Some((head, records))) = said_whole else { return false };
    check_said(text, &head, &records);
    true
}

/// What every manifest must be that was read to its end.
fn check_said(text: &[u8], head: &Head, records: &[(EntryPath, Record)]) {
    let mut json = serde_json::to_string(head).expect("a head has nothing that JSON lacks");
    assert_eq!(serde_json::from_str::<Head>(&json).ok().as_ref(), Some(head), "the head survives writing");
    assert_eq!(json.pop(), Some('}'));
    json.push_str(",\"files\":[");
    for (index, (path, record)) in records.iter().enumerate() {
        let written = serde_json::to_string(record).expect("a record has nothing that JSON lacks");
        assert_eq!(serde_json::from_str::<Record>(&written).ok().as_ref(), Some(record), "a record survives writing");
        assert_eq!(record.path().ok().as_ref(), Some(path));
        check_path(path);
        json.push_str(if index == 0 { "" } else { "," });
        json.push_str(&written);
    }
    json.push_str("]}");
    for pair in records.windows(2) {
        assert!(pair[0].0.components().lt(pair[1].0.components()), "{} before {}", pair[0].0, pair[1].0);
    }
    let again = said(&[manifest_blocks(json.as_bytes()), vec![0; 2 * BLOCK]].concat());
    assert_eq!(again.as_ref().map(|said| said.as_ref().map(|(_, records)| records.as_slice())), Ok(Some(records)));
    check_against_plain_json(text, records);
}

fn check_path(path: &EntryPath) {
    assert_eq!(EntryPath::new(path.as_bytes()).ok().as_ref(), Some(path));
    for component in path.components() {
        assert!(!matches!(component, b"" | b"." | b".."), "{path} leads elsewhere");
        assert!(!component.contains(&0) && !component.contains(&b'/'), "{path} is no path");
    }
}

/// Another reader of JSON must see the same list.
fn check_against_plain_json(text: &[u8], records: &[(EntryPath, Record)]) {
    #[derive(Deserialize)]
    struct Listed {
        files: Vec<Record>,
    }
    match serde_json::from_slice::<Listed>(text) {
        Ok(listed) => assert!(listed.files.iter().eq(records.iter().map(|(_, record)| record)), "the same records"),
        // Only in what no version of ours knows: it is deeper in the whole than by itself.
        Err(error) => assert!(error.to_string().contains("recursion limit"), "taken for a manifest, but: {error}"),
    }
}

/// Reads `data`, but for its first byte, as an archive. That byte says whether
/// it is one as it stands, or a tar to be packed first ([`PACKINGS`],
/// [`WITH_RIGHT_SUMS`], [`WITH_MANIFEST`]). Returns whether verify says that it is good.
///
/// # Panics
/// When something does not hold that must.
pub fn archive(data: &[u8]) -> bool {
    let Some((mode, bytes)) = data.split_first() else { return false };
    if bytes.len() > if is_zstd(bytes) { ZSTD_MAX_BYTES } else { ARCHIVE_MAX_BYTES } {
        return false;
    }
    let mut tar = bytes.to_vec();
    if mode & WITH_RIGHT_SUMS != 0 {
        make_sums_right(&mut tar);
    }
    let mut must_be_good = false;
    if mode & WITH_MANIFEST != 0
        && let Some(listed) = with_manifest(&tar)
    {
        (tar, must_be_good) = listed;
    }
    let packed = pack(mode % PACKINGS, &tar);
    let is_good = check_archive(&packed);
    assert!(is_good || !must_be_good, "a tar with the manifest that it should have is good");
    check_tar(&tar, &packed);
    is_good
}

fn is_zstd(bytes: &[u8]) -> bool {
    matches!(bytes, [0x28, 0xb5, 0x2f, 0xfd, ..] | [_, 0x2a, 0x4d, 0x18, ..])
}

fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

/// `tar` packed in one of the ways that archives are: not at all, as one zstd
/// stream that does not say how long it is, as zstd frames of a few blocks each, as gzip.
fn pack(packing: u8, tar: &[u8]) -> Vec<u8> {
    match packing {
        0 => tar.to_vec(),
        1 => zstd::stream::encode_all(tar, 1).expect("memory suffices"),
        2 => {
            let mut packed = Vec::new();
            let mut frames = Vec::new();
            for unit in tar.chunks(4 * BLOCK) {
                let frame = codec::stored(Compression::Zstd(1), unit);
                let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("a few blocks");
                frames.push((len(&frame), len(unit)));
                packed.extend_from_slice(&frame);
            }
            packed.extend_from_slice(&codec::seek_table(&frames));
            packed
        }
        _ => codec::stored(Compression::Gzip(1), tar),
    }
}

/// Gives every header the checksum it should have, as far as the tar can be followed.
pub fn make_sums_right(tar: &mut [u8]) {
    let mut at = 0;
    while let Some(block) = tar.get_mut(at..at + BLOCK) {
        at += BLOCK;
        if block.iter().all(|byte| *byte == 0) {
            continue;
        }
        let mut header = tar::Header::from_byte_slice(block).clone();
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
        let size = header.entry_size().ok().and_then(|size| usize::try_from(size).ok());
        at = at.saturating_add(size.and_then(|size| size.checked_next_multiple_of(BLOCK)).unwrap_or(0));
    }
}

/// A foreign tar with a manifest of all that is in it, and whether that must
/// make a good archive; `None` when it cannot be read.
#[must_use]
pub fn with_manifest(tar: &[u8]) -> Option<(Vec<u8>, bool)> {
    const HEAD: &str = r#"{"format":"lifeboat/1","tool":{"name":"fuzz","version":"1"},"app":"a","host":"h","id":"0",
        "created":"2026-02-24T03:00:00Z","window_ms":0,"outcome":"good","sources":[],"files":["#;
    let archive = open(&pack(3, tar)).ok().filter(|archive| archive.head().is_none())?;
    let entries = read_all(&archive).ok()?;
    let records = entries.iter().map(|read| {
        let record = Record::new(&read.entry, read.sum);
        serde_json::to_string(&record).expect("a record has nothing that JSON lacks")
    });
    let text = format!("{HEAD}{}]}}", records.collect::<Vec<_>>().join(","));
    let in_order = entries.windows(2).all(|pair| pair[0].entry.path < pair[1].entry.path);
    // Files without their holes are refused beside a manifest.
    let is_whole = entries.iter().all(|read| !read.entry.sparse);
    let must_be_good = in_order && is_whole && !entries.is_empty() && links_lead_back(&entries);
    Some(([manifest_blocks(text.as_bytes()).as_slice(), tar].concat(), must_be_good))
}

/// An entry as a restore reads it.
struct ReadEntry {
    entry: Entry,
    record: Option<Record>,
    sum: Option<Sha256>,
}

impl ReadEntry {
    fn is_as_recorded(&self) -> bool {
        self.record.as_ref().is_none_or(|record| record.sha256() == self.sum)
    }
}

/// Reads everything as a restore does, and sums it.
fn read_all(archive: &Archive) -> Result<Vec<ReadEntry>> {
    let mut left = CONTENT_MAX_BYTES;
    archive.walk(2, &Cancel::new(), |walk| {
        let mut all = Vec::new();
        while let Some((entry, record)) = walk.next_entry()? {
            check_path(&entry.path);
            let mut summer = Summer::new();
            let mut read = 0;
            let whole = walk.whole_content()?;
            let mut next = if whole.is_some() { whole } else { walk.content()? };
            while let Some(piece) = next {
                assert!(!piece.is_empty(), "a piece holds something");
                summer.update(&piece);
                read += piece.len() as u64;
                left = left.checked_sub(piece.len() as u64).ok_or_else(|| Error::corrupt("too much content"))?;
                next = walk.content()?;
            }
            assert_eq!(read, entry.size, "all of the content of {}", entry.path);
            let sum = (entry.kind == EntryKind::File).then(|| summer.finish());
            all.push(ReadEntry { entry, record, sum });
        }
        Ok(all)
    })
}

/// Whether each hard link leads to an entry before it that has its own content.
fn links_lead_back(entries: &[ReadEntry]) -> bool {
    let leads_back = |(index, read): (usize, &ReadEntry)| {
        let target = read.entry.target.as_slice();
        let target = target.strip_prefix(b"./").unwrap_or(target);
        let is_target = |before: &ReadEntry| {
            let has_its_own = !matches!(before.entry.kind, EntryKind::Dir | EntryKind::Hardlink);
            has_its_own && before.entry.path.as_bytes() == target
        };
        read.entry.kind != EntryKind::Hardlink || entries[..index].iter().any(is_target)
    };
    entries.iter().enumerate().all(leads_back)
}

type Verdicts = Vec<(EntryPath, Verdict, u64)>;

fn verified(archive: &Archive, threads: usize) -> Result<(Findings, Verdicts)> {
    let mut verdicts = Vec::new();
    let findings = verify(archive, threads, &Cancel::new(), &no_probe, &mut |path, verdict, bytes| {
        verdicts.push((path.clone(), verdict.clone(), bytes));
    })?;
    let failed = verdicts.iter().filter(|(_, verdict, _)| *verdict != Verdict::Pass).count();
    assert_eq!((findings.files, findings.failed), (verdicts.len() as u64, failed as u64), "the counts are right");
    let bytes: u64 = verdicts.iter().map(|(_, _, bytes)| *bytes).sum();
    assert_eq!(findings.bytes, bytes, "what is counted was read for an entry");
    assert!(bytes <= CONTENT_MAX_BYTES, "what is counted came out of the archive");
    assert_eq!(findings.has_manifest, archive.head().is_some());
    Ok((findings, verdicts))
}

/// What verify finds with `threads`. Where the damage is, and not what the decoder
/// calls it: that depends on the buffer it was given.
fn found(archive: &Archive, threads: usize) -> std::result::Result<(Findings, Verdicts), (ErrorKind, String)> {
    let place = |message: &str| message.split(": ").next().unwrap_or_default().to_owned();
    match verified(archive, threads) {
        Ok((findings, verdicts)) => {
            let damage = findings.damage.as_deref().map(place);
            Ok((Findings { damage, ..findings }, verdicts))
        }
        Err(error) => Err((error.kind(), place(&error.to_string()))),
    }
}

/// What must hold of all that can be opened. Returns whether verify says that it is good.
fn check_archive(packed: &[u8]) -> bool {
    let Ok(archive) = open(packed) else { return false };
    assert_eq!(archive.size_bytes(), packed.len() as u64);
    let alone = found(&archive, 1);
    assert_eq!(alone, found(&archive, 2), "the number of threads does not matter");
    let read = read_all(&archive);
    if let Err(error) = &read {
        let is_of_data = matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsafe | ErrorKind::Unsupported);
        assert!(is_of_data, "memory is never at fault: {error}");
    }
    let is_good = alone.as_ref().is_ok_and(|(findings, _)| findings.is_good());
    if archive.head().is_some() {
        check_ours(&archive, alone.ok().map(|(findings, _)| findings), read);
    } else {
        assert!(!is_good, "without a manifest nothing is verified");
    }
    is_good
}

/// Verify and restore must agree on an archive with a manifest.
fn check_ours(archive: &Archive, findings: Option<Findings>, read: Result<Vec<ReadEntry>>) {
    let is_good = findings.as_ref().is_some_and(Findings::is_good);
    let entries = match read {
        Ok(entries) => entries,
        Err(error) => return assert!(!is_good, "verify says it is good, and a restore would stop: {error}"),
    };
    let in_order = entries.windows(2).all(|pair| pair[0].entry.path < pair[1].entry.path);
    assert!(in_order, "the entries come in order");
    let is_whole = entries.iter().all(ReadEntry::is_as_recorded) && links_lead_back(&entries) && !entries.is_empty();
    assert_eq!(is_good, is_whole, "verify and a restore agree: {findings:?}");
    if let Some(findings) = findings.filter(Findings::is_good) {
        let bytes: u64 = entries.iter().map(|read| read.entry.size).sum();
        assert_eq!((findings.entries, findings.bytes), (entries.len() as u64, bytes));
        let listed = archive.records(&Cancel::new(), |records| {
            let mut listed = Vec::new();
            while let Some((_, record)) = records.next_record()? {
                listed.push(Some(record));
            }
            Ok(listed)
        });
        let read: Vec<_> = entries.into_iter().map(|read| read.record).collect();
        assert_eq!(listed.expect("verify read it"), read, "the list is that of the content");
    }
}

/// A tar is the same however it is packed, and whoever reads it.
fn check_tar(tar: &[u8], packed: &[u8]) {
    if is_zstd(tar) || is_gzip(tar) {
        return;
    }
    // Not every tar can be told from its first bytes, and the head may be damaged.
    let Ok(archive) = open(tar) else { return };
    let entries = read_all(&archive);
    let others = if entries.is_ok() { read_by_tar_crate(tar) } else { None };
    if let (Ok(entries), Some(others)) = (&entries, others) {
        let same = |(read, other): (&ReadEntry, &Other)| {
            (read.entry.path.as_bytes(), read.entry.size, read.sum) == (&other.path, other.size, other.sum)
        };
        let others = &others[usize::from(archive.head().is_some())..];
        assert!(entries.len() == others.len() && entries.iter().zip(others).all(same), "others read {others:?}");
    }
    let all = |entries: Result<Vec<ReadEntry>>| match entries {
        Ok(entries) => Ok(entries.into_iter().map(|read| (read.entry, read.sum)).collect::<Vec<_>>()),
        Err(error) => Err(error.to_string()),
    };
    let packed = open(packed).expect("packed, it can be opened too");
    assert_eq!(all(entries), all(read_all(&packed)), "the packing does not matter");
}

/// An entry as the tar crate reads it.
#[derive(Debug)]
struct Other {
    path: Vec<u8>,
    size: u64,
    sum: Option<Sha256>,
}

/// What the tar crate reads; `None` where it fails, or is known to differ.
fn read_by_tar_crate(tar: &[u8]) -> Option<Vec<Other>> {
    // It ends a PAX record at the first newline, and the PAX header at an empty line; and it knows no sparse files
    // in PAX records.
    if tar.windows(2).any(|pair| pair == b"\n\n") || tar.windows(11).any(|part| part == b"GNU.sparse.") {
        return None;
    }
    let mut others = Vec::new();
    for entry in tar::Archive::new(tar).entries().ok()? {
        let mut entry = entry.ok()?;
        let entry_type = entry.header().entry_type().as_byte();
        let is_sound = entry.pax_extensions().ok()?.is_none_or(|mut records| records.all(|record| record.is_ok()));
        let mut path = entry.path_bytes().into_owned();
        // Extensions that it does not know are entries to it, and a long name may hold a NUL.
        if matches!(entry_type, b'g' | b'x' | b'K' | b'L' | b'S' | b'V') || !is_sound || path.contains(&0) {
            return None;
        }
        let is_dir = entry_type == b'5' || matches!(entry_type, b'0' | 0) && path.ends_with(b"/");
        while path.starts_with(b"./") {
            path.drain(..2);
        }
        while path.ends_with(b"/") {
            path.pop();
        }
        if is_dir && matches!(path.as_slice(), b"" | b".") {
            continue;
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).ok()?;
        let is_file = !is_dir && matches!(entry_type, b'0' | 0 | b'7');
        others.push(Other { path, size: entry.size(), sum: is_file.then(|| Sha256::of(&content)) });
    }
    Some(others)
}
