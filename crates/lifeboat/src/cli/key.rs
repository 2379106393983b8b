//! `lifeboat key`: the keys of encrypted apps are made, shown, copied away,
//! brought back and changed. A secret is shown by `export --paper` only.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use lifeboat_engine::app::{AppKeys, Envelope, KeyExport, KeyGenerate, KeyImport, KeyInfo, KeyRole, SnapshotKeys};
use lifeboat_engine::{Error, ErrorKind, Result};

use super::{Surface, exit_code, render};

const EXAMPLES: &str = "\
Examples:
  lifeboat key generate web
      Make the key that lifeboat.yaml names for the app web
  lifeboat key export web --paper > page.txt
      A page to print and keep away from the machine; without it, who loses the machine loses the backups
  lifeboat key import page.txt web
      Bring it back, on a new machine too
  lifeboat key status
      Which keys were exported, and which backups they open";

const GENERATE: &str = "\
Examples:
  lifeboat key generate web
  lifeboat key generate --output ./web-identity.txt
      An identity of age that belongs to no app yet, for a machine that has no lifeboat.yaml";

const EXPORT: &str = "\
Examples:
  lifeboat key export web --output /media/stick/web-key.txt
      A copy of the key's file, which only you may read
  lifeboat key export web --paper | lp
      A page of plain text with the key in groups, how to open a backup without Lifeboat, how to import it
  lifeboat key export web --paper --key-file /etc/lifeboat/web.key.old-20260224
      An old key, of before a rotation

Never written where the backups are, and never over another file.";

const IMPORT: &str = "\
Examples:
  lifeboat key import /media/stick/web-key.txt web
  lifeboat key import page.txt web
      What was typed of a page: spaces and ends of lines mean nothing, the check value finds a slip

The key is tried on the newest encrypted backups of the app. One that opens none is refused (exit code 12)
without --force; another key that is there already is never replaced.";

const ROTATE: &str = "\
Examples:
  lifeboat key rotate web

The old key stays beside the new one as NAME.old-DATE, and still opens the backups that were made with it.
Both have to be exported.";

const STATUS: &str = "\
Examples:
  lifeboat key status
  lifeboat key status web --json | jq '.snapshots.unopened'

Exit codes: 0 nothing needs you, 1 something does: a key that was never exported or cannot be read, a backup
that no key here opens.";

/// Make, show, copy away, bring back and change the keys of encrypted apps
#[derive(clap::Args)]
#[command(after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Key,
}

#[derive(Subcommand)]
enum Key {
    /// Make the key that an app's configuration names, or one of its own
    #[command(after_help = GENERATE)]
    Generate {
        /// The app; not needed where only one is encrypted
        #[arg(conflicts_with = "output")]
        app: Option<String>,
        /// Make a key that belongs to no app yet in FILE
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Of this kind
        #[arg(long, value_name = "KIND", requires = "output", default_value = "age")]
        envelope: KindArg,
    },
    /// Show what keys an app has and where, never the secret
    #[command(after_help = "Examples:\n  lifeboat key show web")]
    Show {
        /// The app; none: all
        app: Option<String>,
    },
    /// Copy a key away: its file, or a page to print
    #[command(after_help = EXPORT)]
    Export {
        /// The app; not needed where only one is encrypted, or with --key-file or --identity-file
        app: Option<String>,
        /// Write it to FILE
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// A page of plain text that a person can type back; without --output on standard output
        #[arg(long)]
        paper: bool,
    },
    /// Bring a key to where the app's configuration wants it
    #[command(after_help = IMPORT)]
    Import {
        /// A copy of the key, or what was typed of a page
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The app; not needed where only one is encrypted
        app: Option<String>,
        /// Also a key that opens none of the backups
        #[arg(long)]
        force: bool,
    },
    /// Let a new key take the place of an app's key
    #[command(after_help = ROTATE)]
    Rotate {
        /// The app; not needed where only one is encrypted
        app: Option<String>,
    },
    /// Show which keys were exported, and which backups they open
    #[command(after_help = STATUS)]
    Status {
        /// The app; none: all
        app: Option<String>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum KindArg {
    /// An identity of age
    Age,
    /// A key file of openssl
    Openssl,
}

pub(crate) fn run(args: &Args, surface: Surface<'_>) -> Result<u8> {
    match &args.command {
        Key::Generate { app, output, envelope } => {
            let envelope = match envelope {
                KindArg::Age => Envelope::Age,
                KindArg::Openssl => Envelope::Openssl,
            };
            let request = match output {
                Some(output) => KeyGenerate::At(output.clone(), envelope),
                None => KeyGenerate::Of(app.clone()),
            };
            generate(&request, surface)
        }
        Key::Show { app } => show(app.as_deref(), false, surface),
        Key::Export { app, output, paper } => {
            export(&KeyExport { app: app.clone(), output: output.clone(), paper: *paper }, surface)
        }
        Key::Import { file, app, force } => {
            import(&KeyImport { file: file.clone(), app: app.clone(), force: *force }, surface)
        }
        Key::Rotate { app } => rotate(app.as_deref(), surface),
        Key::Status { app } => show(app.as_deref(), true, surface),
    }
}

fn warn(warnings: &[String], surface: Surface<'_>) {
    warnings.iter().for_each(|line| surface.console.warning(line));
}

fn generate(request: &KeyGenerate, surface: Surface<'_>) -> Result<u8> {
    let console = surface.console;
    let made = surface.app.generate_key(request, &super::working_dir()?, surface.cancel)?;
    warn(&made.warnings, surface);
    if console.options.json {
        console.json("summary", &made);
        return Ok(exit_code::DONE);
    }
    console.info(format_args!("Key made: {} ({}), which only you may read", made.path, made.envelope));
    for recipient in &made.recipients {
        console.line(format_args!("recipient: {recipient}"));
        if made.must_be_configured {
            console.info("    write it under `recipients` in lifeboat.yaml to encrypt to it");
        }
    }
    if !made.unopened.is_empty() {
        let count = render::count(made.unopened.len() as u64, "backup");
        console.warning(format_args!("the new key does not open {count} of before, nor does another key here:"));
        for found in &made.unopened {
            let (id, path) = (render::short_id(found.id.as_deref()), &found.path);
            console.line(format_args!("  {id} {} {path}", render::moment(found.created)));
        }
    }
    let of = made.app.clone().unwrap_or_else(|| {
        let option = if made.recipients.is_empty() { "--key-file" } else { "--identity-file" };
        format!("{option} {}", render::shell_path(made.path.as_ref()))
    });
    console.info(format_args!("Next: lifeboat key export {of} --paper   and keep the page away from this machine"));
    Ok(exit_code::DONE)
}

fn export(request: &KeyExport, surface: Surface<'_>) -> Result<u8> {
    let console = surface.console;
    if console.options.json && request.paper && request.output.is_none() {
        return Err(Error::new(ErrorKind::Usage, "--json and the page cannot both go to standard output")
            .state("nothing was exported")
            .next("name a file for the page with --output FILE"));
    }
    let mut take = |bytes: &[u8]| {
        console.bytes(bytes);
        console.flush();
        // A page that nobody got is no copy.
        let lost = || Error::new(ErrorKind::Failed, "the page could not be written").state("nothing was exported");
        if console.is_closed() { Err(lost()) } else { Ok(()) }
    };
    let exported = surface.app.export_key(request, &mut take, surface.cancel)?;
    warn(&exported.warnings, surface);
    if let Some(output) = &exported.output {
        let what = if request.paper { "a page with the key" } else { "a copy of the key" };
        console.line_or_json("summary", &exported, format_args!("Exported: {what} {} to {output}", exported.path));
        if !console.options.json {
            console.info("Keep it away from this machine and from the backups.");
        }
    }
    Ok(exit_code::DONE)
}

fn import(request: &KeyImport, surface: Surface<'_>) -> Result<u8> {
    let console = surface.console;
    let imported = surface.app.import_key(request, &super::working_dir()?, surface.cancel)?;
    warn(&imported.warnings, surface);
    if console.options.json {
        console.json("summary", &imported);
        return Ok(exit_code::DONE);
    }
    let how = if imported.was_there { "It was there already" } else { "Imported" };
    console.info(format_args!("{how}: the key of {} in {} ({})", imported.app, imported.path, imported.envelope));
    match (imported.tried, imported.opens) {
        (0, _) => console.info("no encrypted backup of the app is known, so it was tried on none"),
        (tried, 0) => {
            let tried = render::count(tried, "newest encrypted backup");
            console.warning(format_args!("it opens none of the {tried}"));
        }
        (tried, opens) => {
            console.info(format_args!("it opens {opens} of the {}", render::count(tried, "newest encrypted backup")));
        }
    }
    Ok(exit_code::DONE)
}

fn rotate(app: Option<&str>, surface: Surface<'_>) -> Result<u8> {
    let console = surface.console;
    let rotated = surface.app.rotate_key(app, &super::working_dir()?, surface.cancel)?;
    warn(&rotated.warnings, surface);
    if console.options.json {
        console.json("summary", &rotated);
        return Ok(exit_code::DONE);
    }
    console.info(format_args!("New key: {} ({})", rotated.path, rotated.envelope));
    console.info(format_args!("Old key: {}   the backups made until now still need it", rotated.old));
    rotated.recipients.iter().for_each(|recipient| console.line(format_args!("recipient: {recipient}")));
    for recipient in &rotated.replaces {
        console.warning(format_args!(
            "lifeboat.yaml still encrypts to the old key: put the recipient above in the place of {recipient}"
        ));
    }
    let option = if rotated.recipients.is_empty() { "--key-file" } else { "--identity-file" };
    let (app, old) = (&rotated.app, render::shell_path(rotated.old.as_ref()));
    console.info("Both have to be exported:");
    console.info(format_args!("Next: lifeboat key export {app} --paper"));
    console
        .info(format_args!("      lifeboat key export {app} {option} {old} --paper   unless it was exported before"));
    Ok(exit_code::DONE)
}

fn show(app: Option<&str>, counts: bool, surface: Surface<'_>) -> Result<u8> {
    let console = surface.console;
    let all = surface.app.show_keys(app, counts, &super::working_dir()?, surface.cancel)?;
    for app in &all {
        if console.options.json {
            console.json("keys", app);
        } else {
            render_app(app, surface);
        }
    }
    if all.is_empty() && !console.options.json {
        console.info("No app is encrypted.");
    }
    let needs_you = counts && all.iter().any(|app| !app.wrong.is_empty());
    Ok(if needs_you { exit_code::FAILED } else { exit_code::DONE })
}

fn render_app(app: &AppKeys, surface: Surface<'_>) {
    let console = surface.console;
    match app.envelope {
        Some(envelope) => console.info(format_args!("{}: {envelope}", app.app)),
        None => console.info(format_args!("{}: not encrypted", app.app)),
    }
    if let Some(password) = &app.password {
        console.info(format_args!("  its password comes from {password}"));
    }
    app.keys.iter().for_each(|key| render_key(key, surface));
    for recipient in &app.elsewhere {
        console.info(format_args!("  encrypted to {recipient}, whose identity is not on this host"));
    }
    if let Some(found) = &app.snapshots {
        render_snapshots(found, surface);
    }
    app.wrong.iter().for_each(|wrong| console.line(format_args!("  wrong: {wrong}")));
}

fn render_key(key: &KeyInfo, surface: Surface<'_>) {
    let console = surface.console;
    let role = if key.role == KeyRole::Current { "key" } else { "old key" };
    let what = if key.envelope == "age" { "identity of age" } else { "key file of openssl" };
    let mode = key.mode.as_ref().map_or("not there".to_owned(), |mode| format!("mode {mode}"));
    console.info(format_args!("  {role}: {} ({what}, {mode})", key.path));
    if let (Some(problem), Some(_)) = (&key.problem, &key.mode) {
        console.info(format_args!("    it cannot be used: {problem}"));
    }
    if key.problem.is_some() {
        return;
    }
    key.recipients.iter().for_each(|recipient| console.info(format_args!("    recipient {recipient}")));
    let when = |moment: Option<jiff::Timestamp>, none: &str| moment.map_or(none.to_owned(), render::moment);
    let imported = key.imported.map(|moment| format!(", imported {}", render::moment(moment))).unwrap_or_default();
    let (made, exported) = (when(key.made, "nobody knows when"), when(key.exported, "never"));
    console.info(format_args!("    made {made}{imported}, exported {exported}"));
    if let Some(opens) = key.opens {
        console.info(format_args!("    opens {}", render::count(opens, "backup")));
    }
}

fn render_snapshots(found: &SnapshotKeys, surface: Surface<'_>) {
    let console = surface.console;
    let mut parts = Vec::new();
    let numbers = [
        (found.with_password, "with a password"),
        (found.elsewhere, "for an identity that is not here"),
        (found.unknown, "not known for which key"),
    ];
    numbers.iter().filter(|(number, _)| *number > 0).for_each(|(number, what)| parts.push(format!("{number} {what}")));
    let parts = if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
    console.info(format_args!("  {}{parts}", render::count(found.encrypted, "encrypted backup")));
    for unopened in &found.unopened {
        let (id, path) = (render::short_id(unopened.id.as_deref()), &unopened.path);
        console.line(format_args!("  no key here opens {id} {} {path}", render::moment(unopened.created)));
    }
}
