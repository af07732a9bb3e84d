//! Reaching an endpoint: choose one, take a pooled connection or make one, wait where there is no
//! room.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::Shard;
use super::choose::{Choice, choose, would_choose};
use super::client::Client;
use super::exchange::Exchange;
use super::io::{Stream, either, sleep};
use super::pool::{Taken, Weeded};
use super::proxied::send_header;
use super::queue::{Given, Seat, Wait, Wish};
use super::service::Visit;
use super::tries::Tries;
use crate::fault::{Fault, Side};
use crate::fd;
use crate::plan::{Endpoint, TICK};
use crate::proxy_protocol::Addresses;
use crate::tally::{Phase, ShardCounters};

/// A connection to an endpoint, in use by an exchange.
#[derive(Debug)]
pub(super) struct Link<'a> {
    /// The connection.
    pub(super) stream: Stream,
    /// True exactly when it has carried an exchange before.
    pub(super) reused: bool,
    /// It lives as long as the connection, whoever has that: with it the connection counts.
    pub(super) seat: Seat,
    /// The exchange on it, counted at the endpoint.
    pub(super) visit: Visit,
    _in_use: InUse<'a>,
}

/// Counts a connection in where it is taken or made, and out where it is put back or closed.
#[derive(Debug)]
struct InUse<'a>(&'a ShardCounters);

impl<'a> Link<'a> {
    fn new(shard: &'a Shard, (stream, seat): (Stream, Seat), visit: Visit, reused: bool) -> Self {
        shard.counters.upstreams_in_use.add(1);
        Self {
            stream,
            reused,
            seat,
            visit,
            _in_use: InUse(&shard.counters),
        }
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        self.0.upstreams_in_use.sub(1);
    }
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
        let (visit, seat) = match choose(exchange, tries) {
            Choice::Picked(picked) => {
                let (endpoint, visit) = begin_try(exchange, tries, picked);
                if needs_new(exchange, tries) {
                    weed(exchange, endpoint);
                } else if let Some(kept) = take(exchange, endpoint) {
                    return Ok(Link::new(exchange.shard, kept, visit, true));
                }
                (visit, exchange.shard.pool.seat(endpoint))
            }
            Choice::Full => {
                let Some((picked, given)) = wait(exchange, client, tries).await? else {
                    continue;
                };
                let (_, visit) = begin_try(exchange, tries, picked);
                let is_trusted = !needs_new(exchange, tries);
                match accept(exchange, given, is_trusted) {
                    Ok(kept) => return Ok(Link::new(exchange.shard, kept, visit, true)),
                    Err(seat) => (visit, seat),
                }
            }
            Choice::Nobody => return Err(tries.last_fault()),
        };
        let timeout = tries.within(exchange, exchange.service.timeouts.connect);
        let is_cut_short = timeout < exchange.service.timeouts.connect;
        let whose = || client.addresses().map(Some);
        let begun = exchange.shard.clock.now();
        let connected = match tries.is_session() {
            false => connect(exchange, &whose, timeout).await,
            // In a box of its own it is not part of every exchange.
            true => Box::pin(connect_guarded(exchange, client, &whose, timeout)).await,
        };
        let fault = match connected {
            Ok(stream) => return Ok(Link::new(exchange.shard, (stream, seat), visit, false)),
            Err(fault) => fault,
        };
        if fault.side() != Side::Upstream {
            return Err(fault);
        }
        // Of an exchange that had spent its time elsewhere an endpoint can't be blamed for more.
        let is_late = fault == Fault::ConnectionTimeout && is_cut_short;
        if !(is_late && tries.has_rested()) {
            exchange.endpoint_failed(Some(fault).filter(|_| !is_late));
        }
        if tries.is_over(exchange) {
            return Err(Fault::ExchangeTimeout);
        }
        let took = Duration::from_nanos(exchange.shard.clock.now() - begun);
        if !tries.may_connect_again(exchange, fault, took) {
            return Err(fault);
        }
    }
}

/// True exactly when only a new connection will do: where one was stale, others will be; a session
/// can't use one that has carried requests; and where endpoints are told whose a connection is, one
/// that an earlier plan has left says nothing.
fn needs_new(exchange: &Exchange<'_>, tries: &Tries) -> bool {
    let is_told = exchange.service.send_proxy_protocol.is_some();
    tries.has_lost_one() || tries.is_session() || is_told
}

/// A connection to the endpoint at `picked` of the service and to no other, made within `timeout`;
/// one that nobody has used before where it has to be `fresh`. `whose` it is the endpoint is told
/// where the service says so.
///
/// # Errors
/// Why there is none: as [`reach`], but nobody waits for room.
pub(super) async fn reach_at<'a>(
    exchange: &Exchange<'a>,
    (picked, fresh): (usize, bool),
    whose: Option<&Addresses>,
    timeout: Duration,
) -> Result<Link<'a>, Fault> {
    let Exchange { shard, service, .. } = *exchange;
    let (endpoint, visit) = begin_visit(exchange, picked);
    let limit = service.pool.shard_connections_max;
    if limit.is_some_and(|limit| !shard.pool.has_room(endpoint, limit)) {
        exchange.counters.limited.add(1);
        return Err(Fault::ConnectionLimitReached);
    }
    if fresh || service.send_proxy_protocol.is_some() {
        weed(exchange, endpoint);
    } else if let Some(kept) = take(exchange, endpoint) {
        return Ok(Link::new(shard, kept, visit, true));
    }
    let seat = shard.pool.seat(endpoint);
    let stream = connect(exchange, &|| Ok(whose.copied()), timeout).await?;
    Ok(Link::new(shard, (stream, seat), visit, false))
}

/// Counts a try on the endpoint at `picked` of the service.
fn begin_try<'a>(
    exchange: &Exchange<'a>,
    tries: &mut Tries,
    picked: usize,
) -> (&'a Endpoint, Visit) {
    let begun = begin_visit(exchange, picked);
    if let Some(reason) = tries.begin(exchange) {
        exchange.counters.retries[reason.index()].add(1);
    }
    begun
}

/// Counts what begins at the endpoint at `picked` of the service.
fn begin_visit<'a>(exchange: &Exchange<'a>, picked: usize) -> (&'a Endpoint, Visit) {
    let endpoint = &exchange.service.endpoints[picked];
    exchange.endpoint.set(picked);
    exchange.counters.endpoints[picked].exchanges.add(1);
    log::debug!(service = &*exchange.service.name, endpoint = &*endpoint.name; "picked");
    let visit = Visit::begin(&exchange.running.members[picked]);
    (endpoint, visit)
}

/// Waits for room at an endpoint that may be used; says which it is. `None` where it was given room
/// at one that is not to be used now: others may be by then.
async fn wait(
    exchange: &Exchange<'_>,
    client: &Client,
    tries: &mut Tries,
) -> Result<Option<(usize, Given)>, Fault> {
    let Exchange { shard, service, .. } = exchange;
    if !tries.has_waited() {
        exchange.counters.limited.add(1);
    }
    if service.pool.queue.0 == 0 {
        return Err(Fault::ConnectionLimitReached);
    }
    shard.counters.exchanges_waiting.add(1);
    let Some(waiting) = queue(exchange, client, tries) else {
        shard.counters.exchanges_waiting.sub(1);
        return Ok(None);
    };
    let ended = wait_guarded(exchange, client, waiting).await;
    shard.counters.exchanges_waiting.sub(1);
    let given = ended.map_err(|fault| match fault {
        Fault::ConnectionLimitReached if tries.is_over(exchange) => Fault::ExchangeTimeout,
        fault => fault,
    })?;
    let is_it = |endpoint: &Endpoint| endpoint.slot == given.seat.slot();
    if let Some(picked) = service.endpoints.iter().position(is_it)
        && would_choose(exchange, tries, picked)
    {
        return Ok(Some((picked, given)));
    }
    // An endpoint that came with a plan after the exchange's own, or that is not to be used now:
    // for the next in the queue.
    given.pass_on(tries.ticket);
    Ok(None)
}

/// Goes to its place in the queue of the service. `None` where there is room by now.
fn queue(exchange: &Exchange<'_>, client: &Client, tries: &mut Tries) -> Option<Wait> {
    let Exchange { shard, service, .. } = exchange;
    let limit = service.pool.shard_connections_max;
    let wish = Wish {
        ticket: tries.ticket,
        barred: tries.barred(exchange),
        limit: limit.expect("an endpoint without a limit is not full"),
        deadline: tries.queue_ends(exchange),
        client: client.stream.reading().entry(),
    };
    shard.pool.queue(service).map(|queue| queue.wait(wish))
}

/// Waits, while a client that is gone is noticed.
async fn wait_guarded(
    exchange: &Exchange<'_>,
    client: &Client,
    waiting: Wait,
) -> Result<Given, Fault> {
    let watch = client.stream.reading();
    watch.guard_waiting();
    let asked = exchange.timing.ask();
    let ended = waiting.await;
    exchange.timing.done(asked);
    watch.unguard();
    ended
}

/// Rests for `duration` before the next try.
///
/// # Errors
/// `ClientGone`, `DrainTimeout`.
pub(super) async fn rest(
    exchange: &Exchange<'_>,
    client: &Client,
    duration: Duration,
) -> Result<(), Fault> {
    let shard = exchange.shard;
    let ticks = (duration.as_nanos() / TICK.as_nanos()) as u32;
    if 0 < ticks {
        let deadline = shard.clock.tick().saturating_add(ticks);
        let wish = nap(shard, client, deadline);
        let waiting = Rc::clone(&shard.naps).wait(wish);
        match wait_guarded(exchange, client, waiting).await {
            Err(Fault::ConnectionLimitReached) | Ok(_) => {}
            Err(fault) => return Err(fault),
        }
    }
    let asked = exchange.timing.ask();
    sleep(duration - TICK * ticks).await;
    exchange.timing.done(asked);
    Ok(())
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
fn take(exchange: &Exchange<'_>, endpoint: &Endpoint) -> Option<(Stream, Seat)> {
    let shard = exchange.shard;
    let Taken { kept, stale } = shard.pool.take(endpoint);
    let reused = u64::from(kept.is_some());
    shard.counters.upstreams_stale.add(stale);
    shard.counters.upstreams_idle.sub(stale + reused);
    shard.counters.upstreams_reused.add(reused);
    kept
}

/// Makes room for a new connection. Where one was stale, the others will be; and a look can't tell
/// whether an endpoint is about to close one. Only a new one is none of these. Nor can a session
/// use one that has carried requests; but it looks at them only where room has to be made.
fn weed(exchange: &Exchange<'_>, endpoint: &Endpoint) {
    let Exchange { shard, service, .. } = exchange;
    let limit = service.pool.shard_connections_max;
    if exchange.is_session() && limit.is_none() {
        return;
    }
    let Weeded { stale, closed } = shard.pool.weed(endpoint, limit);
    shard.counters.upstreams_stale.add(stale);
    shard.counters.upstreams_idle.sub(closed);
}

/// The connection that was `given`, where there is one and it can be used.
///
/// # Errors
/// Its seat, for a new one.
fn accept(exchange: &Exchange<'_>, given: Given, is_trusted: bool) -> Result<(Stream, Seat), Seat> {
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
    Ok((stream, seat))
}

/// Whose the connection is that is made; `None` where nobody knows.
///
/// # Errors
/// Where the client is gone.
type Whose<'a> = &'a dyn Fn() -> io::Result<Option<Addresses>>;

/// A new connection to the endpoint of the running try, which has a seat for it. The endpoint is
/// told `whose` it is, where the service says so.
async fn connect(
    exchange: &Exchange<'_>,
    whose: Whose<'_>,
    timeout: Duration,
) -> Result<Stream, Fault> {
    let (shard, picked) = (exchange.shard, exchange.endpoint.get());
    let endpoint = &exchange.service.endpoints[picked];
    let (stream, wait) = loop {
        let asked = exchange.timing.ask();
        let stream = Stream::connect(endpoint.address, timeout, &shard.wheel).await;
        let wait = exchange.timing.done(asked);
        // Idle connections must not keep one that is needed from being made.
        let is_starved = stream.as_ref().is_err_and(fd::is_out_of_descriptors);
        if !is_starved || !shard.give_up_idle(1).await {
            break (stream.map_err(|error| connect_fault(&error))?, wait);
        }
    };
    let took = wait.end - wait.begin;
    exchange
        .tally
        .record_both(picked, Phase::UpstreamConnect, took);
    exchange.counters.endpoints[picked].connects.add(1);
    shard.counters.upstreams_opened.add(1);
    if exchange.is_session() {
        exchange.endpoint_connected(took);
    }
    if let Some(version) = exchange.service.send_proxy_protocol {
        let addresses = whose().map_err(|_gone| Fault::ClientGone)?;
        let sent = send_header(&stream, version, addresses.as_ref());
        let sent = sent.map_err(|error| connect_fault(&error))?;
        shard.counters.bytes_upstream_out.add(sent as u64);
    }
    Ok(stream)
}

/// As [`connect`], for a session: a client that is gone by then, and the end of the drain, end it.
async fn connect_guarded(
    exchange: &Exchange<'_>,
    client: &Client,
    whose: Whose<'_>,
    timeout: Duration,
) -> Result<Stream, Fault> {
    let shard = exchange.shard;
    let waiting = Rc::clone(&shard.naps).wait(nap(shard, client, u32::MAX));
    let watch = client.stream.reading();
    let (mut connected, mut gone) = (None, None);
    watch.guard_waiting();
    either(
        async { connected = Some(connect(exchange, whose, timeout).await) },
        async { gone = waiting.await.err() },
    )
    .await;
    watch.unguard();
    connected.unwrap_or(Err(gone.unwrap_or(Fault::ClientGone)))
}

/// What `client` waits for where nobody has anything to give: until the tick `deadline`.
fn nap(shard: &Shard, client: &Client, deadline: u32) -> Wish {
    let entry = client.stream.reading().entry();
    Wish::time(shard.pool.draw_ticket(), deadline, entry)
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
