//! Bad input and bad endpoints where no answer can be given: the connection closes, one fault is
//! counted, and the next request works.

use std::net::SocketAddr;

use crate::support::{Driver, GET, Origin, Proxy, Served, Setup, Wire, ok, on_both_drivers};

on_both_drivers! {
    a_truncated_request_body_is_the_clients_fault
    a_truncated_head_is_the_clients_fault
    a_client_that_says_nothing_is_nobodys_fault
    an_endpoint_that_closes_mid_body_closes_the_client
    an_endpoint_that_stalls_mid_body_closes_the_client
    an_endpoint_that_breaks_its_chunks_closes_the_client
    an_endpoint_that_closes_inside_its_head_is_a_502
    another_endpoint_takes_over_from_one_that_refuses
    a_client_that_takes_nothing_is_closed
    an_endless_answer_does_not_look_whole_after_a_bad_chunk
    an_endless_answer_does_not_look_whole_after_a_truncated_body
    an_endless_answer_does_not_look_whole_after_a_late_body
    a_client_that_resets_inside_a_head_is_gone
    a_client_that_resets_inside_a_body_is_gone
    a_client_that_resets_while_it_waits_is_gone
    a_client_that_resets_inside_an_answer_is_gone
    a_refusing_endpoint_without_another_is_tried_once
    an_endpoint_without_a_way_to_it_is_a_502
}

/// The client, whose request ended too early, gets a 400 or nothing, and the end.
#[track_caller]
fn check_truncated(proxy: &Proxy, origin: &Origin, mut client: Wire) {
    // RFC 9112 section 8: an incomplete request may be answered with an error before the close.
    let given = String::from_utf8_lossy(&client.rest()).into_owned();
    let is_answer = given.starts_with("HTTP/1.1 400 ");
    assert!(given.is_empty() || is_answer, "{given}");
    proxy.counts_one_fault("http_request_incomplete");
    origin.answers_next(proxy.client());
}

fn a_truncated_request_body_is_the_clients_fault(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhello");
    let mut upstream = origin.accept();
    upstream.head();
    upstream.take(5);
    client.finish_sending();
    upstream.ends();
    check_truncated(&proxy, &origin, client);
}

fn a_truncated_head_is_the_clients_fault(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a.te");
    client.finish_sending();
    check_truncated(&proxy, &origin, client);
}

fn a_client_that_says_nothing_is_nobodys_fault(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    client.finish_sending();
    client.ends();
    proxy.client().reset();
    origin.answers_next(proxy.client());
    let report = proxy.report_where(|report| report.exchanges() == 1);
    assert!(report.faults().is_empty(), "{report:#?}");
}

/// The origin begins with `begun` and then does what `end` says: the client gets what was sent, and
/// the end.
#[track_caller]
fn check_broken_off(driver: Driver, begun: &str, end: impl FnOnce(&mut Wire), label: &str) {
    let origin = Origin::new();
    let keys = "[service.timeouts]\nreceive_idle = \"200ms\"";
    let proxy = Setup::new(driver)
        .service("a", &[origin.address()], keys)
        .start();
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    upstream.send(begun);
    assert_eq!(client.head().status(), 200);
    end(&mut upstream);
    let rest = client.rest();
    assert!(
        rest.len() <= begun.len(),
        "{:?}",
        String::from_utf8_lossy(&rest)
    );
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the body looks whole");
    proxy.counts_one_fault(label);
    drop(upstream);
    origin.answers_next(proxy.client());
}

fn an_endpoint_that_closes_mid_body_closes_the_client(driver: Driver) {
    let close = |upstream: &mut Wire| upstream.finish_sending();
    let label = "http_response_incomplete";
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
    check_broken_off(driver, length, close, label);
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    check_broken_off(driver, chunked, close, label);
}

fn an_endpoint_that_stalls_mid_body_closes_the_client(driver: Driver) {
    let stalled = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
    check_broken_off(driver, stalled, |_| {}, "connection_read_timeout");
}

fn an_endpoint_that_breaks_its_chunks_closes_the_client(driver: Driver) {
    let begun = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let garbage = |upstream: &mut Wire| upstream.send("nonsense\r\n");
    check_broken_off(driver, begun, garbage, "http_protocol_error");
}

fn an_endpoint_that_closes_inside_its_head_is_a_502(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    upstream.send("HTTP/1.1 200 OK\r\nContent-");
    drop(upstream);
    let answer = client.answer();
    assert_eq!(answer.status(), 502);
    let error = answer.head.proxy_error();
    assert_eq!(error.as_deref(), Some("http_response_incomplete"));
    proxy.counts_one_fault("http_response_incomplete");
    origin.answers_next(client);
}

fn another_endpoint_takes_over_from_one_that_refuses(driver: Driver) {
    let origin = Served::saying("a");
    let backends = [Origin::refused(), origin.address()];
    let keys = "policy = \"round_robin\"\n[service.eject]\nconsecutive_faults = 0";
    let proxy = Setup::new(driver).service("a", &backends, keys).start();
    let mut client = proxy.client();
    for _ in 0..20 {
        assert_eq!(client.get("a.test", "/").text(), "a");
        client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(
            client.answer().text(),
            "a",
            "nothing was sent, so a POST is tried too"
        );
    }
    let report = proxy.report_where(|report| report.exchanges() == 40);
    assert!(
        report.faults().is_empty(),
        "no exchange failed: {report:#?}"
    );
}

fn a_client_that_takes_nothing_is_closed(driver: Driver) {
    let origin = Origin::new();
    let proxy = Setup::new(driver)
        .listener("[listener.timeouts]\nsend_idle = \"300ms\"")
        .service("a", &[origin.address()], "")
        .start();
    let mut client = proxy.client();
    client.set_receive_buffer(16 * 1024);
    let mut upstream = origin.gets(&mut client, GET);
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
    let block = vec![b'x'; 1 << 20];
    let taken = (0..1000).take_while(|_| upstream.try_send(&block)).count();
    assert!(taken < 1000, "somebody took it all");
    proxy.counts_one_fault("client_send_timeout");
    drop(client);
    origin.answers_next(proxy.client());
}

/// The client has the begin of an answer that only the close ends when its upload, of which `body`
/// is the begin, fails: what it has must not look whole (RFC 9112 section 8).
#[track_caller]
fn check_unmarked(driver: Driver, body: &str, fail: impl FnOnce(&mut Wire), label: &str) {
    let origin = Origin::new();
    let proxy = Setup::new(driver)
        .listener("[listener.timeouts]\nbody_idle = \"300ms\"")
        .service("a", &[origin.address()], "")
        .start();
    let mut client = proxy.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\n{body}"));
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\n\r\nbegun");
    assert_eq!(client.head().status(), 200);
    assert_eq!(client.take(5), b"begun");
    fail(&mut client);
    client.is_reset();
    upstream.rest();
    proxy.counts_one_fault(label);
}

const BEGUN: &str = "Content-Length: 50\r\n\r\nhello";
const BEGUN_IN_CHUNKS: &str = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";

fn an_endless_answer_does_not_look_whole_after_a_bad_chunk(driver: Driver) {
    let bad = |client: &mut Wire| client.send("zz\r\n");
    check_unmarked(driver, BEGUN_IN_CHUNKS, bad, "http_request_error");
}

fn an_endless_answer_does_not_look_whole_after_a_truncated_body(driver: Driver) {
    let close = |client: &mut Wire| client.finish_sending();
    for body in [BEGUN, BEGUN_IN_CHUNKS] {
        check_unmarked(driver, body, close, "http_request_incomplete");
    }
}

fn an_endless_answer_does_not_look_whole_after_a_late_body(driver: Driver) {
    for body in [BEGUN, BEGUN_IN_CHUNKS] {
        check_unmarked(driver, body, |_| {}, "http_request_timeout");
    }
}

/// The client is gone before it had its answer: that is one fault, nobody is answered, and no
/// endpoint is to blame.
#[track_caller]
fn check_gone(proxy: &Proxy) {
    proxy.counts_one_fault("client_gone");
    let report = proxy.report();
    assert_eq!(report.no_service.own_answers, 0, "{report:#?}");
    let service = &report.services["a"];
    let counted = (service.own_answers, service.endpoint_faults);
    assert_eq!(counted, (0, 0), "{report:#?}");
}

fn a_client_that_resets_inside_a_head_is_gone(driver: Driver) {
    let origin = Served::saying("a");
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHos");
    client.reset();
    check_gone(&proxy);
}

fn a_client_that_resets_inside_a_body_is_gone(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\n12");
    let mut upstream = origin.accept();
    upstream.head();
    upstream.take(2);
    client.reset();
    upstream.ends();
    check_gone(&proxy);
}

fn a_client_that_resets_while_it_waits_is_gone(driver: Driver) {
    for reused in [false, true] {
        let origin = Origin::new();
        let proxy = driver.proxy_for(origin.address());
        let mut client = proxy.client();
        let mut upstream = origin.gets(&mut client, GET);
        if reused {
            upstream.send(ok("a"));
            client.answer();
            client.send(GET);
            upstream.request();
        }
        client.reset();
        upstream.ends();
        check_gone(&proxy);
        assert!(origin.has_no_more(), "nobody waits for another try");
    }
}

fn a_client_that_resets_inside_an_answer_is_gone(driver: Driver) {
    let begun = [
        "HTTP/1.1 200 OK\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ];
    for answer in begun {
        let origin = Origin::new();
        let proxy = driver.proxy_for(origin.address());
        let mut client = proxy.client();
        let mut upstream = origin.gets(&mut client, GET);
        upstream.send(answer);
        assert_eq!(client.head().status(), 200);
        client.reset();
        upstream.ends();
        check_gone(&proxy);
    }
}

fn a_refusing_endpoint_without_another_is_tried_once(driver: Driver) {
    let refused = Origin::refused();
    let keys = "[service.retry]\nattempts_max = 2";
    let proxy = Setup::new(driver).service("a", &[refused], keys).start();
    assert_eq!(proxy.client().get("a.test", "/").status(), 502);
    proxy.counts_one_fault("connection_refused");
    let tries = &proxy.report().services["a"].endpoints;
    assert_eq!(tries.get(&refused.to_string()), Some(&1));
}

fn an_endpoint_without_a_way_to_it_is_a_502(driver: Driver) {
    // The broadcast address of the loopback network: connect(2) knows no way there.
    let nowhere = SocketAddr::from(([127, 255, 255, 255], 80));
    let keys = "[service.retry]\nattempts_max = 0";
    let proxy = Setup::new(driver).service("a", &[nowhere], keys).start();
    let answer = proxy.client().get("a.test", "/");
    assert_eq!(answer.status(), 502);
    let error = answer.head.proxy_error();
    assert_eq!(error.as_deref(), Some("destination_ip_unroutable"));
    proxy.counts_one_fault("destination_ip_unroutable");
}
