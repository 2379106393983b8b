//! The sum of a file that is being written, taken at the same time: it needs the
//! bytes in their order, and the manifest, made last, comes first. Begun when all
//! is written, it would make every backup longer by as much as it takes.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::panic;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use lifeboat_store::durable::Unnamed;
use lifeboat_store::{self as store, Cancel};

use crate::Result;
use crate::model::{Sha256, Summer};

/// How much is read at once.
const STEP_BYTES: usize = 1 << 20;

/// The sum of all of `file` after `write`, which tells how long the file is as it
/// grows, and changes nothing that it told of.
pub(super) fn summed(
    file: &mut Unnamed,
    cancel: &Cancel,
    write: impl FnOnce(&mut Unnamed, &dyn Fn(u64)) -> Result<()>,
) -> Result<Sha256> {
    let written = file.file().try_clone().map_err(failed)?;
    let (tell, lengths) = mpsc::channel();
    thread::scope(|scope| {
        let nothing = || Sum { file: &written, cancel, at: 0, summer: Summer::new(), buffer: vec![0; STEP_BYTES] };
        let follow = move || {
            let mut sum = nothing();
            lengths.iter().try_for_each(|len| sum.add_up_to(len)).map(|()| sum)
        };
        // Where no thread can be started, all of it is read at the end.
        let following = thread::Builder::new().spawn_scoped(scope, follow).ok();
        // It is told for nothing where nobody follows any more; why, the end says.
        let wrote = write(file, &|len| tell.send(len).unwrap_or(()));
        drop(tell);
        let followed = following.map(|following| following.join().unwrap_or_else(|panic| panic::resume_unwind(panic)));
        wrote?;
        let mut sum = followed.unwrap_or_else(|| Ok(nothing()))?;
        sum.add_up_to(file.len())?;
        Ok(sum.summer.finish())
    })
}

/// The sum of the beginning of a file.
struct Sum<'a> {
    file: &'a File,
    cancel: &'a Cancel,
    /// How much of it was added.
    at: u64,
    summer: Summer,
    buffer: Vec<u8>,
}

impl Sum<'_> {
    fn add_up_to(&mut self, len: u64) -> Result<()> {
        while self.at < len {
            self.cancel.check()?;
            let step = usize::try_from(len - self.at).unwrap_or(STEP_BYTES).min(STEP_BYTES);
            let piece = &mut self.buffer[..step];
            self.file.read_exact_at(piece, self.at).map_err(failed)?;
            self.summer.update(piece);
            self.at += step as u64;
        }
        Ok(())
    }
}

fn failed(error: std::io::Error) -> store::Error {
    store::Error::io("read", Path::new("the archive that was just written"), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_the_whole_file_however_it_was_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
        for step in [700, 1 << 20, 3 << 20, content.len()] {
            let mut file = Unnamed::create(dir.path()).unwrap();
            let sum = summed(&mut file, &Cancel::new(), |file, grown| {
                for piece in content.chunks(step) {
                    file.append(piece)?;
                    grown(file.len());
                }
                file.append(b"not told of")?;
                Ok(())
            });
            assert_eq!(sum.unwrap(), Sha256::of(&[&content[..], b"not told of"].concat()));
        }
    }

    #[test]
    fn a_failure_to_write_and_a_stop_on_request_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = Unnamed::create(dir.path()).unwrap();
        let cancel = Cancel::new();
        let failing = summed(&mut file, &cancel, |_, _| Err(crate::Error::corrupt("no".to_owned())));
        assert_eq!(failing.unwrap_err().kind(), crate::ErrorKind::Corrupt);
        cancel.set();
        let stopped = summed(&mut file, &cancel, |file, _| Ok(file.append(b"x")?));
        assert_eq!(stopped.unwrap_err().kind(), crate::ErrorKind::Store(store::ErrorKind::Cancelled));
    }
}
