//! Restores of random archives of names and links: the function that
//! `scripts/fuzz extraction` runs for hours.

use lifeboat_engine::fuzzing::{self, World};
use lifeboat_store::testing::{Random, sweep};

/// Shows E12.
#[test]
fn no_random_names_and_links_lead_outside_the_directory() {
    let root = fuzzing::place("extraction-test");
    std::fs::create_dir(&root).expect("a directory in memory");
    let mut world = World::new(&root);
    let mut restored = 0;
    let cases = sweep("archives of random names and links", 20_000, 2000);
    for case in &cases {
        let mut random = Random::new(*case as u64);
        let len = 2 + random.below(60);
        let mut input = random.bytes(len);
        // Few of many kinds at once are restored whole.
        if random.below(3) > 0 {
            input.truncate(1 + random.below(20));
        }
        input[0] &= !fuzzing::AS_IT_IS;
        let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.play(&input)));
        restored += usize::from(played.unwrap_or_else(|_| panic!("case {case} fails: {input:?}")));
    }
    std::fs::remove_dir_all(&root).expect("it can be removed");
    assert!(restored > cases.len() / 50 && restored < cases.len(), "some are restored, and not all: {restored}");
}

/// What shows that nothing happened outside must be able to fail.
///
/// Shows E12.
#[test]
fn a_change_outside_the_directory_is_seen() {
    let changes: [fn(&std::path::Path); 5] = [
        |root| drop(std::fs::remove_file(root.join("canary"))),
        |root| drop(std::fs::hard_link(root.join("canary"), root.join("to/canary"))),
        |root| drop(std::fs::create_dir(root.join("outside/new"))),
        |root| {
            drop(std::fs::set_permissions(
                root.join("outside/secret"),
                std::os::unix::fs::PermissionsExt::from_mode(0o600),
            ));
        },
        |root| drop(std::os::unix::fs::symlink("x", root.join("new"))),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let root = fuzzing::place(&format!("oracle-test-{number}"));
        std::fs::create_dir(&root).expect("a directory in memory");
        let mut world = World::new(&root);
        world.play(&[0, 1, 2, 3]);
        change(&root);
        let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.play(&[0, 1, 2, 3])));
        std::fs::remove_dir_all(&root).expect("it can be removed");
        assert!(played.is_err(), "change {number} was not seen");
    }
}
