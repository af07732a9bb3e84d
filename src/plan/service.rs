//! A named group of endpoints with one policy.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{Endpoint, Limits, Policy, Ticks};
use crate::http::hop::FieldEdits;

/// A service.
#[derive(Clone, Debug)]
pub struct Service {
    /// The operator's name for it.
    pub name: Box<str>,
    /// How an endpoint is picked.
    pub policy: Policy,
    /// At least one; an endpoint's place is what pickers return.
    pub endpoints: Box<[Endpoint]>,
    /// Bounds on how long endpoints take.
    pub timeouts: ServiceTimeouts,
    /// Bounds on upstream connections.
    pub pool: PoolLimits,
    /// Bounds on what it is asked for.
    pub limits: Limits,
    /// Further tries after the first: see `[service.retry]`.
    pub attempts_max: u32,
    /// Bytes of a request body up to which it is kept, to be sent once more.
    pub replayed_bytes_max: usize,
    /// Bytes and fields of a response head.
    pub response_head: crate::http::head::HeadLimits,
    /// What is set on and removed from requests.
    pub request_edits: FieldEdits,
    /// What is set on and removed from responses.
    pub response_edits: FieldEdits,
    /// The response field that names the endpoint, in the operator's spelling.
    pub backend_field: Option<Box<str>>,
}

/// Bounds on how long endpoints take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceTimeouts {
    /// Connect begun to connected.
    pub connect: Duration,
    /// Last request byte to the end of the response head.
    pub response: Ticks,
    /// An endpoint that takes nothing of a request.
    pub send_idle: Ticks,
    /// Between two reads of a response body.
    pub receive_idle: Ticks,
    /// How long an endpoint may say nothing to a request that expects 100-continue; then ringmain
    /// tells the client to go on.
    pub until_continued: Ticks,
    /// A tunnel through which nothing goes in either direction, or a side that takes nothing.
    pub tunnel_idle: Ticks,
}

/// Bounds on upstream connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Idle connections kept per endpoint on each shard.
    pub idle_max: usize,
    /// How long one may be idle.
    pub idle: Ticks,
    /// Connections to each endpoint that each shard may have open, idle ones included; `None` where
    /// the operator set no limit.
    pub shard_connections_max: Option<NonZeroU32>,
    /// How long an exchange waits for one over that; no ticks: it is refused at once.
    pub queue: Ticks,
}
