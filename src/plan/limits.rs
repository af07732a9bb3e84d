//! How much of a service's work is let in: rates and concurrency, by client and as a whole.
//!
//! All numbers are those of one shard: what the operator wrote for a client holds whole on each,
//! what was written for the service was split over them.

use std::num::NonZeroU32;

/// Client addresses that each shard keeps apart for a service that limits them. It takes about as
/// many to make it forget one.
pub const CLIENTS_KEPT: usize = 65_536;

/// What one of them takes in memory.
pub const CLIENT_BYTES: usize = 24;

/// Bounds on what a service is asked for; `None` where the operator set none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceLimits {
    /// Requests of one client address.
    pub client_rate: Option<Rate>,
    /// Exchanges and tunnels of one client address at the same time.
    pub client_concurrent: Option<NonZeroU32>,
    /// Requests of all clients, for each shard.
    pub shard_rate: Option<Rate>,
    /// Exchanges and tunnels of all clients at the same time, for each shard.
    pub shard_concurrent: Option<NonZeroU32>,
}

impl ServiceLimits {
    /// True exactly when everything is let in.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// True exactly when something depends on the client's address.
    pub fn has_clients(&self) -> bool {
        self.client_rate.is_some() || self.client_concurrent.is_some()
    }
}

/// So many requests in a second on average, and so many at once from whoever was quiet.
///
/// Times are counted in sixteenths of a nanosecond ([`Rate::UNITS`]), so that a rate of up to 10^8
/// is held within half a percent; 64 bits of them last for 36 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    per_second: NonZeroU32,
    burst: NonZeroU32,
    interval: u64,
}

impl Rate {
    /// Units of time in a nanosecond.
    pub const UNITS: u64 = 16;

    /// `per_second` requests in a second, `1..=10^8`, and `burst` at once, `1..=10^8`.
    pub const fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        const SECOND: u64 = 1_000_000_000 * Rate::UNITS;
        Self {
            per_second,
            burst,
            interval: SECOND / per_second.get() as u64,
        }
    }

    /// Requests in a second.
    pub const fn per_second(&self) -> NonZeroU32 {
        self.per_second
    }

    /// Requests at once.
    pub const fn burst(&self) -> NonZeroU32 {
        self.burst
    }

    /// From one request to the next where they come evenly, in units of time.
    pub const fn interval(&self) -> u64 {
        self.interval
    }

    /// How long it takes until somebody who has spent all of the burst may spend all of it again,
    /// in units of time: at most 1.6 * 10^18.
    pub const fn span(&self) -> u64 {
        self.interval * self.burst.get() as u64
    }
}
