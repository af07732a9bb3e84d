//! Limits on what a service is asked for: rates and concurrency, by client address and as a whole.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Driver, GET, Origin, Proxy, Served, Setup, Wire, ok, on_both_drivers};

on_both_drivers! {
    a_burst_is_let_in_and_then_the_rate
    clients_are_limited_by_their_addresses
    a_service_is_limited_as_a_whole
    over_the_limit_of_a_client_it_is_shed_and_others_are_not
    over_the_limit_of_a_service_everybody_is_shed
    what_is_shed_reaches_no_endpoint_and_costs_no_connection
    an_exchange_makes_room_whatever_ends_it
    a_tunnel_makes_room_when_it_ends
    what_was_shed_is_reported
    each_shard_has_its_part_of_a_limit
}

const UPGRADE: &str =
    "GET /echo HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
const SWITCHING: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";

/// From one request to the next, where they are repeated.
const PAUSE: Duration = Duration::from_millis(20);

/// The service `a` on `origin`, with these limits.
fn start(driver: Driver, origin: std::net::SocketAddr, limits: &str) -> Proxy {
    Setup::new(driver)
        .admin("127.0.0.1:0")
        .service("a", &[origin], &format!("[service.limits]\n{limits}"))
        .start()
}

/// A client at 127.0.0.`number`.
fn client_at(proxy: &Proxy, number: u8) -> Wire {
    let from = IpAddr::from([127, 0, 0, number]);
    Wire::connect_from(from, proxy.address())
}

/// The request just sent was shed with this status and error, and the connection goes on.
#[track_caller]
fn is_shed(client: &mut Wire, status: u16, label: &str) {
    let answer = client.answer();
    assert_eq!(answer.status(), status);
    assert_eq!(answer.head.field("Connection"), None);
    assert!(
        answer.text().ends_with(&format!(": {label}\n")),
        "{answer:?}"
    );
    let wait = answer.head.field("Retry-After");
    let word = answer.head.proxy_error();
    if status == 429 {
        assert_eq!(word.as_deref(), Some("http_request_denied"));
        assert_eq!(wait.as_deref(), Some("1"));
    } else {
        assert_eq!((word.as_deref(), wait), (Some(label), None));
    }
}

/// Asks again and again until a request is answered with `status`.
#[track_caller]
fn until(client: &mut Wire, status: u16) {
    let answered = (0..500).any(|_| {
        client.send(GET);
        // Nobody writes to it before it asks again, so that this measures time.
        client.answer().status() == status || !client.is_quiet_for(PAUSE)
    });
    assert!(answered && client.is_quiet_for(PAUSE), "never {status}");
}

/// The new connection that the request just sent reaches the origin on; `None` when the client was
/// answered instead.
#[track_caller]
fn reached(client: &Wire, origin: &Origin) -> Option<Wire> {
    let mut turns = (0..250).map(|_| match origin.accept_within(PAUSE) {
        Some(upstream) => Some(Some(upstream)),
        None => (!client.is_quiet_for(PAUSE)).then_some(None),
    });
    let found = turns.find_map(|found| found);
    found.expect("it is let in or shed in time")
}

/// Asks again and again until there is room for a request, and has it answered.
#[track_caller]
fn until_room(client: &mut Wire, origin: &Origin, status: u16) {
    let served = (0..100).any(|_| {
        client.send(GET);
        let Some(mut upstream) = reached(client, origin) else {
            assert_eq!(client.answer().status(), status);
            return false;
        };
        upstream.request();
        upstream.send(ok("room"));
        assert_eq!(client.answer().text(), "room");
        true
    });
    assert!(served, "there is never room");
}

/// How many requests in a row are let in, at most so many.
#[track_caller]
fn let_in(client: &mut Wire, most: usize) -> usize {
    let asked = (0..most).take_while(|_| {
        client.send(GET);
        client.answer().status() == 200
    });
    asked.count()
}

/// What a JSON report says of what the service `a` has shed.
#[track_caller]
fn shed(proxy: &Proxy) -> Value {
    let answer = proxy.admin_client().get("localhost", "/report?format=json");
    let report: Value = serde_json::from_slice(&answer.body).expect("it is JSON");
    report["services"][0]["shed"].clone()
}

fn a_burst_is_let_in_and_then_the_rate(driver: Driver) {
    let origin = Served::saying("a");
    let proxy = start(
        driver,
        origin.address(),
        "client_rate = 1\nclient_burst = 5",
    );
    let mut client = proxy.client();
    let many = let_in(&mut client, 100);
    // One more for each second that this took.
    assert!((5..100).contains(&many), "{many}");
    client.send(GET);
    let answer = client.answer();
    if answer.status() == 429 {
        assert_eq!(answer.head.field("Retry-After").as_deref(), Some("1"));
    }
    // Another connection of the same address changes nothing, and asking costs nothing.
    until(&mut proxy.client(), 429);
    until(&mut client, 200);
}

fn clients_are_limited_by_their_addresses(driver: Driver) {
    let origin = Served::saying("a");
    let proxy = start(
        driver,
        origin.address(),
        "client_rate = 1\nclient_burst = 3",
    );
    for number in 1..=4 {
        let mut client = client_at(&proxy, number);
        let many = let_in(&mut client, 100);
        assert!((3..100).contains(&many), "127.0.0.{number}: {many}");
    }
    let text = proxy.report();
    assert_eq!(
        text.faults().keys().collect::<Vec<_>>(),
        ["client_rate_exceeded"]
    );
}

fn a_service_is_limited_as_a_whole(driver: Driver) {
    let origin = Served::saying("a");
    let proxy = start(driver, origin.address(), "rate = 3");
    let mut clients = [client_at(&proxy, 1), client_at(&proxy, 2)];
    let answers = (0..100).map(|turn| {
        let client = &mut clients[turn % 2];
        client.send(GET);
        client.answer().status()
    });
    let many = answers.take_while(|status| *status == 200).count();
    assert!((3..100).contains(&many), "{many}");
    until(&mut clients[0], 429);
    until(&mut clients[1], 200);
    let faults = proxy.report().faults();
    assert_eq!(faults.keys().collect::<Vec<_>>(), ["service_rate_exceeded"]);
}

fn over_the_limit_of_a_client_it_is_shed_and_others_are_not(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, origin.address(), "client_concurrent = 2");
    let mut clients = [client_at(&proxy, 1), client_at(&proxy, 1)];
    let mut upstreams = clients.each_mut().map(|client| origin.gets(client, GET));
    let mut third = client_at(&proxy, 1);
    third.send(GET);
    is_shed(&mut third, 429, "client_concurrency_exceeded");
    let mut other = client_at(&proxy, 2);
    let mut upstream = origin.gets(&mut other, GET);
    upstream.send(ok("other"));
    assert_eq!(other.answer().text(), "other");
    upstreams[0].send(ok("a"));
    assert_eq!(clients[0].answer().text(), "a");
    third.send(GET);
    upstreams[0].request();
    upstreams[0].send(ok("third"));
    assert_eq!(third.answer().text(), "third");
    upstreams[1].send(ok("b"));
    assert_eq!(clients[1].answer().text(), "b");
    proxy.counts_one_fault("client_concurrency_exceeded");
}

fn over_the_limit_of_a_service_everybody_is_shed(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, origin.address(), "concurrent = 1");
    let mut first = client_at(&proxy, 1);
    let mut upstream = origin.gets(&mut first, GET);
    let mut second = client_at(&proxy, 2);
    second.send(GET);
    is_shed(&mut second, 503, "connection_limit_reached");
    upstream.send(ok("a"));
    assert_eq!(first.answer().text(), "a");
    second.send(GET);
    upstream.request();
    upstream.send(ok("b"));
    assert_eq!(second.answer().text(), "b");
    proxy.counts_one_fault("connection_limit_reached");
}

fn what_is_shed_reaches_no_endpoint_and_costs_no_connection(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, origin.address(), "concurrent = 1");
    let mut first = proxy.client();
    let mut upstream = origin.gets(&mut first, GET);
    let mut second = proxy.client();
    for request in [
        "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello",
        "PUT / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    ] {
        second.send(request);
        is_shed(&mut second, 503, "connection_limit_reached");
    }
    // A body that is not here yet is not waited for.
    second.send(
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    let answer = second.answer();
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.head.field("Connection").as_deref(), Some("close"));
    second.ends();
    assert!(origin.has_no_more());
    upstream.send(ok("a"));
    assert_eq!(first.answer().text(), "a");
    let report = proxy.report_where(|report| report.services["a"].forwarded == 1);
    let row = &report.services["a"];
    assert_eq!((row.exchanges, row.own_answers), (5, 4));
    assert_eq!(row.endpoints.values().sum::<u64>(), 1);
}

fn an_exchange_makes_room_whatever_ends_it(driver: Driver) {
    let origin = Origin::new();
    let keys = "[service.timeouts]\nresponse = \"1s\"\n[service.limits]\nclient_concurrent = 1";
    let proxy = Setup::new(driver)
        .service("a", &[origin.address()], keys)
        .start();
    // The endpoint is late.
    let mut client = proxy.client();
    let upstream = origin.gets(&mut client, GET);
    assert_eq!(client.answer().status(), 504);
    drop(upstream);
    // The endpoint dies under a request that is not sent twice.
    let upstream = origin.gets(&mut client, "POST / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    drop(upstream);
    assert_eq!(client.answer().status(), 502);
    // The answer ends early.
    let mut upstream = origin.gets(&mut client, GET);
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
    drop(upstream);
    assert_eq!(client.head().status(), 200);
    assert_eq!(client.rest(), b"half");
    // The client is gone: its upstream connection ends, and soon after that there is room.
    let mut client = proxy.client();
    let upstream = origin.gets(&mut client, GET);
    client.reset();
    upstream.is_over();
    drop(upstream);
    until_room(&mut proxy.client(), &origin, 429);
}

fn a_tunnel_makes_room_when_it_ends(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(
        driver,
        origin.address(),
        "client_concurrent = 1\nconcurrent = 1",
    );
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, UPGRADE);
    upstream.send(SWITCHING);
    assert_eq!(client.head().status(), 101);
    client.send("ping");
    assert_eq!(upstream.take(4), b"ping");
    let mut second = proxy.client();
    second.send(GET);
    is_shed(&mut second, 429, "client_concurrency_exceeded");
    let mut third = client_at(&proxy, 3);
    third.send(GET);
    is_shed(&mut third, 503, "connection_limit_reached");
    client.reset();
    upstream.is_reset();
    until_room(&mut third, &origin, 503);
}

fn what_was_shed_is_reported(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(
        driver,
        origin.address(),
        "client_concurrent = 1\nconcurrent = 2",
    );
    let mut clients = [client_at(&proxy, 1), client_at(&proxy, 2)];
    let mut upstreams = clients.each_mut().map(|client| origin.gets(client, GET));
    for _ in 0..2 {
        let mut more = client_at(&proxy, 1);
        more.send(GET);
        is_shed(&mut more, 429, "client_concurrency_exceeded");
    }
    let mut more = client_at(&proxy, 3);
    for _ in 0..3 {
        more.send(GET);
        is_shed(&mut more, 503, "connection_limit_reached");
    }
    for (client, upstream) in clients.iter_mut().zip(&mut upstreams) {
        upstream.send(ok("a"));
        assert_eq!(client.answer().text(), "a");
    }
    let expected = serde_json::json!({
        "client_rate": 0, "client_concurrent": 2, "rate": 0, "concurrent": 3,
        "legs_max": 0, "kept_bytes_max": 0,
    });
    assert_eq!(shed(&proxy), expected);
    let report = proxy.report_where(|report| report.services["a"].forwarded == 2);
    let expected = [("client_concurrent", 2), ("concurrent", 3)];
    let expected = expected.map(|(limit, count)| (limit.to_owned(), count));
    assert_eq!(report.services["a"].shed, expected.into());
}

fn each_shard_has_its_part_of_a_limit(driver: Driver) {
    const SHARDS: usize = 2;
    let origin = Origin::new();
    let proxy = Setup::new(driver)
        .shards(SHARDS as u32)
        .service("a", &[origin.address()], "[service.limits]\nconcurrent = 4")
        .start();
    // Which shard a connection comes to is the kernel's to say. With so many each gets its part.
    let (mut held, mut shed) = (Vec::new(), 0);
    for _ in 0..100 {
        let mut client = proxy.client();
        client.send(GET);
        match reached(&client, &origin) {
            Some(upstream) => held.push((client, upstream)),
            None => {
                is_shed(&mut client, 503, "connection_limit_reached");
                shed += 1;
            }
        }
        if held.len() == 4 && 3 < shed {
            break;
        }
    }
    assert_eq!(held.len(), 4, "two on each shard");
    for (mut client, mut upstream) in held {
        upstream.request();
        upstream.send(ok("a"));
        assert_eq!(client.answer().text(), "a");
    }
}
