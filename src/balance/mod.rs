//! Choosing an endpoint without I/O: one picker a file, the generator an argument, no clock, no
//! allocation per pick.
//!
//! A picker knows weights and indices and nothing else. Which endpoints may be picked now (not
//! tried yet, not ejected) is the caller's question to answer, by `is_in`; it must give the same
//! answer for one index throughout one pick.

use rand::RngExt;

pub mod random;
pub mod round_robin;

pub use random::Random;
pub use round_robin::RoundRobin;

/// The generator of a shard: fast, small and not for secrets.
pub type Xorshift = rand_xorshift::XorShiftRng;

/// A generator seeded from the operating system's entropy, so that no two shards and no two starts
/// pick alike.
///
/// # Panics
/// When the system has no entropy to give, which Linux does not do once it has booted.
pub fn generator() -> Xorshift {
    rand::make_rng()
}

/// A number for a request's id; unique for all practical purposes, and not a secret.
#[inline]
pub fn draw_id(generator: &mut Xorshift) -> u128 {
    generator.random()
}

/// A number below `bound`, which is 1 or more, each as likely as the others.
#[inline]
pub fn draw_below(bound: u32, generator: &mut Xorshift) -> u32 {
    generator.random_range(0..bound)
}

/// A service's picker on one shard.
#[derive(Debug)]
pub enum Picker {
    /// Each pick is independent of the last.
    Random(Random),
    /// In turn.
    RoundRobin(RoundRobin),
}

impl Picker {
    /// Independent picks by `weights`: at least one, each 1 or more.
    pub fn random(weights: &[u32]) -> Self {
        Self::Random(Random::new(weights))
    }

    /// Picks in turn by `weights` (at least one, each 1 or more), from a place that `generator`
    /// draws.
    pub fn round_robin(weights: &[u32], generator: &mut Xorshift) -> Self {
        Self::RoundRobin(RoundRobin::new(weights, generator))
    }

    /// The index of the endpoint picked among those that are in; `None` when none is.
    #[inline]
    pub fn pick(
        &mut self,
        generator: &mut Xorshift,
        is_in: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        match self {
            Self::Random(random) => random.pick(generator, is_in),
            Self::RoundRobin(round_robin) => round_robin.pick(is_in),
        }
    }
}
