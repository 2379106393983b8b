//! Random trees, random modes, random faults, against a naive copy.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use lifeboat_store::testing::{Random, can_run, sweep};

use super::Live;
use crate::env::TestEnv;
use crate::faults::traced;
use crate::fidelity::{Tree, assert_same};

/// Names that are used again and again, so that trees meet.
const NAMES: [&str; 6] = ["a", "b", "c.log", "d", "e", "f g"];

/// Builds a random tree, or changes the one that is there.
fn scramble(env: &TestEnv, random: &mut Random, changes: usize) {
    for _ in 0..changes {
        let depth = 1 + random.below(3);
        let names: PathBuf = (0..depth).map(|_| NAMES[random.below(NAMES.len())]).collect();
        let relative = Path::new("live/app").join(&names);
        let path = env.path(&relative);
        // Something else on the way gives way.
        for above in names.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
            let above = env.path("live/app").join(above);
            if above.symlink_metadata().is_ok_and(|metadata| !metadata.is_dir()) {
                std::fs::remove_file(above).unwrap();
            }
        }
        remove(&path);
        env.mkdir(relative.parent().unwrap());
        match random.below(8) {
            0 => drop(env.mkdir(&relative)),
            1 => std::os::unix::fs::symlink(NAMES[random.below(NAMES.len())], &path).unwrap(),
            2 => link_to_some_file(env, random, &path),
            3 => {}
            _ => {
                let len = random.below(3000);
                env.write(&relative, random.bytes(len));
                env.set_mode(&relative, [0o600, 0o644, 0o755][random.below(3)]);
            }
        }
    }
}

fn remove(path: &Path) {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path).unwrap(),
        Ok(_) => std::fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

fn link_to_some_file(env: &TestEnv, random: &mut Random, path: &Path) {
    let files: Vec<PathBuf> = crate::fidelity::snapshot(&env.path("live/app"))
        .into_iter()
        .filter(|(_, node)| node.kind == "file")
        .map(|(path, _)| env.path("live/app").join(String::from_utf8(path).unwrap()))
        .collect();
    if !files.is_empty() {
        std::fs::hard_link(&files[random.below(files.len())], path).unwrap();
    }
}

/// Whether something of this path is left out by `*.log`.
fn is_left_out(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|name| name.ends_with(b".log"))
}

fn above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at])
}

/// What has to stand after a restore: by the rules of the mode, one path at a time.
fn model(mode: &str, snapshot: &Tree, live: &Tree) -> BTreeSet<(Vec<u8>, &'static str)> {
    let mut expected = BTreeSet::new();
    let mut add = |path: &[u8], kind| {
        expected.insert((path.to_vec(), kind));
    };
    let kind = |tree: &Tree, path: &[u8]| tree.get(path).map(|node| node.kind);
    let is_dir = |tree: &Tree, path: &[u8]| kind(tree, path) == Some("dir");
    for (path, node) in snapshot {
        let is_blocked = above(path).any(|dir| live.contains_key(dir) && !is_dir(live, dir));
        match mode {
            "merge" if is_blocked => {}
            "merge" => add(path, kind(live, path).unwrap_or(node.kind)),
            _ => add(path, node.kind),
        }
    }
    for (path, node) in live {
        let is_covered = above(path).any(|dir| snapshot.contains_key(dir) && !is_dir(snapshot, dir));
        match mode {
            _ if snapshot.contains_key(path) => {}
            "merge" => add(path, node.kind),
            "overwrite" if !is_covered => add(path, node.kind),
            "full" if is_left_out(path) => {
                add(path, node.kind);
                above(path).for_each(|dir| add(dir, "dir"));
            }
            _ => {}
        }
    }
    expected
}

/// Where a left-out thing would have to go for an entry of the snapshot, the restore is refused.
fn is_refused(snapshot: &Tree, live: &Tree) -> bool {
    live.keys()
        .filter(|path| is_left_out(path) && !snapshot.contains_key(*path))
        .any(|path| above(path).any(|dir| snapshot.get(dir).is_some_and(|node| node.kind != "dir")))
}

struct Case {
    live: Live,
    mode: &'static str,
    snapshot: Tree,
    before: Tree,
    whole: Tree,
}

impl Case {
    fn new(seed: u64) -> (Self, Random) {
        let mut random = Random::new(seed);
        let live = Live::with_options(&["--exclude", "*.log"], |env| {
            env.write("live/app/first", "so that it is not empty");
            scramble(env, &mut random, 25);
        });
        let mut snapshot = live.app();
        snapshot.retain(|path, _| !is_left_out(path));
        scramble(&live.env, &mut random, 12);
        let mode = ["overwrite", "full", "merge"][random.below(3)];
        let (before, whole) = (live.app(), live.all());
        (Self { live, mode, snapshot, before, whole }, random)
    }

    /// The trees after a restore that succeeded.
    fn assert_new(&self, seed: u64) {
        let now = self.live.app();
        let what = format!("seed {seed}, {}", self.mode);
        let stands: BTreeSet<(Vec<u8>, &str)> = now.iter().map(|(path, node)| (path.clone(), node.kind)).collect();
        let expected = model(self.mode, &self.snapshot, &self.before);
        let shown = |set: BTreeSet<&(Vec<u8>, &str)>| {
            set.into_iter().map(|(path, kind)| format!("{kind} {}", String::from_utf8_lossy(path))).collect::<Vec<_>>()
        };
        let missing = shown(expected.difference(&stands).collect());
        let surplus = shown(stands.difference(&expected).collect());
        assert!(missing.is_empty() && surplus.is_empty(), "{what}: missing {missing:?}, surplus {surplus:?}");
        for (path, node) in &now {
            let name = String::from_utf8_lossy(path);
            let is_restored =
                self.snapshot.contains_key(path) && (self.mode != "merge" || !self.before.contains_key(path));
            let source = if is_restored { &self.snapshot } else { &self.before };
            let Some(from) = source.get(path).filter(|_| node.kind != "dir" || is_restored) else { continue };
            assert_eq!(
                (node.kind, node.mode, &node.content, &node.target, node.kind == "dir" || node.mtime == from.mtime),
                (from.kind, from.mode, &from.content, &from.target, true),
                "{what}: {name}"
            );
        }
    }
}

/// Shows R13.
#[test]
fn random_trees_come_back_as_a_naive_copy_says_in_every_mode() {
    for number in sweep("random restores in place", 400, 30) {
        let seed = number as u64;
        let (case, _) = Case::new(seed);
        let refused = case.mode != "merge" && is_refused(&case.snapshot, &case.before);
        let run = case.live.restore(&["--mode", case.mode]);
        if refused {
            run.code(22);
            assert_same(&case.whole, &case.live.all(), &format!("seed {seed}: refused"));
            continue;
        }
        run.ok();
        case.assert_new(seed);
        if case.live.journals().is_empty() {
            continue;
        }
        // And all the way back.
        case.live.env.lifeboat(["restore", "--undo", "--force"]).ok();
        assert_same(&case.before, &case.live.app(), &format!("seed {seed}, {}: undone", case.mode));
    }
}

/// Shows R13.
#[test]
fn random_trees_are_as_before_or_restored_after_random_faults() {
    const TEST: &str = "random_trees_are_as_before_or_restored_after_random_faults";
    if !can_run(TEST, &["strace"]) {
        return;
    }
    for number in sweep("random restores in place with random faults", 300, 20) {
        let seed = 10_000 + number as u64;
        let (case, mut random) = Case::new(seed);
        let fault = ["error=EIO", "error=ENOSPC", "signal=KILL"][random.below(3)];
        let call = ["renameat2", "renameat2", "mkdirat", "fsync", "syncfs", "write", "openat2"][random.below(7)];
        let when = 1 + random.below(12);
        let inject = format!("inject={call}:{fault}:when={when}");
        let options = ["-e", &format!("trace={call}"), "-e", &inject];
        let arguments = ["restore", "app.tar.zst", "--force", "--allow-unauthenticated", "--mode", case.mode];
        let code = traced(&case.live.env, &options, &arguments).exit_code();
        let what = format!("seed {seed}, {}, {inject}: ended with {code}", case.mode);
        if case.live.env.lifeboat(["status"]).exit_code() == 1 {
            assert!(code != 0 && code != 20, "{what}");
            case.live.env.lifeboat(["recover"]).ok();
        }
        if case.live.journals().is_empty() && code != 0 {
            assert_same(&case.whole, &case.live.all(), &what);
        } else if case.live.app() != case.before {
            case.assert_new(seed);
        }
    }
}
