//! `F.json` beside an archive F in a destination: enough to list, age and check
//! it without opening it; no names of files. Written after F, removed before it
//! (`doc/formats.md`, "The sidecar").

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use lifeboat_format::envelope::Facts;
use lifeboat_format::model::{Outcome, Summer};
use lifeboat_format::record::Head;
use lifeboat_store as store;
use lifeboat_store::durable::Unnamed;
use serde::{Deserialize, Serialize};

use crate::{Cancel, Result, ours};

/// The format that this version writes.
const FORMAT: &str = "lifeboat-archive/1";
/// The envelope of what is not encrypted.
const PLAIN: &str = "none";
/// The most that a sidecar may hold.
const SIZE_MAX_BYTES: usize = 4 << 10;
/// How the name of an HMAC ends.
const HMAC_SUFFIX: &str = ".hmac";
/// What is read of an HMAC.
const HMAC_MAX_BYTES: u64 = 1 << 10;
/// What is read of something that claims to be one.
const READ_MAX_BYTES: u64 = 64 << 10;

/// What a sidecar says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sidecar {
    pub(crate) format: String,
    /// The snapshot's id.
    pub(crate) id: String,
    pub(crate) app: String,
    pub(crate) host: String,
    pub(crate) created: Timestamp,
    pub(crate) outcome: Outcome,
    /// Names of sources that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) failed_sources: Vec<String>,
    /// `archive`, or `bare` for one database as it is.
    pub(crate) form: String,
    /// How it is encrypted: `none`, `age`, `openssl` or `aes-256-gcm`.
    pub(crate) envelope: String,
    /// Iterations of PBKDF2, where the key is derived by that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) iterations: Option<u32>,
    /// What tells whether a key is the right one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key_id: Option<String>,
    /// Bytes of the archive.
    pub(crate) size: u64,
    /// SHA-256 of the archive.
    pub(crate) sha256: String,
}

/// The path of the sidecar of the archive at `path`.
pub(crate) fn path_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

impl Sidecar {
    /// The sidecar of the archive with `head`, which has `size` bytes and the sum `sha256`.
    pub(crate) fn new(head: &Head, form: &str, facts: Option<&Facts>, size: u64, sha256: String) -> Self {
        let failed = head.sources.iter().filter(|source| source.details.failed.is_some());
        Self {
            format: FORMAT.to_owned(),
            id: head.id.clone(),
            app: head.app.clone(),
            host: head.host.clone(),
            created: head.created,
            outcome: head.outcome,
            failed_sources: failed.map(|source| source.name.clone()).collect(),
            form: form.to_owned(),
            envelope: facts.map_or(PLAIN, |facts| facts.envelope.name()).to_owned(),
            iterations: facts.and_then(|facts| facts.iterations),
            key_id: facts.and_then(|facts| facts.key_id.clone()),
            size,
            sha256,
        }
    }

    /// Whether its archive is encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.envelope != PLAIN
    }

    fn text(&self) -> Vec<u8> {
        let mut sidecar = self.clone();
        loop {
            let mut text = serde_json::to_vec(&sidecar).expect("a sidecar has nothing that JSON lacks");
            text.push(b'\n');
            // Its size is bounded; the manifest names every source that failed.
            if text.len() <= SIZE_MAX_BYTES || sidecar.failed_sources.pop().is_none() {
                return text;
            }
        }
    }

    /// Writes it beside the archive at `path`. One that is left of an archive
    /// that is gone makes room; what is no sidecar stays.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let sidecar = path_of(path);
        if Self::parse(&sidecar).is_some() {
            std::fs::remove_file(&sidecar).map_err(|error| store::Error::io("replace", &sidecar, error))?;
        }
        let dir = sidecar.parent().unwrap_or(Path::new("."));
        let mut file = Unnamed::create(dir)?;
        file.append(&self.text())?;
        file.publish([sidecar.file_name().unwrap_or_default()], 0o666)?;
        Ok(())
    }

    /// The sidecar of the archive at `path`, if there is one that can be read.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        Self::parse(&path_of(path))
    }

    fn parse(sidecar: &Path) -> Option<Self> {
        let mut text = Vec::new();
        File::open(sidecar).ok()?.take(READ_MAX_BYTES).read_to_end(&mut text).ok()?;
        let sidecar: Self = serde_json::from_slice(&text).ok()?;
        sidecar.format.starts_with("lifeboat-archive/").then_some(sidecar)
    }
}

/// The path of what authenticates the archive at `path`, where its envelope does not.
pub(crate) fn hmac_path_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(HMAC_SUFFIX);
    name.into()
}

/// The line of the HMAC beside the archive at `path`, if there is one.
pub(crate) fn hmac_of(path: &Path) -> Option<String> {
    line_of(&hmac_path_of(path))
}

fn line_of(hmac: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(hmac).ok()?.take(HMAC_MAX_BYTES).read_to_string(&mut text).ok()?;
    Some(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// Writes the HMAC `line` beside the archive at `path`.
///
/// # Errors
/// When it cannot be written, or one is there already.
pub(crate) fn write_hmac(path: &Path, line: &str) -> Result<()> {
    let hmac = hmac_path_of(path);
    let mut file = Unnamed::create(hmac.parent().unwrap_or(Path::new(".")))?;
    file.append(format!("{line}\n").as_bytes())?;
    file.publish([hmac.file_name().unwrap_or_default()], 0o666)?;
    Ok(())
}

/// Whether the file at `path` is a sidecar of an archive.
pub(crate) fn is_one(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let is_named_so = name.strip_suffix(b".json").is_some_and(ours::has_archive_name);
    is_named_so && Sidecar::parse(path).is_some()
}

/// Whether the file at `path` is the HMAC of an archive.
pub(crate) fn is_hmac(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let is_named_so = name.strip_suffix(HMAC_SUFFIX.as_bytes()).is_some_and(ours::has_archive_name);
    is_named_so
        && line_of(path).is_some_and(|line| line.len() == 64 && line.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Size and SHA-256 of the file at `path`.
///
/// # Errors
/// When it cannot be read, or on cancel.
pub(crate) fn sum(path: &Path, cancel: &Cancel) -> Result<(u64, String)> {
    let failed = |error| store::Error::io("read", path, error);
    let mut file = File::open(path).map_err(failed)?;
    let (mut summer, mut size, mut buffer) = (Summer::new(), 0, vec![0; 1 << 20]);
    loop {
        cancel.check()?;
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok((size, summer.finish().to_string())),
            read => {
                summer.update(&buffer[..read]);
                size += read as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sidecar() -> Sidecar {
        Sidecar {
            format: FORMAT.to_owned(),
            id: "00".repeat(16),
            app: "web".to_owned(),
            host: "h".to_owned(),
            created: Timestamp::UNIX_EPOCH,
            outcome: Outcome::Good,
            failed_sources: Vec::new(),
            form: "archive".to_owned(),
            envelope: "none".to_owned(),
            iterations: None,
            key_id: None,
            size: 3,
            sha256: "11".repeat(32),
        }
    }

    /// Shows P1.
    #[test]
    fn a_sidecar_reads_back_replaces_an_orphan_and_stays_small() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("a.tar.zst");
        assert_eq!(Sidecar::read(&archive), None);
        sidecar().write(&archive).unwrap();
        let newer = Sidecar { app: "other".to_owned(), ..sidecar() };
        newer.write(&archive).unwrap();
        assert_eq!(Sidecar::read(&archive), Some(newer));
        let failed_sources = (0..1000).map(|number| format!("source-{number}")).collect();
        let large = Sidecar { failed_sources, ..sidecar() };
        assert!(large.text().len() <= SIZE_MAX_BYTES);
        let read: Sidecar = serde_json::from_slice(&large.text()).unwrap();
        assert!(read.failed_sources.len() > 100);
    }
}
