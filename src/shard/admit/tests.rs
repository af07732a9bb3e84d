//! Requests of several clients, in a time that is an argument.

use super::*;
use crate::plan::limits::Rate;

const SECOND: u64 = 1_000_000_000;

/// ServiceLimits of `client_rate` (with as many at once), `client_concurrent`, `rate` (alike) and
/// `concurrent`; 0 is none.
fn limits([client_rate, client_concurrent, rate, concurrent]: [u32; 4]) -> ServiceLimits {
    let a_second = |number| NonZeroU32::new(number).map(|number| Rate::new(number, number));
    ServiceLimits {
        client_rate: a_second(client_rate),
        client_concurrent: NonZeroU32::new(client_concurrent),
        shard_rate: a_second(rate),
        shard_concurrent: NonZeroU32::new(concurrent),
    }
}

fn client(number: u8) -> ClientKey {
    ClientKey::of([192, 0, 2, number].into())
}

/// A service whose admissions are kept until they are dropped by hand.
struct Service {
    limiter: Rc<Limiter>,
    limits: ServiceLimits,
    counters: ServiceCounters,
    held: Vec<Admission>,
}

impl Service {
    fn new(limits: ServiceLimits) -> Self {
        Self {
            limiter: Rc::default(),
            limits,
            counters: ServiceCounters::default(),
            held: Vec::new(),
        }
    }

    /// What sheds a request of the client of this number, in tenths of a second; `None` where it is
    /// let in.
    fn ask(&mut self, number: u8, tenths: u64) -> Option<(Limit, u32)> {
        let now = tenths * SECOND / 10;
        let (limits, counters) = (&self.limits, &self.counters);
        let admitted = self.limiter.admit(limits, client(number), now, counters);
        match admitted {
            Ok(admission) => {
                self.held.push(admission);
                None
            }
            Err(shed) => Some((shed.limit, shed.retry_after.map_or(0, NonZeroU32::get))),
        }
    }

    fn shed(&self) -> [u64; Limit::COUNT] {
        self.counters.shed.each_ref().map(|counter| counter.get())
    }
}

#[test]
fn clients_are_limited_apart_and_together() {
    let mut service = Service::new(limits([2, 0, 3, 0]));
    for (number, tenths, expected) in [
        (1, 0, None),
        (1, 0, None),
        (1, 0, Some((Limit::ClientRate, 1))),
        (2, 0, None),
        (2, 0, Some((Limit::Rate, 1))),
        (3, 0, Some((Limit::Rate, 1))),
        (1, 4, Some((Limit::ClientRate, 1))),
        (1, 5, None),
        // What the service's rate shed has cost client 2 nothing: it has both again.
        (2, 10, None),
        (2, 10, None),
        (2, 10, Some((Limit::ClientRate, 1))),
        (3, 10, Some((Limit::Rate, 1))),
        (3, 20, None),
        (3, 20, None),
        (3, 20, Some((Limit::ClientRate, 1))),
    ] {
        assert_eq!(service.ask(number, tenths), expected, "{number} {tenths}");
    }
    assert_eq!(service.shed(), [4, 0, 3, 0, 0, 0]);
}

#[test]
fn what_runs_is_counted_by_client_and_in_all() {
    let mut service = Service::new(limits([0, 2, 0, 3]));
    for (number, expected) in [
        (1, None),
        (1, None),
        (1, Some((Limit::ClientConcurrent, 1))),
        (2, None),
        (2, Some((Limit::Concurrent, 0))),
        (1, Some((Limit::ClientConcurrent, 1))),
    ] {
        assert_eq!(service.ask(number, 0), expected, "{number}");
    }
    // The first of client 1 ends.
    service.held.remove(0);
    assert_eq!(service.ask(2, 0), None);
    assert_eq!(service.ask(1, 0), Some((Limit::Concurrent, 0)));
    service.held.clear();
    for _ in 0..2 {
        assert_eq!(service.ask(1, 0), None);
    }
    assert_eq!(service.shed(), [0, 2, 0, 2, 0, 0]);
}

#[test]
fn what_one_limit_sheds_costs_nothing_at_the_others() {
    let mut service = Service::new(limits([1, 1, 0, 1]));
    assert_eq!(service.ask(1, 0), None);
    for _ in 0..10 {
        assert_eq!(service.ask(2, 0), Some((Limit::Concurrent, 0)));
    }
    service.held.clear();
    assert_eq!(service.ask(2, 0), None);
    assert_eq!(service.limiter.running.get(), 1);
}

#[test]
fn a_service_goes_on_under_other_limits() {
    let mut service = Service::new(limits([1, 2, 1, 0]));
    assert_eq!(service.ask(1, 0), None);
    assert_eq!(service.ask(1, 0), Some((Limit::ClientRate, 1)));
    let next = limits([1, 2, 0, 0]);
    service.limiter.adopt(&service.limits, &next);
    service.limits = next;
    assert_eq!(service.ask(1, 0), Some((Limit::ClientRate, 1)));
    let next = limits([100, 2, 0, 0]);
    service.limiter.adopt(&service.limits, &next);
    service.limits = next;
    assert_eq!(service.ask(1, 0), None);
    // What runs runs on.
    assert_eq!(service.ask(1, 0), Some((Limit::ClientConcurrent, 1)));
    service.held.clear();
    assert_eq!(service.ask(1, 0), None);
}

#[test]
fn the_table_of_clients_is_made_when_it_is_needed() {
    let mut service = Service::new(limits([0, 0, 1, 1]));
    assert_eq!(service.ask(1, 0), None);
    assert!(service.limiter.clients.borrow().is_none());
    let mut service = Service::new(limits([0, 1, 0, 0]));
    assert_eq!(service.ask(1, 0), None);
    assert!(service.limiter.clients.borrow().is_some());
}
