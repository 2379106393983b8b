//! `lifeboat backup export` and `backup import`: one app as one file under a
//! password, and back.

use std::path::{Path, PathBuf};

use lifeboat_engine::app::{
    BackupRequest, Envelope, LiveRequest, Mode, SealRequest, Selection, Snapshot, Subject, shown,
};
use lifeboat_engine::{Error, ErrorKind, Result};

use super::backup::EnvelopeArg;
use super::restore::ModeArg;
use super::{Surface, backup, exit_code, render, restore_live};

const EXPORT_EXAMPLES: &str = "\
Examples:
  lifeboat backup export
      Ask for a password, and write APP-backup-DATE.tomo-backup where the app's backups go
  lifeboat backup export --output ./backup.enc --password-file ./secret.txt
  BACKUP_PATH=/mnt/backups lifeboat backup export";

const IMPORT_EXAMPLES: &str = "\
Examples:
  lifeboat backup import
      Choose one of the backups there are, and what is done with it
  lifeboat backup import ./backup.enc --mode merge --password-file ./secret.txt
      Add what is missing, and leave alone what is there
  lifeboat backup import ./backup.enc --mode full --force
      Replace all data, without asking
  lifeboat backup import ./backup.enc --only servers
      Only that part of the app
  lifeboat backup import --file ./backup.enc --new-password
      When it is restored, give the file another password";

/// Write an app into one file that a password protects
///
/// The password is asked for twice, unless --password-file or its like names one.
#[derive(clap::Args)]
#[command(after_help = EXPORT_EXAMPLES)]
pub(super) struct ExportArgs {
    /// The app of lifeboat.yaml, or files and directories; by default the only app
    #[arg(value_name = "APP|PATH")]
    subjects: Vec<PathBuf>,
    /// Write to FILE, or under a dated name into the directory FILE
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How to encrypt; by default as lifeboat.yaml says, if that is by a password, else aes-256-gcm
    #[arg(long, value_enum, value_name = "KIND")]
    envelope: Option<EnvelopeArg>,
    /// Show what would be done, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// Restore what `backup export` wrote
///
/// A restore in place: verified as a whole before anything live is touched, and rolled back when it
/// fails. Without --mode it asks; with --force, and no --mode, it replaces all data.
#[derive(clap::Args)]
#[command(after_help = IMPORT_EXAMPLES)]
pub(super) struct ImportArgs {
    /// The file; without it, one of the backups there are is chosen
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The same
    #[arg(long = "file", value_name = "FILE", conflicts_with = "file")]
    named: Option<PathBuf>,
    /// What is done with what exists
    #[arg(long, value_enum)]
    mode: Option<ModeArg>,
    /// Restore only this source or part, or what matches GLOB in it; may be repeated
    #[arg(long, value_name = "PART|SOURCE[/GLOB]")]
    only: Vec<String>,
    /// Of SQLite databases: only this table, and what it refers to; `*` stands for any letters; may be repeated
    #[arg(long, value_name = "[SOURCE.]TABLE")]
    tables: Vec<String>,
    /// Do not ask before existing things are overwritten, deleted or stopped
    #[arg(long)]
    force: bool,
    /// Use the services, checks and commands that the file carries, where this host has no lifeboat.yaml of its app
    #[arg(long)]
    trust_config: bool,
    /// Agree that a file that is not authenticated says where its content goes
    #[arg(long)]
    allow_unauthenticated: bool,
    /// Once it is restored, ask for another password and encrypt the file with that
    #[arg(long)]
    new_password: bool,
    /// The same, with the first line of FILE
    #[arg(long, value_name = "FILE", conflicts_with = "new_password")]
    new_password_file: Option<PathBuf>,
    /// Show what would be done, and write nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn export(args: &ExportArgs, surface: Surface<'_>) -> Result<u8> {
    let mut subjects = surface.app.subjects(&args.subjects)?;
    if subjects.len() != 1 {
        return Err(Error::new(ErrorKind::Usage, "one app is exported at a time, and there are several")
            .state("nothing was begun")
            .next("name the app"));
    }
    let subject = subjects.remove(0);
    let working_dir = super::working_dir()?;
    let app = match &subject {
        Subject::App(name) => surface.app.config.as_ref().and_then(|config| config.apps.get(name)),
        Subject::Paths(_) => None,
    };
    let configured = app.and_then(|app| app.encryption.as_ref()).map(|encryption| encryption.envelope);
    let by_password = configured.filter(|envelope| *envelope != Envelope::Openssl);
    let dir = app.and_then(|app| app.backup_dir.clone()).filter(|dir| dir.is_absolute());
    let request = BackupRequest {
        subject,
        only: Vec::new(),
        to: Vec::new(),
        bare: false,
        schema_only: false,
        format: None,
        // With a slash at its end it is a directory, also one that is not there yet.
        output: Some(args.output.clone().or(dir.map(|dir| dir.join(""))).unwrap_or_else(|| working_dir.clone())),
        compression: None,
        level: None,
        encryption: SealRequest {
            is_wanted: Some(true),
            envelope: Some(args.envelope.map_or(by_password.unwrap_or(Envelope::Gcm), EnvelopeArg::envelope)),
            recipients: Vec::new(),
            by_password: true,
        },
        selection: Selection::default(),
        verify_on_create: None,
        threads: None,
        working_dir,
    };
    backup::one(&request, args.dry_run, surface)
}

pub(super) fn import(args: &ImportArgs, surface: Surface<'_>) -> Result<u8> {
    let working_dir = super::working_dir()?;
    let archive = match args.file.as_ref().or(args.named.as_ref()) {
        Some(file) => surface.app.find_archive(file, None, &working_dir)?.path,
        None => choose(surface, &working_dir)?,
    };
    let unauthenticated = restore_live::accepts_lack(&archive, args.allow_unauthenticated, args.dry_run, surface)?;
    let asks = args.mode.is_none() && !args.force && !args.dry_run;
    let mode = match args.mode {
        Some(mode) => mode.mode(),
        None if asks => ask_mode(surface)?,
        None => Mode::Full,
    };
    let only = if asks && args.only.is_empty() && args.tables.is_empty() {
        ask_parts(&archive, surface)?
    } else {
        args.only.clone()
    };
    let request =
        LiveRequest { archive: archive.clone(), mode, only, tables: args.tables.clone(), ..LiveRequest::default() };
    let agreed = restore_live::Agreed { force: args.force, unauthenticated, config: args.trust_config };
    let code = restore_live::run(request, agreed, args.dry_run, surface)?;
    let changes = args.new_password || args.new_password_file.is_some();
    if !changes || args.dry_run || code != exit_code::DONE {
        return Ok(code);
    }
    surface.app.change_password(&archive, args.new_password_file.as_deref())?;
    if surface.console.options.json {
        surface.console.json("password_changed", &Changed { archive: render::path(&archive) });
    } else {
        let file = render::path(&archive);
        surface.console.info(format_args!("{file} has the new password; nothing else opens it"));
        surface.console.info("Next: where lifeboat.yaml or a script names the old password, change it there too");
    }
    Ok(code)
}

#[derive(serde::Serialize)]
struct Changed {
    archive: String,
}

/// One of the backups there are, by its number.
fn choose(surface: Surface<'_>, working_dir: &Path) -> Result<PathBuf> {
    let console = surface.console;
    let (all, errors) = surface.app.snapshots(None, working_dir);
    errors.iter().for_each(|error| console.warning(error));
    let nothing = |what: &str| {
        Err(Error::new(ErrorKind::Usage, what).state("nothing was begun").next("name the file: backup import FILE"))
    };
    if all.is_empty() {
        return nothing("there is no backup to choose from");
    }
    if !console.can_ask() {
        return nothing("no file was named, and nobody is there to choose one");
    }
    let line = |snapshot: &Snapshot| {
        let app = snapshot.app.as_deref().map_or_else(|| "-".to_owned(), |app| shown(app.as_bytes()));
        let path = render::path(render::path_from(&snapshot.path, working_dir));
        format!("{}  {:>10}  {app:<12}  {path}", render::moment(snapshot.created), render::size(snapshot.size_bytes))
    };
    // The newest first: it is what most want.
    let newest: Vec<&Snapshot> = all.iter().rev().collect();
    for (number, snapshot) in newest.iter().enumerate() {
        console.line(format_args!("{:>3}  {}", number + 1, line(snapshot)));
    }
    let answer = console.ask_text("Which one? [1]", surface.cancel)?;
    let number = if answer.is_empty() { Ok(1) } else { answer.parse::<usize>() };
    match number.ok().and_then(|number| newest.get(number.checked_sub(1)?)) {
        Some(chosen) => Ok(chosen.path.clone()),
        None => nothing("that is none of the numbers"),
    }
}

fn ask_mode(surface: Surface<'_>) -> Result<Mode> {
    let console = surface.console;
    let undecided = |what: &str| {
        Err(Error::new(ErrorKind::ConfirmationNeeded, what)
            .state("nothing was written, and nothing was stopped")
            .next("say --mode full or --mode merge; with --force nobody is asked"))
    };
    if !console.can_ask() {
        return undecided("nobody said whether all data is replaced or only what is missing added");
    }
    console.line("full: replace all data; merge: add what is missing, and leave alone what is there");
    match console.ask_text("Full or merge? [f/m]", surface.cancel)?.to_lowercase().as_str() {
        "f" | "full" => Ok(Mode::Full),
        "m" | "merge" => Ok(Mode::Merge),
        _ => undecided("that was neither full nor merge"),
    }
}

/// Which parts of the app, where it has any.
fn ask_parts(archive: &Path, surface: Surface<'_>) -> Result<Vec<String>> {
    let Some(head) = surface.app.head(archive)? else { return Ok(Vec::new()) };
    let app = surface.app.config.as_ref().and_then(|config| config.apps.get(&head.app));
    let parts: Vec<&str> = app.into_iter().flat_map(|app| app.parts.keys()).map(String::as_str).collect();
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    let question = format!("Everything, or only {}? [everything]", parts.join(" or "));
    let answer = surface.console.ask_text(&question, surface.cancel)?;
    let words = answer.split([',', ' ']).filter(|word| !word.is_empty() && *word != "everything");
    Ok(words.map(str::to_owned).collect())
}
