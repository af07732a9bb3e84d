//! Listeners that come, go and change while others serve.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{Driver, GET, Origin, Proxy, Served, Setup, Wire, ok, on_both_drivers};

on_both_drivers! {
    listeners_come_and_go_and_the_others_do_not_notice
    a_listener_may_change_its_name_its_place_and_its_address
    a_port_that_is_taken_refuses_the_whole_reload
    clients_of_a_removed_listener_get_one_more_answer
    what_outlasts_a_removed_listener_is_cut_and_nothing_else_is
    who_is_queued_when_a_listener_is_removed_is_served
    a_listener_that_speaks_another_protocol_is_another_one
    a_listener_that_comes_back_at_once_is_there
    limits_and_timeouts_that_change_hold_from_the_next_exchange_on
    listeners_are_shared_out_over_the_shards
}

/// More than it takes to notice that somebody is quiet, and to part from them.
const QUIET: Duration = Duration::from_secs(4);

/// A listener `name` at `address`, with further keys.
fn listener(name: &str, address: impl ToString, keys: &str) -> String {
    let address = address.to_string();
    format!("[[listener]]\nname = \"{name}\"\naddress = \"{address}\"\n{keys}\n")
}

const ANY: &str = "127.0.0.1:0";

/// A port of an address that no other test listens on: what is gone from there is nobody's.
fn own() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    format!("127.0.7.{}:0", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A listener `web`, and the service `a` on `origin`.
fn setup(driver: Driver, origin: SocketAddr) -> Setup {
    Setup::new(driver).service("a", &[origin], "")
}

#[track_caller]
fn address(proxy: &Proxy, name: &str) -> SocketAddr {
    proxy.addresses()[name]
}

/// A client of `address` that is answered, and kept.
#[track_caller]
fn kept(address: SocketAddr) -> Wire {
    let mut client = Wire::connect(address);
    asks(&mut client);
    client
}

/// It is answered, and may ask again.
#[track_caller]
fn asks(client: &mut Wire) {
    let answer = client.get("a.test", "/");
    assert_eq!(answer.text(), "a");
    assert_eq!(answer.head.field("Connection"), None);
}

/// It is answered until it is told that this was the last answer, and then closed.
#[track_caller]
fn is_sent_away(client: &mut Wire) {
    let is_last = |_| {
        let answer = client.get("a.test", "/");
        assert_eq!(answer.text(), "a");
        answer.head.field("Connection").as_deref() == Some("close")
    };
    assert!((0..100_000).any(is_last));
    client.ends();
}

/// Nobody listens there any more.
#[track_caller]
fn refuses(address: SocketAddr) {
    let refused = TcpStream::connect(address).expect_err("nobody listens there");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

fn listeners_come_and_go_and_the_others_do_not_notice(driver: Driver) {
    let origin = Served::saying("a");
    let setup = setup(driver, origin.address());
    let mut proxy = setup.clone().start();
    let mut client = kept(proxy.address());
    proxy.reload(&setup.clone().tables(&listener("other", own(), "")));
    asks(&mut client);
    let other = address(&proxy, "other");
    drop(kept(other));
    proxy.reload(&setup);
    asks(&mut client);
    proxy.log_line("gone");
    refuses(other);
    asks(&mut client);
    drop(kept(proxy.address()));
    assert_eq!(proxy.report().exchanges(), 6);
}

fn a_listener_may_change_its_name_its_place_and_its_address(driver: Driver) {
    let origin = Served::saying("a");
    let setup = setup(driver, origin.address());
    let with = |listeners: &[String]| setup.clone().tables(&listeners.concat());
    let mut proxy = with(&[listener("one", ANY, ""), listener("two", ANY, "")]).start();
    let (one, two) = (address(&proxy, "one"), address(&proxy, "two"));
    // The port that the kernel chose is written down: that is another address than port 0.
    proxy.reload(&with(&[listener("one", one, ""), listener("two", two, "")]));
    let (mut first, mut second) = (kept(one), kept(two));
    // Another name and another place are not.
    proxy.reload(&with(&[
        listener("second", two, ""),
        listener("first", one, ""),
    ]));
    let mut clients = [kept(two), kept(one)];
    asks(&mut first);
    asks(&mut second);
    // The wildcard of the same port is bound beside what is there.
    let all = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), one.port());
    proxy.reload(&with(&[
        listener("second", two, ""),
        listener("all", all, ""),
    ]));
    is_sent_away(&mut first);
    asks(&mut second);
    drop(kept(one));
    asks(&mut clients[0]);
    is_sent_away(&mut clients[1]);
    let mut client = kept(one);
    // And back.
    proxy.reload(&with(&[
        listener("second", two, ""),
        listener("one", one, ""),
    ]));
    is_sent_away(&mut client);
    drop(kept(one));
}

fn a_port_that_is_taken_refuses_the_whole_reload(driver: Driver) {
    let origin = Served::saying("a");
    let setup = setup(driver, origin.address()).expects_line("refused");
    let setup = setup.expects_line("destination_not_found");
    let mut proxy = setup.clone().tables(&listener("free", own(), "")).start();
    let free = address(&proxy, "free");
    proxy.reload(&setup);
    proxy.log_line("gone");
    let theirs = TcpListener::bind(own()).expect("a port is free");
    let taken = theirs.local_addr().expect("it is bound");
    let mut client = kept(proxy.address());
    let next = setup.tables(&listener("free", free, ""));
    let next = next.tables(&listener("taken", taken, ""));
    let next = next.service("b", &[origin.address()], "");
    proxy.write_config(&next.config());
    proxy.signal("HUP");
    let line = proxy.log_line("refused");
    assert!(
        line.contains("taken") && line.contains(&taken.to_string()),
        "{line}"
    );
    asks(&mut client);
    assert_eq!(client.get("b.test", "/").status(), 404);
    refuses(free);
    drop(theirs);
    proxy.reload(&next);
    drop(kept(free));
    drop(kept(taken));
    asks(&mut client);
}

fn clients_of_a_removed_listener_get_one_more_answer(driver: Driver) {
    let origin = Origin::new();
    let setup = setup(driver, origin.address());
    let setup = setup.service("b", &[Served::saying("a").address()], "");
    let setup = setup.runtime("drain_timeout = \"20s\"");
    let other = listener("other", own(), "");
    let mut proxy = setup.clone().tables(&other).start();
    let at = address(&proxy, "other");
    let (mut busy, mut idle, mut silent) =
        (Wire::connect(at), Wire::connect(at), Wire::connect(at));
    let mut upstream = origin.gets(&mut idle, GET);
    upstream.send(ok("a"));
    idle.answer();
    let mut elsewhere = proxy.client();
    elsewhere.send(GET);
    upstream.request();
    upstream.send(ok("a"));
    elsewhere.answer();
    // An exchange is under way.
    busy.send(GET);
    upstream.request();
    proxy.reload(&setup);
    // It is told of the end, for the answer begins after that.
    for client in [&mut idle, &mut silent] {
        client.set_deadline(QUIET);
        client.ends();
    }
    upstream.send(ok("a"));
    let answer = busy.answer();
    assert_eq!(answer.text(), "a");
    assert_eq!(answer.head.field("Connection").as_deref(), Some("close"));
    busy.ends();
    proxy.log_line("gone");
    elsewhere.send(GET);
    upstream.request();
    upstream.send(ok("a"));
    assert_eq!(elsewhere.answer().head.field("Connection"), None);
}

/// Both ends of a new session, which goes on.
#[track_caller]
fn session(at: SocketAddr, origin: &Origin) -> (Wire, Wire) {
    let mut ends = (Wire::connect(at), origin.accept());
    passes(&mut ends);
    ends
}

#[track_caller]
fn passes((client, upstream): &mut (Wire, Wire)) {
    client.send("ping");
    assert_eq!(upstream.take(4), b"ping");
    upstream.send("pong");
    assert_eq!(client.take(4), b"pong");
}

fn what_outlasts_a_removed_listener_is_cut_and_nothing_else_is(driver: Driver) {
    let (origin, other) = (Origin::new(), Origin::new());
    let setup = Setup::new(driver)
        .runtime("drain_timeout = \"1s\"")
        .expects_line("drain_timeout has passed: clients are cut")
        .listener("protocol = \"tcp\"\nservice = \"a\"")
        .service("a", &[origin.address()], "")
        .service("b", &[other.address()], "");
    let tcp = listener("tcp", own(), "protocol = \"tcp\"\nservice = \"a\"");
    let web = listener("http", own(), "service = \"b\"");
    let mut proxy = setup.clone().tables(&tcp).tables(&web).start();
    let mut stays = session(proxy.address(), &origin);
    let mut goes = session(address(&proxy, "tcp"), &origin);
    let mut client = Wire::connect(address(&proxy, "http"));
    let request = "GET / HTTP/1.1\r\nHost: b.test\r\n\r\n";
    let mut upstream = other.gets(&mut client, request);
    proxy.reload(&setup);
    passes(&mut goes);
    // At the end of their time.
    assert!(goes.0.is_over() && goes.1.is_over());
    upstream.ends();
    let answer = client.answer();
    assert_eq!(
        answer.head.proxy_error().as_deref(),
        Some("destination_unavailable")
    );
    client.ends();
    passes(&mut stays);
    let report = proxy.report_where(|report| report.services["a"].tunnels_open == 1);
    assert_eq!(report.services["a"].tunnels, 2);
}

fn who_is_queued_when_a_listener_is_removed_is_served(driver: Driver) {
    /// More than a wake of a listener lets in.
    const QUEUED: usize = 150;
    let origin = Served::saying("a");
    let setup = setup(driver, origin.address());
    let other = listener("other", own(), "");
    let proxy = setup.clone().shards(2).tables(&other).start();
    let at = address(&proxy, "other");
    proxy.signal("STOP");
    proxy.write_config(&setup.shards(2).config());
    proxy.signal("HUP");
    let mut clients: Vec<_> = (0..QUEUED).map(|_| Wire::connect(at)).collect();
    for client in &mut clients[..QUEUED / 2] {
        client.send(GET);
    }
    proxy.signal("CONT");
    proxy.log_line("reloaded");
    for client in &mut clients[QUEUED / 2..] {
        client.send(GET);
    }
    for client in &mut clients {
        assert_eq!(client.answer().text(), "a");
    }
    drop(clients);
    proxy.log_line("gone");
    refuses(at);
}

fn a_listener_that_speaks_another_protocol_is_another_one(driver: Driver) {
    let (origin, other) = (Origin::new(), Served::saying("a"));
    let setup = setup(driver, other.address()).service("b", &[origin.address()], "");
    let setup = setup.runtime("drain_timeout = \"20s\"");
    let any = own();
    let with = |keys| setup.clone().tables(&listener("other", &any, keys));
    let mut proxy = with("").start();
    let at = address(&proxy, "other");
    let mut client = kept(at);
    proxy.reload(&with("protocol = \"tcp\"\nservice = \"b\""));
    is_sent_away(&mut client);
    let mut ends = session(at, &origin);
    proxy.reload(&with(""));
    let mut client = kept(at);
    passes(&mut ends);
    asks(&mut client);
    drop(ends);
}

fn a_listener_that_comes_back_at_once_is_there(driver: Driver) {
    let origin = Served::saying("a");
    let setup = setup(driver, origin.address());
    let mut proxy = setup.clone().tables(&listener("other", own(), "")).start();
    let at = address(&proxy, "other");
    for _ in 0..3 {
        proxy.reload(&setup);
        proxy.reload(&setup.clone().tables(&listener("other", at, "")));
        drop(kept(at));
    }
}

fn limits_and_timeouts_that_change_hold_from_the_next_exchange_on(driver: Driver) {
    let origin = Served::saying("a");
    let setup = setup(driver, origin.address());
    let mut proxy = setup.clone().start();
    let mut client = kept(proxy.address());
    let keys = "[listener.limits]\nhead_bytes_max = \"1KiB\"\n";
    proxy.reload(&setup.listener(keys));
    let long = format!("/{}", "x".repeat(1024));
    let status = |_| client.get("a.test", &long).status();
    // The client may be a tick early.
    assert!((0..100_000).map(status).any(|status| status == 414));
    client.ends();
}

fn listeners_are_shared_out_over_the_shards(driver: Driver) {
    let origin = Served::saying("a");
    let setup = setup(driver, origin.address()).shards(3);
    let mut proxy = setup.clone().start();
    proxy.reload(&setup.tables(&listener("other", own(), "")));
    let at = address(&proxy, "other");
    let clients = (0..30).map(|_| thread::spawn(move || drop(kept(at))));
    let clients: Vec<_> = clients.collect();
    for client in clients {
        client.join().expect("it is answered");
    }
    assert_eq!(proxy.report().exchanges(), 30);
}
