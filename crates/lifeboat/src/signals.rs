//! Ctrl-C and SIGTERM: the first asks the run to stop cleanly, the second ends
//! the program at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lifeboat_engine::{Cancel, Error, ErrorKind, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// What a signal sets.
pub(crate) struct Signals {
    /// Stops the run.
    pub(crate) cancel: Cancel,
    received: Arc<AtomicUsize>,
}

/// A signal that stops a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Interrupt,
    Terminate,
}

/// A token that `signals` set. They do not end the program, however often they come.
pub(crate) fn outlive(signals: &[i32]) -> std::io::Result<Cancel> {
    let cancel = Cancel::new();
    signals.iter().try_for_each(|signal| flag::register(*signal, cancel.flag()).map(|_| ()))?;
    Ok(cancel)
}

impl Signals {
    /// Watches from now on.
    pub(crate) fn watch() -> Result<Self> {
        let signals = Self { cancel: Cancel::new(), received: Arc::default() };
        for signal in [SIGINT, SIGTERM] {
            signals.register(signal).map_err(|error| {
                Error::new(ErrorKind::Failed, format!("could not prepare for signal {signal}: {error}"))
                    .state("nothing was begun")
            })?;
        }
        Ok(signals)
    }

    fn register(&self, signal: i32) -> std::io::Result<()> {
        // In this order: the check for a second signal must not see the first one's flag.
        flag::register_conditional_shutdown(signal, 128 + signal, self.cancel.flag())?;
        flag::register_usize(signal, Arc::clone(&self.received), usize::try_from(signal).unwrap_or(0))?;
        flag::register(signal, self.cancel.flag())?;
        Ok(())
    }

    /// The signal that came.
    pub(crate) fn received(&self) -> Option<Signal> {
        match i32::try_from(self.received.load(Ordering::SeqCst)) {
            Ok(SIGINT) => Some(Signal::Interrupt),
            Ok(SIGTERM) => Some(Signal::Terminate),
            _ => None,
        }
    }
}
