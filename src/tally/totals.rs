//! The numbers of all shards merged: plain sums, taken while the counters move.

use std::ops::AddAssign;
use std::time::Duration;

use super::counters::{
    BackendCounters, Counter, EndpointCounters, STATUS_CLASSES, ServiceCounters, ShardCounters,
};
use super::{ByFault, EjectReason, Limit, RetryReason};

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
    pub retries: [u64; RetryReason::COUNT],
    /// See [`ServiceCounters::retries_refused`].
    pub retries_refused: u64,
    /// See [`ServiceCounters::replays`].
    pub replays: u64,
    /// See [`ServiceCounters::limited`].
    pub limited: u64,
    /// See [`ServiceCounters::shed`].
    pub shed: [u64; Limit::COUNT],
    /// See [`ServiceCounters::clients_forgotten`].
    pub clients_forgotten: u64,
    /// See [`ServiceCounters::failed_open`].
    pub failed_open: u64,
    /// See [`ServiceCounters::tunnels`].
    pub tunnels: u64,
    /// See [`ServiceCounters::tunnels_open`].
    pub tunnels_open: u64,
    /// See [`ServiceCounters::tunnel_bytes_up`].
    pub tunnel_bytes_up: u64,
    /// See [`ServiceCounters::tunnel_bytes_down`].
    pub tunnel_bytes_down: u64,
    /// See [`ServiceCounters::faults`].
    pub faults: ByFault<u64>,
    /// In the order of the newest plan's endpoints.
    pub endpoints: Vec<EndpointTotals>,
    /// In the order of the newest plan's backends; none where the service has no fan-out.
    pub backends: Vec<BackendTotals>,
}

/// What a backend of a service with a fan-out counted, merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendTotals {
    /// See [`BackendCounters::succeeded`].
    pub succeeded: u64,
    /// See [`BackendCounters::failed`].
    pub failed: u64,
    /// See [`BackendCounters::attempts`].
    pub attempts: u64,
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
    /// See [`EndpointCounters::ejections`].
    pub ejections: [u64; EjectReason::COUNT],
    /// Shards that have it ejected now.
    pub ejected: u64,
}

/// What a shard counted for itself, as far as the report shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardTotals {
    /// Client connections open now.
    pub clients_open: u64,
    /// See [`ShardCounters::exchanges_waiting`].
    pub exchanges_waiting: u64,
    /// See [`ShardCounters::legs_running`].
    pub legs_running: u64,
    /// See [`ShardCounters::legs_asleep`].
    pub legs_asleep: u64,
    /// See [`ShardCounters::accept_failures`].
    pub accept_failures: u64,
    /// See [`ShardCounters::clients_unproxied`].
    pub clients_unproxied: u64,
    /// See [`ShardCounters::clients_given_up`].
    pub clients_given_up: u64,
    /// See [`ShardCounters::upstreams_given_up`].
    pub upstreams_given_up: u64,
    /// See [`ShardCounters::exchanges`].
    pub exchanges: u64,
    /// What never got as far as a service.
    pub no_service: NoServiceTotals,
    /// See [`ShardCounters::lived_microseconds`].
    pub lived: Duration,
    /// See [`ShardCounters::busy_microseconds`].
    pub busy: Duration,
}

/// What never got as far as a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoServiceTotals {
    /// See [`ShardCounters::no_service_exchanges`].
    pub exchanges: u64,
    /// See [`ShardCounters::no_service_own_answers`].
    pub own_answers: u64,
    /// See [`ShardCounters::no_service_faults`].
    pub faults: ByFault<u64>,
}

impl ServiceTotals {
    /// Adds what one shard counted, endpoints and backends included: they are those of the newest
    /// plan, in its order.
    pub fn add(&mut self, counters: &ServiceCounters) {
        self.add_own(counters);
        let endpoints = counters.endpoints.len();
        self.endpoints
            .resize_with(endpoints, EndpointTotals::default);
        for (totals, counters) in self.endpoints.iter_mut().zip(&counters.endpoints) {
            totals.add(counters);
        }
        let backends = counters.backends.len();
        self.backends.resize_with(backends, BackendTotals::default);
        for (totals, counters) in self.backends.iter_mut().zip(&counters.backends) {
            totals.add(counters);
        }
    }

    /// Adds what one shard counted, without the endpoints and the backends.
    pub fn add_own(&mut self, counters: &ServiceCounters) {
        self.exchanges += counters.exchanges.get();
        self.own_answers += counters.own_answers.get();
        self.retries_refused += counters.retries_refused.get();
        self.failed_open += counters.failed_open.get();
        self.replays += counters.replays.get();
        self.limited += counters.limited.get();
        self.clients_forgotten += counters.clients_forgotten.get();
        self.tunnels += counters.tunnels.get();
        self.tunnels_open += counters.tunnels_open.get();
        self.tunnel_bytes_up += counters.tunnel_bytes_up.get();
        self.tunnel_bytes_down += counters.tunnel_bytes_down.get();
        add_each(&mut self.shed, values(&counters.shed));
        add_each(&mut self.forwarded, values(&counters.forwarded));
        add_each(&mut self.faults, values(&counters.faults));
        add_each(&mut self.retries, values(&counters.retries));
    }
}

impl AddAssign<&Self> for ServiceTotals {
    /// Adds all but the endpoints and backends, which are those of other services.
    fn add_assign(&mut self, other: &Self) {
        self.exchanges += other.exchanges;
        self.own_answers += other.own_answers;
        self.retries_refused += other.retries_refused;
        self.failed_open += other.failed_open;
        self.replays += other.replays;
        self.limited += other.limited;
        self.clients_forgotten += other.clients_forgotten;
        self.tunnels += other.tunnels;
        self.tunnels_open += other.tunnels_open;
        self.tunnel_bytes_up += other.tunnel_bytes_up;
        self.tunnel_bytes_down += other.tunnel_bytes_down;
        add_each(&mut self.shed, other.shed);
        add_each(&mut self.forwarded, other.forwarded);
        add_each(&mut self.faults, *other.faults);
        add_each(&mut self.retries, other.retries);
    }
}

impl EndpointTotals {
    /// Adds what one shard counted.
    pub fn add(&mut self, counters: &EndpointCounters) {
        self.exchanges += counters.exchanges.get();
        self.faults += counters.faults.get();
        self.connects += counters.connects.get();
        self.ejected += counters.ejected.get();
        add_each(&mut self.ejections, values(&counters.ejections));
        add_each(&mut self.forwarded, values(&counters.forwarded));
    }
}

impl BackendTotals {
    /// Adds what one shard counted.
    pub fn add(&mut self, counters: &BackendCounters) {
        self.succeeded += counters.succeeded.get();
        self.failed += counters.failed.get();
        self.attempts += counters.attempts.get();
    }
}

impl From<&ShardCounters> for ShardTotals {
    fn from(counters: &ShardCounters) -> Self {
        Self {
            clients_open: counters.clients_open.get(),
            exchanges_waiting: counters.exchanges_waiting.get(),
            legs_running: counters.legs_running.get(),
            legs_asleep: counters.legs_asleep.get(),
            accept_failures: counters.accept_failures.get(),
            clients_unproxied: counters.clients_unproxied.get(),
            clients_given_up: counters.clients_given_up.get(),
            upstreams_given_up: counters.upstreams_given_up.get(),
            exchanges: counters.exchanges.get(),
            no_service: NoServiceTotals {
                exchanges: counters.no_service_exchanges.get(),
                own_answers: counters.no_service_own_answers.get(),
                faults: counters.no_service_faults.totals(),
            },
            lived: Duration::from_micros(counters.lived_microseconds.get()),
            busy: Duration::from_micros(counters.busy_microseconds.get()),
        }
    }
}

impl AddAssign<&Self> for NoServiceTotals {
    fn add_assign(&mut self, other: &Self) {
        self.exchanges += other.exchanges;
        self.own_answers += other.own_answers;
        add_each(&mut self.faults, *other.faults);
    }
}

fn values<const N: usize>(counters: &[Counter; N]) -> [u64; N] {
    counters.each_ref().map(Counter::get)
}

fn add_each<const N: usize>(totals: &mut [u64; N], counts: [u64; N]) {
    for (total, count) in totals.iter_mut().zip(counts) {
        *total += count;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fault::Fault;

    #[test]
    fn merging_shards_equals_one_shard_that_counted_everything() {
        let fresh = || {
            let endpoints = (0..2).map(|_| Arc::default()).collect();
            ServiceCounters::over(endpoints, (0..3).map(|_| Arc::default()).collect())
        };
        let (shards, one) = ([fresh(), fresh(), fresh()], fresh());
        for turn in 0..100_u64 {
            let shard = &shards[turn as usize % 3];
            for counters in [shard, &one] {
                counters.exchanges.add(1);
                counters.retries[turn as usize % RetryReason::COUNT].add(turn % 2);
                counters.retries_refused.add(turn % 4);
                counters.failed_open.add(turn % 6);
                counters.replays.add(turn % 5);
                counters.limited.add(turn % 7);
                counters.shed[turn as usize % Limit::COUNT].add(turn % 4);
                counters.clients_forgotten.add(turn % 2);
                counters.tunnels.add(turn % 3);
                counters.tunnels_open.add(turn % 11);
                counters.tunnel_bytes_up.add(turn % 13);
                counters.tunnel_bytes_down.add(turn % 17);
                let backend = &counters.backends[turn as usize % 3];
                backend.succeeded.add(turn % 2);
                backend.failed.add(turn % 3);
                backend.attempts.add(turn);
                let endpoint = turn as usize % 2;
                counters.endpoints[endpoint].exchanges.add(1);
                counters.endpoints[endpoint].connects.add(turn);
                counters.endpoints[endpoint].ejections[turn as usize % 2].add(1);
                counters.endpoints[endpoint].ejected.add(turn % 2);
                counters.count_forwarded(endpoint, 200 + 100 * (turn % 4) as u16);
                counters.count_fault(Fault::ALL[turn as usize % Fault::COUNT]);
            }
        }
        let merged = |all: &[ServiceCounters]| {
            let mut totals = ServiceTotals::default();
            for counters in all {
                totals.add(counters);
            }
            totals
        };
        assert_eq!(merged(&shards), merged(&[one]));
    }
}
