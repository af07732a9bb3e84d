//! What one hop changes in a head: hop-by-hop fields go, forwarding fields come.
//!
//! Fields that stay are copied in runs of whole lines, so that their order, case and bytes are the
//! sender's; a typical head is three or four copies.

use std::io::Write;

use httparse::Header;

use super::field::{Field, Learned, alike, line_begin, nominated};
use super::framing::BodyLength;
use super::head::{Request, Response};
use super::upgrade;

/// Fields that the operator sets on and removes from every message of a service.
///
/// Names compare in any case, and `_` as `-`: what is set or removed is so for a reader that takes
/// one for the other (RFC 3875 section 4.1.18). What frames a message or belongs to one connection
/// (Content-Length, Transfer-Encoding, Connection and its kin) is not touched by them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldEdits {
    /// Name and value, each replacing every field of that name.
    pub set: Box<[(Box<str>, Box<str>)]>,
    /// Names of fields to remove.
    pub remove: Box<[Box<str>]>,
}

impl FieldEdits {
    /// True exactly when the field `name` is replaced or removed.
    pub(super) fn touch(&self, name: &str) -> bool {
        let mut names = self.set.iter().map(|(name, _)| name).chain(&self.remove);
        names.any(|touched| alike(touched.as_bytes(), name.as_bytes()))
            && !Field::of(name).is_framing()
    }

    fn write(&self, out: &mut Vec<u8>) {
        for (name, value) in &self.set {
            if !Field::of(name).is_framing() {
                write_field(out, name, value);
            }
        }
    }
}

/// What a request gains and loses on its way to the endpoint.
#[derive(Clone, Copy, Debug)]
pub struct RequestHop<'a> {
    /// The client's IP address as text.
    pub client: &'a str,
    /// Our name in Via.
    pub via: &'a str,
    /// The request's id where it brings none.
    pub request_id: u128,
    /// The service's `request_set` and `request_remove`.
    pub edits: &'a FieldEdits,
    /// Of a request that is kept whole and sent to several endpoints, and to each until it has
    /// taken it: what they know it again by, where it brings no key of its own.
    pub repeated: Option<u128>,
}

/// Appends the head that the endpoint gets.
pub fn write_request(out: &mut Vec<u8>, request: &Request<'_>, hop: &RequestHop<'_>) {
    out.reserve(request.head.len() + OWN_BYTES + hop.client.len() + hop.via.len());
    out.extend_from_slice(request.method);
    // RFC 9112 section 3.2.1: an empty path is sent as "/".
    let slash: &[u8] = if request.target[0] == b'?' {
        b" /"
    } else {
        b" "
    };
    out.extend_from_slice(slash);
    out.extend_from_slice(request.target);
    // RFC 9110 section 2.5: an intermediary sends its own version.
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let rules = Rules::new(&request.learned, request.fields, hop.edits, None);
    // RFC 9112 section 3.2: a request always carries a Host, an empty one where there is no
    // authority (HTTP/1.0); RFC 9110 section 7.2: first.
    if request.host_rewritten && !rules.edited("Host") {
        write_own(out, b"Host: ", request.host);
    }
    write_lines(
        out,
        request.head,
        request.fields,
        rules.visited(&request.learned),
        |field, name| match field {
            Field::Host => request.host_rewritten || rules.edited(name),
            Field::ContentLength => false,
            // RFC 9110 section 10.1.1: the expectation of a HTTP/1.0 client is ignored.
            // What is kept whole waits for nobody's word to go on.
            Field::Expect => request.minor == 0 || hop.repeated.is_some() || rules.edited(name),
            Field::ForwardedFor => true,
            Field::MaxForwards => request.max_forwards.is_some() || rules.edited(name),
            _ => rules.drops(field, name),
        },
    );
    // One connection can't go on in another protocol at several endpoints.
    if request.upgrade && hop.repeated.is_none() {
        // RFC 9110 section 7.8: who sends an Upgrade names it in Connection.
        out.extend_from_slice(b"Connection: upgrade\r\n");
        upgrade::write(out, request.fields);
    }
    if request.body == BodyLength::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    // RFC 9110 section 7.6.2: one less with each hop.
    if let Some(hops) = request.max_forwards
        && !rules.edited("Max-Forwards")
    {
        let written = write!(out, "Max-Forwards: {}\r\n", hops.saturating_sub(1));
        written.expect("a Vec takes every write");
    }
    write_forwarding(out, request, hop, &rules);
    hop.edits.write(out);
    out.extend_from_slice(b"\r\n");
}

/// The fields by which the endpoint learns who asked, and by which way.
fn write_forwarding(
    out: &mut Vec<u8>,
    request: &Request<'_>,
    hop: &RequestHop<'_>,
    rules: &Rules<'_>,
) {
    let absent = |field: Field, name: &str| !request.learned.seen.has(field) && !rules.edited(name);
    if !rules.edited("X-Forwarded-For") {
        out.extend_from_slice(b"X-Forwarded-For: ");
        if request.learned.seen.has(Field::ForwardedFor) {
            for header in request.fields {
                if Field::of(header.name) == Field::ForwardedFor && !header.value.is_empty() {
                    out.extend_from_slice(header.value);
                    out.extend_from_slice(b", ");
                }
            }
        }
        out.extend_from_slice(hop.client.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    if absent(Field::ForwardedProto, "X-Forwarded-Proto") {
        out.extend_from_slice(b"X-Forwarded-Proto: http\r\n");
    }
    if absent(Field::ForwardedHost, "X-Forwarded-Host") && !request.host.is_empty() {
        write_own(out, b"X-Forwarded-Host: ", request.host);
    }
    if absent(Field::RequestId, "X-Request-Id") {
        write_own(out, b"X-Request-Id: ", &hexadecimal(hop.request_id));
    }
    if let Some(key) = hop.repeated {
        write_idempotency_key(out, request, key, rules);
    }
    write_via(out, request.minor, hop.via, rules);
}

/// The key by which an endpoint knows a request again that it has processed, where the request
/// brings none that goes on (draft-ietf-httpapi-idempotency-key-header: a string of RFC 8941, and a
/// UUID is recommended).
fn write_idempotency_key(out: &mut Vec<u8>, request: &Request<'_>, key: u128, rules: &Rules<'_>) {
    const NAME: &str = "Idempotency-Key";
    let is_one = |header: &Header<'_>| alike(header.name.as_bytes(), NAME.as_bytes());
    let goes_on = |header: &&Header<'_>| is_one(header) && !rules.drops(Field::Other, header.name);
    if rules.edited(NAME) || request.fields.iter().any(|header| goes_on(&header)) {
        return;
    }
    // RFC 9562 section 5.4: version 4, and the variant.
    let key = key & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let digits = hexadecimal(key);
    out.extend_from_slice(b"Idempotency-Key: \"");
    for (place, group) in [0..8, 8..12, 12..16, 16..20, 20..32]
        .into_iter()
        .enumerate()
    {
        if 0 < place {
            out.push(b'-');
        }
        out.extend_from_slice(&digits[group]);
    }
    out.extend_from_slice(b"\"\r\n");
}

/// What becomes of the client's connection after the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientConnection {
    /// Another request may follow.
    KeepAlive,
    /// We close it.
    Close,
    /// It is a tunnel, for the response is a 101.
    Tunnel,
}

/// What a response gains and loses on its way to the client.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHop<'a> {
    /// Our name in Via.
    pub via: &'a str,
    /// See [`super::exchange::Progress::client_connection`].
    pub connection: ClientConnection,
    /// The minor version of the request.
    pub client_minor: u8,
    /// See [`super::exchange::unchunk`].
    pub unchunk: bool,
    /// The service's `response_set` and `response_remove`.
    pub edits: &'a FieldEdits,
    /// Name and value of the field that names the endpoint.
    pub backend: Option<(&'a str, &'a str)>,
    /// The time now, as a Date has it.
    pub date: &'a HttpDate,
}

/// The time as RFC 9110 section 5.6.7 writes it: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub type HttpDate = [u8; 29];

/// Appends the head that the client gets.
pub fn write_response(out: &mut Vec<u8>, response: &Response<'_>, hop: &ResponseHop<'_>) {
    out.reserve(response.head.len() + OWN_BYTES + hop.via.len());
    write_status_line(out, response.status, response.reason);
    let backend = hop.backend.map(|(name, _)| name);
    let rules = Rules::new(&response.learned, response.fields, hop.edits, backend);
    // RFC 9110 section 8.6: no Content-Length in 1xx and 204.
    let lengthless = response.status < 200 || response.status == 204;
    write_lines(
        out,
        response.head,
        response.fields,
        rules.visited(&response.learned),
        |field, name| match field {
            Field::ContentLength => lengthless,
            _ => rules.drops(field, name),
        },
    );
    if response.body == BodyLength::Chunked && !hop.unchunk {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    // RFC 9110 section 6.6.1: a recipient with a clock adds it where it is missing.
    let final_one = 200 <= response.status;
    if final_one && !response.learned.seen.has(Field::Date) && !rules.edited("Date") {
        write_own(out, b"Date: ", hop.date);
    }
    write_via(out, response.minor, hop.via, &rules);
    if passes_upgrade(response, hop) {
        let close = hop.connection == ClientConnection::Close;
        let options = if close { "upgrade, close" } else { "upgrade" };
        write_field(out, "Connection", options);
        upgrade::write(out, response.fields);
    } else if !response.interim {
        write_connection(out, hop.connection, hop.client_minor);
    }
    hop.edits.write(out);
    if let Some((name, value)) = hop.backend {
        write_field(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
}

/// RFC 9110 section 7.8: a 101 says to what protocol it switches; section 15.5.22: a 426 says what
/// it demands. In any other response Upgrade is an advertisement, and made to us.
fn passes_upgrade(response: &Response<'_>, hop: &ResponseHop<'_>) -> bool {
    let demands = response.status == 426 && response.learned.seen.has(Field::Upgrade);
    response.status == 101 || (demands && hop.client_minor == 1)
}

/// RFC 9112 section 9.3: what has to be said is what the client would not assume.
pub(super) fn write_connection(out: &mut Vec<u8>, connection: ClientConnection, minor: u8) {
    match (connection, minor) {
        (ClientConnection::Close, _) => out.extend_from_slice(b"Connection: close\r\n"),
        (ClientConnection::KeepAlive, 0) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        (ClientConnection::KeepAlive | ClientConnection::Tunnel, _) => {}
    }
}

/// Appends a status line (RFC 9112 section 4).
pub(super) fn write_status_line(out: &mut Vec<u8>, status: u16, reason: &[u8]) {
    let digit = |power: u16| b'0' + (status / power % 10) as u8;
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&[digit(100), digit(10), digit(1), b' ']);
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

/// About as much as our own fields take.
const OWN_BYTES: usize = 256;

/// Which fields of one head do not go on.
struct Rules<'a> {
    /// The fields, where Connection names some of them to be removed.
    nominating: Option<&'a [Header<'a>]>,
    /// The edits, where there are any.
    edits: Option<&'a FieldEdits>,
    /// One more field that is replaced.
    replaced: Option<&'a str>,
}

impl<'a> Rules<'a> {
    fn new(
        learned: &Learned<'_>,
        fields: &'a [Header<'a>],
        edits: &'a FieldEdits,
        replaced: Option<&'a str>,
    ) -> Self {
        let edits = (!edits.set.is_empty() || !edits.remove.is_empty()).then_some(edits);
        Self {
            nominating: learned.nominates.then_some(fields),
            edits,
            replaced,
        }
    }

    /// True exactly when the operator replaces or removes the field.
    #[inline]
    fn edited(&self, name: &str) -> bool {
        self.edits.is_some_and(|edits| edits.touch(name))
            || self
                .replaced
                .is_some_and(|replaced| alike(replaced.as_bytes(), name.as_bytes()))
    }

    /// The places of the fields that may not go on; `None` where each field must be looked at.
    #[inline]
    fn visited<'b>(&self, learned: &'b Learned<'_>) -> Option<&'b [(u16, Field)]> {
        let others_stay =
            self.nominating.is_none() && self.edits.is_none() && self.replaced.is_none();
        learned.known_places().filter(|_| others_stay)
    }

    #[inline(always)]
    fn drops(&self, field: Field, name: &str) -> bool {
        match field {
            // RFC 9110 section 7.6.1. Transfer-Encoding is written anew, and Upgrade where it goes
            // on; Proxy-Authenticate and Proxy-Authorization pass (sections 11.7.1, 11.7.2): we
            // demand none, so that they are for somebody behind us.
            Field::Connection
            | Field::KeepAlive
            | Field::ProxyConnection
            | Field::Te
            | Field::Upgrade
            | Field::Http2Settings
            | Field::TransferEncoding
            | Field::Disguised => true,
            // RFC 9110 section 7.6.1: what Connection names goes too.
            Field::Other => {
                self.edited(name)
                    || self
                        .nominating
                        .is_some_and(|fields| nominated(fields, name))
            }
            // But not what we frame and route by or what says who asked: with those a client could
            // strip what a trusted hop before us has put there.
            _ => self.edited(name),
        }
    }
}

/// Copies the lines of all fields but those that `drops` names, among those at `visited` where that
/// is known.
#[inline]
fn write_lines(
    out: &mut Vec<u8>,
    head: &[u8],
    fields: &[Header<'_>],
    visited: Option<&[(u16, Field)]>,
    drops: impl Fn(Field, &str) -> bool,
) {
    let begin = |index: usize| line_begin(head, fields, index);
    let mut kept = begin(0);
    for place in 0..visited.map_or(fields.len(), <[_]>::len) {
        let (index, field) = match visited {
            Some(known) => (usize::from(known[place].0), known[place].1),
            None => (place, Field::of(fields[place].name)),
        };
        if drops(field, fields[index].name) {
            out.extend_from_slice(&head[kept..begin(index)]);
            kept = begin(index + 1);
        }
    }
    out.extend_from_slice(&head[kept..begin(fields.len())]);
}

/// RFC 9110 section 7.6.3: the version that was received, and by whom.
fn write_via(out: &mut Vec<u8>, minor: u8, via: &str, rules: &Rules<'_>) {
    if !rules.edited("Via") {
        let begin = if minor == 0 {
            b"Via: 1.0 "
        } else {
            b"Via: 1.1 "
        };
        write_own(out, begin, via.as_bytes());
    }
}

/// Always inlined: a begin of known length is a few stores.
#[inline(always)]
fn write_own(out: &mut Vec<u8>, begin: &[u8], value: &[u8]) {
    out.extend_from_slice(begin);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn write_field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    write_own(out, b": ", value.as_bytes());
}

fn hexadecimal(number: u128) -> [u8; 32] {
    let mut text = [0; 32];
    for (digits, bytes) in text
        .chunks_exact_mut(8)
        .zip(number.to_be_bytes().chunks_exact(4))
    {
        let word = bytes.first_chunk().copied().unwrap_or_default();
        digits.copy_from_slice(&eight_digits(u32::from_be_bytes(word)));
    }
    text
}

/// All eight at once, for a table's entry a digit is 150 instructions more an id.
fn eight_digits(number: u32) -> [u8; 8] {
    const EACH: u64 = u64::from_ne_bytes([1; 8]);
    // Apart: a digit in the lower half of each byte.
    let mut digits = u64::from(number);
    digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff;
    digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff;
    digits = (digits | digits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // 1 where the digit is a letter: with 6 more it does not fit its half.
    let letters = (digits + 6 * EACH) >> 4 & EACH;
    let text = digits + u64::from(b'0') * EACH + u64::from(b'a' - b'9' - 1) * letters;
    text.to_be_bytes()
}

#[cfg(test)]
mod tests;
