//! The shard's time: ticks for deadlines, and turns of its loop for phases.
//!
//! Deadlines are counted in ticks (100 ms), which is as coarse as any timeout of the configuration.
//! Phases are timed in nanoseconds, and still an exchange reads no clock on the ring: what its
//! tasks can know is the turn of the loop that they run in.
//!
//! ```text
//!   kernel          | turn 7: tasks run       | kernel         | turn 8
//!   io_uring_enter  | began            ended  | io_uring_enter | began
//!   ----------------+-------------------------+----------------+---------
//!                   ^ completions are reaped  ^ what the tasks asked for is submitted
//! ```
//!
//! What completes is known when a turn begins, and what is asked for goes out when it ends. So the
//! wait for a peer that is asked in turn 7 and has answered by turn 8 lasts from the end of 7 to
//! the begin of 8, and the time in between two waits is ringmain's own, whether a task computed in
//! it or waited for others of its turn. A turn costs two reads of the clock (the TSC through the
//! vDSO, about 25 ns each) and one task, the keeper, which the first task of a turn wakes: it comes
//! after all that were woken with that one, and notes the end. Under load many exchanges share a
//! turn. A task that another one starts or wakes comes after the keeper and begins the next turn
//! before the kernel is entered; what that one takes then counts as the peers' of the turn before.
//! That is rare: clients that are accepted, a new plan. On epoll an operation may be ready at once,
//! in the middle of a turn; then the clock is read.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::Write;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::http::hop::HttpDate;
use crate::plan::TICK;

/// A shard's clock. Times are nanoseconds since its start.
#[derive(Debug)]
pub(crate) struct Clock {
    source: Source,
    tick: Cell<u32>,
    /// The time of the world, as of the last tick.
    date: Cell<HttpDate>,
    /// The running turn, or the last one.
    turn: Cell<Turn>,
    /// True exactly from the first task of a turn to its end.
    running: Cell<bool>,
    /// When each of the last turns ended, by its number.
    ended: Box<[Cell<u64>]>,
    keeper: RefCell<Option<Waker>>,
}

#[derive(Debug)]
enum Source {
    Monotonic(Instant),
    #[cfg(test)]
    Virtual(Cell<u64>),
}

/// A turn of the shard's loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Turns are told apart by it; it starts again at 0 after `u32::MAX`.
    number: u32,
    /// When its first task ran.
    began: u64,
}

impl Turn {
    /// When it began: what had completed by then is known.
    pub(crate) fn began(self) -> u64 {
        self.began
    }
}

/// The turns whose end is kept. A wait that is longer is taken to begin with the turn in which it
/// was asked for.
const KEPT: usize = 256;

impl Clock {
    /// Starts at tick 0.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the shard's one place that reads the clock"
    )]
    pub(crate) fn start() -> Self {
        Self::of(Source::Monotonic(Instant::now()))
    }

    /// One whose time is moved by hand.
    #[cfg(test)]
    pub(crate) fn stopped() -> Self {
        Self::of(Source::Virtual(Cell::new(0)))
    }

    /// Moves the time of a stopped clock on.
    #[cfg(test)]
    pub(crate) fn pass(&self, nanoseconds: u64) {
        let Source::Virtual(now) = &self.source else {
            panic!("time passes by itself");
        };
        now.set(now.get() + nanoseconds);
    }

    fn of(source: Source) -> Self {
        Self {
            source,
            tick: Cell::new(0),
            date: Cell::new(date_now()),
            turn: Cell::default(),
            running: Cell::new(false),
            ended: vec![Cell::new(0); KEPT].into(),
            keeper: RefCell::new(None),
        }
    }

    /// Reads the clock.
    pub(crate) fn now(&self) -> u64 {
        match &self.source {
            Source::Monotonic(started) => started.elapsed().as_nanos() as u64,
            #[cfg(test)]
            Source::Virtual(now) => now.get(),
        }
    }

    /// Reads the clock and returns the tick that runs now; a tick never comes back.
    pub(crate) fn advance(&self) -> u32 {
        let ticks = u128::from(self.now()) / TICK.as_nanos();
        self.tick.set(u32::try_from(ticks).unwrap_or(u32::MAX));
        self.date.set(date_now());
        self.tick.get()
    }

    /// The time of the world as a Date has it, as of the last [`Clock::advance`].
    pub(crate) fn date(&self) -> HttpDate {
        self.date.get()
    }

    /// The tick as of the last [`Clock::advance`].
    pub(crate) fn tick(&self) -> u32 {
        self.tick.get()
    }

    /// To be called before a task runs: it may be the first of a turn.
    #[inline]
    pub(crate) fn task_runs(&self) {
        if !self.running.get() {
            self.begin_turn();
        }
    }

    fn begin_turn(&self) {
        self.running.set(true);
        let number = self.turn.get().number.wrapping_add(1);
        let began = self.now();
        self.turn.set(Turn { number, began });
        if let Some(keeper) = &*self.keeper.borrow() {
            keeper.wake_by_ref();
        }
    }

    /// The last task of a turn has run.
    pub(crate) fn end_turn(&self) {
        if self.running.replace(false) {
            self.ended[self.turn.get().number as usize % KEPT].set(self.now());
        }
    }

    /// The keeper's task: notes the end of each turn. To be spawned once, before all others.
    pub(crate) async fn keep(&self) {
        self.keeper.replace(Some(waker().await));
        poll_fn(|_| {
            self.end_turn();
            Poll::<()>::Pending
        })
        .await;
    }

    /// Lets the keeper go: nothing but this waker holds its task, which holds its shard.
    pub(crate) fn dismiss_keeper(&self) {
        drop(self.keeper.take());
    }

    /// The running turn.
    #[inline]
    pub(crate) fn turn(&self) -> Turn {
        self.turn.get()
    }

    /// When what was asked for in `turn` went out.
    pub(crate) fn went_out(&self, turn: Turn) -> u64 {
        let age = self.turn.get().number.wrapping_sub(turn.number) as usize;
        if 0 < age && age <= KEPT {
            self.ended[turn.number as usize % KEPT].get()
        } else {
            turn.began
        }
    }

    /// When what was `asked` for in an earlier turn was ready, or in this one, at once.
    pub(crate) fn ready_at(&self, asked: Turn) -> u64 {
        let turn = self.turn();
        if turn == asked {
            self.now()
        } else {
            turn.began
        }
    }
}

/// What the machine's clock says, within the years that a Date can say.
fn date_now() -> HttpDate {
    /// The last second of the year 9999.
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let now = SystemTime::now().clamp(UNIX_EPOCH, UNIX_EPOCH + LAST);
    let mut date = [0; 29];
    let written = write!(&mut date[..], "{}", httpdate::HttpDate::from(now));
    written.expect("every date has 29 bytes");
    date
}

/// The waker of the task that asks.
async fn waker() -> Waker {
    poll_fn(|context| Poll::Ready(context.waker().clone())).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_went_out_with_the_end_of_its_turn() {
        let clock = Clock::stopped();
        clock.task_runs();
        let first = clock.turn();
        clock.pass(5);
        clock.task_runs();
        assert_eq!(clock.turn(), first, "the turn still runs");
        clock.pass(5);
        clock.end_turn();
        for turns in 1..=KEPT as u64 {
            clock.pass(100);
            clock.task_runs();
            assert_eq!(clock.turn().began(), 10 + 100 * turns);
            assert_eq!(clock.went_out(first), 10);
            clock.end_turn();
        }
        clock.pass(100);
        clock.task_runs();
        assert_eq!(clock.went_out(first), first.began(), "not kept so long");
    }

    #[test]
    fn what_is_ready_in_the_turn_that_asked_for_it_is_ready_now() {
        let clock = Clock::stopped();
        clock.pass(50);
        clock.task_runs();
        let asked = clock.turn();
        clock.pass(8);
        assert_eq!(clock.ready_at(asked), 58);
        clock.end_turn();
        clock.task_runs();
        clock.pass(1);
        assert_eq!(clock.ready_at(asked), 58);
    }
}
