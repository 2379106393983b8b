//! How the last run of each app ended: for `status`, which otherwise sees only
//! the snapshots that were made, and not that one failed.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use lifeboat_format::model::Outcome;
use lifeboat_store::durable::{self, Unnamed};
use serde::{Deserialize, Serialize};

use crate::report::BackupReport;
use crate::{Result, lock};

/// One run of a backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastRun {
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// How the backup ended; `None` when no snapshot was made.
    pub outcome: Option<Outcome>,
    /// Whether the run was complete: exit code 0.
    pub is_complete: bool,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

fn dir(data_dir: &Path, app: &str) -> PathBuf {
    data_dir.join("runs").join(lock::key(app, &[]))
}

/// Notes how a backup of `app` ended. That it cannot be noted ends nothing.
pub(crate) fn note_backup(data_dir: &Path, app: &str, began: Timestamp, ended: Timestamp, done: &Result<BackupReport>) {
    let run = match done {
        Ok(report) => {
            let failed: Vec<String> = report
                .failed_sources
                .iter()
                .map(|source| format!("source {}: {}", source.name, source.message))
                .chain(report.shipped.iter().filter_map(|shipped| shipped.error.clone()))
                .collect();
            LastRun {
                began,
                ended,
                outcome: Some(report.outcome),
                is_complete: failed.is_empty() && !report.problems.is_incomplete,
                error: (!failed.is_empty()).then(|| failed.join("; ")),
            }
        }
        Err(error) => LastRun { began, ended, outcome: None, is_complete: false, error: Some(error.to_string()) },
    };
    write(&dir(data_dir, app), &run).unwrap_or(());
}

fn write(dir: &Path, run: &LastRun) -> Result<()> {
    lock::make_private_dir(dir)?;
    let older: Vec<PathBuf> = names(dir);
    let mut file = Unnamed::create(dir)?;
    file.append(&serde_json::to_vec(run).expect("a run has nothing that JSON lacks"))?;
    file.publish([format!("{}-{}.json", run.began.as_microsecond(), durable::random_hex())], 0o600)?;
    older.iter().for_each(|path| std::fs::remove_file(path).unwrap_or(()));
    Ok(())
}

/// The files of runs in `dir`, the oldest first.
fn names(dir: &Path) -> Vec<PathBuf> {
    let listing = std::fs::read_dir(dir).into_iter().flatten().filter_map(std::io::Result::ok);
    let mut paths: Vec<PathBuf> =
        listing.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
    paths.sort();
    paths
}

/// How the last backup of `app` ended, if that is known.
pub(crate) fn last(data_dir: &Path, app: &str) -> Option<LastRun> {
    let path = names(&dir(data_dir, app)).pop()?;
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, ErrorKind};

    /// Shows P12.
    #[test]
    fn only_the_last_run_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(last(dir.path(), "web"), None);
        for second in [1, 2] {
            let at = Timestamp::from_second(second).unwrap();
            let failed = Err(Error::new(ErrorKind::Failed, format!("failed {second}")));
            note_backup(dir.path(), "web", at, at, &failed);
        }
        let run = last(dir.path(), "web").unwrap();
        assert_eq!((run.outcome, run.error.as_deref()), (None, Some("failed 2")));
        assert_eq!(names(&super::dir(dir.path(), "web")).len(), 1);
        assert_eq!(last(dir.path(), "mail"), None);
    }
}
