//! Connections that outlive an exchange, on both sides, and the ways in which they end.

use crate::support::{Driver, GET, Origin, POST, Served, Setup, ok, on_both_drivers};

on_both_drivers! {
    many_requests_of_many_clients_share_one_upstream_connection
    a_connection_is_not_pooled_when_either_side_ends_it
    idle_max_bounds_the_pool
    an_idle_connection_is_closed_at_its_age
    a_connection_that_the_origin_closed_never_becomes_a_502
    a_request_that_meets_a_closing_connection_is_replayed_once
    an_origin_that_closes_all_its_connections_at_once_never_becomes_a_502
    a_post_is_not_replayed
    bytes_that_nobody_asked_for_end_a_pooled_connection
    a_body_where_none_may_be_is_nobodys_answer
    a_line_end_behind_an_answer_is_survived
    a_client_that_asks_for_close_gets_it
    a_client_that_half_closes_gets_its_answer
    a_client_that_resets_ends_the_upstream_exchange
}

fn many_requests_of_many_clients_share_one_upstream_connection(driver: Driver) {
    let origin = Served::saying("a");
    let proxy = driver.proxy_for(origin.address());
    for _ in 0..5 {
        let mut client = proxy.client();
        for _ in 0..20 {
            assert_eq!(client.get("a.test", "/").text(), "a");
        }
    }
    assert_eq!(origin.requests(), 100);
    assert_eq!(origin.connections(), 1);
}

fn a_connection_is_not_pooled_when_either_side_ends_it(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    let answers = [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    ];
    for answer in answers {
        let mut upstream = origin.gets(&mut client, GET);
        upstream.send(answer);
        assert_eq!(client.answer().text(), "hi");
        upstream.ends();
    }
}

fn idle_max_bounds_the_pool(driver: Driver) {
    let origin = Origin::new();
    let proxy = Setup::new(driver)
        .service("a", &[origin.address()], "[service.pool]\nidle_max = 1")
        .start();
    let mut clients = [proxy.client(), proxy.client()];
    let mut upstreams = Vec::new();
    for client in &mut clients {
        upstreams.push(origin.gets(client, GET));
    }
    for (client, upstream) in clients.iter_mut().zip(&mut upstreams) {
        upstream.send(ok("a"));
        client.answer();
    }
    upstreams[1].ends();
    clients[1].send(GET);
    upstreams[0].request();
    upstreams[0].send(ok("b"));
    assert_eq!(clients[1].answer().text(), "b");
}

fn an_idle_connection_is_closed_at_its_age(driver: Driver) {
    let origin = Origin::new();
    let proxy = Setup::new(driver)
        .service("a", &[origin.address()], "[service.pool]\nidle = \"200ms\"")
        .start();
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    upstream.send(ok("a"));
    client.answer();
    upstream.ends();
}

fn a_connection_that_the_origin_closed_never_becomes_a_502(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    for number in 0..50 {
        let mut upstream = origin.gets(&mut client, GET);
        upstream.send(ok("a"));
        drop(upstream);
        let answer = client.answer();
        assert_eq!(answer.status(), 200, "at exchange {number}");
    }
    // A request that can't be replayed is not sent on a connection that has ended.
    for number in 0..20 {
        let mut upstream = origin.gets(&mut client, POST);
        upstream.send(ok("a"));
        drop(upstream);
        let answer = client.answer();
        assert_eq!(answer.status(), 200, "at POST {number}");
    }
    assert!(proxy.report().faults().is_empty());
}

fn a_request_that_meets_a_closing_connection_is_replayed_once(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    let mut first = origin.gets(&mut client, GET);
    first.send(ok("a"));
    client.answer();
    client.send(GET);
    first.request();
    drop(first);
    let mut second = origin.accept();
    second.request();
    second.send(ok("b"));
    assert_eq!(client.answer().text(), "b");
    assert!(proxy.report().faults().is_empty());
}

/// As when it restarts under load: every pooled connection is stale, and was used a moment ago.
fn an_origin_that_closes_all_its_connections_at_once_never_becomes_a_502(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut clients: Vec<_> = (0..6).map(|_| proxy.client()).collect();
    let mut upstreams = Vec::new();
    for client in &mut clients {
        upstreams.push(origin.gets(client, GET));
    }
    for upstream in &mut upstreams {
        upstream.send(ok("before"));
    }
    for client in &mut clients {
        client.answer();
    }
    drop(upstreams);
    for client in &mut clients {
        let mut upstream = origin.gets(client, GET);
        upstream.send(ok("after"));
        assert_eq!(client.answer().text(), "after");
    }
    assert!(proxy.report().faults().is_empty());
}

fn a_post_is_not_replayed(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    drop(origin.gets(&mut client, POST));
    let answer = client.answer();
    assert_eq!(answer.status(), 502);
    let error = answer.head.proxy_error();
    assert_eq!(error.as_deref(), Some("connection_terminated"));
    assert!(origin.has_no_more());
    proxy.counts_one_fault("connection_terminated");
}

fn bytes_that_nobody_asked_for_end_a_pooled_connection(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n\r\nforged");
    assert_eq!(client.answer().text(), "hi");
    let mut upstream = origin.gets(&mut client, GET);
    upstream.send(ok("true"));
    assert_eq!(client.answer().text(), "true");
}

/// RFC 9112 section 6.3 rule 1: there is none; it would be read as the next answer.
fn a_body_where_none_may_be_is_nobodys_answer(driver: Driver) {
    const BODY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nNO";
    let cases = [
        ("HEAD", "200 OK\r\nContent-Length: 40"),
        ("HEAD", "200 OK\r\nTransfer-Encoding: chunked"),
        ("GET", "204 No Content"),
        ("GET", "304 Not Modified\r\nContent-Length: 40"),
    ];
    assert_eq!(BODY.len(), 40);
    for (method, answer) in cases {
        let origin = Origin::new();
        let proxy = driver.proxy_for(origin.address());
        let mut client = proxy.client();
        let request = format!("{method} / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let mut upstream = origin.gets(&mut client, &request);
        upstream.send(format!("HTTP/1.1 {answer}\r\n\r\n"));
        client.answer_to(method);
        upstream.try_send(BODY);
        origin.answers_next(proxy.client());
        upstream.ends();
    }
}

fn a_line_end_behind_an_answer_is_survived(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    upstream.send(ok("a"));
    assert_eq!(client.answer().text(), "a");
    upstream.try_send("\r\n");
    origin.answers_next(client);
    // The request may have met the stray bytes there before it was sent again.
    upstream.rest();
    assert!(proxy.report().faults().is_empty());
}

fn a_client_that_asks_for_close_gets_it(driver: Driver) {
    let origin = Served::saying("a");
    let proxy = driver.proxy_for(origin.address());
    for _ in 0..3 {
        let mut client = proxy.client();
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Close\r\n\r\n");
        let answer = client.answer();
        assert_eq!(answer.head.field("Connection").as_deref(), Some("close"));
        client.ends();
    }
    assert_eq!(origin.connections(), 1, "the upstream connection stays");
}

fn a_client_that_half_closes_gets_its_answer(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    client.send(GET);
    client.finish_sending();
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send(ok("a"));
    assert_eq!(client.answer().text(), "a");
    client.ends();
}

fn a_client_that_resets_ends_the_upstream_exchange(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    client.reset();
    upstream.ends();
    proxy.counts_one_fault("client_gone");
}
