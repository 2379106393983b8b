//! A file that does not fit into the size field of a tar header.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "these are the helpers of tests")]

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use lifeboat_store::testing::{Random, can_run};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::env::TestEnv;

/// One byte more than 11 octal digits can say.
const LEN: u64 = (8 << 30) + 1;

/// Where data lies in a file that is otherwise a hole.
fn islands(file: &File) -> Vec<(u64, u64)> {
    let mut islands = Vec::new();
    let mut at = 0;
    loop {
        match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => {
                at = rustix::fs::seek(file, SeekFrom::Hole(start)).unwrap();
                islands.push((start, at));
            }
            Err(Errno::NXIO) => return islands,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Compares the files wherever one of them has data; returns how many bytes that were.
fn compare(one: &Path, other: &Path) -> u64 {
    let files = [one, other].map(|path| File::open(path).unwrap());
    assert_eq!(files[0].metadata().unwrap().len(), files[1].metadata().unwrap().len());
    let mut compared = 0;
    for (start, end) in files.iter().flat_map(islands) {
        assert!(end - start < 64 << 20, "an island is small: {start} to {end}");
        let [one, other] = files.each_ref().map(|file| {
            let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
            file.read_exact_at(&mut bytes, start).unwrap();
            bytes
        });
        assert!(one == other, "between {start} and {end}");
        compared += end - start;
    }
    compared
}

/// Shows A4.
#[test]
fn a_file_over_eight_gib_comes_back_with_its_holes() {
    let env = TestEnv::new();
    let path = env.mkdir("source").join("large");
    let file = File::create(&path).unwrap();
    file.set_len(LEN).unwrap();
    let noise = Random::new(1).bytes(300_000);
    let middle = 5 << 30;
    for at in [0, (4 << 20) - 100, middle, LEN - 100_000] {
        let room = usize::try_from(LEN - at).unwrap().min(noise.len());
        file.write_all_at(&noise[..room], at).unwrap();
    }
    file.sync_all().unwrap();
    env.write("source/after", "what follows it");
    env.lifeboat(["backup", "source", "--output", "a.tar.zst", "--no-verify-on-create"]).ok();
    assert!(path.with_file_name("../a.tar.zst").metadata().unwrap().len() < 8 << 20, "zeros take no room");
    if can_run("a_file_over_eight_gib_comes_back_with_its_holes", &["tar", "zstd"]) {
        let listed = env.run("tar", ["-tvf", "a.tar.zst"]).ok().stdout;
        let line = listed.lines().find(|line| line.ends_with("/large")).unwrap();
        assert!(line.contains(&format!(" {LEN} ")), "{line}");
        assert!(listed.contains("files/source/after"), "{listed}");
    }
    env.lifeboat(["restore", "a.tar.zst", "--to", "new"]).ok();
    let restored = env.path("new/files/source/large");
    let compared = compare(&path, &restored);
    assert!(compared >= 900_000, "{compared} bytes were compared");
    let (before, after) = (path.metadata().unwrap(), restored.metadata().unwrap());
    assert!(after.blocks() <= before.blocks() + 128, "{} blocks became {}", before.blocks(), after.blocks());
    assert_eq!((before.mtime(), before.mtime_nsec()), (after.mtime(), after.mtime_nsec()));
    assert_eq!(env.read("new/files/source/after"), b"what follows it");
    // The comparison can fail.
    File::options().write(true).open(&restored).unwrap().write_all_at(b"!", middle + 5).unwrap();
    assert!(std::panic::catch_unwind(|| compare(&path, &restored)).is_err());
}
