//! One try of an exchange on one upstream connection: the request goes up, the answer comes down.
//!
//! Where the request is whole, it is sent and then only the way down is run. Otherwise both ways
//! run in one task and tell each other how far they are through [`Progress`]; neither is dropped
//! halfway, the connections are cut instead and both run out.

use std::mem;
use std::pin::pin;

use super::buffer::{Buffer, SMALL, Share};
use super::client::Client;
use super::deadline::Late;
use super::deliver::{Down, upstream_fault};
use super::exchange::Exchange;
use super::io::{CallOff, ReadHalf, Stream, WriteHalf, beside, both, sleep};
use super::linger::LINGER;
use super::order::Order;
use super::tries::Tries;
use super::upload::Up;
use super::upstream::Link;
use crate::fault::Fault;
use crate::fd::{self, Cut};
use crate::http::exchange::{Broken, Progress, Reach};
use crate::http::hop::ClientConnection;
use crate::plan::TICK;

/// An exchange that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delivered {
    /// The status of the answer.
    pub(super) status: u16,
    /// True exactly when nothing of it went to the client, and the request is to be sent once more.
    pub(super) is_dropped: bool,
    /// The upstream connection can carry another exchange.
    pub(super) reusable: bool,
    /// What becomes of the client's connection; where it is a tunnel, so is the upstream one.
    pub(super) after: ClientConnection,
}

/// Sends a request that is whole and delivers its answer.
pub(super) async fn one_way(
    exchange: &Exchange<'_>,
    link: &mut Link<'_>,
    client: &mut Client,
    order: &mut Order,
    tries: &Tries,
) -> Result<Delivered, Broken> {
    let Exchange { shard, timing, .. } = exchange;
    let timeouts = &exchange.service.timeouts;
    let outbox = mem::take(&mut order.outbox);
    let counters = &shard.counters;
    counters.bytes_upstream_out.add(outbox.unsent() as u64);
    let mut up = link.stream.outgoing();
    let asked = timing.ask();
    let (sent, outbox) = up
        .write(outbox, timeouts.send_idle, Late::UpstreamSend)
        .await;
    let wait = timing.done(asked);
    if order.is_kept() {
        order.outbox = outbox;
    } else {
        shard.stock.put(outbox);
    }
    if sent.is_err() {
        return Err(upstream_fault(link.stream.cut_for(), false).into());
    }
    timing.request_part_sent(wait);
    timing.request_sent();
    link.stream.reading().arm(timeouts.response, Late::Response);
    let progress = Progress::new(&exchange.facts, true, false);
    if order.told {
        progress.continue_said();
    }
    if !order.is_kept() {
        progress.request_not_kept();
    }
    let halves = (link.stream.incoming(), client.stream.outgoing());
    let mut down = Down::new(exchange, halves, &progress, tries);
    let delivered = down.deliver().await;
    let delivered = delivered.map_err(|fault| progress.broken(fault))?;
    if delivered.after == ClientConnection::Tunnel {
        let behind = down.take_behind();
        shard.stock.put(mem::replace(&mut order.outbox, behind));
    }
    Ok(Delivered {
        reusable: delivered.reusable && progress.endpoint_in_step(),
        ..delivered
    })
}

/// Sends a request while its body still comes, and delivers its answer, which may come before that
/// body has ended. `tries` says whether a connection that dies may be replaced.
pub(super) async fn both_ways(
    exchange: &Exchange<'_>,
    link: &mut Link<'_>,
    client: &mut Client,
    (inbox, order): (&mut Buffer, &mut Order),
    tries: &Tries,
) -> Result<Delivered, Broken> {
    let progress = Progress::new(&exchange.facts, false, order.is_withheld(&exchange.facts));
    if order.told {
        progress.continue_said();
    }
    if !order.is_kept() {
        progress.request_not_kept();
    }
    let (mut client_read, mut client_write) = client.stream.divide();
    let (mut link_read, mut link_write) = link.stream.divide();
    let ways = Ways {
        exchange,
        client: &client.stream,
        endpoint: &link.stream,
        progress: &progress,
        calling_off: CallOff::default(),
        replay: (tries, link.reused),
    };
    let held = client.held.take();
    let (share, delivered) = {
        let share = held.unwrap_or_else(|| exchange.shard.stock.share());
        let halves = (&mut client_read, &mut link_write);
        let up = pin!(ways.up(halves, (&mut *inbox, share), order));
        let down = pin!(ways.down((&mut link_read, &mut client_write)));
        let both = pin!(both(up, down));
        if progress.is_withheld() {
            beside(both, Box::pin(ways.say_continue())).await
        } else {
            both.await
        }
    };
    // What it has read of its next requests is paid for as long as it is there.
    client.held = Some(share).filter(|_| SMALL < inbox.capacity());
    client.stream.unite(client_read, client_write);
    link.stream.unite(link_read, link_write);
    order.told = progress.has_said_continue();
    let delivered = delivered.map_err(|fault| progress.broken(fault))?;
    Ok(Delivered {
        reusable: delivered.reusable && progress.endpoint_in_step(),
        after: if order.body.is_done() {
            delivered.after
        } else {
            ClientConnection::Close
        },
        ..delivered
    })
}

/// The two ways of one try, between a client and an endpoint.
#[derive(Debug)]
struct Ways<'a, 'e> {
    exchange: &'a Exchange<'e>,
    client: &'a Stream,
    endpoint: &'a Stream,
    progress: &'a Progress,
    /// Of the way up.
    calling_off: CallOff,
    /// Whether there may be another try, and whether this one's connection was used before.
    replay: (&'a Tries, bool),
}

impl<'e> Ways<'_, 'e> {
    /// From the client to the endpoint.
    async fn up(
        &self,
        (from, to): (&mut ReadHalf, &mut WriteHalf),
        inbox: (&mut Buffer, Share),
        order: &mut Order,
    ) -> Share {
        let halves = (
            self.client.incoming_half(from),
            self.endpoint.outgoing_half(to),
        );
        let state = (self.progress, &self.calling_off);
        let mut up = Up::new(self.exchange, halves, inbox, order, state);
        up.upload().await;
        let share = up.into_share();
        if self.progress.is_sent() && !self.progress.is_answered() {
            let response = self.exchange.service.timeouts.response;
            self.endpoint.reading().arm(response, Late::Response);
            let tries = self.replay.0;
            tries.request_sent(self.exchange, self.endpoint.reading());
        }
        share
    }

    /// From the endpoint to the client.
    async fn down(&self, (from, to): (&mut ReadHalf, &mut WriteHalf)) -> Result<Delivered, Fault> {
        let from = self.endpoint.incoming_half(from);
        let to = self.client.outgoing_half(to);
        let mut down = Down::new(self.exchange, (from, to), self.progress, self.replay.0);
        let delivered = down.deliver().await;
        match &delivered {
            Ok(delivered) if delivered.is_dropped => {}
            Ok(delivered) => self.delivered(delivered),
            Err(fault) => {
                let broken = self.progress.broken(*fault);
                if self.is_replayed(&broken) {
                    self.progress.answer_lost();
                    self.calling_off.call_off();
                } else {
                    self.tell(&mut down, broken).await;
                }
                fd::cut(self.endpoint.fd(), Cut::Both);
            }
        }
        delivered
    }

    /// The client has its answer.
    fn delivered(&self, delivered: &Delivered) {
        self.progress.answer_ends();
        // How the body ends is found out by reading it.
        self.client.reading().unguard();
        if !self.progress.is_sent() && delivered.after == ClientConnection::Close {
            // So that the client learns of the end while it still sends.
            fd::cut(self.client.fd(), Cut::Writing);
        }
    }

    fn is_replayed(&self, broken: &Broken) -> bool {
        let (tries, reused) = self.replay;
        self.progress.is_kept() && tries.would_replay(self.exchange, broken, reused)
    }

    /// Tells the client that there will be no answer, or no more of it.
    async fn tell(
        &self,
        down: &mut Down<'_, 'e, ReadHalf, WriteHalf>,
        Broken { fault, mut reach }: Broken,
    ) {
        let silent = matches!(reach, Reach::Nothing | Reach::Begun);
        if silent && !fault.is_unanswerable() {
            self.exchange.count_own_answer(fault);
            down.own_answer(fault).await;
            reach = Reach::OwnAnswer;
        }
        self.progress.answer_fails(reach);
        if reach == Reach::Unmarked {
            // A FIN of ours would end the answer.
            fd::cut(self.client.fd(), Cut::Reading);
        } else if !self.progress.is_sent() {
            fd::cut(self.client.fd(), Cut::Writing);
            self.client.reading().arm(LINGER, Late::Linger);
        }
    }

    /// Tells a client that waits for `100 Continue` to go on when the endpoint has said nothing for
    /// the time that it has. RFC 9110 section 10.1.1 lets a proxy do that where it takes the next
    /// recipient for one that does not know the expectation, and that silence is what tells.
    async fn say_continue(&self) {
        let mut left = self.exchange.service.timeouts.until_continued.0;
        while self.progress.is_withheld() {
            let is_free = left == 0 && !self.client.writing().is_armed();
            if is_free && fd::send_now(self.client.fd(), CONTINUE) {
                return self.progress.continue_said();
            }
            // The tick is as fine as the timeout; and only few wait.
            sleep(TICK).await;
            left = left.saturating_sub(1);
        }
    }
}

/// RFC 9110 section 15.2.1.
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
