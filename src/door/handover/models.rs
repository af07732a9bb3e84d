//! The hand-over under loom: every interleaving, and every value that a relaxed load may see, of
//! control and one shard.
//!
//! Two cells stand for arc-swap's. `Loose` promises no more than an acquire load of a pointer that
//! was stored with release, so that what is newer than what must come from the generation; nothing
//! is freed there. `Counting` promises what arc-swap does of counts: when a store returns, every
//! load of the old pointer has been counted; there control frees. The pointer counts as
//! `std::sync::Arc` does (relaxed up, release down, acquire before the last). A shard marks the
//! plan while it reads it, relaxed: if anything that must come after that reading were not ordered
//! after it, loom would show it the mark.

use std::sync::Arc;

use loom::sync::Mutex;
use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use loom::thread::{self, ThreadId};

use super::*;

/// A pointer to a plan, whose count loom sees.
struct Pointer(Arc<Body>);

struct Body {
    generation: u64,
    holders: AtomicUsize,
    /// True exactly while the shard reads the plan.
    is_read: AtomicBool,
    /// The thread that made the plan and that must free it.
    control: ThreadId,
}

impl Pointer {
    fn new(generation: u64) -> Self {
        Self(Arc::new(Body {
            generation,
            holders: AtomicUsize::new(1),
            is_read: AtomicBool::new(false),
            control: thread::current().id(),
        }))
    }

    /// Runs an exchange under the plan.
    fn read(&self) -> u64 {
        self.0.is_read.store(true, Ordering::Relaxed);
        self.0.is_read.store(false, Ordering::Relaxed);
        self.0.generation
    }

    fn assert_unread(&self) {
        assert!(!self.0.is_read.load(Ordering::Relaxed), "not ordered");
    }
}

impl Clone for Pointer {
    fn clone(&self) -> Self {
        self.0.holders.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Pointer {
    fn drop(&mut self) {
        if self.0.holders.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        fence(Ordering::Acquire);
        self.assert_unread();
        assert!(thread::current().id() == self.0.control, "a shard freed");
    }
}

impl Counted for Pointer {
    fn holders(&self) -> usize {
        self.0.holders.load(Ordering::Relaxed)
    }

    fn generation(&self) -> u64 {
        self.0.generation
    }
}

impl Number for AtomicU64 {
    fn zero() -> Self {
        Self::new(0)
    }

    fn load(&self, ordering: Ordering) -> u64 {
        self.load(ordering)
    }

    fn store(&self, value: u64, ordering: Ordering) {
        self.store(value, ordering);
    }
}

/// Every plan there will be, the one of generation `n` at `n - 1`, and how many of them are posted.
struct Loose {
    plans: Vec<Pointer>,
    posted: AtomicUsize,
}

impl Loose {
    fn new(plans: u64) -> Self {
        Self {
            plans: (1..=plans).map(Pointer::new).collect(),
            posted: AtomicUsize::new(0),
        }
    }
}

impl Cell for Loose {
    type Plan = Pointer;
    type Number = AtomicU64;

    fn store(&self, plan: Pointer) {
        let posted = usize::try_from(plan.generation()).expect("a small number");
        self.posted.store(posted, Ordering::Release);
    }

    fn load(&self) -> Option<Pointer> {
        let posted = self.posted.load(Ordering::Acquire);
        posted.checked_sub(1).map(|last| self.plans[last].clone())
    }
}

/// The newest plan, loaded and counted in one step.
struct Counting(Mutex<Option<Pointer>>);

impl Cell for Counting {
    type Plan = Pointer;
    type Number = AtomicU64;

    fn store(&self, plan: Pointer) {
        let old = self.0.lock().expect("no panic").replace(plan);
        drop(old); // After the lock is released, as arc-swap does it.
    }

    fn load(&self) -> Option<Pointer> {
        self.0.lock().expect("no panic").clone()
    }
}

/// Runs `control` beside `shard` in every way there is.
fn check<C: Cell + Send + Sync + 'static>(
    cell: impl Fn() -> C + Send + Sync + 'static,
    control: fn(&Handover<C>),
    shard: fn(&Handover<C>),
) {
    loom::model(move || {
        let handover = loom::sync::Arc::new(Handover::new(cell(), 1));
        let theirs = loom::sync::Arc::clone(&handover);
        let running = thread::spawn(move || shard(&theirs));
        control(&handover);
        running.join().expect("the shard does not panic");
    });
}

#[test]
fn a_number_that_has_grown_brings_a_plan_that_is_as_new() {
    check(
        || Loose::new(3),
        |handover| {
            for plan in handover.cell.plans.clone() {
                handover.post(plan);
            }
        },
        |handover| {
            let mut seen = 0;
            for _ in 0..2 {
                let Some(plan) = handover.newer_than(seen) else {
                    continue;
                };
                assert!(seen < plan.read(), "an old plan, or the same again");
                seen = plan.generation();
            }
        },
    );
}

#[test]
fn what_a_shard_did_to_adopt_a_plan_is_done_when_control_reads_it() {
    check(
        || Loose::new(1),
        |handover| {
            let plan = handover.cell.plans[0].clone();
            handover.post(plan.clone());
            if handover.adopted(0) == 1 {
                plan.assert_unread();
            }
        },
        |handover| {
            if let Some(plan) = handover.newer_than(0) {
                let generation = plan.read();
                handover.adopt(0, generation);
            }
        },
    );
}

#[test]
fn control_alone_frees_a_plan_and_only_when_no_shard_runs_it() {
    check(
        || Counting(Mutex::new(None)),
        |handover| {
            let mut shelf = Shelf::new();
            for generation in 1..=2 {
                let plan = Pointer::new(generation);
                shelf.keep(plan.clone());
                handover.post(plan);
                shelf.retire();
            }
            while shelf.plans.len() > 1 {
                thread::yield_now();
                shelf.retire();
            }
            // The shelf outlives the shard's last pointer, as the publisher outlives the shards'
            // threads.
            while shelf.plans[0].holders() > 2 || handover.adopted(0) != u64::MAX {
                thread::yield_now();
            }
        },
        |handover| {
            let mut running: Option<Pointer> = None;
            for _ in 0..2 {
                let seen = running.as_ref().map_or(0, Pointer::read);
                if let Some(newer) = handover.newer_than(seen) {
                    assert!(seen < newer.read());
                    // Both are held while the shard changes from one to the other.
                    running = Some(newer);
                }
            }
            drop(running);
            handover.adopt(0, u64::MAX);
        },
    );
}
