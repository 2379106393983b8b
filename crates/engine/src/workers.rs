//! How many threads a run uses.

/// As many as asked for, else one for each core; at least one.
pub(crate) fn count(wanted: Option<usize>) -> usize {
    wanted.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1)
}
