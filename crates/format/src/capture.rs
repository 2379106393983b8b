//! How the content of a snapshot comes in: a source lists entries in order,
//! and whoever writes the snapshot opens and reads them, on many threads.

use std::io::Read;

use crate::model::Entry;
use crate::monitor::Problem;
use crate::path::EntryPath;

/// The size of content that shows only when it was read to its end, for example
/// of what a program prints.
pub const SIZE_UNKNOWN: u64 = u64::MAX;

/// The entries of all sources, in the order of their paths.
pub trait Entries: Send {
    /// The next one of the stretch at hand. Lists and never reads content: all
    /// readers wait meanwhile.
    fn next(&mut self) -> Option<Box<dyn Item>>;

    /// Goes on to the next stretch; false when there is none. Called at the end
    /// of a stretch, when everything in it was read and closed.
    fn go_on(&mut self) -> bool {
        false
    }

    /// The entry at `path` is not in the snapshot after all: no later entry
    /// may be a hard link to it.
    fn lost(&mut self, path: &EntryPath);
}

/// An entry that was listed and not opened yet.
pub trait Item: Send {
    /// Where it will stand.
    fn path(&self) -> &EntryPath;

    /// Bytes of content it had when it was listed; or [`SIZE_UNKNOWN`].
    fn size(&self) -> u64;

    /// Whether it is a regular file.
    fn is_file(&self) -> bool;

    /// Whether it is a directory.
    fn is_dir(&self) -> bool {
        false
    }

    /// Whether later entries may be hard links to it.
    fn is_linked(&self) -> bool;

    /// The group of files that it stands or falls with; they follow each other.
    /// When one cannot be read to its end, nothing of its group is captured:
    /// what was is taken out, and the rest is not opened. The monitor is not
    /// told of it, because whoever made the content knows.
    fn group(&self) -> Option<&str> {
        None
    }

    /// Opens it. May be called again, to read it once more.
    ///
    /// # Errors
    /// A problem when it cannot be opened; it is then left out.
    fn open(&self) -> Result<Opened, Problem>;
}

/// An opened entry: what it was at that moment, and its content if it is a file.
pub struct Opened {
    /// Attributes and size at opening; the size may be [`SIZE_UNKNOWN`].
    pub entry: Entry,
    /// For a file.
    pub content: Option<Box<dyn Content>>,
}

/// The content of an open file.
pub trait Content: Read + Send {
    /// Compares the file with what it was at opening.
    fn settle(&mut self) -> Settled;
}

/// How a file stands after it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// As at opening.
    Same,
    /// Longer than at opening.
    Grew,
    /// Otherwise different.
    Changed,
}
