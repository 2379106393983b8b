//! `lifeboat __guard`: the process beside a backup that lets paused services go
//! on. A backup starts it and speaks to it; it is of no use to a person.

use lifeboat_engine::app::run_guard;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::exit_code;
use crate::signals;

/// Runs it. Nobody may be there to be told of an error; the note that stays says it.
pub(crate) fn run() -> u8 {
    let Ok(terminate) = signals::outlive(&[SIGHUP, SIGINT, SIGTERM]) else { return exit_code::FAILED };
    match run_guard(std::io::stdin(), std::io::stdout(), &terminate) {
        Ok(()) => exit_code::DONE,
        Err(_) => exit_code::FAILED,
    }
}
