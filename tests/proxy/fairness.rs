//! One client's appetite is not another's wait: both are of the same shard.

use std::thread;
use std::time::Duration;

use crate::support::{Driver, Served, Setup, on_both_drivers};

on_both_drivers! {
    a_client_that_pipelines_without_end_keeps_nobody_waiting
}

/// A healthy answer takes a millisecond; a starved one never comes.
const PATIENCE: Duration = Duration::from_secs(2);

fn a_client_that_pipelines_without_end_keeps_nobody_waiting(driver: Driver) {
    let origin = Served::saying("a");
    let proxy = Setup::new(driver)
        .expects_line("destination_not_found")
        .service("a", &[origin.address()], "")
        .start();
    let mut client = proxy.client();
    assert_eq!(client.get("a.test", "/").text(), "a");
    let mut flood = proxy.client();
    let (mut sending, mut reading) = (flood.split(), flood.split());
    let requests = "GET / HTTP/1.1\r\nHost: unknown.test\r\n\r\n".repeat(4000);
    let sender = thread::spawn(move || while sending.try_send(&requests) {});
    assert_eq!(reading.answer().status(), 404, "the flood has begun");
    let reader = thread::spawn(move || while reading.discard() {});
    client.set_deadline(PATIENCE);
    for _ in 0..20 {
        assert_eq!(client.get("a.test", "/").text(), "a");
    }
    assert_eq!(proxy.client().get("a.test", "/").text(), "a", "newcomers");
    assert!(!sender.is_finished() && !reader.is_finished(), "it goes on");
    flood.cut();
    sender.join().expect("it only writes");
    reader.join().expect("it only reads");
}
