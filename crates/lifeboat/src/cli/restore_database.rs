//! `lifeboat restore --to-database`: one database under another name.

use lifeboat_engine::Result;
use lifeboat_engine::app::{DatabaseRequest, shown};

use super::{Surface, exit_code, render};

/// How many tables are listed without `-v`.
const LISTED: usize = 20;

/// Restores it, and says what is in it and how to be rid of it.
pub(super) fn run(mut request: DatabaseRequest, surface: Surface<'_>) -> Result<u8> {
    let console = surface.console;
    surface.tell_waiting();
    if !request.allow_unauthenticated && console.can_ask() && surface.app.is_script(&request)? {
        console.line("The dump is SQL, which is run on the server; nobody can tell whether the archive is genuine.");
        request.allow_unauthenticated = console.ask("Do you trust it?", surface.cancel)?;
    }
    let restored = surface.app.restore_database(&request, surface.watch())?;
    console.end_progress();
    if console.options.json {
        console.json("summary", &restored);
        return Ok(exit_code::DONE);
    }
    let name = shown(restored.name.as_bytes());
    let replaced = if restored.replaced { ", which replaced another one of that name" } else { "" };
    console.info(format_args!(
        "Restored {} as {name} on {}{replaced} ({})",
        shown(restored.of.as_bytes()),
        restored.server,
        render::duration(restored.elapsed)
    ));
    let rows: u64 = restored.tables.values().sum();
    console.info(format_args!(
        "{} with {}, as many as were backed up",
        render::count(restored.tables.len() as u64, "table"),
        render::count(rows, "row")
    ));
    let listed = if console.options.verbose { usize::MAX } else { LISTED };
    for (table, rows) in restored.tables.iter().take(listed) {
        console.info(format_args!("  {rows:>12}  {}", shown(table.as_bytes())));
    }
    if restored.tables.len() > listed {
        console.info(format_args!("  and {} more; -v lists them", restored.tables.len() - listed));
    }
    restored.notes.iter().for_each(|note| console.info(format_args!("note: {note}")));
    console.info(format_args!("Next: {}   to drop it", restored.drop));
    Ok(exit_code::DONE)
}
