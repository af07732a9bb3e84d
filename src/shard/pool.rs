//! The upstream connections of one shard: per endpoint, how many there are, and those that are
//! idle, last in first out, capped, aged.
//!
//! The last one in is the one whose endpoint is least likely to have closed it. What lies at the
//! bottom grows old there and is swept away; the sweep also finds the connections that their
//! endpoint has closed, so that none waits half-closed until it is next taken. Connections in use
//! are counted here alone; who waits for one stands in a [`queue`](super::queue).

use std::cell::{Cell, RefCell};
use std::num::NonZeroU32;
use std::rc::Rc;

use super::io::Stream;
use super::queue::{Place, Queue, Seat};
use crate::fd;
use crate::plan::{Endpoint, Plan, PoolLimits, Ticks};

#[derive(Debug)]
struct Idle {
    stream: Stream,
    /// Dropped after its connection.
    seat: Seat,
    /// The tick at which it was put.
    since: u32,
    /// How long it may be idle.
    idle: Ticks,
}

/// One endpoint's connections.
#[derive(Debug)]
struct Slot {
    place: Rc<Place>,
    idle: Vec<Idle>,
    /// Connections that are being opened ahead.
    opening: usize,
    /// True exactly when the last one that was opened ahead could not be.
    unreachable: bool,
}

/// A shard's upstream connections, by the slot of their endpoint.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    slots: RefCell<Vec<Slot>>,
    /// Every queue that somebody may wait in.
    queues: RefCell<Vec<Rc<Queue>>>,
    /// The last ticket that was drawn.
    tickets: Cell<u64>,
}

/// What a look into the pool found.
#[derive(Debug)]
pub(crate) struct Taken {
    /// A connection to use and its seat, if there is one.
    pub(crate) kept: Option<(Stream, Seat)>,
    /// How many were found closed on the way.
    pub(crate) stale: u64,
}

/// What [`Pool::weed`] closed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weeded {
    /// How many were found closed.
    pub(crate) stale: u64,
    /// Those, and whoever had to make room: `stale <= closed`.
    pub(crate) closed: u64,
}

impl Pool {
    /// Prepares for `plan`. Who waits for an endpoint that stays keeps its turn.
    pub(crate) fn adopt(&self, plan: &Plan) {
        let mut slots = self.slots.borrow_mut();
        for slot in slots.len() as u32..plan.slots {
            slots.push(Slot {
                place: Place::new(slot, &Rc::default()),
                idle: Vec::new(),
                opening: 0,
                unreachable: false,
            });
        }
        let mut queues = Vec::with_capacity(plan.services.len());
        for service in &plan.services {
            let places = service.endpoints.iter();
            let places = places.map(|endpoint| &slots[endpoint.slot as usize].place);
            let mut had = places.clone().map(|place| place.queue());
            let queue = had.find(|queue| !queue.is_empty()).unwrap_or_default();
            places.for_each(|place| place.set_queue(&queue));
            queues.push(queue);
        }
        // Also those of an older plan's services whose exchanges still wait.
        let is_new = |old: &Rc<Queue>| !queues.iter().any(|queue| Rc::ptr_eq(queue, old));
        let mut old = self.queues.take();
        old.retain(|old| !old.is_empty() && is_new(old));
        queues.append(&mut old);
        *self.queues.borrow_mut() = queues;
    }

    /// True exactly when a connection to `endpoint` can be had now: an idle one, or one to be made.
    pub(crate) fn has_room(&self, endpoint: &Endpoint, limit: NonZeroU32) -> bool {
        let slots = self.slots.borrow();
        let Slot { place, idle, .. } = &slots[endpoint.slot as usize];
        !idle.is_empty() || place.has_seat(limit)
    }

    /// True exactly when `limit` leaves room for one more connection to `endpoint`.
    pub(crate) fn has_seat(&self, endpoint: &Endpoint, limit: NonZeroU32) -> bool {
        self.slots.borrow()[endpoint.slot as usize]
            .place
            .has_seat(limit)
    }

    /// How many idle connections `endpoint` lacks of `idle_min`; one at a time while it can't be
    /// connected to.
    pub(crate) fn missing(&self, endpoint: &Endpoint, idle_min: usize) -> usize {
        let slots = self.slots.borrow();
        let Slot {
            idle,
            opening,
            unreachable,
            ..
        } = &slots[endpoint.slot as usize];
        let missing = idle_min.saturating_sub(idle.len() + opening);
        match (*unreachable, *opening) {
            (true, 0) => missing.min(1),
            (true, _) => 0,
            (false, _) => missing,
        }
    }

    /// One more connection to the endpoint with `slot` is being opened ahead.
    pub(crate) fn opens(&self, slot: u32) {
        self.slots.borrow_mut()[slot as usize].opening += 1;
    }

    /// One that was being opened ahead is there, or could not be made.
    pub(crate) fn opened(&self, slot: u32, is_open: bool) {
        let slot = &mut self.slots.borrow_mut()[slot as usize];
        slot.opening -= 1;
        slot.unreachable = !is_open;
    }

    /// Takes the connection to `endpoint` that was used last. Each is looked at first (a system
    /// call, 3 to 6 % of an exchange): it may have been closed, or have bytes that nobody asked
    /// for, which would be taken for the answer to the next client's request.
    pub(crate) fn take(&self, endpoint: &Endpoint) -> Taken {
        let mut slots = self.slots.borrow_mut();
        let mut stale = 0;
        while let Some(idle) = slots[endpoint.slot as usize].idle.pop() {
            if fd::is_quiet(idle.stream.fd()) {
                let kept = Some((idle.stream, idle.seat));
                return Taken { kept, stale };
            }
            stale += 1;
        }
        Taken { kept: None, stale }
    }

    /// Makes room for a new connection to `endpoint` where its idle ones are not to be trusted:
    /// closes those that it has closed, and if that leaves no seat below `limit`, the oldest one.
    pub(crate) fn weed(&self, endpoint: &Endpoint, limit: Option<NonZeroU32>) -> Weeded {
        let Slot { place, idle, .. } = &mut self.slots.borrow_mut()[endpoint.slot as usize];
        let before = idle.len();
        idle.retain(|idle| fd::is_quiet(idle.stream.fd()));
        let stale = before - idle.len();
        while limit.is_some_and(|limit| !place.has_seat(limit)) && !idle.is_empty() {
            idle.remove(0);
        }
        Weeded {
            stale: stale as u64,
            closed: (before - idle.len()) as u64,
        }
    }

    /// A seat for a connection to `endpoint` that is about to be made.
    pub(crate) fn seat(&self, endpoint: &Endpoint) -> Seat {
        Seat::take(&self.slots.borrow()[endpoint.slot as usize].place)
    }

    /// Gives what is idle or free at `endpoint` to those who wait for it: it can be used again, or
    /// they may use it now. Returns how many connections are idle no more.
    pub(crate) fn offer(&self, endpoint: &Endpoint) -> u64 {
        let mut given = 0;
        while let Some((stream, seat)) = self.awaited(endpoint) {
            seat.hand_on(stream);
            given += 1;
        }
        let place = Rc::clone(&self.slots.borrow()[endpoint.slot as usize].place);
        place.offer();
        given
    }

    /// An idle connection to `endpoint` that somebody waits for.
    fn awaited(&self, endpoint: &Endpoint) -> Option<(Stream, Seat)> {
        let idle = &mut self.slots.borrow_mut()[endpoint.slot as usize].idle;
        let last = idle.pop_if(|idle| idle.seat.is_awaited())?;
        Some((last.stream, last.seat))
    }

    /// The turn of an exchange that may have to wait; none is 0.
    pub(crate) fn draw_ticket(&self) -> u64 {
        self.tickets.set(self.tickets.get() + 1);
        self.tickets.get()
    }

    /// Where exchanges wait that no endpoint of the service has room for; `endpoint` is any of
    /// them.
    pub(crate) fn queue(&self, endpoint: &Endpoint) -> Rc<Queue> {
        self.slots.borrow()[endpoint.slot as usize].place.queue()
    }

    /// Keeps a connection whose exchange has ended cleanly. Who waits for one gets it. True when
    /// nobody did, and it is idle now; false also where the endpoint has as many as it may, and it
    /// is closed.
    pub(crate) fn put(
        &self,
        endpoint: &Endpoint,
        (stream, seat): (Stream, Seat),
        now: u32,
        limits: PoolLimits,
    ) -> bool {
        if limits.idle_max == 0 {
            return false;
        }
        if seat.is_awaited() {
            seat.hand_on(stream);
            return false;
        }
        let idle = &mut self.slots.borrow_mut()[endpoint.slot as usize].idle;
        if limits.idle_max <= idle.len() {
            return false;
        }
        idle.push(Idle {
            stream,
            seat,
            since: now,
            idle: limits.idle,
        });
        true
    }

    /// Ends the waits that are over at tick `now`, and those of clients that are `gone`, by their
    /// entries in the wheel.
    pub(crate) fn end_waits(&self, now: u32, gone: &[u32]) {
        for queue in &*self.queues.borrow() {
            queue.end_late(now, gone);
        }
    }

    /// Ends every wait: the drain is over.
    pub(crate) fn end_all_waits(&self) {
        self.queues
            .borrow()
            .iter()
            .for_each(|queue| queue.end_all());
    }

    /// Closes what is too old or was closed by its endpoint; called about once a second. Returns
    /// how many are gone.
    pub(crate) fn sweep(&self, now: u32) -> u64 {
        self.queues.borrow().iter().for_each(|queue| queue.sweep());
        let mut gone = 0;
        for Slot { idle, .. } in self.slots.borrow_mut().iter_mut() {
            let before = idle.len();
            idle.retain(|kept| {
                let age = now.saturating_sub(kept.since);
                // The freshest are in use all the time: they are looked at by `take` if need be.
                age < kept.idle.0 && (age < 10 || fd::is_quiet(kept.stream.fd()))
            });
            gone += (before - idle.len()) as u64;
        }
        gone
    }

    /// Closes the connection that was idle for longest, whoever's it is; false when there is none.
    pub(crate) fn give_up_oldest(&self) -> bool {
        let mut slots = self.slots.borrow_mut();
        let oldest = slots
            .iter_mut()
            .map(|slot| &mut slot.idle)
            .filter(|idle| !idle.is_empty())
            .min_by_key(|idle| idle[0].since);
        // The first of each is its oldest.
        oldest.map(|idle| idle.remove(0)).is_some()
    }

    /// Closes all that are idle.
    pub(crate) fn clear(&self) {
        for Slot { idle, .. } in self.slots.borrow_mut().iter_mut() {
            idle.clear();
        }
    }
}
