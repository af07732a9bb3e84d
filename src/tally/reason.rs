//! Why a request is tried again, and why an endpoint is ejected: the words by which both are
//! counted.

/// Why there was another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RetryReason {
    /// The endpoint could not be connected to.
    Connect,
    /// The connection ended before a response byte.
    Terminated,
    /// The answer had one of the statuses that are tried again.
    Status,
    /// The try took longer than one may.
    AttemptTimeout,
}

/// Why an endpoint was ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EjectReason {
    /// It failed so many exchanges in a row.
    Faults,
    /// Its recent waits were too long.
    Latency,
}

impl RetryReason {
    /// How many there are; counters are indexed `0..COUNT`.
    pub const COUNT: usize = Self::ALL.len();
    /// Every reason, in the order of its index.
    pub const ALL: [Self; 4] = [
        Self::Connect,
        Self::Terminated,
        Self::Status,
        Self::AttemptTimeout,
    ];

    /// Its place in [`RetryReason::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its name in the report and in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Terminated => "terminated",
            Self::Status => "status",
            Self::AttemptTimeout => "attempt_timeout",
        }
    }
}

impl EjectReason {
    /// How many there are; counters are indexed `0..COUNT`.
    pub const COUNT: usize = Self::ALL.len();
    /// Every reason, in the order of its index.
    pub const ALL: [Self; 2] = [Self::Faults, Self::Latency];

    /// Its place in [`EjectReason::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its name in the report, in metrics and in the log.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Faults => "consecutive_faults",
            Self::Latency => "latency",
        }
    }
}
