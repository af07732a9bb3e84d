//! What each client address has spent and has running, in a table that never grows.
//!
//! The table is set-associative, as a CPU's cache is: an address belongs to one set, which the hash
//! of it names, and stands in any of the set's entries. Where all of them are taken, the one whose
//! state loses least makes room. So memory is constant however many addresses come, and a lookup
//! touches three cache lines. Pure: `now` is an argument.
//!
//! What is kept is exact: an entry holds its address, so that no two clients share a state because
//! their hashes are alike. An IPv4 address counts whole. An IPv6 address counts by its /64: that is
//! the least that a household or a rented machine gets (RFC 6177, RFC 8273), and whoever has a /64
//! can send each request from another of its 2^64 addresses.
//!
//! Which entry loses least, in this order:
//!
//! 1. one with nothing running and a full bucket: to forget it changes nothing;
//! 2. one with nothing running whose bucket is full soonest: it may ask once more too early;
//! 3. none, where all have something running: then the newcomer is let in and not noted, so that
//!    its limits do not hold for this exchange. To refuse it would let whoever fills a set shut
//!    others out; the service's own limits hold for it.
//!
//! The last two are counted ([`Noted::forgotten`]). Which addresses share a set is drawn at random
//! for each table, by a hash whose key nobody outside knows (SipHash, with the system's entropy;
//! the shard's generator would not do, for request ids tell its state). So nobody can choose
//! addresses to fill the set of somebody else with: it takes about as many as there are entries.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;

use super::bucket::{Bucket, Moment};
use crate::plan::limits::CLIENTS_KEPT;

/// Entries of a set. With 8, and a quarter of all entries busy, one newcomer in a thousand finds a
/// set without room; with 4 it would be one in fifty.
const WAYS: usize = 8;
const SETS: usize = CLIENTS_KEPT / WAYS;

/// A client's address, as far as limits tell clients apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::shard) struct ClientKey(u64);

impl ClientKey {
    /// The key of `address`; an IPv4 address that is mapped into IPv6 counts as itself.
    pub(in crate::shard) fn of(address: IpAddr) -> Self {
        // RFC 4291 section 2.7: what begins with ff is multicast, and no client's address.
        const OF_IPV4: u64 = 0xff << 56;
        Self(match address.to_canonical() {
            IpAddr::V4(address) => OF_IPV4 | u64::from(address.to_bits()),
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        })
    }
}

/// The state of one address. One that is all zeros stands for nobody: it is the state of somebody
/// who was never seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    client: ClientKey,
    /// What it has spent of its rate.
    pub(super) bucket: Bucket,
    /// What it has running.
    pub(super) running: u32,
}

/// The table.
#[derive(Debug)]
pub(super) struct Clients<S = RandomState> {
    entries: Box<[[Entry; WAYS]]>,
    hasher: S,
}

/// Where an entry stands, as long as something of it is running: one more than its number, for with
/// 0 left over an `Option` of it is as small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(NonZeroU32);

impl Place {
    fn new(set: usize, way: usize) -> Self {
        let number = (set * WAYS + way) as u32;
        Self(NonZeroU32::MIN.saturating_add(number))
    }

    fn set_and_way(self) -> (usize, usize) {
        let number = self.0.get() as usize - 1;
        (number / WAYS, number % WAYS)
    }
}

/// What became of a state that was noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Noted {
    /// Where it stands; `None` where there was no room.
    pub(super) place: Option<Place>,
    /// True exactly when what is known of a client was forgotten while it counted: of this one, or
    /// of another.
    pub(super) forgotten: bool,
}

impl Clients {
    /// One without anybody.
    pub(super) fn new() -> Self {
        Self::with_hasher(RandomState::new())
    }
}

impl<S: BuildHasher> Clients<S> {
    fn with_hasher(hasher: S) -> Self {
        Self {
            entries: vec![[Entry::default(); WAYS]; SETS].into(),
            hasher,
        }
    }

    /// The state of `client`, and its set.
    pub(super) fn find(&self, client: ClientKey) -> (usize, Entry) {
        let set = self.hasher.hash_one(client.0) as usize % SETS;
        let found = self.entries[set].iter();
        let mut found = found.filter(|entry| entry.client == client);
        let entry = found.next().copied().unwrap_or(Entry {
            client,
            ..Entry::default()
        });
        (set, entry)
    }

    /// Notes `entry` in `set`, which [`Clients::find`] has named for its client.
    pub(super) fn note(&mut self, set: usize, entry: Entry, now: Moment) -> Noted {
        let ways = &mut self.entries[set];
        let of_client = |other: &Entry| other.client == entry.client;
        let own = ways.iter().position(of_client);
        let Some(way) = own.or_else(|| least(ways)) else {
            return Noted {
                place: None,
                forgotten: true,
            };
        };
        let forgotten = own.is_none() && !ways[way].bucket.is_full(now);
        ways[way] = entry;
        Noted {
            place: Some(Place::new(set, way)),
            forgotten,
        }
    }

    /// Forgets what was spent, and not what is running.
    pub(super) fn forget_spent(&mut self) {
        for entry in self.entries.iter_mut().flatten() {
            entry.bucket = Bucket::default();
        }
    }

    /// One that was running at `place` has ended.
    pub(super) fn end(&mut self, place: Place) {
        let (set, way) = place.set_and_way();
        let entry = &mut self.entries[set][way];
        debug_assert!(0 < entry.running, "what is running keeps its place");
        entry.running = entry.running.saturating_sub(1);
    }
}

/// The entry that loses least when it is forgotten; a bucket that is full already is full soonest.
fn least(ways: &[Entry; WAYS]) -> Option<usize> {
    let idle = ways.iter().enumerate();
    let idle = idle.filter(|(_, entry)| entry.running == 0);
    idle.min_by_key(|(_, entry)| entry.bucket)
        .map(|(way, _)| way)
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasherDefault, DefaultHasher};

    use super::*;
    use crate::plan::limits::{CLIENT_BYTES, Rate};

    /// The same sets in each run.
    fn table() -> Clients<BuildHasherDefault<DefaultHasher>> {
        Clients::with_hasher(BuildHasherDefault::default())
    }

    fn rate(per_second: u32, burst: u32) -> Rate {
        let positive = |number| NonZeroU32::new(number).expect("it is not 0");
        Rate::new(positive(per_second), positive(burst))
    }

    fn stranger(number: u32) -> ClientKey {
        ClientKey::of(IpAddr::V4(number.into()))
    }

    /// One request of `client` now. True when it was let in.
    fn ask<S: BuildHasher>(
        clients: &mut Clients<S>,
        client: ClientKey,
        rate: &Rate,
        now: Moment,
    ) -> bool {
        let (set, mut entry) = clients.find(client);
        let Ok(bucket) = entry.bucket.spend(rate, now) else {
            return false;
        };
        entry.bucket = bucket;
        clients.note(set, entry, now);
        true
    }

    #[test]
    fn an_ipv4_address_counts_whole_and_an_ipv6_address_by_its_64() {
        let key = |text: &str| ClientKey::of(text.parse().unwrap());
        for (one, other, same) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", true),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
            ("::1", "0.0.0.1", false),
            ("::1", "0.0.0.0", false),
        ] {
            assert_eq!(key(one) == key(other), same, "{one} and {other}");
        }
    }

    #[test]
    fn a_million_addresses_take_the_memory_of_none() {
        let mut clients = table();
        let (rate, now) = (rate(1, 1), Moment::of_nanoseconds(1));
        for number in 0..1_000_000 {
            ask(&mut clients, stranger(number), &rate, now);
        }
        let bytes = size_of_val(&*clients.entries);
        assert_eq!(bytes, CLIENTS_KEPT * CLIENT_BYTES);
        assert_eq!(bytes, 3 << 19, "1.5 MiB");
        let taken = clients.entries.iter().flatten();
        let taken = taken.filter(|entry| !entry.bucket.is_full(now)).count();
        assert_eq!(taken, CLIENTS_KEPT, "all of it is used");
    }

    /// How many strangers with `each` requests it takes, at one moment, until an address that has
    /// spent its burst is let in again.
    fn strangers_until_forgotten(burst: u32, each: u32, most: u32) -> Option<u32> {
        let mut clients = table();
        let (rate, now) = (rate(1, burst), Moment::of_nanoseconds(0));
        let limited = stranger(u32::MAX);
        while ask(&mut clients, limited, &rate, now) {}
        (0..most).find(|number| {
            for _ in 0..each {
                ask(&mut clients, stranger(*number), &rate, now);
            }
            let (_, entry) = clients.find(limited);
            entry.bucket.spend(&rate, now).is_ok()
        })
    }

    #[test]
    fn an_address_that_is_limited_stays_limited_while_strangers_pass_through() {
        // With a burst of its own, it is the last of its set that is forgotten for strangers who
        // ask less than it did.
        assert_eq!(strangers_until_forgotten(10, 1, 1_000_000), None);
        assert_eq!(strangers_until_forgotten(10, 9, 100_000), None);
        // Those who spend as much as it did, all within the time that the limit looks back on, have
        // to be about as many as there are entries.
        for burst in [1, 10] {
            let strangers = strangers_until_forgotten(burst, burst, 1_000_000);
            let strangers = strangers.expect("the table is not that large");
            let entries = CLIENTS_KEPT as u32;
            assert!(entries / 4 < strangers, "{strangers} of {entries}");
        }
    }

    #[test]
    fn a_client_that_is_as_good_as_new_is_forgotten_first() {
        let mut clients = table();
        let rate = rate(1, 100);
        let now = Moment::of_nanoseconds(10_000_000_000);
        let entry = |client, seconds: u64, running| Entry {
            client: stranger(client),
            bucket: Bucket::default()
                .spend(&rate, Moment::of_nanoseconds(seconds * 1_000_000_000))
                .expect("it is the first"),
            running,
        };
        // Full again at second 1, 9, 20, 30, ...; the first has something running.
        let seconds = [0, 8, 19, 29, 39, 49, 59, 69];
        for (client, second) in (0..).zip(seconds) {
            let running = u32::from(client == 0);
            let noted = clients.note(3, entry(client, second, running), now);
            assert!(!noted.forgotten && noted.place.is_some());
        }
        for (client, way, forgotten) in [(10, 1, false), (11, 2, true), (12, 3, true)] {
            let noted = clients.note(3, entry(client, 99, 1), now);
            let place = Some(Place::new(3, way));
            assert_eq!(noted, Noted { place, forgotten }, "{client}");
        }
        // Nobody who has something running is forgotten, and who finds no room is not noted.
        for client in 13..17 {
            assert!(clients.note(3, entry(client, 99, 1), now).place.is_some());
        }
        let nowhere = Noted {
            place: None,
            forgotten: true,
        };
        assert_eq!(clients.note(3, entry(17, 99, 1), now), nowhere);
        // Where one has ended, there is room.
        clients.end(Place::new(3, 0));
        let noted = clients.note(3, entry(17, 99, 1), now);
        assert_eq!(noted.place, Some(Place::new(3, 0)));
    }

    #[test]
    fn two_tables_put_addresses_into_different_sets() {
        let (one, other) = (Clients::new(), Clients::new());
        let alike = (0..1_000).filter(|number| {
            let client = stranger(*number);
            one.find(client).0 == other.find(client).0
        });
        assert!(alike.count() < 20);
    }
}
