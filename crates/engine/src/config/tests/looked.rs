//! What a look at the host finds.

use super::*;

/// What is warned of for an app whose sources stand in `dir`.
fn warned(dir: &Path, text: &str) -> Vec<String> {
    let dir = dir.to_str().unwrap();
    let config = load(&text.replace("DIR", dir)).unwrap();
    let warnings = look(&config, &[Path::new(dir).join("bin")]).warnings;
    warnings.into_iter().map(|warning| warning.replace(dir, "DIR")).collect()
}

fn file(path: &Path, mode: u32) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = store::durable::Unnamed::create(path.parent().unwrap()).unwrap();
    file.append(b"x").unwrap();
    file.publish([path.file_name().unwrap()], 0o777).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Shows P1.
#[test]
fn what_is_as_it_should_be_is_not_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    file(&dir.path().join("a/x.conf"), 0o644);
    file(&dir.path().join("b/x.conf"), 0o644);
    file(&dir.path().join("bin/prog"), 0o755);
    let text = "
destinations: { d: { url: DIR } }
apps:
  web:
    sources:
      a: { files: { root: DIR/a/x.conf, at: one } }
      b: { files: { root: DIR/b/x.conf, at: two } }
    version: { command: [prog] }
    health: [ { command: [DIR/bin/prog] } ]
    destinations: [d]
";
    assert_eq!(warned(dir.path(), text), Vec::<String>::new());
}

/// Shows P1.
#[test]
fn each_thing_that_would_fail_is_warned_of_once() {
    let dir = tempfile::tempdir().unwrap();
    file(&dir.path().join("a/x.conf"), 0o644);
    file(&dir.path().join("b/x.conf"), 0o644);
    file(&dir.path().join("bin/plain"), 0o644);
    let text = "
destinations: { d: { url: DIR/a/x.conf } }
apps:
  web:
    sources:
      a: { files: { root: DIR/a/x.conf, at: . } }
      b: { files: { root: DIR/b/x.conf, at: ., stop: [w] } }
      c: { sqlite: { path: DIR/bin } }
      d: { files: { root: DIR/none } }
      e: { mariadb: { databases: [x], password_file: DIR/no-password, bin_dir: DIR/no-bin } }
      f: { command: { run: [no-run], restore: [no-restore] } }
    services:
      commands: { w: { stop: [plain], start: [plain], status: [gone] } }
      restore_stop: []
      reload: { run: [gone] }
    after_restore: [ { http: \"http://h/\", token_file: DIR/none } ]
    destinations: [d]
";
    let expected = [
        "web: source c: DIR/bin is no file",
        "web: source d: DIR/none: No such file or directory",
        "web: password_file: DIR/no-password: No such file or directory",
        "web: source e: bin_dir: DIR/no-bin: No such file or directory",
        "web: source f: the program no-run is not found on PATH",
        "web: source f: the program no-restore is not found on PATH",
        "web: source b: another source stands at x.conf of the snapshot too",
        "web: service w: the program plain is not found on PATH",
        "web: service w: the program gone is not found on PATH",
        "web: token_file: DIR/none: No such file or directory",
        "web: destination d: DIR/a/x.conf is no directory",
    ];
    assert_eq!(warned(dir.path(), text), expected);
}
