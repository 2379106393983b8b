//! Keys that leave this host, and come back.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use lifeboat_format::envelope::{Envelope, OPENSSL_ITERATIONS};
use serde::Serialize;
use zeroize::Zeroizing;

use super::paper::{self, About};
use super::{Keeper, Material, NOTHING, app_named, current, name, place, refuse_existing, usage};
use crate::config::AppConfig;
use crate::export::Take;
use crate::keys::{seal, secret};
use crate::{Error, ErrorKind, Result};

/// How many of the newest encrypted backups a key is tried on.
const TRIED_MAX: usize = 10;

/// What key is to be copied away, and how.
#[derive(Clone, Debug, Default)]
pub struct KeyExport {
    /// Of which app.
    pub app: Option<String>,
    /// Into which file.
    pub output: Option<PathBuf>,
    /// As a page.
    pub paper: bool,
}

/// A key that was copied away.
#[derive(Clone, Debug, Serialize)]
pub struct KeyExported {
    /// The app.
    pub app: Option<String>,
    /// `age` or `openssl`.
    pub envelope: &'static str,
    /// The key.
    pub path: String,
    /// The copy; `None` on standard output.
    pub output: Option<String>,
    /// What is worth a warning.
    pub warnings: Vec<String>,
}

/// What key is to be brought here.
#[derive(Clone, Debug)]
pub struct KeyImport {
    /// The file that it comes from.
    pub file: PathBuf,
    /// For which app.
    pub app: Option<String>,
    /// Also one that opens nothing.
    pub force: bool,
}

/// A key that was brought here.
#[derive(Clone, Debug, Serialize)]
pub struct KeyImported {
    /// The app.
    pub app: String,
    /// `age` or `openssl`.
    pub envelope: &'static str,
    /// Where it is now.
    pub path: String,
    /// Whether it was there already.
    pub was_there: bool,
    /// On how many backups it was tried.
    pub tried: u64,
    /// How many of these it opens.
    pub opens: u64,
    /// What is worth a warning.
    pub warnings: Vec<String>,
}

impl Keeper<'_> {
    /// Copies a key away: into a file, or as a page to `take`.
    ///
    /// # Errors
    /// When there is no such key, or the place is none for it.
    pub(crate) fn export(&self, request: &KeyExport, take: Take<'_>) -> Result<KeyExported> {
        if request.output.is_none() && !request.paper {
            return Err(usage(
                "it was not said where the key goes",
                "--output FILE writes a copy of its file, --paper prints a page to keep, both write the page to FILE",
            ));
        }
        let (app, path) = self.exported(request.app.as_deref())?;
        let material = Material::read(&path).map_err(|error| error.state("nothing was exported"))?;
        let mut warnings = Vec::new();
        if let Some(output) = &request.output {
            refuse_existing(output, None)?;
            place::refuse(self.keys.config, output)?;
            warnings = place::picked_up(self.keys.config, output);
        }
        let text = if request.paper { self.page(app, &material)? } else { material.raw.clone() };
        match &request.output {
            Some(output) => seal::write(output, &text).map_err(|error| error.state("nothing was exported"))?,
            None => take(&text)?,
        }
        self.note(&material, &mut warnings, |note| {
            note.exported.get_or_insert(self.timestamp());
        });
        Ok(KeyExported {
            app: app.map(|app| app.name.clone()),
            envelope: material.envelope.name(),
            path: name(&path),
            output: request.output.as_deref().map(name),
            warnings,
        })
    }

    /// The key that is meant: the one that was given to this process, else the app's.
    fn exported(&self, wanted: Option<&str>) -> Result<(Option<&AppConfig>, PathBuf)> {
        let given: Vec<&PathBuf> = self.keys.ring.key_files.iter().chain(&self.keys.ring.identity_files).collect();
        match given[..] {
            [] => {
                let app = self.app(wanted)?;
                Ok((Some(app), self.place_of(app)?.0.to_owned()))
            }
            [path] => {
                if let Some(wanted) = wanted {
                    self.app(Some(wanted))?;
                }
                Ok((app_named(self.keys.config, wanted), path.clone()))
            }
            _ => Err(usage("several keys were given", "export one after the other")),
        }
    }

    fn page(&self, app: Option<&AppConfig>, material: &Material) -> Result<Zeroizing<Vec<u8>>> {
        let iterations = app.and_then(|app| app.encryption.as_ref()?.iterations);
        let (host, date) = (crate::backup::host(), self.now.strftime("%Y-%m-%d").to_string());
        let about = About {
            app: app.map(|app| app.name.as_str()),
            host: &host,
            date: &date,
            iterations: iterations.unwrap_or(OPENSSL_ITERATIONS),
        };
        Ok(Zeroizing::new(paper::page(&about, material)?.as_bytes().to_vec()))
    }

    /// Brings a key to where the configuration of its app wants it.
    ///
    /// # Errors
    /// When it is none, another is there, or it opens no backup and nobody insists.
    pub(crate) fn import(&self, request: &KeyImport) -> Result<KeyImported> {
        let app = self.app(request.app.as_deref())?;
        let (path, envelope) = self.place_of(app)?;
        let raw = secret::read(&request.file).map_err(|error| error.state(NOTHING))?;
        let material = paper::parse(&raw, &request.file).map_err(|error| error.state(NOTHING))?;
        if material.envelope != envelope {
            let what = format!("{} is a key of {}", request.file.display(), material.envelope.name());
            return Err(usage(
                format!("{what}, and {} is encrypted with {}", app.name, envelope.name()),
                "give the key of this app, or change its `envelope`",
            ));
        }
        place::refuse_configured(self.keys.config, path)?;
        let was_there = self.is_there(path, &material, app)?;
        let (tried, opens) = self.try_newest(app, &material, envelope)?;
        if tried > 0 && opens == 0 && !request.force && !was_there {
            let what =
                format!("the key in {} opens none of the {tried} newest encrypted backups", request.file.display());
            return Err(Error::new(ErrorKind::WrongKey, format!("{what} of {}", app.name))
                .state(NOTHING)
                .next("look for another copy of the key; to take this one all the same: --force"));
        }
        if !was_there {
            seal::write(path, &material.raw).map_err(|error| error.state(NOTHING))?;
        }
        let mut warnings = open_to_others(&request.file);
        self.note(&material, &mut warnings, |note| {
            note.imported.get_or_insert(self.timestamp());
        });
        let (app, envelope) = (app.name.clone(), envelope.name());
        Ok(KeyImported { app, envelope, path: name(path), was_there, tried, opens, warnings })
    }

    /// Whether the key is where it belongs already; another key there is never replaced.
    fn is_there(&self, path: &Path, material: &Material, app: &AppConfig) -> Result<bool> {
        if path.symlink_metadata().is_err() {
            return Ok(false);
        }
        let there = Material::read(path).map_err(|error| error.state(NOTHING))?;
        if there.is_same(material) {
            return Ok(true);
        }
        debug_assert_eq!(current(app).map(PathBuf::as_path), Some(path));
        Err(Error::new(ErrorKind::Failed, format!("another key is at {}, and is not replaced", path.display()))
            .state(NOTHING)
            .next("to open older backups with the one you bring, keep it elsewhere and name it under `old_key_files`"))
    }

    /// On how many of the newest encrypted backups of `app` the key was tried, and how many it opens.
    fn try_newest(&self, app: &AppConfig, material: &Material, envelope: Envelope) -> Result<(u64, u64)> {
        let iterations = app.encryption.as_ref().and_then(|found| found.iterations);
        let all = self.encrypted(app).into_iter();
        let fitting = all.filter(|found| found.envelope == envelope && !found.is_with_password());
        let (mut tried, mut opens) = (0, 0);
        for found in fitting.take(TRIED_MAX) {
            self.cancel.check()?;
            match found.fits(&material.key, iterations) {
                Some(fits) => (tried, opens) = (tried + 1, opens + u64::from(fits)),
                // Nothing beside it tells, and nothing opens so: it counts against the key.
                None => tried += 1,
            }
        }
        Ok((tried, opens))
    }
}

/// A copy that others can read is one that others have.
fn open_to_others(file: &Path) -> Vec<String> {
    let is_open = file.metadata().is_ok_and(|found| found.is_file() && found.mode() & 0o077 != 0);
    is_open.then(|| format!("others can read {}: remove it, or chmod 600", name(file))).into_iter().collect()
}
