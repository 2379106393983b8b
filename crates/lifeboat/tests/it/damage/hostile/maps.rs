//! Sparse files of GNU tar whose maps lie, in each of its four formats.

use super::super::tar::{Tar, listed, ours, record};
use super::{Case, UNKNOWN, UNSAFE};

pub(super) fn all() -> Vec<Case> {
    [old(), in_records(), before_content()].concat()
}

fn case(what: &str, bytes: Vec<u8>) -> Case {
    (format!("sparse, {what}"), bytes, UNSAFE)
}

/// An entry in the old format: rows of its map, its size, and 4 bytes of content.
pub(in super::super) fn old_sparse(tar: Tar, rows: &[(&str, &str)], size: &str, blocks: &[Vec<u8>]) -> Tar {
    let mut at = 386;
    let entry = tar.changed(b'S', "f", b"", |block| {
        block[257..265].copy_from_slice(b"ustar  \0");
        block[124..136].copy_from_slice(b"00000000004\0");
        for (offset, len) in rows {
            block[at..at + offset.len()].copy_from_slice(offset.as_bytes());
            block[at + 12..at + 12 + len.len()].copy_from_slice(len.as_bytes());
            at += 24;
        }
        block[482] = u8::from(!blocks.is_empty());
        block[483..483 + size.len()].copy_from_slice(size.as_bytes());
    });
    let entry = blocks.iter().fold(entry, |entry, block| entry.raw(block));
    entry.raw(b"evil").raw(&[0; 508])
}

/// A block that goes on with a map in the old format.
pub(in super::super) fn rows(rows: &[(u64, u64)], goes_on: bool) -> Vec<u8> {
    let mut block: Vec<u8> =
        rows.iter().flat_map(|(at, len)| format!("{at:011o}\0{len:011o}\0").into_bytes()).collect();
    block.resize(512, 0);
    block[504] = u8::from(goes_on);
    block
}

fn old() -> Vec<Case> {
    let old = |what: &str, rows: &[(&str, &str)], size: &str| {
        case(&format!("old format: {what}"), old_sparse(Tar::default(), rows, size, &[]).end())
    };
    let blocks = |what: &str, blocks: &[Vec<u8>]| {
        let start = [("0", "1"), ("1", "0"), ("1", "0"), ("1", "0")];
        case(&format!("old format: {what}"), old_sparse(Tar::default(), &start, "100", blocks).end())
    };
    vec![
        old("pieces that overlap", &[("0", "3"), ("2", "1")], "100"),
        old("pieces that go back", &[("10", "2"), ("0", "2")], "100"),
        old("a piece beyond the end", &[("77", "4")], "100"),
        old("more than is stored", &[("0", "5")], "100"),
        old("less than is stored", &[("0", "3")], "100"),
        old("no piece at all", &[], "100"),
        old("a size that is negative", &[("0", "4")], "\u{7f}-4"),
        old("no size", &[("0", "4")], ""),
        old("an offset that is none", &[("x", "4")], "100"),
        old("a length with a sign", &[("0", "+4")], "100"),
        old("a size smaller than its content", &[("0", "4")], "3"),
        blocks("it goes on after its end", &[rows(&[(1, 3)], true), rows(&[(10, 0)], false)]),
        blocks("pieces that overlap later", &[rows(&[(0, 3)], false)]),
        blocks("an empty block and more", &[rows(&[], true), rows(&[(1, 3)], false)]),
        case("old format: a whole archive of blocks", {
            let many = vec![rows(&[(1, 0); 21], true); 60_000];
            let mut bytes = old_sparse(Tar::default(), &[("0", "0"); 4], "100", &many).0;
            bytes.truncate(500 + 512 * 60_000);
            bytes
        }),
    ]
}

/// A file of 4 bytes after PAX records of sparse files.
fn pax(what: &str, records: &[(&str, &str)]) -> Case {
    let data: Vec<u8> =
        records.iter().flat_map(|(key, value)| record(&format!("GNU.sparse.{key}"), value.as_bytes())).collect();
    case(what, Tar::default().raw_pax(data).file("f").end())
}

fn in_records() -> Vec<Case> {
    let map = |what: &str, map: &str, size: &str| pax(&format!("0.1: {what}"), &[("map", map), ("size", size)]);
    let typed = |what: &str, kind: u8, size: u64| {
        let data = [record("GNU.sparse.map", b"0,4"), record("GNU.sparse.size", b"10")].concat();
        case(
            what,
            Tar::default().file("g").raw_pax(data).sized(kind, "f", "g", size, &b"evil"[..size.min(4) as usize]).end(),
        )
    };
    vec![
        pax("0.0: an offset without a length", &[("size", "10"), ("offset", "0")]),
        pax("0.0: a length without an offset", &[("size", "10"), ("numbytes", "4")]),
        pax("0.0: two offsets", &[("size", "10"), ("offset", "0"), ("offset", "1"), ("numbytes", "4")]),
        pax(
            "0.0: pieces that overlap",
            &[("size", "9"), ("offset", "0"), ("numbytes", "3"), ("offset", "2"), ("numbytes", "1")],
        ),
        pax("0.0: another number of pieces", &[("size", "10"), ("numblocks", "2"), ("offset", "0"), ("numbytes", "4")]),
        map("pieces that overlap", "0,3,2,1", "10"),
        map("pieces that go back", "5,2,0,2", "10"),
        map("a piece beyond the end", "8,4", "10"),
        map("more than is stored", "0,5", "10"),
        map("less than is stored", "0,3", "10"),
        map("an odd number of numbers", "0,4,5", "10"),
        map("a comma at the end", "0,4,", "10"),
        map("letters", "a,4", "10"),
        map("a negative offset", "-1,4", "10"),
        map("a sum that overflows", "0,18446744073709551615,18446744073709551615,5", "18446744073709551615"),
        map("longer than files are", "0,4", "9223372036854775808"),
        map("a size that is none", "0,4", "ten"),
        pax("0.1: two maps", &[("map", "0,4"), ("map", "1,4"), ("size", "10")]),
        pax("0.1: a map and pieces", &[("offset", "0"), ("numbytes", "4"), ("map", "1,4"), ("size", "10")]),
        pax("0.1: two sizes", &[("map", "0,4"), ("size", "10"), ("realsize", "11")]),
        pax("0.1: no size", &[("map", "0,4")]),
        pax("0.1: two names", &[("map", "0,4"), ("size", "10"), ("name", "a"), ("name", "b")]),
        pax("a part nobody knows", &[("map", "0,4"), ("size", "10"), ("evil", "1")]),
        typed("a map of a directory", b'5', 0),
        typed("a map of a symlink", b'2', 0),
        typed("a map of a hard link", b'1', 0),
        typed("a map of a file in the old format", b'S', 4),
        (
            "sparse, a version nobody knows".to_owned(),
            pax("", &[("major", "2"), ("minor", "0"), ("realsize", "4")]).1,
            UNKNOWN,
        ),
        (
            "sparse, a minor version nobody knows".to_owned(),
            pax("", &[("major", "1"), ("minor", "1"), ("realsize", "4")]).1,
            UNKNOWN,
        ),
        case("beside a manifest", {
            let data = [record("GNU.sparse.map", b"0,4"), record("GNU.sparse.size", b"1048576")].concat();
            let record = listed("file", "files/a", b"evil", "").replace(r#""size":4"#, r#""size":1048576"#);
            ours(&[record], Tar::default().raw_pax(data).file("files/a"))
        }),
    ]
}

/// A file in the format 1.0, with this text as its map.
pub(in super::super) fn mapped(size: &str, map: &str) -> Tar {
    let records = [("major", "1"), ("minor", "0"), ("name", "f"), ("realsize", size)];
    let data: Vec<u8> =
        records.iter().flat_map(|(key, value)| record(&format!("GNU.sparse.{key}"), value.as_bytes())).collect();
    let mut content = map.as_bytes().to_vec();
    content.resize(content.len().next_multiple_of(512), 0);
    content.extend(b"evil");
    Tar::default().raw_pax(data).sized(b'0', "GNUSparseFile.0/f", "", content.len() as u64, &content)
}

fn before_content() -> Vec<Case> {
    let one = |what: &str, size: &str, map: &str| case(&format!("1.0: {what}"), mapped(size, map).end());
    vec![
        one("pieces that overlap", "10", "2\n0\n3\n2\n1\n"),
        one("pieces that go back", "10", "2\n5\n2\n0\n2\n"),
        one("a piece beyond the end", "10", "1\n8\n4\n"),
        one("more than is stored", "10", "1\n0\n5\n"),
        one("less than is stored", "10", "1\n0\n3\n"),
        one("no map", "10", ""),
        one("more pieces than there are", "10", "3\n0\n4\n"),
        one("endless pieces", "10", "18446744073709551615\n0\n4\n"),
        one("a number of 600 digits", "10", &"1".repeat(600)),
        one("letters", "10", "1\nx\n4\n"),
        one("an empty number", "10", "1\n\n4\n"),
        one("a sign", "10", "1\n-0\n4\n"),
        one("a carriage return", "10", "1\r\n0\r\n4\r\n"),
        one("numbers beyond 64 bits", "10", "1\n0\n18446744073709551616\n"),
        case("1.0: a name that leads outside", {
            let data: Vec<u8> = [("major", "1"), ("minor", "0"), ("name", "../f"), ("realsize", "4")]
                .iter()
                .flat_map(|(key, value)| record(&format!("GNU.sparse.{key}"), value.as_bytes()))
                .collect();
            Tar::default()
                .raw_pax(data)
                .sized(b'0', "GNUSparseFile.0/f", "", 516, &[&b"1\n0\n4\n"[..], &[0; 510]].concat())
                .end()
        }),
        case("1.0: a map in the records too", {
            let more = record("GNU.sparse.map", b"0,4");
            let mut tar = Tar::default().raw_pax(
                [
                    record("GNU.sparse.major", b"1"),
                    record("GNU.sparse.minor", b"0"),
                    record("GNU.sparse.realsize", b"4"),
                    more,
                ]
                .concat(),
            );
            tar = tar.sized(b'0', "f", "", 516, &[&b"1\n0\n4\n"[..], &[0; 510]].concat());
            tar.end()
        }),
    ]
}
