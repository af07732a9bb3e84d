//! The way down: an endpoint's answer goes to the client, head and body.
//!
//! A loop of one read and one write through one buffer, so that a client that reads slowly holds
//! its endpoint back and memory is bounded. The head and what is already here of the body leave in
//! one write.

use std::io;
use std::mem;

use monoio::io::{AsyncReadRent, AsyncWriteRent};

use super::buffer::{Buffer, LARGE, MEDIUM, Share, TINY};
use super::deadline::Late;
use super::exchange::Exchange;
use super::io::{Incoming, Outgoing};
use super::relay::Delivered;
use super::tries::Tries;
use crate::fault::Fault;
use crate::http::exchange::{Progress, relays_interim, unchunk};
use crate::http::framing::{Body, BodyLength, BodyLimits};
use crate::http::head::{FieldSpace, HeadScan, Response};
use crate::http::hop::{ClientConnection, ResponseHop, write_response};
use crate::http::reply::{Reply, write_reply};

/// Interim responses of one exchange; an endpoint that sends more means harm.
pub(super) const INTERIMS_MAX: usize = 16;

/// A response head that was understood and stands rewritten in the outbox.
#[derive(Debug)]
struct Answer {
    status: u16,
    interim: bool,
    keep_alive: bool,
    length: BodyLength,
    body: Body,
    unchunk: bool,
    connection: ClientConnection,
}

/// The way down of one try, with its buffers.
#[derive(Debug)]
pub(super) struct Down<'a, 'e, R, W> {
    exchange: &'a Exchange<'e>,
    from: Incoming<'a, R>,
    to: Outgoing<'a, W>,
    progress: &'a Progress,
    tries: &'a Tries,
    /// What came from the endpoint.
    inbox: Buffer,
    /// What `inbox` takes of the memory for slow peers.
    share: Share,
    /// The rewritten head, and what fits behind it; taken when there is a head.
    outbox: Buffer,
    /// True exactly when the last read filled its buffer.
    filled: bool,
}

impl<'a, 'e, R: AsyncReadRent, W: AsyncWriteRent> Down<'a, 'e, R, W> {
    /// A way from the endpoint to the client.
    pub(super) fn new(
        exchange: &'a Exchange<'e>,
        (from, to): (Incoming<'a, R>, Outgoing<'a, W>),
        progress: &'a Progress,
        tries: &'a Tries,
    ) -> Self {
        let shard = exchange.shard;
        let crowded = shard.slots.is_crowded();
        let inbox = shard.stock.take(if crowded { TINY } else { MEDIUM });
        Self {
            exchange,
            from,
            to,
            progress,
            tries,
            inbox,
            share: exchange.shard.stock.share(),
            outbox: Buffer::default(),
            filled: false,
        }
    }

    /// Delivers the endpoint's answer to the client: interim ones, the head, the body. How far it
    /// came stands in the progress.
    pub(super) async fn deliver(&mut self) -> Result<Delivered, Fault> {
        let mut answer = self.receive_answer().await?;
        let mut interims = 0;
        while answer.interim {
            interims += 1;
            if INTERIMS_MAX < interims {
                return Err(Fault::ResponseInvalid);
            }
            self.send_head().await?;
            self.exchange.timing.was_interim(!self.inbox.is_empty());
            answer = self.receive_answer().await?;
        }
        self.from.watch().disarm();
        if self.is_retried(answer.status) {
            return Ok(self.dropped(answer));
        }
        self.tries.head_came(self.from.watch(), self.to.watch());
        self.progress.answer_begins();
        let first = self.take(&mut answer)?;
        self.progress.answer_goes_out(answer.length, answer.unchunk);
        // Before the first byte goes out, so that a client that has its answer finds it counted.
        let Exchange {
            counters, endpoint, ..
        } = self.exchange;
        counters.count_forwarded(endpoint.get(), answer.status);
        self.relay(&mut answer, first).await?;
        Ok(answer.delivered(self.inbox.is_empty()))
    }

    /// True when an answer with `status` is to be dropped for another try: the whole request was
    /// sent and is kept, nothing of an answer has gone out, and the budget allows it.
    fn is_retried(&self, status: u16) -> bool {
        let Self {
            exchange,
            progress,
            tries,
            ..
        } = self;
        let is_safe = progress.is_sent() && progress.is_kept() && !progress.is_begun();
        is_safe && tries.would_retry(exchange, status) && exchange.is_within_budget()
    }

    /// What an answer leaves that is dropped; its connection is of use when all of it is here.
    fn dropped(&mut self, mut answer: Answer) -> Delivered {
        let taken = self.take(&mut answer);
        let is_whole = taken.is_ok_and(|here| {
            self.inbox.consume(here.send + here.skip);
            answer.body.is_done()
        });
        Delivered {
            is_dropped: true,
            ..answer.delivered(is_whole && self.inbox.is_empty())
        }
    }

    /// Waits for a whole response head and rewrites it into the outbox.
    async fn receive_answer(&mut self) -> Result<Answer, Fault> {
        let limits = self.exchange.service.response_head;
        let mut scan = HeadScan::response();
        loop {
            if !self.inbox.is_empty() {
                let end = scan.find_end(self.inbox.filled(), &limits);
                if let Some(length) = end.map_err(|error| error.response_fault())? {
                    return self.understand(length);
                }
            }
            // A head that fills the buffer of a crowd goes on in a larger one.
            self.exchange.shard.stock.promote(&mut self.inbox);
            if !self.inbox.make_room(limits.bytes_max) {
                return Err(Fault::ResponseHeadTooLarge);
            }
            if !matches!(self.read().await, Ok(1..)) {
                let begun = !self.inbox.is_empty() || self.progress.is_begun();
                return Err(upstream_fault(self.from.cut_for(), begun));
            }
        }
    }

    /// Understands the response head of `length` bytes at the front of the inbox, takes it out, and
    /// writes it anew into the outbox.
    fn understand(&mut self, length: usize) -> Result<Answer, Fault> {
        let Exchange {
            shard,
            current,
            service,
            facts,
            ..
        } = self.exchange;
        let progress = self.progress;
        let mut space = FieldSpace::new();
        let head = &self.inbox.filled()[..length];
        let response = Response::parse(
            head,
            &service.response_head,
            &mut space,
            facts.head_method,
            self.exchange.offer.as_deref(),
        )
        .map_err(|error| error.response_fault())?;
        let limits = BodyLimits {
            bytes_max: u64::MAX,
            trailer_bytes_max: self.exchange.listener.limits.trailer_bytes_max,
        };
        let mut body = Body::new(response.body, limits).map_err(|error| error.response_fault())?;
        if let Some(nominations) = response.nominations() {
            body.nominate(nominations);
        }
        let answer = Answer {
            status: response.status,
            interim: response.interim,
            keep_alive: response.keep_alive,
            length: response.body,
            body,
            unchunk: unchunk(facts.minor, response.body),
            connection: progress.client_connection(
                facts,
                response.status,
                response.body,
                self.exchange.listener.running.is_leaving(),
            ),
        };
        let name = &service.endpoints[self.exchange.endpoint.get()].name;
        let date = shard.clock.date();
        let hop = ResponseHop {
            date: &date,
            via: &current.plan().via,
            connection: answer.connection,
            client_minor: facts.minor,
            unchunk: answer.unchunk,
            edits: &service.response_edits,
            backend: service
                .backend_field
                .as_deref()
                .map(|field| (field, &**name)),
        };
        if self.outbox.capacity() == 0 {
            self.outbox = shard.stock.take(MEDIUM);
        }
        let relayed = !answer.interim || progress.interim(answer.status);
        if relayed && (!answer.interim || relays_interim(facts.minor)) {
            write_response(self.outbox.tail(), &response, &hop);
        }
        self.inbox.consume(length);
        Ok(answer)
    }

    /// Sends the rewritten head, in one write with what is already here of the body, and relays the
    /// rest.
    async fn relay(&mut self, answer: &mut Answer, first: Here) -> Result<(), Fault> {
        let mut here = first;
        let joined = here.send.min(self.outbox.room());
        self.outbox
            .tail()
            .extend_from_slice(&self.inbox.filled()[..joined]);
        self.inbox.consume(joined);
        here.send -= joined;
        self.send_head().await?;
        let shard = self.exchange.shard;
        if !answer.body.is_done() {
            // The client may be slow: what it need not hold goes to the next one.
            shard.stock.put(mem::take(&mut self.outbox));
        }
        loop {
            if 0 < here.send {
                self.inbox.send_first(here.send);
                let inbox = mem::take(&mut self.inbox);
                self.inbox = self.send(inbox).await?;
            }
            self.inbox.consume(here.skip);
            if answer.body.is_done() {
                return self.send_trailers(answer).await;
            }
            let filled = mem::take(&mut self.filled);
            self.enlarge(answer.body.remaining(), filled);
            let receive_idle = self.exchange.service.timeouts.receive_idle;
            self.from.watch().arm(receive_idle, Late::ResponseBody);
            let read = self.read().await;
            self.from.watch().disarm();
            if !matches!(read, Ok(1..)) {
                return self.end_of_body(&read, answer);
            }
            here = self.take(answer)?;
            self.exchange.shard.give_way().await;
        }
    }

    /// Sends the trailers behind a body that is done and goes on in chunks, where it has some.
    async fn send_trailers(&mut self, answer: &mut Answer) -> Result<(), Fault> {
        let service = self.exchange.service;
        match answer.body.take_trailers() {
            Some(trailers) if !answer.unchunk => {
                let replaced = service.backend_field.as_deref();
                trailers.write(self.outbox.tail(), &service.response_edits, replaced);
                self.send_head().await
            }
            _ => Ok(()),
        }
    }

    /// Frames what is in the inbox.
    fn take(&mut self, answer: &mut Answer) -> Result<Here, Fault> {
        let here = answer.take(&mut self.inbox)?;
        if answer.body.is_done() {
            self.exchange.timing.answer_read();
        }
        Ok(here)
    }

    /// What it means that no more bytes come where a body's were awaited: its end, when only the
    /// close could be its end and it was the endpoint who closed.
    fn end_of_body(&self, read: &io::Result<usize>, answer: &mut Answer) -> Result<(), Fault> {
        let cut = self.from.cut_for();
        let by_us = cut.is_some() || self.progress.is_failed();
        if read.is_ok() && !by_us && answer.body.end().is_ok() {
            self.exchange.timing.answer_read();
            return Ok(());
        }
        Err(upstream_fault(cut, true))
    }

    /// Reads once into the inbox.
    async fn read(&mut self) -> io::Result<usize> {
        let Exchange { shard, timing, .. } = self.exchange;
        let turn = shard.clock.turn();
        // Until its answer begins, the endpoint is awaited from the moment when it has the request.
        let listening = timing.answer_has_begun().then(|| timing.listen());
        let (read, back) = self.from.read(mem::take(&mut self.inbox)).await;
        let at = match listening {
            Some(listening) => timing.done(listening).end,
            None => shard.clock.ready_at(turn),
        };
        self.inbox = back;
        self.filled = self.inbox.room() == 0;
        let count = read?;
        if 0 < count {
            timing.answer_part_read(at);
        }
        shard.counters.bytes_upstream_in.add(count as u64);
        Ok(count)
    }

    /// Sends all of the outbox to the client and forgets it.
    async fn send_head(&mut self) -> Result<(), Fault> {
        self.outbox.send_all();
        let outbox = mem::take(&mut self.outbox);
        self.outbox = self.send(outbox).await?;
        self.outbox.clear();
        Ok(())
    }

    /// Sends what `buffer` is set to send to the client.
    async fn send(&mut self, buffer: Buffer) -> Result<Buffer, Fault> {
        let send_idle = self.exchange.listener.timeouts.send_idle;
        let counters = &self.exchange.shard.counters;
        counters.bytes_client_out.add(buffer.unsent() as u64);
        let asked = self.exchange.timing.ask();
        let (sent, buffer) = self.to.write(buffer, send_idle, Late::ClientSend).await;
        let wait = self.exchange.timing.done(asked);
        if sent.is_ok() {
            self.exchange.timing.answer_part_told(wait);
            return Ok(buffer);
        }
        self.exchange.shard.stock.put(buffer);
        match self.to.watch().expired() {
            Some(Late::ClientSend) => Err(Fault::ClientSendTimeout),
            Some(Late::Exchange) => Err(Fault::ExchangeTimeout),
            _ => Err(Fault::ClientGone),
        }
    }

    /// Answers a request whose body can't be read to its end; the connection is closed after it.
    pub(super) async fn own_answer(&mut self, fault: Fault) {
        self.outbox.clear();
        write_reply(
            self.outbox.tail(),
            fault,
            &Reply {
                close: true,
                ..Reply::to(&self.exchange.facts)
            },
            &self.exchange.shard.clock.date(),
        );
        // A client that does not take it is gone; the fault is counted either way.
        let _gone = self.send_head().await;
    }

    /// What came behind the answer, which was a 101: a tunnel begins with it.
    pub(super) fn take_behind(&mut self) -> Buffer {
        mem::take(&mut self.inbox)
    }

    /// Gives a body of which much is left the largest buffer, as far as there is room for slow
    /// clients; one of which nobody knows how much is left, when it `filled` the last one.
    fn enlarge(&mut self, remaining: Option<u64>, filled: bool) {
        let long = remaining.map_or(filled, |left| MEDIUM as u64 <= left);
        let stock = &self.exchange.shard.stock;
        stock.enlarge(
            &mut self.inbox,
            &mut self.share,
            if long { LARGE } else { MEDIUM },
        );
    }
}

impl<R, W> Drop for Down<'_, '_, R, W> {
    fn drop(&mut self) {
        let stock = &self.exchange.shard.stock;
        stock.put(mem::take(&mut self.inbox));
        stock.put(mem::take(&mut self.outbox));
    }
}

/// What of the inbox's front belongs to the body.
#[derive(Clone, Copy, Debug)]
struct Here {
    /// Bytes that go on.
    send: usize,
    /// Bytes behind them that are framing and stay here.
    skip: usize,
}

impl Answer {
    /// Frames what is in the inbox.
    fn take(&mut self, inbox: &mut Buffer) -> Result<Here, Fault> {
        let framed = if self.unchunk {
            let chunks = self.body.unchunk(inbox.filled_mut());
            chunks.map(|chunks| Here {
                send: chunks.data,
                skip: chunks.taken - chunks.data,
            })
        } else {
            self.body.pass(inbox.filled()).map(|passed| Here {
                send: passed.send,
                skip: passed.taken - passed.send,
            })
        };
        framed.map_err(|error| error.response_fault())
    }

    /// What a delivered answer leaves; `clean` when nothing came behind it.
    fn delivered(&self, clean: bool) -> Delivered {
        let until_close = self.length == BodyLength::UntilClose;
        Delivered {
            status: self.status,
            is_dropped: false,
            // Bytes behind the answer are none that anybody asked for.
            reusable: self.keep_alive && !until_close && clean,
            after: self.connection,
        }
    }
}

/// The cause behind an end or an error of an endpoint's connection, which we have `cut_for` a cause
/// or not; `begun` when bytes of a response had come.
pub(super) fn upstream_fault(cut_for: Option<Late>, begun: bool) -> Fault {
    match cut_for {
        Some(Late::Response) => Fault::ResponseTimeout,
        Some(Late::Attempt) => Fault::AttemptTimeout,
        Some(Late::Exchange) => Fault::ExchangeTimeout,
        Some(Late::ResponseBody) => Fault::ConnectionReadTimeout,
        Some(Late::UpstreamSend) => Fault::ConnectionWriteTimeout,
        Some(Late::Gone) => Fault::ClientGone,
        Some(Late::Drain) => Fault::DrainTimeout,
        _ if begun => Fault::ResponseIncomplete,
        _ => Fault::ConnectionTerminated,
    }
}
