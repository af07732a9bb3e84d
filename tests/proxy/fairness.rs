//! One client's appetite is not another's wait: both are of the same shard.

use std::thread;
use std::time::Duration;

use crate::support::{Driver, Origin, Proxy, Served, Setup, Wire, on_both_drivers};

on_both_drivers! {
    a_client_that_pipelines_without_end_keeps_nobody_waiting
    a_body_without_end_keeps_nobody_waiting
}

/// A healthy answer takes a millisecond; a starved one never comes.
const PATIENCE: Duration = Duration::from_secs(2);

/// A newcomer is served, and goes on being served.
#[track_caller]
fn check_served(proxy: &Proxy) {
    let mut client = proxy.client();
    client.set_deadline(PATIENCE);
    for _ in 0..20 {
        assert_eq!(client.get("a.test", "/").text(), "a");
    }
}

fn a_client_that_pipelines_without_end_keeps_nobody_waiting(driver: Driver) {
    let origin = Served::saying("a");
    let proxy = Setup::new(driver)
        .expects_line("destination_not_found")
        .service("a", &[origin.address()], "")
        .start();
    let mut flood = proxy.client();
    let (mut sending, mut reading) = (flood.split(), flood.split());
    let requests = "GET / HTTP/1.1\r\nHost: unknown.test\r\n\r\n".repeat(4000);
    let sender = thread::spawn(move || while sending.try_send(&requests) {});
    assert_eq!(reading.answer().status(), 404, "the flood has begun");
    let reader = thread::spawn(move || while reading.discard() {});
    check_served(&proxy);
    assert!(!sender.is_finished() && !reader.is_finished(), "it goes on");
    flood.cut();
    sender.join().expect("it only writes");
    reader.join().expect("it only reads");
}

/// Writes to `from` and reads from `to`, which are the ends of one endless body, and holds that
/// others are served meanwhile.
#[track_caller]
fn check_beside(proxy: &Proxy, from: &mut Wire, to: &mut Wire) {
    let (mut sending, mut reading) = (from.split(), to.split());
    let block = vec![b'x'; 1 << 20];
    let sender = thread::spawn(move || while sending.try_send(&block) {});
    let reader = thread::spawn(move || while reading.discard() {});
    check_served(proxy);
    assert!(!sender.is_finished() && !reader.is_finished(), "it goes on");
    from.cut();
    to.cut();
    sender.join().expect("it only writes");
    reader.join().expect("it only reads");
}

fn a_body_without_end_keeps_nobody_waiting(driver: Driver) {
    const LENGTH: u64 = 1 << 50;
    let (served, origin) = (Served::saying("a"), Origin::new());
    let proxy = Setup::new(driver)
        .service("a", &[served.address()], "")
        .service("b", &[origin.address()], "")
        .start();
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, "GET / HTTP/1.1\r\nHost: b.test\r\n\r\n");
    upstream.send(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"
    ));
    client.head();
    check_beside(&proxy, &mut upstream, &mut client);

    let mut client = proxy.client();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: b.test\r\nContent-Length: {LENGTH}\r\n\r\n"
    ));
    let mut upstream = origin.accept();
    upstream.head();
    check_beside(&proxy, &mut client, &mut upstream);
}
