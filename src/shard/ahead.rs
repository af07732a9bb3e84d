//! Connections that are opened before anybody asks for them: `idle_min` of `[service.pool]`.
//!
//! Once a second, and when a plan is adopted, each endpoint that exchanges may go to gets as many
//! idle connections as it should have, a bounded number at a time. One that can't be connected to
//! is tried once a second, and nobody is blamed: it is exchanges that eject, and probes that find
//! out.

use std::rc::Rc;

use super::Shard;
use super::io::Stream;
use super::queue::Seat;
use crate::plan::{Endpoint, Life, Service, Slot};
use crate::tally::ServiceCounters;

/// Connections that a shard opens at once: what makes a descriptor and a handshake each, and must
/// not crowd out exchanges.
const OPENING_MAX: u32 = 64;

impl Shard {
    /// Opens what is missing.
    pub(super) fn open_ahead(self: &Rc<Self>) {
        let current = self.current();
        if current.plan().life != Life::Serving {
            return;
        }
        for (index, service) in current.plan().services.iter().enumerate() {
            if 0 < service.pool.idle_min {
                for place in service.tiers.iter().flat_map(|tier| &tier.places) {
                    self.open_ahead_to(index, service, *place as usize);
                }
            }
        }
    }

    /// Opens what is missing of the endpoint at `place` of `service`, the one at `index`.
    fn open_ahead_to(self: &Rc<Self>, index: usize, service: &Service, place: usize) {
        let current = self.current();
        let endpoint = &service.endpoints[place];
        let member = &current.running[index].members[place];
        if member.ejection.is_out(self.clock.tick()) {
            return;
        }
        let missing = self.pool.missing(endpoint, service.pool.idle_min);
        for _ in 0..missing {
            let room = service.pool.shard_connections_max;
            let has_seat = room.is_none_or(|limit| self.pool.has_seat(endpoint, limit));
            if OPENING_MAX <= self.opening.get() || !has_seat {
                return;
            }
            let opening = Opening::begin(self, endpoint);
            let (shard, current) = (Rc::clone(self), Rc::clone(&current));
            self.start(async move {
                let service = &current.plan().services[index];
                let counters = &current.tallies[index].counters;
                shard.open(service, place, counters, opening).await;
            });
        }
    }

    async fn open(
        &self,
        service: &Service,
        place: usize,
        counters: &ServiceCounters,
        mut opening: Opening,
    ) {
        let endpoint: &Endpoint = &service.endpoints[place];
        let connected =
            Stream::connect(endpoint.address, service.timeouts.connect, &self.wheel).await;
        opening.has_failed = connected.is_err();
        let (Ok(stream), Some(seat)) = (connected, opening.seat.take()) else {
            return;
        };
        counters.endpoints[place].connects.add(1);
        self.counters.upstreams_opened.add(1);
        let now = self.clock.tick();
        if self.pool.put(endpoint, (stream, seat), now, service.pool) {
            self.counters.upstreams_idle.add(1);
        }
    }
}

/// A connection that is being opened, counted until this is dropped.
#[derive(Debug)]
struct Opening {
    shard: Rc<Shard>,
    /// Of its endpoint.
    slot: Slot,
    /// `None` when the connection is there and has taken it over.
    seat: Option<Seat>,
    has_failed: bool,
}

impl Opening {
    fn begin(shard: &Rc<Shard>, endpoint: &Endpoint) -> Self {
        shard.opening.set(shard.opening.get() + 1);
        shard.pool.opens(endpoint.slot);
        Self {
            shard: Rc::clone(shard),
            slot: endpoint.slot,
            seat: Some(shard.pool.seat(endpoint)),
            has_failed: false,
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.shard.opening.set(self.shard.opening.get() - 1);
        self.shard.pool.opened(self.slot, !self.has_failed);
    }
}
