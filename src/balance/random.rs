//! Independent picks that hold the weights.
//!
//! The usual pick is one draw: with equal weights a number below `n`, else a number below the sum
//! of the weights and a binary search in the running sums. When the endpoint drawn is not in, a few
//! more draws are tried; each accepted one is distributed by weight among those that are in, for
//! what is refused leaves the proportions of the rest alone. Where nearly all weight is out that
//! could go on for long, so a walk over all endpoints ends it, with the same distribution.

use rand::RngExt;

use super::Xorshift;

/// Draws before the walk: with half of the weight out, 15 picks of 16 are done by then.
const DRAWS_MAX: usize = 4;

/// The picker of the policy `random`.
#[derive(Clone, Debug)]
pub struct Random {
    weights: Box<[u32]>,
    /// `sums[i] = weights[0] + ... + weights[i]`; empty exactly when all weights are equal.
    sums: Box<[u64]>,
}

impl Random {
    /// Picks by `weights`.
    ///
    /// # Panics
    /// When there is no weight, or a weight is 0.
    pub fn new(weights: &[u32]) -> Self {
        assert!(!weights.is_empty(), "a picker has at least one weight");
        assert!(!weights.contains(&0), "weights are 1 or more");
        let equal = weights.iter().all(|weight| *weight == weights[0]);
        let sums = weights.iter().scan(0, |sum, weight| {
            *sum += u64::from(*weight);
            Some(*sum)
        });
        Self {
            weights: weights.into(),
            sums: if equal { [].into() } else { sums.collect() },
        }
    }

    /// The index picked among those that are in, or `None`.
    #[inline]
    pub fn pick(&self, generator: &mut Xorshift, is_in: impl Fn(usize) -> bool) -> Option<usize> {
        for _ in 0..DRAWS_MAX {
            let drawn = self.draw(generator);
            if is_in(drawn) {
                return Some(drawn);
            }
        }
        self.walk(generator, is_in)
    }

    fn draw(&self, generator: &mut Xorshift) -> usize {
        match self.sums.last() {
            None => generator.random_range(0..self.weights.len()),
            Some(total) => {
                let drawn = generator.random_range(0..*total);
                self.sums.partition_point(|sum| *sum <= drawn)
            }
        }
    }

    fn walk(&self, generator: &mut Xorshift, is_in: impl Fn(usize) -> bool) -> Option<usize> {
        let weights_in = || {
            let all = self.weights.iter().enumerate();
            all.filter(|(index, _)| is_in(*index))
                .map(|(index, weight)| (index, u64::from(*weight)))
        };
        let total: u64 = weights_in().map(|(_, weight)| weight).sum();
        if total == 0 {
            return None;
        }
        let mut left = generator.random_range(0..total);
        for (index, weight) in weights_in() {
            if left < weight {
                return Some(index);
            }
            left -= weight;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;

    const PICKS: usize = 100_000;

    /// Pearson's test over the endpoints that are in: the statistic stays under a bound that a fair
    /// picker passes all but once in ten million (mean `k`, standard deviation `sqrt(2k)`, and a
    /// long right tail for few `k`).
    #[track_caller]
    fn check(weights: &[u32], is_in: impl Fn(usize) -> bool) {
        let mut generator = Xorshift::seed_from_u64(7);
        let picker = Random::new(weights);
        let mut counts = vec![0_u32; weights.len()];
        for _ in 0..PICKS {
            let picked = picker
                .pick(&mut generator, &is_in)
                .expect("one endpoint is in");
            assert!(is_in(picked), "{picked} is not in");
            counts[picked] += 1;
        }
        let all = || (0..weights.len()).filter(|index| is_in(*index));
        let total: f64 = all().map(|index| f64::from(weights[index])).sum();
        let statistic: f64 = all()
            .map(|index| {
                let expected = f64::from(weights[index]) / total * PICKS as f64;
                (f64::from(counts[index]) - expected).powi(2) / expected
            })
            .sum();
        let freedom = (all().count() - 1) as f64;
        let bound = freedom + 6.0 * (2.0 * freedom).sqrt() + 20.0;
        assert!(
            statistic < bound,
            "{statistic} for {weights:?} got {counts:?}"
        );
    }

    #[test]
    fn picks_hold_equal_and_unequal_weights() {
        check(&[1], |_| true);
        check(&[7, 7, 7], |_| true);
        check(&[1, 2, 3, 4], |_| true);
        check(&[1, 1000], |_| true);
        check(&[u32::MAX, 1, u32::MAX], |index| index != 1);
    }

    #[test]
    fn the_weights_of_those_in_hold_when_most_of_the_weight_is_out() {
        check(&[1_000_000, 1, 2, 3], |index| index != 0);
        check(&[1, 1, 1, 1, 1, 1, 1, 1], |index| index > 5);
    }

    #[test]
    fn nothing_is_picked_when_none_is_in() {
        let mut generator = Xorshift::seed_from_u64(7);
        assert_eq!(Random::new(&[1, 2]).pick(&mut generator, |_| false), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn any_weights_hold_among_any_that_are_in(
            entries in prop::collection::vec((1_u32..100, any::<bool>()), 2..12),
        ) {
            let (weights, mut inside): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
            inside[0] = true;
            check(&weights, |index| inside[index]);
        }
    }
}
