//! `lifeboat completions`: what makes a shell complete our command lines.

use clap::CommandFactory as _;
use clap_complete::Shell;
use lifeboat_engine::Result;

use super::{Cli, Surface, exit_code};

const EXAMPLES: &str = "\
Examples:
  lifeboat completions bash > /etc/bash_completion.d/lifeboat
  lifeboat completions zsh > /usr/local/share/zsh/site-functions/_lifeboat
  lifeboat completions fish > ~/.config/fish/completions/lifeboat.fish";

/// Print the completion script for a shell
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(args: &Args, surface: Surface<'_>) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "lifeboat", &mut script);
    surface.console.bytes(&script);
    Ok(exit_code::DONE)
}
