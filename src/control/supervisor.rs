//! What boot does for control, which may not name the shards.

use std::io;
use std::net::SocketAddr;

use super::admin;
use super::compile::BoundListener;
use crate::door::Subscriber;
use crate::plan::ListenerId;

/// What boot does for control.
pub trait Supervisor {
    /// Starts shard `shard` anew on a thread of its own.
    ///
    /// # Errors
    /// When there is no thread to be had.
    fn restart(&mut self, shard: usize, door: Subscriber) -> io::Result<()>;
    /// Opens the sockets of a listener at `address`; who comes waits until a plan has them.
    ///
    /// # Errors
    /// What bind(2) says, `AddrInUse` where somebody else listens there.
    fn open(&mut self, address: SocketAddr) -> io::Result<BoundListener>;
    /// Closes boot's sockets of a listener. To be called right before a plan in which it does not
    /// accept: the shards empty their duplicates and let go of them as they adopt it.
    fn close(&mut self, listener: ListenerId);
    /// The admin API answers at `bound` from now on, and nowhere else; who is connected elsewhere
    /// gets an answer first.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket; then all stays as it was.
    fn serve_admin(&mut self, bound: Option<admin::Bound>) -> io::Result<()>;
    /// Every shard runs its first plan.
    fn ready(&mut self);
}
