//! Where the backups are, which is no place for a key: who finds one has the
//! other, and both are lost together. Paths are compared without symlinks.

use std::fs::File;
use std::path::{Path, PathBuf};

use lifeboat_format::envelope::Envelope;

use crate::config::{Config, Source};
use crate::destination::{self, sidecar};
use crate::{Error, ErrorKind, Result, ours};

/// `path` without symlinks, as far as it exists.
pub(crate) fn real(path: &Path) -> Option<PathBuf> {
    path.ancestors().find_map(|dir| {
        let rest = path.strip_prefix(dir).ok()?;
        let dir = dir.canonicalize().ok()?;
        Some(if rest.as_os_str().is_empty() { dir } else { dir.join(rest) })
    })
}

/// All paths that `path` stands for: as it is written, where its name is, and where it leads.
fn meanings(path: &Path) -> Vec<PathBuf> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let named = absolute.parent().and_then(real).zip(absolute.file_name()).map(|(dir, name)| dir.join(name));
    let leads = real(&absolute);
    [Some(absolute), named, leads].into_iter().flatten().collect()
}

/// The directory of `lifeboat.yaml` that backups go to, and in which `path` lies.
pub(crate) fn configured(config: Option<&Config>, path: &Path) -> Option<PathBuf> {
    let meanings = meanings(path);
    let config = config?;
    let destinations = config.destinations.values().map(|destination| &destination.dir);
    let dirs = config.apps.values().filter_map(|app| app.backup_dir.as_ref()).filter(|dir| dir.is_absolute());
    let is_in = |dir: &Path| meanings.iter().any(|path| path.starts_with(dir));
    let mut all = destinations.chain(dirs);
    all.find(|dir| is_in(dir) || real(dir).is_some_and(|dir| is_in(&dir))).cloned()
}

/// As [`configured`]; also a directory that is seen to hold backups.
fn found(config: Option<&Config>, path: &Path) -> Option<PathBuf> {
    configured(config, path).or_else(|| {
        let dirs: Vec<PathBuf> = meanings(path).iter().filter_map(|path| path.parent().map(Path::to_owned)).collect();
        let marked = dirs.iter().flat_map(|dir| dir.ancestors()).find(|dir| destination::is_marked(dir));
        marked.or_else(|| dirs.iter().map(PathBuf::as_path).find(|dir| holds_encrypted(dir))).map(Path::to_owned)
    })
}

fn holds_encrypted(dir: &Path) -> bool {
    let listing = std::fs::read_dir(dir).into_iter().flatten().filter_map(std::io::Result::ok);
    listing.map(|entry| entry.path()).any(|path| {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let is_named_so = name.windows(8).any(|part| part == b"-backup-") || sidecar::path_of(&path).exists();
        ours::has_archive_name(name)
            && is_named_so
            && File::open(&path).is_ok_and(|file| Envelope::of_file(&file).is_ok_and(|envelope| envelope.is_some()))
    })
}

fn refused(path: &Path, dir: &Path) -> Error {
    let what = format!("{} lies where the backups are ({}): no place for a key", path.display(), dir.display());
    Error::new(ErrorKind::Usage, what)
        .state("no key was written")
        .next("choose a place away from the backups: who finds a backup would find its key beside it")
}

/// Refuses to make a key at `path` in a directory that `lifeboat.yaml` sends backups to.
pub(crate) fn refuse_configured(config: Option<&Config>, path: &Path) -> Result<()> {
    configured(config, path).map_or(Ok(()), |dir| Err(refused(path, &dir)))
}

/// Refuses to write a key at `path` where backups are.
pub(super) fn refuse(config: Option<&Config>, path: &Path) -> Result<()> {
    found(config, path).map_or(Ok(()), |dir| Err(refused(path, &dir)))
}

/// A line for each source of files that a file at `path` would be backed up with.
pub(super) fn picked_up(config: Option<&Config>, path: &Path) -> Vec<String> {
    let meanings = meanings(path);
    let mut lines = Vec::new();
    for app in config.into_iter().flat_map(|config| config.apps.values()) {
        for (name, source) in &app.sources {
            let Source::Files(files) = source else { continue };
            let is_in = |root: &Path| meanings.iter().any(|path| path.starts_with(root));
            if is_in(&files.root) || real(&files.root).is_some_and(|root| is_in(&root)) {
                let (path, app) = (path.display(), &app.name);
                lines
                    .push(format!("{path} lies in the source {name} of {app}, whose backups would hold this copy too"));
            }
        }
    }
    lines
}
