//! Mutated requests, each followed by a marker on the same connection: the backend sees the
//! requests that its clients sent, and no other.
//!
//! What a client has sent is what the strict reader reads in its bytes. Of these requests a
//! beginning reaches the backend, each as it was sent; where one is refused, nothing behind it
//! does. In the bodies stand decoys, whole requests that nobody sent as such.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use rand::{Rng, RngExt};

use crate::lenient::Profile;
use crate::mutation::{count, cuts, mutate, one};
use crate::strict::{self, Kind, Message, Read, Reading};
use crate::support::{DEADLINE, Driver, Setup, on_both_drivers};
use crate::{Draw, THREADS, all_agree, connect_from, until_end};

on_both_drivers! {
    the_backend_sees_the_requests_that_were_sent_and_no_other
}

/// One client's connection: what it sends and how.
struct Case {
    address: Ipv4Addr,
    /// The message and the marker.
    bytes: Vec<u8>,
    /// Where each write ends.
    cuts: Vec<usize>,
    /// The marker is sent when the message was answered.
    stepwise: Option<usize>,
}

/// What a client was told.
struct Told {
    bytes: Vec<u8>,
    /// The connection ended by RST.
    reset: bool,
}

/// What all clients were told.
#[derive(Debug, Default)]
struct Counts {
    forwarded: u64,
    own_answers: u64,
    /// Messages, markers not counted, that were forwarded, or not.
    passed: u32,
    refused: u32,
}

fn the_backend_sees_the_requests_that_were_sent_and_no_other(driver: Driver) {
    let draw = Draw::new();
    let backend = Recorder::new();
    let proxy = Setup::new(driver)
        .listener("service = \"a\"")
        .service("a", &[backend.address()], "")
        .start();
    let address = proxy.address();
    let cases = |thread: u32| (0..draw.messages).filter(move |id| id % THREADS == thread);
    let told: Vec<(u32, Told)> = thread::scope(|scope| {
        let clients = (0..THREADS).map(|thread| {
            let speak = move |id| (id, Case::new(draw, id).speak(address));
            scope.spawn(move || cases(thread).map(speak).collect::<Vec<_>>())
        });
        let clients: Vec<_> = clients.collect();
        let told = clients
            .into_iter()
            .flat_map(|client| client.join().expect("it ends"));
        told.collect()
    });
    let mut counts = Counts::default();
    let report = proxy.report();
    drop(proxy);
    let mut seen = backend.requests(draw);
    for (id, told) in &told {
        let case = Case::new(draw, *id);
        case.check(
            draw,
            told,
            seen.remove(&case.address).unwrap_or_default(),
            &mut counts,
        );
    }
    assert!(seen.is_empty(), "{draw:?}: of no client: {seen:?}");
    let counted = &report.services["a"];
    let answers = counts.forwarded + counts.own_answers;
    assert_eq!(
        report.exchanges(),
        answers,
        "{draw:?}: {counts:?} {report:#?}"
    );
    assert_eq!(counted.forwarded, counts.forwarded, "{draw:?}: {report:#?}");
    let own = counted.own_answers + report.no_service.own_answers;
    assert_eq!(own, counts.own_answers, "{draw:?}: {report:#?}");
    let share = draw.messages / 5;
    assert!(
        share < counts.passed && share < counts.refused,
        "{draw:?}: {counts:?}"
    );
}

impl Case {
    fn new(draw: Draw, id: u32) -> Self {
        let generator = &mut draw.case(id);
        let decoy = format!("GET /smuggled-{id} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let mut bytes = template(generator, id, &decoy);
        for _ in 0..count(generator) {
            mutate(generator, &mut bytes, decoy.as_bytes());
        }
        let message = bytes.len();
        let marker = format!("GET /marker-{id} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        bytes.extend_from_slice(marker.as_bytes());
        let whole = matches!(
            strict::read(Kind::Request, &bytes[..message]),
            Read::Whole(_, length) if length == message
        );
        let [_, high, middle, low] = id.to_be_bytes();
        Self {
            address: Ipv4Addr::new(127, 1 + high, middle, low),
            cuts: cuts(generator, bytes.len()),
            stepwise: (whole && generator.random_range(0..2) == 0).then_some(message),
            bytes,
        }
    }

    /// Sends all of it, ends the client's side, and reads to the end.
    fn speak(&self, proxy: SocketAddr) -> Told {
        let mut stream = connect_from(self.address, proxy);
        let mut told = Told {
            bytes: Vec::new(),
            reset: false,
        };
        let mut sent = 0;
        for cut in &self.cuts {
            if let Some(message) = self
                .stepwise
                .filter(|message| (sent..*cut).contains(message))
            {
                let _ = stream.write_all(&self.bytes[sent..message]);
                sent = message;
                read_answer(
                    &mut stream,
                    &mut told.bytes,
                    self.bytes.starts_with(b"HEAD"),
                );
            }
            // ringmain may have closed by now.
            let _ = stream.write_all(&self.bytes[sent..*cut]);
            sent = *cut;
        }
        let _ = stream.shutdown(Shutdown::Write);
        told.reset = until_end(&mut stream, &mut told.bytes);
        told
    }

    /// Holds that what reached the backend and what the client was told are what it sent.
    #[track_caller]
    fn check(&self, draw: Draw, told: &Told, seen: Vec<Message>, counts: &mut Counts) {
        let sent = Reading::requests(&self.bytes);
        let is_head = |at: usize| {
            sent.messages
                .get(at)
                .is_some_and(|sent| sent.start[0] == b"HEAD")
        };
        let kind = |at| Kind::Response {
            to_head: is_head(at),
        };
        let answers = Reading::of(&told.bytes, &strict::read, kind);
        let context = || {
            format!(
                "{draw:?}\nsent   {}\ntold   {}\nseen   {seen:?}\nstrict {sent:?}",
                self.bytes.escape_ascii(),
                told.bytes.escape_ascii()
            )
        };
        // A refusal has its text also where the method was not understood, and the close behind it.
        let refused = answers.messages.last().is_some_and(is_refusal);
        assert!(
            answers.rest.is_none() || refused,
            "no answer\n{}",
            context()
        );
        let owed = sent.messages.len() + usize::from(sent.rest.is_some());
        assert!(
            answers.messages.len() <= owed,
            "too many answers\n{}",
            context()
        );
        let mut arrived = seen.iter();
        for (place, answer) in answers.messages.iter().enumerate() {
            let sent = sent.messages.get(place);
            let last = place + 1 == answers.messages.len();
            if let Some(target) = answer.field("x-seen") {
                let arrived = arrived.next();
                let same = arrived
                    .zip(sent)
                    .is_some_and(|(arrived, sent)| is_same(sent, arrived));
                let whole =
                    arrived.is_some_and(|arrived| arrived.whole && arrived.start[1] == target);
                assert!(same && whole, "answer {place} is another's\n{}", context());
                counts.forwarded += 1;
                counts.passed += u32::from(place == 0);
            } else {
                // Its head may have gone before its body was refused.
                let begun = arrived.clone().next().zip(sent);
                if begun.is_some_and(|(arrived, sent)| !arrived.whole && is_begin(sent, arrived)) {
                    arrived.next();
                }
                assert!(
                    last || !is_refusal(answer),
                    "no end behind {place}\n{}",
                    context()
                );
                counts.own_answers += 1;
                counts.refused += u32::from(place == 0);
            }
        }
        assert_eq!(arrived.next(), None, "not accounted for\n{}", context());
        // What comes behind an answer that closes may be answered by a reset.
        let closes = answers.messages.last().is_some_and(|answer| {
            let mut options = answer.elements("connection");
            options.any(|option| option == b"close")
        });
        assert!(
            closes || !told.reset,
            "the connection was reset\n{}",
            context()
        );
    }
}

/// Own answers behind which nothing is read as a request.
fn is_refusal(answer: &Message) -> bool {
    answer.field("x-seen").is_none()
        && matches!(
            answer.status(),
            400 | 408 | 413 | 414 | 417 | 431 | 501 | 505
        )
}

/// What arrived is what was sent.
fn is_same(sent: &Message, arrived: &Message) -> bool {
    let target = origin_form(&sent.start[0], &sent.start[1]);
    sent.start[0] == arrived.start[0] && target == arrived.start[1] && sent.body == arrived.body
}

/// What arrived is the begin of what was sent.
fn is_begin(sent: &Message, arrived: &Message) -> bool {
    let target = origin_form(&sent.start[0], &sent.start[1]);
    let body = sent.body.starts_with(&arrived.body);
    sent.start[0] == arrived.start[0] && target == arrived.start[1] && body
}

/// RFC 9112 section 3.2.2: what a target is sent on as.
fn origin_form(method: &[u8], target: &[u8]) -> Vec<u8> {
    let rest = match target.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"http://") => rest,
        _ => return target.to_vec(),
    };
    let path = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
    match path.map(|begin| &rest[begin..]) {
        // RFC 9112 section 3.2.4.
        None if method == b"OPTIONS" => b"*".to_vec(),
        None => b"/".to_vec(),
        Some(query @ [b'?', ..]) => [b"/", query].concat(),
        Some(path) => path.to_vec(),
    }
}

/// Reads until a whole answer is here, or the end.
fn read_answer(stream: &mut TcpStream, bytes: &mut Vec<u8>, to_head: bool) {
    let kind = |_| Kind::Response { to_head };
    let mut part = [0; 4096];
    let is_here = |bytes: &[u8]| {
        let answers = Reading::of(bytes, &strict::read, kind).messages;
        answers
            .first()
            .is_some_and(|answer| answer.whole && !answer.until_close)
    };
    while !is_here(bytes) {
        match stream.read(&mut part) {
            Ok(count @ 1..) => bytes.extend_from_slice(&part[..count]),
            _ => return,
        }
    }
}

/// A valid request for `/m-ID`.
fn template(generator: &mut impl Rng, id: u32, decoy: &str) -> Vec<u8> {
    let head = |start: &str, fields: &str| format!("{start}\r\nHost: a.test\r\n{fields}\r\n");
    let content = match generator.random_range(0..4) {
        0 => decoy.to_owned(),
        // What a reader of chunks, or of a length, takes for an end.
        1 => format!("0\r\n\r\n{decoy}"),
        2 => format!("{:x}\r\n{decoy}\r\n0\r\n\r\n", decoy.len()),
        _ => format!("a=1&b={decoy}"),
    };
    let length = format!("Content-Length: {}\r\n", content.len());
    let method = one(generator, &["POST", "PUT", "DELETE", "PATCH", "GET"]);
    let target = format!("/m-{id}");
    let text = match generator.random_range(0..16) {
        0 => head(
            &format!("GET {target} HTTP/1.1"),
            "User-Agent: curl/8\r\nAccept: */*\r\n",
        ),
        1 => format!("\r\n{}", head(&format!("GET {target}?q=1 HTTP/1.1"), "")),
        2 | 3 => head(&format!("{method} {target} HTTP/1.1"), &length) + &content,
        4..7 => {
            let fields = "Transfer-Encoding: chunked\r\n";
            head(&format!("{method} {target} HTTP/1.1"), fields) + &chunked(generator, &content)
        }
        7 => head(&format!("GET http://a.test{target} HTTP/1.1"), "X-A: b\r\n"),
        8 => {
            head(
                &format!("POST http://a.test:80{target}?x HTTP/1.1"),
                &length,
            ) + &content
        }
        9 => head("OPTIONS * HTTP/1.1", "Max-Forwards: 3\r\n"),
        10 => {
            let fields = format!("Expect: 100-continue\r\n{length}");
            head(&format!("POST {target} HTTP/1.1"), &fields) + &content
        }
        11 => {
            let fields =
                "Connection: keep-alive, X-Gone, X-Forwarded-For\r\nX-Gone: 1\r\nTE: trailers\r\n";
            head(&format!("GET {target} HTTP/1.1"), fields)
        }
        12 => {
            let fields =
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
            head(&format!("GET {target} HTTP/1.1"), fields)
        }
        13 => head(
            &format!("GET {target} HTTP/1.0"),
            "Connection: keep-alive\r\n",
        ),
        14 => {
            let fields = format!("Connection: keep-alive\r\n{length}");
            head(&format!("POST {target} HTTP/1.0"), &fields) + &content
        }
        _ => head(
            &format!("HEAD {target} HTTP/1.1"),
            "Cookie: a=b; c=\"d\"\r\n",
        ),
    };
    text.into_bytes()
}

/// `content` in chunks, at times with extensions and trailers.
pub(crate) fn chunked(generator: &mut impl Rng, content: &str) -> String {
    let mut text = String::new();
    let mut rest = content;
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at(generator.random_range(1..=rest.len()));
        let extension = one(
            generator,
            &["", "", "", ";a", ";a=b", ";a=\"b;c\"", ";a=b;c=d"],
        );
        text += &format!("{:x}{extension}\r\n{chunk}\r\n", chunk.len());
        rest = behind;
    }
    text + one(
        generator,
        &[
            "0\r\n\r\n",
            "00\r\n\r\n",
            "0;a=b\r\n\r\n",
            "0\r\nX-Sum: 1\r\n\r\n",
        ],
    )
}

/// A backend that keeps every byte of every connection, and answers each request that it reads.
struct Recorder {
    listener: TcpListener,
    connections: Receiver<Connection>,
}

/// What one connection has brought.
struct Connection {
    bytes: Vec<u8>,
    /// With their places among all that have come.
    requests: Vec<(usize, Message)>,
    /// Why the strict reader took no more.
    refused: Option<&'static str>,
}

impl Recorder {
    fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let accepting = listener.try_clone().expect("a descriptor is free");
        let (sender, connections) = channel();
        thread::spawn(move || {
            let arrivals = Arc::new(AtomicUsize::new(0));
            while let Ok((stream, _)) = accepting.accept() {
                let (sender, arrivals) = (sender.clone(), Arc::clone(&arrivals));
                thread::spawn(move || sender.send(Connection::serve(stream, &arrivals)));
            }
        });
        Self {
            listener,
            connections,
        }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("the socket is bound")
    }

    /// Every request by the client that it came from, when all connections have ended; holds that
    /// all readers agree on each connection's bytes.
    fn requests(self, draw: Draw) -> HashMap<Ipv4Addr, Vec<Message>> {
        // On Linux this ends the accept that its thread waits in.
        let _ = socket2::SockRef::from(&self.listener).shutdown(Shutdown::Both);
        let mut generator = draw.case(u32::MAX);
        let mut all = Vec::new();
        for connection in self.connections {
            let bytes = || connection.bytes.escape_ascii();
            assert_eq!(connection.refused, None, "{draw:?}: {}", bytes());
            let drawn = [(); 10].map(|()| Profile::drawn(&mut generator));
            all_agree(&connection.bytes, |_| Kind::Request, &drawn, draw);
            all.extend(connection.requests);
        }
        all.sort_by_key(|(arrival, _)| *arrival);
        let mut by_client: HashMap<Ipv4Addr, Vec<Message>> = HashMap::new();
        for (_, request) in all {
            // ringmain adds the last one itself.
            let client = request.elements("x-forwarded-for").next_back();
            let client = std::str::from_utf8(client.unwrap_or_default()).ok();
            let client = client.and_then(|client| client.parse().ok());
            assert!(client.is_some(), "{draw:?}: of nobody: {request:?}");
            by_client
                .entry(client.unwrap_or(Ipv4Addr::UNSPECIFIED))
                .or_default()
                .push(request);
        }
        by_client
    }
}

impl Connection {
    /// Answers requests to the end of the connection.
    fn serve(mut stream: TcpStream, arrivals: &AtomicUsize) -> Self {
        let mut connection = Self {
            bytes: Vec::new(),
            requests: Vec::new(),
            refused: None,
        };
        let (mut at, mut continued, mut part) = (0, false, [0; 16 * 1024]);
        stream
            .set_read_timeout(Some(3 * DEADLINE))
            .expect("it is not zero");
        let left = loop {
            let expects = |message: &Message| message.field("expect").is_some();
            match strict::read(Kind::Request, &connection.bytes[at..]) {
                Read::Whole(message, length) => {
                    at += length;
                    continued = false;
                    let answer = answer(&message);
                    connection.arrived(message, arrivals);
                    let _ = stream.write_all(&answer);
                    continue;
                }
                Read::Partial(Some(message)) if expects(&message) && !continued => {
                    continued = true;
                    let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                Read::Partial(_) => {}
                Read::Invalid(why, message) => {
                    connection.refused = Some(why);
                    break message;
                }
            }
            match stream.read(&mut part) {
                Ok(count @ 1..) => connection.bytes.extend_from_slice(&part[..count]),
                _ => match strict::read(Kind::Request, &connection.bytes[at..]) {
                    Read::Partial(message) => break message,
                    _ => break None,
                },
            }
        };
        if let Some(message) = left {
            connection.arrived(message, arrivals);
        }
        connection
    }

    fn arrived(&mut self, message: Message, arrivals: &AtomicUsize) {
        let arrival = arrivals.fetch_add(1, Ordering::Relaxed);
        self.requests.push((arrival, message));
    }
}

fn answer(request: &Message) -> Vec<u8> {
    let target = String::from_utf8_lossy(&request.start[1]);
    let (framing, body) = if target.len().is_multiple_of(2) {
        ("Content-Length: 4", "seen")
    } else {
        ("Transfer-Encoding: chunked", "4\r\nseen\r\n0\r\n\r\n")
    };
    let body = if request.start[0] == b"HEAD" {
        ""
    } else {
        body
    };
    format!("HTTP/1.1 200 OK\r\n{framing}\r\nX-Seen: {target}\r\n\r\n{body}").into_bytes()
}
