//! How many requests of a service may be sent once more: retries as a share of requests, so that
//! they can't multiply the load of endpoints that are failing under it.
//!
//! Counted over the last ten seconds, the running one included. A few a second are always allowed:
//! a share of few requests would be none. What else is tried again (a failed connect, one stale
//! connection) never asks.

/// The seconds that are looked back at.
const SECONDS: usize = 10;

/// The retries of one service on one shard.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    /// The running second, of the last call.
    second: u64,
    /// Second `s` is at `s % SECONDS`.
    seconds: [Counts; SECONDS],
    /// The sum of `seconds`.
    sum: Counts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    requests: u64,
    retries: u64,
}

impl Budget {
    /// Counts a request in `second`, which is not before that of any call.
    #[inline]
    pub fn request(&mut self, second: u64) {
        let running = self.running(second);
        running.requests += 1;
        self.sum.requests += 1;
    }

    /// True when another retry is within the budget: `share` (0 or more) of the requests of the
    /// last ten seconds, or `always` in the running second. It is counted then.
    pub fn retry(&mut self, second: u64, share: f64, always: u32) -> bool {
        let in_second = self.running(second).retries;
        let Counts { requests, retries } = self.sum;
        // A third and its like times a number of requests may be a little under the whole number.
        let allowed = (share * requests as f64 + 1e-9).floor();
        let is_within = retries as f64 + 1.0 <= allowed || in_second < u64::from(always);
        if is_within {
            self.running(second).retries += 1;
            self.sum.retries += 1;
        }
        is_within
    }

    /// The counts of `second`, with what is too old taken off the sum.
    #[inline]
    fn running(&mut self, second: u64) -> &mut Counts {
        if self.second < second {
            self.turn(second);
        }
        &mut self.seconds[self.second as usize % SECONDS]
    }

    #[cold]
    fn turn(&mut self, second: u64) {
        let passed = (second - self.second).min(SECONDS as u64);
        for back in 0..passed {
            let counts = &mut self.seconds[(second - back) as usize % SECONDS];
            let Counts { requests, retries } = std::mem::take(counts);
            self.sum.requests -= requests;
            self.sum.retries -= retries;
        }
        self.second = second;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What happens: so many requests, and then so many that ask for a retry, in a second.
    type Step = (u64, u32, u32);

    /// How many retries each step is allowed.
    #[track_caller]
    fn check(share: f64, always: u32, steps: &[Step], expected: &[u32]) {
        let mut budget = Budget::default();
        let allowed = steps.iter().map(|(second, requests, retries)| {
            (0..*requests).for_each(|_| budget.request(*second));
            let asked = (0..*retries).filter(|_| budget.retry(*second, share, always));
            asked.count() as u32
        });
        assert_eq!(allowed.collect::<Vec<_>>(), expected, "{steps:?}");
    }

    #[test]
    fn retries_are_a_share_of_the_requests_of_ten_seconds() {
        check(0.2, 0, &[(0, 100, 50)], &[20]);
        check(0.2, 0, &[(0, 100, 0), (9, 0, 50)], &[0, 20]);
        check(0.2, 0, &[(0, 100, 0), (10, 0, 50)], &[0, 0]);
        check(
            0.2,
            0,
            &[(0, 100, 15), (9, 0, 50), (10, 100, 50)],
            &[15, 5, 15],
        );
        check(0.2, 0, &[(7, 4, 9)], &[0]);
        check(0.1, 0, &[(7, 30, 9)], &[3]);
        check(0.0, 0, &[(7, 30, 9)], &[0]);
        check(1.0, 0, &[(7, 30, 90)], &[30]);
        check(3.0, 0, &[(7, 30, 100)], &[90]);
    }

    #[test]
    fn some_a_second_are_always_allowed() {
        check(0.2, 10, &[(0, 0, 50), (0, 0, 50), (1, 0, 50)], &[10, 0, 10]);
        check(0.0, 5, &[(0, 1000, 50), (3, 0, 50)], &[5, 5]);
        // They are retries all the same: the share counts them.
        check(0.2, 10, &[(0, 100, 50), (1, 0, 50)], &[20, 10]);
        check(0.2, 10, &[(0, 0, 10), (1, 100, 50)], &[10, 10]);
    }

    /// What the sums must be: of everything that was counted in the last ten seconds.
    fn sum(counted: &[(u64, bool)], second: u64) -> Counts {
        let recent = counted
            .iter()
            .filter(|(at, _)| second < at + SECONDS as u64);
        recent.fold(Counts::default(), |mut sum, (_, is_retry)| {
            sum.requests += u64::from(!is_retry);
            sum.retries += u64::from(*is_retry);
            sum
        })
    }

    proptest! {
        #[test]
        fn never_more_than_the_share_and_what_is_always_allowed(
            steps in prop::collection::vec((0_u64..13, any::<bool>()), 1..300),
            share in 0.0..2.0, always in 0_u32..4,
        ) {
            let mut budget = Budget::default();
            let mut counted = Vec::new();
            let mut second = 0;
            for (passes, asks) in steps {
                // Most calls fall into the second of the last one.
                second += passes.saturating_sub(9).pow(3);
                let before = sum(&counted, second);
                let in_second = counted.iter().filter(|at| **at == (second, true)).count();
                let is_allowed = asks && budget.retry(second, share, always);
                if !asks {
                    budget.request(second);
                }
                let within = before.retries < (share * before.requests as f64) as u64;
                prop_assert_eq!(is_allowed, asks && (within || in_second < always as usize));
                if !asks || is_allowed {
                    counted.push((second, asks));
                }
                prop_assert_eq!(budget.sum, sum(&counted, second));
            }
        }
    }
}
