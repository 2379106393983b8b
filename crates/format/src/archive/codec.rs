//! Compression of single units. Every unit is a zstd frame or a gzip member
//! of its own, with a checksum, so that units are made and read side by side.

use std::fmt;
use std::io::Write as _;

use flate2::Crc;
use flate2::write::GzEncoder;
use zstd::zstd_safe::{self, CCtx, CParameter};

use crate::{Error, ErrorKind, Result};

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// zstd at this level, 1 to 19.
    Zstd(u8),
    /// gzip at this level, 1 to 9.
    Gzip(u8),
}

impl Compression {
    /// zstd at `level`, by default 3.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] outside 1 to 19.
    pub fn zstd(level: Option<u8>) -> Result<Self> {
        in_range(level.unwrap_or(3), 19, "zstd").map(Self::Zstd)
    }

    /// gzip at `level`, by default 6.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] outside 1 to 9.
    pub fn gzip(level: Option<u8>) -> Result<Self> {
        in_range(level.unwrap_or(6), 9, "gzip").map(Self::Gzip)
    }

    /// What an archive's name ends with.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Zstd(_) => ".tar.zst",
            Self::Gzip(_) => ".tar.gz",
        }
    }
}

fn in_range(level: u8, max: u8, name: &str) -> Result<u8> {
    if (1..=max).contains(&level) {
        return Ok(level);
    }
    Err(Error::new(ErrorKind::Invalid, format!("{name} has the levels 1 to {max}, not {level}")))
}

/// Compresses units. One for each thread.
pub struct Encoder {
    kind: Kind,
}

enum Kind {
    Zstd(CCtx<'static>),
    Gzip(u8),
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encoder")
    }
}

fn out_of_memory(error: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Store(lifeboat_store::ErrorKind::Io), format!("the compressor failed: {error}"))
}

impl Encoder {
    /// An encoder for `compression`.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new(compression: Compression) -> Result<Self> {
        let kind = match compression {
            Compression::Zstd(level) => {
                let mut context = CCtx::try_create().ok_or_else(|| out_of_memory("no memory"))?;
                for parameter in [CParameter::CompressionLevel(i32::from(level)), CParameter::ChecksumFlag(true)] {
                    context.set_parameter(parameter).map_err(|code| out_of_memory(zstd_safe::get_error_name(code)))?;
                }
                Kind::Zstd(context)
            }
            Compression::Gzip(level) => Kind::Gzip(level),
        };
        Ok(Self { kind })
    }

    /// Compresses `raw` into `frame`, whose former content goes.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn encode(&mut self, raw: &[u8], frame: &mut Vec<u8>) -> Result<()> {
        frame.clear();
        match &mut self.kind {
            Kind::Zstd(context) => {
                frame.reserve(zstd_safe::compress_bound(raw.len()));
                context.compress2(frame, raw).map_err(|code| out_of_memory(zstd_safe::get_error_name(code)))?;
            }
            Kind::Gzip(level) => {
                let mut encoder = GzEncoder::new(std::mem::take(frame), flate2::Compression::new(u32::from(*level)));
                encoder.write_all(raw).map_err(out_of_memory)?;
                *frame = encoder.finish().map_err(out_of_memory)?;
            }
        }
        Ok(())
    }
}

/// `raw` as a frame or member that does not compress, so that the same number
/// of bytes always takes the same room and can be replaced later.
#[must_use]
pub fn stored(compression: Compression, raw: &[u8]) -> Vec<u8> {
    match compression {
        Compression::Zstd(_) => stored_zstd(raw),
        Compression::Gzip(_) => stored_gzip(raw),
    }
}

/// RFC 8878, 3.1.1: a frame of raw blocks.
fn stored_zstd(raw: &[u8]) -> Vec<u8> {
    const BLOCK_MAX: usize = 128 << 10;
    let mut frame = Vec::with_capacity(raw.len() + 64);
    frame.extend_from_slice(&0xFD2F_B528_u32.to_le_bytes());
    // Content size of 8 bytes, single segment, content checksum.
    frame.push(0b1110_0100);
    frame.extend_from_slice(&(raw.len() as u64).to_le_bytes());
    let blocks = raw.len().div_ceil(BLOCK_MAX).max(1);
    let mut chunks = raw.chunks(BLOCK_MAX);
    for index in 0..blocks {
        let chunk = chunks.next().unwrap_or_default();
        let last = u32::from(index + 1 == blocks);
        let len = u32::try_from(chunk.len()).expect("a block is at most 128 KiB");
        frame.extend_from_slice(&(len << 3 | last).to_le_bytes()[..3]);
        frame.extend_from_slice(chunk);
    }
    let sum = twox_hash::XxHash64::oneshot(0, raw);
    frame.extend_from_slice(&sum.to_le_bytes()[..4]);
    frame
}

/// RFC 1952 around RFC 1951, 3.2.4: a member of stored blocks.
fn stored_gzip(raw: &[u8]) -> Vec<u8> {
    const BLOCK_MAX: usize = 0xffff;
    let mut member = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let blocks = raw.len().div_ceil(BLOCK_MAX).max(1);
    let mut chunks = raw.chunks(BLOCK_MAX);
    for index in 0..blocks {
        let chunk = chunks.next().unwrap_or_default();
        let len = u16::try_from(chunk.len()).expect("a stored block is below 64 KiB");
        member.push(u8::from(index + 1 == blocks));
        member.extend_from_slice(&len.to_le_bytes());
        member.extend_from_slice(&(!len).to_le_bytes());
        member.extend_from_slice(chunk);
    }
    let mut crc = Crc::new();
    crc.update(raw);
    member.extend_from_slice(&crc.sum().to_le_bytes());
    member.extend_from_slice(&crc.amount().to_le_bytes());
    member
}

/// The table of frames that ends a zstd archive: a skippable frame in zstd's
/// seekable format, without checksums (each frame has its own), so that one
/// unit can be found without reading those before it.
/// Source: facebook/zstd, contrib/seekable_format/zstd_seekable_compression_format.md.
#[must_use]
pub fn seek_table(frames: &[(u32, u32)]) -> Vec<u8> {
    let body_len = frames.len() * 8 + 9;
    let mut table = Vec::with_capacity(body_len + 8);
    let le = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    table.extend_from_slice(&0x184D_2A5E_u32.to_le_bytes());
    table.extend_from_slice(&le(body_len));
    for (compressed_len, raw_len) in frames {
        table.extend_from_slice(&compressed_len.to_le_bytes());
        table.extend_from_slice(&raw_len.to_le_bytes());
    }
    table.extend_from_slice(&le(frames.len()));
    table.push(0);
    table.extend_from_slice(&0x8F92_EAB1_u32.to_le_bytes());
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn decoded(compression: Compression, frame: &[u8]) -> Vec<u8> {
        let mut raw = Vec::new();
        match compression {
            Compression::Zstd(_) => zstd::stream::copy_decode(frame, &mut raw).unwrap(),
            Compression::Gzip(_) => drop(flate2::read::GzDecoder::new(frame).read_to_end(&mut raw).unwrap()),
        }
        raw
    }

    #[test]
    fn stored_and_compressed_units_of_every_size_come_back() {
        let content: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[usize::from(n % 7 == 0)]).collect();
        for compression in [Compression::Zstd(3), Compression::Gzip(6)] {
            let mut encoder = Encoder::new(compression).unwrap();
            let mut frame = Vec::new();
            for len in [0, 1, 512, 0xffff, 0x10000, 131_072, 131_073, 300_000] {
                let raw = &content[..len];
                encoder.encode(raw, &mut frame).unwrap();
                assert_eq!(decoded(compression, &frame), raw);
                let unchanged = stored(compression, raw);
                assert_eq!(decoded(compression, &unchanged), raw);
                assert_eq!(unchanged.len(), stored(compression, &vec![0; len]).len());
            }
        }
    }

    #[test]
    fn levels_outside_the_range_are_refused() {
        assert!(Compression::zstd(Some(0)).is_err() && Compression::zstd(Some(20)).is_err());
        assert!(Compression::gzip(Some(10)).is_err());
        assert_eq!(Compression::zstd(None).unwrap(), Compression::Zstd(3));
    }
}
