//! How a request is sent to every backend of a service: `[service.fanout]`.

use std::time::Duration;

/// The rules of a fan-out. A leg is the request to one backend, with all its attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FanoutRules {
    /// How many legs have to succeed.
    pub require: Require,
    /// The status of an answer that makes a leg succeed, `200..=299`.
    pub status: u16,
    /// Attempts of one leg, the first included; at least 1.
    pub attempts_max: u32,
    /// The longest wait between two attempts, what is drawn apart.
    pub backoff_max: Duration,
    /// The most that is drawn and added to each wait.
    pub jitter: Duration,
    /// Bytes of a request's body, its framing included.
    pub body_bytes_max: usize,
    /// Legs that each shard may have under way, asleep or not.
    pub shard_legs_max: u32,
    /// Bytes of the requests that each shard may keep for them.
    pub shard_kept_bytes_max: usize,
    /// Whether legs go on when their client has gone.
    pub detached: bool,
}

/// How many legs have to succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Require {
    /// Every one.
    All,
    /// More than half of them.
    Quorum,
    /// One.
    Any,
}

impl Require {
    /// How many of so many legs have to succeed.
    pub const fn of(self, legs: usize) -> usize {
        match self {
            Self::All => legs,
            Self::Quorum => legs / 2 + 1,
            Self::Any => 1,
        }
    }

    /// Its word in the configuration.
    pub const fn label(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Quorum => "quorum",
            Self::Any => "any",
        }
    }
}
