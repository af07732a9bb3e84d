//! When a name is looked up next.
//!
//! Pure: no clock, no chance; the random part is an argument.

use std::time::Duration;

use crate::config::Dns;

/// The longest wait before a lookup that has failed is tried again, so that a recovery is seen
/// soon.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// The pace of one name.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    ttl_min: Duration,
    ttl_max: Duration,
    /// Lookups that have failed since the last that did not.
    failures: u32,
}

impl Pace {
    pub(super) fn new(dns: &Dns) -> Self {
        Self {
            ttl_min: dns.ttl_min,
            ttl_max: dns.ttl_max,
            failures: 0,
        }
    }

    /// The wait after an answer that is good for `ttl`.
    pub(super) fn after_answer(&mut self, ttl: Duration) -> Duration {
        self.failures = 0;
        ttl.clamp(self.ttl_min, self.ttl_max)
    }

    /// The wait after a lookup that has failed: `ttl_min`, and twice the last one each further
    /// time, a tenth more or less, as `unit` says (`0.0..1.0`): names that fail together are not
    /// asked for together for ever.
    pub(super) fn after_failure(&mut self, unit: f64) -> Duration {
        let doubled = self.ttl_min.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let wait = doubled.min(self.ttl_max).min(RETRY_MAX);
        wait.mul_f64(0.9 + 0.2 * unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(ttl_min: u64, ttl_max: u64) -> Pace {
        Pace::new(&Dns {
            ttl_min: Duration::from_secs(ttl_min),
            ttl_max: Duration::from_secs(ttl_max),
            servers: Vec::new(),
        })
    }

    #[track_caller]
    fn check_failures(mut pace: Pace, expected: &[u64]) {
        let waits = expected.iter().map(|_| pace.after_failure(0.5));
        let expected = expected.iter().map(|seconds| Duration::from_secs(*seconds));
        assert_eq!(waits.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }

    #[test]
    fn an_answer_is_good_for_its_ttl_within_the_bounds() {
        let mut pace = pace(2, 60);
        let cases = [(0, 2), (1, 2), (2, 2), (30, 30), (60, 60), (86_400, 60)];
        for (ttl, expected) in cases {
            let wait = pace.after_answer(Duration::from_secs(ttl));
            assert_eq!(wait, Duration::from_secs(expected), "{ttl}");
        }
    }

    #[test]
    fn waits_after_failures_double_up_to_half_a_minute() {
        check_failures(pace(1, 300), &[1, 2, 4, 8, 16, 30, 30]);
        check_failures(pace(4, 10), &[4, 8, 10, 10]);
        check_failures(pace(86_400, 86_400), &[30, 30]);
    }

    #[test]
    fn many_failures_do_not_overflow() {
        let mut pace = pace(86_400, 86_400);
        pace.failures = u32::MAX;
        assert_eq!(pace.after_failure(0.5), RETRY_MAX);
    }

    #[test]
    fn an_answer_ends_the_doubling() {
        let mut pace = pace(1, 300);
        assert_eq!(pace.after_failure(0.5), Duration::from_secs(1));
        assert_eq!(pace.after_failure(0.5), Duration::from_secs(2));
        pace.after_answer(Duration::from_secs(5));
        check_failures(pace, &[1, 2]);
    }

    #[test]
    fn a_wait_is_a_tenth_more_or_less() {
        let wait = |unit| pace(10, 300).after_failure(unit);
        assert_eq!(wait(0.0), Duration::from_secs(9));
        assert!(wait(0.999_999) < Duration::from_secs(11));
        assert!(Duration::from_millis(10_999) < wait(0.999_999));
    }
}
