//! `lifeboat man`: the manual pages, made from the same definitions as the help.

use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use lifeboat_engine::{Error, ErrorKind, Result};

use super::{Cli, Surface, exit_code, render};

const EXAMPLES: &str = "\
Examples:
  lifeboat man | man -l -
  lifeboat man --output /usr/local/share/man/man1";

/// Print the manual page
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Write the page of every command into DIR instead
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, surface: Surface<'_>) -> Result<u8> {
    match &args.output {
        Some(dir) => {
            write_pages(dir)
                .map_err(|error| failed(&format!("write the manual pages into {}", dir.display()), &error))?;
            surface.console.info(format_args!("The manual pages are in {}", render::path(dir)));
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(|error| failed("make the page", &error))?;
            surface.console.bytes(&page);
        }
    }
    Ok(exit_code::DONE)
}

fn write_pages(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(Cli::command(), dir)
}

fn failed(doing: &str, error: &std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
        std::io::ErrorKind::StorageFull => ErrorKind::NoSpace,
        _ => ErrorKind::Failed,
    };
    Error::new(kind, format!("could not {doing}: {error}")).state("some pages may have been written")
}
