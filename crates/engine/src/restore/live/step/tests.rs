use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::*;

/// `app` live and its stage beside, with one file on each side that `names` name.
struct Ground {
    dir: tempfile::TempDir,
    terms: Terms,
}

impl Ground {
    fn new(names: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["app", "stage/swap/app", "stage/removed/app"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        for name in names {
            // What it holds says which it is.
            std::fs::hard_link(Self::file(dir.path(), name), dir.path().join(name)).unwrap();
        }
        let place = Place {
            base: Name::of(dir.path()),
            stage: Name::of(&dir.path().join("stage")),
            inode: dir.path().metadata().unwrap().ino(),
            mtime: (0, 0),
            moves_dirs: true,
        };
        Self { dir, terms: Terms { places: vec![place], ..Terms::default() } }
    }

    fn file(dir: &Path, name: &str) -> PathBuf {
        let path = dir.join(format!("made-{}", name.replace('/', "-")));
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.create(true).truncate(true).write(true).open(&path).unwrap();
        std::io::Write::write_all(&mut file, name.as_bytes()).unwrap();
        path
    }

    fn inode(&self, name: &str) -> u64 {
        self.dir.path().join(name).metadata().unwrap().ino()
    }

    /// What the file at each name was made as; empty where nothing is.
    fn stands(&self, names: &[&str]) -> Vec<String> {
        names.iter().map(|name| std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()).collect()
    }
}

const LIVE: &str = "app/a";
const SWAP_A: &str = "stage/swap/app/a";
const REMOVED_A: &str = "stage/removed/app/a";

fn spot(side: Side) -> Spot {
    Spot::new(side, b"app/a")
}

/// Does it twice and undoes it twice: the second time changes nothing.
fn there_and_back(ground: &Ground, step: &Step, names: [&str; 2], done: [&str; 2]) {
    let before = ground.stands(&names);
    for _ in 0..2 {
        step.apply(&Sides::open(&ground.terms).unwrap()).unwrap();
        assert_eq!(ground.stands(&names), done, "{step:?}");
    }
    for _ in 0..2 {
        step.undo(&Sides::open(&ground.terms).unwrap()).unwrap();
        assert_eq!(ground.stands(&names), before, "{step:?}");
    }
}

/// Shows R8.
#[test]
fn every_step_may_be_done_twice_and_undone_twice() {
    let ground = Ground::new(&[LIVE, SWAP_A]);
    let (new, old) = (ground.inode(SWAP_A), ground.inode(LIVE));
    let live = Name(b"app/a".to_vec());
    let step = Step::Exchange { place: 0, staged: spot(Side::Swap), live, new, old };
    there_and_back(&ground, &step, [LIVE, SWAP_A], [SWAP_A, LIVE]);

    let ground = Ground::new(&[SWAP_A]);
    let inode = ground.inode(SWAP_A);
    let step = Step::Move { place: 0, from: spot(Side::Swap), to: spot(Side::Live), inode };
    there_and_back(&ground, &step, [LIVE, SWAP_A], [SWAP_A, ""]);

    let ground = Ground::new(&[LIVE]);
    let inode = ground.inode(LIVE);
    let step = Step::Move { place: 0, from: spot(Side::Live), to: spot(Side::Removed), inode };
    there_and_back(&ground, &step, [LIVE, REMOVED_A], ["", LIVE]);
}

/// Shows R8.
#[test]
fn what_the_new_state_wrote_gives_way_to_the_old_one_and_is_kept() {
    let ground = Ground::new(&[LIVE, SWAP_A]);
    let (new, old) = (ground.inode(SWAP_A), ground.inode(LIVE));
    let live = Name(b"app/a".to_vec());
    let step = Step::Exchange { place: 0, staged: spot(Side::Swap), live, new, old };
    step.apply(&Sides::open(&ground.terms).unwrap()).unwrap();
    // The application replaced its file, as many do when they save.
    let path = ground.dir.path().join(LIVE);
    std::fs::remove_file(&path).unwrap();
    std::fs::hard_link(Ground::file(ground.dir.path(), "saved"), &path).unwrap();
    step.undo(&Sides::open(&ground.terms).unwrap()).unwrap();
    assert_eq!(ground.stands(&[LIVE, SWAP_A]), [LIVE, "saved"]);
}

/// Shows R8.
#[test]
fn a_step_whose_sides_are_somebody_elses_is_not_done_and_what_is_lost_is_said() {
    let ground = Ground::new(&[LIVE, SWAP_A]);
    let live = Name(b"app/a".to_vec());
    let step = Step::Exchange { place: 0, staged: spot(Side::Swap), live, new: 1, old: 2 };
    let sides = Sides::open(&ground.terms).unwrap();
    assert!(step.apply(&sides).is_err());
    assert_eq!(step.undo(&sides).unwrap_err().kind(), ErrorKind::RollbackIncomplete);
    assert_eq!(ground.stands(&[LIVE, SWAP_A]), [LIVE, SWAP_A]);
}
