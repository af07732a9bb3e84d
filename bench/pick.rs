//! What one pick costs under each policy, in nanoseconds, and how long a picker takes to make.
//!
//! Run by hand: `cargo bench --bench pick`. A pick is to be seen beside the ten microseconds or so
//! that an exchange takes; times rather than instructions, because a table of 256 KiB costs what
//! the caches make of it. Each figure is the least of several rounds: what the machine does
//! besides only adds to it.

use std::hint::black_box;
use std::time::{Duration, Instant};

use ringmain::balance::{
    Candidates, Load, Member, POLICIES, Picker, Policy, Xorshift, generator, hash_key,
};

const ROUNDS: usize = 15;
const PICKS: u32 = 20_000;

/// Endpoints that have answered, and a new key for each pick.
#[derive(Debug)]
struct Endpoints {
    loads: Vec<Load>,
    /// The only one that is in; `None`: all are.
    only: Option<usize>,
    key: u64,
}

impl Endpoints {
    fn new(count: usize, is_busy: bool, only: Option<usize>) -> Self {
        let loads = vec![Load::default(); count];
        for (place, load) in (0..).zip(&loads) {
            let active = if is_busy { 1 + place % 4 } else { 0 };
            (0..active).for_each(|_| load.begin());
            load.observe(1_000_000 + place % 7 * 100_000, 0);
        }
        let key = 0;
        Self { loads, only, key }
    }
}

impl Candidates for Endpoints {
    fn is_in(&self, place: usize) -> bool {
        self.only.is_none_or(|only| only == place)
    }

    fn load(&self, place: usize) -> &Load {
        &self.loads[place]
    }

    fn now(&self) -> u64 {
        1_000_000_000
    }

    fn key(&self) -> u64 {
        self.key
    }
}

#[expect(clippy::print_stdout, reason = "that is what it is for")]
fn main() {
    println!(
        "{:<18} {:>9} {:>9} {:>9} {:>13} {:>11}",
        "ns a pick", "3", "200", "200 idle", "1 of 200 in", "make 200"
    );
    for policy in &POLICIES {
        let three = pick(policy, 3, true, None);
        let many = pick(policy, 200, true, None);
        let idle = pick(policy, 200, false, None);
        let alone = pick(policy, 200, true, Some(150));
        let made = best_of(|| drop(black_box((policy.make)(&members(200)))));
        let label = policy.label;
        println!("{label:<18} {three:>9.1} {many:>9.1} {idle:>9.1} {alone:>13.1} {made:>11.1?}");
    }
}

/// So many members, with weights from 1 to 3.
fn members(count: u32) -> Vec<Member> {
    let member = |place: u32| Member {
        id: hash_key(&place.to_le_bytes()),
        weight: 1 + place % 3,
    };
    (0..count).map(member).collect()
}

/// Nanoseconds a pick among `count`.
fn pick(policy: &Policy, count: u32, is_busy: bool, only: Option<usize>) -> f64 {
    let mut generator = generator();
    let mut picker = (policy.make)(&members(count)).of_shard(&mut generator);
    let mut endpoints = Endpoints::new(count as usize, is_busy, only);
    let took = best_of(|| {
        for number in 0..PICKS {
            // Keys as far apart as hashes are.
            endpoints.key = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            black_box(one(&mut *picker, &endpoints, &mut generator));
        }
    });
    took.as_nanos() as f64 / f64::from(PICKS)
}

/// As a shard picks: through the two traits.
#[inline(never)]
fn one(
    picker: &mut dyn Picker,
    candidates: &dyn Candidates,
    generator: &mut Xorshift,
) -> Option<usize> {
    picker.pick(candidates, generator)
}

#[expect(clippy::disallowed_methods, reason = "a bench is about time")]
fn best_of(mut work: impl FnMut()) -> Duration {
    let rounds = (0..ROUNDS).map(|_| {
        let begin = Instant::now();
        work();
        begin.elapsed()
    });
    rounds.min().unwrap_or_default()
}
