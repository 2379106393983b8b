//! Archives made byte by byte that look odd and do no harm.

use super::hostile::{mapped, old_sparse, rows};
use super::tar::{Tar, base_256, gzip, record, zstd};

/// What it is, its bytes before any envelope, and a path that its restore leaves.
pub(super) type Case = (&'static str, Vec<u8>, &'static str);

pub(super) fn all() -> Vec<Case> {
    [names_and_links(), headers(), records(), holes(), packed()].concat()
}

fn names_and_links() -> Vec<Case> {
    let tar = Tar::default;
    vec![
        ("three dots", tar().file("...").end(), "..."),
        ("dots before a name", tar().file("..x").end(), "..x"),
        ("a backslash", tar().file("..\\x").end(), "..\\x"),
        ("dots and slashes before", tar().dir("./").file("././x").end(), "x"),
        ("an old directory", tar().sized(b'0', "d/", "", 0, b"").end(), "d"),
        ("an old file", tar().sized(0, "f", "", 4, b"evil").end(), "f"),
        ("a symlink to outside", tar().symlink("s", "../../../outside").end(), "s"),
        ("an absolute symlink", tar().symlink("s", "/etc/passwd").end(), "s"),
        ("a hard link to a symlink", tar().symlink("s", "x").link("h", "s").end(), "h"),
        ("a hard link with a dot", tar().file("f").link("h", "./f").end(), "h"),
        ("a pipe", tar().sized(b'6', "p", "", 0, b"").end(), "p"),
        ("no directories of their own", tar().file("a/b/c/d").end(), "a/b/c/d"),
        ("a directory after its content", tar().file("d/x").dir("d").end(), "d/x"),
        ("a directory twice", tar().dir("d").file("d/x").dir("d").end(), "d/x"),
        ("the same file twice", tar().file("f").file("f").end(), "f"),
        ("a symlink in place of a file", tar().file("f").symlink("f", "g").end(), "f"),
        ("a file in place of a symlink", tar().symlink("f", "mine").file("f").end(), "f"),
        ("a PAX path", tar().pax("path", "caf\u{e9}").file("x").end(), "caf\u{e9}"),
        ("a PAX key nobody knows", tar().pax("NEW.key", "x").file("f").end(), "f"),
        ("a PAX size", tar().pax("size", "4").sized(b'0', "f", "", 4, b"evil").end(), "f"),
        ("a global comment", tar().sized(b'g', "g", "", 13, b"13 comment=x\n").file("f").end(), "f"),
        ("a label", tar().sized(b'V', "label", "", 0, b"").file("f").end(), "f"),
        ("zeros after the end", tar().file("f").raw(&[0; 10_240]).end(), "f"),
        (
            "a size in base 256",
            tar().changed(b'0', "f", b"evil", |block| block[124..136].copy_from_slice(&base_256(4))).end(),
            "f",
        ),
        ("names that differ by case", tar().file("a").file("A").end(), "A"),
        ("below a name that differs from a symlink's by case", tar().symlink("S", "..").file("s/x").end(), "s/x"),
        ("a name in two normal forms", tar().file("e\u{301}").file("\u{e9}").end(), "\u{e9}"),
        ("a file called like a device", tar().file("dev/null").end(), "dev/null"),
        ("a file called CON", tar().file("CON").file("aux.txt").end(), "aux.txt"),
        ("a backslash for a slash", tar().file("a\\b").end(), "a\\b"),
        ("a drive", tar().file("C:\\x").file("c:x").end(), "c:x"),
        ("a symlink to itself", tar().symlink("s", "s").end(), "s"),
        ("a symlink to the root", tar().symlink("s", "/").end(), "s"),
        ("a symlink of 4095 bytes", tar().long(b'K', "x".repeat(4095)).symlink("s", "").end(), "s"),
        ("two symlinks in a circle", tar().symlink("s", "t").symlink("t", "s").end(), "t"),
        ("a directory and many slashes", tar().sized(b'5', "d///", "", 0, b"").end(), "d"),
        ("a hard link to a pipe", tar().sized(b'6', "p", "", 0, b"").link("h", "p").end(), "h"),
        ("a hard link to a hard link", tar().file("f").link("g", "f").link("h", "g").end(), "h"),
        ("a hard link to a file that a later one replaces", tar().file("f").link("h", "f").file("f").end(), "h"),
        ("a file in place of a hard link", tar().file("f").link("h", "f").file("h").end(), "h"),
        ("a folder that is called like a stage", tar().file(STAGE).end(), STAGE),
        ("a destination's marker", tar().file(".lifeboat-destination").end(), ".lifeboat-destination"),
        ("a manifest of something else", tar().file("a").file("manifest.json").end(), "manifest.json"),
        ("a path of 5000 bytes", tar().pax("path", "deep/".repeat(1000) + "x").file("x").end(), "deep/deep"),
        ("a name of 255 bytes", tar().pax("path", N255).file("x").end(), N255),
        ("a terminal escape", tar().file("\x1b]0;x\x07").end(), "\x1b]0;x\x07"),
        (
            "a set-uid program",
            tar().changed(b'0', "su", b"x", |block| block[100..107].copy_from_slice(b"0004755")).end(),
            "su",
        ),
        (
            "a directory that nobody may read",
            tar().changed(b'5', "d", b"", |b| b[100..107].fill(b'0')).file("d/x").end(),
            "d/x",
        ),
        ("nothing but a directory", tar().dir("d").end(), "d"),
        ("nothing at all", tar().dir("./").end(), ""),
        ("the directory itself twice", tar().dir("./").dir(".").file("f").end(), "f"),
    ]
}

const STAGE: &str = ".lifeboat-00112233445566778899aabbccddeeff/x";
/// 255 bytes.
const N255: &str = concat!(
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234",
);

/// A file whose header has `bytes` at `at`.
fn with(at: usize, bytes: &'static [u8]) -> Vec<u8> {
    Tar::default().changed(b'0', "f", b"evil", |block| block[at..at + bytes.len()].copy_from_slice(bytes)).end()
}

/// A header with a sum of its bytes as signed ones, as programs of long ago have it.
fn signed_sum() -> Vec<u8> {
    let mut tar = Tar::default().file("caf\u{e9}").end();
    let signed: i64 = tar[..512]
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { i64::from(byte.cast_signed()) })
        .sum();
    tar[148..156].copy_from_slice(format!("{signed:06o}\0 ").as_bytes());
    tar
}

fn headers() -> Vec<Case> {
    let tar = Tar::default;
    vec![
        ("a sum of signed bytes", signed_sum(), "caf\u{e9}"),
        ("spaces before a size", with(124, b"          4\0"), "f"),
        ("a size that fills its field", with(124, b"000000000004"), "f"),
        ("a size and a space", with(124, b"00000000004 "), "f"),
        ("something after the NUL of a size", with(124, b"4\0xxxxxxxxxx"), "f"),
        ("a time before 1970 in base 256", with(136, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"), "f"),
        ("a time after 2242", with(136, b"\x80\0\0\0\0\0\0\x02\0\0\0\0"), "f"),
        ("an owner beyond octal", with(108, b"\x80\0\0\0\x0f\0\0\0"), "f"),
        ("an owner that was left blank", with(108, b"        "), "f"),
        ("a mode that was left blank", with(100, &[0; 8]), "f"),
        ("a mode with the kind of a file", with(100, b"0100644\0"), "f"),
        ("no magic", with(257, &[0; 8]), "f"),
        ("another version", with(263, b"\0\0"), "f"),
        ("a prefix", with(345, b"a/b"), "a/b/f"),
        ("a prefix and another version", with(263, b"  "), "f"),
        ("user names that nobody has", with(265, b"nobody-at-all"), "f"),
        ("a contiguous file", tar().sized(b'7', "f", "", 4, b"evil").end(), "f"),
        ("a directory with a device number", tar().changed(b'5', "d", b"", |b| b[329..336].fill(b'7')).end(), "d"),
        (
            "a checksum with a space before it",
            {
                let mut bytes = Tar::default().file("f").end();
                let sum = String::from_utf8_lossy(&bytes[148..154]).into_owned();
                bytes[148..156].copy_from_slice(format!(" {}\0 ", &sum[1..]).as_bytes());
                bytes
            },
            "f",
        ),
        ("no block more than needed", Tar::default().file("f").end(), "f"),
        ("a megabyte of zeros after the end", tar().file("f").end().into_iter().chain(vec![0; 1 << 20]).collect(), "f"),
        ("an end that is no whole block", tar().file("f").end().into_iter().chain([0; 100]).collect(), "f"),
    ]
}

fn records() -> Vec<Case> {
    let tar = Tar::default;
    let pax = |key: &str, value: &str| tar().pax(key, value).file("f").end();
    vec![
        (
            "PAX: a comment twice",
            tar().raw_pax([record("comment", b"a"), record("comment", b"b")].concat()).file("f").end(),
            "f",
        ),
        ("PAX: a comment with line ends", pax("comment", "a\nb\n\n"), "f"),
        ("PAX: a value with an equals sign", pax("path", "a=b"), "a=b"),
        ("PAX: a name that ends with a line end", pax("path", "a\n"), "a\n"),
        ("PAX: a length with zeros before it", tar().raw_pax(b"0012 path=x\n").file("y").end(), "x"),
        ("PAX: no records", tar().raw_pax(b"").file("f").end(), "f"),
        ("PAX: size with zeros before it", pax("size", "0000000000000000000004"), "f"),
        (
            "PAX: times of all kinds",
            tar().raw_pax([record("atime", b"1.5"), record("ctime", b"2.5")].concat()).file("f").end(),
            "f",
        ),
        ("PAX: a time before 1970", pax("mtime", "-1.5"), "f"),
        ("PAX: a time with twenty digits after the point", pax("mtime", "1.12345678901234567890"), "f"),
        (
            "PAX: names in another character set",
            tar()
                .raw_pax([record("hdrcharset", b"BINARY"), record("path", b"\xff")].concat())
                .file("x")
                .file("f")
                .end(),
            "f",
        ),
        ("PAX: flags of BSD", pax("SCHILY.fflags", "nodump"), "f"),
        ("PAX: ACLs of star", pax("SCHILY.acl.access", "user::rw-,group::r--,other::r--"), "f"),
        ("PAX: attributes of libarchive", pax("LIBARCHIVE.xattr.user.a", "MQ"), "f"),
        ("PAX: a context of SELinux", pax("RHT.security.selinux", "system_u:object_r:etc_t:s0"), "f"),
        (
            "PAX: device and inode of star",
            tar()
                .raw_pax(
                    [record("SCHILY.dev", b"1"), record("SCHILY.ino", b"2"), record("SCHILY.nlink", b"1")].concat(),
                )
                .file("f")
                .end(),
            "f",
        ),
        ("PAX: an attribute", pax("SCHILY.xattr.user.a", "1"), "f"),
        ("PAX: a path that the header has too", tar().pax("path", "f").file("f").end(), "f"),
        ("PAX: after a long link", tar().long(b'K', "x").pax("mtime", "1").symlink("s", "").end(), "s"),
        ("PAX: before a long name", tar().pax("mtime", "1").long(b'L', "name").file("f").end(), "name"),
        ("a long name for a directory", tar().long(b'L', "d/").dir("x").end(), "d"),
        ("a long name that needs none", tar().long(b'L', "f").file("f").end(), "f"),
        ("a long name that ends without a NUL", tar().sized(b'L', "x", "", 2, b"ab").file("f").end(), "ab"),
        ("a global owner", tar().global(record("uid", b"7")).file("f").end(), "f"),
        ("a global time", tar().global(record("mtime", b"7.5")).file("f").end(), "f"),
        (
            "two global headers",
            tar().global(record("comment", b"7")).file("g").global(record("uname", b"x")).file("f").end(),
            "f",
        ),
        ("a label between entries", tar().file("g").sized(b'V', "label", "", 0, b"").file("f").end(), "f"),
    ]
}

/// Sparse files that GNU tar may make and that look odd.
fn holes() -> Vec<Case> {
    let old = |at: &[(&str, &str)], size: &str, blocks: &[Vec<u8>]| old_sparse(Tar::default(), at, size, blocks).end();
    let mut full = vec![(7, 1)];
    full.resize(21, (8, 0));
    let start = [("0", "1"), ("2", "1"), ("4", "1"), ("6", "0")];
    let many: String = (0..500).map(|at| format!("{},0,", at * 10)).collect();
    let in_map = |map: &str, size: &str| {
        let data = [record("GNU.sparse.map", map.as_bytes()), record("GNU.sparse.size", size.as_bytes())].concat();
        Tar::default().raw_pax(data).file("f").end()
    };
    vec![
        (
            "sparse, old format: a hole of 8 GiB before its content",
            old(&[("100000000000", "4")], "100000000004", &[]),
            "f",
        ),
        (
            "sparse, old format: more rows than fit",
            old(&start, "100", &[rows(&full, true), rows(&[(64, 0)], false)]),
            "f",
        ),
        ("sparse, 0.1: a hole of a tebibyte", in_map("1099511627776,4", "1099511627780"), "f"),
        ("sparse, 0.1: pieces of nothing", in_map(&format!("{many}9000,4"), "9004"), "f"),
        ("sparse, 0.1: no hole at all", in_map("0,4", "4"), "f"),
        ("sparse, 1.0: a hole of a tebibyte after its content", mapped("1099511627776", "1\n0\n4\n").end(), "f"),
        (
            "sparse, 1.0: 500 pieces of nothing",
            mapped("9004", &format!("501\n{}9000\n4\n", many.replace(',', "\n"))).end(),
            "f",
        ),
    ]
}

fn packed() -> Vec<Case> {
    let one = Tar::default().file("d/f").end();
    let (first, second) = one.split_at(512);
    vec![
        ("gzip", gzip(&one), "d/f"),
        ("gzip in two members", [gzip(first), gzip(second)].concat(), "d/f"),
        ("gzip with a member of nothing", [gzip(first), gzip(b""), gzip(second)].concat(), "d/f"),
        ("zstd", zstd(&one), "d/f"),
        ("zstd in two frames", [zstd(first), zstd(second)].concat(), "d/f"),
        ("zstd in frames that cut headers", one.chunks(100).flat_map(zstd).collect(), "d/f"),
        ("zstd after a skippable frame", [b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec(), zstd(&one)].concat(), "d/f"),
        (
            "zstd with a skippable frame inside",
            [zstd(first), b"\x5f\x2a\x4d\x18\0\0\0\0".to_vec(), zstd(second)].concat(),
            "d/f",
        ),
    ]
}
