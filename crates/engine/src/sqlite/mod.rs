//! placeholder
pub(crate) const LOGS: [&str; 3] = ["-wal", "-shm", "-journal"];
pub(crate) fn begins_like_one(start: &[u8]) -> bool {
    start.starts_with(b"SQLite format 3\0")
}
pub(crate) fn query_value(_: &std::path::Path, _: &str, _: std::time::Duration) -> crate::Result<Option<String>> {
    Ok(None)
}
