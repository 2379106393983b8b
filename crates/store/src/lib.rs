//! Bytes at rest: how they are written so that they survive, and the error
//! shape of everything that touches storage. Knows nothing of snapshots.
#![warn(missing_docs)]

pub mod cancel;
pub mod durable;
pub mod error;
pub mod log;

#[cfg(feature = "testing")]
pub mod testing;

pub use cancel::Cancel;
pub use error::{Error, ErrorKind, Result};
