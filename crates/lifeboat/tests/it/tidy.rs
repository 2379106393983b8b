//! Rules about the repository itself: promises, walls, sizes, names. The tables
//! here are what the rules go by; the rules stand in `rules`.

use std::path::{Path, PathBuf};
use std::process::Command;

mod rules;

use rules::{File, absent, promises, shown};

/// Each crate, and the crates of ours that it may use outside its tests. A
/// fifth crate needs a decision.
const CRATES: &[(&str, &[&str])] = &[
    ("store", &[]),
    ("format", &["lifeboat-store"]),
    ("engine", &["lifeboat-store", "lifeboat-format"]),
    ("lifeboat", &["lifeboat-engine"]),
];

/// Modules (a file or a folder, without `.rs`) and the paths they must not name.
const WALLS: &[(&str, &[&str])] = &[
    ("crates/store/src/drivers", &["crate::layers"]),
    ("crates/store/src/layers", &["crate::drivers"]),
    ("crates/format/src/archive", &["crate::restic"]),
    ("crates/format/src/restic", &["crate::archive"]),
    ("crates/engine/src/source", &["crate::backup", "crate::restore"]),
    ("crates/engine/src/backup", &["crate::restore"]),
    ("crates/engine/src/restore", &["crate::backup"]),
    ("crates/engine/src/restore/plan", &["std::fs", "rustix::fs"]),
    ("crates/engine/src/restore/live/plan", &["std::fs", "rustix::fs", "lifeboat_store"]),
    (
        "crates/lifeboat/src/cli",
        &["lifeboat_engine::backup", "lifeboat_engine::restore", "lifeboat_format", "lifeboat_store"],
    ),
];

/// What starts threads (or children), and the only files that may.
const STARTS: &[&str] = &["thread::scope", "thread::Builder", ".spawn("];
const STARTERS: &[&str] = &[
    "crates/engine/src/backup/servers.rs",
    "crates/engine/src/exec/companion.rs",
    "crates/engine/src/exec/running.rs",
    "crates/engine/src/freeze/guard.rs",
    "crates/engine/src/pg/session.rs",
    "crates/engine/src/restore/fill.rs",
    "crates/format/src/archive/decode.rs",
    "crates/format/src/archive/pipeline.rs",
    "crates/format/src/archive/summed.rs",
    "crates/lifeboat/src/main.rs",
];

const LINES_MAX: usize = 600;
/// Files that are longer, and how long they may be: no longer than they are.
const LONGER: &[(&str, usize)] = &[];

/// Marks of unfinished work. Written in two parts, so that this file passes.
const UNFINISHED: &[&str] = &[
    concat!("FIX", "ME"),
    concat!("dbg", "!("),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("#[", "ignore"),
];

/// Folders and settings of the machine someone builds on.
const MACHINES: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("sparse", "+http"), concat!("replace", "-with")];
const REGISTRY: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository is there")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
}

/// Every file below the root, but none that a build made.
fn files() -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("folders can be listed").flatten() {
            let path = entry.path();
            if !path.is_dir() {
                let name = path.strip_prefix(root()).expect("below the root");
                found.push(name.to_str().expect("our names are UTF-8").to_owned());
            } else if entry.file_name() != ".git" && !path.join("CACHEDIR.TAG").exists() {
                folders.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Every file that git knows; where git knows none, every file.
#[expect(clippy::disallowed_methods, reason = "asks git once, in a test")]
fn tracked_files() -> Vec<String> {
    match Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output() {
        Ok(listed) if listed.status.success() && !listed.stdout.is_empty() => {
            let names = String::from_utf8(listed.stdout).expect("our names are UTF-8");
            names.split_terminator('\0').map(str::to_owned).collect()
        }
        _ => files(),
    }
}

/// Those of `paths` that are text and still there.
fn texts(paths: Vec<String>) -> Vec<File> {
    paths
        .into_iter()
        .filter_map(|path| std::fs::read_to_string(root().join(&path)).ok().map(|text| File { path, text }))
        .collect()
}

fn rust_files() -> Vec<File> {
    texts(files().into_iter().filter(|path| path.starts_with("crates/") && path.ends_with(".rs")).collect())
}

/// The names and texts of the manifests of the crates.
fn manifests() -> Vec<(String, String)> {
    let name = |path: &String| Some(path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml")?.to_owned());
    files().iter().filter_map(|path| Some((name(path)?, read(path)))).collect()
}

fn pass(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn every_promise_has_a_test_that_runs_or_a_measured_row() {
    let shown: Vec<_> = rust_files().iter().flat_map(|file| shown(&file.text)).collect();
    let performance = std::fs::read_to_string(root().join("doc/performance.md")).unwrap_or_default();
    pass(rules::unshown(&promises(&read("doc/promises.md")), &shown, &performance, &files()));
}

#[test]
fn a_test_shows_only_what_is_promised() {
    let shown: Vec<_> = rust_files().iter().flat_map(|file| shown(&file.text)).collect();
    pass(rules::unpromised(&promises(&read("doc/promises.md")), &shown));
}

#[test]
fn crates_depend_only_on_those_behind_their_wall() {
    pass(manifests().iter().flat_map(|(name, text)| rules::crossed_crates(name, text)).collect());
}

#[test]
fn modules_name_nothing_beyond_their_walls() {
    pass(rust_files().iter().flat_map(rules::crossed_walls).collect());
}

#[test]
fn threads_start_only_in_the_files_that_may() {
    pass(rust_files().iter().flat_map(rules::stray_threads).collect());
}

#[test]
fn no_file_grows_beyond_its_limit() {
    pass(rust_files().iter().flat_map(rules::too_long).collect());
}

#[test]
fn no_unfinished_work_is_left() {
    pass(rust_files().iter().flat_map(rules::unfinished).collect());
}

#[test]
fn every_test_file_is_declared() {
    let mains = rust_files().into_iter().filter(|file| file.path.ends_with("/tests/it/main.rs"));
    pass(mains.flat_map(|main| rules::undeclared(&main, &files())).collect());
}

#[test]
fn every_file_that_the_architecture_names_is_there() {
    pass(absent(&rules::named_files(&read("ARCHITECTURE.md")), &files()));
}

#[test]
fn every_script_behind_a_published_figure_is_there() {
    pass(absent(&rules::bench_scripts(&read("doc/performance.md")), &files()));
}

#[test]
fn nothing_of_a_build_machine_is_in_the_repository() {
    pass(texts(tracked_files()).iter().flat_map(rules::machine_marks).collect());
}
