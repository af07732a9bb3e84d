//! What a reload that changes a service means for what runs, and for what comes next.

use std::net::SocketAddr;

use serde_json::Value;

use crate::support::{Driver, GET, Origin, Proxy, Served, Setup, Wire, ok, on_both_drivers};

on_both_drivers! {
    what_a_limit_has_let_in_counts_wherever_the_service_stands
    an_exchange_ends_with_the_timeouts_that_it_began_with
    whoever_waits_for_a_connection_keeps_its_turn
    a_header_of_the_proxy_protocol_is_sent_from_the_reload_on
    an_idle_connection_outlives_whatever_leaves_its_endpoint_alone
}

/// The service `a` on `origin` with these keys, behind the service `b`, or before it.
fn setup(driver: Driver, origin: SocketAddr, other: SocketAddr, keys: &str) -> [Setup; 2] {
    let setup = Setup::new(driver).admin("127.0.0.1:0");
    let after = setup.clone().service("b", &[other], "");
    let before = setup.service("a", &[origin], keys);
    [
        after.service("a", &[origin], keys),
        before.service("b", &[other], ""),
    ]
}

/// Reloads, and waits until the one shard has adopted it: what only the new plan has is there.
#[track_caller]
fn reload(proxy: &mut Proxy, setup: &Setup, news: &Served) {
    let setup = setup.clone().service("news", &[news.address()], "");
    proxy.reload(&setup.expects_line("destination_not_found"));
    let is_there = |_| proxy.client().get("news.test", "/").status() == 200;
    assert!((0..10_000).any(is_there));
}

fn what_a_limit_has_let_in_counts_wherever_the_service_stands(driver: Driver) {
    let (origin, other) = (Origin::new(), Served::saying("b"));
    let keys = "[service.limits]\nconcurrent = 1\n";
    let [last, next] = setup(driver, origin.address(), other.address(), keys);
    let mut proxy = last.expects_line("destination_not_found").start();
    let mut first = proxy.client();
    let mut upstream = origin.gets(&mut first, GET);
    reload(&mut proxy, &next, &other);
    let mut second = proxy.client();
    let shed = second.get("a.test", "/");
    let error = shed.head.proxy_error();
    assert_eq!(error.as_deref(), Some("connection_limit_reached"));
    upstream.send(ok("a"));
    assert_eq!(first.answer().text(), "a");
    first.send(GET);
    upstream.request();
    upstream.send(ok("a"));
    assert_eq!(first.answer().text(), "a");
}

fn an_exchange_ends_with_the_timeouts_that_it_began_with(driver: Driver) {
    let (origin, other) = (Origin::new(), Served::saying("b"));
    let keys = "[service.timeouts]\nresponse = \"300ms\"\n";
    let [last, _] = setup(driver, origin.address(), other.address(), "");
    let [next, _] = setup(driver, origin.address(), other.address(), keys);
    let mut proxy = last.expects_line("destination_not_found").start();
    let (mut first, mut second) = (proxy.client(), proxy.client());
    let mut upstream = origin.gets(&mut first, GET);
    reload(&mut proxy, &next, &other);
    let _silent = origin.gets(&mut second, GET);
    assert_eq!(second.answer().status(), 504);
    upstream.send(ok("a"));
    assert_eq!(first.answer().text(), "a");
}

fn whoever_waits_for_a_connection_keeps_its_turn(driver: Driver) {
    let (origin, other) = (Origin::new(), Served::saying("b"));
    let keys = |max| format!("[service.pool]\nconnections_max = {max}\nqueue = \"1m\"\n");
    let of = |max| setup(driver, origin.address(), other.address(), &keys(max));
    let [last, _] = of(1);
    let [_, next] = of(2);
    let mut proxy = last.expects_line("destination_not_found").start();
    let (mut first, mut second) = (proxy.client(), proxy.client());
    let mut upstream = origin.gets(&mut first, GET);
    second.send("GET /second HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let is_waiting = |_| {
        let report = proxy.admin_client().get("localhost", "/report?format=json");
        let report: Value = serde_json::from_slice(&report.body).expect("it is JSON");
        report["shards"][0]["waiting"] == 1
    };
    assert!((0..100).any(is_waiting));
    reload(&mut proxy, &next, &other);
    // There is room for one more under the new plan.
    let mut third = proxy.client();
    let mut beside = origin.gets(&mut third, GET);
    upstream.send(ok("1"));
    assert_eq!(first.answer().text(), "1");
    assert_eq!(upstream.request().head.start, "GET /second HTTP/1.1");
    upstream.send(ok("2"));
    assert_eq!(second.answer().text(), "2");
    beside.send(ok("3"));
    assert_eq!(third.answer().text(), "3");
}

fn a_header_of_the_proxy_protocol_is_sent_from_the_reload_on(driver: Driver) {
    let (origin, other) = (Origin::new(), Served::saying("b"));
    let of = |keys| setup(driver, origin.address(), other.address(), keys);
    let [last, _] = of("");
    let [next, _] = of("send_proxy_protocol = \"v1\"");
    let mut proxy = last.expects_line("destination_not_found").start();
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    upstream.send(ok("a"));
    assert_eq!(client.answer().text(), "a");
    reload(&mut proxy, &next, &other);
    // The idle connection has begun without one.
    client.send(GET);
    let mut told: Wire = origin.accept();
    assert!(told.line().starts_with("PROXY TCP4 127.0.0.1 "));
    told.request();
    told.send(ok("a"));
    assert_eq!(client.answer().text(), "a");
}

fn an_idle_connection_outlives_whatever_leaves_its_endpoint_alone(driver: Driver) {
    let (origin, other) = (Origin::new(), Served::saying("b"));
    let keys = "policy = \"hash\"\nhash_key = \"path\"\n[service.pool]\nidle_max = 3\n\
                [service.timeouts]\nresponse = \"9s\"\n";
    let [last, _] = setup(driver, origin.address(), other.address(), "");
    let [_, next] = setup(driver, origin.address(), other.address(), keys);
    let mut proxy = last.expects_line("destination_not_found").start();
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    upstream.send(ok("a"));
    assert_eq!(client.answer().text(), "a");
    reload(&mut proxy, &next, &other);
    client.send(GET);
    upstream.request();
    upstream.send(ok("a"));
    assert_eq!(client.answer().text(), "a");
    assert!(origin.has_no_more());
}
