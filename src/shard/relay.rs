//! One try of an exchange on one upstream connection: the request goes up, the answer comes down.
//!
//! Where the request is whole, it is sent and then only the way down is run. Otherwise both ways
//! run in one task and tell each other how far they are through [`Progress`]; neither is dropped
//! halfway, the connections are cut instead and both run out.

use std::mem;

use super::buffer::Buffer;
use super::client::{After, Client};
use super::deadline::Late;
use super::deliver::{Down, upstream_fault};
use super::io::{CallOff, Stream, beside, both, sleep};
use super::linger::LINGER;
use super::serve::{Exchange, Order};
use super::upload::Up;
use super::upstream::{Link, Tries};
use crate::fd::{self, Cut};
use crate::http::exchange::{Broken, Progress, Reach};
use crate::plan::TICK;

/// An exchange that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delivered {
    /// The upstream connection can carry another exchange.
    pub(super) reusable: bool,
    /// True exactly when the answer had no body, which an endpoint in error may send all the same.
    pub(super) suspect: bool,
    /// What becomes of the client's connection.
    pub(super) after: After,
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
    let asked = exchange.timing.ask();
    let (sent, back) = up
        .write(mem::take(outbox), timeouts.send_idle, Late::UpstreamSend)
        .await;
    let wait = exchange.timing.done(asked);
    *outbox = back;
    if sent.is_err() {
        return Err(upstream_fault(link.stream.cut_for(), false).into());
    }
    exchange.timing.request_part_sent(wait);
    exchange.timing.request_sent();
    link.stream.reading().arm(timeouts.response, Late::Response);
    let progress = Progress::new(true, false);
    let delivered = Down::new(
        exchange,
        link.stream.incoming(),
        client.stream.outgoing(),
        &progress,
    )
    .deliver()
    .await;
    delivered.map_err(|fault| progress.broken(fault))
}

/// Sends a request while its body still comes, and delivers its answer, which may come before that
/// body has ended. `tries` says whether a connection that dies may be replaced.
pub(super) async fn both_ways<'e>(
    exchange: &Exchange<'e>,
    link: &mut Link<'_>,
    client: &mut Client,
    inbox: &mut Buffer,
    order: &mut Order<'e>,
    tries: &Tries,
) -> Result<Delivered, Broken> {
    let progress = Progress::new(false, order.is_withheld());
    let calling_off = CallOff::default();
    if order.told {
        progress.continue_said();
    }
    if !order.is_kept() {
        progress.request_not_kept();
    }
    let reused = link.reused;
    let (mut client_read, mut client_write) = client.stream.divide();
    let (mut link_read, mut link_write) = link.stream.divide();
    let up = async {
        let from = client.stream.incoming_half(&mut client_read);
        let to = link.stream.outgoing_half(&mut link_write);
        Up::new(
            exchange,
            (from, to),
            inbox,
            order,
            (&progress, &calling_off),
        )
        .upload()
        .await;
        if progress.is_sent() && !progress.is_answered() {
            let response = exchange.service.timeouts.response;
            link.stream.reading().arm(response, Late::Response);
        }
    };
    let down = async {
        let from = link.stream.incoming_half(&mut link_read);
        let to = client.stream.outgoing_half(&mut client_write);
        let mut down = Down::new(exchange, from, to, &progress);
        let delivered = down.deliver().await;
        match &delivered {
            Ok(delivered) => {
                progress.answer_ends();
                // It has its answer; how its body ends is found out by reading it.
                client.stream.reading().unguard();
                if !progress.is_sent() && delivered.after == After::Close {
                    // So that the client learns of the end while it still sends.
                    down.end_client();
                }
            }
            Err(fault) => {
                let broken = progress.broken(*fault);
                if progress.is_kept() && tries.would_replay(exchange, &broken, reused) {
                    progress.answer_lost();
                    down.cut_endpoint();
                    calling_off.call_off();
                    return delivered;
                }
                let mut reach = broken.reach;
                if matches!(reach, Reach::Nothing | Reach::Begun) && !broken.fault.is_unanswerable()
                {
                    exchange.count_own_answer(broken.fault);
                    down.own_answer(broken.fault).await;
                    reach = Reach::OwnAnswer;
                }
                progress.answer_fails(reach);
                down.cut_endpoint();
                if reach == Reach::Unmarked {
                    // A FIN of ours would end the answer.
                    fd::cut(client.stream.fd(), Cut::Reading);
                } else if !progress.is_sent() {
                    down.end_client();
                    client.stream.reading().arm(LINGER, Late::Linger);
                }
            }
        }
        delivered
    };
    let ways = both(up, down);
    let ((), delivered) = beside(ways, say_continue(exchange, &client.stream, &progress)).await;
    client.stream.unite(client_read, client_write);
    link.stream.unite(link_read, link_write);
    order.told = progress.has_said_continue();
    let delivered = delivered.map_err(|fault| progress.broken(fault))?;
    Ok(Delivered {
        reusable: delivered.reusable && progress.endpoint_in_step(),
        after: if order.body.is_done() {
            delivered.after
        } else {
            After::Close
        },
        ..delivered
    })
}

/// Tells a client that waits for `100 Continue` to go on when the endpoint has said nothing for the
/// time that it has. RFC 9110 section 10.1.1 lets a proxy do that where it takes the next recipient
/// for one that does not know the expectation, and that silence is what tells.
async fn say_continue(exchange: &Exchange<'_>, client: &Stream, progress: &Progress) {
    let mut left = exchange.service.timeouts.until_continued.0;
    while progress.is_withheld() {
        if left == 0 && !client.writing().is_armed() && fd::send_now(client.fd(), CONTINUE) {
            progress.continue_said();
            return;
        }
        // Rare, and one for all that wait: the tick is as fine as the timeout.
        sleep(TICK).await;
        left = left.saturating_sub(1);
    }
}

/// RFC 9110 section 15.2.1.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
