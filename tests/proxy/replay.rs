//! Requests with a body that are sent once more: what of it had come is kept, up to a bound.

use crate::support::{Driver, Origin, Proxy, Setup, Wire, ok, on_both_drivers};

on_both_drivers! {
    a_body_that_had_come_is_sent_once_more
    a_body_that_still_comes_is_sent_once_more_when_it_is_whole
    a_body_over_the_bound_is_not_sent_once_more
    a_body_that_is_not_to_be_kept_is_not_sent_once_more
    a_post_is_never_sent_once_more
    a_client_that_fails_while_its_body_is_kept_is_to_blame
    a_chunked_body_is_sent_once_more_as_it_came
    a_client_that_waits_is_waited_for_at_the_next_endpoint
}

const HEAD: &str = "PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 8\r\n\r\n";

fn start(driver: Driver, origin: &Origin, keys: &str) -> Proxy {
    let setup = Setup::new(driver).listener("[listener.timeouts]\nbody_idle = \"500ms\"");
    setup.service("a", &[origin.address()], keys).start()
}

/// A client that has sent `head` and `part`, and an endpoint that has read both.
#[track_caller]
fn begun(proxy: &Proxy, origin: &Origin, (head, part): (&str, &str)) -> (Wire, Wire) {
    let mut client = proxy.client();
    client.send(head);
    let mut upstream = origin.accept();
    upstream.head();
    client.send(part);
    assert_eq!(upstream.take(part.len()), part.as_bytes());
    (client, upstream)
}

#[track_caller]
fn is_answered(client: &mut Wire, mut upstream: Wire, body: &str) {
    let request = upstream.request();
    assert_eq!(request.text(), body);
    upstream.send(ok("done"));
    assert_eq!(client.answer().text(), "done");
}

#[track_caller]
fn is_not_replayed(client: &mut Wire, origin: &Origin, proxy: &Proxy) {
    let answer = client.answer();
    assert_eq!(answer.status(), 502);
    assert!(origin.has_no_more(), "it is sent once");
    proxy.counts_one_fault("connection_terminated");
}

fn a_body_that_had_come_is_sent_once_more(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, &origin, "");
    let (mut client, mut upstream) = begun(&proxy, &origin, (HEAD, "1234"));
    client.send("5678");
    assert_eq!(upstream.take(4), b"5678");
    upstream.cut();
    is_answered(&mut client, origin.accept(), "12345678");
    let report = proxy.report_where(|report| report.exchanges() == 1);
    assert!(report.faults().is_empty(), "{report:#?}");
}

fn a_body_that_still_comes_is_sent_once_more_when_it_is_whole(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, &origin, "");
    for reset in [false, true] {
        let (mut client, mut upstream) = begun(&proxy, &origin, (HEAD, "1234"));
        if reset {
            upstream.reset();
        } else {
            upstream.cut();
        }
        // It does not wait for the rest.
        let mut upstream = origin.accept();
        upstream.head();
        assert_eq!(upstream.take(4), b"1234");
        client.send("5678");
        assert_eq!(upstream.take(4), b"5678");
        upstream.send(ok("done"));
        assert_eq!(client.answer().text(), "done");
    }
}

fn a_body_over_the_bound_is_not_sent_once_more(driver: Driver) {
    let origin = Origin::new();
    let keys = "[service.retry]\nbody_bytes_max = 7";
    let proxy = start(driver, &origin, keys);
    let (mut client, mut upstream) = begun(&proxy, &origin, (HEAD, "1234"));
    client.send("5678");
    assert_eq!(upstream.take(4), b"5678");
    upstream.cut();
    is_not_replayed(&mut client, &origin, &proxy);
}

fn a_body_that_is_not_to_be_kept_is_not_sent_once_more(driver: Driver) {
    let origin = Origin::new();
    let keys = "[service.retry]\nbody_bytes_max = 0";
    let proxy = start(driver, &origin, keys);
    let mut client = proxy.client();
    client.send(format!("{HEAD}12345678"));
    let mut upstream = origin.accept();
    upstream.request();
    upstream.cut();
    is_not_replayed(&mut client, &origin, &proxy);
}

fn a_post_is_never_sent_once_more(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, &origin, "");
    let head = HEAD.replace("PUT", "POST");
    let (mut client, mut upstream) = begun(&proxy, &origin, (&head, "1234"));
    upstream.cut();
    is_not_replayed(&mut client, &origin, &proxy);
}

fn a_client_that_fails_while_its_body_is_kept_is_to_blame(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, &origin, "");
    let (mut client, mut upstream) = begun(&proxy, &origin, (HEAD, "1234"));
    upstream.cut();
    let _upstream = origin.accept();
    assert_eq!(client.answer().status(), 408);
    client.ends();
    proxy.counts_one_fault("http_request_timeout");
}

fn a_chunked_body_is_sent_once_more_as_it_came(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, &origin, "");
    let head = "PUT / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (mut client, mut upstream) = begun(&proxy, &origin, (head, "3\r\nabc\r\n"));
    upstream.cut();
    client.send("4\r\ndefg\r\n0\r\n\r\n");
    is_answered(&mut client, origin.accept(), "abcdefg");
}

fn a_client_that_waits_is_waited_for_at_the_next_endpoint(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, &origin, "");
    let mut client = proxy.client();
    client.send(HEAD.replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n"));
    let mut upstream = origin.accept();
    upstream.head();
    upstream.cut();
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.head().start, "HTTP/1.1 100 Continue");
    client.send("12345678");
    assert_eq!(upstream.take(8), b"12345678");
    upstream.send(ok("done"));
    assert_eq!(client.answer().text(), "done");
}
