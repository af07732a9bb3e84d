//! One fan-out: its request, its legs, and the client that waits for them, if it still does.
//!
//! It holds no plan: its legs may sleep for long, and each attempt runs under the newest plan,
//! where it finds the service and the backend by their names.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use super::super::Shard;
use super::super::deadline::Late;
use super::super::listeners::Terms;
use super::attempt;
use super::leg::{Ended, Leg, State, Verdict, verdict};
use super::legs::{HeldBytes, HeldLegs, Sleeper};
use crate::balance;
use crate::fault::Fault;
use crate::http::exchange::RequestFacts;
use crate::plan::{Backend, FanoutRules, Plan, Service, ServiceIndex};
use crate::proxy_protocol::Addresses;

/// A request that is sent to every backend.
#[derive(Debug)]
pub(super) struct Job {
    /// The service's name.
    pub(super) service: Box<str>,
    /// Where it was last found in a plan.
    service_place: Cell<usize>,
    /// The listener that the request came in at, as it was then, be it still there or not.
    pub(super) listener: Terms,
    /// Those that it began under.
    pub(super) rules: FanoutRules,
    pub(super) facts: RequestFacts,
    /// What endpoints are told of the client's connection, where the service says so.
    pub(super) whose: Option<Addresses>,
    /// `None` once no leg needs it any more.
    request: RefCell<Option<Request>>,
    /// In the order of the service's backends.
    pub(super) legs: RefCell<Box<[Leg]>>,
    held: HeldLegs,
    /// When the legs began, in nanoseconds of the shard's clock.
    pub(super) begun: u64,
    /// Legs that have succeeded, and those that have failed.
    ended: Cell<(usize, usize)>,
    verdict: Cell<Verdict>,
    /// True from when nobody wants the legs any more.
    is_over: Cell<bool>,
    /// The client that waits for the verdict.
    waiting: RefCell<Option<Waker>>,
}

/// A request as each attempt sends it: head, body, trailers.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) bytes: Rc<[u8]>,
    /// What it takes of what there is for requests.
    pub(super) _held: HeldBytes,
}

impl Job {
    /// Of `service`, which is at `service_place` of the plan; nothing of it runs yet.
    pub(super) fn new(
        (service, service_place): (&str, usize),
        (listener, facts, whose): (&Terms, RequestFacts, Option<Addresses>),
        rules: &FanoutRules,
        request: Request,
        (legs, held, begun): (Box<[Leg]>, HeldLegs, u64),
    ) -> Rc<Self> {
        Rc::new(Self {
            service: service.into(),
            service_place: Cell::new(service_place),
            listener: listener.clone(),
            rules: *rules,
            facts,
            whose,
            request: RefCell::new(Some(request)),
            legs: RefCell::new(legs),
            held,
            begun,
            ended: Cell::default(),
            verdict: Cell::new(Verdict::Open),
            is_over: Cell::new(false),
            waiting: RefCell::default(),
        })
    }

    /// Starts the first attempt of every leg.
    pub(super) fn start(self: &Rc<Self>, shard: &Shard) {
        let count = self.legs.borrow().len();
        shard.legs.begin(count);
        for leg in 0..count {
            if shard.legs.is_crowded(shard) {
                self.legs.borrow_mut()[leg].state = State::Asleep;
                shard.counters.legs_asleep.add(1);
                let (job, leg) = (Rc::clone(self), leg as u32);
                let at = self.begun;
                shard.legs.is_due(Sleeper { at, job, leg });
            } else {
                attempt::start(shard, self, leg);
            }
        }
    }

    /// What the legs mean for the client.
    pub(super) fn verdict(&self) -> Verdict {
        self.verdict.get()
    }

    /// From now on `waker` is told when the verdict is there.
    pub(super) fn tell(&self, waker: &Waker) {
        self.waiting.borrow_mut().replace(waker.clone());
    }

    /// What is sent; `None` when nobody wants it any more.
    pub(super) fn request(&self) -> Option<Rc<[u8]>> {
        let request = self.request.borrow();
        request.as_ref().map(|request| Rc::clone(&request.bytes))
    }

    /// True exactly when the leg waits for its next attempt.
    pub(super) fn is_asleep(&self, leg: usize) -> bool {
        self.legs.borrow()[leg].state == State::Asleep
    }

    /// A leg that was asleep is started.
    pub(super) fn wakes(&self, leg: usize) {
        self.legs.borrow_mut()[leg].state = State::Running(None);
    }

    /// The service and the backend of `leg` in `plan`, by their places there.
    pub(super) fn find(&self, plan: &Plan, leg: usize) -> Option<(ServiceIndex, usize)> {
        let place = self.service_place.get();
        let is_it = |service: &&Arc<Service>| *service.name == *self.service;
        let service_place = match plan.services.get(place).filter(is_it) {
            Some(_) => place,
            None => plan.services.iter().position(|service| is_it(&service))?,
        };
        self.service_place.set(service_place);
        let backends = &plan.services[service_place].backends;
        let leg = &mut self.legs.borrow_mut()[leg];
        let is_it = |backend: &&Backend| backend.name == leg.backend;
        let place = match backends.get(leg.place).filter(is_it) {
            Some(_) => leg.place,
            None => backends.iter().position(|backend| is_it(&backend))?,
        };
        leg.place = place;
        Some((ServiceIndex(service_place as u32), place))
    }

    /// The attempt of `leg` has the connection with `entry` in the wheel, or has it no more. False
    /// when it is to end at once.
    pub(super) fn runs_on(&self, leg: usize, entry: Option<u32>) -> bool {
        let leg = &mut self.legs.borrow_mut()[leg];
        if let State::Running(connection) = &mut leg.state {
            *connection = entry;
        }
        !self.is_over.get()
    }

    /// True from when nobody wants the legs any more.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.get()
    }

    /// The attempt of `leg` has ended: it sleeps, or is through.
    pub(super) fn attempt_ended(self: &Rc<Self>, shard: &Shard, leg: usize, ended: Ended) {
        let rules = &self.rules;
        let unit = balance::draw_unit(&mut shard.generator.borrow_mut());
        let now = shard.clock.now();
        let next = {
            let leg = &mut self.legs.borrow_mut()[leg];
            let next = leg.attempt_ended(now, ended, rules, rules.jitter.mul_f64(unit));
            match next {
                Some(_) if self.is_over.get() => {
                    leg.give_up(now, Fault::ClientGone);
                    None
                }
                Some(_) if shard.legs.is_closed() => {
                    leg.give_up(now, Fault::DrainTimeout);
                    None
                }
                next => next,
            }
        };
        shard.counters.legs_running.sub(1);
        let Some(at) = next else {
            return self.is_through(shard, leg);
        };
        shard.counters.legs_asleep.add(1);
        let (job, leg) = (Rc::clone(self), leg as u32);
        shard.legs.sleep(Sleeper { at, job, leg });
    }

    /// Nobody wants the legs any more: what runs is cut, what sleeps is given up.
    pub(super) fn end(&self, shard: &Shard) {
        if self.is_over.replace(true) {
            return;
        }
        let count = self.legs.borrow().len();
        let mut asleep = 0;
        for leg in 0..count {
            let state = self.legs.borrow()[leg].state;
            match state {
                State::Running(Some(entry)) => shard.wheel.cut(entry, Late::Gone),
                // It looks before it goes on.
                State::Running(None) | State::Succeeded(_) | State::Failed(_) => {}
                State::Asleep => {
                    self.give_up_sleeper(shard, leg, Fault::ClientGone);
                    asleep += 1;
                }
            }
        }
        self.request.take();
        if 0 < asleep {
            shard.legs.gave_up(asleep);
        }
    }

    /// Gives up a leg that sleeps, if it still does.
    pub(super) fn give_up_sleeper(&self, shard: &Shard, leg: usize, fault: Fault) {
        if self.is_asleep(leg) {
            self.legs.borrow_mut()[leg].give_up(shard.clock.now(), fault);
            shard.counters.legs_asleep.sub(1);
            self.is_through(shard, leg);
        }
    }

    /// Nothing more comes of `leg`. The others are not looked at: where thousands end together,
    /// that would be the square.
    fn is_through(&self, shard: &Shard, leg: usize) {
        self.held.give_back();
        shard.legs.end();
        self.count(shard, leg);
        let (count, has_succeeded) = {
            let legs = self.legs.borrow();
            (legs.len(), legs[leg].has_succeeded())
        };
        let (mut succeeded, mut failed) = self.ended.get();
        match has_succeeded {
            true => succeeded += 1,
            false => failed += 1,
        }
        self.ended.set((succeeded, failed));
        if succeeded + failed == count {
            self.request.take();
        }
        if self.verdict.get() == Verdict::Open {
            let verdict = verdict(self.rules.require, count, (succeeded, failed));
            self.verdict.set(verdict);
            if verdict != Verdict::Open
                && let Some(waker) = self.waiting.take()
            {
                waker.wake();
            }
        }
    }

    /// Counts what came of `leg` for its backend, where the newest plan has it.
    fn count(&self, shard: &Shard, leg: usize) {
        let current = shard.current();
        let Some((service, backend)) = self.find(current.plan(), leg) else {
            return;
        };
        // A plan whose service has no fan-out any more has no counters for it.
        if let Some(counters) = current.tally(service).counters.backends.get(backend) {
            match self.legs.borrow()[leg].has_succeeded() {
                true => counters.succeeded.add(1),
                false => counters.failed.add(1),
            }
        }
    }
}
