//! Bytes to snapshots and back. Knows the formats, and neither where sources
//! come from nor what a restore does with what it reads.
#![warn(missing_docs)]

// What a snapshot is made of.
pub mod model;
pub mod path;
pub mod record;
// How entries come in, and what is told meanwhile.
pub mod capture;
pub mod monitor;
// The forms a snapshot can take.
pub mod archive;
pub mod envelope;

#[cfg(feature = "testing")]
pub mod fuzzing;

mod error;

pub use error::{Error, ErrorKind, Result};
