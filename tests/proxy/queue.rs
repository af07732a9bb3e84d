//! Limits on the connections to an endpoint, and the queue of those who wait for one.

use std::time::Duration;

use serde_json::Value;

use crate::support::{Driver, GET, Origin, POST, Proxy, Served, Setup, Wire, ok, on_both_drivers};

on_both_drivers! {
    over_the_limit_requests_wait_for_a_connection_first_come_first_served
    without_a_queue_a_request_over_the_limit_is_refused_at_once
    who_waits_for_too_long_is_refused
    a_connection_that_is_closed_makes_room_for_one_that_is_made
    an_endpoint_at_its_limit_is_passed_over
    idle_connections_are_taken_first_and_count
    a_client_that_resets_while_it_waits_leaves_the_queue
    a_client_that_half_closes_waits_on
    a_request_that_lost_its_connection_is_served_before_those_who_wait
    a_replay_is_sent_on_a_new_connection_in_place_of_an_idle_one
    an_endpoint_that_refuses_gives_back_its_room
    waiting_goes_on_during_a_drain_and_ends_with_it
    the_limit_holds_for_many_clients
    those_who_wait_do_not_hand_an_ejected_endpoint_round
    who_waits_goes_to_a_backup_once_its_endpoint_is_ejected
}

/// What a JSON report says.
#[track_caller]
fn json(proxy: &Proxy) -> Value {
    let answer = proxy.admin_client().get("localhost", "/report?format=json");
    serde_json::from_slice(&answer.body).expect("it is JSON")
}

/// Returns when so many exchanges wait.
#[track_caller]
fn until_waiting(proxy: &Proxy, count: u64) {
    // Each report takes a tick of the shard or so.
    let waiting = || json(proxy)["shards"][0]["waiting"].as_u64();
    let is_so = (0..100).any(|_| waiting() == Some(count));
    assert!(is_so, "never do {count} wait: {:#}", json(proxy));
}

/// How often the service `a` found its endpoints at their limit.
fn limited(proxy: &Proxy) -> u64 {
    let report = json(proxy);
    report["services"][0]["limited"]
        .as_u64()
        .expect("it is a number")
}

/// The service `a` on these endpoints, with these keys of its pool.
fn start(driver: Driver, origins: &[&Origin], pool: &str) -> Proxy {
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address()).collect();
    Setup::new(driver)
        .admin("127.0.0.1:0")
        .service("a", &addresses, &format!("[service.pool]\n{pool}"))
        .start()
}

/// The client is told that the limit was reached, and may go on.
#[track_caller]
fn is_refused(client: &mut Wire) {
    let answer = client.answer();
    assert_eq!(answer.status(), 503);
    let error = answer.head.proxy_error();
    assert_eq!(error.as_deref(), Some("connection_limit_reached"));
}

fn over_the_limit_requests_wait_for_a_connection_first_come_first_served(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, &[&origin], "connections_max = 1\nqueue = \"1m\"");
    let mut first = proxy.client();
    let mut upstream = origin.gets(&mut first, GET);
    let mut others: Vec<Wire> = Vec::new();
    for number in 1..=3 {
        let mut client = proxy.client();
        client.send(format!("GET /{number} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        others.push(client);
        until_waiting(&proxy, number);
    }
    upstream.send(ok("0"));
    assert_eq!(first.answer().text(), "0");
    for (number, client) in (1..).zip(&mut others) {
        // Another request of somebody who was served already stands behind them.
        let request = upstream.request();
        assert_eq!(request.head.start, format!("GET /{number} HTTP/1.1"));
        first.send(if number == 1 { GET } else { "" });
        upstream.send(ok(&number.to_string()));
        assert_eq!(client.answer().text(), number.to_string());
    }
    upstream.request();
    upstream.send(ok("again"));
    assert_eq!(first.answer().text(), "again");
    assert!(origin.has_no_more(), "one connection served all of it");
    assert_eq!(limited(&proxy), 4);
    until_waiting(&proxy, 0);
    assert!(proxy.report().faults().is_empty());
}

fn without_a_queue_a_request_over_the_limit_is_refused_at_once(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, &[&origin], "connections_max = 2");
    let mut clients = [proxy.client(), proxy.client()];
    let mut upstreams = clients.each_mut().map(|client| origin.gets(client, GET));
    let mut third = proxy.client();
    third.send(POST);
    is_refused(&mut third);
    for (client, upstream) in clients.iter_mut().zip(&mut upstreams) {
        upstream.send(ok("a"));
        assert_eq!(client.answer().text(), "a");
    }
    third.send(POST);
    upstreams[1].request();
    upstreams[1].send(ok("b"));
    assert_eq!(third.answer().text(), "b");
    assert!(origin.has_no_more());
    assert_eq!(limited(&proxy), 1);
    proxy.counts_one_fault("connection_limit_reached");
    let report = proxy.report();
    let row = &report.services["a"];
    assert_eq!((row.exchanges, row.forwarded, row.own_answers), (4, 3, 1));
    assert_eq!(row.endpoint_faults, 0, "no endpoint is to blame");
}

fn who_waits_for_too_long_is_refused(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, &[&origin], "connections_max = 1\nqueue = \"300ms\"");
    let mut first = proxy.client();
    let mut upstream = origin.gets(&mut first, GET);
    let mut second = proxy.client();
    second.send(GET);
    is_refused(&mut second);
    upstream.send(ok("a"));
    assert_eq!(first.answer().text(), "a");
    // It was no endpoint's fault, and the wait was not ringmain's own time.
    let report = proxy.report_where(|report| report.services["a"].phases["total"].count == 2);
    let phases = &report.services["a"].phases;
    let (own, total) = (phases["own"], phases["total"]);
    assert!(Duration::from_millis(300) <= total.max, "{total:?}");
    assert!(own.max < total.max, "{own:?} of {total:?}");
    proxy.counts_one_fault("connection_limit_reached");
}

fn a_connection_that_is_closed_makes_room_for_one_that_is_made(driver: Driver) {
    let origin = Origin::new();
    let keys = "connections_max = 1\nqueue = \"1m\"\nidle_max = 0";
    let proxy = start(driver, &[&origin], keys);
    let mut clients = [proxy.client(), proxy.client()];
    let mut upstream = origin.gets(&mut clients[0], GET);
    clients[1].send(GET);
    until_waiting(&proxy, 1);
    assert!(origin.has_no_more());
    upstream.send(ok("a"));
    assert_eq!(clients[0].answer().text(), "a");
    upstream.ends();
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send(ok("b"));
    assert_eq!(clients[1].answer().text(), "b");
}

fn an_endpoint_at_its_limit_is_passed_over(driver: Driver) {
    let origins = [Origin::new(), Origin::new(), Origin::new()];
    let proxy = start(driver, &origins.each_ref(), "connections_max = 2");
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = proxy.client();
        client.send(GET);
        clients.push(client);
    }
    // Whatever the picker would have liked, each has two.
    let upstreams = origins
        .each_ref()
        .map(|origin| [origin.accept(), origin.accept()]);
    let mut over = proxy.client();
    over.send(GET);
    is_refused(&mut over);
    for mut upstream in upstreams.into_iter().flatten() {
        upstream.request();
        upstream.send(ok("a"));
    }
    for client in &mut clients {
        assert_eq!(client.answer().text(), "a");
    }
    assert_eq!(limited(&proxy), 1);
}

fn idle_connections_are_taken_first_and_count(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, &[&origin], "connections_max = 2");
    let mut clients = [proxy.client(), proxy.client()];
    let mut upstreams = clients.each_mut().map(|client| origin.gets(client, GET));
    for (client, upstream) in clients.iter_mut().zip(&mut upstreams) {
        upstream.send(ok("a"));
        client.answer();
    }
    let [first, second] = &mut clients;
    // One is in use and one idle: the idle one is taken, as there is no room for a third.
    first.send(GET);
    upstreams[1].request();
    second.send(GET);
    upstreams[0].request();
    let mut third = proxy.client();
    third.send(GET);
    is_refused(&mut third);
    // An idle one that its endpoint has closed is none, and takes no room.
    for (client, upstream) in [(first, 1), (second, 0)] {
        upstreams[upstream].send(ok("a"));
        client.answer();
    }
    drop(upstreams);
    let mut upstream = origin.gets(&mut third, POST);
    upstream.send(ok("b"));
    assert_eq!(third.answer().text(), "b");
}

fn a_client_that_resets_while_it_waits_leaves_the_queue(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, &[&origin], "connections_max = 1\nqueue = \"1m\"");
    let mut first = proxy.client();
    let mut upstream = origin.gets(&mut first, GET);
    let mut gone = proxy.client();
    gone.send("GET /gone HTTP/1.1\r\nHost: a.test\r\n\r\n");
    until_waiting(&proxy, 1);
    let mut third = proxy.client();
    third.send(GET);
    until_waiting(&proxy, 2);
    gone.reset();
    until_waiting(&proxy, 1);
    proxy.counts_one_fault("client_gone");
    upstream.send(ok("a"));
    assert_eq!(first.answer().text(), "a");
    assert_eq!(upstream.request().head.start, "GET / HTTP/1.1");
    upstream.send(ok("c"));
    assert_eq!(third.answer().text(), "c");
}

fn a_client_that_half_closes_waits_on(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, &[&origin], "connections_max = 1\nqueue = \"1m\"");
    let mut first = proxy.client();
    let mut upstream = origin.gets(&mut first, GET);
    let mut second = proxy.client();
    second.send(GET);
    second.finish_sending();
    until_waiting(&proxy, 1);
    assert!(second.is_quiet_for(Duration::from_millis(300)));
    upstream.send(ok("a"));
    assert_eq!(first.answer().text(), "a");
    upstream.request();
    upstream.send(ok("b"));
    assert_eq!(second.answer().text(), "b");
}

fn a_request_that_lost_its_connection_is_served_before_those_who_wait(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, &[&origin], "connections_max = 1\nqueue = \"1m\"");
    let mut first = proxy.client();
    let mut upstream = origin.gets(&mut first, GET);
    let mut second = proxy.client();
    second.send("GET /second HTTP/1.1\r\nHost: a.test\r\n\r\n");
    until_waiting(&proxy, 1);
    // The connection goes to whoever waits, and the request that it was lost to stands in front.
    drop(upstream);
    upstream = origin.accept();
    assert_eq!(upstream.request().head.start, "GET /second HTTP/1.1");
    let mut third = proxy.client();
    third.send("GET /third HTTP/1.1\r\nHost: a.test\r\n\r\n");
    until_waiting(&proxy, 2);
    upstream.send(ok("2"));
    assert_eq!(second.answer().text(), "2");
    // What was sent once is sent again on a new connection only.
    upstream.ends();
    upstream = origin.accept();
    assert_eq!(upstream.request().head.start, "GET / HTTP/1.1");
    upstream.send(ok("1"));
    assert_eq!(first.answer().text(), "1");
    assert_eq!(upstream.request().head.start, "GET /third HTTP/1.1");
    upstream.send(ok("3"));
    assert_eq!(third.answer().text(), "3");
    assert!(origin.has_no_more());
    assert!(proxy.report().faults().is_empty());
}

fn a_replay_is_sent_on_a_new_connection_in_place_of_an_idle_one(driver: Driver) {
    let (origin, other) = (Origin::new(), Served::saying("b"));
    let addresses = [origin.address(), other.address()];
    let keys = "policy = \"round_robin\"\n[service.pool]\nconnections_max = 1\nqueue = \"1m\"";
    let proxy = Setup::new(driver).service("a", &addresses, keys).start();
    let mut clients = [proxy.client(), proxy.client()];
    clients.iter_mut().for_each(|client| client.send(GET));
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send(ok("a"));
    let mut texts = clients.each_mut().map(|client| client.answer().text());
    texts.sort();
    assert_eq!(texts, ["a", "b"]);
    // Both connections are idle. One ends under a request, and the other endpoint is all there is.
    drop(origin);
    clients.iter_mut().for_each(|client| client.send(GET));
    upstream.request();
    drop(upstream);
    for client in &mut clients {
        assert_eq!(client.answer().text(), "b");
    }
    assert_eq!(
        other.connections(),
        2,
        "the idle one was as old as the one that ended"
    );
    assert!(proxy.report().faults().is_empty());
}

fn an_endpoint_that_refuses_gives_back_its_room(driver: Driver) {
    let origin = Origin::new();
    let addresses = [Origin::refused(), origin.address()];
    let keys = "[service.pool]\nconnections_max = 1\nqueue = \"1m\"";
    let proxy = Setup::new(driver)
        .admin("127.0.0.1:0")
        .service("a", &addresses, keys)
        .start();
    let mut first = proxy.client();
    let mut upstream = origin.gets(&mut first, GET);
    // The other endpoint has room and refuses: these wait for the one that has not.
    let mut others = [proxy.client(), proxy.client()];
    for (number, client) in (1..).zip(&mut others) {
        client.send(GET);
        until_waiting(&proxy, number);
    }
    upstream.send(ok("a"));
    assert_eq!(first.answer().text(), "a");
    for client in &mut others {
        upstream.request();
        upstream.send(ok("b"));
        assert_eq!(client.answer().text(), "b");
    }
    assert!(proxy.report().faults().is_empty());
}

fn waiting_goes_on_during_a_drain_and_ends_with_it(driver: Driver) {
    let origin = Origin::new();
    let mut proxy = Setup::new(driver)
        .runtime("drain_timeout = \"1s\"")
        .expects_line("drain_timeout has passed")
        .admin("127.0.0.1:0")
        .service(
            "a",
            &[origin.address()],
            "[service.pool]\nconnections_max = 1\nqueue = \"1m\"",
        )
        .start();
    let mut clients = [proxy.client(), proxy.client(), proxy.client()];
    let mut upstream = origin.gets(&mut clients[0], GET);
    for (number, client) in (1..).zip(&mut clients[1..]) {
        client.send(GET);
        until_waiting(&proxy, number);
    }
    proxy.signal("TERM");
    proxy.log_line("draining");
    upstream.send(ok("a"));
    assert_eq!(clients[0].answer().text(), "a");
    upstream.request();
    // One has a connection by now and one has not; both are told of the end.
    for client in &mut clients[1..] {
        let answer = client.answer();
        assert_eq!(answer.status(), 503);
        let error = answer.head.proxy_error();
        assert_eq!(error.as_deref(), Some("destination_unavailable"));
        client.ends();
    }
    assert_eq!(proxy.exit_code(), Some(0));
}

fn the_limit_holds_for_many_clients(driver: Driver) {
    const CLIENTS: usize = 20;
    const ROUNDS: usize = 30;
    let origin = Served::saying("a");
    let proxy = Setup::new(driver)
        .admin("127.0.0.1:0")
        .service(
            "a",
            &[origin.address()],
            "[service.pool]\nconnections_max = 3\nqueue = \"1m\"",
        )
        .start();
    let mut clients: Vec<Wire> = (0..CLIENTS).map(|_| proxy.client()).collect();
    for _ in 0..ROUNDS {
        clients.iter_mut().for_each(|client| client.send(GET));
        for client in &mut clients {
            assert_eq!(client.answer().text(), "a");
        }
    }
    assert_eq!(origin.requests(), CLIENTS * ROUNDS);
    assert_eq!(
        origin.connections(),
        3,
        "none is closed, and there is no fourth"
    );
    assert!(0 < limited(&proxy));
    until_waiting(&proxy, 0);
}

/// Two origins behind `connections_max = 1`, where one waits for so long; the second is written as
/// `backend`, a backup if need be.
fn start_ejecting(driver: Driver, queue: &str, backend: &str, origins: &[Origin; 2]) -> Proxy {
    let [first, second] = origins.each_ref().map(Origin::address);
    let backup = backend.replace("ADDRESS", &second.to_string());
    let service = format!(
        "[[service]]\nname = \"a\"\ndomains = [\"a.test\"]\nbackends = [\"{first}\", {backup}]\n\
         [service.pool]\nconnections_max = 1\nqueue = \"{queue}\"\n\
         [service.eject]\nconsecutive_faults = 1\nduration = \"1m\"",
    );
    let setup = Setup::new(driver).admin("127.0.0.1:0");
    setup
        .tables(&service)
        .expects_line("an endpoint is ejected")
        .start()
}

/// A client with a request under way that may not be repeated.
fn holds(proxy: &Proxy) -> Wire {
    let mut client = proxy.client();
    client.send(POST);
    client
}

fn those_who_wait_do_not_hand_an_ejected_endpoint_round(driver: Driver) {
    let origins = [Origin::new(), Origin::new()];
    let proxy = start_ejecting(driver, "3s", "\"ADDRESS\"", &origins);
    let mut held = [holds(&proxy), holds(&proxy)];
    let [mut bad, mut good] = origins.each_ref().map(Origin::accept);
    for upstream in [&mut bad, &mut good] {
        upstream.request();
    }
    let mut waiting = [holds(&proxy), holds(&proxy), holds(&proxy)];
    until_waiting(&proxy, 3);
    // It is ejected, and its seat is free.
    drop(bad);
    for client in &mut waiting {
        is_refused(client);
    }
    good.send(ok("a"));
    let answers = held.each_mut().map(|client| client.answer().status());
    assert!(
        answers.contains(&200) && answers.contains(&502),
        "{answers:?}"
    );
    assert!(origins[0].has_no_more(), "it is ejected");
}

fn who_waits_goes_to_a_backup_once_its_endpoint_is_ejected(driver: Driver) {
    let origins = [Origin::new(), Origin::new()];
    let backup = "{ address = \"ADDRESS\", backup = true }";
    let proxy = start_ejecting(driver, "1m", backup, &origins);
    let mut held = holds(&proxy);
    let mut bad = origins[0].accept();
    bad.request();
    let mut waiting = [holds(&proxy), holds(&proxy)];
    until_waiting(&proxy, 2);
    drop(bad);
    assert_eq!(held.answer().status(), 502);
    let mut backup = origins[1].accept();
    for _ in &waiting {
        backup.request();
        backup.send(ok("b"));
    }
    for client in &mut waiting {
        assert_eq!(client.answer().text(), "b");
    }
}
