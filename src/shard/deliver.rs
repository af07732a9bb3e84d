//! The way down: an endpoint's answer goes to the client, head and body.
//!
//! A loop of one read and one write through one buffer, so that a client that reads slowly holds
//! its endpoint back and memory is bounded. The head and what is already here of the body leave in
//! one write.

use std::io;
use std::mem;

use monoio::io::{AsyncReadRent, AsyncWriteRent};

use super::buffer::{Buffer, LARGE, MEDIUM};
use super::client::After;
use super::deadline::Late;
use super::io::{Incoming, Outgoing};
use super::relay::{Broken, Delivered, Duplex, Reach};
use super::serve::{Exchange, reply};
use crate::fault::Fault;
use crate::http::exchange::{client_connection, relays_interim, unchunk};
use crate::http::framing::{Body, BodyLength, BodyLimits};
use crate::http::head::{FieldSpace, HeadScan, Response};
use crate::http::hop::{ClientConnection, ResponseHop, write_response};
use crate::http::reply::write_reply;

/// Interim responses of one exchange; an endpoint that sends more means harm.
const INTERIMS_MAX: usize = 16;

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

/// The buffers of the way down.
#[derive(Debug, Default)]
struct Boxes {
    /// What came from the endpoint.
    inbox: Buffer,
    /// The rewritten head, and what fits behind it; taken when there is a head.
    outbox: Buffer,
}

/// Delivers the endpoint's answer to the client: interim ones, the head, the body.
pub(super) async fn deliver<R: AsyncReadRent, W: AsyncWriteRent>(
    exchange: &Exchange<'_>,
    from: &mut Incoming<'_, R>,
    to: &mut Outgoing<'_, W>,
    duplex: &Duplex,
) -> Result<Delivered, Broken> {
    let stock = &exchange.shard.stock;
    let mut boxes = Boxes {
        inbox: stock.take(MEDIUM),
        outbox: Buffer::default(),
    };
    let delivered = deliver_through(exchange, from, to, &mut boxes, duplex).await;
    stock.put(boxes.inbox);
    stock.put(boxes.outbox);
    delivered
}

async fn deliver_through<R: AsyncReadRent, W: AsyncWriteRent>(
    exchange: &Exchange<'_>,
    from: &mut Incoming<'_, R>,
    to: &mut Outgoing<'_, W>,
    boxes: &mut Boxes,
    duplex: &Duplex,
) -> Result<Delivered, Broken> {
    let mut answer = receive_answer(exchange, from, boxes, duplex, Reach::Nothing).await?;
    let mut interims = 0;
    while answer.interim {
        interims += 1;
        if INTERIMS_MAX < interims {
            return Err(Broken {
                fault: Fault::ResponseInvalid,
                reach: Reach::Interim,
            });
        }
        boxes.outbox.send_all();
        send_down(exchange, to, &mut boxes.outbox).await?;
        boxes.outbox.clear();
        answer = receive_answer(exchange, from, boxes, duplex, Reach::Interim).await?;
    }
    duplex.answered.set(true);
    from.watch().disarm();
    let first = answer.take(&mut boxes.inbox);
    let first = first.map_err(|fault| Broken {
        fault,
        reach: Reach::Nothing,
    })?;
    // Before the first byte goes out, so that a client that has its answer finds it counted.
    exchange
        .counters
        .count_forwarded(exchange.endpoint.get(), answer.status);
    let reach = answer.reach();
    relay_body(exchange, from, to, boxes, &mut answer, (first, duplex))
        .await
        .map_err(|fault| {
            let fault = duplex.fault.get().unwrap_or(fault);
            Broken { fault, reach }
        })?;
    Ok(answer.delivered(boxes.inbox.is_empty()))
}

/// Waits for a whole response head and rewrites it into the outbox.
async fn receive_answer<R: AsyncReadRent>(
    exchange: &Exchange<'_>,
    from: &mut Incoming<'_, R>,
    boxes: &mut Boxes,
    duplex: &Duplex,
    reach: Reach,
) -> Result<Answer, Broken> {
    let limits = exchange.service.response_head;
    let mut scan = HeadScan::response();
    loop {
        let inbox = &mut boxes.inbox;
        if !inbox.is_empty() {
            let end = scan.find_end(inbox.filled(), &limits);
            let end = end.map_err(|error| Broken {
                fault: error.response_fault(),
                reach,
            })?;
            if let Some(length) = end {
                return understand(exchange, boxes, length)
                    .map_err(|fault| Broken { fault, reach });
            }
        }
        if !inbox.make_room(limits.bytes_max) {
            return Err(Broken {
                fault: Fault::ResponseHeadTooLarge,
                reach,
            });
        }
        let (read, back) = from.read(mem::take(inbox)).await;
        *inbox = back;
        match read {
            Ok(count @ 1..) => exchange.shard.counters.bytes_upstream_in.add(count as u64),
            _ => {
                let begun = !inbox.is_empty() || reach == Reach::Interim;
                let fault = upstream_read_fault(from.cut_for(), begun);
                return Err(Broken {
                    fault: duplex.fault.get().unwrap_or(fault),
                    reach,
                });
            }
        }
    }
}

/// Understands the response head of `length` bytes at the front of the inbox, takes it out, and
/// writes it anew into the outbox.
fn understand(exchange: &Exchange<'_>, boxes: &mut Boxes, length: usize) -> Result<Answer, Fault> {
    let Exchange {
        current,
        service,
        facts,
        ..
    } = exchange;
    let mut space = FieldSpace::new();
    let head = &boxes.inbox.filled()[..length];
    let response = Response::parse(head, &service.response_head, &mut space, facts.head_method)
        .map_err(|error| error.response_fault())?;
    let limits = BodyLimits {
        bytes_max: u64::MAX,
        trailer_bytes_max: exchange.listener.limits.trailer_bytes_max,
    };
    let body = Body::new(response.body, limits).map_err(|error| error.response_fault())?;
    let answer = Answer {
        status: response.status,
        interim: response.interim,
        keep_alive: response.keep_alive,
        length: response.body,
        body,
        unchunk: unchunk(facts.minor, response.body),
        connection: client_connection(facts, response.body, exchange.shard.is_draining()),
    };
    let endpoint = &service.endpoints[exchange.endpoint.get()];
    let hop = ResponseHop {
        via: &current.plan().via,
        connection: answer.connection,
        client_minor: facts.minor,
        unchunk: answer.unchunk,
        edits: &service.response_edits,
        backend: service
            .backend_field
            .as_deref()
            .map(|field| (field, &*endpoint.name)),
    };
    if boxes.outbox.capacity() == 0 {
        boxes.outbox = exchange.shard.stock.take(MEDIUM);
    }
    if !answer.interim || relays_interim(facts.minor) {
        write_response(boxes.outbox.tail(), &response, &hop);
    }
    boxes.inbox.consume(length);
    Ok(answer)
}

/// Sends the rewritten head, in one write with what is already here of the body, and relays the
/// rest.
async fn relay_body<R: AsyncReadRent, W: AsyncWriteRent>(
    exchange: &Exchange<'_>,
    from: &mut Incoming<'_, R>,
    to: &mut Outgoing<'_, W>,
    boxes: &mut Boxes,
    answer: &mut Answer,
    (mut here, duplex): (Here, &Duplex),
) -> Result<(), Fault> {
    let Boxes { inbox, outbox } = boxes;
    let joined = here.send.min(outbox.room());
    outbox.tail().extend_from_slice(&inbox.filled()[..joined]);
    inbox.consume(joined);
    here.send -= joined;
    outbox.send_all();
    send_down(exchange, to, outbox).await?;
    let mut turns = 0;
    loop {
        inbox.send_first(here.send);
        send_down(exchange, to, inbox).await?;
        inbox.consume(here.skip);
        if answer.body.is_done() {
            return Ok(());
        }
        enlarge(exchange, inbox, answer.body.remaining());
        let receive_idle = exchange.service.timeouts.receive_idle;
        let (read, back) = from
            .read_within(mem::take(inbox), receive_idle, Late::ResponseBody)
            .await;
        *inbox = back;
        match read {
            Ok(count @ 1..) => exchange.shard.counters.bytes_upstream_in.add(count as u64),
            _ => return end_of_body(read, from, answer, duplex),
        }
        here = answer.take(inbox)?;
        exchange.shard.give_way(&mut turns).await;
    }
}

/// What it means that no more bytes come where a body's were awaited: its end, when only the close
/// could be its end and it was the endpoint who closed.
fn end_of_body<R: AsyncReadRent>(
    read: io::Result<usize>,
    from: &Incoming<'_, R>,
    answer: &mut Answer,
    duplex: &Duplex,
) -> Result<(), Fault> {
    let cut = from.cut_for();
    let by_us = cut.is_some() || duplex.fault.get().is_some();
    if read.is_ok() && !by_us && answer.body.end().is_ok() {
        return Ok(());
    }
    Err(upstream_read_fault(cut, true))
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
                send: passed.taken,
                skip: 0,
            })
        };
        framed.map_err(|error| error.response_fault())
    }

    /// What a delivered answer leaves; `clean` when nothing came behind it.
    fn delivered(&self, clean: bool) -> Delivered {
        let until_close = self.length == BodyLength::UntilClose;
        Delivered {
            // Bytes behind the answer are none that anybody asked for.
            reusable: self.keep_alive && !until_close && clean,
            suspect: self.length == BodyLength::None,
            after: match self.connection {
                ClientConnection::KeepAlive => After::KeepAlive,
                ClientConnection::Close => After::Close,
            },
        }
    }

    /// What the client has seen once a part of this answer has gone out.
    fn reach(&self) -> Reach {
        if self.unchunk || self.length == BodyLength::UntilClose {
            Reach::Unmarked
        } else {
            Reach::Part
        }
    }
}

/// Sends what `buffer` is set to send to the client.
async fn send_down<W: AsyncWriteRent>(
    exchange: &Exchange<'_>,
    to: &mut Outgoing<'_, W>,
    buffer: &mut Buffer,
) -> Result<(), Fault> {
    let send_idle = exchange.listener.timeouts.send_idle;
    exchange
        .shard
        .counters
        .bytes_client_out
        .add(buffer.unsent() as u64);
    let (sent, back) = to
        .write(mem::take(buffer), send_idle, Late::ClientSend)
        .await;
    *buffer = back;
    sent.map_err(|_error| match to.watch().expired() {
        Some(Late::ClientSend) => Fault::ClientSendTimeout,
        _ => Fault::ClientGone,
    })
}

/// Answers a request whose body can't be read to its end; the connection is closed after it.
pub(super) async fn own_answer<W: AsyncWriteRent>(
    exchange: &Exchange<'_>,
    fault: Fault,
    to: &mut Outgoing<'_, W>,
) {
    let mut outbox = exchange.shard.stock.take(MEDIUM);
    write_reply(outbox.tail(), fault, &reply(Some(exchange.facts), true));
    outbox.send_all();
    // A client that does not take it is gone; the fault is counted either way.
    let _gone = send_down(exchange, to, &mut outbox).await;
    exchange.shard.stock.put(outbox);
}

/// Gives a body of which much is left, or nobody knows how much, the largest buffer.
fn enlarge(exchange: &Exchange<'_>, inbox: &mut Buffer, remaining: Option<u64>) {
    let long = remaining.is_none_or(|left| MEDIUM as u64 <= left);
    if long && inbox.is_empty() && inbox.capacity() < LARGE {
        let stock = &exchange.shard.stock;
        stock.put(mem::replace(inbox, stock.take(LARGE)));
    }
}
/// The cause behind a failed write to an endpoint.
pub(super) fn upstream_write_fault(expired: Option<Late>) -> Fault {
    match expired {
        Some(Late::UpstreamSend) => Fault::ConnectionWriteTimeout,
        _ => Fault::ConnectionTerminated,
    }
}

/// The cause behind an end or an error where bytes of a response were awaited; `begun` when some
/// had come.
fn upstream_read_fault(cut_for: Option<Late>, begun: bool) -> Fault {
    match cut_for {
        Some(Late::Response) => Fault::ResponseTimeout,
        Some(Late::ResponseBody) => Fault::ConnectionReadTimeout,
        Some(Late::UpstreamSend) => Fault::ConnectionWriteTimeout,
        Some(Late::Gone) => Fault::ClientGone,
        Some(Late::Drain) => Fault::DrainTimeout,
        _ if begun => Fault::ResponseIncomplete,
        _ => Fault::ConnectionTerminated,
    }
}
