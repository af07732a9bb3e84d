//! Backends that die and come back under load: no client that asks for what may be repeated gets
//! an error, and who is back gets exchanges again.
//!
//! The backends are processes of their own. SIGKILL ends one in the middle of whatever it does, and
//! the kernel ends its connections, by RST where a request is still unread; SIGSTOP makes one hang
//! whose connections are still made.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use serde_json::Value;

use crate::support::{DEADLINE, Driver, Dummy, Proxy, Reserved, Setup, Wire, on_both_drivers};

on_both_drivers! {
    backends_that_die_in_turn_are_not_noticed
    a_backend_that_is_back_is_used_again
    a_backend_that_dies_is_not_noticed_where_probes_run
    a_backend_that_dies_is_not_noticed_by_those_who_have_no_other
    a_backend_that_hangs_is_not_noticed
    a_backend_that_is_busy_is_not_noticed
}

const CLIENTS: usize = 6;
/// How many answers are awaited before the next thing happens to a backend.
const SOME: usize = 300;
/// Ejections that end while a test runs, as short as they may be.
const SHORT: &str = "[service.eject]\nduration = \"1s\"\n";

/// A backend at an address that nobody else gets, be it alive or not.
struct Mortal {
    reserved: Reserved,
    life: Option<Dummy>,
}

impl Mortal {
    fn new() -> Self {
        let mut mortal = Self {
            reserved: Reserved::new(),
            life: None,
        };
        mortal.revive(&[]);
        mortal
    }

    fn address(&self) -> SocketAddr {
        self.reserved.address()
    }

    fn kill(&mut self) {
        self.life = None;
    }

    fn revive(&mut self, options: &[&str]) {
        self.life = Some(Dummy::start_at(&self.reserved, options));
    }

    fn signal(&self, name: &str) {
        let life = self.life.as_ref();
        life.expect("it is alive").signal(name);
    }
}

/// Three backends behind a ringmain, and what clients of it, who ask without a pause, are told.
struct Crowd<'a> {
    backends: [Mortal; 3],
    proxy: &'a Proxy,
    answers: Receiver<Answer>,
    wrong: Vec<Answer>,
    answered: u64,
}

/// A status and a text.
type Answer = (u16, String);

impl Crowd<'_> {
    /// The next answer, whose text names who gave it.
    #[track_caller]
    fn next(&mut self) -> String {
        let answer = self.answers.recv_timeout(DEADLINE);
        let answer = answer.expect("clients are answered");
        let text = answer.1.clone();
        self.count(answer);
        text
    }

    fn count(&mut self, answer: Answer) {
        self.answered += 1;
        if answer.0 != 200 {
            self.wrong.push(answer);
        }
    }

    /// Waits for some answers.
    #[track_caller]
    fn goes_on(&mut self) {
        for _ in 0..SOME {
            self.next();
        }
    }

    /// Waits for answers until `wanted` is true of what the report says of the service.
    #[track_caller]
    fn goes_on_until(&mut self, wanted: impl Fn(&Value) -> bool) {
        let is_so = (0..1000).any(|_| {
            self.goes_on();
            wanted(&told(self.proxy))
        });
        assert!(is_so, "it never is so: {:#}", told(self.proxy));
    }

    /// Waits for an answer of the backend at `place`.
    #[track_caller]
    fn hears(&mut self, place: usize) {
        let name = self.backends[place].address().to_string();
        // Many times as many as come while an ejection lasts.
        let heard = (0..1_000_000).any(|_| self.next().contains(&name));
        assert!(heard, "{name} is not used again");
    }

    /// The backend at `place` dies, and is back after some answers.
    #[track_caller]
    fn dies_for_a_while(&mut self, place: usize) {
        self.backends[place].kill();
        self.goes_on();
        self.backends[place].revive(&[]);
        self.goes_on();
    }
}

/// Lets clients ask three backends without a pause while `act` goes on, and holds that all they are
/// told is 200, and that nobody is blamed for anything. Says what the report says of the service.
#[track_caller]
fn check(driver: Driver, keys: &str, act: impl FnOnce(&mut Crowd<'_>)) -> Value {
    let backends = [(); 3].map(|()| Mortal::new());
    let addresses = backends.each_ref().map(Mortal::address);
    let proxy = Setup::new(driver)
        .admin("127.0.0.1:0")
        .service("a", &addresses, keys)
        .expects_line("an endpoint is ejected")
        .expects_line("an endpoint is unhealthy")
        .start();
    let (tell, answers) = channel();
    let mut crowd = Crowd {
        backends,
        proxy: &proxy,
        answers,
        wrong: Vec::new(),
        answered: 0,
    };
    let (address, is_over) = (proxy.address(), AtomicBool::new(false));
    thread::scope(|scope| {
        let _ends = Ends(&is_over);
        for _ in 0..CLIENTS {
            let (tell, is_over) = (tell.clone(), &is_over);
            scope.spawn(move || ask(address, &tell, is_over));
        }
        crowd.goes_on();
        act(&mut crowd);
        crowd.goes_on();
    });
    drop(tell);
    while let Ok(answer) = crowd.answers.recv() {
        crowd.count(answer);
    }
    let Crowd {
        wrong, answered, ..
    } = crowd;
    assert!(wrong.is_empty(), "of {answered}: {wrong:?}");
    let report = proxy.report_where(|report| report.exchanges() == answered);
    let row = &report.services["a"];
    assert_eq!((row.forwarded, row.own_answers), (answered, 0));
    let service = told(&proxy);
    assert_eq!(service["faults"], serde_json::json!({}), "{service:#}");
    assert_eq!(service["retries_refused"], 0, "{service:#}");
    service
}

/// Tells clients that it is over, however it ends.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One client, over one connection that is never closed under it.
fn ask(address: SocketAddr, tell: &Sender<Answer>, is_over: &AtomicBool) {
    let mut client = Wire::connect(address);
    while !is_over.load(Ordering::Relaxed) {
        let answer = client.get("a.test", "/");
        if tell.send((answer.status(), answer.text())).is_err() {
            return;
        }
    }
}

/// What the JSON report says of the service.
#[track_caller]
fn told(proxy: &Proxy) -> Value {
    let answer = proxy.admin_client().get("localhost", "/report?format=json");
    let mut report: Value = serde_json::from_slice(&answer.body).expect("it is JSON");
    report["services"][0].take()
}

/// How often its endpoints were ejected for faults in a row.
fn ejections(service: &Value) -> u64 {
    let endpoints = service["endpoints"].as_array();
    let endpoints = endpoints.expect("they are a list").iter();
    let counts = endpoints.map(|endpoint| &endpoint["ejections"]["consecutive_faults"]);
    counts.filter_map(Value::as_u64).sum()
}

/// How many further tries `reason` was the reason for.
#[track_caller]
fn retries(service: &Value, reason: &str) -> u64 {
    let count = service["retries_by_reason"][reason].as_u64();
    count.expect("it is a reason")
}

fn backends_that_die_in_turn_are_not_noticed(driver: Driver) {
    let service = check(driver, "", |crowd| {
        for place in [0, 1, 2, 0, 1] {
            crowd.dies_for_a_while(place);
        }
    });
    assert!(5 <= retries(&service, "connect"), "{service:#}");
    assert!(1 <= ejections(&service), "{service:#}");
}

fn a_backend_that_is_back_is_used_again(driver: Driver) {
    let service = check(driver, SHORT, |crowd| {
        for place in [1, 2] {
            crowd.dies_for_a_while(place);
            crowd.hears(place);
        }
    });
    assert!(1 <= ejections(&service), "{service:#}");
}

fn a_backend_that_dies_is_not_noticed_where_probes_run(driver: Driver) {
    let probe = "[service.probe]\ninterval = \"100ms\"\ninterval_failing = \"100ms\"";
    let service = check(driver, probe, |crowd| {
        for place in [0, 2] {
            crowd.backends[place].kill();
            let address = crowd.backends[place].address();
            let line = format!("an endpoint is unhealthy service=a endpoint={address} ");
            crowd.proxy.log_line(&line);
            crowd.goes_on();
            crowd.backends[place].revive(&[]);
            crowd.hears(place);
        }
    });
    for place in [0, 2] {
        let endpoint = &service["endpoints"][place];
        assert_eq!(endpoint["standing"], "healthy", "{service:#}");
    }
}

fn a_backend_that_dies_is_not_noticed_by_those_who_have_no_other(driver: Driver) {
    // All clients have one address, and so one backend.
    let keys = format!("policy = \"hash\"\n{SHORT}");
    let service = check(driver, &keys, |crowd| {
        let name = crowd.next();
        let is_it = |backend: &Mortal| name.contains(&backend.address().to_string());
        let place = crowd.backends.iter().position(is_it);
        let place = place.expect("a backend names itself");
        crowd.dies_for_a_while(place);
        crowd.hears(place);
    });
    // Which kind they are of is a matter of what the kernel has closed first.
    assert_ne!(service["retries"], 0, "{service:#}");
}

fn a_backend_that_hangs_is_not_noticed(driver: Driver) {
    let keys = format!("[service.retry]\nattempt = \"500ms\"\n{SHORT}");
    let service = check(driver, &keys, |crowd| {
        crowd.backends[0].signal("STOP");
        crowd.goes_on();
        crowd.backends[0].signal("CONT");
        crowd.hears(0);
    });
    assert!(1 <= retries(&service, "attempt_timeout"), "{service:#}");
}

fn a_backend_that_is_busy_is_not_noticed(driver: Driver) {
    let keys = format!("[service.retry]\nstatuses = [503]\n{SHORT}");
    let service = check(driver, &keys, |crowd| {
        crowd.backends[2].kill();
        crowd.backends[2].revive(&["--status", "503"]);
        crowd.goes_on_until(|service| 5 <= retries(service, "status"));
        crowd.dies_for_a_while(2);
        crowd.hears(2);
    });
    assert!(1 <= ejections(&service), "{service:#}");
}
