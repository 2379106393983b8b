//! The services that stand still while a source is read because its `stop`
//! names them: each from the moment its source is begun until the last file of
//! that source was read. What the whole app freezes is another matter
//! (`freeze::with_frozen`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use lifeboat_store::durable;

use crate::freeze::{self, Freezing, Frozen, Pauses};
use crate::services::{How, Service};
use crate::source::roots::{Held, Holder};
use crate::{Cancel, Error, Result};

/// Stops and starts them.
pub(super) struct Stops<'a> {
    /// The services of each source that names some.
    of: BTreeMap<String, Vec<Service>>,
    freezing: Freezing<'a>,
    cancel: &'a Cancel,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// One for each time that a service was stopped.
    stopped: Vec<Stopped>,
    failed: Vec<(String, Error)>,
}

struct Stopped {
    service: String,
    /// Alive while a source needs it stopped.
    frozen: Weak<Frozen>,
    pauses: Pauses,
    /// The sources that it was stopped for.
    sources: Vec<String>,
}

impl<'a> Stops<'a> {
    pub(super) fn new(of: BTreeMap<String, Vec<Service>>, freezing: Freezing<'a>, cancel: &'a Cancel) -> Self {
        Self { of, freezing, cancel, seen: Mutex::default() }
    }

    /// The sources that were not read, because a service did not stop. Once.
    pub(super) fn failed(&self) -> Vec<(String, Error)> {
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner).failed)
    }

    /// To be called when everything was read: adds what became of the services to
    /// the pauses of the run. How long services stood still for each source.
    pub(super) fn end(&self) -> BTreeMap<String, Duration> {
        let mut longest: BTreeMap<String, Duration> = BTreeMap::new();
        for stopped in self.seen.lock().unwrap_or_else(PoisonError::into_inner).stopped.drain(..) {
            let seen = stopped.pauses.take();
            let pause = seen.pauses.iter().map(|pause| pause.pause).max().unwrap_or_default();
            for source in stopped.sources {
                let known = longest.entry(source).or_default();
                *known = pause.max(*known);
            }
            self.freezing.pauses.put(seen);
        }
        longest
    }

    /// Stops `service` for `source`, unless another source has it stopped.
    fn stop(&self, source: &str, service: &Service, seen: &mut Seen) -> Result<Arc<Frozen>> {
        let is_it = |stopped: &&mut Stopped| stopped.service == service.name;
        let known =
            seen.stopped.iter_mut().filter(is_it).find_map(|stopped| Some((stopped.frozen.upgrade()?, stopped)));
        if let Some((frozen, stopped)) = known {
            stopped.sources.push(source.to_owned());
            return Ok(frozen);
        }
        // A collector of its own, so that it is known for whom it stood still, and an id of its own for its note.
        let (pauses, id) = (Pauses::default(), durable::random_hex());
        let freezing = Freezing { id: &id, pauses: &pauses, ..self.freezing };
        let done = freeze::freeze(std::slice::from_ref(service), How::Stopped, freezing, self.cancel);
        let frozen = done.as_ref().map_or_else(|_| Weak::new(), Arc::downgrade);
        let (service, sources) = (service.name.clone(), vec![source.to_owned()]);
        seen.stopped.push(Stopped { service, frozen, pauses, sources });
        done
    }
}

impl Holder for Stops<'_> {
    fn hold(&self, name: &str) -> Option<Held> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut held = Vec::new();
        for service in self.of.get(name).into_iter().flatten() {
            match self.stop(name, service, &mut seen) {
                // They start in the opposite order.
                Ok(frozen) => held.insert(0, frozen),
                Err(error) => {
                    seen.failed.push((name.to_owned(), error));
                    return None;
                }
            }
        }
        Some(Arc::new(held))
    }
}
