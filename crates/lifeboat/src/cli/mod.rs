//! The command line: what can be typed, one file for each command, and how
//! answers are shown. Parses, calls [`App`], renders; rules stand in the engine.

use clap::{Args, Parser, Subcommand};
use lifeboat_engine::app::{App, Watch};
use lifeboat_engine::{Cancel, Error, ErrorKind};

pub(crate) mod backup;
pub(crate) mod completions;
mod console;
mod error;
mod exit_code;
mod json;
mod list;
pub(crate) mod man;
mod out;
mod progress;
mod render;
pub(crate) mod restore;
mod verify;

pub(crate) use console::Console;

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

Exit codes:
    0  done                              17  unsupported format version
    1  failed                            18  a source failed
    2  wrong usage                       19  verification failed
    3  done, but incomplete              22  needs your agreement (--overwrite)
   13  damaged                           23  unsafe archive
   14  no space                         130  stopped by Ctrl-C
   16  permission missing               143  stopped by SIGTERM
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
#[derive(Args, Clone, Copy)]
pub(crate) struct Options {
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
