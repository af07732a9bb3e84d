//! The request of a fan-out, received whole before anybody gets it: it is sent several times.
//!
//! It is kept as it came, its head rewritten, once for all legs. What bounds it: the listener's
//! `body_bytes_max`, the fan-out's own (413), and what is left of `kept_bytes_max` (503).

use std::mem;
use std::rc::Rc;

use super::super::buffer::{Buffer, MEDIUM, SMALL, TINY};
use super::super::client::Client;
use super::super::deadline::Late;
use super::super::exchange::Exchange;
use super::super::order::Order;
use super::super::relay::CONTINUE;
use super::job::Request;
use super::legs::HeldBytes;
use super::shed;
use crate::fault::Fault;
use crate::http::framing::BodyLength;
use crate::plan::{FanoutRules, Ticks};
use crate::tally::Limit;

/// Receives what is still to come of the request that `order` holds the begin of, before the tick
/// at which the exchange `ends`.
pub(super) async fn receive(
    exchange: &Exchange<'_>,
    (rules, ends): (&FanoutRules, u32),
    client: &mut Client,
    inbox: &mut Buffer,
    order: &mut Order,
) -> Result<Request, Fault> {
    let announced = match exchange.facts.body {
        BodyLength::Length(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
        BodyLength::None | BodyLength::Chunked | BodyLength::UntilClose => 0,
    };
    if rules.body_bytes_max < announced.max(order.body_bytes()) {
        return Err(Fault::RequestBodyTooLarge);
    }
    let here = order.outbox.filled().len();
    let more = announced.saturating_sub(order.body_bytes());
    let mut held = HeldBytes::none(&exchange.running.kept.fanout);
    hold(exchange, rules, &mut held, here + more)?;
    if order.is_at_hand() {
        let bytes = Rc::from(order.outbox.filled());
        return Ok(Request { bytes, _held: held });
    }
    // The one allocation that grows: chunks do not say how many they are.
    let mut bytes = Vec::with_capacity(here + more);
    bytes.extend_from_slice(order.outbox.filled());
    exchange.shard.stock.put(mem::take(&mut order.outbox));
    if order.is_withheld(&exchange.facts) {
        say_continue(exchange, client).await?;
    }
    let stock = &exchange.shard.stock;
    let mut share = client.held.take().unwrap_or_else(|| stock.share());
    let mut body_bytes = order.body_bytes();
    while !order.body.is_done() {
        stock.enlarge(inbox, &mut share, MEDIUM);
        let at = read(exchange, ends, client, inbox).await?;
        let passed = order.body.pass(inbox.filled());
        let passed = passed.map_err(|error| error.request_fault())?;
        body_bytes += passed.taken;
        if rules.body_bytes_max < body_bytes {
            return Err(Fault::RequestBodyTooLarge);
        }
        hold(exchange, rules, &mut held, bytes.len() + passed.send)?;
        bytes.extend_from_slice(&inbox.filled()[..passed.send]);
        inbox.consume(passed.taken);
        if order.body.is_done() {
            exchange.timing.request_received(at);
        }
        exchange.shard.give_way().await;
    }
    client.held = Some(share).filter(|_| SMALL < inbox.capacity());
    if let Some(trailers) = order.body.take_trailers() {
        trailers.write(&mut bytes, &exchange.service.request_edits, None);
        hold(exchange, rules, &mut held, bytes.len())?;
    }
    let bytes = bytes.into();
    Ok(Request { bytes, _held: held })
}

/// Takes `held` to `bytes` at least.
fn hold(
    exchange: &Exchange<'_>,
    rules: &FanoutRules,
    held: &mut HeldBytes,
    bytes: usize,
) -> Result<(), Fault> {
    let most = rules.shard_kept_bytes_max;
    match held.bytes() < bytes && !held.resize(bytes, most) {
        true => Err(shed(exchange, Limit::KeptBytes)),
        false => Ok(()),
    }
}

/// Reads once; says when what came was there.
async fn read(
    exchange: &Exchange<'_>,
    ends: u32,
    client: &mut Client,
    inbox: &mut Buffer,
) -> Result<u64, Fault> {
    let Exchange {
        shard,
        listener,
        timing,
        ..
    } = exchange;
    let listening = timing.listen();
    let mut from = client.stream.incoming();
    // A client that is late with the whole of it is owed an answer, too: it is cut as one that is
    // late with a part.
    let left = ends.saturating_sub(shard.clock.tick());
    if left == 0 {
        return Err(Fault::ExchangeTimeout);
    }
    let idle = Ticks(listener.timeouts.body_idle.0.min(left));
    let (read, back) = from
        .read_within(mem::take(inbox), idle, Late::RequestBody)
        .await;
    *inbox = back;
    let wait = timing.done(listening);
    match read {
        Ok(count @ 1..) => {
            shard.counters.bytes_client_in.add(count as u64);
            Ok(wait.end)
        }
        Ok(_) if from.watch().expired() == Some(Late::RequestBody) => {
            Err(match ends <= shard.clock.tick() {
                true => Fault::ExchangeTimeout,
                false => Fault::RequestTimeout,
            })
        }
        Ok(_) => Err(Fault::RequestIncomplete),
        Err(_) => Err(Fault::ClientGone),
    }
}

/// Tells a client that waits for it to go on (RFC 9110 section 10.1.1): its body is wanted,
/// whatever endpoints will say to it.
async fn say_continue(exchange: &Exchange<'_>, client: &mut Client) -> Result<(), Fault> {
    let Exchange {
        shard,
        listener,
        timing,
        ..
    } = exchange;
    let mut outbox = shard.stock.take(TINY);
    outbox.tail().extend_from_slice(CONTINUE);
    outbox.send_all();
    shard.counters.bytes_client_out.add(outbox.unsent() as u64);
    let asked = timing.ask();
    let send_idle = listener.timeouts.send_idle;
    let mut to = client.stream.outgoing();
    let (sent, outbox) = to.write(outbox, send_idle, Late::ClientSend).await;
    timing.done(asked);
    shard.stock.put(outbox);
    sent.map_err(|_| match client.stream.cut_for() {
        Some(Late::ClientSend) => Fault::ClientSendTimeout,
        _ => Fault::ClientGone,
    })
}
