//! TCP services: what becomes of a connection that speaks no HTTP, from accept to its end.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Type};

use crate::support::{DEADLINE, Driver, Origin, Proxy, Report, Setup, Wire, on_both_drivers};

on_both_drivers! {
    bytes_go_both_ways_as_they_are
    the_server_may_speak_first
    mebibytes_go_both_ways_at_once
    mebibytes_reach_a_slow_reader_whole
    small_messages_go_on_behind_mebibytes
    a_silent_session_has_nothing_left_of_its_mebibytes
    with_few_descriptors_mebibytes_are_copied
    a_session_that_gets_some_of_its_descriptors_loses_nothing
    an_end_of_one_side_leaves_the_other_way_open
    an_end_behind_mebibytes_comes_behind_the_last_of_them
    a_reset_of_one_side_resets_the_other
    a_reset_amid_mebibytes_resets_the_other
    what_is_sent_early_waits_for_the_endpoint
    an_endpoint_that_refuses_is_passed_over
    more_endpoints_than_any_retry_allows_are_tried
    with_no_endpoint_left_the_client_is_reset
    an_endpoint_that_does_not_accept_takes_all_of_connect
    a_client_that_resets_while_it_is_connected_is_let_go
    a_session_through_which_nothing_goes_ends
    a_side_that_takes_nothing_of_mebibytes_ends_the_session
    a_drain_waits_for_a_session
    a_session_that_outlasts_the_drain_is_cut
    ipv6_is_spoken_on_both_sides
    a_session_over_a_limit_is_reset
    a_listener_at_its_limit_resets
    a_session_waits_for_room_at_its_endpoint
    least_connections_sees_sessions
    a_client_keeps_its_endpoint_by_its_address
    a_session_is_counted_and_timed
    a_connection_of_requests_is_no_use_to_a_session
    idle_sessions_are_small
}

const TCP: &str = "protocol = \"tcp\"\nservice = \"a\"";
const MEBIBYTE: usize = 1 << 20;
/// More than all buffers between two sockets hold that do not read.
const PLENTY: usize = 64 * MEBIBYTE;

/// A listener that speaks TCP before the service `a` on these endpoints, with these keys.
fn setup(driver: Driver, endpoints: &[SocketAddr], keys: &str) -> Setup {
    Setup::new(driver)
        .admin("127.0.0.1:0")
        .listener(TCP)
        .service("a", endpoints, keys)
}

fn start(driver: Driver, origin: &Origin) -> Proxy {
    setup(driver, &[origin.address()], "").start()
}

/// Both ends of a new session: the client's and the endpoint's.
#[track_caller]
fn session(proxy: &Proxy, origin: &Origin) -> (Wire, Wire) {
    let client = proxy.client();
    (client, origin.accept())
}

/// What goes into one end comes out of the other, both ways.
#[track_caller]
fn passes(client: &mut Wire, upstream: &mut Wire) {
    client.send(b"ping\0\r\n\r\n");
    assert_eq!(upstream.take(9), b"ping\0\r\n\r\n");
    upstream.send(b"\xff pong");
    assert_eq!(client.take(6), b"\xff pong");
}

/// Bytes that tell where they stand.
fn pattern(seed: u32, count: usize) -> Vec<u8> {
    let words = (0..).map(|place: u32| place.wrapping_mul(2_654_435_761) ^ seed);
    words.flat_map(u32::to_le_bytes).take(count).collect()
}

/// Sends mebibytes into `from`, which come out of `to`.
#[track_caller]
fn floods(from: &Wire, to: &mut Wire, count: usize) {
    let mut sender = from.split();
    let sending = thread::spawn(move || sender.send(pattern(7, count)));
    assert!(to.take(count) == pattern(7, count));
    sending.join().expect("it only writes");
}

/// The client's side of each pair, the side that acts first being either.
fn in_turn(ends: (Wire, Wire), client_first: bool) -> (Wire, Wire) {
    let (client, upstream) = ends;
    if client_first {
        (client, upstream)
    } else {
        (upstream, client)
    }
}

/// The first report in which no session is open, and so many were; none has failed.
#[track_caller]
fn ended(proxy: &Proxy, sessions: u64) -> Report {
    let is_over = |report: &Report| {
        let counted = &report.services["a"];
        (counted.tunnels, counted.tunnels_open) == (sessions, 0)
    };
    let report = proxy.report_where(is_over);
    assert!(report.faults().is_empty(), "{report:#?}");
    report
}

#[track_caller]
fn json(proxy: &Proxy) -> Value {
    let answer = proxy.admin_client().get("localhost", "/report?format=json");
    serde_json::from_slice(&answer.body).expect("it is JSON")
}

fn bytes_go_both_ways_as_they_are(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, &origin);
    for _ in 0..3 {
        let (mut client, mut upstream) = session(&proxy, &origin);
        for _ in 0..3 {
            passes(&mut client, &mut upstream);
        }
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
        let head = upstream.head();
        assert_eq!(head.fields.len(), 2, "it is nobody's request: {head:?}");
    }
    assert!(origin.has_no_more(), "each session has one connection");
}

fn the_server_may_speak_first(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, &origin);
    let (mut client, mut upstream) = session(&proxy, &origin);
    upstream.send(b"220 ready\r\n");
    assert_eq!(client.line(), "220 ready");
    passes(&mut client, &mut upstream);
}

fn mebibytes_go_both_ways_at_once(driver: Driver) {
    const BYTES: usize = 16 * MEBIBYTE;
    let origin = Origin::new();
    let proxy = start(driver, &origin);
    let (mut client, mut upstream) = session(&proxy, &origin);
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
    let report = ended(&proxy, 1);
    let counted = report.services["a"].tunnel_bytes;
    assert_eq!(counted, [BYTES as u64; 2], "{report:#?}");
}

fn mebibytes_reach_a_slow_reader_whole(driver: Driver) {
    const BYTES: usize = 8 * MEBIBYTE;
    let origin = Origin::new();
    let proxy = start(driver, &origin);
    for client_first in [true, false] {
        let ends = in_turn(session(&proxy, &origin), client_first);
        let (sender, mut reader) = ends;
        reader.set_receive_buffer(32 * 1024);
        let sent = pattern(9, BYTES);
        let mut talks = sender.split();
        let sending = thread::spawn(move || {
            talks.send(pattern(9, BYTES));
            talks.finish_sending();
        });
        let mut at = 0;
        while at < BYTES / 8 {
            // It reads a little at a time, and not at all in between.
            assert!(reader.take(4096) == sent[at..at + 4096], "at {at}");
            at += 4096;
            thread::yield_now();
        }
        assert!(reader.rest() == sent[at..], "from {at} on");
        sending.join().expect("it only writes");
        drop((sender, reader));
    }
    ended(&proxy, 2);
}

fn small_messages_go_on_behind_mebibytes(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, &origin);
    let (mut client, mut upstream) = session(&proxy, &origin);
    for count in [1, 4 * MEBIBYTE, 9 * MEBIBYTE + 1] {
        floods(&client, &mut upstream, count);
        passes(&mut client, &mut upstream);
        floods(&upstream, &mut client, count);
        // The socket waits for bytes as it did before.
        assert!(client.is_quiet_for(Duration::from_millis(50)));
        passes(&mut client, &mut upstream);
    }
}

/// Pipes (each is two) and sockets that the process has open.
fn open(proxy: &Proxy) -> [usize; 2] {
    let directory = format!("/proc/{}/fd", proxy.id());
    let entries = std::fs::read_dir(directory).expect("the process runs");
    let links = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let links: Vec<_> = links.map(|link| link.display().to_string()).collect();
    let count = |kind: &str| links.iter().filter(|link| link.starts_with(kind)).count();
    [count("pipe:") / 2, count("socket:")]
}

fn a_silent_session_has_nothing_left_of_its_mebibytes(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, &origin);
    let (mut client, mut upstream) = session(&proxy, &origin);
    passes(&mut client, &mut upstream);
    let [pipes, sockets] = open(&proxy);
    for _ in 0..3 {
        floods(&client, &mut upstream, 8 * MEBIBYTE);
        floods(&upstream, &mut client, 8 * MEBIBYTE);
    }
    let [more, _] = open(&proxy);
    assert!(pipes < more, "they went through pipes");
    assert!(more <= pipes + 2, "which are used again");
    // Within two ticks; a report takes one.
    let is_left = |_: u32| proxy.report().connections == 1 && open(&proxy)[1] != sockets;
    assert!(!(0..20).all(is_left), "{:?} after {sockets}", open(&proxy));
    passes(&mut client, &mut upstream);
}

fn with_few_descriptors_mebibytes_are_copied(driver: Driver) {
    let origin = Origin::new();
    let setup = setup(driver, &[origin.address()], "").descriptors_max(120);
    let proxy = setup.start();
    let (client, mut upstream) = session(&proxy, &origin);
    let [pipes, _] = open(&proxy);
    floods(&client, &mut upstream, 8 * MEBIBYTE);
    assert_eq!(open(&proxy)[0], pipes, "there is room for none");
}

fn a_session_that_gets_some_of_its_descriptors_loses_nothing(driver: Driver) {
    const DESCRIPTORS: usize = 160;
    const BYTES: usize = 8 * MEBIBYTE;
    let origin = Origin::new();
    let proxy = setup(driver, &[origin.address()], "")
        .descriptors_max(DESCRIPTORS as u32)
        .runtime("drain_timeout = \"5s\"\nconnections_max = 1000")
        .expects_line("RLIMIT_NOFILE")
        .start();
    let (client, mut reader) = session(&proxy, &origin);
    reader.set_receive_buffer(32 * 1024);
    let directory = format!("/proc/{}/fd", proxy.id());
    let free = || DESCRIPTORS - std::fs::read_dir(&directory).expect("it runs").count();
    let mut others = Vec::new();
    while 4 < free() {
        others.push(session(&proxy, &origin));
    }
    // Each session has two: where four are left, a client that has not asked yet holds one of them.
    let _admin = (free() == 4).then(|| proxy.admin_client());
    while free() == 4 {
        thread::yield_now();
    }
    assert_eq!(free(), 3, "a pipe, and what waits for one side");
    let mut sender = client.split();
    let sending = thread::spawn(move || sender.send(pattern(9, BYTES)));
    let sent = pattern(9, BYTES);
    let mut at = 0;
    while at < BYTES / 8 {
        assert!(reader.take(4096) == sent[at..at + 4096], "at {at}");
        at += 4096;
        thread::yield_now();
    }
    assert!(reader.take(BYTES - at) == sent[at..], "from {at} on");
    sending.join().expect("it only writes");
}

fn an_end_of_one_side_leaves_the_other_way_open(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, &origin);
    for client_first in [true, false] {
        let (mut first, mut second) = in_turn(session(&proxy, &origin), client_first);
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
    ended(&proxy, 2);
}

fn an_end_behind_mebibytes_comes_behind_the_last_of_them(driver: Driver) {
    const BYTES: usize = 8 * MEBIBYTE + 5;
    let origin = Origin::new();
    let proxy = start(driver, &origin);
    for client_first in [true, false] {
        let (first, mut second) = in_turn(session(&proxy, &origin), client_first);
        let mut sender = first.split();
        let sending = thread::spawn(move || {
            sender.send(pattern(1, BYTES));
            sender.finish_sending();
        });
        assert!(second.rest() == pattern(1, BYTES));
        sending.join().expect("it only writes");
        let mut first = first;
        floods(&second, &mut first, BYTES);
        second.finish_sending();
        first.ends();
    }
    ended(&proxy, 2);
}

fn a_reset_of_one_side_resets_the_other(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, &origin);
    for client_first in [true, false] {
        // Connected for sure: an endpoint that resets before that has refused.
        let connected = || {
            let (mut client, mut upstream) = session(&proxy, &origin);
            passes(&mut client, &mut upstream);
            in_turn((client, upstream), client_first)
        };
        let (first, mut second) = connected();
        first.reset();
        second.is_reset();
        // Also when the other one has ended its side before.
        let (mut first, mut second) = connected();
        first.finish_sending();
        second.ends();
        second.reset();
        first.is_reset();
    }
    ended(&proxy, 4);
}

fn a_reset_amid_mebibytes_resets_the_other(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, &origin);
    for client_first in [true, false] {
        for sender_resets in [true, false] {
            let (mut sender, mut reader) = in_turn(session(&proxy, &origin), client_first);
            floods(&sender, &mut reader, 2 * MEBIBYTE);
            sender.set_deadline(Duration::from_millis(300));
            assert!(!sender.try_send(vec![0; PLENTY]), "it is held back");
            sender.set_deadline(DEADLINE);
            if sender_resets {
                sender.reset();
                // What has come by then may be read.
                reader.rest();
            } else {
                reader.reset();
                sender.is_reset();
            }
        }
    }
    ended(&proxy, 4);
}

fn what_is_sent_early_waits_for_the_endpoint(driver: Driver) {
    let (refused, origin) = (Origin::refused(), Origin::new());
    let keys = "policy = \"round_robin\"";
    let proxy = setup(driver, &[refused, origin.address()], keys).start();
    for early in [5, 3_000, 300_000] {
        let (asked, told) = (pattern(1, early), pattern(2, early));
        let mut client = proxy.client();
        let mut sender = client.split();
        let request = asked.clone();
        let sending = thread::spawn(move || {
            sender.send(request);
            sender.finish_sending();
        });
        let mut upstream = origin.accept();
        assert!(upstream.rest() == asked, "{early}");
        upstream.send(&told);
        upstream.finish_sending();
        assert!(client.rest() == told, "{early}");
        sending.join().expect("it only writes");
    }
    ended(&proxy, 3);
}

fn an_endpoint_that_refuses_is_passed_over(driver: Driver) {
    let (refused, origin) = (Origin::refused(), Origin::new());
    let keys = "policy = \"round_robin\"\n[service.retry]\nattempts_max = 0\nbudget = 0.0";
    let proxy = setup(driver, &[refused, origin.address()], keys).start();
    for _ in 0..4 {
        let (mut client, mut upstream) = session(&proxy, &origin);
        passes(&mut client, &mut upstream);
    }
    let report = ended(&proxy, 4);
    let counted = &report.services["a"];
    assert_eq!(counted.exchanges, 4, "{report:#?}");
    assert_eq!(
        counted.endpoint_faults,
        counted.endpoints[&refused.to_string()]
    );
    assert!(0 < counted.endpoint_faults, "{report:#?}");
}

fn more_endpoints_than_any_retry_allows_are_tried(driver: Driver) {
    let origin = Origin::new();
    let mut endpoints: Vec<_> = (0..20).map(|_| Origin::refused()).collect();
    endpoints.push(origin.address());
    // Each is tried, and none is ejected meanwhile.
    let keys = "[service.eject]\nconsecutive_faults = 0";
    let proxy = setup(driver, &endpoints, keys).start();
    for _ in 0..3 {
        let (mut client, mut upstream) = session(&proxy, &origin);
        passes(&mut client, &mut upstream);
    }
    ended(&proxy, 3);
}

fn with_no_endpoint_left_the_client_is_reset(driver: Driver) {
    let endpoints = [Origin::refused(), Origin::refused()];
    let proxy = setup(driver, &endpoints, "").start();
    let mut client = proxy.client();
    client.is_reset();
    proxy.counts_one_fault("connection_refused");
    let report = proxy.report();
    let counted = &report.services["a"];
    assert_eq!((counted.exchanges, counted.tunnels), (1, 0), "{report:#?}");
    assert_eq!(
        (counted.forwarded, counted.own_answers),
        (0, 0),
        "{report:#?}"
    );
    assert_eq!(counted.endpoint_faults, 2, "each was tried once");
}

/// A listener whose queue of connections is full, and those who fill it.
fn full() -> (TcpListener, Vec<TcpStream>) {
    let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None);
    let socket = socket.expect("a descriptor is free");
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any.into()).expect("a port is free");
    socket.listen(0).expect("it is bound");
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().expect("it is bound");
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
    let waiting: Vec<_> = (0..16).map_while(|_| connect()).collect();
    assert!(waiting.len() < 16, "its queue is short");
    (listener, waiting)
}

fn an_endpoint_that_does_not_accept_takes_all_of_connect(driver: Driver) {
    let busy = [full(), full()];
    let endpoints = busy.each_ref().map(|(busy, _)| busy.local_addr());
    let endpoints = endpoints.map(|address| address.expect("it is bound"));
    let keys = "[service.timeouts]\nconnect = \"500ms\"";
    for endpoints in [&endpoints[..1], &endpoints] {
        let proxy = setup(driver, endpoints, keys).start();
        let mut client = proxy.client();
        assert!(client.is_quiet_for(Duration::from_millis(400)));
        client.is_reset();
        proxy.counts_one_fault("connection_timeout");
        let counted = &proxy.report().services["a"];
        // What one of them took is not left for another.
        assert_eq!(counted.endpoints.values().sum::<u64>(), 1, "{counted:#?}");
    }
}

fn a_client_that_resets_while_it_is_connected_is_let_go(driver: Driver) {
    let (busy, _waiting) = full();
    let endpoint = busy.local_addr().expect("it is bound");
    let keys = "[service.timeouts]\nconnect = \"1h\"";
    let proxy = setup(driver, &[endpoint], keys).start();
    let client = proxy.client();
    proxy.report_where(|report| report.services["a"].endpoints[&endpoint.to_string()] == 1);
    client.reset();
    proxy.counts_one_fault("client_gone");
    proxy.report_where(|report| report.connections == 0);
    assert_eq!(proxy.report().services["a"].endpoint_faults, 0);
}

fn a_session_through_which_nothing_goes_ends(driver: Driver) {
    let origin = Origin::new();
    let keys = "[service.timeouts]\ntunnel_idle = \"100ms\"";
    let proxy = setup(driver, &[origin.address()], keys).start();
    let (mut client, mut upstream) = session(&proxy, &origin);
    client.ends();
    upstream.ends();
    let (mut client, mut upstream) = session(&proxy, &origin);
    client.finish_sending();
    upstream.ends();
    client.ends();
    ended(&proxy, 2);
}

fn a_side_that_takes_nothing_of_mebibytes_ends_the_session(driver: Driver) {
    for client_first in [true, false] {
        let origin = Origin::new();
        let keys = "[service.timeouts]\ntunnel_idle = \"500ms\"";
        let proxy = setup(driver, &[origin.address()], keys).start();
        let (mut talks, mut silent) = in_turn(session(&proxy, &origin), client_first);
        floods(&talks, &mut silent, 4 * MEBIBYTE);
        assert!(!talks.try_send(vec![0; PLENTY]), "it is cut");
        silent.rest();
        ended(&proxy, 1);
    }
}

fn a_drain_waits_for_a_session(driver: Driver) {
    let origin = Origin::new();
    let drain = "drain_timeout = \"20s\"";
    let mut proxy = setup(driver, &[origin.address()], "")
        .runtime(drain)
        .start();
    let (mut client, mut upstream) = session(&proxy, &origin);
    passes(&mut client, &mut upstream);
    proxy.signal("TERM");
    proxy.log_line("drain");
    passes(&mut client, &mut upstream);
    client.finish_sending();
    upstream.ends();
    drop(upstream);
    client.ends();
    assert_eq!(proxy.exit_code_within(Duration::from_secs(5)), Some(0));
}

fn a_session_that_outlasts_the_drain_is_cut(driver: Driver) {
    let origin = Origin::new();
    let mut proxy = setup(driver, &[origin.address()], "")
        .runtime("drain_timeout = \"300ms\"")
        .expects_line("drain")
        .start();
    let (mut client, mut upstream) = session(&proxy, &origin);
    proxy.signal("TERM");
    client.ends();
    upstream.ends();
    assert_eq!(proxy.exit_code(), Some(0));
}

fn ipv6_is_spoken_on_both_sides(driver: Driver) {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).expect("a port is free");
    let endpoint = listener.local_addr().expect("it is bound");
    let six = format!("[[listener]]\nname = \"six\"\naddress = \"[::1]:0\"\n{TCP}");
    let proxy = setup(driver, &[endpoint], "").tables(&six).start();
    for listening in ["six", "web"] {
        let mut client = Wire::connect(proxy.addresses()[listening]);
        let (accepted, _) = listener.accept().expect("ringmain connects");
        let mut upstream = Wire::new(accepted);
        passes(&mut client, &mut upstream);
    }
    ended(&proxy, 2);
}

fn a_session_over_a_limit_is_reset(driver: Driver) {
    for (limits, label, shed) in [
        (
            "client_rate = 1\nclient_burst = 1",
            "client_rate_exceeded",
            "client_rate",
        ),
        (
            "client_concurrent = 1",
            "client_concurrency_exceeded",
            "client_concurrent",
        ),
        ("rate = 1", "service_rate_exceeded", "rate"),
        ("concurrent = 1", "connection_limit_reached", "concurrent"),
    ] {
        let origin = Origin::new();
        let keys = format!("[service.limits]\n{limits}");
        let proxy = setup(driver, &[origin.address()], &keys).start();
        let (mut client, mut over) = (proxy.client(), proxy.client());
        over.is_reset();
        let mut upstream = origin.accept();
        passes(&mut client, &mut upstream);
        proxy.counts_one_fault(label);
        let report = proxy.report();
        let counted = &report.services["a"];
        assert_eq!(counted.shed[shed], 1, "{report:#?}");
        assert_eq!(
            (counted.exchanges, counted.own_answers),
            (2, 0),
            "{report:#?}"
        );
        if shed.ends_with("concurrent") {
            // Its end makes room.
            client.finish_sending();
            upstream.ends();
            drop(upstream);
            client.ends();
            proxy.report_where(|report| report.services["a"].tunnels_open == 0);
            let (mut client, mut upstream) = session(&proxy, &origin);
            passes(&mut client, &mut upstream);
        }
    }
}

fn a_listener_at_its_limit_resets(driver: Driver) {
    let origin = Origin::new();
    let listener = format!("{TCP}\nlimits.connections_max = 1");
    let proxy = setup(driver, &[origin.address()], "")
        .listener(&listener)
        .expects_line("connections_max")
        .start();
    let (mut client, mut upstream) = session(&proxy, &origin);
    let mut over = proxy.client();
    over.is_reset();
    passes(&mut client, &mut upstream);
    proxy.counts_one_fault("connection_limit_reached");
    assert_eq!(proxy.report().no_service.own_answers, 0);
}

fn a_session_waits_for_room_at_its_endpoint(driver: Driver) {
    let origin = Origin::new();
    let keys = "[service.pool]\nconnections_max = 1\nqueue = \"1h\"";
    let proxy = setup(driver, &[origin.address()], keys).start();
    let (mut client, mut upstream) = session(&proxy, &origin);
    let mut waits = proxy.client();
    waits.send(b"early");
    let waiting = |proxy: &Proxy| json(proxy)["shards"][0]["waiting"].as_u64() == Some(1);
    assert!((0..100).any(|_| waiting(&proxy)), "{:#}", json(&proxy));
    passes(&mut client, &mut upstream);
    assert!(origin.has_no_more());
    client.finish_sending();
    upstream.ends();
    drop(upstream);
    client.ends();
    let mut upstream = origin.accept();
    assert_eq!(upstream.take(5), b"early");
    passes(&mut waits, &mut upstream);
}

fn least_connections_sees_sessions(driver: Driver) {
    let (one, other) = (Origin::new(), Origin::new());
    let endpoints = [one.address(), other.address()];
    let proxy = setup(driver, &endpoints, "policy = \"least_connections\"").start();
    let mut open = Vec::new();
    for _ in 0..4 {
        let (mut first, mut second) = (proxy.client(), proxy.client());
        let (mut at_one, mut at_other) = (one.accept(), other.accept());
        // Which of them is where, their bytes say.
        first.send(b"1");
        second.send(b"2");
        let came = (at_one.take(1), at_other.take(1));
        assert!(came == (b"1".into(), b"2".into()) || came == (b"2".into(), b"1".into()));
        open.push((first, second, at_one, at_other));
    }
}

fn a_client_keeps_its_endpoint_by_its_address(driver: Driver) {
    let (one, other) = (Origin::new(), Origin::new());
    let endpoints = [one.address(), other.address()];
    let keys = "policy = \"hash\"\nhash_key = \"field:X-User\"";
    let proxy = setup(driver, &endpoints, keys).start();
    let client_at = |number: u8| Wire::connect_from([127, 0, 0, number].into(), proxy.address());
    let reaches_one = |number: u8| {
        let _client = client_at(number);
        // A session is connected to one of them at once; nobody else connects.
        let is_one = (0..500).find_map(|_| {
            let pause = Duration::from_millis(10);
            let at_one = one.accept_within(pause).map(|_| true);
            at_one.or_else(|| other.accept_within(pause).map(|_| false))
        });
        is_one.expect("it reaches an endpoint")
    };
    let first: Vec<bool> = (1..=20).map(reaches_one).collect();
    let second: Vec<bool> = (1..=20).map(reaches_one).collect();
    assert_eq!(first, second);
    assert!(first.contains(&true) && first.contains(&false), "{first:?}");
}

fn a_session_is_counted_and_timed(driver: Driver) {
    let origin = Origin::new();
    let proxy = start(driver, &origin);
    let (mut client, mut upstream) = session(&proxy, &origin);
    passes(&mut client, &mut upstream);
    let report = proxy.report_where(|report| report.services["a"].tunnels_open == 1);
    let counted = &report.services["a"];
    assert_eq!((counted.exchanges, counted.tunnels), (1, 1), "{report:#?}");
    assert_eq!(
        (counted.forwarded, counted.own_answers),
        (0, 0),
        "{report:#?}"
    );
    assert_eq!(counted.tunnel_bytes, [9, 6], "{report:#?}");
    assert_eq!(counted.phases["upstream_connect"].count, 1);
    assert!(!counted.phases.contains_key("total"), "it is not over");
    let lasted = Duration::from_millis(100);
    assert!(client.is_quiet_for(lasted));
    client.finish_sending();
    upstream.ends();
    upstream.finish_sending();
    client.ends();
    let report = ended(&proxy, 1);
    let counted = &report.services["a"];
    let endpoint = &counted.endpoint_phases[&origin.address().to_string()];
    for phases in [&counted.phases, endpoint] {
        assert_eq!(phases.len(), 2, "{phases:#?}");
        assert_eq!(phases["upstream_connect"].count, 1);
        let total = phases["total"];
        assert_eq!(total.count, 1);
        assert!(lasted <= total.max, "{total:?}");
    }
    let bytes = &json(&proxy)["services"][0]["tunnel_bytes"];
    assert_eq!(*bytes, serde_json::json!({"up": 9, "down": 6}));
}

fn a_connection_of_requests_is_no_use_to_a_session(driver: Driver) {
    let origin = Origin::new();
    let http = "[[listener]]\nname = \"http\"\naddress = \"127.0.0.1:0\"\n";
    let keys = "[service.pool]\nconnections_max = 1";
    let proxy = setup(driver, &[origin.address()], keys)
        .tables(http)
        .start();
    let mut asks = Wire::connect(proxy.addresses()["http"]);
    let mut idle = origin.gets(&mut asks, crate::support::GET);
    idle.send(crate::support::ok("kept"));
    assert_eq!(asks.answer().text(), "kept");
    // The idle connection makes room for the session's own.
    let (mut client, mut upstream) = session(&proxy, &origin);
    passes(&mut client, &mut upstream);
    idle.ends();
}

fn idle_sessions_are_small(driver: Driver) {
    const SESSIONS: usize = 1_000;
    /// Of a process that is not optimised and has just taken what it keeps in stock.
    const KIB_MAX: u64 = 8;
    let origin = Origin::new();
    let proxy = start(driver, &origin);
    let open = || {
        let (mut client, mut upstream) = session(&proxy, &origin);
        passes(&mut client, &mut upstream);
        (client, upstream)
    };
    let _first = open();
    let before = proxy.memory_kib();
    let sessions: Vec<_> = (0..SESSIONS).map(|_| open()).collect();
    let each = proxy.memory_kib().saturating_sub(before) as f64 / SESSIONS as f64;
    assert!(each < KIB_MAX as f64, "{each} KiB");
    drop(sessions);
    proxy.report_where(|report| report.services["a"].tunnels_open == 1);
}
