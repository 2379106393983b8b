//! `lifeboat restore`: what can be asked for, and which of the restores it is.

use std::path::PathBuf;

use clap::ValueEnum;
use lifeboat_engine::app::{
    CommandRequest, DatabaseRequest, Decision, Keep, LiveRequest, Mode, RestoreRequest, parse_keep,
};
use lifeboat_engine::{Error, ErrorKind, Result};

use super::{Surface, restore_command, restore_database, restore_live, restore_to};

const EXAMPLES: &str = "\
Examples:
  lifeboat restore latest --app web
      The newest good backup of the app `web`, from wherever its backups go
  lifeboat restore app-backup-2026-02-24.tar.zst --dry-run
      Show what putting everything back where it stood would change, and write nothing
  lifeboat restore app-backup-2026-02-24.tar.zst
      Do it: ask first, stop and start the services of lifeboat.yaml, check that they are healthy
  lifeboat restore app-backup-2026-02-24.tar.zst --only conf/nginx/*.conf --force
      Only a part of one source, without asking
  lifeboat restore app-backup-2026-02-24.tar.zst --mode full
      Also delete what the snapshot does not hold; what the backup left out stays
  lifeboat restore latest --only db --mode merge --dry-run
      Add the rows of a SQLite database that are missing, and show first how many of which table
  lifeboat restore latest --tables 'db.server*'
      Replace single tables of a SQLite database; with --mode merge, add what they lack
  lifeboat restore latest --only db/shop --to-database shop_test
      One database under another name, beside the live one
  lifeboat restore latest --only ldap
      Give the command of the source `ldap` what it had printed, after asking
  lifeboat restore --undo
      Put back what the last restore replaced
  lifeboat restore app-backup-2026-02-24.tar.zst --to /tmp/look
      Get everything back below /tmp/look, beside what is live";

/// Restore an archive: all of it, or nothing
///
/// Everything is unpacked and verified beside its place before anything live is touched. Then the
/// services that lifeboat.yaml names are stopped, files change places by renames, services start, and
/// their health is checked. Whatever fails, also a power cut, is rolled back. What was replaced is kept
/// for 7 days. With --to, nothing outside DIR is written.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES, group = clap::ArgGroup::new("decision"))]
pub(crate) struct Args {
    /// The archive: a file, the id of a backup, or `latest`, the newest good one
    #[arg(value_name = "ARCHIVE|ID", required_unless_present = "decision", conflicts_with = "decision")]
    archive: Option<PathBuf>,
    /// The app whose `latest` or id is meant, where there are several
    #[arg(long, value_name = "APP", conflicts_with = "decision")]
    app: Option<String>,
    /// Use the services, checks and commands that the archive carries of its app, where this host has
    /// no lifeboat.yaml of it; --dry-run shows them
    #[arg(long, conflicts_with = "to")]
    trust_config: bool,
    /// Restore below DIR, which is made if it does not exist, and touch nothing else
    #[arg(long, value_name = "DIR", conflicts_with = "decision")]
    to: Option<PathBuf>,
    /// Restore one database as NAME beside what is live, and touch nothing else
    #[arg(long, value_name = "NAME", conflicts_with_all = ["decision", "to", "dry_run", "trust_config"])]
    to_database: Option<String>,
    /// With --to: replace files that exist
    #[arg(long, requires = "to")]
    overwrite: bool,
    /// What is done with what exists
    #[arg(long, value_enum, default_value_t, conflicts_with = "to")]
    mode: ModeArg,
    /// Restore only this source, or what matches GLOB in it, or one database of it, or a part of the app; may be repeated
    #[arg(long, value_name = "SOURCE[/GLOB]|PART", conflicts_with = "to")]
    only: Vec<String>,
    /// Restore only these tables of SQLite databases, with `*` for any letters, and what they refer to
    #[arg(long, value_name = "[SOURCE.]TABLE", conflicts_with_all = ["decision", "to", "to_database"])]
    tables: Vec<String>,
    /// Which database a bare file without a manifest is: its source, or one of several of it
    #[arg(long = "as", value_name = "[APP/]SOURCE[/DATABASE]", conflicts_with = "to")]
    as_source: Option<String>,
    /// Do not ask before existing things are overwritten, deleted or stopped
    #[arg(long, conflicts_with = "to")]
    force: bool,
    /// Agree that an archive that is not authenticated says where its content goes, and that one without its
    /// .hmac may have been changed
    #[arg(long)]
    allow_unauthenticated: bool,
    /// How long what is replaced is kept: 7d, 12h, 0s or forever
    #[arg(long, value_name = "DURATION", value_parser = keep, conflicts_with = "to")]
    keep_replaced: Option<Keep>,
    /// Restore a snapshot although the application here is older than it
    #[arg(long, conflicts_with = "to")]
    ignore_version: bool,
    /// Restore databases of servers over the live ones, in one transaction each, after a dump of them is
    /// kept: where no second one can be made beside them
    #[arg(long, conflicts_with_all = ["to", "to_database"])]
    in_place: bool,
    /// What is in databases belongs to the database's owner, whoever it belonged to
    #[arg(long, conflicts_with = "to")]
    no_owner: bool,
    /// Nobody gets rights in databases that were given there
    #[arg(long, conflicts_with = "to")]
    no_privileges: bool,
    /// Make device nodes too
    #[arg(long)]
    devices: bool,
    /// Treat an owner that cannot be set as a problem (exit code 3), not as a note
    #[arg(long)]
    same_owner: bool,
    /// How many workers; by default one for each core
    #[arg(long, value_name = "N", value_parser = super::threads())]
    threads: Option<usize>,
    /// Show what would be done, and write nothing
    #[arg(long, conflicts_with = "decision")]
    dry_run: bool,
    #[command(flatten)]
    decisions: Decisions,
}

/// What is done with an earlier restore.
#[derive(clap::Args)]
struct Decisions {
    /// Finish an interrupted restore
    #[arg(long, value_name = "ID", num_args = 0..=1, group = "decision", help_heading = "An earlier restore")]
    resume: Option<Option<String>>,
    /// Put everything back that an interrupted restore changed
    #[arg(long, value_name = "ID", num_args = 0..=1, group = "decision", help_heading = "An earlier restore")]
    rollback: Option<Option<String>>,
    /// Let the new state of an interrupted restore stand
    #[arg(long, value_name = "ID", num_args = 0..=1, group = "decision", help_heading = "An earlier restore")]
    commit: Option<Option<String>>,
    /// Put back what a restore replaced
    #[arg(long, value_name = "ID", num_args = 0..=1, group = "decision", help_heading = "An earlier restore")]
    undo: Option<Option<String>>,
    /// Keep what a restore replaced for ever
    #[arg(long, value_name = "ID", num_args = 0..=1, group = "decision", help_heading = "An earlier restore")]
    keep: Option<Option<String>>,
    /// Remove what a restore replaced
    #[arg(long, value_name = "ID", num_args = 0..=1, group = "decision", help_heading = "An earlier restore")]
    discard: Option<Option<String>>,
}

#[derive(Clone, Copy, Default, ValueEnum)]
pub(super) enum ModeArg {
    /// Entries of the snapshot win, everything else stays
    #[default]
    Overwrite,
    /// The roots become exactly the snapshot; what the backup left out stays
    Full,
    /// Only what is missing is added: files by their path, rows of SQLite databases by their key
    Merge,
}

impl ModeArg {
    pub(super) fn mode(self) -> Mode {
        match self {
            Self::Overwrite => Mode::Overwrite,
            Self::Full => Mode::Full,
            Self::Merge => Mode::Merge,
        }
    }
}

fn keep(text: &str) -> std::result::Result<Keep, String> {
    parse_keep(text).map_err(|_| "expected a number with a unit, such as 7d or 12h, or forever".to_owned())
}

pub(crate) fn run(args: &Args, surface: Surface<'_>) -> Result<u8> {
    match decide(args, surface) {
        Some(decided) => decided,
        None => restore(args, surface),
    }
}

/// What is to become of an earlier restore, if that is asked.
fn decide(args: &Args, surface: Surface<'_>) -> Option<Result<u8>> {
    let decisions = &args.decisions;
    for (asked, decision) in [
        (&decisions.resume, Decision::Resume),
        (&decisions.rollback, Decision::Rollback),
        (&decisions.commit, Decision::Commit),
    ] {
        if let Some(id) = asked {
            return Some(restore_live::decide(decision, id.as_deref(), surface));
        }
    }
    if let Some(id) = &decisions.undo {
        return Some(restore_live::undo(id.as_deref(), args.force, surface));
    }
    if let Some(id) = &decisions.keep {
        return Some(restore_live::keep(id.as_deref(), surface));
    }
    decisions.discard.as_ref().map(|id| restore_live::discard(id.as_deref(), surface))
}

fn restore(args: &Args, surface: Surface<'_>) -> Result<u8> {
    let archive = args.archive.clone().ok_or_else(|| Error::new(ErrorKind::Usage, "no archive was given"))?;
    let named = surface.app.find_archive(&archive, args.app.as_deref(), &super::working_dir()?)?;
    let archive = named.path;
    let allow_unauthenticated =
        restore_live::accepts_lack(&archive, args.allow_unauthenticated, args.dry_run, surface)?;
    if let Some(to) = args.to.clone() {
        let (overwrite, devices, same_owner, threads) = (args.overwrite, args.devices, args.same_owner, args.threads);
        let request = RestoreRequest { archive, to, allow_unauthenticated, overwrite, devices, same_owner, threads };
        return restore_to::run(&request, args.dry_run, surface);
    }
    if let Some(name) = args.to_database.clone() {
        let request = DatabaseRequest {
            archive,
            name,
            only: args.only.clone(),
            as_source: args.as_source.clone(),
            force: args.force,
            allow_unauthenticated,
            no_owner: args.no_owner,
            no_privileges: args.no_privileges,
            threads: args.threads,
        };
        return restore_database::run(request, surface);
    }
    let agreed =
        restore_live::Agreed { force: args.force, unauthenticated: allow_unauthenticated, config: args.trust_config };
    if let Some(source) = surface.app.command_source(&archive, &args.only)? {
        let request = CommandRequest {
            archive,
            source,
            allow_unauthenticated,
            threads: args.threads,
            ..CommandRequest::default()
        };
        return restore_command::run(request, agreed, args.dry_run, surface);
    }
    let request = LiveRequest {
        archive,
        mode: args.mode.mode(),
        only: args.only.clone(),
        tables: args.tables.clone(),
        devices: args.devices,
        same_owner: args.same_owner,
        threads: args.threads,
        keep_replaced: args.keep_replaced,
        as_source: args.as_source.clone(),
        accepts_partial: named.by_id,
        ignore_version: args.ignore_version,
        in_place: args.in_place,
        no_owner: args.no_owner,
        no_privileges: args.no_privileges,
        trusted: None,
    };
    restore_live::run(request, agreed, args.dry_run, surface)
}
