//! The one door for every surface: requests come in, reports go out. Each
//! method is one recipe of the engine.

use std::path::Path;

pub use lifeboat_format::archive::verify::Verdict;
pub use lifeboat_format::model::{EntryKind, Outcome};
pub use lifeboat_format::path::{EntryPath, shown};
pub use lifeboat_format::record::{Head, Record};

use crate::clock::Clock;
pub use crate::report::{
    Action, BackupPlan, BackupReport, BackupRequest, CompressionKind, FailedSource, LISTED_MAX, ListReport, PlanLine,
    PlannedSource, Problems, RestorePlan, RestoreReport, RestoreRequest, Selection, VerifyReport, Watch,
};
pub use crate::size::{size, size_of};
use crate::{Cancel, Result};

/// The engine as a surface sees it.
pub struct App<'a> {
    /// What time it is.
    pub clock: &'a dyn Clock,
}

impl App<'_> {
    /// Backs up paths into one archive.
    ///
    /// # Errors
    /// When no archive was made. An archive with problems is a report.
    pub fn backup(&self, request: &BackupRequest, watch: Watch<'_>) -> Result<BackupReport> {
        crate::backup::backup(self.clock, request, watch)
    }

    /// What [`App::backup`] would do. Lists everything and writes nothing.
    ///
    /// # Errors
    /// As [`App::backup`], as far as that can be known before.
    pub fn plan_backup(&self, request: &BackupRequest, watch: Watch<'_>) -> Result<BackupPlan> {
        crate::backup::plan(self.clock, request, watch)
    }

    /// The manifest's head of an archive; `None` for a foreign tar.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub fn head(&self, archive: &Path) -> Result<Option<Head>> {
        crate::restore::inspect::head(archive)
    }

    /// Tells `each` of every entry of an archive, from its manifest alone.
    ///
    /// # Errors
    /// When the archive cannot be read or `each` returns one.
    pub fn list(
        &self,
        archive: &Path,
        cancel: &Cancel,
        each: &mut dyn FnMut(&EntryPath, &Record) -> Result<()>,
    ) -> Result<ListReport> {
        crate::restore::inspect::list(archive, cancel, each)
    }

    /// Reads all of an archive; calls `opened` once with its head, then `each`
    /// for every file.
    ///
    /// # Errors
    /// When the archive does not open or its manifest is damaged.
    pub fn verify(
        &self,
        archive: &Path,
        threads: Option<usize>,
        watch: Watch<'_>,
        opened: &mut dyn FnMut(Option<&Head>),
        each: &mut dyn FnMut(&EntryPath, &Verdict),
    ) -> Result<VerifyReport> {
        crate::restore::inspect::verify(archive, threads, watch, opened, each)
    }

    /// What [`App::restore_to`] would do; tells `each` of every entry. Writes nothing.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub fn plan_restore_to(
        &self,
        request: &RestoreRequest,
        cancel: &Cancel,
        each: &mut dyn FnMut(PlanLine) -> Result<()>,
    ) -> Result<RestorePlan> {
        crate::restore::plan_to(request, cancel, each)
    }

    /// Restores an archive into a directory: all of it, or nothing.
    ///
    /// # Errors
    /// When nothing was restored; the target is then as it was.
    pub fn restore_to(&self, request: &RestoreRequest, watch: Watch<'_>) -> Result<RestoreReport> {
        crate::restore::restore_to(request, watch)
    }
}
