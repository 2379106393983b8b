//! The source `files`: a directory tree, or one file, read as it stands.
//!
//! [`open_all`] looks at every root before anything is read, so that a missing
//! one fails as a whole. [`Tree`] then walks them in the order of their entry
//! paths, by directory handles, and never opens what is no file or directory.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_format::capture::{Content, Entries, Item, Opened, Settled};
use lifeboat_format::model::{Entry, EntryKind, Xattrs};
use lifeboat_format::monitor::{Monitor, Problem, ProblemClass};
use lifeboat_format::path::{EntryPath, shown};
use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::attributes::{self, Names};
use super::listing::Listing;
use super::matcher::Matcher;
use crate::app::{FailedSource, Selection};
use crate::{Result, beneath};

/// The folder of a snapshot in which every `files` source has its own.
const PLACE: &str = "files";
/// How many directories on the way down are kept open; those above are opened again.
const OPEN_DIRS_MAX: usize = 64;
/// What a SQLite database begins with (sqlite.org/fileformat.html, 1.2).
const SQLITE_MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// A source whose root was found.
pub(crate) struct Root {
    /// Its name in the snapshot.
    pub(crate) name: String,
    /// Where it stands, absolute, as it was given.
    pub(crate) path: PathBuf,
    place: EntryPath,
    /// The directory itself, or the one that a single file stands in.
    dir: Arc<Dir>,
    /// The name of a single file.
    file: Option<Vec<u8>>,
}

struct Dir {
    fd: OwnedFd,
    names: Names,
}

/// The sources of `paths`, in the order of their entries, and those that failed.
pub(crate) fn open_all(paths: &[PathBuf], working_dir: &Path, host: &str) -> Result<(Vec<Root>, Vec<FailedSource>)> {
    let mut taken = HashMap::new();
    let (mut roots, mut failed) = (Vec::new(), Vec::new());
    for path in paths {
        let absolute = absolute(&working_dir.join(path));
        let name = unique(&mut taken, base_name(&absolute, host));
        match open_root(name.clone(), absolute.clone())? {
            Ok(root) => roots.push(root),
            Err(message) => failed.push(FailedSource { name, root: shown(absolute.as_os_str().as_bytes()), message }),
        }
    }
    roots.sort_by(|a, b| a.place.cmp(&b.place));
    Ok((roots, failed))
}

/// `path` without `.` components; what holds `..` is resolved, because a
/// symlink before it may lead elsewhere than its text.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    let has_parent = path.components().any(|component| component == std::path::Component::ParentDir);
    let resolved = if has_parent { path.canonicalize().ok() } else { None };
    resolved.unwrap_or_else(|| path.components().collect())
}

/// What a source at `path` is called; the root of the file system has the host's name.
pub(crate) fn base_name(path: &Path, host: &str) -> String {
    path.file_name().map_or_else(|| host.to_owned(), |name| name.to_string_lossy().into_owned())
}

fn unique(taken: &mut HashMap<String, u32>, name: String) -> String {
    let count = taken.entry(name.clone()).or_default();
    *count += 1;
    if *count == 1 {
        return name;
    }
    let numbered = format!("{name}-{count}");
    unique(taken, numbered)
}

/// The inner `Err` says why the source failed.
fn open_root(name: String, path: PathBuf) -> Result<std::result::Result<Root, String>> {
    let place = EntryPath::new(PLACE)?.join(name.as_bytes())?;
    Ok(find_root(&path).map(|(fd, file)| Root {
        name,
        path,
        place,
        dir: Arc::new(Dir { fd, names: Names::default() }),
        file,
    }))
}

/// The directory to read in, and the name of a single file in it.
fn find_root(path: &Path) -> std::result::Result<(OwnedFd, Option<Vec<u8>>), String> {
    let real = path.canonicalize().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "it does not exist".to_owned(),
        _ => format!("it cannot be reached: {error}"),
    })?;
    let kind = real.metadata().map_err(|error| format!("it cannot be read: {error}"))?.file_type();
    let open_dir = |dir: &Path| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(dir, flags, Mode::empty()).map_err(|error| format!("it cannot be opened: {error}"))
    };
    if kind.is_file() {
        File::open(&real).map_err(|error| format!("it cannot be opened: {error}"))?;
        let parent = real.parent().expect("a file stands in a directory");
        // Search permission is enough for the directory of a single file.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd =
            rustix::fs::open(parent, flags, Mode::empty()).map_err(|error| format!("it cannot be opened: {error}"))?;
        return Ok((fd, real.file_name().map(|name| name.as_bytes().to_vec())));
    }
    if !kind.is_dir() {
        return Err("it is neither a directory nor a file".to_owned());
    }
    let fd = open_dir(&real)?;
    let listing = Listing::read(fd.as_fd()).map_err(|error| format!("it cannot be listed: {error}"))?;
    if listing.is_empty() {
        return Err("it is empty; is a file system not mounted there?".to_owned());
    }
    // The listing moved the handle's position to its end.
    open_dir(&real).map(|fd| (fd, None))
}

/// Where the archive is going to stand: archives of ours in that directory
/// are no part of what is backed up.
pub(crate) struct OutputDir {
    identity: (u64, u64),
    path: PathBuf,
}

impl OutputDir {
    /// The directory at `path`, if it exists.
    pub(crate) fn new(path: &Path) -> Option<Self> {
        let metadata = path.metadata().ok()?;
        Some(Self { identity: (metadata.dev(), metadata.ino()), path: path.to_owned() })
    }
}

/// What was left out, counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LeftOut {
    /// By the exclude patterns.
    pub(crate) excluded: u64,
    /// Archives of ours in the output directory.
    pub(crate) own_archives: u64,
}

/// The walk over all roots.
pub(crate) struct Tree<'a> {
    roots: VecDeque<Root>,
    selection: &'a Selection,
    matcher: Matcher,
    output: Option<OutputDir>,
    monitor: &'a dyn Monitor,
    levels: Vec<Level>,
    at: Option<Root>,
    device: u64,
    ready: VecDeque<Box<dyn Item>>,
    /// Files with several names, by device and inode: the first name, and how many are still to come.
    linked: HashMap<(u64, u64), (EntryPath, u64)>,
    pub(crate) left_out: LeftOut,
}

/// A directory on the way down.
struct Level {
    path: EntryPath,
    /// Relative to the root.
    relative: Vec<u8>,
    fd: Option<OwnedFd>,
    identity: (u64, u64),
    listing: Listing,
    /// Whether everything below is taken.
    is_included: bool,
    /// The directory's own entry, while nothing below it is taken yet.
    entry: Option<Entry>,
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

impl<'a> Tree<'a> {
    pub(crate) fn new(
        roots: Vec<Root>,
        selection: &'a Selection,
        output: Option<OutputDir>,
        monitor: &'a dyn Monitor,
    ) -> Result<Self> {
        Ok(Self {
            roots: roots.into(),
            selection,
            matcher: Matcher::new(selection)?,
            output,
            monitor,
            levels: Vec::new(),
            at: None,
            device: 0,
            ready: VecDeque::new(),
            linked: HashMap::new(),
            left_out: LeftOut::default(),
        })
    }

    fn problem(&self, class: ProblemClass, path: &EntryPath, message: impl Into<String>) {
        self.monitor.problem(Problem::new(class, path.as_bytes(), message));
    }

    /// Takes one step: the next root, the next name, or back up.
    fn step(&mut self) -> bool {
        if self.levels.is_empty() {
            let Some(root) = self.roots.pop_front() else { return false };
            self.begin(root);
            return true;
        }
        self.open_level_again();
        let level = self.levels.last_mut().expect("looked at just now");
        match level.listing.take() {
            Some(name) if level.fd.is_some() => self.visit(&name),
            _ => drop(self.levels.pop()),
        }
        true
    }

    fn begin(&mut self, root: Root) {
        let (dir, place, file) = (Arc::clone(&root.dir), root.place.clone(), root.file.clone());
        self.at = Some(root);
        if let Some(name) = file {
            match rustix::fs::statat(&dir.fd, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => self.add_file(place, name, &stat, false),
                Err(error) => self.problem(ProblemClass::Unreadable, &place, error.to_string()),
            }
            return;
        }
        match rustix::fs::openat(&dir.fd, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => {
                self.device = rustix::fs::fstat(&fd).map_or(0, |stat| stat.st_dev);
                self.enter(place, Vec::new(), fd, false);
                self.take_ancestors();
            }
            Err(error) => self.problem(ProblemClass::Unreadable, &place, format!("it could not be listed: {error}")),
        }
    }

    /// Directories far above were closed to save handles.
    fn open_level_again(&mut self) {
        let Some(root) = &self.at else { return };
        let level = self.levels.last_mut().expect("only called with one");
        if level.fd.is_none() {
            let opened = beneath::open(root.dir.fd.as_fd(), &level.relative, OFlags::RDONLY | OFlags::DIRECTORY);
            let same = |fd: &OwnedFd| rustix::fs::fstat(fd).is_ok_and(|stat| identity(&stat) == level.identity);
            match opened.ok().filter(same) {
                Some(fd) => level.fd = Some(fd),
                None => {
                    let problem = Problem::new(
                        ProblemClass::Unreadable,
                        level.path.as_bytes(),
                        "it was moved or replaced while it was read; what is left of it is not in the snapshot",
                    );
                    self.monitor.problem(problem);
                }
            }
        }
    }

    /// Goes into the open directory `fd`.
    fn enter(&mut self, path: EntryPath, relative: Vec<u8>, fd: OwnedFd, is_included: bool) {
        let stat = match rustix::fs::fstat(&fd) {
            Ok(stat) => stat,
            Err(error) => return self.problem(ProblemClass::Unreadable, &path, error.to_string()),
        };
        if self.levels.iter().any(|level| level.identity == identity(&stat)) {
            return self.problem(ProblemClass::Skipped, &path, "it is mounted inside itself");
        }
        let xattrs = self.xattrs_or_problem(&path, attributes::xattrs(fd.as_fd()));
        let root = self.at.as_ref().expect("set before the first directory");
        let entry = attributes::entry(path.clone(), EntryKind::Dir, &stat, xattrs, &root.dir.names);
        let listing = Listing::read(fd.as_fd());
        let is_included = is_included || self.matcher.includes(&relative, true) && !relative.is_empty();
        let level = Level {
            path,
            relative,
            fd: Some(fd),
            identity: identity(&stat),
            listing: match listing {
                Ok(listing) => listing,
                Err(error) => {
                    self.problem(ProblemClass::Unreadable, &entry.path, format!("it could not be listed: {error}"));
                    self.take_ancestors();
                    self.ready.push_back(Box::new(Known(entry)));
                    return;
                }
            },
            is_included,
            entry: Some(entry),
        };
        self.levels.push(level);
        if let Some(far) = self.levels.len().checked_sub(OPEN_DIRS_MAX + 1) {
            self.levels[far].fd = None;
        }
        if is_included {
            self.take_ancestors();
        }
    }

    /// Something here is taken, so the directories it stands in are as well.
    fn take_ancestors(&mut self) {
        for level in &mut self.levels {
            if let Some(entry) = level.entry.take() {
                self.ready.push_back(Box::new(Known(entry)));
            }
        }
    }

    fn xattrs_or_problem(&self, path: &EntryPath, read: rustix::io::Result<Xattrs>) -> Xattrs {
        read.unwrap_or_else(|error| {
            self.problem(
                ProblemClass::MetadataLost,
                path,
                format!("its extended attributes could not be read: {error}"),
            );
            Xattrs::default()
        })
    }

    fn visit(&mut self, name: &[u8]) {
        let level = self.levels.last().expect("a name stands in a directory");
        let dir = level.fd.as_ref().expect("opened by the caller");
        let path = match level.path.join(name) {
            Ok(path) => path,
            Err(error) => return self.problem(ProblemClass::Unreadable, &level.path.clone(), error.to_string()),
        };
        let mut relative = level.relative.clone();
        if !relative.is_empty() {
            relative.push(b'/');
        }
        relative.extend_from_slice(name);
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => {
                return self.problem(ProblemClass::Vanished, &path, "it was gone when it was looked at");
            }
            Err(error) => return self.problem(ProblemClass::Unreadable, &path, error.to_string()),
        };
        let kind = attributes::kind(&stat);
        let is_dir = kind == Some(EntryKind::Dir);
        if self.matcher.excludes(&relative, is_dir) {
            self.left_out.excluded += 1;
        } else if self.is_ours(name, is_dir) {
            self.left_out.own_archives += 1;
        } else if is_dir {
            self.visit_dir(path, relative, name, &stat);
        } else if level.is_included || self.matcher.includes(&relative, false) {
            self.take_ancestors();
            match kind {
                Some(EntryKind::File) => self.visit_file(path, relative, name, &stat),
                Some(EntryKind::Symlink) => self.visit_symlink(path, name, &stat),
                Some(kind @ (EntryKind::Char | EntryKind::Block)) if self.selection.devices => {
                    let root = self.at.as_ref().expect("set before the first directory");
                    let entry = attributes::entry(path, kind, &stat, Xattrs::default(), &root.dir.names);
                    self.ready.push_back(Box::new(Known(entry)));
                }
                Some(EntryKind::Char | EntryKind::Block) => {
                    self.problem(ProblemClass::Skipped, &path, "it is a device; --devices takes it");
                }
                Some(EntryKind::Fifo) => self.problem(ProblemClass::Skipped, &path, "it is a named pipe"),
                _ => self.problem(ProblemClass::Skipped, &path, "it is a socket"),
            }
        }
    }

    /// An archive of ours in the directory that the new one goes to, or a
    /// stage that a killed restore left.
    fn is_ours(&self, name: &[u8], is_dir: bool) -> bool {
        let level = self.levels.last().expect("a name stands in a directory");
        if is_dir {
            let dir = level.fd.as_ref().expect("opened by the caller");
            return crate::restore::is_stage(dir.as_fd(), name);
        }
        let Some(output) = self.output.as_ref().filter(|output| output.identity == level.identity) else {
            return false;
        };
        if lifeboat_store::durable::is_stand_in(name) {
            return true;
        }
        let suffixes: [&[u8]; 4] = [b".zst", b".gz", b".tgz", b".tzst"];
        let path = output.path.join(OsStr::from_bytes(name));
        // Its content decides: a file that only has such a name is the user's.
        suffixes.iter().any(|suffix| name.ends_with(suffix))
            && path.symlink_metadata().is_ok_and(|metadata| metadata.is_file())
            && lifeboat_format::archive::Archive::open(&path).is_ok_and(|archive| archive.head().is_some())
    }

    fn visit_dir(&mut self, path: EntryPath, relative: Vec<u8>, name: &[u8], stat: &Stat) {
        let level = self.levels.last().expect("a name stands in a directory");
        let dir = level.fd.as_ref().expect("opened by the caller");
        let is_included = level.is_included;
        if self.selection.one_file_system && stat.st_dev != self.device {
            let root = self.at.as_ref().expect("set before the first directory");
            let entry = attributes::entry(path, EntryKind::Dir, stat, Xattrs::default(), &root.dir.names);
            self.problem(ProblemClass::Skipped, &entry.path, "another file system is mounted there; --one-file-system");
            self.take_ancestors();
            self.ready.push_back(Box::new(Known(entry)));
            return;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(dir, name, flags, Mode::empty()) {
            Ok(fd) => self.enter(path, relative, fd, is_included),
            Err(Errno::NOENT) => self.problem(ProblemClass::Vanished, &path, "it was gone when it was to be opened"),
            Err(error) => {
                self.problem(ProblemClass::Unreadable, &path, format!("it could not be listed: {error}"));
                let root = self.at.as_ref().expect("set before the first directory");
                let entry = attributes::entry(path, EntryKind::Dir, stat, Xattrs::default(), &root.dir.names);
                self.take_ancestors();
                self.ready.push_back(Box::new(Known(entry)));
            }
        }
    }

    fn visit_symlink(&mut self, path: EntryPath, name: &[u8], stat: &Stat) {
        let level = self.levels.last().expect("a name stands in a directory");
        let dir = level.fd.as_ref().expect("opened by the caller");
        match rustix::fs::readlinkat(dir, name, Vec::new()) {
            Ok(target) => {
                let xattrs = self.xattrs_or_problem(&path, attributes::xattrs_of_link(dir.as_fd(), name));
                let root = self.at.as_ref().expect("set before the first directory");
                let mut entry = attributes::entry(path, EntryKind::Symlink, stat, xattrs, &root.dir.names);
                entry.target = target.into_bytes();
                self.ready.push_back(Box::new(Known(entry)));
            }
            Err(Errno::NOENT) => self.problem(ProblemClass::Vanished, &path, "it was gone when it was to be read"),
            Err(error) => self.problem(ProblemClass::Unreadable, &path, error.to_string()),
        }
    }

    fn visit_file(&mut self, path: EntryPath, relative: Vec<u8>, name: &[u8], stat: &Stat) {
        if stat.st_nlink > 1 && self.visit_link(&path, stat) {
            return;
        }
        let listing = &self.levels.last().expect("a name stands in a directory").listing;
        let has_log = [&b"-wal"[..], b"-journal"].iter().any(|end| listing.has(&[name, *end].concat()));
        self.add_file(path, relative, stat, has_log);
    }

    /// True when the file stands in the snapshot already and this is another name of it.
    fn visit_link(&mut self, path: &EntryPath, stat: &Stat) -> bool {
        let Some((first, to_come)) = self.linked.get_mut(&identity(stat)) else {
            self.linked.insert(identity(stat), (path.clone(), stat.st_nlink - 1));
            return false;
        };
        let root = self.at.as_ref().expect("set before the first directory");
        let mut entry = attributes::entry(path.clone(), EntryKind::Hardlink, stat, Xattrs::default(), &root.dir.names);
        entry.target = first.as_bytes().to_vec();
        self.ready.push_back(Box::new(Known(entry)));
        *to_come -= 1;
        if *to_come == 0 {
            self.linked.remove(&identity(stat));
        }
        true
    }

    fn add_file(&mut self, path: EntryPath, relative: Vec<u8>, stat: &Stat, has_log: bool) {
        if has_log && self.begins_like_sqlite(&relative) {
            let message = "it is a SQLite database that may be in use, copied as a file; the copy may be inconsistent";
            self.problem(ProblemClass::LiveDatabase, &path, message);
        }
        let root = self.at.as_ref().expect("set before the first directory");
        self.ready.push_back(Box::new(Listed {
            dir: Arc::clone(&root.dir),
            relative,
            path,
            listed: identity(stat),
            size: attributes::size(stat),
            is_linked: stat.st_nlink > 1,
        }));
    }

    fn begins_like_sqlite(&self, relative: &[u8]) -> bool {
        let root = self.at.as_ref().expect("set before the first directory");
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let mut start = [0; SQLITE_MAGIC.len()];
        beneath::open(root.dir.fd.as_fd(), relative, flags)
            .is_ok_and(|fd| File::from(fd).read_exact(&mut start).is_ok() && start == *SQLITE_MAGIC)
    }
}

impl Entries for Tree<'_> {
    fn next(&mut self) -> Option<Box<dyn Item>> {
        while self.ready.is_empty() && self.step() {}
        self.ready.pop_front()
    }

    fn lost(&mut self, path: &EntryPath) {
        self.linked.retain(|_, (first, _)| first != path);
    }
}

/// An entry that is known whole from its listing: all but files.
struct Known(Entry);

impl Item for Known {
    fn path(&self) -> &EntryPath {
        &self.0.path
    }

    fn size(&self) -> u64 {
        0
    }

    fn is_file(&self) -> bool {
        false
    }

    fn is_linked(&self) -> bool {
        false
    }

    fn open(&self) -> std::result::Result<Opened, Problem> {
        Ok(Opened { entry: self.0.clone(), content: None })
    }
}

/// A file that was listed.
struct Listed {
    dir: Arc<Dir>,
    relative: Vec<u8>,
    path: EntryPath,
    listed: (u64, u64),
    size: u64,
    is_linked: bool,
}

impl Listed {
    fn open_file(&self) -> rustix::io::Result<OwnedFd> {
        // A pipe that took the file's place must not make us wait.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        match beneath::open(self.dir.fd.as_fd(), &self.relative, flags | OFlags::NOATIME) {
            // Only its owner may read a file without leaving a trace in its atime.
            Err(Errno::PERM) => beneath::open(self.dir.fd.as_fd(), &self.relative, flags),
            opened => opened,
        }
    }
}

impl Item for Listed {
    fn path(&self) -> &EntryPath {
        &self.path
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn is_file(&self) -> bool {
        true
    }

    fn is_linked(&self) -> bool {
        self.is_linked
    }

    fn open(&self) -> std::result::Result<Opened, Problem> {
        let problem = |class, message: String| Problem::new(class, self.path.as_bytes(), message);
        let fd = self.open_file().map_err(|error| match error {
            Errno::NOENT | Errno::NOTDIR => {
                problem(ProblemClass::Vanished, "it was gone when it was to be opened".to_owned())
            }
            Errno::LOOP => problem(ProblemClass::Vanished, "it was replaced by a symlink".to_owned()),
            error => problem(ProblemClass::Unreadable, format!("it could not be opened: {error}")),
        })?;
        let unreadable = |error: Errno| problem(ProblemClass::Unreadable, format!("it could not be read: {error}"));
        let stat = rustix::fs::fstat(&fd).map_err(unreadable)?;
        if attributes::kind(&stat) != Some(EntryKind::File) {
            return Err(problem(ProblemClass::Vanished, "it was replaced by something that is no file".to_owned()));
        }
        if self.is_linked && identity(&stat) != self.listed {
            // Its other names lead to the file that was here, not to this one.
            return Err(problem(ProblemClass::Unreadable, "it was replaced while its directory was read".to_owned()));
        }
        let xattrs = attributes::xattrs(fd.as_fd()).map_err(unreadable)?;
        let entry = attributes::entry(self.path.clone(), EntryKind::File, &stat, xattrs, &self.dir.names);
        Ok(Opened { entry, content: Some(Box::new(OpenFile { file: fd.into(), at_opening: stat })) })
    }
}

struct OpenFile {
    file: File,
    at_opening: Stat,
}

impl Read for OpenFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Content for OpenFile {
    fn settle(&mut self) -> Settled {
        let Ok(now) = rustix::fs::fstat(&self.file) else { return Settled::Changed };
        if now.st_size > self.at_opening.st_size {
            Settled::Grew
        } else if now.st_size == self.at_opening.st_size
            && attributes::mtime(&now) == attributes::mtime(&self.at_opening)
        {
            Settled::Same
        } else {
            Settled::Changed
        }
    }
}
