//! A named group of endpoints with one policy.

use std::num::NonZeroU32;
use std::sync::OnceLock;
use std::time::Duration;

use super::{Endpoint, FanoutRules, HashKey, Policy, ServiceLimits, Ticks};
use crate::balance::{Member, Picker};
use crate::http::head::HeadLimits;
use crate::http::hop::FieldEdits;
use crate::proxy_protocol::Version;

/// A service.
#[derive(Debug, PartialEq)]
pub struct Service {
    /// The operator's name for it.
    pub name: Box<str>,
    /// How an endpoint is picked.
    pub policy: &'static Policy,
    /// What is hashed where the policy asks for it.
    pub hash_key: HashKey,
    /// No address twice. None while no name of its backends has been resolved.
    pub endpoints: Box<[Endpoint]>,
    /// In the order of the file.
    pub backends: Box<[Backend]>,
    /// Those endpoints that are picked from: the first of these, and of each further one when none
    /// of those before it can be used. Empty when none may be picked.
    pub tiers: Box<[Tier]>,
    /// True exactly when no endpoint is in, and all are used for that.
    pub fails_open: bool,
    /// Bounds on how long endpoints take.
    pub timeouts: ServiceTimeouts,
    /// Bounds on upstream connections.
    pub pool: PoolLimits,
    /// When a request is tried again.
    pub retry: RetryRules,
    /// When a shard takes an endpoint out.
    pub eject: EjectRules,
    /// How much is let in.
    pub limits: ServiceLimits,
    /// How a request is sent to every backend; `None` where it goes to one endpoint.
    pub fanout: Option<FanoutRules>,
    /// What connections to endpoints begin with, if anything.
    pub send_proxy_protocol: Option<Version>,
    /// Bytes and fields of a response head.
    pub response_head: HeadLimits,
    /// What is set on and removed from requests.
    pub request_edits: FieldEdits,
    /// What is set on and removed from responses.
    pub response_edits: FieldEdits,
    /// The response field that names the endpoint, in the operator's spelling.
    pub backend_field: Option<Box<str>>,
}

/// A backend that the operator wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// As the operator wrote it.
    pub name: Box<str>,
    /// The endpoints that it stands for, by their places in the service; two may share one.
    pub endpoints: Box<[u32]>,
    /// True exactly when it gets nothing new.
    pub drain: bool,
}

/// Endpoints that are picked from together.
#[derive(Debug)]
pub struct Tier {
    /// Their places in the service, ascending; at least one. A picker knows them by their places
    /// here.
    pub places: Box<[u32]>,
    /// The same as a picker is made of them; the weights have no common divisor.
    pub members: Box<[Member]>,
    /// Made by control before the plan is posted.
    picker: OnceLock<Box<dyn Picker>>,
}

impl Tier {
    /// Of endpoints at `places`, ascending, with the members that they are in the same order.
    pub fn new(places: Box<[u32]>, members: Box<[Member]>) -> Self {
        assert!(!places.is_empty() && places.len() == members.len());
        Self {
            places,
            members,
            picker: OnceLock::new(),
        }
    }

    /// Its picker under `policy`, the service's. The first call makes it, which may take
    /// milliseconds.
    pub fn picker(&self, policy: &Policy) -> &dyn Picker {
        &**self.picker.get_or_init(|| (policy.make)(&self.members))
    }
}

impl PartialEq for Tier {
    /// What picks alike.
    fn eq(&self, other: &Self) -> bool {
        self.places == other.places && self.members == other.members
    }
}

/// The most further tries that a configuration may ask for.
pub const ATTEMPTS_MAX: u8 = 10;

/// When a request is tried again: `[service.retry]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryRules {
    /// Further tries after the first, at most [`ATTEMPTS_MAX`].
    pub attempts_max: u8,
    /// Statuses of answers that are tried again, ascending; each 400 or more.
    pub statuses: Box<[u16]>,
    /// One try, from its begin, or from the end of a request that still comes, to its response
    /// head; no ticks: no timeout.
    pub attempt: Ticks,
    /// The wait before the first retry on a status; doubled for each further one.
    pub backoff: Duration,
    /// Retries as a share of requests, `0.0..=1.0`.
    pub budget: f64,
    /// Retries a second that each shard always allows; 1 or more.
    pub shard_retries_min: u32,
    /// Bytes of a request body up to which it is kept, to be sent once more.
    pub replayed_bytes_max: usize,
}

/// When a shard takes an endpoint out: `[service.eject]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EjectRules {
    /// Faults in a row; 0 is never.
    pub consecutive_faults: u32,
    /// How long the first ejection lasts.
    pub duration: Ticks,
    /// The most of the endpoints that are out, `0.0..=1.0`.
    pub ratio_max: f64,
    /// How many times the service's median wait an endpoint's p99 may be; 0.0 is any.
    pub latency_factor: f64,
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
    /// The whole exchange; no ticks: no timeout.
    pub total: Ticks,
}

/// Bounds on upstream connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Idle connections kept per endpoint on each shard.
    pub idle_max: usize,
    /// Idle connections opened ahead per endpoint on each shard; at most `idle_max`.
    pub idle_min: usize,
    /// How long one may be idle.
    pub idle: Ticks,
    /// Connections to each endpoint that each shard may have open, idle ones included; `None` where
    /// the operator set no limit.
    pub shard_connections_max: Option<NonZeroU32>,
    /// How long an exchange waits for one over that; no ticks: it is refused at once.
    pub queue: Ticks,
}

#[cfg(test)]
impl Service {
    /// One over endpoints at `addresses`, all in, without a limit, and with ten seconds for
    /// everything.
    pub(crate) fn over(name: &str, addresses: &[std::net::SocketAddr]) -> Self {
        let ticks = Ticks(100);
        let endpoint = |address: &std::net::SocketAddr| Endpoint {
            address: *address,
            name: address.to_string().into(),
            weight: 1,
            ramp: super::endpoint::RAMP_WHOLE,
            slot: super::Slot {
                index: 0,
                tenant: 1,
            },
            backup: false,
            standing: super::Standing::Unknown,
            recoveries: 0,
        };
        let mut endpoints: Box<[Endpoint]> = addresses.iter().map(endpoint).collect();
        for (slot, endpoint) in (0..).zip(&mut endpoints) {
            endpoint.slot.index = slot;
        }
        Self {
            name: name.into(),
            policy: &super::POLICIES[0],
            hash_key: HashKey::Client,
            tiers: [Tier::new(
                (0..addresses.len() as u32).collect(),
                (0..)
                    .map(|id| Member { id, weight: 1 })
                    .take(addresses.len())
                    .collect(),
            )]
            .into(),
            backends: (0..)
                .zip(&endpoints)
                .map(|(place, endpoint)| Backend {
                    name: endpoint.name.clone(),
                    endpoints: [place].into(),
                    drain: false,
                })
                .collect(),
            endpoints,
            fails_open: false,
            timeouts: ServiceTimeouts {
                connect: Duration::from_secs(1),
                response: ticks,
                send_idle: ticks,
                receive_idle: ticks,
                until_continued: ticks,
                tunnel_idle: ticks,
                total: Ticks(0),
            },
            pool: PoolLimits {
                idle_max: 4,
                idle_min: 0,
                idle: ticks,
                shard_connections_max: None,
                queue: Ticks(0),
            },
            retry: RetryRules {
                attempts_max: 0,
                statuses: [].into(),
                attempt: Ticks(0),
                backoff: Duration::ZERO,
                budget: 0.2,
                shard_retries_min: 10,
                replayed_bytes_max: 65536,
            },
            eject: EjectRules {
                consecutive_faults: 0,
                duration: ticks,
                ratio_max: 0.5,
                latency_factor: 0.0,
            },
            limits: ServiceLimits::default(),
            fanout: None,
            send_proxy_protocol: None,
            response_head: HeadLimits {
                bytes_max: 4096,
                fields_max: 50,
            },
            request_edits: FieldEdits::default(),
            response_edits: FieldEdits::default(),
            backend_field: None,
        }
    }
}
