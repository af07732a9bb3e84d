//! What is recorded against what is known by other means: delays of the dummy backend, a client's
//! own clock, a client's own count.
//!
//! The machine may be busy with other tests, and every wait may take longer than what is waited
//! for. So it is the least of many times that is looked at, and more are taken until it is as low
//! as it has to be. That a wait is not too short is asked of the median: a shard that had no CPU
//! when a wait began records less of it.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{
    DEADLINE, Driver, Dummy, GET, Proxy, Served, Setup, Wire, on_both_drivers, run_alone,
};

on_both_drivers! {
    a_delay_of_the_backend_shows_in_its_phase_within_a_millisecond
    a_delay_of_the_client_shows_in_its_phase_within_a_millisecond
    own_is_what_a_client_measures_more_through_ringmain
    the_totals_are_the_answers_that_clients_got_through_a_drain
}

const DELAY: Duration = Duration::from_millis(30);
const MILLISECOND: Duration = Duration::from_millis(1);

/// The phases of a service or an endpoint in the report as JSON.
struct Phases(Value);

impl Phases {
    /// Those of the service `a`, and of its endpoint.
    fn of(proxy: &Proxy) -> [Self; 2] {
        let (code, text, errors) =
            run_alone(&["report", "--admin", &proxy.admin(), "--format", "json"]);
        assert_eq!(code, Some(0), "{errors}");
        let report: Value = serde_json::from_str(&text).expect("it is JSON");
        let service = &report["services"][0];
        [service, &service["endpoints"][0]].map(|of| Self(of["phases"].clone()))
    }

    fn min(&self, label: &str) -> Duration {
        self.value(label, "min")
    }

    fn value(&self, label: &str, name: &str) -> Duration {
        let microseconds = self.0[label][name].as_f64();
        Duration::from_secs_f64(microseconds.expect("it was recorded") / 1e6)
    }
}

/// Takes the report after each of `exchanges` until `is_right`, which has to come in time.
#[track_caller]
fn until(proxy: &Proxy, mut exchange: impl FnMut(), is_right: impl Fn(&[Phases; 2]) -> bool) {
    let begun = now();
    loop {
        for _ in 0..10 {
            exchange();
        }
        let phases = Phases::of(proxy);
        if is_right(&phases) {
            return;
        }
        let [service, endpoint] = &phases;
        assert!(begun.elapsed() < DEADLINE, "{} {}", service.0, endpoint.0);
    }
}

/// True when `slow` phases have taken the delay and at most a millisecond more, `total` at most
/// another one, and every other phase less than a millisecond.
fn only(slow: &[&str], phases: &Phases) -> bool {
    let all = phases.0.as_object().expect("there are phases");
    all.keys().all(|label| {
        let (min, median) = (phases.min(label), phases.value(label, "p50"));
        let most = match label.as_str() {
            // What the quick phases took is in it too.
            "total" => Some(DELAY + 2 * MILLISECOND),
            label if slow.contains(&label) => Some(DELAY + MILLISECOND),
            _ => None,
        };
        if let Some(most) = most {
            // Two significant digits of an endpoint: a bucket's least may lie below what is in it.
            DELAY - DELAY / 100 <= median && min <= most
        } else {
            min < MILLISECOND
        }
    })
}

#[expect(clippy::disallowed_methods, reason = "a client measures")]
fn now() -> Instant {
    Instant::now()
}

fn proxy_for(driver: Driver, backend: &Dummy) -> Proxy {
    let setup = Setup::new(driver).admin("127.0.0.1:0");
    setup.service("a", &[backend.address()], "").start()
}

fn a_delay_of_the_backend_shows_in_its_phase_within_a_millisecond(driver: Driver) {
    let cases: [(_, &[_]); 2] = [
        ("--delay-first-byte", &["upstream_wait"]),
        // What is told to the client lasts as long as what is received for it.
        ("--delay-body", &["upstream_receive", "client_send"]),
    ];
    for (option, slow) in cases {
        let backend = Dummy::start(&[option, "30ms"]);
        // A connection each time: one alone that took long would stay the least of connecting.
        let setup = Setup::new(driver).admin("127.0.0.1:0");
        let one_use = "[service.pool]\nidle_max = 0\n";
        let proxy = setup.service("a", &[backend.address()], one_use).start();
        let mut client = proxy.client();
        let exchange = || {
            client.send(GET);
            assert_eq!(client.answer().status(), 200);
        };
        until(&proxy, exchange, |phases| {
            phases.iter().all(|phases| only(slow, phases))
        });
    }
}

/// The client's wait is as coarse as the kernel's timer, so it is the client who says how long it
/// was. Its parts are noticed late now and then, the first or the last: that is even on average.
fn a_delay_of_the_client_shows_in_its_phase_within_a_millisecond(driver: Driver) {
    let backend = Dummy::start(&[]);
    let proxy = proxy_for(driver, &backend);
    let mut client = proxy.client();
    let (begin, end) = GET.split_at(10);
    let waited = Cell::new((Duration::ZERO, 0));
    let exchange = || {
        client.send(begin);
        let since = now();
        assert!(client.is_quiet_for(DELAY));
        let (sum, count) = waited.get();
        waited.set((sum + since.elapsed(), count + 1));
        client.send(end);
        assert_eq!(client.answer().status(), 200);
    };
    until(&proxy, exchange, |[service, endpoint]| {
        let (sum, count) = waited.get();
        let received = service.value("client_receive", "mean");
        let quick = ["upstream_send", "upstream_wait", "client_send", "own"];
        received.abs_diff(sum / count) < MILLISECOND
            && DELAY <= service.value("total", "mean")
            && quick.iter().all(|label| service.min(label) < MILLISECOND)
            && DELAY <= endpoint.value("total", "mean")
    });
}

/// The bound: half a millisecond, of which the operating system has most. Through ringmain an
/// exchange passes two sockets and two schedulers more, which is not ringmain's own time.
fn own_is_what_a_client_measures_more_through_ringmain(driver: Driver) {
    const BOUND: Duration = Duration::from_micros(500);
    let backend = Dummy::start(&[]);
    let proxy = proxy_for(driver, &backend);
    let mut wires = [Wire::connect(backend.address()), proxy.client()];
    let mut least = [Duration::MAX; 2];
    let begun = now();
    loop {
        for _ in 0..50 {
            for (wire, least) in wires.iter_mut().zip(&mut least) {
                let sent = now();
                wire.send(GET);
                assert_eq!(wire.answer().status(), 200);
                *least = sent.elapsed().min(*least);
            }
        }
        let [service, _] = Phases::of(&proxy);
        let (own, total) = (service.min("own"), service.min("total"));
        let [direct, through] = least;
        let added = through.saturating_sub(direct);
        assert!(!own.is_zero(), "{}", service.0);
        // The client may have its answer before ringmain learns that it was sent.
        if total <= through + BOUND && own <= added && added <= own + BOUND {
            return;
        }
        assert!(
            begun.elapsed() < DEADLINE,
            "{own:?} {added:?}: {}",
            service.0
        );
    }
}

fn the_totals_are_the_answers_that_clients_got_through_a_drain(driver: Driver) {
    let origin = Served::saying("a");
    let mut proxy = Setup::new(driver)
        .shards(2)
        .option("--report-at-end")
        .service("a", &[origin.address()], "")
        .start();
    let answers = AtomicU64::new(0);
    let clients: Vec<Wire> = (0..6).map(|_| proxy.client()).collect();
    thread::scope(|scope| {
        for mut client in clients {
            let answers = &answers;
            scope.spawn(move || {
                while client.try_send(GET) {
                    let answer = client.answer();
                    assert_eq!(answer.text(), "a");
                    answers.fetch_add(1, Ordering::Relaxed);
                    if answer.head.field("Connection").is_some() {
                        return;
                    }
                }
            });
        }
        while answers.load(Ordering::Relaxed) < 300 {
            thread::yield_now();
        }
        proxy.signal("TERM");
    });
    let answers = answers.into_inner();
    let reports = proxy.reports_at_end();
    let service = &reports[0].services["a"];
    assert_eq!(service.exchanges, answers);
    assert_eq!(service.forwarded, answers);
    for label in [
        "client_receive",
        "upstream_wait",
        "client_send",
        "own",
        "total",
    ] {
        assert_eq!(service.phases[label].count, answers, "{label}");
    }
    assert!(reports[0].late.is_empty());
    let endpoint = &service.endpoint_phases[&origin.address().to_string()];
    assert_eq!(endpoint["total"].count, answers);
}
