//! Reaching an endpoint: pick, take a pooled connection or make one, and what may be tried again.

use std::io;

use super::Shard;
use super::client::Client;
use super::io::Stream;
use super::pool::{Taken, Weeded};
use super::queue::{Given, Seat, TRIES_MAX, Wish};
use super::serve::Exchange;
use crate::balance::{Candidates, Load};
use crate::fault::{Fault, Side};
use crate::fd;
use crate::http::exchange::{Broken, Reach};
use crate::plan::Endpoint;
use crate::tally::{Phase, RetryReason, ShardCounters};

/// A connection to an endpoint, in use by an exchange.
#[derive(Debug)]
pub(super) struct Link<'a> {
    /// The connection.
    pub(super) stream: Stream,
    /// True exactly when it has carried an exchange before.
    pub(super) reused: bool,
    /// It lives as long as the connection, whoever has that: with it the connection counts.
    pub(super) seat: Seat,
    _in_use: InUse<'a>,
}

/// Counts a connection in where it is taken or made, and out where it is put back or closed.
#[derive(Debug)]
struct InUse<'a>(&'a ShardCounters);

impl<'a> Link<'a> {
    fn new(shard: &'a Shard, (stream, seat): (Stream, Seat), reused: bool) -> Self {
        shard.counters.upstreams_in_use.add(1);
        Self {
            stream,
            reused,
            seat,
            _in_use: InUse(&shard.counters),
        }
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        self.0.upstreams_in_use.sub(1);
    }
}

/// What an exchange has tried so far.
#[derive(Debug)]
pub(super) struct Tries {
    /// Endpoints that failed this exchange, by their place in the service.
    failed: [u32; TRIES_MAX],
    count: usize,
    /// Further tries that are left.
    left: u32,
    /// True exactly when a stale connection was replaced once; that is free, but only once.
    replayed: bool,
    /// Why the next pick is a further try, if it is one; counted once there is an endpoint for it.
    retrying: Option<RetryReason>,
    last: Fault,
    /// Its turn where it has to wait for a connection; 0 before it asks for one, and where there is
    /// no limit.
    ticket: u64,
    /// The tick up to which it may wait; `None` before it has to.
    deadline: Option<u32>,
}

impl Tries {
    /// Nothing was tried yet; `attempts_max` further tries may follow the first.
    pub(super) fn new(attempts_max: u32) -> Self {
        Self {
            failed: [0; TRIES_MAX],
            count: 0,
            left: attempts_max,
            replayed: false,
            retrying: None,
            last: Fault::DestinationUnavailable,
            ticket: 0,
            deadline: None,
        }
    }

    /// True when the exchange may go on after `broken` on a connection that was `reused` or not, by
    /// sending its request once more: no byte of a response had come, and the method allows it (RFC
    /// 9110 section 9.2.2). Whether the request is at hand is another question.
    pub(super) fn would_replay(
        &self,
        exchange: &Exchange<'_>,
        broken: &Broken,
        reused: bool,
    ) -> bool {
        let Broken { fault, reach } = *broken;
        let safe = reach == Reach::Nothing && exchange.facts.idempotent;
        let terminated = fault == Fault::ConnectionTerminated;
        safe && (self.is_free(fault, reused) || terminated && self.has_left())
    }

    /// True exactly when `fault` was that of a stale connection, and the first such.
    fn is_free(&self, fault: Fault, reused: bool) -> bool {
        fault == Fault::ConnectionTerminated && reused && !self.replayed
    }

    fn has_left(&self) -> bool {
        0 < self.left && self.count < TRIES_MAX
    }

    /// Notes that the running try is `broken`. True when the request, which is `kept`, is to be
    /// sent once more.
    pub(super) fn may_replay(
        &mut self,
        exchange: &Exchange<'_>,
        broken: &Broken,
        link: &Link<'_>,
        kept: bool,
    ) -> bool {
        let replayable = kept && self.would_replay(exchange, broken, link.reused);
        if replayable && self.is_free(broken.fault, link.reused) {
            self.replayed = true;
            exchange.counters.replays.add(1);
            exchange.shard.counters.upstreams_stale.add(1);
            return true;
        }
        if broken.fault.side() == Side::Upstream {
            exchange.counters.endpoints[exchange.endpoint.get()]
                .faults
                .add(1);
        }
        replayable && self.spend(exchange, broken.fault)
    }

    /// Notes that the running try failed. True when another may follow.
    fn spend(&mut self, exchange: &Exchange<'_>, fault: Fault) -> bool {
        self.last = fault;
        if !self.has_left() {
            return false;
        }
        self.failed[self.count] = exchange.endpoint.get() as u32;
        self.count += 1;
        self.left -= 1;
        self.retrying = Some(match fault {
            fault if fault.nothing_sent() => RetryReason::Connect,
            _ => RetryReason::Terminated,
        });
        true
    }

    /// An endpoint that has room and has not failed this exchange. With none left, one that only
    /// lost the connection may have another; one that can't be connected to is no use.
    fn pick(&self, exchange: &Exchange<'_>) -> Option<usize> {
        let failed = &self.failed[..self.count];
        let mut generator = exchange.shard.generator.borrow_mut();
        let mut picker = exchange.picker();
        let load = Load::default();
        let among = |barred| Among {
            exchange,
            barred,
            load: &load,
        };
        let picked = picker.pick(&among(failed), &mut generator);
        picked.or_else(|| {
            let repeated = self.may_repeat().then(|| among(&[]));
            repeated.and_then(|among| picker.pick(&among, &mut generator))
        })
    }

    /// True exactly when a connection ended under the exchange.
    fn has_lost_one(&self) -> bool {
        self.replayed || self.last == Fault::ConnectionTerminated
    }

    /// True exactly when an endpoint that failed may be tried again where there is no other.
    fn may_repeat(&self) -> bool {
        self.last == Fault::ConnectionTerminated
    }

    /// What the exchange waits for when no endpoint was picked; `None` when that is not for want of
    /// room.
    fn wish(&mut self, exchange: &Exchange<'_>, client: &Client) -> Option<Wish> {
        let pool = exchange.service.pool;
        let limit = pool.shard_connections_max?;
        let endpoints = &exchange.service.endpoints;
        let mut barred = [u32::MAX; TRIES_MAX];
        if !self.may_repeat() {
            let failed = &self.failed[..self.count];
            if endpoints.len() <= failed.len() {
                return None;
            }
            for (barred, failed) in barred.iter_mut().zip(failed) {
                *barred = endpoints[*failed as usize].slot;
            }
        }
        let now = exchange.shard.clock.tick();
        // One more than asked for: the running tick is already partly over.
        let latest = now.saturating_add(pool.queue.0 + 1);
        Some(Wish {
            ticket: self.ticket,
            barred,
            limit,
            deadline: *self.deadline.get_or_insert(latest),
            client: client.stream.reading().entry(),
        })
    }
}

/// The endpoints of the exchange's service that have room and are not `barred`.
#[derive(Debug)]
struct Among<'a> {
    exchange: &'a Exchange<'a>,
    /// Places in the service.
    barred: &'a [u32],
    load: &'a Load,
}

impl Candidates for Among<'_> {
    fn is_in(&self, place: usize) -> bool {
        !self.barred.contains(&(place as u32)) && has_room(self.exchange, place)
    }

    fn load(&self, _place: usize) -> &Load {
        self.load
    }

    fn now(&self) -> u64 {
        0
    }

    fn key(&self) -> u64 {
        self.exchange.key
    }
}

/// True when the endpoint at `endpoint` of the service can have one more exchange.
fn has_room(exchange: &Exchange<'_>, endpoint: usize) -> bool {
    let limit = exchange.service.pool.shard_connections_max;
    limit.is_none_or(|limit| {
        let endpoint = &exchange.service.endpoints[endpoint];
        exchange.shard.pool.has_room(endpoint, limit)
    })
}

/// A connection to an endpoint of the exchange's service.
///
/// # Errors
/// The last fault, when every endpoint that may be tried has refused, or there was none; and why
/// it was not waited for any longer, where each has as many connections as it may.
pub(super) async fn reach<'a>(
    exchange: &Exchange<'a>,
    client: &Client,
    tries: &mut Tries,
) -> Result<Link<'a>, Fault> {
    if exchange.service.pool.shard_connections_max.is_some() && tries.ticket == 0 {
        tries.ticket = exchange.shard.pool.draw_ticket();
    }
    loop {
        let seat = match tries.pick(exchange) {
            Some(picked) => {
                let endpoint = begin_try(exchange, tries, picked);
                if tries.has_lost_one() {
                    weed(exchange, endpoint);
                } else if let Some(link) = take(exchange, endpoint) {
                    return Ok(link);
                }
                exchange.shard.pool.seat(endpoint)
            }
            None => {
                let (picked, given) = wait(exchange, client, tries).await?;
                begin_try(exchange, tries, picked);
                let is_trusted = !tries.has_lost_one();
                match accept(exchange, given, is_trusted) {
                    Ok(link) => return Ok(link),
                    Err(seat) => seat,
                }
            }
        };
        let picked = exchange.endpoint.get();
        let counters = &exchange.counters.endpoints[picked];
        let endpoint = &exchange.service.endpoints[picked];
        let fault = match connect(exchange, endpoint, seat).await {
            Ok(link) => {
                counters.connects.add(1);
                return Ok(link);
            }
            Err(error) => connect_fault(&error),
        };
        if fault.side() != Side::Upstream {
            return Err(fault);
        }
        counters.faults.add(1);
        // Nothing was sent, so any method may go elsewhere.
        if !tries.spend(exchange, fault) {
            return Err(fault);
        }
    }
}

/// Counts a try on the endpoint at `picked` of the service.
fn begin_try<'a>(exchange: &Exchange<'a>, tries: &mut Tries, picked: usize) -> &'a Endpoint {
    let endpoint = &exchange.service.endpoints[picked];
    exchange.endpoint.set(picked);
    if let Some(reason) = tries.retrying.take() {
        exchange.counters.retries[reason.index()].add(1);
    }
    exchange.counters.endpoints[picked].exchanges.add(1);
    log::debug!(service = &*exchange.service.name, endpoint = &*endpoint.name; "picked");
    endpoint
}

/// Waits for room at an endpoint that may still be tried; says which it is.
async fn wait(
    exchange: &Exchange<'_>,
    client: &Client,
    tries: &mut Tries,
) -> Result<(usize, Given), Fault> {
    let wish = tries.wish(exchange, client).ok_or(tries.last)?;
    let (shard, service) = (exchange.shard, exchange.service);
    exchange.counters.limited.add(1);
    if service.pool.queue.0 == 0 {
        return Err(Fault::ConnectionLimitReached);
    }
    loop {
        let waiting = shard.pool.queue(&service.endpoints[0]).wait(wish);
        let watch = client.stream.reading();
        watch.guard_waiting();
        shard.counters.exchanges_waiting.add(1);
        let asked = exchange.timing.ask();
        let ended = waiting.await;
        exchange.timing.done(asked);
        shard.counters.exchanges_waiting.sub(1);
        watch.unguard();
        let given = ended?;
        let is_it = |endpoint: &Endpoint| endpoint.slot == given.seat.slot();
        if let Some(picked) = service.endpoints.iter().position(is_it) {
            return Ok((picked, given));
        }
        // An endpoint that came with a plan after the exchange's own: for the next in the queue.
    }
}

/// Keeps a connection whose exchange has ended cleanly.
pub(super) fn put_back(exchange: &Exchange<'_>, link: Link<'_>) {
    let endpoint = &exchange.service.endpoints[exchange.endpoint.get()];
    let shard = exchange.shard;
    let Link { stream, seat, .. } = link;
    let (now, limits) = (shard.clock.tick(), exchange.service.pool);
    if shard.pool.put(endpoint, (stream, seat), now, limits) {
        shard.counters.upstreams_idle.add(1);
    }
}

/// An idle connection.
fn take<'a>(exchange: &Exchange<'a>, endpoint: &Endpoint) -> Option<Link<'a>> {
    let shard = exchange.shard;
    let Taken { kept, stale } = shard.pool.take(endpoint);
    let reused = u64::from(kept.is_some());
    shard.counters.upstreams_stale.add(stale);
    shard.counters.upstreams_idle.sub(stale + reused);
    shard.counters.upstreams_reused.add(reused);
    kept.map(|kept| Link::new(shard, kept, true))
}

/// Makes room for a new connection. Where one was stale, the others will be; and a look can't tell
/// whether an endpoint is about to close one. Only a new one is none of these.
fn weed(exchange: &Exchange<'_>, endpoint: &Endpoint) {
    let Exchange { shard, service, .. } = exchange;
    let limit = service.pool.shard_connections_max;
    let Weeded { stale, closed } = shard.pool.weed(endpoint, limit);
    shard.counters.upstreams_stale.add(stale);
    shard.counters.upstreams_idle.sub(closed);
}

/// The connection that was `given`, where there is one and it can be used.
///
/// # Errors
/// Its seat, for a new one.
fn accept<'a>(exchange: &Exchange<'a>, given: Given, is_trusted: bool) -> Result<Link<'a>, Seat> {
    let Given { kept, seat } = given;
    let Some(stream) = kept.filter(|_| is_trusted) else {
        return Err(seat);
    };
    let counters = &exchange.shard.counters;
    if !fd::is_quiet(stream.fd()) {
        counters.upstreams_stale.add(1);
        return Err(seat);
    }
    counters.upstreams_reused.add(1);
    Ok(Link::new(exchange.shard, (stream, seat), true))
}

async fn connect<'a>(
    exchange: &Exchange<'a>,
    endpoint: &Endpoint,
    seat: Seat,
) -> io::Result<Link<'a>> {
    let shard = exchange.shard;
    let timeout = exchange.service.timeouts.connect;
    let (stream, wait) = loop {
        let asked = exchange.timing.ask();
        let stream = Stream::connect(endpoint.address, timeout, &shard.wheel).await;
        let wait = exchange.timing.done(asked);
        // Idle connections must not keep one that is needed from being made.
        let is_starved = stream.as_ref().is_err_and(fd::is_out_of_descriptors);
        if !is_starved || !shard.give_up_idle(1).await {
            break (stream?, wait);
        }
    };
    let (picked, took) = (exchange.endpoint.get(), wait.end - wait.begin);
    exchange
        .tally
        .record_both(picked, Phase::UpstreamConnect, took);
    shard.counters.upstreams_opened.add(1);
    Ok(Link::new(shard, (stream, seat), false))
}

/// The cause behind a failed connect. Errors that speak of no refusal and no lateness speak of the
/// way there.
fn connect_fault(error: &io::Error) -> Fault {
    match error.kind() {
        _ if fd::is_exhaustion(error) => Fault::ConnectionLimitReached,
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => {
            Fault::ConnectionRefused
        }
        io::ErrorKind::TimedOut => Fault::ConnectionTimeout,
        _ => Fault::DestinationUnroutable,
    }
}
