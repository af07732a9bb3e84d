//! A tunnel: a client's connection and an endpoint's that have left HTTP by a 101 (RFC 9110 section
//! 7.8) or never spoke it ([`tcp`](super::tcp)), whose bytes go both ways as they are until both
//! sides have ended.
//!
//! It is no exchange: that ended with the 101, or when the endpoint was connected. So it runs in
//! the client's own task, outside of the slots, holds neither its service nor the plan that it
//! began under (they would be as old as it, and the shard would free them), has no fault, and is
//! counted apart. Its connection is never pooled.
//!
//! Each way is a loop of one read and one write through one buffer, so that a side that takes
//! nothing holds the other one back. While a way waits for bytes, that is the least buffer, unless
//! the last bytes filled theirs. A way whose bytes have filled one of 16 KiB or more goes on by
//! splice(2), through a pipe ([`pipes`](super::pipes)), as long as they come in bulk.
//!
//! How the end of one side reaches the other:
//!
//! | What happens | What the other side gets |
//! | --- | --- |
//! | it ends its side (FIN) | what was sent before, then a FIN; the other way goes on |
//! | it resets, or is in error | a reset, at once |
//! | it takes nothing for `tunnel_idle` | a reset, at once |
//! | nothing goes either way for `tunnel_idle` | both get a FIN, and are closed |
//! | the drain is over | both get a FIN, and are closed |

use std::cell::Cell;
use std::io;
use std::mem;
use std::os::fd::RawFd;
use std::pin::pin;
use std::sync::Arc;

use super::Shard;
use super::admit::Admission;
use super::buffer::{Buffer, LARGE, MEDIUM, Share, TINY};
use super::client::Client;
use super::deadline::Late;
use super::exchange::Exchange;
use super::io::{Incoming, Outgoing, ReadHalf, Ready, Stream, WriteHalf, both, either};
use super::pipes::Lent;
use super::queue::Seat;
use super::service::Visit;
use super::upstream::Link;
use crate::fd::{self, Cut};
use crate::plan::Ticks;
use crate::tally::{Counter, Phase, ServiceCounters};

/// A tunnel that is about to run.
#[derive(Debug)]
pub(super) struct Tunnel {
    /// The connection to the endpoint.
    stream: Stream,
    /// With it the connection counts against `connections_max`. Dropped after it.
    seat: Seat,
    /// With it the tunnel counts as an exchange at the endpoint.
    _visit: Visit,
    /// What the client sent behind its request.
    from_client: Buffer,
    /// What the endpoint sent behind its 101.
    from_endpoint: Buffer,
    /// Its service's name, for the log.
    service: Box<str>,
    idle: Ticks,
    /// With it the tunnel counts against the limits of its service.
    _admission: Option<Admission>,
    /// When its client was accepted, in nanoseconds of the shard's clock, where that is all that it
    /// came for: a session of TCP. Its end is recorded.
    session: Option<u64>,
    open: Open,
}

/// Counts a tunnel in where it is made and out where it is dropped, whatever ends it.
#[derive(Debug)]
struct Open(Arc<ServiceCounters>);

impl Open {
    fn count(counters: &Arc<ServiceCounters>) -> Self {
        counters.tunnels.add(1);
        counters.tunnels_open.add(1);
        Self(Arc::clone(counters))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.tunnels_open.sub(1);
    }
}

impl Tunnel {
    /// Over the endpoint's `link`, on which `behind` has come behind the 101 of the exchange, whose
    /// `admission` it takes over.
    pub(super) fn new(
        exchange: &Exchange<'_>,
        link: Link<'_>,
        behind: Buffer,
        admission: Option<Admission>,
    ) -> Self {
        let Link {
            stream,
            seat,
            visit,
            ..
        } = link;
        Self {
            stream,
            seat,
            _visit: visit,
            from_client: Buffer::default(),
            from_endpoint: behind,
            service: exchange.service.name.clone(),
            idle: exchange.service.timeouts.tunnel_idle,
            _admission: admission,
            session: None,
            open: Open::count(&exchange.tally.counters),
        }
    }

    /// It is a session of TCP, whose client was accepted at `begun`.
    pub(super) fn is_session_since(&mut self, begun: u64) {
        self.session = Some(begun);
    }

    /// The client has sent `behind` behind its request.
    pub(super) fn begin_with(&mut self, behind: Buffer) {
        self.from_client = behind;
    }

    /// Runs it to its end; what then remains is to close both connections.
    pub(super) async fn run(mut self, shard: &Shard, client: &mut Client) {
        self.stream.belongs_to(client.listener().id);
        let (mut client_read, mut client_write) = client.stream.divide();
        let (mut endpoint_read, mut endpoint_write) = self.stream.divide();
        let pair = Pair {
            client: &client.stream,
            endpoint: &self.stream,
            idle: self.idle,
            writes: Cell::new(0),
            broken: Cell::new(false),
        };
        pair.watch_idle();
        let (up_ended, down_ended) = (Cell::new(false), Cell::new(false));
        let (counters, service) = (&shard.counters, &self.open.0);
        let mut up = Way {
            shard,
            pair: &pair,
            source: pair.client,
            sink: pair.endpoint,
            from: pair.client.incoming_half(&mut client_read),
            to: pair.endpoint.outgoing_half(&mut endpoint_write),
            buffer: mem::take(&mut self.from_client),
            share: shard.stock.share(),
            ended: &up_ended,
            other_ended: &down_ended,
            came: &counters.bytes_client_in,
            went: [&counters.bytes_upstream_out, &service.tunnel_bytes_up],
        };
        let mut down = Way {
            shard,
            pair: &pair,
            source: pair.endpoint,
            sink: pair.client,
            from: pair.endpoint.incoming_half(&mut endpoint_read),
            to: pair.client.outgoing_half(&mut client_write),
            buffer: mem::take(&mut self.from_endpoint),
            share: shard.stock.share(),
            ended: &down_ended,
            other_ended: &up_ended,
            came: &counters.bytes_upstream_in,
            went: [&counters.bytes_client_out, &service.tunnel_bytes_down],
        };
        // Pinned here: what is moved into a future is held twice by it.
        both(pin!(up.run()), pin!(down.run())).await;
        drop((up, down));
        let ended = pair.how();
        log::debug!(service = &*self.service, ended; "tunnel ended");
        // A half that is dropped alone sends a FIN, which must not come before a reset.
        client.stream.unite(client_read, client_write);
        self.stream.unite(endpoint_read, endpoint_write);
        self.record(shard);
    }

    /// Records how long a session took, for what the newest plan has of its service: the tallies
    /// that it began with may be as old as it.
    fn record(&self, shard: &Shard) {
        let Some(begun) = self.session else { return };
        let current = shard.current();
        let mut services = current.plan().services.iter();
        let Some(index) = services.position(|service| service.name == self.service) else {
            return;
        };
        let (service, tally) = (&current.plan().services[index], &current.tallies[index]);
        let took = shard.clock.now() - begun;
        tally.record(Phase::Total, took);
        let slot = self.seat.slot();
        let mut endpoints = service.endpoints.iter();
        if let Some(endpoint) = endpoints.position(|endpoint| endpoint.slot == slot) {
            tally.record_endpoint(endpoint, Phase::Total, took);
        }
    }
}

/// What the two ways of a tunnel share.
#[derive(Debug)]
struct Pair<'a> {
    client: &'a Stream,
    endpoint: &'a Stream,
    idle: Ticks,
    /// Writes under way. While there are any, each has a deadline of its own, and the tunnel's does
    /// not run: what a side takes in parts goes through the tunnel, too.
    writes: Cell<u32>,
    /// True exactly when a side is to be told by a reset that not all has reached it.
    broken: Cell<bool>,
}

impl Pair<'_> {
    /// Something went through the tunnel just now: from here on nothing may go for so long. Both
    /// connections are cut, for a cut ends what is pending on its own connection alone.
    fn watch_idle(&self) {
        for stream in [self.client, self.endpoint] {
            stream.reading().arm(self.idle, Late::Tunnel);
        }
    }

    fn write_begins(&self) {
        self.writes.set(self.writes.get() + 1);
        for stream in [self.client, self.endpoint] {
            stream.reading().disarm();
        }
    }

    fn write_ends(&self) {
        self.writes.set(self.writes.get() - 1);
        if self.writes.get() == 0 {
            self.watch_idle();
        }
    }

    /// Why we have cut a connection, if we have.
    fn cut_for(&self) -> Option<Late> {
        self.client.cut_for().or_else(|| self.endpoint.cut_for())
    }

    /// How it ended, in a word for the log.
    fn how(&self) -> &'static str {
        match self.cut_for() {
            Some(Late::Tunnel) => "idle",
            Some(Late::Drain) => "drain",
            _ if self.broken.get() => "reset",
            _ => "closed",
        }
    }
}

/// How a way through a pipe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spliced {
    /// The bytes do not come in bulk any more, or it could not begin.
    Trickles,
    /// The source has ended its side; nothing is in the pipe.
    Ended,
    /// The tunnel can't go on.
    Broken,
}

/// Fewer bytes at once are cheaper to copy: that costs no pipe and fewer calls.
const SPLICE_MIN: usize = MEDIUM;
/// Where so few have come so many times in a row, they are copied from then on. Once is not enough:
/// before the bulk of each answer its head comes alone (bench/README.md).
const FEW_MAX: u32 = 3;

/// One way through a tunnel.
#[derive(Debug)]
struct Way<'a> {
    shard: &'a Shard,
    pair: &'a Pair<'a>,
    /// The connection that is read from.
    source: &'a Stream,
    /// The connection that is written to.
    sink: &'a Stream,
    from: Incoming<'a, ReadHalf>,
    to: Outgoing<'a, WriteHalf>,
    buffer: Buffer,
    /// What `buffer` takes of the memory for slow peers.
    share: Share,
    /// True exactly when the source has ended its side and the sink was told.
    ended: &'a Cell<bool>,
    /// As `ended`, of the other way.
    other_ended: &'a Cell<bool>,
    /// Bytes read from the source's side, of all connections.
    came: &'a Counter,
    /// Bytes written to the sink's side, and those of tunnels of the service alone.
    went: [&'a Counter; 2],
}

impl Way<'_> {
    /// Moves what is here and then what comes, until the source has ended its side or the tunnel
    /// can't go on.
    async fn run(&mut self) {
        self.buffer.send_all();
        let mut class = TINY;
        let mut is_bulk = false;
        while self.send().await {
            if mem::take(&mut is_bulk)
                && let Some(pipe) = self.shard.pipes.lend()
            {
                // Rare, and in a box of its own it is not part of every tunnel.
                match Box::pin(self.splice(pipe)).await {
                    Spliced::Trickles => class = TINY,
                    Spliced::Ended => {
                        self.end_of_source();
                        break;
                    }
                    Spliced::Broken => {
                        self.give_up();
                        break;
                    }
                }
            }
            self.refit(class);
            let (read, back) = self.from.read(mem::take(&mut self.buffer)).await;
            self.buffer = back;
            match read {
                Ok(count @ 1..) => {
                    self.came.add(count as u64);
                    is_bulk = MEDIUM <= count && count == class;
                    class = next_class(class, count);
                    self.buffer.send_all();
                }
                Ok(_) => {
                    self.end_of_source();
                    break;
                }
                Err(_) => {
                    self.give_up();
                    break;
                }
            }
            self.shard.give_way().await;
        }
        self.shard.stock.put(mem::take(&mut self.buffer));
    }

    /// Sends all that the buffer holds. False when the tunnel can't go on.
    async fn send(&mut self) -> bool {
        if self.buffer.unsent() == 0 {
            return true;
        }
        let unsent = self.buffer.unsent();
        self.write_begins();
        let buffer = mem::take(&mut self.buffer);
        let (sent, back) = self.to.write(buffer, self.pair.idle, Late::Tunnel).await;
        self.write_ends();
        self.buffer = back;
        self.count_went(unsent - self.buffer.unsent());
        if sent.is_err() {
            self.give_up();
            return false;
        }
        true
    }

    /// Moves what comes through `pipe`, as long as it comes in bulk.
    async fn splice(&mut self, mut pipe: Lent<'_>) -> Spliced {
        let (shard, source, sink) = (self.shard, self.source.fd(), self.sink.fd());
        let Ok((ready, sink_ready)) = self.prepare_splice() else {
            return Spliced::Trickles;
        };
        let mut few = 0;
        self.buffer.clear();
        shard.stock.put(mem::take(&mut self.buffer));
        self.share.resize(0);
        loop {
            if !self.is_readable_soon(&ready).await {
                return Spliced::Trickles;
            }
            let count = match pipe.fill(source) {
                Ok(0) => return Spliced::Ended,
                Ok(count) => count,
                Err(error) if is_momentary(&error) => 0,
                Err(_) => return Spliced::Broken,
            };
            self.came.add(count as u64);
            if !self.pour(&mut pipe, sink, &sink_ready).await {
                // What is in the pipe is lost.
                self.pair.broken.set(true);
                return Spliced::Broken;
            }
            few = if count < SPLICE_MIN { few + 1 } else { 0 };
            if few == FEW_MAX {
                return Spliced::Trickles;
            }
            // What a copy would have counted.
            let turns = self.from.watch().turns();
            turns.set(turns.get() + (count / LARGE) as u32);
            shard.give_way().await;
        }
    }

    /// Waits for the source, but not for longer than until the second tick from now: a way that is
    /// silent is to hold no pipe. False then.
    async fn is_readable_soon(&self, ready: &Ready) -> bool {
        for _ in 0..2 {
            let mut is_readable = false;
            let readable = async {
                // What is wrong with it splice(2) will say.
                let _polled = ready.readable().await;
                is_readable = true;
            };
            either(readable, self.shard.ticked.rung()).await;
            if is_readable {
                return true;
            }
        }
        false
    }

    /// Both connections are not to block from now on; what to wait for the source and for the sink
    /// with. Both before a byte is in the pipe: without a descriptor for the sink it would be lost.
    fn prepare_splice(&self) -> io::Result<(Ready, Ready)> {
        if !self.shard.nonblocking {
            fd::set_nonblocking(self.source.fd())?;
            fd::set_nonblocking(self.sink.fd())?;
        }
        Ok((Ready::of(self.source.fd())?, Ready::of(self.sink.fd())?))
    }

    /// Empties `pipe` into the sink. False when the tunnel can't go on.
    async fn pour(&self, pipe: &mut Lent<'_>, sink: RawFd, ready: &Ready) -> bool {
        let mut waits = false;
        let is_empty = loop {
            if pipe.held() == 0 {
                break true;
            }
            match pipe.empty(sink) {
                Ok(count) => self.count_went(count),
                Err(error) if is_momentary(&error) => {
                    if !mem::replace(&mut waits, true) {
                        self.write_begins();
                    }
                    if !self.wait_for_sink(ready).await {
                        break false;
                    }
                }
                Err(_) => break false,
            }
        };
        if waits {
            self.to.watch().disarm();
            self.write_ends();
        } else if self.pair.writes.get() == 0 {
            self.pair.watch_idle();
        }
        is_empty
    }

    /// Waits until the sink takes something, for so long as it may take nothing. False where that
    /// can't be waited for.
    async fn wait_for_sink(&self, ready: &Ready) -> bool {
        self.to.watch().arm(self.pair.idle, Late::Tunnel);
        ready.writable().await.is_ok()
    }

    /// A write begins, while which the source is looked at: one that resets while nothing is read
    /// from it would not be noticed.
    fn write_begins(&self) {
        self.pair.write_begins();
        if !self.other_ended.get() {
            self.source.reading().guard(self.to.watch());
        }
    }

    fn write_ends(&self) {
        self.source.reading().unguard();
        self.pair.write_ends();
    }

    fn count_went(&self, bytes: usize) {
        for counter in self.went {
            counter.add(bytes as u64);
        }
    }

    /// Empties the buffer and makes it one of `class`, as far as there is room for slow peers.
    fn refit(&mut self, class: usize) {
        let stock = &self.shard.stock;
        self.buffer.clear();
        if self.buffer.capacity() == 0 || class < self.buffer.capacity() {
            stock.put(mem::replace(&mut self.buffer, stock.take(TINY)));
            self.share.resize(0);
        }
        stock.enlarge(&mut self.buffer, &mut self.share, class);
    }

    /// No more bytes come: the source has ended its side, unless it was something else that ended
    /// it.
    fn end_of_source(&self) {
        // A reset that the other way has met while it was writing looks like an end to this one.
        // But a connection that has ended both ways, as it may once the other way has, is not gone
        // for that.
        let reset = !self.other_ended.get() && fd::is_gone(self.source.fd());
        if reset || self.pair.broken.get() || self.pair.cut_for().is_some() {
            return self.give_up();
        }
        self.ended.set(true);
        // It may be gone from here on when it has ended its own side: see above.
        self.sink.reading().unguard();
        self.to.cut(Cut::Writing);
    }

    /// The tunnel can't go on: ends what the other way waits for. Where bytes are lost by that,
    /// both sides are told by a reset.
    fn give_up(&self) {
        let in_time = self.pair.cut_for().is_some() && self.pair.writes.get() == 0;
        if in_time && self.buffer.unsent() == 0 && !self.pair.broken.get() {
            fd::cut(self.source.fd(), Cut::Both);
            fd::cut(self.sink.fd(), Cut::Both);
            return;
        }
        self.pair.broken.set(true);
        fd::reset_at_close(self.source.fd());
        fd::reset_at_close(self.sink.fd());
        // A FIN must not come before the reset.
        fd::cut(self.sink.fd(), Cut::Reading);
        let other_writes = 0 < self.pair.writes.get();
        // Behind what the source does not take, a FIN stays where it is until the reset.
        let cut = if other_writes {
            Cut::Both
        } else {
            Cut::Reading
        };
        fd::cut(self.source.fd(), cut);
    }
}

/// True exactly when nothing could be moved for now.
fn is_momentary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// The class to wait for the next bytes with, after `count` came into a buffer of `class`: the next
/// larger one where they filled it, else the least: the side may be silent for an hour now, and
/// what it holds is missing elsewhere.
const fn next_class(class: usize, count: usize) -> usize {
    match class {
        _ if count < class => TINY,
        TINY => MEDIUM,
        _ => LARGE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_tunnel_is_small() {
        // Beside two buffers of the least class, and what its client has.
        fn size<'a, F>(_run: fn(Tunnel, &'a Shard, &'a mut Client) -> F) -> usize {
            size_of::<F>()
        }
        assert!(size(Tunnel::run) <= 2048, "{}", size(Tunnel::run));
    }

    #[test]
    fn a_way_waits_with_the_least_buffer_unless_the_last_bytes_filled_theirs() {
        for (class, count, next) in [
            (TINY, 1, TINY),
            (TINY, TINY, MEDIUM),
            (MEDIUM, TINY - 1, TINY),
            (MEDIUM, MEDIUM - 1, TINY),
            (MEDIUM, MEDIUM, LARGE),
            (LARGE, LARGE, LARGE),
            (LARGE, LARGE - 1, TINY),
            (LARGE, 7, TINY),
        ] {
            assert_eq!(next_class(class, count), next, "{count} in {class}");
        }
    }
}
