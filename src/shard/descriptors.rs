//! Which connections are given up when descriptors run out.
//!
//! A descriptor is wanted for a client that waits to be accepted, or for a connection to an
//! endpoint. What nobody uses gives way to it: first upstream connections that are idle, which cost
//! a connect each when they are missed; then clients that are idle, which may be closed at any time
//! (RFC 9112 section 9.5) and have to come back. What is in an exchange is left alone, as is a
//! client that has not said anything yet: its own deadline is short. Only this shard's connections
//! can be given up, though the limit is the process's; a shard that has none rests.

use super::Shard;

/// How many connections of each kind were given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct GivenUp {
    clients: u64,
    upstreams: u64,
}

impl Shard {
    /// Closes up to `count` idle connections, those first that were idle for longest; when it
    /// returns, their descriptors are free. False when there was none.
    pub(super) async fn give_up_idle(&self, count: usize) -> bool {
        self.pipes.give_up();
        let mut upstreams = 0;
        while upstreams < count && self.pool.give_up_oldest() {
            upstreams += 1;
        }
        let clients = self.wheel.give_up_idle(count - upstreams);
        let counters = &self.counters;
        counters.upstreams_idle.sub(upstreams as u64);
        counters.upstreams_given_up.add(upstreams as u64);
        counters.clients_given_up.add(clients as u64);
        if 0 < clients {
            // Their tasks have to notice, and closing takes the ring another turn. The second pause
            // is a whole one.
            self.pause.take().await;
            self.pause.take().await;
        } else if 0 < upstreams && !self.nonblocking {
            // Closing takes the ring a turn.
            self.pause.take().await;
        }
        0 < upstreams + clients
    }

    /// One line a second at most, however many are given up; `told` is what the lines before it
    /// have said.
    pub(super) fn warn_of_given_up(&self, told: &mut GivenUp) {
        let now = GivenUp {
            clients: self.counters.clients_given_up.get(),
            upstreams: self.counters.upstreams_given_up.get(),
        };
        if now != *told {
            let clients = now.clients - told.clients;
            let upstreams = now.upstreams - told.upstreams;
            log::warn!(clients, upstreams; "out of descriptors: idle connections were closed");
            *told = now;
        }
    }
}
