//! The legs of one shard: those that sleep, by the instant of their next attempt, and how many
//! there are of each service.
//!
//! A leg that sleeps is an entry here and no task: the tick looks at the earliest alone. Shortly
//! before its instant it wakes the alarm, one task and one timer for all, so that waits are kept
//! exactly and not only to a tick. What is due together begins in batches: an attempt holds some
//! kilobytes, and one that is refused at once gives them to the next.

use std::cell::{Cell, RefCell};
use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashSet};
use std::rc::Rc;
use std::time::Duration;

use super::super::Shard;
use super::super::io::{Bell, either, sleep};
use super::attempt;
use super::job::Job;
use crate::fault::Fault;
use crate::plan::TICK;

/// How long before the first instant the alarm is woken: longer than a tick may come late. No leg
/// that goes to sleep meanwhile is before it, for the least wait is a second.
const EARLY: u64 = TICK.as_nanos() as u64 * 3 / 2;
/// Attempts that begin in one turn of the loop.
const BATCH: usize = 256;
/// Up to so many entries of jobs that are over stay where they are.
const DEAD_MAX: usize = 64;

/// A shard's legs.
#[derive(Debug, Default)]
pub(in crate::shard) struct Legs {
    sleepers: RefCell<BinaryHeap<Reverse<Sleeper>>>,
    /// Rung when a leg is due, or will be soon.
    due: Bell,
    /// Sleepers whose leg was given up.
    dead: Cell<usize>,
    /// Legs that are not through.
    under_way: Cell<usize>,
    /// True from the end of the drain on: nobody goes to sleep any more.
    is_closed: Cell<bool>,
}

/// A leg that sleeps.
#[derive(Debug)]
pub(super) struct Sleeper {
    /// When its next attempt begins, in nanoseconds of the shard's clock.
    pub(super) at: u64,
    pub(super) job: Rc<Job>,
    pub(super) leg: u32,
}

/// What the fan-outs of one service take of this shard, over all plans.
#[derive(Debug, Default)]
pub(in crate::shard) struct Burden {
    legs: Cell<u32>,
    bytes: Cell<usize>,
}

/// Bytes that are kept of a request, given back when this is dropped.
#[derive(Debug)]
pub(super) struct HeldBytes {
    of: Rc<Burden>,
    bytes: usize,
}

/// Legs that may run, each given back when it is through, and all that are left when this is
/// dropped.
#[derive(Debug)]
pub(super) struct HeldLegs {
    of: Rc<Burden>,
    legs: Cell<u32>,
}

impl Legs {
    /// True exactly when all legs are through.
    pub(in crate::shard) fn is_empty(&self) -> bool {
        self.under_way.get() == 0
    }

    /// So many legs begin.
    pub(super) fn begin(&self, count: usize) {
        self.under_way.set(self.under_way.get() + count);
    }

    /// One is through.
    pub(super) fn end(&self) {
        self.under_way.set(self.under_way.get() - 1);
    }

    /// True when the shard ends, and nobody is to go to sleep.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// A leg has gone to sleep.
    pub(super) fn sleep(&self, sleeper: Sleeper) {
        self.sleepers.borrow_mut().push(Reverse(sleeper));
    }

    /// So many of those that sleep were given up. What they hold is freed when they are as many as
    /// the others, so that neither looking for them nor keeping them costs much.
    pub(super) fn gave_up(&self, count: usize) {
        let mut sleepers = self.sleepers.borrow_mut();
        self.dead.set(self.dead.get() + count);
        if DEAD_MAX.max(sleepers.len() / 2) < self.dead.get() {
            sleepers.retain(|Reverse(sleeper)| sleeper.is_alive());
            self.dead.set(0);
        }
    }

    /// True exactly when so many attempts are under way that those which begin now take turns.
    pub(super) fn is_crowded(&self, shard: &Shard) -> bool {
        BATCH as u64 <= shard.counters.legs_running.get()
    }

    /// A leg has gone to sleep whose time is now.
    pub(super) fn is_due(&self, sleeper: Sleeper) {
        self.sleep(sleeper);
        self.due.ring();
    }

    /// Looks at tick `now`, in nanoseconds, whether the alarm has to be woken before the next one.
    pub(in crate::shard) fn look(&self, now: u64) {
        if self
            .first()
            .is_some_and(|at| at <= now.saturating_add(EARLY))
        {
            self.due.ring();
        }
    }

    /// Starts attempts at their instants, for as long as the shard lives. To be spawned once.
    pub(in crate::shard) async fn alarm(&self, shard: &Shard) {
        loop {
            let now = shard.clock.now();
            match self.first().map(|at| at.saturating_sub(now)) {
                Some(0) => {
                    self.start_due(shard, now);
                    shard.pause.take().await;
                }
                Some(left) if left <= EARLY => {
                    either(sleep(Duration::from_nanos(left)), self.due.rung()).await;
                }
                _ => self.due.rung().await,
            }
        }
    }

    /// Lets the alarm go: nothing but the bell holds it, and it holds its shard.
    pub(in crate::shard) fn dismiss(&self) {
        self.due.clear();
    }

    /// When the first one that sleeps is to be woken.
    fn first(&self) -> Option<u64> {
        let sleepers = self.sleepers.borrow();
        sleepers.peek().map(|Reverse(first)| first.at)
    }

    /// Starts a batch of the attempts whose time has come by `now`.
    fn start_due(&self, shard: &Shard, now: u64) {
        for _ in 0..BATCH {
            let Some(Reverse(sleeper)) = self.pop_due(now) else {
                return;
            };
            if sleeper.is_alive() {
                let Sleeper { job, leg, .. } = sleeper;
                shard.counters.legs_asleep.sub(1);
                job.wakes(leg as usize);
                attempt::start(shard, &job, leg as usize);
            } else {
                self.dead.set(self.dead.get() - 1);
            }
        }
    }

    fn pop_due(&self, until: u64) -> Option<Reverse<Sleeper>> {
        let mut sleepers = self.sleepers.borrow_mut();
        let is_due = |Reverse(first): &Reverse<Sleeper>| first.at <= until;
        sleepers.peek().filter(|first| is_due(first))?;
        sleepers.pop()
    }

    /// Gives up those that sleep and whose service or backend the newest plan does not have: nobody
    /// is left to be sent anything. One that runs finds that out at its next attempt.
    pub(in crate::shard) fn adopt(&self, shard: &Shard) {
        if self.sleepers.borrow().is_empty() {
            return;
        }
        let current = shard.current();
        let services = current.plan().services.iter();
        let services: HashSet<&str> = services.map(|service| &*service.name).collect();
        let is_gone = |Reverse(sleeper): &&Reverse<Sleeper>| {
            let Sleeper { job, leg, .. } = sleeper;
            // Of many legs of a service that is gone, none looks at all the others.
            let is_there = services.contains(&*job.service)
                && job.find(current.plan(), *leg as usize).is_some();
            sleeper.is_alive() && !is_there
        };
        let sleepers = self.sleepers.borrow();
        let gone = sleepers.iter().filter(is_gone);
        let gone: Vec<_> = gone
            .map(|Reverse(sleeper)| (Rc::clone(&sleeper.job), sleeper.leg))
            .collect();
        drop(sleepers);
        for (job, leg) in &gone {
            job.give_up_sleeper(shard, *leg as usize, Fault::DestinationUnavailable);
        }
        self.gave_up(gone.len());
    }

    /// Gives up all that sleep, and whoever would go to sleep from now on: the drain is over.
    pub(in crate::shard) fn close(&self, shard: &Shard) {
        self.is_closed.set(true);
        for Reverse(Sleeper { job, leg, .. }) in self.sleepers.take() {
            job.give_up_sleeper(shard, leg as usize, Fault::DrainTimeout);
        }
        self.dead.set(0);
    }

    /// Gives back the room that a crowd has needed.
    pub(in crate::shard) fn sweep(&self) {
        let mut sleepers = self.sleepers.borrow_mut();
        let most = DEAD_MAX.max(sleepers.len() * 2);
        sleepers.shrink_to(most);
    }
}

impl Sleeper {
    fn is_alive(&self) -> bool {
        self.job.is_asleep(self.leg as usize)
    }
}

impl Ord for Sleeper {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.cmp(&other.at)
    }
}

impl PartialOrd for Sleeper {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Sleeper {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Sleeper {}

impl HeldLegs {
    /// So many legs, where there may be `most`; `None` where that would be too many.
    pub(super) fn take(of: &Rc<Burden>, legs: usize, most: u32) -> Option<Self> {
        let legs = u32::try_from(legs).ok()?;
        let sum = of.legs.get().checked_add(legs)?;
        (sum <= most).then(|| {
            of.legs.set(sum);
            Self {
                of: Rc::clone(of),
                legs: Cell::new(legs),
            }
        })
    }

    /// One of them is through.
    pub(super) fn give_back(&self) {
        self.legs.set(self.legs.get() - 1);
        self.of.legs.set(self.of.legs.get() - 1);
    }
}

impl Drop for HeldLegs {
    fn drop(&mut self) {
        self.of.legs.set(self.of.legs.get() - self.legs.get());
    }
}

impl HeldBytes {
    /// None yet.
    pub(super) fn none(of: &Rc<Burden>) -> Self {
        Self {
            of: Rc::clone(of),
            bytes: 0,
        }
    }

    /// Takes this to `bytes`, where there may be `most`. False where that would be too many: then
    /// it stays as it is.
    pub(super) fn resize(&mut self, bytes: usize, most: usize) -> bool {
        let others = self.of.bytes.get() - self.bytes;
        let fits = bytes <= self.bytes || others.saturating_add(bytes) <= most;
        if fits {
            self.of.bytes.set(others + bytes);
            self.bytes = bytes;
        }
        fits
    }

    /// How many these are.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.of.bytes.set(self.of.bytes.get() - self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legs_are_bounded_and_each_is_given_back_once() {
        let burden = Rc::default();
        let first = HeldLegs::take(&burden, 3, 5).unwrap();
        assert!(HeldLegs::take(&burden, 3, 5).is_none());
        first.give_back();
        let second = HeldLegs::take(&burden, 3, 5).unwrap();
        assert_eq!(burden.legs.get(), 5);
        drop(first);
        assert_eq!(burden.legs.get(), 3);
        drop(second);
        assert_eq!(burden.legs.get(), 0);
    }

    #[test]
    fn bytes_are_bounded_over_all_requests() {
        let burden = Rc::default();
        let (mut first, mut second) = (HeldBytes::none(&burden), HeldBytes::none(&burden));
        assert!(first.resize(60, 100));
        assert!(!second.resize(41, 100));
        assert!(second.resize(40, 100));
        assert!(first.resize(10, 5), "fewer are always fewer");
        assert!(!first.resize(11, 50));
        drop(second);
        assert_eq!((burden.bytes.get(), first.bytes()), (10, 10));
    }
}
