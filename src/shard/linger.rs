//! How long a client is still read from when it was answered before it had sent all.
//!
//! Closing while it sends would reset the connection, and the answer that it has not read yet with
//! it (RFC 9112 section 9.6). So our side is ended first, and what still comes is read away: until
//! the client closes, falls silent, or has had its time.

use super::Shard;
use super::buffer::MEDIUM;
use super::client::Client;
use super::deadline::Late;
use crate::fd::{self, Cut};
use crate::plan::Ticks;

/// How long such a client may be silent.
pub(super) const LINGER: Ticks = Ticks(20);
/// How long it may go on sending.
const LINGER_MAX: Ticks = Ticks(300);

/// Ends our side and reads away what the client still sends, for a while.
pub(super) async fn linger(shard: &Shard, client: &mut Client) {
    fd::cut(client.stream.fd(), Cut::Writing);
    let mut bin = shard.stock.take(MEDIUM);
    let mut lingering = Lingering::default();
    while !lingering.is_over(shard) {
        let (read, back) = client
            .stream
            .incoming()
            .read_within(bin, LINGER, Late::Linger)
            .await;
        bin = back;
        bin.clear();
        if !matches!(read, Ok(1..)) {
            break;
        }
        shard.give_way().await;
    }
    shard.stock.put(bin);
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
