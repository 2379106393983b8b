//! A snapshot as one portable file: tar, with `manifest.json` as its first
//! entry, in zstd frames or gzip members (`doc/formats.md`, "The archive").
//!
//! Writing: [`pipeline::capture`] compresses the entries into a spool while it
//! sums them; [`Captured::finish`] puts the manifest before them.
//! Reading: `decode` (bytes to units) → `tar` (units to entries) → [`walk`]
//! (entries beside the manifest's records) → [`verify`], or a restore.

mod bare;
pub mod codec;
mod contents;
mod decode;
mod header;
mod manifest;
mod pack;
pub mod pipeline;
mod sparse;
mod spool;
mod summed;
mod tar;
mod unit;
pub mod verify;
pub mod walk;

pub use codec::Compression;
pub use contents::Contents;
pub use spool::Captured;
pub use walk::{Archive, Walk};

/// The name of the first entry.
pub const MANIFEST_NAME: &str = "manifest.json";

/// How much of the tar stream is compressed on its own.
pub const UNIT_BYTES: usize = 4 << 20;

/// A block of a tar archive.
const BLOCK: usize = 512;

/// Whether a file that begins so can be an archive; at least 512 bytes where there are as many.
pub(crate) fn is_archive(head: &[u8]) -> bool {
    decode::Packing::detect(head).is_some()
}

/// Zero bytes that fill `len` up to whole blocks.
fn padding(len: u64) -> usize {
    let over = usize::try_from(len % BLOCK as u64).expect("below 512");
    (BLOCK - over) % BLOCK
}
