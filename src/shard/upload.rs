//! The way up of a request whose body still comes: the client's bytes go to the endpoint, framed.
//!
//! A loop of one read and one write through one buffer. When the way down has ended without the
//! endpoint's whole answer, or the endpoint takes no more, the rest of the body is only read away
//! for a while, so that the close does not reset away what the client was told (RFC 9112 section
//! 9.6). An answer that is whole does not end the way up: the endpoint may still be reading.

use std::mem;

use monoio::io::{AsyncReadRent, AsyncWriteRent};

use super::buffer::{Buffer, LARGE};
use super::deadline::Late;
use super::io::{Incoming, Outgoing};
use super::relay::Duplex;
use super::serve::{Exchange, LINGER, Lingering, Order};
use crate::fault::Fault;
use crate::fd::Cut;

/// Sends what the order holds and then relays the rest of the request's body. Whether all of it
/// has gone up stands in `duplex`, and whether all of it was read in `order`.
pub(super) async fn upload<R: AsyncReadRent, W: AsyncWriteRent>(
    exchange: &Exchange<'_>,
    from: &mut Incoming<'_, R>,
    to: &mut Outgoing<'_, W>,
    inbox: &mut Buffer,
    order: &mut Order,
    duplex: &Duplex,
) {
    let shard = exchange.shard;
    // Its bytes of this request are all in the outbox by now, so it is empty.
    shard
        .stock
        .put(mem::replace(inbox, shard.stock.take(LARGE)));
    let (mut forwarding, back) = send_up(exchange, to, mem::take(&mut order.outbox), duplex).await;
    order.outbox = back;
    let mut turns = 0;
    let mut lingering = Lingering::default();
    while !order.body.is_done() {
        let reading_away = duplex.over.get() || (duplex.ended.get() && !forwarding);
        if reading_away && lingering.is_over(shard) {
            return;
        }
        let read = receive(exchange, from, inbox, reading_away).await;
        let framed = read.and_then(|()| {
            let passed = order.body.pass(inbox.filled());
            passed.map_err(|error| error.request_fault())
        });
        match framed {
            Ok(passed) => inbox.send_first(passed.taken),
            Err(fault) if is_gone(fault) => return give_up(fault, to, duplex),
            Err(fault) => {
                give_up(fault, to, duplex);
                return read_away(exchange, from, inbox, lingering).await;
            }
        }
        if forwarding && !duplex.over.get() {
            (forwarding, *inbox) = send_up(exchange, to, mem::take(inbox), duplex).await;
        }
        inbox.discard_unsent();
        shard.give_way(&mut turns).await;
    }
    duplex.uploaded.set(forwarding && !duplex.over.get());
}

/// True for the faults after which nothing more comes from the client.
const fn is_gone(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::RequestTimeout | Fault::RequestIncomplete | Fault::ClientGone
    )
}

/// The request can't be sent whole: the way down waits for an answer that will not come.
fn give_up<W: AsyncWriteRent>(fault: Fault, to: &Outgoing<'_, W>, duplex: &Duplex) {
    if !duplex.over.get() {
        duplex.fault.set(Some(fault));
        to.cut(Cut::Both);
    }
}

/// Sends what `buffer` is set to send to the endpoint. False when it takes no more; a reset may
/// still be preceded by an answer, so that is for the way down to judge.
async fn send_up<W: AsyncWriteRent>(
    exchange: &Exchange<'_>,
    to: &mut Outgoing<'_, W>,
    buffer: Buffer,
    duplex: &Duplex,
) -> (bool, Buffer) {
    let send_idle = exchange.service.timeouts.send_idle;
    exchange
        .shard
        .counters
        .bytes_upstream_out
        .add(buffer.unsent() as u64);
    let (sent, buffer) = to.write(buffer, send_idle, Late::UpstreamSend).await;
    if sent.is_err() && to.watch().expired() == Some(Late::UpstreamSend) {
        duplex.fault.set(Some(Fault::ConnectionWriteTimeout));
    }
    (sent.is_ok(), buffer)
}

/// Reads once.
async fn receive<R: AsyncReadRent>(
    exchange: &Exchange<'_>,
    from: &mut Incoming<'_, R>,
    inbox: &mut Buffer,
    reading_away: bool,
) -> Result<(), Fault> {
    let (idle, late) = if reading_away {
        (LINGER, Late::Linger)
    } else {
        (exchange.listener.timeouts.body_idle, Late::RequestBody)
    };
    let (read, back) = from.read_within(mem::take(inbox), idle, late).await;
    *inbox = back;
    match read {
        Ok(count @ 1..) => {
            exchange.shard.counters.bytes_client_in.add(count as u64);
            Ok(())
        }
        Ok(_) if from.watch().expired() == Some(Late::RequestBody) => Err(Fault::RequestTimeout),
        Ok(_) => Err(Fault::RequestIncomplete),
        Err(_) => Err(Fault::ClientGone),
    }
}

/// Reads until the client closes, is late, or has had its time.
async fn read_away<R: AsyncReadRent>(
    exchange: &Exchange<'_>,
    from: &mut Incoming<'_, R>,
    inbox: &mut Buffer,
    mut lingering: Lingering,
) {
    while !lingering.is_over(exchange.shard) {
        inbox.clear();
        if receive(exchange, from, inbox, true).await.is_err() {
            break;
        }
    }
    inbox.clear();
}
