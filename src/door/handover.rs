//! How a plan passes from control to the shards and how it comes to its end: the part of the door
//! that is ours, small enough for loom.
//!
//! Generic over what is handed over and by which atomics, because loom sees only its own: the door
//! puts `Arc<Posted>` in an `ArcSwapOption`, `models.rs` a pointer of loom's atomics in cells of
//! them. See `door/mod.rs` for the argument.

use std::sync::atomic::{AtomicU64, Ordering};

/// Holds the newest plan. `load` gives what was stored last, or something that was stored before it
/// when the two threads have nothing else that orders them; it never waits for `store`.
pub(super) trait Cell {
    /// A counted pointer to a plan.
    type Plan: Counted;
    /// The atomics that stand beside it.
    type Number: Number;

    /// Puts `plan` in the place of the last one. When it returns, every load that took the last one
    /// has counted it.
    fn store(&self, plan: Self::Plan);

    /// One more pointer to what is stored; `None` when nothing is.
    fn load(&self) -> Option<Self::Plan>;
}

/// A pointer that is counted.
pub(super) trait Counted: Clone {
    /// How many pointers there are to the same thing, this one included.
    fn holders(&self) -> usize;

    /// The number of the plan.
    fn generation(&self) -> u64;
}

/// An atomic number: the standard library's, or loom's.
pub(super) trait Number {
    /// Zero.
    fn zero() -> Self;
    /// As the method of `AtomicU64`.
    fn load(&self, ordering: Ordering) -> u64;
    /// As the method of `AtomicU64`.
    fn store(&self, value: u64, ordering: Ordering);
}

/// What control and the shards share.
#[derive(Debug)]
pub(super) struct Handover<C: Cell> {
    cell: C,
    /// The number of the plan in `cell`, or a lower one for the moment between the two stores.
    /// Written by control alone.
    generation: Line<C::Number>,
    /// By shard, the generation that it runs; 0 before its first. Each written by its shard alone,
    /// and by control when the shard is dead.
    adopted: Box<[Line<C::Number>]>,
}

/// A number on a pair of cache lines of its own: the shards read `generation` at each tick, and
/// nothing may make that slow.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Line<N>(pub(super) N);

impl<C: Cell> Handover<C> {
    /// Nothing is handed over yet: the generation is 0, and `cell` is not looked at.
    pub(super) fn new(cell: C, shards: usize) -> Self {
        Self {
            cell,
            generation: Line(C::Number::zero()),
            adopted: (0..shards).map(|_| Line(C::Number::zero())).collect(),
        }
    }

    /// Control: hands `plan` to every shard. Its generation is greater than the last one's.
    pub(super) fn post(&self, plan: C::Plan) {
        let generation = plan.generation();
        self.cell.store(plan);
        // Release: whoever reads this number finds this plan in the cell, or a later one.
        self.generation.0.store(generation, Ordering::Release);
    }

    /// A shard: a plan that is newer than generation `seen`. One relaxed load when there is none.
    #[inline]
    pub(super) fn newer_than(&self, seen: u64) -> Option<C::Plan> {
        if self.generation.0.load(Ordering::Relaxed) <= seen {
            return None;
        }
        // Acquire: pairs with the store in `post`. It reads the number seen above or a later one.
        self.generation.0.load(Ordering::Acquire);
        self.cell.load()
    }

    /// The shard itself: from here on it runs `generation`.
    pub(super) fn adopt(&self, shard: usize, generation: u64) {
        // Release: what the shard did to adopt it is done for whoever reads the number.
        self.adopted[shard].0.store(generation, Ordering::Release);
    }

    /// Control: what `shard` runs.
    pub(super) fn adopted(&self, shard: usize) -> u64 {
        self.adopted[shard].0.load(Ordering::Acquire)
    }

    /// How many shards there are.
    pub(super) fn shards(&self) -> usize {
        self.adopted.len()
    }
}

/// Control's list of every plan that somebody may still hold; the newest is the last.
#[derive(Debug)]
pub(super) struct Shelf<P> {
    plans: Vec<P>,
}

impl<P: Counted> Shelf<P> {
    /// Empty.
    pub(super) fn new() -> Self {
        Self { plans: Vec::new() }
    }

    /// Keeps `plan`, the newest one. Called before any shard can see it.
    pub(super) fn keep(&mut self, plan: P) {
        self.plans.push(plan);
    }

    /// The newest plan.
    pub(super) fn current(&self) -> Option<&P> {
        self.plans.last()
    }

    /// Frees those plans before the newest that nobody else holds. Returns how many.
    ///
    /// A count of one cannot grow again: whoever clones a pointer holds one, and the cell no longer
    /// holds this one.
    pub(super) fn retire(&mut self) -> usize {
        let Some(current) = self.plans.last().map(P::generation) else {
            return 0;
        };
        let before = self.plans.len();
        self.plans
            .retain(|plan| plan.generation() == current || plan.holders() > 1);
        before - self.plans.len()
    }
}

impl Number for AtomicU64 {
    fn zero() -> Self {
        Self::new(0)
    }

    #[inline]
    fn load(&self, ordering: Ordering) -> u64 {
        self.load(ordering)
    }

    #[inline]
    fn store(&self, value: u64, ordering: Ordering) {
        self.store(value, ordering);
    }
}

#[cfg(test)]
mod models;
