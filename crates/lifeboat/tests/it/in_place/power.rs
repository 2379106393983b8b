//! The power goes at a random moment: the file system is shut down under a
//! restore, and mounted again as a machine that starts again would.

use std::cell::Cell;
use std::time::{Duration, Instant};

use lifeboat_store::testing::{Random, can_run, is_root, skip, sweep};

use super::{Live, application, change};
use crate::fidelity::{Tree, snapshot};

/// Shuts down the file system that is mounted at its argument, losing all that
/// was not synced: EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH.
const SHUT_DOWN: &str = "
import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))
";

/// An ext4 image with an application that changed since its backup, mounted at `live`.
struct Machine {
    live: Live,
    /// Journals may lie on the same file system or on another.
    data_dir: std::path::PathBuf,
    /// A new image for every start: as long as another test's mount namespace
    /// holds an old mount, the same image would come with all that it remembers.
    starts: Cell<usize>,
}

impl Machine {
    fn new(journal_inside: bool) -> Self {
        let env = crate::env::TestEnv::new();
        env.run("truncate", ["-s", "32M", "image"]).ok();
        env.run("mkfs.ext4", ["-q", "image"]).ok();
        env.mkdir("live");
        env.run("mount", ["-o", "loop", "image", "live"]).ok();
        application(&env);
        for number in 0..60 {
            env.write(format!("live/app/many/{number}"), Random::new(number).bytes(3000));
        }
        env.lifeboat(["backup", "live/app", "-o", "app.tar.zst"]).ok();
        change(&env);
        for number in (0..60).step_by(2) {
            env.write(format!("live/app/many/{number}"), "changed");
        }
        env.run("sync", ["-f", "live"]).ok();
        env.run("umount", ["live"]).ok();
        env.run("cp", ["--sparse=always", "image", "pristine"]).ok();
        let data_dir = if journal_inside { env.path("live/lifeboat") } else { env.data_dir() };
        Self { live: Live { env }, data_dir, starts: Cell::new(0) }
    }

    fn image(&self) -> String {
        format!("image-{}", self.starts.get())
    }

    /// As it was before the restore, mounted.
    fn start(&self) {
        let env = &self.live.env;
        self.starts.set(self.starts.get() + 1);
        env.run("cp", ["--sparse=always", "pristine", &self.image()]).ok();
        std::fs::remove_dir_all(env.data_dir()).unwrap_or(());
        env.run("mount", ["-o", "loop", &self.image(), "live"]).ok();
    }

    /// Mounted anew, which the same dead file system is not.
    fn mount_again(&self) {
        for _ in 0..600 {
            self.live.env.run("umount", ["-l", "live"]).ok();
            self.live.env.run("mount", ["-o", "loop", &self.image(), "live"]).ok();
            if self.live.env.run("touch", ["live/alive"]).exit_code() == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("a minute went by, and somebody still holds the old mount");
    }

    fn stop(&self) {
        self.live.env.run("umount", ["-l", "live"]).ok();
        std::fs::remove_file(self.live.env.path(self.image())).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> crate::env::Cmd {
        self.live.env.command(arguments).env("LIFEBOAT_DATA_DIR", &self.data_dir)
    }

    /// The phase of the restore that waits, if one does.
    fn waiting(&self) -> Option<String> {
        let said = self.command(&["status", "--json"]).run();
        let code = said.exit_code();
        let status = said.code(code).json_lines().pop().unwrap();
        assert_eq!(code, i32::from(status["waiting"][0].is_object()), "{status}");
        Some(status["waiting"][0]["phase"].as_str()?.to_owned())
    }

    /// What became of it, for comparing.
    fn app(&self) -> Tree {
        snapshot(&self.live.path("app"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.live.env.run("umount", ["-l", "live"]).exit_code();
    }
}

const RESTORE: [&str; 4] = ["restore", "app.tar.zst", "--force", "--allow-unauthenticated"];

/// Shows R11.
#[test]
fn after_a_power_cut_at_any_moment_everything_is_wholly_old_or_wholly_new() {
    const TEST: &str = "after_a_power_cut_at_any_moment_everything_is_wholly_old_or_wholly_new";
    if !can_run(TEST, &["mkfs.ext4", "losetup", "mount", "python3"]) {
        return;
    }
    if !is_root() {
        return skip(TEST, "only root can mount");
    }
    let cases = sweep("power cuts during a restore in place", 50, 6);
    let mut outcomes = [0, 0];
    for journal_inside in [true, false] {
        let machine = Machine::new(journal_inside);
        machine.start();
        let old = machine.app();
        let began = Instant::now();
        machine.command(&RESTORE).run().ok();
        let duration = began.elapsed();
        let new = machine.app();
        machine.stop();
        for number in cases.iter().filter(|number| (**number % 2 == 0) == journal_inside) {
            // A random moment of each fiftieth, the last ones after its end.
            let part = Random::new(*number as u64).below(1000) as f64 / 1000.0;
            let moment = duration.mul_f64((*number as f64 + part) / 50.0 * 1.1);
            let is_new = cut(&machine, moment, &old, &new);
            outcomes[usize::from(is_new)] += 1;
        }
    }
    assert!(outcomes[0] + outcomes[1] == cases.len(), "{outcomes:?}");
}

/// Cuts the power after `moment`. True when the new state stands.
fn cut(machine: &Machine, moment: Duration, old: &Tree, new: &Tree) -> bool {
    machine.start();
    let live = machine.live.env.path("live");
    let running = machine.command(&RESTORE).start();
    std::thread::sleep(moment);
    machine.live.env.run("python3", ["-c", SHUT_DOWN, live.to_str().unwrap()]).ok();
    let code = running.wait().exit_code();
    machine.mount_again();
    let what = format!("cut after {moment:?}, ended with {code}");
    let phase = machine.waiting();
    if phase.is_some() {
        machine.command(&["recover"]).run().ok();
    }
    let now = machine.app();
    assert!(now == *new || now == *old, "{what}: neither old nor new");
    let is_new = now == *new;
    // One that waits is rolled back, unless its new state had started.
    assert!(phase.as_ref().is_none_or(|phase| is_new == (phase == "started")), "{what}: {phase:?}, {is_new}");
    // Who was told that it succeeded can rely on it.
    assert!(is_new || code != 0, "{what}: success, and old");
    machine.stop();
    is_new
}
