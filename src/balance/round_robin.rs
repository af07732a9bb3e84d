//! Picks in turn: each endpoint gets its weight of every cycle, spread evenly over it.
//!
//! A cycle is one unit of virtual time, divided among the endpoints: one of weight `w` has `w`
//! turns in it, the `c`-th at `(2c + 1) / 2w`, the middle of its share. The earliest turn is next;
//! equal times go in the order of the file, so that equal weights give plain round robin. A heap
//! over the endpoints' next turns makes that `O(log n)` a pick.
//!
//! Times are integers: the number of the cycle in the upper 32 bits and the place in it in the
//! lower. A turn's time is computed from its number and never summed up, so nothing drifts: the
//! schedule repeats after exactly the sum of the weights, and any window of that many picks holds
//! every weight exactly.
//!
//! An endpoint that is not in loses the turns that pass meanwhile, all in one step, and comes back
//! with its next one; it has neither credit nor debt.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use rand::RngExt;

use super::{Candidates, Member, Picker, Xorshift};

/// Bits of a place in a cycle. A weight below `2^32` has turns that lie more than one place apart.
const PLACE_BITS: u32 = 32;

/// The cycle at which times are taken back to the first cycles; far below the `2^32` at which they
/// would overflow.
const CYCLES_MAX: u64 = 1 << 31;

/// The picker of the policy `round_robin`.
#[derive(Debug)]
pub struct RoundRobin {
    weights: Arc<[u32]>,
    /// The next turn of every endpoint; between picks, one each. All lie within one cycle of the
    /// earliest.
    turns: BinaryHeap<Reverse<Turn>>,
    /// Room for the turns of endpoints that are passed over in one pick; empty between picks.
    passed: Vec<Turn>,
}

/// One turn of one endpoint. The order of turns is that of the fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    /// The cycle and the place in it.
    time: u64,
    /// Whose turn it is.
    index: usize,
    /// `0 <= number < weight`: which of the endpoint's turns in its cycle it is.
    number: u32,
}

impl RoundRobin {
    /// Picks among `members`, from the first turn of the first on.
    ///
    /// # Panics
    /// When a weight is 0.
    pub fn new(members: &[Member]) -> Self {
        let weights: Arc<[u32]> = members.iter().map(|member| member.weight).collect();
        assert!(!weights.contains(&0), "weights are 1 or more");
        Self::from_turn(&weights, 0, 0)
    }

    /// From the turn `drawn` of cycle `cycle`, the turns counted endpoint by endpoint: `drawn` is
    /// below the sum of the weights, where there are any.
    fn from_turn(weights: &Arc<[u32]>, cycle: u64, drawn: u64) -> Self {
        if weights.is_empty() {
            return Self {
                weights: Arc::clone(weights),
                turns: BinaryHeap::new(),
                passed: Vec::new(),
            };
        }
        let mut number = drawn;
        let mut index = 0;
        while u64::from(weights[index]) <= number {
            number -= u64::from(weights[index]);
            index += 1;
        }
        let number = u32::try_from(number).expect("the number of a turn is below its weight");
        let first = turn(weights, cycle, index, number);
        let others = (0..weights.len()).filter(|other| *other != index);
        let others = others.map(|other| turn_after(weights, other, first));
        Self {
            turns: others.chain([first]).map(Reverse).collect(),
            passed: Vec::with_capacity(weights.len()),
            weights: Arc::clone(weights),
        }
    }

    /// Whose turn is next of those that are in.
    #[inline]
    pub(super) fn next_turn(&mut self, is_in: impl Fn(usize) -> bool) -> Option<usize> {
        while let Some(Reverse(next)) = self.turns.peek()
            && !is_in(next.index)
        {
            self.passed
                .extend(self.turns.pop().map(|Reverse(turn)| turn));
        }
        let Some(mut top) = self.turns.peek_mut() else {
            self.turns.extend(self.passed.drain(..).map(Reverse));
            return None;
        };
        let picked = top.0;
        top.0 = following(&self.weights, picked);
        drop(top);
        for Turn { index, .. } in self.passed.drain(..) {
            self.turns
                .push(Reverse(turn_after(&self.weights, index, picked)));
        }
        if picked.time >> PLACE_BITS >= CYCLES_MAX {
            self.rebase(picked.time >> PLACE_BITS);
        }
        Some(picked.index)
    }

    /// Takes `cycles` off every time, once in `CYCLES_MAX` cycles. The heap keeps its memory.
    #[cold]
    fn rebase(&mut self, cycles: u64) {
        let mut turns = std::mem::take(&mut self.turns).into_vec();
        for Reverse(turn) in &mut turns {
            turn.time -= cycles << PLACE_BITS;
        }
        self.turns = turns.into();
    }
}

impl Picker for RoundRobin {
    fn of_shard(&self, generator: &mut Xorshift) -> Box<dyn Picker> {
        let total: u64 = self.weights.iter().map(|weight| u64::from(*weight)).sum();
        let drawn = generator.random_range(0..total.max(1));
        Box::new(Self::from_turn(&self.weights, 0, drawn))
    }

    fn pick(&mut self, candidates: &dyn Candidates, _generator: &mut Xorshift) -> Option<usize> {
        self.next_turn(|place| candidates.is_in(place))
    }
}

fn turn(weights: &[u32], cycle: u64, index: usize, number: u32) -> Turn {
    // (2c + 1) / 2w in units of 2^-32. It fits because 2c + 1 < 2^33, and it is below one
    // cycle because 2c + 1 < 2w.
    let place = ((2 * u64::from(number) + 1) << (PLACE_BITS - 1)) / u64::from(weights[index]);
    Turn {
        time: (cycle << PLACE_BITS) | place,
        index,
        number,
    }
}

/// The turn of the same endpoint after `last`.
fn following(weights: &[u32], last: Turn) -> Turn {
    let cycle = last.time >> PLACE_BITS;
    if last.number + 1 < weights[last.index] {
        turn(weights, cycle, last.index, last.number + 1)
    } else {
        turn(weights, cycle + 1, last.index, 0)
    }
}

/// The first turn of the endpoint at `index` that comes after `mark`, a turn of another one.
fn turn_after(weights: &[u32], index: usize, mark: Turn) -> Turn {
    // Of equal times the lower index is first: below the mark's index the time must be later.
    let earliest = mark.time + u64::from(index < mark.index);
    let (cycle, place) = (earliest >> PLACE_BITS, earliest & ((1 << PLACE_BITS) - 1));
    // The least c with floor((2c + 1) * 2^31 / w) >= place.
    let halves = (place * u64::from(weights[index])).div_ceil(1 << (PLACE_BITS - 1));
    let number = halves.saturating_sub(1).div_ceil(2);
    match u32::try_from(number) {
        Ok(number) if number < weights[index] => turn(weights, cycle, index, number),
        _ => turn(weights, cycle + 1, index, 0),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::super::stage::{Stage, members};
    use super::*;

    fn picks(picker: &mut RoundRobin, count: usize) -> Vec<usize> {
        (0..count)
            .map(|_| picker.next_turn(|_| true).expect("all are in"))
            .collect()
    }

    #[track_caller]
    fn check(weights: &[u32], drawn: u64, expected: &[usize]) {
        let mut picker = RoundRobin::from_turn(&weights.into(), 0, drawn);
        assert_eq!(
            picks(&mut picker, expected.len()),
            expected,
            "{weights:?} from {drawn}"
        );
    }

    #[test]
    fn equal_weights_go_round_in_the_order_of_the_file() {
        check(&[1, 1, 1], 0, &[0, 1, 2, 0, 1, 2, 0]);
        check(&[1, 1, 1], 1, &[1, 2, 0, 1, 2, 0, 1]);
        check(&[1, 1, 1], 2, &[2, 0, 1, 2, 0, 1, 2]);
        check(&[3, 3], 1, &[0, 1, 0, 1, 0, 1, 0, 1]);
        check(&[5], 3, &[0, 0, 0]);
    }

    #[test]
    fn a_heavy_endpoint_is_spread_over_the_cycle() {
        check(&[5, 1, 1], 0, &[0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 1, 2, 0, 0]);
        check(&[2, 1], 0, &[0, 1, 0, 0, 1, 0]);
        check(&[2, 1], 2, &[1, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn shards_start_at_every_place() {
        let mut generator = Xorshift::seed_from_u64(7);
        let picker = RoundRobin::new(&members(&[1, 2, 1]));
        let stage = Stage::new(3);
        let starts: HashSet<_> = (0..100)
            .map(|_| {
                picker
                    .of_shard(&mut generator)
                    .pick(&stage, &mut Xorshift::seed_from_u64(7))
            })
            .collect();
        assert_eq!(starts.len(), 3);
    }

    #[test]
    fn one_that_was_out_comes_back_with_a_single_turn() {
        let mut picker = RoundRobin::from_turn(&[1, 1, 1].into(), 0, 0);
        let without_first: Vec<_> = (0..1000)
            .map(|_| picker.next_turn(|index| index != 0))
            .collect();
        assert!(without_first.chunks(2).all(|two| two == [Some(1), Some(2)]));
        assert_eq!(picks(&mut picker, 6), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn nothing_is_picked_when_none_is_in_and_no_turn_is_lost() {
        let mut picker = RoundRobin::from_turn(&[1, 1].into(), 0, 1);
        assert_eq!(picker.next_turn(|_| false), None);
        assert_eq!(picks(&mut picker, 2), [1, 0]);
    }

    #[test]
    fn a_light_endpoint_alone_is_found_at_once_among_heavy_ones() {
        let mut picker = RoundRobin::from_turn(&[u32::MAX, 1, u32::MAX].into(), 0, 0);
        for _ in 0..10 {
            assert_eq!(picker.next_turn(|index| index == 1), Some(1));
        }
    }

    #[test]
    fn the_order_goes_on_over_a_rebase() {
        let weights = [3, 1, 2];
        let mut fresh = RoundRobin::from_turn(&weights.as_slice().into(), 0, 4);
        let mut old = RoundRobin::from_turn(&weights.as_slice().into(), CYCLES_MAX - 2, 4);
        let expected = picks(&mut fresh, 60);
        assert_eq!(picks(&mut old, 60), expected);
        let Reverse(next) = old.turns.peek().expect("one turn an endpoint");
        assert!(next.time >> PLACE_BITS < 60, "rebased");
    }

    fn any_weights() -> impl Strategy<Value = Vec<u32>> {
        prop_oneof![
            prop::collection::vec(1_u32..6, 1..9),
            prop::collection::vec(1_u32..300, 1..9),
        ]
    }

    proptest! {
        #[test]
        fn every_window_of_a_whole_cycle_holds_the_weights(
            weights in any_weights(),
            seed in any::<u64>(),
            offset in 0_usize..50,
            cycles in 1_usize..4,
        ) {
            let total: u32 = weights.iter().sum();
            let drawn = seed % u64::from(total);
            let mut picker = RoundRobin::from_turn(&weights.as_slice().into(), 0, drawn);
            picks(&mut picker, offset);
            let mut counts = vec![0; weights.len()];
            for picked in picks(&mut picker, cycles * total as usize) {
                counts[picked] += 1;
            }
            let expected: Vec<_> = weights.iter().map(|weight| *weight as usize * cycles).collect();
            prop_assert_eq!(counts, expected);
        }

        #[test]
        fn passing_over_equals_skipping_turns_one_by_one(
            weights in any_weights(),
            seed in any::<u64>(),
            outs in prop::collection::vec(any::<u8>(), 1..100),
        ) {
            let total: u32 = weights.iter().sum();
            let drawn = seed % u64::from(total);
            let mut jumping = RoundRobin::from_turn(&weights.as_slice().into(), 0, drawn);
            let mut stepping = RoundRobin::from_turn(&weights.as_slice().into(), 0, drawn);
            for out in outs {
                let is_in = |index: usize| out >> (index % 8) & 1 == 1;
                let expected = (0..weights.len()).any(is_in).then(|| {
                    loop {
                        let next = stepping.next_turn(|_| true).expect("all are in");
                        if is_in(next) {
                            break next;
                        }
                    }
                });
                prop_assert_eq!(jumping.next_turn(is_in), expected);
            }
        }
    }
}
