//! Where the time of one exchange goes: marks for its phases, and the sum of its own time.
//!
//! Own is the time in which no peer was awaited. It runs from the moment when an exchange has what
//! it waited for until what it asks of a peer goes out, with the turns of the shard's loop
//! ([`clock`](super::clock)): a task that waits for others of its turn is kept waiting by ringmain.
//! Reading asks nothing of a peer, whose bytes come on their own; so a wait for bytes begins where
//! the wait before it ended, and a message that comes in parts costs no own time in between.
//!
//! Two ways of an exchange may wait at once; own does not run while one of them does. What a phase
//! means on each path stands in docs/PHASES.md.

use std::cell::Cell;

use super::clock::{Clock, Turn};
use crate::tally::Phase;

/// The times of one exchange, in nanoseconds of its shard's clock.
#[derive(Debug)]
pub(super) struct Timing<'a> {
    clock: &'a Clock,
    /// The first byte of the request was there to be read.
    begun: u64,
    /// It was read.
    first: Cell<u64>,
    /// The last byte of the request, or `NONE` while more of it is awaited.
    received: Cell<u64>,
    /// What was written of the final answer to the client.
    told: Span,
    /// Own when the last of that was written: what goes on after it is no part of the total.
    own_told: Cell<u64>,
    running: Try,
    own: Own,
}

/// The times of one try on one endpoint.
#[derive(Debug)]
struct Try {
    /// What was written of the request.
    sent: Span,
    /// True exactly when that is all of it.
    is_sent: Cell<bool>,
    /// True exactly while the request has been sent and its answer has not begun.
    awaited: Cell<bool>,
    /// The first byte of the final response, or `NONE`.
    answered: Cell<u64>,
    /// The last bytes of a response that have come.
    read: Cell<u64>,
    /// True exactly when they are the last of the final response.
    is_read: Cell<bool>,
}

/// From the first to the last of what was written; both `NONE` when nothing was.
#[derive(Debug)]
struct Span {
    begin: Cell<u64>,
    end: Cell<u64>,
}

/// The sum of the times in which no peer was awaited.
#[derive(Debug)]
struct Own {
    sum: Cell<u64>,
    /// When it began to run; without a meaning while `open` is `None` and a peer is awaited.
    since: Cell<u64>,
    /// How many waits there are at this moment.
    waits: Cell<u32>,
    /// How the first of them began, until `sum` has what ran before it.
    open: Cell<Option<Asked>>,
}

/// A wait that has begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    turn: Turn,
    /// True when something goes out with the end of the turn; false when bytes are awaited, which
    /// come on their own.
    goes_out: bool,
}

/// How long a peer was awaited; `begin == end` when it was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) begin: u64,
    pub(super) end: u64,
}

const NONE: u64 = u64::MAX;

impl Span {
    const fn nothing() -> Self {
        Self {
            begin: Cell::new(NONE),
            end: Cell::new(NONE),
        }
    }

    fn extend(&self, wait: Wait) {
        self.begin.set(self.begin.get().min(wait.begin));
        self.end.set(wait.end);
    }

    /// Its length, if anything was written; it is nothing again.
    fn take(&self) -> Option<u64> {
        let (begin, end) = (self.begin.replace(NONE), self.end.replace(NONE));
        (end != NONE).then(|| end - begin)
    }
}

impl<'a> Timing<'a> {
    /// Of an exchange whose first byte was there at `begun`.
    pub(super) const fn new(clock: &'a Clock, begun: u64) -> Self {
        Self {
            clock,
            begun,
            first: Cell::new(begun),
            received: Cell::new(begun),
            told: Span::nothing(),
            own_told: Cell::new(0),
            running: Try {
                sent: Span::nothing(),
                is_sent: Cell::new(false),
                awaited: Cell::new(false),
                answered: Cell::new(NONE),
                read: Cell::new(0),
                is_read: Cell::new(false),
            },
            own: Own {
                sum: Cell::new(0),
                since: Cell::new(begun),
                waits: Cell::new(0),
                open: Cell::new(None),
            },
        }
    }

    /// To be called right before an operation that asks something of a peer: a write, a connect.
    pub(super) fn ask(&self) -> Asked {
        self.wait(true)
    }

    /// To be called right before an operation that waits for a peer's bytes.
    pub(super) fn listen(&self) -> Asked {
        self.wait(false)
    }

    fn wait(&self, goes_out: bool) -> Asked {
        let turn = self.clock.turn();
        let asked = Asked { turn, goes_out };
        self.own.wait_begins(asked);
        asked
    }

    /// To be called right after that operation.
    pub(super) fn done(&self, asked: Asked) -> Wait {
        let end = self.clock.ready_at(asked.turn);
        if self.clock.turn() == asked.turn {
            self.own.goes_on(end);
            return Wait { begin: end, end };
        }
        self.own.wait_ends(self.clock, end);
        let begin = self.clock.went_out(asked.turn);
        Wait { begin, end }
    }

    /// The first bytes of the request were read: they had been there, and nobody was awaited for
    /// them.
    pub(super) fn request_begins(&self, at: u64) {
        self.own.runs_until(at);
        self.first.set(at);
        self.received.set(at);
    }

    /// As far as is known the request was read to its end.
    pub(super) fn request_received(&self, at: u64) {
        self.received.set(at);
    }

    /// More of the request is awaited.
    pub(super) fn request_goes_on(&self) {
        self.received.set(NONE);
    }

    /// Part of the request was written to the endpoint.
    pub(super) fn request_part_sent(&self, wait: Wait) {
        self.running.sent.extend(wait);
    }

    /// All of it was.
    pub(super) fn request_sent(&self) {
        self.running.is_sent.set(true);
        self.await_answer();
    }

    /// True exactly when bytes of the response have come that is awaited.
    pub(super) fn answer_has_begun(&self) -> bool {
        self.running.answered.get() != NONE
    }

    /// Bytes of a response came.
    pub(super) fn answer_part_read(&self, at: u64) {
        let Try { answered, read, .. } = &self.running;
        answered.set(answered.get().min(at));
        read.set(at);
        self.answer_is_here(at);
    }

    /// What has come so far was an interim response; `more` is true when bytes of what follows it
    /// are here already.
    pub(super) fn was_interim(&self, more: bool) {
        self.told.take();
        if more {
            // What follows came with the last bytes that were read.
            self.running.answered.set(self.running.read.get());
        } else {
            self.running.answered.set(NONE);
            self.await_answer();
        }
    }

    /// The final response was read to its end.
    pub(super) fn answer_read(&self) {
        self.running.is_read.set(true);
    }

    /// Part of the answer was written to the client.
    pub(super) fn answer_part_told(&self, wait: Wait) {
        self.told.extend(wait);
        self.own_told.set(self.own.so_far(self.clock));
    }

    /// The try is over: gives each phase whose end it reached, and begins the next one.
    pub(super) fn end_try(&self, mut record: impl FnMut(Phase, u64)) {
        self.answer_is_here(self.clock.turn().began());
        let running = &self.running;
        let answered = running.answered.replace(NONE);
        let sent_at = running.sent.end.get();
        let sent = running.sent.take().filter(|_| running.is_sent.take());
        if let Some(nanoseconds) = sent {
            record(Phase::UpstreamSend, nanoseconds);
        }
        let is_read = running.is_read.take();
        if answered == NONE {
            return;
        }
        // An answer that came before the request had ended did not wait for it.
        let waited = sent.map_or(0, |_| answered.saturating_sub(sent_at));
        record(Phase::UpstreamWait, waited);
        if is_read {
            record(Phase::UpstreamReceive, running.read.get() - answered);
        }
    }

    /// The exchange is over: gives what it took, all in all, if an answer was written.
    pub(super) fn end(&self, mut record: impl FnMut(Phase, u64)) {
        let told_at = self.told.end.get();
        let Some(told) = self.told.take() else {
            return;
        };
        let received = self.received.get();
        if received != NONE {
            record(Phase::ClientReceive, received - self.first.get());
        }
        let (own, total) = (self.own_told.get(), told_at - self.begun);
        debug_assert!(own <= total, "{own} of {total}");
        record(Phase::ClientSend, told);
        record(Phase::Own, own);
        record(Phase::Total, total);
    }

    /// From now on the endpoint is awaited, unless its answer has begun.
    fn await_answer(&self) {
        let Try {
            is_sent, awaited, ..
        } = &self.running;
        if is_sent.get() && !self.answer_has_begun() && !awaited.replace(true) {
            self.listen();
        }
    }

    /// From `at` on it is not awaited any more.
    fn answer_is_here(&self, at: u64) {
        if self.running.awaited.take() {
            self.own.wait_ends(self.clock, at);
        }
    }
}

impl Own {
    fn wait_begins(&self, asked: Asked) {
        if self.waits.get() == 0 {
            self.open.set(Some(asked));
        }
        self.waits.set(self.waits.get() + 1);
    }

    fn wait_ends(&self, clock: &Clock, at: u64) {
        self.sum.set(self.so_far(clock));
        self.open.set(None);
        self.waits.set(self.waits.get() - 1);
        if self.waits.get() == 0 {
            // It may have been counted until later than that: a turn's begin is before what is
            // ready at once in it.
            self.since.set(self.since.get().max(at));
        }
    }

    /// The sum with what ran before the wait that is open.
    fn so_far(&self, clock: &Clock) -> u64 {
        let ran = match self.open.get() {
            Some(Asked { turn, goes_out }) if goes_out => {
                clock.went_out(turn).saturating_sub(self.since.get())
            }
            _ => 0,
        };
        self.sum.get() + ran
    }

    /// What was asked for was ready at once, at `at`.
    fn goes_on(&self, at: u64) {
        self.waits.set(self.waits.get() - 1);
        if self.waits.get() == 0 && self.open.take().is_some() {
            self.runs_until(at);
        }
    }

    fn runs_until(&self, at: u64) {
        let more = at.saturating_sub(self.since.get());
        self.sum.set(self.sum.get() + more);
        self.since.set(at);
    }
}

#[cfg(test)]
mod tests;
