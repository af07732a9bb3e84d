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
use crate::plan::{self, Endpoint, Plan, PoolLimits, Service, Ticks};

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
    /// Whose connections these are, by [`plan::Slot::tenant`]; 0 where nobody has the slot.
    tenant: u32,
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
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weeded {
    /// How many were found closed.
    pub(crate) stale: u64,
    /// Those, and whoever had to make room: `stale <= closed`.
    pub(crate) closed: u64,
}

impl Slot {
    fn of(slot: plan::Slot) -> Self {
        Self {
            tenant: slot.tenant,
            place: Place::new(slot, &Rc::default()),
            idle: Vec::new(),
            opening: 0,
            unreachable: false,
        }
    }
}

impl Pool {
    /// What `act` makes of the endpoint with `slot`; `None` where the newest plan does not have it.
    fn slot<T>(&self, slot: plan::Slot, act: impl FnOnce(&mut Slot) -> T) -> Option<T> {
        let found = &mut self.slots.borrow_mut()[slot.index as usize];
        (found.tenant == slot.tenant).then(|| act(found))
    }

    /// Prepares for `plan`. Who waits for an endpoint that stays keeps its turn; the idle
    /// connections of one that is gone are closed. Returns how many these are.
    pub(crate) fn adopt(&self, plan: &Plan) -> u64 {
        let mut slots = self.slots.borrow_mut();
        let mut tenants = vec![0; plan.slots.len().max(slots.len())];
        let endpoints = plan.services.iter().flat_map(|service| &service.endpoints);
        for plan::Slot { index, tenant } in endpoints.map(|endpoint| endpoint.slot) {
            tenants[index as usize] = tenant;
        }
        let mut closed = 0;
        for (index, tenant) in (0..).zip(tenants) {
            match slots.get_mut(index as usize) {
                Some(slot) if slot.tenant == tenant => {}
                Some(slot) => {
                    closed += slot.idle.len() as u64;
                    *slot = Slot::of(plan::Slot { index, tenant });
                }
                None => slots.push(Slot::of(plan::Slot { index, tenant })),
            }
        }
        let mut queues = Vec::with_capacity(plan.services.len());
        for service in &plan.services {
            let places = service.endpoints.iter();
            let places = places.map(|endpoint| &slots[endpoint.slot.index as usize].place);
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
        closed
    }

    /// True exactly when a connection to `endpoint` can be had now: an idle one, or one to be made.
    pub(crate) fn has_room(&self, endpoint: &Endpoint, limit: NonZeroU32) -> bool {
        let has_room = |slot: &mut Slot| !slot.idle.is_empty() || slot.place.has_seat(limit);
        self.slot(endpoint.slot, has_room).unwrap_or(true)
    }

    /// True exactly when `limit` leaves room for one more connection to `endpoint`.
    pub(crate) fn has_seat(&self, endpoint: &Endpoint, limit: NonZeroU32) -> bool {
        let has_seat = |slot: &mut Slot| slot.place.has_seat(limit);
        self.slot(endpoint.slot, has_seat).unwrap_or(true)
    }

    /// How many idle connections `endpoint` lacks of `idle_min`; one at a time while it can't be
    /// connected to.
    pub(crate) fn missing(&self, endpoint: &Endpoint, idle_min: usize) -> usize {
        let missing = self.slot(endpoint.slot, |slot| {
            let missing = idle_min.saturating_sub(slot.idle.len() + slot.opening);
            match (slot.unreachable, slot.opening) {
                (true, 0) => missing.min(1),
                (true, _) => 0,
                (false, _) => missing,
            }
        });
        missing.unwrap_or(0)
    }

    /// One more connection to the endpoint with `slot` is being opened ahead.
    pub(crate) fn opens(&self, slot: plan::Slot) {
        self.slot(slot, |slot| slot.opening += 1);
    }

    /// One that was being opened ahead is there, or could not be made.
    pub(crate) fn opened(&self, slot: plan::Slot, is_open: bool) {
        self.slot(slot, |slot| {
            slot.opening -= 1;
            slot.unreachable = !is_open;
        });
    }

    /// Takes the connection to `endpoint` that was used last. Each is looked at first (a system
    /// call, 3 to 6 % of an exchange): it may have been closed, or have bytes that nobody asked
    /// for, which would be taken for the answer to the next client's request.
    pub(crate) fn take(&self, endpoint: &Endpoint) -> Taken {
        let taken = self.slot(endpoint.slot, |slot| {
            let mut stale = 0;
            while let Some(idle) = slot.idle.pop() {
                if fd::is_quiet(idle.stream.fd()) {
                    let kept = Some((idle.stream, idle.seat));
                    return Taken { kept, stale };
                }
                stale += 1;
            }
            Taken { kept: None, stale }
        });
        taken.unwrap_or(Taken {
            kept: None,
            stale: 0,
        })
    }

    /// Makes room for a new connection to `endpoint` where its idle ones are not to be trusted:
    /// closes those that it has closed, and if that leaves no seat below `limit`, the oldest one.
    pub(crate) fn weed(&self, endpoint: &Endpoint, limit: Option<NonZeroU32>) -> Weeded {
        let weeded = self.slot(endpoint.slot, |Slot { place, idle, .. }| {
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
        });
        weeded.unwrap_or_default()
    }

    /// A seat for a connection to `endpoint` that is about to be made. At one that the newest plan
    /// does not have any more it is nobody else's.
    pub(crate) fn seat(&self, endpoint: &Endpoint) -> Seat {
        let seat = self.slot(endpoint.slot, |slot| Seat::take(&slot.place));
        seat.unwrap_or_else(|| Seat::take(&Place::new(endpoint.slot, &Rc::default())))
    }

    /// Gives what is idle or free at `endpoint` to those who wait for it: it can be used again, or
    /// they may use it now. Returns how many connections are idle no more.
    pub(crate) fn offer(&self, endpoint: &Endpoint) -> u64 {
        let mut given = 0;
        while let Some((stream, seat)) = self.awaited(endpoint) {
            seat.hand_on(stream);
            given += 1;
        }
        let place = self.slot(endpoint.slot, |slot| Rc::clone(&slot.place));
        if let Some(place) = place {
            place.offer();
        }
        given
    }

    /// An idle connection to `endpoint` that somebody waits for.
    fn awaited(&self, endpoint: &Endpoint) -> Option<(Stream, Seat)> {
        let last = self.slot(endpoint.slot, |slot| {
            slot.idle.pop_if(|idle| idle.seat.is_awaited())
        });
        let last = last.flatten()?;
        Some((last.stream, last.seat))
    }

    /// The turn of an exchange that may have to wait; none is 0.
    pub(crate) fn draw_ticket(&self) -> u64 {
        self.tickets.set(self.tickets.get() + 1);
        self.tickets.get()
    }

    /// Where exchanges wait that no endpoint of `service` has room for. `None` where the newest
    /// plan has none of these endpoints: they have no limit then.
    pub(crate) fn queue(&self, service: &Service) -> Option<Rc<Queue>> {
        let mut endpoints = service.endpoints.iter();
        endpoints.find_map(|endpoint| self.slot(endpoint.slot, |slot| slot.place.queue()))
    }

    /// Keeps a connection whose exchange has ended cleanly. Who waits for one gets it. True when
    /// nobody did, and it is idle now; false also where the endpoint has as many as it may, or the
    /// newest plan does not have it any more, and it is closed.
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
        let put = self.slot(endpoint.slot, |Slot { idle, .. }| {
            let has_room = idle.len() < limits.idle_max;
            if has_room {
                idle.push(Idle {
                    stream,
                    seat,
                    since: now,
                    idle: limits.idle,
                });
            }
            has_room
        });
        put.unwrap_or(false)
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

#[cfg(test)]
mod tests;
