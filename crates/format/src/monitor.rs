//! What a long operation tells while it runs: how far it is, and what went
//! wrong without ending it. A thing that is only logged did not happen.

use serde::Serialize;

use crate::path::shown;

/// What kind of trouble a [`Problem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemClass {
    /// It could not be read, and is not in the snapshot.
    Unreadable,
    /// It has to be in the snapshot, and there is no such thing.
    Missing,
    /// It differed each time it was read; what was read last is in the snapshot.
    Changed,
    /// An attribute of it could not be read or restored.
    MetadataLost,
    /// A service that was to be paused ran while it was read.
    Unfrozen,
    /// A service that was paused could not be made to go on.
    StandsStill,
    /// It was gone when it was to be opened. A note.
    Vanished,
    /// It was appended to; it is stored up to the size it had. A note.
    Grew,
    /// It is left out on purpose: a socket, a FIFO, a device. A note.
    Skipped,
    /// A database that may be in use was copied as a plain file. A note.
    LiveDatabase,
    /// An attribute that only a privileged user may set was not set. A note.
    Unprivileged,
    /// A key was made, which somebody has to keep elsewhere too. A note.
    KeyMade,
}

impl ProblemClass {
    /// Whether it leaves the run as good as without it.
    #[must_use]
    pub fn is_note(self) -> bool {
        matches!(
            self,
            Self::Vanished | Self::Grew | Self::Skipped | Self::LiveDatabase | Self::Unprivileged | Self::KeyMade
        )
    }

    /// The word for it, as in `--json`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Missing => "missing",
            Self::Changed => "changed",
            Self::MetadataLost => "metadata-lost",
            Self::Unfrozen => "unfrozen",
            Self::StandsStill => "stands-still",
            Self::Vanished => "vanished",
            Self::Grew => "grew",
            Self::Skipped => "skipped",
            Self::LiveDatabase => "live-database",
            Self::Unprivileged => "unprivileged",
            Self::KeyMade => "key-made",
        }
    }
}

/// Something that went wrong on one object without ending the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What kind of trouble.
    pub class: ProblemClass,
    /// The object, escaped so that it is one line.
    pub object: String,
    /// What happened, for a person.
    pub message: String,
}

impl Problem {
    /// A problem of the object that `name` spells.
    pub fn new(class: ProblemClass, name: &[u8], message: impl Into<String>) -> Self {
        Self { class, object: shown(name), message: message.into() }
    }
}

/// Who is told. Called from every thread of a run.
pub trait Monitor: Sync {
    /// Something went wrong without ending the run.
    fn problem(&self, problem: Problem);

    /// `entries` more entries and `bytes` more bytes of content are done.
    fn advanced(&self, entries: u64, bytes: u64);

    /// Whether somebody is shown how far the run is, so that it is worth
    /// finding out how much there is to do.
    fn wants_total(&self) -> bool {
        false
    }

    /// There are about `entries` entries and `bytes` bytes of content to do.
    fn expected(&self, entries: u64, bytes: u64) {
        let _ = (entries, bytes);
    }
}

/// Tells nobody.
#[derive(Debug)]
pub struct Silent;

impl Monitor for Silent {
    fn problem(&self, _: Problem) {}
    fn advanced(&self, _: u64, _: u64) {}
}
