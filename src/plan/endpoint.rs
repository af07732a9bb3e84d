//! One socket address that a backend stands for now, and what is known of it.

use std::net::SocketAddr;

/// The parts that the weight of an endpoint is counted in while it starts slowly.
pub const RAMP_WHOLE: u32 = 16;

/// An endpoint of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where to connect.
    pub address: SocketAddr,
    /// `address` as text: the endpoint's name in reports, metrics and `backend_field`.
    pub name: Box<str>,
    /// Its share of the service's requests against the other endpoints' weights; 1 or more.
    pub weight: u32,
    /// Parts of its weight that it has grown to since it was new or recovered, `1..=RAMP_WHOLE`.
    pub ramp: u32,
    /// No other endpoint of the plan has it, and it stays from one generation to the next.
    pub slot: Slot,
    /// True exactly when it is used only where no other is left.
    pub backup: bool,
    /// What control knows of it.
    pub standing: Standing,
    /// How many times control found it healthy after it had not been: a shard that has ejected it
    /// readmits it at once when this grows.
    pub recoveries: u32,
}

/// Where shards keep, in arrays, what belongs to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// `0 <= index < Plan::slots.len()`.
    pub index: u32,
    /// Which of the endpoints it is that have had this index one after the other, counted from 1:
    /// what ends under an older plan may meet the slot's next tenant there.
    pub tenant: u32,
}

/// What control knows of an endpoint, in the order of its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is new, and its first good probe is awaited.
    Unproven,
    /// Nobody has asked it.
    Unknown,
    /// Its last probes were good.
    Healthy,
    /// Its last probes were not.
    Unhealthy,
    /// Most shards have ejected it.
    Ejected,
    /// It gets nothing new: the operator wants it so.
    Draining,
    /// The same, and nobody asks it: the operator expects it to be away.
    Down,
}

impl Standing {
    /// True exactly when it gets exchanges.
    pub const fn is_in(self) -> bool {
        matches!(self, Self::Unknown | Self::Healthy)
    }

    /// True exactly when it gets exchanges where there is no endpoint that is in.
    pub const fn is_last_resort(self) -> bool {
        matches!(self, Self::Unhealthy | Self::Ejected)
    }

    /// Its name in the report and the logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unproven => "unproven",
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Ejected => "ejected",
            Self::Draining => "draining",
            Self::Down => "down",
        }
    }
}
