//! Upgrades (RFC 9110 section 7.8): what is offered to the endpoint, what its 101 makes of the two
//! connections, and what it means that it declines.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use tungstenite::Message;

use crate::support::{
    DEADLINE, Driver, GET, Head, Origin, Proxy, Report, Served, Setup, Wire, ok, on_both_drivers,
};

on_both_drivers! {
    a_websocket_opens_and_frames_go_both_ways
    another_implementation_of_websockets_finds_nothing_amiss
    bytes_behind_either_head_go_first
    a_switch_may_follow_an_interim_response
    an_offer_is_sent_once_more_on_another_connection
    an_end_of_one_side_leaves_the_other_way_open
    a_reset_of_one_side_resets_the_other
    a_reset_of_a_side_that_takes_nothing_resets_the_other
    a_reset_is_noticed_while_the_other_side_takes_nothing
    mebibytes_go_both_ways_at_once
    a_tunnel_through_which_nothing_goes_ends
    bytes_in_one_direction_keep_a_tunnel_open
    no_other_timeout_ends_a_tunnel
    a_side_that_takes_nothing_ends_the_tunnel
    an_upgrade_that_is_declined_is_an_ordinary_exchange
    a_switch_that_nobody_offered_is_a_502
    an_upgrade_to_http_is_not_passed_on
    a_tunnel_is_counted_apart
    a_drain_waits_for_a_tunnel
    a_tunnel_that_outlasts_the_drain_is_cut
}

const UPGRADE: &str =
    "GET /echo HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
const SWITCHING: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";

/// More than all buffers between two sockets hold that do not read.
const PLENTY: usize = 64 * 1024 * 1024;

/// Well under the drain timeout of the test that ends before it.
const PROMPT: Duration = Duration::from_secs(5);

/// Both ends of a new tunnel: the client's and the endpoint's.
#[track_caller]
fn tunnel(proxy: &Proxy, origin: &Origin) -> (Wire, Wire) {
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, UPGRADE);
    upstream.send(SWITCHING);
    assert_eq!(client.head().status(), 101);
    (client, upstream)
}

/// What goes into one end comes out of the other, both ways.
#[track_caller]
fn passes(client: &mut Wire, upstream: &mut Wire) {
    client.send(b"ping\0\r\n\r\n");
    assert_eq!(upstream.take(9), b"ping\0\r\n\r\n");
    upstream.send(b"\xff pong");
    assert_eq!(client.take(6), b"\xff pong");
}

/// The first report in which no tunnel is open: one was, and no exchange has failed.
#[track_caller]
fn ended(proxy: &Proxy) -> Report {
    let report = proxy.report_where(|report| report.services["a"].tunnels_open == 0);
    let counted = &report.services["a"];
    assert_eq!((counted.tunnels, counted.forwarded), (1, 1), "{report:#?}");
    assert!(report.faults().is_empty(), "{report:#?}");
    report
}

fn with_timeouts(driver: Driver, origin: &Origin, timeouts: &str) -> Proxy {
    let keys = format!("[service.timeouts]\n{timeouts}");
    let setup = Setup::new(driver).service("a", &[origin.address()], &keys);
    setup.start()
}

/// Bytes that tell where they stand.
fn pattern(seed: u32, count: usize) -> Vec<u8> {
    let words = (0..).map(|place: u32| place.wrapping_mul(2_654_435_761) ^ seed);
    words.flat_map(u32::to_le_bytes).take(count).collect()
}

fn names(head: &Head) -> Vec<&str> {
    head.fields.iter().map(|(name, _)| name.as_str()).collect()
}

fn a_websocket_opens_and_frames_go_both_ways(driver: Driver) {
    let origin = Origin::new();
    let keys = "backend_field = \"X-Backend\"\n[service.fields]\nresponse_set = { Server = \"b\" }";
    let proxy = Setup::new(driver)
        .service("a", &[origin.address()], keys)
        .start();
    let mut client = proxy.client();
    // The example of RFC 6455 section 1.3.
    client.send(
        "GET /chat HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: keep-alive, \
         Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://example.com\r\n\
         Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\n\r\n",
    );
    let mut upstream = origin.accept();
    let head = upstream.head();
    assert_eq!(head.start, "GET /chat HTTP/1.1");
    for (name, value) in [
        ("Connection", "upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Protocol", "chat, superchat"),
        ("Sec-WebSocket-Version", "13"),
        ("X-Forwarded-For", "127.0.0.1"),
    ] {
        assert_eq!(head.field(name).as_deref(), Some(value), "{head:?}");
    }
    upstream.send(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\
         Keep-Alive: timeout=5\r\n\r\n",
    );
    let head = client.head();
    assert_eq!(head.start, "HTTP/1.1 101 Switching Protocols");
    let expected = [
        "Sec-WebSocket-Accept",
        "Sec-WebSocket-Protocol",
        "Via",
        "Connection",
        "Upgrade",
        "Server",
        "X-Backend",
    ];
    assert_eq!(names(&head), expected);
    assert_eq!(head.field("Connection").as_deref(), Some("upgrade"));
    assert_eq!(head.field("Upgrade").as_deref(), Some("websocket"));
    // RFC 6455 section 5.7: "Hello" masked, and unmasked.
    let masked = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    let unmasked = b"\x81\x05Hello";
    for _ in 0..3 {
        client.send(masked);
        assert_eq!(upstream.take(masked.len()), masked);
        upstream.send(unmasked);
        assert_eq!(client.take(unmasked.len()), unmasked);
    }
}

fn another_implementation_of_websockets_finds_nothing_amiss(driver: Driver) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let proxy = driver.proxy_for(listener.local_addr().expect("it is bound"));
    let echoing = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("ringmain connects");
        stream.set_read_timeout(Some(DEADLINE)).expect("it is open");
        let mut socket = tungstenite::accept(stream).expect("the handshake is valid");
        while let Ok(message) = socket.read() {
            if message.is_text() || message.is_binary() {
                socket.send(message).expect("it is taken");
            }
        }
    });
    let stream = TcpStream::connect(proxy.address()).expect("a listener accepts");
    stream.set_read_timeout(Some(DEADLINE)).expect("it is open");
    let (mut socket, _) =
        tungstenite::client("ws://a.test/echo", stream).expect("so is the answer");
    // Lengths on both sides of where frames write them otherwise (RFC 6455 section 5.2).
    for length in [0, 125, 126, 65_535, 65_536, 1_000_000] {
        let message = Message::binary(pattern(5, length));
        socket.send(message.clone()).expect("it is taken");
        assert!(socket.read().expect("it comes back") == message, "{length}");
    }
    socket.close(None).expect("it is open");
    while socket.read().is_ok() {}
    drop(socket);
    echoing.join().expect("it has seen the end");
    ended(&proxy);
}

fn bytes_behind_either_head_go_first(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    // Some that are in the buffer of the head, and some that are not yet.
    for early in [5, 3_000, 300_000] {
        let (asked, told) = (pattern(1, early), pattern(2, early));
        let mut client = proxy.client();
        let mut sender = client.split();
        let request = [UPGRADE.as_bytes(), &asked].concat();
        let sending = thread::spawn(move || sender.send(request));
        let mut upstream = origin.accept();
        upstream.head();
        assert!(
            upstream.is_quiet_for(Duration::from_millis(50)),
            "nobody has switched"
        );
        let mut answering = upstream.split();
        let answer = [SWITCHING.as_bytes(), &told].concat();
        let answered = thread::spawn(move || answering.send(answer));
        assert_eq!(client.head().status(), 101);
        assert!(client.take(told.len()) == told, "{early}");
        assert!(upstream.take(asked.len()) == asked, "{early}");
        sending.join().expect("it only writes");
        answered.join().expect("it only writes");
        passes(&mut client, &mut upstream);
    }
    // Behind a request that was answered before.
    let mut client = proxy.client();
    client.send(format!("{GET}{UPGRADE}early"));
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send(ok("first"));
    upstream.request();
    upstream.send(SWITCHING);
    assert_eq!(client.answer().text(), "first");
    assert_eq!(client.answer().status(), 101);
    assert_eq!(upstream.take(5), b"early");
    passes(&mut client, &mut upstream);
}

fn a_switch_may_follow_an_interim_response(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, UPGRADE);
    upstream.send(format!(
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{SWITCHING}hello"
    ));
    assert_eq!(client.head().status(), 103);
    assert_eq!(client.head().status(), 101);
    assert_eq!(client.take(5), b"hello");
    passes(&mut client, &mut upstream);
}

fn an_offer_is_sent_once_more_on_another_connection(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    let mut stale = origin.gets(&mut client, GET);
    stale.send(ok("a"));
    assert_eq!(client.answer().text(), "a");
    client.send(UPGRADE);
    assert_eq!(stale.head().field("Upgrade").as_deref(), Some("echo"));
    drop(stale);
    let mut upstream = origin.accept();
    assert_eq!(upstream.head().field("Upgrade").as_deref(), Some("echo"));
    upstream.send(SWITCHING);
    assert_eq!(client.head().status(), 101);
    passes(&mut client, &mut upstream);
}

fn an_end_of_one_side_leaves_the_other_way_open(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    for client_first in [true, false] {
        let (mut client, mut upstream) = tunnel(&proxy, &origin);
        let (first, second) = if client_first {
            (&mut client, &mut upstream)
        } else {
            (&mut upstream, &mut client)
        };
        first.send(b"last words");
        first.finish_sending();
        assert_eq!(second.rest(), b"last words");
        for _ in 0..3 {
            second.send(b"more");
            assert_eq!(first.take(4), b"more");
        }
        second.send(b"and out");
        second.finish_sending();
        assert_eq!(first.rest(), b"and out");
    }
    let report = proxy.report_where(|report| report.services["a"].tunnels_open == 0);
    assert_eq!(report.services["a"].tunnels, 2);
    assert!(report.faults().is_empty(), "{report:#?}");
}

fn a_reset_of_one_side_resets_the_other(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let (client, mut upstream) = tunnel(&proxy, &origin);
    client.reset();
    upstream.is_reset();
    let (mut client, upstream) = tunnel(&proxy, &origin);
    upstream.reset();
    client.is_reset();
    // Also when it has ended its side before.
    let (mut client, mut upstream) = tunnel(&proxy, &origin);
    client.finish_sending();
    upstream.ends();
    upstream.reset();
    client.is_reset();
    let (mut client, mut upstream) = tunnel(&proxy, &origin);
    upstream.finish_sending();
    client.ends();
    client.reset();
    upstream.is_reset();
}

fn a_reset_of_a_side_that_takes_nothing_resets_the_other(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    for client_resets in [true, false] {
        let (client, upstream) = tunnel(&proxy, &origin);
        let (mut silent, mut sender) = if client_resets {
            (client, upstream)
        } else {
            (upstream, client)
        };
        sender.set_deadline(Duration::from_millis(300));
        assert!(!sender.try_send(vec![0; PLENTY]), "it is held back");
        sender.set_deadline(DEADLINE);
        // It talks, so that it is read from and written to anew.
        silent.send(b"x");
        assert_eq!(sender.take(1), b"x");
        silent.reset();
        sender.is_reset();
    }
}

fn a_reset_is_noticed_while_the_other_side_takes_nothing(driver: Driver) {
    for client_resets in [true, false] {
        let origin = Origin::new();
        let proxy = driver.proxy_for(origin.address());
        let (client, upstream) = tunnel(&proxy, &origin);
        let (mut sender, _silent) = if client_resets {
            (client, upstream)
        } else {
            (upstream, client)
        };
        sender.set_deadline(Duration::from_millis(300));
        assert!(!sender.try_send(vec![0; PLENTY]), "it is held back");
        assert_eq!(proxy.report().services["a"].tunnels_open, 1);
        sender.reset();
        ended(&proxy);
    }
}

fn mebibytes_go_both_ways_at_once(driver: Driver) {
    const BYTES: usize = 8 * 1024 * 1024;
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let (mut client, mut upstream) = tunnel(&proxy, &origin);
    let ends = [(client.split(), 3), (upstream.split(), 4)];
    let sending = ends.map(|(mut end, seed)| {
        thread::spawn(move || {
            end.send(pattern(seed, BYTES));
            end.finish_sending();
        })
    });
    let receiving = thread::spawn(move || upstream.rest() == pattern(3, BYTES));
    assert!(client.rest() == pattern(4, BYTES), "down");
    assert!(receiving.join().expect("it only reads"), "up");
    for sending in sending {
        sending.join().expect("it only writes");
    }
    ended(&proxy);
}

fn a_tunnel_through_which_nothing_goes_ends(driver: Driver) {
    let origin = Origin::new();
    let proxy = with_timeouts(driver, &origin, "tunnel_idle = \"100ms\"");
    let (mut client, mut upstream) = tunnel(&proxy, &origin);
    client.ends();
    upstream.ends();
    ended(&proxy);
    // Also where one side has ended.
    let origin = Origin::new();
    let proxy = with_timeouts(driver, &origin, "tunnel_idle = \"100ms\"");
    let (mut client, mut upstream) = tunnel(&proxy, &origin);
    client.finish_sending();
    upstream.ends();
    client.ends();
    ended(&proxy);
}

fn bytes_in_one_direction_keep_a_tunnel_open(driver: Driver) {
    const PACE: Duration = Duration::from_millis(100);
    let origin = Origin::new();
    // Long beside what a busy machine may keep a byte waiting.
    let proxy = with_timeouts(driver, &origin, "tunnel_idle = \"3s\"");
    let busy = [true, false].map(|down| {
        let (client, upstream) = tunnel(&proxy, &origin);
        let (mut talks, mut listens) = if down {
            (upstream, client)
        } else {
            (client, upstream)
        };
        let (stop, stopped) = channel::<()>();
        let talking = thread::spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(PACE) {
                talks.send(b"x");
                assert_eq!(listens.take(1), b"x");
            }
            (talks, listens)
        });
        (stop, talking)
    });
    // Younger than they are.
    let (mut client, mut upstream) = tunnel(&proxy, &origin);
    client.ends();
    upstream.ends();
    for (stop, talking) in busy {
        drop(stop);
        let (mut talked, mut listened) = talking.join().expect("it is open");
        passes(&mut listened, &mut talked);
    }
}

fn no_other_timeout_ends_a_tunnel(driver: Driver) {
    let origin = Origin::new();
    let timeouts = "[service.timeouts]\nreceive_idle = \"500ms\"\nsend_idle = \"500ms\"\n\
                    [service.pool]\nidle = \"500ms\"";
    let proxy = Setup::new(driver)
        .listener(
            "[listener.timeouts]\nbody_idle = \"500ms\"\nkeep_alive = \"500ms\"\n\
             send_idle = \"500ms\"",
        )
        .service("a", &[origin.address()], timeouts)
        .start();
    let (mut client, mut upstream) = tunnel(&proxy, &origin);
    assert!(client.is_quiet_for(Duration::from_millis(1_500)));
    passes(&mut client, &mut upstream);
}

fn a_side_that_takes_nothing_ends_the_tunnel(driver: Driver) {
    for client_talks in [true, false] {
        let origin = Origin::new();
        let proxy = with_timeouts(driver, &origin, "tunnel_idle = \"500ms\"");
        let (client, upstream) = tunnel(&proxy, &origin);
        let (mut talks, mut silent) = if client_talks {
            (client, upstream)
        } else {
            (upstream, client)
        };
        // That the other one talks all the while does not help it.
        let mut also = silent.split();
        let talking = thread::spawn(move || {
            while also.try_send(b"x") {
                thread::yield_now();
            }
        });
        let mut listening = talks.split();
        let listened = thread::spawn(move || listening.rest().len());
        assert!(!talks.try_send(vec![0; PLENTY]), "it is cut");
        assert!(0 < listened.join().expect("it only reads"));
        talking.join().expect("it only writes");
        silent.rest();
        ended(&proxy);
    }
}

fn an_upgrade_that_is_declined_is_an_ordinary_exchange(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    let mut upstream: Option<Wire> = None;
    for (answer, upgrade) in [
        ("200 OK", ""),
        ("200 OK", "Upgrade: h2\r\n"),
        ("400 Bad Request", "Upgrade: echo\r\n"),
        ("426 Upgrade Required", "Upgrade: echo/2\r\n"),
        ("501 Not Implemented", ""),
    ] {
        client.send(UPGRADE);
        let upstream = upstream.get_or_insert_with(|| origin.accept());
        assert_eq!(upstream.head().field("Upgrade").as_deref(), Some("echo"));
        upstream.send(format!(
            "HTTP/1.1 {answer}\r\nConnection: Upgrade\r\n{upgrade}Content-Length: 2\r\n\r\nno"
        ));
        let declined = client.answer();
        assert!(declined.head.start.ends_with(answer), "{declined:?}");
        assert_eq!(declined.text(), "no");
        // RFC 9110 section 15.5.22: a 426 says what it demands.
        let demands = answer.starts_with("426");
        let expected = demands.then_some(("upgrade".to_owned(), "echo/2".to_owned()));
        let head = &declined.head;
        let passed = head.field("Connection").zip(head.field("Upgrade"));
        assert_eq!(passed, expected, "{declined:?}");
    }
    client.send(GET);
    let mut upstream = upstream.expect("it was accepted");
    upstream.request();
    upstream.send(ok("kept"));
    assert_eq!(client.answer().text(), "kept");
    assert!(origin.has_no_more(), "one connection has served all");
    let report = proxy.report_where(|report| report.services["a"].forwarded == 6);
    assert_eq!(report.services["a"].tunnels, 0, "{report:#?}");
    assert!(report.faults().is_empty(), "{report:#?}");
}

fn a_switch_that_nobody_offered_is_a_502(driver: Driver) {
    let other = SWITCHING.replace("echo", "other");
    let nameless = SWITCHING.replace("Upgrade: echo\r\n", "");
    let old = SWITCHING.replace("HTTP/1.1", "HTTP/1.0");
    let without = UPGRADE.replace("Connection: Upgrade\r\n", "");
    let upload = UPGRADE
        .replace("GET", "PUT")
        .replace("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\nhi");
    for (request, switching) in [
        (GET, SWITCHING),
        (&*without, SWITCHING),
        (&*upload, SWITCHING),
        (UPGRADE, &*other),
        (UPGRADE, &*nameless),
        (UPGRADE, &*old),
    ] {
        let origin = Origin::new();
        let proxy = driver.proxy_for(origin.address());
        let mut client = proxy.client();
        let mut upstream = origin.gets(&mut client, request);
        upstream.send(switching);
        let answer = client.answer();
        assert_eq!(answer.status(), 502, "{request} {switching}");
        let error = answer.head.proxy_error();
        assert_eq!(error.as_deref(), Some("http_protocol_error"));
        upstream.ends();
        proxy.counts_one_fault("http_protocol_error");
    }
}

fn an_upgrade_to_http_is_not_passed_on(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    // RFC 7540 section 3.2, which RFC 9113 has withdrawn.
    client.send(
        "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings\r\n\
         Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    );
    let mut upstream = origin.accept();
    let head = upstream.head();
    for name in ["Connection", "Upgrade", "HTTP2-Settings"] {
        assert_eq!(head.field(name), None, "{head:?}");
    }
    upstream.send(SWITCHING.replace("echo", "h2c"));
    assert_eq!(client.answer().status(), 502);
    proxy.counts_one_fault("http_protocol_error");
}

fn a_tunnel_is_counted_apart(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    assert_eq!(proxy.report().services["a"].tunnels, 0);
    let (mut client, mut upstream) = tunnel(&proxy, &origin);
    passes(&mut client, &mut upstream);
    let report = proxy.report_where(|report| report.services["a"].tunnels == 1);
    let counted = &report.services["a"];
    assert_eq!((counted.exchanges, counted.forwarded), (1, 1));
    assert_eq!(counted.tunnels_open, 1);
    assert_eq!(counted.phases["total"].count, 1, "it ends with the 101");
    // Its connection is not one to be used again.
    let mut other = proxy.client();
    origin.gets(&mut other, GET).send(ok("a"));
    assert_eq!(other.answer().text(), "a");
    for end in [&client, &upstream] {
        end.finish_sending();
    }
    client.ends();
    upstream.ends();
    let report = proxy.report_where(|report| report.services["a"].tunnels_open == 0);
    let counted = &report.services["a"];
    assert_eq!((counted.exchanges, counted.forwarded), (2, 2));
    assert_eq!(counted.tunnels, 1);
    assert!(report.faults().is_empty(), "{report:#?}");
}

fn a_drain_waits_for_a_tunnel(driver: Driver) {
    let (origin, other) = (Origin::new(), Served::saying("b"));
    let mut proxy = Setup::new(driver)
        .runtime("drain_timeout = \"20s\"")
        .service("a", &[origin.address()], "")
        .service("b", &[other.address()], "")
        .start();
    let (mut client, mut upstream) = tunnel(&proxy, &origin);
    let mut idle = proxy.client();
    assert_eq!(idle.get("b.test", "/").text(), "b");
    proxy.signal("TERM");
    // It is closed when it has been quiet for two seconds, and the tunnel is not.
    idle.ends();
    passes(&mut client, &mut upstream);
    client.finish_sending();
    upstream.ends();
    drop(upstream);
    client.ends();
    assert_eq!(proxy.exit_code_within(PROMPT), Some(0));
}

fn a_tunnel_that_outlasts_the_drain_is_cut(driver: Driver) {
    let origin = Origin::new();
    let mut proxy = Setup::new(driver)
        .runtime("drain_timeout = \"300ms\"")
        .expects_line("drain")
        .service("a", &[origin.address()], "")
        .start();
    let (mut client, mut upstream) = tunnel(&proxy, &origin);
    proxy.signal("TERM");
    client.ends();
    upstream.ends();
    assert_eq!(proxy.exit_code(), Some(0));
}
