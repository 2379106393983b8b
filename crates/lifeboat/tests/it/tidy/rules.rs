//! What must hold, each rule a function from text to complaints. That they
//! find what they are for is tested at the end.

use super::{CRATES, LINES_MAX, LONGER, MACHINES, REGISTRY, STARTERS, STARTS, UNFINISHED, WALLS};

pub(super) struct File {
    pub(super) path: String,
    pub(super) text: String,
}

/// A promise of doc/promises.md.
pub(super) struct Promise {
    number: String,
    speed: bool,
}

/// What a test's doc comment says it shows.
pub(super) struct Shown {
    number: String,
    runs: bool,
}

fn is_number(word: &str) -> bool {
    word.strip_prefix(|first: char| first.is_ascii_uppercase())
        .is_some_and(|digits| !digits.is_empty() && digits.chars().all(|digit| digit.is_ascii_digit()))
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

/// The promises that lines like `- **A7** text` make.
pub(super) fn promises(text: &str) -> Vec<Promise> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("- **")?.split_once("**"));
    lines.map(|(number, rest)| Promise { number: number.to_owned(), speed: rest.starts_with(" (speed)") }).collect()
}

/// The numbers after each `Shows` in doc comments, and whether a test that runs follows.
pub(super) fn shown(code: &str) -> Vec<Shown> {
    let mut found = Vec::new();
    let (mut doc, mut attributes) = (String::new(), String::new());
    for line in code.lines().map(str::trim) {
        let open = attributes.matches('[').count() > attributes.matches(']').count();
        if let Some(text) = line.strip_prefix("///") {
            doc = doc + " " + text;
        } else if line.starts_with("#[") || open {
            attributes.push_str(line);
        } else {
            let runs = attributes.contains("#[test]") && !attributes.contains(concat!("#[", "ignore"));
            for said in doc.split("Shows ").skip(1) {
                let sentence = said.split('.').next().unwrap_or("");
                let numbers = words(sentence).filter(|word| *word != "and").take_while(|word| is_number(word));
                found.extend(numbers.map(|number| Shown { number: number.to_owned(), runs }));
            }
            doc.clear();
            attributes.clear();
        }
    }
    found
}

/// Promises that no running test shows or, of those about speed, no script measures.
pub(super) fn unshown(promises: &[Promise], shown: &[Shown], performance: &str, files: &[String]) -> Vec<String> {
    let is_shown = |number: &str| shown.iter().any(|it| it.runs && it.number == number);
    let is_measured = |number: &str| {
        let mut rows =
            performance.lines().filter(|line| line.starts_with('|') && words(line).any(|word| word == number));
        rows.any(|row| bench_scripts(row).iter().any(|script| is_there(script, files)))
    };
    let complaint = |promise: &Promise| match (promise.speed, promise.number.as_str()) {
        (false, number) if !is_shown(number) => Some(format!("{number}: no test that runs says `Shows {number}.`")),
        (true, number) if !is_measured(number) => {
            Some(format!("{number}: no row in doc/performance.md names it and a script in bench/ that is there"))
        }
        _ => None,
    };
    promises.iter().filter_map(complaint).collect()
}

/// `Shows` that is wrong: no such promise, or at something that is no test that runs.
pub(super) fn unpromised(promises: &[Promise], shown: &[Shown]) -> Vec<String> {
    let complaint = |it: &Shown| match promises.iter().any(|promise| promise.number == it.number) {
        false => Some(format!("Shows {}: doc/promises.md has no such promise", it.number)),
        true if !it.runs => Some(format!("Shows {}: stands at something that is no test that runs", it.number)),
        true => None,
    };
    shown.iter().filter_map(complaint).collect()
}

/// Crates of ours that the manifest of `name` depends on without being allowed to.
pub(super) fn crossed_crates(name: &str, manifest: &str) -> Vec<String> {
    let Some((_, allowed)) = CRATES.iter().find(|(known, _)| *known == name) else {
        return vec![format!("crates/{name} is not in the table of crates")];
    };
    let (mut section, mut crossed) = (String::new(), Vec::new());
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line.replace(['[', ']'], "");
        }
        let counts = section.split('.').any(|part| part == "dependencies" || part == "build-dependencies");
        let names = line.split(|c: char| !c.is_alphanumeric() && c != '-').filter(|word| word.starts_with("lifeboat"));
        let wrong = names.filter(|used| counts && !allowed.contains(used));
        crossed.extend(wrong.map(|used| format!("crates/{name} must not depend on {used}")));
    }
    crossed
}

/// Every path that `code` names; the groups of `use` lines are spread out.
fn named_paths(code: &str) -> Vec<String> {
    let code: String = code.lines().map(|line| line.split("//").next().unwrap_or("").to_owned() + "\n").collect();
    let (mut paths, mut outer) = (Vec::new(), vec![String::new()]);
    for piece in code.split_inclusive(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
        let word = piece.trim_end_matches(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
        let path = outer.last().cloned().unwrap_or_default() + word.trim_start_matches("::");
        let opens_group = piece.ends_with('{') && word.ends_with("::");
        if piece.ends_with('}') {
            outer.pop();
        } else if piece.ends_with('{') {
            outer.push(if opens_group { path.clone() } else { String::new() });
        }
        if !opens_group && !word.is_empty() {
            paths.push(path);
        }
    }
    paths
}

/// `path`, as the file `file` names it, from the root of its crate.
fn from_crate_root(path: &str, file: &str) -> String {
    let module = file.split_once("/src/").map_or("", |(_, module)| module).trim_end_matches(".rs");
    let module = module.trim_end_matches("/mod");
    let mut above: Vec<&str> = module.split('/').filter(|name| !["lib", "main"].contains(name)).collect();
    let mut rest = path;
    while let Some(shorter) = rest.strip_prefix("super::") {
        above.pop();
        rest = shorter;
    }
    if rest.len() == path.len() {
        return path.to_owned();
    }
    above.push(rest);
    format!("crate::{}", above.join("::"))
}

/// Paths that the file must not name, by the walls around its module.
pub(super) fn crossed_walls(file: &File) -> Vec<String> {
    let inside =
        |module: &str| file.path.strip_prefix(module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'));
    let forbidden: Vec<&&str> =
        WALLS.iter().filter(|(module, _)| inside(module)).flat_map(|(_, paths)| *paths).collect();
    let crosses = |path: &str| {
        forbidden.iter().any(|no| path.strip_prefix(**no).is_some_and(|rest| rest.is_empty() || rest.starts_with("::")))
    };
    let paths = named_paths(&file.text).into_iter().map(|path| from_crate_root(&path, &file.path));
    paths.filter(|path| crosses(path)).map(|path| format!("{} must not use {path}", file.path)).collect()
}

/// Threads that are started elsewhere than in the files that may; unit tests are free.
pub(super) fn stray_threads(file: &File) -> Vec<String> {
    let product = file.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or("");
    let is_test = file.path.ends_with("/tests.rs") || file.path.contains("/tests/");
    let is_product = file.path.contains("/src/") && !is_test;
    if !is_product || STARTERS.contains(&file.path.as_str()) {
        return Vec::new();
    }
    STARTS.iter().filter(|start| product.contains(**start)).map(|start| format!("{}: {start}", file.path)).collect()
}

pub(super) fn too_long(file: &File) -> Vec<String> {
    let lines = file.text.lines().count();
    match LONGER.iter().find(|(path, _)| *path == file.path) {
        None if lines > LINES_MAX => vec![format!("{} has {lines} lines", file.path)],
        Some((path, known)) if lines != *known => vec![format!("{path} has {lines} lines, the table says {known}")],
        _ => Vec::new(),
    }
}

pub(super) fn unfinished(file: &File) -> Vec<String> {
    UNFINISHED.iter().filter(|mark| file.text.contains(**mark)).map(|mark| format!("{}: {mark}", file.path)).collect()
}

/// Test files and folders beside a `main.rs` that it does not declare.
pub(super) fn undeclared(main: &File, files: &[String]) -> Vec<String> {
    let folder = main.path.trim_end_matches("main.rs");
    let names = files.iter().filter_map(|path| path.strip_prefix(folder)).filter(|name| name.ends_with(".rs"));
    let modules = names.map(|name| name.split('/').next().unwrap_or(name).trim_end_matches(".rs"));
    let declared =
        |module: &str| main.text.lines().any(|line| line.trim_start_matches("pub ") == format!("mod {module};"));
    modules.filter(|module| *module != "main" && !declared(module)).map(|module| format!("{folder}{module}")).collect()
}

fn backticked(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The files and folders that a text names in backticks.
pub(super) fn named_files(text: &str) -> Vec<&str> {
    let is_plain = |name: &&str| name.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    let is_file = |name: &&str| name.contains('/') || [".rs", ".md", ".toml"].iter().any(|end| name.ends_with(end));
    let names = backticked(text).map(|name| name.trim_start_matches("./"));
    names.filter(|name| !name.starts_with('/')).filter(is_plain).filter(is_file).collect()
}

/// Whether a file or folder of that name is there, at the root or below any folder.
fn is_there(name: &str, files: &[String]) -> bool {
    let inner = format!("/{}/", name.trim_end_matches('/'));
    files.iter().any(|path| format!("/{path}/").contains(&inner))
}

pub(super) fn bench_scripts(text: &str) -> Vec<&str> {
    let commands = backticked(text).filter_map(|span| span.split_whitespace().next());
    commands.map(|name| name.trim_start_matches("./")).filter(|name| name.starts_with("bench/")).collect()
}

pub(super) fn absent(names: &[&str], files: &[String]) -> Vec<String> {
    names.iter().filter(|name| !is_there(name, files)).map(|name| format!("{name} is named, but not there")).collect()
}

/// What a build machine left in the file: its folders, its registry.
pub(super) fn machine_marks(file: &File) -> Vec<String> {
    let in_path = |c: char| c.is_alphanumeric() || "}_.-/".contains(c);
    let stands_alone = |at: usize| !file.text[..at].ends_with(in_path);
    let marks = MACHINES.iter().filter(|mark| file.text.match_indices(**mark).any(|(at, _)| stands_alone(at)));
    let sources = file.text.lines().filter(|line| file.path.ends_with("Cargo.lock") && line.starts_with("source = "));
    marks
        .copied()
        .chain(sources.filter(|line| *line != REGISTRY))
        .map(|mark| format!("{}: {mark}", file.path))
        .collect()
}

#[test]
fn promises_without_a_test_that_runs_are_found() {
    let listed = promises("- **A1** text\n- **A2** (speed) text\n- **A3** text\n- **A4** text");
    let tests =
        "/// Shows A1 and A9. A8 is another.\n#[expect(\n  x\n)]\n#[test]\nfn a() {}\n/// Shows A3.\nfn helper() {}";
    let ignored = format!("/// Shows A4.\n#[test]\n{} = \"slow\"]\nfn b() {{}}", concat!("#[", "ignore"));
    let shown: Vec<_> = [tests, &ignored].into_iter().flat_map(shown).collect();
    let files = ["bench/archive".to_owned()];

    assert_eq!(unshown(&listed, &shown, "", &files).len(), 3, "A2 without a row, A3 at no test, A4 ignored");
    assert_eq!(unshown(&listed, &shown, "| A2 | `bench/archive -n 5` |", &files).len(), 2);
    assert_eq!(unshown(&listed, &shown, "| A2 | `bench/gone` |", &files).len(), 3);
    assert_eq!(unshown(&listed, &shown, "| A21 | `bench/archive` |", &files).len(), 3);
    assert_eq!(unpromised(&listed, &shown).len(), 3, "A9 is no promise, A3 and A4 run no test");
}

#[test]
fn crossed_walls_are_found() {
    let manifest = "[dependencies]\nlifeboat-store.workspace = true\n[dev-dependencies]\nlifeboat-engine = \"1\"";
    assert!(crossed_crates("format", manifest).is_empty());
    assert_eq!(crossed_crates("store", manifest), ["crates/store must not depend on lifeboat-store"]);
    assert_eq!(crossed_crates("store", "[target.'cfg(unix)'.dependencies.lifeboat-format]").len(), 1);
    assert_eq!(crossed_crates("fifth", "").len(), 1);

    let crossed = |path: &str, code: &str| crossed_walls(&file(path, code)).len();
    assert_eq!(crossed("crates/engine/src/backup/mod.rs", "use crate::{app, restore::{self, plan::Plan}};"), 2);
    assert_eq!(crossed("crates/engine/src/backup.rs", "fn f() { super::restore::run() }"), 1);
    assert_eq!(crossed("crates/engine/src/backup/walk.rs", "fn f(x: &crate::restore::Plan) {}"), 1);
    assert_eq!(crossed("crates/engine/src/backup/walk.rs", "use super::super::restore;"), 1);
    assert_eq!(crossed("crates/engine/src/backup/walk.rs", "// crate::restore\nuse super::restore; // its own"), 0);
    assert_eq!(crossed("crates/engine/src/backup.rs", "use crate::restored; use crate::{restoring::X};"), 0);
    assert_eq!(crossed("crates/engine/src/backups.rs", "use crate::restore;"), 0);
    assert_eq!(crossed("crates/engine/src/restore/plan.rs", "use std::{fs::File, io};"), 1);
    assert_eq!(crossed("crates/lifeboat/src/cli/list.rs", "use lifeboat_format::archive::Reader;"), 1);
}

#[test]
fn each_other_rule_finds_what_it_is_for() {
    assert_eq!(stray_threads(&file("crates/store/src/lib.rs", "std::thread::scope(|s| s.spawn(work))")).len(), 2);
    assert_eq!(stray_threads(&file(STARTERS[0], "std::thread::scope(|s| s.spawn(work))")).len(), 0);
    for tests in ["tests.rs", "tests/c.rs"] {
        let path = format!("crates/a/src/b/{tests}");
        assert_eq!(stray_threads(&file(&path, "std::thread::scope(|s| s.spawn(work))")).len(), 0);
    }
    assert_eq!(stray_threads(&file("crates/a/src/b.rs", "#[cfg(test)]\nmod tests { s.spawn(x) }")).len(), 0);

    assert_eq!(too_long(&file("a.rs", &"\n".repeat(LINES_MAX))).len(), 0);
    assert_eq!(too_long(&file("a.rs", &"\n".repeat(LINES_MAX + 1))).len(), 1);
    for mark in UNFINISHED {
        assert_eq!(unfinished(&file("a.rs", &format!("x {mark} y"))).len(), 1, "{mark}");
    }

    let beside = ["t/it/main.rs", "t/it/a.rs", "t/it/b/c.rs", "t/it/data.txt"].map(str::to_owned);
    assert_eq!(undeclared(&file("t/it/main.rs", "mod a;\nmod bb;"), &beside), ["t/it/b"]);

    let text =
        "`a/b.rs`, `b.rs`, `./gone.md`, `sub/`, `--to`, `/dev/null`, `a::b`, `x/<y>`\n```text\nz/z\n```\n`no/such`";
    let there = ["crates/a/b.rs", "sub/x"].map(str::to_owned);
    assert_eq!(absent(&named_files(text), &there).len(), 2, "gone.md and no/such");
    assert_eq!(bench_scripts("`bench/x --rounds 5` and `./bench/y`, not `tar`"), ["bench/x", "bench/y"]);

    for mark in MACHINES {
        assert_eq!(machine_marks(&file("a.md", &format!("see {mark}x"))).len(), 1, "{mark}");
    }
    assert_eq!(machine_marks(&file("a.md", &format!("$HOME{}x", MACHINES[0]))).len(), 0);
    assert_eq!(machine_marks(&file("Cargo.lock", &format!("{REGISTRY}\nsource = \"registry+x\""))).len(), 1);
}

fn file(path: &str, text: &str) -> File {
    File { path: path.to_owned(), text: text.to_owned() }
}
