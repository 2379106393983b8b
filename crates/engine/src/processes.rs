//! The processes that run, as `/proc` shows them: what [`crate::holders`] and
//! [`crate::mounts`] go through. It only reads, and follows no process by name.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use lifeboat_format::path::shown;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags};
use rustix::io::{Errno, Result};

use crate::{Error, ErrorKind};

/// The flag of a kernel thread in `/proc/PID/stat`, see proc_pid_stat(5).
const PF_KTHREAD: u64 = 0x0020_0000;

/// What tells a file from all others, as `st_dev` and `st_ino` do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
}

/// A process. Its folder stays open, so that all that is read is of this one,
/// also when its number is given to another meanwhile.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    dir: OwnedFd,
}

/// Every process but ours, in the order of their numbers. One that ends
/// meanwhile stays out, or answers every question with an error.
pub(crate) fn others() -> crate::Result<impl Iterator<Item = crate::Result<Process>>> {
    // Not getpid(): this /proc may be of another PID namespace.
    let own = std::fs::read_link("/proc/self").map_err(failed)?;
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc").map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let pid = number(name.as_bytes(), 10).and_then(|pid| u32::try_from(pid).ok());
        pids.extend(pid.filter(|_| name != own));
    }
    pids.sort_unstable();
    // What may not be looked into can be opened so too, and is counted later.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(pids.into_iter().filter_map(move |pid| {
        match rustix::fs::openat(CWD, format!("/proc/{pid}"), flags, Mode::empty()) {
            Ok(dir) => Some(Ok(Process { pid, dir })),
            Err(Errno::NOENT | Errno::SRCH) => None,
            Err(error) => Some(Err(failed(error.into()))),
        }
    }))
}

fn failed(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Failed, format!("cannot read /proc: {error}"))
        .next("see that /proc is mounted; without it nobody knows who uses the files")
}

impl Process {
    /// Its folder.
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// The directory `name` in its folder.
    pub(crate) fn open_dir(&self, name: &str) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.dir, name, flags, Mode::empty())
    }

    /// What stands in the file `name` of its folder.
    pub(crate) fn read(&self, name: &str) -> std::io::Result<Vec<u8>> {
        let mut file =
            File::from(rustix::fs::openat(&self.dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(text)
    }

    /// The name of its program, for a person: anybody may choose it.
    pub(crate) fn command(&self) -> String {
        let mut name = self.read("comm").unwrap_or_default();
        name.pop_if(|last| *last == b'\n');
        shown(&name)
    }

    /// Whether it can use files at all. Threads of the kernel cannot, and what
    /// has ended and waits for its parent no longer does.
    pub(crate) fn is_live_program(&self) -> bool {
        match self.read("stat") {
            Ok(stat) => is_live_program(&stat),
            // With the option hidepid of /proc; then nobody can tell.
            Err(error) => error.kind() == std::io::ErrorKind::PermissionDenied,
        }
    }
}

fn is_live_program(stat: &[u8]) -> bool {
    // The name in parentheses may hold spaces and parentheses itself.
    let Some(end) = stat.iter().rposition(|byte| *byte == b')') else { return false };
    let mut fields = stat[end + 1..].split(|byte| *byte == b' ').skip(1);
    let state = fields.next().unwrap_or_default();
    let flags = fields.nth(5).and_then(|flags| number(flags, 10));
    !matches!(state, b"Z" | b"X") && flags.is_some_and(|flags| flags & PF_KTHREAD == 0)
}

/// What the link `name` in `dir` leads to, and of what type it is. Says what
/// is known: it asks no server, so that one that hangs does not hang us.
pub(crate) fn identity(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(Identity, FileType)> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    match rustix::fs::statx(dir, name, flags, StatxFlags::TYPE | StatxFlags::INO) {
        Ok(found) => {
            let dev = rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor);
            Ok((Identity { dev, ino: found.stx_ino }, FileType::from_raw_mode(found.stx_mode.into())))
        }
        // Before Linux 4.11, or behind a filter that does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => {
            let found = rustix::fs::statat(dir, name, AtFlags::NO_AUTOMOUNT)?;
            Ok((Identity { dev: found.st_dev, ino: found.st_ino }, FileType::from_raw_mode(found.st_mode)))
        }
        Err(error) => Err(error),
    }
}

/// The number that `digits` are, without a sign.
pub(crate) fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
    u64::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_the_kernel_and_ended_processes_use_no_files() {
        assert!(is_live_program(b"7 (a ) Z (b) S 1 2 3 0 -1 4194304 136 0 1\n"));
        assert!(!is_live_program(b"7 (kworker/0:0) I 2 0 0 0 -1 69238880 0 0\n"));
        assert!(!is_live_program(b"7 (sh) Z 1 2 3 0 -1 4194304 136 0 1\n"));
        assert!(!is_live_program(b""));
    }

    #[test]
    fn our_own_process_is_none_of_the_others() {
        let own = std::process::id();
        let others: Vec<Process> = others().unwrap().map(|process| process.unwrap()).collect();
        assert!(others.iter().all(|process| process.pid != own));
        assert!(others.iter().any(|process| process.is_live_program() && !process.command().is_empty()));
    }

    #[test]
    fn an_identity_is_that_of_stat() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let meta = dir.path().metadata().unwrap();
        let (found, file_type) = identity(CWD, dir.path().as_os_str().as_bytes()).unwrap();
        assert_eq!((found.dev, found.ino, file_type), (meta.dev(), meta.ino(), FileType::Directory));
    }
}
