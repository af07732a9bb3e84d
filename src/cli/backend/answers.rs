//! From a request to what a dummy backend answers, without I/O.

use std::borrow::Cow;
use std::io::Write as _;

use jiff::Timestamp;

use crate::control::log::format::write_json_string;

use super::request::{Head, Refusal};

/// The most that `/bytes/N` and `/chunked/N` give: 1 GiB.
const FILLER_BYTES_MAX: u64 = 1 << 30;

/// An answer before it is put into bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer<'a> {
    /// The status code, 200 to 599.
    pub(super) status: u16,
    /// `Content-Type`.
    pub(super) content_type: Cow<'a, [u8]>,
    /// What follows the head.
    pub(super) body: Body<'a>,
}

/// An answer's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body<'a> {
    /// These bytes.
    Bytes(Cow<'a, [u8]>),
    /// So many bytes without meaning, their length announced.
    Filler(u64),
    /// So many bytes without meaning, in chunks (to HTTP/1.0: until the connection closes).
    ChunkedFiller(u64),
}

/// How the connection goes on after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// HTTP/1.1's habit: it lives, and nothing is said.
    Lives,
    /// It lives, and an HTTP/1.0 client must be told.
    LivesAsAsked,
    /// It is closed, and that is said.
    Closes,
}

impl<'a> Answer<'a> {
    /// The answer to `head` from the backend that calls itself `name` (its address and a line
    /// feed).
    pub(super) fn to(head: &'a Head, body: Vec<u8>, name: &'a [u8], now: Timestamp) -> Self {
        let path = head.path();
        if let Some(rest) = path.strip_prefix("/bytes/") {
            return Self::filler(rest, Body::Filler);
        }
        if let Some(rest) = path.strip_prefix("/chunked/") {
            return Self::filler(rest, Body::ChunkedFiller);
        }
        match (head.method(), path) {
            ("POST", "/reflect") => Self {
                status: 200,
                content_type: head
                    .field("content-type")
                    .unwrap_or(b"application/json")
                    .into(),
                body: Body::Bytes(body.into()),
            },
            (_, "/echo") => Self {
                status: 200,
                content_type: b"application/json".into(),
                body: Body::Bytes(echo(head, &body, now).into()),
            },
            _ => Self::named(200, name),
        }
    }

    /// One with `status` that says which backend answered.
    pub(super) fn named(status: u16, name: &'a [u8]) -> Self {
        Self::text(status, name)
    }

    /// The last one of a connection whose request was refused; none where nobody is left to read
    /// it.
    pub(super) fn refusing(refusal: Refusal) -> Option<Self> {
        match refusal {
            Refusal::Malformed => Some(Self::text(400, b"this is not a request\n")),
            Refusal::BodyTooLarge => Some(Self::text(413, b"the body is over 64 MiB\n")),
            Refusal::HeadTooLarge => Some(Self::text(431, b"the head is over 24 KiB\n")),
            Refusal::Gone => None,
        }
    }

    fn text(status: u16, text: &'a [u8]) -> Self {
        let content_type = b"text/plain".into();
        Self {
            status,
            content_type,
            body: Body::Bytes(text.into()),
        }
    }

    fn filler(count: &str, body: fn(u64) -> Body<'a>) -> Self {
        match count.parse() {
            Ok(bytes) if bytes <= FILLER_BYTES_MAX => Self {
                status: 200,
                content_type: b"application/octet-stream".into(),
                body: body(bytes),
            },
            _ => Self::text(400, b"allowed: 0 to 1073741824 bytes\n"),
        }
    }

    /// What follows the head in answer to `method`, where anything may (RFC 9110 section 6.4.1).
    pub(super) fn content(&self, method: &str) -> Option<&Body<'a>> {
        let has_none = method == "HEAD" || matches!(self.status, 204 | 304);
        (!has_none).then_some(&self.body)
    }

    /// Appends the head to `out`; `date` is the value of its `Date`.
    pub(super) fn write_head(&self, out: &mut Vec<u8>, date: &str, after: After, http_1_1: bool) {
        // RFC 9112 section 4: the space stays where there is no phrase.
        append(
            out,
            format_args!("HTTP/1.1 {} {}\r\n", self.status, phrase(self.status)),
        );
        // RFC 9110 section 6.6.1: an origin with a clock says when.
        append(out, format_args!("Date: {date}\r\nContent-Type: "));
        out.extend_from_slice(&self.content_type);
        out.extend_from_slice(b"\r\n");
        match &self.body {
            // RFC 9110 section 8.6: no length with a 204; we leave it out of a 304 too.
            _ if matches!(self.status, 204 | 304) => {}
            Body::Bytes(bytes) => append(out, format_args!("Content-Length: {}\r\n", bytes.len())),
            Body::Filler(bytes) => append(out, format_args!("Content-Length: {bytes}\r\n")),
            Body::ChunkedFiller(_) if http_1_1 => {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            }
            Body::ChunkedFiller(_) => {}
        }
        match after {
            After::Lives => {}
            After::LivesAsAsked => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            After::Closes => out.extend_from_slice(b"Connection: close\r\n"),
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// What the client asked, as a JSON object.
fn echo(head: &Head, body: &[u8], now: Timestamp) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + body.len());
    out.extend_from_slice(b"{\"method\":");
    write_json_string(&mut out, head.method());
    out.extend_from_slice(b",\"path\":");
    write_json_string(&mut out, &head.target());
    out.extend_from_slice(b",\"fields\":[");
    for (index, (name, value)) in head.fields().enumerate() {
        out.extend_from_slice(if index == 0 { b"[" } else { b",[" });
        write_json_string(&mut out, name);
        out.push(b',');
        write_json_string(&mut out, &String::from_utf8_lossy(value));
        out.push(b']');
    }
    out.extend_from_slice(b"],\"body\":");
    write_json_string(&mut out, &String::from_utf8_lossy(body));
    append(&mut out, format_args!(",\"timestamp\":\"{now:.3}\"}}\n"));
    out
}

/// The usual phrase, for people who read the wire.
fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        404 => "Not Found",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

fn append(out: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("a Vec takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(answer: &Answer<'_>, after: After, http_1_1: bool, expected: &str) {
        let mut out = Vec::new();
        answer.write_head(&mut out, "Sat, 21 Nov 2026 12:00:00 GMT", after, http_1_1);
        let expected = expected.replace('|', "\r\n");
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    const DATE: &str = "Date: Sat, 21 Nov 2026 12:00:00 GMT";

    #[test]
    fn a_named_answer_is_short_and_says_its_length() {
        let answer = Answer::named(200, b"127.0.0.1:9090\n");
        let head = format!("HTTP/1.1 200 OK|{DATE}|Content-Type: text/plain|Content-Length: 15||");
        check(&answer, After::Lives, true, &head);
    }

    #[test]
    fn the_connections_fate_is_said_where_it_is_not_the_habit() {
        let answer = Answer::named(404, b"");
        for (after, line) in [
            (After::LivesAsAsked, "keep-alive"),
            (After::Closes, "close"),
        ] {
            let head = format!(
                "HTTP/1.1 404 Not Found|{DATE}|Content-Type: text/plain|Content-Length: 0|\
                 Connection: {line}||"
            );
            check(&answer, after, true, &head);
        }
    }

    #[test]
    fn chunks_are_for_http_1_1_only() {
        let answer = Answer::filler("7", Body::ChunkedFiller);
        let head = format!("HTTP/1.1 200 OK|{DATE}|Content-Type: application/octet-stream|");
        check(
            &answer,
            After::Lives,
            true,
            &format!("{head}Transfer-Encoding: chunked||"),
        );
        check(
            &answer,
            After::Closes,
            false,
            &format!("{head}Connection: close||"),
        );
    }

    #[test]
    fn an_answer_without_content_says_no_length() {
        for status in [204, 304] {
            let answer = Answer::named(status, b"x");
            assert_eq!(answer.content("GET"), None);
            let head = format!(
                "HTTP/1.1 {status} {}|{DATE}|Content-Type: text/plain||",
                phrase(status)
            );
            check(&answer, After::Lives, true, &head);
        }
        assert_eq!(Answer::named(200, b"x").content("HEAD"), None);
    }

    #[test]
    fn filler_has_a_bound() {
        assert_eq!(
            Answer::filler("1073741824", Body::Filler).body,
            Body::Filler(1 << 30)
        );
        for count in ["1073741825", "-1", "", "many"] {
            assert_eq!(Answer::filler(count, Body::Filler).status, 400, "{count}");
        }
    }
}
