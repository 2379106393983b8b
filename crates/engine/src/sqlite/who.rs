//! Who holds a database, for messages.

use std::collections::BTreeSet;
use std::path::Path;

use super::identity_of;
use crate::holders::Holders;
use crate::processes::Identity;

/// Who locks the database at `path`: "python3 (pid 7)", or what is known.
pub(super) fn locks(path: &Path) -> String {
    let holders = users(path, &std::fs::read_to_string("/proc/locks").unwrap_or_default());
    if holders.is_empty() { "another process".to_owned() } else { holders.join(", ") }
}

/// Those who lock the database at `path` for writing, as `locks` (`/proc/locks`)
/// says; where nothing is found there, all who have it open.
fn users(path: &Path, locks: &str) -> Vec<String> {
    let Some(identity) = identity_of(path) else { return Vec::new() };
    let writers = writers(locks, identity);
    let found = Holders::look().unwrap_or_default();
    let holders = found.of(identity.dev, identity.ino);
    let said = |pid: &u32, command: &str| format!("{command} (pid {pid})");
    let all = holders.iter().map(|holder| said(&holder.pid, &holder.command));
    let of_writers = holders.iter().filter(|holder| writers.contains(&holder.pid));
    let of_writers: Vec<String> = of_writers.map(|holder| said(&holder.pid, &holder.command)).collect();
    if of_writers.is_empty() { all.collect() } else { of_writers }
}

/// The processes that lock a file with the inode of `identity` for writing, see
/// `proc_locks(5)`. The device is not compared: that of btrfs or overlay is another there.
fn writers(locks: &str, identity: Identity) -> BTreeSet<u32> {
    let of_line = |line: &str| {
        let mut fields = line.split_whitespace().skip_while(|field| *field != "POSIX" && *field != "OFDLCK");
        let access = fields.nth(2)?;
        let pid = fields.next()?.parse().ok()?;
        let ino: u64 = fields.next()?.rsplit(':').next()?.parse().ok()?;
        (access == "WRITE" && ino == identity.ino).then_some(pid)
    };
    locks.lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_are_read_from_the_list_of_locks() {
        let locks = "1: POSIX  ADVISORY  WRITE 12 fd:01:77 0 EOF\n\
                     1: -> POSIX  ADVISORY  WRITE 13 fd:01:77 0 EOF\n\
                     2: POSIX  ADVISORY  READ 14 fd:01:77 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 15 fd:01:77 0 EOF\n\
                     4: POSIX  ADVISORY  WRITE 16 fd:01:78 0 EOF\n";
        assert_eq!(writers(locks, Identity { dev: 1, ino: 77 }), BTreeSet::from([12, 13]));
    }
}
