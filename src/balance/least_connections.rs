//! Picks where the fewest exchanges run for the weight.
//!
//! What is compared is `active / weight`, as whole numbers by multiplying out. Of those that have
//! the least one is drawn by weight; so idle endpoints share by weight, and of equal weights the
//! one with fewer exchanges always wins. (`(active + 1) / weight` would keep the light endpoints
//! of an idle service from ever getting a request, and with them one that has just begun its slow
//! start.) The price: an idle endpoint gets the next request however light it is, so that with few
//! exchanges under way light ones have more than their share.
//!
//! One pass over all endpoints finds it. A few are drawn before: one that is idle is among the
//! least, and drawn by weight among them, so that a service with little to do is spared the pass. A
//! shard sees the exchanges of its own only; with several shards the least is the least on one.

use std::cmp::Ordering;
use std::sync::Arc;

use rand::RngExt;

use super::weights::Weights;
use super::{Candidates, Member, Picker, Xorshift};

/// The picker of the policy `least_connections`.
#[derive(Clone, Debug)]
pub struct LeastConnections {
    weights: Arc<Weights>,
}

impl LeastConnections {
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

impl Picker for LeastConnections {
    fn of_shard(&self, _generator: &mut Xorshift) -> Box<dyn Picker> {
        Box::new(self.clone())
    }

    fn pick(&mut self, candidates: &dyn Candidates, generator: &mut Xorshift) -> Option<usize> {
        let is_idle = |place| candidates.is_in(place) && candidates.load(place).active() == 0;
        if let Some(idle) = self.weights.draw_few(generator, is_idle) {
            return Some(idle);
        }
        let mut least = None;
        // The weight of all that are as full as `least`, it included.
        let mut tied = 0;
        for place in (0..self.weights.len()).filter(|place| candidates.is_in(*place)) {
            let filling = self.weights.filling(candidates, place);
            let weight = u64::from(filling.weight);
            let order = least.map(|(_, least)| filling.compare(least));
            match order {
                None | Some(Ordering::Less) => tied = weight,
                Some(Ordering::Equal) => {
                    tied += weight;
                    // Each of those before stays with the chance that it should have.
                    if weight <= generator.random_range(0..tied) {
                        continue;
                    }
                }
                Some(Ordering::Greater) => continue,
            }
            least = Some((place, filling));
        }
        least.map(|(place, _)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::super::stage::{Stage, members};
    use super::*;

    /// The places that are picked when so many exchanges run at each.
    #[track_caller]
    fn check(weights: &[u32], active: &[u32], expected: &[usize]) {
        let stage = Stage::new(weights.len()).with_active(active);
        let mut picker = LeastConnections::new(&members(weights));
        let found = stage.places_picked(&mut picker, 200);
        assert_eq!(found, expected, "{weights:?} with {active:?}");
    }

    #[test]
    fn the_fewest_exchanges_for_the_weight_win() {
        check(&[1, 1, 1], &[2, 1, 3], &[1]);
        check(&[1, 1, 1], &[2, 1, 1], &[1, 2]);
        check(&[1, 3], &[1, 2], &[1]);
        check(&[1, 3], &[1, 3], &[0, 1]);
        check(&[1, 3], &[1, 4], &[0]);
        check(&[1, 1000], &[0, 1], &[0]);
        check(&[3, 7], &[6, 13], &[1]);
        check(&[u32::MAX, u32::MAX - 1], &[5, 5], &[0]);
    }
}
