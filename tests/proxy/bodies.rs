//! Large bodies, both directions at once, with backpressure and bounded memory.

use std::thread;
use std::time::Duration;

use crate::support::{Driver, GET, Origin, Wire, on_both_drivers};

on_both_drivers! {
    sixty_four_mebibytes_are_echoed_while_they_are_sent
    a_slow_reader_holds_the_origin_back
    a_slow_origin_holds_the_client_back
    an_answer_before_the_end_of_the_request_arrives
    answers_of_any_size_arrive_in_a_crowd
}

const MEBIBYTE: usize = 1024 * 1024;
const ECHOED: usize = 64 * MEBIBYTE;

/// A pattern in which a lost or doubled block shows.
fn pattern(block: usize) -> Vec<u8> {
    let bytes = (0..MEBIBYTE).map(|place| (place * 31 + block * 7 + place / 256) as u8);
    bytes.collect()
}

fn sixty_four_mebibytes_are_echoed_while_they_are_sent(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    let before = proxy.memory_kib();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {ECHOED}\r\n\r\n"
    ));
    let mut upstream = origin.accept();
    let echoing = thread::spawn(move || {
        upstream.head();
        upstream.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {ECHOED}\r\n\r\n"
        ));
        for _ in 0..ECHOED / MEBIBYTE {
            let block = upstream.take(MEBIBYTE);
            upstream.send(block);
        }
    });
    let mut sending = client.split();
    let sender = thread::spawn(move || {
        for block in 0..ECHOED / MEBIBYTE {
            sending.send(pattern(block));
        }
    });
    assert_eq!(client.head().status(), 200);
    for block in 0..ECHOED / MEBIBYTE {
        assert!(client.take(MEBIBYTE) == pattern(block), "block {block}");
    }
    let grown = proxy.memory_kib().saturating_sub(before);
    sender.join().expect("everything was taken");
    echoing.join().expect("everything was echoed");
    assert!(grown < 4096, "{grown} KiB more than at rest");
}

/// Bytes that `wire` could write before the other side took no more for a while.
fn fill(wire: &mut Wire) -> usize {
    wire.set_deadline(Duration::from_millis(300));
    let mut written = 0;
    let block = vec![b'x'; MEBIBYTE / 16];
    while written < ECHOED && wire.try_send(&block) {
        written += block.len();
    }
    written
}

/// What two sockets' buffers hold at most here; the kernel grows them to 4 and 6 MiB.
const HELD_MAX: usize = 32 * MEBIBYTE;

fn a_slow_reader_holds_the_origin_back(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    client.set_receive_buffer(64 * 1024);
    let mut upstream = origin.gets(&mut client, GET);
    upstream.send(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {ECHOED}\r\n\r\n"
    ));
    let before = proxy.memory_kib();
    let written = fill(&mut upstream);
    assert!(written < HELD_MAX, "{written} bytes went nowhere");
    let grown = proxy.memory_kib().saturating_sub(before);
    assert!(grown < 2048, "{grown} KiB more than at rest");
    assert_eq!(client.head().status(), 200);
    client.take(written / 2);
}

fn a_slow_origin_holds_the_client_back(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {ECHOED}\r\n\r\n"
    ));
    let mut upstream = origin.accept();
    upstream.set_receive_buffer(64 * 1024);
    upstream.head();
    let before = proxy.memory_kib();
    let written = fill(&mut client);
    assert!(written < HELD_MAX, "{written} bytes went nowhere");
    let grown = proxy.memory_kib().saturating_sub(before);
    assert!(grown < 2048, "{grown} KiB more than at rest");
    upstream.take(written / 2);
}

fn an_answer_before_the_end_of_the_request_arrives(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\nbegun");
    let mut upstream = origin.accept();
    upstream.head();
    upstream.take(5);
    upstream.send("HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno");
    drop(upstream);
    let answer = client.answer();
    assert_eq!((answer.status(), answer.text().as_str()), (403, "no"));
    drop(client);
    // Its rest was never sent; what comes next is not taken for it.
    origin.answers_next(proxy.client());
}

/// From 256 exchanges under way on a shard, answers are awaited with small buffers.
fn answers_of_any_size_arrive_in_a_crowd(driver: Driver) {
    const CROWD: usize = 300;
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let (mut clients, mut upstreams) = (Vec::new(), Vec::new());
    for _ in 0..CROWD {
        let mut client = proxy.client();
        upstreams.push(origin.gets(&mut client, GET));
        clients.push(client);
    }
    for (place, (client, upstream)) in clients.iter_mut().zip(&mut upstreams).enumerate() {
        let field = "f".repeat(place * 37 % 4000);
        let body = "b".repeat(place * 131 % 40_000);
        let length = body.len();
        let head =
            format!("HTTP/1.1 200 OK\r\nX-Long: {field}\r\nContent-Length: {length}\r\n\r\n");
        upstream.send(head + &body);
        let answer = client.answer();
        assert_eq!(
            answer.head.field("X-Long").unwrap_or_default(),
            field,
            "{place}"
        );
        assert!(answer.text() == body, "{place}");
    }
    assert!(proxy.report().faults().is_empty());
}
