//! What the fuzzers run, and the tests beside them: any bytes become an
//! archive of names and links, which is restored into a directory beside
//! things that must stay. Compiled with the feature `testing`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use lifeboat_format::fuzzing::with_manifest;

use crate::keys::{Keyring, Keys};
use crate::report::{RestoreRequest, Watch};
use crate::{Cancel, ErrorKind, Monitor, Problem, restore};

/// A bit of the first byte: what exists may be replaced.
pub const WITH_OVERWRITE: u8 = 1;
/// A bit of the first byte: the archive gets the manifest that it should have.
pub const WITH_MANIFEST: u8 = 2;
/// A bit of the first byte: the directory is still to be made.
pub const TO_NEW: u8 = 4;
/// A bit of the first byte: the rest is an archive as it is, not a list of entries.
pub const AS_IT_IS: u8 = 8;

/// The longest input that is looked at.
pub const INPUT_MAX_BYTES: usize = 64 << 10;

const BLOCK: usize = 512;

struct Silent;

impl Monitor for Silent {
    fn problem(&self, _: Problem) {}
    fn advanced(&self, _: u64, _: u64) {}
}

/// All that can be said of what has a name, but when it was last read.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    inode: u64,
    links: u64,
    mode: u32,
    owner: (u32, u32),
    size: u64,
    /// When it was changed, content or attributes.
    changed: (i64, i64),
    /// What is in it, or what a link says.
    content: Vec<u8>,
}

type Tree = BTreeMap<PathBuf, Seen>;

/// A directory to restore to, with things in it and around it.
pub struct World {
    root: PathBuf,
    outside: Tree,
    inside: Tree,
}

impl World {
    /// Makes one in the empty directory `root`.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        for dir in ["outside/a", "to/dir", "to/b", "a"] {
            std::fs::create_dir_all(root.join(dir)).expect("directories can be made");
        }
        for file in ["canary", "outside/secret", "outside/a/a", "a/b", "to/mine", "to/dir/below"] {
            write(&root.join(file), file.as_bytes());
        }
        for (target, link) in [("../outside", "to/link"), ("../canary", "to/dir/link"), ("secret", "outside/link")] {
            symlink(target, root.join(link)).expect("links can be made");
        }
        write(&root.join("evil"), b"");
        let mut world = Self { root: root.to_owned(), outside: Tree::new(), inside: Tree::new() };
        (world.outside, world.inside) = (world.see_outside(), see(&root.join("to")));
        world
    }

    /// Makes an archive of `data` and restores it. Returns whether it was restored.
    ///
    /// # Panics
    /// When something outside the directory changed, or inside although it failed.
    pub fn play(&mut self, data: &[u8]) -> bool {
        let Some((mode, rest)) = data.split_first().filter(|(_, rest)| rest.len() <= INPUT_MAX_BYTES) else {
            return false;
        };
        let mut tar = if mode & AS_IT_IS == 0 { self.tar(rest) } else { rest.to_vec() };
        if mode & WITH_MANIFEST != 0
            && let Some((listed, _)) = with_manifest(&tar)
        {
            tar = listed;
        }
        let archive = self.root.join("evil");
        write(&archive, &tar);
        let to = self.root.join(if mode & TO_NEW == 0 { "to" } else { "to/new/er" });
        let overwrite = mode & WITH_OVERWRITE != 0;
        let request = RestoreRequest {
            archive,
            to,
            allow_unauthenticated: false,
            overwrite,
            devices: false,
            same_owner: false,
            threads: Some(2),
        };
        let (ring, cancel) = (Keyring::default(), Cancel::new());
        let keys = Keys { ring: &ring, config: None };
        let restored = restore::restore_to(&request, keys, Watch { monitor: &Silent, cancel: &cancel });
        let inside = see(&self.root.join("to"));
        let outside = self.see_outside();
        assert_eq!(outside, self.outside, "something outside changed");
        let stage = inside
            .keys()
            .find(|path| path.file_name().is_some_and(|name| crate::ours::stage_id(name.as_bytes()).is_some()));
        match &restored {
            Ok(_) => {
                let stays = |path: &&PathBuf| !overwrite && self.inside[*path].content == inside_content(&inside, path);
                let kept = self.inside.keys().filter(stays).count();
                assert!(overwrite || kept == self.inside.len(), "what was there was replaced unasked");
            }
            Err(error) => {
                assert!(stage.is_none(), "a stage was left: {stage:?}");
                assert_eq!(inside, self.inside, "it failed ({error}), and something changed");
                assert_ne!(error.kind(), ErrorKind::Failed, "an archive is refused for what it is: {error}");
            }
        }
        if restored.is_ok() {
            self.begin_anew();
        }
        restored.is_ok()
    }

    /// Puts the directory back as it was.
    fn begin_anew(&mut self) {
        let to = self.root.join("to");
        for entry in std::fs::read_dir(&to).expect("it can be listed").flatten() {
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let gone = if is_dir { std::fs::remove_dir_all(entry.path()) } else { std::fs::remove_file(entry.path()) };
            gone.expect("what was restored can be removed");
        }
        for dir in ["to/dir", "to/b"] {
            std::fs::create_dir(self.root.join(dir)).expect("directories can be made");
        }
        for file in ["to/mine", "to/dir/below"] {
            write(&self.root.join(file), file.as_bytes());
        }
        symlink("../outside", self.root.join("to/link")).expect("links can be made");
        symlink("../canary", self.root.join("to/dir/link")).expect("links can be made");
        self.inside = see(&to);
    }

    /// All but the directory and the archive.
    fn see_outside(&self) -> Tree {
        let mut seen = see(&self.root);
        seen.retain(|path, _| !path.starts_with("to") && path != Path::new("evil"));
        seen
    }
}

fn inside_content<'a>(inside: &'a Tree, path: &Path) -> &'a [u8] {
    inside.get(path).map_or(b"gone", |seen| &seen.content)
}

fn write(path: &Path, content: &[u8]) {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(path);
    file.and_then(|mut file| file.write_all(content)).expect("files can be written");
}

/// Everything below `root`; its own times do not count, because a stage comes and goes in it.
fn see(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut dirs = vec![PathBuf::new()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(root.join(&dir)).expect("directories can be listed") {
            let path = dir.join(entry.expect("an entry").file_name());
            let full = root.join(&path);
            let data = full.symlink_metadata().expect("it is there");
            let mut content = Vec::new();
            if data.is_symlink() {
                content = std::fs::read_link(&full).expect("a link").into_os_string().as_bytes().to_vec();
            } else if data.is_file() {
                // A file with a hole can be as long as it likes.
                let file = File::open(&full).expect("it can be read");
                file.take(4096).read_to_end(&mut content).expect("it can be read");
            } else if data.is_dir() {
                dirs.push(path.clone());
            }
            // A directory's size and times change with what comes and goes in it, which is seen by itself.
            let is_parent = data.is_dir() && path == Path::new("to");
            let seen = Seen {
                inode: data.ino(),
                links: if data.is_dir() { 0 } else { data.nlink() },
                mode: data.mode(),
                owner: (data.uid(), data.gid()),
                size: if data.is_dir() { 0 } else { data.size() },
                changed: if is_parent { (0, 0) } else { (data.ctime(), data.ctime_nsec()) },
                content,
            };
            tree.insert(path, seen);
        }
    }
    tree
}

/// What names are made of.
const PARTS: [&[u8]; 16] = [
    b"a",
    b"b",
    b"..",
    b".",
    b"",
    b"A",
    b"link",
    b"dir",
    b"mine",
    b"outside",
    b"canary",
    b"manifest.json",
    b"c",
    b".lifeboat-00112233445566778899aabbccddeeff",
    b"lifeboat-stage",
    b"a\0b",
];
const KINDS: &[u8] = b"00001122255567gSV3";

/// The bytes of an input, one after the other; zeros after the last.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> usize {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        usize::from(*first)
    }
}

impl World {
    /// A name of a few parts; one in sixteen is absolute.
    fn name(&self, bytes: &mut Bytes<'_>) -> Vec<u8> {
        let how = bytes.next();
        let parts: Vec<&[u8]> = (0..how % 4 + usize::from(how & 0x80 != 0)).map(|_| PARTS[bytes.next() % 16]).collect();
        let name = parts.join(&b'/');
        match how >> 4 & 7 {
            1 => [self.root.join("outside/").as_os_str().as_bytes(), &name].concat(),
            2 => [b"../", name.as_slice()].concat(),
            3 => [b"./", name.as_slice()].concat(),
            _ => name,
        }
    }

    /// A tar of the entries that `data` spells: their kinds, their names and where those stand.
    fn tar(&self, data: &[u8]) -> Vec<u8> {
        let mut bytes = Bytes(data);
        let mut tar = Vec::new();
        for _ in 0..32 {
            if bytes.0.is_empty() {
                break;
            }
            let kind = KINDS[bytes.next() % KINDS.len()];
            let (how, name, link) = (bytes.next(), self.name(&mut bytes), self.name(&mut bytes));
            let (mut in_header, mut link_in_header) = (name.as_slice(), link.as_slice());
            match how % 8 {
                1 => extension(&mut tar, b'x', &[record("path", &name), record("linkpath", &link)].concat()),
                2 => extension(&mut tar, b'x', &record("path", &name)),
                3 => extension(&mut tar, b'x', &record("linkpath", &link)),
                4 => extension(&mut tar, b'L', &name),
                5 => extension(&mut tar, b'K', &link),
                6 => {
                    let map = [record("GNU.sparse.map", b"9,4"), record("GNU.sparse.size", b"20")].concat();
                    extension(&mut tar, b'x', &[record("GNU.sparse.name", &name), map].concat());
                }
                _ => {}
            }
            // What an extension says counts; the header may say anything.
            if how & 0x40 != 0 && how % 8 != 0 {
                (in_header, link_in_header) = (b"a/x", b"b");
            }
            let content: &[u8] = if matches!(kind, b'0' | b'7' | b'S') { b"evil" } else { b"" };
            tar.extend(header(kind, in_header, link_in_header, content.len(), how));
            tar.extend(content);
            tar.resize(tar.len().next_multiple_of(BLOCK), 0);
        }
        tar.resize(tar.len() + 2 * BLOCK, 0);
        tar
    }
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let len = (1..).map(|digits| rest + digits).find(|len| rest + len.to_string().len() == *len).unwrap_or(rest);
    [format!("{len} {key}=").as_bytes(), value, b"\n"].concat()
}

fn extension(tar: &mut Vec<u8>, kind: u8, data: &[u8]) {
    tar.extend(header(kind, b"extension", b"", data.len(), 0));
    tar.extend(data);
    tar.resize(tar.len().next_multiple_of(BLOCK), 0);
}

fn header(kind: u8, name: &[u8], link: &[u8], size: usize, how: usize) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut set = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    set(0, &name[..name.len().min(100)]);
    // Whoever plays this must be able to remove it.
    set(
        100,
        if kind == b'5' {
            b"0000755\0"
        } else if how & 0x80 == 0 {
            b"0000644\0"
        } else {
            b"0004755\0"
        },
    );
    set(108, b"0000000\x000000000\0");
    set(124, format!("{size:011o}\x0000000000000\0").as_bytes());
    set(156, &[kind]);
    set(157, &link[..link.len().min(100)]);
    if kind == b'S' {
        set(257, b"ustar  \0");
        set(386, format!("{how:011o}\0{size:011o}\0").as_bytes());
        set(483, format!("{:011o}\0", how + size).as_bytes());
    } else {
        set(257, b"ustar\x0000");
    }
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Where a fuzzer keeps its world: in memory, where the machine has such a place.
#[must_use]
pub fn place(name: &str) -> PathBuf {
    let memory = Path::new(OsStr::new("/dev/shm"));
    let dir = if memory.is_dir() { memory } else { Path::new("/tmp") };
    dir.join(format!("lifeboat-{name}-{}", std::process::id()))
}
