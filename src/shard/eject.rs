//! Which endpoints this shard has ejected, and why: what it sees of their exchanges, counted.
//!
//! An endpoint is ejected for `consecutive_faults` faults in a row, or because its recent waits are
//! `latency_factor` times those of the service's other endpoints. It comes back when its time is
//! over, or at once when control has found that it has recovered.
//!
//! ```text
//!   in --- so many faults in a row, or too slow, and ratio_max not reached --> out until a tick
//!   out --- the tick has come, or the plan says that it has recovered --> in
//! ```
//!
//! Ejections are in a row when an endpoint is ejected again before it has been in for as long as
//! its last ejection was meant to last: then the next one is meant to last twice as long, up to
//! [`LONGEST`]. Otherwise it begins anew with `duration`. An ejection that a recovery has ended
//! counts like one that has lasted: probes may succeed where exchanges do not.
//!
//! Who does what when, on a shard with thousands of endpoints: an answer or a wait is a compare or
//! two, a fault a few more; whether an endpoint is out is one compare, which time alone makes false
//! again. A tick is two compares for each service. When an ejection is over it looks at those that
//! are out, and once a second at those that were slow since the last look, at no other. A new plan
//! looks at all endpoints of the services that it changes. Nothing allocates but the making, a
//! plan, and an ejection when so many were never out before.
//!
//! Pure: ticks are arguments. Whoever ejects or readmits tells the caller, for each endpoint
//! [`Change::Ejected`] and [`Change::Readmitted`] in turn. One that leaves the service while it is
//! out is not told of any more.

mod slow;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use slow::Slowness;

use crate::balance::Window;
use crate::plan::{EjectRules, Service, Standing, Ticks};
use crate::tally::EjectReason;

/// The longest that ejections in a row become: five minutes. A longer `duration` does not grow.
const LONGEST: Ticks = Ticks(5 * 60 * 10);
/// The ticks from one look at those that were slow to the next: a second.
const JUDGED_EVERY: u32 = 10;

/// What one shard has seen of one endpoint lately, and whether it is out for that.
#[derive(Debug)]
pub(crate) struct Ejection {
    role: Cell<Role>,
    /// The endpoint's place in its service, as of the newest plan that has it.
    place: Cell<u32>,
    /// As of the newest plan that has it.
    recoveries: Cell<u32>,
    /// Upstream faults since the last good answer.
    faults: Cell<u32>,
    /// It is out exactly before this tick.
    until: Cell<u32>,
    /// The ticks that its last ejection was meant to last; 0 before the first.
    lasted: Cell<u32>,
    /// `Some` exactly while it stands in [`Ejections::out`].
    listed: Cell<Option<EjectReason>>,
    /// True exactly while it is a suspect of its service's [`Slowness`].
    is_suspect: Cell<bool>,
    /// Its waits; `None` where nobody judges them.
    waits: RefCell<Option<Box<Window>>>,
}

/// What the newest plan says of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// The service does not have it, or no plan was adopted yet.
    Gone,
    /// It may be picked.
    In,
    /// Most shards have ejected it, and so it is out everywhere.
    Ejected,
    /// It is out for other reasons; whether it is ejected too makes no difference.
    Out,
}

/// The endpoints of a service, as far as this shard ejects them; kept from plan to plan.
#[derive(Debug, Default)]
pub(crate) struct Ejections {
    rules: Cell<Option<EjectRules>>,
    /// In the order of the newest plan.
    members: RefCell<Vec<Rc<Ejection>>>,
    /// Those that are out, and those whose time was over after the last pass.
    out: RefCell<Vec<Rc<Ejection>>>,
    /// The tick at which the time of one of them is over, or an earlier one.
    next: Cell<u32>,
    /// The tick at which suspects were judged last.
    judged: Cell<u32>,
    /// How many endpoints may be ejected at once, by this shard or by the plan.
    out_max: Cell<u32>,
    /// How many the plan has ejected.
    out_by_plan: Cell<u32>,
    /// How many of `out` the plan has in.
    out_here: Cell<u32>,
    /// `None` where `latency_factor` is 0.
    slowness: RefCell<Option<Slowness>>,
}

/// What has become of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is out, for the reason and for so long.
    Ejected(EjectReason, Ticks),
    /// It is in again, after it was out for the reason.
    Readmitted(EjectReason),
}

impl Ejection {
    /// Of an endpoint that nothing is known of.
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            role: Cell::new(Role::Gone),
            place: Cell::new(0),
            recoveries: Cell::new(0),
            faults: Cell::new(0),
            until: Cell::new(0),
            lasted: Cell::new(0),
            listed: Cell::new(None),
            is_suspect: Cell::new(false),
            waits: RefCell::new(None),
        })
    }

    /// True exactly when the shard has it ejected at tick `now`.
    #[inline]
    pub(crate) fn is_out(&self, now: u32) -> bool {
        now < self.until.get()
    }

    /// The endpoint's place in its service, in the newest plan that has it.
    pub(crate) fn place(&self) -> usize {
        self.place.get() as usize
    }

    /// It has answered: its faults are not in a row.
    #[inline]
    pub(crate) fn good(&self) {
        self.faults.set(0);
    }

    /// How long an ejection at `now` lasts.
    fn term(&self, now: u32, first: Ticks) -> Ticks {
        let Self { until, lasted, .. } = self;
        if until.get().saturating_add(lasted.get()) <= now {
            return first;
        }
        let doubled = Ticks(lasted.get().saturating_mul(2));
        doubled.min(LONGEST).max(first)
    }
}

impl Ejections {
    /// Goes on under a plan with `service`, whose endpoints have these states in their order, at
    /// tick `now`. Needed for a service that is new or not as it was; exchanges that began under an
    /// earlier plan may go on with what they have.
    pub(crate) fn adopt(
        &self,
        now: u32,
        service: &Service,
        members: Vec<Rc<Ejection>>,
        told: impl FnMut(&Ejection, Change),
    ) {
        let judged = 0.0 < service.eject.latency_factor;
        let roles: Vec<_> = members.iter().map(|ejection| ejection.role.get()).collect();
        let last = self.members.replace(members);
        last.iter()
            .for_each(|ejection| ejection.role.set(Role::Gone));
        let members = self.members.borrow();
        let mut eligible = 0_u32;
        let mut out_by_plan = 0;
        let endpoints = roles.into_iter().zip(&service.endpoints);
        for (place, (ejection, (last_role, endpoint))) in (0..).zip(members.iter().zip(endpoints)) {
            let role = Role::of(endpoint.standing);
            ejection.role.set(role);
            ejection.place.set(place);
            eligible += u32::from(role != Role::Out);
            out_by_plan += u32::from(role == Role::Ejected);
            if ejection.recoveries.replace(endpoint.recoveries) < endpoint.recoveries {
                ejection.faults.set(0);
                ejection.until.set(ejection.until.get().min(now));
            }
            if last_role == Role::Ejected && !ejection.is_out(now) {
                // Whatever its time was, it comes back now.
                ejection.until.set(now);
            }
            let mut waits = ejection.waits.borrow_mut();
            if judged != waits.is_some() {
                *waits = judged.then(Box::default);
                ejection.is_suspect.set(false);
            }
        }
        // A share like 0.29 of 100 may come out a little under the whole number.
        let out_max = (service.eject.ratio_max * f64::from(eligible) + 1e-9).floor();
        self.out_max.set(out_max as u32);
        self.out_by_plan.set(out_by_plan);
        self.rules.set(Some(service.eject));
        *self.slowness.borrow_mut() = match self.slowness.take() {
            _ if !judged => None,
            slowness => Some(slowness.unwrap_or_default().over(members.len())),
        };
        self.release(now, told);
    }

    /// False where no endpoint is out, so that none need be asked: they lie apart in memory.
    pub(crate) fn has_out(&self) -> bool {
        !self.out.borrow().is_empty()
    }

    /// An exchange has failed at tick `now`, and the endpoint is to blame. The last of so many in a
    /// row ejects it.
    pub(crate) fn fault(
        &self,
        now: u32,
        ejection: &Rc<Ejection>,
        told: impl FnMut(&Ejection, Change),
    ) {
        let most = self.rules.get().map_or(0, |rules| rules.consecutive_faults);
        if most == 0 || ejection.is_out(now) {
            return;
        }
        let faults = ejection.faults.get().saturating_add(1);
        ejection.faults.set(faults);
        // More than `most`: ratio_max was reached.
        if most <= faults {
            self.eject(now, ejection, EjectReason::Faults, told);
        }
    }

    /// An exchange has waited for `ejection` to answer, up to tick `now`.
    #[inline]
    pub(crate) fn waited(&self, now: u32, ejection: &Rc<Ejection>, nanoseconds: u64) {
        self.slowness(|slowness| slowness.waited(now, ejection, nanoseconds));
    }

    /// Tells of those whose time is over, and once a second ejects those that have become too slow.
    /// To be called at each tick.
    pub(crate) fn pass(&self, now: u32, mut told: impl FnMut(&Ejection, Change)) {
        if self.next.get() <= now && !self.out.borrow().is_empty() {
            self.release(now, &mut told);
        }
        if now < self.judged.get().saturating_add(JUDGED_EVERY) {
            return;
        }
        self.judged.set(now);
        let factor = self.rules.get().map_or(0.0, |rules| rules.latency_factor);
        let suspects = self.slowness(|slowness| slowness.turn(now, factor));
        for _ in 0..suspects.unwrap_or(0) {
            let slow = self.slowness(|slowness| slowness.judge(now, factor));
            if let Some(slow) = slow.flatten() {
                self.eject(now, &slow, EjectReason::Latency, &mut told);
            }
        }
    }

    /// Does something with the waits, where they are judged.
    #[inline]
    fn slowness<T>(&self, act: impl FnOnce(&mut Slowness) -> T) -> Option<T> {
        self.slowness.borrow_mut().as_mut().map(act)
    }

    /// Takes those that are not out any more, or not in the service, off the list.
    fn release(&self, now: u32, mut told: impl FnMut(&Ejection, Change)) {
        let mut out_here = 0;
        let mut next = u32::MAX;
        self.out.borrow_mut().retain(|ejection| {
            let role = ejection.role.get();
            if role != Role::Gone && ejection.is_out(now) {
                out_here += u32::from(role == Role::In);
                next = next.min(ejection.until.get());
                return true;
            }
            if let Some(reason) = ejection.listed.take()
                && role != Role::Gone
            {
                told(ejection, Change::Readmitted(reason));
            }
            false
        });
        self.out_here.set(out_here);
        self.next.set(next);
    }

    /// Ejects, unless the plan has the endpoint out anyway or too many are out.
    fn eject(
        &self,
        now: u32,
        ejection: &Rc<Ejection>,
        reason: EjectReason,
        mut told: impl FnMut(&Ejection, Change),
    ) {
        let Some(rules) = self.rules.get() else {
            return;
        };
        if ejection.role.get() != Role::In || ejection.is_out(now) {
            return;
        }
        match ejection.listed.get() {
            // Its time was over after the last pass.
            Some(reason) => told(ejection, Change::Readmitted(reason)),
            None => {
                let out = self.out_by_plan.get() + self.out_here.get();
                if self.out_max.get() <= out {
                    return;
                }
                self.out_here.set(self.out_here.get() + 1);
                self.out.borrow_mut().push(Rc::clone(ejection));
            }
        }
        let term = ejection.term(now, rules.duration);
        ejection.listed.set(Some(reason));
        ejection.faults.set(0);
        ejection.lasted.set(term.0);
        // One more than asked for: the running tick is already partly over.
        let until = now.saturating_add(term.0 + 1);
        ejection.until.set(until);
        self.next.set(self.next.get().min(until));
        self.slowness(|slowness| slowness.forget(ejection));
        told(ejection, Change::Ejected(reason, term));
    }
}

impl Role {
    const fn of(standing: Standing) -> Self {
        match standing {
            Standing::Ejected => Self::Ejected,
            _ if standing.is_in() => Self::In,
            _ => Self::Out,
        }
    }
}

#[cfg(test)]
mod tests;
