//! How long a client is still read from when it has its last answer, or was answered before it had
//! sent all.
//!
//! Closing while it sends would reset the connection, and what it has not taken of its answer with
//! it (RFC 9112 section 9.6). So our side is ended first, and what still comes is read away: until
//! the client closes, falls silent with all of its answer taken, or has had its time.

use std::os::fd::RawFd;
use std::pin::pin;

use super::Shard;
use super::buffer::TINY;
use super::client::Client;
use super::deadline::Late;
use super::io::{beside, sleep};
use crate::fd::{self, Cut};
use crate::plan::{TICK, Ticks};

/// How long such a client may be silent.
pub(super) const LINGER: Ticks = Ticks(20);
/// How long it may go on sending, or take for its answer.
const LINGER_MAX: Ticks = Ticks(300);

/// Ends our side and reads away what the client still sends, for a while.
pub(super) async fn linger(shard: &Shard, client: &mut Client) {
    let fd = client.stream.fd();
    fd::cut(fd, Cut::Writing);
    if fd::has_unsent(fd) {
        // Rare, and it holds a timer.
        let taken = Box::pin(cut_when_taken(fd));
        beside(pin!(read_away(shard, client, LINGER_MAX)), taken).await;
    } else {
        read_away(shard, client, LINGER).await;
    }
}

/// Reads until the client has been silent for `idle`, has closed, or has had its time.
async fn read_away(shard: &Shard, client: &mut Client, idle: Ticks) {
    let mut bin = shard.stock.take(TINY);
    let mut lingering = Lingering::default();
    while !lingering.is_over(shard) {
        let mut from = client.stream.incoming();
        let (read, back) = from.read_within(bin, idle, Late::Linger).await;
        bin = back;
        bin.clear();
        if !matches!(read, Ok(1..)) {
            break;
        }
        shard.give_way().await;
    }
    shard.stock.put(bin);
}

/// Ends the connection when its client has had all of its answer for a while.
async fn cut_when_taken(fd: RawFd) {
    let mut since = 0;
    while since < LINGER.0 {
        sleep(TICK).await;
        since = if fd::has_unsent(fd) { 0 } else { since + 1 };
    }
    fd::cut(fd, Cut::Both);
}

/// The span within which a client is read away from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lingering {
    /// The tick of the first read.
    since: Option<u32>,
}

impl Lingering {
    /// To be asked before each read.
    pub(super) fn is_over(&mut self, shard: &Shard) -> bool {
        let now = shard.clock.tick();
        LINGER_MAX.0 < now - *self.since.get_or_insert(now)
    }
}
