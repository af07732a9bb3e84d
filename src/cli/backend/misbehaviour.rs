//! How a dummy backend fails when it is asked to; chance is an argument.

use std::time::Duration;

use clap::Args;
use rand::{Rng, RngExt};

use crate::units;

/// Every wish holds for every request, those for `/live` and `/ready` too.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub(super) struct Misbehaviour {
    /// Reads about half of the requests and closes without an answer.
    #[arg(long, env = "SKIP_SOME_REQUESTS", value_parser = clap::builder::FalseyValueParser::new())]
    skip_some_requests: bool,
    /// Answers this share of the requests with 503, from 0.0 to 1.0.
    #[arg(long, value_name = "R", default_value_t = 0.0, value_parser = ratio)]
    fail_ratio: f64,
    /// Answers with this status, from 200 to 599.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(200..=599))]
    status: Option<u16>,
    /// Waits this long before the first byte of an answer.
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    pub(super) delay_first_byte: Option<Duration>,
    /// Waits this long between an answer's head and its body.
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    pub(super) delay_body: Option<Duration>,
    /// Closes a connection after this many requests, without announcing it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    close_after: Option<u64>,
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is answered as its path asks.
    Answer,
    /// It is answered with this status.
    AnswerWith(u16),
    /// The connection is closed without an answer.
    Skip,
}

impl Misbehaviour {
    /// Decides about one request.
    pub(super) fn judge(&self, rng: &mut impl Rng) -> Verdict {
        if self.skip_some_requests && rng.random_bool(0.5) {
            return Verdict::Skip;
        }
        if 0.0 < self.fail_ratio && rng.random_bool(self.fail_ratio) {
            return Verdict::AnswerWith(503);
        }
        self.status.map_or(Verdict::Answer, Verdict::AnswerWith)
    }

    /// Whether a connection ends after its `served`th request.
    pub(super) fn closes_after(&self, served: u64) -> bool {
        self.close_after.is_some_and(|most| most <= served)
    }
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err("allowed: 0.0 to 1.0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_xorshift::XorShiftRng;

    use super::*;

    /// How many of 10,000 requests get `verdict`.
    fn count(misbehaviour: &Misbehaviour, verdict: Verdict) -> usize {
        let mut rng = XorShiftRng::seed_from_u64(1);
        (0..10_000)
            .filter(|_| misbehaviour.judge(&mut rng) == verdict)
            .count()
    }

    #[test]
    fn without_a_wish_every_request_is_answered() {
        assert_eq!(count(&Misbehaviour::default(), Verdict::Answer), 10_000);
    }

    #[test]
    fn shares_hold() {
        let half = Misbehaviour {
            skip_some_requests: true,
            ..Misbehaviour::default()
        };
        assert!((4_800..5_200).contains(&count(&half, Verdict::Skip)));
        let tenth = Misbehaviour {
            fail_ratio: 0.1,
            ..Misbehaviour::default()
        };
        assert!((850..1_150).contains(&count(&tenth, Verdict::AnswerWith(503))));
        let all = Misbehaviour {
            fail_ratio: 1.0,
            status: Some(404),
            ..Misbehaviour::default()
        };
        assert_eq!(count(&all, Verdict::AnswerWith(503)), 10_000);
    }

    #[test]
    fn a_connection_ends_after_its_last_request() {
        let two = Misbehaviour {
            close_after: Some(2),
            ..Misbehaviour::default()
        };
        assert_eq!(
            [1, 2, 3].map(|served| two.closes_after(served)),
            [false, true, true]
        );
        assert!(!Misbehaviour::default().closes_after(u64::MAX));
    }

    #[test]
    fn a_ratio_is_between_nothing_and_all() {
        assert_eq!(ratio("0.25"), Ok(0.25));
        for text in ["-0.1", "1.1", "NaN", "half"] {
            assert!(ratio(text).is_err(), "{text}");
        }
    }
}
