//! One exchange, top to bottom: the hot path on one screen.
//!
//! A request's head is read and understood, an endpoint is reached, the answer is delivered; where
//! that fails, the fault is answered and counted, once. Everything that needs the borrowed head
//! happens in [`order`](super::order), between two waits.
//!
//! In the steady state (a kept-alive client, a pooled connection, no body) an exchange is four
//! socket operations and allocates nothing.

use std::mem;

use super::answer::{Answer, Tells};
use super::buffer::{Buffer, SMALL, TINY};
use super::client::{After, Client};
use super::deadline::Late;
use super::exchange::Exchange;
use super::listeners::Under;
use super::order::{Order, Refusal, head_limits, order};
use super::relay::{self, Delivered};
use super::tallies::ServiceTally;
use super::timing::Timing;
use super::tries::Tries;
use super::tunnel::Tunnel;
use super::upstream::{self, Link};
use super::{Shard, fanout};
use crate::fault::Fault;
use crate::fd;
use crate::http::exchange::{Broken, Reach};
use crate::http::head::HeadScan;
use crate::http::hop::ClientConnection;
use crate::http::reply::Reply;
use crate::plan::Listener;
use crate::tally::ServiceCounters;

/// Serves one request; what is left in `inbox` belongs to the next one.
pub(super) async fn exchange(shard: &Shard, client: &mut Client, inbox: &mut Buffer) -> After {
    let Some(under) = Under::now(shard, client) else {
        return After::Close;
    };
    let timing = Timing::new(&shard.clock, client.begun);
    let head = match receive_head(shard, under.listener(), client, inbox, &timing).await {
        Ok(Some(length)) => length,
        Ok(None) => return After::Close,
        Err(fault) => {
            let refusal = Refusal::of_head(fault, inbox.filled());
            return refuse(&under, shard, client, refusal, &timing).await;
        }
    };
    let (routed, mut order) = match order(shard, &under, client, inbox, head) {
        Ok(ordered) => ordered,
        Err(refusal) => return refuse(&under, shard, client, refusal, &timing).await,
    };
    if inbox.is_empty() {
        shard.stock.put(mem::take(inbox));
        client.held = None;
    }
    if !order.is_at_hand() {
        timing.request_goes_on();
    }
    let exchange = Exchange::new(shard, &under.current, under.terms(), routed, &timing);
    let forwarded = match &exchange.service.fanout {
        None => forward(&exchange, client, inbox, &mut order).await,
        // Rarer, and in a box of its own: it is not part of every exchange.
        Some(rules) => Box::pin(fanout::fan_out(&exchange, rules, client, inbox, &mut order)).await,
    };
    // What may follow is an answer of ringmain's own: no more work of the service.
    drop(order.admission.take());
    shard.stock.put(mem::take(&mut order.outbox));
    match forwarded {
        Ok(after) => after,
        Err(broken) => settle(&exchange, client, &order, broken).await,
    }
}

/// Waits for a whole request head in `inbox` and returns its length; `None` when the client left
/// between two requests.
async fn receive_head(
    shard: &Shard,
    listener: &Listener,
    client: &mut Client,
    inbox: &mut Buffer,
    timing: &Timing<'_>,
) -> Result<Option<usize>, Fault> {
    let limits = head_limits(listener);
    let mut scan = HeadScan::request();
    if inbox.capacity() == 0 {
        let crowded = shard.slots.is_crowded();
        *inbox = shard.stock.take(if crowded { TINY } else { SMALL });
    }
    loop {
        if !inbox.is_empty() {
            let end = scan.find_end(inbox.filled(), &limits);
            if let Some(length) = end.map_err(|error| error.request_fault())? {
                return head_is_here(client, length);
            }
            if client.is_parted() {
                return Ok(None);
            }
            client.head_begun(client.listener().patience(listener.timeouts.head));
        }
        shard.stock.promote(inbox);
        if !inbox.make_room(limits.bytes_max) {
            return Err(Fault::RequestHeadTooLarge);
        }
        let turn = shard.clock.turn();
        // The first bytes are here, for the connection is readable.
        let listening = (!inbox.is_empty()).then(|| timing.listen());
        let (read, back) = client.stream.incoming().read(mem::take(inbox)).await;
        *inbox = back;
        match listening {
            Some(listening) => timing.request_received(timing.done(listening).end),
            None => timing.request_begins(shard.clock.ready_at(turn)),
        }
        match read {
            Ok(0) => return without_head(client, inbox),
            Ok(count) => shard.counters.bytes_client_in.add(count as u64),
            Err(_) if inbox.is_empty() => return Ok(None),
            Err(_) => return Err(Fault::ClientGone),
        }
    }
}

/// A whole head is here; unless its deadline has passed meanwhile: then the connection is cut
/// already, and its request can't be served.
fn head_is_here(client: &mut Client, length: usize) -> Result<Option<usize>, Fault> {
    client.greeted = true;
    client.stream.reading().disarm();
    match client.stream.reading().expired() {
        None => Ok(Some(length)),
        Some(Late::Head) => Err(Fault::RequestTimeout),
        Some(_) => Ok(None),
    }
}

/// What it means that no more bytes come where a head was awaited.
fn without_head(client: &Client, inbox: &Buffer) -> Result<Option<usize>, Fault> {
    match client.stream.reading().expired() {
        // It has not asked for anything, and is not told that it was late with it.
        _ if inbox.is_empty() && client.is_leaving() => Ok(None),
        Some(Late::Head) => Err(Fault::RequestTimeout),
        _ if inbox.is_empty() => Ok(None),
        _ => Err(Fault::RequestIncomplete),
    }
}

/// Reaches an endpoint and delivers its answer; tries again where that is safe.
async fn forward(
    exchange: &Exchange<'_>,
    client: &mut Client,
    inbox: &mut Buffer,
    order: &mut Order,
) -> Result<After, Broken> {
    exchange.begins();
    let _panic = CountsPanic(exchange.counters);
    let mut tries = Tries::new(exchange);
    if exchange.service.fails_open {
        tries.fails_open(exchange);
    }
    loop {
        let mut link = upstream::reach(exchange, client, &mut tries).await?;
        order.outbox.rewind();
        tries.bound(link.stream.reading(), order.is_at_hand());
        // A client's reset while nothing is read from it or written to it would not be noticed.
        client.stream.reading().guard(link.stream.reading());
        let delivered = if order.is_at_hand() {
            relay::one_way(exchange, &mut link, client, order, &tries).await
        } else {
            // Rare, and its state is large: in a box of its own it is not part of every exchange.
            let request = (&mut *inbox, &mut *order);
            let both_ways = relay::both_ways(exchange, &mut link, client, request, &tries);
            Box::pin(both_ways).await
        };
        client.stream.reading().unguard();
        tries.unbound(client.stream.writing());
        exchange.record_try();
        match delivered {
            Ok(Delivered {
                is_dropped: true,
                reusable,
                ..
            }) => {
                exchange.endpoint_failed(None);
                if reusable {
                    tries.unbound(link.stream.reading());
                    upstream::put_back(exchange, link);
                } else {
                    // Nobody is to wait for its seat while this exchange rests.
                    drop(link);
                }
                let backoff = tries.retry(exchange);
                if !backoff.is_zero() {
                    // In a box of its own it is not part of every exchange.
                    Box::pin(upstream::rest(exchange, client, backoff)).await?;
                }
            }
            Ok(delivered) => {
                exchange.endpoint_answered(delivered.status);
                exchange.record_end(true);
                tries.unbound(link.stream.reading());
                return Ok(part(exchange, link, order, delivered));
            }
            Err(broken) if tries.may_replay(exchange, &broken, &link, order.is_kept()) => {}
            Err(broken) => return Err(broken),
        }
    }
}

/// What becomes of both connections when the answer was delivered.
fn part(exchange: &Exchange<'_>, link: Link<'_>, order: &mut Order, delivered: Delivered) -> After {
    if delivered.after == ClientConnection::Tunnel {
        let behind = mem::take(&mut order.outbox);
        let tunnel = Tunnel::new(exchange, link, behind, order.admission.take());
        return After::Tunnel(Box::new(tunnel));
    }
    if delivered.reusable {
        upstream::put_back(exchange, link);
    }
    match delivered.after {
        ClientConnection::KeepAlive => After::KeepAlive,
        ClientConnection::Close | ClientConnection::Tunnel => After::LastAnswer,
    }
}

/// Counts the fault of an exchange that was forwarded, and answers it where that is still possible.
async fn settle(
    exchange: &Exchange<'_>,
    client: &mut Client,
    order: &Order,
    broken: Broken,
) -> After {
    let Broken { fault, reach } = broken;
    if reach != Reach::OwnAnswer {
        exchange.counters.count_fault(fault);
    }
    log::debug!(service = &*exchange.service.name, fault = fault.label(); "exchange failed");
    match reach {
        Reach::Unmarked => {
            // Only the close would end what has gone out: the client must not take it for all (RFC
            // 9112 section 8).
            fd::reset_at_close(client.stream.fd());
            After::Close
        }
        Reach::Part => After::Close,
        Reach::OwnAnswer => {
            exchange.record_end(false);
            After::Close
        }
        // Nobody is left to be told.
        Reach::Nothing | Reach::Begun if fault.is_unanswerable() => After::Close,
        Reach::Nothing | Reach::Begun => {
            exchange.counters.own_answers.add(1);
            let Exchange {
                shard,
                listener,
                tally,
                timing,
                ..
            } = *exchange;
            let answer = Answer {
                tells: Tells::Fault(fault),
                reply: Reply::to(&exchange.facts),
                whole: order.body.is_done(),
                tally: Some(tally),
            };
            let send_idle = listener.timeouts.send_idle;
            answer.send(shard, client, send_idle, timing).await
        }
    }
}

/// Counts and answers a request that is not forwarded.
async fn refuse(
    under: &Under,
    shard: &Shard,
    client: &mut Client,
    refusal: Refusal,
    timing: &Timing<'_>,
) -> After {
    let Refusal {
        fault,
        service,
        reply,
        whole,
    } = refusal;
    let unanswerable = fault.is_some_and(Fault::is_unanswerable);
    let answered = u64::from(!unanswerable);
    shard.counters.exchanges.add(1);
    let tally = service.map(|service| under.current.tally(service));
    match tally {
        Some(ServiceTally { counters, .. }) => {
            counters.exchanges.add(1);
            counters.own_answers.add(answered);
            if let Some(fault) = fault {
                counters.count_fault(fault);
            }
        }
        None => {
            shard.counters.no_service_exchanges.add(1);
            shard.counters.no_service_own_answers.add(answered);
            if let Some(fault) = fault {
                shard.counters.no_service_fault(fault);
            }
        }
    }
    if unanswerable {
        return After::Close;
    }
    if !whole {
        timing.request_goes_on();
    }
    let answer = Answer {
        tells: fault.map_or(Tells::Options, Tells::Fault),
        reply,
        whole,
        tally,
    };
    let send_idle = under.listener().timeouts.send_idle;
    answer.send(shard, client, send_idle, timing).await
}

/// Counts the fault of an exchange that ends in a panic.
pub(super) struct CountsPanic<'a>(pub(super) &'a ServiceCounters);

impl Drop for CountsPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.count_fault(Fault::Internal);
        }
    }
}
