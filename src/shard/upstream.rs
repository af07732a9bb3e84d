//! Reaching an endpoint: pick, take a pooled connection or make one, and what may be tried again.

use std::io;

use super::Shard;
use super::io::Stream;
use super::pool::Taken;
use super::serve::Exchange;
use crate::fault::{Fault, Side};
use crate::fd;
use crate::http::exchange::{Broken, Reach};
use crate::plan::Endpoint;
use crate::tally::{Phase, ShardCounters};

/// The most tries that any configuration allows, the first included.
const TRIES_MAX: usize = 16;

/// A connection to an endpoint, in use by an exchange.
#[derive(Debug)]
pub(super) struct Link<'a> {
    /// The connection.
    pub(super) stream: Stream,
    /// True exactly when it has carried an exchange before.
    pub(super) reused: bool,
    _in_use: InUse<'a>,
}

/// Counts a connection in where it is taken or made, and out where it is put back or closed.
#[derive(Debug)]
struct InUse<'a>(&'a ShardCounters);

impl<'a> Link<'a> {
    fn new(shard: &'a Shard, stream: Stream, reused: bool) -> Self {
        shard.counters.upstreams_in_use.add(1);
        Self {
            stream,
            reused,
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
    /// True exactly when the next pick is a further try, which counts once there is an endpoint for
    /// it.
    retrying: bool,
    last: Fault,
}

impl Tries {
    /// Nothing was tried yet; `attempts_max` further tries may follow the first.
    pub(super) fn new(attempts_max: u32) -> Self {
        Self {
            failed: [0; TRIES_MAX],
            count: 0,
            left: attempts_max,
            replayed: false,
            retrying: false,
            last: Fault::DestinationUnavailable,
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
        // What a connection held before it was used, or its end, is nothing that this request met.
        let stale = matches!(fault, Fault::ConnectionTerminated | Fault::ResponseInvalid);
        stale && reused && !self.replayed
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
        self.retrying = true;
        true
    }

    /// An endpoint that has not failed this exchange. With none left, one that only lost the
    /// connection may have another; one that can't be connected to is no use.
    fn pick(&self, exchange: &Exchange<'_>) -> Option<usize> {
        let failed = &self.failed[..self.count];
        let mut generator = exchange.shard.generator.borrow_mut();
        let mut picker = exchange.picker();
        picker
            .pick(&mut generator, |endpoint| {
                !failed.contains(&(endpoint as u32))
            })
            .or_else(|| {
                let again = self.last == Fault::ConnectionTerminated;
                again
                    .then(|| picker.pick(&mut generator, |_| true))
                    .flatten()
            })
    }
}

/// A connection to an endpoint of the exchange's service, for a request that may be `replayable`.
///
/// # Errors
/// The last fault, when every endpoint that may be tried has refused, or there was none.
pub(super) async fn reach<'a>(
    exchange: &Exchange<'a>,
    tries: &mut Tries,
    replayable: bool,
) -> Result<Link<'a>, Fault> {
    loop {
        let picked = tries.pick(exchange).ok_or(tries.last)?;
        let endpoint = &exchange.service.endpoints[picked];
        let counters = &exchange.counters.endpoints[picked];
        exchange.endpoint.set(picked);
        exchange
            .counters
            .retries
            .add(u64::from(std::mem::take(&mut tries.retrying)));
        counters.exchanges.add(1);
        log::debug!(service = &*exchange.service.name, endpoint = &*endpoint.name; "picked");
        // A stale connection is only found out by a look, and what can't be replayed must not meet
        // one; where one was stale, the others will be.
        let look = !replayable || tries.replayed;
        if let Some(link) = take(exchange, endpoint, look) {
            return Ok(link);
        }
        let fault = match connect(exchange, endpoint).await {
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

/// Keeps a connection whose exchange has ended cleanly.
pub(super) fn put_back(exchange: &Exchange<'_>, link: Link<'_>, suspect: bool) {
    let endpoint = &exchange.service.endpoints[exchange.endpoint.get()];
    let shard = exchange.shard;
    if shard.pool.put(
        endpoint,
        (link.stream, suspect),
        shard.clock.tick(),
        exchange.service.pool,
    ) {
        shard.counters.upstreams_idle.add(1);
    }
}

fn take<'a>(exchange: &Exchange<'a>, endpoint: &Endpoint, look: bool) -> Option<Link<'a>> {
    let shard = exchange.shard;
    let Taken { stream, stale } = shard.pool.take(endpoint, shard.clock.tick(), look);
    let reused = u64::from(stream.is_some());
    shard.counters.upstreams_stale.add(stale);
    shard.counters.upstreams_idle.sub(stale + reused);
    shard.counters.upstreams_reused.add(reused);
    stream.map(|stream| Link::new(shard, stream, true))
}

async fn connect<'a>(exchange: &Exchange<'a>, endpoint: &Endpoint) -> io::Result<Link<'a>> {
    let shard = exchange.shard;
    let timeout = exchange.service.timeouts.connect;
    let (stream, wait) = loop {
        let asked = exchange.timing.ask();
        let stream = Stream::connect(endpoint.address, timeout, &shard.wheel).await;
        let wait = exchange.timing.done(asked);
        // Idle connections must not keep one that is needed from being made.
        let is_starved = stream.as_ref().is_err_and(fd::is_out_of_descriptors);
        if !is_starved || !shard.pool.give_up_oldest() {
            break (stream?, wait);
        }
        shard.counters.upstreams_idle.sub(1);
        if !shard.nonblocking {
            // Closing takes the ring a turn.
            shard.pause.take().await;
        }
    };
    let (picked, took) = (exchange.endpoint.get(), wait.end - wait.begin);
    exchange
        .tally
        .record_both(picked, Phase::UpstreamConnect, took);
    shard.counters.upstreams_opened.add(1);
    Ok(Link::new(shard, stream, false))
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
