//! Archives that nobody should follow.

use super::tar::{Tar, base_256, header, listed, manifest, ours, record, with_manifest};

mod maps;
mod more;

pub(super) use maps::{mapped, old_sparse, rows};

/// What a restore of it must answer.
pub(super) const UNSAFE: &[i32] = &[23];
pub(super) const REFUSED: &[i32] = &[13, 17, 23];
pub(super) const DAMAGED: &[i32] = &[13];
pub(super) const UNKNOWN: &[i32] = &[17];

/// What it is, its bytes before any envelope, and the exit codes that a restore may end with.
pub(super) type Case = (String, Vec<u8>, &'static [i32]);

/// Archives that are refused, each for another reason. `absolute` is the path
/// of something that must never come to be.
///
/// Most are refused as unsafe (23). Those that may as well have been damaged by
/// accident, because a sum or a length in them is wrong or the manifest does not agree
/// with what follows, are called that (13), and what only a newer version
/// may know, unknown (17).
pub(super) fn all(absolute: &str) -> Vec<Case> {
    let first = [names(absolute), links(absolute), kinds_and_sizes(), extensions(), streams(), manifests()].concat();
    let first = first.into_iter().map(|(what, bytes, codes)| (what.to_owned(), bytes, codes));
    first.chain(more::all(absolute)).chain(maps::all()).collect()
}

type Named = (&'static str, Vec<u8>, &'static [i32]);

fn names(absolute: &str) -> Vec<Named> {
    let tar = Tar::default;
    let long = |name: &[u8]| tar().sized(b'L', "././@LongLink", "", name.len() as u64, name).file("x").end();
    vec![
        ("parent", tar().file("../escape").end(), UNSAFE),
        ("parent in the middle", tar().file("a/../../escape").end(), UNSAFE),
        ("parent at the end", tar().dir("a/..").end(), UNSAFE),
        ("only the parent", tar().dir("..").end(), UNSAFE),
        ("parent after a dot", tar().file("./../escape").end(), UNSAFE),
        ("parent that comes back", tar().file("a/../b").end(), UNSAFE),
        ("absolute", tar().file(absolute).end(), UNSAFE),
        ("absolute after a dot", tar().file(format!("./{absolute}")).end(), UNSAFE),
        ("absolute with two slashes", tar().file(format!("/{absolute}")).end(), UNSAFE),
        ("the root itself", tar().dir("/").end(), UNSAFE),
        ("a dot in the middle", tar().file("a/./b").end(), UNSAFE),
        ("two slashes", tar().file("a//b").end(), UNSAFE),
        ("no name", tar().file("").end(), UNSAFE),
        ("the directory itself as a file", tar().file(".").end(), UNSAFE),
        ("parent in a PAX path", tar().pax("path", "../escape").file("x").end(), UNSAFE),
        ("absolute PAX path", tar().pax("path", absolute).file("x").end(), UNSAFE),
        ("NUL in a PAX path", tar().pax("path", b"a\0b").file("x").end(), UNSAFE),
        ("empty PAX path", tar().pax("path", "").file("x").end(), UNSAFE),
        ("endless PAX path", tar().pax("path", "a/".repeat(60_000)).file("x").end(), UNSAFE),
        ("parent in a long name", long(b"../escape\0"), UNSAFE),
        ("absolute long name", long(absolute.as_bytes()), UNSAFE),
        (
            "parent in the prefix field",
            tar().changed(b'0', "escape", b"evil", |block| block[345..347].copy_from_slice(b"..")).end(),
            UNSAFE,
        ),
    ]
}

fn links(absolute: &str) -> Vec<Named> {
    let tar = Tar::default;
    let outside = "../outside";
    vec![
        ("below a symlink to outside", tar().symlink("s", outside).file("s/escape").end(), UNSAFE),
        ("below an absolute symlink", tar().symlink("s", "/tmp").file("s/escape").end(), UNSAFE),
        ("below a symlink, later", tar().symlink("s", outside).file("t").file("s/escape").end(), UNSAFE),
        ("below a symlink to here", tar().symlink("s", ".").file("s/x").end(), UNSAFE),
        ("a directory below a symlink", tar().symlink("s", outside).dir("s/escape").end(), UNSAFE),
        ("a symlink below a symlink", tar().symlink("s", outside).symlink("s/escape", "x").end(), UNSAFE),
        ("a symlink in a directory", tar().dir("d").symlink("d/s", "../../outside").file("d/s/x").end(), UNSAFE),
        ("a symlink in place of a directory", tar().dir("d").symlink("d", outside).file("d/escape").end(), UNSAFE),
        ("a directory in place of a symlink", tar().symlink("s", outside).dir("s").file("s/escape").end(), UNSAFE),
        ("through two symlinks", tar().symlink("s", "t").symlink("t", outside).file("s/escape").end(), UNSAFE),
        ("below a file", tar().file("f").file("f/x").end(), UNSAFE),
        ("below a hard link", tar().file("f").link("h", "f").file("h/x").end(), UNSAFE),
        ("hard link to outside", tar().link("h", "../outside/secret").end(), UNSAFE),
        ("hard link to an absolute path", tar().link("h", absolute).end(), UNSAFE),
        ("hard link to outside, then written", tar().link("h", "../outside/secret").file("h").end(), UNSAFE),
        ("hard link through a symlink", tar().symlink("s", outside).link("h", "s/secret").end(), UNSAFE),
        ("hard link below a symlink", tar().file("f").symlink("s", outside).link("s/escape", "f").end(), UNSAFE),
        ("hard link to what comes later", tar().link("h", "later").file("later").end(), UNSAFE),
        ("hard link to itself", tar().link("h", "h").end(), UNSAFE),
        ("hard link to what is not there", tar().link("h", "nowhere").end(), UNSAFE),
        ("hard link to a file that was there", tar().link("h", "mine").end(), UNSAFE),
        ("hard link to a directory", tar().dir("d").link("h", "d").end(), UNSAFE),
        ("hard link to nothing", tar().link("h", "").end(), UNSAFE),
        ("parent in a PAX link path", tar().pax("linkpath", "../outside/secret").link("h", "x").end(), UNSAFE),
    ]
}

fn kinds_and_sizes() -> Vec<Named> {
    let tar = Tar::default;
    let huge = |size: u64| move |block: &mut [u8; 512]| block[124..136].copy_from_slice(&base_256(size));
    let typed = |kind| tar().sized(kind, "x", "", 0, b"").end();
    vec![
        ("a character device", typed(b'3'), UNSAFE),
        ("a block device", typed(b'4'), UNSAFE),
        ("a kind nobody knows", typed(b'Z'), UNKNOWN),
        ("a sparse file of GNU tar in a header that is not", typed(b'S'), UNSAFE),
        ("a part of a file", typed(b'M'), UNKNOWN),
        ("a list of a directory", typed(b'D'), UNKNOWN),
        (
            "a directory with content",
            tar().sized(b'5', "d", "", 512, &header(b'0', b"../x", b"", 0, |_| {})).end(),
            UNSAFE,
        ),
        (
            "a symlink with content",
            tar().sized(b'2', "s", "t", 512, &header(b'0', b"../x", b"", 0, |_| {})).end(),
            UNSAFE,
        ),
        ("a hard link with content", tar().file("f").sized(b'1', "h", "f", 4, b"more").end(), UNSAFE),
        ("two sizes", tar().pax("size", "4").sized(b'0', "f", "", 512, &[0; 512]).end(), UNSAFE),
        ("two sizes, none of them small", tar().pax("size", "1024").sized(b'0', "f", "", 512, &[0; 512]).end(), UNSAFE),
        ("a negative size", tar().changed(b'0', "f", b"x", |block| block[124..136].fill(0xff)).end(), UNSAFE),
        ("a size that is no number", tar().changed(b'0', "f", b"x", |block| block[124..135].fill(b'9')).end(), UNSAFE),
        ("more content than there is", tar().changed(b'0', "f", b"x", huge(1 << 20)).end(), DAMAGED),
        ("an exabyte", tar().changed(b'0', "f", b"x", huge(1 << 60)).end(), &[13, 14]),
        ("a mode that is no number", tar().changed(b'0', "f", b"x", |block| block[100] = b'z').end(), UNSAFE),
        ("an owner beyond 32 bits", tar().changed(b'0', "f", b"x", |block| owner(block, 1 << 40)).end(), UNSAFE),
        ("a wrong checksum", tar().file("f").raw(&[b'x'; 512]).end(), DAMAGED),
    ]
}

fn owner(block: &mut [u8; 512], id: u64) {
    block[108..116].copy_from_slice(&id.to_be_bytes());
    block[108] = 0x80;
}

fn extensions() -> Vec<Named> {
    let pax = |data: &[u8]| Tar::default().raw_pax(data).file("f").end();
    let global = |data: Vec<u8>| Tar::default().sized(b'g', "g", "", data.len() as u64, &data).file("f").end();
    let big = vec![b'x'; 5 << 20];
    vec![
        ("PAX: no length", pax(b"path=x\n"), UNSAFE),
        ("PAX: length 0", pax(b"0 path=x\n"), UNSAFE),
        ("PAX: too short", pax(b"5 path=x\n"), UNSAFE),
        ("PAX: too long", pax(b"99 path=x\n"), UNSAFE),
        ("PAX: endless length", pax(b"99999999999999999999999 path=x\n"), UNSAFE),
        ("PAX: negative length", pax(b"-9 path=x\n"), UNSAFE),
        ("PAX: signed length", pax(b"+11 path=x\n"), UNSAFE),
        ("PAX: no equals sign", pax(b"9 path x\n"), UNSAFE),
        ("PAX: no line end", pax(b"10 path=xy"), UNSAFE),
        ("PAX: only zeros", pax(&[0; 512]), UNSAFE),
        ("PAX: zeros after a record", pax(b"10 path=x\n\0\0\0"), UNSAFE),
        ("PAX: negative size", pax(&record("size", b"-4")), UNSAFE),
        ("PAX: size beyond 64 bits", pax(&record("size", b"99999999999999999999")), UNSAFE),
        ("PAX: time that is none", pax(&record("mtime", b"nan")), UNSAFE),
        ("PAX: time beyond 64 bits", pax(&record("mtime", b"99999999999999999999")), UNSAFE),
        ("PAX: owner that is none", pax(&record("uid", b"root")), UNSAFE),
        ("PAX: two headers", Tar::default().pax("path", "a").pax("path", "b").file("f").end(), UNSAFE),
        ("PAX: endless", Tar::default().sized(b'x', "x", "", (1 << 33) - 1, b"").end(), REFUSED),
        ("PAX: too much", pax(&record("comment", &big)), UNSAFE),
        ("global path", global(record("path", b"../escape")), UNSAFE),
        ("global link", global(record("linkpath", b"../escape")), UNSAFE),
        ("global size", global(record("size", b"0")), UNSAFE),
        ("global nonsense", global(b"nonsense".to_vec()), UNSAFE),
        ("a sparse file by PAX without a map", pax(&record("GNU.sparse.major", b"1")), UNSAFE),
    ]
}

fn streams() -> Vec<Named> {
    let tar = Tar::default;
    let one = || tar().file("f");
    vec![
        ("data after the end", one().raw(&[0; 1024]).raw(&one().0).end(), UNSAFE),
        ("one byte after the end", one().raw(&[0; 1024]).raw(b"x").0, UNSAFE),
        ("only one block at the end", one().raw(&[0; 512]).0, DAMAGED),
        ("no end", one().0, DAMAGED),
        ("cut off in a header", one().raw(&[b'x'; 100]).0, DAMAGED),
        ("cut off in the content", one().0[..514].to_vec(), DAMAGED),
        ("an entry after one block of zeros", one().raw(&[0; 512]).raw(&tar().file("../escape").0).end(), UNSAFE),
        ("zstd that asks for a window of 2 GiB", b"\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00".to_vec(), DAMAGED),
        ("zstd that says it holds everything", [b"\x28\xb5\x2f\xfd\xe0".as_slice(), &[0xff; 9]].concat(), DAMAGED),
        ("gzip of nothing", b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0".to_vec(), DAMAGED),
        ("nothing", Vec::new(), DAMAGED),
        ("something else", vec![b'#'; 5000], DAMAGED),
    ]
}

fn another_sum_in_pieces() -> Vec<u8> {
    let of_ones = listed("file", "files/a", &[1; 3 << 20], "");
    ours(&[of_ones], Tar::default().sized(b'0', "files/a", "", 3 << 20, &[2; 3 << 20]))
}

fn manifests() -> Vec<Named> {
    let tar = Tar::default;
    let file = |path: &str| listed("file", path, b"evil", "");
    let a = || file("files/a");
    let body = || tar().file("files/a");
    let changed = |from: &str, to: &str| ours(&[a().replace(from, to)], body());
    let link = |target: &str| listed("symlink", "files/a", b"", target);
    let text = |text: &str| with_manifest(text, body());
    vec![
        ("listed: parent", ours(&[file("../escape")], tar().file("../escape")), REFUSED),
        ("listed: absolute", ours(&[file("/tmp/escape")], tar().file("/tmp/escape")), REFUSED),
        ("listed: another path in base64", changed(r#""path":"#, r#""path_b64":"Li4veA==","path":"#), REFUSED),
        (
            "listed: below a symlink",
            ours(
                &[link("../../outside"), file("files/a/x")],
                tar().symlink("files/a", "../../outside").file("files/a/x"),
            ),
            UNSAFE,
        ),
        (
            "listed: hard link to what comes later",
            ours(
                &[listed("hardlink", "files/a", b"", "files/b"), file("files/b")],
                tar().link("files/a", "files/b").file("files/b"),
            ),
            UNSAFE,
        ),
        (
            "listed: hard link to outside",
            ours(
                &[listed("hardlink", "files/h", b"", "../outside/secret")],
                tar().link("files/h", "../outside/secret"),
            ),
            UNSAFE,
        ),
        (
            "listed: hard link to a file that was there",
            ours(&[listed("hardlink", "files/h", b"", "dir/below")], tar().link("files/h", "dir/below")),
            UNSAFE,
        ),
        ("listed: a device", ours(&[device()], tar().sized(b'3', "files/tty", "", 0, b"")), UNSAFE),
        ("not listed", ours(&[a()], body().file("files/b")), DAMAGED),
        ("not listed, before the others", ours(&[file("files/b")], body().file("files/b")), DAMAGED),
        ("listed, and missing", ours(&[a(), file("files/b")], body()), DAMAGED),
        ("listed twice", ours(&[a(), a()], body()), DAMAGED),
        ("there twice", ours(&[a()], body().file("files/a")), DAMAGED),
        ("listed out of order", ours(&[file("files/b"), a()], tar().file("files/b").file("files/a")), DAMAGED),
        ("listed, and empty", ours(&[], body()), DAMAGED),
        ("a second manifest", ours(&[a()], body().sized(b'0', "manifest.json", "", 0, b"")), DAMAGED),
        ("another sum", ours(&[listed("file", "files/a", b"good", "")], body()), DAMAGED),
        ("another sum of a file of several pieces", another_sum_in_pieces(), DAMAGED),
        ("no sum", changed(r#""sha256""#, r#""sha257""#), DAMAGED),
        ("another size", changed(r#""size":4"#, r#""size":5"#), DAMAGED),
        ("another mode", changed("0644", "0666"), DAMAGED),
        ("another owner", changed(r#""uid":0"#, r#""uid":1"#), DAMAGED),
        ("another time", changed(r#""0.0"#, r#""1.0"#), DAMAGED),
        ("another kind", changed(r#""type":"file""#, r#""type":"dir""#), DAMAGED),
        ("another target", ours(&[link("there")], tar().symlink("files/a", "elsewhere")), DAMAGED),
        ("a field twice", changed(r#""uid":0"#, r#""uid":0,"uid":0"#), DAMAGED),
        ("a list that is cut off", text(&manifest("lifeboat/1", &[a()]).replace("]}", "")), DAMAGED),
        ("something after the manifest", text(&format!("{} x", manifest("lifeboat/1", &[a()]))), DAMAGED),
        ("a second list", text(&manifest("lifeboat/1", &[a()]).replace("]}", r#"],"files":[]}"#)), DAMAGED),
        ("a manifest without a list", text(&manifest("lifeboat/1", &[]).replace(r#""files""#, r#""filed""#)), DAMAGED),
        ("a list nested without end", text(&manifest("lifeboat/1", &["[".repeat(100_000)])), DAMAGED),
        ("a newer format", with_manifest(&manifest("lifeboat/2", &[a()]), body()), UNKNOWN),
    ]
}

fn device() -> String {
    listed("char", "files/tty", b"", "").replace(r#""mtime""#, r#""rdev":"0:0","mtime""#)
}
