//! Where `files` sources stand. Every root is looked at before anything is
//! read, so that a missing one fails as a whole.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_format::path::EntryPath;
use rustix::fs::{Access, Mode, OFlags};

use super::attributes::Names;
use super::listing::Listing;
use crate::Result;
use crate::report::Selection;

/// The folder of a snapshot in which every `files` source has its own.
const PLACE: &str = "files";
/// Why an empty root fails.
pub(crate) const EMPTY: &str = "it is empty; is a file system not mounted there?";

/// A source of files, before anything was looked at.
#[derive(Clone)]
pub(crate) struct Wanted {
    /// Its name in the snapshot.
    pub(crate) name: String,
    /// Where it stands, absolute.
    pub(crate) path: PathBuf,
    /// The directory of the snapshot that its entries go to (empty: the top);
    /// `None`: `files/<name>` is the root itself.
    pub(crate) at: Option<String>,
    pub(crate) include: Vec<String>,
    pub(crate) exclude: Vec<String>,
    /// Whether an empty root is no failure.
    pub(crate) may_be_empty: bool,
    /// Whether something is held still while it is read: see [`Holder`].
    pub(crate) is_held: bool,
}

/// A source whose root was found.
pub(crate) struct Root {
    /// Its name in the snapshot.
    pub(crate) name: String,
    /// Where it stands, absolute, as it was given.
    pub(crate) path: PathBuf,
    /// The same without symlinks.
    pub(crate) real: PathBuf,
    /// The entry path of the root; `None`: what is in it stands at the top.
    pub(crate) place: Option<EntryPath>,
    /// Whether the place is that of every source of this name.
    pub(crate) is_usual: bool,
    /// The directory itself, or the one that a single file stands in.
    pub(super) dir: Arc<Dir>,
    /// The name of a single file.
    pub(super) file: Option<Vec<u8>>,
    /// The patterns of what is taken and left out.
    pub(crate) include: Vec<String>,
    pub(crate) exclude: Vec<String>,
    /// What is left out without being asked: paths relative to the root.
    pub(crate) withheld: HashSet<Vec<u8>>,
    /// Whether the directory's own entry is taken.
    pub(crate) has_own_entry: bool,
    /// Whether nothing is in the root.
    pub(crate) is_empty: bool,
    /// Whether a [`Holder`] is asked before it is read.
    pub(crate) is_held: bool,
}

/// The handle that everything of a source is opened below, and what lasts as
/// long as something of the source is still to be read.
pub(crate) struct Dir {
    pub(super) fd: OwnedFd,
    /// Where it stands, without symlinks.
    pub(super) real: PathBuf,
    pub(super) names: Names,
    held: Vec<Held>,
}

/// Something that is dropped when the last entry of a source has been read.
pub(crate) type Held = Arc<dyn Send + Sync>;

/// Who holds still what writes to a source, for as long as that is read.
pub(crate) trait Holder: Sync {
    /// Called when the reading of the source `name` is to begin, and everything
    /// before it was read; `None`: the source failed, and is not read.
    fn hold(&self, name: &str) -> Option<Held>;
}

impl Dir {
    /// Whether something stands still until all of it was read.
    pub(super) fn is_held(&self) -> bool {
        !self.held.is_empty()
    }
}

impl Root {
    /// Opens the root of `wanted`; `Err` says why the source failed. While
    /// something of it is still to be read, `held` lives.
    pub(crate) fn open(wanted: Wanted, held: Option<Held>) -> Result<std::result::Result<Self, String>> {
        let found = match find_root(&wanted.path, wanted.may_be_empty) {
            Ok(found) => found,
            Err(message) => return Ok(Err(message)),
        };
        let place = match (&wanted.at, &found.file) {
            (None, _) => Some(EntryPath::new(PLACE)?.join(wanted.name.as_bytes())?),
            (Some(at), Some(file)) if at.is_empty() => Some(EntryPath::new(file.clone())?),
            (Some(at), Some(file)) => Some(EntryPath::new(at.as_bytes())?.join(file)?),
            (Some(at), None) if at.is_empty() => None,
            (Some(at), None) => Some(EntryPath::new(at.as_bytes())?),
        };
        Ok(Ok(Self {
            is_usual: wanted.at.is_none(),
            has_own_entry: place.is_some(),
            name: wanted.name,
            path: wanted.path,
            real: found.real,
            place,
            dir: Arc::new(Dir {
                fd: found.fd,
                real: found.dir,
                names: Names::default(),
                held: held.into_iter().collect(),
            }),
            file: found.file,
            include: wanted.include,
            exclude: wanted.exclude,
            withheld: HashSet::new(),
            is_empty: found.is_empty,
            is_held: wanted.is_held,
        }))
    }

    /// The same root once more, to go through it before it is read.
    pub(crate) fn reopen(&self) -> io::Result<Self> {
        let fd = if self.file.is_some() {
            self.dir.fd.try_clone()?
        } else {
            rustix::fs::openat(&self.dir.fd, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?
        };
        Ok(Self {
            name: self.name.clone(),
            path: self.path.clone(),
            real: self.real.clone(),
            place: self.place.clone(),
            is_usual: self.is_usual,
            dir: Arc::new(Dir { fd, real: self.dir.real.clone(), names: Names::default(), held: Vec::new() }),
            file: self.file.clone(),
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            withheld: self.withheld.clone(),
            has_own_entry: self.has_own_entry,
            is_empty: self.is_empty,
            is_held: false,
        })
    }

    /// Holds `held` until the last entry of it has been read. Nothing has been so far.
    pub(super) fn hold(&mut self, held: Held) {
        self.is_held = false;
        Arc::get_mut(&mut self.dir).expect("no entry was handed out yet").held.push(held);
    }

    /// Whether it is a single file.
    pub(crate) fn is_file(&self) -> bool {
        self.file.is_some()
    }

    /// Leaves out what is at `path`, absolute and without symlinks, if it lies
    /// in this root.
    pub(crate) fn withhold(&mut self, path: &Path) {
        if let Ok(inner) = path.strip_prefix(&self.real)
            && !inner.as_os_str().is_empty()
        {
            self.withheld.insert(inner.as_os_str().as_bytes().to_vec());
        }
    }
}

/// The sources of `paths`, as the command line names them.
pub(crate) fn of_paths(paths: &[PathBuf], working_dir: &Path, host: &str, selection: &Selection) -> Vec<Wanted> {
    let mut taken = HashMap::new();
    let wanted = paths.iter().map(|path| {
        let absolute = absolute(&working_dir.join(path));
        Wanted {
            name: unique(&mut taken, base_name(&absolute, host)),
            path: absolute,
            at: None,
            include: selection.include.clone(),
            exclude: selection.exclude.clone(),
            may_be_empty: false,
            is_held: false,
        }
    });
    wanted.collect()
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

struct Found {
    fd: OwnedFd,
    dir: PathBuf,
    file: Option<Vec<u8>>,
    real: PathBuf,
    is_empty: bool,
}

/// The directory to read in, and the name of a single file in it.
fn find_root(path: &Path, may_be_empty: bool) -> std::result::Result<Found, String> {
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
        rustix::fs::access(&real, Access::READ_OK).map_err(|error| format!("it cannot be opened: {error}"))?;
        let parent = real.parent().expect("a file stands in a directory");
        // Search permission is enough for the directory of a single file.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd =
            rustix::fs::open(parent, flags, Mode::empty()).map_err(|error| format!("it cannot be opened: {error}"))?;
        let file = real.file_name().map(|name| name.as_bytes().to_vec());
        return Ok(Found { fd, dir: parent.to_owned(), file, real, is_empty: false });
    }
    if !kind.is_dir() {
        return Err("it is neither a directory nor a file".to_owned());
    }
    let fd = open_dir(&real)?;
    let listing = Listing::read(fd.as_fd()).map_err(|error| format!("it cannot be listed: {error}"))?;
    let is_empty = listing.is_empty();
    if is_empty && !may_be_empty {
        return Err(EMPTY.to_owned());
    }
    // The listing moved the handle's position to its end.
    open_dir(&real).map(|fd| Found { fd, dir: real.clone(), file: None, real, is_empty })
}
