//! `lifeboat export-query`: the answer to a query of `lifeboat.yaml`, as CSV.

use std::path::PathBuf;

use lifeboat_engine::app::ExportRequest;
use lifeboat_engine::{Error, ErrorKind, Result};

use super::{Surface, exit_code, render};

const EXAMPLES: &str = "\
Examples:
  lifeboat export-query connectors
      The answer to the query `connectors` of the only app, on standard output
  lifeboat export-query web connectors --output connectors.csv
      Into a file that only you may read, and never over another one
  lifeboat export-query web connectors --output connectors.csv --force
      Also over another one

The query stands in lifeboat.yaml:
  exports: { connectors: { db: app, query: \"SELECT id, name FROM connectors\" } }";

/// Write the answer to a query of lifeboat.yaml as CSV
///
/// The CSV is that of `psql --csv`, in UTF-8. The query runs in a transaction that only reads; one
/// that tells what is in a column of `secret_columns` is refused.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES, allow_missing_positional = true)]
pub(crate) struct Args {
    /// The app; not needed where there is only one
    #[arg(value_name = "APP")]
    app: Option<String>,
    /// The query, by its name in `exports`
    #[arg(value_name = "NAME", required = true)]
    name: String,
    /// Write it to FILE instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace FILE where it exists
    #[arg(long, requires = "output")]
    force: bool,
}

pub(crate) fn run(args: &Args, surface: Surface<'_>) -> Result<u8> {
    let console = surface.console;
    if console.options.json && args.output.is_none() {
        return Err(Error::new(ErrorKind::Usage, "--json and the CSV cannot both go to standard output")
            .state("nothing was asked")
            .next("name a file for the CSV with --output FILE"));
    }
    let (app, name, output) = (args.app.clone(), args.name.clone(), args.output.clone());
    let request = ExportRequest { app, name, output, replaces: args.force };
    let mut take = |bytes: &[u8]| {
        console.bytes(bytes);
        // Whoever reads this has seen enough.
        if console.is_closed() { Err(Error::new(ErrorKind::Failed, "nobody reads it any more")) } else { Ok(()) }
    };
    let report = match surface.app.export(&request, &mut take, surface.cancel) {
        Err(_) if console.is_closed() => return Ok(exit_code::DONE),
        report => report?,
    };
    if let Some(path) = &report.path {
        let (rows, size) = (render::count(report.rows, "row"), render::size(report.size_bytes));
        console.line_or_json("summary", &report, format_args!("Exported {rows} to {path} ({size})"));
    }
    Ok(exit_code::DONE)
}
