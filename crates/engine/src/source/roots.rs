//! Where `files` sources stand. Every root is looked at before anything is
//! read, so that a missing one fails as a whole.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_format::path::{EntryPath, shown};
use rustix::fs::{Mode, OFlags};

use super::attributes::Names;
use super::listing::Listing;
use crate::Result;
use crate::report::FailedSource;

/// The folder of a snapshot in which every `files` source has its own.
const PLACE: &str = "files";

/// A source whose root was found.
pub(crate) struct Root {
    /// Its name in the snapshot.
    pub(crate) name: String,
    /// Where it stands, absolute, as it was given.
    pub(crate) path: PathBuf,
    pub(super) place: EntryPath,
    /// The directory itself, or the one that a single file stands in.
    pub(super) dir: Arc<Dir>,
    /// The name of a single file.
    pub(super) file: Option<Vec<u8>>,
}

/// The handle that everything of a source is opened below.
pub(super) struct Dir {
    pub(super) fd: OwnedFd,
    pub(super) names: Names,
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
