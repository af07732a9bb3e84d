//! The counters that one shard writes: for itself, for each service and for each endpoint.
//!
//! One writer is what makes them cheap: adding is a relaxed load and a relaxed store, which on
//! x86-64 and aarch64 are plain moves, where `fetch_add` would lock the cache line (about 5 ns
//! instead of less than 1). Each struct begins on a line of its own (128 bytes: x86-64 fetches
//! lines in pairs), so that no shard's write takes a line away from another shard.
//!
//! Every field is written by the thread of its shard and by nobody else. The one exception is a
//! restart: when the shard's thread has ended and before the next one begins, control writes
//! (`zero_gauges` and the count of restarts).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{ByFault, EjectReason, Handed, Limit, RetryReason};
use crate::fault::Fault;

/// How many classes of statuses there are: 1xx to 5xx.
pub const STATUS_CLASSES: usize = 5;

/// A number that one thread writes and any thread may read.
///
/// Two writers would lose counts, not memory safety.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Past `u64::MAX` it starts again at zero, which is what readers of counters expect.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Ordering::Relaxed);
    }

    /// Takes `n` off a gauge; `n` is at most what was added.
    #[inline]
    pub fn sub(&self, n: u64) {
        let value = self.get();
        debug_assert!(n <= value, "a gauge of {value} would lose {n}");
        self.0.store(value.saturating_sub(n), Ordering::Relaxed);
    }

    /// The value that the writer stored last, or, on another thread, one that it stored lately.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn zero(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// One counter for each cause, in the order of [`Fault::ALL`].
pub type FaultCounters = ByFault<Counter>;

/// One counter for each limit, in the order of [`Limit::ALL`].
pub type ShedCounters = [Counter; Limit::COUNT];

/// One counter for each class of statuses; [`status_class`] is the index.
pub type StatusCounters = [Counter; STATUS_CLASSES];

/// The place of a status in [`StatusCounters`]: 0 for 1xx, 4 for 5xx.
///
/// RFC 9110 section 15: a status outside 100 to 599 is treated as a 5xx.
#[inline]
pub const fn status_class(status: u16) -> usize {
    match status {
        100..=199 => 0,
        200..=299 => 1,
        300..=399 => 2,
        400..=499 => 3,
        _ => 4,
    }
}

/// What a shard counts for itself, in the order of a connection's life.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ShardCounters {
    /// Client connections accepted.
    pub clients_accepted: Counter,
    /// Gauge: client connections open now.
    pub clients_open: Counter,
    /// Calls of accept that failed, other than for want of a connection.
    pub accept_failures: Counter,
    /// Client connections closed because no header of the PROXY protocol came that could be taken;
    /// those that ended without a byte are none of these.
    pub clients_unproxied: Counter,
    /// Client connections closed at once because a limit on connections was reached.
    pub clients_refused: Counter,
    /// Idle client connections closed because descriptors had run out.
    pub clients_given_up: Counter,
    /// Exchanges begun, those without a service included.
    pub exchanges: Counter,
    /// Exchanges that never got as far as a service: bad heads, and hosts that no route matches.
    pub no_service_exchanges: Counter,
    /// Answers of ringmain's own to those.
    pub no_service_own_answers: Counter,
    /// Faults of those, by cause.
    pub no_service_faults: FaultCounters,
    /// Answers of ringmain's own, those of services included.
    pub own_answers: Counter,
    /// Bytes read from clients.
    pub bytes_client_in: Counter,
    /// Bytes written to clients.
    pub bytes_client_out: Counter,
    /// Bytes read from endpoints.
    pub bytes_upstream_in: Counter,
    /// Bytes written to endpoints.
    pub bytes_upstream_out: Counter,
    /// Upstream connections made.
    pub upstreams_opened: Counter,
    /// Gauge: upstream connections with an exchange on them now.
    pub upstreams_in_use: Counter,
    /// Gauge: upstream connections in the pool now.
    pub upstreams_idle: Counter,
    /// Gauge: exchanges that wait now because their endpoints have `connections_max` connections.
    pub exchanges_waiting: Counter,
    /// Gauge: legs of fan-outs with an attempt under way now.
    pub legs_running: Counter,
    /// Gauge: legs of fan-outs that wait now before their next attempt.
    pub legs_asleep: Counter,
    /// Times that an upstream connection was taken from the pool and used.
    pub upstreams_reused: Counter,
    /// Upstream connections found closed: when they were taken, or when a reused one died before a
    /// response byte.
    pub upstreams_stale: Counter,
    /// Idle upstream connections closed because descriptors had run out.
    pub upstreams_given_up: Counter,
    /// Panics caught; each closed one connection.
    pub panics: Counter,
    /// Notices that did not fit because control was behind.
    pub notices_dropped: Counter,
    /// Times that this shard was started anew after its thread had died.
    pub restarts: Counter,
    /// Microseconds that the shard's threads have lived, as of their last ticks.
    pub lived_microseconds: Counter,
    /// Microseconds of CPU time that they have used, the kernel's part for them included.
    pub busy_microseconds: Counter,
}

impl ShardCounters {
    /// Counts a fault of an exchange that has no service.
    #[inline]
    pub fn no_service_fault(&self, fault: Fault) {
        self.no_service_faults[fault.index()].add(1);
    }

    /// Forgets what was open: after the shard's thread has died, and its connections with it.
    /// Counts stay.
    pub fn zero_gauges(&self) {
        self.clients_open.zero();
        self.upstreams_in_use.zero();
        self.upstreams_idle.zero();
        self.exchanges_waiting.zero();
        self.legs_running.zero();
        self.legs_asleep.zero();
    }
}

/// What one shard counts for one service. Of the exchanges that have ended, each was forwarded, or
/// got an answer of ringmain's own, or none, its client being gone or speaking TCP: `forwarded +
/// own_answers <= exchanges`. A session of TCP is one exchange; it became a tunnel, or is a fault.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ServiceCounters {
    /// Exchanges that were routed to the service.
    pub exchanges: Counter,
    /// Final answers of endpoints passed on, by class of status.
    pub forwarded: StatusCounters,
    /// Answers of ringmain's own.
    pub own_answers: Counter,
    /// Tries after the first, other than replays, by reason.
    pub retries: [Counter; RetryReason::COUNT],
    /// Tries that were not made because the retry budget was spent.
    pub retries_refused: Counter,
    /// Requests sent again because the pooled connection had gone stale; these count against
    /// nothing.
    pub replays: Counter,
    /// Times that an exchange found all its endpoints at `connections_max`: it waited, or was
    /// refused.
    pub limited: Counter,
    /// Exchanges refused at once because a limit of the service was reached, by limit.
    pub shed: ShedCounters,
    /// Times that what was known of a client's address was forgotten while a limit still depended
    /// on it, for want of room.
    pub clients_forgotten: Counter,
    /// Exchanges for which endpoints were used that are not in, because none is.
    pub failed_open: Counter,
    /// Tunnels begun: exchanges whose answer was a 101, which is counted as forwarded, and sessions
    /// of TCP that were connected, of which nothing else is.
    pub tunnels: Counter,
    /// Gauge: tunnels open now.
    pub tunnels_open: Counter,
    /// Bytes of tunnels that were written to endpoints.
    pub tunnel_bytes_up: Counter,
    /// Bytes of tunnels that were written to clients.
    pub tunnel_bytes_down: Counter,
    /// Faults by cause.
    pub faults: FaultCounters,
    /// Where the shard lays down what it has recorded of the service.
    pub handed: Handed,
    /// In the order of the plan's endpoints.
    pub endpoints: Box<[Arc<EndpointCounters>]>,
    /// In the order of the plan's backends; none where the service has no fan-out.
    pub backends: Box<[Arc<BackendCounters>]>,
}

impl ServiceCounters {
    /// All zero, over these endpoints and the backends of a fan-out.
    pub fn over(
        endpoints: Box<[Arc<EndpointCounters>]>,
        backends: Box<[Arc<BackendCounters>]>,
    ) -> Self {
        Self {
            endpoints,
            backends,
            ..Self::default()
        }
    }

    /// Counts a final answer passed on from the endpoint at `endpoint`, here and there.
    #[inline]
    pub fn count_forwarded(&self, endpoint: usize, status: u16) {
        let class = status_class(status);
        self.forwarded[class].add(1);
        self.endpoints[endpoint].forwarded[class].add(1);
    }

    /// Forgets what was open or ejected: after the shard's thread has died, and its tunnels with
    /// it. Counts stay.
    pub fn zero_gauges(&self) {
        self.tunnels_open.zero();
        for endpoint in &self.endpoints {
            endpoint.ejected.zero();
        }
    }

    /// Counts the fault that ended an exchange.
    #[inline]
    pub fn count_fault(&self, fault: Fault) {
        self.faults[fault.index()].add(1);
    }
}

/// What one shard counts for one endpoint.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct EndpointCounters {
    /// Tries sent to the endpoint, or meant for it when the connect failed.
    pub exchanges: Counter,
    /// Final answers of it passed on, by class of status.
    pub forwarded: StatusCounters,
    /// Tries that the endpoint failed, also those that another endpoint then made good.
    pub faults: Counter,
    /// Connections made to it.
    pub connects: Counter,
    /// Times that the shard has ejected it, by reason.
    pub ejections: [Counter; EjectReason::COUNT],
    /// Gauge: 1 while the shard has it ejected.
    pub ejected: Counter,
    /// Where the shard lays down what it has recorded of the endpoint.
    pub handed: Handed,
}

/// What one shard counts for one backend of a service with a fan-out.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct BackendCounters {
    /// Legs that have succeeded.
    pub succeeded: Counter,
    /// Legs that ended otherwise: their attempts were spent, their client had left, or the drain
    /// was over.
    pub failed: Counter,
    /// Attempts that were begun.
    pub attempts: Counter,
}

/// What one shard writes under one plan.
#[derive(Debug)]
pub struct PlanCounters {
    /// The shard's own; the same under every plan.
    pub shard: Arc<ShardCounters>,
    /// In the order of the plan's services.
    pub services: Box<[Arc<ServiceCounters>]>,
    /// In the order of the plan's listeners.
    pub listeners: Box<[Arc<ListenerCounters>]>,
}

/// What one shard has open of one listener.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ListenerCounters {
    /// Gauge: client connections.
    pub clients_open: Counter,
    /// Gauge: sockets that it accepts from.
    pub sockets_open: Counter,
}

impl ListenerCounters {
    /// Sets the gauges to zero: the shard's thread has ended, and what was open with it.
    pub fn zero_gauges(&self) {
        self.clients_open.zero();
        self.sockets_open.zero();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_adds_and_a_gauge_comes_back() {
        let counter = Counter::default();
        counter.add(5);
        counter.add(2);
        counter.sub(3);
        assert_eq!(counter.get(), 4);
    }

    #[test]
    fn a_status_outside_the_five_classes_counts_as_5xx() {
        let cases = [(100, 0), (204, 1), (301, 2), (499, 3), (500, 4), (599, 4)];
        for (status, class) in cases.into_iter().chain([(600, 4), (999, 4), (99, 4)]) {
            assert_eq!(status_class(status), class, "{status}");
        }
    }

    #[test]
    fn zeroing_gauges_keeps_counts() {
        let shard = ShardCounters::default();
        for gauge in [
            &shard.clients_open,
            &shard.upstreams_in_use,
            &shard.upstreams_idle,
            &shard.exchanges_waiting,
            &shard.legs_running,
            &shard.legs_asleep,
        ] {
            gauge.add(3);
        }
        shard.exchanges.add(9);
        shard.zero_gauges();
        assert_eq!(shard.clients_open.get(), 0);
        assert_eq!(shard.upstreams_in_use.get(), 0);
        assert_eq!(shard.upstreams_idle.get(), 0);
        assert_eq!(shard.exchanges_waiting.get(), 0);
        assert_eq!(shard.legs_running.get() + shard.legs_asleep.get(), 0);
        assert_eq!(shard.exchanges.get(), 9);
        let service = ServiceCounters::default();
        service.tunnels.add(2);
        service.tunnels_open.add(1);
        service.zero_gauges();
        assert_eq!(service.tunnels_open.get(), 0);
        assert_eq!(service.tunnels.get(), 2);
    }

    #[test]
    fn no_two_structs_share_a_cache_line() {
        assert_eq!(align_of::<ShardCounters>(), 128);
        assert_eq!(align_of::<ServiceCounters>(), 128);
        assert_eq!(align_of::<EndpointCounters>(), 128);
    }
}
