//! docs/PHASES.md, a test a row: which phases an exchange on each path records, for its service and
//! for the endpoints of its tries.

use std::net::SocketAddr;

use crate::support::{
    Driver, GET, Origin, POST, Phases, Proxy, Report, Setup, Wire, ok, on_both_drivers,
};

on_both_drivers! {
    a_fresh_connection_and_a_pooled_one
    a_request_with_a_body
    an_answer_before_the_request_has_ended
    an_answer_with_a_body
    interim_responses
    a_further_try
    a_replay
    a_connect_that_is_refused
    an_answer_of_ringmains_own
    a_request_of_no_service
    a_client_that_is_gone
    an_answer_that_is_cut_short
    the_next_request_is_already_here
    an_upgrade
}

/// A request whose body has ten bytes.
const UPLOAD: &str = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n";

/// How often each phase was recorded: `client_receive upstream_connect upstream_send upstream_wait
/// upstream_receive client_send own total`.
type Counts = [u64; 8];

const LABELS: [&str; 8] = [
    "client_receive",
    "upstream_connect",
    "upstream_send",
    "upstream_wait",
    "upstream_receive",
    "client_send",
    "own",
    "total",
];

/// What was recorded of the service `a` once `exchanges` have begun there.
#[track_caller]
fn report_of(proxy: &Proxy, exchanges: u64) -> Report {
    proxy.report_where(|report| report.services["a"].exchanges == exchanges)
}

/// Holds what was recorded of the service `a`, and of its endpoints, all of the second's counts
/// that an endpoint has.
#[track_caller]
fn check(report: &Report, service: Counts, endpoints: &[(SocketAddr, [u64; 5])]) {
    let row = &report.services["a"];
    let count = |phases: &Phases, label| phases.get(label).map_or(0, |times| times.count);
    let counted = LABELS.map(|label| count(&row.phases, label));
    assert_eq!(counted, service, "{LABELS:?} {report:#?}");
    for (address, expected) in endpoints {
        let phases = row.endpoint_phases.get(&address.to_string());
        let phases = &phases.cloned().unwrap_or_default();
        let [_, connect, send, wait, receive, _, _, total] = LABELS;
        let counted = [connect, send, wait, receive, total].map(|label| count(phases, label));
        assert_eq!(counted, *expected, "{address}: {report:#?}");
        for label in ["client_receive", "client_send", "own"] {
            assert_eq!(count(phases, label), 0, "{label} is the service's alone");
        }
    }
}

/// One exchange, alone: its parts are no longer than the whole.
#[track_caller]
fn check_parts(report: &Report) {
    let phases = &report.services["a"].phases;
    let total = phases["total"].max;
    for (label, times) in phases {
        // Three significant digits.
        let most = total + total / 500;
        assert!(times.max <= most, "{label}: {report:#?}");
    }
}

fn a_fresh_connection_and_a_pooled_one(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    upstream.send(ok("a"));
    client.answer();
    let report = report_of(&proxy, 1);
    check(&report, [1; 8], &[(origin.address(), [1; 5])]);
    check_parts(&report);
    client.send(GET);
    upstream.request();
    upstream.send(ok("a"));
    client.answer();
    let report = report_of(&proxy, 2);
    let pooled = [(origin.address(), [1, 2, 2, 2, 2])];
    check(&report, [2, 1, 2, 2, 2, 2, 2, 2], &pooled);
}

fn a_request_with_a_body(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    client.send(UPLOAD);
    let mut upstream = origin.accept();
    upstream.head();
    for part in ["01234", "56789"] {
        client.send(part);
        assert_eq!(upstream.take(5), part.as_bytes());
    }
    upstream.send(ok("a"));
    client.answer();
    let report = report_of(&proxy, 1);
    check(&report, [1; 8], &[(origin.address(), [1; 5])]);
    check_parts(&report);
    let phases = &report.services["a"].phases;
    // The second part came after the first had gone up.
    assert!(0 < phases["client_receive"].max.as_nanos(), "{report:#?}");
    assert!(0 < phases["upstream_send"].max.as_nanos(), "{report:#?}");
}

fn an_answer_before_the_request_has_ended(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let begin = |client: &mut Wire| {
        client.send(UPLOAD);
        client.send("01234");
        let mut upstream = origin.accept();
        upstream.head();
        upstream.take(5);
        upstream.send(ok("a"));
        assert_eq!(client.answer().text(), "a");
        upstream
    };
    let mut client = proxy.client();
    let mut upstream = begin(&mut client);
    client.send("56789");
    assert_eq!(upstream.take(5), b"56789");
    let report = proxy.report_where(|report| {
        let phases = &report.services["a"].phases;
        phases.contains_key("total")
    });
    check(&report, [1; 8], &[(origin.address(), [1; 5])]);
    let wait = report.services["a"].phases["upstream_wait"];
    assert!(wait.max.is_zero(), "{report:#?}");

    // The rest of this one never comes.
    let mut client = proxy.client();
    let _upstream = begin(&mut client);
    client.cut();
    let report = proxy.report_where(|report| {
        let phases = &report.services["a"].phases;
        phases["total"].count == 2
    });
    let half = [(origin.address(), [2, 1, 2, 2, 2])];
    check(&report, [1, 2, 1, 2, 2, 2, 2, 2], &half);
}

fn an_answer_with_a_body(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234");
    client.head();
    assert_eq!(client.take(5), b"01234");
    upstream.send("56789");
    assert_eq!(client.take(5), b"56789");
    let report = report_of(&proxy, 1);
    check(&report, [1; 8], &[(origin.address(), [1; 5])]);
    check_parts(&report);
    let phases = &report.services["a"].phases;
    assert!(0 < phases["upstream_receive"].max.as_nanos(), "{report:#?}");
    assert!(0 < phases["client_send"].max.as_nanos(), "{report:#?}");
}

fn interim_responses(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    upstream.send("HTTP/1.1 103 Early Hints\r\n\r\n");
    assert_eq!(client.head().status(), 103);
    upstream.send(ok("a"));
    client.answer();
    let report = report_of(&proxy, 1);
    check(&report, [1; 8], &[(origin.address(), [1; 5])]);
    let phases = &report.services["a"].phases;
    // The final response came in one piece, after the client had the interim one.
    assert!(phases["upstream_receive"].max.is_zero(), "{report:#?}");
    assert!(0 < phases["upstream_wait"].max.as_nanos(), "{report:#?}");
}

fn a_further_try(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    drop(origin.gets(&mut client, GET));
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send(ok("a"));
    client.answer();
    check(
        &report_of(&proxy, 1),
        [1, 2, 2, 1, 1, 1, 1, 1],
        &[(origin.address(), [2, 2, 1, 1, 1])],
    );
}

fn a_replay(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    upstream.send(ok("a"));
    client.answer();
    client.send(GET);
    upstream.request();
    drop(upstream);
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send(ok("a"));
    client.answer();
    check(
        &report_of(&proxy, 2),
        [2, 2, 3, 2, 2, 2, 2, 2],
        &[(origin.address(), [2, 3, 2, 2, 2])],
    );
}

fn a_connect_that_is_refused(driver: Driver) {
    let refused = Origin::refused();
    let proxy = driver.proxy_for(refused);
    let mut client = proxy.client();
    assert_eq!(client.get("a.test", "/").status(), 502);
    let report = report_of(&proxy, 1);
    check(&report, [1, 0, 0, 0, 0, 1, 1, 1], &[(refused, [0; 5])]);
}

fn an_answer_of_ringmains_own(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    drop(origin.gets(&mut client, POST));
    assert_eq!(client.answer().status(), 502);
    check(
        &report_of(&proxy, 1),
        [1, 1, 1, 0, 0, 1, 1, 1],
        &[(origin.address(), [1, 1, 0, 0, 0])],
    );
    // A request that is not read to its end.
    let mut client = proxy.client();
    client.send(UPLOAD);
    let mut upstream = origin.accept();
    upstream.head();
    upstream.cut();
    assert_eq!(client.answer().status(), 502);
    client.cut();
    let report = proxy.report_where(|report| {
        let phases = &report.services["a"].phases;
        phases["total"].count == 2
    });
    let both = [(origin.address(), [2, 1, 0, 0, 0])];
    check(&report, [1, 2, 1, 0, 0, 2, 2, 2], &both);
}

fn a_request_of_no_service(driver: Driver) {
    let origin = Origin::new();
    let proxy = Setup::new(driver)
        .expects_line("destination_not_found")
        .service("a", &[origin.address()], "")
        .start();
    let mut client = proxy.client();
    assert_eq!(client.get("b.test", "/").status(), 404);
    client.send("nonsense\r\n\r\n");
    assert_eq!(client.answer().status(), 400);
    let report = proxy.report();
    assert_eq!(report.no_service.exchanges, 2);
    check(&report, [0; 8], &[]);
}

fn a_client_that_is_gone(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    client.reset();
    upstream.ends();
    proxy.counts_one_fault("client_gone");
    check(
        &proxy.report(),
        [0, 1, 1, 0, 0, 0, 0, 0],
        &[(origin.address(), [1, 1, 0, 0, 0])],
    );
}

fn an_answer_that_is_cut_short(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234");
    upstream.cut();
    client.head();
    assert_eq!(client.rest(), b"01234");
    proxy.counts_one_fault("http_response_incomplete");
    check(
        &proxy.report(),
        [0, 1, 1, 1, 0, 0, 0, 0],
        &[(origin.address(), [1, 1, 1, 0, 0])],
    );
}

fn the_next_request_is_already_here(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    client.send([GET, GET, GET].concat());
    let mut upstream = origin.accept();
    for _ in 0..3 {
        upstream.request();
        upstream.send(ok("a"));
        client.answer();
    }
    let report = report_of(&proxy, 3);
    let pooled = [(origin.address(), [1, 3, 3, 3, 3])];
    check(&report, [3, 1, 3, 3, 3, 3, 3, 3], &pooled);
    let received = report.services["a"].phases["client_receive"];
    assert!(received.max.is_zero(), "{report:#?}");
}

fn an_upgrade(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    client.send(
        "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    assert_eq!(client.answer().status(), 101);
    for _ in 0..3 {
        client.send("up");
        assert_eq!(upstream.take(2), b"up");
        upstream.send("down");
        assert_eq!(client.take(4), b"down");
    }
    let report = report_of(&proxy, 1);
    check(&report, [1; 8], &[(origin.address(), [1; 5])]);
}
