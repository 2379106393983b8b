//! A child that has a process group to itself.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::said::Said;
use super::{GRACE, PAUSE_MAX, PAUSE_MIN, Tool, withhold_from};

/// A child in a process group of its own. Dropping it ends the group, unless
/// the child was seen to end by itself.
pub(super) struct Running {
    pub(super) child: Child,
    group: Pid,
    grace: Duration,
    pub(super) has_ended: bool,
}

impl Running {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that starts programs")]
    pub(super) fn start(tool: &Tool<'_>, stdin: Stdio, stdout: Stdio, stderr: &Said) -> io::Result<Self> {
        let (program, arguments) = tool.argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        withhold_from(&mut command);
        for name in tool.unset {
            command.env_remove(name);
        }
        let child = command
            .args(arguments)
            // A folder that is never restored, so that the child keeps none busy.
            .current_dir("/")
            .envs(tool.env.iter().map(|(name, value)| (name, value)))
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr.stdio()?)
            .process_group(0)
            .spawn()?;
        let group = Pid::from_child(&child);
        Ok(Self { child, group, grace: tool.grace, has_ended: false })
    }

    pub(super) fn look(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        self.has_ended |= status.is_some();
        Ok(status)
    }

    /// SIGTERM to all of the group, and SIGKILL to what is left after a while.
    pub(super) fn end_group(&mut self) {
        let asked = Instant::now();
        rustix::process::kill_process_group(self.group, Signal::TERM).unwrap_or(());
        while asked.elapsed() < self.grace {
            // Its own child is waited for first: until then it counts as part of the group.
            let child_has_ended = self.look().is_ok_and(|status| status.is_some());
            if child_has_ended && rustix::process::test_kill_process_group(self.group).is_err() {
                return;
            }
            std::thread::sleep(PAUSE_MAX);
        }
        rustix::process::kill_process_group(self.group, Signal::KILL).unwrap_or(());
        // Nothing outlives SIGKILL for long, but what hangs in the kernel; that is not waited for.
        let killed = Instant::now();
        while killed.elapsed() < GRACE && !self.look().is_ok_and(|status| status.is_some()) {
            std::thread::sleep(PAUSE_MIN);
        }
        self.has_ended = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended {
            self.end_group();
        }
    }
}
