//! `lifeboat config`: whether the configuration is sound, what it means, and
//! what may stand in it. Changes nothing.

use clap::Subcommand;
use lifeboat_engine::Result;
use lifeboat_engine::app::{CheckedApp, ConfigReport};

use super::{Surface, exit_code, render};
use crate::wire;

const EXAMPLES: &str = "\
Examples:
  lifeboat config check
  lifeboat --config /etc/lifeboat/lifeboat.yaml config show
  lifeboat config schema > lifeboat.schema.json";

/// Check, show or describe the configuration
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Check lifeboat.yaml, and warn of what would fail on this host
    ///
    /// Exit code 0 when it is sound, with or without warnings; 2 when it is not: the error names
    /// line and column, and what was expected.
    Check,
    /// Show the configuration as it takes effect, with every default and without secrets
    Show,
    /// Print the JSON Schema of lifeboat.yaml, for editors and other programs
    Schema,
}

impl Args {
    /// Whether it is about a configuration that is there.
    pub(crate) fn needs_config(&self) -> bool {
        !matches!(self.what, What::Schema)
    }
}

pub(crate) fn run(args: &Args, surface: Surface<'_>) -> Result<u8> {
    match args.what {
        What::Check => check(surface),
        What::Show => show(surface),
        What::Schema => schema(surface),
    }
}

fn check(surface: Surface<'_>) -> Result<u8> {
    let console = surface.console;
    let report = surface.app.check_config(&wire::programs())?;
    if console.options.json {
        console.json("config", &report);
        return Ok(exit_code::DONE);
    }
    console.line(sound_line(&report));
    report.apps.iter().for_each(|app| console.info(app_line(app)));
    report.warnings.iter().for_each(|warning| console.warning(warning));
    Ok(exit_code::DONE)
}

/// `lifeboat.yaml: OK: 2 apps, 3 sources`.
fn sound_line(report: &ConfigReport) -> String {
    let count = |number: usize, noun| render::count(number as u64, noun);
    let sources = report.apps.iter().map(|app| app.sources.len()).sum();
    let mut counts = vec![count(report.apps.len(), "app"), count(sources, "source")];
    if report.destinations > 0 {
        counts.push(count(report.destinations, "destination"));
    }
    if !report.warnings.is_empty() {
        counts.push(count(report.warnings.len(), "warning"));
    }
    format!("{}: OK: {}", report.path, counts.join(", "))
}

fn app_line(app: &CheckedApp) -> String {
    let mut line = format!("  {}: {}", app.name, app.sources.join(", "));
    if !app.services.is_empty() {
        line += &format!("; a restore stops {}", app.services.join(", "));
    }
    if app.checks > 0 {
        line += &format!("; {}", render::count(app.checks as u64, "check"));
    }
    if !app.destinations.is_empty() {
        line += &format!("; to {}", app.destinations.join(", "));
    }
    if !app.is_enabled {
        line += "; not enabled";
    }
    line
}

fn show(surface: Surface<'_>) -> Result<u8> {
    let console = surface.console;
    let effective = surface.app.show_config()?;
    if console.options.json {
        console.json("config", &effective);
    } else {
        console.line(effective.to_yaml()?.trim_end());
    }
    Ok(exit_code::DONE)
}

fn schema(surface: Surface<'_>) -> Result<u8> {
    let console = surface.console;
    let schema = surface.app.config_schema();
    if console.options.json {
        console.json("schema", &schema);
    } else {
        console.line(format_args!("{schema:#}"));
    }
    Ok(exit_code::DONE)
}
