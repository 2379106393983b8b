//! The one table from what happened to the exit code.

use lifeboat_engine::ErrorKind;
use lifeboat_engine::app::{BackupPlan, BackupReport, Problems, RestoreReport};

use crate::signals::Signal;

pub(super) const DONE: u8 = 0;
pub(super) const FAILED: u8 = 1;
const INCOMPLETE: u8 = 3;
pub(super) const UNREACHABLE: u8 = 15;
const SOURCE_FAILED: u8 = 18;

/// Where several codes apply, the first of these is returned.
const WORST_FIRST: [u8; 17] = [21, 20, 23, 13, 12, 22, 19, 18, 14, 16, 17, 10, 11, 15, 24, 3, 1];

/// The code of a failure; `signal` is the one that came, if any.
pub(super) fn of_kind(kind: ErrorKind, signal: Option<Signal>) -> u8 {
    match kind {
        ErrorKind::Failed => FAILED,
        ErrorKind::Usage => 2,
        ErrorKind::WrongKey => 12,
        ErrorKind::Corrupt => 13,
        ErrorKind::NoSpace => 14,
        ErrorKind::Unreachable => UNREACHABLE,
        ErrorKind::Denied => 16,
        ErrorKind::Unsupported => 17,
        ErrorKind::SourceFailed => SOURCE_FAILED,
        ErrorKind::VerificationFailed => 19,
        ErrorKind::ConfirmationNeeded | ErrorKind::InUse => 22,
        ErrorKind::Locked => 11,
        ErrorKind::RolledBack => 20,
        ErrorKind::RollbackIncomplete => 21,
        ErrorKind::Unsafe => 23,
        ErrorKind::Cancelled if signal == Some(Signal::Terminate) => 143,
        ErrorKind::Cancelled => 130,
    }
}

/// The worst of `codes`. One that is not in the list, such as that of a mistake, is better than all in it.
pub(super) fn worst(codes: &[u8]) -> u8 {
    let listed = WORST_FIRST.into_iter().find(|code| codes.contains(code));
    listed.or_else(|| codes.iter().copied().find(|code| *code != DONE)).unwrap_or(DONE)
}

fn of_sources(failed: usize, problems: &Problems) -> u8 {
    let failed = if failed > 0 { SOURCE_FAILED } else { DONE };
    worst(&[failed, of_problems(problems)])
}

pub(super) fn of_problems(problems: &Problems) -> u8 {
    if problems.is_incomplete { INCOMPLETE } else { DONE }
}

pub(super) fn of_backup(report: &BackupReport) -> u8 {
    let is_lost = report.shipped.iter().any(|shipped| shipped.error.is_some());
    worst(&[of_sources(report.failed_sources.len(), &report.problems), if is_lost { UNREACHABLE } else { DONE }])
}

/// The code that the backup itself would have, as far as that is known before.
pub(super) fn of_backup_plan(plan: &BackupPlan) -> u8 {
    let is_lost = plan.destinations.iter().any(|shipped| shipped.error.is_some());
    worst(&[of_sources(plan.failed_sources.len(), &plan.problems), if is_lost { UNREACHABLE } else { DONE }])
}

pub(super) fn of_restore(report: &RestoreReport) -> u8 {
    of_problems(&report.problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_codes_the_worst_is_returned() {
        assert_eq!(worst(&[]), 0);
        assert_eq!(worst(&[0, 0]), 0);
        assert_eq!(worst(&[0, 3]), 3);
        assert_eq!(worst(&[3, 18, 1]), 18);
        assert_eq!(worst(&[14, 13]), 13);
        assert_eq!((worst(&[0, 2]), worst(&[2, 3])), (2, 3));
    }

    #[test]
    fn a_stopped_run_says_which_signal_stopped_it() {
        assert_eq!(of_kind(ErrorKind::Cancelled, Some(Signal::Interrupt)), 130);
        assert_eq!(of_kind(ErrorKind::Cancelled, Some(Signal::Terminate)), 143);
    }
}
