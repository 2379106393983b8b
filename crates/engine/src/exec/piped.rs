//! Programs whose output we read, or whose input we write. The end of a pipe
//! says nothing: only the exit status says that all of it came, or was taken.

use std::io::{self, Read, Write};
use std::process::{ChildStdin, ChildStdout};
use std::thread;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::fs::OFlags;

use super::attended::Attended;
use super::{PAUSE_MAX, is_ready};
use crate::{Error, ErrorKind, Result};

/// How much a program may be ahead of us, in bytes: what Linux allows everyone.
const PIPE_BYTES: usize = 1 << 20;

/// What a pipe holds where nobody asked for another size.
const USUAL_PIPE_BYTES: usize = 64 << 10;

/// How long an empty pipe that holds `bytes` is left alone before it is looked at
/// again. A program writes a few KiB at a time, and to be woken for each of them
/// costs both sides more than to carry them. It is a quarter of the time in which
/// a byte each nanosecond fills the pipe, so that no program waits for us.
fn nap(bytes: usize) -> Duration {
    Duration::from_nanos(bytes as u64 / 4)
}

/// What a program prints. The end comes when it has ended with status 0, and
/// not before; however else it ends, the last read fails with how, and with the
/// last lines that it said on stderr. Errors are our [`Error`] in an
/// [`io::Error`]. Dropped before the end, it ends the program.
pub(crate) struct Stream {
    attended: Attended,
    output: ChildStdout,
    /// How long the pipe is left alone when it is empty.
    nap: Duration,
    /// How it ended: what every further read says.
    over: Option<std::result::Result<(), (ErrorKind, String)>>,
}

impl Stream {
    pub(super) fn new(mut attended: Attended) -> Result<Self> {
        let output = attended.running.child.stdout.take();
        let output = output.ok_or_else(|| attended.failed(&io::ErrorKind::BrokenPipe.into()))?;
        // A program that need not wait while we compress what it said is done sooner. Where the system
        // allows no more than usual, that does.
        let pipe_bytes = rustix::pipe::fcntl_setpipe_size(&output, PIPE_BYTES).unwrap_or(USUAL_PIPE_BYTES);
        let flags = rustix::fs::fcntl_getfl(&output)
            .and_then(|flags| rustix::fs::fcntl_setfl(&output, flags | OFlags::NONBLOCK));
        flags.map_err(|error| attended.failed(&error.into()))?;
        Ok(Self { attended, output, nap: nap(pipe_bytes), over: None })
    }

    fn pull(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut has_napped = false;
        loop {
            match self.output.read(buffer) {
                Ok(0) => return self.attended.succeed().map(|()| 0),
                Ok(read) => {
                    self.attended.check_now_and_then()?;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !has_napped => {
                    thread::sleep(self.nap);
                    has_napped = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.attended.check()?;
                    if !is_ready(&self.output, PollFlags::IN, PAUSE_MAX) {
                        self.attended.look_while_silent()?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.attended.failed(&error)),
            }
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.over.is_none() {
            match self.pull(buffer) {
                Ok(0) => self.over = Some(Ok(())),
                Ok(read) => return Ok(read),
                Err(error) => self.over = Some(Err((error.kind(), error.to_string()))),
            }
        }
        match &self.over {
            Some(Err((kind, what))) => Err(io::Error::other(Error::new(*kind, what))),
            Some(Ok(())) | None => Ok(0),
        }
    }
}

/// The input of a program. What was written was taken only when
/// [`Sink::finish`] says so. Errors are our [`Error`] in an [`io::Error`].
/// Dropped before that, it ends the program.
pub(crate) struct Sink {
    attended: Attended,
    input: Option<ChildStdin>,
}

impl Sink {
    pub(super) fn new(mut attended: Attended) -> Result<Self> {
        let input = attended.running.child.stdin.take();
        let input = input.ok_or_else(|| attended.failed(&io::ErrorKind::BrokenPipe.into()))?;
        // A write to one that does not read must not keep us from seeing that the run is to stop.
        let flags =
            rustix::fs::fcntl_getfl(&input).and_then(|flags| rustix::fs::fcntl_setfl(&input, flags | OFlags::NONBLOCK));
        flags.map_err(|error| attended.failed(&error.into()))?;
        Ok(Self { attended, input: Some(input) })
    }

    /// Ends its input and waits until it has ended.
    ///
    /// # Errors
    /// When it ends with anything but status 0, with what it said last.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.input = None;
        self.attended.succeed()
    }

    fn push(&mut self, bytes: &[u8]) -> Result<usize> {
        loop {
            self.attended.check()?;
            let Some(input) = &mut self.input else { return Err(early_end()) };
            if !is_ready(input, PollFlags::OUT, PAUSE_MAX) {
                self.attended.look_while_silent()?;
                continue;
            }
            match input.write(bytes) {
                Ok(written) => return Ok(written),
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    self.input = None;
                    return Err(self.attended.succeed().err().unwrap_or_else(early_end));
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                Err(error) => return Err(self.attended.failed(&error)),
            }
        }
    }
}

fn early_end() -> Error {
    Error::new(ErrorKind::Failed, "it ended before it had read all that it was given")
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes).map_err(io::Error::other)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
