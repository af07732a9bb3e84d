//! A service as one shard runs it: its pickers, and what the shard has seen of its endpoints.
//!
//! What was seen outlives a plan. What belongs to an endpoint goes with its slot, what belongs to
//! the whole service with its name; a service that is the same in two plans is the same object
//! here.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::admit::Limiter;
use super::eject::{Change, Ejection, Ejections};
use super::fanout::Burden;
use super::{Current, Shard};
use crate::balance::{Budget, Load, Picker, Xorshift};
use crate::door::Notice;
use crate::plan::{Endpoint, Service, Slot};
use crate::tally::ServiceCounters;

/// A service under a plan.
#[derive(Debug)]
pub(super) struct RunningService {
    /// A picker for each of the service's tiers.
    pub(super) pickers: Box<[RefCell<Box<dyn Picker>>]>,
    /// In the order of the plan's endpoints.
    pub(super) members: Box<[Rc<Member>]>,
    /// What it has over all plans.
    pub(super) kept: Rc<Kept>,
    /// What it has let in; `None` where it has no limits, which costs its exchanges a branch.
    pub(super) limiter: Option<Rc<Limiter>>,
    /// True from when on a plan with it was adopted.
    is_adopted: Cell<bool>,
}

/// An endpoint, over all plans that have it.
#[derive(Debug)]
pub(super) struct Member {
    /// What runs there.
    pub(super) load: Load,
    /// Whether this shard has ejected it.
    pub(super) ejection: Rc<Ejection>,
}

/// What a shard keeps of a service over all plans.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// What may be sent once more.
    pub(super) budget: RefCell<Budget>,
    /// The endpoints that are out for what this shard has seen of them.
    pub(super) ejections: Ejections,
    /// What its fan-outs take.
    pub(super) fanout: Rc<Burden>,
    /// What it has let in, be it limited or not.
    pub(super) limiter: Rc<Limiter>,
}

/// An exchange at an endpoint, counted there until this is dropped.
#[derive(Debug)]
pub(super) struct Visit(Rc<Member>);

impl Visit {
    /// Begins one.
    pub(super) fn begin(member: &Rc<Member>) -> Self {
        member.load.begin();
        Self(Rc::clone(member))
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.load.end();
    }
}

/// The endpoints of all services, by their slots, each with its tenant.
#[derive(Debug, Default)]
pub(super) struct Members(RefCell<Vec<(u32, Rc<Member>)>>);

impl Members {
    /// Those of `service`, in its order.
    fn of(&self, service: &Service) -> Box<[Rc<Member>]> {
        let mut all = self.0.borrow_mut();
        let endpoints = service.endpoints.iter();
        let member = endpoints.map(|endpoint| {
            let Slot { index, tenant } = endpoint.slot;
            let index = index as usize;
            if all.len() <= index {
                all.resize_with(index + 1, || (0, Member::new()));
            }
            if all[index].0 != tenant {
                all[index] = (tenant, Member::new());
            }
            Rc::clone(&all[index].1)
        });
        member.collect()
    }
}

impl Member {
    /// One that nothing was seen of.
    fn new() -> Rc<Self> {
        Rc::new(Self {
            load: Load::default(),
            ejection: Ejection::new(),
        })
    }
}

impl RunningService {
    /// `service`, which goes on with what was `kept` of it.
    pub(super) fn new(
        service: &Service,
        members: &Members,
        kept: Rc<Kept>,
        generator: &mut Xorshift,
    ) -> Self {
        let pickers = service.tiers.iter();
        let pickers = pickers.map(|tier| tier.picker(service.policy).of_shard(generator));
        let pickers = pickers.map(RefCell::new);
        Self {
            pickers: pickers.collect(),
            members: members.of(service),
            limiter: (!service.limits.is_none()).then(|| Rc::clone(&kept.limiter)),
            kept,
            is_adopted: Cell::new(false),
        }
    }

    /// Goes on under a plan with `service`, from now on.
    fn adopt(&self, shard: &Shard, service: &Service, counters: &ServiceCounters) {
        let members = self.members.iter();
        let ejections = members.map(|member| Rc::clone(&member.ejection));
        let now = shard.clock.tick();
        let told = |ejection: &Ejection, change| {
            shard.tell(service, counters, ejection.place(), change);
        };
        self.kept
            .ejections
            .adopt(now, service, ejections.collect(), told);
        // Some may be in again that nobody could wait for.
        for place in service.tiers.iter().flat_map(|tier| &tier.places) {
            shard.offer(&service.endpoints[*place as usize]);
        }
    }
}

impl Shard {
    /// Gives what is idle or free at `endpoint` to those who wait for it.
    fn offer(&self, endpoint: &Endpoint) {
        let given = self.pool.offer(endpoint);
        self.counters.upstreams_idle.sub(given);
    }

    /// Goes on under the plan of `current`, with the services that are not as they were before.
    pub(super) fn adopt_services(&self, current: &Current) {
        for (index, service) in current.plan().services.iter().enumerate() {
            let running = &current.running[index];
            if !running.is_adopted.replace(true) {
                let counters = &current.tallies[index].counters;
                running.adopt(self, service, counters);
            }
        }
    }

    /// Counts what has become of the endpoint at `place` of the service, of whatever plan that is,
    /// and tells control.
    pub(super) fn tell(
        &self,
        service: &Service,
        counters: &ServiceCounters,
        place: usize,
        change: Change,
    ) {
        let endpoint = &service.endpoints[place];
        let counters = &counters.endpoints[place];
        let slot = endpoint.slot;
        // An endpoint that was away may have other counters since it was ejected.
        counters.ejected.sub(counters.ejected.get());
        match change {
            Change::Ejected(reason, _term) => {
                counters.ejections[reason.index()].add(1);
                counters.ejected.add(1);
                self.notify(Notice::Ejected { slot, reason });
                // Who has waited for it may use others now, a backup perhaps.
                for place in service.tiers.iter().flat_map(|tier| &tier.places) {
                    self.offer(&service.endpoints[*place as usize]);
                }
            }
            Change::Readmitted(_reason) => {
                self.notify(Notice::Readmitted { slot });
                self.offer(endpoint);
            }
        }
    }

    /// Readmits the endpoints whose time is over, and ejects those that have become too slow. To be
    /// called at each tick.
    pub(super) fn pass_ejections(&self) {
        let current = self.current();
        let now = self.clock.tick();
        let services = current.plan().services.iter();
        let all = services.zip(&current.running).zip(&current.tallies);
        for ((service, running), tally) in all {
            let told = |ejection: &Ejection, change| {
                self.tell(service, &tally.counters, ejection.place(), change);
            };
            running.kept.ejections.pass(now, told);
        }
    }
}
