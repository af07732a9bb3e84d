//! One leg of a fan-out: what it does next, and what all legs together mean for the client.
//!
//! Pure: no I/O, no clock; what is drawn and the time are arguments.
//!
//! ```text
//!   Running -> Asleep -> Running -> ... -> Succeeded
//!      '---------'-------------------------> Failed     attempts spent, or nobody wants it
//! ```

use std::time::Duration;

use crate::fault::Fault;
use crate::plan::{FanoutRules, Require};

/// The request to one backend, with all its attempts.
#[derive(Debug)]
pub(super) struct Leg {
    /// The backend's name, as the operator wrote it.
    pub(super) backend: Box<str>,
    /// The backend's place in the service, in the plan that it was last found in.
    pub(super) place: usize,
    /// How far it is.
    pub(super) state: State,
    /// Attempts that were begun.
    pub(super) attempts: u32,
    /// What the last of them that is over came to.
    pub(super) last: Option<Result<u16, Fault>>,
    /// The endpoint that it failed at, by the index of its slot.
    pub(super) failed_at: Option<u32>,
}

/// How far a leg is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// An attempt is under way, on the connection with this entry in the wheel, if it has one yet.
    Running(Option<u32>),
    /// Its next attempt has an instant.
    Asleep,
    /// It had the answer that was asked for, at this time.
    Succeeded(u64),
    /// It will not have it: that was known at this time.
    Failed(u64),
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With a final answer of this status.
    Answered(u16),
    /// Without one.
    Failed(Fault),
    /// The newest plan does not have the backend: there will be no other attempt.
    Gone,
}

/// What the legs mean for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It depends on legs that are not through.
    Open,
    /// As many have succeeded as have to.
    Met,
    /// So many can't succeed any more.
    Unmet,
}

impl Leg {
    /// To the backend at `place`, before its first attempt.
    pub(super) fn new(backend: Box<str>, place: usize) -> Self {
        Self {
            backend,
            place,
            state: State::Running(None),
            attempts: 0,
            last: None,
            failed_at: None,
        }
    }

    /// An attempt has `ended` at `now`; says when the next one begins, `drawn` being the random
    /// part of the wait before it. `None` when there is none.
    pub(super) fn attempt_ended(
        &mut self,
        now: u64,
        ended: Ended,
        rules: &FanoutRules,
        drawn: Duration,
    ) -> Option<u64> {
        match ended {
            Ended::Answered(status) => {
                self.last = Some(Ok(status));
                if status == rules.status {
                    self.state = State::Succeeded(now);
                    return None;
                }
            }
            Ended::Failed(fault) => self.last = Some(Err(fault)),
            Ended::Gone => {
                self.give_up(now, Fault::DestinationUnavailable);
                return None;
            }
        }
        if rules.attempts_max <= self.attempts {
            self.state = State::Failed(now);
            return None;
        }
        self.state = State::Asleep;
        let wait = wait(self.attempts.saturating_sub(1), rules.backoff_max, drawn);
        Some(now.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// It is not wanted any more, because of `fault`.
    pub(super) fn give_up(&mut self, now: u64, fault: Fault) {
        self.last = Some(Err(fault));
        self.state = State::Failed(now);
    }

    /// True exactly when it had the answer that was asked for.
    pub(super) const fn has_succeeded(&self) -> bool {
        matches!(self.state, State::Succeeded(_))
    }
}

/// The wait after an attempt that had so many `before` it: `min(2^n s, backoff_max)` and what was
/// drawn, which is the same as `min(2^n s + drawn, backoff_max + drawn)`.
pub(super) fn wait(before: u32, backoff_max: Duration, drawn: Duration) -> Duration {
    let doubled = 1_u64.checked_shl(before).unwrap_or(u64::MAX);
    Duration::from_secs(doubled)
        .min(backoff_max)
        .saturating_add(drawn)
}

/// What it means for a client that asks for `require` of so many `legs` that so many of them have
/// succeeded, and so many failed.
pub(super) const fn verdict(
    require: Require,
    legs: usize,
    (succeeded, failed): (usize, usize),
) -> Verdict {
    let needed = require.of(legs);
    if needed <= succeeded {
        Verdict::Met
    } else if legs - failed < needed {
        Verdict::Unmet
    } else {
        Verdict::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: u64 = 1_000_000;
    const SECOND: u64 = 1_000 * MILLISECOND;

    fn rules(attempts_max: u32, backoff_max: u64) -> FanoutRules {
        FanoutRules {
            require: Require::All,
            status: 201,
            attempts_max,
            backoff_max: Duration::from_secs(backoff_max),
            jitter: Duration::from_millis(100),
            body_bytes_max: 0,
            shard_legs_max: 1,
            shard_kept_bytes_max: 0,
            detached: false,
        }
    }

    /// Runs a leg in virtual time, with attempts that take no time and waits that draw `drawn`
    /// milliseconds; gives the instants of its attempts, in milliseconds, and how it ended.
    fn run(
        rules: &FanoutRules,
        drawn: impl Fn(u32) -> u64,
        answer: impl Fn(u64) -> Ended,
    ) -> (Vec<u64>, State) {
        let mut leg = Leg::new("b".into(), 0);
        let (mut now, mut instants) = (0, Vec::new());
        loop {
            leg.attempts += 1;
            instants.push(now / MILLISECOND);
            let drawn = Duration::from_millis(drawn(leg.attempts));
            match leg.attempt_ended(now, answer(now), rules, drawn) {
                Some(at) => now = at,
                None => return (instants, leg.state),
            }
        }
    }

    #[test]
    fn a_wait_is_two_to_the_n_seconds_up_to_its_bound_and_what_was_drawn() {
        let drawn = Duration::from_micros(12_345);
        for (before, seconds) in [(0, 1), (1, 2), (2, 4), (5, 32), (6, 64), (7, 64), (200, 64)] {
            let expected = Duration::from_secs(seconds) + drawn;
            assert_eq!(wait(before, Duration::from_secs(64), drawn), expected);
        }
        let day = Duration::from_secs(86_400);
        assert_eq!(wait(63, day, drawn), day + drawn);
        assert_eq!(wait(64, day, drawn), day + drawn);
    }

    #[test]
    fn a_backend_that_is_away_for_30_seconds_is_waited_for() {
        let away = |now| match now < 30 * SECOND {
            true => Ended::Failed(Fault::ConnectionRefused),
            false => Ended::Answered(201),
        };
        let (instants, state) = run(&rules(100, 64), |_| 0, away);
        assert_eq!(instants, [0, 1_000, 3_000, 7_000, 15_000, 31_000]);
        assert_eq!(state, State::Succeeded(31 * SECOND));
        // What is drawn is drawn anew, and added to what had been waited.
        let (instants, _) = run(&rules(100, 64), |attempt| u64::from(attempt * 10), away);
        assert_eq!(instants, [0, 1_010, 3_030, 7_060, 15_100, 31_150]);
        let (instants, _) = run(&rules(100, 8), |_| 1, away);
        assert_eq!(instants, [0, 1_001, 3_002, 7_003, 15_004, 23_005, 31_006]);
    }

    #[test]
    fn another_status_is_tried_again_until_the_attempts_are_spent() {
        let (instants, state) = run(&rules(3, 64), |_| 0, |_| Ended::Answered(500));
        assert_eq!(instants, [0, 1_000, 3_000]);
        assert_eq!(state, State::Failed(3 * SECOND));
        let (instants, state) = run(&rules(1, 64), |_| 0, |_| Ended::Answered(200));
        assert_eq!((instants.as_slice(), state), (&[0][..], State::Failed(0)));
    }

    #[test]
    fn a_backend_that_is_gone_is_not_tried_again() {
        let (instants, state) = run(&rules(100, 64), |_| 0, |_| Ended::Gone);
        assert_eq!((instants.as_slice(), state), (&[0][..], State::Failed(0)));
    }

    #[test]
    fn the_client_is_told_when_the_requirement_is_met_or_can_not_be_any_more() {
        use Verdict::{Met, Open, Unmet};
        for (legs, all, quorum, any) in [
            ("ra", Open, Open, Open),
            ("sra", Open, Open, Met),
            ("ssa", Open, Met, Met),
            ("sss", Met, Met, Met),
            ("fra", Unmet, Open, Open),
            ("ffa", Unmet, Unmet, Open),
            ("fff", Unmet, Unmet, Unmet),
            ("ffs", Unmet, Unmet, Met),
            ("ssff", Unmet, Unmet, Met),
            ("ssfr", Unmet, Open, Met),
        ] {
            let count = |letter| legs.matches(letter).count();
            let ended = (count('s'), count('f'));
            let verdicts = [Require::All, Require::Quorum, Require::Any]
                .map(|require| verdict(require, legs.len(), ended));
            assert_eq!(verdicts, [all, quorum, any], "{legs}");
        }
    }
}
