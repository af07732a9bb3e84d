//! Where a shard lays down what it has recorded, and control picks it up.
//!
//! One place for each service and each endpoint of each shard: a chain, to which the shard adds in
//! one step, and which control takes whole in one step. So neither side ever waits for the other,
//! and what was laid down stays in place until control has it. (A place for one recorder, whose own
//! the shard takes back to add to it, was tried: control could look while the shard had it in its
//! hands.) `models.rs` shows it under loom.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::{Phases, Recorder};

/// A place for recorders.
#[derive(Default)]
pub struct Handed(Place<ArcSwapOption<Link<Recorder>>>);

impl Handed {
    /// The shard: lays down what `recorder` holds, and leaves an empty one in its place.
    pub fn put(&self, recorder: &mut Recorder) {
        if recorder.is_empty() {
            return;
        }
        let successor = recorder.successor();
        self.0.put(std::mem::replace(recorder, successor));
    }

    /// Control: adds what was laid down since the last time to `phases`.
    pub fn gather(&self, phases: &mut Phases) {
        self.0.take(|recorder| phases.add(recorder));
    }
}

impl fmt::Debug for Handed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Handed").finish_non_exhaustive()
    }
}

/// One thing that was laid down.
struct Link<T> {
    thing: T,
    /// What was laid down before it and not picked up yet.
    before: Chain<T>,
}

type Chain<T> = Option<Arc<Link<T>>>;

/// The place, generic over what is laid down and by which atomics: loom sees only its own.
#[derive(Default)]
struct Place<C>(C);

/// Holds a chain.
trait Cell {
    /// What the links hold.
    type Thing;

    /// What it holds now.
    fn load(&self) -> Chain<Self::Thing>;
    /// Puts `next` in the place of `expected`; false when it holds something else.
    fn replace(&self, expected: &Chain<Self::Thing>, next: Chain<Self::Thing>) -> bool;
    /// Leaves nothing.
    fn empty(&self) -> Chain<Self::Thing>;
}

impl<C: Cell> Place<C> {
    /// The shard, which alone puts something in.
    fn put(&self, thing: C::Thing) {
        let before = self.0.load();
        let mut link = Arc::new(Link {
            thing,
            before: before.clone(),
        });
        if self.0.replace(&before, Some(Arc::clone(&link))) {
            return;
        }
        // Control has picked up what was there, and nobody else knows the link.
        Arc::get_mut(&mut link).expect("the link is ours").before = None;
        let is_in = self.0.replace(&None, Some(link));
        debug_assert!(
            is_in,
            "what is empty stays so until the shard puts something in"
        );
    }

    /// Control, which alone takes something out: each thing, the last one first.
    fn take(&self, mut each: impl FnMut(&C::Thing)) {
        let mut chain = self.0.empty();
        // By reference: the shard may still hold a link that it has just looked at.
        while let Some(link) = chain {
            each(&link.thing);
            chain = link.before.clone();
        }
    }
}

impl<T> Cell for ArcSwapOption<Link<T>> {
    type Thing = T;

    fn load(&self) -> Chain<T> {
        self.load_full()
    }

    fn replace(&self, expected: &Chain<T>, next: Chain<T>) -> bool {
        let found = self.compare_and_swap(expected, next);
        let address = |chain: &Chain<T>| chain.as_ref().map(Arc::as_ptr);
        address(&found) == address(expected)
    }

    fn empty(&self) -> Chain<T> {
        self.swap(None)
    }
}

#[cfg(test)]
mod models;
