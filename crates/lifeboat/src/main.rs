//! The program `lifeboat`: parses the command line, wires the engine to the
//! terminal and to signals, runs one command, and ends with its exit code.

use std::process::ExitCode;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

mod cli;
mod signals;
mod wire;

use cli::{Command, Console, Surface};
use signals::Signals;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == cli::GUARD) {
        return ExitCode::from(cli::guard::run());
    }
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    raise_open_files_limit();
    let console = Arc::new(Console::new(cli.options.clone()));
    let signals = match Signals::watch() {
        Ok(signals) => signals,
        Err(error) => return ExitCode::from(console.failed(&error, None)),
    };
    let result = wire::app(&cli, &console, &signals.cancel).and_then(|app| {
        let surface = Surface { app: &app, console: &console, cancel: &signals.cancel };
        match &cli.command {
            Command::Backup(args) => cli::backup::run(args, surface),
            Command::Restore(args) => cli::restore::run(args, surface),
            Command::Recover(args) => cli::recover::run(args, surface),
            Command::Status(args) => cli::status::run(args, surface),
            Command::Key(args) => cli::key::run(args, surface),
            Command::ExportQuery(args) => cli::export_query::run(args, surface),
            Command::Init(args) => cli::init::run(args, surface),
            Command::Presets(args) => cli::presets::run(args, surface),
            Command::Config(args) => cli::config::run(args, surface),
            Command::Completions(args) => cli::completions::run(args, surface),
            Command::Man(args) => cli::man::run(args, surface),
        }
    });
    let code = result.unwrap_or_else(|error| console.failed(&error, signals.received()));
    ExitCode::from(console.finish(code))
}

/// Many systems allow 1024 open files until somebody asks for more, which deep
/// trees and many workers use up.
fn raise_open_files_limit() {
    let limit = getrlimit(Resource::Nofile);
    if setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).is_err() {
        // Then the run has to do with what there is; running out is an error of its own.
    }
}
