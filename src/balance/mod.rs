//! Choosing an endpoint without I/O: one policy a file, the generator and the time arguments, no
//! allocation per pick.
//!
//! A picker is made by control, once for a plan, of the [`Member`]s it picks among; each shard gets
//! one of its own by [`Picker::of_shard`], with what is large shared. Whatever else a pick depends
//! on it asks of [`Candidates`], by the endpoints' places: which are in now (not tried yet, not
//! ejected, with room), what runs there, how late they answer, the time, the request's key.
//!
//! [`POLICIES`] is the one place where a policy is registered; `docs/EXTENDING.md` shows how one is
//! added.

pub mod budget;
pub mod ewma;
pub mod hash;
pub mod least_connections;
pub mod load;
pub mod p2c;
pub mod random;
pub mod round_robin;
pub mod window;

mod weights;

#[cfg(test)]
mod stage;
#[cfg(test)]
mod tests;

use std::fmt::{self, Debug};

use rand::RngExt;
use xxhash_rust::xxh3::xxh3_64;

pub use budget::Budget;
pub use ewma::Ewma;
pub use hash::Maglev;
pub use least_connections::LeastConnections;
pub use load::Load;
pub use p2c::PowerOfTwo;
pub use random::Random;
pub use round_robin::RoundRobin;
pub use window::Window;

/// The generator of a shard: fast, small and not for secrets.
pub type Xorshift = rand_xorshift::XorShiftRng;

/// Every policy, in the order in which the configuration names them.
pub static POLICIES: [Policy; 6] = [
    Policy {
        label: "random",
        keyed: false,
        timed: false,
        make: |members| Box::new(Random::new(members)),
    },
    Policy {
        label: "round_robin",
        keyed: false,
        timed: false,
        make: |members| Box::new(RoundRobin::new(members)),
    },
    Policy {
        label: "least_connections",
        keyed: false,
        timed: false,
        make: |members| Box::new(LeastConnections::new(members)),
    },
    Policy {
        label: "p2c",
        keyed: false,
        timed: false,
        make: |members| Box::new(PowerOfTwo::new(members)),
    },
    Policy {
        label: "ewma",
        keyed: false,
        timed: true,
        make: |members| Box::new(Ewma::new(members)),
    },
    Policy {
        label: "hash",
        keyed: true,
        timed: false,
        make: |members| Box::new(Maglev::new(members)),
    },
];

/// A way to choose among the endpoints of a service.
pub struct Policy {
    /// Its word in the configuration; no other policy has it.
    pub label: &'static str,
    /// True exactly when its pickers ask for [`Candidates::key`].
    pub keyed: bool,
    /// True exactly when its pickers ask for [`Load::wait`].
    pub timed: bool,
    /// Makes a picker among these members, whose places are `0..members.len()`. Control calls it,
    /// so it may take milliseconds and allocate.
    pub make: fn(&[Member]) -> Box<dyn Picker>,
}

impl Policy {
    /// The policy of that label.
    pub fn named(label: &str) -> Option<&'static Self> {
        POLICIES.iter().find(|policy| policy.label == label)
    }
}

impl Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label)
    }
}

impl PartialEq for Policy {
    /// By label: no two policies share one.
    fn eq(&self, other: &Self) -> bool {
        self.label == other.label
    }
}

impl Eq for Policy {}

/// One endpoint as a picker is made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// What all instances of ringmain agree on: [`hash_key`] of the endpoint's address as text.
    pub id: u64,
    /// Its share against the weights of the others; 1 or more.
    pub weight: u32,
}

/// What a picker may ask about the endpoints that it chooses from, by their places.
pub trait Candidates {
    /// True exactly when the endpoint at `place` may be picked. Within one pick the answer for one
    /// place is always the same.
    fn is_in(&self, place: usize) -> bool;
    /// What runs at the endpoint at `place`, and how late it has answered.
    fn load(&self, place: usize) -> &Load;
    /// Nanoseconds of the shard's clock, the one that its [`Load`]s are told.
    fn now(&self) -> u64;
    /// [`hash_key`] of what the request is told apart by. Only pickers of a [`Policy::keyed`]
    /// policy ask for it.
    fn key(&self) -> u64;
}

/// What chooses an endpoint for each request: what a policy comes down to.
pub trait Picker: Debug + Send + Sync {
    /// A picker for one shard, among the same members, with a state of its own; where shards that
    /// begin alike would act alike, `generator` says where this one begins.
    fn of_shard(&self, generator: &mut Xorshift) -> Box<dyn Picker>;
    /// The place of the endpoint picked among those that are in; `None` exactly when none is.
    /// Allocates nothing.
    fn pick(&mut self, candidates: &dyn Candidates, generator: &mut Xorshift) -> Option<usize>;
}

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

/// A number from 0.0 to below 1.0, each as likely as every other.
pub fn draw_unit(generator: &mut Xorshift) -> f64 {
    generator.random()
}

/// What all instances of ringmain, of any version and on any machine, make of these bytes: XXH3
/// with 64 bits, as its [specification] has it. Not for secrets: who chooses the bytes can choose
/// the hash.
///
/// [specification]: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md
#[inline]
pub fn hash_key(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}
