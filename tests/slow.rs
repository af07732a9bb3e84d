//! Slow peers: ten thousand of them at once, and one on the other side of a long body. What they
//! hold of the process's memory is bounded, each ends by its own timeout, and nobody else notices.
//!
//! A test binary of its own: it needs more descriptors than a process has by itself.

#[path = "support/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    unused_macros,
    clippy::needless_pass_by_ref_mut,
    reason = "other tests need more of it"
)]
mod support;

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::SockRef;
use support::{DEADLINE, Driver, Proxy, Served, Setup, Wire};

const DRIVERS: [Driver; 2] = [Driver::IoUring, Driver::Epoll];

/// How long a slow client may be slow. The first is enough where nobody else needs the machine.
const TIMEOUTS: [u64; 3] = [5, 15, 45];

/// The bar: what the process holds with ten thousand slow clients, in KiB.
const MEMORY_KIB_MAX: u64 = 100 * 1024;

/// The bar: what an exchange of 100 MiB with a slow peer may add, in KiB.
const GROWTH_KIB_MAX: u64 = 2 * 1024;

/// What an endpoint sends to a client that does not read: more than the buffers on the way hold.
const UNREAD_BYTES: usize = 192 * 1024;

/// Clients, the endpoint's ends of three in five, and some of everything else.
const DESCRIPTORS: usize = 16_500;

/// How many clients are slow in which way.
#[derive(Clone, Copy, Debug)]
struct Mix {
    heads: usize,
    bodies: usize,
    /// Those who do not read their answers.
    readers: usize,
    /// Those whose endpoint says nothing.
    waiting: usize,
}

impl Mix {
    /// Ten thousand, both ends of which this process must be able to have: fewer would pass without
    /// having tested the bar.
    #[track_caller]
    fn within(descriptors: usize) -> Self {
        assert!(
            DESCRIPTORS <= descriptors,
            "needs {DESCRIPTORS} descriptors, may have {descriptors}; type: sudo prlimit --pid $$ \
             --nofile={DESCRIPTORS}"
        );
        let count = 10_000;
        Self {
            heads: count * 45 / 100,
            bodies: count * 20 / 100,
            readers: count * 20 / 100,
            waiting: count * 15 / 100,
        }
    }

    fn clients(self) -> usize {
        self.heads + self.upstreams()
    }

    fn upstreams(self) -> usize {
        self.bodies + self.readers + self.waiting
    }
}

#[test]
fn ten_thousand_slow_clients_hold_little_and_nobody_else_notices() {
    without_huge_pages();
    let mix = Mix::within(raise_descriptors());
    for driver in DRIVERS {
        let in_time = TIMEOUTS.iter().any(|seconds| hold(driver, mix, *seconds));
        assert!(in_time, "{driver:?}: the first ended before the last began");
    }
}

/// False when some of the clients had ended before all were there, so that nothing was measured.
#[track_caller]
fn hold(driver: Driver, mix: Mix, seconds: u64) -> bool {
    let slow = SlowEndpoint::new();
    let quick = Served::saying("quick");
    let timeouts =
        format!("[service.timeouts]\nresponse = \"{seconds}s\"\n[service.pool]\nidle_max = 0");
    let proxy = Setup::new(driver)
        .runtime("drain_timeout = \"5s\"\nconnections_max = 12000")
        .expects_line("RLIMIT_NOFILE")
        .expects_line("drain_timeout has passed")
        .listener(&format!(
            "[listener.timeouts]\nhead = \"{seconds}s\"\nbody_idle = \"{seconds}s\"\n\
             send_idle = \"{seconds}s\""
        ))
        .service("a", &[slow.address()], &timeouts)
        .service("b", &[quick.address()], "")
        .start();
    let clients = |count: usize, bytes: &'static str| {
        let clients = (0..count).map(|_| {
            let mut client = small_client(proxy.address());
            client
                .write_all(bytes.as_bytes())
                .expect("ringmain accepts");
            client
        });
        clients.collect::<Vec<TcpStream>>()
    };
    let waiting = clients(mix.waiting, "GET /wait HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let readers = clients(mix.readers, "GET /read HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let upload = "POST /wait HTTP/1.1\r\nHost: a.test\r\nContent-Length: 999\r\n\r\n1";
    let mut bodies = clients(mix.bodies, upload);
    let mut heads = clients(mix.heads, "GET / HTTP/1.1\r\nHos");
    slow.has_answered(mix.upstreams());
    let mut in_time = trickle(&mut heads, b"t") && trickle(&mut bodies, b"2");
    ask_quickly(&proxy);
    in_time &= trickle(&mut heads, b":") && trickle(&mut bodies, b"3");
    let report = proxy.report();
    in_time &= report.faults().is_empty() && report.connections as usize >= mix.clients();
    let peak = peak_kib(&proxy);
    if in_time {
        assert!(peak < MEMORY_KIB_MAX, "{driver:?}: {mix:?} hold {peak} KiB");
        end(&proxy, mix, [heads, bodies, waiting, readers]);
    }
    in_time
}

/// Holds that each of the clients ends by its own timeout.
#[track_caller]
fn end(proxy: &Proxy, mix: Mix, [heads, bodies, waiting, readers]: [Vec<TcpStream>; 4]) {
    let answers = [
        (heads, "HTTP/1.1 408 "),
        (bodies, "HTTP/1.1 408 "),
        (waiting, "HTTP/1.1 504 "),
    ];
    for (clients, expected) in answers {
        for mut client in clients {
            let mut answer = [0; 13];
            client
                .read_exact(&mut answer)
                .expect("an answer comes in time");
            assert_eq!(answer.escape_ascii().to_string(), expected);
        }
    }
    for mut client in readers {
        let mut bytes = Vec::new();
        // By FIN or RST.
        let _ = client.read_to_end(&mut bytes);
        let whole = UNREAD_BYTES <= bytes.len();
        assert!(
            bytes.starts_with(b"HTTP/1.1 200 ") && !whole,
            "{} bytes",
            bytes.len()
        );
    }
    let expected = [
        ("client_send_timeout", mix.readers),
        ("http_request_timeout", mix.heads + mix.bodies),
        ("http_response_timeout", mix.waiting),
    ];
    let expected = expected.map(|(label, count)| (label.to_owned(), count as u64));
    assert_eq!(proxy.report().faults(), expected.into());
}

/// Sends a further part of what each client sends slowly; false when one was ended already.
fn trickle(clients: &mut [TcpStream], bytes: &[u8]) -> bool {
    clients
        .iter_mut()
        .all(|client| client.write_all(bytes).is_ok())
}

/// Thousands of exchanges of clients that are not slow; none of them fails.
#[track_caller]
fn ask_quickly(proxy: &Proxy) {
    const CLIENTS: usize = 4;
    const EXCHANGES: usize = 500;
    let clients: Vec<Wire> = (0..CLIENTS).map(|_| proxy.client()).collect();
    thread::scope(|scope| {
        for mut client in clients {
            scope.spawn(move || {
                for _ in 0..EXCHANGES {
                    assert_eq!(client.get("b.test", "/").text(), "quick");
                }
            });
        }
    });
    let quick = &proxy.report().services["b"];
    assert_eq!(quick.forwarded as usize, CLIENTS * EXCHANGES);
}

/// A client for which the kernel keeps little on either side.
fn small_client(proxy: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a descriptor is free");
    socket
        .set_recv_buffer_size(4096)
        .expect("the socket is open");
    // What the sender keeps is a multiple of it, and on the loopback interface it is 64 KiB.
    socket.set_tcp_mss(1000).expect("the socket is open");
    socket.connect(&proxy.into()).expect("ringmain accepts");
    socket.set_tcp_nodelay(true).expect("the socket is open");
    let stream = TcpStream::from(socket);
    let patience = DEADLINE + Duration::from_secs(TIMEOUTS[TIMEOUTS.len() - 1]);
    stream
        .set_read_timeout(Some(patience))
        .expect("it is not zero");
    stream
}

/// An endpoint that answers `/read` with more than is read, and nothing else.
struct SlowEndpoint {
    listener: TcpListener,
    answered: Receiver<()>,
    accepting: Option<JoinHandle<()>>,
}

impl SlowEndpoint {
    fn new() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.expect("a descriptor is free");
        // Accepted sockets inherit it.
        socket
            .set_send_buffer_size(UNREAD_BYTES)
            .expect("the socket is open");
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        socket.bind(&any.into()).expect("a port is free");
        // Thousands come at once.
        socket.listen(4096).expect("the socket is bound");
        let listener = TcpListener::from(socket);
        let accepted = listener.try_clone().expect("a descriptor is free");
        let (sender, answered) = channel();
        let accepting = thread::spawn(move || {
            let mut kept = Vec::new();
            while let Ok((stream, _)) = accepted.accept() {
                kept.push(answer(stream));
                // Until the test has seen enough.
                let _ = sender.send(());
            }
        });
        Self {
            listener,
            answered,
            accepting: Some(accepting),
        }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("the socket is bound")
    }

    /// Waits until so many requests are here.
    #[track_caller]
    fn has_answered(&self, count: usize) {
        for place in 0..count {
            let answered = self.answered.recv_timeout(DEADLINE);
            assert!(answered.is_ok(), "{place} of {count} requests came");
        }
    }
}

impl Drop for SlowEndpoint {
    fn drop(&mut self) {
        // On Linux this ends the accept that its thread waits in.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        // Its descriptors are needed by the next one.
        let _ = self.accepting.take().map(JoinHandle::join);
    }
}

fn answer(mut stream: TcpStream) -> TcpStream {
    let mut request = [0; 512];
    stream
        .set_read_timeout(Some(DEADLINE))
        .expect("it is not zero");
    let count = stream.read(&mut request).unwrap_or_default();
    if request[..count].starts_with(b"GET /read ") {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            2 * UNREAD_BYTES
        );
        let answer = [head.as_bytes(), &vec![b'x'; UNREAD_BYTES]].concat();
        stream.set_nonblocking(true).expect("the socket is open");
        // As much as the kernel takes at once.
        let _ = stream.write(&answer);
    }
    stream
}

#[test]
fn a_long_body_to_a_slow_peer_holds_little() {
    without_huge_pages();
    for driver in DRIVERS {
        let origin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let proxy = driver.proxy_for(origin.local_addr().expect("the socket is bound"));
        for (name, exchange) in [("up", upload as Exchange), ("down", download)] {
            // What is made once.
            exchange(&proxy, &origin, 8 << 20);
            forget_peak(&proxy);
            let before = peak_kib(&proxy);
            exchange(&proxy, &origin, 100 << 20);
            let grown = peak_kib(&proxy) - before;
            assert!(
                grown < GROWTH_KIB_MAX,
                "{driver:?} {name}: {before} KiB grew by {grown}"
            );
        }
    }
}

/// An exchange with a body of so many bytes.
type Exchange = fn(&Proxy, &TcpListener, usize);

/// A client uploads to an endpoint that reads nothing until the client is held back.
#[track_caller]
fn upload(proxy: &Proxy, origin: &TcpListener, length: usize) {
    let (mut client, sender) = ends(TcpStream::connect(proxy.address()).expect("it listens"));
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    ));
    let (mut endpoint, _) = ends(origin.accept().expect("ringmain connects").0);
    endpoint.head();
    let sending = until_held_back(sender, length);
    read(&mut endpoint, length);
    sending.join().expect("all was sent");
    endpoint.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert_eq!(client.answer().status(), 200);
    client.ends();
}

/// An endpoint answers a client that reads nothing until the endpoint is held back.
#[track_caller]
fn download(proxy: &Proxy, origin: &TcpListener, length: usize) {
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    let (mut endpoint, sender) = ends(origin.accept().expect("ringmain connects").0);
    endpoint.head();
    endpoint.send(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    ));
    let sending = until_held_back(sender, length);
    client.head();
    read(&mut client, length);
    sending.join().expect("all was sent");
    client.ends();
}

/// One end of a connection for conversation, and for sending much.
fn ends(stream: TcpStream) -> (Wire, TcpStream) {
    let sender = stream.try_clone().expect("a descriptor is free");
    (Wire::new(stream), sender)
}

/// Sends so many bytes, and returns when no more are taken; the rest goes out beside the caller.
#[track_caller]
fn until_held_back(mut stream: TcpStream, length: usize) -> JoinHandle<()> {
    // Long enough that it is not the scheduler that holds back.
    let patience = Some(Duration::from_millis(500));
    stream.set_write_timeout(patience).expect("it is not zero");
    let block = vec![b'x'; 1 << 16];
    let mut left = length;
    while 0 < left {
        match stream.write(&block[..left.min(block.len())]) {
            Ok(count) => left -= count,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                break;
            }
        }
    }
    // More than the kernel holds on the way.
    let is_short = length < 64 << 20;
    assert!(
        is_short || length / 2 < left,
        "{left} left: nobody was held back"
    );
    stream
        .set_write_timeout(Some(DEADLINE))
        .expect("it is not zero");
    thread::spawn(move || {
        let rest = stream.write_all(&vec![b'x'; left]);
        rest.expect("the rest is taken");
    })
}

/// Reads so many bytes, a few at a time.
#[track_caller]
fn read(wire: &mut Wire, length: usize) {
    const PART: usize = 16 * 1024;
    let mut left = length;
    while 0 < left {
        left -= wire.take(left.min(PART)).len();
    }
}

/// The most memory that the process has held since that was forgotten, in KiB.
#[track_caller]
fn peak_kib(proxy: &Proxy) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.id()));
    let status = status.expect("the process runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
    peak.and_then(|kib| kib.parse().ok())
        .expect("the kernel counts it")
}

/// proc(5): 5 resets the peak to what is held now.
#[track_caller]
fn forget_peak(proxy: &Proxy) {
    fs::write(format!("/proc/{}/clear_refs", proxy.id()), "5").expect("it is our child");
}

/// Lets this process, and those that it starts, have as many descriptors as it may; how many.
#[expect(unsafe_code, reason = "setrlimit(2) is a function of C")]
fn raise_descriptors() -> usize {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls read or write one rlimit, which lives on.
    let done = unsafe {
        let asked = libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max.min(20_000);
        asked | libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
    };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
    limit.rlim_cur as usize
}

/// Keeps the processes that this one starts from pages of 2 MiB: a single byte more may take one,
/// and what is counted is to be what is used.
#[expect(unsafe_code, reason = "prctl(2) is a function of C")]
fn without_huge_pages() {
    // SAFETY: prctl(2) touches no memory of ours with these arguments.
    let done = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}
