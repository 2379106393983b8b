//! Reading all of an archive and saying of every file whether it is what the
//! manifest says. Goes on after damage, as far as the archive can be followed.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use lifeboat_store::Cancel;

use super::tar::{Body, link_target};
use super::walk::{Archive, Guard, Left, Listing, refuse_holes};
use crate::model::{Entry, EntryKind, Sha256, Summer};
use crate::path::EntryPath;
use crate::record::Record;
use crate::{Error, ErrorKind, Result};

/// What was found of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is what the manifest says.
    Pass,
    /// It is not, for this reason: `sha256 differs`, `missing`, `not listed`,
    /// `<attribute> differs`, or what its probe says.
    Fail(String),
}

/// What was found in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Regular files, and other entries that failed.
    pub files: u64,
    /// How many of them failed.
    pub failed: u64,
    /// All entries that were looked at.
    pub entries: u64,
    /// Bytes of content that were read.
    pub bytes: u64,
    /// Damage of the archive itself, the first place of it.
    pub damage: Option<String>,
    /// Whether there is a manifest to hold the files against.
    pub has_manifest: bool,
}

impl Findings {
    /// Whether the archive is whole: something was verified and nothing failed.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.has_manifest && self.failed == 0 && self.damage.is_none() && self.entries > 0
    }
}

/// Looks into the content of a file while it is read. Dropped without
/// [`ContentProbe::finish`] when the file fails otherwise.
pub trait ContentProbe {
    /// The next piece of the content.
    ///
    /// # Errors
    /// What is wrong with it, for a person; nothing more is asked then.
    fn write(&mut self, piece: &[u8]) -> std::result::Result<(), String>;

    /// That was all, and its sum is right.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    fn finish(self: Box<Self>) -> std::result::Result<(), String>;
}

/// Chooses the files whose content is looked into. Asked in the order of the
/// archive, on the thread that verifies, and one probe is done before the next.
pub type Probes<'a> = dyn Fn(&EntryPath) -> Option<Box<dyn ContentProbe>> + 'a;

/// Looks into nothing.
#[must_use]
pub fn no_probe(_: &EntryPath) -> Option<Box<dyn ContentProbe>> {
    None
}

/// Reads all of `archive` with `threads` decompressing ahead, and tells `each`
/// of every regular file, of every other entry that fails, and how many bytes
/// of content were read for it. A file whose sum is right fails when its probe does.
///
/// # Errors
/// When it cannot be read at all, the manifest is damaged, or `cancel` was set.
/// Damage after the manifest is a finding.
pub fn verify(
    archive: &Archive,
    threads: usize,
    cancel: &Cancel,
    probes: &Probes<'_>,
    each: &mut dyn FnMut(&EntryPath, &Verdict, u64),
) -> Result<Findings> {
    let mut findings = archive.side_by_side(threads, cancel, |body, records| {
        let records = records.map(|records| records as &mut dyn Listing);
        let findings = Findings { has_manifest: records.is_some(), ..Findings::default() };
        let (guard, files) = (Guard::default(), Seen::default());
        let mut verifier =
            Verifier { body, records, probes, each, findings, guard, files, ahead: None, left: Left::of(archive) };
        verifier.run()?;
        Ok(verifier.findings)
    })?;
    match archive.authenticate(cancel) {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            findings.damage.get_or_insert_with(|| error.to_string());
        }
        finished => finished?,
    }
    Ok(findings)
}

/// The paths so far of all but directories, as 64-bit hashes: hard links must lead to one.
#[derive(Default)]
struct Seen {
    hasher: RandomState,
    hashes: HashSet<u64>,
}

struct Verifier<'w> {
    body: &'w mut (dyn Body + 'w),
    records: Option<&'w mut (dyn Listing + 'w)>,
    probes: &'w Probes<'w>,
    each: &'w mut (dyn FnMut(&EntryPath, &Verdict, u64) + 'w),
    findings: Findings,
    guard: Guard,
    files: Seen,
    /// A record that was read and is of an entry further on.
    ahead: Option<(EntryPath, Record)>,
    left: Left,
}

impl Verifier<'_> {
    fn run(&mut self) -> Result<()> {
        loop {
            match self.body.next() {
                Ok(Some(entry)) => self.entry(&entry)?,
                Ok(None) => break,
                Err(error) => {
                    self.damage(error)?;
                    if !self.body.find_next_entry() {
                        break;
                    }
                }
            }
        }
        while let Some((path, record)) = self.next_record()? {
            self.verdict(&path, record.kind(), 0, Verdict::Fail("missing".to_owned()));
        }
        Ok(())
    }

    /// Remembers damage; any other failure ends the run.
    fn damage(&mut self, error: Error) -> Result<()> {
        match error.kind() {
            ErrorKind::Corrupt | ErrorKind::Unsafe => {
                self.findings.damage.get_or_insert_with(|| error.to_string());
                Ok(())
            }
            ErrorKind::Unsupported | ErrorKind::WrongKey | ErrorKind::Invalid | ErrorKind::Store(_) => Err(error),
        }
    }

    fn next_record(&mut self) -> Result<Option<(EntryPath, Record)>> {
        if let Some(ahead) = self.ahead.take() {
            return Ok(Some(ahead));
        }
        match &mut self.records {
            Some(records) => records.next(),
            None => Ok(None),
        }
    }

    fn verdict(&mut self, path: &EntryPath, kind: EntryKind, bytes: u64, verdict: Verdict) {
        self.findings.entries += 1;
        self.findings.bytes = self.findings.bytes.saturating_add(bytes);
        let failed = verdict != Verdict::Pass;
        if kind == EntryKind::File || failed {
            self.findings.files += 1;
            self.findings.failed += u64::from(failed);
            (self.each)(path, &verdict, bytes);
        }
    }

    fn entry(&mut self, entry: &Entry) -> Result<()> {
        if self.records.is_some()
            && let Err(error) = refuse_holes(self.body).and_then(|()| self.left.take(entry))
        {
            self.damage(error)?;
        }
        let fail = |reason: &str| Verdict::Fail(reason.to_owned());
        let listed = loop {
            match self.next_record()? {
                Some((path, record)) if path < entry.path => self.verdict(&path, record.kind(), 0, fail("missing")),
                Some((path, record)) if path == entry.path => break Some(record),
                Some(ahead) => {
                    self.ahead = Some(ahead);
                    break None;
                }
                None => break None,
            }
        };
        let before_content = match &listed {
            Some(record) => self.compare(entry, record)?,
            None if self.records.is_some() => fail("not listed"),
            None => Verdict::Pass,
        };
        let is_probed = entry.kind == EntryKind::File && before_content == Verdict::Pass;
        let mut probe = Probing::new(if is_probed { (self.probes)(&entry.path) } else { None });
        let (sum, bytes) = self.read_content(&mut probe)?;
        let expected = listed.and_then(|record| record.sha256());
        let verdict = match before_content {
            Verdict::Pass if sum.is_none() && expected.is_none() => fail("damaged"),
            Verdict::Pass if sum.is_none() || expected.is_some_and(|expected| Some(expected) != sum) => {
                fail("sha256 differs")
            }
            Verdict::Pass => probe.finish(),
            verdict => verdict,
        };
        self.verdict(&entry.path, entry.kind, bytes, verdict);
        Ok(())
    }

    /// Everything but the content.
    fn compare(&mut self, entry: &Entry, record: &Record) -> Result<Verdict> {
        if let Some(attribute) = record.difference(entry) {
            return Ok(Verdict::Fail(format!("{attribute} differs")));
        }
        if let Err(error) = self.guard.check_place(entry).and_then(|()| self.guard.check_link(entry)) {
            self.damage(error)?;
            return Ok(Verdict::Fail("unsafe".to_owned()));
        }
        match entry.kind {
            EntryKind::Dir => {}
            EntryKind::Hardlink => {
                let hash = self.files.hasher.hash_one(&link_target(&entry.target)?);
                if !self.files.hashes.contains(&hash) {
                    return Ok(Verdict::Fail("its file is missing".to_owned()));
                }
            }
            _ => {
                let hash = self.files.hasher.hash_one(&entry.path);
                self.files.hashes.insert(hash);
            }
        }
        Ok(Verdict::Pass)
    }

    /// The sum of the content, and how much of it there was. No sum where it is damaged.
    fn read_content(&mut self, probe: &mut Probing) -> Result<(Option<Sha256>, u64)> {
        let mut summer = Summer::new();
        let mut bytes = 0;
        loop {
            // Only where there is no sum to compare with, or the archive is refused anyway.
            bytes += self.body.hole();
            match self.body.content() {
                Ok(Some(piece)) => {
                    summer.update(&piece);
                    probe.write(&piece);
                    bytes += piece.len() as u64;
                }
                Ok(None) => return Ok((Some(summer.finish()), bytes)),
                Err(error) => {
                    self.damage(error)?;
                    self.body.find_next_entry();
                    return Ok((None, bytes));
                }
            }
        }
    }
}

/// What a probe says of the file at hand, if there is one.
struct Probing {
    probe: Option<Box<dyn ContentProbe>>,
    failure: Option<String>,
}

impl Probing {
    fn new(probe: Option<Box<dyn ContentProbe>>) -> Self {
        Self { probe, failure: None }
    }

    fn write(&mut self, piece: &[u8]) {
        if let Some(probe) = &mut self.probe
            && let Err(failure) = probe.write(piece)
        {
            (self.probe, self.failure) = (None, Some(failure));
        }
    }

    fn finish(self) -> Verdict {
        let finished = match (self.failure, self.probe) {
            (Some(failure), _) => Err(failure),
            (None, Some(probe)) => probe.finish(),
            (None, None) => Ok(()),
        };
        finished.map_or_else(Verdict::Fail, |()| Verdict::Pass)
    }
}
