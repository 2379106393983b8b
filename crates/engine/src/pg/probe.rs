//! Looking into dumps while an archive is verified. That the sums agree says
//! that a dump is what was captured; these say that it is whole.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::rc::Rc;

use lifeboat_format::archive::verify::ContentProbe;
use lifeboat_format::path::EntryPath;
use lifeboat_format::record::Head;

use super::facts;
use super::script::Closing;
use super::tools::{Access, Tools};
use crate::config::DumpFormat;
use crate::exec::Sink;
use crate::{Cancel, Result};

const CUT_SHORT: &str = "it does not end as a dump does: it was cut short";

/// The probes of one archive.
pub(crate) struct Probes {
    /// The dumps, by their entries.
    dumps: BTreeMap<Vec<u8>, Kind>,
    tools: Option<Tools>,
    cancel: Cancel,
    seen: Rc<RefCell<Seen>>,
}

/// Where a program is found that reads dumps.
pub(crate) enum Readers<'a> {
    /// Beside those that made them, if it is there.
    Beside(&'a [Tools]),
    /// In the usual places, and in these.
    In(&'a [PathBuf]),
}

/// What a dump is.
#[derive(Clone, Copy)]
enum Kind {
    /// Made for a server of this major version.
    Custom(u32),
    Plain,
}

#[derive(Default)]
struct Seen {
    /// Dumps that nothing here reads, and which version they are of.
    unread: Vec<(String, u32)>,
    has_failed: bool,
}

impl Probes {
    /// Those for the dumps that `head` names.
    ///
    /// # Errors
    /// On cancel.
    pub(crate) fn of(head: Option<&Head>, readers: &Readers<'_>, cancel: &Cancel) -> Result<Self> {
        let mut dumps = BTreeMap::new();
        let servers =
            head.into_iter().flat_map(|head| &head.sources).filter_map(|source| source.details.postgres.as_ref());
        for postgres in servers {
            for database in &postgres.databases {
                let kind = match database.format.as_str() {
                    "custom" => Kind::Custom(facts::major(postgres.server_version)),
                    "plain" => Kind::Plain,
                    _ => continue,
                };
                dumps.insert(database.path.clone().into_bytes(), kind);
            }
        }
        let needs_tools = dumps.values().any(|kind| matches!(kind, Kind::Custom(_)));
        let tools = if needs_tools { readers.find(cancel)? } else { None };
        Ok(Self { dumps, tools, cancel: cancel.clone(), seen: Rc::default() })
    }

    /// The one of a dump that comes without a manifest.
    ///
    /// # Errors
    /// On cancel.
    pub(crate) fn of_bare(
        path: &EntryPath,
        format: DumpFormat,
        readers: &Readers<'_>,
        cancel: &Cancel,
    ) -> Result<Self> {
        let mut probes = Self::of(None, readers, cancel)?;
        let kind = match format {
            DumpFormat::Custom => {
                probes.tools = readers.find(cancel)?;
                Kind::Custom(0)
            }
            DumpFormat::Plain => Kind::Plain,
        };
        probes.dumps.insert(path.as_bytes().to_vec(), kind);
        Ok(probes)
    }

    /// What looks into the entry `path`, if it is a dump.
    pub(crate) fn probe(&self, path: &EntryPath) -> Option<Box<dyn ContentProbe>> {
        let kind = *self.dumps.get(path.as_bytes())?;
        let path = path.to_string();
        match kind {
            Kind::Plain => Some(Box::new(Plain { closing: Closing::default(), seen: Rc::clone(&self.seen) })),
            Kind::Custom(major) => match self.tools.as_ref().filter(|tools| tools.major >= major) {
                Some(tools) => Some(Box::new(Custom::start(tools, (path, major), &self.cancel, &self.seen))),
                None => {
                    self.seen.borrow_mut().unread.push((path, major));
                    None
                }
            },
        }
    }

    /// Whether one of them found a dump that is not whole.
    pub(crate) fn have_failed(&self) -> bool {
        self.seen.borrow().has_failed
    }

    /// What was compared by its sum alone, for a person.
    pub(crate) fn notes(&self) -> Vec<String> {
        let line = |(path, major): &(String, u32)| {
            format!(
                "{path}: only its sum was compared: no pg_restore of version {major} or newer is installed here that reads it"
            )
        };
        self.seen.borrow().unread.iter().map(line).collect()
    }
}

impl Readers<'_> {
    /// The newest.
    fn find(&self, cancel: &Cancel) -> Result<Option<Tools>> {
        match self {
            Self::In(dirs) => Tools::readers(dirs, cancel),
            Self::Beside(tools) => {
                let readers = tools.iter().filter(|tools| tools.can_read());
                match readers.max_by_key(|tools| tools.major) {
                    Some(newest) => Ok(Some(newest.clone())),
                    None => Tools::readers(&[], cancel),
                }
            }
        }
    }
}

/// A dump in SQL, which says where it ends.
struct Plain {
    closing: Closing,
    seen: Rc<RefCell<Seen>>,
}

impl ContentProbe for Plain {
    fn write(&mut self, piece: &[u8]) -> std::result::Result<(), String> {
        self.closing.see(piece);
        Ok(())
    }

    fn finish(self: Box<Self>) -> std::result::Result<(), String> {
        let is_whole = self.closing.is_seen();
        self.seen.borrow_mut().has_failed |= !is_whole;
        if is_whole { Ok(()) } else { Err(CUT_SHORT.to_owned()) }
    }
}

/// A dump in the custom format, which pg_restore reads to its end.
struct Custom {
    /// Its entry, and the version of its server.
    dump: (String, u32),
    /// `None` where it is not looked into any more.
    sink: Option<Sink>,
    failure: Option<String>,
    seen: Rc<RefCell<Seen>>,
}

impl Custom {
    fn start(tools: &Tools, dump: (String, u32), cancel: &Cancel, seen: &Rc<RefCell<Seen>>) -> Self {
        let argv = tools.command("pg_restore", &["--file=/dev/null"]);
        let started = Access::none().tool(&argv).sink(cancel);
        let (sink, failure) = match started {
            Ok(sink) => (Some(sink), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Self { dump, sink, failure, seen: Rc::clone(seen) }
    }

    /// What pg_restore ended with.
    fn judge(&mut self, why: &str) -> std::result::Result<(), String> {
        self.sink = None;
        if why.contains("unsupported version") {
            // Made by a newer pg_dump than the server's version says.
            self.seen.borrow_mut().unread.push(self.dump.clone());
            return Ok(());
        }
        self.seen.borrow_mut().has_failed = true;
        Err(format!("pg_restore does not read all of it: {why}"))
    }
}

impl ContentProbe for Custom {
    fn write(&mut self, piece: &[u8]) -> std::result::Result<(), String> {
        if let Some(failure) = self.failure.take() {
            return self.judge(&failure);
        }
        let Some(sink) = &mut self.sink else { return Ok(()) };
        match sink.write_all(piece) {
            Ok(()) => Ok(()),
            Err(error) => self.judge(&error.to_string()),
        }
    }

    fn finish(mut self: Box<Self>) -> std::result::Result<(), String> {
        if let Some(failure) = self.failure.take() {
            return self.judge(&failure);
        }
        match self.sink.take().map(Sink::finish) {
            None | Some(Ok(())) => Ok(()),
            Some(Err(error)) => self.judge(&error.to_string()),
        }
    }
}
