//! A session of TCP: a client of a listener that speaks no HTTP is connected to an endpoint of the
//! listener's one service, and from there on is a [`tunnel`](super::tunnel).
//!
//! Until then it is an exchange without a request: the same limits let it in, the same tiers and
//! policies pick for it, it counts at its endpoint and waits for a seat there, and what ends it is
//! a fault. A key is always the client's address. Its tries are those of [`tries`](super::tries)
//! for sessions. A client that can't be served is told by a reset, which it can't take for an end
//! of what an endpoint has said; what it has sent by then stays in its socket.

use super::Shard;
use super::buffer::Buffer;
use super::client::Client;
use super::exchange::Exchange;
use super::listeners::Under;
use super::order::{self, Routed};
use super::serve::CountsPanic;
use super::timing::Timing;
use super::tries::Tries;
use super::tunnel::Tunnel;
use super::upstream;
use crate::balance;
use crate::fault::Fault;
use crate::fd;
use crate::http::exchange::RequestFacts;
use crate::http::framing::BodyLength;

/// What stands where an exchange has what its request says: nothing is ever sent once more.
const FACTS: RequestFacts = RequestFacts {
    minor: 1,
    keep_alive: false,
    head_method: false,
    idempotent: false,
    body: BodyLength::None,
    expects_continue: false,
};

/// Connects a client that was just accepted to an endpoint. `None` where there is none for it: its
/// connection is to be closed, which resets it.
pub(super) async fn open(shard: &Shard, client: &mut Client) -> Option<Box<Tunnel>> {
    client.begun = shard.clock.now();
    let timing = Timing::new(&shard.clock, client.begun);
    let under = Under::now(shard, client)?;
    let current = &*under.current;
    // The service of a listener that leaves may have gone before it.
    let Some(service) = under.listener().service else {
        fd::reset_at_close(client.stream.fd());
        return None;
    };
    let key = match current.plan().service(service).policy.keyed {
        true => balance::hash_key(client.address.as_str().as_bytes()),
        false => 0,
    };
    let routed = Routed {
        service,
        key,
        facts: FACTS,
        offer: None,
    };
    let exchange = Exchange::new(shard, current, under.terms(), routed, &timing);
    exchange.begins();
    let _panic = CountsPanic(exchange.counters);
    let mut admission = match order::admit(shard, current, client, service) {
        Ok(admission) => admission,
        Err(shed) => {
            fail(&exchange, client, shed.limit.fault());
            return None;
        }
    };
    let mut tries = Tries::new(&exchange);
    if exchange.service.fails_open {
        tries.fails_open(&exchange);
    }
    match upstream::reach(&exchange, client, &mut tries).await {
        Ok(link) => {
            let mut tunnel = Tunnel::new(&exchange, link, Buffer::default(), admission.take());
            tunnel.is_session_since(client.begun);
            Some(Box::new(tunnel))
        }
        Err(fault) => {
            drop(admission);
            fail(&exchange, client, fault);
            None
        }
    }
}

/// Counts the fault of a session that does not come about, and has its client reset.
fn fail(exchange: &Exchange<'_>, client: &Client, fault: Fault) {
    exchange.counters.count_fault(fault);
    log::debug!(service = &*exchange.service.name, fault = fault.label(); "session failed");
    fd::reset_at_close(client.stream.fd());
}
