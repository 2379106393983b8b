//! Restoring in place: what the plan says, what is asked, what stands after
//! it, and that everything is wholly old or wholly new whatever happens.
#![expect(clippy::unwrap_used, reason = "these are the helpers of tests")]

use std::path::{Path, PathBuf};

use lifeboat_store::testing::{can_run, is_root, skip};

use crate::env::{Run, TestEnv};
use crate::fidelity::{Tree, assert_same, snapshot};

mod agreed;
pub(crate) mod databases;
mod kept;
mod merge;
mod model;
mod plan;
mod power;
mod room;
mod services;
mod swaps;
pub(crate) mod sweep;
mod users;

/// An application `live/app`, alone in a directory of its own, with an archive
/// of it beside.
pub(crate) struct Live {
    pub(crate) env: TestEnv,
}

impl Live {
    /// The application that `make` builds in `live/app`, and `app.tar.zst`.
    pub(crate) fn new(make: impl FnOnce(&TestEnv)) -> Self {
        Self::with_options(&[], make)
    }

    /// The same, backed up with further options.
    pub(crate) fn with_options(options: &[&str], make: impl FnOnce(&TestEnv)) -> Self {
        let env = TestEnv::new();
        make(&env);
        env.lifeboat(["backup", "live/app", "-o", "app.tar.zst"].iter().chain(options)).ok();
        Self { env }
    }

    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.env.path(Path::new("live").join(path))
    }

    /// `restore app.tar.zst` with further options, agreeing to everything.
    pub(crate) fn restore(&self, options: &[&str]) -> Run {
        let agreed = ["restore", "app.tar.zst", "--force", "--allow-unauthenticated"];
        self.env.lifeboat(agreed.iter().chain(options))
    }

    /// The same under strace with these options; its log is `trace`.
    pub(crate) fn traced(&self, strace: &[&str], options: &[&str]) -> Run {
        let lifeboat = [env!("CARGO_BIN_EXE_lifeboat"), "restore", "app.tar.zst", "--force", "--allow-unauthenticated"];
        let strace = ["-f", "-o", "trace"].iter().chain(strace);
        self.env.run("strace", strace.chain(&lifeboat).chain(options))
    }

    /// A restore in this mode fails when all its steps are done, in `places`
    /// places: everything is as it was before.
    pub(crate) fn assert_rolls_back(&self, mode: &str, places: usize) {
        let before = self.all();
        // Each place is synced once when it is staged, and once when all is swapped.
        let fail = format!("inject=syncfs:error=EIO:when={}", places + 1);
        self.traced(&["-e", "trace=syncfs", "-e", &fail], &["--mode", mode]).code(20);
        assert_same(&before, &self.all(), &format!("{mode}, rolled back"));
        assert_eq!(self.journals(), Vec::<String>::new());
    }

    /// Everything in `live`: the application, and what restores leave beside it.
    pub(crate) fn all(&self) -> Tree {
        snapshot(&self.env.path("live"))
    }

    /// The application, without what restores left beside it.
    pub(crate) fn app(&self) -> Tree {
        snapshot(&self.path("app"))
    }

    /// The names beside the application that restores left.
    pub(crate) fn stages(&self) -> Vec<String> {
        self.env.names("live").into_iter().filter(|name| name.contains(".lifeboat-")).collect()
    }

    /// Removes what the only restore replaced, after which nothing of it may be left.
    pub(crate) fn discard(&self) {
        self.env.lifeboat(["restore", "--discard"]).ok();
        assert_eq!(self.stages(), Vec::<String>::new());
        assert_eq!(self.journals(), Vec::<String>::new());
    }

    /// The names in the directory of journals.
    pub(crate) fn journals(&self) -> Vec<String> {
        let dir = self.env.data_dir().join("journal");
        std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    /// The application is `expected`, and nothing waits.
    pub(crate) fn assert_app(&self, expected: &Tree, what: &str) {
        assert_same(expected, &self.app(), what);
    }
}

/// Whether `test`, which mounts file systems, can run with these programs.
pub(crate) fn can_mount(test: &str, programs: &[&str]) -> bool {
    if !is_root() {
        skip(test, "only root can mount file systems");
        return false;
    }
    can_run(test, programs)
}

/// A small application with every kind of thing in it.
pub(crate) fn application(env: &TestEnv) {
    env.write("live/app/conf/app.conf", "port = 80\n");
    env.write("live/app/conf/users", "alice\n");
    env.write("live/app/data/one", "1");
    env.write("live/app/data/deep/er/two", vec![b'2'; 5000]);
    env.write("live/app/empty", "");
    env.mkdir("live/app/spool");
    env.run("ln", ["-s", "conf/app.conf", "live/app/link"]).ok();
    env.run("ln", ["live/app/data/one", "live/app/data/same"]).ok();
    env.set_mode("live/app/conf", 0o750);
    env.set_mode("live/app/conf/users", 0o600);
    env.run("touch", ["-d", "2020-02-02 02:02:02.123456789", "live/app/conf/app.conf", "live/app/conf"]).ok();
}

/// What has become of it since the backup.
pub(crate) fn change(env: &TestEnv) {
    env.write("live/app/conf/app.conf", "port = 81\n");
    env.write("live/app/conf/extra.conf", "new since\n");
    env.write("live/app/data/deep/three", "new since");
    env.set_mode("live/app/conf", 0o700);
    for gone in ["live/app/data/deep/er/two", "live/app/link", "live/app/empty"] {
        std::fs::remove_file(env.path(gone)).unwrap();
    }
    env.mkdir("live/app/empty/now/a/dir");
    env.write("live/app/link", "no link any more");
    std::fs::remove_dir(env.path("live/app/spool")).unwrap();
}
