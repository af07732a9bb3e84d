//! When an endpoint is tried next. Pure: `now` and the generator are arguments.
//!
//! Tries begin, and answers are looked for, on beats that all probes of the process share: so a
//! thousand endpoints wake the thread a hundred times a second, and not two thousand times.

use std::time::Duration;

use tokio::time::Instant;

use crate::balance::{Xorshift, draw_id};
use crate::config::Probe;

/// From one beat to the next. A tenth of the least interval, so that its jitter is still one.
const BEAT: Duration = Duration::from_millis(10);

/// The beats of the process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beats {
    first: Instant,
}

impl Beats {
    pub(super) const fn new(first: Instant) -> Self {
        Self { first }
    }

    /// The first beat that is not before `at`.
    pub(super) fn not_before(self, at: Instant) -> Instant {
        let beats = at
            .duration_since(self.first)
            .as_nanos()
            .div_ceil(BEAT.as_nanos());
        // So many beats are over a year.
        self.first + BEAT * u32::try_from(beats).unwrap_or(u32::MAX)
    }

    /// The first beat after `now`.
    pub(super) fn after(self, now: Instant) -> Instant {
        self.not_before(now + Duration::from_nanos(1))
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
    fn beats_are_ten_milliseconds_apart() {
        let first = Instant::now();
        let beats = Beats::new(first);
        let at = |micros| first + Duration::from_micros(micros);
        for (moment, expected) in [
            (0, 0),
            (1, 10_000),
            (9_999, 10_000),
            (10_000, 10_000),
            (10_001, 20_000),
            (3_600_000_001, 3_600_010_000),
        ] {
            assert_eq!(beats.not_before(at(moment)), at(expected), "{moment}");
        }
        assert_eq!(beats.after(at(10_000)), at(20_000));
    }
}
