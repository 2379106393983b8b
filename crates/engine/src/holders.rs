//! Who has which file open: before a live file is swapped, nothing may use it.
//! `/proc` is gone through once; then each file is asked for by its identity.
//! Changes nothing, and stops nobody.
//!
//! Known gaps: files that only the kernel uses (swap files, loop devices,
//! layers of an overlay), and files that are open in a message between two
//! processes.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd as _;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode};
use rustix::io::Errno;

use crate::Result;
use crate::processes::{self, Identity, Process, identity, number};

/// How a file is used; the stronger, the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Held {
    /// Open for reading only, or the working or root directory of a process.
    Reading,
    /// Open for writing.
    Writing,
    /// Mapped into memory, or the program that runs.
    Mapped,
}

/// A process that uses a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Its number.
    pub(crate) pid: u32,
    /// The name of its program, escaped.
    pub(crate) command: String,
    /// The systemd service that it belongs to.
    pub(crate) unit: Option<String>,
    /// The strongest of its uses.
    pub(crate) how: Held,
}

/// Which processes, other than ours, use which files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holders {
    by_identity: HashMap<Identity, Vec<Holder>>,
    unseen: usize,
}

impl Holders {
    /// Goes through all processes. Threads share the files of their process.
    pub(crate) fn look() -> Result<Self> {
        let mut found = Self::default();
        for process in processes::others()? {
            let process = process?;
            let uses = Uses::of(&process);
            found.unseen += usize::from(uses.is_partial && process.is_live_program());
            if uses.held.is_empty() {
                continue;
            }
            let (command, unit) = (process.command(), unit(&process.read("cgroup").unwrap_or_default()));
            for (identity, how) in uses.held {
                let holder = Holder { pid: process.pid, command: command.clone(), unit: unit.clone(), how };
                found.by_identity.entry(identity).or_default().push(holder);
            }
        }
        Ok(found)
    }

    /// Who uses the file with these `st_dev` and `st_ino`: each process once,
    /// in the order of their numbers.
    pub(crate) fn of(&self, dev: u64, ino: u64) -> &[Holder] {
        self.by_identity.get(&Identity { dev, ino }).map_or(&[], Vec::as_slice)
    }

    /// How many processes could not be looked into, or not wholly. Without root
    /// these are those of other users; there may be some for root as well.
    pub(crate) fn unseen(&self) -> usize {
        self.unseen
    }
}

/// What one process uses.
#[derive(Default)]
struct Uses {
    held: HashMap<Identity, Held>,
    /// Whether something could not be read, mostly because that takes root.
    is_partial: bool,
}

impl Uses {
    fn of(process: &Process) -> Self {
        let mut uses = Self::default();
        uses.add_links(process);
        uses.add_open(process);
        uses.add_mapped(process);
        uses
    }

    fn add(&mut self, identity: Identity, how: Held) {
        let held = self.held.entry(identity).or_insert(how);
        *held = how.max(*held);
    }

    /// Notes what could not be read, unless the process or its file is gone
    /// since it was listed. Once a process has ended, some answers are that the
    /// right is missing; so ask also whether it lives.
    fn note(&mut self, error: Errno) {
        self.is_partial |= !matches!(error, Errno::NOENT | Errno::SRCH);
    }

    fn add_links(&mut self, process: &Process) {
        for (name, how) in [("cwd", Held::Reading), ("root", Held::Reading), ("exe", Held::Mapped)] {
            match identity(process.dir(), name.as_bytes()) {
                Ok((found, _)) => self.add(found, how),
                Err(error) => self.note(error),
            }
        }
    }

    fn add_open(&mut self, process: &Process) {
        let listed = process.open_dir("fd").and_then(|fd| Ok((Dir::read_from(&fd)?, fd)));
        let (names, fd) = match listed {
            Ok(listed) => listed,
            Err(error) => return self.note(error),
        };
        for name in names {
            let name = match &name {
                Ok(entry) => entry.file_name(),
                Err(error) => return self.note(*error),
            };
            // Not "." and "..".
            if !name.to_bytes().first().is_some_and(u8::is_ascii_digit) {
                continue;
            }
            match identity(fd.as_fd(), name.to_bytes()) {
                Ok((found, FileType::RegularFile | FileType::Directory | FileType::Fifo)) => {
                    // The link's own mode says what the file is open for, see proc_pid_fd(5).
                    let link = rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW);
                    let is_writing = link.is_ok_and(|link| Mode::from_raw_mode(link.st_mode).contains(Mode::WUSR));
                    self.add(found, if is_writing { Held::Writing } else { Held::Reading });
                }
                Ok(_) => {}
                Err(error) => self.note(error),
            }
        }
    }

    fn add_mapped(&mut self, process: &Process) {
        let text = match process.read("maps") {
            Ok(text) => text,
            Err(error) => return self.note(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        };
        // A file is mapped by several lines, one for each kind of access.
        let mut seen = HashSet::new();
        for mapping in text.split(|byte| *byte == b'\n').filter_map(Mapping::parse) {
            if seen.insert((mapping.said, mapping.name)) {
                self.add(mapping.identity(process), Held::Mapped);
            }
        }
    }
}

/// A line of `/proc/PID/maps` about a file, see proc_pid_maps(5).
struct Mapping<'a> {
    range: (u64, u64),
    said: Identity,
    name: &'a [u8],
}

impl<'a> Mapping<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let mut range = fields.next()?.splitn(2, |byte| *byte == b'-').map(|end| number(end, 16));
        let range = (range.next()??, range.next()??);
        let mut dev = fields.nth(2)?.splitn(2, |byte| *byte == b':').map(|part| number(part, 16)?.try_into().ok());
        let dev = rustix::fs::makedev(dev.next()??, dev.next()??);
        let ino = number(fields.next()?, 10).filter(|ino| *ino != 0)?;
        Some(Self { range, said: Identity { dev, ino }, name: fields.next()?.trim_ascii_start() })
    }

    /// The file's identity as stat tells it. Where file systems have devices of
    /// their own for parts (btrfs) or layers (overlay), the line's is another.
    fn identity(&self, process: &Process) -> Identity {
        // Not as in the line, which fills up with zeros.
        let path = format!("map_files/{:x}-{:x}", self.range.0, self.range.1);
        // This takes root. A file found by its name is only taken when it is no other.
        let by_name = || identity(CWD, self.name).ok().filter(|(found, _)| found.ino == self.said.ino);
        identity(process.dir(), path.as_bytes()).ok().or_else(by_name).map_or(self.said, |(found, _)| found)
    }
}

/// The service in a `/proc/PID/cgroup`. Names are those that systemd allows;
/// who may make groups could choose others, to fool a terminal.
fn unit(cgroup: &[u8]) -> Option<String> {
    // "hierarchy:controllers:path"; systemd's is the one without controllers, see cgroups(7).
    cgroup.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.splitn(3, |byte| *byte == b':').skip(1);
        fields.next().filter(|controllers| matches!(*controllers, b"" | b"name=systemd"))?;
        // Below a scope, such as a container's, another systemd gives the names.
        let outer = fields.next()?.split(|byte| *byte == b'/').take_while(|name| !name.ends_with(b".scope"));
        let name = outer.filter(|name| name.ends_with(b".service")).last()?;
        let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(byte);
        String::from_utf8(name.to_vec()).ok().filter(|name| name.bytes().all(|byte| is_allowed(&byte)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::fs::MetadataExt as _;
    use std::path::Path;
    use std::process::{Child, Command, Stdio};

    use lifeboat_store::testing::can_run;

    /// A program that runs until this goes.
    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    impl Running {
        /// Starts a Python program in `dir` and waits until it says that it is ready.
        #[expect(clippy::disallowed_methods, reason = "a test needs another process")]
        fn python(dir: &Path, program: &str) -> Self {
            let program = format!("{program}\nimport time\nprint('ready', flush=True)\ntime.sleep(600)");
            let mut command = Command::new("python3");
            command.args(["-c", &program]).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            assert_eq!(line, "ready\n");
            Self(child)
        }

        /// How it holds `path`, if it does.
        fn holds(&self, holders: &Holders, path: &Path) -> Option<Held> {
            let meta = path.metadata().unwrap();
            let held: Vec<_> = holders.of(meta.dev(), meta.ino()).iter().filter(|one| one.pid == self.0.id()).collect();
            assert!(held.len() <= 1, "{held:?}");
            held.first().map(|holder| holder.how)
        }
    }

    #[test]
    fn each_use_of_a_file_is_found() {
        if !can_run("each_use_of_a_file_is_found", &["python3"]) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["read", "written", "both", "mapped", "looked", "closed"] {
            std::fs::OpenOptions::new().create_new(true).write(true).open(path(name)).unwrap().set_len(10).unwrap();
        }
        std::fs::create_dir_all(path("listed")).unwrap();
        rustix::fs::mknodat(CWD, path("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let program = "import os, mmap\n\
            read, written, both = open('read'), open('written', 'a'), (open('both'), open('both', 'r+'))\n\
            looked, listed = os.open('looked', os.O_PATH), os.open('listed', os.O_RDONLY)\n\
            fifo = os.open('fifo', os.O_RDWR)\n\
            with open('mapped', 'r') as f: mapped = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)\n\
            fd = [fd for fd in os.listdir('/proc/self/fd') if os.path.realpath('/proc/self/fd/' + fd).endswith('/mapped')]\n\
            for fd in fd: os.close(int(fd))\n\
            open('closed').close()";
        let program = Running::python(dir.path(), program);
        let holders = Holders::look().unwrap();
        let expected = [
            ("", Some(Held::Reading)),
            ("read", Some(Held::Reading)),
            ("written", Some(Held::Writing)),
            ("both", Some(Held::Writing)),
            ("mapped", Some(Held::Mapped)),
            ("looked", Some(Held::Reading)),
            ("listed", Some(Held::Reading)),
            ("fifo", Some(Held::Writing)),
            ("closed", None),
        ];
        for (name, how) in expected {
            assert_eq!(program.holds(&holders, &path(name)), how, "{name}");
        }
        let meta = path("read").metadata().unwrap();
        let [holder] = holders.of(meta.dev(), meta.ino()) else { panic!("one process reads it") };
        assert!(holder.command.starts_with("python3"), "{holder:?}");

        let pid = program.0.id();
        drop(program);
        let holders = Holders::look().unwrap();
        assert!(holders.by_identity.values().flatten().all(|holder| holder.pid != pid));
    }

    #[test]
    fn a_running_program_is_held_and_what_is_ours_is_not() {
        if !can_run("a_running_program_is_held_and_what_is_ours_is_not", &["python3"]) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let program = Running::python(dir.path(), "");
        let own = File::open(dir.path()).unwrap();
        let holders = Holders::look().unwrap();
        let exe = std::path::PathBuf::from(format!("/proc/{}/exe", program.0.id()));
        assert_eq!(program.holds(&holders, &exe), Some(Held::Mapped));
        assert!(holders.unseen() < processes::others().unwrap().count(), "ours can be seen");
        let meta = own.metadata().unwrap();
        assert!(holders.of(meta.dev(), meta.ino()).iter().all(|holder| holder.pid != std::process::id()));
    }

    #[test]
    fn a_process_of_the_same_user_is_looked_into_wholly() {
        if !can_run("a_process_of_the_same_user_is_looked_into_wholly", &["python3"]) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let program = Running::python(dir.path(), "");
        let mut others = processes::others().unwrap().map(|process| process.unwrap());
        let process = others.find(|process| process.pid == program.0.id()).unwrap();
        assert!(!Uses::of(&process).is_partial && process.is_live_program());
        drop(program);
        // What has ended answers that the right is missing; it must not count.
        assert!(Uses::of(&process).held.is_empty() && !process.is_live_program());
    }

    #[test]
    fn a_line_of_maps_is_read_with_all_that_a_name_may_hold() {
        let line = b"00400000-00452000 r-xp 00000000 fe:1a 173521      /usr/bin/a b (deleted)";
        let mapping = Mapping::parse(line).unwrap();
        assert_eq!(mapping.range, (0x40_0000, 0x45_2000));
        assert_eq!(mapping.said, Identity { dev: rustix::fs::makedev(0xfe, 0x1a), ino: 173_521 });
        assert_eq!(mapping.name, b"/usr/bin/a b (deleted)");
        for none in [
            &b"35b1800000-35b1820000 rw-p 00000000 00:00 0 "[..],
            b"7fff8d4e1000-7fff8d502000 rw-p 00000000 00:00 0                          [stack]",
            b"",
        ] {
            assert!(Mapping::parse(none).is_none());
        }
    }

    #[test]
    fn the_unit_is_the_service_of_the_systemd_that_is_ours() {
        let cases: &[(&[u8], Option<&str>)] = &[
            (b"0::/system.slice/nextcloud.service\n", Some("nextcloud.service")),
            (b"0::/system.slice/db@main.service/control\n", Some("db@main.service")),
            (b"4:memory:/x.service\n1:name=systemd:/system.slice/old.service\n0::/\n", Some("old.service")),
            (b"0::/user.slice/user-1000.slice/user@1000.service/app.slice/a\\x2db.service\n", Some("a\\x2db.service")),
            (b"0::/system.slice/docker-12ab.scope/system.slice/nginx.service\n", None),
            (b"0::/user.slice/user-0.slice/session-1.scope\n", None),
            (b"0::/system.slice/\x1b[31m.service\n", None),
            (b"0::/\n", None),
            (b"", None),
        ];
        for (cgroup, name) in cases {
            assert_eq!(unit(cgroup).as_deref(), *name, "{}", cgroup.escape_ascii());
        }
    }
}
