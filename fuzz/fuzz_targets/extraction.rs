#![no_main]

use std::cell::RefCell;

use lifeboat_engine::fuzzing::{World, place};

thread_local! {
    static WORLD: RefCell<World> = RefCell::new({
        let root = place("fuzz-extraction");
        std::fs::create_dir(&root).expect("a directory of its own");
        World::new(&root)
    });
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    WORLD.with_borrow_mut(|world| world.play(data));
});
