//! What runs at an endpoint, and how late it has answered: what policies weigh endpoints by.
//!
//! The wait is a peak EWMA, an exponentially weighted average that believes bad news at once and
//! good news by and by; the idea and its time constant `T` of ten seconds are Finagle's
//! (<https://twitter.github.io/finagle/guide/Clients.html>, "Power of Two Choices + Peak EWMA").
//! What is remembered decays by `e^(-t/T)`; a wait that is longer than what is left of it takes its
//! place. So it does not matter how often an endpoint is asked; and one that nobody asks because it
//! was slow is asked again when its time comes, not when it has proved better, which it could not.
//!
//! Pure: the time is an argument. It belongs to one shard.

use std::cell::Cell;

/// How long it takes until 37 % are left of a wait, in nanoseconds: ten seconds.
const CONSTANT: f64 = 10e9;

/// How long after the last answer or fault anything is remembered, in nanoseconds: three time
/// constants. By then a wait has decayed to a twentieth and says nothing any more; an endpoint that
/// seemed twenty times as fast as it is would get more than it can take before it answers once.
const MEMORY: u64 = 30_000_000_000;

/// How long a trial has to bring an answer before there may be another one, in nanoseconds: ten
/// seconds.
const TRIAL: u64 = 10_000_000_000;

/// A fault costs as if waits had been so many times as long. Alone it is decayed in 21 seconds, a
/// second one soon after leaves next to nothing for the endpoint.
const FAULT_FACTOR: f64 = 8.0;

/// What an endpoint waits in the least that has had a fault, in nanoseconds: a millisecond.
const FAULT_LEAST: f64 = 1e6;

/// What an endpoint waits that has done nothing but fault, in nanoseconds: a second.
const FAULT_FIRST: f64 = 1e9;

/// What nothing waits longer than, in nanoseconds: ten minutes. So faults do not add up for ever.
const MOST: f64 = 600e9;

/// What one endpoint does for one shard.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// Exchanges under way.
    active: Cell<u32>,
    /// What was remembered at `seen`, in nanoseconds; 0 before the first wait, never afterwards.
    wait: Cell<f64>,
    /// When something was last noted.
    seen: Cell<u64>,
    /// When the last trial began.
    tried: Cell<Option<u64>>,
}

impl Load {
    /// One more exchange is under way; [`Load::end`] follows, once.
    #[inline]
    pub fn begin(&self) {
        self.active.set(self.active.get() + 1);
    }

    /// One exchange that had begun is over.
    #[inline]
    pub fn end(&self) {
        debug_assert!(0 < self.active.get(), "what ends has begun");
        self.active.set(self.active.get().saturating_sub(1));
    }

    /// Exchanges under way.
    #[inline]
    pub fn active(&self) -> u32 {
        self.active.get()
    }

    /// Notes that the endpoint took `nanoseconds` to begin its answer, at `now`.
    #[inline]
    pub fn observe(&self, nanoseconds: u64, now: u64) {
        let observed = (nanoseconds as f64).clamp(1.0, MOST);
        self.note(observed.max(self.wait(now).unwrap_or(0.0)), now);
    }

    /// Notes at `now` that the endpoint failed an exchange.
    pub fn penalize(&self, now: u64) {
        let next = match self.wait(now) {
            Some(wait) => wait.max(FAULT_LEAST) * FAULT_FACTOR,
            None => FAULT_FIRST,
        };
        self.note(next.min(MOST), now);
    }

    /// How long an exchange that begins at `now` can be expected to wait, in nanoseconds; `None`
    /// when there was no wait yet, or none for thirty seconds.
    #[inline]
    pub fn wait(&self, now: u64) -> Option<f64> {
        // A time before the last is the last: a turn of a shard's loop may tell them out of order.
        let elapsed = now.saturating_sub(self.seen.get());
        let is_known = 0.0 < self.wait.get() && elapsed < MEMORY;
        is_known.then(|| self.wait.get() * (-(elapsed as f64) / CONSTANT).exp())
    }

    /// True when an endpoint of which no wait is known may be sent one exchange to find it out:
    /// once in ten seconds. What runs there does not matter; that may be tunnels, which have been
    /// answered long ago.
    pub fn is_trial_due(&self, now: u64) -> bool {
        let since = |tried| now.saturating_sub(tried);
        self.tried.get().is_none_or(|tried| TRIAL <= since(tried))
    }

    /// A trial begins at `now`.
    pub fn begin_trial(&self, now: u64) {
        self.tried.set(Some(now));
    }

    fn note(&self, wait: f64, now: u64) {
        self.wait.set(wait);
        self.seen.set(now.max(self.seen.get()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const MILLISECOND: u64 = 1_000_000;

    /// Waits in milliseconds, each at its second; then what is expected at a second, to a tenth of
    /// a percent.
    #[track_caller]
    fn check(waits: &[(u64, u64)], at: u64, expected: Option<f64>) {
        let load = Load::default();
        for (second, wait) in waits {
            load.observe(wait * MILLISECOND, second * SECOND);
        }
        let found = load.wait(at * SECOND).map(|wait| wait / 1e6);
        let is_near = match (found, expected) {
            (Some(found), Some(expected)) => (found - expected).abs() < expected / 1000.0,
            (found, expected) => found == expected,
        };
        assert!(is_near, "{waits:?} at {at}: {found:?}, not {expected:?}");
    }

    #[test]
    fn a_peak_counts_at_once_and_what_is_better_by_and_by() {
        check(&[(0, 5)], 0, Some(5.0));
        check(&[(0, 5), (1, 50)], 1, Some(50.0));
        // 50 e^-1.
        check(&[(0, 5), (1, 50), (11, 10)], 11, Some(18.394));
        check(&[(0, 5), (1, 50), (21, 10)], 21, Some(10.0));
        check(&[(0, 50), (0, 10), (0, 10)], 0, Some(50.0));
    }

    #[test]
    fn it_does_not_matter_how_often_an_endpoint_is_asked() {
        let seldom = [(0, 50), (10, 10)];
        let often: Vec<_> = [(0, 50)]
            .into_iter()
            .chain((1..=10).map(|second| (second, 10)))
            .collect();
        check(&seldom, 10, Some(18.394));
        check(&often, 10, Some(18.394));
    }

    #[test]
    fn what_was_seen_decays_and_is_forgotten() {
        check(&[], 0, None);
        check(&[(0, 50)], 10, Some(18.394));
        check(&[(0, 50)], 29, Some(2.751));
        check(&[(0, 50)], 30, None);
        check(&[(0, 50), (29, 1)], 29, Some(2.751));
        check(&[(0, 50), (30, 1)], 30, Some(1.0));
        check(&[(5, 50)], 4, Some(50.0));
    }

    #[test]
    fn faults_multiply_up_to_a_bound_and_decay() {
        let load = Load::default();
        load.penalize(0);
        assert_eq!(load.wait(0), Some(1e9), "nothing else is known");
        let load = Load::default();
        load.observe(20 * MILLISECOND, 0);
        load.penalize(0);
        assert_eq!(load.wait(0), Some(160e6));
        load.penalize(0);
        assert_eq!(load.wait(0), Some(1280e6));
        let later = load.wait(20 * SECOND).expect("it is remembered");
        assert!(later < 180e6, "{later}");
        for _ in 0..1000 {
            load.penalize(0);
        }
        assert_eq!(load.wait(0), Some(600e9));
        let quick = Load::default();
        quick.observe(0, 0);
        quick.penalize(0);
        assert_eq!(quick.wait(0), Some(8e6));
    }

    #[test]
    fn a_trial_is_due_once_in_ten_seconds() {
        let load = Load::default();
        assert!(load.is_trial_due(0));
        load.begin_trial(0);
        assert!(!load.is_trial_due(0));
        assert!(!load.is_trial_due(10 * SECOND - 1));
        assert!(load.is_trial_due(10 * SECOND));
    }

    #[test]
    fn what_is_under_way_is_counted() {
        let load = Load::default();
        load.begin();
        load.begin();
        load.end();
        assert_eq!(load.active(), 1);
    }
}
