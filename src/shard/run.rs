//! A shard from its thread's start to its end: build the ring, adopt plans, tick, drain.

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use super::buffer::Stock;
use super::clock::Clock;
use super::deadline::Wheel;
use super::descriptors::GivenUp;
use super::driver::{AnyRuntime, DriverChoice, DriverKind};
use super::fanout::Legs;
use super::io::{Bell, Caught, Pause, sleep, spawn};
use super::listeners::{Listeners, TOLD};
use super::pipes::Pipes;
use super::pool::Pool;
use super::service::Members;
use super::slots::Slots;
use super::tallies::Tallies;
use super::{Current, FailedOpen, NotFound, PAUSE, SECOND, Shard};
use crate::balance;
use crate::door::{Notice, Posted, Subscriber};
use crate::fd::{self, Cut};
use crate::plan::{Life, TICK};

/// What a shard is made of.
#[derive(Debug)]
pub struct Setup {
    /// Its side of the door, where its first plan is already posted.
    pub door: Subscriber,
    /// What it may run on.
    pub driver: DriverChoice,
}

/// Why a shard did not start.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// Neither the ring nor epoll; or not the one that was asked for.
    #[error("no driver: {0}")]
    Driver(#[source] io::Error),
    /// A listening socket could not be registered.
    #[error("a listening socket cannot be used: {0}")]
    Listener(#[source] io::Error),
    /// There was no plan behind the door.
    #[error("no plan was posted")]
    NoPlan,
}

/// How many ticks the connections that were cut at the end of the drain have to notice it.
const FAREWELL: u32 = 10;

/// Runs a shard on the calling thread until the drain is over.
///
/// # Errors
/// When it cannot start.
///
/// # Panics
/// When something other than a connection's task panicked. The shard's connections are closed by
/// then; its runtime is forgotten, for one that unwinds may abort.
pub fn run(setup: Setup) -> Result<(), ShardError> {
    run_life(setup, Shard::live)
}

/// As [`run`], with the shard's main task as an argument: a test gives one that panics.
fn run_life<L>(setup: Setup, life: impl FnOnce(Rc<Shard>) -> L) -> Result<(), ShardError>
where
    L: Future<Output = Result<(), ShardError>>,
{
    let (mut runtime, info) = AnyRuntime::build(setup.driver).map_err(ShardError::Driver)?;
    let Setup { mut door, .. } = setup;
    let posted = door.poll().ok_or(ShardError::NoPlan)?;
    let reason = (!info.reason.is_empty()).then_some(info.reason);
    door.notify(Notice::ShardReady {
        driver: info.kind.to_string().into(),
        reason,
    });
    let is_epoll = info.kind == DriverKind::Epoll;
    let shard = Rc::new_cyclic(|this| Shard::new(this, door, posted, is_epoll));
    let life = life(Rc::clone(&shard));
    let ran = catch_unwind(AssertUnwindSafe(|| runtime.block_on(life)));
    ran.unwrap_or_else(|panic| {
        std::mem::forget(runtime);
        shard.close_orphans();
        resume_unwind(panic)
    })
}

impl Shard {
    fn new(this: &Weak<Self>, door: Subscriber, posted: Arc<Posted>, nonblocking: bool) -> Self {
        let mut generator = balance::generator();
        let counters = Arc::clone(door.counters());
        let tallies = Tallies::default();
        let members = Members::default();
        let listeners = Listeners::default();
        let had = (&tallies, &members, &listeners);
        let current = Current::new(posted, door.shard(), None, had, &mut generator);
        let pool = Pool::default();
        pool.adopt(current.plan());
        Self {
            clock: Rc::new(Clock::start()),
            wheel: Wheel::new(),
            stock: Stock::new(),
            pipes: Pipes::new(),
            slots: Slots::default(),
            pool,
            pause: Pause::default(),
            generator: RefCell::new(generator),
            current: RefCell::new(Rc::new(current)),
            door: RefCell::new(door),
            counters,
            tallies,
            members,
            naps: Rc::default(),
            legs: Legs::default(),
            this: Weak::clone(this),
            opening: Cell::new(0),
            clients: Cell::new(0),
            listeners,
            changed: Bell::default(),
            ticked: Bell::default(),
            shedding: Cell::new(false),
            nonblocking,
            not_found: RefCell::default(),
            failed_open: RefCell::default(),
        }
    }

    /// Serves until the drain is over.
    async fn live(self: Rc<Self>) -> Result<(), ShardError> {
        let clock = Rc::clone(&self.clock);
        self.start(async move { clock.keep().await });
        let shard = Rc::clone(&self);
        self.start(async move { shard.pause.time(PAUSE).await });
        let shard = Rc::clone(&self);
        self.start(async move {
            while Caught(Box::pin(shard.legs.alarm(&shard))).await.is_err() {
                shard.panicked();
            }
        });
        let opened = self.adopt_listeners();
        opened.map_err(|(_listener, error)| ShardError::Listener(error))?;
        self.adopt_services(&self.current());
        self.open_ahead();
        self.adopted();
        while Caught(Box::pin(self.tick())).await.is_err() {
            self.panicked();
        }
        self.pool.clear();
        self.slots.clear();
        self.clock.dismiss_keeper();
        self.pause.dismiss();
        self.ticked.clear();
        self.legs.dismiss();
        self.tallies.hand_over();
        self.notify(Notice::Drained);
        Ok(())
    }

    /// Closes what a shard that died leaves open: its connections, so that their peers learn of it,
    /// and its duplicates of the listening sockets, whose queues wait for the next one.
    fn close_orphans(&self) {
        for connection in self.wheel.descriptors() {
            // The forgotten ring still holds what is pending on it, which a close alone would not
            // end.
            fd::cut(connection, Cut::Both);
            fd::close_orphan(connection);
        }
        self.close_listening_orphans();
    }

    /// Starts a task of this shard. A panic in it ends it alone, and is counted.
    pub(super) fn start(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        let shard = Rc::clone(self);
        spawn(&self.clock, task, move || shard.panicked());
    }

    pub(super) fn panicked(&self) {
        self.counters.panics.add(1);
        self.notify(Notice::Panicked);
    }

    /// The tick, until the drain is over.
    async fn tick(self: &Rc<Self>) {
        let mut swept = self.clock.tick();
        let mut counted = (Duration::ZERO, Duration::ZERO);
        let mut ended_at = None;
        let mut given_up = GivenUp::default();
        loop {
            sleep(TICK).await;
            let now = self.clock.advance();
            self.wheel.advance(now);
            self.ticked.ring();
            let gone = self.wheel.look_for_gone();
            if 0 < self.counters.exchanges_waiting.get() {
                self.pool.end_waits(now, &gone);
            }
            if !self.naps.is_empty() {
                self.naps.end_late(now, &gone);
            }
            self.legs.look(self.clock.now());
            self.look_at_door();
            self.look_at_listeners(now);
            self.pass_ejections();
            self.hand_over();
            self.count_time(&mut counted);
            if SECOND <= now - swept {
                swept = now;
                self.counters.upstreams_idle.sub(self.pool.sweep(now));
                self.legs.sweep();
                self.tallies
                    .part(self.current.borrow().plan().services.len());
                self.open_ahead();
                self.warn_of_not_found();
                self.warn_of_failed_open();
                self.warn_of_given_up(&mut given_up);
            }
            let life = self.current.borrow().plan().life;
            if life == Life::Ended {
                self.pool.end_all_waits();
                self.naps.end_all();
                self.legs.close(self);
                let since = *ended_at.get_or_insert(now);
                if since == now {
                    self.wheel.cut_behind(None);
                } else if TOLD <= now - since {
                    self.wheel.cut_all(None);
                }
                if FAREWELL <= now - since {
                    return;
                }
            }
            if life != Life::Serving
                && self.clients.get() == 0
                && self.legs.is_empty()
                && !self.listeners.is_accepting()
            {
                return;
            }
        }
    }

    /// Adopts the newest plan if it is not the current one.
    pub(super) fn look_at_door(self: &Rc<Self>) {
        let Some(posted) = self.door.borrow_mut().poll() else {
            return;
        };
        let shard = self.door.borrow().shard();
        let last = self.current();
        let had = (&self.tallies, &self.members, &self.listeners);
        let generator = &mut self.generator.borrow_mut();
        let current = Current::new(posted, shard, Some(&last), had, generator);
        let closed = self.pool.adopt(current.plan());
        self.counters.upstreams_idle.sub(closed);
        self.adopt_services(&current);
        *self.current.borrow_mut() = Rc::new(current);
        self.legs.adopt(self);
        if let Err((listener, error)) = self.adopt_listeners() {
            // At the next tick it is tried again.
            let errno = error.raw_os_error().unwrap_or(0);
            self.counters.accept_failures.add(1);
            self.notify(Notice::AcceptFailed { listener, errno });
        }
        self.adopted();
        self.open_ahead();
        self.changed.ring();
    }

    /// Lays down what was recorded, if control asks for it.
    fn hand_over(&self) {
        let mut door = self.door.borrow_mut();
        if let Some(asked) = door.asked_for_recorders() {
            self.tallies.hand_over();
            door.answer(asked);
        }
    }

    /// Counts how long this thread has lived and how much of that it was busy, beyond what was
    /// `counted` of both.
    fn count_time(&self, counted: &mut (Duration, Duration)) {
        let (lived, busy) = (Duration::from_nanos(self.clock.now()), fd::thread_busy());
        let microseconds = |more: Duration| more.as_micros() as u64;
        let counters = &self.counters;
        counters
            .lived_microseconds
            .add(microseconds(lived - counted.0));
        counters
            .busy_microseconds
            .add(microseconds(busy.saturating_sub(counted.1)));
        *counted = (lived, busy);
    }

    fn adopted(&self) {
        let generation = self.current.borrow().plan().generation;
        self.door.borrow_mut().adopt(generation);
    }

    /// One line a second at most, however many exchanges there are.
    fn warn_of_failed_open(&self) {
        let mut failed_open = self.failed_open.borrow_mut();
        let count = std::mem::take(&mut failed_open.count);
        if 0 < count {
            let FailedOpen { service, .. } = &*failed_open;
            log::warn!(count, service; "endpoints are used that are not in: none is");
        }
    }

    /// One line a second at most, however many unknown hosts are asked for.
    fn warn_of_not_found(&self) {
        let mut not_found = self.not_found.borrow_mut();
        let count = std::mem::take(&mut not_found.count);
        if 0 < count {
            let NotFound { host, path, .. } = &*not_found;
            log::warn!(count, host, path; "destination_not_found");
        }
    }
}

#[cfg(test)]
mod tests;
