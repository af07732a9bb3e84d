//! Numbers of all shards merged, and the text that shows them.

use std::ops::AddAssign;

use super::{EndpointCounters, STATUS_CLASSES, ServiceCounters};
use crate::fault::Fault;

/// What a service counted, merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceTotals {
    /// See [`ServiceCounters::exchanges`].
    pub exchanges: u64,
    /// See [`ServiceCounters::forwarded`].
    pub forwarded: [u64; STATUS_CLASSES],
    /// See [`ServiceCounters::own_answers`].
    pub own_answers: u64,
    /// See [`ServiceCounters::retries`].
    pub retries: u64,
    /// See [`ServiceCounters::replays`].
    pub replays: u64,
    /// See [`ServiceCounters::faults`].
    pub faults: [u64; Fault::COUNT],
    /// In the order of the newest plan's endpoints.
    pub endpoints: Vec<EndpointTotals>,
}

/// What an endpoint counted, merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointTotals {
    /// See [`EndpointCounters::exchanges`].
    pub exchanges: u64,
    /// See [`EndpointCounters::forwarded`].
    pub forwarded: [u64; STATUS_CLASSES],
    /// See [`EndpointCounters::faults`].
    pub faults: u64,
    /// See [`EndpointCounters::connects`].
    pub connects: u64,
}

impl ServiceTotals {
    /// Adds what one shard counted, endpoints included: they are those of the newest plan, in its order.
    pub fn add(&mut self, counters: &ServiceCounters) {
        self.add_own(counters);
        let endpoints = counters.endpoints.len();
        self.endpoints
            .resize_with(endpoints, EndpointTotals::default);
        for (totals, counters) in self.endpoints.iter_mut().zip(&counters.endpoints) {
            totals.add(counters);
        }
    }

    /// Adds what one shard counted, without the endpoints.
    pub fn add_own(&mut self, counters: &ServiceCounters) {
        self.exchanges += counters.exchanges.get();
        self.own_answers += counters.own_answers.get();
        self.retries += counters.retries.get();
        self.replays += counters.replays.get();
        add_each(
            &mut self.forwarded,
            counters.forwarded.each_ref().map(|c| c.get()),
        );
        add_each(
            &mut self.faults,
            counters.faults.each_ref().map(|c| c.get()),
        );
    }
}

impl AddAssign<&Self> for ServiceTotals {
    /// Adds all but the endpoints, which are those of other services.
    fn add_assign(&mut self, other: &Self) {
        self.exchanges += other.exchanges;
        self.own_answers += other.own_answers;
        self.retries += other.retries;
        self.replays += other.replays;
        add_each(&mut self.forwarded, other.forwarded);
        add_each(&mut self.faults, other.faults);
    }
}

impl EndpointTotals {
    /// Adds what one shard counted.
    pub fn add(&mut self, counters: &EndpointCounters) {
        self.exchanges += counters.exchanges.get();
        self.faults += counters.faults.get();
        self.connects += counters.connects.get();
        add_each(
            &mut self.forwarded,
            counters.forwarded.each_ref().map(|c| c.get()),
        );
    }
}

fn add_each<const N: usize>(totals: &mut [u64; N], counts: [u64; N]) {
    for (total, count) in totals.iter_mut().zip(counts) {
        *total += count;
    }
}
