//! A request that goes to every backend of its service: `[service.fanout]`.
//!
//! The exchange of the client is here: its request is received whole ([`keep`]), every backend gets
//! a [`leg`], and the client waits until enough of them have succeeded or can't any more. What is
//! still under way then goes on without it, for every backend is to get the request. A client that
//! leaves before it has its answer ends the legs, unless they are `detached`.
//!
//! Each attempt of a leg is a task of its own ([`attempt`]); between two of them a leg is an entry
//! in a heap ([`legs`]) and no task. What they share is the [`job`].

mod answer;
mod attempt;
mod job;
mod keep;
mod leg;
mod legs;

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

pub(super) use self::legs::{Burden, Legs};

use self::job::Job;
use self::leg::{Leg, Verdict};
use self::legs::HeldLegs;
use super::answer::{Answer, Tells};
use super::buffer::Buffer;
use super::client::{After, Client};
use super::exchange::Exchange;
use super::order::Order;
use super::queue::Wish;
use super::serve::CountsPanic;
use crate::fault::Fault;
use crate::http::exchange::Broken;
use crate::http::reply::Reply;
use crate::plan::FanoutRules;
use crate::tally::Limit;

/// Stands for a tick that does not come.
const NEVER: u32 = u32::MAX;

/// Sends the request that `order` holds the begin of to every backend and answers it.
///
/// # Errors
/// Why it was not answered here: it was too large, a limit was reached, its client is gone, or
/// there was no time left.
pub(super) async fn fan_out(
    exchange: &Exchange<'_>,
    rules: &FanoutRules,
    client: &mut Client,
    inbox: &mut Buffer,
    order: &mut Order,
) -> Result<After, Broken> {
    exchange.begins();
    let _panic = CountsPanic(exchange.counters);
    let ends = match exchange.service.timeouts.total.0 {
        0 => NEVER,
        // One more than asked for: the running tick is already partly over.
        ticks => exchange.shard.clock.tick().saturating_add(ticks + 1),
    };
    let legs = legs_of(exchange);
    if legs.is_empty() {
        return Err(Fault::DestinationUnavailable.into());
    }
    let burden = &exchange.running.kept.fanout;
    let held = HeldLegs::take(burden, legs.len(), rules.shard_legs_max)
        .ok_or_else(|| shed(exchange, Limit::Legs))?;
    let request = keep::receive(exchange, (rules, ends), client, inbox, order).await?;
    let is_told = exchange.service.send_proxy_protocol.is_some();
    let whose = is_told.then(|| client.addresses()).transpose();
    let whose = whose.map_err(|_gone| Fault::ClientGone)?;
    let begun = exchange.shard.clock.now();
    let job = Job::new(
        (&exchange.service.name, exchange.service_place.0 as usize),
        (exchange.listener, exchange.facts, whose),
        rules,
        request,
        (legs, held, begun),
    );
    let wanted = Wanted {
        exchange,
        job: &job,
    };
    job.start(exchange.shard);
    wait(exchange, client, &job, ends).await?;
    wanted.release();
    // What follows is an answer of ringmain's own: no more work of the service.
    drop(order.admission.take());
    Ok(answer(exchange, client, &job).await)
}

/// A leg for each backend that gets anything new.
fn legs_of(exchange: &Exchange<'_>) -> Box<[Leg]> {
    let backends = exchange.service.backends.iter().enumerate();
    let backends = backends.filter(|(_, backend)| !backend.drain);
    backends
        .map(|(place, backend)| Leg::new(backend.name.clone(), place))
        .collect()
}

/// Counts an exchange that a limit of the fan-out refuses.
fn shed(exchange: &Exchange<'_>, limit: Limit) -> Fault {
    exchange.counters.shed[limit.index()].add(1);
    let (service, limit_label) = (&*exchange.service.name, limit.label());
    log::debug!(service, limit = limit_label; "shed");
    limit.fault()
}

/// A fan-out whose client waits: it ends with the wait unless it was decided by then, or goes on by
/// itself.
#[derive(Debug)]
struct Wanted<'a, 'e> {
    exchange: &'a Exchange<'e>,
    job: &'a Job,
}

impl Wanted<'_, '_> {
    /// The client has waited long enough; the legs go on without it.
    fn release(self) {
        std::mem::forget(self);
    }
}

impl Drop for Wanted<'_, '_> {
    fn drop(&mut self) {
        if !self.job.rules.detached {
            self.job.end(self.exchange.shard);
        }
    }
}

/// Waits until it is known whether the requirement is met, while a client that is gone is noticed.
///
/// # Errors
/// `ClientGone`, `ExchangeTimeout` at the tick at which it `ends`, `DrainTimeout`.
async fn wait(exchange: &Exchange<'_>, client: &Client, job: &Job, ends: u32) -> Result<(), Fault> {
    let shard = exchange.shard;
    let watch = client.stream.reading();
    let wish = Wish::time(shard.pool.draw_ticket(), ends, watch.entry());
    let mut time = Rc::clone(&shard.naps).wait(wish);
    watch.guard_waiting();
    let asked = exchange.timing.ask();
    let ended = poll_fn(|context| {
        if job.verdict() != Verdict::Open {
            return Poll::Ready(Ok(()));
        }
        job.tell(context.waker());
        let time = Pin::new(&mut time).poll(context);
        time.map(|ended| ended.map(drop))
    });
    let ended = ended.await;
    exchange.timing.done(asked);
    watch.unguard();
    ended.map_err(|fault| match fault {
        Fault::ConnectionLimitReached => Fault::ExchangeTimeout,
        fault => fault,
    })
}

/// Tells the client what came of each backend.
async fn answer(exchange: &Exchange<'_>, client: &mut Client, job: &Job) -> After {
    let Exchange {
        shard,
        listener,
        tally,
        timing,
        counters,
        ..
    } = *exchange;
    let times = (job.begun, shard.clock.now());
    let content = answer::json(&job.service, &job.legs.borrow(), times);
    let (status, fault) = match job.verdict() {
        Verdict::Met => (job.rules.status, None),
        Verdict::Open | Verdict::Unmet => {
            let fault = Fault::FanoutUnmet;
            counters.count_fault(fault);
            log::debug!(service = &*job.service, fault = fault.label(); "exchange failed");
            (fault.status(), Some(fault))
        }
    };
    counters.own_answers.add(1);
    let answer = Answer {
        tells: Tells::Fanout(status, fault, &content),
        reply: Reply::to(&exchange.facts),
        whole: true,
        tally: Some(tally),
    };
    let send_idle = listener.timeouts.send_idle;
    answer.send(shard, client, send_idle, timing).await
}
