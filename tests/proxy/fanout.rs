//! Requests that go to every backend: what each gets, what the client is told, and what goes on
//! without it.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Driver, Dummy, Message, Origin, Proxy, Reserved, Served, Setup, Wire, ok, on_both_drivers,
};

on_both_drivers! {
    every_backend_gets_the_request_and_the_client_is_told_of_each
    a_backend_that_skips_requests_has_exactly_one_success
    an_attempt_is_repeated_with_the_same_key
    a_key_of_the_client_is_kept
    a_chunked_body_goes_to_every_backend_with_its_trailers
    a_body_at_the_limit_is_kept_and_one_over_it_is_a_413
    a_body_that_is_awaited_is_asked_for
    a_quorum_is_answered_while_the_slow_backend_still_gets_its_request
    any_is_answered_at_once_and_a_backend_that_is_away_is_waited_for
    a_client_that_leaves_ends_the_attempts
    a_client_that_leaves_does_not_end_what_is_detached
    attempts_that_are_spent_are_a_502_that_tells_of_each
    an_answer_to_a_body_that_is_not_taken_is_one
    a_fan_out_has_a_bound_for_the_whole_exchange
    a_body_that_does_not_come_is_within_the_bound_for_the_whole_exchange
    legs_and_what_they_keep_are_bounded
    a_connection_goes_on_with_its_next_request
    a_stale_connection_costs_no_attempt
    a_status_without_content_has_none
    a_drain_waits_for_legs_without_a_client
    the_end_of_a_drain_ends_the_legs_that_sleep
    a_leg_that_sleeps_ends_with_its_backend_and_with_its_service
    only_the_route_that_asks_for_it_is_fanned_out
}

const REGISTER: &str = "POST /register HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody";
const CREATED: &str = "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok";
const CALM: &str = "[service.eject]\nconsecutive_faults = 0\n";

fn setup(driver: Driver, backends: &[SocketAddr], keys: &str) -> Setup {
    let keys = format!("{CALM}[service.fanout]\njitter = \"1ms\"\n{keys}");
    let setup = Setup::new(driver).admin("127.0.0.1:0");
    setup.service("a", backends, &keys)
}

fn start(driver: Driver, backends: &[SocketAddr], keys: &str) -> Proxy {
    setup(driver, backends, keys).start()
}

/// What the JSON report says of the service.
fn told(proxy: &Proxy) -> Value {
    let mut admin = proxy.admin_client();
    let host = proxy.admin();
    admin.send(format!(
        "GET /report?format=json HTTP/1.1\r\nHost: {host}\r\n\r\n"
    ));
    let report: Value = serde_json::from_slice(&admin.answer().body).expect("the report is JSON");
    report["services"][0].clone()
}

/// What the report says of the backends, once that is what is `wanted`.
#[track_caller]
fn backends_are(proxy: &Proxy, wanted: &[[u64; 3]]) {
    let of = |backend: &Value| {
        ["succeeded", "failed", "attempts"].map(|what| backend[what].as_u64().expect("a count"))
    };
    let mut seen = Vec::new();
    for _ in 0..600 {
        let told = told(proxy);
        seen = told["backends"]
            .as_array()
            .expect("a list")
            .iter()
            .map(of)
            .collect();
        if seen == wanted {
            return;
        }
    }
    assert_eq!(seen, wanted);
}

/// What an answer says of each backend, in JSON.
#[track_caller]
fn legs(answer: &Message) -> Vec<Value> {
    let content = answer.head.field("Content-Type");
    assert_eq!(content.as_deref(), Some("application/json"));
    let told: Value = serde_json::from_slice(&answer.body).expect("the answer is JSON");
    assert_eq!(told["service"], "a");
    told["backends"].as_array().expect("a list").clone()
}

/// Backends that answer 201 and tell of each request.
fn created<const N: usize>() -> ([Served; N], Receiver<(usize, Message)>) {
    let (tell, told) = channel();
    let served = std::array::from_fn(|place| {
        let tell = tell.clone();
        Served::new(move |request| {
            // Nobody listens once the test is over.
            let _ = tell.send((place, request.clone()));
            CREATED.into()
        })
    });
    (served, told)
}

fn addresses<const N: usize>(served: &[Served; N]) -> [SocketAddr; N] {
    served.each_ref().map(Served::address)
}

fn every_backend_gets_the_request_and_the_client_is_told_of_each(driver: Driver) {
    let (served, requests) = created::<3>();
    let proxy = start(driver, &addresses(&served), "");
    let mut client = proxy.client();
    client.send(REGISTER);
    let answer = client.answer();
    assert_eq!(answer.status(), 201);
    assert_eq!(
        answer.head.field("Proxy-Status").as_deref(),
        Some("ringmain")
    );
    let legs = legs(&answer);
    assert_eq!(legs.len(), 3);
    for (leg, served) in legs.iter().zip(&served) {
        assert_eq!(leg["backend"], served.address().to_string());
        assert_eq!((&leg["status"], &leg["attempts"]), (&json!(201), &json!(1)));
        assert!(
            leg["milliseconds"].is_u64() && leg.get("pending").is_none(),
            "{leg}"
        );
        assert_eq!(served.requests(), 1);
    }
    let mut keys = Vec::new();
    for (_, request) in requests.try_iter() {
        assert_eq!(request.head.start, "POST /register HTTP/1.1");
        assert_eq!(request.text(), "body");
        keys.push(request.head.field("Idempotency-Key").expect("it is made"));
    }
    assert_eq!(keys.len(), 3);
    keys.dedup();
    assert_eq!(keys.len(), 1, "one for all");
    assert_eq!(keys[0].len(), 38, "a UUID in quotes: {}", keys[0]);
    backends_are(&proxy, &[[1, 0, 1]; 3]);
    let told = told(&proxy);
    assert_eq!(
        (&told["exchanges"], &told["own_answers"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(told["faults"], json!({}));

    client.send(
        REGISTER
            .replace("POST", "HEAD")
            .replace("Content-Length: 4\r\n\r\nbody", "\r\n"),
    );
    let answer = client.answer_to("HEAD");
    assert_eq!(answer.status(), 201);
    assert!(answer.head.field("Content-Length").is_some());
    client.send(REGISTER);
    assert_eq!(
        client.answer().status(),
        201,
        "nothing came behind the head"
    );
}

fn a_backend_that_skips_requests_has_exactly_one_success(driver: Driver) {
    let ([one, two], requests) = created::<2>();
    let skipping = Dummy::start(&["--status", "201", "--skip-some-requests"]);
    let backends = [one.address(), skipping.address(), two.address()];
    let proxy = start(driver, &backends, "backoff_max = \"1s\"");
    let mut attempts = 0;
    // As a rule one of them is skipped at first.
    for _ in 0..5 {
        let mut client = proxy.client();
        client.send(REGISTER);
        let answer = client.answer();
        assert_eq!(answer.status(), 201);
        let legs = legs(&answer);
        assert!(legs.iter().all(|leg| leg["status"] == 201), "{legs:?}");
        assert_eq!([&legs[0], &legs[2]].map(|leg| &leg["attempts"]), [1, 1]);
        attempts += legs[1]["attempts"].as_u64().expect("a count");
    }
    assert_eq!(requests.try_iter().count(), 10);
    backends_are(&proxy, &[[5, 0, 5], [5, 0, attempts], [5, 0, 5]]);
}

fn an_attempt_is_repeated_with_the_same_key(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, &[origin.address()], "");
    let mut client = proxy.client();
    client.send(REGISTER);
    let mut keys = Vec::new();
    let mut take = |upstream: &mut Wire| {
        let request = upstream.request();
        assert_eq!(request.text(), "body");
        keys.push(request.head.field("Idempotency-Key").expect("it is made"));
    };
    let mut upstream = origin.accept();
    take(&mut upstream);
    upstream.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy");
    // On the same connection, whose answer was read away.
    take(&mut upstream);
    upstream.send(CREATED);
    let answer = client.answer();
    let leg = &legs(&answer)[0];
    assert_eq!((&leg["status"], &leg["attempts"]), (&json!(201), &json!(2)));
    let milliseconds = leg["milliseconds"].as_u64().expect("a time");
    assert!(1_000 <= milliseconds, "the first wait is a second: {leg}");
    assert_eq!(keys[0], keys[1]);
    backends_are(&proxy, &[[1, 0, 2]]);
}

fn a_key_of_the_client_is_kept(driver: Driver) {
    let ([served], requests) = created::<1>();
    let proxy = start(driver, &[served.address()], "");
    let mut client = proxy.client();
    client.send(REGISTER.replace("Host", "idempotency-key: \"mine\"\r\nHost"));
    assert_eq!(client.answer().status(), 201);
    let (_, request) = requests.try_recv().expect("it has come");
    let keys = request.head.fields.iter();
    let keys: Vec<_> = keys
        .filter(|(name, _)| name.eq_ignore_ascii_case("Idempotency-Key"))
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(keys, ["\"mine\""]);
}

fn a_chunked_body_goes_to_every_backend_with_its_trailers(driver: Driver) {
    let origins = [Origin::new(), Origin::new()];
    let proxy = start(driver, &origins.each_ref().map(Origin::address), "");
    const BODY: &str = "4;x=y\r\nbody\r\n3\r\nand\r\n0\r\nX-Sum: 7\r\n\r\n";
    let head = REGISTER.replace(
        "Content-Length: 4\r\n\r\nbody",
        "Transfer-Encoding: chunked\r\n\r\n",
    );
    // Whole at once, and in two parts.
    for split in [BODY.len(), 9] {
        let mut client = proxy.client();
        client.send(format!("{head}{}", &BODY[..split]));
        if split < BODY.len() {
            assert!(origins[0].has_no_more(), "nobody gets a part of it");
            client.send(&BODY[split..]);
        }
        for origin in &origins {
            let mut upstream = origin.accept();
            let head = upstream.head();
            assert_eq!(head.field("Transfer-Encoding").as_deref(), Some("chunked"));
            assert_eq!(upstream.take(BODY.len()), BODY.as_bytes());
            upstream.send(CREATED.replace("Content", "Connection: close\r\nContent"));
        }
        assert_eq!(client.answer().status(), 201);
    }
}

fn a_body_at_the_limit_is_kept_and_one_over_it_is_a_413(driver: Driver) {
    let (served, requests) = created::<3>();
    let proxy = start(driver, &addresses(&served), "");
    let body = "0123456789abcdef".repeat(65_536);
    let head = |framing: &str| REGISTER.replace("Content-Length: 4\r\n\r\nbody", framing);
    let mut client = proxy.client();
    let length = body.len();
    client.send(head(&format!("Content-Length: {length}\r\n\r\n{body}")));
    assert_eq!(client.answer().status(), 201);
    let got: Vec<_> = requests.try_iter().collect();
    assert_eq!(got.len(), 3);
    assert!(
        got.iter()
            .all(|(_, request)| request.body == body.as_bytes())
    );
    for framing in [
        format!("Content-Length: {}\r\n\r\n", length + 1),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}", length),
    ] {
        let mut client = proxy.client();
        client.send(head(&framing));
        let answer = client.answer();
        assert_eq!(answer.status(), 413);
        assert_eq!(
            answer.head.proxy_error().as_deref(),
            Some("http_request_error")
        );
    }
    assert_eq!(requests.try_iter().count(), 0);
    assert_eq!(told(&proxy)["faults"], json!({"http_request_body_size": 2}));
}

fn a_body_that_is_awaited_is_asked_for(driver: Driver) {
    let ([served], requests) = created::<1>();
    let proxy = start(driver, &[served.address()], "");
    let mut client = proxy.client();
    let request = REGISTER.replace("Host", "Expect: 100-continue\r\nHost");
    let (head, body) = request.split_at(request.len() - 4);
    client.send(head);
    assert_eq!(client.head().status(), 100);
    client.send(body);
    assert_eq!(client.answer().status(), 201);
    let (_, request) = requests.try_recv().expect("it has come");
    assert_eq!(
        (request.head.field("Expect"), request.text().as_str()),
        (None, "body")
    );
}

fn a_quorum_is_answered_while_the_slow_backend_still_gets_its_request(driver: Driver) {
    let ([one, two], _requests) = created::<2>();
    let slow = Origin::new();
    let backends = [one.address(), slow.address(), two.address()];
    let proxy = start(driver, &backends, "require = \"quorum\"");
    let mut client = proxy.client();
    client.send(REGISTER);
    let answer = client.answer();
    assert_eq!(answer.status(), 201);
    let legs = legs(&answer);
    assert_eq!(legs[1]["status"], Value::Null);
    let pending: Vec<_> = legs.iter().map(|leg| leg["pending"] == true).collect();
    assert_eq!(pending, [false, true, false]);
    // Not even the end of the connection, which had its answer, takes it away.
    drop(client);
    let mut upstream = slow.accept();
    assert_eq!(upstream.request().text(), "body");
    upstream.send(CREATED);
    backends_are(&proxy, &[[1, 0, 1]; 3]);
}

fn any_is_answered_at_once_and_a_backend_that_is_away_is_waited_for(driver: Driver) {
    let ([one], _requests) = created::<1>();
    let away = Reserved::new();
    let backends = [one.address(), away.address()];
    let proxy = start(driver, &backends, "require = \"any\"");
    let mut client = proxy.client();
    client.send(REGISTER);
    let answer = client.answer();
    assert_eq!(answer.status(), 201);
    assert_eq!(legs(&answer)[1]["pending"], true);
    let back = Served::at(&away, |_| CREATED.into());
    backends_are(&proxy, &[[1, 0, 1], [1, 0, 2]]);
    assert_eq!(back.requests(), 1);
    assert_eq!(
        told(&proxy)["faults"],
        json!({}),
        "nobody's exchange has failed"
    );
}

fn a_client_that_leaves_ends_the_attempts(driver: Driver) {
    let origin = Origin::new();
    let backends = [origin.address(), Origin::refused()];
    let proxy = start(driver, &backends, "backoff_max = \"1s\"");
    let mut client = proxy.client();
    client.send(REGISTER);
    let mut upstream = origin.accept();
    upstream.request();
    client.reset();
    upstream.ends();
    proxy.counts_one_fault("client_gone");
    let told = told(&proxy);
    let failed = |place: usize| &told["backends"][place]["failed"];
    assert_eq!([failed(0), failed(1)], [1, 1], "{told:#}");
    assert_eq!(told["backends"][0]["attempts"], 1);
    assert!(origin.accept_within(Duration::from_secs(2)).is_none());
}

fn a_client_that_leaves_does_not_end_what_is_detached(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, &[origin.address()], "detached = true");
    let mut client = proxy.client();
    client.send(REGISTER);
    let mut upstream = origin.accept();
    upstream.request();
    client.reset();
    proxy.counts_one_fault("client_gone");
    upstream.send("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n");
    upstream.request();
    upstream.send(CREATED);
    backends_are(&proxy, &[[1, 0, 2]]);
}

fn attempts_that_are_spent_are_a_502_that_tells_of_each(driver: Driver) {
    let ([good], _requests) = created::<1>();
    let bad = Served::saying("200 is not what was asked for");
    let backends = [good.address(), bad.address(), Origin::refused()];
    let proxy = start(driver, &backends, "attempts_max = 1");
    let mut client = proxy.client();
    client.send(REGISTER);
    let answer = client.answer();
    assert_eq!(answer.status(), 502);
    let error = answer.head.proxy_error();
    assert_eq!(error.as_deref(), Some("destination_unavailable"));
    // It may be answered before the others are through.
    let legs = legs(&answer);
    assert!(
        legs.iter()
            .any(|leg| leg["status"] == 200 || leg["fault"] == "connection_refused"),
        "{legs:?}"
    );
    assert!(
        legs.iter().all(|leg| leg["attempts"].as_u64() <= Some(1)),
        "{legs:?}"
    );
    backends_are(&proxy, &[[1, 0, 1], [0, 1, 1], [0, 1, 1]]);
    proxy.counts_one_fault("fanout_unmet");
    client.send(REGISTER);
    assert_eq!(client.answer().status(), 502, "the connection goes on");
}

fn an_answer_to_a_body_that_is_not_taken_is_one(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, &[origin.address()], "attempts_max = 1");
    let mut client = proxy.client();
    let body = "x".repeat(1_000_000);
    let framing = format!("Content-Length: 1000000\r\n\r\n{body}");
    client.send(REGISTER.replace("Content-Length: 4\r\n\r\nbody", &framing));
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n");
    // With bytes unread this is a reset.
    drop(upstream);
    let answer = client.answer();
    assert_eq!(answer.status(), 502);
    let legs = legs(&answer);
    assert_eq!(legs[0]["status"], 413, "{legs:?}");
}

fn a_fan_out_has_a_bound_for_the_whole_exchange(driver: Driver) {
    let keys = "jitter = \"0s\"\n[service.timeouts]\ntotal = \"300ms\"";
    let keys = format!("{CALM}[service.fanout]\n{keys}");
    let origin = Origin::new();
    let setup = Setup::new(driver).service("a", &[origin.address()], &keys);
    let proxy = setup.start();
    let mut client = proxy.client();
    client.send(REGISTER);
    let mut upstream = origin.accept();
    upstream.request();
    let answer = client.answer();
    assert_eq!(answer.status(), 504);
    upstream.ends();
    proxy.counts_one_fault("exchange_timeout");
}

fn a_body_that_does_not_come_is_within_the_bound_for_the_whole_exchange(driver: Driver) {
    let origin = Origin::new();
    let keys = "[service.timeouts]\ntotal = \"300ms\"";
    let proxy = start(driver, &[origin.address()], keys);
    let mut client = proxy.client();
    client.send(&REGISTER[..REGISTER.len() - 1]);
    assert_eq!(client.answer().status(), 504);
    proxy.counts_one_fault("exchange_timeout");
    let told = told(&proxy);
    assert_eq!(told["backends"][0]["attempts"], 0, "{told:#}");
}

fn legs_and_what_they_keep_are_bounded(driver: Driver) {
    let origins = [Origin::new(), Origin::new()];
    let backends = origins.each_ref().map(Origin::address);
    let keys = "legs_max = 3\nkept_bytes_max = \"2KiB\"";
    let proxy = start(driver, &backends, keys);
    let mut first = proxy.client();
    first.send(REGISTER);
    let mut upstreams = origins.each_ref().map(Origin::accept);
    for upstream in &mut upstreams {
        upstream.request();
    }
    let mut refused = proxy.client();
    refused.send(REGISTER);
    let answer = refused.answer();
    assert_eq!(answer.status(), 503);
    let error = answer.head.proxy_error();
    assert_eq!(error.as_deref(), Some("connection_limit_reached"));
    for upstream in &mut upstreams {
        upstream.send(CREATED);
    }
    assert_eq!(first.answer().status(), 201);
    // By its length, and chunk by chunk.
    let body = "x".repeat(2_048);
    for framing in [
        format!("Content-Length: 2048\r\n\r\n{body}"),
        format!("Transfer-Encoding: chunked\r\n\r\n800\r\n{body}\r\n0\r\n\r\n"),
    ] {
        let mut client = proxy.client();
        client.send(REGISTER.replace("Content-Length: 4\r\n\r\nbody", &framing));
        assert_eq!(client.answer().status(), 503);
    }
    let told = told(&proxy);
    assert_eq!(told["shed"]["legs_max"], 1, "{told:#}");
    assert_eq!(told["shed"]["kept_bytes_max"], 2, "{told:#}");
    // What they had taken was given back.
    first.send(REGISTER);
    for upstream in &mut upstreams {
        upstream.request();
        upstream.send(CREATED);
    }
    assert_eq!(first.answer().status(), 201);
}

fn a_connection_goes_on_with_its_next_request(driver: Driver) {
    let (served, requests) = created::<2>();
    let proxy = start(driver, &addresses(&served), "");
    let mut client = proxy.client();
    let second = REGISTER.replace("body", "more");
    client.send(format!("{REGISTER}{second}"));
    for body in ["body", "more"] {
        assert_eq!(client.answer().status(), 201);
        let got: Vec<_> = requests.try_iter().map(|(_, got)| got.text()).collect();
        assert!(
            got.iter().filter(|got| *got == body).count() <= 2,
            "{got:?}"
        );
    }
    assert_eq!(served.each_ref().map(Served::requests), [2, 2]);
    assert_eq!(
        served.each_ref().map(Served::connections),
        [1, 1],
        "they are kept"
    );
}

fn a_stale_connection_costs_no_attempt(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, &[origin.address()], "attempts_max = 1");
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, REGISTER);
    upstream.send(CREATED);
    assert_eq!(client.answer().status(), 201);
    // It takes the next request, and closes without an answer.
    client.send(REGISTER);
    upstream.request();
    drop(upstream);
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send(CREATED);
    let answer = client.answer();
    assert_eq!(
        (answer.status(), &legs(&answer)[0]["attempts"]),
        (201, &json!(1))
    );
    assert_eq!(told(&proxy)["replays"], 1);
}

fn a_status_without_content_has_none(driver: Driver) {
    let served = Served::new(|_| "HTTP/1.1 204 No Content\r\n\r\n".into());
    let proxy = start(driver, &[served.address()], "status = 204");
    let mut client = proxy.client();
    for _ in 0..2 {
        client.send(REGISTER);
        let answer = client.answer();
        assert_eq!(answer.status(), 204);
        assert_eq!(answer.head.field("Content-Length"), None);
    }
}

fn a_drain_waits_for_legs_without_a_client(driver: Driver) {
    let ([one], _requests) = created::<1>();
    let slow = Origin::new();
    let setup = setup(
        driver,
        &[one.address(), slow.address()],
        "require = \"any\"",
    );
    let mut proxy = setup.runtime("drain_timeout = \"20s\"").start();
    let mut client = proxy.client();
    client.send(REGISTER);
    assert_eq!(client.answer().status(), 201);
    drop(client);
    let mut upstream = slow.accept();
    upstream.request();
    proxy.signal("TERM");
    proxy.log_line("drain");
    upstream.send("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n");
    // The next attempt is waited for as well.
    upstream.request();
    upstream.send(CREATED);
    assert_eq!(proxy.exit_code_within(Duration::from_secs(5)), Some(0));
}

fn the_end_of_a_drain_ends_the_legs_that_sleep(driver: Driver) {
    let ([one], _requests) = created::<1>();
    let backends = [one.address(), Origin::refused()];
    let setup = setup(driver, &backends, "require = \"any\"");
    let setup = setup.runtime("drain_timeout = \"1s\"");
    let mut proxy = setup.expects_line("drain_timeout has passed").start();
    let mut client = proxy.client();
    client.send(REGISTER);
    assert_eq!(client.answer().status(), 201);
    let mut waiting = proxy.client();
    waiting.send(REGISTER);
    assert_eq!(waiting.answer().status(), 201);
    proxy.signal("TERM");
    assert_eq!(proxy.exit_code_within(Duration::from_secs(8)), Some(0));
}

fn a_leg_that_sleeps_ends_with_its_backend_and_with_its_service(driver: Driver) {
    let ([served], told) = created();
    let stays = Served::saying("b");
    let gone = Origin::refused();
    // A leg that failed sleeps for longer than this test takes.
    let keys = format!("{CALM}[service.fanout]\njitter = \"1h\"\n");
    let setup = Setup::new(driver).admin("127.0.0.1:0");
    let setup = setup.service("b", &[stays.address()], "");
    let both = [served.address(), gone];
    let whole = setup.clone().service("a", &both, &keys);
    let without_backend = setup.clone().service("a", &both[..1], &keys);
    let mut proxy = whole.clone().start();
    for next in [without_backend, setup] {
        let mut client = proxy.client();
        client.send(REGISTER);
        told.recv().expect("the other backend gets it");
        let is_asleep = |_| {
            let report = proxy.admin_client().get("localhost", "/report?format=text");
            report.text().contains("1 asleep")
        };
        assert!((0..600).any(is_asleep));
        proxy.reload(&next);
        let answer = client.answer();
        assert_eq!(answer.status(), 502);
        let legs = legs(&answer);
        assert_eq!(legs[1]["fault"], "destination_unavailable", "{legs:?}");
        assert_eq!(client.get("b.test", "/").text(), "b");
        proxy.reload(&whole);
    }
}

fn only_the_route_that_asks_for_it_is_fanned_out(driver: Driver) {
    let served = [
        Served::new(|request| answer_to(request, "one")),
        Served::new(|request| answer_to(request, "two")),
    ];
    let all = addresses(&served);
    let route = "[[route]]\ndomain = \"b.test\"\npath = \"/register\"\nmethods = [\"POST\"]\n\
                 service = \"a\"";
    let setup = setup(driver, &all, "").service("b", &all, "policy = \"round_robin\"");
    let proxy = setup.tables(route).start();
    let mut client = proxy.client();
    let mut said: Vec<_> = (0..2)
        .map(|_| client.get("b.test", "/login").text())
        .collect();
    said.sort();
    assert_eq!(said, ["one", "two"]);
    client.send(REGISTER.replace("a.test", "b.test"));
    assert_eq!(legs(&client.answer()).len(), 2);
    assert_eq!(served.each_ref().map(Served::requests), [2, 2]);
}

fn answer_to(request: &Message, name: &str) -> Vec<u8> {
    match request.head.start.starts_with("POST") {
        true => CREATED.into(),
        false => ok(name),
    }
}
