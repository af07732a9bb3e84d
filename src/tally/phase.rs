//! The timed parts of an exchange, and the unit that they are recorded in.
//!
//! What each phase means on every path stands in docs/PHASES.md.

/// A part of an exchange, in the order of its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// First to last byte of the request.
    ClientReceive,
    /// Connect begun to connected; only where a connection was made.
    UpstreamConnect,
    /// First to last byte of the request written to the endpoint.
    UpstreamSend,
    /// Last byte of the request written to first byte of the final response.
    UpstreamWait,
    /// First to last byte of the final response.
    UpstreamReceive,
    /// First to last byte of the answer written to the client.
    ClientSend,
    /// The time that no peer was awaited.
    Own,
    /// First byte of the request to the last byte written to the client.
    Total,
}

impl Phase {
    /// How many there are.
    pub const COUNT: usize = 8;
    /// All of them: what a service records.
    pub const ALL: [Self; Self::COUNT] = [
        Self::ClientReceive,
        Self::UpstreamConnect,
        Self::UpstreamSend,
        Self::UpstreamWait,
        Self::UpstreamReceive,
        Self::ClientSend,
        Self::Own,
        Self::Total,
    ];
    /// What an endpoint records.
    pub const OF_ENDPOINT: [Self; 5] = [
        Self::UpstreamConnect,
        Self::UpstreamSend,
        Self::UpstreamWait,
        Self::UpstreamReceive,
        Self::Total,
    ];

    /// Its name in reports, metrics and on the command line.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ClientReceive => "client_receive",
            Self::UpstreamConnect => "upstream_connect",
            Self::UpstreamSend => "upstream_send",
            Self::UpstreamWait => "upstream_wait",
            Self::UpstreamReceive => "upstream_receive",
            Self::ClientSend => "client_send",
            Self::Own => "own",
            Self::Total => "total",
        }
    }

    /// Its place in [`Phase::ALL`].
    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

/// What is recorded is counted in tenths of a microsecond: ringmain's own part is a few
/// microseconds, and whole ones would round a quarter of it away.
pub const UNITS_PER_MICROSECOND: u64 = 10;

/// The longest time that is told apart from longer ones: a day. An exchange that takes longer is
/// recorded as one that takes a day.
pub const UNITS_MAX: u64 = 24 * 3_600 * 1_000_000 * UNITS_PER_MICROSECOND;

/// Nanoseconds in units, rounded down and cut at [`UNITS_MAX`].
pub(super) const fn units(nanoseconds: u64) -> u64 {
    const NANOSECONDS_PER_UNIT: u64 = 1_000 / UNITS_PER_MICROSECOND;
    let units = nanoseconds / NANOSECONDS_PER_UNIT;
    if units < UNITS_MAX { units } else { UNITS_MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_stands_at_its_index() {
        for (index, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!(phase.index(), index);
        }
        assert!(Phase::OF_ENDPOINT.is_sorted());
    }

    #[test]
    fn a_unit_is_a_tenth_of_a_microsecond() {
        let day = 24 * 3_600 * 1_000_000_000;
        for (nanoseconds, expected) in [
            (0, 0),
            (99, 0),
            (100, 1),
            (4_150, 41),
            (day, UNITS_MAX),
            (day + 100, UNITS_MAX),
            (u64::MAX, UNITS_MAX),
        ] {
            assert_eq!(units(nanoseconds), expected, "{nanoseconds}");
        }
    }
}
