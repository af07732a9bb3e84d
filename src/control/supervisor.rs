//! What boot does for control, which may not name the shards.

use std::io;
use std::net::SocketAddr;

use super::admin;
use super::compile::BoundListener;
use super::successor::{Handed, Successor};
use crate::door::Subscriber;
use crate::plan::ListenerId;

/// sd_listen_fds(3): for which process the sockets are.
pub const LISTEN_PID: &str = "LISTEN_PID";
/// sd_listen_fds(3): how many sockets there are, from number 3 on.
pub const LISTEN_FDS: &str = "LISTEN_FDS";
/// sd_listen_fds(3): the name of each, separated by colons.
pub const LISTEN_FDNAMES: &str = "LISTEN_FDNAMES";
/// The number of the way to the process that is upgraded.
pub const UPGRADE: &str = "RINGMAIN_UPGRADE";
/// The numbers of the sockets, and at last of that way, before they are in line.
pub const SOCKETS: &str = "RINGMAIN_SOCKETS";

/// The variables that speak of this process alone; what it starts must not take them for its own.
pub const OWN_VARIABLES: [&str; 8] = [
    LISTEN_PID,
    LISTEN_FDS,
    LISTEN_FDNAMES,
    UPGRADE,
    SOCKETS,
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

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
    /// queued, and close their duplicates. By sockets that systemd keeps, for whom it starts next,
    /// clients still come, and wait for that.
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
    /// The admin API answers at `bound` from now on, and nowhere else; who is connected elsewhere
    /// gets an answer first.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket; then all stays as it was.
    fn serve_admin(&mut self, bound: Option<admin::Bound>) -> io::Result<()>;
    /// Lets clients come to what was bound and, until now, not opened to them, the admin API too:
    /// at once in an ordinary start, in an upgraded process when it is ready to serve.
    ///
    /// # Errors
    /// What listen(2) says.
    fn begin(&mut self) -> io::Result<()>;
    /// Every shard serves. Who started this process is told.
    fn ready(&mut self);
    /// Starts the binary anew, with the sockets of `listeners`, each with its name, and the admin
    /// API's, and has it know `handed`.
    ///
    /// # Errors
    /// When there is no such file, or no process to be had.
    fn start_successor(
        &mut self,
        listeners: &[(ListenerId, &str)],
        handed: &Handed,
    ) -> io::Result<Successor>;
    /// The process that was started last serves from now on: boot lets go of what it has, but for
    /// the sockets whose places are `unwanted`. Says which listeners' sockets, with who is queued
    /// on them, are that process's: the plan of the drain, which is to follow at once, is to have
    /// none of them.
    fn leave_to_successor(&mut self, unwanted: &[usize]) -> Vec<ListenerId>;
}
