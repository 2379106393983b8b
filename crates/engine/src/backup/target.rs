//! Where an archive goes and what it is called. Nothing that exists is ever
//! overwritten.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use jiff::Zoned;
use lifeboat_format::archive::Compression;
use lifeboat_format::envelope::Envelope;
use lifeboat_store as store;

use super::subject::Job;
use super::{NOTHING_WRITTEN, bare};
use crate::destination;
use crate::destination::listing::bare_manifest_of;
use crate::destination::sidecar::hmac_path_of;
use crate::report::{BackupRequest, CompressionKind};
use crate::size::size;
use crate::{Error, ErrorKind, Result, naming};

/// A directory, and the names that the archive may take in it.
pub(super) struct Target {
    pub(super) dir: PathBuf,
    pub(super) compression: Compression,
    /// Whether a sidecar is written beside the archive.
    pub(super) has_sidecar: bool,
    /// Whether a manifest is written beside a bare database.
    is_bare: bool,
    name: Name,
}

enum Name {
    /// Asked for: taken or an error.
    Exact(OsString),
    /// What the template says, the time of day, and the suffix.
    Dated { stem: String, time: String, suffix: String },
}

impl Target {
    /// What `request` asks for. Refuses a name that is taken before anything is read.
    pub(super) fn find(request: &BackupRequest, job: &Job<'_>, host: &str, now: &Zoned) -> Result<Self> {
        let output = request.output.as_ref().map(|output| request.working_dir.join(output));
        let compression = compression(request, job, output.as_deref())?;
        let is_dir = |path: &Path| path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/");
        let is_bare = request.bare;
        let envelope = request.encryption.envelope(job.app);
        // Of what is encrypted nothing else tells what it is, nor how its key is derived.
        let is_encrypted = envelope.is_some();
        let target = match output {
            Some(path) if !is_dir(&path) => {
                let name = path.file_name().unwrap_or_default().to_owned();
                let dir = path.parent().unwrap_or(&request.working_dir).to_owned();
                let has_sidecar = is_encrypted || destination::is_marked(&dir);
                Self { dir, compression, has_sidecar, is_bare, name: Name::Exact(name) }
            }
            dir => {
                let template = job.app.and_then(|app| app.archive_name.as_deref()).unwrap_or(naming::DEFAULT);
                let stem = naming::expand(template, &job.app_name, host, now);
                let time = now.strftime("%H%M%S").to_string();
                let is_schema_only = request.schema_only;
                let suffix = if request.bare {
                    bare::suffix(job, is_schema_only).to_owned()
                } else {
                    naming::suffix(compression.suffix(), envelope)
                };
                let configured = job.app.and_then(|app| app.backup_dir.as_deref());
                // `.` is wherever somebody is; only an absolute directory is a place for archives.
                let backup_dir = configured.filter(|dir| dir.is_absolute());
                let first = job.destinations.first().map(|destination| destination.dir.as_path());
                let is_place = dir.is_none() && (first.is_some() || backup_dir.is_some());
                let dir = dir.or_else(|| first.or(backup_dir).map(Path::to_owned));
                let dir = dir.unwrap_or_else(|| request.working_dir.clone());
                // Also where a destination was named as a directory: there only a sidecar makes it known.
                let has_sidecar = is_encrypted || is_place || destination::is_marked(&dir);
                Self { dir, compression, has_sidecar, is_bare, name: Name::Dated { stem, time, suffix } }
            }
        };
        target.refuse_misleading_name(envelope)?;
        target.refuse_taken_name()?;
        Ok(target)
    }

    /// The names to try, best first.
    pub(super) fn names(&self) -> impl Iterator<Item = OsString> + '_ {
        self.names_in(&self.dir)
    }

    fn names_in<'s>(&'s self, dir: &'s Path) -> impl Iterator<Item = OsString> + 's {
        let (exact, dated) = match &self.name {
            Name::Exact(name) => (Some(name.clone()), None),
            Name::Dated { stem, time, suffix } => (None, Some((stem, time, suffix))),
        };
        let dated = dated.into_iter().flat_map(|(stem, time, suffix)| {
            let numbered = (2..1000).map(move |number| format!("{stem}-{time}-{number}{suffix}"));
            [format!("{stem}{suffix}"), format!("{stem}-{time}{suffix}")].into_iter().chain(numbered)
        });
        exact.into_iter().chain(dated.map(OsString::from)).filter(|name| !self.is_beside(&dir.join(name)))
    }

    /// The same snapshot goes to the directory `dir`: the name that it has, then the others.
    pub(super) fn names_after(&self, taken: &Path, dir: &Path) -> Vec<OsString> {
        let first = taken.file_name().map(OsString::from);
        let first = first.filter(|name| !self.is_beside(&dir.join(name)));
        first.into_iter().chain(self.names_in(dir)).collect()
    }

    /// Whether what would stand beside `path` is there already: the manifest of a
    /// bare database that is gone or has the same name with another suffix, the
    /// HMAC of an archive that is gone.
    fn is_beside(&self, path: &Path) -> bool {
        let beside = if self.is_bare { bare_manifest_of(path) } else { hmac_path_of(path) };
        beside.symlink_metadata().is_ok()
    }

    /// A name that says that what is in it cannot be read by others must not lie.
    fn refuse_misleading_name(&self, envelope: Option<Envelope>) -> Result<()> {
        let Name::Exact(name) = &self.name else { return Ok(()) };
        let name = name.as_encoded_bytes();
        let is_said = Envelope::ALL.into_iter().any(|envelope| name.ends_with(envelope.suffix().as_bytes()));
        if envelope.is_some() || !is_said {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Usage,
            "the name of --output is that of an encrypted archive, and this one would not be",
        )
        .state(NOTHING_WRITTEN)
        .next("add --encrypt, or choose another name"))
    }

    fn refuse_taken_name(&self) -> Result<()> {
        let Name::Exact(name) = &self.name else { return Ok(()) };
        let path = self.dir.join(name);
        if self.is_beside(&path) {
            return Err(taken(&if self.is_bare { bare_manifest_of(&path) } else { hmac_path_of(&path) }));
        }
        if path.symlink_metadata().is_err() { Ok(()) } else { Err(taken(&path)) }
    }

    /// Makes the directory where it is missing.
    pub(super) fn create_dir(&self) -> Result<()> {
        std::fs::create_dir_all(&self.dir)
            .map_err(|error| self.not_written(store::Error::io("create the directory", &self.dir, error).into()))
    }

    /// Adds to an error that nothing was left behind, and what may help.
    pub(super) fn not_written(&self, error: Error) -> Error {
        let dir = self.dir.display();
        let error = error.state(NOTHING_WRITTEN);
        match error.kind() {
            ErrorKind::NoSpace => {
                let free = crate::destination::free_space(&self.dir);
                let free = free.map(|free| format!("{} free; ", size(free))).unwrap_or_default();
                error.next(format!(
                    "make room in {dir} ({free}a backup may need twice the archive's size), \
                     or choose another place with --output"
                ))
            }
            ErrorKind::Denied => error
                .next(format!("write to another place with --output, or give yourself the right to write in {dir}")),
            ErrorKind::Cancelled => error.next("run the same command again"),
            _ => error,
        }
    }

    /// As [`Target::not_written`], for the last step.
    pub(super) fn not_published(&self, error: store::Error) -> Error {
        match (&self.name, error.kind()) {
            (Name::Exact(name), store::ErrorKind::Exists) => taken(&self.dir.join(name)),
            _ => self.not_written(error.into()),
        }
    }
}

fn taken(path: &Path) -> Error {
    Error::new(ErrorKind::Failed, format!("{} exists already", path.display()))
        .state("it was not touched, and no archive was made")
        .next("choose another name with --output, or leave --output out for a dated one")
}

/// What the options say, else the suffix of the name, else the configuration, else zstd.
fn compression(request: &BackupRequest, job: &Job<'_>, output: Option<&Path>) -> Result<Compression> {
    let name = output.map(|path| path.as_os_str().as_encoded_bytes()).unwrap_or_default();
    let outer = Envelope::ALL.into_iter().find_map(|envelope| name.strip_suffix(envelope.suffix().as_bytes()));
    let name = outer.unwrap_or(name);
    let ends_with = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix.as_bytes()));
    let by_name = if ends_with(&[".tar.gz", ".tgz"]) {
        Some(CompressionKind::Gzip)
    } else if ends_with(&[".tar.zst", ".tzst"]) {
        Some(CompressionKind::Zstd)
    } else {
        None
    };
    if let (Some(asked), Some(named)) = (request.compression, by_name)
        && asked != named
    {
        return Err(Error::new(ErrorKind::Usage, "the suffix of --output and --compression do not agree")
            .state(NOTHING_WRITTEN)
            .next("leave --compression out, or change the suffix"));
    }
    let configured = job.app.and_then(|app| app.compression);
    let kind = request.compression.or(by_name).or(configured).unwrap_or(CompressionKind::Zstd);
    // A configured level is one of the configured kind.
    let is_configured_kind = kind == configured.unwrap_or(CompressionKind::Zstd);
    let level = request.level.or(job.app.and_then(|app| app.compression_level).filter(|_| is_configured_kind));
    match kind {
        CompressionKind::Zstd => Ok(Compression::zstd(level)?),
        CompressionKind::Gzip => Ok(Compression::gzip(level)?),
    }
}
