//! One try of an exchange on one upstream connection: the request goes up, the answer comes down.
//!
//! Where the request is whole, it is sent and then only the way down is run. Otherwise both ways
//! run in one task and tell each other how they ended through [`Duplex`]; neither is dropped
//! halfway, the connections are cut instead and both run out.

use std::cell::Cell;
use std::mem;

use super::buffer::Buffer;
use super::client::Client;
use super::deadline::Late;
use super::deliver::{Down, upstream_fault};
use super::io::both;
use super::linger::LINGER;
use super::serve::{Exchange, Order};
use super::upload::Up;
use super::upstream::Link;
use crate::fault::Fault;
use crate::fd::{self, Cut};
use crate::http::hop::ClientConnection;

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
    /// Nothing: it can still be answered, and the request sent once more.
    Nothing,
    /// Interim responses at most, of an endpoint that has begun an answer: it can still be
    /// answered.
    Begun,
    /// Part of an endpoint's answer, whose framing shows that it is not whole.
    Part,
    /// Part of an endpoint's answer that only the close ends.
    Unmarked,
    /// An answer of ringmain's own.
    OwnAnswer,
}

/// An exchange that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delivered {
    /// The upstream connection can carry another exchange.
    pub(super) reusable: bool,
    /// True exactly when the answer had no body, which an endpoint in error may send all the same.
    pub(super) suspect: bool,
    /// What becomes of the client's connection; where it is a tunnel, so is the upstream one.
    pub(super) after: ClientConnection,
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

/// How the two directions of one exchange tell each other what happened.
#[derive(Debug, Default)]
pub(super) struct Duplex {
    /// A fault that the way up found; it also cuts the upstream connection, so that the way down
    /// notices.
    pub(super) fault: Cell<Option<Fault>>,
    /// The request is whole and all of it went to the endpoint.
    pub(super) uploaded: Cell<bool>,
    /// The response's head has come.
    pub(super) answered: Cell<bool>,
    /// The answer was delivered to its end.
    pub(super) ended: Cell<bool>,
    /// There will be no answer, or no more of it: what the client still sends is read away.
    pub(super) over: Cell<bool>,
    /// The client must be told by a reset that its answer is not whole: nothing more is read.
    pub(super) lost: Cell<bool>,
}

/// Sends a request that is whole and delivers its answer. Where that is a 101, what came behind it
/// takes the place of the request in `outbox`.
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
    let asked = exchange.timing.ask();
    let (sent, back) = up
        .write(mem::take(outbox), timeouts.send_idle, Late::UpstreamSend)
        .await;
    let wait = exchange.timing.done(asked);
    *outbox = back;
    if sent.is_err() {
        return Err(Broken::new(upstream_fault(link.stream.cut_for(), false)));
    }
    exchange.timing.request_part_sent(wait);
    exchange.timing.request_sent();
    link.stream.reading().arm(timeouts.response, Late::Response);
    let duplex = Duplex::default();
    duplex.uploaded.set(true);
    let mut down = Down::new(
        exchange,
        link.stream.incoming(),
        client.stream.outgoing(),
        &duplex,
    );
    let delivered = down.deliver().await?;
    if delivered.after == ClientConnection::Tunnel {
        let behind = down.take_behind();
        exchange.shard.stock.put(mem::replace(outbox, behind));
    }
    Ok(delivered)
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
        let from = client.stream.incoming_half(&mut client_read);
        let to = link.stream.outgoing_half(&mut link_write);
        let mut up = Up {
            exchange,
            from,
            to,
            inbox,
            order,
            duplex: &duplex,
        };
        up.upload().await;
        if duplex.uploaded.get() && !duplex.answered.get() {
            let response = exchange.service.timeouts.response;
            link.stream.reading().arm(response, Late::Response);
        }
    };
    let down = async {
        let from = link.stream.incoming_half(&mut link_read);
        let to = client.stream.outgoing_half(&mut client_write);
        let mut down = Down::new(exchange, from, to, &duplex);
        let mut delivered = down.deliver().await;
        match &mut delivered {
            Ok(delivered) => {
                duplex.ended.set(true);
                // It has its answer; how its body ends is found out by reading it.
                client.stream.reading().unguard();
                // What comes while the connection is still in use is not looked for by the answer.
                delivered.suspect |= !duplex.uploaded.get();
                if !duplex.uploaded.get() && delivered.after == ClientConnection::Close {
                    // So that the client learns of the end while it still sends.
                    down.end_client();
                }
            }
            Err(broken) => {
                if matches!(broken.reach, Reach::Nothing | Reach::Begun)
                    && !broken.fault.is_unanswerable()
                {
                    exchange.count_own_answer(broken.fault);
                    down.own_answer(broken.fault).await;
                    broken.reach = Reach::OwnAnswer;
                }
                duplex.over.set(true);
                down.cut_endpoint();
                if broken.reach == Reach::Unmarked {
                    // A FIN of ours would end the answer.
                    duplex.lost.set(true);
                    fd::cut(client.stream.fd(), Cut::Reading);
                } else if !duplex.uploaded.get() {
                    down.end_client();
                    client.stream.reading().arm(LINGER, Late::Linger);
                }
            }
        }
        delivered
    };
    let ((), delivered) = both(up, down).await;
    client.stream.unite(client_read, client_write);
    link.stream.unite(link_read, link_write);
    delivered.map(|delivered| Delivered {
        reusable: delivered.reusable && duplex.uploaded.get(),
        suspect: delivered.suspect,
        after: if order.body.is_done() {
            delivered.after
        } else {
            ClientConnection::Close
        },
    })
}
