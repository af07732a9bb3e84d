//! What this shard records: a recorder for each service and each endpoint of its plans.
//!
//! A plan's services share their recorders with the plan before where they share their counters, so
//! that an exchange which ends under an old plan is recorded with all others. The shard lays down
//! what was recorded where control picks it up: when it is asked to, and at its end.

use std::cell::{LazyCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::tally::{EndpointCounters, Phase, PlanCounters, Recorder, ServiceCounters};

/// What this shard records of one service, beside what it counts.
#[derive(Debug)]
pub(super) struct ServiceTally {
    pub(super) counters: Arc<ServiceCounters>,
    recorder: RefCell<Recorder>,
    /// In the order of the counters' endpoints.
    endpoints: Box<[Rc<RefCell<Recorder>>]>,
    /// What is not recorded yet of endpoints, where they are many.
    pending: RefCell<Vec<Pending>>,
}

/// A time that is still to be recorded.
#[derive(Clone, Copy, Debug)]
struct Pending {
    nanoseconds: u64,
    endpoint: u32,
    phase: Phase,
}

/// So many endpoints are recorded at once: what belongs to them stays in the cache.
const FEW: usize = 8;
/// Times that are recorded together. Each endpoint's histograms lie in lines of their own, of which
/// a request finds a dozen cold where endpoints are many; together they are fetched side by side
/// (bench/README.md).
const PENDING_MAX: usize = 256;

/// The recorders of a plan's endpoints, by their counters.
type Had<'a> = HashMap<*const EndpointCounters, &'a Rc<RefCell<Recorder>>>;

impl ServiceTally {
    /// Of `counters`, whose endpoints keep the recorders that they `had`.
    fn new(counters: &Arc<ServiceCounters>, had: &Had<'_>) -> Self {
        let recorder = |endpoint: &Arc<EndpointCounters>| match had.get(&Arc::as_ptr(endpoint)) {
            Some(recorder) => Rc::clone(recorder),
            None => Rc::new(RefCell::new(Recorder::of_endpoint())),
        };
        Self {
            counters: Arc::clone(counters),
            recorder: RefCell::new(Recorder::of_service()),
            endpoints: counters.endpoints.iter().map(recorder).collect(),
            pending: RefCell::new(match counters.endpoints.len() {
                0..=FEW => Vec::new(),
                _ => Vec::with_capacity(PENDING_MAX),
            }),
        }
    }

    /// Records a phase of the service alone.
    pub(super) fn record(&self, phase: Phase, nanoseconds: u64) {
        self.recorder.borrow_mut().record(phase, nanoseconds);
    }

    /// Records a phase of the service and of the endpoint at `endpoint`.
    pub(super) fn record_both(&self, endpoint: usize, phase: Phase, nanoseconds: u64) {
        self.record(phase, nanoseconds);
        self.record_endpoint(endpoint, phase, nanoseconds);
    }

    /// Records a phase of the endpoint at `endpoint` alone.
    pub(super) fn record_endpoint(&self, endpoint: usize, phase: Phase, nanoseconds: u64) {
        if self.endpoints.len() <= FEW {
            let mut recorder = self.endpoints[endpoint].borrow_mut();
            return recorder.record(phase, nanoseconds);
        }
        let mut pending = self.pending.borrow_mut();
        pending.push(Pending {
            nanoseconds,
            endpoint: endpoint as u32,
            phase,
        });
        if PENDING_MAX <= pending.len() {
            self.settle(&mut pending);
        }
    }

    /// Records what is `pending`.
    fn settle(&self, pending: &mut Vec<Pending>) {
        let recorder = |time: &Pending| &self.endpoints[time.endpoint as usize];
        for time in &*pending {
            // Fetches, and waits for nothing.
            std::hint::black_box(recorder(time).borrow().count(time.phase));
        }
        for time in pending.drain(..) {
            let mut recorder = recorder(&time).borrow_mut();
            recorder.record(time.phase, time.nanoseconds);
        }
    }

    /// Lays down what was recorded.
    fn hand_over(&self) {
        self.settle(&mut self.pending.borrow_mut());
        self.counters.handed.put(&mut self.recorder.borrow_mut());
        for (endpoint, recorder) in self.counters.endpoints.iter().zip(&self.endpoints) {
            endpoint.handed.put(&mut recorder.borrow_mut());
        }
    }
}

/// Every tally that something may still be recorded in.
#[derive(Debug, Default)]
pub(super) struct Tallies(RefCell<Vec<Rc<ServiceTally>>>);

impl Tallies {
    /// Those of a plan with `counters`, in the order of its services; `last` are those of the plan
    /// before.
    pub(super) fn open(
        &self,
        counters: &PlanCounters,
        last: &[Rc<ServiceTally>],
    ) -> Box<[Rc<ServiceTally>]> {
        // Once for all services: a shard that adopts a plan serves nobody meanwhile.
        let kept: HashMap<_, _> = last
            .iter()
            .map(|tally| (Arc::as_ptr(&tally.counters), tally))
            .collect();
        // Only where a service has changed.
        let had = LazyCell::new(|| {
            let had = last.iter().flat_map(|tally| {
                let counters = tally.counters.endpoints.iter().map(Arc::as_ptr);
                counters.zip(&tally.endpoints)
            });
            had.collect::<Had<'_>>()
        });
        let open = |counters: &Arc<ServiceCounters>| {
            let kept = kept.get(&Arc::as_ptr(counters)).copied();
            kept.cloned().unwrap_or_else(|| {
                let tally = Rc::new(ServiceTally::new(counters, &had));
                self.0.borrow_mut().push(Rc::clone(&tally));
                tally
            })
        };
        counters.services.iter().map(open).collect()
    }

    /// Lays down, and forgets, the tallies that no exchange and no plan uses any more, of which the
    /// newest plan has so many. Not all of them wait for control to ask: where reloads follow each
    /// other there would be ever more.
    pub(super) fn part(&self, services: usize) {
        let mut all = self.0.borrow_mut();
        if services < all.len() {
            all.retain(|tally| {
                let is_used = 1 < Rc::strong_count(tally);
                if !is_used {
                    tally.hand_over();
                }
                is_used
            });
        }
    }

    /// Lays down everything, and forgets the tallies that no exchange and no plan uses any more.
    pub(super) fn hand_over(&self) {
        self.0.borrow_mut().retain(|tally| {
            tally.hand_over();
            1 < Rc::strong_count(tally)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::{Phases, ShardCounters};

    fn endpoints(count: usize) -> Vec<Arc<EndpointCounters>> {
        (0..count).map(|_| Arc::default()).collect()
    }

    fn counters(services: &[&[Arc<EndpointCounters>]]) -> PlanCounters {
        let service = |endpoints: &&[Arc<EndpointCounters>]| {
            Arc::new(ServiceCounters::over((*endpoints).into(), [].into()))
        };
        PlanCounters {
            shard: Arc::<ShardCounters>::default(),
            services: services.iter().map(service).collect(),
            listeners: [].into(),
        }
    }

    fn count(phases: &Phases) -> u64 {
        phases.histogram(Phase::Total).map_or(0, |all| all.len())
    }

    #[test]
    fn a_plan_goes_on_with_the_recorders_of_the_one_before() {
        let tallies = Tallies::default();
        let endpoints = endpoints(3);
        let (stays, changes) = (&endpoints[..1], &endpoints[1..2]);
        let first = counters(&[stays, changes]);
        let last = tallies.open(&first, &[]);
        // The second service has another set of counters now, with one endpoint more.
        let second = PlanCounters {
            shard: Arc::clone(&first.shard),
            services: [
                Arc::clone(&first.services[0]),
                Arc::clone(&counters(&[&endpoints[1..3]]).services[0]),
            ]
            .into(),
            listeners: [].into(),
        };
        let next = tallies.open(&second, &last);
        assert!(Rc::ptr_eq(&last[0], &next[0]));
        for (tally, endpoint) in [(&last[1], 0), (&next[1], 0), (&next[1], 1)] {
            tally.record(Phase::Total, 1_000);
            tally.record_endpoint(endpoint, Phase::Total, 1_000);
        }
        tallies.hand_over();
        let mut services = [Phases::of_service(), Phases::of_service()];
        let mut of_endpoints = [Phases::of_endpoint(), Phases::of_endpoint()];
        first.services[1].handed.gather(&mut services[0]);
        second.services[1].handed.gather(&mut services[1]);
        for (phases, endpoint) in of_endpoints.iter_mut().zip(&endpoints[1..]) {
            endpoint.handed.gather(phases);
        }
        assert_eq!(services.each_ref().map(count), [1, 2]);
        assert_eq!(of_endpoints.each_ref().map(count), [2, 1]);
    }

    #[test]
    fn a_tally_whose_service_is_gone_is_handed_over_once_it_is_idle() {
        let tallies = Tallies::default();
        let counters = counters(&[&endpoints(1), &endpoints(1)]);
        let open = tallies.open(&counters, &[]);
        open[1].record(Phase::Total, 1_000);
        let exchange = Rc::clone(&open[1]);
        drop(open);
        tallies.part(1);
        let used = |place: usize| 1 < Arc::strong_count(&counters.services[place]);
        assert_eq!((used(0), used(1)), (false, true));
        drop(exchange);
        tallies.part(1);
        assert!(used(1), "there are no more than the plan has");
        tallies.part(0);
        assert!(!used(1));
        let mut phases = Phases::of_service();
        counters.services[1].handed.gather(&mut phases);
        assert_eq!(count(&phases), 1);
    }

    #[test]
    fn a_tally_that_nothing_uses_any_more_is_handed_over_and_forgotten() {
        let tallies = Tallies::default();
        let counters = counters(&[&endpoints(1)]);
        let open = tallies.open(&counters, &[]);
        open[0].record(Phase::Total, 1_000);
        drop(open);
        assert_eq!(Arc::strong_count(&counters.services[0]), 2);
        tallies.hand_over();
        assert_eq!(Arc::strong_count(&counters.services[0]), 1);
        let mut phases = Phases::of_service();
        counters.services[0].handed.gather(&mut phases);
        assert_eq!(count(&phases), 1);
    }
}
