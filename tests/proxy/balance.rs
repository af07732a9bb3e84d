//! Requests spread over the endpoints by the service's policy and weights.

use crate::support::{Driver, Served, Setup, on_both_drivers};

on_both_drivers! {
    round_robin_takes_turns
    random_uses_every_endpoint
    weights_are_shares
    requests_of_one_key_go_to_one_endpoint
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
