//! Looks at the host for what would make a run fail although the configuration
//! is sound: what is missing, not mounted, or open to others. Changes nothing,
//! and runs nothing.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use lifeboat_format::path::shown;
use serde::Serialize;

use super::{AppConfig, Ask, Config, Destination, Encryption, SecretFrom, Source, VersionFrom};
use crate::exec::reason;
use crate::health::HealthCheck;
use crate::services::{Service, ServiceKind};

/// The bits that let a program be run.
const RUNNABLE: u32 = 0o111;
/// The bits that let others read or write.
const OPEN_TO_OTHERS: u32 = 0o077;

/// A sound configuration, and what would fail on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigReport {
    /// The file, escaped.
    pub path: String,
    /// The apps, by name.
    pub apps: Vec<CheckedApp>,
    /// How many destinations there are.
    pub destinations: usize,
    /// What would fail, or is unsafe, one line each.
    pub warnings: Vec<String>,
}

/// One app of a [`ConfigReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckedApp {
    /// Its name.
    pub name: String,
    /// Whether it is backed up when no app is named.
    pub is_enabled: bool,
    /// The names of its sources.
    pub sources: Vec<String>,
    /// The names of the services that a restore stops.
    pub services: Vec<String>,
    /// How many checks of health there are, and how many after a restore.
    pub checks: usize,
    /// The names of the destinations that are used.
    pub destinations: Vec<String>,
}

/// `programs` are the directories in which programs are looked for.
pub(crate) fn look(config: &Config, programs: &[PathBuf]) -> ConfigReport {
    let mut warnings = Vec::new();
    for app in config.apps.values() {
        let mut look = Look { programs, found: Vec::new(), seen: BTreeSet::new() };
        look.app(app);
        let used = config.destinations.values().filter(|destination| app.destinations.contains(&destination.name));
        // Who turned one off may not have thought of where archives go then.
        let is_one_off = config.destinations.values().any(|destination| !destination.is_enabled);
        if is_one_off && app.destinations.is_empty() && app.backup_dir.is_none() {
            look.warn("no destination that is enabled is named, so that archives go to the current directory");
        }
        used.for_each(|destination| look.destination(destination));
        warnings.extend(look.found.into_iter().map(|what| format!("{}: {what}", app.name)));
    }
    let apps = config.apps.values().map(|app| CheckedApp {
        name: app.name.clone(),
        is_enabled: app.is_enabled,
        sources: app.sources.keys().cloned().collect(),
        services: app.services.iter().map(|service| service.name.clone()).collect(),
        checks: app.health.len() + app.after_restore.len(),
        destinations: app.destinations.clone(),
    });
    ConfigReport {
        path: of_path(&config.path),
        apps: apps.collect(),
        destinations: config.destinations.len(),
        warnings,
    }
}

fn of_path(path: &Path) -> String {
    shown(path.as_os_str().as_bytes())
}

/// What was found of one app.
struct Look<'a> {
    programs: &'a [PathBuf],
    found: Vec<String>,
    /// Programs and files that were looked at.
    seen: BTreeSet<PathBuf>,
}

impl Look<'_> {
    fn warn(&mut self, what: impl Into<String>) {
        self.found.push(what.into());
    }

    fn app(&mut self, app: &AppConfig) {
        for (name, source) in &app.sources {
            match source {
                Source::Files(files) => self.exists(&format!("source {name}"), &files.root, false),
                Source::Sqlite(sqlite) => self.exists(&format!("source {name}"), &sqlite.path, true),
                Source::Postgres(postgres) => {
                    self.secret("password_file", postgres.server.password_file.as_deref());
                    if let Some(dir) = &postgres.server.bin_dir {
                        self.exists(&format!("source {name}: bin_dir"), &dir.join("pg_dump"), true);
                    }
                }
                Source::Mariadb(mariadb) => {
                    self.secret("password_file", mariadb.server.password_file.as_deref());
                    if let Some(dir) = &mariadb.server.bin_dir {
                        self.exists(&format!("source {name}: bin_dir"), dir, false);
                    }
                }
                Source::Command(command) => {
                    let programs = std::iter::once(&command.run).chain(&command.restore);
                    programs.for_each(|argv| self.program(&format!("source {name}"), argv));
                }
            }
        }
        self.encryption(app.encryption.as_ref());
        self.same_file_names(app);
        let stopped = app.sources.values().flat_map(Source::stop);
        app.services.iter().chain(&app.freeze).chain(stopped).for_each(|service| self.service(service));
        app.reload.iter().for_each(|reload| self.program("reload", &reload.run));
        for check in &app.health {
            match check {
                HealthCheck::Http { token_file, .. } => self.secret("token_file", token_file.as_deref()),
                HealthCheck::Command { command, .. } => self.program("health", command),
            }
        }
        for check in &app.after_restore {
            match &check.ask {
                Ask::Http { token_file, .. } => self.secret("token_file", token_file.as_deref()),
                Ask::Command(command) => self.program("after_restore", command),
                Ask::Sql { .. } => {}
            }
        }
        match &app.version {
            Some(VersionFrom::Command(command)) => self.program("version", command),
            Some(VersionFrom::File(file)) => self.exists("version", file, true),
            Some(VersionFrom::Sql { .. }) | None => {}
        }
    }

    fn exists(&mut self, whose: &str, path: &Path, is_file: bool) {
        match path.metadata() {
            Err(error) => self.warn(format!("{whose}: {}: {}", of_path(path), reason(&error))),
            Ok(metadata) if is_file && !metadata.is_file() => {
                self.warn(format!("{whose}: {} is no file", of_path(path)));
            }
            Ok(_) => {}
        }
    }

    /// Two files of one name cannot stand at one place of the snapshot.
    fn same_file_names(&mut self, app: &AppConfig) {
        let mut places = BTreeSet::new();
        for (name, source) in &app.sources {
            if let Source::Files(files) = source
                && let Some(at) = &files.at
                && files.root.is_file()
            {
                let place = Path::new(at).join(files.root.file_name().unwrap_or_default());
                let what = format!("source {name}: another source stands at {} of the snapshot too", of_path(&place));
                if !places.insert(place) {
                    self.warn(what);
                }
            }
        }
    }

    fn service(&mut self, service: &Service) {
        if let ServiceKind::Commands { stop, start, status, freeze, thaw } = &service.kind {
            let all = [Some(stop), Some(start), status.as_ref(), freeze.as_ref(), thaw.as_ref()];
            all.into_iter().flatten().for_each(|argv| self.program(&format!("service {}", service.name), argv));
        }
    }

    fn program(&mut self, whose: &str, argv: &[String]) {
        let Some(program) = argv.first().map(PathBuf::from) else { return };
        if !self.seen.insert(program.clone()) {
            return;
        }
        let is_there = |path: &Path| path.metadata().is_ok_and(|found| found.is_file() && found.mode() & RUNNABLE != 0);
        if program.is_absolute() {
            if !is_there(&program) {
                self.warn(format!("{whose}: there is no program {}", of_path(&program)));
            }
        } else if !self.programs.iter().any(|dir| is_there(&dir.join(&program))) {
            self.warn(format!("{whose}: the program {} is not found on PATH", of_path(&program)));
        }
    }

    fn secret(&mut self, key: &str, file: Option<&Path>) {
        let Some(file) = file.filter(|file| self.seen.insert(file.to_path_buf())) else { return };
        match file.metadata() {
            Err(error) => self.warn(format!("{key}: {}: {}", of_path(file), reason(&error))),
            Ok(found) if found.mode() & OPEN_TO_OTHERS != 0 => {
                let mode = found.mode() & 0o7777;
                self.warn(format!("{key}: others can read {0} (mode {mode:o}): chmod 600 {0}", of_path(file)));
            }
            Ok(_) => {}
        }
    }

    fn encryption(&mut self, encryption: Option<&Encryption>) {
        let Some(encryption) = encryption else { return };
        if encryption.wants_keychain {
            self.warn("encryption: keychain: the key file is used in its place, not the kernel's key ring");
        }
        // One that is missing is made by the first encrypted backup.
        self.secret("key_file", encryption.key_file.as_deref().filter(|file| file.exists()));
        self.secret("identity_file", encryption.identity_file.as_deref());
        encryption.old_key_files.iter().for_each(|file| self.secret("old_key_files", Some(file)));
        match &encryption.password {
            Some(SecretFrom::File(file)) => self.secret("password_file", Some(file)),
            Some(SecretFrom::Command(argv)) => self.program("password_command", argv),
            Some(SecretFrom::Env(_) | SecretFrom::Credential(_)) | None => {}
        }
    }

    fn destination(&mut self, destination: &Destination) {
        let (name, dir) = (&destination.name, &destination.dir);
        match dir.metadata() {
            Err(_) if destination.require_mount => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.warn(format!("destination {name}: {} is not there; the first backup makes it", of_path(dir)));
            }
            Err(error) => self.warn(format!("destination {name}: {}: {}", of_path(dir), reason(&error))),
            Ok(found) if !found.is_dir() => self.warn(format!("destination {name}: {} is no directory", of_path(dir))),
            Ok(_) => {}
        }
        if destination.require_mount && !is_on_a_mount(dir) {
            self.warn(format!("destination {name}: no file system is mounted at {} or above it", of_path(dir)));
        }
    }
}

/// Whether a file system other than the root's is mounted at `dir` or above it.
fn is_on_a_mount(dir: &Path) -> bool {
    let Ok(mounts) = crate::mounts::Mounts::own() else { return false };
    let there = dir.ancestors().find_map(|above| above.canonicalize().ok());
    there.is_some_and(|there| there.ancestors().any(|at| at.parent().is_some() && mounts.is_mount_point(at)))
}
