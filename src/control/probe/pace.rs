//! When an endpoint is tried next. Pure: `now` and the generator are arguments.
//!
//! Tries begin on beats that all probes of the process share, and their answers are looked for
//! together a moment later. What is done for many at once costs less than what the thread and its
//! caches are woken for each time: a probe over loopback costs 70 us of CPU where 10 begin at once,
//! and 60 with 50 (bench/README.md).

use std::time::Duration;

use tokio::time::Instant;

use crate::balance::{Xorshift, draw_id};
use crate::config::Probe;

/// From one beat to the next, for intervals of ten beats or more.
const BEAT: Duration = Duration::from_millis(50);

/// The same for shorter intervals, which would have no jitter else (it is a tenth of the least
/// one), and from the begin of a try to the first look for its answer.
const SHORT_BEAT: Duration = Duration::from_millis(10);

/// The beats of the process; short ones fall together with the others where they can.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beats {
    first: Instant,
}

impl Beats {
    pub(super) const fn new(first: Instant) -> Self {
        Self { first }
    }

    /// The beat next to `begun + wait` on which a try with that interval may begin; one that is to
    /// come after `now`.
    pub(super) fn next(self, (begun, wait): (Instant, Duration), now: Instant) -> Instant {
        let beat = if wait < 9 * BEAT { SHORT_BEAT } else { BEAT };
        let near = self.last_before(begun + wait + beat / 2, beat);
        if now < near {
            near
        } else {
            self.last_before(now, beat) + beat
        }
    }

    /// When the answers of tries that begin at `now` are looked for.
    pub(super) fn look(self, now: Instant) -> Instant {
        self.last_before(now, SHORT_BEAT) + SHORT_BEAT
    }

    fn last_before(self, at: Instant, beat: Duration) -> Instant {
        let past = at.duration_since(self.first).as_nanos() % beat.as_nanos();
        at - Duration::from_nanos(past as u64)
    }
}

/// How long from the begin of one try to that of the next: within a tenth of the interval, so that
/// what began together does not stay together.
pub(super) fn wait(probe: &Probe, failing: bool, generator: &mut Xorshift) -> Duration {
    interval(probe, failing).mul_f64(0.9 + 0.2 * share(generator))
}

/// As [`wait`] behind the first try of an endpoint, with which all others of the process begin:
/// anything up to the interval.
pub(super) fn first_wait(probe: &Probe, failing: bool, generator: &mut Xorshift) -> Duration {
    interval(probe, failing).mul_f64(share(generator))
}

const fn interval(probe: &Probe, failing: bool) -> Duration {
    if failing {
        probe.interval_failing
    } else {
        probe.interval
    }
}

/// A number from 0 to 1, 1 excluded.
fn share(generator: &mut Xorshift) -> f64 {
    let drawn = draw_id(generator) as u32;
    f64::from(drawn) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe() -> Probe {
        let text = "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:8080\"\nservice = \"s\"\n\
                    [[service]]\nname = \"s\"\nbackends = [\"127.0.0.1:1\"]\n[service.probe]\n";
        let config = crate::config::parse("config.toml", text).expect("it breaks no rule");
        let probe = config.services()[0].probe.clone();
        probe.expect("the text has one")
    }

    #[test]
    fn waits_stay_within_a_tenth_and_differ() {
        let probe = probe();
        let mut generator = crate::balance::generator();
        for (failing, interval) in [(false, 5.0), (true, 1.0)] {
            let mut draw = |first| match first {
                true => first_wait(&probe, failing, &mut generator).as_secs_f64() / interval,
                false => wait(&probe, failing, &mut generator).as_secs_f64() / interval,
            };
            // Of 1,000 fair draws none falls into an outer tenth of the range once in 10^45 runs.
            for (first, least, most) in [(true, 0.0, 1.0), (false, 0.9, 1.1)] {
                let drawn: Vec<f64> = (0..1_000).map(|_| draw(first)).collect();
                let tenth = (most - least) / 10.0;
                assert!(drawn.iter().all(|share| (least..=most).contains(share)));
                assert!(drawn.iter().any(|share| *share < least + tenth));
                assert!(drawn.iter().any(|share| most - tenth < *share));
            }
        }
    }

    #[test]
    fn tries_begin_on_beats() {
        let first = Instant::now();
        let beats = Beats::new(first);
        let at = |millis| first + Duration::from_millis(millis);
        for (begun, wait, now, expected) in [
            (0, 1_000, 1, 1_000),
            (3, 1_021, 13, 1_000),
            (3, 1_022, 13, 1_050),
            (50, 949, 60, 1_000),
            (0, 94, 10, 90),
            (0, 95, 10, 100),
            (7, 90, 10, 100),
            // One that took longer is followed by the next at once.
            (0, 100, 100, 110),
            (0, 100, 1_234, 1_240),
            (0, 1_000, 1_234, 1_250),
            // And one that is tried again at once waits for a beat.
            (0, 0, 3, 10),
        ] {
            let next = beats.next((at(begun), Duration::from_millis(wait)), at(now));
            assert_eq!(next, at(expected), "{begun} + {wait} at {now}");
        }
        // More short beats than 32 bits count.
        let later = 600 * 24 * 60 * 60 * 1_000;
        let next = beats.next((at(later), Duration::from_millis(100)), at(later + 10));
        assert_eq!(next, at(later + 100));
        assert_eq!(beats.look(at(50)), at(60));
        assert_eq!(beats.look(at(57)), at(60));
    }
}
