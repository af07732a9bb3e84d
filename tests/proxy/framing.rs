//! Where bodies end, in both directions (RFC 9112 section 6), and what two readers could frame
//! differently.

use crate::support::{Driver, GET, Origin, POST, Served, ok, on_both_drivers};

on_both_drivers! {
    a_request_body_of_any_framing_arrives_whole
    an_answer_of_any_framing_arrives_whole
    any_split_of_the_bytes_gives_the_same_exchange
    an_answer_to_head_204_and_304_has_no_body
    an_answer_without_framing_ends_with_its_connection
    ambiguous_framing_is_refused_and_the_connection_closed
    ambiguous_framing_of_an_answer_is_a_502
    a_client_of_http_1_0_is_served
    pipelined_requests_are_answered_in_order
    a_transfer_coding_that_we_do_not_know_is_a_501
    a_chunk_that_no_body_reaches_is_refused
    forbidden_trailers_are_dropped_both_ways
}

fn echo() -> Served {
    Served::new(|request| ok(&String::from_utf8_lossy(&request.body)))
}

fn a_request_body_of_any_framing_arrives_whole(driver: Driver) {
    let origin = echo();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    let head = "POST / HTTP/1.1\r\nHost: a.test\r\n";
    let cases = [
        ("Content-Length: 5\r\n\r\nhello", "hello"),
        ("Content-Length: 0\r\n\r\n", ""),
        ("\r\n", ""),
        (
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "hello",
        ),
        (
            "Transfer-Encoding: Chunked\r\n\r\n1;a=b\r\nh\r\n004\r\nello\r\n0\r\nX-T: 1\r\n\r\n",
            "hello",
        ),
        ("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ""),
    ];
    for (rest, body) in cases {
        client.send(format!("{head}{rest}"));
        assert_eq!(client.answer().text(), body, "{rest:?}");
    }
}

fn an_answer_of_any_framing_arrives_whole(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    client.send(GET);
    let mut upstream = origin.accept();
    let cases = [
        ("Content-Length: 5\r\n\r\nhello", "hello"),
        ("Content-Length: 0\r\n\r\n", ""),
        (
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "hello",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nX: 1\r\n\r\n",
            "hello",
        ),
    ];
    for (rest, body) in cases {
        upstream.request();
        upstream.send(format!("HTTP/1.1 200 OK\r\n{rest}"));
        assert_eq!(client.answer().text(), body, "{rest:?}");
        client.send(GET);
    }
    upstream.request();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    client.answer();
    assert!(origin.has_no_more(), "one connection carried all of it");
}

fn any_split_of_the_bytes_gives_the_same_exchange(driver: Driver) {
    let origin = echo();
    let proxy = driver.proxy_for(origin.address());
    let request = "POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n\
        3\r\nabc\r\n00a;x=\"y\"\r\n0123456789\r\n0\r\nX-T: x\r\nTE: y\r\n\r\n";
    let mut client = proxy.client();
    for split in 1..request.len() {
        let (first, second) = request.split_at(split);
        client.send(first);
        client.send(second);
        assert_eq!(client.answer().text(), "abc0123456789", "split at {split}");
    }
    for byte in request.as_bytes() {
        client.send([*byte]);
    }
    assert_eq!(client.answer().text(), "abc0123456789", "byte by byte");
}

fn an_answer_to_head_204_and_304_has_no_body(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, "HEAD / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let cases = [
        ("HEAD", "200 OK\r\nContent-Length: 1000\r\n\r\n"),
        ("HEAD", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", "204 No Content\r\n\r\n"),
        ("GET", "304 Not Modified\r\nContent-Length: 1000\r\n\r\n"),
        ("GET", "200 OK\r\nContent-Length: 0\r\n\r\n"),
    ];
    for (place, (method, answer)) in cases.into_iter().enumerate() {
        upstream.send(format!("HTTP/1.1 {answer}"));
        let given = client.answer_to(method);
        assert!(answer.starts_with(&given.status().to_string()));
        if answer.contains("1000") {
            let length = given.head.field("Content-Length");
            assert_eq!(length.as_deref(), Some("1000"), "{answer:?}");
        }
        if let Some((next, _)) = cases.get(place + 1) {
            client.send(format!("{next} / HTTP/1.1\r\nHost: a.test\r\n\r\n"));
            upstream.request();
        }
    }
}

fn an_answer_without_framing_ends_with_its_connection(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    upstream.send("HTTP/1.1 200 OK\r\nX: 1\r\n\r\nhello");
    upstream.send(", world");
    drop(upstream);
    assert_eq!(client.answer().text(), "hello, world");
    origin.answers_next(proxy.client());
}

fn ambiguous_framing_is_refused_and_the_connection_closed(driver: Driver) {
    let origin = echo();
    let proxy = driver.proxy_for(origin.address());
    let cases = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "Content-Length: 5, 6\r\n\r\nhello",
        "Content-Length: +5\r\n\r\nhello",
        "Content-Length: -5\r\n\r\nhello",
        "Content-Length: 0x5\r\n\r\nhello",
        "Content-Length: \r\n\r\nhello",
        "Content-Length: 99999999999999999999999\r\n\r\nhello",
        "Content-Length : 5\r\n\r\nhello",
        " Content-Length: 5\r\n\r\nhello",
        "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        "Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        "X-A: 1\nContent-Length: 5\r\n\r\nhello",
        "X-A: 1\r\n Content-Length: 5\r\n\r\nhello",
        "X-A: a\0b\r\n\r\n",
        "Host: b.test\r\n\r\n",
    ];
    for rest in cases {
        let mut client = proxy.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\n{rest}"));
        let answer = client.answer();
        // RFC 9112 section 6.1: an unknown coding may be a 501.
        assert!(matches!(answer.status(), 400 | 501), "{rest:?}: {answer:?}");
        let error = answer.head.proxy_error();
        assert_eq!(error.as_deref(), Some("http_request_error"), "{rest:?}");
        let connection = answer.head.field("Connection");
        assert_eq!(connection.as_deref(), Some("close"), "{rest:?}");
        client.ends();
    }
    let counts = proxy.report_where(|report| report.faults().len() == 1);
    let refused = counts.faults();
    let total: u64 = refused.values().sum();
    assert!(total <= cases.len() as u64, "{refused:?}");
    assert_eq!(proxy.client().get("a.test", "/").status(), 200);
}

fn ambiguous_framing_of_an_answer_is_a_502(driver: Driver) {
    let cases = [
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "Content-Length: 5x\r\n\r\nhello",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "X-A : 1\r\nContent-Length: 0\r\n\r\n",
    ];
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    for rest in cases {
        // Not idempotent, so that no other try follows.
        let mut upstream = origin.gets(&mut client, POST);
        upstream.send(format!("HTTP/1.1 200 OK\r\n{rest}"));
        let answer = client.answer();
        assert_eq!(answer.status(), 502, "{rest:?}");
        upstream.ends();
    }
}

fn a_client_of_http_1_0_is_served(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    client.send("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n");
    let mut upstream = origin.accept();
    // RFC 9110 section 2.5: an intermediary speaks its own version.
    assert_eq!(upstream.request().head.start, "GET / HTTP/1.1");
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    upstream.send(format!("{head}5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"));
    // RFC 9112 section 6.1: no transfer coding towards HTTP/1.0, and so no trailers; the body ends
    // with the connection.
    let answer = client.answer();
    assert_eq!(answer.head.field("Transfer-Encoding"), None);
    assert_eq!(answer.text(), "hello");
    client.ends();

    let mut client = proxy.client();
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n");
        upstream.request();
        upstream.send(ok("again"));
        let answer = client.answer();
        assert_eq!(answer.text(), "again");
        let connection = answer.head.field("Connection").unwrap_or_default();
        assert_eq!(connection.to_lowercase(), "keep-alive");
    }
}

fn pipelined_requests_are_answered_in_order(driver: Driver) {
    let origin = Served::new(|request| ok(&request.head.start));
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    let requests: String = (0..20)
        .map(|number| match number % 2 {
            0 => format!("GET /{number} HTTP/1.1\r\nHost: a.test\r\n\r\n"),
            _ => format!("POST /{number} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nGET"),
        })
        .collect();
    client.send(requests);
    for number in 0..20 {
        let method = ["GET", "POST"][number % 2];
        let expected = format!("{method} /{number} HTTP/1.1");
        assert_eq!(client.answer().text(), expected);
    }
}

fn a_transfer_coding_that_we_do_not_know_is_a_501(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n");
    let answer = client.answer();
    assert_eq!(answer.status(), 501);
    client.ends();
    proxy.counts_one_fault("http_request_unsupported");
}

/// Such a size overflows whoever adds the length of a chunk's end to it.
fn a_chunk_that_no_body_reaches_is_refused(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let head = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    for size in ["ffffffffffffffff", "fffffffffffffffe", "8000000000000000"] {
        let mut client = proxy.client();
        client.send(format!("{head}{size}\r\nx"));
        assert_eq!(client.answer().status(), 400, "{size} with its head");
        client.ends();
        assert!(origin.has_no_more(), "{size} is not sent on");

        let mut client = proxy.client();
        client.send(format!("{head}1\r\na\r\n"));
        let mut upstream = origin.accept();
        upstream.head();
        assert_eq!(upstream.take(6), b"1\r\na\r\n");
        client.send(format!("{size}\r\nx"));
        assert_eq!(client.answer().status(), 400, "{size} behind its head");
        upstream.ends();
    }
    let mut client = proxy.client();
    for size in ["ffffffffffffffff", "8000000000000000"] {
        let mut upstream = origin.gets(&mut client, POST);
        let coded = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        upstream.send(format!("{coded}{size}\r\nx"));
        assert_eq!(client.answer().status(), 502, "{size} in an answer");
        upstream.ends();
    }
}

/// RFC 9110 section 6.5.1. What follows the trailers is the next message, and goes on unchanged.
fn forbidden_trailers_are_dropped_both_ways(driver: Driver) {
    let sent = "3\r\nabc\r\n0\r\nX-T: 1\r\nX-U: 2\r\n\r\n";
    let body = sent.replace("X-U", "Content-Length: 9\r\nHost: b.test\r\nX-U");
    let coded = "Transfer-Encoding: chunked\r\n\r\n";
    let request = format!("POST / HTTP/1.1\r\nHost: a.test\r\n{coded}{body}{GET}");
    let answer = format!("HTTP/1.1 200 OK\r\n{coded}{body}");
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    client.send(POST);
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send(ok(""));
    client.answer();
    for piece in [request.len(), 7, 1] {
        request
            .as_bytes()
            .chunks(piece)
            .for_each(|piece| client.send(piece));
        upstream.head();
        let arrived = upstream.take(sent.len());
        assert_eq!(arrived, sent.as_bytes(), "in pieces of {piece}");
        answer
            .as_bytes()
            .chunks(piece)
            .for_each(|piece| upstream.send(piece));
        client.head();
        let arrived = client.take(sent.len());
        assert_eq!(arrived, sent.as_bytes(), "back in pieces of {piece}");
        assert_eq!(upstream.request().head.start, "GET / HTTP/1.1");
        upstream.send(ok("next"));
        assert_eq!(client.answer().text(), "next");
    }
}
