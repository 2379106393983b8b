//! All snapshots that are known: what lies in destinations, by sidecars, and in
//! backup directories, by sidecar or the head of the archive itself.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use lifeboat_format::archive::Archive;
use lifeboat_format::envelope::Envelope;
use lifeboat_format::model::Outcome;
use lifeboat_format::record::Head;
use lifeboat_store as store;
use serde::Serialize;

use super::sidecar::Sidecar;
use crate::{Error, ErrorKind, Result, ours};

/// How what stands beside a bare database is called: `x.manifest.json` for `x.db`.
pub(crate) const BARE_MANIFEST: &str = ".manifest.json";

/// One snapshot, where it lies.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// Its id; `None` for what nobody can tell of.
    pub id: Option<String>,
    /// The application.
    pub app: Option<String>,
    /// The host that it was made on.
    pub host: Option<String>,
    /// When it was made; of a file that tells nothing, when that was written.
    pub created: Timestamp,
    /// How the backup ended; `None` for what is unfinished or not ours.
    pub outcome: Option<Outcome>,
    /// Sources that failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed_sources: Vec<String>,
    /// Bytes of the file.
    pub size_bytes: u64,
    /// The file.
    #[serde(serialize_with = "crate::report::as_shown")]
    pub path: PathBuf,
    /// The destination that it lies in; `None` in a backup directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// `archive` or `bare`.
    pub form: String,
    /// How it is encrypted, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envelope: Option<String>,
}

impl Snapshot {
    /// Whether it counts: full scope, no source failed, no entry unreadable.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.outcome == Some(Outcome::Good)
    }
}

/// The snapshots in `dir`, the oldest first; none where the directory does not
/// exist. `name` is that of the destination.
///
/// # Errors
/// When the directory cannot be listed.
pub(crate) fn list(dir: &Path, name: Option<&str>) -> Result<Vec<Snapshot>> {
    let failed = |error| Error::from(store::Error::io("list", dir, error));
    let listing = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in listing {
        let path = entry.map_err(failed)?.path();
        let file_name = path.file_name().unwrap_or_default().as_bytes().to_vec();
        let is_candidate = ours::has_archive_name(&file_name) || bare_manifest_of(&path).exists();
        if is_candidate && path.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
            found.extend(look(&path, name));
        }
    }
    found.sort_by(|a, b| (a.created, &a.path).cmp(&(b.created, &b.path)));
    Ok(found)
}

/// The path of the manifest beside the bare database at `path`.
pub(crate) fn bare_manifest_of(path: &Path) -> PathBuf {
    let stem = path.file_stem().unwrap_or(OsStr::new(""));
    let mut name = stem.to_owned();
    name.push(BARE_MANIFEST);
    path.with_file_name(name)
}

/// What the file at `path` is; `None` when it went away meanwhile.
fn look(path: &Path, destination: Option<&str>) -> Option<Snapshot> {
    let metadata = path.metadata().ok()?;
    let created = metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok()).unwrap_or_default();
    let mut snapshot = Snapshot {
        id: None,
        app: None,
        host: None,
        created,
        outcome: None,
        failed_sources: Vec::new(),
        size_bytes: metadata.len(),
        path: path.to_owned(),
        destination: destination.map(str::to_owned),
        form: "archive".to_owned(),
        envelope: envelope_of(path),
    };
    if let Some(sidecar) = Sidecar::read(path) {
        // One whose size differs is being written, or is not what the sidecar is about.
        if sidecar.size == snapshot.size_bytes {
            snapshot.id = Some(sidecar.id);
            snapshot.app = Some(sidecar.app);
            snapshot.host = Some(sidecar.host);
            (snapshot.created, snapshot.outcome) = (sidecar.created, Some(sidecar.outcome));
            (snapshot.failed_sources, snapshot.form) = (sidecar.failed_sources, sidecar.form);
        }
        return Some(snapshot);
    }
    let head = match (bare_head(path), destination) {
        (Some(head), _) => {
            snapshot.form = "bare".to_owned();
            Some(head)
        }
        // A copy gets its sidecar when it was read back; until then it is unfinished.
        (None, Some(_)) => None,
        (None, None) => Archive::open(path).ok().and_then(|archive| archive.head().cloned()),
    };
    if let Some(head) = head {
        let failed = head.sources.iter().filter(|source| source.details.failed.is_some());
        snapshot.failed_sources = failed.map(|source| source.name.clone()).collect();
        (snapshot.id, snapshot.app, snapshot.host) = (Some(head.id), Some(head.app), Some(head.host));
        (snapshot.created, snapshot.outcome) = (head.created, Some(head.outcome));
    }
    Some(snapshot)
}

/// Told by what the file begins with: a sidecar may be missing.
fn envelope_of(path: &Path) -> Option<String> {
    let found = File::open(path).and_then(|file| Envelope::of_file(&file)).ok()??;
    Some(found.name().to_owned())
}

fn bare_head(path: &Path) -> Option<Head> {
    head_in(&bare_manifest_of(path))
}

fn head_in(manifest: &Path) -> Option<Head> {
    let file = File::open(manifest).ok()?;
    let head: Head = serde_json::from_reader(std::io::BufReader::new(file)).ok()?;
    head.check_format().ok().map(|()| head)
}

/// The one snapshot of `all` that `wanted` names: an id or the beginning of one,
/// or `latest`, the newest good one of `app`. The same snapshot in several
/// places is one.
///
/// # Errors
/// When there is none, or several are meant.
pub(crate) fn resolve<'s>(all: &'s [Snapshot], wanted: &str, app: Option<&str>) -> Result<&'s Snapshot> {
    let of_app = |snapshot: &&Snapshot| app.is_none() || snapshot.app.as_deref() == app;
    let refuse =
        |what: String, next: &str| Err(Error::new(ErrorKind::Usage, what).state("nothing was begun").next(next));
    if wanted == "latest" {
        let good = all.iter().filter(of_app).filter(|snapshot| snapshot.is_good());
        let apps: std::collections::BTreeSet<_> = good.clone().map(|snapshot| &snapshot.app).collect();
        if apps.len() > 1 {
            let names: Vec<&str> = apps.iter().filter_map(|name| name.as_deref()).collect();
            return refuse(
                format!("there are snapshots of several apps: {}", names.join(", ")),
                "say which: --app APP",
            );
        }
        return match good.max_by_key(|snapshot| snapshot.created) {
            Some(latest) => Ok(latest),
            None => refuse("there is no good snapshot".to_owned(), "`lifeboat backup list` shows what there is"),
        };
    }
    let is_hex = wanted.len() >= 4 && wanted.chars().all(|c| c.is_ascii_hexdigit());
    let mut hits: Vec<&Snapshot> = Vec::new();
    for snapshot in all.iter().filter(of_app).filter(|_| is_hex) {
        let is_meant = snapshot.id.as_deref().is_some_and(|id| id.starts_with(&wanted.to_ascii_lowercase()));
        if is_meant && !hits.iter().any(|hit| hit.id == snapshot.id) {
            hits.push(snapshot);
        }
    }
    match hits.as_slice() {
        [one] => Ok(one),
        [] => refuse(
            format!("{wanted} is neither a file nor the id of a snapshot"),
            "give the path of an archive, `latest`, or an id that `lifeboat backup list` shows",
        ),
        several => {
            let ids: Vec<&str> = several.iter().filter_map(|snapshot| snapshot.id.as_deref()).collect();
            refuse(format!("{wanted} is the beginning of several ids: {}", ids.join(", ")), "give more of the id")
        }
    }
}

/// Whether the file at `path` is a bare database of ours.
pub(crate) fn is_bare(path: &Path) -> bool {
    !is_bare_manifest(path) && bare_head(path).is_some()
}

/// Whether the file at `path` is the manifest of a bare database.
pub(crate) fn is_bare_manifest(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_bytes();
    name.ends_with(BARE_MANIFEST.as_bytes()) && head_in(path).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(id: &str, app: &str, seconds: i64, outcome: Outcome) -> Snapshot {
        Snapshot {
            id: Some(id.repeat(16)),
            app: Some(app.to_owned()),
            host: None,
            created: Timestamp::from_second(seconds).unwrap(),
            outcome: Some(outcome),
            failed_sources: Vec::new(),
            size_bytes: 0,
            path: PathBuf::new(),
            destination: None,
            form: "archive".to_owned(),
            envelope: None,
        }
    }

    /// Shows P2.
    #[test]
    fn latest_is_the_newest_good_one_and_an_id_means_one_snapshot() {
        let all = [
            snapshot("aa", "web", 1, Outcome::Good),
            snapshot("ab", "web", 2, Outcome::Good),
            snapshot("ab", "web", 2, Outcome::Good),
            snapshot("ac", "web", 3, Outcome::Partial),
            snapshot("ad", "web", 4, Outcome::Scope),
            snapshot("ba", "mail", 5, Outcome::Good),
        ];
        let id = |wanted: &str, app| resolve(&all, wanted, app).map(|found| found.id.clone().unwrap()[..2].to_owned());
        assert_eq!(id("latest", Some("web")).unwrap(), "ab");
        assert!(id("latest", None).unwrap_err().what().contains("mail, web"));
        assert_eq!(id("abab", None).unwrap(), "ab");
        assert_eq!(id("ACAC", None).unwrap(), "ac");
        for wrong in ["a", "ffff", "nonsense"] {
            assert_eq!(id(wrong, None).unwrap_err().kind(), ErrorKind::Usage, "{wrong}");
        }
        assert!(id("latest", Some("none")).is_err());
    }

    #[test]
    fn what_stands_beside_a_snapshot_is_named_after_it() {
        assert_eq!(bare_manifest_of(Path::new("/b/x.db")), Path::new("/b/x.manifest.json"));
        assert_eq!(super::super::sidecar::path_of(Path::new("/b/a.tar.zst")), Path::new("/b/a.tar.zst.json"));
    }
}
