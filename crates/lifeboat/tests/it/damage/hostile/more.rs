//! Families of hostile archives: the same trick in every place where it can be played.

use super::super::tar::{Tar, gzip, header, listed, manifest, ours, record, with_manifest, zstd};
use super::{Case, DAMAGED, UNKNOWN, UNSAFE};

pub(super) fn all(absolute: &str) -> Vec<Case> {
    [
        names(absolute),
        targets(absolute),
        through_links(),
        in_place_of_another(),
        fields(),
        records(),
        globals(),
        reserved(),
        beyond_names(),
        concatenated(),
        totals(),
        lists(),
    ]
    .concat()
}

fn case(what: impl Into<String>, bytes: Vec<u8>) -> Case {
    (what.into(), bytes, UNSAFE)
}

/// What something is called, and an archive that holds the name it is given.
type WithName = (&'static str, fn(&str) -> Tar);
/// The same with more in it.
type WithMore = (&'static str, fn(Tar) -> Tar);
/// The beginning of one.
type Beginning = (&'static str, fn() -> Tar);

/// Where the name of an entry may stand.
const NAMED_BY: &[WithName] = &[
    ("a PAX path", |name| Tar::default().pax("path", name).file("harmless")),
    ("a long name", |name| Tar::default().long(b'L', name).file("harmless")),
    ("a PAX path after a label", |name| Tar::default().sized(b'V', "label", "", 0, b"").pax("path", name).file("x")),
    ("the name of a sparse file", |name| {
        let map = [record("GNU.sparse.map", b"0,4"), record("GNU.sparse.size", b"4")].concat();
        Tar::default().raw_pax([record("GNU.sparse.name", name.as_bytes()), map].concat()).file("harmless")
    }),
    ("an old file", |name| Tar::default().sized(0, name, "", 4, b"evil")),
    ("a directory", |name| Tar::default().dir(name)),
    ("a symlink", |name| Tar::default().symlink(name, "harmless")),
    ("a pipe", |name| Tar::default().sized(b'6', name, "", 0, b"")),
];

fn names(absolute: &str) -> Vec<Case> {
    let slashes = format!("//{absolute}");
    let bad = [
        ("the parent", ".."),
        ("below the parent", "../escape"),
        ("the parent in the middle", "a/../../escape"),
        ("the parent at the end", "a/.."),
        ("the parent that comes back", "a/../b"),
        ("an absolute path", absolute),
        ("an absolute path of many slashes", slashes.as_str()),
        ("an empty part", "a//b"),
        ("a dot in the middle", "a/./b"),
    ];
    let mut cases = Vec::new();
    for (place, tar) in NAMED_BY {
        cases.extend(bad.iter().map(|(what, name)| case(format!("{what} as the name of {place}"), tar(name).end())));
    }
    cases
}

/// Where a link may say where it leads.
const LINKED_BY: &[WithName] = &[
    ("a header", |target| Tar::default().file("f").link("h", target)),
    ("a PAX linkpath", |target| Tar::default().file("f").pax("linkpath", target).link("h", "f")),
    ("a long link", |target| Tar::default().file("f").long(b'K', target).link("h", "f")),
];

fn targets(absolute: &str) -> Vec<Case> {
    let bad = [
        ("outside", "../outside/secret"),
        ("outside by a way that exists", "f/../../outside/secret"),
        ("an absolute path", absolute),
        ("the parent", ".."),
        ("the directory itself", "."),
        ("nothing", ""),
        ("what is not there", "nowhere"),
    ];
    let mut cases = Vec::new();
    for (place, tar) in LINKED_BY {
        cases.extend(
            bad.iter().map(|(what, target)| case(format!("hard link to {what} by {place}"), tar(target).end())),
        );
    }
    cases
}

/// Symlinks to outside, and what is put through them.
fn through_links() -> Vec<Case> {
    const OUTSIDE: &str = "../outside";
    let links: &[Beginning] = &[
        ("a symlink", || Tar::default().symlink("s", OUTSIDE)),
        ("a symlink that a PAX path names", || Tar::default().pax("path", "s").symlink("harmless", OUTSIDE)),
        ("a symlink that a PAX linkpath leads outside", || {
            Tar::default().pax("linkpath", OUTSIDE).symlink("s", "harmless")
        }),
        ("a symlink that a long link leads outside", || Tar::default().long(b'K', OUTSIDE).symlink("s", "harmless")),
        ("a symlink in the place of a file", || Tar::default().file("s").symlink("s", OUTSIDE)),
        ("a hard link to a symlink", || Tar::default().symlink("t", OUTSIDE).link("s", "t")),
        ("a symlink to a symlink", || Tar::default().symlink("t", OUTSIDE).symlink("s", "t")),
    ];
    let things: &[WithMore] = &[
        ("a file", |tar| tar.file("s/escape")),
        ("a file that a PAX path names", |tar| tar.pax("path", "s/escape").file("harmless")),
        ("a file with a long name", |tar| tar.long(b'L', "s/escape").file("harmless")),
        ("a directory", |tar| tar.dir("s/escape")),
        ("a symlink", |tar| tar.symlink("s/escape", "x")),
        ("a hard link", |tar| tar.file("f").link("s/escape", "f")),
        ("a pipe", |tar| tar.sized(b'6', "s/escape", "", 0, b"")),
        ("a file, after another entry", |tar| tar.file("z").file("s/escape")),
    ];
    let mut cases = Vec::new();
    for (link, start) in links {
        let put = |(what, put): &WithMore| case(format!("{what} through {link}"), put(start()).end());
        cases.extend(things.iter().map(put));
    }
    cases
}

fn in_place_of_another() -> Vec<Case> {
    let tar = Tar::default;
    vec![
        case(
            "a symlink in place of a directory with something in it",
            tar().file("d/f").symlink("d", "../outside").end(),
        ),
        case("a file in place of a directory", tar().dir("d").file("d").end()),
        case("a directory in place of a file", tar().file("f").dir("f").end()),
        case("a directory in place of a symlink to a directory", tar().dir("d").symlink("s", "d").dir("s").end()),
        case("a directory in place of a pipe", tar().sized(b'6', "p", "", 0, b"").dir("p").end()),
        case("a hard link in place of its own file", tar().file("f").link("f", "f").end()),
        case("a hard link in place of a directory", tar().file("f").dir("d").link("d", "f").end()),
        case("a hard link to a directory below a symlink", tar().dir("d").symlink("s", "d").link("h", "s/x").end()),
        case("hard links in a circle", tar().link("a", "b").link("b", "a").end()),
        case("hard link to a directory that is only implied", tar().file("d/f").link("h", "d").end()),
        case("a symlink to nothing", tar().symlink("s", "").end()),
        case("a symlink to a NUL", tar().pax("linkpath", b"a\0b").symlink("s", "x").end()),
        case("a symlink longer than links are", tar().pax("linkpath", "x".repeat(4096)).symlink("s", "x").end()),
        case("a device in a directory", tar().dir("dev").sized(b'3', "dev/mem", "", 0, b"").end()),
        case("a block device that a PAX path names", tar().pax("path", "sda").sized(b'4', "x", "", 0, b"").end()),
        case("a device by PAX numbers", tar().pax("SCHILY.devmajor", "8").sized(b'4', "sda", "", 0, b"").end()),
    ]
}

/// A file whose header has `bytes` at `at`.
fn with(at: usize, bytes: &'static [u8]) -> Vec<u8> {
    let set = |block: &mut [u8; 512]| block[at..at + bytes.len()].copy_from_slice(bytes);
    Tar::default().changed(b'0', "f", b"evil", set).end()
}

/// Numbers in headers that readers read differently.
fn fields() -> Vec<Case> {
    const MODE: usize = 100;
    const UID: usize = 108;
    const GID: usize = 116;
    const SIZE: usize = 124;
    const MTIME: usize = 136;
    let tar = Tar::default;
    vec![
        case("size: a plus sign", with(SIZE, b"+0000000004\0")),
        case("size: a minus sign", with(SIZE, b"-0000000004\0")),
        case("size: hexadecimal", with(SIZE, b"0x4\0\0\0\0\0\0\0\0\0")),
        case("size: octal as Python writes it", with(SIZE, b"0o4\0\0\0\0\0\0\0\0\0")),
        case("size: an underscore", with(SIZE, b"0000000_004\0")),
        case("size: a NUL before the digits", with(SIZE, b"\x00000000004\0")),
        case("size: -4 in base 256", with(SIZE, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfc")),
        case("size: 2^64 + 4 in base 256", with(SIZE, b"\x80\0\0\x01\0\0\0\0\0\0\0\x04")),
        case("size: 2^72 + 4 in base 256", with(SIZE, b"\x80\0\x01\0\0\0\0\0\0\0\0\x04")),
        case("size: the most that base 256 holds", with(SIZE, b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")),
        case("mode: negative", with(MODE, b"\xff\xff\xff\xff\xff\xff\xff\xfe")),
        case("mode: beyond 32 bits", with(MODE, b"\x80\0\0\x01\0\0\0\0")),
        case("mode: decimal", with(MODE, b"0000888\0")),
        case("uid: -1", with(UID, b"\xff\xff\xff\xff\xff\xff\xff\xff")),
        case("uid: letters", with(UID, b"root\0\0\0\0")),
        case("gid: 2^32", with(GID, b"\x80\0\0\x01\0\0\0\0")),
        case("gid: a plus sign", with(GID, b"+000000\0")),
        case("mtime: letters", with(MTIME, b"yesterday\0\0\0")),
        case("mtime: beyond 64 bits", with(MTIME, b"\x80\0\x01\0\0\0\0\0\0\0\0\0")),
        case("a pipe with content", tar().sized(b'6', "p", "", 512, &header(b'0', b"../x", b"", 0, |_| {})).end()),
        case("an old directory with content", tar().sized(b'0', "d/", "", 512, &[b'x'; 512]).end()),
        case("PAX size of a directory", tar().pax("size", "512").dir("d").raw(&[b'x'; 512]).end()),
        case("PAX size of a symlink", tar().pax("size", "512").symlink("s", "t").raw(&[b'x'; 512]).end()),
        case("PAX size of 2^33 beside a small one", tar().pax("size", "8589934592").file("f").end()),
        case("PAX size of a larger file beside the true one", tar().pax("size", "1536").file("f").file("../x").end()),
        case("PAX size of 0 beside the true one", tar().pax("size", "0").file("f").end()),
        case("a long name of 4 GiB", tar().sized(b'L', "x", "", 1 << 32, b"x").end()),
        case("a long name that is empty", tar().long(b'L', "").file("f").end()),
        case("a long name of no entry", tar().long(b'L', "x").end()),
        case("a long link of no entry", tar().long(b'K', "x").end()),
        case("a PAX header of no entry", tar().pax("comment", "x").end()),
        case("two long names", tar().long(b'L', "a").long(b'L', "b").file("f").end()),
        case("two long links", tar().long(b'K', "a").long(b'K', "b").symlink("s", "c").end()),
        case("a long name and a PAX path", tar().long(b'L', "a").pax("path", "../b").file("f").end()),
        case("a PAX path and a long name", tar().pax("path", "a").long(b'L', "../b").file("f").end()),
        case("a long link and a PAX linkpath", tar().long(b'K', "a").pax("linkpath", "b").symlink("s", "c").end()),
    ]
}

/// PAX data that is wrong, each in one way.
fn records() -> Vec<Case> {
    let pax = |what: &str, data: &[u8]| case(format!("PAX: {what}"), Tar::default().raw_pax(data).file("f").end());
    let twice = |key: &str, one: &str, other: &str| {
        let both = [record(key, one.as_bytes()), record(key, other.as_bytes())].concat();
        case(format!("PAX: {key} twice"), Tar::default().raw_pax(both).file("f").end())
    };
    let attribute = |name: &[u8]| {
        let rest = 3 + 13 + name.len() + 2;
        let len = rest + rest.to_string().len() - 1;
        [format!("{len} SCHILY.xattr.").as_bytes(), name, b"=x\n"].concat()
    };
    vec![
        twice("path", "a", "../b"),
        twice("linkpath", "a", "b"),
        twice("size", "4", "4"),
        twice("uid", "0", "1"),
        twice("gid", "0", "1"),
        twice("mtime", "0", "1"),
        twice("uname", "a", "b"),
        twice("gname", "a", "b"),
        twice("SCHILY.devmajor", "1", "2"),
        twice("SCHILY.xattr.user.a", "1", "2"),
        pax("no key", b"5 =x\n"),
        pax("a space before the length", b" 11 path=x\n"),
        pax("a tab after the length", b"10\tpath=x\n"),
        pax("hexadecimal length", b"0xa path=x\n"),
        pax("a length that ends in the next record", b"19 path=x\n10 path=y\n"),
        pax("a length that ends before the line", b"8 path=x\n"),
        pax("a second line of one record", b"15 path=x\nevil\n0"),
        pax("only a length", b"3 \n"),
        pax("nothing after the length", b"10 "),
        pax("a carriage return for a line end", b"10 path=x\r"),
        pax("size with a sign", &record("size", b"+4")),
        pax("size with a space", &record("size", b" 4")),
        pax("size that is empty", &record("size", b"")),
        pax("size with a fraction", &record("size", b"4.0")),
        pax("uid beyond 32 bits", &record("uid", b"4294967296")),
        pax("gid that is negative", &record("gid", b"-1")),
        pax("mtime with two points", &record("mtime", b"1.2.3")),
        pax("mtime with an exponent", &record("mtime", b"1e9")),
        pax("mtime that is empty", &record("mtime", b"")),
        pax("a device that is none", &record("SCHILY.devminor", b"x")),
        pax("an attribute without a name", &attribute(b"")),
        pax("an attribute with a NUL in its name", &attribute(b"user.a\0b")),
        pax("an attribute with a name of 300 bytes", &record(&format!("SCHILY.xattr.user.{}", "x".repeat(295)), b"x")),
    ]
}

fn globals() -> Vec<Case> {
    let global =
        |what: &str, data: Vec<u8>| case(format!("global {what}"), Tar::default().global(data).file("f").end());
    vec![
        global("attribute", record("SCHILY.xattr.user.a", b"1")),
        global("device", record("SCHILY.devmajor", b"8")),
        global("map of a sparse file", record("GNU.sparse.map", b"0,4")),
        global("name of a sparse file", record("GNU.sparse.name", b"../x")),
        global("uid that is none", record("uid", b"root")),
        global("mtime twice", [record("mtime", b"0"), record("mtime", b"1")].concat()),
        case("global path, later", Tar::default().file("f").global(record("path", b"../x")).file("g").end()),
        case("global header of 8 GiB", Tar::default().sized(b'g', "g", "", (1 << 33) - 1, b"").end()),
    ]
}

/// Names that Lifeboat itself gives.
fn reserved() -> Vec<Case> {
    let stage = format!(".lifeboat-{}", "0f".repeat(16));
    let beside = format!(".app{stage}");
    let (here, deep, aside) =
        (format!("{stage}/lifeboat-stage"), format!("a/b/{stage}/lifeboat-stage"), format!("{beside}/lifeboat-stage"));
    vec![
        case("what looks like a stage", Tar::default().file(&here).end()),
        case("what looks like a stage, further down", Tar::default().file(deep).end()),
        case("what looks like a stage of a restore in place", Tar::default().file(aside).end()),
        case("what looks like a stage, by a symlink", Tar::default().symlink(&here, "../journal").end()),
        case("what looks like a stage, by a hard link", Tar::default().file("f").link(&here, "f").end()),
        case("what looks like a stage, by a directory", Tar::default().dir(&here).end()),
        case(
            "listed: what looks like a stage",
            ours(&[listed("file", &here, b"evil", "")], Tar::default().file(&here)),
        ),
    ]
}

fn beyond_names() -> Vec<Case> {
    let long = "n".repeat(256);
    let (deep, path) = (format!("a/{long}/b"), format!("{long}/x"));
    vec![
        case("a name of 256 bytes", Tar::default().pax("path", &long).file("x").end()),
        case("a directory of 256 bytes", Tar::default().pax("path", &long).dir("x").end()),
        case("a file in a directory of 256 bytes", Tar::default().pax("path", path).file("x").end()),
        case("a long name with a part of 256 bytes", Tar::default().long(b'L', deep).file("x").end()),
        case("a symlink of 256 bytes", Tar::default().pax("path", &long).symlink("x", "y").end()),
        case("a hard link of 256 bytes", Tar::default().file("f").pax("path", &long).link("x", "f").end()),
        case("a path of 100,000 bytes", Tar::default().pax("path", "a/".repeat(50_000)).dir("x").end()),
        case("a terminal escape in a refused name", Tar::default().file("\x1b]0;evil\x07/../x").end()),
        case("bytes that are no UTF-8 in a refused name", Tar::default().file(b"\xff\xfe\x9b31m/../x").end()),
        case("text from right to left in a refused name", Tar::default().file("\u{202e}gpj/../x").end()),
        case("lines in a refused name", Tar::default().file("a\nerror[E0]: all is well\n/../x").end()),
    ]
}

/// Two archives where there should be one.
fn concatenated() -> Vec<Case> {
    let one = Tar::default().file("f").end();
    let other = Tar::default().file("g").end();
    let both = ours(&[listed("file", "files/a", b"evil", "")], Tar::default().file("files/a"));
    vec![
        case("two archives", [one.clone(), other.clone()].concat()),
        case("two archives in gzip", [gzip(&one), gzip(&other)].concat()),
        case("two archives in zstd", [zstd(&one), zstd(&other)].concat()),
        case("two of ours", [both.clone(), both.clone()].concat()),
        case("two of ours in zstd", [zstd(&both), zstd(&both)].concat()),
        case("one of ours and a foreign one", [both, other.clone()].concat()),
        case("a kilobyte after the end, in gzip", gzip(&[one.clone(), vec![b'x'; 1024]].concat())),
        case("another archive a megabyte after the end", [one.clone(), vec![0; 1 << 20], other].concat()),
        ("gzip with something after it".to_owned(), [gzip(&one), b"something".to_vec()].concat(), DAMAGED),
        ("zstd with something after it".to_owned(), [zstd(&one), b"something".to_vec()].concat(), DAMAGED),
        ("gzip with another sum".to_owned(), changed_at(gzip(&one), 8), DAMAGED),
        ("gzip with another length".to_owned(), changed_at(gzip(&one), 1), DAMAGED),
        ("gzip in gzip".to_owned(), gzip(&gzip(&one)), DAMAGED),
        ("a checksum of spaces".to_owned(), one[..148].iter().copied().chain([b' '; 8]).collect(), DAMAGED),
    ]
}

/// One bit changed, so many bytes before the end.
fn changed_at(mut bytes: Vec<u8>, before_end: usize) -> Vec<u8> {
    let at = bytes.len() - before_end;
    bytes[at] ^= 1;
    bytes
}

/// More than was said.
fn totals() -> Vec<Case> {
    let records = [listed("file", "files/a", &[b'x'; 5000], ""), listed("file", "files/b", b"evil", "")];
    let body = || Tar::default().sized(b'0', "files/a", "", 5000, &[b'x'; 5000]).file("files/b");
    let said = |entries: u64, files: u64, bytes: u64| {
        let totals = format!(r#""totals":{{"entries":{entries},"files":{files},"bytes":{bytes}}},"files":["#);
        with_manifest(&manifest("lifeboat/1", &records).replace(r#""files":["#, &totals), body())
    };
    let head = |filler: String| with_manifest(&manifest("lifeboat/1", &[]).replace(r#""app":"a""#, &filler), body());
    let many = "x".repeat(17 << 20);
    let long = listed("file", "files/a", b"evil", "")
        .replace(r#""size""#, &format!(r#""new":"{}","size""#, "x".repeat(2 << 20)));
    vec![
        case("totals: fewer bytes", said(2, 2, 4)),
        case("totals: one byte less", said(2, 2, 5003)),
        case("totals: fewer entries", said(1, 2, 5004)),
        case("totals: only files", said(0, 2, 0)),
        case("a manifest whose head is endless, packed small", zstd(&head(format!(r#""app":"{many}""#)))),
        case("a record that is endless, packed small", zstd(&ours(&[long], Tar::default().file("files/a")))),
        case(
            "the manifest is not the first entry",
            Tar::default().file("files/a").raw(&ours(&[listed("file", "files/a", b"evil", "")], Tar::default())).0,
        ),
        case(
            "the manifest is the last entry",
            Tar::default()
                .file("a")
                .raw(&{
                    let text = manifest("lifeboat/1", &[]);
                    Tar::default().sized(b'0', "./manifest.json", "", text.len() as u64, text.as_bytes()).end()
                })
                .0,
        ),
    ]
}

/// Manifests whose list does not agree with what follows, or is none.
fn lists() -> Vec<Case> {
    let damaged = |what: &str, bytes| (what.to_owned(), bytes, DAMAGED);
    let a = listed("file", "files/a", b"evil", "");
    let changed = |from: &str, to: &str| ours(&[a.replace(from, to)], Tar::default().file("files/a"));
    let text = |from: &str, to: &str| {
        with_manifest(
            &manifest("lifeboat/1", std::slice::from_ref(&a)).replace(from, to),
            Tar::default().file("files/a"),
        )
    };
    vec![
        case("listed: NUL in a path", changed("files/a", r"files/\u0000a")),
        case("listed: parent in base64", changed(r#""path":"#, r#""path_b64":"Li4v","path":"#)),
        damaged("listed: base64 that is none", changed(r#""path":"#, r#""path_b64":"!","path":"#)),
        damaged("listed: another owner's name", changed(r#""uid":0"#, r#""user":"x","uid":0"#)),
        damaged("listed: another group's name", changed(r#""uid":0"#, r#""group":"x","uid":0"#)),
        damaged("listed: another group", changed(r#""gid":0"#, r#""gid":1"#)),
        damaged("listed: attributes that are not there", changed(r#""uid":0"#, r#""xattrs":"00","uid":0"#)),
        damaged("listed: a device number of a file", changed(r#""uid":0"#, r#""rdev":"1:2","uid":0"#)),
        damaged("listed: a target of a file", changed(r#""uid":0"#, r#""target":"x","uid":0"#)),
        damaged("listed: a size that is negative", changed(r#""size":4"#, r#""size":-4"#)),
        damaged("listed: a size beyond 64 bits", changed(r#""size":4"#, r#""size":18446744073709551616"#)),
        damaged("listed: a mode that is none", changed("0644", "rw-r")),
        damaged("listed: a time that is none", changed("0.000000000", "now")),
        damaged("listed: a kind that nobody knows", changed(r#""file""#, r#""\u001b[2J""#)),
        damaged("listed: a sum that is too short", changed(r#""sha256":""#, r#""sha256":"00","x":""#)),
        damaged("no JSON", text(r#""app""#, "app")),
        damaged("a head without an id", text(r#""id""#, r#""di""#)),
        damaged("a head with a time that is none", text("2026-02-24T03", "yesterday")),
        damaged("a head with an outcome that nobody knows", text(r#""good""#, r#""\u001b[2J""#)),
        damaged("a head nested without end", text(r#""app":"#, &format!(r#""x":{},"app":"#, "[".repeat(5000)))),
        damaged("a list that is an object", text(r#""files":["#, r#""files":{"#)),
        ("a format with an escape".to_owned(), text("lifeboat/1", r"lifeboat/2\u001b[2J"), UNKNOWN),
    ]
}
