//! Giving a command back what it printed: outside of any transaction, as what a
//! program does cannot be undone. So it is asked for by itself, and agreed to.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use lifeboat_format::archive::Archive;
use lifeboat_format::record::Source;
use serde::Serialize;

use super::single;
use crate::config::{self, AppConfig, CommandSource};
use crate::exec::{Tool, command_line};
use crate::keys::Keys;
use crate::report::{Watch, as_seconds, as_shown};
use crate::{Error, ErrorKind, Result, lock};

const UNTOUCHED: &str = "nothing was run";

/// Give the command of one source what was backed up of it.
#[derive(Clone, Debug, Default)]
pub struct CommandRequest {
    /// The archive.
    pub archive: PathBuf,
    /// The source.
    pub source: String,
    /// Whether what may have been changed by somebody without the archive's key may be used.
    pub allow_unauthenticated: bool,
    /// Whether somebody agreed that it is run.
    pub agreed: bool,
    /// The app as the archive carries it, where this host has no configuration
    /// of it and somebody agreed to use what it says.
    pub trusted: Option<AppConfig>,
    /// How many workers; by default one for each core.
    pub threads: Option<usize>,
}

/// What would be run.
#[derive(Clone, Debug, Serialize)]
pub struct CommandPlan {
    /// The archive.
    #[serde(serialize_with = "as_shown")]
    pub archive: PathBuf,
    /// The application.
    pub app: String,
    /// The source.
    pub source: String,
    /// When the snapshot was made.
    pub created: Timestamp,
    /// The command, as a person would write it.
    pub command: String,
}

impl CommandPlan {
    /// What a person has to agree to.
    #[must_use]
    pub fn question(&self) -> String {
        format!("run {} with what was backed up; it cannot be undone", self.command)
    }
}

/// What was run.
#[derive(Clone, Debug, Serialize)]
pub struct CommandReport {
    /// What, and of which snapshot.
    #[serde(flatten)]
    pub plan: CommandPlan,
    /// Bytes that it was given.
    pub bytes: u64,
    /// How long it took.
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    pub elapsed: Duration,
}

/// The source that `only` names, if it is one of a command and nothing else is named.
pub(crate) fn source_of(archive: &Path, only: &[String], keys: Keys<'_>) -> Result<Option<String>> {
    let [only] = only else { return Ok(None) };
    let archive = super::open(archive, keys)?;
    let found = archive.head().and_then(|head| find(&head.sources, only));
    Ok(found.map(|source| source.name.clone()))
}

fn find<'a>(sources: &'a [Source], name: &str) -> Option<&'a Source> {
    sources.iter().find(|source| source.name == name && source.kind == "command" && source.details.failed.is_none())
}

/// What is needed to do it.
struct Ready<'a> {
    archive: Archive,
    plan: CommandPlan,
    source: &'a CommandSource,
    restore: &'a [String],
    /// The entry.
    path: String,
}

fn ready<'a>(request: &'a CommandRequest, keys: Keys<'a>) -> Result<Ready<'a>> {
    let archive = super::open(&request.archive, keys)?;
    super::check_authentic(&archive, request.allow_unauthenticated)?;
    let refuse = |what: String, next: &str| {
        Err(Error::new(ErrorKind::Usage, what)
            .state(UNTOUCHED)
            .next(format!("{next}; `lifeboat restore … --to DIR` writes it as a file")))
    };
    let name = &request.source;
    let Some((head, recorded)) = archive.head().and_then(|head| Some((head, find(&head.sources, name)?))) else {
        return refuse(format!("the snapshot holds no command {name}"), "look with `lifeboat backup list`");
    };
    // What only the archive says runs nothing, unless somebody trusts it.
    let app = keys.config.and_then(|config| config.apps.get(&head.app)).or(request.trusted.as_ref());
    let Some(config::Source::Command(source)) = app.and_then(|app| app.sources.get(name)) else {
        return refuse(format!("no command is configured for the source {name}"), "write it into lifeboat.yaml");
    };
    let Some(restore) = &source.restore else {
        return refuse(
            format!("the source {name} has no command that takes back what was backed up"),
            "write one as `restore` into lifeboat.yaml",
        );
    };
    let plan = CommandPlan {
        archive: request.archive.clone(),
        app: head.app.clone(),
        source: name.clone(),
        created: head.created,
        command: command_line(restore),
    };
    let path = recorded.place();
    Ok(Ready { archive, plan, source, restore, path })
}

/// What [`restore`] would run.
pub(crate) fn plan(request: &CommandRequest, keys: Keys<'_>) -> Result<CommandPlan> {
    ready(request, keys).map(|ready| ready.plan)
}

/// Runs it, when all of the archive was compared.
pub(crate) fn restore(
    request: &CommandRequest,
    keys: Keys<'_>,
    data_dir: &Path,
    watch: Watch<'_>,
) -> Result<CommandReport> {
    let began = Instant::now();
    let Ready { archive, plan, source, restore, path } = ready(request, keys)?;
    if !request.agreed {
        return Err(Error::new(ErrorKind::ConfirmationNeeded, format!("it would {}", plan.question()))
            .state(UNTOUCHED)
            .next("agree at a terminal, or add --force"));
    }
    let _lock = lock::take(data_dir, &lock::key(&plan.app, &[]))?;
    let bytes = single::with_entry(&archive, &path, data_dir, request.threads, watch, |entry| {
        let mut entry = single::open(entry)?;
        watch.cancel.check()?;
        let failed = |error: &dyn std::fmt::Display| {
            let kind = if watch.cancel.is_set() { ErrorKind::Cancelled } else { ErrorKind::Failed };
            Error::new(kind, format!("{}: {error}", plan.command))
                .state("what it did until then stays; Lifeboat changed nothing itself")
                .next("see what the program said; the same command gives it everything again")
        };
        let mut input = Tool::new(restore, source.timeout).sink(watch.cancel)?;
        let bytes = std::io::copy(&mut entry, &mut input).map_err(|error| failed(&error))?;
        input.finish().map_err(|error| failed(&error))?;
        Ok(bytes)
    });
    let bytes = bytes.map_err(|error| error.state(UNTOUCHED))?;
    Ok(CommandReport { plan, bytes, elapsed: began.elapsed() })
}
