//! Answers that come before the request has ended (RFC 9112 section 9.6).

use std::time::Duration;

use crate::support::{Driver, Origin, Served, Setup, Wire, ok, on_both_drivers};

on_both_drivers! {
    a_client_that_falls_silent_after_its_answer_is_closed
    an_upload_goes_on_behind_an_answer_that_was_early
}

/// A read of a client that lingers takes at most two seconds, give or take a tick; the machine may
/// be busy.
const LINGERING: Duration = Duration::from_secs(4);

/// What the origin does instead of reading on.
type End = fn(&mut Wire);

/// Begins a request of 1000 bytes for `host`.
fn begin(client: &mut Wire, host: &str) {
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000\r\n\r\n12345"
    ));
}

fn a_client_that_falls_silent_after_its_answer_is_closed(driver: Driver) {
    let origin = Origin::new();
    let proxy = Setup::new(driver)
        .expects_line("destination_not_found")
        .service("a", &[origin.address()], "")
        .start();
    let endings: [(u16, &str, End); 4] = [
        (502, "a.test", Wire::cut),
        (401, "a.test", |upstream| {
            upstream.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
        }),
        (403, "a.test", |upstream| {
            upstream
                .send("HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        }),
        (404, "unknown.test", |_| {}),
    ];
    let mut open = Vec::new();
    for (status, host, end) in endings {
        let mut client = proxy.client();
        begin(&mut client, host);
        let mut upstream = None;
        if host == "a.test" {
            let mut accepted = origin.accept();
            accepted.head();
            accepted.take(5);
            end(&mut accepted);
            upstream = Some(accepted);
        }
        assert_eq!(client.answer().status(), status);
        client.try_send("6");
        open.push((status, client, upstream));
    }
    // All of them linger at once.
    for (status, client, _upstream) in &mut open {
        assert!(!client.is_quiet_for(LINGERING), "{status}: it stays open");
        client.ends();
    }
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
