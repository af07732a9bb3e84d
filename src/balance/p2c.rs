//! Picks the less loaded of two endpoints drawn by weight.
//!
//! M. Mitzenmacher, "The power of two choices in randomized load balancing" (1996, IEEE TPDS 2001):
//! one more choice than none shrinks the longest queue exponentially, and a third hardly helps any
//! more. So it is nearly as even as `least_connections` at a cost that does not grow with the
//! number of endpoints, and shards that do not know of each other do not all rush to the one that
//! looks idle to each of them.
//!
//! The two are different places whenever two are in. Load is compared as in `least_connections`;
//! where it is equal the first draw holds, so that idle endpoints share by weight.

use std::sync::Arc;

use super::weights::Weights;
use super::{Candidates, Member, Picker, Xorshift};

/// The picker of the policy `p2c`.
#[derive(Clone, Debug)]
pub struct PowerOfTwo {
    weights: Arc<Weights>,
}

impl PowerOfTwo {
    /// Picks among `members`.
    ///
    /// # Panics
    /// When a weight is 0.
    pub fn new(members: &[Member]) -> Self {
        Self {
            weights: Arc::new(Weights::new(members)),
        }
    }
}

impl Picker for PowerOfTwo {
    fn of_shard(&self, _generator: &mut Xorshift) -> Box<dyn Picker> {
        Box::new(self.clone())
    }

    fn pick(&mut self, candidates: &dyn Candidates, generator: &mut Xorshift) -> Option<usize> {
        let is_in = |place| candidates.is_in(place);
        let filling = |place| self.weights.filling(candidates, place);
        let is_better = |one, other| filling(one).compare(filling(other)).is_lt();
        self.weights.pick_of_two(generator, is_in, is_better)
    }
}

#[cfg(test)]
mod tests {
    use super::super::stage::{Stage, members};
    use super::*;

    #[track_caller]
    fn check(weights: &[u32], active: &[u32], expected: &[usize]) {
        let stage = Stage::new(weights.len()).with_active(active);
        let mut picker = PowerOfTwo::new(&members(weights));
        let found = stage.places_picked(&mut picker, 1000);
        assert_eq!(found, expected, "{weights:?} with {active:?}");
    }

    #[test]
    fn the_less_loaded_for_its_weight_of_two_wins() {
        check(&[1, 1], &[1, 0], &[1]);
        check(&[1, 3], &[1, 2], &[1]);
        check(&[1, 3], &[1, 3], &[0, 1]);
        check(&[1, 3], &[1, 4], &[0]);
    }

    #[test]
    fn the_most_loaded_of_several_is_never_picked() {
        check(&[1, 1, 1, 1], &[2, 0, 9, 1], &[0, 1, 3]);
        check(&[1, 1, 1000], &[1, 1, 2000], &[0, 1]);
    }
}
