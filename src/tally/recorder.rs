//! HDR histograms of phases: what a shard records, and what control merges from all shards.
//!
//! A shard's [`Recorder`] counts in 32 bits and is small; it is handed over long before a count
//! could reach its end ([`Handed`](super::Handed)). Control's [`Phases`] counts in 64 bits. Both
//! resize themselves, and each histogram is made when its phase is first recorded, so that what is
//! not used costs nothing.

use std::time::Duration;

use hdrhistogram::{Counter, Histogram};

use super::phase::{Phase, UNITS_MAX, UNITS_PER_MICROSECOND, units};

/// Significant digits of what a service records.
pub const SERVICE_DIGITS: u8 = 3;
/// Significant digits of what an endpoint records.
pub const ENDPOINT_DIGITS: u8 = 2;

/// One histogram a phase, in the order of [`Phase::ALL`]; `None` until it is first recorded.
type Histograms<C> = [Option<Histogram<C>>; Phase::COUNT];

/// What one shard records of one service or of one endpoint.
#[derive(Debug)]
pub struct Recorder {
    digits: u8,
    histograms: Histograms<u32>,
    /// What each histogram has room for when it is made, in units.
    room: [u64; Phase::COUNT],
}

/// What all shards have recorded of one service or of one endpoint.
#[derive(Clone, Debug)]
pub struct Phases {
    digits: u8,
    histograms: Histograms<u64>,
}

impl Recorder {
    /// Empty, for a service.
    pub const fn of_service() -> Self {
        Self::with_room(SERVICE_DIGITS, [ROOM_MIN; Phase::COUNT])
    }

    /// Empty, for an endpoint.
    pub const fn of_endpoint() -> Self {
        Self::with_room(ENDPOINT_DIGITS, [ROOM_MIN; Phase::COUNT])
    }

    const fn with_room(digits: u8, room: [u64; Phase::COUNT]) -> Self {
        Self {
            digits,
            histograms: [const { None }; Phase::COUNT],
            room,
        }
    }

    /// Counts one time. Allocates when it is the first of its phase, or longer than every one
    /// before by a power of two.
    #[inline]
    pub fn record(&mut self, phase: Phase, nanoseconds: u64) {
        let place = phase.index();
        let (digits, room) = (self.digits, self.room[place]);
        self.histograms[place]
            .get_or_insert_with(|| empty(digits, room))
            .record(units(nanoseconds))
            .expect(GROWS);
    }

    /// How many times of `phase` were counted.
    pub fn count(&self, phase: Phase) -> u64 {
        let histogram = &self.histograms[phase.index()];
        histogram.as_ref().map_or(0, Histogram::len)
    }

    /// True exactly when nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.histograms.iter().all(Option::is_none)
    }

    /// An empty recorder whose histograms will have room for all that this one has seen, so that
    /// the first exchanges after a hand-over need not grow them step by step. Allocates nothing.
    pub fn successor(&self) -> Self {
        let mut room = self.room;
        for (room, histogram) in room.iter_mut().zip(&self.histograms) {
            if let Some(histogram) = histogram {
                *room = histogram.max().max(ROOM_MIN);
            }
        }
        Self::with_room(self.digits, room)
    }
}

impl Phases {
    /// Empty, for a service.
    pub const fn of_service() -> Self {
        Self::with_digits(SERVICE_DIGITS)
    }

    /// Empty, for an endpoint.
    pub const fn of_endpoint() -> Self {
        Self::with_digits(ENDPOINT_DIGITS)
    }

    const fn with_digits(digits: u8) -> Self {
        Self {
            digits,
            histograms: [const { None }; Phase::COUNT],
        }
    }

    /// What was recorded of `phase`, in units; `None` when nothing was.
    pub fn histogram(&self, phase: Phase) -> Option<&Histogram<u64>> {
        self.histograms[phase.index()].as_ref()
    }

    /// A histogram of nothing, of the same digits.
    pub(super) fn empty(&self) -> Histogram<u64> {
        empty(self.digits, ROOM_MIN)
    }

    /// Adds what a shard has recorded of the same service or endpoint.
    pub fn add(&mut self, recorder: &Recorder) {
        for (histogram, other) in self.histograms.iter_mut().zip(&recorder.histograms) {
            let Some(other) = other else { continue };
            let digits = self.digits;
            let histogram =
                histogram.get_or_insert_with(|| empty(digits, other.max().max(ROOM_MIN)));
            // Of different widths, so that they can't be added as a whole.
            for bucket in other.iter_recorded() {
                histogram
                    .record_n(bucket.value_iterated_to(), bucket.count_at_value().into())
                    .expect(GROWS);
            }
        }
    }

    /// Adds what was recorded of another service or endpoint.
    pub fn merge(&mut self, other: &Self) {
        for (histogram, other) in self.histograms.iter_mut().zip(&other.histograms) {
            let Some(other) = other else { continue };
            histogram
                .get_or_insert_with(|| empty(self.digits, ROOM_MIN))
                .add(other)
                .expect(GROWS);
        }
    }
}

const GROWS: &str = "a histogram grows with what is recorded";
/// The least room that a histogram can be made with.
const ROOM_MIN: u64 = 2;

fn empty<C: Counter>(digits: u8, room: u64) -> Histogram<C> {
    let mut histogram =
        Histogram::new_with_bounds(1, room, digits).expect("the digits and the room are in bounds");
    histogram.auto(true);
    histogram
}

/// The bytes that the counts of one service take on one shard when no time of it is over `longest`.
/// Control's copy of all shards' takes twice as many, and while a recorder is handed over there are
/// two of it.
pub fn service_bytes(longest: Duration) -> usize {
    Phase::COUNT * counts(SERVICE_DIGITS, longest) * size_of::<u32>()
}

/// The same for one endpoint.
pub fn endpoint_bytes(longest: Duration) -> usize {
    Phase::OF_ENDPOINT.len() * counts(ENDPOINT_DIGITS, longest) * size_of::<u32>()
}

/// The longest time that is told apart from longer ones.
pub const LONGEST: Duration = Duration::from_micros(UNITS_MAX / UNITS_PER_MICROSECOND);

fn counts(digits: u8, longest: Duration) -> usize {
    let nanoseconds = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
    // 64 bits, and so twice as many bytes as a recorder's; the number of counts is the same.
    empty::<u64>(digits, units(nanoseconds).max(ROOM_MIN)).distinct_values()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn recorded(times: &[(usize, u64)]) -> Recorder {
        let mut recorder = Recorder::of_service();
        for (phase, nanoseconds) in times {
            recorder.record(Phase::ALL[*phase], *nanoseconds);
        }
        recorder
    }

    fn merged(recorders: &[Recorder]) -> Phases {
        let mut phases = Phases::of_service();
        for recorder in recorders {
            phases.add(recorder);
        }
        phases
    }

    #[track_caller]
    fn assert_same(left: &Phases, right: &Phases) {
        for phase in Phase::ALL {
            let (left, right) = (left.histogram(phase), right.histogram(phase));
            // Both ways: equality looks no farther than the left one is wide.
            assert_eq!(left, right, "{phase:?}");
            assert_eq!(right, left, "{phase:?}");
        }
    }

    fn times() -> impl Strategy<Value = Vec<(usize, u64)>> {
        // Every magnitude is as likely as every other.
        let nanoseconds = (0u32..64, any::<u64>()).prop_map(|(shift, any)| any >> shift);
        prop::collection::vec((0..Phase::COUNT, nanoseconds), 0..60)
    }

    proptest! {
        // Each case compares histograms of a day's width: some ten thousand counts.
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn merging_shards_equals_one_histogram_that_saw_every_value(
            shards in prop::collection::vec(times(), 1..5),
        ) {
            let each: Vec<_> = shards.iter().map(|times| recorded(times)).collect();
            let one = recorded(&shards.concat());
            assert_same(&merged(&each), &merged(&[one]));
        }

        #[test]
        fn what_is_handed_over_in_parts_is_what_was_recorded(
            parts in prop::collection::vec(times(), 1..5),
            taken in prop::collection::vec(any::<bool>(), 5),
        ) {
            let handed = crate::tally::Handed::default();
            let mut recorder = Recorder::of_service();
            let mut phases = Phases::of_service();
            for (times, taken) in parts.iter().zip(taken) {
                for (phase, nanoseconds) in times {
                    recorder.record(Phase::ALL[*phase], *nanoseconds);
                }
                handed.put(&mut recorder);
                prop_assert!(recorder.is_empty());
                if taken {
                    handed.gather(&mut phases);
                }
            }
            handed.gather(&mut phases);
            handed.gather(&mut phases);
            assert_same(&phases, &merged(&[recorded(&parts.concat())]));
        }
    }

    #[test]
    fn a_successor_has_room_for_what_was_seen() {
        let mut recorder = recorded(&[(7, 5_000_000)]);
        let successor = recorder.successor();
        assert!(successor.is_empty());
        assert!(!recorder.is_empty());
        recorder = successor;
        recorder.record(Phase::Total, 1);
        let histogram = recorder.histograms[7].as_ref().unwrap();
        assert!(50_000 <= histogram.high(), "{}", histogram.high());
    }

    #[test]
    fn the_longest_time_takes_the_bytes_that_are_promised() {
        let bytes = |recorder: &Recorder| -> usize {
            let histograms = recorder.histograms.iter().flatten();
            histograms
                .map(|histogram| histogram.distinct_values() * size_of::<u32>())
                .sum()
        };
        for longest in [Duration::from_millis(999), Duration::from_secs(1), LONGEST] {
            let mut service = Recorder::of_service();
            let mut endpoint = Recorder::of_endpoint();
            let nanoseconds = longest.as_nanos() as u64;
            for phase in Phase::ALL {
                service.record(phase, nanoseconds);
            }
            for phase in Phase::OF_ENDPOINT {
                endpoint.record(phase, nanoseconds);
            }
            assert_eq!(bytes(&service), service_bytes(longest));
            assert_eq!(bytes(&endpoint), endpoint_bytes(longest));
        }
    }
}
