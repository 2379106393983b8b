//! Standard output. A reader that has seen enough (`| head`) ends the output
//! quietly; any other failure to write is kept for the end of the run.

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::sync::{Mutex, MutexGuard};

pub(super) struct Out(Mutex<Stream>);

struct Stream {
    writer: BufWriter<Box<dyn Write + Send>>,
    /// A person watches: each line is shown at once.
    is_terminal: bool,
    failure: Option<io::Error>,
}

impl Out {
    /// For text: colours only where they are wanted.
    pub(super) fn styled() -> Self {
        Self::new(Box::new(anstream::stdout()))
    }

    /// For programs: every byte as it is.
    pub(super) fn raw() -> Self {
        Self::new(Box::new(io::stdout()))
    }

    fn new(writer: Box<dyn Write + Send>) -> Self {
        let is_terminal = io::stdout().is_terminal();
        Self(Mutex::new(Stream { writer: BufWriter::with_capacity(1 << 16, writer), is_terminal, failure: None }))
    }

    fn stream(&self) -> MutexGuard<'_, Stream> {
        self.0.lock().expect("nothing panics while writing")
    }

    pub(super) fn line(&self, line: &str) {
        self.stream().write(&[line.as_bytes(), b"\n"]);
    }

    pub(super) fn bytes(&self, bytes: &[u8]) {
        self.stream().write(&[bytes]);
    }

    /// Shows what was written so far.
    pub(super) fn flush(&self) {
        self.stream().flush();
    }

    /// Whether nothing more can be written.
    pub(super) fn is_closed(&self) -> bool {
        self.stream().failure.is_some()
    }

    /// Writes what is left. `Some` is a failure that matters.
    pub(super) fn finish(&self) -> Option<io::Error> {
        let mut stream = self.stream();
        stream.flush();
        stream.failure.take().filter(|error| error.kind() != io::ErrorKind::BrokenPipe)
    }
}

impl Stream {
    fn write(&mut self, parts: &[&[u8]]) {
        if self.failure.is_none() {
            self.failure = parts.iter().try_for_each(|part| self.writer.write_all(part)).err();
            if self.is_terminal {
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        if self.failure.is_none() {
            self.failure = self.writer.flush().err();
        }
    }
}
