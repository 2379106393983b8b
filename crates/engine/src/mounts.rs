//! What is mounted where, in our mount namespace and in those of others, such
//! as containers: before a directory is swapped, it must be known which mounts
//! stand in it and which show a part of it elsewhere. Changes nothing.
//!
//! Known gaps: NFS says "/" for the root of every mount, so a mount of one of
//! its subdirectories is not found; a namespace without any process is not
//! seen.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use crate::processes::{self, Identity, Process, number};
use crate::{Error, ErrorKind, Result};

/// The major and minor number of a file system's device.
pub(crate) type Device = (u32, u32);

/// What the kernel puts behind the root of a mount that was removed.
const DELETED: &[u8] = b"//deleted";

/// One line of `/proc/PID/mountinfo`, see proc_pid_mountinfo(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Its number; no two mounts of a host have the same.
    pub(crate) id: u64,
    /// The mount that it stands on.
    pub(crate) parent: u64,
    /// Its file system.
    pub(crate) dev: Device,
    /// Which directory or file of the file system it shows.
    pub(crate) root: PathBuf,
    /// Whether `root` was removed: then nothing that has a name is shown.
    pub(crate) is_deleted: bool,
    /// Where it stands, as its processes see it.
    pub(crate) mount_point: PathBuf,
}

impl Mount {
    /// Whether it shows `path` of the file system `dev`, or a part of that.
    fn shows(&self, dev: Device, path: &Path) -> bool {
        self.dev == dev && !self.is_deleted && self.root.starts_with(path)
    }

    /// Where `path`, which lies on this mount, is in its file system.
    fn inside(&self, path: &Path) -> Option<PathBuf> {
        let rest = path.strip_prefix(&self.mount_point).ok()?;
        // Joined to nothing, a path ends with a slash.
        Some(if rest.as_os_str().is_empty() { self.root.clone() } else { self.root.join(rest) })
    }

    /// Whether the two show the same at the same place.
    fn is_like(&self, other: &Mount) -> bool {
        (self.dev, &self.root, &self.mount_point) == (other.dev, &other.root, &other.mount_point)
    }
}

/// The mounts of one namespace, in the order in which they were made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mounts {
    mounts: Vec<Mount>,
}

impl Mounts {
    /// Those that we see ourselves.
    pub(crate) fn own() -> Result<Self> {
        let path = "/proc/self/mountinfo";
        let failed = |why: String| Error::new(ErrorKind::Failed, format!("cannot read {path}: {why}"));
        let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
        let mounts = parse(&text).map_err(|line| failed(format!("line {line} cannot be understood")))?;
        Ok(Self { mounts })
    }

    /// The mounts whose points are `dir` or lie below it. Of several on one
    /// point, the last counts. `dir` is absolute and canonical.
    pub(crate) fn at_or_below(&self, dir: &Path) -> Vec<&Mount> {
        let below = self.mounts.iter().filter(|mount| mount.mount_point.starts_with(dir) && !self.is_covered(mount));
        below.map(|mount| (mount.mount_point.as_path(), mount)).collect::<BTreeMap<_, _>>().into_values().collect()
    }

    /// Whether something is mounted on `path`, which is absolute and canonical.
    pub(crate) fn is_mount_point(&self, path: &Path) -> bool {
        self.mounts.iter().any(|mount| mount.mount_point == path)
    }

    /// Where `path` (absolute and canonical) lies within its own file system:
    /// the device, and the path from the file system's root. `None` where that
    /// is not known; then nobody knows either who else has it mounted.
    pub(crate) fn in_file_system(&self, path: &Path) -> Option<(Device, Vec<u8>)> {
        let mount = self.mount_of(path).filter(|mount| !mount.is_deleted)?;
        Some((mount.dev, mount.inside(path)?.into_os_string().into_vec()))
    }

    /// The mounts of this namespace that show `path` or a part of it elsewhere:
    /// all but the mount that `path` lies on.
    pub(crate) fn sources_in(&self, path: &Path) -> Vec<&Mount> {
        let Some(on) = self.mount_of(path).filter(|mount| !mount.is_deleted) else { return Vec::new() };
        let Some(inside) = on.inside(path) else { return Vec::new() };
        self.mounts.iter().filter(|mount| mount.id != on.id && mount.shows(on.dev, &inside)).collect()
    }

    /// The mount that `path` lies on. Goes the kernel's way, from mount to
    /// mount: the deepest point can be hidden by a later mount above it.
    fn mount_of(&self, path: &Path) -> Option<&Mount> {
        let is_top = |mount: &&Mount| mount.parent == mount.id || self.mounts.iter().all(|m| m.id != mount.parent);
        let mut at = self.mounts.iter().filter(|mount| mount.mount_point == Path::new("/")).rfind(is_top)?;
        // Each step goes to another mount, unless the text was made up.
        for _ in 0..self.mounts.len() {
            let on_the_way =
                |mount: &&Mount| mount.parent == at.id && mount.id != at.id && path.starts_with(&mount.mount_point);
            let next = self.mounts.iter().rev().filter(on_the_way);
            let Some(next) = next.min_by_key(|mount| mount.mount_point.as_os_str().len()) else { break };
            at = next;
        }
        Some(at)
    }

    /// Whether another mount stands right on top of this one.
    fn is_covered(&self, mount: &Mount) -> bool {
        self.mounts
            .iter()
            .any(|other| other.parent == mount.id && other.id != mount.id && other.mount_point == mount.mount_point)
    }

    /// Whether this namespace began as a copy of `other`: both have the same root.
    fn is_copy_of(&self, other: &Mounts) -> bool {
        match (self.mount_of(Path::new("/")), other.mount_of(Path::new("/"))) {
            (Some(root), Some(theirs)) => root.is_like(theirs),
            _ => false,
        }
    }
}

/// A mount in another namespace, and a process that sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountUser {
    /// The first process that was found in the namespace; there may be more.
    pub(crate) pid: u32,
    /// The name of its program, escaped.
    pub(crate) command: String,
    /// Where the mount stands, as the process sees it.
    pub(crate) mount_point: PathBuf,
}

/// The mounts that others see and we do not.
#[derive(Clone, Debug, Default)]
pub(crate) struct OtherMounts {
    namespaces: Vec<Namespace>,
    /// Which of them a mount belongs to, by its number.
    namespace_of: HashMap<u64, usize>,
    unseen: usize,
}

#[derive(Clone, Debug)]
struct Namespace {
    pid: u32,
    command: String,
    mounts: Mounts,
}

impl OtherMounts {
    /// Looks at the mount namespaces of all processes.
    pub(crate) fn look() -> Result<Self> {
        let mut found = Self::default();
        let own = std::fs::read_link("/proc/self/ns/mnt").ok();
        let mut seen: HashSet<(OsString, Option<Identity>)> = HashSet::new();
        for process in processes::others()? {
            let process = process?;
            // Without the right to read the link, mountinfo can still be read.
            let namespace = rustix::fs::readlinkat(process.dir(), "ns/mnt", Vec::new());
            if let Ok(namespace) = namespace {
                let namespace = OsString::from_vec(namespace.into_bytes());
                if own.as_ref().is_some_and(|own| own.as_os_str() == namespace) {
                    continue;
                }
                // mountinfo leaves out what lies beyond the root of its process.
                let root = processes::identity(process.dir(), b"root").ok().map(|(root, _)| root);
                if !seen.insert((namespace, root)) {
                    continue;
                }
            }
            found.add(&process);
        }
        Ok(found)
    }

    fn add(&mut self, process: &Process) {
        match process.read("mountinfo").map(|text| parse(&text)) {
            Ok(Ok(mounts)) => self.add_mounts(process.pid, || process.command(), mounts),
            _ => self.unseen += usize::from(process.is_live_program()),
        }
    }

    /// A mount belongs to one namespace: where one of `mounts` is known, all
    /// are of that namespace, and only what is new is added.
    fn add_mounts(&mut self, pid: u32, command: impl Fn() -> String, mounts: Vec<Mount>) {
        let known = mounts.iter().find_map(|mount| self.namespace_of.get(&mount.id).copied());
        let at = known.unwrap_or(self.namespaces.len());
        if known.is_none() {
            self.namespaces.push(Namespace { pid, command: command(), mounts: Mounts::default() });
        }
        let is_new = |mount: &Mount| self.namespace_of.insert(mount.id, at).is_none();
        self.namespaces[at].mounts.mounts.extend(mounts.into_iter().filter(is_new));
    }

    /// The mounts in other namespaces that show `path` (absolute and canonical
    /// in ours) or a part of it. Most namespaces began as a copy of ours; what
    /// such a copy has as we have it is no user, [`Mounts::sources_in`] has it.
    pub(crate) fn users_of(&self, own: &Mounts, path: &Path) -> Vec<MountUser> {
        let Some((dev, inside)) = own.in_file_system(path) else { return Vec::new() };
        let inside = PathBuf::from(OsString::from_vec(inside));
        let mut users = Vec::new();
        for namespace in &self.namespaces {
            let is_copy = namespace.mounts.is_copy_of(own);
            let is_ours = |mount: &Mount| {
                // A process of our namespace may see it from another root.
                let is_same = |ours: &Mount| ours.id == mount.id && ours.dev == mount.dev && ours.root == mount.root;
                own.mounts.iter().any(|ours| is_same(ours) || (is_copy && ours.is_like(mount)))
            };
            let showing = namespace.mounts.mounts.iter().filter(|mount| mount.shows(dev, &inside) && !is_ours(mount));
            users.extend(showing.map(|mount| MountUser {
                pid: namespace.pid,
                command: namespace.command.clone(),
                mount_point: mount.mount_point.clone(),
            }));
        }
        users
    }

    /// How many processes have mounts that could not be read.
    pub(crate) fn unseen(&self) -> usize {
        self.unseen
    }
}

/// The mounts in a mountinfo, or the number of the first line that is none.
fn parse(text: &[u8]) -> std::result::Result<Vec<Mount>, usize> {
    let lines = text.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    lines.map(|(number, line)| parse_line(line).ok_or(number + 1)).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?, 10)?;
    let parent = number(fields.next()?, 10)?;
    let mut dev = fields.next()?.splitn(2, |byte| *byte == b':').map(|part| number(part, 10)?.try_into().ok());
    let dev = (dev.next()??, dev.next()??);
    let root = fields.next()?;
    let (root, is_deleted) = root.strip_suffix(DELETED).map_or((root, false), |root| (root, true));
    let mount_point = fields.next()?;
    fields.next()?;
    // Any number of optional fields, until a lone dash.
    fields.find(|field| *field == b"-")?;
    fields.next()?;
    let path = |field| PathBuf::from(OsString::from_vec(unescaped(field)));
    Some(Mount { id, parent, dev, root: path(root), is_deleted, mount_point: path(mount_point) })
}

/// Decodes `\040` and the like, as spaces, tabs, newlines and backslashes are written.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| number(digits, 8));
        if let Some(byte) = code.and_then(|code| u8::try_from(code).ok()) {
            bytes.push(byte);
            rest = &after[3..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::ffi::OsStrExt as _;
    use std::process::{Child, Command, Stdio};

    use lifeboat_store::testing::{can_run, is_root, skip};

    /// A host: two disks, directories shown elsewhere, mounts upon mounts.
    const HOST: &str = "\
        22 27 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:5 - proc proc rw\n\
        27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n\
        30 27 8:17 / /srv rw,relatime shared:9 master:2 propagate_from:4 unbindable - ext4 /dev/sdb1 rw\n\
        31 30 8:17 /app/data /srv/www/with\\040space rw - ext4 /dev/sdb1 rw\n\
        32 27 8:17 /app2 /mnt/app2 rw - ext4 /dev/sdb1 rw\n\
        33 27 8:17 /app/config.yml /mnt/tab\\011nl\\012bs\\134x rw master:1 - ext4 /dev/sdb1 rw\n\
        34 27 0:50 / /var/lib/docker/overlay2/1/merged rw - overlay overlay rw,lowerdir=a:b,upperdir=c,workdir=d\n\
        35 30 0:60 / /srv/app/tmp rw - tmpfs tmpfs rw\n\
        36 35 0:61 /in /srv/app/tmp rw - tmpfs tmpfs rw\n\
        37 30 8:17 /app/old//deleted /srv/gone rw - ext4 /dev/sdb1 rw\n\
        38 27 8:33 / /opt/a/b rw - ext4 /dev/sdc1 rw\n\
        39 27 8:34 /x /opt/a rw - ext4 /dev/sdd1 rw\n";

    fn mounts(text: &str) -> Mounts {
        Mounts { mounts: parse(text.as_bytes()).unwrap() }
    }

    fn ids(mounts: &[&Mount]) -> Vec<u64> {
        mounts.iter().map(|mount| mount.id).collect()
    }

    #[test]
    fn a_line_is_read_with_its_escapes_and_any_number_of_optional_fields() {
        let read = mounts(HOST).mounts;
        assert_eq!(read.len(), 12);
        let expected = Mount {
            id: 31,
            parent: 30,
            dev: (8, 17),
            root: "/app/data".into(),
            is_deleted: false,
            mount_point: "/srv/www/with space".into(),
        };
        assert_eq!(read[3], expected);
        assert_eq!((read[2].dev, read[2].mount_point.as_path()), ((8, 17), Path::new("/srv")));
        assert_eq!(read[5].mount_point, Path::new("/mnt/tab\tnl\nbs\\x"));
        assert_eq!((&read[9].root, read[9].is_deleted), (&PathBuf::from("/app/old"), true));
        let not_utf8 = parse(b"1 1 0:1 /\xff\\303\\050 / rw - ext4 a rw").unwrap();
        assert_eq!(not_utf8[0].root.as_os_str().as_bytes(), b"/\xff\xc3(");
    }

    #[test]
    fn a_line_that_cannot_be_understood_is_named() {
        let good = "27 1 254:0 / / rw - ext4 /dev/vda rw\n";
        for bad in
            ["27", "27 1 254 / / rw - ext4", "a 1 254:0 / / rw - ext4 a rw", "27 1 254:0 / / rw shared:1 ext4 a rw"]
        {
            assert_eq!(parse(format!("{good}{bad}\n").as_bytes()), Err(2), "{bad}");
        }
        assert_eq!(parse(b""), Ok(Vec::new()));
    }

    #[test]
    fn mounts_below_a_directory_are_found_by_whole_names() {
        let host = mounts(HOST);
        assert_eq!(ids(&host.at_or_below(Path::new("/srv/app"))), [36], "the upper of two on one point");
        assert_eq!(ids(&host.at_or_below(Path::new("/srv/app/tmp"))), [36]);
        assert_eq!(ids(&host.at_or_below(Path::new("/srv/ap"))), [0; 0]);
        assert_eq!(ids(&host.at_or_below(Path::new("/srv"))), [30, 36, 37, 31]);
        assert!(host.is_mount_point(Path::new("/srv")) && host.is_mount_point(Path::new("/srv/www/with space")));
        assert!(!host.is_mount_point(Path::new("/srv/www")) && !host.is_mount_point(Path::new("/srv2")));
    }

    #[test]
    fn a_path_is_found_within_its_file_system() {
        let host = mounts(HOST);
        let cases: &[(&str, Device, &str)] = &[
            ("/", (254, 0), "/"),
            ("/etc/passwd", (254, 0), "/etc/passwd"),
            ("/srv", (8, 17), "/"),
            ("/srv/app/data", (8, 17), "/app/data"),
            ("/srv2", (254, 0), "/srv2"),
            ("/srv/www/with space/x", (8, 17), "/app/data/x"),
            ("/srv/app/tmp/x", (0, 61), "/in/x"),
            ("/opt/a/b/c", (8, 34), "/x/b/c"),
        ];
        for (path, dev, inside) in cases {
            assert_eq!(host.in_file_system(Path::new(path)), Some((*dev, inside.as_bytes().to_vec())), "{path}");
        }
        assert_eq!(host.in_file_system(Path::new("/srv/gone")), None);
        assert_eq!(Mounts::default().in_file_system(Path::new("/")), None);
    }

    #[test]
    fn a_mount_that_shows_a_part_of_a_directory_elsewhere_is_found() {
        let host = mounts(HOST);
        let sources = |path: &str| ids(&host.sources_in(Path::new(path)));
        assert_eq!(sources("/srv/app"), [31, 33], "neither app2 nor what is deleted");
        assert_eq!(sources("/srv/app/data"), [31]);
        assert_eq!(sources("/srv/app/data/x"), [0; 0], "what shows more than the path is no part of it");
        assert_eq!(sources("/srv"), [31, 32, 33], "not the mount that it lies on");
        assert_eq!(sources("/mnt/app2"), [0; 0]);
        assert_eq!(sources("/home"), [0; 0]);
    }

    #[test]
    fn the_mounts_of_other_namespaces_are_users_unless_they_are_copies_of_ours() {
        let host = mounts(HOST);
        // What a service with PrivateTmp= and ReadWritePaths=/srv/app gets.
        let service = HOST.replace("\n33 27", "\n133 27").replace("\n31 30", "\n131 30").replace("27 1", "127 1")
            + "150 127 8:17 /app /srv/app rw - ext4 /dev/sdb1 rw\n";
        // A root of its own; where the first mount stands is as on the host.
        let container = "\
            200 90 0:50 / / rw - overlay overlay rw\n\
            201 200 8:17 /app/data /srv/www/with\\040space rw - ext4 /dev/sdb1 rw\n\
            202 200 8:17 /app2 /app2 rw - ext4 /dev/sdb1 rw\n\
            203 200 254:0 /app /other-disk rw - ext4 /dev/vda rw\n\
            204 200 8:17 / /all rw - ext4 /dev/sdb1 rw\n";
        let mut others = OtherMounts::default();
        others.add_mounts(5, || "ours".to_owned(), host.mounts.clone());
        others.add_mounts(7, || "service".to_owned(), mounts(&renumbered(&service)).mounts);
        others.add_mounts(9, || "container".to_owned(), mounts(container).mounts);
        others.add_mounts(10, || "its child".to_owned(), mounts(container).mounts);
        let users = |path: &str| -> Vec<(u32, PathBuf)> {
            let users = others.users_of(&host, Path::new(path));
            users.into_iter().map(|user| (user.pid, user.mount_point)).collect()
        };
        let container = (9, PathBuf::from("/srv/www/with space"));
        assert_eq!(users("/srv/app"), [(7, "/srv/app".into()), container.clone()]);
        assert_eq!(users("/srv/app/data"), [container]);
        assert_eq!(users("/srv/ap"), []);
        assert!(users("/srv").contains(&(9, "/all".into())));
        assert_eq!(others.users_of(&host, Path::new("/srv/app/data"))[0].command, "container");
    }

    /// The same mounts in another namespace: all numbers are others.
    fn renumbered(text: &str) -> String {
        let line = |line: &str| -> String {
            let (id, rest) = line.split_once(' ').unwrap();
            let (parent, rest) = rest.split_once(' ').unwrap();
            format!("5{id:0>3} 5{parent:0>3} {rest}\n")
        };
        text.lines().map(line).collect()
    }

    #[test]
    fn our_own_mounts_are_read() {
        let own = Mounts::own().unwrap();
        assert!(own.is_mount_point(Path::new("/proc")));
        let dir = tempfile::tempdir().unwrap();
        let (dev, inside) = own.in_file_system(&dir.path().canonicalize().unwrap()).unwrap();
        assert!(inside.ends_with(dir.path().file_name().unwrap().as_bytes()), "{dev:?} {inside:?}");
    }

    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs another process")]
    fn a_bind_mount_in_another_namespace_is_found_with_its_process() {
        let test = "a_bind_mount_in_another_namespace_is_found_with_its_process";
        if !is_root() {
            return skip(test, "needs root");
        }
        if !can_run(test, &["unshare", "mount"]) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for name in ["app/data", "app2", "shown"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        let mut command = Command::new("unshare");
        let script = "mount --bind app/data shown && echo ready && exec sleep 600";
        command.args(["-m", "sh", "-c", script]).current_dir(&root).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut program = Running(command.spawn().unwrap());
        let mut line = String::new();
        BufReader::new(program.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");

        let (own, others) = (Mounts::own().unwrap(), OtherMounts::look().unwrap());
        assert_eq!(others.unseen(), 0);
        let users = others.users_of(&own, &root.join("app"));
        let expected = |user: &MountUser| user.pid == program.0.id() && user.mount_point == root.join("shown");
        assert!(users.len() == 1 && expected(&users[0]), "{users:?}");
        assert_eq!(others.users_of(&own, &root.join("app2")), []);
        assert!(own.sources_in(&root.join("app")).is_empty());
    }
}
