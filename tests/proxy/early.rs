//! Answers that come before the request has ended (RFC 9112 section 9.6).

use std::time::Duration;

use crate::support::{Driver, Origin, Proxy, Served, Setup, Wire, ok, on_both_drivers};

on_both_drivers! {
    a_client_that_falls_silent_after_an_own_answer_is_closed
    a_client_that_falls_silent_after_an_early_answer_is_closed
    an_upload_goes_on_behind_an_answer_that_was_early
    the_next_request_may_come_with_the_end_of_an_answered_one
    a_request_whose_endpoint_left_early_may_be_followed_by_another
}

/// A read of a client that lingers takes at most two seconds, give or take a tick; the machine may
/// be busy.
const LINGERING: Duration = Duration::from_secs(4);

/// What the origin does instead of reading on; with a status that the client gets.
type Ending = (u16, fn(&mut Wire));

/// A client that has its answer, and the origin's side of it.
type Answered = (u16, Wire, Option<Wire>);

/// Begins a request of 1000 bytes for `host`.
fn begin(client: &mut Wire, host: &str) {
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000\r\n\r\n12345"
    ));
}

/// A client of the service `a` whose request has begun, ended by the origin as `ending` says.
#[track_caller]
fn answered(proxy: &Proxy, origin: &Origin, (status, end): Ending) -> Answered {
    let mut client = proxy.client();
    begin(&mut client, "a.test");
    let mut upstream = origin.accept();
    upstream.head();
    upstream.take(5);
    end(&mut upstream);
    assert_eq!(client.answer().status(), status);
    (status, client, Some(upstream))
}

/// Every client sends one byte more and falls silent: all are closed within `LINGERING`.
#[track_caller]
fn check_closed(mut clients: Vec<Answered>) {
    for (_, client, _) in &mut clients {
        client.try_send("6");
    }
    for (status, client, _upstream) in &mut clients {
        assert!(!client.is_quiet_for(LINGERING), "{status}: it stays open");
        client.ends();
    }
}

fn a_client_that_falls_silent_after_an_own_answer_is_closed(driver: Driver) {
    let origin = Origin::new();
    let proxy = Setup::new(driver)
        .expects_line("destination_not_found")
        .service("a", &[origin.address()], "")
        .start();
    let broken: [Ending; 2] = [
        (502, Wire::cut),
        (502, |upstream| upstream.send("nonsense\r\n\r\n")),
    ];
    let mut clients: Vec<_> = broken
        .into_iter()
        .map(|ending| answered(&proxy, &origin, ending))
        .collect();
    let mut stray = proxy.client();
    begin(&mut stray, "unknown.test");
    assert_eq!(stray.answer().status(), 404);
    clients.push((404, stray, None));
    check_closed(clients);
}

/// The endpoint may still be reading, so the body has the time that every body has.
fn a_client_that_falls_silent_after_an_early_answer_is_closed(driver: Driver) {
    let origin = Origin::new();
    let proxy = Setup::new(driver)
        .listener("[listener.timeouts]\nbody_idle = \"500ms\"")
        .service("a", &[origin.address()], "")
        .start();
    let early: [Ending; 3] = [
        (401, |upstream| {
            upstream.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
        }),
        (403, |upstream| {
            let fields = "Connection: close\r\nContent-Length: 0";
            upstream.send(format!("HTTP/1.1 403 Forbidden\r\n{fields}\r\n\r\n"));
        }),
        (413, |upstream| {
            let fields = "Connection: close\r\nContent-Length: 0";
            upstream.send(format!("HTTP/1.1 413 Too Large\r\n{fields}\r\n\r\n"));
            upstream.cut();
        }),
    ];
    let clients = early
        .into_iter()
        .map(|ending| answered(&proxy, &origin, ending));
    check_closed(clients.collect());
}

fn an_upload_goes_on_behind_an_answer_that_was_early(driver: Driver) {
    const LENGTH: usize = 1_000_000;
    let origin = Origin::new();
    let other = Served::saying("b");
    let proxy = Setup::new(driver)
        .service("a", &[origin.address()], "")
        .service("b", &[other.address()], "")
        .start();
    let mut client = proxy.client();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {LENGTH}\r\n\r\nbegun"
    ));
    let mut upstream = origin.accept();
    upstream.head();
    upstream.take(5);
    upstream.send(ok("early"));
    assert_eq!(client.answer().text(), "early");
    let mut sending = client.split();
    let sender = std::thread::spawn(move || sending.send(vec![b'x'; LENGTH - 5]));
    assert!(upstream.take(LENGTH - 5).iter().all(|byte| *byte == b'x'));
    sender.join().expect("the upload is taken");
    assert_eq!(client.get("b.test", "/").text(), "b");
    let report = proxy.report_where(|report| report.exchanges() == 2);
    assert!(report.faults().is_empty(), "{report:#?}");
}

fn the_next_request_may_come_with_the_end_of_an_answered_one(driver: Driver) {
    let origin = Origin::new();
    let other = Served::saying("b");
    let proxy = Setup::new(driver)
        .service("a", &[origin.address()], "")
        .service("b", &[other.address()], "")
        .start();
    let head = "POST / HTTP/1.1\r\nHost: a.test\r\n";
    let next = "GET / HTTP/1.1\r\nHost: b.test\r\n\r\n";
    let cases = [
        ("Content-Length: 5\r\n\r\n", "hello"),
        (
            "Transfer-Encoding: chunked\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
        ),
    ];
    let mut client = proxy.client();
    for (framing, body) in cases {
        client.send(format!("{head}{framing}"));
        let mut upstream = origin.accept();
        upstream.head();
        upstream.send(ok("early"));
        assert_eq!(client.answer().text(), "early");
        client.send(format!("{body}{next}{next}"));
        assert_eq!(upstream.take(body.len()), body.as_bytes());
        // What it takes the body for is not known, so that it is not used again.
        upstream.ends();
        assert_eq!(client.answer().text(), "b");
        assert_eq!(client.answer().text(), "b");
    }
    let report = proxy.report_where(|report| report.exchanges() == 6);
    assert!(report.faults().is_empty(), "{report:#?}");
}

fn a_request_whose_endpoint_left_early_may_be_followed_by_another(driver: Driver) {
    const LENGTH: usize = 100_000;
    let origin = Origin::new();
    let other = Served::saying("b");
    let proxy = Setup::new(driver)
        .service("a", &[origin.address()], "")
        .service("b", &[other.address()], "")
        .start();
    let mut client = proxy.client();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {LENGTH}\r\n\r\nbegun"
    ));
    let mut upstream = origin.accept();
    upstream.head();
    upstream.take(5);
    upstream.send("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno");
    drop(upstream);
    let answer = client.answer();
    assert_eq!((answer.status(), answer.text().as_str()), (413, "no"));
    let told = answer.head.field("Connection").as_deref() == Some("close");
    // What follows the body is only ever read as a request.
    let written = client.try_send(vec![b'x'; LENGTH - 5]);
    if told {
        client.rest();
    } else {
        assert!(written, "the body is read to its end");
        assert_eq!(client.get("b.test", "/").text(), "b");
    }
    let report = proxy.report_where(|report| 0 < report.exchanges());
    assert!(report.faults().is_empty(), "{report:#?}");
}
