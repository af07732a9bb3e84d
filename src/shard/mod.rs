//! One thread, one core, one ring: everything that a connection needs, and nothing that another
//! thread could wait for.
//!
//! In the order of a connection's life: `run` builds the shard on its thread, `listen` accepts,
//! `proxied` finds out whose connection it is, `client` lives between two requests, `serve` is one
//! exchange top to bottom, `order` understands its head, `admit` lets it in, `exchange` is what
//! every step of it may look at, `upstream` finds a connection to an endpoint, `relay` is one try
//! on it, `upload` and `deliver` its two ways, `tries` knows whether there is another, `fanout`
//! sends a request to every backend, `answer` is ringmain's own, `linger` a close that loses
//! nothing, `tcp` the begin of a session of TCP, `tunnel` what follows that or a 101. Below them
//! the shard's own parts: `choose` and `service`, `eject`, `pool`, `queue`, `descriptors`,
//! `deadline`, `buffer`, `pipes`, `slots`, `clock`, `timing`, `tallies`; at the edge `io` and
//! `driver`, the only modules that know the runtime.

mod admit;
mod ahead;
mod answer;
mod client;
mod deliver;
mod exchange;
mod fanout;
mod linger;
mod listen;
mod order;
mod proxied;
mod relay;
mod run;
mod serve;
mod tcp;
mod tries;
mod tunnel;
mod upload;
mod upstream;

mod buffer;
mod choose;
mod clock;
mod deadline;
mod descriptors;
mod eject;
mod pipes;
mod pool;
mod queue;
mod service;
mod slots;
mod tallies;
mod timing;

mod driver;
mod io;

use std::cell::{Cell, RefCell};
use std::os::fd::{OwnedFd, RawFd};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

pub use driver::{DriverChoice, DriverInfo, DriverKind};
pub use run::{Setup, ShardError, run};

use self::service::{Kept, Members, RunningService};
use crate::balance::Xorshift;
use crate::door::{Notice, Posted, Subscriber};
use crate::plan::{Life, Listener, Plan, Service, ServiceIndex, Ticks};
use crate::tally::ShardCounters;

/// How long a client may be quiet during a drain before it is closed: two seconds.
const QUIET: Ticks = Ticks(20);
/// How long a task pauses at most that gives way.
const PAUSE: Duration = Duration::from_millis(1);
/// Operations in a row that may be ready at once.
const TURNS_MAX: u32 = 64;
/// Ticks in a second.
const SECOND: u32 = 10;

/// What the tasks of one shard share; none of it leaves the thread.
#[derive(Debug)]
struct Shard {
    clock: Rc<clock::Clock>,
    wheel: Rc<deadline::Wheel>,
    stock: buffer::Stock,
    pipes: pipes::Pipes,
    slots: slots::Slots,
    pool: pool::Pool,
    pause: io::Pause,
    generator: RefCell<Xorshift>,
    /// The plan that new exchanges begin under.
    current: RefCell<Rc<Current>>,
    door: RefCell<Subscriber>,
    counters: Arc<ShardCounters>,
    tallies: tallies::Tallies,
    members: Members,
    /// Exchanges that wait before their next try.
    naps: Rc<queue::Queue>,
    /// Legs of fan-outs.
    legs: fanout::Legs,
    /// Itself, for the tasks that it starts.
    this: Weak<Self>,
    /// Connections that are being opened ahead.
    opening: Cell<u32>,
    /// Client connections that are open.
    clients: Cell<u32>,
    /// The descriptors of the sockets that are accepted from.
    listeners: RefCell<Vec<RawFd>>,
    /// Boot's sockets that it accepts from.
    opened: RefCell<Vec<std::sync::Weak<OwnedFd>>>,
    /// Rung when a plan was adopted.
    changed: io::Bell,
    /// Rung at each tick.
    ticked: io::Bell,
    /// True exactly while clients are shed and none has left since: control is told once.
    shedding: Cell<bool>,
    /// True exactly when accepted sockets must not block (epoll).
    nonblocking: bool,
    /// Requests of no service since the last warning about them.
    not_found: RefCell<NotFound>,
    /// Exchanges that used ejected endpoints since the last warning about them.
    failed_open: RefCell<FailedOpen>,
}

/// What the next warning about requests of no service says.
#[derive(Debug, Default)]
struct NotFound {
    count: u64,
    /// The last one's host and path, escaped and cut; the strings keep their room.
    host: String,
    path: String,
}

/// What the next warning about endpoints says that are used though they are not in.
#[derive(Debug, Default)]
struct FailedOpen {
    count: u64,
    /// The last one's service; the string keeps its room.
    service: String,
}

impl FailedOpen {
    fn note(&mut self, service: &str) {
        self.count += 1;
        self.service.clear();
        self.service.push_str(service);
    }
}

impl NotFound {
    /// The most bytes of a host or a path that a warning shows.
    const SHOWN_MAX: usize = 255;

    fn note(&mut self, host: &[u8], path: &[u8]) {
        self.count += 1;
        for (shown, bytes) in [(&mut self.host, host), (&mut self.path, path)] {
            shown.clear();
            shown.extend(bytes.escape_ascii().take(Self::SHOWN_MAX).map(char::from));
        }
    }
}

/// A plan as this shard runs it. An exchange holds the one that it began with.
#[derive(Debug)]
struct Current {
    posted: Arc<Posted>,
    /// By service.
    running: Box<[Rc<RunningService>]>,
    /// By service.
    tallies: Box<[Rc<tallies::ServiceTally>]>,
    /// By service; `None` where it has no limits.
    limiters: Box<[Option<Rc<admit::Limiter>>]>,
    /// By listener: client connections open on it. A client holds its listener's, across plans.
    clients: Box<[Rc<Cell<u32>>]>,
}

impl Current {
    /// Prepares `posted` for this shard; listeners that `last` had keep their clients' count,
    /// services what they have let in, and services and endpoints their recorders and what was seen
    /// of them.
    fn new(
        posted: Arc<Posted>,
        shard: usize,
        last: Option<&Self>,
        (tallies, members): (&tallies::Tallies, &Members),
        generator: &mut Xorshift,
    ) -> Self {
        let running = |(index, service): (usize, &Arc<Service>)| {
            if let Some(running) = last.and_then(|last| last.same(index, service)) {
                return Rc::clone(running);
            }
            let kept = last.and_then(|last| last.kept(index, &service.name));
            let kept = kept.cloned().unwrap_or_default();
            Rc::new(RunningService::new(service, members, kept, generator))
        };
        let services = posted.plan.services.iter();
        let running = services.enumerate().map(running).collect();
        let clients = |listener: &Arc<Listener>| {
            let place = |last: &&Self| {
                last.plan()
                    .listeners
                    .iter()
                    .position(|old| old.address == listener.address)
            };
            let kept =
                last.and_then(|last| place(&last).map(|place| Rc::clone(&last.clients[place])));
            kept.unwrap_or_default()
        };
        let clients = posted.plan.listeners.iter().map(clients).collect();
        let limiters = last.map(|last| (last.plan(), &*last.limiters));
        let limiters = admit::open(&posted.plan, limiters);
        let last = last.map_or(&[][..], |last| &last.tallies);
        let tallies = tallies.open(&posted.counters[shard], last);
        Self {
            posted,
            running,
            tallies,
            limiters,
            clients,
        }
    }

    fn plan(&self) -> &Plan {
        &self.posted.plan
    }

    fn tally(&self, service: ServiceIndex) -> &tallies::ServiceTally {
        &self.tallies[service.0 as usize]
    }

    fn running(&self, service: ServiceIndex) -> &Rc<RunningService> {
        &self.running[service.0 as usize]
    }

    /// The service at `index`, where it is the very same as `service` of a later plan.
    fn same(&self, index: usize, service: &Arc<Service>) -> Option<&Rc<RunningService>> {
        let own = self.plan().services.get(index)?;
        Arc::ptr_eq(own, service).then(|| &self.running[index])
    }

    /// What is kept of the service called `name`, which as a rule is at `index`.
    fn kept(&self, index: usize, name: &str) -> Option<&Rc<Kept>> {
        let services = &self.plan().services;
        let is_it = |service: &Arc<Service>| &*service.name == name;
        let place = match services.get(index) {
            Some(service) if is_it(service) => Some(index),
            _ => services.iter().position(is_it),
        };
        place.map(|place| &self.running[place].kept)
    }

    fn limiter(&self, service: ServiceIndex) -> Option<&Rc<admit::Limiter>> {
        self.limiters[service.0 as usize].as_ref()
    }

    fn is_draining(&self) -> bool {
        self.plan().life != Life::Serving
    }
}

impl Shard {
    /// Itself, for a task.
    fn own(&self) -> Rc<Self> {
        let own = self.this.upgrade();
        own.expect("whoever runs on a shard holds it")
    }

    fn current(&self) -> Rc<Current> {
        Rc::clone(&self.current.borrow())
    }

    /// True from the moment on that this shard has adopted a plan that does not serve any more;
    /// asked when an answer is begun, whatever plan its exchange began under.
    fn is_draining(&self) -> bool {
        self.current.borrow().is_draining()
    }

    /// How long a client may be quiet: `usual`, or while draining no more than two seconds, so that
    /// no request that is already on its way meets a closed connection.
    fn patience(&self, usual: Ticks) -> Ticks {
        if self.is_draining() {
            usual.min(QUIET)
        } else {
            usual
        }
    }

    /// Lets the other tasks and the tick have their turn when so many operations in a row were
    /// ready at once, as on epoll they may be: a peer that is fast enough would keep the shard for
    /// itself. On the ring every operation is a turn of the loop.
    async fn give_way(&self) {
        if TURNS_MAX <= self.wheel.turns().get() {
            self.wheel.turns().set(0);
            // A task that only wakes itself would not let the timers run.
            self.pause.take().await;
        }
    }

    fn notify(&self, notice: Notice) {
        self.door.borrow_mut().notify(notice);
    }
}
