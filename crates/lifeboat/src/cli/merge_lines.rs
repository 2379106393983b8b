//! What becomes of the rows of a database, as a person sees it.

use lifeboat_engine::app::{MergedDatabase, MergedTable};

use super::{Surface, render};

/// A line for each table of which something is said.
pub(super) fn show(merged: &MergedDatabase, surface: Surface<'_>) {
    let console = surface.console;
    console.info(format_args!("rows of {} in {}:", merged.source, merged.path));
    let is_told = |table: &&MergedTable| {
        table.added + table.duplicates + table.conflicts > 0 || table.replaced.is_some() || table.pulled_in_by.is_some()
    };
    let mut told = merged.tables.iter().filter(is_told).peekable();
    if told.peek().is_none() {
        console.info("  nothing");
    }
    told.for_each(|table| console.info(format_args!("  {}", line(table))));
    merged.rebuilt.iter().for_each(|name| console.info(format_args!("  {name}: its index is made anew")));
    merged.left_alone.iter().for_each(|name| console.info(format_args!("  {name}: a virtual table, stays as it is")));
}

fn line(table: &MergedTable) -> String {
    let replaced = table.replaced.map(|was| format!("{} replaced", render::count(was, "row")));
    let counted = [
        Some(format!("{} added", table.added)),
        (table.duplicates > 0).then(|| format!("{} there already", table.duplicates)),
        (table.conflicts > 0).then(|| render::count(table.conflicts, "conflict")),
    ];
    let counted: Vec<String> = replaced.into_iter().chain(counted.into_iter().flatten()).collect();
    let why = table.pulled_in_by.as_ref().map(|by| format!(" (since {by} refers to it)")).unwrap_or_default();
    let keys = if table.conflict_keys.is_empty() { String::new() } else { format!(": {}", keys(table)) };
    format!("{}{why}: {}{keys}", table.table, counted.join(", "))
}

/// The keys of the first conflicts; nothing else of a row is shown.
fn keys(table: &MergedTable) -> String {
    let more = if table.conflicts > table.conflict_keys.len() as u64 { "; …" } else { "" };
    format!("{}{more}", table.conflict_keys.join("; "))
}

/// That rows of the snapshot stayed out.
pub(super) fn warn(merged: &MergedDatabase, surface: Surface<'_>) {
    for table in merged.tables.iter().filter(|table| table.conflicts > 0) {
        surface.console.warning(format_args!(
            "{} of table {} in {} stayed out, as they do not go with what is live: {}",
            render::count(table.conflicts, "row"),
            table.table,
            merged.path,
            keys(table)
        ));
    }
}
