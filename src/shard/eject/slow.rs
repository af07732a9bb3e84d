//! Which endpoints of a service are too slow: the waits of each against those of all others.
//!
//! The waits of every endpoint are counted twice, in a window of its own and in that of the
//! service, so that the others' median is read off the difference and no window is ever merged. The
//! others', because an endpoint with half of all waits would be half of what it is compared with.
//!
//! An endpoint is judged when one of its waits was suspiciously long since the last pass; without
//! such a wait it can't be too slow. The p99 of 5 to 10 seconds is compared with `latency_factor`
//! times the median; each is off by a sixteenth at most ([`Window`]).

use std::collections::VecDeque;
use std::rc::Rc;

use super::{Ejection, Role};
use crate::balance::Window;

/// The ticks of a period of the windows, which hold two: waits are recent for five to ten seconds.
const PERIOD: u32 = 50;
/// Waits below which neither an endpoint nor the others are judged: with 100 the p99 is the longest
/// but one.
const WAITS_MIN: u64 = 100;
/// Endpoints of a service that are judged in one pass; more take turns. Each costs some hundred
/// nanoseconds.
const JUDGED_MAX: usize = 64;
/// Waits above `latency_factor` times this quantile make an endpoint worth a look. An endpoint that
/// has four fifths of all waits leaves the others' median no lower than that.
const LOWEST: f64 = 0.1;

/// The waits of a service.
#[derive(Debug)]
pub(super) struct Slowness {
    /// The waits of all endpoints.
    waits: Box<Window>,
    /// Those that are to be judged; room for all members.
    suspects: VecDeque<Rc<Ejection>>,
    /// A wait of so many nanoseconds makes an endpoint suspect.
    suspicious: u64,
}

impl Slowness {
    /// Goes on with so many members; those that are gone are suspect no more.
    pub(super) fn over(mut self, members: usize) -> Self {
        self.suspects.retain(|suspect| {
            let stays = suspect.role.get() != Role::Gone;
            suspect.is_suspect.set(stays);
            stays
        });
        self.suspects.reserve(members - self.suspects.len());
        self
    }

    /// An exchange has waited for the endpoint to answer.
    #[inline]
    pub(super) fn waited(&mut self, now: u32, ejection: &Rc<Ejection>, nanoseconds: u64) {
        let mut waits = ejection.waits.borrow_mut();
        // One that is gone may have none: what the members recorded adds up to the service's.
        let Some(waits) = &mut *waits else { return };
        let period = now / PERIOD;
        self.waits.record(period, nanoseconds);
        waits.record(period, nanoseconds);
        if self.suspicious <= nanoseconds
            && ejection.role.get() == Role::In
            && !ejection.is_suspect.replace(true)
        {
            self.suspects.push_back(Rc::clone(ejection));
        }
    }

    /// How many suspects this pass judges. From now on those are suspect whose waits are long as of
    /// now.
    pub(super) fn turn(&mut self, now: u32, factor: f64) -> usize {
        let period = now / PERIOD;
        self.suspicious = match self.waits.quantile(period, LOWEST) {
            // Rounded down: what is compared in the end are the middles of buckets.
            Some(lowest) if 2 * WAITS_MIN <= self.waits.count(period) => {
                Window::floor((lowest as f64 * factor) as u64)
            }
            _ => u64::MAX,
        };
        self.suspects.len().min(JUDGED_MAX)
    }

    /// The next suspect, if it is too slow.
    pub(super) fn judge(&mut self, now: u32, factor: f64) -> Option<Rc<Ejection>> {
        let suspect = self.suspects.pop_front()?;
        suspect.is_suspect.set(false);
        let period = now / PERIOD;
        let is_slow = {
            let waits = suspect.waits.borrow();
            let waits = waits.as_ref()?;
            let count = waits.count(period);
            let others = self.waits.count(period).saturating_sub(count);
            if count.min(others) < WAITS_MIN {
                return None;
            }
            let usual = self.waits.quantile_without(waits, period, 0.5)?;
            usual as f64 * factor <= waits.quantile(period, 0.99)? as f64
        };
        is_slow.then_some(suspect)
    }

    /// Forgets the waits of an endpoint, so that when it is back it is judged by new ones.
    pub(super) fn forget(&mut self, ejection: &Ejection) {
        if let Some(waits) = &mut *ejection.waits.borrow_mut() {
            self.waits.remove(waits);
            **waits = Window::new();
        }
    }
}

impl Default for Slowness {
    fn default() -> Self {
        Self {
            waits: Box::default(),
            suspects: VecDeque::new(),
            suspicious: u64::MAX,
        }
    }
}
