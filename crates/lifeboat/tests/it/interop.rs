//! Stock tools read our archives, and we read theirs.
#![expect(clippy::unwrap_used, reason = "these are the helpers of tests")]

use lifeboat_store::testing::{can_run, is_root, skip};

use crate::env::TestEnv;
use crate::fidelity::{Maker, Tree, archived, assert_same, snapshot};

/// What stock tools have to work on, in `files/source` so that it lies where the archive says.
fn source(env: &TestEnv) -> Tree {
    let maker = Maker::new(&env.path("files/source"));
    maker.usual();
    archived(snapshot(&env.path("files/source")), false)
}

/// The manifest of the archive `name`, as a stock tool gets it out.
fn manifest(env: &TestEnv, name: &str) -> serde_json::Value {
    let text = env.run("tar", ["-xOf", name, "manifest.json"]).ok().bytes;
    serde_json::from_slice(&text).unwrap()
}

/// `tree` as it looks after a tool that knows nothing of holes.
fn filled(mut tree: Tree) -> Tree {
    tree.values_mut().for_each(|node| node.is_sparse = false);
    tree
}

/// Shows A8.
#[test]
fn gnu_tar_lists_extracts_and_compares() {
    if !can_run("gnu_tar_lists_extracts_and_compares", &["tar", "zstd", "gzip"]) {
        return;
    }
    let env = TestEnv::new();
    let expected = source(&env);
    for name in ["a.tar.zst", "a.tar.gz"] {
        env.lifeboat(["backup", "files/source", "--output", name]).ok();
        let listed = env.run("tar", ["--quoting-style=literal", "--null", "-tf", name]).ok();
        assert_eq!(listed.stderr, "");
        let first = listed.bytes.split(|byte| *byte == b'\n').next().unwrap();
        assert_eq!(first, b"manifest.json");

        let to = format!("by-tar-{name}");
        env.mkdir(&to);
        let options = [
            "-x",
            "-p",
            "--warning=no-timestamp",
            "--xattrs",
            "--xattrs-include=*",
            "--acls",
            "--numeric-owner",
            "-f",
            name,
            "-C",
            &to,
        ];
        assert_eq!(env.run("tar", options).ok().stderr, "");
        assert_same(&filled(expected.clone()), &filled(snapshot(&env.path(&to).join("files/source"))), name);

        let compared = env.run("tar", ["--compare", "--exclude=manifest.json", "-f", name]).ok();
        assert_eq!(compared.stdout + &compared.stderr, "", "{name}: nothing differs");
    }
    // The comparison can fail.
    env.write("files/source/content/1", "!");
    env.run("tar", ["--compare", "--exclude=manifest.json", "-f", "a.tar.zst"]).code(1);
}

/// Shows A2 and A8.
#[test]
fn pythons_tarfile_finds_the_manifest_first_and_every_sum_in_it() {
    const TEST: &str = "pythons_tarfile_finds_the_manifest_first_and_every_sum_in_it";
    if !can_run(TEST, &["python3", "zstd"]) {
        return;
    }
    let env = TestEnv::new();
    source(&env);
    env.lifeboat(["backup", "files/source", "--output", "a.tar.zst"]).ok();
    env.lifeboat(["backup", "files/source", "--output", "a.tar.gz"]).ok();
    env.run("zstd", ["-q", "-d", "a.tar.zst", "-o", "plain.tar"]).ok();
    for name in ["plain.tar", "a.tar.gz"] {
        let said = env.run("python3", ["-c", HOLD_AGAINST_MANIFEST, name]).ok().stdout;
        let counted: usize = said.trim().parse().unwrap_or_else(|_| panic!("{name}: {said}"));
        assert!(counted > 100, "{counted} entries were compared");
    }
}

/// Reads the archive with nothing of ours and holds every attribute against the manifest.
const HOLD_AGAINST_MANIFEST: &str = r#"
import base64, hashlib, json, stat, struct, sys, tarfile

def raw(text): return text.encode("utf-8", "surrogateescape")
def field(record, name):
    if name + "_b64" in record: return base64.b64decode(record[name + "_b64"])
    return record.get(name, "").encode()

archive = tarfile.open(sys.argv[1], encoding="utf-8", errors="surrogateescape")
members = iter(archive)
first = next(members)
assert first.name == "manifest.json" and first.isreg(), first
text = archive.extractfile(first).read()
manifest = json.loads(text)
assert list(manifest)[-1] == "files" and manifest["format"] == "lifeboat/1", list(manifest)
for key in "tool app host id created window_ms outcome sources".split():
    assert key in manifest, key
assert len(bytes.fromhex(manifest["id"])) == 16 and manifest["created"].endswith("Z")
records = manifest["files"]
count = 0
for member, record in zip(members, records, strict=True):
    kinds = {"file": tarfile.REGTYPE, "dir": tarfile.DIRTYPE, "symlink": tarfile.SYMTYPE, "hardlink": tarfile.LNKTYPE,
             "char": tarfile.CHRTYPE, "block": tarfile.BLKTYPE}
    where = (member, record)
    assert raw(member.name) == field(record, "path"), where
    assert member.type == kinds[record["type"]], where
    assert member.mode == int(record["mode"], 8) and len(record["mode"]) == 4, where
    assert (member.uid, member.gid) == (record["uid"], record["gid"]), where
    assert (raw(member.uname), raw(member.gname)) == (field(record, "user"), field(record, "group")), where
    whole, nanos = record["mtime"].split(".")
    assert len(nanos) == 9 and abs(member.mtime - (int(whole) + int(nanos) / 1e9)) < 1e-5, where
    if record["type"] in ("symlink", "hardlink"):
        assert raw(member.linkname) == field(record, "target"), where
    else:
        assert "target" not in record, where
    if record["type"] == "file":
        content = archive.extractfile(member).read()
        assert len(content) == record["size"] == member.size, where
        assert hashlib.sha256(content).hexdigest() == record["sha256"], where
    else:
        assert "sha256" not in record, where
    decode = lambda key: key.replace(b"%3D", b"=").replace(b"%25", b"%")
    prefix = "SCHILY.xattr."
    attributes = [(decode(raw(key[len(prefix):])), raw(value)) for key, value in member.pax_headers.items() if key.startswith(prefix)]
    summed = b"".join(struct.pack(">I", len(part)) + part for pair in sorted(attributes) for part in pair)
    assert record.get("xattrs") == (hashlib.sha256(summed).hexdigest() if attributes else None), where
    count += 1
assert count == manifest["totals"]["entries"], manifest["totals"]
print(count)
"#;

/// Busybox knows no PAX headers: names of up to 100 bytes, times in whole seconds.
///
/// Shows A8.
#[test]
fn busybox_lists_and_extracts() {
    if !can_run("busybox_lists_and_extracts", &["busybox", "zstd"]) {
        return;
    }
    let env = TestEnv::new();
    for (name, content) in [("source/a", "a".repeat(3000)), ("source/dir/b", String::new()), ("source/e", "x".into())] {
        env.write(name, content);
    }
    env.run("ln", ["-s", "/nowhere", "source/link"]).ok();
    env.run("ln", ["source/a", "source/z"]).ok();
    env.lifeboat(["backup", "source", "--output", "a.tar.gz"]).ok();
    env.lifeboat(["backup", "source", "--output", "a.tar.zst"]).ok();
    env.run("zstd", ["-q", "-d", "a.tar.zst", "-o", "plain.tar"]).ok();
    for (name, option) in [("a.tar.gz", "-z"), ("plain.tar", "-v")] {
        let listed = env.run("busybox", ["tar", "-t", option, "-f", name]).ok().stdout;
        for entry in ["manifest.json", "files/source/a", "files/source/dir/b", "files/source/link"] {
            assert!(listed.contains(entry), "{listed}");
        }
        let to = format!("by-busybox-{name}");
        env.mkdir(&to);
        env.run("busybox", ["tar", "-x", option, "-f", name, "-C", &to]).ok();
        let strip = |mut tree: Tree| {
            tree.values_mut().for_each(|node| node.mtime.1 = 0);
            // It sets no times of links, and those of directories before it fills them.
            tree.values_mut().filter(|node| node.kind != "file").for_each(|node| node.mtime = (0, 0));
            tree
        };
        let got = snapshot(&env.path(&to).join("files/source"));
        assert_same(&strip(snapshot(&env.path("source"))), &strip(got), name);
    }
}

/// Shows A8.
#[test]
fn sha256sum_agrees_with_the_sums_of_the_manifest() {
    if !can_run("sha256sum_agrees_with_the_sums_of_the_manifest", &["tar", "zstd", "sha256sum"]) {
        return;
    }
    let env = TestEnv::new();
    for number in 0..30 {
        env.write(format!("source/{}/{number}", number % 3), format!("{number}").repeat(number * 1000));
    }
    env.lifeboat(["backup", "source", "--output", "a.tar.zst"]).ok();
    let manifest = manifest(&env, "a.tar.zst");
    let files: Vec<_> = manifest["files"].as_array().unwrap().iter().filter(|file| file["type"] == "file").collect();
    assert_eq!(files.len(), 30);
    let text = |file: &serde_json::Value, key: &str| file[key].as_str().unwrap().to_owned();
    let sums: String = files.iter().map(|file| format!("{}  {}\n", text(file, "sha256"), text(file, "path"))).collect();
    env.write("sums", sums);
    env.lifeboat(["restore", "a.tar.zst", "--to", "."]).ok();
    let said = env.run("sha256sum", ["--check", "--strict", "--quiet", "sums"]).ok();
    assert_eq!(said.stdout, "");
    env.write("files/source/1/1", "2");
    env.run("sha256sum", ["--check", "--strict", "--quiet", "sums"]).code(1);
}

/// Also packed another way: one frame of zstd at another level, one gzip member, and not at all.
///
/// Shows A8.
#[test]
fn zstd_and_gzip_test_our_archives_and_we_read_what_they_packed_anew() {
    if !can_run("zstd_and_gzip_test_our_archives_and_we_read_what_they_packed_anew", &["zstd", "gzip", "pigz"]) {
        return;
    }
    let env = TestEnv::new();
    let expected = source(&env);
    env.lifeboat(["backup", "files/source", "--output", "a.tar.zst"]).ok();
    env.lifeboat(["backup", "files/source", "--output", "a.tar.gz", "--compression-level", "1"]).ok();
    env.run("zstd", ["-q", "-t", "a.tar.zst"]).ok();
    env.run("gzip", ["-t", "a.tar.gz"]).ok();
    env.run("pigz", ["-t", "a.tar.gz"]).ok();
    for command in [
        "zstd -q -d a.tar.zst -o plain.tar",
        "zstd -q -1 plain.tar -o one-frame.tar.zst",
        "zstd -q -12 --long=27 -T2 plain.tar -o long.tar.zst",
        "gzip -1 -c plain.tar > one-member.tar.gz",
        "cat plain.tar | zstd -q --no-check > unknown-size.tar.zst",
    ] {
        env.run("sh", ["-c", command]).ok();
    }
    for name in ["plain.tar", "one-frame.tar.zst", "long.tar.zst", "one-member.tar.gz", "unknown-size.tar.zst"] {
        let said = env.lifeboat(["backup", "verify", name]).ok();
        assert!(said.stdout.contains("verified successfully."), "{name}: {}", said.stdout);
        let to = format!("restored-{name}");
        env.lifeboat(["restore", name, "--to", &to]).ok();
        assert_same(&expected, &snapshot(&env.path(&to).join("files/source")), name);
    }
}

/// A name that `tar` in its old forms can hold too, for a tree of plain things.
fn plain_source(env: &TestEnv) {
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
    for (name, content) in [("a", "first"), ("dir/b", ""), ("dir/c", "third"), (long.as_str(), "long name")] {
        env.write(format!("source/{name}"), content);
    }
    env.mkdir("source/dir/empty");
    env.run("ln", ["source/a", "source/z"]).ok();
    env.run("ln", ["-s", "/nowhere", "source/link"]).ok();
    env.run("chmod", ["0751", "source/dir"]).ok();
    env.run("sh", ["-c", "find source -exec touch -h -d '2020-05-05 01:02:03' {} +"]).ok();
}

/// Shows A8.
#[test]
fn a_tar_that_lifeboat_did_not_write_lists_and_restores_and_has_no_manifest() {
    const TEST: &str = "a_tar_that_lifeboat_did_not_write_lists_and_restores_and_has_no_manifest";
    if !can_run(TEST, &["tar", "zstd", "gzip", "busybox", "python3"]) {
        return;
    }
    let env = TestEnv::new();
    plain_source(&env);
    let expected = snapshot(&env.path("source"));
    let python =
        "import sys,tarfile; t=tarfile.open(sys.argv[1],'w',format=int(sys.argv[2])); t.add('source'); t.close()";
    let mut made: Vec<(String, Vec<String>)> = Vec::new();
    for format in ["oldgnu", "gnu", "ustar", "pax", "v7"] {
        // v7 has no room for long names.
        let names = if format == "v7" { "source/a source/dir source/link source/z" } else { "source" };
        for (suffix, how) in [(".tar", ""), (".tar.gz", "-z"), (".tar.zst", "--zstd")] {
            let archive = format!("{format}{suffix}");
            made.push((archive.clone(), vec![format!("tar --format={format} {how} -cf {archive} {names}")]));
        }
        let dotted = format!("dotted-{format}.tar");
        let names = names.split(' ').map(|name| format!("./{name}")).collect::<Vec<_>>().join(" ");
        made.push((dotted.clone(), vec![format!("tar --format={format} -cf {dotted} {names}")]));
    }
    made.push(("dot.tar.gz".into(), vec!["mkdir dot; cp -a source dot; tar -C dot -czf dot.tar.gz .".into()]));
    made.push(("busybox.tar".into(), vec!["busybox tar -cf busybox.tar source".into()]));
    made.push(("verbose.tar".into(), vec!["tar --format=gnu -V label -cf verbose.tar source".into()]));
    let options = "--format=pax --pax-option=exthdr.name=%d/x,delete=atime,globexthdr.name=g,comment=x";
    made.push(("global.tar".into(), vec![format!("tar {options} -cf global.tar source")]));
    made.push(("blocks.tar".into(), vec!["tar -b 1 -cf blocks.tar source".into()]));
    for format in 0..3 {
        made.push((
            format!("python-{format}.tar"),
            vec![format!("python3 -c \"{python}\" python-{format}.tar {format}")],
        ));
    }
    for (archive, commands) in made {
        commands.iter().for_each(|command| drop(env.run("sh", ["-c", command]).ok()));
        let listed = env.lifeboat(["backup", "list", &archive]).ok().stdout;
        assert!(listed.contains("source/a") && listed.contains("no manifest"), "{archive}: {listed}");
        let verified = env.lifeboat(["backup", "verify", &archive]).code(1);
        let said = verified.stdout + &verified.stderr;
        assert!(said.contains("no manifest"), "{archive}: {said}");
        let to = format!("from-{archive}");
        env.lifeboat(["restore", &archive, "--to", &to]).ok();
        let mut got = snapshot(&env.path(&to).join("source"));
        let mut expected = expected.clone();
        // Times that GNU tar leaves out are those of the making.
        if archive.contains("v7") {
            expected.retain(|path, _| !path.starts_with(b"dddd"));
            expected.remove(b"".as_slice());
            got.remove(b"".as_slice());
        }
        assert_same(&expected, &got, &archive);
    }
}

/// Shows A8.
#[test]
fn attributes_owners_and_odd_times_of_a_foreign_tar_come_back() {
    const TEST: &str = "attributes_owners_and_odd_times_of_a_foreign_tar_come_back";
    if !can_run(TEST, &["tar", "setfattr"]) {
        return;
    }
    if !is_root() {
        return skip(TEST, "needs root, to give files away");
    }
    let env = TestEnv::new();
    env.write("source/a", "a");
    env.run("setfattr", ["-n", "user.a=b%c", "-v", "kept", "source/a"]).ok();
    env.run("setfattr", ["-n", "trusted.t", "-v", "kept too", "source/a"]).ok();
    env.write("source/owned", "b");
    env.run("chown", ["4000000000:3000000000", "source/owned"]).ok();
    env.write("source/old", "c");
    env.run("touch", ["-d", "1960-01-02 03:04:05.5", "source/old"]).ok();
    env.write("source/late", "d");
    env.run("touch", ["-d", "2300-01-02 03:04:05.25", "source/late"]).ok();
    env.run("truncate", ["-s", "10M", "source/zeros"]).ok();
    let source = filled(snapshot(&env.path("source")));
    for format in ["pax", "gnu"] {
        let archive = format!("{format}.tar");
        let attributes: &[&str] = if format == "pax" { &["--xattrs", "--xattrs-include=*"] } else { &[] };
        let form = format!("--format={format}");
        env.run("tar", attributes.iter().copied().chain([form.as_str(), "-cf", &archive, "source"])).ok();
        env.lifeboat(["restore", &archive, "--to", format]).ok();
        let mut expected = source.clone();
        if format == "gnu" {
            // That form has whole seconds and no attributes.
            for node in expected.values_mut() {
                node.mtime.1 = 0;
                node.xattrs.clear();
            }
        }
        assert_same(&expected, &filled(snapshot(&env.path(format).join("source"))), format);
    }
}

/// Shows A8.
#[test]
fn a_foreign_tar_with_sparse_files_is_restored_with_its_holes() {
    use std::os::unix::fs::MetadataExt as _;

    if !can_run("a_foreign_tar_with_sparse_files_is_restored_with_its_holes", &["tar"]) {
        return;
    }
    let env = TestEnv::new();
    env.mkdir("source");
    env.run("truncate", ["-s", "10M", "source/holes"]).ok();
    for (number, form) in ["--format=gnu", "--format=pax --sparse-version=1.0", "--format=pax --sparse-version=0.1"]
        .into_iter()
        .enumerate()
    {
        let archive = format!("{number}.tar");
        env.run("sh", ["-c", &format!("tar -S {form} -cf {archive} source")]).ok();
        let to = format!("new{number}");
        env.lifeboat(["restore", &archive, "--to", &to]).ok();
        let holes = env.path(format!("{to}/source/holes")).metadata().unwrap();
        assert_eq!(holes.len(), 10 << 20);
        assert!(holes.blocks() < 100, "{} blocks", holes.blocks());
    }
}

/// A `manifest.json` that is somebody else's (npm, docker) makes no archive of ours.
///
/// Shows A8.
#[test]
fn somebody_elses_manifest_is_an_ordinary_file() {
    if !can_run("somebody_elses_manifest_is_an_ordinary_file", &["tar"]) {
        return;
    }
    let env = TestEnv::new();
    for (number, text) in
        ["{}", "", "{\"name\":\"x\"}", "[{\"Config\":\"a.json\"}]", "not json"].into_iter().enumerate()
    {
        env.write("manifest.json", text);
        env.write("x", "y");
        let archive = format!("{number}.tar");
        env.run("tar", ["-cf", &archive, "manifest.json", "x"]).ok();
        let said = env.lifeboat(["backup", "verify", &archive]).code(1);
        assert!((said.stdout + &said.stderr).contains("no manifest"));
        let to = format!("new-{number}");
        env.lifeboat(["restore", &archive, "--to", &to]).ok();
        assert_eq!(env.read(format!("{to}/manifest.json")), text.as_bytes());
        assert_eq!(env.read(format!("{to}/x")), b"y");
    }
}
