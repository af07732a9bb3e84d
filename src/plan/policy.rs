//! How a service chooses among its endpoints.

/// A service's policy. Both hold the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Each pick is independent.
    Random,
    /// In turn, from a random place on each shard.
    RoundRobin,
}

impl Policy {
    /// The policy's name in the configuration.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::RoundRobin => "round_robin",
        }
    }
}
