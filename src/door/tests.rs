//! The door with real threads: hand-over, retirement, counters over reloads, notices, restarts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;
use crate::plan::{Life, Service, Standing};
use crate::tally::{Phase, Recorder, ServiceCounters};

/// A plan of services, each a name and the ports of its endpoints.
fn plan(generation: u64, services: &[(&str, &[u16])]) -> Plan {
    let services = services.iter().map(|(name, ports)| service(name, ports));
    Plan {
        generation,
        life: Life::Serving,
        via: "ringmain-test".into(),
        shard_connections_max: 1,
        listeners: [].into(),
        services: services.map(Arc::new).collect(),
        routes: Arc::default(),
        slots: [].into(),
    }
}

fn service(name: &str, ports: &[u16]) -> Service {
    let addresses: Vec<_> = ports
        .iter()
        .map(|port| ([127, 0, 0, 1], *port).into())
        .collect();
    Service::over(name, &addresses)
}

/// A door with one shard.
fn door_of_one() -> (Publisher, Subscriber) {
    let (publisher, mut subscribers) = door(1);
    let subscriber = subscribers.pop().expect("one shard");
    (publisher, subscriber)
}

/// The plan that is due to the shard, which it adopts.
#[track_caller]
fn adopted(subscriber: &mut Subscriber) -> Arc<Posted> {
    let posted = subscriber.poll().expect("a newer plan is posted");
    subscriber.adopt(posted.plan.generation);
    posted
}

/// The counters of the only shard for the service at `index`.
fn counters(posted: &Posted, index: usize) -> &ServiceCounters {
    &posted.counters[0].services[index]
}

#[test]
fn a_plan_is_given_once_to_each_shard() {
    let (mut publisher, mut subscribers) = door(2);
    assert!(subscribers[0].poll().is_none(), "nothing is posted yet");
    publisher.publish(plan(1, &[]));
    assert!(!publisher.adopted_by_all(1));
    for (shard, subscriber) in subscribers.iter_mut().enumerate() {
        assert_eq!(subscriber.shard(), shard);
        adopted(subscriber);
        assert!(subscriber.poll().is_none(), "the same plan is no news");
    }
    assert!(publisher.adopted_by_all(1));
    assert!(!publisher.adopted_by_all(2));
}

#[test]
fn a_shard_that_is_late_gets_only_the_newest_plan() {
    let (mut publisher, mut subscriber) = door_of_one();
    for generation in [1, 2, 5] {
        publisher.publish(plan(generation, &[]));
    }
    assert_eq!(adopted(&mut subscriber).plan.generation, 5);
    assert_eq!(publisher.retire(), 2);
    assert_eq!(publisher.generation(), 5);
}

#[test]
#[should_panic(expected = "generations grow")]
fn a_generation_that_does_not_grow_is_refused() {
    let (mut publisher, _subscriber) = door_of_one();
    publisher.publish(plan(2, &[]));
    publisher.publish(plan(2, &[]));
}

#[test]
fn a_plan_is_freed_when_control_alone_holds_it() {
    let (mut publisher, mut subscriber) = door_of_one();
    publisher.publish(plan(1, &[]));
    let first = adopted(&mut subscriber);
    let watched = Arc::downgrade(&first.plan);
    assert_eq!(publisher.retire(), 0, "the newest plan stays");
    publisher.publish(plan(2, &[]));
    assert_eq!(publisher.retire(), 0, "an exchange runs under the old plan");
    let parts = (Arc::clone(&first.plan), Arc::clone(&first.counters[0]));
    drop(first);
    assert_eq!(publisher.retire(), 0, "it holds the plan and its counters");
    drop(parts.0);
    assert_eq!(publisher.retire(), 0, "it holds its counters");
    drop(parts.1);
    assert_eq!(watched.strong_count(), 1, "the shard's drop frees nothing");
    assert_eq!(publisher.retire(), 1);
    assert_eq!(watched.strong_count(), 0);
}

#[test]
fn services_and_endpoints_keep_their_counters_over_a_reload() {
    let (mut publisher, mut subscriber) = door_of_one();
    publisher.publish(plan(1, &[("a", &[1, 2]), ("b", &[3])]));
    let first = adopted(&mut subscriber);
    counters(&first, 0).exchanges.add(10);
    counters(&first, 0).count_forwarded(1, 200);
    counters(&first, 1).exchanges.add(7);

    publisher.publish(plan(2, &[("b", &[3]), ("a", &[2, 4])]));
    let second = adopted(&mut subscriber);
    assert_eq!(counters(&second, 0).exchanges.get(), 7, "b is untouched");
    counters(&second, 1).exchanges.add(1);
    counters(&second, 1).count_forwarded(0, 204);
    counters(&first, 0).exchanges.add(100); // An exchange that ends under the plan it began with.

    for held in [Some(first), None] {
        let totals = publisher.service_totals(1);
        assert_eq!(totals.exchanges, 111);
        assert_eq!(totals.forwarded, [0, 2, 0, 0, 0]);
        let endpoints: Vec<_> = totals.endpoints.iter().map(|e| e.forwarded[1]).collect();
        assert_eq!(
            endpoints,
            [2, 0],
            "127.0.0.1:2 kept its count, 127.0.0.1:4 is new"
        );
        drop(held);
        publisher.retire();
    }
}

#[test]
fn backends_of_a_fan_out_keep_their_counters_by_name() {
    let of = |generation, ports: &[u16], is_fanned_out: bool| {
        let mut service = service("a", ports);
        let rules = crate::plan::FanoutRules {
            require: crate::plan::Require::All,
            status: 201,
            attempts_max: 1,
            backoff_max: std::time::Duration::ZERO,
            jitter: std::time::Duration::ZERO,
            body_bytes_max: 0,
            shard_legs_max: 1,
            shard_kept_bytes_max: 0,
            detached: false,
        };
        service.fanout = is_fanned_out.then_some(rules);
        let mut plan = plan(generation, &[]);
        plan.services = [Arc::new(service)].into();
        plan
    };
    let (mut publisher, mut subscriber) = door_of_one();
    publisher.publish(of(1, &[1, 2], false));
    let posted = adopted(&mut subscriber);
    assert!(
        counters(&posted, 0).backends.is_empty(),
        "nobody counts them"
    );
    publisher.publish(of(2, &[1, 2], true));
    let posted = adopted(&mut subscriber);
    counters(&posted, 0).backends[1].succeeded.add(5);
    publisher.publish(of(3, &[2, 3], true));
    let posted = adopted(&mut subscriber);
    counters(&posted, 0).backends[0].attempts.add(6);
    let backends = publisher.service_totals(0).backends;
    let counts = backends.iter().map(|it| (it.succeeded, it.attempts));
    assert_eq!(counts.collect::<Vec<_>>(), [(5, 6), (0, 0)]);
}

#[test]
fn a_plan_that_changes_only_what_is_known_of_endpoints_keeps_every_counter() {
    let (mut publisher, mut shard) = door_of_one();
    publisher.publish(plan(1, &[("a", &[1, 2])]));
    let first = adopted(&mut shard);
    let mut next = plan(2, &[]);
    let mut service = service("a", &[1, 2]);
    service.endpoints[0].standing = Standing::Ejected;
    service.endpoints[1].recoveries = 1;
    next.services = [Arc::new(service)].into();
    counters(&first, 0).endpoints[0].ejected.add(1);
    publisher.publish(next);
    let second = adopted(&mut shard);
    assert!(Arc::ptr_eq(
        &first.counters[0].services[0],
        &second.counters[0].services[0]
    ));
    let process = Process {
        version: "0.1.0",
        pid: 4711,
        started: std::time::SystemTime::UNIX_EPOCH,
        up: std::time::Duration::ZERO,
        driver: "epoll",
        reloads: Default::default(),
    };
    let text = publisher.report(process, Vec::new()).to_string();
    let line =
        "  endpoint 127.0.0.1:1   0 exchanges   ejected   faults 0   ejected by 1 of 1 shards";
    assert!(text.lines().any(|shown| shown == line), "{text}");
}

#[test]
fn what_a_service_counted_outlives_it() {
    let (mut publisher, mut subscriber) = door_of_one();
    publisher.publish(plan(1, &[("a", &[1])]));
    let first = adopted(&mut subscriber);
    counters(&first, 0).exchanges.add(3);
    publisher.publish(plan(2, &[]));
    adopted(&mut subscriber);
    counters(&first, 0).exchanges.add(2);
    assert_eq!(publisher.gone_totals().exchanges, 5);
    let watched = Arc::downgrade(&counters(&first, 0).endpoints[0]);
    drop(first);
    publisher.retire();
    assert_eq!(watched.strong_count(), 0, "its counters are freed");
    assert_eq!(publisher.gone_totals().exchanges, 5);

    publisher.publish(plan(3, &[("a", &[1])]));
    assert_eq!(publisher.service_totals(0).exchanges, 0, "it begins anew");
}

#[test]
fn notices_come_in_order_and_those_that_do_not_fit_are_counted() {
    let (mut publisher, mut subscribers) = door(2);
    let notice = |errno| Notice::AcceptFailed {
        listener: ListenerId(0),
        errno,
    };
    subscribers[1].notify(Notice::Panicked);
    for errno in 0..300 {
        subscribers[0].notify(notice(errno));
    }
    let taken: Vec<_> = publisher.notices().collect();
    let room = i32::try_from(NOTICES_MAX).expect("a small number");
    let expected = (0..room).map(|errno| (0, notice(errno)));
    let expected: Vec<_> = expected.chain([(1, Notice::Panicked)]).collect();
    assert_eq!(taken, expected);
    let dropped = publisher.shard_counters()[0].notices_dropped.get();
    assert_eq!(dropped, 300 - NOTICES_MAX as u64);
    subscribers[0].notify(notice(1));
    assert_eq!(publisher.notices().count(), 1, "there is room again");
}

#[test]
fn a_shard_that_is_started_anew_has_no_tunnel_open_under_any_plan() {
    let (mut publisher, mut subscribers) = door(2);
    let mut held = Vec::new();
    for (generation, services) in [
        (1, &[("a", &[1][..]), ("b", &[2])][..]),
        (2, &[("a", &[1, 3])]),
    ] {
        publisher.publish(plan(generation, services));
        for subscriber in &mut subscribers {
            let posted = adopted(subscriber);
            for counters in &posted.counters[subscriber.shard()].services {
                counters.tunnels.add(1);
                counters.tunnels_open.add(1);
            }
            held.push(posted);
        }
    }
    let open = |publisher: &Publisher| {
        let gone = publisher.gone_totals();
        (publisher.service_totals(0).tunnels_open, gone.tunnels_open)
    };
    assert_eq!(open(&publisher), (4, 2));
    drop(subscribers.remove(0));
    publisher.resubscribe(0);
    assert_eq!(open(&publisher), (2, 1), "those of the other shard");
    assert_eq!(publisher.service_totals(0).tunnels, 4);
}

#[test]
fn a_shard_that_is_started_anew_keeps_its_counts_and_gets_the_plan_again() {
    let (mut publisher, mut subscriber) = door_of_one();
    publisher.publish(plan(1, &[("a", &[1])]));
    let posted = adopted(&mut subscriber);
    subscriber.counters().clients_open.add(4);
    subscriber.counters().exchanges.add(9);
    counters(&posted, 0).exchanges.add(9);
    drop((posted, subscriber));

    let mut subscriber = publisher.resubscribe(0);
    assert!(!publisher.adopted_by_all(1));
    let own = &publisher.shard_counters()[0];
    let seen = (
        own.clients_open.get(),
        own.exchanges.get(),
        own.restarts.get(),
    );
    assert_eq!(seen, (0, 9, 1));
    let posted = adopted(&mut subscriber);
    assert_eq!(counters(&posted, 0).exchanges.get(), 9);
    assert!(publisher.adopted_by_all(1));
    subscriber.notify(Notice::Panicked);
    assert_eq!(publisher.notices().count(), 1);
}

#[test]
fn threads_that_count_through_many_reloads_lose_nothing() {
    const RELOADS: u64 = 300;
    let (mut publisher, subscribers) = door(3);
    let over = AtomicBool::new(false);
    let counted: u64 = thread::scope(|scope| {
        let shards: Vec<_> = subscribers
            .into_iter()
            .map(|subscriber| scope.spawn(|| count_until(subscriber, &over)))
            .collect();
        for generation in 1..=RELOADS {
            let ports = [1, 2 + (generation % 2) as u16];
            publisher.publish(plan(generation, &[("a", &ports)]));
            publisher.retire();
        }
        while !publisher.adopted_by_all(RELOADS) {
            thread::yield_now();
        }
        over.store(true, Ordering::Relaxed);
        let counts = shards
            .into_iter()
            .map(|shard| shard.join().expect("no panic"));
        counts.sum()
    });
    publisher.retire();
    assert_eq!(publisher.service_totals(0).exchanges, counted);
    let shared = Arc::strong_count(publisher.current().expect("a plan is posted"));
    assert_eq!(shared, 2, "the shelf and the cell");
}

/// A shard that counts one exchange a turn, each under the plan before the newest.
fn count_until(mut subscriber: Subscriber, over: &AtomicBool) -> u64 {
    let mut plans: Vec<Arc<Posted>> = Vec::new();
    let mut counted = 0;
    while !over.load(Ordering::Relaxed) {
        if let Some(posted) = subscriber.poll() {
            let generation = posted.plan.generation;
            if let Some(last) = plans.last() {
                assert!(last.plan.generation < generation);
            }
            plans.push(posted);
            plans.drain(..plans.len().saturating_sub(2));
            subscriber.adopt(generation);
        }
        if let Some(posted) = plans.first() {
            posted.counters[subscriber.shard()].services[0]
                .exchanges
                .add(1);
            counted += 1;
        }
    }
    counted
}

/// Lays `times` down as the totals of a service and of its endpoint at `endpoint`.
fn lay_down(counters: &ServiceCounters, endpoint: usize, times: usize) {
    let (mut service, mut of_endpoint) = (Recorder::of_service(), Recorder::of_endpoint());
    for _ in 0..times {
        service.record(Phase::Total, 1_000);
        of_endpoint.record(Phase::Total, 1_000);
    }
    counters.handed.put(&mut service);
    counters.endpoints[endpoint].handed.put(&mut of_endpoint);
}

/// How many totals the first service has, and each of its endpoints.
fn totals(publisher: &Publisher) -> (u64, Vec<u64>) {
    let process = Process {
        version: "0.1.0",
        pid: 1,
        started: std::time::SystemTime::UNIX_EPOCH,
        up: std::time::Duration::ZERO,
        driver: "epoll",
        reloads: Default::default(),
    };
    let report = publisher.report(process, Vec::new());
    let count = |phases: &Phases| phases.histogram(Phase::Total).map_or(0, |all| all.len());
    let service = &report.services[0];
    let endpoints = service.endpoints.iter();
    (
        count(service.phases),
        endpoints.map(|endpoint| count(endpoint.phases)).collect(),
    )
}

#[test]
fn what_was_recorded_is_kept_when_the_endpoints_change() {
    let (mut publisher, mut subscriber) = door_of_one();
    publisher.publish(plan(1, &[("a", &[1, 2])]));
    let first = adopted(&mut subscriber);
    lay_down(counters(&first, 0), 0, 1);
    lay_down(counters(&first, 0), 1, 2);
    publisher.gather();
    assert_eq!(totals(&publisher), (3, vec![1, 2]));
    publisher.publish(plan(2, &[("a", &[2, 3])]));
    let second = adopted(&mut subscriber);
    // An exchange that began under the first plan ends, beside one of the second.
    lay_down(counters(&first, 0), 1, 4);
    lay_down(counters(&second, 0), 1, 8);
    publisher.gather();
    assert_eq!(totals(&publisher), (15, vec![6, 8]), "2 is kept, 3 is new");
    // What is laid down last is found when the plan that it belongs to is freed.
    lay_down(counters(&first, 0), 1, 16);
    drop(first);
    publisher.retire();
    publisher.gather();
    publisher.gather();
    assert_eq!(totals(&publisher), (31, vec![22, 8]));
}

#[test]
fn what_was_recorded_of_a_service_outlives_it() {
    let (mut publisher, mut subscriber) = door_of_one();
    publisher.publish(plan(1, &[("a", &[1])]));
    let first = adopted(&mut subscriber);
    lay_down(counters(&first, 0), 0, 1);
    publisher.gather();
    publisher.publish(plan(2, &[("b", &[1])]));
    adopted(&mut subscriber);
    lay_down(counters(&first, 0), 0, 2);
    publisher.gather();
    lay_down(counters(&first, 0), 0, 4);
    drop(first);
    publisher.retire();
    assert_eq!(totals(&publisher), (0, vec![0]), "of the new service");
    let gone = publisher.ledger.gone_phases().histogram(Phase::Total);
    assert_eq!(gone.map(|all| all.len()), Some(7));
}

#[test]
fn what_a_shard_had_laid_down_when_it_died_is_kept() {
    let (mut publisher, mut subscriber) = door_of_one();
    publisher.publish(plan(1, &[("a", &[1])]));
    let asked = publisher.ask_for_recorders();
    assert_eq!(subscriber.asked_for_recorders(), Some(asked));
    lay_down(counters(&adopted(&mut subscriber), 0), 0, 3);
    drop(subscriber);
    assert_eq!(publisher.late(asked), [0], "it died before it could say so");

    let mut subscriber = publisher.resubscribe(0);
    lay_down(counters(&adopted(&mut subscriber), 0), 0, 4);
    let asked = subscriber
        .asked_for_recorders()
        .expect("nobody has answered");
    subscriber.answer(asked);
    assert!(publisher.late(asked).is_empty());
    assert_eq!(
        subscriber.asked_for_recorders(),
        None,
        "asked once, answered once"
    );
    publisher.gather();
    assert_eq!(totals(&publisher), (7, vec![7]));
}

#[test]
fn the_report_names_services_and_endpoints_of_the_newest_plan() {
    let (mut publisher, mut subscriber) = door_of_one();
    publisher.publish(plan(1, &[("a", &[1, 2])]));
    let posted = adopted(&mut subscriber);
    subscriber.counters().exchanges.add(1);
    counters(&posted, 0).exchanges.add(1);
    counters(&posted, 0).endpoints[1].exchanges.add(1);
    counters(&posted, 0).count_forwarded(1, 200);
    let process = Process {
        version: "0.1.0",
        pid: 1,
        started: std::time::SystemTime::UNIX_EPOCH,
        up: std::time::Duration::ZERO,
        driver: "epoll",
        reloads: Default::default(),
    };
    let text = publisher.report(process, Vec::new()).to_string();
    let expected = "\
ringmain 0.1.0  pid 1  up 0s  generation 1  epoll  1 shards  since start
service a   1 exchanges   forwarded 1 (2xx 1)   own answers 0
  endpoint 127.0.0.1:1   0 exchanges   unknown   faults 0
  endpoint 127.0.0.1:2   1 exchanges   unknown   faults 0
no service         0 exchanges   own answers 0
shard  connections    exchanges   share   busy
0                0            1  100.0%      -
";
    assert_eq!(text, expected);
}
