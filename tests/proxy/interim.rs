//! Answers between (1xx), and what becomes of an exchange whose final answer then fails: nothing of
//! that has gone out, so the client is told why (RFC 9110 section 15.2).

use std::thread;
use std::time::Duration;

use crate::support::{Driver, GET, Origin, Proxy, Setup, Wire, ok, on_both_drivers};

on_both_drivers! {
    an_endpoint_that_closes_after_100_continue_is_a_502
    an_endpoint_that_closes_before_the_body_it_asked_for_is_a_502
    an_endpoint_that_closes_after_103_is_a_502
    an_endpoint_that_stays_silent_after_100_continue_is_a_504
    an_endpoint_that_stays_silent_after_103_is_a_504
    an_endpoint_whose_first_chunk_is_bad_is_a_502
    answers_between_without_end_are_a_502
    a_client_whose_endpoint_says_nothing_is_told_to_go_on
    a_client_whose_endpoint_is_willing_is_told_once
    a_client_that_does_not_wait_is_not_told
    a_client_that_is_answered_instead_is_closed
}

const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";

/// A request for the service `a` whose body waits for a 100 (RFC 9110 section 10.1.1).
const EXPECTING: &str =
    "POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";

/// The client, which sent `request`, is told of `interim`, then sends the rest of its body if it
/// awaited that; then the origin does what `end` says, and the client gets an own answer. What was
/// answered, if only in between, is not sent again.
#[track_caller]
fn check(
    driver: Driver,
    (request, interim): (&str, &str),
    end: impl FnOnce(&mut Wire),
    (status, word): (u16, &str),
) {
    let origin = Origin::new();
    let keys = "[service.timeouts]\nresponse = \"300ms\"";
    let proxy = Setup::new(driver)
        .service("a", &[origin.address()], keys)
        .start();
    let mut client = proxy.client();
    client.send(request);
    let mut upstream = origin.accept();
    upstream.head();
    if !interim.is_empty() {
        upstream.send(interim);
        assert!(interim.starts_with(&client.head().start));
    }
    if request == EXPECTING {
        client.send("1234");
        assert_eq!(upstream.take(4), b"1234");
    }
    end(&mut upstream);
    let answer = client.answer();
    assert_eq!(answer.status(), status, "{answer:?}");
    assert_eq!(answer.head.proxy_error().as_deref(), Some(word));
    upstream.ends();
    proxy.counts_one_fault(word);
    let report = proxy.report();
    let counted = &report.services["a"];
    assert_eq!(
        (counted.forwarded, counted.own_answers),
        (0, 1),
        "{report:#?}"
    );
    assert!(origin.has_no_more(), "it is sent once");
}

fn close(upstream: &mut Wire) {
    upstream.finish_sending();
}

fn stay_silent(_: &mut Wire) {}

fn an_endpoint_that_closes_after_100_continue_is_a_502(driver: Driver) {
    let expected = (502, "http_response_incomplete");
    check(driver, (EXPECTING, CONTINUE), close, expected);
}

fn an_endpoint_that_closes_before_the_body_it_asked_for_is_a_502(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    client.send(EXPECTING);
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send(CONTINUE);
    assert_eq!(client.head().status(), 100);
    drop(upstream);
    let answer = client.answer();
    assert_eq!(answer.status(), 502);
    let error = answer.head.proxy_error();
    assert_eq!(error.as_deref(), Some("http_response_incomplete"));
    // The body may be under way already.
    client.try_send("1234");
    client.finish_sending();
    client.ends();
    proxy.counts_one_fault("http_response_incomplete");
    assert!(origin.has_no_more(), "it is sent once");
}

fn an_endpoint_that_closes_after_103_is_a_502(driver: Driver) {
    check(
        driver,
        (GET, HINTS),
        close,
        (502, "http_response_incomplete"),
    );
}

fn an_endpoint_that_stays_silent_after_100_continue_is_a_504(driver: Driver) {
    let expected = (504, "http_response_timeout");
    check(driver, (EXPECTING, CONTINUE), stay_silent, expected);
}

fn an_endpoint_that_stays_silent_after_103_is_a_504(driver: Driver) {
    check(
        driver,
        (GET, HINTS),
        stay_silent,
        (504, "http_response_timeout"),
    );
}

fn an_endpoint_whose_first_chunk_is_bad_is_a_502(driver: Driver) {
    let bad = |upstream: &mut Wire| {
        // In one write, and so in one read.
        upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
    };
    for interim in ["", HINTS] {
        check(driver, (GET, interim), bad, (502, "http_protocol_error"));
    }
}

fn answers_between_without_end_are_a_502(driver: Driver) {
    const BYTES: usize = 50 * 1024 * 1024;
    const GROWTH_KIB_MAX: u64 = 20 * 1024;
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let before = proxy.memory_kib();
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    let hints = format!(
        "HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n",
        "x".repeat(1500)
    );
    let block = hints.repeat(40);
    let sender = thread::spawn(move || {
        let blocks = BYTES / block.len();
        (0..blocks)
            .take_while(|_| upstream.try_send(&block))
            .count()
            == blocks
    });
    let statuses = (0..10_000).map(|_| client.answer().status());
    let last = statuses.into_iter().find(|status| *status != 103);
    assert_eq!(last, Some(502));
    let grown = proxy.memory_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB more than at rest");
    assert!(!sender.join().expect("it only writes"), "all was taken");
}

/// A proxy that tells a waiting client to go on after `patience`.
fn patient(driver: Driver, origin: &Origin, patience: &str) -> Proxy {
    let keys = format!("[service.timeouts]\ncontinue = \"{patience}\"");
    let setup = Setup::new(driver).service("a", &[origin.address()], &keys);
    setup.start()
}

/// The body that was waited for arrives and is answered.
#[track_caller]
fn is_carried_out(client: &mut Wire, upstream: &mut Wire) {
    client.send("1234");
    assert_eq!(upstream.take(4), b"1234");
    upstream.send(ok("done"));
    assert_eq!(client.answer().text(), "done");
}

/// Both connections are kept.
#[track_caller]
fn are_kept(client: &mut Wire, upstream: &mut Wire) {
    client.send(GET);
    upstream.request();
    upstream.send(ok("next"));
    assert_eq!(client.answer().text(), "next");
}

fn a_client_whose_endpoint_says_nothing_is_told_to_go_on(driver: Driver) {
    let origin = Origin::new();
    let proxy = patient(driver, &origin, "200ms");
    for late in ["", CONTINUE] {
        let mut client = proxy.client();
        client.send(EXPECTING);
        let mut upstream = origin.accept();
        let head = upstream.head();
        assert_eq!(head.field("Expect").as_deref(), Some("100-continue"));
        assert_eq!(client.head().start, "HTTP/1.1 100 Continue");
        // An endpoint that says so after all tells the client nothing new.
        upstream.send(late);
        is_carried_out(&mut client, &mut upstream);
        if late == CONTINUE {
            are_kept(&mut client, &mut upstream);
        } else {
            // Whether it has read the body or takes it for the next request is not known.
            upstream.ends();
        }
    }
}

fn a_client_whose_endpoint_is_willing_is_told_once(driver: Driver) {
    let origin = Origin::new();
    let proxy = patient(driver, &origin, "100ms");
    let mut client = proxy.client();
    client.send(EXPECTING);
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send(format!("{HINTS}{CONTINUE}"));
    assert_eq!(client.head().start, "HTTP/1.1 103 Early Hints");
    assert_eq!(client.head().start, "HTTP/1.1 100 Continue");
    assert!(client.is_quiet_for(Duration::from_millis(500)));
    is_carried_out(&mut client, &mut upstream);
    are_kept(&mut client, &mut upstream);
}

fn a_client_that_does_not_wait_is_not_told(driver: Driver) {
    let origin = Origin::new();
    let proxy = patient(driver, &origin, "100ms");
    let mut client = proxy.client();
    client.send(format!("{EXPECTING}12"));
    let mut upstream = origin.accept();
    upstream.head();
    assert_eq!(upstream.take(2), b"12");
    assert!(client.is_quiet_for(Duration::from_millis(500)));
    client.send("34");
    assert_eq!(upstream.take(2), b"34");
    upstream.send(ok("done"));
    assert_eq!(client.answer().text(), "done");
}

/// What it would send next could be taken for the body, by us or by the endpoint.
fn a_client_that_is_answered_instead_is_closed(driver: Driver) {
    let origin = Origin::new();
    let proxy = patient(driver, &origin, "10s");
    let mut client = proxy.client();
    client.send(EXPECTING);
    let mut upstream = origin.accept();
    upstream.head();
    let answer = "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno";
    upstream.send(answer);
    let answer = client.answer();
    assert_eq!((answer.status(), answer.text().as_str()), (417, "no"));
    assert_eq!(answer.head.field("Connection").as_deref(), Some("close"));
    client.try_send(GET);
    client.ends();
    upstream.ends();
    origin.answers_next(proxy.client());
    let report = proxy.report_where(|report| report.exchanges() == 2);
    assert!(report.faults().is_empty(), "{report:#?}");
}
