//! Collecting what the shards have recorded, for everybody who wants a report, in rounds.
//!
//! ```text
//!   idle -- somebody asks, or a minute is over --> under way: each shard lays down at its tick
//!   under way -- all have answered, or some are late --> gathered; who asked is served
//! ```
//!
//! Who asks while a round is under way is served by the next one: a shard may have laid down before
//! what the asker has just seen was recorded. Nothing waits here; control's tick moves it on.

use std::time::{Duration, Instant};

use crate::door::Publisher;

/// How long a report waits for a shard. Shards look every 100 ms.
const PATIENCE: Duration = Duration::from_millis(300);

/// How long the shards record without being asked. Their recorders count in 32 bits: at ten million
/// exchanges a second, ten times what a shard can do, one of their counts would be full after 429
/// seconds.
const EVERY: Duration = Duration::from_secs(60);

/// The rounds, and who waits for them.
#[derive(Debug)]
pub(super) struct Collecting<A> {
    under_way: Option<Round>,
    /// Whom the round under way serves; empty while there is none.
    served: Vec<A>,
    /// Whom the next round serves.
    next: Vec<A>,
    /// When the last round began.
    last: Instant,
}

#[derive(Debug)]
struct Round {
    /// By which the shards' answers are known.
    number: u64,
    deadline: Instant,
}

/// What a round came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Collected<A> {
    /// Who asked for it.
    pub(super) served: Vec<A>,
    /// The shards that had not answered.
    pub(super) late: Vec<usize>,
}

impl<A> Collecting<A> {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            under_way: None,
            served: Vec::new(),
            next: Vec::new(),
            last: now,
        }
    }

    /// Somebody wants a report.
    pub(super) fn ask(&mut self, asker: A) {
        self.next.push(asker);
    }

    /// True exactly when a round may end with the next [`Collecting::advance`].
    pub(super) const fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Ends the round under way if its time has come, and begins the next one if there is a reason.
    /// `is_alive` says whether a shard can answer: what one that has ended laid down is there, and
    /// what one that died did not lay down is lost.
    pub(super) fn advance(
        &mut self,
        publisher: &mut Publisher,
        is_alive: impl Fn(usize) -> bool,
        now: Instant,
    ) -> Option<Collected<A>> {
        let mut collected = None;
        if let Some(Round { number, deadline }) = &self.under_way {
            let mut late = publisher.late(*number);
            late.retain(|shard| is_alive(*shard));
            if !late.is_empty() && now < *deadline {
                return None;
            }
            self.under_way = None;
            // After the answers were read, so that all they stand for is found.
            publisher.gather();
            collected = Some(Collected {
                served: std::mem::take(&mut self.served),
                late,
            });
        }
        if !self.next.is_empty() || EVERY <= now.saturating_duration_since(self.last) {
            self.served = std::mem::take(&mut self.next);
            self.last = now;
            self.under_way = Some(Round {
                number: publisher.ask_for_recorders(),
                deadline: now + PATIENCE,
            });
        }
        collected
    }

    /// Every shard has ended and has laid down all: whoever still waits can be served.
    pub(super) fn finish(&mut self, publisher: &mut Publisher) -> Vec<A> {
        publisher.gather();
        let mut served = std::mem::take(&mut self.served);
        served.append(&mut self.next);
        served
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::{Subscriber, door};

    #[expect(clippy::disallowed_methods, reason = "a test may read the clock")]
    fn start() -> Instant {
        Instant::now()
    }

    /// Lays down nothing, as a shard does that has recorded nothing.
    #[track_caller]
    fn answer(shard: &mut Subscriber) {
        let asked = shard.asked_for_recorders().expect("control has asked");
        shard.answer(asked);
    }

    fn collected(served: &[u8], late: &[usize]) -> Option<Collected<u8>> {
        Some(Collected {
            served: served.into(),
            late: late.into(),
        })
    }

    #[test]
    fn a_round_ends_when_every_shard_has_answered() {
        let (mut publisher, mut shards) = door(2);
        let now = start();
        let mut collecting = Collecting::new(now);
        let mut advance =
            |collecting: &mut Collecting<u8>| collecting.advance(&mut publisher, |_| true, now);
        assert_eq!(advance(&mut collecting), None);
        assert_eq!(shards[0].asked_for_recorders(), None, "nobody wants it");
        collecting.ask(1);
        assert_eq!(advance(&mut collecting), None);
        answer(&mut shards[0]);
        assert_eq!(advance(&mut collecting), None);
        collecting.ask(2);
        answer(&mut shards[1]);
        assert_eq!(advance(&mut collecting), collected(&[1], &[]));
        // What 2 has seen may be younger than the first shard's answer.
        for shard in &mut shards {
            answer(shard);
        }
        assert_eq!(advance(&mut collecting), collected(&[2], &[]));
        assert_eq!(advance(&mut collecting), None);
        assert_eq!(shards[0].asked_for_recorders(), None);
    }

    #[test]
    fn a_late_shard_is_named_and_one_that_is_gone_is_not_awaited() {
        let (mut publisher, mut shards) = door(3);
        let begin = start();
        let mut collecting = Collecting::new(begin);
        collecting.ask(1);
        let mut advance = |alive: &[usize], after: u64| {
            let now = begin + Duration::from_millis(after);
            collecting.advance(&mut publisher, |shard| alive.contains(&shard), now)
        };
        assert_eq!(advance(&[0, 1, 2], 0), None);
        answer(&mut shards[0]);
        assert_eq!(advance(&[0, 1], 299), None);
        assert_eq!(advance(&[0, 1], 300), collected(&[1], &[1]));
    }

    #[test]
    fn the_shards_are_asked_once_a_minute_without_an_asker() {
        let (mut publisher, mut shards) = door(1);
        let begin = start();
        let mut collecting = Collecting::<u8>::new(begin);
        let mut at = |seconds| {
            let now = begin + Duration::from_secs(seconds);
            collecting.advance(&mut publisher, |_| true, now)
        };
        assert_eq!(at(59), None);
        assert_eq!(shards[0].asked_for_recorders(), None);
        assert_eq!(at(60), None);
        answer(&mut shards[0]);
        assert_eq!(at(61), collected(&[], &[]));
        assert_eq!(at(119), None);
        assert_eq!(shards[0].asked_for_recorders(), None);
        assert_eq!(at(120), None);
        answer(&mut shards[0]);
    }

    #[test]
    fn whoever_waits_at_the_end_is_served() {
        let (mut publisher, _shards) = door(1);
        let now = start();
        let mut collecting = Collecting::new(now);
        collecting.ask(1);
        assert_eq!(collecting.advance(&mut publisher, |_| true, now), None);
        collecting.ask(2);
        assert_eq!(collecting.finish(&mut publisher), [1, 2]);
    }
}
