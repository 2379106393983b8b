//! The one door for every surface: requests come in, reports go out. Each
//! method is one recipe of the engine.

use std::path::{Path, PathBuf};

use serde::Serialize;

pub use lifeboat_format::archive::verify::Verdict;
pub use lifeboat_format::model::{EntryKind, Outcome};
pub use lifeboat_format::path::{EntryPath, is_invisible, shown};
pub use lifeboat_format::record::{Head, Postgres, Record};

use crate::clock::Clock;
use crate::config::Carried;
pub use crate::config::{AppConfig, CheckedApp, Config, ConfigReport, DumpFormat, EffectiveConfig, Keep, SecretFrom};
pub use crate::destination::listing::Snapshot;
pub use crate::export::{ExportReport, ExportRequest, Take};
pub use crate::freeze::guard::run as run_guard;
pub use crate::freeze::{GuardProgram, LeftPaused, Pause};
use crate::keys::Keys;
use crate::keys::care::{self, Keeper};
pub use crate::keys::care::{
    AppKeys, KeyExport, KeyExported, KeyGenerate, KeyImport, KeyImported, KeyInfo, KeyMade, KeyRole, KeyRotated,
    SnapshotKeys, Unopened,
};
pub use crate::keys::{Envelope, Given, Keyring, Question, SealRequest, Secret};
pub use crate::overview::{AppStatus, Named, PlaceStatus};
pub use crate::presets::{InitReport, InitRequest, Preset};
pub use crate::report::{
    Action, BackupPlan, BackupReport, BackupRequest, CompressionKind, DatabaseReport, ExportedReport, FailedSource,
    LISTED_MAX, ListReport, PlanLine, PlannedDump, PlannedServer, PlannedSource, Problems, RestorePlan, RestoreReport,
    RestoreRequest, SealCheck, Selection, Shipped, Subject, VerifyReport, VerifyTold, Watch,
};
pub use crate::restore::command::{CommandPlan, CommandReport, CommandRequest};
pub use crate::restore::database::{DatabaseRequest, DatabaseRestored};
use crate::restore::inspect::Origin;
use crate::restore::live::{self, Host};
pub use crate::restore::live::{
    Consent, Counts, Decision, Kept, LivePlan, LiveReport, LiveRequest, MergedDatabase, Mode, NotRestored,
    PlannedDatabase, PlannedRoot, PlannedService, PlannedSpace, PlannedVersion, Prepared, Recovered, Undo, User,
    Waiting,
};
pub use crate::runs::LastRun;
pub use crate::services::{Found, How};
pub use crate::size::{size, size_of};
pub use crate::sqlite::MergedTable;
use crate::{Cancel, Error, ErrorKind, Problem, ProblemClass, Result, backup, freeze, lock, overview, runs};

/// The engine as a surface sees it.
pub struct App<'a> {
    /// What time it is.
    pub clock: &'a dyn Clock,
    /// Where journals and locks are.
    pub data_dir: PathBuf,
    /// What the user configured, if anything.
    pub config: Option<Config>,
    /// Where drop-ins for units of systemd go.
    pub systemd_dir: PathBuf,
    /// Where a plan may try something out; nothing is left there.
    pub temp_dir: PathBuf,
    /// How the guard of paused services is started.
    pub guard: GuardProgram,
    /// Passwords and keys.
    pub keys: Keyring,
}

/// What waits or is kept on this host.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Interrupted restores.
    pub waiting: Vec<Waiting>,
    /// Services that a backup pauses, or has left paused.
    pub paused: Vec<LeftPaused>,
    /// What restores replaced.
    pub kept: Vec<Kept>,
    /// The configured apps.
    pub apps: Vec<AppStatus>,
}

/// What a snapshot says of an app that this host has no configuration of.
#[derive(Clone, Debug)]
pub struct CarriedApp {
    /// One line for each thing in it that would act on this host.
    pub acts: Vec<String>,
    /// Whether it is certain that somebody with the archive's key wrote it.
    pub is_genuine: bool,
    /// The app, for [`LiveRequest::trusted`].
    pub app: AppConfig,
}

impl App<'_> {
    fn host(&self) -> Host<'_> {
        Host {
            clock: self.clock,
            data_dir: &self.data_dir,
            config: self.config.as_ref(),
            keys: self.keys(),
            systemd_dir: &self.systemd_dir,
            temp_dir: &self.temp_dir,
            id: lifeboat_store::durable::random_hex(),
        }
    }

    fn ground(&self) -> backup::Ground<'_> {
        let (config, data_dir) = (self.config.as_ref(), self.data_dir.as_path());
        backup::Ground { clock: self.clock, config, data_dir, keys: self.keys(), guard: &self.guard }
    }

    fn keys(&self) -> Keys<'_> {
        Keys { ring: &self.keys, config: self.config.as_ref() }
    }

    /// What `words` of a command line mean: the names of configured apps, and
    /// paths, which are one subject together. None: all apps.
    ///
    /// # Errors
    /// When there is nothing of such a name, or no app at all.
    pub fn subjects(&self, words: &[PathBuf]) -> Result<Vec<Subject>> {
        backup::subjects(words, self.config.as_ref())
    }

    /// Backs up an app, or paths, into one archive.
    ///
    /// # Errors
    /// When no archive was made. An archive with problems is a report.
    pub fn backup(&self, request: &BackupRequest, watch: Watch<'_>) -> Result<BackupReport> {
        let began = self.clock.timestamp();
        let done = self.locked_backup(request, watch);
        if let Subject::App(app) = &request.subject {
            // That a part went well says nothing of the whole.
            if (request.only.is_empty() && !request.schema_only) || done.is_err() {
                runs::note_backup(&self.data_dir, app, began, self.clock.timestamp(), &done);
            }
        }
        done
    }

    fn locked_backup(&self, request: &BackupRequest, watch: Watch<'_>) -> Result<BackupReport> {
        let (app, roots) = backup::app_and_roots(request, self.config.as_ref(), &backup::host());
        let is_configured = self.config.as_ref().is_some_and(|config| config.apps.contains_key(&app));
        let key = lock::key(&app, if is_configured { &[] } else { &roots });
        let thawed = self.thaw_left();
        let recovered = live::before_a_run(&self.host(), &roots, None, watch)?;
        let _lock = match lock::share(&self.data_dir, &key) {
            Err(error) if error.kind() == ErrorKind::Locked => return Err(error),
            // Who cannot write there has no restore of his own to keep out.
            lock => lock.ok(),
        };
        let mut report = backup::backup(&self.ground(), request, watch)?;
        report.recovered = recovered;
        match thawed {
            Ok(thawed) => report.thawed = thawed,
            // It keeps nobody from a backup, but it is never passed over.
            Err(error) => report.problems.add(stands_still(&error), watch.monitor),
        }
        Ok(report)
    }

    /// What [`App::backup`] would do. Lists everything and writes nothing.
    ///
    /// # Errors
    /// As [`App::backup`], as far as that can be known before.
    pub fn plan_backup(&self, request: &BackupRequest, watch: Watch<'_>) -> Result<BackupPlan> {
        backup::plan(&self.ground(), request, watch)
    }

    /// The manifest's head of an archive; `None` for a foreign tar.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub fn head(&self, archive: &Path) -> Result<Option<Head>> {
        crate::restore::inspect::head(archive, self.keys())
    }

    /// Why the encrypted archive at `archive` may have been changed by somebody
    /// without its key; `None` where that would show, or it is not encrypted.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub fn lacks_hmac(&self, archive: &Path) -> Result<Option<String>> {
        crate::restore::lacks_hmac_at(archive, self.keys())
    }

    /// Tells `each` of every entry of an archive, from its manifest alone.
    ///
    /// # Errors
    /// When the archive cannot be read or `each` returns one.
    pub fn list(
        &self,
        archive: &Path,
        cancel: &Cancel,
        each: &mut dyn FnMut(&EntryPath, &Record) -> Result<()>,
    ) -> Result<ListReport> {
        crate::restore::inspect::list(archive, self.keys(), cancel, each)
    }

    /// Gives an encrypted archive another password: the first line of `file`,
    /// else one that a person types. It is read back before it takes its place.
    ///
    /// # Errors
    /// When it was not done; the archive is then as it was.
    pub fn change_password(&self, archive: &Path, file: Option<&Path>) -> Result<()> {
        crate::keys::change_password(self.keys(), archive, file)
    }

    /// How an archive is encrypted, for people; `None` where it is not.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub fn seal_of(&self, archive: &Path) -> Result<Option<String>> {
        crate::restore::inspect::seal_at(archive, self.keys())
    }

    /// Reads all of an archive, and tells of its envelope, its head and every file.
    ///
    /// # Errors
    /// When the archive does not open or its manifest is damaged.
    pub fn verify(
        &self,
        archive: &Path,
        threads: Option<usize>,
        watch: Watch<'_>,
        told: &mut VerifyTold<'_>,
    ) -> Result<VerifyReport> {
        crate::restore::inspect::verify(archive, self.keys(), threads, watch, told)
    }

    /// What [`App::restore_to`] would do; tells `each` of every entry. Writes nothing.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub fn plan_restore_to(
        &self,
        request: &RestoreRequest,
        cancel: &Cancel,
        each: &mut dyn FnMut(PlanLine) -> Result<()>,
    ) -> Result<RestorePlan> {
        crate::restore::plan_to(request, self.keys(), cancel, each)
    }

    /// Restores an archive into a directory: all of it, or nothing.
    ///
    /// # Errors
    /// When nothing was restored; the target is then as it was.
    pub fn restore_to(&self, request: &RestoreRequest, watch: Watch<'_>) -> Result<RestoreReport> {
        crate::restore::restore_to(request, self.keys(), watch)
    }

    /// Restores one database under another name.
    ///
    /// # Errors
    /// When it was not restored; no other database was touched then.
    pub fn restore_database(&self, request: &DatabaseRequest, watch: Watch<'_>) -> Result<DatabaseRestored> {
        crate::restore::database::restore(request, self.keys(), &self.data_dir, watch)
    }

    /// Whether [`App::restore_database`] would run SQL from the archive.
    ///
    /// # Errors
    /// When the archive cannot be read, or the request does not fit it.
    pub fn is_script(&self, request: &DatabaseRequest) -> Result<bool> {
        crate::restore::database::is_script(request, self.keys())
    }

    /// Asks a query of the configuration; its answer goes to a file, or piece by
    /// piece to `take`.
    ///
    /// # Errors
    /// When there is no such query, it could not be asked, or its answer would
    /// hold what is secret.
    pub fn export(&self, request: &ExportRequest, take: Take<'_>, cancel: &Cancel) -> Result<ExportReport> {
        crate::export::export(request, self.config.as_ref(), take, cancel)
    }

    /// The source that `only` names, if it is one of a command and nothing else
    /// is named: that one is restored by [`App::restore_command`].
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub fn command_source(&self, archive: &Path, only: &[String]) -> Result<Option<String>> {
        crate::restore::command::source_of(archive, only, self.keys())
    }

    /// What [`App::restore_command`] would run.
    ///
    /// # Errors
    /// When there is no such command.
    pub fn plan_command(&self, request: &CommandRequest) -> Result<CommandPlan> {
        crate::restore::command::plan(request, self.keys())
    }

    /// Gives the command of one source what was backed up of it.
    ///
    /// # Errors
    /// When nobody agreed, or the command failed: what it did until then stays.
    pub fn restore_command(&self, request: &CommandRequest, watch: Watch<'_>) -> Result<CommandReport> {
        crate::restore::command::restore(request, self.keys(), &self.data_dir, watch)
    }

    /// What a restore in place would do; tells `each` of every line. Writes nothing at all.
    ///
    /// # Errors
    /// When the archive cannot be read, or it could not be done.
    pub fn plan_restore(
        &self,
        request: &LiveRequest,
        watch: Watch<'_>,
        each: &mut dyn FnMut(PlanLine) -> Result<()>,
    ) -> Result<LivePlan> {
        live::plan_only(request, &self.host(), watch, each)
    }

    /// Locks the app, ends what a crash interrupted there, and makes the plan
    /// of a restore in place, to be agreed to and applied.
    ///
    /// # Errors
    /// As [`App::plan_restore`], and when the plan cannot be carried out.
    pub fn prepare_restore(
        &self,
        request: LiveRequest,
        watch: Watch<'_>,
        each: &mut dyn FnMut(PlanLine) -> Result<()>,
    ) -> Result<Prepared<'_>> {
        live::prepare(request, self.host(), watch, each)
    }

    /// Lets services go on that a backup left paused, because the machine was
    /// restarted or its guard was killed too.
    ///
    /// # Errors
    /// When one could not be made to go on, with the command that does it.
    pub fn thaw_left(&self) -> Result<Vec<LeftPaused>> {
        freeze::recover(&self.data_dir)
    }

    /// Ends everything that a crash interrupted.
    ///
    /// # Errors
    /// When something could not be ended.
    pub fn recover(&self, watch: Watch<'_>) -> Result<Vec<Recovered>> {
        live::recover(&self.host(), watch)
    }

    /// Does what a person decided about an interrupted restore.
    ///
    /// # Errors
    /// As a restore.
    pub fn decide(&self, decision: Decision, id: Option<&str>, watch: Watch<'_>) -> Result<Recovered> {
        live::decide(&self.host(), decision, id, watch)
    }

    /// Prepares to put back what a restore replaced.
    ///
    /// # Errors
    /// When nothing, or more than one thing, could be meant.
    pub fn undo_restore(&self, id: Option<&str>, watch: Watch<'_>) -> Result<Undo<'_>> {
        live::undo(self.host(), id, watch)
    }

    /// Keeps for ever what a restore replaced.
    ///
    /// # Errors
    /// As [`App::undo_restore`].
    pub fn keep_replaced(&self, id: Option<&str>) -> Result<Kept> {
        live::keep(&self.host(), id)
    }

    /// Removes what a restore replaced.
    ///
    /// # Errors
    /// As [`App::undo_restore`].
    pub fn discard_replaced(&self, id: Option<&str>) -> Result<Kept> {
        live::discard(&self.host(), id)
    }

    /// What waits, what is kept, and how `app` does, or all apps. Changes nothing.
    ///
    /// # Errors
    /// When the data directory cannot be read, or there is no such app.
    pub fn status(&self, app: Option<&str>, working_dir: &Path) -> Result<Status> {
        Ok(Status {
            waiting: live::waiting(&self.data_dir)?,
            paused: freeze::waiting(&self.data_dir)?,
            kept: live::kept(&self.data_dir)?,
            apps: overview::status(self.config.as_ref(), app, working_dir, &self.data_dir)?,
        })
    }

    /// What a crash interrupted and nobody works on just now.
    #[must_use]
    pub fn waiting(&self) -> Vec<Waiting> {
        live::waiting(&self.data_dir).unwrap_or_default()
    }

    /// All snapshots in the places of `app`, or of all apps; without
    /// configuration those in `working_dir`. Also what could not be listed.
    #[must_use]
    pub fn snapshots(&self, app: Option<&str>, working_dir: &Path) -> (Vec<Snapshot>, Vec<String>) {
        overview::snapshots(self.config.as_ref(), app, working_dir, &self.data_dir)
    }

    /// The archive that `wanted` names: a file, an id or the beginning of one, or `latest`.
    ///
    /// # Errors
    /// When there is none, or several could be meant.
    pub fn find_archive(&self, wanted: &Path, app: Option<&str>, working_dir: &Path) -> Result<Named> {
        overview::find(wanted, app, self.config.as_ref(), (working_dir, &self.data_dir))
    }

    /// The configuration that an archive carries of its app, where this host
    /// has none of it.
    ///
    /// # Errors
    /// When the archive cannot be read, or what it carries makes no sense.
    pub fn carried(&self, archive: &Path) -> Result<Option<CarriedApp>> {
        let found = crate::restore::inspect::head_and_origin(archive, self.keys())?;
        let Some((head, origin)) = found else { return Ok(None) };
        if let Origin::Doubtful = origin {
            return Ok(None);
        }
        let is_known = self.config.as_ref().is_some_and(|config| config.apps.contains_key(&head.app));
        if is_known {
            return Ok(None);
        }
        let carried = live::carried(&head)?;
        let parse = |carried: Carried| {
            let is_genuine = matches!(origin, Origin::Genuine);
            Ok(CarriedApp { acts: carried.acts(), is_genuine, app: carried.into_app(&head.app)? })
        };
        carried.map(parse).transpose()
    }

    fn keeper<'s>(&'s self, working_dir: &'s Path, cancel: &'s Cancel) -> Keeper<'s> {
        Keeper { keys: self.keys(), data_dir: &self.data_dir, working_dir, now: self.clock.now(), cancel }
    }

    /// Makes a key; `working_dir` is where backups are of apps that have no place for them.
    ///
    /// # Errors
    /// When there is one already, or the place is none for a key.
    pub fn generate_key(&self, request: &KeyGenerate, working_dir: &Path, cancel: &Cancel) -> Result<KeyMade> {
        self.keeper(working_dir, cancel).generate(request)
    }

    /// The keys of an app, or of all; also which backups they open, where `counts`.
    ///
    /// # Errors
    /// When there is no such app, or on cancel.
    pub fn show_keys(
        &self,
        app: Option<&str>,
        counts: bool,
        working_dir: &Path,
        cancel: &Cancel,
    ) -> Result<Vec<AppKeys>> {
        self.keeper(working_dir, cancel).show(app, counts)
    }

    /// Copies a key away: into a file, or as a page to `take`.
    ///
    /// # Errors
    /// When there is none, or the place is none for a key.
    pub fn export_key(&self, request: &KeyExport, take: Take<'_>, cancel: &Cancel) -> Result<KeyExported> {
        self.keeper(Path::new(""), cancel).export(request, take)
    }

    /// Brings a key to where the configuration of its app wants it.
    ///
    /// # Errors
    /// When it is none, another is there, or it opens nothing.
    pub fn import_key(&self, request: &KeyImport, working_dir: &Path, cancel: &Cancel) -> Result<KeyImported> {
        self.keeper(working_dir, cancel).import(request)
    }

    /// Lets a new key take the place of an app's key, which is kept beside it.
    ///
    /// # Errors
    /// When there is none, or it cannot be written; the old one is in its place then.
    pub fn rotate_key(&self, app: Option<&str>, working_dir: &Path, cancel: &Cancel) -> Result<KeyRotated> {
        self.keeper(working_dir, cancel).rotate(app)
    }

    /// Keys that are used from where the backups are, one line each.
    #[must_use]
    pub fn misplaced_keys(&self) -> Vec<String> {
        care::misplaced(self.keys())
    }

    /// The configuration is sound; says what it holds, and what would fail on
    /// this host. `programs` are the directories in which programs are looked
    /// for. Changes nothing and runs nothing.
    ///
    /// # Errors
    /// When there is none.
    pub fn check_config(&self, programs: &[PathBuf]) -> Result<ConfigReport> {
        Ok(crate::config::look(self.configured()?, programs))
    }

    /// The configuration as it takes effect, without secrets.
    ///
    /// # Errors
    /// When there is none.
    pub fn show_config(&self) -> Result<EffectiveConfig> {
        Ok(EffectiveConfig::of(self.configured()?, &self.data_dir))
    }

    fn configured(&self) -> Result<&Config> {
        self.config.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::Usage, "there is no configuration")
                .state("nothing was changed")
                .next("write one with `lifeboat init --preset NAME`, or name it with --config FILE")
        })
    }

    /// The JSON Schema of `lifeboat.yaml`.
    #[must_use]
    pub fn config_schema(&self) -> serde_json::Value {
        crate::config::schema()
    }

    /// The configurations that come with Lifeboat.
    #[must_use]
    pub fn presets(&self) -> &'static [Preset] {
        crate::presets::PRESETS
    }

    /// The one called `name`.
    ///
    /// # Errors
    /// When there is none; it names those that there are.
    pub fn preset(&self, name: &str) -> Result<&'static Preset> {
        crate::presets::find(name)
    }

    /// Writes the configuration of a preset, or only says what it would be.
    ///
    /// # Errors
    /// When there is no such preset, the file exists, or it cannot be written.
    pub fn init(&self, request: &InitRequest) -> Result<InitReport> {
        crate::presets::init(request)
    }
}

fn stands_still(error: &Error) -> Problem {
    let next = error.next_step().map(|next| format!(": {next}")).unwrap_or_default();
    Problem::new(ProblemClass::StandsStill, b"an earlier backup", format!("{error}{next}"))
}

/// Reads `lifeboat.yaml` at `path`.
///
/// # Errors
/// When it cannot be read, is open to others, or does not make sense.
pub fn load_config(path: &Path) -> Result<Config> {
    Config::load(path)
}

/// How long something is kept: `7d`, `12h`, `0s`, `forever`.
///
/// # Errors
/// When it is none of these.
pub fn parse_keep(text: &str) -> Result<Keep> {
    text.parse().map_err(|_| Error::new(ErrorKind::Usage, format!("\"{text}\" is no duration")))
}
