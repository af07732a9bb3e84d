//! What is tried again and what is not: answers with a status, tries that take too long, and the
//! bounds on both.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::{Driver, GET, Origin, Proxy, Served, Setup, ok, on_both_drivers};

on_both_drivers! {
    an_answer_with_a_status_of_the_list_goes_to_another_endpoint
    the_last_answer_goes_on_when_no_try_is_left
    a_status_is_passed_on_for_a_method_that_may_not_be_repeated
    a_status_that_is_not_in_the_list_is_passed_on
    a_status_behind_an_interim_answer_is_passed_on
    a_body_that_was_kept_is_sent_to_the_next_endpoint
    a_body_that_was_not_kept_has_its_status_passed_on
    a_connection_is_kept_whose_dropped_answer_was_whole
    the_budget_ends_the_retries
    a_try_that_takes_too_long_goes_to_another_endpoint
    the_last_try_that_takes_too_long_is_a_504
    an_attempt_ends_with_the_head
    a_whole_exchange_that_takes_too_long_is_a_504
    a_whole_exchange_that_takes_too_long_is_cut_inside_its_body
    a_kept_connection_outlives_the_bounds_of_its_exchange
    a_client_that_leaves_during_a_backoff_is_gone
    who_broke_off_is_tried_again_and_who_refused_is_not
    a_kept_client_outlives_the_bounds_of_an_answer_that_was_invalid
    a_backoff_holds_no_connection
    a_whole_exchange_ends_while_it_waits_for_a_connection
    a_client_that_is_slow_is_no_fault_of_the_endpoint
}

const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";
const PUT: &str = "PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody";

/// In turn, so that a try after the first goes to the other of two.
fn start(driver: Driver, backends: &[SocketAddr], keys: &str) -> Proxy {
    let keys = format!("policy = \"round_robin\"\n{keys}");
    let setup = Setup::new(driver).admin("127.0.0.1:0");
    setup.service("a", backends, &keys).start()
}

fn start_one(driver: Driver, keys: &str) -> (Origin, Proxy) {
    let origin = Origin::new();
    let proxy = start(driver, &[origin.address()], keys);
    (origin, proxy)
}

/// What the JSON report says of the service.
fn told(proxy: &Proxy) -> serde_json::Value {
    let mut admin = proxy.admin_client();
    let host = proxy.admin();
    admin.send(format!(
        "GET /report?format=json HTTP/1.1\r\nHost: {host}\r\n\r\n"
    ));
    let report: serde_json::Value =
        serde_json::from_slice(&admin.answer().body).expect("the report is JSON");
    report["services"][0].clone()
}

/// An endpoint whose every answer is a 503.
fn busy() -> Served {
    Served::new(|_| BUSY.into())
}

fn an_answer_with_a_status_of_the_list_goes_to_another_endpoint(driver: Driver) {
    let (bad, good) = (busy(), Served::saying("fine"));
    let backends = [bad.address(), good.address()];
    let keys = "[service.retry]\nstatuses = [502, 503]\n[service.eject]\nconsecutive_faults = 0";
    let proxy = start(driver, &backends, keys);
    let mut client = proxy.client();
    for _ in 0..10 {
        let answer = client.get("a.test", "/");
        assert_eq!((answer.status(), answer.text().as_str()), (200, "fine"));
    }
    assert_eq!(good.requests(), 10);
    let told = told(&proxy);
    assert!(0 < bad.requests(), "it was asked too");
    assert_eq!(told["retries"], bad.requests(), "{told:#}");
    assert_eq!(
        told["retries_by_reason"]["status"],
        bad.requests(),
        "{told:#}"
    );
    assert_eq!(told["faults"], serde_json::json!({}), "{told:#}");
}

fn the_last_answer_goes_on_when_no_try_is_left(driver: Driver) {
    let bad = busy();
    let keys = "[service.retry]\nstatuses = [503]\nattempts_max = 3\n\
                [service.eject]\nconsecutive_faults = 0";
    let proxy = start(driver, &[bad.address()], keys);
    let answer = proxy.client().get("a.test", "/");
    assert_eq!((answer.status(), answer.text().as_str()), (503, "busy"));
    assert_eq!(bad.requests(), 4, "the only endpoint is tried again");
}

#[track_caller]
fn is_passed_on(driver: Driver, request: &str, keys: &str, answer: &str) {
    let (origin, proxy) = start_one(driver, keys);
    let mut client = proxy.client();
    client.send(request);
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send(answer);
    let mut head = client.head();
    while head.status() < 200 {
        head = client.head();
    }
    assert_eq!(head.status(), 503);
    assert!(origin.has_no_more());
    assert_eq!(told(&proxy)["retries"], 0);
}

const RETRIED: &str = "[service.retry]\nstatuses = [503]";

fn a_status_is_passed_on_for_a_method_that_may_not_be_repeated(driver: Driver) {
    is_passed_on(driver, &PUT.replace("PUT", "POST"), RETRIED, BUSY);
}

fn a_status_that_is_not_in_the_list_is_passed_on(driver: Driver) {
    is_passed_on(driver, GET, "[service.retry]\nstatuses = [502]", BUSY);
}

fn a_status_behind_an_interim_answer_is_passed_on(driver: Driver) {
    let answer = format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{BUSY}");
    is_passed_on(driver, GET, RETRIED, &answer);
}

fn a_body_that_was_not_kept_has_its_status_passed_on(driver: Driver) {
    let keys = "[service.retry]\nstatuses = [503]\nbody_bytes_max = 3";
    is_passed_on(driver, PUT, keys, BUSY);
}

fn a_body_that_was_kept_is_sent_to_the_next_endpoint(driver: Driver) {
    let (origin, proxy) = start_one(driver, RETRIED);
    // Whole at once, and in two parts.
    for parts in [[PUT, ""], PUT.split_at(PUT.len() - 2).into()] {
        let mut client = proxy.client();
        client.send(parts[0]);
        let mut upstream = origin.accept();
        if !parts[1].is_empty() {
            upstream.head();
            upstream.take(2);
            client.send(parts[1]);
            upstream.take(2);
        } else {
            upstream.request();
        }
        upstream.send(BUSY.replace("Content", "Connection: close\r\nContent"));
        let mut upstream = origin.accept();
        assert_eq!(upstream.request().text(), "body");
        upstream.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\ndone");
        assert_eq!(client.answer().text(), "done");
    }
    assert_eq!(told(&proxy)["retries"], 2);
}

fn a_connection_is_kept_whose_dropped_answer_was_whole(driver: Driver) {
    let (origin, proxy) = start_one(driver, RETRIED);
    let mut client = proxy.client();
    client.send(GET);
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send(BUSY);
    // The same connection carries the next try.
    upstream.request();
    // Whose answer has no end yet: that connection is closed.
    upstream.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 100\r\n\r\nbu");
    let mut next = origin.accept();
    upstream.ends();
    next.request();
    next.send(ok("done"));
    assert_eq!(client.answer().text(), "done");
}

fn the_budget_ends_the_retries(driver: Driver) {
    let bad = busy();
    // Ten a second are always allowed.
    let keys = "[service.retry]\nstatuses = [503]\nattempts_max = 10\nbudget = 0.0\n\
                [service.eject]\nconsecutive_faults = 0";
    let proxy = start(driver, &[bad.address()], keys);
    let mut client = proxy.client();
    // Far more than a second's worth of them, for a second may end meanwhile.
    for _ in 0..50 {
        assert_eq!(client.get("a.test", "/").status(), 503);
    }
    let told = told(&proxy);
    let (retries, refused) = (&told["retries"], &told["retries_refused"]);
    assert!(10 <= retries.as_u64().unwrap_or(0), "{told:#}");
    assert!(0 < refused.as_u64().unwrap_or(0), "{told:#}");
    let tries = 50 + retries.as_u64().unwrap_or(0);
    assert_eq!(bad.requests() as u64, tries);
}

fn a_try_that_takes_too_long_goes_to_another_endpoint(driver: Driver) {
    let silent = Origin::new();
    let good = Served::saying("fine");
    let keys = "[service.retry]\nattempt = \"1s\"";
    let proxy = start(driver, &[silent.address(), good.address()], keys);
    // One of two comes to the silent one.
    for _ in 0..2 {
        assert_eq!(proxy.client().get("a.test", "/").text(), "fine");
    }
    let mut held = silent.accept();
    held.request();
    held.ends();
    let told = told(&proxy);
    let retries = told["retries_by_reason"]["attempt_timeout"].as_u64();
    assert!(retries.is_some_and(|retries| 0 < retries), "{told:#}");
}

fn the_last_try_that_takes_too_long_is_a_504(driver: Driver) {
    let keys = "[service.retry]\nattempt = \"100ms\"\nattempts_max = 1";
    let (origin, proxy) = start_one(driver, keys);
    let mut client = proxy.client();
    client.send(GET);
    let _tries = [origin.accept(), origin.accept()];
    let answer = client.answer();
    assert_eq!(answer.status(), 504);
    let error = answer.head.proxy_error();
    assert_eq!(error.as_deref(), Some("http_response_timeout"));
    proxy.counts_one_fault("attempt_timeout");
    assert!(origin.has_no_more());
}

fn an_attempt_ends_with_the_head(driver: Driver) {
    let (origin, proxy) = start_one(driver, "[service.retry]\nattempt = \"1s\"");
    let mut client = proxy.client();
    client.send(GET);
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab");
    assert_eq!(client.head().status(), 200);
    // Twice as long as a try may take.
    assert!(upstream.is_quiet_for(Duration::from_secs(2)));
    upstream.send("cd");
    assert_eq!(client.take(4), b"abcd");
}

fn a_whole_exchange_that_takes_too_long_is_a_504(driver: Driver) {
    let keys = "[service.timeouts]\ntotal = \"1500ms\"\n[service.retry]\nattempt = \"1s\"";
    let (origin, proxy) = start_one(driver, keys);
    let mut client = proxy.client();
    client.send(GET);
    // The second try has less time than a try may take.
    let _tries = [origin.accept(), origin.accept()];
    let answer = client.answer();
    assert_eq!(answer.status(), 504);
    proxy.counts_one_fault("exchange_timeout");
    assert!(origin.has_no_more());
}

fn a_whole_exchange_that_takes_too_long_is_cut_inside_its_body(driver: Driver) {
    let (origin, proxy) = start_one(driver, "[service.timeouts]\ntotal = \"1s\"");
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nab");
    assert_eq!(client.head().status(), 200);
    assert_eq!(client.rest(), b"ab");
    upstream.ends();
    proxy.counts_one_fault("exchange_timeout");
}

fn a_kept_connection_outlives_the_bounds_of_its_exchange(driver: Driver) {
    let keys = "[service.timeouts]\ntotal = \"1s\"\n[service.retry]\nattempt = \"1s\"";
    let (origin, proxy) = start_one(driver, keys);
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    upstream.send(ok("one"));
    assert_eq!(client.answer().text(), "one");
    assert!(upstream.is_quiet_for(Duration::from_secs(2)));
    client.send(GET);
    upstream.request();
    upstream.send(ok("two"));
    assert_eq!(client.answer().text(), "two");
}

fn a_client_that_leaves_during_a_backoff_is_gone(driver: Driver) {
    let keys = "[service.retry]\nstatuses = [503]\nbackoff = \"30s\"";
    let (origin, proxy) = start_one(driver, keys);
    let mut client = proxy.client();
    client.send(GET);
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send(BUSY);
    assert!(origin.has_no_more(), "the next try comes later");
    client.reset();
    proxy.counts_one_fault("client_gone");
}

fn a_kept_client_outlives_the_bounds_of_an_answer_that_was_invalid(driver: Driver) {
    let (origin, proxy) = start_one(driver, "[service.timeouts]\ntotal = \"1s\"");
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n");
    assert_eq!(client.answer().status(), 502);
    assert!(client.is_quiet_for(Duration::from_secs(2)), "it is cut");
    origin.answers_next(client);
}

fn a_backoff_holds_no_connection(driver: Driver) {
    let keys = "[service.retry]\nstatuses = [503]\nbackoff = \"30s\"\n\
                [service.pool]\nconnections_max = 1\nqueue = \"10s\"";
    let (origin, proxy) = start_one(driver, keys);
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    // Not whole: its connection can't be used again.
    upstream.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 100\r\n\r\nbu");
    upstream.ends();
    origin.answers_next(proxy.client());
    client.reset();
    proxy.counts_one_fault("client_gone");
}

fn a_whole_exchange_ends_while_it_waits_for_a_connection(driver: Driver) {
    let keys = "[service.timeouts]\ntotal = \"1s\"\n\
                [service.pool]\nconnections_max = 1\nqueue = \"1m\"";
    let (origin, proxy) = start_one(driver, keys);
    let upgrade = "Connection: upgrade\r\nUpgrade: x\r\n\r\n";
    let mut tunnel = proxy.client();
    let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{upgrade}");
    let mut upstream = origin.gets(&mut tunnel, &request);
    upstream.send(format!("HTTP/1.1 101 Switching Protocols\r\n{upgrade}"));
    assert_eq!(tunnel.head().status(), 101);
    let mut client = proxy.client();
    client.send(GET);
    assert_eq!(client.answer().status(), 504);
    proxy.counts_one_fault("exchange_timeout");
}

fn a_client_that_is_slow_is_no_fault_of_the_endpoint(driver: Driver) {
    let (origin, proxy) = start_one(driver, "[service.retry]\nattempt = \"1s\"");
    let mut client = proxy.client();
    client.send(&PUT[..PUT.len() - 2]);
    let mut upstream = origin.accept();
    upstream.head();
    assert_eq!(upstream.take(2), b"bo");
    // Twice as long as a try may take.
    assert!(upstream.is_quiet_for(Duration::from_secs(2)), "it is cut");
    client.send("dy");
    assert_eq!(upstream.take(2), b"dy");
    upstream.send(ok("done"));
    assert_eq!(client.answer().text(), "done");
    assert_eq!(told(&proxy)["retries"], 0);
}

fn who_broke_off_is_tried_again_and_who_refused_is_not(driver: Driver) {
    let origin = Origin::new();
    let backends = [Origin::refused(), origin.address()];
    let proxy = start(driver, &backends, "[service.eject]\nconsecutive_faults = 0");
    // Whichever is the first of both.
    for _ in 0..2 {
        let mut client = proxy.client();
        client.send(GET);
        let mut upstream = origin.accept();
        upstream.request();
        upstream.cut();
        let mut upstream = origin.accept();
        upstream.request();
        upstream.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\ndone");
        assert_eq!(client.answer().text(), "done");
    }
    let told = told(&proxy);
    let retries = &told["retries_by_reason"];
    assert_eq!(
        (&retries["connect"], &retries["terminated"]),
        (&2.into(), &2.into())
    );
}
