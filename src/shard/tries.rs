//! What an exchange has tried so far, and whether it may try once more.
//!
//! | What ended the try | Another one for | Against the budget |
//! | --- | --- | --- |
//! | no connection could be made | any method | no |
//! | a used connection was stale, the first time | idempotent, kept | no, nor an attempt |
//! | a connection ended before a response byte | idempotent, kept | yes |
//! | no response head within `attempt` | idempotent, kept | yes |
//! | an answer with one of `statuses` | idempotent, kept, sent | yes |
//!
//! A session of TCP is sent once it is connected, so its tries are connects alone: each endpoint
//! once, and `connect` for all of them together.
//!
//! "Kept" means that all of the request is at hand. Once a byte of an answer has gone to the
//! client there is no other try.

use std::time::Duration;

use super::deadline::{Late, Watch};
use super::exchange::Exchange;
use super::queue::TRIES_MAX;
use super::upstream::Link;
use crate::balance;
use crate::fault::{Fault, Side};
use crate::http::exchange::{Broken, Reach};
use crate::plan::{RetryRules, TICK};
use crate::tally::RetryReason;

/// The longest wait between two tries: a minute, however often it was doubled.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Stands for a tick that does not come.
const NEVER: u32 = u32::MAX;

/// What an exchange has tried so far.
#[derive(Debug)]
pub(super) struct Tries {
    /// Endpoints that failed this exchange, by their place in the service.
    failed: [u32; TRIES_MAX],
    /// Bit `i` is set exactly when `failed[i]` could not be connected to.
    refused: u16,
    count: u8,
    /// Further tries that are left.
    left: u8,
    /// Tries that ended with a status.
    statuses: u8,
    /// True exactly when a stale connection was replaced once; that is free, but only once.
    replayed: bool,
    /// Why the next pick is a further try, if it is one; counted once there is an endpoint for it.
    retrying: Option<RetryReason>,
    /// True exactly when it was counted as using endpoints that are not in.
    has_failed_open: bool,
    /// What ended the last try.
    last: Ended,
    /// Its turn where it has to wait for a connection; 0 before it asks for one, and where there is
    /// no limit.
    pub(super) ticket: u64,
    /// The tick up to which it may wait for one, or never before it has to.
    queue_ends: u32,
    /// The tick at which the running try has to have its response head, or never.
    try_ends: u32,
    /// The tick at which the exchange has to be over, or never.
    ends: u32,
    /// What a session of TCP goes by instead of `failed` and the bounds above. In a box, for it is
    /// no part of an exchange of HTTP, whose state is to stay small.
    session: Option<Box<Session>>,
}

/// What a session of TCP has tried. Nothing was sent before it is connected, so it goes on to every
/// endpoint once, as long as the time that `connect` allows for all of them together.
#[derive(Debug)]
struct Session {
    /// What is left of that time; waits for room at an endpoint do not count.
    left: Duration,
    /// Endpoints that could not be connected to, by their place in the service.
    refused: Vec<u32>,
}

/// The most endpoints that a session tries: where a hundred have refused, the next one would.
const CONNECTS_MAX: usize = 100;

/// What ended a try that gave no answer to go on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Fault(Fault),
    Status,
}

impl Tries {
    /// Nothing was tried yet, and the exchange begins now.
    pub(super) fn new(exchange: &Exchange<'_>) -> Self {
        let nobody = match exchange.service.endpoints.is_empty() {
            true => Fault::DnsError,
            false => Fault::DestinationUnavailable,
        };
        let timeouts = &exchange.service.timeouts;
        let session = exchange.is_session().then(|| {
            Box::new(Session {
                left: timeouts.connect,
                refused: Vec::new(),
            })
        });
        Self {
            failed: [0; TRIES_MAX],
            refused: 0,
            count: 0,
            left: exchange.service.retry.attempts_max,
            statuses: 0,
            replayed: false,
            retrying: None,
            has_failed_open: false,
            last: Ended::Fault(nobody),
            ticket: 0,
            queue_ends: NEVER,
            try_ends: NEVER,
            ends: match timeouts.total.0 {
                0 => NEVER,
                // How long a session may last is for `tunnel_idle` to say.
                _ if session.is_some() => NEVER,
                // One more than asked for: the running tick is already partly over.
                ticks => exchange.shard.clock.tick().saturating_add(ticks + 1),
            },
            session,
        }
    }

    /// True exactly when these are the tries of a session of TCP.
    pub(super) fn is_session(&self) -> bool {
        self.session.is_some()
    }

    /// Another try begins. Says why, where it is not the first.
    pub(super) fn begin(&mut self, exchange: &Exchange<'_>) -> Option<RetryReason> {
        if self.session.is_none() {
            self.try_ends = Self::attempt_ends(exchange);
        }
        self.retrying.take()
    }

    /// Bounds what the running try waits for on its connection. While the request still comes,
    /// `is_at_hand` being false, only the exchange is bounded: that a client is slow is no fault of
    /// the endpoint, and a few of them could have it ejected.
    pub(super) fn bound(&self, endpoint: &Watch, is_at_hand: bool) {
        if is_at_hand && self.try_ends < self.ends {
            endpoint.bound(self.try_ends, Late::Attempt);
        } else if self.ends != NEVER {
            endpoint.bound(self.ends, Late::Exchange);
        }
    }

    /// The last byte of a request that still came has gone to the endpoint: from here on the try
    /// has its time.
    pub(super) fn request_sent(&self, exchange: &Exchange<'_>, endpoint: &Watch) {
        let ends = Self::attempt_ends(exchange);
        if ends < self.ends {
            endpoint.bound(ends, Late::Attempt);
        }
    }

    /// The tick at which a try that begins now has to have its response head, or never.
    fn attempt_ends(exchange: &Exchange<'_>) -> u32 {
        match exchange.service.retry.attempt.0 {
            0 => NEVER,
            // One more than asked for: the running tick is already partly over.
            ticks => exchange.shard.clock.tick().saturating_add(ticks + 1),
        }
    }

    /// The response head is here: bounds what goes on from it. [`Tries::unbound`] follows for both,
    /// whatever comes of the exchange.
    pub(super) fn head_came(&self, endpoint: &Watch, client: &Watch) {
        if self.ends != NEVER {
            endpoint.bound(self.ends, Late::Exchange);
            // No sooner: at its end the client can still be told that there is no answer.
            client.bound(self.ends, Late::Exchange);
        } else if self.try_ends != NEVER {
            endpoint.unbound();
        }
    }

    /// Takes away what bounds the connections of an exchange that is over, or whose next try comes.
    pub(super) fn unbound(&self, watch: &Watch) {
        if self.try_ends.min(self.ends) != NEVER {
            watch.unbound();
        }
    }

    /// What is left of `usual` for the running try.
    pub(super) fn within(&self, exchange: &Exchange<'_>, usual: Duration) -> Duration {
        if let Some(session) = &self.session {
            return usual.min(session.left);
        }
        match self.try_ends.min(self.ends) {
            NEVER => usual,
            ends => usual.min(TICK * ends.saturating_sub(exchange.shard.clock.tick())),
        }
    }

    /// True exactly when the exchange has had all the time that it may.
    pub(super) fn is_over(&self, exchange: &Exchange<'_>) -> bool {
        self.ends <= exchange.shard.clock.tick()
    }

    /// The tick up to which it may wait for a connection.
    pub(super) fn queue_ends(&mut self, exchange: &Exchange<'_>) -> u32 {
        let now = exchange.shard.clock.tick();
        // One more than asked for: the running tick is already partly over.
        let latest = now.saturating_add(exchange.service.pool.queue.0 + 1);
        if self.queue_ends == NEVER {
            self.queue_ends = latest.min(self.ends);
        }
        self.queue_ends
    }

    /// True exactly when it had to wait for a connection before.
    pub(super) fn has_waited(&self) -> bool {
        self.queue_ends != NEVER
    }

    /// The indices of the slots of endpoints that it can't use; `u32::MAX` where there are fewer.
    pub(super) fn barred(&self, exchange: &Exchange<'_>) -> [u32; TRIES_MAX] {
        let mut barred = [u32::MAX; TRIES_MAX];
        let sessions = self.session.iter();
        let of_session = sessions.flat_map(|session| session.refused.iter().copied());
        // A session may have more; it passes on what it is given of those.
        for (barred, refused) in barred.iter_mut().zip(self.refused().chain(of_session)) {
            *barred = exchange.service.endpoints[refused as usize].slot.index;
        }
        barred
    }

    /// Notes that it uses an endpoint that is not in, because none is.
    pub(super) fn fails_open(&mut self, exchange: &Exchange<'_>) {
        if !std::mem::replace(&mut self.has_failed_open, true) {
            exchange.fails_open();
        }
    }

    /// True exactly when it has waited for something else than the endpoint of the running try: for
    /// a connection, before a retry, or, as a session, for other endpoints.
    pub(super) fn has_rested(&self) -> bool {
        let mut sessions = self.session.iter();
        self.has_waited()
            || 0 < self.statuses
            || sessions.any(|session| !session.refused.is_empty())
    }

    /// The endpoints that failed this exchange, by their place in the service.
    fn failed(&self) -> &[u32] {
        &self.failed[..usize::from(self.count)]
    }

    /// The fault of an exchange for which there is no endpoint left.
    pub(super) fn last_fault(&self) -> Fault {
        match self.last {
            Ended::Fault(fault) => fault,
            // That it had an answer, which was thrown away for another one, is nobody's fault.
            Ended::Status => Fault::DestinationUnavailable,
        }
    }

    /// True exactly when a connection ended under the exchange.
    pub(super) fn has_lost_one(&self) -> bool {
        self.replayed || self.last == Ended::Fault(Fault::ConnectionTerminated)
    }

    /// True exactly when the endpoint at `place` of the service has failed this exchange.
    pub(super) fn has_failed(&self, place: u32) -> bool {
        self.failed().contains(&place) || self.session_was_refused(place)
    }

    /// True exactly when the endpoint at `place` of the service could not be connected to: it is
    /// no use to try it again.
    pub(super) fn has_refused(&self, place: u32) -> bool {
        self.refused().any(|refused| refused == place) || self.session_was_refused(place)
    }

    fn session_was_refused(&self, place: u32) -> bool {
        let mut sessions = self.session.iter();
        sessions.any(|session| session.refused.contains(&place))
    }

    /// True exactly when an endpoint has failed that may be tried again where there is no other.
    pub(super) fn may_repeat(&self) -> bool {
        self.refused().count() < self.failed().len()
    }

    /// The endpoints that could not be connected to.
    fn refused(&self) -> impl Iterator<Item = u32> {
        let failed = self.failed().iter().enumerate();
        let refused = failed.filter(|(index, _)| self.refused & 1 << index != 0);
        refused.map(|(_, place)| *place)
    }

    /// True when the exchange may go on after `broken` on a connection that was `reused` or not, by
    /// sending its request once more: no byte of a response had come, and the method allows it (RFC
    /// 9110 section 9.2.2). Whether the request is at hand and the budget allows it are other
    /// questions.
    pub(super) fn would_replay(
        &self,
        exchange: &Exchange<'_>,
        broken: &Broken,
        reused: bool,
    ) -> bool {
        let Broken { fault, reach } = *broken;
        let is_safe = reach == Reach::Nothing && exchange.facts.idempotent;
        let is_retried = fault.retryable() && self.has_left(exchange);
        is_safe && (self.is_free(fault, reused) || is_retried)
    }

    /// True exactly when `fault` was that of a stale connection, and the first such.
    fn is_free(&self, fault: Fault, reused: bool) -> bool {
        fault == Fault::ConnectionTerminated && reused && !self.replayed
    }

    fn has_left(&self, exchange: &Exchange<'_>) -> bool {
        0 < self.left && usize::from(self.count) < TRIES_MAX && !self.is_over(exchange)
    }

    /// Notes that the running try is `broken`. True when the request, which is `kept`, is to be
    /// sent once more.
    pub(super) fn may_replay(
        &mut self,
        exchange: &Exchange<'_>,
        broken: &Broken,
        link: &Link<'_>,
        kept: bool,
    ) -> bool {
        let replayable = kept && self.would_replay(exchange, broken, link.reused);
        if replayable && self.is_free(broken.fault, link.reused) {
            self.replayed = true;
            exchange.counters.replays.add(1);
            exchange.shard.counters.upstreams_stale.add(1);
            return true;
        }
        if broken.fault.side() == Side::Upstream {
            exchange.endpoint_failed(Some(broken.fault));
        }
        let reason = match broken.fault {
            Fault::AttemptTimeout => RetryReason::AttemptTimeout,
            _ => RetryReason::Terminated,
        };
        replayable
            && exchange.is_within_budget()
            && self.spend(exchange, Ended::Fault(broken.fault), reason)
    }

    /// Notes that no connection could be made within `took`, for `fault`. True when another try may
    /// follow.
    pub(super) fn may_connect_again(
        &mut self,
        exchange: &Exchange<'_>,
        fault: Fault,
        took: Duration,
    ) -> bool {
        if let Some(session) = &mut self.session {
            self.last = Ended::Fault(fault);
            self.retrying = Some(RetryReason::Connect);
            session.left = session.left.saturating_sub(took);
            session.refused.push(exchange.endpoint.get() as u32);
            return !session.left.is_zero() && session.refused.len() < CONNECTS_MAX;
        }
        // Nothing was sent, so any method may go elsewhere.
        self.spend(exchange, Ended::Fault(fault), RetryReason::Connect)
    }

    /// True when an answer with `status` is to be thrown away for another try; the request is kept
    /// and sent.
    pub(super) fn would_retry(&self, exchange: &Exchange<'_>, status: u16) -> bool {
        exchange.is_retried(status)
            && exchange.facts.idempotent
            && self.has_left(exchange)
            && self.backoff_fits(exchange)
    }

    /// Notes that the running try ended with an answer that is thrown away. Says how long to wait
    /// before the next one.
    pub(super) fn retry(&mut self, exchange: &Exchange<'_>) -> Duration {
        let is_spent = self.spend(exchange, Ended::Status, RetryReason::Status);
        debug_assert!(is_spent, "it would have been retried");
        let most = backoff(&exchange.service.retry, self.statuses);
        self.statuses += 1;
        if most.is_zero() {
            return most;
        }
        // Between half of it and all of it, so that those who failed together do not come back
        // together.
        let mut generator = exchange.shard.generator.borrow_mut();
        most.mul_f64(0.5 + balance::draw_unit(&mut generator) / 2.0)
    }

    /// True when the wait before the next try leaves time for it.
    fn backoff_fits(&self, exchange: &Exchange<'_>) -> bool {
        let left = TICK * self.ends.saturating_sub(exchange.shard.clock.tick());
        backoff(&exchange.service.retry, self.statuses) < left
    }

    /// Notes that the running try failed. True when another may follow.
    fn spend(&mut self, exchange: &Exchange<'_>, ended: Ended, reason: RetryReason) -> bool {
        self.last = ended;
        if !self.has_left(exchange) {
            return false;
        }
        self.failed[usize::from(self.count)] = exchange.endpoint.get() as u32;
        self.refused |= u16::from(reason == RetryReason::Connect) << self.count;
        self.count += 1;
        self.left -= 1;
        self.retrying = Some(reason);
        true
    }
}

/// The longest wait before a retry on a status, so many having been before it.
fn backoff(retry: &RetryRules, before: u8) -> Duration {
    let doubled = retry.backoff.saturating_mul(1 << before.min(16));
    doubled.min(BACKOFF_MAX.max(retry.backoff))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Service;

    #[test]
    fn a_backoff_doubles_up_to_a_minute() {
        let mut retry = Service::over("a", &[([127, 0, 0, 1], 1).into()]).retry;
        let seconds = |retry: &RetryRules, before| backoff(retry, before).as_secs_f64();
        assert_eq!(seconds(&retry, 5), 0.0);
        retry.backoff = Duration::from_millis(250);
        let waits = [0, 1, 2, 3, 10].map(|before| seconds(&retry, before));
        assert_eq!(waits, [0.25, 0.5, 1.0, 2.0, 60.0]);
        retry.backoff = Duration::from_secs(60);
        assert_eq!(seconds(&retry, 3), 60.0);
    }
}
