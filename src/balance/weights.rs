//! Drawing places by weight among those that are in.
//!
//! The usual draw takes two numbers and one look: a column of a table in which each column holds
//! the same weight, its own place's and, to fill it up, that of one other (the alias method; A. J.
//! Walker, "An efficient method for generating discrete random variables with general
//! distributions", 1977, and M. D. Vose's way to build the table, 1991). All sums are whole
//! numbers, so that the weights hold exactly. With equal weights there is nothing to fill up.
//!
//! When the place drawn is not in, a few more draws are tried; each accepted one is distributed by
//! weight among those that are in, for what is refused leaves the proportions of the rest alone.
//! Where nearly all weight is out that could go on for long, so a walk over all places ends it,
//! with the same distribution.

use std::cmp::Ordering;

use rand::RngExt;

use super::{Candidates, Member, Xorshift};

/// Draws before the walk: with half of the weight out, 15 picks of 16 are done by then.
const DRAWS_MAX: usize = 4;

/// The weights of places, and the table to draw by them; the same on every shard.
#[derive(Debug)]
pub(super) struct Weights {
    weights: Box<[u32]>,
    total: u64,
    /// By place; empty exactly when all weights are equal.
    columns: Box<[Column]>,
}

/// A place's column. All columns hold the sum of the weights, of places whose weights count `n`
/// times for `n` places.
#[derive(Clone, Copy, Debug)]
struct Column {
    /// How much of it is the place's own; `0 < own <= total`.
    own: u64,
    /// Whose the rest is.
    other: u32,
}

impl Weights {
    /// Those of `members`, which may be none.
    ///
    /// # Panics
    /// When a weight is 0.
    pub(super) fn new(members: &[Member]) -> Self {
        let weights: Box<[u32]> = members.iter().map(|member| member.weight).collect();
        assert!(!weights.contains(&0), "weights are 1 or more");
        let total = weights.iter().map(|weight| u64::from(*weight)).sum();
        let is_equal = weights.iter().all(|weight| *weight == weights[0]);
        Self {
            columns: if is_equal {
                Box::default()
            } else {
                columns(&weights, total)
            },
            weights,
            total,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.weights.len()
    }

    /// The sum of all.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    #[inline]
    pub(super) fn get(&self, place: usize) -> u32 {
        self.weights[place]
    }

    /// How full the endpoint at `place` is.
    #[inline]
    pub(super) fn filling(&self, candidates: &dyn Candidates, place: usize) -> Filling {
        Filling {
            active: candidates.load(place).active(),
            weight: self.weights[place],
        }
    }

    /// A place that is in, by weight; `None` when none is.
    #[inline]
    pub(super) fn pick(
        &self,
        generator: &mut Xorshift,
        is_in: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let drawn = self.draw_few(generator, &is_in);
        drawn.or_else(|| self.walk(generator, is_in))
    }

    /// What [`Self::pick`] picks, where a few draws find it; `None` says nothing.
    #[inline]
    pub(super) fn draw_few(
        &self,
        generator: &mut Xorshift,
        is_in: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        if self.weights.is_empty() {
            return None;
        }
        for _ in 0..DRAWS_MAX {
            let drawn = self.draw(generator);
            if is_in(drawn) {
                return Some(drawn);
            }
        }
        None
    }

    /// The better of two different places that are in, both drawn by weight: the second where it
    /// `is_better` than the first, else the first. So where no place is better than another, they
    /// are picked by weight.
    #[inline]
    pub(super) fn pick_of_two(
        &self,
        generator: &mut Xorshift,
        is_in: impl Fn(usize) -> bool,
        is_better: impl FnOnce(usize, usize) -> bool,
    ) -> Option<usize> {
        let first = self.pick(generator, &is_in)?;
        let second = self.pick(generator, |place| place != first && is_in(place));
        let better = second.filter(|second| is_better(*second, first));
        Some(better.unwrap_or(first))
    }

    fn draw(&self, generator: &mut Xorshift) -> usize {
        let place = generator.random_range(0..self.weights.len());
        match self.columns.get(place) {
            Some(column) if column.own <= generator.random_range(0..self.total) => {
                column.other as usize
            }
            _ => place,
        }
    }

    #[cold]
    fn walk(&self, generator: &mut Xorshift, is_in: impl Fn(usize) -> bool) -> Option<usize> {
        let weights_in = || {
            let all = self.weights.iter().enumerate();
            all.filter(|(place, _)| is_in(*place))
                .map(|(place, weight)| (place, u64::from(*weight)))
        };
        let total: u64 = weights_in().map(|(_, weight)| weight).sum();
        if total == 0 {
            return None;
        }
        let mut left = generator.random_range(0..total);
        for (place, weight) in weights_in() {
            if left < weight {
                return Some(place);
            }
            left -= weight;
        }
        None
    }
}

/// How full an endpoint is: the fraction `active / weight`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filling {
    active: u32,
    pub(super) weight: u32,
}

impl Filling {
    /// Exact, by multiplying out.
    #[inline]
    pub(super) fn compare(self, other: Self) -> Ordering {
        let product = |one: Self, other: Self| u64::from(one.active) * u64::from(other.weight);
        product(self, other).cmp(&product(other, self))
    }
}

/// Fills what is left of each column of little weight from a place of much.
fn columns(weights: &[u32], total: u64) -> Box<[Column]> {
    let count = weights.len() as u64;
    let mut columns: Box<[Column]> = weights
        .iter()
        .map(|weight| Column {
            // It fits: a weight is below 2^32, and so is the number of places.
            own: u64::from(*weight) * count,
            other: 0,
        })
        .collect();
    let places = 0..weights.len();
    let (mut little, mut much): (Vec<_>, Vec<_>) =
        places.partition(|place| columns[*place].own < total);
    while let (Some(&giving), Some(taking)) = (much.last(), little.pop()) {
        columns[taking].other = u32::try_from(giving).expect("places are fewer than 2^32");
        columns[giving].own -= total - columns[taking].own;
        if columns[giving].own < total {
            much.pop();
            little.push(giving);
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::super::stage::{Counts, members};
    use super::*;

    const PICKS: usize = 100_000;

    #[track_caller]
    fn check(weights: &[u32], is_in: impl Fn(usize) -> bool) {
        let mut generator = Xorshift::seed_from_u64(7);
        let drawn_by = Weights::new(&members(weights));
        let mut counts = Counts::new(weights.len());
        for _ in 0..PICKS {
            let picked = drawn_by.pick(&mut generator, &is_in);
            counts.add(picked.expect("one place is in"));
        }
        counts.check(weights, is_in);
    }

    #[test]
    fn draws_hold_equal_and_unequal_weights() {
        check(&[1], |_| true);
        check(&[7, 7, 7], |_| true);
        check(&[1, 2, 3, 4], |_| true);
        check(&[1, 1000], |_| true);
        check(&[u32::MAX, 1, u32::MAX], |place| place != 1);
    }

    #[test]
    fn the_weights_of_those_in_hold_when_most_of_the_weight_is_out() {
        check(&[1_000_000, 1, 2, 3], |place| place != 0);
        check(&[1, 1, 1, 1, 1, 1, 1, 1], |place| place > 5);
    }

    #[test]
    fn nothing_is_picked_when_none_is_in() {
        let mut generator = Xorshift::seed_from_u64(7);
        let two = Weights::new(&members(&[1, 2]));
        assert_eq!(two.pick(&mut generator, |_| false), None);
        let none = Weights::new(&[]);
        assert_eq!(none.pick(&mut generator, |_| true), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn any_weights_hold_among_any_that_are_in(
            entries in prop::collection::vec((1_u32..100, any::<bool>()), 2..12),
        ) {
            let (weights, mut inside): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
            inside[0] = true;
            check(&weights, |place| inside[place]);
        }

        #[test]
        fn the_columns_hold_exactly_the_weights(
            weights in prop::collection::vec(1..=u32::MAX, 2..50),
        ) {
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            let columns = columns(&weights, total);
            let mut held: Vec<u64> = columns.iter().map(|column| column.own).collect();
            for column in &columns {
                prop_assert!(0 < column.own && column.own <= total);
                held[column.other as usize] += total - column.own;
            }
            let count = weights.len() as u64;
            let expected = weights.iter().map(|weight| u64::from(*weight) * count);
            prop_assert_eq!(held, expected.collect::<Vec<_>>());
        }
    }
}
