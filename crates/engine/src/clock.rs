//! Where the time of day comes from, so that tests can say what it is.

use jiff::{Timestamp, Zoned};

/// Tells the time.
pub trait Clock: Sync {
    /// The present moment in the host's time zone.
    fn now(&self) -> Zoned;

    /// The present moment.
    fn timestamp(&self) -> Timestamp {
        self.now().timestamp()
    }
}

/// The host's clock and time zone.
#[derive(Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the Clock that everybody else takes")]
    fn now(&self) -> Zoned {
        Zoned::now()
    }
}
