//! Plays one script: every side is this thread, which does one step after the other.
//!
//! Nothing sleeps: a step that reads waits for what it reads. When all steps are done every client
//! is ended, so that whatever was still to come has come: nothing may be left that no step read.

use std::any::Any;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::script::{Action, Script, Start};
use crate::support::{DEADLINE, Head, Message, Origin, Wire};
use crate::text::{Name, Text};

/// Where a script is played.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) host: &'a str,
    pub(crate) listener: SocketAddr,
    /// The script's backends in their order.
    pub(crate) backends: &'a [Stand],
}

/// What stands at one address of a script's service.
pub(crate) struct Stand {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// `None` where nobody accepts.
    pub(crate) origin: Option<Origin>,
    /// What keeps its queue full.
    _held: Option<(Socket, Wire)>,
}

impl Stand {
    /// One whose connections the script accepts.
    pub(crate) fn played(name: String) -> Self {
        let origin = Origin::new();
        Self {
            name,
            address: origin.address(),
            origin: Some(origin),
            _held: None,
        }
    }

    /// One that refuses connections.
    pub(crate) fn refusing(name: String) -> Self {
        Self {
            name,
            address: Origin::refused(),
            origin: None,
            _held: None,
        }
    }

    /// One that does not answer: with a backlog of 0 one connection is queued, and the SYN of the
    /// next one is dropped.
    pub(crate) fn full(name: String) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor is free");
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        socket.bind(&any.into()).expect("a port is free");
        socket.listen(0).expect("the socket is bound");
        let address = socket.local_addr().expect("it is bound").as_socket();
        let address = address.expect("it is IPv4");
        let queued = Wire::connect(address);
        Self {
            name,
            address,
            origin: None,
            _held: Some((socket, queued)),
        }
    }
}

/// One side of a conversation.
#[derive(Default)]
struct Actor {
    /// `None` where it has closed.
    wire: Option<Wire>,
    last: Option<Message>,
    finished: bool,
    /// Its end was read.
    over: bool,
}

/// A script that is being played.
struct Play<'a> {
    place: Place<'a>,
    actors: BTreeMap<String, Actor>,
}

/// The most that one side floods the other with before that is a failure.
const FLOOD_BYTES_MAX: usize = 512 << 20;

/// Plays `script` to its end.
///
/// # Errors
///
/// The line that did not hold, with what was expected and what came.
pub(crate) fn play(script: &Script, place: Place<'_>) -> Result<(), String> {
    let mut play = Play {
        place,
        actors: BTreeMap::new(),
    };
    let played = play.all(script);
    if played.is_err() {
        play.abandon();
    }
    played
}

/// What `act` says, a failed assertion of what it stands on included.
pub(crate) fn caught(act: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let said = |panic: Box<dyn Any + Send>| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic
            .downcast::<&str>()
            .map_or_else(|_| "a panic".to_owned(), |text| (*text).to_owned()),
    };
    catch_unwind(AssertUnwindSafe(act)).map_err(said)?
}

impl Play<'_> {
    fn all(&mut self, script: &Script) -> Result<(), String> {
        let file = &script.file;
        for step in &script.steps {
            let done = caught(|| self.act(&step.actor, &step.action));
            done.map_err(|why| format!("{file}:{}: {}: {why}", step.line, step.actor))?;
        }
        caught(|| self.end()).map_err(|why| format!("{file}: after its last line: {why}"))
    }

    /// Resets every connection, so that nothing of a script that has failed goes on.
    fn abandon(&mut self) {
        let wires = self
            .actors
            .values_mut()
            .filter_map(|actor| actor.wire.take());
        wires.for_each(Wire::reset);
    }

    fn act(&mut self, name: &str, action: &Action) -> Result<(), String> {
        match action {
            Action::Connects => self.connect(name),
            Action::Accepts { at } => self.accept(name, at.as_deref()),
            _ => {
                if name.starts_with('c') && !self.actors.contains_key(name) {
                    self.connect(name)?;
                }
                let place = self.place;
                let actor = self.actors.get_mut(name);
                let actor = actor.ok_or("it has not accepted a connection")?;
                actor.act(&place, action)
            }
        }
    }

    fn connect(&mut self, name: &str) -> Result<(), String> {
        let wire = Wire::connect(self.place.listener);
        self.enter(name, wire)
    }

    fn accept(&mut self, name: &str, at: Option<&str>) -> Result<(), String> {
        let wanted = |stand: &&Stand| at.is_none_or(|name| stand.name == name);
        let stands = self.place.backends.iter().filter(wanted);
        let origins: Vec<&Origin> = stands.filter_map(|stand| stand.origin.as_ref()).collect();
        let wire = match origins.as_slice() {
            [] => return Err("nobody accepts there".to_owned()),
            [one] => one.accept_within(DEADLINE),
            // Each in turn: it is not known which one comes.
            many => many
                .iter()
                .cycle()
                .take(many.len() * 500)
                .find_map(|origin| origin.accept_within(Duration::from_millis(10))),
        };
        self.enter(name, wire.ok_or("no connection came")?)
    }

    fn enter(&mut self, name: &str, wire: Wire) -> Result<(), String> {
        let actor = Actor {
            wire: Some(wire),
            ..Actor::default()
        };
        match self.actors.insert(name.to_owned(), actor) {
            None => Ok(()),
            Some(_) => Err("the name is taken".to_owned()),
        }
    }

    /// Ends every client and holds that nothing came which no step has read.
    fn end(&mut self) -> Result<(), String> {
        let (clients, upstreams): (Vec<_>, Vec<_>) = self
            .actors
            .iter_mut()
            .partition(|(name, _)| name.starts_with('c'));
        for (name, actor) in clients {
            let over = actor.over;
            let Some(wire) = actor.wire.as_mut().filter(|_| !over) else {
                continue;
            };
            if !actor.finished {
                wire.finish_sending();
            }
            nothing_more(name, &wire.rest())?;
        }
        for (name, actor) in upstreams {
            if let Some(wire) = actor.wire.as_mut().filter(|_| !actor.over) {
                nothing_more(name, wire.unread())?;
            }
        }
        for stand in self.place.backends {
            if stand.origin.as_ref().is_some_and(|at| !at.has_no_more()) {
                let name = &stand.name;
                return Err(format!("a connection to {name} came that no step accepts"));
            }
        }
        Ok(())
    }
}

fn nothing_more(name: &str, rest: &[u8]) -> Result<(), String> {
    if rest.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{name}: expected nothing more, got {}",
        shown(rest)
    ))
}

impl Actor {
    fn act(&mut self, place: &Place<'_>, action: &Action) -> Result<(), String> {
        let render = |text: &Text| text.bytes(|name| place.value(name));
        match action {
            Action::Has { name, value } => {
                let value = value.as_ref().map(|text| lossy(&render(text)));
                self.has(name, value.as_deref())
            }
            Action::HasNo { name } => match self.last()?.head.field(name) {
                None => Ok(()),
                Some(value) => Err(format!("expected no {name}, got {value:?}")),
            },
            Action::HasBody(body) => same("the body", &render(body), &self.last()?.body),
            Action::Resets => {
                self.wire.take().ok_or(CLOSED)?.reset();
                Ok(())
            }
            Action::Closes => {
                self.wire.take().ok_or(CLOSED)?;
                Ok(())
            }
            Action::Finishes => {
                self.finished = true;
                self.wire()?.finish_sending();
                Ok(())
            }
            Action::Sends(text) => {
                self.wire()?.send(render(text));
                Ok(())
            }
            Action::SendsBytewise(text) => {
                let wire = self.wire()?;
                for byte in render(text) {
                    wire.send([byte]);
                }
                Ok(())
            }
            Action::Floods(text) => flood(self.wire()?, &render(text)),
            Action::ReadsBytes(text) => {
                let expected = render(text);
                let came = self.wire()?.take(expected.len());
                same("the bytes", &expected, &came)
            }
            _ => self.read(action, render),
        }
    }

    /// The steps that read a message, or the end of all of them.
    fn read(&mut self, action: &Action, render: impl Fn(&Text) -> Vec<u8>) -> Result<(), String> {
        let wire = self.wire.as_mut().ok_or(CLOSED)?;
        match action {
            Action::ReadsHead(Start::Status(status)) => {
                let head = wire.head();
                self.keep(Message {
                    head,
                    body: Vec::new(),
                });
                self.has_status(*status)
            }
            Action::ReadsHead(Start::Line(line)) => {
                let head = wire.head();
                self.keep(Message {
                    head,
                    body: Vec::new(),
                });
                self.has_start(&lossy(&render(line)))
            }
            Action::ReadsRequest(line) => {
                let request = wire.request();
                self.keep(request);
                self.has_start(&lossy(&render(line)))
            }
            Action::ReadsAnswer { status, method } => {
                let answer = wire.answer_to(method);
                self.keep(answer);
                self.has_status(*status)
            }
            Action::ReadsOwn {
                status,
                label,
                method,
            } => {
                let answer = wire.answer_to(method);
                self.keep(answer);
                self.has_status(*status)?;
                self.is_own(label, method)
            }
            Action::ReadsRefusal { status, label } => {
                let answer = wire.answer();
                self.keep(answer);
                self.has_status(*status)?;
                self.is_own(label, "GET")?;
                self.has("Connection", Some("close"))?;
                self.read(&Action::ReadsFin, render)
            }
            Action::ReadsFin => {
                self.over = true;
                ended_by("FIN", Ok(0), wire)
            }
            Action::ReadsReset => {
                self.over = true;
                ended_by("RST", Err(ErrorKind::ConnectionReset), wire)
            }
            Action::ReadsEnd => {
                self.over = true;
                nothing_more("before its end", &wire.rest())
            }
            _ => Err("no step that reads".to_owned()),
        }
    }

    fn keep(&mut self, message: Message) {
        self.last = Some(message);
    }

    fn wire(&mut self) -> Result<&mut Wire, String> {
        self.wire.as_mut().ok_or_else(|| CLOSED.to_owned())
    }

    fn last(&self) -> Result<&Message, String> {
        self.last
            .as_ref()
            .ok_or_else(|| "nothing was read yet".to_owned())
    }

    fn has(&self, name: &str, value: Option<&str>) -> Result<(), String> {
        let found = self.last()?.head.field(name);
        if found.is_some() && (value.is_none() || found.as_deref() == value) {
            return Ok(());
        }
        let wanted = value.map_or_else(|| "any value".to_owned(), |value| format!("{value:?}"));
        Err(format!("expected {name} with {wanted}, got {found:?}"))
    }

    fn has_start(&self, expected: &str) -> Result<(), String> {
        let start = &self.last()?.head.start;
        if start == expected {
            return Ok(());
        }
        Err(format!("expected {expected:?}, got {start:?}"))
    }

    fn has_status(&self, expected: u16) -> Result<(), String> {
        let Message { head, body } = self.last()?;
        if head.start.starts_with(&format!("HTTP/1.1 {expected} ")) {
            return Ok(());
        }
        let Head { start, fields } = head;
        let fields = shown(format!("{fields:?}").as_bytes());
        let body = shown(body);
        Err(format!(
            "expected {expected}, got {start:?} with {fields} and {body}"
        ))
    }

    /// The answer is one of ringmain's own that tells of the fault `label`.
    fn is_own(&self, label: &str, method: &str) -> Result<(), String> {
        let last = self.last()?;
        if last.head.proxy_error().is_none() {
            return Err(format!(
                "expected an answer of ringmain's own, got {:?}",
                last.head
            ));
        }
        let text = last.text();
        if method == "HEAD" || text.ends_with(&format!(": {label}\n")) {
            return Ok(());
        }
        Err(format!("expected {label}, got {text:?}"))
    }
}

const CLOSED: &str = "it has closed its connection";

impl Place<'_> {
    fn value(&self, name: Name) -> String {
        let host = self.host;
        match name {
            Name::Host => host.to_owned(),
            Name::Marker => format!("GET /marker HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            Name::Endpoint => self.backends[0].address.to_string(),
            Name::Listener => self.listener.to_string(),
        }
    }
}

/// Waits for the end, which has to be `expected`, as [`Wire::end`] has it.
fn ended_by(what: &str, expected: Result<usize, ErrorKind>, wire: &mut Wire) -> Result<(), String> {
    let end = wire.end();
    // A look for more would take a reset away that was not read yet.
    let unread = shown(wire.unread());
    match end {
        _ if end == expected && unread == "\"\"" => Ok(()),
        Ok(1) => Err(format!("expected {what}, got a byte and {unread}")),
        _ => Err(format!("expected {what}, got {end:?} behind {unread}")),
    }
}

/// Writes `bytes` again and again until the other side has closed.
fn flood(wire: &mut Wire, bytes: &[u8]) -> Result<(), String> {
    let mut written = 0;
    while wire.try_send(bytes) {
        written += bytes.len();
        if FLOOD_BYTES_MAX < written {
            return Err(format!("{written} bytes were taken"));
        }
    }
    Ok(())
}

fn same(what: &str, expected: &[u8], came: &[u8]) -> Result<(), String> {
    if expected == came {
        return Ok(());
    }
    let at = expected
        .iter()
        .zip(came)
        .take_while(|(a, b)| a == b)
        .count();
    Err(format!(
        "{what} differ at {at}: expected {}, got {}",
        shown(expected),
        shown(came)
    ))
}

/// Bytes as a script would write them, cut where they are long.
fn shown(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 600;
    let begin = &bytes[..bytes.len().min(SHOWN_MAX)];
    let more = bytes.len() - begin.len();
    let text = begin.escape_ascii();
    if more == 0 {
        format!("\"{text}\"")
    } else {
        format!("\"{text}\" and {more} bytes more")
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
