//! Picks the same endpoint for the same key, on every shard and every instance.
//!
//! D. E. Eisenbud and others, "Maglev: a fast and reliable software network load balancer" (NSDI
//! 2016), section 3.4: a table says for each of 65,537 entries whose it is, and a key goes to the
//! entry that it hashes to. Each endpoint has an order of preference of its own over all entries,
//! made of its id; the endpoints take turns, by weight, and each takes in its turn the entry that
//! it likes best of those that nobody has. So the shares are those of the turns, to the entry, and
//! when an endpoint leaves, its entries are divided among the others, which keep nearly all of
//! theirs.
//!
//! What instances must agree on, they do: hashes are XXH3 of ids and keys, and turns go in the
//! order of the ids, whatever the order in which the endpoints are written.
//!
//! Where the entry's endpoint is not in, each one that is bids for the key, and the highest bid has
//! it (weighted rendezvous hashing: D. G. Thaler and C. V. Ravishankar, "Using name-based mappings
//! to increase hit rates", 1998; the bids of weights after C. Schindelhauer and G. Schomaker,
//! "Weighted distributed hash tables", 2005). So the keys of one that is out are divided by weight,
//! each stays where it has gone for as long as that endpoint is in, and all other keys stay where
//! they are. That costs a look at every endpoint, for those keys alone.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Candidates, Member, Picker, RoundRobin, Xorshift};

/// Entries of a table: the paper's number for a small service. A prime, so that steps of any length
/// lead to all of them.
const ENTRIES: u32 = 65_537;

/// What is nobody's while the table is made.
const NOBODY: u32 = u32::MAX;

/// What tells the two numbers apart that an order of preference is made of.
const START_SEED: u64 = 0;
const STEP_SEED: u64 = 1;

/// The picker of the policy `hash`.
#[derive(Clone, Debug)]
pub struct Maglev {
    members: Arc<[Member]>,
    /// The place of each entry's endpoint; empty exactly when there is no member.
    entries: Arc<[u32]>,
}

impl Maglev {
    /// Picks among `members`.
    ///
    /// # Panics
    /// When a weight is 0.
    pub fn new(members: &[Member]) -> Self {
        Self {
            members: members.into(),
            entries: entries(members),
        }
    }

    /// Whose `key` is while its own endpoint is out.
    #[cold]
    fn substitute(&self, candidates: &dyn Candidates, key: u64) -> Option<usize> {
        let places = (0..self.members.len()).filter(|place| candidates.is_in(*place));
        let bids = places.map(|place| (place, bid(self.members[place], key)));
        let highest = bids.max_by(|(_, one), (_, other)| one.total_cmp(other));
        highest.map(|(place, _)| place)
    }
}

impl Picker for Maglev {
    fn of_shard(&self, _generator: &mut Xorshift) -> Box<dyn Picker> {
        Box::new(self.clone())
    }

    fn pick(&mut self, candidates: &dyn Candidates, _generator: &mut Xorshift) -> Option<usize> {
        let key = candidates.key();
        let entry = (key % u64::from(ENTRIES)) as usize;
        let own = *self.entries.get(entry)? as usize;
        if candidates.is_in(own) {
            return Some(own);
        }
        self.substitute(candidates, key)
    }
}

/// What `member` bids for `key`: `weight / -ln(u)` with a `u` in `0..1` that is made of both. The
/// highest of several is each one's with the probability of its weight.
fn bid(member: Member, key: u64) -> f64 {
    let drawn = xxh3_64_with_seed(&member.id.to_le_bytes(), key);
    // The upper 53 bits, and half of one more, so that it is neither 0 nor 1.
    let unit = ((drawn >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    f64::from(member.weight) / -unit.ln()
}

/// The table of `members`.
fn entries(members: &[Member]) -> Arc<[u32]> {
    let mut places: Vec<usize> = (0..members.len()).collect();
    places.sort_by_key(|place| (members[*place].id, members[*place].weight));
    let sorted: Vec<Member> = places.iter().map(|place| members[*place]).collect();
    let mut turns = RoundRobin::new(&sorted);
    let mut walks: Vec<Walk> = sorted.iter().map(|member| Walk::new(member.id)).collect();
    let mut entries = vec![
        NOBODY;
        if members.is_empty() {
            0
        } else {
            ENTRIES as usize
        }
    ];
    for _ in 0..entries.len() {
        let turn = turns.next_turn(|_| true).expect("there is a member");
        let free = walks[turn].find(|entry| entries[*entry] == NOBODY);
        let free = free.expect("a walk comes to every entry, and there are as many turns");
        entries[free] = u32::try_from(places[turn]).expect("places are fewer than 2^32");
    }
    entries.into()
}

/// An endless walk over the entries in one endpoint's order of preference: from a start on, in
/// steps of the same length.
#[derive(Clone, Copy, Debug)]
struct Walk {
    /// Below [`ENTRIES`].
    next: u32,
    /// `0 < step < ENTRIES`.
    step: u32,
}

impl Walk {
    fn new(id: u64) -> Self {
        let below = |seed, bound| {
            let drawn = xxh3_64_with_seed(&id.to_le_bytes(), seed) % u64::from(bound);
            u32::try_from(drawn).expect("it is below a bound of 32 bits")
        };
        Self {
            next: below(START_SEED, ENTRIES),
            step: 1 + below(STEP_SEED, ENTRIES - 1),
        }
    }
}

impl Iterator for Walk {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let found = self.next;
        self.next += self.step;
        if ENTRIES <= self.next {
            self.next -= ENTRIES;
        }
        Some(found as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::super::stage::{Stage, members};
    use super::*;

    #[test]
    fn a_key_stays_unless_its_own_endpoint_leaves() {
        let mut picker = Maglev::new(&members(&[1, 2, 3, 4]));
        let mut stage = Stage::new(4);
        let all = stage.places_by_key(&mut picker, 1000);
        stage.inside[2] = false;
        let without = stage.places_by_key(&mut picker, 1000);
        let moved = all.iter().zip(&without).filter(|(one, other)| one != other);
        assert!(moved.clone().all(|(before, _)| *before == 2));
        assert_eq!(
            moved.count(),
            all.iter().filter(|place| **place == 2).count()
        );
    }
}
