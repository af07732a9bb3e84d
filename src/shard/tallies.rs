//! What this shard records: a recorder for each service and each endpoint of its plans.
//!
//! A plan's services share their recorders with the plan before where they share their counters, so
//! that an exchange which ends under an old plan is recorded with all others. The shard lays down
//! what was recorded where control picks it up: when it is asked to, and at its end.

use std::cell::RefCell;
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
}

impl ServiceTally {
    /// Of `counters`, whose endpoints keep the recorders that they have in `last`.
    fn new(counters: &Arc<ServiceCounters>, last: &[Rc<Self>]) -> Self {
        let had = last.iter().flat_map(|tally| {
            let counters = tally.counters.endpoints.iter().map(Arc::as_ptr);
            counters.zip(&tally.endpoints)
        });
        let had: HashMap<_, _> = had.collect();
        let recorder = |endpoint: &Arc<EndpointCounters>| match had.get(&Arc::as_ptr(endpoint)) {
            Some(recorder) => Rc::clone(recorder),
            None => Rc::new(RefCell::new(Recorder::of_endpoint())),
        };
        Self {
            counters: Arc::clone(counters),
            recorder: RefCell::new(Recorder::of_service()),
            endpoints: counters.endpoints.iter().map(recorder).collect(),
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
        self.endpoints[endpoint]
            .borrow_mut()
            .record(phase, nanoseconds);
    }

    /// Lays down what was recorded.
    fn hand_over(&self) {
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
        let open = |counters: &Arc<ServiceCounters>| {
            let had = last
                .iter()
                .find(|tally| Arc::ptr_eq(&tally.counters, counters));
            had.cloned().unwrap_or_else(|| {
                let tally = Rc::new(ServiceTally::new(counters, last));
                self.0.borrow_mut().push(Rc::clone(&tally));
                tally
            })
        };
        counters.services.iter().map(open).collect()
    }

    /// Lays down everything, and forgets the tallies that no exchange and no plan uses any more.
    pub(super) fn hand_over(&self) {
        self.0.borrow_mut().retain(|tally| {
            tally.hand_over();
            1 < Rc::strong_count(tally)
        });
    }
}
