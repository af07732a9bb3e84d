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
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use super::clock::{Clock, Turn, Wait};
use crate::tally::Phase;

/// The times of one exchange, in nanoseconds of its shard's clock.
#[derive(Debug)]
pub(super) struct Timing<'a> {
    clock: &'a Clock,
    /// The first byte of the request.
    begun: u64,
    /// The last byte of the request, or `NONE` while more of it is awaited.
    received: Cell<u64>,
    /// What was written of the final answer to the client.
    told: Cell<Span>,
    running: Cell<Try>,
    own: Own,
}

/// The times of one try on one endpoint.
#[derive(Clone, Copy, Debug)]
struct Try {
    /// What was written of the request.
    sent: Span,
    /// True exactly when that is all of it.
    is_sent: bool,
    /// True exactly while the request has been sent and its answer has not begun.
    awaited: bool,
    /// The first byte of the final response, or `NONE`.
    answered: u64,
    /// The last bytes of a response that have come.
    read: u64,
    /// True exactly when they are the last of the final response.
    is_read: bool,
}

/// From the first to the last of what was written; `NONE` twice when nothing was.
#[derive(Clone, Copy, Debug)]
struct Span {
    begin: u64,
    end: u64,
}

/// The sum of the times in which no peer was awaited.
#[derive(Debug)]
struct Own {
    sum: Cell<u64>,
    /// When it began to run; `NONE` while a peer is awaited.
    since: Cell<u64>,
    /// How many waits there are at this moment.
    waits: Cell<u32>,
    /// How the first of them began, until `sum` has what ran before it.
    open: Cell<Option<Asked>>,
}

/// How a wait began.
#[derive(Clone, Copy, Debug)]
enum Asked {
    /// By something that goes out with the end of this turn.
    In(Turn),
    /// By nothing: bytes come on their own.
    Nothing,
}

const NONE: u64 = u64::MAX;

impl Span {
    const NOTHING: Self = Self {
        begin: NONE,
        end: NONE,
    };

    fn extended(self, wait: Wait) -> Self {
        Self {
            begin: self.begin.min(wait.begin),
            end: wait.end,
        }
    }
}

impl Try {
    const NEW: Self = Self {
        sent: Span::NOTHING,
        is_sent: false,
        awaited: false,
        answered: NONE,
        read: 0,
        is_read: false,
    };
}

impl<'a> Timing<'a> {
    /// Of an exchange whose first byte came at `begun`.
    pub(super) fn new(clock: &'a Clock, begun: u64) -> Self {
        Self {
            clock,
            begun,
            received: Cell::new(begun),
            told: Cell::new(Span::NOTHING),
            running: Cell::new(Try::NEW),
            own: Own {
                sum: Cell::new(0),
                since: Cell::new(begun),
                waits: Cell::new(0),
                open: Cell::new(None),
            },
        }
    }

    /// Runs an operation that asks something of a peer: a write, a connect.
    pub(super) async fn asking<T>(&self, operation: impl Future<Output = T>) -> (T, Wait) {
        self.waiting(operation, Asked::In).await
    }

    /// Runs an operation that waits for a peer's bytes.
    pub(super) async fn reading<T>(&self, operation: impl Future<Output = T>) -> (T, Wait) {
        self.waiting(operation, |_| Asked::Nothing).await
    }

    async fn waiting<T>(
        &self,
        operation: impl Future<Output = T>,
        how: impl Fn(Turn) -> Asked,
    ) -> (T, Wait) {
        let mut operation = pin!(operation);
        let mut asked = None;
        poll_fn(|context| {
            if let Poll::Ready(output) = operation.as_mut().poll(context) {
                let wait = self.clock.wait_since(asked);
                match asked {
                    None => self.own.goes_on(wait.end),
                    Some(_) => self.own.wait_ends(self.clock, wait.end),
                }
                return Poll::Ready((output, wait));
            }
            if asked.is_none() {
                let turn = self.clock.turn();
                asked = Some(turn);
                self.own.wait_begins(how(turn));
            }
            Poll::Pending
        })
        .await
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
        self.change(|running| running.sent = running.sent.extended(wait));
    }

    /// All of it was.
    pub(super) fn request_sent(&self) {
        self.change(|running| running.is_sent = true);
        self.await_answer();
    }

    /// True exactly when bytes of the response have come that is awaited.
    pub(super) fn answer_has_begun(&self) -> bool {
        self.running.get().answered != NONE
    }

    /// Bytes of a response came.
    pub(super) fn answer_part_read(&self, at: u64) {
        self.change(|running| {
            running.answered = running.answered.min(at);
            running.read = at;
        });
        self.answer_is_here(at);
    }

    /// What has come so far was an interim response; `more` is true when bytes of what follows it
    /// are here already.
    pub(super) fn was_interim(&self, more: bool) {
        self.told.set(Span::NOTHING);
        if !more {
            self.change(|running| running.answered = NONE);
            self.await_answer();
        }
    }

    /// The final response was read to its end.
    pub(super) fn answer_read(&self) {
        self.change(|running| running.is_read = true);
    }

    /// Part of the answer was written to the client.
    pub(super) fn answer_part_told(&self, wait: Wait) {
        self.told.set(self.told.get().extended(wait));
    }

    /// The try is over: gives each phase whose end it reached, and begins the next one.
    pub(super) fn end_try(&self, mut record: impl FnMut(Phase, u64)) {
        self.answer_is_here(self.clock.turn().began());
        let Try {
            sent,
            is_sent,
            answered,
            read,
            is_read,
            ..
        } = self.running.replace(Try::NEW);
        if is_sent {
            record(Phase::UpstreamSend, sent.end - sent.begin);
        }
        if answered == NONE {
            return;
        }
        // An answer that came before the request had ended did not wait for it.
        let asked = if is_sent { sent.end } else { NONE };
        record(Phase::UpstreamWait, answered.saturating_sub(asked));
        if is_read {
            record(Phase::UpstreamReceive, read - answered);
        }
    }

    /// The exchange is over: gives what it took, all in all, if an answer was written.
    pub(super) fn end(&self, mut record: impl FnMut(Phase, u64)) {
        let told = self.told.get();
        if told.end == NONE {
            return;
        }
        let received = self.received.get();
        if received != NONE {
            record(Phase::ClientReceive, received - self.begun);
        }
        record(Phase::ClientSend, told.end - told.begin);
        record(Phase::Own, self.own.sum.get());
        record(Phase::Total, told.end.saturating_sub(self.begun));
    }

    fn change(&self, change: impl FnOnce(&mut Try)) {
        let mut running = self.running.get();
        change(&mut running);
        self.running.set(running);
    }

    /// From now on the endpoint is awaited, unless its answer has begun.
    fn await_answer(&self) {
        let running = self.running.get();
        if running.is_sent && running.answered == NONE && !running.awaited {
            self.change(|running| running.awaited = true);
            self.own.wait_begins(Asked::Nothing);
        }
    }

    /// From `at` on it is not awaited any more.
    fn answer_is_here(&self, at: u64) {
        if self.running.get().awaited {
            self.change(|running| running.awaited = false);
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
        if let Some(asked) = self.open.take() {
            let since = self.since.replace(NONE);
            if let Asked::In(turn) = asked {
                self.add(since, clock.went_out(turn));
            }
        }
        self.waits.set(self.waits.get() - 1);
        if self.waits.get() == 0 {
            self.since.set(at);
        }
    }

    /// Something was ready at once, at `at`.
    fn goes_on(&self, at: u64) {
        if self.waits.get() == 0 {
            let since = self.since.replace(at);
            self.add(since, at);
        }
    }

    fn add(&self, since: u64, until: u64) {
        self.sum.set(self.sum.get() + until.saturating_sub(since));
    }
}

#[cfg(test)]
mod tests;
