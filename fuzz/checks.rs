//! What must hold for any bytes: each check is a fuzz target, and `tests/corpus.rs` replays its
//! corpus.

#[path = "simulation.rs"]
pub(crate) mod simulation;

use ringmain::http::framing::{Body, BodyLength, BodyLimits, FramingError};
use ringmain::http::head::{FieldSpace, HeadError, HeadLimits, HeadScan, Request, Response};
use ringmain::http::hop::{
    ClientConnection, FieldEdits, RequestHop, ResponseHop, write_request, write_response,
};

use ringmain::proxy_protocol::{self, Decoded, HEADER_BYTES_MAX, Header, HeaderError};

const HEAD_LIMITS: HeadLimits = HeadLimits {
    bytes_max: 1024,
    fields_max: 20,
};

const BODY_LIMITS: BodyLimits = BodyLimits {
    bytes_max: 4096,
    trailer_bytes_max: 256,
};

/// Fields that never cross a hop, whatever the sender asks for.
const HOP_BY_HOP: [&str; 4] = ["keep-alive", "proxy-connection", "te", "http2-settings"];
/// What goes on where it is written for the next hop.
const OF_UPGRADES: [&str; 2] = ["connection", "upgrade"];
/// What requests have offered to whose responses a head is taken.
const OFFERED: Option<&[u8]> = Some(b"websocket, a");

/// A head gives the same decision in any split; what is written for it is framed as it was.
pub(crate) fn head(bytes: &[u8]) {
    let whole = decide(HeadScan::request(), bytes, bytes.len(), request);
    assert_eq!(whole, decide(HeadScan::request(), bytes, 1, request));
    let whole = decide(HeadScan::response(), bytes, bytes.len(), response);
    assert_eq!(whole, decide(HeadScan::response(), bytes, 1, response));
}

/// What becomes of the head in `bytes`, read in pieces of `piece`: its length and framing. That a
/// head is invalid is a decision; by which of its rules that was noticed first is not.
fn decide(
    mut scan: HeadScan,
    bytes: &[u8],
    piece: usize,
    parse: impl Fn(&[u8]) -> Result<BodyLength, HeadError>,
) -> Result<Option<(usize, BodyLength)>, HeadError> {
    let mut end = 0;
    let found = loop {
        match scan.find_end(&bytes[..end], &HEAD_LIMITS) {
            Ok(None) if end < bytes.len() => end = bytes.len().min(end + piece),
            found => break found,
        }
    };
    let decision = found.and_then(|found| {
        found
            .map(|length| Ok((length, parse(&bytes[..length])?)))
            .transpose()
    });
    decision.map_err(|error| match error {
        HeadError::Invalid { .. } => HeadError::Invalid { why: "" },
        other => other,
    })
}

/// What the endpoint gets.
fn forwarded(request: &Request<'_>, edits: &FieldEdits) -> Vec<u8> {
    let hop = RequestHop {
        client: "192.0.2.1",
        via: "fuzzed",
        request_id: 1,
        edits,
        repeated: None,
    };
    let mut out = Vec::new();
    write_request(&mut out, request, &hop);
    out
}

fn request(head: &[u8]) -> Result<BodyLength, HeadError> {
    let mut space = FieldSpace::new();
    let request = Request::parse(head, &HEAD_LIMITS, &mut space)?;
    let edits = FieldEdits::default();
    let out = forwarded(&request, &edits);
    let limits = HeadLimits {
        bytes_max: usize::MAX,
        fields_max: 30,
    };
    let end = HeadScan::request().find_end(&out, &limits);
    assert_eq!(end, Ok(Some(out.len())), "one head is written");
    let mut space = FieldSpace::new();
    let written = Request::parse(&out, &limits, &mut space).expect("what we write, we take");
    assert_eq!(written.body, request.body);
    assert_eq!(written.method, request.method);
    assert_eq!((written.path, written.query), (request.path, request.query));
    assert_eq!(written.host, request.host);
    assert!(written.passed_through("fuzzed"));
    for field in written.fields {
        let name = field.name.to_ascii_lowercase();
        assert!(!HOP_BY_HOP.contains(&name.as_str()));
        assert!(request.upgrade || !OF_UPGRADES.contains(&name.as_str()));
    }
    assert_eq!(written.offer(), request.offer());
    Ok(request.body)
}

fn response(head: &[u8]) -> Result<BodyLength, HeadError> {
    let mut space = FieldSpace::new();
    let response = Response::parse(head, &HEAD_LIMITS, &mut space, false, OFFERED)?;
    let edits = FieldEdits::default();
    let hop = ResponseHop {
        date: b"Sun, 06 Nov 1994 08:49:37 GMT",
        via: "fuzzed",
        connection: ClientConnection::KeepAlive,
        client_minor: 1,
        unchunk: false,
        edits: &edits,
        backend: Some(("X-Backend", "a")),
    };
    let mut out = Vec::new();
    write_response(&mut out, &response, &hop);
    let limits = HeadLimits {
        bytes_max: usize::MAX,
        fields_max: 30,
    };
    let mut space = FieldSpace::new();
    let written =
        Response::parse(&out, &limits, &mut space, false, OFFERED).expect("what we write, we take");
    assert_eq!(written.body, response.body);
    assert_eq!(written.status, response.status);
    for field in written.fields {
        let name = field.name.to_ascii_lowercase();
        assert!(!HOP_BY_HOP.contains(&name.as_str()));
        let upgrades = matches!(response.status, 101 | 426);
        assert!(upgrades || !OF_UPGRADES.contains(&name.as_str()));
    }
    Ok(response.body)
}

/// A body is relayed the same in any split. The first line of the input says how it is framed:
/// `none`, `close`, `chunked` or a length.
pub(crate) fn framing(bytes: &[u8]) {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return;
    };
    let length = match std::str::from_utf8(&bytes[..end]) {
        Ok("none") => BodyLength::None,
        Ok("close") => BodyLength::UntilClose,
        Ok("chunked") => BodyLength::Chunked,
        Ok(number) => match number.parse() {
            Ok(number) => BodyLength::Length(number),
            Err(_) => return,
        },
        Err(_) => return,
    };
    let body = &bytes[end + 1..];
    let whole = relay(length, body, body.len().max(1));
    for piece in [1, 2, 7] {
        assert_eq!(whole, relay(length, body, piece), "in pieces of {piece}");
    }
}

/// A chunked body is decoded the same in any split, and its content survives another encoding.
pub(crate) fn chunk(bytes: &[u8]) {
    let whole = relay(BodyLength::Chunked, bytes, bytes.len().max(1));
    for piece in [1, 2, 7] {
        assert_eq!(whole, relay(BodyLength::Chunked, bytes, piece));
    }
    let Ok(relayed) = whole else {
        return;
    };
    if relayed.done {
        let sent = relay(BodyLength::Chunked, &relayed.sent, 5).expect("what we send, we take");
        assert!(sent.done && sent.taken == relayed.sent.len());
        assert_eq!(sent.content, relayed.content);
        assert_eq!(sent.sent, relayed.sent, "nothing forbidden is left");
    }
    if relayed.content.is_empty() {
        return;
    }
    let mut encoded = format!("{:x}\r\n", relayed.content.len()).into_bytes();
    encoded.extend_from_slice(&relayed.content);
    encoded.extend_from_slice(b"\r\n0\r\n\r\n");
    let again = relay(BodyLength::Chunked, &encoded, 3).expect("what we encode, we decode");
    assert_eq!(again.content, relayed.content);
    assert!(again.done);
}

/// What one hop changes is what it says, and nothing else. The first line of the input has the
/// names that an operator sets and, behind a `/`, those that are removed; the rest is a request.
pub(crate) fn hop(bytes: &[u8]) {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return;
    };
    let Ok(names) = std::str::from_utf8(&bytes[..end]) else {
        return;
    };
    let (set, remove) = names.split_once('/').unwrap_or((names, ""));
    let named = |list: &str| -> Vec<String> {
        let of_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let names = list.split(',').filter(|name| !name.is_empty());
        let valid = names.filter(|name| name.chars().all(of_name));
        // Host cannot be removed, as config.toml says; what frames is not touched.
        valid
            .map(str::to_ascii_lowercase)
            .filter(|name| !OWN.contains(&&**name))
            .collect()
    };
    let (mut set, remove) = (named(set), named(remove));
    // An expectation that is set is for the endpoint alone to judge.
    set.retain(|name| name != "expect");
    set.sort_unstable();
    set.dedup();
    // All that is written has to fit the limits that it is read with below.
    set.truncate(50);
    let edits = FieldEdits {
        set: set
            .iter()
            .map(|name| (name.as_str().into(), "set".into()))
            .collect(),
        remove: remove.iter().map(|name| name.as_str().into()).collect(),
    };
    let head = &bytes[end + 1..];
    let Ok(Some(length)) = HeadScan::request().find_end(head, &HEAD_LIMITS) else {
        return;
    };
    let mut space = FieldSpace::new();
    let Ok(request) = Request::parse(&head[..length], &HEAD_LIMITS, &mut space) else {
        return;
    };
    let out = forwarded(&request, &edits);
    let limits = HeadLimits {
        bytes_max: usize::MAX,
        fields_max: 100,
    };
    let mut space = FieldSpace::new();
    let written = Request::parse(&out, &limits, &mut space).expect("what we write, we take");
    let values = |name: &str| -> Vec<&[u8]> {
        let same = written
            .fields
            .iter()
            .filter(|field| field.name.eq_ignore_ascii_case(name));
        same.map(|field| field.value).collect()
    };
    for name in &set {
        assert_eq!(values(name), [b"set"], "{name} is set");
    }
    for name in remove.iter().filter(|name| !set.contains(name)) {
        assert_eq!(values(name), [b""; 0], "{name} is removed");
    }
    let untouched = |name: &str| !set.iter().chain(&remove).any(|edited| edited == name);
    if untouched("x-forwarded-for") {
        let last = values("x-forwarded-for").pop().unwrap_or_default();
        assert!(last.ends_with(b"192.0.2.1"), "who asked is said last");
    }
    assert!(!untouched("via") || written.passed_through("fuzzed"));
}

/// Fields that [`hop`] leaves alone: those that frame or belong to one connection, and Host.
const OWN: [&str; 8] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "upgrade",
];

/// Any text is a configuration or a list of errors; one that is taken is taken again.
pub(crate) fn config(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let taken = ringmain::config::parse("fuzzed", text).is_ok();
        assert_eq!(taken, ringmain::config::parse("fuzzed", text).is_ok());
    }
}

/// An exchange of two scripted peers ends as it must, and each time alike.
pub(crate) fn exchange(bytes: &[u8]) {
    assert_eq!(simulation::run(bytes), simulation::run(bytes));
}

#[derive(Debug, PartialEq, Eq)]
struct Relayed {
    taken: usize,
    /// What goes on, trailers included.
    sent: Vec<u8>,
    content: Vec<u8>,
    done: bool,
    may_end: bool,
}

fn relay(length: BodyLength, bytes: &[u8], piece: usize) -> Result<Relayed, FramingError> {
    let mut forwarded = Body::new(length, BODY_LIMITS)?;
    let mut unchunked = forwarded.clone();
    let (mut taken, mut sent, mut content) = (0, Vec::new(), Vec::new());
    for piece in bytes.chunks(piece) {
        let passed = forwarded.pass(piece)?;
        assert!(passed.send <= passed.taken);
        sent.extend_from_slice(&piece[..passed.send]);
        let mut piece = piece.to_vec();
        let read = unchunked.unchunk(&mut piece)?;
        assert_eq!((passed.taken, passed.done), (read.taken, read.done));
        assert!(read.data <= read.taken && (passed.done || passed.taken == piece.len()));
        taken += passed.taken;
        content.extend_from_slice(&piece[..read.data]);
        if passed.done {
            break;
        }
    }
    if let Some(trailers) = forwarded.take_trailers() {
        trailers.write(&mut sent, &FieldEdits::default(), None);
    }
    Ok(Relayed {
        taken,
        sent,
        content,
        done: forwarded.is_done(),
        may_end: forwarded.end().is_ok(),
    })
}

/// A header of the PROXY protocol gives the same decision in any split, is never longer than it may
/// be, and says the same when it is written anew.
pub(crate) fn proxy_protocol(bytes: &[u8]) {
    let decided = proxy_protocol::decode(bytes);
    assert_eq!(decided, first_decision(bytes));
    let Ok(Decoded::Whole(header)) = decided else {
        return;
    };
    assert!(header.length <= HEADER_BYTES_MAX.min(bytes.len()));
    let written = proxy_protocol::encode(header.version, header.addresses.as_ref());
    let read = proxy_protocol::decode(written.as_bytes());
    let expected = Header {
        length: written.as_bytes().len(),
        ..header
    };
    assert_eq!(read, Ok(Decoded::Whole(expected)));
}

/// What is decided of `bytes` when they come one by one. What is missing is never said to be more
/// than it is.
fn first_decision(bytes: &[u8]) -> Result<Decoded, HeaderError> {
    let mut least = 0;
    for end in 0..=bytes.len() {
        match proxy_protocol::decode(&bytes[..end]) {
            Ok(Decoded::Incomplete { missing }) => {
                assert!(0 < missing);
                least = least.max(end + missing);
            }
            decided => {
                if let Ok(Decoded::Whole(header)) = decided {
                    assert_eq!(header.length, end);
                    assert!(least <= end);
                }
                return decided;
            }
        }
    }
    proxy_protocol::decode(bytes)
}
