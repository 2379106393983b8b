//! What a restore in place would do, as a value: made from the archive's list
//! and from what is live. No I/O here; `survey` looks. `--dry-run`, the
//! question before a restore, and the restore itself go by the same plan.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;

use jiff::Timestamp;
use lifeboat_format::model::Outcome;
use lifeboat_format::path::shown;
use serde::Serialize;

use super::apart::NotRestored;
use super::merge::MergedDatabase;
use super::servers::PlannedDatabase;
use super::terms::{Mode, Terms};
use crate::config::Keep;
use crate::report::{Action, LISTED_MAX};
use crate::services::Found;
use crate::size::size;
use crate::{Error, ErrorKind, Result};

/// A restore in place: what it would do and what stands in its way.
#[derive(Debug, Serialize)]
pub struct LivePlan {
    /// The archive.
    #[serde(serialize_with = "crate::report::as_shown")]
    pub archive: PathBuf,
    /// The snapshot's id.
    pub snapshot: String,
    /// The application.
    pub app: String,
    /// When the snapshot was made.
    pub created: Timestamp,
    /// How the backup ended.
    pub outcome: Outcome,
    /// What speaks against using it: it may have been changed by somebody without its key.
    pub lacks_hmac: Option<String>,
    /// Whether it is certain that somebody with its key made it.
    pub is_genuine: bool,
    /// What is done with what exists.
    pub mode: Mode,
    /// The databases of servers that would be made or replaced.
    pub databases: Vec<PlannedDatabase>,
    /// The roles that a server lacks and that would be made, without passwords.
    pub roles: Vec<String>,
    /// Databases whose dumps are SQL, which would be run; one line each.
    pub scripts: Vec<String>,
    /// The sources that are restored.
    pub roots: Vec<PlannedRoot>,
    /// What the snapshot lacks, one line each.
    pub lacks: Vec<String>,
    /// Entries that are not restored: answers to queries stand nowhere but in the snapshot.
    pub exports: Vec<String>,
    /// Sources that stay as they are.
    pub not_restored: Vec<NotRestored>,
    /// How much of what.
    #[serde(flatten)]
    pub counts: Counts,
    /// The first [`LISTED_MAX`] that would be overwritten.
    pub overwritten: Vec<String>,
    /// The first [`LISTED_MAX`] that would be deleted.
    pub deleted: Vec<String>,
    /// The first [`LISTED_MAX`] that differ and stay as they are (`merge`).
    pub conflicts: Vec<String>,
    /// What would become of the rows of databases that are not replaced as a whole.
    pub merges: Vec<MergedDatabase>,
    /// Room on each file system that is written to.
    pub space: Vec<PlannedSpace>,
    /// Services that would be stopped and started again.
    pub services: Vec<PlannedService>,
    /// How many health checks have to pass.
    pub health_checks: usize,
    /// How many checks of the data have to pass after them.
    pub checks: usize,
    /// The command that is run once the services run again.
    pub reload: Option<String>,
    /// What the configuration that the snapshot carries would do on this host,
    /// which has none of the app; one line each.
    pub acts: Vec<String>,
    /// Whether it is used, because somebody trusts it.
    pub is_trusted: bool,
    /// The versions of the application, where anything is known of them.
    pub version: Option<PlannedVersion>,
    /// Who uses what would be replaced.
    pub users: Vec<User>,
    /// What could not be looked at, one line each.
    pub unseen: Vec<String>,
    /// How long what is replaced is kept.
    #[serde(serialize_with = "as_text")]
    pub keep_replaced: Keep,
    /// Why it cannot be done as it is.
    #[serde(skip)]
    pub(super) refusals: Vec<Refusal>,
    #[serde(skip)]
    pub(super) terms: Terms,
    /// Stages in the roots, of whichever restores.
    #[serde(skip)]
    pub(super) stages: Vec<PathBuf>,
    #[serde(skip)]
    pub(super) known: Known,
}

/// How much of what a plan does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Regular files in what is restored.
    pub files: u64,
    /// Entries of every kind in it.
    pub entries: u64,
    /// Bytes of content in it.
    pub bytes: u64,
    /// Entries that do not exist yet.
    pub new: u64,
    /// Entries that replace something.
    pub overwrite: u64,
    /// Entries that are as in the snapshot already.
    pub same: u64,
    /// Live entries that are taken away.
    pub delete: u64,
    /// Existing entries that differ and stay (`merge`).
    pub conflict: u64,
    /// Live entries that the backup left out, and that stay.
    pub left_out: u64,
    /// Existing directories whose owner, mode or attributes change.
    pub attributes: u64,
    /// Bytes of content that are replaced or deleted.
    pub replaced_bytes: u64,
}

/// A source of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedRoot {
    /// Its name.
    pub source: String,
    /// Where it goes.
    pub root: String,
    /// Whether the configuration says so; otherwise only the archive does.
    pub is_configured: bool,
    /// Whether something is there.
    pub exists: bool,
}

/// The versions of an application.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedVersion {
    /// The one that the snapshot was made of.
    pub snapshot: Option<String>,
    /// The one that is installed here.
    pub here: Option<String>,
    /// Why that is not known.
    pub unknown: Option<String>,
}

/// Room on one file system.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedSpace {
    /// The directory beside which is staged.
    pub path: String,
    /// Bytes that staging takes at most.
    pub needed_bytes: u64,
    /// Bytes that are free, if the file system counts them.
    pub free_bytes: Option<u64>,
    /// Inodes that staging takes.
    pub needed_inodes: u64,
    /// Inodes that are free, if the file system counts them.
    pub free_inodes: Option<u64>,
}

/// A service of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedService {
    /// Its name.
    pub name: String,
    /// How it is now.
    pub found: Found,
    /// Whether it runs afterwards; a rollback leaves it as it was found.
    pub runs_then: bool,
}

/// Somebody who uses what would be replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct User {
    /// Process.
    pub pid: u32,
    /// Its command.
    pub command: String,
    /// The unit it belongs to.
    pub unit: Option<String>,
    /// `reading`, `writing`, `mapped` or `mounted`.
    pub how: &'static str,
    /// What it uses; the first of several things.
    pub path: String,
    /// How many things it uses so.
    pub count: u64,
    /// Whether it belongs to a service that is stopped.
    pub is_stopped: bool,
}

impl User {
    /// Whether it may go on while its files are replaced.
    #[must_use]
    pub fn only_reads(&self) -> bool {
        self.how == "reading"
    }

    /// One line.
    #[must_use]
    pub fn line(&self) -> String {
        let unit = self.unit.as_ref().map(|unit| format!(", {unit}")).unwrap_or_default();
        let more = if self.count > 1 { format!(" and {} more", self.count - 1) } else { String::new() };
        let how = match self.how {
            "reading" => "has open for reading",
            "writing" => "has open for writing",
            "mapped" => "runs or maps",
            _ => "has mounted",
        };
        format!("{} (pid {}{unit}) {how} {}{more}", self.command, self.pid, self.path)
    }
}

/// Why a plan is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) kind: ErrorKind,
    pub(super) what: String,
    pub(super) next: String,
}

/// What somebody agreed to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Consent {
    /// What the plan lists may be overwritten, deleted and stopped: the answer to its questions.
    pub agreed: bool,
    /// So may what appears after the plan was made (`--force`).
    pub force: bool,
    /// Roots that only the archive names may be written to.
    pub unauthenticated: bool,
}

/// What stood live when the plan was made, to know later what changed.
#[derive(Debug, Default)]
pub(super) struct Known {
    keys: RandomState,
    /// By the hash of the place and path: the hash of what stood there, and whether it is as in the snapshot.
    seen: HashMap<u64, (u64, bool)>,
}

impl Known {
    fn key(&self, place: usize, path: &[u8]) -> u64 {
        self.keys.hash_one((place, path))
    }

    pub(super) fn add(&mut self, place: usize, path: &[u8], stamp: u64, is_same: bool) {
        self.seen.insert(self.key(place, path), (stamp, is_same));
    }

    pub(super) fn knows(&self, place: usize, path: &[u8]) -> bool {
        self.seen.contains_key(&self.key(place, path))
    }

    /// Whether it was as in the snapshot, and nobody touched it since.
    pub(super) fn is_same_still(&self, place: usize, path: &[u8], stamp: u64) -> bool {
        self.seen.get(&self.key(place, path)) == Some(&(stamp, true))
    }

    /// It is not the same after all.
    pub(super) fn differs(&mut self, place: usize, path: &[u8]) {
        if let Some((_, is_same)) = self.seen.get_mut(&self.key(place, path)) {
            *is_same = false;
        }
    }
}

/// What stands at the place of an entry that is no directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Present {
    Nothing,
    Same,
    Other,
}

/// What becomes of an entry.
pub(super) fn action(mode: Mode, present: Present) -> Action {
    match (mode, present) {
        (_, Present::Nothing) => Action::New,
        (_, Present::Same) => Action::Same,
        (Mode::Merge, Present::Other) => Action::Conflict,
        (Mode::Overwrite | Mode::Full, Present::Other) => Action::Overwrite,
    }
}

impl LivePlan {
    /// Whether nothing would change.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        let counts = &self.counts;
        counts.new + counts.overwrite + counts.delete + counts.attributes == 0
            && self.databases.is_empty()
            && !self.merges.iter().any(MergedDatabase::changes)
    }

    /// Adds one line to what is counted and listed.
    pub(super) fn count(&mut self, action: Action, shown: &dyn std::fmt::Display, replaced_bytes: u64) {
        let counts = &mut self.counts;
        counts.replaced_bytes = counts.replaced_bytes.saturating_add(replaced_bytes);
        let (count, list) = match action {
            Action::New => return counts.new += 1,
            Action::Same => return counts.same += 1,
            Action::Merge => return,
            Action::Overwrite => (&mut counts.overwrite, &mut self.overwritten),
            Action::Delete => (&mut counts.delete, &mut self.deleted),
            Action::Conflict => (&mut counts.conflict, &mut self.conflicts),
        };
        *count += 1;
        if list.len() < LISTED_MAX {
            list.push(shown.to_string());
        }
    }

    pub(super) fn refuse(&mut self, kind: ErrorKind, what: impl Into<String>, next: impl Into<String>) {
        self.refusals.push(Refusal { kind, what: what.into(), next: next.into() });
    }

    /// What a person has to agree to; empty where nothing existing is touched.
    #[must_use]
    pub fn questions(&self) -> Vec<String> {
        let mut questions = Vec::new();
        let counted = |count: u64, what: &str| {
            let entries = if count == 1 { "1 existing entry".to_owned() } else { format!("{count} existing entries") };
            (count > 0).then(|| format!("{what} {entries}"))
        };
        if self.outcome == Outcome::Scope {
            let sources: Vec<&str> = self.roots.iter().map(|root| root.source.as_str()).collect();
            questions.push(format!("restore a snapshot of only a part of the app: {}", sources.join(", ")));
        }
        questions.extend(self.databases.iter().filter(|database| database.exists).map(PlannedDatabase::line));
        if !self.roles.is_empty() {
            let roles: Vec<String> = self.roles.iter().map(|role| shown(role.as_bytes())).collect();
            questions.push(format!("create the roles {}, without passwords", roles.join(", ")));
        }
        questions.extend(self.merges.iter().filter(|merged| merged.changes()).map(MergedDatabase::line));
        questions.extend(counted(self.counts.overwrite, "overwrite"));
        questions.extend(counted(self.counts.delete, "delete"));
        questions.extend(counted(self.counts.attributes, "change owner, mode or attributes of"));
        let stopped = self.services.iter().filter(|service| service.found != Found::Stopped);
        questions.extend(stopped.map(|service| format!("stop and start the service {}", service.name)));
        let readers = self.users.iter().filter(|user| user.only_reads() && !user.is_stopped);
        questions.extend(readers.map(|user| format!("go on although {}", user.line())));
        if self.is_nothing() { Vec::new() } else { questions }
    }

    /// The roots that only an archive that is not authenticated names.
    #[must_use]
    pub fn unauthenticated_roots(&self) -> Vec<&str> {
        let roots = self.roots.iter().filter(|root| !root.is_configured && !self.is_genuine);
        roots.map(|root| root.root.as_str()).collect()
    }

    /// Whether SQL of an archive would be run that may be anybody's.
    #[must_use]
    pub fn runs_foreign_sql(&self) -> bool {
        !self.scripts.is_empty() && !self.is_genuine
    }

    /// Refuses what cannot be done at all, whoever agrees.
    ///
    /// # Errors
    /// The first reason.
    pub fn check(&self) -> Result<()> {
        let refuse = |kind, what: String, next: &str| {
            Err(Error::new(kind, what).state("nothing was written, and nothing was stopped").next(next))
        };
        if let Some(refusal) = self.refusals.first() {
            return refuse(refusal.kind, refusal.what.clone(), &refusal.next);
        }
        for space in &self.space {
            let what = match space {
                PlannedSpace { free_bytes: Some(free), needed_bytes, .. } if needed_bytes > free => {
                    format!("need {}, have {}", size(*needed_bytes), size(*free))
                }
                PlannedSpace { free_inodes: Some(free), needed_inodes, .. } if needed_inodes > free => {
                    format!("need {needed_inodes} inodes, have {free}")
                }
                _ => continue,
            };
            let what = format!("not enough space in {}: {what}", space.path);
            return refuse(ErrorKind::NoSpace, what, "make room there, or restore elsewhere with --to DIR");
        }
        // A service that is stopped lets go of its files; whoever is left then ends the restore.
        let has_services = !self.services.is_empty();
        let blocking = self.users.iter().find(|user| !user.only_reads() && !user.is_stopped && !has_services);
        match blocking {
            Some(user) => refuse(
                ErrorKind::InUse,
                format!("in use: {}", user.line()),
                "stop it, or name what stops it under `services` in lifeboat.yaml; then run the same command again",
            ),
            None => Ok(()),
        }
    }

    /// Refuses what nobody agreed to.
    pub(super) fn check_consent(&self, consent: Consent) -> Result<()> {
        let unauthenticated = self.unauthenticated_roots();
        if !unauthenticated.is_empty() && !consent.unauthenticated && !self.is_nothing() {
            return Err(Error::new(
                ErrorKind::ConfirmationNeeded,
                format!(
                    "only the archive says that its content belongs to {}, and it is not authenticated",
                    unauthenticated.join(", ")
                ),
            )
            .state("nothing was written, and nothing was stopped")
            .next("if you trust the archive, agree at a terminal or add --allow-unauthenticated"));
        }
        if let (Some(lack), false) = (&self.lacks_hmac, consent.unauthenticated) {
            return Err(Error::new(ErrorKind::ConfirmationNeeded, lack.clone())
                .state("nothing was written, and nothing was stopped")
                .next("if you trust the archive, agree at a terminal or add --allow-unauthenticated"));
        }
        if self.runs_foreign_sql() && !consent.unauthenticated {
            let what =
                format!("the archive is not authenticated, and its SQL would be run: {}", self.scripts.join(", "));
            return Err(Error::new(ErrorKind::ConfirmationNeeded, what)
                .state("nothing was written, and nothing was stopped")
                .next("if you trust the archive, agree at a terminal or add --allow-unauthenticated"));
        }
        let questions = self.questions();
        if questions.is_empty() || consent.agreed || consent.force {
            return Ok(());
        }
        Err(Error::new(ErrorKind::ConfirmationNeeded, format!("it would {}", questions.join(", ")))
            .state("nothing was written, and nothing was stopped")
            .next("look at it with --dry-run; then agree at a terminal or add --force"))
    }
}

fn as_text<S: serde::Serializer>(
    value: &impl std::fmt::Display,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl LivePlan {
        fn empty() -> Self {
            Self {
                archive: PathBuf::new(),
                snapshot: String::new(),
                app: String::new(),
                created: Timestamp::UNIX_EPOCH,
                outcome: Outcome::Good,
                lacks_hmac: None,
                is_genuine: false,
                mode: Mode::Overwrite,
                databases: Vec::new(),
                merges: Vec::new(),
                roles: Vec::new(),
                scripts: Vec::new(),
                roots: Vec::new(),
                lacks: Vec::new(),
                exports: Vec::new(),
                not_restored: Vec::new(),
                counts: Counts::default(),
                overwritten: Vec::new(),
                deleted: Vec::new(),
                conflicts: Vec::new(),
                space: Vec::new(),
                services: Vec::new(),
                health_checks: 0,
                checks: 0,
                reload: None,
                acts: Vec::new(),
                is_trusted: false,
                version: None,
                users: Vec::new(),
                unseen: Vec::new(),
                keep_replaced: Keep::default(),
                refusals: Vec::new(),
                known: Known::default(),
                stages: Vec::new(),
                terms: Terms::default(),
            }
        }
    }

    #[test]
    fn what_exists_stays_in_a_merge_and_gives_way_otherwise() {
        use Present::{Nothing, Other, Same};
        for (mode, present, expected) in [
            (Mode::Overwrite, Nothing, Action::New),
            (Mode::Overwrite, Same, Action::Same),
            (Mode::Overwrite, Other, Action::Overwrite),
            (Mode::Full, Other, Action::Overwrite),
            (Mode::Merge, Nothing, Action::New),
            (Mode::Merge, Same, Action::Same),
            (Mode::Merge, Other, Action::Conflict),
        ] {
            assert_eq!(action(mode, present), expected, "{mode:?} {present:?}");
        }
    }

    #[test]
    fn something_is_the_same_only_as_long_as_nobody_touches_it() {
        let mut known = Known::default();
        known.add(0, b"a", 7, true);
        known.add(0, b"b", 7, false);
        assert!(known.is_same_still(0, b"a", 7) && !known.is_same_still(0, b"a", 8));
        assert!(!known.is_same_still(0, b"b", 7) && !known.is_same_still(1, b"a", 7));
        assert!(known.knows(0, b"b") && !known.knows(1, b"b"));
        known.differs(0, b"a");
        assert!(!known.is_same_still(0, b"a", 7));
    }

    fn user(how: &'static str, is_stopped: bool) -> User {
        User { pid: 7, command: "web".to_owned(), unit: None, how, path: "/srv/x".to_owned(), count: 1, is_stopped }
    }

    /// Shows R6.
    #[test]
    fn who_reads_is_asked_about_unless_a_service_that_is_stopped_does_and_who_writes_is_refused() {
        let with = |users: Vec<User>, services: Vec<PlannedService>| {
            let counts = Counts { overwrite: 1, ..Counts::default() };
            LivePlan { counts, users, services, ..LivePlan::empty() }
        };
        let asks = |plan: &LivePlan| plan.questions().iter().any(|question| question.contains("web (pid 7)"));
        assert!(asks(&with(vec![user("reading", false)], Vec::new())));
        assert!(!asks(&with(vec![user("reading", true)], Vec::new())));
        let refuses = |plan: &LivePlan| plan.check().is_err_and(|error| error.kind() == ErrorKind::InUse);
        for how in ["writing", "mapped", "mounted"] {
            assert!(refuses(&with(vec![user(how, false)], Vec::new())), "{how}");
            assert!(!refuses(&with(vec![user(how, true)], Vec::new())), "{how}");
            // Whether a service that commands stop lets go of it is seen when it has stopped.
            let service = PlannedService { name: "web".to_owned(), found: Found::Running, runs_then: true };
            assert!(!refuses(&with(vec![user(how, false)], vec![service])), "{how}");
        }
        assert!(!refuses(&with(vec![user("reading", false)], Vec::new())));
    }
}
