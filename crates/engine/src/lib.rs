//! The rules of backup and restore. No terminal, no HTTP, no clock of its own:
//! what happens is told to a [`Monitor`], what came out is a report.

// What can be backed up.
mod source;
// The two flows.
mod backup;
mod restore;
// What both stand on.
mod beneath;
pub mod clock;
mod error;
mod ours;
mod report;
mod size;
mod tally;
mod workers;
// The one door.
pub mod app;

pub use app::App;
pub use error::{Error, ErrorKind, Result};
pub use lifeboat_format::monitor::{Monitor, Problem, ProblemClass};
pub use lifeboat_store::Cancel;
