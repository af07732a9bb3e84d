//! One bound address: what is spoken on it, what its clients may send and how long they may take,
//! and the sockets that they come by.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Weak;

use super::{ServiceIndex, Ticks};

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The operator's name for it.
    pub name: Box<str>,
    /// Where it is bound, as the operator wrote it: the port may be 0, and another one is bound.
    pub address: SocketAddr,
    /// Which it is, over all generations that have it.
    pub id: ListenerId,
    /// False exactly when the operator has removed it: who is queued is let in, nobody else is, and
    /// its clients get one more answer each.
    pub accepting: bool,
    /// The sockets that it is bound with, each with the shard that accepts from it, or that empties
    /// it where nobody is accepted any more. A shard whose socket is not here leaves its queue as
    /// it is: it is another shard's, or, where there is none at all, another process's or
    /// another listener's. None in a plan that is not run.
    pub sockets: Box<[ListeningSocket]>,
    /// What is spoken.
    pub protocol: Protocol,
    /// True exactly when each connection begins with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// Where requests go that no route matches; `None` answers 404. With TCP there is one, and
    /// every connection goes there.
    pub service: Option<ServiceIndex>,
    /// The query parameter whose value, where present, stands for the Host.
    pub service_parameter: Option<Box<str>>,
    /// Bounds on what clients send.
    pub limits: ListenerLimits,
    /// Bounds on how long they take.
    pub timeouts: ListenerTimeouts,
}

/// A listener's number; no other listener of the process has it or had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub u32);

/// One socket of a listener.
#[derive(Clone, Debug)]
pub struct ListeningSocket {
    /// Who accepts from it.
    pub shard: u32,
    /// The socket belongs to boot, which closes it when no plan needs it any more: a shard accepts
    /// from a duplicate of its own.
    pub socket: Weak<OwnedFd>,
}

impl PartialEq for ListeningSocket {
    fn eq(&self, other: &Self) -> bool {
        self.shard == other.shard && self.socket.ptr_eq(&other.socket)
    }
}

impl Eq for ListeningSocket {}

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/1.0.
    Http,
    /// Whatever it is: bytes go both ways as they are.
    Tcp,
}

/// Bounds on what clients send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerLimits {
    /// Connections of this listener that each shard may hold; `u32::MAX` where the operator set
    /// none.
    pub shard_connections_max: u32,
    /// Bytes of a head, its last empty line included.
    pub head_bytes_max: usize,
    /// Bytes of a trailer section.
    pub trailer_bytes_max: usize,
    /// Fields of a head.
    pub fields_max: usize,
    /// Bytes of a request body; `u64::MAX` where the operator set no limit.
    pub body_bytes_max: u64,
}

/// Bounds on how long clients take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerTimeouts {
    /// First to last byte of a head; of the first head, from accept. A PROXY header has as long
    /// from accept, and the first head then from there.
    pub head: Ticks,
    /// Between two reads of a request body.
    pub body_idle: Ticks,
    /// Idle between two requests.
    pub keep_alive: Ticks,
    /// A client that takes nothing.
    pub send_idle: Ticks,
}
