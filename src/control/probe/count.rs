//! What tries in a row say of an endpoint. Pure.
//!
//! ```text
//!             one good                    `unhealthy_after` failed
//!   Unknown ------------> Healthy ------------------------------> Unhealthy
//!      |                     ^                                        |  ^
//!      |                     +---------- `healthy_after` good --------+  |
//!      +---------------------- `unhealthy_after` failed ----------------+
//! ```

use crate::control::compile::Health;

/// The verdict on one endpoint, and how far the tries are from another one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count {
    healthy_after: u32,
    unhealthy_after: u32,
    health: Health,
    /// How many of the last tries in a row speak against `health`; less than it takes to change it.
    against: u32,
}

impl Count {
    /// Of an endpoint of which `health` is known, by tries of another kind maybe; both numbers are
    /// 1 or more.
    pub(super) const fn new(health: Health, healthy_after: u32, unhealthy_after: u32) -> Self {
        Self {
            healthy_after,
            unhealthy_after,
            health,
            against: 0,
        }
    }

    /// The verdict so far.
    pub(super) const fn health(&self) -> Health {
        self.health
    }

    /// True exactly when `interval_failing` holds: the last try failed, or the verdict is bad.
    pub(super) fn is_failing(&self) -> bool {
        self.health == Health::Unhealthy || 0 < self.against
    }

    /// Counts one try. `Some` where that is news: another verdict, or a good try after a failed one
    /// that was not enough for a bad verdict.
    pub(super) fn note(&mut self, good: bool) -> Option<Health> {
        let failed_before = self.is_failing();
        match (self.health, good) {
            (Health::Unknown, true) => self.turn(Health::Healthy),
            (Health::Unknown | Health::Healthy, false) => {
                self.against += 1;
                (self.unhealthy_after <= self.against)
                    .then(|| self.turn(Health::Unhealthy))
                    .flatten()
            }
            (Health::Healthy, true) => {
                self.against = 0;
                failed_before.then_some(Health::Healthy)
            }
            (Health::Unhealthy, true) => {
                self.against += 1;
                (self.healthy_after <= self.against)
                    .then(|| self.turn(Health::Healthy))
                    .flatten()
            }
            (Health::Unhealthy, false) => {
                self.against = 0;
                None
            }
        }
    }

    fn turn(&mut self, health: Health) -> Option<Health> {
        self.health = health;
        self.against = 0;
        Some(health)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `tries` are `+` and `-`; `expected` has a letter for each: `.` is no news, `H` and `U` are.
    #[track_caller]
    fn check(healthy_after: u32, unhealthy_after: u32, tries: &str, expected: &str) {
        let mut count = Count::new(Health::Unknown, healthy_after, unhealthy_after);
        let news = tries.chars().map(|tried| match count.note(tried == '+') {
            None => '.',
            Some(Health::Healthy) => 'H',
            Some(Health::Unhealthy) => 'U',
            Some(Health::Unknown) => '?',
        });
        let news: String = news.collect();
        assert_eq!(
            news, expected,
            "{tries} with {healthy_after}, {unhealthy_after}"
        );
    }

    #[test]
    fn a_verdict_turns_after_so_many_tries_in_a_row() {
        for (healthy_after, unhealthy_after, tries, expected) in [
            (1, 1, "+++--++", "H..U.H."),
            (1, 1, "--+", "U.H"),
            (1, 3, "+--+---+", "H..H..UH"),
            (3, 1, "+-++-+++", "HU.....H"),
            (3, 2, "+--++-+++-", "H.U.....H."),
            // What was never tried is healthy at its first good try, however many it takes later.
            (3, 3, "--+", "..H"),
            (3, 3, "---", "..U"),
            (1000, 1000, "+", "H"),
        ] {
            check(healthy_after, unhealthy_after, tries, expected);
        }
    }

    #[test]
    fn it_fails_from_the_first_failed_try_to_the_verdict_that_it_is_healthy() {
        let mut count = Count::new(Health::Unknown, 2, 2);
        assert!(!count.is_failing(), "nothing is known");
        let failing = "+--+++-+".chars().map(|tried| {
            count.note(tried == '+');
            if count.is_failing() { 'f' } else { '.' }
        });
        assert_eq!(failing.collect::<String>(), ".fff..f.");
    }
}
