//! The command line: what can be typed, one file for each command, and how
//! answers are shown. Parses, calls [`App`], renders; rules stand in the engine.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use lifeboat_engine::app::{App, Watch};
use lifeboat_engine::{Cancel, Error, ErrorKind};

pub(crate) mod backup;
pub(crate) mod completions;
pub(crate) mod config;
mod console;
mod error;
mod exit_code;
pub(crate) mod export_query;
pub(crate) mod guard;
pub(crate) mod init;
mod json;
pub(crate) mod key;
mod list;
pub(crate) mod man;
mod merge_lines;
mod out;
mod plan_lines;
pub(crate) mod presets;
mod progress;
pub(crate) mod recover;
mod render;
pub(crate) mod restore;
mod restore_command;
mod restore_database;
mod restore_live;
mod restore_to;
pub(crate) mod secrets;
pub(crate) mod status;
mod transfer;
mod verify;

pub(crate) use console::Console;

/// The only word by which a backup starts its guard. No command: nobody types it.
pub(crate) const GUARD: &str = "__guard";

const EXAMPLES: &str = "\
Examples:
  lifeboat backup /srv/app
      Write app-backup-DATE.tar.zst into the current directory, and read it back
  lifeboat backup list app-backup-2026-02-24.tar.zst
      Show what is in it
  lifeboat backup verify app-backup-2026-02-24.tar.zst
      Compare every file in it with its recorded SHA-256
  lifeboat restore app-backup-2026-02-24.tar.zst --to /tmp/look
      Get it back into a directory of its own
  lifeboat restore app-backup-2026-02-24.tar.zst --dry-run
      Show what putting it back where it stood would change; without --dry-run, do it

Exit codes:
    0  done                              17  unsupported or newer version
    1  failed                            18  a source failed
    2  wrong usage                       19  verification failed
    3  done, but incomplete              20  restore failed, all is as before
   11  another run is going on           21  restore failed, act now
   12  wrong password or key             22  needs your agreement, or is in use
   13  damaged                           23  unsafe archive
   14  no space                         130  stopped by Ctrl-C
   15  destination not there            143  stopped by SIGTERM
   16  permission missing
  `backup verify` answers 0 or 1.";

/// Backs up a whole self-hosted application, proves that the backup restores, and puts it back.
#[derive(Parser)]
#[command(name = "lifeboat", version, max_term_width = 100, arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Args, Clone)]
pub(crate) struct Options {
    /// Read this configuration; by default lifeboat.yaml in the current directory,
    /// ~/.config/lifeboat or /etc/lifeboat, if there is one
    #[arg(long, global = true, value_name = "FILE", env = "LIFEBOAT_CONFIG", help_heading = "Everywhere")]
    pub(crate) config: Option<PathBuf>,
    /// Keep journals and locks in DIR; by default /var/lib/lifeboat, or ~/.local/share/lifeboat
    /// for an ordinary user
    #[arg(long, global = true, value_name = "DIR", env = "LIFEBOAT_DATA_DIR", help_heading = "Everywhere")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where drop-ins for units of systemd go
    #[arg(long, global = true, value_name = "DIR", env = "LIFEBOAT_SYSTEMD_DIR", hide = true)]
    pub(crate) systemd_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) secrets: secrets::SecretOptions,
    /// Print JSON Lines on standard output, each with a message_type; names that are not plain
    /// text are escaped as \n, \\ or \xNN
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(crate) json: bool,
    /// Print only warnings, errors, and what was asked for
    #[arg(short, long, global = true, help_heading = "Everywhere", conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// List every file, also where there are more than 100
    #[arg(short, long, global = true, help_heading = "Everywhere")]
    pub(crate) verbose: bool,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    Backup(backup::Args),
    Restore(restore::Args),
    Recover(recover::Args),
    Status(status::Args),
    Key(key::Args),
    ExportQuery(export_query::Args),
    Init(init::Args),
    Presets(presets::Args),
    Config(config::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// What a command works with.
#[derive(Clone, Copy)]
pub(crate) struct Surface<'a> {
    pub(crate) app: &'a App<'a>,
    pub(crate) console: &'a Console,
    pub(crate) cancel: &'a Cancel,
}

impl<'a> Surface<'a> {
    /// Commands that do not act on an interrupted restore only say that one waits.
    fn tell_waiting(self) {
        for waiting in self.app.waiting() {
            self.console.warning(status::waiting_line(&waiting));
        }
    }

    fn watch(self) -> Watch<'a> {
        Watch { monitor: self.console, cancel: self.cancel }
    }
}

/// Reads the command line. `Err` is the exit code, after help, version or a
/// complaint was printed.
pub(crate) fn parse() -> Result<Cli, u8> {
    Cli::try_parse().map_err(|wrong| {
        if wrong.print().is_err() {
            // Standard output or standard error is closed: nobody is left to tell.
        }
        let code = u8::try_from(wrong.exit_code()).unwrap_or(2);
        if code != 0 && std::env::args_os().any(|arg| arg == "--json") {
            let what = wrong.kind().to_string();
            let error = Error::new(ErrorKind::Usage, what).state("nothing was begun");
            json::exit_error(&error::Message::of(&error, None));
        }
        code
    })
}

/// Where relative paths start.
fn working_dir() -> Result<PathBuf, Error> {
    std::env::current_dir().map_err(|error| {
        Error::new(ErrorKind::Failed, format!("could not find the current directory: {error}"))
            .state("nothing was begun")
            .next("change to a directory that exists")
    })
}

/// How many workers `--threads` may ask for.
fn threads() -> clap::builder::RangedU64ValueParser<usize> {
    clap::builder::RangedU64ValueParser::new().range(1..=1024)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
