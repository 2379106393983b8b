//! The rules of backup and restore. No terminal, no HTTP server, no clock of its own:
//! what happens is told to a [`Monitor`], what came out is a report.

// What the user wrote.
pub mod config;
mod presets;
// What can be backed up.
mod mariadb;
mod pg;
mod reach;
mod source;
mod sqlite;
// The two flows, and what is asked beside them.
mod backup;
mod export;
mod restore;
mod runs;
// The programs of others: how they are run, stopped, started and asked.
mod checks;
mod exec;
pub mod freeze;
pub mod health;
pub mod keys;
pub mod services;
// Where snapshots lie.
mod destination;
// What both stand on.
mod beneath;
pub mod clock;
mod error;
mod holders;
mod lock;
mod mounts;
mod naming;
mod ours;
mod overview;
mod processes;
mod report;
mod scratch;
mod size;
mod tables;
mod tally;
mod version;
mod workers;
// The one door.
pub mod app;

#[cfg(feature = "testing")]
pub mod fuzzing;

pub use app::App;
pub use error::{Error, ErrorKind, Result};
pub use lifeboat_format::monitor::{Monitor, Problem, ProblemClass};
pub use lifeboat_store::Cancel;
