//! Endpoints that are probed: who is not well leaves, who is well again returns, and the log says
//! each once.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use crate::support::{
    Directory, Driver, Dummy, Message, Origin, Proxy, Reserved, Served, Setup, Wire, eventually,
    ok, on_both_drivers,
};

on_both_drivers! {
    a_backend_that_dies_leaves_and_returns
    other_statuses_and_silence_are_failures
    a_connection_is_enough_for_tcp
    a_command_decides
    a_command_that_hangs_is_killed_with_its_children
    a_second_signal_at_once_leaves_no_command_behind
    an_endpoint_is_not_used_before_it_is_ready
    a_new_endpoint_waits_for_its_first_good_probe
    a_new_endpoint_that_fails_its_probes_is_not_fallen_back_on
    with_no_endpoint_left_a_service_fails_open_or_closed
    the_environment_sets_the_interval
    so_many_in_a_row_make_a_verdict
    a_recovered_endpoint_starts_slowly
    a_good_probe_after_a_failed_one_readmits_at_once
    a_probe_is_a_request_of_its_own_kind
    a_drain_ends_the_probes
    a_recovery_does_not_stop_a_shard_whose_exchanges_wait_elsewhere
}

const UNHEALTHY: &str = "an endpoint is unhealthy";
const AGAIN: &str = "an endpoint is healthy again";
const NONE: &str = "a service has no healthy endpoint";

/// `[service.probe]` at the greatest pace, and `keys`.
fn probe(keys: &str) -> String {
    format!(
        "[service.probe]\ninterval = \"100ms\"\ninterval_failing = \"100ms\"\ntimeout = \"2s\"\n\
         {keys}\n"
    )
}

/// An origin that says who it is, and what it is told to for each path.
struct Switch {
    served: Served,
    live: Arc<AtomicU16>,
    ready: Arc<AtomicU16>,
    /// Requests for anything else.
    others: Arc<AtomicUsize>,
}

impl Switch {
    fn new(name: &'static str) -> Self {
        let [live, ready] = [(); 2].map(|()| Arc::new(AtomicU16::new(200)));
        let others = Arc::new(AtomicUsize::new(0));
        let (says_live, says_ready, counts) = (live.clone(), ready.clone(), others.clone());
        let served = Served::new(move |request: &Message| {
            let path = request.head.start.split(' ').nth(1).unwrap_or_default();
            let status = match path {
                "/live" => says_live.load(Ordering::Relaxed),
                "/ready" => says_ready.load(Ordering::Relaxed),
                _ => {
                    counts.fetch_add(1, Ordering::Relaxed);
                    return ok(name);
                }
            };
            format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n").into()
        });
        Self {
            served,
            live,
            ready,
            others,
        }
    }

    fn address(&self) -> SocketAddr {
        self.served.address()
    }

    fn live(&self, status: u16) {
        self.live.store(status, Ordering::Relaxed);
    }

    fn ready(&self, status: u16) {
        self.ready.store(status, Ordering::Relaxed);
    }

    fn others(&self) -> usize {
        self.others.load(Ordering::Relaxed)
    }
}

/// Asks until `wanted` is true of twenty answers in a row.
#[track_caller]
fn until(client: &mut Wire, wanted: impl Fn(&Message) -> bool) {
    eventually(|| (0..20).all(|_| wanted(&client.get("a.test", "/"))));
}

/// Asks until both have answered.
#[track_caller]
fn until_both(client: &mut Wire) {
    for name in ["a", "b"] {
        eventually(|| client.get("a.test", "/").text() == name);
    }
}

/// How many lines of the log hold `text`.
fn count(proxy: &Proxy, text: &str) -> usize {
    let lines = proxy.log_lines();
    lines.iter().filter(|line| line.contains(text)).count()
}

/// Waits until so many lines of the log hold `text`; more are a failure.
#[track_caller]
fn until_lines(proxy: &Proxy, text: &str, lines: usize) {
    eventually(|| lines <= count(proxy, text));
    assert_eq!(count(proxy, text), lines, "{:#?}", proxy.log_lines());
}

fn a_backend_that_dies_leaves_and_returns(driver: Driver) {
    let mortal = Reserved::new();
    let b = Served::saying("b");
    let a = Served::at(&mortal, |_| ok("a"));
    let proxy = Setup::new(driver)
        .service("a", &[mortal.address(), b.address()], &probe(""))
        .expects_line(UNHEALTHY)
        .start();
    let mut client = proxy.client();
    until_both(&mut client);
    drop(a);
    let line = proxy.log_line(UNHEALTHY);
    assert!(line.contains("service=a"), "{line}");
    assert!(
        line.contains(&format!("endpoint={}", mortal.address())),
        "{line}"
    );
    assert!(line.contains("reason=connection_refused"), "{line}");
    until(&mut client, |answer| answer.text() == "b");

    let _again = Served::at(&mortal, |_| ok("a"));
    let line = proxy.log_line(AGAIN);
    assert!(
        line.contains(&format!("endpoint={}", mortal.address())),
        "{line}"
    );
    until_both(&mut client);
    // Each change has its line, whatever number of probes came to it.
    until_lines(&proxy, UNHEALTHY, 1);
    until_lines(&proxy, AGAIN, 1);
    assert_eq!(count(&proxy, NONE), 0);
}

fn other_statuses_and_silence_are_failures(driver: Driver) {
    let well = Dummy::start(&[]);
    let failing = Dummy::start(&["--status", "503"]);
    let silent = Dummy::start(&["--delay-first-byte", "1m"]);
    let skipping = Dummy::start(&["--close-after", "1"]);
    let gone = Origin::refused();
    let garbled = Served::new(|_| b"SSH-2.0-OpenSSH\r\n\r\n".into());
    let backends = [
        well.address(),
        failing.address(),
        silent.address(),
        skipping.address(),
        gone,
        garbled.address(),
    ];
    let proxy = Setup::new(driver)
        // For requests that come before it is known who is well.
        .service(
            "a",
            &backends,
            &probe("[service.timeouts]\nresponse = \"500ms\""),
        )
        .expects_line(UNHEALTHY)
        .start();
    for (endpoint, reason) in [
        (failing.address(), "reason=\"status 503\""),
        (silent.address(), "reason=http_response_timeout"),
        (gone, "reason=connection_refused"),
        (garbled.address(), "reason=http_protocol_error"),
    ] {
        let line = proxy.log_line(&format!("endpoint={endpoint} "));
        assert!(line.contains(UNHEALTHY) && line.contains(reason), "{line}");
    }
    let mut client = proxy.client();
    let is_well = |answer: &Message| answer.status() == 200;
    until(&mut client, is_well);
    until_lines(&proxy, UNHEALTHY, 4);
}

fn a_connection_is_enough_for_tcp(driver: Driver) {
    let [a, b] = [Reserved::new(), Reserved::new()];
    let _never = Served::at(&a, |_| ok("a"));
    let mortal = Served::at(&b, |_| ok("b"));
    let proxy = Setup::new(driver)
        .service("a", &[a.address(), b.address()], &probe("kind = \"tcp\""))
        .expects_line(UNHEALTHY)
        .start();
    let mut client = proxy.client();
    until_both(&mut client);
    drop(mortal);
    let line = proxy.log_line(UNHEALTHY);
    assert!(
        line.contains(&format!("endpoint={}", b.address())),
        "{line}"
    );
    until(&mut client, |answer| answer.text() == "a");
    let _again = Served::at(&b, |_| ok("b"));
    until_both(&mut client);
    until_lines(&proxy, AGAIN, 1);
}

/// A script of `text` in `directory`.
fn script(directory: &Directory, text: &str) -> String {
    let path = directory.join("probe.sh");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("the directory is writable");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("it is ours");
    path.to_str()
        .expect("cargo's directory is UTF-8")
        .to_owned()
}

fn a_command_decides(driver: Driver) {
    let [a, b] = ["a", "b"].map(Served::saying);
    let directory = Directory::new();
    let script = script(&directory, "exec test ! -e \"$1/$RINGMAIN_ENDPOINT\"");
    let folder = directory.join("");
    let folder = folder.display();
    let keys = format!("kind = \"exec\"\ncommand = [\"{script}\", \"{folder}\"]\n");
    // A machine that is busy takes its time to start a shell.
    let keys = probe(&keys).replace("2s", "5s");
    let proxy = Setup::new(driver)
        .service("a", &[a.address(), b.address()], &keys)
        .expects_line(UNHEALTHY)
        .start();
    let mut client = proxy.client();
    until_both(&mut client);
    let flag = directory.join(&b.address().to_string());
    fs::write(&flag, "").expect("the directory is writable");
    let line = proxy.log_line(UNHEALTHY);
    assert!(
        line.contains(&format!("endpoint={}", b.address())),
        "{line}"
    );
    assert!(line.contains("reason=\"exit code 1\""), "{line}");
    until(&mut client, |answer| answer.text() == "a");
    fs::remove_file(&flag).expect("it is there");
    until_both(&mut client);
    until_lines(&proxy, AGAIN, 1);
}

fn a_command_that_hangs_is_killed_with_its_children(driver: Driver) {
    let a = Served::saying("a");
    let directory = Directory::new();
    let children = directory.join("children");
    let text = format!("sleep 1000 & echo $! >> {}\nwait", children.display());
    let script = script(&directory, &text);
    let keys = probe(&format!("kind = \"exec\"\ncommand = [\"{script}\"]\n"));
    let proxy = Setup::new(driver)
        .service("a", &[a.address()], &keys.replace("2s", "1s"))
        .expects_line(UNHEALTHY)
        .expects_line(NONE)
        .start();
    let line = proxy.log_line(UNHEALTHY);
    assert!(line.contains("reason=\"no exit within 1s\""), "{line}");
    let first = fs::read_to_string(&children).expect("the script has begun");
    let first = first.lines().next().expect("it has a child").to_owned();
    eventually(|| !runs(&first));
    // Also those of the try that the drain cuts.
    drop(proxy);
    let all = fs::read_to_string(&children).expect("the script has begun");
    eventually(|| !all.lines().any(runs));
}

fn a_second_signal_at_once_leaves_no_command_behind(driver: Driver) {
    let a = Served::saying("a");
    let directory = Directory::new();
    let begun = directory.join("begun");
    let script = script(
        &directory,
        &format!("echo $$ > {}\nsleep 1000", begun.display()),
    );
    let keys = probe(&format!("kind = \"exec\"\ncommand = [\"{script}\"]\n"));
    let mut proxy = Setup::new(driver)
        .service("a", &[a.address()], &keys.replace("200ms", "1h"))
        .expects_line("a second signal")
        .start();
    let id = || fs::read_to_string(&begun).unwrap_or_default();
    eventually(|| id().ends_with('\n'));
    // Both are there before control looks.
    proxy.signal("STOP");
    proxy.signal("TERM");
    proxy.signal("INT");
    proxy.signal("CONT");
    assert_eq!(proxy.exit_code(), Some(1));
    eventually(|| !runs(id().trim()));
}

/// Whether the process `id` is there and no zombie.
fn runs(id: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(id).join("stat"));
    let state = stat.ok().and_then(|stat| {
        let (_, fields) = stat.rsplit_once(") ")?;
        fields.chars().next()
    });
    state.is_some_and(|state| state != 'Z')
}

fn an_endpoint_is_not_used_before_it_is_ready(driver: Driver) {
    let [a, b] = ["a", "b"].map(Switch::new);
    b.ready(503);
    let proxy = Setup::new(driver)
        .service(
            "a",
            &[a.address(), b.address()],
            &probe("ready_path = \"/ready\""),
        )
        .expects_line(UNHEALTHY)
        .start();
    let line = proxy.log_line(UNHEALTHY);
    assert!(line.contains("reason=\"not ready: status 503\""), "{line}");
    let mut client = proxy.client();
    until(&mut client, |answer| answer.text() == "a");
    assert_eq!(b.others(), 0, "it was never ready");
    b.ready(200);
    until_both(&mut client);
    // Whoever is healthy may say that it is busy.
    b.ready(503);
    a.live(503);
    proxy.log_line(&format!("endpoint={} reason=\"status 503\"", a.address()));
    until(&mut client, |answer| answer.text() == "b");
    until_lines(&proxy, UNHEALTHY, 2);
}

fn a_new_endpoint_waits_for_its_first_good_probe(driver: Driver) {
    let reserved = Reserved::new();
    let proxy = Setup::new(driver)
        .service(
            "a",
            &[reserved.address()],
            &probe("wait_first = true\nunhealthy_after = 1000"),
        )
        .start();
    let mut client = proxy.client();
    let answer = client.get("a.test", "/");
    assert_eq!(answer.status(), 503);
    let error = answer.head.proxy_error();
    assert_eq!(error.as_deref(), Some("destination_unavailable"));
    let _a = Served::at(&reserved, |_| ok("a"));
    until(&mut client, |answer| answer.text() == "a");
    until_lines(&proxy, "an endpoint is healthy and gets traffic", 1);
}

fn a_new_endpoint_that_fails_its_probes_is_not_fallen_back_on(driver: Driver) {
    for keys in ["wait_first = true", "ready_path = \"/ready\""] {
        let a = Switch::new("a");
        a.live(503);
        a.ready(503);
        let proxy = Setup::new(driver)
            .service("a", &[a.address()], &probe(keys))
            .expects_line(UNHEALTHY)
            .expects_line(NONE)
            .expects_line("endpoints are used that are not in")
            .start();
        let mut client = proxy.client();
        proxy.log_line(UNHEALTHY);
        proxy.log_line(NONE);
        // For long enough that the plan with that verdict has come.
        for _ in 0..2_000 {
            assert_eq!(client.get("a.test", "/").status(), 503);
        }
        assert_eq!(a.others(), 0, "it was never good");
        a.live(200);
        a.ready(200);
        until(&mut client, |answer| answer.text() == "a");
        // From now on it is one of those that are used where none is well.
        a.live(503);
        until_lines(&proxy, UNHEALTHY, 2);
        until(&mut client, |answer| answer.text() == "a");
    }
}

fn with_no_endpoint_left_a_service_fails_open_or_closed(driver: Driver) {
    for fail_open in [true, false] {
        let [a, b] = ["a", "b"].map(Switch::new);
        let keys = format!("fail_open = {fail_open}\n{}", probe(""));
        let proxy = Setup::new(driver)
            .service("a", &[a.address(), b.address()], &keys)
            .expects_line(UNHEALTHY)
            .expects_line(NONE)
            .start();
        let mut client = proxy.client();
        until_both(&mut client);
        a.live(503);
        until(&mut client, |answer| answer.text() == "b");
        b.live(503);
        until_lines(&proxy, NONE, 1);
        if fail_open {
            until_both(&mut client);
        } else {
            until(&mut client, |answer| {
                let error = answer.head.proxy_error();
                error.as_deref() == Some("destination_unavailable") && answer.status() == 503
            });
        }
        a.live(200);
        until_lines(&proxy, "a service has a healthy endpoint", 1);
        until(&mut client, |answer| answer.text() == "a");
        until_lines(&proxy, UNHEALTHY, 2);
        until_lines(&proxy, AGAIN, 1);
    }
}

fn the_environment_sets_the_interval(driver: Driver) {
    let [a, b] = ["a", "b"].map(Switch::new);
    let keys = "[service.probe]\ninterval = \"1h\"\n";
    let proxy = Setup::new(driver)
        .environment("PROBE_INTERVAL", "100ms")
        .service("a", &[a.address(), b.address()], keys)
        .expects_line(UNHEALTHY)
        .start();
    let mut client = proxy.client();
    until_both(&mut client);
    b.live(503);
    until(&mut client, |answer| answer.text() == "a");
}

fn so_many_in_a_row_make_a_verdict(driver: Driver) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&asked);
    // The 1st is good, the next 4 are not, then one good, and so on: never 3 good in a row.
    let a = Served::new(move |request: &Message| {
        if !request.head.start.contains("/live") {
            return ok("a");
        }
        match counts.fetch_add(1, Ordering::Relaxed) {
            0 | 5 | 7 | 8 => ok("well"),
            ..10 => "HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n".into(),
            _ => ok("well"),
        }
    });
    let proxy = Setup::new(driver)
        .service(
            "a",
            &[a.address()],
            &probe("healthy_after = 3\nunhealthy_after = 4"),
        )
        .expects_line(UNHEALTHY)
        .expects_line(NONE)
        .start();
    until_lines(&proxy, UNHEALTHY, 1);
    assert!(5 <= asked.load(Ordering::Relaxed));
    until_lines(&proxy, AGAIN, 1);
    // The 11th, 12th and 13th.
    assert!(13 <= asked.load(Ordering::Relaxed));
    assert_eq!(count(&proxy, UNHEALTHY), 1);
}

fn a_recovered_endpoint_starts_slowly(driver: Driver) {
    let [a, b] = ["a", "b"].map(Switch::new);
    let keys = format!(
        "policy = \"round_robin\"\nslow_start = \"1d\"\n{}",
        probe("")
    );
    let proxy = Setup::new(driver)
        .service("a", &[a.address(), b.address()], &keys)
        .expects_line(UNHEALTHY)
        .start();
    let mut client = proxy.client();
    until_both(&mut client);
    b.live(503);
    until(&mut client, |answer| answer.text() == "a");
    b.live(200);
    eventually(|| client.get("a.test", "/").text() == "b");
    // A sixteenth of its weight against 1, in turn.
    let answers = (0..34).map(|_| client.get("a.test", "/").text());
    assert_eq!(answers.filter(|text| text == "b").count(), 2);
}

fn a_good_probe_after_a_failed_one_readmits_at_once(driver: Driver) {
    let a = Switch::new("a");
    let [probed, well] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let (counts, says_well) = (Arc::clone(&probed), Arc::clone(&well));
    // Not well: exchanges fail, and every other probe.
    let b = Served::new(move |request: &Message| {
        let is_well = 0 < says_well.load(Ordering::Relaxed);
        if request.head.start.contains("/live") {
            let count = counts.fetch_add(1, Ordering::Relaxed);
            return match is_well || count.is_multiple_of(2) {
                true => ok("well"),
                false => "HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n".into(),
            };
        }
        if is_well {
            ok("b")
        } else {
            "no head\r\n\r\n".into()
        }
    });
    let keys = format!(
        "{}[service.eject]\nconsecutive_faults = 1\nduration = \"1h\"\n",
        probe("unhealthy_after = 1000")
    );
    let proxy = Setup::new(driver)
        .service("a", &[a.address(), b.address()], &keys)
        .expects_line("an endpoint is ejected")
        .start();
    let mut client = proxy.client();
    eventually(|| {
        let _answered = client.get("a.test", "/");
        0 < count(&proxy, "an endpoint is ejected")
    });
    let line = proxy.log_line("an endpoint is ejected");
    assert!(
        line.contains(&format!("endpoint={}", b.address())),
        "{line}"
    );
    assert!(line.contains("reason=consecutive_faults"), "{line}");
    proxy.log_line("an endpoint is readmitted");
    well.store(1, Ordering::Relaxed);
    // It may have been ejected again before it was well.
    until_both(&mut client);
    eventually(|| count(&proxy, "is ejected") == count(&proxy, "is readmitted"));
    assert_eq!(count(&proxy, UNHEALTHY), 0);
}

fn a_probe_is_a_request_of_its_own_kind(driver: Driver) {
    let origin = Origin::new();
    let own = Origin::new();
    let proxy = Setup::new(driver)
        .service("a", &[origin.address()], &probe(""))
        .service(
            "b",
            &[own.address()],
            &probe("path = \"/x?y\"\nhost = \"c.test\""),
        )
        .start();
    for (origin, start, host) in [
        (&origin, "GET /live HTTP/1.1", "a.test"),
        (&own, "GET /x?y HTTP/1.1", "c.test"),
    ] {
        let mut wire = origin.accept();
        let request = wire.request();
        assert_eq!(request.head.start, start);
        let field = |name| request.head.field(name);
        assert_eq!(field("Host").as_deref(), Some(host));
        assert_eq!(field("User-Agent").as_deref(), Some("ringmain-probe"));
        assert_eq!(field("Connection").as_deref(), Some("close"));
        assert_eq!(request.head.fields.len(), 3);
        // In pieces, and with an interim head before.
        for piece in [
            "HTTP/1.1 103 x\r\n\r",
            "\nHTTP/1.1 2",
            "00 OK\r\nContent-Length: 0\r\n\r\n",
        ] {
            wire.send(piece);
        }
        wire.ends();
    }
    assert_eq!(proxy.report().exchanges(), 0);
}

fn a_drain_ends_the_probes(driver: Driver) {
    let origin = Origin::new();
    let mut proxy = Setup::new(driver)
        .service(
            "a",
            &[origin.address()],
            &probe("timeout = \"1h\"").replacen("timeout = \"2s\"\n", "", 1),
        )
        .start();
    let mut pending = origin.accept();
    pending.request();
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, crate::support::GET);
    proxy.signal("TERM");
    proxy.log_line("draining");
    // The probe that was under way is called off, and no other one comes.
    pending.ends();
    assert!(origin.accept_within(Duration::from_millis(500)).is_none());
    upstream.send(ok("a"));
    assert_eq!(client.answer().text(), "a");
    assert_eq!(proxy.exit_code(), Some(0));
}

fn a_recovery_does_not_stop_a_shard_whose_exchanges_wait_elsewhere(driver: Driver) {
    let recovers = Switch::new("recovered");
    recovers.live(503);
    let gate = Arc::new(Barrier::new(2));
    let opens = Arc::clone(&gate);
    let busy = Served::new(move |request: &Message| {
        if !request.head.start.contains("/live") {
            opens.wait();
        }
        ok("busy")
    });
    let limits = "[service.pool]\nconnections_max = 1\nqueue = \"1m\"\n";
    let backends = [recovers.address(), busy.address()];
    let proxy = Setup::new(driver)
        .admin("127.0.0.1:0")
        .service("a", &backends, &format!("{limits}{}", probe("")))
        .expects_line("unhealthy")
        .start();
    let report = || -> serde_json::Value {
        let report = proxy.admin_client().get("localhost", "/report?format=json");
        serde_json::from_slice(&report.body).expect("it is JSON")
    };
    let is_adopted = |standing: &str| {
        eventually(|| report()["services"][0]["endpoints"][0]["standing"] == standing);
        // Shards look for a plan before they answer the next report.
        report();
    };
    is_adopted("unhealthy");
    // All that began while one endpoint was unhealthy go to the other, whatever comes.
    let mut clients = [(); 4].map(|()| proxy.client());
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    }
    eventually(|| report()["shards"][0]["waiting"] == 3);
    recovers.live(200);
    is_adopted("healthy");
    assert_eq!(proxy.client().get("a.test", "/").text(), "recovered");
    for _ in &clients {
        gate.wait();
    }
    for client in &mut clients {
        assert_eq!(client.answer().text(), "busy");
    }
}
