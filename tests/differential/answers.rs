//! Mutated answers, each followed on its connection by a poison that nobody asked for.
//!
//! A client gets the answer that was given to its own request, whole and as it was framed, or sees
//! that it has not.
//!
//! What an endpoint has answered is what the strict reader reads first in its bytes. The poison is
//! in one write with the end of it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rand::{Rng, RngExt};

use crate::lenient::Profile;
use crate::mutation::{count, cuts, mutate, one};
use crate::requests::chunked;
use crate::strict::{self, Kind, Message, Read, Reading};
use crate::support::{DEADLINE, Driver, Setup, on_both_drivers};
use crate::{Draw, THREADS, all_agree, connect_from, until_end};

on_both_drivers! {
    a_client_gets_the_answer_to_its_request_or_sees_that_it_has_not
}

/// One exchange: how it is asked, and what the endpoint says.
struct Case {
    id: u32,
    method: &'static str,
    version: &'static str,
    /// The answer and the poison behind it.
    bytes: Vec<u8>,
    /// Where each write ends.
    cuts: Vec<usize>,
    /// One of them, inside the body, behind which the endpoint waits until its client was told
    /// something.
    pause: Option<usize>,
    /// What the strict reader has for the answer.
    answer: Read,
    /// Bytes follow it, so that its connection must not be used again.
    spoils: bool,
}

/// How the exchanges ended.
#[derive(Debug, Default)]
struct Counts {
    /// Whole, as the endpoint had it.
    whole: u32,
    /// Answers of ringmain's own.
    own: u32,
    /// Begun, and seen not to be whole.
    broken: u32,
}

/// What a client was told.
struct Told {
    bytes: Vec<u8>,
    reset: bool,
}

/// By client, the last exchange of which it was told something.
#[derive(Default)]
struct Heard([AtomicU32; THREADS as usize]);

impl Heard {
    fn by(&self, id: u32) -> &AtomicU32 {
        &self.0[(id % THREADS) as usize]
    }
}

fn a_client_gets_the_answer_to_its_request_or_sees_that_it_has_not(driver: Driver) {
    let draw = Draw::new();
    let endpoint = Endpoint::new(draw);
    let proxy = Setup::new(driver)
        .service("a", &[endpoint.address()], "")
        .start();
    let address = proxy.address();
    let heard = &*endpoint.heard;
    let totals: Vec<Counts> = thread::scope(|scope| {
        let clients = (0..THREADS).map(|thread| {
            scope.spawn(move || {
                let mut counts = Counts::default();
                for id in (0..draw.messages).filter(|id| id % THREADS == thread) {
                    Case::new(draw, id).ask(draw, address, heard, &mut counts);
                    ask_next(draw, id, address);
                }
                counts
            })
        });
        let clients: Vec<_> = clients.collect();
        let counts = clients
            .into_iter()
            .map(|client| client.join().expect("it ends"));
        counts.collect()
    });
    let sum = |of: fn(&Counts) -> u32| totals.iter().map(of).sum::<u32>();
    let (whole, own, broken) = (sum(|c| c.whole), sum(|c| c.own), sum(|c| c.broken));
    let report = proxy.report();
    let service = &report.services["a"];
    assert_eq!(
        service.exchanges,
        2 * u64::from(draw.messages),
        "{draw:?}: {report:#?}"
    );
    assert_eq!(service.own_answers, u64::from(own), "{draw:?}: {report:#?}");
    let forwarded = u64::from(draw.messages + whole + broken);
    assert_eq!(service.forwarded, forwarded, "{draw:?}: {report:#?}");
    let share = draw.messages / 10;
    let decent = share < whole && share < own && draw.messages / 40 < broken;
    assert!(
        decent,
        "{draw:?}: {whole} whole, {own} own, {broken} broken"
    );
    let reused = endpoint.uses.again.load(Ordering::Relaxed);
    let spoilt = endpoint.uses.spoilt.load(Ordering::Relaxed);
    assert_eq!(
        spoilt, 0,
        "{draw:?}: requests on connections that are out of step"
    );
    assert!(
        share < reused as u32,
        "{draw:?}: {reused} on a connection of another"
    );
}

/// Asks for something else, and gets that.
#[track_caller]
fn ask_next(draw: Draw, id: u32, proxy: SocketAddr) {
    let mut stream = connect_from(Ipv4Addr::LOCALHOST, proxy);
    let request = format!("GET /next-{id} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .expect("ringmain reads");
    let mut bytes = Vec::new();
    until_end(&mut stream, &mut bytes);
    let answers = Reading::of(&bytes, &strict::read, |_| Kind::Response { to_head: false });
    let target = format!("/next-{id}");
    let own = |answer: &Message| answer.field("x-for") == Some(target.as_bytes());
    let right = answers.rest.is_none() && answers.messages.len() == 1 && own(&answers.messages[0]);
    assert!(right, "{draw:?}: behind {id}: {answers:?}");
}

impl Case {
    fn new(draw: Draw, id: u32) -> Self {
        let generator = &mut draw.case(id);
        let method = *one(generator, &[&"GET", &"GET", &"GET", &"POST", &"HEAD"]);
        let version = *one(
            generator,
            &[&"HTTP/1.1", &"HTTP/1.1", &"HTTP/1.1", &"HTTP/1.0"],
        );
        let poison =
            format!("HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-For: /poison-{id}\r\n\r\npoison");
        let (head, mut body) = template(generator, id, &poison, method == "HEAD");
        let mut bytes = head.clone();
        let trouble = generator.random_range(0..10);
        if trouble < 4 {
            for _ in 0..count(generator) {
                mutate(generator, &mut body, poison.as_bytes());
            }
        }
        bytes.append(&mut body);
        if 4 <= trouble {
            for _ in 0..count(generator) {
                mutate(generator, &mut bytes, poison.as_bytes());
            }
        }
        match trouble {
            0 => bytes.truncate(generator.random_range(1..bytes.len())),
            // Nothing behind it, so that its connection may be used again.
            1 | 4 => {}
            _ => bytes.extend_from_slice(poison.as_bytes()),
        }
        let kind = Kind::Response {
            to_head: method == "HEAD",
        };
        let (answer, end) = answer_of(kind, &bytes);
        let length = bytes.len();
        let mut cuts = cuts(generator, bytes.len());
        cuts.retain(|cut| *cut < end || *cut == bytes.len());
        let pause = generator.random_range(head.len().min(end - 1)..end);
        let in_body = matches!(answer_of(kind, &bytes[..pause]).0, Read::Partial(Some(_)));
        let pause = (in_body && generator.random_range(0..3) != 0).then_some(pause);
        cuts.extend(pause);
        cuts.sort_unstable();
        Self {
            id,
            method,
            version,
            bytes,
            cuts,
            pause,
            answer,
            spoils: end < length,
        }
    }

    /// Asks, and holds that what comes is what the endpoint has answered, or does not look whole.
    #[track_caller]
    fn ask(&self, draw: Draw, proxy: SocketAddr, heard: &Heard, counts: &mut Counts) {
        let Self {
            id,
            method,
            version,
            ..
        } = self;
        let mut stream = connect_from(Ipv4Addr::LOCALHOST, proxy);
        let length = if *method == "POST" {
            "Content-Length: 0\r\n"
        } else {
            ""
        };
        let request = format!(
            "{method} /m-{id} {version}\r\nHost: a.test\r\nConnection: close\r\n{length}\r\n"
        );
        stream
            .write_all(request.as_bytes())
            .expect("ringmain reads");
        let mut told = Told {
            bytes: Vec::new(),
            reset: false,
        };
        let mut first = [0; 1024];
        // An end or an error comes once more.
        let count = stream.read(&mut first).unwrap_or_default();
        told.bytes.extend_from_slice(&first[..count]);
        heard.by(self.id).store(self.id, Ordering::Relaxed);
        told.reset = until_end(&mut stream, &mut told.bytes);
        self.check(draw, &told, counts);
    }

    #[track_caller]
    fn check(&self, draw: Draw, told: &Told, counts: &mut Counts) {
        let context = || {
            format!(
                "{draw:?} {} {} /m-{}\nanswered {}\nthat is  {:?}\ntold     {} (reset: {})",
                self.method,
                self.version,
                self.id,
                self.bytes.escape_ascii(),
                self.answer,
                told.bytes.escape_ascii(),
                told.reset
            )
        };
        let kind = |_| Kind::Response {
            to_head: self.method == "HEAD",
        };
        if !told.reset {
            let mut generator = draw.case(self.id);
            let drawn = [(); 2].map(|()| Profile::drawn(&mut generator));
            all_agree(&told.bytes, kind, &drawn, draw);
        }
        let reading = Reading::of(&told.bytes, &strict::read, kind);
        assert!(
            reading.messages.len() <= 1,
            "more than one answer\n{}",
            context()
        );
        // A reset takes from the close that it is an end.
        let whole = |answer: &&Message| answer.whole && !(answer.until_close && told.reset);
        let Some(told) = reading.messages.first().filter(whole) else {
            let answered = matches!(self.answer, Read::Whole(..));
            assert!(!answered, "the answer was cut\n{}", context());
            counts.broken += 1;
            return;
        };
        assert_eq!(reading.rest, None, "bytes behind the answer\n{}", context());
        if told
            .field("proxy-status")
            .is_some_and(|status| status.starts_with(b"ringmain"))
        {
            assert_eq!(told.status(), 502, "{}", context());
            counts.own += 1;
            return;
        }
        let given = match &self.answer {
            Read::Whole(given, _) => Some(given),
            Read::Partial(Some(given)) if given.until_close => Some(given),
            _ => None,
        };
        let same = given
            .is_some_and(|given| told.start[1..] == given.start[1..] && told.body == given.body);
        assert!(same, "another answer\n{}", context());
        counts.whole += 1;
    }
}

/// The answer that stands first in `bytes`, interim ones left out, and where it ends.
fn answer_of(kind: Kind, bytes: &[u8]) -> (Read, usize) {
    let mut at = 0;
    loop {
        match strict::read(kind, &bytes[at..]) {
            Read::Whole(message, length) if message.status() < 200 => at += length,
            Read::Whole(message, length) => return (Read::Whole(message, length), at + length),
            other => return (other, bytes.len()),
        }
    }
}

/// The head and the body of a valid answer to `/m-ID`.
fn template(generator: &mut impl Rng, id: u32, poison: &str, to_head: bool) -> (Vec<u8>, Vec<u8>) {
    let content = match generator.random_range(0..3) {
        0 => poison.to_owned(),
        1 => format!("0\r\n\r\n{poison}"),
        _ => format!("hello {id}"),
    };
    let head = |status: &str, fields: &str| {
        format!("HTTP/1.1 {status}\r\nX-For: /m-{id}\r\nServer: test\r\n{fields}\r\n")
    };
    let length = format!("Content-Length: {}\r\n", content.len());
    let coding = "Transfer-Encoding: chunked\r\n";
    let (head, body) = match generator.random_range(0..10) {
        0..3 => (head("200 OK", &length), content),
        3..6 => (head("200 OK", coding), chunked(generator, &content)),
        6 => (head("200 OK", "Content-Type: text/plain\r\n"), content),
        7 => (
            head(one(generator, &["204 No Content", "304 Not Modified"]), ""),
            String::new(),
        ),
        8 => {
            let interim = one(
                generator,
                &["103 Early Hints\r\nLink: </a>", "102 Processing"],
            );
            let interim = format!("HTTP/1.1 {interim}\r\n\r\n");
            (interim + &head("404 Not Found", &length), content)
        }
        _ => {
            let fields = format!("Connection: keep-alive, X-Gone\r\nX-Gone: 1\r\n{length}");
            (head("500 Oh no", &fields), content)
        }
    };
    let body = if to_head { String::new() } else { body };
    (head.into_bytes(), body.into_bytes())
}

/// An endpoint that answers as the cases have it.
struct Endpoint {
    listener: TcpListener,
    heard: Arc<Heard>,
    uses: Arc<Uses>,
}

/// Requests on a connection that has had another one.
#[derive(Default)]
struct Uses {
    again: AtomicUsize,
    /// Bytes that nobody asked for followed the answer to that.
    spoilt: AtomicUsize,
}

impl Endpoint {
    fn new(draw: Draw) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let accepting = listener.try_clone().expect("a descriptor is free");
        let uses = Arc::new(Uses::default());
        let counting = Arc::clone(&uses);
        let heard = Arc::new(Heard::default());
        let hearing = Arc::clone(&heard);
        thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                let (uses, heard) = (Arc::clone(&counting), Arc::clone(&hearing));
                thread::spawn(move || serve(stream, draw, &uses, &heard));
            }
        });
        Self {
            listener,
            heard,
            uses,
        }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("the socket is bound")
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // On Linux this ends the accept that its thread waits in.
        let _ = socket2::SockRef::from(&self.listener).shutdown(Shutdown::Both);
    }
}

fn serve(mut stream: TcpStream, draw: Draw, uses: &Uses, heard: &Heard) {
    stream.set_nodelay(true).expect("the socket is open");
    stream
        .set_read_timeout(Some(3 * DEADLINE))
        .expect("it is not zero");
    let (mut bytes, mut part, mut last) = (Vec::new(), [0; 4096], None);
    loop {
        while let Read::Whole(request, length) = strict::read(Kind::Request, &bytes) {
            bytes.drain(..length);
            let again = usize::from(last.is_some());
            let spoilt = usize::from(last == Some(End::Spoilt));
            uses.again.fetch_add(again, Ordering::Relaxed);
            uses.spoilt.fetch_add(spoilt, Ordering::Relaxed);
            let end = answer(&mut stream, draw, &request, heard);
            if end == End::Close {
                return;
            }
            last = Some(end);
        }
        stream
            .set_read_timeout(Some(3 * DEADLINE))
            .expect("it is not zero");
        match stream.read(&mut part) {
            Ok(count @ 1..) => bytes.extend_from_slice(&part[..count]),
            _ => return,
        }
    }
}

/// Waits until the client was told something, or ringmain has closed.
fn wait(stream: &mut TcpStream, id: u32, heard: &Heard) {
    let pause = Some(Duration::from_millis(1));
    stream.set_read_timeout(pause).expect("it is not zero");
    while heard.by(id).load(Ordering::Relaxed) != id {
        let waits = |error: std::io::Error| error.kind() == ErrorKind::WouldBlock;
        if !stream.read(&mut [0]).is_err_and(waits) {
            return;
        }
    }
}

/// How an answer leaves its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Clean,
    /// More has followed.
    Spoilt,
    /// Only the end of the connection ends it.
    Close,
}

/// Answers as the target asks for.
fn answer(stream: &mut TcpStream, draw: Draw, request: &Message, heard: &Heard) -> End {
    let target = String::from_utf8_lossy(&request.start[1]).into_owned();
    let id = target.strip_prefix("/m-").and_then(|id| id.parse().ok());
    let Some(id) = id else {
        let answer = format!("HTTP/1.1 200 OK\r\nX-For: {target}\r\nContent-Length: 4\r\n\r\nnext");
        let sent = stream.write_all(answer.as_bytes());
        return if sent.is_ok() { End::Clean } else { End::Close };
    };
    let case = Case::new(draw, id);
    let mut sent = 0;
    for cut in case.cuts {
        // ringmain may have closed by now.
        let _ = stream.write_all(&case.bytes[sent..cut]);
        sent = cut;
        if case.pause == Some(cut) {
            wait(stream, id, heard);
        }
    }
    match case.answer {
        Read::Whole(..) if case.spoils => End::Spoilt,
        Read::Whole(..) => End::Clean,
        _ => End::Close,
    }
}
