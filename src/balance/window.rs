//! How long the waits were lately: a small histogram of the last five to ten seconds.
//!
//! Two halves take turns. What is recorded goes into the half that runs; what is read is that half
//! and the one before it. Which half runs is an argument, the number of the period of time; nobody
//! has to turn a window, for the first record of a period clears the half of the last but one.
//!
//! ```text
//!   period    7          8          9
//!   half 1    [ 7      ]            [ 9 ->
//!   half 0               [ 8      ]       read in period 9: 8 and 9
//! ```
//!
//! Buckets are log-linear, eight to each power of two. What is read is the middle of a bucket, and
//! so off by at most a sixteenth of what was recorded ([`ERROR_MAX`]) from 16 us to 68 s; below
//! that by at most 1.024 us, and longer waits read as 66 s or so. The report's HDR histograms would
//! take thirty times the memory for digits that no decision needs.
//!
//! Nothing allocates but the making. A window takes [`Window::BYTES`].

/// The waits of an endpoint, or of all endpoints of a service.
#[derive(Clone, Debug)]
pub struct Window {
    /// Period `p` is in half `p % 2`.
    halves: [Half; 2],
}

/// What was recorded in one period.
#[derive(Clone, Debug)]
struct Half {
    /// Which one it was.
    period: u32,
    /// `total = counts[0] + counts[1] + ...`
    total: u32,
    counts: [u32; BUCKETS],
}

/// Buckets to a power of two, as a power of two.
const DIGITS: u32 = 3;
/// The width of the lowest buckets, as a power of two: 2.048 us.
const WIDTH: u32 = 11;
/// Waits below it, as a power of two, are told apart: 68.7 s.
const TOP: u32 = 36;
/// The linear ones below 16 us, and those of each power of two from there.
const BUCKETS: usize = ((TOP - WIDTH - DIGITS + 1) << DIGITS) as usize;

/// What is read is off by at most this part of what was recorded, from 16 us to 68 s.
pub const ERROR_MAX: f64 = 1.0 / 16.0;

impl Window {
    /// What one takes.
    pub const BYTES: usize = size_of::<Self>();

    /// Empty.
    pub const fn new() -> Self {
        Self {
            halves: [const { Half::new(0) }; 2],
        }
    }

    /// Counts one wait in `period`, which is not before any that was recorded in.
    #[inline]
    pub fn record(&mut self, period: u32, nanoseconds: u64) {
        let half = &mut self.halves[(period % 2) as usize];
        if half.period != period {
            *half = Half::new(period);
        }
        // A shard records some millions a period at most.
        half.total = half.total.saturating_add(1);
        let count = &mut half.counts[bucket(nanoseconds)];
        *count = count.saturating_add(1);
    }

    /// How many waits it holds in `period`.
    pub fn count(&self, period: u32) -> u64 {
        self.recent(period).map(|half| u64::from(half.total)).sum()
    }

    /// The wait that the part `quantile` (0 to 1) did not exceed; `None` when there was none.
    pub fn quantile(&self, period: u32, quantile: f64) -> Option<u64> {
        let at = |bucket: usize| self.at(period, bucket);
        read(self.count(period), quantile, at)
    }

    /// The same of this window without `part`, whose waits were all recorded in this one too.
    pub fn quantile_without(&self, part: &Self, period: u32, quantile: f64) -> Option<u64> {
        let at = |bucket: usize| {
            let all = self.at(period, bucket);
            all.saturating_sub(part.at(period, bucket))
        };
        let total = self.count(period).saturating_sub(part.count(period));
        read(total, quantile, at)
    }

    /// Forgets the waits of `part`, all of which were recorded in this window too.
    pub fn remove(&mut self, part: &Self) {
        for (half, part) in self.halves.iter_mut().zip(&part.halves) {
            if half.period != part.period {
                continue;
            }
            half.total = half.total.saturating_sub(part.total);
            for (count, part) in half.counts.iter_mut().zip(&part.counts) {
                *count = count.saturating_sub(*part);
            }
        }
    }

    /// The least wait that reads the same as `nanoseconds`.
    pub fn floor(nanoseconds: u64) -> u64 {
        begin(bucket(nanoseconds))
    }

    fn at(&self, period: u32, bucket: usize) -> u64 {
        let halves = self.recent(period);
        halves.map(|half| u64::from(half.counts[bucket])).sum()
    }

    fn recent(&self, period: u32) -> impl Iterator<Item = &Half> {
        let halves = self.halves.iter();
        halves.filter(move |half| period <= half.period.saturating_add(1))
    }
}

impl Default for Window {
    fn default() -> Self {
        Self::new()
    }
}

impl Half {
    const fn new(period: u32) -> Self {
        Self {
            period,
            total: 0,
            counts: [0; BUCKETS],
        }
    }
}

/// The bucket of a wait.
#[inline]
const fn bucket(nanoseconds: u64) -> usize {
    const LAST: u64 = (1 << TOP) - 1;
    let wait = if nanoseconds < LAST {
        nanoseconds
    } else {
        LAST
    } >> WIDTH;
    // How often it is halved until eight buckets hold it.
    let halved = (u64::BITS - wait.leading_zeros()).saturating_sub(DIGITS + 1);
    ((halved << DIGITS) as u64 + (wait >> halved)) as usize
}

/// The least wait of a bucket.
const fn begin(bucket: usize) -> u64 {
    let halved = (bucket >> DIGITS).saturating_sub(1) as u32;
    let wait = bucket as u64 - ((halved as u64) << DIGITS);
    wait << halved << WIDTH
}

/// The middle of the bucket in which the wait of the rank is.
fn read(total: u64, quantile: f64, at: impl Fn(usize) -> u64) -> Option<u64> {
    let rank = ((total as f64 * quantile).ceil() as u64).max(1);
    let mut seen = 0;
    let found = (0..BUCKETS).find(|bucket| {
        seen += at(*bucket);
        rank <= seen
    })?;
    Some(begin(found).midpoint(begin(found + 1)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn recorded(waits: impl IntoIterator<Item = u64>) -> Window {
        let mut window = Window::new();
        for wait in waits {
            window.record(4, wait);
        }
        window
    }

    #[test]
    fn a_window_takes_less_than_two_kibibytes() {
        const { assert!(Window::BYTES < 2048) };
    }

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        assert_eq!(begin(0), 0);
        for number in 0..BUCKETS {
            let (first, after) = (begin(number), begin(number + 1));
            assert!(first < after, "{number}");
            assert_eq!(bucket(first), number);
            assert_eq!(bucket(after - 1), number);
        }
        assert_eq!(begin(BUCKETS), 1 << TOP);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[track_caller]
    fn check(waits: &[u64], quantile: f64, expected: u64) {
        let read = recorded(waits.iter().copied()).quantile(4, quantile);
        let expected = recorded([expected]).quantile(4, 1.0);
        assert_eq!(read, expected, "{quantile} of {waits:?}");
    }

    #[test]
    fn a_quantile_is_the_wait_of_its_rank() {
        let waits = [SECOND, 2 * SECOND, 3 * SECOND, 4 * SECOND];
        check(&waits, 0.0, SECOND);
        check(&waits, 0.25, SECOND);
        check(&waits, 0.5, 2 * SECOND);
        check(&waits, 0.51, 3 * SECOND);
        check(&waits, 0.99, 4 * SECOND);
        check(&waits, 1.0, 4 * SECOND);
        check(&[0], 0.5, 0);
        check(&[u64::MAX], 0.5, (1 << TOP) - 1);
    }

    #[test]
    fn of_nothing_there_is_no_quantile() {
        let window = recorded([SECOND]);
        assert_eq!(Window::new().quantile(4, 0.5), None);
        assert_eq!(window.quantile_without(&window, 4, 0.5), None);
    }

    #[test]
    fn what_is_older_than_the_period_before_is_forgotten() {
        let mut window = Window::new();
        for (period, count) in [(1, 1), (2, 2), (3, 4), (4, 6)] {
            (0..count).for_each(|_| window.record(period, SECOND));
        }
        for (period, expected) in [(4, 10), (5, 6), (6, 0), (u32::MAX, 0)] {
            assert_eq!(window.count(period), expected, "{period}");
        }
        window.record(9, SECOND);
        assert_eq!(window.count(9), 1);
    }

    /// Every magnitude is as likely as every other.
    fn waits() -> impl Strategy<Value = Vec<u64>> {
        let wait = (0_u32..64, any::<u64>()).prop_map(|(shift, any)| any >> shift);
        prop::collection::vec(wait, 1..200)
    }

    proptest! {
        #[test]
        fn what_is_read_is_as_near_as_promised(wait in 0_u64..1 << TOP) {
            let read = recorded([wait]).quantile(4, 0.5).unwrap();
            let off = read.abs_diff(wait) as f64;
            let promised = (ERROR_MAX * wait as f64).max(1_024.0);
            prop_assert!(off <= promised, "{wait} reads {read}");
            prop_assert!(Window::floor(wait) <= wait);
        }

        #[test]
        fn a_quantile_is_that_of_the_sorted_waits(mut waits in waits(), quantile in 0.0..=1.0) {
            let read = recorded(waits.clone()).quantile(4, quantile);
            waits.sort_unstable();
            let rank = (waits.len() as f64 * quantile).ceil() as usize;
            let exact = waits[rank.max(1) - 1];
            prop_assert_eq!(read, recorded([exact]).quantile(4, 1.0));
        }

        #[test]
        fn all_without_a_part_is_the_rest(
            part in waits(), rest in waits(), quantile in 0.0..=1.0,
        ) {
            let mut all = recorded(part.iter().chain(&rest).copied());
            let (part, rest) = (recorded(part), recorded(rest));
            let expected = rest.quantile(4, quantile);
            prop_assert_eq!(all.quantile_without(&part, 4, quantile), expected);
            all.remove(&part);
            prop_assert_eq!(all.quantile(4, quantile), expected);
            prop_assert_eq!(all.count(4), rest.count(4));
        }
    }
}
