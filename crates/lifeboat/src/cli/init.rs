//! `lifeboat init`: writes the configuration of a preset.

use std::path::PathBuf;

use lifeboat_engine::app::InitRequest;
use lifeboat_engine::{Error, ErrorKind, Result};

use super::{Surface, exit_code, render};
use crate::wire;

const EXAMPLES: &str = "\
Examples:
  lifeboat init --preset nefia
  lifeboat init --preset aegis --root /srv/aegis --output /etc/lifeboat/lifeboat.yaml
  lifeboat init --preset aegis --dry-run";

/// Write the configuration of a preset
///
/// The file is written for you alone (mode 600), and never over another one.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The preset; `lifeboat presets` lists them
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// Where the app stands; by default where it usually does
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// The file to write
    #[arg(short, long, value_name = "FILE", default_value = wire::CONFIG_NAME)]
    output: PathBuf,
    /// Print the configuration, write nothing
    #[arg(long, conflicts_with = "output")]
    dry_run: bool,
}

pub(crate) fn run(args: &Args, surface: Surface<'_>) -> Result<u8> {
    let console = surface.console;
    let preset = args.preset.clone().ok_or_else(|| {
        let names: Vec<&str> = surface.app.presets().iter().map(|preset| preset.name).collect();
        Error::new(ErrorKind::Usage, "no preset was named")
            .state("nothing was written")
            .next(format!("name one of {} with --preset; `lifeboat presets` says what they are for", names.join(", ")))
    })?;
    let (root, output) = (args.root.clone(), args.output.clone());
    let request = InitRequest { preset, root, home: wire::home(), output, dry_run: args.dry_run };
    let report = surface.app.init(&request)?;
    if console.options.json {
        console.json("init", &report);
        return Ok(exit_code::DONE);
    }
    if args.dry_run {
        console.line(report.text.trim_end());
        return Ok(exit_code::DONE);
    }
    let path = render::path(&report.path);
    console.line(format_args!("Configuration of {} written to {path}", report.preset.name));
    report.preset.next.iter().for_each(|next| console.info(format_args!("  {next}")));
    let check = match args.output.as_os_str() == wire::CONFIG_NAME {
        true => "lifeboat config check".to_owned(),
        false => format!("lifeboat --config {} config check", render::shell_path(&report.path)),
    };
    console.info(format_args!("Next: {check}"));
    Ok(exit_code::DONE)
}
