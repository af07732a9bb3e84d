//! The limits of a service and of its fan-out, by which exchanges are shed.

use crate::fault::Fault;

/// A limit of `[service.limits]` or `[service.fanout]`, in the order in which they are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Requests of one client address in a second.
    ClientRate,
    /// Exchanges and tunnels of one client address at once.
    ClientConcurrent,
    /// Requests of all clients in a second.
    Rate,
    /// Exchanges and tunnels of all clients at once.
    Concurrent,
    /// Legs of fan-outs under way on a shard.
    Legs,
    /// Bytes of requests that a shard keeps for them.
    KeptBytes,
}

impl Limit {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Every limit, in the order of its index.
    pub const ALL: [Self; 6] = [
        Self::ClientRate,
        Self::ClientConcurrent,
        Self::Rate,
        Self::Concurrent,
        Self::Legs,
        Self::KeptBytes,
    ];

    /// Its place in [`Limit::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its key in the configuration, and its name in reports and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ClientRate => "client_rate",
            Self::ClientConcurrent => "client_concurrent",
            Self::Rate => "rate",
            Self::Concurrent => "concurrent",
            Self::Legs => "legs_max",
            Self::KeptBytes => "kept_bytes_max",
        }
    }

    /// The fault of an exchange that it sheds.
    pub const fn fault(self) -> Fault {
        match self {
            Self::ClientRate => Fault::ClientRateExceeded,
            Self::ClientConcurrent => Fault::ClientConcurrencyExceeded,
            Self::Rate => Fault::ServiceRateExceeded,
            Self::Concurrent | Self::Legs | Self::KeptBytes => Fault::ConnectionLimitReached,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_of_a_limit_is_its_place_in_the_list() {
        for (place, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit.index(), place, "{limit:?}");
        }
    }
}
