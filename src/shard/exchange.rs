//! An exchange, as every step of it sees it: the plan that it began under, its service and its
//! endpoint, and what is noted of both on the way.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::eject::Ejection;
use super::listeners::Terms;
use super::order::Routed;
use super::service::{Kept, Member, RunningService};
use super::tallies::ServiceTally;
use super::timing::Timing;
use super::{Current, SECOND, Shard};
use crate::fault::Fault;
use crate::http::exchange::RequestFacts;
use crate::plan::{Protocol, RetryRules, Service, ServiceIndex, TICK};
use crate::tally::{Phase, ServiceCounters};

/// What every step of an exchange may look at.
#[derive(Debug)]
pub(super) struct Exchange<'a> {
    pub(super) shard: &'a Shard,
    pub(super) current: &'a Current,
    pub(super) listener: &'a Terms,
    pub(super) service: &'a Service,
    /// Its place in the plan.
    pub(super) service_place: ServiceIndex,
    pub(super) running: &'a Rc<RunningService>,
    pub(super) tally: &'a ServiceTally,
    pub(super) counters: &'a ServiceCounters,
    pub(super) timing: &'a Timing<'a>,
    pub(super) facts: RequestFacts,
    /// What a keyed policy tells the request apart by.
    pub(super) key: u64,
    /// The protocols that the request offers to go on in, if any.
    pub(super) offer: Option<Box<[u8]>>,
    /// The endpoint of the running try, by its place in the service.
    pub(super) endpoint: Cell<usize>,
}

impl<'a> Exchange<'a> {
    /// Of a request that came in at `listener` and was `routed`.
    pub(super) fn new(
        shard: &'a Shard,
        current: &'a Current,
        listener: &'a Terms,
        routed: Routed,
        timing: &'a Timing<'a>,
    ) -> Self {
        let tally = current.tally(routed.service);
        Self {
            shard,
            current,
            listener,
            service: current.plan().service(routed.service),
            service_place: routed.service,
            running: current.running(routed.service),
            tally,
            counters: &tally.counters,
            timing,
            facts: routed.facts,
            key: routed.key,
            offer: routed.offer,
            endpoint: Cell::new(0),
        }
    }

    /// True exactly when it is a session of TCP: the one exchange of its client's connection.
    pub(super) fn is_session(&self) -> bool {
        self.listener.running.protocol == Protocol::Tcp
    }

    /// Counts it in, and what it pays for the retries of the service.
    pub(super) fn begins(&self) {
        self.counters.exchanges.add(1);
        self.shard.counters.exchanges.add(1);
        if !self.is_session() {
            self.kept().budget.borrow_mut().request(self.second());
        }
    }

    /// Counts a fault, and the answer of ringmain's own that tells of it.
    pub(super) fn count_own_answer(&self, fault: Fault) {
        self.counters.count_fault(fault);
        self.counters.own_answers.add(1);
        self.shard.counters.own_answers.add(1);
    }

    /// Records what the try that is over has reached, for its endpoint and for the service.
    pub(super) fn record_try(&self) {
        let endpoint = self.endpoint.get();
        self.timing.end_try(|phase, nanoseconds| {
            self.tally.record_both(endpoint, phase, nanoseconds);
            if phase == Phase::UpstreamWait {
                self.endpoint_waited(nanoseconds);
            }
        });
    }

    /// Records the whole of the exchange, whose answer has reached the client: the endpoint's, if
    /// it was `forwarded`, or one of ringmain's own.
    pub(super) fn record_end(&self, forwarded: bool) {
        self.timing.end(|phase, nanoseconds| {
            self.tally.record(phase, nanoseconds);
            if forwarded && phase == Phase::Total {
                self.tally
                    .record_endpoint(self.endpoint.get(), phase, nanoseconds);
            }
        });
    }

    /// What this shard keeps of the service over all plans.
    fn kept(&self) -> &'a Kept {
        &self.running.kept
    }

    /// False where this shard has no endpoint of the service ejected.
    pub(super) fn has_ejected(&self) -> bool {
        self.kept().ejections.has_out()
    }

    /// The endpoint of the running try, over all plans.
    fn member(&self) -> &'a Member {
        &self.running.members[self.endpoint.get()]
    }

    /// The running second, of the shard's ticks.
    fn second(&self) -> u64 {
        u64::from(self.shard.clock.tick() / SECOND)
    }

    /// True when one more retry is within the service's budget; it is counted then, and refused
    /// otherwise.
    pub(super) fn is_within_budget(&self) -> bool {
        let RetryRules {
            budget,
            shard_retries_min,
            ..
        } = self.service.retry;
        let mut spent = self.kept().budget.borrow_mut();
        let is_within = spent.retry(self.second(), budget, shard_retries_min);
        self.counters.retries_refused.add(u64::from(!is_within));
        is_within
    }

    /// True exactly when an answer with `status` is no good answer, and tried again.
    pub(super) fn is_retried(&self, status: u16) -> bool {
        let statuses = &self.service.retry.statuses;
        !statuses.is_empty() && statuses.contains(&status)
    }

    /// Notes that the running try failed, for which the endpoint is to blame: with `fault`, where
    /// that says how long it was waited for.
    pub(super) fn endpoint_failed(&self, fault: Option<Fault>) {
        let Self {
            shard,
            service,
            counters,
            ..
        } = *self;
        counters.endpoints[self.endpoint.get()].faults.add(1);
        let member = self.member();
        let now = shard.clock.turn().began();
        if let Some(waited) = fault.and_then(|fault| self.waited_in_vain(fault)) {
            member.load.observe(waited.as_nanos() as u64, now);
        }
        member.load.penalize(now);
        // Its place in the plan of the exchange, which may not be the newest.
        let place = self.endpoint.get();
        let told = |_: &Ejection, change| shard.tell(service, counters, place, change);
        let ejections = &self.kept().ejections;
        ejections.fault(shard.clock.tick(), &member.ejection, told);
    }

    /// Notes that the endpoint of the running try has answered with `status`.
    pub(super) fn endpoint_answered(&self, status: u16) {
        if self.is_retried(status) {
            self.endpoint_failed(None);
        } else {
            self.member().ejection.good();
        }
    }

    /// Notes that the endpoint of a session took its connection in `nanoseconds`, which is all that
    /// can be seen of it.
    pub(super) fn endpoint_connected(&self, nanoseconds: u64) {
        self.member().ejection.good();
        self.endpoint_waited(nanoseconds);
    }

    /// How long the endpoint of the running try was waited for, when that is what ended it.
    fn waited_in_vain(&self, fault: Fault) -> Option<Duration> {
        let (timeouts, retry) = (&self.service.timeouts, &self.service.retry);
        match fault {
            Fault::ConnectionTimeout => Some(timeouts.connect),
            Fault::ResponseTimeout => Some(TICK * timeouts.response.0),
            Fault::AttemptTimeout => Some(TICK * retry.attempt.0),
            _ => None,
        }
    }

    /// Notes that the endpoint of the running try took `nanoseconds` to begin its answer.
    fn endpoint_waited(&self, nanoseconds: u64) {
        let (shard, member) = (self.shard, self.member());
        if self.service.policy.timed {
            member.load.observe(nanoseconds, shard.clock.turn().began());
        }
        if 0.0 < self.service.eject.latency_factor {
            let ejections = &self.kept().ejections;
            ejections.waited(shard.clock.tick(), &member.ejection, nanoseconds);
        }
    }

    /// Counts an exchange for which endpoints are used that are not in.
    pub(super) fn fails_open(&self) {
        self.counters.failed_open.add(1);
        self.shard.failed_open.borrow_mut().note(&self.service.name);
    }
}
