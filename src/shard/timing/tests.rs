//! Exchanges in virtual time: a delay of known length shows in its phase and in no other, to the
//! nanosecond.
//!
//! [`World`] is the shard's loop and its peers: what a task asks for goes out at the end of the
//! turn, is ready after its delay, and is reaped by the next turn.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::shard::io::both;

/// What the tasks of the turn do besides, before what they ask for goes out.
const OTHERS: u64 = 7;
/// What it takes to understand a request or a response.
const COMPUTED: u64 = 300;

struct World {
    clock: Clock,
    asked: RefCell<Vec<Rc<Operation>>>,
    /// True for epoll: an operation without a delay is ready at once.
    ready_at_once: bool,
}

#[derive(Default)]
struct Operation {
    delay: u64,
    /// When it is ready; `None` until it has gone out.
    due: Cell<Option<u64>>,
    is_ready: Cell<bool>,
}

impl World {
    fn new(ready_at_once: bool) -> Self {
        Self {
            clock: Clock::stopped(),
            asked: RefCell::default(),
            ready_at_once,
        }
    }

    /// An operation of a peer that takes `delay`.
    async fn takes(&self, delay: u64) {
        if self.ready_at_once && delay == 0 {
            return;
        }
        let operation = Rc::new(Operation {
            delay,
            ..Operation::default()
        });
        self.asked.borrow_mut().push(Rc::clone(&operation));
        poll_fn(|_| match operation.is_ready.get() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    /// Runs `task` to its end.
    fn run(&self, task: impl Future<Output = ()>) {
        let mut task = pin!(task);
        let mut context = Context::from_waker(Waker::noop());
        loop {
            self.clock.task_runs();
            let polled = task.as_mut().poll(&mut context);
            self.clock.pass(OTHERS);
            self.clock.end_turn();
            if polled.is_ready() {
                return;
            }
            let now = self.clock.now();
            let mut asked = self.asked.borrow_mut();
            for operation in asked
                .iter()
                .filter(|operation| operation.due.get().is_none())
            {
                operation.due.set(Some(now + operation.delay));
            }
            let next = asked
                .iter()
                .filter_map(|operation| operation.due.get())
                .min();
            let next = next.expect("a task that waits has asked for something");
            self.clock.pass(next - now);
            asked.retain(|operation| {
                operation.is_ready.set(operation.due.get() <= Some(next));
                !operation.is_ready.get()
            });
        }
    }
}

/// What each peer takes its time with.
#[derive(Clone, Copy, Default)]
struct Delays {
    client_receive: u64,
    upstream_connect: u64,
    upstream_send: u64,
    upstream_wait: u64,
    upstream_receive: u64,
    client_send: u64,
}

async fn asking(timing: &Timing<'_>, operation: impl Future<Output = ()>) -> Wait {
    let asked = timing.ask();
    operation.await;
    timing.done(asked)
}

async fn listening(timing: &Timing<'_>, operation: impl Future<Output = ()>) -> Wait {
    let listening = timing.listen();
    operation.await;
    timing.done(listening)
}

type Recorded = BTreeMap<&'static str, u64>;

fn into(recorded: &RefCell<Recorded>) -> impl FnMut(Phase, u64) + '_ {
    |phase, nanoseconds| {
        let before = recorded.borrow_mut().insert(phase.label(), nanoseconds);
        assert_eq!(before, None, "{} twice", phase.label());
    }
}

/// An exchange on a fresh connection: head, answer and what is told in two parts each.
fn one_way(ready_at_once: bool, delays: Delays) -> Recorded {
    let world = World::new(ready_at_once);
    let World { clock, .. } = &world;
    let recorded = RefCell::default();
    world.run(async {
        let timing = Timing::new(clock, clock.turn().began());
        let turn = clock.turn();
        world.takes(0).await;
        timing.request_begins(clock.ready_at(turn));
        let wait = listening(&timing, world.takes(delays.client_receive)).await;
        timing.request_received(wait.end);
        clock.pass(COMPUTED);
        let wait = asking(&timing, world.takes(delays.upstream_connect)).await;
        into(&recorded)(Phase::UpstreamConnect, wait.end - wait.begin);
        let wait = asking(&timing, world.takes(delays.upstream_send)).await;
        timing.request_part_sent(wait);
        timing.request_sent();
        let asked = clock.turn();
        world.takes(delays.upstream_wait).await;
        timing.answer_part_read(clock.ready_at(asked));
        let wait = listening(&timing, world.takes(delays.upstream_receive)).await;
        timing.answer_part_read(wait.end);
        timing.answer_read();
        clock.pass(COMPUTED);
        let wait = asking(&timing, world.takes(delays.client_send)).await;
        timing.answer_part_told(wait);
        timing.end_try(into(&recorded));
        timing.end(into(&recorded));
    });
    recorded.into_inner()
}

#[test]
fn a_delay_shows_in_its_phase_and_in_total_alone() {
    const DELAY: u64 = 1_000_000;
    type Set = fn(&mut Delays);
    let cases: [(&str, Set); 6] = [
        ("client_receive", |delays| delays.client_receive = DELAY),
        ("upstream_connect", |delays| delays.upstream_connect = DELAY),
        ("upstream_send", |delays| delays.upstream_send = DELAY),
        ("upstream_wait", |delays| delays.upstream_wait = DELAY),
        ("upstream_receive", |delays| delays.upstream_receive = DELAY),
        ("client_send", |delays| delays.client_send = DELAY),
    ];
    for (slow, set) in cases {
        let mut delays = Delays::default();
        set(&mut delays);
        let (expected, recorded) = (one_way(false, Delays::default()), one_way(false, delays));
        for (phase, nanoseconds) in expected {
            let more = u64::from(phase == slow || phase == "total") * DELAY;
            assert_eq!(recorded[phase], nanoseconds + more, "{phase}, {slow} slow");
        }
    }
}

#[test]
fn own_is_what_lies_between_the_waits() {
    let recorded = one_way(false, Delays::default());
    // Two computations, and what the others of its turn did: for each of the three writes, and
    // while the first bytes were there and not read yet.
    assert_eq!(recorded["own"], 2 * COMPUTED + 4 * OTHERS);
    // What comes in parts has turns between them, in which the peer is awaited.
    assert_eq!(recorded["client_receive"], OTHERS);
    assert_eq!(recorded["upstream_wait"], OTHERS);
    assert_eq!(recorded["upstream_receive"], OTHERS);
    assert_eq!(recorded["upstream_send"], 0);
    let parts: u64 = recorded.values().sum::<u64>() - recorded["total"];
    assert_eq!(
        recorded["total"], parts,
        "nothing overlaps, nothing is left out"
    );
}

#[test]
fn what_is_ready_at_once_is_own() {
    let delays = Delays {
        upstream_wait: 5_000,
        ..Delays::default()
    };
    let recorded = one_way(true, delays);
    assert_eq!(recorded["own"], 2 * COMPUTED);
    // The turn in which the request was written ends before the wait for its answer.
    assert_eq!(recorded["upstream_wait"], OTHERS + 5_000);
    assert_eq!(recorded["total"], 2 * COMPUTED + OTHERS + 5_000);
}

/// The answer begins after `answered`, while the body of the request, in two parts, takes
/// `uploaded` for each.
fn both_ways(answered: u64, uploaded: u64) -> Recorded {
    let world = World::new(false);
    let World { clock, .. } = &world;
    let recorded = RefCell::default();
    world.run(async {
        let timing = Timing::new(clock, clock.turn().began());
        timing.request_goes_on();
        clock.pass(COMPUTED);
        let up = pin!(async {
            for part in 0..2 {
                let wait = asking(&timing, world.takes(0)).await;
                timing.request_part_sent(wait);
                if part == 0 {
                    let wait = listening(&timing, world.takes(uploaded)).await;
                    timing.request_received(wait.end);
                }
            }
            timing.request_sent();
        });
        let down = pin!(async {
            let asked = clock.turn();
            world.takes(answered).await;
            timing.answer_part_read(clock.ready_at(asked));
            timing.answer_read();
            clock.pass(COMPUTED);
            let wait = asking(&timing, world.takes(0)).await;
            timing.answer_part_told(wait);
        });
        both(up, down).await;
        timing.end_try(into(&recorded));
        timing.end(into(&recorded));
    });
    recorded.into_inner()
}

#[test]
fn an_answer_that_waits_for_the_body_is_waited_for_from_its_end() {
    let recorded = both_ways(10_000, 4_000);
    // Of its 10,000 the first turn's begin, the body and three turns were over.
    assert_eq!(recorded["client_receive"], COMPUTED + 2 * OTHERS + 4_000);
    assert_eq!(recorded["upstream_send"], 4_000 + 2 * OTHERS);
    assert_eq!(recorded["upstream_wait"], 10_000 - 4_000 - 2 * OTHERS);
    assert_eq!(recorded["own"], 2 * COMPUTED + 3 * OTHERS);
}

#[test]
fn an_answer_before_the_end_of_the_body_did_not_wait_for_it() {
    let recorded = both_ways(1_000, 50_000);
    assert_eq!(recorded["upstream_wait"], 0);
    assert_eq!(
        recorded["total"],
        COMPUTED + OTHERS + 1_000 + COMPUTED + OTHERS
    );
    assert!(50_000 < recorded["upstream_send"]);
    // Its second computation ran while the client's body was awaited.
    assert!(recorded["own"] < 2 * COMPUTED, "{recorded:?}");
}

#[test]
fn interim_responses_are_part_of_the_wait() {
    let world = World::new(false);
    let World { clock, .. } = &world;
    let recorded = RefCell::default();
    world.run(async {
        let timing = Timing::new(clock, clock.turn().began());
        let wait = asking(&timing, world.takes(0)).await;
        timing.request_part_sent(wait);
        timing.request_sent();
        for _interim in 0..2 {
            let asked = clock.turn();
            world.takes(1_000).await;
            timing.answer_part_read(clock.ready_at(asked));
            let wait = asking(&timing, world.takes(500)).await;
            timing.answer_part_told(wait);
            timing.was_interim(false);
        }
        let asked = clock.turn();
        world.takes(1_000).await;
        timing.answer_part_read(clock.ready_at(asked));
        timing.answer_read();
        let wait = asking(&timing, world.takes(0)).await;
        timing.answer_part_told(wait);
        timing.end_try(into(&recorded));
        timing.end(into(&recorded));
    });
    let recorded = recorded.into_inner();
    assert_eq!(recorded["upstream_wait"], 3 * 1_000 + 2 * 500 + 5 * OTHERS);
    assert_eq!(recorded["upstream_receive"], 0);
    assert_eq!(recorded["client_send"], 0, "of the final response");
}

#[test]
fn a_final_response_begins_with_the_bytes_that_ended_the_interim_one() {
    let world = World::new(false);
    let World { clock, .. } = &world;
    let recorded = RefCell::default();
    world.run(async {
        let timing = Timing::new(clock, clock.turn().began());
        let wait = asking(&timing, world.takes(0)).await;
        timing.request_part_sent(wait);
        timing.request_sent();
        let asked = clock.turn();
        world.takes(1_000).await;
        timing.answer_part_read(clock.ready_at(asked));
        // The rest of its head, and the whole of the final response.
        let wait = listening(&timing, world.takes(2_000)).await;
        timing.answer_part_read(wait.end);
        let wait = asking(&timing, world.takes(500)).await;
        timing.answer_part_told(wait);
        timing.was_interim(true);
        timing.answer_read();
        let wait = asking(&timing, world.takes(0)).await;
        timing.answer_part_told(wait);
        timing.end_try(into(&recorded));
        timing.end(into(&recorded));
    });
    let recorded = recorded.into_inner();
    assert_eq!(recorded["upstream_wait"], 1_000 + 2_000 + 2 * OTHERS);
    assert_eq!(recorded["upstream_receive"], 0);
}

#[test]
fn a_connection_that_is_stale_at_once_costs_own_time_once() {
    let world = World::new(true);
    let World { clock, .. } = &world;
    let recorded = RefCell::default();
    world.run(async {
        let timing = Timing::new(clock, clock.turn().began());
        for _try in 0..2 {
            clock.pass(COMPUTED);
            let wait = asking(&timing, world.takes(0)).await;
            timing.request_part_sent(wait);
            timing.request_sent();
            // The end of the connection is there already.
            timing.end_try(|_, _| {});
        }
        let wait = asking(&timing, world.takes(0)).await;
        timing.answer_part_told(wait);
        timing.end(into(&recorded));
    });
    let recorded = recorded.into_inner();
    assert_eq!(recorded["total"], 2 * COMPUTED);
    assert_eq!(recorded["own"], 2 * COMPUTED);
}

#[test]
fn what_is_done_after_the_answer_was_told_is_not_own() {
    let world = World::new(false);
    let World { clock, .. } = &world;
    let recorded = RefCell::default();
    world.run(async {
        let timing = Timing::new(clock, clock.turn().began());
        timing.request_goes_on();
        let wait = asking(&timing, world.takes(0)).await;
        timing.request_part_sent(wait);
        let asked = clock.turn();
        world.takes(1_000).await;
        timing.answer_part_read(clock.ready_at(asked));
        timing.answer_read();
        let wait = asking(&timing, world.takes(0)).await;
        timing.answer_part_told(wait);
        // An early answer; the body goes on.
        for _part in 0..10 {
            let wait = listening(&timing, world.takes(1_000)).await;
            timing.request_received(wait.end);
            clock.pass(COMPUTED);
            let wait = asking(&timing, world.takes(0)).await;
            timing.request_part_sent(wait);
        }
        timing.request_sent();
        timing.end_try(into(&recorded));
        timing.end(into(&recorded));
    });
    let recorded = recorded.into_inner();
    // Nobody was awaited for longer than nothing until then.
    assert_eq!(recorded["own"], recorded["total"]);
    assert_eq!(recorded["total"], 1_000 + 3 * OTHERS);
}

#[test]
fn a_try_that_fails_leaves_what_it_reached_and_the_next_begins_anew() {
    let world = World::new(false);
    let World { clock, .. } = &world;
    let (first, second) = (RefCell::default(), RefCell::default());
    world.run(async {
        let timing = Timing::new(clock, clock.turn().began());
        for recorded in [&first, &second] {
            let wait = asking(&timing, world.takes(100)).await;
            timing.request_part_sent(wait);
            timing.request_sent();
            world.takes(1_000).await;
            timing.end_try(into(recorded));
        }
        let wait = asking(&timing, world.takes(0)).await;
        timing.answer_part_told(wait);
        timing.end(into(&second));
    });
    let sent = Recorded::from([("upstream_send", 100)]);
    assert_eq!(first.into_inner(), sent);
    let second = second.into_inner();
    assert_eq!(second["upstream_send"], 100);
    assert_eq!(
        second["own"],
        3 * OTHERS,
        "no endpoint is awaited for nothing"
    );
    assert_eq!(second["total"], 2 * 1_100 + 5 * OTHERS);
    assert!(!second.contains_key("upstream_wait"));
}

#[test]
fn without_an_answer_nothing_is_told() {
    let clock = Clock::stopped();
    let timing = Timing::new(&clock, 0);
    timing.end_try(|phase, _| panic!("{phase:?}"));
    timing.end(|phase, _| panic!("{phase:?}"));
}
