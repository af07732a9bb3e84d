//! One accept loop: lets clients in up to the limits, sheds those over them, and, when the process
//! has no descriptor left, gives up idle connections for them; with none left of these, it rests.
//!
//! The plan is looked at after every wake. When the listener does not accept any more, who is
//! queued is let in and the socket is let go. Its last holder's close resets whoever is still
//! queued, and whoever's connection completes between the last accept and the close. Therefore boot
//! has the kernel drop every new SYN before it posts such a plan (a filter on the socket,
//! [`fd::drop_syns`]), and the loop goes on for [`EMPTIED`] ticks: what was being established by
//! then is, and is let in. A client whose SYN was dropped sends it again after a second, and is
//! refused then, as it would have been.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::rc::Rc;
use std::time::Duration;

use super::Shard;
use super::buffer::TINY;
use super::client::{Client, client};
use super::io::{Caught, Listening, Stream, either, sleep};
use super::listeners::{AcceptLoop, Order, RunningListener};
use crate::door::Notice;
use crate::fault::Fault;
use crate::fd;
use crate::http::reply::{Reply, write_reply};
use crate::plan::Protocol;

/// Clients let in by one wake, so that a flood of them does not keep the shard from the others.
const WAKE_MAX: usize = 64;
/// The first wait after accept failed for want of descriptors or memory; doubled up to
/// [`BACKOFF_MAX`].
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// What a flood of clients leaves to the others between two wakes.
const TURN: Duration = Duration::from_millis(1);

/// How many ticks a socket is still accepted from when no more SYNs are taken: more than 100 ms,
/// which is what the second half of a handshake takes a client on the other side of the world. One
/// whose last ACK was lost would take a second more, until the kernel sends its SYN-ACK again; no
/// drain waits for that.
const EMPTIED: u32 = 2;

/// What one wake of a listener came to.
enum Wake {
    /// The queue is empty.
    Empty,
    /// The wake had its share; more may be waiting.
    Share,
    /// accept(2) failed.
    Failed(io::Error),
}

/// Accepts on one socket until the plan says otherwise; a panic starts it again in place.
pub(super) async fn listen(
    shard: Rc<Shard>,
    listener: Rc<RunningListener>,
    own: Rc<AcceptLoop>,
    socket: Listening,
) {
    while Caught(Box::pin(accept_loop(&shard, &listener, &own, &socket)))
        .await
        .is_err()
    {
        shard.panicked();
        // What panics at once and again must not keep the shard from its clients.
        sleep(BACKOFF_MAX).await;
    }
    listener.loop_ended(&own);
    drop(socket);
}

async fn accept_loop(
    shard: &Rc<Shard>,
    listener: &Rc<RunningListener>,
    own: &AcceptLoop,
    socket: &Listening,
) {
    let mut backoff = BACKOFF;
    // How many idle connections are given up the next time that descriptors have run out.
    let mut give_up = 1;
    loop {
        let news = match own.order() {
            Order::Accept => &shard.changed,
            Order::Empty(_) => &shard.ticked,
            Order::Stop => return,
        };
        either(socket.readable(), news.rung()).await;
        shard.look_at_door();
        if own.order() == Order::Stop {
            return;
        }
        match wake(shard, listener, socket) {
            Wake::Empty if is_emptied(shard, own) => return,
            Wake::Empty => (backoff, give_up) = (BACKOFF, 1),
            Wake::Share => {
                (backoff, give_up) = (BACKOFF, 1);
                sleep(TURN).await;
            }
            Wake::Failed(error) => {
                let errno = error.raw_os_error().unwrap_or(0);
                shard.counters.accept_failures.add(1);
                if fd::is_out_of_descriptors(&error) && shard.give_up_idle(give_up).await {
                    // Nobody knows how many wait: each look at all that is idle finds more.
                    give_up = (2 * give_up).min(WAKE_MAX);
                    continue;
                }
                let listener = listener.id;
                shard.notify(Notice::AcceptFailed { listener, errno });
                // The socket stays readable: without a rest this would be a busy loop.
                sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }
}

/// True exactly when nobody can have come meanwhile: no more SYNs are taken, for long enough.
fn is_emptied(shard: &Shard, own: &AcceptLoop) -> bool {
    let now = shard.clock.tick();
    matches!(own.order(), Order::Empty(since) if EMPTIED <= now - since)
}

/// Lets in who waits.
fn wake(shard: &Rc<Shard>, listener: &Rc<RunningListener>, socket: &Listening) -> Wake {
    for _ in 0..WAKE_MAX {
        match socket.accept(shard.nonblocking) {
            Ok(Some((tcp, _))) if is_full(shard, listener) => shed(shard, listener, &tcp),
            Ok(Some((tcp, address))) => welcome(shard, listener, tcp, address),
            Ok(None) => return Wake::Empty,
            Err(error) => return Wake::Failed(error),
        }
    }
    Wake::Share
}

fn is_full(shard: &Shard, listener: &RunningListener) -> bool {
    let current = shard.current.borrow();
    let now = listener.now(&current);
    let limit = now.map_or(0, |now| now.limits.shard_connections_max);
    current.plan().shard_connections_max <= shard.clients.get()
        || u64::from(limit) <= listener.counters.clients_open.get()
}

/// Tells a client that there is no room for it, in as much as its socket takes at once, and lets
/// it go: it must not hold what there is none of. One that does not speak HTTP is reset.
fn shed(shard: &Shard, listener: &RunningListener, connection: &TcpStream) {
    let fault = Fault::ConnectionLimitReached;
    let counters = &shard.counters;
    let is_answered = listener.protocol == Protocol::Http;
    counters.clients_refused.add(1);
    counters.exchanges.add(1);
    counters.own_answers.add(u64::from(is_answered));
    counters.no_service_exchanges.add(1);
    counters.no_service_own_answers.add(u64::from(is_answered));
    counters.no_service_fault(fault);
    if !shard.shedding.replace(true) {
        shard.notify(Notice::ConnectionsMax {
            listener: Some(listener.id),
        });
    }
    if !is_answered {
        return fd::reset_at_close(connection.as_raw_fd());
    }
    let mut answer = shard.stock.take(TINY);
    write_reply(
        answer.tail(),
        fault,
        &Reply {
            close: true,
            head_method: false,
            minor: 1,
            retry_after: None,
        },
        &shard.clock.date(),
    );
    fd::farewell(connection, answer.filled());
    shard.stock.put(answer);
}

/// Gives an accepted client its task.
fn welcome(shard: &Rc<Shard>, listener: &Rc<RunningListener>, tcp: TcpStream, address: SocketAddr) {
    match Stream::from_accepted(tcp, &shard.wheel) {
        Ok(stream) => {
            let welcomed = Client::new(shard, stream, listener, address);
            shard.start(client(Rc::clone(shard), Box::new(welcomed)));
        }
        Err(error) => {
            shard.counters.accept_failures.add(1);
            log::warn!(error:%; "a client's socket cannot be registered");
        }
    }
}
