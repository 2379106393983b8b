//! The names in one directory, sorted as bytes and kept close together: a
//! directory of a million names costs their letters and eight bytes each.

use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::fs::RawDir;

/// Sorted names, handed out one after the other.
pub(super) struct Listing {
    letters: Vec<u8>,
    /// Where each name begins and how long it is.
    names: Vec<(u32, u16)>,
    next: usize,
}

impl Listing {
    /// The names in the open directory `dir`, without `.` and `..`.
    pub(super) fn read(dir: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        let mut buffer = vec![MaybeUninit::uninit(); 32 << 10];
        let mut raw = RawDir::new(dir, &mut buffer);
        let mut listing = Self { letters: Vec::new(), names: Vec::new(), next: 0 };
        while let Some(entry) = raw.next() {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                let start = u32::try_from(listing.letters.len()).map_err(|_| rustix::io::Errno::FBIG)?;
                let len = u16::try_from(name.len()).map_err(|_| rustix::io::Errno::NAMETOOLONG)?;
                listing.letters.extend_from_slice(&name);
                listing.names.push((start, len));
            }
        }
        let Self { letters, names, .. } = &mut listing;
        names.sort_unstable_by(|a, b| slice(letters, *a).cmp(slice(letters, *b)));
        Ok(listing)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether `name` is among them.
    pub(super) fn has(&self, name: &[u8]) -> bool {
        self.names.binary_search_by(|at| slice(&self.letters, *at).cmp(name)).is_ok()
    }

    /// The next name.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        let at = *self.names.get(self.next)?;
        self.next += 1;
        Some(slice(&self.letters, at).to_vec())
    }
}

fn slice(letters: &[u8], (start, len): (u32, u16)) -> &[u8] {
    let start = start as usize;
    &letters[start..start + usize::from(len)]
}
