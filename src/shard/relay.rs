//! Delivering an answer: the request goes up, the response comes down, bodies in both directions at
//! once.
//!
//! Each direction is a loop of one read and one write through one buffer, so that a slow reader
//! holds its writer back and memory is bounded. Where the request is whole, only the way down is
//! run. Otherwise both ways run in one task and tell each other how they ended through [`Duplex`];
//! neither is dropped halfway, the connections are cut instead and both run out.

use std::cell::Cell;
use std::mem;

use monoio::io::{AsyncReadRent, AsyncWriteRent};

use super::buffer::{Buffer, LARGE, MEDIUM};
use super::client::{After, Client};
use super::deadline::Late;
use super::io::{Incoming, Outgoing, both};
use super::serve::{Exchange, LINGER, Order, reply};
use super::upstream::Link;
use crate::fault::Fault;
use crate::fd::{self, Cut};
use crate::http::exchange::{client_connection, relays_interim, unchunk};
use crate::http::framing::{Body, BodyLength, BodyLimits};
use crate::http::head::{FieldSpace, HeadScan, Response};
use crate::http::hop::{ClientConnection, ResponseHop, write_response};
use crate::http::reply::write_reply;

/// From so many exchanges under way on, the next ones hold no buffer for it: they wait
/// for readability first, and the buffers stay few and in the cache. Below, that one operation more
/// is dearer than what it saves: 3 % of an exchange's time at 64 connections, where at 1,000 it
/// saves 2 % (scripts/bench).
const CROWD: u64 = 256;

/// An exchange that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    /// Why.
    pub(super) fault: Fault,
    /// What the client has seen by then.
    pub(super) reach: Reach,
}

/// How much of an answer has gone to the client of a failed exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Nothing: it can still be answered.
    Nothing,
    /// Part of an endpoint's answer, whose framing shows that it is not whole.
    Part,
    /// Part of an endpoint's answer that only the close ends.
    Unmarked,
    /// An answer of ringmain's own.
    OwnAnswer,
    /// Nothing, and nobody is left to answer.
    Gone,
}

/// An exchange that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delivered {
    /// The upstream connection can carry another exchange.
    pub(super) reusable: bool,
    /// What becomes of the client's connection.
    pub(super) after: After,
}

impl Broken {
    const fn new(fault: Fault) -> Self {
        Self {
            fault,
            reach: Reach::Nothing,
        }
    }
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        Self::new(fault)
    }
}

/// A response head that was understood and stands rewritten in the outbox.
#[derive(Debug)]
struct Answer {
    interim: bool,
    keep_alive: bool,
    length: BodyLength,
    body: Body,
    unchunk: bool,
    connection: ClientConnection,
}

/// The buffers of the way down.
#[derive(Debug)]
struct Boxes {
    /// What came from the endpoint.
    inbox: Buffer,
    /// The rewritten head, and what fits behind it.
    outbox: Buffer,
}

/// How the two directions of one exchange tell each other what happened.
#[derive(Debug, Default)]
struct Duplex {
    /// A fault that the way up found; it also cuts the upstream connection, so that the way down
    /// notices.
    fault: Cell<Option<Fault>>,
    /// The request is whole and all of it went to the endpoint.
    uploaded: Cell<bool>,
    /// The response's head has come.
    answered: Cell<bool>,
    /// The answer is over: what the client still sends is read away.
    over: Cell<bool>,
}

/// Sends a request that is whole and delivers its answer.
pub(super) async fn one_way(
    exchange: &Exchange<'_>,
    link: &mut Link<'_>,
    client: &mut Client,
    outbox: &mut Buffer,
) -> Result<Delivered, Broken> {
    let timeouts = &exchange.service.timeouts;
    exchange
        .shard
        .counters
        .bytes_upstream_out
        .add(outbox.unsent() as u64);
    let mut up = link.stream.outgoing();
    let (sent, back) = up
        .write(mem::take(outbox), timeouts.send_idle, Late::UpstreamSend)
        .await;
    *outbox = back;
    if sent.is_err() {
        return Err(Broken::new(upstream_write_fault(up.watch().expired())));
    }
    link.stream.reading().arm(timeouts.response, Late::Response);
    if CROWD <= exchange.shard.counters.upstreams_in_use.get() {
        // An error is found again by the read.
        let _readable = link.stream.may_be_readable().await;
    }
    let duplex = Duplex::default();
    duplex.uploaded.set(true);
    let (mut from, mut to) = (link.stream.incoming(), client.stream.outgoing());
    deliver(exchange, &mut from, &mut to, &duplex).await
}

/// Sends a request while its body still comes, and delivers its answer, which may come before that
/// body has ended.
pub(super) async fn both_ways(
    exchange: &Exchange<'_>,
    link: &mut Link<'_>,
    client: &mut Client,
    inbox: &mut Buffer,
    order: &mut Order,
) -> Result<Delivered, Broken> {
    let duplex = Duplex::default();
    let (mut client_read, mut client_write) = client.stream.divide();
    let (mut link_read, mut link_write) = link.stream.divide();
    let up = async {
        let mut from = client.stream.incoming_half(&mut client_read);
        let mut to = link.stream.outgoing_half(&mut link_write);
        upload(exchange, &mut from, &mut to, inbox, order, &duplex).await;
        if duplex.uploaded.get() && !duplex.answered.get() {
            let response = exchange.service.timeouts.response;
            link.stream.reading().arm(response, Late::Response);
        }
    };
    let down = async {
        let mut from = link.stream.incoming_half(&mut link_read);
        let mut to = client.stream.outgoing_half(&mut client_write);
        let mut delivered = deliver(exchange, &mut from, &mut to, &duplex).await;
        if let Err(broken) = &mut delivered
            && broken.reach == Reach::Nothing
        {
            own_answer(exchange, broken.fault, &mut to).await;
            broken.reach = Reach::OwnAnswer;
        }
        duplex.over.set(true);
        if !duplex.uploaded.get() {
            // Early answer: the way up ends here and what the client still sends is read away for a
            // while (RFC 9112 section 9.6).
            fd::cut(link.stream.fd(), Cut::Both);
            if !delivered.is_ok_and(|delivered| delivered.after == After::KeepAlive) {
                fd::cut(client.stream.fd(), Cut::Writing);
            }
            client.stream.reading().arm(LINGER, Late::Linger);
        }
        delivered
    };
    let ((), delivered) = both(up, down).await;
    client.stream.unite(client_read, client_write);
    link.stream.unite(link_read, link_write);
    delivered.map(|delivered| Delivered {
        reusable: delivered.reusable && duplex.uploaded.get(),
        after: if order.body.is_done() {
            delivered.after
        } else {
            After::Close
        },
    })
}

/// Sends what the order holds and then relays the rest of the request's body. Once the answer is
/// over, or the endpoint takes no more, it only reads the rest away.
async fn upload<R: AsyncReadRent, W: AsyncWriteRent>(
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
    let (sent, back) = send_up(exchange, to, mem::take(&mut order.outbox), duplex).await;
    order.outbox = back;
    let mut forwarding = sent;
    while !order.body.is_done() {
        match receive_body(exchange, from, inbox, &mut order.body, duplex).await {
            Ok(count) => inbox.send_first(count),
            Err(fault) => {
                if !duplex.over.get() {
                    duplex.fault.set(Some(fault));
                    // The way down waits for an answer that will not come.
                    to.cut(Cut::Both);
                }
                break;
            }
        }
        if forwarding && !duplex.over.get() {
            (forwarding, *inbox) = send_up(exchange, to, mem::take(inbox), duplex).await;
        }
        inbox.discard_unsent();
    }
    if order.body.is_done() {
        duplex.uploaded.set(forwarding && !duplex.over.get());
        return;
    }
    read_away(from, inbox).await;
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

/// Reads once and says how many of the bytes are the body's, and go on as they are.
async fn receive_body<R: AsyncReadRent>(
    exchange: &Exchange<'_>,
    from: &mut Incoming<'_, R>,
    inbox: &mut Buffer,
    body: &mut Body,
    duplex: &Duplex,
) -> Result<usize, Fault> {
    let (read, back) = if duplex.over.get() {
        // The deadline of lingering runs; it is not for each read.
        from.read(mem::take(inbox)).await
    } else {
        let body_idle = exchange.listener.timeouts.body_idle;
        from.read_within(mem::take(inbox), body_idle, Late::RequestBody)
            .await
    };
    *inbox = back;
    match read {
        Ok(0) if from.watch().expired() == Some(Late::RequestBody) => Err(Fault::RequestTimeout),
        Ok(0) => Err(Fault::RequestIncomplete),
        Err(_) => Err(Fault::ClientGone),
        Ok(count) => {
            exchange.shard.counters.bytes_client_in.add(count as u64);
            let passed = body
                .pass(inbox.filled())
                .map_err(|error| error.request_fault())?;
            Ok(passed.taken)
        }
    }
}

/// Reads until the client closes or its deadline cuts it.
async fn read_away<R: AsyncReadRent>(from: &mut Incoming<'_, R>, inbox: &mut Buffer) {
    loop {
        inbox.clear();
        let (read, back) = from.read(mem::take(inbox)).await;
        *inbox = back;
        if !matches!(read, Ok(1..)) {
            inbox.clear();
            return;
        }
    }
}

/// Delivers the endpoint's answer to the client: interim ones, the head, the body.
async fn deliver<R: AsyncReadRent, W: AsyncWriteRent>(
    exchange: &Exchange<'_>,
    from: &mut Incoming<'_, R>,
    to: &mut Outgoing<'_, W>,
    duplex: &Duplex,
) -> Result<Delivered, Broken> {
    let stock = &exchange.shard.stock;
    let mut boxes = Boxes {
        inbox: stock.take(MEDIUM),
        outbox: stock.take(MEDIUM),
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
    while answer.interim {
        send_down(exchange, to, &mut boxes.outbox, Reach::Part).await?;
        answer = receive_answer(exchange, from, boxes, duplex, Reach::Part).await?;
    }
    duplex.answered.set(true);
    from.watch().disarm();
    let reach = answer.reach();
    relay_body(exchange, from, to, boxes, &mut answer, duplex)
        .await
        .map_err(|fault| {
            let fault = duplex.fault.get().unwrap_or(fault);
            Broken { fault, reach }
        })?;
    let until_close = answer.length == BodyLength::UntilClose;
    Ok(Delivered {
        // Bytes behind the answer are none that anybody asked for.
        reusable: answer.keep_alive && !until_close && boxes.inbox.is_empty(),
        after: match answer.connection {
            ClientConnection::KeepAlive => After::KeepAlive,
            ClientConnection::Close => After::Close,
        },
    })
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
                let begun = !inbox.is_empty() || reach != Reach::Nothing;
                let fault = upstream_read_fault(from.watch().expired(), begun);
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
        interim: response.interim,
        keep_alive: response.keep_alive,
        length: response.body,
        body,
        unchunk: unchunk(facts.minor, response.body),
        connection: client_connection(facts, response.body, current.is_draining()),
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
    if !answer.interim {
        // Before the first byte goes out, so that a client that has its answer finds it counted.
        exchange
            .counters
            .count_forwarded(exchange.endpoint.get(), response.status);
        write_response(boxes.outbox.tail(), &response, &hop);
    } else if relays_interim(facts.minor) {
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
    duplex: &Duplex,
) -> Result<(), Fault> {
    let Boxes { inbox, outbox } = boxes;
    let mut here = answer.take(inbox)?;
    let joined = here.send.min(outbox.room());
    outbox.tail().extend_from_slice(&inbox.filled()[..joined]);
    inbox.consume(joined);
    here.send -= joined;
    send_down(exchange, to, outbox, Reach::Part)
        .await
        .map_err(|broken| broken.fault)?;
    loop {
        inbox.send_first(here.send);
        if 0 < here.send {
            send_down(exchange, to, inbox, Reach::Part)
                .await
                .map_err(|broken| broken.fault)?;
        }
        inbox.consume(here.skip);
        if answer.body.is_done() {
            return Ok(());
        }
        if answer
            .body
            .remaining()
            .is_none_or(|left| MEDIUM as u64 <= left)
            && inbox.is_empty()
        {
            enlarge(exchange, inbox);
        }
        let receive_idle = exchange.service.timeouts.receive_idle;
        let (read, back) = from
            .read_within(mem::take(inbox), receive_idle, Late::ResponseBody)
            .await;
        *inbox = back;
        match read {
            Ok(count @ 1..) => exchange.shard.counters.bytes_upstream_in.add(count as u64),
            Ok(0) if from.watch().expired().is_none() && answer.body.end().is_ok() => return Ok(()),
            _ => {
                let fault = upstream_read_fault(from.watch().expired(), true);
                return Err(duplex.fault.get().unwrap_or(fault));
            }
        }
        here = answer.take(inbox)?;
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
                send: passed.taken,
                skip: 0,
            })
        };
        framed.map_err(|error| error.response_fault())
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

/// Sends what `buffer` holds to the client.
async fn send_down<W: AsyncWriteRent>(
    exchange: &Exchange<'_>,
    to: &mut Outgoing<'_, W>,
    buffer: &mut Buffer,
    reach: Reach,
) -> Result<(), Broken> {
    let send_idle = exchange.listener.timeouts.send_idle;
    if buffer.unsent() == 0 {
        buffer.send_all();
    }
    exchange
        .shard
        .counters
        .bytes_client_out
        .add(buffer.unsent() as u64);
    let (sent, back) = to
        .write(mem::take(buffer), send_idle, Late::ClientSend)
        .await;
    *buffer = back;
    if sent.is_err() {
        let fault = match to.watch().expired() {
            Some(Late::ClientSend) => Fault::ClientSendTimeout,
            _ => Fault::ClientGone,
        };
        return Err(Broken { fault, reach });
    }
    Ok(())
}

/// Answers a request whose body can't be read to its end; the connection is closed after it.
async fn own_answer<W: AsyncWriteRent>(
    exchange: &Exchange<'_>,
    fault: Fault,
    to: &mut Outgoing<'_, W>,
) {
    let mut outbox = exchange.shard.stock.take(MEDIUM);
    write_reply(outbox.tail(), fault, &reply(Some(exchange.facts), true));
    // A client that does not take it is gone; the fault is counted either way.
    let _gone = send_down(exchange, to, &mut outbox, Reach::OwnAnswer).await;
    exchange.shard.stock.put(outbox);
}

fn enlarge(exchange: &Exchange<'_>, inbox: &mut Buffer) {
    if inbox.capacity() < LARGE {
        exchange
            .shard
            .stock
            .put(mem::replace(inbox, exchange.shard.stock.take(LARGE)));
    }
}

/// The cause behind a failed write to an endpoint.
fn upstream_write_fault(expired: Option<Late>) -> Fault {
    match expired {
        Some(Late::UpstreamSend) => Fault::ConnectionWriteTimeout,
        _ => Fault::ConnectionTerminated,
    }
}

/// The cause behind an end or an error where bytes of a response were awaited; `begun` when some
/// had come.
fn upstream_read_fault(expired: Option<Late>, begun: bool) -> Fault {
    match expired {
        Some(Late::Response) => Fault::ResponseTimeout,
        Some(Late::ResponseBody) => Fault::ConnectionReadTimeout,
        _ if begun => Fault::ResponseIncomplete,
        _ => Fault::ConnectionTerminated,
    }
}
