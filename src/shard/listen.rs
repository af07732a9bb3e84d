//! One accept loop: lets clients in up to the limits, sheds those over them, and, when the process
//! has no descriptor left, gives up idle connections for them; with none left of these, it rests.
//!
//! The plan is looked at after every wake. When it does not serve any more, what is queued is let
//! in once more and the socket is let go: the last holder's close resets whoever is still queued,
//! so the queue is emptied right before.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::rc::Rc;
use std::time::Duration;

use super::buffer::TINY;
use super::client::{Client, client};
use super::io::{Caught, Listening, Stream, either, sleep};
use super::{Shard, tcp};
use crate::door::Notice;
use crate::fault::Fault;
use crate::fd;
use crate::http::reply::{Reply, write_reply};

/// Clients let in by one wake, so that a flood of them does not keep the shard from the others.
const WAKE_MAX: usize = 64;
/// The first wait after accept failed for want of descriptors or memory; doubled up to
/// [`BACKOFF_MAX`].
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// What a flood of clients leaves to the others between two wakes.
const TURN: Duration = Duration::from_millis(1);

/// What one wake of a listener came to.
enum Wake {
    /// The queue is empty.
    Empty,
    /// The wake had its share; more may be waiting.
    Share,
    /// accept(2) failed.
    Failed(io::Error),
}

/// Accepts on one socket until the plan stops accepting; a panic starts it again in place.
pub(super) async fn listen(shard: Rc<Shard>, listener: usize, socket: Listening) {
    while Caught(Box::pin(accept_loop(&shard, listener, &socket)))
        .await
        .is_err()
    {
        shard.panicked();
        // What panics at once and again must not keep the shard from its clients.
        sleep(BACKOFF_MAX).await;
    }
    shard
        .listeners
        .borrow_mut()
        .retain(|open| *open != socket.fd());
    drop(socket);
}

async fn accept_loop(shard: &Rc<Shard>, listener: usize, socket: &Listening) {
    let mut backoff = BACKOFF;
    // How many idle connections are given up the next time that descriptors have run out.
    let mut give_up = 1;
    loop {
        if !shard.current.borrow().is_draining() {
            either(socket.readable(), shard.changed.rung()).await;
            shard.look_at_door();
        }
        match wake(shard, listener, socket) {
            Wake::Empty if shard.current.borrow().is_draining() => return,
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
                shard.notify(Notice::AcceptFailed { listener, errno });
                // The socket stays readable: without a rest this would be a busy loop.
                sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }
}

/// Lets in who waits.
fn wake(shard: &Rc<Shard>, listener: usize, socket: &Listening) -> Wake {
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

fn is_full(shard: &Shard, listener: usize) -> bool {
    let current = shard.current.borrow();
    let limit = current.plan().listeners[listener]
        .limits
        .shard_connections_max;
    current.plan().shard_connections_max <= shard.clients.get()
        || limit <= current.clients[listener].get()
}

/// Tells a client that there is no room for it, in as much as its socket takes at once, and lets
/// it go: it must not hold what there is none of. One that does not speak HTTP is reset.
fn shed(shard: &Shard, listener: usize, connection: &TcpStream) {
    let fault = Fault::ConnectionLimitReached;
    let counters = &shard.counters;
    let is_answered = !tcp::is_spoken(shard, listener);
    counters.clients_refused.add(1);
    counters.exchanges.add(1);
    counters.own_answers.add(u64::from(is_answered));
    counters.no_service_exchanges.add(1);
    counters.no_service_own_answers.add(u64::from(is_answered));
    counters.no_service_fault(fault);
    if !shard.shedding.replace(true) {
        shard.notify(Notice::ConnectionsMax {
            listener: Some(listener),
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
fn welcome(shard: &Rc<Shard>, listener: usize, tcp: TcpStream, address: SocketAddr) {
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
