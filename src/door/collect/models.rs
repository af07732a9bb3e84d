//! Collecting under loom: an answer that is read brings everything that was recorded before it.
//!
//! The place where a shard lays down is a number of loom's atomics whose changes order nothing
//! besides themselves, so that what control finds there rests on the answer alone.

use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;
use loom::thread;

use super::*;

/// One shard's side: what is asked for, and where it lays down, each recorded value a bit.
struct Door {
    collect: Collect<AtomicU64>,
    place: AtomicU64,
}

impl Door {
    fn put(&self, bits: u64) {
        let before = self.place.fetch_or(bits, Ordering::Relaxed);
        assert_eq!(before & bits, 0, "laid down twice");
    }

    fn take(&self) -> u64 {
        self.place.swap(0, Ordering::Relaxed)
    }
}

#[test]
fn an_answer_brings_all_that_was_recorded_before_it() {
    loom::model(|| {
        let door = Arc::new(Door {
            collect: Collect::new(1),
            place: AtomicU64::new(0),
        });
        let theirs = Arc::clone(&door);
        let shard = thread::spawn(move || {
            let mut answered = 0;
            let mut recorded = 0;
            for tick in 0..2 {
                recorded |= 1 << tick;
                let asked = theirs.collect.asked();
                if answered < asked {
                    theirs.put(std::mem::take(&mut recorded));
                    theirs.collect.answer(0, asked);
                    answered = asked;
                }
            }
            // The end of its life.
            theirs.put(recorded);
        });
        let asked = door.collect.ask();
        let is_answered = asked <= door.collect.answered(0);
        let mut all = door.take();
        // It was recorded before the first tick that could answer.
        assert!(!is_answered || all & 1 == 1, "{all}");
        shard.join().expect("the shard does not panic");
        let rest = door.take();
        assert_eq!(all & rest, 0, "picked up twice");
        all |= rest;
        assert_eq!(all, 0b11);
    });
}
