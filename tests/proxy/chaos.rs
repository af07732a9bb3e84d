//! A backend that ends each of its connections after a few requests, under load: idempotent
//! requests do not notice, and no other request is executed twice.
//!
//! In each of the ways a backend may end a connection at its keep-alive limit, what it has answered
//! has reached ringmain before: a reset that overtakes an answer would lose that, and nobody could
//! tell.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rand::{RngExt, SeedableRng};
use rand_xorshift::XorShiftRng;

use crate::support::{Driver, Message, Setup, Wire, on_both_drivers};

on_both_drivers! {
    a_backend_that_ends_its_connections_by_fin_is_not_noticed
    a_backend_that_resets_its_idle_connections_is_not_noticed
    a_backend_that_resets_its_connections_at_a_request_is_not_noticed
    a_backend_that_ends_its_connections_behind_a_head_is_not_noticed
}

/// Of each test: with four ways and two drivers 10^5 in all.
const REQUESTS: usize = 12_500;
const CLIENTS: usize = 10;
/// A backend's connection has from one to so many requests.
const LIMIT_MAX: u32 = 6;

/// How a backend ends a connection at its limit.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// FIN right behind the last answer.
    Fin,
    /// RST once the client has the last answer, beside the next request.
    Reset,
    /// RST when the next request is there, of which nothing is read.
    ResetAtRequest,
    /// FIN when the next request was read, and executed if it is a POST, without an answer.
    FinBehindHead,
}

fn a_backend_that_ends_its_connections_by_fin_is_not_noticed(driver: Driver) {
    check(driver, Way::Fin);
}

fn a_backend_that_resets_its_idle_connections_is_not_noticed(driver: Driver) {
    check(driver, Way::Reset);
}

fn a_backend_that_resets_its_connections_at_a_request_is_not_noticed(driver: Driver) {
    check(driver, Way::ResetAtRequest);
}

fn a_backend_that_ends_its_connections_behind_a_head_is_not_noticed(driver: Driver) {
    check(driver, Way::FinBehindHead);
}

/// What clients were told.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    answered: u64,
    failed: u64,
}

#[track_caller]
fn check(driver: Driver, way: Way) {
    let (tell, told) = channel();
    let backend = Backend::start(way, tell.clone());
    thread::spawn(move || reap(&told));
    let proxy = Setup::new(driver)
        .admin("127.0.0.1:0")
        .service("a", &[backend.address], "")
        .start();
    let address = proxy.address();
    let told: Vec<Told> = thread::scope(|scope| {
        let clients = (0..CLIENTS).map(|client| {
            let (backend, tell) = (&backend, tell.clone());
            scope.spawn(move || converse(address, client, backend, &tell))
        });
        let clients: Vec<_> = clients.collect();
        let told = clients.into_iter().map(|client| client.join());
        told.map(|told| told.expect("no client has a complaint"))
            .collect()
    });
    let answered: u64 = told.iter().map(|told| told.answered).sum();
    let failed: u64 = told.iter().map(|told| told.failed).sum();
    let sent = (REQUESTS / CLIENTS * CLIENTS) as u64;
    assert_eq!(answered + failed, sent);

    let report = proxy.report_where(|report| report.exchanges() == sent);
    let row = &report.services["a"];
    assert_eq!((row.forwarded, row.own_answers), (answered, failed));
    let mut faults = report.faults();
    let terminated = faults.remove("connection_terminated").unwrap_or(0);
    assert_eq!((terminated, faults.len()), (failed, 0), "{report:#?}");
    let json = proxy.admin_client().get("localhost", "/report?format=json");
    let json: serde_json::Value = serde_json::from_slice(&json.body).expect("it is JSON");
    let service = &json["services"][0];
    let count = |name: &str| service[name].as_u64().expect("it is a number");
    // Many met a connection that had ended, and the next one, however many there were of the other
    // kind, was a good one. An end that is there before a request is nearly always seen.
    if !matches!(way, Way::Fin) {
        assert!(100 < count("replays"), "{service:#}");
    }
    assert_eq!(count("retries"), 0, "{service:#}");
}

/// One client: GETs, and POSTs with a key each.
fn converse(address: SocketAddr, client: usize, backend: &Backend, tell: &Sender<Event>) -> Told {
    let mut random = XorShiftRng::seed_from_u64(client as u64);
    let mut wire = Wire::connect(address);
    let mut told = Told::default();
    for key in (client..REQUESTS / CLIENTS * CLIENTS).step_by(CLIENTS) {
        let is_post = random.random_ratio(1, 4);
        let method = if is_post { "POST" } else { "GET" };
        let length = if is_post { "Content-Length: 2\r\n" } else { "" };
        let body = if is_post { "hi" } else { "" };
        wire.send(format!(
            "{method} /{key} HTTP/1.1\r\nHost: a.test\r\n{length}\r\n{body}"
        ));
        let answer = wire.answer();
        let executed = backend.executed[key].load(Ordering::Relaxed);
        match answer.status() {
            200 => {
                assert_eq!(answer.text(), key.to_string(), "it is its own answer");
                assert_eq!(executed, u32::from(is_post));
                told.answered += 1;
            }
            status => {
                let error = answer.head.proxy_error();
                assert!(is_post, "{method} /{key}: {status} {error:?}");
                assert_eq!(error.as_deref(), Some("connection_terminated"));
                assert!(executed <= 1, "{method} /{key}: {executed} times");
                told.failed += 1;
            }
        }
        if let Some(connection) = answer.head.field("X-Last") {
            let connection = connection.parse().expect("it is a number");
            tell.send(Event::Answered(connection)).expect("it is read");
        }
        if answer.head.field("Connection").as_deref() == Some("close") {
            wire = Wire::connect(address);
        }
    }
    told
}

struct Backend {
    listener: TcpListener,
    address: SocketAddr,
    /// How often each POST was executed.
    executed: Arc<[AtomicU32]>,
}

impl Backend {
    fn start(way: Way, tell: Sender<Event>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let address = listener.local_addr().expect("the socket is bound");
        let executed: Arc<[AtomicU32]> = (0..REQUESTS).map(|_| AtomicU32::new(0)).collect();
        let accepting = listener.try_clone().expect("a descriptor is free");
        let counts = Arc::clone(&executed);
        thread::spawn(move || {
            let mut random = XorShiftRng::seed_from_u64(7);
            for number in 0.. {
                let Ok((stream, _)) = accepting.accept() else {
                    return;
                };
                let connection = Connection {
                    wire: Wire::new(stream),
                    number,
                    limit: random.random_range(1..=LIMIT_MAX),
                    executed: Arc::clone(&counts),
                };
                let tell = tell.clone();
                thread::spawn(move || connection.serve(way, &tell));
            }
        });
        Self {
            listener,
            address,
            executed,
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // On Linux this ends the accept that its thread waits in.
        let _ = socket2::SockRef::from(&self.listener).shutdown(Shutdown::Both);
    }
}

/// A connection of the backend.
struct Connection {
    wire: Wire,
    number: u32,
    /// How many requests it answers.
    limit: u32,
    executed: Arc<[AtomicU32]>,
}

impl Connection {
    fn serve(mut self, way: Way, tell: &Sender<Event>) {
        for left in (0..self.limit).rev() {
            if self.wire.is_over() {
                return;
            }
            let request = self.wire.request();
            let key = self.execute(&request);
            let last = match way {
                Way::Reset if left == 0 => format!("X-Last: {}\r\n", self.number),
                _ => String::new(),
            };
            let answer = format!(
                "HTTP/1.1 200 OK\r\n{last}Content-Length: {}\r\n\r\n{key}",
                key.len()
            );
            if !self.wire.try_send(answer) {
                return;
            }
        }
        match way {
            Way::Fin => {}
            Way::Reset => {
                // The test may be over.
                let _ = tell.send(Event::Limit(self.number, self.wire));
            }
            Way::ResetAtRequest => {
                if !self.wire.is_over() {
                    self.wire.reset();
                }
            }
            Way::FinBehindHead => {
                if !self.wire.is_over() {
                    let request = self.wire.request();
                    self.execute(&request);
                }
            }
        }
    }

    /// Counts what must not be done twice; the key.
    fn execute(&self, request: &Message) -> String {
        let mut words = request.head.start.split(' ');
        let (method, target) = (words.next(), words.next().unwrap_or_default());
        let key = target.trim_start_matches('/').to_owned();
        if method == Some("POST") {
            let number: usize = key.parse().expect("a key is a number");
            self.executed[number].fetch_add(1, Ordering::Relaxed);
        }
        key
    }
}

/// What the connections that are to be reset wait for, in whichever order it comes.
enum Event {
    /// It has sent its last answer.
    Limit(u32, Wire),
    /// That has reached its client.
    Answered(u32),
}

/// Resets each connection whose last answer has reached its client.
fn reap(events: &Receiver<Event>) {
    let mut waiting = HashMap::new();
    for event in events {
        let (number, wire) = match event {
            Event::Limit(number, wire) => (number, Some(wire)),
            Event::Answered(number) => (number, None),
        };
        match (waiting.remove(&number), wire) {
            (Some(Some(wire)), None) | (Some(None), Some(wire)) => Wire::reset(wire),
            (_, wire) => {
                waiting.insert(number, wire);
            }
        }
    }
}
