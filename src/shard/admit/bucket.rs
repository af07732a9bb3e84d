//! A token bucket that is one timestamp: the generic cell rate algorithm.
//!
//! The timestamp is the moment at which the bucket is full again. Each request that is let in moves
//! it on by the rate's interval; one that would move it further ahead than the burst reaches is
//! not let in, and moves nothing: to ask costs nothing. Pure: `now` is an argument.
//!
//! ```text
//!             now        full                 now + span
//!   -----------|----------|---------------------|-------> time
//!              |<- spent->|<- still to spend -->|
//! ```

use std::num::NonZeroU32;

use crate::plan::limits::Rate;

/// A moment of the shard's clock, in units of a [`Rate`]; `now` never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

impl Moment {
    pub(super) fn of_nanoseconds(nanoseconds: u64) -> Self {
        Self(nanoseconds.saturating_mul(Rate::UNITS))
    }
}

/// What somebody has spent of a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bucket {
    /// Nothing is spent from this moment on.
    full: Moment,
}

impl Bucket {
    /// The bucket after one more request now.
    ///
    /// # Errors
    /// Over the rate: the seconds after which one may be let in, rounded up.
    pub(super) fn spend(self, rate: &Rate, now: Moment) -> Result<Self, NonZeroU32> {
        let full = self.full.max(now).0.saturating_add(rate.interval());
        match full.checked_sub(now.0.saturating_add(rate.span())) {
            None | Some(0) => Ok(Self { full: Moment(full) }),
            Some(over) => Err(seconds(over)),
        }
    }

    /// True exactly when it is as good as one that nothing was ever spent of.
    pub(super) fn is_full(self, now: Moment) -> bool {
        self.full <= now
    }
}

fn seconds(units: u64) -> NonZeroU32 {
    const SECOND: u64 = 1_000_000_000 * Rate::UNITS;
    let seconds = u32::try_from(units.div_ceil(SECOND)).unwrap_or(u32::MAX);
    NonZeroU32::new(seconds).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn rate(per_second: u32, burst: u32) -> Rate {
        let positive = |number| NonZeroU32::new(number).expect("it is not 0");
        Rate::new(positive(per_second), positive(burst))
    }

    /// At each moment, in milliseconds, one request: 0 where it is let in, else the seconds after
    /// which another may be.
    #[track_caller]
    fn check(per_second: u32, burst: u32, cases: &[(u64, u32)]) {
        let rate = rate(per_second, burst);
        let mut bucket = Bucket::default();
        for (place, (milliseconds, expected)) in cases.iter().enumerate() {
            let now = Moment::of_nanoseconds(milliseconds * 1_000_000);
            let told = match bucket.spend(&rate, now) {
                Ok(next) => {
                    bucket = next;
                    0
                }
                Err(seconds) => seconds.get(),
            };
            assert_eq!(told, *expected, "request {place} at {milliseconds} ms");
        }
    }

    #[test]
    fn a_burst_is_let_in_and_then_the_rate() {
        check(1, 1, &[(0, 0), (0, 1), (999, 1), (1_000, 0), (1_001, 1)]);
        check(2, 3, &[(0, 0), (0, 0), (0, 0), (0, 1), (499, 1), (500, 0)]);
        // What is refused costs nothing, and who was quiet has the whole burst again, not more.
        let later = 3_600_000;
        let twice = [(later, 0), (later, 0), (later, 1), (later + 500, 0)];
        check(
            2,
            2,
            &[&[(0, 0), (0, 0), (0, 1), (1, 1)][..], &twice].concat(),
        );
    }

    #[test]
    fn the_wait_is_told_in_seconds_rounded_up() {
        check(1, 1, &[(5, 0), (5, 1), (6, 1), (1_004, 1), (1_005, 0)]);
        let mut cases = vec![(0, 0); 10];
        cases.extend([(0, 1), (1_000, 0)]);
        check(1, 10, &cases);
        // One in three seconds cannot be written, but two waits in a row can.
        check(1, 1, &[(0, 0), (1_000, 0), (1_000, 1)]);
    }

    #[test]
    fn the_fastest_rate_is_held() {
        let rate = rate(100_000_000, 100_000_000);
        // The burst is spent; then ten are let in within each hundred nanoseconds.
        let full = Moment(rate.span());
        let (mut bucket, mut let_in) = (Bucket { full }, 0_u64);
        assert!(bucket.spend(&rate, Moment::of_nanoseconds(0)).is_err());
        for step in 1..=10_000 {
            let now = Moment::of_nanoseconds(step * 100);
            while let Ok(next) = bucket.spend(&rate, now) {
                bucket = next;
                let_in += 1;
            }
        }
        assert_eq!(let_in, 100_000);
    }

    proptest! {
        /// Over any span no more is let in than the burst and what the rate gives in that span, and
        /// no less where there was demand for it.
        #[test]
        fn any_demand_is_let_in_up_to_the_rate(
            per_second in 1_u32..=100_000_000,
            burst in 1_u32..=50,
            gaps in prop::collection::vec(0_u64..50, 1..200),
        ) {
            let rate = rate(per_second, burst);
            // Gaps are in tenths of the interval, so that demand is both below and above the rate.
            let tenth = (SECOND / u64::from(per_second) / 10).max(1);
            let (mut bucket, mut now, mut let_in) = (Bucket::default(), 0_u64, 0_u64);
            let mut refused = false;
            for gap in &gaps {
                now += gap * tenth;
                match bucket.spend(&rate, Moment::of_nanoseconds(now)) {
                    Ok(next) => {
                        bucket = next;
                        let_in += 1;
                    }
                    Err(seconds) => {
                        refused = true;
                        // Whoever waits that long is let in.
                        let wait = u64::from(seconds.get()) * SECOND;
                        let then = Moment::of_nanoseconds(now + wait);
                        prop_assert!(bucket.spend(&rate, then).is_ok());
                    }
                }
            }
            // In units of time, as the bucket counts: a nanosecond may be more than an interval.
            let most = u64::from(burst) + now * Rate::UNITS / rate.interval();
            prop_assert!(let_in <= most, "{let_in} of {most}");
            prop_assert!(refused || let_in == gaps.len() as u64);
        }
    }
}
