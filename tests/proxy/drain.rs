//! What a drain waits for, and what it does not.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Driver, GET, Origin, Proxy, Served, Setup, Wire, ok, on_both_drivers};

on_both_drivers! {
    an_exchange_under_way_is_told_of_the_close_and_the_process_ends
    a_client_that_never_spoke_does_not_hold_the_drain
    a_report_that_nobody_reads_does_not_hold_the_drain
    a_request_cut_off_at_the_end_of_the_drain_is_not_sent_again
    an_exchange_that_the_drain_cuts_off_is_a_fault_of_its_own
    every_connection_that_was_established_is_answered
    a_request_that_is_on_its_way_never_meets_a_closed_connection
    before_a_drain_that_is_delayed_clients_are_served_as_before
    a_drain_begins_when_its_delay_is_over
    during_a_drain_the_admin_api_answers
}

/// Well under the drain timeout of these tests: two seconds of quiet, and some for a busy machine.
const PROMPT: Duration = Duration::from_secs(5);

/// A proxy with the service `a` on `origin`, whose drain would take its time, and the service `b`
/// on `other`.
fn start(driver: Driver, origin: &Origin, other: &Served) -> Proxy {
    Setup::new(driver)
        .runtime("drain_timeout = \"20s\"")
        .service("a", &[origin.address()], "")
        .service("b", &[other.address()], "")
        .start()
}

/// Asks for the drain and returns once the one shard is in it, as `busy` learns from an answer.
#[track_caller]
fn drain(proxy: &Proxy, mut busy: Wire) {
    proxy.signal("TERM");
    proxy.log_line("drain");
    let mut is_told = || {
        let answer = busy.get("b.test", "/");
        answer.head.field("Connection").as_deref() == Some("close")
    };
    assert!((0..100_000).any(|_| is_told()), "one answer says close");
    busy.ends();
}

fn an_exchange_under_way_is_told_of_the_close_and_the_process_ends(driver: Driver) {
    let (origin, other) = (Origin::new(), Served::saying("b"));
    let mut proxy = start(driver, &origin, &other);
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    drain(&proxy, proxy.client());
    upstream.send(ok("a"));
    let answer = client.answer();
    assert_eq!(answer.text(), "a");
    assert_eq!(answer.head.field("Connection").as_deref(), Some("close"));
    client.ends();
    assert_eq!(proxy.exit_code_within(PROMPT), Some(0));
}

fn a_client_that_never_spoke_does_not_hold_the_drain(driver: Driver) {
    let (origin, other) = (Origin::new(), Served::saying("b"));
    let mut proxy = start(driver, &origin, &other);
    let mut silent = proxy.client();
    // It is accepted before the next one, which is answered.
    let mut busy = proxy.client();
    assert_eq!(busy.get("b.test", "/").text(), "b");
    drain(&proxy, busy);
    silent.set_deadline(PROMPT);
    // With a word or without one.
    silent.rest();
    assert_eq!(proxy.exit_code_within(PROMPT), Some(0));
}

fn a_report_that_nobody_reads_does_not_hold_the_drain(driver: Driver) {
    let origin = Served::saying("a");
    let mut proxy = Setup::new(driver)
        .unread_output()
        .runtime("drain_timeout = \"2s\"")
        .expects_line("report")
        .service("a", &[origin.address()], "")
        .start();
    for _ in 0..10 {
        proxy.signal("USR1");
        assert_eq!(proxy.client().get("a.test", "/").text(), "a");
    }
    proxy.signal("TERM");
    assert_eq!(proxy.exit_code_within(PROMPT), Some(0));
}

fn a_request_cut_off_at_the_end_of_the_drain_is_not_sent_again(driver: Driver) {
    for reused in [false, true] {
        let origin = Origin::new();
        let mut proxy = Setup::new(driver)
            .runtime("drain_timeout = \"300ms\"")
            .expects_line("drain")
            .service("a", &[origin.address()], "")
            .start();
        let mut client = proxy.client();
        let mut upstream = origin.gets(&mut client, GET);
        if reused {
            upstream.send(ok("a"));
            client.answer();
            client.send(GET);
            upstream.request();
        }
        proxy.signal("TERM");
        client.rest();
        upstream.ends();
        assert_eq!(proxy.exit_code(), Some(0));
        assert!(origin.has_no_more(), "reused: {reused}");
    }
}

fn an_exchange_that_the_drain_cuts_off_is_a_fault_of_its_own(driver: Driver) {
    let origin = Origin::new();
    let mut proxy = Setup::new(driver)
        .log("level = \"debug\"")
        .runtime("drain_timeout = \"300ms\"")
        .expects_line("drain")
        .service("a", &[origin.address()], "")
        .start();
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    proxy.signal("TERM");
    client.rest();
    upstream.ends();
    assert_eq!(proxy.exit_code(), Some(0));
    // The process ends before anybody could ask for its report.
    let failed = proxy.log_line("exchange failed");
    let fault = failed.split("fault=").nth(1);
    assert_eq!(fault.map(str::trim), Some("drain_timeout"), "{failed}");
}

#[expect(clippy::disallowed_methods, reason = "tests may read the clock")]
fn now() -> Instant {
    Instant::now()
}

/// Connects, asks once, and reads the answer, until it is refused; says how often that was. Nothing
/// but an answer and a refusal may happen.
fn asks_until_refused(at: SocketAddr, answered: &AtomicUsize) -> usize {
    for count in 0.. {
        let stream = match TcpStream::connect(at) {
            Ok(stream) => stream,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return count,
            Err(error) => unreachable!("connect: {error}"),
        };
        let mut client = Wire::new(stream);
        assert_eq!(client.get("b.test", "/").text(), "b");
        answered.fetch_add(1, Ordering::Relaxed);
    }
    unreachable!("a drain refuses at last")
}

fn every_connection_that_was_established_is_answered(driver: Driver) {
    let other = Served::saying("b");
    let mut proxy = Setup::new(driver)
        .shards(2)
        .service("b", &[other.address()], "")
        .start();
    let answered = AtomicUsize::new(0);
    let at = proxy.address();
    let count: usize = thread::scope(|scope| {
        let ask = || scope.spawn(|| asks_until_refused(at, &answered));
        let clients: Vec<_> = (0..8).map(|_| ask()).collect();
        while answered.load(Ordering::Relaxed) < 200 {
            thread::yield_now();
        }
        proxy.signal("TERM");
        let counts = clients.into_iter().map(|client| client.join());
        counts.map(|count| count.expect("it is answered")).sum()
    });
    assert_eq!(proxy.exit_code_within(PROMPT), Some(0));
    assert_eq!(count, other.requests());
}

/// What became of a client that was quiet for a while during a drain.
#[derive(Debug, PartialEq, Eq)]
enum Became {
    Answered,
    /// It saw the end before it asked.
    Closed,
    /// It asked as the end was on its way.
    Crossed,
}

/// Asks once more at `instant`, unless it sees then that it was closed.
#[track_caller]
fn asks_at(client: &mut Wire, instant: Instant) -> Became {
    let span = instant.saturating_duration_since(now());
    if !span.is_zero() && !client.is_quiet_for(span) {
        client.ends();
        return Became::Closed;
    }
    client.send("GET / HTTP/1.1\r\nHost: b.test\r\n\r\n");
    if client.is_over() {
        assert_eq!(client.end(), Ok(0), "not by a reset");
        return Became::Crossed;
    }
    let answer = client.answer();
    assert_eq!(answer.text(), "b");
    assert_eq!(answer.head.field("Connection").as_deref(), Some("close"));
    client.ends();
    Became::Answered
}

fn a_request_that_is_on_its_way_never_meets_a_closed_connection(driver: Driver) {
    /// Within it after the begin of the drain nobody is closed.
    const QUIET: Duration = Duration::from_secs(2);
    const CLIENTS: u32 = 100;
    let other = Served::saying("b");
    let mut proxy = Setup::new(driver)
        .runtime("drain_timeout = \"20s\"")
        .service("b", &[other.address()], "")
        .start();
    let clients = (0..CLIENTS).map(|_| {
        let mut client = proxy.client();
        assert_eq!(client.get("b.test", "/").text(), "b");
        client
    });
    let clients: Vec<_> = clients.collect();
    let begin = now();
    drain(&proxy, proxy.client());
    let (after, asked) = (now(), other.requests());
    // All over the two seconds, and most of them where a tick finds that these are over.
    let instant = |place: u32| match place % 4 {
        0 => begin + QUIET * place / CLIENTS,
        _ => after + QUIET + Duration::from_millis(4) * place,
    };
    let became: Vec<_> = thread::scope(|scope| {
        let places = (0..CLIENTS).zip(clients);
        let asking = places.map(|(place, mut client)| {
            scope.spawn(move || (instant(place), asks_at(&mut client, instant(place))))
        });
        let asking: Vec<_> = asking.collect();
        let became = asking.into_iter().map(|client| client.join());
        became
            .map(|one| one.expect("it is answered or closed"))
            .collect()
    });
    for (instant, became) in &became {
        let was_quiet = *instant - begin;
        assert!(
            *became == Became::Answered || QUIET < was_quiet,
            "{was_quiet:?}: {became:?}"
        );
    }
    let of = |what| became.iter().filter(|(_, became)| *became == what).count();
    assert_eq!(asked + of(Became::Answered), other.requests());
    assert!(
        25 <= of(Became::Answered) && 1 <= of(Became::Closed),
        "{became:?}"
    );
    // A request that crosses the end is answered by nobody; there is room for few of them.
    assert!(of(Became::Crossed) <= 2, "{became:?}");
    assert_eq!(proxy.exit_code_within(PROMPT), Some(0));
}

fn before_a_drain_that_is_delayed_clients_are_served_as_before(driver: Driver) {
    let origin = Served::saying("a");
    let mut proxy = Setup::new(driver)
        .admin("127.0.0.1:0")
        .runtime("drain_delay = \"1h\"\ndrain_timeout = \"20s\"")
        .expects_line("a second signal")
        .expects_line("a reload is refused")
        .service("a", &[origin.address()], "")
        .start();
    let mut client = proxy.client();
    assert_eq!(client.get("a.test", "/").text(), "a");
    assert_eq!(proxy.ask("GET /readyz").text(), "ready\n");
    let drain = proxy.ask("POST /drain");
    let text = drain.text();
    assert_eq!(drain.status(), 202, "{text}");
    assert!(
        text.starts_with("draining: nobody is accepted from "),
        "{text}"
    );
    assert!(text.ends_with("is cut 20s later\n"), "{text}");
    let serves = |client: &mut Wire| {
        let answer = client.get("a.test", "/");
        assert_eq!(
            (answer.status(), answer.head.field("Connection")),
            (200, None)
        );
    };
    for path in ["/readyz", "/readyz?service=a"] {
        let ready = proxy.ask(&format!("GET {path}"));
        assert_eq!(
            (ready.status(), &*ready.text()),
            (503, "not ready: draining\n")
        );
    }
    assert_eq!(proxy.ask("GET /healthz").status(), 200);
    serves(&mut client);
    serves(&mut proxy.client());
    // Neither of these is a second signal.
    let again = proxy.ask("POST /drain");
    assert_eq!(again.status(), 202);
    assert!(
        again.text().starts_with("already draining: "),
        "{}",
        again.text()
    );
    let reload = proxy.ask("POST /reload");
    assert_eq!(reload.status(), 422, "{}", reload.text());
    proxy.signal("HUP");
    let report = proxy.report_where(|report| report.services["a"].exchanges == 3);
    assert_eq!(report.faults().len(), 0);
    let state = format!("POST /service/a/backend/{}/ready", origin.address());
    assert_eq!(proxy.ask(&state).status(), 200);
    proxy.signal("TERM");
    proxy.log_line("another signal ends at once");
    serves(&mut client);
    proxy.signal("INT");
    assert_eq!(proxy.exit_code(), Some(1));
}

fn a_drain_begins_when_its_delay_is_over(driver: Driver) {
    let origin = Served::saying("a");
    let mut proxy = Setup::new(driver)
        .admin("127.0.0.1:0")
        .runtime("drain_delay = \"300ms\"")
        .service("a", &[origin.address()], "")
        .start();
    let mut client = proxy.client();
    assert_eq!(client.get("a.test", "/").text(), "a");
    proxy.signal("TERM");
    let line = proxy.log_line("not ready any more");
    assert!(line.contains("drain_delay=300ms"), "{line}");
    let mut is_told = || {
        let answer = client.get("a.test", "/");
        answer.head.field("Connection").as_deref() == Some("close")
    };
    assert!((0..1_000_000).any(|_| is_told()), "one answer says close");
    proxy.log_line("timeout=");
    assert_eq!(proxy.exit_code_within(PROMPT), Some(0));
}

fn during_a_drain_the_admin_api_answers(driver: Driver) {
    let origin = Origin::new();
    let mut proxy = Setup::new(driver)
        .admin("127.0.0.1:0")
        .service("a", &[origin.address()], "")
        .start();
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    let drain = proxy.ask("POST /drain");
    assert_eq!(drain.status(), 202);
    let text = drain.text();
    assert!(
        text.starts_with("draining: nobody is accepted, and what"),
        "{text}"
    );
    let plan = proxy.ask("GET /plan").text();
    assert!(plan.contains("\"life\":\"draining\""), "{plan}");
    assert_eq!(proxy.ask("GET /readyz").status(), 503);
    let state = format!("POST /service/a/backend/{}/drain", origin.address());
    let state = proxy.ask(&state);
    assert_eq!(state.status(), 409, "{}", state.text());
    // The first signal.
    proxy.signal("TERM");
    proxy.log_line("draining already");
    upstream.send(ok("a"));
    assert_eq!(client.answer().text(), "a");
    assert_eq!(proxy.exit_code_within(PROMPT), Some(0));
}
