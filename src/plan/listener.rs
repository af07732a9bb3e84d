//! One bound address: what is spoken on it, what its clients may send and how long they may take.

use std::net::SocketAddr;

use super::{ServiceIndex, Ticks};

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The operator's name for it.
    pub name: Box<str>,
    /// Where it is bound.
    pub address: SocketAddr,
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
