//! The way up of a request whose body still comes: the client's bytes go to the endpoint, framed.
//!
//! A loop of one read and one write. What becomes of each part of the body is decided by the joint
//! state of both sides ([`Progress::rest`]). As long as the request can be sent once more it is
//! kept, up to the service's bound, and sent from where it is kept.

use std::mem;

use monoio::io::{AsyncWriteRent, CancelableAsyncReadRent};

use super::buffer::{Buffer, LARGE, SMALL, Share, TINY};
use super::deadline::Late;
use super::exchange::Exchange;
use super::io::{CallOff, Incoming, Outgoing, is_called_off};
use super::linger::{LINGER, Lingering};
use super::order::Order;
use crate::fault::Fault;
use crate::fd::Cut;
use crate::http::exchange::{Progress, Rest};
use crate::http::framing::Passed;
use crate::plan::Ticks;

/// The way up of one try.
#[derive(Debug)]
pub(super) struct Up<'a, 'e, R, W> {
    exchange: &'a Exchange<'e>,
    from: Incoming<'a, R>,
    to: Outgoing<'a, W>,
    /// What came from the client.
    inbox: &'a mut Buffer,
    order: &'a mut Order,
    progress: &'a Progress,
    /// Calls off the read of a client whose request is to be sent once more.
    calling_off: &'a CallOff,
    /// What `inbox` takes of the memory for slow peers.
    share: Share,
    /// True exactly when what comes is no body any more: it is only read away.
    unframed: bool,
}

impl<'a, 'e, R: CancelableAsyncReadRent, W: AsyncWriteRent> Up<'a, 'e, R, W> {
    /// A way from the client to the endpoint.
    pub(super) fn new(
        exchange: &'a Exchange<'e>,
        (from, to): (Incoming<'a, R>, Outgoing<'a, W>),
        (inbox, share): (&'a mut Buffer, Share),
        order: &'a mut Order,
        (progress, calling_off): (&'a Progress, &'a CallOff),
    ) -> Self {
        Self {
            exchange,
            from,
            to,
            inbox,
            order,
            progress,
            calling_off,
            share,
            unframed: false,
        }
    }

    /// What the inbox takes of the memory for slow peers.
    pub(super) fn into_share(self) -> Share {
        self.share
    }

    /// Sends what the order holds and then relays the rest of the request's body. Whether all of it
    /// has gone up stands in the progress, and whether all of it was read in the order.
    pub(super) async fn upload(&mut self) {
        let shard = self.exchange.shard;
        self.send_kept().await;
        if !self.order.is_kept() {
            shard.stock.put(mem::take(&mut self.order.outbox));
        }
        let mut lingering = Lingering::default();
        let crowded = shard.slots.is_crowded();
        while self.unframed || !self.order.body.is_done() {
            // Its bytes of this request are all in the outbox by now, so it is empty.
            let stock = &shard.stock;
            let class = if crowded { TINY } else { SMALL };
            stock.enlarge(self.inbox, &mut self.share, class);
            match self.progress.rest() {
                Rest::Leave | Rest::Keep => return,
                Rest::ReadAway if lingering.is_over(shard) => return,
                rest => {
                    if !self.relay_part(rest).await {
                        return;
                    }
                }
            }
            if self.unframed || !self.order.body.is_done() {
                // What is whole is said to be before the answer to it can come.
                shard.give_way().await;
            }
        }
        if self.progress.rest() == Rest::Forward {
            self.progress.request_sent();
            self.exchange.timing.request_sent();
        }
    }

    /// Reads once and does with it what is to be done by then. False when nothing more comes.
    async fn relay_part(&mut self, rest: Rest) -> bool {
        let (at, received) = self.receive(rest).await;
        let framed = match received {
            Ok(()) if self.unframed => return self.drop_all(),
            // The read was called off.
            Ok(()) if self.inbox.is_empty() => return true,
            Ok(()) => self.frame(at),
            Err(fault) => Err(fault),
        };
        // The other side may have gone on meanwhile.
        let rest = self.progress.rest();
        match (framed, rest) {
            (Ok(passed), Rest::Forward) => self.forward(passed).await,
            // Whether it is the next endpoint's is for the way down to say.
            (Ok(passed), Rest::Keep | Rest::Discard) => self.keep(passed),
            (Ok(passed), _) => self.inbox.consume(passed.taken),
            // It was answered already: how its request ends changes nothing.
            (Err(_), Rest::ReadAway | Rest::Leave) if received.is_err() => return false,
            (Err(_), Rest::ReadAway | Rest::Leave) => return self.drop_all(),
            (Err(fault), _) => {
                self.progress.request_failed(fault);
                // The way down waits for an answer that will not come.
                self.to.cut(Cut::Both);
                return received.is_ok() && self.drop_all();
            }
        }
        true
    }

    /// Reads once, unless that is called off, and says when.
    async fn receive(&mut self, rest: Rest) -> (u64, Result<(), Fault>) {
        let Exchange {
            shard,
            listener,
            service,
            timing,
            ..
        } = self.exchange;
        let body_idle = listener.timeouts.body_idle;
        let (idle, late) = match rest {
            Rest::ReadAway => (LINGER, Late::Linger),
            // Until it is told to go on it is not the client that is awaited.
            _ if self.progress.is_withheld() => {
                let told_after = service.timeouts.until_continued.0;
                let idle = Ticks(body_idle.0.saturating_add(told_after));
                (idle, Late::RequestBody)
            }
            _ => (body_idle, Late::RequestBody),
        };
        let listening = timing.listen();
        let inbox = mem::take(self.inbox);
        let (read, back) = if self.progress.is_kept() {
            self.from.watch().arm(idle, late);
            let read = self.from.read_unless(inbox, self.calling_off).await;
            self.from.watch().disarm();
            read
        } else {
            self.from.read_within(inbox, idle, late).await
        };
        let wait = timing.done(listening);
        *self.inbox = back;
        let expired = self.from.watch().expired();
        let received = match read {
            Ok(count @ 1..) => {
                shard.counters.bytes_client_in.add(count as u64);
                Ok(())
            }
            Err(error) if is_called_off(&error) => Ok(()),
            Ok(_) if expired == Some(Late::RequestBody) => Err(Fault::RequestTimeout),
            Ok(_) => Err(Fault::RequestIncomplete),
            Err(_) => Err(Fault::ClientGone),
        };
        (wait.end, received)
    }

    /// How many of the bytes that were read by `at` are the body's, and how many go on as they are.
    fn frame(&mut self, at: u64) -> Result<Passed, Fault> {
        self.progress.body_comes();
        let passed = self.order.body.pass(self.inbox.filled());
        let passed = passed.map_err(|error| error.request_fault())?;
        if self.order.body.is_done() {
            self.exchange.timing.request_received(at);
        }
        Ok(passed)
    }

    /// Sends what was read of the body, and its trailers behind its end.
    async fn forward(&mut self, passed: Passed) {
        let filled = self.inbox.room() == 0;
        if self.order.keep(&self.inbox.filled()[..passed.send]) {
            self.inbox.consume(passed.taken);
            self.keep_trailers();
            self.send_kept().await;
        } else {
            self.progress.request_not_kept();
            self.inbox.send_first(passed.send);
            let inbox = mem::take(self.inbox);
            *self.inbox = self.send(inbox).await;
            self.inbox.discard_unsent();
            self.inbox.consume(passed.taken - passed.send);
            self.send_trailers().await;
        }
        if filled && !self.order.body.is_done() {
            let stock = &self.exchange.shard.stock;
            stock.enlarge(self.inbox, &mut self.share, LARGE);
        }
    }

    /// Keeps what was read of the body for the next try.
    fn keep(&mut self, passed: Passed) {
        if self.order.keep(&self.inbox.filled()[..passed.send]) {
            self.keep_trailers();
        } else {
            self.progress.request_not_kept();
        }
        self.inbox.consume(passed.taken);
    }

    /// Keeps the trailers of a body that is done and has some. They are bounded by a limit of their
    /// own.
    fn keep_trailers(&mut self) {
        if let Some(trailers) = self.order.body.take_trailers() {
            let edits = &self.exchange.service.request_edits;
            trailers.write(self.order.outbox.tail(), edits, None);
        }
    }

    /// Sends the trailers of a body that is done and has some.
    async fn send_trailers(&mut self) {
        let Some(trailers) = self.order.body.take_trailers() else {
            return;
        };
        let Exchange { shard, service, .. } = self.exchange;
        let mut outbox = shard.stock.take(SMALL);
        trailers.write(outbox.tail(), &service.request_edits, None);
        outbox.send_all();
        let outbox = self.send(outbox).await;
        shard.stock.put(outbox);
    }

    /// Drops what was read, and all that is still to come.
    fn drop_all(&mut self) -> bool {
        self.unframed = true;
        self.inbox.clear();
        true
    }

    async fn send_kept(&mut self) {
        let mut outbox = mem::take(&mut self.order.outbox);
        outbox.send_all();
        self.order.outbox = self.send(outbox).await;
    }

    /// Sends what `buffer` is set to send to the endpoint. When it takes no more, a reset may still
    /// be preceded by an answer, so that is for the way down to judge.
    async fn send(&mut self, buffer: Buffer) -> Buffer {
        let Exchange {
            shard,
            service,
            timing,
            ..
        } = self.exchange;
        let counters = &shard.counters;
        counters.bytes_upstream_out.add(buffer.unsent() as u64);
        let asked = timing.ask();
        let send_idle = service.timeouts.send_idle;
        let (sent, buffer) = self.to.write(buffer, send_idle, Late::UpstreamSend).await;
        let wait = timing.done(asked);
        match sent {
            Ok(()) => timing.request_part_sent(wait),
            Err(_) => self.progress.request_refused(),
        }
        buffer
    }
}
