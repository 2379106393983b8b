//! The source `files`: directory trees and single files, read as they stand.
//! [`Tree`] walks them in the order of their entry paths, by directory handles,
//! and never opens what is no file or directory.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_format::capture::{Entries, Item};
use lifeboat_format::model::{Entry, EntryKind, Xattrs};
use lifeboat_format::monitor::{Monitor, Problem, ProblemClass};
use lifeboat_format::path::EntryPath;
use lifeboat_store::Cancel;
use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::attributes;
use super::database::{self, Databases};
use super::item::{Known, Listed};
use super::listing::Listing;
use super::matcher::Matcher;
use super::roots::{Holder, Root};
use crate::report::Selection;
use crate::{Result, beneath, destination, ours};

/// How many directories on the way down are kept open; those above are opened again.
const OPEN_DIRS_MAX: usize = 64;

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
    /// Archives of ours in the output directories.
    pub(crate) own_archives: u64,
    /// Keys, our own data, destinations, what restores replaced.
    pub(crate) withheld: u64,
    /// What SQLite puts beside a database, whose content is in that.
    pub(crate) database_logs: u64,
}

impl std::ops::AddAssign for LeftOut {
    fn add_assign(&mut self, other: Self) {
        self.excluded += other.excluded;
        self.own_archives += other.own_archives;
        self.withheld += other.withheld;
        self.database_logs += other.database_logs;
    }
}

/// What holds for all roots of a walk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// Whether device nodes are taken.
    pub(crate) devices: bool,
    /// Whether directories on other file systems are left out.
    pub(crate) one_file_system: bool,
}

/// The walk over all roots.
pub(crate) struct Tree<'a> {
    roots: VecDeque<Root>,
    options: Options,
    /// The patterns of the root at hand.
    matcher: Matcher,
    outputs: &'a [OutputDir],
    monitor: &'a dyn Monitor,
    levels: Vec<Level>,
    at: Option<Root>,
    device: u64,
    ready: VecDeque<Box<dyn Item>>,
    /// Files with several names, by device and inode: the first name, and how many are still to come.
    linked: HashMap<(u64, u64), (EntryPath, u64)>,
    pub(crate) left_out: LeftOut,
    databases: Option<Arc<Databases>>,
    holder: Option<&'a dyn Holder>,
}

/// A directory on the way down.
struct Level {
    /// `None`: what is in it stands at the top of the snapshot.
    path: Option<EntryPath>,
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

impl<'a> Tree<'a> {
    pub(crate) fn new(
        roots: Vec<Root>,
        options: Options,
        outputs: &'a [OutputDir],
        monitor: &'a dyn Monitor,
    ) -> Result<Self> {
        // All are tried before anything is read.
        for root in &roots {
            matcher(root)?;
        }
        Ok(Self {
            roots: roots.into(),
            options,
            matcher: Matcher::new(&Selection::default())?,
            outputs,
            monitor,
            levels: Vec::new(),
            at: None,
            device: 0,
            ready: VecDeque::new(),
            linked: HashMap::new(),
            left_out: LeftOut::default(),
            databases: None,
            holder: None,
        })
    }

    /// Asks `holder` before a root is read that wants it. Each such root is a
    /// stretch of its own.
    pub(crate) fn held_by(mut self, holder: &'a dyn Holder) -> Self {
        self.holder = Some(holder);
        self
    }

    /// The place of the root that waits to be begun by [`Entries::go_on`]; `None`
    /// in it is the top of the snapshot.
    pub(crate) fn waits_at(&self) -> Option<Option<&EntryPath>> {
        let is_between = self.levels.is_empty() && self.ready.is_empty();
        let next = self.roots.front().filter(|root| is_between && root.is_held && self.holder.is_some());
        next.map(|root| root.place.as_ref())
    }

    /// Captures SQLite databases as the state at one moment; what takes a copy
    /// is copied into `scratch`. Otherwise they are read as they stand.
    pub(crate) fn with_databases(mut self, scratch: &Path, cancel: &Cancel) -> Self {
        self.databases = Some(Arc::new(Databases::new(scratch, cancel)));
        self
    }

    /// Tells what the items that were opened noted; also done on the way.
    pub(crate) fn tell_notes(&self) {
        if let Some(databases) = &self.databases {
            databases.tell(self.monitor);
        }
    }

    fn problem(&self, class: ProblemClass, path: &EntryPath, message: impl Into<String>) {
        self.problem_of(class, path.as_bytes(), message);
    }

    fn problem_of(&self, class: ProblemClass, path: &[u8], message: impl Into<String>) {
        self.monitor.problem(Problem::new(class, path, message));
    }

    /// Takes one step: the next root, the next name, or back up.
    fn step(&mut self) -> bool {
        if self.levels.is_empty() {
            // The one before is over, as far as listing goes.
            self.at = None;
            if self.waits_at().is_some() {
                return false;
            }
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
        if let Ok(matcher) = matcher(&root) {
            self.matcher = matcher;
        }
        self.at = Some(root);
        if let (Some(name), Some(place)) = (file, place.clone()) {
            if database::database_of(&name).is_some_and(|of| database::is_one(dir.fd.as_fd(), of)) {
                self.left_out.database_logs += 1;
                let message = "it belongs to the SQLite database beside it, whose copy holds what is in it";
                return self.problem(ProblemClass::Skipped, &place, message);
            }
            match rustix::fs::statat(&dir.fd, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    let log_bytes = log_bytes(dir.fd.as_fd(), &name, &stat);
                    self.add_file(place, name, &stat, log_bytes);
                }
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
            Err(error) => {
                let place = shown_place(place.as_ref());
                self.problem_of(ProblemClass::Unreadable, place, format!("it could not be listed: {error}"));
            }
        }
    }

    /// Directories far above were closed to save handles.
    fn open_level_again(&mut self) {
        let Some(root) = &self.at else { return };
        let level = self.levels.last_mut().expect("only called with one");
        if level.fd.is_none() {
            let opened = beneath::open(root.dir.fd.as_fd(), &level.relative, OFlags::RDONLY | OFlags::DIRECTORY);
            let same =
                |fd: &OwnedFd| rustix::fs::fstat(fd).is_ok_and(|stat| attributes::identity(&stat) == level.identity);
            match opened.ok().filter(same) {
                Some(fd) => level.fd = Some(fd),
                None => {
                    let problem = Problem::new(
                        ProblemClass::Unreadable,
                        shown_place(level.path.as_ref()),
                        "it was moved or replaced while it was read; what is left of it is not in the snapshot",
                    );
                    self.monitor.problem(problem);
                }
            }
        }
    }

    /// Goes into the open directory `fd`.
    fn enter(&mut self, path: Option<EntryPath>, relative: Vec<u8>, fd: OwnedFd, is_included: bool) {
        let shown = shown_place(path.as_ref()).to_vec();
        let stat = match rustix::fs::fstat(&fd) {
            Ok(stat) => stat,
            Err(error) => return self.problem_of(ProblemClass::Unreadable, &shown, error.to_string()),
        };
        if self.levels.iter().any(|level| level.identity == attributes::identity(&stat)) {
            return self.problem_of(ProblemClass::Skipped, &shown, "it is mounted inside itself");
        }
        let root = self.at.as_ref().expect("set before the first directory");
        let names = Arc::clone(&root.dir);
        let is_wanted = !relative.is_empty() || root.has_own_entry;
        let entry = path.clone().filter(|_| is_wanted).map(|path| {
            let xattrs = self.xattrs_or_problem(&path, attributes::xattrs(fd.as_fd()));
            attributes::entry(path, EntryKind::Dir, &stat, xattrs, &names.names)
        });
        let listing = Listing::read(fd.as_fd());
        let is_included = is_included || self.matcher.includes(&relative, true) && !relative.is_empty();
        let level = Level {
            path,
            relative,
            fd: Some(fd),
            identity: attributes::identity(&stat),
            listing: match listing {
                Ok(listing) => listing,
                Err(error) => {
                    self.problem_of(ProblemClass::Unreadable, &shown, format!("it could not be listed: {error}"));
                    self.take_ancestors();
                    self.ready.extend(entry.map(|entry| Box::new(Known(entry)) as Box<dyn Item>));
                    return;
                }
            },
            is_included,
            entry,
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
        let joined = level.path.as_ref().map_or_else(|| EntryPath::new(name), |path| path.join(name));
        let path = match joined {
            Ok(path) => path,
            Err(error) => {
                let place = shown_place(level.path.as_ref());
                return self.problem_of(ProblemClass::Unreadable, place, error.to_string());
            }
        };
        let mut relative = level.relative.clone();
        if !relative.is_empty() {
            relative.push(b'/');
        }
        relative.extend_from_slice(name);
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // What we make ourselves while we read, such as the copy of a database, comes and goes.
            Err(Errno::NOENT) if ours::stage_id(name).is_some() => return,
            // So does what SQLite puts beside a database; the database is in the snapshot.
            Err(Errno::NOENT) if self.is_database_log(name) => return,
            Err(Errno::NOENT) => {
                return self.problem(ProblemClass::Vanished, &path, "it was gone when it was looked at");
            }
            Err(error) => return self.problem(ProblemClass::Unreadable, &path, error.to_string()),
        };
        let kind = attributes::kind(&stat);
        let is_dir = kind == Some(EntryKind::Dir);
        if self.matcher.excludes(&relative, is_dir) {
            self.left_out.excluded += 1;
        } else if self.is_withheld(name, &relative, is_dir) {
            self.left_out.withheld += 1;
        } else if self.is_ours(name, is_dir) {
            self.left_out.own_archives += 1;
        } else if kind == Some(EntryKind::File) && self.is_database_log(name) {
            self.left_out.database_logs += 1;
        } else if is_dir {
            self.visit_dir(path, relative, name, &stat);
        } else if level.is_included || self.matcher.includes(&relative, false) {
            self.take_ancestors();
            let is_stored = match kind {
                Some(EntryKind::File | EntryKind::Symlink) => true,
                Some(EntryKind::Char | EntryKind::Block) => self.options.devices,
                _ => false,
            };
            if is_stored && stat.st_nlink > 1 && self.visit_link(&path, &stat) {
                return;
            }
            match kind {
                Some(EntryKind::File) => self.visit_file(path, relative, name, &stat),
                Some(EntryKind::Symlink) => self.visit_symlink(path, name, &stat),
                Some(kind @ (EntryKind::Char | EntryKind::Block)) if self.options.devices => {
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

    /// What is left out without being asked, and what a restore replaced.
    fn is_withheld(&self, name: &[u8], relative: &[u8], is_dir: bool) -> bool {
        let root = self.at.as_ref().expect("set before the first directory");
        root.withheld.contains(relative) || (!is_dir && ours::is_replaced(name))
    }

    /// An archive of ours in a directory that new ones go to, or a
    /// stage that a killed restore left.
    fn is_ours(&self, name: &[u8], is_dir: bool) -> bool {
        let level = self.levels.last().expect("a name stands in a directory");
        if is_dir {
            let dir = level.fd.as_ref().expect("opened by the caller");
            return ours::is_stage(dir.as_fd(), name);
        }
        let Some(output) = self.outputs.iter().find(|output| output.identity == level.identity) else {
            return false;
        };
        if lifeboat_store::durable::is_stand_in(name) {
            return true;
        }
        // Its content decides: a file that only has such a name is the user's.
        destination::is_ours(&output.path.join(OsStr::from_bytes(name)))
    }

    fn visit_dir(&mut self, path: EntryPath, relative: Vec<u8>, name: &[u8], stat: &Stat) {
        let level = self.levels.last().expect("a name stands in a directory");
        let dir = level.fd.as_ref().expect("opened by the caller");
        let is_included = level.is_included;
        if self.options.one_file_system && stat.st_dev != self.device {
            let root = self.at.as_ref().expect("set before the first directory");
            let entry = attributes::entry(path, EntryKind::Dir, stat, Xattrs::default(), &root.dir.names);
            self.problem(ProblemClass::Skipped, &entry.path, "another file system is mounted there; --one-file-system");
            self.take_ancestors();
            self.ready.push_back(Box::new(Known(entry)));
            return;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(dir, name, flags, Mode::empty()) {
            Ok(fd) => self.enter(Some(path), relative, fd, is_included),
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
        let level = self.levels.last().expect("a name stands in a directory");
        let dir = level.fd.as_ref().expect("opened by the caller");
        let log_bytes =
            if level.listing.has(&[name, b"-wal"].concat()) { log_bytes(dir.as_fd(), name, stat) } else { 0 };
        self.add_file(path, relative, stat, log_bytes);
    }

    /// Whether SQLite put `name` beside a database in the same directory.
    fn is_database_log(&self, name: &[u8]) -> bool {
        let level = self.levels.last().expect("a name stands in a directory");
        let dir = level.fd.as_ref().expect("opened by the caller");
        database::database_of(name).is_some_and(|of| level.listing.has(of) && database::is_one(dir.as_fd(), of))
    }

    /// True when the file stands in the snapshot already and this is another name of it.
    fn visit_link(&mut self, path: &EntryPath, stat: &Stat) -> bool {
        let Some((first, to_come)) = self.linked.get_mut(&attributes::identity(stat)) else {
            self.linked.insert(attributes::identity(stat), (path.clone(), stat.st_nlink - 1));
            return false;
        };
        let root = self.at.as_ref().expect("set before the first directory");
        let mut entry = attributes::entry(path.clone(), EntryKind::Hardlink, stat, Xattrs::default(), &root.dir.names);
        entry.target = first.as_bytes().to_vec();
        self.ready.push_back(Box::new(Known(entry)));
        *to_come -= 1;
        if *to_come == 0 {
            self.linked.remove(&attributes::identity(stat));
        }
        true
    }

    fn add_file(&mut self, path: EntryPath, relative: Vec<u8>, stat: &Stat, log_bytes: u64) {
        let root = self.at.as_ref().expect("set before the first directory");
        self.ready.push_back(Box::new(Listed {
            dir: Arc::clone(&root.dir),
            relative,
            path,
            listed: attributes::identity(stat),
            size: attributes::size(stat).saturating_add(log_bytes),
            is_linked: stat.st_nlink > 1,
            databases: self.databases.clone(),
        }));
    }
}

/// Bytes in the log of the database that the file `name` may be: its copy can
/// be larger than the file by as much, and the size that is listed decides how
/// a file is packed.
fn log_bytes(dir: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> u64 {
    if !database::can_be_one(attributes::size(stat)) {
        return 0;
    }
    let log = rustix::fs::statat(dir, [name, b"-wal"].concat(), AtFlags::SYMLINK_NOFOLLOW);
    log.ok().filter(|log| attributes::kind(log) == Some(EntryKind::File)).map_or(0, |log| attributes::size(&log))
}

fn matcher(root: &Root) -> Result<Matcher> {
    let (include, exclude) = (root.include.clone(), root.exclude.clone());
    Matcher::new(&Selection { include, exclude, ..Selection::default() })
}

/// The place of a directory, for messages.
fn shown_place(path: Option<&EntryPath>) -> &[u8] {
    path.map_or(b".", EntryPath::as_bytes)
}

impl Entries for Tree<'_> {
    fn next(&mut self) -> Option<Box<dyn Item>> {
        self.tell_notes();
        while self.ready.is_empty() && self.step() {}
        self.ready.pop_front()
    }

    fn go_on(&mut self) -> bool {
        let (Some(_), Some(holder)) = (self.waits_at(), self.holder) else { return false };
        if let Some(mut root) = self.roots.pop_front()
            && let Some(held) = holder.hold(&root.name)
        {
            root.hold(held);
            self.roots.push_front(root);
        }
        true
    }

    fn lost(&mut self, path: &EntryPath) {
        self.linked.retain(|_, (first, _)| first != path);
    }
}
