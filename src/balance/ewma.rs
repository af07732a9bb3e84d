//! Picks the one of two endpoints, drawn by weight, at which an answer is expected sooner.
//!
//! The cost of an endpoint is `wait * (1 + active / weight)`: the peak EWMA of its waits (see
//! [`Load`](super::Load)) times how many would stand in line with the new exchange; `weight` is
//! taken relative to the mean, so that it is how much an endpoint does at once. With equal weights
//! that is the cost of Finagle's `PeakEwma` and linkerd's balancer. An idle endpoint of more weight
//! is not expected to answer sooner than one of less; it is drawn more often.
//!
//! An endpoint without a measurement costs nothing while its trial is due, and more than any other
//! afterwards. So a new one is tried at once, with one exchange, and gets no second for the next
//! ten seconds until it has answered, unless the other one drawn is as unknown.
//!
//! Of two and not of all: what a shard knows of an endpoint is one answer old, and the best of all
//! would get everything until its next answer says that it is not the best any more. Of two drawn
//! among `n` equal weights no endpoint gets more than `2 / n` of the requests, however good it
//! looks; and a pick costs the same with 200 endpoints as with three.

use std::sync::Arc;

use super::weights::Weights;
use super::{Candidates, Member, Picker, Xorshift};

/// What an endpoint is taken to wait of which nothing is known and no trial is due, in nanoseconds:
/// longer than anything that is measured, however many exchanges stand in line.
const UNKNOWN: f64 = 1e30;

/// The picker of the policy `ewma`.
#[derive(Clone, Debug)]
pub struct Ewma {
    weights: Arc<Weights>,
    mean_weight: f64,
}

impl Ewma {
    /// Picks among `members`.
    ///
    /// # Panics
    /// When a weight is 0.
    pub fn new(members: &[Member]) -> Self {
        let weights = Weights::new(members);
        Self {
            mean_weight: weights.total() as f64 / weights.len().max(1) as f64,
            weights: Arc::new(weights),
        }
    }

    fn cost(&self, candidates: &dyn Candidates, now: u64, place: usize) -> f64 {
        let load = candidates.load(place);
        let active = f64::from(load.active());
        let weight = f64::from(self.weights.get(place)) / self.mean_weight;
        let wait = match load.wait(now) {
            Some(wait) => wait,
            None if load.is_trial_due(now) => 0.0,
            None => UNKNOWN,
        };
        wait * (1.0 + active / weight)
    }
}

impl Picker for Ewma {
    fn of_shard(&self, _generator: &mut Xorshift) -> Box<dyn Picker> {
        Box::new(self.clone())
    }

    fn pick(&mut self, candidates: &dyn Candidates, generator: &mut Xorshift) -> Option<usize> {
        let is_in = |place| candidates.is_in(place);
        let now = candidates.now();
        let cost = |place| self.cost(candidates, now, place);
        let is_better = |one, other| cost(one) < cost(other);
        let picked = self.weights.pick_of_two(generator, is_in, is_better)?;
        let load = candidates.load(picked);
        if load.wait(now).is_none() && load.is_trial_due(now) {
            load.begin_trial(now);
        }
        Some(picked)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::super::stage::{Stage, members};
    use super::*;

    const MILLISECOND: u64 = 1_000_000;
    const SECOND: u64 = 1000 * MILLISECOND;

    /// What is picked of two endpoints with these weights, exchanges under way, and waits in
    /// milliseconds (0: none was measured), so many seconds after they were.
    #[track_caller]
    fn check(weights: [u32; 2], active: [u32; 2], waits: [u64; 2], after: u64, expected: &[usize]) {
        let mut stage = Stage::new(2).with_active(&active);
        for (place, wait) in waits.into_iter().enumerate().filter(|(_, wait)| *wait != 0) {
            stage.loads[place].observe(wait * MILLISECOND, 0);
        }
        stage.now = after * SECOND;
        let found = stage.places_picked(&mut Ewma::new(&members(&weights)), 200);
        let case = format!("{weights:?} {active:?} {waits:?} {after}");
        assert_eq!(found, expected, "{case}");
    }

    #[test]
    fn the_sooner_answer_wins_however_many_stand_in_line() {
        check([1, 1], [0, 0], [5, 6], 0, &[0]);
        check([1, 1], [2, 0], [5, 10], 0, &[1]);
        check([1, 1], [0, 0], [5, 5], 0, &[0, 1]);
        check([1, 3], [1, 3], [5, 5], 0, &[0, 1]);
        check([1, 3], [1, 2], [5, 5], 0, &[1]);
        check([1, 3], [0, 0], [5, 6], 0, &[0]);
    }

    /// The next few picks of two endpoints, of which only the first is known to wait five
    /// milliseconds, so many seconds after they were set up.
    #[track_caller]
    fn check_trial(stage: &mut Stage, after: u64, expected: [usize; 4]) {
        stage.now = after * SECOND;
        stage.loads[0].observe(5 * MILLISECOND, stage.now);
        let mut picker = Ewma::new(&members(&[1, 1]));
        let mut generator = Xorshift::seed_from_u64(7);
        let picked = expected.map(|_| picker.pick(stage, &mut generator));
        assert_eq!(picked, expected.map(Some), "after {after} s");
    }

    #[test]
    fn one_without_a_measurement_is_tried_and_not_flooded() {
        let mut stage = Stage::new(2);
        check_trial(&mut stage, 1, [1, 0, 0, 0]);
        stage.loads[1].begin();
        check_trial(&mut stage, 5, [0, 0, 0, 0]);
        check_trial(&mut stage, 11, [1, 0, 0, 0]);
        // It has answered, and what it began goes on.
        stage.loads[1].observe(MILLISECOND, 11 * SECOND);
        check_trial(&mut stage, 11, [1, 1, 1, 1]);
    }

    #[test]
    fn one_that_was_slow_is_tried_again_although_it_is_busy() {
        let mut stage = Stage::new(2).with_active(&[0, 3]);
        stage.loads[1].observe(60 * SECOND, 0);
        check_trial(&mut stage, 29, [0, 0, 0, 0]);
        check_trial(&mut stage, 30, [1, 0, 0, 0]);
        check_trial(&mut stage, 31, [0, 0, 0, 0]);
        check_trial(&mut stage, 40, [1, 0, 0, 0]);
        stage.loads[1].observe(MILLISECOND, 41 * SECOND);
        check_trial(&mut stage, 41, [1, 1, 1, 1]);
    }

    #[test]
    fn while_nothing_is_known_the_fewest_for_the_weight_win() {
        check([1, 1], [0, 0], [0, 0], 0, &[0, 1]);
        let stage = Stage::new(2).with_active(&[2, 1]);
        let mut picker = Ewma::new(&members(&[1, 1]));
        assert_eq!(stage.places_picked(&mut picker, 200), [0, 1], "trials");
        assert_eq!(stage.places_picked(&mut picker, 200), [1]);
    }

    #[test]
    fn a_fault_drives_exchanges_away_for_some_seconds() {
        let mut stage = Stage::new(2).with_active(&[0, 3]);
        stage.loads[0].observe(5 * MILLISECOND, 0);
        stage.loads[1].observe(5 * MILLISECOND, 0);
        stage.loads[0].penalize(0);
        let mut picker = Ewma::new(&members(&[1, 1]));
        assert_eq!(stage.places_picked(&mut picker, 50), [1]);
        // The other one goes on answering.
        stage.now = 10 * SECOND;
        stage.loads[1].observe(5 * MILLISECOND, stage.now);
        assert_eq!(stage.places_picked(&mut picker, 50), [0]);
    }
}
