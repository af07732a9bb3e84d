//! Origins: one that the test plays by hand, and one that answers by a function on threads of its
//! own.

use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Type};

use super::socket::Socket;
use super::{DEADLINE, GET, Message, Wire};

/// A listening socket whose connections the test accepts one by one.
pub(crate) struct Origin {
    listener: Socket<TcpListener>,
}

impl Origin {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        Self {
            listener: Socket::new(listener),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("the socket is bound")
    }

    /// The next connection.
    #[track_caller]
    pub(crate) fn accept(&self) -> Wire {
        let accepted = self.accept_within(DEADLINE);
        accepted.expect("ringmain connects in time")
    }

    /// The next connection, if there is one within `span`.
    pub(crate) fn accept_within(&self, span: Duration) -> Option<Wire> {
        // Linux honours a receive timeout in accept(2).
        socket2::SockRef::from(&*self.listener)
            .set_read_timeout(Some(span))
            .expect("the span is not zero");
        let accepted = self.listener.wait(TcpListener::accept);
        accepted.ok().map(|(stream, _)| Wire::new(stream))
    }

    /// Lets `client` send `request`, which reaches the origin whole on a new connection.
    #[track_caller]
    pub(crate) fn gets(&self, client: &mut Wire, request: &str) -> Wire {
        client.send(request);
        let mut upstream = self.accept();
        upstream.request();
        upstream
    }

    /// Holds that the next request works: it comes on a new connection and is answered.
    #[track_caller]
    pub(crate) fn answers_next(&self, mut client: Wire) {
        let mut upstream = self.gets(&mut client, GET);
        upstream.send(ok("next"));
        assert_eq!(client.answer().text(), "next");
    }

    /// True exactly when no connection waits to be accepted.
    pub(crate) fn has_no_more(&self) -> bool {
        let listener = &self.listener;
        listener
            .set_nonblocking(true)
            .expect("the socket is listening");
        let none = listener.accept().is_err();
        listener
            .set_nonblocking(false)
            .expect("the socket is listening");
        none
    }

    /// An address that refuses connections. Its socket, which does not listen, stays open as long
    /// as the process: else its port would be the next one that somebody is given, a ringmain of
    /// another test perhaps.
    pub(crate) fn refused() -> SocketAddr {
        let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None);
        let socket = socket.expect("a descriptor is free");
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        socket.bind(&any.into()).expect("a port is free");
        let address = socket.local_addr().expect("it is bound").as_socket();
        std::mem::forget(socket);
        address.expect("it is IPv4")
    }
}

/// An address that refuses connections but when a [`Served`] is there. Nobody else is given its
/// port meanwhile: a socket that does not listen is bound to it.
pub(crate) struct Reserved {
    address: SocketAddr,
    _socket: socket2::Socket,
}

impl Reserved {
    pub(crate) fn new() -> Self {
        let socket = reusing(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let address = socket.local_addr().expect("it is bound").as_socket();
        Self {
            address: address.expect("it is IPv4"),
            _socket: socket,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn socket(&self) -> socket2::Socket {
        reusing(self.address)
    }
}

/// A socket that is bound to `address` beside others of its kind.
fn reusing(address: SocketAddr) -> socket2::Socket {
    let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None);
    let socket = socket.expect("a descriptor is free");
    socket.set_reuse_port(true).expect("Linux has it");
    socket.bind(&address.into()).expect("the port is ours");
    socket
}

/// An origin that answers each request with what a function says; keeps its connections alive.
pub(crate) struct Served {
    listener: TcpListener,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicUsize,
    requests: AtomicUsize,
}

impl Served {
    /// Answers every request with 200 and `body`.
    pub(crate) fn saying(body: &str) -> Self {
        let answer = ok(body);
        Self::new(move |_| answer.clone())
    }

    /// Answers every request with the bytes that `answer` makes of it.
    pub(crate) fn new(answer: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        Self::on(listener, answer)
    }

    /// As [`Served::new`], at the address of `reserved`; when it is dropped, that refuses again.
    pub(crate) fn at(
        reserved: &Reserved,
        answer: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let socket = reserved.socket();
        socket.listen(64).expect("it is bound");
        Self::on(socket.into(), answer)
    }

    /// As [`Served::new`], on a socket that listens.
    pub(crate) fn on(
        listener: TcpListener,
        answer: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let counts = Arc::new(Counts::default());
        let answer = Arc::new(answer);
        let accepting = listener.try_clone().expect("a descriptor is free");
        let counting = Arc::clone(&counts);
        thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                counting.connections.fetch_add(1, Ordering::Relaxed);
                let (answer, counts) = (Arc::clone(&answer), Arc::clone(&counting));
                thread::spawn(move || serve(Wire::new(stream), &counts, &*answer));
            }
        });
        Self { listener, counts }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("the socket is bound")
    }

    pub(crate) fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // On Linux this ends the accept that its thread waits in.
        let _ = socket2::SockRef::from(&self.listener).shutdown(Shutdown::Both);
    }
}

fn serve(mut wire: Wire, counts: &Counts, answer: &dyn Fn(&Message) -> Vec<u8>) {
    while !wire.is_over() {
        let request = wire.request();
        counts.requests.fetch_add(1, Ordering::Relaxed);
        if !wire.try_send(answer(&request)) {
            return;
        }
    }
}

/// A 200 with `body`.
pub(crate) fn ok(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
