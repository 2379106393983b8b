//! Where a capture's units are written, in order, and how the spool becomes an
//! archive: the manifest is put before the body, and the table of frames after it.

use std::io::Write as _;
use std::path::Path;

use lifeboat_store::durable::Unnamed;
use lifeboat_store::{self as store, Cancel};

use super::codec::{self, Compression, Encoder};
use super::pack::Packed;
use super::summed::summed;
use super::{MANIFEST_NAME, UNIT_BYTES, header, padding};
use crate::Result;
use crate::envelope::{Facts, Seal, Writer};
use crate::model::{Entry, EntryKind, FileTime, Sha256, Xattrs};
use crate::path::EntryPath;
use crate::record::{Head, Totals};

/// A worker's result, with what it changes in the spool.
pub(super) struct Out {
    pub(super) change: Change,
    pub(super) frame: Vec<u8>,
    pub(super) raw_len: usize,
}

pub(super) enum Change {
    Entries(Vec<Packed>),
    LargeHeader(Begins),
    Piece(Option<LargeEnd>),
    /// The large file at hand failed: back to before what it began, or stands in.
    TakeOut,
}

/// What begins with the header of a large file.
#[derive(Clone, Copy)]
pub(super) enum Begins {
    /// The file alone.
    File,
    /// A group, with its first file.
    Group,
    /// No more than another file of the group at hand.
    InGroup,
}

/// How a large file ended well.
pub(super) struct LargeEnd {
    /// The header once more, when its size was not known at opening, or was less.
    pub(super) patch: Option<Vec<u8>>,
    pub(super) packed: Packed,
}

/// A tar body in the making, and the manifest's records beside it.
pub(super) struct Spool {
    body: Unnamed,
    frames: Vec<(u32, u32)>,
    /// Where the header of the large file at hand lies.
    large_header: Option<u64>,
    /// What is cut back to when that file fails.
    mark: Option<Mark>,
    records: Records,
    compression: Compression,
    totals: Totals,
}

fn frame_lens(frame: &[u8], raw_len: usize) -> (u32, u32) {
    let len = |len: usize| u32::try_from(len).expect("a unit is a few MiB");
    (len(frame.len()), len(raw_len))
}

impl Spool {
    pub(super) fn new(dir: &Path, compression: Compression) -> Result<Self> {
        Ok(Self {
            body: Unnamed::create(dir)?,
            frames: Vec::new(),
            large_header: None,
            mark: None,
            records: Records {
                file: Unnamed::create(dir)?,
                frames: Vec::new(),
                text: Vec::new(),
                text_len: 0,
                encoder: Encoder::new(compression)?,
            },
            compression,
            totals: Totals::default(),
        })
    }

    /// Writes `out` and gives its buffer back.
    pub(super) fn write(&mut self, out: Out) -> Result<Vec<u8>> {
        if let Change::LargeHeader(begins) = out.change {
            self.begin_large(begins)?;
        }
        if let Change::TakeOut = out.change {
            self.take_out()?;
            return Ok(out.frame);
        }
        self.body.append(&out.frame)?;
        self.frames.push(frame_lens(&out.frame, out.raw_len));
        match out.change {
            Change::Entries(all) => all.into_iter().try_for_each(|packed| self.record(packed))?,
            Change::Piece(Some(end)) => {
                let offset = self.large_header.take().expect("a large file begins with its header");
                if let Some(header) = end.patch {
                    self.body.patch(offset, &codec::stored(self.compression, &header))?;
                }
                self.record(end.packed)?;
            }
            Change::Piece(None) | Change::LargeHeader(_) | Change::TakeOut => {}
        }
        Ok(out.frame)
    }

    fn begin_large(&mut self, begins: Begins) -> Result<()> {
        self.large_header = Some(self.body.len());
        if let Begins::Group = begins {
            // The records of its files must not be compressed together with those before them.
            self.records.flush()?;
        }
        if let Begins::File | Begins::Group = begins {
            let (body, frames, totals) = (self.body.len(), self.frames.len(), self.totals);
            self.mark = Some(Mark { body, frames, totals, records: self.records.mark() });
        }
        Ok(())
    }

    fn take_out(&mut self) -> Result<()> {
        let mark = self.mark.take().expect("a large file begins with its header");
        self.body.cut_back(mark.body)?;
        self.frames.truncate(mark.frames);
        self.totals = mark.totals;
        self.records.cut_back(mark.records)
    }

    fn record(&mut self, packed: Packed) -> Result<()> {
        self.totals.entries += 1;
        self.totals.files += u64::from(packed.is_file);
        self.totals.bytes += packed.bytes;
        self.totals.sparse_bytes += if packed.is_sparse { packed.bytes } else { 0 };
        self.records.push(&packed.record)
    }

    pub(super) fn finish(mut self) -> Result<Captured> {
        self.records.flush()?;
        Ok(Captured {
            compression: self.compression,
            body: self.body,
            frames: self.frames,
            records: self.records,
            totals: self.totals,
        })
    }
}

/// A place in the spool that it may be cut back to.
struct Mark {
    body: u64,
    frames: usize,
    totals: Totals,
    records: RecordsMark,
}

/// The same for the records: what was compressed, and how long the text is that waits.
struct RecordsMark {
    file: u64,
    frames: usize,
    text_len: u64,
    waiting: usize,
}

/// The records of the manifest, compressed as they come.
struct Records {
    file: Unnamed,
    frames: Vec<(u32, u32)>,
    text: Vec<u8>,
    text_len: u64,
    encoder: Encoder,
}

impl Records {
    fn push(&mut self, record: &[u8]) -> Result<()> {
        if self.text_len + self.text.len() as u64 > 0 {
            self.text.extend_from_slice(b",\n");
        }
        self.text.extend_from_slice(record);
        if self.text.len() >= UNIT_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        if self.text.is_empty() {
            return Ok(());
        }
        let mut frame = Vec::new();
        self.encoder.encode(&self.text, &mut frame)?;
        self.file.append(&frame)?;
        self.frames.push(frame_lens(&frame, self.text.len()));
        self.text_len += self.text.len() as u64;
        self.text.clear();
        Ok(())
    }

    fn mark(&self) -> RecordsMark {
        let (file, frames) = (self.file.len(), self.frames.len());
        RecordsMark { file, frames, text_len: self.text_len, waiting: self.text.len() }
    }

    /// Forgets what was pushed after `mark`. Nothing that waited then may have been flushed since.
    fn cut_back(&mut self, mark: RecordsMark) -> Result<()> {
        self.file.cut_back(mark.file)?;
        self.frames.truncate(mark.frames);
        self.text_len = mark.text_len;
        self.text.truncate(mark.waiting);
        Ok(())
    }
}

/// A captured body that waits for its manifest's head.
pub struct Captured {
    compression: Compression,
    body: Unnamed,
    frames: Vec<(u32, u32)>,
    records: Records,
    totals: Totals,
}

impl std::fmt::Debug for Captured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Captured").field("totals", &self.totals).finish_non_exhaustive()
    }
}

impl Captured {
    /// What was captured.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The finished archive, in an unnamed file in `dir`: the manifest with
    /// `head`, then the body.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self, dir: &Path, head: &Head) -> Result<Unnamed> {
        let mut file = Unnamed::create(dir)?;
        self.write_to(&mut Plain { file: &mut file, grown: &|_| {} }, head)?;
        Ok(file)
    }

    /// The same in the envelope that `seal` makes, and what is known of that.
    ///
    /// # Errors
    /// When it cannot be written, or on cancel.
    pub fn finish_sealed(self, dir: &Path, head: &Head, seal: &Seal, cancel: &Cancel) -> Result<(Unnamed, Facts)> {
        let mut writer = seal.begin(Unnamed::create(dir)?)?;
        self.write_to(&mut Sealed { writer: &mut writer, dir, cancel }, head)?;
        seal.end(writer, dir)
    }

    /// The same, with the sum of all of the archive.
    ///
    /// # Errors
    /// When it cannot be written or read back, or on cancel.
    pub fn finish_summed(self, dir: &Path, head: &Head, cancel: &Cancel) -> Result<(Unnamed, Sha256)> {
        let mut file = Unnamed::create(dir)?;
        let sum = summed(&mut file, cancel, |file, grown| self.write_to(&mut Plain { file, grown }, head))?;
        Ok((file, sum))
    }

    fn write_to(self, sink: &mut dyn Sink, head: &Head) -> Result<()> {
        let mut out = Output { sink, frames: Vec::new(), encoder: Encoder::new(self.compression)? };
        let mut json = serde_json::to_string(head).expect("a head has nothing that JSON lacks");
        assert_eq!(json.pop(), Some('}'), "a head is a JSON object");
        json.push_str(",\"files\":[\n");
        let tail = b"\n]}\n";
        let size = json.len() as u64 + self.records.text_len + tail.len() as u64;
        let mut start = header::encode(&manifest_entry(size, head)?);
        start.extend_from_slice(json.as_bytes());
        out.unit(&start)?;
        out.append(self.records.file, &self.records.frames)?;
        let mut end = tail.to_vec();
        end.resize(end.len() + padding(size), 0);
        out.unit(&end)?;
        out.append(self.body, &self.frames)?;
        // Two blocks of zeros end a tar archive.
        out.unit(&[0; 1024])?;
        if let Compression::Zstd(_) = self.compression {
            out.sink.append(&codec::seek_table(&out.frames))?;
        }
        Ok(())
    }
}

/// Where a finished archive is written.
trait Sink {
    fn append(&mut self, bytes: &[u8]) -> Result<()>;
    /// Appends the whole of `spool`, which gives up its space as it goes.
    fn append_all_of(&mut self, spool: Unnamed) -> Result<()>;
}

struct Plain<'a> {
    file: &'a mut Unnamed,
    /// Told how long the file is while another is copied into it.
    grown: &'a dyn Fn(u64),
}

impl Sink for Plain<'_> {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.file.append(bytes)?)
    }

    fn append_all_of(&mut self, spool: Unnamed) -> Result<()> {
        Ok(self.file.append_all_of(spool, self.grown)?)
    }
}

/// The same inside an envelope.
struct Sealed<'a> {
    writer: &'a mut Writer<Unnamed>,
    dir: &'a Path,
    cancel: &'a Cancel,
}

impl Sink for Sealed<'_> {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let failed = |error| store::Error::io("write in", self.dir, error);
        Ok(self.writer.write_all(bytes).map_err(failed)?)
    }

    fn append_all_of(&mut self, spool: Unnamed) -> Result<()> {
        self.writer.take_all_of(spool, self.dir, self.cancel)
    }
}

struct Output<'a> {
    sink: &'a mut dyn Sink,
    frames: Vec<(u32, u32)>,
    encoder: Encoder,
}

impl Output<'_> {
    fn unit(&mut self, raw: &[u8]) -> Result<()> {
        let mut frame = Vec::new();
        self.encoder.encode(raw, &mut frame)?;
        self.sink.append(&frame)?;
        self.frames.push(frame_lens(&frame, raw.len()));
        Ok(())
    }

    fn append(&mut self, spool: Unnamed, frames: &[(u32, u32)]) -> Result<()> {
        self.sink.append_all_of(spool)?;
        self.frames.extend_from_slice(frames);
        Ok(())
    }
}

fn manifest_entry(size: u64, head: &Head) -> Result<Entry> {
    Ok(Entry {
        path: EntryPath::new(MANIFEST_NAME)?,
        kind: EntryKind::File,
        size,
        mode: 0o644,
        uid: 0,
        gid: 0,
        user: Vec::new(),
        group: Vec::new(),
        mtime: FileTime { seconds: head.created.as_second(), nanos: 0 },
        target: Vec::new(),
        rdev: None,
        xattrs: Xattrs::default(),
        sparse: false,
    })
}
