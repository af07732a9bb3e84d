//! One attempt of a leg: the kept request goes to an endpoint of its backend, and the status of the
//! answer is all that counts.
//!
//! A task of its own, under the newest plan. It ends with its leg asleep or through; what is left
//! of the answer is then read away, so that the connection can carry another exchange.

use std::cell::Cell;
use std::mem;
use std::rc::Rc;

use super::super::buffer::{Buffer, MEDIUM, Shared, TINY};
use super::super::deadline::Late;
use super::super::deliver::{INTERIMS_MAX, upstream_fault};
use super::super::exchange::Exchange;
use super::super::order::Routed;
use super::super::timing::Timing;
use super::super::upstream::{self, Link};
use super::super::{Current, Shard};
use super::job::Job;
use super::leg::Ended;
use crate::balance;
use crate::fault::{Fault, Side};
use crate::http::framing::{Body, BodyLength, BodyLimits};
use crate::http::head::{FieldSpace, HeadScan, Response};
use crate::plan::{Backend, ServiceIndex, TICK};

/// Bytes of an answer's body that are read away; a longer one costs its connection.
const READ_AWAY_MAX: u64 = 256 * 1024;
/// From so many attempts under way on, each holds the least buffer for its answer.
const CROWD: u64 = 128;

/// An attempt of a leg.
#[derive(Debug)]
struct Attempt {
    shard: Rc<Shard>,
    job: Rc<Job>,
    leg: usize,
    /// True exactly when its leg knows how it ended.
    is_told: Cell<bool>,
}

/// Starts an attempt of a leg.
pub(super) fn start(shard: &Shard, job: &Rc<Job>, leg: usize) {
    let shard = shard.own();
    shard.counters.legs_running.add(1);
    let attempt = Attempt {
        shard: Rc::clone(&shard),
        job: Rc::clone(job),
        leg,
        is_told: Cell::new(false),
    };
    shard.start(async move { attempt.run().await });
}

impl Drop for Attempt {
    fn drop(&mut self) {
        // After a panic: a leg that nobody runs would never be through.
        self.tell(Ended::Failed(Fault::Internal));
    }
}

impl Attempt {
    async fn run(&self) {
        if self.job.is_over() {
            return self.tell(Ended::Failed(Fault::ClientGone));
        }
        let current = self.shard.current();
        let Some((service, backend)) = self.job.find(current.plan(), self.leg) else {
            return self.tell(Ended::Gone);
        };
        self.job.legs.borrow_mut()[self.leg].attempts += 1;
        if let Some(counters) = current.tally(service).counters.backends.get(backend) {
            counters.attempts.add(1);
        }
        if let Err(fault) = self.try_each(&current, service, backend).await {
            self.tell(Ended::Failed(fault));
        }
    }

    /// Tells the leg how the attempt has ended, once.
    fn tell(&self, ended: Ended) {
        if !self.is_told.replace(true) {
            self.job.attempt_ended(&self.shard, self.leg, ended);
        }
    }

    /// Sends the request on an idle connection where there is one; where that was stale, once more
    /// on a new one, which is the same attempt.
    async fn try_each(
        &self,
        current: &Current,
        service: ServiceIndex,
        backend: usize,
    ) -> Result<(), Fault> {
        let mut fresh = false;
        loop {
            let timing = Timing::new(&self.shard.clock, self.shard.clock.now());
            let routed = Routed {
                service,
                key: 0,
                facts: self.job.facts,
                offer: None,
            };
            let exchange = Exchange::new(&self.shard, current, &self.job.listener, routed, &timing);
            let Err((fault, is_stale)) = self.try_one(&exchange, backend, fresh).await else {
                return Ok(());
            };
            if !is_stale {
                return Err(fault);
            }
            exchange.counters.replays.add(1);
            self.shard.counters.upstreams_stale.add(1);
            fresh = true;
        }
    }

    /// One try on one connection.
    ///
    /// # Errors
    /// Why there was no answer, and whether that was because an idle connection was stale.
    async fn try_one(
        &self,
        exchange: &Exchange<'_>,
        backend: usize,
        fresh: bool,
    ) -> Result<(), (Fault, bool)> {
        let Exchange { shard, service, .. } = *exchange;
        let avoided = self.job.legs.borrow()[self.leg].failed_at;
        let Some(picked) = pick(exchange, &service.backends[backend], avoided) else {
            return Err((Fault::DnsError, false));
        };
        let (mut timeout, mut ends) = (service.timeouts.connect, None);
        if 0 < service.retry.attempt.0 {
            timeout = timeout.min(TICK * service.retry.attempt.0);
            // One more than asked for: the running tick is already partly over.
            ends = Some(
                shard
                    .clock
                    .tick()
                    .saturating_add(service.retry.attempt.0 + 1),
            );
        }
        let whose = self.job.whose.as_ref();
        let reach = upstream::reach_at(exchange, (picked, fresh), whose, timeout);
        let mut link = match reach.await {
            Ok(link) => link,
            Err(fault) => return Err((self.blame(exchange, fault), false)),
        };
        if !self
            .job
            .runs_on(self.leg, Some(link.stream.reading().entry()))
        {
            return Err((Fault::ClientGone, false));
        }
        if let Some(ends) = ends {
            link.stream.reading().bound(ends, Late::Attempt);
        }
        let answer = self.converse(exchange, &mut link).await;
        link.stream.reading().unbound();
        self.job.runs_on(self.leg, None);
        match answer {
            Ok(answer) => {
                exchange.endpoint_answered(answer.status);
                self.tell(Ended::Answered(answer.status));
                finish(exchange, link, answer).await;
                Ok(())
            }
            Err(fault) => {
                exchange.record_try();
                let is_stale = fault == Fault::ConnectionTerminated && link.reused && !fresh;
                if !is_stale {
                    self.blame(exchange, fault);
                }
                Err((fault, is_stale))
            }
        }
    }

    /// Notes `fault` of the endpoint of the running try, where it is to blame.
    fn blame(&self, exchange: &Exchange<'_>, fault: Fault) -> Fault {
        if fault.side() == Side::Upstream {
            exchange.endpoint_failed(Some(fault));
            let endpoint = &exchange.service.endpoints[exchange.endpoint.get()];
            self.job.legs.borrow_mut()[self.leg].failed_at = Some(endpoint.slot.index);
        }
        fault
    }

    /// Sends the request and waits for the head of the final answer.
    async fn converse(
        &self,
        exchange: &Exchange<'_>,
        link: &mut Link<'_>,
    ) -> Result<Answer, Fault> {
        let Exchange {
            shard,
            service,
            timing,
            ..
        } = exchange;
        let bytes = self.job.request().ok_or(Fault::ClientGone)?;
        shard.counters.bytes_upstream_out.add(bytes.len() as u64);
        let (mut up, shared) = (link.stream.outgoing(), Shared::new(&bytes));
        drop(bytes);
        let asked = timing.ask();
        let send_idle = service.timeouts.send_idle;
        let (sent, shared) = up.write(shared, send_idle, Late::UpstreamSend).await;
        drop(shared);
        let wait = timing.done(asked);
        let is_sent = sent.is_ok();
        match link.stream.cut_for() {
            _ if is_sent => {
                timing.request_part_sent(wait);
                timing.request_sent();
            }
            // It takes no more. It may have answered, as one does that wants no such body, and what
            // has come of that can still be read.
            None | Some(Late::UpstreamSend) => {}
            late => return Err(upstream_fault(late, false)),
        }
        link.stream
            .reading()
            .arm(service.timeouts.response, Late::Response);
        let is_crowded = shard.slots.is_crowded() || CROWD <= shard.counters.legs_running.get();
        let mut inbox = shard.stock.take(if is_crowded { TINY } else { MEDIUM });
        let mut answer = receive_head(exchange, link, &mut inbox).await;
        for _ in 0..INTERIMS_MAX {
            if !answer.as_ref().is_ok_and(|answer| answer.interim) {
                break;
            }
            timing.was_interim(!inbox.is_empty());
            answer = receive_head(exchange, link, &mut inbox).await;
        }
        link.stream.reading().disarm();
        match answer {
            Ok(answer) if answer.interim => Err(Fault::ResponseInvalid),
            Ok(answer) => Ok(Answer {
                keep_alive: answer.keep_alive && is_sent,
                inbox,
                ..answer
            }),
            Err(fault) => {
                shard.stock.put(inbox);
                Err(fault)
            }
        }
    }
}

/// An answer whose head was understood.
#[derive(Debug)]
struct Answer {
    status: u16,
    interim: bool,
    /// True exactly when the connection outlives it, if it is read to its end.
    keep_alive: bool,
    body: Body,
    /// What is here of it behind the head.
    inbox: Buffer,
}

/// Waits for a whole response head in `inbox` and takes it out.
async fn receive_head(
    exchange: &Exchange<'_>,
    link: &mut Link<'_>,
    inbox: &mut Buffer,
) -> Result<Answer, Fault> {
    let limits = exchange.service.response_head;
    let mut scan = HeadScan::response();
    loop {
        if !inbox.is_empty() {
            let end = scan.find_end(inbox.filled(), &limits);
            if let Some(length) = end.map_err(|error| error.response_fault())? {
                let answer = understand(exchange, &inbox.filled()[..length]);
                inbox.consume(length);
                return answer;
            }
        }
        exchange.shard.stock.promote(inbox);
        if !inbox.make_room(limits.bytes_max) {
            return Err(Fault::ResponseHeadTooLarge);
        }
        if !read(exchange, link, inbox).await {
            return Err(upstream_fault(link.stream.cut_for(), !inbox.is_empty()));
        }
    }
}

fn understand(exchange: &Exchange<'_>, head: &[u8]) -> Result<Answer, Fault> {
    let mut space = FieldSpace::new();
    let limits = &exchange.service.response_head;
    let response = Response::parse(head, limits, &mut space, exchange.facts.head_method, None)
        .map_err(|error| error.response_fault())?;
    let limits = BodyLimits {
        bytes_max: u64::MAX,
        trailer_bytes_max: exchange.listener.limits.trailer_bytes_max,
    };
    let body = Body::new(response.body, limits).map_err(|error| error.response_fault())?;
    Ok(Answer {
        status: response.status,
        interim: response.interim,
        keep_alive: response.keep_alive && response.body != BodyLength::UntilClose,
        body,
        inbox: Buffer::default(),
    })
}

/// Reads once; false when nothing more comes.
async fn read(exchange: &Exchange<'_>, link: &mut Link<'_>, inbox: &mut Buffer) -> bool {
    let Exchange { shard, timing, .. } = exchange;
    let listening = timing.answer_has_begun().then(|| timing.listen());
    let turn = shard.clock.turn();
    let (read, back) = link.stream.incoming().read(mem::take(inbox)).await;
    *inbox = back;
    let end = match listening {
        Some(listening) => timing.done(listening).end,
        None => shard.clock.ready_at(turn),
    };
    let Ok(count @ 1..) = read else { return false };
    shard.counters.bytes_upstream_in.add(count as u64);
    timing.answer_part_read(end);
    true
}

/// Reads the rest of an answer away, as far as that is worth its connection, which is kept then.
/// How it ends changes nothing for the leg.
async fn finish(exchange: &Exchange<'_>, mut link: Link<'_>, mut answer: Answer) {
    let shard = exchange.shard;
    let receive_idle = exchange.service.timeouts.receive_idle;
    let mut left = READ_AWAY_MAX;
    // Once for all of it: nobody waits for it.
    link.stream.reading().arm(receive_idle, Late::ResponseBody);
    let is_whole = answer.keep_alive
        && loop {
            let Ok(passed) = answer.body.pass(answer.inbox.filled()) else {
                break false;
            };
            answer.inbox.consume(passed.taken);
            left = left.saturating_sub(passed.taken as u64);
            if answer.body.is_done() {
                exchange.timing.answer_read();
                break answer.inbox.is_empty();
            }
            let is_long = answer.body.remaining().is_some_and(|more| left < more);
            if left == 0 || is_long || !read(exchange, &mut link, &mut answer.inbox).await {
                break false;
            }
            shard.give_way().await;
        };
    link.stream.reading().disarm();
    exchange.record_try();
    shard.stock.put(answer.inbox);
    if is_whole && link.stream.cut_for().is_none() {
        upstream::put_back(exchange, link);
    }
}

/// The endpoint of `backend` that the next attempt goes to: one that is in and not ejected where
/// there is one, another than the `avoided` one where it has others. `None` while its name stands
/// for no address.
fn pick(exchange: &Exchange<'_>, backend: &Backend, avoided: Option<u32>) -> Option<usize> {
    let Exchange {
        shard,
        service,
        running,
        ..
    } = exchange;
    let places = &backend.endpoints;
    if let [] | [_] = **places {
        return places.first().map(|place| *place as usize);
    }
    let limit = service.pool.shard_connections_max;
    let tick = shard.clock.tick();
    let first = balance::draw_below(places.len() as u32, &mut shard.generator.borrow_mut());
    let (before, behind) = places.split_at(first as usize);
    let places = behind.iter().chain(before).map(|place| *place as usize);
    places.min_by_key(|place| {
        let endpoint = &service.endpoints[*place];
        let is_out = !endpoint.standing.is_in() || running.members[*place].ejection.is_out(tick);
        let is_full = limit.is_some_and(|limit| !shard.pool.has_room(endpoint, limit));
        (is_out, avoided == Some(endpoint.slot.index), is_full)
    })
}
