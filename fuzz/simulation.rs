//! One exchange without sockets: a client and endpoints by script, drops, delays and virtual time.
//!
//! A script is made of bytes, whatever they are, so that a fuzzer can write it and a seed can. The
//! driver relays as a shard does, in the smallest steps: what it knows of heads, framing and the
//! joint state of both sides is ringmain's, the rest is here. It ends with what each side has got,
//! and [`run`] holds that against what was sent.

use std::collections::VecDeque;

use ringmain::fault::Fault;
use ringmain::http::exchange::{
    Broken, Progress, Reach, RequestFacts, Rest, relays_interim, unchunk,
};
use ringmain::http::framing::{Body, BodyLength, BodyLimits, Passed};
use ringmain::http::head::{FieldSpace, HeadLimits, HeadScan, Request, Response};
use ringmain::http::hop::{
    ClientConnection, FieldEdits, HttpDate, RequestHop, ResponseHop, write_request, write_response,
};
use ringmain::http::reply::{Reply, write_reply};

/// Virtual time.
type Ticks = u32;

const HEAD: Ticks = 50;
const BODY_IDLE: Ticks = 30;
const RESPONSE: Ticks = 40;
const RECEIVE_IDLE: Ticks = 30;
const SEND_IDLE: Ticks = 30;
const CONTINUE: Ticks = 10;
const LINGER: Ticks = 20;
const LINGER_MAX: Ticks = 300;
/// No script is this long.
const FOREVER: Ticks = 100_000;

const ATTEMPTS_MAX: u32 = 2;

/// What the clock says all the time.
const DATE: &HttpDate = b"Sun, 06 Nov 1994 08:49:37 GMT";

const LIMITS: HeadLimits = HeadLimits {
    bytes_max: 4096,
    fields_max: 40,
};

const BODY_LIMITS: BodyLimits = BodyLimits {
    bytes_max: u64::MAX,
    trailer_bytes_max: 256,
};

/// What follows the request on the client's connection.
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

/// What happened in one run, so that a test can hold that everything does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The request was not understood or not whole; no endpoint was asked.
    Refused,
    /// The answer was delivered; the client's connection goes on or not.
    Delivered { kept: bool, tries: u32 },
    /// The exchange failed.
    Broken { fault: Fault, reach: Reach },
}

/// Numbers out of bytes; zeros when they have run out.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn below(&mut self, bound: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        usize::from(*first) % bound
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// What arrives of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Bytes(Vec<u8>),
    Fin,
    Reset,
}

/// How a peer takes what is sent to it.
#[derive(Clone, Copy, Debug)]
struct Appetite {
    /// It takes so many bytes,
    bytes: usize,
    /// and then it has gone, or just takes no more.
    resets: bool,
}

/// The client by script.
struct Client {
    /// With the times of their arrival.
    arrivals: VecDeque<(Ticks, Event)>,
    appetite: Appetite,
    told: Vec<u8>,
    /// It was told by a FIN, or by a RST, that there is no more.
    ended: bool,
    reset: bool,
}

/// What one endpoint does with one connection.
struct EndpointScript {
    refuses: bool,
    /// Has carried an exchange before.
    reused: bool,
    /// Each arrives so long after so many bytes were taken and the one before has arrived.
    says: VecDeque<(usize, Ticks, Event)>,
    appetite: Appetite,
    /// The final answer, where all of it is said: its content.
    whole: Option<Vec<u8>>,
}

/// A connection to an endpoint.
struct Endpoint {
    script: EndpointScript,
    got: Vec<u8>,
    /// When the last event came, or its bytes were taken.
    since: Ticks,
    /// We have cut it, for this.
    cut: Option<Fault>,
}

/// A write's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    All,
    /// So many bytes, and no more for now.
    Stuck(usize),
    Failed,
}

impl Client {
    /// What has arrived by `now`.
    fn take(&mut self, now: Ticks) -> Option<Event> {
        let (at, event) = self.arrivals.front()?;
        if now < *at {
            return None;
        }
        match event {
            Event::Bytes(_) => self.arrivals.pop_front().map(|(_, event)| event),
            end => Some(end.clone()),
        }
    }

    fn has_reset(&self, now: Ticks) -> bool {
        matches!(self.arrivals.front(), Some((at, Event::Reset)) if *at <= now)
    }

    fn tell(&mut self, now: Ticks, bytes: &[u8]) -> Sent {
        if self.has_reset(now) {
            return Sent::Failed;
        }
        let room = self.appetite.bytes - self.told.len().min(self.appetite.bytes);
        let taken = room.min(bytes.len());
        self.told.extend_from_slice(&bytes[..taken]);
        match taken == bytes.len() {
            true => Sent::All,
            false if self.appetite.resets => Sent::Failed,
            false => Sent::Stuck(taken),
        }
    }
}

impl Endpoint {
    fn is_due(&self, now: Ticks) -> bool {
        let next = self.script.says.front();
        self.cut.is_some()
            || next.is_some_and(|(behind, after, _)| {
                *behind <= self.got.len() && self.since + after <= now
            })
    }

    /// When something comes, as far as that is known.
    fn next(&self) -> Option<Ticks> {
        let (behind, after, _) = self.script.says.front()?;
        (*behind <= self.got.len()).then(|| self.since + after)
    }

    fn take(&mut self, now: Ticks) -> Option<Event> {
        if self.cut.is_some() {
            return Some(Event::Fin);
        }
        if !self.is_due(now) {
            return None;
        }
        self.since = now;
        match self.script.says.front().map(|(_, _, event)| event) {
            Some(Event::Bytes(_)) => self.script.says.pop_front().map(|(_, _, event)| event),
            end => end.cloned(),
        }
    }

    fn send(&mut self, now: Ticks, bytes: &[u8]) -> Sent {
        if self.cut.is_some() {
            return Sent::Failed;
        }
        let room = self.script.appetite.bytes - self.got.len().min(self.script.appetite.bytes);
        let taken = room.min(bytes.len());
        if 0 < taken {
            self.since = now;
        }
        self.got.extend_from_slice(&bytes[..taken]);
        match taken == bytes.len() {
            true => Sent::All,
            false if self.script.appetite.resets => {
                // What it has said before is still read; more it will not say.
                let got = self.got.len();
                self.script.says.retain(|(behind, _, _)| *behind <= got);
                self.script.says.push_back((0, 0, Event::Reset));
                Sent::Failed
            }
            false => Sent::Stuck(taken),
        }
    }
}

/// The request as it goes to endpoints.
struct Order {
    facts: RequestFacts,
    /// The rewritten head, and what is kept of the body.
    outbox: Vec<u8>,
    body: Body,
    /// All that has come of the request stands in the outbox.
    kept: bool,
    keep_max: usize,
    told: bool,
    /// The length of the rewritten head.
    head: usize,
}

/// The way up.
struct Up {
    /// What waits to be taken by the endpoint, and until when.
    stuck: Option<(Vec<u8>, Ticks)>,
    /// How long the client may say nothing, and whether it is only read away.
    until: Ticks,
    lingers: bool,
    lingering_since: Option<Ticks>,
    reading: bool,
    unframed: bool,
    called_off: bool,
    over: bool,
}

/// The way down.
struct Down {
    inbox: Vec<u8>,
    stuck: Option<(Vec<u8>, Ticks)>,
    until: Option<Ticks>,
    answer: Option<Answer>,
    /// The answer began while the client waited to be told to go on.
    withheld: bool,
    ended: Option<Result<bool, Fault>>,
}

/// A response head that went out.
struct Answer {
    body: Body,
    unchunked: bool,
    keep_alive: bool,
    until_close: bool,
    connection: ClientConnection,
}

/// Everything in one run.
struct World {
    now: Ticks,
    client: Client,
    /// What came of the client and is not taken yet.
    inbox: Vec<u8>,
    own_answers: u32,
    edits: FieldEdits,
}

/// Runs the script that `bytes` are, and holds what must hold for any.
pub(crate) fn run(bytes: &[u8]) -> Outcome {
    let mut choices = Choices(bytes);
    let (request, content) = request(&mut choices);
    let client = client(&mut choices, &request);
    let mut world = World {
        now: 0,
        client,
        inbox: Vec::new(),
        own_answers: 0,
        edits: FieldEdits::default(),
    };
    let Some(mut order) = world.receive_order(&mut choices) else {
        return Outcome::Refused;
    };
    let mut tries = Vec::new();
    let ended = world.forward(&mut choices, &mut order, &mut tries);
    world.check_endpoints(&order, &content, &tries);
    let outcome = match ended {
        Ok(kept) => Outcome::Delivered {
            kept,
            tries: tries.len() as u32,
        },
        Err(Broken { fault, reach }) => {
            world.settle(&order, fault, reach);
            Outcome::Broken { fault, reach }
        }
    };
    world.check_client(&order, &tries, outcome);
    outcome
}

/// What a client sends, the next request behind it, and the content of its body.
fn request(choices: &mut Choices<'_>) -> (Vec<u8>, Vec<u8>) {
    let method = choices.one(&["GET", "POST", "PUT", "HEAD"]);
    let minor = choices.one(&["1", "1", "1", "0"]);
    let mut head = format!("{method} /a HTTP/1.{minor}\r\nHost: a\r\n");
    head += choices.one(&[
        "",
        "",
        "Connection: close\r\n",
        "Connection: keep-alive\r\n",
    ]);
    if choices.below(3) == 0 {
        head += "Expect: 100-continue\r\n";
    }
    let content: Vec<u8> = (0..choices.below(200))
        .map(|at| b'a' + (at % 23) as u8)
        .collect();
    let framing = choices.below(4);
    let (head, body) = match framing {
        0 => (head, Vec::new()),
        1 if minor == "1" => {
            let head = head + "Transfer-Encoding: chunked\r\n";
            (head, chunks(choices, &content))
        }
        _ => {
            let head = head + &format!("Content-Length: {}\r\n", content.len());
            (head, content.clone())
        }
    };
    let content = if framing == 0 { Vec::new() } else { content };
    let mut bytes = [head.as_bytes(), b"\r\n", &body].concat();
    match choices.below(8) {
        // A byte that may break the framing.
        0 => {
            let at = head.len() + 2 + choices.below(body.len().max(1));
            if let Some(byte) = bytes.get_mut(at) {
                *byte = b'!';
            }
        }
        1 => bytes.truncate(head.len() + 2 + choices.below(body.len() + 1)),
        _ => bytes.extend_from_slice(NEXT),
    }
    (bytes, content)
}

fn chunks(choices: &mut Choices<'_>, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = content;
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at(1 + choices.below(rest.len()));
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
        rest = behind;
    }
    bytes.extend_from_slice(
        choices.one::<&[u8]>(&[b"0\r\n\r\n", b"0\r\nX-Sum: 1\r\nHost: b\r\n\r\n"]),
    );
    bytes
}

fn client(choices: &mut Choices<'_>, request: &[u8]) -> Client {
    let mut arrivals = VecDeque::new();
    let mut at = 0;
    // The head comes for itself, as that of a client that waits to be told to go on, or not.
    let end = request.windows(4).position(|window| window == b"\r\n\r\n");
    let head = match end {
        Some(end) if choices.below(2) == 0 => end + 4,
        _ => 0,
    };
    let mut parts = vec![request[..head].to_vec()];
    parts.extend(pieces(choices, &request[head..]));
    for piece in parts.into_iter().filter(|piece| !piece.is_empty()) {
        at += delay(choices);
        arrivals.push_back((at, Event::Bytes(piece)));
    }
    at += delay(choices);
    match choices.below(6) {
        0 => arrivals.push_back((at, Event::Fin)),
        1 => arrivals.push_back((at, Event::Reset)),
        _ => {}
    }
    Client {
        arrivals,
        appetite: appetite(choices),
        told: Vec::new(),
        ended: false,
        reset: false,
    }
}

fn endpoint(choices: &mut Choices<'_>, to_head: bool) -> EndpointScript {
    let content: Vec<u8> = (0..choices.below(200))
        .map(|at| b'A' + (at % 23) as u8)
        .collect();
    let mut bytes = Vec::new();
    for _ in 0..choices.one(&[0, 0, 0, 1, 2]) {
        bytes.extend_from_slice(choices.one::<&[u8]>(&[
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
        ]));
    }
    let framing = choices.below(5);
    let (fields, body) = match framing {
        0 => (
            "Transfer-Encoding: chunked\r\n".to_owned(),
            chunks(choices, &content),
        ),
        1 => (String::new(), content.clone()),
        _ => (
            format!("Content-Length: {}\r\n", content.len()),
            content.clone(),
        ),
    };
    let status = choices.one(&["200 OK", "200 OK", "404 No", "204 None", "304 Same"]);
    let bodiless = to_head || status.starts_with("204") || status.starts_with("304");
    let body = if bodiless { Vec::new() } else { body };
    bytes.extend_from_slice(format!("HTTP/1.1 {status}\r\n{fields}\r\n").as_bytes());
    let head = bytes.len();
    bytes.extend_from_slice(&body);
    // Only the close ends it, where it is not cut.
    let closes = framing == 1 && !bodiless;
    let mut whole = true;
    match choices.below(8) {
        0 => {
            bytes.truncate(choices.below(bytes.len()));
            whole = closes && head <= bytes.len();
        }
        1 => {
            // In the head, or the first size of a chunk.
            let chunked = framing == 0 && !bodiless;
            bytes[choices.below(head + usize::from(chunked))] = b'\0';
            whole = false;
        }
        2 => bytes.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"),
        _ => {}
    }
    let content = match closes {
        true => bytes.get(head..).unwrap_or_default().to_vec(),
        false if bodiless => Vec::new(),
        false => content,
    };
    let behind = choices.one(&[0, 1, 1, 60, 100, 150, 250, 400]);
    let mut says: VecDeque<_> = pieces(choices, &bytes)
        .into_iter()
        .map(|piece| (behind, delay(choices), Event::Bytes(piece)))
        .collect();
    let end = match choices.below(6) {
        0 => Some(Event::Reset),
        1 => Some(Event::Fin),
        _ => closes.then_some(Event::Fin),
    };
    whole &= !closes || end == Some(Event::Fin);
    says.extend(end.map(|end| (behind, delay(choices), end)));
    EndpointScript {
        refuses: choices.below(8) == 0,
        reused: choices.below(2) == 0,
        says,
        appetite: appetite(choices),
        whole: whole.then_some(content),
    }
}

fn appetite(choices: &mut Choices<'_>) -> Appetite {
    let few = choices.below(6) == 0;
    Appetite {
        bytes: if few { choices.below(256) } else { usize::MAX },
        resets: choices.below(2) == 0,
    }
}

fn delay(choices: &mut Choices<'_>) -> Ticks {
    choices.one(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 5, 9, 19, 35])
}

fn pieces(choices: &mut Choices<'_>, bytes: &[u8]) -> Vec<Vec<u8>> {
    let size = choices.one(&[1, 7, 50, 1000]);
    bytes.chunks(size).map(<[u8]>::to_vec).collect()
}

impl World {
    /// Reads the request's head and what is here of its body; `None` when it is refused.
    fn receive_order(&mut self, choices: &mut Choices<'_>) -> Option<Order> {
        let mut scan = HeadScan::request();
        let length = loop {
            match scan.find_end(&self.inbox, &LIMITS) {
                Ok(Some(length)) => break length,
                Ok(None) => {}
                Err(_) => return None,
            }
            match self.client.take(self.now) {
                Some(Event::Bytes(bytes)) => self.inbox.extend(bytes),
                Some(Event::Fin | Event::Reset) => return None,
                None => {
                    let next = self.client.arrivals.front().map_or(FOREVER, |(at, _)| *at);
                    if HEAD < next {
                        return None;
                    }
                    self.now = next;
                }
            }
        };
        let mut space = FieldSpace::new();
        let request = Request::parse(&self.inbox[..length], &LIMITS, &mut space).ok()?;
        let mut body = Body::new(request.body, BODY_LIMITS).ok()?;
        let passed = body.pass(&self.inbox[length..]).ok()?;
        let hop = RequestHop {
            client: "192.0.2.1",
            via: "simulated",
            request_id: 1,
            edits: &self.edits,
            repeated: None,
        };
        let mut outbox = Vec::new();
        write_request(&mut outbox, &request, &hop);
        let (head, facts) = (outbox.len(), request.facts());
        self.inbox.drain(..length);
        let mut order = Order {
            facts,
            outbox,
            body,
            kept: true,
            keep_max: choices.one(&[1 << 20, 0, 40]),
            told: false,
            head,
        };
        let here = order.part(self, passed);
        order.outbox.extend(here);
        Some(order)
    }

    /// Tries endpoints until one has answered or no other may be asked. `Ok` says whether the
    /// client's connection goes on.
    fn forward(
        &mut self,
        choices: &mut Choices<'_>,
        order: &mut Order,
        tries: &mut Vec<Endpoint>,
    ) -> Result<bool, Broken> {
        let (mut left, mut replayed) = (ATTEMPTS_MAX, false);
        loop {
            let facts = order.facts;
            let script = endpoint(choices, facts.head_method);
            let mut endpoint = Endpoint {
                script,
                got: Vec::new(),
                since: self.now,
                cut: None,
            };
            if endpoint.script.refuses {
                if left == 0 {
                    return Err(Fault::ConnectionRefused.into());
                }
                left -= 1;
                continue;
            }
            let whole = order.kept && order.body.is_done();
            let withheld = facts.expects_continue && order.outbox.len() == order.head;
            let progress = Progress::new(&facts, whole, !whole && withheld && order.kept);
            let reused = endpoint.script.reused;
            let replays = |broken: &Broken| {
                let safe = broken.reach == Reach::Nothing && facts.idempotent;
                let lost = broken.fault == Fault::ConnectionTerminated;
                let stale = (lost || broken.fault == Fault::ResponseInvalid) && reused && !replayed;
                safe && (stale || lost && 0 < left)
            };
            let ended = self.relay(order, &mut endpoint, &progress, &replays);
            tries.push(endpoint);
            match ended {
                Ok(kept) => return Ok(kept),
                Err(broken) if order.kept && replays(&broken) => {
                    assert_eq!(broken.reach, Reach::Nothing, "an answer had begun");
                    assert!(facts.idempotent, "it is sent twice");
                    if reused && !replayed {
                        replayed = true;
                    } else {
                        left -= 1;
                    }
                }
                Err(broken) => return Err(broken),
            }
        }
    }

    /// One try, both ways at once.
    fn relay(
        &mut self,
        order: &mut Order,
        endpoint: &mut Endpoint,
        progress: &Progress,
        replays: &dyn Fn(&Broken) -> bool,
    ) -> Result<bool, Broken> {
        let one_way = progress.is_sent();
        if order.told {
            progress.continue_said();
        }
        if !order.kept {
            progress.request_not_kept();
        }
        let mut up = Up {
            stuck: None,
            until: FOREVER,
            lingers: false,
            lingering_since: None,
            reading: false,
            unframed: false,
            called_off: false,
            over: false,
        };
        let mut down = Down {
            inbox: Vec::new(),
            stuck: None,
            until: None,
            answer: None,
            withheld: false,
            ended: None,
        };
        let says_continue = self.now + CONTINUE;
        let mut sealed = false;
        up.send(self, endpoint, progress, order.outbox.clone());
        loop {
            let mut moved = !up.over && up.step(self, order, endpoint, progress);
            if up.over && progress.is_sent() && !progress.is_answered() && down.until.is_none() {
                down.until = Some(self.now + RESPONSE);
            }
            if down.ended.is_none() && (!one_way || up.over) {
                moved |= down.step(self, order, endpoint, progress);
                if let Some(ended) = down.ended {
                    self.conclude(
                        ended,
                        order,
                        endpoint,
                        progress,
                        &mut up,
                        (one_way, replays),
                    );
                    let silent = endpoint.got.len() == order.head;
                    sealed = ended.is_ok() && down.withheld && silent;
                }
            }
            if let (true, Some(ended)) = (up.over, down.ended) {
                order.told = progress.has_said_continue();
                // What came behind the answer may be the next request.
                assert!(
                    !sealed || endpoint.got.len() == order.head,
                    "it was sent on"
                );
                return self.end(ended, order, endpoint, progress, &down);
            }
            // A client that resets while nobody reads from it is found out by a look.
            if !up.reading
                && down.awaits_endpoint()
                && endpoint.cut.is_none()
                && self.client.has_reset(self.now)
            {
                endpoint.cut = Some(Fault::ClientGone);
                moved = true;
            }
            if progress.is_withheld() && says_continue <= self.now && down.stuck.is_none() {
                self.client.tell(self.now, b"HTTP/1.1 100 Continue\r\n\r\n");
                progress.continue_said();
                moved = true;
            }
            if !moved {
                let mut times = vec![self.client.arrivals.front().map(|(at, _)| *at)];
                times.push(endpoint.next());
                times.push(up.stuck.as_ref().map(|(_, until)| *until));
                times.push((up.reading && !up.over).then_some(up.until));
                times.push(down.stuck.as_ref().map(|(_, until)| *until));
                times.push(down.until.filter(|_| down.ended.is_none()));
                times.push(progress.is_withheld().then_some(says_continue));
                let next = times
                    .into_iter()
                    .flatten()
                    .filter(|at| self.now < *at)
                    .min();
                self.now = next
                    .filter(|at| *at < FOREVER)
                    .expect("somebody is awaited");
            }
        }
    }

    /// What the end of the way down means for the other way, as in a shard.
    fn conclude(
        &mut self,
        ended: Result<bool, Fault>,
        order: &Order,
        endpoint: &mut Endpoint,
        progress: &Progress,
        up: &mut Up,
        (one_way, replays): (bool, &dyn Fn(&Broken) -> bool),
    ) {
        if one_way {
            return;
        }
        match ended {
            Ok(_) => progress.answer_ends(),
            Err(fault) => {
                let broken = progress.broken(fault);
                if progress.is_kept() && replays(&broken) {
                    progress.answer_lost();
                    endpoint.cut.get_or_insert(fault);
                    up.called_off = true;
                    return;
                }
                let mut reach = broken.reach;
                let nothing = matches!(reach, Reach::Nothing | Reach::Begun);
                if nothing && !broken.fault.is_unanswerable() {
                    self.answer(order, broken.fault, true);
                    reach = Reach::OwnAnswer;
                }
                progress.answer_fails(reach);
                endpoint.cut.get_or_insert(fault);
                if reach == Reach::Unmarked {
                    // Its reading side is cut, so that a pending read ends.
                    up.over = true;
                } else if !progress.is_sent() {
                    self.client.ended = true;
                    (up.until, up.lingers) = (self.now + LINGER, true);
                }
            }
        }
    }

    /// What the try was, when both ways are over.
    fn end(
        &mut self,
        ended: Result<bool, Fault>,
        order: &Order,
        endpoint: &Endpoint,
        progress: &Progress,
        down: &Down,
    ) -> Result<bool, Broken> {
        let clean = ended.map_err(|fault| progress.broken(fault))?;
        let answer = down.answer.as_ref().expect("it was delivered");
        let in_step = clean && answer.keep_alive && !answer.until_close;
        if in_step && progress.endpoint_in_step() {
            assert!(
                order.body.is_done(),
                "the rest of a body would be a request"
            );
            assert_eq!(endpoint.cut, None, "it was cut, and is used again");
        }
        let kept = answer.connection == ClientConnection::KeepAlive && order.body.is_done();
        self.client.ended |= !kept;
        Ok(kept)
    }

    /// Answers as ringmain itself.
    fn answer(&mut self, order: &Order, fault: Fault, close: bool) {
        let reply = Reply {
            close,
            ..Reply::to(&order.facts)
        };
        let mut out = Vec::new();
        write_reply(&mut out, fault, &reply, DATE);
        self.own_answers += 1;
        self.client.tell(self.now, &out);
    }

    /// Ends an exchange that failed, as a shard does.
    fn settle(&mut self, order: &Order, fault: Fault, reach: Reach) {
        match reach {
            Reach::Unmarked => self.client.reset = true,
            Reach::Part | Reach::OwnAnswer => self.client.ended = true,
            Reach::Nothing | Reach::Begun if fault.is_unanswerable() => self.client.ended = true,
            Reach::Nothing | Reach::Begun => {
                let close = !order.body.is_done() || !order.facts.keep_alive;
                self.answer(order, fault, close);
                self.client.ended |= close;
            }
        }
    }

    /// Each endpoint has the request, or its begin, as the client framed it.
    fn check_endpoints(&self, order: &Order, content: &[u8], tries: &[Endpoint]) {
        for endpoint in tries {
            let got = &endpoint.got;
            let head = &order.outbox[..order.head];
            if got.len() < head.len() {
                assert!(head.starts_with(got), "another head");
                continue;
            }
            let (first, rest) = got.split_at(head.len());
            assert_eq!(first, head);
            let mut body = Body::new(order.facts.body, BODY_LIMITS).expect("it was framed before");
            let mut rest = rest.to_vec();
            let read = body
                .unchunk(&mut rest)
                .expect("only what is framed goes on");
            assert_eq!(read.taken, rest.len(), "more than the request");
            let same = content.iter().zip(&rest[..read.data]);
            let alike = same.filter(|(one, other)| one == other).count();
            // One byte of it may have been changed on the client's side.
            assert!(
                read.data <= content.len() && read.data <= alike + 1,
                "another content"
            );
        }
    }

    /// The client has at most one answer, and one that looks whole is.
    fn check_client(&self, order: &Order, tries: &[Endpoint], outcome: Outcome) {
        assert!(self.own_answers <= 1, "two answers of our own");
        let told = &self.client.told;
        let mut at = 0;
        let found = loop {
            let mut scan = HeadScan::response();
            let Ok(Some(length)) = scan.find_end(&told[at..], &LIMITS) else {
                break None;
            };
            let mut space = FieldSpace::new();
            let head = &told[at..at + length];
            let response =
                Response::parse(head, &LIMITS, &mut space, order.facts.head_method, None);
            let response = response.expect("what we write, we take");
            at += length;
            if !response.interim {
                let own = response
                    .fields
                    .iter()
                    .any(|field| field.name == "Proxy-Status");
                break Some((response.body, own));
            }
            assert_eq!(order.facts.minor, 1, "an interim response in HTTP/1.0");
        };
        let whole = found.and_then(|(length, own)| {
            let mut body = Body::new(length, BODY_LIMITS).expect("no limit");
            let mut rest = told[at..].to_vec();
            let read = body.unchunk(&mut rest).expect("what we pass, we frame");
            assert_eq!(read.taken, rest.len(), "bytes behind the answer");
            let closed =
                length == BodyLength::UntilClose && self.client.ended && !self.client.reset;
            let whole = body.is_done() || closed;
            rest.truncate(read.data);
            whole.then_some((rest, own))
        });
        let given = tries
            .last()
            .and_then(|endpoint| endpoint.script.whole.as_ref());
        match (whole, outcome) {
            (Some((_, true)), _) => assert_eq!(self.own_answers, 1),
            (Some((content, false)), Outcome::Delivered { .. }) => {
                assert_eq!(Some(&content), given, "another answer, or not all of it");
            }
            (Some((_, false)), _) => {
                assert!(given.is_some(), "it looks whole: {}", told.escape_ascii());
            }
            (None, outcome) => {
                let delivered = matches!(outcome, Outcome::Delivered { .. });
                assert!(!delivered, "it is not whole: {}", told.escape_ascii());
            }
        }
        if let Outcome::Delivered { kept: true, .. } = outcome {
            let behind = self
                .client
                .arrivals
                .iter()
                .filter_map(|(_, event)| match event {
                    Event::Bytes(bytes) => Some(bytes.as_slice()),
                    Event::Fin | Event::Reset => None,
                });
            let rest = behind.fold(self.inbox.clone(), |all, piece| [&all, piece].concat());
            let next = rest.is_empty() || rest == NEXT;
            assert!(next, "the next request is {}", rest.escape_ascii());
        }
    }
}

impl Up {
    /// Sends to the endpoint; what it does not take at once waits.
    fn send(
        &mut self,
        world: &World,
        endpoint: &mut Endpoint,
        progress: &Progress,
        bytes: Vec<u8>,
    ) {
        match endpoint.send(world.now, &bytes) {
            Sent::All => self.stuck = None,
            Sent::Stuck(count) => {
                let until = match &self.stuck {
                    Some((_, until)) if count == 0 => *until,
                    _ => world.now + SEND_IDLE,
                };
                self.stuck = Some((bytes[count..].to_vec(), until));
            }
            Sent::Failed => {
                self.stuck = None;
                progress.request_refused();
            }
        }
    }

    /// One step; true when something happened.
    fn step(
        &mut self,
        world: &mut World,
        order: &mut Order,
        endpoint: &mut Endpoint,
        progress: &Progress,
    ) -> bool {
        if let Some((bytes, until)) = self.stuck.take() {
            let late = until <= world.now;
            if late {
                endpoint.cut.get_or_insert(Fault::ConnectionWriteTimeout);
            }
            let before = bytes.len();
            self.stuck = Some((bytes.clone(), until));
            self.send(world, endpoint, progress, bytes);
            return self
                .stuck
                .as_ref()
                .is_none_or(|(bytes, _)| bytes.len() < before);
        }
        if progress.is_sent() || (!self.unframed && order.body.is_done()) {
            // All of it was sent, if it was to be.
            if progress.rest() == Rest::Forward {
                progress.request_sent();
            }
            self.over = true;
            return true;
        }
        if !self.reading {
            return self.begin_read(world, progress);
        }
        if std::mem::take(&mut self.called_off) {
            self.reading = false;
            return true;
        }
        self.read(world, order, endpoint, progress)
    }

    fn begin_read(&mut self, world: &World, progress: &Progress) -> bool {
        let rest = progress.rest();
        let since = *self.lingering_since.get_or_insert(world.now);
        match rest {
            Rest::Leave | Rest::Keep => self.over = true,
            Rest::ReadAway if LINGER_MAX < world.now - since => self.over = true,
            Rest::ReadAway => (self.until, self.lingers) = (world.now + LINGER, true),
            _ => {
                self.lingering_since = None;
                let waits = if progress.is_withheld() { CONTINUE } else { 0 };
                (self.until, self.lingers) = (world.now + BODY_IDLE + waits, false);
            }
        }
        self.reading = !self.over;
        true
    }

    fn read(
        &mut self,
        world: &mut World,
        order: &mut Order,
        endpoint: &mut Endpoint,
        progress: &Progress,
    ) -> bool {
        let received = match world.client.take(world.now) {
            Some(Event::Bytes(bytes)) => {
                world.inbox.extend(bytes);
                Ok(())
            }
            Some(Event::Fin) => Err(Fault::RequestIncomplete),
            Some(Event::Reset) => Err(Fault::ClientGone),
            None if self.until <= world.now && !self.lingers => Err(Fault::RequestTimeout),
            None if self.until <= world.now => Err(Fault::RequestIncomplete),
            None => return false,
        };
        self.reading = false;
        let framed = match received {
            Ok(()) if self.unframed => {
                world.inbox.clear();
                return true;
            }
            Ok(()) => {
                progress.body_comes();
                let passed = order.body.pass(&world.inbox);
                passed.map_err(|error| error.request_fault())
            }
            Err(fault) => Err(fault),
        };
        match (framed, progress.rest()) {
            (Ok(passed), Rest::Forward) => {
                let part = order.part(world, passed);
                order.keep(&part, progress);
                self.send(world, endpoint, progress, part);
            }
            (Ok(passed), Rest::Keep | Rest::Discard) => {
                let part = order.part(world, passed);
                order.keep(&part, progress);
            }
            (Ok(passed), _) => drop(world.inbox.drain(..passed.taken)),
            (Err(_), Rest::ReadAway | Rest::Leave) if received.is_err() => self.over = true,
            (Err(_), Rest::ReadAway | Rest::Leave) => self.drop_all(world),
            (Err(fault), _) => {
                progress.request_failed(fault);
                endpoint.cut.get_or_insert(fault);
                if received.is_ok() {
                    self.drop_all(world);
                } else {
                    self.over = true;
                }
            }
        }
        true
    }

    fn drop_all(&mut self, world: &mut World) {
        self.unframed = true;
        world.inbox.clear();
    }
}

impl Order {
    /// Takes what was passed out of the inbox: what goes on of it, trailers included.
    fn part(&mut self, world: &mut World, passed: Passed) -> Vec<u8> {
        let mut part = world.inbox[..passed.send].to_vec();
        world.inbox.drain(..passed.taken);
        if let Some(trailers) = self.body.take_trailers() {
            trailers.write(&mut part, &world.edits, None);
        }
        part
    }

    /// Keeps a part of the body as long as all of it can be kept.
    fn keep(&mut self, part: &[u8], progress: &Progress) {
        self.kept &= self.outbox.len() - self.head + part.len() <= self.keep_max;
        if self.kept {
            self.outbox.extend_from_slice(part);
        } else {
            progress.request_not_kept();
        }
    }
}

impl Down {
    fn awaits_endpoint(&self) -> bool {
        let done = self
            .answer
            .as_ref()
            .is_some_and(|answer| answer.body.is_done());
        self.ended.is_none() && !done
    }

    /// One step; true when something happened.
    fn step(
        &mut self,
        world: &mut World,
        order: &Order,
        endpoint: &mut Endpoint,
        progress: &Progress,
    ) -> bool {
        if let Some((bytes, until)) = self.stuck.take() {
            if until <= world.now {
                self.ended = Some(Err(Fault::ClientSendTimeout));
                return true;
            }
            // What has stopped to take does not begin again.
            self.stuck = Some((bytes, until));
            return false;
        }
        if self
            .answer
            .as_ref()
            .is_some_and(|answer| answer.body.is_done())
        {
            self.ended = Some(Ok(self.inbox.is_empty()));
            return true;
        }
        match endpoint.take(world.now) {
            Some(Event::Bytes(bytes)) => {
                self.inbox.extend(bytes);
                if self.answer.is_some() {
                    self.until = Some(world.now + RECEIVE_IDLE);
                }
                if let Err(fault) = self.advance(world, order, progress) {
                    self.ended = Some(Err(fault));
                }
                true
            }
            Some(end) => {
                self.ended = Some(self.at_end(end == Event::Fin, endpoint, progress));
                true
            }
            None if self.until.is_some_and(|until| until <= world.now) => {
                let late = match self.answer {
                    Some(_) => Fault::ConnectionReadTimeout,
                    None => Fault::ResponseTimeout,
                };
                endpoint.cut.get_or_insert(late);
                true
            }
            None => false,
        }
    }

    /// What it means that the endpoint's connection has ended.
    fn at_end(
        &mut self,
        fin: bool,
        endpoint: &Endpoint,
        progress: &Progress,
    ) -> Result<bool, Fault> {
        let begun = self.answer.is_some() || !self.inbox.is_empty() || progress.is_begun();
        if let Some(answer) = &mut self.answer {
            let by_us = endpoint.cut.is_some() || progress.is_failed();
            if fin && !by_us && answer.body.end().is_ok() {
                return Ok(true);
            }
        }
        Err(match endpoint.cut {
            Some(fault) => fault,
            None if begun => Fault::ResponseIncomplete,
            None => Fault::ConnectionTerminated,
        })
    }

    /// Goes on with what is in the inbox.
    fn advance(
        &mut self,
        world: &mut World,
        order: &Order,
        progress: &Progress,
    ) -> Result<(), Fault> {
        while self.answer.is_none() {
            let mut scan = HeadScan::response();
            let end = scan.find_end(&self.inbox, &LIMITS);
            let Some(length) = end.map_err(|error| error.response_fault())? else {
                return Ok(());
            };
            self.head(world, order, progress, length)?;
        }
        let Some(answer) = &mut self.answer else {
            return Ok(());
        };
        let part = if answer.unchunked {
            let read = answer.body.unchunk(&mut self.inbox);
            let read = read.map_err(|error| error.response_fault())?;
            let part = self.inbox[..read.data].to_vec();
            self.inbox.drain(..read.taken);
            part
        } else {
            let passed = answer.body.pass(&self.inbox);
            let passed = passed.map_err(|error| error.response_fault())?;
            let mut part = self.inbox[..passed.send].to_vec();
            self.inbox.drain(..passed.taken);
            if let Some(trailers) = answer.body.take_trailers() {
                trailers.write(&mut part, &world.edits, None);
            }
            part
        };
        self.tell(world, part)
    }

    /// Understands a response head and tells the client.
    fn head(
        &mut self,
        world: &mut World,
        order: &Order,
        progress: &Progress,
        length: usize,
    ) -> Result<(), Fault> {
        let facts = &order.facts;
        let mut space = FieldSpace::new();
        let head: Vec<u8> = self.inbox.drain(..length).collect();
        let response = Response::parse(&head, &LIMITS, &mut space, facts.head_method, None)
            .map_err(|error| error.response_fault())?;
        let body = Body::new(response.body, BODY_LIMITS).map_err(|error| error.response_fault())?;
        let answer = Answer {
            body,
            unchunked: unchunk(facts.minor, response.body),
            keep_alive: response.keep_alive,
            until_close: response.body == BodyLength::UntilClose,
            connection: progress.client_connection(facts, response.status, response.body, false),
        };
        let hop = ResponseHop {
            via: "simulated",
            connection: answer.connection,
            client_minor: facts.minor,
            unchunk: answer.unchunked,
            edits: &world.edits,
            backend: None,
            date: DATE,
        };
        let mut out = Vec::new();
        write_response(&mut out, &response, &hop);
        if response.interim {
            let relayed = progress.interim(response.status) && relays_interim(facts.minor);
            return if relayed {
                self.tell(world, out)
            } else {
                Ok(())
            };
        }
        self.withheld = progress.is_withheld();
        let closes = answer.connection == ClientConnection::Close;
        assert!(
            closes || !self.withheld,
            "its next bytes are body or request"
        );
        progress.answer_begins();
        // What is here of the body is framed before the head goes out.
        let mut first = answer.body.clone();
        first
            .pass(&self.inbox)
            .map_err(|error| error.response_fault())?;
        progress.answer_goes_out(response.body, answer.unchunked);
        self.until = Some(world.now + RECEIVE_IDLE);
        self.answer = Some(answer);
        self.tell(world, out)
    }

    fn tell(&mut self, world: &mut World, bytes: Vec<u8>) -> Result<(), Fault> {
        if self.stuck.is_some() {
            // It is behind what waits already.
            return Ok(());
        }
        match world.client.tell(world.now, &bytes) {
            Sent::All => Ok(()),
            Sent::Failed => Err(Fault::ClientGone),
            Sent::Stuck(count) => {
                self.stuck = Some((bytes[count..].to_vec(), world.now + SEND_IDLE));
                Ok(())
            }
        }
    }
}
