//! Requests spread over the endpoints by the service's policy and weights.

use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use crate::support::{Driver, Served, Setup, ok, on_both_drivers};

on_both_drivers! {
    round_robin_takes_turns
    random_uses_every_endpoint
    weights_are_shares
    an_endpoint_that_is_busy_is_passed_over_where_that_is_weighed
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
