//! The note of what a run pauses: `journal/<id>.frozen`, lines of JSON. Its
//! first line is durable before the first freeze; which services were begun
//! follows without a sync, because only a restart of the machine could lose
//! that, and after one everything in the list is thawed. Whoever looks after
//! the services holds a shared lock on the note: one that nobody holds is dead.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_store as store;
use lifeboat_store::durable::{Unnamed, sync_dir};
use serde::{Deserialize, Serialize};

use crate::services::{Found, How, Service};
use crate::{Cancel, Error, ErrorKind, Result, lock};

const FORMAT: &str = "lifeboat-frozen/1";
/// What a note's name ends with.
const SUFFIX: &str = ".frozen";
/// How many notes one run may have at a time.
const NOTES_MAX: usize = 1000;
/// The waits between the tries of one thaw: whatever ends a run may end the
/// thaw command beside it, and a freeze may still be under way.
const TRY_AGAIN: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(300), Duration::from_secs(1)];

/// A service that a run pauses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) service: Service,
    pub(super) found: Found,
    pub(super) how: How,
}

/// The first line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Header {
    note: String,
    /// The run.
    pub(super) id: String,
    /// Its process, and when that began, in ticks since the machine did. For people: the lock decides.
    pid: u32,
    started: u64,
    /// Which start of the machine it was.
    boot: String,
    pub(super) services: Vec<Held>,
}

/// A line after the first: a service by its place in the list.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Pausing(usize),
    Resumed(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Untouched,
    Pausing,
    Resumed,
}

/// A service that could not be made to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) service: String,
    pub(super) what: String,
    /// The command that does it by hand.
    pub(super) by_hand: String,
}

/// An open note, locked for as long as it is open.
#[derive(Debug)]
pub(super) struct Note {
    file: File,
    path: PathBuf,
    pub(super) header: Header,
    states: Vec<State>,
}

fn dir(data_dir: &Path) -> PathBuf {
    data_dir.join("journal")
}

/// The paths of all notes, sorted.
pub(super) fn all(data_dir: &Path) -> Result<Vec<PathBuf>> {
    let dir = dir(data_dir);
    let listing = match std::fs::read_dir(&dir) {
        // What another user paused is not ours to let go on.
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied) => {
            return Ok(Vec::new());
        }
        listing => listing.map_err(|error| store::Error::io("list", &dir, error))?,
    };
    let mut found = Vec::new();
    for entry in listing {
        let path = entry.map_err(|error| store::Error::io("list", &dir, error))?.path();
        found.extend(path.extension().is_some_and(|end| end == &SUFFIX[1..]).then_some(path));
    }
    found.sort();
    Ok(found)
}

/// A note as it stands at `path`; `None` when it is gone.
pub(super) fn peek(path: &Path) -> Result<Option<(Header, bool)>> {
    let Some(note) = Note::open(path)? else { return Ok(None) };
    let is_live = matches!(note.file.try_lock(), Err(TryLockError::WouldBlock));
    Ok(Some((note.header, is_live)))
}

impl Note {
    /// A new note of the run `id`, durable and locked when this returns.
    pub(super) fn create(data_dir: &Path, id: &str, services: Vec<Held>) -> Result<Self> {
        let dir = dir(data_dir);
        lock::make_private_dir(&dir)?;
        let header = Header {
            note: FORMAT.to_owned(),
            id: id.to_owned(),
            pid: std::process::id(),
            started: started(),
            boot: boot(),
            services,
        };
        let mut file = Unnamed::create(&dir)?;
        file.append(line(&header)?.as_bytes())?;
        let more = (2..=NOTES_MAX).map(|number| format!("{id}-{number}{SUFFIX}"));
        let path = file.publish(std::iter::once(format!("{id}{SUFFIX}")).chain(more), 0o600)?;
        Self::share(&path)
    }

    /// Opens a note that is looked after, and joins in that.
    pub(super) fn share(path: &Path) -> Result<Self> {
        let gone = || Error::new(ErrorKind::Failed, format!("{} is gone", path.display()));
        let note = Self::open(path)?.ok_or_else(gone)?;
        // Waits for no longer than it takes somebody to look whether it is held.
        note.file.lock_shared().map_err(|error| store::Error::io("lock", path, error))?;
        Ok(note)
    }

    /// Opens a note that nobody looks after, and is the only one to do so;
    /// `None` when somebody does, or it is gone.
    pub(super) fn claim(path: &Path) -> Result<Option<Self>> {
        let Some(mut note) = Self::open(path)? else { return Ok(None) };
        match note.file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(store::Error::io("lock", path, error).into()),
        }
        // Who had it before may have gone on with it, or removed it.
        let metadata = note.file.metadata().map_err(|error| store::Error::io("look at", path, error))?;
        note.look_again()?;
        Ok((metadata.nlink() > 0).then_some(note))
    }

    fn open(path: &Path) -> Result<Option<Self>> {
        let file = match OpenOptions::new().read(true).append(true).open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|error| store::Error::io("open", path, error))?,
        };
        let mut text = String::new();
        (&file).read_to_string(&mut text).map_err(|error| store::Error::io("read", path, error))?;
        let damaged = |why: String| {
            Error::new(ErrorKind::Corrupt, format!("{} cannot be read: {why}", path.display()))
                .state("the services that it names may stand still")
                .next("see that they run, then remove the file")
        };
        let first = text.lines().next().unwrap_or_default();
        let header: Header = serde_json::from_str(first).map_err(|error| damaged(error.to_string()))?;
        if header.note != FORMAT {
            return Err(damaged(format!("it has the format {}", header.note)));
        }
        let states = states(&text, header.services.len());
        Ok(Some(Self { file, path: path.to_owned(), header, states }))
    }

    /// Reads what another process has noted since.
    pub(super) fn look_again(&mut self) -> Result<()> {
        let text = std::fs::read_to_string(&self.path);
        match text {
            Ok(text) => self.states = states(&text, self.states.len()),
            // Nobody removes it before everything runs.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.states.fill(State::Resumed),
            Err(error) => return Err(store::Error::io("read", &self.path, error).into()),
        }
        Ok(())
    }

    /// Whether nothing in it stands still any more.
    pub(super) fn is_thawed(&self) -> bool {
        self.states.iter().all(|state| *state == State::Resumed)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn enter(&mut self, service: usize, line: Line) -> Result<()> {
        let text = self::line(&line)?;
        self.file.write_all(text.as_bytes()).map_err(|error| store::Error::io("write to", &self.path, error))?;
        self.states[service] = if matches!(line, Line::Pausing(_)) { State::Pausing } else { State::Resumed };
        Ok(())
    }

    /// Pauses the service at that place in the list, which is noted before.
    pub(super) fn pause(&mut self, service: usize, cancel: Option<&Cancel>) -> Result<()> {
        self.enter(service, Line::Pausing(service))?;
        let held = &self.header.services[service];
        held.service.freeze(held.how, cancel)
    }

    /// Lets everything go on that may stand still, what was paused last first,
    /// and tells `resumed` of each right after. One that fails is tried again,
    /// and does not keep the others still.
    pub(super) fn thaw(&mut self, resumed: &mut dyn FnMut(usize)) -> Vec<Failure> {
        let is_other_boot = self.header.boot != boot();
        let may_be_paused = |state: &State| *state == State::Pausing || is_other_boot && *state == State::Untouched;
        let mut due: Vec<usize> = (0..self.states.len()).rev().filter(|at| may_be_paused(&self.states[*at])).collect();
        let mut pauses = TRY_AGAIN.iter();
        loop {
            let mut failures = Vec::new();
            due.retain(|at| {
                let held = self.header.services[*at].clone();
                let thawed = held.service.thaw(held.how);
                if let Err(error) = thawed {
                    let by_hand = held.service.thaw_line(held.how);
                    failures.push(Failure { service: held.service.name, what: error.to_string(), by_hand });
                    return true;
                }
                resumed(*at);
                // Not noted, it is thawed once more after a crash, which does no harm.
                self.enter(*at, Line::Resumed(*at)).unwrap_or(());
                self.states[*at] = State::Resumed;
                false
            });
            let Some(pause) = pauses.next().filter(|_| !due.is_empty()) else { return failures };
            std::thread::sleep(*pause);
        }
    }

    /// Removes the note: everything goes on. One that is gone already is fine.
    pub(super) fn remove(&self) -> Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(store::Error::io("remove", &self.path, error).into()),
            Ok(()) => Ok(sync_dir(self.path.parent().unwrap_or(Path::new("/")))?),
        }
    }
}

fn line(line: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string(line);
    let text = text.map_err(|error| Error::new(ErrorKind::Failed, format!("a note could not be made: {error}")))?;
    Ok(text + "\n")
}

/// A line that a crash cut short had not begun to count.
fn states(text: &str, services: usize) -> Vec<State> {
    let mut states = vec![State::Untouched; services];
    for line in text.lines().skip(1) {
        let (service, state) = match serde_json::from_str(line) {
            Ok(Line::Pausing(service)) => (service, State::Pausing),
            Ok(Line::Resumed(service)) => (service, State::Resumed),
            Err(_) => continue,
        };
        if let Some(known) = states.get_mut(service) {
            *known = state;
        }
    }
    states
}

fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// When this process began, in ticks since the machine did, see proc_pid_stat(5); 0 if nobody tells.
fn started() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    after_name.split_whitespace().nth(19).and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
}
