//! What would become of the rows of a database that is not replaced as a whole:
//! tried out on a copy of it, which is thrown away.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use lifeboat_format::path::EntryPath;
use lifeboat_store::{self as store, durable};
use rustix::fs::Stat;

use super::{Spot, Survey};
use crate::report::Watch;
use crate::restore::live::database::log_of;
use crate::restore::live::merge::MergedDatabase;
use crate::restore::live::tree::{is_file, size};
use crate::restore::live::{Host, LiveRequest};
use crate::restore::single;
use crate::sqlite::{self, LOGS, Merged};
use crate::{Error, ErrorKind, Result};

/// A private folder for temporary files, gone when dropped. No stage: those are called otherwise.
struct Folder(PathBuf);

impl Folder {
    fn create(dir: &Path) -> Result<Self> {
        let path = dir.join(format!("lifeboat-{}", durable::random_hex()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| Error::from(store::Error::io("create a folder at", &path, error)))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to whoever cleans that directory.
        std::fs::remove_dir_all(&self.0).unwrap_or(());
    }
}

impl Survey<'_> {
    /// Whether the entry is a database whose rows go into the live one, which is noted.
    pub(super) fn has_rows(&mut self, path: &EntryPath, spot: &Spot<'_>, stat: Option<&Stat>) -> Result<bool> {
        let root = &self.plan.terms.roots[spot.number];
        let Some(wanted) = &root.rows else { return Ok(false) };
        let Some(stat) = stat.filter(|stat| is_file(stat)) else {
            if !wanted.tables.is_empty() {
                let what = format!("there is no live database {} that single tables could go into", root.shown());
                let next = "restore the whole database, with --only SOURCE and without --tables";
                self.plan.refuse(ErrorKind::Usage, what, next);
            }
            return Ok(false);
        };
        // Beside what the snapshot has, its copy is staged, and what SQLite needs to undo while it works.
        let mut bytes = size(stat).saturating_mul(2);
        for end in LOGS {
            bytes += self.stat(spot.place, &log_of(&spot.path, end))?.map_or(0, |log| size(&log));
        }
        self.needs[spot.place].0 = self.needs[spot.place].0.saturating_add(bytes);
        self.needs[spot.place].1 += 4;
        self.rows.push((spot.number, path.clone()));
        Ok(true)
    }

    /// Tries it out, and notes what comes of it.
    pub(super) fn rehearse(&mut self, request: &LiveRequest, host: &Host<'_>) -> Result<()> {
        for (number, path) in std::mem::take(&mut self.rows) {
            let root = self.plan.terms.roots[number].clone();
            let (Some(wanted), Some((place, at))) = (&root.rows, root.place(b"", &self.plan.terms.places)) else {
                continue;
            };
            let Some(stat) = self.stat(place, &at)?.filter(is_file) else { continue };
            let (live, is_used, cancel) = (root.path.as_path(), self.ground.is_open(&stat), self.watch.cancel);
            let try_out = |snapshot: &Path| {
                let mut copy = snapshot.with_file_name("live.db");
                match sqlite::copy_live(live, &copy, is_used, cancel) {
                    // Somebody writes to it whom we may not see.
                    Err(error) if error.kind() == ErrorKind::InUse && !is_used => {
                        copy = snapshot.with_file_name("pinned.db");
                        sqlite::copy_live(live, &copy, true, cancel)?;
                    }
                    copied => copied?,
                }
                sqlite::merge(&copy, snapshot, wanted, cancel)
            };
            let watch = Watch { monitor: &lifeboat_format::monitor::Silent, ..self.watch };
            let path = path.to_string();
            let folder = Folder::create(host.temp_dir)?;
            let tried = single::unpack(self.archive, &path, &folder.0, request.threads, watch)
                .and_then(|snapshot| try_out(&snapshot));
            drop(folder);
            match tried {
                Ok(merged) => self.note_rows(Spot { number, inner: b"", place, path: at }, &stat, merged)?,
                Err(error) => match error.kind() {
                    ErrorKind::Unsupported | ErrorKind::Usage | ErrorKind::InUse | ErrorKind::Failed => {
                        let next = error.next_step().unwrap_or("restore it with --mode overwrite").to_owned();
                        self.plan.refuse(error.kind(), error.what(), next);
                    }
                    ErrorKind::NoSpace => {
                        let dir = host.temp_dir.display();
                        let next = format!("make room in {dir}, or name another directory by TMPDIR");
                        return Err(error.next(next).state("nothing was written, and nothing was stopped"));
                    }
                    _ => return Err(error.state("nothing was written, and nothing was stopped")),
                },
            }
        }
        Ok(())
    }

    fn note_rows(&mut self, spot: Spot<'_>, stat: &Stat, merged: Merged) -> Result<()> {
        let root = self.plan.terms.roots[spot.number].clone();
        // A part may be of several versions of an app: `server_*` means what there is of that, if it is not all.
        let means_nothing = |pattern: &&String| merged.unmatched.len() == merged.asked || !pattern.contains('*');
        if let Some(pattern) = merged.unmatched.iter().find(means_nothing) {
            let error = sqlite::no_such_table(pattern, &merged.known);
            self.plan.refuse(ErrorKind::Usage, error.what(), error.next_step().unwrap_or_default());
        }
        let merged = MergedDatabase::of(&root, merged);
        if merged.changes() {
            self.replace(&spot, stat, false)?;
            for end in LOGS {
                let path = log_of(&spot.path, end);
                let Some(log) = self.stat(spot.place, &path)?.filter(is_file) else { continue };
                self.plan.counts.replaced_bytes = self.plan.counts.replaced_bytes.saturating_add(size(&log));
                self.plan.known.add(spot.place, &path, super::stamp(&log), false);
                let live = self.plan.terms.places[spot.place].live(&path);
                self.ground.note(&live, &log);
            }
        }
        self.plan.merges.push(merged);
        Ok(())
    }
}
