//! `lifeboat presets`: the configurations that come with Lifeboat.

use std::path::PathBuf;

use lifeboat_engine::Result;
use serde::Serialize;

use super::{Surface, exit_code};
use crate::wire;

const EXAMPLES: &str = "\
Examples:
  lifeboat presets
  lifeboat presets aegis --root /srv/aegis";

/// List the configurations that come with Lifeboat, or print one
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Print this one
    name: Option<String>,
    /// Where the app stands; by default where it usually does
    #[arg(long, value_name = "DIR", requires = "name")]
    root: Option<PathBuf>,
}

#[derive(Serialize)]
struct Text<'a> {
    name: &'a str,
    text: &'a str,
}

pub(crate) fn run(args: &Args, surface: Surface<'_>) -> Result<u8> {
    let console = surface.console;
    let Some(name) = &args.name else {
        for preset in surface.app.presets() {
            if console.options.json {
                console.json("preset", preset);
            } else {
                console.line(format_args!("{:8} {}", preset.name, preset.about));
            }
        }
        if !console.options.json {
            console.info("Next: lifeboat init --preset NAME   to write one as lifeboat.yaml");
        }
        return Ok(exit_code::DONE);
    };
    let text = surface.app.preset(name)?.text(args.root.as_deref(), wire::home().as_deref())?;
    if console.options.json {
        console.json("preset", &Text { name, text: &text });
    } else {
        console.line(text.trim_end());
    }
    Ok(exit_code::DONE)
}
