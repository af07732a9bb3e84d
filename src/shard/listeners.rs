//! The listeners as one shard runs them: they outlive plans, and a client holds its own.
//!
//! A plan says for each socket of a listener which shard accepts from it. What that means for the
//! accept loops of this shard is the difference between what it says and what they do:
//!
//! | The newest plan has the socket | its loop |
//! | --- | --- |
//! | with this shard; the listener accepts | is opened, or goes on |
//! | with this shard; the listener does not accept, or nothing serves | empties the queue, ends |
//! | with another shard, or not at all | ends at once: the queue is somebody else's |
//!
//! A listener that does not accept any more is leaving: its clients get one more answer. Once the
//! plan does not have it at all, what is left of it is cut, as at the end of a drain.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::{Arc, Weak};

use super::client::Client;
use super::deadline::Late;
use super::io::Listening;
use super::{Current, QUIET, Shard, listen};
use crate::door::Posted;
use crate::fd;
use crate::plan::{
    Life, Listener, ListenerId, ListenerLimits, ListenerTimeouts, ListeningSocket, Protocol, Ticks,
};
use crate::tally::ListenerCounters;

/// How many ticks clients have to take the answer that tells them of the end.
pub(super) const TOLD: u32 = 2;

/// A listener, over all plans that have it.
#[derive(Debug)]
pub(super) struct RunningListener {
    /// Which it is.
    pub(super) id: ListenerId,
    /// What is spoken: with another protocol it would be another listener.
    pub(super) protocol: Protocol,
    /// As `protocol`.
    pub(super) proxy_protocol: bool,
    /// What is open of it on this shard.
    pub(super) counters: Arc<ListenerCounters>,
    /// Its place in the newest plan; `None` where that does not have it any more.
    place: Cell<Option<usize>>,
    /// True exactly when its clients get one more answer each.
    is_leaving: Cell<bool>,
    /// The tick at which the clients whose endpoint is awaited were told that it is gone.
    told: Cell<Option<u32>>,
    loops: RefCell<Vec<Rc<AcceptLoop>>>,
}

/// One socket that this shard accepts from.
#[derive(Debug)]
pub(super) struct AcceptLoop {
    /// Boot's; the shard has a duplicate.
    socket: Weak<OwnedFd>,
    /// The duplicate.
    fd: RawFd,
    order: Cell<Order>,
}

/// What the newest plan wants of an accept loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// It accepts.
    Accept,
    /// From this tick on it lets in who is queued, for a while, and then ends.
    Empty(u32),
    /// It ends at once: the queue is somebody else's.
    Stop,
}

/// The listeners of a shard.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    /// Those of the newest plan, and those that it has no more and that are not through.
    known: RefCell<BTreeMap<ListenerId, Rc<RunningListener>>>,
    /// True exactly when a socket of the newest plan could not be opened.
    wanting: Cell<bool>,
    /// True exactly when one is known that the newest plan does not have.
    has_gone: Cell<bool>,
}

/// The plan that an exchange begins under, and the place of its client's listener in it: one plan
/// from its begin to its end.
#[derive(Debug)]
pub(super) struct Under {
    pub(super) current: Rc<Current>,
    place: usize,
}

/// What an exchange has to know of the listener that its request came in at.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) running: Rc<RunningListener>,
    /// As the plan says.
    pub(super) limits: ListenerLimits,
    /// As the plan says.
    pub(super) timeouts: ListenerTimeouts,
}

impl Under {
    /// The plan of the moment; `None` where it does not have the listener of `client` any more: it
    /// is being cut.
    pub(super) fn now(shard: &Shard, client: &Client) -> Option<Self> {
        let place = client.listener().place.get()?;
        Some(Self {
            current: shard.current(),
            place,
        })
    }

    pub(super) fn listener(&self) -> &Listener {
        &self.current.plan().listeners[self.place]
    }

    pub(super) fn terms(&self) -> &Terms {
        &self.current.listeners[self.place]
    }
}

impl RunningListener {
    fn new(listener: &Listener, counters: &Arc<ListenerCounters>) -> Rc<Self> {
        Rc::new(Self {
            id: listener.id,
            protocol: listener.protocol,
            proxy_protocol: listener.proxy_protocol,
            counters: Arc::clone(counters),
            place: Cell::new(None),
            is_leaving: Cell::new(false),
            told: Cell::new(None),
            loops: RefCell::default(),
        })
    }

    /// True from the moment on that the shard has adopted a plan in which it does not accept, or
    /// nothing is served any more; asked when an answer is begun, whatever plan its exchange began
    /// under.
    pub(super) fn is_leaving(&self) -> bool {
        self.is_leaving.get()
    }

    /// How long a client may be quiet: `usual`, or, while the listener leaves, no more than two
    /// seconds, so that no request that is already on its way meets a closed connection.
    pub(super) fn patience(&self, usual: Ticks) -> Ticks {
        if self.is_leaving() {
            usual.min(QUIET)
        } else {
            usual
        }
    }

    /// What the newest plan has of it.
    pub(super) fn now<'a>(&self, current: &'a Current) -> Option<&'a Listener> {
        let place = self.place.get()?;
        Some(&current.plan().listeners[place])
    }

    /// One of its accept loops has ended.
    pub(super) fn loop_ended(&self, ended: &Rc<AcceptLoop>) {
        let mut loops = self.loops.borrow_mut();
        loops.retain(|one| !Rc::ptr_eq(one, ended));
        self.counters.sockets_open.sub(1);
    }

    /// True exactly when nothing of it is open any more.
    fn is_through(&self) -> bool {
        self.counters.clients_open.get() == 0 && self.loops.borrow().is_empty()
    }

    /// Tells its accept loops what is wanted of them, of which `own` are the sockets that the plan
    /// gives this shard, and opens those that are missing.
    fn adopt_sockets(
        self: &Rc<Self>,
        shard: &Rc<Shard>,
        own: &[&ListeningSocket],
        order: Order,
    ) -> io::Result<()> {
        for open in &*self.loops.borrow() {
            let is_own = own.iter().any(|own| own.socket.ptr_eq(&open.socket));
            let order = if is_own { order } else { Order::Stop };
            open.order.set(order.after(open.order.get()));
        }
        let is_open = |own: &ListeningSocket| {
            let loops = self.loops.borrow();
            loops.iter().any(|open| open.socket.ptr_eq(&own.socket))
        };
        own.iter()
            .filter(|own| !is_open(own))
            .try_for_each(|own| self.open(shard, &own.socket, order))
    }

    fn open(
        self: &Rc<Self>,
        shard: &Rc<Shard>,
        socket: &Weak<OwnedFd>,
        order: Order,
    ) -> io::Result<()> {
        // Where boot has closed it, every shard that was to empty it has it already.
        let Some(open) = socket.upgrade() else {
            return Ok(());
        };
        let listening = Listening::new(open.try_clone()?)?;
        let own = Rc::new(AcceptLoop {
            socket: Weak::clone(socket),
            fd: listening.fd(),
            order: Cell::new(order),
        });
        self.loops.borrow_mut().push(Rc::clone(&own));
        self.counters.sockets_open.add(1);
        let (task, listener) = (Rc::clone(shard), Rc::clone(self));
        shard.start(async move { listen::listen(task, listener, own, listening).await });
        Ok(())
    }
}

impl AcceptLoop {
    /// What is wanted of it now.
    pub(super) fn order(&self) -> Order {
        self.order.get()
    }
}

impl Order {
    /// It, where `last` was wanted: who has begun to empty a queue does not begin again.
    const fn after(self, last: Self) -> Self {
        match (self, last) {
            (Self::Empty(_), Self::Empty(since)) => Self::Empty(since),
            _ => self,
        }
    }
}

impl Listeners {
    /// Those of `posted`, in the order of its listeners.
    pub(super) fn of(&self, posted: &Posted, shard: usize) -> Box<[Terms]> {
        let mut known = self.known.borrow_mut();
        let listeners = posted.plan.listeners.iter();
        let with_counters = listeners.zip(&posted.counters[shard].listeners);
        let running = with_counters.map(|(listener, counters)| {
            let new = || RunningListener::new(listener, counters);
            let running = known.entry(listener.id).or_insert_with(new);
            Terms {
                running: Rc::clone(running),
                limits: listener.limits,
                timeouts: listener.timeouts,
            }
        });
        running.collect()
    }

    /// True while this shard accepts from any socket.
    pub(super) fn is_accepting(&self) -> bool {
        let known = self.known.borrow();
        known.values().any(|one| !one.loops.borrow().is_empty())
    }

    /// The descriptors that are accepted from; those of a shard that died.
    pub(super) fn descriptors(&self) -> Vec<RawFd> {
        let known = self.known.borrow();
        let loops = known.values().flat_map(|one| one.loops.take());
        loops.map(|one| one.fd).collect()
    }
}

impl Shard {
    /// Goes on with the listeners as the plan of `current` has them.
    ///
    /// # Errors
    /// Why a socket could not be opened; at the next tick it is tried again.
    pub(super) fn adopt_listeners(self: &Rc<Self>) -> Result<(), (ListenerId, io::Error)> {
        let current = self.current();
        let plan = current.plan();
        for listener in self.listeners.known.borrow().values() {
            listener.place.set(None);
        }
        for (place, listener) in current.listeners.iter().enumerate() {
            listener.running.place.set(Some(place));
        }
        // In their order.
        let mut leaving = Vec::new();
        for listener in self.listeners.known.borrow().values() {
            let accepts = listener.now(&current).is_some_and(|now| now.accepting);
            let leaves = plan.life != Life::Serving || !accepts;
            if leaves && !listener.is_leaving.replace(leaves) {
                leaving.push(listener.id);
            }
            listener.is_leaving.set(leaves);
        }
        if !leaving.is_empty() {
            self.wheel.hasten(&leaving, Late::KeepAlive, QUIET);
            self.wheel.hasten(&leaving, Late::Head, QUIET);
        }
        self.open_sockets()
    }

    /// Has the accept loops of this shard do what the plan says.
    fn open_sockets(self: &Rc<Self>) -> Result<(), (ListenerId, io::Error)> {
        let current = self.current();
        let own = self.door.borrow().shard() as u32;
        let known: Vec<_> = self.listeners.known.borrow().values().cloned().collect();
        let mut opened = Ok(());
        for listener in &known {
            let order = match listener.is_leaving() {
                true => Order::Empty(self.clock.tick()),
                false => Order::Accept,
            };
            let sockets = listener.now(&current).map(|now| &*now.sockets);
            let sockets = sockets.unwrap_or_default().iter();
            let sockets: Vec<_> = sockets.filter(|socket| socket.shard == own).collect();
            if let Err(error) = listener.adopt_sockets(self, &sockets, order) {
                opened = Err((listener.id, error));
            }
        }
        let has_gone = known.iter().any(|one| one.place.get().is_none());
        self.listeners.has_gone.set(has_gone);
        self.listeners.wanting.set(opened.is_err());
        opened
    }

    /// Opens what could not be opened before, and cuts what is left of listeners that are gone. To
    /// be called at each tick.
    pub(super) fn look_at_listeners(self: &Rc<Self>, now: u32) {
        if self.listeners.wanting.get() {
            // Told of when it was tried first.
            let _opened = self.open_sockets();
        }
        if !self.listeners.has_gone.get() {
            return;
        }
        let known = &self.listeners.known;
        known
            .borrow_mut()
            .retain(|_, one| one.place.get().is_some() || !one.is_through());
        let is_gone = |one: &&Rc<RunningListener>| one.place.get().is_none();
        let gone: Vec<_> = known
            .borrow()
            .values()
            .filter(is_gone)
            .map(Rc::clone)
            .collect();
        self.listeners.has_gone.set(!gone.is_empty());
        for listener in gone {
            match listener.told.get() {
                None => {
                    self.wheel.cut_behind(Some(listener.id));
                    listener.told.set(Some(now));
                }
                Some(told) if TOLD <= now - told => self.wheel.cut_all(Some(listener.id)),
                Some(_) => {}
            }
        }
    }

    /// Closes the duplicates of a shard that died.
    pub(super) fn close_listening_orphans(&self) {
        self.listeners
            .descriptors()
            .into_iter()
            .for_each(fd::close_orphan);
    }
}
