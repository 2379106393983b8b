//! How things are swapped: whole directories or one by one, on which file
//! system, with which renames.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use lifeboat_store::testing::can_run;

use super::{Live, application, can_mount, change};
use crate::env::TestEnv;
use crate::fidelity::{Mount, Tree, assert_same, snapshot};

const TMPFS: &[&str] = &["-t", "tmpfs", "tmpfs"];

/// The device and inode of what stands at `path`.
fn identity(path: impl AsRef<Path>) -> (u64, u64) {
    let metadata = path.as_ref().symlink_metadata().unwrap();
    (metadata.dev(), metadata.ino())
}

/// What `mode` makes of the application in state `changed`.
fn expected(mode: &str, backed_up: &Tree, changed: &Tree) -> Tree {
    let mut expected = backed_up.clone();
    if mode == "overwrite" {
        for kept in [&b"conf/extra.conf"[..], b"data/deep/three"] {
            expected.insert(kept.to_vec(), changed[kept].clone());
        }
    }
    expected
}

/// Changes the application and restores it, in both modes that replace things,
/// each once with a failure at the end, and once undone.
fn assert_restores(live: &Live, backed_up: &Tree, places: usize) {
    for mode in ["overwrite", "full"] {
        change(&live.env);
        let changed = live.app();
        live.assert_rolls_back(mode, places);
        live.restore(&["--mode", mode]).ok();
        live.env.lifeboat(["restore", "--undo", "--force"]).ok();
        live.discard();
        live.assert_app(&changed, "undone");
        live.restore(&["--mode", mode]).ok();
        live.discard();
        live.assert_app(&expected(mode, backed_up, &changed), mode);
    }
}

/// Shows R5.
#[test]
fn files_and_directories_take_each_others_place() {
    if !can_run("files_and_directories_take_each_others_place", &["strace"]) {
        return;
    }
    let live = Live::new(application);
    let backed_up = live.app();
    assert_restores(&live, &backed_up, 1);
    // The other way round too: a file where the snapshot has a directory.
    for mode in ["overwrite", "full"] {
        std::fs::remove_dir_all(live.path("app/data")).unwrap();
        live.env.write("live/app/data", "a file");
        live.assert_rolls_back(mode, 1);
        live.restore(&["--mode", mode]).ok();
        live.discard();
        live.assert_app(&backed_up, mode);
    }
}

/// Shows R5.
#[test]
fn a_root_that_is_a_mount_point_stays_one() {
    if !can_mount("a_root_that_is_a_mount_point_stays_one", &["mount", "strace"]) {
        return;
    }
    let mut mount = None;
    let live = Live::new(|env| {
        mount = Some(Mount::new(env, "live/app", TMPFS));
        application(env);
    });
    let _mount = mount;
    let (backed_up, root) = (live.app(), identity(live.path("app")));
    assert_restores(&live, &backed_up, 1);
    assert_eq!(identity(live.path("app")), root);
    // What is replaced lies on the same file system, so that nothing had to be copied.
    live.env.write("live/app/conf/app.conf", "port = 83\n");
    live.restore(&["--mode", "full"]).ok();
    assert_eq!(live.stages(), Vec::<String>::new());
    let names = live.env.names("live/app");
    assert!(names.iter().any(|name| name.starts_with(".lifeboat-")), "{names:?}");
    live.discard();
    live.assert_app(&backed_up, "a second time");
    // Its time is not that of the stage in it, either.
    std::fs::remove_file(live.path("app/data/deep/er/two")).unwrap();
    live.env.run("touch", ["-d", "2021-01-01", "live/app", "live/app/data/deep/er"]).ok();
    let mut expected = live.app();
    live.restore(&["--mode", "merge"]).ok();
    live.discard();
    let mut now = live.app();
    for tree in [&mut expected, &mut now] {
        tree.retain(|path, _| !path.starts_with(b"data/deep/er"));
    }
    assert_same(&expected, &now, "merge");
}

/// Shows R5.
#[test]
fn file_systems_below_the_root_are_restored_each_by_itself() {
    if !can_mount("file_systems_below_the_root_are_restored_each_by_itself", &["mount", "strace"]) {
        return;
    }
    let mut mounts = Vec::new();
    let live = Live::new(|env| {
        mounts.push(Mount::new(env, "live/app/data", TMPFS));
        mounts.push(Mount::new(env, "live/app/data/deep/er", TMPFS));
        application(env);
    });
    mounts.reverse();
    let _mounts = mounts;
    let borders = ["app", "app/data", "app/data/deep/er"];
    let at = |live: &Live| borders.map(|name| identity(live.path(name)));
    let (backed_up, before) = (live.app(), at(&live));
    assert_restores(&live, &backed_up, 3);
    assert_eq!(at(&live)[1..], before[1..]);
    for (path, border) in [("data/one", 1), ("data/deep", 1), ("data/deep/er/two", 2), ("conf/app.conf", 0)] {
        assert_eq!(identity(live.path("app").join(path)).0, before[border].0, "{path} is on its file system");
    }
    // Deleted on both.
    for name in ["live/app/gone", "live/app/data/gone", "live/app/data/deep/er/gone"] {
        live.env.write(name, "new since");
    }
    live.assert_rolls_back("full", 3);
    live.restore(&["--mode", "full"]).ok();
    live.discard();
    live.assert_app(&backed_up, "full deletes on all of them");
}

/// Shows R5.
#[test]
fn a_file_system_that_the_snapshot_holds_nothing_of_is_never_emptied() {
    if !can_mount("a_file_system_that_the_snapshot_holds_nothing_of_is_never_emptied", &["mount"]) {
        return;
    }
    let live = Live::new(application);
    let backed_up = live.app();
    change(&live.env);
    let points = ["live/app/other", "live/app/new/deeper/mount"];
    let _mounts = points.map(|point| Mount::new(&live.env, point, TMPFS));
    for point in points {
        live.env.write(format!("{point}/precious/file"), "of somebody else");
    }
    live.env.write("live/app/new/gone", "new since");
    live.restore(&["--mode", "full"]).ok();
    for point in points {
        assert_eq!(live.env.read(format!("{point}/precious/file")), b"of somebody else");
    }
    let mut now = live.app();
    now.retain(|path, _| !path.starts_with(b"other") && !path.starts_with(b"new/deeper") && path != b"new");
    assert_same(&backed_up, &now, "all else");
}

/// Shows R5.
#[test]
fn a_directory_that_is_shown_elsewhere_is_not_swapped_whole() {
    if !can_mount("a_directory_that_is_shown_elsewhere_is_not_swapped_whole", &["mount", "strace"]) {
        return;
    }
    let live = Live::new(application);
    let backed_up = live.app();
    let data = live.path("app/data");
    let mount = Mount::new(&live.env, "elsewhere", &["--bind", data.to_str().unwrap()]);
    let (root, shown) = (identity(live.path("app")), identity(&data));
    assert_restores(&live, &backed_up, 1);
    assert_eq!((identity(live.path("app")), identity(&data)), (root, shown), "neither was swapped");
    assert_same(&snapshot(&data), &snapshot(&live.env.path("elsewhere")), "the new content is shown");
    // Without that mount both would have been.
    drop(mount);
    change(&live.env);
    live.restore(&["--mode", "full"]).ok();
    assert_ne!(identity(live.path("app")), root);
}

/// Shows R5.
#[test]
fn a_file_that_something_is_mounted_on_is_refused_by_name() {
    if !can_mount("a_file_that_something_is_mounted_on_is_refused_by_name", &["mount"]) {
        return;
    }
    let live = Live::new(application);
    change(&live.env);
    let secret = live.env.write("secret", "mounted over it");
    let target = live.path("app/conf/app.conf");
    live.env.run("mount", [Path::new("--bind"), &secret, &target]).ok();
    let before = live.all();
    let said: Vec<_> = ["overwrite", "full"].map(|mode| live.restore(&["--mode", mode])).into_iter().collect();
    let after = live.all();
    live.env.run("umount", [&target]).ok();
    for said in said {
        let said = said.code(22);
        assert!(said.stderr.contains(&format!("something is mounted on {}", target.display())), "{}", said.stderr);
    }
    assert_same(&before, &after, "refused");
    assert!(live.journals().is_empty() && live.stages().is_empty());
    live.restore(&[]).ok();
}

/// Shows R5.
#[test]
fn without_exchange_and_exclusive_rename_it_takes_two_renames() {
    if !can_run("without_exchange_and_exclusive_rename_it_takes_two_renames", &["strace"]) {
        return;
    }
    let live = Live::new(application);
    let backed_up = live.app();
    let refused = ["-e", "trace=rename,renameat,renameat2,syncfs", "-e", "inject=renameat2:error=EINVAL"];
    let fail = ["-e", "inject=syncfs:error=EIO:when=2"];
    for mode in ["overwrite", "full"] {
        change(&live.env);
        let (before, changed) = (live.all(), live.app());
        live.traced(&[&refused[..], &fail].concat(), &["--mode", mode]).code(20);
        assert_same(&before, &live.all(), "rolled back");
        // A rename in the middle fails.
        let fail = ["-e", "inject=renameat:error=EIO:when=2"];
        live.traced(&[&refused[..], &fail].concat(), &["--mode", mode]).code(20);
        assert_same(&before, &live.all(), "rolled back from the middle");
        assert!(live.journals().is_empty());
        live.traced(&refused, &["--mode", mode]).ok();
        let trace = String::from_utf8(live.env.read("trace")).unwrap();
        assert!(!trace.lines().any(|line| line.contains("renameat2(") && line.ends_with("= 0")), "{trace}");
        live.discard();
        live.assert_app(&expected(mode, &backed_up, &changed), mode);
    }
}

/// Mounts an overlay on `live`, with what is there in its lower layer. Both
/// layers may be on one file system, as those of containers are.
fn overlay(env: &TestEnv, is_one: bool) -> Vec<Mount> {
    let mut mounts = vec![Mount::new(env, "lower", TMPFS), Mount::new(env, "upper", TMPFS)];
    let upper = if is_one { "lower" } else { "upper" };
    env.run("cp", ["-a", "live", "lower/live"]).ok();
    std::fs::remove_dir_all(env.path("live")).unwrap();
    // Another name in the lower layer, which the overlay does not show.
    env.run("ln", ["lower/live/app/conf/users", "lower/users"]).ok();
    let dir = |name: String| env.mkdir(name).to_str().unwrap().to_owned();
    let dirs = [dir("lower/live".to_owned()), dir(format!("{upper}/changes")), dir(format!("{upper}/work"))];
    let layers = format!("lowerdir={},upperdir={},workdir={}", dirs[0], dirs[1], dirs[2]);
    mounts.insert(0, Mount::new(env, "live", &["-t", "overlay", "-o", &layers, "overlay"]));
    mounts
}

/// Shows R5.
#[test]
fn on_an_overlay_files_are_swapped_and_no_directory_of_the_lower_layer_is_moved() {
    const TEST: &str = "on_an_overlay_files_are_swapped_and_no_directory_of_the_lower_layer_is_moved";
    if !can_mount(TEST, &["mount", "strace"]) {
        return;
    }
    for is_one in [true, false] {
        let live = Live::new(application);
        let backed_up = live.app();
        // These differ in the lower layer already.
        live.env.write("live/app/conf/users", "bob\n");
        live.env.run("ln", ["-sfn", "elsewhere", "live/app/link"]).ok();
        live.env.write("live/app/gone", "not in the snapshot");
        let _mounts = overlay(&live.env, is_one);
        let dirs = ["app", "app/conf", "app/data"].map(|name| (name, File::open(live.path(name)).unwrap()));
        live.assert_rolls_back("full", 1);
        live.restore(&["--mode", "full"]).ok();
        live.discard();
        live.assert_app(&backed_up, "what differed in the lower layer");
        assert_restores(&live, &backed_up, 1);
        for (name, dir) in &dirs {
            assert_eq!(identity(live.path(name)).1, dir.metadata().unwrap().ino(), "{name} was not moved");
        }
    }
}

/// Shows R5.
#[test]
fn a_directory_of_the_lower_layer_of_an_overlay_that_is_in_the_way_is_left() {
    if !can_mount("a_directory_of_the_lower_layer_of_an_overlay_that_is_in_the_way_is_left", &["mount"]) {
        return;
    }
    let live = Live::new(application);
    std::fs::remove_file(live.path("app/empty")).unwrap();
    live.env.write("live/app/empty/in/lower", "not in the snapshot");
    let _mounts = overlay(&live.env, true);
    live.env.write("live/app/conf/app.conf", "port = 84\n");
    let before = live.all();
    for mode in ["overwrite", "full"] {
        let said = live.restore(&["--mode", mode]).code(20);
        assert!(said.stderr.contains(live.path("app/empty").to_str().unwrap()), "{}", said.stderr);
        assert_same(&before, &live.all(), "rolled back");
        assert!(live.journals().is_empty());
    }
}

/// Shows R5.
#[test]
fn a_root_that_is_a_single_file_is_swapped_as_one() {
    if !can_run("a_root_that_is_a_single_file_is_swapped_as_one", &["strace"]) {
        return;
    }
    let live = Live::new(|env| {
        env.write("live/app", "the only file");
        env.set_mode("live/app", 0o640);
    });
    let whole = live.all();
    let states: [&dyn Fn(); 3] =
        [&|| drop(live.env.write("live/app", "changed")), &|| std::fs::remove_file(live.path("app")).unwrap(), &|| {
            std::fs::remove_file(live.path("app")).unwrap();
            live.env.write("live/app/is/a", "directory now");
        }];
    for (state, mode) in states.into_iter().flat_map(|state| [(state, "overwrite"), (state, "full")]) {
        state();
        live.assert_rolls_back(mode, 1);
        live.restore(&["--mode", mode]).ok();
        live.discard();
        assert_eq!(live.app(), snapshot_of(&whole, b"app"), "{mode}");
    }
}

/// The part of `tree` below `dir`, as a tree of its own.
fn snapshot_of(tree: &Tree, dir: &[u8]) -> Tree {
    let part = tree.iter().filter_map(|(path, node)| {
        let rest = path.strip_prefix(dir)?;
        let name = rest.strip_prefix(b"/").unwrap_or(rest).to_vec();
        let mut node = node.clone();
        if !node.first_name.is_empty() {
            node.first_name = node.first_name.strip_prefix(dir)?.strip_prefix(b"/").unwrap_or_default().to_vec();
        }
        Some((name, node))
    });
    part.collect()
}

/// Shows R5.
#[test]
fn a_root_reached_through_a_symlink_is_restored_behind_it() {
    if !can_run("a_root_reached_through_a_symlink_is_restored_behind_it", &["strace"]) {
        return;
    }
    let live = Live::new(application);
    let backed_up = live.app();
    live.env.run("mv", ["live", "moved"]).ok();
    std::os::unix::fs::symlink("moved", live.env.path("live")).unwrap();
    for mode in ["overwrite", "full"] {
        change(&live.env);
        let (before, changed) = (snapshot(&live.env.path("moved")), live.app());
        live.traced(&["-e", "trace=syncfs", "-e", "inject=syncfs:error=EIO:when=2"], &["--mode", mode]).code(20);
        assert_same(&before, &snapshot(&live.env.path("moved")), "rolled back");
        live.restore(&["--mode", mode]).ok();
        live.discard();
        assert_same(&expected(mode, &backed_up, &changed), &snapshot(&live.env.path("moved/app")), mode);
    }
    // The root itself may be one too.
    live.env.run("mv", ["moved/app", "moved/real"]).ok();
    std::os::unix::fs::symlink("real", live.env.path("moved/app")).unwrap();
    change(&live.env);
    live.restore(&["--mode", "full"]).ok();
    assert_same(&backed_up, &snapshot(&live.env.path("moved/real")), "behind two");
    for (link, target) in [("live", "moved"), ("moved/app", "real")] {
        assert_eq!(std::fs::read_link(live.env.path(link)).unwrap(), Path::new(target));
    }
    // One that leads nowhere is not ours to follow or to replace.
    std::fs::remove_dir_all(live.env.path("moved/real")).unwrap();
    live.restore(&[]).code(1);
    assert_eq!(std::fs::read_link(live.env.path("moved/app")).unwrap(), Path::new("real"));
}

/// Shows R5.
#[test]
fn a_root_that_is_missing_with_directories_above_it_is_made_with_them() {
    if !can_run("a_root_that_is_missing_with_directories_above_it_is_made_with_them", &["strace"]) {
        return;
    }
    let env = TestEnv::new();
    application(&env);
    std::fs::create_dir_all(env.path("top/srv/web")).unwrap();
    env.run("mv", ["live/app", "top/srv/web/app"]).ok();
    let backed_up = snapshot(&env.path("top/srv/web/app"));
    env.lifeboat(["backup", "top/srv/web/app", "-o", "app.tar.zst"]).ok();
    std::fs::remove_dir_all(env.path("top/srv")).unwrap();
    let live = Live { env };
    let top = snapshot(&live.env.path("top"));
    live.traced(&["-e", "trace=syncfs", "-e", "inject=syncfs:error=EIO:when=2"], &[]).code(20);
    assert_same(&top, &snapshot(&live.env.path("top")), "the directories above are gone again");
    live.restore(&[]).ok();
    assert_same(&backed_up, &snapshot(&live.env.path("top/srv/web/app")), "made with the directories above");
}

/// Shows R5.
#[test]
fn a_subvolume_of_btrfs_is_restored_as_the_file_system_it_is() {
    if !can_mount(
        "a_subvolume_of_btrfs_is_restored_as_the_file_system_it_is",
        &["mkfs.btrfs", "btrfs", "mount", "strace"],
    ) {
        return;
    }
    let mut mount = None;
    let live = Live::new(|env| {
        let image = env.write("image", "");
        File::options().write(true).open(&image).unwrap().set_len(320 << 20).unwrap();
        env.run("mkfs.btrfs", [Path::new("-q"), &image]).ok();
        mount = Some(Mount::new(env, "live", &["-o", "loop", image.to_str().unwrap()]));
        env.mkdir("live/app");
        env.run("btrfs", ["subvolume", "create", "live/app/data"]).ok();
        application(env);
    });
    let _mount = mount;
    let (backed_up, before) = (live.app(), identity(live.path("app/data")));
    assert_ne!(identity(live.path("app")).0, before.0, "it has a device number of its own");
    assert_restores(&live, &backed_up, 2);
    assert_eq!(identity(live.path("app/data")), before);
}
