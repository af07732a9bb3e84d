//! A shard from its thread's start to its end: build the ring, adopt plans, tick, drain.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use super::buffer::Stock;
use super::clock::Clock;
use super::deadline::{Late, Wheel};
use super::descriptors::GivenUp;
use super::driver::{AnyRuntime, DriverChoice, DriverKind};
use super::fanout::Legs;
use super::io::{Bell, Caught, Listening, Pause, sleep, spawn};
use super::pipes::Pipes;
use super::pool::Pool;
use super::service::Members;
use super::slots::Slots;
use super::tallies::Tallies;
use super::{Current, FailedOpen, NotFound, PAUSE, QUIET, SECOND, Shard, listen};
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

/// How many ticks clients have to take the answer that tells them of the end.
const TOLD: u32 = 2;
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
        let had = (&tallies, &members);
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
            listeners: RefCell::default(),
            opened: RefCell::default(),
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
        self.open_listeners().map_err(ShardError::Listener)?;
        self.adopt_services(&self.current(), None);
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

    /// Accepts from every socket that the plan gives this shard and that it does not accept from
    /// yet.
    fn open_listeners(self: &Rc<Self>) -> io::Result<()> {
        for (place, socket) in self.new_sockets() {
            let Some(open) = socket.upgrade() else {
                continue;
            };
            let listening = Listening::new(open.try_clone()?)?;
            self.opened.borrow_mut().push(socket);
            self.listeners.borrow_mut().push(listening.fd());
            let shard = Rc::clone(self);
            self.start(async move { listen::listen(shard, place, listening).await });
        }
        Ok(())
    }

    /// Each with its listener's place.
    fn new_sockets(&self) -> Vec<(usize, std::sync::Weak<OwnedFd>)> {
        let current = self.current();
        let own = self.door.borrow().shard() as u32;
        let opened = self.opened.borrow();
        let listeners = current.plan().listeners.iter().enumerate();
        let sockets = listeners.flat_map(|(place, listener)| {
            let own = listener.sockets.iter().filter(move |it| it.shard == own);
            own.map(move |it| (place, &it.socket))
        });
        let sockets =
            sockets.filter(|(_, socket)| !opened.iter().any(|opened| opened.ptr_eq(socket)));
        sockets
            .map(|(place, socket)| (place, std::sync::Weak::clone(socket)))
            .collect()
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
        self.listeners.take().into_iter().for_each(fd::close_orphan);
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
            self.pass_ejections();
            self.hand_over();
            self.count_time(&mut counted);
            if SECOND <= now - swept {
                swept = now;
                self.counters.upstreams_idle.sub(self.pool.sweep(now));
                self.legs.sweep();
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
                    self.wheel.cut_behind();
                } else if TOLD <= now - since {
                    self.wheel.cut_all();
                }
                if FAREWELL <= now - since {
                    return;
                }
            }
            if life != Life::Serving
                && self.clients.get() == 0
                && self.legs.is_empty()
                && self.listeners.borrow().is_empty()
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
        let had = (&self.tallies, &self.members);
        let generator = &mut self.generator.borrow_mut();
        let current = Current::new(posted, shard, Some(&last), had, generator);
        if current.is_draining() {
            self.wheel.hasten(Late::KeepAlive, QUIET);
            self.wheel.hasten(Late::Head, QUIET);
        }
        let closed = self.pool.adopt(current.plan());
        self.counters.upstreams_idle.sub(closed);
        self.adopt_services(&current, Some(&last));
        *self.current.borrow_mut() = Rc::new(current);
        if let Err(error) = self.open_listeners() {
            log::error!(error:%; "a listening socket cannot be used");
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
mod tests {
    use super::*;
    use crate::door::{Publisher, door};
    use crate::plan::{
        Listener, ListenerId, ListenerLimits, ListenerTimeouts, ListeningSocket, Plan, Protocol,
        Routes, Service, ServiceIndex, Ticks,
    };
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::thread::{self, JoinHandle};

    fn plan(generation: u64, life: Life, socket: &Arc<OwnedFd>, origin: SocketAddr) -> Plan {
        let ticks = Ticks(100);
        let service = Service::over("a", &[origin]);
        let listener = Listener {
            name: "web".into(),
            address: fd::local_address(socket).unwrap(),
            id: ListenerId(1),
            accepting: true,
            sockets: [ListeningSocket {
                shard: 0,
                socket: Arc::downgrade(socket),
            }]
            .into(),
            protocol: Protocol::Http,
            proxy_protocol: false,
            service: Some(ServiceIndex(0)),
            service_parameter: None,
            limits: ListenerLimits {
                shard_connections_max: 10,
                head_bytes_max: 4096,
                trailer_bytes_max: 100,
                fields_max: 50,
                body_bytes_max: 1000,
            },
            timeouts: ListenerTimeouts {
                head: ticks,
                body_idle: ticks,
                keep_alive: ticks,
                send_idle: ticks,
            },
        };
        Plan {
            generation,
            life,
            via: "test".into(),
            shard_connections_max: 10,
            listeners: [Arc::new(listener)].into(),
            services: [Arc::new(service)].into(),
            routes: Arc::new(Routes::default()),
            slots: [1].into(),
        }
    }

    /// Answers `hi` to whatever is asked; ends with the last connection of the test.
    fn origin() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                while matches!(connection.read(&mut [0; 1024]), Ok(1..)) {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
                    connection.write_all(answer).unwrap();
                }
            }
        });
        address
    }

    fn ask(client: &mut TcpStream) -> String {
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
        let mut answer = [0; 1024];
        let length = client.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }

    fn start(
        door: Subscriber,
        driver: DriverChoice,
        dies: bool,
    ) -> JoinHandle<Result<(), ShardError>> {
        let setup = Setup { door, driver };
        thread::spawn(move || {
            run_life(setup, move |shard| async move {
                if dies {
                    let counters = Arc::clone(&shard.counters);
                    let life = Rc::clone(&shard).live();
                    shard.start(async move { life.await.unwrap() });
                    while counters.own_answers.get() + counters.exchanges.get() == 0 {
                        sleep(TICK).await;
                    }
                    std::panic::panic_any("the shard dies");
                }
                shard.live().await
            })
        })
    }

    #[track_caller]
    fn check(driver: DriverChoice) {
        let socket = fd::listen("127.0.0.1:0".parse().unwrap(), 16).unwrap();
        let socket = Arc::new(socket);
        let address = fd::local_address(&socket).unwrap();
        let origin = origin();
        let (mut publisher, mut doors): (Publisher, _) = door(1);
        publisher.publish(plan(1, Life::Serving, &socket, origin));
        let first = start(doors.remove(0), driver, true);
        let mut client = TcpStream::connect(address).unwrap();
        assert!(ask(&mut client).ends_with("hi"));
        assert!(first.join().is_err(), "the shard has died");
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "its client is closed");
        assert_eq!(publisher.shard_counters()[0].exchanges.get(), 1);

        // Who comes in between waits in the queue of the socket, which belongs to boot.
        let mut client = TcpStream::connect(address).unwrap();
        publisher.notices().for_each(drop);
        let second = start(publisher.resubscribe(0), driver, false);
        assert!(ask(&mut client).ends_with("hi"));
        assert_eq!(
            publisher.shard_counters()[0].exchanges.get(),
            2,
            "what was counted stays"
        );
        assert_eq!(
            publisher.shard_counters()[0].clients_open.get(),
            1,
            "gauges do not"
        );
        publisher.publish(plan(2, Life::Draining, &socket, origin));
        drop(client);
        second.join().unwrap().unwrap();
        assert_eq!(publisher.adopted(0), 2);
    }

    #[test]
    fn a_shard_that_dies_takes_no_queued_client_along() {
        check(DriverChoice::Auto);
        check(DriverChoice::Epoll);
    }
}
