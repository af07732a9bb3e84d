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
    /// From now on the kernel takes no new client by the sockets of a listener. To be called right
    /// before a plan in which it does not accept: as the shards adopt that they let in who is
    /// queued, and close their duplicates.
    fn close(&mut self, listener: ListenerId);
    /// Closes boot's own of a listener's sockets, for good: after [`Supervisor::close`], once every
    /// shard that lives has adopted that plan, or where no plan ever had it.
    fn let_go(&mut self, listener: ListenerId);
    /// Gives the sockets of a listener, with who is queued on them, to a new one, that takes its
    /// place. The next plan has the new one, and the old one, if at all, without sockets.
    ///
    /// # Panics
    /// When there is no such listener.
    fn renew(&mut self, listener: ListenerId) -> BoundListener;
    /// Hands all sockets on: another process has inherited them and accepts from them. Unlike
    /// [`Supervisor::close`] it leaves the queues as they are, and who comes is taken: by the other
    /// process. To be called right before a plan of [`Live::handed_on`](super::compile::Live), as
    /// the shards adopt which they close their duplicates without emptying them.
    fn release(&mut self);
    /// The admin API answers at `bound` from now on, and nowhere else; who is connected elsewhere
    /// gets an answer first.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket; then all stays as it was.
    fn serve_admin(&mut self, bound: Option<admin::Bound>) -> io::Result<()>;
    /// Every shard runs its first plan.
    fn ready(&mut self);
}
