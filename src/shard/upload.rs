//! The way up of a request whose body still comes: the client's bytes go to the endpoint, framed.
//!
//! A loop of one read and one write through one buffer. When the way down has ended without the
//! endpoint's whole answer, or the endpoint takes no more, the rest of the body is only read away
//! for a while, so that the close does not reset away what the client was told (RFC 9112 section
//! 9.6). An answer that is whole does not end the way up: the endpoint may still be reading.

use std::mem;

use monoio::io::{AsyncReadRent, AsyncWriteRent};

use super::buffer::{Buffer, LARGE, SMALL};
use super::deadline::Late;
use super::io::{Incoming, Outgoing};
use super::linger::{LINGER, Lingering};
use super::relay::Duplex;
use super::serve::{Exchange, Order};
use crate::fault::Fault;
use crate::fd::Cut;
use crate::http::framing::Passed;

/// The way up of one try.
#[derive(Debug)]
pub(super) struct Up<'a, 'e, R, W> {
    pub(super) exchange: &'a Exchange<'e>,
    pub(super) from: Incoming<'a, R>,
    pub(super) to: Outgoing<'a, W>,
    /// What came from the client.
    pub(super) inbox: &'a mut Buffer,
    pub(super) order: &'a mut Order,
    pub(super) duplex: &'a Duplex,
}

impl<R: AsyncReadRent, W: AsyncWriteRent> Up<'_, '_, R, W> {
    /// Sends what the order holds and then relays the rest of the request's body. Whether all of it
    /// has gone up stands in the duplex, and whether all of it was read in the order.
    pub(super) async fn upload(&mut self) {
        let shard = self.exchange.shard;
        // Its bytes of this request are all in the outbox by now, so it is empty.
        shard
            .stock
            .put(mem::replace(self.inbox, shard.stock.take(LARGE)));
        let outbox = mem::take(&mut self.order.outbox);
        let mut forwarding;
        (forwarding, self.order.outbox) = self.send(outbox).await;
        let mut lingering = Lingering::default();
        while !self.order.body.is_done() {
            let over = self.duplex.over.get();
            let reading_away = over || (self.duplex.ended.get() && !forwarding);
            if self.duplex.lost.get() || (reading_away && lingering.is_over(shard)) {
                return;
            }
            let passed = match self.receive_body(reading_away).await {
                Ok(passed) => passed,
                Err(fault) => {
                    self.give_up(fault);
                    return self.read_away(fault, lingering).await;
                }
            };
            self.inbox.send_first(passed.send);
            if forwarding && !self.duplex.over.get() {
                let inbox = mem::take(self.inbox);
                (forwarding, *self.inbox) = self.send(inbox).await;
            }
            self.inbox.discard_unsent();
            self.inbox.consume(passed.taken - passed.send);
            forwarding = forwarding && self.send_trailers().await;
            shard.give_way().await;
        }
        if forwarding && !self.duplex.over.get() {
            self.duplex.uploaded.set(true);
            self.exchange.timing.request_sent();
        }
    }

    /// Sends the trailers behind a body that is done and has some. False when the endpoint takes no
    /// more.
    async fn send_trailers(&mut self) -> bool {
        let Some(trailers) = self.order.body.take_trailers() else {
            return true;
        };
        let Exchange { shard, service, .. } = self.exchange;
        let mut outbox = shard.stock.take(SMALL);
        trailers.write(outbox.tail(), &service.request_edits, None);
        outbox.send_all();
        let (sent, outbox) = self.send(outbox).await;
        shard.stock.put(outbox);
        sent
    }

    /// Reads once and says how many of the bytes are the body's, and how many go on as they are.
    async fn receive_body(&mut self, reading_away: bool) -> Result<Passed, Fault> {
        let at = self.receive(reading_away).await?;
        let passed = self.order.body.pass(self.inbox.filled());
        let passed = passed.map_err(|error| error.request_fault())?;
        if self.order.body.is_done() {
            self.exchange.timing.request_received(at);
        }
        Ok(passed)
    }

    /// Reads once, and says when there was something.
    async fn receive(&mut self, reading_away: bool) -> Result<u64, Fault> {
        let (idle, late) = if reading_away {
            (LINGER, Late::Linger)
        } else {
            (self.exchange.listener.timeouts.body_idle, Late::RequestBody)
        };
        let timing = self.exchange.timing;
        let listening = timing.listen();
        let (read, back) = self
            .from
            .read_within(mem::take(self.inbox), idle, late)
            .await;
        let wait = timing.done(listening);
        *self.inbox = back;
        let expired = self.from.watch().expired();
        match read {
            Ok(count @ 1..) => {
                self.exchange
                    .shard
                    .counters
                    .bytes_client_in
                    .add(count as u64);
                Ok(wait.end)
            }
            Ok(_) if expired == Some(Late::RequestBody) => Err(Fault::RequestTimeout),
            Ok(_) => Err(Fault::RequestIncomplete),
            Err(_) => Err(Fault::ClientGone),
        }
    }

    /// Sends what `buffer` is set to send to the endpoint. False when it takes no more; a reset may
    /// still be preceded by an answer, so that is for the way down to judge.
    async fn send(&mut self, buffer: Buffer) -> (bool, Buffer) {
        let send_idle = self.exchange.service.timeouts.send_idle;
        let counters = &self.exchange.shard.counters;
        counters.bytes_upstream_out.add(buffer.unsent() as u64);
        let asked = self.exchange.timing.ask();
        let (sent, buffer) = self.to.write(buffer, send_idle, Late::UpstreamSend).await;
        let wait = self.exchange.timing.done(asked);
        if sent.is_ok() {
            self.exchange.timing.request_part_sent(wait);
        }
        if sent.is_err() && self.to.watch().expired() == Some(Late::UpstreamSend) {
            self.duplex.fault.set(Some(Fault::ConnectionWriteTimeout));
        }
        (sent.is_ok(), buffer)
    }

    /// The request can't be sent whole: the way down waits for an answer that will not come.
    fn give_up(&self, fault: Fault) {
        if !self.duplex.over.get() {
            self.duplex.fault.set(Some(fault));
            self.to.cut(Cut::Both);
        }
    }

    /// Reads until the client closes, is late, or has had its time; nothing comes any more when it
    /// was the end of what it sent that is at fault.
    async fn read_away(&mut self, fault: Fault, mut lingering: Lingering) {
        let ended = matches!(
            fault,
            Fault::RequestTimeout | Fault::RequestIncomplete | Fault::ClientGone
        );
        while !ended && !self.duplex.lost.get() && !lingering.is_over(self.exchange.shard) {
            self.inbox.clear();
            if self.receive(true).await.is_err() {
                break;
            }
            self.exchange.shard.give_way().await;
        }
        self.inbox.clear();
    }
}
