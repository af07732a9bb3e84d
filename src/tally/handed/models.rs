//! The place under loom: a shard that lays down as often as it likes beside a control that picks
//! up when it likes.

use loom::sync::Mutex;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

use super::*;

/// Holds its chain behind a lock, each method one step, as arc-swap has it.
struct Locked(Mutex<Chain<u64>>);

impl Cell for Locked {
    type Thing = u64;

    fn load(&self) -> Chain<u64> {
        self.0.lock().expect("no panic").clone()
    }

    fn replace(&self, expected: &Chain<u64>, next: Chain<u64>) -> bool {
        let mut held = self.0.lock().expect("no panic");
        let address = |chain: &Chain<u64>| chain.as_ref().map(Arc::as_ptr);
        let same = address(&held) == address(expected);
        if same {
            *held = next;
        }
        same
    }

    fn empty(&self) -> Chain<u64> {
        self.0.lock().expect("no panic").take()
    }
}

/// Values that were recorded, each a bit, so that one that is there twice or not at all shows.
fn pick_up(place: &Place<Locked>, all: &mut u64) {
    place.take(|bits| {
        assert_eq!(*all & bits, 0, "picked up twice");
        *all |= bits;
    });
}

#[test]
fn what_is_laid_down_is_picked_up_once() {
    loom::model(|| {
        let place = loom::sync::Arc::new(Place(Locked(Mutex::new(None))));
        let laid_down = loom::sync::Arc::new(AtomicU64::new(0));
        let (theirs, number) = (place.clone(), laid_down.clone());
        let shard = thread::spawn(move || {
            for bit in 0..3 {
                theirs.put(1 << bit);
                number.store((2 << bit) - 1, Ordering::Release);
            }
        });
        let mut all = 0;
        for _ in 0..2 {
            let expected = laid_down.load(Ordering::Acquire);
            pick_up(&place, &mut all);
            assert_eq!(all & expected, expected, "what was laid down is there");
        }
        shard.join().expect("the shard does not panic");
        pick_up(&place, &mut all);
        assert_eq!(all, 0b111);
    });
}
