//! States of backends that are set while ringmain runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::plan::plan;
use crate::support::{
    Driver, GET, Message, Origin, Proxy, Served, Setup, eventually, ok, on_both_drivers,
};

on_both_drivers! {
    a_drained_backend_gets_nothing_new_and_comes_back
    what_runs_at_a_drained_backend_finishes
    a_backend_that_is_down_is_not_probed_and_comes_back_slowly
    a_state_stays_until_the_file_says_otherwise
    an_upgrade_hands_a_state_on_unless_the_file_has_spoken
    a_fan_out_leaves_out_who_is_drained
    what_there_is_not_is_answered_with_the_nearest
}

const NONE: &str = "a service has no healthy endpoint";

/// Sets a backend of the service `a`; says the status and the text.
#[track_caller]
fn set(proxy: &Proxy, backend: impl ToString, state: &str) -> (u16, String) {
    let backend = backend.to_string().replace('/', "%2F");
    let answer = proxy.ask(&format!("POST /service/a/backend/{backend}/{state}"));
    (answer.status(), answer.text())
}

/// How many of so many answers are each of `a` and `b`.
fn answers(proxy: &Proxy, count: usize) -> [usize; 2] {
    let mut client = proxy.client();
    let all = (0..count).map(|_| client.get("a.test", "/").text());
    let all: Vec<String> = all.collect();
    ["a", "b"].map(|name| all.iter().filter(|text| *text == name).count())
}

fn pair(driver: Driver, keys: &str) -> ([Served; 2], Setup) {
    let both = ["a", "b"].map(Served::saying);
    let addresses = both.each_ref().map(Served::address);
    let setup = Setup::new(driver).shards(2).admin("127.0.0.1:0");
    let keys = format!("policy = \"round_robin\"\n{keys}");
    (both, setup.service("a", &addresses, &keys))
}

fn a_drained_backend_gets_nothing_new_and_comes_back(driver: Driver) {
    let ([a, b], setup) = pair(driver, "");
    let proxy = setup.start();
    let shown = |backend: &Served| {
        let plan = plan(&proxy);
        let service = &plan["services"][0];
        let place = usize::from(backend.address() == b.address());
        let backend = &service["backends"][place];
        let words = ["state", "file", "run_time"].map(|word| backend[word].clone());
        (words, service["endpoints"][place]["standing"].clone())
    };
    assert_eq!(answers(&proxy, 10), [5, 5]);
    let (status, text) = set(&proxy, a.address(), "drain");
    let expected = format!("backend {} of service \"a\" is drain", a.address());
    assert_eq!((status, &*text), (200, &*format!("{expected}\n")));
    // Both shards have it by now.
    assert_eq!(answers(&proxy, 20), [0, 20]);
    assert_eq!(answers(&proxy, 20), [0, 20]);
    let words = [json!("drain"), json!("ready"), json!("drain")];
    assert_eq!(shown(&a), (words, json!("draining")));
    let line = proxy.log_line("a backend's state is set");
    for part in ["INFO", "service=\"a\"", "from=ready", "to=drain"] {
        let plain = part.replace('"', "");
        assert!(
            line.contains(part) || line.contains(&plain),
            "{part}: {line}"
        );
    }
    let again = set(&proxy, a.address(), "drain");
    assert_eq!(again, (200, format!("{expected}, as it was\n")));
    assert_eq!(set(&proxy, a.address(), "ready").0, 200);
    assert_eq!(answers(&proxy, 10), [5, 5]);
    let words = [json!("ready"), json!("ready"), Value::Null];
    assert_eq!(shown(&a), (words, json!("unknown")));
}

fn what_runs_at_a_drained_backend_finishes(driver: Driver) {
    let origin = Origin::new();
    let proxy = Setup::new(driver)
        .admin("127.0.0.1:0")
        .expects_line(NONE)
        .service("a", &[origin.address()], "")
        .start();
    for (state, word) in [("drain", "draining"), ("down", "down")] {
        let mut client = proxy.client();
        let mut upstream = origin.gets(&mut client, GET);
        let (status, text) = set(&proxy, origin.address(), state);
        assert_eq!(status, 200, "{text}");
        assert!(text.contains("warning: no backend"), "{text}");
        let refused = proxy.client().get("a.test", "/");
        assert_eq!(refused.status(), 503);
        let error = refused.head.proxy_error();
        assert_eq!(error.as_deref(), Some("destination_unavailable"));
        upstream.send(ok("a"));
        assert_eq!(client.answer().text(), "a");
        let report = proxy.ask("GET /report?format=json").text();
        let report: Value = serde_json::from_str(&report).expect("it is JSON");
        let standing = &report["services"][0]["endpoints"][0]["standing"];
        assert_eq!(standing, word);
        assert_eq!(set(&proxy, origin.address(), "ready").0, 200);
    }
}

/// One that counts its probes.
fn probed(name: &'static str) -> (Served, Arc<AtomicUsize>) {
    let probes = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&probes);
    let served = Served::new(move |request: &Message| {
        if request.head.start.contains("/live") {
            counts.fetch_add(1, Ordering::Relaxed);
        }
        ok(name)
    });
    (served, probes)
}

fn a_backend_that_is_down_is_not_probed_and_comes_back_slowly(driver: Driver) {
    let [(a, a_probes), (b, b_probes)] = ["a", "b"].map(probed);
    let keys = "policy = \"round_robin\"\nslow_start = \"1d\"\n[service.probe]\n\
                interval = \"100ms\"\ninterval_failing = \"100ms\"\ntimeout = \"2s\"\n";
    let proxy = Setup::new(driver)
        .admin("127.0.0.1:0")
        .service("a", &[a.address(), b.address()], keys)
        .start();
    let count = |probes: &AtomicUsize| probes.load(Ordering::Relaxed);
    let standing = || plan(&proxy)["services"][0]["endpoints"][1]["standing"].clone();
    eventually(|| standing() == "healthy");
    assert_eq!(set(&proxy, b.address(), "down").0, 200);
    assert_eq!(answers(&proxy, 10), [10, 0]);
    assert_eq!(standing(), "down");
    let (a_before, b_before) = (count(&a_probes), count(&b_probes));
    eventually(|| a_before + 4 <= count(&a_probes));
    // One may have been on its way.
    assert!(count(&b_probes) <= b_before + 1);
    assert_eq!(set(&proxy, b.address(), "ready").0, 200);
    // A sixteenth of its weight against 1, in turn.
    assert_eq!(answers(&proxy, 34), [32, 2]);
    eventually(|| standing() == "healthy");
}

/// The file's list of two backends, of which the first is `drain` or not.
fn written(addresses: [SocketAddr; 2], drain: bool, more: &str) -> String {
    let [a, b] = addresses;
    format!(
        "[[service]]\nname = \"a\"\ndomains = [\"a.test\"]\npolicy = \"round_robin\"\n\
         backends = [{{ address = \"{a}\", drain = {drain} }}, \"{b}\"]\n{more}"
    )
}

fn a_state_stays_until_the_file_says_otherwise(driver: Driver) {
    let both = ["a", "b"].map(Served::saying);
    let addresses = both.each_ref().map(Served::address);
    let setup = Setup::new(driver).shards(2).admin("127.0.0.1:0");
    let with = |drain, more: &str| setup.clone().tables(&written(addresses, drain, more));
    let mut proxy = with(false, "").start();
    let run_time = |proxy: &Proxy| {
        let plan = plan(proxy);
        let services = plan["services"].as_array().expect("it is a list").clone();
        let service = services.iter().find(|service| service["service"] == "a");
        service.expect("it stays")["backends"][0]["run_time"].clone()
    };
    assert_eq!(set(&proxy, addresses[0], "drain").0, 200);
    // Other reloads leave it alone, as does an order that is another.
    proxy.reload(&with(false, "slow_start = \"1s\"\n"));
    assert_eq!(run_time(&proxy), "drain");
    assert_eq!(answers(&proxy, 10), [0, 10]);
    // The file says otherwise, though it says the same as was set.
    proxy.reload(&with(true, ""));
    assert_eq!(run_time(&proxy), Value::Null);
    let line = proxy.log_line("is the file's again");
    assert!(line.contains("was=drain"), "{line}");
    assert_eq!(answers(&proxy, 10), [0, 10]);
    // It can be overruled, too.
    assert_eq!(set(&proxy, addresses[0], "ready").0, 200);
    assert_eq!(answers(&proxy, 10), [5, 5]);
    assert_eq!(run_time(&proxy), "ready");
    proxy.reload(&with(true, "slow_start = \"1s\"\n"));
    assert_eq!(run_time(&proxy), "ready");
    proxy.reload(&with(false, ""));
    assert_eq!(run_time(&proxy), Value::Null);
    eventually(|| answers(&proxy, 10) == [5, 5]);
}

fn an_upgrade_hands_a_state_on_unless_the_file_has_spoken(driver: Driver) {
    let both = ["a", "b"].map(Served::saying);
    let addresses = both.each_ref().map(Served::address);
    let setup = Setup::new(driver).shards(2).admin("127.0.0.1:0");
    let with = |drain| setup.clone().tables(&written(addresses, drain, ""));
    let mut proxy = with(false).start();
    let run_time = |proxy: &Proxy| plan(proxy)["services"][0]["backends"][0]["run_time"].clone();
    assert_eq!(set(&proxy, addresses[0], "drain").0, 200);
    proxy.upgrade();
    assert_eq!(run_time(&proxy), "drain");
    // The file says otherwise, and nobody has asked for a reload.
    proxy.write_config(&with(true).config());
    assert_eq!(run_time(&proxy), "drain");
    proxy.upgrade();
    assert_eq!(run_time(&proxy), Value::Null);
    proxy.log_line("is the file's again");
    proxy.write_config(&with(false).config());
    proxy.upgrade();
    // Until the shards of the old process have heard, they let clients in too.
    eventually(|| answers(&proxy, 10) == [5, 5]);
}

fn a_fan_out_leaves_out_who_is_drained(driver: Driver) {
    let created =
        || Served::new(|_: &Message| "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n".into());
    let [one, other] = [created(), created()];
    let addresses = [one.address(), other.address()];
    let proxy = Setup::new(driver)
        .admin("127.0.0.1:0")
        .service("a", &addresses, "[service.fanout]\n")
        .start();
    let told = || {
        let answer: Value = serde_json::from_str(&proxy.client().get("a.test", "/").text())
            .expect("the answer is JSON");
        let backends = answer["backends"].as_array().expect("it is a list").clone();
        backends
            .iter()
            .map(|it| it["backend"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(told().len(), 2);
    assert_eq!(set(&proxy, one.address(), "down").0, 200);
    assert_eq!(told(), [json!(other.address().to_string())]);
    assert_eq!((one.requests(), other.requests()), (1, 2));
    assert_eq!(set(&proxy, one.address(), "ready").0, 200);
    assert_eq!(told().len(), 2);
}

fn what_there_is_not_is_answered_with_the_nearest(driver: Driver) {
    let origin = Served::saying("a");
    let port = origin.address().port();
    let name = format!("localhost:{port}");
    let proxy = Setup::new(driver)
        .admin("127.0.0.1:0")
        .service("b", &[origin.address()], "")
        .tables(&format!(
            "[[service]]\nname = \"a\"\nbackends = [\"{name}\", \"[::1]:9\"]\n"
        ))
        .start();
    let post = |path: String| {
        let answer = proxy.ask(&format!("POST {path}"));
        (answer.status(), answer.text())
    };
    let (status, text) = post(format!("/service/aa/backend/{name}/drain"));
    let expected = "there is no service \"aa\"; the nearest is \"a\"\n";
    assert_eq!((status, &*text), (404, expected));
    let (status, text) = post("/service/a/backend/localhos:1/drain".to_owned());
    assert_eq!(status, 404);
    assert!(
        text.contains("\"localhos:1\"; the nearest is \"localhost:"),
        "{text}"
    );
    for other in [
        "/service/a/backend/x/away",
        "/service/a/backend/drain",
        "/service/a",
    ] {
        assert_eq!(post(other.to_owned()).0, 404, "{other}");
    }
    // Each way to write it.
    for written in [
        format!("LOCALHOST:{port}"),
        format!("localhost%3A{port}"),
        "[::1]:9".to_owned(),
        "%5B::1%5D%3A9".to_owned(),
        "[0:0::1]:9".to_owned(),
    ] {
        let (status, text) = post(format!("/service/a/backend/{written}/ready"));
        assert_eq!(status, 200, "{written}: {text}");
    }
}
