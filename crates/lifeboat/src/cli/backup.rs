//! `lifeboat backup`: paths into one archive, and what looks into archives.

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use lifeboat_engine::app::{
    BackupPlan, BackupReport, BackupRequest, CompressionKind, DumpFormat, Envelope, FailedSource, How, PlannedServer,
    SealRequest, Selection, Shipped, Subject, shown,
};
use lifeboat_engine::{Error, ErrorKind, Result};

use super::error::Message;
use super::{Surface, exit_code, list, render, restore_live, transfer, verify};

const STATE: &str = "no archive was made; what was to be backed up is as it was";

const USAGE: &str = "\
lifeboat backup [OPTIONS] [APP|PATH]...
       lifeboat backup list [OPTIONS] [ARCHIVE|ID]
       lifeboat backup verify [OPTIONS] [ARCHIVE|ID|APP]
       lifeboat backup export [OPTIONS] [APP|PATH]...
       lifeboat backup import [OPTIONS] [FILE]";

const EXAMPLES: &str = "\
Examples:
  lifeboat backup /srv/app
      Write app-backup-DATE.tar.zst into the current directory
  lifeboat backup /srv/app /etc/app.conf --output /mnt/backups/app.tar.gz
      Several paths into one archive; the suffix chooses gzip
  lifeboat backup . --exclude '*.log' --exclude cache/
      Leave out logs and every directory named cache
  lifeboat backup web
      The app `web` of lifeboat.yaml, with all of its sources; without a name: all apps
  lifeboat backup web --only db
      One source of it; such a snapshot is never taken for a whole one
  lifeboat backup web --only db --bare --output web.db
      One database as it is: SQLite's file, or what pg_dump writes (web.dump, web.sql)
  lifeboat backup web --schema-only
      The structure of its PostgreSQL databases, without any rows
  lifeboat backup /srv/app --encrypt
      Encrypt the archive with a password, which is asked for twice; `age -d` opens it too
  lifeboat backup /srv/app --recipient age1…
      Encrypt it so that this machine cannot read it again; the identity of that recipient opens it
  lifeboat backup /srv/app --dry-run
      Show what would be backed up and where it would go, and write nothing
  lifeboat backup list app-backup-2026-02-24.tar.zst
  lifeboat backup verify app-backup-2026-02-24.tar.zst

A directory that is named like an app or a subcommand is given as ./list.";

/// Back up apps, or files and directories, into archives, or look into an archive
///
/// The archive is a tar file, compressed with zstd or gzip, that stock tools open. Its first entry,
/// manifest.json, holds the SHA-256 of every file. An existing file is never overwritten. Patterns
/// are those of .gitignore files, relative to each PATH.
#[derive(clap::Args)]
#[command(subcommand_negates_reqs = true, override_usage = USAGE, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Apps of lifeboat.yaml, or files and directories; none: all apps
    #[arg(value_name = "APP|PATH")]
    subjects: Vec<PathBuf>,
    /// Of an app: only this source; may be repeated
    #[arg(long, value_name = "SOURCE")]
    only: Vec<String>,
    /// Of an app: only to this destination; may be repeated
    #[arg(long, value_name = "DESTINATION", conflicts_with = "output")]
    to: Vec<String>,
    /// With --only SOURCE: one database as it is, a SQLite file or what pg_dump writes, instead of an archive
    #[arg(long, requires = "only")]
    bare: bool,
    /// Of an app: only the structure of its PostgreSQL databases, without any rows, as SQL
    #[arg(long, conflicts_with = "format")]
    schema_only: bool,
    /// How PostgreSQL databases are dumped; by default as lifeboat.yaml says
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
    /// Write the archive to FILE, or under a dated name into the directory FILE
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How to compress; by default what the suffix of FILE says, else zstd
    #[arg(long, value_enum, value_name = "KIND")]
    compression: Option<Compression>,
    /// How hard to compress: 1 to 19 for zstd (default 3), 1 to 9 for gzip (default 6)
    #[arg(long, value_name = "N")]
    compression_level: Option<u8>,
    /// Encrypt the archive; by default as lifeboat.yaml says. With a password, unless recipients are known
    #[arg(long, help_heading = "Encryption")]
    encrypt: bool,
    /// Do not encrypt it, whatever lifeboat.yaml says
    #[arg(long, help_heading = "Encryption", conflicts_with_all = ["encrypt", "envelope", "recipient"])]
    no_encrypt: bool,
    /// How to encrypt
    #[arg(long, value_enum, value_name = "KIND", help_heading = "Encryption")]
    envelope: Option<EnvelopeArg>,
    /// Encrypt to this recipient of age (age1…); may be repeated
    #[arg(long, value_name = "RECIPIENT", help_heading = "Encryption")]
    recipient: Vec<String>,
    /// Leave out what matches PATTERN; wins over --include
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Leave out what matches a line of FILE; empty lines and those that begin with # do not count
    #[arg(long, value_name = "FILE")]
    exclude_file: Vec<PathBuf>,
    /// Take only what matches PATTERN
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Back up device nodes too
    #[arg(long)]
    devices: bool,
    /// Leave out directories on other file systems
    #[arg(long)]
    one_file_system: bool,
    /// Do not read the new archive back
    #[arg(long)]
    no_verify_on_create: bool,
    /// How many workers; by default one for each core
    #[arg(long, value_name = "N", value_parser = super::threads())]
    threads: Option<usize>,
    /// Show what would be done, and write nothing
    #[arg(long)]
    dry_run: bool,
    #[command(subcommand)]
    command: Option<Look>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Compression {
    Zstd,
    Gzip,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum EnvelopeArg {
    /// `age -d` opens it
    Age,
    /// `openssl enc -d` opens it; needs a key file
    Openssl,
    /// AES-256-GCM with a password
    #[value(name = "aes-256-gcm")]
    Gcm,
}

impl EnvelopeArg {
    pub(super) fn envelope(self) -> Envelope {
        match self {
            Self::Age => Envelope::Age,
            Self::Openssl => Envelope::Openssl,
            Self::Gcm => Envelope::Gcm,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// What pg_restore reads
    Custom,
    /// SQL
    Plain,
}

#[derive(Subcommand)]
enum Look {
    List(list::Args),
    Verify(verify::Args),
    Export(transfer::ExportArgs),
    Import(transfer::ImportArgs),
}

impl Args {
    /// Whether there is anything that only a backup can mean.
    fn has_options(&self) -> bool {
        let flags = [
            self.devices,
            self.one_file_system,
            self.no_verify_on_create,
            self.dry_run,
            self.bare,
            self.schema_only,
            self.encrypt,
            self.no_encrypt,
        ];
        let values = [
            self.output.is_some(),
            self.compression.is_some(),
            self.compression_level.is_some(),
            self.format.is_some(),
            self.envelope.is_some(),
        ];
        let lists = [&self.exclude, &self.include, &self.only, &self.to, &self.recipient].map(Vec::is_empty);
        let lists = [lists.contains(&false), !self.exclude_file.is_empty()];
        flags.contains(&true) || values.contains(&true) || lists.contains(&true) || self.threads.is_some()
    }
}

pub(crate) fn run(args: &Args, surface: Surface<'_>) -> Result<u8> {
    match &args.command {
        Some(_) if args.has_options() => {
            Err(Error::new(ErrorKind::Usage, "the options before a subcommand are those of a backup")
                .state("nothing was begun")
                .next("leave them out; a directory of that name is given as ./list, ./verify, ./export or ./import"))
        }
        Some(Look::List(args)) => {
            surface.tell_waiting();
            list::run(args, surface)
        }
        Some(Look::Verify(args)) => {
            surface.tell_waiting();
            verify::run(args, surface)
        }
        Some(Look::Export(args)) => transfer::export(args, surface),
        Some(Look::Import(args)) => transfer::import(args, surface),
        None => {
            let subjects = surface.app.subjects(&args.subjects)?;
            if subjects.len() > 1 && args.output.as_ref().is_some_and(|output| !output.is_dir()) {
                return Err(Error::new(ErrorKind::Usage, "--output names one archive, and there would be several")
                    .state(STATE)
                    .next("name one app, or give --output a directory"));
            }
            if args.dry_run {
                surface.tell_waiting();
            }
            let mut codes = Vec::new();
            for subject in subjects {
                let request = request(args, subject)?;
                let done = one(&request, args.dry_run, surface);
                codes.push(match done {
                    Ok(code) => code,
                    Err(error)
                        if error.kind() == ErrorKind::Cancelled || codes.is_empty() && is_last(args, surface) =>
                    {
                        return Err(error);
                    }
                    // The other apps are backed up all the same.
                    Err(error) => surface.console.failed(&error, None),
                });
            }
            Ok(exit_code::worst(&codes))
        }
    }
}

/// One subject: backed up, or only planned.
pub(super) fn one(request: &BackupRequest, dry_run: bool, surface: Surface<'_>) -> Result<u8> {
    if dry_run { plan(request, surface) } else { back_up(request, surface) }
}

fn is_last(args: &Args, surface: Surface<'_>) -> bool {
    surface.app.subjects(&args.subjects).is_ok_and(|subjects| subjects.len() == 1)
}

fn request(args: &Args, subject: Subject) -> Result<BackupRequest> {
    let mut exclude = args.exclude.clone();
    for file in &args.exclude_file {
        exclude.extend(patterns(file)?);
    }
    let working_dir = super::working_dir()?;
    let compression = args.compression.map(|kind| match kind {
        Compression::Zstd => CompressionKind::Zstd,
        Compression::Gzip => CompressionKind::Gzip,
    });
    Ok(BackupRequest {
        subject,
        only: args.only.clone(),
        to: args.to.clone(),
        bare: args.bare,
        schema_only: args.schema_only,
        format: args.format.map(|format| match format {
            Format::Custom => DumpFormat::Custom,
            Format::Plain => DumpFormat::Plain,
        }),
        output: args.output.clone(),
        compression,
        level: args.compression_level,
        encryption: SealRequest {
            is_wanted: if args.no_encrypt { Some(false) } else { args.encrypt.then_some(true) },
            envelope: args.envelope.map(EnvelopeArg::envelope),
            recipients: args.recipient.clone(),
            by_password: false,
        },
        selection: Selection {
            include: args.include.clone(),
            exclude,
            devices: args.devices,
            one_file_system: args.one_file_system,
        },
        verify_on_create: args.no_verify_on_create.then_some(false),
        threads: args.threads,
        working_dir,
    })
}

/// The patterns in a file, one a line. White space may belong to a name: only
/// lines without anything else count as empty.
fn patterns(file: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Error::new(ErrorKind::Usage, format!("could not read the patterns in {}: {error}", file.display()))
            .state(STATE)
            .next("give --exclude-file a text file that can be read")
    })?;
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

fn back_up(request: &BackupRequest, surface: Surface<'_>) -> Result<u8> {
    let report = surface.app.backup(request, surface.watch()).map_err(|error| error.state(STATE))?;
    surface.console.end_progress();
    // What was interrupted at these paths is ended by now; what is left is another app's.
    surface.tell_waiting();
    if surface.console.options.json {
        surface.console.json("summary", &report);
    } else {
        super::recover::thawed(&report.thawed, surface);
        restore_live::recovered(&report.recovered, surface);
        render_report(&report, request, surface);
    }
    let code = incomplete(&report, request).map_or(exit_code::DONE, |message| surface.console.message(&message));
    if let Some(line) = &report.unexported_key {
        surface.console.warning(line);
    }
    Ok(code)
}

fn render_report(report: &BackupReport, request: &BackupRequest, surface: Surface<'_>) {
    let console = surface.console;
    let archive = render::path_from(&report.archive, &request.working_dir);
    let files = render::count(report.files, "file");
    console.info(format_args!(
        "Backup written to {} ({}, {files})",
        render::path(archive),
        render::size(report.size_bytes)
    ));
    console.info(format_args!(
        "content: {} in {} ({})",
        render::size(report.bytes),
        render::duration(report.elapsed),
        render::rate(report.bytes, report.elapsed)
    ));
    if let Some(envelope) = report.envelope {
        console.info(format_args!("encrypted: {envelope}"));
    }
    console.info(if report.verified {
        "verified: every file read back and its sum compared"
    } else {
        "not verified: `lifeboat backup verify` reads it back and compares every sum"
    });
    for database in &report.databases {
        let (tables, rows) = (render::count(database.tables, "table"), render::count(database.rows, "row"));
        let size = render::size(database.size_bytes);
        let without = database.excluded_tables.join(", ");
        let without =
            if without.is_empty() { without } else { format!("; without the rows of {}", shown(without.as_bytes())) };
        let about = if database.is_estimated { "about " } else { "" };
        let (name, end) = match &database.database {
            Some(name) => (format!("{}/{}", database.source, shown(name.as_bytes())), "dumped"),
            None => (database.source.clone(), "checked"),
        };
        if database.is_schema_only {
            console.info(format_args!("database {name}: {size}, its structure alone, {end}"));
            continue;
        }
        console.info(format_args!("database {name}: {size}, {tables}, {about}{rows}, {end}{without}"));
    }
    for export in &report.exports {
        let (rows, size) = (render::count(export.rows, "row"), render::size(export.size_bytes));
        console.info(format_args!("export {}: {size}, {rows}", shown(export.name.as_bytes())));
    }
    for pause in &report.pauses {
        let how = if pause.how == How::Stopped { "stopped" } else { "paused" };
        console.info(format_args!("{how}: {} for {}", pause.service, render::duration(pause.pause)));
    }
    left_out(report.excluded, report.own_archives, report.withheld, "were", surface);
    database_logs(report.database_logs, "were", surface);
    shipped(&report.shipped, "also in", surface);
    failed_sources(&report.failed_sources, surface);
    if let Some(problems) = render::problems(&report.problems) {
        console.info(format_args!("problems: {problems}"));
    }
    console.info(format_args!("snapshot: {}", report.id.get(..8).unwrap_or(&report.id)));
    console.info(format_args!(
        "Next: lifeboat restore {} --to DIR   to get it back elsewhere",
        render::shell_path(archive)
    ));
}

/// What was not taken, on purpose; `were` is the tense.
fn left_out(excluded: u64, own_archives: u64, withheld: u64, were: &str, surface: Surface<'_>) {
    if excluded > 0 {
        surface.console.info(format_args!("excluded: {} by patterns", render::count(excluded, "entry")));
    }
    if withheld > 0 {
        let entries = render::count(withheld, "entry");
        surface.console.info(format_args!(
            "left out without being asked: {entries} (keys, databases of their own, what is Lifeboat's or was replaced)"
        ));
    }
    let were = if own_archives == 1 && were == "were" { "was" } else { were };
    if own_archives > 0 {
        let archives = render::count(own_archives, "archive");
        surface.console.info(format_args!("{archives} of ours in the output directory {were} left out"));
    }
}

/// What became of the archive at each destination; the first is told already.
fn shipped(all: &[Shipped], also: &str, surface: Surface<'_>) {
    let first = all.iter().position(|shipped| shipped.error.is_none());
    for (number, shipped) in all.iter().enumerate() {
        match (&shipped.path, &shipped.error) {
            (_, Some(error)) => surface.console.warning(shown(error.as_bytes())),
            (Some(path), None) if Some(number) != first => {
                surface.console.info(format_args!("{also} {}: {path}", shipped.destination));
            }
            _ => {}
        }
    }
}

/// What SQLite keeps beside a database, of which nothing is missing.
fn database_logs(count: u64, were: &str, surface: Surface<'_>) {
    if count > 0 {
        let were = if count == 1 && were == "were" { "was" } else { were };
        let logs = render::count(count, "log");
        surface
            .console
            .info(format_args!("{logs} of SQLite databases {were} left out; their content is in the databases"));
    }
}

fn failed_sources(failed: &[FailedSource], surface: Surface<'_>) {
    for source in failed {
        let next = source.next.as_ref().map(|next| format!("; {}", shown(next.as_bytes()))).unwrap_or_default();
        surface.console.warning(format_args!(
            "source failed: {}: {}{next}",
            shown(source.root.as_bytes()),
            shown(source.message.as_bytes())
        ));
    }
}

/// What the archive lacks, and what to do about it.
fn incomplete(report: &BackupReport, request: &BackupRequest) -> Option<Message> {
    let code = exit_code::of_backup(report);
    let archive = render::path(render::path_from(&report.archive, &request.working_dir));
    let problems = render::problems(&report.problems).unwrap_or_default();
    if code == exit_code::DONE {
        return None;
    }
    let unreached = report.shipped.iter().filter(|shipped| shipped.error.is_some()).count() as u64;
    if unreached > 0 && report.failed_sources.is_empty() {
        let what = format!("the backup is done, but {} did not get it", render::count(unreached, "destination"));
        let next = "put right what the warnings name; the next backup goes there again".to_owned();
        return Some(Message::incomplete(code, what, format!("the archive is whole in {archive}"), next));
    }
    if report.failed_sources.is_empty() {
        let has = |word: &str| report.problems.counts.contains_key(word);
        let next = if has("missing") {
            "see why it is missing, or take it out of `required` in lifeboat.yaml; a restore has to name this backup by its id"
        } else if has("unreadable") {
            "run it as a user who may read everything, or leave out with --exclude what is not needed"
        } else if has("changed") {
            "run it again while nothing writes to these files"
        } else {
            "see the warnings; run it again as root if these attributes matter"
        };
        let what = format!("the backup is done, but incomplete: {problems}");
        return Some(Message::incomplete(code, what, format!("everything else is in {archive}"), next.to_owned()));
    }
    let failed = render::count(report.failed_sources.len() as u64, "source");
    let also = if report.problems.is_incomplete { format!("; also incomplete: {problems}") } else { String::new() };
    Some(Message::incomplete(
        code,
        format!("the backup is done, but {failed} failed{also}"),
        format!("nothing of what failed is in {archive}, which is marked partial; the rest is in it"),
        "put right what the warnings name, then run the same command again".to_owned(),
    ))
}

fn plan(request: &BackupRequest, surface: Surface<'_>) -> Result<u8> {
    let plan = surface
        .app
        .plan_backup(request, surface.watch())
        .map_err(|error| error.state("nothing was written: this was a dry run"))?;
    surface.console.end_progress();
    if surface.console.options.json {
        surface.console.json("plan", &plan);
    } else {
        render_plan(&plan, request, surface);
    }
    Ok(exit_code::of_backup_plan(&plan))
}

/// What would be dumped of the source `name`.
fn planned_server(name: &str, root: &str, server: &PlannedServer, surface: Surface<'_>) {
    let (console, count) = (surface.console, render::count(server.databases.len() as u64, "database"));
    let what =
        if server.is_schema_only { "their structure alone".to_owned() } else { format!("format {}", server.format) };
    console.info(format_args!("  {name}: {count}, {what}, from {root}"));
    let (version, pg_dump) = (shown(server.version.as_bytes()), shown(server.pg_dump.as_bytes()));
    console.info(format_args!("    PostgreSQL {version}, dumped by {pg_dump} (version {})", server.pg_dump_version));
    for database in &server.databases {
        let size = database.size_bytes.map_or_else(|| "size unknown".to_owned(), render::size);
        let without = database.excluded_tables.join(", ");
        let without =
            if without.is_empty() { without } else { format!(", without the rows of {}", shown(without.as_bytes())) };
        console.info(format_args!("    {}: {size} on the server{without}", shown(database.name.as_bytes())));
    }
}

fn render_plan(plan: &BackupPlan, request: &BackupRequest, surface: Surface<'_>) {
    let console = surface.console;
    let files = plan.sources.iter().map(|source| source.files).sum();
    let bytes = plan.sources.iter().map(|source| source.bytes).sum();
    let archive = render::path_from(&plan.archive, &request.working_dir);
    console.info(format_args!(
        "Dry run: {} ({}) would be backed up to {}",
        render::count(files, "file"),
        render::size(bytes),
        render::path(archive)
    ));
    for source in &plan.sources {
        let (name, root) = (shown(source.name.as_bytes()), shown(source.root.as_bytes()));
        let (files, bytes) = (render::count(source.files, "file"), render::size(source.bytes));
        match &source.server {
            None => console.info(format_args!("  {name}: {files}, {bytes}, from {root}")),
            Some(server) => planned_server(&name, &root, server, surface),
        }
    }
    left_out(plan.excluded, plan.own_archives, plan.withheld, "would be", surface);
    database_logs(plan.database_logs, "would be", surface);
    shipped(&plan.destinations, "also to", surface);
    if !plan.freeze.is_empty() {
        console.info(format_args!("paused meanwhile: {}", plan.freeze.join(", ")));
    }
    failed_sources(&plan.failed_sources, surface);
    if let Some(problems) = render::problems(&plan.problems) {
        console.info(format_args!("problems: {problems}"));
    }
    console.info(format_args!("free space there: {}", render::free_space(plan.free_bytes)));
    console.info("Nothing was written.");
}
