//! How control asks the shards for what they have recorded, and learns that it was laid down.
//!
//! State, not a message: control raises a number, each shard looks at it at its tick, lays its
//! recorders down where control picks them up ([`Handed`](crate::tally::Handed)) and then writes
//! the number back. Control that reads the number back finds everything that the shard had recorded
//! by that tick. Asking twice in a row is asking once.

use std::sync::atomic::Ordering;

use super::handover::{Line, Number};

/// What control and the shards share about collecting.
#[derive(Debug)]
pub(super) struct Collect<N> {
    /// Raised by control alone.
    asked: Line<N>,
    /// By shard: the number that it has answered; 0 before its first. Each written by its shard
    /// alone.
    answered: Box<[Line<N>]>,
}

impl<N: Number> Collect<N> {
    /// Nothing is asked for yet.
    pub(super) fn new(shards: usize) -> Self {
        Self {
            asked: Line(N::zero()),
            answered: (0..shards).map(|_| Line(N::zero())).collect(),
        }
    }

    /// Control: asks every shard, and says by which number the answers will be known.
    pub(super) fn ask(&self) -> u64 {
        let number = self.asked.0.load(Ordering::Relaxed) + 1;
        // Nothing was made ready for the shards: the number alone is the news.
        self.asked.0.store(number, Ordering::Relaxed);
        number
    }

    /// A shard: the number that was asked for last. One relaxed load.
    #[inline]
    pub(super) fn asked(&self) -> u64 {
        self.asked.0.load(Ordering::Relaxed)
    }

    /// The shard itself: what it had recorded by now is laid down.
    pub(super) fn answer(&self, shard: usize, number: u64) {
        // Release: whoever reads the number finds what was laid down before it.
        self.answered[shard].0.store(number, Ordering::Release);
    }

    /// Control: the number that `shard` has answered.
    pub(super) fn answered(&self, shard: usize) -> u64 {
        self.answered[shard].0.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod models;
