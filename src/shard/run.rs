//! A shard from its thread's start to its end: build the ring, adopt plans, tick, drain.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;

use super::buffer::Stock;
use super::clock::Clock;
use super::deadline::{Late, Wheel};
use super::driver::{AnyRuntime, DriverChoice, DriverKind};
use super::io::{Bell, Caught, Listening, sleep, spawn};
use super::pool::Pool;
use super::slots::Slots;
use super::{Current, Shard, listen};
use crate::balance;
use crate::door::{Notice, Posted, Subscriber};
use crate::fd;
use crate::plan::{Life, TICK, Ticks};

/// What a shard is made of.
#[derive(Debug)]
pub struct Setup {
    /// Its side of the door, where its first plan is already posted.
    pub door: Subscriber,
    /// Its listening sockets, each with its listener's place in the plan.
    pub sockets: Vec<(usize, OwnedFd)>,
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

/// How long a client may be quiet during a drain before it is closed: two seconds, so that no request that is already on
/// its way meets a closed connection.
const QUIET: Ticks = Ticks(20);
/// Once in so many ticks what is slow to change is looked at: idle connections, warnings.
const SECOND: u32 = 10;
/// How many ticks the connections that were cut at the end of the drain have to notice it.
const FAREWELL: u32 = 10;

/// Runs a shard on the calling thread until the drain is over.
///
/// # Errors
/// When it cannot start.
///
/// # Panics
/// When something other than a connection's task panicked. The shard's connections are closed by then; its runtime is
/// forgotten, for one that unwinds may abort.
pub fn run(setup: Setup) -> Result<(), ShardError> {
    let (mut runtime, info) = AnyRuntime::build(setup.driver).map_err(ShardError::Driver)?;
    let Setup {
        mut door, sockets, ..
    } = setup;
    let posted = door.poll().ok_or(ShardError::NoPlan)?;
    let reason = (!info.reason.is_empty()).then_some(info.reason);
    door.notify(Notice::ShardReady {
        driver: info.kind.to_string().into(),
        reason,
    });
    let shard = Rc::new(Shard::new(door, posted, info.kind == DriverKind::Epoll));
    let life = Rc::clone(&shard);
    let ran = catch_unwind(AssertUnwindSafe(|| runtime.block_on(life.live(sockets))));
    ran.unwrap_or_else(|panic| {
        std::mem::forget(runtime);
        shard
            .wheel
            .descriptors()
            .into_iter()
            .for_each(fd::close_orphan);
        resume_unwind(panic)
    })
}

impl Shard {
    fn new(door: Subscriber, posted: Arc<Posted>, nonblocking: bool) -> Self {
        let mut generator = balance::generator();
        let counters = Arc::clone(door.counters());
        let current = Current::new(posted, door.shard(), None, &mut generator);
        Self {
            clock: Clock::start(),
            wheel: Wheel::new(),
            stock: Stock::new(),
            slots: Slots::default(),
            pool: Pool::default(),
            generator: RefCell::new(generator),
            current: RefCell::new(Rc::new(current)),
            door: RefCell::new(door),
            counters,
            clients: Cell::new(0),
            listening: Cell::new(0),
            changed: Bell::default(),
            shedding: Cell::new(false),
            nonblocking,
            not_found: Cell::new(0),
        }
    }

    /// Serves until the drain is over.
    async fn live(self: Rc<Self>, sockets: Vec<(usize, OwnedFd)>) -> Result<(), ShardError> {
        for (listener, socket) in sockets {
            let listening = Listening::new(socket).map_err(ShardError::Listener)?;
            self.listening.set(self.listening.get() + 1);
            let shard = Rc::clone(&self);
            self.start(async move { listen::listen(shard, listener, listening).await });
        }
        self.adopted();
        while Caught(Box::pin(self.tick())).await.is_err() {
            self.panicked();
        }
        self.pool.clear();
        self.slots.clear();
        self.notify(Notice::Drained);
        Ok(())
    }

    /// Starts a task of this shard. A panic in it ends it alone, and is counted.
    pub(super) fn start(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        let shard = Rc::clone(self);
        spawn(task, move || shard.panicked());
    }

    pub(super) fn panicked(&self) {
        self.counters.panics.add(1);
        self.notify(Notice::Panicked);
    }

    /// The tick, until the drain is over.
    async fn tick(self: &Rc<Self>) {
        let mut swept = self.clock.tick();
        let mut ended_at = None;
        loop {
            sleep(TICK).await;
            let now = self.clock.advance();
            self.wheel.advance(now);
            self.wheel.look_for_gone();
            self.look_at_door();
            if SECOND <= now - swept {
                swept = now;
                self.counters.upstreams_idle.sub(self.pool.sweep(now));
                self.warn_of_not_found();
            }
            let life = self.current.borrow().plan().life;
            if life == Life::Ended {
                let since = *ended_at.get_or_insert_with(|| {
                    self.wheel.cut_all();
                    now
                });
                if FAREWELL <= now - since {
                    return;
                }
            }
            if life != Life::Serving && self.clients.get() == 0 && self.listening.get() == 0 {
                return;
            }
        }
    }

    /// Adopts the newest plan if it is not the current one.
    pub(super) fn look_at_door(&self) {
        let Some(posted) = self.door.borrow_mut().poll() else {
            return;
        };
        let shard = self.door.borrow().shard();
        let last = self.current();
        let current = Current::new(posted, shard, Some(&last), &mut self.generator.borrow_mut());
        if current.is_draining() {
            self.wheel.hasten(Late::KeepAlive, QUIET);
        }
        *self.current.borrow_mut() = Rc::new(current);
        self.adopted();
        self.changed.ring();
    }

    fn adopted(&self) {
        let generation = self.current.borrow().plan().generation;
        self.door.borrow_mut().adopt(generation);
    }

    /// One line a second at most, however many unknown hosts are asked for.
    fn warn_of_not_found(&self) {
        let count = self.not_found.take();
        if 0 < count {
            log::warn!(count; "destination_not_found");
        }
    }
}
