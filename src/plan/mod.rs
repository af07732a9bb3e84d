//! What the shards run: one immutable, whole, numbered plan.
//!
//! A plan is compiled by control, carried through the door and never changed afterwards. Services
//! and listeners are `Arc`s, so that those which a reload leaves alone are the same objects in both
//! generations. Everything a shard needs per exchange is computed here once: timeouts are in ticks,
//! names are bytes, hosts are in lower case.

pub mod endpoint;
pub mod fanout;
pub mod key;
pub mod limits;
pub mod listener;
pub mod route;
pub mod service;

use std::sync::Arc;
use std::time::Duration;

pub use crate::balance::{POLICIES, Policy};
pub use endpoint::{Endpoint, Slot, Standing};
pub use fanout::{FanoutRules, Require};
pub use key::HashKey;
pub use limits::{Rate, ServiceLimits};
pub use listener::{
    Listener, ListenerId, ListenerLimits, ListenerTimeouts, ListeningSocket, Protocol,
};
pub use route::{Route, Routes};
pub use service::{Backend, EjectRules, PoolLimits, RetryRules, Service, ServiceTimeouts, Tier};

/// How long a shard's tick is, and so the least timeout: 100 milliseconds.
pub const TICK: Duration = Duration::from_millis(100);

/// One generation of what the shards run.
#[derive(Debug)]
pub struct Plan {
    /// The plan's number; the first is 1, each later one is greater.
    pub generation: u64,
    /// Whether clients are served, sent away, or cut off.
    pub life: Life,
    /// Our name in `Via` (RFC 9110 section 7.6.3), for example `ringmain-1f3a`.
    pub via: Box<str>,
    /// Clients that each shard may hold, all listeners together; at least 1.
    pub shard_connections_max: u32,
    /// In the order of the configuration; behind them those that were removed and still finish. A
    /// listener's place is its index, and valid within its own plan only.
    pub listeners: Box<[Arc<Listener>]>,
    /// In the order of the configuration; a service's place is its [`ServiceIndex`].
    pub services: Box<[Arc<Service>]>,
    /// From host, path and method to a service.
    pub routes: Arc<Routes>,
    /// For each slot, how often it was given to an endpoint, in this plan and in those before it.
    pub slots: Box<[u32]>,
}

/// A service's place in [`Plan::services`]; valid within its own plan only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServiceIndex(pub u32);

impl Plan {
    /// The service at `index`.
    ///
    /// # Panics
    /// When `index` belongs to another plan.
    pub fn service(&self, index: ServiceIndex) -> &Arc<Service> {
        &self.services[index.0 as usize]
    }
}

/// Where the process stands between its start and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Listeners accept, clients are kept alive.
    Serving,
    /// Nothing is accepted, each client gets one more answer with `Connection: close`, quiet ones
    /// are closed.
    Draining,
    /// `drain_timeout` has passed: every connection is closed now.
    Ended,
}

/// A span of time counted in [`TICK`]s, rounded up; 0 means that there is no timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticks(pub u32);

impl Ticks {
    /// `duration` rounded up to whole ticks; anything over 13 years is cut to that.
    pub fn from_duration(duration: Duration) -> Self {
        let ticks = duration.as_millis().div_ceil(TICK.as_millis());
        Self(u32::try_from(ticks).unwrap_or(u32::MAX))
    }
}
