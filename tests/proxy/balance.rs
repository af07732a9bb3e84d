//! Requests spread over the endpoints by the service's policy and weights.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use crate::support::{Driver, Proxy, Served, Setup, ok, on_both_drivers};

on_both_drivers! {
    round_robin_takes_turns
    random_uses_every_endpoint
    weights_are_shares
    requests_of_one_key_go_to_one_endpoint
    an_endpoint_that_is_busy_is_passed_over_where_that_is_weighed
    a_path_stays_at_its_endpoint_on_every_shard_of_every_instance
    only_paths_of_an_endpoint_that_refuses_move_and_always_to_the_same
}

fn three() -> [Served; 3] {
    ["a", "b", "c"].map(Served::saying)
}

fn round_robin_takes_turns(driver: Driver) {
    let origins = three();
    let backends: Vec<_> = origins.iter().map(Served::address).collect();
    let keys = "policy = \"round_robin\"";
    let proxy = Setup::new(driver).service("a", &backends, keys).start();
    let mut client = proxy.client();
    let turns: Vec<_> = (0..30).map(|_| client.get("a.test", "/").text()).collect();
    for turn in turns.windows(4) {
        assert_eq!(turn[0], turn[3], "{turns:?}");
        assert!(turn[0] != turn[1] && turn[1] != turn[2], "{turns:?}");
    }
    let report = proxy.report_where(|report| report.exchanges() == 30);
    for backend in &backends {
        let counted = &report.services["a"].endpoints;
        assert_eq!(counted.get(&backend.to_string()), Some(&10), "{counted:?}");
    }
}

fn random_uses_every_endpoint(driver: Driver) {
    let origins = three();
    let backends: Vec<_> = origins.iter().map(Served::address).collect();
    let proxy = Setup::new(driver).service("a", &backends, "").start();
    let mut client = proxy.client();
    for _ in 0..300 {
        assert_eq!(client.get("a.test", "/").status(), 200);
    }
    for origin in &origins {
        // Of 300 fair picks among three, fewer than 60 come once in 10^6 runs.
        assert!(60 <= origin.requests(), "{} of 300", origin.requests());
    }
}

fn weights_are_shares(driver: Driver) {
    let origins = three();
    let backends: Vec<_> = origins.iter().map(Served::address).collect();
    let proxy = Setup::new(driver)
        .tables(&format!(
            "[[service]]\nname = \"a\"\ndomains = [\"a.test\"]\npolicy = \"round_robin\"\n\
             backends = [{{ address = \"{}\", weight = 3 }}, \"{}\"]",
            backends[0], backends[1]
        ))
        .start();
    let mut client = proxy.client();
    for _ in 0..40 {
        assert_eq!(client.get("a.test", "/").status(), 200);
    }
    let shares: Vec<_> = origins.iter().map(Served::requests).collect();
    assert_eq!(shares, [30, 10, 0]);
}

fn requests_of_one_key_go_to_one_endpoint(driver: Driver) {
    let request = |key: &str, number: usize| match key {
        "path" => format!("GET /{number}?x HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        "cookie:id" => {
            format!("GET / HTTP/1.1\r\nHost: a.test\r\nCookie: a=b; id={number}\r\n\r\n")
        }
        _ => format!("GET / HTTP/1.1\r\nHost: a.test\r\nx-user: {number}\r\n\r\n"),
    };
    for key in ["path", "cookie:id", "field:X-User", "client"] {
        let origins = three();
        let backends: Vec<_> = origins.iter().map(Served::address).collect();
        let keys = format!("policy = \"hash\"\nhash_key = \"{key}\"");
        let proxy = Setup::new(driver).service("a", &backends, &keys).start();
        let mut client = proxy.client();
        for number in 0..40 {
            let answers = [(); 2].map(|()| {
                client.send(request(key, number));
                client.answer().text()
            });
            assert_eq!(answers[0], answers[1], "{key} {number}");
        }
        // That forty keys miss one of three endpoints comes three times in ten million.
        let used = origins.iter().filter(|origin| 0 < origin.requests());
        assert_eq!(used.count(), if key == "client" { 1 } else { 3 }, "{key}");
    }
}

/// Answers with `name`; `/held` waits until the other end of the channel has taken `name`, twice.
fn holding(name: &'static str) -> (Served, Receiver<&'static str>) {
    let (tell, told) = sync_channel(0);
    let served = Served::new(move |request| {
        if request.head.start.starts_with("GET /held ") {
            // Without a test that listens any more there is nothing to wait for.
            let _ = tell.send(name).and_then(|()| tell.send(name));
        }
        ok(name)
    });
    (served, told)
}

fn an_endpoint_that_is_busy_is_passed_over_where_that_is_weighed(driver: Driver) {
    for policy in ["least_connections", "p2c", "ewma"] {
        let (origins, told): (Vec<_>, Vec<_>) = ["a", "b"].map(holding).into_iter().unzip();
        let backends: Vec<_> = origins.iter().map(Served::address).collect();
        let keys = format!("policy = \"{policy}\"");
        let proxy = Setup::new(driver).service("a", &backends, &keys).start();
        let mut held = proxy.client();
        held.send("GET /held HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let is_there = |told: &&Receiver<_>| told.recv_timeout(Duration::from_millis(50)).is_ok();
        let busy = told.iter().cycle().take(100).find(is_there);
        let busy = busy.expect("one of them has it");
        let mut client = proxy.client();
        let free: Vec<_> = (0..30).map(|_| client.get("a.test", "/").text()).collect();
        busy.recv().expect("it goes on");
        let busy = held.answer().text();
        assert!(free.iter().all(|name| *name != busy), "{policy}: {free:?}");
    }
}

/// Who answers for each of forty paths.
#[track_caller]
fn names(proxy: &Proxy) -> Vec<String> {
    let path = |number| format!("/{number}?{number}");
    let get = |number| proxy.client().get("a.test", &path(number));
    (0..40).map(|number| get(number).text()).collect()
}

fn hashing(driver: Driver, backends: &[SocketAddr]) -> Setup {
    let keys = "policy = \"hash\"\nhash_key = \"path\"\n\
                [service.eject]\nconsecutive_faults = 0";
    Setup::new(driver).service("a", backends, keys)
}

fn a_path_stays_at_its_endpoint_on_every_shard_of_every_instance(driver: Driver) {
    let origins = three();
    let mut backends: Vec<_> = origins.iter().map(Served::address).collect();
    let proxy = hashing(driver, &backends).shards(2).start();
    let first = names(&proxy);
    for name in ["a", "b", "c"] {
        // Two thirds to the power of 40: one in ten million.
        assert!(first.iter().any(|found| found == name), "{first:?}");
    }
    assert_eq!(names(&proxy), first);
    backends.reverse();
    let other = hashing(driver, &backends).start();
    assert_eq!(names(&other), first);
}

fn only_paths_of_an_endpoint_that_refuses_move_and_always_to_the_same(driver: Driver) {
    let [a, b, c] = three();
    let backends = [&a, &b, &c].map(Served::address);
    let all = names(&hashing(driver, &backends).start());
    drop(c);
    let proxy = hashing(driver, &backends).start();
    let without = names(&proxy);
    for (before, after) in all.iter().zip(&without) {
        assert!(
            before == after || before == "c" && after != "c",
            "{all:?} {without:?}"
        );
    }
    assert_eq!(names(&proxy), without);
}
