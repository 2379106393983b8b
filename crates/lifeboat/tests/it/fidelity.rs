//! Everything comes back: content, attributes, links, holes and strange names.
//! [`snapshot`] reads all that can be said of a tree, for the other tests too.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "these are the helpers of tests")]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use lifeboat_store::testing::{Random, can_run, is_root, skip};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};

use crate::env::TestEnv;

/// The user nobody.
pub(crate) const NOBODY: u32 = 65534;

/// All that can be said of one file, directory or link; no access and change times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: &'static str,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: (i64, i64),
    pub(crate) size: u64,
    /// The sum of a file's content.
    pub(crate) content: String,
    pub(crate) target: Vec<u8>,
    pub(crate) device: Option<(u32, u32)>,
    /// The first of all names of a file that has several.
    pub(crate) first_name: Vec<u8>,
    /// Names and values, escaped.
    pub(crate) xattrs: BTreeMap<String, String>,
    /// Whether it takes less room than it is long.
    pub(crate) is_sparse: bool,
}

/// A tree: every path below its root (which is ""), and what is there.
pub(crate) type Tree = BTreeMap<Vec<u8>, Node>;

/// Reads the whole tree at `root`; of what is no file or directory nothing is opened.
pub(crate) fn snapshot(root: &Path) -> Tree {
    let (parent, name) = (root.parent().unwrap(), root.file_name().unwrap());
    let parent = File::open(parent).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
    let mut reader = Reader { tree: Tree::new(), groups: BTreeMap::new() };
    reader.read(parent.as_fd(), name.as_bytes(), Vec::new());
    for (first, others) in reader.groups.into_values().map(|names| (names[0].clone(), names)) {
        for name in others {
            reader.tree.get_mut(&name).unwrap().first_name.clone_from(&first);
        }
    }
    reader.tree
}

struct Reader {
    tree: Tree,
    groups: BTreeMap<(u64, u64), Vec<Vec<u8>>>,
}

impl Reader {
    fn read(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: Vec<u8>) {
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mut node = Node {
            kind: kind_name(kind),
            mode: stat.st_mode & 0o7777,
            owner: (stat.st_uid, stat.st_gid),
            mtime: (stat.st_mtime, stat.st_mtime_nsec.try_into().unwrap()),
            size: 0,
            content: String::new(),
            target: Vec::new(),
            device: None,
            first_name: Vec::new(),
            xattrs: xattrs(dir, name),
            is_sparse: false,
        };
        let open = |flags| rustix::fs::openat(dir, name, flags | OFlags::NOFOLLOW, Mode::empty());
        let mut below = None;
        match kind {
            FileType::RegularFile => {
                node.size = u64::try_from(stat.st_size).unwrap();
                node.is_sparse = u64::try_from(stat.st_blocks).unwrap() * 512 < node.size;
                node.content = sum(&mut File::from(open(OFlags::RDONLY).unwrap()));
                self.groups.entry((stat.st_dev, stat.st_ino)).or_default().push(path.clone());
            }
            FileType::Directory => below = Some(open(OFlags::RDONLY | OFlags::DIRECTORY).unwrap()),
            FileType::Symlink => node.target = rustix::fs::readlinkat(dir, name, Vec::new()).unwrap().into_bytes(),
            FileType::CharacterDevice | FileType::BlockDevice => {
                node.device = Some((rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)));
            }
            _ => {}
        }
        self.tree.insert(path.clone(), node);
        let Some(below) = below else { return };
        let mut names: Vec<Vec<u8>> = rustix::fs::Dir::read_from(&below)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_bytes().to_vec())
            .collect();
        names.retain(|name| name != b"." && name != b"..");
        names.sort();
        for name in names {
            let path = if path.is_empty() { name.clone() } else { [&path[..], b"/", &name].concat() };
            self.read(below.as_fd(), &name, path);
        }
    }
}

fn kind_name(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "file",
        FileType::Directory => "dir",
        FileType::Symlink => "symlink",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "char",
        FileType::BlockDevice => "block",
        FileType::Unknown => "unknown",
    }
}

fn sum(file: &mut File) -> String {
    let mut summer = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).unwrap();
        if read == 0 {
            return hex::encode(summer.finish());
        }
        summer.update(&buffer[..read]);
    }
}

fn xattrs(dir: BorrowedFd<'_>, name: &[u8]) -> BTreeMap<String, String> {
    let path = [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name].concat();
    let mut buffer = vec![0; 64 << 10];
    let Ok(len) = rustix::fs::llistxattr(path.as_slice(), &mut buffer[..]) else { return BTreeMap::new() };
    let names = buffer[..len].to_vec();
    let mut value = |name: &[u8]| {
        let len = rustix::fs::lgetxattr(path.as_slice(), name, &mut buffer[..]).unwrap();
        buffer[..len].escape_ascii().to_string()
    };
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(|name| (name.escape_ascii().to_string(), value(name))).collect()
}

/// Fails with every path where the trees differ, and how.
pub(crate) fn assert_same(expected: &Tree, got: &Tree, what: &str) {
    let mut differences = Vec::new();
    for path in expected.keys().chain(got.keys().filter(|path| !expected.contains_key(*path))) {
        let (expected, got) = (expected.get(path), got.get(path));
        if expected != got {
            let path = String::from_utf8_lossy(&path[..path.len().min(300)]).into_owned();
            differences.push(format!("{path:?}: {}", difference(expected, got)));
        }
    }
    let count = differences.len();
    differences.truncate(20);
    assert!(count == 0, "{what}: {count} differ\n{}", differences.join("\n"));
}

/// What two nodes do not have in common, in short.
fn difference(expected: Option<&Node>, got: Option<&Node>) -> String {
    let (Some(expected), Some(got)) = (expected, got) else {
        return format!("expected {:?}, got {:?}", expected.map(|node| node.kind), got.map(|node| node.kind));
    };
    let (expected, got) = (format!("{expected:#?}"), format!("{got:#?}"));
    let pairs = expected.lines().zip(got.lines()).filter(|(expected, got)| expected != got);
    let pairs: Vec<_> = pairs.take(8).map(|(expected, got)| format!("{} / {}", expected.trim(), got.trim())).collect();
    format!("expected / got: {}", pairs.join(", "))
}

/// `tree` without what an archive leaves out unless asked.
pub(crate) fn archived(mut tree: Tree, devices: bool) -> Tree {
    let is_device = |kind: &str| ["char", "block"].contains(&kind);
    tree.retain(|_, node| !["fifo", "socket"].contains(&node.kind) && (devices || !is_device(node.kind)));
    tree
}

/// Makes a tree that has some of everything.
pub(crate) struct Maker {
    root: PathBuf,
}

impl Maker {
    pub(crate) fn new(root: &Path) -> Self {
        std::fs::create_dir_all(root).unwrap();
        Self { root: root.to_owned() }
    }

    fn path(&self, name: impl AsRef<[u8]>) -> PathBuf {
        self.root.join(OsStr::from_bytes(name.as_ref()))
    }

    pub(crate) fn file(&self, name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn dir(&self, name: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn mode(&self, name: impl AsRef<[u8]>, mode: u32) {
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn mtime(&self, name: impl AsRef<[u8]>, seconds: i64, nanos: i64) {
        let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(rustix::fs::CWD, self.path(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }

    /// False where the file system has no such attributes.
    fn xattr(&self, name: impl AsRef<[u8]>, attribute: &str, value: &[u8]) -> bool {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(self.path(name), attribute, value, flags).is_ok()
    }

    fn sparse(&self, name: &str, len: u64, islands: &[(u64, &[u8])]) {
        let file = File::create(self.path(name)).unwrap();
        file.set_len(len).unwrap();
        islands.iter().for_each(|(at, bytes)| file.write_all_at(bytes, *at).unwrap());
    }

    fn contents(&self) {
        let noise = Random::new(1).bytes((9 << 20) + 17);
        self.dir("content");
        for len in
            [0, 1, 511, 512, 513, 65_536, (4 << 20) - 1536, (4 << 20) - 1535, 4 << 20, (4 << 20) + 1, (9 << 20) + 17]
        {
            self.file(format!("content/{len}"), &noise[..len]);
        }
        self.file("content/zeros", vec![0; 100_000]);
        self.file("content/text", "line\n".repeat(300_000));
        self.sparse("content/hole", 300_000, &[]);
        self.sparse("content/hole-first", 200_000, &[(150_000, b"data")]);
        self.sparse("content/hole-last", 3 << 20, &[(0, &[1; 4096]), (1 << 20, &[2; 8192])]);
        self.sparse("content/hole-large", 40 << 20, &[(0, b"x"), (9 << 20, &noise[..300_000]), ((40 << 20) - 1, b"y")]);
    }

    fn names(&self) {
        self.dir("names");
        let names: [&[u8]; 19] = [
            b"not-utf8-\xff\xfe",
            b"half-utf8-\xc3",
            b"new\nline",
            b"carriage\rreturn\ttab\x1b[31m\x7f",
            b"-rf",
            b"--",
            b" leading and trailing ",
            b"back\\slash",
            b"*?[a]{b}",
            b"...",
            b"..x",
            b"\"quotes'`$(id)",
            b"#hash!",
            b"percent%41%3D",
            b"manifest.json",
            b"decomposed-e\xcc\x81",
            b"composed-\xc3\xa9",
            b"\x01",
            b"UPPER and upper",
        ];
        for name in names {
            self.file([b"names/", name].concat(), name);
            self.file([b"names/", name, b"-dir"].concat(), b"");
        }
        for len in [99, 100, 101, 154, 155, 156, 254, 255] {
            self.file(format!("names/{}", "n".repeat(len)), format!("{len}"));
        }
        self.dir([b"names/d".as_slice(), &b"\xe9".repeat(254)].concat());
        self.file("names/upper", "");
        self.file("names/UPPER", "other");
        // Names whose order differs between bytes and whole paths.
        for name in ["order/a/b", "order/a-b", "order/a.b/c", "order/a b"] {
            self.dir(format!("names/{name}"));
        }
    }

    fn links(&self) {
        self.dir("links/below");
        self.file("links/a", "one file with three names");
        for name in ["links/b", "links/below/c"] {
            std::fs::hard_link(self.path("links/a"), self.path(name)).unwrap();
        }
        self.file("links/large", Random::new(2).bytes(5 << 20));
        std::fs::hard_link(self.path("links/large"), self.path("links/below/large")).unwrap();
        let long = "t".repeat(4000);
        let targets: [&[u8]; 8] =
            [b"a", b"/etc/hostname", b"../../../../../..", b"/", b"nowhere", b"\xff\n", b".", long.as_bytes()];
        for (number, target) in targets.into_iter().enumerate() {
            symlink(OsStr::from_bytes(target), self.path(format!("links/symlink-{number}"))).unwrap();
        }
        self.mtime("links/symlink-1", 1_000_000_000, 1);
    }

    /// 40 directories whose path is longer than a system call takes.
    fn deep(&self) {
        let mut at: OwnedFd = File::open(self.dir("deep")).unwrap().into();
        for depth in 0..40 {
            let name = format!("{depth}-{}", "d".repeat(150));
            rustix::fs::mkdirat(&at, &name, Mode::from_raw_mode(0o755)).unwrap();
            at = rustix::fs::openat(&at, &name, OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        let flags = OFlags::CREATE | OFlags::WRONLY;
        File::from(rustix::fs::openat(&at, "bottom", flags, Mode::RUSR).unwrap()).write_all(b"found").unwrap();
    }

    fn times_and_modes(&self) {
        self.dir("times/dir/empty");
        self.dir("times/empty");
        for (name, mode) in [("0400", 0o400), ("0777", 0o777), ("4755", 0o4755), ("2755", 0o2755), ("1644", 0o1644)] {
            self.file(format!("times/{name}"), name);
            self.mode(format!("times/{name}"), mode);
        }
        for (name, mode) in [("d1777", 0o1777), ("d2775", 0o2775), ("d0500", 0o500)] {
            self.dir(format!("times/{name}"));
            self.file(format!("times/{name}/inside"), name);
            self.mode(format!("times/{name}"), mode);
        }
        for (name, seconds, nanos) in [
            ("nanos", 1_700_000_000, 999_999_999),
            ("whole", 1_700_000_000, 0),
            ("epoch", 0, 0),
            ("before-1970", -1, 1),
            ("far-before", -2_000_000_000, 500_000_000),
            ("after-2242", 8_589_934_600, 7),
        ] {
            self.file(format!("times/{name}"), name);
            self.mtime(format!("times/{name}"), seconds, nanos);
        }
        self.mtime("times/dir/empty", 5, 6);
        self.mtime("times/dir", 1_500_000_000, 123_456_789);
    }

    /// False where the file system has no attributes.
    fn attributes(&self) -> bool {
        self.dir("attributes/dir");
        self.file("attributes/file", "x");
        self.file("attributes/many", "x");
        let many = |number| self.xattr("attributes/many", &format!("user.{number}{}", "m".repeat(100)), b"1");
        (0..20).all(many)
            && self.xattr("attributes/file", "user.binary", b"\0\xff=\n")
            && self.xattr("attributes/file", "user.empty", b"")
            && self.xattr("attributes/file", "user.equals=and%percent", b"=%3D")
            && self.xattr("attributes/file", "user.large", &Random::new(3).bytes(2500))
            && self.xattr("attributes/dir", "user.of a dir", b"kept")
    }

    /// Some of everything that an ordinary user can make. False without extended attributes.
    pub(crate) fn ordinary(&self) -> bool {
        self.deep();
        self.usual()
    }

    /// The same without what is too deep for many programs.
    pub(crate) fn usual(&self) -> bool {
        self.contents();
        self.names();
        self.links();
        self.times_and_modes();
        rustix::fs::mknodat(rustix::fs::CWD, self.path("times/pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        drop(UnixListener::bind(self.path("times/socket")).unwrap());
        self.attributes()
    }

    /// What only root can make.
    pub(crate) fn privileged(&self, env: &TestEnv) {
        self.dir("root/closed");
        self.file("root/closed/inside", "x");
        for (name, owner) in [("low", 1234), ("seven-digits", 3_000_000), ("high", 4_000_000_000)] {
            let path = self.file(format!("root/{name}"), name);
            std::os::unix::fs::lchown(&path, Some(owner), Some(owner + 1)).unwrap();
            symlink(name, self.path(format!("root/link-{name}"))).unwrap();
            std::os::unix::fs::lchown(self.path(format!("root/link-{name}")), Some(owner), Some(owner)).unwrap();
        }
        std::os::unix::fs::lchown(self.dir("root/dir"), Some(77), Some(88)).unwrap();
        self.file("root/suid", "x");
        std::os::unix::fs::chown(self.path("root/suid"), Some(1000), Some(1000)).unwrap();
        self.mode("root/suid", 0o6755);
        self.xattr("root/suid", "trusted.note", b"for root");
        self.xattr("root/link-high", "trusted.note", b"of the symlink itself");
        let tool = self.file("root/capable", "x").into_os_string();
        env.run("setcap", [OsString::from("cap_net_bind_service,cap_net_raw+ep"), tool]).ok();
        let acl = |options: &[&str], path: OsString| {
            let options = options.iter().map(OsString::from);
            env.run("setfacl", options.chain([path])).ok();
        };
        acl(&["-m", "u:1234:rx,g:77:w"], self.file("root/acl", "x").into_os_string());
        acl(&["-d", "-m", "u:1234:rwx"], self.dir("root/acl-dir").into_os_string());
        acl(&["-m", "u:1234:rwx"], self.path("root/acl-dir").into_os_string());
        self.file("root/acl-dir/inherits", "x");
        self.mode("root/closed", 0);
        for (name, kind, major, minor) in
            [("null", FileType::CharacterDevice, 1, 3), ("wide", FileType::BlockDevice, 259, 300_000)]
        {
            let device = rustix::fs::makedev(major, minor);
            rustix::fs::mknodat(rustix::fs::CWD, self.path(format!("root/{name}")), kind, Mode::RUSR, device).unwrap();
        }
    }
}

/// Backs up `source`, restores it and returns what came back.
fn there_and_back(env: &TestEnv, source: &str, archive: &str, options: &[&str]) -> Tree {
    env.lifeboat(["backup", source, "--output", archive].iter().chain(options)).ok();
    let devices: &[&str] = if options.contains(&"--devices") { &["--devices"] } else { &[] };
    let to = format!("restored-{archive}");
    env.lifeboat(["restore", archive, "--to", &to].iter().chain(devices)).ok();
    assert_eq!(env.names(&to), ["files"], "nothing else is left where it was restored to");
    snapshot(&env.path(to).join("files").join(source))
}

/// Shows A4.
#[test]
fn everything_comes_back_as_root() {
    const TEST: &str = "everything_comes_back_as_root";
    if !can_run(TEST, &["setcap", "setfacl"]) {
        return;
    }
    if !is_root() {
        return skip(TEST, "needs root");
    }
    let env = TestEnv::new();
    let maker = Maker::new(&env.path("source"));
    if !maker.ordinary() {
        return skip(TEST, "the temporary directory's file system has no extended attributes");
    }
    maker.privileged(&env);
    let expected = snapshot(&env.path("source"));
    for (archive, devices) in [("a.tar.zst", true), ("a.tar.gz", false)] {
        let options: &[&str] = if devices { &["--devices", "--threads=3"] } else { &["--threads=1"] };
        let got = there_and_back(&env, "source", archive, options);
        assert_same(&archived(expected.clone(), devices), &got, archive);
    }
    assert_same(&expected, &snapshot(&env.path("source")), "the source itself");
}

/// Shows A4 and A7.
#[test]
fn an_ordinary_user_gets_everything_of_his_own_back() {
    const TEST: &str = "an_ordinary_user_gets_everything_of_his_own_back";
    let env = TestEnv::new();
    let maker = Maker::new(&env.path("source"));
    if !maker.ordinary() {
        return skip(TEST, "the temporary directory's file system has no extended attributes");
    }
    if !is_root() {
        let expected = archived(snapshot(&env.path("source")), false);
        return assert_same(&expected, &there_and_back(&env, "source", "a.tar.zst", &[]), "as myself");
    }
    env.run("chown", ["-hR", &NOBODY.to_string(), "."]).ok();
    env.run("chgrp", ["-hR", &NOBODY.to_string(), "."]).ok();
    let expected = archived(snapshot(&env.path("source")), false);
    env.command_as_nobody(["backup", "source", "--output", "a.tar.zst"]).run().ok();
    let said = env.command_as_nobody(["restore", "a.tar.zst", "--to", "new", "--same-owner"]).run().ok();
    assert_same(&expected, &snapshot(&env.path("new/files/source")), &said.stderr);
}

/// What only root may do is not done, and said in one note; asked for, it is a problem.
///
/// Shows A7.
#[test]
fn owners_that_an_ordinary_user_cannot_set_are_a_note_and_with_same_owner_a_problem() {
    const TEST: &str = "owners_that_an_ordinary_user_cannot_set_are_a_note_and_with_same_owner_a_problem";
    if !is_root() {
        return skip(TEST, "needs root, to make files of somebody else");
    }
    let env = TestEnv::new();
    let maker = Maker::new(&env.path("source"));
    for name in ["a", "b", "c"] {
        std::os::unix::fs::chown(maker.file(name, name), Some(1234), Some(1234)).unwrap();
        maker.mode(name, 0o4755);
    }
    env.lifeboat(["backup", "source", "--output", "a.tar.zst"]).ok();
    maker.mode("../a.tar.zst", 0o644);
    maker.mode("..", 0o777);
    let said = env.command_as_nobody(["restore", "a.tar.zst", "--to", "new"]).run().ok();
    assert!(said.stdout.contains("owner") || said.stderr.contains("owner"), "{}{}", said.stdout, said.stderr);
    let got = snapshot(&env.path("new/files/source"));
    for name in ["a", "b", "c"] {
        let node = &got[name.as_bytes()];
        assert_eq!(node.owner, (NOBODY, NOBODY));
        // With another owner than it was made for, set-uid would hand out somebody else's rights.
        assert_eq!(node.mode & 0o777, 0o755);
        assert_eq!(node.mode & 0o6000, 0, "{name} may not run as {NOBODY}, for whoever calls it");
    }
    let said = env.command_as_nobody(["restore", "a.tar.zst", "--to", "same", "--same-owner"]).run().code(3);
    assert!(said.stderr.contains("files/source/a") || said.stdout.contains("files/source/a"), "it names the file");
    assert_eq!(snapshot(&env.path("same/files/source"))[b"a".as_slice()].content, got[b"a".as_slice()].content);
}

/// Shows A4.
#[test]
fn pipes_sockets_and_devices_are_noted_and_never_opened() {
    const TEST: &str = "pipes_sockets_and_devices_are_noted_and_never_opened";
    if !can_run(TEST, &["strace", "mkfifo", "timeout"]) {
        return;
    }
    let env = TestEnv::new();
    let maker = Maker::new(&env.path("source"));
    maker.file("plain", "x");
    env.run("mkfifo", ["source/the-pipe"]).ok();
    drop(UnixListener::bind(env.path("source/the-socket")).unwrap());
    let mut special = vec!["the-pipe", "the-socket"];
    if is_root() {
        env.run("mknod", ["source/the-device", "c", "1", "5"]).ok();
        special.push("the-device");
    }
    let binary = env!("CARGO_BIN_EXE_lifeboat");
    let said =
        env.run("timeout", trace_of(binary).iter().chain(&["backup", "source", "--output", "a.tar.zst", "-v"])).ok();
    let trace = String::from_utf8(env.read("trace")).unwrap();
    assert!(trace.contains("\"plain\""), "the trace shows what is opened");
    let told = said.stdout + &said.stderr;
    for name in &special {
        assert!(!trace.contains(name), "{name} was opened");
        assert!(told.contains(name), "{name} is noted in {told}");
    }
    let listed = env.lifeboat(["backup", "list", "a.tar.zst"]).ok().stdout;
    assert!(special.iter().all(|name| !listed.contains(name)), "{listed}");
    if is_root() {
        let more = ["backup", "source", "--output", "b.tar.zst", "--devices"];
        env.run("timeout", trace_of(binary).iter().chain(&more)).ok();
        assert!(!String::from_utf8(env.read("trace")).unwrap().contains("the-device"), "also with --devices");
        assert!(env.lifeboat(["backup", "list", "b.tar.zst"]).ok().stdout.contains("the-device"));
    }
}

fn trace_of(binary: &str) -> [&str; 8] {
    ["20", "strace", "-f", "-o", "trace", "-e", "trace=open,openat,openat2", binary]
}

/// Shows A4.
#[test]
fn attributes_that_the_target_cannot_hold_are_named() {
    const TEST: &str = "attributes_that_the_target_cannot_hold_are_named";
    if !is_root() {
        return skip(TEST, "needs root, to mount");
    }
    let env = TestEnv::new();
    let maker = Maker::new(&env.path("source"));
    maker.file("note", "x");
    if !maker.xattr("note", "user.note", b"lost") {
        return skip(TEST, "the temporary directory's file system has no extended attributes");
    }
    env.lifeboat(["backup", "source", "--output", "a.tar.zst"]).ok();
    // Has no attributes at all.
    let mount = Mount::new(&env, "to", &["-t", "ramfs", "ramfs"]);
    let said = env.lifeboat(["restore", "a.tar.zst", "--to", "to/new"]).code(3);
    let told = said.stdout + &said.stderr;
    assert!(told.contains("files/source/note"), "{told}");
    assert_eq!(env.read("to/new/files/source/note"), b"x");
    drop(mount);
}

/// A file system that is unmounted when the test ends, however it ends.
#[must_use]
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// Mounts what `args` say at `name` in the working directory.
    pub(crate) fn new(env: &TestEnv, name: &str, args: &[&str]) -> Self {
        let at = env.mkdir(name);
        env.run("mount", args.iter().copied().chain([at.to_str().unwrap()])).ok();
        Self(at)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let status = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
        if !std::thread::panicking() {
            assert!(status.unwrap().success(), "{} is unmounted", self.0.display());
        }
    }
}
