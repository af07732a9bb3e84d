//! ringmain's own answers: status, Proxy-Status, a one-line text body, and one fault under its
//! label.

use crate::support::{Driver, GET, Message, Origin, POST, Proxy, Served, Setup, on_both_drivers};

on_both_drivers! {
    bad_heads_are_refused
    heads_over_their_limits_are_refused
    a_head_that_does_not_end_is_a_408
    a_body_that_does_not_come_is_a_408
    a_body_over_its_limit_is_a_413
    an_endpoint_that_refuses_is_a_502
    an_endpoint_that_answers_garbage_is_a_502
    an_endpoint_that_does_not_accept_is_a_504
    an_endpoint_that_never_answers_is_a_504
    a_request_that_came_back_is_a_502
    a_client_over_the_limit_is_shed
    max_forwards_says_where_options_and_trace_end
}

#[track_caller]
fn check(answer: &Message, status: u16, word: &str) {
    assert_eq!(answer.status(), status, "{answer:?}");
    assert_eq!(
        answer.head.proxy_error().as_deref(),
        Some(word),
        "{answer:?}"
    );
    let kind = answer.head.field("Content-Type").unwrap_or_default();
    assert!(kind.starts_with("text/plain"), "{answer:?}");
    assert_eq!(answer.text().lines().count(), 1, "{answer:?}");
}

/// Sends `request` on a new client: it is refused, counted, the connection ends, and the next
/// client is served.
#[track_caller]
fn check_refused(proxy: &Proxy, request: &[u8], status: u16, label: &str) {
    let before = proxy.report().faults().get(label).copied().unwrap_or(0);
    let mut client = proxy.client();
    client.try_send(request);
    let answer = client.answer();
    let begin = &request[..request.len().min(80)];
    assert_eq!(answer.status(), status, "{}", begin.escape_ascii());
    check(&answer, status, "http_request_error");
    let connection = answer.head.field("Connection");
    assert_eq!(connection.as_deref(), Some("close"), "{answer:?}");
    client.ends();
    proxy.report_where(|report| report.faults().get(label) == Some(&(before + 1)));
    assert_eq!(proxy.client().get("a.test", "/").status(), 200);
}

fn bad_heads_are_refused(driver: Driver) {
    let origin = Served::saying("a");
    let proxy = driver.proxy_for(origin.address());
    let invalid: [&[u8]; 9] = [
        b"GARBAGE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.test\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.test\r\nX-Bad name: 1\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a.test\n\n",
        b"GET  / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"GET / x HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ];
    for request in invalid {
        check_refused(&proxy, request, 400, "http_request_error");
    }
    let version = b"GET / HTTP/2.0\r\nHost: a.test\r\n\r\n";
    check_refused(&proxy, version, 505, "http_request_version");
    let expectation = b"PUT / HTTP/1.1\r\nHost: a.test\r\nExpect: y 100-continue\r\n\r\n";
    check_refused(&proxy, expectation, 417, "http_request_expectation");
    assert_eq!(proxy.report().faults().len(), 3);
}

fn heads_over_their_limits_are_refused(driver: Driver) {
    let origin = Served::saying("a");
    let proxy = Setup::new(driver)
        .listener("[listener.limits]\nhead_bytes_max = \"4KiB\"\nfields_max = 20")
        .service("a", &[origin.address()], "")
        .start();
    let head = "GET / HTTP/1.1\r\nHost: a.test\r\n";
    let large = "http_request_header_section_size";
    let fields = "X-Field: 1\r\n".repeat(21);
    check_refused(&proxy, format!("{head}{fields}\r\n").as_bytes(), 431, large);
    let long = "x".repeat(5000);
    check_refused(
        &proxy,
        format!("{head}X: {long}\r\n\r\n").as_bytes(),
        431,
        large,
    );
    let million = "x".repeat(1 << 20);
    check_refused(
        &proxy,
        format!("{head}X: {million}\r\n\r\n").as_bytes(),
        431,
        large,
    );
    let target = format!("GET /{long} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    check_refused(&proxy, target.as_bytes(), 414, "http_request_target_size");
    // Just below, all is well.
    let mut client = proxy.client();
    let fields = "X-Field: 1\r\n".repeat(19);
    client.send(format!("{head}{fields}\r\n"));
    assert_eq!(client.answer().status(), 200);
    let value = "x".repeat(4096 - head.len() - "X: \r\n\r\n".len());
    client.send(format!("{head}X: {value}\r\n\r\n"));
    assert_eq!(client.answer().status(), 200);
}

fn a_head_that_does_not_end_is_a_408(driver: Driver) {
    let origin = Served::saying("a");
    let proxy = Setup::new(driver)
        .listener("[listener.timeouts]\nhead = \"200ms\"\nkeep_alive = \"300ms\"")
        .service("a", &[origin.address()], "")
        .start();
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHo");
    check(&client.answer(), 408, "http_request_error");
    client.ends();
    proxy.counts_one_fault("http_request_timeout");
    // A kept-alive client that is quiet has begun nothing: it is closed without a word.
    let mut client = proxy.client();
    assert_eq!(client.get("a.test", "/").status(), 200);
    client.ends();
    proxy.counts_one_fault("http_request_timeout");
}

fn a_body_that_does_not_come_is_a_408(driver: Driver) {
    let origin = Origin::new();
    let proxy = Setup::new(driver)
        .listener("[listener.timeouts]\nbody_idle = \"200ms\"")
        .service("a", &[origin.address()], "")
        .start();
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhello");
    let mut upstream = origin.accept();
    upstream.head();
    upstream.take(5);
    check(&client.answer(), 408, "http_request_error");
    client.ends();
    upstream.ends();
    proxy.counts_one_fault("http_request_timeout");
}

fn a_body_over_its_limit_is_a_413(driver: Driver) {
    let origin = Served::saying("a");
    let proxy = Setup::new(driver)
        .listener("[listener.limits]\nbody_bytes_max = 10")
        .service("a", &[origin.address()], "")
        .start();
    let head = "POST / HTTP/1.1\r\nHost: a.test\r\n";
    let mut client = proxy.client();
    client.send(format!("{head}Content-Length: 10\r\n\r\n0123456789"));
    assert_eq!(client.answer().status(), 200);
    let announced = format!("{head}Content-Length: 11\r\n\r\n0123456789a");
    let label = "http_request_body_size";
    check_refused(&proxy, announced.as_bytes(), 413, label);
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\nb\r\n0123456789a\r\n");
    check_refused(&proxy, chunked.as_bytes(), 413, label);
}

fn an_endpoint_that_refuses_is_a_502(driver: Driver) {
    let proxy = Setup::new(driver)
        .service("a", &[Origin::refused()], "")
        .start();
    let mut client = proxy.client();
    check(&client.get("a.test", "/"), 502, "connection_refused");
    proxy.counts_one_fault("connection_refused");
    // The client's connection outlives the fault.
    check(&client.get("a.test", "/"), 502, "connection_refused");
}

fn an_endpoint_that_answers_garbage_is_a_502(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    let cases = [
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "http_protocol_error"),
        ("HTTP/1.1 20 OK\r\n\r\n", "http_protocol_error"),
        ("HTTP/3.0 200 OK\r\n\r\n", "http_protocol_error"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "http_response_transfer_coding",
        ),
        (&long, "http_response_header_section_size"),
    ];
    let mut client = proxy.client();
    for (bytes, word) in cases {
        let mut upstream = origin.gets(&mut client, POST);
        upstream.try_send(bytes);
        check(&client.answer(), 502, word);
        upstream.ends();
    }
    let report = proxy.report_where(|report| report.faults().values().sum::<u64>() == 5);
    assert_eq!(report.services["a"].own_answers, 5);
}

fn an_endpoint_that_does_not_accept_is_a_504(driver: Driver) {
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let full = full.expect("a descriptor is free");
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    full.bind(&any.into()).expect("a port is free");
    full.listen(0).expect("the socket is bound");
    let address = full.local_addr().expect("it is bound").as_socket();
    let address = address.expect("it is IPv4");
    // With a backlog of 0 one connection is queued; the SYN of the next is dropped.
    let _queued = crate::support::Wire::connect(address);
    let keys = "[service.timeouts]\nconnect = \"150ms\"\n[service.retry]\nattempts_max = 0";
    let proxy = Setup::new(driver).service("a", &[address], keys).start();
    let mut client = proxy.client();
    check(&client.get("a.test", "/"), 504, "connection_timeout");
    proxy.counts_one_fault("connection_timeout");
}

fn an_endpoint_that_never_answers_is_a_504(driver: Driver) {
    let origin = Origin::new();
    let keys = "[service.timeouts]\nresponse = \"200ms\"\nreceive_idle = \"200ms\"";
    let proxy = Setup::new(driver)
        .service("a", &[origin.address()], keys)
        .start();
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    check(&client.answer(), 504, "http_response_timeout");
    upstream.ends();
    assert!(origin.has_no_more(), "what was sent is not tried again");
    proxy.counts_one_fault("http_response_timeout");
}

fn a_request_that_came_back_is_a_502(driver: Driver) {
    let origin = Served::saying("a");
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\nVia: 1.1 x, 1.1 ringmain-test\r\n\r\n");
    check(&client.answer(), 502, "proxy_loop_detected");
    assert_eq!(origin.requests(), 0);
    proxy.counts_one_fault("proxy_loop_detected");
}

fn a_client_over_the_limit_is_shed(driver: Driver) {
    let origin = Served::saying("a");
    let proxy = Setup::new(driver)
        .listener("[listener.limits]\nconnections_max = 2")
        .expects_line("connections_max is reached")
        .service("a", &[origin.address()], "")
        .start();
    let mut first = proxy.client();
    let mut second = proxy.client();
    assert_eq!(first.get("a.test", "/").status(), 200);
    assert_eq!(second.get("a.test", "/").status(), 200);
    let mut third = proxy.client();
    third.try_send(GET);
    check(&third.answer(), 503, "connection_limit_reached");
    third.ends();
    proxy.counts_one_fault("connection_limit_reached");
    drop(first);
    proxy.report_where(|report| report.connections <= 1);
    assert_eq!(proxy.client().get("a.test", "/").status(), 200);
}

/// RFC 9110 section 7.6.2.
fn max_forwards_says_where_options_and_trace_end(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    let request = |method: &str, hops: &str| {
        format!("{method} * HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: {hops}\r\n\r\n")
    };
    client.send(request("OPTIONS", "0"));
    let answer = client.answer();
    assert_eq!((answer.status(), answer.text().as_str()), (200, ""));
    let status = answer.head.field("Proxy-Status");
    assert_eq!(status.as_deref(), Some("ringmain"));

    // It is no fault, and the connection goes on.
    client.send(request("OPTIONS", "2"));
    let mut upstream = origin.accept();
    let seen = upstream.request().head;
    assert_eq!(seen.start, "OPTIONS * HTTP/1.1");
    assert_eq!(seen.field("Max-Forwards").as_deref(), Some("1"));
    upstream.send("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(client.answer().status(), 204);

    let trace = request("TRACE", "0").replace(" * ", " / ");
    client.send(trace);
    check(&client.answer(), 501, "http_request_error");
    let report = proxy.report_where(|report| report.exchanges() == 3);
    let row = &report.services["a"];
    assert_eq!((row.forwarded, row.own_answers), (1, 2));
    assert_eq!(
        row.faults,
        [("http_request_unsupported".to_owned(), 1)].into()
    );
    client.send(request("OPTIONS", "x"));
    check(&client.answer(), 400, "http_request_error");
    client.ends();
}
