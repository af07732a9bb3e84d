//! Endpoints that a shard takes out by what it sees of their exchanges, and how they come back.

#![expect(
    clippy::disallowed_types,
    reason = "an endpoint's threads are no shards"
)]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{DEADLINE, Driver, Message, Proxy, Served, Setup, Wire, ok, on_both_drivers};

on_both_drivers! {
    so_many_faults_in_a_row_eject
    an_answer_in_between_begins_the_row_anew
    an_answer_that_breaks_off_is_none
    an_answer_that_is_tried_again_is_none
    a_service_that_never_ejects_goes_on
    an_ejection_ends_and_the_next_one_is_twice_as_long
    no_more_than_ratio_max_are_out
    with_none_left_all_are_used
    an_endpoint_that_became_slow_is_ejected
    a_probe_that_succeeds_after_a_failed_one_readmits_at_once
    each_shard_ejects_for_itself
    more_ejections_at_once_than_notices_leave_nothing_out
}

/// What an endpoint says that fails every exchange.
const NONSENSE: &[u8] = b"nonsense\r\n\r\n";
/// A test that panics with a lock in its hands has failed anyway.
const UNBROKEN: &str = "nobody panics with the lock";

/// An endpoint whose exchanges fail for as long as the test wants it; its probes are another
/// matter.
struct Moody {
    served: Served,
    is_bad: Arc<AtomicBool>,
    is_live: Arc<AtomicBool>,
    /// When exchanges came to it.
    times: Arc<Mutex<Vec<Instant>>>,
}

impl Moody {
    fn new(name: &str, is_bad: bool) -> Self {
        let is_bad = Arc::new(AtomicBool::new(is_bad));
        let is_live = Arc::new(AtomicBool::new(true));
        let times: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let (bad, live, asked) = (is_bad.clone(), is_live.clone(), times.clone());
        let good = ok(name);
        let answer = move |request: &Message| -> Vec<u8> {
            let (is_probe, is_live) = (is_probe(request), live.load(Ordering::Relaxed));
            if is_probe && !is_live {
                return b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".to_vec();
            }
            if !is_probe {
                asked.lock().expect(UNBROKEN).push(now());
                if bad.load(Ordering::Relaxed) {
                    return NONSENSE.to_vec();
                }
            }
            good.clone()
        };
        Self {
            served: Served::new(answer),
            is_bad,
            is_live,
            times,
        }
    }

    fn good(name: &str) -> Self {
        Self::new(name, false)
    }

    fn bad(name: &str) -> Self {
        Self::new(name, true)
    }

    fn address(&self) -> SocketAddr {
        self.served.address()
    }

    fn becomes(&self, is_bad: bool) {
        self.is_bad.store(is_bad, Ordering::Relaxed);
    }

    fn exchanges(&self) -> usize {
        self.times.lock().expect(UNBROKEN).len()
    }
}

fn is_probe(request: &Message) -> bool {
    request.head.start.starts_with("GET /live ")
}

/// The service `a` on these endpoints in turn, each try its exchange's only one, with these keys of
/// `[service.eject]` and further tables.
fn setup(driver: Driver, endpoints: &[&Moody], keys: &str, tables: &str) -> Setup {
    let addresses: Vec<_> = endpoints
        .iter()
        .map(|endpoint| endpoint.address())
        .collect();
    let keys = format!(
        "policy = \"round_robin\"\n[service.retry]\nattempts_max = 0\n\
         [service.eject]\n{keys}\n{tables}"
    );
    Setup::new(driver)
        .admin("127.0.0.1:0")
        .service("a", &addresses, &keys)
        .expects_line("ejected")
        .expects_line("unhealthy")
        .expects_line("endpoints are used that are not in")
}

/// Sends one request after the other; says how many of them failed.
fn failed_of(client: &mut Wire, requests: usize) -> usize {
    let statuses = (0..requests).map(|_| client.get("a.test", "/").status());
    statuses.filter(|status| *status == 502).count()
}

/// Sends requests until `over` says that it was enough.
#[track_caller]
fn ask_until(client: &mut Wire, mut over: impl FnMut() -> bool) {
    let begun = now();
    while !over() {
        client.get("a.test", "/");
        assert!(begun.elapsed() < 3 * DEADLINE, "it never comes");
    }
}

#[expect(clippy::disallowed_methods, reason = "a peer measures")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the delay is what is measured")]
fn pause(delay: Duration) {
    thread::sleep(delay);
}

/// What the report says of the service.
#[track_caller]
fn service(proxy: &Proxy) -> Value {
    let answer = proxy.admin_client().get("localhost", "/report?format=json");
    let mut report: Value = serde_json::from_slice(&answer.body).expect("it is JSON");
    report["services"][0].take()
}

/// What the report says of its endpoint at `place`.
#[track_caller]
fn endpoint(proxy: &Proxy, place: usize) -> Value {
    service(proxy)["endpoints"][place].take()
}

/// How often the endpoint was ejected for faults and for latency, and by how many shards it is now.
#[track_caller]
fn ejections(proxy: &Proxy, place: usize) -> [u64; 3] {
    let endpoint = endpoint(proxy, place);
    let ejections = &endpoint["ejections"];
    let numbers = [
        &ejections["consecutive_faults"],
        &ejections["latency"],
        &endpoint["ejected_by_shards"],
    ];
    numbers.map(|number| number.as_u64().expect("it is a number"))
}

/// How many lines of the log hold both.
fn lines(proxy: &Proxy, text: &str, other: &str) -> usize {
    let lines = proxy.log_lines().into_iter();
    lines
        .filter(|line| line.contains(text) && line.contains(other))
        .count()
}

fn so_many_faults_in_a_row_eject(driver: Driver) {
    let (good, bad) = (Moody::good("a"), Moody::bad("b"));
    let keys = "consecutive_faults = 3\nduration = \"1h\"";
    let proxy = setup(driver, &[&good, &bad], keys, "").start();
    assert_eq!(failed_of(&mut proxy.client(), 60), 3);
    assert_eq!([good.exchanges(), bad.exchanges()], [57, 3]);
    assert_eq!(ejections(&proxy, 0), [0, 0, 0]);
    assert_eq!(ejections(&proxy, 1), [1, 0, 1]);
    let shown = proxy.admin_client().get("localhost", "/report").text();
    let said = "faults 3   ejected by 1 of 1 shards   ejections consecutive_faults 1";
    assert!(shown.contains(said), "{shown}");
    let address = bad.address().to_string();
    proxy.log_line("ejected");
    assert_eq!(
        lines(&proxy, "ejected", &address),
        1,
        "{:#?}",
        proxy.log_lines()
    );
}

fn an_answer_in_between_begins_the_row_anew(driver: Driver) {
    let (good, moody) = (Moody::good("a"), Moody::bad("b"));
    let keys = "consecutive_faults = 3\nduration = \"1h\"";
    let proxy = setup(driver, &[&good, &moody], keys, "").start();
    let mut client = proxy.client();
    for _ in 0..5 {
        // In turn: two requests are one of each.
        moody.becomes(true);
        assert_eq!(failed_of(&mut client, 4), 2);
        moody.becomes(false);
        assert_eq!(failed_of(&mut client, 2), 0);
    }
    assert_eq!(ejections(&proxy, 1), [0, 0, 0]);
}

fn an_answer_that_breaks_off_is_none(driver: Driver) {
    let broken = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb?";
    let (good, bad) = (Served::saying("a"), Served::new(|_| broken.to_vec()));
    let keys = "policy = \"round_robin\"\n\
                [service.eject]\nconsecutive_faults = 3\nduration = \"1h\"";
    let proxy = Setup::new(driver)
        .admin("127.0.0.1:0")
        .service("a", &[good.address(), bad.address()], keys)
        .expects_line("ejected")
        .start();
    for _ in 0..20 {
        let mut client = proxy.client();
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
        client.rest();
    }
    assert_eq!([good.requests(), bad.requests()], [17, 3]);
    assert_eq!(ejections(&proxy, 1), [1, 0, 1]);
}

fn an_answer_that_is_tried_again_is_none(driver: Driver) {
    let no = b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n";
    let (good, bad) = (Served::saying("a"), Served::new(|_| no.to_vec()));
    let keys = "policy = \"round_robin\"\n[service.retry]\nstatuses = [503]\n\
                [service.eject]\nconsecutive_faults = 3\nduration = \"1h\"";
    let proxy = Setup::new(driver)
        .admin("127.0.0.1:0")
        .service("a", &[good.address(), bad.address()], keys)
        .expects_line("ejected")
        .start();
    assert_eq!(failed_of(&mut proxy.client(), 20), 0);
    assert_eq!([good.requests(), bad.requests()], [20, 3]);
    assert_eq!(ejections(&proxy, 1), [1, 0, 1]);
    let service = service(&proxy);
    assert_eq!(
        [&service["retries"], &service["retries_by_reason"]["status"]],
        [3, 3]
    );
}

fn a_service_that_never_ejects_goes_on(driver: Driver) {
    let (good, bad) = (Moody::good("a"), Moody::bad("b"));
    let proxy = setup(driver, &[&good, &bad], "consecutive_faults = 0", "").start();
    assert_eq!(failed_of(&mut proxy.client(), 60), 30);
    assert_eq!(ejections(&proxy, 1), [0, 0, 0]);
}

fn an_ejection_ends_and_the_next_one_is_twice_as_long(driver: Driver) {
    let (good, bad) = (Moody::good("a"), Moody::bad("b"));
    let keys = "consecutive_faults = 1\nduration = \"1s\"";
    let proxy = setup(driver, &[&good, &bad], keys, "").start();
    ask_until(&mut proxy.client(), || 3 <= bad.exchanges());
    let times = bad.times.lock().expect(UNBROKEN).clone();
    assert!(Duration::from_secs(1) <= times[1] - times[0], "{times:?}");
    assert!(Duration::from_secs(2) <= times[2] - times[1], "{times:?}");
    assert_eq!(ejections(&proxy, 1), [3, 0, 1]);
    proxy.log_line("readmitted");
}

fn no_more_than_ratio_max_are_out(driver: Driver) {
    let endpoints = ["a", "b", "c", "d"].map(Moody::bad);
    let endpoints: Vec<_> = endpoints.iter().collect();
    let keys = "consecutive_faults = 2\nduration = \"1h\"\nratio_max = 0.5";
    let proxy = setup(driver, &endpoints, keys, "").start();
    assert_eq!(failed_of(&mut proxy.client(), 40), 40);
    let out = (0..4).filter(|place| ejections(&proxy, *place)[2] == 1);
    assert_eq!(out.count(), 2);
    assert_eq!(service(&proxy)["failed_open"], 0);
    // The two that are left share what comes.
    let exchanges: Vec<_> = endpoints
        .iter()
        .map(|endpoint| endpoint.exchanges())
        .collect();
    assert_eq!(exchanges.iter().filter(|count| **count == 2).count(), 2);
    assert_eq!(exchanges.iter().sum::<usize>(), 40);
}

fn with_none_left_all_are_used(driver: Driver) {
    let endpoints = ["a", "b"].map(Moody::bad);
    let keys = "consecutive_faults = 2\nduration = \"1h\"\nratio_max = 1.0";
    let proxy = setup(driver, &endpoints.each_ref(), keys, "").start();
    let mut client = proxy.client();
    assert_eq!(failed_of(&mut client, 4), 4);
    assert_eq!([0, 1].map(|place| ejections(&proxy, place)), [[1, 0, 1]; 2]);
    assert_eq!(failed_of(&mut client, 40), 40);
    for endpoint in &endpoints {
        assert!(2 < endpoint.exchanges(), "{}", endpoint.exchanges());
        endpoint.becomes(false);
    }
    assert_eq!(failed_of(&mut client, 10), 0);
    assert_eq!(service(&proxy)["failed_open"], 50);
    let report = proxy.admin_client().get("localhost", "/report").text();
    assert!(report.contains("failed open 50"), "{report}");
}

fn an_endpoint_that_became_slow_is_ejected(driver: Driver) {
    // A millisecond is usual, so that what a busy machine adds is not slow.
    let usual = Duration::from_millis(1);
    let quick = Served::new(move |_| {
        pause(usual);
        ok("a")
    });
    // Each fiftieth of its answers is late, so that many come in the ten seconds that count.
    let is_slow = Arc::new(AtomicBool::new(false));
    let (slow, turn) = (is_slow.clone(), AtomicU32::new(1));
    let slowed = Served::new(move |_| {
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        let is_late = slow.load(Ordering::Relaxed) && turn.is_multiple_of(50);
        pause(if is_late { 1_000 * usual } else { usual });
        ok("b")
    });
    let keys =
        "policy = \"round_robin\"\n[service.eject]\nlatency_factor = 200.0\nduration = \"1h\"";
    let proxy = Setup::new(driver)
        .admin("127.0.0.1:0")
        .service("a", &[quick.address(), slowed.address()], keys)
        .expects_line("ejected")
        .start();
    let mut client = proxy.client();
    assert_eq!(failed_of(&mut client, 400), 0);
    assert_eq!([0, 1].map(|place| ejections(&proxy, place)), [[0; 3]; 2]);
    is_slow.store(true, Ordering::Relaxed);
    let mut asked = 0;
    ask_until(&mut client, || {
        asked += 1;
        asked % 100 == 0 && ejections(&proxy, 1)[1] == 1
    });
    assert_eq!(ejections(&proxy, 0), [0, 0, 0]);
    assert_eq!(ejections(&proxy, 1), [0, 1, 1]);
    assert!(proxy.log_line("ejected").contains("latency"));
}

fn a_probe_that_succeeds_after_a_failed_one_readmits_at_once(driver: Driver) {
    let (good, moody) = (Moody::good("a"), Moody::bad("b"));
    let keys = "consecutive_faults = 1\nduration = \"1h\"";
    let probe = "[service.probe]\ninterval = \"100ms\"\ninterval_failing = \"100ms\"";
    let proxy = setup(driver, &[&good, &moody], keys, probe).start();
    let mut client = proxy.client();
    ask_until(&mut client, || moody.exchanges() == 1);
    // Its probes say that it is well; that changes nothing.
    let standing = |expected: &str| endpoint(&proxy, 1)["standing"] == expected;
    ask_until(&mut client, || ejections(&proxy, 1) == [1, 0, 1]);
    moody.is_live.store(false, Ordering::Relaxed);
    ask_until(&mut client, || standing("unhealthy"));
    assert_eq!(moody.exchanges(), 1);
    moody.becomes(false);
    moody.is_live.store(true, Ordering::Relaxed);
    ask_until(&mut client, || standing("healthy") && 2 < moody.exchanges());
    assert_eq!(ejections(&proxy, 1), [1, 0, 0]);
    proxy.log_line("readmitted");
}

fn each_shard_ejects_for_itself(driver: Driver) {
    let (good, bad) = (Moody::good("a"), Moody::bad("b"));
    let keys = "consecutive_faults = 2\nduration = \"1h\"";
    let proxy = setup(driver, &[&good, &bad], keys, "").shards(3).start();
    // All its requests come to one shard, which is one of three: most have not ejected.
    let mut client = proxy.client();
    assert_eq!(failed_of(&mut client, 20), 2);
    assert_eq!(ejections(&proxy, 1), [1, 0, 1]);
    assert_eq!(endpoint(&proxy, 1)["standing"], "unknown");
    let shown = proxy.admin_client().get("localhost", "/report").text();
    assert!(shown.contains("ejected by 1 of 3 shards"), "{shown}");
    // With most shards it is out everywhere.
    let mut failed = 2;
    let begun = now();
    while endpoint(&proxy, 1)["standing"] != "ejected" {
        failed += failed_of(&mut proxy.client(), 10);
        assert!(
            begun.elapsed() < 3 * DEADLINE,
            "never do most shards eject it"
        );
    }
    assert!((4..=6).contains(&failed), "{failed}");
    assert_eq!(failed_of(&mut proxy.client(), 20), 0);
}

/// Hundreds at once are more than control hears of: a ring holds 256 notices.
fn more_ejections_at_once_than_notices_leave_nothing_out(driver: Driver) {
    // Nobody listens there: of 127/8 the test's own endpoints use one address.
    let address = |place: u16| SocketAddr::from(([127, 9, (place >> 8) as u8, place as u8], 9));
    let addresses: Vec<_> = (1..=600).map(address).collect();
    let proxy = Setup::new(driver)
        .admin("127.0.0.1:0")
        .service(
            "a",
            &addresses,
            "policy = \"round_robin\"\n[service.retry]\nattempts_max = 10\n\
             [service.eject]\nconsecutive_faults = 1\nduration = \"1s\"\nratio_max = 1.0",
        )
        .expects_line("ejected")
        .expects_line("notices were dropped")
        .expects_line("endpoints are used that are not in")
        .start();
    let mut clients: Vec<_> = (0..60).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    }
    let begun = now();
    loop {
        pause(Duration::from_millis(100));
        let service = service(&proxy);
        let endpoints = service["endpoints"].as_array().expect("it is a list");
        let are = |is_so: fn(&Value) -> bool| endpoints.iter().all(is_so);
        let tried = are(|endpoint| endpoint["ejections"]["consecutive_faults"] != 0);
        if tried && are(|endpoint| endpoint["standing"] == "unknown") {
            return;
        }
        assert!(begun.elapsed() < 3 * DEADLINE, "some stay out: {service}");
    }
}
