//! Answers of ringmain's own: how one is sent, and what becomes of the connection after it.
//!
//! A request that was read to its end leaves the connection at the begin of the next one; after any
//! other the connection ends, and what still comes of the request is read away for a while, so that
//! the close does not reset the answer away (RFC 9112 section 9.6).

use super::Shard;
use super::buffer::SMALL;
use super::client::{After, Client};
use super::deadline::Late;
use super::linger::linger;
use super::tallies::ServiceTally;
use super::timing::Timing;
use crate::fault::Fault;
use crate::http::reply::{Reply, write_json, write_options, write_reply};
use crate::plan::Ticks;

/// An answer of ringmain's own.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    /// What it says.
    pub(super) tells: Tells<'a>,
    /// Its shape, as far as the request says.
    pub(super) reply: Reply,
    /// True exactly when nothing of the request is left to be read.
    pub(super) whole: bool,
    /// `None` when the request did not get as far as a service.
    pub(super) tally: Option<&'a ServiceTally>,
}

/// What an answer of ringmain's own says.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tells<'a> {
    /// To an OPTIONS that is to be forwarded no further: who answers.
    Options,
    /// Why there is no other answer.
    Fault(Fault),
    /// With this status, and the fault that it tells of if any, what came of each backend, in JSON.
    Fanout(u16, Option<Fault>, &'a [u8]),
}

impl Answer<'_> {
    /// Sends it to a client that may take nothing for `send_idle`. The connection goes on where the
    /// request was whole, so that the next one's begin is known.
    pub(super) async fn send(
        self,
        shard: &Shard,
        client: &mut Client,
        send_idle: Ticks,
        timing: &Timing<'_>,
    ) -> After {
        let Self {
            tells,
            mut reply,
            whole,
            tally,
        } = self;
        shard.counters.own_answers.add(1);
        reply.close |= !whole || client.is_leaving();
        let mut outbox = shard.stock.take(SMALL);
        let date = shard.clock.date();
        match tells {
            Tells::Options => write_options(outbox.tail(), &reply, &date),
            Tells::Fault(fault) => write_reply(outbox.tail(), fault, &reply, &date),
            Tells::Fanout(status, fault, content) => {
                write_json(outbox.tail(), (status, fault), content, &reply, &date);
            }
        }
        outbox.send_all();
        shard.counters.bytes_client_out.add(outbox.unsent() as u64);
        let asked = timing.ask();
        let (sent, outbox) = client
            .stream
            .outgoing()
            .write(outbox, send_idle, Late::ClientSend)
            .await;
        let wait = timing.done(asked);
        shard.stock.put(outbox);
        if sent.is_err() {
            return After::Close;
        }
        timing.answer_part_told(wait);
        if let Some(tally) = tally {
            timing.end(|phase, nanoseconds| tally.record(phase, nanoseconds));
        }
        if !reply.close {
            return After::KeepAlive;
        }
        if whole {
            return After::LastAnswer;
        }
        linger(shard, client).await;
        After::Close
    }
}
