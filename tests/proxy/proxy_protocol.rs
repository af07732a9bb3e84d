//! The PROXY protocol, both ways: clients that another proxy speaks for, and endpoints that are
//! told whose connection it is.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use crate::support::{
    Driver, GET, Message, Origin, Proxy, Served, Setup, Wire, ok, on_both_drivers,
};

on_both_drivers! {
    the_client_is_who_the_header_says
    a_header_may_come_in_any_pieces
    a_header_without_addresses_leaves_the_connections_own
    what_is_no_header_closes_the_connection
    a_header_that_does_not_come_in_time_closes_the_connection
    who_says_nothing_is_not_counted
    a_drain_closes_who_has_not_sent_its_header
    each_listener_expects_what_it_says
    limits_are_of_the_address_in_the_header
    a_client_is_hashed_by_the_address_in_the_header
    an_endpoint_is_told_whose_connection_it_is
    an_endpoint_is_told_of_ipv6
    two_proxies_keep_the_first_address
    a_retry_tells_the_next_endpoint
    no_connection_serves_two_requests
    who_waits_for_a_connection_makes_a_new_one
    a_tunnel_begins_with_the_header
    a_session_of_tcp_keeps_the_first_address
    each_leg_of_a_fan_out_is_told_whose_connection_it_is
    probes_begin_with_a_header_of_ringmains_own
}

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A request on the begin of a connection, behind a header of version 1 from 192.0.2.`number`.
fn line(number: u8) -> String {
    format!("PROXY TCP4 192.0.2.{number} 198.51.100.7 56324 443\r\n")
}

/// A header of version 2.
fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = (block.len() as u16).to_be_bytes();
    [SIGNATURE, &[command, family], &length, block].concat()
}

/// As [`line`], in version 2, with something behind the addresses.
fn binary_from(number: u8) -> Vec<u8> {
    let block = [192, 0, 2, number, 198, 51, 100, 7, 220, 4, 1, 187];
    binary(0x21, 0x11, &[&block[..], b"\x02\0\x01a"].concat())
}

/// A proxy that expects headers, with the service `a` on `origins`.
fn receiving(driver: Driver, origins: &[SocketAddr], keys: &str) -> Setup {
    Setup::new(driver)
        .listener("proxy_protocol = true")
        .admin("127.0.0.1:0")
        .service("a", origins, keys)
}

/// A proxy that tells `origin` whose connection it is.
fn sending(driver: Driver, origin: SocketAddr, keys: &str) -> Setup {
    Setup::new(driver).service("a", &[origin], keys)
}

/// An origin whose answers say for whom it was asked.
fn echo() -> Served {
    Served::new(|request: &Message| ok(&request.head.field("X-Forwarded-For").unwrap_or_default()))
}

/// A number of the shard's, in a JSON report.
#[track_caller]
fn of_shard(proxy: &Proxy, key: &str) -> u64 {
    let answer = proxy.admin_client().get("localhost", "/report?format=json");
    let report: Value = serde_json::from_slice(&answer.body).expect("it is JSON");
    let number = report["shards"][0][key].as_u64();
    number.expect("it is a number")
}

/// How many clients were closed for want of a header.
#[track_caller]
fn unproxied(proxy: &Proxy) -> u64 {
    of_shard(proxy, "unproxied")
}

/// Sends `header` and a request in one segment; for whom the origin was asked.
#[track_caller]
fn asked_for(proxy: &Proxy, header: &[u8]) -> String {
    let mut client = proxy.client();
    client.send([header, GET.as_bytes()].concat());
    let answer = client.answer().text();
    client.send(GET);
    assert_eq!(
        client.answer().text(),
        answer,
        "the header is of the connection"
    );
    answer
}

fn the_client_is_who_the_header_says(driver: Driver) {
    let origin = echo();
    let proxy = receiving(driver, &[origin.address()], "").start();
    assert_eq!(asked_for(&proxy, line(1).as_bytes()), "192.0.2.1");
    assert_eq!(asked_for(&proxy, &binary_from(2)), "192.0.2.2");
    let v6 = b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n";
    assert_eq!(asked_for(&proxy, v6), "2001:db8::1");
    let mut block = [0; 36];
    (block[0], block[1], block[15]) = (0x20, 1, 9);
    assert_eq!(asked_for(&proxy, &binary(0x21, 0x21, &block)), "2001::9");
    assert_eq!(unproxied(&proxy), 0);
}

fn a_header_may_come_in_any_pieces(driver: Driver) {
    let origin = echo();
    let proxy = receiving(driver, &[origin.address()], "").start();
    let long = [binary_from(3), b"\x04\x0b\xb8".to_vec(), vec![7; 3000]].concat();
    let length = ((long.len() - 16) as u16).to_be_bytes();
    let long = [&long[..14], &length, &long[16..]].concat();
    for (header, piece, address) in [
        (line(1).into_bytes(), 1, "192.0.2.1"),
        (binary_from(2), 1, "192.0.2.2"),
        (long, 700, "192.0.2.3"),
    ] {
        let mut client = proxy.client();
        let all = [&header, GET.as_bytes()].concat();
        for part in all.chunks(piece) {
            client.send(part);
        }
        assert_eq!(client.answer().text(), address);
    }
    // The request behind it comes when the header has long been taken.
    let mut client = proxy.client();
    client.send(line(4));
    assert!(client.is_quiet_for(Duration::from_millis(50)));
    client.send(GET);
    assert_eq!(client.answer().text(), "192.0.2.4");
    assert_eq!(unproxied(&proxy), 0);
}

fn a_header_without_addresses_leaves_the_connections_own(driver: Driver) {
    let origin = echo();
    let proxy = receiving(driver, &[origin.address()], "").start();
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(),
        binary(0x20, 0x00, &[]),
        binary(0x20, 0x11, &[192, 0, 2, 1, 192, 0, 2, 2, 0, 1, 0, 2]),
        binary(0x21, 0x00, &[]),
        binary(0x21, 0x12, &[192, 0, 2, 1, 192, 0, 2, 2, 0, 1, 0, 2]),
    ] {
        assert_eq!(asked_for(&proxy, &header), "127.0.0.1");
    }
    assert_eq!(unproxied(&proxy), 0);
}

fn what_is_no_header_closes_the_connection(driver: Driver) {
    let origin = Origin::new();
    let proxy = receiving(driver, &[origin.address()], "")
        .log("level = \"debug\"")
        .start();
    let broken = [
        GET.as_bytes().to_vec(),
        b"PROXY TCP4 192.0.2.1 198.51.100.7 056324 443\r\n".to_vec(),
        b"PROXY UNKNOWN\n".to_vec(),
        vec![b'P'; 4],
        binary(0x31, 0x11, &[0; 12]),
        binary(0x22, 0x11, &[0; 12]),
        binary(0x21, 0x11, &[0; 11]),
        // The checksum of something else.
        binary(0x21, 0x11, &[&[1; 12][..], b"\x03\0\x04abcd"].concat()),
        [SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat(),
    ];
    for header in &broken {
        let mut client = proxy.client();
        client.send([header, GET.as_bytes()].concat());
        assert_eq!(client.rest(), b"", "{}", header.escape_ascii());
    }
    // One that ends within its header.
    let mut client = proxy.client();
    client.send("PROXY TCP4 192.0.2.1");
    client.finish_sending();
    assert_eq!(client.rest(), b"");
    assert_eq!(unproxied(&proxy), broken.len() as u64 + 1);
    let line = proxy.log_line("no PROXY header");
    assert!(line.contains("client=127.0.0.1"), "{line}");
    let report = proxy.report();
    assert!(report.faults().is_empty(), "{report:#?}");
    assert!(origin.has_no_more());
}

fn a_header_that_does_not_come_in_time_closes_the_connection(driver: Driver) {
    let origin = echo();
    let proxy = receiving(driver, &[origin.address()], "")
        .listener("proxy_protocol = true\n[listener.timeouts]\nhead = \"300ms\"")
        .start();
    proxy.client().ends();
    let mut slow = proxy.client();
    slow.send("PROXY TCP4 192.0.2.1 ");
    slow.ends();
    assert_eq!(unproxied(&proxy), 2);
    // A head that does not come is another matter: it is answered.
    let mut client = proxy.client();
    client.send([line(1).as_bytes(), b"GET / "].concat());
    assert_eq!(client.answer().status(), 408);
    assert_eq!(unproxied(&proxy), 2);
}

fn who_says_nothing_is_not_counted(driver: Driver) {
    let origin = echo();
    let proxy = receiving(driver, &[origin.address()], "").start();
    let mut client = proxy.client();
    client.finish_sending();
    client.ends();
    proxy.client().reset();
    // The shard has seen the others when it has served this one.
    assert_eq!(asked_for(&proxy, line(1).as_bytes()), "192.0.2.1");
    assert_eq!(unproxied(&proxy), 0);
}

fn a_drain_closes_who_has_not_sent_its_header(driver: Driver) {
    let origin = echo();
    let mut proxy = receiving(driver, &[origin.address()], "")
        .runtime("drain_timeout = \"20s\"")
        .start();
    let [mut silent, mut slow, mut late] = [(); 3].map(|()| proxy.client());
    slow.send("PROXY ");
    late.send("PROXY ");
    // Whoever connected before this one has been let in.
    assert_eq!(asked_for(&proxy, line(1).as_bytes()), "192.0.2.1");
    proxy.signal("TERM");
    proxy.log_line("draining");
    // There are two seconds left for it.
    late.send([&line(2).as_bytes()[6..], GET.as_bytes()].concat());
    assert_eq!(late.answer().text(), "192.0.2.2");
    late.ends();
    silent.ends();
    slow.ends();
    assert_eq!(proxy.exit_code(), Some(0));
}

fn each_listener_expects_what_it_says(driver: Driver) {
    let origin = echo();
    let plain = "[[listener]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n";
    let proxy = receiving(driver, &[origin.address()], "")
        .tables(plain)
        .start();
    let mut client = Wire::connect(proxy.addresses()["plain"]);
    client.send(GET);
    assert_eq!(client.answer().text(), "127.0.0.1");
    let mut client = Wire::connect(proxy.addresses()["plain"]);
    client.send([line(1).as_bytes(), GET.as_bytes()].concat());
    assert_eq!(client.answer().status(), 400, "there it is no HTTP");
    assert_eq!(asked_for(&proxy, line(1).as_bytes()), "192.0.2.1");
    assert_eq!(unproxied(&proxy), 0);
}

fn limits_are_of_the_address_in_the_header(driver: Driver) {
    let limits = "[service.limits]\nclient_concurrent = 1";
    let held = Origin::new();
    let proxy = receiving(driver, &[held.address()], limits).start();
    let mut first = proxy.client();
    first.send(line(1));
    let mut upstream = held.gets(&mut first, GET);
    // The same address on another connection, and another one on a third.
    let mut same = proxy.client();
    same.send([&binary_from(1), GET.as_bytes()].concat());
    assert_eq!(same.answer().status(), 429);
    let mut other = proxy.client();
    other.send(line(2));
    let mut of_other = held.gets(&mut other, GET);
    for (upstream, client) in [(&mut upstream, &mut first), (&mut of_other, &mut other)] {
        upstream.send(ok("in"));
        assert_eq!(client.answer().text(), "in");
    }
}

fn a_client_is_hashed_by_the_address_in_the_header(driver: Driver) {
    let origins: Vec<Served> = ["a", "b", "c"].map(Served::saying).into();
    let addresses: Vec<SocketAddr> = origins.iter().map(Served::address).collect();
    let proxy = receiving(driver, &addresses, "policy = \"hash\"").start();
    let chosen = |number: u8| asked_for(&proxy, line(number).as_bytes());
    let first: Vec<String> = (0..40).map(chosen).collect();
    let again: Vec<String> = (0..40).map(chosen).collect();
    assert_eq!(first, again);
    for name in ["a", "b", "c"] {
        assert!(
            first.iter().any(|chosen| chosen == name),
            "nobody goes to {name}"
        );
    }
}

fn an_endpoint_is_told_whose_connection_it_is(driver: Driver) {
    let origin = Origin::new();
    let proxy = sending(driver, origin.address(), "send_proxy_protocol = \"v1\"").start();
    let from = IpAddr::from([127, 0, 0, 9]);
    let mut client = Wire::connect_from(from, proxy.address());
    client.send(GET);
    let mut upstream = origin.accept();
    let (own, to) = (client.address(), proxy.address());
    let expected = format!(
        "PROXY TCP4 127.0.0.9 127.0.0.1 {} {}",
        own.port(),
        to.port()
    );
    assert_eq!(upstream.line(), expected);
    upstream.request();
    upstream.send(ok("a"));
    assert_eq!(client.answer().text(), "a");

    let proxy = sending(driver, origin.address(), "send_proxy_protocol = \"v2\"").start();
    let mut client = Wire::connect_from(from, proxy.address());
    client.send(GET);
    let mut upstream = origin.accept();
    let header = upstream.take(28);
    upstream.request();
    upstream.send(ok("b"));
    assert_eq!(client.answer().text(), "b");
    let (own, to) = (client.address().port(), proxy.address().port());
    let ports = [own.to_be_bytes(), to.to_be_bytes()].concat();
    let block = [&[127, 0, 0, 9, 127, 0, 0, 1][..], &ports].concat();
    assert_eq!(header, binary(0x21, 0x11, &block));
}

fn a_session_of_tcp_keeps_the_first_address(driver: Driver) {
    let origin = Origin::new();
    let listener = "protocol = \"tcp\"\nservice = \"a\"\nproxy_protocol = true";
    let keys = "send_proxy_protocol = \"v1\"";
    let proxy = sending(driver, origin.address(), keys)
        .listener(listener)
        .admin("127.0.0.1:0")
        .start();
    for header in [line(9).into_bytes(), binary_from(9)] {
        let mut client = proxy.client();
        client.send([&header[..], b"ping\0"].concat());
        let mut upstream = origin.accept();
        assert_eq!(upstream.line(), line(9).trim_end());
        assert_eq!(upstream.take(5), b"ping\0");
        upstream.send(b"\xff pong");
        assert_eq!(client.take(6), b"\xff pong");
        upstream.finish_sending();
        client.ends();
    }
    let mut client = proxy.client();
    client.send("ping");
    client.is_reset();
    assert_eq!(of_shard(&proxy, "unproxied"), 1);
}

fn each_leg_of_a_fan_out_is_told_whose_connection_it_is(driver: Driver) {
    let origins = [Origin::new(), Origin::new()];
    let addresses = origins.each_ref().map(Origin::address);
    let keys = "send_proxy_protocol = \"v1\"\n[service.fanout]";
    let proxy = receiving(driver, &addresses, keys).start();
    let mut client = proxy.client();
    for number in [8, 9] {
        if number == 9 {
            client = proxy.client();
        }
        let post = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi";
        client.send(format!("{}{post}", line(number)));
        for origin in &origins {
            // A connection that was told whose it is serves nobody else.
            let mut upstream = origin.accept();
            assert_eq!(upstream.line(), line(number).trim_end());
            let request = upstream.request();
            assert_eq!(request.text(), "hi");
            let from = request.head.field("X-Forwarded-For");
            assert_eq!(from, Some(format!("192.0.2.{number}")));
            upstream.send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
        }
        assert_eq!(client.answer().status(), 201);
    }
}

fn an_endpoint_is_told_of_ipv6(driver: Driver) {
    let origin = Origin::new();
    let v6 = "[[listener]]\nname = \"six\"\naddress = \"[::1]:0\"\n";
    for (version, is_line) in [("v1", true), ("v2", false)] {
        let keys = format!("send_proxy_protocol = \"{version}\"");
        let proxy = sending(driver, origin.address(), &keys).tables(v6).start();
        let to = proxy.addresses()["six"];
        let mut client = Wire::connect(to);
        client.send(GET);
        let mut upstream = origin.accept();
        let (own, to) = (client.address().port(), to.port());
        if is_line {
            assert_eq!(upstream.line(), format!("PROXY TCP6 ::1 ::1 {own} {to}"));
        } else {
            let one = Ipv6Addr::LOCALHOST.octets();
            let block = [&one[..], &one, &own.to_be_bytes(), &to.to_be_bytes()].concat();
            assert_eq!(upstream.take(52), binary(0x21, 0x21, &block));
        }
        upstream.request();
        upstream.send(ok("six"));
        assert_eq!(client.answer().text(), "six");
    }
}

fn two_proxies_keep_the_first_address(driver: Driver) {
    let origin = Origin::new();
    for (version, header) in [("v1", line(1).into_bytes()), ("v2", binary_from(1))] {
        let keys = "send_proxy_protocol = \"v1\"";
        let last = receiving(driver, &[origin.address()], keys).start();
        let keys = format!("send_proxy_protocol = \"{version}\"");
        let first = receiving(driver, &[last.address()], &keys)
            .via("first")
            .start();
        let mut client = first.client();
        client.send([&header, GET.as_bytes()].concat());
        let mut upstream = origin.accept();
        let line = upstream.line();
        assert_eq!(line, "PROXY TCP4 192.0.2.1 198.51.100.7 56324 443");
        let request = upstream.request();
        let forwarded = request.head.field("X-Forwarded-For");
        assert_eq!(forwarded.as_deref(), Some("192.0.2.1, 192.0.2.1"));
        upstream.send(ok("far"));
        assert_eq!(client.answer().text(), "far");
    }
}

fn a_retry_tells_the_next_endpoint(driver: Driver) {
    let origin = Origin::new();
    let keys = "send_proxy_protocol = \"v1\"\npolicy = \"round_robin\"\n\
        [service.eject]\nconsecutive_faults = 0";
    let proxy = receiving(driver, &[origin.address(), Origin::refused()], keys).start();
    for number in 1..=4 {
        let mut client = proxy.client();
        client.send([line(number).as_bytes(), GET.as_bytes()].concat());
        let mut broken = origin.accept();
        // Whose answer does not come is asked again, on a connection of its own.
        let expected = format!("PROXY TCP4 192.0.2.{number} 198.51.100.7 56324 443");
        assert_eq!(broken.line(), expected);
        broken.request();
        drop(broken);
        let mut upstream = origin.accept();
        assert_eq!(upstream.line(), expected);
        upstream.request();
        upstream.send(ok("again"));
        assert_eq!(client.answer().text(), "again");
    }
}

fn no_connection_serves_two_requests(driver: Driver) {
    let origin = Origin::new();
    let proxy = receiving(driver, &[origin.address()], "send_proxy_protocol = \"v1\"").start();
    let mut clients = [proxy.client(), proxy.client()];
    for (number, client) in (1..).zip(&mut clients) {
        client.send(line(number));
    }
    for turn in 0..6 {
        let at = turn % 3 % 2;
        let client = &mut clients[at];
        client.send(GET);
        let mut upstream = origin.accept();
        let expected = format!("PROXY TCP4 192.0.2.{} 198.51.100.7 56324 443", at + 1);
        assert_eq!(upstream.line(), expected);
        upstream.request();
        upstream.send(ok("one"));
        assert_eq!(client.answer().text(), "one");
        upstream.ends();
    }
    assert!(origin.has_no_more());
}

fn who_waits_for_a_connection_makes_a_new_one(driver: Driver) {
    let origin = Origin::new();
    let keys = "send_proxy_protocol = \"v1\"\n\
        [service.pool]\nconnections_max = 1\nqueue = \"10s\"";
    let proxy = receiving(driver, &[origin.address()], keys).start();
    let mut first = proxy.client();
    first.send([line(1).as_bytes(), GET.as_bytes()].concat());
    let mut upstream = origin.accept();
    assert!(upstream.line().contains("192.0.2.1 "));
    upstream.request();
    let mut second = proxy.client();
    second.send([line(2).as_bytes(), GET.as_bytes()].concat());
    assert!((0..100).any(|_| of_shard(&proxy, "waiting") == 1));
    upstream.send(ok("first"));
    assert_eq!(first.answer().text(), "first");
    let mut next = origin.accept();
    assert!(next.line().contains("192.0.2.2 "));
    next.request();
    next.send(ok("second"));
    assert_eq!(second.answer().text(), "second");
    upstream.ends();
}

fn a_tunnel_begins_with_the_header(driver: Driver) {
    let origin = Origin::new();
    let proxy = receiving(driver, &[origin.address()], "send_proxy_protocol = \"v1\"").start();
    let mut client = proxy.client();
    client.send(line(1));
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    let mut upstream = origin.accept();
    assert_eq!(
        upstream.line(),
        "PROXY TCP4 192.0.2.1 198.51.100.7 56324 443"
    );
    upstream.head();
    upstream.send("HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello");
    client.head();
    assert_eq!(client.take(5), b"hello");
    client.send("world");
    assert_eq!(upstream.take(5), b"world");
    client.finish_sending();
    upstream.finish_sending();
    client.ends();
}

fn probes_begin_with_a_header_of_ringmains_own(driver: Driver) {
    let origins = [(); 3].map(|()| Origin::new());
    let probe = |version: &str, kind: &str| {
        format!(
            "send_proxy_protocol = \"{version}\"\n\
             [service.probe]\nkind = \"{kind}\"\ninterval = \"100ms\""
        )
    };
    let _proxy = Setup::new(driver)
        .service("a", &[origins[0].address()], &probe("v1", "http"))
        .service("b", &[origins[1].address()], &probe("v2", "http"))
        .service("c", &[origins[2].address()], &probe("v2", "tcp"))
        .start();
    for _ in 0..2 {
        let mut upstream = origins[0].accept();
        assert_eq!(upstream.line(), "PROXY UNKNOWN");
        let agent = upstream.request().head.field("User-Agent");
        assert_eq!(agent.as_deref(), Some("ringmain-probe"));
        upstream.send(ok("a"));
        let mut upstream = origins[1].accept();
        assert_eq!(upstream.take(16), binary(0x20, 0, &[]));
        upstream.request();
        upstream.send(ok("b"));
        let mut upstream = origins[2].accept();
        assert_eq!(upstream.take(16), binary(0x20, 0, &[]));
        upstream.ends();
    }
}
