//! What a drain waits for, and what it does not.

use std::time::Duration;

use crate::support::{Driver, GET, Origin, Proxy, Served, Setup, Wire, ok, on_both_drivers};

on_both_drivers! {
    an_exchange_under_way_is_told_of_the_close_and_the_process_ends
    a_client_that_never_spoke_does_not_hold_the_drain
    a_report_that_nobody_reads_does_not_hold_the_drain
    a_request_cut_off_at_the_end_of_the_drain_is_not_sent_again
    an_exchange_that_the_drain_cuts_off_is_a_fault_of_its_own
}

/// Well under the drain timeout of these tests: two seconds of quiet, and some for a busy machine.
const PROMPT: Duration = Duration::from_secs(5);

/// A proxy with the service `a` on `origin`, whose drain would take its time, and the service `b`
/// on `other`.
fn start(driver: Driver, origin: &Origin, other: &Served) -> Proxy {
    Setup::new(driver)
        .runtime("drain_timeout = \"20s\"")
        .service("a", &[origin.address()], "")
        .service("b", &[other.address()], "")
        .start()
}

/// Asks for the drain and returns once the one shard is in it, as `busy` learns from an answer.
#[track_caller]
fn drain(proxy: &Proxy, mut busy: Wire) {
    proxy.signal("TERM");
    proxy.log_line("drain");
    let mut is_told = || {
        let answer = busy.get("b.test", "/");
        answer.head.field("Connection").as_deref() == Some("close")
    };
    assert!((0..100_000).any(|_| is_told()), "one answer says close");
    busy.ends();
}

fn an_exchange_under_way_is_told_of_the_close_and_the_process_ends(driver: Driver) {
    let (origin, other) = (Origin::new(), Served::saying("b"));
    let mut proxy = start(driver, &origin, &other);
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    drain(&proxy, proxy.client());
    upstream.send(ok("a"));
    let answer = client.answer();
    assert_eq!(answer.text(), "a");
    assert_eq!(answer.head.field("Connection").as_deref(), Some("close"));
    client.ends();
    assert_eq!(proxy.exit_code_within(PROMPT), Some(0));
}

fn a_client_that_never_spoke_does_not_hold_the_drain(driver: Driver) {
    let (origin, other) = (Origin::new(), Served::saying("b"));
    let mut proxy = start(driver, &origin, &other);
    let mut silent = proxy.client();
    // It is accepted before the next one, which is answered.
    let mut busy = proxy.client();
    assert_eq!(busy.get("b.test", "/").text(), "b");
    drain(&proxy, busy);
    silent.set_deadline(PROMPT);
    // With a word or without one.
    silent.rest();
    assert_eq!(proxy.exit_code_within(PROMPT), Some(0));
}

fn a_report_that_nobody_reads_does_not_hold_the_drain(driver: Driver) {
    let origin = Served::saying("a");
    let mut proxy = Setup::new(driver)
        .unread_output()
        .runtime("drain_timeout = \"2s\"")
        .expects_line("report")
        .service("a", &[origin.address()], "")
        .start();
    for _ in 0..10 {
        proxy.signal("USR1");
        assert_eq!(proxy.client().get("a.test", "/").text(), "a");
    }
    proxy.signal("TERM");
    assert_eq!(proxy.exit_code_within(PROMPT), Some(0));
}

fn a_request_cut_off_at_the_end_of_the_drain_is_not_sent_again(driver: Driver) {
    for reused in [false, true] {
        let origin = Origin::new();
        let mut proxy = Setup::new(driver)
            .runtime("drain_timeout = \"300ms\"")
            .expects_line("drain")
            .service("a", &[origin.address()], "")
            .start();
        let mut client = proxy.client();
        let mut upstream = origin.gets(&mut client, GET);
        if reused {
            upstream.send(ok("a"));
            client.answer();
            client.send(GET);
            upstream.request();
        }
        proxy.signal("TERM");
        client.rest();
        upstream.ends();
        assert_eq!(proxy.exit_code(), Some(0));
        assert!(origin.has_no_more(), "reused: {reused}");
    }
}

fn an_exchange_that_the_drain_cuts_off_is_a_fault_of_its_own(driver: Driver) {
    let origin = Origin::new();
    let mut proxy = Setup::new(driver)
        .log("level = \"debug\"")
        .runtime("drain_timeout = \"300ms\"")
        .expects_line("drain")
        .service("a", &[origin.address()], "")
        .start();
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    proxy.signal("TERM");
    client.rest();
    upstream.ends();
    assert_eq!(proxy.exit_code(), Some(0));
    // The process ends before anybody could ask for its report.
    let failed = proxy.log_line("exchange failed");
    let fault = failed.split("fault=").nth(1);
    assert_eq!(fault.map(str::trim), Some("drain_timeout"), "{failed}");
}
